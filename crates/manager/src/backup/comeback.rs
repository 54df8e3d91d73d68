//! What a restore brings back to life, and what it loses: what was done since the backup, as the audit log tells it. `later` does so by another backup.

use super::calls::{Call, Effect};
use super::coverage::Coverage;
use super::{Backup, Inventory};
use crate::keys::record::parse;
use jiff::{SignedDuration, Timestamp};
use keystead_audit::{Application, Record as Audited, State};
use std::collections::{BTreeMap, HashMap, HashSet};
use uuid::Uuid;

/// How long before the moment of a backup records are looked at: clocks differ, and what was recorded as begun may have been done after it.
pub const MARGIN: SignedDuration = SignedDuration::from_mins(10);

/// What the audit log has of the time since a backup.
#[derive(Debug)]
pub struct Since {
    /// The moment of the backup.
    made: Timestamp,
    coverage: Coverage,
    /// What was done to each key: destroyed, or revoked; when, and by whom.
    ended: BTreeMap<Uuid, String>,
    /// Calls of the REST API that changed something.
    calls: Vec<Call>,
    /// Jobs that have ended: their calls may be from before the backup.
    jobs: Vec<Call>,
    /// What has begun and, as far as is known, not ended, by the number that both records have.
    begun: HashMap<Uuid, Begun>,
    /// Objects that were made over KMIP, with the SVM.
    made_over_kmip: HashMap<Uuid, String>,
    /// How many KMIP operations else changed an object: since the backup, and shortly before it.
    changed: [u64; 2],
}

/// Something whose beginning and end were seen so often.
#[derive(Debug, Default)]
struct Begun {
    begins: u32,
    ends: u32,
    what: Option<Pending>,
}

#[derive(Debug)]
enum Pending {
    Call(Call),
    /// A key, and what may have happened to it.
    Key(Uuid, String),
}

/// What a restore does beside bringing back what was lost.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Comeback {
    /// What was taken away since, and works again: destroyed keys, revoked certificates, accounts, SVMs, old credentials. A line each, in words.
    pub alive: Vec<String>,
    /// What was done since, and is lost. A line each, in words.
    pub lost: Vec<String>,
    /// Why there may be more than that. A line each, in words.
    pub doubts: Vec<String>,
}

/// KMIP operations that make objects.
const MAKERS: [&str; 4] = ["Create", "Register", "ReKey", "Import"];
/// Calls that change something, or have something made.
const METHODS: [&str; 3] = ["POST ", "PATCH ", "DELETE "];

impl Since {
    /// Nothing yet, of the time since this moment.
    pub fn new(made: Timestamp) -> Self {
        Self {
            made,
            coverage: Coverage::default(),
            ended: BTreeMap::new(),
            calls: Vec::new(),
            jobs: Vec::new(),
            begun: HashMap::new(),
            made_over_kmip: HashMap::new(),
            changed: [0; 2],
        }
    }

    /// Takes a record of a log in, whenever it was made, in whatever order, and however often it is found.
    pub fn add(&mut self, record: &Audited) {
        self.coverage.saw(record);
        if record.time < self.from() || !self.coverage.is_new(record) {
            return;
        }
        if record.application == Application::Audit {
            self.coverage.says(record);
        }
        self.pair(record);
        if record.state != State::Success {
            return;
        }
        let when = when(record);
        match record.application {
            // A key is revoked before it is destroyed, whichever of the two is read first.
            Application::Kmip if record.input == "Destroy" => self.ended.extend(record.object.map(|key| (key, format!("was destroyed {when}")))),
            Application::Kmip if record.input == "Revoke" => {
                if let Some(key) = record.object {
                    self.ended.entry(key).or_insert_with(|| format!("was revoked {when}"));
                }
            }
            Application::Kmip if MAKERS.contains(&record.input.as_str()) => {
                let svm = record.svm.as_ref().map_or_else(String::new, |svm| svm.name.clone());
                self.made_over_kmip.extend(record.object.map(|object| (object, svm)));
            }
            // What is counted hands keys out, and changes nothing.
            Application::Kmip if record.count.is_none() && record.object.is_some() => {
                let [since, early] = &mut self.changed;
                *(if record.time < self.made { early } else { since }) += 1;
            }
            Application::Http if METHODS.iter().any(|method| record.input.starts_with(method)) => self.calls.push(self.call(record)),
            Application::Job => self.jobs.push(self.call(record)),
            _ => {}
        }
    }

    /// How many records of after the backup were taken in, and of the ten minutes before it.
    pub fn records(&self) -> usize {
        self.coverage.records()
    }

    /// Compares with what stands in the backup.
    ///
    /// # Errors
    /// A line: the file cannot be read.
    pub fn compare(mut self, backup: &Backup, inventory: &Inventory) -> Result<Comeback, String> {
        let mut comeback = Comeback { doubts: self.coverage.doubts(inventory, self.made, self.from()), ..Comeback::default() };
        let failed = |error: std::io::Error| format!("the backup cannot be read: {error}");
        let unfinished: Vec<Pending> = self.begun.drain().filter(|(_, begun)| begun.begins > begun.ends).filter_map(|(_, begun)| begun.what).collect();
        for pending in &unfinished {
            if let Pending::Key(key, what) = pending {
                self.ended.entry(*key).or_insert_with(|| what.clone());
            }
        }
        let (_, mut reader) = backup.read().map_err(failed)?;
        while let Some(kept) = reader.next().map_err(failed)? {
            let Some((svm, id, destroyed)) = parse(&kept.key) else { continue };
            self.made_over_kmip.remove(&id);
            if let Some(ended) = self.ended.get(&id).filter(|_| !destroyed) {
                comeback.alive.push(format!("the key {id} of the SVM {}, which {ended}", inventory.svm_name(svm)));
            }
        }
        let called: HashSet<Uuid> = self.calls.iter().filter_map(|call| call.job).collect();
        for call in self.calls.iter().chain(self.jobs.iter().filter(|call| call.job.is_none_or(|job| !called.contains(&job)))) {
            match call.effect(inventory) {
                Effect::Alive(what) => comeback.alive.push(format!("{what} ({})", call.text())),
                // What was made shortly before the backup stands in it.
                Effect::Lost if call.is_early && call.object.is_some_and(|object| inventory.has(object)) => {}
                Effect::Lost => comeback.lost.push(call.text()),
                Effect::Nothing => {}
            }
        }
        let mut unfinished: Vec<String> = unfinished.into_iter().filter_map(|pending| pending.told(inventory)).collect();
        unfinished.sort();
        comeback.alive.append(&mut unfinished);
        let mut made = BTreeMap::<&str, u64>::new();
        for svm in self.made_over_kmip.iter().filter(|(id, _)| !self.ended.get(id).is_some_and(|ended| ended.contains("destroyed"))).map(|(_, svm)| svm) {
            *made.entry(svm).or_default() += 1;
        }
        for (svm, count) in made {
            comeback.lost.push(format!("{count} objects that were made over KMIP in the SVM {svm}: what was encrypted with them cannot be read any more"));
        }
        for (count, early) in self.changed.iter().zip(["", ", shortly before the backup, which may have them"]).filter(|(count, _)| **count > 0) {
            comeback.lost.push(format!("{count} other changes of objects over KMIP{early}"));
        }
        Ok(comeback)
    }

    /// From when on records count.
    fn from(&self) -> Timestamp {
        self.made.checked_sub(MARGIN).unwrap_or(self.made)
    }

    /// Puts beginning and end together. What has begun alone may have been done: the node died in between.
    fn pair(&mut self, record: &Audited) {
        let Some(command) = record.command_id else { return };
        let ends = record.state != State::Pending;
        let what = match record.application {
            _ if ends => None,
            Application::Http => Some(Pending::Call(self.call(record))),
            Application::Kmip => {
                let done = [("Destroy", "destroyed"), ("Revoke", "revoked")].into_iter().find(|(operation, _)| *operation == record.input);
                record
                    .object
                    .zip(done)
                    .map(|(key, (_, done))| Pending::Key(key, format!("may have been {done} {}: that it began is all that the log has of it", when(record))))
            }
            _ => None,
        };
        let begun = self.begun.entry(command).or_default();
        begun.ends += u32::from(ends);
        begun.begins += u32::from(!ends);
        begun.what = begun.what.take().or(what);
        // The usual case needs no memory.
        if begun.begins > 0 && begun.begins == begun.ends {
            self.begun.remove(&command);
        }
    }

    fn call(&self, record: &Audited) -> Call {
        Call {
            input: record.input.clone(),
            object: record.object,
            svm: record.svm.clone(),
            fields: record.fields.clone(),
            job: record.job,
            when: when(record),
            is_early: record.time < self.made,
        }
    }
}

impl Pending {
    /// A call that took something away, if it was done. Keys are told by themselves.
    fn told(self, inventory: &Inventory) -> Option<String> {
        let Self::Call(call) = self else { return None };
        match call.effect(inventory) {
            Effect::Alive(what) => Some(format!("{what}, if this was done, of which the log has the beginning alone ({})", call.text())),
            Effect::Lost | Effect::Nothing => None,
        }
    }
}

fn when(record: &Audited) -> String {
    format!("{:.0} by {}", record.time, record.user.as_deref().unwrap_or("the node itself"))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{CLUSTER, backup_of};
    use super::*;
    use crate::backup::inventory;
    use keystead_audit::Named;
    use serde_json::json;

    const SVM: Uuid = Uuid::from_u128(0x5f_0000);
    const CLIENT: Uuid = Uuid::from_u128(0xc1_0000);
    const KEY: Uuid = Uuid::from_u128(0x1);

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + second).unwrap()
    }

    fn backup() -> Backup {
        let client =
            json!({ "uuid": CLIENT, "svm": SVM, "common_name": "array-7", "serial_number": "1", "fingerprint": "2", "expiry": at(9), "revoked": null });
        let account = json!({ "name": "Otto.Müller", "role": { "name": "readonly" }, "password_hash": "" });
        let node = json!({ "uuid": Uuid::nil(), "name": "n1", "version": "1", "feature_level": 1, "address": null, "ekmip_address": null, "started": at(0) });
        backup_of(vec![
            ("/accounts/otto.müller".to_owned(), account.to_string().into_bytes()),
            (format!("/ekmip/clients/{CLIENT}"), client.to_string().into_bytes()),
            (format!("/keys/{SVM}/{KEY}"), b"\x01\0\0\0\0\0\0\0\0".to_vec()),
            (format!("/nodes/{}", Uuid::nil()), node.to_string().into_bytes()),
            (format!("/svms/{SVM}"), json!({ "uuid": SVM, "name": "svm1", "kind": "data" }).to_string().into_bytes()),
        ])
    }

    /// What comes of records, each a second after the one before; the first is of long before the backup.
    fn told(records: Vec<Audited>) -> Comeback {
        let backup = backup();
        let inventory = inventory(&backup, |_| {}).unwrap();
        assert_eq!(inventory.header.cluster, CLUSTER);
        let mut since = Since::new(at(100_000));
        since.add(&Audited { index: 1, time: at(0), ..Audited::new(Application::Audit, State::Success, "audit log opened") });
        let count = records.len();
        for (place, mut record) in records.into_iter().enumerate() {
            record.index = u64::try_from(place).unwrap() + 2;
            if record.time == Timestamp::UNIX_EPOCH {
                record.time = at(100_001);
            }
            since.add(&record);
            since.add(&record);
        }
        assert!(since.records() <= count, "none counts twice");
        since.compare(&backup, &inventory).unwrap()
    }

    fn call(input: &str) -> Audited {
        Audited::new(Application::Http, State::Success, input)
    }

    fn kmip(state: State, input: &str, object: Uuid) -> Audited {
        Audited { object: Some(object), ..Audited::new(Application::Kmip, state, input) }
    }

    #[test]
    fn paths_are_read_as_they_were_meant() {
        let encoded = CLIENT.to_string().replace('-', "%2D");
        for path in [CLIENT.to_string(), encoded, "nonsense".to_owned()] {
            let record = Audited { object: Some(CLIENT), ..call(&format!("DELETE /api/security/ekmip/clients/{path}")) };
            let told = told(vec![record]);
            assert!(told.alive[0].starts_with("the EKMIP client array-7 of the SVM svm1 ("), "{told:?}");
            assert_eq!((told.alive.len(), told.lost.len(), told.doubts.len()), (1, 0, 0));
        }
        let told = told(vec![call("PATCH /api/security/accounts/cluster1/Otto%2EM%C3%BCller")]);
        assert!(told.alive[0].starts_with("the account Otto.Müller as it was before"), "{told:?}");
    }

    #[test]
    fn what_belongs_to_the_cluster_is_told_and_what_keeps_nothing_is_not() {
        let alive = [
            "POST /api/security/ekmip/ca/switch",
            "POST /api/security/ekmip/ca/finish",
            "POST /api/security/ekmip/seal/rotate",
            "PATCH /api/security",
            "PATCH /api/security/ekmip/settings",
            "POST /api/security/key-managers/1/migrate",
        ];
        let nothing = [
            "POST /api/security/ekmip/sessions",
            "DELETE /api/security/ekmip/sessions/1",
            "POST /api/security/ekmip/preflight",
            "POST /api/security/aws-kms/1/restore",
            "PATCH /api/cluster/jobs/1",
            "DELETE /api/security/ekmip/clients",
        ];
        let lost = ["POST /api/svm/svms", "POST /api/security/ekmip/ca/prepare", "DELETE /api/security/certificates/1"];
        let told = told(alive.into_iter().chain(nothing).chain(lost).map(call).collect());
        assert_eq!((told.alive.len(), told.lost.len()), (alive.len(), lost.len()), "{told:#?}");
        assert_eq!(told.doubts, [""; 0]);
    }

    #[test]
    fn what_has_begun_alone_may_have_been() {
        let begun = |state, command| Audited { command_id: Some(Uuid::from_u128(command)), ..kmip(state, "Destroy", KEY) };
        let told_of = |records| told(records).alive;
        assert_eq!(told_of(vec![begun(State::Pending, 1), begun(State::Error, 1)]), [""; 0]);
        assert!(told_of(vec![begun(State::Pending, 1)])[0].contains("svm1, which may have been destroyed"));
        assert!(told_of(vec![begun(State::Success, 1), begun(State::Pending, 1)])[0].contains("svm1, which was destroyed"));
        let delete = Audited { command_id: Some(Uuid::from_u128(2)), state: State::Pending, ..call(&format!("DELETE /api/svm/svms/{SVM}")) };
        assert!(told_of(vec![delete])[0].starts_with("the SVM svm1, if this was done"));
    }

    #[test]
    fn what_was_done_shortly_before_the_backup_is_told_unless_it_stands_in_it() {
        let early = |record: Audited| Audited { time: at(100_000 - 300), ..record };
        let told = told(vec![
            early(kmip(State::Success, "Create", KEY)),
            early(kmip(State::Success, "Create", Uuid::from_u128(9))),
            early(Audited { object: Some(SVM), ..call("POST /api/svm/svms") }),
            early(call("POST /api/security/certificates")),
            Audited { time: at(100_000 - 700), ..call("POST /api/svm/svms") },
        ]);
        assert_eq!(told.alive, [""; 0]);
        assert_eq!(told.lost.len(), 2, "{told:?}");
        assert!(told.lost[0].contains("POST /api/security/certificates") && told.lost[0].contains("which may have it"));
        assert!(told.lost[1].starts_with("1 objects that were made over KMIP"));
    }

    #[test]
    fn a_job_of_an_earlier_call_is_told_once() {
        let path = format!("DELETE /api/svm/svms/{SVM}");
        let job = |job| Audited { job: Some(Uuid::from_u128(job)), ..Audited::new(Application::Job, State::Success, path.clone()) };
        let of_call = Audited { job: Some(Uuid::from_u128(1)), ..call(&path) };
        assert_eq!(told(vec![of_call, job(1)]).alive.len(), 1);
        assert_eq!(told(vec![job(2)]).alive.len(), 1);
    }

    #[test]
    fn a_log_that_lacks_something_says_nothing_for_sure() {
        let backup = backup();
        let inventory = inventory(&backup, |_| {}).unwrap();
        let mut since = Since::new(at(100_000));
        let other = Named { uuid: Uuid::from_u128(2), name: "n2".to_owned() };
        since.add(&Audited { index: 8, time: at(100_500), node: other.clone(), ..call("POST /api/security/ekmip/sessions") });
        let lost = Audited::new(Application::Audit, State::Error, keystead_audit::LOST);
        since.add(&Audited { index: 10, time: at(100_600), node: other, count: Some(7), ..lost });
        let doubts = since.compare(&backup, &inventory).unwrap().doubts;
        for (doubt, expected) in doubts.iter().zip(["no audit log of the node n1", "begins at", "records 9 to 9 are missing", "could not keep 7 audit records"])
        {
            assert!(doubt.contains(expected), "{doubts:#?}");
        }
        assert_eq!(doubts.len(), 4);
    }
}

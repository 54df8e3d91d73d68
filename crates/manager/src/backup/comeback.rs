//! What a restore brings back to life, and what it loses: what was done since the backup, as the audit log tells it. `later` does so by another backup.

use super::words::Told;
use super::{Backup, Inventory};
use crate::keys::record::parse;
use crate::records::{AccountRecord, AwsKmsRecord, CertificateRecord, EkmipClientCaRecord, EkmipClientRecord, Record, SvmRecord, account_key, key};
use jiff::Timestamp;
use keystead_audit::{Application, Record as Audited, State};
use std::collections::BTreeMap;
use uuid::Uuid;

/// What the audit log has of the time since a backup.
#[derive(Debug, Default)]
pub struct Since {
    /// What was done to each key: destroyed, or revoked; when, and by whom.
    ended: BTreeMap<Uuid, String>,
    /// Calls of the REST API that changed something: what, and when and by whom.
    calls: Vec<(String, String)>,
    /// How many objects were made over KMIP, by SVM.
    made: BTreeMap<String, u64>,
    /// How many KMIP operations else changed one.
    changed: u64,
    /// How many records were read.
    records: u64,
}

/// What a restore does beside bringing back what was lost.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Comeback {
    /// What was taken away since, and works again: destroyed keys, revoked certificates, accounts, SVMs, old credentials. A line each, in words.
    pub alive: Vec<String>,
    /// What was done since, and is lost. A line each, in words.
    pub lost: Vec<String>,
}

/// KMIP operations that make objects.
const MAKERS: [&str; 4] = ["Create", "Register", "ReKey", "Import"];

impl Since {
    /// Takes a record of the log in, where it was made after the moment of a backup; answers whether it was.
    pub fn add(&mut self, record: &Audited, made: Timestamp) -> bool {
        if record.time < made {
            return false;
        }
        self.records += 1;
        if record.state != State::Success {
            return true;
        }
        let by = record.user.as_deref().unwrap_or("the node itself");
        let when = format!("{:.0} by {by}", record.time);
        match record.application {
            // A key is revoked before it is destroyed, whichever of the two is read first.
            Application::Kmip if record.input == "Destroy" => self.ended.extend(record.object.map(|key| (key, format!("destroyed {when}")))),
            Application::Kmip if record.input == "Revoke" => {
                if let Some(key) = record.object {
                    self.ended.entry(key).or_insert_with(|| format!("revoked {when}"));
                }
            }
            Application::Kmip if MAKERS.contains(&record.input.as_str()) => {
                *self.made.entry(record.svm.as_ref().map_or_else(String::new, |svm| svm.name.clone())).or_default() += 1;
            }
            // What is counted hands keys out, and changes nothing.
            Application::Kmip => self.changed += u64::from(record.count.is_none() && record.object.is_some()),
            Application::Http if ["POST ", "PATCH ", "DELETE "].iter().any(|method| record.input.starts_with(method)) => {
                self.calls.push((record.input.clone(), when));
            }
            _ => {}
        }
        true
    }

    /// How many records were taken in.
    pub fn records(&self) -> u64 {
        self.records
    }

    /// Compares with what stands in the backup.
    ///
    /// # Errors
    /// A line: the file cannot be read.
    pub fn compare(&self, backup: &Backup, inventory: &Inventory) -> Result<Comeback, String> {
        let mut comeback = Comeback::default();
        let failed = |error: std::io::Error| format!("the backup cannot be read: {error}");
        let (_, mut reader) = backup.read().map_err(failed)?;
        while let Some(kept) = reader.next().map_err(failed)? {
            let Some((svm, id, false)) = parse(&kept.key) else { continue };
            if let Some(ended) = self.ended.get(&id) {
                comeback.alive.push(format!("the key {id} of the SVM {}, which was {ended}", inventory.svm_name(svm)));
            }
        }
        for (call, when) in &self.calls {
            match taken_away(call, inventory) {
                Some(what) => comeback.alive.push(format!("{what} ({call}, {when})")),
                None => comeback.lost.push(format!("{call}, {when}")),
            }
        }
        for (svm, count) in &self.made {
            comeback.lost.push(format!("{count} objects that were made over KMIP in the SVM {svm}: what was encrypted with them cannot be read any more"));
        }
        if self.changed > 0 {
            comeback.lost.push(format!("{} other changes of objects over KMIP", self.changed));
        }
        Ok(comeback)
    }
}

/// What a call took away that stands in the backup.
fn taken_away(call: &str, inventory: &Inventory) -> Option<String> {
    let (method, path) = call.split_once(' ')?;
    let path = path.split('?').next()?.strip_prefix("/api/")?;
    let parts: Vec<&str> = path.trim_end_matches('/').split('/').collect();
    let named = |id: &str| id.parse::<Uuid>().ok();
    match (method, parts.as_slice()) {
        ("DELETE", ["security", "ekmip", "clients", id]) => {
            known::<EkmipClientRecord>(inventory, named(id)?).filter(|client| client.revoked.is_none()).map(|client| client.told(inventory))
        }
        ("DELETE", ["security", "ekmip", "client-cas", id]) => told::<EkmipClientCaRecord>(inventory, named(id)?),
        ("DELETE", ["security", "certificates", id]) => told::<CertificateRecord>(inventory, named(id)?),
        ("DELETE", ["svm", "svms", id]) => told::<SvmRecord>(inventory, named(id)?),
        ("DELETE", ["security", "aws-kms", id]) => told::<AwsKmsRecord>(inventory, named(id)?),
        ("PATCH", ["security", "aws-kms", id]) => {
            let config = known::<AwsKmsRecord>(inventory, named(id)?)?;
            Some(format!("the settings and credentials that AWS KMS of the SVM {} had before", inventory.svm_name(config.svm)))
        }
        ("POST", ["security", "aws-kms", id, "rekey-external"]) => {
            let config = known::<AwsKmsRecord>(inventory, named(id)?)?;
            Some(format!("the KEK of the SVM {} under the customer key that it had before, {}", inventory.svm_name(config.svm), config.settings.key_id))
        }
        ("POST", ["security", "aws-kms", id, "rekey-internal"]) => {
            let config = known::<AwsKmsRecord>(inventory, named(id)?)?;
            Some(format!("the KEK of the SVM {} that was replaced", inventory.svm_name(config.svm)))
        }
        ("DELETE" | "PATCH", ["security", "accounts", _, name]) => {
            let account = inventory.get::<AccountRecord>(&account_key(name))?;
            Some(format!("{} as it was before, with its password then", account.told(inventory)))
        }
        ("POST", ["security", "authentication", "password"]) => Some("the password that an account had before".to_owned()),
        _ => None,
    }
}

fn known<R: Record>(inventory: &Inventory, id: Uuid) -> Option<R> {
    inventory.get::<R>(&key::<R>(id))
}

fn told<R: Told>(inventory: &Inventory, id: Uuid) -> Option<String> {
    known::<R>(inventory, id).map(|record| record.told(inventory))
}

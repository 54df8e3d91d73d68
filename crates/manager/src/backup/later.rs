//! What a restore brings back to life, and what it loses, by a second backup that was taken later: of the store that is given up. It is exact, and needs no audit log.

use super::comeback::Comeback;
use super::contents::Kept;
use super::words::Told;
use super::{Backup, Inventory, Records};
use crate::keys::record::{KeyObject, parse};
use crate::records::{
    AccountRecord, AuthorityRecord, AwsKmsRecord, CertificateRecord, ClusterRecord, EkmipClientCaRecord, EkmipClientRecord, KekRecord, KeyStoreRecord,
    OnboardKekRecord, OnboardRecord, Record, SvmRecord, key,
};
use crate::seal::Seal;
use crate::sealed_records::Sealing as _;
use crate::settings::Settings;
use keystead_store::Revision;
use std::cmp::Ordering;
use std::collections::{BTreeMap, HashSet};
use uuid::Uuid;
use zeroize::Zeroizing;

/// What differs between the attributes of a key at two times, in words that follow on "its": `None` where one of the two cannot be read. What mere use changes is none of it.
pub type Difference = dyn Fn(&[u8], &[u8]) -> Option<Vec<&'static str>> + Sync;

/// A backup, and what stands in it.
type Read<'b> = (&'b Backup, &'b Inventory);

/// Compares a backup with a later one of the same cluster. `difference` reads attributes, which this room does not.
///
/// # Errors
/// A line: the other is of another cluster, or is not later; one of the files cannot be read. A record that cannot be read is among the doubts.
pub async fn compare_later(older: Read<'_>, later: Read<'_>, difference: &Difference) -> Result<Comeback, String> {
    let (was, is) = (older.1, later.1);
    if was.header.cluster != is.header.cluster {
        return Err(format!("it is of another cluster, {} ({})", is.header.cluster_name, is.header.cluster));
    }
    if is.header.made < was.header.made {
        return Err(format!("it is older ({}) than what is to be restored ({})", is.header.made, was.header.made));
    }
    let seals = (was.seal().await?, is.seal().await?);
    let mut compared = Compared { was, is, comeback: Comeback::default() };
    compared.keys(older.0, later.0, difference)?;
    let gone = |is_gone: bool| is_gone.then_some("was deleted since");
    compared.records::<SvmRecord>(|then, now| match now {
        None => gone(true),
        Some(now) => (now != then).then_some("had another name or comment since"),
    });
    compared.records::<KeyStoreRecord>(|then, now| match now {
        None => gone(true),
        Some(now) => (now.manager != then.manager).then_some("had another key manager since"),
    });
    compared.records::<AwsKmsRecord>(|then, now| match now {
        None => gone(true),
        Some(now) => {
            let same = then.settings == now.settings && secrets(&seals.0, then) == secrets(&seals.1, now);
            (!same).then_some("had other settings or credentials since")
        }
    });
    compared.records::<KekRecord>(|then, now| match now {
        None => Some("was retired since"),
        Some(now) => (now.blob != then.blob).then_some("was wrapped anew since"),
    });
    compared.records::<OnboardRecord>(|then, now| match now {
        None => gone(true),
        Some(now) => (now.recovery != then.recovery || now.uuid != then.uuid).then_some("had another passphrase since"),
    });
    compared.records::<OnboardKekRecord>(|_, now| now.is_none().then_some("was retired since"));
    compared.records::<EkmipClientRecord>(|then, now| match now {
        _ if then.revoked.is_some() => None,
        None => gone(true),
        Some(now) => now.revoked.is_some().then_some("was revoked since"),
    });
    compared.records::<EkmipClientCaRecord>(|_, now| gone(now.is_none()));
    compared.records::<CertificateRecord>(|_, now| gone(now.is_none()));
    compared.records::<AuthorityRecord>(|then, now| match now {
        None => gone(true),
        Some(now) if now.certificate != then.certificate => Some("was switched from since"),
        Some(now) => (then.previous.is_some() && now.previous.is_none()).then_some("has the one before it trusted still, which was given up since"),
    });
    compared.records::<AccountRecord>(|then, now| match now {
        None => gone(true),
        Some(now) => (now != then).then_some("had another password, role or way to log in since"),
    });
    compared.cluster();
    Ok(compared.comeback)
}

/// The secrets of a configuration; none for those that do not open.
fn secrets(seal: &Seal, record: &AwsKmsRecord) -> Vec<(String, Option<Zeroizing<Vec<u8>>>)> {
    let mut record = record.clone();
    let opened = |place: &str, sealed: &crate::records::Base64| seal.open_bytes(place, sealed).ok();
    record.secrets("").into_iter().map(|secret| (secret.place.clone(), opened(&secret.place, secret.sealed))).collect()
}

struct Compared<'i> {
    was: &'i Inventory,
    is: &'i Inventory,
    comeback: Comeback,
}

impl Compared<'_> {
    /// Both files have their records in the same order, so that they are read side by side: destroyed keys come first.
    fn keys(&mut self, older: &Backup, later: &Backup, difference: &Difference) -> Result<(), String> {
        let (mut then, mut now) = (Keys::begin(older)?, Keys::begin(later)?);
        let (mut destroyed, mut made) = (HashSet::new(), BTreeMap::<Uuid, u64>::new());
        loop {
            let order = match (&then.next, &now.next) {
                (None, None) => break,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(then), Some(now)) => then.kept.key.cmp(&now.kept.key),
            };
            let was = if order == Ordering::Greater { None } else { then.take()? };
            let is = if order == Ordering::Less { None } else { now.take()? };
            match (was, is) {
                (_, Some(is)) if is.destroyed => drop(destroyed.insert(is.id)),
                (Some(was), None) if !was.destroyed => {
                    let what = if destroyed.contains(&was.id) { "was destroyed since" } else { "was deleted since, with its SVM" };
                    self.comeback.alive.push(format!("the key {} of the SVM {}, which {what}", was.id, self.was.svm_name(was.svm)));
                }
                (None, Some(is)) => *made.entry(is.svm).or_default() += 1,
                (Some(was), Some(is)) => self.key(was, is, difference),
                _ => {}
            }
        }
        for (svm, count) in made {
            let name = self.is.svm_name(svm);
            self.comeback.lost.push(format!("{count} keys that were made in the SVM {name} since: what was encrypted with them cannot be read any more"));
        }
        Ok(())
    }

    /// A key that is there still.
    fn key(&mut self, was: Key, is: Key, difference: &Difference) {
        if was.kept.value == is.kept.value {
            return;
        }
        let (id, svm) = (was.id, self.was.svm_name(was.svm));
        let object = |key: Key| KeyObject::decode(key.id, false, Revision(0), key.kept.value.into()).ok();
        let differs = object(was).zip(object(is)).and_then(|(was, is)| difference(was.attributes(), is.attributes()));
        match differs {
            None => self.comeback.doubts.push(format!("the key {id} of the SVM {svm} cannot be compared: its record is damaged")),
            Some(what) if !what.is_empty() => {
                self.comeback.alive.push(format!("the key {id} of the SVM {svm} as it was, with its {} of then", what.join(", ")));
            }
            Some(_) => {}
        }
    }

    /// The records of a kind. `comes_back`: what has happened to one since that the restore undoes, seen from both; the later is missing where it was deleted.
    fn records<R: Told + PartialEq>(&mut self, comes_back: impl Fn(&R, Option<&R>) -> Option<&'static str>) {
        for then in self.was.all::<R>() {
            let compared = then.and_then(|then| Ok((self.is.find::<R>(&then.key)?, then)));
            match compared {
                Ok((now, then)) => {
                    self.comeback.alive.extend(comes_back(&then.record, now.as_ref()).map(|what| format!("{}, which {what}", then.record.told(self.was))))
                }
                Err(error) => self.not_compared(error),
            }
        }
        for now in self.is.all::<R>() {
            match now {
                // One that is there, and cannot be read, was told of above.
                Ok(now) => self.comeback.lost.extend(matches!(self.was.find::<R>(&now.key), Ok(None)).then(|| now.record.told(self.is))),
                Err(error) => self.not_compared(error),
            }
        }
    }

    /// Settings and seal key.
    fn cluster(&mut self) {
        let found = self.was.find::<Settings>(&key::<Settings>("")).and_then(|was| Ok((was, self.is.find::<Settings>(&key::<Settings>(""))?)));
        match found {
            Ok((was, is)) if was != is => self.comeback.alive.push("the settings of the cluster, which were changed since".to_owned()),
            Ok(_) => {}
            Err(error) => self.not_compared(error),
        }
        let check = |inventory: &Inventory| inventory.find::<ClusterRecord>(ClusterRecord::PREFIX).map(|cluster| cluster.map(|cluster| cluster.seal_check));
        match check(self.was).and_then(|was| Ok((was, check(self.is)?))) {
            Ok((was, is)) if was != is => self.comeback.alive.push("the seal key, which was replaced since".to_owned()),
            Ok(_) => {}
            Err(error) => self.not_compared(error),
        }
    }

    fn not_compared(&mut self, error: crate::Error) {
        let doubt = format!("cannot be compared: {}", error.for_operator());
        if !self.comeback.doubts.contains(&doubt) {
            self.comeback.doubts.push(doubt);
        }
    }
}

/// The keys of a backup, in the order of their records.
struct Keys {
    reader: Records,
    next: Option<Key>,
}

struct Key {
    svm: Uuid,
    id: Uuid,
    destroyed: bool,
    kept: Kept,
}

impl Keys {
    fn begin(backup: &Backup) -> Result<Self, String> {
        let (_, reader) = backup.read().map_err(failed)?;
        let mut keys = Self { reader, next: None };
        keys.take()?;
        Ok(keys)
    }

    /// The next one, after which there is another or none.
    fn take(&mut self) -> Result<Option<Key>, String> {
        let taken = self.next.take();
        while let Some(kept) = self.reader.next().map_err(failed)? {
            if let Some((svm, id, destroyed)) = parse(&kept.key) {
                self.next = Some(Key { svm, id, destroyed, kept });
                break;
            }
        }
        Ok(taken)
    }
}

fn failed(error: std::io::Error) -> String {
    format!("the backup cannot be read: {error}")
}

#[cfg(test)]
mod tests {
    use super::super::testing::made;
    use super::*;
    use crate::backup::inventory;
    use crate::cluster::seal_check;
    use jiff::Timestamp;
    use keystead_keyring::SealKey;
    use serde_json::{Value, json};

    const SVM: Uuid = Uuid::from_u128(0x5f_0000);

    fn object(attributes: &[u8]) -> Vec<u8> {
        KeyObject::encode(0, b"", attributes)
    }

    fn record(key: &str, value: &Value) -> (String, Vec<u8>) {
        (key.to_owned(), value.to_string().into_bytes())
    }

    fn key_of(kind: &str, id: u128) -> String {
        format!("/{kind}/{SVM}/{}", Uuid::from_u128(id))
    }

    async fn compared(was: Vec<(String, Vec<u8>)>, is: Vec<(String, Vec<u8>)>) -> Comeback {
        let at = |second| Timestamp::from_second(second).unwrap();
        let (was, is) = (made(was, at(1)), made(is, at(2)));
        let (of_was, of_is) = (inventory(&was, |_| {}).unwrap(), inventory(&is, |_| {}).unwrap());
        let difference = |then: &[u8], now: &[u8]| match (then, now) {
            (b"unreadable", _) | (_, b"unreadable") => None,
            (then, now) if then == now => Some(vec![]),
            _ => Some(vec!["state", "names"]),
        };
        compare_later((&was, &of_was), (&is, &of_is), &difference).await.unwrap()
    }

    #[tokio::test]
    async fn keys_are_compared_with_all_that_counts() {
        let was = vec![
            (key_of("keys", 1), object(b"as it was")),
            (key_of("keys", 2), object(b"as it was")),
            (key_of("keys", 3), object(b"as it was")),
            (key_of("keys", 4), object(b"unreadable")),
            (key_of("keys", 5), object(b"as it was")),
            (key_of("destroyed-keys", 6), object(b"")),
        ];
        let is = vec![
            (key_of("keys", 1), object(b"as it was")),
            (key_of("keys", 2), object(b"changed")),
            (key_of("destroyed-keys", 3), object(b"as it was")),
            (key_of("keys", 4), object(b"changed")),
            (key_of("keys", 7), object(b"new")),
            (key_of("destroyed-keys", 8), object(b"")),
        ];
        let Comeback { alive, lost, doubts } = compared(was, is).await;
        let id = Uuid::from_u128;
        assert_eq!(
            alive,
            [
                format!("the key {} of the SVM {SVM} as it was, with its state, names of then", id(2)),
                format!("the key {} of the SVM {SVM}, which was destroyed since", id(3)),
                format!("the key {} of the SVM {SVM}, which was deleted since, with its SVM", id(5)),
            ]
        );
        assert!(lost.len() == 1 && lost[0].starts_with("1 keys that were made"), "{lost:?}");
        assert!(doubts.len() == 1 && doubts[0].contains(&id(4).to_string()), "{doubts:?}");
    }

    #[tokio::test]
    async fn a_record_that_cannot_be_read_is_a_doubt_and_not_the_end() {
        let svm =
            |id: u128, name: &str| record(&format!("/svms/{}", Uuid::from_u128(id)), &json!({ "uuid": Uuid::from_u128(id), "name": name, "kind": "data" }));
        let damaged = |id: u128| (format!("/svms/{}", Uuid::from_u128(id)), b"{".to_vec());
        let Comeback { alive, lost, doubts } =
            compared(vec![svm(1, "a"), damaged(2), svm(3, "c"), svm(4, "d")], vec![svm(1, "b"), svm(2, "b"), damaged(3), svm(5, "e"), damaged(6)]).await;
        assert_eq!(alive, ["the SVM a, which had another name or comment since", "the SVM d, which was deleted since"]);
        assert_eq!(lost, ["the SVM e"]);
        assert_eq!(doubts.len(), 3, "{doubts:?}");
        assert!(doubts.iter().all(|doubt| doubt.starts_with("cannot be compared: the record /svms/")), "{doubts:?}");
    }

    #[tokio::test]
    async fn the_ca_the_seal_key_and_the_onboard_key_manager_come_back_too() {
        let sealed = |byte: u8| seal_check(&SealKey::take(&mut [byte; 32]).unwrap());
        let cluster =
            |check| record("/cluster", &json!({ "uuid": Uuid::nil(), "admin_svm": Uuid::nil(), "seal_check": check, "created": "2026-01-01T00:00:00Z" }));
        let ca =
            |text: &str, previous: Option<&str>| record("/certificate-authority", &json!({ "certificate": text, "private_key": "", "previous": previous }));
        let onboard = |salt: &str| {
            let recovery = json!({ "salt": salt, "memory": 1, "passes": 1, "lanes": 1, "sealed": "" });
            let value = json!({ "uuid": Uuid::nil(), "version": 1, "sealed": "", "recovery": recovery, "check_value": "", "created": "2026-01-01T00:00:00Z" });
            record("/onboard-key-manager", &value)
        };
        let store = |manager: u128| {
            let value = json!({ "svm": SVM, "manager": Uuid::from_u128(manager), "state": "active", "kek_version": 1 });
            record(&format!("/key-stores/{SVM}"), &value)
        };
        let was = vec![cluster(sealed(7)), ca("one", None), onboard("AAAA"), store(1)];
        let is = vec![cluster(sealed(8)), ca("two", None), onboard("BBBB"), store(2)];
        let told = compared(was.clone(), is).await;
        assert_eq!(
            told.alive,
            [
                format!("the key store of the SVM {SVM}, which had another key manager since"),
                "the onboard key manager, with its key, which had another passphrase since".to_owned(),
                "the cluster's CA, which was switched from since".to_owned(),
                "the seal key, which was replaced since".to_owned(),
            ]
        );
        assert_eq!((told.lost.len(), told.doubts.len()), (0, 0));
        assert_eq!(compared(was.clone(), was.clone()).await, Comeback::default());
        let finished = compared(vec![ca("two", Some("one"))], vec![ca("two", None)]).await;
        assert!(finished.alive[0].contains("given up since"), "{finished:?}");
    }
}

//! What stands in a backup.

use super::Backup;
use super::sealed::Header;
use crate::keys::record::{BULK, parse};
use crate::records::{Record, Stored, SvmRecord};
use crate::{SealSource, seal::Seal};
use async_trait::async_trait;
use keystead_store::{Entry, Revision};
use std::collections::BTreeMap;
use std::io::Result;
use std::sync::Arc;
use uuid::Uuid;
use zeroize::Zeroizing;

/// What stands in a backup that is whole: all but the keys themselves, and the events.
pub struct Inventory {
    /// Who made it, and when.
    pub header: Header,
    /// The seal key, as its source gave it.
    pub seal_key: Zeroizing<Vec<u8>>,
    /// The revision that it is of.
    pub revision: u64,
    /// How many records there are.
    pub records: u64,
    /// How many keys of each SVM are not destroyed.
    pub keys: BTreeMap<Uuid, u64>,
    small: BTreeMap<String, Entry>,
}

/// Reads a backup to its end: what is damaged or was changed anywhere in it is noticed here.
///
/// # Errors
/// `InvalidData`: it is no backup, the key is another one, or it is not whole. Those of the file.
pub fn inventory(backup: &Backup, mut progress: impl FnMut(u64)) -> Result<Inventory> {
    let (header, mut reader) = backup.read()?;
    let (mut records, mut keys, mut small) = (0, BTreeMap::<Uuid, u64>::new(), BTreeMap::new());
    while let Some(kept) = reader.next()? {
        records += 1;
        progress(records);
        match parse(&kept.key) {
            Some((svm, _, false)) => *keys.entry(svm).or_default() += 1,
            _ if BULK.iter().any(|bulk| kept.key.starts_with(bulk)) || kept.key.starts_with("/events/") => {}
            _ => {
                let entry = Entry { key: kept.key.clone(), value: kept.value.into(), created: Revision(0), revision: Revision(0), lease: None };
                small.insert(kept.key, entry);
            }
        }
    }
    Ok(Inventory { header, seal_key: Zeroizing::new(reader.seal_key.to_vec()), revision: reader.revision, records, keys, small })
}

impl Inventory {
    /// The records of a kind. One that cannot be read is an error that names it.
    pub(super) fn all<R: Record>(&self) -> impl Iterator<Item = crate::Result<Stored<R>>> {
        self.small.range(R::PREFIX.to_owned()..).take_while(|(key, _)| key.starts_with(R::PREFIX)).map(|(_, entry)| Stored::decode(entry))
    }

    /// One record.
    pub(super) fn get<R: Record>(&self, key: &str) -> Option<R> {
        self.small.get(key).and_then(|entry| Stored::<R>::decode(entry).ok()).map(|stored| stored.record)
    }

    /// One record; an error that names it where it cannot be read.
    pub(super) fn find<R: Record>(&self, key: &str) -> crate::Result<Option<R>> {
        let stored = self.small.get(key).map(Stored::<R>::decode).transpose()?;
        Ok(stored.map(|stored| stored.record))
    }

    /// Whether there is a record of this identifier.
    pub(super) fn has(&self, object: Uuid) -> bool {
        let id = object.to_string();
        self.small.keys().any(|key| key.rsplit_once('/').is_some_and(|(_, last)| last == id))
    }

    /// The name of an SVM.
    pub(super) fn svm_name(&self, svm: Uuid) -> String {
        self.get::<SvmRecord>(&crate::records::key::<SvmRecord>(svm)).map_or_else(|| svm.to_string(), |svm| svm.name)
    }

    /// What opens the secrets in it.
    ///
    /// # Errors
    /// A line: its seal key has another length.
    pub(super) async fn seal(&self) -> std::result::Result<Seal, String> {
        Seal::open(Arc::new(Given(self.seal_key.clone()))).await
    }
}

/// A seal key that is at hand.
struct Given(Zeroizing<Vec<u8>>);

#[async_trait]
impl SealSource for Given {
    async fn fetch(&self) -> std::result::Result<Zeroizing<Vec<u8>>, String> {
        Ok(self.0.clone())
    }

    fn describe(&self) -> String {
        "the seal key of the backup".to_owned()
    }
}

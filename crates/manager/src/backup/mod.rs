//! Backups of a whole cluster: taken from a snapshot of the store while all goes on, sealed, and proven by a drill.
//!
//! | file | what |
//! |---|---|
//! | `sealed` | the file: who made it, and all else in pieces that nobody can change |
//! | `contents` | what is in it: the seal key, and all records |
//! | `inventory` | reading it once, whole: what stands in it |
//! | `restore` | writing it into an empty store |
//! | `comeback` | what a restore brings back to life, and what it loses, by the audit log |
//! | `later` | the same by a later backup |
//! | `words` | records in words |
//! | `drill` | whether everything could be recovered from it |

mod comeback;
mod contents;
mod drill;
mod inventory;
mod later;
mod restore;
mod sealed;
mod words;

pub use comeback::{Comeback, Since};
pub use drill::{Drill, KekProof, SvmProof, drill};
pub use inventory::{Inventory, inventory};
pub use later::compare_later;
pub use restore::{Restored, check_empty, restore};
pub use sealed::{Header, Key, Lock, SHORTEST_PASSPHRASE, Sealer, header, new_identity};

use crate::SealSource;
use crate::cluster::is_sealed_with;
use crate::keys::record::parse;
use crate::records::{ClusterRecord, Stored, key};
use crate::settings::Settings;
use contents::{Lines, Reader};
use jiff::Timestamp;
use keystead_keyring::{KEY_BYTES, SealKey};
use keystead_store::snapshot::Snapshot;
use sealed::Opener;
use std::io::{BufRead, BufReader, Write};
use uuid::Uuid;

/// A backup that was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// The cluster.
    pub cluster: Uuid,
    /// Its name.
    pub cluster_name: String,
    /// The revision that it is of.
    pub revision: u64,
    /// How many records there are.
    pub records: u64,
    /// How many of them are keys that are not destroyed.
    pub keys: u64,
}

/// Takes a backup of a moment of the store. `progress` is told how many records are written, after each page.
///
/// # Errors
/// A line for the operator: the store or the seal key cannot be read, they do not belong together, or `out` cannot be written.
pub async fn take<W: Write>(
    snapshot: &mut dyn Snapshot,
    seal: &dyn SealSource,
    out: W,
    lock: &Lock,
    version: &str,
    now: Timestamp,
    mut progress: impl FnMut(u64),
) -> Result<(W, Taken), String> {
    let text = |error: crate::Error| error.detail.unwrap_or(error.message);
    let mut read = async |key: String| {
        let entry = snapshot.get(&key).await.map_err(of_store)?;
        entry.ok_or_else(|| "there is no cluster in this store yet".to_owned())
    };
    let cluster = Stored::<ClusterRecord>::decode(&read(key::<ClusterRecord>("")).await?).map_err(text)?.record;
    let cluster_name = Stored::<Settings>::decode(&read(key::<Settings>("")).await?).map_err(text)?.record.cluster_name;
    let seal_key = seal.fetch().await?;
    let mut keys = seal_key.chunks_exact(KEY_BYTES).filter_map(|bytes| SealKey::take(&mut zeroize::Zeroizing::new(bytes.to_vec())));
    if !keys.any(|key| is_sealed_with(&key, &cluster.seal_check)) {
        return Err("the seal key is not the one that this store was sealed with: a backup with it would be worth nothing".to_owned());
    }
    let written = |error: std::io::Error| format!("the backup cannot be written: {error}");
    let sealer = Sealer::begin(out, (cluster.uuid, &cluster_name), now, version, lock).map_err(|error| match error.kind() {
        std::io::ErrorKind::InvalidInput => error.to_string(),
        _ => written(error),
    })?;
    let revision = snapshot.revision().0;
    let mut lines = Lines::begin(sealer, &seal_key, revision).map_err(written)?;
    let mut taken = Taken { cluster: cluster.uuid, cluster_name, revision, records: 0, keys: 0 };
    while let Some(page) = snapshot.next().await.map_err(of_store)? {
        for entry in page.iter().filter(|entry| entry.lease.is_none()) {
            lines.record(&entry.key, &entry.value).map_err(written)?;
            taken.records += 1;
            taken.keys += u64::from(parse(&entry.key).is_some_and(|(_, _, destroyed)| !destroyed));
        }
        progress(taken.records);
    }
    let (sealer, _) = lines.finish().map_err(written)?;
    Ok((sealer.finish().map_err(written)?, taken))
}

fn of_store(error: keystead_store::Error) -> String {
    match error {
        keystead_store::Error::Compacted { .. } => {
            "etcd has compacted its history while the backup was taken; take it again, or let etcd keep more (--auto-compaction-retention)".to_owned()
        }
        error => error.to_string(),
    }
}

/// The file of a backup, read from its beginning.
type Source = Box<dyn BufRead + Send>;
/// What is sealed in it.
type Records = Reader<BufReader<Opener<Source>>>;

/// A backup that can be read as often as is needed.
pub struct Backup {
    open: Box<dyn Fn() -> std::io::Result<Source> + Send + Sync>,
    key: Key,
}

impl Backup {
    /// `open` opens the file anew, at its beginning.
    pub fn new(key: Key, open: impl Fn() -> std::io::Result<Source> + Send + Sync + 'static) -> Self {
        Self { open: Box::new(open), key }
    }

    fn read(&self) -> std::io::Result<(Header, Records)> {
        let (header, opener) = Opener::open((self.open)()?, &self.key)?;
        Ok((header, Reader::begin(BufReader::new(opener))?))
    }
}

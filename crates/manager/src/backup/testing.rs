//! Backups for tests, of whatever records.

use super::contents::Lines;
use super::sealed::{Key, Lock, Sealer, new_identity};
use super::{Backup, Source};
use jiff::Timestamp;
use std::io::BufReader;
use uuid::Uuid;

/// The cluster that they are of.
pub(super) const CLUSTER: Uuid = Uuid::from_u128(0xc105);

/// A backup of these records.
pub(super) fn backup_of(records: Vec<(String, Vec<u8>)>) -> Backup {
    made(records, Timestamp::from_second(1_100_000).unwrap())
}

/// The same of another moment. The records are put into their order.
pub(super) fn made(mut records: Vec<(String, Vec<u8>)>, moment: Timestamp) -> Backup {
    records.sort();
    let (identity, recipient) = new_identity().unwrap();
    let sealer = Sealer::begin(Vec::new(), (CLUSTER, "cluster1"), moment, "1.2.3", &Lock::Recipient(recipient)).unwrap();
    let mut lines = Lines::begin(sealer, &[7; 32], 42).unwrap();
    for (key, value) in records {
        lines.record(&key, &value).unwrap();
    }
    let file = lines.finish().unwrap().0.finish().unwrap();
    Backup::new(Key::Identity(identity), move || Ok(Box::new(BufReader::new(std::io::Cursor::new(file.clone()))) as Source))
}

//! The store of a cluster: etcd, over its v3 API.
//!
//! # Where records are
//!
//! Under a prefix that several clusters of one etcd tell themselves apart by: a record `/svms/1` is etcd's key `<prefix>/records/svms/1`. Beside them are the slots, `<prefix>/slots/…`, by
//! which a transaction without an answer is settled (`slots.rs`); and `<prefix>/records`, which every
//! transaction writes, so that it can be asked what the last one was.
//!
//! # What etcd promises, and what is added
//!
//! Transactions and reads are linearizable, a watch has all changes of a revision in one message ("KV API guarantees", etcd 3.4). Its client does not turn to another member when one is away,
//! and an answer that does not come leaves open what happened: `members.rs` does the first, `transaction.rs` finds out the second by asking again.
//!
//! # Bounds
//!
//! etcd refuses more than 128 comparisons or operations in a transaction (`--max-txn-ops`) and requests of more than 1.5 MiB (`--max-request-bytes`); one comparison and two writes are the slot's and the head's.

mod members;
mod range;
mod slots;
mod snapshot;
mod transaction;
mod watch;

use crate::Store;
use crate::error::{Error, Result};
use crate::types::{Entry, LeaseId, Page, Range, Revision, Txn, Watch};
use async_trait::async_trait;
use etcd_client::KeyValue;
use members::Members;
use slots::Slots;
pub use snapshot::EtcdSnapshot;
use std::sync::Arc;
use std::time::Duration;

/// The longest prefix, in bytes: with it, the longest keys of the largest transaction are within etcd's bound.
const MAX_PREFIX_BYTES: usize = 64;
/// The shortest and the longest lease. etcd itself gives no less than one and a half elections, 2 s by default: a shorter one lasts that long.
const LEASE_BOUNDS: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3_600);

/// Where an etcd is, and how to speak to it.
#[derive(Debug, Clone)]
pub struct EtcdOptions {
    /// The client URLs of the members, `https://` or `http://` each. More than one, so that one may be away.
    pub endpoints: Vec<String>,
    /// What all keys start with, without a slash at the end; at most 64 bytes.
    pub prefix: String,
    /// TLS; `None` for `http://`.
    pub tls: Option<EtcdTls>,
}

/// Mutual TLS with etcd. All in PEM.
#[derive(Clone)]
pub struct EtcdTls {
    /// The CAs that may have issued the members' certificates.
    pub ca: Vec<u8>,
    /// This node's certificate as a client of etcd.
    pub certificate: Vec<u8>,
    /// Its private key.
    pub key: zeroize::Zeroizing<Vec<u8>>,
}

impl std::fmt::Debug for EtcdTls {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("EtcdTls").finish_non_exhaustive()
    }
}

/// A store in an etcd. Dropping it ends its connections; what it had acknowledged stays.
pub struct EtcdStore {
    members: Arc<Members>,
    slots: Arc<Slots>,
    names: Names,
}

impl EtcdStore {
    /// Makes the store. Nothing is asked yet: a node starts also while etcd is away.
    ///
    /// # Errors
    /// [`Error::Refused`]: no endpoint, an endpoint that is no URL, a prefix that is too long or ends with a slash, certificates that cannot be read.
    pub fn new(options: &EtcdOptions) -> Result<Self> {
        let names = Names::new(&options.prefix)?;
        let members = Arc::new(Members::new(&options.endpoints, options.tls.as_ref())?);
        let slots = Arc::new(Slots::new(Arc::clone(&members), names.clone()));
        Ok(Self { members, slots, names })
    }

    /// Asks every endpoint which cluster it belongs to.
    ///
    /// # Errors
    /// [`Error::Refused`]: they belong to different clusters. [`Error::Unavailable`]: none answers.
    pub async fn check_members(&self) -> Result<()> {
        self.members.check().await
    }
}

#[async_trait]
impl Store for EtcdStore {
    async fn get(&self, key: &str) -> Result<Option<Entry>> {
        range::get(&self.members, &self.names, key).await
    }

    async fn range(&self, range: Range) -> Result<Page> {
        range::range(&self.members, &self.names, &range, None).await
    }

    async fn transact(&self, txn: Txn) -> Result<Revision> {
        txn.check()?;
        transaction::transact(&self.members, &self.slots, &self.names, txn).await
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<Watch> {
        Ok(watch::start(Arc::clone(&self.members), self.names.clone(), prefix, after))
    }

    async fn grant_lease(&self, ttl: Duration) -> Result<LeaseId> {
        if !LEASE_BOUNDS.contains(&ttl) {
            return Err(Error::TooLarge("a lease lasts from 1 s to 1 h".to_owned()));
        }
        // One that was granted without our hearing of it ends by itself.
        self.members.grant(ttl).await
    }

    async fn renew_lease(&self, lease: LeaseId) -> Result<()> {
        self.members.keep_alive(lease).await
    }

    async fn revoke_lease(&self, lease: LeaseId) -> Result<()> {
        let id = number(lease.0);
        match self.members.call(|mut client| async move { client.lease_revoke(id).await.map(drop) }).await {
            // Asking again after a lost answer finds it gone, as does whoever comes second.
            Ok(()) | Err(Error::LeaseGone) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn identity(&self) -> Result<String> {
        Ok(format!("etcd {:x} {}", self.members.cluster().await?, self.names.prefix))
    }

    fn describe(&self) -> String {
        format!("etcd {} ({})", self.members.describe(), self.names.prefix)
    }
}

/// How records and slots are called in etcd.
#[derive(Clone)]
struct Names {
    prefix: Arc<str>,
    records: Arc<str>,
}

impl Names {
    fn new(prefix: &str) -> Result<Self> {
        if prefix.is_empty() || prefix.len() > MAX_PREFIX_BYTES || prefix.ends_with('/') {
            return Err(Error::Refused(format!("the prefix \"{prefix}\" must have 1 to {MAX_PREFIX_BYTES} bytes and no slash at its end")));
        }
        Ok(Self { prefix: prefix.into(), records: format!("{prefix}/records").into() })
    }

    fn record(&self, key: &str) -> String {
        format!("{}{key}", self.records)
    }

    fn slot(&self, owner: i64, number: usize) -> String {
        format!("{}/slots/{owner:016x}/{number:03}", self.prefix)
    }

    /// A key that every transaction writes: its revision is that of the last one.
    fn head(&self) -> String {
        // Just before the records, whose keys go on with a slash, so that one watch has both.
        self.records.to_string()
    }

    /// The record that an etcd key names.
    fn key(&self, name: &[u8]) -> Result<String> {
        let text = std::str::from_utf8(name).ok().and_then(|name| name.strip_prefix(&*self.records));
        text.map(str::to_owned).ok_or_else(|| Error::Damaged(format!("etcd holds a key under {} that is no text", self.prefix)))
    }

    fn entry(&self, kv: &KeyValue) -> Result<Entry> {
        Ok(Entry {
            key: self.key(kv.key())?,
            value: kv.value().to_vec().into(),
            created: revision(kv.create_revision()),
            revision: revision(kv.mod_revision()),
            lease: (kv.lease() != 0).then(|| LeaseId(kv.lease().cast_unsigned())),
        })
    }
}

/// The first key behind all that start with `prefix`: its last byte counted up. Text has no byte 255, so that always is one of the same length.
fn end_of(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    end
}

/// etcd counts in signed numbers, which are never negative.
fn revision(number: i64) -> Revision {
    Revision(u64::try_from(number).unwrap_or(0))
}

fn number(value: u64) -> i64 {
    value.cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_have_their_bounds() {
        assert!(Names::new("/keystead").is_ok());
        for prefix in ["", "/", "/keystead/", &"x".repeat(65)] {
            assert!(matches!(Names::new(prefix), Err(Error::Refused(_))), "{prefix}");
        }
    }

    #[test]
    fn a_range_ends_behind_the_last_of_its_prefix() {
        assert_eq!(end_of("/a/"), b"/a0");
        let end = end_of("/ü");
        assert!("/ü\u{10ffff}".as_bytes() < end.as_slice() && "/ý".as_bytes() >= end.as_slice());
    }

    #[test]
    fn names_lead_back_to_their_records() {
        let names = Names::new("/k").unwrap();
        assert_eq!(names.key(names.record("/svms/1").as_bytes()), Ok("/svms/1".to_owned()));
        assert!(names.key(names.slot(1, 2).as_bytes()).is_err());
        assert!(names.key(b"/k/records\xff").is_err());
    }

    #[test]
    fn private_keys_are_not_printed() {
        let tls = EtcdTls { ca: vec![], certificate: vec![], key: zeroize::Zeroizing::new(b"planted-secret".to_vec()) };
        assert!(!format!("{tls:?}").contains("planted"));
    }
}

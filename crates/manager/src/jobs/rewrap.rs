//! Wrapping every key of an SVM again under the current version of its KEK, while the service goes on: what rekey-internal and a move to another key manager have in common.
//!
//! Keys are wrapped again in batches, each a transaction of its own. Since no key is made under an older version any more, a whole pass that has found none is the end. It can stop after any
//! transaction, on any node: whoever goes on looks for keys under older versions.

use super::context::JobContext;
use crate::inner::Inner;
use crate::keys::record::{KeyObject, parse};
use crate::records::keys_prefix;
use crate::{Code, Error, Result};
use keystead_keyring::Kek;
use keystead_store::{Compare, Error as StoreError, Page, Range, Revision, Txn};
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

/// How many keys are read at a time, and at most wrapped again by one transaction.
const BATCH: usize = 100;
/// How many keys are read at a time where they are only counted.
const PAGE: usize = 1_000;
/// How many bytes of keys go in one transaction at most; well under the store's limit.
const BATCH_BYTES: usize = 512 * 1024;
/// How often it is told how far it is: that is a transaction of its own, which would take as long as a batch.
const TELL: Duration = Duration::from_secs(1);
/// How long to wait when the store is away.
const AWAY: Duration = Duration::from_millis(500);
/// How long the KEKs may take to arrive after a start.
const ARRIVAL: Duration = Duration::from_secs(60);

/// Wraps all keys of the SVM by this version, which new keys are made under already. Returns how many were wrapped again.
///
/// `proof`: when AWS was asked for what allows it; then a denial that is newer ends it.
///
/// # Errors
/// 65537538 such a denial; 65537556 while a KEK is not to be had; 65536884 a key's record that fails its tag; the store.
pub(super) async fn all(job: &JobContext, svm: Uuid, version: u32, proof: Option<Duration>) -> Result<usize> {
    let manager = &job.manager;
    arrived(job, svm, version).await?;
    // As this node sees it now; keys that are destroyed meanwhile make it fewer.
    let all = manager.view.keys().svm(&*manager.store, svm).await?.not_under(version);
    // No key is made under an older version any more: whatever shows this moment shows all keys that are.
    let since = loop {
        match manager.store.transact(Txn::new()).await {
            Ok(revision) => break revision,
            Err(StoreError::Unavailable(_) | StoreError::Indeterminate(_)) => tokio::time::sleep(AWAY).await,
            Err(error) => return Err(error.into()),
        }
    };
    let mut run = Run { all, proof, done: 0, told: None, last: since };
    while pass(job, svm, version, &mut run).await? > 0 {
        // To look whether that was all, larger pages do.
        manager.view.reached(run.last).await;
        match count_in_pages(manager, svm, version, run.last).await {
            Ok(0) => {
                still_allowed(job, svm, proof)?;
                break;
            }
            Ok(_) => {}
            Err(error) if error.code == Code::OutOfQuorum => tokio::time::sleep(AWAY).await,
            Err(error) => return Err(error),
        }
    }
    Ok(run.done)
}

/// How far it is.
struct Run {
    /// How many keys there were to wrap at the start.
    all: usize,
    /// When AWS was asked for what allows it.
    proof: Option<Duration>,
    /// How many were wrapped again.
    done: usize,
    /// When that was last told.
    told: Option<tokio::time::Instant>,
    /// The revision of the last batch; before the first, one at which new keys were under the new version already.
    last: Revision,
}

impl Run {
    async fn tell(&mut self, job: &JobContext, version: u32) {
        if self.told.is_none_or(|told| told.elapsed() >= TELL) {
            job.progress(format!("{} of {} keys are wrapped by version {version}", self.done, self.all.max(self.done))).await;
            self.told = Some(tokio::time::Instant::now());
        }
    }
}

/// How many keys of the SVM are wrapped by another version than this one, read from the store itself.
///
/// # Errors
/// A record is damaged; the store cannot be read.
pub(super) async fn count_not_under(manager: &Inner, svm: Uuid, version: u32) -> Result<usize> {
    count_in_pages(manager, svm, version, Revision(u64::MAX)).await
}

/// The same at this revision or later.
async fn count_in_pages(manager: &Inner, svm: Uuid, version: u32, since: Revision) -> Result<usize> {
    let mut count = 0;
    let mut range = Range::prefix(keys_prefix(svm), PAGE);
    loop {
        let page = read_since(manager, range.clone(), since).await.map_err(Error::from)?;
        range.after = page.entries.last().map(|entry| entry.key.clone());
        for entry in page.entries {
            if let Some((_, id, destroyed)) = parse(&entry.key) {
                let object = KeyObject::decode(id, destroyed, entry.revision, entry.value)?;
                count += usize::from(object.kek_version != 0 && object.kek_version != version);
            }
        }
        if !page.more {
            return Ok(count);
        }
    }
}

/// A page as it is at this revision or later: from a copy on this machine where that has come so far.
async fn read_since(manager: &Inner, range: Range, since: Revision) -> keystead_store::Result<Page> {
    match manager.store.range_recent(range.clone()).await {
        Ok(page) if page.revision >= since => Ok(page),
        _ => manager.store.range(range).await,
    }
}

/// # Errors
/// 65537538 where AWS has denied the customer key since it was asked for a proof.
pub(super) fn still_allowed(job: &JobContext, svm: Uuid, proof: Option<Duration>) -> Result<()> {
    match proof {
        Some(asked) if job.manager.denied_since(svm, asked) => {
            Err(Error::with(Code::KeyUnusable, "AWS KMS has denied the customer key since it was proven; start again when it allows the move"))
        }
        _ => Ok(()),
    }
}

/// Goes once through the keys of the SVM. Returns how many were wrapped again.
async fn pass(job: &JobContext, svm: Uuid, version: u32, run: &mut Run) -> Result<usize> {
    let manager = &job.manager;
    let before = run.done;
    let mut range = Range::prefix(keys_prefix(svm), BATCH);
    let since = run.last;
    manager.view.reached(since).await;
    let mut read = read_since(manager, range.clone(), since).await;
    loop {
        // Anew for each page: while the job holds a KEK, a block does not wipe it.
        let kek = loaded(manager, svm, version)?;
        still_allowed(job, svm, run.proof)?;
        let page = match read {
            Ok(page) => page,
            Err(StoreError::Unavailable(_)) => {
                drop(kek);
                tokio::time::sleep(AWAY).await;
                read = manager.store.range(range.clone()).await;
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        let mut objects = Vec::new();
        for entry in &page.entries {
            if let Some((_, id, destroyed)) = parse(&entry.key) {
                let object = KeyObject::decode(id, destroyed, entry.revision, entry.value.clone())?;
                if object.kek_version != 0 && object.kek_version != version {
                    objects.push((entry.key.clone(), object));
                }
            }
        }
        let count = objects.len();
        let next = Range { after: page.entries.last().map(|entry| entry.key.clone()), ..range.clone() };
        // The next page is read while this one is written. What changes in it meanwhile is found by the comparison, as it is in this one.
        let reading = async { if page.more { Some(read_since(manager, next.clone(), since).await) } else { None } };
        let (rewrapped, following) = tokio::join!(rewrap(job, svm, &kek, objects, &mut run.last), reading);
        if rewrapped? {
            run.done += count;
            if count > 0 {
                run.tell(job, version).await;
            }
            match following {
                Some(following) => (range, read) = (next, following),
                None => return Ok(run.done - before),
            }
        } else {
            read = manager.store.range(range.clone()).await;
        }
    }
}

/// A key's record under the new KEK, and what it replaces.
struct Rewrapped {
    key: String,
    revision: Revision,
    id: Uuid,
    value: Vec<u8>,
}

/// Wraps a page of keys again. `false`: one of them was changed meanwhile; read them again.
async fn rewrap(job: &JobContext, svm: Uuid, kek: &Arc<Kek>, objects: Vec<(String, KeyObject)>, last: &mut Revision) -> Result<bool> {
    let manager = &job.manager;
    let mut batches: Vec<Vec<Rewrapped>> = vec![Vec::new()];
    let mut bytes = 0;
    for (key, object) in objects {
        arrived(job, svm, object.kek_version).await?;
        let old = loaded(manager, svm, object.kek_version)?;
        let id = object.id.to_string();
        let secret = old
            .unwrap_key(&id, object.wrapped())
            .map_err(|_| Error::with(Code::KeyRecordDamaged, format!("key {id}; nothing was lost, but it cannot be wrapped again")))?;
        let value = KeyObject::encode(kek.version(), &kek.wrap(&id, &secret).0, object.attributes());
        bytes += value.len();
        if bytes > BATCH_BYTES {
            bytes = value.len();
            batches.push(Vec::new());
        }
        if let Some(batch) = batches.last_mut() {
            batch.push(Rewrapped { key, revision: object.revision, id: object.id, value });
        }
    }
    for batch in batches.into_iter().filter(|batch| !batch.is_empty()) {
        let txn = batch.iter().fold(Txn::new(), |txn, new| txn.when(Compare::Unchanged(new.key.clone(), new.revision)).put(new.key.clone(), new.value.clone()));
        job.step("batch", "before");
        match manager.store.transact(job.fenced(txn)).await {
            Ok(revision) => {
                job.step("batch", "after");
                *last = revision;
                for new in batch {
                    manager.view.keys().put(svm, new.id, false, revision, new.value.into());
                }
            }
            Err(StoreError::Conflict { key }) if job.is_fence(&key) => return Err(Error::with(Code::InUse, "another node goes on with this job")),
            Err(StoreError::Conflict { .. } | StoreError::Indeterminate(_)) => return Ok(false),
            Err(StoreError::Unavailable(_)) => {
                tokio::time::sleep(AWAY).await;
                return Ok(false);
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(true)
}

/// A job that goes on after a restart may be faster than the poll that loads the KEKs. Waits for it, within a limit.
///
/// # Errors
/// 65537556.
pub(super) async fn arrived(job: &JobContext, svm: Uuid, version: u32) -> Result<()> {
    let manager = &job.manager;
    let deadline = tokio::time::Instant::now() + ARRIVAL;
    while manager.kek(svm, version).is_none() {
        if manager.standing(svm).is_blocked() || tokio::time::Instant::now() > deadline {
            return loaded(manager, svm, version).map(drop);
        }
        tokio::time::sleep(AWAY / 5).await;
    }
    Ok(())
}

/// A KEK in memory, or 65537556.
fn loaded(manager: &Inner, svm: Uuid, version: u32) -> Result<Arc<Kek>> {
    manager.kek(svm, version).ok_or_else(|| {
        let state = manager.standing(svm).describe();
        Error::with(
            Code::Blocked,
            format!("SVM {} on node {}: version {version} of the KEK is not in memory: {state}", manager.svm_ref(svm).name, manager.node.name),
        )
    })
}

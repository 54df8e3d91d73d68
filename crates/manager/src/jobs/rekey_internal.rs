//! rekey-internal: a new version of the SVM's KEK, and every key wrapped again under it, while the service goes on.
//!
//! First the new version is made, wrapped by AWS, proven, and stored beside the old one, with the key store in the state `svm_kek_rekey`. From that transaction on, every new key is wrapped by
//! the new version: each Create compares the key store's record. Then keys are wrapped again in batches. When a whole pass has found none under an older version, the older versions are deleted
//! together with the job's end.
//!
//! It can stop after any transaction, on any node: the state says that a rekey is under way, and whoever goes on with it looks for keys under older versions. A second rekey-internal goes on
//! with the first one.

use super::context::JobContext;
use super::enable::{prove, wrap};
use super::restore::{configuration, current_kek, unwrap};
use super::{Afterwards, Plan};
use crate::aws::{Phase, context};
use crate::inner::Inner;
use crate::keys::record::{KeyObject, parse};
use crate::records::{AwsKmsRecord, KekRecord, KeyStoreRecord, KeyStoreState, Record, Stored, kek_key, keks_prefix, key, keys_prefix};
use crate::{Code, Error, Result};
use keystead_keyring::Kek;
use keystead_store::{Compare, Error as StoreError, Range, Revision, Txn};
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

/// How many keys are read at a time, and at most wrapped again by one transaction.
const BATCH: usize = 100;
/// How many bytes of keys go in one transaction at most; well under the store's limit.
const BATCH_BYTES: usize = 512 * 1024;
/// How long to wait when the store is away.
const AWAY: Duration = Duration::from_millis(500);
/// How long the KEKs may take to arrive after a start.
const ARRIVAL: Duration = Duration::from_secs(60);

pub(crate) async fn run(job: &JobContext, config: Uuid) -> Result<Plan> {
    let manager = &job.manager;
    let config = configuration(manager, config).await?;
    let svm = config.record.svm;
    let store = key_store(manager, svm).await?;
    let store = if store.record.state == KeyStoreState::SvmKekRekey { store } else { next_version(job, &config, store).await? };
    let version = store.record.kek_version;
    arrived(job, svm, version).await?;

    // As this node sees it now; keys that are destroyed meanwhile make it fewer.
    let all = manager.view.keys().svm(&*manager.store, svm).await?.not_under(version);
    let mut done = 0;
    loop {
        let wrapped = pass(job, svm, version, all, &mut done).await?;
        if wrapped == 0 {
            break;
        }
    }
    job.progress(format!("{done} keys are wrapped by version {version}; retiring the older one")).await;
    let active = KeyStoreRecord { state: KeyStoreState::Active, ..store.record };
    let mut txn = Txn::new().when(Compare::Unchanged(store.key.clone(), store.revision)).put(store.key, active.encode()?);
    for old in manager.view.under::<KekRecord>(&keks_prefix(svm)).into_iter().filter(|kek| kek.record.version != version) {
        txn = txn.delete(old.key);
    }
    Ok(Plan {
        txn,
        message: format!("version {version} of the KEK is in use; {done} keys were wrapped again, and the older version is deleted"),
        afterwards: Afterwards::Retire(svm, version),
    })
}

/// Makes version n + 1 and turns the SVM to it.
async fn next_version(job: &JobContext, config: &Stored<AwsKmsRecord>, store: Stored<KeyStoreRecord>) -> Result<Stored<KeyStoreRecord>> {
    let manager = &job.manager;
    let svm = store.record.svm;
    arrived(job, svm, store.record.kek_version).await?;
    let version = store.record.kek_version + 1;
    let kek = Kek::generate(svm, version);
    let client = manager.client(config)?;
    // Nobody re-roots a revoked tenant: the new version is wrapped by what the configuration names now, which must be what unwraps the old one now.
    let current = current_kek(manager, svm).await?;
    job.progress("unwrapping the KEK with the customer key in use (1 of 3)").await;
    let asked = manager.clock.monotonic();
    unwrap(job, &client, &current.record).await.map_err(|error| Error::with(Code::KeyUnusable, error.message))?;
    let text = config.record.settings.encryption_context.clone();
    let context = context(text.as_deref())?;
    let owner = manager.svm_ref(svm);
    job.progress(format!("wrapping version {version} of the KEK with the customer key (2 of 3)")).await;
    let wrapped = wrap(job, Phase::InUse, &client, &owner, &kek, &config.record.settings.key_id, text, &context).await?;
    job.progress(format!("proving that AWS KMS unwraps version {version} (3 of 3)")).await;
    let record = prove(job, Phase::InUse, &client, &owner, &kek, wrapped, &context).await?;

    // In memory first: once the transaction stands, keys are made with it.
    let held = manager.hold_while_served(kek)?;
    if manager.is_outdated(svm, asked) {
        return Err(Error::with(Code::KeyUnusable, "AWS KMS has denied the customer key since it was proven; start again"));
    }
    let next = KeyStoreRecord { state: KeyStoreState::SvmKekRekey, kek_version: version, ..store.record };
    let txn = Txn::new()
        .when(Compare::Unchanged(store.key.clone(), store.revision))
        .when(Compare::Unchanged(config.key.clone(), config.revision))
        .when(Compare::Unchanged(current.key.clone(), current.revision))
        .put(kek_key(svm, version), record.encode()?)
        .put(store.key.clone(), next.encode()?);
    job.step("turn", "before");
    match manager.store.transact(job.fenced(txn)).await {
        Ok(revision) => {
            job.step("turn", "after");
            held.keep();
            manager.view.reached(revision).await;
            // An alias may have moved since the older version was wrapped, or the key may have been rotated.
            let before = manager.view.under::<KekRecord>(&keks_prefix(svm)).into_iter().find(|kek| kek.record.version == store.record.kek_version);
            if let Some(before) = before {
                manager.tell_rewrapped(&owner, &before.record, &record);
            }
            Ok(Stored { revision, record: next, ..store })
        }
        // Whether it happened or not, the KEK leaves memory: if so, the poll or whoever goes on with the rekey unwraps it again.
        Err(StoreError::Conflict { .. }) => Err(Error::with(Code::InUse, "the configuration was changed while the KEK was made; start again")),
        Err(error) => Err(error.into()),
    }
}

/// Goes once through the keys of the SVM. Returns how many were wrapped again.
async fn pass(job: &JobContext, svm: Uuid, version: u32, all: usize, done: &mut usize) -> Result<usize> {
    let manager = &job.manager;
    let before = *done;
    let mut range = Range::prefix(keys_prefix(svm), BATCH);
    loop {
        // Anew for each page: while the job holds a KEK, a block does not wipe it.
        let kek = loaded(manager, svm, version)?;
        let page = match manager.store.range(range.clone()).await {
            Ok(page) => page,
            Err(StoreError::Unavailable(_)) => {
                drop(kek);
                tokio::time::sleep(AWAY).await;
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
        if rewrap(job, svm, &kek, objects).await? {
            *done += count;
            range.after = page.entries.last().map(|entry| entry.key.clone());
            if count > 0 {
                job.progress(format!("{done} of {} keys are wrapped by version {version}", all.max(*done))).await;
            }
            if !page.more {
                return Ok(*done - before);
            }
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
async fn rewrap(job: &JobContext, svm: Uuid, kek: &Arc<Kek>, objects: Vec<(String, KeyObject)>) -> Result<bool> {
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
async fn arrived(job: &JobContext, svm: Uuid, version: u32) -> Result<()> {
    let manager = &job.manager;
    let deadline = tokio::time::Instant::now() + ARRIVAL;
    while manager.keyring.get(svm, version).is_none() {
        if manager.polls.state(svm).is_blocked() || tokio::time::Instant::now() > deadline {
            return loaded(manager, svm, version).map(drop);
        }
        tokio::time::sleep(AWAY / 5).await;
    }
    Ok(())
}

/// A KEK in memory, or 65537556.
fn loaded(manager: &Inner, svm: Uuid, version: u32) -> Result<Arc<Kek>> {
    manager.keyring.get(svm, version).ok_or_else(|| {
        let state = manager.polls.state(svm).describe();
        Error::with(
            Code::Blocked,
            format!("SVM {} on node {}: version {version} of the KEK is not in memory: {state}", manager.svm_ref(svm).name, manager.node.name),
        )
    })
}

async fn key_store(manager: &Inner, svm: Uuid) -> Result<Stored<KeyStoreRecord>> {
    let entry = manager.store.get(&key::<KeyStoreRecord>(svm)).await.map_err(Error::from)?;
    Stored::decode(&entry.ok_or_else(|| Error::new(Code::NotConfigured))?)
}

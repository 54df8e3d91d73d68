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
use super::restore::{configuration, current_kek, has_the_keys, unwrap};
use super::rewrap::{self, arrived};
use super::{Afterwards, Plan, everywhere};
use crate::aws::{Phase, context};
use crate::inner::Inner;
use crate::records::{AwsKmsRecord, KekRecord, KeyStoreRecord, KeyStoreState, Record, Stored, kek_key, keks_prefix, key};
use crate::{Code, Error, Result};
use keystead_keyring::Kek;
use keystead_store::{Compare, Error as StoreError, Txn};
use uuid::Uuid;

pub(crate) async fn run(job: &JobContext, config: Uuid) -> Result<Plan> {
    let manager = &job.manager;
    let config = configuration(manager, config).await?;
    let svm = config.record.svm;
    has_the_keys(manager, &config.record).await?;
    let store = key_store(manager, svm).await?;
    let store = if store.record.state == KeyStoreState::SvmKekRekey { store } else { next_version(job, &config, store).await? };
    let version = store.record.kek_version;
    job.progress(format!("every node loads version {version} of the KEK")).await;
    let nodes = everywhere::loaded(job, config.record.uuid, Code::NotAllNodesOnline).await.map_err(again)?;
    let done = rewrap::all(job, svm, version, None).await?;
    job.progress(format!("{done} keys are wrapped by version {version}; retiring the older one")).await;
    let active = KeyStoreRecord { state: KeyStoreState::Active, ..store.record };
    let mut txn = Txn::new().when(Compare::Unchanged(store.key.clone(), store.revision)).put(store.key, active.encode()?);
    for old in manager.view.under::<KekRecord>(&keks_prefix(svm)).into_iter().filter(|kek| kek.record.version != version) {
        txn = txn.delete(old.key);
    }
    Ok(Plan {
        txn,
        message: format!("version {version} of the KEK is in use, {nodes}; {done} keys were wrapped again, and the older version is deleted"),
        afterwards: Afterwards::Retire(svm, version, None),
    })
}

/// Makes version n + 1 and turns the SVM to it.
async fn next_version(job: &JobContext, config: &Stored<AwsKmsRecord>, store: Stored<KeyStoreRecord>) -> Result<Stored<KeyStoreRecord>> {
    let manager = &job.manager;
    let svm = store.record.svm;
    arrived(job, svm, store.record.kek_version).await?;
    let version = store.record.next_version();
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

    everywhere::prove(job, &config.record, &record, Code::NotAllNodesOnline).await?;

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

/// Nothing is lost where a node cannot load the new version: what it has not come to is under the older one.
fn again(error: Error) -> Error {
    let message = format!("{}; no key was wrapped again yet, and starting it again goes on", error.message);
    Error { message, ..error }
}

pub(super) async fn key_store(manager: &Inner, svm: Uuid) -> Result<Stored<KeyStoreRecord>> {
    let entry = manager.store.get(&key::<KeyStoreRecord>(svm)).await.map_err(Error::from)?;
    Stored::decode(&entry.ok_or_else(|| Error::new(Code::NotConfigured))?)
}

//! migrate: the keys of an SVM from the onboard key manager to its AWS KMS configuration, or back.
//!
//! The acceptance turns the key store to `switching`: new keys still go to where keys are. The job makes a new version of the SVM's KEK, which the destination wraps, and turns the SVM to it:
//! from that transaction on, with the key store `mixed`, every new key goes to the destination. Then every key is wrapped again, as by rekey-internal. When a whole pass has found none under
//! an older version, what the source holds is deleted together with the job's end: the keys cannot be opened through it any more.
//!
//! Until the turn, a move that fails has changed nothing. After it, it can stop at any transaction, on any node; who migrates again goes on where it was.
//!
//! Nobody re-roots a revoked tenant: a job that takes keys away from AWS begins with an unwrapping by AWS, each time it begins.

use super::context::JobContext;
use super::enable::{set_up, unreserve};
use super::rekey_internal::key_store;
use super::restore::{configuration, unwrap};
use super::rewrap;
use super::{Afterwards, Plan};
use crate::poll::Proof;
use crate::records::{AwsKmsRecord, KekRecord, KeyStoreRecord, KeyStoreState, OnboardRecord, Record, Stored, kek_key, keks_prefix, onboard_kek_key};
use crate::view::View;
use crate::{Code, Error, Result};
use keystead_store::{Compare, Error as StoreError, Txn};
use std::time::Duration;
use uuid::Uuid;

pub(crate) async fn run(job: &JobContext, config: Uuid, to_onboard: bool) -> Result<Plan> {
    let manager = &job.manager;
    let config = configuration(manager, config).await?;
    let store = key_store(manager, config.record.svm).await?;
    let onboard = manager.fresh::<OnboardRecord>("").await?.ok_or_else(|| Error::new(Code::KeyManagerNotFound))?;
    let destination = if to_onboard { onboard.record.uuid } else { config.record.uuid };
    let (store, proof) = match store.record.state {
        KeyStoreState::Mixed if store.record.manager == destination && to_onboard => (store, Some(fresh_ok(job, &config).await?)),
        KeyStoreState::Mixed if store.record.manager == destination => (store, None),
        KeyStoreState::Switching if store.record.other == Some(destination) && to_onboard => {
            let asked = fresh_ok(job, &config).await?;
            (turn_to_onboard(job, &config, &onboard, store, asked).await?, Some(asked))
        }
        KeyStoreState::Switching if store.record.other == Some(destination) => {
            let asked = manager.clock.monotonic();
            let (kek, kek_record) = set_up(job, &config.record, store.record.kek_version + 1, false).await?;
            let unchanged = Txn::new().when(Compare::Unchanged(config.key.clone(), config.revision));
            let proof = Proof { asked, keks: vec![kek], config: Box::new(config.record.clone()) };
            (turn_to_aws(job, proof, &kek_record, store, unchanged).await?, None)
        }
        KeyStoreState::Active if store.record.manager == destination => {
            let message = "the keys had been moved already".to_owned();
            return Ok(Plan { txn: Txn::new(), message, afterwards: Afterwards::Nothing });
        }
        _ => return Err(Error::with(Code::MigrateSwitching, "it was turned elsewhere while this job waited")),
    };
    let plan = finish(job, store, proof).await?;
    if !to_onboard {
        return Ok(plan);
    }
    // Once more, right before the end: keys leave AWS for good, and the last proof may be as old as the move is long. Whoever has cut the network meanwhile ends it here.
    let asked = fresh_ok(job, &config).await?;
    let afterwards = match plan.afterwards {
        Afterwards::Retire(svm, version, _) => Afterwards::Retire(svm, version, Some(asked)),
        other => other,
    };
    Ok(Plan { afterwards, ..plan })
}

/// Takes back a move that has not begun.
pub(crate) fn stay(view: &View, config: Uuid, to_onboard: bool) -> Txn {
    let stores = view.all::<KeyStoreRecord>().into_iter();
    let wanted = |store: &KeyStoreRecord| match to_onboard {
        true => store.state == KeyStoreState::Switching && store.manager == config,
        false => store.state == KeyStoreState::Switching && store.other == Some(config),
    };
    match stores.into_iter().find(|store| wanted(&store.record)) {
        Some(store) => {
            let destination = store.record.other.unwrap_or_default();
            unreserve(store, destination)
        }
        None => Txn::new(),
    }
}

/// Wraps every key by the version that the SVM was turned to; then deletes all others, and ends the move. `proof`: when AWS was asked for what allows it, where keys leave it.
pub(super) async fn finish(job: &JobContext, store: Stored<KeyStoreRecord>, proof: Option<Duration>) -> Result<Plan> {
    let manager = &job.manager;
    let (svm, version) = (store.record.svm, store.record.kek_version);
    let done = rewrap::all(job, svm, version, proof).await?;
    job.progress(format!("{done} keys were moved; deleting what the other key manager holds")).await;
    let to_onboard = store.record.onboard;
    let txn = Txn::new().when(Compare::Unchanged(store.key.clone(), store.revision));
    let txn = match to_onboard {
        true => manager.view.under::<KekRecord>(&keks_prefix(svm)).into_iter().fold(txn, |txn, kek| txn.delete(kek.key)),
        false => txn.and(manager.without_onboard(svm)),
    };
    let txn = txn.put(store.key, store.record.without_move().encode()?);
    let place = if to_onboard { "the onboard key manager" } else { "AWS KMS" };
    Ok(Plan {
        txn,
        message: format!("{done} keys were moved, and the KEK of the SVM is kept by {place} alone"),
        afterwards: Afterwards::Retire(svm, version, None),
    })
}

/// Turns the SVM to a KEK that AWS has wrapped, and that was proven when it was asked then. `more` goes into the same transaction.
///
/// # Errors
/// 8 where a comparison fails.
pub(super) async fn turn_to_aws(
    job: &JobContext,
    proof: Proof,
    kek_record: &KekRecord,
    store: Stored<KeyStoreRecord>,
    more: Txn,
) -> Result<Stored<KeyStoreRecord>> {
    let manager = &job.manager;
    let svm = proof.config.svm;
    // What does not open now would not open after the turn either, and new keys would be elsewhere.
    if manager.kek(svm, store.record.kek_version).is_none() {
        manager.onboard_key_for_moving()?;
    }
    let next = KeyStoreRecord {
        svm,
        manager: proof.config.uuid,
        onboard: false,
        state: KeyStoreState::Mixed,
        kek_version: kek_record.version,
        other: Some(store.record.manager),
    };
    let txn = more.put(kek_key(svm, kek_record.version), kek_record.encode()?);
    let asked = proof.asked;
    // In memory first: once the transaction stands, keys are made with it. From now on the state of the configuration counts.
    let begun = manager.begin(proof)?;
    if manager.is_outdated(svm, asked) {
        return Err(Error::with(Code::KeyUnusable, "AWS KMS has denied the customer key since it was proven, or that was long ago; start again"));
    }
    let turned = turn(job, store, next, txn).await?;
    begun.keep();
    Ok(turned)
}

/// Turns the SVM to a KEK that the onboard key manager wraps.
async fn turn_to_onboard(
    job: &JobContext,
    config: &Stored<AwsKmsRecord>,
    onboard: &Stored<OnboardRecord>,
    store: Stored<KeyStoreRecord>,
    asked: Duration,
) -> Result<Stored<KeyStoreRecord>> {
    let manager = &job.manager;
    let svm = store.record.svm;
    let (kek, kek_record) = manager.new_onboard_kek(svm, store.record.kek_version + 1)?;
    let next = KeyStoreRecord {
        svm,
        manager: onboard.record.uuid,
        onboard: true,
        state: KeyStoreState::Mixed,
        kek_version: kek_record.version,
        other: Some(config.record.uuid),
    };
    let txn = Txn::new()
        .when(Compare::Unchanged(config.key.clone(), config.revision))
        .when(Compare::Unchanged(onboard.key.clone(), onboard.revision))
        .put(onboard_kek_key(svm, kek_record.version), kek_record.encode()?);
    let held = manager.hold_while_served(kek)?;
    if manager.is_outdated(svm, asked) {
        return Err(Error::with(Code::KeyUnusable, "AWS KMS has denied the customer key since it was proven; start again when it allows the move"));
    }
    let turned = turn(job, store, next, txn).await?;
    held.keep();
    Ok(turned)
}

async fn turn(job: &JobContext, store: Stored<KeyStoreRecord>, next: KeyStoreRecord, txn: Txn) -> Result<Stored<KeyStoreRecord>> {
    let manager = &job.manager;
    let txn = txn.when(Compare::Unchanged(store.key.clone(), store.revision)).put(store.key.clone(), next.encode()?);
    job.step("turn", "before");
    match manager.store.transact(job.fenced(txn)).await {
        Ok(revision) => {
            job.step("turn", "after");
            manager.view.reached(revision).await;
            Ok(Stored { revision, record: next, ..store })
        }
        // Where it was unclear whether it has happened, whoever goes on finds out.
        Err(StoreError::Conflict { .. }) => Err(Error::with(Code::InUse, "keys were made, or the configuration was changed, at this moment; start again")),
        Err(error) => Err(error.into()),
    }
}

/// AWS must unwrap what it has wrapped now, in this job, although the KEK may be in memory; and then it is in memory, also after a restart. Answers when AWS was asked.
async fn fresh_ok(job: &JobContext, config: &Stored<AwsKmsRecord>) -> Result<Duration> {
    let manager = &job.manager;
    let svm = config.record.svm;
    let state = manager.polls.state(svm);
    if state.is_blocked() {
        return Err(Error::with(Code::Blocked, format!("SVM {} on node {}: {}", manager.svm_ref(svm).name, manager.node.name, state.describe())));
    }
    job.progress("unwrapping the KEK with the customer key, which must allow the move").await;
    let client = manager.client(config)?;
    let asked = manager.clock.monotonic();
    for record in manager.view.under::<KekRecord>(&keks_prefix(svm)) {
        unwrap(job, &client, &record.record).await.map_err(|error| Error::with(Code::KeyUnusable, error.message))?;
        rewrap::arrived(job, svm, record.record.version).await?;
    }
    Ok(asked)
}

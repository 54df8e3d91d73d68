//! migrate: the keys of an SVM from the onboard key manager to its AWS KMS configuration, or back.
//!
//! The acceptance turns the key store to `switching`: new keys still go to where keys are. The job makes a new version of the SVM's KEK, which the destination wraps, and turns the SVM to it:
//! from that transaction on, with the key store `mixed`, every new key goes to the destination. Then every key is wrapped again, as by rekey-internal. When a whole pass has found none under
//! an older version, what the source holds is deleted together with the job's end: the keys cannot be opened through it any more.
//!
//! Until the turn, a move that fails has changed nothing. After it, it can stop at any transaction, on any node; who migrates again goes on where it was. Who migrates the other way gives a move to
//! AWS KMS up: the SVM is turned back, without AWS, to the KEK that the onboard key manager has kept; what had been moved comes back with AWS's ok.
//!
//! Nobody re-roots a revoked tenant: a job that takes keys away from AWS begins with an unwrapping by AWS, each time it begins.

use super::context::JobContext;
use super::enable::{set_up, unreserve};
use super::rekey_internal::key_store;
use super::restore::{configuration, unwrap};
use super::rewrap;
use super::{Afterwards, Plan, everywhere};
use crate::events::moves::Route;
use crate::inner::Inner;
use crate::poll::Proof;
use crate::records::{
    AwsKmsRecord, KekRecord, KeyStoreRecord, KeyStoreState, OnboardKekRecord, OnboardRecord, Record, Stored, kek_key, keks_prefix, onboard_kek_key,
    onboard_keys_prefix,
};
use crate::view::View;
use crate::{Code, Error, Result};
use keystead_store::{Compare, Error as StoreError, Txn};
use std::time::Duration;
use uuid::Uuid;

/// A denial that no good answer has followed counts, however long ago it was.
pub(super) const EVER: Duration = Duration::ZERO;

pub(crate) async fn run(job: &JobContext, config: Uuid, to_onboard: bool, gives_up: bool) -> Result<Plan> {
    let manager = &job.manager;
    let config = configuration(manager, config).await?;
    let mut store = key_store(manager, config.record.svm).await?;
    let onboard = manager.fresh::<OnboardRecord>("").await?.ok_or_else(|| Error::new(Code::KeyManagerNotFound))?;
    let route = Route { svm: config.record.svm, onboard: onboard.record.uuid, config: config.record.uuid, to_onboard };
    if gives_up && store.record.state == KeyStoreState::Mixed && store.record.manager == config.record.uuid {
        store = turn_back(job, &config, &onboard, store).await?;
        manager.tell_move_given_up(&Route { to_onboard: false, ..route });
    }
    if to_onboard && store.record.is_given_up() {
        return bring_back(job, &route, &config, &onboard, store, gives_up).await;
    }
    let destination = if to_onboard { onboard.record.uuid } else { config.record.uuid };
    let begun = store.record.manager == destination;
    let starts = store.record.other == Some(destination);
    match store.record.state {
        KeyStoreState::Mixed if begun && to_onboard => {
            let asked = fresh_ok(job, &config).await?;
            leave_aws(job, &route, &config, store, asked).await
        }
        KeyStoreState::Mixed if begun => finish(job, &route, store, EVER).await,
        KeyStoreState::Switching if starts && to_onboard => {
            manager.tell_move_started(&route);
            let asked = fresh_ok(job, &config).await?;
            everywhere::onboard(job, Code::NodesUnhealthy).await?;
            let store = turn_to_onboard(job, &config, &onboard, store, asked).await?;
            manager.tell_move_turned(&route);
            leave_aws(job, &route, &config, store, asked).await
        }
        KeyStoreState::Switching if starts => {
            manager.tell_move_started(&route);
            let asked = manager.clock.monotonic();
            let (kek, kek_record) = set_up(job, &config.record, store.record.next_version(), false).await?;
            everywhere::prove(job, &config.record, &kek_record, Code::NodesUnhealthy).await?;
            let unchanged = Txn::new().when(Compare::Unchanged(config.key.clone(), config.revision));
            let proof = Proof { asked, keks: vec![kek], config: Box::new(config.record.clone()) };
            let store = turn_to_aws(job, proof, &kek_record, store, unchanged).await?;
            manager.tell_move_turned(&route);
            finish(job, &route, store, asked).await
        }
        KeyStoreState::Active if begun => {
            let message = "the keys had been moved already".to_owned();
            Ok(Plan { txn: Txn::new(), message, afterwards: Afterwards::Nothing })
        }
        _ => Err(Error::with(Code::MigrateSwitching, "it was turned elsewhere while this job waited")),
    }
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

/// The rest of a move away from AWS, which has allowed it when it was asked then.
async fn leave_aws(job: &JobContext, route: &Route, config: &Stored<AwsKmsRecord>, store: Stored<KeyStoreRecord>, asked: Duration) -> Result<Plan> {
    let plan = finish(job, route, store, asked).await?;
    // Once more, right before the end: keys leave AWS for good, and the last proof may be as old as the move is long. Whoever has cut the network meanwhile ends it here.
    let asked = fresh_ok(job, config).await?;
    let afterwards = match plan.afterwards {
        Afterwards::Moved(route, version, _, keys) => Afterwards::Moved(route, version, Some(asked), keys),
        other => other,
    };
    Ok(Plan { afterwards, ..plan })
}

/// The rest of a move that was given up. Keys that AWS keeps come back where AWS allows it; where none is left, AWS is not needed. `may_stay`: they are left there otherwise.
async fn bring_back(
    job: &JobContext,
    route: &Route,
    config: &Stored<AwsKmsRecord>,
    onboard: &Stored<OnboardRecord>,
    store: Stored<KeyStoreRecord>,
    may_stay: bool,
) -> Result<Plan> {
    let (svm, version) = (store.record.svm, store.record.kek_version);
    let left = rewrap::count_not_under(&job.manager, svm, version).await?;
    if left == 0 {
        let message = "no key is left with AWS KMS, and the KEK of the SVM is kept by the onboard key manager alone".to_owned();
        return Ok(Plan { txn: without_aws(&job.manager, store)?, message, afterwards: Afterwards::Moved(*route, version, None, 0) });
    }
    match fresh_ok(job, config).await {
        Ok(asked) => {
            let store = turn_to_onboard(job, config, onboard, store, asked).await?;
            job.manager.tell_move_turned(route);
            leave_aws(job, route, config, store, asked).await
        }
        Err(error) if may_stay => {
            let what = "stay with AWS KMS, and are refused until it allows their customer key; then migrate once more. Or destroy them";
            let message = format!("the move to AWS KMS is given up: {left} keys {what}. {}", error.message);
            let txn = Txn::new().when(Compare::Unchanged(store.key, store.revision));
            Ok(Plan { txn, message, afterwards: Afterwards::Nothing })
        }
        Err(error) => Err(error),
    }
}

/// Ends a move that was given up, where AWS wraps no key any more: since the SVM was turned, none can be made there.
pub(super) fn without_aws(manager: &Inner, store: Stored<KeyStoreRecord>) -> Result<Txn> {
    let txn = Txn::new().when(Compare::Unchanged(store.key.clone(), store.revision));
    let txn = manager.view.under::<KekRecord>(&keks_prefix(store.record.svm)).into_iter().fold(txn, |txn, kek| txn.delete(kek.key));
    Ok(txn.put(store.key, store.record.without_move().encode()?))
}

/// Wraps every key by the version that the SVM was turned to; then deletes all others, and ends the move.
///
/// It stops where AWS has denied the customer key since `asked`: keys do not leave it then, and those that are not under it yet do not come to be.
pub(super) async fn finish(job: &JobContext, route: &Route, store: Stored<KeyStoreRecord>, asked: Duration) -> Result<Plan> {
    let manager = &job.manager;
    let (svm, version) = (store.record.svm, store.record.kek_version);
    job.progress(format!("every node loads version {version} of the KEK")).await;
    let nodes = match store.record.onboard {
        true => everywhere::onboard(job, Code::NodesUnhealthy).await?,
        false => everywhere::loaded(job, route.config, Code::NodesUnhealthy).await?,
    };
    let done = rewrap::all(job, svm, version, Some(asked)).await?;
    job.progress(format!("{done} keys were moved; deleting what the other key manager holds")).await;
    let txn = Txn::new().when(Compare::Unchanged(store.key.clone(), store.revision));
    let aws = manager.view.under::<KekRecord>(&keks_prefix(svm)).into_iter().filter(|kek| kek.record.version != version).map(|kek| kek.key);
    let onboard = manager.view.under::<OnboardKekRecord>(&onboard_keys_prefix(svm)).into_iter().filter(|kek| kek.record.version != version).map(|kek| kek.key);
    let txn = aws.chain(onboard).fold(txn, Txn::delete);
    let place = if store.record.onboard { "the onboard key manager" } else { "AWS KMS" };
    let txn = txn.put(store.key, store.record.without_move().encode()?);
    Ok(Plan {
        txn,
        message: format!("{done} keys were moved, and the KEK of the SVM is kept by {place} alone, {nodes}"),
        afterwards: Afterwards::Moved(*route, version, None, done),
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
        return Err(does_not_open(manager, svm));
    }
    let next = KeyStoreRecord {
        svm,
        manager: proof.config.uuid,
        onboard: false,
        state: KeyStoreState::Mixed,
        kek_version: kek_record.version,
        other: Some(store.record.manager),
        given_up: 0,
    };
    let txn = more.put(kek_key(svm, kek_record.version), kek_record.encode()?);
    let asked = proof.asked;
    // In memory first: once the transaction stands, keys are made with it. From now on the state of the configuration counts.
    let begun = manager.begin(proof)?;
    if manager.is_outdated(svm, asked) {
        return Err(Error::with(Code::KeyUnusable, "AWS KMS has denied the customer key since it was proven, or that was long ago; start again"));
    }
    let turned = turn(job, store, next, txn, "turn").await?;
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
    let (kek, kek_record) = manager.new_onboard_kek(svm, store.record.next_version())?;
    let next = KeyStoreRecord {
        svm,
        manager: onboard.record.uuid,
        onboard: true,
        state: KeyStoreState::Mixed,
        kek_version: kek_record.version,
        other: Some(config.record.uuid),
        given_up: store.record.given_up,
    };
    let txn = Txn::new()
        .when(Compare::Unchanged(config.key.clone(), config.revision))
        .when(Compare::Unchanged(onboard.key.clone(), onboard.revision))
        .put(onboard_kek_key(svm, kek_record.version), kek_record.encode()?);
    let held = manager.hold_while_served(kek)?;
    if manager.is_outdated(svm, asked) {
        return Err(Error::with(Code::KeyUnusable, "AWS KMS has denied the customer key since it was proven; start again when it allows the move"));
    }
    let turned = turn(job, store, next, txn, "turn").await?;
    held.keep();
    Ok(turned)
}

/// Turns the SVM back to the KEK that the onboard key manager has kept: what a move to AWS KMS has not come to, and new keys, are its own again. Nothing of AWS's is asked for or touched.
async fn turn_back(
    job: &JobContext,
    config: &Stored<AwsKmsRecord>,
    onboard: &Stored<OnboardRecord>,
    store: Stored<KeyStoreRecord>,
) -> Result<Stored<KeyStoreRecord>> {
    let manager = &job.manager;
    let svm = store.record.svm;
    manager.onboard_key_for_moving()?;
    let kept = manager.view.under::<OnboardKekRecord>(&onboard_keys_prefix(svm)).pop().map(|kek| kek.record.version);
    // New keys will need it.
    let opens = kept.filter(|version| manager.open_onboard_kek(svm, *version).is_some());
    let next = KeyStoreRecord {
        svm,
        manager: onboard.record.uuid,
        onboard: true,
        state: KeyStoreState::Mixed,
        kek_version: opens.ok_or_else(|| does_not_open(manager, svm))?,
        other: Some(config.record.uuid),
        given_up: store.record.kek_version,
    };
    let txn = Txn::new().when(Compare::Present(config.key.clone())).when(Compare::Unchanged(onboard.key.clone(), onboard.revision));
    turn(job, store, next, txn, "turn_back").await
}

fn does_not_open(manager: &Inner, svm: Uuid) -> Error {
    let name = manager.svm_ref(svm).name;
    Error::with(Code::KeyProtectionUnavailable, format!("the KEK of the SVM {name} does not open with the onboard key on node {}", manager.node.name))
}

async fn turn(job: &JobContext, store: Stored<KeyStoreRecord>, next: KeyStoreRecord, txn: Txn, step: &str) -> Result<Stored<KeyStoreRecord>> {
    let manager = &job.manager;
    let txn = txn.when(Compare::Unchanged(store.key.clone(), store.revision)).put(store.key.clone(), next.encode()?);
    job.step(step, "before");
    match manager.store.transact(job.fenced(txn)).await {
        Ok(revision) => {
            job.step(step, "after");
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
    let state = manager.standing(svm);
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

//! Transactions, each of which happens once or not at all, whatever becomes of its answer.
//!
//! What was not answered is sent again, to the next member; the slot that it writes (`slots.rs`) tells whether it had happened. Before it is said that nothing was changed although an
//! earlier attempt has no answer, the slot is written, so that a straggler changes nothing either. Only where no member answers in time is the outcome unknown to the caller; it is settled
//! behind its back then, as soon as one does.

use super::Names;
use super::members::{Attempts, Failure, MAX_ANSWER_BYTES, Members};
use super::slots::{OWNER_TTL, Slot, Slots};
use super::{end_of, number, revision};
use crate::error::{Error, Result};
use crate::types::{Compare, Revision, Txn, Write};
use etcd_client::{CompareOp, GetOptions, GetResponse, PutOptions, TxnOp, TxnOpResponse, TxnResponse};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// The value of a slot that was written so that an earlier transaction cannot happen any more.
const FENCED: &str = "-";
/// The pause before an outcome that nobody waits for is asked for again.
const SETTLE_PAUSE: Duration = Duration::from_secs(1);
/// How often a transaction makes its slot anew.
const MOST_RENEWALS: u32 = 3;

pub(super) async fn transact(members: &Arc<Members>, slots: &Arc<Slots>, names: &Names, txn: Txn) -> Result<Revision> {
    let plan = Plan::new(&txn, names);
    if txn.writes.is_empty() {
        return check(members, &plan, names).await;
    }
    let (members, slots) = (Arc::clone(members), Arc::clone(slots));
    // A caller who goes away must not take along what is known of the slot.
    let task = tokio::spawn(async move { run(&members, &slots, plan).await });
    task.await.unwrap_or_else(|error| Err(Error::Indeterminate(format!("a task of the store failed: {error}"))))
}

/// Only compares, and so can be repeated.
async fn check(members: &Members, plan: &Plan, names: &Names) -> Result<Revision> {
    // It is the read that makes etcd ask the majority; a transaction without one is answered by the member alone.
    let request = etcd_client::Txn::new().when(plan.compares.clone()).and_then([TxnOp::get(names.head(), None)]).or_else(plan.looks.clone());
    let answer = members.call(|client| send(client, request.clone())).await?;
    if answer.succeeded() {
        // The revision of the last transaction of ours: etcd's own counts what others write as well, which no watch of ours ever shows.
        return Ok(revision(looked(&answer).first().map_or(0, written)));
    }
    Err(Error::Conflict { key: plan.first_failed(&looked(&answer)) })
}

/// What is compared and written, in etcd's terms, without the slot.
struct Plan {
    conditions: Vec<Compare>,
    compares: Vec<etcd_client::Compare>,
    /// For each comparison a read that tells whether it is the one that failed.
    looks: Vec<TxnOp>,
    writes: Vec<TxnOp>,
    leased: bool,
}

impl Plan {
    fn new(txn: &Txn, names: &Names) -> Self {
        let look = || GetOptions::new().with_keys_only();
        let (mut compares, mut looks) = (Vec::new(), Vec::new());
        for compare in &txn.compares {
            let (etcd, options, name) = match compare {
                Compare::Absent(key) => (etcd_client::Compare::create_revision(names.record(key), CompareOp::Equal, 0), look(), names.record(key)),
                Compare::Present(key) => (etcd_client::Compare::create_revision(names.record(key), CompareOp::Greater, 0), look(), names.record(key)),
                Compare::Unchanged(key, revision) => {
                    (etcd_client::Compare::mod_revision(names.record(key), CompareOp::Equal, number(revision.0)), look(), names.record(key))
                }
                Compare::EmptyPrefix(prefix) => {
                    let (name, end) = (names.record(prefix), end_of(&names.record(prefix)));
                    // Of a range, all keys are compared; of an empty one, a key that was never made.
                    let compare = etcd_client::Compare::create_revision(name.as_str(), CompareOp::Equal, 0).with_range(end.clone());
                    (compare, look().with_range(end).with_limit(1), name)
                }
            };
            compares.push(etcd);
            looks.push(TxnOp::get(name, Some(options)));
        }
        let head = TxnOp::put(names.head(), Vec::new(), None);
        let writes = txn.writes.iter().map(|write| match write {
            Write::Put { key, value, lease } => TxnOp::put(names.record(key), value.to_vec(), lease.map(|lease| PutOptions::new().with_lease(number(lease.0)))),
            Write::Delete { key } => TxnOp::delete(names.record(key), None),
        });
        let leased = txn.writes.iter().any(|write| matches!(write, Write::Put { lease: Some(_), .. }));
        Self { conditions: txn.compares.clone(), compares, looks, writes: writes.chain([head]).collect(), leased }
    }

    fn request(&self, slot: &Slot, transaction: u64) -> etcd_client::Txn {
        let mut compares = vec![unchanged(slot)];
        compares.extend(self.compares.iter().cloned());
        let mut writes = vec![put(slot, transaction.to_string())];
        writes.extend(self.writes.iter().cloned());
        let mut looks = vec![TxnOp::get(slot.name.as_str(), None)];
        looks.extend(self.looks.iter().cloned());
        etcd_client::Txn::new().when(compares).and_then(writes).or_else(looks)
    }

    /// The key of the first comparison that does not hold in what was seen by the same transaction.
    fn first_failed(&self, seen: &[GetResponse]) -> String {
        let failed = self.conditions.iter().zip(seen).find(|(condition, seen)| {
            let found = seen.kvs().first().map(etcd_client::KeyValue::mod_revision);
            match condition {
                Compare::Absent(_) | Compare::EmptyPrefix(_) => found.is_some(),
                Compare::Present(_) => found.is_none(),
                Compare::Unchanged(_, revision) => found != Some(number(revision.0)),
            }
        });
        let (Compare::Absent(key) | Compare::Present(key) | Compare::Unchanged(key, _) | Compare::EmptyPrefix(key)) = match failed {
            Some((condition, _)) => condition,
            // One of them has failed, or etcd would have written.
            None => match self.conditions.first() {
                Some(first) => first,
                None => return String::new(),
            },
        };
        key.clone()
    }
}

async fn run(members: &Arc<Members>, slots: &Arc<Slots>, plan: Plan) -> Result<Revision> {
    let mut slot = slots.take().await?;
    let transaction = slots.number();
    let mut attempts = Attempts::new(members);
    // Whether an attempt was sent whose outcome nobody knows.
    let mut open = false;
    // How often the slot was made anew. It is gone with its lease, or with what etcd has lost: not again and again.
    let mut renewals = 0;
    let verdict = loop {
        if renewals > MOST_RENEWALS {
            break Err(Error::Unavailable("etcd keeps losing what this process leaves there under a lease".to_owned()));
        }
        let request = plan.request(&slot, transaction);
        match attempts.next(&|client| send(client, request.clone())).await {
            Ok(answer) if answer.succeeded() => {
                slot.set_known(header(&answer));
                slots.give_back(slot);
                return Ok(revision(header(&answer)));
            }
            Ok(answer) => {
                let seen = looked(&answer);
                match seen.split_first() {
                    Some((found, others)) if written(found) == slot.known() => break Err(Error::Conflict { key: plan.first_failed(others) }),
                    Some((found, _)) if value(found) == transaction.to_string().as_bytes() => {
                        let at = written(found);
                        slot.set_known(at);
                        slots.give_back(slot);
                        return Ok(revision(at));
                    }
                    _ if open => return Err(Error::Indeterminate("etcd has lost what would tell".to_owned())),
                    // Its lease has run out while nothing was written for long.
                    _ => {
                        renewals += 1;
                        slots.renew(&mut slot).await?;
                    }
                }
            }
            Err(Failure::Definite(Error::LeaseGone)) => {
                if plan.leased && slots.is_alive(slot.owner()).await? {
                    break Err(Error::LeaseGone);
                }
                if open {
                    return Err(Error::Indeterminate("etcd has lost what would tell".to_owned()));
                }
                renewals += 1;
                slots.renew(&mut slot).await?;
            }
            Err(Failure::Definite(error)) => break Err(error),
            Err(Failure::NotSent(reason)) => {
                if !attempts.go_on().await {
                    break Err(Error::Unavailable(reason));
                }
            }
            Err(Failure::Unanswered(reason)) => {
                open = true;
                if !attempts.go_on().await {
                    break Err(Error::Unavailable(reason));
                }
            }
        }
    };
    if !open {
        slots.give_back(slot);
        return verdict;
    }
    if !matches!(verdict, Err(Error::Unavailable(_)))
        && let Ok(settled) = settle(members, &mut slot, transaction).await
    {
        slots.give_back(slot);
        return settled.map_or(verdict, Ok);
    }
    let reason = verdict.map_or_else(|error| error.to_string(), |_| String::new());
    tokio::spawn(settle_later(Arc::clone(members), Arc::clone(slots), slot, transaction));
    Err(Error::Indeterminate(reason))
}

/// Whether a transaction happened, and that it will not any more where it did not. Errors leave it open.
async fn settle(members: &Members, slot: &mut Slot, transaction: u64) -> Result<Option<Revision>> {
    let request = etcd_client::Txn::new().when([unchanged(slot)]).and_then([put(slot, FENCED.to_owned())]).or_else([TxnOp::get(slot.name.as_str(), None)]);
    let answer = members.call(|client| send(client, request.clone())).await?;
    if answer.succeeded() {
        slot.set_known(header(&answer));
        return Ok(None);
    }
    let seen = looked(&answer);
    let found = seen.first().filter(|found| written(found) != 0).ok_or(Error::LeaseGone)?;
    slot.set_known(written(found));
    if value(found) == FENCED.as_bytes() {
        return Ok(None);
    }
    if value(found) == transaction.to_string().as_bytes() {
        return Ok(Some(revision(written(found))));
    }
    Err(Error::Damaged(format!("the slot {} was written by somebody else", slot.name)))
}

/// Until the lease of the slot must be over: then the transaction cannot happen any more either.
async fn settle_later(members: Arc<Members>, slots: Arc<Slots>, mut slot: Slot, transaction: u64) {
    let end = Instant::now() + OWNER_TTL;
    while Instant::now() < end {
        match settle(&members, &mut slot, transaction).await {
            Ok(_) => return slots.give_back(slot),
            Err(Error::Unavailable(_)) => tokio::time::sleep(SETTLE_PAUSE).await,
            // The slot is given up: its number is not used again.
            Err(_) => return,
        }
    }
}

async fn send(client: etcd_client::Client, request: etcd_client::Txn) -> std::result::Result<TxnResponse, etcd_client::Error> {
    client.kv_client().max_decoding_message_size(MAX_ANSWER_BYTES).txn(request).await
}

fn unchanged(slot: &Slot) -> etcd_client::Compare {
    etcd_client::Compare::mod_revision(slot.name.as_str(), CompareOp::Equal, slot.known())
}

fn put(slot: &Slot, value: String) -> TxnOp {
    TxnOp::put(slot.name.as_str(), value, Some(PutOptions::new().with_lease(number(slot.owner().0))))
}

fn header(answer: &TxnResponse) -> i64 {
    answer.header().map_or(0, etcd_client::ResponseHeader::revision)
}

fn looked(answer: &TxnResponse) -> Vec<GetResponse> {
    let reads = answer.op_responses().into_iter().filter_map(|answer| if let TxnOpResponse::Get(seen) = answer { Some(seen) } else { None });
    reads.collect()
}

/// The revision at which what was read was last written; 0 where there is nothing.
fn written(seen: &GetResponse) -> i64 {
    seen.kvs().first().map_or(0, etcd_client::KeyValue::mod_revision)
}

fn value(seen: &GetResponse) -> &[u8] {
    seen.kvs().first().map_or(&[], etcd_client::KeyValue::value)
}

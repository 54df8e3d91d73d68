//! The operations, a file a kind; and the batch that they run in.

mod attributes;
mod certificate;
mod cipher;
mod create;
mod get;
mod lifecycle;
mod locate;
mod query;
mod rekey;
mod transfer;
mod usage;

pub use query::OPERATIONS;

use crate::audit::{self, Actor};
use crate::memory::Room;
use crate::metrics::Counted;
use crate::unit::{Unit, Unsaved, not_found};
use keystead_kmip::enumeration::{BatchErrorContinuationOption, ResultReason};
use keystead_kmip::message::{Outcome, RequestItem, RequestMessage, ResponseItem, respond};
use keystead_kmip::request::Request;
use keystead_kmip::response::Response;
use keystead_kmip::{Failure, Result, Version};
use keystead_manager::Manager;
use keystead_manager::keys::Keys;
use std::time::{Duration, Instant};
use uuid::Uuid;

/// How often work is done again since something it had read has changed.
const REPEATS: usize = 20;
/// What an answer with an identifier has at least, in bytes.
const SMALLEST_ANSWER: usize = 128;
/// What an answer without a key, attributes or a list takes, in bytes.
const PLAIN_ANSWER: usize = 384;

/// Says why the client may not ask for an operation, of that number, or not any more.
pub type Welcome<'c> = &'c (dyn Fn(u32) -> Result<()> + Send + Sync);

/// What a client is served from.
pub struct Served<'s> {
    /// The key manager.
    pub manager: &'s Manager,
    /// The keys of the client's SVM.
    pub keys: &'s Keys,
    /// The client, for the audit log.
    pub actor: &'s Actor,
    /// Where operations are counted.
    pub counted: &'s Counted,
    /// Whether Interop and Log are served.
    pub interop: bool,
    /// Objects that this client was given while they were fresh, which the store may not say yet.
    pub shown: &'s [Uuid],
}

/// What an operation runs with.
pub struct Context<'c> {
    /// The key manager.
    pub manager: &'c Manager,
    /// The keys of the client's SVM.
    pub keys: &'c Keys,
    /// The client, for the audit log.
    pub actor: &'c Actor,
    /// Where operations are counted.
    pub counted: &'c Counted,
    /// Whether Interop and Log are served.
    pub interop: bool,
    /// As in [`Served`].
    pub shown: &'c [Uuid],
    /// The client's version.
    pub version: Version,
    /// Seconds since 1970.
    pub now: i64,
    /// The identifier that an item without one means.
    pub placeholder: Option<Uuid>,
    /// Objects that were handed out while they were fresh.
    pub fresh: Vec<Uuid>,
    /// Whether the client may still ask: a long batch must not outlive its certificate.
    pub welcome: Welcome<'c>,
    /// What the answer may take. Who answers with more than an identifier reserves it first.
    pub room: &'c mut Room,
}

impl Context<'_> {
    /// The object that a request names, or the ID Placeholder's.
    ///
    /// # Errors
    /// Item Not Found; Invalid Field where neither is there.
    fn id(&self, id: Option<&str>) -> Result<Uuid> {
        match (id, self.placeholder) {
            (Some(text), _) => text.parse().map_err(|_| not_found(text)),
            (None, Some(placeholder)) => Ok(placeholder),
            (None, None) => {
                Err(Failure::new(ResultReason::InvalidField, "UniqueIdentifier is missing, and no item before this one has set the ID Placeholder"))
            }
        }
    }

    /// Whether this client was given the object while it was fresh: then it is not any more, whatever the store still says.
    fn was_shown(&self, id: Uuid) -> bool {
        self.shown.contains(&id) || self.fresh.contains(&id)
    }
}

/// Runs a message and writes the answer. Answers which objects were handed out while they were fresh.
pub async fn run(served: &Served<'_>, message: &RequestMessage<'_, '_>, now: i64, welcome: Welcome<'_>, room: &mut Room, out: &mut Vec<u8>) -> Vec<Uuid> {
    let Served { manager, keys, actor, counted, interop, shown } = *served;
    let mut context =
        Context { manager, keys, actor, counted, interop, shown, version: message.version, now, placeholder: None, fresh: Vec::new(), welcome, room };
    let limit = message.maximum_response_size.unwrap_or(usize::MAX);
    // Where not even identifiers fit, nothing is done: what changes something must be answered.
    let fits =
        if limit < SMALLEST_ANSWER * message.items.len() { Err(too_large(limit)) } else { context.room.reserve(message.items.len() * PLAIN_ANSWER).await };
    let mut items = match (fits, message.on_error) {
        (Err(failure), _) => {
            let answers: Vec<_> = message.items.iter().map(|item| answer(item, Outcome::Failed(failure.clone()))).collect();
            message.items.iter().zip(&answers).for_each(|(item, answer)| counted.operation(item.operation, &answer.outcome, Duration::ZERO));
            answers
        }
        (Ok(()), BatchErrorContinuationOption::Undo) => undoable(&mut context, &message.items).await,
        (Ok(()), other) => one_by_one(&mut context, &message.items, other == BatchErrorContinuationOption::Continue).await,
    };
    let start = out.len();
    respond(message.version, now, &items, out);
    if out.len() - start > limit {
        out.truncate(start);
        for item in &mut items {
            if matches!(&item.outcome, Outcome::Success(response) if response.is_read()) {
                item.outcome = Outcome::Failed(too_large(limit));
            }
        }
        respond(message.version, now, &items, out);
    }
    context.fresh
}

fn too_large(limit: usize) -> Failure {
    Failure::new(ResultReason::ResponseTooLarge, format!("the answer is longer than the {limit} bytes of MaximumResponseSize"))
}

/// Each item for itself. Without `go_on`, the first failure ends the batch (section 6.13).
async fn one_by_one<'n>(context: &mut Context<'_>, items: &'n [RequestItem<'n, '_>], go_on: bool) -> Vec<ResponseItem<'n>> {
    let mut answers = Vec::with_capacity(items.len());
    let mut began = Instant::now();
    for item in items {
        let result = repeat(context, std::slice::from_ref(item)).await;
        let failed = result.is_err();
        let outcome = match result {
            Ok(mut responses) => responses.pop().map_or(Outcome::Undone(None), |response| success(context, item, response)),
            Err(stopped) => Outcome::Failed(stopped.failure),
        };
        // Where one ends, the next begins.
        let ended = Instant::now();
        context.counted.operation(item.operation, &outcome, ended - began);
        began = ended;
        answers.push(answer(item, outcome));
        if failed && !go_on {
            break;
        }
    }
    answers
}

/// All items or none: those before the one that failed are undone, those after it are not run (section 6.13).
async fn undoable<'n>(context: &mut Context<'_>, items: &'n [RequestItem<'n, '_>]) -> Vec<ResponseItem<'n>> {
    let began = Instant::now();
    let answers: Vec<ResponseItem<'n>> = match repeat(context, items).await {
        Ok(responses) => items.iter().zip(responses).map(|(item, response)| answer(item, success(context, item, response))).collect(),
        Err(Stopped { done, failure }) => {
            let at = done.len();
            let mut answers: Vec<_> = items.iter().zip(done).map(|(item, response)| answer(item, Outcome::Undone(Some(response.undone())))).collect();
            answers.extend(items.get(at).map(|item| answer(item, Outcome::Failed(failure))));
            answers
        }
    };
    // They are one unit, and take the time of it together.
    let took = began.elapsed();
    for (item, answer) in items.iter().zip(&answers) {
        context.counted.operation(item.operation, &answer.outcome, took);
    }
    answers
}

/// What was done is counted where it is not recorded by itself; in strict mode, nothing goes out that is not.
fn success(context: &Context<'_>, item: &RequestItem<'_, '_>, response: Response<'static>) -> Outcome<'static> {
    match audit::counted(context.manager, context.actor, item, &response) {
        Ok(()) => Outcome::Success(response),
        Err(failure) => Outcome::Failed(failure),
    }
}

fn answer<'n>(item: &RequestItem<'n, '_>, outcome: Outcome<'static>) -> ResponseItem<'n> {
    ResponseItem { operation: Some(item.operation), id: item.id, outcome }
}

/// A unit of work that was not committed.
struct Stopped {
    /// What the items before the one that failed would have answered.
    done: Vec<Response<'static>>,
    /// Why.
    failure: Failure,
}

/// Runs items as one unit of work until it is committed; a failure is counted.
async fn repeat(context: &mut Context<'_>, items: &[RequestItem<'_, '_>]) -> std::result::Result<Vec<Response<'static>>, Stopped> {
    let result = attempts(context, items).await;
    if let Err(Stopped { done, failure }) = &result
        && let Some(item) = items.get(done.len())
    {
        audit::failed(context.manager, context.actor, context.version, item, failure);
    }
    result
}

async fn attempts(context: &mut Context<'_>, items: &[RequestItem<'_, '_>]) -> std::result::Result<Vec<Response<'static>>, Stopped> {
    let placeholder = context.placeholder;
    let fresh = context.fresh.len();
    // What only the commit finds out is the last item's to say.
    let at_the_end = |mut done: Vec<_>, failure| {
        done.pop();
        Stopped { done, failure }
    };
    let mut last = Vec::new();
    for attempt in 0..REPEATS {
        step_aside(context, attempt).await;
        context.placeholder = placeholder;
        context.fresh.truncate(fresh);
        let mut unit = Unit::new(context.keys, context.version);
        let mut responses = Vec::with_capacity(items.len());
        for item in items {
            match execute(context, &mut unit, item).await {
                Ok(response) => responses.push(response),
                Err(failure) => {
                    // What is undone was given to nobody.
                    context.fresh.truncate(fresh);
                    return Err(Stopped { done: responses, failure });
                }
            }
        }
        match commit(context, unit, items, &responses, placeholder).await {
            Ok(()) => return Ok(responses),
            Err(Unsaved::Repeat) => last = responses,
            Err(Unsaved::Failed(failure)) => {
                // What was not made is not what later items mean (section 4).
                context.placeholder = placeholder;
                context.fresh.truncate(fresh);
                return Err(at_the_end(responses, failure));
            }
        }
    }
    context.placeholder = placeholder;
    context.fresh.truncate(fresh);
    Err(at_the_end(last, Failure::new(ResultReason::GeneralFailure, "the object kept changing while this operation ran; try again")))
}

/// Commits a unit, and records that: before, so that what cannot be recorded is not done, and what was done leaves a trace whatever happens then; and after. The record of before and the commit become
/// durable at the same time, and nothing is answered before both are.
async fn commit(
    context: &Context<'_>,
    unit: Unit<'_>,
    items: &[RequestItem<'_, '_>],
    responses: &[Response<'_>],
    placeholder: Option<Uuid>,
) -> std::result::Result<(), Unsaved> {
    let Context { manager, actor, version, .. } = *context;
    let Some((changes, begun)) = audit::begin(manager, actor, version, items, responses, placeholder).await.map_err(Unsaved::Failed)? else {
        return unit.commit().await;
    };
    let (committed, synced) = tokio::join!(unit.commit(), begun.synced());
    let again = || Failure::new(ResultReason::OperationCanceledByRequester, "it is done again");
    let failure = match &committed {
        Ok(()) => None,
        Err(Unsaved::Repeat) => Some(again()),
        Err(Unsaved::Failed(failure)) => Some(failure.clone()),
    };
    changes.end(manager, failure.as_ref().map(|failure| (failure, version))).await;
    committed?;
    synced.map_err(|why| Unsaved::Failed(audit::unrecorded(manager, &why)))
}

/// Who has lost several times waits a little, each for another while: otherwise the quickest of many that change one object would win always.
async fn step_aside(context: &Context<'_>, attempt: usize) {
    if attempt >= 3 {
        let longest = 1u128 << attempt.min(6);
        let milliseconds = u64::try_from(context.manager.new_uuid().as_u128() % longest).unwrap_or(1);
        tokio::time::sleep(Duration::from_millis(milliseconds)).await;
    }
}

async fn execute(context: &mut Context<'_>, unit: &mut Unit<'_>, item: &RequestItem<'_, '_>) -> Result<Response<'static>> {
    (context.welcome)(item.operation)?;
    let request = item.request(context.version)?;
    match request {
        Request::Create { object_type, template } => create::create(context, unit, object_type, template).await,
        Request::Register { object_type, template, object } => create::register(context, unit, object_type, template, object).await,
        Request::ReKey { id, offset, template } => rekey::rekey(context, unit, id, offset, template).await,
        Request::Locate(locate) => locate::locate(context, unit, &locate).await,
        Request::Get { id, format, wrapping } => get::get(context, unit, id, format, wrapping).await,
        Request::GetAttributes { id, wanted } => attributes::get(context, unit, id, wanted.as_deref()).await,
        Request::GetAttributeList { id } => attributes::list(context, unit, id).await,
        Request::AddAttribute { id, attribute } => attributes::add(context, unit, id, attribute).await,
        Request::ModifyAttribute { id, attribute, which } => attributes::modify(context, unit, id, attribute, which).await,
        Request::DeleteAttribute { id, identity, which } => attributes::delete(context, unit, id, &identity, which).await,
        Request::SetAttribute { id, attribute } => attributes::set(context, unit, id, attribute).await,
        Request::AdjustAttribute { id, identity, adjustment, by } => attributes::adjust(context, unit, id, identity, adjustment, by).await,
        Request::Check { id, usage_limits_count, usage_mask, lease_time } => {
            usage::check(context, unit, id, &usage::Wish { count: usage_limits_count, mask: usage_mask, lease: lease_time }).await
        }
        Request::ObtainLease { id } => usage::obtain_lease(context, unit, id).await,
        Request::GetUsageAllocation { id, count } => usage::allocate(context, unit, id, count).await,
        Request::Encrypt(request) => cipher::encrypt(context, unit, &request).await,
        Request::Decrypt(request) => cipher::decrypt(context, unit, &request).await,
        Request::RngRetrieve { length } => cipher::random(context, length).await,
        Request::Import { id, object_type, replace, attributes, object } => {
            transfer::import(context, unit, transfer::Import { id, object_type, replace, attributes, object }).await
        }
        Request::Export { id, format, wrapping } => transfer::export(context, unit, id, format, wrapping).await,
        Request::Interop { function, identifier } => query::interop(context, function, identifier),
        Request::Log { message } => query::log(context, message),
        Request::Activate { id } => lifecycle::activate(context, unit, id).await,
        Request::Revoke { id, code, message, occurrence } => lifecycle::revoke(context, unit, id, code, message, occurrence).await,
        Request::Destroy { id } => lifecycle::destroy(context, unit, id).await,
        Request::Query(functions) => Ok(query::query(context, &functions)),
        Request::DiscoverVersions(versions) => Ok(query::discover(&versions)),
    }
}

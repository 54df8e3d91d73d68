//! Activate, Revoke and Destroy (KMIP Specification 1.4, sections 4.19 to 4.21; the states: 3.22).

use super::Context;
use crate::managed::Managed;
use crate::unit::{Found, Unit};
use keystead_kmip::enumeration::{Enumeration as _, ObjectType, ResultReason, RevocationReasonCode, State};
use keystead_kmip::response::Response;
use keystead_kmip::ttlv::{Node, Value};
use keystead_kmip::{Failure, Result, Tag};

pub async fn activate(context: &mut Context<'_>, unit: &mut Unit<'_>, id: Option<&str>) -> Result<Response<'static>> {
    let mut found = with_state(context, unit, id).await?;
    match found.object.state(context.now) {
        Some(State::PreActive) => {}
        state => {
            let message = format!("the object is {}, not PreActive", words(state));
            return Err(Failure::new(ResultReason::PermissionDenied, message).since_2(ResultReason::WrongKeyLifecycleState));
        }
    }
    found.object.set_state(State::Active);
    found.object.set_date(Tag::ActivationDate, context.now);
    done(context, unit, found)
}

pub async fn revoke(
    context: &mut Context<'_>,
    unit: &mut Unit<'_>,
    id: Option<&str>,
    code: RevocationReasonCode,
    message: Option<&str>,
    occurrence: Option<i64>,
) -> Result<Response<'static>> {
    let mut found = with_state(context, unit, id).await?;
    let compromise = matches!(code, RevocationReasonCode::KeyCompromise | RevocationReasonCode::CACompromise);
    if occurrence.is_some() && !compromise {
        return Err(Failure::new(ResultReason::InvalidField, "CompromiseOccurrenceDate belongs to a compromise only"));
    }
    let now = context.now;
    let state = found.object.state(now);
    let next = match (state, compromise) {
        (Some(State::PreActive | State::Active | State::Deactivated | State::Compromised), true) => State::Compromised,
        (Some(State::Destroyed | State::DestroyedCompromised), true) => State::DestroyedCompromised,
        (Some(State::Active), false) => State::Deactivated,
        (state, _) => {
            let message = format!("the object is {}: only an active one can be revoked for {}", words(state), code.name());
            return Err(Failure::new(ResultReason::IllegalOperation, message).since_2(ResultReason::WrongKeyLifecycleState));
        }
    };
    // Said once more, it changes nothing: when and why it happened is set once (sections 3.29 to 3.31).
    if matches!(state, Some(State::Compromised | State::DestroyedCompromised)) {
        return Ok(Response::Identifier { object_type: None, id: found.object.id.to_string() });
    }
    let object = &mut found.object;
    if compromise {
        object.set_date(Tag::CompromiseDate, now);
        // Without a date, it may have been compromised ever since it was made.
        let since = occurrence.or_else(|| object.date(Tag::InitialDate)).unwrap_or(now);
        object.set_date(Tag::CompromiseOccurrenceDate, since);
    } else {
        object.set_date(Tag::DeactivationDate, now);
    }
    // The activation may have come by its date alone; from now on the stored state says so.
    object.set_state(next);
    let mut reason = vec![Node::enumeration(Tag::RevocationReasonCode, code)];
    reason.extend(message.map(|message| Node::text(Tag::RevocationMessage, message.to_owned())));
    object.set(Tag::RevocationReason, Value::Structure(reason));
    done(context, unit, found)
}

pub async fn destroy(context: &mut Context<'_>, unit: &mut Unit<'_>, id: Option<&str>) -> Result<Response<'static>> {
    let id = context.id(id)?;
    let mut found = unit.find(id).await?;
    if found.is_destroyed() {
        return Err(Failure::new(ResultReason::PermissionDenied, "the object is destroyed already").since_2(ResultReason::ObjectDestroyed));
    }
    match found.object.state(context.now) {
        Some(State::Active) => {
            let failure = Failure::new(ResultReason::PermissionDenied, "an active object cannot be destroyed; revoke it first");
            return Err(failure.since_2(ResultReason::WrongKeyLifecycleState));
        }
        Some(State::Compromised) => found.object.set_state(State::DestroyedCompromised),
        Some(_) => found.object.set_state(State::Destroyed),
        None => {}
    }
    // Of a Template, nothing stays (section 4.21).
    if found.object.object_type() == ObjectType::Template {
        found.object = Managed::new(id, ObjectType::Template);
    }
    found.object.set_date(Tag::DestroyDate, context.now);
    found.object.set_date(Tag::LastChangeDate, context.now);
    unit.destroy(found)?;
    Ok(Response::Identifier { object_type: None, id: id.to_string() })
}

async fn with_state(context: &Context<'_>, unit: &Unit<'_>, id: Option<&str>) -> Result<Found> {
    let found = unit.find(context.id(id)?).await?;
    if found.object.has_state() {
        return Ok(found);
    }
    let message = format!("an object of the type {} has no state", found.object.object_type().name());
    Err(Failure::new(ResultReason::IllegalOperation, message).since_2(ResultReason::InvalidObjectType))
}

fn done(context: &mut Context<'_>, unit: &mut Unit<'_>, mut found: Found) -> Result<Response<'static>> {
    found.object.set_date(Tag::LastChangeDate, context.now);
    let id = found.object.id;
    unit.change(found)?;
    Ok(Response::Identifier { object_type: None, id: id.to_string() })
}

fn words(state: Option<State>) -> &'static str {
    state.map_or("without a state", State::name)
}

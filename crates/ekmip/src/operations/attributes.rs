//! Get Attributes, Get Attribute List, Add, Modify and Delete Attribute (KMIP Specification 1.4, sections 4.12 to 4.16).

use super::Context;
use super::create::check_dates;
use crate::managed::Managed;
use crate::unit::{Found, Unit};
use keystead_kmip::attribute::{Attribute, Change, Identity, name_value};
use keystead_kmip::enumeration::{ResultReason, State};
use keystead_kmip::response::Response;
use keystead_kmip::ttlv::Value;
use keystead_kmip::{Failure, Result, Tag};
use std::collections::HashSet;

/// What the answer takes, as a multiple of the record: the attributes as they are read, as they are answered, and encoded.
const ANSWER: usize = 4;

pub async fn get(context: &mut Context<'_>, unit: &mut Unit<'_>, id: Option<&str>, names: &[&str]) -> Result<Response<'static>> {
    let id = context.id(id)?;
    let seen = unit.look(id).await?;
    context.room.reserve(ANSWER * seen.size()).await?;
    let object = seen.object()?;
    let found = if names.is_empty() {
        object.all(context.version, context.now)
    } else {
        let mut found = Vec::new();
        let mut seen: HashSet<&str> = HashSet::new();
        for name in names {
            // A name that is unknown, or of a later version, has no instances: that is no error (section 4.12).
            if let (true, Ok(identity)) = (seen.insert(name), Identity::from_name(name, context.version)) {
                found.extend(object.instances(&identity, context.now));
            }
        }
        found
    };
    let attributes = found.into_iter().map(owned).collect();
    Ok(Response::Attributes { id: id.to_string(), attributes })
}

pub async fn list(context: &mut Context<'_>, unit: &mut Unit<'_>, id: Option<&str>) -> Result<Response<'static>> {
    let id = context.id(id)?;
    let seen = unit.look(id).await?;
    context.room.reserve(ANSWER * seen.size()).await?;
    let object = seen.object()?;
    let mut identities: Vec<Identity<'static>> = Vec::new();
    for attribute in object.all(context.version, context.now) {
        if !identities.contains(&attribute.identity) {
            identities.push(attribute.identity.into_owned());
        }
    }
    Ok(Response::AttributeList { id: id.to_string(), identities })
}

pub async fn add(context: &mut Context<'_>, unit: &mut Unit<'_>, id: Option<&str>, attribute: Attribute<'static>) -> Result<Response<'static>> {
    let id = context.id(id)?;
    let mut found = unit.find(id).await?;
    if attribute.identity.change() == Change::Never {
        return Err(read_only(&attribute.identity));
    }
    check_state(context, &found, &attribute.identity)?;
    check_name(&found.object, &attribute)?;
    let index = found.object.add(attribute.clone())?;
    changed(context, &mut found, &attribute.identity)?;
    unit.change(found)?;
    Ok(Response::Attribute { id: id.to_string(), attribute: Attribute { index, ..attribute } })
}

pub async fn modify(
    context: &mut Context<'_>,
    unit: &mut Unit<'_>,
    id: Option<&str>,
    attribute: Attribute<'static>,
    index: Option<u32>,
) -> Result<Response<'static>> {
    let id = context.id(id)?;
    let mut found = unit.find(id).await?;
    if matches!(attribute.identity.change(), Change::Never | Change::Add) {
        return Err(read_only(&attribute.identity));
    }
    check_state(context, &found, &attribute.identity)?;
    check_name(&found.object, &attribute)?;
    // Without an index, the one with the index 0 is meant (section 4.15).
    let index = index.unwrap_or(0);
    if found.object.instances(&attribute.identity, context.now).is_empty() {
        return Err(Failure::new(ResultReason::InvalidField, format!("the object has no attribute {:?}; add it", attribute.identity.name())));
    }
    note_flags(&mut found.object, &attribute);
    found.object.modify(&attribute.identity, index, attribute.value.clone())?;
    changed(context, &mut found, &attribute.identity)?;
    unit.change(found)?;
    Ok(Response::Attribute { id: id.to_string(), attribute: Attribute { index, ..attribute } })
}

pub async fn delete(
    context: &mut Context<'_>,
    unit: &mut Unit<'_>,
    id: Option<&str>,
    identity: &Identity<'_>,
    index: Option<u32>,
) -> Result<Response<'static>> {
    let id = context.id(id)?;
    let mut found = unit.find(id).await?;
    context.room.reserve(ANSWER * found.size()).await?;
    if identity.change() != Change::Free {
        return Err(Failure::new(ResultReason::PermissionDenied, format!("the attribute {:?} cannot be deleted", identity.name())));
    }
    let attribute = owned(found.object.delete(identity, index.unwrap_or(0))?);
    changed(context, &mut found, identity)?;
    unit.change(found)?;
    Ok(Response::Attribute { id: id.to_string(), attribute })
}

fn owned(attribute: Attribute<'_>) -> Attribute<'static> {
    Attribute { identity: attribute.identity.into_owned(), index: attribute.index, value: attribute.value.into_owned() }
}

fn read_only(identity: &Identity<'_>) -> Failure {
    Failure::new(ResultReason::PermissionDenied, format!("the attribute {:?} cannot be set by a client", identity.name()))
}

/// What changes with every change. Dates are looked at where one was set: those that stand may have come out of order by themselves, as when a key is revoked before its Protect Stop Date.
fn changed(context: &Context<'_>, found: &mut Found, identity: &Identity<'_>) -> Result<()> {
    if matches!(identity, Identity::Known(Tag::ActivationDate | Tag::ProcessStartDate | Tag::ProtectStopDate | Tag::DeactivationDate)) {
        check_dates(&found.object)?;
    }
    found.object.set_date(Tag::LastChangeDate, context.now);
    Ok(())
}

/// Dates can be set until they have come: the Activation Date before activation, the others while the object is neither deactivated nor compromised, and the date still ahead (sections 3.24 to 3.27).
fn check_state(context: &Context<'_>, found: &Found, identity: &Identity<'_>) -> Result<()> {
    let Identity::Known(tag) = identity else { return Ok(()) };
    let denied = |why: &str| Err(Failure::new(ResultReason::PermissionDenied, format!("{} cannot be set any more: {why}", identity.name())));
    let state = found.object.state(context.now);
    match *tag {
        Tag::ActivationDate if state != Some(State::PreActive) => denied("the object is not pre-active"),
        Tag::ProcessStartDate | Tag::ProtectStopDate | Tag::DeactivationDate => {
            if !matches!(state, Some(State::PreActive | State::Active)) {
                return denied("the object is neither pre-active nor active");
            }
            if found.object.date(*tag).is_some_and(|date| date <= context.now) {
                return denied("it has passed");
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

/// A name must not be empty, and an object does not have it twice. That no other object has it is found out at the commit.
fn check_name(object: &Managed<'_>, attribute: &Attribute<'_>) -> Result<()> {
    if attribute.identity != Identity::Known(Tag::Name) {
        return Ok(());
    }
    match name_value(&attribute.value) {
        None | Some("") => Err(Failure::new(ResultReason::InvalidField, "a Name must not be empty")),
        Some(name) if object.names().any(|known| known == name) => Err(Failure::new(ResultReason::IllegalOperation, "the object has this Name already")),
        Some(_) => Ok(()),
    }
}

/// What was once not sensitive, or extractable, was not always (sections 3.49 and 3.51).
fn note_flags(object: &mut Managed<'static>, attribute: &Attribute<'_>) {
    match (&attribute.identity, &attribute.value) {
        (Identity::Known(Tag::Sensitive), Value::Boolean(false)) => object.set(Tag::AlwaysSensitive, Value::Boolean(false)),
        (Identity::Known(Tag::Extractable), Value::Boolean(true)) => object.set(Tag::NeverExtractable, Value::Boolean(false)),
        _ => {}
    }
    // They have a value always, so there is something to modify.
    if let Identity::Known(tag @ (Tag::Sensitive | Tag::Extractable)) = &attribute.identity
        && object.value(*tag).is_none()
    {
        object.set(*tag, Value::Boolean(*tag == Tag::Extractable));
    }
}

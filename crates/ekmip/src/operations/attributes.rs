//! Get Attributes, Get Attribute List, Add, Modify and Delete Attribute (KMIP Specification 1.4, sections 4.12 to 4.16), Set and Adjust Attribute (2.1, sections 6.1.51 and 6.1.3).

use super::Context;
use super::create::{check_dates, check_given};
use crate::managed::{Managed, missing};
use crate::unit::{Found, Unit, not_found};
use keystead_kmip::attribute::{Attribute, Change, Identity, Shape, check, definition, name_value};
use keystead_kmip::enumeration::{AdjustmentType, ResultReason, State};
use keystead_kmip::request::Instance;
use keystead_kmip::response::Response;
use keystead_kmip::ttlv::Value;
use keystead_kmip::{Failure, Result, Tag};
use std::collections::HashSet;

/// What the answer takes, as a multiple of the record: the attributes as they are read, as they are answered, and encoded.
const ANSWER: usize = 4;

pub async fn get(context: &mut Context<'_>, unit: &mut Unit<'_>, id: Option<&str>, wanted: Option<&[Identity<'_>]>) -> Result<Response<'static>> {
    let id = context.id(id)?;
    let seen = unit.look(id).await?;
    context.room.reserve(ANSWER * seen.size()).await?;
    let object = seen.object()?;
    let found = match wanted {
        None => object.all(context.version, context.now),
        Some(wanted) => {
            let mut seen: HashSet<&Identity<'_>> = HashSet::new();
            wanted.iter().filter(|identity| seen.insert(identity)).flat_map(|identity| object.instances(identity, context.now)).collect()
        }
    };
    let mut attributes: Vec<_> = found.into_iter().map(owned).collect();
    if context.was_shown(id) {
        let fresh = attributes.iter_mut().filter(|attribute| attribute.identity == Identity::Known(Tag::Fresh));
        fresh.for_each(|attribute| attribute.value = Value::Boolean(false));
    }
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
        return Err(read_only(&attribute.identity).since_2(ResultReason::ReadOnlyAttribute));
    }
    check_state(context, &found, &attribute.identity)?;
    check_name(&found.object, &attribute)?;
    check_given(&attribute)?;
    let index = found.object.add(attribute.clone())?;
    changed(context, &mut found, &attribute.identity)?;
    let attribute = as_kept(&found, attribute, index);
    unit.change(found)?;
    Ok(Response::Attribute { id: id.to_string(), attribute })
}

pub async fn modify(
    context: &mut Context<'_>,
    unit: &mut Unit<'_>,
    id: Option<&str>,
    attribute: Attribute<'static>,
    which: Instance,
) -> Result<Response<'static>> {
    let id = context.id(id)?;
    let mut found = unit.find(id).await?;
    if matches!(attribute.identity.change(), Change::Never | Change::Add) {
        return Err(read_only(&attribute.identity));
    }
    check_state(context, &found, &attribute.identity)?;
    check_name(&found.object, &attribute)?;
    if visible(context, &found, &attribute.identity).is_empty() && found.object.stored(&attribute.identity).is_empty() {
        let message = format!("the object has no attribute {:?}; add it", attribute.identity.name());
        return Err(Failure::new(ResultReason::InvalidField, message).since_2(ResultReason::AttributeNotFound));
    }
    let index = instance(context, &found, &attribute.identity, which)?;
    replace(context, &mut found, &attribute, index)?;
    let attribute = as_kept(&found, attribute, index);
    unit.change(found)?;
    Ok(Response::Attribute { id: id.to_string(), attribute })
}

/// Adds the attribute, or modifies the one that is there.
pub async fn set(context: &mut Context<'_>, unit: &mut Unit<'_>, id: Option<&str>, attribute: Attribute<'static>) -> Result<Response<'static>> {
    let uuid = context.id(id)?;
    let mut found = unit.find(uuid).await?;
    if matches!(attribute.identity.change(), Change::Never | Change::Add) {
        return Err(read_only(&attribute.identity).since_2(ResultReason::ReadOnlyAttribute));
    }
    let stored = found.object.stored(&attribute.identity);
    let defaults = found.object.instances(&attribute.identity, context.now);
    match (stored.as_slice(), defaults.is_empty()) {
        ([], true) => return add(context, unit, id, attribute).await,
        ([], false) => replace(context, &mut found, &attribute, 0)?,
        ([only], _) => {
            let index = *only;
            replace(context, &mut found, &attribute, index)?;
        }
        (several, _) => return Err(ambiguous(&attribute.identity, several.len())),
    }
    unit.change(found)?;
    Ok(Response::Attribute { id: uuid.to_string(), attribute })
}

pub async fn adjust(
    context: &mut Context<'_>,
    unit: &mut Unit<'_>,
    id: Option<&str>,
    identity: Identity<'_>,
    adjustment: AdjustmentType,
    by: Option<Value<'static>>,
) -> Result<Response<'static>> {
    let found = unit.find(context.id(id)?).await?;
    let identity = identity.into_owned();
    let now = match found.object.instances(&identity, context.now).as_slice() {
        [] => nothing(&identity),
        [only] => Some(only.value.clone().into_owned()),
        several => return Err(ambiguous(&identity, several.len())),
    };
    let wrong = |reason, what: &str| Failure::new(ResultReason::InvalidField, format!("the attribute {:?} {what}", identity.name())).since_2(reason);
    let now = now.ok_or_else(|| wrong(ResultReason::InvalidDataType, "has no number to start from"))?;
    let adjusted = adjusted(&now, adjustment, by.as_ref()).map_err(|reason| wrong(reason, "cannot be adjusted so"))?;
    check(&identity, &adjusted)?;
    set(context, unit, id, Attribute { identity, index: 0, value: adjusted }).await
}

pub async fn delete(context: &mut Context<'_>, unit: &mut Unit<'_>, id: Option<&str>, identity: &Identity<'_>, which: Instance) -> Result<Response<'static>> {
    let id = context.id(id)?;
    let mut found = unit.find(id).await?;
    context.room.reserve(ANSWER * found.size()).await?;
    if identity.change() != Change::Free {
        let message = format!("the attribute {:?} cannot be deleted", identity.name());
        return Err(Failure::new(ResultReason::PermissionDenied, message).since_2(ResultReason::AttributeReadOnly));
    }
    if found.object.stored(identity).is_empty() {
        let message = format!("the object has no attribute {:?}", identity.name());
        return Err(Failure::new(ResultReason::ItemNotFound, message).since_2(ResultReason::AttributeNotFound));
    }
    check_state(context, &found, identity)?;
    let attribute = match which {
        Instance::All => {
            let mut last = None;
            for index in found.object.stored(identity) {
                last = Some(found.object.delete(identity, index)?);
            }
            last.ok_or_else(|| not_found(&id.to_string()))?
        }
        which => {
            let index = instance(context, &found, identity, which)?;
            found.object.delete(identity, index)?
        }
    };
    let attribute = owned(attribute);
    changed(context, &mut found, identity)?;
    unit.change(found)?;
    Ok(Response::Attribute { id: id.to_string(), attribute })
}

/// The index of the instance that is meant. Without an index, the one with the index 0 is (section 4.15); in 2.x, the only one there is (2.1, section 6.1.34).
fn instance(context: &Context<'_>, found: &Found, identity: &Identity<'_>, which: Instance) -> Result<u32> {
    let visible = visible(context, found, identity);
    match which {
        Instance::Index(index) => {
            let index = index.unwrap_or(0);
            visible.iter().find(|known| known.index == index).map(|known| known.index).ok_or_else(|| missing(identity, index))
        }
        Instance::Value(value) => {
            let known = visible.iter().find(|known| known.value == value).map(|known| known.index);
            let message = || format!("the attribute {:?} does not have the CurrentAttribute's value", identity.name());
            known.ok_or_else(|| Failure::new(ResultReason::ItemNotFound, message()).since_2(ResultReason::AttributeInstanceNotFound))
        }
        Instance::All => match visible.as_slice() {
            [] => Ok(0),
            [only] => Ok(only.index),
            several => Err(ambiguous(identity, several.len())),
        },
    }
}

/// The instances that the client's version can say: of what it is not shown, it can neither change nor take away anything.
fn visible<'f>(context: &Context<'_>, found: &'f Found, identity: &Identity<'_>) -> Vec<Attribute<'f>> {
    let mut all = found.object.instances(identity, context.now);
    all.retain(|attribute| attribute.exists_in(context.version));
    all
}

/// Replaces the value of an instance.
fn replace(context: &Context<'_>, found: &mut Found, attribute: &Attribute<'static>, index: u32) -> Result<()> {
    check_state(context, found, &attribute.identity)?;
    check_name(&found.object, attribute)?;
    check_given(attribute)?;
    note_flags(&mut found.object, attribute);
    found.object.modify(&attribute.identity, index, attribute.value.clone())?;
    changed(context, found, &attribute.identity)
}

/// What an attribute that is not there is adjusted from: 0 or false (2.1, section 6.1.3). `None`: it is nothing that can be adjusted.
fn nothing(identity: &Identity<'_>) -> Option<Value<'static>> {
    let Identity::Known(tag) = identity else { return None };
    match definition(*tag)?.shape {
        Shape::Integer => Some(Value::Integer(0)),
        Shape::LongInteger => Some(Value::LongInteger(0)),
        Shape::Interval => Some(Value::Interval(0)),
        Shape::Boolean => Some(Value::Boolean(false)),
        _ => None,
    }
}

/// A value with an adjustment (2.1, section 11.1). Without an Adjustment Value, a number goes up or down by one.
fn adjusted(now: &Value<'_>, adjustment: AdjustmentType, by: Option<&Value<'_>>) -> std::result::Result<Value<'static>, ResultReason> {
    use AdjustmentType as A;
    let wrong = Err(ResultReason::InvalidDataType);
    let step = match (now, by) {
        (_, None) => 1,
        (Value::Integer(_), Some(Value::Integer(by))) => i64::from(*by),
        (Value::LongInteger(_), Some(Value::LongInteger(by))) => *by,
        (Value::Interval(_) | Value::DateTime(_) | Value::DateTimeExtended(_), Some(Value::Interval(by))) => i64::from(*by),
        _ => return wrong,
    };
    let moved = |number: i64| match adjustment {
        A::Increment => number.checked_add(step),
        A::Decrement => number.checked_sub(step),
        A::Negate => number.checked_neg(),
    };
    let range = ResultReason::NumericRange;
    match now {
        Value::Boolean(value) if adjustment == A::Negate => Ok(Value::Boolean(!value)),
        Value::Integer(number) => moved(i64::from(*number)).and_then(|number| i32::try_from(number).ok()).map(Value::Integer).ok_or(range),
        Value::LongInteger(number) => moved(*number).map(Value::LongInteger).ok_or(range),
        Value::Interval(number) if adjustment != A::Negate => {
            moved(i64::from(*number)).and_then(|number| u32::try_from(number).ok()).map(Value::Interval).ok_or(range)
        }
        Value::DateTime(date) if adjustment != A::Negate => moved(*date).map(Value::DateTime).ok_or(range),
        _ => wrong,
    }
}

/// The attribute as it stands now: the count of Usage Limits is the server's.
fn as_kept(found: &Found, attribute: Attribute<'static>, index: u32) -> Attribute<'static> {
    match (&attribute.identity, found.object.value(Tag::UsageLimits)) {
        (Identity::Known(Tag::UsageLimits), Some(kept)) => Attribute { index, value: kept.clone(), ..attribute },
        _ => Attribute { index, ..attribute },
    }
}

fn ambiguous(identity: &Identity<'_>, count: usize) -> Failure {
    let message = format!("the object has {count} of the attribute {:?}, and nothing says which is meant", identity.name());
    Failure::new(ResultReason::InvalidField, message).since_2(ResultReason::MultiValuedAttribute)
}

fn owned(attribute: Attribute<'_>) -> Attribute<'static> {
    Attribute { identity: attribute.identity.into_owned(), index: attribute.index, value: attribute.value.into_owned() }
}

fn read_only(identity: &Identity<'_>) -> Failure {
    let message = format!("the attribute {:?} cannot be set by a client", identity.name());
    Failure::new(ResultReason::PermissionDenied, message).since_2(ResultReason::AttributeReadOnly)
}

/// What changes with every change. Dates are looked at where one was set: those that stand may have come out of order by themselves, as when a key is revoked before its Protect Stop Date.
fn changed(context: &Context<'_>, found: &mut Found, identity: &Identity<'_>) -> Result<()> {
    if matches!(identity, Identity::Known(Tag::ActivationDate | Tag::ProcessStartDate | Tag::ProtectStopDate | Tag::DeactivationDate)) {
        check_dates(&found.object)?;
    }
    if *identity == Identity::Known(Tag::UsageLimits) {
        found.object.start_counting();
    }
    found.object.set_date(Tag::LastChangeDate, context.now);
    Ok(())
}

/// Dates can be set until they have come: the Activation Date before activation, the others while the object is neither deactivated nor compromised, and the date still ahead (sections 3.24 to 3.27).
fn check_state(context: &Context<'_>, found: &Found, identity: &Identity<'_>) -> Result<()> {
    let Identity::Known(tag) = identity else { return Ok(()) };
    let denied = |why: &str| {
        let message = format!("{} cannot be set any more: {why}", identity.name());
        Err(Failure::new(ResultReason::PermissionDenied, message).since_2(ResultReason::WrongKeyLifecycleState))
    };
    let state = found.object.state(context.now);
    match *tag {
        // Nobody gives himself more than he was given (section 3.21).
        Tag::UsageLimits if found.object.has_counted() => denied("some of it is used"),
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
        None | Some("") => Err(Failure::new(ResultReason::InvalidField, "a Name must not be empty").since_2(ResultReason::InvalidAttributeValue)),
        Some(name) if object.names().any(|known| known == name) => {
            Err(Failure::new(ResultReason::IllegalOperation, "the object has this Name already").since_2(ResultReason::NonUniqueNameAttribute))
        }
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

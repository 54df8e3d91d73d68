//! Check, Obtain Lease and Get Usage Allocation (KMIP Specification 1.4, sections 4.10, 4.17 and 4.18); Usage Limits (3.21).

use super::Context;
use crate::managed::{LEASE_TIME, Managed};
use crate::unit::{Unit, destroyed};
use keystead_kmip::enumeration::{ENCRYPT, Enumeration, ResultReason, State, UNRESTRICTED, UsageLimitsUnit};
use keystead_kmip::response::Response;
use keystead_kmip::ttlv::{Node, Value};
use keystead_kmip::{Failure, Result, Tag};

/// The bits of the usage mask that apply protection: Sign, Encrypt, Wrap Key, MAC Generate. Usage is counted for these (section 4.18).
const PROTECTING: i32 = 0x1 | ENCRYPT | 0x10 | 0x80 | UNRESTRICTED;

/// What a client wants to use an object for.
pub struct Wish {
    /// So many units.
    pub count: Option<i64>,
    /// These bits of the usage mask.
    pub mask: Option<i32>,
    /// For so many seconds.
    pub lease: Option<u32>,
}

pub async fn check(context: &mut Context<'_>, unit: &mut Unit<'_>, id: Option<&str>, wish: &Wish) -> Result<Response<'static>> {
    let id = context.id(id)?;
    let result = allowed(unit, id, wish).await;
    if result.is_err() {
        // So that what follows in the batch does not go on with it.
        context.placeholder = None;
    }
    result.map(|()| Response::Checked { id: id.to_string() })
}

pub async fn obtain_lease(context: &mut Context<'_>, unit: &mut Unit<'_>, id: Option<&str>) -> Result<Response<'static>> {
    let id = context.id(id)?;
    let seen = unit.look(id).await?;
    if seen.is_destroyed() {
        return Err(destroyed(&id.to_string()));
    }
    let object = seen.object()?;
    if !object.has_state() {
        // Illegal Object Type is not among the reasons of this operation (2.1, section 6.1.35.1).
        return Err(Failure::new(ResultReason::IllegalOperation, no_key(&object).message));
    }
    let last_change = object.date(Tag::LastChangeDate).unwrap_or(context.now);
    Ok(Response::Lease { id: id.to_string(), seconds: LEASE_TIME, last_change })
}

pub async fn allocate(context: &mut Context<'_>, unit: &mut Unit<'_>, id: Option<&str>, count: i64) -> Result<Response<'static>> {
    let id = context.id(id)?;
    let mut found = unit.find(id).await?;
    if found.is_destroyed() {
        return Err(destroyed(&id.to_string()));
    }
    let illegal = |later, what: &str| Failure::new(ResultReason::IllegalOperation, format!("the object {what}")).since_2(later);
    if limits(&found.object).is_none() {
        return Err(illegal(ResultReason::AttributeNotFound, "has no Usage Limits"));
    }
    if found.object.state(context.now) != Some(State::Active) || found.object.date(Tag::ProtectStopDate).is_some_and(|date| date <= context.now) {
        return Err(illegal(ResultReason::PermissionDenied, "may not protect anything now"));
    }
    if found.object.integer(Tag::CryptographicUsageMask).unwrap_or(0) & PROTECTING == 0 {
        return Err(illegal(ResultReason::PermissionDenied, "is not for protecting anything"));
    }
    if count < 0 {
        return Err(Failure::new(ResultReason::InvalidField, "UsageLimitsCount is negative"));
    }
    consume(&mut found.object, count)?;
    unit.change(found)?;
    Ok(Response::Identifier { object_type: None, id: id.to_string() })
}

/// What is left of an object's Usage Limits, with the unit; `None` where it has none.
pub fn limits(object: &Managed<'_>) -> Option<(i64, UsageLimitsUnit)> {
    let Some(Value::Structure(items)) = object.value(Tag::UsageLimits) else { return None };
    let number = |tag: Tag| match items.iter().find(|item| item.tag == tag)?.value {
        Value::LongInteger(number) => Some(number),
        _ => None,
    };
    let unit = items.iter().find_map(|item| match (item.tag, &item.value) {
        (Tag::UsageLimitsUnit, Value::Enumeration(unit)) => UsageLimitsUnit::from_number(*unit),
        _ => None,
    })?;
    Some((number(Tag::UsageLimitsCount).or_else(|| number(Tag::UsageLimitsTotal))?, unit))
}

/// Takes units of what is left. The caller commits it before anything is given for it.
///
/// # Errors
/// Permission Denied where less is left.
pub fn consume(object: &mut Managed<'static>, count: i64) -> Result<()> {
    let Some((left, _)) = limits(object) else { return Ok(()) };
    let rest = left.checked_sub(count).filter(|rest| *rest >= 0).ok_or_else(|| exceeded(left))?;
    let Some(Value::Structure(items)) = object.value(Tag::UsageLimits).cloned() else { return Ok(()) };
    let mut items: Vec<Node<'static>> = items.into_iter().filter(|item| item.tag != Tag::UsageLimitsCount).collect();
    // In the order of the specification: after the total, whether it was there or not.
    let at = items.iter().position(|item| item.tag == Tag::UsageLimitsTotal).map_or(items.len(), |at| at + 1);
    items.insert(at, Node::new(Tag::UsageLimitsCount, Value::LongInteger(rest)));
    object.set(Tag::UsageLimits, Value::Structure(items));
    Ok(())
}

/// Whether an object's Usage Limits say how much of them is left; also where it has none.
pub(super) fn is_counted(object: &Managed<'_>) -> bool {
    match object.value(Tag::UsageLimits) {
        Some(Value::Structure(items)) => items.iter().any(|item| item.tag == Tag::UsageLimitsCount),
        _ => true,
    }
}

/// Refuses Usage Limits of which more is left than there was, or less than nothing.
///
/// # Errors
/// Invalid Field.
pub(super) fn check_count(object: &Managed<'_>) -> Result<()> {
    let Some(Value::Structure(items)) = object.value(Tag::UsageLimits) else { return Ok(()) };
    let number = |tag: Tag| match items.iter().find(|item| item.tag == tag).map(|item| &item.value) {
        Some(Value::LongInteger(number)) => Some(*number),
        _ => None,
    };
    match (number(Tag::UsageLimitsCount), number(Tag::UsageLimitsTotal)) {
        (Some(count), Some(total)) if (0..=total).contains(&count) => Ok(()),
        _ => {
            let failure = Failure::new(ResultReason::InvalidField, "UsageLimitsCount is not between 0 and UsageLimitsTotal");
            Err(failure.since_2(ResultReason::InvalidAttributeValue))
        }
    }
}

async fn allowed(unit: &Unit<'_>, id: uuid::Uuid, wish: &Wish) -> Result<()> {
    let seen = unit.look(id).await?;
    if seen.is_destroyed() {
        return Err(destroyed(&id.to_string()));
    }
    let object = seen.object()?;
    if !object.has_state() {
        return Err(no_key(&object));
    }
    let mut failures = Vec::new();
    let mut fields = Vec::new();
    let mut deny = |failure: Failure, tag, value| {
        failures.push(failure);
        fields.push(Node::new(tag, value));
    };
    let denied = |later, what: &str| Failure::new(ResultReason::PermissionDenied, format!("the object {what}")).since_2(later);
    if let (Some(count), Some((left, _))) = (wish.count, limits(&object))
        && count > left
    {
        deny(exceeded(left), Tag::UsageLimitsCount, Value::LongInteger(count));
    }
    if let Some(mask) = wish.mask {
        let has = object.integer(Tag::CryptographicUsageMask).unwrap_or(0);
        if has & UNRESTRICTED == 0 && has & mask != mask {
            deny(denied(ResultReason::IncompatibleCryptographicUsageMask, "is not for that use"), Tag::CryptographicUsageMask, Value::Integer(mask));
        }
    }
    if let Some(seconds) = wish.lease.filter(|seconds| *seconds > LEASE_TIME) {
        let failure = denied(ResultReason::PermissionDenied, &format!("is leased for {LEASE_TIME} seconds at most"));
        deny(failure, Tag::LeaseTime, Value::Interval(seconds));
    }
    // All that was denied is named, so that the client knows how to go on (section 4.10); the reason is that of the first.
    match failures.into_iter().next() {
        None => Ok(()),
        Some(failure) => Err(failure.denying(fields)),
    }
}

fn exceeded(left: i64) -> Failure {
    Failure::new(ResultReason::PermissionDenied, format!("of the object's Usage Limits, {left} are left")).since_2(ResultReason::UsageLimitExceeded)
}

fn no_key(object: &Managed<'_>) -> Failure {
    let message = format!("an object of the type {} is not used under a lease or a limit", object.object_type().name());
    Failure::new(ResultReason::IllegalOperation, message).since_2(ResultReason::IllegalObjectType)
}

//! Re-key (KMIP Specification 1.4, section 4.4): a new key in the place of an old one.

use super::Context;
use super::create::{finish, make_key};
use crate::reason::failure;
use crate::unit::{Unit, destroyed};
use keystead_kmip::attribute::{Attribute, Identity};
use keystead_kmip::enumeration::{KeyFormatType, LinkType, ObjectType, ResultReason};
use keystead_kmip::request::Template;
use keystead_kmip::response::Response;
use keystead_kmip::ttlv::{Node, Value};
use keystead_kmip::{Failure, Result, Tag};
use uuid::Uuid;

/// What the new key does not take over: what is its own, and what has happened to the old one (section 4.4, table of attributes).
const NOT_TAKEN_OVER: &[Tag] = &[
    Tag::ObjectType,
    Tag::State,
    Tag::Digest,
    Tag::InitialDate,
    Tag::DestroyDate,
    Tag::CompromiseOccurrenceDate,
    Tag::CompromiseDate,
    Tag::RevocationReason,
    Tag::LastChangeDate,
    Tag::Fresh,
    Tag::OriginalCreationDate,
    Tag::RandomNumberGenerator,
    Tag::Link,
    Tag::KeyFormatType,
    // What the old secret always was; of the new one it is computed.
    Tag::AlwaysSensitive,
    Tag::NeverExtractable,
];
/// The dates that move with an Offset.
const DATES: [Tag; 4] = [Tag::ActivationDate, Tag::ProcessStartDate, Tag::ProtectStopDate, Tag::DeactivationDate];

pub async fn rekey(context: &mut Context<'_>, unit: &mut Unit<'_>, id: Option<&str>, offset: Option<u32>, template: Template<'_>) -> Result<Response<'static>> {
    context.keys.usable().map_err(|error| failure(&error))?;
    let id = context.id(id)?;
    let mut old = unit.find(id).await?;
    if old.is_destroyed() {
        return Err(destroyed(&id.to_string()));
    }
    if old.object.object_type() != ObjectType::SymmetricKey {
        return Err(Failure::new(ResultReason::PermissionDenied, "only a SymmetricKey can be re-keyed").since_2(ResultReason::InvalidObjectType));
    }
    if link(&old.object, LinkType::ReplacementObjectLink) {
        return Err(Failure::new(ResultReason::PermissionDenied, "the key has been replaced already; re-key its replacement"));
    }
    let mut new = super::create::start(context, unit, ObjectType::SymmetricKey, template).await?;
    // What is stored alone: a default is not what the client has given, and must not stand in the way of what the old key has.
    let mut given: Vec<Identity<'static>> = new.every(context.now).into_iter().map(|attribute| attribute.identity.into_owned()).collect();
    given.retain(|identity| !new.stored(identity).is_empty());
    if offset.is_some() {
        if DATES.iter().any(|tag| given.contains(&Identity::Known(*tag))) {
            return Err(Failure::new(ResultReason::InvalidMessage, "an Offset and dates cannot both be given"));
        }
        let dates = |tag: &Tag| old.object.date(*tag).is_some();
        if DATES.iter().any(dates) && !dates(&Tag::ActivationDate) {
            return Err(Failure::new(ResultReason::IllegalOperation, "the key has dates but no Activation Date that they could move with"));
        }
    }
    for attribute in old.object.every(context.now) {
        let keeps = match &attribute.identity {
            Identity::Known(tag) => !NOT_TAKEN_OVER.contains(tag) && old.object.value(*tag).is_some(),
            Identity::Custom(_) => true,
        };
        if keeps && !given.contains(&attribute.identity) {
            new.add(Attribute { identity: attribute.identity.into_owned(), index: 0, value: attribute.value.into_owned() })?;
        }
    }
    move_dates(context.now, &old.object, &mut new, offset);
    let wrong = || Failure::new(ResultReason::PermissionDenied, "the key has no algorithm or no length");
    let algorithm = new.enumeration(Tag::CryptographicAlgorithm).ok_or_else(wrong)?;
    let secret = make_key(algorithm, new.integer(Tag::CryptographicLength).ok_or_else(wrong)?)?;
    new.describe_secret(&secret, KeyFormatType::Raw, true, context.now);
    new.add(linked(LinkType::ReplacedObjectLink, id))?;

    // The name goes over to the new key.
    old.object.remove(Tag::Name);
    old.object.add(linked(LinkType::ReplacementObjectLink, new.id))?;
    old.object.set_date(Tag::LastChangeDate, context.now);
    unit.change(old)?;
    finish(context, unit, new, Some(secret), None)
}

/// With an Offset, the new key is activated that many seconds from now, and its other dates move by as much; without one it has the old key's dates.
fn move_dates(now: i64, old: &crate::managed::Managed<'_>, new: &mut crate::managed::Managed<'static>, offset: Option<u32>) {
    let Some(offset) = offset else { return };
    let activation = now.saturating_add(i64::from(offset));
    let moved_by = old.date(Tag::ActivationDate).map_or(0, |date| activation.saturating_sub(date));
    for tag in DATES {
        if let Some(date) = old.date(tag).filter(|_| tag != Tag::ActivationDate) {
            new.set_date(tag, date.saturating_add(moved_by));
        }
    }
    new.set_date(Tag::ActivationDate, activation);
}

fn linked(kind: LinkType, id: Uuid) -> Attribute<'static> {
    let items = vec![Node::enumeration(Tag::LinkType, kind), Node::text(Tag::LinkedObjectIdentifier, id.to_string())];
    Attribute::new(Tag::Link, Value::Structure(items))
}

fn link(object: &crate::managed::Managed<'_>, kind: LinkType) -> bool {
    object.instances(&Identity::Known(Tag::Link), 0).iter().any(|attribute| match &attribute.value {
        Value::Structure(items) => items.contains(&Node::enumeration(Tag::LinkType, kind)),
        _ => false,
    })
}

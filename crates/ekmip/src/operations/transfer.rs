//! Import and Export (KMIP Specification 1.4, sections 4.42 and 4.41): an object with its identifier and its attributes, from one server to another.

use super::Context;
use super::create::{check_dates, check_given, take};
use super::get::give_out;
use super::usage::{check_count, is_counted};
use crate::managed::Managed;
use crate::reason::failure;
use crate::unit::{Unit, name_taken};
use keystead_kmip::attribute::{Attribute, Identity};
use keystead_kmip::enumeration::{KeyFormatType, ObjectType, ResultReason, State};
use keystead_kmip::object::{KeyWrappingData, Object};
use keystead_kmip::response::Response;
use keystead_kmip::ttlv::Value;
use keystead_kmip::{Failure, Result, Tag};
use uuid::Uuid;

/// What the answer takes, as a multiple of the record.
const ANSWER: usize = 6;

/// What follows from the object itself, so that what a client says of it is not taken over: nobody could tell it from the truth.
const OWN: &[Tag] = &[
    Tag::UniqueIdentifier,
    Tag::ShortUniqueIdentifier,
    Tag::ObjectType,
    Tag::Digest,
    Tag::KeyFormatType,
    Tag::LeaseTime,
    Tag::ProtectionStorageMask,
    Tag::CertificateLength,
    Tag::X_509CertificateIdentifier,
    Tag::X_509CertificateSubject,
    Tag::X_509CertificateIssuer,
    Tag::DigitalSignatureAlgorithm,
    Tag::OpaqueDataType,
    Tag::KeyValuePresent,
    Tag::KeyValueLocation,
];

/// What another server says of the past of an object.
const HISTORY: &[Tag] = &[Tag::RandomNumberGenerator, Tag::AlwaysSensitive, Tag::NeverExtractable];

/// An object that comes from another server.
pub struct Import<'n> {
    /// Its identifier there, and here.
    pub id: &'n str,
    /// Its type.
    pub object_type: ObjectType,
    /// Whether it may take the place of another.
    pub replace: bool,
    /// Its attributes.
    pub attributes: Vec<Attribute<'static>>,
    /// The object.
    pub object: Object<'n>,
}

pub async fn import(context: &mut Context<'_>, unit: &mut Unit<'_>, import: Import<'_>) -> Result<Response<'static>> {
    context.keys.usable().map_err(|error| failure(&error))?;
    let id: Uuid = import.id.parse().map_err(|_| Failure::new(ResultReason::InvalidField, "identifiers are UUIDs here, and UniqueIdentifier is none"))?;
    // Also by an object that this version does not have, as a Template.
    match unit.is_taken(id).await? {
        false => {}
        true if import.replace => {
            return Err(Failure::new(ResultReason::FeatureNotSupported, "an object does not take the place of another; import under a new identifier"));
        }
        true => return Err(Failure::new(ResultReason::ObjectAlreadyExists, format!("there is an object {id} already"))),
    }
    if import.object_type == ObjectType::Template {
        return Err(Failure::new(ResultReason::InvalidField, "a Template is registered, not imported"));
    }
    let mut new = Managed::new(id, import.object_type);
    for attribute in import.attributes {
        let own = match &attribute.identity {
            Identity::Known(tag) => OWN.contains(tag) || certificate_name(*tag),
            Identity::Custom(_) => false,
        };
        if !own {
            check_given(&attribute)?;
            new.add(attribute)?;
        }
    }
    check_dates(&new)?;
    // Usage that was counted elsewhere stays used.
    if !is_counted(&new) {
        new.start_counting();
    }
    check_count(&new)?;
    // What was once so, or how the key was made, nobody can tell here; what its server says counts.
    let told: Vec<_> = HISTORY.iter().filter_map(|tag| Some((*tag, new.value(*tag)?.clone()))).collect();
    if let Some((secret, format)) = take(&mut new, import.object)? {
        new.describe_secret(&secret, format, false, context.now);
        told.into_iter().for_each(|(tag, value)| new.set(tag, value));
        crate::approved::check(context.manager.fips(), &new)?;
        arrive(context, &mut new)?;
        unit.create(new, Some(secret))?;
        context.placeholder = Some(id);
    }
    Ok(Response::Identifier { object_type: None, id: id.to_string() })
}

pub async fn export(
    context: &mut Context<'_>,
    unit: &mut Unit<'_>,
    id: Option<&str>,
    format: Option<KeyFormatType>,
    wrapping: Option<KeyWrappingData>,
) -> Result<Response<'static>> {
    let id = context.id(id)?;
    let seen = unit.look(id).await?;
    context.room.reserve(ANSWER * seen.size()).await?;
    // Of what is destroyed, the attributes are left (section 4.41).
    let known = seen.object()?;
    let object = if seen.is_destroyed() { None } else { Some(give_out(context, unit, &seen, &known, format, wrapping).await?) };
    let owned = |attribute: Attribute<'_>| Attribute { identity: attribute.identity.into_owned(), index: attribute.index, value: attribute.value.into_owned() };
    let attributes = known.all(context.version, context.now).into_iter().map(owned).collect();
    if object.is_some() && known.boolean(Tag::Fresh).unwrap_or(false) {
        context.fresh.push(id);
    }
    context.placeholder = Some(id);
    Ok(Response::Exported { id: id.to_string(), object_type: known.object_type(), attributes, object })
}

/// State, dates and names of an object that has arrived: as they came, and where they are missing, as of a new one.
fn arrive(context: &Context<'_>, new: &mut Managed<'static>) -> Result<()> {
    for tag in [Tag::InitialDate, Tag::LastChangeDate] {
        if new.value(tag).is_none() {
            new.set_date(tag, context.now);
        }
    }
    if new.has_state() {
        match new.enumeration::<State>(Tag::State) {
            None => new.set_state(State::PreActive),
            Some(State::Destroyed | State::DestroyedCompromised) => {
                return Err(Failure::new(ResultReason::InvalidField, "a destroyed object has nothing to import"));
            }
            Some(_) => {}
        }
        if new.value(Tag::Fresh).is_none() {
            new.set(Tag::Fresh, Value::Boolean(true));
        }
    } else {
        new.remove(Tag::State);
    }
    let mut names: Vec<&str> = new.names().collect();
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    if names.len() < count || names.contains(&"") {
        return Err(name_taken(true));
    }
    Ok(())
}

/// Whether it is a part of a certificate's name.
fn certificate_name(tag: Tag) -> bool {
    (Tag::CertificateSubjectCN..=Tag::CertificateIssuerDNQualifier).contains(&tag)
}

//! Reading the payloads of requests, of every version.

use super::{CipherRequest, Instance, Locate, Request, Template};
use crate::attribute::{Attribute, Identity, check, parts};
use crate::cipher::CipherParameters;
use crate::enumeration::{Enumeration as _, KeyFormatType, KeyWrapType, ObjectType, Operation, QueryFunction, ResultReason};
use crate::failure::{Failure, Result};
use crate::fields::{Fields, bytes, enumeration, integer, text};
use crate::object::{KeyWrappingData, Object};
use crate::tag::Tag;
use crate::ttlv::{Node, Value};
use crate::version::Version;
use crate::versions::{foreign, has_member, refuse_foreign};

/// The longest output of the random number generator, in bytes: what an answer of a small client holds.
const MOST_RANDOM: i32 = 64 * 1024;

/// What looks into its own values: attributes and types of objects, since 2.x has reasons of its own for them, and Query, which answers what it can.
const OWN: &[Tag] = &[Tag::Attribute, Tag::Attributes, Tag::NewAttribute, Tag::CurrentAttribute, Tag::ObjectType, Tag::QueryFunction];

impl Operation {
    /// Whether a version has the operation.
    pub fn exists_in(self, version: Version) -> bool {
        has_member(Tag::Operation, self.number(), version)
    }
}

impl<'n> Request<'n> {
    /// Reads a payload.
    ///
    /// # Errors
    /// Operation Not Supported; Invalid Message, Invalid Field and Missing Data for a wrong payload.
    pub fn from_node(operation: Operation, payload: &'n Node<'_>, version: Version) -> Result<Self> {
        if !operation.exists_in(version) {
            return Err(not_supported(operation, version));
        }
        let mut fields = Fields::of(payload)?;
        let fields = &mut fields;
        let request = match operation {
            Operation::Create => {
                let object_type = enumeration(fields.required(Tag::ObjectType)?)?;
                Request::Create { object_type, template: template(fields, version)?.ok_or_else(|| missing_template(version))? }
            }
            Operation::Register => {
                let object_type = enumeration(fields.required(Tag::ObjectType)?)?;
                Request::Register { object_type, template: template(fields, version)?.unwrap_or_default(), object: object(fields, object_type, version)? }
            }
            Operation::ReKey => {
                Request::ReKey { id: id(fields, version)?, offset: fields.interval(Tag::Offset)?, template: template(fields, version)?.unwrap_or_default() }
            }
            Operation::Locate => Request::Locate(locate(fields, version)?),
            Operation::Get => {
                let (id, format, wrapping) = get(fields, version)?;
                Request::Get { id, format, wrapping }
            }
            Operation::Export => {
                let (id, format, wrapping) = get(fields, version)?;
                Request::Export { id, format, wrapping }
            }
            Operation::GetAttributes => Request::GetAttributes { id: id(fields, version)?, wanted: wanted(fields, version)? },
            Operation::GetAttributeList => Request::GetAttributeList { id: id(fields, version)? },
            Operation::AddAttribute => add_attribute(fields, version)?,
            Operation::ModifyAttribute => modify_attribute(fields, version)?,
            Operation::DeleteAttribute => delete_attribute(fields, version)?,
            Operation::SetAttribute => {
                Request::SetAttribute { id: id(fields, version)?, attribute: Attribute::one_from_node(fields.required(Tag::NewAttribute)?, version)? }
            }
            Operation::AdjustAttribute => Request::AdjustAttribute {
                id: id(fields, version)?,
                identity: Identity::from_reference(fields.required(Tag::AttributeReference)?, version)?,
                adjustment: enumeration(fields.required(Tag::AdjustmentType)?)?,
                by: fields.optional(Tag::AdjustmentValue)?.map(|node| node.value.clone().into_owned()),
            },
            Operation::Check => Request::Check {
                id: id(fields, version)?,
                usage_limits_count: fields.long_integer(Tag::UsageLimitsCount)?,
                usage_mask: fields.integer(Tag::CryptographicUsageMask)?,
                lease_time: fields.interval(Tag::LeaseTime)?,
            },
            Operation::ObtainLease => Request::ObtainLease { id: id(fields, version)? },
            Operation::GetUsageAllocation => {
                let id = id(fields, version)?;
                let missing = || Failure::new(ResultReason::MissingData, "UsageLimitsCount is missing in RequestPayload");
                Request::GetUsageAllocation { id, count: fields.long_integer(Tag::UsageLimitsCount)?.ok_or_else(missing)? }
            }
            Operation::Activate => Request::Activate { id: id(fields, version)? },
            Operation::Revoke => {
                let id = id(fields, version)?;
                let mut reason = Fields::of(fields.required(Tag::RevocationReason)?)?;
                let code = enumeration(reason.required(Tag::RevocationReasonCode)?)?;
                let message = reason.text(Tag::RevocationMessage)?;
                reason.finish()?;
                Request::Revoke { id, code, message, occurrence: fields.date_time(Tag::CompromiseOccurrenceDate)? }
            }
            Operation::Destroy => Request::Destroy { id: id(fields, version)? },
            Operation::Query => Request::Query(query(fields, version)?),
            Operation::DiscoverVersions => Request::DiscoverVersions(fields.all(Tag::ProtocolVersion).map(numbers).collect::<Result<_>>()?),
            Operation::Encrypt => Request::Encrypt(cipher(fields, version, false)?),
            Operation::Decrypt => Request::Decrypt(cipher(fields, version, true)?),
            Operation::RNGRetrieve => {
                let length = integer(fields.required(Tag::DataLength)?)?;
                let good = (1..=MOST_RANDOM).contains(&length);
                let length = usize::try_from(length).ok().filter(|_| good);
                Request::RngRetrieve { length: length.ok_or_else(|| invalid(format!("DataLength must be 1 to {MOST_RANDOM} bytes")))? }
            }
            Operation::Import => import(fields, version)?,
            Operation::Interop => {
                Request::Interop { function: enumeration(fields.required(Tag::InteropFunction)?)?, identifier: text(fields.required(Tag::InteropIdentifier)?)? }
            }
            Operation::Log => Request::Log { message: text(fields.required(Tag::LogMessage)?)? },
            other => return Err(not_supported(other, version)),
        };
        fields.finish()?;
        // Last, since others have reasons of their own.
        refuse_foreign(foreign(payload, version, OWN), version)?;
        Ok(request)
    }
}

/// The numbers of a Protocol Version, which need not be one that is spoken.
pub(crate) fn numbers(node: &Node<'_>) -> Result<(i32, i32)> {
    let mut fields = Fields::of(node)?;
    let major = integer(fields.required(Tag::ProtocolVersionMajor)?)?;
    let minor = integer(fields.required(Tag::ProtocolVersionMinor)?)?;
    fields.finish()?;
    Ok((major, minor))
}

/// The bytes of a Unique Batch Item ID.
pub(crate) fn batch_id<'n>(node: &'n Node<'_>) -> Result<&'n [u8]> {
    match &node.value {
        Value::ByteString(id) => Ok(id),
        other => Err(crate::fields::wrong_type(node.tag, "ByteString", other)),
    }
}

/// The object that is meant. 2.x can also name the ID Placeholder itself (2.1, section 11.58).
fn id<'n>(fields: &mut Fields<'n, '_>, version: Version) -> Result<Option<&'n str>> {
    match fields.optional(Tag::UniqueIdentifier)? {
        None => Ok(None),
        Some(node) => match node.value {
            Value::Enumeration(1) if version >= Version::V2_0 => Ok(None),
            Value::Enumeration(_) if version >= Version::V2_0 => {
                Err(Failure::new(ResultReason::FeatureNotSupported, "of the enumerated identifiers, only the ID Placeholder is known here"))
            }
            _ => text(node).map(Some),
        },
    }
}

fn template<'n>(fields: &mut Fields<'n, '_>, version: Version) -> Result<Option<Template<'n>>> {
    if version >= Version::V2_0 {
        let storage = match fields.optional(Tag::ProtectionStorageMasks)? {
            None => Vec::new(),
            Some(node) => {
                let mut inner = Fields::of(node)?;
                let masks = inner.all(Tag::ProtectionStorageMask).map(integer).collect::<Result<_>>()?;
                inner.finish()?;
                masks
            }
        };
        let attributes = fields.optional(Tag::Attributes)?.map(|node| Attribute::all_from_node(node, version)).transpose()?;
        // Where an object may be kept counts without attributes too.
        let said = attributes.is_some() || !storage.is_empty();
        return Ok(said.then(|| Template { names: Vec::new(), attributes: attributes.unwrap_or_default(), storage }));
    }
    let Some(node) = fields.optional(Tag::TemplateAttribute)? else { return Ok(None) };
    let mut inner = Fields::of(node)?;
    let mut names = Vec::new();
    for name in inner.all(Tag::Name) {
        check(&Identity::Known(Tag::Name), &name.value)?;
        names.extend(name.find(Tag::NameValue).map(text).transpose()?);
    }
    let attributes = inner.all(Tag::Attribute).map(|node| Attribute::from_node(node, version)).collect::<Result<_>>()?;
    inner.finish()?;
    Ok(Some(Template { names, attributes, storage: Vec::new() }))
}

fn object<'n>(fields: &mut Fields<'n, '_>, object_type: ObjectType, version: Version) -> Result<Object<'n>> {
    let tag = Object::tag(object_type, version)
        .ok_or_else(|| invalid(format!("objects of the type {} cannot be registered here", object_type.name())).since_2(ResultReason::InvalidObjectType))?;
    Object::from_node(fields.required(tag)?, version)
}

fn import<'n>(fields: &mut Fields<'n, '_>, version: Version) -> Result<Request<'n>> {
    let id = text(fields.required(Tag::UniqueIdentifier)?)?;
    let object_type: ObjectType = enumeration(fields.required(Tag::ObjectType)?)?;
    if Object::tag(object_type, version).is_none() {
        // Its section has no reason of its own for this (2.1, section 6.1.25.1).
        return Err(invalid(format!("objects of the type {} cannot be imported here", object_type.name())));
    }
    let replace = fields.boolean(Tag::ReplaceExisting)?.unwrap_or(false);
    // A key that comes wrapped is refused where its key block is read.
    fields.enumeration::<KeyWrapType>(Tag::KeyWrapType)?;
    let attributes = match version >= Version::V2_0 {
        true => Attribute::all_from_node(fields.required(Tag::Attributes)?, version)?,
        false => fields.all(Tag::Attribute).map(|node| Attribute::from_node(node, version)).collect::<Result<_>>()?,
    };
    Ok(Request::Import { id, object_type, replace, attributes, object: object(fields, object_type, version)? })
}

type GetFields<'n> = (Option<&'n str>, Option<KeyFormatType>, Option<KeyWrappingData>);

fn get<'n>(fields: &mut Fields<'n, '_>, version: Version) -> Result<GetFields<'n>> {
    let id = id(fields, version)?;
    let format = fields.enumeration(Tag::KeyFormatType)?;
    if fields.optional(Tag::KeyCompressionType)?.is_some() {
        return Err(Failure::new(ResultReason::KeyCompressionTypeNotSupported, "keys are given out uncompressed"));
    }
    // Not Wrapped (1) or As Registered (2): keys are kept as they were before anybody wrapped them, so that both are the same here.
    if let Some(node) = fields.optional(Tag::KeyWrapType)?
        && !(version >= Version::V1_4 && matches!(node.value, Value::Enumeration(1 | 2)))
    {
        return Err(invalid(format!("KeyWrapType cannot be {:?} at KMIP {version}", node.value)).since_2(ResultReason::KeyWrapTypeNotSupported));
    }
    let wrapping = fields.optional(Tag::KeyWrappingSpecification)?.map(KeyWrappingData::from_specification).transpose()?;
    Ok((id, format, wrapping))
}

/// Attributes that are asked for. One that is unknown, or of another version, has no instances: that is no error (section 4.12).
fn wanted<'n>(fields: &mut Fields<'n, '_>, version: Version) -> Result<Option<Vec<Identity<'n>>>> {
    let (mut any, mut wanted) = (false, Vec::new());
    if version >= Version::V2_0 {
        for node in fields.all(Tag::AttributeReference) {
            any = true;
            if !matches!(node.value, Value::Enumeration(_) | Value::Structure(_)) {
                return Err(crate::fields::wrong_type(node.tag, "Structure or an Enumeration", &node.value));
            }
            wanted.extend(Identity::from_reference(node, version).ok());
        }
    } else {
        for node in fields.all(Tag::AttributeName) {
            any = true;
            wanted.extend(Identity::from_name(text(node)?, version).ok());
        }
    }
    Ok(any.then_some(wanted))
}

fn add_attribute<'n>(fields: &mut Fields<'n, '_>, version: Version) -> Result<Request<'n>> {
    let id = id(fields, version)?;
    if version >= Version::V2_0 {
        return Ok(Request::AddAttribute { id, attribute: Attribute::one_from_node(fields.required(Tag::NewAttribute)?, version)? });
    }
    let node = fields.required(Tag::Attribute)?;
    let (_, index, _) = parts(node)?;
    if index.is_some() {
        return Err(invalid("the server chooses the AttributeIndex of a new attribute".to_owned()));
    }
    Ok(Request::AddAttribute { id, attribute: Attribute::from_node(node, version)? })
}

fn modify_attribute<'n>(fields: &mut Fields<'n, '_>, version: Version) -> Result<Request<'n>> {
    let id = id(fields, version)?;
    if version < Version::V2_0 {
        let node = fields.required(Tag::Attribute)?;
        let (_, index, _) = parts(node)?;
        return Ok(Request::ModifyAttribute { id, attribute: Attribute::from_node(node, version)?, which: Instance::Index(index) });
    }
    let attribute = Attribute::one_from_node(fields.required(Tag::NewAttribute)?, version)?;
    let current = fields.optional(Tag::CurrentAttribute)?.map(|node| Attribute::one_from_node(node, version)).transpose()?;
    let which = match current {
        None => Instance::All,
        Some(current) if current.identity == attribute.identity => Instance::Value(current.value),
        Some(_) => return Err(invalid("CurrentAttribute and NewAttribute are different attributes".to_owned()).since_2(ResultReason::InvalidAttribute)),
    };
    Ok(Request::ModifyAttribute { id, attribute, which })
}

fn delete_attribute<'n>(fields: &mut Fields<'n, '_>, version: Version) -> Result<Request<'n>> {
    let id = id(fields, version)?;
    if version < Version::V2_0 {
        let identity = Identity::from_name(text(fields.required(Tag::AttributeName)?)?, version)?;
        let index = fields.integer(Tag::AttributeIndex)?.map(u32::try_from).transpose();
        let index = index.map_err(|_| invalid("AttributeIndex is negative".to_owned()))?;
        return Ok(Request::DeleteAttribute { id, identity, which: Instance::Index(index) });
    }
    let current = fields.optional(Tag::CurrentAttribute)?.map(|node| Attribute::one_from_node(node, version)).transpose()?;
    let reference = fields.optional(Tag::AttributeReference)?.map(|node| Identity::from_reference(node, version)).transpose()?;
    match (current, reference) {
        (Some(current), None) => Ok(Request::DeleteAttribute { id, identity: current.identity, which: Instance::Value(current.value) }),
        (None, Some(identity)) => Ok(Request::DeleteAttribute { id, identity, which: Instance::All }),
        _ => Err(invalid("either a CurrentAttribute or an AttributeReference says what is deleted".to_owned())),
    }
}

fn cipher<'n>(fields: &mut Fields<'n, '_>, version: Version, decrypt: bool) -> Result<CipherRequest<'n>> {
    let id = id(fields, version)?;
    let parameters = fields.optional(Tag::CryptographicParameters)?.map(CipherParameters::from_node).transpose()?;
    let first = fields.boolean(Tag::InitIndicator)?.unwrap_or(false);
    let last = fields.boolean(Tag::FinalIndicator)?.unwrap_or(false);
    if fields.optional(Tag::CorrelationValue)?.is_some() || first != last {
        return Err(Failure::new(ResultReason::FeatureNotSupported, "data is encrypted and decrypted in one part only"));
    }
    let iv = fields.bytes(Tag::IVCounterNonce)?;
    let (mut additional_data, mut tag) = (None, None);
    if version >= Version::V1_4 {
        additional_data = fields.bytes(Tag::AuthenticatedEncryptionAdditionalData)?;
        tag = if decrypt { fields.bytes(Tag::AuthenticatedEncryptionTag)? } else { None };
    }
    let data = bytes(fields.required(Tag::Data)?)?;
    Ok(CipherRequest { id, parameters, data, iv, additional_data: additional_data.unwrap_or_default(), tag })
}

/// What is asked. A function that came later has no answer: a client may ask before it knows what the server speaks.
fn query(fields: &mut Fields<'_, '_>, version: Version) -> Result<Vec<QueryFunction>> {
    let functions = fields.all(Tag::QueryFunction).map(enumeration::<QueryFunction>).collect::<Result<Vec<_>>>()?;
    Ok(functions.into_iter().filter(|function| has_member(Tag::QueryFunction, function.number(), version)).collect())
}

fn locate(fields: &mut Fields<'_, '_>, version: Version) -> Result<Locate> {
    // Of what is wrong with an attribute, Locate has one reason (2.1, section 6.1.27.1).
    let listed = |failure: Failure| failure.relisted(ResultReason::InvalidAttribute);
    let count = |what: &str, value: Option<i32>| value.map(usize::try_from).transpose().map_err(|_| invalid(format!("{what} is negative")));
    Ok(Locate {
        maximum_items: count("MaximumItems", fields.integer(Tag::MaximumItems)?)?,
        offset: count("OffsetItems", fields.integer(Tag::OffsetItems)?)?.unwrap_or(0),
        storage_status: fields.integer(Tag::StorageStatusMask)?,
        group_member: fields.enumeration(Tag::ObjectGroupMember)?,
        attributes: match version >= Version::V2_0 {
            true => {
                let wanted = fields.optional(Tag::Attributes)?.map(|node| Attribute::all_wanted_from_node(node, version));
                wanted.transpose().map_err(listed)?.unwrap_or_default()
            }
            false => fields.all(Tag::Attribute).map(|node| Attribute::wanted_from_node(node, version)).collect::<Result<_>>()?,
        },
    })
}

fn missing_template(version: Version) -> Failure {
    let what = if version >= Version::V2_0 { Tag::Attributes } else { Tag::TemplateAttribute };
    Failure::new(ResultReason::MissingData, format!("{what} is missing in RequestPayload"))
}

fn not_supported(operation: Operation, version: Version) -> Failure {
    Failure::new(ResultReason::OperationNotSupported, format!("{} is not supported at KMIP {version}", operation.name()))
}

fn invalid(message: String) -> Failure {
    Failure::new(ResultReason::InvalidField, message)
}

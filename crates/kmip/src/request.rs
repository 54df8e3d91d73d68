//! The payloads of requests (KMIP Specification 1.4, section 4), one variant an operation.

use crate::attribute::{Attribute, Identity, check, parts};
use crate::enumeration::{Enumeration as _, KeyFormatType, ObjectGroupMember, ObjectType, Operation, QueryFunction, ResultReason, RevocationReasonCode};
use crate::failure::{Failure, Result};
use crate::fields::{Fields, enumeration, integer, text};
use crate::object::{KeyWrappingData, Object};
use crate::tag::Tag;
use crate::ttlv::{Node, Value};
use crate::version::Version;

/// A request. Where `id` is `None`, the ID Placeholder of the batch counts (section 4).
#[derive(Debug)]
#[allow(missing_docs)] // The fields of the specification's payloads, by their names.
pub enum Request<'n> {
    /// 4.1.
    Create { object_type: ObjectType, template: Template<'n> },
    /// 4.3.
    Register { object_type: ObjectType, template: Template<'n>, object: Object<'n> },
    /// 4.4.
    ReKey { id: Option<&'n str>, offset: Option<u32>, template: Template<'n> },
    /// 4.9.
    Locate(Locate),
    /// 4.11.
    Get { id: Option<&'n str>, format: Option<KeyFormatType>, wrapping: Option<KeyWrappingData> },
    /// 4.12. No names: all attributes.
    GetAttributes { id: Option<&'n str>, names: Vec<&'n str> },
    /// 4.13.
    GetAttributeList { id: Option<&'n str> },
    /// 4.14.
    AddAttribute { id: Option<&'n str>, attribute: Attribute<'static> },
    /// 4.15. `index`: which of several; none stands for the first.
    ModifyAttribute { id: Option<&'n str>, attribute: Attribute<'static>, index: Option<u32> },
    /// 4.16.
    DeleteAttribute { id: Option<&'n str>, identity: Identity<'n>, index: Option<u32> },
    /// 4.19.
    Activate { id: Option<&'n str> },
    /// 4.20.
    Revoke { id: Option<&'n str>, code: RevocationReasonCode, message: Option<&'n str>, occurrence: Option<i64> },
    /// 4.21.
    Destroy { id: Option<&'n str> },
    /// 4.25.
    Query(Vec<QueryFunction>),
    /// 4.26. Empty: all versions of the server.
    DiscoverVersions(Vec<(i32, i32)>),
}

/// Attributes for a new object, and the names of templates that hold more (section 2.1.8).
#[derive(Debug, Default)]
pub struct Template<'n> {
    /// Names of Template objects.
    pub names: Vec<&'n str>,
    /// Attributes.
    pub attributes: Vec<Attribute<'static>>,
}

/// What is looked for (section 4.9).
#[derive(Debug, Default)]
pub struct Locate {
    /// At most so many.
    pub maximum_items: Option<usize>,
    /// So many are skipped first (since 1.3).
    pub offset: usize,
    /// Bits of the Storage Status Mask: 1 on-line, 2 archived, 4 destroyed.
    pub storage_status: Option<i32>,
    /// Fresh objects of a group alone.
    pub group_member: Option<ObjectGroupMember>,
    /// All must match; two dates of a kind are a range.
    pub attributes: Vec<Attribute<'static>>,
}

impl<'n> Request<'n> {
    /// Reads a payload.
    ///
    /// # Errors
    /// Operation Not Supported; Invalid Message, Invalid Field and Missing Data for a wrong payload.
    pub fn from_node(operation: Operation, payload: &'n Node<'_>, version: Version) -> Result<Self> {
        let mut fields = Fields::of(payload)?;
        let request = match operation {
            Operation::Create => {
                let object_type = enumeration(fields.required(Tag::ObjectType)?)?;
                Request::Create { object_type, template: template(&mut fields, version)?.ok_or_else(missing_template)? }
            }
            Operation::Register => {
                let object_type = enumeration(fields.required(Tag::ObjectType)?)?;
                let tag = Object::tag(object_type)
                    .ok_or_else(|| Failure::new(ResultReason::InvalidField, format!("objects of the type {} cannot be registered here", object_type.name())))?;
                let object = Object::from_node(fields.required(tag)?, version)?;
                Request::Register { object_type, template: template(&mut fields, version)?.unwrap_or_default(), object }
            }
            Operation::ReKey => Request::ReKey {
                id: fields.text(Tag::UniqueIdentifier)?,
                offset: fields.interval(Tag::Offset)?,
                template: template(&mut fields, version)?.unwrap_or_default(),
            },
            Operation::Locate => Request::Locate(locate(&mut fields, version)?),
            Operation::Get => {
                let id = fields.text(Tag::UniqueIdentifier)?;
                let format = fields.enumeration(Tag::KeyFormatType)?;
                if fields.optional(Tag::KeyCompressionType)?.is_some() {
                    return Err(Failure::new(ResultReason::KeyCompressionTypeNotSupported, "keys are given out uncompressed"));
                }
                // Not Wrapped (1) or As Registered (2): keys are kept as they were before anybody wrapped them, so that both are the same here.
                if let Some(node) = fields.optional(Tag::KeyWrapType)?
                    && !(version >= Version::V1_4 && matches!(node.value, Value::Enumeration(1 | 2)))
                {
                    return Err(Failure::new(ResultReason::InvalidField, format!("KeyWrapType cannot be {:?} at KMIP {version}", node.value)));
                }
                let wrapping = fields.optional(Tag::KeyWrappingSpecification)?.map(KeyWrappingData::from_specification).transpose()?;
                Request::Get { id, format, wrapping }
            }
            Operation::GetAttributes => {
                let id = fields.text(Tag::UniqueIdentifier)?;
                Request::GetAttributes { id, names: fields.all(Tag::AttributeName).map(text).collect::<Result<_>>()? }
            }
            Operation::GetAttributeList => Request::GetAttributeList { id: fields.text(Tag::UniqueIdentifier)? },
            Operation::AddAttribute => {
                let id = fields.text(Tag::UniqueIdentifier)?;
                let node = fields.required(Tag::Attribute)?;
                let (_, index, _) = parts(node)?;
                if index.is_some() {
                    return Err(Failure::new(ResultReason::InvalidField, "the server chooses the AttributeIndex of a new attribute"));
                }
                Request::AddAttribute { id, attribute: Attribute::from_node(node, version)? }
            }
            Operation::ModifyAttribute => {
                let id = fields.text(Tag::UniqueIdentifier)?;
                let node = fields.required(Tag::Attribute)?;
                let (_, index, _) = parts(node)?;
                Request::ModifyAttribute { id, attribute: Attribute::from_node(node, version)?, index }
            }
            Operation::DeleteAttribute => {
                let id = fields.text(Tag::UniqueIdentifier)?;
                let identity = Identity::from_name(text(fields.required(Tag::AttributeName)?)?, version)?;
                let index = fields.integer(Tag::AttributeIndex)?.map(u32::try_from).transpose();
                let index = index.map_err(|_| Failure::new(ResultReason::InvalidField, "AttributeIndex is negative"))?;
                Request::DeleteAttribute { id, identity, index }
            }
            Operation::Activate => Request::Activate { id: fields.text(Tag::UniqueIdentifier)? },
            Operation::Revoke => {
                let id = fields.text(Tag::UniqueIdentifier)?;
                let mut reason = Fields::of(fields.required(Tag::RevocationReason)?)?;
                let code = enumeration(reason.required(Tag::RevocationReasonCode)?)?;
                let message = reason.text(Tag::RevocationMessage)?;
                reason.finish()?;
                Request::Revoke { id, code, message, occurrence: fields.date_time(Tag::CompromiseOccurrenceDate)? }
            }
            Operation::Destroy => Request::Destroy { id: fields.text(Tag::UniqueIdentifier)? },
            Operation::Query => Request::Query(fields.all(Tag::QueryFunction).map(enumeration).collect::<Result<_>>()?),
            Operation::DiscoverVersions if version >= Version::V1_1 => {
                Request::DiscoverVersions(fields.all(Tag::ProtocolVersion).map(numbers).collect::<Result<_>>()?)
            }
            other => {
                return Err(Failure::new(ResultReason::OperationNotSupported, format!("{} is not supported at KMIP {version}", other.name())));
            }
        };
        fields.finish()?;
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

fn missing_template() -> Failure {
    Failure::new(ResultReason::MissingData, "TemplateAttribute is missing in RequestPayload")
}

fn template<'n>(fields: &mut Fields<'n, '_>, version: Version) -> Result<Option<Template<'n>>> {
    let Some(node) = fields.optional(Tag::TemplateAttribute)? else { return Ok(None) };
    let mut inner = Fields::of(node)?;
    let mut names = Vec::new();
    for name in inner.all(Tag::Name) {
        check(&Identity::Known(Tag::Name), &name.value)?;
        names.extend(name.find(Tag::NameValue).map(text).transpose()?);
    }
    let attributes = inner.all(Tag::Attribute).map(|node| Attribute::from_node(node, version)).collect::<Result<_>>()?;
    inner.finish()?;
    Ok(Some(Template { names, attributes }))
}

fn locate(fields: &mut Fields<'_, '_>, version: Version) -> Result<Locate> {
    let count = |what: &str, value: Option<i32>| {
        value.map(usize::try_from).transpose().map_err(|_| Failure::new(ResultReason::InvalidField, format!("{what} is negative")))
    };
    Ok(Locate {
        maximum_items: count("MaximumItems", fields.integer(Tag::MaximumItems)?)?,
        offset: count("OffsetItems", fields.integer(Tag::OffsetItems)?)?.unwrap_or(0),
        storage_status: fields.integer(Tag::StorageStatusMask)?,
        group_member: fields.enumeration(Tag::ObjectGroupMember)?,
        attributes: fields.all(Tag::Attribute).map(|node| Attribute::wanted_from_node(node, version)).collect::<Result<_>>()?,
    })
}

/// The bytes of a Unique Batch Item ID.
pub(crate) fn batch_id<'n>(node: &'n Node<'_>) -> Result<&'n [u8]> {
    match &node.value {
        Value::ByteString(id) => Ok(id),
        other => Err(crate::fields::wrong_type(node.tag, "ByteString", other)),
    }
}

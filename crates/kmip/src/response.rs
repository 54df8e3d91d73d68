//! The payloads of responses (KMIP Specification 1.4, section 4, and 2.1, section 6.1).

use crate::attribute::{Attribute, Identity, reference_to_node};
use crate::enumeration::{ObjectType, Operation, RNGAlgorithm};
use crate::object::Object;
use crate::tag::Tag;
use crate::ttlv::{Node, Value, Writer};
use crate::version::Version;

/// What an operation answers.
#[derive(Debug)]
#[allow(missing_docs)] // The fields of the specification's payloads, by their names.
pub enum Response<'a> {
    /// Register, Re-key, Import, Activate, Revoke, Destroy, Get Usage Allocation: the object; Create: with its type.
    Identifier { object_type: Option<ObjectType>, id: String },
    /// Locate.
    Located(Vec<String>),
    /// Get.
    Object { id: String, object: Object<'a> },
    /// Get Attributes.
    Attributes { id: String, attributes: Vec<Attribute<'a>> },
    /// Get Attribute List.
    AttributeList { id: String, identities: Vec<Identity<'a>> },
    /// Add, Modify, Delete, Set and Adjust Attribute: 2.x answers without the attribute.
    Attribute { id: String, attribute: Attribute<'a> },
    /// Check: the object may be used so.
    Checked { id: String },
    /// Obtain Lease: for so many seconds, and when an attribute changed last.
    Lease { id: String, seconds: u32, last_change: i64 },
    /// Export.
    Exported { id: String, object_type: ObjectType, attributes: Vec<Attribute<'a>>, object: Option<Object<'a>> },
    /// Encrypt and Decrypt. `changes`: whether an allocation of the key's Usage Limits was taken.
    Ciphered { id: String, data: Vec<u8>, iv: Option<Vec<u8>>, tag: Option<Vec<u8>>, changes: bool },
    /// RNG Retrieve.
    Random(Vec<u8>),
    /// Interop and Log.
    Nothing,
    /// Query.
    Query(Query),
    /// Discover Versions.
    Versions(Vec<Version>),
}

/// What Query answers, as far as it was asked.
#[derive(Debug, Default)]
#[allow(missing_docs)]
pub struct Query {
    pub operations: Vec<Operation>,
    pub objects: Vec<ObjectType>,
    /// Vendor Identification, with Server Information.
    pub vendor: Option<&'static str>,
    /// Which random number generators (since 1.3).
    pub rngs: Vec<RNGAlgorithm>,
    /// Where objects are kept, as masks (since 2.0).
    pub storage: Vec<i32>,
}

impl Response<'_> {
    /// Whether the operation has only read, so that its answer can be left out without anybody losing track.
    pub fn is_read(&self) -> bool {
        !matches!(self, Response::Identifier { .. } | Response::Attribute { .. } | Response::Ciphered { changes: true, .. })
    }

    /// What an answer says of something that was undone: which object, and nothing of what was given for it. Otherwise an Encrypt that is undone would be one that is not counted.
    #[must_use]
    pub fn undone(self) -> Self {
        match self {
            Response::Object { id, .. } | Response::Exported { id, .. } | Response::Ciphered { id, .. } => Response::Checked { id },
            Response::Random(_) => Response::Nothing,
            other => other,
        }
    }

    /// Writes the payload. Attributes that the version does not have, or whose value it cannot say, are left out: an older client must never see them.
    pub fn write(&self, version: Version, out: &mut Writer<'_>) {
        out.structure(Tag::ResponsePayload, |out| match self {
            Response::Identifier { object_type, id } => {
                if let Some(object_type) = object_type {
                    out.enumeration(Tag::ObjectType, *object_type);
                }
                out.text(Tag::UniqueIdentifier, id);
            }
            Response::Located(ids) => ids.iter().for_each(|id| out.text(Tag::UniqueIdentifier, id)),
            Response::Object { id, object } => {
                out.enumeration(Tag::ObjectType, object.object_type());
                out.text(Tag::UniqueIdentifier, id);
                object.write(version, out);
            }
            Response::Attributes { id, attributes } => {
                out.text(Tag::UniqueIdentifier, id);
                write_attributes(attributes, version, out);
            }
            Response::AttributeList { id, identities } => {
                out.text(Tag::UniqueIdentifier, id);
                let shown = identities.iter().filter(|identity| identity.exists_in(version));
                shown.for_each(|identity| match version >= Version::V2_0 {
                    true => out.node(&reference_to_node(identity)),
                    false => out.text(Tag::AttributeName, identity.name()),
                });
            }
            Response::Attribute { id, attribute } => {
                out.text(Tag::UniqueIdentifier, id);
                if version < Version::V2_0 {
                    out.node(&attribute.to_node_at(version));
                }
            }
            Response::Checked { id } => out.text(Tag::UniqueIdentifier, id),
            Response::Lease { id, seconds, last_change } => {
                out.text(Tag::UniqueIdentifier, id);
                out.value(Tag::LeaseTime, &Value::Interval(*seconds));
                out.value(Tag::LastChangeDate, &Value::DateTime(*last_change));
            }
            Response::Exported { id, object_type, attributes, object } => {
                out.enumeration(Tag::ObjectType, *object_type);
                out.text(Tag::UniqueIdentifier, id);
                write_attributes(attributes, version, out);
                if let Some(object) = object {
                    object.write(version, out);
                }
            }
            Response::Ciphered { id, data, iv, tag, .. } => {
                out.text(Tag::UniqueIdentifier, id);
                out.bytes(Tag::Data, data);
                if let Some(iv) = iv {
                    out.bytes(Tag::IVCounterNonce, iv);
                }
                if let Some(tag) = tag {
                    out.bytes(Tag::AuthenticatedEncryptionTag, tag);
                }
            }
            Response::Random(data) => out.bytes(Tag::Data, data),
            Response::Nothing => {}
            Response::Query(query) => query.to_items(version).iter().for_each(|item| out.node(item)),
            Response::Versions(versions) => versions.iter().for_each(|version| write_version(*version, out)),
        });
    }
}

impl Query {
    fn to_items(&self, version: Version) -> Vec<Node<'_>> {
        let mut items: Vec<Node<'_>> = self.operations.iter().map(|operation| Node::enumeration(Tag::Operation, *operation)).collect();
        items.extend(self.objects.iter().map(|object| Node::enumeration(Tag::ObjectType, *object)));
        if let Some(vendor) = self.vendor {
            items.push(Node::text(Tag::VendorIdentification, vendor));
            items.push(Node::structure(Tag::ServerInformation, Vec::new()));
        }
        if version >= Version::V1_3 {
            items.extend(self.rngs.iter().map(|rng| Node::structure(Tag::RNGParameters, vec![Node::enumeration(Tag::RNGAlgorithm, *rng)])));
        }
        if version >= Version::V2_0 && !self.storage.is_empty() {
            let masks = self.storage.iter().map(|mask| Node::integer(Tag::ProtectionStorageMask, *mask)).collect();
            items.push(Node::structure(Tag::ProtectionStorageMasks, masks));
        }
        items
    }
}

/// Attributes: in 1.x one after the other, in 2.x in a structure of their own.
fn write_attributes(attributes: &[Attribute<'_>], version: Version, out: &mut Writer<'_>) {
    let write = |out: &mut Writer<'_>| {
        let shown = attributes.iter().filter(|attribute| attribute.exists_in(version));
        shown.for_each(|attribute| out.node(&attribute.to_node_at(version)));
    };
    if version >= Version::V2_0 { out.structure(Tag::Attributes, |out| write(out)) } else { write(out) }
}

/// A Protocol Version.
pub(crate) fn write_version(version: Version, out: &mut Writer<'_>) {
    out.structure(Tag::ProtocolVersion, |out| {
        out.integer(Tag::ProtocolVersionMajor, i32::from(version.major));
        out.integer(Tag::ProtocolVersionMinor, i32::from(version.minor));
    });
}

//! The payloads of responses (KMIP Specification 1.4, section 4).

use crate::attribute::{Attribute, Identity};
use crate::enumeration::{ObjectType, Operation, RNGAlgorithm};
use crate::object::Object;
use crate::tag::Tag;
use crate::ttlv::{Node, Writer};
use crate::version::Version;

/// What an operation answers.
#[derive(Debug)]
#[allow(missing_docs)] // The fields of the specification's payloads, by their names.
pub enum Response<'a> {
    /// Register, Re-key, Activate, Revoke, Destroy: the object; Create: with its type.
    Identifier { object_type: Option<ObjectType>, id: String },
    /// Locate.
    Located(Vec<String>),
    /// Get.
    Object { id: String, object: Object<'a> },
    /// Get Attributes.
    Attributes { id: String, attributes: Vec<Attribute<'a>> },
    /// Get Attribute List.
    AttributeList { id: String, identities: Vec<Identity<'a>> },
    /// Add, Modify and Delete Attribute.
    Attribute { id: String, attribute: Attribute<'a> },
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
}

impl Response<'_> {
    /// Whether the operation has only read, so that its answer can be left out without anybody losing track.
    pub fn is_read(&self) -> bool {
        !matches!(self, Response::Identifier { .. } | Response::Attribute { .. })
    }

    /// Writes the payload. Attributes that the version does not have are left out: an older client must never see them.
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
                let shown = attributes.iter().filter(|attribute| attribute.identity.exists_in(version));
                shown.for_each(|attribute| out.node(&attribute.to_node_at(version)));
            }
            Response::AttributeList { id, identities } => {
                out.text(Tag::UniqueIdentifier, id);
                let shown = identities.iter().filter(|identity| identity.exists_in(version));
                shown.for_each(|identity| out.text(Tag::AttributeName, identity.name()));
            }
            Response::Attribute { id, attribute } => {
                out.text(Tag::UniqueIdentifier, id);
                out.node(&attribute.to_node_at(version));
            }
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
        items
    }
}

/// A Protocol Version.
pub(crate) fn write_version(version: Version, out: &mut Writer<'_>) {
    out.structure(Tag::ProtocolVersion, |out| {
        out.integer(Tag::ProtocolVersionMajor, i32::from(version.major));
        out.integer(Tag::ProtocolVersionMinor, i32::from(version.minor));
    });
}

//! The payloads of responses (KMIP Specification 1.4, section 4).

use crate::attribute::{Attribute, Identity};
use crate::enumeration::{ObjectType, Operation, RNGAlgorithm};
use crate::object::Object;
use crate::tag::Tag;
use crate::ttlv::Node;
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

    /// The payload. Attributes that the version does not have are left out: an older client must never see them.
    pub fn to_node(&self, version: Version) -> Node<'_> {
        let identifier = |id: &str| Node::text(Tag::UniqueIdentifier, id.to_owned());
        let items = match self {
            Response::Identifier { object_type, id } => {
                let mut items: Vec<Node<'_>> = object_type.iter().map(|object_type| Node::enumeration(Tag::ObjectType, *object_type)).collect();
                items.push(identifier(id));
                items
            }
            Response::Located(ids) => ids.iter().map(|id| identifier(id)).collect(),
            Response::Object { id, object } => vec![Node::enumeration(Tag::ObjectType, object.object_type()), identifier(id), object.to_node(version)],
            Response::Attributes { id, attributes } => {
                let shown = attributes.iter().filter(|attribute| attribute.identity.exists_in(version)).map(|attribute| attribute.to_node_at(version));
                std::iter::once(identifier(id)).chain(shown).collect()
            }
            Response::AttributeList { id, identities } => {
                let shown = identities.iter().filter(|identity| identity.exists_in(version));
                std::iter::once(identifier(id)).chain(shown.map(|identity| Node::text(Tag::AttributeName, identity.name()))).collect()
            }
            Response::Attribute { id, attribute } => vec![identifier(id), attribute.to_node_at(version)],
            Response::Query(query) => query.to_items(version),
            Response::Versions(versions) => versions.iter().map(|version| version_node(*version)).collect(),
        };
        Node::structure(Tag::ResponsePayload, items)
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
pub(crate) fn version_node(version: Version) -> Node<'static> {
    let items = vec![Node::integer(Tag::ProtocolVersionMajor, i32::from(version.major)), Node::integer(Tag::ProtocolVersionMinor, i32::from(version.minor))];
    Node::structure(Tag::ProtocolVersion, items)
}

//! The payloads of requests (KMIP Specification 1.4, section 4, and 2.1, section 6.1), one variant an operation. The versions differ in how a request is written; what it says is one type.

mod read;

pub(crate) use read::{batch_id, numbers};

use crate::attribute::{Attribute, Identity};
use crate::cipher::CipherParameters;
use crate::enumeration::{AdjustmentType, InteropFunction, KeyFormatType, ObjectGroupMember, ObjectType, QueryFunction, RevocationReasonCode};
use crate::object::{KeyWrappingData, Object};
use crate::ttlv::Value;

/// A request. Where `id` is `None`, the ID Placeholder of the batch counts (section 4). The sections are those of 1.4, or of 2.1 where it begins with 6.1.
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
    /// 4.12. `wanted`: `None` for all attributes. What is asked for and does not exist in the client's version is left out: it has no instances.
    GetAttributes { id: Option<&'n str>, wanted: Option<Vec<Identity<'n>>> },
    /// 4.13.
    GetAttributeList { id: Option<&'n str> },
    /// 4.14.
    AddAttribute { id: Option<&'n str>, attribute: Attribute<'static> },
    /// 4.15 and 6.1.34.
    ModifyAttribute { id: Option<&'n str>, attribute: Attribute<'static>, which: Instance },
    /// 4.16 and 6.1.13.
    DeleteAttribute { id: Option<&'n str>, identity: Identity<'n>, which: Instance },
    /// 6.1.51.
    SetAttribute { id: Option<&'n str>, attribute: Attribute<'static> },
    /// 6.1.3.
    AdjustAttribute { id: Option<&'n str>, identity: Identity<'n>, adjustment: AdjustmentType, by: Option<Value<'static>> },
    /// 4.10.
    Check { id: Option<&'n str>, usage_limits_count: Option<i64>, usage_mask: Option<i32>, lease_time: Option<u32> },
    /// 4.17.
    ObtainLease { id: Option<&'n str> },
    /// 4.18.
    GetUsageAllocation { id: Option<&'n str>, count: i64 },
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
    /// 4.29.
    Encrypt(CipherRequest<'n>),
    /// 4.30.
    Decrypt(CipherRequest<'n>),
    /// 4.35: so many bytes.
    RngRetrieve { length: usize },
    /// 4.42: as Register, but with the identifier and the attributes that the object has already.
    Import { id: &'n str, object_type: ObjectType, replace: bool, attributes: Vec<Attribute<'static>>, object: Object<'n> },
    /// 4.41: as Get, with the attributes.
    Export { id: Option<&'n str>, format: Option<KeyFormatType>, wrapping: Option<KeyWrappingData> },
    /// 6.1.26.
    Interop { function: InteropFunction, identifier: &'n str },
    /// 6.1.29.
    Log { message: &'n str },
}

/// Which instance of an attribute is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Instance {
    /// The one with that index (1.x); none stands for the first.
    Index(Option<u32>),
    /// The one with that value: a Current Attribute (2.1, section 5.6).
    Value(Value<'static>),
    /// Not said (2.x): the only one to modify, all to delete.
    All,
}

/// What Encrypt and Decrypt are asked for (4.29 and 4.30).
#[derive(Debug)]
pub struct CipherRequest<'n> {
    /// The key; none: the ID Placeholder.
    pub id: Option<&'n str>,
    /// How; what is not said here may be said by the key's own Cryptographic Parameters.
    pub parameters: Option<CipherParameters>,
    /// What is to be encrypted or decrypted.
    pub data: &'n [u8],
    /// The IV, counter or nonce.
    pub iv: Option<&'n [u8]>,
    /// Data that is authenticated and not encrypted (since 1.4).
    pub additional_data: &'n [u8],
    /// The tag that Decrypt checks (since 1.4).
    pub tag: Option<&'n [u8]>,
}

/// Attributes for a new object, and the names of templates that hold more (section 2.1.8).
#[derive(Debug, Default)]
pub struct Template<'n> {
    /// Names of Template objects.
    pub names: Vec<&'n str>,
    /// Attributes.
    pub attributes: Vec<Attribute<'static>>,
    /// Protection Storage Masks (2.x): where the object may be kept; empty: anywhere.
    pub storage: Vec<i32>,
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

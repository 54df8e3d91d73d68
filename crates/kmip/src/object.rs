//! Managed objects as they stand in messages (KMIP Specification 1.4, section 2.2, and 2.1, section 2), with the key block (2.1.3) and key wrapping (2.1.5, 2.1.6).

use crate::attribute::{Attribute, Identity, check};
use crate::enumeration::{
    BlockCipherMode, CertificateType, CryptographicAlgorithm, EncodingOption, Enumeration as _, KeyFormatType, ObjectType, ResultReason, SecretDataType,
    WrappingMethod,
};
use crate::failure::{Failure, Result};
use crate::fields::{Fields, bytes, enumeration, integer, text};
use crate::tag::Tag;
use crate::ttlv::{Node, Value, Writer};
use crate::version::Version;
use crate::versions::has_member;
use std::borrow::Cow;

mod material;

pub use material::KeyMaterial;

/// An object with its secret, borrowed from the message that it came in or from where it was unwrapped to.
#[derive(Debug)]
pub enum Object<'a> {
    /// Section 2.2.1: the type and the certificate.
    Certificate(CertificateType, Cow<'a, [u8]>),
    /// Section 2.2.2.
    SymmetricKey(KeyBlock<'a>),
    /// Section 2.2.3.
    PublicKey(KeyBlock<'a>),
    /// Section 2.2.4.
    PrivateKey(KeyBlock<'a>),
    /// Section 2.2.7.
    SecretData(SecretDataType, KeyBlock<'a>),
    /// Section 2.2.8: the type, as a number since vendors have their own, and the data.
    OpaqueObject(u32, Cow<'a, [u8]>),
    /// Section 2.2.6: attributes to make objects from. Deprecated since 1.3, and gone since 2.0.
    Template(Vec<Attribute<'static>>),
}

/// Section 2.1.3.
#[derive(Debug)]
pub struct KeyBlock<'a> {
    /// The format of the material.
    pub format: KeyFormatType,
    /// The material: plain bytes, or wrapped by another key.
    pub value: KeyValue<'a>,
    /// What the key is for; may be missing for secret data.
    pub algorithm: Option<CryptographicAlgorithm>,
    /// Bits; may be missing for secret data.
    pub length: Option<i32>,
}

/// Section 2.1.4.
#[derive(Debug)]
pub enum KeyValue<'a> {
    /// The material itself.
    Plain(KeyMaterial<'a>),
    /// The material wrapped, with how.
    Wrapped(Cow<'a, [u8]>, KeyWrappingData),
}

/// How a key value is wrapped (sections 2.1.5 and 2.1.6): Encrypt with a key of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyWrappingData {
    /// The wrapping key.
    pub key_id: String,
    /// The cipher mode, where it was named.
    pub mode: Option<BlockCipherMode>,
    /// What is encrypted: the material alone, or the whole key value as TTLV.
    pub encoding: Option<EncodingOption>,
}

impl Object<'_> {
    /// The type of the object.
    pub fn object_type(&self) -> ObjectType {
        match self {
            Object::Certificate(..) => ObjectType::Certificate,
            Object::SymmetricKey(_) => ObjectType::SymmetricKey,
            Object::PublicKey(_) => ObjectType::PublicKey,
            Object::PrivateKey(_) => ObjectType::PrivateKey,
            Object::SecretData(..) => ObjectType::SecretData,
            Object::OpaqueObject(..) => ObjectType::OpaqueObject,
            Object::Template(_) => ObjectType::Template,
        }
    }

    /// Refuses to give an object out to a client whose version has no word for what it is: a key without its algorithm or its format is of no use, and a wrong one would do harm.
    ///
    /// # Errors
    /// Key Format Type Not Supported for the format; Feature Not Supported for the algorithm.
    pub fn check_version(&self, version: Version) -> Result<()> {
        let (Object::SymmetricKey(block) | Object::PublicKey(block) | Object::PrivateKey(block) | Object::SecretData(_, block)) = self else { return Ok(()) };
        let message = |what: &str| format!("the key is {what}, which KMIP {version} does not have; ask at another version");
        if !has_member(Tag::KeyFormatType, block.format.number(), version) {
            return Err(Failure::new(ResultReason::KeyFormatTypeNotSupported, message(block.format.name())));
        }
        match block.algorithm.filter(|algorithm| !has_member(Tag::CryptographicAlgorithm, algorithm.number(), version)) {
            Some(algorithm) => Err(Failure::new(ResultReason::FeatureNotSupported, message(algorithm.name()))),
            None => Ok(()),
        }
    }

    /// Writes the item of a message. Attributes that the version does not have are left out.
    pub fn write(&self, version: Version, out: &mut Writer<'_>) {
        match self {
            Object::Certificate(kind, value) => out.structure(Tag::Certificate, |out| {
                out.enumeration(Tag::CertificateType, *kind);
                out.bytes(Tag::CertificateValue, value);
            }),
            Object::SymmetricKey(block) => out.structure(Tag::SymmetricKey, |out| block.write(out)),
            Object::PublicKey(block) => out.structure(Tag::PublicKey, |out| block.write(out)),
            Object::PrivateKey(block) => out.structure(Tag::PrivateKey, |out| block.write(out)),
            Object::SecretData(kind, block) => out.structure(Tag::SecretData, |out| {
                out.enumeration(Tag::SecretDataType, *kind);
                block.write(out);
            }),
            Object::OpaqueObject(kind, data) => out.structure(Tag::OpaqueObject, |out| {
                out.value(Tag::OpaqueDataType, &Value::Enumeration(*kind));
                out.bytes(Tag::OpaqueDataValue, data);
            }),
            Object::Template(attributes) => out.structure(Tag::Template, |out| {
                let shown = attributes.iter().filter(|attribute| attribute.exists_in(version));
                shown.for_each(|attribute| out.node(&attribute.to_node_at(version)));
            }),
        }
    }
}

impl<'n> Object<'n> {
    /// The tag that an object of a type stands under; `None` for a type that is not served to that version.
    pub fn tag(object_type: ObjectType, version: Version) -> Option<Tag> {
        match object_type {
            ObjectType::Certificate => Some(Tag::Certificate),
            ObjectType::PublicKey => Some(Tag::PublicKey),
            ObjectType::PrivateKey => Some(Tag::PrivateKey),
            ObjectType::SymmetricKey => Some(Tag::SymmetricKey),
            ObjectType::SecretData => Some(Tag::SecretData),
            ObjectType::OpaqueObject => Some(Tag::OpaqueObject),
            ObjectType::Template if version < Version::V2_0 => Some(Tag::Template),
            _ => None,
        }
    }

    /// Reads the item of a message.
    ///
    /// # Errors
    /// Invalid Message or Invalid Field; Feature Not Supported for a key that comes wrapped.
    pub fn from_node(node: &'n Node<'_>, version: Version) -> Result<Self> {
        let mut fields = Fields::of(node)?;
        let object = match node.tag {
            Tag::Certificate => {
                let kind = enumeration(fields.required(Tag::CertificateType)?)?;
                Object::Certificate(kind, Cow::Borrowed(bytes(fields.required(Tag::CertificateValue)?)?))
            }
            Tag::SymmetricKey => Object::SymmetricKey(KeyBlock::from_node(fields.required(Tag::KeyBlock)?)?),
            Tag::PublicKey => Object::PublicKey(KeyBlock::from_node(fields.required(Tag::KeyBlock)?)?),
            Tag::PrivateKey => Object::PrivateKey(KeyBlock::from_node(fields.required(Tag::KeyBlock)?)?),
            Tag::SecretData => {
                let kind = enumeration(fields.required(Tag::SecretDataType)?)?;
                Object::SecretData(kind, KeyBlock::from_node(fields.required(Tag::KeyBlock)?)?)
            }
            Tag::OpaqueObject => {
                let kind = match &fields.required(Tag::OpaqueDataType)?.value {
                    Value::Enumeration(kind) => *kind,
                    _ => return Err(Failure::new(ResultReason::InvalidMessage, "OpaqueDataType is no Enumeration")),
                };
                Object::OpaqueObject(kind, Cow::Borrowed(bytes(fields.required(Tag::OpaqueDataValue)?)?))
            }
            Tag::Template => Object::Template(fields.all(Tag::Attribute).map(|node| Attribute::from_node(node, version)).collect::<Result<_>>()?),
            other => return Err(Failure::new(ResultReason::InvalidField, format!("{other} is no object that can be registered"))),
        };
        fields.finish()?;
        Ok(object)
    }
}

impl KeyBlock<'_> {
    fn write(&self, out: &mut Writer<'_>) {
        out.structure(Tag::KeyBlock, |out| {
            out.enumeration(Tag::KeyFormatType, self.format);
            match &self.value {
                KeyValue::Plain(material) => out.structure(Tag::KeyValue, |out| material.write(out)),
                KeyValue::Wrapped(wrapped, _) => out.bytes(Tag::KeyValue, wrapped),
            }
            if let Some(algorithm) = self.algorithm {
                out.enumeration(Tag::CryptographicAlgorithm, algorithm);
            }
            if let Some(length) = self.length {
                out.integer(Tag::CryptographicLength, length);
            }
            if let KeyValue::Wrapped(_, wrapping) = &self.value {
                out.node(&wrapping.to_node());
            }
        });
    }
}

impl<'n> KeyBlock<'n> {
    fn from_node(node: &'n Node<'_>) -> Result<Self> {
        let mut fields = Fields::of(node)?;
        let format: KeyFormatType = enumeration(fields.required(Tag::KeyFormatType)?)?;
        if fields.optional(Tag::KeyCompressionType)?.is_some() {
            return Err(Failure::new(ResultReason::KeyCompressionTypeNotSupported, "keys are stored uncompressed"));
        }
        if fields.optional(Tag::KeyWrappingData)?.is_some() {
            return Err(Failure::new(ResultReason::FeatureNotSupported, "keys that come wrapped cannot be registered; this connection protects a plain one"));
        }
        let value = fields.required(Tag::KeyValue)?;
        let mut inner = Fields::of(value)?;
        let material = KeyMaterial::from_node(format, inner.required(Tag::KeyMaterial)?)?;
        // The attributes inside a key value only repeat what the request says beside it (section 2.1.4).
        inner.all(Tag::Attribute).for_each(drop);
        inner.optional(Tag::Attributes)?;
        inner.finish()?;
        let algorithm = fields.enumeration(Tag::CryptographicAlgorithm)?;
        let length = fields.optional(Tag::CryptographicLength)?.map(integer).transpose()?;
        fields.finish()?;
        Ok(Self { format, value: KeyValue::Plain(material), algorithm, length })
    }
}

impl KeyWrappingData {
    fn to_node(&self) -> Node<'_> {
        let mut key = vec![Node::text(Tag::UniqueIdentifier, self.key_id.as_str())];
        key.extend(self.mode.map(|mode| Node::structure(Tag::CryptographicParameters, vec![Node::enumeration(Tag::BlockCipherMode, mode)])));
        let mut items = vec![Node::enumeration(Tag::WrappingMethod, WrappingMethod::Encrypt), Node::structure(Tag::EncryptionKeyInformation, key)];
        items.extend(self.encoding.map(|encoding| Node::enumeration(Tag::EncodingOption, encoding)));
        Node::structure(Tag::KeyWrappingData, items)
    }

    /// Reads a Key Wrapping Specification (section 2.1.6).
    ///
    /// # Errors
    /// Feature Not Supported for anything but Encrypt of the key value alone.
    pub fn from_specification(node: &Node<'_>) -> Result<Self> {
        let not_supported = |what: &str| Failure::new(ResultReason::FeatureNotSupported, format!("key wrapping with {what} is not supported"));
        let mut fields = Fields::of(node)?;
        let method: WrappingMethod = enumeration(fields.required(Tag::WrappingMethod)?)?;
        if method != WrappingMethod::Encrypt {
            return Err(not_supported(method.name()));
        }
        if fields.optional(Tag::MACSignatureKeyInformation)?.is_some() {
            return Err(not_supported("a MAC or a signature"));
        }
        if fields.all(Tag::AttributeName).next().is_some() || fields.all(Tag::AttributeReference).next().is_some() {
            return Err(not_supported("attributes inside the key value"));
        }
        let encoding = fields.enumeration(Tag::EncodingOption)?;
        let mut key = Fields::of(fields.required(Tag::EncryptionKeyInformation)?)?;
        let key_id = text(key.required(Tag::UniqueIdentifier)?)?.to_owned();
        let parameters = key.optional(Tag::CryptographicParameters)?;
        key.finish()?;
        fields.finish()?;
        let mode = match parameters {
            None => None,
            Some(parameters) => {
                check(&Identity::Known(Tag::CryptographicParameters), &parameters.value)?;
                parameters.find(Tag::BlockCipherMode).map(enumeration).transpose()?
            }
        };
        Ok(Self { key_id, mode, encoding })
    }
}

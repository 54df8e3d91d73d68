//! Key material: bytes, or in the transparent formats a structure of numbers (KMIP Specification 1.4, section 2.1.7).

use crate::enumeration::{Enumeration as _, KeyFormatType, ResultReason};
use crate::failure::{Failure, Result};
use crate::fields::Fields;
use crate::tag::Tag;
use crate::ttlv::{Node, Value, Writer, decode, encode};
use std::borrow::Cow;

/// The material of a key.
#[derive(Debug, PartialEq, Eq)]
pub enum KeyMaterial<'a> {
    /// Bytes, in whatever encoding the format names.
    Bytes(Cow<'a, [u8]>),
    /// A Transparent Symmetric Key: its bytes.
    Symmetric(Cow<'a, [u8]>),
    /// Another transparent key: its numbers, as they came.
    Numbers(Vec<Node<'a>>),
}

impl KeyMaterial<'_> {
    pub(super) fn write(&self, out: &mut Writer<'_>) {
        match self {
            KeyMaterial::Bytes(bytes) => out.bytes(Tag::KeyMaterial, bytes),
            KeyMaterial::Symmetric(key) => out.structure(Tag::KeyMaterial, |out| out.bytes(Tag::Key, key)),
            KeyMaterial::Numbers(numbers) => out.structure(Tag::KeyMaterial, |out| numbers.iter().for_each(|number| out.node(number))),
        }
    }

    /// The bytes that are kept: of a symmetric key the key, of other transparent keys their encoding.
    pub fn stored(&self) -> Cow<'_, [u8]> {
        match self {
            KeyMaterial::Bytes(bytes) | KeyMaterial::Symmetric(bytes) => Cow::Borrowed(bytes),
            KeyMaterial::Numbers(numbers) => {
                let mut out = Vec::new();
                encode(&Node::structure(Tag::KeyMaterial, numbers.clone()), &mut out);
                Cow::Owned(out)
            }
        }
    }

    /// Material from the bytes that are kept; `None` where they are damaged.
    pub fn from_stored(format: KeyFormatType, bytes: Vec<u8>) -> Option<KeyMaterial<'static>> {
        match parts(format) {
            None => Some(KeyMaterial::Bytes(Cow::Owned(bytes))),
            Some([(Tag::Key, _)]) => Some(KeyMaterial::Symmetric(Cow::Owned(bytes))),
            Some(_) => match decode(&bytes).ok()?.into_owned().value {
                Value::Structure(numbers) => Some(KeyMaterial::Numbers(numbers)),
                _ => None,
            },
        }
    }

    /// The item of a message.
    pub fn to_node(&self) -> Node<'_> {
        match self {
            KeyMaterial::Bytes(bytes) => Node::bytes(Tag::KeyMaterial, &**bytes),
            KeyMaterial::Symmetric(key) => Node::structure(Tag::KeyMaterial, vec![Node::bytes(Tag::Key, &**key)]),
            KeyMaterial::Numbers(numbers) => Node::structure(Tag::KeyMaterial, numbers.clone()),
        }
    }
}

impl<'n> KeyMaterial<'n> {
    /// Reads material of a format.
    ///
    /// # Errors
    /// Key Format Type Not Supported where it is no such material; Invalid Field where a number is missing or does not belong there.
    pub(super) fn from_node(format: KeyFormatType, node: &'n Node<'_>) -> Result<Self> {
        let wrong = |what: &str| {
            let message = format!("key material in the format {} is {what}", format.name());
            Err(Failure::new(ResultReason::KeyFormatTypeNotSupported, message))
        };
        match (parts(format), &node.value) {
            (None, Value::ByteString(bytes)) => Ok(KeyMaterial::Bytes(Cow::Borrowed(bytes))),
            (None, _) => wrong("bytes"),
            (Some(_), other) if !matches!(other, Value::Structure(_)) => wrong("a structure"),
            (Some(parts), _) => {
                let mut fields = Fields::of(node)?;
                let mut numbers = Vec::new();
                for (tag, needed) in parts {
                    let number = if *needed { Some(fields.required(*tag)?) } else { fields.optional(*tag)? };
                    let Some(number) = number else { continue };
                    match (*tag, &number.value) {
                        (Tag::Key, Value::ByteString(key)) => return fields.finish().map(|()| KeyMaterial::Symmetric(Cow::Borrowed(key))),
                        (Tag::QString, Value::ByteString(_)) | (Tag::RecommendedCurve, Value::Enumeration(_)) => {}
                        (Tag::Key | Tag::QString | Tag::RecommendedCurve, other) => return Err(crate::fields::wrong_type(*tag, "number of a key", other)),
                        (_, Value::BigInteger(_)) => {}
                        (_, other) => return Err(crate::fields::wrong_type(*tag, "BigInteger", other)),
                    }
                    numbers.push(number.clone());
                }
                fields.finish()?;
                // In the order in which they came: what was registered comes back as it was.
                let order = |number: &Node<'_>| node.items().iter().position(|item| item.tag == number.tag);
                numbers.sort_by_key(order);
                Ok(KeyMaterial::Numbers(numbers))
            }
        }
    }
}

/// The numbers of a transparent format, and whether each must be there (sections 2.1.7.1 to 2.1.7.15); `None` for a format of bytes.
fn parts(format: KeyFormatType) -> Option<&'static [(Tag, bool)]> {
    use KeyFormatType as F;
    Some(match format {
        F::TransparentSymmetricKey => &[(Tag::Key, true)],
        F::TransparentDSAPrivateKey => &[(Tag::P, true), (Tag::Q, true), (Tag::G, true), (Tag::X, true)],
        F::TransparentDSAPublicKey => &[(Tag::P, true), (Tag::Q, true), (Tag::G, true), (Tag::Y, true)],
        F::TransparentRSAPrivateKey => &[
            (Tag::Modulus, true),
            (Tag::PrivateExponent, false),
            (Tag::PublicExponent, false),
            (Tag::P, false),
            (Tag::Q, false),
            (Tag::PrimeExponentP, false),
            (Tag::PrimeExponentQ, false),
            (Tag::CRTCoefficient, false),
        ],
        F::TransparentRSAPublicKey => &[(Tag::Modulus, true), (Tag::PublicExponent, true)],
        F::TransparentDHPrivateKey => &[(Tag::P, true), (Tag::Q, false), (Tag::G, true), (Tag::J, false), (Tag::X, true)],
        F::TransparentDHPublicKey => &[(Tag::P, true), (Tag::Q, false), (Tag::G, true), (Tag::J, false), (Tag::Y, true)],
        F::TransparentECDSAPrivateKey | F::TransparentECDHPrivateKey | F::TransparentECMQVPrivateKey | F::TransparentECPrivateKey => {
            &[(Tag::RecommendedCurve, true), (Tag::D, true)]
        }
        F::TransparentECDSAPublicKey | F::TransparentECDHPublicKey | F::TransparentECMQVPublicKey | F::TransparentECPublicKey => {
            &[(Tag::RecommendedCurve, true), (Tag::QString, true)]
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(tag: Tag) -> Node<'static> {
        Node::new(tag, Value::BigInteger(vec![0, 0, 0, 0, 0, 1, 0, 1].into()))
    }

    #[test]
    fn what_was_registered_comes_back_as_it_was() {
        let numbers = Node::structure(Tag::KeyMaterial, vec![number(Tag::PublicExponent), number(Tag::Modulus)]);
        let material = KeyMaterial::from_node(KeyFormatType::TransparentRSAPublicKey, &numbers).unwrap();
        let again = KeyMaterial::from_stored(KeyFormatType::TransparentRSAPublicKey, material.stored().to_vec()).unwrap();
        assert_eq!(again.to_node(), numbers);
        let key = Node::structure(Tag::KeyMaterial, vec![Node::bytes(Tag::Key, vec![7; 16])]);
        let material = KeyMaterial::from_node(KeyFormatType::TransparentSymmetricKey, &key).unwrap();
        assert_eq!(*material.stored(), [7; 16], "the bytes of the key alone, so that it can be given out as Raw");
        assert_eq!(KeyMaterial::from_stored(KeyFormatType::TransparentSymmetricKey, vec![7; 16]).unwrap().to_node(), key);
    }

    #[test]
    fn material_that_is_not_of_its_format_is_refused() {
        let refused = |format, node: Node<'_>| KeyMaterial::from_node(format, &node).unwrap_err().reason;
        let bytes = || Node::bytes(Tag::KeyMaterial, vec![1]);
        let structure = |items| Node::structure(Tag::KeyMaterial, items);
        assert_eq!(refused(KeyFormatType::TransparentRSAPublicKey, bytes()), ResultReason::KeyFormatTypeNotSupported);
        assert_eq!(refused(KeyFormatType::PKCS_1, structure(vec![number(Tag::Modulus)])), ResultReason::KeyFormatTypeNotSupported);
        assert_eq!(refused(KeyFormatType::TransparentRSAPublicKey, structure(vec![number(Tag::Modulus)])), ResultReason::MissingData);
        let foreign = structure(vec![number(Tag::Modulus), number(Tag::PublicExponent), number(Tag::X)]);
        assert_eq!(refused(KeyFormatType::TransparentRSAPublicKey, foreign), ResultReason::InvalidField);
        let text = structure(vec![Node::text(Tag::Key, "a")]);
        assert_eq!(refused(KeyFormatType::TransparentSymmetricKey, text), ResultReason::InvalidMessage);
    }
}

//! Cryptographic Parameters as Encrypt, Decrypt and key wrapping read them (KMIP Specification 1.4, section 3.6).

use crate::attribute::{Identity, check};
use crate::enumeration::{BlockCipherMode, CryptographicAlgorithm, Enumeration, PaddingMethod};
use crate::failure::Result;
use crate::tag::Tag;
use crate::ttlv::{Node, Value};

/// What a cipher needs to know beside the key.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CipherParameters {
    /// The mode.
    pub mode: Option<BlockCipherMode>,
    /// The padding.
    pub padding: Option<PaddingMethod>,
    /// The algorithm, where it is named.
    pub algorithm: Option<CryptographicAlgorithm>,
    /// Whether the server makes the IV.
    pub random_iv: Option<bool>,
    /// Bytes of the authentication tag.
    pub tag_length: Option<i32>,
}

impl CipherParameters {
    /// Reads the value of an attribute, or the field of a request.
    ///
    /// # Errors
    /// Invalid Field.
    pub fn from_value(value: &Value<'_>) -> Result<Self> {
        check(&Identity::Known(Tag::CryptographicParameters), value)?;
        let Value::Structure(items) = value else { return Ok(Self::default()) };
        let find = |tag: Tag| items.iter().find(|item| item.tag == tag).map(|item| &item.value);
        Ok(Self {
            mode: member(find(Tag::BlockCipherMode)),
            padding: member(find(Tag::PaddingMethod)),
            algorithm: member(find(Tag::CryptographicAlgorithm)),
            random_iv: if let Some(Value::Boolean(random)) = find(Tag::RandomIV) { Some(*random) } else { None },
            tag_length: if let Some(Value::Integer(bytes)) = find(Tag::TagLength) { Some(*bytes) } else { None },
        })
    }

    /// Reads a field of a request.
    ///
    /// # Errors
    /// Invalid Field.
    pub fn from_node(node: &Node<'_>) -> Result<Self> {
        Self::from_value(&node.value)
    }
}

fn member<E: Enumeration>(value: Option<&Value<'_>>) -> Option<E> {
    match value {
        Some(Value::Enumeration(number)) => E::from_number(*number),
        _ => None,
    }
}

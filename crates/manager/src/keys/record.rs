//! How a key stands in the store: a small binary record, since there may be millions.
//!
//! | bytes | what |
//! |---|---|
//! | 1 | format: 1 |
//! | 4 | version of the KEK that wraps the secret; 0 where there is none |
//! | 4 | length of the wrapped secret |
//! | … | the wrapped secret: nonce, ciphertext, tag |
//! | … | the attributes, in whatever form the data plane gives them: this room does not read them |
//!
//! Live keys stand under `/keys/{svm}/{id}`, destroyed ones, without a secret, under `/destroyed-keys/{svm}/{id}`: so a transaction can demand that an SVM has no live key. The names of live
//! keys stand under `/key-names/{svm}/{hash}`, which makes them unique.

use crate::{Error, Result};
use aws_lc_rs::digest;
use bytes::Bytes;
use keystead_store::Revision;
use uuid::Uuid;

const FORMAT: u8 = 1;
const HEADER: usize = 9;

/// What all keys of the data plane start with, of every SVM. The view leaves them to the [`KeyCache`](super::cache::KeyCache).
pub(crate) const BULK: [&str; 3] = ["/keys/", "/destroyed-keys/", "/key-names/"];

/// One managed object of an SVM, as it stands in the store.
pub struct KeyObject {
    /// The identifier.
    pub id: Uuid,
    /// The revision that last wrote it.
    pub(crate) revision: Revision,
    /// Which version of the KEK wraps the secret; 0 without a secret.
    pub(crate) kek_version: u32,
    /// Whether it was destroyed.
    pub destroyed: bool,
    value: Bytes,
    wrapped: usize,
}

impl KeyObject {
    /// Makes a record's bytes.
    pub(crate) fn encode(kek_version: u32, wrapped: &[u8], attributes: &[u8]) -> Vec<u8> {
        let mut value = Vec::with_capacity(HEADER + wrapped.len() + attributes.len());
        value.push(FORMAT);
        value.extend_from_slice(&kek_version.to_be_bytes());
        value.extend_from_slice(&u32::try_from(wrapped.len()).unwrap_or(u32::MAX).to_be_bytes());
        value.extend_from_slice(wrapped);
        value.extend_from_slice(attributes);
        value
    }

    /// Reads a record.
    ///
    /// # Errors
    /// An unexpected error where it is damaged.
    pub(crate) fn decode(id: Uuid, destroyed: bool, revision: Revision, value: Bytes) -> Result<Self> {
        let damaged = || Error::unexpected(format!("the record of the key {id} is damaged"));
        let (head, rest) = value.split_first_chunk::<HEADER>().ok_or_else(damaged)?;
        let [format, v0, v1, v2, v3, l0, l1, l2, l3] = *head;
        let wrapped = usize::try_from(u32::from_be_bytes([l0, l1, l2, l3])).map_err(|_| damaged())?;
        if format != FORMAT || rest.len() < wrapped {
            return Err(damaged());
        }
        Ok(Self { id, revision, kek_version: u32::from_be_bytes([v0, v1, v2, v3]), destroyed, value, wrapped })
    }

    /// The length of the record, in bytes.
    pub fn size(&self) -> usize {
        self.value.len()
    }

    /// The attributes, as they were given.
    pub fn attributes(&self) -> &[u8] {
        self.value.get(HEADER + self.wrapped..).unwrap_or_default()
    }

    /// The wrapped secret; empty without one.
    pub(crate) fn wrapped(&self) -> &[u8] {
        self.value.get(HEADER..HEADER + self.wrapped).unwrap_or_default()
    }
}

/// The key of a live key.
pub(crate) fn live_key(svm: Uuid, id: Uuid) -> String {
    format!("/keys/{svm}/{id}")
}

/// The key of a destroyed key.
pub(crate) fn destroyed_key(svm: Uuid, id: Uuid) -> String {
    format!("{}{id}", destroyed_prefix(svm))
}

/// What all destroyed keys of an SVM start with.
pub(crate) fn destroyed_prefix(svm: Uuid) -> String {
    format!("/destroyed-keys/{svm}/")
}

/// The key that holds a name for its owner. Names may be long, so a hash stands for them.
pub(crate) fn name_key(svm: Uuid, name: &str) -> String {
    let hash = digest::digest(&digest::SHA256, name.as_bytes());
    let text: String = hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("/key-names/{svm}/{text}")
}

/// Takes a key of the store apart: SVM, identifier, and whether it is of a destroyed key. `None` for all others.
pub(crate) fn parse(key: &str) -> Option<(Uuid, Uuid, bool)> {
    let (rest, destroyed) = match key.strip_prefix("/keys/") {
        Some(rest) => (rest, false),
        None => (key.strip_prefix("/destroyed-keys/")?, true),
    };
    let (svm, id) = rest.split_once('/')?;
    Some((svm.parse().ok()?, id.parse().ok()?, destroyed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_goes_both_ways_and_damage_is_seen() {
        let id = Uuid::from_u128(7);
        let value = KeyObject::encode(3, b"wrapped", b"attributes");
        let object = KeyObject::decode(id, false, Revision(9), value.clone().into()).unwrap();
        assert_eq!((object.kek_version, object.wrapped(), object.attributes()), (3, b"wrapped".as_slice(), b"attributes".as_slice()));
        for cut in 0..HEADER + 7 {
            assert!(KeyObject::decode(id, false, Revision(9), value[..cut].to_vec().into()).is_err(), "{cut}");
        }
        assert!(KeyObject::decode(id, false, Revision(9), b"\x02123456789".to_vec().into()).is_err());
    }

    #[test]
    fn keys_of_the_store_tell_svm_and_identifier() {
        let (svm, id) = (Uuid::from_u128(1), Uuid::from_u128(2));
        assert_eq!(parse(&live_key(svm, id)), Some((svm, id, false)));
        assert_eq!(parse(&destroyed_key(svm, id)), Some((svm, id, true)));
        assert_eq!(parse(&name_key(svm, "n")), None);
        assert_eq!(parse("/keys/nonsense"), None);
    }
}

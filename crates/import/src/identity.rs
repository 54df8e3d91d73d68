//! Which identifier an object has here, and the mark by which it is known again.

use aws_lc_rs::digest::{Context, SHA256};
use keystead_kmip::attribute::{Attribute, Identity};
use keystead_kmip::ttlv::Value;
use std::borrow::Cow;
use uuid::Uuid;

/// The attribute that names the source.
pub const MARK_SOURCE: &str = "x-Keystead-Import-Source";
/// The attribute that holds the identifier that the object has there.
pub const MARK_ID: &str = "x-Keystead-Import-ID";

/// The identifier that an object of a source has here. Identifiers are UUIDs here: one that is a UUID is kept, and of any other one is made, always the same. So an object can be made only once, however
/// often, and by however many, it is imported; and a Link can be turned before what it leads to is there.
pub fn here(source_name: &str, id: &str) -> Uuid {
    id.parse().unwrap_or_else(|_| {
        let mut digest = Context::new(&SHA256);
        // The length keeps the two apart.
        digest.update(b"keystead import\0");
        digest.update(&(source_name.len() as u64).to_be_bytes());
        digest.update(source_name.as_bytes());
        digest.update(id.as_bytes());
        let mut bytes = [0; 16];
        bytes.iter_mut().zip(digest.finish().as_ref()).for_each(|(byte, digested)| *byte = *digested);
        // Version 8 of RFC 9562: made by a rule of one's own.
        uuid::Builder::from_custom_bytes(bytes).into_uuid()
    })
}

/// The mark of an object.
pub fn mark(source_name: &str, id: &str) -> [Attribute<'static>; 2] {
    [(MARK_SOURCE, source_name), (MARK_ID, id)].map(|(name, value)| Attribute {
        identity: Identity::Custom(Cow::Borrowed(name)),
        index: 0,
        value: Value::TextString(Cow::Owned(value.to_owned())),
    })
}

/// Whether an attribute is a part of a mark.
pub fn is_mark(identity: &Identity<'_>) -> bool {
    matches!(identity, Identity::Custom(name) if *name == MARK_SOURCE || *name == MARK_ID)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_is_kept_and_of_another_identifier_one_is_made() {
        let uuid = "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11";
        assert_eq!(here("a:1", uuid).to_string(), uuid);
        assert_eq!(here("a:1", &uuid.to_uppercase()).to_string(), uuid);
        let seven = here("a:1", "7");
        assert_eq!((seven.get_version_num(), seven), (8, here("a:1", "7")), "always the same");
        assert_ne!(seven, here("a:1", "8"));
        assert_ne!(seven, here("a:2", "7"));
        assert_ne!(here("a:1", "17"), here("a:11", "7"));
    }
}

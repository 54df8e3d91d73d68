//! A managed object of an SVM, as operations work with it: its attributes, and what follows from them.

use crate::stored;
use keystead_keyring::material::sha256;
use keystead_kmip::attribute::{Attribute, Change, DEFINITIONS, Identity, canonical, name_value};
use keystead_kmip::enumeration::{
    CryptographicAlgorithm, DRBGAlgorithm, Enumeration, HashingAlgorithm, KeyFormatType, ObjectType, RNGAlgorithm, ResultReason, State,
};
use keystead_kmip::ttlv::{Node, Value};
use keystead_kmip::versions::has_member;
use keystead_kmip::{Failure, Result, Tag, Version};
use std::borrow::Cow;
use std::hash::{Hash as _, Hasher as _};
use uuid::Uuid;

/// Seconds for which a client may use what it has learned about an object before it asks again (KMIP Specification 1.4, section 3.20).
pub const LEASE_TIME: u32 = 3_600;

/// Where objects are kept, as a Protection Storage Mask (KMIP Specification 2.1, section 12.2): Software.
pub const STORAGE: i32 = 1;

/// How many attributes an object may have.
const MOST_ATTRIBUTES: usize = 500;
/// How many names: each is a record of its own, and goes in one transaction with the object.
pub const MOST_NAMES: usize = 32;
/// How many bytes all of them may have: they are kept in memory, and written with every change.
const MOST_BYTES: usize = 64 * 1024;

/// An object.
#[derive(Debug, Clone)]
pub struct Managed<'a> {
    /// The identifier.
    pub id: Uuid,
    attributes: Vec<Attribute<'a>>,
}

impl<'a> Managed<'a> {
    /// A new object with no attributes but its type.
    pub fn new(id: Uuid, object_type: ObjectType) -> Managed<'static> {
        Managed { id, attributes: vec![Attribute::new(Tag::ObjectType, Value::Enumeration(object_type.number()))] }
    }

    /// Reads what is stored.
    ///
    /// # Errors
    /// General Failure where it is damaged.
    pub fn decode(id: Uuid, bytes: &'a [u8]) -> Result<Self> {
        match stored::decode(bytes) {
            Some(attributes) => Ok(Self { id, attributes }),
            None => Err(Failure::new(ResultReason::GeneralFailure, format!("the record of the object {id} is damaged"))),
        }
    }

    /// Reads some of what is stored.
    ///
    /// # Errors
    /// General Failure where it is damaged.
    pub fn decode_some(id: Uuid, bytes: &'a [u8], wanted: &[Tag]) -> Result<Self> {
        match stored::decode_some(bytes, wanted) {
            Some(attributes) => Ok(Self { id, attributes }),
            None => Err(Failure::new(ResultReason::GeneralFailure, format!("the record of the object {id} is damaged"))),
        }
    }

    /// What is to be stored.
    pub fn encode(&self) -> Vec<u8> {
        stored::encode(&self.attributes)
    }

    /// About how many bytes its attributes have when they are stored.
    pub fn size(&self) -> usize {
        self.attributes.iter().map(|attribute| 12 + attribute.identity.name().len() + value_size(&attribute.value)).sum()
    }

    /// Refuses what is too large to be kept.
    ///
    /// # Errors
    /// Invalid Field.
    pub fn check_size(&self) -> Result<()> {
        let bytes = self.size();
        if bytes > MOST_BYTES {
            return Err(Failure::new(
                ResultReason::InvalidField,
                format!("the attributes of the object have {bytes} bytes, and at most {MOST_BYTES} are kept"),
            ));
        }
        Ok(())
    }

    /// A copy that borrows nothing.
    pub fn into_owned(self) -> Managed<'static> {
        let owned =
            |attribute: Attribute<'a>| Attribute { identity: attribute.identity.into_owned(), index: attribute.index, value: attribute.value.into_owned() };
        Managed { id: self.id, attributes: self.attributes.into_iter().map(owned).collect() }
    }

    /// The first value under a tag, as stored.
    pub fn value(&self, tag: Tag) -> Option<&Value<'a>> {
        self.attributes.iter().find(|attribute| attribute.identity == Identity::Known(tag)).map(|attribute| &attribute.value)
    }

    /// All values under a tag, as stored.
    fn values(&self, tag: Tag) -> Vec<&Value<'a>> {
        self.attributes.iter().filter(|attribute| attribute.identity == Identity::Known(tag)).map(|attribute| &attribute.value).collect()
    }

    /// A member of an enumeration.
    pub fn enumeration<E: Enumeration>(&self, tag: Tag) -> Option<E> {
        match self.value(tag) {
            Some(Value::Enumeration(number)) => E::from_number(*number),
            _ => None,
        }
    }

    /// An integer.
    pub fn integer(&self, tag: Tag) -> Option<i32> {
        match self.value(tag) {
            Some(Value::Integer(value)) => Some(*value),
            _ => None,
        }
    }

    /// A date.
    pub fn date(&self, tag: Tag) -> Option<i64> {
        match self.value(tag) {
            Some(Value::DateTime(value)) => Some(*value),
            _ => None,
        }
    }

    /// A boolean.
    pub fn boolean(&self, tag: Tag) -> Option<bool> {
        match self.value(tag) {
            Some(Value::Boolean(value)) => Some(*value),
            _ => None,
        }
    }

    /// The type.
    pub fn object_type(&self) -> ObjectType {
        // It is the first thing that a new object gets.
        self.enumeration(Tag::ObjectType).unwrap_or(ObjectType::OpaqueObject)
    }

    /// Whether it has a state, and a life cycle: keys and secret data have, opaque objects and templates have none (section 3.22).
    pub fn has_state(&self) -> bool {
        !matches!(self.object_type(), ObjectType::OpaqueObject | ObjectType::Template)
    }

    /// The state now: dates that have passed turn it by themselves (section 3.22).
    pub fn state(&self, now: i64) -> Option<State> {
        let stored: State = self.enumeration(Tag::State)?;
        let passed = |tag| self.date(tag).is_some_and(|date| date <= now);
        Some(match stored {
            State::PreActive if passed(Tag::ActivationDate) && passed(Tag::DeactivationDate) => State::Deactivated,
            State::PreActive if passed(Tag::ActivationDate) => State::Active,
            State::Active if passed(Tag::DeactivationDate) => State::Deactivated,
            other => other,
        })
    }

    /// The names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.attributes.iter().filter(|attribute| attribute.identity == Identity::Known(Tag::Name)).filter_map(|attribute| name_value(&attribute.value))
    }

    /// All instances of an attribute, also of one that is not stored but follows: with the state as it is now, defaults, and what is the same for all.
    pub fn instances(&self, identity: &Identity<'_>, now: i64) -> Vec<Attribute<'_>> {
        let stored = || self.attributes.iter().filter(|attribute| attribute.identity == *identity).cloned().collect::<Vec<_>>();
        let Identity::Known(tag) = identity else { return stored() };
        let one = |value| vec![Attribute::new(*tag, value)];
        match *tag {
            Tag::UniqueIdentifier => one(Value::TextString(Cow::Owned(self.id.to_string()))),
            // As 2.1, section 4.56 wants it.
            Tag::ShortUniqueIdentifier => one(Value::ByteString(Cow::Owned(sha256(self.id.to_string().as_bytes())))),
            Tag::ProtectionStorageMask if self.object_type() != ObjectType::Template => one(Value::Integer(STORAGE)),
            Tag::State => self.state(now).map(|state| one(Value::Enumeration(state.number()))).unwrap_or_default(),
            Tag::LeaseTime if self.has_state() => one(Value::Interval(LEASE_TIME)),
            Tag::Sensitive | Tag::AlwaysSensitive | Tag::Extractable | Tag::NeverExtractable if self.has_state() => {
                one(Value::Boolean(self.boolean(*tag).unwrap_or(*tag == Tag::Extractable)))
            }
            _ => stored(),
        }
    }

    /// The indexes of the instances of an attribute that are stored.
    pub fn stored(&self, identity: &Identity<'_>) -> Vec<u32> {
        self.attributes.iter().filter(|attribute| attribute.identity == *identity).map(|attribute| attribute.index).collect()
    }

    /// All attributes that a version has and can say, in the order of the table, then clients' own.
    pub fn all(&self, version: Version, now: i64) -> Vec<Attribute<'_>> {
        let mut all = self.filtered(now, |identity| identity.exists_in(version));
        all.retain(|attribute| attribute.exists_in(version));
        all
    }

    /// All attributes of whatever version.
    pub fn every(&self, now: i64) -> Vec<Attribute<'_>> {
        self.filtered(now, |_| true)
    }

    fn filtered(&self, now: i64, wanted: impl Fn(&Identity<'_>) -> bool) -> Vec<Attribute<'_>> {
        let known = DEFINITIONS.iter().map(|definition| Identity::Known(definition.tag)).filter(|identity| wanted(identity));
        let mut all: Vec<Attribute<'_>> = known.flat_map(|identity| self.instances(&identity, now)).collect();
        let own = |attribute: &&Attribute<'_>| matches!(attribute.identity, Identity::Custom(_)) && wanted(&attribute.identity);
        all.extend(self.attributes.iter().filter(own).cloned());
        all
    }

    /// Whether a client of that version may know of the object: Templates are gone since 2.0.
    pub fn exists_in(&self, version: Version) -> bool {
        has_member(Tag::ObjectType, self.object_type().number(), version)
    }

    /// Puts the one value under a tag.
    pub fn set(&mut self, tag: Tag, value: Value<'static>) {
        match self.attributes.iter_mut().find(|attribute| attribute.identity == Identity::Known(tag)) {
            Some(attribute) => attribute.value = value,
            None => self.attributes.push(Attribute::new(tag, value)),
        }
    }

    /// Puts a date.
    pub fn set_date(&mut self, tag: Tag, date: i64) {
        self.set(tag, Value::DateTime(date));
    }

    /// Puts the state.
    pub fn set_state(&mut self, state: State) {
        self.set(Tag::State, Value::Enumeration(state.number()));
    }

    /// Takes all values under a tag away.
    pub fn remove(&mut self, tag: Tag) {
        self.attributes.retain(|attribute| attribute.identity != Identity::Known(tag));
    }

    /// Adds an instance with the next index (section 2.1.1: an index is never used again while the others stand).
    ///
    /// # Errors
    /// Illegal Operation where it is there and can be there only once.
    pub fn add(&mut self, attribute: Attribute<'static>) -> Result<u32> {
        let next = self.attributes.iter().filter(|known| known.identity == attribute.identity).map(|known| known.index + 1).max();
        if next.is_some() && !attribute.identity.is_multiple() {
            let message = format!("the object has the attribute {:?} already", attribute.identity.name());
            return Err(Failure::new(ResultReason::IllegalOperation, message).since_2(ResultReason::AttributeSingleValued));
        }
        let names = self.names().count();
        if self.attributes.len() >= MOST_ATTRIBUTES || (attribute.identity == Identity::Known(Tag::Name) && names >= MOST_NAMES) {
            let message = format!("an object may have at most {MOST_NAMES} names, and {MOST_ATTRIBUTES} attributes in all");
            return Err(Failure::new(ResultReason::IndexOutOfBounds, message));
        }
        let index = next.unwrap_or(0);
        self.attributes.push(Attribute { index, ..attribute });
        Ok(index)
    }

    /// Replaces the value of an instance.
    ///
    /// # Errors
    /// Item Not Found.
    pub fn modify(&mut self, identity: &Identity<'_>, index: u32, value: Value<'static>) -> Result<()> {
        let known = self.attributes.iter_mut().find(|known| known.identity == *identity && known.index == index).ok_or_else(|| missing(identity, index))?;
        known.value = value;
        Ok(())
    }

    /// Takes an instance away.
    ///
    /// # Errors
    /// Item Not Found.
    pub fn delete(&mut self, identity: &Identity<'_>, index: u32) -> Result<Attribute<'a>> {
        let at = self.attributes.iter().position(|known| known.identity == *identity && known.index == index).ok_or_else(|| missing(identity, index))?;
        Ok(self.attributes.remove(at))
    }

    /// Digest, generator and dates of an object whose secret has just been made or brought.
    pub fn describe_secret(&mut self, secret: &[u8], format: KeyFormatType, made_here: bool, now: i64) {
        let digest = vec![
            Node::enumeration(Tag::HashingAlgorithm, HashingAlgorithm::SHA_256),
            Node::bytes(Tag::DigestValue, sha256(secret)),
            Node::enumeration(Tag::KeyFormatType, format),
        ];
        self.set(Tag::Digest, Value::Structure(digest));
        self.set(Tag::KeyFormatType, Value::Enumeration(format.number()));
        if made_here {
            // What aws-lc's generator is: CTR_DRBG with AES-256 (NIST SP 800-90A, section 10.2.1).
            let generator = vec![
                Node::enumeration(Tag::RNGAlgorithm, RNGAlgorithm::DRBG),
                Node::enumeration(Tag::CryptographicAlgorithm, CryptographicAlgorithm::AES),
                Node::integer(Tag::CryptographicLength, 256),
                Node::enumeration(Tag::DRBGAlgorithm, DRBGAlgorithm::CTR),
            ];
            self.set(Tag::RandomNumberGenerator, Value::Structure(generator));
        }
        if self.boolean(Tag::Sensitive) == Some(true) {
            self.set(Tag::AlwaysSensitive, Value::Boolean(true));
        }
        if self.boolean(Tag::Extractable) == Some(false) {
            self.set(Tag::NeverExtractable, Value::Boolean(true));
        }
        if made_here && self.value(Tag::OriginalCreationDate).is_none() {
            self.set_date(Tag::OriginalCreationDate, now);
        }
    }

    /// A new object's Usage Limits are all there still (section 3.21): whatever count its client or its predecessor gives, it starts at the total.
    pub fn start_counting(&mut self) {
        let Some(Value::Structure(items)) = self.value(Tag::UsageLimits).cloned() else { return };
        let Some(total) = items.iter().find(|item| item.tag == Tag::UsageLimitsTotal).map(|total| total.value.clone().into_owned()) else { return };
        // In the order of the specification, whatever the client's was.
        let unit = items.into_iter().filter(|item| item.tag == Tag::UsageLimitsUnit).map(Node::into_owned);
        let counted = [Node::new(Tag::UsageLimitsTotal, total.clone()), Node::new(Tag::UsageLimitsCount, total)].into_iter().chain(unit).collect();
        self.set(Tag::UsageLimits, Value::Structure(counted));
    }

    /// Whether some of its Usage Limits is used.
    pub fn has_counted(&self) -> bool {
        let Some(Value::Structure(items)) = self.value(Tag::UsageLimits) else { return false };
        let number = |tag| items.iter().find(|item| item.tag == tag).map(|item| &item.value);
        number(Tag::UsageLimitsCount).is_some_and(|count| Some(count) != number(Tag::UsageLimitsTotal))
    }

    /// The terms that it is found by.
    pub fn terms(&self) -> Vec<u64> {
        self.attributes.iter().filter(|attribute| is_indexed(&attribute.identity)).filter_map(|attribute| term(&attribute.identity, &attribute.value)).collect()
    }
}

/// Whether searches for an attribute go by the index: those that tell few objects from many.
pub fn is_indexed(identity: &Identity<'_>) -> bool {
    match identity {
        Identity::Known(tag) => matches!(
            *tag,
            Tag::Name | Tag::ObjectGroup | Tag::ApplicationSpecificInformation | Tag::Link | Tag::AlternativeName | Tag::ContactInformation | Tag::Description
        ),
        Identity::Custom(_) => true,
    }
}

/// The term of an attribute with a value; none for a part of a structure. It lives in memory only, so it may differ from one version to the next.
pub fn term(identity: &Identity<'_>, value: &Value<'_>) -> Option<u64> {
    // Not keyed: who floods a term slows down searches of its own SVM alone, and searches compare again.
    let mut hasher = std::hash::DefaultHasher::new();
    identity.hash(&mut hasher);
    canonical(identity, value)?.hash(&mut hasher);
    Some(hasher.finish())
}

/// The index for the key manager: the terms of stored attributes.
pub fn index(attributes: &[u8]) -> Vec<u64> {
    Managed::decode(Uuid::nil(), attributes).map(|managed| managed.terms()).unwrap_or_default()
}

/// Which algorithm a stored object is for, and how long its key is: `AES-256`. `None` for one that says nothing of it.
pub fn algorithm(attributes: &[u8]) -> Option<String> {
    let object = Managed::decode_some(Uuid::nil(), attributes, &[Tag::CryptographicAlgorithm, Tag::CryptographicLength]).ok()?;
    let name = format!("{:?}", object.enumeration::<CryptographicAlgorithm>(Tag::CryptographicAlgorithm)?);
    Some(match object.integer(Tag::CryptographicLength) {
        Some(bits) => format!("{name}-{bits}"),
        None => name,
    })
}

/// What of an object counts for those who use it, and in which words. What mere use changes is not among it.
const COUNTS: [(Tag, &str); 13] = [
    (Tag::State, "state"),
    (Tag::Name, "names"),
    (Tag::ActivationDate, "activation date"),
    (Tag::ProcessStartDate, "process start date"),
    (Tag::ProtectStopDate, "protect stop date"),
    (Tag::DeactivationDate, "deactivation date"),
    (Tag::CompromiseOccurrenceDate, "compromise occurrence date"),
    (Tag::CompromiseDate, "compromise date"),
    (Tag::RevocationReason, "revocation reason"),
    (Tag::CryptographicUsageMask, "usage mask"),
    (Tag::CryptographicParameters, "cryptographic parameters"),
    (Tag::Sensitive, "sensitive"),
    (Tag::Extractable, "extractable"),
];

/// What differs between an object's attributes of two times, as far as it counts, with states as they are at `now` (seconds since 1970). `None`: one of the two is damaged.
pub fn difference(then: &[u8], later: &[u8], now: i64) -> Option<Vec<&'static str>> {
    let wanted = COUNTS.map(|(tag, _)| tag);
    let read = |bytes| Managed::decode_some(Uuid::nil(), bytes, &wanted).ok();
    let (then, later) = (read(then)?, read(later)?);
    let differs = |tag: Tag| if tag == Tag::State { then.state(now) != later.state(now) } else { then.values(tag) != later.values(tag) };
    Some(COUNTS.iter().filter(|(tag, _)| differs(*tag)).map(|(_, words)| *words).collect())
}

/// Whether a client may give an attribute when it makes an object.
pub fn may_create(identity: &Identity<'_>) -> bool {
    match identity {
        Identity::Known(tag) => keystead_kmip::attribute::definition(*tag).is_some_and(|definition| definition.create),
        Identity::Custom(_) => identity.change() == Change::Free,
    }
}

fn value_size(value: &Value<'_>) -> usize {
    match value {
        Value::Structure(items) => items.iter().map(|item| 6 + value_size(&item.value)).sum(),
        Value::TextString(text) => 4 + text.len(),
        Value::ByteString(bytes) | Value::BigInteger(bytes) => 4 + bytes.len(),
        _ => 8,
    }
}

/// Item Not Found, of an instance of an attribute.
pub fn missing(identity: &Identity<'_>, index: u32) -> Failure {
    let message = format!("the object has no attribute {:?} with the index {index}", identity.name());
    Failure::new(ResultReason::ItemNotFound, message).since_2(ResultReason::AttributeInstanceNotFound)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> Managed<'static> {
        let mut key = Managed::new(Uuid::from_u128(1), ObjectType::SymmetricKey);
        key.set_state(State::PreActive);
        key
    }

    #[test]
    fn dates_turn_the_state() {
        let mut key = key();
        assert_eq!(key.state(100), Some(State::PreActive));
        key.set_date(Tag::ActivationDate, 100);
        assert_eq!((key.state(99), key.state(100)), (Some(State::PreActive), Some(State::Active)));
        key.set_date(Tag::DeactivationDate, 200);
        assert_eq!((key.state(199), key.state(200)), (Some(State::Active), Some(State::Deactivated)));
        key.set_state(State::Compromised);
        assert_eq!(key.state(200), Some(State::Compromised));
        assert_eq!(Managed::new(Uuid::nil(), ObjectType::OpaqueObject).state(0), None);
    }

    #[test]
    fn an_index_is_not_used_again_while_others_stand() {
        let mut key = key();
        assert_eq!(key.add(Attribute::name("a")).unwrap(), 0);
        assert_eq!(key.add(Attribute::name("b")).unwrap(), 1);
        let name = Identity::Known(Tag::Name);
        key.delete(&name, 0).unwrap();
        assert_eq!(key.add(Attribute::name("c")).unwrap(), 2);
        assert_eq!(key.names().collect::<Vec<_>>(), ["b", "c"]);
        assert_eq!(key.delete(&name, 0).unwrap_err().reason, ResultReason::ItemNotFound);
        let twice = Attribute::new(Tag::ContactInformation, Value::TextString("x".into()));
        key.add(twice.clone()).unwrap();
        assert_eq!(key.add(twice).unwrap_err().reason, ResultReason::IllegalOperation);
    }

    #[test]
    fn what_counts_differs_and_use_does_not() {
        let was = key();
        let encoded = was.encode();
        let change = |change: &dyn Fn(&mut Managed<'static>)| {
            let mut changed = was.clone();
            change(&mut changed);
            difference(&encoded, &changed.encode(), 100)
        };
        assert_eq!(change(&|_| {}), Some(vec![]));
        assert_eq!(change(&|key| key.set_date(Tag::LastChangeDate, 50)), Some(vec![]));
        assert_eq!(change(&|key| key.set(Tag::Fresh, Value::Boolean(false))), Some(vec![]));
        assert_eq!(change(&|key| key.set_state(State::Compromised)), Some(vec!["state"]));
        assert_eq!(change(&|key| drop(key.add(Attribute::name("a")))), Some(vec!["names"]));
        assert_eq!(change(&|key| key.set_date(Tag::ActivationDate, 50)), Some(vec!["state", "activation date"]), "it is active by now");
        assert_eq!(change(&|key| key.set_date(Tag::ActivationDate, 500)), Some(vec!["activation date"]));
        assert_eq!(change(&|key| key.set(Tag::CryptographicUsageMask, Value::Integer(4))), Some(vec!["usage mask"]));
        assert_eq!(difference(&encoded, b"damaged", 100), None);
    }

    #[test]
    fn terms_are_those_of_the_stored_form() {
        let mut key = key();
        key.add(Attribute::name("a")).unwrap();
        let bytes = key.encode();
        assert_eq!(index(&bytes), [term(&Identity::Known(Tag::Name), &Attribute::name("a").value).unwrap()]);
        assert!(index(b"damaged").is_empty());
    }
}

//! Create and Register (KMIP Specification 1.4, sections 4.1 and 4.3).

use super::Context;
use crate::managed::{Managed, STORAGE, may_create, term};
use crate::reason::failure;
use crate::unit::{Unit, name_taken, not_found};
use keystead_keyring::material;
use keystead_kmip::attribute::{Attribute, Identity, name_value};
use keystead_kmip::enumeration::{CryptographicAlgorithm, Enumeration as _, KeyFormatType, ObjectType, ResultReason, State};
use keystead_kmip::object::{KeyBlock, KeyValue, Object};
use keystead_kmip::request::Template;
use keystead_kmip::response::Response;
use keystead_kmip::ttlv::Value;
use keystead_kmip::{Failure, Result, Tag};
use zeroize::Zeroizing;

/// How many templates a request may name.
const MOST_TEMPLATES: usize = 16;
/// The longest secret that is kept, in bytes: all of them are held in memory, wrapped.
const MOST_SECRET: usize = 256 * 1024;

pub async fn create(context: &mut Context<'_>, unit: &mut Unit<'_>, object_type: ObjectType, template: Template<'_>) -> Result<Response<'static>> {
    if object_type != ObjectType::SymmetricKey {
        let message = format!("{} cannot be created, only SymmetricKey; register it", object_type.name());
        return Err(invalid(message).since_2(ResultReason::InvalidObjectType));
    }
    context.keys.usable().map_err(|error| failure(&error))?;
    let mut object = start(context, unit, object_type, template).await?;
    let missing = |what: &str| invalid(format!("the attribute {what:?} is needed to create a key")).since_2(ResultReason::InvalidAttribute);
    let algorithm = object.enumeration(Tag::CryptographicAlgorithm).ok_or_else(|| missing("Cryptographic Algorithm"))?;
    if object.value(Tag::CryptographicUsageMask).is_none() {
        return Err(missing("Cryptographic Usage Mask"));
    }
    let bits = object.integer(Tag::CryptographicLength).or_else(|| default_length(algorithm)).ok_or_else(|| missing("Cryptographic Length"))?;
    let secret = make_key(algorithm, bits)?;
    object.set(Tag::CryptographicLength, Value::Integer(bits));
    let format = object.enumeration(Tag::KeyFormatType).unwrap_or(KeyFormatType::Raw);
    if !matches!(format, KeyFormatType::Raw | KeyFormatType::TransparentSymmetricKey) {
        return Err(no_format(format, "a key that is made here is Raw or a TransparentSymmetricKey"));
    }
    object.describe_secret(&secret, format, true, context.now);
    finish(context, unit, object, Some(secret), Some(object_type))
}

pub async fn register(
    context: &mut Context<'_>,
    unit: &mut Unit<'_>,
    object_type: ObjectType,
    template: Template<'_>,
    object: Object<'_>,
) -> Result<Response<'static>> {
    context.keys.usable().map_err(|error| failure(&error))?;
    let mut new = start(context, unit, object_type, template).await?;
    let secret = take(&mut new, object)?.map(|(secret, format)| {
        new.describe_secret(&secret, format, false, context.now);
        secret
    });
    finish(context, unit, new, secret, None)
}

/// Takes an object over that a client has sent: its secret with its format, and what it says of itself.
pub(super) fn take(new: &mut Managed<'static>, object: Object<'_>) -> Result<Option<(Zeroizing<Vec<u8>>, KeyFormatType)>> {
    let secret = match object {
        Object::Certificate(kind, value) => {
            super::certificate::describe(new, kind, &value)?;
            Some((Zeroizing::new(value.into_owned()), KeyFormatType::X_509))
        }
        Object::SymmetricKey(block) | Object::PublicKey(block) | Object::PrivateKey(block) => Some(take_key(new, &block)?),
        Object::SecretData(kind, block) => {
            new.set(Tag::SecretDataType, Value::Enumeration(kind.number()));
            Some(take_key(new, &block)?)
        }
        Object::OpaqueObject(kind, data) => {
            new.set(Tag::OpaqueDataType, Value::Enumeration(kind));
            Some((Zeroizing::new(data.into_owned()), KeyFormatType::Opaque))
        }
        Object::Template(attributes) => {
            for attribute in attributes {
                // Its own name may stand inside, as storage arrays of KMIP 1.0 have it; what it names twice would be a name for others, and there is none.
                if attribute.identity == Identity::Known(Tag::Name) && new.names().next().is_some() {
                    return Err(invalid("a Template names no Name for others; its own stands in the TemplateAttribute".to_owned()));
                }
                give(new, attribute)?;
            }
            None
        }
    };
    if secret.as_ref().is_some_and(|(secret, _)| secret.len() > MOST_SECRET) {
        return Err(invalid(format!("the object is too large: at most {MOST_SECRET} bytes are kept")).since_2(ResultReason::ServerLimitExceeded));
    }
    if let (Some((_, format)), Some(given)) = (&secret, new.enumeration::<KeyFormatType>(Tag::KeyFormatType))
        && given != *format
    {
        let message = format!("the object is {}, and the attribute Key Format Type says {}", format.name(), given.name());
        return Err(invalid(message).since_2(ResultReason::InvalidAttributeValue));
    }
    Ok(secret)
}

/// A new object with the attributes that the client and the templates it names give.
pub(super) async fn start(context: &Context<'_>, unit: &Unit<'_>, object_type: ObjectType, template: Template<'_>) -> Result<Managed<'static>> {
    let mut object = Managed::new(context.manager.new_uuid(), object_type);
    if !template.storage.is_empty() && !template.storage.contains(&STORAGE) {
        let failure = invalid("objects are kept in Software; ProtectionStorageMasks does not permit that".to_owned());
        return Err(failure.since_2(ResultReason::ProtectionStorageUnavailable));
    }
    for attribute in template.attributes {
        give(&mut object, attribute)?;
    }
    if template.names.len() > MOST_TEMPLATES {
        return Err(invalid(format!("at most {MOST_TEMPLATES} templates can be named")));
    }
    for name in template.names.into_iter().rev() {
        for attribute in template_attributes(unit, name, context.version).await? {
            // What the request itself says counts before what templates say, and a later template before an earlier one (section 4).
            if attribute.identity.is_multiple() || object.stored(&attribute.identity).is_empty() {
                give(&mut object, attribute)?;
            }
        }
    }
    Ok(object)
}

/// Dates, state and names; then the object is there.
pub(super) fn finish(
    context: &mut Context<'_>,
    unit: &mut Unit<'_>,
    mut object: Managed<'static>,
    secret: Option<Zeroizing<Vec<u8>>>,
    object_type: Option<ObjectType>,
) -> Result<Response<'static>> {
    let now = context.now;
    crate::approved::check(context.manager.fips(), &object)?;
    check_dates(&object)?;
    object.set_date(Tag::InitialDate, now);
    object.set_date(Tag::LastChangeDate, now);
    if object.has_state() {
        object.set_state(State::PreActive);
        if object.value(Tag::Fresh).is_none() {
            object.set(Tag::Fresh, Value::Boolean(true));
        }
    }
    object.start_counting();
    let mut names: Vec<&str> = object.names().collect();
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    if names.len() < count {
        return Err(name_taken(true));
    }
    let id = object.id;
    unit.create(object, secret)?;
    context.placeholder = Some(id);
    Ok(Response::Identifier { object_type, id: id.to_string() })
}

/// Gives a new object an attribute of the client's.
fn give(object: &mut Managed<'static>, attribute: Attribute<'static>) -> Result<()> {
    if !may_create(&attribute.identity) {
        let message = format!("the attribute {:?} is the server's to set", attribute.identity.name());
        return Err(invalid(message).since_2(ResultReason::AttributeReadOnly));
    }
    if attribute.identity == Identity::Known(Tag::Name) && name_value(&attribute.value).is_none_or(str::is_empty) {
        return Err(invalid("a Name must not be empty".to_owned()).since_2(ResultReason::InvalidAttributeValue));
    }
    check_given(&attribute)?;
    object.add(attribute).map(|_| ()).map_err(|failure| match failure.reason {
        ResultReason::IllegalOperation => invalid(failure.message).since_2(ResultReason::AttributeSingleValued),
        _ => failure,
    })
}

/// Refuses a value that its shape allows, and its meaning does not: data that the server would have to make up for a namespace (section 3.36), and usage that is less than none (3.21).
///
/// # Errors
/// Application Namespace Not Supported; Invalid Field.
pub(super) fn check_given(attribute: &Attribute<'_>) -> Result<()> {
    let Value::Structure(items) = &attribute.value else { return Ok(()) };
    let find = |tag: Tag| items.iter().find(|item| item.tag == tag).map(|item| &item.value);
    match attribute.identity {
        Identity::Known(Tag::ApplicationSpecificInformation) if find(Tag::ApplicationData).is_none() => {
            Err(Failure::new(ResultReason::ApplicationNamespaceNotSupported, "ApplicationData is missing, and this server makes none up for any namespace"))
        }
        Identity::Known(Tag::UsageLimits) if matches!(find(Tag::UsageLimitsTotal), Some(Value::LongInteger(total)) if *total < 0) => {
            Err(invalid("UsageLimitsTotal is negative".to_owned()).since_2(ResultReason::InvalidAttributeValue))
        }
        _ => Ok(()),
    }
}

/// The attributes of a Template object that templates can hand on: all but its own names.
async fn template_attributes(unit: &Unit<'_>, name: &str, version: keystead_kmip::Version) -> Result<Vec<Attribute<'static>>> {
    let wanted = Attribute::name(name);
    let mut found = None;
    unit.search(term(&Identity::Known(Tag::Name), &wanted.value), |object, destroyed| {
        if object.object_type() == ObjectType::Template && !destroyed && object.names().any(|known| known == name) {
            found = Some(object.clone().into_owned());
        }
    })
    .await?;
    let template = found.ok_or_else(|| not_found(&format!("of the type Template with the name {name:?}")))?;
    let all = template.all(version, 0).into_iter();
    let handed_on = all.filter(|attribute| may_create(&attribute.identity) && attribute.identity != Identity::Known(Tag::Name));
    Ok(handed_on.map(|attribute| Attribute { identity: attribute.identity.into_owned(), index: 0, value: attribute.value.into_owned() }).collect())
}

/// Takes the material of a key block over, and checks that algorithm and length belong together.
fn take_key(object: &mut Managed<'static>, block: &KeyBlock<'_>) -> Result<(Zeroizing<Vec<u8>>, KeyFormatType)> {
    let KeyValue::Plain(material) = &block.value else {
        return Err(Failure::new(ResultReason::FeatureNotSupported, "keys that come wrapped cannot be registered"));
    };
    let kind = object.object_type();
    if !is_format_of(block.format, kind) {
        return Err(no_format(block.format, &format!("that is no format of an object of the type {}", kind.name())));
    }
    let stored = material.stored();
    if stored.is_empty() {
        return Err(invalid("KeyMaterial is empty".to_owned()));
    }
    let algorithm = same(object.enumeration(Tag::CryptographicAlgorithm), block.algorithm, "CryptographicAlgorithm")?;
    let length = same(object.integer(Tag::CryptographicLength), block.length, "CryptographicLength")?;
    let missing = |what: &str| invalid(format!("{what} is missing in KeyBlock"));
    let length = match kind {
        ObjectType::SymmetricKey => {
            let algorithm = algorithm.ok_or_else(|| missing("CryptographicAlgorithm"))?;
            let bits = length.unwrap_or(i32::try_from(stored.len() * 8).unwrap_or(i32::MAX));
            let expected = key_bytes(algorithm, bits)?;
            if block.format != KeyFormatType::Opaque && expected != stored.len() {
                return Err(invalid(format!("a {} key of {bits} bits has {expected} bytes of material, not {}", algorithm.name(), stored.len())));
            }
            Some(bits)
        }
        // What stands in the encoding of an asymmetric key is the client's: it says itself what it is.
        ObjectType::PublicKey | ObjectType::PrivateKey => {
            algorithm.ok_or_else(|| missing("CryptographicAlgorithm"))?;
            Some(length.filter(|bits| *bits > 0).ok_or_else(|| missing("CryptographicLength"))?)
        }
        _ => length,
    };
    if let Some(length) = length {
        object.set(Tag::CryptographicLength, Value::Integer(length));
    }
    if let Some(algorithm) = algorithm {
        object.set(Tag::CryptographicAlgorithm, Value::Enumeration(algorithm.number()));
    }
    Ok((Zeroizing::new(stored.into_owned()), block.format))
}

/// Whether keys of a type come in a format (section 2.1.3).
fn is_format_of(format: KeyFormatType, kind: ObjectType) -> bool {
    use KeyFormatType as F;
    let own: &[F] = match kind {
        ObjectType::SymmetricKey => &[F::TransparentSymmetricKey],
        ObjectType::PublicKey => &[
            F::PKCS_1,
            F::X_509,
            F::TransparentDSAPublicKey,
            F::TransparentRSAPublicKey,
            F::TransparentDHPublicKey,
            F::TransparentECDSAPublicKey,
            F::TransparentECDHPublicKey,
            F::TransparentECMQVPublicKey,
            F::TransparentECPublicKey,
        ],
        ObjectType::PrivateKey => &[
            F::PKCS_1,
            F::PKCS_8,
            F::ECPrivateKey,
            F::TransparentDSAPrivateKey,
            F::TransparentRSAPrivateKey,
            F::TransparentDHPrivateKey,
            F::TransparentECDSAPrivateKey,
            F::TransparentECDHPrivateKey,
            F::TransparentECMQVPrivateKey,
            F::TransparentECPrivateKey,
        ],
        _ => &[],
    };
    matches!(format, F::Raw | F::Opaque) || own.contains(&format)
}

fn no_format(format: KeyFormatType, why: &str) -> Failure {
    Failure::new(ResultReason::KeyFormatTypeNotSupported, format!("the format {} is not supported: {why}", format.name()))
}

/// Two places may say the same thing, but not two things.
fn same<T: PartialEq>(one: Option<T>, other: Option<T>, what: &str) -> Result<Option<T>> {
    match (one, other) {
        (Some(one), Some(other)) if one != other => Err(invalid(format!("{what} in the attributes and in KeyBlock differ"))),
        (one, other) => Ok(one.or(other)),
    }
}

/// Makes the material of a key.
pub(super) fn make_key(algorithm: CryptographicAlgorithm, bits: i32) -> Result<Zeroizing<Vec<u8>>> {
    let mut key = material::generate(key_bytes(algorithm, bits)?);
    if matches!(algorithm, CryptographicAlgorithm::DES3 | CryptographicAlgorithm::DES) {
        // Odd parity in the lowest bit of each byte (FIPS 46-3).
        key.iter_mut().for_each(|byte| *byte = *byte & 0xfe | u8::from((*byte & 0xfe).count_ones() % 2 == 0));
    }
    Ok(key)
}

/// How many bytes the material of a key has. DES and 3DES count 56 of 64 bits.
fn key_bytes(algorithm: CryptographicAlgorithm, bits: i32) -> Result<usize> {
    use CryptographicAlgorithm as A;
    let good = match algorithm {
        // 512: two keys of AES-256-XTS in one object, as storage has them.
        A::AES => matches!(bits, 128 | 192 | 256 | 512),
        A::Camellia | A::Twofish | A::ARIA | A::MARS => matches!(bits, 128 | 192 | 256),
        A::DES3 => matches!(bits, 112 | 128 | 168 | 192),
        A::ChaCha20 | A::ChaCha20Poly1305 | A::Poly1305 => bits == 256,
        A::SEED | A::SM4 | A::IDEA => bits == 128,
        A::Blowfish | A::CAST5 | A::RC2 | A::RC4 | A::RC5 | A::OneTimePad => (40..=65_536).contains(&bits) && bits % 8 == 0,
        A::HMAC_SHA1
        | A::HMAC_SHA224
        | A::HMAC_SHA256
        | A::HMAC_SHA384
        | A::HMAC_SHA512
        | A::HMAC_SHA3_224
        | A::HMAC_SHA3_256
        | A::HMAC_SHA3_384
        | A::HMAC_SHA3_512 => (64..=65_536).contains(&bits) && bits % 8 == 0,
        other => return Err(invalid(format!("{} is no algorithm of symmetric keys that is served here", other.name()))),
    };
    if !good {
        return Err(invalid(format!("a {} key cannot have {bits} bits", algorithm.name())));
    }
    let stored = match (algorithm, bits) {
        (A::DES3, 112) => 128,
        (A::DES3, 168) => 192,
        _ => bits,
    };
    usize::try_from(stored / 8).map_err(|_| invalid("CryptographicLength is negative".to_owned()))
}

fn default_length(algorithm: CryptographicAlgorithm) -> Option<i32> {
    use CryptographicAlgorithm as A;
    match algorithm {
        A::AES | A::ChaCha20 | A::ChaCha20Poly1305 | A::HMAC_SHA256 => Some(256),
        A::DES3 => Some(168),
        _ => None,
    }
}

/// Dates follow each other (sections 3.24 to 3.27).
pub(super) fn check_dates(object: &Managed<'_>) -> Result<()> {
    let date = |tag| object.date(tag);
    let order = [
        (Tag::ActivationDate, Tag::ProcessStartDate),
        (Tag::ActivationDate, Tag::DeactivationDate),
        (Tag::ProcessStartDate, Tag::DeactivationDate),
        (Tag::ProtectStopDate, Tag::DeactivationDate),
        (Tag::ActivationDate, Tag::ProtectStopDate),
    ];
    for (first, later) in order {
        if let (Some(a), Some(b)) = (date(first), date(later))
            && a > b
        {
            return Err(invalid(format!("{first} is after {later}")));
        }
    }
    Ok(())
}

fn invalid(message: String) -> Failure {
    Failure::new(ResultReason::InvalidField, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_by_algorithm() {
        use CryptographicAlgorithm as A;
        for (algorithm, bits, bytes) in
            [(A::AES, 128, 16), (A::AES, 256, 32), (A::AES, 512, 64), (A::DES3, 112, 16), (A::DES3, 168, 24), (A::HMAC_SHA256, 256, 32)]
        {
            assert_eq!(make_key(algorithm, bits).unwrap().len(), bytes, "{algorithm:?} {bits}");
        }
        for (algorithm, bits) in [(A::AES, 0), (A::AES, 129), (A::AES, -8), (A::DES3, 56), (A::RSA, 2048), (A::HMAC_SHA256, i32::MAX), (A::ChaCha20, 128)] {
            assert_eq!(make_key(algorithm, bits).unwrap_err().reason, ResultReason::InvalidField, "{algorithm:?} {bits}");
        }
    }

    #[test]
    fn des_keys_have_odd_parity() {
        assert!(make_key(CryptographicAlgorithm::DES3, 168).unwrap().iter().all(|byte| byte.count_ones() % 2 == 1));
    }
}

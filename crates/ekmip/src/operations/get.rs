//! Get (KMIP Specification 1.4, section 4.11), with key wrapping (2.1.6).

use super::Context;
use crate::managed::Managed;
use crate::unit::{Seen, Unit, destroyed, not_found};
use keystead_keyring::material::aes_key_wrap;
use keystead_kmip::enumeration::{
    BlockCipherMode, CertificateType, CryptographicAlgorithm, EncodingOption, Enumeration as _, KeyFormatType, ObjectType, ResultReason, SecretDataType, State,
    UNRESTRICTED, WRAP_KEY,
};
use keystead_kmip::fields::enumeration;
use keystead_kmip::object::{KeyBlock, KeyMaterial, KeyValue, KeyWrappingData, Object};
use keystead_kmip::response::Response;
use keystead_kmip::ttlv::{Node, Value, encode};
use keystead_kmip::{Failure, Result, Tag, Version};
use std::borrow::Cow;
use zeroize::Zeroizing;

/// What the answer takes, as a multiple of the record: the secret as it is unwrapped, as it is answered, wrapped by another key and encoded.
const ANSWER: usize = 4;

/// The attributes that decide whether and how an object is given out.
const NEEDED: &[Tag] = &[
    Tag::ObjectType,
    Tag::Extractable,
    Tag::Sensitive,
    Tag::Fresh,
    Tag::KeyFormatType,
    Tag::CryptographicAlgorithm,
    Tag::CryptographicLength,
    Tag::SecretDataType,
    Tag::OpaqueDataType,
    Tag::CertificateType,
];

pub async fn get(
    context: &mut Context<'_>,
    unit: &mut Unit<'_>,
    id: Option<&str>,
    format: Option<KeyFormatType>,
    wrapping: Option<KeyWrappingData>,
) -> Result<Response<'static>> {
    let id = context.id(id)?;
    let seen = unit.look(id).await?;
    if seen.is_destroyed() {
        return Err(destroyed(&id.to_string()));
    }
    context.room.reserve(ANSWER * seen.size()).await?;
    let facts = seen.facts(NEEDED)?;
    let object = give_out(context, unit, &seen, &facts, format, wrapping).await?;
    if facts.boolean(Tag::Fresh).unwrap_or(false) {
        context.fresh.push(id);
    }
    Ok(Response::Object { id: id.to_string(), object })
}

/// An object as it may be given out: what Get and Export have in common. `object`: the attributes of [`NEEDED`], or all.
pub(super) async fn give_out(
    context: &Context<'_>,
    unit: &Unit<'_>,
    seen: &Seen<'_>,
    object: &Managed<'_>,
    format: Option<KeyFormatType>,
    wrapping: Option<KeyWrappingData>,
) -> Result<Object<'static>> {
    let flag = |tag, default| object.boolean(tag).unwrap_or(default);
    // What a Template says there is about objects that are made with it; it has no secret itself.
    let is_secret = object.object_type() != ObjectType::Template;
    if is_secret && !flag(Tag::Extractable, true) {
        return Err(Failure::new(ResultReason::NotExtractable, "the object is not extractable"));
    }
    if is_secret && flag(Tag::Sensitive, false) && wrapping.is_none() {
        return Err(Failure::new(ResultReason::Sensitive, "the object is sensitive: it is given out wrapped by another key only"));
    }
    let object = match unit.secret(seen)? {
        None => template(&*seen.object()?, context),
        Some(secret) => with_secret(context, unit, object, secret, format, wrapping).await?,
    };
    object.check_version(context.version)?;
    Ok(object)
}

async fn with_secret(
    context: &Context<'_>,
    unit: &Unit<'_>,
    object: &Managed<'_>,
    mut secret: Zeroizing<Vec<u8>>,
    format: Option<KeyFormatType>,
    wrapping: Option<KeyWrappingData>,
) -> Result<Object<'static>> {
    if object.object_type() == ObjectType::OpaqueObject {
        if wrapping.is_some() || format.is_some() {
            let failure = Failure::new(ResultReason::IllegalOperation, "an opaque object has neither a key format nor a way to be wrapped");
            return Err(failure.since_2(ResultReason::InvalidObjectType));
        }
        let kind = if let Some(Value::Enumeration(kind)) = object.value(Tag::OpaqueDataType) { *kind } else { 0x8000_0000 };
        return Ok(Object::OpaqueObject(kind, Cow::Owned(std::mem::take(&mut *secret))));
    }
    let stored = object.enumeration(Tag::KeyFormatType).unwrap_or(KeyFormatType::Raw);
    let given = format.unwrap_or(stored);
    // A symmetric key's bytes are the same in both.
    let same_bytes = |format| matches!(format, KeyFormatType::Raw | KeyFormatType::TransparentSymmetricKey);
    if given != stored && !(object.object_type() == ObjectType::SymmetricKey && same_bytes(given) && same_bytes(stored)) {
        let message = format!("the object is stored as {}, and cannot be given out as {}", stored.name(), given.name());
        return Err(Failure::new(ResultReason::KeyFormatTypeNotSupported, message));
    }
    if object.object_type() == ObjectType::Certificate {
        if wrapping.is_some() {
            let failure = Failure::new(ResultReason::IllegalOperation, "a certificate is not wrapped: it is no secret");
            return Err(failure.since_2(ResultReason::InvalidObjectType));
        }
        let kind = object.enumeration(Tag::CertificateType).unwrap_or(CertificateType::X_509);
        return Ok(Object::Certificate(kind, Cow::Owned(std::mem::take(&mut *secret))));
    }
    let material = KeyMaterial::from_stored(given, std::mem::take(&mut *secret));
    let material = material.ok_or_else(|| Failure::new(ResultReason::GeneralFailure, format!("the key {} is damaged", object.id)))?;
    let value = match wrapping {
        None => KeyValue::Plain(material),
        Some(wrapping) => wrapped(context, unit, &material, wrapping).await?,
    };
    let block = KeyBlock { format: given, value, algorithm: object.enumeration(Tag::CryptographicAlgorithm), length: object.integer(Tag::CryptographicLength) };
    Ok(match object.object_type() {
        ObjectType::SecretData => Object::SecretData(object.enumeration(Tag::SecretDataType).unwrap_or(SecretDataType::Password), block),
        ObjectType::PublicKey => Object::PublicKey(block),
        ObjectType::PrivateKey => Object::PrivateKey(block),
        _ => Object::SymmetricKey(block),
    })
}

async fn wrapped(context: &Context<'_>, unit: &Unit<'_>, material: &KeyMaterial<'_>, wrapping: KeyWrappingData) -> Result<KeyValue<'static>> {
    let refuse = |reason, later, message: &str| Failure::new(reason, format!("the wrapping key {message}")).since_2(later);
    let missing = || not_found(&wrapping.key_id).since_2(ResultReason::WrappingObjectNotFound);
    let id = wrapping.key_id.parse().map_err(|_| missing())?;
    let seen = match unit.look(id).await {
        Err(failure) if failure.reason == ResultReason::ItemNotFound => return Err(missing()),
        other => other?,
    };
    if seen.is_destroyed() {
        return Err(not_found(&wrapping.key_id).since_2(ResultReason::WrappingObjectDestroyed));
    }
    let key = &*seen.object()?;
    if key.object_type() != ObjectType::SymmetricKey || key.enumeration(Tag::CryptographicAlgorithm) != Some(CryptographicAlgorithm::AES) {
        return Err(refuse(ResultReason::IllegalOperation, ResultReason::InvalidObjectType, "is no AES key"));
    }
    if key.state(context.now) != Some(State::Active) {
        return Err(refuse(ResultReason::PermissionDenied, ResultReason::PermissionDenied, "is not active"));
    }
    if key.integer(Tag::CryptographicUsageMask).unwrap_or(0) & (WRAP_KEY | UNRESTRICTED) == 0 {
        let reason = ResultReason::IncompatibleCryptographicUsageMask;
        return Err(refuse(ResultReason::PermissionDenied, reason, "may not wrap: its Cryptographic Usage Mask lacks Wrap Key"));
    }
    if key.date(Tag::ProtectStopDate).is_some_and(|stop| stop <= context.now) {
        return Err(refuse(ResultReason::PermissionDenied, ResultReason::PermissionDenied, "is past its Protect Stop Date"));
    }
    // Wrapping would be counted, and nothing here commits a count before the answer.
    if key.value(Tag::UsageLimits).is_some() {
        return Err(refuse(ResultReason::PermissionDenied, ResultReason::PermissionDenied, "has Usage Limits, and wrapping is not counted"));
    }
    let mode = wrapping.mode.or_else(|| mode_of(key)).unwrap_or(BlockCipherMode::NISTKeyWrap);
    let padding = match mode {
        BlockCipherMode::NISTKeyWrap => false,
        BlockCipherMode::AESKeyWrapPadding => true,
        other => {
            return Err(Failure::new(
                ResultReason::FeatureNotSupported,
                format!("keys are not wrapped with {}; take NISTKeyWrap or AESKeyWrapPadding", other.name()),
            ));
        }
    };
    let wrapping_secret = unit.secret(&seen)?.ok_or_else(|| refuse(ResultReason::IllegalOperation, ResultReason::KeyValueNotPresent, "has no key material"))?;
    // Without an Encoding Option the whole Key Value is wrapped, as TTLV (section 9.1.3.2.32).
    let plain = match wrapping.encoding {
        Some(EncodingOption::NoEncoding) => match material {
            KeyMaterial::Bytes(bytes) | KeyMaterial::Symmetric(bytes) => Zeroizing::new(bytes.to_vec()),
            KeyMaterial::Numbers(_) => {
                return Err(Failure::new(ResultReason::EncodingOptionError, "a key of several numbers is wrapped as TTLV only"));
            }
        },
        Some(EncodingOption::TTLVEncoding) | None => {
            let mut bytes = Zeroizing::new(Vec::with_capacity(material.stored().len() + 64));
            encode(&Node::structure(Tag::KeyValue, vec![material.to_node()]), &mut bytes);
            bytes
        }
    };
    let out = aes_key_wrap(&wrapping_secret, &plain, padding).map_err(|error| Failure::new(ResultReason::CryptographicFailure, error.to_string()))?;
    let encoding = wrapping.encoding.filter(|_| context.version >= Version::V1_1);
    Ok(KeyValue::Wrapped(Cow::Owned(out), KeyWrappingData { encoding, ..wrapping }))
}

/// The mode that the wrapping key itself is for.
fn mode_of(key: &Managed<'_>) -> Option<BlockCipherMode> {
    match key.value(Tag::CryptographicParameters) {
        Some(Value::Structure(items)) => items.iter().find(|item| item.tag == Tag::BlockCipherMode).and_then(|item| enumeration(item).ok()),
        _ => None,
    }
}

fn template(object: &Managed<'_>, context: &Context<'_>) -> Object<'static> {
    let all = object.clone().into_owned();
    let given = all.all(context.version, context.now).into_iter().filter(|attribute| crate::managed::may_create(&attribute.identity));
    Object::Template(
        given
            .map(|attribute| keystead_kmip::attribute::Attribute {
                identity: attribute.identity.into_owned(),
                index: attribute.index,
                value: attribute.value.into_owned(),
            })
            .collect(),
    )
}

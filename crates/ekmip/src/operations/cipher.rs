//! Encrypt, Decrypt and RNG Retrieve (KMIP Specification 1.4, sections 4.29, 4.30 and 4.35): AES in GCM and in CBC.
//!
//! A key is used for what its usage mask says, while it is active and its dates allow it; what Usage Limits count is committed before the answer goes out.

use super::Context;
use super::usage::{consume, limits};
use crate::managed::Managed;
use crate::reason::failure;
use crate::unit::{Found, Unit, destroyed};
use keystead_keyring::cipher::{AES_BLOCK, CipherError, GCM_NONCE, GCM_TAG, aes_cbc_decrypt, aes_cbc_encrypt, aes_gcm_decrypt, aes_gcm_encrypt};
use keystead_keyring::material::generate;
use keystead_kmip::attribute::Identity;
use keystead_kmip::cipher::CipherParameters;
use keystead_kmip::enumeration::{
    BlockCipherMode, CryptographicAlgorithm, DECRYPT, ENCRYPT, Enumeration as _, ObjectType, PaddingMethod, ResultReason, State, UNRESTRICTED, UsageLimitsUnit,
};
use keystead_kmip::request::CipherRequest;
use keystead_kmip::response::Response;
use keystead_kmip::{Failure, Result, Tag, Version};
use zeroize::Zeroizing;

/// What an answer takes, as a multiple of the data: as it is worked on, as it is answered, and encoded.
const ANSWER: usize = 3;

/// How data is encrypted.
enum Mode {
    Cbc { padding: bool },
    Gcm,
}

pub async fn encrypt(context: &mut Context<'_>, unit: &mut Unit<'_>, request: &CipherRequest<'_>) -> Result<Response<'static>> {
    context.room.reserve(ANSWER * request.data.len()).await?;
    let id = context.id(request.id)?;
    let mut found = unit.find(id).await?;
    usable(context, &found, ENCRYPT, Tag::ProtectStopDate)?;
    let (mut parameters, random) = parameters(&found.object, request)?;
    if random {
        if parameters.random_iv == Some(false) {
            return Err(other("RandomIV"));
        }
        parameters.random_iv = Some(true);
    }
    let mode = mode(context.version, &parameters, request.additional_data)?;
    if request.iv.is_some() && parameters.random_iv == Some(true) {
        return Err(Failure::new(ResultReason::InvalidField, "IVCounterNonce and RandomIV exclude each other"));
    }
    crate::approved::check_iv(context.manager.fips(), request.iv.is_some())?;
    let made = if parameters.random_iv == Some(true) { Some(generate(iv_length(&mode))) } else { None };
    let iv = made.as_ref().map(|made| made.as_slice()).or(request.iv);
    let key = secret(unit, &found)?;
    let (data, tag) = match mode {
        Mode::Cbc { padding } => (aes_cbc_encrypt(&key, &exactly(iv)?, request.data, padding).map_err(|error| failed(&error))?, None),
        Mode::Gcm => {
            let (data, tag) = aes_gcm_encrypt(&key, &exactly(iv)?, request.additional_data, request.data).map_err(|error| failed(&error))?;
            (data, Some(tag.to_vec()))
        }
    };
    let changes = limits(&found.object).is_some();
    if let Some((_, counted)) = limits(&found.object) {
        let count = if counted == UsageLimitsUnit::Byte { i64::try_from(request.data.len()).unwrap_or(i64::MAX) } else { 1 };
        consume(&mut found.object, count)?;
        unit.change(found)?;
    }
    Ok(Response::Ciphered { id: id.to_string(), data, iv: made.map(|made| made.to_vec()), tag, changes })
}

pub async fn decrypt(context: &mut Context<'_>, unit: &mut Unit<'_>, request: &CipherRequest<'_>) -> Result<Response<'static>> {
    context.room.reserve(ANSWER * request.data.len()).await?;
    let id = context.id(request.id)?;
    let found = unit.find(id).await?;
    usable(context, &found, DECRYPT, Tag::ProcessStartDate)?;
    let (parameters, _) = parameters(&found.object, request)?;
    let key = secret(unit, &found)?;
    let mut data = match mode(context.version, &parameters, request.additional_data)? {
        Mode::Cbc { padding } => aes_cbc_decrypt(&key, &exactly(request.iv)?, request.data, padding).map_err(|error| failed(&error))?,
        Mode::Gcm => {
            let tag = request.tag.ok_or_else(|| Failure::new(ResultReason::MissingData, "AuthenticatedEncryptionTag is missing in RequestPayload"))?;
            let tag: &[u8; GCM_TAG] = tag.try_into().map_err(|_| unsupported("tags have 16 bytes"))?;
            aes_gcm_decrypt(&key, &exactly(request.iv)?, request.additional_data, request.data, tag).map_err(|error| failed(&error))?
        }
    };
    Ok(Response::Ciphered { id: id.to_string(), data: std::mem::take(&mut *data), iv: None, tag: None, changes: false })
}

pub async fn random(context: &mut Context<'_>, length: usize) -> Result<Response<'static>> {
    context.room.reserve(ANSWER * length).await?;
    // A client of a blocked SVM gets nothing of its key manager, not even chance.
    context.keys.usable().map_err(|error| failure(&error))?;
    Ok(Response::Random(std::mem::take(&mut *generate(length))))
}

/// Whether a key may be used now, for what the bit of the usage mask says (sections 3.19, 3.22, 3.25 and 3.26).
fn usable(context: &Context<'_>, found: &Found, bit: i32, date: Tag) -> Result<()> {
    let object = &found.object;
    let denied = |later, what: &str| Err(Failure::new(ResultReason::PermissionDenied, format!("the key {what}")).since_2(later));
    if found.is_destroyed() {
        return Err(destroyed(&object.id.to_string()));
    }
    if object.object_type() != ObjectType::SymmetricKey || object.enumeration(Tag::CryptographicAlgorithm) != Some(CryptographicAlgorithm::AES) {
        let failure = Failure::new(ResultReason::IllegalOperation, "only AES keys encrypt and decrypt here");
        return Err(failure.since_2(ResultReason::InvalidObjectType));
    }
    if object.integer(Tag::CryptographicUsageMask).unwrap_or(0) & (bit | UNRESTRICTED) == 0 {
        return denied(ResultReason::IncompatibleCryptographicUsageMask, "is not for that: its Cryptographic Usage Mask says so");
    }
    if object.state(context.now) != Some(State::Active) {
        return denied(ResultReason::WrongKeyLifecycleState, "is not active");
    }
    match (date, object.date(date)) {
        (Tag::ProtectStopDate, Some(stop)) if stop <= context.now => denied(ResultReason::WrongKeyLifecycleState, "is past its Protect Stop Date"),
        (Tag::ProcessStartDate, Some(start)) if start > context.now => denied(ResultReason::WrongKeyLifecycleState, "is before its Process Start Date"),
        _ => Ok(()),
    }
}

/// What the request says, and where it says nothing, the key; and whether the key wants its IVs made here.
///
/// The request chooses among what the key is for, where the key says so.
fn parameters(object: &Managed<'_>, request: &CipherRequest<'_>) -> Result<(CipherParameters, bool)> {
    let own = object.instances(&Identity::Known(Tag::CryptographicParameters), 0);
    let own = own.iter().map(|attribute| CipherParameters::from_value(&attribute.value)).collect::<Result<Vec<_>>>()?;
    let Some(chosen) = request.parameters.or_else(|| own.first().copied()) else {
        return Err(Failure::new(ResultReason::InvalidField, "neither the request nor the key has Cryptographic Parameters")
            .since_2(ResultReason::BadCryptographicParameters));
    };
    // What one of them leaves open, it permits. No padding is one of the paddings, and GCM has none.
    let padding = |parameters: &CipherParameters| parameters.padding.unwrap_or(PaddingMethod::None);
    let fits = |known: &&CipherParameters| {
        (known.mode.is_none() || chosen.mode.is_none() || known.mode == chosen.mode)
            && (known.padding.is_none() || chosen.mode == Some(BlockCipherMode::GCM) || padding(known) == padding(&chosen))
    };
    let fitting: Vec<&CipherParameters> = own.iter().filter(fits).collect();
    if fitting.is_empty() && !own.is_empty() {
        return Err(other("another mode or padding"));
    }
    Ok((chosen, fitting.iter().any(|known| known.random_iv == Some(true))))
}

fn other(what: &str) -> Failure {
    let failure = Failure::new(ResultReason::InvalidField, format!("the key's own Cryptographic Parameters want {what}"));
    failure.since_2(ResultReason::BadCryptographicParameters)
}

fn mode(version: Version, parameters: &CipherParameters, additional_data: &[u8]) -> Result<Mode> {
    if parameters.algorithm.is_some_and(|algorithm| algorithm != CryptographicAlgorithm::AES) {
        return Err(unsupported("the key is an AES key"));
    }
    match parameters.mode {
        Some(BlockCipherMode::CBC) if additional_data.is_empty() => match parameters.padding {
            None | Some(PaddingMethod::None) => Ok(Mode::Cbc { padding: false }),
            Some(PaddingMethod::PKCS5) => Ok(Mode::Cbc { padding: true }),
            Some(other) => Err(unsupported(&format!("the padding {} is not; take PKCS5 or None", other.name()))),
        },
        Some(BlockCipherMode::CBC) => Err(unsupported("CBC authenticates nothing; take GCM")),
        // The tag has a field of its own since 1.4.
        Some(BlockCipherMode::GCM) if version < Version::V1_4 => Err(unsupported(&format!("KMIP {version} has no place for GCM's tag"))),
        Some(BlockCipherMode::GCM) => {
            if parameters.tag_length.is_some_and(|length| length != 16) {
                return Err(unsupported("tags have 16 bytes"));
            }
            Ok(Mode::Gcm)
        }
        Some(other) => Err(unsupported(&format!("the mode {} is not; take GCM or CBC", other.name()))),
        None => Err(Failure::new(ResultReason::InvalidField, "BlockCipherMode is missing").since_2(ResultReason::BadCryptographicParameters)),
    }
}

fn iv_length(mode: &Mode) -> usize {
    match mode {
        Mode::Cbc { .. } => AES_BLOCK,
        Mode::Gcm => GCM_NONCE,
    }
}

/// The IV, of the length that the mode has.
fn exactly<const N: usize>(iv: Option<&[u8]>) -> Result<[u8; N]> {
    let iv = iv.ok_or_else(|| {
        Failure::new(ResultReason::InvalidMessage, "IVCounterNonce is missing, and no RandomIV is asked for").since_2(ResultReason::MissingInitializationVector)
    })?;
    iv.try_into().map_err(|_| unsupported(&format!("the IV has {N} bytes, not {}", iv.len())))
}

fn secret(unit: &Unit<'_>, found: &Found) -> Result<Zeroizing<Vec<u8>>> {
    let missing = || Failure::new(ResultReason::KeyValueNotPresent, "the key has no material");
    unit.secret(&crate::unit::Seen::Staged(found))?.ok_or_else(missing)
}

fn unsupported(what: &str) -> Failure {
    Failure::new(ResultReason::FeatureNotSupported, format!("not supported: {what}")).since_2(ResultReason::UnsupportedCryptographicParameters)
}

fn failed(error: &CipherError) -> Failure {
    let reason = match error {
        CipherError::Key | CipherError::Length => ResultReason::InvalidField,
        CipherError::Failed => ResultReason::CryptographicFailure,
    };
    Failure::new(reason, error.to_string())
}

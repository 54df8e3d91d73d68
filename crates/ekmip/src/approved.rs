//! FIPS mode, for managed objects: which algorithms and lengths it lets in. Nothing that is there already is taken away: data under an old key must stay readable, but that key gets no successor.

use crate::managed::Managed;
use keystead_kmip::enumeration::{CryptographicAlgorithm, Enumeration as _, ObjectType, ResultReason};
use keystead_kmip::{Failure, Result, Tag};
use uuid::Uuid;

/// Refuses an object that FIPS mode does not let in.
///
/// # Errors
/// Feature Not Supported: the request is well formed, and this server does not do it.
pub fn check(fips: bool, object: &Managed<'_>) -> Result<()> {
    match refusal(object).filter(|_| fips) {
        None => Ok(()),
        Some(why) => Err(Failure::new(ResultReason::FeatureNotSupported, format!("FIPS mode: {why}"))),
    }
}

/// Refuses an IV or nonce of the client's to encrypt with: SP 800-38D, section 8.2, wants that of GCM made where it is used; SP 800-38A, appendix C, wants that of CBC unpredictable, and of a client's
/// own nobody here can say that.
///
/// # Errors
/// As [`check`].
pub fn check_iv(fips: bool, given: bool) -> Result<()> {
    if !fips || !given {
        return Ok(());
    }
    let message = "FIPS mode: the IV is made by the server; ask for RandomIV in CryptographicParameters, and take the IVCounterNonce of the answer";
    Err(Failure::new(ResultReason::FeatureNotSupported, message))
}

/// What FIPS mode has against an object, from its stored attributes.
pub fn fips_refusal(attributes: &[u8]) -> Option<String> {
    let wanted = [Tag::ObjectType, Tag::CryptographicAlgorithm, Tag::CryptographicLength];
    refusal(&Managed::decode_some(Uuid::nil(), attributes, &wanted).ok()?)
}

/// Keys alone have an algorithm that they are used with. What secret data and opaque objects are for, nobody says.
fn refusal(object: &Managed<'_>) -> Option<String> {
    if matches!(object.object_type(), ObjectType::SecretData | ObjectType::OpaqueObject | ObjectType::Template) {
        return None;
    }
    let algorithm = object.enumeration::<CryptographicAlgorithm>(Tag::CryptographicAlgorithm)?;
    let bits = object.integer(Tag::CryptographicLength);
    if is_approved(algorithm, bits) {
        return None;
    }
    let bits = bits.map_or_else(String::new, |bits| format!(" with {bits} bits"));
    Some(format!("{}{bits} is not approved", algorithm.name()))
}

/// NIST SP 800-131A revision 2, without 3DES, which is disallowed since 2024; SP 800-38E for the two keys of AES-XTS in one.
fn is_approved(algorithm: CryptographicAlgorithm, bits: Option<i32>) -> bool {
    use CryptographicAlgorithm as A;
    let least = |least: i32| bits.is_some_and(|bits| bits >= least);
    match algorithm {
        A::AES => bits.is_some_and(|bits| matches!(bits, 128 | 192 | 256 | 512)),
        A::HMAC_SHA1
        | A::HMAC_SHA224
        | A::HMAC_SHA256
        | A::HMAC_SHA384
        | A::HMAC_SHA512
        | A::HMAC_SHA3_224
        | A::HMAC_SHA3_256
        | A::HMAC_SHA3_384
        | A::HMAC_SHA3_512 => least(112),
        A::RSA => least(2048),
        A::EC | A::ECDSA | A::ECDH => least(224),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fips_mode_lets_in() {
        use CryptographicAlgorithm as A;
        for (algorithm, bits) in [(A::AES, 128), (A::AES, 512), (A::HMAC_SHA256, 112), (A::RSA, 2048), (A::ECDSA, 256)] {
            assert!(is_approved(algorithm, Some(bits)), "{algorithm:?} {bits}");
        }
        for (algorithm, bits) in [(A::DES3, 168), (A::HMAC_SHA256, 104), (A::RSA, 1024), (A::ChaCha20, 256), (A::Camellia, 256), (A::RC4, 128)] {
            assert!(!is_approved(algorithm, Some(bits)), "{algorithm:?} {bits}");
        }
        assert!(!is_approved(A::AES, None));
    }
}

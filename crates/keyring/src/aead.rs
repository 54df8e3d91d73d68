//! AES-256-GCM with a random nonce: the one cipher of the hierarchy.
//!
//! NIST SP 800-38D, section 8.3, allows 2^32 invocations a key with random 96-bit nonces. A KEK version or seal key stays far below: it wraps at most
//! some millions of keys.

use crate::locked::LockedKey;
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use zeroize::Zeroizing;

/// How much longer a sealed text is than its plaintext: nonce and tag.
pub const OVERHEAD: usize = NONCE_LEN + 16;

/// The ciphertext does not belong to this key and this place, or it is damaged. GCM cannot say which.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the sealed data does not open: it is damaged, or sealed for another place or with another key")]
pub struct AeadError;

/// A key ready for use; the cipher's own copy is wiped by aws-lc when it is dropped.
pub(crate) struct Cipher(LessSafeKey);

impl Cipher {
    pub(crate) fn new(key: &LockedKey) -> Self {
        #[allow(clippy::expect_used)] // The length is a constant of the type.
        Self(LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key.expose()).expect("AES-256 takes 32 bytes")))
    }

    /// Nonce, ciphertext and tag, in this order.
    pub(crate) fn seal(&self, aad: &[u8], plaintext: &[u8]) -> Vec<u8> {
        let mut nonce = [0u8; NONCE_LEN];
        crate::fill_random(&mut nonce);
        let mut out = Vec::with_capacity(plaintext.len() + OVERHEAD);
        out.extend_from_slice(&nonce);
        out.extend_from_slice(plaintext);
        let (_, text) = out.split_at_mut(NONCE_LEN);
        #[allow(clippy::expect_used)] // Fails only over 2^36 bytes.
        let tag = self.0.seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(aad), text).expect("the plaintext is short");
        out.extend_from_slice(tag.as_ref());
        out
    }

    /// Opens what [`Cipher::seal`] made with the same `aad`.
    pub(crate) fn open(&self, aad: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, AeadError> {
        let (nonce, text) = sealed.split_at_checked(NONCE_LEN).ok_or(AeadError)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| AeadError)?;
        let mut text = Zeroizing::new(text.to_vec());
        let length = self.0.open_in_place(nonce, Aad::from(aad), &mut text).map_err(|_| AeadError)?.len();
        text.truncate(length);
        Ok(text)
    }
}

/// Joins parts into one AAD without ambiguity: each part is preceded by its length.
pub(crate) fn aad(parts: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::with_capacity(parts.iter().map(|part| part.len() + 8).sum());
    for part in parts {
        out.extend_from_slice(&(part.len() as u64).to_be_bytes());
        out.extend_from_slice(part);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_was_sealed_opens_only_whole_and_in_its_place(text in proptest::collection::vec(any::<u8>(), 0..300), place in "[a-z]{0,20}", at in any::<prop::sample::Index>()) {
            let cipher = Cipher::new(&LockedKey::generate());
            let sealed = cipher.seal(place.as_bytes(), &text);
            prop_assert_eq!(sealed.len(), text.len() + OVERHEAD);
            prop_assert_eq!(&*cipher.open(place.as_bytes(), &sealed).unwrap(), &text);
            let elsewhere = format!("{place}!");
            prop_assert!(cipher.open(elsewhere.as_bytes(), &sealed).is_err());
            let mut damaged = sealed.clone();
            damaged[at.index(sealed.len())] ^= 1;
            prop_assert!(cipher.open(place.as_bytes(), &damaged).is_err());
            prop_assert!(cipher.open(place.as_bytes(), &sealed[..at.index(sealed.len())]).is_err());
            prop_assert!(Cipher::new(&LockedKey::generate()).open(place.as_bytes(), &sealed).is_err());
        }

        #[test]
        fn parts_never_run_together(a in ".{0,8}", b in ".{0,8}", c in ".{0,8}", d in ".{0,8}") {
            prop_assume!((&a, &b) != (&c, &d));
            prop_assert_ne!(aad(&[a.as_bytes(), b.as_bytes()]), aad(&[c.as_bytes(), d.as_bytes()]));
        }
    }
}

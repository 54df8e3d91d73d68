//! The key encryption key of an SVM, in one version. The onboard key is of the same kind: its owner is the onboard key manager, and what it wraps are KEKs.

use crate::aead::{AeadError, Cipher, aad};
use crate::locked::{KEY_BYTES, LockedKey};
use aws_lc_rs::hmac;
use subtle::ConstantTimeEq;
use uuid::Uuid;
use zeroize::Zeroizing;

/// One version of an SVM's KEK. It never leaves the process but inside AWS's Encrypt, or wrapped by the onboard key; that one leaves it sealed.
pub struct Kek {
    svm: Uuid,
    version: u32,
    key: LockedKey,
    cipher: Cipher,
}

/// A key wrapped by a KEK: nonce, AES-256-GCM ciphertext, tag. The AAD binds the SVM, the key's identifier and the KEK's version, so that a wrapped key
/// put in another's place does not open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrappedKey(pub Vec<u8>);

/// 128 bits that tell whether AWS gave the right KEK back, and nothing about the KEK: HMAC-SHA-256 under it of a fixed text, the SVM and the version, cut.
/// Stored beside the wrapped KEK, since an AWS answer is not signed and a node that starts has nothing else to compare with.
#[derive(Debug, Clone, Copy)]
pub struct CheckValue(pub [u8; 16]);

impl PartialEq for CheckValue {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for CheckValue {}

impl Kek {
    /// Makes a new KEK.
    pub fn generate(svm: Uuid, version: u32) -> Self {
        Self::new(svm, version, LockedKey::generate())
    }

    /// Takes over what AWS decrypted, and wipes it. `None` where it is not 32 bytes long.
    pub fn take(svm: Uuid, version: u32, plaintext: &mut [u8]) -> Option<Self> {
        LockedKey::take(plaintext).map(|key| Self::new(svm, version, key))
    }

    fn new(svm: Uuid, version: u32, key: LockedKey) -> Self {
        let cipher = Cipher::new(&key);
        Self { svm, version, key, cipher }
    }

    /// The SVM that the KEK belongs to.
    pub fn svm(&self) -> Uuid {
        self.svm
    }

    /// The version, from 1.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// The key bytes: for AWS's Encrypt, and for wrapping by the onboard key manager, alone.
    pub fn expose(&self) -> &[u8; KEY_BYTES] {
        self.key.expose()
    }

    /// Compares with what AWS decrypted, in constant time.
    pub fn matches(&self, plaintext: &[u8]) -> bool {
        self.key.expose().as_slice().ct_eq(plaintext).into()
    }

    /// The value to store beside the wrapped KEK.
    pub fn check_value(&self) -> CheckValue {
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.key.expose());
        let tag = hmac::sign(&key, &aad(&[b"keystead kek check value", self.svm.as_bytes(), &self.version.to_be_bytes()]));
        let mut value = [0u8; 16];
        for (to, from) in value.iter_mut().zip(tag.as_ref()) {
            *to = *from;
        }
        CheckValue(value)
    }

    /// Wraps a key of the SVM.
    pub fn wrap(&self, key_id: &str, plaintext: &[u8]) -> WrappedKey {
        WrappedKey(self.cipher.seal(&self.place(key_id), plaintext))
    }

    /// Unwraps a key that this version wrapped for this identifier.
    ///
    /// # Errors
    /// [`AeadError`]: another KEK, another identifier, or damage.
    pub fn unwrap_key(&self, key_id: &str, wrapped: &[u8]) -> Result<Zeroizing<Vec<u8>>, AeadError> {
        self.cipher.open(&self.place(key_id), wrapped)
    }

    fn place(&self, key_id: &str) -> Vec<u8> {
        aad(&[b"keystead wrapped key", self.svm.as_bytes(), key_id.as_bytes(), &self.version.to_be_bytes()])
    }
}

impl std::fmt::Debug for Kek {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Kek(svm {}, version {}, …)", self.svm, self.version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn same_key(svm: Uuid, version: u32) -> Kek {
        Kek::take(svm, version, &mut [9u8; 32]).unwrap()
    }

    #[test]
    fn a_wrapped_key_opens_only_in_its_place() {
        let (a, b) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let wrapped = same_key(a, 1).wrap("key-1", b"volume key");
        assert_eq!(&*same_key(a, 1).unwrap_key("key-1", &wrapped.0).unwrap(), b"volume key");
        assert!(same_key(a, 1).unwrap_key("key-2", &wrapped.0).is_err(), "another key's place");
        assert!(same_key(a, 2).unwrap_key("key-1", &wrapped.0).is_err(), "another version");
        assert!(same_key(b, 1).unwrap_key("key-1", &wrapped.0).is_err(), "another SVM");
    }

    #[test]
    fn the_check_value_tells_keks_apart() {
        let svm = Uuid::from_u128(1);
        assert_eq!(same_key(svm, 1).check_value(), same_key(svm, 1).check_value());
        assert_ne!(same_key(svm, 1).check_value(), same_key(svm, 2).check_value());
        assert_ne!(same_key(svm, 1).check_value(), Kek::generate(svm, 1).check_value());
    }

    #[test]
    fn matches_compares_the_whole_key() {
        let kek = same_key(Uuid::nil(), 1);
        assert!(kek.matches(&[9u8; 32]));
        assert!(!kek.matches(&[9u8; 31]));
        assert!(!kek.matches(&[8u8; 32]));
    }

    #[test]
    fn debug_shows_no_bytes() {
        assert_eq!(format!("{:?}", same_key(Uuid::nil(), 3)), "Kek(svm 00000000-0000-0000-0000-000000000000, version 3, …)");
    }
}

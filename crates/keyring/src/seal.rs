//! The seal key: what keeps secrets unreadable in the store.

use crate::aead::{AeadError, Cipher, aad};
use crate::locked::LockedKey;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// A node's seal key. The same on every node of a cluster.
pub struct SealKey {
    key: LockedKey,
    cipher: Cipher,
}

/// A sealed secret: nonce, AES-256-GCM ciphertext, tag. The AAD is the name of the record and field that it was sealed for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed(pub Vec<u8>);

impl SealKey {
    /// Makes a new seal key.
    pub fn generate() -> Self {
        Self::new(LockedKey::generate())
    }

    /// Takes over 32 bytes and wipes the source. `None` for another length.
    pub fn take(source: &mut [u8]) -> Option<Self> {
        LockedKey::take(source).map(Self::new)
    }

    fn new(key: LockedKey) -> Self {
        let cipher = Cipher::new(&key);
        Self { key, cipher }
    }

    /// Seals `secret` for `place`, the name of the record and field that will hold it.
    pub fn seal(&self, place: &str, secret: &[u8]) -> Sealed {
        Sealed(self.cipher.seal(&aad(&[b"keystead sealed secret", place.as_bytes()]), secret))
    }

    /// Opens what was sealed for the same place.
    ///
    /// # Errors
    /// [`AeadError`]: another seal key, another place, or damage.
    pub fn open(&self, place: &str, sealed: &Sealed) -> Result<Zeroizing<Vec<u8>>, AeadError> {
        self.cipher.open(&aad(&[b"keystead sealed secret", place.as_bytes()]), &sealed.0)
    }

    /// Whether `bytes` are this key, in constant time.
    pub fn matches(&self, bytes: &[u8]) -> bool {
        self.key.expose().as_slice().ct_eq(bytes).into()
    }

    /// The key bytes, to write a new seal key to the place that the operator chose.
    pub fn expose(&self) -> &[u8; crate::KEY_BYTES] {
        self.key.expose()
    }

    /// Whether the memory is locked against swapping.
    pub fn is_locked(&self) -> bool {
        self.key.is_locked()
    }
}

impl std::fmt::Debug for SealKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SealKey(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_opens_only_in_its_place_and_with_its_key() {
        let key = SealKey::generate();
        let sealed = key.seal("/aws-kms/1#secret", b"s3cret");
        assert_eq!(&*key.open("/aws-kms/1#secret", &sealed).unwrap(), b"s3cret");
        assert!(key.open("/aws-kms/2#secret", &sealed).is_err());
        assert!(SealKey::generate().open("/aws-kms/1#secret", &sealed).is_err());
    }

    #[test]
    fn the_sealed_text_holds_no_plaintext() {
        let sealed = SealKey::generate().seal("x", b"a secret that is easy to see");
        assert!(!sealed.0.windows(8).any(|window| window == b"a secret"));
    }
}

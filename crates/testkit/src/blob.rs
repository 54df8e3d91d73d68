//! Ciphertext blobs of the stand-in: real AES-256-GCM, bound to the key, its material and the encryption context.
//!
//! Layout: version (1 byte), key tag (16: SHA-256 of the key id, cut), material id (32), nonce (12), ciphertext with its tag. Everything before the nonce,
//! and the context, is additional authenticated data, so that no part can be changed.

use std::collections::BTreeMap;
use std::sync::Arc;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::rand;

use crate::sigv4::sha256;

/// An encryption context: the order of its members means nothing.
pub type Context = BTreeMap<String, String>;

const VERSION: u8 = 1;
const TAG_LEN: usize = 16;
const MATERIAL_ID_LEN: usize = 32;
const HEADER_LEN: usize = 1 + TAG_LEN + MATERIAL_ID_LEN;

/// One generation of a customer key's material. Rotation adds one; the old ones stay, to decrypt.
#[derive(Clone)]
pub struct Material {
    id: [u8; MATERIAL_ID_LEN],
    key: Arc<LessSafeKey>,
}

impl Material {
    /// Makes fresh material.
    ///
    /// # Errors
    /// The system's random source failed.
    pub fn generate() -> Result<Self, String> {
        let mut bytes = [0u8; 32];
        rand::fill(&mut bytes).map_err(|_| "the random source failed")?;
        let key = UnboundKey::new(&AES_256_GCM, &bytes).map_err(|_| "AES-256-GCM refused a 32-byte key")?;
        let mut id = [0u8; MATERIAL_ID_LEN];
        rand::fill(&mut id).map_err(|_| "the random source failed")?;
        Ok(Self { id, key: Arc::new(LessSafeKey::new(key)) })
    }

    /// The key material id as AWS prints it: 64 hex digits.
    #[must_use]
    pub fn id(&self) -> String {
        crate::sigv4::hex(&self.id)
    }

    /// Encrypts `plaintext` for the key `key_id` under `context`.
    ///
    /// # Errors
    /// The random source failed.
    pub fn seal(&self, key_id: &str, context: &Context, plaintext: &[u8]) -> Result<Vec<u8>, String> {
        let mut nonce = [0u8; NONCE_LEN];
        rand::fill(&mut nonce).map_err(|_| "the random source failed")?;
        let mut blob = vec![VERSION];
        blob.extend(key_tag(key_id));
        blob.extend(self.id);
        let aad = Aad::from(aad(&blob, context));
        let mut sealed = plaintext.to_vec();
        self.key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), aad, &mut sealed).map_err(|_| "AES-256-GCM failed")?;
        blob.extend(nonce);
        blob.extend(sealed);
        Ok(blob)
    }

    fn open(&self, header: &[u8], nonce: [u8; NONCE_LEN], sealed: &[u8], context: &Context) -> Option<Vec<u8>> {
        let mut buffer = sealed.to_vec();
        let aad = Aad::from(aad(header, context));
        let plain = self.key.open_in_place(Nonce::assume_unique_for_key(nonce), aad, &mut buffer).ok()?;
        Some(plain.to_vec())
    }
}

impl std::fmt::Debug for Material {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Material").field("id", &self.id()).finish_non_exhaustive()
    }
}

/// A blob taken apart; nothing in it is proven yet.
#[derive(Debug)]
pub struct Blob<'a> {
    header: &'a [u8],
    tag: &'a [u8],
    material: &'a [u8],
    nonce: [u8; NONCE_LEN],
    sealed: &'a [u8],
}

impl<'a> Blob<'a> {
    /// Takes a blob apart; `None` when it cannot be one of the stand-in's.
    #[must_use]
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (header, rest) = bytes.split_at_checked(HEADER_LEN)?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>()?;
        let (version, ids) = header.split_first()?;
        let (tag, material) = ids.split_at_checked(TAG_LEN)?;
        (*version == VERSION).then_some(Self { header, tag, material, nonce: *nonce, sealed })
    }

    /// Whether the blob says that the key `key_id` made it.
    #[must_use]
    pub fn made_by(&self, key_id: &str) -> bool {
        self.tag == key_tag(key_id)
    }

    /// Decrypts with the material that made the blob; the plaintext and the material's id, or `None` when the blob or the context is another.
    #[must_use]
    pub fn open(&self, materials: &[Material], context: &Context) -> Option<(Vec<u8>, String)> {
        let material = materials.iter().find(|m| m.id == self.material)?;
        Some((material.open(self.header, self.nonce, self.sealed, context)?, material.id()))
    }
}

fn key_tag(key_id: &str) -> Vec<u8> {
    sha256(key_id.as_bytes()).as_ref().iter().take(TAG_LEN).copied().collect()
}

/// Header and context, each string behind its length, so that no two contexts read alike.
fn aad(header: &[u8], context: &Context) -> Vec<u8> {
    let mut out = header.to_vec();
    for text in context.iter().flat_map(|(k, v)| [k, v]) {
        out.extend((text.len() as u64).to_be_bytes());
        out.extend(text.as_bytes());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context(pairs: &[(&str, &str)]) -> Context {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn only_the_same_key_material_and_context_open_a_blob() {
        let (material, other) = (Material::generate().unwrap(), Material::generate().unwrap());
        let made = material.seal("k1", &context(&[("a", "b")]), b"secret").unwrap();
        let blob = Blob::parse(&made).unwrap();
        assert!(blob.made_by("k1") && !blob.made_by("k2"));
        let materials = [other.clone(), material.clone()];
        assert_eq!(blob.open(&materials, &context(&[("a", "b")])).unwrap(), (b"secret".to_vec(), material.id()));
        assert_eq!(blob.open(&materials, &context(&[("ab", "")])), None);
        assert_eq!(blob.open(&materials, &context(&[])), None);
        assert_eq!(blob.open(&[other], &context(&[("a", "b")])), None);
    }

    #[test]
    fn every_byte_counts() {
        let material = Material::generate().unwrap();
        let made = material.seal("k1", &context(&[]), b"secret").unwrap();
        for at in 0..made.len() {
            let mut bad = made.clone();
            bad[at] ^= 1;
            let opened = Blob::parse(&bad).and_then(|b| b.open(std::slice::from_ref(&material), &context(&[])));
            assert_eq!(opened, None, "byte {at}");
        }
        assert!(Blob::parse(&made[..HEADER_LEN]).is_none());
    }
}

//! Encrypting and decrypting with a client's key (KMIP's Encrypt and Decrypt): AES in CBC and in GCM. The caller owns the key, and wipes it.

use aws_lc_rs::aead::{AES_128_GCM, AES_192_GCM, AES_256_GCM, Aad, LessSafeKey, MAX_TAG_LEN, Nonce, UnboundKey};
use aws_lc_rs::cipher::{
    AES_128, AES_192, AES_256, Algorithm, DecryptingKey, DecryptionContext, EncryptingKey, EncryptionContext, PaddedBlockDecryptingKey,
    PaddedBlockEncryptingKey, UnboundCipherKey,
};
use aws_lc_rs::iv::FixedLength;
use zeroize::Zeroizing;

/// Bytes of a block, and of the IV of CBC.
pub const AES_BLOCK: usize = 16;
/// Bytes of the nonce of GCM.
pub const GCM_NONCE: usize = 12;
/// Bytes of the tag of GCM.
pub const GCM_TAG: usize = MAX_TAG_LEN;

/// Why data was not encrypted or decrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CipherError {
    /// No AES key.
    #[error("an AES key must have 128, 192 or 256 bits")]
    Key,
    /// Without padding, CBC takes whole blocks.
    #[error("without padding, CBC takes a multiple of 16 bytes")]
    Length,
    /// The padding or the tag is wrong: this is not what was encrypted with that key. Nothing more is said, since it would help who tries.
    #[error("the data does not decrypt with this key")]
    Failed,
}

/// AES-CBC (NIST SP 800-38A), with PKCS#7 padding (which KMIP calls PKCS5) or without any.
///
/// # Errors
/// [`CipherError::Key`] and [`CipherError::Length`].
pub fn aes_cbc_encrypt(key: &[u8], iv: &[u8; AES_BLOCK], data: &[u8], padding: bool) -> Result<Vec<u8>, CipherError> {
    let key = unbound(key)?;
    let context = EncryptionContext::Iv128(FixedLength::from(iv));
    let mut out = data.to_vec();
    if padding {
        let key = PaddedBlockEncryptingKey::cbc_pkcs7(key).map_err(|_| CipherError::Key)?;
        key.less_safe_encrypt(&mut out, context).map_err(|_| CipherError::Failed)?;
        return Ok(out);
    }
    if !data.len().is_multiple_of(AES_BLOCK) {
        return Err(CipherError::Length);
    }
    let key = EncryptingKey::cbc(key).map_err(|_| CipherError::Key)?;
    key.less_safe_encrypt(&mut out, context).map_err(|_| CipherError::Failed)?;
    Ok(out)
}

/// The reverse of [`aes_cbc_encrypt`].
///
/// # Errors
/// [`CipherError`].
pub fn aes_cbc_decrypt(key: &[u8], iv: &[u8; AES_BLOCK], data: &[u8], padding: bool) -> Result<Zeroizing<Vec<u8>>, CipherError> {
    let key = unbound(key)?;
    if !data.len().is_multiple_of(AES_BLOCK) {
        return Err(CipherError::Length);
    }
    let context = DecryptionContext::Iv128(FixedLength::from(iv));
    let mut out = Zeroizing::new(data.to_vec());
    let length = if padding {
        let key = PaddedBlockDecryptingKey::cbc_pkcs7(key).map_err(|_| CipherError::Key)?;
        key.decrypt(&mut out, context).map_err(|_| CipherError::Failed)?.len()
    } else {
        let key = DecryptingKey::cbc(key).map_err(|_| CipherError::Key)?;
        key.decrypt(&mut out, context).map_err(|_| CipherError::Failed)?.len()
    };
    out.truncate(length);
    Ok(out)
}

/// AES-GCM (NIST SP 800-38D): the encrypted data and the tag of 128 bits.
///
/// # Errors
/// [`CipherError::Key`].
pub fn aes_gcm_encrypt(key: &[u8], nonce: &[u8; GCM_NONCE], additional: &[u8], data: &[u8]) -> Result<(Vec<u8>, [u8; GCM_TAG]), CipherError> {
    let key = gcm(key)?;
    let mut out = data.to_vec();
    let tag = key.seal_in_place_separate_tag(Nonce::assume_unique_for_key(*nonce), Aad::from(additional), &mut out).map_err(|_| CipherError::Failed)?;
    Ok((out, tag.as_ref().try_into().map_err(|_| CipherError::Failed)?))
}

/// The reverse of [`aes_gcm_encrypt`].
///
/// # Errors
/// [`CipherError`].
pub fn aes_gcm_decrypt(key: &[u8], nonce: &[u8; GCM_NONCE], additional: &[u8], data: &[u8], tag: &[u8; GCM_TAG]) -> Result<Zeroizing<Vec<u8>>, CipherError> {
    let key = gcm(key)?;
    let mut out = Zeroizing::new(Vec::with_capacity(data.len() + GCM_TAG));
    out.extend_from_slice(data);
    out.extend_from_slice(tag);
    let length = key.open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(additional), &mut out).map_err(|_| CipherError::Failed)?.len();
    out.truncate(length);
    Ok(out)
}

fn unbound(key: &[u8]) -> Result<UnboundCipherKey, CipherError> {
    let algorithm: &'static Algorithm = match key.len() {
        16 => &AES_128,
        24 => &AES_192,
        32 => &AES_256,
        _ => return Err(CipherError::Key),
    };
    UnboundCipherKey::new(algorithm, key).map_err(|_| CipherError::Key)
}

fn gcm(key: &[u8]) -> Result<LessSafeKey, CipherError> {
    let algorithm = match key.len() {
        16 => &AES_128_GCM,
        24 => &AES_192_GCM,
        32 => &AES_256_GCM,
        _ => return Err(CipherError::Key),
    };
    UnboundKey::new(algorithm, key).map(LessSafeKey::new).map_err(|_| CipherError::Key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        (0..text.len() / 2).map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap()).collect()
    }

    /// NIST SP 800-38A, section F.2.5: CBC-AES256, the first two blocks.
    #[test]
    fn the_vector_of_sp_800_38a() {
        let key = hex("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4");
        let iv: [u8; 16] = hex("000102030405060708090a0b0c0d0e0f").try_into().unwrap();
        let plain = hex("6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51");
        let encrypted = hex("f58c4c04d6e5f1ba779eabfb5f7bfbd69cfc4e967edb808d679f777bc6702c7d");
        assert_eq!(aes_cbc_encrypt(&key, &iv, &plain, false).unwrap(), encrypted);
        assert_eq!(*aes_cbc_decrypt(&key, &iv, &encrypted, false).unwrap(), plain);
        let padded = aes_cbc_encrypt(&key, &iv, &plain[..21], true).unwrap();
        assert_eq!(*aes_cbc_decrypt(&key, &iv, &padded, true).unwrap(), plain[..21]);
        assert_eq!(aes_cbc_encrypt(&key, &iv, &plain[..21], false), Err(CipherError::Length));
        assert_eq!(aes_cbc_encrypt(&key[..20], &iv, &plain, false), Err(CipherError::Key));
        assert_eq!(aes_cbc_decrypt(&key, &iv, &encrypted[..17], true), Err(CipherError::Length));
    }

    /// The GCM specification (McGrew and Viega), test case 4.
    #[test]
    fn the_vector_of_gcm() {
        let key = hex("feffe9928665731c6d6a8f9467308308");
        let nonce: [u8; 12] = hex("cafebabefacedbaddecaf888").try_into().unwrap();
        let additional = hex("feedfacedeadbeeffeedfacedeadbeefabaddad2");
        let plain = hex("d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39");
        let (encrypted, tag) = aes_gcm_encrypt(&key, &nonce, &additional, &plain).unwrap();
        assert_eq!(tag.to_vec(), hex("5bc94fbc3221a5db94fae95ae7121a47"));
        assert_eq!(*aes_gcm_decrypt(&key, &nonce, &additional, &encrypted, &tag).unwrap(), plain);
        for (additional, tag) in [(&additional[1..], tag), (&additional[..], [0; 16])] {
            assert_eq!(aes_gcm_decrypt(&key, &nonce, additional, &encrypted, &tag), Err(CipherError::Failed));
        }
    }
}

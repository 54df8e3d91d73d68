//! Key material for the data plane: making it, its digest, and wrapping it with another key of the client's (KMIP's Get with a Key Wrapping Specification).

use aws_lc_rs::digest;
use aws_lc_rs::key_wrap::{AES_128, AES_256, AesKek, KeyWrap as _, KeyWrapPadded as _};
use zeroize::Zeroizing;

/// Makes random key material of that many bytes.
pub fn generate(bytes: usize) -> Zeroizing<Vec<u8>> {
    let mut material = Zeroizing::new(vec![0; bytes]);
    crate::fill_random(&mut material);
    material
}

/// SHA-256.
pub fn sha256(material: &[u8]) -> Vec<u8> {
    digest::digest(&digest::SHA256, material).as_ref().to_vec()
}

/// Why a key does not wrap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyWrapError {
    /// Neither AES-128 nor AES-256.
    #[error("a wrapping key must have 128 or 256 bits")]
    WrappingKey,
    /// RFC 3394 takes multiples of 8 bytes, 16 at least.
    #[error("AES key wrap takes a multiple of 8 bytes, 16 at least; take AES key wrap with padding")]
    Length,
}

/// AES key wrap (RFC 3394; NIST SP 800-38F, KW) or, with `padding`, AES key wrap with padding (RFC 5649; KWP).
///
/// # Errors
/// [`KeyWrapError`].
pub fn aes_key_wrap(wrapping_key: &[u8], material: &[u8], padding: bool) -> Result<Vec<u8>, KeyWrapError> {
    let cipher = match wrapping_key.len() {
        16 => &AES_128,
        32 => &AES_256,
        _ => return Err(KeyWrapError::WrappingKey),
    };
    let kek = || AesKek::new(cipher, wrapping_key).map_err(|_| KeyWrapError::WrappingKey);
    let mut out = vec![0; material.len() + 16];
    let length = match padding {
        true => kek()?.wrap_with_padding(material, &mut out).map(|wrapped| wrapped.len()),
        false => kek()?.wrap(material, &mut out).map(|wrapped| wrapped.len()),
    };
    out.truncate(length.map_err(|_| KeyWrapError::Length)?);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        (0..text.len() / 2).map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap()).collect()
    }

    /// RFC 3394, section 4.6: 256 bits of key data with a 256-bit KEK. RFC 5649, section 6, has vectors for 192-bit KEKs only.
    #[test]
    fn the_vector_of_rfc_3394() {
        let kek = hex("000102030405060708090A0B0C0D0E0F101112131415161718191A1B1C1D1E1F");
        let material = hex("00112233445566778899AABBCCDDEEFF000102030405060708090A0B0C0D0E0F");
        let wrapped = hex("28C9F404C4B810F4CBCCB35CFB87F8263F5786E2D80ED326CBC7F0E71A99F43BFB988B9B7A02DD21");
        assert_eq!(aes_key_wrap(&kek, &material, false).unwrap(), wrapped);
    }

    #[test]
    fn padding_takes_any_length_and_its_absence_does_not() {
        let kek = [7; 32];
        assert_eq!(aes_key_wrap(&kek, b"nine byte", false), Err(KeyWrapError::Length));
        assert_eq!(aes_key_wrap(&kek, b"nine byte", true).unwrap().len(), 24);
        assert_eq!(aes_key_wrap(&[7; 24], &[0; 16], false), Err(KeyWrapError::WrappingKey));
    }

    #[test]
    fn material_is_random() {
        assert_ne!(*generate(32), *generate(32));
        assert_eq!(generate(24).len(), 24);
    }
}

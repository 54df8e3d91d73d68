//! Sealing by a passphrase: argon2id gives a key, and that seals.

use crate::records::{Base64, Recovery};
use argon2::{Algorithm, Argon2, Params, Version};
use keystead_keyring::{KEY_BYTES, SealKey, Sealed, material};
use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

/// argon2id: RFC 9106, section 4, second recommended option (64 MiB, 3 passes, 4 lanes). It runs when an administrator asks for it, never at a start.
const COST: (u32, u32, u32) = (64 * 1024, 3, 4);
/// What a record may ask of this machine at the most: what is read decides how much memory a passphrase takes.
const MOST_COST: (u32, u32, u32) = (1024 * 1024, 100, 64);
const SALT: usize = 16;

/// Why something is not opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NotOpened {
    /// Another passphrase has sealed it, or it was changed since.
    Wrong,
    /// It cannot be tried.
    Failed(String),
}

/// Seals a secret for a place. Takes a tenth of a second of one core, and 64 MiB: call it where that may block.
///
/// # Errors
/// The memory cannot be had.
pub(crate) fn seal(place: &str, secret: &[u8], passphrase: &SecretString) -> Result<Recovery, String> {
    let salt = material::generate(SALT).to_vec();
    let sealed = derive(passphrase, &salt, COST)?.seal(place, secret);
    Ok(Recovery { salt: Base64(salt), memory: COST.0, passes: COST.1, lanes: COST.2, sealed: Base64(sealed.0) })
}

/// Opens it; as costly.
///
/// # Errors
/// [`NotOpened`].
pub(crate) fn open(place: &str, sealed: &Recovery, passphrase: &SecretString) -> Result<Zeroizing<Vec<u8>>, NotOpened> {
    let derived = derive(passphrase, &sealed.salt.0, (sealed.memory, sealed.passes, sealed.lanes)).map_err(NotOpened::Failed)?;
    derived.open(place, &Sealed(sealed.sealed.0.clone())).map_err(|_| NotOpened::Wrong)
}

fn derive(passphrase: &SecretString, salt: &[u8], cost: (u32, u32, u32)) -> Result<SealKey, String> {
    if cost.0 > MOST_COST.0 || cost.1 > MOST_COST.1 || cost.2 > MOST_COST.2 {
        return Err(format!("it asks for argon2id with {} KiB, {} passes and {} lanes, more than is ever used", cost.0, cost.1, cost.2));
    }
    let params = Params::new(cost.0, cost.1, cost.2, Some(KEY_BYTES)).map_err(|error| error.to_string())?;
    let mut out = Zeroizing::new([0u8; KEY_BYTES]);
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(passphrase.expose_secret().as_bytes(), salt, out.as_mut_slice())
        .map_err(|error| error.to_string())?;
    SealKey::take(out.as_mut_slice()).ok_or_else(|| "a key of another length".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_passphrase_opens_it_and_only_for_its_place() {
        let passphrase = SecretString::from("a passphrase of a good length, with spaces");
        let sealed = seal("here", b"secret", &passphrase).unwrap();
        assert_eq!(open("here", &sealed, &passphrase).unwrap().as_slice(), b"secret");
        assert_eq!(open("there", &sealed, &passphrase).unwrap_err(), NotOpened::Wrong);
        assert_eq!(open("here", &sealed, &SecretString::from("another")).unwrap_err(), NotOpened::Wrong);
        let greedy = Recovery { memory: u32::MAX, ..sealed };
        assert!(matches!(open("here", &greedy, &passphrase), Err(NotOpened::Failed(_))));
    }
}

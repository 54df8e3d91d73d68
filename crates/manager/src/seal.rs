//! Sealing secrets for the store.

use crate::records::Base64;
use crate::{Code, Error, Result};
use async_trait::async_trait;
use keystead_keyring::{SealKey, Sealed};
use secrecy::SecretString;
use std::sync::Arc;
use zeroize::Zeroizing;

/// Where the seal key comes from: a file, a systemd credential, a command.
#[async_trait]
pub trait SealSource: Send + Sync + 'static {
    /// Reads the key anew. The error says, for an operator, what failed and where; it holds nothing of the key.
    async fn fetch(&self) -> std::result::Result<Zeroizing<Vec<u8>>, String>;

    /// Where the key comes from, in words.
    fn describe(&self) -> String;
}

/// The seal key in memory, and the place that it came from.
pub struct Seal {
    key: SealKey,
    source: Arc<dyn SealSource>,
}

impl Seal {
    /// Reads the key for the first time.
    ///
    /// # Errors
    /// The source fails, or does not give 32 bytes.
    pub async fn open(source: Arc<dyn SealSource>) -> std::result::Result<Self, String> {
        let mut bytes = source.fetch().await?;
        let length = bytes.len();
        let key = SealKey::take(&mut bytes)
            .ok_or_else(|| format!("{} gives {length} bytes, but a seal key has {}", source.describe(), keystead_keyring::KEY_BYTES))?;
        Ok(Self { key, source })
    }

    /// Seals a secret for a place.
    pub fn seal(&self, place: &str, secret: &[u8]) -> Base64 {
        Base64(self.key.seal(place, secret).0)
    }

    /// Opens a secret that is text.
    ///
    /// # Errors
    /// Unexpected: it was sealed with another key or for another place, or it is damaged.
    pub fn open_text(&self, place: &str, sealed: &Base64) -> Result<SecretString> {
        let bytes = self.open_bytes(place, sealed)?;
        let text = std::str::from_utf8(&bytes).map_err(|_| Error::unexpected(format!("what is sealed for {place} is not text")))?;
        Ok(SecretString::from(text))
    }

    /// Opens a secret.
    ///
    /// # Errors
    /// As [`Seal::open_text`].
    pub fn open_bytes(&self, place: &str, sealed: &Base64) -> Result<Zeroizing<Vec<u8>>> {
        self.key.open(place, &Sealed(sealed.0.clone())).map_err(|error| Error::unexpected(format!("{place}: {error}")))
    }

    /// Proves that the source still gives this key. Done before a secret is acknowledged as stored: under a key that the next start cannot get, it would be lost.
    ///
    /// # Errors
    /// 65537906: the source fails, or gives another key.
    pub async fn prove(&self) -> Result<()> {
        let bytes = self.source.fetch().await.map_err(|why| Error::with(Code::StoreSecretFailed, why))?;
        if self.key.matches(&bytes) {
            return Ok(());
        }
        Err(Error::with(
            Code::StoreSecretFailed,
            format!("{} now gives another seal key than at the start of this node; put the old one back", self.source.describe()),
        ))
    }
}

//! Sealing secrets for the store.
//!
//! The source of the seal key gives more than one while the seal key is being replaced (`jobs::rotate_seal`): what is sealed opens with any of them, and new secrets are sealed with the one that the
//! cluster's record names, by a known text that was sealed with it.

use crate::cluster::is_sealed_with;
use crate::inner::Inner;
use crate::records::{Base64, ClusterRecord};
use crate::{Code, Error, Result};
use async_trait::async_trait;
use keystead_keyring::{KEY_BYTES, SealKey, Sealed};
use secrecy::SecretString;
use std::sync::{Arc, PoisonError, RwLock};
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

/// How many seal keys a source may give.
pub const MOST_SEAL_KEYS: usize = 3;

/// Where the seal key comes from: a file, a systemd credential, a command.
#[async_trait]
pub trait SealSource: Send + Sync + 'static {
    /// Reads the key anew: 32 bytes, or the bytes of up to [`MOST_SEAL_KEYS`] keys one after the other. The error says, for an operator, what failed and where; it holds nothing of the key.
    async fn fetch(&self) -> std::result::Result<Zeroizing<Vec<u8>>, String>;

    /// Where the key comes from, in words.
    fn describe(&self) -> String;
}

/// The seal keys in memory, and the place that they came from.
pub struct Seal {
    keys: RwLock<Keys>,
    source: Arc<dyn SealSource>,
}

#[derive(Clone)]
struct Keys {
    /// What secrets are sealed with.
    current: Arc<SealKey>,
    /// What else they open with.
    others: Vec<Arc<SealKey>>,
}

impl Keys {
    fn all(&self) -> impl Iterator<Item = &Arc<SealKey>> {
        std::iter::once(&self.current).chain(&self.others)
    }
}

impl Seal {
    /// Reads the key for the first time.
    ///
    /// # Errors
    /// The source fails, or does not give keys of 32 bytes.
    pub async fn open(source: Arc<dyn SealSource>) -> std::result::Result<Self, String> {
        let mut others = read(&*source).await?;
        let current = others.remove(0);
        crate::unlocked::warn();
        Ok(Self { keys: RwLock::new(Keys { current, others }), source })
    }

    /// Seals a secret for a place.
    pub fn seal(&self, place: &str, secret: &[u8]) -> Base64 {
        seal_with(&self.keys().current, place, secret)
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
        let (sealed, keys) = (Sealed(sealed.0.clone()), self.keys());
        let with_another = |error| keys.others.iter().find_map(|key| key.open(place, &sealed).ok()).ok_or(error);
        keys.current.open(place, &sealed).or_else(with_another).map_err(|error| Error::unexpected(format!("{place}: {error}")))
    }

    /// Proves that the source still gives this key. Done before a secret is acknowledged as stored: under a key that the next start cannot get, it would be lost.
    ///
    /// # Errors
    /// 65537906: the source fails, or gives another key.
    pub async fn prove(&self) -> Result<()> {
        let bytes = self.source.fetch().await.map_err(|why| Error::with(Code::StoreSecretFailed, why))?;
        let current = self.keys().current;
        if bytes.chunks_exact(KEY_BYTES).any(|bytes| current.matches(bytes)) {
            return Ok(());
        }
        Err(Error::with(
            Code::StoreSecretFailed,
            format!("{} now gives another seal key than at the start of this node; put the old one back", self.source.describe()),
        ))
    }

    /// Seals with the key that has sealed the cluster's known text from now on. Answers whether it is one of those in memory.
    pub fn choose(&self, seal_check: &Base64) -> bool {
        let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        if is_sealed_with(&keys.current, seal_check) {
            return true;
        }
        let Some(place) = keys.others.iter().position(|key| is_sealed_with(key, seal_check)) else { return false };
        let Keys { current, others } = &mut *keys;
        if let Some(key) = others.get_mut(place) {
            std::mem::swap(current, key);
        }
        true
    }

    /// Whether the key that has sealed this known text is in memory.
    pub fn has(&self, seal_check: &Base64) -> bool {
        self.keys().all().any(|key| is_sealed_with(key, seal_check))
    }

    /// Reads the source again, and takes over what it gives. Those that it gives no more stay until the next start: what is sealed with them must open.
    ///
    /// # Errors
    /// The source fails.
    pub async fn read_again(&self) -> std::result::Result<(), String> {
        let read = read(&*self.source).await?;
        let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        for key in read {
            if !keys.all().any(|known| known.matches(key.expose())) {
                keys.others.push(key);
            }
        }
        Ok(())
    }

    /// The last of the keys that the source gives, where it gives more than one: what the seal key is to be replaced by, or has been already.
    ///
    /// # Errors
    /// 65537906 the source fails; 8 it gives no other.
    pub async fn next(&self) -> Result<Arc<SealKey>> {
        let failed = |why: String| Error::with(Code::StoreSecretFailed, why);
        let mut read = read(&*self.source).await.map_err(failed)?;
        let next = read.pop().filter(|_| !read.is_empty());
        self.read_again().await.map_err(failed)?;
        next.ok_or_else(|| {
            let why = format!("{} gives no key beside that; add the new one as a second line, on every node, then start again", self.source.describe());
            Error::with(Code::InUse, why)
        })
    }

    fn keys(&self) -> Keys {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Seals with a given key.
pub(crate) fn seal_with(key: &SealKey, place: &str, secret: &[u8]) -> Base64 {
    Base64(key.seal(place, secret).0)
}

/// Follows the cluster's record: another node may have replaced the seal key.
pub(crate) async fn follow(inner: Arc<Inner>, stop: CancellationToken) {
    let mut changes = inner.view.changes();
    let mut missing = false;
    loop {
        if let Ok(cluster) = inner.view.only::<ClusterRecord>() {
            let check = &cluster.record.seal_check;
            let known = inner.seal.choose(check) || (inner.seal.read_again().await.is_ok() && inner.seal.choose(check));
            if !known && !missing {
                tracing::error!(
                    "the seal key was replaced, and the source of this node's does not give the new one: put it there, or secrets that are stored from now on cannot be read here"
                );
            }
            missing = !known;
        }
        tokio::select! {
            () = stop.cancelled() => return,
            changed = changes.changed() => if changed.is_err() { return },
        }
    }
}

async fn read(source: &dyn SealSource) -> std::result::Result<Vec<Arc<SealKey>>, String> {
    let mut bytes = source.fetch().await?;
    let length = bytes.len();
    let wrong = || format!("{} gives {length} bytes, but a seal key has {KEY_BYTES}, and there may be {MOST_SEAL_KEYS}", source.describe());
    if length == 0 || length % KEY_BYTES != 0 || length / KEY_BYTES > MOST_SEAL_KEYS {
        return Err(wrong());
    }
    bytes.chunks_exact_mut(KEY_BYTES).map(|bytes| SealKey::take(bytes).map(Arc::new).ok_or_else(wrong)).collect()
}

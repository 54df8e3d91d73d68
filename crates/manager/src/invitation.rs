//! Invitations: what a new node needs to be one of a cluster, sealed by a passphrase.
//!
//! The text is JSON; what is secret in it is sealed, and the rest is bound to that: a text that was changed does not open. Who has text and passphrase has the seal key, and with it the cluster's
//! secrets: both go separate ways, and the text is deleted when the node has joined.

use crate::SealSource;
use crate::cluster;
use crate::passphrase::{self, NotOpened};
use crate::records::Recovery;
use jiff::{SignedDuration, Timestamp};
use keystead_store::Store;
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use uuid::Uuid;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// How long a passphrase is at the least, in bytes.
pub const SHORTEST_PASSPHRASE: usize = 16;
/// How long an invitation is good.
pub const LIFE: SignedDuration = SignedDuration::from_hours(24);
/// The longest text that is read, in bytes.
pub const MOST_BYTES: usize = 256 * 1024;
const FORMAT: &str = "keystead-invitation-1";

/// What an invitation tells. The contents are the program's; this room seals them.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
pub struct Secrets {
    /// The seal key, as its source gives it.
    pub seal_key: Vec<u8>,
    /// The endpoints of etcd.
    pub endpoints: Vec<String>,
    /// The prefix of its keys.
    pub prefix: String,
    /// The CAs of etcd, PEM; empty for plain connections on one machine.
    pub ca: String,
    /// The certificate of a client of etcd, PEM.
    pub certificate: String,
    /// Its private key, PEM.
    pub key: String,
}

/// Makes an invitation to the cluster of a store. `secrets` gets the seal key, which is proven to be the store's.
///
/// # Errors
/// A line for the operator: the store or the seal key cannot be read, or they do not belong together; the passphrase is too short.
pub async fn invite(
    store: &dyn Store,
    seal: &dyn SealSource,
    now: Timestamp,
    secrets: impl FnOnce(Vec<u8>) -> Secrets,
    passphrase: SecretString,
) -> Result<Invitation, String> {
    let mut bytes = seal.fetch().await?;
    let secrets = secrets(bytes.to_vec());
    let (cluster, name) = cluster::sealed_by(store, &mut bytes).await?;
    tokio::task::spawn_blocking(move || Invitation::seal(cluster, &name, now, &secrets, &passphrase)).await.map_err(|error| error.to_string())?
}

/// An invitation as it is handed over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invitation {
    format: String,
    /// The cluster.
    pub cluster: Uuid,
    /// Its name.
    pub cluster_name: String,
    /// Up to when it is good, by the clock of who joins.
    pub expires: Timestamp,
    sealed: Recovery,
}

impl Invitation {
    /// Makes one. Takes a tenth of a second, and 64 MiB.
    ///
    /// # Errors
    /// A line for the operator: the passphrase is too short; the memory cannot be had.
    pub fn seal(cluster: Uuid, cluster_name: &str, now: Timestamp, secrets: &Secrets, passphrase: &SecretString) -> Result<Self, String> {
        let length = passphrase.expose_secret().len();
        if length < SHORTEST_PASSPHRASE {
            return Err(format!("the passphrase must have {SHORTEST_PASSPHRASE} bytes at the least, and has {length}"));
        }
        let expires = now.checked_add(LIFE).map_err(|error| error.to_string())?;
        let text = Zeroizing::new(serde_json::to_vec(secrets).map_err(|error| error.to_string())?);
        let sealed = passphrase::seal(&place(cluster, cluster_name, expires), &text, passphrase)?;
        Ok(Self { format: FORMAT.to_owned(), cluster, cluster_name: cluster_name.to_owned(), expires, sealed })
    }

    /// The text to hand over.
    ///
    /// # Errors
    /// None that can happen.
    pub fn to_text(&self) -> Result<String, String> {
        serde_json::to_string_pretty(self).map(|text| text + "\n").map_err(|error| error.to_string())
    }

    /// Reads a text.
    ///
    /// # Errors
    /// It is no invitation, or one of another version.
    pub fn read(text: &str) -> Result<Self, String> {
        if text.len() > MOST_BYTES {
            return Err("it is too long for an invitation".to_owned());
        }
        let invitation: Self = serde_json::from_str(text).map_err(|error| format!("it is no invitation of Keystead (line {})", error.line()))?;
        if invitation.format != FORMAT {
            return Err(format!("its format is {}, and this version reads {FORMAT}", invitation.format));
        }
        Ok(invitation)
    }

    /// Opens it. As costly as [`Invitation::seal`].
    ///
    /// # Errors
    /// It is too old; the passphrase is another one, or the text was changed.
    pub fn open(&self, now: Timestamp, passphrase: &SecretString) -> Result<Secrets, String> {
        if now > self.expires {
            return Err(format!("it was good until {}; have a node of the cluster make another (keystead cluster invite)", self.expires));
        }
        let text = passphrase::open(&place(self.cluster, &self.cluster_name, self.expires), &self.sealed, passphrase).map_err(|error| match error {
            NotOpened::Wrong => "the passphrase is not the one that it was sealed with, or it was changed".to_owned(),
            NotOpened::Failed(why) => why,
        })?;
        serde_json::from_slice(&text).map_err(|_| "what is sealed in it cannot be read".to_owned())
    }
}

fn place(cluster: Uuid, name: &str, expires: Timestamp) -> String {
    format!("{FORMAT} {cluster} {expires} {name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secrets() -> Secrets {
        Secrets {
            seal_key: vec![7; 32],
            endpoints: vec!["https://etcd1:2379".to_owned()],
            prefix: "/keystead".to_owned(),
            ca: "CA".to_owned(),
            certificate: "CERTIFICATE".to_owned(),
            key: "planted-private-key".to_owned(),
        }
    }

    #[test]
    fn an_invitation_opens_with_its_passphrase_alone_and_for_a_day() {
        let (now, passphrase) = (Timestamp::now(), SecretString::from("sixteen bytes or more"));
        let made = Invitation::seal(Uuid::nil(), "cluster1", now, &secrets(), &passphrase).unwrap();
        let text = made.to_text().unwrap();
        assert!(!text.contains("planted"));
        let read = Invitation::read(&text).unwrap();
        assert!(read.open(now, &passphrase).unwrap() == secrets());
        assert!(read.open(now, &SecretString::from("sixteen bytes or less")).is_err_and(|why| why.contains("passphrase")));
        assert!(read.open(now + LIFE + SignedDuration::from_secs(1), &passphrase).is_err_and(|why| why.contains("good until")));
        // Who changes what can be read breaks it.
        let longer = Invitation { expires: now + LIFE + LIFE, ..read.clone() };
        assert!(longer.open(now, &passphrase).is_err());
        let other = Invitation { cluster_name: "cluster2".to_owned(), ..read };
        assert!(other.open(now, &passphrase).is_err());
    }

    #[test]
    fn what_is_no_invitation_is_refused() {
        for text in ["", "{}", "nonsense", &"x".repeat(MOST_BYTES + 1)] {
            assert!(Invitation::read(text).is_err());
        }
        assert!(Invitation::seal(Uuid::nil(), "c", Timestamp::now(), &secrets(), &SecretString::from("short")).is_err());
    }
}

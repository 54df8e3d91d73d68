//! The handle: starts a stand-in inside a test's process and steers it directly.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use crate::account::{Account, Denial, KeyInfo, KeyState, NewKey};
use crate::calls::Call;
use crate::control::INACTIVE;
use crate::fault::{FaultRule, FaultRules};
use crate::server::serve;
use crate::shared::Shared;
use crate::tls::Identity;

/// How a stand-in listens.
#[derive(Clone, Debug)]
pub enum Tls {
    /// Plain HTTP.
    Off,
    /// A CA and a leaf made at the start, for these DNS names and IP addresses.
    SelfSigned(Vec<String>),
    /// A given certificate and key.
    Identity(Identity),
}

/// Options of a stand-in. The default: a free port of 127.0.0.1, TLS for `127.0.0.1` and `localhost`, account 111122223333, region us-east-1.
#[derive(Clone, Debug)]
pub struct Options {
    /// The address to listen on; port 0 takes a free one.
    pub listen: SocketAddr,
    /// TLS.
    pub tls: Tls,
    /// The account in ARNs: 12 digits.
    pub account: String,
    /// The region of keys that are not told otherwise.
    pub region: String,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            tls: Tls::SelfSigned(vec!["127.0.0.1".into(), "localhost".into()]),
            account: "111122223333".into(),
            region: "us-east-1".into(),
        }
    }
}

/// A running stand-in. It ends, with all its connections, when this is dropped.
#[derive(Debug)]
pub struct KmsStandIn {
    addr: SocketAddr,
    identity: Option<Identity>,
    shared: Arc<Shared>,
    task: JoinHandle<std::convert::Infallible>,
}

impl Drop for KmsStandIn {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl KmsStandIn {
    /// Starts a stand-in in the current tokio runtime. It listens when this returns.
    ///
    /// # Errors
    /// The address is taken, or the certificate and key cannot be used.
    pub async fn start(options: Options) -> io::Result<Self> {
        let identity = match options.tls {
            Tls::Off => None,
            Tls::SelfSigned(names) => Some(Identity::generate(&names)?),
            Tls::Identity(identity) => Some(identity),
        };
        let acceptor = identity.as_ref().map(Identity::server_config).transpose()?.map(TlsAcceptor::from);
        let listener = TcpListener::bind(options.listen).await?;
        let addr = listener.local_addr()?;
        let shared = Shared::new(Account::new(options.account, options.region));
        let task = tokio::spawn(serve(listener, acceptor, shared.clone()));
        Ok(Self { addr, identity, shared, task })
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// `https://ADDRESS:PORT`, or `http://…` without TLS.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("{}://{}", if self.identity.is_some() { "https" } else { "http" }, self.addr)
    }

    /// The CA to trust, in PEM; `None` without TLS, or with a given certificate.
    #[must_use]
    pub fn ca_pem(&self) -> Option<&str> {
        self.identity.as_ref()?.ca_pem.as_deref()
    }

    /// Makes a customer key.
    ///
    /// # Errors
    /// A key with that id exists.
    pub fn create_key(&self, new: NewKey) -> Result<KeyInfo, String> {
        self.shared.state().account.create_key(new, Timestamp::now())
    }

    /// The state of a key, by its id.
    ///
    /// # Errors
    /// No such key; so for all functions that take a key id.
    pub fn key(&self, key_id: &str) -> Result<KeyInfo, String> {
        self.shared.state().account.key_info(key_id)
    }

    /// Enables, disables, schedules deletion, …
    ///
    /// # Errors
    /// No such key.
    pub fn set_key_state(&self, key_id: &str, state: KeyState) -> Result<(), String> {
        self.shared.state().account.set_state(key_id, state)
    }

    /// Deletes a key and its aliases at once.
    ///
    /// # Errors
    /// No such key.
    pub fn delete_key(&self, key_id: &str) -> Result<(), String> {
        self.shared.state().account.delete_key(key_id)
    }

    /// Makes an alias, or moves it to this key.
    ///
    /// # Errors
    /// No such key.
    pub fn set_alias(&self, alias: &str, key_id: &str) -> Result<(), String> {
        self.shared.state().account.set_alias(alias, key_id)
    }

    /// New key material, as RotateKeyOnDemand makes it.
    ///
    /// # Errors
    /// No such key.
    pub fn rotate(&self, key_id: &str) -> Result<(), String> {
        self.shared.state().account.rotate(key_id)
    }

    /// Denies access to a key: AccessDeniedException.
    ///
    /// # Errors
    /// No such key.
    pub fn deny(&self, key_id: &str, denial: Denial) -> Result<(), String> {
        self.shared.state().account.deny(key_id, denial)
    }

    /// Takes all denials of a key back.
    ///
    /// # Errors
    /// No such key.
    pub fn restore_access(&self, key_id: &str) -> Result<(), String> {
        self.shared.state().account.restore_access(key_id)
    }

    /// Makes an access key of the user `keystead`, or replaces its secret.
    pub fn add_access_key(&self, access_key_id: &str, secret_access_key: &str) {
        self.shared.state().account.add_access_key(access_key_id, secret_access_key, None, "keystead");
    }

    /// Makes a temporary access key, which counts only together with its session token.
    pub fn add_session(&self, access_key_id: &str, secret_access_key: &str, session_token: &str) {
        self.shared.state().account.add_access_key(access_key_id, secret_access_key, Some(session_token.into()), "keystead");
    }

    /// Makes an access key inactive: its calls get UnrecognizedClientException.
    ///
    /// # Errors
    /// No such access key.
    pub fn deactivate_access_key(&self, access_key_id: &str) -> Result<(), String> {
        self.shared.state().account.set_inactive(access_key_id, Some(INACTIVE.into()))
    }

    /// Makes an access key active again.
    ///
    /// # Errors
    /// No such access key.
    pub fn activate_access_key(&self, access_key_id: &str) -> Result<(), String> {
        self.shared.state().account.set_inactive(access_key_id, None)
    }

    /// Adds a fault rule behind those that exist.
    pub fn add_fault(&self, rule: FaultRule) {
        self.shared.state().rules.add(rule);
    }

    /// Removes all fault rules. Held calls stay held.
    pub fn clear_faults(&self) {
        self.shared.state().rules = FaultRules::default();
    }

    /// Opens all gates and lets the held calls go; returns how many were held.
    pub fn release(&self) -> usize {
        self.shared.release()
    }

    /// Waits until at least `count` calls are held, at most `limit`; returns how many are.
    pub async fn wait_held(&self, count: usize, limit: Duration) -> usize {
        self.shared.wait_held(count, limit).await
    }

    /// Sets AWS's clock ahead of the machine's (or behind, when negative) for all calls.
    pub fn set_clock_skew(&self, skew: SignedDuration) {
        self.shared.state().skew = skew;
    }

    /// The calls so far, in the order of arrival.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        self.shared.state().calls.clone()
    }

    /// Forgets the calls so far. Numbers go on.
    pub fn clear_calls(&self) {
        self.shared.state().calls.clear();
    }

    /// TCP connections accepted so far, those whose TLS handshake failed included.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.shared.state().connections
    }

    /// TLS handshakes that failed so far.
    #[must_use]
    pub fn handshake_failures(&self) -> u64 {
        self.shared.state().handshake_failures
    }
}

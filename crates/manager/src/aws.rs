//! Clients of AWS KMS for stored configurations, and what their errors mean to an operator.

use crate::inner::Inner;
use crate::model::SvmRef;
use crate::records::{AwsKmsRecord, KekRecord, NodeRecord, Stored, StoredProxy, StoredSettings, proxy_password_place, secret_place};
use crate::seal::Seal;
use crate::{Code, Error, Result};
use keystead_awskms::{Class, Client, ClientConfig, Credentials, Egress, EncryptionContext, Endpoint, Environment, Hop, Proxy, ProxyKind, TlsPolicy};
use keystead_keyring::Kek;
use keystead_store::Revision;
use secrecy::SecretString;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use uuid::Uuid;

/// The way to AWS of this node, and a client for each configuration in use.
pub(crate) struct Aws {
    environment: Environment,
    /// With the configuration, and the mode, that they were made for.
    clients: Mutex<HashMap<Uuid, (Revision, bool, Client)>>,
}

/// Whether the credentials have worked before: the same answer of AWS means something else while enabling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// They are new, for a new configuration.
    Enabling,
    /// A configuration exists.
    InUse,
}

/// What AWS, or whoever stands in the way to it, has said: for events and those who follow them up with AWS.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct AwsDetail {
    /// AWS's own name for the error.
    pub error: Option<String>,
    /// AWS's identifier of the request.
    pub request_id: Option<String>,
    /// Where on the way it happened.
    pub hop: Option<&'static str>,
    /// `host:port`, and the proxy where there is one.
    pub endpoint: Option<String>,
}

impl AwsDetail {
    /// Whether AWS holds requests back.
    pub fn is_throttled(&self) -> bool {
        self.error.as_deref().is_some_and(keystead_awskms::is_throttle)
    }

    /// As parameters of an event.
    pub fn parameters(&self) -> Vec<(&'static str, String)> {
        let hop = self.hop.map(str::to_owned);
        let all = [("aws_error", self.error.clone()), ("aws_request_id", self.request_id.clone()), ("hop", hop), ("endpoint", self.endpoint.clone())];
        all.into_iter().filter_map(|(name, value)| value.map(|value| (name, value))).collect()
    }
}

impl From<&keystead_awskms::Error> for AwsDetail {
    fn from(error: &keystead_awskms::Error) -> Self {
        Self {
            error: error.code().map(str::to_owned),
            request_id: error.request_id().map(str::to_owned),
            hop: Some(error.hop().text()),
            endpoint: Some(error.endpoint().to_owned()),
        }
    }
}

impl Aws {
    pub fn new(environment: Environment) -> Self {
        Self { environment, clients: Mutex::default() }
    }

    /// What is allowed inside.
    pub fn environment(&self) -> &Environment {
        &self.environment
    }

    /// Drops all clients: each is made anew when it is needed, and its connections end.
    pub fn forget_all(&self) {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Drops the client of a configuration that is gone.
    pub fn forget(&self, config: Uuid) {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner).remove(&config);
    }
}

impl Inner {
    /// Applies the cluster's settings, and the addresses of its nodes, to every connection to AWS from now on.
    pub fn configure_aws(&self) {
        let settings = self.settings();
        self.aws.environment.set_requests_per_second(settings.requests_per_second);
        let nodes = self.view.all::<NodeRecord>();
        let addresses = nodes.iter().flat_map(|node| [&node.record.address, &node.record.ekmip_address]).flatten();
        let own = addresses.filter_map(|address| address.parse::<SocketAddr>().ok().map(|address| address.ip())).collect();
        match Egress::parse(&settings.allow_endpoints) {
            Ok(egress) => self.aws.environment.set_egress(egress.with_own_addresses(own)),
            Err(error) => tracing::error!(%error, "allow_endpoints of the store cannot be read; the rule stays as it was"),
        }
    }

    /// The client of a stored configuration: made anew when the configuration, or FIPS mode, has changed.
    pub fn client(&self, config: &Stored<AwsKmsRecord>) -> Result<Client> {
        // Read first: a client that is made while the mode changes is then made anew.
        let (uuid, fips) = (config.record.uuid, self.aws.environment.fips());
        let cached = self.aws.clients.lock().unwrap_or_else(PoisonError::into_inner).get(&uuid).cloned();
        if let Some((_, _, client)) = cached.filter(|(revision, mode, _)| *revision == config.revision && *mode == fips) {
            return Ok(client);
        }
        let client = self.client_for(&config.record)?;
        self.aws.clients.lock().unwrap_or_else(PoisonError::into_inner).insert(uuid, (config.revision, fips, client.clone()));
        Ok(client)
    }

    /// A client of a configuration that is not stored, or not as it is.
    pub fn client_for(&self, config: &AwsKmsRecord) -> Result<Client> {
        self.aws_made(config, Client::new)
    }

    /// Makes what speaks to AWS for a configuration, with its opened secrets.
    pub fn aws_made<T>(
        &self,
        config: &AwsKmsRecord,
        make: impl FnOnce(&Environment, ClientConfig) -> std::result::Result<T, keystead_awskms::Error>,
    ) -> Result<T> {
        made(&self.aws.environment, &self.seal, config, make)
    }

    /// What an error of AWS means to the user: which SVM, which node, which hop, AWS's own name for it, and what to look at.
    pub fn aws_error(&self, phase: Phase, svm: &SvmRef, doing: &str, error: &keystead_awskms::Error) -> Error {
        let code = match (error.hop(), error.class()) {
            (Hop::Egress, _) => return Error::with(Code::OutOfBounds, error).target(if error.concerns_proxy() { "proxy_host" } else { "host" }),
            (_, Class::Unreachable | Class::Transient) => Code::AmazonUnreachable,
            _ if error.is_credentials() => crate::credentials::refused(phase),
            _ => Code::KeyUnusable,
        };
        Error::with(code, format!("{doing} for the SVM {} on node {}: {error}", svm.name, self.node.name))
    }
}

/// Makes what speaks to AWS for a configuration, with its secrets, which `seal` opens.
pub(crate) fn made<T>(
    environment: &Environment,
    seal: &Seal,
    config: &AwsKmsRecord,
    make: impl FnOnce(&Environment, ClientConfig) -> std::result::Result<T, keystead_awskms::Error>,
) -> Result<T> {
    let secret = config.secret_access_key.as_ref().map(|sealed| seal.open_text(&secret_place(config.uuid), sealed)).transpose()?;
    let credentials = crate::credentials::of_client(&config.settings, secret)?;
    let proxy_password = config.proxy_password.as_ref().map(|sealed| seal.open_text(&proxy_password_place(config.uuid), sealed)).transpose()?;
    make(environment, client_config(&config.settings, credentials, proxy_password)).map_err(|error| {
        let target = if config.settings.ca_certificates.is_some() { "keystead.ca_certificates" } else { "host" };
        Error::with(Code::InvalidValue, error).target(target)
    })
}

/// The client's view of stored settings.
fn client_config(settings: &StoredSettings, credentials: Credentials, proxy_password: Option<SecretString>) -> ClientConfig {
    ClientConfig {
        endpoint: endpoint(settings),
        tls: TlsPolicy { verify: settings.verify, verify_host: settings.verify_host, verify_ip: settings.verify_ip },
        proxy: settings.proxy.as_ref().map(|proxy| Proxy {
            kind: proxy_kind(proxy),
            host: proxy.host.clone(),
            port: proxy.port,
            username: proxy.username.clone(),
            password: proxy_password,
        }),
        credentials,
        timeout: Duration::from_secs(u64::from(settings.timeout)),
        ca_certificates: settings.ca_certificates.clone(),
    }
}

/// Where AWS KMS is for these settings.
pub(crate) fn endpoint(settings: &StoredSettings) -> Endpoint {
    Endpoint {
        region: settings.region.clone(),
        service: settings.service.clone(),
        default_domain: settings.default_domain.clone(),
        host: settings.host.clone(),
        port: settings.port,
    }
}

pub(crate) fn proxy_kind(proxy: &StoredProxy) -> ProxyKind {
    if proxy.https { ProxyKind::Https } else { ProxyKind::Http }
}

/// The encryption context of a text that was accepted before.
pub(crate) fn context(text: Option<&str>) -> Result<EncryptionContext> {
    EncryptionContext::parse(text.unwrap_or_default()).map_err(|error| Error::with(Code::InvalidValue, error).target("encryption_context"))
}

/// Turns what AWS decrypted into the KEK of a record, if it is that KEK. An answer of AWS is not signed, so it is believed only where the check value says so.
pub(crate) fn kek_from(record: &KekRecord, plaintext: &mut [u8]) -> Option<Kek> {
    let kek = Kek::take(record.svm, record.version, plaintext)?;
    let stored: [u8; 16] = record.check_value.0.as_slice().try_into().ok()?;
    (kek.check_value() == keystead_keyring::CheckValue(stored)).then_some(kek)
}

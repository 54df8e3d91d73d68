//! The client: the three operations that Keystead needs of AWS KMS.

use crate::budget;
use crate::calls::{Calls, Operation};
use crate::context::EncryptionContext;
use crate::endpoint::Endpoint;
use crate::environment::Environment;
use crate::error::{Error, Failure, from_sdk};
use crate::http::Connector;
use crate::keeper::{Current, Keeper};
use crate::retry::ByClass;
use crate::source::{CredentialsSource, key_arn_place};
use crate::surroundings::NoSurroundings;
use crate::tls::TlsPolicy;
use aws_sdk_kms::config::retry::{RetryConfig, RetryPartition, TokenBucket};
use aws_sdk_kms::config::timeout::TimeoutConfig;
use aws_sdk_kms::config::{BehaviorVersion, Credentials as SdkCredentials, IdentityCache, Region, SharedCredentialsProvider, StalledStreamProtectionConfig};
use aws_sdk_kms::operation::RequestId;
use aws_sdk_kms::primitives::Blob;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use secrecy::{ExposeSecret, SecretString};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tracing::Instrument as _;
use zeroize::Zeroizing;

/// How often one operation is sent at the most. Only what AWS or the network may do better the next time is sent again.
const ATTEMPTS: u32 = 3;
/// The first back-off; it doubles, with jitter.
const FIRST_BACKOFF: Duration = Duration::from_millis(250);
/// The longest back-off.
const MAX_BACKOFF: Duration = Duration::from_secs(2);

/// Who asks.
pub enum Credentials {
    /// An AWS access key.
    Key {
        /// The identifier, no secret.
        access_key_id: String,
        /// The secret.
        secret_access_key: SecretString,
    },
    /// Credentials of the node's own. They may open more than this client is for, so the client is bound to one key: it refuses to name another one to AWS.
    Source {
        /// Where they come from.
        source: CredentialsSource,
        /// The ARN of the one key.
        key_arn: String,
    },
}

/// Tells secrets apart within this process, and nothing more: the key of the hash is this process's own.
fn fingerprint(secret: &SecretString) -> u64 {
    static KEY: std::sync::OnceLock<std::hash::RandomState> = std::sync::OnceLock::new();
    std::hash::BuildHasher::hash_one(KEY.get_or_init(std::hash::RandomState::new), secret.expose_secret())
}

impl Credentials {
    /// Whose requests these are, as far as the rate of requests goes.
    pub(crate) fn payer(&self) -> String {
        match self {
            // An identifier is no secret: somebody else who names it must not use up the rate of those who have the key.
            Self::Key { access_key_id, secret_access_key } => format!("{access_key_id} {:016x}", fingerprint(secret_access_key)),
            Self::Source { source, key_arn } => format!("{source} {}", key_arn_place(key_arn).map_or("", |(account, _)| account)),
        }
    }
}

/// How a proxy itself is spoken to. Either way it is asked to `CONNECT`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyKind {
    /// In the clear.
    Http,
    /// Over TLS; the certificate is checked by the proxy's own name, whatever the policy for AWS is.
    Https,
}

/// A proxy on the way.
pub struct Proxy {
    /// How it is spoken to.
    pub kind: ProxyKind,
    /// Host name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Basic login.
    pub username: Option<String>,
    /// Its password.
    pub password: Option<SecretString>,
}

/// What a client is made from.
pub struct ClientConfig {
    /// Where AWS KMS is.
    pub endpoint: Endpoint,
    /// How much of its certificate is checked.
    pub tls: TlsPolicy,
    /// What is on the way.
    pub proxy: Option<Proxy>,
    /// Who asks.
    pub credentials: Credentials,
    /// The limit for connecting, and for each attempt as a whole.
    pub timeout: Duration,
    /// PEM certificates that vouch for this endpoint alone.
    pub ca_certificates: Option<String>,
}

/// What DescribeKey says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyDescription {
    /// The key's ARN.
    pub arn: String,
    /// Whether it can be used now.
    pub enabled: bool,
    /// The key state, for example `Enabled`, `PendingDeletion`.
    pub state: String,
    /// The key usage, for example `ENCRYPT_DECRYPT`.
    pub usage: Option<String>,
    /// The current key material, where AWS names it.
    pub key_material_id: Option<String>,
    /// Whether it is a multi-region key.
    pub multi_region: bool,
}

/// What Encrypt answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encrypted {
    /// The ciphertext blob, 1 to 6144 bytes.
    pub blob: Vec<u8>,
    /// The ARN of the key that was really used: aliases move.
    pub key_arn: String,
}

/// What Decrypt answers.
pub struct Decrypted {
    /// The plaintext.
    pub plaintext: Zeroizing<Vec<u8>>,
    /// The ARN of the key that was used.
    pub key_arn: String,
    /// The key material that had encrypted it, where AWS names it.
    pub key_material_id: Option<String>,
}

/// A client of AWS KMS for one configuration. Cheap to clone; connections are kept and shared.
#[derive(Clone)]
pub struct Client {
    sdk: aws_sdk_kms::Client,
    connector: Connector,
    blank: Error,
    limit: Option<Duration>,
    bond: Option<Bond>,
    region: Arc<str>,
    calls: Arc<Calls>,
}

/// Credentials of the node's own, and the one key that they are for.
#[derive(Clone)]
struct Bond {
    keeper: Arc<Keeper>,
    key_arn: String,
}

impl Client {
    /// Makes a client. Nothing is sent yet.
    ///
    /// # Errors
    /// [`Hop::Settings`](crate::Hop::Settings): the settings make no client.
    pub fn new(environment: &Environment, mut config: ClientConfig) -> Result<Self, Error> {
        let settings = |text: String| Error::settings("AWS KMS".to_owned(), text);
        let host = config.endpoint.host_name().map_err(|error| settings(error.to_string()))?;
        let url = config.endpoint.url().map_err(|error| settings(error.to_string()))?;
        let mut place = format!("{}:{}", crate::endpoint::bracketed(&host), config.endpoint.port);
        if let Some(proxy) = &mut config.proxy {
            // The text itself is not shown: operators write logins into it.
            if host.parse::<std::net::Ipv6Addr>().is_ok() {
                return Err(settings("an IPv6 address as host cannot be reached through a proxy; set a host name instead".to_owned()));
            }
            proxy.host = crate::endpoint::normal_host(&proxy.host).map_err(|why| settings(format!("the proxy's host is not a host name: {why}")))?;
            place = format!("{place} through the proxy {}:{}", crate::endpoint::bracketed(&proxy.host), proxy.port);
        }
        let blank = Error { proven: config.tls.proves(host.parse::<IpAddr>().is_ok()), proxied: config.proxy.is_some(), ..Error::blank(place.clone()) };
        let connector = Connector::new(environment, &config, host).map_err(|text| Error::settings(place, text))?;
        let (credentials, bond) = match config.credentials {
            Credentials::Key { access_key_id, secret_access_key } => {
                let key = SdkCredentials::new(access_key_id, secret_access_key.expose_secret(), None, None, "keystead");
                (SharedCredentialsProvider::new(key), None)
            }
            Credentials::Source { source, key_arn } => {
                let keeper = environment.keeper(&source);
                (SharedCredentialsProvider::new(Current(Arc::clone(&keeper))), Some(Bond { keeper, key_arn }))
            }
        };
        let sdk = aws_sdk_kms::Config::builder()
            .behavior_version(BehaviorVersion::v2026_01_12())
            .region(Region::new(config.endpoint.region.clone()))
            .endpoint_url(url)
            .credentials_provider(credentials)
            // Either they never change, or they are kept elsewhere.
            .identity_cache(IdentityCache::no_cache())
            .http_client(connector.clone())
            .sleep_impl(aws_smithy_async::rt::sleep::TokioSleep::new())
            .retry_config(RetryConfig::standard().with_max_attempts(ATTEMPTS).with_initial_backoff(FIRST_BACKOFF).with_max_backoff(MAX_BACKOFF))
            .interceptor(NoSurroundings)
            // It would learn the difference from the first failure and let everything after it pass: a clock that is off would show once, and never again.
            .disable_clock_skew_correction(true)
            .retry_classifier(ByClass)
            // Otherwise all clients of a region share one budget of retries in this process, and one SVM's broken endpoint takes those of all others.
            .retry_partition(RetryPartition::custom("keystead").token_bucket(TokenBucket::unlimited()).build())
            .timeout_config(TimeoutConfig::builder().operation_timeout(overall(config.timeout)).build())
            // The whole answer is read under the limit of the attempt.
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            .build();
        let (region, calls) = (config.endpoint.region.into(), Arc::clone(environment.calls()));
        Ok(Self { sdk: aws_sdk_kms::Client::from_conf(sdk), connector, blank, limit: None, bond, region, calls })
    }

    /// Waits until the rate of this account and region lets one more request pass, at most `patience`.
    ///
    /// # Errors
    /// [`Class::Transient`](crate::Class::Transient), at once: it would take longer.
    pub async fn turn(&self, patience: Duration) -> Result<(), Error> {
        if self.connector.turn(patience).await {
            return Ok(());
        }
        Err(Error { class: crate::Class::Transient, text: crate::http::BUSY.to_owned(), ..self.blank.clone() })
    }

    /// The same client, for operations that have had their [`turn`](Client::turn) and that end within `limit`, all attempts included. Without this, each of up to three attempts has the
    /// timeout of the configuration.
    #[must_use]
    pub fn within(&self, limit: Duration) -> Self {
        Self { limit: Some(limit), ..self.clone() }
    }

    /// DescribeKey (`kms:DescribeKey`). It works on disabled keys and proves nothing about Encrypt and Decrypt.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn describe_key(&self, key_id: &str) -> Result<KeyDescription, Error> {
        let answer = self.call(Operation::DescribeKey, key_id, || self.sdk.describe_key().key_id(key_id).send()).await?;
        let key = answer.key_metadata.ok_or_else(|| self.unexpected("DescribeKey has answered without a key"))?;
        Ok(KeyDescription {
            enabled: key.enabled,
            state: key.key_state.map_or_else(|| if key.enabled { "Enabled" } else { "not Enabled" }.to_owned(), |state| state.as_str().to_owned()),
            usage: key.key_usage.map(|usage| usage.as_str().to_owned()),
            key_material_id: key.current_key_material_id,
            multi_region: key.multi_region.unwrap_or_default(),
            arn: key.arn.unwrap_or(key.key_id),
        })
    }

    /// Encrypt (`kms:Encrypt`) of 1 to 4096 bytes.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn encrypt(&self, key_id: &str, plaintext: &[u8], context: &EncryptionContext) -> Result<Encrypted, Error> {
        let request = || self.sdk.encrypt().key_id(key_id).plaintext(Blob::new(plaintext)).set_encryption_context(context.pairs());
        let answer = self.call(Operation::Encrypt, key_id, || request().send()).await?;
        let blob = answer.ciphertext_blob.map(Blob::into_inner).filter(|blob| !blob.is_empty() && blob.len() <= 6_144);
        let blob = blob.ok_or_else(|| self.unexpected("Encrypt has answered without a ciphertext"))?;
        let key_arn = answer.key_id.ok_or_else(|| self.unexpected("Encrypt has answered without the key that it used"))?;
        Ok(Encrypted { blob, key_arn })
    }

    /// Decrypt (`kms:Decrypt`) of a blob of 1 to 6144 bytes. The key is always named, so that a blob of another key is refused.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn decrypt(&self, key_id: &str, blob: &[u8], context: &EncryptionContext) -> Result<Decrypted, Error> {
        let request = || self.sdk.decrypt().key_id(key_id).ciphertext_blob(Blob::new(blob)).set_encryption_context(context.pairs());
        let mut answer = self.call(Operation::Decrypt, key_id, || request().send()).await?;
        let plaintext = answer.plaintext.take().map(|plaintext| Zeroizing::new(plaintext.into_inner()));
        let plaintext = plaintext.filter(|plaintext| !plaintext.is_empty() && plaintext.len() <= 4_096);
        let plaintext = plaintext.ok_or_else(|| self.unexpected("Decrypt has answered without a plaintext of 1 to 4096 bytes"))?;
        let key_arn = answer.key_id.take().ok_or_else(|| self.unexpected("Decrypt has answered without the key that it used"))?;
        Ok(Decrypted { plaintext, key_arn, key_material_id: answer.key_material_id.take() })
    }

    /// Makes a call, within the limit of this client where it has one.
    async fn call<T, E, F>(&self, operation: Operation, key_id: &str, send: impl Fn() -> F) -> Result<T, Error>
    where
        T: RequestId,
        E: ProvideErrorMetadata + RequestId,
        F: Future<Output = Result<T, SdkError<E, HttpResponse>>>,
    {
        let (began, span) = (Instant::now(), operation.span(&self.region, &self.blank.endpoint));
        let signed = self.call_signed(key_id, send);
        let answer = async {
            match self.limit {
                Some(limit) => budget::within(limit, signed).await,
                None => signed.await,
            }
        };
        // In a box: what all layers of the SDK make of a future is large, and whoever waits for it would be as large.
        let answer = Box::pin(answer.instrument(span.clone())).await;
        self.calls.ended(operation, began.elapsed(), answer.as_ref().map(RequestId::request_id), &span);
        answer
    }

    /// A call with credentials of the node's own happens once there are some, for the one key alone, and once more where AWS refuses them and the source has others by now. A denial after which the
    /// source could not be asked proves nothing: what was refused may have been replaced long ago.
    async fn call_signed<T, E, F>(&self, key_id: &str, send: impl Fn() -> F) -> Result<T, Error>
    where
        E: ProvideErrorMetadata + RequestId,
        F: Future<Output = Result<T, SdkError<E, HttpResponse>>>,
    {
        let Some(bond) = &self.bond else { return send().await.map_err(|error| self.error(error)) };
        if key_id != bond.key_arn {
            let text = format!("the credentials source is for the key {} alone, and {key_id} is another one", bond.key_arn);
            return Err(Error::settings(self.blank.endpoint.clone(), text));
        }
        let used = self.in_time(bond, bond.keeper.ready()).await?;
        let answer = send().await.map_err(|error| self.error(error));
        match answer {
            Err(error) if error.is_credentials() => {
                if !self.in_time(bond, bond.keeper.renew(&used)).await? {
                    return Err(error);
                }
                send().await.map_err(|error| self.error(error))
            }
            answer => answer,
        }
    }

    /// Waits for a source, but no longer than this call may take. The source goes on, for the next call.
    async fn in_time<T>(&self, bond: &Bond, asked: impl Future<Output = Result<T, Failure>>) -> Result<T, Error> {
        let answer = match budget::left() {
            Some(left) => tokio::time::timeout(left, asked).await.unwrap_or_else(|_| Err(bond.keeper.late())),
            None => asked.await,
        };
        answer.map_err(|failure| Error { class: failure.class, hop: failure.hop, text: failure.text, ..self.blank.clone() })
    }

    fn error<E: ProvideErrorMetadata + RequestId>(&self, error: SdkError<E, HttpResponse>) -> Error {
        from_sdk(&error, self.blank.clone())
    }

    /// An answer with the status 200 that is not what AWS answers.
    fn unexpected(&self, text: &str) -> Error {
        Error { text: text.to_owned(), ..self.blank.clone() }
    }
}

/// The limit of an operation: its attempts and the pauses between them.
pub(crate) fn overall(timeout: Duration) -> Duration {
    timeout * ATTEMPTS + MAX_BACKOFF * (ATTEMPTS - 1) + Duration::from_secs(1)
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Client({})", self.blank.endpoint)
    }
}

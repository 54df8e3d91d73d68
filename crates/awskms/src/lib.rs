//! One AWS KMS client for each SVM: endpoint, TLS policy, proxy, credentials, limits, retries, error classes.
//!
//! The client is the AWS SDK's, over an HTTP client of our own, because the SDK's connector cannot relax a single check of a certificate, and because every connection must pass the egress
//! rule on the address that is really used. Nothing is read from the process's surroundings: no `AWS_*` variable, no profile, no proxy variable, no metadata service; but where an administrator has
//! set a [`CredentialsSource`], the credentials come from there, and nothing else does.
//!
//! This room says what happened ([`Class`], [`Hop`]). What to do about it is decided above.
//!
//! Source of protocol facts: AWS KMS API Reference; the table of error classes is that of `contract/aws.md`.

mod budget;
mod calls;
mod client;
mod context;
mod egress;
mod endpoint;
mod environment;
mod error;
mod http;
mod keeper;
mod limiter;
pub mod preflight;
mod providers;
mod resolver;
mod retry;
mod source;
mod surroundings;
mod tls;

pub use calls::Calls;
pub use client::{Client, ClientConfig, Credentials, Decrypted, Encrypted, KeyDescription, Proxy, ProxyKind};
pub use context::{ContextError, EncryptionContext};
pub use egress::{Egress, EgressError};
pub use endpoint::{Endpoint, EndpointError};
pub use environment::{Environment, EnvironmentOptions};
pub use error::{Class, Error, Hop, is_throttle};
pub use resolver::{Resolver, SystemResolver};
pub use source::{CredentialsSource, SourceError, key_arn_place};
pub use tls::{TlsPolicy, can_be_fips, is_fips, provider as tls_provider};

/// Targets of `tracing` and `log` whose lowest levels print requests as they go over the wire. A log filter must never let them below `info`.
pub const QUIET_TARGETS: &[&str] =
    &["aws_smithy_runtime", "aws_smithy_runtime_api", "aws_sdk_kms", "aws_runtime", "hyper", "hyper_util", "reqwest", "rustls", "h2"];

/// Targets whose warnings may quote an answer that holds credentials. What they have to say is said here in other words, so a log filter leaves them out.
pub const MUTE_TARGETS: &[&str] = &["aws_config", "aws_sdk_sts"];

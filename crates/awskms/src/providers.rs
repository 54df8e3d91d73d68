//! Asks the node's own sources of credentials, through the providers of `aws-config`.
//!
//! Their calls (metadata service, container service, STS) are the node's own and not a tenant's: no tenant's proxy, TLS policy or CA counts for them, and the egress rule does not either, since the
//! metadata service is inside by design. The standard `AWS_*` variables of the process and its AWS configuration files say where they go.

use crate::error::{Class, Failure, Hop, shortened};
use crate::keeper::Load;
use crate::source::CredentialsSource;
use crate::tls::{self, TlsPolicy};
use async_trait::async_trait;
use aws_config::default_provider::credentials::DefaultCredentialsChain;
use aws_config::imds::credentials::ImdsCredentialsProvider;
use aws_config::profile::ProfileFileCredentialsProvider;
use aws_config::provider_config::ProviderConfig;
use aws_config::web_identity_token::WebIdentityTokenCredentialsProvider;
use aws_credential_types::Credentials;
use aws_credential_types::credential_feature::AwsCredentialFeature;
use aws_credential_types::provider::ProvideCredentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_smithy_runtime_api::client::http::{HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use rustls::RootCertStore;
use std::error::Error as StdError;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// The limit for connecting. What answers here is near.
const CONNECT: Duration = Duration::from_secs(2);
/// The limit of one request.
const REQUEST: Duration = Duration::from_secs(5);

/// The providers of this node, with its roots of trust.
pub(crate) fn of_node(roots: &Arc<RootCertStore>, fips: Arc<AtomicBool>) -> Arc<dyn Load> {
    Arc::new(Providers { roots: Arc::clone(roots), fips })
}

struct Providers {
    roots: Arc<RootCertStore>,
    fips: Arc<AtomicBool>,
}

#[async_trait]
impl Load for Providers {
    /// Providers are made anew each time: those of the SDK read the AWS configuration files only once, and new credentials are asked for at most every few minutes.
    async fn load(&self, source: &CredentialsSource) -> Result<Credentials, Failure> {
        let http = NodeHttp::new(&self.roots, self.fips.load(Ordering::Acquire)).map_err(|text| failure(source, Class::Misconfigured, &text))?;
        let config = ProviderConfig::without_region().with_http_client(http.clone());
        let given = match source {
            CredentialsSource::Chain => DefaultCredentialsChain::builder().configure(config).build().await.provide_credentials().await,
            CredentialsSource::InstanceRole => ImdsCredentialsProvider::builder().configure(&config).build().provide_credentials().await,
            CredentialsSource::WebIdentity => {
                let config = config.load_default_region().await;
                WebIdentityTokenCredentialsProvider::builder().configure(&config).build().provide_credentials().await
            }
            CredentialsSource::Process => {
                let config = config.load_default_region().await;
                ProfileFileCredentialsProvider::builder().configure(&config).build().provide_credentials().await
            }
            CredentialsSource::Profile(name) => {
                let config = config.load_default_region().await;
                ProfileFileCredentialsProvider::builder().configure(&config).profile_name(name).build().provide_credentials().await
            }
        };
        let credentials = given.map_err(|error| explain(source, &error, http.last()))?;
        let features = credentials.get_property::<Vec<AwsCredentialFeature>>();
        if *source == CredentialsSource::Process && !features.is_some_and(|features| features.contains(&AwsCredentialFeature::CredentialsProcess)) {
            let text = "the profile has no credential_process of its own; what else a profile can say is for profile:NAME";
            return Err(failure(source, Class::Misconfigured, text));
        }
        Ok(credentials)
    }
}

fn failure(source: &CredentialsSource, class: Class, text: &str) -> Failure {
    Failure { class, hop: Hop::Credentials, text: format!("the credentials source {source}: {}; {}", shortened(text), source.hint()) }
}

/// What a provider's failure means. Whatever it is, it says nothing about the customer key: only AWS KMS can deny that.
fn explain(source: &CredentialsSource, error: &CredentialsError, last: Option<Last>) -> Failure {
    let (class, seen) = match last {
        _ if matches!(error, CredentialsError::ProviderTimedOut(_)) => (Class::Unreachable, None),
        Some(Last::Nothing(text)) => (Class::Unreachable, Some(text)),
        Some(Last::Status(status)) if status >= 500 || status == 429 => (Class::Transient, Some(format!("status {status}"))),
        // Not set up, or AWS refuses: asking again changes nothing.
        Some(Last::Status(_)) | None => (Class::Misconfigured, None),
    };
    let mut words = said(error);
    if let Some(seen) = seen.filter(|seen| !words.contains(seen.as_str())) {
        words = format!("{seen}: {words}");
    }
    failure(source, class, &words)
}

/// What an error and its causes say. What a command has written to its standard error may hold anything, and is left out.
fn said(error: &CredentialsError) -> String {
    let mut parts: Vec<String> = Vec::new();
    // The outermost only says that something happened.
    let mut cause = StdError::source(error);
    while let Some(error) = cause {
        let text = error.to_string();
        let text = text.split_once(". Stderr:").map_or(text.as_str(), |(before, _)| before).to_owned();
        if !parts.iter().any(|part| part.contains(&text)) {
            parts.push(text);
        }
        cause = error.source();
    }
    if parts.is_empty() { error.to_string() } else { parts.join(": ") }
}

/// What the last request of a provider came to.
#[derive(Debug, Clone)]
enum Last {
    /// No answer, and why.
    Nothing(String),
    /// An answer.
    Status(u16),
}

/// The HTTP client of the providers: strict TLS with the node's own roots, HTTP in the clear where the address says so, no proxy, no redirects.
#[derive(Clone)]
struct NodeHttp {
    client: reqwest::Client,
    last: Arc<Mutex<Option<Last>>>,
}

impl NodeHttp {
    fn new(roots: &Arc<RootCertStore>, fips: bool) -> Result<Self, String> {
        let tls = tls::client_config(TlsPolicy::STRICT, Arc::clone(roots), None, fips)?;
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .http1_only()
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .no_proxy()
            .connect_timeout(CONNECT)
            .timeout(REQUEST)
            .build()
            .map_err(|error| error.without_url().to_string())?;
        Ok(Self { client, last: Arc::default() })
    }

    fn last(&self) -> Option<Last> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, last: Last) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(last);
    }

    async fn send(&self, request: HttpRequest) -> Result<HttpResponse, ConnectorError> {
        let request = crate::http::reqwest_request(request).map_err(|text| ConnectorError::user(text.into()))?;
        let place = format!("{}:{}", request.url().host_str().unwrap_or_default(), request.url().port_or_known_default().unwrap_or_default());
        // A provider may give up before the answer comes.
        self.note(Last::Nothing(format!("{place} has not answered in time")));
        let lost = |error: reqwest::Error| {
            let timeout = error.is_timeout();
            let text = format!("{place}: {}", if timeout { "no answer in time".to_owned() } else { deepest(&error.without_url()) });
            self.note(Last::Nothing(text.clone()));
            if timeout { ConnectorError::timeout(text.into()) } else { ConnectorError::io(text.into()) }
        };
        let answer = self.client.execute(request).await.map_err(lost)?;
        let status = answer.status().as_u16();
        let unreadable = |text: String| ConnectorError::user(format!("{place}: {text}").into());
        let answer = match crate::http::read_answer(answer).await {
            Ok(answer) => answer,
            Err(crate::http::Unread::Broken(error)) => return Err(lost(error)),
            Err(crate::http::Unread::Wrong(text)) => return Err(unreadable(text)),
        };
        self.note(Last::Status(status));
        Ok(answer)
    }
}

fn deepest(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = error.to_string();
        cause = error.source();
    }
    text
}

impl std::fmt::Debug for NodeHttp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("NodeHttp")
    }
}

impl HttpClient for NodeHttp {
    fn http_connector(&self, _settings: &HttpConnectorSettings, _components: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}

impl HttpConnector for NodeHttp {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let http = self.clone();
        HttpConnectorFuture::new(async move { http.send(request).await })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_command_writes_is_not_repeated() {
        let error = CredentialsError::provider_error("external process exited with code exit status: 1. Stderr: password is hunter2");
        let failure = explain(&CredentialsSource::Process, &error, None);
        assert!(failure.text.contains("exit status: 1") && failure.text.contains("process") && !failure.text.contains("hunter2"), "{failure}");
        assert_eq!((failure.class, failure.hop), (Class::Misconfigured, Hop::Credentials));
    }

    #[test]
    fn silence_is_an_outage_and_a_refusal_is_a_mistake() {
        let error = CredentialsError::provider_error("x");
        let class = |last| explain(&CredentialsSource::WebIdentity, &error, last).class;
        assert_eq!(class(Some(Last::Nothing("sts: refused".into()))), Class::Unreachable);
        assert_eq!(class(Some(Last::Status(503))), Class::Transient);
        assert_eq!(class(Some(Last::Status(403))), Class::Misconfigured);
        assert_eq!(explain(&CredentialsSource::Chain, &CredentialsError::provider_timed_out(REQUEST), None).class, Class::Unreachable);
    }
}

//! The HTTP client under the SDK: one for each SVM's client, with its TLS policy, proxy and limits.

use crate::budget;
use crate::client::{ClientConfig, ProxyKind, overall};
use crate::egress::EgressError;
use crate::endpoint::bracketed;
use crate::environment::Environment;
use crate::error::{Class, Failure, Hop, shortened};
use crate::tls;
use aws_smithy_runtime_api::client::http::{HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::{Bytes, BytesMut};
use reqwest::dns::{Name, Resolve, Resolving};
use reqwest::header::HeaderValue;
use rustls_pki_types::ServerName;
use secrecy::ExposeSecret;
use std::error::Error as StdError;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use zeroize::Zeroizing;

/// The longest answer that is read. AWS's are some 10 KiB at the most (blobs are at most 6144 bytes, in base64).
const MAX_ANSWER: usize = 64 * 1024;
/// What is said to those who would wait for their turn too long.
pub(crate) const BUSY: &str = "too many requests to this account and region wait already; raise [aws_kms] requests_per_second if AWS's quota allows it";

/// Sends the SDK's requests. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Connector {
    inner: Arc<Inner>,
}

struct Inner {
    client: reqwest::Client,
    environment: Environment,
    host: String,
    port: u16,
    /// Name or address, and port.
    proxy: Option<(String, u16)>,
    /// The limit of an attempt, its look-ups included.
    timeout: Duration,
    /// Whose quota it is: the access key, or the source and the account.
    payer: String,
    region: String,
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Connector({}:{})", self.inner.host, self.inner.port)
    }
}

impl Connector {
    /// # Errors
    /// A text for the operator: the CA certificates, the proxy or the TLS settings cannot be used.
    pub(crate) fn new(environment: &Environment, config: &ClientConfig, host: String) -> Result<Self, String> {
        let roots = tls::roots(environment.roots(), config.ca_certificates.as_deref())?;
        let proxy_name = match &config.proxy {
            Some(proxy) if proxy.kind == ProxyKind::Https => {
                let name = ServerName::try_from(proxy.host.clone()).map_err(|_| format!("{:?} is not a host name", proxy.host))?;
                Some((name, Arc::clone(environment.roots())))
            }
            _ => None,
        };
        let tls = tls::client_config(config.tls, roots, proxy_name, environment.fips())?;
        // With a proxy, only the proxy's name is resolved here.
        let port = config.proxy.as_ref().map_or(config.endpoint.port, |proxy| proxy.port);
        let mut builder = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .https_only(true)
            .http1_only()
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            // reqwest reads HTTP_PROXY and the like by itself.
            .no_proxy()
            // A little less, so that a connection that hangs is told apart from an answer that does not come.
            .connect_timeout(config.timeout * 9 / 10)
            .timeout(config.timeout)
            .pool_max_idle_per_host(2)
            .dns_resolver(Guarded { environment: environment.clone(), port, limit: config.timeout * 3 / 4 });
        if let Some(proxy) = &config.proxy {
            builder = builder.proxy(self::proxy(proxy)?);
        }
        let client = builder.build().map_err(|error| error.without_url().to_string())?;
        Ok(Self {
            inner: Arc::new(Inner {
                client,
                environment: environment.clone(),
                host,
                port: config.endpoint.port,
                proxy: config.proxy.as_ref().map(|proxy| (proxy.host.clone(), proxy.port)),
                timeout: config.timeout,
                payer: config.credentials.payer(),
                region: config.endpoint.region.clone(),
            }),
        })
    }
}

impl Connector {
    /// Waits for the turn of one request; `false`, at once, where that would take longer than `patience`.
    pub(crate) async fn turn(&self, patience: Duration) -> bool {
        self.inner.turn(patience).await
    }
}

fn proxy(proxy: &crate::client::Proxy) -> Result<reqwest::Proxy, String> {
    let scheme = match proxy.kind {
        ProxyKind::Http => "http",
        ProxyKind::Https => "https",
    };
    let url = format!("{scheme}://{}:{}", bracketed(&proxy.host), proxy.port);
    let made = reqwest::Proxy::https(url).map_err(|_| format!("{:?} is not a host name", proxy.host))?;
    let Some(username) = &proxy.username else { return Ok(made) };
    let password = proxy.password.as_ref().map_or("", |password| password.expose_secret());
    Ok(made.custom_http_auth(login(username, password)?))
}

/// RFC 7617. reqwest's own `basic_auth` keeps the login in a URL, out of which `%41` comes as `A`.
fn login(username: &str, password: &str) -> Result<HeaderValue, String> {
    let both = Zeroizing::new(format!("{username}:{password}"));
    let value = Zeroizing::new(format!("Basic {}", BASE64.encode(both.as_bytes())));
    let mut header = HeaderValue::from_str(&value).map_err(|_| "the proxy's login cannot be sent".to_owned())?;
    header.set_sensitive(true);
    Ok(header)
}

impl HttpClient for Connector {
    fn http_connector(&self, _settings: &HttpConnectorSettings, _components: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}

impl HttpConnector for Connector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let inner = Arc::clone(&self.inner);
        HttpConnectorFuture::new(async move { inner.send(request).await.map_err(Trouble::into_connector_error) })
    }
}

impl Inner {
    async fn turn(&self, patience: Duration) -> bool {
        self.environment.limiter().acquire(&self.payer, &self.region, patience).await
    }

    async fn send(&self, request: HttpRequest) -> Result<HttpResponse, Trouble> {
        let patience = budget::left().unwrap_or(overall(self.timeout)).saturating_sub(self.timeout);
        if !budget::take_turn() && !self.turn(patience).await {
            return Err(Trouble::busy());
        }
        let limit = budget::left().unwrap_or(self.timeout).min(self.timeout);
        let start = Instant::now();
        self.check_hosts().await?;
        let mut request = reqwest_request(request).map_err(|text| Trouble::fatal(Hop::Settings, text))?;
        *request.timeout_mut() = Some(limit.saturating_sub(start.elapsed()));
        let answer = self.client.execute(request).await.map_err(|error| self.trouble(error))?;
        read_answer(answer).await.map_err(|unread| match unread {
            Unread::Broken(error) => self.trouble(error),
            Unread::Wrong(text) => Trouble::fatal(Hop::Http, text),
        })
    }

    /// Addresses never pass through the resolver, and a proxy resolves names by itself: both are looked at here, each time.
    async fn check_hosts(&self) -> Result<(), Trouble> {
        let egress = |error: EgressError| Trouble::fatal(Hop::Egress, error.to_string());
        let is_address = |host: &str| host.parse::<IpAddr>().is_ok();
        if let Some((host, port)) = self.proxy.as_ref().filter(|(host, _)| is_address(host)) {
            self.environment.check_host(host, *port).await.map_err(egress)?;
        }
        if self.proxy.is_some() || is_address(&self.host) {
            self.environment.check_host_within(&self.host, self.port, self.timeout / 4).await.map_err(egress)?;
        }
        Ok(())
    }

    fn trouble(&self, error: reqwest::Error) -> Trouble {
        let (timeout, connect) = (error.is_timeout(), error.is_connect());
        let error = error.without_url();
        let mut tunnel = None;
        let mut deepest = error.to_string();
        let mut cause: Option<&(dyn StdError + 'static)> = error.source();
        while let Some(error) = cause {
            if let Some(EgressError::Inside { .. }) = error.downcast_ref::<EgressError>() {
                return Trouble::fatal(Hop::Egress, error.to_string());
            }
            if let Some(failure) = error.downcast_ref::<Failure>() {
                return Trouble { failure: failure.clone(), kind: Kind::Io };
            }
            if let Some(tls) = tls_error(error) {
                let hop = if tunnel.is_some() { Hop::Proxy } else { Hop::Tls };
                return Trouble::fatal(hop, format!("TLS: {tls}"));
            }
            deepest = error.to_string();
            if deepest.starts_with("tunnel error") {
                tunnel = Some(deepest.clone());
            }
            cause = error.source();
        }
        let way = if self.proxy.is_some() { Hop::Proxy } else { Hop::Connect };
        let kind = if timeout { Kind::Timeout } else { Kind::Io };
        match tunnel {
            // An answer of the proxy does not change by asking again.
            Some(text) if text.contains("authorization required") => Trouble::fatal(Hop::Proxy, "the proxy refuses the login (407)".to_owned()),
            Some(text) if text.ends_with("unsuccessful") => {
                Trouble::fatal(Hop::Proxy, "the proxy refuses to connect to this endpoint, or refuses the login".to_owned())
            }
            Some(_) => Trouble::new(Hop::Proxy, deepest, kind),
            None if timeout => {
                let hop = if connect { way } else { Hop::Http };
                Trouble::new(hop, "no answer in time".to_owned(), kind)
            }
            None if connect => Trouble::new(way, deepest, kind),
            None => Trouble::new(Hop::Http, deepest, kind),
        }
    }
}

/// The TLS error inside an I/O error.
fn tls_error(error: &(dyn StdError + 'static)) -> Option<String> {
    if let Some(tls) = error.downcast_ref::<rustls::Error>() {
        return Some(tls.to_string());
    }
    // An I/O error may hold another one.
    tls_error(error.downcast_ref::<std::io::Error>()?.get_ref()?)
}

/// The SDK's request as one of the HTTP client.
pub(crate) fn reqwest_request(request: HttpRequest) -> Result<reqwest::Request, String> {
    let request = request.try_into_http1x().map_err(|error| error.to_string())?;
    let request = request.map(|body| body.bytes().map(Bytes::copy_from_slice).unwrap_or_default());
    reqwest::Request::try_from(request).map_err(|error| error.without_url().to_string())
}

/// Why an answer could not be read to its end.
pub(crate) enum Unread {
    /// The connection.
    Broken(reqwest::Error),
    /// The answer itself.
    Wrong(String),
}

/// Reads an answer whole, for the SDK.
pub(crate) async fn read_answer(mut answer: reqwest::Response) -> Result<HttpResponse, Unread> {
    let unreadable = || Unread::Wrong("the answer is not HTTP".to_owned());
    let mut head = aws_smithy_runtime_api::http::Response::new(answer.status().as_u16().try_into().map_err(|_| unreadable())?, SdkBody::empty());
    for (name, value) in answer.headers() {
        if let Ok(value) = value.to_str() {
            head.headers_mut().try_append(name.as_str().to_owned(), value.to_owned()).map_err(|_| unreadable())?;
        }
    }
    let mut body = BytesMut::new();
    while let Some(chunk) = answer.chunk().await.map_err(Unread::Broken)? {
        if body.len() + chunk.len() > MAX_ANSWER {
            return Err(Unread::Wrong(format!("the answer is longer than {MAX_ANSWER} bytes, so it is not AWS's")));
        }
        body.extend_from_slice(&chunk);
    }
    *head.body_mut() = SdkBody::from(body.freeze());
    Ok(head)
}

/// A failure, and whether the SDK may try again.
struct Trouble {
    failure: Failure,
    kind: Kind,
}

enum Kind {
    Io,
    Timeout,
    /// Trying again changes nothing.
    Fatal,
}

impl Trouble {
    fn fatal(hop: Hop, text: String) -> Self {
        Self::new(hop, text, Kind::Fatal)
    }

    /// The text may be a peer's: a certificate's names, say.
    fn new(hop: Hop, text: String, kind: Kind) -> Self {
        Self { failure: Failure { class: Class::Unreachable, hop, text: shortened(&text) }, kind }
    }

    fn busy() -> Self {
        Self { failure: Failure { class: Class::Transient, hop: Hop::Http, text: BUSY.to_owned() }, kind: Kind::Fatal }
    }

    fn into_connector_error(self) -> ConnectorError {
        let failure = Box::new(self.failure);
        match self.kind {
            Kind::Io => ConnectorError::io(failure),
            Kind::Timeout => ConnectorError::timeout(failure),
            Kind::Fatal => ConnectorError::user(failure),
        }
    }
}

/// The resolver of a client's connections: only addresses that the egress rule lets through come out of it, and those are the ones that are connected to.
struct Guarded {
    environment: Environment,
    port: u16,
    limit: Duration,
}

impl Resolve for Guarded {
    fn resolve(&self, name: Name) -> Resolving {
        let environment = self.environment.clone();
        let (port, limit) = (self.port, self.limit);
        Box::pin(async move {
            let host = name.as_str().to_owned();
            let failure = |text: String| Failure { class: Class::Unreachable, hop: Hop::Resolve, text: shortened(&text) };
            let found = tokio::time::timeout(limit, environment.resolver().resolve(&host)).await;
            let found = found.unwrap_or_else(|_| Err("no answer in time".to_owned()));
            let addresses = found.map_err(|why| failure(format!("{host} does not resolve: {why}")))?;
            if addresses.is_empty() {
                return Err(Box::new(failure(format!("{host} has no address"))) as Box<dyn StdError + Send + Sync>);
            }
            let egress = environment.egress();
            let mut refused = None;
            let mut passed = Vec::new();
            for address in addresses {
                match egress.check(&host, address, port) {
                    Ok(()) => passed.push(SocketAddr::new(address, 0)),
                    Err(error) => refused = Some(error),
                }
            }
            match refused {
                Some(error) if passed.is_empty() => Err(Box::new(error) as Box<dyn StdError + Send + Sync>),
                _ => Ok(Box::new(passed.into_iter()) as Box<dyn Iterator<Item = SocketAddr> + Send>),
            }
        })
    }
}

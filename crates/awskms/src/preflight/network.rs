//! The steps of a preflight below HTTP: from the name to AWS's clock, on connections of its own.

use super::advice;
use super::report::Report;
use super::wire::{self, Stream, Trouble};
use crate::client::{ClientConfig, ProxyKind};
use crate::endpoint::{bracketed, normal_host};
use crate::environment::Environment;
use crate::error::{Error, SKEW, skew_of};
use crate::tls;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::header::HeaderValue;
use rustls::client::danger::ServerCertVerifier;
use rustls_pki_types::ServerName;
use secrecy::ExposeSecret;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use zeroize::Zeroizing;

/// How many addresses of a name are tried.
const MOST_ADDRESSES: usize = 16;

/// The way of one configuration to AWS, ready to be walked.
pub(super) struct Probe {
    environment: Environment,
    target: Place,
    proxy: Option<ProxyWay>,
    verifier: Arc<dyn ServerCertVerifier>,
    timeout: Duration,
}

/// A host in its normal form, and its port.
struct Place {
    host: String,
    port: u16,
    name: ServerName<'static>,
}

struct ProxyWay {
    place: Place,
    https: bool,
    /// The login, marked as sensitive: it shows in no text.
    login: Option<HeaderValue>,
}

/// The addresses that a place stands for.
struct Resolved {
    /// Those of the first hop: the proxy, or AWS.
    hop: Vec<IpAddr>,
    /// Those of AWS behind a proxy, where this node knows them.
    behind: Vec<IpAddr>,
}

impl Probe {
    /// # Errors
    /// [`Hop::Settings`](crate::Hop::Settings).
    pub fn new(environment: &Environment, config: &ClientConfig) -> Result<Self, Error> {
        let settings = |text: String| Error::settings("AWS KMS".to_owned(), text);
        let host = config.endpoint.host_name().map_err(|error| settings(error.to_string()))?;
        let target = Place::new(host, config.endpoint.port).map_err(settings)?;
        let proxy = config.proxy.as_ref().map(|proxy| ProxyWay::new(proxy).map_err(settings)).transpose()?;
        let strict = proxy.as_ref().filter(|proxy| proxy.https).map(|proxy| (proxy.place.name.clone(), Arc::clone(environment.roots())));
        let roots = tls::roots(environment.roots(), config.ca_certificates.as_deref()).map_err(settings)?;
        let verifier = tls::verifier_of(config.tls, roots, strict).map_err(settings)?;
        Ok(Self { environment: environment.clone(), target, proxy, verifier, timeout: config.timeout })
    }

    /// Walks the way, each step within the configured timeout and all of them within `total`. Answers whether AWS can be asked: all but the clocks are well.
    pub async fn walk(&self, report: &mut Report, total: Duration) -> bool {
        let until = Instant::now() + total;
        // What runs in the background for these connections ends with them.
        let mut tasks = JoinSet::new();
        match self.connected(report, until, &mut tasks).await {
            Some(stream) => {
                self.clocks(report, until, stream, &mut tasks).await;
                true
            }
            None => {
                let failed = report.failed().map_or("a step", |step| step.name);
                report.skip_rest(&format!("{failed} has failed"));
                false
            }
        }
    }

    async fn connected(&self, report: &mut Report, until: Instant, tasks: &mut JoinSet<()>) -> Option<Stream> {
        let resolved = self.dns(report, until).await?;
        let addresses = self.egress(report, &resolved)?;
        let stream = self.route(report, until, &addresses).await?;
        let stream = match &self.proxy {
            None => {
                report.skip("proxy", Duration::ZERO, "no proxy is set");
                stream
            }
            Some(proxy) => {
                let target = format!("{}:{}", bracketed(&self.target.host), self.target.port);
                let asked = async {
                    let (stream, seen) = match proxy.https {
                        false => (stream, String::new()),
                        true => wire::handshake(&self.verifier, proxy.place.name.clone(), stream, true, self.environment.fips())
                            .await
                            .map(|(stream, seen)| (stream, format!("{seen}; ")))?,
                    };
                    let (stream, status) = wire::tunnel(stream, &target, proxy.login.as_ref(), tasks).await?;
                    Ok((stream, format!("{seen}{status}")))
                };
                self.step(report, "proxy", until, advice::PROXY_SILENT, asked).await?
            }
        };
        let shaken = wire::handshake(&self.verifier, self.target.name.clone(), stream, false, self.environment.fips());
        self.step(report, "tls", until, advice::tls(None, false), shaken).await
    }

    async fn dns(&self, report: &mut Report, until: Instant) -> Option<Resolved> {
        let hop = self.hop();
        let looked = async {
            let advice = advice::dns(self.proxy.is_some());
            let found = self.resolve(&hop.host).await.map_err(|why| Trouble::new(format!("{} does not resolve: {why}", hop.host), advice))?;
            if found.is_empty() {
                return Err(Trouble::new(format!("{} has no address", hop.host), advice));
            }
            let mut seen = self.shown(hop, &found);
            let mut behind = Vec::new();
            if self.proxy.is_some() {
                // A proxy resolves AWS's name by itself, so that this node does not know it is no failure, and must not take the time of those that follow.
                match timeout(self.timeout / 4, self.resolve(&self.target.host)).await {
                    Ok(Ok(found)) => {
                        seen = format!("{seen}; {}", self.shown(&self.target, &found));
                        behind = found;
                    }
                    Ok(Err(_)) | Err(_) => seen = format!("{seen}; {} does not resolve here, the proxy must know it", self.target.host),
                }
            }
            Ok((Resolved { hop: found, behind }, seen))
        };
        self.step(report, "dns", until, advice::dns(self.proxy.is_some()), looked).await
    }

    /// Before anything is connected to. Of the first hop, what the rule refuses is left out, as every connection of the client does; behind a proxy this node cannot choose, so all must pass.
    fn egress(&self, report: &mut Report, resolved: &Resolved) -> Option<Vec<SocketAddr>> {
        let rule = self.environment.egress();
        let hop = self.hop();
        let behind = resolved.behind.iter().try_for_each(|address| rule.check(&self.target.host, *address, self.target.port));
        let mut passed = Vec::new();
        let mut refused = None;
        for address in &resolved.hop {
            match rule.check(&hop.host, *address, hop.port) {
                Ok(()) => passed.push(SocketAddr::new(*address, hop.port)),
                Err(error) => refused = Some(error),
            }
        }
        let refused = refused.filter(|_| passed.is_empty()).or_else(|| behind.err());
        if let Some(error) = refused {
            report.fail("egress", Duration::ZERO, &error.to_string(), advice::EGRESS);
            return None;
        }
        report.pass("egress", Duration::ZERO, "the rule lets this endpoint through");
        passed.truncate(MOST_ADDRESSES);
        Some(passed)
    }

    async fn route(&self, report: &mut Report, until: Instant, addresses: &[SocketAddr]) -> Option<Stream> {
        let advice = advice::route(self.proxy.is_some());
        // A little less than the step, so that the addresses that were tried are named.
        let limit = self.limit(until) * 9 / 10;
        let connected = async {
            let (stream, address) = wire::connect(addresses, limit).await.map_err(|text| Trouble::new(text, advice))?;
            Ok((Box::new(stream) as Stream, format!("connected to {address}")))
        };
        self.step(report, "route", until, advice, connected).await
    }

    async fn clocks(&self, report: &mut Report, until: Instant, stream: Stream, tasks: &mut JoinSet<()>) {
        let start = Instant::now();
        // As the client writes it: without the port where it is the usual one.
        let host = match self.target.port {
            443 => bracketed(&self.target.host),
            port => format!("{}:{port}", bracketed(&self.target.host)),
        };
        let answer = timeout(self.limit(until), wire::date(stream, &host, tasks)).await;
        let took = start.elapsed();
        let date = answer.unwrap_or_else(|_| Err("no answer in time".to_owned()));
        let unknown = |why: &str| format!("AWS's clock is not known: {why}");
        match date.and_then(|date| skew_of(&date).ok_or_else(|| "its date cannot be read".to_owned())) {
            Ok(skew) => {
                let ahead = if skew < 0 { "behind" } else { "ahead of" };
                let seen = format!("AWS's clock is {} s {ahead} this node's", skew.unsigned_abs());
                if skew.unsigned_abs() >= SKEW.unsigned_abs() {
                    report.fail("clock_skew", took, &seen, advice::CLOCK);
                } else {
                    report.pass("clock_skew", took, &seen);
                }
            }
            Err(why) => report.skip("clock_skew", took, &unknown(&why)),
        }
    }

    /// Takes a step within its limit, and writes down how it went.
    async fn step<T>(
        &self,
        report: &mut Report,
        name: &'static str,
        until: Instant,
        advice: &'static str,
        act: impl Future<Output = Result<(T, String), Trouble>>,
    ) -> Option<T> {
        let start = Instant::now();
        let result = timeout(self.limit(until), act).await.unwrap_or_else(|_| Err(Trouble::new("no answer in time", advice)));
        match result {
            Ok((done, seen)) => {
                report.pass(name, start.elapsed(), &seen);
                Some(done)
            }
            Err(trouble) => {
                report.fail(name, start.elapsed(), &trouble.detail, trouble.advice);
                None
            }
        }
    }

    fn limit(&self, until: Instant) -> Duration {
        self.timeout.min(until.saturating_duration_since(Instant::now()))
    }

    /// What this node itself connects to.
    fn hop(&self) -> &Place {
        self.proxy.as_ref().map_or(&self.target, |proxy| &proxy.place)
    }

    async fn resolve(&self, host: &str) -> Result<Vec<IpAddr>, String> {
        match host.parse() {
            Ok(address) => Ok(vec![address]),
            Err(_) => self.environment.resolver().resolve(host).await,
        }
    }

    /// The addresses of a name, but for those that the egress rule refuses: what names stand for inside is not to be learnt here.
    fn shown(&self, place: &Place, addresses: &[IpAddr]) -> String {
        if place.host.parse::<IpAddr>().is_ok() {
            return format!("{} is an address", place.host);
        }
        let rule = self.environment.egress();
        let mut passed: Vec<String> =
            addresses.iter().filter(|address| rule.check(&place.host, **address, place.port).is_ok()).map(ToString::to_string).collect();
        let refused = addresses.len() - passed.len();
        passed.truncate(MOST_ADDRESSES);
        if refused > 0 {
            passed.push(format!("{refused} that the egress rule refuses"));
        }
        format!("{} is {}", place.host, passed.join(", "))
    }
}

impl Place {
    fn new(host: String, port: u16) -> Result<Self, String> {
        let name = ServerName::try_from(host.clone()).map_err(|_| format!("{host:?} is not a host name"))?;
        Ok(Self { host, port, name })
    }
}

impl ProxyWay {
    fn new(proxy: &crate::client::Proxy) -> Result<Self, String> {
        // The text itself is not shown: operators write logins into it.
        let host = normal_host(&proxy.host).map_err(|why| format!("the proxy's host is not a host name: {why}"))?;
        let login = proxy.username.as_ref().map(|username| {
            let password = proxy.password.as_ref().map_or("", |password| password.expose_secret());
            let pair = Zeroizing::new(format!("{username}:{password}"));
            let text = Zeroizing::new(format!("Basic {}", STANDARD.encode(pair.as_bytes())));
            // Base64 is always a header's value.
            let mut value = HeaderValue::from_str(&text).map_err(|_| "the proxy's login cannot be sent".to_owned())?;
            value.set_sensitive(true);
            Ok::<_, String>(value)
        });
        Ok(Self { place: Place::new(host, proxy.port)?, https: proxy.kind == ProxyKind::Https, login: login.transpose()? })
    }
}

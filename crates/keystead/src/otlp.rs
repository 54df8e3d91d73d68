//! Traces for a collector of OpenTelemetry (OTLP over HTTP, protobuf). Off unless `[tracing] otlp_endpoint` names one.
//!
//! Spans are sent from a thread of their own, in batches, out of a queue with a bound: whoever makes them waits for nothing, and what a collector that is away does not take is let go.

use crate::config::Tracing;
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use http::{Request, Response};
use keystead_awskms::tls_provider;
use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::runtime::Handle;

/// Where a collector takes traces, below its endpoint (OTLP specification, "OTLP/HTTP Request").
const PATH: &str = "/v1/traces";
/// How long a collector may take for a batch.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long the end of the process waits for the last batch.
const END: Duration = Duration::from_secs(5);
/// How much of an answer is read: it says little.
const MOST_READ: usize = 64 * 1024;

/// The way to the collector.
pub struct Traces(SdkTracerProvider);

impl Traces {
    /// Opens it, where one is configured. Nothing is sent yet.
    ///
    /// # Errors
    /// One line for the operator.
    pub fn start(config: &Tracing, node: &str, runtime: &Handle) -> Result<Option<Self>, String> {
        let Some(endpoint) = &config.otlp_endpoint else { return Ok(None) };
        let bad = |why: String| format!("[tracing] {why}");
        let endpoint = endpoint_of(endpoint).map_err(bad)?;
        let tls = tls(&endpoint, config.ca.as_deref()).map_err(bad)?;
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(PATIENCE)
            .build()
            .map_err(|error| bad(format!("the way to the collector cannot be made: {error}")))?;
        let client = Collector { client, runtime: runtime.clone(), away: AtomicBool::new(false) };
        let exporter = SpanExporter::builder().with_http().with_http_client(client).with_endpoint(endpoint).with_protocol(Protocol::HttpBinary);
        let exporter = exporter.with_timeout(PATIENCE).build().map_err(|error| bad(format!("the way to the collector cannot be made: {error}")))?;
        let resource = Resource::builder_empty()
            .with_service_name("keystead")
            .with_attributes([KeyValue::new("service.version", env!("CARGO_PKG_VERSION")), KeyValue::new("service.instance.id", node.to_owned())])
            .build();
        Ok(Some(Self(SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build())))
    }

    /// Where spans go to.
    pub fn tracer(&self) -> SdkTracer {
        self.0.tracer("keystead")
    }

    /// Sends what is left, as far as the collector takes it in time. To be called while the runtime still runs, and not by one of its threads.
    pub fn end(self) {
        if let Err(error) = self.0.shutdown_with_timeout(END) {
            tracing::warn!(%error, "the last traces could not be delivered");
        }
    }
}

/// TLS to the collector. Without it, nobody is believed, and nobody is asked.
fn tls(endpoint: &str, ca: Option<&Path>) -> Result<rustls::ClientConfig, String> {
    if endpoint.starts_with("https:") {
        return crate::audit::client(ca);
    }
    let config = rustls::ClientConfig::builder_with_provider(Arc::new(tls_provider(true))).with_safe_default_protocol_versions();
    let config = config.map_err(|error| format!("TLS cannot be set up: {error}"))?;
    Ok(config.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth())
}

/// The address of a collector, with the path for traces.
fn endpoint_of(text: &str) -> Result<String, String> {
    let wrong = |what: &str| format!("otlp_endpoint {what}: it must be http://host:port or https://host:port of a collector, 4318 by convention");
    let url = reqwest::Url::parse(text).map_err(|_| wrong("is no URL"))?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err(wrong("is not HTTP"));
    }
    // Addresses are logged, and shown to whoever lists processes and files.
    if !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
        return Err(wrong("holds more than an address"));
    }
    let text = url.as_str().trim_end_matches('/');
    Ok(if text.ends_with(PATH) { text.to_owned() } else { format!("{text}{PATH}") })
}

/// The collector, as the exporter's own thread reaches it: the connection lives on the runtime of the node.
#[derive(Debug)]
struct Collector {
    client: reqwest::Client,
    runtime: Handle,
    away: AtomicBool,
}

#[async_trait]
impl HttpClient for Collector {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (parts, body) = request.into_parts();
        let call = self.client.request(parts.method, parts.uri.to_string()).headers(parts.headers).body(body);
        let answer = self.runtime.spawn(async move { read(call.send().await?).await }).await?;
        match &answer {
            Ok(answer) if answer.status().is_success() => {
                if self.away.swap(false, Ordering::Relaxed) {
                    tracing::info!("the collector takes traces again");
                }
            }
            // Said once.
            Ok(answer) => self.note_away(&answer.status()),
            Err(error) => self.note_away(&cause(error)),
        }
        Ok(answer?)
    }
}

impl Collector {
    fn note_away(&self, why: &dyn std::fmt::Display) {
        if !self.away.swap(true, Ordering::Relaxed) {
            tracing::warn!(%why, "the collector does not take traces; those of this time are lost");
        }
    }
}

/// What lies at the bottom of an error: the library's own words say no more than that it did not work.
fn cause(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), cause)
}

async fn read(mut answer: reqwest::Response) -> Result<Response<Bytes>, reqwest::Error> {
    let mut body = BytesMut::new();
    while let Some(part) = answer.chunk().await? {
        if body.len() + part.len() > MOST_READ {
            break;
        }
        body.extend_from_slice(&part);
    }
    let mut response = Response::new(body.freeze());
    *response.status_mut() = answer.status();
    *response.headers_mut() = std::mem::take(answer.headers_mut());
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_an_address_and_no_more() {
        for (text, url) in [
            ("http://127.0.0.1:4318", "http://127.0.0.1:4318/v1/traces"),
            ("https://collector.example/otlp/", "https://collector.example/otlp/v1/traces"),
            ("http://[::1]:4318/v1/traces", "http://[::1]:4318/v1/traces"),
        ] {
            assert_eq!(endpoint_of(text).as_deref(), Ok(url));
        }
        for bad in ["", "127.0.0.1:4318", "grpc://h:4317", "http://user@h:1", "http://:secret@h:1", "http://h:1/?token=x", "http://h:1/#x"] {
            let why = endpoint_of(bad).unwrap_err();
            assert!(why.contains("http://host:port") && !why.contains("secret") && !why.contains("token"), "{bad}: {why}");
        }
    }
}

//! A client of the REST API that is not the node's own: another account, another address, a certificate, a cookie.

use super::{Node, PASSWORD};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// A client.
#[derive(Clone)]
pub struct Caller {
    pub client: reqwest::Client,
    pub address: SocketAddr,
    login: Option<(String, String)>,
    headers: Vec<(String, String)>,
}

/// An answer: status, headers, body.
pub struct Answer {
    pub status: u16,
    pub headers: reqwest::header::HeaderMap,
    pub body: Value,
}

impl Answer {
    /// The code of an error; empty where it is none.
    pub fn code(&self) -> &str {
        self.body["error"]["code"].as_str().unwrap_or_default()
    }

    pub fn target(&self) -> &str {
        self.body["error"]["target"].as_str().unwrap_or_default()
    }
}

impl Node {
    /// A client that logs in with a name and a password.
    pub fn caller(&self, name: &str, password: &str) -> Caller {
        Caller { login: Some((name.into(), password.into())), ..self.nobody() }
    }

    /// A client that does not log in.
    pub fn nobody(&self) -> Caller {
        Caller { client: self.builder(None).build().unwrap(), address: self.address, login: None, headers: Vec::new() }
    }

    /// The same from another address of the loopback network.
    pub fn caller_from(&self, source: IpAddr, name: &str, password: &str) -> Caller {
        Caller { client: self.builder(None).local_address(source).build().unwrap(), ..self.caller(name, password) }
    }

    /// A client that shows a certificate (PEM, those above it too), and does not log in otherwise.
    pub fn caller_with(&self, certificate: &str, key: &str) -> Caller {
        Caller { client: self.builder(Some((certificate, key))).build().unwrap(), ..self.nobody() }
    }

    /// A client that follows nothing by itself.
    pub fn browser(&self) -> reqwest::Client {
        self.builder(None).redirect(reqwest::redirect::Policy::none()).build().unwrap()
    }

    /// Makes an account, with the password of `admin`.
    pub async fn account(&self, name: &str, role: &str, owner: Option<&str>) -> Caller {
        let mut body = json!({ "name": name, "password": PASSWORD, "role": { "name": role } });
        if let Some(owner) = owner {
            body["owner"] = json!({ "name": owner });
        }
        let (status, body) = self.ask("POST", "/security/accounts", Some(body)).await;
        assert_eq!(status, 201, "{body}");
        self.caller(name, PASSWORD)
    }

    fn builder(&self, identity: Option<(&str, &str)>) -> reqwest::ClientBuilder {
        let ca = std::fs::read(self.folder.path().join("data/ca.pem")).unwrap();
        let mut roots = rustls::RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&ca) {
            roots.add(certificate.unwrap()).unwrap();
        }
        let config = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let config = match identity {
            None => config.with_no_client_auth(),
            Some((chain, key)) => {
                let chain = CertificateDer::pem_slice_iter(chain.as_bytes()).map(Result::unwrap).collect();
                config.with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap()).unwrap()
            }
        };
        reqwest::Client::builder().tls_backend_preconfigured(config).no_proxy()
    }
}

impl Caller {
    /// The same with a header in each request.
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// The same connection with another password.
    pub fn guessing(&self, password: &str) -> Self {
        let name = self.login.as_ref().map(|(name, _)| name.clone()).unwrap_or_default();
        Self { login: Some((name, password.into())), ..self.clone() }
    }

    /// Calls; `None`: the connection ended without an answer.
    pub async fn try_call(&self, method: &str, path: &str, body: Option<Value>) -> Option<Answer> {
        let mut request = self.client.request(method.parse().unwrap(), format!("https://{}/api{path}", self.address));
        if let Some((name, password)) = &self.login {
            request = request.basic_auth(name, Some(password));
        }
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        if let Some(body) = body {
            request = request.body(body.to_string());
        }
        let answer = request.send().await.ok()?;
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        Some(Answer { status, headers, body: serde_json::from_slice(&answer.bytes().await.ok()?).unwrap_or_default() })
    }

    pub async fn call(&self, method: &str, path: &str, body: Option<Value>) -> Answer {
        self.try_call(method, path, body).await.unwrap_or_else(|| panic!("{method} {path}: no answer"))
    }

    /// The status of a GET of the cluster: whether this client is logged in.
    pub async fn login(&self) -> u16 {
        self.call("GET", "/cluster", None).await.status
    }
}

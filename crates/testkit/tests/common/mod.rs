//! A client that speaks raw HTTP and signs by itself, so that broken answers can be looked at byte by byte.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use keystead_testkit::sigv4::{Credential, SignedRequest, sign};
use keystead_testkit::{KmsStandIn, NewKey, Options};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

pub const ACCESS_KEY: &str = "AKIAIOSFODNN7EXAMPLE";
pub const SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";

pub struct Client<'a> {
    pub aws: &'a KmsStandIn,
    pub access_key_id: String,
    pub secret: String,
    pub session_token: Option<String>,
    pub service: String,
    /// How far the client's clock is ahead.
    pub ahead: SignedDuration,
    /// Leaves the signature out.
    pub unsigned: bool,
}

/// An answer, or what there was of one.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// `ok`, or the code of an AWS error.
    pub fn code(&self) -> String {
        if self.status == 200 { "ok".into() } else { self.json()["__type"].as_str().unwrap().into() }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.split_once(": ").filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v))
    }
}

/// A stand-in with one access key and the key `k1`.
pub async fn stand_in() -> KmsStandIn {
    let aws = KmsStandIn::start(Options::default()).await.unwrap();
    aws.add_access_key(ACCESS_KEY, SECRET);
    aws.create_key(NewKey { key_id: Some("k1".into()), alias: Some("svm1".into()), ..NewKey::default() }).unwrap();
    aws
}

impl<'a> Client<'a> {
    pub fn new(aws: &'a KmsStandIn) -> Self {
        let (access_key_id, secret, service) = (ACCESS_KEY.into(), SECRET.into(), "kms".into());
        Self { aws, access_key_id, secret, session_token: None, service, ahead: SignedDuration::ZERO, unsigned: false }
    }

    /// Calls an operation; `None` when the connection was closed without any answer.
    pub async fn try_call(&self, operation: &str, input: &Value) -> Option<Answer> {
        let body = input.to_string().into_bytes();
        let amz_date = (Timestamp::now() + self.ahead).strftime("%Y%m%dT%H%M%SZ").to_string();
        let mut headers = vec![
            ("content-type".to_owned(), "application/x-amz-json-1.1".to_owned()),
            ("host".to_owned(), self.aws.addr().to_string()),
            ("x-amz-date".to_owned(), amz_date.clone()),
            ("x-amz-target".to_owned(), format!("TrentService.{operation}")),
        ];
        headers.extend(self.session_token.iter().map(|token| ("x-amz-security-token".to_owned(), token.clone())));
        if !self.unsigned {
            let request = SignedRequest { method: "POST", path: "/", query: "", headers: &headers, body: &body };
            let credential =
                Credential { access_key_id: self.access_key_id.clone(), date: amz_date[..8].into(), region: "us-east-1".into(), service: self.service.clone() };
            let authorization = sign(&request, &credential, &self.secret, &amz_date);
            headers.push(("authorization".into(), authorization));
        }
        http(self.aws, "POST", "/", &headers, &body).await
    }

    pub async fn call(&self, operation: &str, input: &Value) -> Answer {
        self.try_call(operation, input).await.expect("no answer")
    }

    pub async fn encrypt(&self) -> Answer {
        self.call("Encrypt", &json!({"KeyId": "k1", "Plaintext": "a2Vr", "EncryptionContext": {"a:b": "c"}})).await
    }

    pub async fn decrypt(&self, blob: &str) -> Answer {
        self.call("Decrypt", &json!({"KeyId": "k1", "CiphertextBlob": blob, "EncryptionContext": {"a:b": "c"}})).await
    }
}

/// A control request over the wire.
pub async fn control(aws: &KmsStandIn, method: &str, path: &str, body: Value) -> Answer {
    let headers = [("host".to_owned(), aws.addr().to_string())];
    http(aws, method, &format!("/_control/{path}"), &headers, body.to_string().as_bytes()).await.unwrap()
}

async fn http(aws: &KmsStandIn, method: &str, path: &str, headers: &[(String, String)], body: &[u8]) -> Option<Answer> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(aws.ca_pem().unwrap().as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let connector = TlsConnector::from(Arc::new(config.with_root_certificates(roots).with_no_client_auth()));
    let tcp = TcpStream::connect(aws.addr()).await.unwrap();
    let mut stream = connector.connect(ServerName::try_from("127.0.0.1").unwrap(), tcp).await.unwrap();

    let mut request = format!("{method} {path} HTTP/1.1\r\nconnection: close\r\ncontent-length: {}\r\n", body.len());
    headers.iter().for_each(|(name, value)| request.push_str(&format!("{name}: {value}\r\n")));
    request.push_str("\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    stream.write_all(body).await.unwrap();
    let mut answer = Vec::new();
    // A connection that is broken off ends in an error; what came before it counts.
    let _ = stream.read_to_end(&mut answer).await;
    let at = answer.windows(4).position(|w| w == b"\r\n\r\n")?;
    let head = String::from_utf8(answer[..at].to_vec()).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Some(Answer { status, head, body: answer[at + 4..].to_vec() })
}

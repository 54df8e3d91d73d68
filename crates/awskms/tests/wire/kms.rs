//! A small AWS KMS stand-in: TLS, HTTP/1.1, a check of each request's signature, and answers as the test says.

use crate::pki::Tls;
use aws_lc_rs::{digest, hmac};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;

pub const ACCESS_KEY_ID: &str = "AKIAIOSFODNN7EXAMPLE";
pub const SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
pub const REGION: &str = "eu-west-1";
pub const ARN: &str = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";

/// One request as it came.
#[derive(Debug, Clone)]
pub struct Seen {
    pub method: String,
    pub path: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Seen {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// Whether the signature is the one that AWS would compute over what really came (AWS General Reference, "Signature Version 4").
    pub fn is_signed(&self) -> bool {
        self.is_signed_by(SECRET)
    }

    /// The same with another secret.
    pub fn is_signed_by(&self, secret: &str) -> bool {
        let authorization = self.header("authorization").unwrap();
        let field = |name: &str| authorization.split_once(name).unwrap().1.split(", ").next().unwrap().to_owned();
        let (credential, signed, signature) = (field("Credential="), field("SignedHeaders="), field("Signature="));
        let scope = credential.split_once('/').unwrap().1;
        let mut canonical = format!("{}\n{}\n\n", self.method, self.path);
        for name in signed.split(';') {
            canonical += &format!("{name}:{}\n", self.header(name).unwrap_or_default().trim());
        }
        canonical += &format!("\n{signed}\n{}", hex(digest::digest(&digest::SHA256, &self.body).as_ref()));
        let hash = hex(digest::digest(&digest::SHA256, canonical.as_bytes()).as_ref());
        let text = format!("AWS4-HMAC-SHA256\n{}\n{scope}\n{hash}", self.header("x-amz-date").unwrap());
        let mut key = format!("AWS4{secret}").into_bytes();
        for part in scope.split('/') {
            key = mac(&key, part);
        }
        hex(&mac(&key, &text)) == signature
    }
}

fn mac(key: &[u8], text: &str) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes()).as_ref().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What the stand-in does with a request.
#[derive(Debug, Clone)]
pub enum Answer {
    /// A whole answer; the connection stays.
    Full { status: u16, headers: Vec<(&'static str, String)>, body: Vec<u8> },
    /// These bytes, and the end.
    Raw(Vec<u8>),
    /// Nothing, and the connection stays.
    Silence,
    /// These bytes, then nothing, and the connection stays.
    Stall(Vec<u8>),
}

/// DescribeKey's answer.
pub fn described() -> Answer {
    let body = format!(r#"{{"KeyMetadata":{{"KeyId":"1234abcd","Arn":"{ARN}","Enabled":true,"KeyState":"Enabled","KeyUsage":"ENCRYPT_DECRYPT"}}}}"#);
    Answer::Full { status: 200, headers: vec![("x-amzn-requestid", "r-1".into())], body: body.into_bytes() }
}

/// An error in AWS's own form.
pub fn refused(status: u16, code: &str, message: &str) -> Answer {
    let body = serde_json::json!({"__type": code, "message": message}).to_string().into_bytes();
    Answer::Full { status, headers: vec![("x-amzn-requestid", "r-1".into()), ("content-type", "application/x-amz-json-1.1".into())], body }
}

/// Any answer.
pub fn plain(status: u16, body: &str) -> Answer {
    Answer::Full { status, headers: Vec::new(), body: body.as_bytes().to_vec() }
}

pub struct Kms {
    pub address: SocketAddr,
    pub connections: Arc<AtomicUsize>,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Kms {
    /// Starts on a free port. `answer` gets the request and its number, from 0.
    pub async fn start(tls: Tls, answer: impl Fn(&Seen, usize) -> Answer + Send + Sync + 'static) -> Self {
        Self::start_over(Some(tls), answer).await
    }

    /// The same in the clear, for other services than KMS.
    pub async fn in_the_clear(answer: impl Fn(&Seen, usize) -> Answer + Send + Sync + 'static) -> Self {
        Self::start_over(None, answer).await
    }

    async fn start_over(tls: Option<Tls>, answer: impl Fn(&Seen, usize) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let kms = Self { address: listener.local_addr().unwrap(), connections: Arc::default(), seen: Arc::default() };
        let (connections, seen, answer) = (Arc::clone(&kms.connections), Arc::clone(&kms.seen), Arc::new(answer));
        tokio::spawn(async move {
            let acceptor = tls.map(tokio_rustls::TlsAcceptor::from);
            while let Ok((stream, _)) = listener.accept().await {
                connections.fetch_add(1, Ordering::SeqCst);
                let (acceptor, seen, answer) = (acceptor.clone(), Arc::clone(&seen), Arc::clone(&answer));
                tokio::spawn(async move {
                    let Some(acceptor) = acceptor else {
                        let _ = serve(stream, &seen, &*answer).await;
                        return;
                    };
                    if let Ok(stream) = acceptor.accept(stream).await {
                        let _ = serve(stream, &seen, &*answer).await;
                    }
                });
            }
        });
        kms
    }

    /// The same answer, always.
    pub async fn answering(tls: Tls, answer: Answer) -> Self {
        Self::start(tls, move |_, _| answer.clone()).await
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// How many requests have come.
    pub fn count(&self) -> usize {
        self.seen.lock().unwrap().len()
    }
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    seen: &Mutex<Vec<Seen>>,
    answer: &(dyn Fn(&Seen, usize) -> Answer + Send + Sync),
) -> std::io::Result<()> {
    while let Some(request) = read(&mut stream).await? {
        let number = {
            let mut seen = seen.lock().unwrap();
            seen.push(request.clone());
            seen.len() - 1
        };
        match answer(&request, number) {
            Answer::Full { status, headers, body } => {
                let mut head = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n", body.len());
                for (name, value) in headers {
                    head += &format!("{name}: {value}\r\n");
                }
                stream.write_all(format!("{head}\r\n").as_bytes()).await?;
                stream.write_all(&body).await?;
                stream.flush().await?;
            }
            Answer::Raw(bytes) => {
                stream.write_all(&bytes).await?;
                return stream.shutdown().await;
            }
            Answer::Silence => tokio::time::sleep(Duration::from_secs(600)).await,
            Answer::Stall(bytes) => {
                stream.write_all(&bytes).await?;
                stream.flush().await?;
                tokio::time::sleep(Duration::from_secs(600)).await;
            }
        }
    }
    Ok(())
}

/// Reads a head up to the empty line.
pub async fn head<S: AsyncRead + Unpin>(stream: &mut S) -> std::io::Result<Option<String>> {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if stream.read(&mut byte).await? == 0 {
            return Ok(None);
        }
        bytes.push(byte[0]);
    }
    Ok(Some(String::from_utf8(bytes).unwrap()))
}

async fn read<S: AsyncRead + Unpin>(stream: &mut S) -> std::io::Result<Option<Seen>> {
    let Some(head) = head(stream).await? else { return Ok(None) };
    let mut lines = head.split("\r\n");
    let mut first = lines.next().unwrap().split(' ');
    let (method, path) = (first.next().unwrap().to_owned(), first.next().unwrap().to_owned());
    let headers = lines.filter_map(|line| line.split_once(": ")).map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let mut seen = Seen { method, path, headers, body: Vec::new() };
    let length = seen.header("content-length").map_or(0, |length| length.parse().unwrap());
    seen.body.resize(length, 0);
    stream.read_exact(&mut seen.body).await?;
    Ok(Some(seen))
}

//! CONNECT proxies.

use crate::kms::head;
use crate::pki::Tls;
use keystead_awskms::{Proxy, ProxyKind};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

pub const USER: &str = "squid user%41";
pub const PASSWORD: &str = "pr0xy-p4ss:word@/%42 % ü+";
/// The two, as RFC 7617 puts them together.
pub const LOGIN: &str = "Basic c3F1aWQgdXNlciU0MTpwcjB4eS1wNHNzOndvcmRALyU0MiAlIMO8Kw==";

/// What a proxy does with a CONNECT.
#[derive(Clone, Copy)]
pub enum Mode {
    /// Leads to the stand-in, whatever host is asked for.
    Open,
    /// The same, to who logs in; else this status.
    Login(u16),
    /// Answers this status.
    Refuse(u16),
    /// Says nothing.
    Silence,
    /// Hangs up.
    Drop,
}

pub struct Server {
    pub address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// `tls`: an https proxy.
    pub async fn start(tls: Option<Tls>, mode: Mode, upstream: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Self { address: listener.local_addr().unwrap(), heads: Arc::default() };
        let heads = Arc::clone(&server.heads);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (tls, heads) = (tls.clone(), Arc::clone(&heads));
                tokio::spawn(async move {
                    match tls {
                        Some(tls) => {
                            if let Ok(stream) = tokio_rustls::TlsAcceptor::from(tls).accept(stream).await {
                                serve(stream, mode, upstream, &heads).await;
                            }
                        }
                        None => serve(stream, mode, upstream, &heads).await,
                    }
                });
            }
        });
        server
    }

    /// What it was asked, head by head.
    pub fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }

    /// The settings that lead here, under this name.
    pub fn at(&self, kind: ProxyKind, host: &str) -> Proxy {
        Proxy { kind, host: host.to_owned(), port: self.address.port(), username: None, password: None }
    }

    /// The same with the login.
    pub fn login(&self, kind: ProxyKind, host: &str) -> Proxy {
        Proxy { username: Some(USER.to_owned()), password: Some(PASSWORD.into()), ..self.at(kind, host) }
    }
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, mode: Mode, upstream: SocketAddr, heads: &Mutex<Vec<String>>) {
    let Ok(Some(head)) = head(&mut stream).await else { return };
    heads.lock().unwrap().push(head.clone());
    let logged_in = head.lines().any(|line| line.to_lowercase().starts_with("proxy-authorization:") && line.ends_with(LOGIN));
    let status = match mode {
        Mode::Open => 200,
        Mode::Login(_) if logged_in => 200,
        Mode::Login(status) | Mode::Refuse(status) => status,
        Mode::Silence => return tokio::time::sleep(Duration::from_secs(600)).await,
        Mode::Drop => return,
    };
    let _ = stream.write_all(format!("HTTP/1.1 {status} X\r\n\r\n").as_bytes()).await;
    let _ = stream.flush().await;
    if status == 200 {
        let mut upstream = TcpStream::connect(upstream).await.unwrap();
        let _ = tokio::io::copy_bidirectional(&mut stream, &mut upstream).await;
    } else {
        let _ = stream.shutdown().await;
    }
}

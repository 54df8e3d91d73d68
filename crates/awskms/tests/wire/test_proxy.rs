//! Proxies on the way.

use crate::kms::{Kms, described, plain, refused};
use crate::pki::Ca;
use crate::proxy::{LOGIN, Mode, PASSWORD, Server, USER};
use crate::setup::{Deaf, ask, config, environment, open, through};
use keystead_awskms::{Class, Client, ClientConfig, Hop, Proxy, ProxyKind, TlsPolicy};
use std::sync::Arc;
use std::time::Duration;

const NAMES: &[&str] = &["kms.test", "proxy.test"];

#[tokio::test]
async fn both_kinds_lead_to_aws_with_and_without_a_login() {
    let ca = Ca::new();
    let kms = Kms::answering(ca.server(&["kms.test"]), described()).await;
    let environment = open(&ca.pem(), NAMES);
    for (kind, tls) in [(ProxyKind::Http, None), (ProxyKind::Https, Some(ca.server(&["proxy.test", "127.0.0.1"])))] {
        let proxy = Server::start(tls.clone(), Mode::Open, kms.address).await;
        for host in ["proxy.test", "127.0.0.1", "Proxy.Test"] {
            ask(&environment, through(config("kms.test", kms.port()), proxy.at(kind, host))).await.unwrap();
        }
        let heads = proxy.heads();
        assert_eq!(heads.len(), 3);
        assert!(heads[0].starts_with(&format!("CONNECT kms.test:{} HTTP/1.1\r\n", kms.port())), "{heads:?}");
        assert!(!heads[0].to_lowercase().contains("authorization"));

        let proxy = Server::start(tls, Mode::Login(407), kms.address).await;
        ask(&environment, through(config("kms.test", kms.port()), proxy.login(kind, "proxy.test"))).await.unwrap();
        assert!(proxy.heads()[0].contains(LOGIN));
    }
    for seen in kms.seen() {
        assert_eq!(seen.header("proxy-authorization"), None, "AWS never sees the login");
        assert!(seen.is_signed());
    }
}

#[tokio::test]
async fn a_refused_login_is_the_proxys_and_is_not_tried_again() {
    let ca = Ca::new();
    let kms = Kms::answering(ca.server(&["kms.test"]), described()).await;
    let environment = open(&ca.pem(), NAMES);
    for status in [407, 401, 403, 502] {
        let proxy = Server::start(None, Mode::Refuse(status), kms.address).await;
        let error = ask(&environment, through(config("kms.test", kms.port()), proxy.login(ProxyKind::Http, "proxy.test"))).await.unwrap_err();
        assert_eq!((error.hop(), error.class(), error.concerns_proxy()), (Hop::Proxy, Class::Unreachable, true), "{status}: {error}");
        assert!(error.to_string().contains(&format!("proxy.test:{}", proxy.address.port())), "{error}");
        if status == 407 {
            assert!(error.to_string().contains("refuses the login"), "{error}");
        }
        assert_eq!(proxy.heads().len(), 1, "{status}");
        for secret in [PASSWORD, LOGIN, USER] {
            assert!(!error.to_string().contains(secret) && !format!("{error:?}").contains(secret), "{error:?}");
        }
    }
}

#[tokio::test]
async fn a_proxy_that_is_not_there_hangs_up_or_is_silent_is_named() {
    let ca = Ca::new();
    let kms = Kms::answering(ca.server(&["kms.test"]), described()).await;
    let environment = open(&ca.pem(), NAMES);
    let short = |config: ClientConfig| ClientConfig { timeout: Duration::from_millis(400), ..config };
    let closed = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().port()
    };
    let silent = Server::start(None, Mode::Silence, kms.address).await;
    let dropping = Server::start(None, Mode::Drop, kms.address).await;
    for kind in [ProxyKind::Http, ProxyKind::Https] {
        for (what, port) in [("closed", closed), ("silent", silent.address.port()), ("dropping", dropping.address.port())] {
            let proxy = Proxy { kind, host: "proxy.test".into(), port, username: None, password: None };
            let error = ask(&environment, short(through(config("kms.test", kms.port()), proxy))).await.unwrap_err();
            assert_eq!((error.hop(), error.class()), (Hop::Proxy, Class::Unreachable), "{kind:?} {what}: {error}");
        }
    }
    assert_eq!(dropping.heads().len(), 3, "what the network may do better is tried again");
}

#[tokio::test]
async fn an_https_proxys_certificate_is_checked_whatever_the_policy_for_aws_is() {
    let (ca, other) = (Ca::new(), Ca::new());
    let kms = Kms::answering(other.server(&["nobody.test"]), described()).await;
    let environment = open(&ca.pem(), &["kms.test", "proxy.test", "proxy.test."]);
    let lax = TlsPolicy { verify: false, verify_host: false, verify_ip: false };
    for (tls, names) in [
        (ca.server(&["wrong.test"]), ["proxy.test", "127.0.0.1", "PROXY.test", "proxy.test."]),
        (other.server(&["proxy.test", "127.0.0.1"]), ["proxy.test", "127.0.0.1", "PROXY.test", "proxy.test."]),
        (ca.expired(&["proxy.test", "127.0.0.1"]), ["proxy.test", "127.0.0.1", "PROXY.test", "proxy.test."]),
    ] {
        let proxy = Server::start(Some(tls), Mode::Open, kms.address).await;
        for name in names {
            let config = ClientConfig { tls: lax, ca_certificates: Some(other.pem()), ..config("kms.test", kms.port()) };
            let error = ask(&environment, through(config, proxy.login(ProxyKind::Https, name))).await.unwrap_err();
            assert_eq!(error.hop(), Hop::Proxy, "{name}: {error}");
            assert!(error.to_string().contains("TLS"), "{error}");
        }
        assert!(proxy.heads().is_empty(), "no login is sent to a proxy that has not shown who it is");
    }
    let proxy = Server::start(Some(ca.server(&["proxy.test"])), Mode::Open, kms.address).await;
    ask(&environment, through(ClientConfig { tls: lax, ..config("kms.test", kms.port()) }, proxy.at(ProxyKind::Https, "proxy.test"))).await.unwrap();
}

#[tokio::test]
async fn a_proxy_named_like_the_target_makes_the_check_of_both_strict() {
    let (ca, other) = (Ca::new(), Ca::new());
    let kms = Kms::answering(other.server(&["kms.test"]), described()).await;
    let environment = open(&ca.pem(), NAMES);
    let lax = TlsPolicy { verify: false, ..TlsPolicy::STRICT };
    let proxy = Server::start(Some(ca.server(&["kms.test"])), Mode::Open, kms.address).await;
    let ask = |host: &'static str| ask(&environment, through(ClientConfig { tls: lax, ..config("kms.test", kms.port()) }, proxy.at(ProxyKind::Https, host)));
    let error = ask("KMS.test").await.unwrap_err();
    assert_eq!(error.hop(), Hop::Tls, "the proxy is fine, AWS's certificate is not: {error}");
    assert_eq!(proxy.heads().len(), 1);
}

#[tokio::test]
async fn a_bad_certificate_behind_a_proxy_is_awss() {
    let ca = Ca::new();
    let kms = Kms::answering(ca.server(&["other.test"]), described()).await;
    let environment = open(&ca.pem(), NAMES);
    for (kind, tls) in [(ProxyKind::Http, None), (ProxyKind::Https, Some(ca.server(&["proxy.test"])))] {
        let proxy = Server::start(tls, Mode::Open, kms.address).await;
        let error = ask(&environment, through(config("kms.test", kms.port()), proxy.at(kind, "proxy.test"))).await.unwrap_err();
        assert_eq!((error.hop(), error.concerns_proxy()), (Hop::Tls, false), "{kind:?}: {error}");
    }
}

#[tokio::test]
async fn a_denial_through_a_proxy_is_evidence_and_a_portals_page_is_not() {
    let ca = Ca::new();
    let environment = open(&ca.pem(), NAMES);
    let kms = Kms::answering(ca.server(&["kms.test"]), refused(400, "DisabledException", "disabled")).await;
    let proxy = Server::start(None, Mode::Open, kms.address).await;
    assert!(ask(&environment, through(config("kms.test", kms.port()), proxy.at(ProxyKind::Http, "proxy.test"))).await.unwrap_err().evidence());
    let kms = Kms::answering(ca.server(&["kms.test"]), plain(403, "<html>blocked</html>")).await;
    let proxy = Server::start(None, Mode::Open, kms.address).await;
    let error = ask(&environment, through(config("kms.test", kms.port()), proxy.at(ProxyKind::Http, "proxy.test"))).await.unwrap_err();
    assert_eq!((error.hop(), error.evidence()), (Hop::Http, false));
}

/// Only the proxy can resolve names here; the look-up beforehand must not eat the attempt.
#[tokio::test]
async fn a_hanging_look_up_of_the_target_does_not_keep_the_proxy_from_being_asked() {
    let ca = Ca::new();
    let kms = Kms::answering(ca.server(&["kms.test"]), described()).await;
    let proxy = Server::start(None, Mode::Open, kms.address).await;
    let environment = environment(&ca.pem(), &["127.0.0.1".to_owned()], Arc::new(Deaf));
    let config = ClientConfig { timeout: Duration::from_secs(2), ..config("kms.test", kms.port()) };
    ask(&environment, through(config, proxy.at(ProxyKind::Http, "127.0.0.1"))).await.unwrap();
}

#[tokio::test]
async fn what_is_no_proxy_makes_no_client() {
    let ca = Ca::new();
    let environment = open(&ca.pem(), NAMES);
    for kind in [ProxyKind::Http, ProxyKind::Https] {
        for host in ["", "a b", "user:secret@proxy.test", "proxy.test/x", "proxy.test:1", "proxy.test#", "127.1", "0x7f000001", "evil\\x"] {
            let proxy = Proxy { kind, host: host.into(), port: 3128, username: None, password: None };
            let error = Client::new(&environment, through(config("kms.test", 443), proxy)).unwrap_err();
            assert_eq!(error.hop(), Hop::Settings, "{host}");
        }
    }
}

//! Which host is spoken to, and what is signed.

use crate::kms::{Kms, REGION, described};
use crate::pki::Ca;
use crate::proxy::{Mode, Server};
use crate::setup::{Names, ask, config, describe, environment, open, through};
use keystead_awskms::{Client, ClientConfig, Endpoint, Hop, ProxyKind};
use std::sync::atomic::Ordering;

#[tokio::test]
async fn the_derived_name_is_resolved_asked_and_signed() {
    let ca = Ca::new();
    let name = "kms-fips.eu-west-1.amazonaws.eu";
    let kms = Kms::answering(ca.server(&[name]), described()).await;
    let names = Names::here(&[name]);
    let environment = environment(&ca.pem(), &["127.0.0.1".to_owned()], names.clone());
    let mut config = config("", kms.port());
    config.endpoint = Endpoint { service: "KMS-FIPS".into(), default_domain: "amazonaws.eu".into(), host: None, ..config.endpoint };
    let key = ask(&environment, config).await.unwrap();
    assert!(key.enabled);
    assert_eq!(names.asked(), [name]);
    let seen = kms.seen();
    assert_eq!(seen[0].header("host"), Some(format!("{name}:{}", kms.port()).as_str()));
    assert_eq!(seen[0].header("x-amz-target"), Some("TrentService.DescribeKey"));
    assert!(seen[0].is_signed());
}

#[tokio::test]
async fn a_custom_host_changes_neither_region_nor_service_of_the_signature() {
    let ca = Ca::new();
    let kms = Kms::answering(ca.server(&["vault.example"]), described()).await;
    ask(&open(&ca.pem(), &["vault.example"]), config("vault.example", kms.port())).await.unwrap();
    let seen = kms.seen();
    assert!(seen[0].header("authorization").unwrap().contains(&format!("/{REGION}/kms/aws4_request")), "{seen:?}");
    assert!(seen[0].is_signed());
}

/// The URL that is connected to is put into one form on the way; what is signed must be the same.
#[tokio::test]
async fn the_signature_covers_the_host_header_as_it_is_sent() {
    let ca = Ca::new();
    let kms = Kms::answering(ca.server(&["kms.test"]), described()).await;
    let environment = open(&ca.pem(), &["kms.test", "kms.test."]);
    for (host, header) in [("KMS.Test", "kms.test"), ("kms.test.", "kms.test.")] {
        ask(&environment, config(host, kms.port())).await.unwrap();
        let seen = kms.seen().pop().unwrap();
        assert_eq!(seen.header("host"), Some(format!("{header}:{}", kms.port()).as_str()));
        assert!(seen.is_signed(), "{host}");
    }
}

#[tokio::test]
async fn an_address_is_signed_in_its_normal_form_and_without_the_default_port() {
    let endpoint = |host: &str| Endpoint { host: Some(host.to_owned()), ..config("", 443).endpoint };
    for (host, url) in [
        ("0:0:0:0:0:0:0:1", "https://[::1]"),
        ("[0:0::0001]", "https://[::1]"),
        ("[2001:DB8::1]", "https://[2001:db8::1]"),
        ("::ffff:10.1.2.3", "https://10.1.2.3"),
        ("KMS.Test", "https://kms.test"),
    ] {
        assert_eq!(endpoint(host).url().unwrap(), url);
    }
    // The proxy leads to the stand-in, whose port is not the default one.
    let ca = Ca::new();
    let kms = Kms::answering(ca.server(&["kms.test"]), described()).await;
    let proxy = Server::start(None, Mode::Open, kms.address).await;
    ask(&open(&ca.pem(), &[]), through(config("kms.test", 443), proxy.at(ProxyKind::Http, "127.0.0.1"))).await.unwrap();
    let seen = kms.seen().pop().unwrap();
    assert_eq!(seen.header("host"), Some("kms.test"));
    assert!(seen.is_signed());
    assert!(proxy.heads()[0].starts_with("CONNECT kms.test:443 HTTP/1.1\r\n"), "{:?}", proxy.heads());
}

/// The HTTP client cannot check such a certificate behind a tunnel (reqwest 0.13 hands the brackets to TLS), so it is said beforehand.
#[tokio::test]
async fn an_ipv6_address_through_a_proxy_is_refused_in_words() {
    let ca = Ca::new();
    for host in ["::1", "[2001:db8::1]"] {
        let proxy = keystead_awskms::Proxy { kind: ProxyKind::Http, host: "proxy.test".into(), port: 1, username: None, password: None };
        let error = Client::new(&open(&ca.pem(), &[]), through(config(host, 443), proxy)).unwrap_err();
        assert_eq!(error.hop(), Hop::Settings);
        assert!(error.to_string().contains("set a host name"), "{error}");
    }
}

#[tokio::test]
async fn what_is_no_host_makes_no_client() {
    let ca = Ca::new();
    let environment = open(&ca.pem(), &[]);
    // A URL reads the last four as addresses: they would pass by the resolver and by its egress rule.
    for host in ["", "a b", "user@kms.test", "kms.test/x", "kms.test:1", "kms.test#", "127.1", "2130706433", "0x7f.1", "127.0.0.0x1"] {
        let error = Client::new(&environment, config(host, 443)).unwrap_err();
        assert_eq!(error.hop(), Hop::Settings, "{host}");
    }
}

#[tokio::test]
async fn calls_share_a_connection() {
    let ca = Ca::new();
    let kms = Kms::answering(ca.server(&["kms.test"]), described()).await;
    let client = Client::new(&open(&ca.pem(), &["kms.test"]), config("kms.test", kms.port())).unwrap();
    for _ in 0..3 {
        describe(&client).await.unwrap();
        describe(&client.clone()).await.unwrap();
    }
    assert_eq!((kms.count(), kms.connections.load(Ordering::SeqCst)), (6, 1));
}

#[tokio::test]
async fn a_name_that_does_not_resolve_is_said_so() {
    let ca = Ca::new();
    let error = ask(&environment(&ca.pem(), &[], Names::of(&[("empty.test", &[&[]])])), config("kms.test", 443)).await.unwrap_err();
    assert_eq!(error.hop(), Hop::Resolve);
    assert!(error.to_string().contains("kms.test does not resolve: no such name"), "{error}");
    let error = ask(&environment(&ca.pem(), &[], Names::of(&[("empty.test", &[&[]])])), config("empty.test", 443)).await.unwrap_err();
    assert_eq!(error.hop(), Hop::Resolve);
}

/// A name that hangs is a matter of the name, and takes no longer than the attempts may.
#[tokio::test]
async fn a_resolver_that_never_answers_is_said_so() {
    let ca = Ca::new();
    let environment = environment(&ca.pem(), &[], std::sync::Arc::new(crate::setup::Deaf));
    let error = ask(&environment, ClientConfig { timeout: std::time::Duration::from_millis(200), ..config("kms.test", 443) }).await.unwrap_err();
    assert_eq!(error.hop(), Hop::Resolve, "{error}");
}

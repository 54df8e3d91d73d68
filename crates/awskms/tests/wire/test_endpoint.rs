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
    let kms = Kms::answering(ca.server(&["kms.test", "::1"]), described()).await;
    let environment = open(&ca.pem(), &["kms.test", "kms.test."]);
    for (host, header) in [("KMS.Test", "kms.test"), ("kms.test.", "kms.test.")] {
        ask(&environment, config(host, kms.port())).await.unwrap();
        let seen = kms.seen().pop().unwrap();
        assert_eq!(seen.header("host"), Some(format!("{header}:{}", kms.port()).as_str()));
        assert!(seen.is_signed(), "{host}");
    }
    // The proxy leads to the stand-in, so that no IPv6 is needed here.
    let proxy = Server::start(None, Mode::Open, kms.address).await;
    for host in ["::1", "[::1]", "0:0:0:0:0:0:0:1", "[0:0::0001]"] {
        ask(&environment, through(config(host, 443), proxy.at(ProxyKind::Http, "127.0.0.1"))).await.unwrap();
        let seen = kms.seen().pop().unwrap();
        assert_eq!(seen.header("host"), Some("[::1]"), "the default port is left out");
        assert!(seen.is_signed(), "{host}");
        assert!(proxy.heads().pop().unwrap().starts_with("CONNECT [::1]:443 HTTP/1.1\r\n"), "{:?}", proxy.heads());
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

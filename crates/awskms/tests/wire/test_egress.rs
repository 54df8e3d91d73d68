//! Nothing connects to the inside, on whatever way.

use crate::kms::{Kms, described};
use crate::pki::Ca;
use crate::proxy::{Mode, Server};
use crate::setup::{Names, ask, config, describe, environment, through};
use keystead_awskms::{Class, Client, ClientConfig, Egress, Hop, ProxyKind};
use std::sync::atomic::Ordering;
use std::time::Duration;

#[tokio::test]
async fn names_and_addresses_that_lead_inside_are_refused() {
    let ca = Ca::new();
    let kms = Kms::answering(ca.server(&["kms.test", "127.0.0.1"]), described()).await;
    let inside = ["127.0.0.1", "169.254.169.254", "::ffff:127.0.0.1", "::1", "0.0.0.0", "64:ff9b::7f00:1", "64:ff9b:1::7f00:1", "10.7.7.7", "::ffff:10.8.8.8"];
    for address in inside {
        let environment = environment(&ca.pem(), &[], Names::of(&[("kms.test", &[&[address]])]));
        let own = vec!["::ffff:10.7.7.7".parse().unwrap(), "10.8.8.8".parse().unwrap()];
        environment.set_egress(Egress::default().with_own_addresses(own));
        for host in ["kms.test", address] {
            let error = ask(&environment, config(host, kms.port())).await.unwrap_err();
            assert_eq!((error.hop(), error.class()), (Hop::Egress, Class::Unreachable), "{host} at {address}: {error}");
            assert!(error.to_string().contains("allow_endpoints"), "{error}");
        }
    }
    assert_eq!(kms.connections.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn the_list_lets_through_what_it_names_with_its_port() {
    let ca = Ca::new();
    let kms = Kms::answering(ca.server(&["kms.test", "127.0.0.1"]), described()).await;
    let other = Kms::answering(ca.server(&["kms.test", "127.0.0.1"]), described()).await;
    for entry in
        [format!("127.0.0.1:{}", kms.port()), format!("kms.test:{}", kms.port()), format!("kms.test.:{}", kms.port()), format!("127.0.0.0/8:{}", kms.port())]
    {
        let environment = environment(&ca.pem(), std::slice::from_ref(&entry), Names::here(&["kms.test"]));
        ask(&environment, config("kms.test", kms.port())).await.unwrap();
        assert_eq!(ask(&environment, config("kms.test", other.port())).await.unwrap_err().hop(), Hop::Egress, "{entry}");
        assert_eq!(ask(&environment, config("127.0.0.1", other.port())).await.unwrap_err().hop(), Hop::Egress, "{entry}");
    }
    assert_eq!(other.connections.load(Ordering::SeqCst), 0);
}

/// The address outside is not reachable; what counts is that the one inside is not tried.
#[tokio::test]
async fn of_mixed_addresses_only_those_outside_are_tried() {
    let ca = Ca::new();
    let kms = Kms::answering(ca.server(&["kms.test"]), described()).await;
    let environment = environment(&ca.pem(), &["127.0.0.9".to_owned()], Names::of(&[("kms.test", &[&["127.0.0.1", "127.0.0.9"]])]));
    let error = ask(&environment, ClientConfig { timeout: Duration::from_secs(2), ..config("kms.test", kms.port()) }).await.unwrap_err();
    assert_eq!(error.hop(), Hop::Connect, "{error}");
    assert_eq!(kms.connections.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_name_that_moves_inside_is_refused_then() {
    let ca = Ca::new();
    let kms = Kms::answering(ca.server(&["kms.test"]), crate::kms::Answer::Raw(Vec::new())).await;
    let other = std::net::SocketAddr::from(([127, 0, 0, 2], kms.port()));
    let names = Names::of(&[("kms.test", &[&["127.0.0.2"], &["127.0.0.1"]])]);
    let environment = environment(&ca.pem(), &[other.to_string()], names.clone());
    // The first attempt is refused outside, the second finds the name inside.
    let error = ask(&environment, config("kms.test", kms.port())).await.unwrap_err();
    assert_eq!(error.hop(), Hop::Egress, "{error}");
    assert_eq!((names.asked().len(), kms.connections.load(Ordering::SeqCst)), (2, 0));
}

#[tokio::test]
async fn a_proxy_inside_is_refused_by_name_and_by_address() {
    let ca = Ca::new();
    let kms = Kms::answering(ca.server(&["kms.test"]), described()).await;
    let tls = ca.server(&["proxy.test", "127.0.0.1"]);
    for (kind, tls) in [(ProxyKind::Http, None), (ProxyKind::Https, Some(tls))] {
        let proxy = Server::start(tls, Mode::Open, kms.address).await;
        let names = || Names::of(&[("kms.test", &[&["203.0.113.1"]]), ("proxy.test", &[&["127.0.0.1"]])]);
        for host in ["proxy.test", "127.0.0.1", "::ffff:127.0.0.1", "[::ffff:127.0.0.1]"] {
            let error = ask(&environment(&ca.pem(), &[], names()), through(config("kms.test", 443), proxy.at(kind, host))).await.unwrap_err();
            assert_eq!(error.hop(), Hop::Egress, "{kind:?} {host}: {error}");
            assert!(error.concerns_proxy());
        }
        // A port of the target's does not open the same port of the proxy, nor the other way round.
        let environment = environment(&ca.pem(), &[format!("127.0.0.1:{}", kms.port())], names());
        assert_eq!(ask(&environment, through(config("kms.test", kms.port()), proxy.at(kind, "127.0.0.1"))).await.unwrap_err().hop(), Hop::Egress);
        assert!(proxy.heads().is_empty());
    }
    assert_eq!(kms.count(), 0);
}

#[tokio::test]
async fn a_target_inside_is_refused_behind_a_proxy_too() {
    let ca = Ca::new();
    let kms = Kms::answering(ca.server(&["kms.test", "127.0.0.1", "127.0.0.2"]), described()).await;
    let proxy = Server::start(None, Mode::Open, kms.address).await;
    let allow = [format!("127.0.0.1:{}", proxy.address.port())];
    for answers in [&["127.0.0.1"] as &[&str], &["203.0.113.1", "169.254.169.254"]] {
        let environment = environment(&ca.pem(), &allow, Names::of(&[("kms.test", &[answers])]));
        let error = ask(&environment, through(config("kms.test", kms.port()), proxy.at(ProxyKind::Http, "127.0.0.1"))).await.unwrap_err();
        assert_eq!(error.hop(), Hop::Egress, "{error}");
    }
    let environment = environment(&ca.pem(), &allow, Names::of(&[]));
    let error = ask(&environment, through(config("127.0.0.2", kms.port()), proxy.at(ProxyKind::Http, "127.0.0.1"))).await.unwrap_err();
    assert_eq!(error.hop(), Hop::Egress, "{error}");
    assert!(proxy.heads().is_empty());
    // A name that only the proxy knows is the proxy's matter.
    ask(&environment, through(config("kms.test", kms.port()), proxy.at(ProxyKind::Http, "127.0.0.1"))).await.unwrap();
}

#[tokio::test]
async fn a_new_rule_counts_for_the_next_connection_of_an_old_client() {
    let ca = Ca::new();
    let kms =
        Kms::answering(ca.server(&["kms.test"]), crate::kms::Answer::Raw(b"HTTP/1.1 400 X\r\nconnection: close\r\ncontent-length: 0\r\n\r\n".to_vec())).await;
    let environment = environment(&ca.pem(), &["127.0.0.1".to_owned()], Names::here(&["kms.test"]));
    let client = Client::new(&environment, config("kms.test", kms.port())).unwrap();
    assert_eq!(describe(&client).await.unwrap_err().hop(), Hop::Http);
    environment.set_egress(Egress::default());
    assert_eq!(describe(&client).await.unwrap_err().hop(), Hop::Egress);
}

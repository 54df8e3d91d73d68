//! Which certificates are accepted under which policy, and what an answer proves then.

use crate::kms::{Kms, described, refused};
use crate::pki::{Ca, Tls, self_signed};
use crate::setup::{ask, config, open};
use keystead_awskms::{Class, ClientConfig, Hop, TlsPolicy};

const NAME: &str = "kms.test";
const HERE: &str = "127.0.0.1";

struct Case {
    what: &'static str,
    tls: Tls,
    /// With every check on, where the host is a DNS name and where it is an address.
    strict: (bool, bool),
    /// With the name's check off, for either kind of host.
    nameless: (bool, bool),
}

fn cases(ca: &Ca) -> Vec<Case> {
    let other = Ca::new();
    let case = |what, tls, strict, nameless| Case { what, tls, strict, nameless };
    let (none, both) = ((false, false), (true, true));
    vec![
        case("right", ca.server(&[NAME, HERE]), both, both),
        case("wrong DNS name", ca.server(&["other.test", HERE]), (false, true), both),
        case("wrong IP", ca.server(&[NAME, "10.1.1.1"]), (true, false), both),
        case("no name at all", ca.server(&[]), none, both),
        case("expired", ca.expired(&[NAME, HERE]), none, none),
        case("expired and wrong name", ca.expired(&["other.test", "10.1.1.1"]), none, none),
        case("unknown CA", other.server(&[NAME, HERE]), none, none),
        case("unknown CA and wrong name", other.server(&["other.test", "10.1.1.1"]), none, none),
        case("self-signed leaf", self_signed(&[NAME, HERE]), none, none),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn every_policy_accepts_what_it_names_and_nothing_else() {
    let ca = Ca::new();
    let environment = open(&ca.pem(), &[NAME]);
    for case in cases(&ca) {
        let kms = Kms::answering(case.tls.clone(), refused(400, "DisabledException", "it is disabled")).await;
        for (host, is_address) in [(NAME, false), (HERE, true)] {
            for bits in 0..8 {
                let policy = TlsPolicy { verify: bits & 1 != 0, verify_host: bits & 2 != 0, verify_ip: bits & 4 != 0 };
                let named = if is_address { policy.verify_ip } else { policy.verify_host };
                let (dns, ip) = if named { case.strict } else { case.nameless };
                let accepted = !policy.verify || if is_address { ip } else { dns };
                let before = kms.count();
                let error = ask(&environment, ClientConfig { tls: policy, ..config(host, kms.port()) }).await.unwrap_err();
                let at = format!("{}, {host}, {policy:?}: {error}", case.what);
                if accepted {
                    assert_eq!((error.hop(), error.code()), (Hop::Aws, Some("DisabledException")), "{at}");
                    assert!(error.came_from_aws(), "{at}");
                } else {
                    assert_eq!((error.hop(), error.class()), (Hop::Tls, Class::Unreachable), "{at}");
                }
                assert_eq!(error.evidence(), accepted && policy.verify && named, "{at}");
                assert_eq!(kms.count() - before, usize::from(accepted), "nothing is sent before the certificate is accepted: {at}");
            }
        }
    }
}

#[tokio::test]
async fn an_svms_own_ca_counts_for_its_client_alone() {
    let (ca, own) = (Ca::new(), Ca::new());
    let kms = Kms::answering(own.server(&[NAME]), described()).await;
    let environment = open(&ca.pem(), &[NAME]);
    ask(&environment, ClientConfig { ca_certificates: Some(own.pem()), ..config(NAME, kms.port()) }).await.unwrap();
    assert_eq!(ask(&environment, config(NAME, kms.port())).await.unwrap_err().hop(), Hop::Tls);
}

#[tokio::test]
async fn a_ca_text_that_cannot_be_used_is_an_error_of_the_settings() {
    let ca = Ca::new();
    let environment = open(&ca.pem(), &[NAME]);
    for pem in ["", "garbage", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "-----BEGIN CERTIFICATE-----\n"] {
        let error = ask(&environment, ClientConfig { ca_certificates: Some(pem.to_owned()), ..config(NAME, 443) }).await.unwrap_err();
        assert_eq!((error.hop(), error.class()), (Hop::Settings, Class::Misconfigured), "{pem}");
    }
}

#[tokio::test]
async fn a_certificate_with_thousands_of_names_makes_no_long_error() {
    let ca = Ca::new();
    let names: Vec<String> = (0..400).map(|number| format!("name-{number}.other.test")).collect();
    let kms = Kms::answering(ca.server(&names.iter().map(String::as_str).collect::<Vec<_>>()), described()).await;
    let error = ask(&open(&ca.pem(), &[NAME]), config(NAME, kms.port())).await.unwrap_err();
    assert_eq!(error.hop(), Hop::Tls);
    assert!(error.to_string().len() < 600, "{error}");
}

#[tokio::test]
async fn a_peer_that_speaks_no_tls_fails_in_words() {
    let ca = Ca::new();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, b"SSH-2.0-OpenSSH_9.2\r\n").await;
        }
    });
    let error = ask(&open(&ca.pem(), &[NAME]), config(NAME, port)).await.unwrap_err();
    assert_eq!((error.hop(), error.class()), (Hop::Tls, Class::Unreachable), "{error}");
}

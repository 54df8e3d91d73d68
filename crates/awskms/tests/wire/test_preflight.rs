//! The preflight: each step fails in its turn, and the right one is named.

use crate::kms::{ACCESS_KEY_ID, Answer, Kms, REGION, SECRET, described};
use crate::pki::{Ca, Tls, self_signed};
use crate::proxy::{LOGIN, Mode, PASSWORD, Server};
use crate::setup::{Deaf, Names, config, environment, open, through};
use keystead_awskms::preflight::{Known, Outcome, Preflight, Report, STEPS, Step};
use keystead_awskms::{Client, ClientConfig, EncryptionContext, Environment, Proxy, ProxyKind, TlsPolicy};
use keystead_testkit::{Denial, Fault, FaultRule, KeyState, KmsStandIn, NewKey, Options, Tls as StandInTls};
use std::sync::Arc;
use std::time::{Duration, Instant};

const NAMES: &[&str] = &["kms.test", "proxy.test"];
const SHORT: Duration = Duration::from_millis(600);

/// A stand-in for AWS KMS, and a key in it.
struct Aws {
    kms: KmsStandIn,
    key: String,
}

async fn aws() -> Aws {
    let tls = StandInTls::SelfSigned(vec!["kms.test".to_owned(), "127.0.0.1".to_owned()]);
    let kms = KmsStandIn::start(Options { tls, region: REGION.to_owned(), ..Options::default() }).await.unwrap();
    kms.add_access_key(ACCESS_KEY_ID, SECRET);
    let key = kms.create_key(NewKey::default()).unwrap().key_id;
    Aws { kms, key }
}

impl Aws {
    fn environment(&self) -> Environment {
        open(self.kms.ca_pem().unwrap(), NAMES)
    }

    fn config(&self) -> ClientConfig {
        config("kms.test", self.kms.addr().port())
    }

    async fn check(&self, config: ClientConfig) -> Report {
        check(&self.environment(), config, &self.key).await
    }
}

/// A preflight; one that does not end fails the test, and so does one that shows a secret or does not name all steps in their order.
async fn check(environment: &Environment, config: ClientConfig, key: &str) -> Report {
    let preflight = Preflight::new(environment, config).unwrap();
    let context = EncryptionContext::parse("svm=one,purpose=test").unwrap();
    let report = tokio::time::timeout(Duration::from_secs(120), preflight.run(key, &context)).await.expect("every preflight ends");
    sound(&report);
    assert!(!format!("{preflight:?}").contains(SECRET));
    report
}

fn sound(report: &Report) {
    assert_eq!(report.steps.iter().map(|step| step.name).collect::<Vec<_>>(), STEPS, "{report:#?}");
    let json: Vec<_> = report.steps.iter().map(|step| serde_json::json!([step.name, step.detail, step.advice])).collect();
    let shown = format!("{report} {report:?} {report:#?} {}", serde_json::Value::from(json));
    for secret in [SECRET, "wrong-secret", PASSWORD, LOGIN, "pr0xy", "AWS4-HMAC", "Basic "] {
        assert!(!shown.contains(secret), "{secret}: {shown}");
    }
    for step in &report.steps {
        assert_eq!(step.outcome == Outcome::Failed, !step.advice.is_empty(), "{step:?}");
    }
    assert_eq!(report.passed(), report.failed().is_none());
}

fn step<'a>(report: &'a Report, name: &str) -> &'a Step {
    report.steps.iter().find(|step| step.name == name).unwrap()
}

/// The step that has failed first is this one, those before are not failed, and of what is behind nothing has passed.
fn fails_at<'a>(report: &'a Report, name: &str) -> &'a Step {
    let failed = report.failed().unwrap_or_else(|| panic!("{name}: {report}"));
    assert_eq!(failed.name, name, "{report}");
    assert!(report.summary().contains(&format!("{name} failed")) && report.summary().ends_with(&failed.advice), "{report}");
    let behind = report.steps.iter().skip_while(|step| step.name != name).skip(1);
    assert!(behind.clone().all(|step| matches!(step.outcome, Outcome::Skipped(_))), "{report:#?}");
    failed
}

#[tokio::test]
async fn all_is_well_with_and_without_a_proxy() {
    let aws = aws().await;
    let report = aws.check(aws.config()).await;
    assert!(report.passed(), "{report:#?}");
    for name in STEPS {
        assert_eq!(step(&report, name).outcome == Outcome::Passed, name != "proxy", "{report:#?}");
    }
    assert_eq!(step(&report, "dns").detail, "kms.test is 127.0.0.1");
    assert!(step(&report, "route").detail.ends_with(&aws.kms.addr().to_string()));
    let tls = &step(&report, "tls").detail;
    for part in ["TLSv1_3", "TLS13_", "CN=AWS KMS stand-in\" issued by \"CN=AWS KMS stand-in CA", "valid until "] {
        assert!(tls.contains(part), "{tls}");
    }
    assert!(step(&report, "describe_key").detail.contains(&format!("{} is Enabled", aws.key)), "{report:#?}");
    let calls = aws.kms.calls();
    let asked: Vec<&str> = calls.iter().map(|call| call.operation.as_str()).collect();
    assert_eq!(asked, ["", "DescribeKey", "Encrypt", "Decrypt"], "one unsigned request for the clock, and three calls");
    assert_eq!((calls[0].authenticated, calls[2].encryption_context.as_ref().map(|context| context.len())), (false, Some(2)));

    let ca = Ca::new();
    let environment = open(&format!("{}{}", ca.pem(), aws.kms.ca_pem().unwrap()), NAMES);
    for (kind, tls) in [(ProxyKind::Http, None), (ProxyKind::Https, Some(ca.server(&["proxy.test"])))] {
        let proxy = Server::start(tls, Mode::Login(407), aws.kms.addr()).await;
        let report = check(&environment, through(aws.config(), proxy.login(kind, "Proxy.test")), &aws.key).await;
        assert!(report.passed() && report.steps.iter().all(|step| step.outcome == Outcome::Passed), "{report:#?}");
        assert!(step(&report, "proxy").detail.ends_with("the proxy answers 200 X"), "{report:#?}");
        assert_eq!(step(&report, "proxy").detail.contains("Test CA"), kind == ProxyKind::Https);
        assert!(proxy.heads()[0].starts_with(&format!("CONNECT kms.test:{} HTTP/1.1\r\n", aws.kms.addr().port())));
    }
}

#[tokio::test]
async fn names_that_do_not_resolve() {
    let aws = aws().await;
    let report = check(&open(aws.kms.ca_pem().unwrap(), &["proxy.test"]), aws.config(), &aws.key).await;
    assert!(fails_at(&report, "dns").detail.contains("kms.test does not resolve: no such name"));
    let deaf = environment(aws.kms.ca_pem().unwrap(), &[], Arc::new(Deaf));
    let report = check(&deaf, ClientConfig { timeout: SHORT, ..aws.config() }, &aws.key).await;
    assert!(fails_at(&report, "dns").took >= SHORT);
    let proxy = Proxy { kind: ProxyKind::Http, host: "nowhere.test".into(), port: 3128, username: None, password: None };
    let report = aws.check(through(aws.config(), proxy)).await;
    assert!(fails_at(&report, "dns").advice.contains("proxy_host"));
    assert_eq!(aws.kms.connections(), 0);
}

#[tokio::test]
async fn what_leads_inside_is_neither_connected_to_nor_shown() {
    let aws = aws().await;
    let ca = aws.kms.ca_pem().unwrap();
    let port = aws.kms.addr().port();
    for address in ["127.0.0.1", "169.254.169.254", "::ffff:127.0.0.1", "64:ff9b::7f00:1"] {
        let names = Names::of(&[("kms.test", &[&[address]])]);
        for host in ["kms.test", address] {
            let report = check(&environment(ca, &[], names.clone()), config(host, port), &aws.key).await;
            let failed = fails_at(&report, "egress");
            assert!(failed.detail.contains("leads inside") && failed.detail.contains("allow_endpoints"), "{report}");
            assert!(host == address || !format!("{report:?}").contains(address), "{report}");
        }
    }
    // Behind a proxy too, and the proxy itself.
    let proxy = Server::start(None, Mode::Open, aws.kms.addr()).await;
    let inside = Names::of(&[("kms.test", &[&["203.0.113.1", "127.0.0.1"]])]);
    let allow = [format!("127.0.0.1:{}", proxy.address.port())];
    let report = check(&environment(ca, &allow, inside), through(aws.config(), proxy.at(ProxyKind::Http, "127.0.0.1")), &aws.key).await;
    fails_at(&report, "egress");
    let outside = Names::of(&[("kms.test", &[&["203.0.113.1"]])]);
    let report = check(&environment(ca, &[], outside), through(aws.config(), proxy.at(ProxyKind::Http, "127.0.0.1")), &aws.key).await;
    fails_at(&report, "egress");
    assert!(proxy.heads().is_empty());
    assert_eq!(aws.kms.connections(), 0);
}

/// Of mixed addresses only those are tried that the rule lets through; and the name is asked for once, so that no other answer is connected to than the one that was checked.
#[tokio::test]
async fn only_checked_addresses_are_connected_to() {
    let aws = aws().await;
    let names = Names::of(&[("kms.test", &[&["127.0.0.1", "127.0.0.9"], &["127.0.0.1"]])]);
    let environment = environment(aws.kms.ca_pem().unwrap(), &["127.0.0.9".to_owned()], names.clone());
    let report = check(&environment, aws.config(), &aws.key).await;
    let failed = fails_at(&report, "route");
    assert!(failed.detail.contains("127.0.0.9:") && !failed.detail.contains("127.0.0.1:"), "{report}");
    assert_eq!((names.asked().len(), aws.kms.connections()), (1, 0));
}

#[tokio::test]
async fn a_port_that_is_closed() {
    let aws = aws().await;
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let report = aws.check(config("kms.test", closed)).await;
    assert!(fails_at(&report, "route").detail.contains("refused"), "{report}");
    let proxy = Proxy { kind: ProxyKind::Http, host: "proxy.test".into(), port: closed, username: None, password: None };
    let report = aws.check(through(aws.config(), proxy)).await;
    assert!(fails_at(&report, "route").advice.contains("proxy_port"), "{report}");
}

#[tokio::test]
async fn proxies_that_refuse_hang_or_are_others() {
    let aws = aws().await;
    let (ca, other) = (Ca::new(), Ca::new());
    let environment = open(&format!("{}{}", ca.pem(), aws.kms.ca_pem().unwrap()), NAMES);
    for (mode, seen, advice) in [
        (Mode::Login(407), "refuses the login (407 X)", "proxy_password"),
        (Mode::Login(401), "refuses the login (401 X)", "proxy_password"),
        (Mode::Refuse(403), "refuses to connect to kms.test:", "CONNECT"),
        (Mode::Refuse(502), "(502 X)", "CONNECT"),
        (Mode::Drop, "does not answer CONNECT", "proxy_type"),
        (Mode::Silence, "no answer in time", "proxy_type"),
    ] {
        for (kind, tls) in [(ProxyKind::Http, None), (ProxyKind::Https, Some(ca.server(&["proxy.test"])))] {
            let proxy = Server::start(tls, mode, aws.kms.addr()).await;
            let wrong = Proxy { password: Some("pr0xy-wrong".into()), ..proxy.login(kind, "proxy.test") };
            let start = Instant::now();
            let report = check(&environment, ClientConfig { timeout: SHORT * 2, ..through(aws.config(), wrong) }, &aws.key).await;
            let failed = fails_at(&report, "proxy");
            assert!(failed.detail.contains(seen) && failed.advice.contains(advice), "{report}");
            assert!(start.elapsed() < SHORT * 40, "{report}");
            assert_eq!(proxy.heads().len(), 1);
        }
    }
    // The certificate of an https proxy is checked in full, whatever the policy for AWS is, and before the login is sent.
    let lax = TlsPolicy { verify: false, verify_host: false, verify_ip: false };
    for (tls, advice) in [(ca.server(&["wrong.test"]), "proxy_host"), (other.server(&["proxy.test"]), "extra_ca"), (ca.expired(&["proxy.test"]), "renew")] {
        let proxy = Server::start(Some(tls), Mode::Open, aws.kms.addr()).await;
        let config = ClientConfig { tls: lax, ..through(aws.config(), proxy.login(ProxyKind::Https, "proxy.test")) };
        let report = check(&environment, config, &aws.key).await;
        assert!(fails_at(&report, "proxy").advice.contains(advice), "{report}");
        assert!(proxy.heads().is_empty());
    }
}

#[tokio::test]
async fn certificates_that_are_not_accepted() {
    let (ca, other) = (Ca::new(), Ca::new());
    let environment = open(&ca.pem(), NAMES);
    let cases: [(Tls, &str); 4] = [
        (other.server(&["kms.test"]), "keystead.ca_certificates"),
        (self_signed(&["kms.test"]), "keystead.ca_certificates"),
        (ca.server(&["other.test"]), "verify_host"),
        (ca.expired(&["kms.test"]), "renew"),
    ];
    for (tls, advice) in cases {
        let kms = Kms::answering(tls, described()).await;
        let proxy = Server::start(None, Mode::Open, kms.address).await;
        for config in [config("kms.test", kms.port()), through(config("kms.test", kms.port()), proxy.at(ProxyKind::Http, "proxy.test"))] {
            let report = check(&environment, config, "alias/a").await;
            let failed = fails_at(&report, "tls");
            assert!(failed.advice.contains(advice) && failed.detail.contains("issued by"), "{report}");
        }
        assert_eq!(kms.count(), 0);
    }
    let kms = Kms::answering(ca.server(&["other.test"]), described()).await;
    let lax = TlsPolicy { verify_host: false, ..TlsPolicy::STRICT };
    let report = check(&environment, ClientConfig { tls: lax, ..config("kms.test", kms.port()) }, "alias/a").await;
    assert_eq!(step(&report, "tls").outcome, Outcome::Passed, "{report}");
    // A certificate with thousands of names makes no long report.
    let names: Vec<String> = (0..400).map(|number| format!("name-{number}.other.test")).collect();
    let kms = Kms::answering(ca.server(&names.iter().map(String::as_str).collect::<Vec<_>>()), described()).await;
    let report = check(&environment, config("kms.test", kms.port()), "alias/a").await;
    assert!(fails_at(&report, "tls").detail.len() <= 300, "{report}");
}

#[tokio::test]
async fn a_peer_that_never_ends_the_handshake_or_the_answer() {
    let ca = Ca::new();
    let environment = open(&ca.pem(), NAMES);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let short = |port| ClientConfig { timeout: SHORT, ..config("kms.test", port) };
    let report = check(&environment, short(listener.local_addr().unwrap().port()), "alias/a").await;
    fails_at(&report, "tls");

    let silent = Kms::answering(ca.server(&["kms.test"]), Answer::Silence).await;
    let start = Instant::now();
    let report = check(&environment, short(silent.port()), "alias/a").await;
    fails_at(&report, "describe_key");
    for name in ["clock_skew", "credentials"] {
        assert!(matches!(step(&report, name).outcome, Outcome::Skipped(_)), "{report:#?}");
    }
    assert!(start.elapsed() < Duration::from_secs(15));
    // An answer that never ends is read no further than its head may be long.
    let endless = Kms::start(ca.server(&["kms.test"]), |_, _| Answer::Raw(format!("HTTP/1.1 200 X\r\nx: {}", "y".repeat(1 << 20)).into_bytes())).await;
    let report = check(&environment, short(endless.port()), "alias/a").await;
    assert!(matches!(step(&report, "clock_skew").outcome, Outcome::Skipped(_)), "{report:#?}");
}

#[tokio::test]
async fn clocks_that_are_ten_minutes_apart() {
    let aws = aws().await;
    for (minutes, word) in [(10, "ahead of"), (-10, "behind")] {
        aws.kms.set_clock_skew(jiff::SignedDuration::from_mins(minutes));
        let report = aws.check(aws.config()).await;
        let failed = report.failed().unwrap();
        assert_eq!(failed.name, "clock_skew", "{report}");
        assert!(failed.detail.contains(word) && failed.advice.contains("clock"), "{report}");
        let credentials = step(&report, "credentials");
        assert!(credentials.outcome == Outcome::Failed && credentials.advice == failed.advice, "AWS refuses the signature for the same reason: {report}");
    }
    aws.kms.set_clock_skew(jiff::SignedDuration::from_secs(30));
    assert!(aws.check(aws.config()).await.passed());
}

#[tokio::test]
async fn credentials_that_aws_refuses() {
    let aws = aws().await;
    let with = |id: &str, secret: &str| {
        let mut config = aws.config();
        config.credentials = keystead_awskms::Credentials::Key { access_key_id: id.to_owned(), secret_access_key: secret.to_owned().into() };
        config
    };
    let report = aws.check(with(ACCESS_KEY_ID, "wrong-secret")).await;
    assert!(fails_at(&report, "credentials").advice.contains("secret_access_key"), "{report}");
    let report = aws.check(with("AKIAIOSFODNN7UNKNOWN", SECRET)).await;
    assert!(fails_at(&report, "credentials").advice.contains("access_key_id"), "{report}");
}

#[tokio::test]
async fn keys_that_are_unknown_disabled_or_denied() {
    let aws = aws().await;
    let report = check(&aws.environment(), aws.config(), "alias/nowhere").await;
    let failed = report.failed().unwrap();
    assert!(failed.name == "describe_key" && failed.detail.contains("NotFoundException") && failed.advice.contains("key_id"), "{report}");
    assert_eq!(step(&report, "credentials").outcome, Outcome::Passed);

    for state in [KeyState::Disabled, KeyState::PendingDeletion] {
        aws.kms.set_key_state(&aws.key, state).unwrap();
        let report = aws.check(aws.config()).await;
        let failed = report.failed().unwrap();
        assert!(failed.name == "describe_key" && failed.detail.contains(&format!("{state:?}")) && failed.advice.contains("enable"), "{report}");
        assert_eq!(step(&report, "encrypt").outcome, Outcome::Failed);
    }
    aws.kms.set_key_state(&aws.key, KeyState::Enabled).unwrap();

    for (operation, name) in [("DescribeKey", "describe_key"), ("Encrypt", "encrypt"), ("Decrypt", "decrypt")] {
        aws.kms.deny(&aws.key, Denial { operation: Some(operation.to_owned()), access_key_id: None }).unwrap();
        let report = aws.check(aws.config()).await;
        let failed: Vec<_> = report.steps.iter().filter(|step| step.outcome == Outcome::Failed).collect();
        assert!(failed.len() == 1 && failed[0].name == name && failed[0].advice.contains(&format!("kms:{operation}")), "{report}");
        assert_eq!(step(&report, "decrypt").outcome == Outcome::Passed, operation == "DescribeKey", "who must not describe a key may still use it: {report}");
        aws.kms.restore_access(&aws.key).unwrap();
    }
    aws.kms.add_fault(FaultRule { operation: Some("Decrypt".to_owned()), ..FaultRule::always(Fault::WrongKek) });
    let report = aws.check(aws.config()).await;
    assert!(fails_at(&report, "decrypt").detail.contains("another value"), "{report}");
}

#[tokio::test]
async fn what_is_not_aws_is_named() {
    let aws = aws().await;
    aws.kms.add_fault(FaultRule::always(Fault::CaptivePortal));
    let report = aws.check(aws.config()).await;
    let failed = fails_at(&report, "describe_key");
    assert!(failed.detail.contains("not AWS's") && failed.advice.contains("portal"), "{report}");
    assert!(matches!(step(&report, "credentials").outcome, Outcome::Skipped(_)));
    aws.kms.clear_faults();
    aws.kms.add_fault(FaultRule { operation: Some("DescribeKey".to_owned()), ..FaultRule::always(Fault::Throttle) });
    let report = aws.check(aws.config()).await;
    assert!(fails_at(&report, "describe_key").advice.contains("again"), "{report}");
}

/// What has failed already is not asked again, and the rest of the way is looked at.
#[tokio::test]
async fn after_a_failed_call_only_the_way_is_walked() {
    let aws = aws().await;
    let client = Client::new(&aws.environment(), aws.config()).unwrap();
    let error = client.describe_key("alias/nowhere").await.unwrap_err();
    let after = async |known: &Known| {
        let report = Preflight::new(&aws.environment(), aws.config()).unwrap().after(known).await;
        sound(&report);
        report
    };
    aws.kms.clear_calls();
    for (known, name) in [
        (Known::DescribeKey(error.clone()), "describe_key"),
        (Known::Encrypt(error.clone()), "encrypt"),
        (Known::Decrypt(error.clone()), "decrypt"),
        (Known::OtherPlaintext, "decrypt"),
    ] {
        let report = after(&known).await;
        let failed = fails_at(&report, name);
        assert!(failed.detail.is_empty(), "who asks has the text: {report}");
        assert!(report.summary().starts_with("dns passed"), "{report}");
    }
    assert!(aws.kms.calls().iter().all(|call| call.operation.is_empty()), "no call but the look at the clock");

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let preflight = Preflight::new(&aws.environment(), ClientConfig { timeout: SHORT, ..config("kms.test", listener.local_addr().unwrap().port()) }).unwrap();
    let start = Instant::now();
    let report = preflight.after(&Known::DescribeKey(error)).await;
    fails_at(&report, "tls");
    assert!(start.elapsed() < SHORT * 40, "all of it within one timeout, give or take a busy machine");
}

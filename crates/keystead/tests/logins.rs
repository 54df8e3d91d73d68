//! Ways to log in: client certificates, sessions of the console, and passwords under attack.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use crate::common;

use common::caller::Caller;
use common::scene::scene;
use common::{Node, PASSWORD, eventually};
use futures_util::StreamExt as _;
use keystead::serve::Hooks;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use serde_json::{Value, json};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// A CA that the test holds.
struct Ca {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Ca {
    fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    /// A certificate and its key.
    fn issue(&self, common_name: &str, ends: Duration) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
        let now = std::time::UNIX_EPOCH + Duration::from_secs(u64::try_from(jiff::Timestamp::now().as_second()).unwrap());
        params.not_before = (now - Duration::from_secs(3600 * 24 * 10)).into();
        params.not_after = (now - Duration::from_secs(3600) + ends).into();
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }
}

const LONG: Duration = Duration::from_secs(3600 * 24);

/// Installs a `client_ca`, and answers where it stands.
async fn install(node: &Node, pem: &str, svm: Option<&str>) -> String {
    let mut body = json!({ "type": "client_ca", "public_certificate": pem });
    if let Some(svm) = svm {
        body["svm"] = json!({ "name": svm });
    }
    let (status, headers, body) = node.call("POST", "/security/certificates", Some(body)).await;
    assert_eq!(status, 201, "{body}");
    headers["location"].to_str().unwrap().strip_prefix("/api").unwrap().to_owned()
}

fn methods(methods: &[&str]) -> Value {
    json!([{ "application": "http", "authentication_methods": methods }])
}

async fn change(node: &Node, name: &str, change: Value) {
    let found = node.get(&format!("/security/accounts?name={name}")).await;
    let path = found["records"][0]["_links"]["self"]["href"].as_str().unwrap().strip_prefix("/api").unwrap();
    assert_eq!(node.ask("PATCH", path, Some(change)).await.0, 200);
}

/// Whether a client is logged in; `None`: there was not even a connection.
async fn login(caller: &Caller) -> Option<u16> {
    caller.try_call("GET", "/cluster", None).await.map(|answer| answer.status)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_logs_in_whose_ca_vouches_for_that_account() {
    let scene = scene().await;
    let node = &scene.node;
    node.svm("svm2").await;
    let (cluster_ca, svm_ca, foreign) = (Ca::new("cluster clients"), Ca::new("svm1 clients"), Ca::new("somebody"));
    let (certificate, key) = cluster_ca.issue("admin", LONG);
    let admin = node.caller_with(&certificate, &key);
    assert_eq!(login(&admin).await, Some(401), "nobody asks for a certificate, and so nobody has shown one");
    let installed = install(node, &cluster_ca.pem, None).await;
    let of_svm = install(node, &svm_ca.pem, Some("svm1")).await;
    let fresh = |pair: (String, String)| node.caller_with(&pair.0, &pair.1);
    let admin = fresh((certificate, key));
    assert_eq!(login(&admin).await, Some(401), "the account does not have the method");
    change(node, "admin", json!({ "applications": methods(&["password", "certificate"]) })).await;
    assert_eq!(login(&admin).await, Some(200), "it has it now, on the open connection too");
    let made = admin.call("POST", "/svm/svms?return_timeout=30", Some(json!({ "name": "by-certificate" }))).await;
    assert_eq!(made.status, 201, "{}", made.body);

    for (name, owner, role) in [("tenant-1", Some("svm1"), "vsadmin"), ("tenant-2", Some("svm2"), "vsadmin"), ("reader", None, "readonly")] {
        node.account(name, role, owner).await;
        change(node, name, json!({ "applications": methods(&["certificate"]) })).await;
        assert_eq!(node.caller(name, PASSWORD).login().await, 401, "the password is no method any more");
    }
    // Each account needs its own side's CA.
    for (ca, name, expected) in [
        (&cluster_ca, "reader", Some(200)),
        (&cluster_ca, "tenant-1", Some(401)),
        (&cluster_ca, "nobody", Some(401)),
        (&cluster_ca, "ADMIN", Some(401)),
        (&svm_ca, "tenant-1", Some(200)),
        (&svm_ca, "tenant-2", Some(401)),
        (&svm_ca, "admin", Some(401)),
        (&svm_ca, "reader", Some(401)),
        (&foreign, "admin", None),
    ] {
        assert_eq!(login(&fresh(ca.issue(name, LONG))).await, expected, "{name}");
    }
    assert_eq!(login(&fresh(cluster_ca.issue("admin", Duration::ZERO))).await, None, "it has ended");
    let tenant = fresh(svm_ca.issue("tenant-1", LONG));
    assert_eq!(tenant.call("GET", "/svm/svms", None).await.body["num_records"], 1, "as the account, and nothing more");
    // A wrong password is wrong, whatever the certificate says; and the right one is that account's.
    let (certificate, key) = cluster_ca.issue("admin", LONG);
    let both = node.caller_with(&certificate, &key).with("authorization", "Basic YWRtaW46d3JvbmcgcGFzc3dvcmQ=");
    assert_eq!(login(&both).await, Some(401));
    let unreadable = node.caller_with(&certificate, &key).with("authorization", "Bearer x");
    assert_eq!(login(&unreadable).await, Some(401));
    let session = fresh(cluster_ca.issue("admin", LONG)).call("POST", "/security/ekmip/sessions", None).await;
    assert_eq!(session.code(), "6", "a session begins with a password");

    // What is taken away is gone on open connections.
    assert_eq!(login(&admin).await, Some(200));
    change(node, "admin", json!({ "applications": methods(&["password"]) })).await;
    assert_eq!(login(&admin).await, Some(401));
    change(node, "admin", json!({ "applications": methods(&["password", "certificate"]) })).await;
    assert_eq!(login(&admin).await, Some(200));
    assert_eq!(node.ask("DELETE", &installed, None).await.0, 200);
    assert_eq!(login(&admin).await, Some(401), "the CA is gone");
    assert_eq!(login(&tenant).await, Some(200));
    assert_eq!(node.ask("DELETE", &of_svm, None).await.0, 200);
    assert_eq!(login(&tenant).await, Some(401));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_of_ekmip_log_nobody_in() {
    let scene = scene().await;
    let node = &scene.node;
    change(node, "admin", json!({ "applications": methods(&["password", "certificate"]) })).await;
    // An SVM's administrator chooses the name of a client. Even with the cluster's CA installed for logins, that is no account's.
    let body = json!({ "svm": { "name": "svm1" }, "common_name": "admin" });
    let (status, client) = node.ask("POST", "/security/ekmip/clients?return_records=true", Some(body)).await;
    assert_eq!(status, 201, "{client}");
    let client = &client["records"][0];
    let text = |member: &str| client[member].as_str().unwrap().to_owned();
    let caller = || node.caller_with(&text("certificate"), &text("private_key"));
    assert_eq!(login(&caller()).await, Some(401));
    install(node, &text("ca_certificate"), None).await;
    assert_eq!(login(&caller()).await, Some(401), "it vouches for nobody, and so nobody is asked");
    let other = Ca::new("clients");
    install(node, &other.pem, None).await;
    assert_eq!(login(&caller()).await, None, "it is asked for, and refused");
    let (certificate, key) = other.issue("admin", LONG);
    assert_eq!(login(&node.caller_with(&certificate, &key)).await, Some(200));
    // In FIPS mode as well.
    assert_eq!(node.ask("PATCH", "/security", Some(json!({ "fips": { "enabled": true }, "keystead": { "force": true } }))).await.0, 200);
    assert_eq!(login(&node.caller_with(&certificate, &key)).await, Some(200));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_begin_with_a_password_and_end_with_what_they_stand_on() {
    let scene = scene().await;
    let node = &scene.node;
    let reader = node.account("reader", "readonly", None).await;
    let begin = async |caller: &Caller| {
        let answer = caller.call("POST", "/security/ekmip/sessions", None).await;
        assert_eq!(answer.status, 201, "{}", answer.body);
        let cookie = answer.headers["set-cookie"].to_str().unwrap().to_owned();
        for attribute in ["__Host-keystead-session=", "; Path=/", "; Secure", "; HttpOnly", "; SameSite=Strict"] {
            assert!(cookie.contains(attribute), "{cookie}");
        }
        let token = cookie.split(';').next().unwrap().to_owned();
        let record = answer.body["records"][0].clone();
        assert!(!answer.body.to_string().contains(token.split_once('=').unwrap().1), "the token is in the cookie alone");
        (
            node.nobody().with("cookie", &token),
            record["csrf_token"].as_str().unwrap().to_owned(),
            format!("/security/ekmip/sessions/{}", record["uuid"].as_str().unwrap()),
        )
    };
    let admin = node.caller("admin", PASSWORD);
    let (session, csrf, path) = begin(&admin).await;
    assert_eq!(session.login().await, 200);
    let body = json!({ "name": "by-session" });
    for refused in [session.clone(), session.clone().with("x-csrf-token", "x"), session.clone().with("x-csrf-token", &begin(&admin).await.1)] {
        assert_eq!(refused.call("POST", "/svm/svms", Some(body.clone())).await.code(), "6", "without its token nothing changes");
    }
    let changing = session.clone().with("x-csrf-token", &csrf);
    let elsewhere = changing.clone().with("sec-fetch-site", "cross-site");
    assert_eq!(elsewhere.call("POST", "/svm/svms", Some(body.clone())).await.code(), "6", "another site's page");
    assert_eq!(admin.clone().with("sec-fetch-site", "cross-site").call("POST", "/svm/svms", Some(body.clone())).await.code(), "6", "whatever it shows");
    assert_eq!(changing.clone().with("sec-fetch-site", "same-origin").call("POST", "/svm/svms?return_timeout=30", Some(body)).await.status, 201);
    let shown = session.call("GET", &format!("{path}?fields=current,csrf_token"), None).await.body;
    assert_eq!((&shown["current"], shown["csrf_token"].as_str()), (&json!(true), Some(csrf.as_str())));
    // It is for headers: what would write it into a URL is refused.
    let list = "/security/ekmip/sessions";
    for (query, refused) in
        [(format!("csrf_token={csrf}"), "262250"), ("order_by=csrf_token".into(), "262268"), (format!("query={csrf}&query_fields=csrf_token"), "262276")]
    {
        assert_eq!(session.call("GET", &format!("{list}?{query}"), None).await.code(), refused, "{query}");
    }
    assert_eq!(session.call("GET", &format!("{list}?query={csrf}&query_fields=*"), None).await.body["num_records"], 0);
    assert_eq!(session.call("POST", "/security/ekmip/sessions", None).await.code(), "6");
    assert_eq!(node.nobody().with("cookie", "__Host-keystead-session=guess").login().await, 401);
    // Logged out.
    let out = changing.call("DELETE", &path, None).await;
    assert_eq!(out.status, 200);
    assert!(out.headers["set-cookie"].to_str().unwrap().contains("Max-Age=0"));
    assert_eq!(session.login().await, 401);
    // Whatever the login stood on.
    for (n, taken) in [json!({ "password": "another password" }), json!({ "locked": true }), json!({ "role": { "name": "admin" } })].into_iter().enumerate() {
        change(node, "reader", json!({ "locked": false, "password": PASSWORD, "role": { "name": "readonly" } })).await;
        let (session, ..) = begin(&reader).await;
        assert_eq!(session.login().await, 200);
        change(node, "reader", json!({ "comment": format!("still the same {n}") })).await;
        assert_eq!(session.login().await, 200);
        change(node, "reader", taken.clone()).await;
        assert_eq!(session.login().await, 401, "{taken}");
    }
    // Idle, and too old though never idle.
    let (session, ..) = begin(&admin).await;
    scene.clock.advance(Duration::from_secs(15 * 60));
    assert_eq!(session.login().await, 401);
    let (session, ..) = begin(&admin).await;
    for _ in 0..72 {
        assert_eq!(session.login().await, 200);
        scene.clock.advance(Duration::from_secs(10 * 60));
    }
    assert_eq!(session.login().await, 401);
    // The oldest makes room.
    let (oldest, ..) = begin(&admin).await;
    for _ in 0..16 {
        begin(&admin).await;
    }
    assert_eq!((oldest.login().await, admin.call("GET", "/security/ekmip/sessions", None).await.body["num_records"].as_u64()), (401, Some(16)));
}

/// How many guesses, and from how many sources.
fn attack() -> (usize, usize) {
    if std::env::var_os("SOAK").is_some() { (10_000, 400) } else { (400, 20) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_passwords_from_many_sources_lock_nobody_out() {
    let node = Node::start("", Hooks::default()).await;
    let address = |n: usize| IpAddr::V4(Ipv4Addr::new(127, 0, 1 + u8::try_from(n / 250).unwrap(), 1 + u8::try_from(n % 250).unwrap()));
    node.account("reader", "readonly", None).await;
    let (admin, reader) = (node.caller("admin", PASSWORD), node.caller_from([127, 0, 0, 9].into(), "reader", PASSWORD));
    assert_eq!((admin.login().await, reader.login().await), (200, 200));
    let done = AtomicBool::new(false);
    let (guesses, many) = attack();
    let attack = async {
        let sources: Vec<Caller> = (0..many).map(|n| node.caller_from(address(n), "admin", "a wrong password")).collect();
        let sources = &sources;
        let outcomes = futures_util::stream::iter(0..guesses).map(|n| async move {
            let answer = sources[n % sources.len()].guessing(&format!("wrong password {n}")).call("GET", "/cluster", None).await;
            if answer.status == 429 {
                let wait: u64 = answer.headers["retry-after"].to_str().unwrap().parse().unwrap();
                assert!((1..=60).contains(&wait) && answer.code() == "262160", "{wait} {}", answer.body);
            }
            answer.status
        });
        let outcomes: Vec<u16> = outcomes.buffer_unordered(64).collect().await;
        done.store(true, Ordering::SeqCst);
        outcomes
    };
    // Those who did nothing wrong: known or new, with the login remembered or not.
    let good = async {
        let mut statuses = Vec::new();
        let mut n = 0;
        while !done.load(Ordering::SeqCst) || n == 0 {
            let newcomer = node.caller_from([127, 0, 100, 1 + u8::try_from(n % 250).unwrap()].into(), "admin", PASSWORD);
            statuses.push((admin.login().await, reader.login().await, newcomer.login().await));
            n += 1;
        }
        statuses
    };
    let (attack, good) = tokio::join!(attack, good);
    assert!(good.iter().all(|statuses| *statuses == (200, 200, 200)), "{good:?}");
    assert!(attack.iter().all(|status| *status == 401 || *status == 429), "a wrong password is wrong");
    let (wrong, later) = (attack.iter().filter(|status| **status == 401).count(), attack.iter().filter(|status| **status == 429).count());
    assert!(wrong <= many * 22 && later > 0, "each source is slowed down: {wrong} {later}");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retry_after_is_right() {
    let scene = scene().await;
    let node = &scene.node;
    node.account("reader", "readonly", None).await;
    let guess = |n: usize| node.caller_from([127, 0, 0, 7].into(), "reader", &format!("wrong password {n}"));
    let right = node.caller_from([127, 0, 0, 7].into(), "reader", PASSWORD);
    let mut answer = guess(0).call("GET", "/cluster", None).await;
    for n in 1..10 {
        if answer.status == 429 {
            break;
        }
        answer = guess(n).call("GET", "/cluster", None).await;
    }
    assert_eq!(answer.status, 429);
    assert_eq!(guess(0).login().await, 401, "what was tried before is no new guess");
    let wait: u64 = answer.headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert_eq!(right.login().await, 429, "not before, even with the right one");
    scene.clock.advance(Duration::from_secs(wait - 1));
    assert_eq!(right.login().await, 429);
    scene.clock.advance(Duration::from_secs(1));
    assert_eq!(right.login().await, 200);
    eventually("the failures are forgotten with a good login", async || (guess(99).login().await == 401).then_some(())).await;
}

//! Planted secrets, looked for in every output, in every form in which they could hide; with a control that leaks one on purpose.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use crate::common;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use common::kmip::{Credentials, Kmip, template, uid};
use common::program::Program;
use common::{ACCESS_KEY_ID, enable_body, eventually, stand_in, toml_for};
use keystead_kmip::Tag;
use keystead_kmip::attribute::Attribute;
use keystead_kmip::enumeration::Operation;
use keystead_kmip::ttlv::{Node as Item, Value};
use keystead_testkit::{Fault, FaultRule};
use serde_json::{Value as Json, json};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use tokio::io::AsyncReadExt as _;

/// Each is unique, and long enough not to turn up by chance. The odd characters make the escaped forms differ from the plain one.
const ADMIN_PASSWORD: &str = "adm-Pq7\"x/2+Zr&vK9é";
const AWS_SECRET: &str = "aws/Uw3\\nT+8sYb\"QeJ1kXo5";
const WRONG_SECRET: &str = "wrg/Hd6+Lm\"2oRc9Vt4pAz";
const NEW_SECRET: &str = "new/Bn1+Gk\"7uWf3Xs8qCe";
const REKEY_SECRET: &str = "rek/Jy5+Dv\"4iOz6Mh2wTl";
const PROXY_PASSWORD: &str = "prx/Fa8:Nc\"1eKs5Rg7xUb";
const NEXT_PASSWORD: &str = "nxt-Sv4\"c/9+Lt&bM2ü";

const PASSPHRASE: &str = "pas/Mk2+Hx\"6yTq9Wd4rLs-8Jn&ü/cluster";
const WRONG_PASSPHRASE: &str = "wpp/Tg5+Cz\"3eBn7Vk1sQy-2Fm&ö/cluster";
const NEXT_PASSPHRASE: &str = "npp/Rw8+Jd\"1uXh4Zb6kPa-5Ls&ä/cluster";

const PLANTED: &[&str] =
    &[ADMIN_PASSWORD, AWS_SECRET, WRONG_SECRET, NEW_SECRET, REKEY_SECRET, PROXY_PASSWORD, NEXT_PASSWORD, PASSPHRASE, WRONG_PASSPHRASE, NEXT_PASSPHRASE];

/// Every form of a secret that is looked for.
fn forms(secret: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut forms: Vec<(String, Vec<u8>)> = vec![("plain".into(), secret.to_vec())];
    let mut add = |name: &str, form: Vec<u8>| forms.push((name.to_owned(), form));
    // In base64 the text depends on where it starts: three alignments, without the characters at both ends that neighbours would change.
    for skip in 0..3 {
        let shifted: Vec<u8> = std::iter::repeat_n(0u8, skip).chain(secret.iter().copied()).collect();
        for (name, text) in [("base64", STANDARD_NO_PAD.encode(&shifted)), ("base64url", URL_SAFE_NO_PAD.encode(&shifted))] {
            let start = if skip == 0 { 0 } else { 4 };
            add(name, text.as_bytes()[start..text.len() - 3].to_vec());
        }
    }
    add("hex", secret.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into_bytes());
    add("HEX", secret.iter().map(|byte| format!("{byte:02X}")).collect::<String>().into_bytes());
    add("a list of numbers", secret.iter().map(u8::to_string).collect::<Vec<_>>().join(", ").into_bytes());
    add("a list of numbers, dense", secret.iter().map(u8::to_string).collect::<Vec<_>>().join(",").into_bytes());
    if let Ok(text) = std::str::from_utf8(secret) {
        add("percent", percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string().into_bytes());
        add("JSON", serde_json::to_string(text).unwrap().trim_matches('"').as_bytes().to_vec());
        let twice = serde_json::to_string(&serde_json::to_string(text).unwrap()).unwrap();
        add("JSON in JSON", twice.strip_prefix("\"\\\"").and_then(|rest| rest.strip_suffix("\\\"\"")).unwrap().as_bytes().to_vec());
        add("Debug", format!("{text:?}").trim_matches('"').as_bytes().to_vec());
        add("UTF-16LE", text.encode_utf16().flat_map(u16::to_le_bytes).collect());
        add("UTF-16BE", text.encode_utf16().flat_map(u16::to_be_bytes).collect());
    }
    forms
}

fn find(place: &str, content: &[u8], secret: &[u8], found: &mut Vec<String>) {
    for (form, bytes) in forms(secret) {
        if content.windows(bytes.len()).any(|window| window == bytes) {
            found.push(format!("{place}: a secret in the form {form}"));
        }
    }
}

/// All that the program puts out, by place.
struct Outputs {
    program: Program,
    seen: Vec<(String, Vec<u8>)>,
    /// What a syslog collector has got.
    forwarded: Arc<Mutex<Vec<u8>>>,
}

impl Outputs {
    async fn call(&mut self, method: &str, path: &str, body: Option<Json>) -> (u16, Json) {
        self.call_raw(method, path, body.map(|body| body.to_string().into_bytes())).await
    }

    async fn call_raw(&mut self, method: &str, path: &str, body: Option<Vec<u8>>) -> (u16, Json) {
        let url = format!("https://127.0.0.1:{}/api{path}", self.program.port);
        let mut request = self.program.client().request(method.parse().unwrap(), url).basic_auth("admin", Some(ADMIN_PASSWORD));
        if let Some(body) = body {
            request = request.body(body);
        }
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        let mut whole = format!("{:?}", answer.headers()).into_bytes();
        let text = answer.bytes().await.unwrap();
        whole.extend_from_slice(&text);
        self.seen.push((format!("the answer to {method} {path}"), whole));
        (status, serde_json::from_slice(&text).unwrap_or(Json::Null))
    }

    /// Adds what lies around outside the answers: log, data folder, command lines.
    fn collect(&mut self) {
        self.seen.push(("the log".into(), std::fs::read(&self.program.log).unwrap()));
        for path in files(&self.program.folder.join("data")) {
            self.seen.push((format!("the file {}", path.display()), std::fs::read(&path).unwrap()));
        }
        self.seen.push(("the syslog stream".into(), self.forwarded.lock().unwrap().clone()));
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            // Only our own processes: others on the machine may have anything in theirs.
            if command.windows(8).any(|window| window == b"keystead") {
                self.seen.push((format!("the command line of {}", entry.path().display()), command));
            }
        }
    }

    fn leaks(&self, secrets: &[&[u8]]) -> Vec<String> {
        let mut found = Vec::new();
        for (place, content) in &self.seen {
            for secret in secrets {
                find(place, content, secret, &mut found);
            }
        }
        found
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        if entry.path().is_dir() { all.extend(files(&entry.path())) } else { all.push(entry.path()) }
    }
    all
}

/// Takes whatever comes.
async fn collector() -> (SocketAddr, Arc<Mutex<Vec<u8>>>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, taken) = (listener.local_addr().unwrap(), Arc::<Mutex<Vec<u8>>>::default());
    let all = taken.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut bytes = [0; 4096];
            while let Ok(length @ 1..) = stream.read(&mut bytes).await {
                all.lock().unwrap().extend_from_slice(&bytes[..length]);
            }
        }
    });
    (address, taken)
}

async fn started() -> (Outputs, keystead_testkit::KmsStandIn, String, tempfile::TempDir) {
    let (kms, key) = stand_in().await;
    kms.add_access_key(ACCESS_KEY_ID, AWS_SECRET);
    kms.add_access_key("AKIANEWNEWNEWNEWNEW0", NEW_SECRET);
    kms.add_access_key("AKIAREKEYREKEYREKEY0", REKEY_SECRET);
    let folder = tempfile::tempdir().unwrap();
    let (collector, forwarded) = collector().await;
    let syslog = format!("[audit]\ninterval = \"1s\"\n[audit.syslog]\nprotocol = \"tcp\"\naddress = \"{collector}\"\n");
    let toml = format!("{}[log]\nlevel = \"debug\"\n{syslog}", toml_for(&kms, folder.path()));
    let program = Program::start(folder.path(), &toml, &[("KEYSTEAD_ADMIN_PASSWORD", ADMIN_PASSWORD)]).await;
    (Outputs { program, seen: Vec::new(), forwarded }, kms, key, folder)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_output_holds_a_planted_secret() {
    let (mut out, kms, key, _folder) = started().await;
    out.call("POST", "/svm/svms?return_timeout=30", Some(json!({ "name": "svm1" }))).await;
    let body = |changes: Json| {
        let mut body = enable_body("svm1", &kms, &key);
        body["secret_access_key"] = json!(AWS_SECRET);
        for (name, value) in changes.as_object().unwrap() {
            body[name] = value.clone();
        }
        Some(body)
    };
    let post = "/security/aws-kms?return_timeout=60&return_records=true";

    // What fails: at AWS, at a proxy, on the way, in the fields, in the JSON.
    out.call("POST", post, body(json!({ "secret_access_key": WRONG_SECRET }))).await;
    let proxy = json!({ "proxy_type": "http", "proxy_host": "127.0.0.1", "proxy_port": 9, "proxy_username": "u", "proxy_password": PROXY_PASSWORD });
    out.call("POST", post, body(proxy)).await;
    for fault in [Fault::CaptivePortal, Fault::NotJson, Fault::Half, Fault::Xml { code: "SignatureDoesNotMatch".into(), status: 403 }] {
        kms.add_fault(FaultRule::always(fault));
        out.call("POST", post, body(json!({ "timeout": 1 }))).await;
        kms.clear_faults();
    }
    out.call("POST", post, body(json!({ "port": "no number" }))).await;
    out.call("POST", post, body(json!({ "nonsense": 1 }))).await;
    out.call("POST", post, body(json!({ "proxy_password": PROXY_PASSWORD }))).await;
    for broken in [
        format!("{{\"secret_access_key\": {}", json!(AWS_SECRET)),
        format!("{{\"secret_access_key\": {} {}}}", json!(AWS_SECRET), json!(WRONG_SECRET)),
        format!("{{\"secret_access_key\": {0}, \"secret_access_key\": {0}}}", json!(AWS_SECRET)),
        format!("{{\"secret_access_key\": [{}]}}", json!(AWS_SECRET)),
        format!("{{\"secret_access_key\": {{\"x\": {}}}}}", json!(AWS_SECRET)),
        format!("[{}]", json!(AWS_SECRET)),
    ] {
        let (status, _) = out.call_raw("POST", post, Some(broken.into_bytes())).await;
        assert_eq!(status, 400);
    }

    // The cluster passphrase: refused, taken, wrong, changed, used.
    let managers = "/security/key-managers?return_timeout=60&return_records=true";
    assert_eq!(out.call("POST", managers, Some(json!({ "onboard": { "passphrase": PASSPHRASE, "existing_passphrase": WRONG_PASSPHRASE } }))).await.0, 400);
    assert_eq!(out.call("POST", managers, Some(json!({ "onboard": { "passphrase": format!("{PASSPHRASE}{}", "x".repeat(300)) } }))).await.0, 400);
    let (status, made) = out.call("POST", managers, Some(json!({ "onboard": { "passphrase": PASSPHRASE } }))).await;
    assert_eq!(status, 201, "{made}");
    let onboard = format!("/security/key-managers/{}?return_timeout=60", made["records"][0]["uuid"].as_str().unwrap());
    for (change, status) in [
        (json!({ "passphrase": NEXT_PASSPHRASE, "existing_passphrase": WRONG_PASSPHRASE }), 400),
        (json!({ "passphrase": NEXT_PASSPHRASE, "existing_passphrase": PASSPHRASE }), 200),
        (json!({ "synchronize": true, "existing_passphrase": NEXT_PASSPHRASE }), 200),
        (json!({ "passphrase": { "x": PASSPHRASE } }), 400),
    ] {
        assert_eq!(out.call("PATCH", &onboard, Some(json!({ "onboard": change }))).await.0, status);
    }
    out.call("GET", "/security/key-managers?fields=**", None).await;
    out.call("GET", "/security/key-managers?fields=onboard.passphrase", None).await;
    out.call("GET", "/security/key-stores?fields=**", None).await;

    // What succeeds.
    let (status, enabled) = out.call("POST", post, body(json!({}))).await;
    assert_eq!(status, 201, "{enabled}");
    let path = format!("/security/aws-kms/{}", enabled["records"][0]["uuid"].as_str().unwrap());
    let wait = "?return_timeout=60";
    assert_eq!(
        out.call("PATCH", &format!("{path}{wait}"), Some(json!({ "access_key_id": "AKIANEWNEWNEWNEWNEW0", "secret_access_key": NEW_SECRET }))).await.0,
        200
    );
    assert_eq!(out.call("PATCH", &format!("{path}{wait}"), Some(json!({ "secret_access_key": WRONG_SECRET }))).await.0, 400);
    let rekey = json!({ "key_id": key, "keystead": { "new": { "access_key_id": "AKIAREKEYREKEYREKEY0", "secret_access_key": REKEY_SECRET } } });
    assert_eq!(out.call("POST", &format!("{path}/rekey-external{wait}"), Some(rekey)).await.0, 201);
    out.call(
        "PATCH",
        &format!("{path}{wait}"),
        Some(json!({ "proxy_type": "http", "proxy_host": "127.0.0.1", "proxy_port": 9, "proxy_password": PROXY_PASSWORD })),
    )
    .await;
    // A job that has not ended holds its inputs in the store.
    kms.add_fault(FaultRule::next("Decrypt", Fault::Hold));
    assert_eq!(out.call("PATCH", &path, Some(json!({ "access_key_id": "AKIANEWNEWNEWNEWNEW0", "secret_access_key": NEW_SECRET }))).await.0, 202);
    kms.wait_held(1, std::time::Duration::from_secs(20)).await;
    out.collect();
    kms.release();
    for query in [
        "/security/aws-kms?fields=**",
        "/security/aws-kms?fields=*,keystead",
        "/cluster/jobs?fields=*",
        "/security/ekmip/settings",
        "/security/aws-kms?fields=secret_access_key",
        "/security/audit/messages?fields=**",
    ] {
        out.call("GET", query, None).await;
    }
    out.call("POST", "/security/authentication/password", Some(json!({ "name": "admin", "password": NEXT_PASSWORD }))).await;
    // Passwords that are wrong, in their own place and in that of a name.
    for (name, password) in [("admin", NEXT_PASSWORD), (PASSPHRASE, WRONG_SECRET)] {
        let url = format!("https://127.0.0.1:{}/api/cluster", out.program.port);
        let _ = out.program.client().get(url).basic_auth(name, Some(password)).send().await.unwrap();
    }
    let audit = out.program.folder.join("data/audit");
    eventually("refusals must be recorded, and everything forwarded", async || {
        let newest = files(&audit).into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "jsonl")).max()?;
        let text = std::fs::read_to_string(newest).ok()?;
        let last = text.lines().last()?;
        let forwarded = out.forwarded.lock().unwrap().clone();
        (text.contains("refused") || text.contains("not authenticated")).then_some(())?;
        forwarded.windows(last.len()).any(|window| window == last.as_bytes()).then_some(())
    })
    .await;
    out.collect();

    let seal = std::fs::read_to_string(out.program.folder.join("data/seal.key")).unwrap();
    let seal_bytes: Vec<u8> = (0..32).map(|n| u8::from_str_radix(&seal[2 * n..2 * n + 2], 16).unwrap()).collect();
    let secrets: Vec<&[u8]> = PLANTED.iter().map(|secret| secret.as_bytes()).collect();
    assert_eq!(out.leaks(&secrets), [""; 0]);
    out.seen.retain(|(place, _)| !place.ends_with("seal.key"));
    assert_eq!(out.leaks(&[&seal_bytes, seal.trim().as_bytes()]), [""; 0], "the seal key stands in its file alone");
    // Private keys of CA and servers are sealed too.
    for (place, content) in &out.seen {
        assert!(!content.windows(11).any(|window| window == b"PRIVATE KEY"), "{place} holds a private key");
    }
    // The search would have seen what is there: the access key id is no secret and stands in many places, in the audit log and all that comes of it among them.
    let leaks = out.leaks(&[b"AKIAREKEYREKEYREKEY0"]);
    for place in ["data/audit/audit-", "the answer to GET /security/audit/messages", "the syslog stream"] {
        assert!(leaks.iter().any(|leak| leak.contains(place)), "{place}: {leaks:?}");
    }
}

/// Keys of the data plane: one that a client brings, one that is made here, one that is refused. Only a Get may hold them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_output_holds_a_key_of_the_data_plane() {
    let (mut out, kms, key, _folder) = started().await;
    out.call("POST", "/svm/svms?return_timeout=30", Some(json!({ "name": "svm1" }))).await;
    let mut body = enable_body("svm1", &kms, &key);
    body["secret_access_key"] = json!(AWS_SECRET);
    let (status, enabled) = out.call("POST", "/security/aws-kms?return_timeout=60&return_records=true", Some(body)).await;
    assert_eq!(status, 201, "{enabled}");
    let path = format!("/security/aws-kms/{}", enabled["records"][0]["uuid"].as_str().unwrap());
    let own = rcgen::KeyPair::generate().unwrap();
    let csr = rcgen::CertificateParams::default().serialize_request(&own).unwrap().pem().unwrap();
    let (_, issued) =
        out.call("POST", "/security/ekmip/clients?return_records=true", Some(json!({ "svm": { "name": "svm1" }, "common_name": "c", "csr": csr }))).await;
    let client = Credentials { private_key: own.serialize_pem(), ..Credentials::from_record(&issued["records"][0]) };
    let mut kmip = Kmip::connect(&client.endpoint(out.program.ekmip));

    let planted = b"kmp-Zx3/Rq8+Vb\"5nTd2Ws9gLh";
    let registered = kmip.register(planted, &[Attribute::name("brought")]).id();
    assert_eq!(kmip.get(&registered).material(), planted);
    let made = kmip.created(vec![]);
    let material = kmip.get(&made).material();
    // What is refused may be quoted, but never what could be a secret: material in the wrong type, a key of the wrong length, bytes where a text belongs, a message that is cut off.
    let block = |material: Item<'static>, format| {
        let value = Item::structure(Tag::KeyValue, vec![material]);
        let block = Item::structure(Tag::KeyBlock, vec![Item::new(Tag::KeyFormatType, Value::Enumeration(format)), value]);
        vec![
            Item::new(Tag::ObjectType, Value::Enumeration(2)),
            template(&[Attribute::new(Tag::CryptographicAlgorithm, Value::Enumeration(3)), Attribute::new(Tag::CryptographicLength, Value::Integer(256))]),
            Item::structure(Tag::SymmetricKey, vec![block]),
        ]
    };
    let refused = [
        kmip.call(Operation::Register, block(Item::bytes(Tag::KeyMaterial, planted.to_vec()), 1)),
        kmip.call(Operation::Register, block(Item::text(Tag::KeyMaterial, String::from_utf8(planted.to_vec()).unwrap()), 1)),
        kmip.call(Operation::Register, block(Item::bytes(Tag::KeyMaterial, planted.to_vec()), 4)),
        kmip.call(Operation::Get, vec![uid(&made), Item::bytes(Tag::KeyMaterial, planted.to_vec())]),
        kmip.call(Operation::Get, vec![Item::bytes(Tag::UniqueIdentifier, planted.to_vec())]),
    ];
    for answer in refused {
        assert!(answer.reason().is_some());
        out.seen.push(("a refusal over KMIP".to_owned(), answer.message().into_bytes()));
    }
    let _ = kmip.raw(&[&[0x42, 0, 0x78, 1, 0, 0, 0, 32], planted.as_slice(), &[0; 5]].concat()).map(|answer| {
        out.seen.push(("an answer to what is no message".to_owned(), format!("{answer:?}").into_bytes()));
    });
    assert_eq!(out.call("POST", &format!("{path}/rekey-internal?return_timeout=60"), None).await.0, 201);
    let mut kmip = Kmip::connect(&client.endpoint(out.program.ekmip));
    assert_eq!(kmip.get(&made).material(), material, "wrapped anew");
    for query in ["/security/aws-kms?fields=**", "/security/ekmip/clients?fields=*", "/cluster/jobs?fields=*", "/security/audit/messages?fields=**"] {
        out.call("GET", query, None).await;
    }
    out.collect();
    assert_eq!(out.leaks(&[planted, &material]), [""; 0]);
    let leaks = out.leaks(&[registered.as_bytes()]);
    assert!(
        ["store.db", "data/audit/audit-", "/security/audit/messages"].iter().all(|place| leaks.iter().any(|leak| leak.contains(place))),
        "the search would have seen what is there: {leaks:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leak_on_purpose_is_caught_in_every_form() {
    let (mut out, _kms, _key, _folder) = started().await;
    let hidden = [
        ("plain", AWS_SECRET.replace(['"', '\\'], "")),
        ("base64", STANDARD_NO_PAD.encode(format!("x{AWS_SECRET}y"))),
        ("hex", AWS_SECRET.bytes().map(|byte| format!("{byte:02x}")).collect()),
        ("percent", percent_encoding::utf8_percent_encode(AWS_SECRET, percent_encoding::NON_ALPHANUMERIC).to_string()),
    ];
    for (n, (form, comment)) in hidden.iter().enumerate() {
        out.seen.clear();
        let (status, body) =
            out.call("POST", "/svm/svms?return_timeout=30&return_records=true", Some(json!({ "name": format!("svm{n}"), "comment": comment }))).await;
        assert_eq!(status, 201, "{body}");
        eventually("the store must have it", async || {
            out.collect();
            let secret = if *form == "plain" { comment.as_bytes() } else { AWS_SECRET.as_bytes() };
            let leaks = out.leaks(&[secret]);
            (leaks.iter().any(|leak| leak.contains("the answer to POST")) && leaks.iter().any(|leak| leak.contains("store.db"))).then_some(())
        })
        .await;
    }
    // The forms that no text field can hold are found too.
    let sixteen: Vec<u8> = AWS_SECRET.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let mut found = Vec::new();
    find("here", &[b"..".as_slice(), &sixteen, b".."].concat(), AWS_SECRET.as_bytes(), &mut found);
    find("here", format!("{:?}", AWS_SECRET.as_bytes()).as_bytes(), AWS_SECRET.as_bytes(), &mut found);
    find("here", json!({ "a": AWS_SECRET }).to_string().as_bytes(), AWS_SECRET.as_bytes(), &mut found);
    assert!(
        found.iter().any(|leak| leak.ends_with("UTF-16LE"))
            && found.iter().any(|leak| leak.contains("numbers"))
            && found.iter().any(|leak| leak.ends_with("JSON")),
        "{found:?}"
    );
}

//! The console, as a browser meets it: who is shown what, what a form must bring, and that nothing which somebody has typed is more than text. What it looks like, and the way through it, is in
//! `tests/e2e/test_console.py`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use crate::common;

use common::faulty::Mood;
use common::kmip::Credentials;
use common::scene::{Scene, scene};
use common::{ACCESS_KEY_ID, Node, PASSWORD, SECRET, eventually};
use keystead_store::Txn;
use keystead_testkit::KeyState;
use serde_json::json;
use std::net::SocketAddr;
use std::time::Duration;

/// What every answer of the console has.
const HEADERS: [(&str, &str); 4] =
    [("x-frame-options", "DENY"), ("x-content-type-options", "nosniff"), ("referrer-policy", "same-origin"), ("cross-origin-opener-policy", "same-origin")];
const NOWHERE: &str = "00000000-0000-4000-8000-000000000000";

struct Browser {
    client: reqwest::Client,
    address: SocketAddr,
    cookie: String,
}

struct Page {
    status: u16,
    headers: reqwest::header::HeaderMap,
    text: String,
}

impl Page {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The token of the first form.
    fn token(&self) -> &str {
        let (_, behind) = self.text.split_once("name=\"csrf_token\" value=\"").unwrap_or_else(|| panic!("no form: {}", self.text));
        behind.split('"').next().unwrap()
    }
}

impl Browser {
    fn nobody(node: &Node) -> Self {
        Self { client: node.browser(), address: node.address, cookie: String::new() }
    }

    async fn login(node: &Node, name: &str) -> Self {
        let mut browser = Self::nobody(node);
        let page = browser.post("login", &[("name", name), ("password", PASSWORD)]).await;
        assert_eq!((page.status, page.header("location")), (303, "/console/"), "{}", page.text);
        browser.cookie = page.header("set-cookie").split(';').next().unwrap().to_owned();
        assert!(page.header("set-cookie").ends_with("Path=/; Secure; HttpOnly; SameSite=Strict"));
        browser
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Page {
        let answer = request.header("cookie", &self.cookie).send().await.unwrap();
        let page = Page { status: answer.status().as_u16(), headers: answer.headers().clone(), text: answer.text().await.unwrap() };
        for (name, value) in HEADERS {
            assert_eq!(page.header(name), value, "{name}");
        }
        let policy = page.header("content-security-policy");
        assert!(policy.starts_with("default-src 'none'; script-src 'self'; style-src 'self'; ") && !policy.contains("unsafe"), "{policy}");
        assert!(!page.headers.contains_key("www-authenticate"), "no browser asks by itself");
        if page.header("content-type").starts_with("text/html") {
            assert!(page.header("cache-control").contains("no-store"), "what a page shows is kept nowhere");
            for inline in [" style=", "<style", "<script>", "javascript:", " onclick=\"", " onload=\"", " onerror=\"", "http://", "https://"] {
                assert!(!page.text.contains(inline), "{inline}: {}", page.text);
            }
        }
        page
    }

    fn url(&self, path: &str) -> String {
        format!("https://{}/console/{path}", self.address)
    }

    async fn get(&self, path: &str) -> Page {
        self.send(self.client.get(self.url(path)).header("accept", "text/html")).await
    }

    async fn post(&self, path: &str, fields: &[(&str, &str)]) -> Page {
        self.send(self.form(path, fields)).await
    }

    fn form(&self, path: &str, fields: &[(&str, &str)]) -> reqwest::RequestBuilder {
        let encode = |text: &str| text.bytes().map(|byte| format!("%{byte:02x}")).collect::<String>();
        let body = fields.iter().map(|(name, value)| format!("{}={}", encode(name), encode(value))).collect::<Vec<_>>().join("&");
        self.client.post(self.url(path)).header("content-type", "application/x-www-form-urlencoded").body(body)
    }

    /// Fills a form in as somebody who has loaded it.
    async fn fill(&self, path: &str, fields: &[(&str, &str)]) -> Page {
        let form = self.get(path).await;
        assert_eq!(form.status, 200, "{path}: {}", form.text);
        let token = form.token().to_owned();
        self.post(path, &[fields, &[("csrf_token", &token)]].concat()).await
    }
}

/// `svm1` and `svm2`, the first enabled and with a client, and an account of each role.
async fn two_svms() -> (Scene, String, String) {
    let scene = scene().await;
    scene.node.svm("svm2").await;
    scene.node.account("reader", "readonly", None).await;
    scene.node.account("tenant", "vsadmin", Some("svm1")).await;
    let (one, two) = (scene.svm_uuid("svm1").await, scene.svm_uuid("svm2").await);
    Credentials::issue(&scene.node, "svm2").await;
    (scene, one, two)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_page_by_every_role() {
    let (scene, one, two) = two_svms().await;
    let node = &scene.node;
    let admin_svm = node.get("/security/accounts?name=admin").await["records"][0]["owner"]["uuid"].as_str().unwrap().to_owned();
    let client = node.get("/security/ekmip/clients?svm.name=svm2").await["records"][0]["uuid"].as_str().unwrap().to_owned();
    let job = node.get("/cluster/jobs?svm.name=svm1").await["records"][0]["uuid"].as_str().unwrap().to_owned();
    // By admin, readonly, and an administrator of svm1: 2 it is shown, 3 the role may not, 4 it does not exist.
    let pages: [(String, &str); 28] = [
        ("".into(), "222"),
        ("?state=available&name=svm*".into(), "222"),
        ("svms/new".into(), "233"),
        (format!("svms/{one}"), "222"),
        (format!("svms/{two}"), "224"),
        (format!("svms/{NOWHERE}"), "444"),
        (format!("svms/{one}/enable"), "232"),
        (format!("svms/{two}/enable"), "234"),
        (format!("svms/{one}/change"), "232"),
        (format!("svms/{two}/change"), "434"),
        (format!("svms/{one}/rekey-internal"), "232"),
        (format!("svms/{two}/rekey-external"), "234"),
        (format!("svms/{one}/restore"), "232"),
        (format!("svms/{one}/disable"), "232"),
        (format!("svms/{one}/delete"), "233"),
        (format!("svms/{two}/clients"), "224"),
        (format!("svms/{one}/clients/new"), "232"),
        (format!("svms/{two}/clients/{client}/revoke"), "234"),
        ("jobs".into(), "222"),
        (format!("jobs/{job}"), "222"),
        (format!("jobs/{job}/cancel"), "232"),
        ("events".into(), "222"),
        ("audit".into(), "222"),
        ("nodes".into(), "222"),
        ("accounts".into(), "222"),
        (format!("accounts/{admin_svm}/reader/lock"), "233"),
        (format!("accounts/{admin_svm}/reader/password"), "233"),
        ("nonsense".into(), "444"),
    ];
    let nobody = Browser::nobody(node);
    let browsers = [Browser::login(node, "admin").await, Browser::login(node, "reader").await, Browser::login(node, "tenant").await];
    for (path, expected) in &pages {
        let page = nobody.get(path).await;
        assert!(page.status == 303 && page.header("location").starts_with("/console/login"), "{path}: {}", page.status);
        for (browser, letter) in browsers.iter().zip(expected.chars()) {
            let page = browser.get(path).await;
            let status = match letter {
                '2' => 200,
                '3' => 403,
                _ => 404,
            };
            assert_eq!(page.status, status, "{path}: {}", page.text);
            assert!(page.text.starts_with("<!DOCTYPE html><html lang=\"en\">") && page.text.contains("<h1>"), "{path}");
        }
    }
    // Who only reads finds no form but the one that ends the session, and no way to one.
    let shown = browsers[1].get(&format!("svms/{one}")).await.text;
    assert_eq!((shown.matches("<form").count(), shown.contains("/disable"), shown.contains("/clients/new")), (1, false, false), "{shown}");
    // Nor does a form of its own making do anything, for whoever may not make the call behind it.
    for (browser, path, status) in [
        (&browsers[1], format!("svms/{one}/disable"), 403),
        (&browsers[1], format!("svms/{one}/enable"), 403),
        (&browsers[1], format!("svms/{one}/change"), 403),
        (&browsers[1], format!("svms/{one}/clients/new"), 403),
        (&browsers[1], format!("accounts/{admin_svm}/tenant/unlock"), 403),
        (&browsers[1], format!("jobs/{job}/pause"), 403),
        (&browsers[2], format!("accounts/{admin_svm}/reader/password"), 403),
        (&browsers[2], format!("svms/{one}/clients/{client}/revoke"), 404),
        (&browsers[2], format!("accounts/{admin_svm}/reader/delete"), 403),
        (&browsers[2], format!("svms/{two}/disable"), 404),
        (&browsers[2], format!("svms/{two}/clients/{client}/revoke"), 404),
    ] {
        let token = browser.get("password").await.token().to_owned();
        let page = browser.post(&path, &[("csrf_token", &token), ("common_name", "x")]).await;
        assert_eq!(page.status, status, "{path}: {}", page.text);
    }
    assert_eq!(node.get("/security/ekmip/clients?state=revoked").await["num_records"], 0);
    // To an SVM's administrator, the other one does not exist: not in a list, a search, a log, or in what is said of what is missing.
    let tenant = &browsers[2];
    for path in ["", "?name=svm2", "jobs", "events", "audit", "audit?svm=svm2", "accounts", "nodes"] {
        let text = tenant.get(path).await.text.replace("value=\"svm2\"", "").replace("svm=svm2", "").replace("name=svm2", "");
        assert!(!text.contains("svm2") && !text.contains(&two), "{path}: {text}");
    }
    assert_eq!(tenant.get(&format!("svms/{two}")).await.text, tenant.get(&format!("svms/{NOWHERE}")).await.text);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_form_brings_the_token_of_its_session() {
    let (scene, one, two) = two_svms().await;
    let node = &scene.node;
    let (admin, other) = (Browser::login(node, "admin").await, Browser::login(node, "admin").await);
    let foreign = other.get("password").await.token().to_owned();
    let own = admin.get("password").await.token().to_owned();
    let before = node.get("/security/key-stores?fields=*").await;
    let disable = format!("svms/{one}/disable");
    for fields in [&[][..], &[("csrf_token", "")], &[("csrf_token", foreign.as_str())], &[("csrf_token", NOWHERE)]] {
        let page = admin.post(&disable, fields).await;
        assert_eq!(page.status, 403, "{}", page.text);
    }
    // A browser that says where the form comes from is believed, also about the login.
    let page = admin.send(admin.form(&disable, &[("csrf_token", &own)]).header("sec-fetch-site", "cross-site")).await;
    assert_eq!(page.status, 403, "{}", page.text);
    let login = admin.form("login", &[("name", "admin"), ("password", PASSWORD)]);
    let page = Browser::nobody(node).send(login.header("sec-fetch-site", "cross-site")).await;
    assert_eq!((page.status, page.header("set-cookie")), (403, ""), "{}", page.text);
    // A password that a browser has kept opens no page.
    assert_eq!(Browser::nobody(node).send(admin.client.get(admin.url("")).basic_auth("admin", Some(PASSWORD))).await.status, 303);
    assert_eq!(node.get("/security/key-stores?fields=*").await, before);
    assert!(node.get("/security/audit/messages?input=DELETE*").await["num_records"] == 0, "none of them was a call");
    // A GET changes nothing, and a form goes nowhere else.
    for (method, path, status) in [("PUT", "jobs", 405), ("DELETE", &disable, 405), ("POST", "jobs", 404)] {
        let request = admin.client.request(method.parse().unwrap(), admin.url(path)).header("content-type", "application/x-www-form-urlencoded");
        assert_eq!(admin.send(request.body(format!("csrf_token={own}"))).await.status, status, "{method} {path}");
    }
    assert_eq!(admin.post(&format!("svms/{two}/clients/{NOWHERE}/revoke"), &[("csrf_token", &own)]).await.status, 404);
    // A login leads to the console alone.
    for (next, to) in [("//evil.example/console/", "/console/"), ("/console/jobs", "/console/jobs")] {
        let page = Browser::nobody(node).post("login", &[("name", "admin"), ("password", PASSWORD), ("next", next)]).await;
        assert_eq!((page.status, page.header("location")), (303, to));
    }
    let wrong = Browser::nobody(node).post("login", &[("name", "admin"), ("password", "no such password"), ("next", "/console/jobs")]).await;
    assert!(wrong.status == 401 && wrong.text.contains("value=\"/console/jobs\"") && !wrong.text.contains("no such password"), "{}", wrong.text);
    // What has ended is not taken for a session.
    assert_eq!(other.post("logout", &[("csrf_token", &foreign)]).await.header("location"), "/console/login");
    assert!(other.get("jobs").await.header("location").starts_with("/console/login?next=%2Fconsole%2Fjobs&ended=true"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_typed_is_text_and_comes_back_without_secrets() {
    const EVIL: &str = "\"><script>alert(1)</script><img src=x onerror=alert(2)>'";
    let (scene, one, two) = two_svms().await;
    let node = &scene.node;
    let admin = Browser::login(node, "admin").await;
    // In records.
    assert_eq!(node.ask("PATCH", &format!("/svm/svms/{one}?return_timeout=5"), Some(json!({ "comment": EVIL }))).await.0, 200);
    let client = json!({ "svm": { "name": "svm1" }, "common_name": EVIL });
    assert_eq!(node.ask("POST", "/security/ekmip/clients?return_records=true", Some(client)).await.0, 201);
    let context = json!({ "encryption_context": "a=<script>alert(3)</script>" });
    assert_eq!(node.ask("PATCH", &format!("{}?return_timeout=30", scene.config), Some(context)).await.0, 200);
    assert_eq!(node.ask("POST", "/security/accounts", Some(json!({ "name": "evil", "password": PASSWORD, "comment": EVIL }))).await.0, 201);
    let key = json!({ "key_id": EVIL });
    assert_eq!(node.ask("POST", &format!("{}/rekey-external?return_timeout=30", scene.config), Some(key)).await.0, 400);
    // In addresses.
    let encoded: String = EVIL.bytes().map(|byte| format!("%{byte:02x}")).collect();
    let pages = [
        "".into(),
        format!("?name={encoded}&state={encoded}&start="),
        format!("svms/{one}"),
        format!("svms/{one}/clients"),
        "jobs".into(),
        "events".into(),
        "audit".into(),
        format!("audit?svm={encoded}&user={encoded}"),
        "accounts".into(),
        encoded.clone(),
        format!("login?next={encoded}"),
    ];
    for path in pages {
        let page = admin.get(&path).await;
        assert!(page.status == 200 || page.status == 404, "{path}: {} {}", page.status, page.text);
        assert!(!page.text.contains("<script>") && !page.text.contains("<img"), "{path}: {}", page.text);
    }
    assert!(admin.get(&format!("svms/{one}")).await.text.contains("&lt;script&gt;alert(1)"), "it is there, as text");
    assert!(admin.get("audit").await.text.contains("&lt;img src=x"));
    // In a form that comes back: with what was typed, beside what is wrong, and without the secret.
    let port = scene.kms.addr().port().to_string();
    let typed = |more: &[(&'static str, &'static str)]| {
        let mut fields = vec![
            ("key_id", EVIL),
            ("access_key_id", ACCESS_KEY_ID),
            ("secret_access_key", SECRET),
            ("host", "127.0.0.1"),
            ("port", port.as_str()),
            ("verify", "true"),
        ];
        fields.extend(more);
        fields
    };
    let path = format!("svms/{two}/enable");
    let page = admin.fill(&path, &typed(&[("region", "no region"), ("do", "enable")])).await;
    assert_eq!(page.status, 400, "{}", page.text);
    assert!(
        page.text.contains("code 262247") && page.text.contains("aria-invalid=\"true\" aria-describedby=\"f-region-error f-region-hint\""),
        "{}",
        page.text
    );
    assert!(page.text.contains("value=\"&quot;&gt;&lt;script&gt;") && page.text.contains(ACCESS_KEY_ID) && !page.text.contains(SECRET), "{}", page.text);
    // A check that finds something in the way says what, and keeps the form; nothing is enabled.
    for ask in ["check", "enable"] {
        let page = admin.fill(&path, &[typed(&[("region", "us-east-1")]), vec![("do", ask)]].concat()).await;
        assert_eq!(page.status, 200, "{}", page.text);
        assert!(page.text.contains("describe key failed") && page.text.contains("What to do") && !page.text.contains(SECRET), "{}", page.text);
    }
    assert_eq!(node.get("/security/key-stores?svm.name=svm2").await["num_records"], 0);
    // What the disk refuses is a page as well, with the code.
    scene.store.set(Mood::Refuses);
    let page = admin.fill("svms/new", &[("name", "svm3"), ("comment", "kept")]).await;
    scene.store.set(Mood::Good);
    assert!(page.status >= 500 && page.text.contains("value=\"kept\"") && page.text.contains("Code "), "{} {}", page.status, page.text);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_that_keeps_itself_up_to_date_keeps_no_session_alive() {
    let (scene, one, _) = two_svms().await;
    let admin = Browser::login(&scene.node, "admin").await;
    let looks = async || admin.send(admin.client.get(admin.url(&format!("svms/{one}"))).header("x-keystead-background", "true")).await;
    // What a page shows by itself is what it shows to who asks, but for what takes long.
    let (asked, by_itself) = (admin.get(&format!("svms/{one}")).await.text, looks().await.text);
    assert!(asked.contains("id=\"audit\"") && !by_itself.contains("id=\"audit\"") && by_itself.contains("id=\"nodes\" data-live"));
    for _ in 0..2 {
        scene.clock.advance(Duration::from_secs(7 * 60));
        assert_eq!(looks().await.status, 200);
    }
    scene.clock.advance(Duration::from_secs(2 * 60));
    assert_eq!((looks().await.status, admin.get("").await.status), (401, 303), "sixteen minutes in which nobody has asked for anything");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_svms_stand_is_told_by_the_api() {
    let (scene, one, two) = two_svms().await;
    let node = &scene.node;
    let shown = node.get("/svm/svms?fields=name,keystead&order_by=name").await;
    let states: Vec<(&str, &str)> =
        shown["records"].as_array().unwrap().iter().map(|svm| (svm["name"].as_str().unwrap(), svm["keystead"]["state"].as_str().unwrap())).collect();
    assert_eq!(states, [("svm1", "available"), ("svm2", "none")], "{shown}");
    let kek = &shown["records"][0]["keystead"]["keks"][0];
    assert!(kek["version"] == 1 && kek["current"] == true && kek["loaded"] == true && kek["key_arn"].as_str().unwrap().contains(&scene.key), "{kek}");
    assert!(shown["records"][0]["keystead"].get("keys").is_none(), "what goes through all keys is for who asks for it");
    let ids = scene.connect().created_together(3);
    scene.connect().with_id(keystead_kmip::enumeration::Operation::Destroy, &ids[0]);
    let counted = node.get(&format!("/svm/svms/{one}?fields=keystead.keys")).await;
    assert_eq!(counted["keystead"]["keys"], json!({ "count": 2, "types": [{ "type": "AES-256", "count": 2 }] }));
    assert_eq!(node.get(&format!("/svm/svms/{two}?fields=keystead.keys")).await["keystead"]["keys"], json!({ "count": 0, "types": [] }));
    let nodes = node.get(&format!("{}?fields=keystead.nodes", scene.config)).await["keystead"]["nodes"].clone();
    let seen = &nodes[0];
    assert!(seen["state"] == "up" && seen["kek"]["usable"] == true && seen["amazon"]["reachable"] == true && seen["ekmip"]["reachable"] == true, "{nodes}");
    assert!(seen["last_good_poll"].is_string(), "{nodes}");
    // It is found by where it stands, and why is said.
    scene.kms.set_key_state(&scene.key, KeyState::Disabled).unwrap();
    let refused = eventually("the denial must be known", async || {
        scene.clock.advance(Duration::from_secs(61 * 60));
        let found = node.get("/svm/svms?keystead.state=revoking|blocked&fields=keystead.state,keystead.reason").await;
        (found["num_records"] == 1).then(|| found["records"][0].clone())
    })
    .await;
    assert!(refused["uuid"] == one && !refused["keystead"]["reason"].as_str().unwrap().is_empty(), "{refused}");
    let admin = Browser::login(node, "admin").await;
    let page = admin.get("?state=none").await.text;
    assert!(page.contains(&two) && !page.contains(&one), "{page}");
}

/// With `SOAK=1`, ten thousand of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_svms_are_shown_page_by_page() {
    let many = if std::env::var_os("SOAK").is_some() { 10_000 } else { 120 };
    let (scene, one, _) = two_svms().await;
    let record = scene.store.inner().get(&format!("/svms/{one}")).await.unwrap().unwrap();
    let mut record: serde_json::Value = serde_json::from_slice(&record.value).unwrap();
    for block in (0..many).collect::<Vec<u32>>().chunks(100) {
        let txn = block.iter().fold(Txn::new(), |txn, number| {
            let uuid = uuid::Uuid::from_u128(u128::from(*number) + 1);
            (record["uuid"], record["name"]) = (json!(uuid), json!(format!("many-{number:05}")));
            txn.put(format!("/svms/{uuid}"), record.to_string())
        });
        scene.store.inner().transact(txn).await.unwrap();
    }
    let all = u64::from(many) + 2;
    eventually("they must be known", async || (scene.node.get("/svm/svms?return_records=false").await["num_records"] == all).then_some(())).await;
    let admin = Browser::login(&scene.node, "admin").await;
    let (mut path, mut names, begun) = (String::new(), Vec::new(), std::time::Instant::now());
    let mut longest = Duration::ZERO;
    loop {
        let asked = std::time::Instant::now();
        let page = admin.get(&path).await.text;
        longest = longest.max(asked.elapsed());
        assert!(page.contains(&format!("<strong>{all}</strong> all")) && page.contains(&format!("<strong>{}</strong> ", all - 1)), "{page}");
        let rows: Vec<String> = page.split("href=\"/console/svms/").skip(1).filter_map(|row| row.split(['>', '<']).nth(1).map(str::to_owned)).collect();
        names.extend(rows.into_iter().filter(|name| name.starts_with("many-") || name.starts_with("svm")));
        let Some((before, _)) = page.split_once("\" rel=\"next\"") else { break };
        path = before.rsplit_once("href=\"/console/").unwrap().1.replace("&amp;", "&");
    }
    println!("{} SVMs in {:?}, the slowest page in {longest:?}", names.len(), begun.elapsed());
    let expected: Vec<String> = (0..many).map(|number| format!("many-{number:05}")).chain(["svm1".to_owned(), "svm2".to_owned()]).collect();
    assert_eq!(names, expected, "each once, in their order");
    let found = admin.get("?name=00007&state=none").await.text;
    assert!(found.contains("many-00007") && found.matches("<tr").count() == 2, "{found}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_are_kept_by_browsers_and_the_address_alone_leads_to_the_console() {
    let node = Node::start("", keystead::serve::Hooks::default()).await;
    let nobody = Browser::nobody(&node);
    let login = nobody.get("login").await;
    for end in ["console.css", "console.js", "icon.svg"] {
        let path = login.text.split('"').find(|part| part.ends_with(end)).unwrap().strip_prefix("/console/").unwrap();
        let file = nobody.get(path).await;
        assert_eq!((file.status, file.header("cache-control")), (200, "public, max-age=31536000, immutable"));
        let again = nobody.send(nobody.client.get(nobody.url(path)).header("if-none-match", file.header("etag"))).await;
        assert_eq!((again.status, again.text.len()), (304, 0));
    }
    assert_eq!(nobody.get("static/console.css").await.status, 404);
    let root = |accept: &'static str| nobody.client.get(format!("https://{}/", node.address)).header("accept", accept).send();
    let (browser, program) = (root("text/html,*/*").await.unwrap(), root("*/*").await.unwrap());
    assert_eq!((browser.status().as_u16(), browser.headers()["location"].to_str().unwrap()), (303, "/console/"));
    assert_eq!(program.status().as_u16(), 405, "a program is told that there is no such path");
    node.stop().await;
}

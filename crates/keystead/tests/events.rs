//! Events, as operators ask for them: raised by what happens in AWS, kept over restarts, and seen also while the store takes nothing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use crate::common;

use common::faulty::{Faulty, Mood};
use common::scene::{Scene, enabled, scene};
use common::{ManualClock, Node, eventually, toml_for};
use keystead::serve::Hooks;
use keystead_store::{Range, Txn};
use keystead_testkit::{Fault, FaultRule, KeyState, NewKey};
use serde_json::{Value, json};
use std::time::Duration;

const EVENTS: &str = "/support/ems/events";
const MINUTE: Duration = Duration::from_secs(60);

/// The names of the events of an SVM, the oldest first.
async fn names(node: &Node, svm: &str) -> Vec<String> {
    let answer = node.get(&format!("{EVENTS}?fields=*&svm.name={svm}")).await;
    let mut names: Vec<String> = answer["records"].as_array().unwrap().iter().map(|event| event["message"]["name"].as_str().unwrap().to_owned()).collect();
    names.reverse();
    names
}

/// Waits for the newest event of `svm1` to be this one.
async fn newest(node: &Node, name: &str) -> Value {
    eventually(&format!("{name} must come"), async || {
        let answer = node.get(&format!("{EVENTS}?fields=*&svm.name=svm1&max_records=1")).await;
        let event = answer["records"].get(0)?.clone();
        (event["message"]["name"] == name).then_some(event)
    })
    .await
}

fn parameter<'a>(event: &'a Value, name: &str) -> Option<&'a str> {
    event["parameters"].as_array().unwrap().iter().find(|parameter| parameter["name"] == name).map(|parameter| parameter["value"].as_str().unwrap())
}

async fn grace(scene: &Scene, grace: &str) {
    let settings = json!({ "aws_kms": { "access_error_grace": grace, "min_poll_interval": "5s" } });
    assert_eq!(scene.node.ask("PATCH", "/security/ekmip/settings", Some(settings)).await.0, 200);
}

/// Starts the node of a scene once more, in the same folder and with the same clock.
async fn restarted(scene: Scene) -> (Scene, Faulty) {
    let Scene { kms, key, node, clock, config, client, .. } = scene;
    let folder = node.stop().await;
    let store = Faulty::default();
    let hooks = Hooks { store: store.hook(), clock: clock.clone(), ..Hooks::default() };
    let node = Node::start_in(folder.clone(), &toml_for(&kms, folder.path()), hooks).await.unwrap();
    (Scene { kms, key, node, store: store.clone(), clock, config, client }, store)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revocation_from_the_first_denial_to_the_end_of_it() {
    let scene = scene().await;
    grace(&scene, "10m").await;
    assert!(names(&scene.node, "svm1").await.is_empty(), "an SVM that was enabled without trouble has nothing to tell");

    scene.kms.set_key_state(&scene.key, KeyState::Disabled).unwrap();
    scene.clock.advance(MINUTE * 66);
    let event = newest(&scene.node, "ekmip.awskms.notAvailable").await;
    assert_eq!((event["message"]["severity"].as_str(), event["source"].as_str()), (Some("error"), Some("keystead")));
    assert_eq!(parameter(&event, "aws_error"), Some("DisabledException"));
    assert!(!parameter(&event, "aws_request_id").unwrap().is_empty());
    assert_eq!(parameter(&event, "hop"), Some("AWS"));
    assert_eq!(parameter(&event, "endpoint"), Some(scene.kms.addr().to_string().as_str()));
    assert_eq!(parameter(&event, "svm_name"), Some("svm1"));
    assert_eq!(parameter(&event, "svm_uuid"), event["svm"]["uuid"].as_str());
    let text = event["log_message"].as_str().unwrap();
    let node = event["node"]["name"].as_str().unwrap();
    for part in ["ekmip.awskms.notAvailable: ", "svm1", node, "DisabledException", "keys are still served"] {
        assert!(text.contains(part), "{part}: {text}");
    }

    scene.clock.advance(Duration::from_secs(5));
    let event = newest(&scene.node, "keystead.awskms.revoking").await;
    let until: jiff::Timestamp = parameter(&event, "until").unwrap().parse().unwrap();
    let at: jiff::Timestamp = event["time"].as_str().unwrap().parse().unwrap();
    // Ten minutes from the first denial, which was five seconds ago.
    let left = until.duration_since(at).as_secs();
    assert!((590..=600).contains(&left), "{left}");

    scene.clock.advance(MINUTE * 10);
    let event = newest(&scene.node, "ekmip.awskms.volOffline").await;
    assert_eq!((event["message"]["severity"].as_str(), parameter(&event, "aws_error")), (Some("alert"), Some("DisabledException")));

    scene.kms.set_key_state(&scene.key, KeyState::Enabled).unwrap();
    scene.clock.advance(MINUTE * 2);
    newest(&scene.node, "ekmip.awskms.available").await;
    let expected = ["ekmip.awskms.notAvailable", "keystead.awskms.revoking", "ekmip.awskms.volOffline", "ekmip.awskms.volOnline", "ekmip.awskms.available"];
    assert_eq!(names(&scene.node, "svm1").await, expected);
    let all = scene.node.get(EVENTS).await;
    let indexes: Vec<u64> = all["records"].as_array().unwrap().iter().map(|event| event["index"].as_u64().unwrap()).collect();
    assert_eq!(indexes, [5, 4, 3, 2, 1], "the newest first, each number once");
    scene.node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_survive_a_restart_and_are_numbered_on() {
    let scene = scene().await;
    grace(&scene, "0s").await;
    // Few minutes in all: certificates that are made after the restart must be valid by the system's clock, too.
    let path = format!("{}?return_timeout=30", scene.config);
    assert_eq!(scene.node.ask("PATCH", &path, Some(json!({ "polling_period": 1 }))).await.0, 200);
    scene.kms.set_key_state(&scene.key, KeyState::Disabled).unwrap();
    eventually("the SVM must be blocked", async || {
        scene.clock.advance(Duration::from_secs(2));
        names(&scene.node, "svm1").await.contains(&"ekmip.awskms.volOffline".to_owned()).then_some(())
    })
    .await;
    let before = scene.node.get(&format!("{EVENTS}?fields=*")).await["records"].clone();
    let last = before[0]["index"].as_u64().unwrap();
    assert_eq!(before[0]["message"]["name"], "ekmip.awskms.volOffline");

    let (scene, _) = restarted(scene).await;
    // The node starts without the KEK, and cannot load it: that is news.
    let event = newest(&scene.node, "ekmip.awskms.notAvailable").await;
    assert_eq!(event["index"].as_u64(), Some(last + 1));
    assert!(event["log_message"].as_str().unwrap().contains("keys are not served"), "{event}");
    let after = scene.node.get(&format!("{EVENTS}?fields=*")).await["records"].clone();
    assert_eq!(after.as_array().unwrap()[1..], before.as_array().unwrap()[..], "what was there is there, as it was");

    scene.kms.set_key_state(&scene.key, KeyState::Enabled).unwrap();
    scene.clock.advance(MINUTE);
    let event = newest(&scene.node, "ekmip.awskms.available").await;
    assert_eq!(event["index"].as_u64(), Some(last + 3), "the end of what the process before has told is told, too");
    // A start without trouble tells nothing.
    let (scene, _) = restarted(scene).await;
    eventually("the SVM must be served", async || (scene.node.get(&format!("{}?fields=state", scene.config)).await["state"]["code"] == "0").then_some(()))
        .await;
    assert_eq!(scene.node.get(EVENTS).await["num_records"].as_u64(), Some(last + 3));
    scene.node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_are_seen_while_the_store_is_away_and_stored_once_it_is_back() {
    let scene = scene().await;
    scene.kms.set_key_state(&scene.key, KeyState::Disabled).unwrap();
    for (mood, name) in [(Mood::Unavailable, "ekmip.awskms.notAvailable"), (Mood::Refuses, "keystead.awskms.revoking")] {
        let stored = async || scene.store.inner().range(Range::prefix("/events/", 100)).await.unwrap().entries.len();
        let before = stored().await;
        scene.store.set(mood);
        scene.clock.advance(if before == 0 { MINUTE * 66 } else { MINUTE });
        let event = newest(&scene.node, name).await;
        let (status, headers, _) = scene.node.call("GET", EVENTS, None).await;
        assert_eq!((status, headers.contains_key("warning")), (200, mood == Mood::Unavailable), "what is missing from the list is said");
        let path = format!("{EVENTS}/{}/{}", event["node"]["name"].as_str().unwrap(), event["index"]);
        assert_eq!(scene.node.get(&path).await["log_message"], event["log_message"]);
        assert_eq!(stored().await, before);
        scene.store.set(Mood::Good);
        eventually("the event must reach the store", async || (stored().await == before + 1).then_some(())).await;
        assert_eq!(scene.node.get(&path).await["log_message"], event["log_message"]);
        assert_eq!(newest(&scene.node, name).await, event);
    }
    scene.node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_events_are_deleted() {
    let scene = scene().await;
    let node = scene.node.get("/cluster/nodes").await["records"][0]["uuid"].as_str().unwrap().to_owned();
    let now = jiff::Timestamp::now();
    let record = |days: i64| {
        let time = now - jiff::SignedDuration::from_hours(24 * days);
        json!({ "time": time, "node": "n", "message": "keystead.test", "severity": "notice", "text": "keystead.test: a test", "svm": null }).to_string()
    };
    let put = async |records: Vec<(u64, i64)>| {
        for part in records.chunks(100) {
            let txn = part.iter().fold(Txn::new(), |txn, (index, days)| txn.put(format!("/events/{node}/{index:020}"), record(*days)));
            scene.store.inner().transact(txn).await.unwrap();
        }
    };
    let left = async |store: &Faulty| {
        let entries = store.inner().range(Range::prefix("/events/", 1_000)).await.unwrap().entries;
        entries.iter().map(|entry| entry.key.rsplit_once('/').unwrap().1.parse::<u64>().unwrap()).collect::<Vec<_>>()
    };
    // Those of more than thirty days go, in more than one part.
    put((1..=250).map(|index| (index, if index <= 230 { 31 } else { 29 })).collect()).await;
    scene.clock.advance(MINUTE * 60);
    eventually("what is too old must go", async || (left(&scene.store).await == (231..=250).collect::<Vec<_>>()).then_some(())).await;

    // Those before the newest ten thousand go.
    let head = json!({ "last": 10_240 }).to_string();
    scene.store.inner().transact(Txn::new().put(format!("/event-heads/{node}"), head)).await.unwrap();
    let clock = ManualClock::new();
    let folder = scene.node.stop().await;
    let store = Faulty::default();
    let hooks = Hooks { store: store.hook(), clock, ..Hooks::default() };
    let node = Node::start_in(folder.clone(), &toml_for(&scene.kms, folder.path()), hooks).await.unwrap();
    eventually("what is too much must go", async || (left(&store).await == (241..=250).collect::<Vec<_>>()).then_some(())).await;
    assert_eq!(node.get(EVENTS).await["num_records"], 10);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_of_a_node_that_is_gone_are_found_and_go_in_their_time() {
    let scene = scene().await;
    let (gone, store) = ("00000000-0000-4000-8000-00000000000a", scene.store.inner());
    let time = |days: i64| jiff::Timestamp::now() - jiff::SignedDuration::from_hours(24 * days);
    let record = |days: i64| {
        json!({ "time": time(days), "node": "old-node", "message": "keystead.test", "severity": "notice", "text": "keystead.test: a test", "svm": null })
            .to_string()
    };
    let put = Txn::new().put(format!("/events/{gone}/{:020}", 1), record(31)).put(format!("/events/{gone}/{:020}", 2), record(29));
    store.transact(put.put(format!("/event-heads/{gone}"), json!({ "last": 2 }).to_string())).await.unwrap();
    let listed = scene.node.get(&format!("{EVENTS}?node.name=old-node")).await;
    for event in listed["records"].as_array().unwrap() {
        let href = event["_links"]["self"]["href"].as_str().unwrap().strip_prefix("/api").unwrap();
        assert_eq!(scene.node.get(href).await["index"], event["index"]);
    }
    assert_eq!(scene.node.get(&format!("{EVENTS}/{gone}/2")).await["node"]["name"], "old-node");
    assert_eq!(scene.node.ask("GET", &format!("{EVENTS}/other-node/2"), None).await.0, 404);
    let left = async || store.range(Range::prefix("/event", 1_000)).await.unwrap().entries.into_iter().filter(|entry| entry.key.contains(gone)).count();
    scene.clock.advance(MINUTE * 60);
    eventually("what is too old must go", async || (left().await == 2).then_some(())).await;
    assert_eq!(scene.node.ask("GET", &format!("{EVENTS}/{gone}/1"), None).await.0, 404);
    store.transact(Txn::new().put(format!("/events/{gone}/{:020}", 2), record(31))).await.unwrap();
    scene.clock.advance(MINUTE * 60);
    eventually("nothing must be left of it", async || (left().await == 0).then_some(())).await;
    scene.node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn alarms_come_beside_what_they_are_the_reason_of() {
    let scene = scene().await;
    let error = |code: &str| Fault::Error { code: code.to_owned(), status: 400, message: "says the test".to_owned() };
    let faults = [
        (error("ValidationException"), Some(("keystead.awskms.misconfigured", "alert"))),
        (Fault::WrongKek, Some(("keystead.awskms.integrity", "alert"))),
        (Fault::Throttle, Some(("keystead.awskms.throttled", "notice"))),
        (Fault::CaptivePortal, None),
    ];
    for (fault, alarm) in faults {
        let before = names(&scene.node, "svm1").await.len();
        scene.kms.add_fault(FaultRule::always(fault));
        scene.clock.advance(MINUTE * 66);
        let last = newest(&scene.node, alarm.map_or("ekmip.awskms.notAvailable", |(name, _)| name)).await;
        if let Some((_, severity)) = alarm {
            assert_eq!(last["message"]["severity"], severity);
        }
        scene.kms.clear_faults();
        scene.clock.advance(MINUTE * 66);
        newest(&scene.node, "ekmip.awskms.available").await;
        let told = names(&scene.node, "svm1").await;
        let expected: Vec<&str> = std::iter::once("ekmip.awskms.notAvailable").chain(alarm.map(|(name, _)| name)).chain(["ekmip.awskms.available"]).collect();
        assert_eq!(told[before..], expected[..]);
    }
    scene.node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_customer_key_is_told() {
    let scene = scene().await;
    let other = scene.kms.create_key(NewKey::default()).unwrap().key_id;
    let path = format!("{}/rekey-external?return_timeout=30", scene.config);
    let (status, answer) = scene.node.ask("POST", &path, Some(json!({ "key_id": other }))).await;
    assert_eq!(status, 201, "{answer}");
    let event = newest(&scene.node, "ekmip.awskms.keyChg").await;
    assert!(parameter(&event, "old_key").unwrap().contains(&scene.key) && parameter(&event, "new_key").unwrap().contains(&other), "{event}");
    // Again under the same key: nothing has changed.
    assert_eq!(scene.node.ask("POST", &path, Some(json!({ "key_id": other }))).await.0, 201);
    assert_eq!(names(&scene.node, "svm1").await, ["ekmip.awskms.keyChg"]);

    // The same key, rotated.
    scene.kms.rotate(&other).unwrap();
    assert_eq!(scene.node.ask("POST", &path, Some(json!({ "key_id": other }))).await.0, 201);
    let event = newest(&scene.node, "ekmip.awskms.keyVersionChg").await;
    assert_ne!(parameter(&event, "old_material"), parameter(&event, "new_material"), "{event}");

    // The same name, another key: a new version of the KEK is wrapped by that one.
    scene.kms.set_alias("alias/tenant", &other).unwrap();
    assert_eq!(scene.node.ask("POST", &path, Some(json!({ "key_id": "alias/tenant" }))).await.0, 201);
    assert_eq!(names(&scene.node, "svm1").await.len(), 2);
    scene.kms.set_alias("alias/tenant", &scene.key).unwrap();
    scene.connect().created(vec![]);
    let internal = format!("{}/rekey-internal?return_timeout=30", scene.config);
    let (status, answer) = scene.node.ask("POST", &internal, None).await;
    assert_eq!(status, 201, "{answer}");
    let event = newest(&scene.node, "ekmip.awskms.keyChg").await;
    assert!(parameter(&event, "new_key").unwrap().contains(&scene.key), "{event}");
    scene.node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_that_ends_is_told_once_a_stage() {
    let scene = scene().await;
    let body = json!({ "svm": { "name": "svm1" }, "common_name": "short-lived", "expiry_time": "P10D" });
    assert_eq!(scene.node.ask("POST", "/security/ekmip/clients?return_records=true", Some(body)).await.0, 201);
    let day = MINUTE * 60 * 24;
    let told = async || {
        let events = scene.node.get(&format!("{EVENTS}?fields=*&message.name=keystead.ekmip.clientExpiring")).await;
        events["records"].as_array().unwrap().iter().filter(|event| parameter(event, "name") == Some("short-lived")).count()
    };
    // Issued with ten days to live; then seven are left, then one, then none.
    for (count, advance) in [(1, MINUTE * 61), (2, day * 3), (3, day * 6), (4, day)] {
        scene.clock.advance(advance);
        eventually("the certificate must be told", async || (told().await == count).then_some(())).await;
        scene.clock.advance(MINUTE * 61);
        scene.clock.advance(MINUTE * 61);
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(told().await, 4);
    scene.node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_api_is_that_of_ontap() {
    let scene = scene().await;
    scene.block().await;
    let list = scene.node.get(EVENTS).await;
    let event = &list["records"][0];
    let (node, index) = (event["node"]["name"].as_str().unwrap(), event["index"].as_u64().unwrap());
    assert_eq!(event["_links"]["self"]["href"].as_str().unwrap().replace("%2D", "-"), format!("/api{EVENTS}/{node}/{index}"));
    assert_eq!(event["node"]["_links"]["self"]["href"], format!("/api/cluster/nodes/{}", event["node"]["uuid"].as_str().unwrap()));
    let message = event["message"]["_links"]["self"]["href"].as_str().unwrap().strip_prefix("/api").unwrap();
    let found = scene.node.get(&format!("{message}&fields=*")).await["records"][0].clone();
    assert_eq!((&found["name"], &found["severity"]), (&event["message"]["name"], &event["message"]["severity"]));
    assert_eq!(found["deprecated"], false);
    assert!(!found["description"].as_str().unwrap().is_empty() && !found["corrective_action"].as_str().unwrap().is_empty());
    assert!(event.get("parameters").is_none() && event.get("uuid").is_none(), "{event}");

    let whole = scene.node.get(event["_links"]["self"]["href"].as_str().unwrap().strip_prefix("/api").unwrap()).await;
    assert_eq!((&whole["log_message"], &whole["svm"]["name"]), (&event["log_message"], &json!("svm1")));
    for missing in [format!("{EVENTS}/{node}/99999"), format!("{EVENTS}/nobody/1"), format!("{EVENTS}/{node}/x")] {
        assert_eq!(scene.node.ask("GET", &missing, None).await.0, 404, "{missing}");
    }

    // Filters, order and pages.
    let count = list["num_records"].as_u64().unwrap();
    assert!(count >= 3);
    assert_eq!(scene.node.get(&format!("{EVENTS}?message.name=ekmip.awskms.volOffline")).await["num_records"], 1);
    assert_eq!(scene.node.get(&format!("{EVENTS}?svm.name=nobody")).await["num_records"], 0);
    let ascending = scene.node.get(&format!("{EVENTS}?order_by=index")).await;
    assert_eq!(ascending["records"][0]["index"], 1);
    let (mut seen, mut next) = (Vec::new(), Some(format!("{EVENTS}?max_records=2")));
    while let Some(path) = next {
        let page = scene.node.get(&path).await;
        seen.extend(page["records"].as_array().unwrap().iter().map(|event| event["index"].as_u64().unwrap()));
        next = page["_links"]["next"]["href"].as_str().map(|href| href.strip_prefix("/api").unwrap().to_owned());
    }
    assert_eq!(seen, (1..=count).rev().collect::<Vec<_>>());

    let catalogue = scene.node.get("/support/ems/messages").await;
    for name in ["available", "notAvailable", "keyChg", "keyVersionChg", "volOffline", "volOnline"] {
        let name = format!("ekmip.awskms.{name}");
        assert!(catalogue["records"].as_array().unwrap().iter().any(|message| message["name"] == name), "{name}");
    }
    scene.node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_svm_administrator_sees_the_events_of_its_svm_alone() {
    let scene = scene().await;
    scene.node.svm("svm2").await;
    enabled(&scene.node, &scene.kms, &scene.key, "svm2").await;
    scene.block().await;
    newest(&scene.node, "ekmip.awskms.volOffline").await;
    eventually("svm2 must be blocked", async || {
        scene.clock.advance(MINUTE);
        names(&scene.node, "svm2").await.contains(&"ekmip.awskms.volOffline".to_owned()).then_some(())
    })
    .await;

    let tenant = scene.tenant("svm1").await;
    let get = async |path: String| tenant.ask("GET", &path, Value::Null).await;
    let (status, list) = get(format!("{EVENTS}?fields=*")).await;
    assert_eq!(status, 200);
    let records = list["records"].as_array().unwrap();
    assert!(!records.is_empty() && records.iter().all(|event| event["svm"]["name"] == "svm1"), "{list}");
    for event in scene.node.get(&format!("{EVENTS}?fields=*")).await["records"].as_array().unwrap() {
        let path = format!("{EVENTS}/{}/{}", event["node"]["name"].as_str().unwrap(), event["index"]);
        assert_eq!(get(path).await.0, if event["svm"]["name"] == "svm1" { 200 } else { 404 });
    }
    assert_eq!(get("/support/ems/messages".to_owned()).await.0, 200);
    scene.node.stop().await;
}

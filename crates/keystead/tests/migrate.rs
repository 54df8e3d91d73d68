//! Moving keys between the onboard key manager and AWS KMS: what moves, what the states show, what is refused, and outages on the way.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use crate::common;

use common::faulty::Mood;
use common::onboard::scene;
use common::scene::tenant;
use common::{code, eventually};
use keystead_store::Txn;
use keystead_testkit::{Fault, FaultRule, KeyState};
use serde_json::{Value, json};
use std::time::Duration;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_move_to_aws_and_back_and_again() {
    let scene = scene().await;
    let mut keys = scene.make(250);
    assert_eq!(scene.versions().await, [[1].into(), [].into(), [1].into()]);
    assert_eq!(scene.key_ids(&scene.onboard).await.len(), 251);

    let refused = scene.node.enable(scene.body(false)).await;
    assert_eq!((refused.0, code(&refused).as_str()), (409, "65537912"));
    assert_eq!(scene.kms.calls().len(), 0, "AWS was not asked");

    let config = scene.enabled().await;
    scene.check(&keys);
    assert_eq!(scene.versions().await, [[2].into(), [2].into(), [].into()], "nothing is left that could open them without AWS");
    let jobs = scene.node.get("/cluster/jobs?fields=*&description=POST%20/api/security/aws-kms").await;
    assert!(jobs["records"].as_array().unwrap().iter().any(|job| job["message"].as_str().unwrap().contains("250 keys were moved")), "{jobs}");
    let ids = scene.key_ids(&config).await;
    assert_eq!((ids.len(), scene.key_ids(&scene.onboard).await.len()), (251, 0));
    let (keks, veks): (Vec<_>, Vec<_>) = ids.iter().partition(|id| id["key_type"] == "svm_kek");
    assert_eq!((keks.len(), veks.len()), (1, 250));
    assert!(ids.iter().all(|id| id["restored"] == true && id["svm"]["name"] == "svm1" && id["encryption_algorithm"] == "AES-256"), "{:?}", ids[0]);
    assert!(veks.iter().all(|id| keys.contains_key(id["key_id"].as_str().unwrap())));
    let state = scene.node.get(&format!("/security/aws-kms/{config}?fields=state")).await;
    assert_eq!(state["state"]["code"], "0");

    // Back: the configuration stays, and holds nothing.
    let answer = scene.migrate(&config, &scene.onboard).await;
    assert_eq!(answer.0, 201, "{answer:?}");
    scene.check(&keys);
    assert_eq!(scene.versions().await, [[3].into(), [].into(), [3].into()]);
    let store = scene.node.get(&format!("/security/key-stores/{config}")).await;
    assert_eq!((&store["enabled"], &store["type"], &store["location"]), (&json!(false), &json!("aws"), &json!("external")), "{store}");
    let path = format!("/security/aws-kms/{config}");
    assert_eq!(scene.node.get(&format!("{path}?fields=state")).await["state"]["code"], "0", "nothing depends on AWS");
    for action in ["rekey-internal", "rekey-external"] {
        let body = (action == "rekey-external").then(|| json!({ "key_id": scene.key }));
        assert_eq!(code(&scene.node.ask("POST", &format!("{path}/{action}?return_timeout=30"), body).await), "65537547", "{action}");
    }
    assert_eq!(code(&scene.node.ask("POST", &format!("{path}/restore?return_timeout=30"), None).await), "65537544");
    assert_eq!(scene.node.ask("PATCH", &format!("{path}?return_timeout=30"), Some(json!({ "timeout": 5 }))).await.0, 200);
    assert_eq!(code(&scene.node.enable(scene.body(true)).await), "65537910", "it has a configuration");
    assert_eq!(scene.node.ask("PATCH", &format!("{path}?return_timeout=30"), Some(json!({ "polling_period": 1 }))).await.0, 200);
    scene.kms.clear_calls();
    for _ in 0..3 {
        scene.clock.advance(Duration::from_secs(67));
        keys.extend(scene.make_more("while with the onboard key manager"));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(scene.kms.calls().is_empty(), "AWS is asked for nothing: {:?}", scene.kms.calls());

    // There again, and once more after a restart.
    assert_eq!(scene.migrate(&scene.onboard, &config).await.0, 201);
    scene.check(&keys);
    assert_eq!(scene.versions().await, [[4].into(), [4].into(), [].into()]);
    assert_eq!(scene.migrate(&config, &scene.onboard).await.0, 201);
    assert_eq!(scene.migrate(&scene.onboard, &config).await.0, 201);
    let scene = scene.restarted().await;
    eventually("the KEK must arrive", async || (scene.node.get(&format!("{path}?fields=state")).await["state"]["code"] == "0").then_some(())).await;
    scene.check(&keys);
    assert_eq!(scene.migrate(&config, &scene.onboard).await.0, 201);

    // The configuration can go while the keys stay; and the setting moves them as the member does.
    assert_eq!(scene.node.ask("DELETE", &format!("{path}?return_timeout=30"), None).await.0, 200);
    scene.check(&keys);
    assert_eq!(scene.node.ask("PATCH", "/security/ekmip/settings", Some(json!({ "aws_kms": { "migrate_on_enable": true } }))).await.0, 200);
    let (status, body) = scene.node.enable(scene.body(false)).await;
    assert_eq!(status, 201, "{body}");
    scene.check(&keys);
    let [of_keys, aws, onboard] = scene.versions().await;
    assert_eq!((&of_keys, onboard.len()), (&aws, 0));
}

/// What the states show, and what is refused, while keys are on their way.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_move_from_its_beginning_to_its_end() {
    let scene = scene().await;
    let mut keys = scene.make(120);
    let ask = async |method: &str, path: &str| scene.node.ask(method, path, Some(json!({}))).await;

    // Reserved: new keys still go to the onboard key manager.
    scene.kms.add_fault(FaultRule::next("Encrypt", Fault::Hold));
    let (status, headers, body) = scene.node.call("POST", "/security/aws-kms", Some(scene.body(true))).await;
    assert_eq!(status, 202, "{body}");
    let config = headers["location"].to_str().unwrap().rsplit('/').next().unwrap().to_owned();
    assert_eq!(scene.kms.wait_held(1, Duration::from_secs(20)).await, 1);
    assert_eq!(scene.state_of(&config).await, "initializing");
    keys.extend(scene.make_more("while it is reserved"));
    assert_eq!(code(&scene.node.enable(scene.body(true)).await), "65537910");
    assert_eq!(code(&scene.migrate(&scene.onboard, &config).await), "65539434");
    assert_eq!(code(&ask("POST", &format!("/security/aws-kms/{config}/rekey-internal")).await), "65539436");

    // Turned: new keys go to AWS's.
    scene.stop.at("enable.batch.before");
    scene.kms.release();
    scene.stop.held().await;
    assert_eq!(scene.state_of(&config).await, "mixed");
    scene.check(&keys);
    keys.extend(scene.make_more("while keys move"));
    assert_eq!(scene.versions().await, [[1, 2].into(), [2].into(), [1].into()]);
    assert_eq!(code(&ask("POST", &format!("/security/aws-kms/{config}/rekey-internal")).await), "65537547", "keys are still on the admin SVM");
    assert_eq!(code(&scene.migrate(&config, &scene.onboard).await), "65537611", "not back before it has ended");
    assert_eq!(code(&ask("DELETE", &format!("/security/aws-kms/{config}")).await), "65537106");
    assert_eq!(code(&ask("DELETE", &format!("/security/key-managers/{}", scene.onboard)).await), "65537106");
    assert_eq!(code(&scene.node.enable(scene.body(true)).await), "65537910");
    scene.stop.go_on();
    eventually("the move must end", async || (scene.state_of(&config).await == "active").then_some(())).await;
    scene.check(&keys);

    // Away from AWS: first switching, then mixed.
    scene.kms.add_fault(FaultRule::next("Decrypt", Fault::Hold));
    let away = scene.node.ask("POST", &format!("/security/key-managers/{config}/migrate"), Some(json!({ "uuid": scene.onboard }))).await;
    assert_eq!(away.0, 202, "{away:?}");
    assert_eq!(scene.kms.wait_held(1, Duration::from_secs(20)).await, 1);
    assert_eq!(scene.state_of(&config).await, "switching");
    assert_eq!(code(&scene.migrate(&config, &scene.onboard).await), "65537611");
    assert_eq!(code(&ask("POST", &format!("/security/aws-kms/{config}/rekey-internal")).await), "65537610");
    scene.stop.at("migrate.batch.before");
    scene.kms.release();
    scene.stop.held().await;
    assert_eq!(scene.state_of(&config).await, "mixed");
    assert_eq!(code(&ask("POST", &format!("/security/aws-kms/{config}/rekey-internal")).await), "65537610");
    let rekey = json!({ "key_id": scene.key });
    assert_eq!(code(&scene.node.ask("POST", &format!("/security/aws-kms/{config}/rekey-external"), Some(rekey)).await), "65537610");
    let job = scene.node.get("/cluster/jobs?fields=*&state=running").await["records"][0].clone();
    assert!(job["description"].as_str().unwrap().ends_with("/migrate"), "{job}");

    // Cancelled in the middle: it goes on with the next migrate, and keys were served all the time.
    let path = format!("/cluster/jobs/{}?action=cancel", job["uuid"].as_str().unwrap());
    assert_eq!(ask("PATCH", &path).await.0, 200);
    scene.stop.go_on();
    scene.check(&keys);
    let answer = eventually("it must go on", async || {
        let answer = scene.migrate(&config, &scene.onboard).await;
        (answer.0 == 201).then_some(answer)
    })
    .await;
    assert_eq!(answer.0, 201);
    scene.check(&keys);
    assert_eq!(scene.versions().await, [[3].into(), [].into(), [3].into()]);
    assert_eq!(code(&scene.migrate(&config, &scene.onboard).await), "65537559", "there is nothing left to move");
}

/// The store goes away in the middle of a move, and AWS after a turn: keys are served meanwhile, and the move goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn outages_in_the_middle_of_a_move() {
    let scene = scene().await;
    let keys = scene.make(250);
    scene.stop.at("enable.batch.before");
    let (status, headers, body) = scene.node.call("POST", "/security/aws-kms", Some(scene.body(true))).await;
    assert_eq!(status, 202, "{body}");
    let config = headers["location"].to_str().unwrap().rsplit('/').next().unwrap().to_owned();
    scene.stop.held().await;
    scene.store.set(Mood::Unavailable);
    scene.stop.go_on();
    scene.check(&keys);
    assert_eq!(scene.state_of(&config).await, "mixed");
    scene.store.set(Mood::Good);
    eventually("the move must end", async || (scene.state_of(&config).await == "active").then_some(())).await;
    scene.check(&keys);
    assert_eq!(scene.versions().await, [[2].into(), [2].into(), [].into()]);

    // Away: AWS must allow it at the beginning and at the end. Whoever cuts the way to it in between does not get the keys away.
    scene.stop.at("migrate.batch.before");
    let away = scene.node.ask("POST", &format!("/security/key-managers/{config}/migrate"), Some(json!({ "uuid": scene.onboard }))).await;
    assert_eq!(away.0, 202, "{away:?}");
    scene.stop.held().await;
    scene.kms.add_fault(FaultRule::always(Fault::CaptivePortal));
    scene.stop.go_on();
    let job = away.1["job"]["uuid"].as_str().unwrap().to_owned();
    let ended = eventually("the move must stop", async || {
        let job = scene.node.get(&format!("/cluster/jobs/{job}?fields=*")).await;
        (job["state"] == "failure").then_some(job)
    })
    .await;
    assert_eq!(ended["code"], 65_537_538, "{ended}");
    assert_eq!(scene.state_of(&config).await, "mixed");
    scene.check(&keys);
    scene.kms.clear_faults();
    assert_eq!(scene.migrate(&config, &scene.onboard).await.0, 201);
    assert_eq!(scene.versions().await, [[3].into(), [].into(), [3].into()]);
    scene.check(&keys);
    scene.kms.add_fault(FaultRule::always(Fault::CaptivePortal));

    // And one that cannot begin leaves all as it is.
    let answer = scene.migrate(&scene.onboard, &config).await;
    assert_eq!(code(&answer), "65537915", "{answer:?}");
    assert_eq!(scene.versions().await, [[3].into(), [].into(), [3].into()]);
    scene.check(&keys);
    scene.kms.clear_faults();
    assert_eq!(scene.migrate(&scene.onboard, &config).await.0, 201);
    scene.check(&keys);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_codes_of_migrate_by_their_conditions() {
    let scene = scene().await;
    scene.make(2);
    let nobody = uuid::Uuid::from_u128(7).to_string();
    assert_eq!(code(&scene.migrate(&scene.onboard, &scene.onboard).await), "65536959");
    let answer = scene.migrate(&scene.onboard, &nobody).await;
    assert_eq!((answer.0, code(&answer).as_str()), (404, "65537117"));
    assert_eq!(code(&scene.migrate(&nobody, &scene.onboard).await), "65537117");
    let config = scene.enabled().await;
    assert_eq!(code(&scene.migrate(&config, &nobody).await), "65537117", "neither is the onboard key manager");
    let missing = scene.node.ask("POST", &format!("/security/key-managers/{config}/migrate"), Some(json!({}))).await;
    assert_eq!(code(&missing), "262212");

    let store = scene.store.inner();
    let [node_key, presence_key] = ["nodes", "presences"].map(|kind| format!("/{kind}/{}", uuid::Uuid::from_u128(7)));
    let node = |level: u32, address: Value, ekmip: &str| json!({ "uuid": uuid::Uuid::from_u128(7), "name": format!("other{level}{address}"), "version": "0.0.1", "feature_level": level, "address": address, "ekmip_address": ekmip, "started": "2026-01-01T00:00:00Z" });
    for (record, expected) in [
        (node(1, json!("127.0.0.1:1"), "127.0.0.1:1"), "65536968"),
        (node(2, Value::Null, "127.0.0.1:1"), "65536968"),
        (node(2, json!("127.0.0.1:1"), "127.0.0.1:1"), "65537552"),
    ] {
        // It says that it is there.
        let presence = json!({ "since": "2026-01-01T00:00:00Z" }).to_string();
        store.transact(Txn::new().put(node_key.clone(), record.to_string()).put(presence_key.clone(), presence)).await.unwrap();
        let seen = async || scene.node.get("/cluster/nodes").await["records"].as_array().unwrap().iter().any(|node| node["name"] == record["name"]);
        eventually("the view must follow", async || seen().await.then_some(())).await;
        assert_eq!(code(&scene.migrate(&config, &scene.onboard).await), expected);
        assert_eq!(scene.state_of(&config).await, "active", "nothing was begun");
    }
    let other = format!("/security/key-managers/{config}/keys/{}/key-ids", uuid::Uuid::from_u128(7));
    assert_eq!(code(&scene.node.ask("GET", &other, None).await), "65537566", "what is in the memory of another node");
    store.transact(Txn::new().delete(node_key).delete(presence_key)).await.unwrap();
    eventually("the view must follow", async || (scene.node.get("/cluster/nodes").await["num_records"] == 1).then_some(())).await;

    // Disabling, as a DELETE shows it.
    let svm = scene.node.get("/svm/svms?name=svm1").await["records"][0]["uuid"].as_str().unwrap().to_owned();
    let store_key = format!("/key-stores/{svm}");
    let good = scene.stored(&store_key).await.remove(0).value;
    let mut record: Value = serde_json::from_slice(&good).unwrap();
    record["state"] = json!("disabling");
    store.transact(Txn::new().put(store_key.clone(), record.to_string())).await.unwrap();
    assert_eq!(code(&scene.migrate(&config, &scene.onboard).await), "65539435");
    let rekey = scene.node.ask("POST", &format!("/security/aws-kms/{config}/rekey-internal"), None).await;
    assert_eq!(code(&rekey), "65539437");
    store.transact(Txn::new().put(store_key, good)).await.unwrap();
    eventually("the view must follow", async || (scene.state_of(&config).await == "active").then_some(())).await;
    let answer = scene.migrate(&config, &scene.onboard).await;
    assert_eq!(answer.0, 201, "{answer:?}");
}

/// Where keys are rooted, and the key manager of the cluster, are for administrators of the cluster.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_of_an_svm_moves_no_keys_and_sees_no_onboard_key_manager() {
    let scene = scene().await;
    let keys = scene.make(3);
    let tenant = tenant(&scene.node, &scene.store, "svm1").await;
    let node = scene.node.get("/cluster/nodes").await["records"][0]["uuid"].as_str().unwrap().to_owned();
    let refused = tenant.ask("POST", "/security/aws-kms", scene.body(true)).await;
    assert_eq!((refused.0, code(&refused).as_str(), &refused.1["error"]["target"]), (403, "6", &json!("keystead.migrate_keys")));
    assert_eq!(code(&tenant.ask("POST", "/security/aws-kms", scene.body(false)).await), "65537912");
    let config = scene.enabled().await;
    for (from, to) in [(&config, &scene.onboard), (&scene.onboard, &config), (&config, &config)] {
        let refused = tenant.ask("POST", &format!("/security/key-managers/{from}/migrate"), json!({ "uuid": to })).await;
        assert_eq!((refused.0, code(&refused).as_str()), (403, "6"));
    }
    let path = format!("/security/key-managers/{}", scene.onboard);
    for (method, body) in [("PATCH", json!({ "onboard": { "synchronize": true } })), ("DELETE", json!({}))] {
        let refused = tenant.ask(method, &path, body).await;
        assert!([403, 404].contains(&refused.0), "{method}: {refused:?}");
    }
    assert_eq!(tenant.ask("GET", "/security/key-managers", Value::Null).await.1["num_records"], 0);
    assert_eq!(tenant.ask("GET", &path, Value::Null).await.0, 404);
    assert_eq!(tenant.ask("GET", &format!("{path}/keys/{node}/key-ids"), Value::Null).await.0, 404);
    let stores = tenant.ask("GET", "/security/key-stores?fields=*", Value::Null).await.1;
    assert_eq!((&stores["num_records"], &stores["records"][0]["uuid"]), (&json!(1), &json!(config)));
    let own = tenant.ask("GET", &format!("/security/key-managers/{config}/keys/{node}/key-ids"), Value::Null).await;
    assert_eq!((own.0, &own.1["num_records"]), (200, &json!(4)));
    scene.check(&keys);
}

/// Who may not start a move does not hold or end one either.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_account_of_an_svm_steers_no_move() {
    let scene = scene().await;
    let keys = scene.make(120);
    let tenant = tenant(&scene.node, &scene.store, "svm1").await;
    let steer = async |job: &str, action: &str| {
        let answer = tenant.ask("PATCH", &format!("/cluster/jobs/{job}"), json!({ "action": action })).await;
        (answer.0, answer.1["error"]["code"].as_str().unwrap_or_default().to_owned())
    };
    let job_of = |body: &Value| body["job"]["uuid"].as_str().unwrap().to_owned();
    let ended = async |job: &str| {
        eventually("the job must end", async || {
            let job = scene.node.get(&format!("/cluster/jobs/{job}?fields=*")).await;
            ["success", "failure"].contains(&job["state"].as_str().unwrap()).then_some(job["state"].clone())
        })
        .await
    };
    scene.stop.at("enable.batch.before");
    let (status, headers, body) = scene.node.call("POST", "/security/aws-kms", Some(scene.body(true))).await;
    assert_eq!(status, 202, "{body}");
    let config = headers["location"].to_str().unwrap().rsplit('/').next().unwrap().to_owned();
    scene.stop.held().await;
    for action in ["pause", "resume", "cancel"] {
        assert_eq!(steer(&job_of(&body), action).await, (403, "6".to_owned()), "{action}");
    }
    scene.stop.go_on();
    assert_eq!(ended(&job_of(&body)).await, "success");

    scene.stop.at("migrate.batch.before");
    let (status, back) = scene.node.ask("POST", &format!("/security/key-managers/{config}/migrate"), Some(json!({ "uuid": scene.onboard }))).await;
    assert_eq!(status, 202, "{back}");
    scene.stop.held().await;
    // Behind it waits what the SVM's administrator may start, and so hold and end, whoever has started it.
    let (status, waits) = scene.node.ask("PATCH", &format!("/security/aws-kms/{config}"), Some(json!({ "timeout": 5 }))).await;
    assert_eq!(status, 202, "{waits}");
    for action in ["pause", "resume", "cancel"] {
        assert_eq!(steer(&job_of(&back), action).await, (403, "6".to_owned()), "{action}");
        assert_eq!(steer(&job_of(&waits), action).await.0, 200, "{action}");
    }
    scene.stop.go_on();
    assert_eq!((ended(&job_of(&back)).await, ended(&job_of(&waits)).await), (json!("success"), json!("failure")));
    scene.check(&keys);
}

/// Key ids come in pages, also where they are sorted, and each of them once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn key_ids_in_pages() {
    let scene = scene().await;
    let keys = scene.make(25);
    let node = scene.node.get("/cluster/nodes").await["records"][0]["uuid"].as_str().unwrap().to_owned();
    for query in ["", "&order_by=key_type%20desc", "&key_type=vek"] {
        let mut path = format!("/security/key-managers/{}/keys/{node}/key-ids?max_records=7{query}", scene.onboard);
        let mut seen = Vec::new();
        loop {
            let page = scene.node.get(&path).await;
            seen.extend(page["records"].as_array().unwrap().iter().map(|id| id["key_id"].as_str().unwrap().to_owned()));
            let Some(next) = page["_links"]["next"]["href"].as_str() else { break };
            path = next.strip_prefix("/api").unwrap().to_owned();
        }
        let veks: std::collections::BTreeSet<&String> = seen.iter().filter(|id| !id.contains('/')).collect();
        assert_eq!(veks, keys.keys().collect(), "{query}");
        assert_eq!(seen.len(), if query.ends_with("vek") { 25 } else { 26 }, "{query}");
        assert!(!query.contains("order_by") || seen.last().unwrap().contains('/'), "the KEK is the last in that order");
    }
}

/// Each step of a move is told, with node, SVM and both key managers; and an SVM's administrator sees those of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn moves_are_told() {
    let scene = scene().await;
    scene.make(120);
    let tenant = tenant(&scene.node, &scene.store, "svm1").await;
    let told = async || -> Vec<Value> {
        let events = scene.node.get("/support/ems/events?fields=*&order_by=index").await["records"].as_array().unwrap().clone();
        events.into_iter().filter(|event| event["message"]["name"].as_str().unwrap().starts_with("keystead.migrate.")).collect()
    };
    let names = |events: &[Value]| -> Vec<String> {
        events.iter().map(|event| event["message"]["name"].as_str().unwrap().strip_prefix("keystead.migrate.").unwrap().to_owned()).collect()
    };
    let parameter = |event: &Value, name: &str| -> String {
        let found = event["parameters"].as_array().unwrap().iter().find(|parameter| parameter["name"] == name);
        found.unwrap_or_else(|| panic!("{name}: {event}"))["value"].as_str().unwrap().to_owned()
    };

    // An enabling that AWS refuses is a move that has failed; without a move, nothing is told.
    scene.kms.set_key_state(&scene.key, KeyState::Disabled).unwrap();
    assert_eq!(code(&scene.node.enable(scene.body(true)).await), "65537538");
    assert_eq!(names(&told().await), ["started", "failed"]);
    scene.kms.set_key_state(&scene.key, KeyState::Enabled).unwrap();
    assert_eq!(code(&scene.node.enable(scene.body(false)).await), "65537912");
    scene.node.svm("svm2").await;
    assert_eq!(scene.node.enable(common::enable_body("svm2", &scene.kms, &scene.key)).await.0, 201);
    assert_eq!(told().await.len(), 2);

    let config = scene.enabled().await;
    assert_eq!(scene.migrate(&config, &scene.onboard).await.0, 201);
    let events = told().await;
    assert_eq!(names(&events)[2..], ["started", "turned", "finished", "started", "turned", "finished"]);
    let node = scene.node.get("/cluster/nodes").await["records"][0]["name"].clone();
    for (events, from, to) in [(&events[2..5], &scene.onboard, &config), (&events[5..], &config, &scene.onboard)] {
        for event in events {
            assert_eq!((&parameter(event, "source"), &parameter(event, "destination")), (from, to), "{event}");
            assert_eq!((&event["svm"]["name"], &event["node"]["name"]), (&json!("svm1"), &node));
            let said = event["log_message"].as_str().unwrap();
            assert!(said.contains(from) && said.contains(to) && said.contains("SVM svm1"), "{said}");
        }
        assert_eq!(parameter(&events[2], "keys"), "120");
    }

    // Cancelled after the turn, and gone on with the other way.
    scene.stop.at("migrate.batch.after");
    let (status, answer) = scene.node.ask("POST", &format!("/security/key-managers/{}/migrate", scene.onboard), Some(json!({ "uuid": config }))).await;
    assert_eq!(status, 202, "{answer}");
    scene.stop.held().await;
    let job = answer["job"]["uuid"].as_str().unwrap().to_owned();
    assert_eq!(scene.node.ask("PATCH", &format!("/cluster/jobs/{job}?action=cancel"), None).await.0, 200);
    scene.stop.go_on();
    eventually("the other way must be open", async || (scene.migrate(&config, &scene.onboard).await.0 == 201).then_some(())).await;
    let events = told().await;
    assert_eq!(names(&events)[8..], ["started", "turned", "failed", "givenUp", "turned", "finished"], "AWS allows it, so all keys come back at once");
    assert!(parameter(&events[10], "reason").contains("The job was cancelled; migrate again"), "{}", events[10]);
    assert_eq!((parameter(&events[11], "source"), parameter(&events[11], "destination")), (scene.onboard.clone(), config.clone()), "the move that is given up");
    assert_eq!(events[11]["message"]["severity"], "alert");

    let own = tenant.ask("GET", "/support/ems/events?fields=*", Value::Null).await.1;
    assert!(own["records"].as_array().unwrap().iter().any(|event| event["message"]["name"] == "keystead.migrate.givenUp"));
}

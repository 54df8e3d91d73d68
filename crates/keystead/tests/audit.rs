//! The audit log over the wire: who did what, from where, to what, and what came of it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use crate::common;

use common::caller::Caller;
use common::kmip::{Credentials, Kmip, message, template, uid, without_certificate};
use common::scene::{Scene, scene, scene_with};
use common::{ACCESS_KEY_ID, Node, PASSWORD, SECRET, code, enable_body, eventually, stand_in, toml_for};
use keystead::serve::Hooks;
use keystead_audit::disk::{Disk, RealDisk};
use keystead_kmip::Tag;
use keystead_kmip::attribute::Attribute;
use keystead_kmip::enumeration::{Enumeration as _, ObjectType, Operation, ResultReason};
use keystead_kmip::ttlv::{Node as Item, Value as Of};
use keystead_rest::routes::ROUTES;
use keystead_store::Txn;
use serde_json::{Value, json};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

const MESSAGES: &str = "/security/audit/messages";

/// The records that pass a filter, the oldest first.
async fn records(node: &Node, filter: &str) -> Vec<Value> {
    let answer = node.get(&format!("{MESSAGES}?fields=*&{filter}")).await;
    let mut records = answer["records"].as_array().unwrap().clone();
    records.reverse();
    records
}

/// Has what was counted written, and waits for a record of it.
async fn counted(scene: &Scene, filter: &str) -> Value {
    // What is counted a moment after the end of one interval belongs to the next.
    eventually(&format!("a record must come: {filter}"), async || {
        scene.clock.advance(Duration::from_secs(61));
        records(&scene.node, filter).await.into_iter().next()
    })
    .await
}

fn field<'r>(record: &'r Value, name: &str) -> Option<&'r Value> {
    record["keystead"]["fields"].as_array().unwrap().iter().find(|field| field["name"] == name).map(|field| &field["value"])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_call_that_changes_something_is_recorded_before_and_after() {
    let node = Node::start("", Hooks::default()).await;
    for route in ROUTES.iter().filter(|route| route.method != "GET") {
        let path = route.path.strip_prefix("/api").unwrap().replace("{}", "00000000-0000-0000-0000-000000000000");
        let (status, answer) = node.ask(route.method.as_str(), &path, Some(json!({ "nonsense": 1 }))).await;
        assert!(status >= 400, "{path}");
        let input = format!("{} {}", route.method, route.path.replace("{}", "00000000-0000-0000-0000-000000000000"));
        let found = records(&node, &format!("input={}", percent_encoding::utf8_percent_encode(&input, percent_encoding::NON_ALPHANUMERIC))).await;
        let [before, after] = found.as_slice() else { panic!("{input}: {found:?}") };
        assert_eq!((before["state"].as_str(), after["state"].as_str()), (Some("pending"), Some("error")), "{input}");
        for record in [before, after] {
            for (name, value) in [("user", "admin"), ("role", "admin"), ("application", "http"), ("location", "127.0.0.1"), ("scope", "cluster")] {
                assert_eq!(record[name], value, "{input}: {name}");
            }
            assert!(record["keystead"]["port"].as_u64().unwrap() > 0);
            assert_eq!(record["command_id"], before["command_id"], "{input}");
            assert_eq!(record["session_id"], before["session_id"], "{input}");
        }
        assert_eq!(after["keystead"]["code"], answer["error"]["code"], "{input}");
        assert_eq!(after["message"], answer["error"]["message"], "{input}");
        assert!(after["keystead"]["duration"].is_u64() && before["keystead"].get("duration").is_none(), "{input}");
    }
    // What only reads is no record.
    node.get("/svm/svms").await;
    assert!(records(&node, "input=GET*").await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_record_of_a_call_on_many_is_recorded() {
    let node = Node::start("", Hooks::default()).await;
    let body = json!({ "records": [{ "name": "svm1" }, { "name": "svm2" }, { "name": "no good" }] });
    let (status, answer) = node.ask("POST", "/svm/svms?continue_on_failure=true", Some(body)).await;
    assert_eq!(status, 202, "{answer}");
    let of_one = async |filter: &str| {
        let mut found = records(&node, &format!("input=POST%20/api/svm/svms&{filter}")).await;
        // The call as a whole stands there too; it has no fields.
        found.retain(|call| call["keystead"]["fields"].as_array().is_some_and(|fields| !fields.is_empty()));
        found
    };
    let made = of_one("state=success").await;
    // They are done several at a time.
    let names: std::collections::BTreeSet<_> = made.iter().map(|call| field(call, "name").unwrap().as_str().unwrap()).collect();
    assert_eq!((names.into_iter().collect::<Vec<_>>(), made.len()), (vec!["svm1", "svm2"], 2), "each with its own fields");
    let [refused]: [Value; 1] = of_one("state=error").await.try_into().unwrap();
    assert_eq!((field(&refused, "name").unwrap(), refused["keystead"]["code"].as_str()), (&json!("no good"), Some("2621471")));
    let (status, answer) = node.ask("DELETE", "/svm/svms?name=svm*&return_timeout=30", None).await;
    assert_eq!(status, 200, "{answer}");
    let mut gone: Vec<_> = records(&node, "input=DELETE*&state=success&keystead.object=!null").await;
    assert_eq!(gone.len(), 2, "{gone:?}");
    gone.dedup_by_key(|call| call["keystead"]["object"].clone());
    assert_eq!(gone.len(), 2, "each names its own object");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_configuration_is_traced_from_the_call_to_the_end_of_its_job() {
    let (kms, key) = stand_in().await;
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let node = Node::start_in(folder.clone(), &toml_for(&kms, folder.path()), Hooks::default()).await.unwrap();
    let svm = node.svm("svm1").await;
    let made = &records(&node, "input=POST%20/api/svm/svms&state=success").await[0];
    assert_eq!(field(made, "name").unwrap(), "svm1");
    assert_eq!(made["keystead"]["object"], svm.as_str());

    // Accepted, and not waited for.
    let (status, answer) = node.ask("POST", "/security/aws-kms", Some(enable_body("svm1", &kms, &key))).await;
    assert_eq!(status, 202, "{answer}");
    let job = answer["job"]["uuid"].as_str().unwrap();
    let call = &records(&node, "input=POST%20/api/security/aws-kms&state=success").await[0];
    assert_eq!((call["keystead"]["job"].as_str(), call["svm"]["name"].as_str(), call["svm"]["uuid"].as_str()), (Some(job), Some("svm1"), Some(svm.as_str())));
    assert_eq!((call["scope"].as_str(), call["message"].as_str()), (Some("svm"), Some("accepted; the job goes on with it")));
    assert_eq!(field(call, "access_key_id").unwrap(), ACCESS_KEY_ID, "the id of the access key is no secret");
    assert_eq!(field(call, "secret_access_key"), Some(&Value::Null), "named, and no more");
    let config = call["keystead"]["object"].as_str().unwrap().to_owned();
    let ended = eventually("the job's end must be recorded", async || records(&node, &format!("application=job&keystead.job={job}")).await.pop()).await;
    assert_eq!(
        (ended["state"].as_str(), ended["user"].as_str(), ended["input"].as_str()),
        (Some("success"), Some("admin"), Some("POST /api/security/aws-kms"))
    );
    assert_eq!((ended["keystead"]["object"].as_str(), ended["svm"]["name"].as_str()), (Some(config.as_str()), Some("svm1")));

    // A job that fails; and an object that its call takes away.
    let path = format!("/security/aws-kms/{config}");
    let change = json!({ "access_key_id": ACCESS_KEY_ID, "secret_access_key": "wrong" });
    let refused = node.ask("PATCH", &format!("{path}?return_timeout=30"), Some(change)).await;
    let call = records(&node, "input=PATCH*&state=error&application=http").await.pop().unwrap();
    assert_eq!(call["keystead"]["code"], code(&refused));
    let ended = records(&node, "application=job&state=error").await.pop().unwrap();
    assert_eq!((&ended["keystead"]["code"], &ended["keystead"]["job"]), (&call["keystead"]["code"], &call["keystead"]["job"]));
    assert_eq!(node.ask("DELETE", &format!("{path}?return_timeout=30"), None).await.0, 200);
    let call = records(&node, "input=DELETE*&state=success&application=http").await.pop().unwrap();
    assert_eq!((call["svm"]["name"].as_str(), call["keystead"]["object"].as_str()), (Some("svm1"), Some(config.as_str())));
    // Whose password was changed is known; to what is not.
    let change = json!({ "name": "admin", "password": PASSWORD });
    assert_eq!(node.ask("POST", "/security/authentication/password", Some(change)).await.0, 200);
    let call = records(&node, "input=*password&state=success").await.pop().unwrap();
    assert_eq!((field(&call, "name").unwrap(), field(&call, "password")), (&json!("admin"), Some(&Value::Null)));
    let whole = node.get(&format!("{MESSAGES}?fields=**")).await.to_string();
    assert!(!whole.contains(SECRET) && !whole.contains(PASSWORD));
    assert_eq!(
        std::fs::metadata(folder.path().join("data/audit")).map(|at| std::os::unix::fs::PermissionsExt::mode(&at.permissions()) & 0o777).unwrap(),
        0o700
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logins_and_refusals_are_counted() {
    let scene = scene().await;
    for _ in 0..5 {
        let answer =
            scene.node.client.get(format!("https://{}/api/cluster", scene.node.address)).basic_auth("admin", Some("no password")).send().await.unwrap();
        assert_eq!(answer.status(), 401);
    }
    // A password in the place of a name, as people do.
    for n in 0..50 {
        let request = scene.node.client.get(format!("https://{}/api/cluster", scene.node.address)).basic_auth(format!("hunter{n}"), Some("x"));
        assert!([401, 429].contains(&request.send().await.unwrap().status().as_u16()));
    }
    let wrong = counted(&scene, "input=login&state=error&user=admin&keystead.code=6691623").await;
    assert_eq!((wrong["keystead"]["count"].as_u64(), wrong["location"].as_str()), (Some(5), Some("127.0.0.1")));
    let strangers = records(&scene.node, "input=login&state=error&user=null").await;
    assert_eq!(strangers.iter().map(|record| record["keystead"]["count"].as_u64().unwrap()).sum::<u64>(), 50, "{strangers:?}");
    assert!(strangers.len() <= 2, "one record a reason: {strangers:?}");
    // An account is known by its name as it is written, and not by another that differs in case alone.
    scene.node.account("Joe.Smith", "readonly", None).await;
    for name in ["Joe.Smith", "joe.smith"] {
        let request = scene.node.client.get(format!("https://{}/api/cluster", scene.node.address)).basic_auth(name, Some("no password"));
        assert!([401, 429].contains(&request.send().await.unwrap().status().as_u16()));
    }
    let joe = counted(&scene, "input=login&state=error&user=Joe.Smith").await;
    assert_eq!(joe["keystead"]["count"], 1);
    assert!(records(&scene.node, "user=joe.smith").await.is_empty());
    let good = &records(&scene.node, "input=login&state=success").await[0];
    assert_eq!((field(good, "authentication_method").unwrap(), field(&wrong, "authentication_method").unwrap()), (&json!("password"), &json!("password")));
    assert_eq!((good["user"].as_str(), good["role"].as_str()), (Some("admin"), Some("admin")));
    assert!(good["keystead"]["count"].as_u64().unwrap() > 1 && good["keystead"]["since"].is_string());
    assert!(!scene.node.get(&format!("{MESSAGES}?fields=**")).await.to_string().contains("hunter"));

    // Who may change nothing at all: counted, by call.
    let admin = scene.store.inner().get("/accounts/admin").await.unwrap().unwrap();
    let mut account: Value = serde_json::from_slice(&admin.value).unwrap();
    (account["name"], account["role"]) = (json!("viewer"), json!({ "name": "readonly" }));
    scene.store.inner().transact(Txn::new().put("/accounts/viewer", account.to_string())).await.unwrap();
    let url = format!("https://{}/api/svm/svms", scene.node.address);
    eventually("the account must be known", async || {
        let answer = scene.node.client.post(&url).basic_auth("viewer", Some(PASSWORD)).body("{\"name\": \"x\"}").send().await.unwrap();
        (answer.status() == 403).then_some(())
    })
    .await;
    let denied = counted(&scene, "user=viewer&keystead.code=6").await;
    assert_eq!(
        (denied["input"].as_str(), denied["role"].as_str(), denied["keystead"]["code"].as_str()),
        (Some("POST /api/svm/svms"), Some("readonly"), Some("6"))
    );

    // With the path that was asked for.
    let one = format!("{url}/00000000-0000-4000-8000-000000000001");
    assert_eq!(scene.node.client.delete(&one).basic_auth("viewer", Some(PASSWORD)).send().await.unwrap().status(), 403);
    let denied = counted(&scene, "user=viewer&input=DELETE*").await;
    assert_eq!(denied["input"].as_str(), Some("DELETE /api/svm/svms/00000000-0000-4000-8000-000000000001"));
    assert_eq!(field(&denied, "authentication_method").unwrap(), "password");

    // Who may not, as the administrator of an SVM: the same, and that SVM can read it.
    let tenant = scene.tenant("svm1").await;
    let (status, _) = tenant.ask("POST", "/svm/svms", json!({ "name": "mine" })).await;
    assert_eq!(status, 403);
    let call = counted(&scene, "user=tenant&state=error&input=POST*").await;
    assert_eq!((call["role"].as_str(), call["keystead"]["code"].as_str(), call["svm"]["name"].as_str()), (Some("vsadmin"), Some("6"), Some("svm1")));
}

/// What an SVM's administrator does is about its own SVM, whatever it names: the log does not say which others there are, and puts nothing into their view.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_of_a_vsadmin_are_recorded_with_its_own_svm() {
    let scene = scene().await;
    scene.node.svm("svm2").await;
    let (a, b) = (scene.node.account("tenant-a", "vsadmin", Some("svm1")).await, scene.node.account("tenant-b", "vsadmin", Some("svm2")).await);
    let of_b = async |caller: &Caller, begins: u64| {
        let path = format!("{MESSAGES}?fields=*&user=tenant-b&input=!login&index=>{begins}&order_by=index");
        caller.call("GET", &path, None).await.body["records"].as_array().unwrap().clone()
    };
    let admin = scene.node.caller("admin", PASSWORD);
    let certificate = json!({ "type": "root_ca", "common_name": "ca", "svm": { "name": "svm1" }, "algorithm": "ec" });
    let (status, answer) = scene.node.ask("POST", "/security/certificates?return_records=true", Some(certificate)).await;
    assert_eq!(status, 201, "{answer}");
    let certificate = answer["records"][0]["uuid"].as_str().unwrap().to_owned();
    let (svm1, config, client) = (scene.svm_uuid("svm1").await, scene.config.rsplit('/').next().unwrap().to_owned(), scene.client.uuid.clone());
    let nobody = || "00000000-0000-4000-8000-000000000000".to_owned();
    let mut told = Vec::new();
    for names in
        [["svm1".to_owned(), svm1.clone(), config.clone(), client.clone(), certificate.clone()], ["svm9".to_owned(), nobody(), nobody(), nobody(), nobody()]]
    {
        let [name, uuid, config, client, certificate] = &names;
        let begins = records(&scene.node, "").await.last().unwrap()["index"].as_u64().unwrap();
        let mut by_uuid = enable_body("svm1", &scene.kms, &scene.key);
        by_uuid["svm"] = json!({ "uuid": uuid });
        for (method, path, body) in [
            ("POST", "/security/aws-kms".to_owned(), Some(enable_body(name, &scene.kms, &scene.key))),
            ("POST", "/security/aws-kms".to_owned(), Some(by_uuid)),
            ("POST", "/security/ekmip/clients?return_records=true".to_owned(), Some(json!({ "svm": { "name": name }, "common_name": "x" }))),
            ("PATCH", format!("/security/aws-kms/{config}"), Some(json!({ "port": 1 }))),
            ("POST", format!("/security/aws-kms/{config}/restore"), None),
            ("DELETE", format!("/security/ekmip/clients/{client}"), None),
            ("DELETE", format!("/security/certificates/{certificate}"), None),
        ] {
            let answer = b.call(method, &path, body).await;
            assert!(answer.status >= 400, "{method} {path}: {}", answer.body);
        }
        let mut seen = of_b(&b, begins).await;
        assert_eq!(seen.len(), 14, "a beginning and an end for each: {seen:?}");
        assert!(seen.iter().all(|record| record["svm"]["name"] == "svm2"), "{seen:?}");
        assert_eq!(of_b(&admin, begins).await, seen, "an administrator of the cluster sees the same");
        for record in &mut seen {
            for own in ["index", "timestamp", "command_id", "session_id"] {
                record[own] = Value::Null;
            }
            for own in ["duration", "port"] {
                record["keystead"][own] = Value::Null;
            }
        }
        let plain = names.iter().fold(json!(seen).to_string(), |text, name| text.replace(name.as_str(), "NAME"));
        told.push(plain);
        assert_eq!(of_b(&a, 0).await, Vec::<Value>::new(), "nothing of it is told to the other");
    }
    assert_eq!(told[0], told[1]);
    // What an administrator of the cluster does to an SVM's object, the SVM is told.
    assert_eq!(scene.node.ask("DELETE", &format!("/security/certificates/{certificate}"), None).await.0, 200);
    let seen = a.call("GET", &format!("{MESSAGES}?user=admin&input=DELETE*&keystead.object={certificate}"), None).await.body;
    assert_eq!(seen["num_records"], 2, "{seen}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kmip_operations_are_recorded_or_counted() {
    let scene = scene().await;
    let mut kmip = scene.connect();
    let key = kmip.created(vec![Attribute::name("k1")]);
    let filter = format!("keystead.object={key}");
    let made = records(&scene.node, &filter).await;
    assert_eq!(made.iter().map(|record| record["state"].as_str().unwrap()).collect::<Vec<_>>(), ["pending", "success"]);
    let fingerprint = made[0]["keystead"]["certificate"]["fingerprint"].as_str().unwrap().to_owned();
    let serial = scene.node.get("/security/ekmip/clients?fields=*").await["records"][0]["serial_number"].as_str().unwrap().to_lowercase();
    for record in &made {
        assert_eq!((record["input"].as_str(), record["application"].as_str(), record["location"].as_str()), (Some("Create"), Some("kmip"), Some("127.0.0.1")));
        assert_eq!((record["user"].as_str(), record["svm"]["name"].as_str()), (Some("client of svm1"), Some("svm1")));
        assert_eq!(fingerprint.len(), 64);
        assert!(record["keystead"]["certificate"]["serial_number"].as_str().unwrap().ends_with(serial.trim_start_matches('0')), "{record} {serial}");
        assert_eq!((field(record, "object_type").unwrap(), &record["command_id"]), (&json!("SymmetricKey"), &made[0]["command_id"]));
    }
    // What changes it, each by itself.
    assert!(kmip.with_id(Operation::Activate, &key).reason().is_none());
    kmip.call(Operation::AddAttribute, vec![uid(&key), Attribute::new(Tag::ContactInformation, Of::TextString("somebody".into())).to_node().into_owned()]).id();
    let new = kmip.with_id(Operation::ReKey, &key).id();
    let reason = Item::structure(Tag::RevocationReason, vec![Item::new(Tag::RevocationReasonCode, Of::Enumeration(5))]);
    kmip.call(Operation::Revoke, vec![uid(&key), reason]).id();
    kmip.with_id(Operation::Destroy, &key).id();
    let done = records(&scene.node, &format!("{filter}&state=success")).await;
    assert_eq!(done.iter().map(|record| record["input"].as_str().unwrap()).collect::<Vec<_>>(), ["Create", "Activate", "AddAttribute", "Revoke", "Destroy"]);
    assert_eq!((field(&done[2], "attribute").unwrap(), field(&done[3], "reason").unwrap()), (&json!("Contact Information"), &json!("Superseded")));
    let rekeyed = records(&scene.node, &format!("keystead.object={new}&state=success")).await.pop().unwrap();
    assert_eq!((rekeyed["input"].as_str(), field(&rekeyed, "replaces").unwrap()), (Some("ReKey"), &json!(key)));
    // Also where the old one is meant by the ID Placeholder.
    let located = (Operation::Locate, vec![Attribute::name("k2").to_node().into_owned()]);
    let second = kmip.created(vec![Attribute::name("k2")]);
    let ids: Vec<String> = kmip.try_batch(vec![located, (Operation::ReKey, vec![])], &[]).unwrap().iter().map(|answer| answer.id()).collect();
    let rekeyed = records(&scene.node, &format!("keystead.object={}&state=success", ids[1])).await.pop().unwrap();
    assert_eq!((ids[0].as_str(), field(&rekeyed, "replaces").unwrap()), (second.as_str(), &json!(second)));
    let registered = kmip.register(b"a planted secret of the client", &[]).id();
    assert_eq!(records(&scene.node, &format!("keystead.object={registered}&state=success")).await[0]["input"], "Register");

    // What hands it out: once an interval, with a count.
    let mut other = scene.connect();
    for _ in 0..50 {
        kmip.get(&new);
        other.get(&new);
    }
    for _ in 0..3 {
        assert_eq!(kmip.get("00000000-0000-0000-0000-000000000000").reason(), Some(ResultReason::ItemNotFound));
    }
    assert!(kmip.with_id(Operation::Destroy, &key).reason().is_some());
    let gets = counted(&scene, &format!("keystead.object={new}&input=Get")).await;
    assert_eq!((gets["keystead"]["count"].as_u64(), gets["state"].as_str(), gets["user"].as_str()), (Some(100), Some("success"), Some("client of svm1")));
    assert_eq!(records(&scene.node, "input=Get&state=success").await.len(), 1, "one certificate, one key, one interval");
    let missed = records(&scene.node, "input=Get&state=error").await;
    assert_eq!((missed.len(), missed[0]["keystead"]["count"].as_u64(), missed[0]["keystead"]["code"].as_str()), (1, Some(3), Some("ItemNotFound")));
    let refused = records(&scene.node, "input=Destroy&state=error").await;
    assert_eq!((refused[0]["keystead"]["object"].as_str(), refused[0]["keystead"]["code"].as_str()), (Some(key.as_str()), Some("PermissionDenied")));
    kmip.get(&new);
    scene.clock.advance(Duration::from_secs(61));
    eventually("the next interval has a record of its own", async || {
        (records(&scene.node, "input=Get&state=success").await.iter().map(|record| record["keystead"]["count"].as_u64().unwrap()).collect::<Vec<_>>()
            == [100, 1])
        .then_some(())
    })
    .await;
    let whole = scene.node.get(&format!("{MESSAGES}?fields=**")).await.to_string();
    assert!(!whole.contains("planted") && !whole.contains("somebody"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_are_refused_are_counted() {
    let scene = scene().await;
    let other = Credentials::issue(&scene.node, "svm1").await;
    let mut kmip = Kmip::connect_new(&other.endpoint(scene.node.ekmip)).await;
    kmip.created(vec![]);
    assert_eq!(scene.node.ask("DELETE", &format!("/security/ekmip/clients/{}", other.uuid), None).await.0, 200);
    eventually("a revoked certificate is refused", async || {
        let refused = tokio::task::block_in_place(|| other.endpoint(scene.node.ekmip)).open().err().map(|error| error.to_string());
        refused.or_else(|| Kmip::connect(&other.endpoint(scene.node.ekmip)).try_call(Operation::Query, vec![]).err())
    })
    .await;
    for _ in 0..3 {
        let client = tokio::task::block_in_place(|| without_certificate(&scene.client, scene.node.ekmip));
        if let Ok(mut client) = client {
            assert!(tokio::task::block_in_place(|| client.call_bytes(&[0x42, 0, 0x78, 1, 0, 0, 0, 0])).is_err());
        }
    }
    let revoked = counted(&scene, "application=kmip&input=connect&message=*revoked*").await;
    assert_eq!((revoked["state"].as_str(), revoked["location"].as_str()), (Some("error"), Some("127.0.0.1")));
    let ended = records(&scene.node, "application=kmip&input=connect&message=*was%20ended*&svm.name=svm1").await;
    assert_eq!((ended.len(), ended[0]["user"].as_str()), (1, Some("client of svm1")), "the connection that was open");
    let nobody = records(&scene.node, "application=kmip&input=connect&message=*no%20certificate*").await;
    assert_eq!((nobody.len(), nobody[0]["keystead"]["count"].as_u64()), (1, Some(3)));
    // At the REST API too.
    let mut plain = std::net::TcpStream::connect(scene.node.address).unwrap();
    std::io::Write::write_all(&mut plain, b"GET / HTTP/1.1\r\n\r\n").unwrap();
    let _ = std::io::Read::read_to_end(&mut plain, &mut Vec::new());
    let plain = counted(&scene, "application=http&input=connect").await;
    assert_eq!((plain["state"].as_str(), plain["location"].as_str()), (Some("error"), Some("127.0.0.1")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_made_or_changed_stands_in_the_record_and_whose_it_is() {
    let scene = scene().await;
    let node = &scene.node;
    let uuid = scene.svm_uuid("svm1").await;
    let by_header = async |path: &str, body: Value| {
        let request = node.client.post(format!("https://{}/api{path}", node.address)).basic_auth("admin", Some(PASSWORD));
        let answer = request.header("X-Dot-SVM-UUID", &uuid).body(body.to_string()).send().await.unwrap();
        assert_eq!(answer.status(), 201, "{path}");
    };
    by_header("/security/ekmip/clients?return_records=true", json!({ "common_name": "by header" })).await;
    let account = json!({ "name": "keeper", "password": PASSWORD, "role": { "name": "vsadmin" }, "owner": { "name": "svm1" } });
    let (status, answer) = node.ask("POST", "/security/accounts", Some(account)).await;
    assert_eq!(status, 201, "{answer}");
    let (status, answer) =
        node.ask("POST", "/security/certificates", Some(json!({ "type": "root_ca", "common_name": "ours", "name": "ours", "svm": { "name": "svm1" } }))).await;
    assert_eq!(status, 201, "{answer}");
    let (status, answer) = node.ask("POST", "/security/ekmip/sessions", Some(json!({}))).await;
    assert_eq!(status, 201, "{answer}");

    let calls = records(node, "input=POST*&state=success&application=http").await;
    assert!(calls.len() >= 6, "{calls:?}");
    for call in &calls {
        let named = call["keystead"]["object"].is_string() || field(call, "name").is_some_and(Value::is_string);
        assert!(named, "no object: {call}");
        assert!(call["input"] == "POST /api/security/accounts" || call["keystead"]["object"].is_string(), "{call}");
        let of_svm = !["POST /api/svm/svms", "POST /api/security/ekmip/sessions"].contains(&call["input"].as_str().unwrap());
        assert!(!of_svm || call["svm"]["name"] == "svm1", "whose it is: {call}");
    }
    // What is taken away has an owner too.
    let certificate = calls.iter().find(|call| call["input"] == "POST /api/security/certificates").unwrap()["keystead"]["object"].as_str().unwrap();
    assert_eq!(node.ask("DELETE", &format!("/security/certificates/{certificate}"), None).await.0, 200);
    let gone = records(node, &format!("input=DELETE*&keystead.object={certificate}")).await;
    assert!(gone.len() == 2 && gone.iter().all(|call| call["svm"]["name"] == "svm1"), "{gone:?}");
    // What was changed.
    let change = json!({ "comment": "changed", "locked": false });
    let (status, answer) = node.ask("PATCH", &format!("/security/accounts/{uuid}/keeper"), Some(change)).await;
    assert_eq!(status, 200, "{answer}");
    let call = records(node, "input=PATCH*keeper&state=success").await.pop().unwrap();
    assert_eq!(field(&call, "comment").unwrap(), "changed", "{call}");
    let role = json!({ "role": { "name": "vsadmin" } });
    node.ask("PATCH", &format!("/security/accounts/{uuid}/keeper"), Some(role)).await;
    let call = records(node, "input=PATCH*keeper&state=!pending").await.pop().unwrap();
    assert_eq!(field(&call, "role.name").unwrap(), "vsadmin", "{call}");
    let nowhere = "/cluster/jobs/00000000-0000-4000-8000-000000000000";
    assert_eq!(node.ask("PATCH", nowhere, Some(json!({ "action": "cancel" }))).await.0, 404);
    let call = records(node, "input=PATCH*jobs*&state=error").await.pop().unwrap();
    assert!(field(&call, "action").is_some(), "{call}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stuck_audit_disk_uses_up_no_connections() {
    let disk = Arc::new(Moody::default());
    let scene = scene_with("[ekmip]\nmax_connections = 2\n", Hooks { audit_disk: disk.clone(), ..Hooks::default() }).await;
    let mut kmip = scene.connect();
    let key = kmip.created(vec![]);
    drop(kmip);
    eventually("its place must be free", async || (scene.connect().try_call(Operation::Query, vec![]).is_ok()).then_some(())).await;
    disk.set(Mood::Stuck);
    let start = std::time::Instant::now();
    let endpoint = tokio::task::block_in_place(|| scene.client.endpoint(scene.node.ekmip));
    // Two that ask for a key and do not wait for the answer.
    let attributes = [
        Attribute::new(Tag::CryptographicAlgorithm, Of::Enumeration(3)),
        Attribute::new(Tag::CryptographicLength, Of::Integer(256)),
        Attribute::new(Tag::CryptographicUsageMask, Of::Integer(12)),
    ];
    let payload = vec![Item::enumeration(Tag::ObjectType, ObjectType::SymmetricKey), template(&attributes)];
    let mut bytes = Vec::new();
    keystead_kmip::ttlv::encode(&message(4, vec![(Operation::Create, payload)], &[]), &mut bytes);
    for _ in 0..2 {
        eventually("a place must be free", async || {
            tokio::task::block_in_place(|| {
                let (mut session, mut stream) = endpoint.open().ok()?;
                std::io::Write::write_all(&mut rustls::Stream::new(&mut session, &mut stream), &bytes).ok()
            })
        })
        .await;
    }
    let (status, answer) = scene.node.ask("POST", "/svm/svms", Some(json!({ "name": "no" }))).await;
    assert_eq!(status, 503, "{answer}");
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    eventually("there must be room for another one", async || {
        let mut kmip = Kmip::try_connect(&endpoint)?;
        kmip.try_call(Operation::Get, vec![uid(&key)]).ok()?.reason().is_none().then_some(())
    })
    .await;
    disk.set(Mood::Good);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_speaks_the_language_of_queries() {
    let scene = scene().await;
    scene.node.svm("svm2").await;
    for n in 0..25 {
        assert!(scene.node.ask("POST", "/svm/svms?return_timeout=30", Some(json!({ "name": format!("more{n}") }))).await.0 < 300);
    }
    // Plain: what ONTAP shows, the newest first.
    let plain = scene.node.get(&format!("{MESSAGES}?max_records=1")).await;
    let record = &plain["records"][0];
    for name in ["timestamp", "node", "index", "application", "location", "user", "input", "state", "scope", "svm"] {
        assert!(!record[name].is_null(), "{name}: {record}");
    }
    assert!(record.get("keystead").is_none() && record["node"]["_links"]["self"]["href"].is_string());
    // Pages hold every record once, while more come.
    let all: Vec<u64> = records(&scene.node, "").await.iter().rev().map(|record| record["index"].as_u64().unwrap()).collect();
    assert!(all.windows(2).all(|pair| pair[0] == pair[1] + 1) && all.last() == Some(&1), "{all:?}");
    for order in ["", "&order_by=timestamp%20asc", "&order_by=input,index", "&order_by=index"] {
        let (mut seen, mut path) = (Vec::new(), format!("{MESSAGES}?max_records=7&index=<={}{order}", all[0]));
        loop {
            let page = scene.node.get(&path).await;
            seen.extend(page["records"].as_array().unwrap().iter().map(|record| record["index"].as_u64().unwrap()));
            assert!(scene.node.ask("POST", "/svm/svms", Some(json!({ "nonsense": 1 }))).await.0 == 400);
            let Some(next) = page["_links"]["next"]["href"].as_str() else { break };
            path = next.strip_prefix("/api").unwrap().to_owned();
        }
        if order.ends_with("input,index") {
            seen.sort_unstable();
        }
        let mut sorted = all.clone();
        // The clock of this test stands still: moments are alike, and numbers decide.
        if order.ends_with("index") {
            sorted.sort_unstable();
        }
        assert_eq!(seen, sorted, "{order}");
    }
    let count = async |filter: &str| scene.node.get(&format!("{MESSAGES}?{filter}&return_records=false")).await["num_records"].as_u64().unwrap();
    assert_eq!(count("input=POST%20/api/svm/svms&state=success").await, 27);
    assert_eq!(count("keystead.fields.value=more7").await, 1);
    assert_eq!(count("query=more1*&query_fields=keystead.fields").await, 0, "a search looks at text, not into lists");
    assert_eq!(count("timestamp=>2099-01-01T00:00:00Z").await, 0);
    assert_eq!(count("state=!pending&application=audit").await, 1);
    assert_eq!(code(&scene.node.ask("GET", &format!("{MESSAGES}?nonsense=1"), None).await), "262179");
    assert_eq!(scene.node.ask("DELETE", MESSAGES, None).await.0, 405, "nobody deletes a record");
    // An account of an SVM sees what is about its SVM.
    let tenant = scene.tenant("svm2").await;
    let (status, own) = tenant.ask("GET", &format!("{MESSAGES}?fields=*"), Value::Null).await;
    let own = own["records"].as_array().unwrap().clone();
    assert!(status == 200 && !own.is_empty() && own.iter().all(|record| record["svm"]["name"] == "svm2"), "{own:?}");
}

/// A disk that is full, or that does not answer, when a test says so.
#[derive(Default)]
struct Moody {
    mood: Mutex<Mood>,
    moved: Condvar,
}

#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum Mood {
    #[default]
    Good,
    Full,
    Stuck,
}

impl Moody {
    fn set(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
        self.moved.notify_all();
    }
}

impl Disk for Moody {
    fn write(&self, file: &std::fs::File, bytes: &[u8]) -> std::io::Result<()> {
        let mood = self.moved.wait_while(self.mood.lock().unwrap(), |mood| *mood == Mood::Stuck).unwrap();
        if *mood == Mood::Full { Err(std::io::ErrorKind::StorageFull.into()) } else { RealDisk.write(file, bytes) }
    }

    fn sync(&self, file: &std::fs::File) -> std::io::Result<()> {
        RealDisk.sync(file)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gets_go_on_while_the_audit_disk_is_stuck() {
    let disk = Arc::new(Moody::default());
    let scene = scene_with("", Hooks { audit_disk: disk.clone(), ..Hooks::default() }).await;
    let mut kmip = scene.connect();
    let key = kmip.created(vec![]);
    disk.set(Mood::Stuck);
    // A change waits for the disk; what only hands out does not, on the same node and under its nose.
    let (client, address) = (scene.node.client.clone(), scene.node.address);
    let change = tokio::spawn(async move {
        let request = client.post(format!("https://{address}/api/svm/svms?return_timeout=30")).basic_auth("admin", Some(PASSWORD));
        request.body(json!({ "name": "later" }).to_string()).send().await.unwrap().status().as_u16()
    });
    for _ in 0..200 {
        assert!(kmip.get(&key).reason().is_none());
    }
    scene.node.get("/svm/svms").await;
    assert!(!change.is_finished());
    assert_eq!(scene.node.get("/svm/svms?name=later").await["num_records"], 0, "what is not recorded is not done");
    disk.set(Mood::Good);
    assert_eq!(change.await.unwrap(), 201);
    let gets = counted(&scene, &format!("keystead.object={key}&input=Get")).await;
    assert_eq!(gets["keystead"]["count"], 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_changes_and_strict_refuses_gets_too() {
    for strict in [false, true] {
        let disk = Arc::new(Moody::default());
        let scene = scene_with(&format!("[audit]\nstrict = {strict}\n"), Hooks { audit_disk: disk.clone(), ..Hooks::default() }).await;
        let mut kmip = scene.connect();
        let key = kmip.created(vec![]);
        disk.set(Mood::Full);
        let (status, headers, answer) = scene.node.call("POST", "/svm/svms", Some(json!({ "name": "no" }))).await;
        assert_eq!((status, answer["error"]["code"].as_str(), headers.contains_key("retry-after")), (503, Some("13114500"), true));
        let text = answer["error"]["message"].as_str().unwrap();
        assert!(text.contains("make room") && !text.contains("/"), "{text}");
        let refused = kmip.with_id(Operation::Destroy, &key);
        assert_eq!(refused.reason(), Some(ResultReason::GeneralFailure));
        assert!(refused.message().contains("audit log"), "{}", refused.message());
        let got = kmip.get(&key);
        assert_eq!(got.reason(), strict.then_some(ResultReason::GeneralFailure));
        assert_eq!(scene.node.get("/svm/svms?name=no").await["num_records"], 0);
        disk.set(Mood::Good);
        eventually("it goes on by itself", async || kmip.get(&key).reason().is_none().then_some(())).await;
        eventually("changes go on", async || {
            (scene.node.ask("POST", "/svm/svms?return_timeout=30", Some(json!({ "name": "yes" }))).await.0 == 201).then_some(())
        })
        .await;
        let lost = records(&scene.node, "input=audit%20records%20lost").await;
        assert!(lost[0]["keystead"]["count"].as_u64().unwrap() >= 2 && lost[0]["message"].as_str().unwrap().contains("no storage space"), "{lost:?}");
        eventually("operators are told", async || {
            let events = scene.node.get("/support/ems/events?message.name=keystead.audit.*").await;
            let names: Vec<_> = events["records"].as_array().unwrap().iter().map(|event| event["message"]["name"].as_str().unwrap().to_owned()).collect();
            (names == ["keystead.audit.writable", "keystead.audit.notWritable"]).then_some(())
        })
        .await;
    }
}

#[test]
fn enumerations_have_the_names_that_records_use() {
    assert_eq!((Operation::ReKey.name(), ResultReason::ItemNotFound.name()), ("ReKey", "ItemNotFound"));
}

//! Every call by every role: what each may do stands here in one table, and a call that is not in it fails the test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use crate::common;

use common::caller::{Answer, Caller};
use common::kmip::Credentials;
use common::scene::{Scene, enabled, scene, scene_with};
use common::{PASSWORD, enable_body, eventually};
use keystead::serve::Hooks;
use keystead_rest::routes::ROUTES;
use keystead_testkit::{Fault, FaultRule};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::time::Duration;

/// What comes of a call.
///
/// * `-` 401: nobody is logged in
/// * `x` 403, whatever the object: the role may not make such a call
/// * `o` the call comes through: it answers a GET, and reads the body of another (which is one that it then refuses)
/// * `?` the object does not exist: the answer is that for one that really does not
///
/// By: nobody, readonly, an SVM's administrator with an object of that SVM, the same with one of another SVM, admin.
const TABLE: &[(&str, &str, &str)] = &[
    ("GET", "/api/cluster", "-oooo"),
    ("GET", "/api/cluster/nodes", "-oooo"),
    ("GET", "/api/cluster/nodes/{}", "-oooo"),
    ("DELETE", "/api/cluster/nodes/{}", "-xxxo"),
    ("GET", "/api/cluster/jobs", "-oooo"),
    ("GET", "/api/cluster/jobs/{}", "-oo?o"),
    ("PATCH", "/api/cluster/jobs/{}", "-xo?o"),
    ("GET", "/api/svm/svms", "-oooo"),
    ("POST", "/api/svm/svms", "-xxxo"),
    ("GET", "/api/svm/svms/{}", "-oo?o"),
    ("PATCH", "/api/svm/svms/{}", "-xxxo"),
    ("DELETE", "/api/svm/svms/{}", "-xxxo"),
    ("GET", "/api/security", "-oooo"),
    ("PATCH", "/api/security", "-xxxo"),
    ("GET", "/api/security/aws-kms", "-oooo"),
    ("POST", "/api/security/aws-kms", "-xo?o"),
    ("GET", "/api/security/aws-kms/{}", "-oo?o"),
    ("PATCH", "/api/security/aws-kms/{}", "-xo?o"),
    ("DELETE", "/api/security/aws-kms/{}", "-xo?o"),
    ("POST", "/api/security/aws-kms/{}/restore", "-xo?o"),
    ("POST", "/api/security/aws-kms/{}/rekey-internal", "-xo?o"),
    ("POST", "/api/security/aws-kms/{}/rekey-external", "-xo?o"),
    ("GET", "/api/security/certificates", "-oooo"),
    ("POST", "/api/security/certificates", "-xo?o"),
    ("GET", "/api/security/certificates/{}", "-oo?o"),
    ("DELETE", "/api/security/certificates/{}", "-xo?o"),
    ("POST", "/api/security/certificates/{}/sign", "-xo?o"),
    ("POST", "/api/security/certificate-signing-request", "-xooo"),
    ("GET", "/api/security/key-managers", "-oooo"),
    ("POST", "/api/security/key-managers", "-xxxo"),
    ("GET", "/api/security/key-managers/{}", "-o??o"),
    ("PATCH", "/api/security/key-managers/{}", "-xxxo"),
    ("DELETE", "/api/security/key-managers/{}", "-xxxo"),
    ("POST", "/api/security/key-managers/{}/migrate", "-xo?o"),
    ("GET", "/api/security/key-managers/{}/keys/{}/key-ids", "-oo?o"),
    ("GET", "/api/security/key-stores", "-oooo"),
    ("GET", "/api/security/key-stores/{}", "-oo?o"),
    ("GET", "/api/security/ekmip/clients", "-oooo"),
    ("POST", "/api/security/ekmip/clients", "-xo?o"),
    ("GET", "/api/security/ekmip/clients/{}", "-oo?o"),
    ("DELETE", "/api/security/ekmip/clients/{}", "-xo?o"),
    ("GET", "/api/security/ekmip/client-cas", "-oooo"),
    ("POST", "/api/security/ekmip/client-cas", "-xxxo"),
    ("GET", "/api/security/ekmip/client-cas/{}", "-oo?o"),
    ("DELETE", "/api/security/ekmip/client-cas/{}", "-xo?o"),
    ("POST", "/api/security/ekmip/preflight", "-xo?o"),
    ("GET", "/api/security/ekmip/settings", "-oxxo"),
    ("PATCH", "/api/security/ekmip/settings", "-xxxo"),
    ("POST", "/api/security/ekmip/seal/rotate", "-xxxo"),
    ("GET", "/api/security/ekmip/ca", "-oxxo"),
    ("POST", "/api/security/ekmip/ca/prepare", "-xxxo"),
    ("POST", "/api/security/ekmip/ca/switch", "-xxxo"),
    ("POST", "/api/security/ekmip/ca/finish", "-xxxo"),
    ("GET", "/api/security/ekmip/sessions", "-oooo"),
    ("POST", "/api/security/ekmip/sessions", "-oooo"),
    // A session is its account's own: also to admin, that of another account does not exist.
    ("GET", "/api/security/ekmip/sessions/{}", "-?o??"),
    ("DELETE", "/api/security/ekmip/sessions/{}", "-oo?o"),
    ("GET", "/api/security/accounts", "-oooo"),
    ("POST", "/api/security/accounts", "-xxxo"),
    ("GET", "/api/security/accounts/{}/{}", "-oo?o"),
    ("PATCH", "/api/security/accounts/{}/{}", "-xxxo"),
    ("DELETE", "/api/security/accounts/{}/{}", "-xxxo"),
    ("GET", "/api/security/roles", "-oooo"),
    ("GET", "/api/security/roles/{}/{}", "-oo?o"),
    ("POST", "/api/security/authentication/password", "-oo?o"),
    ("GET", "/api/support/ems/events", "-oooo"),
    ("GET", "/api/support/ems/events/{}/{}", "-oo?o"),
    ("GET", "/api/support/ems/messages", "-oooo"),
    ("GET", "/api/security/audit/messages", "-oooo"),
];

/// The objects of an SVM, by the beginning of the paths that lead to them; `""`: the SVM itself.
type Objects = HashMap<&'static str, Vec<String>>;

const NOWHERE: &str = "00000000-0000-4000-8000-000000000000";

struct Walk {
    scene: Scene,
    nobody: Caller,
    readonly: Caller,
    tenant: Caller,
    admin: Caller,
    own: Objects,
    other: Objects,
    nowhere: Objects,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_call_by_every_role() {
    for route in ROUTES {
        let rows = TABLE.iter().filter(|(method, path, _)| *method == route.method.as_str() && *path == route.path).count();
        assert_eq!(rows, 1, "{} {} must stand in the table once", route.method, route.path);
    }
    let walk = walk().await;
    let before = walk.all_of_other().await;
    let events = async || walk.tenant.call("GET", "/support/ems/events?fields=**", None).await.body;
    let events_before = events().await;
    for (method, path, expected) in TABLE {
        let found: String = walk.letters(method, path).await;
        assert_eq!(&found, expected, "{method} {path}");
    }
    assert_eq!(events().await, events_before, "nor is an event told of what was tried");
    assert_eq!(walk.all_of_other().await, before, "nothing of the other SVM has changed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_on_many_records_are_calls_on_each() {
    let walk = walk().await;
    // Each collection whose records can be changed.
    for (method, path, letters) in TABLE.iter().filter(|(method, path, _)| (*method == "PATCH" || *method == "DELETE") && path.ends_with("/{}")) {
        let collection = path.trim_end_matches("/{}").strip_prefix("/api").unwrap();
        for (caller, letter) in [(&walk.readonly, &letters[1..2]), (&walk.tenant, &letters[2..3])] {
            for (path, body) in [(format!("{collection}?name=*"), None), (collection.to_owned(), Some(json!({ "records": [{ "uuid": NOWHERE }] })))] {
                let answer = caller.call(method, &path, body).await;
                assert_eq!(answer.status == 403, letter == "x", "{method} {path}: {} {}", answer.status, answer.body);
            }
        }
    }
    // What passes the filters is what an SVM's administrator sees; and the job that stands for its call is its own.
    let before = walk.all_of_other().await;
    let answer = walk.tenant.call("PATCH", "/security/aws-kms?region=*&return_timeout=30", Some(json!({ "polling_period": 62 }))).await;
    assert_eq!((answer.status, answer.body["num_records"].as_u64()), (200, Some(1)), "{}", answer.body);
    let other = &walk.other["/api/security/aws-kms"][0];
    let own = &walk.own["/api/security/aws-kms"][0];
    let records = json!({ "records": [{ "uuid": own, "polling_period": 63 }, { "uuid": other, "polling_period": 63 }] });
    let answer = walk.tenant.call("PATCH", "/security/aws-kms?continue_on_failure=true", Some(records)).await;
    assert_eq!(answer.status, 202, "{}", answer.body);
    let job = format!("/cluster/jobs/{}", answer.body["job"]["uuid"].as_str().unwrap());
    let seen = eventually("the end of the job", async || {
        let job = walk.tenant.call("GET", &format!("{job}?fields=state,message"), None).await.body;
        (job["state"] == "failure").then_some(job)
    })
    .await;
    assert!(seen["message"].as_str().unwrap().starts_with("1 of 2 records have failed"), "{seen}");
    assert_eq!(walk.all_of_other().await, before, "nothing of the other SVM has changed");
}

/// An SVM that is being enabled is no other case: what is reserved for it does not exist to others, whatever is asked of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_being_enabled_for_another_svm_does_not_exist() {
    let scene = scene_with("[jobs]\nmax_open = 1\n", Hooks::default()).await;
    let node = &scene.node;
    node.svm("svm2").await;
    let (own, other) = (node.account("tenant-2", "vsadmin", Some("svm2")).await, node.account("tenant-1", "vsadmin", Some("svm1")).await);
    scene.kms.add_fault(FaultRule::always(Fault::Hang));
    let (status, headers, body) = node.call("POST", "/security/aws-kms", Some(enable_body("svm2", &scene.kms, &scene.key))).await;
    assert_eq!(status, 202, "{body}");
    let uuid = headers["location"].to_str().unwrap().rsplit('/').next().unwrap().to_owned();
    let this_node = node.get("/cluster/nodes").await["records"][0]["uuid"].as_str().unwrap().to_owned();
    let of = |uuid: &str| {
        let config = format!("/security/aws-kms/{uuid}");
        [
            ("GET", config.clone(), None),
            ("PATCH", config.clone(), Some(json!({ "port": 1 }))),
            ("DELETE", config.clone(), None),
            ("POST", format!("{config}/restore"), None),
            ("POST", format!("{config}/rekey-internal"), None),
            ("POST", format!("{config}/rekey-external"), Some(json!({ "key_id": "k" }))),
            ("GET", format!("/security/key-stores/{uuid}"), None),
            ("GET", format!("/security/key-managers/{uuid}/keys/{this_node}/key-ids"), None),
        ]
    };
    for ((method, path, body), (_, nowhere, _)) in of(&uuid).into_iter().zip(of(NOWHERE)) {
        let (answer, missing) = (other.call(method, &path, body.clone()).await, other.call(method, &nowhere, body).await);
        assert_eq!((answer.status, answer.body), (404, missing.body), "{method} {path}");
    }
    // To its own it is there, and being enabled; and it is for that one to end it.
    assert_eq!(own.call("POST", &format!("/security/aws-kms/{uuid}/restore"), None).await.code(), "65539436");
    // That others are at work is said; not how many.
    let full = other.call("PATCH", &scene.config, Some(json!({ "polling_period": 61 }))).await;
    assert_eq!((full.status, full.code()), (429, "7"), "{}", full.body);
    assert!(!full.body["error"]["message"].as_str().unwrap().contains(|one: char| one.is_ascii_digit()), "{}", full.body);
    assert_eq!(own.call("DELETE", &format!("/security/aws-kms/{uuid}"), None).await.status, 202);
}

/// With `X-Dot-SVM-Name` or `X-Dot-SVM-UUID` a call is about that SVM: it sees what an administrator of it would see.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_through_an_svm_sees_that_svm_alone() {
    let walk = walk().await;
    let (node, admin, tenant) = (&walk.scene.node, &walk.admin, &walk.tenant);
    let through = |name: &str, value: &str| admin.clone().with(name, value);
    let before = walk.all_of_other().await;
    for by in [through("x-dot-svm-name", "SVM1"), through("x-dot-svm-uuid", &walk.own[""][0])] {
        for (method, path, _) in TABLE.iter().filter(|(_, path, _)| !path.contains("sessions")) {
            let what = format!("{method} {path}");
            if !path.contains("{}") {
                // Lists, and what is the cluster's.
                if *method == "GET" && !["/api/security/ekmip/settings", "/api/security/ekmip/ca"].contains(path) {
                    let path = path_to(path, &walk.own);
                    let (answer, as_tenant) = (by.call("GET", &path, None).await, tenant.call("GET", &path, None).await);
                    assert_eq!((answer.status, answer.body), (200, as_tenant.body), "{what}");
                }
                continue;
            }
            if *path == "/api/cluster/nodes/{}" {
                continue;
            }
            if *method == "GET" && *path != "/api/security/key-managers/{}" {
                assert_eq!(by.call("GET", &path_to(path, &walk.own), None).await.status, 200, "{what}");
            }
            let body = |objects: &Objects| match (*method, *path) {
                ("PATCH", "/api/svm/svms/{}" | "/api/security/accounts/{}/{}") => Some(json!({ "comment": "x" })),
                ("PATCH", "/api/security/key-managers/{}") => Some(json!({ "onboard": { "synchronize": true, "existing_passphrase": "x" } })),
                ("DELETE", _) => None,
                _ => good_body(method, path, objects),
            };
            let answer = by.call(method, &path_to(path, &walk.other), body(&walk.other)).await;
            let missing = by.call(method, &path_to(path, &walk.nowhere), body(&walk.nowhere)).await;
            assert_eq!(answer.status, 404, "{what}: {}", answer.body);
            if *path != "/api/security/key-managers/{}" {
                assert_eq!(letter(&answer, &missing, &walk.other, &walk.nowhere), '?', "{what}");
            }
        }
        // By a filter, and by many records.
        let answer = by.call("PATCH", "/security/aws-kms?region=*&return_timeout=30", Some(json!({ "polling_period": 62 }))).await;
        assert_eq!((answer.status, answer.body["num_records"].as_u64()), (200, Some(1)), "{}", answer.body);
        let records = json!({ "records": [{ "uuid": walk.other["/api/security/aws-kms"][0] }] });
        assert_eq!(by.call("DELETE", "/security/aws-kms", Some(records)).await.status, 404);
        // What is made is that SVM's, said twice or once.
        for svm in [json!({ "svm": { "name": "svm1" } }), json!({})] {
            let mut body = svm;
            body["common_name"] = json!("through");
            let made = by.call("POST", "/security/ekmip/clients?return_records=true", Some(body)).await;
            assert_eq!((made.status, &made.body["records"][0]["svm"]["name"]), (201, &json!("svm1")), "{}", made.body);
        }
        for (path, body) in made_for(json!({ "name": "svm2" })).into_iter().chain(made_for(json!({ "uuid": walk.other[""][0] }))) {
            let answer = by.call("POST", path, Some(body)).await;
            assert_eq!((answer.status, answer.code()), (400, "2621706"), "{path}: {}", answer.body);
        }
    }
    assert_eq!(walk.all_of_other().await, before, "nothing of the other SVM has changed");
    // One that is not there; to an SVM's administrator, others are not there either.
    let body = |answer: Answer, name: &str| answer.body.to_string().replace(name, "NAME");
    for (method, path, given) in [
        ("GET", "/security/aws-kms", None),
        ("GET", "/cluster", None),
        ("POST", "/security/ekmip/clients", Some(json!({ "common_name": "x", "csr": "-----BEGIN " }))),
    ] {
        for (name, value) in [("x-dot-svm-name", "svm9"), ("x-dot-svm-uuid", NOWHERE)] {
            let answer = through(name, value).call(method, path, given.clone()).await;
            assert_eq!((answer.status, answer.code()), (400, "2621462"), "{method} {path}: {}", answer.body);
            let other = if value == "svm9" { "svm2" } else { walk.other[""][0].as_str() };
            let (there, nowhere) = (
                tenant.clone().with(name, other).call(method, path, given.clone()).await,
                tenant.clone().with(name, value).call(method, path, given.clone()).await,
            );
            assert_eq!((there.status, there.code()), (400, "2621462"), "{method} {path}: {}", there.body);
            assert_eq!(body(there, other), body(nowhere, value), "{method} {path}");
        }
    }
    let both = through("x-dot-svm-name", "svm1").with("x-dot-svm-uuid", &walk.other[""][0]);
    assert_eq!(both.call("GET", "/security/aws-kms", None).await.code(), "2621706");
    assert_eq!(through("x-dot-svm-uuid", "x").call("GET", "/security/aws-kms", None).await.code(), "262247");
    assert_eq!(tenant.clone().with("x-dot-svm-name", "svm1").call("GET", "/security/aws-kms", None).await.body["num_records"], 1);
    // The admin SVM is the cluster.
    let cluster = node.get("/cluster").await["name"].as_str().unwrap().to_owned();
    assert_eq!(through("x-dot-svm-name", &cluster).call("GET", "/security/aws-kms", None).await.body["num_records"], 2);
}

/// Further ways to name what belongs to another SVM, or to the cluster, than in the path of a call.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_another_svm_has_is_nothing_however_it_is_named() {
    let walk = walk().await;
    let of = |objects: &Objects, name: &str| {
        let (svm, own) = (objects[""][0].as_str(), walk.own[""][0].as_str());
        let id = |key: &str| objects[key][0].clone();
        let mut calls = Vec::new();
        for named in [json!({ "name": name }), json!({ "uuid": svm }), json!({ "name": "svm1", "uuid": svm }), json!({ "name": name, "uuid": own })] {
            calls.extend(made_for(named).into_iter().map(|(path, body)| ("POST", path.to_owned(), Some(body))));
        }
        let by_ca = |ca: String| Some(json!({ "type": "client", "common_name": "x", "algorithm": "ec", "keystead": { "ca": ca } }));
        calls.push(("POST", "/security/certificates".into(), by_ca(id("/api/security/certificates"))));
        calls.push(("POST", "/security/certificates".into(), by_ca(format!("ca of {name}"))));
        for (collection, key) in [("/security/aws-kms", "/api/security/aws-kms"), ("/security/ekmip/clients", "/api/security/ekmip/clients")] {
            calls.push(("DELETE", collection.into(), Some(json!({ "records": [{ "uuid": id(key) }] }))));
            let link = json!({ "records": [{ "_links": { "self": { "href": format!("/api{collection}/{}", id(key)) } } }] });
            calls.push(("DELETE", format!("{collection}?continue_on_failure=true"), Some(link)));
            calls.push(("DELETE", format!("{collection}?svm.name={name}"), None));
            calls.push(("GET", format!("{collection}?svm.uuid={svm}&fields=*"), None));
            calls.push(("GET", format!("{collection}?query={svm}&query_fields=svm.uuid,svm.name"), None));
            calls.push(("GET", format!("{collection}?job_results_uuid={}", id("/api/cluster/jobs")), None));
        }
        for filtered in ["/cluster/jobs", "/support/ems/events", "/security/audit/messages", "/security/key-stores", "/security/certificates"] {
            calls.push(("GET", format!("{filtered}?svm.name={name}&return_records=false"), None));
        }
        calls.push(("GET", format!("/security/accounts?owner.name={name}"), None));
        calls.push(("GET", format!("/security/roles?owner.uuid={svm}"), None));
        for node in [walk.own["nodes"][0].as_str(), NOWHERE] {
            calls.push(("GET", format!("/security/key-managers/{}/keys/{node}/key-ids", id("/api/security/aws-kms")), None));
        }
        calls
    };
    let same = async |there: (&str, String, Option<Value>), nowhere: (&str, String, Option<Value>), name: &str| {
        let what = format!("{} {} {:?}", there.0, there.1, there.2);
        let (begins, answer) = (walk.newest().await, walk.tenant.call(there.0, &there.1, there.2).await);
        let told = walk.told(begins, &walk.other).await.replace(name, "NAME");
        let (begins, missing) = (walk.newest().await, walk.tenant.call(nowhere.0, &nowhere.1, nowhere.2).await);
        assert_eq!(answer.status, missing.status, "{what}: {} {}", answer.body, missing.body);
        let text = |answer: &Answer, objects: &Objects, name: &str| without(&answer.body, objects).replace(name, "NAME");
        assert_eq!(text(&answer, &walk.other, name), text(&missing, &walk.nowhere, "svm9"), "{what}");
        assert_eq!(told, walk.told(begins, &walk.nowhere).await.replace("svm9", "NAME"), "{what}");
    };
    let before = walk.all_of_other().await;
    for (there, nowhere) in of(&walk.other, "svm2").into_iter().zip(of(&walk.nowhere, "svm9")) {
        same(there, nowhere, "svm2").await;
    }
    // The same of what is the cluster's.
    let onboard = walk.own["onboard"][0].as_str();
    for node in [walk.own["nodes"][0].as_str(), NOWHERE] {
        let of = |manager: &str| format!("/security/key-managers/{manager}/keys/{node}/key-ids");
        let (answer, missing) = (walk.tenant.call("GET", &of(onboard), None).await, walk.tenant.call("GET", &of(NOWHERE), None).await);
        assert_eq!((answer.status, answer.body), (404, missing.body), "the onboard key manager, and the node {node}");
    }
    assert_eq!(walk.all_of_other().await, before, "nothing of the other SVM has changed");
}

/// The calls that make something for an SVM, with bodies that name it.
fn made_for(svm: Value) -> Vec<(&'static str, Value)> {
    let named = |mut body: Value, at: &str| {
        body[at] = svm.clone();
        body
    };
    let enable = json!({ "region": "us-east-1", "key_id": "k", "access_key_id": common::ACCESS_KEY_ID, "secret_access_key": common::SECRET });
    vec![
        ("/security/aws-kms", named(enable, "svm")),
        ("/security/certificates", named(json!({ "type": "client", "common_name": "x" }), "svm")),
        ("/security/ekmip/clients", named(json!({ "common_name": "x", "csr": "-----BEGIN " }), "svm")),
        ("/security/ekmip/client-cas", named(json!({ "certificate": "-----BEGIN " }), "svm")),
        ("/security/accounts", named(json!({ "name": "somebody", "password": PASSWORD }), "owner")),
        ("/security/key-managers", named(json!({ "onboard": { "passphrase": "x".repeat(32) } }), "svm")),
    ]
}

impl Walk {
    async fn letters(&self, method: &str, path: &'static str) -> String {
        let mut letters = String::new();
        for (caller, objects, is_other) in [
            (&self.nobody, &self.own, false),
            (&self.readonly, &self.own, false),
            (&self.tenant, &self.own, false),
            (&self.tenant, &self.other, true),
            (&self.admin, &self.own, false),
        ] {
            // What would change something brings a body that is refused; for what must not even be found, it is one that would do.
            let body = |objects: &Objects| if is_other { good_body(method, path, objects) } else { bad_body(method) };
            let begins = self.newest().await;
            let answer = caller.call(method, &path_to(path, objects), body(objects)).await;
            let told = self.told(begins, objects).await;
            let begins = self.newest().await;
            let missing = caller.call(method, &path_to(path, &self.nowhere), body(&self.nowhere)).await;
            letters.push(letter(&answer, &missing, objects, &self.nowhere));
            if is_other {
                self.shows_nothing_of_the_other(method, path, &answer);
                assert_eq!(told, self.told(begins, &self.nowhere).await, "{method} {path}: what is recorded");
            }
        }
        letters
    }

    /// The number of the last record of the audit log.
    async fn newest(&self) -> u64 {
        self.scene.node.get("/security/audit/messages?max_records=1").await["records"][0]["index"].as_u64().unwrap()
    }

    /// What the SVM's administrator reads of its calls since then, without what they have named.
    async fn told(&self, begins: u64, objects: &Objects) -> String {
        let path = format!("/security/audit/messages?user=tenant-1&input=!login&index=>{begins}&fields=input,state,message,scope,svm,keystead");
        let mut records = self.tenant.call("GET", &path, None).await.body["records"].clone();
        for record in records.as_array_mut().unwrap() {
            for own in ["index", "timestamp"] {
                record[own] = Value::Null;
            }
            for own in ["duration", "port", "since", "until", "count", "previous_hash"] {
                record["keystead"][own] = Value::Null;
            }
        }
        without(&records, objects).replace(&objects["/api/security/accounts"][1], "NAME")
    }

    fn shows_nothing_of_the_other(&self, method: &str, path: &str, answer: &Answer) {
        if answer.status >= 400 {
            // What the request itself has named stands in it, perhaps; it is the same as for what does not exist.
            return;
        }
        let mut shown = answer.body.clone();
        if path == "/api/security/audit/messages" {
            // Of its own calls it reads what it has named in them itself.
            shown["records"].as_array_mut().unwrap().retain(|record| record["user"] != "tenant-1");
        }
        let text = shown.to_string();
        for (what, id) in
            self.other.iter().filter(|(what, _)| **what != "nodes" && **what != "onboard").flat_map(|(what, ids)| ids.iter().map(move |id| (what, id)))
        {
            assert!(id.len() < 8 || !text.contains(id.as_str()), "{method} {path} shows {what} of another SVM: {text}");
        }
        assert!(!text.contains("svm2"), "{method} {path}: {text}");
    }

    async fn all_of_other(&self) -> Vec<Value> {
        let mut all = Vec::new();
        for path in
            TABLE.iter().filter(|(method, path, letters)| *method == "GET" && letters.contains('?') && !path.contains("sessions")).map(|(_, path, _)| path)
        {
            let path = path_to(path, &self.other);
            all.push(self.scene.node.get(&path).await);
        }
        all
    }
}

fn letter(answer: &Answer, missing: &Answer, objects: &Objects, nowhere: &Objects) -> char {
    // The headers count as well, but for the moment and the length.
    let plain = |answer: &Answer, objects: &Objects| {
        let headers = answer.headers.iter().filter(|(name, _)| *name != "date" && *name != "content-length");
        let mut headers: Vec<String> = headers.map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        headers.sort();
        without(&json!([answer.body, headers]), objects)
    };
    match answer.status {
        401 => '-',
        403 if answer.code() == "6"
            && missing.status == 403
            && plain(answer, objects) == plain(missing, nowhere)
            && !answer.body.to_string().contains("does not allow it") =>
        {
            'x'
        }
        400 if ["262179", "262198"].contains(&answer.code()) => 'o',
        200..300 => 'o',
        status if status == missing.status && plain(answer, objects) == plain(missing, nowhere) => '?',
        _ => panic!("{} {}, and for what does not exist {} {}", answer.status, answer.body, missing.status, missing.body),
    }
}

/// Without what a request itself has named.
fn without(told: &Value, objects: &Objects) -> String {
    objects.values().flatten().filter(|id| id.len() > 8).fold(told.to_string().replace("%2D", "-"), |text, id| text.replace(id, "ID"))
}

fn bad_body(method: &str) -> Option<Value> {
    (method != "GET").then(|| json!({ "nonsense": 1 }))
}

/// A body that the call would take.
fn good_body(method: &str, path: &str, objects: &Objects) -> Option<Value> {
    let svm = || json!({ "uuid": objects[""][0] });
    match (method, path) {
        ("GET" | "DELETE", _) => None,
        ("PATCH", "/api/cluster/jobs/{}") => Some(json!({ "action": "cancel" })),
        ("POST", "/api/security/aws-kms" | "/api/security/ekmip/preflight") => {
            let mut body = json!({ "region": "us-east-1", "key_id": "k", "access_key_id": common::ACCESS_KEY_ID, "secret_access_key": common::SECRET });
            body["svm"] = svm();
            Some(body)
        }
        ("PATCH", "/api/security/aws-kms/{}") => Some(json!({ "port": 1 })),
        ("POST", "/api/security/aws-kms/{}/rekey-external") => Some(json!({ "key_id": "k" })),
        ("POST", "/api/security/aws-kms/{}/restore" | "/api/security/aws-kms/{}/rekey-internal") => None,
        ("POST", "/api/security/certificates") => Some(json!({ "svm": svm(), "type": "client", "common_name": "x" })),
        ("POST", "/api/security/certificates/{}/sign") => Some(json!({ "signing_request": "-----BEGIN CERTIFICATE REQUEST-----" })),
        ("POST", "/api/security/key-managers/{}/migrate") => Some(json!({ "uuid": objects["onboard"][0] })),
        ("POST", "/api/security/ekmip/clients") => Some(json!({ "svm": svm(), "common_name": "x", "csr": "x" })),
        ("POST", "/api/security/authentication/password") => Some(json!({ "name": objects["/api/security/accounts"][1], "password": "another password" })),
        // Calls of no object, or that the role may not make.
        _ => Some(json!({ "nonsense": 1 })),
    }
}

/// The path with the objects of an SVM in it.
fn path_to(path: &str, objects: &Objects) -> String {
    let of_path = objects.keys().filter(|key| !key.is_empty() && path.starts_with(*key)).max_by_key(|key| key.len());
    let segments = match path {
        "/api/security/key-managers/{}/keys/{}/key-ids" => vec![objects["/api/security/aws-kms"][0].clone(), objects["nodes"][0].clone()],
        "/api/security/key-managers/{}/migrate" => objects["/api/security/aws-kms"].clone(),
        "/api/security/key-managers/{}" => objects["onboard"].clone(),
        "/api/cluster/nodes/{}" => objects["nodes"].clone(),
        _ => of_path.map(|key| objects[key].clone()).unwrap_or_default(),
    };
    let path = segments.iter().fold(path.to_owned(), |path, segment| path.replacen("{}", segment, 1));
    path.strip_prefix("/api").unwrap().to_owned()
}

async fn walk() -> Walk {
    let scene = scene().await;
    let node = &scene.node;
    node.svm("svm2").await;
    let config = enabled(node, &scene.kms, &scene.key, "svm2").await;
    Credentials::issue(node, "svm2").await;
    let passphrase = json!({ "onboard": { "passphrase": "the first cluster passphrase, long enough" } });
    let answer = node.ask("POST", "/security/key-managers?return_timeout=30", Some(passphrase)).await;
    assert_eq!(answer.0, 201, "{answer:?}");
    let readonly = node.account("reader", "readonly", None).await;
    let tenant = node.account("tenant-1", "vsadmin", Some("svm1")).await;
    let tenant2 = node.account("tenant-2", "vsadmin", Some("svm2")).await;
    let own_config = scene.config.clone();
    let mut own = objects(&scene, "svm1", &own_config, "tenant-1").await;
    let mut other = objects(&scene, "svm2", &config, "tenant-2").await;
    // Last, since sessions and jobs end with time, and some has passed.
    for (caller, objects, config) in [(&tenant, &mut own, &own_config), (&tenant2, &mut other, &config)] {
        let (status, answer) = node.ask("PATCH", config, Some(json!({ "polling_period": 61 }))).await;
        assert_eq!(status, 202, "{answer}");
        let job = answer["job"]["uuid"].as_str().unwrap().to_owned();
        eventually("the end of the job", async || (node.get(&format!("/cluster/jobs/{job}")).await["state"] == "success").then_some(())).await;
        objects.insert("/api/cluster/jobs", vec![job]);
        let session = caller.call("POST", "/security/ekmip/sessions", None).await;
        assert_eq!(session.status, 201, "{}", session.body);
        objects.insert("/api/security/ekmip/sessions", vec![session.body["records"][0]["uuid"].as_str().unwrap().to_owned()]);
    }
    let mut nowhere: Objects = own
        .iter()
        .map(|(key, ids)| (*key, ids.iter().map(|id| if id.parse::<u64>().is_ok() { "999999".into() } else { NOWHERE.to_owned() }).collect()))
        .collect();
    // Some are the cluster's, and named beside what does not exist.
    for shared in ["nodes", "onboard"] {
        nowhere.insert(shared, own[shared].clone());
    }
    nowhere.insert("/api/security/accounts", vec![NOWHERE.into(), "tenant-9".into()]);
    nowhere.insert("/api/security/roles", vec![NOWHERE.into(), "vsadmin".into()]);
    nowhere.insert("/api/support/ems/events", vec![own["/api/support/ems/events"][0].clone(), "999999".into()]);
    let (nobody, admin) = (node.nobody(), node.caller("admin", PASSWORD));
    Walk { nobody, readonly, tenant, admin, own, other, nowhere, scene }
}

/// One object of each kind that belongs to an SVM.
async fn objects(scene: &Scene, svm: &str, config: &str, account: &str) -> Objects {
    let node = &scene.node;
    let uuid = scene.svm_uuid(svm).await;
    let made = async |path: &str, body: Value| {
        let (status, body) = node.ask("POST", &format!("{path}?return_records=true"), Some(body)).await;
        assert_eq!(status, 201, "{body}");
        body["records"][0]["uuid"].as_str().unwrap().to_owned()
    };
    let first = async |path: String| {
        eventually(&path, async || {
            let found = node.get(&path).await["records"][0].clone();
            (!found.is_null()).then_some(found)
        })
        .await
    };
    let certificate =
        made("/security/certificates", json!({ "type": "root_ca", "common_name": format!("ca of {svm}"), "svm": { "name": svm }, "algorithm": "ec" })).await;
    let ca = node.get(&format!("/security/certificates/{certificate}?fields=public_certificate")).await["public_certificate"].clone();
    let client_ca = made("/security/ekmip/client-cas", json!({ "svm": { "name": svm }, "certificate": ca })).await;
    // A client whose certificate ends soon is an event of its SVM.
    made("/security/ekmip/clients", json!({ "svm": { "name": svm }, "common_name": "soon", "expiry_time": "P2D" })).await;
    let event = eventually("an event of the SVM", async || {
        scene.clock.advance(Duration::from_secs(60 * 60));
        let found = node.get(&format!("/support/ems/events?svm.name={svm}&fields=node,index")).await["records"][0].clone();
        (!found.is_null()).then_some(found)
    })
    .await;
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let store = first(format!("/security/key-stores?svm.name={svm}&fields=*")).await;
    Objects::from([
        ("", vec![uuid.clone()]),
        ("nodes", vec![text(&first("/cluster/nodes".into()).await["uuid"])]),
        ("onboard", vec![text(&first("/security/key-managers".into()).await["uuid"])]),
        ("/api/svm/svms", vec![uuid.clone()]),
        ("/api/security/aws-kms", vec![config.rsplit('/').next().unwrap().to_owned()]),
        ("/api/security/certificates", vec![certificate]),
        ("/api/security/key-stores", vec![text(&store["uuid"])]),
        ("/api/security/ekmip/clients", vec![text(&first(format!("/security/ekmip/clients?svm.name={svm}")).await["uuid"])]),
        ("/api/security/ekmip/client-cas", vec![client_ca]),
        ("/api/security/accounts", vec![uuid.clone(), account.to_owned()]),
        ("/api/security/roles", vec![uuid, "vsadmin".into()]),
        ("/api/support/ems/events", vec![text(&event["node"]["name"]), event["index"].to_string()]),
    ])
}

//! Calls on many records: arrays of records as one job, PATCH and DELETE by query.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use crate::common;

use common::{ACCESS_KEY_ID, Node, SECRET, code, enable_body, eventually, stand_in, toml_for};
use keystead::serve::Hooks;
use keystead_testkit::{Fault, FaultRule, KeyState, KmsStandIn, NewKey};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

async fn node() -> (Node, KmsStandIn, String) {
    let (kms, key) = stand_in().await;
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let node = Node::start_in(folder.clone(), &toml_for(&kms, folder.path()), Hooks::default()).await.unwrap();
    (node, kms, key)
}

fn svms(names: &[&str]) -> Value {
    json!({ "records": names.iter().map(|name| json!({ "name": name })).collect::<Vec<_>>() })
}

fn names(collection: &Value) -> Vec<&str> {
    collection["records"].as_array().unwrap().iter().map(|record| record["name"].as_str().unwrap()).collect()
}

/// The job that stands for all, when it has ended; and what came of the records.
async fn ended(node: &Node, answer: &Value) -> (Value, Value) {
    let path = answer["job"]["_links"]["self"]["href"].as_str().unwrap_or_else(|| panic!("a job: {answer}")).strip_prefix("/api").unwrap().to_owned();
    let job = eventually("the job ends", async || {
        let job = node.get(&format!("{path}?fields=**")).await;
        ["success", "failure"].contains(&job["state"].as_str().unwrap()).then_some(job)
    })
    .await;
    let results = answer["job"]["_links"]["results"]["href"].as_str().unwrap().strip_prefix("/api").unwrap();
    (job, node.get(results).await)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_array_of_records_is_one_job() {
    let (node, kms, key) = node().await;
    let (status, answer) = node.ask("POST", "/svm/svms", Some(svms(&["a", "b", "c"]))).await;
    assert_eq!(status, 202, "{answer}");
    let (job, results) = ended(&node, &answer).await;
    assert_eq!((job["state"].as_str(), job["description"].as_str()), (Some("success"), Some("POST /api/svm/svms")));
    assert_eq!((names(&results), results["num_records"].as_u64()), (vec!["a", "b", "c"], Some(3)), "in the order of the call");

    // Configurations go on for a while: the job waits for theirs.
    let bodies: Vec<Value> = ["a", "b", "c"].iter().map(|svm| enable_body(svm, &kms, &key)).collect();
    let (status, answer) = node.ask("POST", "/security/aws-kms", Some(json!({ "records": bodies }))).await;
    assert_eq!(status, 202, "{answer}");
    let (job, results) = ended(&node, &answer).await;
    assert_eq!((job["state"].as_str(), job["message"].as_str()), (Some("success"), Some("3 records are done")));
    assert_eq!(results["records"].as_array().unwrap().iter().map(|record| record["svm"]["name"].as_str().unwrap()).collect::<Vec<_>>(), ["a", "b", "c"]);
    assert!(!results.to_string().contains("secret_access_key"));

    // A PATCH and a DELETE name the records by their identifiers.
    let uuids: Vec<&str> = results["records"].as_array().unwrap().iter().map(|record| record["uuid"].as_str().unwrap()).collect();
    let changes: Vec<Value> = uuids.iter().map(|uuid| json!({ "uuid": uuid, "polling_period": 7 })).collect();
    let (status, answer) = node.ask("PATCH", "/security/aws-kms?return_timeout=30", Some(json!({ "records": changes }))).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(node.get("/security/aws-kms?polling_period=7").await["num_records"], 3);
    let (status, answer) =
        node.ask("DELETE", "/security/aws-kms?return_timeout=30", Some(json!({ "records": [{ "uuid": uuids[0] }, { "uuid": uuids[1] }] }))).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(node.get("/security/aws-kms").await["num_records"], 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_by_query_at_the_same_time_do_not_fail_each_other() {
    let (node, ..) = node().await;
    let wanted = 60;
    for _ in 0..2 {
        let all: Vec<String> = (0..wanted).map(|n| format!("many{n:02}")).collect();
        let (status, answer) = node.ask("POST", "/svm/svms?return_timeout=60", Some(svms(&all.iter().map(String::as_str).collect::<Vec<_>>()))).await;
        assert_eq!(status, 201, "{answer}");
        let delete = || node.ask("DELETE", "/svm/svms?name=many*&return_timeout=30", None);
        let answers = tokio::join!(delete(), delete(), delete());
        let counts = [answers.0, answers.1, answers.2].map(|(status, answer)| {
            assert_eq!(status, 200, "what another has deleted is no failure: {answer}");
            answer["num_records"].as_u64().unwrap()
        });
        assert_eq!(counts.iter().sum::<u64>(), wanted, "each was deleted once: {counts:?}");
    }
    assert_eq!(node.get("/svm/svms?name=many*").await["num_records"], 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn configurations_deleted_by_two_calls_are_no_failure() {
    let (node, kms, key) = node().await;
    let names: Vec<String> = (0..12).map(|n| format!("many{n:02}")).collect();
    let (status, answer) = node.ask("POST", "/svm/svms?return_timeout=60", Some(svms(&names.iter().map(String::as_str).collect::<Vec<_>>()))).await;
    assert_eq!(status, 201, "{answer}");
    for _ in 0..3 {
        let bodies: Vec<Value> = names.iter().map(|svm| enable_body(svm, &kms, &key)).collect();
        let (status, answer) = node.ask("POST", "/security/aws-kms?return_timeout=60", Some(json!({ "records": bodies }))).await;
        assert_eq!(status, 201, "{answer}");
        let delete = || node.ask("DELETE", "/security/aws-kms?svm.name=many*&return_timeout=60", None);
        let answers = tokio::join!(delete(), delete(), delete());
        let counts = [answers.0, answers.1, answers.2].map(|(status, answer)| {
            assert_eq!(status, 200, "what another has deleted is no failure: {answer}");
            answer["num_records"].as_u64().unwrap()
        });
        assert_eq!(counts.iter().sum::<u64>(), 12, "each was deleted once: {counts:?}");
        assert_eq!(node.get("/security/aws-kms").await["num_records"], 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_fails_is_named() {
    let (node, kms, key) = node().await;
    // Refused when it is looked at: what comes behind it is not done, unless the caller wants that.
    let (_, answer) = node.ask("POST", "/svm/svms", Some(svms(&["a", "no good", "c"]))).await;
    let (job, results) = ended(&node, &answer).await;
    assert_eq!(
        (job["state"].as_str(), job["error"]["code"].as_str(), job["error"]["target"].as_str()),
        (Some("failure"), Some("2621471"), Some("records[1].name"))
    );
    assert_eq!((names(&results), results["errors"][0]["target"].as_str()), (vec!["a"], Some("records[1].name")));
    assert_eq!(names(&node.get("/svm/svms").await), ["a"]);
    let (_, answer) = node.ask("POST", "/svm/svms?continue_on_failure=true", Some(svms(&["a", "b", "c"]))).await;
    let (job, results) = ended(&node, &answer).await;
    assert_eq!((job["state"].as_str(), results["errors"].as_array().unwrap().len()), (Some("failure"), 1));
    assert_eq!((names(&results), results["errors"][0]["code"].as_str()), (vec!["b", "c"], Some("1")));

    // Refused by its job: the others are there.
    let mut bad = enable_body("b", &kms, &key);
    bad["key_id"] = json!("00000000-0000-0000-0000-00000000dead");
    let bodies = json!({ "records": [enable_body("a", &kms, &key), bad, enable_body("c", &kms, &key)] });
    let (_, answer) = node.ask("POST", "/security/aws-kms", Some(bodies)).await;
    let (job, results) = ended(&node, &answer).await;
    assert_eq!((job["state"].as_str(), results["num_records"].as_u64()), (Some("failure"), Some(2)));
    assert!(job["message"].as_str().unwrap().starts_with("1 of 3 records have failed"), "{job}");
    assert_eq!(results["errors"][0]["code"], job["error"]["code"]);
    assert_eq!(node.get("/security/aws-kms").await["num_records"], 2);

    // One after the other: the first that fails ends it.
    for name in ["d", "e", "f"] {
        node.svm(name).await;
    }
    let mut bodies: Vec<Value> = ["d", "e", "f"].iter().map(|svm| enable_body(svm, &kms, &key)).collect();
    bodies[0]["key_id"] = json!("00000000-0000-0000-0000-00000000dead");
    let answer = node.ask("POST", "/security/aws-kms?serial_records=true", Some(json!({ "records": bodies }))).await;
    assert!(answer.0 >= 400 && answer.1["error"]["target"].as_str().is_some_and(|target| target.starts_with("records[0]")), "{answer:?}");
    assert_eq!(node.get("/cluster/jobs?svm.name=e|f&description=*aws-kms").await["num_records"], 0, "the others were not begun");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn arrays_that_are_none_are_refused() {
    let (node, _, _) = node().await;
    for (body, wanted) in [
        (json!({ "records": {} }), "262254"),
        (json!({ "records": [] }), "262245"),
        (json!({ "records": [{ "name": "a" }], "name": "b" }), "262179"),
        (json!({ "records": ["a"] }), "262185"),
        (json!({ "records": [{ "nope": "a" }] }), "262179"),
    ] {
        let answer = node.ask("POST", "/svm/svms", Some(body.clone())).await;
        assert_eq!((answer.0, code(&answer)), (400, wanted.to_owned()), "{body}");
    }
    let answer = node.ask("PATCH", "/svm/svms", Some(json!({ "records": [{ "comment": "x" }] }))).await;
    assert_eq!((answer.0, code(&answer)), (400, "262212".to_owned()));
    let answer = node.ask("PATCH", "/svm/svms?name=a", Some(json!({ "records": [{ "uuid": "x" }] }))).await;
    assert_eq!((answer.0, code(&answer)), (400, "262186".to_owned()));
    assert_eq!(answer.1["error"]["target"], "name");
    let answer = node.ask("POST", "/svm/svms", Some(json!({ "records": [1] }))).await;
    assert_eq!(answer.1["error"]["target"], "records[0]", "{answer:?}");
    let answer = node.ask("POST", "/security/ekmip/sessions", Some(json!({ "records": [{}] }))).await;
    assert_eq!((answer.0, code(&answer)), (400, "262179".to_owned()), "the cookies of each would be lost");
    assert_eq!(node.ask("GET", "/svm/svms?job_results_uuid=01234567-0000-0000-0000-000000000000", None).await.0, 404);
    assert_eq!(node.get("/svm/svms").await["num_records"], 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_passes_a_filter_is_changed_and_deleted() {
    let (node, kms, key) = node().await;
    for n in 0..5 {
        node.svm(&format!("svm{n}")).await;
        let (status, body) = node.ask("POST", "/security/aws-kms?return_timeout=60", Some(enable_body(&format!("svm{n}"), &kms, &key))).await;
        assert_eq!(status, 201, "{body}");
    }
    let (status, answer) = node.ask("DELETE", "/svm/svms?nmae=a&ignore_unknown_fields=true", None).await;
    assert_eq!(
        (status, answer["error"]["code"].as_str(), answer["error"]["target"].as_str()),
        (400, Some("262179"), Some("nmae")),
        "a filter with a slip is not no filter"
    );
    for (method, path) in [("PATCH", "/security/aws-kms"), ("DELETE", "/security/aws-kms"), ("DELETE", "/svm/svms?return_timeout=5")] {
        let answer = node.ask(method, path, Some(json!({}))).await;
        assert_eq!((answer.0, code(&answer)), (400, "262177".to_owned()), "a whole collection is not changed by mistake: {method} {path}");
    }
    let (status, answer) = node.ask("PATCH", "/security/aws-kms?svm.name=svm1|svm3&return_timeout=30", Some(json!({ "polling_period": 9 }))).await;
    assert_eq!((status, answer["num_records"].as_u64(), answer["jobs"].as_array().unwrap().len()), (200, Some(2), 2), "{answer}");
    assert_eq!(node.get("/security/aws-kms?polling_period=9&svm.name=svm1|svm3").await["num_records"], 2);
    assert_eq!(node.get("/security/aws-kms?polling_period=!9").await["num_records"], 3);
    // Page after page, as the link leads.
    let (mut path, mut deleted) = ("/security/aws-kms?svm.name=!svm0&max_records=3&return_timeout=30".to_owned(), 0);
    loop {
        let (status, answer) = node.ask("DELETE", &path, Some(json!({}))).await;
        assert_eq!(status, 200, "{answer}");
        deleted += answer["num_records"].as_u64().unwrap();
        let Some(next) = answer["_links"]["next"]["href"].as_str() else { break };
        path = next.strip_prefix("/api").unwrap().to_owned();
    }
    assert_eq!((deleted, node.get("/security/aws-kms").await["num_records"].as_u64()), (4, Some(1)));
    // One that cannot be changed.
    let answer = node.ask("DELETE", "/svm/svms?name=svm*&order_by=name&serial_records=true", None).await;
    assert_eq!(answer.0, 409, "svm0 has a key manager: {answer:?}");
    assert_eq!(node.get("/svm/svms?name=svm*").await["num_records"], 5, "one after the other, nothing comes behind it");
    let (_, answer) = node.ask("DELETE", "/svm/svms?name=svm*&continue_on_failure=true", None).await;
    assert_eq!((answer["num_records"].as_u64(), answer["errors"].as_array().unwrap().len()), (Some(4), 1), "{answer}");
    assert_eq!(names(&node.get("/svm/svms").await), ["svm0"]);
    for (body, wanted) in [(json!({ "comment": 1 }), "262247"), (json!({ "uuid": "x" }), "262203"), (json!({}), "65537541")] {
        let answer = node.ask("PATCH", "/svm/svms?name=nobody", Some(body)).await;
        assert_eq!((answer.0, code(&answer)), (400, wanted.to_owned()), "also where nothing passes the filter");
    }
    let answer = node.ask("PATCH", "/svm/svms?nope=1", Some(json!({ "comment": "x" }))).await;
    assert_eq!((answer.0, code(&answer)), (400, "262179".to_owned()));
    assert_eq!(node.ask("DELETE", "/security/ekmip/settings?cluster.name=x", None).await.0, 405, "no collection");
}

/// The jobs that an error names.
fn jobs_of(answer: &Value) -> Vec<String> {
    let arguments = answer["error"]["arguments"].as_array().unwrap_or_else(|| panic!("the jobs are named: {answer}"));
    assert!(arguments.iter().all(|argument| argument["code"] == "job"), "{answer}");
    arguments.iter().map(|argument| argument["message"].as_str().unwrap().to_owned()).collect()
}

/// A failure that comes with the end of a job is the answer to who has waited for it; and what was started is not lost from sight.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_that_fail_are_no_success_by_query() {
    let (node, kms, key) = node().await;
    let other = kms.create_key(NewKey::default()).unwrap().key_id;
    for (svm, key) in [("a", &key), ("b", &other), ("c", &key)] {
        node.svm(svm).await;
        assert_eq!(node.enable(enable_body(svm, &kms, key)).await.0, 201);
    }
    let wrong = json!({ "access_key_id": ACCESS_KEY_ID, "secret_access_key": "AWS/refuses/this/secret/AAAAAAAAAAAAAAAA" });
    let answer = node.ask("PATCH", "/security/aws-kms?svm.name=a&return_timeout=60", Some(wrong.clone())).await;
    assert_eq!((answer.0, code(&answer)), (400, "65537921".to_owned()), "{answer:?}");
    let jobs = jobs_of(&answer.1);
    assert_eq!((jobs.len(), &node.get(&format!("/cluster/jobs/{}", jobs[0])).await["state"]), (1, &json!("failure")));
    let (status, answer) = node.ask("PATCH", "/security/aws-kms?svm.name=a&return_timeout=60&continue_on_failure=true", Some(wrong.clone())).await;
    assert_eq!((status, answer["num_records"].as_u64(), answer["errors"][0]["code"].as_str()), (200, Some(0), Some("65537921")), "{answer}");
    let (status, answer) = node.ask("PATCH", "/security/aws-kms?svm.name=a", Some(wrong)).await;
    assert_eq!((status, answer["num_records"].as_u64()), (202, Some(1)), "nobody has waited: {answer}");

    // One of three.
    kms.set_key_state(&other, KeyState::Disabled).unwrap();
    let right = json!({ "access_key_id": ACCESS_KEY_ID, "secret_access_key": SECRET });
    for serial in [false, true] {
        let path = format!("/security/aws-kms?svm.name=a|b|c&order_by=svm.name&return_timeout=60&serial_records={serial}");
        let answer = node.ask("PATCH", &path, Some(right.clone())).await;
        assert_eq!((answer.0, code(&answer)), (400, "65537538".to_owned()), "{answer:?}");
        assert_eq!(jobs_of(&answer.1).len(), if serial { 2 } else { 3 }, "{answer:?}");
        let (status, answer) = node.ask("PATCH", &format!("{path}&continue_on_failure=true"), Some(right.clone())).await;
        assert_eq!(status, 200, "{answer}");
        let (jobs, errors) = (answer["jobs"].as_array().unwrap(), answer["errors"].as_array().unwrap());
        assert_eq!((answer["num_records"].as_u64(), jobs.len(), errors.len()), (Some(2), 3, 1), "{answer}");
        assert_eq!(errors[0]["code"], "65537538");
        let of_error = node.get(errors[0]["_links"]["self"]["href"].as_str().unwrap().strip_prefix("/api").unwrap()).await;
        assert_eq!(of_error["svm"]["name"], "b");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_that_were_started_before_a_failure_are_named() {
    let (node, kms, key) = node().await;
    let (_, answer) = node.ask("POST", "/svm/svms?return_timeout=30", Some(svms(&["a", "b", "c", "d", "e"]))).await;
    assert!(answer["_links"]["results"].is_object(), "{answer}");
    assert_eq!(node.enable(enable_body("a", &kms, &key)).await.0, 201);
    let answer = node.ask("DELETE", "/svm/svms?name=a|b|c&order_by=name%20desc", None).await;
    assert_eq!(answer.0, 409, "{answer:?}");
    let jobs = jobs_of(&answer.1);
    assert_eq!(jobs.len(), 2, "c and b: {answer:?}");
    for job in jobs {
        assert_eq!(node.get(&format!("/cluster/jobs/{job}?fields=description")).await["description"].as_str().unwrap().split('/').nth(2), Some("svm"));
    }
    // Of an array, the one job leads to all that came of it.
    let mut bad = enable_body("e", &kms, &key);
    bad["key_id"] = json!("00000000-0000-0000-0000-00000000dead");
    let answer = node.ask("POST", "/security/aws-kms?return_timeout=60", Some(json!({ "records": [enable_body("d", &kms, &key), bad] }))).await;
    assert_eq!(answer.0, 400, "{answer:?}");
    let jobs = jobs_of(&answer.1);
    let results = node.get(&format!("/security/aws-kms?job_results_uuid={}", jobs[0])).await;
    assert_eq!((jobs.len(), results["num_records"].as_u64(), results["errors"].as_array().unwrap().len()), (1, Some(1), 1));
    // What is refused alone has started nothing.
    let answer = node.ask("DELETE", "/svm/svms?name=a", None).await;
    assert_eq!((answer.0, answer.1["error"].get("arguments")), (409, None));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_names_two_is_refused() {
    let (node, _, _) = node().await;
    let (one, other) = (node.svm("one").await, node.svm("other").await);
    let link = |uuid: &str| json!({ "self": { "href": format!("/api/svm/svms/{uuid}") } });
    for (method, more) in [("PATCH", json!({ "comment": "x" })), ("DELETE", json!({}))] {
        for wrong in [link(&other), json!({ "self": { "href": format!("/api/security/aws-kms/{one}") } })] {
            let mut record = json!({ "uuid": one, "_links": wrong });
            record.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            let answer = node.ask(method, "/svm/svms", Some(json!({ "records": [record] }))).await;
            assert_eq!((answer.0, code(&answer), answer.1["error"]["target"].as_str()), (400, "262186".to_owned(), Some("records[0].uuid")), "{answer:?}");
        }
    }
    let all = node.get("/svm/svms?fields=comment&order_by=name").await;
    assert_eq!((names(&all), all["records"][0]["comment"].as_str(), all["records"][1]["comment"].as_str()), (vec!["one", "other"], Some(""), Some("")));
    // As they are shown, they agree.
    for record in [json!({ "uuid": one.to_uppercase(), "_links": link(&one) }), json!({ "_links": link(&one) }), json!({ "uuid": one })] {
        let mut record = record;
        record["comment"] = json!("x");
        let (status, answer) = node.ask("PATCH", "/svm/svms?return_timeout=30", Some(json!({ "records": [record] }))).await;
        assert_eq!(status, 200, "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_still_runs_is_no_result() {
    let (node, kms, key) = node().await;
    for name in ["a", "b"] {
        node.svm(name).await;
    }
    kms.add_fault(FaultRule::always(Fault::Hang));
    let bodies = json!({ "records": [enable_body("a", &kms, &key), enable_body("nobody", &kms, &key), enable_body("b", &kms, &key)] });
    let (status, answer) = node.ask("POST", "/security/aws-kms?continue_on_failure=true", Some(bodies)).await;
    assert_eq!(status, 202, "{answer}");
    kms.wait_held(1, Duration::from_secs(20)).await;
    let path = answer["job"]["_links"]["results"]["href"].as_str().unwrap().strip_prefix("/api").unwrap().to_owned();
    let results = node.get(&path).await;
    assert_eq!((results["num_records"].as_u64(), results["records"].as_array().unwrap().len()), (Some(0), 0), "{results}");
    assert_eq!((results["job"]["uuid"].as_str(), results["errors"].as_array().unwrap().len()), (answer["job"]["uuid"].as_str(), 1), "{results}");
    assert!(["queued", "running"].contains(&results["job"]["state"].as_str().unwrap()), "{results}");
    kms.clear_faults();
    kms.release();
    let (_, results) = ended(&node, &answer).await;
    assert_eq!((results["num_records"].as_u64(), results["errors"].as_array().unwrap().len(), results.get("job")), (Some(2), 1, None), "{results}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parameters_beside_an_array_have_the_errors_that_they_have_alone() {
    let (node, _, _) = node().await;
    for (method, parameter, wanted) in [
        ("POST", "secret_access_key=x", "262202"),
        ("POST", "region=x", "262211"),
        ("POST", "nope=x", "262179"),
        ("PATCH", "secret_access_key=x", "262202"),
        ("PATCH", "region=x", "262186"),
        ("PATCH", "nope=x", "262179"),
        ("DELETE", "region=x", "262186"),
    ] {
        let answer = node.ask(method, &format!("/security/aws-kms?{parameter}"), Some(json!({ "records": [{ "uuid": "x" }] }))).await;
        assert_eq!((answer.0, code(&answer)), (400, wanted.to_owned()), "{method} {parameter}");
        assert_eq!(answer.1["error"]["target"].as_str(), parameter.split('=').next(), "{method} {parameter}");
    }
}

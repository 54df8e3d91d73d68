//! How Terraform's provider for ONTAP calls and waits, replayed: `return_timeout=60` with every change, then the job by its `job.uuid`, read without `fields`; and how it reads answers
//! (its `internal/restclient`, `CallCreateMethod`, `Wait`, `unmarshalResponse`). The wait is real: it needs a minute, and runs beside the other tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use crate::common;

use common::{Node, enable_body, eventually, stand_in, toml_for};
use keystead::serve::Hooks;
use keystead_testkit::{Fault, FaultRule};
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// What the provider makes of an answer.
struct Read {
    records: Vec<Value>,
    /// The jobs that it waits for.
    jobs: Vec<String>,
}

/// An answer as the provider reads it: an error by its code, which must be a string, then by the status; an object that is not a collection is one record.
fn read(status: u16, body: &Value) -> Result<Read, String> {
    let Value::Object(mut other) = body.clone() else { panic!("each answer must be an object, an empty one too: {body}") };
    let error = other.remove("error").unwrap_or_default();
    if !error.is_null() {
        return Err(error["code"].as_str().expect("a code is a string").to_owned());
    }
    if !(200..300).contains(&status) {
        return Err(status.to_string());
    }
    let count = other.remove("num_records").map_or(0, |count| count.as_u64().expect("a number"));
    let mut records: Vec<Value> = other.remove("records").map(|records| records.as_array().expect("a list").clone()).unwrap_or_default();
    let uuid = |job: &Value| job["uuid"].as_str().expect("a job has a uuid").to_owned();
    let one = other.remove("job").map(|job| uuid(&job));
    let many = other.remove("jobs").map(|jobs| jobs.as_array().expect("a list").iter().map(uuid).collect::<Vec<_>>());
    if count == 0 && records.is_empty() && other.len() > 1 {
        records.push(Value::Object(other));
    }
    Ok(Read { records, jobs: one.into_iter().chain(many.into_iter().flatten()).collect() })
}

struct Provider<'n>(&'n Node);

impl Provider<'_> {
    /// A change, to the end of its jobs. Also answers how many it has waited for.
    async fn change(&self, method: &str, path: &str, body: Value) -> Result<(Read, usize), String> {
        let answer = self.call(method, &format!("{path}?return_timeout=60"), Some(body)).await?;
        for job in &answer.jobs {
            self.wait(job).await?;
        }
        let waited = answer.jobs.len();
        Ok((answer, waited))
    }

    async fn one(&self, path: &str) -> Result<Option<Value>, String> {
        let answer = self.call("GET", path, None).await?;
        assert!(answer.records.len() <= 1, "only one is expected");
        Ok(answer.records.into_iter().next())
    }

    async fn call(&self, method: &str, path: &str, body: Option<Value>) -> Result<Read, String> {
        let body = body.filter(|body| body.as_object().is_some_and(|body: &Map<_, _>| !body.is_empty()));
        let (status, answer) = self.0.ask(method, path, body).await;
        read(status, &answer)
    }

    /// What is neither waiting nor success is a failure, and one without an error or a code is waited for until the provider gives up.
    async fn wait(&self, job: &str) -> Result<(), String> {
        eventually("the job must end", async || {
            let job = match self.one(&format!("/cluster/jobs/{job}")).await {
                Ok(job) => job.expect("a job"),
                Err(error) => return Some(Err(error)),
            };
            match job["state"].as_str().expect("a job has a state") {
                "queued" | "running" | "paused" => None,
                "success" => Some(Ok(())),
                _ => {
                    assert!(job["code"].as_i64().is_some_and(|code| code != 0) && job["message"].is_string(), "{job}");
                    Some(Err(job["error"]["code"].as_str().expect("a failure has an error").to_owned()))
                }
            }
        })
        .await
    }
}

/// Its name is known to scripts/unit.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_is_waited_for_as_terraform_does() {
    let (kms, key) = stand_in().await;
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let node = Node::start_in(folder.clone(), &toml_for(&kms, folder.path()), Hooks::default()).await.unwrap();
    let provider = Provider(&node);
    assert!(provider.one("/cluster?fields=version").await.unwrap().unwrap()["version"]["generation"].is_u64());
    assert!(provider.one("/svm/svms?name=svm1").await.unwrap().is_none());
    for name in ["svm1", "svm2", "svm3"] {
        assert_eq!(provider.change("POST", "/svm/svms", json!({ "name": name })).await.unwrap().1, 0, "done at once");
    }
    let find = async |svm: &str| provider.one(&format!("/security/aws-kms?svm.name={svm}&fields=uuid,svm.name,region")).await.unwrap();

    // One that is done within the minute: nothing to wait for.
    assert_eq!(provider.change("POST", "/security/aws-kms", enable_body("svm1", &kms, &key)).await.unwrap().1, 0);
    let uuid = find("svm1").await.unwrap()["uuid"].as_str().unwrap().to_owned();
    assert_eq!(provider.change("PATCH", &format!("/security/aws-kms/{uuid}"), json!({ "polling_period": 7 })).await.unwrap().1, 0);
    assert_eq!(provider.change("POST", "/security/aws-kms", enable_body("svm1", &kms, &key)).await.map(|_| ()), Err("65537910".to_owned()));

    // Two for which a minute is not enough: one comes to a good end, one does not. Each AWS call may take so long that neither fails before.
    kms.add_fault(FaultRule::always(Fault::Hang));
    let slow = |svm: &str, key: &str| {
        let mut body = enable_body(svm, &kms, key);
        body["timeout"] = json!(60);
        body
    };
    let (good, bad) = (slow("svm2", &key), slow("svm3", "1234abcd-12ab-34cd-56ef-1234567890ab"));
    let path = "/security/aws-kms?return_timeout=60";
    let (good, bad) = tokio::join!(provider.call("POST", path, Some(good)), provider.call("POST", path, Some(bad)));
    let (good, bad) = (good.unwrap().jobs, bad.unwrap().jobs);
    assert_eq!((good.len(), bad.len()), (1, 1), "the minute was not enough");
    kms.clear_faults();
    kms.release();
    assert_eq!(provider.wait(&good[0]).await, Ok(()));
    assert_eq!(provider.wait(&bad[0]).await, Err("65537538".to_owned()), "AWS does not have this key");
    assert!(find("svm2").await.is_some() && find("svm3").await.is_none());
    assert!(provider.change("DELETE", &format!("/security/aws-kms/{uuid}"), json!({})).await.is_ok());
}

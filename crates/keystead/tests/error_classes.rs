//! The table of error classes (`contract/aws.md`), each row for an enable, a poll, a PATCH and a rekey-external: the codes, the job's text, the state, the events, and what KMIP clients see.
//!
//! All rows go through one node side by side, each with an SVM and an access key of its own, which the stand-in's faults go by. Time is the test's own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use crate::common;

use common::kmip::Credentials;
use common::kmip::Kmip;
use common::{ManualClock, Node, SECRET, enable_body, eventually, stand_in, toml_for};
use futures_util::future::join_all;
use keystead::serve::Hooks;
use keystead_kmip::enumeration::ResultReason;
use keystead_testkit::{Fault, FaultRule, KmsStandIn};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

const INTERVAL: Duration = Duration::from_secs(5);
const GRACE: Duration = Duration::from_secs(30);

/// A class of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Revoked,
    Misconfigured,
    Integrity,
    /// Transient or unreachable: to a running SVM they are the same.
    Outage,
}

/// A row: what AWS, or something on the way, says.
#[derive(Debug, Clone)]
struct Row {
    class: Class,
    /// What the texts must name: AWS's own name for it, or what is seen in its place.
    says: &'static str,
    fault: Fault,
    /// Strikes this operation alone.
    operation: Option<&'static str>,
    /// Whether it concerns the access key or its signature.
    credentials: bool,
    /// Further settings of the configuration.
    settings: Value,
}

fn error(class: Class, status: u16, code: &'static str, message: &str) -> Row {
    let credentials = [
        "UnrecognizedClientException",
        "InvalidClientTokenId",
        "InactiveAccessKey",
        "InvalidSignatureException",
        "SignatureDoesNotMatch",
        "IncompleteSignature",
        "MissingAuthenticationToken",
        "ExpiredToken",
    ]
    .contains(&code);
    Row { credentials, ..odd(class, code, Fault::Error { code: code.to_owned(), status, message: message.to_owned() }) }
}

fn odd(class: Class, says: &'static str, fault: Fault) -> Row {
    Row { class, says, fault, operation: None, credentials: false, settings: json!({}) }
}

fn rows() -> Vec<Row> {
    use Class::{Integrity, Misconfigured, Outage, Revoked};
    let state = "KMSInvalidStateException";
    vec![
        error(Revoked, 400, "DisabledException", "arn is disabled."),
        error(Revoked, 400, state, "arn:aws:kms:x is pending deletion."),
        error(Revoked, 400, state, "arn:aws:kms:x is pending import."),
        error(Revoked, 400, "NotFoundException", "Key 'arn' does not exist"),
        error(Revoked, 400, "AccessDeniedException", "User is not authorized"),
        error(Revoked, 400, "UnrecognizedClientException", "The security token included in the request is invalid."),
        error(Revoked, 403, "InvalidClientTokenId", "m"),
        error(Revoked, 403, "InactiveAccessKey", "m"),
        error(Misconfigured, 400, "InvalidSignatureException", "m"),
        error(Misconfigured, 403, "SignatureDoesNotMatch", "m"),
        error(Misconfigured, 400, "IncompleteSignature", "m"),
        error(Misconfigured, 403, "MissingAuthenticationToken", "m"),
        error(Misconfigured, 403, "ExpiredToken", "m"),
        error(Misconfigured, 400, "ValidationException", "m"),
        error(Misconfigured, 400, "InvalidArnException", "m"),
        error(Misconfigured, 400, "InvalidKeyUsageException", "m"),
        error(Misconfigured, 400, "IncorrectKeyException", "m"),
        error(Misconfigured, 400, "UnsupportedOperationException", "m"),
        error(Misconfigured, 400, "LimitExceededException", "m"),
        Row { credentials: true, ..odd(Misconfigured, "set this node's clock first", Fault::ClockSkew { seconds: 900 }) },
        Row { operation: Some("Decrypt"), ..error(Integrity, 400, "InvalidCiphertextException", "") },
        Row { operation: Some("Decrypt"), ..odd(Integrity, "another KEK", Fault::WrongKek) },
        error(Outage, 400, "ThrottlingException", "Rate exceeded"),
        error(Outage, 400, "TooManyRequestsException", "m"),
        error(Outage, 500, "KMSInternalException", "m"),
        error(Outage, 500, "KeyUnavailableException", "m"),
        error(Outage, 503, "DependencyTimeoutException", "m"),
        error(Outage, 500, "NobodyKnowsThisException", "m"),
        error(Outage, 400, state, "arn:aws:kms:x is creating."),
        error(Outage, 400, state, "arn:aws:kms:x is updating."),
        error(Outage, 400, state, "arn:aws:kms:x is unavailable."),
        odd(Outage, "no answer in time", Fault::Slow { ms: 30_000 }),
        odd(Outage, "(HTTP)", Fault::Reset),
        odd(Outage, "(HTTP)", Fault::Drop),
        odd(Outage, "(HTTP)", Fault::Half),
        odd(Outage, "is not AWS's", Fault::CaptivePortal),
        odd(Outage, "is not AWS's", Fault::NotJson),
        odd(Outage, "is not AWS's", Fault::Redirect { location: "https://elsewhere.example/".to_owned() }),
        odd(Outage, "so it is not AWS's", Fault::Big { bytes: 1 << 20 }),
        // Where the certificate is not checked, anybody on the path could say so. The address is what the stand-in is reached by.
        Row { settings: json!({ "verify": false }), ..error(Outage, 400, "DisabledException", "forged") },
        Row { settings: json!({ "verify_ip": false }), ..error(Outage, 400, "AccessDeniedException", "forged") },
    ]
}

/// A row on its way through the node.
struct Tried {
    row: Row,
    svm: String,
    access_key_id: String,
    path: String,
    client: Option<Credentials>,
    id: String,
}

impl Tried {
    fn rule(&self) -> FaultRule {
        FaultRule {
            operation: self.row.operation.map(str::to_owned),
            access_key_id: Some(self.access_key_id.clone()),
            ..FaultRule::always(self.row.fault.clone())
        }
    }

    fn body(&self, kms: &KmsStandIn, key: &str) -> Value {
        let mut body = enable_body(&self.svm, kms, key);
        body["access_key_id"] = json!(self.access_key_id);
        // Long enough for an answer while all rows are under way on a slow machine, and shorter than the fault that is slow.
        body["timeout"] = json!(5);
        body.as_object_mut().unwrap().extend(self.row.settings.as_object().unwrap().clone());
        body
    }

    /// The code of a failure in a call that is not about revocation: while enabling, and otherwise.
    fn expected(&self, credentials: &'static str) -> &'static str {
        match self.row.class {
            // A forged denial is refused all the same when somebody asks for something: it cannot be told from a true one.
            Class::Outage if self.row.settings != json!({}) => "65537538",
            Class::Outage => "65537915",
            _ if self.row.credentials => credentials,
            _ => "65537538",
        }
    }

    async fn state(&self, node: &Node) -> (bool, String) {
        let state = node.get(&format!("{}?fields=state", self.path)).await["state"].clone();
        (state["cluster_state"] == true, state["message"].as_str().unwrap().to_owned())
    }

    /// Waits until the state is said in this word, with what the row says as the reason.
    async fn reaches(&self, node: &Node, word: &str) {
        let mut last = String::new();
        for _ in 0..3_000 {
            last = self.state(node).await.1;
            if last.contains(&format!("- {word} (")) && last.contains(self.row.says) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("{:?} must be {word}, but is: {last}", self.row);
    }

    /// The events of the SVM, in their order: their names, and AWS's own name and request id where AWS spoke.
    async fn told(&self, node: &Node) {
        let path = format!("/support/ems/events?svm.name={}&fields=*", self.svm);
        let events = node.get(&path).await["records"].as_array().unwrap().clone();
        let names: Vec<&str> = events.iter().rev().map(|event| event["message"]["name"].as_str().unwrap()).collect();
        let expected: &[&str] = match (self.row.class, self.row.says) {
            (Class::Revoked, _) => {
                &["ekmip.awskms.notAvailable", "keystead.awskms.revoking", "ekmip.awskms.volOffline", "ekmip.awskms.volOnline", "ekmip.awskms.available"]
            }
            (Class::Misconfigured, _) => &["ekmip.awskms.notAvailable", "keystead.awskms.misconfigured", "ekmip.awskms.available"],
            (Class::Integrity, _) => &["ekmip.awskms.notAvailable", "keystead.awskms.integrity", "ekmip.awskms.available"],
            (Class::Outage, "ThrottlingException" | "TooManyRequestsException") => {
                &["ekmip.awskms.notAvailable", "keystead.awskms.throttled", "ekmip.awskms.available"]
            }
            (Class::Outage, _) => &["ekmip.awskms.notAvailable", "ekmip.awskms.available"],
        };
        assert_eq!(names, expected, "{:?}: {events:?}", self.row);
        let first = events.last().unwrap();
        let parameter = |name: &str| {
            let parameters = first["parameters"].as_array().unwrap();
            parameters.iter().find(|parameter| parameter["name"] == name).map(|parameter| parameter["value"].as_str().unwrap().to_owned())
        };
        let text = first["log_message"].as_str().unwrap();
        assert!(text.contains(&self.svm) && text.contains(self.row.says) && text.contains("vm"), "{:?}: {text}", self.row);
        assert_eq!(first["node"]["name"], node.get("/cluster/nodes").await["records"][0]["name"]);
        if let Fault::Error { code, .. } = &self.row.fault {
            assert_eq!(parameter("aws_error").as_ref(), Some(code), "{first}");
            assert!(parameter("aws_request_id").is_some_and(|id| !id.is_empty()), "{first}");
        }
    }

    /// What a KMIP client gets: the key, or the reason why not.
    fn get(&self, node: &Node) -> Result<Vec<u8>, (Option<ResultReason>, String)> {
        let endpoint = self.client.as_ref().unwrap().endpoint(node.ekmip);
        let answer = tokio::task::block_in_place(|| Kmip::connect(&endpoint).get(&self.id));
        match answer.reason() {
            None => Ok(answer.material()),
            reason => Err((reason, answer.message())),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_row_of_the_table() {
    let (kms, key) = stand_in().await;
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let clock = ManualClock::new();
    let toml = format!("{}access_error_grace = \"{}s\"\n[jobs]\nconcurrency = 64\n", toml_for(&kms, folder.path()), GRACE.as_secs());
    let node = Node::start_in(folder, &toml, Hooks { clock: clock.clone(), ..Hooks::default() }).await.unwrap();
    let mut all = Vec::new();
    for (n, row) in rows().into_iter().enumerate() {
        let tried =
            Tried { svm: format!("row{n}"), access_key_id: format!("AKIAROWROWROWROW{n:04}"), path: String::new(), client: None, id: String::new(), row };
        kms.add_access_key(&tried.access_key_id, SECRET);
        node.svm(&tried.svm).await;
        all.push(tried);
    }

    // While enabling.
    all.iter().for_each(|tried| kms.add_fault(tried.rule()));
    join_all(all.iter().map(async |tried| {
        let (status, answer) = node.enable(tried.body(&kms, &key)).await;
        let message = answer["error"]["message"].as_str().unwrap_or_default();
        assert_eq!((status, answer["error"]["code"].as_str()), (400, Some(tried.expected("65537900"))), "{:?}: {answer}", tried.row);
        assert!(message.contains(&tried.svm) && message.contains(tried.row.says), "{:?}: {message}", tried.row);
    }))
    .await;
    kms.clear_faults();
    assert_eq!(node.get("/security/aws-kms").await["num_records"], 0);

    // In use: all serve.
    for tried in &mut all {
        let (status, body) = node.enable(tried.body(&kms, &key)).await;
        assert_eq!(status, 201, "{:?}: {body}", tried.row);
        tried.path = format!("/security/aws-kms/{}", body["records"][0]["uuid"].as_str().unwrap());
        let client = Credentials::issue(&node, &tried.svm).await;
        tried.id = tokio::task::block_in_place(|| Kmip::connect(&client.endpoint(node.ekmip)).created(Vec::new()));
        tried.client = Some(client);
    }
    all.iter().for_each(|tried| kms.add_fault(tried.rule()));
    clock.advance(Duration::from_secs(70 * 60));
    for tried in &all {
        tried.reaches(&node, "degraded").await;
        assert!(tried.get(&node).is_ok(), "one failed poll takes no key away: {:?}", tried.row);
    }

    // The second poll, late enough: a denial is confirmed, everything else stays what it is.
    clock.advance(INTERVAL);
    for tried in &all {
        let (word, code) = if tried.row.class == Class::Revoked { ("revoking", "65537551") } else { ("degraded", "65537551") };
        tried.reaches(&node, word).await;
        let state = node.get(&format!("{}?fields=state", tried.path)).await["state"].clone();
        assert_eq!((&state["cluster_state"], &state["code"]), (&json!(true), &json!(code)), "{:?}: {state}", tried.row);
    }

    // Within the grace: what would change the root is refused, and keys are served.
    join_all(all.iter().map(async |tried| {
        let (status, answer) = node.ask("PATCH", &format!("{}?return_timeout=60", tried.path), Some(json!({ "timeout": 4 }))).await;
        let message = answer["error"]["message"].as_str().unwrap_or_default();
        assert_eq!((status, answer["error"]["code"].as_str()), (400, Some(tried.expected("65537921"))), "PATCH, {:?}: {answer}", tried.row);
        assert!(message.contains(&tried.svm) && message.contains(tried.row.says), "PATCH, {:?}: {message}", tried.row);
        let (status, answer) = node.ask("POST", &format!("{}/rekey-external?return_timeout=60", tried.path), Some(json!({ "key_id": key }))).await;
        let message = answer["error"]["message"].as_str().unwrap_or_default();
        assert_eq!((status, answer["error"]["code"].as_str()), (400, Some("65537538")), "rekey-external, {:?}: {answer}", tried.row);
        assert!(message.contains(&tried.svm) && message.contains(tried.row.says), "rekey-external, {:?}: {message}", tried.row);
        assert!(tried.get(&node).is_ok(), "{:?}", tried.row);
    }))
    .await;

    // After the grace the revoked ones are blocked, and nobody else is.
    clock.advance(GRACE);
    for tried in &all {
        if tried.row.class == Class::Revoked {
            tried.reaches(&node, "blocked").await;
            let (reason, message) = tried.get(&node).unwrap_err();
            assert_eq!(reason, Some(ResultReason::PermissionDenied), "{:?}", tried.row);
            assert!(message.contains("blocked"), "{message}");
        } else {
            assert!(tried.get(&node).is_ok(), "{:?}", tried.row);
        }
    }
    clock.advance(Duration::from_secs(60 * 60));
    for tried in all.iter().filter(|tried| tried.row.class != Class::Revoked) {
        tried.reaches(&node, "degraded").await;
        assert!(tried.get(&node).is_ok(), "an outage never blocks: {:?}", tried.row);
    }

    // The first good poll brings all of them back.
    kms.clear_faults();
    eventually("all must be available again", async || {
        clock.advance(Duration::from_secs(60));
        let states = join_all(all.iter().map(|tried| tried.state(&node))).await;
        states.iter().all(|(good, message)| *good && message.is_empty()).then_some(())
    })
    .await;
    for tried in &all {
        assert!(tried.get(&node).is_ok(), "{:?}", tried.row);
        tried.told(&node).await;
    }
    node.stop().await;
}

//! The stand-in over the wire: who may call, what the state of a key does, and how it goes wrong.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::time::Duration;

use common::{ACCESS_KEY, Client, SECRET, control, stand_in};
use jiff::SignedDuration;
use keystead_testkit::{Denial, Fault, FaultRule, KeyState, KmsStandIn, Options, Tls};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const LIMIT: Duration = Duration::from_secs(30);

async fn blob(client: &Client<'_>) -> String {
    client.encrypt().await.json()["CiphertextBlob"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_round_trip_is_answered_and_recorded_as_aws_does() {
    let aws = stand_in().await;
    let client = Client::new(&aws);
    let answer = client.encrypt().await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), Some("application/x-amz-json-1.1"));
    assert!(answer.header("date").unwrap().ends_with(" GMT"));
    let blob = answer.json()["CiphertextBlob"].as_str().unwrap().to_owned();
    assert_eq!(client.decrypt(&blob).await.json()["Plaintext"], "a2Vr");

    let calls = aws.calls();
    assert_eq!(calls.iter().map(|c| c.operation.as_str()).collect::<Vec<_>>(), ["Encrypt", "Decrypt"]);
    let call = &calls[0];
    assert_eq!(answer.header("x-amzn-requestid"), Some(call.request_id.as_str()));
    assert_eq!(call.key_id.as_deref(), Some("k1"));
    assert_eq!(call.encryption_context.as_ref().unwrap()["a:b"], "c");
    assert_eq!(call.access_key_id.as_deref(), Some(ACCESS_KEY));
    assert_eq!((call.region.as_deref(), call.service.as_deref()), (Some("us-east-1"), Some("kms")));
    assert!(call.authenticated && call.peer.ip().is_loopback());
    assert_eq!(call.outcome.as_deref(), Some("ok"));
}

#[tokio::test]
async fn signatures_are_checked() {
    let aws = stand_in().await;
    let right = || Client::new(&aws);
    let cases = [
        (Client { secret: "wrong".into(), ..right() }, "InvalidSignatureException"),
        (Client { access_key_id: "AKIAUNKNOWN000000000".into(), ..right() }, "UnrecognizedClientException"),
        (Client { service: "s3".into(), ..right() }, "InvalidSignatureException"),
        (Client { ahead: SignedDuration::from_mins(6), ..right() }, "InvalidSignatureException"),
        (Client { ahead: SignedDuration::from_mins(-6), ..right() }, "InvalidSignatureException"),
        (Client { unsigned: true, ..right() }, "MissingAuthenticationTokenException"),
        (Client { ahead: SignedDuration::from_mins(4), ..right() }, "ok"),
    ];
    for (client, code) in &cases {
        assert_eq!(client.encrypt().await.code(), *code);
        assert_eq!(aws.calls().last().unwrap().authenticated, *code == "ok");
    }
    aws.deactivate_access_key(ACCESS_KEY).unwrap();
    assert_eq!(right().encrypt().await.code(), "UnrecognizedClientException");
    aws.activate_access_key(ACCESS_KEY).unwrap();
    aws.set_clock_skew(SignedDuration::from_mins(10));
    let answer = right().encrypt().await;
    assert_eq!(answer.code(), "InvalidSignatureException");
    assert!(answer.json()["message"].as_str().unwrap().starts_with("Signature expired"));
}

#[tokio::test]
async fn temporary_keys_need_their_token() {
    let aws = stand_in().await;
    aws.add_session("ASIAIOSFODNN7EXAMPLE", SECRET, "token");
    let describe = async |id: &str, token: Option<&str>| {
        let client = Client { access_key_id: id.into(), session_token: token.map(str::to_owned), ..Client::new(&aws) };
        client.call("DescribeKey", &json!({ "KeyId": "k1" })).await.code()
    };
    assert_eq!(describe("ASIAIOSFODNN7EXAMPLE", Some("token")).await, "ok");
    for (id, token) in [("ASIAIOSFODNN7EXAMPLE", None), ("ASIAIOSFODNN7EXAMPLE", Some("other")), (ACCESS_KEY, Some("token"))] {
        assert_eq!(describe(id, token).await, "UnrecognizedClientException");
    }
}

#[tokio::test]
async fn keys_are_revoked_and_come_back() {
    let aws = stand_in().await;
    let client = Client::new(&aws);
    let blob = blob(&client).await;
    aws.set_key_state("k1", KeyState::Disabled).unwrap();
    assert_eq!(client.decrypt(&blob).await.code(), "DisabledException");
    aws.set_key_state("k1", KeyState::PendingDeletion).unwrap();
    assert_eq!(client.decrypt(&blob).await.code(), "KMSInvalidStateException");
    aws.set_key_state("k1", KeyState::Enabled).unwrap();
    aws.deny("k1", Denial::default()).unwrap();
    assert_eq!(client.decrypt(&blob).await.code(), "AccessDeniedException");
    aws.restore_access("k1").unwrap();
    aws.rotate("k1").unwrap();
    assert_eq!(client.decrypt(&blob).await.code(), "ok");
    aws.delete_key("k1").unwrap();
    assert_eq!(client.decrypt(&blob).await.code(), "NotFoundException");
}

#[tokio::test]
async fn errors_on_demand() {
    let aws = stand_in().await;
    let client = Client::new(&aws);
    for (fault, status, code) in [
        (Fault::Throttle, 400, "ThrottlingException"),
        (Fault::InternalFailure, 500, "InternalFailure"),
        (Fault::KmsInternal, 503, "KMSInternalException"),
        (Fault::KeyUnavailable, 500, "KeyUnavailableException"),
        (Fault::DependencyTimeout, 503, "DependencyTimeoutException"),
        (Fault::Error { code: "LimitExceededException".into(), status: 400, message: String::new() }, 400, "LimitExceededException"),
    ] {
        aws.add_fault(FaultRule::next("Encrypt", fault));
        let answer = client.encrypt().await;
        assert_eq!((answer.status, answer.code().as_str()), (status, code));
        assert!(answer.header("x-amzn-requestid").is_some());
        assert_eq!(aws.calls().last().unwrap().outcome.as_deref(), Some(code));
        assert_eq!(client.encrypt().await.status, 200, "the rule was for one call");
    }
}

#[tokio::test]
async fn answers_that_are_not_aws_s() {
    let aws = stand_in().await;
    let client = Client::new(&aws);
    let next = async |fault| {
        aws.add_fault(FaultRule::next("Encrypt", fault));
        client.encrypt().await
    };
    let answer = next(Fault::NotJson).await;
    assert_eq!(answer.status, 200);
    assert!(serde_json::from_slice::<Value>(&answer.body).is_err());

    let answer = next(Fault::CaptivePortal).await;
    assert_eq!((answer.status, answer.header("x-amzn-requestid")), (403, None));
    assert!(answer.body.starts_with(b"<!DOCTYPE html>"));

    let answer = next(Fault::Redirect { location: "https://example.test/".into() }).await;
    assert_eq!((answer.status, answer.header("location")), (302, Some("https://example.test/")));

    let answer = next(Fault::Xml { code: "SignatureDoesNotMatch".into(), status: 403 }).await;
    assert_eq!((answer.status, answer.header("content-type")), (403, Some("text/xml")));
    assert!(String::from_utf8(answer.body).unwrap().contains("<Code>SignatureDoesNotMatch</Code>"));

    let answer = next(Fault::Big { bytes: 3 << 20 }).await;
    assert!(answer.body.len() > 3 << 20);

    let answer = next(Fault::ClockSkew { seconds: 3600 }).await;
    assert_eq!(answer.code(), "InvalidSignatureException");
    assert_eq!(next(Fault::Slow { ms: 1 }).await.code(), "ok");
}

#[tokio::test]
async fn connections_that_break() {
    let aws = stand_in().await;
    let client = Client::new(&aws);
    let input = json!({"KeyId": "k1", "Plaintext": "a2Vr"});
    for fault in [Fault::Drop, Fault::DropAfter, Fault::Reset] {
        aws.add_fault(FaultRule::next("Encrypt", fault.clone()));
        assert!(client.try_call("Encrypt", &input).await.is_none());
        assert_eq!(aws.calls().last().unwrap().outcome.as_deref(), Some(fault.name()));
    }
    aws.add_fault(FaultRule::next("Encrypt", Fault::Half));
    let answer = client.encrypt().await;
    let promised: usize = answer.header("content-length").unwrap().parse().unwrap();
    assert_eq!(answer.body.len(), promised / 2);
}

#[tokio::test]
async fn a_reset_is_a_reset() {
    let aws = KmsStandIn::start(Options { tls: Tls::Off, ..Options::default() }).await.unwrap();
    aws.add_fault(FaultRule::always(Fault::Reset));
    let mut stream = tokio::net::TcpStream::connect(aws.addr()).await.unwrap();
    stream.write_all(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n").await.unwrap();
    let error = stream.read(&mut [0; 16]).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_revocation_between_two_calls() {
    let aws = stand_in().await;
    let client = Client::new(&aws);
    aws.add_fault(FaultRule::next("Encrypt", Fault::Revoke { after: true }));
    assert_eq!((client.encrypt().await.code().as_str(), client.encrypt().await.code().as_str()), ("ok", "DisabledException"));
    aws.set_key_state("k1", KeyState::Enabled).unwrap();
    aws.add_fault(FaultRule::next("Encrypt", Fault::Revoke { after: false }));
    assert_eq!(client.encrypt().await.code(), "DisabledException");
}

#[tokio::test]
async fn another_kek_comes_back() {
    let aws = stand_in().await;
    let client = Client::new(&aws);
    let blob = blob(&client).await;
    aws.add_fault(FaultRule::next("Decrypt", Fault::WrongKek));
    let answer = client.decrypt(&blob).await;
    assert_eq!(answer.status, 200);
    assert_ne!(answer.json()["Plaintext"], "a2Vr");
    assert_eq!(client.decrypt(&blob).await.json()["Plaintext"], "a2Vr");
}

#[tokio::test]
async fn a_gate_holds_a_call_until_the_release() {
    let aws = stand_in().await;
    let client = Client::new(&aws);
    aws.add_fault(FaultRule::next("Encrypt", Fault::Hold));
    let (answer, ()) = tokio::join!(client.encrypt(), async {
        assert_eq!(aws.wait_held(1, LIMIT).await, 1);
        assert_eq!(aws.calls().last().unwrap().outcome, None);
        // Held before it is executed: what happens meanwhile counts.
        aws.set_key_state("k1", KeyState::Disabled).unwrap();
        assert_eq!(aws.release(), 1);
    });
    assert_eq!(answer.code(), "DisabledException");

    aws.set_key_state("k1", KeyState::Enabled).unwrap();
    aws.add_fault(FaultRule::always(Fault::HoldAfter));
    let (answer, ()) = tokio::join!(client.encrypt(), async {
        assert_eq!(aws.wait_held(1, LIMIT).await, 1);
        aws.set_key_state("k1", KeyState::Disabled).unwrap();
        aws.release();
    });
    assert_eq!(answer.code(), "ok", "held after it was executed");
    aws.set_key_state("k1", KeyState::Enabled).unwrap();
    assert_eq!(client.encrypt().await.code(), "ok", "the release opened the gate");
}

#[tokio::test]
async fn a_hang_ends_with_the_release_and_counts_only_while_the_client_waits() {
    let aws = stand_in().await;
    let client = Client::new(&aws);
    let input = json!({"KeyId": "k1", "Plaintext": "a2Vr"});
    aws.add_fault(FaultRule::always(Fault::Hang));
    let (answer, ()) = tokio::join!(client.try_call("Encrypt", &input), async {
        assert_eq!(aws.wait_held(1, LIMIT).await, 1);
        aws.release();
    });
    assert!(answer.is_none());

    aws.add_fault(FaultRule::always(Fault::Hang));
    tokio::select! {
        _ = client.try_call("Encrypt", &input) => panic!("a hang answered"),
        held = aws.wait_held(1, LIMIT) => assert_eq!(held, 1),
    }
    // The client went away with the select: the server notices.
    let gone = tokio::time::timeout(LIMIT, async {
        while aws.wait_held(0, Duration::ZERO).await > 0 {
            tokio::task::yield_now().await;
        }
    });
    assert!(gone.await.is_ok());
}

#[tokio::test]
async fn the_control_interface_does_it_all() {
    let aws = KmsStandIn::start(Options::default()).await.unwrap();
    let ok = async |method, path: &str, body| {
        let answer = control(&aws, method, path, body).await;
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        answer.json()
    };
    let key = ok("POST", "keys", json!({"key_id": "k1", "alias": "svm1"})).await;
    assert_eq!(key["arn"], "arn:aws:kms:us-east-1:111122223333:key/k1");
    assert_eq!(key["aliases"], json!(["alias/svm1"]));
    ok("POST", "access_keys", json!({"access_key_id": ACCESS_KEY, "secret_access_key": SECRET})).await;
    let client = Client::new(&aws);
    assert_eq!(client.encrypt().await.code(), "ok");

    for (action, code) in [
        ("disable", "DisabledException"),
        ("schedule_deletion", "KMSInvalidStateException"),
        ("pending_import", "KMSInvalidStateException"),
        ("unavailable", "KMSInvalidStateException"),
        ("enable", "ok"),
        ("deny", "AccessDeniedException"),
        ("restore_access", "ok"),
        ("rotate", "ok"),
    ] {
        ok("POST", &format!("keys/k1/{action}"), json!({})).await;
        assert_eq!(client.encrypt().await.code(), code, "{action}");
    }
    assert_eq!(ok("GET", "keys/k1", json!({})).await["materials"], 2);
    ok("POST", &format!("access_keys/{ACCESS_KEY}/deactivate"), json!({"code": "InactiveAccessKey"})).await;
    assert_eq!(client.encrypt().await.code(), "InactiveAccessKey");
    ok("POST", &format!("access_keys/{ACCESS_KEY}/activate"), json!({})).await;

    ok("POST", "faults", json!([{"operation": "Encrypt", "times": 1, "fault": {"kind": "throttle"}}])).await;
    assert_eq!(ok("GET", "faults", json!({})).await.as_array().unwrap().len(), 1);
    assert_eq!(client.encrypt().await.code(), "ThrottlingException");
    ok("POST", "faults", json!({"fault": {"kind": "kms_internal"}})).await;
    ok("DELETE", "faults", json!({})).await;

    ok("POST", "gate", json!({"operation": "Encrypt"})).await;
    let (answer, ()) = tokio::join!(client.encrypt(), async {
        let held = ok("GET", "held?count=1&timeout_ms=30000", json!({})).await;
        assert_eq!(held, json!({"held": 1, "reached": true}));
        assert_eq!(ok("POST", "release", json!({})).await, json!({"released": 1}));
    });
    assert_eq!(answer.code(), "ok");
    ok("PUT", "clock", json!({"skew_seconds": -3600})).await;
    assert_eq!(client.encrypt().await.code(), "InvalidSignatureException");

    let calls = ok("GET", "calls", json!({})).await;
    assert_eq!(calls[0]["encryption_context"], json!({"a:b": "c"}));
    assert_eq!(calls[0]["authenticated"], true);
    ok("DELETE", "calls", json!({})).await;
    assert_eq!(ok("GET", "calls", json!({})).await, json!([]));
    assert!(ok("GET", "stats", json!({})).await["calls"].as_u64().unwrap() > 10);

    assert_eq!(control(&aws, "POST", "keys/none/disable", json!({})).await.status, 400);
    assert_eq!(control(&aws, "POST", "nonsense", json!({})).await.status, 404);
    assert_eq!(control(&aws, "POST", "faults", json!({"fault": {"kind": "x"}})).await.status, 400);
}

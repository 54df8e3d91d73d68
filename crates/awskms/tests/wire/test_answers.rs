//! Answers that are wrong, hostile, or not AWS's.

use crate::kms::{Answer, Kms, described, plain, refused};
use crate::pki::Ca;
use crate::setup::{ask, config, open};
use keystead_awskms::{Class, Client, ClientConfig, EncryptionContext, Error, Hop};
use std::time::Duration;

const NAME: &str = "kms.test";

/// The error after one such answer, and how often it was asked for.
async fn after(answer: Answer) -> (Error, usize) {
    let ca = Ca::new();
    let kms = Kms::answering(ca.server(&[NAME]), answer).await;
    let error = ask(&open(&ca.pem(), &[NAME]), ClientConfig { timeout: Duration::from_secs(2), ..config(NAME, kms.port()) }).await.unwrap_err();
    (error, kms.count())
}

fn full(status: u16, headers: &[(&'static str, &str)], body: &str) -> Answer {
    Answer::Full { status, headers: headers.iter().map(|(name, value)| (*name, (*value).to_owned())).collect(), body: body.as_bytes().to_vec() }
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    for status in [301, 302, 303, 307, 308] {
        let ca = Ca::new();
        let other = Kms::answering(ca.server(&[NAME]), described()).await;
        let location = format!("https://{NAME}:{}/", other.port());
        let kms = Kms::answering(ca.server(&[NAME]), full(status, &[("location", &location)], "")).await;
        let error = ask(&open(&ca.pem(), &[NAME]), config(NAME, kms.port())).await.unwrap_err();
        assert_eq!((error.hop(), error.class()), (Hop::Http, Class::Unreachable), "{status}: {error}");
        assert_eq!((kms.count(), other.count()), (1, 0), "{status}");
    }
}

#[tokio::test]
async fn a_long_body_is_not_read_to_its_end() {
    for status in [200, 400] {
        let (error, count) = after(Answer::Full { status, headers: vec![("x-amzn-requestid", "r".into())], body: vec![b' '; 70 * 1024] }).await;
        assert_eq!((error.hop(), error.class(), count), (Hop::Http, Class::Unreachable, 1), "{error}");
    }
    let mut endless = b"HTTP/1.1 200 X\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
    for _ in 0..80 {
        endless.extend_from_slice(b"400\r\n");
        endless.extend_from_slice(&[b' '; 1024]);
        endless.extend_from_slice(b"\r\n");
    }
    assert_eq!(after(Answer::Stall(endless)).await.0.hop(), Hop::Http);
}

#[tokio::test]
async fn silence_ends_within_the_attempts() {
    let ca = Ca::new();
    let environment = open(&ca.pem(), &[NAME]);
    let short = |port| ClientConfig { timeout: Duration::from_millis(300), ..config(NAME, port) };
    let half = Answer::Stall(b"HTTP/1.1 200 X\r\ncontent-length: 100\r\n\r\n{".to_vec());
    for (what, answer) in [("no head", Answer::Silence), ("half a body", half), ("half a head", Answer::Stall(b"HTTP/1.1 200".to_vec()))] {
        let kms = Kms::answering(ca.server(&[NAME]), answer).await;
        let error = ask(&environment, short(kms.port())).await.unwrap_err();
        assert_eq!((error.hop(), error.class(), kms.count()), (Hop::Http, Class::Unreachable, 3), "{what}: {error}");
        assert!(error.to_string().contains("no answer in time"), "{what}: {error}");
    }
    // Nobody accepts: the handshake never begins.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let error = ask(&environment, short(listener.local_addr().unwrap().port())).await.unwrap_err();
    assert_eq!((error.hop(), error.class()), (Hop::Connect, Class::Unreachable), "{error}");
    assert!(error.to_string().contains("no answer in time"), "{error}");
}

#[tokio::test]
async fn a_connection_that_breaks_is_tried_again() {
    for bytes in
        ["", "HTTP/1.1 200", "HTTP/1.1 200 X\r\ncontent-length: 100\r\n\r\n", "HTTP/1.1 200 X\r\ncontent-length: 100\r\n\r\n{\"KeyMeta", "SSH-2.0-x\r\n\r\n"]
    {
        let (error, count) = after(Answer::Raw(bytes.as_bytes().to_vec())).await;
        assert_eq!((error.hop(), error.class(), count), (Hop::Http, Class::Unreachable, 3), "{bytes}: {error}");
    }
}

#[tokio::test]
async fn a_good_answer_after_a_broken_one_is_taken() {
    let ca = Ca::new();
    let kms = Kms::start(ca.server(&[NAME]), |_, number| if number == 0 { Answer::Raw(Vec::new()) } else { described() }).await;
    assert!(ask(&open(&ca.pem(), &[NAME]), config(NAME, kms.port())).await.unwrap().enabled);
    assert_eq!(kms.count(), 2);
}

#[tokio::test]
async fn a_200_that_is_no_answer_of_kms_is_unreachable() {
    let xml = "<ErrorResponse><Error><Code>DisabledException</Code></Error><RequestId>r</RequestId></ErrorResponse>";
    for body in ["{", "", "[]", "null", "{}", "<html>welcome</html>", "{\"KeyMetadata\":7}", xml] {
        let (error, count) = after(full(200, &[("x-amzn-requestid", "r-1")], body)).await;
        assert_eq!((error.hop(), error.class(), error.evidence(), count), (Hop::Http, Class::Unreachable, false, 1), "{body}: {error}");
        assert!(!error.to_string().contains("welcome"));
    }
}

#[tokio::test]
async fn encrypt_and_decrypt_want_whole_answers() {
    let ca = Ca::new();
    let key = crate::kms::ARN;
    let long = "QUJD".repeat(3_000);
    let bodies = [
        format!(r#"{{"KeyId":"{key}"}}"#),
        r#"{"CiphertextBlob":"QUJD","Plaintext":"QUJD"}"#.to_owned(),
        format!(r#"{{"KeyId":"{key}","CiphertextBlob":"","Plaintext":""}}"#),
        format!(r#"{{"KeyId":"{key}","CiphertextBlob":"%%","Plaintext":"%%"}}"#),
        format!(r#"{{"KeyId":"{key}","CiphertextBlob":"{long}","Plaintext":"{long}"}}"#),
    ];
    for body in bodies {
        let kms = Kms::answering(ca.server(&[NAME]), plain(200, &body)).await;
        let client = Client::new(&open(&ca.pem(), &[NAME]), config(NAME, kms.port())).unwrap();
        let none = EncryptionContext::default();
        let error = client.encrypt(key, b"x", &none).await.unwrap_err();
        assert_eq!((error.hop(), error.class()), (Hop::Http, Class::Unreachable), "{body:.60}");
        let Err(error) = client.decrypt(key, b"x", &none).await else { panic!("{body:.60}") };
        assert_eq!((error.hop(), error.class()), (Hop::Http, Class::Unreachable), "{body:.60}");
    }
}

#[tokio::test]
async fn encrypt_and_decrypt_name_key_and_context() {
    let ca = Ca::new();
    let key = crate::kms::ARN;
    let body = format!(r#"{{"KeyId":"{key}","CiphertextBlob":"QUJD","Plaintext":"QUJD","KeyMaterialId":"m-1"}}"#);
    let kms = Kms::answering(ca.server(&[NAME]), plain(200, &body)).await;
    let client = Client::new(&open(&ca.pem(), &[NAME]), config(NAME, kms.port())).unwrap();
    let context = EncryptionContext::parse("aws:fsx:fs-id=fs-1").unwrap();
    let encrypted = client.encrypt("alias/a", b"ABC", &context).await.unwrap();
    assert_eq!((encrypted.blob.as_slice(), encrypted.key_arn.as_str()), (b"ABC".as_slice(), key));
    let decrypted = client.decrypt(key, &encrypted.blob, &context).await.unwrap();
    assert_eq!((decrypted.plaintext.as_slice(), decrypted.key_arn.as_str(), decrypted.key_material_id.as_deref()), (b"ABC".as_slice(), key, Some("m-1")));
    let bodies: Vec<serde_json::Value> = kms.seen().iter().map(|seen| serde_json::from_slice(&seen.body).unwrap()).collect();
    let context = serde_json::json!({"aws:fsx:fs-id": "fs-1"});
    assert_eq!(bodies[0], serde_json::json!({"KeyId": "alias/a", "Plaintext": "QUJD", "EncryptionContext": context}));
    assert_eq!(bodies[1], serde_json::json!({"KeyId": key, "CiphertextBlob": "QUJD", "EncryptionContext": context}));
    assert!(kms.seen().iter().all(crate::kms::Seen::is_signed));
}

#[tokio::test]
async fn who_speaks_in_awss_place_is_unreachable_or_transient() {
    for status in [400, 401, 403, 404, 407, 429, 451] {
        let (error, count) = after(full(status, &[("content-type", "text/html"), ("x-amzn-requestid", "r")], "<html><body>Please log in</body></html>")).await;
        assert_eq!((error.hop(), error.class(), error.came_from_aws(), count), (Hop::Http, Class::Unreachable, false, 1), "{status}: {error}");
        assert!(!error.to_string().contains("log in"), "{error}");
    }
    for status in [500, 502, 503, 504, 507, 599] {
        let (error, count) = after(plain(status, "<html>bad gateway</html>")).await;
        assert_eq!((error.class(), error.came_from_aws(), count), (Class::Transient, false, 3), "{status}: {error}");
    }
}

#[tokio::test]
async fn an_error_in_xml_is_understood() {
    let xml = "<ErrorResponse><Error><Type>Sender</Type><Code>InvalidClientTokenId</Code><Message>The security token is invalid</Message></Error><RequestId>r-7</RequestId></ErrorResponse>";
    let (error, count) = after(full(403, &[("content-type", "text/xml")], xml)).await;
    assert_eq!((error.code(), error.request_id(), count), (Some("InvalidClientTokenId"), Some("r-7"), 1));
    assert_eq!((error.class(), error.hop(), error.is_credentials(), error.evidence()), (Class::Revoked, Hop::Aws, true, true));
    let (error, count) = after(full(400, &[], "<Error><Code>Throttling</Code></Error>")).await;
    assert_eq!((error.class(), count), (Class::Transient, 3));
}

#[tokio::test]
async fn without_a_request_id_it_did_not_come_from_aws() {
    let (error, _) = after(plain(400, r#"{"__type":"DisabledException","message":"x"}"#)).await;
    assert_eq!((error.code(), error.class()), (Some("DisabledException"), Class::Revoked));
    assert!(!error.came_from_aws() && !error.evidence());
    let (error, _) = after(full(400, &[("x-amzn-requestid", "")], r#"{"__type":"DisabledException","message":"x"}"#)).await;
    assert!(!error.came_from_aws() && !error.evidence());
}

#[tokio::test]
async fn a_clock_that_is_off_is_named() {
    for (code, date, named) in [
        ("InvalidSignatureException", "Thu, 01 Jan 1970 00:00:00 GMT", true),
        ("SignatureDoesNotMatch", "Fri, 01 Jan 2100 00:00:00 GMT", true),
        ("InvalidSignatureException", "garbage", false),
        ("ValidationException", "Thu, 01 Jan 1970 00:00:00 GMT", false),
    ] {
        let (error, count) = after(full(400, &[("x-amzn-requestid", "r"), ("date", date)], &format!(r#"{{"__type":"{code}"}}"#))).await;
        assert_eq!((error.class(), count, error.clock_skew().is_some()), (Class::Misconfigured, 1, named), "{code} {date}");
        assert_eq!(error.to_string().contains("clock"), named, "{error}");
    }
}

#[tokio::test]
async fn what_a_peer_writes_is_shortened_and_holds_no_control_characters() {
    let text = format!("\u{1b}[31mred\r\n\u{7}\u{202e}{}", "x".repeat(40_000));
    let id = "i".repeat(4_000);
    let body = serde_json::json!({"__type": "AccessDeniedException", "message": text}).to_string();
    let (error, _) = after(full(400, &[("x-amzn-requestid", &id)], &body)).await;
    let shown = error.to_string();
    assert!(shown.contains("AccessDeniedException") && shown.contains("red"), "{shown}");
    assert!(shown.len() < 1_000 && !shown.chars().any(|c| c.is_control() || c == '\u{202e}'), "{shown:?}");
    let (error, _) = after(refused(400, &format!("Evil\u{1b}{}", "c".repeat(500)), "m")).await;
    assert!(error.code().is_none() && error.to_string().len() < 400, "{error}");
}

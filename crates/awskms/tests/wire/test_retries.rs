//! Every error code of the contract: its class, and how often it is asked for.

use crate::kms::{Kms, described, refused};
use crate::pki::Ca;
use crate::setup::{ask, config, describe, open};
use keystead_awskms::{Class, Client, ClientConfig, Hop};
use std::time::Duration;

const NAME: &str = "kms.test";

/// Status, code, message.
type Row = (u16, &'static str, &'static str);

const REVOKED: &[Row] = &[
    (400, "DisabledException", "arn is disabled."),
    (400, "KMSInvalidStateException", "arn:aws:kms:x is pending deletion."),
    (400, "KMSInvalidStateException", "arn:aws:kms:x is pending import."),
    (400, "NotFoundException", "Key 'arn' does not exist"),
    (400, "AccessDeniedException", "User is not authorized to perform: kms:Decrypt"),
    (400, "UnrecognizedClientException", "The security token included in the request is invalid."),
    (403, "InvalidClientTokenId", "m"),
    (403, "InactiveAccessKey", "m"),
];
const MISCONFIGURED: &[Row] = &[
    (400, "InvalidSignatureException", "m"),
    (403, "SignatureDoesNotMatch", "m"),
    (400, "IncompleteSignature", "m"),
    (400, "IncompleteSignatureException", "m"),
    (403, "MissingAuthenticationToken", "m"),
    (400, "MissingAuthenticationTokenException", "m"),
    (403, "ExpiredToken", "m"),
    (400, "ExpiredTokenException", "m"),
    (400, "ValidationException", "m"),
    (400, "InvalidArnException", "m"),
    (400, "InvalidKeyUsageException", "m"),
    (400, "IncorrectKeyException", "m"),
    (400, "UnsupportedOperationException", "m"),
    (400, "LimitExceededException", "m"),
    (400, "NobodyKnowsThisException", "m"),
];
const INTEGRITY: &[Row] = &[(400, "InvalidCiphertextException", "")];
const TRANSIENT: &[Row] = &[
    (400, "ThrottlingException", "Rate exceeded"),
    (400, "TooManyRequestsException", "m"),
    (500, "KMSInternalException", "m"),
    (500, "KeyUnavailableException", "m"),
    (503, "DependencyTimeoutException", "m"),
    (400, "KMSInvalidStateException", "arn:aws:kms:x is creating."),
    (400, "KMSInvalidStateException", "arn:aws:kms:x is updating."),
    (400, "KMSInvalidStateException", "arn:aws:kms:x is unavailable."),
    (500, "NobodyKnowsThisException", "m"),
    (507, "NobodyKnowsThisException", "m"),
];

#[tokio::test(flavor = "multi_thread")]
async fn each_code_has_its_class_and_only_the_transient_ones_are_tried_again() {
    let ca = Ca::new();
    let tls = ca.server(&[NAME]);
    let mut running = tokio::task::JoinSet::new();
    for (class, rows, times) in
        [(Class::Revoked, REVOKED, 1), (Class::Misconfigured, MISCONFIGURED, 1), (Class::Integrity, INTEGRITY, 1), (Class::Transient, TRANSIENT, 3)]
    {
        for (status, code, message) in rows {
            let (tls, pem) = (tls.clone(), ca.pem());
            running.spawn(async move {
                // The name may come with a namespace and a colon (AWS JSON 1.1 protocol, "Operation error serialization").
                for written in [(*code).to_owned(), format!("com.amazonaws.kms#{code}:http://x")] {
                    let kms = Kms::answering(tls.clone(), refused(*status, &written, message)).await;
                    let error = ask(&open(&pem, &[NAME]), config(NAME, kms.port())).await.unwrap_err();
                    assert_eq!((error.class(), error.code(), error.hop()), (class, Some(*code), Hop::Aws), "{written}: {error}");
                    assert!(error.evidence(), "{written}");
                    assert_eq!(kms.count(), times, "{written}: {message}");
                    assert!(kms.seen().iter().all(crate::kms::Seen::is_signed));
                }
            });
        }
    }
    while let Some(done) = running.join_next().await {
        done.unwrap();
    }
}

#[tokio::test]
async fn a_throttled_call_succeeds_when_aws_lets_it() {
    let ca = Ca::new();
    let kms = Kms::start(ca.server(&[NAME]), |_, number| if number < 2 { refused(400, "ThrottlingException", "m") } else { described() }).await;
    assert!(ask(&open(&ca.pem(), &[NAME]), config(NAME, kms.port())).await.unwrap().enabled);
    assert_eq!(kms.count(), 3);
}

/// The names asked for count the attempts, where nobody is there to count them.
#[tokio::test]
async fn a_refused_connection_is_tried_three_times() {
    let ca = Ca::new();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let names = crate::setup::Names::here(&[NAME]);
    let environment = crate::setup::environment(&ca.pem(), &["127.0.0.1".to_owned()], names.clone());
    let error = ask(&environment, config(NAME, port)).await.unwrap_err();
    assert_eq!((error.hop(), error.class()), (Hop::Connect, Class::Unreachable), "{error}");
    assert!(error.to_string().contains("refused"), "{error}");
    assert_eq!(names.asked().len(), 3);
}

/// The SDK keeps one budget of retries for a service and region in the whole process: a tenant whose endpoint is broken must not use up that of the others.
#[tokio::test(flavor = "multi_thread")]
async fn a_broken_endpoint_does_not_take_the_retries_of_others() {
    let ca = Ca::new();
    let broken = Kms::answering(ca.server(&[NAME]), refused(500, "KMSInternalException", "m")).await;
    let environment = open(&ca.pem(), &[NAME]);
    let client = Client::new(&environment, config(NAME, broken.port())).unwrap();
    let mut running = tokio::task::JoinSet::new();
    for _ in 0..200 {
        let client = client.clone();
        running.spawn(async move { describe(&client).await.unwrap_err() });
    }
    while running.join_next().await.is_some() {}
    let other = Kms::start(ca.server(&[NAME]), |_, number| if number < 2 { refused(500, "KMSInternalException", "m") } else { described() }).await;
    ask(&environment, ClientConfig { timeout: Duration::from_secs(5), ..config(NAME, other.port()) }).await.unwrap();
}

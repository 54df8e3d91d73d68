//! The rate of requests to one account and region.

use crate::kms::{Kms, described, refused};
use crate::pki::Ca;
use crate::setup::{config, describe, open};
use keystead_awskms::{Class, Client, ClientConfig};
use std::time::Duration;

/// Who would wait longer than a call may take is told so at once, and is not sent. So the calls count without a clock.
#[tokio::test(flavor = "multi_thread")]
async fn two_clients_of_one_account_share_the_rate() {
    let ca = Ca::new();
    let kms = Kms::answering(ca.server(&["kms.test"]), described()).await;
    let environment = open(&ca.pem(), &["kms.test"]);
    environment.set_requests_per_second(1);
    let short = |region: &str| {
        let mut config = ClientConfig { timeout: Duration::from_millis(500), ..config("kms.test", kms.port()) };
        config.endpoint.region = region.to_owned();
        Client::new(&environment, config).unwrap()
    };
    let clients = [short("eu-west-1"), short("eu-west-1")];
    let mut running = tokio::task::JoinSet::new();
    for number in 0..40 {
        let client = clients[number % 2].clone();
        running.spawn(async move { describe(&client).await });
    }
    // Another region has a rate of its own, however long the queue of this one is.
    describe(&short("eu-west-2")).await.unwrap();
    let (mut good, mut refused) = (0, 0);
    while let Some(done) = running.join_next().await {
        match done.unwrap() {
            Ok(_) => good += 1,
            Err(error) => {
                assert!(error.to_string().contains("requests_per_second"), "{error}");
                assert_eq!(error.class(), Class::Transient, "{error}");
                refused += 1;
            }
        }
    }
    assert!(good >= 1 && refused >= 20, "{good} sent, {refused} refused");
    assert_eq!(kms.count(), good + 1);
}

/// Each attempt takes a token: after three, of a rate of three, a fourth has to wait.
#[tokio::test]
async fn attempts_count_not_calls() {
    let ca = Ca::new();
    let kms = Kms::answering(ca.server(&["kms.test"]), refused(400, "ThrottlingException", "m")).await;
    let environment = open(&ca.pem(), &["kms.test"]);
    let client = Client::new(&environment, config("kms.test", kms.port())).unwrap();
    assert_eq!(describe(&client).await.unwrap_err().code(), Some("ThrottlingException"));
    assert_eq!(kms.count(), 3);
}

//! The rate of requests to one account and region.

use crate::kms::{Answer, Kms, described, refused};
use crate::pki::Ca;
use crate::setup::{config, describe, open};
use keystead_awskms::{Class, Client, ClientConfig, Environment};
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

/// While the first attempt is under way, others fill the queue: the second attempt meets it, and is not sent.
#[tokio::test(flavor = "multi_thread")]
async fn attempts_count_not_calls() {
    let ca = Ca::new();
    let environment = open(&ca.pem(), &["kms.test"]);
    let client = |environment: &Environment, port, seconds| {
        Client::new(environment, ClientConfig { timeout: Duration::from_secs(seconds), ..config("kms.test", port) }).unwrap()
    };
    let queue = environment.clone();
    let kms = Kms::start(ca.server(&["kms.test"]), move |_, _| {
        queue.set_requests_per_second(1);
        // Who has a longer timeout waits longer: what these fill is full for the first client, whatever its back-off is.
        let others = client(&queue, 1, 20);
        tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(fill(others)));
        refused(400, "ThrottlingException", "m")
    })
    .await;
    let error = describe(&client(&environment, kms.port(), 10)).await.unwrap_err();
    assert!(error.to_string().contains("requests_per_second"), "{error}");
    assert_eq!(kms.count(), 1);
}

/// Calls until one is told that the queue is full.
async fn fill(client: Client) {
    let mut running = tokio::task::JoinSet::new();
    for _ in 0..100 {
        let client = client.clone();
        running.spawn(async move { describe(&client).await });
    }
    while let Some(done) = running.join_next().await {
        if done.unwrap().is_err_and(|error| error.to_string().contains("requests_per_second")) {
            return;
        }
    }
    panic!("the queue has no end");
}

/// A limit for the whole operation: an attempt that could not end any more is not begun, and the failure of the one before is what is said.
#[tokio::test(flavor = "multi_thread")]
async fn one_limit_for_all_attempts() {
    let ca = Ca::new();
    let environment = open(&ca.pem(), &["kms.test"]);
    for (answer, within, times) in [
        (refused(400, "ThrottlingException", "m"), Duration::from_secs(20), 3),
        // Less than what another attempt would need is left from the beginning.
        (refused(400, "ThrottlingException", "m"), Duration::from_millis(740), 1),
        (Answer::Silence, Duration::from_secs(2), 1),
    ] {
        let kms = Kms::answering(ca.server(&["kms.test"]), answer).await;
        let client = Client::new(&environment, config("kms.test", kms.port())).unwrap();
        client.turn(Duration::ZERO).await.unwrap();
        let error = describe(&client.within(within)).await.unwrap_err();
        assert!(matches!(error.class(), Class::Transient | Class::Unreachable), "{error}");
        assert_eq!(kms.count(), times, "{error}");
    }
}

//! The promise (`contract/revocation.md`) in real time over real sockets: KMIP clients read every second, keys are revoked in AWS in five ways, and come back.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use crate::common;

use common::kmip::{Credentials, Kmip};
use common::relay::Relay;
use common::{Node, SECRET, enable_body, stand_in, toml_for};
use keystead::serve::Hooks;
use keystead_testkit::{Denial, KeyState, KmsStandIn, NewKey};
use serde_json::json;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How the tenant takes the key away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Disabled,
    PendingDeletion,
    AccessKey,
    Policy,
    /// Disabled, and as soon as the denial is confirmed the way to AWS is cut: that must not save the key.
    Firewall,
}

const WAYS: [Way; 5] = [Way::Disabled, Way::PendingDeletion, Way::AccessKey, Way::Policy, Way::Firewall];

struct Tenant {
    way: Way,
    key: String,
    access_key_id: String,
    path: String,
    bound: Duration,
    /// Every second's answer, since the start of the watch: whether the key was handed out.
    seen: Arc<Mutex<Vec<(Instant, bool)>>>,
}

impl Tenant {
    fn revoke(&self, kms: &KmsStandIn) {
        match self.way {
            Way::Disabled | Way::Firewall => kms.set_key_state(&self.key, KeyState::Disabled).unwrap(),
            Way::PendingDeletion => kms.set_key_state(&self.key, KeyState::PendingDeletion).unwrap(),
            Way::AccessKey => kms.deactivate_access_key(&self.access_key_id).unwrap(),
            Way::Policy => kms.deny(&self.key, Denial::default()).unwrap(),
        }
    }

    fn give_back(&self, kms: &KmsStandIn) {
        match self.way {
            Way::Disabled | Way::Firewall | Way::PendingDeletion => kms.set_key_state(&self.key, KeyState::Enabled).unwrap(),
            Way::AccessKey => kms.activate_access_key(&self.access_key_id).unwrap(),
            Way::Policy => kms.restore_access(&self.key).unwrap(),
        }
    }

    fn last(&self) -> bool {
        self.seen.lock().unwrap().last().is_some_and(|(_, served)| *served)
    }

    /// The first answer after `since` that is `served`.
    fn first(&self, since: Instant, served: bool) -> Option<Instant> {
        self.seen.lock().unwrap().iter().find(|(at, was)| *at >= since && *was == served).map(|(at, _)| *at)
    }
}

/// Reads a key every second, over one connection, until it is told to stop.
fn watch_key(mut kmip: Kmip, id: String, seen: Arc<Mutex<Vec<(Instant, bool)>>>, stop: Receiver<()>) {
    while stop.recv_timeout(Duration::from_secs(1)) == Err(RecvTimeoutError::Timeout) {
        let answer = kmip.get(&id);
        if answer.reason().is_some() {
            assert!(answer.message().contains("blocked"), "{}", answer.message());
        }
        seen.lock().unwrap().push((Instant::now(), answer.reason().is_none()));
    }
}

/// Waits for something that must come within `limit`.
async fn within(limit: Duration, what: &str, mut look: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + limit;
    while !look().await {
        assert!(Instant::now() < end, "{what}, within {} s", limit.as_secs());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn revoked_blocked_given_back_served() {
    let (kms, _) = stand_in().await;
    let relay = Relay::to(kms.addr()).await;
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let toml = format!("{}access_error_grace = \"10s\"\n", toml_for(&kms, folder.path()));
    let node = Node::start_in(folder, &toml, Hooks::default()).await.unwrap();
    let mut tenants = Vec::new();
    let mut watches = Vec::new();
    for (n, way) in WAYS.into_iter().enumerate() {
        let svm = format!("svm{n}");
        node.svm(&svm).await;
        let key = kms.create_key(NewKey::default()).unwrap().key_id;
        let access_key_id = format!("AKIATENANTTENANT{n:04}");
        kms.add_access_key(&access_key_id, SECRET);
        let mut body = enable_body(&svm, &kms, &key);
        body["access_key_id"] = json!(access_key_id);
        body["polling_period"] = json!(1);
        body["timeout"] = json!(2);
        if way == Way::Firewall {
            body["port"] = json!(relay.address.port());
        } else {
            body["keystead"] = json!({ "access_error_grace": "0s" });
        }
        let (status, answer) = node.enable(body).await;
        assert_eq!(status, 201, "{answer}");
        let path = format!("/security/aws-kms/{}", answer["records"][0]["uuid"].as_str().unwrap());
        let bound = node.get(&format!("{path}?fields=keystead.bound")).await["keystead"]["bound"].as_u64().unwrap();
        let client = Credentials::issue(&node, &svm).await;
        let tenant = Tenant { way, key, access_key_id, path, bound: Duration::from_secs(bound), seen: Arc::default() };
        let (endpoint, seen) = (client.endpoint(node.ekmip), Arc::clone(&tenant.seen));
        let (stop, stopped) = channel();
        let watch = std::thread::spawn(move || {
            let mut kmip = Kmip::connect(&endpoint);
            let id = kmip.created(Vec::new());
            watch_key(kmip, id, seen, stopped);
        });
        watches.push((stop, watch));
        tenants.push(tenant);
    }
    within(Duration::from_secs(20), "all keys must be served", async || tenants.iter().all(Tenant::last)).await;
    assert!(tenants.iter().all(|tenant| tenant.bound < Duration::from_secs(85)), "the page says under 85 s with these settings");

    let revoked = Instant::now();
    tenants.iter().for_each(|tenant| tenant.revoke(&kms));
    let firewalled = tenants.iter().find(|tenant| tenant.way == Way::Firewall).unwrap();
    within(firewalled.bound, "the denial must be confirmed", async || {
        node.get(&format!("{}?fields=state", firewalled.path)).await["state"]["message"].as_str().unwrap().contains("revoking")
    })
    .await;
    relay.lead(None);
    within(Duration::from_secs(90), "all must be blocked", async || tenants.iter().all(|tenant| !tenant.last())).await;
    for tenant in &tenants {
        let took = tenant.first(revoked, false).unwrap() - revoked;
        println!("{:?}: no key {:.1} s after the revocation; the bound is {} s", tenant.way, took.as_secs_f64(), tenant.bound.as_secs());
        // The client looks once a second, so it sees the block up to a second late.
        assert!(took <= tenant.bound + Duration::from_secs(1), "{:?}: {took:?}", tenant.way);
    }

    let given_back = Instant::now();
    tenants.iter().for_each(|tenant| tenant.give_back(&kms));
    relay.lead(Some(kms.addr()));
    // Polls come each minute, and the way to AWS was cut.
    within(Duration::from_secs(90), "all must be served again, without help", async || tenants.iter().all(Tenant::last)).await;
    for tenant in &tenants {
        println!("{:?}: served {:.1} s after it was given back", tenant.way, (tenant.first(given_back, true).unwrap() - given_back).as_secs_f64());
    }
    for (stop, watch) in watches {
        drop(stop);
        watch.join().unwrap();
    }
    // What is blocked stays blocked until AWS says otherwise: between the first refusal and the giving back nobody got a key.
    for tenant in &tenants {
        let blocked = tenant.first(revoked, false).unwrap();
        assert!(tenant.seen.lock().unwrap().iter().all(|(at, served)| !(*served && *at > blocked && *at < given_back)), "{:?}", tenant.way);
    }
    node.stop().await;
}

//! A node with an SVM that is enabled, and a client certificate for it.

use super::faulty::Faulty;
use super::kmip::{Credentials, Kmip};
use super::{ManualClock, Node, enable_body, eventually, stand_in, toml_for};
use keystead::serve::Hooks;
use keystead_store::Txn;
use keystead_testkit::{KeyState, KmsStandIn};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

pub struct Scene {
    pub kms: KmsStandIn,
    pub key: String,
    pub node: Node,
    pub store: Faulty,
    pub clock: Arc<ManualClock>,
    /// The configuration of `svm1`.
    pub config: String,
    pub client: Credentials,
}

/// A node with `svm1` enabled, and a client certificate for it.
pub async fn scene() -> Scene {
    scene_with("", Hooks::default()).await
}

/// The same with more in the configuration file, and with hooks of the test's own.
pub async fn scene_with(more: &str, hooks: Hooks) -> Scene {
    let (kms, key) = stand_in().await;
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let (store, clock) = (Faulty::default(), ManualClock::new());
    let hooks = Hooks { store: store.hook(), clock: clock.clone(), ..hooks };
    let node = Node::start_in(folder.clone(), &format!("{}{more}", toml_for(&kms, folder.path())), hooks).await.unwrap();
    node.svm("svm1").await;
    let config = enabled(&node, &kms, &key, "svm1").await;
    let client = Credentials::issue(&node, "svm1").await;
    Scene { kms, key, node, store, clock, config, client }
}

pub async fn enabled(node: &Node, kms: &KmsStandIn, key: &str, svm: &str) -> String {
    let (status, body) = node.enable(enable_body(svm, kms, key)).await;
    assert_eq!(status, 201, "{body}");
    format!("/security/aws-kms/{}", body["records"][0]["uuid"].as_str().unwrap())
}

/// An account that administers one SVM, with the password of `admin`.
pub async fn tenant<'n>(node: &'n Node, store: &Faulty, svm: &str) -> Tenant<'n> {
    let admin = store.inner().get("/accounts/admin").await.unwrap().unwrap();
    let mut account: Value = serde_json::from_slice(&admin.value).unwrap();
    account["name"] = json!("tenant");
    account["role"] = json!({ "name": "vsadmin", "svm": svm_uuid(node, svm).await });
    store.inner().transact(Txn::new().put("/accounts/tenant", account.to_string())).await.unwrap();
    let tenant = Tenant(node);
    eventually("the account must be known", async || (tenant.ask("GET", "/cluster", Value::Null).await.0 == 200).then_some(())).await;
    tenant
}

pub async fn svm_uuid(node: &Node, name: &str) -> String {
    node.get(&format!("/svm/svms?name={name}")).await["records"][0]["uuid"].as_str().unwrap().to_owned()
}

impl Scene {
    pub fn connect(&self) -> Kmip {
        Kmip::connect(&self.client.endpoint(self.node.ekmip))
    }

    pub fn at(&self, minor: i32) -> Kmip {
        self.speaking(1, minor)
    }

    /// A client of any version.
    pub fn speaking(&self, major: i32, minor: i32) -> Kmip {
        let mut kmip = self.connect();
        (kmip.major, kmip.minor) = (major, minor);
        kmip
    }

    /// An account that administers one SVM, with the password of `admin`.
    pub async fn tenant(&self, svm: &str) -> Tenant<'_> {
        tenant(&self.node, &self.store, svm).await
    }

    pub async fn svm_uuid(&self, name: &str) -> String {
        svm_uuid(&self.node, name).await
    }

    /// Blocks `svm1`: the customer key is disabled, and the polls that confirm it have passed.
    pub async fn block(&self) {
        let settings = json!({ "aws_kms": { "access_error_grace": "0s", "min_poll_interval": "5s" } });
        assert_eq!(self.node.ask("PATCH", "/security/ekmip/settings", Some(settings)).await.0, 200);
        self.kms.set_key_state(&self.key, KeyState::Disabled).unwrap();
        eventually("the SVM must be blocked", async || {
            self.clock.advance(Duration::from_secs(60 * 60));
            let state = self.node.get(&format!("{}?fields=state", self.config)).await;
            (state["state"]["cluster_state"] == false && state["state"]["message"].as_str().unwrap().contains("blocked")).then_some(())
        })
        .await;
    }
}

/// Calls as the account `tenant`.
pub struct Tenant<'s>(&'s Node);

impl Tenant<'_> {
    pub async fn ask(&self, method: &str, path: &str, body: Value) -> (u16, Value) {
        let mut request =
            self.0.client.request(method.parse().unwrap(), format!("https://{}/api{path}", self.0.address)).basic_auth("tenant", Some(super::PASSWORD));
        if !body.is_null() && method != "GET" {
            request = request.body(body.to_string());
        }
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap_or_default())
    }
}

//! A cluster: a real etcd, and nodes of the real program that have joined each other.

use super::run::Run;
use super::{Node, enable_body, eventually, stand_in, stand_in_with, toml_for};
use crate::common::kmip::{Credentials, Kmip};
use keystead::serve::Hooks;
use keystead_store::etcd::{EtcdOptions, EtcdStore, EtcdTls};
use keystead_testkit::clock::FalseClock;
use keystead_testkit::etcd::{ClientTls, Etcd, Place};
use keystead_testkit::network::{Host, Network};
use keystead_testkit::{KmsStandIn, Options, Tls};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

const PASSPHRASE: &str = "a passphrase for a day";

/// Nodes on one etcd. Those that were killed are `None`.
pub struct Cluster {
    pub etcd: Etcd,
    pub nodes: Vec<Option<Run>>,
    pub kms: KmsStandIn,
    pub key: String,
    /// Where the nodes are, in a network of the test's own; else none.
    pub hosts: Vec<Host>,
    /// Where the members of etcd are.
    pub member_hosts: Vec<Host>,
    /// The clocks of the nodes, where the test sets them.
    pub clocks: Vec<FalseClock>,
    /// What nodes are started with, where that is another build.
    pub program: Option<PathBuf>,
    root: tempfile::TempDir,
}

/// What the machines of a test's own network have.
#[derive(Default)]
pub struct Machines {
    /// The disk of each member of etcd, in bytes, where a test fills it.
    pub disk: Option<u64>,
    /// Whether the test sets the clocks of nodes.
    pub clocks: bool,
}

/// Nodes and members of etcd in a network of the test's own: three of each.
const MACHINES: u8 = 3;

impl Cluster {
    /// A cluster of so many members of etcd and so many nodes. The first node makes it, the others join with an invitation.
    pub async fn start(members: usize, nodes: usize) -> Self {
        Self::start_of(None, members, nodes).await
    }

    /// The same of another build.
    pub async fn start_of(program: Option<PathBuf>, members: usize, nodes: usize) -> Self {
        let etcd = Etcd::start(members).await.unwrap_or_else(|error| panic!("{error}"));
        let (kms, key) = stand_in().await;
        let root = tempfile::tempdir().unwrap();
        let mut cluster = Self { etcd, nodes: Vec::new(), kms, key, hosts: Vec::new(), member_hosts: Vec::new(), clocks: Vec::new(), program, root };
        for _ in 0..nodes {
            cluster.add().await;
        }
        cluster
    }

    /// Three members of etcd and three nodes, each on a host of its own. AWS is the test itself.
    pub async fn start_in(network: &Network, machines: Machines) -> Self {
        let make = |name: &str, first: u8| (0..MACHINES).map(|n| network.host(&format!("{name}{n}"), first + n).unwrap()).collect::<Vec<_>>();
        let (hosts, member_hosts) = (make("node", 11), make("m", 21));
        let place = |host: &Host| Place { address: host.inner_address(), namespace: Some(host.name().to_owned()), disk: machines.disk };
        let etcd = Etcd::start_at(member_hosts.iter().map(place).collect()).await.unwrap_or_else(|error| panic!("{error}"));
        let address = Network::INNER_ADDRESS;
        let (kms, key) = stand_in_with(Options { listen: (address, 0).into(), tls: Tls::SelfSigned(vec![address.to_string()]), ..Options::default() }).await;
        let root = tempfile::tempdir().unwrap();
        let clock = |n: u8| FalseClock::new(root.path().join(format!("clock{n}"))).unwrap_or_else(|error| panic!("{error}"));
        let clocks = if machines.clocks { (0..MACHINES).map(clock).collect() } else { Vec::new() };
        let mut cluster = Self { etcd, nodes: Vec::new(), kms, key, hosts, member_hosts, clocks, program: None, root };
        for _ in 0..MACHINES {
            cluster.add().await;
        }
        cluster
    }

    /// One more node.
    pub async fn add(&mut self) {
        let number = self.nodes.len();
        let folder = self.folder(number);
        std::fs::create_dir_all(&folder).unwrap();
        let mut toml = toml_for(&self.kms, &folder);
        let mut flags = Vec::new();
        if number == 0 {
            toml += &store_section(&self.etcd.endpoints(), self.etcd.tls(), &folder);
        } else {
            let (invitation, passphrase) = self.invite();
            flags = ["--join", invitation.to_str().unwrap(), "--passphrase-file", passphrase.to_str().unwrap()].map(str::to_owned).to_vec();
        }
        std::fs::write(folder.join("keystead.toml"), toml).unwrap();
        std::fs::write(folder.join("flags"), flags.join("\n")).unwrap();
        self.nodes.push(None);
        self.restart(number).await;
    }

    /// Starts a node that does not run, as it was started before.
    pub async fn restart(&mut self, number: usize) {
        let folder = self.folder(number);
        let flags = std::fs::read_to_string(folder.join("flags")).unwrap();
        let name = format!("node{number}");
        let flags: Vec<&str> = ["--node-name", &name].into_iter().chain(flags.lines()).collect();
        self.nodes[number] = Some(match self.hosts.get(number) {
            Some(host) => Run::start_at(host, self.clocks.get(number), &folder, &flags).await,
            None => Run::start_of(self.program.as_deref(), &folder, &flags).await,
        });
    }

    /// `kill -9`.
    pub fn kill(&mut self, number: usize) {
        self.nodes[number].take().unwrap().kill();
    }

    /// Ends a node as an operator does.
    pub fn stop(&mut self, number: usize) {
        self.nodes[number].take().unwrap().stop();
    }

    /// Sends a signal to a node: `-STOP`, `-CONT`.
    pub fn signal(&self, number: usize, signal: &str) {
        assert!(Command::new("kill").args([signal, &self.node(number).child.id().to_string()]).status().unwrap().success());
    }

    pub fn node(&self, number: usize) -> &Run {
        self.nodes[number].as_ref().unwrap()
    }

    pub fn folder(&self, number: usize) -> PathBuf {
        self.root.path().join(format!("node{number}"))
    }

    pub fn log(&self, number: usize) -> String {
        std::fs::read_to_string(self.folder(number).join("log")).unwrap_or_default()
    }

    /// Has node 0 write an invitation; answers it, and the file of its passphrase.
    pub fn invite(&self) -> (PathBuf, PathBuf) {
        let (folder, name) = (self.folder(0), uuid::Uuid::new_v4());
        let (invitation, passphrase) = (self.root.path().join(format!("{name}.invitation")), self.root.path().join("passphrase"));
        std::fs::write(&passphrase, format!("{PASSPHRASE}\n")).unwrap();
        let invited = keystead(&["cluster", "invite", "--data-dir"])
            .arg(folder.join("data"))
            .arg("--config")
            .arg(folder.join("keystead.toml"))
            .arg("--out")
            .arg(&invitation)
            .arg("--passphrase-file")
            .arg(&passphrase)
            .output()
            .unwrap();
        assert!(invited.status.success(), "{}", String::from_utf8_lossy(&invited.stderr));
        (invitation, passphrase)
    }

    /// An SVM with AWS KMS, by node 0, that every node serves; answers the path of its configuration, and a client.
    pub async fn tenant(&self, svm: &str) -> (String, Credentials) {
        let node = self.node(0);
        assert_eq!(node.call("POST", "/svm/svms?return_timeout=30", Some(json!({ "name": svm }))).await.unwrap().0, 201);
        let body = enable_body(svm, &self.kms, &self.key);
        let (status, body) = node.call("POST", "/security/aws-kms?return_timeout=60&return_records=true", Some(body)).await.unwrap();
        assert_eq!(status, 201, "{body}");
        let config = format!("/security/aws-kms/{}", body["records"][0]["uuid"].as_str().unwrap());
        let client = Credentials::issue_by(node, svm).await;
        // Each node hears of the client, and loads the KEK, a moment later.
        for node in self.nodes.iter().flatten() {
            let endpoint = client.endpoint(node.ekmip);
            eventually("every node must serve the SVM", async || {
                let made = Kmip::try_connect(&endpoint)?.try_register(b"the SVM is served", &[]).ok()?;
                made.reason().is_none().then_some(())
            })
            .await;
        }
        (config, client)
    }

    /// One more node, in the test's own process, so that the test owns its time or its version: it has the others' seal key, and their access to etcd.
    pub async fn beside(&self, folder: &Arc<tempfile::TempDir>, toml: &str, hooks: Hooks) -> Node {
        self.beside_as("other", folder, toml, hooks).await
    }

    /// The same under a name.
    pub async fn beside_as(&self, name: &str, folder: &Arc<tempfile::TempDir>, toml: &str, hooks: Hooks) -> Node {
        let data = folder.path().join("data");
        std::fs::create_dir_all(&data).unwrap();
        std::fs::copy(self.folder(0).join("data/seal.key"), data.join("seal.key")).unwrap();
        let store = store_section(&self.etcd.endpoints(), self.etcd.tls(), folder.path());
        let toml = format!("node_name = \"{name}\"\n{toml}{}{store}", toml_for(&self.kms, folder.path()));
        Node::start_in(Arc::clone(folder), &toml, hooks).await.unwrap()
    }

    /// Waits until a node shows that another has a state.
    pub async fn shows(&self, node: usize, other: usize, state: &str) -> Value {
        let name = format!("node{other}");
        eventually(&format!("node{node} must show that {name} is {state}"), async || {
            let body = self.node(node).get("/cluster/nodes?fields=*").await;
            let record = body["records"].as_array()?.iter().find(|record| record["name"] == name.as_str())?.clone();
            (record["state"] == state).then_some(record)
        })
        .await
    }
}

/// The program, with nothing of Keystead's in its surroundings.
pub fn keystead(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_keystead"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("KEYSTEAD_")) {
        command.env_remove(name);
    }
    command.args(arguments).stdin(std::process::Stdio::null());
    command
}

/// The store of a cluster, as its nodes see it. `prefix`: theirs is `/keystead`.
pub fn store_of(etcd: &Etcd, prefix: &str) -> EtcdStore {
    let tls = etcd.tls().clone();
    let tls = EtcdTls { ca: tls.ca.into(), certificate: tls.certificate.into(), key: tls.key.into_bytes().into() };
    EtcdStore::new(&EtcdOptions { endpoints: etcd.endpoints(), prefix: prefix.to_owned(), tls: Some(tls) }).unwrap()
}

/// `[store]` of a node that makes a cluster.
pub fn store_section(endpoints: &[String], tls: &ClientTls, folder: &Path) -> String {
    use std::os::unix::fs::PermissionsExt as _;
    for (name, text) in [("etcd-ca.pem", &tls.ca), ("etcd.pem", &tls.certificate), ("etcd.key", &tls.key)] {
        std::fs::write(folder.join(name), text).unwrap();
        std::fs::set_permissions(folder.join(name), std::fs::Permissions::from_mode(0o600)).unwrap();
    }
    let path = |name: &str| folder.join(name).display().to_string();
    format!(
        "[store]\nbackend = \"etcd\"\nendpoints = {endpoints:?}\nca = {:?}\ncertificate = {:?}\nkey = {:?}\n",
        path("etcd-ca.pem"),
        path("etcd.pem"),
        path("etcd.key")
    )
}

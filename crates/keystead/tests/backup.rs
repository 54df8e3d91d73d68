//! `keystead backup`, `backup verify` and `restore`: taken while clients make keys, proven against AWS KMS, and restored on an empty machine, where every key is what it was.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use crate::common;

use common::cluster::{keystead, store_section};
use common::kmip::{Credentials, Kmip};
use common::run::Run;
use common::{SECRET, enable_body, eventually, stand_in, toml_for};
use keystead_kmip::enumeration::Operation;
use keystead_manager::backup::{Backup, Key, inventory};
use keystead_testkit::etcd::Etcd;
use keystead_testkit::{KeyState, KmsStandIn};
use secrecy::SecretString;
use serde_json::json;
use std::collections::BTreeMap;
use std::io::BufReader;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

const PASSPHRASE: &str = "a passphrase for the backup";

/// What a command has printed, and its exit code.
struct Told {
    code: i32,
    out: String,
    errors: String,
}

fn run(arguments: &[&str], files: &[(&str, &Path)]) -> Told {
    let mut command = keystead(arguments);
    for (flag, path) in files {
        if !flag.is_empty() {
            command.arg(flag);
        }
        command.arg(path);
    }
    let done = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Told { code: done.status.code().unwrap(), out: text(&done.stdout), errors: text(&done.stderr) }
}

impl Told {
    fn good(self) -> String {
        assert_eq!(self.code, 0, "{} {}", self.out, self.errors);
        self.out
    }

    fn refused(self, code: i32, why: &str) {
        assert!(self.code == code && (self.out.contains(why) || self.errors.contains(why)), "{} {} {}", self.code, self.out, self.errors);
    }
}

async fn start(folder: &Path, toml: &str) -> Run {
    std::fs::write(folder.join("keystead.toml"), toml).unwrap();
    Run::start_with(folder, &[]).await
}

/// A node with an SVM that has AWS KMS, and one at the onboard key manager; the client of each.
async fn node(folder: &Path, toml: &str, kms: &KmsStandIn, key: &str) -> (Run, Credentials, Credentials) {
    let node = start(folder, toml).await;
    for svm in ["svm1", "svm2"] {
        assert_eq!(node.call("POST", "/svm/svms?return_timeout=30", Some(json!({ "name": svm }))).await.unwrap().0, 201);
    }
    assert_eq!(node.call("POST", "/security/aws-kms?return_timeout=60", Some(enable_body("svm1", kms, key))).await.unwrap().0, 201);
    let onboard = json!({ "onboard": { "passphrase": "a passphrase of more than 32 bytes, for the cluster" } });
    assert_eq!(node.call("POST", "/security/key-managers?return_timeout=60", Some(onboard)).await.unwrap().0, 201);
    let (one, two) = (Credentials::issue_by(&node, "svm1").await, Credentials::issue_by(&node, "svm2").await);
    (node, one, two)
}

fn material(node: &Run, client: &Credentials, ids: &[String]) -> Vec<Vec<u8>> {
    tokio::task::block_in_place(|| Kmip::connect(&client.endpoint(node.ekmip)).materials(ids))
}

/// Waits until the node has the KEK and knows the client.
async fn served(node: &Run, client: &Credentials, id: &str) {
    let endpoint = client.endpoint(node.ekmip);
    eventually("the node must serve the SVM", async || Kmip::try_connect(&endpoint)?.try_with_id(Operation::Get, id).ok()?.reason().is_none().then_some(()))
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_key_is_what_it_was_on_an_empty_machine() {
    let (kms, key) = stand_in().await;
    let temporary = tempfile::tempdir().unwrap();
    let folder = |name: &str| {
        let path = temporary.path().join(name);
        std::fs::create_dir_all(&path).unwrap();
        path
    };
    let (here, there) = (folder("here"), folder("there"));
    let toml = toml_for(&kms, temporary.path());
    let (node, one, two) = node(&here, &toml, &kms, &key).await;
    let make = |client: &Credentials, count: usize| tokio::task::block_in_place(|| Kmip::connect(&client.endpoint(node.ekmip)).created_together(count));
    let (ids, onboard_ids) = (make(&one, 300), make(&two, 20));
    let (materials, onboard_materials) = (material(&node, &one, &ids), material(&node, &two, &onboard_ids));

    // While others make keys.
    let passphrase = temporary.path().join("passphrase");
    std::fs::write(&passphrase, format!("{PASSPHRASE}\n")).unwrap();
    let (file, stop) = (temporary.path().join("backup"), Arc::new(AtomicBool::new(false)));
    let making = {
        let (stop, endpoint) = (Arc::clone(&stop), one.endpoint(node.ekmip));
        std::thread::spawn(move || {
            let mut kmip = Kmip::connect(&endpoint);
            let mut made = 0;
            while !stop.load(Ordering::Relaxed) {
                kmip.created(vec![]);
                made += 1;
            }
            made
        })
    };
    let (data, config) = (here.join("data"), here.join("keystead.toml"));
    let take = |out: &Path| run(&["backup"], &[("--data-dir", &data), ("--config", &config), ("--out", out), ("--passphrase-file", &passphrase)]);
    let said = take(&file).good();
    assert!(said.contains("a backup of the cluster keystead"), "{said}");
    take(&file).refused(1, "is there already");
    stop.store(true, Ordering::Relaxed);
    assert!(making.join().unwrap() > 0);
    let text = std::fs::read(&file).unwrap();
    assert!(!text.windows(SECRET.len()).any(|window| window == SECRET.as_bytes()));

    // The drill; and when AWS KMS denies the key.
    let open: [(&str, &Path); 2] = [("", &file), ("--passphrase-file", &passphrase)];
    let verify = || run(&["backup", "verify"], &[open[0], open[1], ("--config", &config)]);
    let said = verify().good();
    assert!(said.contains("everything in it can be recovered") && said.contains("SVM svm1: ") && said.contains("SVM svm2: 20 of 20 keys unwrap"), "{said}");
    kms.set_key_state(&key, KeyState::Disabled).unwrap();
    verify().refused(3, "NOT RECOVERABLE version 1 of the KEK");
    run(&["backup", "verify", "--without-aws"], &open).refused(3, "AWS KMS was not asked");
    kms.set_key_state(&key, KeyState::Enabled).unwrap();
    let wrong = temporary.path().join("wrong");
    std::fs::write(&wrong, "another passphrase\n").unwrap();
    run(&["backup", "verify"], &[open[0], ("--passphrase-file", &wrong)]).refused(1, "the passphrase is not the one");

    // What happens afterwards.
    let mut kmip = Kmip::connect(&one.endpoint(node.ekmip));
    kmip.with_id(Operation::Destroy, &ids[7]).payload();
    assert_eq!(node.call("DELETE", &format!("/security/ekmip/clients/{}", two.uuid), None).await.unwrap().0, 200);
    let lost = kmip.created(vec![]);
    drop(kmip);
    assert_eq!(node.call("POST", "/svm/svms?return_timeout=30", Some(json!({ "name": "svm3" }))).await.unwrap().0, 201);
    let later = temporary.path().join("later");
    take(&later).good();
    node.stop();

    let to = there.join("data");
    std::fs::write(there.join("keystead.toml"), &toml).unwrap();
    let audit = data.join("audit");
    let restore = |more: &[(&str, &Path)]| run(&["restore"], &[&open[..], &[("--data-dir", &to), ("--audit", &audit)], more].concat());
    let said = run(&["restore", "--dry-run"], &[open[0], open[1], ("--data-dir", &to), ("--audit", &audit)]).good();
    assert!(!to.exists() && said.contains("nothing was written"), "{said}");
    // By a backup of the store that is given up: exact, the keys of the time in between among it.
    let compared = |this: &Path, later: &Path| run(&["restore", "--dry-run"], &[("", this), open[1], ("--data-dir", &to), ("--later-backup", later)]);
    let said = compared(&file, &later).good();
    let alive = said.lines().filter(|line| line.starts_with("comes back to life: ")).collect::<Vec<_>>();
    assert_eq!(alive.len(), 2, "{said}");
    assert!(alive[0].ends_with(&format!("the key {} of the SVM svm1, which was destroyed since", ids[7])), "{said}");
    assert!(alive[1].contains("the EKMIP client ") && alive[1].ends_with("of the SVM svm2, which was revoked since"), "{said}");
    let lost_lines = said.lines().filter(|line| line.starts_with("is lost: ")).collect::<Vec<_>>();
    assert!(lost_lines.len() == 2 && lost_lines[0].contains("keys that were made in the SVM svm1 since") && lost_lines[1].contains("the SVM svm3"), "{said}");
    assert!(compared(&file, &file).good().contains("nothing comes back to life, and nothing is lost"));
    compared(&later, &file).refused(1, "it is older");
    let said = restore(&[]).good();
    for expected in [format!("comes back to life: the key {} of the SVM svm1, which was destroyed", ids[7]), "comes back to life: the EKMIP client".to_owned()]
    {
        assert!(said.contains(&expected), "{said}");
    }
    assert!(said.contains("is lost: ") && said.contains("objects that were made over KMIP in the SVM svm1"), "{said}");
    let restored = start(&there, &toml).await;
    restore(&[]).refused(1, "in use");
    served(&restored, &one, &ids[0]).await;
    assert!(material(&restored, &one, &ids) == materials, "every key is what it was, the destroyed one too");
    served(&restored, &two, &onboard_ids[0]).await;
    assert!(material(&restored, &two, &onboard_ids) == onboard_materials);
    let mut kmip = Kmip::connect(&one.endpoint(restored.ekmip));
    assert!(kmip.get(&lost).reason().is_some(), "what came after the backup is lost");
    assert_eq!(restored.get("/cluster/nodes").await["num_records"], 1, "nodes of that time are gone");
    kmip.created(vec![]);
    drop(kmip);
    restored.stop();
    restore(&[]).refused(1, "already");
}

/// Every byte of a real backup, sealed for a recipient.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_byte_that_was_changed_is_noticed() {
    let (kms, key) = stand_in().await;
    let temporary = tempfile::tempdir().unwrap();
    let toml = toml_for(&kms, temporary.path());
    let (node, one, _) = node(temporary.path(), &toml, &kms, &key).await;
    tokio::task::block_in_place(|| Kmip::connect(&one.endpoint(node.ekmip)).created(vec![]));
    let (identity, file) = (temporary.path().join("identity"), temporary.path().join("backup"));
    let recipient = run(&["backup", "keygen"], &[("--out", &identity)]).good();
    let (data, config) = (temporary.path().join("data"), temporary.path().join("keystead.toml"));
    run(&["backup", "--recipient", recipient.trim()], &[("--data-dir", &data), ("--config", &config), ("--out", &file)]).good();
    let open = [("", file.as_path()), ("--identity-file", identity.as_path())];
    run(&["backup", "verify"], &[open[0], open[1], ("--config", &config)]).good();
    node.stop();

    let text = std::fs::read(&file).unwrap();
    let identity = SecretString::from(std::fs::read_to_string(&identity).unwrap());
    let changed = |text: Vec<u8>| {
        let backup = Backup::new(Key::Identity(identity.clone()), move || Ok(Box::new(BufReader::new(std::io::Cursor::new(text.clone())))));
        inventory(&backup, |_| {}).map(|inventory| inventory.records)
    };
    assert!(changed(text.clone()).unwrap() > 10);
    let step = if std::env::var_os("SOAK").is_some() { 1 } else { 17 };
    for at in (0..text.len()).step_by(step).chain(0..700) {
        let mut text = text.clone();
        text[at] ^= 1 << (at % 8);
        assert!(changed(text).is_err(), "byte {at} was changed");
    }
    for cut in (0..text.len()).step_by(step * 11) {
        assert!(changed(text[..cut].to_vec()).is_err(), "cut off at {cut}");
    }
}

/// From a cluster, into another place of its etcd.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_is_restored_into_an_empty_etcd() {
    let etcd = Etcd::start(1).await.unwrap_or_else(|error| panic!("{error}"));
    let (kms, key) = stand_in().await;
    let temporary = tempfile::tempdir().unwrap();
    let (here, there) = (temporary.path().join("here"), temporary.path().join("there"));
    std::fs::create_dir_all(&here).unwrap();
    std::fs::create_dir_all(&there).unwrap();
    let toml = toml_for(&kms, temporary.path()) + &store_section(&etcd.endpoints(), etcd.tls(), temporary.path());
    let (node, one, _) = node(&here, &toml, &kms, &key).await;
    let ids = tokio::task::block_in_place(|| Kmip::connect(&one.endpoint(node.ekmip)).created_together(1_500));
    let materials = material(&node, &one, &ids);
    let (file, passphrase) = (temporary.path().join("backup"), temporary.path().join("passphrase"));
    std::fs::write(&passphrase, format!("{PASSPHRASE}\n")).unwrap();
    let config = here.join("keystead.toml");
    run(&["backup"], &[("--data-dir", &here.join("data")), ("--config", &config), ("--out", &file), ("--passphrase-file", &passphrase)]).good();

    let config = there.join("keystead.toml");
    let (to, open) = (there.join("data"), [("", file.as_path()), ("--passphrase-file", passphrase.as_path())]);
    std::fs::write(&config, &toml).unwrap();
    let into = |config: &Path| run(&["restore"], &[open[0], open[1], ("--data-dir", &to), ("--config", config)]);
    into(&config).refused(1, "has records already");
    assert!(!to.join("seal.key").exists(), "nothing is written where nothing is restored");
    let toml = toml + "prefix = \"/restored\"\n";
    std::fs::write(&config, &toml).unwrap();
    into(&config).good();
    node.stop();
    let restored = start(&there, &toml).await;
    served(&restored, &one, &ids[0]).await;
    assert!(material(&restored, &one, &ids) == materials);
    let settings: BTreeMap<String, serde_json::Value> = serde_json::from_value(restored.get("/cluster").await).unwrap();
    assert_eq!(settings["name"], "keystead");
}

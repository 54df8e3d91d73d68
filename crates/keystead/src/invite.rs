//! Joining a cluster: `keystead cluster invite` on one of its nodes; on the new one `keystead cluster join`, and then its start, or both by `keystead serve --join`.

use crate::backup::{node, runtime};
use crate::cli::{InviteArguments, JoinArguments};
use crate::config::{Config, StoreSection};
use crate::folder::{Folder, write_new};
use crate::{process, seal_source, store_source, typed};
use jiff::Timestamp;
use keystead_manager::invitation::{self, Invitation, MOST_BYTES, Secrets};
use keystead_store::etcd::EtcdStore;
use std::io::Read as _;
use std::path::PathBuf;
use uuid::Uuid;

/// The files of a joined node, in the data folder. The last one is written last: it is what makes the node one of the cluster.
const FILES: [&str; 3] = ["etcd-ca.pem", "etcd-client.pem", "etcd-client.key"];

/// What is asked for, and the flag of its file.
const PASSPHRASE: (&str, &str) = ("the passphrase of the invitation", "--passphrase-file");

/// `--join` and `--passphrase-file`.
#[derive(Debug, Clone)]
pub struct Join {
    /// The file of the invitation.
    pub invitation: PathBuf,
    /// The file of its passphrase.
    pub passphrase_file: Option<PathBuf>,
}

/// Writes an invitation.
///
/// # Errors
/// One line for the operator.
pub fn run(arguments: &InviteArguments) -> Result<(), String> {
    process::no_core_dumps()?;
    let (config, data_dir) = node(arguments.data_dir.clone(), arguments.config.clone())?;
    let section = store_source::section(&config.store, &data_dir)?;
    if section.backend.as_deref() != Some("etcd") {
        return Err("this node has a store of its own (SQLite); a cluster of several nodes has etcd: keystead store copy brings what is here there".to_owned());
    }
    let options = store_source::etcd_options(&section)?;
    let seal = seal_source::open(&config.seal, &data_dir, true)?;
    let passphrase = typed::secret(arguments.passphrase_file.as_deref(), PASSPHRASE, true)?;
    let store = || EtcdStore::new(&options).map_err(|error| format!("[store] {error}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let secrets = |seal_key| Secrets {
        seal_key,
        endpoints: options.endpoints.clone(),
        prefix: options.prefix.clone(),
        ca: options.tls.as_ref().map(|tls| text(&tls.ca)).unwrap_or_default(),
        certificate: options.tls.as_ref().map(|tls| text(&tls.certificate)).unwrap_or_default(),
        key: options.tls.as_ref().map(|tls| text(&tls.key)).unwrap_or_default(),
    };
    let invited = runtime()?.block_on(async { invitation::invite(&store()?, &*seal, Timestamp::now(), secrets, passphrase).await })?;
    write_new(&arguments.out, 0o600, invited.to_text()?.as_bytes())
        .map_err(|error| format!("the invitation {} cannot be written: {error}", arguments.out.display()))?;
    println!("{}: an invitation to the cluster {} ({}), good until {}", arguments.out.display(), invited.cluster_name, invited.cluster, invited.expires);
    println!(
        "on the new node: keystead cluster join <this file>, with the addresses that others reach it at in its configuration; then delete the file, and start the node"
    );
    Ok(())
}

/// `keystead cluster join`: what `serve --join` does before it serves, for a node that is started by somebody else.
///
/// # Errors
/// One line for the operator.
pub fn run_join(arguments: &JoinArguments) -> Result<(), String> {
    process::no_core_dumps()?;
    let (config, data_dir) = node(arguments.data_dir.clone(), arguments.config.clone())?;
    let folder = Folder::open(&data_dir)?;
    if folder.file(store_source::JOINED).exists() {
        return Err(format!("the data folder {} is of a node that has joined already", data_dir.display()));
    }
    let asked = Join { invitation: arguments.invitation.clone(), passphrase_file: arguments.passphrase_file.clone() };
    let cluster = runtime()?.block_on(join(&asked, &config, &folder));
    // Also what was left half-way: the next try may be the service's own user's.
    folder.give_to_its_owner();
    if let Some((cluster, name)) = cluster? {
        println!("the node belongs to the cluster {name} ({cluster}) from its start on; delete the invitation");
    }
    Ok(())
}

/// Makes this node one of the cluster of an invitation, and answers that with its name; nothing where it has joined before.
///
/// # Errors
/// One line for the operator.
pub async fn join(join: &Join, config: &Config, folder: &Folder) -> Result<Option<(Uuid, String)>, String> {
    let joined = folder.file(store_source::JOINED);
    if joined.exists() {
        tracing::info!(file = %joined.display(), "this node has joined before; --join does nothing");
        return Ok(None);
    }
    if config.store != StoreSection::default() {
        return Err("[store] and --join say two things: the invitation brings the store".to_owned());
    }
    let is_used = |used: &str| Err(format!("the data folder has a {used} already: a node that has been started cannot join; start it with a new folder"));
    if let Some(used) = ["store.db", "node-uuid"].into_iter().find(|used| folder.file(used).exists()) {
        return is_used(used);
    }
    let place = join.invitation.display();
    let mut text = String::new();
    let file = std::fs::File::open(&join.invitation).map_err(|error| format!("the invitation {place} cannot be read: {error}"))?;
    file.take(MOST_BYTES as u64 + 1).read_to_string(&mut text).map_err(|error| format!("the invitation {place} cannot be read: {error}"))?;
    let invitation = Invitation::read(&text).map_err(|why| format!("the invitation {place}: {why}"))?;
    let passphrase = typed::secret(join.passphrase_file.as_deref(), PASSPHRASE, false)?;
    let opening = invitation.clone();
    let secrets = tokio::task::spawn_blocking(move || opening.open(Timestamp::now(), &passphrase)).await.map_err(|error| error.to_string())?;
    let secrets = secrets.map_err(|why| format!("the invitation {place}: {why}"))?;
    // A joining that was ended half-way has left this one; it goes on.
    seal_source::place(&config.seal, folder.path(), &secrets.seal_key, "the cluster").await?;
    write_files(&secrets, folder)?;
    tracing::info!(cluster = %invitation.cluster, name = invitation.cluster_name, "this node joins the cluster; the invitation is not needed any more: delete it");
    Ok(Some((invitation.cluster, invitation.cluster_name)))
}

fn write_files(secrets: &Secrets, folder: &Folder) -> Result<(), String> {
    let [ca, certificate, key] = FILES;
    let encrypted = !secrets.ca.is_empty();
    let path = |name: &str| encrypted.then(|| folder.file(name));
    if encrypted {
        folder.write(ca, 0o644, secrets.ca.as_bytes())?;
        folder.write(certificate, 0o644, secrets.certificate.as_bytes())?;
        folder.write(key, 0o600, secrets.key.as_bytes())?;
    }
    let section = StoreSection {
        backend: Some("etcd".to_owned()),
        endpoints: Some(secrets.endpoints.clone()),
        prefix: Some(secrets.prefix.clone()),
        ca: path(ca),
        certificate: path(certificate),
        key: path(key),
    };
    let text = toml::to_string(&section).map_err(|error| error.to_string())?;
    folder.write(store_source::JOINED, 0o644, text.as_bytes())
}

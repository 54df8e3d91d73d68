//! `keystead restore`: a backup into an empty data folder, or an empty etcd.

use crate::backup::{Tell, node, opened, runtime};
use crate::cli::RestoreArguments;
use crate::config::{Config, SealSection, StoreSection};
use crate::folder::{Folder, write_new, write_whole};
use crate::{process, seal_source, store_source};
use jiff::Timestamp;
use keystead_audit::read::newest_first;
use keystead_manager::backup::{self, Backup, Inventory, Restored, Since};
use keystead_store::Store;
use keystead_store::etcd::EtcdStore;
use keystead_store::sqlite::SqliteStore;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};

/// How many lines of each kind are shown.
const SHOWN: usize = 1_000;

/// Restores a backup.
///
/// # Errors
/// One line for the operator.
pub fn run(arguments: &RestoreArguments) -> Result<(), String> {
    process::no_core_dumps()?;
    let (config, data_dir) = node(arguments.data_dir.clone(), arguments.config.clone())?;
    let (backup, inventory) = opened(&arguments.file, &arguments.unlock)?;
    tell_comeback(&backup, &inventory, &arguments.audit)?;
    if arguments.dry_run {
        println!("nothing was written (--dry-run)");
        return Ok(());
    }
    let folder = Folder::open(&data_dir)?;
    if let Some(used) = ["node-uuid", "copy.db", store_source::JOINED].into_iter().find(|used| folder.file(used).exists()) {
        return Err(format!("the data folder {} has a {used} already: a backup is restored into a new folder", data_dir.display()));
    }
    place_seal_key(&config.seal, &data_dir, &inventory, arguments.seal_key_out.as_deref())?;
    let section = store_source::section(&config.store, &data_dir)?;
    let restored = runtime()?.block_on(written(&backup, &inventory, &section, &folder))?;
    println!(
        "{} records restored, of the cluster {} ({}) at {}",
        restored.records, inventory.header.cluster_name, inventory.header.cluster, inventory.header.made
    );
    for job in &restored.open_jobs {
        println!("a job that had not ended goes on when a node starts: {job}");
    }
    println!("start it: keystead serve{}", command_line(&config, arguments));
    Ok(())
}

async fn written(backup: &Backup, inventory: &Inventory, section: &StoreSection, folder: &Folder) -> Result<Restored, String> {
    let mut tell = Tell::new();
    let mut restore = async |store: &dyn Store| backup::restore(backup, inventory, store, |records| tell.tell(|| format!("{records} records written"))).await;
    if section.backend.as_deref() == Some("etcd") {
        let store = EtcdStore::new(&store_source::etcd_options(section)?).map_err(|error| format!("[store] {error}"))?;
        store.check_members().await.map_err(|error| format!("[store] {error}"))?;
        return restore(&store).await;
    }
    let store = SqliteStore::open(&folder.file("store.db")).await.map_err(|error| error.to_string())?;
    let restored = restore(&store).await;
    store.close().await;
    restored
}

/// Puts the seal key to where a node looks for it. A source that is no file must give it already.
fn place_seal_key(section: &SealSection, data_dir: &Path, inventory: &Inventory, out: Option<&Path>) -> Result<(), String> {
    let text = seal_source::text_of(&inventory.seal_key);
    if let Some(out) = out {
        write_new(out, 0o600, text.as_bytes()).map_err(|error| format!("--seal-key-out {}: {error}", out.display()))?;
    }
    let file = if seal_source::is_default(section) { Some(data_dir.join("seal.key")) } else { section.file.clone() };
    if let Some(file) = &file
        && !file.exists()
    {
        return write_whole(file, 0o600, text.as_bytes()).map_err(|error| format!("the seal key {} cannot be written: {error}", file.display()));
    }
    let source = seal_source::open(section, data_dir, true)?;
    let given = runtime()?.block_on(source.fetch())?;
    if given.chunks(keystead_keyring::KEY_BYTES).any(|key| inventory.seal_key.chunks(keystead_keyring::KEY_BYTES).any(|own| own == key)) {
        return Ok(());
    }
    Err(format!("{} gives another seal key than the backup has; --seal-key-out FILE writes that into a file: bring it there", source.describe()))
}

/// Says what works again that was taken away, and what is lost.
fn tell_comeback(backup: &Backup, inventory: &Inventory, audit: &[PathBuf]) -> Result<(), String> {
    let made = inventory.header.made;
    if audit.is_empty() {
        println!("what was destroyed, revoked or changed after {made} comes back as it was then; --audit, with the audit log of each node, lists it");
        return Ok(());
    }
    let mut since = Since::default();
    for path in audit {
        read_log(path, made, &mut since).map_err(|error| format!("--audit {}: {error}", path.display()))?;
    }
    let comeback = since.compare(backup, inventory)?;
    println!("{} records of the audit log are of after {made}", since.records());
    for (lines, what) in [(&comeback.alive, "comes back to life"), (&comeback.lost, "is lost")] {
        for line in lines.iter().take(SHOWN) {
            println!("{what}: {line}");
        }
        if lines.len() > SHOWN {
            println!("{what}: {} more", lines.len() - SHOWN);
        }
    }
    Ok(())
}

/// The folder of a log, the newest first as far as is needed; or a file of a collector, with a record in each line, whatever stands before it.
fn read_log(path: &Path, made: Timestamp, since: &mut Since) -> std::io::Result<()> {
    if path.is_dir() {
        // A clock that was set back must not hide what came before.
        for record in newest_first(path, None)? {
            since.add(&record, made);
        }
        return Ok(());
    }
    for line in BufReader::new(std::fs::File::open(path)?).split(b'\n') {
        let line = line?;
        let start = line.iter().position(|byte| *byte == b'{').unwrap_or(line.len());
        if let Some(record) = line.get(start..).and_then(keystead_audit::chain::parse) {
            since.add(&record, made);
        }
    }
    Ok(())
}

fn command_line(config: &Config, arguments: &RestoreArguments) -> String {
    let data_dir = config.data_dir.as_ref().map(|path| format!(" --data-dir {}", path.display()));
    let file = arguments.config.as_ref().map(|path| format!(" --config {}", path.display()));
    [data_dir, file].into_iter().flatten().collect()
}

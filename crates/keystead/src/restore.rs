//! `keystead restore`: a backup into an empty data folder, or an empty etcd.

use crate::backup::{Tell, node, opened, runtime};
use crate::cli::RestoreArguments;
use crate::config::{Config, StoreSection};
use crate::folder::Folder;
use crate::{audit_since, process, seal_source, store_source};
use jiff::Timestamp;
use keystead_manager::backup::{self, Backup, Inventory, Restored};
use keystead_store::Store;
use keystead_store::etcd::EtcdStore;
use keystead_store::sqlite::SqliteStore;

/// Restores a backup.
///
/// # Errors
/// One line for the operator.
pub fn run(arguments: &RestoreArguments) -> Result<(), String> {
    process::no_core_dumps()?;
    let (config, data_dir) = node(arguments.data_dir.clone(), arguments.config.clone())?;
    let (backup, inventory) = opened(&arguments.file, &arguments.unlock)?;
    tell_comeback(&backup, &inventory, arguments)?;
    if arguments.dry_run {
        println!("nothing was written (--dry-run)");
        return Ok(());
    }
    let folder = Folder::open(&data_dir)?;
    if let Some(used) = ["node-uuid", "copy.db", store_source::JOINED].into_iter().find(|used| folder.file(used).exists()) {
        return Err(format!("the data folder {} has a {used} already: a backup is restored into a new folder", data_dir.display()));
    }
    let section = store_source::section(&config.store, &data_dir)?;
    let place_seal_key = async || {
        if let Some(out) = &arguments.seal_key_out {
            seal_source::write_out(out, &inventory.seal_key).map_err(|why| format!("--seal-key-out {}: {why}", out.display()))?;
        }
        seal_source::place(&config.seal, &data_dir, &inventory.seal_key, "the backup")
            .await
            .map_err(|why| format!("{why} (--seal-key-out FILE writes it into a file)"))
    };
    let restored = runtime()?.block_on(written(&backup, &inventory, &section, &folder, place_seal_key));
    folder.give_to_its_owner();
    let restored = restored?;
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

/// The seal key is placed when the store is known to be empty, and before anything stands in it.
async fn written(
    backup: &Backup,
    inventory: &Inventory,
    section: &StoreSection,
    folder: &Folder,
    place_seal_key: impl AsyncFn() -> Result<(), String>,
) -> Result<Restored, String> {
    let mut tell = Tell::new();
    let mut restore = async |store: &dyn Store| {
        backup::check_empty(inventory, store).await?;
        place_seal_key().await?;
        backup::restore(backup, inventory, store, Timestamp::now(), |records| tell.tell(|| format!("{records} records written"))).await
    };
    if section.backend.as_deref() == Some("etcd") {
        let store = EtcdStore::new(&store_source::etcd_options(section)?).map_err(|error| format!("[store] {error}"))?;
        store.check_members().await.map_err(|error| format!("[store] {error}"))?;
        return restore(&store).await;
    }
    if !folder.file("store.db").exists() {
        // It is as good as empty: nothing is left of a restore whose seal key is refused.
        place_seal_key().await?;
    }
    let store = SqliteStore::open(&folder.file("store.db")).await.map_err(|error| error.to_string())?;
    let restored = restore(&store).await;
    store.close().await;
    restored
}

/// Says what works again that was taken away, and what is lost.
fn tell_comeback(backup: &Backup, inventory: &Inventory, arguments: &RestoreArguments) -> Result<(), String> {
    let made = inventory.header.made;
    let comeback = if let Some(file) = &arguments.later_backup {
        let (later, its_inventory) = opened(file, &arguments.unlock)?;
        let now = Timestamp::now().as_second();
        let difference = move |then: &[u8], later: &[u8]| keystead_ekmip::difference(then, later, now);
        let compared = runtime()?.block_on(backup::compare_later((backup, inventory), (&later, &its_inventory), &difference));
        compared.map_err(|error| format!("--later-backup {}: {error}", file.display()))?
    } else if arguments.audit.is_empty() {
        println!(
            "what was destroyed, revoked or changed after {made} comes back as it was then; --later-backup, with a backup of the store that is given up, or --audit, with the audit log of each node, lists it"
        );
        return Ok(());
    } else {
        let mut read = audit_since::read(&arguments.audit, made)?;
        for found in &read.found {
            println!("{found}");
        }
        println!("{} records are of after {made}, or of up to {:#} before it", read.since.records(), backup::MARGIN);
        let mut comeback = read.since.compare(backup, inventory)?;
        comeback.doubts.append(&mut read.doubts);
        comeback
    };
    // Each line is somebody's key: none is left out, however many there are.
    for (lines, what) in [(&comeback.alive, "comes back to life"), (&comeback.lost, "is lost"), (&comeback.doubts, "not certain")] {
        for line in lines {
            println!("{what}: {line}");
        }
    }
    match (comeback.alive.is_empty() && comeback.lost.is_empty(), comeback.doubts.is_empty()) {
        (true, true) => println!("nothing comes back to life, and nothing is lost"),
        (true, false) => println!("nothing is known to come back to life or to be lost; there may be, since what is not certain stands above"),
        (false, false) => println!("there may be more of it, since what is not certain stands above"),
        (false, true) => {}
    }
    Ok(())
}

fn command_line(config: &Config, arguments: &RestoreArguments) -> String {
    let data_dir = config.data_dir.as_ref().map(|path| format!(" --data-dir {}", path.display()));
    let file = arguments.config.as_ref().map(|path| format!(" --config {}", path.display()));
    [data_dir, file].into_iter().flatten().collect()
}

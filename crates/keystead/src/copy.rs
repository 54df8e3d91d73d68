//! `keystead store copy`: from the store of one machine to a cluster's, and back.

use crate::backup::{Tell, node, runtime};
use crate::cli::{Backend, CopyArguments};
use crate::folder::Folder;
use crate::{process, store_source};
use keystead_store::copy::{Progress, copy};
use keystead_store::etcd::EtcdStore;
use keystead_store::sqlite::SqliteStore;

/// Copies.
///
/// # Errors
/// One line for the operator.
pub fn run(arguments: &CopyArguments) -> Result<(), String> {
    process::no_core_dumps()?;
    let (config, path) = node(arguments.data_dir.clone(), arguments.config.clone())?;
    let options = store_source::etcd_options(&store_source::section(&config.store, &path)?)?;
    // No node of this folder may run meanwhile.
    let folder = Folder::open(&path)?;
    runtime()?.block_on(async {
        let database = folder.file("store.db");
        if arguments.to == Backend::Etcd && !database.exists() {
            return Err(format!("there is no store {} to copy", database.display()));
        }
        let sqlite = SqliteStore::open(&database).await.map_err(|error| error.to_string())?;
        let etcd = EtcdStore::new(&options).map_err(|error| format!("[store] {error}"))?;
        etcd.check_members().await.map_err(|error| format!("[store] {error}"))?;
        let mut tell = Tell::new();
        let told = |progress| {
            tell.tell(|| match progress {
                Progress::Written(count) => format!("{count} records written"),
                Progress::Compared(count) => format!("{count} records compared"),
            });
        };
        let copied = match arguments.to {
            Backend::Etcd => copy(&sqlite, &etcd, told).await,
            Backend::Sqlite => copy(&etcd, &sqlite, told).await,
        };
        sqlite.close().await;
        println!("{} records copied, read back, and the same", copied.map_err(|error| error.to_string())?);
        Ok(())
    })
}

//! `keystead store copy`: from the store of one machine to a cluster's, and back.

use crate::cli::{Backend, CopyArguments, ServeArguments};
use crate::config::Config;
use crate::folder::Folder;
use crate::{process, store_source};
use keystead_store::copy::{Progress, copy};
use keystead_store::etcd::EtcdStore;
use keystead_store::sqlite::SqliteStore;
use std::time::{Duration, Instant};

/// How often it is told how far the copy is.
const TELL: Duration = Duration::from_secs(1);

/// Copies.
///
/// # Errors
/// One line for the operator.
pub fn run(arguments: &CopyArguments) -> Result<(), String> {
    process::no_core_dumps()?;
    let serve = ServeArguments { data_dir: arguments.data_dir.clone(), config: arguments.config.clone(), ..ServeArguments::default() };
    let config = Config::load(&serve, process::variables()?.into_iter())?;
    let path = config.data_dir.clone().ok_or("--data-dir is missing (also data_dir of the configuration file, or KEYSTEAD_DATA_DIR)")?;
    let options = store_source::etcd_options(&store_source::section(&config.store, &path)?)?;
    // No node of this folder may run meanwhile.
    let folder = Folder::open(&path)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().map_err(|error| format!("no runtime: {error}"))?;
    runtime.block_on(async {
        let database = folder.file("store.db");
        if arguments.to == Backend::Etcd && !database.exists() {
            return Err(format!("there is no store {} to copy", database.display()));
        }
        let sqlite = SqliteStore::open(&database).await.map_err(|error| error.to_string())?;
        let etcd = EtcdStore::new(&options).map_err(|error| format!("[store] {error}"))?;
        etcd.check_members().await.map_err(|error| format!("[store] {error}"))?;
        let mut told = Instant::now();
        let tell = |progress| {
            if told.elapsed() >= TELL {
                told = Instant::now();
                match progress {
                    Progress::Written(count) => eprintln!("{count} records written"),
                    Progress::Compared(count) => eprintln!("{count} records compared"),
                }
            }
        };
        let copied = match arguments.to {
            Backend::Etcd => copy(&sqlite, &etcd, tell).await,
            Backend::Sqlite => copy(&etcd, &sqlite, tell).await,
        };
        sqlite.close().await;
        println!("{} records copied, read back, and the same", copied.map_err(|error| error.to_string())?);
        Ok(())
    })
}

//! `keystead account reset`: for a password that is lost.

use crate::backup::{node, runtime};
use crate::cli::ResetArguments;
use crate::folder::Folder;
use crate::{audit, process, seal_source, store_source, typed};
use keystead_audit::disk::RealDisk;
use keystead_audit::{Application, Named, Record, State};
use keystead_manager::account_reset::reset_account;
use keystead_manager::clock::SystemClock;
use keystead_manager::{ADMIN, SYSTEM};
use std::sync::Arc;

/// Resets an account.
///
/// # Errors
/// One line for the operator.
pub fn run(arguments: &ResetArguments) -> Result<(), String> {
    process::no_core_dumps()?;
    let (config, data_dir) = node(arguments.data_dir.clone(), arguments.config.clone())?;
    let section = store_source::section(&config.store, &data_dir)?;
    if section.backend.as_deref() != Some("etcd") && !data_dir.join("store.db").exists() {
        return Err(format!("there is no node in the data folder {}", data_dir.display()));
    }
    // Its audit log has one writer: the node must be stopped. In a cluster, others go on meanwhile.
    let folder = Folder::open(&data_dir)?;
    let seal = seal_source::open(&config.seal, &data_dir, true)?;
    let password = typed::secret(arguments.password_file.as_deref(), ("the new password", "--password-file"), true)?;
    let name = config.node_name.clone().unwrap_or_else(process::machine_name);
    let of_node = Named { uuid: folder.node_uuid()?, name };
    let reset = runtime()?.block_on(async {
        let log = audit::open(&config.audit, &folder, of_node, Arc::new(SystemClock::new()), Arc::new(RealDisk))?;
        let id = keystead_audit::new_id();
        let record = |state| {
            let mut record = Record::new(Application::Job, state, format!("keystead account reset {}", arguments.name));
            (record.user, record.command_id) = (Some(SYSTEM.to_owned()), Some(id));
            record
        };
        // First: what cannot be recorded is not done.
        let begun = log.begin(vec![record(State::Pending)]).await.map_err(|why| format!("the audit log cannot be written: {why}"))?;
        begun.synced().await.map_err(|why| format!("the audit log cannot be written: {why}"))?;
        let reset = async {
            let opened = store_source::open(&section, &folder).await?;
            let reset = reset_account(&*opened.store, &*seal, &arguments.name, password).await;
            opened.close().await;
            reset
        }
        .await;
        let mut ended = record(if reset.is_ok() { State::Success } else { State::Error });
        ended.message = reset.as_ref().err().cloned();
        log.end_durably(vec![ended]).await;
        log.close().await;
        reset
    });
    let name = reset.inspect_err(|_| folder.give_to_its_owner())?;
    if name == ADMIN {
        // The one that was made at the first start is not true any more.
        let _ = std::fs::remove_file(folder.file("admin-password"));
    }
    folder.give_to_its_owner();
    println!("the account {name} logs in with the new password; its sessions have ended");
    Ok(())
}

//! DELETE of a configuration: only where no key would be lost with it.

use super::context::JobContext;
use super::{Afterwards, Plan};
use crate::inner::Inner;
use crate::jobs::restore::configuration;
use crate::keys::record::destroyed_prefix;
use crate::records::{KekRecord, KeyStoreRecord, keks_prefix, key, keys_prefix};
use crate::{Code, Error, Result};
use keystead_store::{Compare, Error as StoreError, Range, Txn};
use uuid::Uuid;

/// How many records go in one transaction.
const BATCH: usize = 100;

pub(crate) async fn run(job: &JobContext, config: Uuid) -> Result<Plan> {
    let manager = &job.manager;
    let config = configuration(manager, config).await?;
    let svm = config.record.svm;
    refuse_live_keys(manager, svm).await?;
    job.progress("deleting what is known of destroyed keys").await;
    forget_destroyed(job, svm).await?;
    job.progress("deleting the configuration, its secrets and the wrapped KEK").await;
    let mut txn = Txn::new()
        .when(Compare::Unchanged(config.key.clone(), config.revision))
        .when(Compare::EmptyPrefix(keys_prefix(svm)))
        .delete(config.key)
        .delete(key::<KeyStoreRecord>(svm));
    for kek in manager.view.under::<KekRecord>(&keks_prefix(svm)) {
        txn = txn.delete(kek.key);
    }
    manager.aws.forget(config.record.uuid);
    Ok(Plan { txn, message: "the configuration is deleted".to_owned(), afterwards: Afterwards::Forget(svm) })
}

/// Destroyed keys have no secret any more; what is left of them goes with the configuration.
async fn forget_destroyed(job: &JobContext, svm: Uuid) -> Result<()> {
    loop {
        let page =
            job.manager.store.range(Range::prefix(destroyed_prefix(svm), BATCH)).await.map_err(|error| Error::new(Code::DeleteRangeFailed).detail(error))?;
        if page.entries.is_empty() {
            return Ok(());
        }
        let txn = page.entries.into_iter().fold(Txn::new(), |txn, entry| txn.delete(entry.key));
        match job.manager.store.transact(job.fenced(txn)).await {
            Ok(_) | Err(StoreError::Indeterminate(_)) => {}
            Err(error) => return Err(Error::new(Code::DeleteStoreTimeout).detail(error)),
        }
    }
}

/// 65537106, and the internal failures of counting.
pub(crate) async fn refuse_live_keys(manager: &Inner, svm: Uuid) -> Result<()> {
    let page = manager.store.range(Range::prefix(keys_prefix(svm), 1)).await.map_err(|error| match error {
        StoreError::Unavailable(_) => Error::new(Code::DeleteStoreTimeout).detail(error),
        _ => Error::new(Code::DeleteRangeFailed).detail(error),
    })?;
    if page.entries.is_empty() {
        return Ok(());
    }
    Err(Error::with(Code::KeysStillStored, format!("destroy the keys of the SVM {}, or move them to another key manager, first", manager.svm_ref(svm).name)))
}

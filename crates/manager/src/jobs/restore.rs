//! Restore: load the KEKs that a node lacks.

use super::context::JobContext;
use super::{Afterwards, Plan};
use crate::aws::{Phase, context, kek_from};
use crate::inner::Inner;
use crate::poll::Proof;
use crate::records::{AwsKmsRecord, KekRecord, KeyStoreRecord, KeyStoreState, Stored, kek_key, keks_prefix};
use crate::{Code, Error, Result};
use keystead_awskms::Client;
use keystead_keyring::Kek;
use keystead_store::{Compare, Txn};
use uuid::Uuid;

pub(crate) async fn run(job: &JobContext, config: Uuid) -> Result<Plan> {
    let manager = &job.manager;
    let config = configuration(manager, config).await?;
    let current = current_kek(manager, config.record.svm).await?.record;
    // More than one where a rekey-internal has not ended: each still wraps keys.
    let older = manager.view.under::<KekRecord>(&keks_prefix(current.svm)).into_iter().map(|kek| kek.record).filter(|kek| kek.version != current.version);
    let mut keks = Vec::new();
    let mut versions = Vec::new();
    let client = manager.client(&config)?;
    let asked = manager.clock.monotonic();
    for record in older.chain([current.clone()]) {
        job.progress(format!("node {}: unwrapping version {} of the KEK", manager.node.name, record.version)).await;
        versions.push(record.version.to_string());
        let kek = unwrap(job, &client, &record)
            .await
            .map_err(|error| if error.code == Code::Unexpected { error } else { Error::with(Code::NotAllKeysRestored, error.message) })?;
        keks.push(kek);
    }
    Ok(Plan {
        txn: Txn::new().when(Compare::Unchanged(config.key, config.revision)),
        message: format!("node {}: version {} of the KEK is loaded", manager.node.name, versions.join(" and ")),
        afterwards: Afterwards::Serve(Proof { asked, keks, config: Box::new(config.record) }),
    })
}

/// The key store of an SVM, to be compared. While a rekey-internal has not ended, two versions of the KEK wrap keys. What changes how AWS wraps the KEK would have to change both, so it waits.
///
/// # Errors
/// 65537610.
pub(crate) async fn not_while_rekeying(manager: &Inner, svm: Uuid) -> Result<Stored<KeyStoreRecord>> {
    match manager.fresh::<KeyStoreRecord>(svm).await? {
        None => Err(Error::new(Code::NotConfigured)),
        Some(store) if store.record.state == KeyStoreState::SvmKekRekey => Err(Error::with(
            Code::KeystoreSwitching,
            format!("the rekey-internal of the SVM {} has not ended; start it again, and it goes on", manager.svm_ref(svm).name),
        )),
        Some(store) => Ok(store),
    }
}

/// A configuration, from the store itself.
pub(crate) async fn configuration(manager: &Inner, config: Uuid) -> Result<Stored<AwsKmsRecord>> {
    manager.fresh::<AwsKmsRecord>(config).await?.ok_or_else(|| Error::with(Code::NotConfigured, "the configuration was deleted while this operation ran"))
}

/// The wrapped KEK that new keys are wrapped under, from the store itself.
pub(crate) async fn current_kek(manager: &Inner, svm: Uuid) -> Result<Stored<KekRecord>> {
    let store = manager.fresh::<KeyStoreRecord>(svm).await?.ok_or_else(|| Error::new(Code::NotConfigured))?;
    let missing = || Error::with(Code::KekMissing, format!("version {} for the SVM {}", store.record.kek_version, manager.svm_ref(svm).name));
    let entry = manager.store.get(&kek_key(svm, store.record.kek_version)).await.map_err(Error::from)?;
    Stored::decode(&entry.ok_or_else(missing)?)
}

/// Has AWS unwrap a stored KEK, and checks that it is that KEK.
pub(crate) async fn unwrap(job: &JobContext, client: &Client, record: &KekRecord) -> Result<Kek> {
    let svm = job.manager.svm_ref(record.svm);
    let context = context(record.encryption_context.as_deref())?;
    let mut decrypted = job
        .aws("unwrap", client.decrypt(&record.key_arn, &record.blob.0, &context))
        .await
        .map_err(|error| job.manager.aws_error(Phase::InUse, &svm, "Decrypt of the KEK", &error))?;
    kek_from(record, &mut decrypted.plaintext).ok_or_else(|| {
        Error::with(
            Code::KeyUnusable,
            format!(
                "for the SVM {}, AWS KMS answered with another KEK than the one that {} had wrapped; look at what stands between node {} and AWS",
                svm.name, record.key_arn, job.manager.node.name
            ),
        )
    })
}

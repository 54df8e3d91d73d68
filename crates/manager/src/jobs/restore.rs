//! Restore: load the KEKs that nodes lack.

use super::context::JobContext;
use super::{Afterwards, Plan};
use crate::aws::{Phase, context, kek_from};
use crate::inner::Inner;
use crate::peers::{Heard, Said, What, listed};
use crate::poll::Proof;
use crate::records::{AwsKmsRecord, KekRecord, KeyStoreRecord, KeyStoreState, Stored, kek_key, keks_prefix};
use crate::{Code, Error, Result};
use keystead_awskms::Client;
use keystead_keyring::Kek;
use keystead_store::{Compare, Range, Txn};
use uuid::Uuid;

/// More versions of a KEK than there can be at a time.
const MOST_VERSIONS: usize = 100;

pub(crate) async fn run(job: &JobContext, config: Uuid) -> Result<Plan> {
    let manager = &job.manager;
    let config = configuration(manager, config).await?;
    let asked = manager.clock.monotonic();
    let (own, others) = tokio::join!(unwrap_all(job, &config), manager.ask_others(What::Restore { config: config.record.uuid }));
    let (keks, here) = match own {
        Ok(keks) => {
            let versions: Vec<u32> = keks.iter().map(Kek::version).collect();
            (keks, Ok(format!("node {}: version {} of the KEK is loaded", manager.node.name, listed(&versions))))
        }
        Err(error) if others.is_empty() || error.code == Code::Unexpected => return Err(error),
        Err(error) => (Vec::new(), Err(error.message)),
    };
    let others_failed = others.iter().any(|heard| matches!(heard.said, Said::Not(_) | Said::Silent(_)));
    let failed = here.is_err() || others_failed;
    let here = here.unwrap_or_else(|why| why);
    let message = std::iter::once(here).chain(others.iter().map(Heard::describe)).collect::<Vec<_>>().join("; ");
    let proof = Proof { asked, keks, config: Box::new(config.record.clone()) };
    if failed {
        // What this node has got is as good as what a poll gets.
        if !proof.keks.is_empty() && manager.view.get::<AwsKmsRecord>(config.record.uuid)?.is_some_and(|now| now.revision == config.revision) {
            manager.proven(proof);
        }
        return Err(Error::with(Code::NotAllKeysRestored, message));
    }
    Ok(Plan { txn: Txn::new().when(Compare::Unchanged(config.key, config.revision)), message, afterwards: Afterwards::Serve(proof) })
}

/// Every version of the KEK, the current one last: more than one where a rekey-internal has not ended, and each still wraps keys.
async fn unwrap_all(job: &JobContext, config: &Stored<AwsKmsRecord>) -> Result<Vec<Kek>> {
    let manager = &job.manager;
    let current = current_kek(manager, config.record.svm).await?.record;
    let older = manager.view.under::<KekRecord>(&keks_prefix(current.svm)).into_iter().map(|kek| kek.record).filter(|kek| kek.version != current.version);
    let client = manager.client(config)?;
    let mut keks = Vec::new();
    for record in older.chain([current.clone()]) {
        job.progress(format!("node {}: unwrapping version {} of the KEK", manager.node.name, record.version)).await;
        let kek = unwrap(job, &client, &record).await;
        keks.push(kek.map_err(|error| if error.code == Code::Unexpected { error } else { Error::with(Code::NotAllKeysRestored, error.message) })?);
    }
    Ok(keks)
}

/// The key store of an SVM, to be compared. While a rekey-internal, or a move of keys, has not ended, two versions of the KEK wrap keys. What changes how AWS wraps the KEK would have to change both, so it waits.
///
/// # Errors
/// 65537610.
pub(crate) async fn not_while_rekeying(manager: &Inner, svm: Uuid) -> Result<Stored<KeyStoreRecord>> {
    let name = || manager.svm_ref(svm).name;
    let store = manager.fresh::<KeyStoreRecord>(svm).await?.ok_or_else(|| Error::new(Code::NotConfigured))?;
    match store.record.state {
        KeyStoreState::SvmKekRekey => {
            Err(Error::with(Code::KeystoreSwitching, format!("the rekey-internal of the SVM {} has not ended; start it again, and it goes on", name())))
        }
        KeyStoreState::Switching | KeyStoreState::Mixed => {
            Err(Error::with(Code::KeystoreSwitching, format!("keys of the SVM {} are being moved; migrate goes on where it was", name())))
        }
        _ => Ok(store),
    }
}

/// Whether a configuration has all keys of its SVM, so that rekeying it says something about them.
///
/// # Errors
/// 65537547 keys of the SVM are kept by the onboard key manager; 65537610 they are on their way there; 65539437 the configuration is being deleted.
pub(crate) async fn has_the_keys(manager: &Inner, config: &AwsKmsRecord) -> Result<()> {
    let Some(store) = manager.fresh::<KeyStoreRecord>(config.svm).await? else { return Ok(()) };
    let name = manager.svm_ref(config.svm).name;
    match store.record.state {
        KeyStoreState::Disabling => Err(Error::new(Code::Disabling)),
        KeyStoreState::Mixed if !store.record.onboard => {
            Err(Error::with(Code::KeysAreOnboard, format!("those of the SVM {name} are not all moved yet; migrate goes on")))
        }
        KeyStoreState::Switching if !store.record.onboard => Err(Error::with(Code::KeystoreSwitching, format!("the SVM {name}"))),
        KeyStoreState::Mixed => Err(Error::with(Code::KeystoreSwitching, format!("keys of the SVM {name} are being moved to the onboard key manager"))),
        _ if store.record.onboard => Err(Error::with(Code::KeysAreOnboard, format!("the SVM {name}; migrate them to this configuration first"))),
        _ => Ok(()),
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
    if store.record.onboard {
        // AWS has wrapped the version before, until the last key has moved.
        let page = manager.store.range(Range::prefix(keks_prefix(svm), MOST_VERSIONS)).await.map_err(Error::from)?;
        return Stored::decode(page.entries.last().ok_or_else(missing)?);
    }
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

//! POST of a configuration: make a KEK, have AWS wrap it, prove it, store all of it at once.
//!
//! Where the onboard key manager keeps keys of the SVM, that is the beginning of a move: the configuration is stored together with the turn of the SVM to it (`migrate`), and the keys follow.

use super::context::JobContext;
use super::{Afterwards, JobKind, Plan, migrate};
use crate::aws::{Phase, context, kek_from};
use crate::events::moves::Route;
use crate::inner::Inner;
use crate::model::SvmRef;
use crate::poll::Proof;
use crate::preflight::CallError;
use crate::records::{
    AwsKmsRecord, Base64, KekRecord, KeyStoreRecord, KeyStoreState, NodeRecord, Record, Stored, kek_key, key, keys_prefix, onboard_keys_prefix,
};
use crate::view::View;
use crate::{Code, Error, Result};
use keystead_awskms::preflight::Known;
use keystead_awskms::{Client, EncryptionContext};
use keystead_keyring::Kek;
use keystead_store::{Compare, Range, Txn};
use std::time::Duration;
use uuid::Uuid;

pub(crate) async fn run(job: &JobContext, kind: &JobKind) -> Result<Plan> {
    let JobKind::Enable { config, svm, settings, secret_access_key, proxy_password, skip_verify, migrate } = kind else {
        return Err(Error::unexpected("an enable job without its inputs"));
    };
    let manager = &job.manager;
    let reservation = reservation(manager, *svm, *config).await?;
    if reservation.record.state == KeyStoreState::Mixed {
        // Interrupted: the configuration is stored, and keys are on their way.
        return enabled(moved(job, kind, reservation, migrate::EVER).await?);
    }
    let moves = reservation.record.onboard;
    if !moves {
        refuse_onboard_keys(manager, *svm).await?;
    } else if !migrate {
        refuse_live_keys(manager, *svm).await?;
    }
    if let Some(route) = manager.route_of(kind) {
        manager.tell_move_started(&route);
    }
    every_node_has_an_address(manager)?;
    job.progress("making the EKMIP server's certificate").await;
    let certificate = crate::server_certificates::ekmip_certificate(manager).await?;

    let record = AwsKmsRecord {
        uuid: *config,
        svm: *svm,
        settings: (**settings).clone(),
        secret_access_key: secret_access_key.clone(),
        proxy_password: proxy_password.clone(),
        unproven: false,
    };
    let asked = manager.clock.monotonic();
    let (kek, kek_record) = match set_up(job, &record, reservation.record.next_version(), *skip_verify).await {
        Ok(proven) => proven,
        // Who skips the proof beforehand skips the preflight too.
        Err(failed) if *skip_verify || failed.known.is_none() => return Err(failed.into()),
        Err(failed) => {
            job.progress("looking for what stands between this node and AWS KMS").await;
            return Err(manager.explained(failed, &record).await);
        }
    };
    manager.seal.prove().await?;

    job.progress("storing the configuration").await;
    let mut txn = Txn::new().put(key::<AwsKmsRecord>(config), record.encode()?);
    if let Some(certificate) = certificate {
        txn = certificate.write(manager, txn)?;
    }
    let proof = Proof { asked, keks: vec![kek], config: Box::new(record) };
    if moves {
        if !migrate {
            // Nobody has asked for a move: a key that was made meanwhile ends the enabling.
            txn = txn.when(Compare::EmptyPrefix(keys_prefix(*svm)));
        }
        let turned = match migrate::turn_to_aws(job, proof, &kek_record, reservation, txn).await {
            Err(error) if error.code == Code::InUse && !migrate => refuse_live_keys(manager, *svm).await.and(Err(error))?,
            turned => turned?,
        };
        if let Some(route) = manager.route_of(kind) {
            manager.tell_move_turned(&route);
        }
        return enabled(moved(job, kind, turned, asked).await?);
    }
    let store = KeyStoreRecord { state: KeyStoreState::Active, kek_version: kek_record.version, ..reservation.record };
    let txn = txn
        .when(Compare::Unchanged(reservation.key.clone(), reservation.revision))
        .when(Compare::EmptyPrefix(onboard_keys_prefix(*svm)))
        .put(reservation.key, store.encode()?)
        .put(kek_key(*svm, kek_record.version), kek_record.encode()?);
    enabled(Plan { txn, message: String::new(), afterwards: Afterwards::Serve(proof) })
}

/// The rest of the move. One that nobody has asked for is none: the SVM had no key.
async fn moved(job: &JobContext, kind: &JobKind, store: Stored<KeyStoreRecord>, asked: Duration) -> Result<Plan> {
    let svm = store.record.svm;
    let route = Route { svm, onboard: store.record.other.unwrap_or_default(), config: store.record.manager, to_onboard: false };
    let plan = migrate::finish(job, &route, store, asked).await?;
    let afterwards = match plan.afterwards {
        Afterwards::Moved(_, version, proof, _) if !matches!(kind, JobKind::Enable { migrate: true, .. }) => Afterwards::Retire(svm, version, proof),
        other => other,
    };
    Ok(Plan { afterwards, ..plan })
}

fn enabled(plan: Plan) -> Result<Plan> {
    let moved = if plan.message.is_empty() { String::new() } else { format!("; {}", plan.message) };
    Ok(Plan { message: format!("AWS KMS is enabled: the KEK is wrapped by the customer key, and proven{moved}"), ..plan })
}

/// Takes back the reservation that the acceptance wrote.
pub(crate) fn release(view: &View, svm: Uuid, config: Uuid) -> Txn {
    match view.get::<KeyStoreRecord>(svm) {
        Ok(Some(store)) => unreserve(store, config),
        _ => Txn::new(),
    }
}

/// A key store without the reservation for this configuration, or without the move to it, as long as that has not begun.
pub(crate) fn unreserve(store: Stored<KeyStoreRecord>, config: Uuid) -> Txn {
    let unchanged = Txn::new().when(Compare::Unchanged(store.key.clone(), store.revision));
    match store.record.state {
        KeyStoreState::Initializing if store.record.manager == config => unchanged.delete(store.key),
        KeyStoreState::Switching if store.record.other == Some(config) => match store.record.without_move().encode() {
            Ok(value) => unchanged.put(store.key, value),
            Err(_) => Txn::new(),
        },
        _ => Txn::new(),
    }
}

/// The reservation of this enable. Gone: the configuration was deleted while it was being enabled.
async fn reservation(manager: &Inner, svm: Uuid, config: Uuid) -> Result<Stored<KeyStoreRecord>> {
    let begun = |store: &KeyStoreRecord| store.manager == config && store.state == KeyStoreState::Mixed;
    manager
        .fresh::<KeyStoreRecord>(svm)
        .await?
        .filter(|store| store.record.reserved_for() == Some(config) || begun(&store.record))
        .ok_or_else(|| Error::with(Code::NotConfigured, "the configuration was deleted while it was being enabled"))
}

/// 65537912, read from the store itself: for an SVM of which the onboard key manager should hold nothing.
pub(crate) async fn refuse_onboard_keys(manager: &Inner, svm: Uuid) -> Result<()> {
    refuse_any(manager, svm, onboard_keys_prefix(svm)).await
}

/// 65537912 for an SVM whose keys the onboard key manager keeps, where there are any.
pub(crate) async fn refuse_live_keys(manager: &Inner, svm: Uuid) -> Result<()> {
    refuse_any(manager, svm, keys_prefix(svm)).await
}

async fn refuse_any(manager: &Inner, svm: Uuid, prefix: String) -> Result<()> {
    let page = manager.store.range(Range::prefix(prefix, 1)).await.map_err(Error::from)?;
    if page.entries.is_empty() {
        return Ok(());
    }
    let name = manager.svm_ref(svm).name;
    Err(Error::with(Code::KeysOnAdminSvm, format!("the onboard key manager keeps keys of the SVM {name}; keystead.migrate_keys moves them in the same job")))
}

/// 65537518.
fn every_node_has_an_address(manager: &Inner) -> Result<()> {
    match manager.view.all::<NodeRecord>().into_iter().find(|node| node.record.address.is_none()) {
        None => Ok(()),
        Some(node) => Err(Error::with(
            Code::NoClusterAddress,
            format!("node {} listens on a wildcard address; set [cluster] address in its configuration and restart it", node.record.name),
        )),
    }
}

/// Makes the KEK, has AWS wrap it, and proves that it comes back.
pub(crate) async fn set_up(job: &JobContext, config: &AwsKmsRecord, version: u32, skip_verify: bool) -> std::result::Result<(Kek, KekRecord), CallError> {
    let (manager, settings) = (&job.manager, &config.settings);
    let client = manager.client_for(config)?;
    let owner = manager.svm_ref(config.svm);
    let context = context(settings.encryption_context.as_deref())?;
    if !skip_verify {
        job.progress("asking AWS KMS about the customer key (1 of 3)").await;
        describe(job, &client, &owner, &settings.key_id).await?;
    }
    job.progress("wrapping the KEK with the customer key (2 of 3)").await;
    let kek = Kek::generate(config.svm, version);
    let wrapped = wrap(job, Phase::Enabling, &client, &owner, &kek, &settings.key_id, settings.encryption_context.clone(), &context).await?;
    job.progress("proving that AWS KMS unwraps the KEK (3 of 3)").await;
    let kek_record = prove(job, Phase::Enabling, &client, &owner, &kek, wrapped, &context).await?;
    Ok((kek, kek_record))
}

async fn describe(job: &JobContext, client: &Client, svm: &SvmRef, key_id: &str) -> std::result::Result<(), CallError> {
    let described = job.aws("describe_key", client.describe_key(key_id)).await;
    let description =
        described.map_err(|error| CallError::of(job.manager.aws_error(Phase::Enabling, svm, "DescribeKey", &error), Known::DescribeKey(error)))?;
    let why = if !description.enabled {
        format!("AWS KMS says that the key {} is in the state {}; it must be Enabled", description.arn, description.state)
    } else if description.usage.as_deref().is_some_and(|usage| usage != "ENCRYPT_DECRYPT") {
        format!("the key {} is not for ENCRYPT_DECRYPT", description.arn)
    } else {
        return Ok(());
    };
    Err(CallError::of(Error::with(Code::KeyUnusable, why), Known::UnusableKey(description)))
}

/// Has AWS wrap a KEK.
#[allow(clippy::too_many_arguments)] // One step of three jobs; a struct of its own would be made and taken apart once.
pub(crate) async fn wrap(
    job: &JobContext,
    phase: Phase,
    client: &Client,
    svm: &SvmRef,
    kek: &Kek,
    key_id: &str,
    context_text: Option<String>,
    context: &EncryptionContext,
) -> std::result::Result<KekRecord, CallError> {
    let encrypted = job.aws("encrypt", client.encrypt(key_id, kek.expose(), context)).await;
    let encrypted = encrypted.map_err(|error| CallError::of(job.manager.aws_error(phase, svm, "Encrypt of the KEK", &error), Known::Encrypt(error)))?;
    Ok(KekRecord {
        svm: kek.svm(),
        version: kek.version(),
        blob: Base64(encrypted.blob),
        key_arn: encrypted.key_arn,
        encryption_context: context_text,
        key_material_id: None,
        check_value: Base64(kek.check_value().0.to_vec()),
        wrapped_at: job.manager.clock.utc(),
    })
}

/// Proves that AWS unwraps what it has just wrapped, to the same KEK. Returns the record with the key material that AWS named.
pub(crate) async fn prove(
    job: &JobContext,
    phase: Phase,
    client: &Client,
    svm: &SvmRef,
    kek: &Kek,
    wrapped: KekRecord,
    context: &EncryptionContext,
) -> std::result::Result<KekRecord, CallError> {
    let decrypted = job.aws("decrypt", client.decrypt(&wrapped.key_arn, &wrapped.blob.0, context)).await;
    let mut decrypted = decrypted.map_err(|error| CallError::of(job.manager.aws_error(phase, svm, "Decrypt of the KEK", &error), Known::Decrypt(error)))?;
    match kek_from(&wrapped, &mut decrypted.plaintext) {
        Some(same) if kek.matches(same.expose()) => Ok(KekRecord { key_material_id: decrypted.key_material_id, ..wrapped }),
        _ => {
            let why = format!(
                "for the SVM {}, AWS KMS unwrapped another KEK than it had wrapped with {}; nothing is stored. Look at what stands between node {} and AWS",
                svm.name, wrapped.key_arn, job.manager.node.name
            );
            Err(CallError::of(Error::with(Code::KeyUnusable, why), Known::OtherPlaintext))
        }
    }
}

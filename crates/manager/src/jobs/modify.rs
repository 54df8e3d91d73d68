//! PATCH of a configuration: the new set is proven before it replaces the old one.

use super::context::JobContext;
use super::enable::{prove, wrap};
use super::restore::{configuration, current_kek, not_while_rekeying, unwrap};
use super::{Afterwards, Plan, StoredChange};
use crate::aws::{Phase, context};
use crate::credentials::changed;
use crate::inner::Inner;
use crate::poll::Proof;
use crate::records::{AwsKmsRecord, KekRecord, KeyStoreRecord, Record, Stored, StoredSettings, StoredSource, keks_prefix};
use crate::{Code, Error, Result};
use keystead_keyring::Kek;
use keystead_store::{Compare, Range, Txn};
use uuid::Uuid;

pub(crate) async fn run(job: &JobContext, config: Uuid, change: &StoredChange) -> Result<Plan> {
    let manager = &job.manager;
    let old = configuration(manager, config).await?;
    let mut new = changed(&old.record, change, None)?;
    crate::endpoints::check(manager, !change.by_admin, Some(&old.record.settings), &new.settings).await?;
    if new.settings.region != old.record.settings.region {
        new.settings.key_id = arn_in_region(&new.settings.key_id, &new.settings.region);
    }
    let mut txn = Txn::new().when(Compare::Unchanged(old.key.clone(), old.revision));
    let mut afterwards = Afterwards::Nothing;
    if change.skip_verify {
        new.unproven = true;
    } else if concerns_aws(&old.record, &new, change) {
        // A client with credentials of the node's own unwraps KEKs of one key alone, and older versions may stand under another.
        let other_source = new.settings.credentials_source != old.record.settings.credentials_source;
        if other_source || new.settings.region != old.record.settings.region || new.settings.encryption_context != old.record.settings.encryption_context {
            let store = not_while_rekeying(manager, old.record.svm).await?;
            txn = txn.when(Compare::Unchanged(store.key, store.revision));
        }
        if holds_no_kek(manager, old.record.svm).await? {
            // Its keys are with the onboard key manager: what can be proven is that AWS answers for the customer key.
            let (client, svm) = (manager.client_for(&new)?, manager.svm_ref(new.svm));
            job.progress("asking AWS KMS about the customer key with the new settings").await;
            let described = job.aws("describe_key", client.describe_key(&new.settings.key_id)).await;
            described.map_err(|error| manager.aws_error(Phase::InUse, &svm, "DescribeKey", &error))?;
            new.unproven = false;
            return stored(job, txn, old.key, &new, change, Afterwards::Nothing).await;
        }
        let kek = current_kek(manager, old.record.svm).await?;
        let asked = manager.clock.monotonic();
        let (replacement, proven) = prove_change(job, &old, &new, &kek.record).await?;
        new.unproven = false;
        txn = txn.when(Compare::Unchanged(kek.key.clone(), kek.revision));
        let proof = Proof { asked, keks: vec![proven], config: Box::new(new.clone()) };
        afterwards = match replacement {
            None => Afterwards::Serve(proof),
            Some(replacement) => {
                txn = txn.put(kek.key, replacement.encode()?);
                Afterwards::Rewrapped(proof, Box::new((kek.record, replacement)))
            }
        };
    }
    stored(job, txn, old.key, &new, change, afterwards).await
}

/// The last transaction.
async fn stored(job: &JobContext, txn: Txn, key: String, new: &AwsKmsRecord, change: &StoredChange, afterwards: Afterwards) -> Result<Plan> {
    if change.secret_access_key.is_some() || change.proxy_password.is_some() {
        job.manager.seal.prove().await?;
    }
    job.progress("storing the configuration").await;
    let txn = txn.put(key, new.encode()?);
    let message = if change.skip_verify { "the configuration is changed; the credentials were not tried" } else { "the configuration is changed" };
    Ok(Plan { txn, message: message.to_owned(), afterwards })
}

/// Whether the keys of the SVM are with the onboard key manager, and this configuration holds no KEK.
async fn holds_no_kek(manager: &Inner, svm: Uuid) -> Result<bool> {
    let store = manager.fresh::<KeyStoreRecord>(svm).await?;
    if !store.is_some_and(|store| store.record.onboard) {
        return Ok(false);
    }
    Ok(manager.store.range(Range::prefix(keks_prefix(svm), 1)).await.map_err(Error::from)?.entries.is_empty())
}

/// A configuration with a change applied.
///
/// # Errors
/// 262186 what is asked of the proxy makes none.
pub(crate) fn apply(old: &AwsKmsRecord, change: &StoredChange) -> Result<AwsKmsRecord> {
    let (proxy, proxy_password) = crate::proxies::changed(old, change)?;
    let (was, to) = (old.settings.clone(), change.clone());
    let credentials_source = match to.credentials_source {
        None => was.credentials_source,
        Some(source) => source.map(|source| StoredSource { source, key_arn: was.key_id.clone() }),
    };
    let keyed = credentials_source.is_none();
    Ok(AwsKmsRecord {
        uuid: old.uuid,
        svm: old.svm,
        settings: StoredSettings {
            region: to.region.unwrap_or(was.region),
            key_id: was.key_id,
            access_key_id: to.access_key_id.or(was.access_key_id).filter(|_| keyed),
            encryption_context: to.encryption_context.unwrap_or(was.encryption_context),
            service: to.service.unwrap_or(was.service),
            default_domain: to.default_domain.unwrap_or(was.default_domain),
            host: to.host.unwrap_or(was.host),
            port: to.port.unwrap_or(was.port),
            polling_period: to.polling_period.unwrap_or(was.polling_period),
            timeout: to.timeout.unwrap_or(was.timeout),
            verify: to.verify.unwrap_or(was.verify),
            verify_host: to.verify_host.unwrap_or(was.verify_host),
            verify_ip: to.verify_ip.unwrap_or(was.verify_ip),
            proxy,
            access_error_grace: to.access_error_grace.unwrap_or(was.access_error_grace),
            max_unverified: to.max_unverified.unwrap_or(was.max_unverified),
            ca_certificates: to.ca_certificates.unwrap_or(was.ca_certificates),
            credentials_source,
        },
        secret_access_key: to.secret_access_key.or_else(|| old.secret_access_key.clone()).filter(|_| keyed),
        proxy_password,
        unproven: old.unproven,
    })
}

/// Whether AWS would see a difference.
pub(crate) fn concerns_aws(old: &AwsKmsRecord, new: &AwsKmsRecord, change: &StoredChange) -> bool {
    let quiet = StoredSettings {
        polling_period: old.settings.polling_period,
        access_error_grace: old.settings.access_error_grace,
        max_unverified: old.settings.max_unverified,
        ..new.settings.clone()
    };
    quiet != old.settings || change.secret_access_key.is_some() || change.proxy_password.is_some()
}

/// Proves the new set by what a poll does: the stored KEK unwraps with it. A changed context, or a key that has moved to another region, also changes what is stored.
async fn prove_change(job: &JobContext, old: &Stored<AwsKmsRecord>, new: &AwsKmsRecord, kek: &KekRecord) -> Result<(Option<KekRecord>, Kek)> {
    let manager = &job.manager;
    let svm = manager.svm_ref(new.svm);
    let client = manager.client_for(new)?;
    let key_arn = if new.settings.region == old.record.settings.region { kek.key_arn.clone() } else { arn_in_region(&kek.key_arn, &new.settings.region) };
    let moved = KekRecord { key_arn, ..kek.clone() };
    let same_context = new.settings.encryption_context == kek.encryption_context;
    let known = if same_context && moved.key_arn == kek.key_arn {
        None
    } else {
        // Nobody re-roots a revoked tenant: the key and the context that were in use must still be good now, although the KEK may be in memory. A replica in another region is enabled and disabled by itself.
        job.progress("proving the configuration as it is, before the key or its context changes").await;
        Some(unwrap(job, &manager.client(old)?, kek).await.map_err(|error| Error::with(Code::KeyUnusable, error.message))?)
    };
    let Some(key) = known.filter(|_| !same_context) else {
        job.progress("proving the new settings: unwrapping the KEK with them").await;
        let key = unwrap(job, &client, &moved).await?;
        job.aws("describe_key", client.describe_key(&moved.key_arn)).await.map_err(|error| manager.aws_error(Phase::InUse, &svm, "DescribeKey", &error))?;
        let replacement = (moved.key_arn != kek.key_arn).then_some(moved);
        return Ok((replacement, key));
    };
    job.progress("wrapping the KEK under the new encryption context").await;
    let text = new.settings.encryption_context.clone();
    let context = context(text.as_deref())?;
    let wrapped = wrap(job, Phase::InUse, &client, &svm, &key, &moved.key_arn, text, &context).await?;
    job.progress("proving that AWS KMS unwraps the KEK under the new encryption context").await;
    let wrapped = prove(job, Phase::InUse, &client, &svm, &key, wrapped, &context).await?;
    Ok((Some(wrapped), key))
}

/// The same key in another region: a replica of a multi-region key has the same id. AWS refuses where there is none.
fn arn_in_region(arn: &str, region: &str) -> String {
    let mut parts: Vec<&str> = arn.split(':').collect();
    if let (Some(&"arn"), Some(place)) = (parts.first().copied().as_ref(), parts.get_mut(3)) {
        *place = region;
    }
    parts.join(":")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_moves_with_its_region_and_its_account_stays() {
        let there = arn_in_region("arn:aws:kms:us-east-1:111122223333:key/mrk-1", "eu-west-1");
        assert_eq!(there, "arn:aws:kms:eu-west-1:111122223333:key/mrk-1");
        assert_eq!(arn_in_region("mrk-1", "eu-west-1"), "mrk-1");
    }
}

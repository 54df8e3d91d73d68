//! rekey-external: wrap the KEK under another customer key, or again under the rotated one. Keys of the SVM are not touched.

use super::context::JobContext;
use super::enable::{prove, wrap};
use super::restore::{configuration, current_kek, has_the_keys, not_while_rekeying, unwrap};
use super::{Afterwards, Plan, StoredChange, everywhere};
use crate::aws::{Phase, context};
use crate::credentials::changed;
use crate::poll::Proof;
use crate::records::{AwsKmsRecord, Record};
use crate::{Code, Error, Result};
use jiff::Timestamp;
use keystead_store::{Compare, Txn};
use uuid::Uuid;

pub(crate) async fn run(job: &JobContext, config: Uuid, key_id: &str, change: &StoredChange, outdated: Option<Timestamp>) -> Result<Plan> {
    let manager = &job.manager;
    let old = configuration(manager, config).await?;
    has_the_keys(manager, &old.record).await?;
    let store = not_while_rekeying(manager, old.record.svm).await?;
    let record = current_kek(manager, old.record.svm).await?;
    if outdated.is_some_and(|found| record.record.wrapped_at != found) {
        return Ok(Plan { txn: Txn::new(), message: "the KEK was wrapped again already".to_owned(), afterwards: Afterwards::Nothing });
    }
    let svm = manager.svm_ref(old.record.svm);
    if outdated.is_none() {
        everywhere::has_the_kek(job, config).await?;
    }

    // Nobody re-roots a revoked tenant: the old key must unwrap the KEK now, in this job, although the KEK may be in memory.
    job.progress("unwrapping the KEK with the customer key in use (1 of 3)").await;
    let asked = manager.clock.monotonic();
    let kek = unwrap(job, &manager.client(&old)?, &record.record).await.map_err(|error| Error::with(Code::KeyUnusable, error.message))?;

    let new = AwsKmsRecord { unproven: false, ..changed(&old.record, change, Some(key_id))? };
    crate::endpoints::check(manager, !change.by_admin, Some(&old.record.settings), &new.settings).await?;
    let client = manager.client_for(&new)?;
    let text = new.settings.encryption_context.clone();
    let context = context(text.as_deref())?;
    let failed = |error: Error| match error.code {
        Code::KeyUnusable => Error::with(Code::RekeyFailedOnNode, error.message),
        _ => error,
    };
    job.progress("wrapping the KEK with the new customer key (2 of 3)").await;
    let wrapped = wrap(job, Phase::InUse, &client, &svm, &kek, key_id, text, &context).await.map_err(|error| failed(error.into()))?;
    job.progress("proving that AWS KMS unwraps the KEK with the new customer key (3 of 3)").await;
    let wrapped = prove(job, Phase::InUse, &client, &svm, &kek, wrapped, &context).await.map_err(|error| failed(error.into()))?;
    let nodes = everywhere::prove(job, &new, &wrapped, Code::RekeyFailedOnNode).await?;
    if change.secret_access_key.is_some() || change.proxy_password.is_some() {
        manager.seal.prove().await?;
    }
    job.progress("storing the wrapped KEK in place of the old one").await;
    let message = format!("the KEK is wrapped by {}, and {nodes}", wrapped.key_arn);
    let txn = Txn::new()
        .when(Compare::Unchanged(old.key.clone(), old.revision))
        .when(Compare::Unchanged(record.key.clone(), record.revision))
        .when(Compare::Unchanged(store.key, store.revision))
        .put(old.key, new.encode()?)
        .put(record.key, wrapped.encode()?);
    let proof = Proof { asked, keks: vec![kek], config: Box::new(new) };
    Ok(Plan { txn, message, afterwards: Afterwards::Rewrapped(proof, Box::new((record.record, wrapped))) })
}

//! Replacing the seal key: every secret of the store is sealed with the new one, while the service goes on.
//!
//! Before, the operator has put the new key beside the old one, on every node. The job makes sure of that; turns the cluster to the new key, from when on every node seals with it; and then seals again what is
//! sealed with another. Until it has ended, and that is when a whole pass has found nothing, both keys are needed; whoever starts it again goes on.

use super::context::JobContext;
use super::{Afterwards, JobKind, Plan, everywhere};
use crate::cluster::{is_sealed_with, seal_check};
use crate::inner::{Inner, may_change};
use crate::model::{Accepted, Principal};
use crate::peers::What;
use crate::records::{AuthorityRecord, AwsKmsRecord, Base64, CertificateRecord, ClusterRecord, EkmipCertificateRecord, OnboardRecord, Record, Stored};
use crate::seal::seal_with;
use crate::sealed_records::Sealing;
use crate::{Code, Error, Manager, Result};
use keystead_keyring::{SealKey, Sealed};
use keystead_store::{Compare, Error as StoreError, Txn};
use std::sync::Arc;
use std::time::Duration;

/// How long it waits for jobs whose inputs are sealed with the old key.
const PATIENCE: Duration = Duration::from_secs(60);

impl Manager {
    /// Starts to seal every secret of the store with the key that the source of the seal key gives beside the one in use.
    ///
    /// # Errors
    /// 6; 8 where the source gives no other, 65537906 where it fails; 65537566 where a node is down: it needs the new key, too.
    pub async fn rotate_seal(&self, who: &Principal) -> Result<Accepted> {
        let inner = self.inner();
        may_change(who, None)?;
        inner.seal.next().await?;
        if let Some(absent) = crate::presence::absent(inner) {
            return Err(Error::with(
                Code::NotAllNodesOnline,
                format!("{absent}; every node must have the new seal key, so start it, or remove it from the cluster"),
            ));
        }
        let cluster = inner.view.only::<ClusterRecord>()?;
        let job = inner.new_job(who, "POST /api/security/ekmip/seal/rotate", JobKind::RotateSeal, None);
        let txn = Txn::new().when(Compare::Present(cluster.key));
        inner.accept(job, cluster.record.uuid, txn, |_| Error::new(Code::NotFound)).await
    }
}

pub(crate) async fn run(job: &JobContext) -> Result<Plan> {
    let manager = &job.manager;
    manager.catch_up().await;
    let cluster = manager.view.only::<ClusterRecord>()?;
    let next = manager.seal.next().await?;
    job.progress("looking whether every node has the new seal key (1 of 3)").await;
    let check = seal_check(&next);
    everywhere::ask(job, "there", What::SealKey { check: check.clone() }, Code::NotAllNodesOnline).await?;
    job.progress("turning the cluster to the new seal key (2 of 3)").await;
    let check = if is_sealed_with(&next, &cluster.record.seal_check) { cluster.record.seal_check } else { turn(job, cluster, check).await? };
    // What a node seals before it has seen the turn is found by the passes after this.
    let nodes = everywhere::ask(job, "in use", What::SealKeyInUse { check: check.clone() }, Code::NotAllNodesOnline).await?;
    let mut done = 0;
    // Twice: what was on its way while a first pass went on is found by the one after.
    for _ in 0..2 {
        wait_for_jobs(job).await?;
        loop {
            job.progress(format!("sealing what is stored with the new seal key (3 of 3): {done} secrets")).await;
            let count = pass(job, &next).await?;
            if count == 0 {
                break;
            }
            done += count;
        }
    }
    let current = manager.fresh::<ClusterRecord>("").await?.filter(|cluster| is_sealed_with(&next, &cluster.record.seal_check));
    let current = current.ok_or_else(|| Error::with(Code::InUse, "the seal key was replaced by another one meanwhile"))?;
    Ok(Plan {
        txn: Txn::new().when(Compare::Unchanged(current.key, current.revision)),
        message: format!("{done} secrets were sealed with the new seal key, {nodes}; the old one is not needed any more: take it out of every node's source"),
        afterwards: Afterwards::Nothing,
    })
}

/// From now on, every node seals with the new key.
async fn turn(job: &JobContext, cluster: Stored<ClusterRecord>, check: Base64) -> Result<Base64> {
    let manager = &job.manager;
    let turned = ClusterRecord { seal_check: check.clone(), ..cluster.record };
    let txn = Txn::new().when(Compare::Unchanged(cluster.key.clone(), cluster.revision)).put(cluster.key, turned.encode()?);
    job.step("turn", "before");
    match manager.store.transact(job.fenced(txn)).await {
        Ok(revision) => {
            job.step("turn", "after");
            manager.seal.choose(&check);
            manager.view.reached(revision).await;
            Ok(check)
        }
        Err(StoreError::Conflict { .. }) => Err(Error::with(Code::InUse, "another node goes on with this, or the cluster was changed; start again")),
        Err(error) => Err(error.into()),
    }
}

/// Jobs have secrets among their inputs until they end.
async fn wait_for_jobs(job: &JobContext) -> Result<()> {
    let manager = &job.manager;
    let holds = |kind: &JobKind| matches!(kind, JobKind::Enable { .. } | JobKind::Modify { .. } | JobKind::RekeyExternal { .. });
    let before: Vec<_> = manager.view.open_jobs().iter().filter(|open| holds(&open.record.kind)).map(|open| open.record.uuid).collect();
    let deadline = tokio::time::Instant::now() + PATIENCE;
    let mut changes = manager.view.changes();
    loop {
        changes.mark_unchanged();
        let open = manager.view.open_jobs();
        let Some(held) = open.iter().find(|open| before.contains(&open.record.uuid)) else { return Ok(()) };
        if tokio::time::timeout_at(deadline, changes.changed()).await.is_err() {
            let why = format!(
                "the job {} ({}) has not ended, and its secrets are sealed with the old seal key; end it, and start again",
                held.record.uuid, held.record.description
            );
            return Err(Error::with(Code::InUse, why));
        }
    }
}

/// Goes once through all that is sealed. Returns how many secrets were sealed again.
async fn pass(job: &JobContext, next: &Arc<SealKey>) -> Result<usize> {
    job.manager.catch_up().await;
    Ok(all::<AuthorityRecord>(job, next).await?
        + all::<EkmipCertificateRecord>(job, next).await?
        + all::<CertificateRecord>(job, next).await?
        + all::<OnboardRecord>(job, next).await?
        + all::<AwsKmsRecord>(job, next).await?)
}

/// The same of one kind of records.
async fn all<R: Sealing>(job: &JobContext, next: &Arc<SealKey>) -> Result<usize> {
    let mut done = 0;
    for stored in job.manager.view.all::<R>() {
        let mut again = Again::new(&job.manager, next);
        let mut record = stored.record.clone();
        for secret in record.secrets(&stored.key) {
            *secret.sealed = again.seal(&secret.place, secret.sealed)?;
        }
        done += again.store(job, &stored, &record).await?;
    }
    Ok(done)
}

/// One record that is looked at.
struct Again<'m> {
    manager: &'m Inner,
    next: &'m SealKey,
    count: usize,
}

impl<'m> Again<'m> {
    fn new(manager: &'m Inner, next: &'m SealKey) -> Self {
        Self { manager, next, count: 0 }
    }

    /// A secret as it is to be stored. One that no key opens is lost already, as after the loss of a seal key (decision 19): it stays as it is.
    fn seal(&mut self, place: &str, sealed: &Base64) -> Result<Base64> {
        if self.next.open(place, &Sealed(sealed.0.clone())).is_ok() {
            return Ok(sealed.clone());
        }
        let Ok(secret) = self.manager.seal.open_bytes(place, sealed) else { return Ok(sealed.clone()) };
        self.count += 1;
        Ok(seal_with(self.next, place, &secret))
    }

    /// Stores the record where it has changed. What somebody else has changed at this moment is the next pass's.
    async fn store<R: Record>(&self, job: &JobContext, stored: &Stored<R>, record: &R) -> Result<usize> {
        if self.count == 0 {
            return Ok(0);
        }
        let txn = Txn::new().when(Compare::Unchanged(stored.key.clone(), stored.revision)).put(stored.key.clone(), record.encode()?);
        job.step("record", "before");
        match self.manager.store.transact(job.fenced(txn)).await {
            Ok(revision) => {
                job.step("record", "after");
                self.manager.view.reached(revision).await;
                Ok(self.count)
            }
            Err(StoreError::Conflict { key }) if job.is_fence(&key) => Err(Error::with(Code::InUse, "another node goes on with this job")),
            Err(StoreError::Conflict { .. }) => Ok(self.count),
            Err(error) => Err(error.into()),
        }
    }
}

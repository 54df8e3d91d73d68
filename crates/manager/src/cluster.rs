//! The cluster: how it is made at the first start, its nodes, its settings, its certificate authority.

use crate::certificates::CertificateAuthority;
use crate::inner::{Inner, may_change};
use crate::model::{Cluster, Node, Principal, SvmKind};
use crate::records::{
    AccountRecord, AuthorityRecord, Base64, ClusterRecord, EkmipCertificateRecord, NodeRecord, NodeStandingRecord, PresenceRecord, Record, Stored,
    SvmNameRecord, SvmRecord, account_key, key, svm_name_key,
};
use crate::seal::Seal;
use crate::settings::{Settings, SettingsChange};
use crate::steps::Steps;
use crate::view::View;
use crate::{Code, Error, Manager, Result};
use aws_lc_rs::digest;
use jiff::Timestamp;
use keystead_awskms::Egress;
use keystead_keyring::{SealKey, Sealed};
use keystead_store::{Compare, Range, Store, Txn};
use secrecy::ExposeSecret;
use std::time::Duration;
use uuid::Uuid;

/// What this version can do; a node publishes it. A cluster has a feature when all of its nodes have it.
pub const FEATURE_LEVEL: u32 = 2;
/// The feature level that AWS KMS needs (65537901).
pub const AWS_KMS_FEATURE_LEVEL: u32 = 1;
/// The feature level that the onboard key manager, and moving keys, needs (65536968).
pub const ONBOARD_FEATURE_LEVEL: u32 = 2;

/// A known text, sealed when the cluster is made.
const SEAL_CHECK: &[u8] = b"this store was sealed with this key";
const SEAL_CHECK_PLACE: &str = "/cluster#seal_check";
pub(crate) const AUTHORITY_PLACE: &str = "/certificate-authority#private_key";
pub(crate) const NEXT_AUTHORITY_PLACE: &str = "/certificate-authority#next.private_key";
/// More nodes than a cluster has.
const MOST_NODES: usize = 100;

/// What the first start in an empty store needs.
pub struct Founding {
    /// The settings of the configuration file.
    pub settings: Settings,
    /// The password of `admin`, hashed.
    pub admin_password_hash: String,
}

/// Makes the cluster in one transaction: the cluster, its settings, its CA, its admin SVM and the account `admin`. Returns whether this call made it.
///
/// # Errors
/// The store refuses; the CA cannot be made.
pub async fn found(store: &dyn Store, seal: &Seal, now: Timestamp, founding: impl AsyncFnOnce() -> Result<Founding>) -> Result<bool> {
    let cluster_key = key::<ClusterRecord>("");
    if store.get(&cluster_key).await?.is_some() {
        return Ok(false);
    }
    let founding = founding().await?;
    let admin_svm = SvmRecord { uuid: Uuid::new_v4(), name: founding.settings.cluster_name.clone(), comment: String::new(), kind: SvmKind::Admin };
    let cluster = ClusterRecord { uuid: Uuid::new_v4(), admin_svm: admin_svm.uuid, seal_check: seal.seal(SEAL_CHECK_PLACE, SEAL_CHECK), created: now };
    let authority = new_authority(&founding.settings, seal, now)?;
    let account = AccountRecord::first(founding.admin_password_hash);
    let txn = Txn::new()
        .when(Compare::Absent(cluster_key.clone()))
        .put(cluster_key, cluster.encode()?)
        .put(key::<Settings>(""), founding.settings.encode()?)
        .put(key::<AuthorityRecord>(""), authority.encode()?)
        .put(account_key(&account.name), account.encode()?)
        .put(svm_name_key(&admin_svm.name), SvmNameRecord { svm: admin_svm.uuid }.encode()?)
        .put(key::<SvmRecord>(admin_svm.uuid), admin_svm.encode()?);
    match store.transact(txn).await {
        Ok(_) => Ok(true),
        Err(keystead_store::Error::Conflict { .. }) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

impl Manager {
    /// The cluster.
    ///
    /// # Errors
    /// The record is damaged.
    pub fn cluster(&self) -> Result<Cluster> {
        let inner = self.inner();
        let record = inner.view.only::<ClusterRecord>()?.record;
        Ok(Cluster { uuid: record.uuid, name: inner.settings().cluster_name, admin_svm: inner.svm_ref(record.admin_svm) })
    }

    /// All nodes, by uuid.
    pub fn nodes(&self) -> Vec<Node> {
        let inner = self.inner();
        inner.view.all::<NodeRecord>().into_iter().map(|node| shown(inner, node.record)).collect()
    }

    /// Takes a node that is down out of the cluster: it is waited for no more where something must happen on every node. It comes back when it is started again.
    ///
    /// # Errors
    /// 4; 6; 8 where it is up.
    pub async fn remove_node(&self, who: &Principal, uuid: Uuid) -> Result<()> {
        let inner = self.inner();
        may_change(who, None)?;
        let node = inner.view.get::<NodeRecord>(uuid)?.ok_or_else(|| Error::new(Code::NotFound).target("uuid"))?;
        let up = || Error::with(Code::InUse, format!("node {} is up; stop it first", node.record.name));
        let presence = key::<PresenceRecord>(uuid);
        if inner.view.contains(&presence) {
            return Err(up());
        }
        let txn = Txn::new()
            .when(Compare::Absent(presence))
            .delete(node.key.clone())
            .delete(key::<NodeStandingRecord>(uuid))
            .delete(key::<EkmipCertificateRecord>(uuid));
        inner.commit(txn, |_| up()).await?;
        tracing::warn!(node = node.record.name, "the node was taken out of the cluster");
        Ok(())
    }

    /// The settings of the cluster.
    pub fn settings(&self) -> Settings {
        self.inner().settings()
    }

    /// Changes settings of the cluster, on every node.
    ///
    /// # Errors
    /// 6; 262245 a value out of its bounds; 262247 an entry of `allow_endpoints` that cannot be read; 52559974 FIPS mode would refuse what exists.
    pub async fn modify_settings(&self, who: &Principal, change: SettingsChange) -> Result<()> {
        let inner = self.inner();
        may_change(who, None)?;
        let stored = inner.view.only::<Settings>()?;
        if change.fips == Some(true) && !stored.record.fips && !change.fips_force {
            self.fips_report().await?.refuse()?;
        }
        let new = stored.record.changed(change);
        check(&new)?;
        let txn = Txn::new().when(Compare::Unchanged(stored.key.clone(), stored.revision)).put(stored.key, new.encode()?);
        inner.commit(txn, |_| Error::with(Code::InUse, "the settings were changed at this moment; look again")).await?;
        inner.apply_settings();
        Ok(())
    }

    /// The certificate of the cluster's CA, PEM; while it is being replaced, the other one as well.
    ///
    /// # Errors
    /// The record is damaged.
    pub fn ca_certificate(&self) -> Result<String> {
        Ok(self.inner().view.only::<AuthorityRecord>()?.record.bundle())
    }
}

/// Checks that the store was sealed with this seal key. Where the right one is lost for good, and the operator says so with the code that this gives, the store is given to this one: the
/// cluster gets a new CA, and what can be brought back is (`docs/decisions/0019-onboard.md`). The code is good for one change.
///
/// # Errors
/// A text for the operator. Answers whether the store was given to this key now.
pub(crate) async fn check_seal(
    view: &View,
    store: &dyn Store,
    seal: &Seal,
    now: Timestamp,
    adopt: Option<&str>,
    steps: &dyn Steps,
) -> std::result::Result<bool, String> {
    let text = Error::for_operator;
    let cluster = view.only::<ClusterRecord>().map_err(text)?;
    if seal.choose(&cluster.record.seal_check) {
        return Ok(false);
    }
    let code: String = digest::digest(&digest::SHA256, &cluster.record.seal_check.0).as_ref().iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    if adopt != Some(code.as_str()) {
        return Err(format!(
            "the seal key is not the one that this store was sealed with; put the right one back: without it, the AWS secrets in the store cannot be read. \
             Only if it is lost for good, on all nodes and in all backups: [seal] adopt = \"{code}\" gives the store to this one; the AWS secrets and the cluster's CA are lost then. Never on a node that joins: there the seal key is the wrong one"
        ));
    }
    let settings = view.only::<Settings>().map_err(text)?;
    let certificates = store.range(Range::prefix(EkmipCertificateRecord::PREFIX, MOST_NODES)).await.map_err(|error| error.to_string())?;
    let authority = new_authority(&settings.record, seal, now).map_err(text)?;
    let adopted = ClusterRecord { seal_check: seal.seal(SEAL_CHECK_PLACE, SEAL_CHECK), ..cluster.record };
    let txn = Txn::new()
        .when(Compare::Unchanged(cluster.key.clone(), cluster.revision))
        .put(cluster.key, adopted.encode().map_err(text)?)
        .put(key::<AuthorityRecord>(""), authority.encode().map_err(text)?);
    let txn = certificates.entries.into_iter().fold(txn, |txn, certificate| txn.delete(certificate.key));
    steps.reached("seal.adopt.before");
    store.transact(txn).await.map_err(|error| error.to_string())?;
    steps.reached("seal.adopt.after");
    tracing::warn!(
        "the store is sealed with another seal key from now on: give each AWS KMS configuration its secrets anew, issue EKMIP clients new certificates, and bring the onboard key back with the \
         cluster passphrase"
    );
    Ok(true)
}

/// The identifier and the name of the cluster of a store, if this seal key (which is taken from `bytes`) is its own.
///
/// # Errors
/// A text for the operator.
pub(crate) async fn sealed_by(store: &dyn Store, bytes: &mut [u8]) -> std::result::Result<(Uuid, String), String> {
    let text = Error::for_operator;
    let read = async |key: String| store.get(&key).await.map_err(|error| error.to_string())?.ok_or_else(|| "there is no cluster in this store yet".to_owned());
    let cluster = Stored::<ClusterRecord>::decode(&read(key::<ClusterRecord>("")).await?).map_err(text)?.record;
    let settings = Stored::<Settings>::decode(&read(key::<Settings>("")).await?).map_err(text)?.record;
    let mut keys = bytes.chunks_exact_mut(keystead_keyring::KEY_BYTES).filter_map(SealKey::take);
    if keys.any(|key| is_sealed_with(&key, &cluster.seal_check)) {
        return Ok((cluster.uuid, settings.cluster_name));
    }
    Err("the seal key is not the one that this store was sealed with".to_owned())
}

/// Whether this key has sealed the cluster's known text.
pub(crate) fn is_sealed_with(key: &SealKey, seal_check: &Base64) -> bool {
    key.open(SEAL_CHECK_PLACE, &Sealed(seal_check.0.clone())).is_ok_and(|text| text.as_slice() == SEAL_CHECK)
}

/// The known text, sealed with this key.
pub(crate) fn seal_check(key: &SealKey) -> Base64 {
    crate::seal::seal_with(key, SEAL_CHECK_PLACE, SEAL_CHECK)
}

fn new_authority(settings: &Settings, seal: &Seal, now: Timestamp) -> Result<AuthorityRecord> {
    let authority = CertificateAuthority::generate(&format!("{} Keystead CA", settings.cluster_name), now).map_err(Error::unexpected)?;
    let private_key = authority.private_key_pem();
    let private_key = seal.seal(AUTHORITY_PLACE, private_key.expose_secret().as_bytes());
    Ok(AuthorityRecord { certificate: authority.certificate_pem().to_owned(), private_key, next: None, previous: None, generation: 0 })
}

pub(crate) fn authority(inner: &Inner) -> Result<CertificateAuthority> {
    let record = inner.view.only::<AuthorityRecord>()?.record;
    let private_key = inner.seal.open_text(AUTHORITY_PLACE, &Base64(record.private_key.0))?;
    CertificateAuthority::from_pem(&record.certificate, &private_key).map_err(Error::unexpected)
}

/// The bounds that `Settings` documents. The target is the dotted name of the member.
///
/// # Errors
/// 262245 or 262247.
pub fn check(settings: &Settings) -> Result<()> {
    let bounds = |holds: bool, target: &str, rule: &str| if holds { Ok(()) } else { Err(Error::with(Code::OutOfBounds, rule).target(target)) };
    let seconds = |value: Duration, low: u64, high: u64| (Duration::from_secs(low)..=Duration::from_secs(high)).contains(&value);
    bounds((1..=64).contains(&settings.cluster_name.chars().count()), "cluster.name", "1 to 64 characters")?;
    bounds(seconds(settings.access_error_grace, 0, 30 * 24 * 3600), "aws_kms.access_error_grace", "0 to 30 days")?;
    bounds(seconds(settings.min_poll_interval, 1, 3600), "aws_kms.min_poll_interval", "1 s to 1 h")?;
    bounds((1..=10_000).contains(&settings.requests_per_second), "aws_kms.requests_per_second", "1 to 10000")?;
    bounds(seconds(settings.job_retention, 1, 24 * 3600), "jobs.retention", "1 s to 24 h")?;
    bounds(settings.max_view_age.is_none_or(|age| seconds(age, 1, 30 * 24 * 3600)), "cluster.max_view_age", "1 s to 30 days")?;
    Egress::parse(&settings.allow_endpoints).map(|_| ()).map_err(|error| Error::with(Code::InvalidValue, error).target("aws_kms.allow_endpoints"))
}

fn shown(inner: &Inner, record: NodeRecord) -> Node {
    let (state, since) = crate::presence::standing(inner, &record);
    Node {
        state,
        since,
        view_age: (record.uuid == inner.node.uuid).then(|| inner.presence.view_age()),
        uuid: record.uuid,
        name: record.name,
        version: record.version,
        address: record.address,
        ekmip_address: record.ekmip_address,
        started: record.started,
    }
}

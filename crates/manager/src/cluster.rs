//! The cluster: how it is made at the first start, its nodes, its settings, its certificate authority.

use crate::certificates::{CertificateAuthority, CertificateError, CertificateRequest, Kind, create};
use crate::events::catalogue::{CERTIFICATE_EXPIRING, CERTIFICATE_RENEWED};
use crate::inner::{Inner, may_change};
use crate::model::{Cluster, Node, Principal, SvmKind};
use crate::records::{
    AccountRecord, AuthorityRecord, Base64, ClusterRecord, EkmipCertificateRecord, NodeRecord, Record, Stored, StoredRole, SvmNameRecord, SvmRecord, key,
    svm_name_key,
};
use crate::seal::Seal;
use crate::settings::{Settings, SettingsChange};
use crate::{Code, Error, Manager, Result};
use aws_lc_rs::digest;
use jiff::{SignedDuration, Timestamp};
use keystead_awskms::Egress;
use keystead_store::{Compare, Range, Store, Txn};
use secrecy::{ExposeSecret, SecretString};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
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
const AUTHORITY_PLACE: &str = "/certificate-authority#private_key";
/// More nodes than a cluster has.
const MOST_NODES: usize = 100;
/// How long before its end an EKMIP server's certificate is made anew; where it lives for a short time, when a third of that is left.
const RENEW_BEFORE: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// How often it is looked at, at the least.
const RENEWAL_LOOK: Duration = Duration::from_secs(60 * 60);
/// The pause after a renewal that has failed.
const RENEWAL_RETRY: Duration = Duration::from_secs(5 * 60);

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
    let account = AccountRecord { name: crate::accounts::ADMIN.to_owned(), role: StoredRole::Admin, password_hash: founding.admin_password_hash };
    let txn = Txn::new()
        .when(Compare::Absent(cluster_key.clone()))
        .put(cluster_key, cluster.encode()?)
        .put(key::<Settings>(""), founding.settings.encode()?)
        .put(key::<AuthorityRecord>(""), authority.encode()?)
        .put(key::<AccountRecord>(&account.name), account.encode()?)
        .put(svm_name_key(&admin_svm.name), SvmNameRecord { svm: admin_svm.uuid }.encode()?)
        .put(key::<SvmRecord>(admin_svm.uuid), admin_svm.encode()?);
    match store.transact(txn).await {
        Ok(_) => Ok(true),
        Err(keystead_store::Error::Conflict { .. }) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// A certificate with its key, for a TLS server of this node.
pub struct ServerIdentity {
    /// The certificate, then the CA's, PEM.
    pub certificate_chain: String,
    /// The private key, PEM (PKCS#8).
    pub private_key: SecretString,
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
        self.inner().view.all::<NodeRecord>().into_iter().map(|node| shown(node.record)).collect()
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
        let revision = inner.store.transact(txn).await.map_err(|error| match error {
            keystead_store::Error::Conflict { .. } => Error::with(Code::InUse, "the settings were changed at this moment; look again"),
            error => error.into(),
        })?;
        inner.view.reached(revision).await;
        inner.apply_settings();
        Ok(())
    }

    /// The certificate of the cluster's CA, PEM.
    ///
    /// # Errors
    /// The record is damaged.
    pub fn ca_certificate(&self) -> Result<String> {
        Ok(self.inner().view.only::<AuthorityRecord>()?.record.certificate)
    }

    /// The certificate of this node's EKMIP server. Until an SVM has been enabled there is none from the template, and one is made for the moment.
    ///
    /// # Errors
    /// The record is damaged, or none can be made.
    pub fn ekmip_identity(&self) -> Result<ServerIdentity> {
        let inner = self.inner();
        match inner.view.get::<EkmipCertificateRecord>(inner.node.uuid)? {
            None => self.server_identity(inner.ekmip_names.clone(), inner.ekmip_addresses.clone()),
            Some(stored) => Ok(ServerIdentity {
                certificate_chain: format!("{}{}", stored.record.certificate, inner.view.only::<AuthorityRecord>()?.record.certificate),
                private_key: inner.seal.open_text(&ekmip_key_place(inner), &stored.record.private_key)?,
            }),
        }
    }

    /// Changes when [`Manager::ekmip_identity`] would answer another certificate.
    pub fn ekmip_certificate_revision(&self) -> Option<keystead_store::Revision> {
        ekmip_revision(self.inner())
    }

    /// Makes a certificate for a TLS server of this node, signed by the cluster's CA, for these names and addresses.
    ///
    /// # Errors
    /// The CA's record is damaged, or a name cannot stand in a certificate.
    pub fn server_identity(&self, dns_names: Vec<String>, addresses: Vec<IpAddr>) -> Result<ServerIdentity> {
        let inner = self.inner();
        let authority = authority(inner)?;
        let request = CertificateRequest {
            common_name: inner.node.name.clone(),
            dns_names,
            ip_addresses: addresses,
            key_type: "ec".to_owned(),
            key_size: 256,
            ..CertificateRequest::default()
        };
        let checked = request.check(inner.settings().fips).map_err(Error::unexpected)?;
        let created = create(&checked, Some(&authority), inner.clock.utc()).map_err(Error::unexpected)?;
        Ok(ServerIdentity {
            certificate_chain: format!("{}{}", created.certificate_pem, inner.view.only::<AuthorityRecord>()?.record.certificate),
            private_key: created.private_key_pem,
        })
    }
}

/// Checks that the store was sealed with this seal key. Where the right one is lost for good, and the operator says so with the code that this gives, the store is given to this one: the
/// cluster gets a new CA, and what can be brought back is (`docs/decisions/0019-onboard.md`). The code is good for one change.
///
/// # Errors
/// A text for the operator.
pub(crate) async fn check_seal(store: &dyn Store, seal: &Seal, now: Timestamp, adopt: Option<&str>) -> std::result::Result<(), String> {
    let text = |error: Error| error.detail.unwrap_or(error.message);
    let read =
        async |key: String| store.get(&key).await.map_err(|error| error.to_string())?.ok_or_else(|| format!("the record {key} is missing from the store"));
    let cluster = Stored::<ClusterRecord>::decode(&read(key::<ClusterRecord>("")).await?).map_err(text)?;
    if seal.open_bytes(SEAL_CHECK_PLACE, &cluster.record.seal_check).is_ok_and(|text| text.as_slice() == SEAL_CHECK) {
        return Ok(());
    }
    let code: String = digest::digest(&digest::SHA256, &cluster.record.seal_check.0).as_ref().iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    if adopt != Some(code.as_str()) {
        return Err(format!(
            "the seal key is not the one that this store was sealed with; put the right one back: without it, the AWS secrets in the store cannot be read. \
             Only if it is lost for good: [seal] adopt = \"{code}\" gives the store to this one; the AWS secrets and the cluster's CA are lost then"
        ));
    }
    let settings = Stored::<Settings>::decode(&read(key::<Settings>("")).await?).map_err(text)?;
    let certificates = store.range(Range::prefix(EkmipCertificateRecord::PREFIX, MOST_NODES)).await.map_err(|error| error.to_string())?;
    let authority = new_authority(&settings.record, seal, now).map_err(text)?;
    let adopted = ClusterRecord { seal_check: seal.seal(SEAL_CHECK_PLACE, SEAL_CHECK), ..cluster.record };
    let txn = Txn::new()
        .when(Compare::Unchanged(cluster.key.clone(), cluster.revision))
        .put(cluster.key, adopted.encode().map_err(text)?)
        .put(key::<AuthorityRecord>(""), authority.encode().map_err(text)?);
    let txn = certificates.entries.into_iter().fold(txn, |txn, certificate| txn.delete(certificate.key));
    store.transact(txn).await.map_err(|error| error.to_string())?;
    tracing::warn!(
        "the store is sealed with another seal key from now on: give each AWS KMS configuration its secrets anew, issue EKMIP clients new certificates, and bring the onboard key back with the \
         cluster passphrase"
    );
    Ok(())
}

fn new_authority(settings: &Settings, seal: &Seal, now: Timestamp) -> Result<AuthorityRecord> {
    let authority = CertificateAuthority::generate(&format!("{} Keystead CA", settings.cluster_name), now).map_err(Error::unexpected)?;
    let private_key = authority.private_key_pem();
    let private_key = seal.seal(AUTHORITY_PLACE, private_key.expose_secret().as_bytes());
    Ok(AuthorityRecord { certificate: authority.certificate_pem().to_owned(), private_key })
}

/// Writes this node's own record.
pub(crate) async fn register(inner: &Inner, record: &NodeRecord) -> Result<()> {
    let txn = Txn::new().put(key::<NodeRecord>(record.uuid), record.encode()?);
    let revision = inner.store.transact(txn).await?;
    inner.view.reached(revision).await;
    Ok(())
}

/// Makes the certificate of this node's EKMIP server from the cluster's template. `None` where a good one exists.
///
/// # Errors
/// The six codes of certificates (`contract/rest.md`), with the member of the template as target.
pub(crate) fn ekmip_certificate(inner: &Inner) -> Result<Option<EkmipCertificateRecord>> {
    let settings = inner.settings();
    let template = settings.certificate;
    let request = CertificateRequest {
        kind: template.kind.clone(),
        common_name: inner.node.name.clone(),
        key_type: template.key_type.clone(),
        key_size: template.key_size,
        hash_function: template.hash_function.clone(),
        expiry_time: template.expiry_time.clone(),
        subtype: template.subtype.clone(),
        serial_number: template.serial_number.clone(),
        dns_names: inner.ekmip_names.clone(),
        ip_addresses: inner.ekmip_addresses.clone(),
        ..CertificateRequest::default()
    };
    let refused = |error: CertificateError| match error {
        CertificateError::Failed(why) => Error::unexpected(why),
        _ => {
            let code = Code::from_number(error.code()).unwrap_or(Code::Unexpected);
            Error::with(code, format!("the template of EKMIP certificates (ekmip.certificate of /security/ekmip/settings): {error}"))
                .target(format!("ekmip.certificate.{}", error.target()))
        }
    };
    let checked = request.check(settings.fips).map_err(refused)?;
    if checked.kind() != Kind::Server {
        return Err(refused(CertificateError::Kind(request.kind)));
    }
    let now = inner.clock.utc();
    let names = ekmip_server_names(inner);
    let current = inner.view.get::<EkmipCertificateRecord>(inner.node.uuid)?;
    let is_good = |record: &EkmipCertificateRecord| record.names == names && record.template.as_ref() == Some(&template) && now < renewal_of(record);
    if current.is_some_and(|current| is_good(&current.record)) {
        return Ok(None);
    }
    let created = create(&checked, Some(&authority(inner)?), now).map_err(refused)?;
    let place = ekmip_key_place(inner);
    Ok(Some(EkmipCertificateRecord {
        certificate: created.certificate_pem,
        private_key: inner.seal.seal(&place, created.private_key_pem.expose_secret().as_bytes()),
        expiry: created.expiry,
        issued: Some(now),
        template: Some(template),
        names,
    }))
}

/// Renews the certificate of this node's EKMIP server where it is due: near its end, or when the node's names have changed. Answers the old end and the new one.
async fn renew_ekmip_certificate(inner: &Inner, current: Stored<EkmipCertificateRecord>) -> Result<Option<Timestamp>> {
    if current.record.names == ekmip_server_names(inner) && inner.clock.utc() < renewal_of(&current.record) {
        return Ok(None);
    }
    let Some(new) = ekmip_certificate(inner)? else { return Ok(None) };
    let expiry = new.expiry;
    let txn = Txn::new().when(Compare::Unchanged(current.key.clone(), current.revision)).put(current.key, new.encode()?);
    let revision = inner.store.transact(txn).await.map_err(|error| match error {
        keystead_store::Error::Conflict { .. } => Error::unexpected("the certificate was changed at this moment"),
        error => error.into(),
    })?;
    inner.view.reached(revision).await;
    Ok(Some(expiry))
}

/// Keeps the certificate of this node's EKMIP server valid, for as long as the node runs. The server takes a new one over without a restart.
pub(crate) async fn renew_ekmip_certificates(inner: Arc<Inner>, stop: CancellationToken) {
    let mut changes = inner.view.changes();
    // Of the stages before the end, the last that was told since a renewal has failed.
    let mut told: Option<Option<SignedDuration>> = None;
    loop {
        let current = inner.view.get::<EkmipCertificateRecord>(inner.node.uuid).ok().flatten();
        let (mut pause, revision) = (RENEWAL_LOOK, current.as_ref().map(|current| current.revision));
        if let Some(current) = current {
            let old = current.record.expiry;
            let (due, parameters) = (renewal_of(&current.record), |reason: String| vec![("reason", reason), ("expiry", old.to_string())]);
            match renew_ekmip_certificate(&inner, current).await {
                Ok(None) => {
                    told = None;
                    pause = Duration::try_from(due.duration_since(inner.clock.utc())).unwrap_or_default().clamp(Duration::from_secs(1), RENEWAL_LOOK);
                }
                Ok(Some(new)) => {
                    told = None;
                    pause = Duration::from_secs(1);
                    inner.raise(&CERTIFICATE_RENEWED, None, parameters(format!("the old one was valid until {old}, the new one is until {new}")));
                }
                Err(error) => {
                    tracing::warn!(%error, detail = error.detail.as_deref(), "the certificate of the EKMIP server could not be renewed; it is tried again");
                    pause = RENEWAL_RETRY;
                    let left = old.duration_since(inner.clock.utc());
                    let stage = crate::clients::STAGES.into_iter().rfind(|stage| left <= *stage);
                    if told != Some(stage) {
                        told = Some(stage);
                        inner.raise(&CERTIFICATE_EXPIRING, None, parameters(format!("it is valid until {old}, and could not be renewed: {error}")));
                    }
                }
            }
        }
        let until = inner.clock.monotonic() + pause;
        // Woken by a certificate that an enabling has made, and by nothing else that changes.
        let made = async {
            while changes.changed().await.is_ok() {
                if ekmip_revision(&inner) != revision {
                    return;
                }
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = inner.clock.sleep_until(until) => {}
            () = made => {}
        }
    }
}

/// When a certificate is made anew: when a third of its life is left, but not more than 30 days before its end.
fn renewal_of(record: &EkmipCertificateRecord) -> Timestamp {
    let most = SignedDuration::try_from(RENEW_BEFORE).unwrap_or_default();
    let third = record.issued.map_or(most, |issued| record.expiry.duration_since(issued) / 3);
    record.expiry.checked_sub(third.min(most)).unwrap_or(record.expiry)
}

/// What the certificate of this node's EKMIP server is for.
fn ekmip_server_names(inner: &Inner) -> Vec<String> {
    inner.ekmip_names.iter().cloned().chain(inner.ekmip_addresses.iter().map(IpAddr::to_string)).collect()
}

fn ekmip_revision(inner: &Inner) -> Option<keystead_store::Revision> {
    inner.view.get::<EkmipCertificateRecord>(inner.node.uuid).ok().flatten().map(|stored| stored.revision)
}

fn ekmip_key_place(inner: &Inner) -> String {
    format!("{}#private_key", key::<EkmipCertificateRecord>(inner.node.uuid))
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

fn shown(record: NodeRecord) -> Node {
    Node {
        uuid: record.uuid,
        name: record.name,
        version: record.version,
        address: record.address,
        ekmip_address: record.ekmip_address,
        started: record.started,
    }
}

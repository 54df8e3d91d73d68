//! What is stored, and under which key. The only file that knows the layout of the store.
//!
//! | key | record |
//! |---|---|
//! | `/cluster` | [`ClusterRecord`] |
//! | `/settings` | `crate::settings::Settings` |
//! | `/certificate-authority` | [`AuthorityRecord`] |
//! | `/nodes/{uuid}` | [`NodeRecord`] |
//! | `/presences/{uuid}`, `/node-standings/{uuid}` | [`PresenceRecord`], under a lease: the node is there; [`NodeStandingRecord`]: since when it is, or is not |
//! | `/accounts/{name}` | [`AccountRecord`] |
//! | `/svms/{uuid}`, `/svm-names/{name}` | [`SvmRecord`], [`SvmNameRecord`] |
//! | `/key-stores/{svm}` | [`KeyStoreRecord`]: which key manager the SVM has; while it is `initializing`, or `switching` to a configuration that is not there yet, the reservation of an enable |
//! | `/aws-kms/{uuid}` | [`AwsKmsRecord`] |
//! | `/keks/{svm}/{version}` | [`KekRecord`] |
//! | `/ekmip/certificates/{node}` | [`EkmipCertificateRecord`] |
//! | `/ekmip/clients/{uuid}`, `/ekmip/client-cas/{uuid}` | [`EkmipClientRecord`], [`EkmipClientCaRecord`] |
//! | `/certificates/{uuid}`, `/certificate-names/{svm or cluster}/{name}` | [`CertificateRecord`], and its name, which makes it unique |
//! | `/jobs/{uuid}` | [`JobRecord`] |
//! | `/job-claims/{uuid}`, `/config-claims/{configuration}` | [`ClaimRecord`], which node works on the job; [`ConfigClaimRecord`], which job works on the configuration; under a lease |
//! | `/events/{node}/{index}`, `/event-heads/{node}` | the events of a node, and what it goes on with after a restart: `crate::events::record` |
//! | `/onboard-key-manager` | [`OnboardRecord`] |
//! | `/onboard-keys/{svm}/{version}` | [`OnboardKekRecord`]: what the onboard key manager holds for an SVM |
//! | `/keys/{svm}/…`, `/destroyed-keys/{svm}/…`, `/key-names/{svm}/…` | keys of an SVM, under a version of its KEK, whoever wraps that: `crate::keys::record` |
//!
//! All records but those of keys are JSON. A member that a later version adds has a default here, so that older records still read.

use crate::jobs::JobKind;
use crate::jobs::bulk::BulkRecord;
use crate::model::{JobState, LoginMethod, NodeState, Role, SvmKind};
use crate::settings::CertificateTemplate;
use crate::{Code, Error, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use jiff::Timestamp;
use keystead_store::{Entry, Revision};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use uuid::Uuid;

/// A kind of record.
pub trait Record: Serialize + DeserializeOwned + Clone + Send + Sync + 'static {
    /// What all keys of this kind start with; the whole key for a kind with one record.
    const PREFIX: &'static str;

    /// The bytes to store.
    fn encode(&self) -> Result<Vec<u8>> {
        serde_json::to_vec(self).map_err(|error| Error::unexpected(format!("a record under {} cannot be written as JSON: {error}", Self::PREFIX)))
    }
}

/// A record as it was read: with the revision that a later transaction compares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored<R> {
    /// The key it stands under.
    pub key: String,
    /// The revision that last wrote it.
    pub revision: Revision,
    /// The record.
    pub record: R,
}

impl<R: Record> Stored<R> {
    /// Reads an entry of the store.
    ///
    /// # Errors
    /// An unexpected error that names the key, where the value is not such a record.
    pub fn decode(entry: &Entry) -> Result<Self> {
        let record = serde_json::from_slice(&entry.value)
            .map_err(|error| Error::unexpected(format!("the record {} of the store is damaged: line {} column {}", entry.key, error.line(), error.column())))?;
        Ok(Self { key: entry.key.clone(), revision: entry.revision, record })
    }
}

/// The record kinds that live under one key or under `{prefix}{id}`.
macro_rules! records {
    ($($record:ty => $prefix:literal;)*) => {
        $(impl Record for $record { const PREFIX: &'static str = $prefix; })*
    };
}

records! {
    ClusterRecord => "/cluster";
    AuthorityRecord => "/certificate-authority";
    NodeRecord => "/nodes/";
    PresenceRecord => "/presences/";
    NodeStandingRecord => "/node-standings/";
    AccountRecord => "/accounts/";
    SvmRecord => "/svms/";
    SvmNameRecord => "/svm-names/";
    KeyStoreRecord => "/key-stores/";
    AwsKmsRecord => "/aws-kms/";
    KekRecord => "/keks/";
    OnboardRecord => "/onboard-key-manager";
    OnboardKekRecord => "/onboard-keys/";
    JobRecord => "/jobs/";
    BulkRecord => "/job-results/";
    ClaimRecord => "/job-claims/";
    ConfigClaimRecord => "/config-claims/";
    EkmipCertificateRecord => "/ekmip/certificates/";
    EkmipClientRecord => "/ekmip/clients/";
    EkmipClientCaRecord => "/ekmip/client-cas/";
    CertificateRecord => "/certificates/";
}

/// The key of a record that has an identifier.
pub fn key<R: Record>(id: impl std::fmt::Display) -> String {
    format!("{}{id}", R::PREFIX)
}

/// The key of an SVM's name: names are unique without regard to case.
pub fn svm_name_key(name: &str) -> String {
    key::<SvmNameRecord>(name.to_lowercase())
}

/// The key of one version of an SVM's KEK. Versions are padded, so that they sort as numbers.
pub fn kek_key(svm: Uuid, version: u32) -> String {
    format!("{}{version:010}", keks_prefix(svm))
}

/// What all versions of an SVM's KEK start with.
pub fn keks_prefix(svm: Uuid) -> String {
    format!("{}{svm}/", KekRecord::PREFIX)
}

/// What all keys of an SVM start with.
pub fn keys_prefix(svm: Uuid) -> String {
    format!("/keys/{svm}/")
}

/// What all that the onboard key manager holds for an SVM starts with. Nothing there: no key of the SVM can be opened with it.
pub fn onboard_keys_prefix(svm: Uuid) -> String {
    format!("{}{svm}/", OnboardKekRecord::PREFIX)
}

/// The key of one version of an SVM's KEK that the onboard key manager wraps. A version is wrapped by AWS or by it, never by both.
pub fn onboard_kek_key(svm: Uuid, version: u32) -> String {
    format!("{}{version:010}", onboard_keys_prefix(svm))
}

/// Bytes that stand as base64 in JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Base64(pub Vec<u8>);

impl Serialize for Base64 {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Base64 {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        BASE64.decode(text).map(Base64).map_err(|_| serde::de::Error::custom("not base64"))
    }
}

/// The cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterRecord {
    /// The identifier.
    pub uuid: Uuid,
    /// The admin SVM.
    pub admin_svm: Uuid,
    /// A known text, sealed: tells at the start whether the seal key is the one that this store was sealed with.
    pub seal_check: Base64,
    /// When the cluster was made.
    pub created: Timestamp,
}

/// The cluster's own certificate authority.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthorityRecord {
    /// The CA certificate, PEM.
    pub certificate: String,
    /// Its private key, PEM, sealed.
    pub private_key: Base64,
    /// The CA that will take its place, and signs nothing yet.
    #[serde(default)]
    pub next: Option<NextAuthority>,
    /// The certificate of the CA whose place it has taken, as long as that is trusted, PEM.
    #[serde(default)]
    pub previous: Option<String>,
    /// How many CAs were switched from before this one.
    #[serde(default)]
    pub generation: u32,
}

/// A CA that has not signed yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NextAuthority {
    /// The CA certificate, PEM.
    pub certificate: String,
    /// Its private key, PEM, sealed.
    pub private_key: Base64,
}

impl AuthorityRecord {
    /// All that is trusted as the cluster's own, PEM, the one that signs first.
    pub fn trusted(&self) -> impl Iterator<Item = &String> {
        std::iter::once(&self.certificate).chain(self.next.as_ref().map(|next| &next.certificate)).chain(&self.previous)
    }

    /// The same as one text.
    pub fn bundle(&self) -> String {
        self.trusted().map(String::as_str).collect()
    }
}

/// The EKMIP server's certificate of a node, made from the cluster's template.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EkmipCertificateRecord {
    /// The certificate, PEM.
    pub certificate: String,
    /// Its private key, PEM, sealed.
    pub private_key: Base64,
    /// Up to when it is valid.
    pub expiry: Timestamp,
    /// When it was made.
    #[serde(default)]
    pub issued: Option<Timestamp>,
    /// The template that it was made from.
    #[serde(default)]
    pub template: Option<CertificateTemplate>,
    /// The names and addresses that it is for.
    #[serde(default)]
    pub names: Vec<String>,
    /// Which of the cluster's CAs has signed it: its `generation`.
    #[serde(default)]
    pub authority: u32,
}

/// An EKMIP client's certificate, issued by the cluster's CA.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EkmipClientRecord {
    /// The identifier.
    pub uuid: Uuid,
    /// The SVM that it speaks for.
    pub svm: Uuid,
    /// The subject's common name.
    pub common_name: String,
    /// Hexadecimal digits.
    pub serial_number: String,
    /// SHA-256 of the certificate (DER), hexadecimal.
    pub fingerprint: String,
    /// Up to when it is valid.
    pub expiry: Timestamp,
    /// When it was revoked.
    pub revoked: Option<Timestamp>,
}

/// A CA of an SVM's own, whose certificates speak for that SVM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EkmipClientCaRecord {
    /// The identifier.
    pub uuid: Uuid,
    /// The SVM.
    pub svm: Uuid,
    /// The certificate, PEM.
    pub certificate: String,
    /// The subject.
    pub subject: String,
    /// SHA-256 of the certificate (DER), hexadecimal.
    pub fingerprint: String,
    /// Up to when it is valid.
    pub expiry: Timestamp,
}

/// A certificate of `/security/certificates`, made or installed there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateRecord {
    /// The identifier.
    pub uuid: Uuid,
    /// The SVM; none for one of the cluster.
    pub svm: Option<Uuid>,
    /// Its name, unique in the SVM.
    pub name: String,
    /// `client`, `server`, `client_ca`, `server_ca` or `root_ca`.
    pub kind: String,
    /// The certificate, PEM.
    pub certificate: String,
    /// Those between it and its root, PEM.
    #[serde(default)]
    pub intermediates: Vec<String>,
    /// Its private key, PEM, sealed for [`certificate_key_place`].
    #[serde(default)]
    pub private_key: Option<Base64>,
    /// The CA of this list that has signed it, where it was made here.
    #[serde(default)]
    pub issuer: Option<Uuid>,
    /// Up to when it is valid, as the certificate says; for those who look at all of them. Records of before it was kept have none.
    #[serde(default)]
    pub expiry: Option<Timestamp>,
}

/// The place that the private key of a node's EKMIP server is sealed for, by the key of its record.
pub fn ekmip_certificate_place(key: &str) -> String {
    format!("{key}#private_key")
}

/// The place that the private key of a certificate is sealed for.
pub fn certificate_key_place(uuid: Uuid) -> String {
    format!("{}#private_key", key::<CertificateRecord>(uuid))
}

/// The key of a certificate's name: names are unique in an SVM, without regard to case.
pub fn certificate_name_key(svm: Option<Uuid>, name: &str) -> String {
    let scope = svm.map_or_else(|| "cluster".to_owned(), |svm| svm.to_string());
    format!("/certificate-names/{scope}/{}", name.to_lowercase())
}

/// A node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRecord {
    /// The identifier.
    pub uuid: Uuid,
    /// The name.
    pub name: String,
    /// The program's version.
    pub version: String,
    /// What the node can do; see `crate::cluster::FEATURE_LEVEL`.
    pub feature_level: u32,
    /// The cluster-network address.
    pub address: Option<String>,
    /// Where EKMIP clients reach it.
    pub ekmip_address: Option<String>,
    /// When the process started.
    pub started: Timestamp,
}

/// That a node is there; it goes with its lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PresenceRecord {
    /// When it was announced.
    pub since: Timestamp,
}

/// Whether a node was there when somebody last looked, and since when. It outlives the presence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStandingRecord {
    /// Whether it was.
    pub state: NodeState,
    /// Since when.
    pub since: Timestamp,
}

/// An account of the REST API.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountRecord {
    /// The login name.
    pub name: String,
    /// What it may do.
    pub role: StoredRole,
    /// The password's argon2id hash, as a PHC string; empty where it has none.
    pub password_hash: String,
    /// How it may log in.
    #[serde(default = "password_alone")]
    pub methods: Vec<LoginMethod>,
    /// A free text.
    #[serde(default)]
    pub comment: String,
    /// Whether it may not log in at all.
    #[serde(default)]
    pub locked: bool,
    /// Changes with all that a login stands on. A session holds the one that it began with, and ends with it.
    #[serde(default)]
    pub stamp: Uuid,
}

fn password_alone() -> Vec<LoginMethod> {
    vec![LoginMethod::Password]
}

/// The key of an account: names are unique without regard to case.
pub fn account_key(name: &str) -> String {
    key::<AccountRecord>(name.to_lowercase())
}

/// A role as it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "lowercase")]
#[allow(missing_docs)] // As in `Role`.
pub enum StoredRole {
    Admin,
    Readonly,
    Vsadmin { svm: Uuid },
}

impl From<StoredRole> for Role {
    fn from(role: StoredRole) -> Self {
        match role {
            StoredRole::Admin => Role::Admin,
            StoredRole::Readonly => Role::Readonly,
            StoredRole::Vsadmin { svm } => Role::Vsadmin { svm },
        }
    }
}

/// An SVM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SvmRecord {
    /// The identifier.
    pub uuid: Uuid,
    /// The name as given.
    pub name: String,
    /// A free text.
    #[serde(default)]
    pub comment: String,
    /// Whose it is.
    #[serde(with = "svm_kind")]
    pub kind: SvmKind,
}

mod svm_kind {
    use super::SvmKind;
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(kind: &SvmKind, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(match kind {
            SvmKind::Admin => "admin",
            SvmKind::Data => "data",
        })
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SvmKind, D::Error> {
        match String::deserialize(deserializer)?.as_str() {
            "admin" => Ok(SvmKind::Admin),
            "data" => Ok(SvmKind::Data),
            _ => Err(serde::de::Error::custom("not a kind of SVM")),
        }
    }
}

/// Who has a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SvmNameRecord {
    /// The SVM.
    pub svm: Uuid,
}

/// Which key manager an SVM has. One for each SVM: its existence is what refuses a second one (65537910).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyStoreRecord {
    /// The SVM.
    pub svm: Uuid,
    /// The AWS KMS configuration, or the onboard key manager: where new keys go.
    pub manager: Uuid,
    /// Whether it is the onboard key manager.
    #[serde(default)]
    pub onboard: bool,
    /// Where it stands.
    pub state: KeyStoreState,
    /// The KEK version that new keys are wrapped under; 0 while initializing. Each version of an SVM is new, whichever key manager wraps it.
    pub kek_version: u32,
    /// While keys move: the other key manager. Where they will go (`switching`), or where they come from (`mixed`).
    #[serde(default)]
    pub other: Option<Uuid>,
    /// Where a move to AWS KMS was given up: the version that AWS wraps; else 0. Older versions never were AWS's to allow, and new ones come after it.
    #[serde(default)]
    pub given_up: u32,
}

impl KeyStoreRecord {
    /// Whether this key manager has, or is about to get, the keys of the SVM.
    pub fn is_for(&self, manager: Uuid) -> bool {
        self.manager == manager || (self.state == KeyStoreState::Switching && self.other == Some(manager))
    }

    /// The configuration for which the SVM is reserved by an enable that has not stored it yet.
    pub fn reserved_for(&self) -> Option<Uuid> {
        match self.state {
            KeyStoreState::Initializing => Some(self.manager),
            KeyStoreState::Switching => self.other,
            _ => None,
        }
    }

    /// The same without a move: one that has not begun, or one that has ended.
    pub fn without_move(self) -> Self {
        let given_up = if self.kek_version > self.given_up { 0 } else { self.given_up };
        Self { state: KeyStoreState::Active, other: None, given_up, ..self }
    }

    /// The version of the next KEK: one that was never used.
    pub fn next_version(&self) -> u32 {
        self.kek_version.max(self.given_up) + 1
    }

    /// Whether a move to AWS KMS was given up, and what had been moved is still there.
    pub fn is_given_up(&self) -> bool {
        self.onboard && self.state == KeyStoreState::Mixed && self.given_up > self.kek_version
    }

    /// Whether the onboard key manager alone says whether keys under this version are served, although AWS wraps another one: a move to AWS KMS was given up before it came to them.
    pub fn is_onboards_alone(&self, version: u32) -> bool {
        self.onboard && version < self.given_up
    }
}

/// Where the key store of an SVM stands (names as in ONTAP's `/security/key-stores`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyStoreState {
    /// Reserved by an enable that has not ended.
    Initializing,
    /// In use.
    Active,
    /// A rekey-internal is under way.
    SvmKekRekey,
    /// Keys are to move to another key manager; the move is being prepared, and new keys still go to this one.
    Switching,
    /// Keys move, and new ones go to where they move to.
    Mixed,
    /// A DELETE is under way.
    Disabling,
}

/// An AWS KMS configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AwsKmsRecord {
    /// The identifier.
    pub uuid: Uuid,
    /// The SVM.
    pub svm: Uuid,
    /// All that is no secret.
    pub settings: StoredSettings,
    /// The secret access key, sealed for [`secret_place`]; none with a credentials source.
    #[serde(default)]
    pub secret_access_key: Option<Base64>,
    /// The proxy's password, sealed for [`proxy_password_place`].
    pub proxy_password: Option<Base64>,
    /// Credentials stored without a proof (`skip_verify`), not yet confirmed by a good poll: `max_unverified` counts as one hour where it is unset.
    #[serde(default)]
    pub unproven: bool,
}

/// The place that an AWS secret is sealed for.
pub fn secret_place(config: Uuid) -> String {
    format!("/aws-kms/{config}#secret_access_key")
}

/// The place that a proxy password is sealed for.
pub fn proxy_password_place(config: Uuid) -> String {
    format!("/aws-kms/{config}#proxy_password")
}

/// The settings of a configuration, as stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredSettings {
    /// AWS region, for example `us-east-1`.
    pub region: String,
    /// The customer key, as it was given: id, ARN, alias or alias ARN.
    pub key_id: String,
    /// AWS access key id; none with a credentials source.
    #[serde(default)]
    pub access_key_id: Option<String>,
    /// The encryption context, verbatim as given.
    pub encryption_context: Option<String>,
    /// AWS service, first label of the derived host name.
    pub service: String,
    /// Last labels of the derived host name.
    pub default_domain: String,
    /// Host in place of the derived name.
    pub host: Option<String>,
    /// Port of AWS KMS.
    pub port: u16,
    /// Minutes between two polls.
    pub polling_period: u32,
    /// Seconds for connecting, and for each attempt.
    pub timeout: u32,
    /// Whether the certificate is checked at all.
    pub verify: bool,
    /// Whether a DNS name must match the certificate.
    pub verify_host: bool,
    /// Whether an IP `host` must stand in the certificate.
    pub verify_ip: bool,
    /// The proxy, if any.
    pub proxy: Option<StoredProxy>,
    /// The SVM's own grace; never longer than the cluster's.
    #[serde(default)]
    pub access_error_grace: Option<Duration>,
    /// How long keys are served without a good poll, whatever the reason.
    #[serde(default)]
    pub max_unverified: Option<Duration>,
    /// PEM certificates that vouch for this SVM's AWS endpoint alone.
    #[serde(default)]
    pub ca_certificates: Option<String>,
    /// Credentials of the node's own in place of an access key: `chain`, `instance_role`, `web_identity`, `process` or `profile:NAME`.
    #[serde(default)]
    pub credentials_source: Option<StoredSource>,
}

/// Credentials of the node's own in place of an access key, and what they are granted for: the SVM of the record, and one key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredSource {
    /// Where they come from, as it was given.
    pub source: String,
    /// The ARN of the key.
    pub key_arn: String,
}

/// A proxy without its password, as stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)] // The members of `model::Proxy`.
pub struct StoredProxy {
    pub https: bool,
    pub host: String,
    pub port: u16,
    pub username: Option<String>,
}

/// One version of an SVM's KEK, wrapped by the customer key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KekRecord {
    /// The SVM.
    pub svm: Uuid,
    /// The version, from 1.
    pub version: u32,
    /// What AWS's Encrypt answered.
    pub blob: Base64,
    /// The key ARN that Encrypt answered: aliases move, so Decrypt names this.
    pub key_arn: String,
    /// The encryption context that was used, verbatim.
    pub encryption_context: Option<String>,
    /// The key material that wraps it, where AWS names one.
    pub key_material_id: Option<String>,
    /// Tells whether AWS gave the right KEK back (`keystead_keyring::CheckValue`).
    pub check_value: Base64,
    /// When it was last wrapped.
    pub wrapped_at: Timestamp,
}

/// The onboard key manager: its key, sealed twice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OnboardRecord {
    /// The identifier.
    pub uuid: Uuid,
    /// The version of its key, from 1.
    pub version: u32,
    /// Its key, sealed by the seal key for [`onboard_place`].
    pub sealed: Base64,
    /// Its key, sealed by the cluster passphrase.
    pub recovery: Recovery,
    /// Tells whether what was opened is that key (`keystead_keyring::CheckValue`).
    pub check_value: Base64,
    /// When it was made.
    pub created: Timestamp,
}

/// The place that the onboard key is sealed for, by either.
pub fn onboard_place(uuid: Uuid) -> String {
    format!("{}#{uuid}", OnboardRecord::PREFIX)
}

/// What a passphrase opens: argon2id with these parameters gives the key that has sealed it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recovery {
    /// The salt.
    pub salt: Base64,
    /// Memory, in KiB.
    pub memory: u32,
    /// Passes over it.
    pub passes: u32,
    /// Lanes.
    pub lanes: u32,
    /// The sealed key.
    pub sealed: Base64,
}

/// One version of an SVM's KEK, wrapped by the onboard key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OnboardKekRecord {
    /// The SVM.
    pub svm: Uuid,
    /// The version, from 1.
    pub version: u32,
    /// The version of the onboard key that wraps it.
    pub onboard_version: u32,
    /// The wrapped KEK.
    pub wrapped: Base64,
    /// Tells whether it is the right one.
    pub check_value: Base64,
    /// When it was wrapped.
    pub wrapped_at: Timestamp,
}

/// A job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobRecord {
    /// The identifier.
    pub uuid: Uuid,
    /// What to do, with all inputs; secrets sealed.
    pub kind: JobKind,
    /// The call that started it.
    pub description: String,
    /// The account that started it.
    pub account: String,
    /// Where it stands.
    pub state: JobState,
    /// What it does now, or how it ended.
    pub message: String,
    /// On failure.
    pub error: Option<StoredError>,
    /// When it was accepted.
    pub start_time: Timestamp,
    /// Its place in the order of acceptance: clocks may jump.
    #[serde(default)]
    pub order: u64,
    /// When it ended.
    pub end_time: Option<Timestamp>,
    /// The node that works, or worked, on it; before, the one that has accepted it.
    pub node: Option<Uuid>,
    /// The SVM that it is about, with the name that it had.
    pub svm: Option<(Uuid, String)>,
    /// The span of the call that started it (`traceparent`), where calls are traced: the job goes on with that trace, on whichever node. Nodes that know nothing of it leave it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
}

/// An error as a job keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredError {
    /// The code's number.
    pub code: u32,
    /// The text for the user.
    pub message: String,
    /// The field or parameter to blame.
    pub target: Option<String>,
}

impl From<&Error> for StoredError {
    fn from(error: &Error) -> Self {
        Self { code: error.code.number(), message: error.message.clone(), target: error.target.clone() }
    }
}

impl From<&StoredError> for Error {
    fn from(error: &StoredError) -> Self {
        Self {
            code: Code::from_number(error.code).unwrap_or(Code::Unexpected),
            message: error.message.clone(),
            target: error.target.clone(),
            detail: None,
            retry_after: None,
        }
    }
}

/// Which node works on a job. It stands under that node's lease: a node that dies loses it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimRecord {
    /// The node.
    pub node: Uuid,
}

/// Which job works on a configuration: one at a time, on whichever node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigClaimRecord {
    /// The job.
    pub job: Uuid,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_store_of_an_older_version_still_reads() {
        let old = format!("{{\"svm\":\"{0}\",\"manager\":\"{0}\",\"state\":\"svm_kek_rekey\",\"kek_version\":3}}", Uuid::nil());
        let read: KeyStoreRecord = serde_json::from_str(&old).unwrap();
        assert_eq!((read.onboard, read.other, read.state), (false, None, KeyStoreState::SvmKekRekey));
    }

    #[test]
    fn a_reservation_names_its_configuration_until_it_is_stored() {
        let (own, next) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let store = |state, other| KeyStoreRecord { svm: Uuid::nil(), manager: own, onboard: true, state, kek_version: 1, other, given_up: 0 };
        assert_eq!(store(KeyStoreState::Initializing, None).reserved_for(), Some(own));
        assert_eq!(store(KeyStoreState::Switching, Some(next)).reserved_for(), Some(next));
        assert_eq!(store(KeyStoreState::Mixed, Some(next)).reserved_for(), None);
        assert!(store(KeyStoreState::Switching, Some(next)).is_for(next) && !store(KeyStoreState::Mixed, Some(next)).is_for(next));
        assert_eq!(store(KeyStoreState::Switching, Some(next)).without_move(), store(KeyStoreState::Active, None));
    }

    #[test]
    fn what_was_never_moved_to_aws_is_nobody_elses_once_the_move_is_given_up() {
        let moving =
            KeyStoreRecord { svm: Uuid::nil(), manager: Uuid::nil(), onboard: false, state: KeyStoreState::Mixed, kek_version: 2, other: None, given_up: 0 };
        assert!(!moving.is_given_up() && !moving.is_onboards_alone(1));
        let given_up = KeyStoreRecord { onboard: true, kek_version: 1, given_up: 2, ..moving };
        assert!(given_up.is_given_up() && given_up.is_onboards_alone(1) && !given_up.is_onboards_alone(2));
        assert_eq!((given_up.next_version(), given_up.clone().without_move().next_version()), (3, 3));
        // Keys come back from AWS under a version of their own: that one is AWS's to allow until the last has come.
        let back = KeyStoreRecord { kek_version: 3, ..given_up };
        assert!(!back.is_given_up() && back.is_onboards_alone(1) && !back.is_onboards_alone(3));
        assert_eq!((back.next_version(), back.without_move().given_up), (4, 0));
    }
}

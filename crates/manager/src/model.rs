//! What callers hand in and get back: the resources in typed form, without secrets in what is handed out.
//!
//! Names are those of `contract/rest.md`. Validation of single values (types and bounds) happens at the edge, from the declaration of each field; what
//! needs the state of the cluster is checked in this room.

pub use crate::configs::AwsKms;
pub use crate::records::{StoredProxy, StoredSettings, StoredSource};
use jiff::Timestamp;
use keystead_awskms::ProxyKind;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use uuid::Uuid;

/// Who asks. Made by the login, needed by every operation that changes something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// The account's name, for the audit.
    pub name: String,
    /// What it may do.
    pub role: Role,
}

/// What an account may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Everything.
    Admin,
    /// Read everything.
    Readonly,
    /// Everything within one SVM.
    Vsadmin {
        /// That SVM.
        svm: Uuid,
    },
}

/// A role without its SVM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RoleName {
    /// Everything in the cluster.
    Admin,
    /// Reads everything in the cluster.
    Readonly,
    /// Everything within the SVM that owns the account.
    Vsadmin,
}

impl RoleName {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Admin, Self::Readonly, Self::Vsadmin];

    /// The name, as the API has it.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Readonly => "readonly",
            Self::Vsadmin => "vsadmin",
        }
    }

    /// The role of a name.
    pub fn of(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.text() == text)
    }
}

impl Role {
    /// Its name.
    pub const fn name(self) -> RoleName {
        match self {
            Self::Admin => RoleName::Admin,
            Self::Readonly => RoleName::Readonly,
            Self::Vsadmin { .. } => RoleName::Vsadmin,
        }
    }
}

/// How an account shows who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LoginMethod {
    /// With a TLS client certificate whose common name is the account's name.
    Certificate,
    /// With its password.
    Password,
}

/// An account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// The name, unique in the cluster without regard to case.
    pub name: String,
    /// The SVM that it belongs to; the admin SVM for one of the cluster.
    pub owner: SvmRef,
    /// What it may do.
    pub role: Role,
    /// How it may log in.
    pub methods: Vec<LoginMethod>,
    /// A free text.
    pub comment: String,
    /// Whether it may not log in at all.
    pub locked: bool,
    /// Whether it has a password.
    pub has_password: bool,
}

/// An account to make.
#[derive(Debug, Default)]
pub struct NewAccount {
    /// The name: 3 to 64 characters.
    pub name: String,
    /// The password, 8 to 128 characters; needed unless it logs in with certificates alone.
    pub password: Option<SecretString>,
    /// The role; by default admin, or vsadmin with an owner.
    pub role: Option<RoleName>,
    /// The SVM; the cluster where none is named, or the admin SVM.
    pub owner: Option<SvmSelector>,
    /// How it may log in; with its password by default.
    pub methods: Option<Vec<LoginMethod>>,
    /// A free text.
    pub comment: String,
    /// Whether it may not log in at all.
    pub locked: bool,
}

/// A change of an account. `None` leaves as it is.
#[derive(Debug, Default)]
#[allow(missing_docs)] // As in `NewAccount`.
pub struct AccountChange {
    pub password: Option<SecretString>,
    pub role: Option<RoleName>,
    pub methods: Option<Vec<LoginMethod>>,
    pub comment: Option<String>,
    pub locked: Option<bool>,
}

/// How a request names an SVM: at least one of the two.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SvmSelector {
    /// By identifier.
    pub uuid: Option<Uuid>,
    /// By name.
    pub name: Option<String>,
}

/// An SVM as other resources refer to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SvmRef {
    /// The identifier.
    pub uuid: Uuid,
    /// The name.
    pub name: String,
}

/// A storage virtual machine: one tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Svm {
    /// The identifier.
    pub uuid: Uuid,
    /// The name, unique in the cluster without regard to case.
    pub name: String,
    /// A free text of the operator.
    pub comment: String,
    /// The cluster's own SVM or a tenant's.
    pub kind: SvmKind,
}

/// What an SVM is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SvmKind {
    /// A tenant's.
    Data,
    /// The cluster's own; it cannot have AWS KMS (65537908).
    Admin,
}

/// A proxy on the way to AWS KMS, without its password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proxy {
    /// How to speak to the proxy itself.
    pub kind: ProxyKind,
    /// Host name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Login, where the proxy wants one.
    pub username: Option<String>,
}

/// A request to enable AWS KMS for an SVM. Every value has passed its bounds; defaults are filled in.
#[derive(Debug)]
pub struct EnableRequest {
    /// For which SVM.
    pub svm: SvmSelector,
    /// All settings.
    pub settings: AwsKmsSettings,
    /// The AWS secret; none with a credentials source.
    pub secret_access_key: Option<SecretString>,
    /// The proxy's password.
    pub proxy_password: Option<SecretString>,
    /// Skip DescribeKey and the preflight. The round trip of the KEK always happens.
    pub skip_verify: bool,
    /// Move the keys that the onboard key manager keeps for the SVM, in the same job.
    pub migrate_keys: bool,
}

/// What can be set of a configuration and is no secret.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)] // The same members as in `StoredSettings`, where they are described.
pub struct AwsKmsSettings {
    pub region: String,
    pub key_id: String,
    pub access_key_id: Option<String>,
    pub encryption_context: Option<String>,
    pub service: String,
    pub default_domain: String,
    pub host: Option<String>,
    pub port: u16,
    pub polling_period: u32,
    pub timeout: u32,
    pub verify: bool,
    pub verify_host: bool,
    pub verify_ip: bool,
    pub proxy: Option<Proxy>,
    pub access_error_grace: Option<Duration>,
    pub max_unverified: Option<Duration>,
    pub ca_certificates: Option<String>,
    pub credentials_source: Option<String>,
}

/// A change of a configuration: `None` leaves a member as it is; `Some(None)` clears an optional one.
#[derive(Debug, Default)]
#[allow(missing_docs)] // The same members as in `StoredSettings`, where they are described.
pub struct AwsKmsChange {
    pub region: Option<String>,
    pub access_key_id: Option<String>,
    pub secret_access_key: Option<SecretString>,
    pub encryption_context: Option<Option<String>>,
    pub service: Option<String>,
    pub default_domain: Option<String>,
    pub host: Option<Option<String>>,
    pub port: Option<u16>,
    pub polling_period: Option<u32>,
    pub timeout: Option<u32>,
    pub verify: Option<bool>,
    pub verify_host: Option<bool>,
    pub verify_ip: Option<bool>,
    pub skip_verify: Option<bool>,
    /// A change of the proxy, member by member; type, host and port must be complete afterwards.
    pub proxy: ProxyChange,
    pub access_error_grace: Option<Option<Duration>>,
    pub max_unverified: Option<Option<Duration>>,
    pub ca_certificates: Option<Option<String>>,
    /// Credentials of the node's own; cleared: back to an access key, which must come with it.
    pub credentials_source: Option<Option<String>>,
}

/// A change of the proxy. A cleared host takes the whole proxy away.
#[derive(Debug, Default)]
#[allow(missing_docs)]
pub struct ProxyChange {
    pub kind: Option<Option<ProxyKind>>,
    pub host: Option<Option<String>>,
    pub port: Option<Option<u16>>,
    pub username: Option<Option<String>>,
    pub password: Option<Option<SecretString>>,
}

/// A request to wrap the KEK under another customer key, or again under the rotated one.
#[derive(Debug, Default)]
pub struct RekeyExternalRequest {
    /// The customer key to wrap under.
    pub key_id: String,
    /// The region, credentials, endpoint and context of the new key, where they differ (`keystead.new`).
    pub new: AwsKmsChange,
}

/// An operation that goes on as a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accepted {
    /// The job.
    pub job: Uuid,
    /// The resource that it works on.
    pub resource: Uuid,
}

/// The states of a job (`contract/rest.md`, section 3). There is no state `error`: clients would poll it until they time out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JobState {
    /// Not yet taken by a node.
    Queued,
    /// A node works on it.
    Running,
    /// Held by an operator.
    Paused,
    /// Done.
    Success,
    /// Ended without the effect; see its error.
    Failure,
}

impl JobState {
    /// Whether nothing will change any more.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Success | Self::Failure)
    }
}

/// A job as users see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// The account that has started it; the cluster's own name where nobody has.
    pub account: String,
    /// The identifier.
    pub uuid: Uuid,
    /// The call that started it, for example `POST /api/security/aws-kms`.
    pub description: String,
    /// Where it stands.
    pub state: JobState,
    /// What it does now, or how it ended; never empty.
    pub message: String,
    /// The error, on failure alone.
    pub error: Option<crate::Error>,
    /// When it was accepted.
    pub start_time: Timestamp,
    /// When it ended.
    pub end_time: Option<Timestamp>,
    /// The node that works, or worked, on it.
    pub node: Option<NodeRef>,
    /// The SVM that it is about.
    pub svm: Option<SvmRef>,
}

/// A node as other resources refer to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeRef {
    /// The identifier.
    pub uuid: Uuid,
    /// The name.
    pub name: String,
}

/// Whether a node is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeState {
    /// It says so, within the last ten seconds.
    Up,
    /// It does not.
    Down,
}

/// A node of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// The identifier.
    pub uuid: Uuid,
    /// The name.
    pub name: String,
    /// The program's version.
    pub version: String,
    /// The cluster-network address, `host:port`; none where `--listen` is a wildcard and `[cluster] address` is not set.
    pub address: Option<String>,
    /// Where EKMIP clients reach it, `host:port`.
    pub ekmip_address: Option<String>,
    /// When the process started.
    pub started: Timestamp,
    /// Whether it is there.
    pub state: NodeState,
    /// Since when it is in that state.
    pub since: Timestamp,
    /// How long ago its view was known to be as the store; told of the node itself alone.
    pub view_age: Option<Duration>,
}

/// An EKMIP client: a certificate that speaks for one SVM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EkmipClient {
    /// The identifier.
    pub uuid: Uuid,
    /// The SVM.
    pub svm: SvmRef,
    /// The subject's common name.
    pub common_name: String,
    /// Hexadecimal digits.
    pub serial_number: String,
    /// Up to when it is valid.
    pub expiry: Timestamp,
    /// `valid`, `expiring` (within 30 days), `expired` or `revoked`.
    pub state: &'static str,
}

/// A client that was just made, with what is never shown again.
#[derive(Debug)]
pub struct NewEkmipClient {
    /// The client.
    pub client: EkmipClient,
    /// Its certificate, PEM.
    pub certificate: String,
    /// The certificate of the CA that both sides trust, PEM.
    pub ca_certificate: String,
    /// The private key, PEM; none where the client has brought its own.
    pub private_key: Option<SecretString>,
}

/// A CA of an SVM's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EkmipClientCa {
    /// The identifier.
    pub uuid: Uuid,
    /// The SVM.
    pub svm: SvmRef,
    /// The subject.
    pub subject: String,
    /// Up to when it is valid.
    pub expiry: Timestamp,
}

/// The onboard key manager.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OnboardKeyManager {
    /// The identifier.
    pub uuid: Uuid,
    /// Why its keys cannot be used on this node; `None` where they can.
    pub problem: Option<String>,
}

/// A key store: a key manager as what keeps keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyStore {
    /// The key manager's identifier.
    pub uuid: Uuid,
    /// Whether it is the onboard key manager; else an AWS KMS configuration.
    pub onboard: bool,
    /// Whose it is; none for the cluster's.
    pub svm: Option<SvmRef>,
    /// Whether new keys go there, or will.
    pub enabled: bool,
    /// `active`, `mixed`, `svm_kek_rekey`, `blocked`, `switching`, `initializing` or `disabling`.
    pub state: &'static str,
}

/// A key of a key manager, as it can be shown: not the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyId {
    /// Unique among them, and the order in which they are shown.
    pub uuid: Uuid,
    /// A key's identifier; or that of an SVM's KEK, with the version: `{svm}/3`.
    pub key_id: String,
    /// Whether it is an SVM's KEK; else a key of the data plane.
    pub is_kek: bool,
    /// The SVM.
    pub svm: SvmRef,
    /// For example `AES-256`; none where nothing is known of it.
    pub algorithm: Option<String>,
    /// Whether this node has what opens it in memory.
    pub restored: bool,
}

/// Whether a node reaches the EKMIP servers of all nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EkmipReachability {
    /// The node that looked.
    pub node: NodeRef,
    /// Whether it reaches all of them.
    pub reachable: bool,
    /// `None` where all is well.
    pub code: Option<crate::Code>,
    /// Which it does not reach, and why.
    pub message: String,
}

/// The cluster as such.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    /// The identifier.
    pub uuid: Uuid,
    /// The name.
    pub name: String,
    /// The admin SVM.
    pub admin_svm: SvmRef,
}

/// The result of a live look at one configuration (the advanced objects of `contract/rest.md`, section 1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// Whether all is well: the KEK usable, AWS reachable.
    pub good: bool,
    /// `None` where nothing is to be said, and then the message is empty.
    pub code: Option<crate::Code>,
    /// What is wrong, on which nodes; or how much time is left.
    pub message: String,
}

/// What a preflight of a configuration has found (`keystead.check`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckReport {
    /// Whether no step has failed.
    pub passed: bool,
    /// The steps that were tried, in one line, with what to do about the one that has failed.
    pub summary: String,
    /// All steps, in their order.
    pub steps: Vec<CheckStep>,
}

/// One step of a preflight.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckStep {
    /// For example `dns`, `proxy`, `encrypt`.
    pub name: &'static str,
    /// `passed`, `failed` or `skipped`.
    pub state: &'static str,
    /// How long it took.
    pub took: Duration,
    /// What was seen, or why it was skipped.
    pub message: String,
    /// What to do; empty where it has not failed.
    pub advice: String,
}

/// Where an SVM stands on a node, for those who look at many.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SvmStanding {
    /// `none` (no key manager), `initializing`, `onboard`, `available`, `degraded`, `revoking`, `blocked`, `unavailable` or `disabling`.
    pub state: &'static str,
    /// Why it is not available, and how much time is left; empty where there is nothing to be said.
    pub reason: String,
}

/// A version of an SVM's KEK, as it can be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SvmKek {
    /// The version, from 1.
    pub version: u32,
    /// Whether new keys are wrapped under it.
    pub is_current: bool,
    /// Whether this node has it in memory, or can have it there at once.
    pub is_loaded: bool,
    /// The customer key that wraps it; none where the onboard key manager does.
    pub key_arn: Option<String>,
    /// When it was last wrapped.
    pub wrapped_at: Timestamp,
}

/// How many keys an SVM has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyCounts {
    /// All that are not destroyed.
    pub all: usize,
    /// By what they are for, as `AES-256`; empty where that is not known.
    pub types: Vec<(String, usize)>,
}

/// How a node is doing with a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeHealth {
    /// The node.
    pub node: NodeRef,
    /// Whether it is there.
    pub state: NodeState,
    /// Since when it is in that state.
    pub since: Timestamp,
    /// Whether it can use the SVM's KEK.
    pub kek: Part,
    /// Whether it reaches AWS KMS.
    pub amazon: Part,
    /// Whether it reaches the EKMIP servers of all nodes, as the SVM.
    pub ekmip: Part,
    /// When its last good poll was asked, to the second; none where there was none, or where the node is older than that question.
    pub last_good_poll: Option<Timestamp>,
}

/// One thing that is well or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Whether it is well.
    pub good: bool,
    /// What is to be said about it; empty where nothing is.
    pub message: String,
}

//! The command line.

use clap::builder::{PossibleValuesParser, TypedValueParser as _};
use clap::{Args, Parser, Subcommand};
use keystead_cli::documents::{CompletionsArguments, ManArguments};
use keystead_kmip::Version;
use keystead_kmip::enumeration::ObjectType;
use std::path::PathBuf;

/// Keystead: an open key manager for storage.
#[derive(Debug, Parser)]
#[command(
    name = "keystead",
    version,
    about,
    after_help = "serve, audit, store, backup, restore, account, cluster invite, cluster join and ekmip import work at a node or with keys, completions and man need no node; all other commands ask a node over its REST API (docs/manual/command-line.md)."
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What the program can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a node: the REST API and the EKMIP server.
    Serve(Box<ServeArguments>),
    /// The audit log of a node.
    #[command(subcommand)]
    Audit(AuditCommand),
    /// The cluster that a node belongs to.
    #[command(subcommand)]
    Cluster(ClusterCommand),
    /// The store of a cluster.
    #[command(subcommand)]
    Store(StoreCommand),
    /// Take a backup of the whole cluster, while it runs: all records and the seal key, in one sealed file.
    #[command(args_conflicts_with_subcommands = true)]
    Backup(Box<BackupArguments>),
    /// Restore a backup into an empty data folder, or an empty etcd.
    Restore(Box<RestoreArguments>),
    /// The accounts of the REST API, where nobody can log in any more.
    #[command(subcommand)]
    Account(AccountCommand),
    /// The keys that storage gets over KMIP: who may have them, and taking them in from another server.
    #[command(subcommand)]
    Ekmip(EkmipCommand),
    /// What asks a node over its REST API.
    #[command(flatten)]
    Operator(keystead_cli::Command),
    /// Print completions for a shell.
    Completions(CompletionsArguments),
    /// Write a man page for each command.
    Man(ManArguments),
}

/// What can be done with a store.
#[derive(Debug, Subcommand)]
pub enum StoreCommand {
    /// Copy everything from the SQLite file of the data folder into the etcd of the configuration, or back. All nodes must be stopped, and the destination empty. A copy that was ended goes on when it
    /// is started again.
    Copy(CopyArguments),
}

/// The flags of `backup`.
///
/// The backup is of one moment, and is consistent whatever goes on meanwhile. The seal key travels inside it, and nowhere else: who has the file and its passphrase, or its identity, has the secrets of the cluster, though not the
/// keys that AWS KMS wraps.
#[derive(Debug, Args)]
pub struct BackupArguments {
    /// Something else than taking a backup.
    #[command(subcommand)]
    pub command: Option<BackupCommand>,
    /// The data folder of a node, which may run meanwhile.
    #[arg(long, value_name = "DIR", env = "KEYSTEAD_DATA_DIR")]
    pub data_dir: Option<PathBuf>,
    /// Its configuration file.
    #[arg(long, value_name = "FILE", env = "KEYSTEAD_CONFIG")]
    pub config: Option<PathBuf>,
    /// The file to write; it must not be there yet.
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Whom it is sealed for.
    #[command(flatten)]
    pub lock: LockArguments,
}

/// What can be done with backups.
#[derive(Debug, Subcommand)]
pub enum BackupCommand {
    /// The drill: prove that the file is whole, that AWS KMS unwraps every KEK in it, and that every key unwraps under its KEK. Nothing is changed. Exit code 0: everything can be recovered; 1: the file cannot be opened; 3: not everything can be recovered.
    Verify(VerifyBackupArguments),
    /// Make an identity, which opens backups, and print the recipient that belongs to it, which `--recipient` takes.
    Keygen(KeygenArguments),
}

/// Whom a backup is sealed for: a passphrase, which is asked for at the terminal where nothing is said.
#[derive(Debug, Args)]
pub struct LockArguments {
    /// A file whose first line is the passphrase, of 16 bytes or more.
    #[arg(long, value_name = "FILE", conflicts_with = "recipient")]
    pub passphrase_file: Option<PathBuf>,
    /// A recipient, as `keystead backup keygen` prints it. The machine that takes backups needs no secret then.
    #[arg(long, value_name = "RECIPIENT")]
    pub recipient: Option<String>,
}

/// What opens a backup: a passphrase, which is asked for at the terminal where nothing is said.
#[derive(Debug, Args)]
pub struct UnlockArguments {
    /// A file whose first line is the passphrase.
    #[arg(long, value_name = "FILE", conflicts_with = "identity_file")]
    pub passphrase_file: Option<PathBuf>,
    /// A file with the identity of the recipient.
    #[arg(long, value_name = "FILE")]
    pub identity_file: Option<PathBuf>,
}

/// The flags of `backup verify`.
#[derive(Debug, Args)]
pub struct VerifyBackupArguments {
    /// The backup.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// What opens it.
    #[command(flatten)]
    pub unlock: UnlockArguments,
    /// A configuration file, for `extra_ca` of `[aws_kms]`: CAs that vouch for AWS endpoints and proxies.
    #[arg(long, value_name = "FILE", env = "KEYSTEAD_CONFIG")]
    pub config: Option<PathBuf>,
    /// Ask nothing of AWS KMS. Keys under its KEKs count as not recoverable.
    #[arg(long)]
    pub without_aws: bool,
}

/// The flags of `backup keygen`.
#[derive(Debug, Args)]
pub struct KeygenArguments {
    /// The file to write the identity into; it must not be there yet.
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
}

/// The flags of `restore`.
///
/// The whole cluster is as it was at the moment of the backup: what was destroyed, revoked or changed since then comes back, and what was made since is lost. `--later-backup` or `--audit` says what that is.
#[derive(Debug, Args)]
pub struct RestoreArguments {
    /// The backup.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// A new data folder.
    #[arg(long, value_name = "DIR", env = "KEYSTEAD_DATA_DIR")]
    pub data_dir: Option<PathBuf>,
    /// The configuration file of the node, whose [store] says where the records go, and whose [seal] where the seal key goes.
    #[arg(long, value_name = "FILE", env = "KEYSTEAD_CONFIG")]
    pub config: Option<PathBuf>,
    /// What opens it.
    #[command(flatten)]
    pub unlock: UnlockArguments,
    /// An audit log of after the backup: the folder `audit` of a node, or a collector's file of JSON. Once for each node. What the restore brings back to life, and what it loses, is listed by it.
    #[arg(long, value_name = "PATH")]
    pub audit: Vec<PathBuf>,
    /// A backup of the store that is given up, where that can still be read: taken later, and opened by the same passphrase or identity. By it, the list is exact.
    #[arg(long, value_name = "FILE", conflicts_with = "audit")]
    pub later_backup: Option<PathBuf>,
    /// Also write the seal key into this file, for a [seal] that is a credential or a command.
    #[arg(long, value_name = "FILE")]
    pub seal_key_out: Option<PathBuf>,
    /// Write nothing, and say what would come back.
    #[arg(long)]
    pub dry_run: bool,
}

/// Where `store copy` leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Backend {
    /// `store.db` of the data folder.
    Sqlite,
    /// The etcd that `[store]` names.
    Etcd,
}

/// The flags of `store copy`.
#[derive(Debug, Args)]
pub struct CopyArguments {
    /// The data folder.
    #[arg(long, value_name = "DIR", env = "KEYSTEAD_DATA_DIR")]
    pub data_dir: Option<PathBuf>,
    /// The configuration file, whose [store] says where etcd is.
    #[arg(long, value_name = "FILE", env = "KEYSTEAD_CONFIG")]
    pub config: Option<PathBuf>,
    /// Which of the two is to have everything.
    #[arg(long, value_name = "BACKEND")]
    pub to: Backend,
}

/// What can be done with a cluster.
#[derive(Debug, Subcommand)]
pub enum ClusterCommand {
    /// What asks a node over its REST API.
    #[command(flatten)]
    Operator(keystead_cli::cluster::Command),
    /// Write what a new node needs to join: `keystead cluster join`, and `keystead serve --join`, take it. It is good for a day.
    Invite(InviteArguments),
    /// Make a machine a node of the cluster of an invitation, before its first start.
    Join(JoinArguments),
}

/// The flags of `cluster join`.
///
/// What the node needs is written into its data folder, and the seal key to where [seal] says. `keystead serve`, or its unit, is started afterwards. A seal key that is there already, and is another one, is not written over.
#[derive(Debug, Args)]
pub struct JoinArguments {
    /// The invitation.
    #[arg(value_name = "FILE")]
    pub invitation: PathBuf,
    /// A new data folder.
    #[arg(long, value_name = "DIR", env = "KEYSTEAD_DATA_DIR")]
    pub data_dir: Option<PathBuf>,
    /// The configuration file of the node.
    #[arg(long, value_name = "FILE", env = "KEYSTEAD_CONFIG")]
    pub config: Option<PathBuf>,
    /// A file whose first line is the passphrase. Without it, the terminal is asked.
    #[arg(long, value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,
}

/// The flags of `cluster invite`.
///
/// The invitation holds the seal key of the cluster and this node's access to etcd, sealed by a passphrase of 16 bytes or more. Hand both over on separate ways, and delete the file when the node has joined.
#[derive(Debug, Args)]
pub struct InviteArguments {
    /// The data folder of this node, which may run meanwhile.
    #[arg(long, value_name = "DIR", env = "KEYSTEAD_DATA_DIR")]
    pub data_dir: Option<PathBuf>,
    /// Its configuration file.
    #[arg(long, value_name = "FILE", env = "KEYSTEAD_CONFIG")]
    pub config: Option<PathBuf>,
    /// The file to write; it must not be there yet.
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// A file whose first line is the passphrase. Without it, the terminal is asked.
    #[arg(long, value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,
}

/// What can be done with accounts beside the REST API.
#[derive(Debug, Subcommand)]
pub enum AccountCommand {
    /// Give an account a new password and let it log in with that, whatever it was: for a password that is lost. Who can read the seal key can do so. It is recorded in this node's audit log.
    Reset(ResetArguments),
}

/// The flags of `account reset`.
#[derive(Debug, Args)]
pub struct ResetArguments {
    /// The account.
    #[arg(value_name = "NAME", default_value = "admin")]
    pub name: String,
    /// The data folder of the node, which must be stopped.
    #[arg(long, value_name = "DIR", env = "KEYSTEAD_DATA_DIR")]
    pub data_dir: Option<PathBuf>,
    /// Its configuration file.
    #[arg(long, value_name = "FILE", env = "KEYSTEAD_CONFIG")]
    pub config: Option<PathBuf>,
    /// A file whose first line is the new password. Without it, the terminal is asked.
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
}

/// What can be done with an audit log.
#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// Check the chain of hashes over all files, also while the node runs. Exit code 0: it is whole; 1: it is broken; 2: there is no log, or it cannot be read.
    Verify(VerifyArguments),
}

/// The flags of `audit verify`.
#[derive(Debug, Args)]
pub struct VerifyArguments {
    /// The data folder of the node.
    #[arg(long, value_name = "DIR", env = "KEYSTEAD_DATA_DIR")]
    pub data_dir: PathBuf,
}

/// What can be done with EKMIP servers.
#[derive(Debug, Subcommand)]
pub enum EkmipCommand {
    /// What asks a node over its REST API.
    #[command(flatten)]
    Operator(Box<keystead_cli::ekmip::Command>),
    /// Take keys in from another KMIP server into an SVM.
    Import(Box<ImportArguments>),
}

/// The flags of `serve`. Each is also a key of the TOML file of the same name (with `_`), and a variable `KEYSTEAD_…`. A flag counts before a variable, a variable before the file.
#[derive(Debug, Default, Args)]
pub struct ServeArguments {
    /// The folder with everything that this node keeps: store, seal key, CA certificate.
    #[arg(long, value_name = "DIR", env = "KEYSTEAD_DATA_DIR")]
    pub data_dir: Option<PathBuf>,
    /// Where the REST API listens (HTTPS).
    #[arg(long, value_name = "ADDR", env = "KEYSTEAD_LISTEN")]
    pub listen: Option<String>,
    /// Where the EKMIP server listens (KMIP over TLS).
    #[arg(long, value_name = "ADDR", env = "KEYSTEAD_EKMIP_LISTEN")]
    pub ekmip_listen: Option<String>,
    /// The configuration file.
    #[arg(long, value_name = "FILE", env = "KEYSTEAD_CONFIG")]
    pub config: Option<PathBuf>,
    /// The node's name; the machine's name by default.
    #[arg(long, value_name = "NAME", env = "KEYSTEAD_NODE_NAME")]
    pub node_name: Option<String>,
    /// Join the cluster of this invitation (`keystead cluster invite`). Once a node has joined, the flag does nothing.
    #[arg(long, value_name = "FILE")]
    pub join: Option<PathBuf>,
    /// A file whose first line is the invitation's passphrase. Without it, the terminal is asked.
    #[arg(long, value_name = "FILE", requires = "join")]
    pub passphrase_file: Option<PathBuf>,
}

/// Takes keys, secret data, opaque objects and certificates in from another KMIP server, with their names, states, dates and attributes, and, where they are UUIDs, their identifiers.
///
/// Each object is made in one step, read back, and compared. A run that was ended at any moment goes on where it was when it is started again with the same arguments; nothing is made twice. The source is
/// only read.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit codes: 0 all objects are here; 1 it could not run, or ended before its end (run it again: it goes on); 2 the command line is wrong; 3 some objects were not moved (the \
report says why, and what to do)."
)]
pub struct ImportArguments {
    /// The server that the keys are at, host:port.
    #[arg(long, value_name = "ADDR")]
    pub source: String,
    /// PEM file of the CA that vouches for the source.
    #[arg(long, value_name = "FILE")]
    pub source_ca: PathBuf,
    /// PEM file of a client certificate that the source gives the keys to.
    #[arg(long, value_name = "FILE")]
    pub source_cert: PathBuf,
    /// PEM file of its private key.
    #[arg(long, value_name = "FILE")]
    pub source_key: PathBuf,
    /// What the source's certificate calls it, where that is not the host of its address.
    #[arg(long, value_name = "NAME")]
    pub source_server_name: Option<String>,
    /// What the source is called in the marks of imported objects. Runs know by it what has been moved already: keep it the same, also when the address changes. By default, the address.
    #[arg(long, value_name = "NAME")]
    pub source_name: Option<String>,
    /// The KMIP version to speak with the source. By default, the newest that both have.
    #[arg(long, value_name = "VERSION", value_parser = version_parser())]
    pub source_version: Option<Version>,
    /// An EKMIP server of Keystead, host:port.
    #[arg(long, value_name = "ADDR")]
    pub destination: String,
    /// PEM file of the cluster's CA.
    #[arg(long, value_name = "FILE")]
    pub destination_ca: PathBuf,
    /// PEM file of the certificate of an EKMIP client of the SVM that takes the keys.
    #[arg(long, value_name = "FILE")]
    pub destination_cert: PathBuf,
    /// PEM file of its private key.
    #[arg(long, value_name = "FILE")]
    pub destination_key: PathBuf,
    /// Only objects with this name; several times, with one of them.
    #[arg(long, value_name = "NAME")]
    pub name: Vec<String>,
    /// Only objects of this Object Group.
    #[arg(long, value_name = "GROUP")]
    pub group: Option<String>,
    /// Only objects of this type.
    #[arg(long, value_name = "TYPE", value_parser = type_parser())]
    pub object_type: Option<ObjectType>,
    /// Let an object come without those of its names that another object has in the SVM, where names are unique. By default, it is not moved.
    #[arg(long)]
    pub drop_taken_names: bool,
    /// Write nothing, and say what would be done.
    #[arg(long)]
    pub dry_run: bool,
    /// Write what came of each object into this file, as JSON.
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
    /// Seconds that connecting, and each answer, may take.
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    pub timeout: u64,
    /// How often a call is tried again after a connection was lost, with pauses of 0.2 seconds, then twice as long, up to 5.
    #[arg(long, value_name = "NUMBER", default_value_t = 6, value_parser = clap::value_parser!(u32).range(0..=1_000))]
    pub retries: u32,
}

/// The types that can be imported, by the names that KMIP has for them.
const TYPES: &[(&str, ObjectType)] = &[
    ("Certificate", ObjectType::Certificate),
    ("SymmetricKey", ObjectType::SymmetricKey),
    ("PublicKey", ObjectType::PublicKey),
    ("PrivateKey", ObjectType::PrivateKey),
    ("SecretData", ObjectType::SecretData),
    ("OpaqueObject", ObjectType::OpaqueObject),
];

fn type_parser() -> impl clap::builder::TypedValueParser<Value = ObjectType> {
    let find = |name: String| TYPES.iter().find(|(known, _)| *known == name).map(|(_, kind)| *kind).ok_or("no type");
    PossibleValuesParser::new(TYPES.iter().map(|(name, _)| *name)).try_map(find)
}

fn version_parser() -> impl clap::builder::TypedValueParser<Value = Version> {
    let find = |text: String| Version::SUPPORTED.iter().find(|version| version.to_string() == text).copied().ok_or("no version");
    PossibleValuesParser::new(["1.0", "1.1", "1.2", "1.3", "1.4", "2.0", "2.1"]).try_map(find)
}

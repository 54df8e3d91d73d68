//! `keystead backup` and `keystead backup verify`. Restoring is in `restore`.

use crate::cli::{BackupArguments, KeygenArguments, LockArguments, ServeArguments, UnlockArguments, VerifyBackupArguments};
use crate::config::Config;
use crate::folder::{sync_folder_of, write_new};
use crate::{last_backup, process, seal_source, store_source, typed};
use jiff::Timestamp;
use keystead_awskms::{Egress, Environment, EnvironmentOptions, SystemResolver};
use keystead_manager::backup::{self, Backup, Drill, Inventory, Key, Lock};
use keystead_store::etcd::EtcdStore;
use keystead_store::snapshot::Snapshot;
use keystead_store::sqlite::SqliteSnapshot;
use secrecy::ExposeSecret as _;
use std::fs::{File, OpenOptions};
use std::io::{BufReader, BufWriter, ErrorKind};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};
use uuid::Uuid;

/// How often it is told how far something is.
const TELL: Duration = Duration::from_secs(1);
/// What is asked for, and the flag of its file.
const PASSPHRASE: (&str, &str) = ("the passphrase of the backup", "--passphrase-file");
/// The exit code of a drill that has found something that cannot be recovered.
const NOT_ALL: u8 = 3;

/// Takes a backup.
///
/// # Errors
/// One line for the operator.
pub fn run(arguments: &BackupArguments) -> Result<(), String> {
    process::no_core_dumps()?;
    let (config, data_dir) = node(arguments.data_dir.clone(), arguments.config.clone())?;
    let out = arguments.out.as_deref().ok_or("--out is missing: the file to write")?;
    let section = store_source::section(&config.store, &data_dir)?;
    let seal = seal_source::open(&config.seal, &data_dir, true)?;
    let lock = lock(&arguments.lock)?;
    let file = NewFile::beside(out)?;
    // Before the snapshot: what is done while it is being taken is of after the backup for who looks at the audit log.
    let made = Timestamp::now();
    let taken = runtime()?.block_on(async {
        let mut tell = Tell::new();
        let mut take = async |snapshot: &mut dyn Snapshot| {
            let told = |records| tell.tell(|| format!("{records} records written"));
            backup::take(snapshot, &*seal, BufWriter::new(&file.file), &lock, env!("CARGO_PKG_VERSION"), made, told).await.map(|(_, taken)| taken)
        };
        let text = |error: keystead_store::Error| error.to_string();
        if section.backend.as_deref() == Some("etcd") {
            let store = EtcdStore::new(&store_source::etcd_options(&section)?).map_err(|error| format!("[store] {error}"))?;
            take(&mut store.snapshot().await.map_err(text)?).await
        } else {
            take(&mut SqliteSnapshot::take(&data_dir.join("store.db")).await.map_err(text)?).await
        }
    });
    let taken = taken?;
    file.publish(out).map_err(|error| format!("the backup {} cannot be written: {error}", out.display()))?;
    if let Err(error) = last_backup::note(&data_dir, made) {
        eprintln!("the node's metrics do not tell of this backup: {} cannot be written: {error}", data_dir.display());
    }
    let backup::Taken { cluster, cluster_name, records, keys, .. } = taken;
    println!("{}: a backup of the cluster {cluster_name} ({cluster}), {records} records, {keys} keys", out.display());
    println!("prove it: keystead backup verify {}", out.display());
    Ok(())
}

/// Makes an identity, and says which recipient belongs to it.
///
/// # Errors
/// One line for the operator.
pub fn keygen(arguments: &KeygenArguments) -> Result<(), String> {
    process::no_core_dumps()?;
    let (identity, recipient) = backup::new_identity()?;
    write_new(&arguments.out, 0o600, format!("{}\n", identity.expose_secret()).as_bytes())
        .map_err(|error| format!("the identity {} cannot be written: {error}", arguments.out.display()))?;
    println!("{recipient}");
    eprintln!("{}: the identity that opens what is sealed for it; keep it away from the nodes", arguments.out.display());
    Ok(())
}

/// The drill. Exit code 0: everything can be recovered; 3: not everything.
///
/// # Errors
/// One line for the operator: the file is no backup, or not whole, or the key is another one.
pub fn verify(arguments: &VerifyBackupArguments) -> Result<ExitCode, String> {
    process::no_core_dumps()?;
    let serve = ServeArguments { config: arguments.config.clone(), ..ServeArguments::default() };
    let config = Config::load(&serve, process::variables()?.into_iter())?;
    let extra_ca = config.aws_kms.extra_ca.as_deref().map(crate::serve::read_ca).transpose()?;
    let (backup, inventory) = opened(&arguments.file, &arguments.unlock)?;
    let options = EnvironmentOptions {
        extra_ca,
        egress: Egress::parse::<&str>(&[]).map_err(|error| error.to_string())?,
        requests_per_second: 1,
        resolver: Arc::new(SystemResolver),
    };
    let environment = Environment::new(options).map_err(|error| format!("[aws_kms] extra_ca: {error}"))?;
    let mut tell = Tell::new();
    let progress = |what: &str, count: u64| tell.tell(|| format!("{count} {what} tried"));
    let drill = runtime()?.block_on(backup::drill(&backup, &inventory, (!arguments.without_aws).then_some(&environment), progress))?;
    describe(&drill);
    Ok(if drill.is_good() { ExitCode::SUCCESS } else { ExitCode::from(NOT_ALL) })
}

fn describe(drill: &Drill) {
    for secret in &drill.secrets {
        println!("NOT RECOVERABLE {secret}");
    }
    for svm in &drill.svms {
        let keks = svm.keks.len();
        println!("SVM {}: {} of {} keys unwrap, {keks} version{} of the KEK", svm.name, svm.proven, svm.proven + svm.failed, if keks == 1 { "" } else { "s" });
        for kek in &svm.keks {
            match &kek.failure {
                None => println!("  version {}: unwrapped by {}", kek.version, kek.wrapped_by),
                Some(why) => println!("  NOT RECOVERABLE version {} of the KEK, wrapped by {}: {why}", kek.version, kek.wrapped_by),
            }
        }
        for failure in &svm.failures {
            println!("  NOT RECOVERABLE key {failure}");
        }
    }
    println!("{}", if drill.is_good() { "everything in it can be recovered" } else { "not everything in it can be recovered" });
}

/// The file, and what stands in it, read to its end.
///
/// # Errors
/// One line: it is no backup, or not whole, or the key is another one.
pub fn opened(file: &Path, unlock: &UnlockArguments) -> Result<(Backup, Inventory), String> {
    let place = file.display();
    let open = |path: &Path| File::open(path).map(|file| BufReader::with_capacity(256 * 1024, file));
    let failed = |error: std::io::Error| format!("the backup {place}: {error}");
    let (header, _) = backup::header(&mut open(file).map_err(failed)?).map_err(failed)?;
    eprintln!("{place}: the cluster {} ({}) at {}, opened by {}", header.cluster_name, header.cluster, header.made, header.lock());
    if is_newer(&header.version, env!("CARGO_PKG_VERSION")) {
        eprintln!("{place}: it was made by Keystead {}, and this is {}: what is new in that is not understood here", header.version, env!("CARGO_PKG_VERSION"));
    }
    // Nobody is asked for what does not open it.
    let key = match (&unlock.identity_file, header.is_for_recipient()) {
        (Some(identity), true) => Key::Identity(typed::secret(Some(identity), ("the identity", "--identity-file"), false)?),
        (None, false) => Key::Passphrase(typed::secret(unlock.passphrase_file.as_deref(), PASSPHRASE, false)?),
        (None, true) => return Err(format!("the backup {place}: it is opened by {}: name its file with --identity-file", header.lock())),
        (Some(_), false) => return Err(format!("the backup {place}: it is opened by a passphrase, and not by an identity")),
    };
    let path = file.to_owned();
    let backup = Backup::new(key, move || Ok(Box::new(open(&path)?)));
    let mut tell = Tell::new();
    let inventory = backup::inventory(&backup, |records| tell.tell(|| format!("{records} records read"))).map_err(failed)?;
    eprintln!("{place}: whole, {} records", inventory.records);
    Ok((backup, inventory))
}

/// Whether a version is newer than another, by its numbers.
fn is_newer(version: &str, than: &str) -> bool {
    let numbers = |version: &str| -> Vec<u64> { version.split(['.', '-', '+']).take(3).map_while(|part| part.parse().ok()).collect() };
    numbers(version) > numbers(than)
}

fn lock(arguments: &LockArguments) -> Result<Lock, String> {
    match &arguments.recipient {
        Some(recipient) => Ok(Lock::Recipient(recipient.clone())),
        None => Ok(Lock::Passphrase(typed::secret(arguments.passphrase_file.as_deref(), PASSPHRASE, true)?)),
    }
}

/// The configuration of a node, and its data folder.
///
/// # Errors
/// One line.
pub fn node(data_dir: Option<PathBuf>, config: Option<PathBuf>) -> Result<(Config, PathBuf), String> {
    let serve = ServeArguments { data_dir, config, ..ServeArguments::default() };
    let config = Config::load(&serve, process::variables()?.into_iter())?;
    let data_dir = config.data_dir.clone().ok_or("--data-dir is missing (also data_dir of the configuration file, or KEYSTEAD_DATA_DIR)")?;
    Ok((config, data_dir))
}

/// A runtime for a command.
///
/// # Errors
/// One line.
pub fn runtime() -> Result<tokio::runtime::Runtime, String> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().map_err(|error| format!("no runtime: {error}"))
}

/// A file beside the one that is wanted, under a name that nobody else has: so no half backup ever has its name. It goes with this, unless it is published.
struct NewFile {
    path: PathBuf,
    file: File,
}

impl NewFile {
    fn beside(out: &Path) -> Result<Self, String> {
        if out.exists() {
            return Err(format!("{} is there already", out.display()));
        }
        let mut name = out.as_os_str().to_owned();
        name.push(format!(".{}.new", Uuid::new_v4()));
        let path = PathBuf::from(name);
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        file.map(|file| Self { path, file }).map_err(|error| format!("the backup {} cannot be written: {error}", out.display()))
    }

    /// Gives it its name, durably. One that has come meanwhile is not written over.
    fn publish(&self, out: &Path) -> std::io::Result<()> {
        self.file.sync_all()?;
        match std::fs::hard_link(&self.path, out) {
            // A file system without links, as some that come over a network.
            Err(error) if matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::Unsupported) && !out.try_exists()? => {
                std::fs::rename(&self.path, out)?
            }
            linked => linked?,
        }
        sync_folder_of(out)
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        // It is the backup itself by another name, or it is nothing.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Says how far something is, once in a while.
pub struct Tell(Instant);

impl Tell {
    /// From now on.
    pub fn new() -> Self {
        Self(Instant::now())
    }

    /// Says it, unless something was said a moment ago.
    pub fn tell(&mut self, what: impl FnOnce() -> String) {
        if self.0.elapsed() >= TELL {
            self.0 = Instant::now();
            eprintln!("{}", what());
        }
    }
}

impl Default for Tell {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    #[test]
    fn a_backup_has_its_name_when_it_is_whole_and_takes_nobody_elses() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("monday.backup");
        let names = || std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>();
        // Two at the same time do not take each other's file; the first that ends has the name.
        let (one, mut other) = (NewFile::beside(&out).unwrap(), NewFile::beside(&out).unwrap());
        other.file.write_all(b"other").unwrap();
        assert!(!out.exists());
        other.publish(&out).unwrap();
        assert_eq!(one.publish(&out).unwrap_err().kind(), ErrorKind::AlreadyExists);
        drop((one, other));
        assert_eq!(std::fs::read(&out).unwrap(), b"other");
        assert_eq!(names(), ["monday.backup"]);
        assert!(NewFile::beside(&out).is_err_and(|why| why.contains("is there already")));
    }

    #[test]
    fn versions_are_compared_by_their_numbers() {
        for (version, newer) in [("1.10.0", true), ("1.9.1", true), ("2", true), ("1.9.0", false), ("1.8.99", false), ("0.10", false), ("1.9.0-rc1", false)] {
            assert_eq!(is_newer(version, "1.9.0"), newer, "{version}");
        }
    }
}

//! `keystead backup` and `keystead backup verify`. Restoring is in `restore`.

use crate::cli::{BackupArguments, KeygenArguments, LockArguments, ServeArguments, UnlockArguments, VerifyBackupArguments};
use crate::config::Config;
use crate::folder::write_new;
use crate::{process, seal_source, store_source, typed};
use jiff::Timestamp;
use keystead_awskms::{Egress, Environment, EnvironmentOptions, SystemResolver};
use keystead_manager::backup::{self, Backup, Drill, Inventory, Key, Lock};
use keystead_store::etcd::EtcdStore;
use keystead_store::snapshot::Snapshot;
use keystead_store::sqlite::SqliteSnapshot;
use secrecy::ExposeSecret as _;
use std::fs::{File, OpenOptions};
use std::io::{BufReader, BufWriter};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

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
    let (path, file) = new_file(out)?;
    let taken = runtime()?.block_on(async {
        let mut tell = Tell::new();
        let mut take = async |snapshot: &mut dyn Snapshot| {
            let told = |records| tell.tell(|| format!("{records} records written"));
            backup::take(snapshot, &*seal, BufWriter::new(&file), &lock, env!("CARGO_PKG_VERSION"), Timestamp::now(), told).await.map(|(_, taken)| taken)
        };
        let text = |error: keystead_store::Error| error.to_string();
        if section.backend.as_deref() == Some("etcd") {
            let store = EtcdStore::new(&store_source::etcd_options(&section)?).map_err(|error| format!("[store] {error}"))?;
            take(&mut store.snapshot().await.map_err(text)?).await
        } else {
            take(&mut SqliteSnapshot::take(&data_dir.join("store.db")).await.map_err(text)?).await
        }
    });
    let finish = |taken| {
        file.sync_all().and_then(|()| std::fs::rename(&path, out)).map_err(|error| format!("the backup {} cannot be written: {error}", out.display()))?;
        Ok::<_, String>(taken)
    };
    let taken = taken.and_then(finish).inspect_err(|_| drop(std::fs::remove_file(&path)))?;
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
    let key = match &unlock.identity_file {
        Some(identity) => Key::Identity(typed::secret(Some(identity), ("the identity", "--identity-file"), false)?),
        None => Key::Passphrase(typed::secret(unlock.passphrase_file.as_deref(), PASSPHRASE, false)?),
    };
    let path = file.to_owned();
    let backup = Backup::new(key, move || Ok(Box::new(open(&path)?)));
    let mut tell = Tell::new();
    let inventory = backup::inventory(&backup, |records| tell.tell(|| format!("{records} records read"))).map_err(failed)?;
    eprintln!("{place}: whole, {} records", inventory.records);
    Ok((backup, inventory))
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

/// A file beside the one that is wanted, which is not there yet: so no half backup ever has its name.
fn new_file(out: &Path) -> Result<(PathBuf, File), String> {
    if out.exists() {
        return Err(format!("{} is there already", out.display()));
    }
    let mut name = out.as_os_str().to_owned();
    name.push(".new");
    let path = PathBuf::from(name);
    let _ = std::fs::remove_file(&path);
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
    file.map(|file| (path, file)).map_err(|error| format!("the backup {} cannot be written: {error}", out.display()))
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

//! Which store a node has: `[store]`. A SQLite file of its own, or the cluster's etcd.

use crate::config::StoreSection;
use crate::folder::Folder;
use keystead_store::copy::{MARK, half};
use keystead_store::etcd::{EtcdOptions, EtcdStore, EtcdTls};
use keystead_store::mirror::MirroredStore;
use keystead_store::sqlite::SqliteStore;
use keystead_store::{Error, Range, Store};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;
use zeroize::Zeroizing;

/// What all keys in etcd start with when nothing is said.
const PREFIX: &str = "/keystead";

/// The store of this node.
pub struct Opened {
    /// The store.
    pub store: Arc<dyn Store>,
    /// Whether there was anything in it before.
    pub existed: bool,
    sqlite: Option<Arc<SqliteStore>>,
}

impl Opened {
    /// Ends it as its kind wants: a file is closed after what is queued is written.
    pub async fn close(self) {
        if let Some(sqlite) = self.sqlite {
            sqlite.close().await;
        }
    }
}

/// The file in the data folder that a node which has joined a cluster has its store from.
pub const JOINED: &str = "store.toml";

/// The store that the configuration names, or else the one of the cluster that this node has joined.
///
/// # Errors
/// One line: the file of the joining cannot be read.
pub fn section(configured: &StoreSection, data_dir: &Path) -> Result<StoreSection, String> {
    let path = data_dir.join(JOINED);
    if *configured != StoreSection::default() || !path.exists() {
        return Ok(configured.clone());
    }
    let text = std::fs::read_to_string(&path).map_err(|error| format!("{} cannot be read: {error}", path.display()))?;
    toml::from_str(&text).map_err(|error| format!("{}: {}", path.display(), error.message()))
}

/// Opens the store that the configuration names.
///
/// # Errors
/// One line: the section does not fit together, a file cannot be read, the store cannot be opened; or etcd does not answer, so that nobody knows what it has.
pub async fn open(section: &StoreSection, folder: &Folder) -> Result<Opened, String> {
    match section.backend.as_deref().unwrap_or("sqlite") {
        "sqlite" => {
            if let Some((name, _)) = etcd_settings(section).into_iter().find(|(_, given)| *given) {
                return Err(format!("[store] {name} is for backend = \"etcd\""));
            }
            let path = folder.file("store.db");
            let existed = path.exists();
            let sqlite = Arc::new(SqliteStore::open(&path).await.map_err(|error| error.to_string())?);
            is_whole(&*sqlite).await?;
            Ok(Opened { store: Arc::clone(&sqlite) as Arc<dyn Store>, existed, sqlite: Some(sqlite) })
        }
        "etcd" => {
            let store = EtcdStore::new(&etcd_options(section)?).map_err(|error| format!("[store] {error}"))?;
            let away = match store.check_members().await {
                Err(Error::Unavailable(reason)) => Some(reason),
                other => other.map(|()| None).map_err(|error| format!("[store] {error}"))?,
            };
            if away.is_none() {
                is_whole(&store).await?;
            }
            let store = MirroredStore::open(Arc::new(store), &folder.file("copy.db")).await.map_err(|error| error.to_string())?;
            let copied = store.copied().await.map_err(|error| error.to_string())?;
            let existed = match (&away, copied) {
                (_, Some(_)) => true,
                (None, None) => !store.range(Range::prefix("/", 1)).await.map_err(|error| format!("[store] {error}"))?.entries.is_empty(),
                (Some(reason), None) => return Err(format!("[store] no member of etcd answers, and this node has no copy of it that is complete: {reason}")),
            };
            Ok(Opened { store: Arc::new(store), existed, sqlite: None })
        }
        other => Err(format!("[store] backend is \"{other}\", of sqlite and etcd")),
    }
}

/// Half a copy is no store, and neither is half a restore.
async fn is_whole(store: &dyn Store) -> Result<(), String> {
    match store.get(MARK).await {
        Ok(None) => Ok(()),
        Ok(Some(mark)) => Err(half(&store.describe(), &mark.value)),
        Err(error) => Err(error.to_string()),
    }
}

fn etcd_settings(section: &StoreSection) -> [(&'static str, bool); 5] {
    [
        ("endpoints", section.endpoints.is_some()),
        ("prefix", section.prefix.is_some()),
        ("ca", section.ca.is_some()),
        ("certificate", section.certificate.is_some()),
        ("key", section.key.is_some()),
    ]
}

/// How to reach the etcd of the section.
///
/// # Errors
/// One line.
pub fn etcd_options(section: &StoreSection) -> Result<EtcdOptions, String> {
    let endpoints = section.endpoints.clone().unwrap_or_default();
    if endpoints.is_empty() {
        return Err("[store] endpoints is missing: the client URLs of the members of etcd".to_owned());
    }
    let tls = match (&section.ca, &section.certificate, &section.key) {
        (None, None, None) => None,
        (Some(ca), Some(certificate), Some(key)) => {
            Some(EtcdTls { ca: read("ca", ca)?, certificate: read("certificate", certificate)?, key: read_private("key", key)? })
        }
        _ => return Err("[store] ca, certificate and key belong together".to_owned()),
    };
    if tls.is_none() && !endpoints.iter().all(|endpoint| is_loopback(endpoint)) {
        return Err("[store] endpoints lead to other machines: name ca, certificate and key, and https:// URLs".to_owned());
    }
    Ok(EtcdOptions { endpoints, prefix: section.prefix.clone().unwrap_or_else(|| PREFIX.to_owned()), tls })
}

/// The certificate that etcd is shown (DER), where there is one. It was read when the store was opened, and is shown until this process ends.
pub fn client_certificate(section: &StoreSection) -> Option<Vec<u8>> {
    let path = section.certificate.as_ref().filter(|_| section.backend.as_deref() == Some("etcd"))?;
    let text = std::fs::read(path).ok()?;
    CertificateDer::from_pem_slice(&text).ok().map(|certificate| certificate.to_vec())
}

/// Whether a plain URL stays on this machine.
fn is_loopback(endpoint: &str) -> bool {
    let address = endpoint.strip_prefix("http://").unwrap_or_default();
    address.parse::<std::net::SocketAddr>().is_ok_and(|address| address.ip().is_loopback()) || address.split(':').next() == Some("localhost")
}

fn read(name: &str, path: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|error| format!("[store] {name} {} cannot be read: {error}", path.display()))
}

fn read_private(name: &str, path: &Path) -> Result<Zeroizing<Vec<u8>>, String> {
    let mode = std::fs::metadata(path).map_err(|error| format!("[store] {name} {} cannot be read: {error}", path.display()))?.mode();
    if mode & 0o007 != 0 {
        return Err(format!("[store] {name} {} can be read by everybody (mode {:o}); set it to 600", path.display(), mode & 0o777));
    }
    Ok(Zeroizing::new(read(name, path)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(section: &StoreSection) -> String {
        etcd_options(section).unwrap_err()
    }

    #[test]
    fn what_leaves_the_machine_is_encrypted() {
        let plain = |endpoint: &str| StoreSection { endpoints: Some(vec![endpoint.to_owned()]), ..StoreSection::default() };
        assert!(etcd_options(&plain("http://127.0.0.1:2379")).is_ok());
        assert!(etcd_options(&plain("http://[::1]:2379")).is_ok());
        assert!(refusal(&plain("http://192.0.2.1:2379")).contains("https://"));
        assert!(refusal(&plain("http://127.0.0.1.example:2379")).contains("https://"));
        assert!(refusal(&StoreSection::default()).contains("endpoints"));
    }

    #[test]
    fn certificates_come_together() {
        let section = StoreSection { endpoints: Some(vec!["https://192.0.2.1:2379".to_owned()]), ca: Some("/ca".into()), ..StoreSection::default() };
        assert!(refusal(&section).contains("belong together"));
    }
}

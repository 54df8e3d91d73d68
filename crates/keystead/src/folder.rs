//! The data folder: what a node keeps beside its store.
//!
//! | file | what |
//! |---|---|
//! | `store.db` | the store, where that is SQLite |
//! | `copy.db` | what etcd has, as far as this node knows it, where the store is etcd |
//! | `store.toml`, `etcd-ca.pem`, `etcd-client.pem`, `etcd-client.key` | the store of the cluster that this node has joined |
//! | `seal.key` | the seal key, unless `[seal]` says otherwise; 0600 |
//! | `last-backup` | the moment of the last backup that was taken with this folder |
//! | `audit/` | the audit log; 0700, its files 0600 |
//! | `ca.pem` | the certificate of the cluster's CA |
//! | `node-uuid` | the identifier of this node |
//! | `admin-password` | the generated password of `admin`, until it is first changed; 0600 |

use crate::ownership;
use fs4::FileExt;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use uuid::Uuid;

/// The data folder of this process; no other process can have it meanwhile.
pub struct Folder {
    path: PathBuf,
    _lock: File,
}

impl Folder {
    /// Makes the folder where there is none (0700), and takes it.
    ///
    /// # Errors
    /// One line: it cannot be made, another process has it, or it has links, and is not root's, who asks.
    pub fn open(path: &Path) -> Result<Self, String> {
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|error| format!("the data folder {} cannot be made: {error}", path.display()))?;
        let failed = |error: std::io::Error| format!("the data folder {} cannot be read: {error}", path.display());
        if let Some(link) = ownership::planted(path).map_err(failed)? {
            return Err(format!(
                "{} is a link, or has another name: root does not follow what somebody else has put into the data folder; look how it came there, or run the command as the owner of the folder",
                link.display()
            ));
        }
        let lock = private(&path.join("lock")).map_err(|error| format!("the data folder {} cannot be written: {error}", path.display()))?;
        match FileExt::try_lock(&lock) {
            Ok(()) => Ok(Self { path: path.to_owned(), _lock: lock }),
            Err(fs4::TryLockError::WouldBlock) => Err(format!("the data folder {} is in use by another keystead process", path.display())),
            Err(fs4::TryLockError::Error(error)) => Err(format!("the data folder {} cannot be locked: {error}", path.display())),
        }
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path of a file in it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The identifier of this node, made at the first start.
    ///
    /// # Errors
    /// One line.
    pub fn node_uuid(&self) -> Result<Uuid, String> {
        let path = self.file("node-uuid");
        match std::fs::read_to_string(&path) {
            Ok(text) => text.trim().parse().map_err(|_| format!("{} holds no UUID", path.display())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let uuid = Uuid::new_v4();
                self.write("node-uuid", 0o644, format!("{uuid}\n").as_bytes())?;
                Ok(uuid)
            }
            Err(error) => Err(format!("{} cannot be read: {error}", path.display())),
        }
    }

    /// Gives everything in it to whom the folder belongs: a command that root runs writes for the service's user. Where that fails, it is said, and what was done is done.
    pub fn give_to_its_owner(&self) {
        if let Err(error) = ownership::give(&self.path) {
            let place = self.path.display();
            eprintln!("keystead: what is in {place} cannot be given to the owner of the folder ({error}); do that before its node is started");
        }
    }

    /// Writes a file whole, or not at all: under another name first, synced, then renamed.
    ///
    /// # Errors
    /// One line.
    pub fn write(&self, name: &str, mode: u32, content: &[u8]) -> Result<(), String> {
        let path = self.file(name);
        write_whole(&path, mode, content).map_err(|error| format!("{} cannot be written: {error}", path.display()))
    }
}

/// Writes a file whole, or not at all.
///
/// # Errors
/// The file system's.
pub fn write_whole(path: &Path, mode: u32, content: &[u8]) -> std::io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let new = PathBuf::from(name);
    let _ = std::fs::remove_file(&new);
    let written = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&new)?;
        file.write_all(content)?;
        file.sync_all()?;
        std::fs::rename(&new, path)
    };
    // It may be a key: no part of it stays under another name.
    written().inspect_err(|_| drop(std::fs::remove_file(&new)))?;
    sync_folder_of(path)
}

/// Makes the name of a file durable: it is when its folder is.
///
/// # Errors
/// The file system's.
pub fn sync_folder_of(path: &Path) -> std::io::Result<()> {
    // That of a bare name is the one that the process works in.
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

/// Writes a file that is not there yet.
///
/// # Errors
/// The file system's; among them that it is there.
pub fn write_new(path: &Path, mode: u32, content: &[u8]) -> std::io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(content)?;
    file.sync_all()?;
    sync_folder_of(path)
}

fn private(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_folder_has_one_owner() {
        let temporary = tempfile::tempdir().unwrap();
        let path = temporary.path().join("a/b");
        let folder = Folder::open(&path).unwrap();
        assert!(Folder::open(&path).err().unwrap().contains("in use"));
        drop(folder);
        assert!(Folder::open(&path).is_ok());
    }

    #[test]
    fn files_have_their_mode_and_the_node_keeps_its_uuid() {
        let temporary = tempfile::tempdir().unwrap();
        let folder = Folder::open(temporary.path()).unwrap();
        folder.write("secret", 0o600, b"x").unwrap();
        assert_eq!(std::fs::metadata(folder.file("secret")).unwrap().permissions().mode() & 0o777, 0o600);
        let uuid = folder.node_uuid().unwrap();
        assert_eq!(folder.node_uuid().unwrap(), uuid);
        std::fs::write(folder.file("node-uuid"), "nonsense").unwrap();
        assert!(folder.node_uuid().unwrap_err().contains("node-uuid"));
    }
}

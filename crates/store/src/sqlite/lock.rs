//! The advisory lock that keeps other processes out of a store. Its file is separate, so that `sqlite3` can open the database itself.

use super::schema;
use crate::{Error, Result};
use fs4::FileExt;
use std::fs::File;
use std::path::{Path, PathBuf};

/// The lock, held until it is dropped.
///
/// The kernel keeps an advisory lock as long as any copy of the descriptor is open. A process that is being started has copies of all of its parent's until it
/// runs its own program: so the end of the lock is said, and is not left to the closing of the file.
pub(super) struct Lock(File);

impl Lock {
    /// Takes the lock of the store in a file, `<path>.lock`.
    ///
    /// # Errors
    /// [`Error::InUse`]: another process holds it. [`Error::Refused`]: the file cannot be made or locked.
    pub fn take(path: &Path) -> Result<Self> {
        let mut name = path.as_os_str().to_owned();
        name.push(".lock");
        let name = PathBuf::from(name);
        let refused = |error: std::io::Error| Error::Refused(format!("{}: {error}", name.display()));
        let file = schema::private_file(&name).map_err(refused)?;
        match FileExt::try_lock(&file) {
            Ok(()) => Ok(Self(file)),
            Err(fs4::TryLockError::WouldBlock) => Err(Error::InUse(format!("another process holds {}", name.display()))),
            Err(fs4::TryLockError::Error(error)) => Err(refused(error)),
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        if let Err(error) = FileExt::unlock(&self.0) {
            tracing::debug!(%error, "the lock of the store could not be given back; the end of the process gives it back");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_of_the_descriptor_does_not_keep_the_lock() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store.db");
        let lock = Lock::take(&path).unwrap();
        // What a process has that is just being started.
        let copy = lock.0.try_clone().unwrap();
        assert!(matches!(Lock::take(&path), Err(Error::InUse(_))));
        drop(lock);
        Lock::take(&path).map_err(|error| error.to_string()).unwrap();
        drop(copy);
    }
}

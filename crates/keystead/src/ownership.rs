//! What root does in a data folder that belongs to somebody else, as commands beside a service: it follows no link that the service's user could have put there, and what it writes is given to that user.

use rustix::fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags, Uid, chownat, openat, statat};
use std::fs::Metadata;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{MetadataExt as _, lchown};
use std::path::{Path, PathBuf};

/// Something in a folder that root must not touch, since it may lead elsewhere: a link, or a file with another name. `None`: there is none, or this process is not root's, or the folder is.
///
/// # Errors
/// The file system's.
pub fn planted(folder: &Path) -> std::io::Result<Option<PathBuf>> {
    if !is_root() || std::fs::metadata(folder)?.uid() == 0 {
        return Ok(None);
    }
    find(folder, &|of| of.is_symlink() || (of.is_file() && of.nlink() > 1))
}

/// Gives all that is in a folder to its owner, where root has written it. Whoever else asks has written their own.
///
/// # Errors
/// The file system's.
pub fn give(folder: &Path) -> std::io::Result<()> {
    if !is_root() {
        return Ok(());
    }
    let owner = std::fs::metadata(folder)?;
    let top = rustix::fs::open(folder, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    give_below(top.as_fd(), (owner.uid(), owner.gid())).map_err(Into::into)
}

/// Gives a file to the owner of a folder, where root has written it.
///
/// # Errors
/// The file system's.
pub fn give_file(file: &Path, folder: &Path) -> std::io::Result<()> {
    let owner = std::fs::metadata(folder)?;
    if is_root() && owner.uid() != 0 { lchown(file, Some(owner.uid()), Some(owner.gid())) } else { Ok(()) }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn find(folder: &Path, wanted: &dyn Fn(&Metadata) -> bool) -> std::io::Result<Option<PathBuf>> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let of = entry.metadata()?;
        if wanted(&of) {
            return Ok(Some(entry.path()));
        }
        if of.is_dir()
            && let Some(found) = find(&entry.path(), wanted)?
        {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// By what is open, and not by names, which the owner could lead elsewhere meanwhile.
fn give_below(folder: BorrowedFd<'_>, owner: (u32, u32)) -> rustix::io::Result<()> {
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let of = statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let is_folder = FileType::from_raw_mode(of.st_mode).is_dir();
        // A file with another name may be somebody else's under that.
        if (of.st_uid, of.st_gid) != owner && (is_folder || of.st_nlink == 1) {
            chownat(folder, name, Some(Uid::from_raw(owner.0)), Some(Gid::from_raw(owner.1)), AtFlags::SYMLINK_NOFOLLOW)?;
        }
        if is_folder {
            let inner = openat(folder, name, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
            give_below(inner.as_fd(), owner)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    const SERVICE: u32 = 12_345;

    fn owner(path: &Path) -> (u32, u32) {
        let of = std::fs::symlink_metadata(path).unwrap();
        (of.uid(), of.gid())
    }

    /// A folder of the service's user, reached by a link of root's. `None`: nobody but root can give anything away.
    fn folder(temporary: &Path) -> Option<PathBuf> {
        let (real, link) = (temporary.join("real"), temporary.join("link"));
        std::fs::create_dir_all(real.join("audit")).unwrap();
        symlink(&real, &link).unwrap();
        is_root().then(|| lchown(&real, Some(SERVICE), Some(SERVICE)).unwrap()).map(|()| link)
    }

    #[test]
    fn what_root_writes_is_given_to_the_owner_of_the_folder() {
        let temporary = tempfile::tempdir().unwrap();
        let Some(folder) = folder(temporary.path()) else { return };
        let elsewhere = temporary.path().join("elsewhere");
        std::fs::write(&elsewhere, "root's").unwrap();
        std::fs::write(folder.join("audit/x"), "x").unwrap();
        symlink(&elsewhere, folder.join("a-link")).unwrap();
        std::fs::hard_link(&elsewhere, folder.join("another-name")).unwrap();
        give(&folder).unwrap();
        for name in ["audit", "audit/x", "a-link"] {
            assert_eq!(owner(&folder.join(name)), (SERVICE, SERVICE), "{name}");
        }
        assert_eq!((owner(&elsewhere).0, owner(&folder.join("another-name")).0), (0, 0), "what it may lead to is left alone");
        give_file(&elsewhere, &folder).unwrap();
        assert_eq!(owner(&elsewhere), (SERVICE, SERVICE));
    }

    #[test]
    fn a_link_in_somebody_elses_folder_is_found() {
        let temporary = tempfile::tempdir().unwrap();
        let Some(folder) = folder(temporary.path()) else { return };
        std::fs::write(folder.join("store.db"), "x").unwrap();
        assert_eq!(planted(&folder).unwrap(), None, "the folder itself may be a link");
        let link = folder.join("audit/head.json.new");
        symlink("/etc/nowhere", &link).unwrap();
        assert_eq!(planted(&folder).unwrap().unwrap().file_name(), link.file_name());
        std::fs::remove_file(&link).unwrap();
        std::fs::hard_link(folder.join("store.db"), folder.join("audit/y")).unwrap();
        assert!(planted(&folder).unwrap().is_some());
        lchown(folder.join(".").as_path(), Some(0), Some(0)).unwrap();
        assert_eq!(planted(&folder).unwrap(), None, "root's own folder is root's to fill");
    }
}

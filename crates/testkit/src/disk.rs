//! A small disk that a test can fill: memory, mounted in the namespaces of a test ([`crate::network::with_network`]).

use crate::network::run;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// What fills it.
const FILLING: &str = "filling";
const BLOCK: [u8; 4_096] = [0; 4_096];

/// A mounted disk. Dropping it takes it away.
#[derive(Debug)]
pub struct Disk {
    folder: PathBuf,
}

impl Disk {
    /// Mounts a disk of so many bytes at a folder, which is made.
    ///
    /// # Errors
    /// The machine does not let us.
    pub fn mount(folder: &Path, bytes: u64) -> io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        run("mount", &["-t", "tmpfs", "-o", &format!("size={bytes},mode=0700"), "tmpfs", &folder.to_string_lossy()])?;
        Ok(Self { folder: folder.to_owned() })
    }

    /// Takes all the room that is left.
    ///
    /// # Errors
    /// Another one than that there is no room.
    pub fn fill(&self) -> io::Result<()> {
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(self.folder.join(FILLING))?;
        loop {
            match file.write_all(&BLOCK) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::StorageFull => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    /// Gives back what [`Disk::fill`] took.
    ///
    /// # Errors
    /// It was not filled.
    pub fn free(&self) -> io::Result<()> {
        std::fs::remove_file(self.folder.join(FILLING))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Also while a process has files there: it keeps them, and they go with it.
        if let Err(error) = run("umount", &["--lazy", &self.folder.to_string_lossy()]) {
            eprintln!("{error}");
        }
    }
}

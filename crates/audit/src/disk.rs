//! The two things that are done with the log's files, so that a test can make a disk that is stuck or full.

use std::fs::File;
use std::io::Write as _;

/// A disk.
pub trait Disk: Send + Sync + 'static {
    /// Writes all of it at the end of the file.
    ///
    /// # Errors
    /// The file system's; then a part of it may have been written.
    fn write(&self, file: &File, bytes: &[u8]) -> std::io::Result<()>;

    /// Returns when what was written is durable.
    ///
    /// # Errors
    /// The file system's.
    fn sync(&self, file: &File) -> std::io::Result<()>;
}

/// The real one.
#[derive(Debug, Default, Clone, Copy)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn write(&self, mut file: &File, bytes: &[u8]) -> std::io::Result<()> {
        file.write_all(bytes)
    }

    fn sync(&self, file: &File) -> std::io::Result<()> {
        file.sync_data()
    }
}

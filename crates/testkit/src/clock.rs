//! A clock that a test sets, for a program that knows nothing of it: libfaketime (Debian's package `libfaketime`), loaded before the program's own libraries.
//!
//! It moves the time of day alone. What measures how long something takes goes on as it did, as on a machine whose clock somebody sets.

use std::io;
use std::path::PathBuf;

/// Where distributions have libfaketime for programs of several threads, below `/usr/lib` or below one of its folders.
const LIBRARY: &str = "faketime/libfaketimeMT.so.1";

/// The clock of one program.
#[derive(Debug)]
pub struct FalseClock {
    library: PathBuf,
    file: PathBuf,
}

impl FalseClock {
    /// A clock that is right. `file` is where the program looks how far it is off.
    ///
    /// # Errors
    /// There is no libfaketime, or the file cannot be written.
    pub fn new(file: PathBuf) -> io::Result<Self> {
        let below = std::fs::read_dir("/usr/lib")?.filter_map(|entry| Some(entry.ok()?.path()));
        let places = ["/usr/lib", "/usr/lib64"].map(PathBuf::from).into_iter().chain(below);
        let library = places.map(|place| place.join(LIBRARY)).find(|library| library.exists());
        let library = library.ok_or_else(|| io::Error::other("there is no libfaketime: scripts/test-env installs it (Debian's package libfaketime)"))?;
        let clock = Self { library, file };
        clock.set(0)?;
        Ok(clock)
    }

    /// Sets it so many seconds ahead, or behind where that is negative. The program sees it within a second.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn set(&self, seconds: i64) -> io::Result<()> {
        // Whoever reads it must not find half of it.
        let new = self.file.with_extension("new");
        std::fs::write(&new, format!("{seconds:+}\n"))?;
        std::fs::rename(new, &self.file)
    }

    /// What the program's environment must have, as env(1) takes it.
    pub fn environment(&self) -> Vec<String> {
        vec![
            format!("LD_PRELOAD={}", self.library.display()),
            format!("FAKETIME_TIMESTAMP_FILE={}", self.file.display()),
            "FAKETIME_CACHE_DURATION=1".to_owned(),
            "FAKETIME_DONT_FAKE_MONOTONIC=1".to_owned(),
            "NO_FAKE_STAT=1".to_owned(),
        ]
    }
}

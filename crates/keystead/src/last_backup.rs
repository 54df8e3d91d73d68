//! When the last backup was taken on this machine: a small file of the data folder, which the command writes and the node's metrics tell. The command cannot write into the store of a node that runs.

use crate::folder::write_whole;
use crate::ownership::give_file;
use jiff::Timestamp;
use keystead_metrics::{Name, Page, Source};
use std::path::{Path, PathBuf};

/// The file in the data folder.
const FILE: &str = "last-backup";

/// Notes that a backup of this moment was taken.
///
/// # Errors
/// The file system's.
pub fn note(data_dir: &Path, made: Timestamp) -> std::io::Result<()> {
    let file = data_dir.join(FILE);
    write_whole(&file, 0o644, format!("{made}\n").as_bytes())?;
    // Root takes backups of a service that has a user of its own.
    give_file(&file, data_dir)
}

/// What was noted, for the metrics.
pub struct LastBackup(PathBuf);

impl LastBackup {
    /// Of the node with this data folder.
    pub fn of(data_dir: &Path) -> Self {
        Self(data_dir.join(FILE))
    }
}

impl Source for LastBackup {
    fn write(&self, page: &mut Page<'_>) -> std::fmt::Result {
        let made = std::fs::read_to_string(&self.0).ok().and_then(|text| text.trim().parse::<Timestamp>().ok());
        page.gauge(
            Name::seconds(
                "keystead_last_backup_timestamp",
                "The moment of the last backup that was taken with this data folder, in seconds since 1970; absent before one",
            ),
            |samples| made.map_or(Ok(()), |made| samples.put(&[], made.as_duration().as_secs_f64().trunc())),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use keystead_metrics::{Format, Metrics};

    #[test]
    fn what_was_noted_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let metrics = Metrics::default();
        metrics.register(LastBackup::of(folder.path()));
        let page = || metrics.text(Format::Prometheus).unwrap();
        assert!(page().contains("# TYPE keystead_last_backup_timestamp_seconds gauge") && !page().contains("\nkeystead_last_backup"));
        for second in [1_000, 2_000] {
            note(folder.path(), Timestamp::from_second(second).unwrap()).unwrap();
            assert!(page().contains(&format!("\nkeystead_last_backup_timestamp_seconds {second}.0\n")), "{}", page());
        }
        std::fs::write(folder.path().join(FILE), "nonsense").unwrap();
        assert!(!page().contains("\nkeystead_last_backup"));
    }
}

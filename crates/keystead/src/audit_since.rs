//! What the audit logs have that `keystead restore --audit` names: what was done since a backup, and how much of it can be believed.

use jiff::Timestamp;
use keystead_audit::Record;
use keystead_audit::read::{Line, lines_of_file, lines_of_folder};
use keystead_audit::verify::verify;
use keystead_manager::backup::Since;
use std::path::{Path, PathBuf};

/// What was read.
pub struct Read {
    /// The records.
    pub since: Since,
    /// A line for each path: what was found there.
    pub found: Vec<String>,
    /// Why not all of it may have been found.
    pub doubts: Vec<String>,
}

/// What was found in a log.
#[derive(Default)]
struct Tally {
    records: u64,
    changed: u64,
    other: u64,
    span: Option<(Timestamp, Timestamp)>,
}

/// Reads the logs. `made` is the moment of the backup.
///
/// # Errors
/// One line: a path cannot be read, or has no record at all.
pub fn read(paths: &[PathBuf], made: Timestamp) -> Result<Read, String> {
    let mut read = Read { since: Since::new(made), found: Vec::new(), doubts: Vec::new() };
    for path in paths {
        one(path, &mut read).map_err(|why| format!("--audit {}: {why}", path.display()))?;
    }
    Ok(read)
}

fn one(path: &Path, read: &mut Read) -> Result<(), String> {
    let mut tally = Tally::default();
    let take = |line| tally.take(line, &mut read.since);
    let cannot = |error: std::io::Error| format!("it cannot be read: {error}");
    let place = path.display();
    if path.is_dir() {
        if lines_of_folder(path, take).map_err(cannot)? == 0 {
            return Err("there is no audit log in this folder (audit-….jsonl): it is the folder audit of a node's data folder".to_owned());
        }
        match verify(path) {
            Ok(report) => read.doubts.extend(report.broken.map(|broken| format!("the chain of the audit log is broken at {broken}"))),
            Err(why) => read.doubts.push(format!("the chain of the audit log cannot be looked at: {why}")),
        }
    } else {
        lines_of_file(path, take).map_err(cannot)?;
    }
    let Some((oldest, newest)) = tally.span else {
        return Err(format!(
            "none of its {} lines is a record of the audit log; what a collector has must be JSON ([audit.syslog] format = \"json\")",
            tally.other
        ));
    };
    read.found.push(format!("--audit {place}: {} records, of {oldest:.0} to {newest:.0}", tally.records));
    if tally.other > 0 {
        read.doubts.push(format!("{} lines of {place} are no record of the audit log, and were not understood", tally.other));
    }
    if tally.changed > 0 {
        read.doubts.push(format!("{} records of {place} are not as their node has written them", tally.changed));
    }
    Ok(())
}

impl Tally {
    fn take(&mut self, line: Line, since: &mut Since) {
        match line {
            Line::Record(record) => self.record(&record, since),
            Line::Changed(record) => {
                self.changed += 1;
                self.record(&record, since);
            }
            Line::Other => self.other += 1,
        }
    }

    fn record(&mut self, record: &Record, since: &mut Since) {
        self.records += 1;
        let (oldest, newest) = self.span.unwrap_or((record.time, record.time));
        self.span = Some((oldest.min(record.time), newest.max(record.time)));
        since.add(record);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use keystead_audit::chain::{Link, append};
    use keystead_audit::{Application, State};
    use std::io::Write as _;

    fn log(folder: &Path, count: usize) -> PathBuf {
        let path = folder.join("audit-00000000000000000001.jsonl");
        let (mut link, mut out) = (Link::default(), Vec::new());
        for _ in 0..count {
            link = append(&link, &mut Record::new(Application::Http, State::Success, "POST /api/svm/svms"), &mut out).unwrap();
        }
        std::fs::write(&path, out).unwrap();
        path
    }

    fn of(paths: &[&Path]) -> Result<Read, String> {
        read(&paths.iter().map(|path| path.to_path_buf()).collect::<Vec<_>>(), Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn where_there_is_no_record_nothing_is_believed() {
        let folder = tempfile::tempdir().unwrap();
        let refused = |path: &Path, why: &str| {
            let error = of(&[path]).map(|_| ()).unwrap_err();
            assert!(error.contains(why), "{error}");
        };
        refused(folder.path(), "there is no audit log in this folder");
        refused(&folder.path().join("missing"), "cannot be read");
        let text = folder.path().join("collected");
        std::fs::write(&text, "Nov 30 host keystead: http success: DELETE /api/svm/svms/1\n").unwrap();
        refused(&text, "none of its 1 lines is a record");
        std::fs::write(&text, "").unwrap();
        refused(&text, "none of its 0 lines is a record");
        log(folder.path(), 0);
        refused(folder.path(), "none of its 0 lines is a record");
    }

    #[test]
    fn what_was_not_understood_is_said_and_what_is_there_twice_counts_once() {
        let folder = tempfile::tempdir().unwrap();
        let file = log(folder.path(), 3);
        let whole = of(&[folder.path(), &file]).unwrap();
        assert!(whole.found.len() == 2 && whole.found[0].contains("3 records, of 1970-01-01T00:00:00Z"), "{:?}", whole.found);
        assert_eq!(whole.since.records(), 3);
        assert_eq!(whole.doubts, [""; 0]);
        let mut append = std::fs::OpenOptions::new().append(true).open(&file).unwrap();
        append.write_all(b"nonsense\n").unwrap();
        let doubts = of(&[folder.path()]).unwrap().doubts;
        assert!(doubts.len() == 2 && doubts[0].contains("is broken at") && doubts[1].starts_with("1 lines of"), "{doubts:?}");
    }
}

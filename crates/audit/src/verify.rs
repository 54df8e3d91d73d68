//! Checking the chain over all files, also while the node writes on.

use crate::chain;
use crate::folder::{self, Head, LogFile};
use crate::record::Record;
use jiff::Timestamp;
use std::fmt;
use std::fs::File;
use std::io::{BufRead as _, BufReader, ErrorKind};
use std::path::{Path, PathBuf};

/// How often it is begun again since the node has deleted a file meanwhile.
const REPEATS: usize = 10;

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// How many files.
    pub files: usize,
    /// How many records are good, up to the first break.
    pub records: u64,
    /// The first record.
    pub first: Option<(u64, Timestamp)>,
    /// The last good record.
    pub last: Option<(u64, Timestamp)>,
    /// The first place where the chain is broken.
    pub broken: Option<Break>,
    /// What the log says of itself: records that were lost, ends that were cut off.
    pub notes: Vec<String>,
}

/// A place where the chain is broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Break {
    /// The file.
    pub file: PathBuf,
    /// The line, from 1; 0: the file as such.
    pub line: u64,
    /// What is wrong.
    pub why: String,
}

impl fmt::Display for Break {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file.display(), self.line, self.why)
    }
}

/// Checks the log in a folder.
///
/// # Errors
/// One line: there is no log, or it cannot be read.
pub fn verify(folder: &Path) -> Result<Report, String> {
    for _ in 0..REPEATS {
        // In this order: the head is never ahead of the files that are read after it.
        let head = folder::head(folder);
        let files = folder::files(folder).map_err(|error| format!("{} cannot be read: {error}", folder.display()))?;
        // A head that has seen no record is made before the first file.
        if files.is_empty() && head.as_ref().is_none_or(|head| head.last == 0) {
            return Err(format!("there is no audit log in {}", folder.display()));
        }
        if let Some(report) = Check::new(folder, head).run(&files)? {
            return Ok(report);
        }
    }
    Err(format!("files of {} are deleted faster than they can be read", folder.display()))
}

struct Check<'f> {
    folder: &'f Path,
    head: Option<Head>,
    report: Report,
    /// The index and the hash of the record before.
    before: Option<(u64, String)>,
    /// Whether the head's record was seen, with its hash.
    head_seen: bool,
    /// Whether what is broken is the beginning.
    beginning: bool,
}

impl<'f> Check<'f> {
    fn new(folder: &'f Path, head: Option<Head>) -> Self {
        Self { folder, head, report: Report::default(), before: None, head_seen: false, beginning: false }
    }

    /// `None`: a file has gone meanwhile; begin again.
    fn run(mut self, files: &[LogFile]) -> Result<Option<Report>, String> {
        self.report.files = files.len();
        if self.head.is_none() {
            self.report.notes.push("head.json is missing or cannot be read: what is missing at the beginning or at the end cannot be told".to_owned());
        }
        for file in files {
            match self.file(file, files.last() == Some(file)) {
                Ok(true) => {}
                // The node has said that it deletes files, and deleted them, after its head was read here.
                Ok(false) if self.beginning && folder::head(self.folder).is_some_and(|head| head.first > self.first()) => return Ok(None),
                Ok(false) => return Ok(Some(self.report)),
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(format!("{} cannot be read: {error}", file.path.display())),
            }
        }
        if let Some(head) = self.head.take().filter(|_| !self.head_seen) {
            let last = self.before.as_ref().map_or(0, |(index, _)| *index);
            let path = files.last().map_or_else(|| self.folder.to_owned(), |file| file.path.clone());
            if last < head.last {
                self.broken(&path, 0, format!("the log ends with record {last}, and had come to {} already: records were taken away", head.last));
            }
        }
        Ok(Some(self.report))
    }

    /// `false`: the chain is broken.
    fn file(&mut self, file: &LogFile, newest: bool) -> std::io::Result<bool> {
        let mut reader = BufReader::new(File::open(&file.path)?);
        let mut number = 0;
        loop {
            let mut line = Vec::new();
            reader.read_until(b'\n', &mut line)?;
            if line.is_empty() {
                return Ok(true);
            }
            number += 1;
            if line.pop() != Some(b'\n') {
                if newest {
                    self.report
                        .notes
                        .push(format!("{}:{number}: the last record is not finished: it is being written, or the node has died", file.path.display()));
                    return Ok(true);
                }
                return Ok(self.broken(&file.path, number, "the line has no end".to_owned()));
            }
            let (record, hash) = match chain::read(&line) {
                Ok(read) => read,
                Err(why) => return Ok(self.broken(&file.path, number, why.to_owned())),
            };
            if let Err(why) = self.fits(&record, &hash, file, number) {
                return Ok(self.broken(&file.path, number, why));
            }
            self.note(&record, &file.path, number);
            if self.report.broken.is_none() {
                self.report.records += 1;
                self.report.first.get_or_insert((record.index, record.time));
                self.report.last = Some((record.index, record.time));
            }
            self.before = Some((record.index, hash));
        }
    }

    fn fits(&mut self, record: &Record, hash: &str, file: &LogFile, line: u64) -> Result<(), String> {
        if line == 1 && record.index != file.first {
            return Err(format!("the file begins with record {}, and its name says {}", record.index, file.first));
        }
        match &self.before {
            Some((before, _)) if record.index != before + 1 => {
                return Err(format!("record {} follows record {before}: records are missing, or out of order", record.index));
            }
            Some((before, hash)) if record.prev != *hash => {
                return Err(format!("record {} does not name the hash of record {before}", record.index));
            }
            Some(_) => {}
            None if record.index == 1 && record.prev.is_empty() => {}
            None => match &self.head {
                Some(head) if head.first.max(1) >= record.index => {}
                Some(head) => {
                    self.beginning = true;
                    return Err(format!(
                        "the log begins with record {}, and {} is the oldest that is kept: files were taken away",
                        record.index,
                        head.first.max(1)
                    ));
                }
                None => {}
            },
        }
        if let Some(head) = self.head.as_ref().filter(|head| head.last == record.index) {
            if head.hash != hash {
                return Err(format!("record {} has another hash than head.json has noted", record.index));
            }
            self.head_seen = true;
        }
        Ok(())
    }

    fn first(&self) -> u64 {
        self.head.as_ref().map_or(0, |head| head.first)
    }

    fn note(&mut self, record: &Record, file: &Path, line: u64) {
        let told = [crate::LOST, crate::HEALED, crate::DAMAGED, crate::NOT_FORWARDED];
        if record.application == crate::Application::Audit && told.contains(&record.input.as_str()) {
            let message = record.message.as_deref().unwrap_or_default();
            self.report.notes.push(format!("{}:{line}: {}: {message}", file.display(), record.input));
            // What the node has found when it was started is as broken as what is found now.
            if record.input == crate::DAMAGED {
                self.broken(file, line, format!("the node has found damage: {message}"));
            }
        }
    }

    /// Answers `false`, for those who go on with it.
    fn broken(&mut self, file: &Path, line: u64, why: String) -> bool {
        self.report.broken.get_or_insert(Break { file: file.to_owned(), line, why });
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::Link;
    use crate::record::{Application, State};
    use std::io::Write as _;

    #[test]
    fn files_that_the_node_has_deleted_meanwhile_were_not_taken_away() {
        let folder = tempfile::tempdir().unwrap();
        let mut link = Link::default();
        for index in 1..=4 {
            let mut out = Vec::new();
            link = chain::append(&link, &mut Record::new(Application::Http, State::Success, "x"), &mut out).unwrap();
            folder::open(folder.path(), index).unwrap().write_all(&out).unwrap();
        }
        let head = |first| Head { first, last: 4, hash: link.hash.clone() };
        folder::write_head(folder.path(), &head(1)).unwrap();
        std::fs::remove_file(&folder::files(folder.path()).unwrap()[0].path).unwrap();
        let files = folder::files(folder.path()).unwrap();
        let check = || Check::new(folder.path(), Some(head(1))).run(&files).unwrap();
        assert!(check().unwrap().broken.is_some(), "nobody has said that it was deleted");
        // The node has rotated between the look at its head and the look at its files.
        folder::write_head(folder.path(), &head(2)).unwrap();
        assert_eq!(check(), None, "it is begun again");
        assert_eq!(verify(folder.path()).unwrap().broken, None);
    }
}

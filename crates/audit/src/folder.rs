//! The folder of the log: files of lines, each named after the index of its first record, and `head.json`, which says how far the log had come at the least.

use crate::chain::{self, Link};
use serde::{Deserialize, Serialize};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// How much of a file is read at a time.
const BLOCK: usize = 64 * 1024;
const PREFIX: &str = "audit-";
const SUFFIX: &str = ".jsonl";
const HEAD: &str = "head.json";

/// How far the log had come when this was written: what is missing from it was taken away.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The oldest record that is kept.
    pub first: u64,
    /// The newest record that is certainly on disk.
    pub last: u64,
    /// Its hash.
    pub hash: String,
}

/// A file of the log.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct LogFile {
    /// The index of its first record.
    pub first: u64,
    /// Where it is.
    pub path: PathBuf,
}

/// Makes the folder where there is none (0700).
///
/// # Errors
/// The file system's.
pub fn make(folder: &Path) -> std::io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// The files, the oldest first.
///
/// # Errors
/// The file system's.
pub fn files(folder: &Path) -> std::io::Result<Vec<LogFile>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if let Some(first) = name.strip_prefix(PREFIX).and_then(|rest| rest.strip_suffix(SUFFIX)).and_then(|number| number.parse().ok()) {
            found.push(LogFile { first, path });
        }
    }
    found.sort();
    Ok(found)
}

/// Opens the file whose first record has this index, for writing at its end (0600).
///
/// # Errors
/// The file system's.
pub fn open(folder: &Path, first: u64) -> std::io::Result<File> {
    let file = OpenOptions::new().append(true).create(true).mode(0o600).open(folder.join(format!("{PREFIX}{first:020}{SUFFIX}")))?;
    // The name is only durable when the folder is.
    File::open(folder)?.sync_all()?;
    Ok(file)
}

/// Reads `head.json`. `None`: there is none that can be read.
pub fn head(folder: &Path) -> Option<Head> {
    serde_json::from_slice(&std::fs::read(folder.join(HEAD)).ok()?).ok()
}

/// Writes `head.json`, whole or not at all: a log without one was damaged. Which one is there after a power failure is not certain: an older one is true as well.
///
/// # Errors
/// The file system's.
pub fn write_head(folder: &Path, head: &Head) -> std::io::Result<()> {
    let new = new_file(folder, HEAD, &serde_json::to_vec(head)?)?;
    File::open(&new)?.sync_all()?;
    std::fs::rename(&new, folder.join(HEAD))
}

/// The same, and on return it survives the end of the machine: before something is done that an older head would call damage.
///
/// # Errors
/// The file system's.
pub fn write_head_durably(folder: &Path, head: &Head) -> std::io::Result<()> {
    write_head(folder, head)?;
    File::open(folder)?.sync_all()
}

/// Writes a small file, whole or not at all, mode 0600.
///
/// # Errors
/// The file system's.
pub fn write_whole(folder: &Path, name: &str, content: &[u8]) -> std::io::Result<()> {
    std::fs::rename(new_file(folder, name, content)?, folder.join(name))
}

fn new_file(folder: &Path, name: &str, content: &[u8]) -> std::io::Result<PathBuf> {
    let new = folder.join(format!("{name}.new"));
    OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?.write_all(content)?;
    Ok(new)
}

/// The end of a log that was left as it was.
#[derive(Debug, Default)]
pub struct Tail {
    /// The last record; none: there is no record.
    pub link: Link,
    /// How many bytes of an unfinished line were cut off.
    pub torn: u64,
    /// The last line cannot be read, though it is whole. The chain begins anew behind it.
    pub damaged: bool,
    /// How many records at the end were there once and are not any more.
    pub missing: u64,
    /// The oldest record that should be there, and the oldest that is, where records at the beginning are not there any more.
    pub beginning: Option<(u64, u64)>,
    /// There are records, and nothing that says how many there were.
    pub headless: bool,
    /// How far the log had come, and where it begins: what should be there, as far as that is known.
    pub head: Head,
    /// Whether the last record says that the log was closed.
    pub closed: bool,
}

/// Looks at the end of the log, and cuts off a line that was not finished. Where the log had come further once, it goes on from there, so that the gap stays to be seen.
///
/// # Errors
/// The file system's.
pub fn heal(folder: &Path) -> std::io::Result<Tail> {
    let mut tail = end(folder)?;
    let oldest = files(folder)?.first().map(|file| file.first);
    if let Some(head) = head(folder) {
        if head.last > tail.link.index {
            tail.missing = head.last + 1 - head.first.max(tail.link.index + 1).min(head.last);
            tail.link = Link { index: head.last, hash: head.hash.clone() };
        }
        tail.beginning = oldest.filter(|oldest| *oldest > head.first.max(1)).map(|oldest| (head.first.max(1), oldest));
        tail.head = head;
    } else {
        tail.headless = oldest.is_some();
        tail.head = Head { first: oldest.unwrap_or(1), last: tail.link.index, hash: tail.link.hash.clone() };
        write_head_durably(folder, &tail.head)?;
    }
    Ok(tail)
}

fn end(folder: &Path) -> std::io::Result<Tail> {
    let mut tail = Tail::default();
    for (age, LogFile { path, first }) in files(folder)?.into_iter().rev().enumerate() {
        let mut file = OpenOptions::new().read(true).write(true).open(&path)?;
        if age == 0 {
            let (length, whole) = (file.metadata()?.len(), end_of_last_line(&mut file)?);
            if whole < length {
                tail.torn = length - whole;
                file.set_len(whole)?;
                file.sync_all()?;
            }
        }
        let Some(line) = lines_from_end(file)?.next() else {
            // Nothing was written into it yet: the record before stands in the file before.
            tail.link.index = tail.link.index.max(first.saturating_sub(1));
            continue;
        };
        match chain::read(&line?) {
            Ok((record, hash)) => {
                tail.closed = record.input == crate::CLOSED;
                tail.link = Link { index: record.index, hash };
            }
            Err(_) => {
                tail.damaged = true;
                // Numbers go on behind whatever may have been used.
                let lines = std::fs::read(&path)?.iter().filter(|byte| **byte == b'\n').count();
                tail.link = Link { index: (first + u64::try_from(lines).unwrap_or_default()).saturating_sub(1), hash: String::new() };
            }
        }
        return Ok(tail);
    }
    Ok(tail)
}

/// The lines of a file, the last first, without their newlines. A line without a newline at the end is left out: it is being written.
///
/// # Errors
/// The file system's.
pub fn lines_from_end(mut file: File) -> std::io::Result<LinesFromEnd> {
    let end = end_of_last_line(&mut file)?;
    Ok(LinesFromEnd { file, at: end, block: Vec::new() })
}

/// See [`lines_from_end`].
pub struct LinesFromEnd {
    file: File,
    /// Where the block begins in the file.
    at: u64,
    /// What was read and not given out yet; ends with a newline.
    block: Vec<u8>,
}

impl Iterator for LinesFromEnd {
    type Item = std::io::Result<Vec<u8>>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let body = self.block.len().saturating_sub(1);
            let newline = self.block.get(..body).and_then(|body| body.iter().rposition(|byte| *byte == b'\n'));
            if let Some(newline) = newline {
                let line = self.block.get(newline + 1..body).unwrap_or_default().to_vec();
                self.block.truncate(newline + 1);
                return Some(Ok(line));
            }
            if self.at == 0 {
                let whole = !self.block.is_empty();
                self.block.truncate(body);
                return whole.then(|| Ok(std::mem::take(&mut self.block)));
            }
            if let Err(error) = self.read_more() {
                self.at = 0;
                self.block.clear();
                return Some(Err(error));
            }
        }
    }
}

impl LinesFromEnd {
    fn read_more(&mut self) -> std::io::Result<()> {
        let start = self.at.saturating_sub(BLOCK as u64);
        let mut block = vec![0; usize::try_from(self.at - start).unwrap_or_default()];
        self.file.seek(SeekFrom::Start(start))?;
        self.file.read_exact(&mut block)?;
        block.append(&mut self.block);
        self.block = block;
        self.at = start;
        Ok(())
    }
}

/// Where the last line that has its newline ends.
fn end_of_last_line(file: &mut File) -> std::io::Result<u64> {
    let mut end = file.metadata()?.len();
    while end > 0 {
        let start = end.saturating_sub(BLOCK as u64);
        let mut block = vec![0; usize::try_from(end - start).unwrap_or_default()];
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(&mut block)?;
        if let Some(newline) = block.iter().rposition(|byte| *byte == b'\n') {
            return Ok(start + newline as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Application, Record, State};
    use std::os::unix::fs::PermissionsExt as _;

    fn written(folder: &Path, first: u64, mut link: Link, count: usize) -> Link {
        let mut out = Vec::new();
        for n in 0..count {
            let mut record = Record::new(Application::Http, State::Success, "x".repeat(n * 50));
            link = chain::append(&link, &mut record, &mut out).unwrap();
        }
        open(folder, first).unwrap().write_all(&out).unwrap();
        link
    }

    #[test]
    fn lines_are_read_backwards_over_blocks() {
        let folder = tempfile::tempdir().unwrap();
        written(folder.path(), 1, Link::default(), 100);
        let file = &files(folder.path()).unwrap()[0];
        assert_eq!(std::fs::metadata(&file.path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(std::fs::metadata(&file.path).unwrap().len() > 3 * BLOCK as u64);
        let indexes: Vec<u64> = lines_from_end(File::open(&file.path).unwrap()).unwrap().map(|line| chain::read(&line.unwrap()).unwrap().0.index).collect();
        assert_eq!(indexes, (1..=100).rev().collect::<Vec<_>>());
    }

    #[test]
    fn an_unfinished_line_is_cut_off_at_any_byte_and_the_chain_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let link = written(folder.path(), 1, Link::default(), 3);
        let path = files(folder.path()).unwrap()[0].path.clone();
        let whole = std::fs::read(&path).unwrap();
        written(folder.path(), 1, link.clone(), 1);
        let more = std::fs::read(&path).unwrap();
        for length in whole.len()..more.len() {
            std::fs::write(&path, &more[..length]).unwrap();
            let tail = heal(folder.path()).unwrap();
            assert_eq!((&tail.link, tail.torn, tail.damaged), (&link, (length - whole.len()) as u64, false));
            assert_eq!(std::fs::read(&path).unwrap(), whole);
        }
        // Also where a new file has nothing but the beginning of a line.
        std::fs::write(folder.path().join(format!("{PREFIX}{:020}{SUFFIX}", 4)), "{\"index\":4").unwrap();
        let tail = heal(folder.path()).unwrap();
        assert_eq!((tail.link, tail.torn), (link, 10));
    }

    #[test]
    fn a_last_line_that_is_damaged_is_left_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        written(folder.path(), 1, Link::default(), 3);
        let path = files(folder.path()).unwrap()[0].path.clone();
        let mut text = std::fs::read(&path).unwrap();
        let at = text.len() - 100;
        text[at] ^= 1;
        std::fs::write(&path, &text).unwrap();
        let tail = heal(folder.path()).unwrap();
        assert!(tail.damaged && tail.link.index >= 3 && tail.link.hash.is_empty());
        assert_eq!(std::fs::read(&path).unwrap(), text);
    }
}

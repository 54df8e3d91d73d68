//! Reading the log back: the newest records first, for those who ask; onwards from a record, for those who forward.

use crate::chain;
use crate::folder::{self, LinesFromEnd, LogFile};
use crate::record::Record;
use std::fs::File;
use std::io::{BufRead as _, BufReader, ErrorKind, Read, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

/// How many bytes are read at a time.
const BLOCK: u64 = 256 * 1024;

/// The records, the newest first, from `before` on downwards where it is given: those with a smaller index. What cannot be read is left out; [`crate::verify`] says what that is.
///
/// # Errors
/// The folder cannot be read.
pub fn newest_first(folder: &Path, before: Option<u64>) -> std::io::Result<NewestFirst> {
    let files = folder::files(folder)?;
    // Files that begin behind it hold nothing that is wanted.
    let files = files.into_iter().filter(|file| before.is_none_or(|before| file.first < before)).collect();
    Ok(NewestFirst { files, lines: None, before })
}

/// See [`newest_first`].
pub struct NewestFirst {
    files: Vec<LogFile>,
    lines: Option<LinesFromEnd>,
    before: Option<u64>,
}

impl Iterator for NewestFirst {
    type Item = Record;

    fn next(&mut self) -> Option<Record> {
        loop {
            let Some(lines) = &mut self.lines else {
                let file = self.files.pop()?;
                // One that was deleted meanwhile was the oldest.
                self.lines = File::open(file.path).and_then(folder::lines_from_end).ok();
                continue;
            };
            match lines.next() {
                None | Some(Err(_)) => self.lines = None,
                Some(Ok(line)) => {
                    if let Some(record) = chain::parse(&line).filter(|record| self.before.is_none_or(|before| record.index < before)) {
                        return Some(record);
                    }
                }
            }
        }
    }
}

/// A line of a log, for those who must know what they have not read.
#[derive(Debug)]
pub enum Line {
    /// A record, as the node has written it.
    Record(Box<Record>),
    /// A record, and not as the node has written it: its hash is not that of its content.
    Changed(Box<Record>),
    /// No record.
    Other,
}

/// How a record begins in its line.
const BEGIN: &[u8] = b"{\"index\":";
/// The longest line, in bytes; what is longer is no record, and is taken in parts.
const MOST_LINE: u64 = 1024 * 1024;

/// All lines of the log in a folder, the oldest first. Answers how many files there are.
///
/// # Errors
/// The file system's; one that was deleted meanwhile was the oldest, and is left out.
pub fn lines_of_folder(folder: &Path, mut take: impl FnMut(Line)) -> std::io::Result<usize> {
    let files = folder::files(folder)?;
    for file in &files {
        match lines_of_file(&file.path, &mut take) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            read => read?,
        }
    }
    Ok(files.len())
}

/// All lines of a file: of the log itself, or of a collector, with whatever it has put before a record.
///
/// # Errors
/// The file system's.
pub fn lines_of_file(path: &Path, mut take: impl FnMut(Line)) -> std::io::Result<()> {
    let mut reader = BufReader::new(File::open(path)?);
    let mut line = Vec::new();
    loop {
        line.clear();
        Read::by_ref(&mut reader).take(MOST_LINE).read_until(b'\n', &mut line)?;
        if line.is_empty() {
            return Ok(());
        }
        let text = line.trim_ascii();
        if text.is_empty() {
            continue;
        }
        let start = text.windows(BEGIN.len()).position(|window| window == BEGIN).unwrap_or_default();
        let text = text.get(start..).unwrap_or_default();
        take(match chain::read(text) {
            Ok((record, _)) => Line::Record(Box::new(record)),
            Err(_) => chain::parse(text).map_or(Line::Other, |record| Line::Changed(Box::new(record))),
        });
    }
}

/// Reads onwards, over files that are added and deleted meanwhile.
#[derive(Debug)]
pub struct Onwards {
    folder: PathBuf,
    /// The record that was read last.
    index: u64,
    /// Where it reads.
    at: Option<Place>,
}

#[derive(Debug)]
struct Place {
    file: LogFile,
    /// Where the next line begins.
    offset: u64,
    /// The number of the record in that line: in a file they are consecutive.
    number: u64,
}

impl Onwards {
    /// From behind the record with this index on.
    pub fn behind(folder: &Path, index: u64) -> Self {
        Self { folder: folder.to_owned(), index, at: None }
    }

    /// The record that was read last.
    pub fn index(&self) -> u64 {
        self.index
    }

    /// The next lines up to the record `last`, a block of them at the most, each with its index and without its newline. Empty: there are none yet.
    ///
    /// # Errors
    /// The file system's.
    pub fn next(&mut self, last: u64) -> std::io::Result<Vec<(u64, Vec<u8>)>> {
        while self.index < last {
            if self.at.is_none() && !self.enter()? {
                return Ok(Vec::new());
            }
            let Some(place) = &mut self.at else { return Ok(Vec::new()) };
            let block = match block(&place.file.path, place.offset) {
                Ok(block) => block,
                // It was deleted: the next one is entered where it begins.
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    self.at = None;
                    continue;
                }
                Err(error) => return Err(error),
            };
            let (mut found, start) = (Vec::new(), place.offset);
            for line in block.split_inclusive(|byte| *byte == b'\n') {
                let Some(text) = line.strip_suffix(b"\n") else { break };
                let number = place.number_of(text, last);
                if number.unwrap_or(place.number) > last {
                    // The next one is not to be read yet.
                    return Ok(found);
                }
                place.offset += line.len() as u64;
                place.number = number.unwrap_or(place.number) + 1;
                if let Some(number) = number.filter(|number| *number > self.index) {
                    self.index = number;
                    found.push((number, text.to_vec()));
                }
            }
            if !found.is_empty() {
                return Ok(found);
            }
            // Only where there is no further line in this file, what is missing stands in the next one, or comes.
            if place.offset == start && !self.leave()? {
                return Ok(Vec::new());
            }
        }
        Ok(Vec::new())
    }

    /// Finds the file in which the next record stands. `false`: there is none.
    fn enter(&mut self) -> std::io::Result<bool> {
        let files = folder::files(&self.folder)?;
        // The last one that begins no later than that record; where that was deleted, the first that is left.
        let at = files.iter().rposition(|file| file.first <= self.index + 1).unwrap_or(0);
        self.at = files.into_iter().nth(at).map(Place::start);
        Ok(self.at.is_some())
    }

    /// Goes on to the next file. `false`: there is none.
    fn leave(&mut self) -> std::io::Result<bool> {
        let Some(current) = &self.at else { return Ok(false) };
        let Some(next) = folder::files(&self.folder)?.into_iter().find(|file| file.first > current.file.first) else { return Ok(false) };
        // Now that there is a next one, nothing is added to this one. What came into it before that is read first.
        if !block(&current.file.path, current.offset).is_ok_and(|block| block.contains(&b'\n')) {
            self.at = Some(Place::start(next));
        }
        Ok(true)
    }
}

impl Place {
    fn start(file: LogFile) -> Self {
        Self { offset: 0, number: file.first, file }
    }

    /// The number of the record in the next line. A number that does not follow on the one before is believed where the line's hash says that it was written like that, and the
    /// log has come so far: then lines were taken away before it. Else the line is damaged: `None`.
    fn number_of(&self, line: &[u8], last: u64) -> Option<u64> {
        index_of(line).filter(|number| *number == self.number || (*number <= last && chain::read(line).is_ok()))
    }
}

/// The bytes from there on: as many as are read at a time, or as one line has.
fn block(path: &Path, offset: u64) -> std::io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(offset))?;
    let mut bytes = Vec::new();
    loop {
        let read = Read::by_ref(&mut file).take(BLOCK).read_to_end(&mut bytes)?;
        if read == 0 || bytes.contains(&b'\n') {
            return Ok(bytes);
        }
    }
}

/// The oldest record that there is.
pub fn oldest(folder: &Path) -> Option<u64> {
    folder::files(folder).ok()?.first().map(|file| file.first)
}

/// The index is the first member of a line: most lines need not be read whole for it.
fn index_of(line: &[u8]) -> Option<u64> {
    let rest = line.strip_prefix(b"{\"index\":")?;
    let end = rest.iter().position(|byte| !byte.is_ascii_digit())?;
    std::str::from_utf8(rest.get(..end)?).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::Link;
    use crate::record::{Application, State};
    use std::io::Write as _;

    /// Files of ten records each.
    fn written(folder: &Path, from: u64, to: u64, mut link: Link) -> Link {
        for index in from..=to {
            let mut out = Vec::new();
            link = chain::append(&link, &mut Record::new(Application::Http, State::Success, "x".repeat(30_000)), &mut out).unwrap();
            folder::open(folder, (index - 1) / 10 * 10 + 1).unwrap().write_all(&out).unwrap();
        }
        link
    }

    fn read(onwards: &mut Onwards, last: u64) -> Vec<u64> {
        let mut found = Vec::new();
        loop {
            let more = onwards.next(last).unwrap();
            if more.is_empty() {
                return found;
            }
            found.extend(more.iter().map(|(index, _)| *index));
        }
    }

    #[test]
    fn the_newest_come_first_and_files_that_are_too_new_are_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        written(folder.path(), 1, 35, Link::default());
        let indexes = |before| newest_first(folder.path(), before).unwrap().map(|record| record.index).collect::<Vec<_>>();
        assert_eq!(indexes(None), (1..=35).rev().collect::<Vec<_>>());
        assert_eq!(indexes(Some(21)), (1..=20).rev().collect::<Vec<_>>());
        assert_eq!(indexes(Some(1)), [0; 0]);
    }

    #[test]
    fn each_line_says_whether_it_is_a_record() {
        let folder = tempfile::tempdir().unwrap();
        written(folder.path(), 1, 12, Link::default());
        let counted = |path: &Path, is_folder: bool| {
            let mut counts = [0; 3];
            let take = |line| match line {
                Line::Record(_) => counts[0] += 1,
                Line::Changed(_) => counts[1] += 1,
                Line::Other => counts[2] += 1,
            };
            if is_folder {
                assert!(lines_of_folder(path, take).unwrap() > 0);
            } else {
                lines_of_file(path, take).unwrap();
            }
            counts
        };
        assert_eq!(counted(folder.path(), true), [12, 0, 0]);
        let path = folder::files(folder.path()).unwrap()[0].path.clone();
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        let changed = lines[1].replace("\"input\":\"x", "\"input\":\"y");
        let collected =
            format!("Nov 30 12:00:00 host keystead[7]: {}\r\n{{rsyslog}} {changed}\n\nhttp success: POST /api/svm/svms\n{}", lines[0], &lines[2][..50]);
        let file = folder.path().join("collected");
        std::fs::write(&file, collected).unwrap();
        assert_eq!(counted(&file, false), [1, 1, 2]);
    }

    #[test]
    fn reading_onwards_begins_behind_any_record_also_in_a_file_longer_than_a_block() {
        let folder = tempfile::tempdir().unwrap();
        written(folder.path(), 1, 25, Link::default());
        for behind in 0..25 {
            let mut onwards = Onwards::behind(folder.path(), behind);
            assert_eq!(read(&mut onwards, 25), (behind + 1..=25).collect::<Vec<_>>(), "behind {behind}");
        }
    }

    #[test]
    fn a_number_that_was_changed_stops_nobody_and_hides_no_other_record() {
        for (line, digits) in [(3, "9000"), (3, "7"), (3, "x"), (10, "11"), (12, "99"), (15, "16"), (15, "90")] {
            let folder = tempfile::tempdir().unwrap();
            let link = written(folder.path(), 1, 15, Link::default());
            let path = folder::files(folder.path()).unwrap()[usize::from(line > 10)].path.clone();
            let text = std::fs::read_to_string(&path).unwrap();
            std::fs::write(&path, text.replace(&format!("{{\"index\":{line},"), &format!("{{\"index\":{digits},"))).unwrap();
            let mut onwards = Onwards::behind(folder.path(), 0);
            assert_eq!(read(&mut onwards, 15), (1..=15).filter(|number| *number != line).collect::<Vec<_>>(), "{line} is {digits}");
            // It goes on with what comes.
            written(folder.path(), 16, 21, link);
            assert_eq!(read(&mut onwards, 21), (16..=21).collect::<Vec<_>>(), "{line} is {digits}");
        }
    }

    #[test]
    fn lines_that_were_taken_out_of_a_file_hide_no_other_record() {
        let folder = tempfile::tempdir().unwrap();
        written(folder.path(), 1, 12, Link::default());
        let path = folder::files(folder.path()).unwrap()[0].path.clone();
        let text = std::fs::read_to_string(&path).unwrap();
        let left: Vec<&str> = text.split_inclusive('\n').enumerate().filter(|(at, _)| !(2..5).contains(at)).map(|(_, line)| line).collect();
        std::fs::write(&path, left.concat()).unwrap();
        assert_eq!(read(&mut Onwards::behind(folder.path(), 0), 12), [1, 2, 6, 7, 8, 9, 10, 11, 12]);
    }

    #[test]
    fn reading_onwards_goes_over_files_and_over_what_was_deleted() {
        let folder = tempfile::tempdir().unwrap();
        let link = written(folder.path(), 1, 25, Link::default());
        let mut onwards = Onwards::behind(folder.path(), 3);
        assert_eq!(read(&mut onwards, 22), (4..=22).collect::<Vec<_>>(), "no further than it is told");
        assert_eq!(read(&mut onwards, 25), (23..=25).collect::<Vec<_>>());
        assert_eq!(read(&mut onwards, 99), [0; 0]);
        let link = written(folder.path(), 26, 48, link);
        let files = folder::files(folder.path()).unwrap();
        // Its own file and the one behind it are gone.
        for file in &files[..4] {
            std::fs::remove_file(&file.path).unwrap();
        }
        assert_eq!(read(&mut onwards, 48), (41..=48).collect::<Vec<_>>());
        assert_eq!((onwards.index(), oldest(folder.path()), link.index), (48, Some(41), 48));
        // A line that is being written comes when it is whole.
        let mut out = Vec::new();
        chain::append(&link, &mut Record::new(Application::Http, State::Success, "y"), &mut out).unwrap();
        let mut file = folder::open(folder.path(), 41).unwrap();
        file.write_all(&out[..20]).unwrap();
        assert_eq!(read(&mut onwards, 49), [0; 0]);
        file.write_all(&out[20..]).unwrap();
        assert_eq!(read(&mut onwards, 49), [49]);
    }
}

//! Two threads. One writes lines: what it has written survives the end of the process. The other (`syncer`) syncs, for all who wait at that moment together: then it survives the end of the machine. So nobody who waits for
//! the one waits for the other, and no thread of the runtime ever waits for a disk.

use crate::chain::{self, Link};
use crate::folder::{self, Tail};
use crate::queue::{Entry, Tell, Work};
use crate::record::{Application, Given, Record, State};
use crate::syncer::Written;
use crate::{CLOSED, Fault, Shared};
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Sender;
use std::time::Duration;

/// How often a disk that takes nothing is tried again.
pub const RETRY: Duration = Duration::from_millis(500);

/// Where the log is written to.
pub struct Place {
    /// The folder.
    pub folder: PathBuf,
    /// A file that has so many bytes is followed by another.
    pub max_file_size: u64,
    /// How many files are kept.
    pub files: usize,
}

/// The thread that writes.
pub struct Writer {
    shared: Arc<Shared>,
    place: Place,
    file: Option<Arc<File>>,
    /// The length of the file, as far as it holds whole lines.
    length: u64,
    link: Link,
    to_sync: Sender<Written>,
    /// Why nothing can be written, and since when; `None` where it can.
    failing: Option<(String, jiff::Timestamp)>,
}

impl Writer {
    /// A writer that goes on where the log has ended.
    pub fn new(shared: Arc<Shared>, place: Place, tail: &Tail, to_sync: Sender<Written>) -> Self {
        let link = tail.link.clone();
        let files = folder::files(&place.folder).unwrap_or_default();
        let mut writer = Self { shared, place, file: None, length: 0, link, to_sync, failing: None };
        // A file whose last line is damaged is left as it is.
        if let Some(last) = files.last().filter(|_| !tail.damaged && tail.missing == 0)
            && let Ok(file) = folder::open(&writer.place.folder, last.first)
        {
            writer.length = file.metadata().map_or(0, |metadata| metadata.len());
            writer.file = Some(Arc::new(file));
        }
        writer
    }

    /// Writes what comes until the log is closed.
    pub fn run(mut self) {
        loop {
            let work = self.shared.queue.next(self.failing.is_some().then_some(RETRY));
            let Work { sums, stopping, stop, .. } = work;
            self.shared.writing.begin();
            self.write_entries(work);
            if stopping && let Some((why, _)) = &self.failing {
                let tell = self.shared.queue.drain().into_iter().flat_map(|entry| [entry.written, entry.synced]).flatten();
                tell.for_each(|tell| drop(tell.send(Err(why.clone()))));
                return tracing::error!(why, "the audit log cannot be written at the end; what waited for it is lost");
            }
            if self.failing.is_none() && (sums || self.shared.sums_wait.swap(false, Ordering::Relaxed)) {
                self.write_sums();
            } else if sums {
                self.shared.sums_wait.store(true, Ordering::Relaxed);
            }
            if stop {
                let closed = Entry { records: vec![own(State::Success, CLOSED, None)], kept: false, written: None, synced: None };
                self.write_entries(Work { entries: vec![closed], ..Work::default() });
                self.shared.writing.end();
                return;
            }
            self.shared.writing.end();
        }
    }

    fn write_entries(&mut self, mut work: Work) {
        // What begins and has nobody who waits for it any more does not begin.
        let gone = |entry: &mut Entry| !entry.kept && entry.written.as_ref().is_some_and(Tell::is_closed);
        let gone: usize = work.entries.extract_if(.., gone).map(|entry| entry.records.len()).sum();
        self.shared.lose(gone);
        let lost = self.shared.lost.load(Ordering::Relaxed);
        let mut records: Vec<Record> = self.of_the_time_before(lost);
        let told = records.len();
        if work.entries.is_empty() && told == 0 && self.failing.is_none() {
            return;
        }
        records.extend(work.entries.iter().flat_map(|entry| entry.records.iter().cloned()));
        let mut synced = Vec::new();
        let (mut written, mut put_back) = (Vec::new(), Vec::new());
        match self.append(records) {
            Ok(()) => {
                self.shared.lost.fetch_sub(lost, Ordering::Relaxed);
                self.recovered();
                for entry in work.entries {
                    written.extend(entry.written);
                    synced.extend(entry.synced);
                }
                self.sync(synced);
                written.into_iter().for_each(|tell| drop(tell.send(Ok(()))));
            }
            Err(why) => {
                // Before those who wait hear of it: what they see afterwards is that.
                self.failed(why.clone());
                for mut entry in work.entries {
                    let tell = [entry.written.take(), entry.synced.take()];
                    if entry.kept {
                        put_back.push(entry)
                    } else {
                        self.shared.lose(entry.records.len())
                    }
                    tell.into_iter().flatten().for_each(|tell| drop(tell.send(Err(why.clone()))));
                }
                let lost = self.shared.queue.put_back(put_back);
                self.shared.lose(lost);
            }
        }
    }

    /// Writes the sums, a map at a time; what cannot be written goes on being counted.
    fn write_sums(&mut self) {
        for sums in [&self.shared.sums, &self.shared.refusals, &self.shared.denials].map(Arc::clone) {
            for shard in 0..sums.shards() {
                let taken = sums.take(shard);
                if taken.is_empty() {
                    continue;
                }
                let mut records: Vec<Record> = taken.values().map(crate::sums::Sum::record).collect();
                records.sort_by_key(|record| record.since);
                match self.append(records) {
                    Ok(()) => self.sync(Vec::new()),
                    Err(why) => {
                        let lost = sums.put_back(shard, taken);
                        self.shared.lose(usize::try_from(lost).unwrap_or(usize::MAX));
                        self.shared.sums_wait.store(true, Ordering::Relaxed);
                        return self.failed(why);
                    }
                }
            }
        }
    }

    /// Appends records, all of them or none.
    fn append(&mut self, records: Vec<Record>) -> Result<(), String> {
        if records.is_empty() {
            return Ok(());
        }
        let (mut bytes, mut link) = (Vec::new(), self.link.clone());
        for mut record in records {
            record.time = if record.time == jiff::Timestamp::UNIX_EPOCH { (self.shared.now)() } else { record.time };
            record.node.clone_from(&self.shared.node);
            link = chain::append(&link, &mut record, &mut bytes).map_err(|error| error.to_string())?;
        }
        let file = self.file().map_err(|error| format!("{}: {error}", self.place.folder.display()))?;
        if let Err(error) = self.shared.disk.write(&file, &bytes) {
            // What was written of it must not stand before the next line.
            let _ = file.set_len(self.length);
            return Err(format!("{}: {error}", self.place.folder.display()));
        }
        self.length += bytes.len() as u64;
        self.link = link;
        self.shared.written.send_replace(self.link.index);
        Ok(())
    }

    /// The file to write to: another one where this one is long enough.
    fn file(&mut self) -> std::io::Result<Arc<File>> {
        if let Some(file) = self.file.as_ref().filter(|_| self.length < self.place.max_file_size) {
            return Ok(Arc::clone(file));
        }
        if let Some(old) = &self.file {
            self.shared.disk.sync(old)?;
        }
        let next = Arc::new(folder::open(&self.place.folder, self.link.index + 1)?);
        self.length = next.metadata()?.len();
        self.file = Some(Arc::clone(&next));
        self.delete_old();
        Ok(next)
    }

    /// Deletes the files that are too many, the oldest first. Before that, `head.json` says that they are.
    fn delete_old(&mut self) {
        let Ok(files) = folder::files(&self.place.folder) else { return };
        let old = files.len().saturating_sub(self.place.files);
        let Some(first) = files.get(old).map(|file| file.first).filter(|_| old > 0) else { return };
        if self.shared.note_first(&self.place.folder, first).is_err() {
            return;
        }
        for file in files.into_iter().take(old) {
            if let Err(error) = std::fs::remove_file(&file.path) {
                tracing::warn!(%error, file = %file.path.display(), "an old file of the audit log cannot be deleted");
            }
        }
    }

    fn sync(&self, tell: Vec<Tell>) {
        if let Some(file) = &self.file {
            let _ = self.to_sync.send(Written { file: Arc::clone(file), link: self.link.clone(), tell });
        }
    }

    /// What has to be told first: that the log could not be written, and how much is missing from it.
    fn of_the_time_before(&self, lost: u64) -> Vec<Record> {
        let message = match (&self.failing, lost) {
            (None, 0) => return Vec::new(),
            (None, lost) => format!("{lost} records were lost: there was no room for them, or the disk did not answer in time"),
            (Some((why, _)), lost) => format!("the audit log could not be written: {why}; {lost} records were lost"),
        };
        let mut record = own(State::Error, crate::LOST, Some(message));
        record.count = Some(lost);
        record.since = self.failing.as_ref().map(|(_, since)| *since);
        vec![record]
    }

    fn failed(&mut self, why: String) {
        if self.failing.is_none() {
            tracing::error!(why, "the audit log cannot be written: what changes something is refused until it can");
        }
        self.shared.set_fault(Fault::Write, Some(why.clone()));
        let since = self.failing.take().map_or_else(|| (self.shared.now)(), |(_, since)| since);
        self.failing = Some((why, since));
    }

    fn recovered(&mut self) {
        if self.failing.take().is_some() {
            tracing::info!("the audit log can be written again");
            self.shared.set_fault(Fault::Write, None);
        }
    }
}

/// A record of the log's own.
pub fn own(state: State, input: &str, message: Option<String>) -> Record {
    let mut record = Record::new(Application::Audit, state, input);
    record.message = message;
    record
}

/// The records that a log begins with: that it was opened, and what was found.
pub fn opening(tail: &Tail, version: &str) -> Vec<Record> {
    let mut records = Vec::new();
    if tail.torn > 0 {
        let message = format!("{} bytes of a record that was not finished were cut off: the node had not ended by itself", tail.torn);
        records.push(own(State::Error, crate::HEALED, Some(message)));
    }
    let mut damaged = |message: String| records.push(own(State::Error, crate::DAMAGED, Some(message)));
    if tail.headless {
        damaged("head.json was missing or could not be read: whether records were taken away at the beginning or at the end cannot be told".to_owned());
    }
    if let Some((should, is)) = tail.beginning {
        damaged(format!("the log should begin with record {should}, and begins with {is}: {} records were taken away", is - should));
    }
    if tail.missing > 0 {
        damaged(format!("{} records at the end were there once and are not any more: they were taken away", tail.missing));
    }
    if tail.damaged {
        damaged("the last record cannot be read; the chain begins anew here".to_owned());
    }
    let message = match (tail.link.index, tail.closed) {
        (0, _) => "a new log".to_owned(),
        (_, true) => "the log was closed before".to_owned(),
        (_, false) => "the log was not closed before: what was counted and not written yet is missing from it".to_owned(),
    };
    let mut opened = own(State::Success, crate::OPENED, Some(message));
    opened.fields.push(Given { name: "version".to_owned(), value: Some(version.to_owned()) });
    records.push(opened);
    records
}

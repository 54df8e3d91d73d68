//! The thread that syncs what the other one has written, for all who wait at that moment together, and notes in `head.json` how far the log has come.

use crate::chain::Link;
use crate::queue::{Entry, Tell};
use crate::record::State;
use crate::writer::{RETRY, own};
use crate::{Fault, Shared};
use jiff::Timestamp;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

/// How long what nobody waits for may stay unsynced, and how often `head.json` is written at the most.
const UNSYNCED: Duration = Duration::from_secs(1);

/// What was written.
pub struct Written {
    /// Into which file.
    pub file: Arc<File>,
    /// The last of it.
    pub link: Link,
    /// Who waits for it to be synced.
    pub tell: Vec<Tell>,
}

/// The thread that syncs.
pub struct Syncer {
    shared: Arc<Shared>,
    folder: PathBuf,
    /// What is to be synced, and when at the latest.
    waiting: Option<(Written, Instant)>,
    /// What was synced and is not in `head.json` yet, and when that is to be written.
    head: Option<(Link, Instant)>,
    head_written: Option<Instant>,
    /// The last record that is certainly on disk.
    synced: u64,
    failing: Option<Failing>,
}

/// Syncing fails.
struct Failing {
    why: String,
    since: Timestamp,
    /// The last record that was to be synced then.
    last: u64,
}

impl Syncer {
    /// One for the log in this folder.
    pub fn new(shared: Arc<Shared>, folder: PathBuf) -> Self {
        let synced = *shared.written.borrow();
        Self { shared, folder, waiting: None, head: None, head_written: None, synced, failing: None }
    }

    /// Syncs what comes until there is no writer any more.
    pub fn run(mut self, written: &Receiver<Written>) {
        loop {
            let next = match self.due() {
                None => written.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(due) => written.recv_timeout(due.saturating_duration_since(Instant::now())),
            };
            let ended = matches!(next, Err(RecvTimeoutError::Disconnected));
            if let Ok(newer) = next {
                self.add(newer);
                // All that has come by now is synced together.
                while let Ok(newer) = written.try_recv() {
                    self.add(newer);
                }
            }
            let now = Instant::now();
            if self.waiting.as_ref().is_some_and(|(one, due)| ended || !one.tell.is_empty() || *due <= now) {
                self.sync();
            }
            if self.head.as_ref().is_some_and(|(_, due)| ended || *due <= now) {
                self.note_head();
            }
            if ended {
                return;
            }
        }
    }

    fn add(&mut self, mut newer: Written) {
        let mut due = Instant::now() + UNSYNCED;
        if let Some((older, at)) = self.waiting.take() {
            if Arc::ptr_eq(&older.file, &newer.file) {
                newer.tell.extend(older.tell);
                due = at;
            } else {
                // The writer has synced it before it left it.
                older.tell.into_iter().for_each(|tell| drop(tell.send(Ok(()))));
            }
        }
        self.waiting = Some((newer, due));
    }

    /// When there is something to do, whatever comes.
    fn due(&self) -> Option<Instant> {
        self.waiting.as_ref().map(|(_, due)| *due).into_iter().chain(self.head.as_ref().map(|(_, due)| *due)).min()
    }

    fn sync(&mut self) {
        let Some((mut one, _)) = self.waiting.take() else { return };
        self.shared.syncing.begin();
        let result = self.shared.disk.sync(&one.file).map_err(|error| format!("{}: {error}", self.folder.display()));
        self.shared.syncing.end();
        let tell = std::mem::take(&mut one.tell);
        match &result {
            Ok(()) => {
                self.recovered();
                self.synced = one.link.index;
                let now = Instant::now();
                let due = self.head.take().map_or_else(|| self.head_written.map_or(now, |at| now.max(at + UNSYNCED)), |(_, due)| due);
                self.head = Some((one.link, due));
            }
            Err(why) => {
                self.failed(why.clone(), one.link.index);
                self.waiting = Some((one, Instant::now() + RETRY));
            }
        }
        // After that: what those who wait see then is how it is.
        tell.into_iter().for_each(|tell| drop(tell.send(result.clone())));
    }

    fn failed(&mut self, why: String, last: u64) {
        if self.failing.is_none() {
            tracing::error!(why, "the audit log cannot be synced: what changes something is refused until it can");
        }
        self.shared.set_fault(Fault::Sync, Some(why.clone()));
        let since = self.failing.take().map_or_else(|| (self.shared.now)(), |failing| failing.since);
        // Until it succeeds, nothing of this is certain, nor what was before it.
        self.failing = Some(Failing { why, since, last });
    }

    /// A sync that succeeds after one that has failed says nothing of what the failed one should have kept: the kernel may have thrown that away (fsync(2)).
    fn recovered(&mut self) {
        let Some(Failing { why, since, last }) = self.failing.take() else { return };
        tracing::info!("the audit log can be synced again");
        self.shared.set_fault(Fault::Sync, None);
        let count = last.saturating_sub(self.synced);
        let message = format!("the audit log could not be synced: {why}; the {count} records up to number {last} may be missing from the disk");
        let mut record = own(State::Error, crate::LOST, Some(message));
        (record.count, record.since) = (Some(count), Some(since));
        let entry = Entry { records: vec![record], kept: true, written: None, synced: None };
        if !self.shared.queue.push(entry) {
            self.shared.lose(1);
        }
    }

    fn note_head(&mut self) {
        let Some((link, _)) = self.head.take() else { return };
        let now = Instant::now();
        self.head_written = Some(now);
        // Where the disk is full, an older one is true as well.
        if self.shared.note_head(&self.folder, &link).is_err() {
            self.head = Some((link, now + UNSYNCED));
        }
    }
}

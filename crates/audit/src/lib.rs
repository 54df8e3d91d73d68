//! The audit log of a node: who did what, from where, and what came of it; kept so that what was changed in it afterwards is seen.
//!
//! [`Audit`] is a cheap handle. What changes something is recorded before it is done ([`Audit::begin`]) and when it has ended ([`Begun::end`]); what is done often is counted, and written as a sum
//! ([`Audit::count`]). Lines are JSON, chained by hashes (`chain`), in files of a folder (`folder`), written and synced by two threads (`writer`). [`read`] reads them back, [`verify`] checks them,
//! [`forward`] brings them to a syslog collector. Nothing here knows HTTP, KMIP or the key manager.

mod acknowledged;
pub mod chain;
pub mod disk;
mod folder;
pub mod forward;
mod metrics;
mod queue;
pub mod read;
mod record;
pub mod sums;
mod syncer;
pub mod syslog;
pub mod verify;
mod writer;

pub use record::{Application, Certificate, Given, Named, Record, State};
pub use sums::Key;

use crate::chain::Link;
use crate::disk::Disk;
use crate::folder::Head;
use crate::queue::{Entry, Queue};
use crate::sums::{Counted, Sums};
use crate::writer::{Place, Writer};
use aws_lc_rs::digest::{SHA256, digest};
use jiff::Timestamp;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{oneshot, watch};
use uuid::Uuid;

/// The inputs of the log's own records.
pub const OPENED: &str = "audit log opened";
/// The last record of a process that ended by itself.
pub const CLOSED: &str = "audit log closed";
/// Something is missing; `count` says how many records.
pub const LOST: &str = "audit records lost";
/// An unfinished record was cut off.
pub const HEALED: &str = "audit log healed";
/// The chain begins anew.
pub const DAMAGED: &str = "audit log damaged";
/// The collector will not get some records; `count` says how many.
pub const NOT_FORWARDED: &str = "audit records not forwarded";

/// How many sums there are at the most: so many maps of so many.
const SUMS: (usize, usize) = (16, 1_024);
/// How many sums of refusals of strangers: anybody can be refused, as often as he likes, and must not fill the log.
const REFUSALS: usize = 256;
/// The same of those who are known, a client or an account: of all of them, and of one.
const DENIALS: (usize, usize) = (4_096, 64);
/// How long a write or a sync may take before the disk counts as stuck, for those who refuse then, and how long anybody waits for it.
const STUCK: Duration = Duration::from_secs(5);
/// How long a close waits for the disk.
const CLOSE: Duration = Duration::from_secs(10);

/// What a log is made from.
pub struct Options {
    /// The folder.
    pub folder: PathBuf,
    /// The node.
    pub node: Named,
    /// The program's version, for the record that a log begins with.
    pub version: String,
    /// A file that has so many bytes is followed by another.
    pub max_file_size: u64,
    /// How many files are kept, the newest.
    pub files: usize,
    /// Whether what cannot be recorded is refused, also where it only hands something out.
    pub strict: bool,
    /// The wall clock.
    pub now: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    /// The disk.
    pub disk: Arc<dyn Disk>,
}

/// How the log is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Status {
    /// Why it cannot be written; `None` where it can.
    pub unwritable: Option<String>,
    /// Why the syslog collector does not take records; `None` where it does, or there is none.
    pub collector_away: Option<String>,
}

/// The log of this node. Cheap to clone.
#[derive(Clone)]
pub struct Audit {
    shared: Arc<Shared>,
}

/// What all parts share.
pub(crate) struct Shared {
    folder: PathBuf,
    node: Named,
    strict: bool,
    now: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    disk: Arc<dyn Disk>,
    queue: Queue,
    sums: Arc<Sums>,
    refusals: Arc<Sums>,
    denials: Arc<Sums>,
    /// Whether sums are due that could not be written yet.
    sums_wait: AtomicBool,
    /// How many records were lost and not told of yet.
    lost: AtomicU64,
    /// How many in all since the start.
    lost_ever: AtomicU64,
    /// Up to which record the syslog collector has them, where there is one.
    collector: OnceLock<AtomicU64>,
    failing: AtomicBool,
    /// Why writing and syncing fail, where they do.
    faults: Mutex<[Option<String>; 2]>,
    /// The write that is under way.
    writing: Underway,
    /// The sync that is under way.
    syncing: Underway,
    written: watch::Sender<u64>,
    status: watch::Sender<Status>,
    head: Mutex<Head>,
    threads: Mutex<Vec<std::thread::JoinHandle<()>>>,
    /// A turn for reading: it costs time and memory.
    reads: Arc<tokio::sync::Semaphore>,
}

/// Something that a disk is asked to do, and since when.
pub(crate) struct Underway {
    start: Instant,
    /// In milliseconds since `start`, and one more; 0: nothing is under way.
    since: AtomicU64,
}

/// What fails.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fault {
    Write,
    Sync,
}

/// Something could not be recorded, and so must not be done. The disk's own words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unrecorded(pub String);

impl std::fmt::Display for Unrecorded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unrecorded {}

/// Something that has begun, and stands in the log as that.
pub struct Begun {
    synced: oneshot::Receiver<Result<(), String>>,
    until: tokio::time::Instant,
}

impl Audit {
    /// Opens the log of a folder, or makes it: cuts off a record that was not finished, and says so.
    ///
    /// # Errors
    /// One line: the folder cannot be read or written.
    pub fn open(options: Options) -> Result<Self, String> {
        let cannot = |error: std::io::Error| format!("the audit log in {} cannot be opened: {error}", options.folder.display());
        folder::make(&options.folder).map_err(cannot)?;
        let tail = folder::heal(&options.folder).map_err(cannot)?;
        let shared = Arc::new(Shared {
            folder: options.folder.clone(),
            node: options.node,
            strict: options.strict,
            now: options.now,
            disk: options.disk,
            queue: Queue::default(),
            sums: Arc::new(Sums::new(SUMS.0, SUMS.1)),
            refusals: Arc::new(Sums::new(1, REFUSALS)),
            denials: Arc::new(Sums::shared(DENIALS.0, DENIALS.1)),
            sums_wait: AtomicBool::new(false),
            lost: AtomicU64::new(0),
            lost_ever: AtomicU64::new(0),
            collector: OnceLock::new(),
            failing: AtomicBool::new(false),
            faults: Mutex::default(),
            writing: Underway::default(),
            syncing: Underway::default(),
            written: watch::channel(tail.link.index).0,
            status: watch::channel(Status::default()).0,
            head: Mutex::new(tail.head.clone()),
            threads: Mutex::default(),
            reads: Arc::new(tokio::sync::Semaphore::new(1)),
        });
        let place = Place { folder: options.folder.clone(), max_file_size: options.max_file_size, files: options.files.max(1) };
        let (to_sync, written) = std::sync::mpsc::channel();
        let writer = Writer::new(Arc::clone(&shared), place, &tail, to_sync);
        let (syncing, folder) = (Arc::clone(&shared), options.folder);
        let spawn =
            |name: &str, work: Box<dyn FnOnce() + Send>| std::thread::Builder::new().name(name.to_owned()).spawn(work).map_err(|error| error.to_string());
        let threads = vec![
            spawn("audit-write", Box::new(move || writer.run()))?,
            spawn("audit-sync", Box::new(move || syncer::Syncer::new(syncing, folder).run(&written)))?,
        ];
        *shared.threads.lock().unwrap_or_else(PoisonError::into_inner) = threads;
        let audit = Self { shared };
        for record in writer::opening(&tail, &options.version) {
            audit.note(record);
        }
        Ok(audit)
    }

    /// Records that something begins. On return, the record survives the end of this process; [`Begun::synced`] waits until it survives the end of the machine.
    ///
    /// # Errors
    /// The log cannot be written, or the disk has not answered for five seconds, for both waits together: then nothing must begin.
    pub async fn begin(&self, records: Vec<Record>) -> Result<Begun, Unrecorded> {
        self.shared.answers().inspect_err(|_| self.shared.lose(records.len()))?;
        let until = tokio::time::Instant::now() + STUCK;
        let (written, wait) = oneshot::channel();
        let (tell, synced) = oneshot::channel();
        let entry = Entry { records: self.timed(records), kept: false, written: Some(written), synced: Some(tell) };
        if !self.shared.queue.push(entry) {
            return Err(Unrecorded("the node is being stopped".to_owned()));
        }
        told(wait, until).await?;
        Ok(Begun { synced, until })
    }

    /// Records how something has ended. On return, the record survives the end of this process; where the log cannot be written, or the disk has not
    /// answered for five seconds, it waits for a better time, within a bound.
    pub async fn end(&self, records: Vec<Record>) {
        let (written, wait) = oneshot::channel();
        let count = records.len();
        let entry = Entry { records: self.timed(records), kept: true, written: Some(written), synced: None };
        if self.shared.queue.push(entry) {
            let _ = tokio::time::timeout(STUCK, wait).await;
        } else {
            self.shared.lose(count);
        }
    }

    /// The same, and on return it survives the end of the machine, where the log can be written.
    pub async fn end_durably(&self, records: Vec<Record>) {
        let (tell, wait) = oneshot::channel();
        let count = records.len();
        let entry = Entry { records: self.timed(records), kept: true, written: None, synced: Some(tell) };
        if self.shared.queue.push(entry) {
            let _ = tokio::time::timeout(STUCK, wait).await;
        } else {
            self.shared.lose(count);
        }
    }

    /// Records something without waiting for anything.
    pub fn note(&self, record: Record) {
        let entry = Entry { records: self.timed(vec![record]), kept: true, written: None, synced: None };
        if !self.shared.queue.push(entry) {
            self.shared.lose(1);
        }
    }

    /// Counts something that is done often; `make` is called for the first of a kind in an interval alone. Never waits.
    ///
    /// # Errors
    /// In strict mode: it cannot be recorded, now or as far as can be foreseen, and must not be done.
    pub fn count(&self, key: Key, make: impl FnOnce() -> Record) -> Result<(), Unrecorded> {
        let shared = &self.shared;
        match shared.sums.count(key, (shared.now)(), make) {
            Counted::Yes => {}
            Counted::Soon => shared.queue.want_sums(),
            Counted::No => {
                shared.lose(1);
                shared.queue.want_sums();
                if shared.strict {
                    return Err(Unrecorded("too much is waiting to be written into the audit log".to_owned()));
                }
            }
        }
        if shared.strict { self.strictly() } else { Ok(()) }
    }

    /// Counts a refusal: of a stranger (a login, a handshake), or of somebody who is known, by a number for him ([`actor`]). There is a bound on the kinds of them in an interval, since nobody needs a
    /// permission to be refused, and a smaller one on those of one actor, so that nobody hides what others were refused. `rest` makes the record of all further kinds: where it gets `true`, of that
    /// actor's, else of all.
    pub fn count_refusal(&self, known: Option<u128>, key: Key, make: impl FnOnce() -> Record, rest: impl Fn(bool) -> Record) {
        let now = (self.shared.now)();
        let refusals = if known.is_some() { &self.shared.denials } else { &self.shared.refusals };
        if refusals.count_of(known, key, now, make) == Counted::No {
            refusals.count_rest(known, now, rest);
        }
    }

    /// Whether what is done now could be recorded, as far as it is known without waiting.
    ///
    /// # Errors
    /// Why not.
    pub fn strictly(&self) -> Result<(), Unrecorded> {
        let shared = &self.shared;
        if shared.failing.load(Ordering::Acquire) {
            let why = shared.status.borrow().unwritable.clone();
            return Err(Unrecorded(why.unwrap_or_else(|| "the disk takes nothing".to_owned())));
        }
        shared.answers()
    }

    /// Whether what cannot be recorded is refused.
    pub fn is_strict(&self) -> bool {
        self.shared.strict
    }

    /// Has what was counted written.
    pub fn write_sums(&self) {
        self.shared.queue.want_sums();
    }

    /// How the log is, and every change of that.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.shared.status.subscribe()
    }

    /// The index of the newest record, and every change of that.
    pub fn newest(&self) -> watch::Receiver<u64> {
        self.shared.written.subscribe()
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.shared.folder
    }

    /// The node.
    pub fn node(&self) -> &Named {
        &self.shared.node
    }

    /// A turn for reading the log.
    pub async fn turn(&self) -> Option<tokio::sync::OwnedSemaphorePermit> {
        Arc::clone(&self.shared.reads).acquire_owned().await.ok()
    }

    /// Writes what waits, and closes the log. A disk that does not answer is not waited for long.
    pub async fn close(&self) {
        self.shared.queue.stop();
        let threads = std::mem::take(&mut *self.shared.threads.lock().unwrap_or_else(PoisonError::into_inner));
        let joined = tokio::task::spawn_blocking(move || threads.into_iter().for_each(|thread| drop(thread.join())));
        if tokio::time::timeout(CLOSE, joined).await.is_err() {
            tracing::error!("the disk of the audit log does not answer; what waited for it is lost");
        }
    }

    pub(crate) fn set_collector(&self, away: Option<String>) {
        self.shared.status.send_if_modified(|status| {
            let changed = status.collector_away.is_some() != away.is_some();
            status.collector_away = away;
            changed
        });
    }

    /// Notes up to which record the collector has them.
    pub(crate) fn set_delivered(&self, index: u64) {
        self.shared.collector.get_or_init(AtomicU64::default).store(index, Ordering::Relaxed);
    }

    fn timed(&self, records: Vec<Record>) -> Vec<Record> {
        let now = (self.shared.now)();
        records.into_iter().map(|record| Record { time: now, ..record }.bounded()).collect()
    }
}

impl Begun {
    /// Waits until the record survives the end of the machine.
    ///
    /// # Errors
    /// The disk does not say so.
    pub async fn synced(self) -> Result<(), Unrecorded> {
        told(self.synced, self.until).await
    }
}

/// A number for whatever tells an actor from others: for [`Key::actor`].
pub fn actor(parts: &[&[u8]]) -> u128 {
    let mut text = Vec::new();
    for part in parts {
        text.extend_from_slice(&part.len().to_be_bytes());
        text.extend_from_slice(part);
    }
    let hash = digest(&SHA256, &text);
    Uuid::from_slice(hash.as_ref().get(..16).unwrap_or_default()).unwrap_or_default().as_u128()
}

impl Shared {
    fn lose(&self, count: usize) {
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        self.lost.fetch_add(count, Ordering::Relaxed);
        self.lost_ever.fetch_add(count, Ordering::Relaxed);
    }

    /// Whether the disk answers.
    fn answers(&self) -> Result<(), Unrecorded> {
        if self.writing.lasts() || self.syncing.lasts() { Err(Unrecorded(NO_ANSWER.to_owned())) } else { Ok(()) }
    }

    /// Notes that something fails, or does not any more. The log is as bad as the worse of the two.
    fn set_fault(&self, fault: Fault, why: Option<String>) {
        let mut faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        let [write, sync] = &mut *faults;
        match fault {
            Fault::Write => *write = why,
            Fault::Sync => *sync = why,
        }
        let why = write.clone().or_else(|| sync.clone());
        self.failing.store(why.is_some(), Ordering::Release);
        self.status.send_if_modified(|status| {
            let changed = status.unwritable.is_some() != why.is_some();
            status.unwritable = why;
            changed
        });
    }

    /// Notes in `head.json` how far the log has come; never less than it said before.
    fn note_head(&self, folder: &Path, link: &Link) -> std::io::Result<()> {
        let mut head = self.head.lock().unwrap_or_else(PoisonError::into_inner);
        if link.index >= head.last {
            (head.last, head.hash) = (link.index, link.hash.clone());
        }
        folder::write_head(folder, &head)
    }

    /// Notes in `head.json`, durably, that the node itself is about to delete the records before this one. Nothing else may say so.
    fn note_first(&self, folder: &Path, first: u64) -> std::io::Result<()> {
        let mut head = self.head.lock().unwrap_or_else(PoisonError::into_inner);
        head.first = head.first.max(first);
        folder::write_head_durably(folder, &head)
    }
}

impl Default for Underway {
    fn default() -> Self {
        Self { start: Instant::now(), since: AtomicU64::new(0) }
    }
}

impl Underway {
    fn milliseconds(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    pub(crate) fn begin(&self) {
        self.since.store(self.milliseconds() + 1, Ordering::Relaxed);
    }

    pub(crate) fn end(&self) {
        self.since.store(0, Ordering::Relaxed);
    }

    /// Whether it has lasted for too long.
    fn lasts(&self) -> bool {
        let since = self.since.load(Ordering::Relaxed);
        since > 0 && self.milliseconds().saturating_sub(since) > u64::try_from(STUCK.as_millis()).unwrap_or(u64::MAX)
    }
}

/// An identifier that stands in records alone, of a call or of a connection: it takes nothing from the sequence by which a test or a fuzz target knows objects.
pub fn new_id() -> Uuid {
    Uuid::new_v4()
}

const NO_ANSWER: &str = "the disk does not answer";

async fn told(wait: oneshot::Receiver<Result<(), String>>, until: tokio::time::Instant) -> Result<(), Unrecorded> {
    let told = tokio::time::timeout_at(until, wait).await.map_err(|_| Unrecorded(NO_ANSWER.to_owned()))?;
    told.map_err(|_| Unrecorded("the audit log is closed".to_owned()))?.map_err(Unrecorded)
}

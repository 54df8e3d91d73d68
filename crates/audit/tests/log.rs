//! The log as a whole: what it says after it was left, changed, filled up, or stuck.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use keystead_audit::disk::{Disk, RealDisk};
use keystead_audit::verify::{Report, verify};
use keystead_audit::{Application, Audit, Key, Named, Options, Record, State, read};
use keystead_metrics::{Format, Metrics};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// A disk that is good, full, or stuck, where it writes or where it syncs.
#[derive(Default)]
struct Moody {
    mood: AtomicU8,
    stuck: Mutex<bool>,
    stuck_sync: Mutex<bool>,
    moved: Condvar,
}

const FULL: u8 = 1;
/// It takes everything, and keeps nothing for certain.
const UNSYNCED: u8 = 2;

impl Moody {
    fn stick(&self, stuck: bool) {
        *self.stuck.lock().unwrap() = stuck;
        self.moved.notify_all();
    }

    fn stick_sync(&self, stuck: bool) {
        *self.stuck_sync.lock().unwrap() = stuck;
        self.moved.notify_all();
    }
}

impl Disk for Moody {
    fn write(&self, file: &File, bytes: &[u8]) -> std::io::Result<()> {
        drop(self.moved.wait_while(self.stuck.lock().unwrap(), |stuck| *stuck).unwrap());
        if self.mood.load(Ordering::SeqCst) == FULL {
            // As a real one: a part of it still finds room.
            RealDisk.write(file, &bytes[..bytes.len() / 2])?;
            return Err(std::io::Error::from(std::io::ErrorKind::StorageFull));
        }
        RealDisk.write(file, bytes)
    }

    fn sync(&self, file: &File) -> std::io::Result<()> {
        let stuck = self.stuck_sync.lock().unwrap();
        if *stuck {
            drop(self.moved.wait_while(stuck, |stuck| *stuck).unwrap());
        }
        if self.mood.load(Ordering::SeqCst) == UNSYNCED {
            return Err(std::io::Error::from(std::io::ErrorKind::StorageFull));
        }
        RealDisk.sync(file)
    }
}

struct Log {
    folder: Arc<tempfile::TempDir>,
    disk: Arc<Moody>,
    audit: Audit,
}

fn open(folder: &Arc<tempfile::TempDir>, change: impl FnOnce(&mut Options)) -> Log {
    let disk = Arc::new(Moody::default());
    let mut options = Options {
        folder: folder.path().join("audit"),
        node: Named { uuid: uuid::Uuid::from_u128(7), name: "n1".to_owned() },
        version: "0".to_owned(),
        max_file_size: 1 << 20,
        files: 4,
        strict: false,
        now: Arc::new(jiff::Timestamp::now),
        disk: disk.clone(),
    };
    change(&mut options);
    Log { folder: folder.clone(), disk, audit: Audit::open(options).unwrap() }
}

fn new() -> Log {
    open(&Arc::new(tempfile::tempdir().unwrap()), |_| {})
}

fn record(input: &str) -> Record {
    Record::new(Application::Http, State::Pending, input)
}

fn key(object: u128) -> Key {
    Key { actor: 1, object, what: 10, code: 0 }
}

impl Log {
    async fn write(&self, input: &str) -> Result<(), String> {
        let begun = self.audit.begin(vec![record(input)]).await.map_err(|why| why.0)?;
        begun.synced().await.map_err(|why| why.0)
    }

    fn verify(&self) -> Report {
        verify(self.audit.folder()).unwrap()
    }

    fn files(&self) -> Vec<PathBuf> {
        let mut files: Vec<_> = std::fs::read_dir(self.audit.folder()).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.retain(|path| path.extension().is_some_and(|extension| extension == "jsonl"));
        files.sort();
        files
    }

    /// All records, the oldest first.
    fn records(&self) -> Vec<Record> {
        let mut records: Vec<Record> = read::newest_first(self.audit.folder(), None).unwrap().collect();
        records.reverse();
        records
    }

    fn inputs(&self) -> Vec<String> {
        self.records().into_iter().map(|record| record.input).collect()
    }
}

/// What is done, where that must be seen, and the doing of it.
type Case<'c> = (&'static str, PathBuf, u64, Box<dyn Fn() + 'c>);

/// Lines of a file, with their newlines.
fn lines(path: &Path) -> Vec<Vec<u8>> {
    std::fs::read(path).unwrap().split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect()
}

#[tokio::test]
async fn what_was_written_is_read_back_and_the_chain_goes_on_after_a_restart() {
    let log = new();
    for n in 0..20 {
        log.write(&format!("call {n}")).await.unwrap();
    }
    log.audit.close().await;
    let log = open(&log.folder, |_| {});
    log.write("again").await.unwrap();
    let report = log.verify();
    assert_eq!((report.broken, report.notes, report.records), (None, Vec::new(), 24));
    let inputs = log.inputs();
    assert_eq!((inputs[0].as_str(), inputs[1].as_str(), inputs[21].as_str(), inputs[23].as_str()), ("audit log opened", "call 0", "audit log closed", "again"));
    assert_eq!(log.records()[22].message.as_deref(), Some("the log was closed before"));
}

#[tokio::test]
async fn what_waits_and_what_is_lost_shows_in_the_metrics() {
    let (log, metrics) = (new(), Metrics::default());
    metrics.register(log.audit.clone());
    let value = |name: &str| {
        let page = metrics.text(Format::Prometheus).unwrap();
        page.lines().find_map(|line| line.strip_prefix(&format!("keystead_audit_{name} ")).map(|value| value.parse::<f64>().unwrap()))
    };
    let until = async |name: &str, wanted: f64| {
        let reached = async {
            while value(name) != Some(wanted) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), reached).await.unwrap_or_else(|_| panic!("{name}: {:?}, not {wanted}", value(name)));
    };
    log.write("one").await.unwrap();
    for (name, wanted) in
        [("records_total", Some(2.0)), ("lost_records_total", Some(0.0)), ("writable", Some(1.0)), ("collector_up", None), ("forward_backlog_records", None)]
    {
        assert_eq!(value(name), wanted, "{name}");
    }
    log.disk.mood.store(FULL, Ordering::SeqCst);
    assert!(log.write("refused").await.is_err());
    assert_eq!(value("writable"), Some(0.0));
    log.disk.mood.store(0, Ordering::SeqCst);
    until("writable", 1.0).await;
    // The writer takes what there is and is stuck with it; what comes then waits, as long as there is room.
    log.disk.stick(true);
    log.audit.note(record("taken"));
    until("queue_records", 0.0).await;
    (0..10).for_each(|_| log.audit.note(record("waits")));
    assert_eq!(value("queue_records"), Some(10.0));
    let lost = value("lost_records_total").unwrap();
    (0..10_000).for_each(|_| log.audit.note(record("too many")));
    assert_eq!((value("queue_records"), value("lost_records_total")), (Some(10_000.0), Some(lost + 10.0)));
    log.disk.stick(false);
    until("queue_records", 0.0).await;
    assert_eq!(value("lost_records_total"), Some(lost + 10.0), "it is a counter");
}

#[tokio::test]
async fn whatever_is_done_to_the_files_is_seen_and_where() {
    let log = open(&Arc::new(tempfile::tempdir().unwrap()), |options| options.max_file_size = 4_096);
    for n in 0..80 {
        log.write(&format!("call {n}")).await.unwrap();
    }
    log.audit.close().await;
    assert_eq!(log.verify().broken, None);
    let files = log.files();
    assert_eq!(files.len(), 4, "the oldest files are deleted, and nobody misses them");
    let good: Vec<Vec<u8>> = files.iter().map(|file| std::fs::read(file).unwrap()).collect();
    let middle = lines(&files[1]);
    let cases: Vec<Case<'_>> = vec![
        (
            "a changed byte",
            files[1].clone(),
            2,
            Box::new(|| {
                let mut bytes = good[1].clone();
                bytes[middle[0].len() + 30] ^= 1;
                std::fs::write(&files[1], bytes).unwrap();
            }),
        ),
        (
            "a changed byte in the last line",
            files[3].clone(),
            lines(&files[3]).len() as u64,
            Box::new(|| {
                let mut bytes = good[3].clone();
                let at = bytes.len() - 150;
                bytes[at] ^= 1;
                std::fs::write(&files[3], bytes).unwrap();
            }),
        ),
        (
            "a removed line",
            files[1].clone(),
            2,
            Box::new(|| {
                std::fs::write(&files[1], [&middle[..1], &middle[2..]].concat().concat()).unwrap();
            }),
        ),
        (
            "a moved line",
            files[1].clone(),
            2,
            Box::new(|| {
                let mut moved = middle.clone();
                moved.swap(1, 2);
                std::fs::write(&files[1], moved.concat()).unwrap();
            }),
        ),
        ("a file from the middle", files[2].clone(), 1, Box::new(|| std::fs::remove_file(&files[1]).unwrap())),
        ("the oldest file", files[1].clone(), 1, Box::new(|| std::fs::remove_file(&files[0]).unwrap())),
        ("the newest file", files[2].clone(), 0, Box::new(|| std::fs::remove_file(&files[3]).unwrap())),
        (
            "the last line",
            files[3].clone(),
            0,
            Box::new(|| {
                let all = lines(&files[3]);
                std::fs::write(&files[3], all[..all.len() - 1].concat()).unwrap();
            }),
        ),
        (
            "a line of another log",
            files[1].clone(),
            2,
            Box::new(|| {
                let mut other = middle.clone();
                other[1] = lines(&files[2])[1].clone();
                std::fs::write(&files[1], other.concat()).unwrap();
            }),
        ),
    ];
    for (what, file, line, harm) in cases {
        harm();
        let broken = log.verify().broken.unwrap_or_else(|| panic!("{what} is not seen"));
        assert_eq!((&broken.file, broken.line), (&file, line), "{what}: {broken}");
        for (file, bytes) in files.iter().zip(&good) {
            std::fs::write(file, bytes).unwrap();
        }
        assert_eq!(log.verify().broken, None, "{what}");
    }

    // What was taken away before a start stays to be seen after it.
    let all = lines(&files[3]);
    std::fs::write(&files[3], all[..all.len() - 1].concat()).unwrap();
    let log = open(&log.folder, |_| {});
    for n in 0..9 {
        log.write(&format!("later {n}")).await.unwrap();
    }
    assert!(log.verify().broken.is_some());
    assert!(log.inputs().contains(&"audit log damaged".to_owned()));
}

#[tokio::test]
async fn what_was_taken_away_while_the_node_was_down_stays_to_be_seen_after_its_start() {
    let head = |log: &Log| log.audit.folder().join("head.json");
    type Harm = fn(&[PathBuf], &Path);
    let cases: [(&str, Harm); 5] = [
        ("the oldest file", |files, _| std::fs::remove_file(&files[0]).unwrap()),
        ("the two oldest files", |files, _| files[..2].iter().for_each(|file| std::fs::remove_file(file).unwrap())),
        ("all files", |files, _| files.iter().for_each(|file| std::fs::remove_file(file).unwrap())),
        ("the head", |_, head| std::fs::remove_file(head).unwrap()),
        ("the oldest file and the head", |files, head| [&files[0], head].into_iter().for_each(|file| std::fs::remove_file(file).unwrap())),
    ];
    for (what, harm) in cases {
        let log = open(&Arc::new(tempfile::tempdir().unwrap()), |options| options.max_file_size = 4_096);
        for n in 0..80 {
            log.write(&format!("call {n}")).await.unwrap();
        }
        log.audit.close().await;
        assert_eq!(log.verify().broken, None);
        harm(&log.files(), &head(&log));
        let log = open(&log.folder, |options| (options.max_file_size, options.files) = (1 << 20, 100));
        log.write("later").await.unwrap();
        assert!(log.inputs().contains(&"audit log damaged".to_owned()), "{what}");
        assert!(log.verify().broken.is_some(), "{what}");
        log.audit.close().await;
        // Nor does another start make it good.
        let log = open(&log.folder, |_| {});
        log.write("later").await.unwrap();
        log.audit.close().await;
        assert!(log.verify().broken.is_some(), "{what}");
    }
}

#[tokio::test]
async fn a_kill_at_any_time_is_no_damage() {
    // From the first file on there is a head.
    let log = new();
    log.write("one").await.unwrap();
    assert!(log.audit.folder().join("head.json").exists());
    // Also when nothing was written: as a kill right after the opening leaves it.
    let folder = Arc::new(tempfile::tempdir().unwrap());
    std::fs::create_dir(folder.path().join("audit")).unwrap();
    std::fs::write(folder.path().join("audit/head.json"), r#"{"first":1,"last":0,"hash":""}"#).unwrap();
    assert!(verify(&folder.path().join("audit")).is_err(), "there is no log yet");
    let log = open(&folder, |_| {});
    log.write("two").await.unwrap();
    log.audit.close().await;
    let report = log.verify();
    assert_eq!((report.broken, report.notes, log.inputs()[0].as_str()), (None, Vec::new(), "audit log opened"));
}

#[tokio::test]
async fn a_torn_end_is_healed_and_told() {
    let log = new();
    log.write("one").await.unwrap();
    log.audit.close().await;
    let file = &log.files()[0];
    let mut bytes = std::fs::read(file).unwrap();
    bytes.extend_from_slice(b"{\"index\":4,\"ti");
    std::fs::write(file, bytes).unwrap();
    assert_eq!(log.verify().broken, None, "it may be on its way");
    let log = open(&log.folder, |_| {});
    log.write("two").await.unwrap();
    let report = log.verify();
    assert!(report.broken.is_none() && report.notes.len() == 1 && report.notes[0].contains("14 bytes"), "{report:?}");
    let inputs = log.inputs();
    assert!(inputs.contains(&"audit log healed".to_owned()) && inputs.last().unwrap() == "two", "{inputs:?}");
}

#[tokio::test]
async fn a_full_disk_refuses_what_begins_and_keeps_what_ends_and_goes_on_by_itself() {
    let log = new();
    log.write("before").await.unwrap();
    let mut status = log.audit.status();
    log.disk.mood.store(FULL, Ordering::SeqCst);
    assert!(log.write("refused").await.unwrap_err().contains("no storage space"));
    assert!(status.wait_for(|status| status.unwritable.is_some()).await.is_ok());
    log.audit.end(vec![record("kept")]).await;
    for _ in 0..5 {
        log.audit.count(key(1), || record("counted")).unwrap();
    }
    log.audit.write_sums();
    assert!(log.write("refused").await.is_err());
    assert_eq!(log.verify().broken, None, "what was written in part is taken back");
    log.disk.mood.store(0, Ordering::SeqCst);
    // Nobody has to do anything.
    assert!(status.wait_for(|status| status.unwritable.is_none()).await.is_ok());
    log.write("after").await.unwrap();
    log.audit.close().await;
    let records = log.records();
    let inputs: Vec<&str> = records.iter().map(|record| record.input.as_str()).collect();
    assert_eq!(inputs[..4], ["audit log opened", "before", "audit records lost", "kept"]);
    assert!(records[2].message.as_ref().unwrap().contains("no storage space") && records[2].count == Some(2), "{:?}", records[2]);
    let counted = records.iter().find(|record| record.input == "counted").unwrap();
    assert_eq!(counted.count, Some(5), "what was counted meanwhile is not lost");
    assert!(!inputs.contains(&"refused"));
    let report = log.verify();
    assert!(report.broken.is_none() && report.notes.len() == 1, "{report:?}");
}

#[tokio::test]
async fn strict_refuses_what_cannot_be_recorded() {
    let log = open(&Arc::new(tempfile::tempdir().unwrap()), |options| options.strict = true);
    assert!(log.audit.count(key(1), || record("Get")).is_ok());
    log.disk.mood.store(FULL, Ordering::SeqCst);
    assert!(log.write("x").await.is_err());
    assert!(log.audit.count(key(1), || record("Get")).is_err());
    log.disk.mood.store(0, Ordering::SeqCst);
    log.audit.status().wait_for(|status| status.unwritable.is_none()).await.unwrap();
    assert!(log.audit.count(key(1), || record("Get")).is_ok());
}

#[tokio::test]
async fn a_stuck_disk_holds_up_nobody_who_counts_and_memory_is_bounded() {
    let log = open(&Arc::new(tempfile::tempdir().unwrap()), |options| options.max_file_size = 1 << 30);
    log.disk.stick(true);
    let begun = log.audit.begin(vec![record("waits")]);
    tokio::pin!(begun);
    assert!(futures_now(&mut begun).await, "it waits for the disk");
    for object in 0..100_000u128 {
        log.audit.count(key(object), || record("Get")).unwrap();
    }
    for n in 0..20_000 {
        log.audit.note(record(&format!("note {n}")));
    }
    log.disk.stick(false);
    begun.await.unwrap().synced().await.unwrap();
    log.audit.close().await;
    let records = log.records();
    let lost: u64 = records.iter().filter(|record| record.input == "audit records lost").filter_map(|record| record.count).sum();
    let counted: u64 = records.iter().filter(|record| record.input == "Get").filter_map(|record| record.count).sum();
    let notes = records.iter().filter(|record| record.input.starts_with("note")).count() as u64;
    assert_eq!(counted + notes + lost, 120_000, "each is recorded, or counted as lost: {counted} {notes} {lost}");
    assert!(lost > 0 && counted >= 10_000 && notes >= 9_000);
    assert_eq!(log.verify().broken, None);
}

/// Whether a future is not ready when it is asked once.
async fn futures_now<F: Future + Unpin>(future: &mut F) -> bool {
    let mut future = std::pin::Pin::new(future);
    std::future::poll_fn(|context| std::task::Poll::Ready(future.as_mut().poll(context).is_pending())).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_is_verified_while_it_is_written_and_files_go() {
    let log = Arc::new(open(&Arc::new(tempfile::tempdir().unwrap()), |options| options.max_file_size = 20_000));
    let writers: Vec<_> = (0..4)
        .map(|n| {
            let log = log.clone();
            tokio::spawn(async move {
                for m in 0..100 {
                    log.write(&format!("{n} {m}")).await.unwrap();
                }
            })
        })
        .collect();
    let mut checks = 0;
    while writers.iter().any(|writer| !writer.is_finished()) {
        let folder = log.audit.folder().to_owned();
        // While nothing is written yet there is no log.
        if let Ok(report) = tokio::task::spawn_blocking(move || verify(&folder)).await.unwrap() {
            assert_eq!(report.broken, None);
            checks += 1;
        }
    }
    assert!(checks > 0);
    log.audit.close().await;
    let report = log.verify();
    assert!(report.broken.is_none() && report.last.unwrap().0 == 402, "{report:?}");
}

#[tokio::test]
async fn a_disk_that_cannot_sync_is_a_disk_that_takes_nothing() {
    let log = open(&Arc::new(tempfile::tempdir().unwrap()), |options| options.strict = true);
    log.write("before").await.unwrap();
    let mut status = log.audit.status();
    log.disk.mood.store(UNSYNCED, Ordering::SeqCst);
    assert!(log.write("refused").await.unwrap_err().contains("no storage space"));
    assert!(status.borrow_and_update().unwritable.as_ref().unwrap().contains("no storage space"), "operators are told");
    assert!(log.audit.count(key(1), || record("Get")).is_err(), "strict");
    // A write that goes well does not say that all is well again.
    log.audit.end(vec![record("end")]).await;
    assert!(log.audit.count(key(1), || record("Get")).is_err(), "strict");
    log.disk.mood.store(0, Ordering::SeqCst);
    // Nobody has to do anything.
    tokio::time::timeout(Duration::from_secs(10), status.wait_for(|status| status.unwritable.is_none())).await.unwrap().unwrap();
    assert!(log.audit.count(key(1), || record("Get")).is_ok());
    log.write("after").await.unwrap();
    log.audit.close().await;
    let records = log.records();
    let lost = records.iter().find(|record| record.input == "audit records lost").unwrap();
    assert!(lost.message.as_ref().unwrap().contains("no storage space") && lost.since.is_some() && lost.count >= Some(1), "{lost:?}");
    assert_eq!(log.verify().broken, None);
}

#[tokio::test]
async fn a_sync_that_does_not_come_back_is_seen() {
    let log = open(&Arc::new(tempfile::tempdir().unwrap()), |options| options.strict = true);
    log.write("before").await.unwrap();
    log.disk.stick_sync(true);
    let start = Instant::now();
    assert_eq!(log.write("waits").await.unwrap_err(), "the disk does not answer");
    assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
    let seen = async {
        while log.audit.strictly().is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(3), seen).await.unwrap();
    // Nobody waits again for what is known.
    let start = Instant::now();
    assert!(log.write("refused").await.is_err() && start.elapsed() < Duration::from_secs(2));
    log.audit.end_durably(vec![record("kept")]).await;
    log.disk.stick_sync(false);
    let written = async { while log.write("after").await.is_err() {} };
    tokio::time::timeout(Duration::from_secs(5), written).await.unwrap();
    assert!(log.audit.strictly().is_ok());
    log.audit.close().await;
    assert!(log.inputs().contains(&"kept".to_owned()));
}

#[tokio::test]
async fn nobody_waits_for_a_stuck_disk_without_end_and_what_nobody_waits_for_is_not_written() {
    let log = new();
    log.write("before").await.unwrap();
    log.disk.stick(true);
    // Several that are abandoned by those who have asked.
    for n in 0..3 {
        let begin = log.audit.begin(vec![record(&format!("abandoned {n}"))]);
        assert!(tokio::time::timeout(Duration::from_millis(50), begin).await.is_err());
    }
    let start = Instant::now();
    let (begun, ()) = tokio::join!(log.audit.begin(vec![record("given up")]), log.audit.end_durably(vec![record("kept")]));
    assert!(begun.is_err() && start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
    log.disk.stick(false);
    let written = async { while log.write("after").await.is_err() {} };
    tokio::time::timeout(Duration::from_secs(5), written).await.unwrap();
    log.audit.close().await;
    let inputs = log.inputs();
    // The one that the disk was busy with stands there.
    for (input, there) in [("kept", true), ("abandoned 0", true), ("abandoned 1", false), ("abandoned 2", false), ("given up", false)] {
        assert_eq!(inputs.contains(&input.to_owned()), there, "{input}: {inputs:?}");
    }
    // Those three, and what was refused at once until the disk was back.
    let lost: u64 = log.records().iter().filter(|record| record.input == "audit records lost").filter_map(|record| record.count).sum();
    assert!(lost >= 3, "{lost}");
    assert_eq!(log.verify().broken, None);
}

#[tokio::test]
async fn the_head_follows_within_a_second_also_when_nothing_more_is_written() {
    let log = new();
    log.write("one").await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    log.write("two").await.unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    let file = &log.files()[0];
    let all = lines(file);
    std::fs::write(file, all[..all.len() - 1].concat()).unwrap();
    assert!(log.verify().broken.unwrap().why.contains("taken away"));
}

#[tokio::test]
async fn whoever_waits_at_the_end_is_told() {
    let log = new();
    log.write("before").await.unwrap();
    log.disk.stick(true);
    let begins: Vec<_> = (0..2_101)
        .map(|n| {
            let audit = log.audit.clone();
            tokio::spawn(async move { audit.begin(vec![record(&format!("pending {n}"))]).await.is_err() })
        })
        .collect();
    tokio::task::yield_now().await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    log.disk.mood.store(FULL, Ordering::SeqCst);
    let closing = log.audit.clone();
    let close = tokio::spawn(async move { closing.close().await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    log.disk.stick(false);
    let all = async {
        for begin in begins {
            assert!(begin.await.unwrap());
        }
    };
    tokio::time::timeout(Duration::from_secs(3), all).await.expect("each must be told");
    close.await.unwrap();
}

//! Forwarding, where the collector is away for longer than the log keeps its files.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use keystead_audit::disk::RealDisk;
use keystead_audit::forward::{Target, run};
use keystead_audit::syslog::Format;
use keystead_audit::{Application, Audit, NOT_FORWARDED, Named, Options, Record, State};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpSocket};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

fn open(folder: &Path, max_file_size: u64, files: usize) -> Audit {
    Audit::open(Options {
        folder: folder.join("audit"),
        node: Named::default(),
        version: "0".to_owned(),
        max_file_size,
        files,
        strict: false,
        now: Arc::new(jiff::Timestamp::now),
        disk: Arc::new(RealDisk),
    })
    .unwrap()
}

fn forward(audit: &Audit, listener: &TcpListener, stop: &CancellationToken) -> JoinHandle<()> {
    let target = Target { address: listener.local_addr().unwrap().to_string(), tls: None, format: Format::Json, version: "0".to_owned() };
    tokio::spawn(run(audit.clone(), target, stop.clone()))
}

/// A collector whose machine takes next to nothing before it is read.
fn narrow() -> TcpListener {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(2_048).unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    socket.listen(8).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_collector_has_not_acknowledged_is_not_delivered_however_long_ago_it_was_written() {
    let folder = tempfile::tempdir().unwrap();
    let audit = open(folder.path(), 1 << 30, 3);
    for _ in 0..100 {
        audit.end(vec![Record::new(Application::Http, State::Success, "x".repeat(1_000))]).await;
    }
    let (listener, stop) = (narrow(), CancellationToken::new());
    let forwarding = forward(&audit, &listener, &stop);
    let (silent, _) = listener.accept().await.unwrap();
    // Longer than anything settles, and nothing is read.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let metrics = keystead_metrics::Metrics::default();
    metrics.register(audit.clone());
    let page = metrics.text(keystead_metrics::Format::Prometheus).unwrap();
    let backlog = page.lines().find_map(|line| line.strip_prefix("keystead_audit_forward_backlog_records ")).unwrap().parse::<f64>().unwrap();
    assert!(backlog > 50.0 && page.contains("\nkeystead_audit_collector_up 1\n"), "{page}");
    drop(silent);
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut bytes = vec![0; 400];
    tokio::time::timeout(Duration::from_secs(5), stream.read_exact(&mut bytes)).await.expect("it must come again").unwrap();
    let text = String::from_utf8(bytes).unwrap();
    assert!(text.contains("sequenceId=\"1\""), "{text}");
    // What is read, on the other hand, is delivered.
    let reading = tokio::spawn(async move { while stream.read(&mut [0; 65_536]).await.is_ok_and(|length| length > 0) {} });
    let position = folder.path().join("audit/forwarded");
    let newest = *audit.newest().borrow();
    tokio::time::timeout(Duration::from_secs(20), async {
        while std::fs::read_to_string(&position).ok().and_then(|text| text.parse::<u64>().ok()) != Some(newest) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .unwrap();
    stop.cancel();
    forwarding.await.unwrap();
    reading.await.unwrap();
    audit.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_collector_does_not_hold_up_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let audit = open(folder.path(), 1 << 30, 3);
    for _ in 0..100 {
        audit.end((0..100).map(|_| Record::new(Application::Http, State::Success, "x".repeat(1_000))).collect()).await;
    }
    let (listener, stop) = (narrow(), CancellationToken::new());
    let forwarding = forward(&audit, &listener, &stop);
    let (mut stream, _) = listener.accept().await.unwrap();
    let reading = tokio::spawn(async move {
        while stream.read(&mut [0; 102]).await.is_ok_and(|length| length > 0) {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    tokio::time::sleep(Duration::from_millis(500)).await;
    stop.cancel();
    tokio::time::timeout(Duration::from_secs(8), forwarding).await.expect("it must end").unwrap();
    reading.abort();
    audit.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_deleted_before_the_collector_came_is_said_once_and_the_rest_arrives() {
    let folder = tempfile::tempdir().unwrap();
    let audit = open(folder.path(), 4_096, 3);
    for n in 0..100 {
        audit.end(vec![Record::new(Application::Http, State::Success, format!("call {n}"))]).await;
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let stop = CancellationToken::new();
    let forwarding = forward(&audit, &listener, &stop);

    // The first connection breaks before anything settles: what it got comes again, and that something is missing is not said again.
    let (mut first, _) = listener.accept().await.unwrap();
    let mut bytes = vec![0; 100];
    first.read_exact(&mut bytes).await.unwrap();
    drop(first);
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut text = String::new();
    while !text.contains(NOT_FORWARDED) {
        let mut bytes = vec![0; 65_536];
        let length = stream.read(&mut bytes).await.unwrap();
        assert!(length > 0, "{text}");
        text.push_str(std::str::from_utf8(&bytes[..length]).unwrap());
    }
    stop.cancel();
    stream.read_to_string(&mut text).await.unwrap();
    forwarding.await.unwrap();
    let sent: Vec<Record> = text
        .lines()
        .flat_map(|line| line.split("] {").skip(1))
        .map(|rest| {
            let json = format!("{{{rest}");
            // What follows is the length of the next message.
            serde_json::Deserializer::from_str(&json).into_iter::<Record>().next().unwrap().unwrap()
        })
        .collect();
    let (oldest, newest) = (sent[0].index, sent.last().unwrap().index);
    assert!(oldest > 1 && sent.iter().map(|record| record.index).eq(oldest..=newest), "{oldest} {newest}");
    let missing: Vec<&Record> = sent.iter().filter(|record| record.input == NOT_FORWARDED).collect();
    assert_eq!((missing.len(), missing[0].count), (1, Some(oldest - 1)));
    audit.close().await;
}

//! The budget of lists: 10,000 configurations with all their fields, filtered and sorted, within 3 times the time of a static file of the same size over the same TLS; what a page of it costs in memory;
//! and that reading a filter takes time in proportion to its length.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::cast_precision_loss)]

use crate::common::{Node, PASSWORD, enable_body, stand_in, toml_for};
use crate::measure::{adjustable, median};
use futures_util::StreamExt as _;
use keystead::serve::Hooks;
use keystead_rest::collection::filter::Filter;
use keystead_rest::field::As;
use std::sync::Arc;
use std::time::Instant;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const CONFIGURATIONS: usize = 10_000;
const ROUNDS: usize = 9;
const BUDGET: f64 = 3.0;

#[tokio::main]
pub async fn main() {
    let count = adjustable("CONFIGURATIONS", CONFIGURATIONS);
    let (kms, key) = stand_in().await;
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let node = Node::start_in(folder.clone(), &toml_for(&kms, folder.path()), Hooks::default()).await.unwrap();
    println!("making {count} SVMs and enabling AWS KMS for each");
    let start = Instant::now();
    let made = futures_util::stream::iter(0..count).map(|n| {
        let (node, kms, key) = (&node, &kms, &key);
        async move {
            let name = format!("svm{n:05}");
            node.svm(&name).await;
            let (status, body) = node.ask("POST", "/security/aws-kms?return_timeout=120", Some(enable_body(&name, kms, key))).await;
            assert_eq!(status, 201, "{body}");
        }
    });
    made.buffer_unordered(32).collect::<Vec<_>>().await;
    println!("made in {:.0} s", start.elapsed().as_secs_f64());

    let base = format!("https://{}/api/security/aws-kms", node.address);
    let whole = fetch(&node.client, &format!("{base}?fields=*")).await;
    let (file_client, file) = serve_file(whole.clone()).await;
    let urls = [
        ("all fields", format!("{base}?fields=*")),
        ("all fields, filter", format!("{base}?fields=*&region=us-*&svm.name=svm*&port=1..65535")),
        ("all fields, order", format!("{base}?fields=*&order_by=svm.name%20desc")),
        ("all fields, filter and order", format!("{base}?fields=*&region=us-*&svm.name=!nobody&order_by=key_id,svm.name%20desc")),
        ("nothing passes", format!("{base}?fields=*&svm.name=nobody")),
    ];
    let mut times = vec![Vec::new(); urls.len() + 1];
    for _ in 0..ROUNDS {
        times[0].push(timed(&file_client, &file).await);
        for (n, (_, url)) in urls.iter().enumerate() {
            times[n + 1].push(timed(&node.client, url).await);
        }
    }
    let medians: Vec<f64> = times.into_iter().map(median).collect();
    println!("a static file of {} bytes: {:.1} ms", whole.len(), medians[0] * 1_000.0);
    for (n, (what, _)) in urls.iter().enumerate() {
        let ratio = medians[n + 1] / medians[0];
        println!("{what}: {:.1} ms, {ratio:.2} of the file, budget {BUDGET}: {}", medians[n + 1] * 1_000.0, if ratio <= BUDGET { "met" } else { "MISSED" });
    }

    // What a list takes at its highest above what the node has at rest: of all, of a page, and of a page for which all are sorted.
    let page = format!("{base}?fields=*&max_records=100");
    for (what, url) in
        [("a page of 100", page.clone()), ("a page of 100, sorted", format!("{page}&order_by=key_id,svm.name%20desc")), ("all", format!("{base}?fields=*"))]
    {
        match peak(&node.client, &url).await {
            Some(kib) => println!("memory: {what}: {kib} KiB above rest"),
            None => println!("memory: this system does not say"),
        }
    }

    // A filter of the longest kind that is read, against a quarter of it: what is not in proportion would show here.
    for (what, unit) in
        [("alternatives", "a text of some length, as names are, and|"), ("stars", "*a"), ("negations", "!"), ("quotes", "\"a\""), ("dots", "a.")]
    {
        let read = |length: usize| {
            let text = unit.repeat(length / unit.len());
            let start = Instant::now();
            for _ in 0..200 {
                let _ = std::hint::black_box(Filter::parse("name", As::Text, std::hint::black_box(&text)));
            }
            start.elapsed().as_secs_f64()
        };
        let (short, long) = (median((0..7).map(|_| read(4_000)).collect()), median((0..7).map(|_| read(16_000)).collect()));
        println!("reading a filter of {what}: 16,000 bytes take {:.1} times as long as 4,000", long / short);
    }
    node.stop().await;
}

async fn fetch(client: &reqwest::Client, url: &str) -> Vec<u8> {
    let answer = client.get(url).basic_auth("admin", Some(PASSWORD)).send().await.unwrap();
    assert!(answer.status().is_success(), "{url}: {}", answer.status());
    answer.bytes().await.unwrap().to_vec()
}

async fn timed(client: &reqwest::Client, url: &str) -> f64 {
    let start = Instant::now();
    fetch(client, url).await;
    start.elapsed().as_secs_f64()
}

/// How far the memory of the process (node and client) rises for one list, which the client throws away as it comes. Linux says so.
async fn peak(client: &reqwest::Client, url: &str) -> Option<u64> {
    let kib = |name: &str| {
        let status = std::fs::read_to_string("/proc/self/status").ok()?;
        status.lines().find_map(|line| line.strip_prefix(name))?.trim_start_matches(':').split_whitespace().next()?.parse::<u64>().ok()
    };
    let mut rises = Vec::new();
    for _ in 0..3 {
        let before = kib("VmRSS")?;
        std::fs::write("/proc/self/clear_refs", "5").ok()?;
        let mut answer = client.get(url).basic_auth("admin", Some(PASSWORD)).send().await.unwrap();
        while answer.chunk().await.unwrap().is_some() {}
        rises.push(kib("VmHWM")?.saturating_sub(before));
    }
    rises.into_iter().max()
}

/// The same bytes over the same TLS, from a server that does nothing else.
async fn serve_file(body: Vec<u8>) -> (reqwest::Client, String) {
    let signed = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(signed.signing_key.serialize_der()).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![signed.cert.der().clone()], key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let answer = Arc::new([format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", body.len()).into_bytes(), body].concat());
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (acceptor, answer) = (acceptor.clone(), Arc::clone(&answer));
            tokio::spawn(async move {
                let mut stream = acceptor.accept(stream).await.unwrap();
                let mut head = Vec::new();
                let mut chunk = [0; 4_096];
                loop {
                    match stream.read(&mut chunk).await {
                        Ok(0) | Err(_) => return,
                        Ok(read) => head.extend_from_slice(&chunk[..read]),
                    }
                    if head.ends_with(b"\r\n\r\n") {
                        head.clear();
                        if stream.write_all(&answer).await.is_err() || stream.flush().await.is_err() {
                            return;
                        }
                    }
                }
            });
        }
    });
    (crate::common::client(signed.cert.pem().as_bytes()), format!("https://localhost:{}/", address.port()))
}

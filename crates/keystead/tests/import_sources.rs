//! `keystead ekmip import` from sources that are no Keystead: other versions, other ways to list, hostile ones, ones that come and go.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use crate::common;

use common::import::{Fake, Run, Two, answers_like_a_server, files, listed, refused, spoken};
use common::relay::Relay;
use keystead_kmip::Tag;
use keystead_kmip::Version;
use keystead_kmip::attribute::{Attribute, Identity};
use keystead_kmip::enumeration::{Enumeration, Operation, ResultReason};
use keystead_kmip::message::RequestMessage;
use keystead_kmip::request::Request;
use keystead_kmip::ttlv::Value;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

const KEY: [u8; 32] = [7; 32];

type Answers = Box<dyn Fn(&RequestMessage<'_, '_>) -> Option<Vec<u8>> + Send + Sync>;

fn good(request: &RequestMessage<'_, '_>) -> Option<Vec<u8>> {
    answers_like_a_server(request, &KEY)
}

fn is(request: &RequestMessage<'_, '_>, operation: Operation) -> bool {
    request.items[0].operation == operation.number()
}

fn custom(name: &'static str, value: &'static str) -> Attribute<'static> {
    Attribute { identity: Identity::Custom(name.into()), index: 0, value: Value::TextString(value.into()) }
}

/// A run from a stand-in into `svm2`.
fn run(two: &Two, fake: &Fake, more: &[&str]) -> Run {
    let mut arguments = fake.arguments(two.folder.path());
    arguments.extend(files(two.folder.path(), "destination", &two.scene.node.ekmip.to_string(), &two.destination));
    Run::of(two.folder.path(), &arguments, more)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_blocked_svm_ends_the_run_and_says_so() {
    let two = Two::new().await;
    // The other way round: `svm1` is the one that will be blocked.
    let mut source = two.there();
    source.created(vec![]);
    two.scene.block().await;
    let address = two.scene.node.ekmip.to_string();
    // Both SVMs have the same customer key, so that the keys of the source are taken from a stand-in.
    let fake = Fake::start(|request| answers_like_a_server(request, &KEY));
    let mut arguments = fake.arguments(two.folder.path());
    arguments.extend(files(two.folder.path(), "destination", &address, &two.scene.client));
    let run = Run::of(two.folder.path(), &arguments, &[]);
    assert_eq!(run.code, 1, "{}", run.said);
    assert!(run.said.contains("the SVM takes no keys") && run.said.contains("run the import again"), "{}", run.said);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_with_identifiers_of_its_own() {
    let two = Two::new().await;
    let fake = Fake::start(|request| answers_like_a_server(request, &KEY));
    let mut arguments = fake.arguments(two.folder.path());
    arguments.extend(files(two.folder.path(), "destination", &two.scene.node.ekmip.to_string(), &two.destination));
    let first = Run::of(two.folder.path(), &arguments, &["--source-name", "old"]);
    assert_eq!((first.code, first.total("moved")), (0, 3), "{}", first.said);
    let (id, entry) = (first.report["objects"][1]["destination_id"].as_str().unwrap().to_owned(), &first.report["objects"][1]);
    assert_eq!((entry["source_id"].as_str(), entry["notes"][0]["attribute"].as_str()), (Some("key-2"), Some("Vendor's Own")), "{entry}");
    let mut there = two.there();
    assert_eq!(there.get(&id).material(), KEY);
    assert_eq!(there.locate(&[custom("x-Keystead-Import-ID", "key-2"), custom("x-Keystead-Import-Source", "old")]), [id.as_str()]);
    let Some(Value::Structure(link)) = there.attribute(&id, "Link") else { panic!("the link must have come") };
    let other = first.report["objects"][0]["destination_id"].as_str().unwrap();
    assert!(link.iter().any(|item| item.value == Value::TextString(other.into())), "and leads to where the other one is now");
    let again = Run::of(two.folder.path(), &arguments, &["--source-name", "old"]);
    assert_eq!((again.code, again.total("already_there")), (0, 3), "{}", again.said);
    first.holds_nothing_of(&KEY);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_sources_end_the_run_and_nothing_else() {
    let two = Two::new().await;
    let good = |request: &keystead_kmip::message::RequestMessage<'_, '_>| answers_like_a_server(request, &KEY);
    let is = |request: &keystead_kmip::message::RequestMessage<'_, '_>, operation: Operation| request.items[0].operation == operation.number();
    type Answers = Box<dyn Fn(&keystead_kmip::message::RequestMessage<'_, '_>) -> Option<Vec<u8>> + Send + Sync>;
    let cases: Vec<(&str, i32, Answers)> = vec![
        ("answers garbage", 1, Box::new(|_| Some(vec![0xff; 64]))),
        ("says that its answer has 4 GiB", 1, Box::new(|_| Some([0x42, 0, 0x7b, 1, 0xff, 0xff, 0xff, 0xff].to_vec()))),
        ("ends each connection", 1, Box::new(|_| Some(Vec::new()))),
        ("never answers", 1, Box::new(|_| None)),
        ("lists garbage", 1, Box::new(move |request| if is(request, Operation::Locate) { Some(vec![0; 8]) } else { good(request) })),
        ("gives garbage for keys", 3, Box::new(move |request| if is(request, Operation::Get) { Some(vec![0xff; 16]) } else { good(request) })),
        ("ends at each key", 3, Box::new(move |request| if is(request, Operation::Get) { Some(Vec::new()) } else { good(request) })),
    ];
    for (what, code, answers) in cases {
        let fake = Fake::start(answers);
        let mut arguments = fake.arguments(two.folder.path());
        arguments.extend(files(two.folder.path(), "destination", &two.scene.node.ekmip.to_string(), &two.destination));
        let run = Run::of(two.folder.path(), &arguments, &["--timeout", "1", "--retries", "1"]);
        println!("a source that {what}: {}", run.said.lines().last().unwrap_or_default());
        assert_eq!(run.code, code, "{what}: {}", run.said);
        assert!(!run.said.contains("panicked"), "{what}: {}", run.said);
        assert_eq!(run.report["complete"], code == 3, "{what}");
    }
    assert!(two.there().locate(&[]).is_empty(), "nothing has come of it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn versions_are_agreed_upon_with_whoever_can_say_his() {
    let two = Two::new().await;
    let only = |versions: &'static [Version], answer: &'static [(i32, i32)]| {
        Box::new(move |request: &RequestMessage<'_, '_>| match (versions.contains(&request.version), is(request, Operation::DiscoverVersions)) {
            (false, _) => Some(Vec::new()),
            (true, true) => Some(spoken(answer)),
            (true, false) => Some(listed(Vec::new())),
        }) as Answers
    };
    let oldest: Answers = Box::new(|request| match request.version {
        Version::V1_0 => Some(listed(Vec::new())),
        _ => Some(refused(Operation::DiscoverVersions, ResultReason::OperationNotSupported)),
    });
    let cases: Vec<(Answers, Result<&str, &str>)> = vec![
        (only(&[Version::V2_1], &[(2, 1)]), Ok("2.1")),
        (only(&[Version::V1_2], &[(1, 2), (9, 9)]), Ok("1.2")),
        (only(Version::SUPPORTED, &[(1, 0), (1, 4), (1, 1)]), Ok("1.4")),
        (oldest, Ok("1.0")),
        (only(Version::SUPPORTED, &[(3, 0)]), Err("none of")),
    ];
    for (answers, version) in cases {
        let fake = Fake::start(answers);
        let run = run(&two, &fake, &["--retries", "0"]);
        match version {
            Ok(version) => {
                assert_eq!((run.code, run.report["source"]["protocol_version"].as_str()), (0, Some(version)), "{}", run.said);
                let there = if version.starts_with('2') { "2.1" } else { "1.4" };
                assert_eq!(run.report["destination"]["protocol_version"], there);
            }
            Err(why) => assert!(run.code == 1 && run.said.contains(why), "{}", run.said),
        }
    }
}

/// A server may give fewer than it is asked for, or not know Offset.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_is_read_to_its_end() {
    let two = Two::new().await;
    let ids = || (1..=7).map(|n| format!("key-{n}")).collect::<Vec<_>>();
    for knows_offset in [true, false] {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        let fake = Fake::start(move |request| match request.items[0].request(request.version).unwrap() {
            Request::DiscoverVersions(_) => Some(spoken(&[(1, 4)])),
            Request::Locate(locate) => {
                count.fetch_add(1, Ordering::SeqCst);
                let (offset, most) = if knows_offset { (locate.offset, 3) } else { (0, locate.maximum_items.map_or(7, |_| 3)) };
                Some(listed(ids().into_iter().skip(offset).take(most).collect()))
            }
            _ => good(request),
        });
        let run = run(&two, &fake, &["--dry-run"]);
        assert_eq!((run.code, run.total("would_move")), (0, 7), "{}", run.said);
        assert_eq!(asked.load(Ordering::SeqCst), if knows_offset { 4 } else { 3 });
    }
}

/// What the source gives out, and Keystead does not, is compared by its digest.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sensitive_key_of_a_source_that_gives_it_out() {
    let two = Two::new().await;
    let fake = Fake::start(|request| match request.items[0].request(request.version).unwrap() {
        Request::DiscoverVersions(_) => Some(spoken(&[(1, 4)])),
        Request::GetAttributes { id, .. } => {
            let flag = Attribute::new(Tag::Sensitive, Value::Boolean(true));
            Some(common::import::attributes(id.unwrap(), &[flag, Attribute::new(Tag::State, Value::Enumeration(4))]))
        }
        Request::Locate(locate) if locate.offset > 0 => Some(listed(Vec::new())),
        _ => good(request),
    });
    let first = run(&two, &fake, &[]);
    assert_eq!((first.code, first.total("moved")), (0, 3), "{}", first.said);
    let id = first.report["objects"][0]["destination_id"].as_str().unwrap();
    assert_eq!(two.there().get(id).reason(), Some(ResultReason::Sensitive));
    assert_eq!(two.there().attribute(id, "State"), Some(Value::Enumeration(4)), "compromised, without a date");
    assert_eq!(run(&two, &fake, &[]).total("already_there"), 3);
    // Another key under the same identifier is not taken for it.
    let other = Fake::start(|request| match request.items[0].request(request.version).unwrap() {
        Request::Get { .. } => answers_like_a_server(request, &[8; 32]),
        _ => good(request),
    });
    let address = fake.address.to_string();
    let differs = run(&two, &other, &["--source-name", &address]);
    assert_eq!((differs.code, differs.report["objects"][0]["reason"]["code"].as_str()), (3, Some("Differs")), "{}", differs.said);
}

/// Connections that are cut are made again, on both sides.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_connections_are_made_again() {
    let two = Two::new().await;
    let mut source = two.source();
    let count = 40;
    (0..count).for_each(|_| drop(source.created(vec![])));
    let node = two.scene.node.ekmip;
    let (near, far) = (Relay::to(node).await, Relay::to(node).await);
    let mut arguments = files(two.folder.path(), "source", &near.address.to_string(), &two.scene.client);
    arguments.extend(files(two.folder.path(), "destination", &far.address.to_string(), &two.destination));
    let mut child = Run::start(two.folder.path(), &arguments, &[]);
    let mut cuts = 0;
    // Each cut waits for something new to be there, so that the run always gets on.
    let mut before = 0;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        let now = two.there().locate(&[]).len();
        if now > before {
            before = now;
            let relay = if cuts % 2 == 0 { &near } else { &far };
            relay.lead(None);
            relay.lead(Some(node));
            cuts += 1;
        }
    };
    println!("{cuts} cuts");
    assert_eq!(status.code(), Some(0));
    assert!(cuts > 0);
    assert_eq!(two.there().locate(&[]).len(), count);
}

//! The data plane, through the wire: KMIP over mutual TLS against a whole node.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use crate::common;

use common::kmip::{Credentials, Kmip, own, template, text, uid};
use common::scene::{Scene, enabled, scene, scene_with};
use common::steps::PauseAt;
use common::{Node, code, eventually, toml_for};
use keystead::serve::Hooks;
use keystead_conformance::case::Case;
use keystead_conformance::{Verdict, cases_in, replay, replay_file};
use keystead_kmip::attribute::{Attribute, Identity};
use keystead_kmip::enumeration::{Enumeration, KeyFormatType, ObjectType, Operation, ResultReason, RevocationReasonCode, State};
use keystead_kmip::ttlv::{Node as Item, Value};
use keystead_kmip::{Tag, Version};
use keystead_store::Range;
use keystead_testkit::KeyState;
use serde_json::json;
use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

fn own_cases() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/kmip-cases");
    let cases = cases_in(&[folder]).unwrap();
    assert_eq!(cases.len(), 14);
    cases
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_projects_own_cases_pass() {
    let scene = scene().await;
    let endpoint = scene.client.endpoint(scene.node.ekmip);
    for case in own_cases() {
        let verdict = tokio::task::block_in_place(|| replay_file(&case, &endpoint)).unwrap();
        assert_eq!(verdict, Verdict::Pass, "{}", case.display());
    }
}

/// The cases `operations-…` have every operation, and pass at each version from the one in their name to the last of its kind: together, each operation that Query offers at a version.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_projects_own_cases_have_every_operation_at_every_version() {
    for version in Version::SUPPORTED {
        // Another node for each, since an identifier can be imported once.
        let scene = scene().await;
        let endpoint = scene.client.endpoint(scene.node.ekmip);
        let mut tried = BTreeSet::new();
        for path in own_cases() {
            let Some(first) = path.file_stem().unwrap().to_str().unwrap().strip_prefix("operations-") else { continue };
            let (major, minor) = first.split_once('.').map(|(major, minor)| (major.parse::<u8>().unwrap(), minor.parse::<u8>().unwrap())).unwrap();
            if major != version.major || minor > version.minor {
                continue;
            }
            let line = |minor: u8| format!("<ProtocolVersionMinor type=\"Integer\" value=\"{minor}\"/>");
            let text = std::fs::read_to_string(&path).unwrap();
            // The versions that Discover Versions lists stand deeper than those of headers.
            let (from, to) = (format!("\n        {}", line(minor)), format!("\n        {}", line(version.minor)));
            assert!(text.contains(&from), "{}", path.display());
            let text = text.replace(&from, &to);
            let case = Case::parse(&text).unwrap();
            let verdict = tokio::task::block_in_place(|| replay(&case, &endpoint)).unwrap();
            assert_eq!(verdict, Verdict::Pass, "{} at {version}", path.display());
            tried.extend(text.split("<Operation type=\"Enumeration\" value=\"").skip(1).map(|rest| rest.split('"').next().unwrap().to_owned()));
        }
        let mut kmip = scene.speaking(version.major.into(), version.minor.into());
        for offered in common::objects::offered(&mut kmip) {
            let name = Operation::from_number(offered).unwrap().name();
            assert!(tried.contains(name), "{name} is offered at {version}, and no case has it");
        }
    }
}

/// A runner that cannot fail proves nothing: each of these changes of a case must be found.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mutated_cases_fail() {
    let scene = scene().await;
    let endpoint = scene.client.endpoint(scene.node.ekmip);
    let read = |name: &str| {
        let case = own_cases().into_iter().find(|case| case.file_stem().unwrap() == name).unwrap();
        std::fs::read_to_string(case).unwrap()
    };
    // In the responses alone: what comes after the first of them.
    let mutations = [
        ("life-cycle", "value=\"PreActive\"", "value=\"Active\""),
        ("life-cycle", "ResultReason type=\"Enumeration\" value=\"IllegalOperation\"", "ResultReason type=\"Enumeration\" value=\"PermissionDenied\""),
        ("life-cycle", "value=\"OperationFailed\"", "value=\"Success\""),
        ("life-cycle", "AttributeValue type=\"Integer\" value=\"256\"", "AttributeValue type=\"Integer\" value=\"128\""),
        ("life-cycle", "AttributeValue type=\"DateTime\" value=\"$NOW\"", "AttributeValue type=\"DateTime\" value=\"$NOW-3600\""),
        (
            "life-cycle",
            "AttributeValue type=\"DateTime\" value=\"1970-01-01T00:00:06+00:00\"",
            "AttributeValue type=\"DateTime\" value=\"1970-01-01T00:00:07+00:00\"",
        ),
        ("register", "KeyMaterial type=\"ByteString\" value=\"0011", "KeyMaterial type=\"ByteString\" value=\"ff11"),
        ("register", "OpaqueDataValue type=\"ByteString\" value=\"c0ffee\"", "OpaqueDataValue type=\"ByteString\" value=\"c0ffef\""),
        ("register", "SecretDataType type=\"Enumeration\" value=\"Password\"", "SecretDataType type=\"Enumeration\" value=\"Seed\""),
        ("attributes", "AttributeIndex type=\"Integer\" value=\"1\"", "AttributeIndex type=\"Integer\" value=\"2\""),
        ("attributes", "AttributeName type=\"TextString\" value=\"Lease Time\"", "AttributeName type=\"TextString\" value=\"Archive Date\""),
        ("batches", "BatchCount type=\"Integer\" value=\"2\"", "BatchCount type=\"Integer\" value=\"3\""),
        ("batches", "value=\"OperationUndone\"", "value=\"OperationPending\""),
        ("batches", "WrappingMethod type=\"Enumeration\" value=\"Encrypt\"", "WrappingMethod type=\"Enumeration\" value=\"MACSign\""),
        ("templates-and-rekey", "LinkType type=\"Enumeration\" value=\"ReplacedObjectLink\"", "LinkType type=\"Enumeration\" value=\"NextLink\""),
        (
            "templates-and-rekey",
            "LinkedObjectIdentifier type=\"TextString\" value=\"$UNIQUE_IDENTIFIER_1\"",
            "LinkedObjectIdentifier type=\"TextString\" value=\"$UNIQUE_IDENTIFIER_2\"",
        ),
        ("query", "Operation type=\"Enumeration\" value=\"ReKey\"", "Operation type=\"Enumeration\" value=\"Sign\""),
        ("query", "ObjectType type=\"Enumeration\" value=\"Template\"", "ObjectType type=\"Enumeration\" value=\"SplitKey\""),
        ("query", "ProtocolVersionMinor type=\"Integer\" value=\"0\"", "ProtocolVersionMinor type=\"Integer\" value=\"5\""),
        ("life-cycle-2.0", "ResultReason type=\"Enumeration\" value=\"ObjectDestroyed\"", "ResultReason type=\"Enumeration\" value=\"ObjectNotFound\""),
        ("life-cycle-2.0", "AttributeReference type=\"Enumeration\" value=\"KeyFormatType\"", "AttributeReference type=\"Enumeration\" value=\"ArchiveDate\""),
        ("life-cycle-2.0", "Fresh type=\"Boolean\" value=\"false\"", "Fresh type=\"Boolean\" value=\"true\""),
        ("attributes-2.0", "VendorIdentification type=\"TextString\" value=\"acme.com\"", "VendorIdentification type=\"TextString\" value=\"acme.org\""),
        ("attributes-2.0", "ProtectionPeriod type=\"Interval\" value=\"40\"", "ProtectionPeriod type=\"Interval\" value=\"60\""),
        ("objects-2.1", "Modulus type=\"BigInteger\" value=\"00000000c0ffee01\"", "Modulus type=\"BigInteger\" value=\"00000000c0ffee03\""),
        ("objects-2.1", "Data type=\"ByteString\" value=\"69", "Data type=\"ByteString\" value=\"68"),
        ("objects-2.1", "UsageLimitsCount type=\"LongInteger\" value=\"6\"", "UsageLimitsCount type=\"LongInteger\" value=\"16\""),
        ("objects-2.1", "ObjectType type=\"Enumeration\" value=\"Certificate\"", "ObjectType type=\"Enumeration\" value=\"SplitKey\""),
        ("operations-1.0", "UsageLimitsCount type=\"LongInteger\" value=\"8\"", "UsageLimitsCount type=\"LongInteger\" value=\"9\""),
        ("operations-1.2", "Data type=\"ByteString\" value=\"0707", "Data type=\"ByteString\" value=\"0807"),
    ];
    for (name, from, to) in mutations {
        let text = read(name);
        let (mut changed, mut in_response, mut count) = (String::new(), false, 0);
        for line in text.lines() {
            in_response = (in_response || line.contains("<ResponseMessage>")) && !line.contains("<RequestMessage>");
            if in_response && line.contains(from) {
                count += 1;
                changed += &line.replace(from, to);
            } else {
                changed += line;
            }
            changed.push('\n');
        }
        assert!(count > 0, "{name} has no response with {from}");
        let verdict = |text: &str| {
            let case = Case::parse(text).unwrap();
            let verdict = tokio::task::block_in_place(|| replay(&case, &endpoint)).unwrap();
            scrub(&mut scene.connect());
            verdict
        };
        let Verdict::Fail(difference) = verdict(&changed) else { panic!("{name}: {from} as {to} was not found") };
        if let Some((tag, _)) = from.split_once(" type=") {
            assert!(difference.contains(tag), "{name}: {from} as {to}: {difference}");
        }
        assert_eq!(verdict(&text), Verdict::Pass, "{name}: and without the change it passes");
    }
}

/// Ends all objects, so that the next case finds none.
fn scrub(kmip: &mut Kmip) {
    for id in kmip.locate(&[]) {
        revoke(kmip, &id, RevocationReasonCode::KeyCompromise);
        kmip.with_id(Operation::Destroy, &id).id();
    }
}

fn revoke(kmip: &mut Kmip, id: &str, code: RevocationReasonCode) -> common::kmip::Answer {
    let reason = Item::structure(Tag::RevocationReason, vec![Item::enumeration(Tag::RevocationReasonCode, code)]);
    kmip.call(Operation::Revoke, vec![uid(id), reason])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_svms_objects_do_not_exist() {
    let scene = scene().await;
    scene.node.svm("svm2").await;
    enabled(&scene.node, &scene.kms, &scene.key, "svm2").await;
    let other = Credentials::issue(&scene.node, "svm2").await;
    let (mut a, mut b) = (scene.connect(), Kmip::connect(&other.endpoint(scene.node.ekmip)));
    let id = a.created(vec![Attribute::name("shared name"), Attribute::new(Tag::ObjectGroup, Value::TextString("g".into()))]);
    let attribute = || own(Attribute { identity: Identity::Custom("x-a".into()), index: 0, value: Value::TextString("v".into()) }.to_node());
    let wrapping = |id: &str| {
        let key = Item::structure(Tag::EncryptionKeyInformation, vec![uid(id)]);
        Item::structure(Tag::KeyWrappingSpecification, vec![Item::enumeration(Tag::WrappingMethod, keystead_kmip::enumeration::WrappingMethod::Encrypt), key])
    };
    let mine = b.created(vec![Attribute::name("shared name")]);
    let reason = || Item::structure(Tag::RevocationReason, vec![Item::enumeration(Tag::RevocationReasonCode, RevocationReasonCode::KeyCompromise)]);
    let calls = vec![
        (Operation::Get, vec![uid(&id)]),
        (Operation::GetAttributes, vec![uid(&id)]),
        (Operation::GetAttributeList, vec![uid(&id)]),
        (Operation::AddAttribute, vec![uid(&id), attribute()]),
        (Operation::ModifyAttribute, vec![uid(&id), attribute()]),
        (Operation::DeleteAttribute, vec![uid(&id), Item::text(Tag::AttributeName, "x-a")]),
        (Operation::Activate, vec![uid(&id)]),
        (Operation::Revoke, vec![uid(&id), reason()]),
        (Operation::Destroy, vec![uid(&id)]),
        (Operation::ReKey, vec![uid(&id)]),
        (Operation::Get, vec![uid(&mine), wrapping(&id)]),
    ];
    let never = "11111111-1111-4111-8111-111111111111";
    for (operation, payload) in calls {
        let answer = b.call(operation, payload.clone());
        assert_eq!(answer.reason(), Some(ResultReason::ItemNotFound), "{operation:?}");
        // Nothing tells an object of another SVM from one that never was.
        let unknown: Vec<_> =
            payload.iter().map(|item| if item.tag == Tag::UniqueIdentifier && text(&item.value) == id { uid(never) } else { item.clone() }).collect();
        if unknown != payload {
            assert_eq!(b.call(operation, unknown).message().replace(never, ""), answer.message().replace(&id, ""), "{operation:?}");
        }
    }
    // Nor does a template of theirs, at any version, or in a batch.
    let inside = Item::structure(Tag::Template, vec![own(Attribute::new(Tag::ObjectGroup, Value::TextString("t".into())).to_node())]);
    let kind = |kind| Item::enumeration(Tag::ObjectType, kind);
    a.call(Operation::Register, vec![kind(ObjectType::Template), template(&[Attribute::name("stencil")]), inside]).id();
    let by_template = || {
        let name = Item::new(Tag::Name, Attribute::name("stencil").value);
        vec![kind(ObjectType::SymmetricKey), Item::structure(Tag::TemplateAttribute, vec![name])]
    };
    assert_eq!(b.call(Operation::Create, by_template()).reason(), Some(ResultReason::ItemNotFound));
    b.minor = 0;
    assert_eq!(b.get(&id).reason(), Some(ResultReason::ItemNotFound), "1.0");
    assert!(b.locate(&[Attribute::name("stencil")]).is_empty());
    b.minor = 4;
    let answers = b
        .try_batch(
            vec![(Operation::Locate, vec![own(Attribute::new(Tag::ObjectGroup, Value::TextString("g".into())).to_node())]), (Operation::Destroy, vec![])],
            &[],
        )
        .unwrap();
    assert_eq!(answers[1].reason(), Some(ResultReason::InvalidField), "a Locate that finds nothing leaves no placeholder");
    let link = Item::structure(
        Tag::Attribute,
        vec![Item::text(Tag::AttributeName, "Link"), Item::structure(Tag::AttributeValue, vec![Item::text(Tag::LinkedObjectIdentifier, id.clone())])],
    );
    assert!(b.call(Operation::Locate, vec![link]).payload().items().is_empty());
    (b.major, b.minor) = (2, 1);
    let everything = vec![Item::integer(Tag::OffsetItems, 0), Item::integer(Tag::StorageStatusMask, 7)];
    assert_eq!(b.call(Operation::Locate, everything).payload().items().len(), 1, "destroyed ones neither");
    let data = || Item::bytes(Tag::Data, vec![7; 16]);
    let new = Item::structure(Tag::NewAttribute, vec![Item::text(Tag::Comment, "c")]);
    let adjust = vec![Item::new(Tag::AttributeReference, Value::Enumeration(Tag::ProtectionPeriod.0)), Item::new(Tag::AdjustmentType, Value::Enumeration(1))];
    let calls = [
        (Operation::Check, vec![]),
        (Operation::ObtainLease, vec![]),
        (Operation::GetUsageAllocation, vec![Item::new(Tag::UsageLimitsCount, Value::LongInteger(1))]),
        (Operation::Encrypt, vec![data()]),
        (Operation::Decrypt, vec![data()]),
        (Operation::Export, vec![]),
        (Operation::SetAttribute, vec![new]),
        (Operation::AdjustAttribute, adjust),
    ];
    for (operation, rest) in calls {
        let payload = |id: &str| std::iter::once(uid(id)).chain(rest.clone()).collect();
        let answer = b.call(operation, payload(&id));
        assert_eq!(answer.reason(), Some(ResultReason::ObjectNotFound), "{operation:?}");
        assert_eq!(b.call(operation, payload(never)).message().replace(never, ""), answer.message().replace(&id, ""), "{operation:?}");
    }
    (b.major, b.minor) = (1, 4);
    assert_eq!(b.locate(&[]), [mine.as_str()]);
    assert_eq!(b.locate(&[Attribute::name("shared name")]), [mine.as_str()]);
    assert!(b.locate(&[Attribute::new(Tag::UniqueIdentifier, Value::TextString(id.clone().into()))]).is_empty());
    assert!(b.locate(&[Attribute::new(Tag::ObjectGroup, Value::TextString("g".into()))]).is_empty());
    assert_eq!(a.get(&id).material().len(), 32, "and it is as it was");
    assert_eq!(a.attribute_list(&id).iter().filter(|name| name.starts_with("x-")).count(), 0);
}

/// Percona Server for MongoDB breaks on attributes of a later version, so a client must never see one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_is_the_same_at_every_version_and_shows_only_what_the_version_has() {
    let scene = scene().await;
    let mut old = scene.at(0);
    let id = old.created(vec![Attribute::name("k"), Attribute::new(Tag::OperationPolicyName, Value::TextString("default".into()))]);
    let material = old.get(&id).material();
    let since = [
        (1, vec!["Fresh"]),
        (2, vec!["Original Creation Date"]),
        (3, vec!["Random Number Generator"]),
        (4, vec!["Sensitive", "Always Sensitive", "Extractable", "Never Extractable"]),
    ];
    for minor in 0..=4 {
        let mut kmip = scene.at(minor);
        assert_eq!(kmip.get(&id).material(), material, "1.{minor}");
        assert_eq!(kmip.locate(&[Attribute::name("k")]), [id.as_str()], "1.{minor}");
        let list = kmip.attribute_list(&id);
        assert!(list.iter().any(|name| name == "Operation Policy Name"), "1.{minor} keeps it");
        let all = kmip.with_id(Operation::GetAttributes, &id);
        let shown: Vec<String> = all.payload().items().iter().filter_map(|item| item.find(Tag::AttributeName)).map(|name| text(&name.value)).collect();
        assert_eq!(list, shown, "1.{minor}");
        for (from, names) in &since {
            for name in names {
                assert_eq!(list.iter().any(|known| known == name), minor >= *from, "{name} at 1.{minor}");
                assert_eq!(kmip.attribute(&id, name).is_some(), minor >= *from, "{name} by name at 1.{minor}");
            }
        }
    }
    let refused = scene.at(3).create(vec![Attribute::new(Tag::Sensitive, Value::Boolean(true))]);
    assert_eq!(refused.reason(), Some(ResultReason::InvalidField), "1.3 does not have it");
    let sensitive = scene.at(4).created(vec![Attribute::new(Tag::Sensitive, Value::Boolean(true))]);
    assert_eq!(scene.at(4).get(&sensitive).reason(), Some(ResultReason::Sensitive));
    assert_eq!(scene.at(3).get(&sensitive).reason(), Some(ResultReason::PermissionDenied), "the reason came with 1.4 too");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn locate_by_any_attribute() {
    let scene = scene().await;
    let mut kmip = scene.connect();
    let group = |name: &'static str| Attribute::new(Tag::ObjectGroup, Value::TextString(name.into()));
    let at = |date| Attribute::new(Tag::ActivationDate, Value::DateTime(date));
    let ids: Vec<String> = (0..5).map(|n| kmip.created(vec![group(if n < 3 { "a" } else { "b" }), at(1_000 + n), at_never(n)])).collect();
    let sorted = |mut ids: Vec<String>| {
        ids.sort();
        ids
    };
    let expect = |range: std::ops::Range<usize>| sorted(ids[range].to_vec());
    assert_eq!(sorted(kmip.locate(&[group("a")])), expect(0..3));
    assert_eq!(sorted(kmip.locate(&[group("b")])), expect(3..5));
    assert_eq!(kmip.locate(&[group("a"), group("b")]).len(), 0);
    assert_eq!(sorted(kmip.locate(&[at(1_002)])), expect(2..3));
    assert_eq!(sorted(kmip.locate(&[at(1_001), at(1_003)])), expect(1..4), "two dates are a range");
    assert_eq!(sorted(kmip.locate(&[group("a"), at(1_001), at(1_003)])), expect(1..3));
    let state = |state: State| Attribute::new(Tag::State, Value::Enumeration(state.number()));
    assert_eq!(sorted(kmip.locate(&[state(State::Active)])), expect(0..5), "activated by their dates");
    let mask = |mask| Attribute::new(Tag::CryptographicUsageMask, Value::Integer(mask));
    assert_eq!((kmip.locate(&[mask(4)]).len(), kmip.locate(&[mask(12)]).len(), kmip.locate(&[mask(28)]).len()), (5, 5, 0));
    // Pages: all of them, none twice.
    let mut paged = Vec::new();
    for offset in [0, 2, 4, 6] {
        let answer = kmip.call(Operation::Locate, vec![Item::integer(Tag::MaximumItems, 2), Item::integer(Tag::OffsetItems, offset)]);
        paged.extend(answer.payload().items().iter().map(|item| text(&item.value)));
    }
    assert_eq!(sorted(paged), expect(0..5));
    let fresh = |kmip: &mut Kmip| {
        let member = Item::enumeration(Tag::ObjectGroupMember, keystead_kmip::enumeration::ObjectGroupMember::GroupMemberFresh);
        kmip.call(Operation::Locate, vec![member, own(group("b").to_node())]).payload().items().len()
    };
    assert_eq!(fresh(&mut kmip), 2);
    kmip.get(&ids[3]);
    eventually("the first Get turns Fresh off", async || (fresh(&mut kmip) == 1).then_some(())).await;
    assert_eq!(kmip.attribute(&ids[3], "Fresh"), Some(Value::Boolean(false)));
}

/// A date that has not come yet, so that there is something to tell apart.
fn at_never(n: i64) -> Attribute<'static> {
    Attribute::new(Tag::DeactivationDate, Value::DateTime(4_000_000_000 + n))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_clients_never_get_one_name_and_never_overwrite_each_other() {
    let scene = scene().await;
    for round in 0..20 {
        let name = format!("name {round}");
        let won: Vec<bool> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| {
                    let (endpoint, name) = (scene.client.endpoint(scene.node.ekmip), name.clone());
                    scope.spawn(move || {
                        let answer = Kmip::connect(&endpoint).create(vec![Attribute::name(name)]);
                        assert!(matches!(answer.reason(), None | Some(ResultReason::InvalidField)), "{}", answer.message());
                        answer.reason().is_none()
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(won.iter().filter(|won| **won).count(), 1, "round {round}");
    }
    let id = scene.connect().created(vec![]);
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let (endpoint, id) = (scene.client.endpoint(scene.node.ekmip), id.clone());
            scope.spawn(move || {
                let mut kmip = Kmip::connect(&endpoint);
                for n in 0..10 {
                    let attribute = Attribute { identity: Identity::Custom(format!("x-{writer}-{n}").into()), index: 0, value: Value::Integer(n) };
                    kmip.call(Operation::AddAttribute, vec![uid(&id), own(attribute.to_node())]).id();
                }
            });
        }
    });
    let own_attributes = scene.connect().attribute_list(&id).into_iter().filter(|name| name.starts_with("x-")).count();
    assert_eq!(own_attributes, 40, "every acknowledged attribute is there");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ekmip_reachability_is_a_real_exchange() {
    let scene = scene().await;
    let look = async || scene.node.get(&format!("{}?fields=ekmip_reachability", scene.config)).await["ekmip_reachability"].clone();
    let own = scene.node.get("/cluster/nodes").await["records"][0]["uuid"].clone();
    let entry = look().await;
    assert_eq!(
        (&entry[0]["node"]["uuid"], &entry[0]["reachable"], &entry[0]["code"], &entry[0]["message"]),
        (&own, &json!(true), &json!("0"), &json!("")),
        "{entry}"
    );
    assert_eq!(entry.as_array().unwrap().len(), 1);
    // A node that seems to be there, and that nobody answers for.
    let dead = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let uuid = uuid::Uuid::from_u128(7);
    let record = json!({ "uuid": uuid, "name": "dead", "version": "0.1.0", "feature_level": 1, "address": dead, "ekmip_address": dead, "started": "2026-01-01T00:00:00Z" });
    let presence = json!({ "since": "2026-01-01T00:00:00Z" });
    let txn = keystead_store::Txn::new().put(format!("/nodes/{uuid}"), record.to_string()).put(format!("/presences/{uuid}"), presence.to_string());
    scene.store.inner().transact(txn).await.unwrap();
    let all_wrong = |entries: &serde_json::Value| entries.as_array().unwrap().iter().all(|entry| entry["reachable"] == false);
    let entries = eventually("the dead node must be noticed", async || Some(look().await).filter(all_wrong)).await;
    assert_eq!(entries.as_array().unwrap().len(), 2, "{entries}");
    let entry = |uuid: &serde_json::Value| entries.as_array().unwrap().iter().find(|entry| entry["node"]["uuid"] == *uuid).unwrap();
    for entry in [entry(&own), entry(&json!(uuid))] {
        assert_eq!((&entry["reachable"], &entry["code"]), (&json!(false), &json!("65537552")), "{entries}");
        assert!(entry["message"].as_str().unwrap().contains(&dead), "{entries}");
    }
    assert!(entry(&own)["message"].as_str().unwrap().contains("dead: "), "{entries}");
    assert!(entry(&json!(uuid))["message"].as_str().unwrap().contains("node dead cannot be asked: "), "{entries}");
    assert_eq!(scene.node.get("/security/aws-kms?fields=*").await["records"][0].get("ekmip_reachability"), None, "only when it is named");
}

/// The probe speaks as the SVM that is asked about: where that SVM has used up its places, it is not reachable, and another one is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ekmip_reachability_is_asked_as_that_svm() {
    let scene = scene_with("[ekmip]\nmax_connections_per_svm = 1\n", Hooks::default()).await;
    scene.node.svm("svm2").await;
    let other = enabled(&scene.node, &scene.kms, &scene.key, "svm2").await;
    let look = async |config: &str| scene.node.get(&format!("{config}?fields=ekmip_reachability")).await["ekmip_reachability"][0].clone();
    assert_eq!((look(&scene.config).await["reachable"].clone(), look(&other).await["reachable"].clone()), (json!(true), json!(true)));
    let mut held = scene.connect();
    held.created(vec![]);
    // Results are shared for a few seconds of the node's time.
    scene.clock.advance(Duration::from_secs(6));
    assert_eq!(look(&scene.config).await["reachable"], false);
    assert_eq!(look(&other).await["reachable"], true);
    drop(held);
    eventually("there is room again", async || {
        scene.clock.advance(Duration::from_secs(6));
        (look(&scene.config).await["reachable"] == true).then_some(())
    })
    .await;
}

/// A rekey that is overtaken by a block puts no KEK into memory, and goes on when the customer key is back.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_block_during_a_rekey_leaves_no_kek_behind() {
    let pause = PauseAt::new("rekey_internal.decrypt.after");
    let scene = scene_with("", Hooks { steps: pause.clone(), ..Hooks::default() }).await;
    let mut kmip = scene.connect();
    let id = kmip.created(vec![]);
    let material = kmip.get(&id).material();
    let (_, body) = scene.node.ask("POST", &format!("{}/rekey-internal", scene.config), Some(json!({}))).await;
    let job = body["job"]["uuid"].as_str().unwrap().to_owned();
    pause.reached().await;
    scene.block().await;
    pause.go();
    let ended = eventually("the job must end", async || {
        let job = scene.node.get(&format!("/cluster/jobs/{job}?fields=*")).await;
        (job["state"] != "running" && job["state"] != "queued").then_some(job)
    })
    .await;
    assert_eq!((&ended["state"], &ended["code"]), (&json!("failure"), &json!(65537556)), "{ended}");
    assert_eq!(kmip.create(vec![]).reason(), Some(ResultReason::PermissionDenied));
    assert_eq!(kmip.get(&id).reason(), Some(ResultReason::PermissionDenied));
    scene.kms.set_key_state(&scene.key, KeyState::Enabled).unwrap();
    eventually("the first good poll brings it back", async || {
        scene.clock.advance(Duration::from_secs(60 * 60));
        kmip.get(&id).reason().is_none().then_some(())
    })
    .await;
    assert_eq!(scene.node.ask("POST", &format!("{}/rekey-internal?return_timeout=30", scene.config), Some(json!({}))).await.0, 201);
    assert_eq!(kmip.get(&id).material(), material);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_blocked_svm_refuses_secrets_and_lets_the_rest_work() {
    let scene = scene().await;
    let mut kmip = scene.connect();
    let keys: Vec<String> = (0..3).map(|n| kmip.created(vec![Attribute::name(format!("k{n}"))])).collect();
    let material = kmip.get(&keys[0]).material();
    scene.block().await;
    let refused = [kmip.get(&keys[0]), kmip.create(vec![]), kmip.register(b"secret", &[]), kmip.with_id(Operation::ReKey, &keys[0])];
    for answer in refused {
        assert_eq!(answer.reason(), Some(ResultReason::PermissionDenied));
        assert!(answer.message().contains("blocked"), "the reason in words: {}", answer.message());
    }
    let rekey = scene.node.ask("POST", &format!("{}/rekey-internal?return_timeout=30", scene.config), None).await;
    assert_eq!(code(&rekey), "65537556", "{rekey:?}");
    assert_eq!(kmip.locate(&[Attribute::name("k1")]), [keys[1].as_str()]);
    assert_eq!(kmip.attribute(&keys[1], "State"), Some(Value::Enumeration(State::PreActive.number())));
    kmip.with_id(Operation::Activate, &keys[1]).id();
    revoke(&mut kmip, &keys[1], RevocationReasonCode::Superseded).id();
    kmip.with_id(Operation::Destroy, &keys[1]).id();
    scene.kms.set_key_state(&scene.key, KeyState::Enabled).unwrap();
    eventually("the first good poll brings it back", async || {
        scene.clock.advance(Duration::from_secs(60));
        kmip.get(&keys[0]).reason().is_none().then_some(())
    })
    .await;
    assert_eq!(kmip.get(&keys[0]).material(), material);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn code_65537106_while_live_keys_exist_and_delete_works_after_the_last() {
    let scene = scene().await;
    let mut kmip = scene.connect();
    let id = kmip.created(vec![]);
    let delete = async || scene.node.ask("DELETE", &format!("{}?return_timeout=30", scene.config), Some(json!({}))).await;
    let answer = delete().await;
    assert_eq!((answer.0, code(&answer).as_str()), (409, "65537106"));
    kmip.with_id(Operation::Destroy, &id).id();
    assert_eq!(kmip.attribute(&id, "State"), Some(Value::Enumeration(State::Destroyed.number())), "a destroyed key is still known");
    assert_eq!(delete().await.0, 200);
    for prefix in ["/keys/", "/destroyed-keys/", "/key-names/", "/keks/"] {
        assert!(scene.store.inner().range(Range::prefix(prefix, 9)).await.unwrap().entries.is_empty(), "{prefix}");
    }
    let answer = kmip.create(vec![]);
    assert_eq!(answer.reason(), Some(ResultReason::PermissionDenied), "{}", answer.message());
    enabled(&scene.node, &scene.kms, &scene.key, "svm1").await;
    kmip.created(vec![]);
}

/// Which versions of the KEK wrap keys, read from the store itself.
async fn versions(scene: &Scene) -> HashMap<u32, usize> {
    let mut versions = HashMap::new();
    let mut range = Range::prefix("/keys/", 1_000);
    loop {
        let page = scene.store.inner().range(range.clone()).await.unwrap();
        for entry in &page.entries {
            *versions.entry(u32::from_be_bytes(entry.value[1..5].try_into().unwrap())).or_default() += 1;
        }
        range.after = page.entries.last().map(|entry| entry.key.clone());
        if !page.more {
            return versions;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rekey_internal_while_gets_and_creates_go_on() {
    let scene = scene().await;
    let nothing = scene.node.ask("POST", &format!("{}/rekey-internal", scene.config), None).await;
    assert_eq!((nothing.0, code(&nothing).as_str()), (400, "65537559"), "no keys yet");
    let mut kmip = scene.connect();
    let mut keys: HashMap<String, Vec<u8>> = HashMap::new();
    for n in 0..250 {
        let id = kmip.created(vec![Attribute::name(format!("key {n}"))]);
        keys.insert(id.clone(), kmip.get(&id).material());
    }
    let (stop, gets) = (AtomicBool::new(false), AtomicUsize::new(0));
    let (made, answer) = std::thread::scope(|scope| {
        let (endpoint, stop, gets, keys) = (scene.client.endpoint(scene.node.ekmip), &stop, &gets, &keys);
        let reader = {
            let endpoint = endpoint.clone();
            scope.spawn(move || {
                let mut kmip = Kmip::connect(&endpoint);
                for (id, material) in keys.iter().cycle().take(1_000_000) {
                    if stop.load(Ordering::SeqCst) {
                        return;
                    }
                    assert_eq!(kmip.get(id).material(), *material);
                    gets.fetch_add(1, Ordering::SeqCst);
                }
            })
        };
        let writer = scope.spawn(move || {
            let mut kmip = Kmip::connect(&endpoint);
            let mut made = HashMap::new();
            while !stop.load(Ordering::SeqCst) && made.len() < 10_000 {
                let id = kmip.created(vec![]);
                let material = kmip.get(&id).material();
                kmip.call(Operation::AddAttribute, vec![uid(&id), own(Attribute::name(format!("late {id}")).to_node())]).id();
                made.insert(id, material);
            }
            made
        });
        let answer = tokio::task::block_in_place(|| {
            tokio::runtime::Handle::current().block_on(async {
                let answer = scene.node.ask("POST", &format!("{}/rekey-internal?return_timeout=60", scene.config), None).await;
                let again = scene.node.ask("POST", &format!("{}/rekey-internal?return_timeout=60", scene.config), None).await;
                assert_eq!(again.0, 201, "{again:?}");
                answer
            })
        });
        stop.store(true, Ordering::SeqCst);
        reader.join().unwrap();
        (writer.join().unwrap(), answer)
    });
    assert_eq!(answer.0, 201, "{answer:?}");
    assert!(gets.load(Ordering::SeqCst) > 0 && !made.is_empty());
    println!("{} keys before, {} made and {} Gets meanwhile", keys.len(), made.len(), gets.load(Ordering::SeqCst));
    keys.extend(made);
    assert_eq!(versions(&scene).await, HashMap::from([(3, keys.len())]), "all keys under the newest version, and none lost");
    let keks = scene.store.inner().range(Range::prefix("/keks/", 9)).await.unwrap().entries;
    assert_eq!(keks.len(), 1, "the older versions are retired");
    for (id, material) in &keys {
        assert_eq!(kmip.get(id).material(), *material, "byte for byte");
    }
    let job = scene.node.get("/cluster/jobs?fields=*").await["records"]
        .as_array()
        .unwrap()
        .iter()
        .find(|job| job["description"].as_str().unwrap().contains("rekey-internal"))
        .unwrap()
        .clone();
    assert!(job["message"].as_str().unwrap().contains("keys were wrapped again"), "{job}");
}

/// While two versions of the KEK wrap keys, what would change how AWS wraps it waits; restore loads both, and the next rekey-internal goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rekey_that_has_not_ended() {
    let scene = scene().await;
    let mut kmip = scene.connect();
    let id = kmip.created(vec![]);
    let material = kmip.get(&id).material();
    let svm = scene.svm_uuid("svm1").await;
    // As a rekey leaves it that was stopped after its first transaction.
    let store = scene.store.inner();
    let key_store = store.get(&format!("/key-stores/{svm}")).await.unwrap().unwrap();
    let mut record: serde_json::Value = serde_json::from_slice(&key_store.value).unwrap();
    record["state"] = json!("svm_kek_rekey");
    let txn = keystead_store::Txn::new().put(format!("/key-stores/{svm}"), record.to_string());
    store.transact(txn).await.unwrap();
    let external = eventually("the view must follow", async || {
        let answer = scene.node.ask("POST", &format!("{}/rekey-external?return_timeout=30", scene.config), Some(json!({ "key_id": scene.key }))).await;
        (answer.0 != 201).then_some(answer)
    })
    .await;
    assert_eq!(code(&external), "65537610", "{external:?}");
    assert_eq!(scene.node.ask("POST", &format!("{}/restore?return_timeout=30", scene.config), None).await.0, 201);
    assert_eq!(scene.node.ask("POST", &format!("{}/rekey-internal?return_timeout=30", scene.config), None).await.0, 201);
    assert_eq!(kmip.get(&id).material(), material);
    assert_eq!(scene.node.ask("POST", &format!("{}/rekey-external?return_timeout=30", scene.config), Some(json!({ "key_id": scene.key }))).await.0, 201);
    assert_eq!(kmip.get(&id).material(), material, "the keys do not notice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_survive_a_restart() {
    let scene = scene().await;
    let mut kmip = scene.connect();
    let mut keys = HashMap::new();
    for n in 0..20 {
        let id = kmip.created(vec![Attribute::name(format!("k{n}"))]);
        keys.insert(id.clone(), kmip.get(&id).material());
    }
    let secret = kmip.register(b"a secret of the client", &[]).id();
    let folder = scene.node.stop().await;
    let node = Node::start_in(folder.clone(), &toml_for(&scene.kms, folder.path()), Hooks::default()).await.unwrap();
    let mut kmip = Kmip::connect(&scene.client.endpoint(node.ekmip));
    eventually("the KEK must unwrap", async || kmip.get(&secret).reason().is_none().then_some(())).await;
    for (id, material) in &keys {
        assert_eq!(kmip.get(id).material(), *material);
    }
    assert_eq!(kmip.get(&secret).material(), b"a secret of the client");
    assert_eq!(kmip.locate(&[Attribute::name("k7")]).len(), 1);
    let taken = kmip.create(vec![Attribute::name("k7")]);
    assert_eq!(taken.reason(), Some(ResultReason::InvalidField), "the name is still taken");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn codes_65536082_and_65537544_of_restore() {
    let scene = scene().await;
    let restore = async || scene.node.ask("POST", &format!("{}/restore?return_timeout=30", scene.config), None).await;
    scene.kms.set_key_state(&scene.key, KeyState::Disabled).unwrap();
    assert_eq!(code(&restore().await), "65536082", "AWS does not unwrap");
    scene.kms.set_key_state(&scene.key, KeyState::Enabled).unwrap();
    assert_eq!(restore().await.0, 201);
    let svm = scene.svm_uuid("svm1").await;
    let keks = scene.store.inner().range(Range::prefix(format!("/keks/{svm}/"), 9)).await.unwrap().entries;
    scene.store.inner().transact(keystead_store::Txn::new().delete(keks[0].key.clone())).await.unwrap();
    assert_eq!(code(&restore().await), "65537544", "the wrapped KEK is missing");
}

/// A key's record that is not what was written is neither given out nor wrapped again, and nothing of it is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn code_65536884_of_a_rekey_where_a_key_is_damaged() {
    let scene = scene().await;
    let mut kmip = scene.connect();
    let id = kmip.created(vec![]);
    let material = kmip.get(&id).material();
    let store = scene.store.inner();
    let good = store.range(Range::prefix("/keys/", 9)).await.unwrap().entries.remove(0);
    let mut damaged = good.value.to_vec();
    damaged[20] ^= 1;
    store.transact(keystead_store::Txn::new().put(good.key.clone(), damaged)).await.unwrap();
    eventually("the view must follow", async || (kmip.get(&id).reason() == Some(ResultReason::CryptographicFailure)).then_some(())).await;
    let rekey = async || scene.node.ask("POST", &format!("{}/rekey-internal?return_timeout=30", scene.config), None).await;
    let answer = rekey().await;
    assert_eq!((answer.0, code(&answer).as_str()), (500, "65536884"));
    store.transact(keystead_store::Txn::new().put(good.key, good.value)).await.unwrap();
    eventually("the rekey must go on", async || (rekey().await.0 == 201).then_some(())).await;
    assert_eq!(kmip.get(&id).material(), material);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_are_given_out_wrapped_by_other_keys() {
    let scene = scene().await;
    let mut kmip = scene.connect();
    let past = || Attribute::new(Tag::ActivationDate, Value::DateTime(1));
    let kek = kmip.call(
        Operation::Create,
        vec![
            Item::enumeration(Tag::ObjectType, keystead_kmip::enumeration::ObjectType::SymmetricKey),
            common::kmip::template(&[
                Attribute::new(Tag::CryptographicAlgorithm, Value::Enumeration(3)),
                Attribute::new(Tag::CryptographicLength, Value::Integer(256)),
                Attribute::new(Tag::CryptographicUsageMask, Value::Integer(0x10)),
                past(),
            ]),
        ],
    );
    let (kek_id, key_id) = (kek.id(), kmip.created(vec![]));
    let (kek, key) = (kmip.get(&kek_id).material(), kmip.get(&key_id).material());
    let specification = |id: &str, mode: keystead_kmip::enumeration::BlockCipherMode| {
        let parameters = Item::structure(Tag::CryptographicParameters, vec![Item::enumeration(Tag::BlockCipherMode, mode)]);
        let information = Item::structure(Tag::EncryptionKeyInformation, vec![uid(id), parameters]);
        let encoding = Item::enumeration(Tag::EncodingOption, keystead_kmip::enumeration::EncodingOption::NoEncoding);
        Item::structure(
            Tag::KeyWrappingSpecification,
            vec![Item::enumeration(Tag::WrappingMethod, keystead_kmip::enumeration::WrappingMethod::Encrypt), information, encoding],
        )
    };
    use keystead_kmip::enumeration::BlockCipherMode::{AESKeyWrapPadding, CBC, NISTKeyWrap};
    for (mode, padding) in [(NISTKeyWrap, false), (AESKeyWrapPadding, true)] {
        let answer = kmip.call(Operation::Get, vec![uid(&key_id), specification(&kek_id, mode)]);
        let block = answer.payload().items().last().unwrap().find(Tag::KeyBlock).unwrap().clone();
        let Value::ByteString(wrapped) = &block.find(Tag::KeyValue).unwrap().value else { panic!("{block:?}") };
        assert_eq!(wrapped.as_ref(), keystead_keyring::material::aes_key_wrap(&kek, &key, padding).unwrap(), "{mode:?}");
        assert!(block.find(Tag::KeyWrappingData).is_some());
    }
    assert_eq!(kmip.call(Operation::Get, vec![uid(&key_id), specification(&kek_id, CBC)]).reason(), Some(ResultReason::FeatureNotSupported));
    assert_eq!(kmip.call(Operation::Get, vec![uid(&kek_id), specification(&key_id, NISTKeyWrap)]).reason(), Some(ResultReason::PermissionDenied), "not active");
    let sensitive = kmip.created(vec![Attribute::new(Tag::Sensitive, Value::Boolean(true))]);
    assert_eq!(kmip.get(&sensitive).reason(), Some(ResultReason::Sensitive));
    assert!(kmip.call(Operation::Get, vec![uid(&sensitive), specification(&kek_id, NISTKeyWrap)]).reason().is_none());
    let kept = kmip.created(vec![Attribute::new(Tag::Extractable, Value::Boolean(false))]);
    assert_eq!(kmip.call(Operation::Get, vec![uid(&kept), specification(&kek_id, NISTKeyWrap)]).reason(), Some(ResultReason::NotExtractable));
    let format = Item::enumeration(Tag::KeyFormatType, KeyFormatType::PKCS_8);
    assert_eq!(kmip.call(Operation::Get, vec![uid(&key_id), format]).reason(), Some(ResultReason::KeyFormatTypeNotSupported));
}

/// What libkmip's demos send (KMIP 1.0, a Maximum Response Size, no Unique Batch Item ID), taken from their own print-outs; the demos themselves pass too, where they can be built.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn libkmips_messages() {
    let scene = scene().await;
    let mut kmip = scene.connect();
    let mut call = |operation: Operation, limit: i32, payload: Vec<Item<'static>>| {
        let version = Item::structure(Tag::ProtocolVersion, vec![Item::integer(Tag::ProtocolVersionMajor, 1), Item::integer(Tag::ProtocolVersionMinor, 0)]);
        let header = Item::structure(Tag::RequestHeader, vec![version, Item::integer(Tag::MaximumResponseSize, limit), Item::integer(Tag::BatchCount, 1)]);
        let item = Item::structure(Tag::BatchItem, vec![Item::enumeration(Tag::Operation, operation), Item::structure(Tag::RequestPayload, payload)]);
        let mut bytes = Vec::new();
        keystead_kmip::ttlv::encode(&Item::structure(Tag::RequestMessage, vec![header, item]), &mut bytes);
        let answer = kmip.raw(&bytes).unwrap();
        assert!(answer.find(Tag::BatchItem).unwrap().find(Tag::UniqueBatchItemID).is_none());
        common::kmip::Answer(answer.find(Tag::BatchItem).unwrap().clone())
    };
    let template = common::kmip::template(&[
        Attribute::new(Tag::CryptographicAlgorithm, Value::Enumeration(3)),
        Attribute::new(Tag::CryptographicLength, Value::Integer(256)),
        Attribute::new(Tag::CryptographicUsageMask, Value::Integer(12)),
    ]);
    let kind = Item::enumeration(Tag::ObjectType, keystead_kmip::enumeration::ObjectType::SymmetricKey);
    let id = call(Operation::Create, 8_192, vec![kind, template]).id();
    assert_eq!(call(Operation::Get, 8_192, vec![uid(&id)]).material().len(), 32);
    assert_eq!(call(Operation::Get, 100, vec![uid(&id)]).reason(), Some(ResultReason::ResponseTooLarge));
    assert_eq!(call(Operation::Destroy, 8_192, vec![uid(&id)]).id(), id);
    assert_eq!(call(Operation::Get, 8_192, vec![uid(&id)]).reason(), Some(ResultReason::ItemNotFound));
}

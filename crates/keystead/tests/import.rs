//! `keystead ekmip import`, the program itself, from one SVM to another and from servers that are none.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use crate::common;

use common::import::{Run, Two};
use common::kmip::{Kmip, own, text, uid};
use common::{eventually, run::pauses};
use keystead_kmip::Tag;
use keystead_kmip::attribute::{Attribute, Identity};
use keystead_kmip::enumeration::{CertificateType, KeyFormatType, ObjectType, Operation, RevocationReasonCode};
use keystead_kmip::ttlv::{Node as Item, Value};
use serde_json::Value as Json;
use std::collections::BTreeMap;

/// What an object is, as far as anybody can see: type, bytes and attributes, but for those that are the server's.
type Seen = BTreeMap<String, (Item<'static>, Vec<Item<'static>>)>;

/// All objects of a client's SVM.
fn seen(kmip: &mut Kmip) -> Seen {
    let ids = kmip.locate(&[]);
    ids.into_iter()
        .map(|id| {
            let got = kmip.get(&id);
            let object = got.payload().items().last().unwrap().clone();
            let attributes = kmip.with_id(Operation::GetAttributes, &id);
            let mark = |item: &Item<'_>| item.find(Tag::AttributeName).is_some_and(|name| text(&name.value).starts_with("Keystead-Import-"));
            let mut items: Vec<Item<'static>> = attributes.payload().find(Tag::Attributes).unwrap().items().to_vec();
            // Reading turns Fresh off, and the mark is what the import adds.
            items.retain(|item| item.tag != Tag::Fresh && !mark(item));
            (id, (object, items))
        })
        .collect()
}

fn register(kmip: &mut Kmip, kind: ObjectType, object: Item<'static>, attributes: &[Attribute<'static>]) -> String {
    let given = kmip.given(attributes);
    kmip.call(Operation::Register, vec![Item::enumeration(Tag::ObjectType, kind), given, object]).id()
}

fn block(tag: Tag, format: KeyFormatType, material: &[u8], algorithm: u32, bits: i32) -> Item<'static> {
    let value = Item::structure(Tag::KeyValue, vec![Item::bytes(Tag::KeyMaterial, material.to_vec())]);
    let items = vec![
        Item::enumeration(Tag::KeyFormatType, format),
        value,
        Item::new(Tag::CryptographicAlgorithm, Value::Enumeration(algorithm)),
        Item::integer(Tag::CryptographicLength, bits),
    ];
    Item::structure(tag, vec![Item::structure(Tag::KeyBlock, items)])
}

fn custom(name: &'static str, value: &'static str) -> Attribute<'static> {
    Attribute { identity: Identity::Custom(name.into()), index: 0, value: Value::TextString(value.into()) }
}

fn mask(mask: i32) -> Attribute<'static> {
    Attribute::new(Tag::CryptographicUsageMask, Value::Integer(mask))
}

fn revoke(kmip: &mut Kmip, id: &str, code: RevocationReasonCode) {
    let reason =
        Item::structure(Tag::RevocationReason, vec![Item::enumeration(Tag::RevocationReasonCode, code), Item::text(Tag::RevocationMessage, "as told")]);
    kmip.call(Operation::Revoke, vec![uid(id), reason]).id();
}

/// Objects of all types, in all states, with all kinds of attributes.
fn fill(kmip: &mut Kmip) -> usize {
    let one = kmip.created(vec![
        Attribute::name("pre-active"),
        Attribute::name("second name"),
        custom("x-Barcode", "7"),
        custom("x-Barcode", "8"),
        custom("acme.com-Rack", "9"),
        Attribute::new(Tag::ObjectGroup, Value::TextString("group".into())),
        Attribute::new(Tag::ContactInformation, Value::TextString("storage team".into())),
        Attribute::new(Tag::ActivationDate, Value::DateTime(4_000_000_000)),
        Attribute::new(Tag::DeactivationDate, Value::DateTime(4_100_000_000)),
        Attribute::new(Tag::ProtectionPeriod, Value::Interval(7)),
    ]);
    let active = kmip.created(vec![Attribute::name("active"), Attribute::new(Tag::ActivationDate, Value::DateTime(1))]);
    let link = vec![Item::enumeration(Tag::LinkType, keystead_kmip::enumeration::LinkType::PreviousLink), Item::text(Tag::LinkedObjectIdentifier, active)];
    let deactivated = kmip.created(vec![Attribute::name("deactivated"), Attribute::new(Tag::Link, Value::Structure(link))]);
    kmip.with_id(Operation::Activate, &deactivated).id();
    revoke(kmip, &deactivated, RevocationReasonCode::CessationOfOperation);
    let compromised = kmip.created(vec![Attribute::name("compromised")]);
    revoke(kmip, &compromised, RevocationReasonCode::KeyCompromise);
    let limits = vec![
        Item::new(Tag::UsageLimitsTotal, Value::LongInteger(100)),
        Item::new(Tag::UsageLimitsCount, Value::LongInteger(100)),
        Item::enumeration(Tag::UsageLimitsUnit, keystead_kmip::enumeration::UsageLimitsUnit::Byte),
    ];
    let counted = kmip.created(vec![
        Attribute::name("counted"),
        Attribute::new(Tag::UsageLimits, Value::Structure(limits)),
        Attribute::new(Tag::ActivationDate, Value::DateTime(1)),
    ]);
    kmip.call(Operation::GetUsageAllocation, vec![uid(&counted), Item::new(Tag::UsageLimitsCount, Value::LongInteger(40))]).id();
    kmip.register(b"a pass-phrase", &[Attribute::name("secret data")]).id();
    let opaque = Item::structure(
        Tag::OpaqueObject,
        vec![Item::new(Tag::OpaqueDataType, Value::Enumeration(0x8000_0000)), Item::bytes(Tag::OpaqueDataValue, b"anything \xff".to_vec())],
    );
    register(kmip, ObjectType::OpaqueObject, opaque, &[Attribute::name("opaque")]);
    let made = rcgen::generate_simple_self_signed(vec!["moved".to_owned()]).unwrap();
    let certificate = vec![Item::enumeration(Tag::CertificateType, CertificateType::X_509), Item::bytes(Tag::CertificateValue, made.cert.der().to_vec())];
    register(kmip, ObjectType::Certificate, Item::structure(Tag::Certificate, certificate), &[Attribute::name("certificate"), mask(2)]);
    let private = block(Tag::PrivateKey, KeyFormatType::PKCS_8, &made.signing_key.serialize_der(), 26, 256);
    register(kmip, ObjectType::PrivateKey, private, &[Attribute::name("private"), mask(1)]);
    let public = block(Tag::PublicKey, KeyFormatType::Raw, made.signing_key.public_key_raw(), 26, 256);
    register(kmip, ObjectType::PublicKey, public, &[Attribute::name("public"), mask(2)]);
    let number = |tag, byte: u8| Item::new(tag, Value::BigInteger(vec![0, 0, 0, 0, 0, 1, 0, byte].into()));
    let numbers = Item::structure(Tag::KeyMaterial, vec![number(Tag::Modulus, 3), number(Tag::PublicExponent, 1)]);
    let items = vec![
        Item::enumeration(Tag::KeyFormatType, KeyFormatType::TransparentRSAPublicKey),
        Item::structure(Tag::KeyValue, vec![numbers]),
        Item::new(Tag::CryptographicAlgorithm, Value::Enumeration(4)),
        Item::integer(Tag::CryptographicLength, 2_048),
    ];
    let transparent = Item::structure(Tag::PublicKey, vec![Item::structure(Tag::KeyBlock, items)]);
    register(kmip, ObjectType::PublicKey, transparent, &[Attribute::name("transparent"), mask(2)]);
    let large = block(Tag::SymmetricKey, KeyFormatType::Raw, &[0xa5; 64], 3, 512);
    register(kmip, ObjectType::SymmetricKey, large, &[Attribute::name("of two keys"), mask(12)]);
    assert!(!one.is_empty());
    kmip.locate(&[]).len()
}

fn outcomes(report: &Json) -> BTreeMap<String, (String, Option<String>)> {
    let entries = report["objects"].as_array().unwrap().iter();
    let text = |value: &Json| value.as_str().map(str::to_owned);
    entries.map(|entry| (text(&entry["source_id"]).unwrap(), (text(&entry["outcome"]).unwrap(), text(&entry["reason"]["code"])))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_types_states_and_attributes_come_over_and_a_second_run_does_nothing() {
    let two = Two::new().await;
    let count = fill(&mut two.source());
    let before = seen(&mut two.source());

    let rehearsed = two.run(&["--dry-run"]);
    assert_eq!((rehearsed.code, rehearsed.total("would_move")), (0, count), "{}", rehearsed.said);
    assert!(two.there().locate(&[]).is_empty(), "nothing is written");

    let first = two.run(&[]);
    assert_eq!((first.code, first.total("moved")), (0, count), "{}", first.said);
    assert!(first.said.contains(&format!("{count} of {count}: {count} moved")), "{}", first.said);
    let mut there = two.there();
    let after = seen(&mut there);
    assert_eq!(before.len(), after.len());
    for (id, (object, attributes)) in &before {
        let (object_there, attributes_there) = &after[id];
        assert!(object == object_there, "{id}: the same object under the same identifier");
        assert!(attributes == attributes_there, "{id}: {attributes:#?}\n{attributes_there:#?}");
    }
    for entry in first.report["objects"].as_array().unwrap() {
        assert_eq!((&entry["source_id"], entry["notes"].as_array().unwrap().len()), (&entry["destination_id"], 0), "{entry}");
    }
    assert_eq!(there.locate(&[custom("x-Keystead-Import-Source", Box::leak(two.scene.node.ekmip.to_string().into_boxed_str()))]).len(), count);

    let again = two.run(&[]);
    assert_eq!((again.code, again.total("already_there"), again.total("moved")), (0, count, 0), "{}", again.said);
    assert!(seen(&mut there) == after, "nothing has changed, not even a date");

    // At 1.x as well, where they stand otherwise in messages.
    let old = two.run(&["--source-version", "1.2", "--source-name", &two.scene.node.ekmip.to_string()]);
    assert_eq!((old.code, old.total("already_there")), (0, count), "{}", old.said);

    for (object, _) in before.values() {
        let mut bytes = Vec::new();
        keystead_kmip::ttlv::encode(object, &mut bytes);
        let planted: Vec<&[u8]> = [&b"a pass-phrase"[..], &[0xa5; 64][..]].into();
        for run in [&first, &again, &rehearsed] {
            run.holds_nothing_of(&bytes);
            planted.iter().for_each(|secret| run.holds_nothing_of(secret));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_any_moment_it_goes_on_and_makes_nothing_twice() {
    let two = Two::new().await;
    let mut source = two.source();
    let keys: BTreeMap<String, Vec<u8>> = (0..60)
        .map(|n| {
            let id = source.created(vec![Attribute::name(format!("volume {n}")), Attribute::new(Tag::ActivationDate, Value::DateTime(1))]);
            let material = source.get(&id).material();
            (id, material)
        })
        .collect();
    let mut killed = 0;
    for pause in pauses(12) {
        let mut child = Run::start(two.folder.path(), &two.arguments(), &[]);
        // Random moments are what is wanted here; at whichever it dies, what follows must hold.
        tokio::time::sleep(pause).await;
        killed += usize::from(child.try_wait().unwrap().is_none());
        let _ = child.kill();
        child.wait().unwrap();
        let mut there = two.there();
        for id in there.locate(&[]) {
            assert_eq!(there.get(&id).material(), keys[&id], "what is there is whole");
            assert_eq!(there.attribute(&id, "State"), Some(Value::Enumeration(2)));
        }
    }
    println!("killed {killed} of 12 runs");
    let last = two.run(&[]);
    assert_eq!((last.code, last.total("moved") + last.total("already_there")), (0, keys.len()), "{}", last.said);
    let mut there = two.there();
    let mut ids = there.locate(&[]);
    ids.sort();
    assert_eq!(ids, keys.keys().cloned().collect::<Vec<_>>(), "each once");
    assert_eq!(two.run(&[]).total("already_there"), keys.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_moved_is_said_with_what_to_do() {
    let two = Two::new().await;
    let (mut source, mut there) = (two.source(), two.there());
    let flag = |tag, value| Attribute::new(tag, Value::Boolean(value));
    let kept = source.created(vec![Attribute::name("kept"), flag(Tag::Extractable, false)]);
    let sensitive = source.created(vec![Attribute::name("sensitive"), flag(Tag::Sensitive, true)]);
    let collides = source.created(vec![Attribute::name("taken"), Attribute::name("free")]);
    let owner = there.created(vec![Attribute::name("taken")]);
    let fine = source.created(vec![Attribute::name("fine")]);
    let removed = source.created(vec![]);
    source.with_id(Operation::Destroy, &removed).id();
    let template = Item::structure(Tag::Template, vec![own(mask(12).to_node())]);
    let mut old = two.scene.at(4);
    let template = register(&mut old, ObjectType::Template, template, &[Attribute::name("template")]);
    // Another object under an identifier of the source.
    let shadowed = source.created(vec![]);
    let other = block(Tag::SymmetricKey, KeyFormatType::Raw, &[7; 32], 3, 256);
    let attributes = common::kmip::held(Tag::Attributes, &[mask(12)]);
    there.call(Operation::Import, vec![uid(&shadowed), Item::enumeration(Tag::ObjectType, ObjectType::SymmetricKey), attributes, other]).id();

    let run = two.run(&["--source-version", "1.4"]);
    assert_eq!(run.code, 3, "{}", run.said);
    let (mut outcomes, why) = (outcomes(&run.report), |code: &str| ("not_moved".to_owned(), Some(code.to_owned())));
    for (id, code) in
        [(&kept, "NotExtractable"), (&sensitive, "Sensitive"), (&collides, "NameTaken"), (&shadowed, "IdentifierTaken"), (&template, "ObjectTypeNotSupported")]
    {
        assert_eq!(outcomes.remove(id), Some(why(code)), "{}", run.said);
        assert!(run.said.contains(id.as_str()), "{}", run.said);
    }
    assert_eq!(outcomes.remove(&fine), Some(("moved".to_owned(), None)));
    assert!(outcomes.is_empty(), "{outcomes:?}");
    assert!(run.said.contains(&owner) && run.said.contains("--drop-taken-names"), "{}", run.said);
    for entry in run.report["objects"].as_array().unwrap().iter().filter(|entry| entry["outcome"] == "not_moved") {
        assert!(!entry["reason"]["advice"].as_str().unwrap().is_empty() && !entry["reason"]["message"].as_str().unwrap().is_empty(), "{entry}");
    }

    let run = two.run(&["--drop-taken-names", "--name", "free"]);
    assert_eq!((run.code, run.total("moved")), (0, 1), "{}", run.said);
    assert_eq!(run.report["objects"][0]["notes"][0]["attribute"], "Name");
    assert_eq!(there.locate(&[Attribute::name("free")]), [collides.as_str()]);
    assert_eq!(there.locate(&[Attribute::name("taken")]), [owner.as_str()]);

    // What was imported and then destroyed does not come back.
    there.with_id(Operation::Destroy, &fine).id();
    let run = two.run(&["--name", "fine"]);
    assert_eq!((run.code, outcomes_of(&run.report, &fine)), (3, "DestroyedHere".to_owned()), "{}", run.said);
}

fn outcomes_of(report: &Json, id: &str) -> String {
    outcomes(report).remove(id).and_then(|(_, code)| code).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fips_mode_and_a_client_that_is_revoked() {
    let two = Two::new().await;
    let mut source = two.source();
    let des = block(Tag::SymmetricKey, KeyFormatType::Raw, &[7; 24], 2, 168);
    let des = register(&mut source, ObjectType::SymmetricKey, des, &[mask(12), Attribute::name("des")]);
    source.created(vec![]);
    assert_eq!(
        two.scene.node.ask("PATCH", "/security", Some(serde_json::json!({ "fips": { "enabled": true }, "keystead": { "force": true } }))).await.0 / 100,
        2
    );
    let run = eventually("FIPS mode must refuse it", async || Some(two.run(&[])).filter(|run| run.code == 3)).await;
    assert_eq!(outcomes_of(&run.report, &des), "FeatureNotSupported", "{}", run.said);
    assert!(run.said.contains("FIPS mode"), "{}", run.said);

    // The certificate for the destination is revoked: nothing is moved, and it is said who refuses.
    let path = format!("/security/ekmip/clients/{}", two.destination.uuid);
    assert_eq!(two.scene.node.ask("DELETE", &path, None).await.0, 200);
    let run = eventually("a revoked client must be refused", async || Some(two.run(&["--retries", "0"])).filter(|run| run.code == 1)).await;
    assert!(run.said.contains("destination"), "{}", run.said);
    assert!(run.report["objects"].as_array().unwrap().is_empty() && run.report["complete"] == false, "{}", run.said);
}

#[test]
fn the_command_line_says_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let help = Run::plain(folder.path(), &["ekmip", "import", "--help"]);
    assert_eq!(help.code, 0);
    for word in ["--source-cert", "--destination-key", "--report", "--dry-run", "--source-version", "Exit codes"] {
        assert!(help.said.contains(word), "{word}: {}", help.said);
    }
    let missing = Run::plain(folder.path(), &["ekmip", "import", "--source", "a:1"]);
    assert_eq!(missing.code, 2);
    assert!(missing.said.contains("see keystead ekmip import --help"), "{}", missing.said);
    let none: Vec<String> = ["source", "destination"]
        .iter()
        .flat_map(|side| {
            let files = ["ca", "cert", "key"].map(|file| [format!("--{side}-{file}"), format!("{file}-that-is-not-there")]).concat();
            [format!("--{side}"), "127.0.0.1:1".to_owned()].into_iter().chain(files).collect::<Vec<_>>()
        })
        .collect();
    let run = Run::of(folder.path(), &none, &[]);
    assert_eq!(run.code, 1);
    assert!(run.said.contains("ca-that-is-not-there cannot be read"), "{}", run.said);
}

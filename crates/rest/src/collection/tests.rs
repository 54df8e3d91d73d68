//! Lists against a model that does everything the plain way: all records in memory, one test after the other.

use super::*;
use crate::field::Field;
use proptest::prelude::*;
use std::collections::BTreeSet;

#[derive(Debug, Clone, PartialEq, Eq)]
struct Thing {
    id: i64,
    name: Option<String>,
    size: Option<i64>,
    tags: Vec<String>,
}

const THING: Resource<Thing> = Resource {
    name: "thing",
    path: "/api/things",
    fields: &[
        Field::shown("id", As::Integer, Show::Key, |thing| Cell::Integer(thing.id), ""),
        Field::shown("name", As::Text, Show::Standard, |thing| Cell::maybe(thing.name.as_ref()), ""),
        Field::shown("space.size", As::Integer, Show::Standard, |thing| thing.size.map_or(Cell::Null, Cell::Integer), ""),
        Field::shown("tags", As::Texts, Show::Standard, |thing| Cell::texts(&thing.tags), ""),
    ],
    order: &[("id", false)],
    links: &[],
};

/// A query as a tree: its text is made from it, and the model answers by it.
#[derive(Debug, Clone)]
enum Model {
    Is(String),
    Like(Vec<Option<char>>),
    Null,
    Less(String),
    AtMost(String),
    More(String),
    AtLeast(String),
    Between(String, String),
    Not(Box<Model>),
    Or(Vec<Model>),
}

impl Model {
    fn text(&self) -> String {
        match self {
            Self::Is(text) => quoted(text),
            Self::Like(pattern) => pattern.iter().map(|c| c.map_or_else(|| "*".to_owned(), |c| quoted(&c.to_string()))).collect(),
            Self::Null => "null".to_owned(),
            Self::Less(text) => format!("<{}", quoted(text)),
            Self::AtMost(text) => format!("<={}", quoted(text)),
            Self::More(text) => format!(">{}", quoted(text)),
            Self::AtLeast(text) => format!(">={}", quoted(text)),
            Self::Between(low, high) => format!("{}..{}", quoted(low), quoted(high)),
            Self::Not(inner) => format!("!{}", inner.text()),
            Self::Or(all) => all.iter().map(Self::text).collect::<Vec<_>>().join("|"),
        }
    }

    fn holds(&self, value: Option<&str>, compare: fn(&str, &str) -> std::cmp::Ordering) -> bool {
        match (self, value) {
            (Self::Not(inner), value) => !inner.holds(value, compare),
            (Self::Or(all), value) => all.iter().any(|inner| inner.holds(value, compare)),
            (Self::Null, value) => value.is_none(),
            (_, None) => false,
            (Self::Is(text), Some(value)) => compare(value, text).is_eq(),
            (Self::Like(pattern), Some(value)) => like(pattern, &value.chars().collect::<Vec<_>>()),
            (Self::Less(text), Some(value)) => compare(value, text).is_lt(),
            (Self::AtMost(text), Some(value)) => compare(value, text).is_le(),
            (Self::More(text), Some(value)) => compare(value, text).is_gt(),
            (Self::AtLeast(text), Some(value)) => compare(value, text).is_ge(),
            (Self::Between(low, high), Some(value)) => compare(value, low).is_ge() && compare(value, high).is_le(),
        }
    }
}

/// What the language has a meaning for stands in quotes or braces; both ways, by turns.
fn quoted(text: &str) -> String {
    let special = |c: char| "|!*<>=.\"{}\\".contains(c);
    if text.is_empty() || text == "null" {
        return format!("\"{text}\"");
    }
    let one = |c: char| match c {
        c if !special(c) => c.to_string(),
        '"' | '\\' | '{' | '}' => format!("\"\\{c}\""),
        c => format!("{{{c}}}"),
    };
    text.chars().map(one).collect()
}

fn like(pattern: &[Option<char>], text: &[char]) -> bool {
    match pattern.split_first() {
        None => text.is_empty(),
        Some((None, rest)) => (0..=text.len()).any(|at| like(rest, &text[at..])),
        Some((Some(c), rest)) => text.first() == Some(c) && like(rest, &text[1..]),
    }
}

fn by_text(one: &str, other: &str) -> std::cmp::Ordering {
    one.cmp(other)
}

fn by_number(one: &str, other: &str) -> std::cmp::Ordering {
    one.parse::<i64>().unwrap().cmp(&other.parse::<i64>().unwrap())
}

fn tree(leaf: BoxedStrategy<Model>) -> BoxedStrategy<Model> {
    let or = |inner: BoxedStrategy<Model>| proptest::collection::vec(inner, 1..4).prop_map(Model::Or).boxed();
    let negated = prop_oneof![leaf.clone(), leaf.prop_map(|leaf| Model::Not(Box::new(leaf)))].boxed();
    or(negated)
}

fn text_model() -> BoxedStrategy<Model> {
    let text = || "[ab|!*<.\"{}\\\\]{0,3}|null";
    let bound = || "[ab|!*<.\"{}\\\\]{1,3}";
    tree(
        prop_oneof![
            text().prop_map(Model::Is),
            proptest::collection::vec(proptest::option::of(prop::char::range('a', 'b')), 1..5)
                .prop_filter("a pattern has a star", |pattern| pattern.contains(&None))
                .prop_map(Model::Like),
            Just(Model::Null),
            bound().prop_map(Model::Less),
            bound().prop_map(Model::AtMost),
            bound().prop_map(Model::More),
            bound().prop_map(Model::AtLeast),
            (bound(), bound()).prop_map(|(low, high)| Model::Between(low, high)),
        ]
        .boxed(),
    )
}

fn number_model() -> BoxedStrategy<Model> {
    let number = || (-3i64..4).prop_map(|number| number.to_string());
    tree(
        prop_oneof![
            number().prop_map(Model::Is),
            Just(Model::Null),
            number().prop_map(Model::Less),
            number().prop_map(Model::AtMost),
            number().prop_map(Model::More),
            number().prop_map(Model::AtLeast),
            (number(), number()).prop_map(|(low, high)| Model::Between(low, high)),
        ]
        .boxed(),
    )
}

fn things() -> impl Strategy<Value = Vec<Thing>> {
    let thing = (
        proptest::option::weighted(0.8, "[ab|!*<.\"{}\\\\]{0,3}|null"),
        proptest::option::weighted(0.8, -3i64..4),
        proptest::collection::vec("[ab]{1,2}", 0..3),
    );
    proptest::collection::vec(thing, 0..25).prop_map(|things| {
        things.into_iter().enumerate().map(|(id, (name, size, tags))| Thing { id: i64::try_from(id).unwrap() * 10, name, size, tags }).collect()
    })
}

fn listing(parameters: &[(&str, String)]) -> Result<Listing<Thing>> {
    let encode = |text: &str| percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string();
    let raw: Vec<String> = parameters.iter().map(|(name, value)| format!("{name}={}", encode(value))).collect();
    Listing::parse(&THING, &Query::parse(&raw.join("&"))?)
}

fn ids(found: Found<Thing>) -> Vec<i64> {
    let mut text = b"[".to_vec();
    let mut write = found.writing();
    while write(&mut text) {}
    text.push(b']');
    let records: Json = serde_json::from_slice(&text).unwrap();
    records.as_array().unwrap().iter().map(|record| record["id"].as_i64().unwrap()).collect()
}

proptest! {
    #[test]
    fn filters_say_what_the_model_says(things in things(), name in text_model(), size in number_model(), tags in text_model()) {
        let listing = listing(&[("name", name.text()), ("space.size", size.text()), ("tags", tags.text())]).unwrap();
        // A list of texts: one that passes is enough, but for what is negated, which must hold for none.
        let has_tag = |model: &Model, thing: &Thing| match model {
            Model::Or(all) => all.iter().any(|one| {
                let any = |inner: &Model| if thing.tags.is_empty() { inner.holds(None, by_text) } else { thing.tags.iter().any(|tag| inner.holds(Some(tag), by_text)) };
                match one {
                    Model::Not(inner) => !any(inner),
                    inner => any(inner),
                }
            }),
            _ => unreachable!("the tree begins with an or"),
        };
        let number = |thing: &Thing| thing.size.map(|size| size.to_string());
        let expected: Vec<i64> = things
            .iter()
            .filter(|thing| name.holds(thing.name.as_deref(), by_text) && size.holds(number(thing).as_deref(), by_number) && has_tag(&tags, thing))
            .map(|thing| thing.id)
            .collect();
        prop_assert_eq!(ids(listing.page(things.into_iter(), false)), expected);
    }

    /// Pages that follow each other show each record once that is there all the time, in the order that was asked for, whatever else comes and goes.
    #[test]
    fn pages_hold_under_change(
        things in things(),
        order in prop::sample::select(vec!["", "name", "name desc", "space.size", "space.size desc,name", "id desc"]),
        limit in 1usize..6,
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<bool>()), 0..20),
        shuffle in any::<bool>(),
    ) {
        let mut now = things.clone();
        let mut ever = things.clone();
        let mut gone = BTreeSet::new();
        let mut shown: Vec<i64> = Vec::new();
        let mut start: Option<String> = None;
        let mut changes = changes.into_iter();
        let mut pages = 0;
        loop {
            let mut parameters = vec![("order_by", order.to_owned()), ("max_records", limit.to_string())];
            parameters.extend(start.take().map(|start| ("start", start)));
            let mut records = now.clone();
            if shuffle {
                records.reverse();
            }
            let mut found = listing(&parameters).unwrap().page(records.into_iter(), false);
            let (count, next) = (found.count(), found.next.take());
            let page = ids(found);
            prop_assert_eq!(page.len(), count);
            prop_assert!(page.len() <= limit);
            shown.extend(page);
            pages += 1;
            prop_assert!(pages < 200);
            let Some(next) = next else { break };
            start = Some(next);
            // One goes, one comes.
            if let Some((index, removes)) = changes.next() && !now.is_empty() {
                let at = index.index(now.len());
                let one = if removes { now.remove(at) } else { now[at].clone() };
                if removes {
                    gone.insert(one.id);
                } else if !now.iter().any(|other| other.id == one.id + 1) {
                    let new = Thing { id: one.id + 1, ..one };
                    now.push(new.clone());
                    if !ever.contains(&new) {
                        ever.push(new);
                    }
                }
            }
        }
        let unique: BTreeSet<i64> = shown.iter().copied().collect();
        prop_assert_eq!(unique.len(), shown.len(), "one came twice: {:?}", shown);
        let sorted = ids(listing(&[("order_by", order.to_owned())]).unwrap().page(ever.into_iter(), false));
        let stayed: Vec<i64> = things.iter().map(|thing| thing.id).filter(|id| !gone.contains(id)).collect();
        for id in &stayed {
            prop_assert!(unique.contains(id), "{id} was left out");
        }
        let expected: Vec<i64> = sorted.into_iter().filter(|id| unique.contains(id)).collect();
        prop_assert_eq!(shown, expected);
    }

    #[test]
    fn no_text_panics(query in "\\PC{0,40}", fields in "\\PC{0,40}", order in "\\PC{0,20}", start in "[A-Za-z0-9_-]{0,40}") {
        let _ = listing(&[("name", query.clone())]);
        let _ = listing(&[("space.size", query.clone()), ("fields", fields)]);
        let _ = listing(&[("order_by", order), ("start", start)]);
        let _ = listing(&[("query", query), ("query_fields", "*".to_owned())]);
    }
}

fn three() -> Vec<Thing> {
    let thing = |id, name: &str, size| Thing { id, name: Some(name.to_owned()), size, tags: vec![] };
    vec![thing(1, "b", Some(10)), thing(2, "a", None), thing(3, "a", Some(9))]
}

fn code(parameters: &[(&str, &str)]) -> Code {
    let parameters: Vec<_> = parameters.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
    listing(&parameters).err().expect("a refusal").code
}

#[test]
fn numbers_are_sorted_as_numbers_and_what_is_missing_comes_first() {
    let sorted = |order: &str| ids(listing(&[("order_by", order.to_owned())]).unwrap().page(three().into_iter(), false));
    assert_eq!(sorted("space.size"), [2, 3, 1]);
    assert_eq!(sorted("space.size desc"), [1, 3, 2]);
    assert_eq!(sorted("name,space.size desc"), [3, 2, 1]);
    assert_eq!(sorted(" name asc , id desc "), [3, 2, 1]);
}

#[test]
fn a_search_looks_through_fields() {
    let found =
        |query: &str, fields: &str| ids(listing(&[("query", query.to_owned()), ("query_fields", fields.to_owned())]).unwrap().page(three().into_iter(), false));
    assert_eq!(found("a", "name"), [2, 3]);
    assert_eq!(found("1*", "*"), [1]);
    assert_eq!(found("9|b", "name,space.size"), [1, 3]);
    assert_eq!(code(&[("query", "a")]), Code::QueryFieldsMissing);
    assert_eq!(code(&[("query_fields", "a")]), Code::QueryMissing);
    assert_eq!(code(&[("query", ""), ("query_fields", "name")]), Code::EmptyQuery);
    assert_eq!(code(&[("query", "a"), ("query_fields", "")]), Code::EmptyQueryFields);
    assert_eq!(code(&[("query", "a"), ("query_fields", "nope")]), Code::UnknownQueryField);
}

#[test]
fn pages_by_offset() {
    let page = |offset: usize| listing(&[("offset", offset.to_string()), ("max_records", "1".to_owned())]).unwrap().page(three().into_iter(), false);
    assert_eq!((ids(page(0)), page(0).next.is_some()), (vec![1], true));
    assert_eq!((ids(page(2)), page(2).next.is_some()), (vec![3], false));
    assert_eq!(ids(page(9)), Vec::<i64>::new());
    assert_eq!(code(&[("offset", "x")]), Code::InvalidValue);
}

#[test]
fn bad_parameters_have_their_codes() {
    assert_eq!(code(&[("nope", "1")]), Code::UnknownField);
    assert_eq!(code(&[("order_by", "nope")]), Code::NotSortable);
    assert_eq!(code(&[("order_by", "tags")]), Code::NotSortable);
    assert_eq!(code(&[("order_by", "name up")]), Code::NotSortable);
    assert_eq!(code(&[("order_by", "name asc desc")]), Code::NotSortable);
    assert_eq!(code(&[("start", "nonsense")]), Code::InvalidValue);
    let of_another_order = listing(&[("max_records", "1".to_owned())]).unwrap().page(three().into_iter(), false).next.unwrap();
    assert_eq!(code(&[("start", of_another_order.as_str()), ("order_by", "name")]), Code::InvalidValue);
    assert!(listing(&[("nope", "1".to_owned()), ("fields", "id,nope".to_owned()), ("ignore_unknown_fields", "true".to_owned())]).is_ok());
}

#[test]
fn a_number_alone_is_that_of_all() {
    let many = || (0..25_000).map(|id| Thing { id, name: None, size: Some(id % 2), tags: Vec::new() });
    let count = |parameters: &[(&str, String)]| {
        let found = listing(parameters).unwrap().page(many(), false);
        (found.count(), found.next.is_some())
    };
    let number = ("return_records", "false".to_owned());
    assert_eq!(count(std::slice::from_ref(&number)), (25_000, false));
    assert_eq!(count(&[number.clone(), ("space.size", "1".to_owned())]), (12_500, false));
    assert_eq!(count(&[number.clone(), ("offset", "24000".to_owned())]), (1_000, false));
    // A page of it, where that is asked for, and where the records come as well.
    assert_eq!(count(&[number, ("max_records", "10".to_owned())]), (10, true));
    assert_eq!(count(&[]), (10_000, true));
}

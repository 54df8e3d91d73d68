//! Writing records as JSON, straight from what they are made of.

use crate::collection::cell::Cell;
use crate::collection::select::{Selection, Shown};
use crate::resource::{Link, Resource, get, put};
use serde_json::{Map, Value as Json};
use std::collections::BTreeSet;

/// What is written of each record of a list.
pub struct Writer<T: 'static> {
    members: Vec<Member<T>>,
    /// All that `fields=*` shows, and nothing else.
    standard: bool,
    links: bool,
}

/// A member of an object.
enum Member<T: 'static> {
    /// A field. `name`: as it is written, `"port":`.
    Field { name: Box<[u8]>, get: for<'a> fn(&'a T) -> Cell<'a>, shown: Shown },
    /// An object with members of its own. `name`: as it is written, `"svm":{`.
    Object { name: Box<[u8]>, members: Vec<Member<T>> },
    /// `_links` with a `self`.
    Links(fn(&T) -> Option<String>),
}

impl<T> Writer<T> {
    /// The plan of a selection. Members come in the order of the declaration, an object where its first member does.
    pub fn new(resource: &'static Resource<T>, selection: &Selection, with_links: bool) -> Self {
        let chosen = resource.fields.iter().enumerate().filter(|(at, _)| selection.of(*at) != &Shown::Not);
        let fields: Vec<_> = chosen.map(|(at, field)| (field.spec.path, field.get, selection.of(at).clone())).collect();
        let links = if with_links { resource.links } else { &[] };
        Self { members: members(&fields, "", links), standard: *selection == Selection::whole(resource), links: with_links }
    }

    /// Whether it writes all that `fields=*` shows, and nothing else.
    pub fn is_standard(&self) -> bool {
        self.standard
    }

    /// Whether it writes links.
    pub fn has_links(&self) -> bool {
        self.links
    }

    /// One record as text.
    pub fn text(&self, record: &T) -> Vec<u8> {
        let mut out = Vec::new();
        self.write(record, &mut out);
        out
    }

    /// Writes one record.
    pub fn write(&self, record: &T, out: &mut Vec<u8>) {
        out.push(b'{');
        write_members(&self.members, record, out);
        out.push(b'}');
    }
}

/// Writes members, and says whether there are any.
fn write_members<T>(members: &[Member<T>], record: &T, out: &mut Vec<u8>) -> bool {
    let mut any = false;
    for member in members {
        // Taken back where nothing follows.
        let mark = out.len();
        if any {
            out.push(b',');
        }
        let written = match member {
            Member::Field { name, get, shown } => {
                let cell = get(record);
                if cell.is_null() {
                    false
                } else {
                    out.extend_from_slice(name);
                    match (shown, cell) {
                        (Shown::Members(members), Cell::Json(json)) => Cell::Json(kept(json, members)).write(out),
                        (_, cell) => cell.write(out),
                    }
                    true
                }
            }
            Member::Object { name, members } => {
                out.extend_from_slice(name);
                let inner = write_members(members, record, out);
                out.push(b'}');
                inner
            }
            // Links alone make no object.
            Member::Links(href) => match href(record).filter(|_| any || members.len() == 1) {
                Some(href) => {
                    out.extend_from_slice(br#""_links":{"self":{"href":"#);
                    Cell::made(href).write(out);
                    out.extend_from_slice(b"}}");
                    true
                }
                None => false,
            },
        };
        if written {
            any = true;
        } else {
            out.truncate(mark);
        }
    }
    any
}

/// A chosen field: its path, how its value is read, and how much of it is shown.
type Chosen<T> = (&'static str, for<'a> fn(&'a T) -> Cell<'a>, Shown);

fn members<T>(fields: &[Chosen<T>], prefix: &str, links: &'static [Link<T>]) -> Vec<Member<T>> {
    let mut members_here = Vec::new();
    let mut seen = BTreeSet::new();
    for (path, get, shown) in fields {
        let Some(inner) = path.strip_prefix(prefix) else { continue };
        // Names of fields need no escapes.
        match inner.split_once('.') {
            None => members_here.push(Member::Field { name: format!("\"{inner}\":").into_bytes().into(), get: *get, shown: shown.clone() }),
            Some((name, _)) if seen.insert(name) => {
                let members = members(fields, &format!("{prefix}{name}."), links);
                members_here.push(Member::Object { name: format!("\"{name}\":{{").into_bytes().into(), members });
            }
            Some(_) => {}
        }
    }
    let at = prefix.trim_end_matches('.');
    members_here.extend(links.iter().filter(|link| link.at == at).map(|link| Member::Links(link.href)));
    members_here
}

/// Of each object of a list, these members.
fn kept(json: Json, members: &BTreeSet<&'static str>) -> Json {
    let Json::Array(list) = json else { return json };
    let one = |element: &Json| {
        let mut record = Map::new();
        for path in members {
            if let Some(value) = element.as_object().and_then(|object| get(object, path)) {
                put(&mut record, path, value.clone());
            }
        }
        Json::Object(record)
    };
    list.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::field::{As, Field, Show};
    use serde_json::json;

    struct Thing {
        name: &'static str,
        inner: Option<i64>,
    }

    const THING: Resource<Thing> = Resource {
        name: "thing",
        path: "/api/things",
        fields: &[
            Field::shown("name", As::Text, Show::Key, |thing| Cell::text(thing.name), ""),
            Field::shown("a.b.c", As::Integer, Show::Standard, |thing| thing.inner.map_or(Cell::Null, Cell::Integer), ""),
            Field::shown(
                "list",
                As::Objects(&[("x.y", As::Integer), ("z", As::Integer)]),
                Show::Standard,
                |_| Cell::Json(json!([{"x": {"y": 1}, "z": 2}])),
                "",
            ),
            Field::shown("a.d", As::Bool, Show::Standard, |_| Cell::Null, ""),
        ],
        order: &[("name", false)],
        links: &[Link { at: "", href: |thing| Some(format!("/api/things/{}", thing.name)) }, Link { at: "a", href: |_| Some("/a".to_owned()) }],
    };

    fn written(fields: &str, links: bool, inner: Option<i64>) -> Json {
        let selection = Selection::parse(&THING, Some(fields), false).unwrap();
        let mut out = Vec::new();
        Writer::new(&THING, &selection, links).write(&Thing { name: "n", inner }, &mut out);
        serde_json::from_slice(&out).unwrap()
    }

    #[test]
    fn objects_hold_what_is_there() {
        assert_eq!(written("a", false, Some(1)), json!({"name": "n", "a": {"b": {"c": 1}}}));
        assert_eq!(written("a", false, None), json!({"name": "n"}));
        assert_eq!(
            written("a", true, Some(1)),
            json!({"name": "n", "a": {"b": {"c": 1}, "_links": {"self": {"href": "/a"}}}, "_links": {"self": {"href": "/api/things/n"}}})
        );
        assert_eq!(written("a", true, None), json!({"name": "n", "_links": {"self": {"href": "/api/things/n"}}}));
        assert_eq!(written("list.x.y", false, None), json!({"name": "n", "list": [{"x": {"y": 1}}]}));
        assert_eq!(written("list", false, None), json!({"name": "n", "list": [{"x": {"y": 1}, "z": 2}]}));
    }
}

//! What there is at the source (Locate: KMIP Specification 1.4, section 4.9).

use crate::peer::{Peer, Trouble};
use crate::{Abort, Select};
use keystead_kmip::attribute::Attribute;
use keystead_kmip::enumeration::{Enumeration as _, Operation, ResultReason};
use keystead_kmip::fields::text;
use keystead_kmip::ttlv::{Value, Writer};
use keystead_kmip::{Tag, Version};
use std::collections::HashSet;

/// How many identifiers are asked for at a time.
const PAGE: i32 = 1_000;
/// How many objects are moved in one run, and how many bytes their identifiers may have: as many as an SVM may hold.
const MOST_OBJECTS: usize = 4_000_000;
const MOST_BYTES: usize = 512 * 1024 * 1024;
/// The longest identifier that is believed to be one, in bytes.
pub const LONGEST_ID: usize = 1_024;

/// The identifiers of all objects that are selected, each once, in the order of the source.
///
/// Since 1.3 they are asked for in pages, until one is empty: a server that gives fewer than it is asked for is not at its end. Before, they come at once.
///
/// # Errors
/// The source does not list them, or lists more than one run moves.
pub fn list(source: &mut Peer, select: &Select) -> Result<Vec<String>, Abort> {
    let mut list = List::default();
    let names: Vec<Option<&str>> = if select.names.is_empty() { vec![None] } else { select.names.iter().map(|name| Some(name.as_str())).collect() };
    for name in names {
        let wanted = wanted(select, name);
        if source.version < Version::V1_3 {
            list.add(locate(source, &wanted, None)?)?;
            continue;
        }
        let mut offset = 0;
        loop {
            let page = locate(source, &wanted, Some(offset))?;
            if page.is_empty() {
                break;
            }
            offset = offset.saturating_add(i32::try_from(page.len()).unwrap_or(i32::MAX));
            // Nothing new: the server does not know Offset, whatever its version says.
            if list.add(page)? == 0 {
                list.add(locate(source, &wanted, None)?)?;
                break;
            }
        }
    }
    Ok(list.ids)
}

#[derive(Default)]
struct List {
    ids: Vec<String>,
    known: HashSet<String>,
    bytes: usize,
}

impl List {
    /// Adds those that are not there; answers how many.
    fn add(&mut self, page: Vec<String>) -> Result<usize, Abort> {
        let before = self.ids.len();
        for id in page {
            if self.known.contains(&id) {
                continue;
            }
            self.bytes += id.len();
            if self.ids.len() >= MOST_OBJECTS || self.bytes > MOST_BYTES {
                let advice = "select fewer with --name, --group or --object-type";
                return Err(Abort(format!("the source lists more than {MOST_OBJECTS} objects, or identifiers of more than {MOST_BYTES} bytes; {advice}")));
            }
            self.known.insert(id.clone());
            self.ids.push(id);
        }
        Ok(self.ids.len() - before)
    }
}

fn wanted(select: &Select, name: Option<&str>) -> Vec<Attribute<'static>> {
    let mut wanted: Vec<Attribute<'static>> = name.map(|name| Attribute::name(name.to_owned())).into_iter().collect();
    wanted.extend(select.group.clone().map(|group| Attribute::new(Tag::ObjectGroup, Value::TextString(group.into()))));
    wanted.extend(select.object_type.map(|kind| Attribute::new(Tag::ObjectType, Value::Enumeration(kind.number()))));
    wanted
}

/// One Locate. `offset`: a page from there on; none: everything at once.
fn locate(source: &mut Peer, wanted: &[Attribute<'_>], offset: Option<i32>) -> Result<Vec<String>, Abort> {
    let version = source.version;
    let answer = source.ask(Operation::Locate, 4_096, |out| {
        if let Some(offset) = offset {
            out.integer(Tag::MaximumItems, PAGE);
            if offset > 0 {
                out.integer(Tag::OffsetItems, offset);
            }
        }
        write_attributes(wanted, version, out);
    });
    let ids = answer.and_then(|answer| {
        answer.read(|payload| {
            let ids = payload.items().iter().filter(|item| item.tag == Tag::UniqueIdentifier);
            ids.map(|id| text(id).ok().filter(|id| id.len() <= LONGEST_ID).map(str::to_owned)).collect::<Option<Vec<_>>>()
        })
    });
    match ids {
        Ok(Some(ids)) => Ok(ids),
        Ok(None) => Err(Abort(format!("the source lists an identifier that is no text of at most {LONGEST_ID} bytes"))),
        Err(trouble) => {
            let advice = match (trouble.reason(), &trouble) {
                (Some(ResultReason::ResponseTooLarge), _) | (_, Trouble::Unreadable(_)) => {
                    "; where the list is too long for one answer, a version from 1.3 on (--source-version) or a selection (--name, --group, --object-type) helps"
                }
                _ => "",
            };
            Err(Abort(format!("the source does not list its objects at KMIP {version}: {trouble}{advice}")))
        }
    }
}

/// Attributes that are looked for, as a version writes them.
pub fn write_attributes(attributes: &[Attribute<'_>], version: Version, out: &mut Writer<'_>) {
    if version < Version::V2_0 {
        attributes.iter().for_each(|attribute| out.node(&attribute.to_node_at(version)));
    } else if !attributes.is_empty() {
        out.structure(Tag::Attributes, |out| attributes.iter().for_each(|attribute| out.node(&attribute.to_node_at(version))));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_has_each_once_and_an_end() {
        let page = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>();
        let mut list = List::default();
        assert_eq!(list.add(page(&["1", "2", "1"])).unwrap(), 2);
        assert_eq!(list.add(page(&["2", "3"])).unwrap(), 1);
        assert_eq!(list.ids, ["1", "2", "3"]);
        list.bytes = MOST_BYTES;
        assert!(list.add(page(&["4"])).unwrap_err().0.contains("select fewer"));
        list.bytes = 0;
        list.ids.resize(MOST_OBJECTS, String::new());
        assert!(list.add(page(&["5"])).is_err());
    }
}

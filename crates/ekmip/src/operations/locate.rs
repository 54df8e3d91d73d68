//! Locate (KMIP Specification 1.4, section 4.9).

use super::Context;
use crate::managed::{Managed, is_indexed, term};
use crate::unit::Unit;
use keystead_kmip::attribute::{Attribute, Identity};
use keystead_kmip::enumeration::{ObjectGroupMember, ResultReason, State};
use keystead_kmip::request::Locate;
use keystead_kmip::response::Response;
use keystead_kmip::ttlv::Value;
use keystead_kmip::{Failure, Result, Tag};
use std::collections::BinaryHeap;
use uuid::Uuid;

/// Objects whose secret is there (bit 1 of the Storage Status Mask) and those whose secret is gone (bit 3).
const ON_LINE: i32 = 1;
const DESTROYED: i32 = 4;

/// What an identifier of the answer takes, in bytes: as a text, as an item, and encoded.
const ANSWER: usize = 168;
/// More identifiers than any answer has room for: no more are kept while they are collected.
const MOST_IDENTIFIERS: usize = 64 * 1024;
/// How many attributes can be asked for at a time.
const MOST: usize = 32;

pub async fn locate(context: &mut Context<'_>, unit: &mut Unit<'_>, locate: &Locate) -> Result<Response<'static>> {
    if locate.attributes.len() > MOST {
        return Err(Failure::new(ResultReason::InvalidField, format!("a Locate may name at most {MOST} attributes")));
    }
    let wants_destroyed = locate.attributes.iter().any(|attribute| {
        attribute.identity == Identity::Known(Tag::State)
            && matches!(attribute.value, Value::Enumeration(state) if state == State::Destroyed as u32 || state == State::DestroyedCompromised as u32)
    });
    let status = locate.storage_status.unwrap_or(if wants_destroyed { ON_LINE | DESTROYED } else { ON_LINE });
    let most = locate.maximum_items.unwrap_or(usize::MAX);
    let mut found = First::new(locate.offset.saturating_add(most.min(MOST_IDENTIFIERS)));
    let mut visit = |object: &Managed<'_>, destroyed: bool| {
        let bit = if destroyed { DESTROYED } else { ON_LINE };
        if status & bit != 0 && matches(context, object, locate) {
            found.push((object.date(Tag::InitialDate).unwrap_or_default(), object.id));
        }
    };
    match identifier(locate) {
        // By identifier: also an object that another node has just made.
        Some(Some(id)) => {
            match unit.find(id).await {
                Ok(object) => visit(&object.object, object.is_destroyed()),
                Err(failure) if failure.reason == ResultReason::ItemNotFound => {}
                // Who is told that there is none makes another one.
                Err(failure) => return Err(failure),
            }
        }
        Some(None) => {}
        None => {
            let indexed = locate.attributes.iter().filter(|attribute| is_indexed(&attribute.identity));
            unit.search(indexed.filter_map(|attribute| term(&attribute.identity, &attribute.value)).next(), visit).await?;
        }
    }
    // Oldest first, so that Offset and Maximum Items page through the same list.
    let ids: Vec<Uuid> = found.into_sorted().skip(locate.offset).take(most).map(|(_, id)| id).collect();
    context.room.reserve(ANSWER * ids.len()).await?;
    // One object, or none that could be meant (section 4.9).
    context.placeholder = if let [only] = ids.as_slice() { Some(*only) } else { None };
    Ok(Response::Located(ids.iter().map(Uuid::to_string).collect()))
}

/// The first of many, with their dates: however many come, no more than so many are held.
struct First {
    most: usize,
    held: BinaryHeap<(i64, Uuid)>,
}

impl First {
    fn new(most: usize) -> Self {
        Self { most, held: BinaryHeap::new() }
    }

    fn push(&mut self, one: (i64, Uuid)) {
        if self.held.len() < self.most {
            self.held.push(one);
        } else if let Some(mut last) = self.held.peek_mut()
            && one < *last
        {
            *last = one;
        }
    }

    fn into_sorted(self) -> impl Iterator<Item = (i64, Uuid)> {
        self.held.into_sorted_vec().into_iter()
    }
}

/// The identifier that is looked for, where one is. `Some(None)`: one that no object can have.
fn identifier(locate: &Locate) -> Option<Option<Uuid>> {
    let attribute = locate.attributes.iter().find(|attribute| attribute.identity == Identity::Known(Tag::UniqueIdentifier))?;
    match &attribute.value {
        Value::TextString(text) => Some(text.parse().ok()),
        _ => Some(None),
    }
}

fn matches(context: &Context<'_>, object: &Managed<'_>, locate: &Locate) -> bool {
    let fresh = object.boolean(Tag::Fresh).unwrap_or(false) && !context.was_shown(object.id);
    if locate.group_member == Some(ObjectGroupMember::GroupMemberFresh) && !fresh {
        return false;
    }
    locate.attributes.iter().all(|wanted| {
        let instances = object.instances(&wanted.identity, context.now);
        match (&wanted.identity, &wanted.value) {
            (Identity::Known(_), Value::DateTime(date)) => matches_date(locate, wanted, *date, &instances),
            // All bits that are asked for must be set.
            (Identity::Known(Tag::CryptographicUsageMask), Value::Integer(mask)) => {
                instances.iter().any(|known| matches!(known.value, Value::Integer(have) if have & mask == *mask))
            }
            // A key may still be used so often at least.
            (Identity::Known(Tag::UsageLimits), _) => instances.iter().any(|known| allows(&known.value, &wanted.value)),
            _ => instances.iter().any(|known| keystead_kmip::attribute::matches(&wanted.value, &known.value)),
        }
    })
}

/// Usage Limits match where what is left is as much at least, of the same unit (section 4.9).
fn allows(known: &Value<'_>, wanted: &Value<'_>) -> bool {
    let (Value::Structure(known), Value::Structure(wanted)) = (known, wanted) else { return false };
    wanted.iter().all(|want| {
        known.iter().filter(|item| item.tag == want.tag).any(|item| match (&item.value, &want.value) {
            (Value::LongInteger(have), Value::LongInteger(want)) => have >= want,
            (have, want) => have == want,
        })
    })
}

/// One date must be met exactly; two of a kind are a range, both ends included.
fn matches_date(locate: &Locate, wanted: &Attribute<'_>, date: i64, instances: &[Attribute<'_>]) -> bool {
    let dates = || {
        locate
            .attributes
            .iter()
            .filter(|other| other.identity == wanted.identity)
            .filter_map(|other| if let Value::DateTime(date) = other.value { Some(date) } else { None })
    };
    let (first, last) = (dates().min().unwrap_or(date), dates().max().unwrap_or(date));
    instances.iter().any(|known| matches!(known.value, Value::DateTime(have) if (first..=last).contains(&have)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_are_kept_and_no_more() {
        let all: Vec<(i64, Uuid)> = (0..1_000).map(|n| ((n * 7_919) % 1_000, Uuid::from_u128(n as u128))).collect();
        let mut sorted = all.clone();
        sorted.sort_unstable();
        for most in [0, 1, 10, 2_000] {
            let mut first = First::new(most);
            for one in &all {
                first.push(*one);
                assert!(first.held.len() <= most);
            }
            assert_eq!(first.into_sorted().collect::<Vec<_>>(), sorted.iter().take(most).copied().collect::<Vec<_>>());
        }
    }
}

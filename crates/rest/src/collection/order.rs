//! The order of a list, and a position in it.

use crate::collection::cell::Cell;
use crate::field::{As, Kind};
use crate::resource::{Place, Resource};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use keystead_manager::{Code, Error, Result};
use serde_json::Value as Json;
use std::cmp::Ordering;

/// The longest `order_by` text.
const MAX_TEXT: usize = 1_024;

/// An order in which no two records are alike: what was asked for, then what makes a record unique.
#[derive(Debug)]
pub struct Order {
    by: Vec<(Place, bool)>,
    /// Whether no other order than the resource's own was asked for.
    own: bool,
}

/// A place between two records: behind the one with these values, whether that one is still there or not.
#[derive(Debug)]
pub struct Position {
    values: Vec<Cell<'static>>,
}

impl Order {
    /// Reads `order_by`: `f [asc|desc],…`.
    ///
    /// # Errors
    /// 262268 unknown, not to be seen, a list or an object, another value each time, or a direction that is none; 262245 too long.
    pub fn parse<T>(resource: &Resource<T>, text: &str) -> Result<Self> {
        if text.len() > MAX_TEXT {
            return Err(Error::with(Code::OutOfBounds, format!("it has at most {MAX_TEXT} bytes")).target("order_by"));
        }
        let mut order = Self { by: Vec::new(), own: true };
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let mut words = part.split_whitespace();
            let path = words.next().unwrap_or_default();
            let refused = |what: &str| Error::with(Code::NotSortable, what).target("order_by");
            let descending = match (words.next(), words.next()) {
                (None | Some("asc"), None) => false,
                (Some("desc"), None) => true,
                _ => return Err(refused(part)),
            };
            let place = resource.filterable(path).map_err(|_| refused(path))?;
            let moves = resource.fields.get(place.field).is_some_and(|field| matches!(field.spec.kind, Kind::Moving(_)));
            if moves || place.member.is_some() || matches!(place.of, As::Texts | As::Objects(_) | As::Object) {
                return Err(refused(path));
            }
            order.add(place, descending);
            order.own = false;
        }
        for (path, descending) in resource.order {
            if let Some(place) = resource.place(path) {
                order.add(place, *descending);
            }
        }
        Ok(order)
    }

    /// Whether it is the resource's own order.
    pub fn is_own(&self) -> bool {
        self.own
    }

    /// The value of a field at a position.
    pub fn value<'p, T>(&self, resource: &Resource<T>, position: &'p Position, path: &str) -> Option<&'p Cell<'static>> {
        let at = self.by.iter().position(|(place, _)| resource.place(path) == Some(*place))?;
        position.values.get(at)
    }

    /// What comes first of two records.
    pub fn compare<T>(&self, resource: &Resource<T>, one: &T, other: &T) -> Ordering {
        self.by
            .iter()
            .map(|(place, descending)| turned(cell(resource, *place, one).order(&cell(resource, *place, other)), *descending))
            .find(|order| order.is_ne())
            .unwrap_or(Ordering::Equal)
    }

    /// Brings records into the order. What they are sorted by is taken out of each once, and not for each comparison.
    pub fn sort<T>(&self, resource: &Resource<T>, records: Vec<T>) -> Vec<T> {
        if self.by.is_empty() || records.is_sorted_by(|one, other| self.compare(resource, one, other).is_le()) {
            return records;
        }
        let cells: Vec<Cell<'_>> = records.iter().flat_map(|record| self.by.iter().map(|(place, _)| cell(resource, *place, record))).collect();
        let mut sorted: Vec<(usize, &[Cell<'_>])> = cells.chunks_exact(self.by.len()).enumerate().collect();
        sorted.sort_unstable_by(|(_, one), (_, other)| {
            let pairs = one.iter().zip(*other).zip(&self.by);
            pairs.map(|((one, other), (_, descending))| turned(one.order(other), *descending)).find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
        });
        let places: Vec<usize> = sorted.into_iter().map(|(at, _)| at).collect();
        drop(cells);
        let mut records: Vec<Option<T>> = records.into_iter().map(Some).collect();
        places.into_iter().filter_map(|at| records.get_mut(at)?.take()).collect()
    }

    /// Whether a record comes behind a position.
    pub fn is_behind<T>(&self, resource: &Resource<T>, record: &T, position: &Position) -> bool {
        let orders = self.by.iter().zip(&position.values).map(|((place, descending), value)| turned(cell(resource, *place, record).order(value), *descending));
        orders.into_iter().find(|order| order.is_ne()).is_some_and(Ordering::is_gt)
    }

    /// The position behind a record, as text that says nothing to anybody else.
    pub fn position<T>(&self, resource: &Resource<T>, record: &T) -> String {
        let values: Vec<Json> = self.by.iter().map(|(place, _)| cell(resource, *place, record).position()).collect();
        URL_SAFE_NO_PAD.encode(Json::Array(values).to_string())
    }

    /// Reads a position.
    ///
    /// # Errors
    /// 262247: it was not made here, or for another order.
    pub fn read_position(&self, text: &str) -> Result<Position> {
        let read = || -> Option<Position> {
            let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
            let values: Vec<Json> = serde_json::from_slice(&bytes).ok()?;
            let values: Option<Vec<_>> = self.by.iter().zip(&values).map(|((place, _), value)| Cell::of_position(place.of, value)).collect();
            values.filter(|read| read.len() == self.by.len()).map(|values| Position { values })
        };
        read().ok_or_else(|| Error::with(Code::InvalidValue, "it is no position of this list; follow the link `next` as it is").target("start"))
    }

    /// A field by which it is sorted already says nothing more.
    fn add(&mut self, place: Place, descending: bool) {
        if self.by.iter().all(|(known, _)| *known != place) {
            self.by.push((place, descending));
        }
    }

    /// The fields by which it is sorted.
    pub fn fields(&self) -> impl Iterator<Item = usize> {
        self.by.iter().map(|(place, _)| place.field)
    }
}

fn cell<'a, T>(resource: &Resource<T>, place: Place, record: &'a T) -> Cell<'a> {
    resource.fields.get(place.field).map_or(Cell::Null, |field| (field.get)(record))
}

fn turned(ordering: Ordering, descending: bool) -> Ordering {
    if descending { ordering.reverse() } else { ordering }
}

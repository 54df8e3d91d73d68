//! Lists: one engine over every resource's declaration. What is shown (`fields`), which records (filters, `query`), in which order (`order_by`), and which page (`max_records`, `start`, `offset`).
//!
//! Records are looked at one by one, as they are; what does not pass is dropped at once, so a list needs the memory of two pages, whatever the collection has. A page ends at a position, which is
//! the values by which the list is sorted, of the last record that was shown: what is added or deleted meanwhile moves nothing, and no record comes twice or is left out that was there all the time.

pub mod cell;
pub mod filter;
pub mod order;
pub mod pattern;
pub mod select;
#[cfg(test)]
mod tests;
pub mod writer;

use crate::collection::cell::Cell;
use crate::collection::filter::Filter;
use crate::collection::order::{Order, Position};
use crate::collection::select::Selection;
use crate::collection::writer::Writer;
use crate::field::{As, Show};
use crate::query::Query;
use crate::resource::{Place, Resource, get};
use keystead_manager::{Code, Error, Result};
use serde_json::{Map, Value as Json};
use std::sync::{Arc, OnceLock};

/// The longest `query`, and the longest `query_fields`, in bytes: all of it is looked for in each of the fields of each record.
const MAX_SEARCH: usize = 1_024;

/// A list that was asked for.
pub struct Listing<T: 'static> {
    resource: &'static Resource<T>,
    selection: Selection,
    filters: Vec<(Place, Filter)>,
    search: Option<Search>,
    order: Order,
    start: Option<Position>,
    page: Page,
    /// No records are wanted but their number, and no page of it: clients take that for the number of all.
    counts: bool,
}

/// Which part of a list.
#[derive(Debug, Clone, Copy)]
struct Page {
    /// The most records.
    limit: usize,
    /// How many are passed over first.
    offset: usize,
}

/// `query` in any of `query_fields`.
struct Search {
    places: Vec<Place>,
    filter: Filter,
}

/// A page of a list. Its records are written one after the other, when they are sent: as text, they would need many times the memory.
pub struct Found<T: 'static> {
    records: Vec<T>,
    /// How many there are, where nobody wants the records.
    counted: Option<usize>,
    writer: Writer<T>,
    texts: Option<Texts<T>>,
    /// Where the next page begins, where there is one.
    pub next: Option<String>,
}

/// Where the text of a whole record is kept until the record changes, without its links, and with them.
pub type Texts<T> = for<'a> fn(&'a T, bool) -> Option<&'a OnceLock<Arc<[u8]>>>;

impl<T> Found<T> {
    /// Keeps the texts of records, where all of each is shown that a list shows with `fields=*`: what that is hangs on the record alone.
    #[must_use]
    pub fn keeping(self, texts: Texts<T>) -> Self {
        let texts = self.writer.is_standard().then_some(texts);
        Self { texts, ..self }
    }

    /// How many records it has.
    pub fn count(&self) -> usize {
        self.counted.unwrap_or(self.records.len())
    }

    /// Writes one record with each call, and commas between them; answers whether there was one.
    pub fn writing(self) -> impl FnMut(&mut Vec<u8>) -> bool {
        let Self { records, writer, texts, .. } = self;
        let mut left = records.into_iter();
        let mut is_first = true;
        move |out| {
            let Some(record) = left.next() else { return false };
            if !std::mem::take(&mut is_first) {
                out.push(b',');
            }
            match texts.and_then(|texts| texts(&record, writer.has_links())) {
                None => writer.write(&record, out),
                Some(kept) => out.extend_from_slice(kept.get_or_init(|| writer.text(&record).into())),
            }
            true
        }
    }
}

impl<T> Listing<T> {
    /// Reads what is asked for.
    ///
    /// # Errors
    /// Those of the parameters: 262179, 262197, 262245, 262247, 262249, 262250, 262268, 262272 to 262277, 262286.
    pub fn parse(resource: &'static Resource<T>, query: &Query) -> Result<Self> {
        let filters = query.filters().filter(|(name, _)| !query.ignores_unknown() || resource.place(name).is_some());
        let filters = filters.map(|(name, text)| {
            let place = resource.filterable(name)?;
            Ok((place, Filter::parse(name, place.of, text)?))
        });
        let filters = filters.collect::<Result<Vec<_>>>()?;
        let order = Order::parse(resource, query.get("order_by").unwrap_or_default())?;
        let start = query.get("start").map(|text| order.read_position(text)).transpose()?;
        let page = Page { limit: query.max_records()?, offset: query.offset()? };
        let selection = Selection::parse(resource, query.fields(|path| resource.place(path).is_some() || resource.is_object_path(path)).as_deref(), false)?;
        let counts = !query.flag("return_records", true)? && query.get("max_records").is_none();
        Ok(Self { resource, selection, filters, search: Search::parse(resource, query)?, order, start, page, counts })
    }

    /// Whether a field, or a field under an object, is looked at: shown, filtered or sorted by.
    pub fn wants(&self, path: &str) -> bool {
        self.selection.has(self.resource, path) || self.decides_by(path)
    }

    /// Whether which records there are, or their order, hangs on this field, or on a field under this object.
    pub fn decides_by(&self, path: &str) -> bool {
        let under = |at: usize| self.resource.fields.get(at).is_some_and(|field| is_under(field.spec.path, path));
        let searched = self.search.iter().flat_map(|search| &search.places).map(|place| place.field);
        self.filters.iter().map(|(place, _)| place.field).chain(self.order.fields()).chain(searched).any(under)
    }

    /// Whether the order of records hangs on this field, or on a field under this object.
    pub fn sorts_by(&self, path: &str) -> bool {
        self.order.fields().any(|at| self.resource.fields.get(at).is_some_and(|field| is_under(field.spec.path, path)))
    }

    /// Whether a record can still pass when what stands under these objects is not known yet.
    pub fn may_pass(&self, record: &T, unknown: &[&str]) -> bool {
        let known = |place: &Place| self.resource.fields.get(place.field).is_some_and(|field| unknown.iter().all(|path| !is_under(field.spec.path, path)));
        let filters = self.filters.iter().filter(|(place, _)| known(place)).all(|(place, filter)| self.passes(*place, filter, record));
        filters && self.start.as_ref().is_none_or(|start| unknown.iter().any(|path| self.sorts_by(path)) || self.order.is_behind(self.resource, record, start))
    }

    /// The records of the page and one more, which shows that there is a next page; in their order. What `offset` passes over is passed over here, and not again.
    pub fn first(&mut self, records: impl Iterator<Item = T>) -> Vec<T> {
        self.counts = false;
        let offset = std::mem::take(&mut self.page.offset);
        let end = offset.saturating_add(self.page.limit).saturating_add(1);
        let compare = |one: &T, other: &T| self.order.compare(self.resource, one, other);
        let mut kept: Vec<T> = Vec::new();
        for record in records.filter(|record| self.has(record)) {
            kept.push(record);
            // Of two pages, only the first can be shown.
            if kept.len() >= end.saturating_mul(2) {
                kept.select_nth_unstable_by(end, compare);
                kept.truncate(end);
            }
        }
        let mut kept = self.order.sort(self.resource, kept);
        kept.truncate(end);
        kept.drain(..offset.min(kept.len()));
        kept
    }

    /// Records in the order of the list, whether they pass or not.
    pub fn sorted(&self, records: Vec<T>) -> Vec<T> {
        self.order.sort(self.resource, records)
    }

    /// Picks the page out of all records, which may come in any order.
    pub fn page(mut self, records: impl Iterator<Item = T>, with_links: bool) -> Found<T> {
        if self.counts {
            let count = records.filter(|record| self.has(record)).count().saturating_sub(self.page.offset);
            return Found {
                records: Vec::new(),
                counted: Some(count),
                writer: Writer::new(self.resource, &self.selection, with_links),
                texts: None,
                next: None,
            };
        }
        let mut records = self.first(records);
        let more = records.len() > self.page.limit;
        records.truncate(self.page.limit);
        let next = records.last().filter(|_| more).map(|last| self.order.position(self.resource, last));
        Found { records, counted: None, writer: Writer::new(self.resource, &self.selection, with_links), texts: None, next }
    }

    /// Whether records are wanted in the resource's own order, so that [`Listing::few`] can be used.
    pub fn is_in_own_order(&self) -> bool {
        self.order.is_own()
    }

    /// Where the page begins: the value of a field of the record before it, where there is one.
    pub fn begins_behind(&self, path: &str) -> Option<&Cell<'static>> {
        self.start.as_ref().and_then(|start| self.order.value(self.resource, start, path))
    }

    /// As [`Listing::first`], of records that come in the resource's own order: no more of them are looked at than the page needs.
    pub fn few(&mut self, records: impl Iterator<Item = T>) -> Vec<T> {
        self.counts = false;
        let offset = std::mem::take(&mut self.page.offset);
        records.filter(|record| self.has(record)).skip(offset).take(self.page.limit.saturating_add(1)).collect()
    }

    fn has(&self, record: &T) -> bool {
        self.filters.iter().all(|(place, filter)| self.passes(*place, filter, record))
            && self.search.as_ref().is_none_or(|search| search.places.iter().any(|place| self.found_in(*place, &search.filter, record)))
            && self.start.as_ref().is_none_or(|start| self.order.is_behind(self.resource, record, start))
    }

    /// A search looks at the text of whatever stands in a field.
    fn found_in(&self, place: Place, filter: &Filter, record: &T) -> bool {
        match self.cell(place.field, record) {
            cell @ (Cell::Null | Cell::Texts(_) | Cell::Json(_)) => self.cell_passes(place, filter, cell),
            cell => cell.with_text(|text| filter.passes(&Cell::text(text))).unwrap_or(false),
        }
    }

    fn cell<'a>(&self, field: usize, record: &'a T) -> Cell<'a> {
        self.resource.fields.get(field).map_or(Cell::Null, |field| (field.get)(record))
    }

    fn passes(&self, place: Place, filter: &Filter, record: &T) -> bool {
        self.cell_passes(place, filter, self.cell(place.field, record))
    }

    fn cell_passes(&self, place: Place, filter: &Filter, cell: Cell<'_>) -> bool {
        match (place.member, cell) {
            (None, cell) => filter.passes(&cell),
            (Some(member), Cell::Json(Json::Array(list))) => {
                let members: Vec<Json> = list.iter().filter_map(|element| get(element.as_object()?, member).cloned()).collect();
                filter.passes(&if members.is_empty() { Cell::Null } else { Cell::Json(Json::Array(members)) })
            }
            (Some(_), _) => filter.passes(&Cell::Null),
        }
    }
}

/// One record, as `fields` wants it.
pub struct One<T: 'static> {
    resource: &'static Resource<T>,
    selection: Selection,
}

impl<T> One<T> {
    /// Reads what is asked for.
    ///
    /// # Errors
    /// Those of `fields`; 262179 any other parameter that is not the API's own.
    pub fn parse(resource: &'static Resource<T>, query: &Query) -> Result<Self> {
        query.check_one(resource)?;
        let fields = query.fields(|path| resource.place(path).is_some() || resource.is_object_path(path));
        Ok(Self { resource, selection: Selection::parse(resource, fields.as_deref(), true)? })
    }

    /// A whole record, without what costs a look.
    pub fn whole(resource: &'static Resource<T>) -> Self {
        Self { resource, selection: Selection::whole(resource) }
    }

    /// Shows this field too.
    #[must_use]
    pub fn with(mut self, path: &str) -> Self {
        self.selection.show(self.resource, path);
        self
    }

    /// Whether a field, or a field under an object, is shown.
    pub fn wants(&self, path: &str) -> bool {
        self.selection.has(self.resource, path)
    }

    /// The record with its links, to add something to it.
    pub fn record(&self, record: &T) -> Map<String, Json> {
        match serde_json::from_slice(&self.write(record, true)) {
            Ok(Json::Object(record)) => record,
            _ => Map::new(),
        }
    }

    /// The record as JSON.
    pub fn write(&self, record: &T, with_links: bool) -> Vec<u8> {
        Writer::new(self.resource, &self.selection, with_links).text(record)
    }
}

impl Search {
    fn parse<T>(resource: &Resource<T>, query: &Query) -> Result<Option<Self>> {
        let (text, fields) = match (query.get("query"), query.get("query_fields")) {
            (None, None) => return Ok(None),
            (Some(""), _) => return Err(Error::new(Code::EmptyQuery).target("query")),
            (Some(_), None) => return Err(Error::new(Code::QueryFieldsMissing).target("query_fields")),
            (None, Some(_)) => return Err(Error::new(Code::QueryMissing).target("query")),
            (Some(_), Some("")) => return Err(Error::new(Code::EmptyQueryFields).target("query_fields")),
            (Some(text), Some(fields)) => (text, fields),
        };
        let mut places = Vec::new();
        if text.len().max(fields.len()) > MAX_SEARCH {
            let target = if text.len() > MAX_SEARCH { "query" } else { "query_fields" };
            return Err(Error::with(Code::OutOfBounds, format!("it has at most {MAX_SEARCH} bytes")).target(target));
        }
        for name in fields.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            if name == "*" {
                let shown = resource.fields.iter().filter(|field| matches!(field.spec.show, Show::Key | Show::Standard));
                places.extend(shown.filter_map(|field| resource.place(field.spec.path)));
                continue;
            }
            places.push(resource.filterable(name).map_err(|_| Error::with(Code::UnknownQueryField, name).target("query_fields"))?);
        }
        if places.is_empty() {
            return Err(Error::new(Code::EmptyQueryFields).target("query_fields"));
        }
        // Each field is searched once, however often it is named.
        places.sort_unstable_by_key(|place| (place.field, place.member));
        places.dedup();
        Ok(Some(Self { places, filter: Filter::parse("query", As::Text, text)? }))
    }
}

impl<T> Resource<T> {
    fn is_object_path(&self, path: &str) -> bool {
        self.under(path.strip_suffix(".*").unwrap_or(path)).next().is_some()
    }
}

fn is_under(field: &str, path: &str) -> bool {
    field == path || field.strip_prefix(path).is_some_and(|rest| rest.starts_with('.'))
}

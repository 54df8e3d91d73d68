//! The part of a URL after the `?`. The query language is minimal for now: `fields`, exact matches, `max_records`, `order_by`.

use crate::field::{Show, bool_of_text};
use crate::resource::{Resource, get};
use keystead_manager::{Code, Error, Result};
use percent_encoding::percent_decode_str;
use serde_json::{Map, Value as Json};
use std::time::Duration;

/// The most parameters of a URL.
const MAX_PARAMETERS: usize = 100;
/// The longest wait that can be asked for, in seconds.
const MAX_WAIT: i64 = 120;
/// The most records of a page, and the default.
const MAX_RECORDS: usize = 10_000;
/// Parameters of the whole API, on every method.
const COMMON: &[&str] = &[
    "fields",
    "return_timeout",
    "return_records",
    "max_records",
    "order_by",
    "start",
    "pretty",
    "ignore_unknown_fields",
    "continue_on_failure",
    "serial_records",
];

/// The parameters of a request, decoded, in their order.
#[derive(Debug, Default)]
pub struct Query {
    parameters: Vec<(String, String)>,
}

impl Query {
    /// Reads the raw text after the `?`.
    ///
    /// # Errors
    /// 39387137 it cannot be decoded; 262188 a parameter is given twice.
    pub fn parse(raw: &str) -> Result<Self> {
        let mut parameters: Vec<(String, String)> = Vec::new();
        for pair in raw.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (name, value) = (decode(name)?, decode(value)?);
            if parameters.iter().any(|(other, _)| *other == name) {
                return Err(Error::with(Code::FieldTwice, &name).target(name));
            }
            if parameters.len() == MAX_PARAMETERS {
                return Err(Error::with(Code::BadUrl, format!("more than {MAX_PARAMETERS} parameters")));
            }
            parameters.push((name, value));
        }
        Ok(Self { parameters })
    }

    /// The value of a parameter.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    /// All parameters.
    pub fn all(&self) -> impl Iterator<Item = (&str, &str)> {
        self.parameters.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// How long the caller wants to wait: 0 to 120 s.
    ///
    /// # Errors
    /// 262247 no number, 262245 out of bounds.
    pub fn return_timeout(&self) -> Result<Duration> {
        let Some(text) = self.get("return_timeout") else { return Ok(Duration::ZERO) };
        let seconds: i64 = text.parse().map_err(|_| Error::with(Code::InvalidValue, "it must be a whole number of seconds").target("return_timeout"))?;
        match u64::try_from(seconds) {
            Ok(wait) if seconds <= MAX_WAIT => Ok(Duration::from_secs(wait)),
            _ => Err(Error::with(Code::OutOfBounds, format!("it must be from 0 to {MAX_WAIT}")).target("return_timeout")),
        }
    }

    /// A boolean parameter.
    ///
    /// # Errors
    /// 262247.
    pub fn flag(&self, name: &str, default: bool) -> Result<bool> {
        match self.get(name) {
            None => Ok(default),
            Some(text) => bool_of_text(text).ok_or_else(|| Error::with(Code::InvalidValue, "it must be true or false").target(name)),
        }
    }

    /// How many records a page may hold.
    ///
    /// # Errors
    /// 262247, 262245.
    pub fn max_records(&self) -> Result<usize> {
        let Some(text) = self.get("max_records") else { return Ok(MAX_RECORDS) };
        let count: usize = text.parse().map_err(|_| Error::with(Code::InvalidValue, "it must be a whole number").target("max_records"))?;
        if (1..=MAX_RECORDS).contains(&count) {
            Ok(count)
        } else {
            Err(Error::with(Code::OutOfBounds, format!("it must be from 1 to {MAX_RECORDS}")).target("max_records"))
        }
    }

    /// Refuses parameters that a changing call does not take.
    ///
    /// # Errors
    /// 262202 a secret in the URL; 262211 a filter on a POST; 262179 unknown.
    pub fn check_change(&self, resource: &Resource, further: &[&str]) -> Result<()> {
        for (name, _) in self.all() {
            if COMMON.contains(&name) || further.contains(&name) {
                continue;
            }
            return Err(match resource.field(name) {
                Some(field) if field.show == Show::Never => Error::with(Code::SecretInUrl, name).target(name),
                Some(_) => Error::with(Code::FilterOnCreate, name).target(name),
                None => Error::with(Code::UnknownField, name).target(name),
            });
        }
        self.return_timeout()?;
        self.flag("return_records", false)?;
        Ok(())
    }

    /// The filters of a GET: every parameter that is not one of the API's own.
    ///
    /// # Errors
    /// 262179 unknown; 262250 a secret.
    pub fn filters<'a>(&'a self, resource: &Resource) -> Result<Vec<(&'a str, &'a str)>> {
        let filters: Vec<_> = self.all().filter(|(name, _)| !COMMON.contains(name)).collect();
        filters.iter().try_for_each(|(name, _)| resource.filterable(name))?;
        Ok(filters)
    }

    /// The fields to sort by, and whether descending.
    ///
    /// # Errors
    /// 262268.
    pub fn order_by(&self, resource: &Resource) -> Result<Vec<(String, bool)>> {
        let text = self.get("order_by").unwrap_or_default();
        text.split(',')
            .filter(|part| !part.trim().is_empty())
            .map(|part| {
                let mut words = part.split_whitespace();
                let path = words.next().unwrap_or_default();
                let descending = match words.next() {
                    None | Some("asc") => false,
                    Some("desc") => true,
                    Some(_) => return Err(Error::with(Code::NotSortable, part).target("order_by")),
                };
                resource.filterable(path).map_err(|_| Error::with(Code::NotSortable, path).target("order_by"))?;
                Ok((path.to_owned(), descending))
            })
            .collect()
    }
}

/// Whether a record has this value at this path.
pub fn matches(record: &Map<String, Json>, path: &str, value: &str) -> bool {
    match get(record, path) {
        None | Some(Json::Null) => false,
        Some(found) => value == "*" || text(found) == value || matches!(found, Json::Bool(found) if bool_of_text(value) == Some(*found)),
    }
}

/// Compares two records by the fields to sort by.
pub fn compare(one: &Map<String, Json>, other: &Map<String, Json>, order: &[(String, bool)]) -> std::cmp::Ordering {
    for (path, descending) in order {
        let (one, other) = (get(one, path), get(other, path));
        let ordering = match (one.and_then(Json::as_f64), other.and_then(Json::as_f64)) {
            (Some(one), Some(other)) => one.total_cmp(&other),
            _ => one.map(text).cmp(&other.map(text)),
        };
        let ordering = if *descending { ordering.reverse() } else { ordering };
        if ordering.is_ne() {
            return ordering;
        }
    }
    std::cmp::Ordering::Equal
}

fn text(value: &Json) -> String {
    match value {
        Json::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Decodes a part of a URL: `+` is a space (as forms write it), `%xx` must be UTF-8 in the end.
pub fn decode(part: &str) -> Result<String> {
    let spaced = part.replace('+', " ");
    let bad = || Error::with(Code::BadUrl, "a %-escape is not UTF-8");
    let text = percent_decode_str(&spaced).decode_utf8().map_err(|_| bad())?;
    if text.contains('\0') { Err(bad()) } else { Ok(text.into_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code<T>(result: Result<T>) -> Code {
        result.err().expect("a refusal").code
    }

    #[test]
    fn parameters_are_decoded_and_stand_once() {
        let query = Query::parse("a=1&b=x%20y+z&&c").unwrap();
        assert_eq!((query.get("a"), query.get("b"), query.get("c")), (Some("1"), Some("x y z"), Some("")));
        assert_eq!(code(Query::parse("a=1&a=2")), Code::FieldTwice);
        assert_eq!(code(Query::parse("a=%ff")), Code::BadUrl);
    }

    #[test]
    fn the_wait_has_its_bounds() {
        let wait = |text: &str| Query::parse(text).unwrap().return_timeout();
        assert_eq!(wait("return_timeout=0"), Ok(Duration::ZERO));
        assert_eq!(wait("return_timeout=120"), Ok(Duration::from_secs(120)));
        assert_eq!(code(wait("return_timeout=121")), Code::OutOfBounds);
        assert_eq!(code(wait("return_timeout=-1")), Code::OutOfBounds);
        assert_eq!(code(wait("return_timeout=x")), Code::InvalidValue);
        assert_eq!(code(wait("return_timeout=")), Code::InvalidValue);
    }

    #[test]
    fn pages_have_their_bounds() {
        let page = |text: &str| Query::parse(text).unwrap().max_records();
        assert_eq!((page(""), page("max_records=5")), (Ok(10_000), Ok(5)));
        assert_eq!(code(page("max_records=0")), Code::OutOfBounds);
        assert_eq!(code(page("max_records=-1")), Code::InvalidValue);
    }
}

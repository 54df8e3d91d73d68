//! The filter language: `<field>=<query>`.
//!
//! ```text
//! query       = alternative *( "|" alternative )
//! alternative = [ "!" ] test
//! test        = "null" | ( "<=" | ">=" | "<" | ">" ) value | value ".." value | value
//! value       = characters, in which "*" stands for any text
//! ```
//!
//! What stands in `"…"` or `{…}` stands for itself; within `"…"`, `\"` is a quote and `\\` a backslash. A value is compared as what the field is: numbers as numbers, moments as moments,
//! durations as durations. A list matches where one of its elements does. `!` is the exact opposite, also of a field that is not there: `!x` matches where there is nothing.
//!
//! Reading a query looks at each of its characters a fixed number of times. A pattern is matched from left to right without going back.

use crate::collection::cell::Cell;
use crate::collection::pattern::Pattern;
use crate::field::{As, bool_of_text};
use jiff::civil::{Date, Time};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use keystead_manager::{Code, Error, Result};
use serde_json::Value as Json;
use std::borrow::Cow;
use std::cmp::Ordering;
use std::time::Duration;

/// The longest query of one field, in bytes.
pub const MAX_QUERY: usize = 16_384;
/// The most patterns of one query: each of them goes through the whole of a text.
pub const MAX_PATTERNS: usize = 64;

/// What a field must be.
#[derive(Debug)]
pub struct Filter {
    alternatives: Vec<(bool, Test)>,
}

#[derive(Debug)]
enum Test {
    Null,
    Compare(Comparison, Cell<'static>),
    Range(Cell<'static>, Cell<'static>),
    Matches(Pattern),
}

#[derive(Debug, Clone, Copy)]
enum Comparison {
    Equal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// A character, and whether it stands for itself alone.
type Char = (char, bool);

impl Filter {
    /// Reads the query of a field. `path`: the target of errors.
    ///
    /// # Errors
    /// 262247 a value that the field cannot have, or a quote without its end; 262177 an empty bound; 262286 a brace without its other one; 262245 too long, or too many patterns.
    pub fn parse(path: &str, of: As, query: &str) -> Result<Self> {
        if query.len() > MAX_QUERY {
            return Err(Error::with(Code::OutOfBounds, format!("a filter has at most {MAX_QUERY} bytes")).target(path));
        }
        let chars = unquote(query).map_err(|error| error.target(path))?;
        let alternatives = chars.split(|(c, quoted)| *c == '|' && !quoted).map(|part| alternative(of, part).map_err(|error| error.target(path)));
        let alternatives: Vec<(bool, Test)> = alternatives.collect::<Result<_>>()?;
        if alternatives.iter().filter(|(_, test)| matches!(test, Test::Matches(_))).count() > MAX_PATTERNS {
            return Err(Error::with(Code::OutOfBounds, format!("a filter has at most {MAX_PATTERNS} alternatives with a *")).target(path));
        }
        Ok(Self { alternatives })
    }

    /// Whether a value passes.
    pub fn passes(&self, cell: &Cell<'_>) -> bool {
        self.alternatives.iter().any(|(negated, test)| test.holds(cell) != *negated)
    }
}

impl Test {
    fn holds(&self, cell: &Cell<'_>) -> bool {
        match cell {
            Cell::Texts(texts) if !matches!(self, Self::Null) => texts.iter().any(|text| self.holds(&Cell::text(text))),
            // The members of a list of objects come as a list.
            Cell::Json(Json::Array(list)) if !matches!(self, Self::Null) => list.iter().any(|element| self.holds(&of_json(element))),
            Cell::Json(Json::Null) => matches!(self, Self::Null),
            Cell::Json(json) if !json.is_object() && !json.is_array() => self.holds(&of_json(json)),
            cell => match self {
                Self::Null => cell.is_null(),
                _ if cell.is_null() => false,
                Self::Compare(comparison, literal) => compare(cell, literal).is_some_and(|ordering| comparison.holds(ordering)),
                Self::Range(low, high) => compare(cell, low).is_some_and(Ordering::is_ge) && compare(cell, high).is_some_and(Ordering::is_le),
                Self::Matches(pattern) => pattern.is_any() || cell.with_text(|text| pattern.matches(text)).unwrap_or(false),
            },
        }
    }
}

impl Comparison {
    fn holds(self, ordering: Ordering) -> bool {
        match self {
            Self::Equal => ordering.is_eq(),
            Self::Less => ordering.is_lt(),
            Self::LessOrEqual => ordering.is_le(),
            Self::Greater => ordering.is_gt(),
            Self::GreaterOrEqual => ordering.is_ge(),
        }
    }
}

/// The order of a value and what it is compared with. `None`: they are of different kinds, and neither equal nor less nor greater. In an object, what is no number and no boolean is text.
fn compare(cell: &Cell<'_>, literal: &Cell<'_>) -> Option<Ordering> {
    let read = match (cell, literal) {
        (Cell::Text(text), Cell::Uuid(_)) => Cell::Uuid(text.parse().ok()?),
        (Cell::Text(text), Cell::Time(_)) => Cell::time(moment(text)?),
        (Cell::Text(text), Cell::Duration(_)) => Cell::Duration(duration(text)?),
        _ if std::mem::discriminant(cell) == std::mem::discriminant(literal) => return Some(cell.order(literal)),
        _ => return None,
    };
    Some(read.order(literal))
}

/// A value within a JSON cell, as a cell.
fn of_json(json: &Json) -> Cell<'_> {
    match json {
        Json::Null => Cell::Null,
        Json::Bool(value) => Cell::Bool(*value),
        Json::Number(number) => number.as_i64().map_or(Cell::Null, Cell::Integer),
        Json::String(text) => Cell::Text(Cow::Borrowed(text)),
        other => Cell::Json(other.clone()),
    }
}

/// Takes quotes and braces away, and remembers what stood in them.
fn unquote(query: &str) -> Result<Vec<Char>> {
    let mut chars = Vec::with_capacity(query.len());
    let mut rest = query.chars();
    while let Some(c) = rest.next() {
        match c {
            '"' => loop {
                match rest.next() {
                    Some('"') => break,
                    Some('\\') => chars.push((rest.next().ok_or_else(open_quote)?, true)),
                    Some(c) => chars.push((c, true)),
                    None => return Err(open_quote()),
                }
            },
            '{' => loop {
                match rest.next() {
                    Some('}') => break,
                    Some(c) => chars.push((c, true)),
                    None => return Err(Error::with(Code::UnmatchedBraces, "a { has no }")),
                }
            },
            '}' => return Err(Error::with(Code::UnmatchedBraces, "a } has no {")),
            c => chars.push((c, false)),
        }
    }
    Ok(chars)
}

fn open_quote() -> Error {
    Error::with(Code::InvalidValue, "a \" has no end; one that is meant stands in braces: {\"}")
}

fn alternative(of: As, mut part: &[Char]) -> Result<(bool, Test)> {
    let mut negated = false;
    while let Some((('!', false), rest)) = part.split_first() {
        negated = !negated;
        part = rest;
    }
    if part.iter().all(|(_, quoted)| !quoted) && text(part) == "null" {
        return Ok((negated, Test::Null));
    }
    let operators = [("<=", Comparison::LessOrEqual), (">=", Comparison::GreaterOrEqual), ("<", Comparison::Less), (">", Comparison::Greater)];
    for (operator, comparison) in operators {
        if let Some(rest) = strip(part, operator) {
            return Ok((negated, Test::Compare(comparison, bound(of, rest)?)));
        }
    }
    if let Some(at) = part.windows(2).position(|pair| matches!(pair, [('.', false), ('.', false)])) {
        let (low, high) = (part.get(..at).unwrap_or_default(), part.get(at + 2..).unwrap_or_default());
        return Ok((negated, Test::Range(bound(of, low)?, bound(of, high)?)));
    }
    if part.contains(&('*', false)) {
        return Ok((negated, Test::Matches(Pattern::new(part.iter().copied()))));
    }
    Ok((negated, Test::Compare(Comparison::Equal, literal(of, text(part))?)))
}

fn strip<'a>(part: &'a [Char], operator: &str) -> Option<&'a [Char]> {
    let found = operator.chars().zip(part).all(|(wanted, (c, quoted))| *c == wanted && !quoted);
    part.get(operator.len()..).filter(|_| found)
}

fn text(part: &[Char]) -> String {
    part.iter().map(|(c, _)| *c).collect()
}

/// One end of a range.
fn bound(of: As, part: &[Char]) -> Result<Cell<'static>> {
    if part.is_empty() {
        return Err(Error::with(Code::MissingValue, "a bound of the filter"));
    }
    literal(of, text(part))
}

/// A value as the field has it.
fn literal(of: As, text: String) -> Result<Cell<'static>> {
    let wrong = |what: &str| Error::with(Code::InvalidValue, format!("the filter must be {what}"));
    Ok(match of {
        As::Text | As::Word(_) | As::Texts => Cell::made(text),
        As::Integer => Cell::Integer(text.trim().parse().map_err(|_| wrong("a whole number"))?),
        As::Bool => Cell::Bool(bool_of_text(&text).ok_or_else(|| wrong("true or false"))?),
        As::Uuid => Cell::Uuid(text.parse().map_err(|_| wrong("a UUID"))?),
        As::Time => Cell::time(moment(&text).ok_or_else(|| wrong("a moment such as 2026-11-24T10:00:00Z, or a date"))?),
        As::Duration => Cell::Duration(duration(&text).ok_or_else(|| wrong("a duration such as 60m"))?),
        As::Objects(_) | As::Object => return Err(wrong("null or !null: it is an object")),
    })
}

fn duration(text: &str) -> Option<Duration> {
    text.parse::<SignedDuration>().ok().and_then(|duration| Duration::try_from(duration).ok())
}

/// A moment with its offset, or a date, which begins at midnight UTC.
fn moment(text: &str) -> Option<Timestamp> {
    let at_midnight = || TimeZone::UTC.to_timestamp(text.parse::<Date>().ok()?.to_datetime(Time::midnight())).ok();
    // A plus of an offset is a space in a form's spelling.
    text.replace(' ', "+").parse().ok().or_else(at_midnight)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passes(of: As, query: &str, cell: &Cell<'_>) -> bool {
        Filter::parse("f", of, query).unwrap().passes(cell)
    }

    fn refused(of: As, query: &str) -> Code {
        let error = Filter::parse("f", of, query).unwrap_err();
        assert_eq!(error.target.as_deref(), Some("f"));
        error.code
    }

    #[test]
    fn texts() {
        let cell = Cell::text("us-east-1");
        for query in [
            "us-east-1",
            "us-*",
            "*",
            "*-east-*",
            "*1",
            "!eu-*",
            "eu|us-east-1",
            "\"us-east-1\"",
            "{us}-east-1",
            "!null",
            "us..uz",
            "<v",
            ">=us-east-1",
            "!!us*",
        ] {
            assert!(passes(As::Text, query, &cell), "{query}");
        }
        for query in ["us", "US-EAST-1", "*-", "!us*", "null", "a|b", "\"us-*\"", "{us-*}", "<us-east-1", "", "v..z", "\"*\""] {
            assert!(!passes(As::Text, query, &cell), "{query}");
        }
        assert!(passes(As::Text, r#""a|b*\"c\\""#, &Cell::text(r#"a|b*"c\"#)));
        assert!(
            passes(As::Text, "{a..b}", &Cell::text("a..b")) && passes(As::Text, "\"null\"", &Cell::text("null")) && !passes(As::Text, "{null}", &Cell::Null)
        );
        assert!(passes(As::Text, "", &Cell::text("")));
    }

    #[test]
    fn what_is_not_there() {
        assert!(passes(As::Integer, "null", &Cell::Null) && passes(As::Integer, "!5", &Cell::Null) && passes(As::Integer, "5|null", &Cell::Null));
        assert!(!passes(As::Integer, "!null", &Cell::Null) && !passes(As::Integer, "<5", &Cell::Null) && !passes(As::Text, "*", &Cell::Null));
    }

    #[test]
    fn numbers_booleans_moments_and_durations() {
        let number = Cell::Integer(443);
        assert!(passes(As::Integer, ">9", &number) && passes(As::Integer, "400..500", &number) && passes(As::Integer, "4*", &number));
        assert!(!passes(As::Integer, "1..9|!>9", &number));
        assert!(passes(As::Bool, "True", &Cell::Bool(true)) && passes(As::Bool, "!1", &Cell::Bool(false)));
        let at = Cell::time("2026-11-24T10:00:00.7Z".parse().unwrap());
        for query in ["2026-11-24T10:00:00Z", "2026-11-24T12:00:00+02:00", "2026-11-24T12:00:00 02:00", ">2026-11-24", "2026-11-24..2026-11-25", "2026-11-24T*"]
        {
            assert!(passes(As::Time, query, &at), "{query}");
        }
        assert!(
            passes(As::Duration, "<2h", &Cell::Duration(Duration::from_secs(3_600)))
                && passes(As::Duration, "60m", &Cell::Duration(Duration::from_secs(3_600)))
        );
    }

    #[test]
    fn lists_match_by_an_element() {
        let (of, cell) = (As::Texts, Cell::Texts(Cow::Owned(vec!["a".to_owned(), "b".to_owned()])));
        assert!(passes(of, "b", &cell) && passes(of, "a*", &cell) && !passes(of, "!a", &cell) && passes(of, "!c", &cell) && passes(of, "!null", &cell));
        let names = Cell::Json(serde_json::json!(["n1", "n2"]));
        assert!(passes(As::Text, "n2", &names) && !passes(As::Text, "n3", &names));
    }

    #[test]
    fn values_of_different_kinds_are_not_equal() {
        let object = Cell::Json(serde_json::json!({ "a": "zzz" }));
        let at = Cell::time("2026-11-24T10:00:00Z".parse().unwrap());
        for query in ["zzz", "<=zzz", ">=zzz", "a..z"] {
            assert!(!passes(As::Text, query, &object), "{query}");
            assert!(!passes(As::Text, query, &at) && !passes(As::Text, query, &Cell::Integer(3)), "{query}");
        }
        assert!(passes(As::Text, "!zzz", &object) && passes(As::Text, "!null", &object));
        // Members of objects are JSON, and are compared as what they are declared to be.
        let uuid = "00000000-0000-0000-0000-00000000000a";
        let members = Cell::Json(serde_json::json!([uuid.to_uppercase(), "2026-11-24T10:00:00Z"]));
        assert!(passes(As::Uuid, uuid, &members) && !passes(As::Uuid, "00000000-0000-0000-0000-00000000000b", &members));
        assert!(passes(As::Time, "2026-11-24T11:00:00+01:00", &members) && !passes(As::Time, ">2026-11-25", &members));
    }

    #[test]
    fn bad_queries_are_refused() {
        assert_eq!(refused(As::Integer, "x"), Code::InvalidValue);
        assert_eq!(refused(As::Integer, "1|x"), Code::InvalidValue);
        assert_eq!(refused(As::Bool, "maybe"), Code::InvalidValue);
        assert_eq!(refused(As::Uuid, "x"), Code::InvalidValue);
        assert_eq!(refused(As::Time, "yesterday"), Code::InvalidValue);
        for query in ["a..", "..a", "<", ">=", "a|!<"] {
            assert_eq!(refused(As::Text, query), Code::MissingValue, "{query}");
        }
        for query in ["\"a", "\"a\\"] {
            assert_eq!(refused(As::Text, query), Code::InvalidValue, "{query}");
        }
        assert_eq!(refused(As::Text, "{a"), Code::UnmatchedBraces);
        assert_eq!(refused(As::Text, "a}"), Code::UnmatchedBraces);
        assert_eq!(refused(As::Text, &"x".repeat(MAX_QUERY + 1)), Code::OutOfBounds);
        assert_eq!(refused(As::Object, "x"), Code::InvalidValue);
        assert_eq!(refused(As::Text, &"*a|".repeat(MAX_PATTERNS + 1)), Code::OutOfBounds);
        assert!(Filter::parse("f", As::Text, &"a|".repeat(1_000)).is_ok());
    }
}

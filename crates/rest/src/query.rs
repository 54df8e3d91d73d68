//! The part of a URL after the `?`: the API's own parameters, and filters.

use crate::body::{Unknown, unknown};
use crate::field::{Show, bool_of_text};
use crate::resource::Declared;
use keystead_manager::{Code, Error, Result};
use percent_encoding::percent_decode_str;
use std::borrow::Cow;
use std::time::Duration;

/// The most parameters of a URL.
const MAX_PARAMETERS: usize = 100;
/// The longest wait that can be asked for, in seconds.
const MAX_WAIT: i64 = 120;
/// The most records of a page, and the default.
const MAX_RECORDS: usize = 10_000;
/// The most records that can be passed over by their number: all of those are looked for anew each time.
const MAX_OFFSET: usize = 100_000;
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
    "offset",
    "query",
    "query_fields",
];
/// Those that search through fields: 262272 with anything but a GET.
const SEARCH: &[&str] = &["query", "query_fields"];

/// The parameters of a request, decoded, in their order.
#[derive(Debug, Default)]
pub struct Query {
    parameters: Vec<(String, String)>,
}

impl Query {
    /// Reads the raw text after the `?`.
    ///
    /// # Errors
    /// 39387137 it cannot be decoded; 262188 a parameter is given twice; 262248 one has no `=`.
    pub fn parse(raw: &str) -> Result<Self> {
        let mut parameters: Vec<(String, String)> = Vec::new();
        for pair in raw.split('&').filter(|pair| !pair.is_empty()) {
            let Some((name, value)) = pair.split_once('=') else {
                return Err(Error::new(Code::NoAssignment).target(decode(pair)?));
            };
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

    /// Parameters that were read before.
    pub fn of<'a>(parameters: impl Iterator<Item = (&'a str, &'a str)>) -> Self {
        Self { parameters: parameters.map(|(name, value)| (name.to_owned(), value.to_owned())).collect() }
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

    /// How many records are passed over.
    ///
    /// # Errors
    /// 262247; 262245 too many; 262186 together with a position, which has passed over them already.
    pub fn offset(&self) -> Result<usize> {
        let Some(text) = self.get("offset") else { return Ok(0) };
        if self.get("start").is_some() {
            return Err(Error::with(Code::FieldCombination, "offset and start").target("offset"));
        }
        let offset: usize = text.parse().map_err(|_| Error::with(Code::InvalidValue, "it must be a whole number").target("offset"))?;
        if offset > MAX_OFFSET {
            return Err(Error::with(Code::OutOfBounds, format!("it must be from 0 to {MAX_OFFSET}; the links `next` lead further")).target("offset"));
        }
        Ok(offset)
    }

    /// Whether what is not known is read past.
    pub fn ignores_unknown(&self) -> bool {
        self.flag("ignore_unknown_fields", false).unwrap_or(false)
    }

    /// The same for bodies.
    pub fn unknown(&self) -> Unknown {
        if self.ignores_unknown() { Unknown::Ignored } else { Unknown::Refused }
    }

    /// `fields`, without what is not known where that is read past.
    pub fn fields(&self, known: impl Fn(&str) -> bool) -> Option<Cow<'_, str>> {
        let text = self.get("fields").filter(|text| !text.is_empty())?;
        // What cannot be read is refused where it is read.
        let Some(parts) = self.ignores_unknown().then(|| parts_of(text)).flatten() else { return Some(Cow::Borrowed(text)) };
        let plain = |part: &String| ["", "*", "**", "_links"].contains(&part.as_str()) || known(part.strip_prefix('!').unwrap_or(part));
        Some(Cow::Owned(parts.into_iter().filter(plain).collect::<Vec<_>>().join(",")))
    }

    /// The filters: every parameter that is not one of the API's own.
    pub fn filters(&self) -> impl Iterator<Item = (&str, &str)> {
        self.all().filter(|(name, _)| !COMMON.contains(name))
    }

    /// Checks the parameters that every call has.
    ///
    /// # Errors
    /// 262245 and 262247 a value that is none; 262272 a search with anything but a GET.
    pub fn check(&self, is_get: bool) -> Result<()> {
        if let Some((name, _)) = self.all().find(|(name, _)| !is_get && SEARCH.contains(name)) {
            return Err(Error::new(Code::QueryNotAllowed).target(name));
        }
        self.return_timeout()?;
        for flag in ["return_records", "pretty", "ignore_unknown_fields", "continue_on_failure", "serial_records"] {
            self.flag(flag, false)?;
        }
        Ok(())
    }

    /// Refuses parameters that a changing call does not take.
    ///
    /// # Errors
    /// 262202 a secret in the URL; 262211 a filter; 262179 unknown.
    pub fn check_change(&self, resource: &dyn Declared, further: &[&str]) -> Result<()> {
        for (name, _) in self.filters().filter(|(name, _)| !further.contains(name)) {
            return Err(match resource.spec(name) {
                Some(spec) if spec.show == Show::Never => Error::with(Code::SecretInUrl, name).target(name),
                // Not the code's own text: it is about POST.
                Some(_) => Error { message: format!("The call takes no filters: {name}"), ..Error::new(Code::FilterOnCreate) }.target(name),
                None if self.ignores_unknown() => continue,
                None => unknown(name),
            });
        }
        Ok(())
    }

    /// Refuses parameters that a GET of one record does not take.
    ///
    /// # Errors
    /// 262202 a secret in the URL; 262179 unknown.
    pub fn check_one(&self, resource: &dyn Declared) -> Result<()> {
        for (name, _) in self.filters() {
            return Err(match resource.spec(name) {
                Some(spec) if spec.show == Show::Never => Error::with(Code::SecretInUrl, name).target(name),
                Some(_) => continue,
                None if self.ignores_unknown() => continue,
                None => unknown(name),
            });
        }
        Ok(())
    }
}

/// The parts of `fields`, those within braces each by itself. `None`: the braces do not match.
fn parts_of(text: &str) -> Option<Vec<String>> {
    let mut inside = false;
    let pieces = text.split(|c| {
        inside = (inside || c == '{') && c != '}';
        c == ',' && !inside
    });
    let mut parts = Vec::new();
    for piece in pieces.map(str::trim) {
        match piece.split_once('{') {
            None if piece.contains('}') => return None,
            None => parts.push(piece.to_owned()),
            Some((prefix, inner)) => {
                let inner = inner.strip_suffix('}').filter(|inner| !inner.contains(['{', '}']))?;
                parts.extend(inner.split(',').map(|name| format!("{prefix}{}", name.trim())));
            }
        }
    }
    Some(parts)
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
        let query = Query::parse("a=1&b=x%20y+z&&c=").unwrap();
        assert_eq!((query.get("a"), query.get("b"), query.get("c")), (Some("1"), Some("x y z"), Some("")));
        assert_eq!(code(Query::parse("a=1&a=2")), Code::FieldTwice);
        assert_eq!(code(Query::parse("a=%ff")), Code::BadUrl);
        assert_eq!(code(Query::parse("a=1&b")), Code::NoAssignment);
    }

    #[test]
    fn what_is_not_known_is_taken_out_of_fields() {
        let fields = |text: &str| {
            let query = Query::parse(&format!("ignore_unknown_fields=true&fields={text}")).unwrap();
            query.fields(|path| ["a", "b.c", "b.d"].contains(&path)).unwrap().into_owned()
        };
        assert_eq!(fields("a,x,!a,!x,*,**"), "a,!a,*,**");
        assert_eq!(fields("b.{c,x, d},x.{c},!b.{x,c},a"), "b.c,b.d,!b.c,a");
        for text in ["b.{c", "b.c}", "b.{c}d", "b.{c,{d}}", "x,b.{c"] {
            assert_eq!(fields(text), text, "it is refused elsewhere");
        }
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

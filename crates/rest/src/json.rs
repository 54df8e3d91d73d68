//! Reading a body: strict JSON, no member twice, bounded depth. No error quotes what was in the body, since that may be a secret.

use keystead_manager::{Code, Error, Result};
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use std::cell::Cell;
use std::fmt;

/// How deep objects and arrays may be nested.
const MAX_DEPTH: u32 = 32;

/// Reads a body as an object. An empty body is an empty object.
///
/// # Errors
/// 262199 no JSON (line and column); 262200 a number out of range; 262201 not UTF-8, too deep, or no object; 262282 a member twice, with its dotted path as target.
pub fn object(body: &[u8]) -> Result<Map<String, Value>> {
    let text = std::str::from_utf8(body).map_err(|_| Error::with(Code::InvalidJson, "it is not UTF-8"))?;
    if text.trim_ascii().is_empty() {
        return Ok(Map::new());
    }
    let trouble = Trouble::default();
    let mut json = serde_json::Deserializer::from_str(text);
    let parsed = Strict { depth: 0, path: String::new(), trouble: &trouble }.deserialize(&mut json).and_then(|value| json.end().map(|()| value));
    let error = match parsed {
        Ok(Value::Object(object)) => return Ok(object),
        Ok(_) => return Err(Error::with(Code::InvalidJson, "it must be one JSON object")),
        Err(error) => error,
    };
    if let Some(path) = trouble.twice.take() {
        return Err(Error::new(Code::KeyTwice).target(path));
    }
    if trouble.deep.get() {
        return Err(Error::with(Code::InvalidJson, format!("it is nested deeper than {MAX_DEPTH}")));
    }
    let place = format!("line {} column {}", error.line(), error.column());
    // serde_json has no category for this; the text is its own, and holds nothing of the body.
    let code = if error.to_string().starts_with("number out of range") { Code::InvalidJsonRange } else { Code::InvalidJsonAt };
    Err(Error::with(code, place))
}

/// What the parser's own error type cannot carry.
#[derive(Default)]
struct Trouble {
    twice: Cell<Option<String>>,
    deep: Cell<bool>,
}

struct Strict<'a> {
    depth: u32,
    path: String,
    trouble: &'a Trouble,
}

impl Strict<'_> {
    fn inside<E: serde::de::Error>(&self, name: &str) -> std::result::Result<Strict<'_>, E> {
        if self.depth == MAX_DEPTH {
            self.trouble.deep.set(true);
            return Err(E::custom("too deep"));
        }
        let path = if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) };
        Ok(Strict { depth: self.depth + 1, path, trouble: self.trouble })
    }
}

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> std::result::Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, value: bool) -> std::result::Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> std::result::Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> std::result::Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> std::result::Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> std::result::Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_unit<E>(self) -> std::result::Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> std::result::Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(value) = seq.next_element_seed(self.inside::<A::Error>("[]")?)? {
            list.push(value);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(name) = map.next_key::<String>()? {
            let inside = self.inside::<A::Error>(&name)?;
            if object.contains_key(&name) {
                self.trouble.twice.set(Some(inside.path));
                return Err(serde::de::Error::custom("twice"));
            }
            let value = map.next_value_seed(inside)?;
            object.insert(name, value);
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn code(body: &str) -> Code {
        object(body.as_bytes()).unwrap_err().code
    }

    #[test]
    fn good_bodies_are_read() {
        assert_eq!(object(b"").unwrap().len(), 0);
        assert_eq!(object(b" {} ").unwrap().len(), 0);
        let read = object(br#"{"a":{"b":[1,-2,1.5,"x",null,true]}}"#).unwrap();
        assert_eq!(Value::Object(read), serde_json::json!({"a":{"b":[1,-2,1.5,"x",null,true]}}));
    }

    #[test]
    fn each_kind_of_bad_body_has_its_code() {
        assert_eq!(code(r#"{"a":1,}"#), Code::InvalidJsonAt);
        assert_eq!(code(r#"{"a":1} x"#), Code::InvalidJsonAt);
        assert_eq!(code(r#"{"a":1e999}"#), Code::InvalidJsonRange);
        assert_eq!(code("[]"), Code::InvalidJson);
        assert_eq!(code("\"x\""), Code::InvalidJson);
        assert_eq!(object(b"\xff").unwrap_err().code, Code::InvalidJson);
        assert_eq!(code(&format!("{{\"a\":{}{}}}", "[".repeat(40), "]".repeat(40))), Code::InvalidJson);
    }

    #[test]
    fn a_member_twice_is_named_with_its_path() {
        let error = object(br#"{"svm":{"name":"a","name":"b"}}"#).unwrap_err();
        assert_eq!((error.code, error.target.as_deref()), (Code::KeyTwice, Some("svm.name")));
    }

    #[test]
    fn errors_quote_nothing() {
        for body in [r#"{"secret_access_key":"hunter2""#, r#"{"secret_access_key":hunter2}"#, r#"{"hunter2":1 2}"#] {
            assert!(!format!("{:?}", object(body.as_bytes()).unwrap_err()).contains("hunter2"), "{body}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = object(&body);
        }
    }
}

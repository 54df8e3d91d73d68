//! The encryption context, as operators write it.

use std::collections::HashMap;

/// The most pairs of a context. AWS sets no number, but limits the whole to 8 KiB (AWS KMS Developer Guide, "Resource quotas").
const MAX_PAIRS: usize = 256;
/// The longest text.
const MAX_TEXT: usize = 8_192;

/// An encryption context: text pairs that AWS must find again, exactly and in any order, when it decrypts (AWS KMS Developer Guide, "Encryption context").
///
/// It is no secret: it shows in CloudTrail.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EncryptionContext(HashMap<String, String>);

/// Why a text is no encryption context.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the encryption context is neither \"key=value[,key=value…]\" nor a JSON object of strings: {0}")]
pub struct ContextError(String);

impl EncryptionContext {
    /// Reads `k=v[,k=v…]`, cut at the first `=` of each pair (a key may hold `:`), or a JSON object of strings. Empty text: no context.
    ///
    /// # Errors
    /// It is neither; a key is empty or stands twice; it is too long.
    pub fn parse(text: &str) -> Result<Self, ContextError> {
        let fail = |why: &str| Err(ContextError(why.to_owned()));
        if text.len() > MAX_TEXT {
            return fail("it is longer than 8192 bytes");
        }
        let text = text.trim();
        if text.is_empty() {
            return Ok(Self::default());
        }
        let pairs = if text.starts_with('{') { from_json(text)? } else { from_pairs(text)? };
        if pairs.len() > MAX_PAIRS {
            return fail("it has more than 256 pairs");
        }
        let count = pairs.len();
        let map: HashMap<String, String> = pairs.into_iter().collect();
        if map.len() != count {
            return fail("a key stands twice");
        }
        if map.keys().any(String::is_empty) {
            return fail("a key is empty");
        }
        Ok(Self(map))
    }

    /// The pairs, for the SDK. `None` where there are none.
    pub(crate) fn pairs(&self) -> Option<HashMap<String, String>> {
        (!self.0.is_empty()).then(|| self.0.clone())
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    /// How many pairs there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn from_pairs(text: &str) -> Result<Vec<(String, String)>, ContextError> {
    text.split(',')
        .map(|pair| match pair.split_once('=') {
            Some((key, value)) => Ok((key.trim().to_owned(), value.trim().to_owned())),
            None => Err(ContextError("a pair has no \"=\"".to_owned())),
        })
        .collect()
}

fn from_json(text: &str) -> Result<Vec<(String, String)>, ContextError> {
    struct Pairs;
    impl<'de> serde::de::Visitor<'de> for Pairs {
        type Value = Vec<(String, String)>;
        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an object of strings")
        }
        fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut pairs = Vec::new();
            while let Some(pair) = map.next_entry()? {
                pairs.push(pair);
            }
            Ok(pairs)
        }
    }
    let mut json = serde_json::Deserializer::from_str(text);
    let pairs = serde::de::Deserializer::deserialize_map(&mut json, Pairs).and_then(|pairs| json.end().map(|()| pairs));
    pairs.map_err(|error| ContextError(format!("line {} column {}", error.line(), error.column())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_seeds_context_is_cut_at_its_first_equals_sign() {
        let context = EncryptionContext::parse("aws:fsx:fs-id=fs-0785c8beceb895999").unwrap();
        assert_eq!((context.get("aws:fsx:fs-id"), context.len()), (Some("fs-0785c8beceb895999"), 1));
        assert_eq!(EncryptionContext::parse("a=b=c").unwrap().get("a"), Some("b=c"));
    }

    #[test]
    fn json_and_pairs_say_the_same() {
        let json = EncryptionContext::parse(r#" {"b":"2","a":"1,x"} "#).unwrap();
        assert_eq!((json.get("a"), json.get("b")), (Some("1,x"), Some("2")));
        assert_eq!(EncryptionContext::parse("a=1,b=2").unwrap(), EncryptionContext::parse(r#"{"b":"2","a":"1"}"#).unwrap());
        assert!(EncryptionContext::parse("").unwrap().is_empty());
    }

    #[test]
    fn what_is_neither_is_refused() {
        for text in ["novalue", "a=1,", "=x", "a=1,a=2", r#"{"a":1}"#, r#"{"a":"1","a":"2"}"#, "{", r#"{"a":"1"} x"#, &"a".repeat(9_000)] {
            assert!(EncryptionContext::parse(text).is_err(), "{text:.40}");
        }
    }

    proptest! {
        #[test]
        fn pairs_come_back(pairs in proptest::collection::hash_map("[a-z:/-]{1,12}", "[a-zA-Z0-9=:{}]{0,12}", 1..8)) {
            let text = pairs.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(",");
            prop_assert_eq!(EncryptionContext::parse(&text).unwrap().0, pairs.clone());
            prop_assert_eq!(EncryptionContext::parse(&serde_json::to_string(&pairs).unwrap()).unwrap().0, pairs);
        }

        #[test]
        fn no_text_panics(text in ".{0,60}") {
            let _ = EncryptionContext::parse(&text);
        }
    }
}

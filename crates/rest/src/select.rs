//! Which fields a GET shows.

use crate::field::Show;
use crate::resource::{Resource, get, put};
use keystead_manager::{Code, Error, Result};
use serde_json::{Map, Value as Json};
use std::collections::BTreeSet;

/// The longest `fields` text.
const MAX_TEXT: usize = 4_096;

/// The fields that a request has asked for.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Selection {
    paths: BTreeSet<&'static str>,
}

impl Selection {
    /// Reads `fields`: a comma list of `a`, `a.b`, `a.{b,c}`, `!a.b`, `*`, `**`. Without it: only the keys, or all standard fields in a GET of one record.
    ///
    /// # Errors
    /// 262197 unknown; 262249 a secret.
    pub fn parse(resource: &Resource, text: Option<&str>, one_record: bool) -> Result<Self> {
        let mut selection = Self::default();
        selection.add(resource, &[Show::Key]);
        let Some(text) = text.filter(|text| !text.is_empty()) else {
            if one_record {
                selection.add(resource, &[Show::Standard]);
            }
            return Ok(selection);
        };
        if text.len() > MAX_TEXT {
            return Err(Error::with(Code::UnknownRequestedField, "the list is too long").target("fields"));
        }
        for part in split(text) {
            let (part, wanted) = part.strip_prefix('!').map_or((part, true), |rest| (rest, false));
            for path in expand(part) {
                selection.select(resource, &path, wanted)?;
            }
        }
        Ok(selection)
    }

    /// Whether a field, or any field under an object, is shown.
    pub fn has(&self, path: &str) -> bool {
        self.paths.iter().any(|shown| shown == &path || shown.strip_prefix(path).is_some_and(|rest| rest.starts_with('.')))
    }

    /// Keeps of a record what is shown.
    pub fn project(&self, record: &Map<String, Json>) -> Map<String, Json> {
        let mut shown = Map::new();
        for path in &self.paths {
            if let Some(value) = get(record, path).filter(|value| !value.is_null()) {
                put(&mut shown, path, value.clone());
            }
        }
        shown
    }

    fn add(&mut self, resource: &Resource, shows: &[Show]) {
        self.paths.extend(resource.fields.iter().filter(|field| shows.contains(&field.show)).map(|field| field.path));
    }

    fn select(&mut self, resource: &Resource, path: &str, wanted: bool) -> Result<()> {
        match path {
            "" | "_links" => return Ok(()),
            "*" => {
                self.add(resource, &[Show::Standard]);
                return Ok(());
            }
            "**" => {
                self.add(resource, &[Show::Standard, Show::Advanced]);
                return Ok(());
            }
            _ => {}
        }
        let found: Vec<_> = match resource.field(path) {
            Some(field) if field.show == Show::Never => return Err(Error::with(Code::NotRequestable, path).target("fields")),
            Some(field) => vec![field],
            None => resource.under(path.strip_suffix(".*").unwrap_or(path)).filter(|field| !matches!(field.show, Show::Never | Show::Exact)).collect(),
        };
        if found.is_empty() {
            return Err(Error::with(Code::UnknownRequestedField, path).target("fields"));
        }
        for field in found {
            if wanted {
                self.paths.insert(field.path);
            } else if field.show != Show::Key {
                self.paths.remove(field.path);
            }
        }
        Ok(())
    }
}

/// Splits at the commas that are not within braces.
fn split(text: &str) -> Vec<&str> {
    let mut depth = 0u32;
    text.split(move |c| {
        match c {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        c == ',' && depth == 0
    })
    .map(str::trim)
    .collect()
}

/// `a.{b,c}` is `a.b` and `a.c`.
fn expand(part: &str) -> Vec<String> {
    match part.strip_suffix('}').and_then(|rest| rest.split_once('{')) {
        Some((prefix, inner)) => inner.split(',').map(|name| format!("{prefix}{}", name.trim())).collect(),
        None => vec![part.to_owned()],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aws_kms::AWS_KMS;

    fn selected(text: Option<&str>, one: bool) -> Selection {
        Selection::parse(&AWS_KMS, text, one).unwrap()
    }

    #[test]
    fn keys_always_and_the_rest_on_demand() {
        assert!(selected(None, false).has("svm.name") && !selected(None, false).has("region"));
        assert!(selected(None, true).has("region") && !selected(None, true).has("state"));
        assert!(selected(Some("*"), false).has("region") && !selected(Some("*"), false).has("state"));
        assert!(selected(Some("**"), false).has("state") && !selected(Some("**"), false).has("keystead"));
        assert!(selected(Some("keystead"), false).has("keystead.bound"));
        for text in ["*", "**", "keystead", "keystead.*", "*,**,keystead,keystead.bound", "keystead.check,!keystead.check", "keystead.check,!keystead.{check}"]
        {
            assert!(!selected(Some(text), true).has("keystead.check"), "{text}");
        }
        assert!(selected(Some("uuid,keystead.{bound,check}"), false).has("keystead.check") && selected(Some("keystead.check"), true).has("keystead"));
        assert!(selected(Some("state.{code,message}"), false).has("state.code") && !selected(Some("state.{code,message}"), false).has("state.cluster_state"));
        assert!(!selected(Some("*,!region"), false).has("region") && selected(Some("*,!region"), false).has("port"));
    }

    #[test]
    fn unknown_and_secret_fields_are_refused() {
        let code = |text: &str| Selection::parse(&AWS_KMS, Some(text), false).unwrap_err().code;
        assert_eq!(code("nope"), Code::UnknownRequestedField);
        assert_eq!(code("svm.nope"), Code::UnknownRequestedField);
        assert_eq!(code("secret_access_key"), Code::NotRequestable);
        assert_eq!(code("*,proxy_password"), Code::NotRequestable);
    }
}

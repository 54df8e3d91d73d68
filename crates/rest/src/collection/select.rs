//! Which fields a GET shows.

use crate::field::{As, Show};
use crate::resource::{Place, Resource};
use keystead_manager::{Code, Error, Result};
use std::collections::BTreeSet;

/// The longest `fields` text.
const MAX_TEXT: usize = 4_096;

/// The fields that a request has asked for.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Selection {
    fields: Vec<Shown>,
}

/// How much of a field is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shown {
    /// Nothing.
    Not,
    /// All of it.
    Whole,
    /// Of each object in a list, these members.
    Members(BTreeSet<&'static str>),
}

impl Selection {
    /// Reads `fields`: a comma list of `a`, `a.b`, `a.{b,c}`, `!a.b`, `*`, `**`. Without it, and where it only says what is not wanted: only the keys, or all standard fields in a GET of one
    /// record. Each part is added to, or taken from, what stands before it.
    ///
    /// # Errors
    /// 262197 unknown; 262249 a secret; 262286 a brace without its other one; 262245 too long.
    pub fn parse<T>(resource: &Resource<T>, text: Option<&str>, one_record: bool) -> Result<Self> {
        let mut selection = Self { fields: vec![Shown::Not; resource.fields.len()] };
        selection.add(resource, &[Show::Key]);
        let parts = text.map(split).transpose()?.unwrap_or_default();
        if one_record && parts.iter().all(|part| part.is_empty() || part.starts_with('!')) {
            selection.add(resource, &[Show::Standard]);
        }
        for part in parts {
            let (part, wanted) = part.strip_prefix('!').map_or((part, true), |rest| (rest, false));
            for path in expand(part)? {
                selection.select(resource, &path, wanted)?;
            }
        }
        Ok(selection)
    }

    /// All that a GET of one record shows by itself.
    pub fn whole<T>(resource: &Resource<T>) -> Self {
        let mut selection = Self { fields: vec![Shown::Not; resource.fields.len()] };
        selection.add(resource, &[Show::Key, Show::Standard]);
        selection
    }

    /// Whether a field, or any field under an object, is shown.
    pub fn has<T>(&self, resource: &Resource<T>, path: &str) -> bool {
        let shown = |at: usize| self.of(at) != &Shown::Not;
        resource.place(path).is_some_and(|place| shown(place.field)) || resource.under(path).any(|(at, _)| shown(at))
    }

    /// How much of a field is shown.
    pub fn of(&self, field: usize) -> &Shown {
        self.fields.get(field).unwrap_or(&Shown::Not)
    }

    /// Shows this field too.
    pub fn show<T>(&mut self, resource: &Resource<T>, path: &str) {
        for (shown, _) in self.fields.iter_mut().zip(resource.fields).filter(|(_, field)| field.spec.path == path) {
            *shown = Shown::Whole;
        }
    }

    fn add<T>(&mut self, resource: &Resource<T>, shows: &[Show]) {
        for (shown, _) in self.fields.iter_mut().zip(resource.fields).filter(|(_, field)| shows.contains(&field.spec.show)) {
            *shown = Shown::Whole;
        }
    }

    fn select<T>(&mut self, resource: &Resource<T>, path: &str, wanted: bool) -> Result<()> {
        match path {
            "" | "_links" => return Ok(()),
            "*" if wanted => {
                self.add(resource, &[Show::Standard]);
                return Ok(());
            }
            "**" if wanted => {
                self.add(resource, &[Show::Standard, Show::Advanced]);
                return Ok(());
            }
            _ => {}
        }
        let show = |field: usize| resource.fields.get(field).map(|field| field.spec.show);
        let found: Vec<Place> = match resource.place(path) {
            Some(place) if show(place.field) == Some(Show::Never) => return Err(Error::with(Code::NotRequestable, path).target("fields")),
            Some(place) => vec![place],
            None => resource
                .under(path.strip_suffix(".*").unwrap_or(path))
                .filter(|(_, spec)| !matches!(spec.show, Show::Never | Show::Exact))
                .map(|(field, spec)| Place { field, member: None, of: spec.kind.of() })
                .collect(),
        };
        if found.is_empty() {
            return Err(Error::with(Code::UnknownRequestedField, path).target("fields"));
        }
        for place in found.into_iter().filter(|place| wanted || show(place.field) != Some(Show::Key)) {
            let all = match resource.fields.get(place.field).map(|field| field.spec.kind.of()) {
                Some(As::Objects(members)) => members,
                _ => &[],
            };
            if let Some(shown) = self.fields.get_mut(place.field) {
                shown.set(place, wanted, all);
            }
        }
        Ok(())
    }
}

impl Shown {
    /// `all`: the members of each object of the list, where it is one.
    fn set(&mut self, place: Place, wanted: bool, all: &'static [(&'static str, As)]) {
        match (place.member, wanted) {
            (None, true) => *self = Self::Whole,
            (None, false) => *self = Self::Not,
            (Some(member), true) => match self {
                Self::Whole => {}
                Self::Members(members) => {
                    members.insert(member);
                }
                Self::Not => *self = Self::Members(BTreeSet::from([member])),
            },
            (Some(member), false) => {
                if *self == Self::Whole {
                    *self = Self::Members(all.iter().map(|(name, _)| *name).collect());
                }
                if let Self::Members(members) = self {
                    members.remove(member);
                }
            }
        }
    }
}

/// Splits at the commas that are not within braces.
///
/// # Errors
/// 262286, 262245.
fn split(text: &str) -> Result<Vec<&str>> {
    if text.len() > MAX_TEXT {
        return Err(Error::with(Code::OutOfBounds, format!("it has at most {MAX_TEXT} bytes")).target("fields"));
    }
    let unmatched = || Error::new(Code::UnmatchedBraces).target("fields");
    let (mut parts, mut from, mut inside) = (Vec::new(), 0, false);
    for (at, c) in text.char_indices() {
        match c {
            '{' if inside => return Err(unmatched()),
            '{' => inside = true,
            '}' if !inside => return Err(unmatched()),
            '}' => inside = false,
            ',' if !inside => {
                parts.push(text.get(from..at).unwrap_or_default().trim());
                from = at + 1;
            }
            _ => {}
        }
    }
    if inside {
        return Err(unmatched());
    }
    parts.push(text.get(from..).unwrap_or_default().trim());
    Ok(parts)
}

/// `a.{b,c}` is `a.b` and `a.c`.
///
/// # Errors
/// 262286 something stands behind the braces.
fn expand(part: &str) -> Result<Vec<String>> {
    let Some((prefix, inner)) = part.split_once('{') else { return Ok(vec![part.to_owned()]) };
    let inner = inner.strip_suffix('}').ok_or_else(|| Error::with(Code::UnmatchedBraces, "nothing stands behind a }").target("fields"))?;
    Ok(inner.split(',').map(|name| format!("{prefix}{}", name.trim())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aws_kms::AWS_KMS;

    fn has(text: Option<&str>, one: bool, path: &str) -> bool {
        Selection::parse(&AWS_KMS, text, one).unwrap().has(&AWS_KMS, path)
    }

    #[test]
    fn keys_always_and_the_rest_on_demand() {
        assert!(has(None, false, "svm.name") && !has(None, false, "region"));
        assert!(has(None, true, "region") && !has(None, true, "state"));
        assert!(has(Some("*"), false, "region") && !has(Some("*"), false, "state"));
        assert!(has(Some("**"), false, "state") && !has(Some("**"), false, "keystead"));
        assert!(has(Some("keystead"), false, "keystead.bound"));
        for text in ["*", "**", "keystead", "keystead.*", "*,**,keystead,keystead.bound", "keystead.check,!keystead.check", "keystead.check,!keystead.{check}"]
        {
            assert!(!has(Some(text), true, "keystead.check"), "{text}");
        }
        assert!(has(Some("uuid,keystead.{bound,check}"), false, "keystead.check") && has(Some("keystead.check"), true, "keystead"));
        assert!(has(Some("state.{code,message}"), false, "state.code") && !has(Some("state.{code,message}"), false, "state.cluster_state"));
        assert!(!has(Some("*,!region"), false, "region") && has(Some("*,!region"), false, "port"));
        assert!(!has(Some("!region"), true, "region") && has(Some("!region"), true, "port") && !has(Some("!region"), false, "port"));
    }

    #[test]
    fn members_of_lists_by_themselves() {
        let at = AWS_KMS.place("ekmip_reachability").unwrap().field;
        let members = |text| Selection::parse(&AWS_KMS, Some(text), false).unwrap().of(at).clone();
        assert_eq!(members("ekmip_reachability"), Shown::Whole);
        assert_eq!(members("ekmip_reachability.{code,node.name}"), Shown::Members(BTreeSet::from(["code", "node.name"])));
        assert_eq!(members("**,!ekmip_reachability.{code,message,reachable}"), Shown::Members(BTreeSet::from(["node.name", "node.uuid"])));
    }

    #[test]
    fn unknown_and_secret_fields_are_refused() {
        let code = |text: &str| Selection::parse(&AWS_KMS, Some(text), false).unwrap_err().code;
        assert_eq!(code("nope"), Code::UnknownRequestedField);
        assert_eq!(code("svm.nope"), Code::UnknownRequestedField);
        assert_eq!(code("ekmip_reachability.nope"), Code::UnknownRequestedField);
        assert_eq!(code("secret_access_key"), Code::NotRequestable);
        assert_eq!(code("*,proxy_password"), Code::NotRequestable);
        for text in ["state.{code", "state.code}", "state.{a,{b}}", "state.{code}x"] {
            assert_eq!(code(text), Code::UnmatchedBraces, "{text}");
        }
        assert_eq!(code(&"x".repeat(MAX_TEXT + 1)), Code::OutOfBounds);
    }
}

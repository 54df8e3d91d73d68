//! Reading a body by a resource's declaration.

use crate::field::{Patch, Post, Spec, Value};
use crate::resource::Declared;
use crate::values::Values;
use keystead_manager::{Code, Error, Result};
use serde_json::{Map, Value as Json};

/// What happens to fields that are not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unknown {
    /// 262179.
    Refused,
    /// They are read past (`ignore_unknown_fields=true`).
    Ignored,
}

/// Reads the body of a POST.
///
/// # Errors
/// 262179 unknown; 262212 missing; and those of [`Spec::read`].
pub fn read_post(resource: &dyn Declared, body: Map<String, Json>, unknown_fields: Unknown) -> Result<Values> {
    let mut values = Values::default();
    walk(resource, body, "", unknown_fields, &mut |spec, value| match spec.post {
        Post::Unknown if unknown_fields == Unknown::Ignored => Ok(()),
        Post::Unknown => Err(unknown(spec.path)),
        Post::Ignored => {
            values.ignored.push(spec.path);
            Ok(())
        }
        // Clients send empty text for what they do not set.
        Post::Optional if value == Json::String(String::new()) => Ok(()),
        Post::Required | Post::RequiredUnless(_) | Post::Optional => {
            if let Some(value) = spec.read(value)? {
                values.values.insert(spec.path, value);
            }
            Ok(())
        }
    })?;
    let is_missing = |spec: &&Spec| match spec.post {
        Post::Required => !values.has(spec.path),
        Post::RequiredUnless(other) => !values.has(spec.path) && !values.has(other),
        Post::Optional | Post::Ignored | Post::Unknown => false,
    };
    match resource.specs().into_iter().find(is_missing) {
        Some(missing) => Err(Error::with(Code::MissingField, missing.path).target(missing.path)),
        None => Ok(values),
    }
}

/// Reads the body of a PATCH.
///
/// # Errors
/// 262179 unknown; 262203 not to be changed; and those of [`Spec::read`].
pub fn read_patch(resource: &dyn Declared, body: Map<String, Json>, unknown_fields: Unknown) -> Result<Values> {
    let mut values = Values::default();
    walk(resource, body, "", unknown_fields, &mut |spec, value| {
        let empty = value == Json::Null || value == Json::String(String::new());
        let value = match spec.patch {
            Patch::No => return Err(Error::with(Code::NotModifiable, spec.path).target(spec.path)),
            Patch::Clearable if empty => Some(Value::Clear),
            Patch::Yes | Patch::Clearable => spec.read(value)?,
        };
        if let Some(value) = value {
            values.values.insert(spec.path, value);
        }
        Ok(())
    })?;
    Ok(values)
}

/// The error for a field that is not known.
pub fn unknown(path: &str) -> Error {
    Error::with(Code::UnknownField, path).target(path)
}

type Take<'a> = &'a mut dyn FnMut(&'static Spec, Json) -> Result<()>;

fn walk(resource: &dyn Declared, object: Map<String, Json>, prefix: &str, unknown_fields: Unknown, take: Take<'_>) -> Result<()> {
    for (name, value) in object {
        if name == "_links" {
            continue;
        }
        let path = if prefix.is_empty() { name } else { format!("{prefix}.{name}") };
        match (resource.spec(&path), value) {
            (Some(spec), value) => take(spec, value)?,
            (None, Json::Object(inner)) if resource.is_object(&path) => walk(resource, inner, &path, unknown_fields, take)?,
            // An object that is left out in the spelling of some clients.
            (None, Json::Null) if resource.is_object(&path) => {}
            (None, Json::Array(_)) if resource.is_object(&path) => return Err(Error::new(Code::ArrayNotExpected).target(path)),
            (None, _) if resource.is_object(&path) => return Err(Error::with(Code::InvalidValue, "it must be an object").target(path)),
            (None, _) if unknown_fields == Unknown::Ignored => {}
            (None, _) => return Err(unknown(&path)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collection::cell::Cell;
    use crate::field::{ANY, As, Field, Kind, Show};
    use crate::resource::Resource;
    use serde_json::json;

    const fn field(path: &'static str, kind: Kind, post: Post, patch: Patch, show: Show) -> Field<()> {
        Field { spec: Spec { path, kind, post, patch, show, doc: "" }, get: |()| Cell::Null }
    }

    const THING: Resource<()> = Resource {
        name: "thing",
        path: "/api/thing",
        fields: &[
            field("name", Kind::Text(1, 9, ANY), Post::Required, Patch::Yes, Show::Standard),
            field("a.x", Kind::Integer(0, 9), Post::Optional, Patch::Clearable, Show::Standard),
            field("state", Kind::Shown(As::Text), Post::Ignored, Patch::No, Show::Advanced),
            field("either", Kind::Bool, Post::RequiredUnless("a.x"), Patch::Yes, Show::Standard),
            field("pass", Kind::Secret(9), Post::Optional, Patch::Yes, Show::Never),
        ],
        order: &[("name", false)],
        links: &[],
    };

    fn body(value: Json) -> Map<String, Json> {
        value.as_object().unwrap().clone()
    }

    fn post(value: Json) -> Result<Values> {
        THING.read_post(body(value), Unknown::Refused)
    }

    fn patch(value: Json) -> Result<Values> {
        THING.read_patch(body(value), Unknown::Refused)
    }

    fn refused(result: Result<Values>) -> (Code, String) {
        let error = result.unwrap_err();
        (error.code, error.target.unwrap())
    }

    #[test]
    fn a_post_takes_what_is_declared() {
        let mut values = post(json!({"name": "n", "a": {"x": 3}, "state": {"any": 1}, "_links": {}})).unwrap();
        assert_eq!((values.text("name"), values.number::<u8>("a.x")), (Some("n".into()), Some(3)));
        assert_eq!(values.ignored, ["state"]);
        assert_eq!(refused(post(json!({}))), (Code::MissingField, "name".into()));
        assert_eq!(refused(post(json!({"name": "n"}))), (Code::MissingField, "either".into()));
        assert!(post(json!({"name": "n", "either": true})).is_ok());
        assert_eq!(refused(post(json!({"name": "n", "a": {"y": 1}}))), (Code::UnknownField, "a.y".into()));
        assert_eq!(refused(post(json!({"name": "n", "a": 1}))), (Code::InvalidValue, "a".into()));
    }

    #[test]
    fn a_patch_changes_and_clears() {
        let mut values = patch(json!({"a": {"x": null}})).unwrap();
        assert_eq!(values.clearable("a.x", Values::number::<u8>), Some(None));
        let mut values = patch(json!({"a": {"x": 4}})).unwrap();
        assert_eq!(values.clearable("a.x", Values::number::<u8>), Some(Some(4)));
        assert_eq!(refused(patch(json!({"state": 1}))), (Code::NotModifiable, "state".into()));
    }

    #[test]
    fn unknown_fields_can_be_read_past() {
        let mut values = THING.read_post(body(json!({"name": "n", "either": 1, "nope": {"x": []}, "a": {"y": 1}})), Unknown::Ignored).unwrap();
        assert_eq!(values.text("name"), Some("n".into()));
        assert!(THING.read_patch(body(json!({"nope": 1})), Unknown::Ignored).unwrap().is_empty());
    }

    #[test]
    fn secrets_cannot_be_filtered_by() {
        assert_eq!(THING.filterable("pass").unwrap_err().code, Code::NotFilterable);
        assert_eq!(THING.filterable("nope").unwrap_err().code, Code::UnknownField);
        assert!(THING.filterable("a.x").is_ok());
    }
}

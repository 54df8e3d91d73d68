//! A resource: its fields, how a record of it is shown, and in which order records come.

use crate::field::{As, Field, Show, Spec};
use crate::values::Values;
use crate::{body, body::Unknown};
use keystead_manager::{Code, Error, Result};
use serde_json::{Map, Value as Json};

/// A resource with all its fields. `T`: what a record is made from. A body that is no resource has no records: `Resource<()>`.
#[derive(Debug)]
pub struct Resource<T: 'static> {
    /// What one record is called, in the OpenAPI document: `aws_kms`.
    pub name: &'static str,
    /// Where its collection stands, for example `/api/security/aws-kms`.
    pub path: &'static str,
    /// The fields, in the order in which they are checked and shown.
    pub fields: &'static [Field<T>],
    /// The order of a list that is not asked for in another one, by dotted path, and whether descending. Together these fields are one record's alone.
    pub order: &'static [(&'static str, bool)],
    /// The links of a record.
    pub links: &'static [Link<T>],
}

/// A link of a record.
#[derive(Debug)]
pub struct Link<T: 'static> {
    /// The object in which it stands; empty for the record itself.
    pub at: &'static str,
    /// Where it leads.
    pub href: fn(&T) -> Option<String>,
}

/// A resource of whatever type, for those who look at declarations alone.
pub trait Declared: Sync {
    /// What one record is called.
    fn name(&self) -> &'static str;
    /// The fields, in their order.
    fn specs(&self) -> Vec<&'static Spec>;
    /// The declaration of a path.
    fn spec(&self, path: &str) -> Option<&'static Spec>;
    /// Whether fields stand under this path.
    fn is_object(&self, path: &str) -> bool;
}

impl<T> Declared for Resource<T> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn specs(&self) -> Vec<&'static Spec> {
        self.fields.iter().map(|field| &field.spec).collect()
    }

    fn spec(&self, path: &str) -> Option<&'static Spec> {
        self.fields.iter().map(|field| &field.spec).find(|spec| spec.path == path)
    }

    fn is_object(&self, path: &str) -> bool {
        self.under(path).next().is_some()
    }
}

/// A field, or a member of a field that is a list of objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Which field.
    pub field: usize,
    /// The member of each object of its list.
    pub member: Option<&'static str>,
    /// What stands there.
    pub of: As,
}

impl<T> Resource<T> {
    /// Reads the body of a POST.
    ///
    /// # Errors
    /// See [`body::read_post`].
    pub fn read_post(&self, body: Map<String, Json>, unknown: Unknown) -> Result<Values> {
        body::read_post(self, body, unknown)
    }

    /// Reads the body of a PATCH.
    ///
    /// # Errors
    /// See [`body::read_patch`].
    pub fn read_patch(&self, body: Map<String, Json>, unknown: Unknown) -> Result<Values> {
        body::read_patch(self, body, unknown)
    }

    /// The fields under a path, with their numbers.
    pub fn under(&self, path: &str) -> impl Iterator<Item = (usize, &'static Spec)> {
        let prefix = format!("{path}.");
        self.fields.iter().map(|field| &field.spec).enumerate().filter(move |(_, spec)| spec.path.starts_with(&prefix))
    }

    /// The place of a dotted path: a field, or a member of a list of objects.
    pub fn place(&self, path: &str) -> Option<Place> {
        self.fields.iter().enumerate().find_map(|(field, Field { spec, .. })| {
            if spec.path == path {
                return Some(Place { field, member: None, of: spec.kind.of() });
            }
            let As::Objects(members) = spec.kind.of() else { return None };
            let inner = path.strip_prefix(spec.path)?.strip_prefix('.')?;
            members.iter().find(|(name, _)| *name == inner).map(|(name, of)| Place { field, member: Some(name), of: *of })
        })
    }

    /// The place of a path that may be filtered by.
    ///
    /// # Errors
    /// 262179 unknown; 262250 a secret, or what is only shown when it is named by itself.
    pub fn filterable(&self, path: &str) -> Result<Place> {
        let place = self.place(path).ok_or_else(|| body::unknown(path))?;
        match self.fields.get(place.field).map(|field| field.spec.show) {
            Some(Show::Never | Show::Exact) => Err(Error::with(Code::NotFilterable, path).target(path)),
            _ => Ok(place),
        }
    }
}

/// Puts a value at a dotted path of a record.
pub fn put(record: &mut Map<String, Json>, path: &str, value: Json) {
    match path.split_once('.') {
        None => {
            record.insert(path.to_owned(), value);
        }
        Some((first, rest)) => {
            let inner = record.entry(first.to_owned()).or_insert_with(|| Json::Object(Map::new()));
            if let Json::Object(inner) = inner {
                put(inner, rest, value);
            }
        }
    }
}

/// The value at a dotted path of a record.
pub fn get<'a>(record: &'a Map<String, Json>, path: &str) -> Option<&'a Json> {
    match path.split_once('.') {
        None => record.get(path),
        Some((first, rest)) => record.get(first)?.as_object().and_then(|inner| get(inner, rest)),
    }
}

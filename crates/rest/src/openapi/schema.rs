//! JSON schemas (draft 2020-12, as OpenAPI 3.1 has it) from declarations.

use crate::field::{As, Kind, Patch, Post, Show, Spec};
use crate::openapi::calls::{Call, Posted, Shape};
use crate::resource::Declared;
use serde_json::{Map, Value as Json, json};

/// A record as a GET shows it.
pub fn record(resource: &dyn Declared) -> Json {
    let shown = resource.specs().into_iter().filter(|spec| spec.show != Show::Never);
    let mut schema = Object::default();
    for spec in shown {
        schema.put(spec.path, described(of(spec.kind.of()), spec), false);
    }
    let mut json = schema.json(false);
    put(&mut json, "_links", json!({ "$ref": "#/components/schemas/links" }));
    json
}

/// A body as a POST or PATCH takes it.
pub fn body(resource: &dyn Declared, is_patch: bool) -> Json {
    let mut schema = Object::default();
    let mut one_of_two = Vec::new();
    for spec in resource.specs() {
        let (taken, required) = match (is_patch, spec.post, spec.patch) {
            // Null is as good as nothing.
            (true, _, Patch::Yes) => (json!({ "anyOf": [given(spec.kind), { "type": "null" }] }), false),
            (true, _, Patch::Clearable) => (json!({ "anyOf": [given(spec.kind), { "type": "null" }, { "const": "" }] }), false),
            (true, _, Patch::No) | (false, Post::Unknown, _) => continue,
            (false, Post::Required, _) => (given(spec.kind), true),
            (false, Post::RequiredUnless(other), _) => {
                one_of_two.push((spec.path, other));
                (json!({ "anyOf": [given(spec.kind), { "type": "null" }] }), false)
            }
            // An empty text is as good as nothing.
            (false, Post::Optional, _) => (json!({ "anyOf": [given(spec.kind), { "type": "null" }, { "const": "" }] }), false),
            // Whatever was shown may be sent back.
            (false, Post::Ignored, _) => (json!({ "readOnly": true }), false),
        };
        let secret = matches!(spec.kind, Kind::Secret(_));
        let mut taken = described(taken, spec);
        if secret {
            put_at(&mut taken, "writeOnly", json!(true));
        }
        schema.put(spec.path, taken, required);
    }
    let mut json = schema.json(true);
    put(&mut json, "_links", json!({}));
    if !one_of_two.is_empty() {
        let rules: Vec<Json> = one_of_two.iter().map(|(path, other)| json!({ "anyOf": [has(path), has(other)] })).collect();
        put_at(&mut json, "allOf", json!(rules));
    }
    json
}

/// Collections in whose POST the SVM can be named by a header.
pub const TUNNELLED: &[&str] =
    &["/api/security/accounts", "/api/security/aws-kms", "/api/security/certificates", "/api/security/ekmip/client-cas", "/api/security/ekmip/clients"];

/// The parameters of a call that stand in its URL's query, and in headers.
pub fn parameters(call: &Call, is_collection: bool, takes_records: bool) -> Vec<Json> {
    let fields = || text("fields", "What is shown: a list of `a`, `a.b`, `a.{b,c}`, `!a`, `*`, `**`.");
    let for_job = || wait("Seconds to wait for the end of the job.");
    let for_nothing = || wait("Nothing waits for it: a GET is answered at once.");
    let mut parameters = match call.shape {
        Shape::List(resource) => {
            let mut parameters = vec![fields(), for_nothing(), flag("return_records", "Whether records are shown, or only counted.")];
            parameters.extend(page("The most records of a page."));
            parameters.push(text("query", "A search through `query_fields`, in the language of filters."));
            parameters.push(text("query_fields", "The fields to search through, or `*`."));
            if is_collection {
                let doc = "A job of a call with many records: what came of them.";
                parameters.push(query("job_results_uuid", doc, json!({ "type": "string", "format": "uuid" })));
            }
            parameters.extend(filters(resource));
            parameters
        }
        Shape::One(_) => vec![fields(), for_nothing()],
        Shape::Create(..) | Shape::Action | Shape::Post(_, Posted::ByJob(_)) => vec![for_job(), flag("return_records", "Whether the record is answered.")],
        Shape::Control(resource) => {
            let given = resource.specs().into_iter().filter(|spec| spec.patch != Patch::No).map(|spec| query(spec.path, spec.doc, given(spec.kind)));
            std::iter::once(for_job()).chain(given).collect()
        }
        Shape::Post(..) | Shape::Modify(..) | Shape::Delete(_) => vec![for_job()],
    };
    if takes_records {
        parameters.extend(many());
    }
    if matches!(call.shape, Shape::Create(..)) && TUNNELLED.contains(&call.path) {
        let header = |name: &str, doc: &str, schema: Json| json!({ "name": name, "in": "header", "description": doc, "schema": schema });
        parameters.push(header("X-Dot-SVM-Name", "The SVM, by name, where the body does not name it.", json!({ "type": "string" })));
        parameters.push(header("X-Dot-SVM-UUID", "The SVM, by identifier.", json!({ "type": "string", "format": "uuid" })));
    }
    parameters.extend(common());
    parameters
}

/// The parameters of a PATCH or DELETE of a collection.
pub fn collection_parameters(resource: &dyn Declared) -> Vec<Json> {
    let mut parameters = vec![wait("Seconds to wait for the end of the jobs.")];
    parameters.extend(many());
    parameters.extend(page("The most records of one call; the link `next` leads to the others."));
    parameters.extend(common());
    parameters.extend(filters(resource));
    parameters
}

fn query(name: &str, doc: &str, schema: Json) -> Json {
    json!({ "name": name, "in": "query", "description": doc, "schema": schema })
}

fn text(name: &str, doc: &str) -> Json {
    query(name, doc, json!({ "type": "string" }))
}

fn flag(name: &str, doc: &str) -> Json {
    query(name, doc, json!({ "type": "boolean" }))
}

fn wait(doc: &str) -> Json {
    query("return_timeout", doc, json!({ "type": "integer", "minimum": 0, "maximum": 120 }))
}

/// The parameters of every call.
fn common() -> [Json; 2] {
    [
        flag("ignore_unknown_fields", "Whether fields and filters that are not known are read past."),
        flag("pretty", "Whether the answer is written for the eye."),
    ]
}

/// Those of a call on many records.
fn many() -> [Json; 2] {
    [
        flag("continue_on_failure", "Of many records: whether those behind one that fails are done as well."),
        flag("serial_records", "Of many records: whether each waits for the end of the one before."),
    ]
}

/// Those that say which part of a list.
fn page(limit: &str) -> [Json; 4] {
    [
        text("order_by", "The order: a list of `field [asc|desc]`."),
        query("max_records", limit, json!({ "type": "integer", "minimum": 1, "maximum": 10_000 })),
        text("start", "The position where a page begins, as the link `next` has it."),
        query("offset", "How many records are passed over.", json!({ "type": "integer", "minimum": 0 })),
    ]
}

fn filters(resource: &dyn Declared) -> impl Iterator<Item = Json> {
    let shown = resource.specs().into_iter().filter(|spec| !matches!(spec.show, Show::Never | Show::Exact));
    shown.map(|spec| json!({ "name": spec.path, "in": "query", "description": format!("A filter: {}", spec.doc), "schema": { "type": "string" } }))
}

/// What a PATCH or DELETE of a collection answers.
pub fn jobs() -> Json {
    json!({
        "type": "object",
        "properties": {
            "num_records": { "type": "integer", "description": "How many records were accepted." },
            "jobs": { "type": "array", "items": { "type": "object", "properties": { "uuid": { "type": "string", "format": "uuid" }, "_links": { "$ref": "#/components/schemas/links" } } } },
            "job": { "type": "object", "properties": { "uuid": { "type": "string", "format": "uuid" }, "_links": { "$ref": "#/components/schemas/links" } } },
            "errors": { "type": "array", "items": { "$ref": "#/components/schemas/failed" }, "description": "What was refused, or has failed." },
            "_links": { "$ref": "#/components/schemas/links" },
        },
    })
}

/// The body of an error.
pub fn error() -> Json {
    let mut error = inner();
    let argument = json!({ "type": "object", "properties": { "code": { "type": "string" }, "message": { "type": "string" } } });
    put(
        &mut error,
        "arguments",
        json!({ "type": "array", "items": argument, "description": "The jobs that a call on many records has started: the code is `job`, the message its UUID." }),
    );
    json!({ "type": "object", "required": ["error"], "properties": { "error": error } })
}

/// An entry of a list of errors.
pub fn failed() -> Json {
    let mut failed = inner();
    put(&mut failed, "_links", json!({ "$ref": "#/components/schemas/links" }));
    failed
}

fn inner() -> Json {
    json!({
        "type": "object",
        "required": ["message", "code"],
        "properties": {
            "message": { "type": "string", "description": "What happened, where, and what to do next." },
            "code": { "type": "string", "pattern": "^[0-9]+$" },
            "target": { "type": "string", "description": "The field or parameter to blame." },
        },
    })
}

/// What a call answers that goes on as a job.
pub fn job_link() -> Json {
    json!({
        "type": "object",
        "required": ["job"],
        "properties": {
            "job": {
                "type": "object",
                "required": ["uuid"],
                "properties": { "uuid": { "type": "string", "format": "uuid" }, "_links": { "$ref": "#/components/schemas/links" } },
            },
        },
    })
}

/// Links.
pub fn links() -> Json {
    json!({
        "type": "object",
        "additionalProperties": { "type": "object", "required": ["href"], "properties": { "href": { "type": "string" } } },
    })
}

/// An object that is put together from dotted paths.
#[derive(Default)]
struct Object {
    properties: Map<String, Json>,
    objects: Vec<(&'static str, Object)>,
    required: Vec<&'static str>,
}

impl Object {
    fn put(&mut self, path: &'static str, schema: Json, required: bool) {
        match path.split_once('.') {
            None => {
                self.properties.insert(path.to_owned(), schema);
                if required {
                    self.required.push(path);
                }
            }
            Some((name, rest)) => {
                if required && !self.required.contains(&name) {
                    self.required.push(name);
                }
                if let Some((_, inner)) = self.objects.iter_mut().find(|(known, _)| *known == name) {
                    return inner.put(rest, schema, required);
                }
                let mut inner = Self::default();
                inner.put(rest, schema, required);
                self.objects.push((name, inner));
            }
        }
    }

    /// `closed`: nothing else is taken.
    fn json(self, closed: bool) -> Json {
        let mut properties = self.properties;
        for (name, inner) in self.objects {
            let own = name == "keystead";
            let needed = closed && self.required.contains(&name);
            let mut json = inner.json(closed);
            if closed && !needed {
                put_at(&mut json, "type", json!(["object", "null"]));
            }
            if own {
                put_at(&mut json, "x-keystead-own", json!(true));
            }
            if !closed {
                put(&mut json, "_links", json!({ "$ref": "#/components/schemas/links" }));
            }
            properties.insert(name.to_owned(), json);
        }
        let mut json = json!({ "type": "object", "properties": properties });
        if !self.required.is_empty() {
            put_at(&mut json, "required", json!(self.required));
        }
        if closed {
            put_at(&mut json, "additionalProperties", json!(false));
        }
        json
    }
}

/// What is shown.
fn of(kind: As) -> Json {
    match kind {
        As::Text => json!({ "type": "string" }),
        As::Word(words) => json!({ "type": "string", "enum": words }),
        As::Integer => json!({ "type": "integer" }),
        As::Bool => json!({ "type": "boolean" }),
        As::Uuid => json!({ "type": "string", "format": "uuid" }),
        As::Time => json!({ "type": "string", "format": "date-time" }),
        As::Duration => json!({ "type": "string", "examples": ["60m"] }),
        As::Texts => json!({ "type": "array", "items": { "type": "string" } }),
        As::Objects(members) => {
            let mut object = Object::default();
            for (path, of_member) in members {
                object.put(path, of(*of_member), false);
            }
            json!({ "type": "array", "items": object.json(false) })
        }
        As::Object => json!({ "type": "object" }),
    }
}

/// What can be given.
fn given(kind: Kind) -> Json {
    match kind {
        Kind::Lifetime(high) => json!({ "type": "string", "minLength": 2, "maxLength": high }),
        Kind::Text(low, high, rule) => json!({ "type": "string", "minLength": low, "maxLength": high, "$comment": rule.text }),
        Kind::Secret(high) => json!({ "type": "string", "minLength": 1, "maxLength": high }),
        Kind::Integer(low, high) => json!({ "type": "integer", "minimum": low, "maximum": high }),
        Kind::Bool => {
            json!({ "anyOf": [{ "type": "boolean" }, { "enum": [0, 1] }, { "type": "string", "pattern": "^([Tt][Rr][Uu][Ee]|[Ff][Aa][Ll][Ss][Ee]|[01]?)$" }] })
        }
        Kind::Word(words) => json!({ "type": "string", "enum": words }),
        Kind::Uuid => json!({ "type": "string", "format": "uuid" }),
        Kind::Duration(low, high) => {
            json!({ "type": "string", "description": format!("A duration such as `60m`, from {low} s to {high} s."), "examples": ["60m"] })
        }
        Kind::Texts => json!({ "type": "array", "items": { "type": "string" } }),
        Kind::Objects(of_entry, _) => json!({ "type": "array", "items": body(of_entry, false) }),
        Kind::Shown(_) | Kind::Moving(_) => json!({}),
    }
}

fn described(mut schema: Json, spec: &Spec) -> Json {
    if !spec.doc.is_empty() {
        put_at(&mut schema, "description", json!(spec.doc));
    }
    schema
}

/// A schema that asks for a dotted path.
fn has(path: &str) -> Json {
    match path.split_once('.') {
        None => json!({ "required": [path] }),
        Some((name, rest)) => json!({ "required": [name], "properties": { name: has(rest) } }),
    }
}

fn put(schema: &mut Json, property: &str, value: Json) {
    if let Some(properties) = schema.get_mut("properties").and_then(Json::as_object_mut) {
        properties.insert(property.to_owned(), value);
    }
}

fn put_at(schema: &mut Json, name: &str, value: Json) {
    if let Some(schema) = schema.as_object_mut() {
        schema.insert(name.to_owned(), value);
    }
}

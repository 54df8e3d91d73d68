//! The OpenAPI 3.1 document (`/api/openapi.json`): made from the table of calls and the declarations of resources, so that it says what the code does.
//!
//! What is Keystead's own and not ONTAP's carries `x-keystead-own: true`: whole calls, and single fields of ONTAP's resources.

pub mod calls;
mod schema;

use crate::field::Post;
use crate::openapi::calls::{CALLS, Call, Posted, Shape};
use crate::resource::Declared;
use crate::routes::{self, ROUTES, Route};
use bytes::Bytes;
use http::Method;
use serde_json::{Map, Value as Json, json};
use std::sync::LazyLock;

/// The document as text, made once: short, and for the eye.
pub static TEXTS: LazyLock<[Bytes; 2]> = LazyLock::new(|| {
    let document = document();
    [serde_json::to_vec(&document), serde_json::to_vec_pretty(&document)].map(|text| text.unwrap_or_default().into())
});

/// The page that shows the document (`/docs/api`): one file, which loads nothing from elsewhere.
pub const PAGE: &str = include_str!("page.html");

/// What the page may do: its own script and style, and reading the document from here.
pub const PAGE_POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The names of the variable parts of a call's path: the fields of a record that say where it stands.
pub fn segments_of(route: &Route) -> &'static [&'static str] {
    CALLS.iter().find(|call| call.method == route.method && call.path == route.path).map_or(&[], |call| call.segments)
}

/// Whether a POST makes records of a collection, and so takes an array of them.
pub fn takes_records(route: &Route) -> bool {
    let call = CALLS.iter().find(|call| call.method == route.method && call.path == route.path);
    call.is_some_and(|call| matches!(call.shape, Shape::Create(..))) && routes::is_collection(route)
}

fn document() -> Json {
    let mut paths: Map<String, Json> = Map::new();
    let mut schemas = Map::new();
    for route in ROUTES {
        let Some(call) = CALLS.iter().find(|call| call.method == route.method && call.path == route.path) else { continue };
        let operation = operation(route, call, &mut schemas);
        let item = paths.entry(path_of(route.path, call.segments)).or_insert_with(|| json!({}));
        if let Some(item) = item.as_object_mut() {
            item.insert(route.method.as_str().to_lowercase(), operation);
        }
    }
    for call in CALLS {
        let Shape::List(listed) = call.shape else { continue };
        // PATCH and DELETE of what can be listed, where its records can be changed.
        let path = path_of(call.path, call.segments);
        for (each, method) in routes::of_collection(call.path) {
            let Some(call) = CALLS.iter().find(|call| call.method == each.method && call.path == each.path) else { continue };
            let operation = collection_operation(&path, &method, listed, call, &mut schemas);
            if let Some(item) = paths.get_mut(&path).and_then(Json::as_object_mut) {
                item.insert(method.as_str().to_lowercase(), operation);
            }
        }
    }
    schemas.insert("error".to_owned(), schema::error());
    schemas.insert("failed".to_owned(), schema::failed());
    schemas.insert("jobs".to_owned(), schema::jobs());
    schemas.insert("job_link".to_owned(), schema::job_link());
    schemas.insert("links".to_owned(), schema::links());
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Keystead",
            "version": env!("CARGO_PKG_VERSION"),
            "summary": "An open key manager for storage.",
            "description": "The REST API of Keystead, in the conventions of ONTAP's REST API 9.16.1. Calls and fields that are Keystead's own are marked with `x-keystead-own`.",
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "servers": [{ "url": "/" }],
        "security": [{ "basic": [] }, { "session": [], "csrf": [] }, { "certificate": [] }],
        "tags": [
            { "name": "ontap", "description": "As in ONTAP." },
            { "name": "keystead", "description": "Keystead's own." },
        ],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "basic": { "type": "http", "scheme": "basic" },
                "session": { "type": "apiKey", "in": "cookie", "name": "__Host-keystead-session", "description": "A session of the console." },
                "csrf": { "type": "apiKey", "in": "header", "name": "X-CSRF-Token", "description": "What a session brings to change something." },
                "certificate": { "type": "mutualTLS", "description": "A client certificate whose common name is the account's name, signed by a client_ca of /security/certificates." },
            },
            "schemas": schemas,
            "responses": {
                "error": {
                    "description": "The call failed. One for a single record has then changed nothing, unless the message says otherwise. Of one for many records, what was done before stays, and `arguments` names the jobs that were started.",
                    "content": content(reference("error")),
                },
            },
        },
    })
}

fn operation(route: &Route, call: &Call, schemas: &mut Map<String, Json>) -> Json {
    let mut operation = Map::new();
    let own = is_own(route.path);
    operation.insert("operationId".to_owned(), json!(operation_id(&route.method, route.path)));
    operation.insert("summary".to_owned(), json!(call.doc));
    operation.insert("tags".to_owned(), json!([if own { "keystead" } else { "ontap" }]));
    if own {
        operation.insert("x-keystead-own".to_owned(), json!(true));
    }
    let mut parameters: Vec<Json> = call.segments.iter().map(|name| path_parameter(name)).collect();
    parameters.extend(schema::parameters(call, routes::is_collection(route), takes_records(route)));
    operation.insert("parameters".to_owned(), json!(parameters));
    if let Shape::Post(_, Posted::Made(_)) = call.shape {
        // A session begins with a name and a password.
        operation.insert("security".to_owned(), json!([{ "basic": [] }]));
    }
    if let Some((one, required)) = body_of(call, schemas) {
        let body = if takes_records(route) { one_or_many(&one) } else { one };
        operation.insert("requestBody".to_owned(), json!({ "required": required, "content": { "application/json": { "schema": body } } }));
    }
    operation.insert("responses".to_owned(), responses(call, takes_records(route), schemas));
    Json::Object(operation)
}

/// PATCH or DELETE of a collection: by query, or of a `records` array.
fn collection_operation(path: &str, method: &Method, listed: &'static dyn Declared, each: &Call, schemas: &mut Map<String, Json>) -> Json {
    let one = body_of(each, schemas).map_or_else(|| json!({ "type": "object" }), |(one, _)| one);
    let answer = |description: &str| json!({ "description": description, "content": content(reference("jobs")) });
    let mut operation = json!({
        "operationId": format!("{}_all", operation_id(method, each.path)),
        "summary": format!("For all records that pass the filters, or for each of an array: {}", each.doc),
        "tags": [if is_own(path) { "keystead" } else { "ontap" }],
        "parameters": schema::collection_parameters(listed),
        "requestBody": { "required": false, "content": { "application/json": { "schema": one_or_many(&one) } } },
        "responses": {
            "200": answer("Done."),
            "202": answer("Accepted: jobs do it."),
            "default": { "$ref": "#/components/responses/error" },
        },
    });
    if let (true, Some(operation)) = (is_own(path), operation.as_object_mut()) {
        operation.insert("x-keystead-own".to_owned(), json!(true));
    }
    operation
}

/// A body for one record, or an array of them.
fn one_or_many(one: &Json) -> Json {
    // What is no record is refused by itself, and so no mistake of the whole.
    let items = json!({ "anyOf": [one, { "type": "object" }] });
    let records = json!({ "type": "array", "minItems": 1, "maxItems": 2_000, "items": items, "description": "Records, each as a body for one; with PATCH and DELETE, and what it is named by." });
    let many = json!({ "type": "object", "required": ["records"], "properties": { "records": records }, "additionalProperties": false });
    json!({ "anyOf": [one, many] })
}

fn is_own(path: &str) -> bool {
    path.starts_with("/api/security/ekmip")
}

/// The schema of a body, and whether there must be one.
fn body_of(call: &Call, schemas: &mut Map<String, Json>) -> Option<(Json, bool)> {
    let (resource, is_patch) = match call.shape {
        Shape::Create(resource, _) | Shape::Post(resource, ..) => (resource, false),
        Shape::Modify(resource, _) | Shape::Control(resource) => (resource, true),
        // `{}` is as good as nothing.
        Shape::Delete(_) | Shape::Action => return Some((json!({ "type": "object", "additionalProperties": false }), false)),
        Shape::List(_) | Shape::One(_) => return None,
    };
    let name = format!("{}_{}", resource.name(), if is_patch { "patch" } else { "post" });
    schemas.entry(name.clone()).or_insert_with(|| schema::body(resource, is_patch));
    let required = matches!(call.shape, Shape::Modify(..)) || resource.specs().iter().any(|spec| matches!(spec.post, Post::Required | Post::RequiredUnless(_)));
    Some((reference(&name), required))
}

fn responses(call: &Call, takes_records: bool, schemas: &mut Map<String, Json>) -> Json {
    let mut responses = Map::new();
    let mut record = |resource: &'static dyn Declared| {
        schemas.entry(resource.name().to_owned()).or_insert_with(|| schema::record(resource));
        reference(resource.name())
    };
    let answer = |description: &str, schema: Json| json!({ "description": description, "content": content(schema) });
    match call.shape {
        Shape::List(resource) => {
            let schema = json!({
                "type": "object",
                "properties": {
                    "records": { "type": "array", "items": record(resource) },
                    "num_records": { "type": "integer" },
                    "errors": { "type": "array", "items": reference("failed"), "description": "With `job_results_uuid`: what was refused or has failed." },
                    "job": { "type": "object", "description": "With `job_results_uuid`, while it runs." },
                    "_links": reference("links"),
                },
                "required": ["num_records"],
            });
            responses.insert("200".to_owned(), answer("A page of records.", schema));
        }
        Shape::One(resource) => {
            responses.insert("200".to_owned(), answer("The record.", record(resource)));
        }
        Shape::Create(resource, is_job) => {
            let mut created = answer("Made. With `return_records=true`, the record.", records_of(&record(resource), false));
            if let Some(created) = created.as_object_mut() {
                created.insert("headers".to_owned(), json!({ "Location": { "description": "Where it stands.", "schema": { "type": "string" } } }));
            }
            responses.insert("201".to_owned(), created);
            if is_job || takes_records {
                responses.insert("202".to_owned(), answer("Accepted: a job does it.", reference("job_link")));
            }
        }
        Shape::Post(_, Posted::Now(answered)) => {
            let schema = answered.map_or_else(|| json!({ "type": "object" }), &mut record);
            responses.insert("200".to_owned(), answer("Done.", schema));
        }
        Shape::Post(_, Posted::Made(made)) => {
            responses.insert("201".to_owned(), answer("Made.", records_of(&record(made), true)));
        }
        Shape::Post(_, Posted::ByJob(changed)) => {
            responses.insert("201".to_owned(), answer("Done. With `return_records=true`, the record.", records_of(&record(changed), false)));
            responses.insert("202".to_owned(), answer("Accepted: a job does it.", reference("job_link")));
        }
        Shape::Action => {
            responses.insert("201".to_owned(), answer("Done.", json!({ "type": "object" })));
            responses.insert("202".to_owned(), answer("Accepted: a job does it.", reference("job_link")));
        }
        Shape::Control(_) => {
            responses.insert("200".to_owned(), answer("Done.", json!({ "type": "object" })));
        }
        Shape::Modify(_, is_job) | Shape::Delete(is_job) => {
            responses.insert("200".to_owned(), answer("Done.", json!({ "type": "object" })));
            if is_job {
                responses.insert("202".to_owned(), answer("Accepted: a job does it.", reference("job_link")));
            }
        }
    }
    responses.insert("default".to_owned(), json!({ "$ref": "#/components/responses/error" }));
    Json::Object(responses)
}

/// The one record of an answer; whether it is always there. Where an array was given, the link to its results.
fn records_of(record: &Json, always: bool) -> Json {
    let mut schema = json!({
        "type": "object",
        "properties": { "num_records": { "type": "integer" }, "records": { "type": "array", "items": record }, "_links": reference("links") },
    });
    if let (true, Some(schema)) = (always, schema.as_object_mut()) {
        schema.insert("required".to_owned(), json!(["num_records", "records"]));
    }
    schema
}

fn path_parameter(name: &str) -> Json {
    let name = parameter_name(name);
    let schema =
        if name == "uuid" || name.ends_with("_uuid") { json!({ "type": "string", "format": "uuid" }) } else { json!({ "type": "string", "minLength": 1 }) };
    json!({ "name": name, "in": "path", "required": true, "schema": schema })
}

/// A path's parameter is named as the field that stands there, but for the dots: generators of clients make variables of them.
fn parameter_name(field: &str) -> String {
    field.replace('.', "_")
}

fn path_of(path: &str, names: &[&str]) -> String {
    let mut names = names.iter();
    let parts = path.split('/').map(|part| if part == "{}" { format!("{{{}}}", parameter_name(names.next().unwrap_or(&"uuid"))) } else { part.to_owned() });
    parts.collect::<Vec<_>>().join("/")
}

fn operation_id(method: &Method, path: &str) -> String {
    let words = path.trim_start_matches("/api/").split('/').map(|part| if part == "{}" { "one" } else { part }).collect::<Vec<_>>().join("_");
    let verb = match *method {
        Method::POST => "create",
        Method::PATCH => "modify",
        Method::DELETE => "delete",
        _ => "get",
    };
    format!("{verb}_{}", words.replace('-', "_"))
}

fn reference(schema: &str) -> Json {
    json!({ "$ref": format!("#/components/schemas/{schema}") })
}

/// Both kinds of JSON: with links, and without.
fn content(schema: Json) -> Json {
    json!({ "application/hal+json": { "schema": schema.clone() }, "application/json": { "schema": schema } })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The document.
    static DOCUMENT: LazyLock<Json> = LazyLock::new(document);

    #[test]
    fn every_call_is_described_and_nothing_else() {
        for route in ROUTES {
            let described = CALLS.iter().filter(|call| call.method == route.method && call.path == route.path).count();
            assert_eq!(described, 1, "{} {}", route.method, route.path);
        }
        for call in CALLS {
            assert!(ROUTES.iter().any(|route| call.method == route.method && call.path == route.path), "{} {}", call.method, call.path);
            assert_eq!(call.segments.len(), call.path.matches("{}").count(), "{} {}", call.method, call.path);
        }
    }

    #[test]
    fn references_lead_somewhere_and_names_are_unique() {
        let text = DOCUMENT.to_string();
        for (at, _) in text.match_indices("\"$ref\":\"#") {
            let pointer = text[at + 9..].split('"').next().unwrap();
            assert!(DOCUMENT.pointer(pointer).is_some(), "{pointer}");
        }
        let ids: Vec<&str> = DOCUMENT["paths"]
            .as_object()
            .unwrap()
            .values()
            .flat_map(|item| item.as_object().unwrap().values())
            .map(|operation| operation["operationId"].as_str().unwrap())
            .collect();
        let unique: std::collections::BTreeSet<_> = ids.iter().collect();
        assert_eq!(ids.len(), unique.len());
        assert!(ids.len() > ROUTES.len());
    }

    fn operation_of(path: &str, method: &str) -> &'static Json {
        &DOCUMENT["paths"][path][method]
    }

    fn has_parameter(operation: &Json, name: &str) -> bool {
        operation["parameters"].as_array().unwrap().iter().any(|parameter| parameter["name"] == name)
    }

    fn operations() -> impl Iterator<Item = (&'static str, &'static str, &'static Json)> {
        let paths = DOCUMENT["paths"].as_object().unwrap().iter();
        paths.flat_map(|(path, item)| item.as_object().unwrap().iter().map(move |(method, operation)| (path.as_str(), method.as_str(), operation)))
    }

    #[test]
    fn a_post_of_a_collection_takes_an_array() {
        for (path, method, operation) in operations() {
            let text = operation["requestBody"].to_string();
            let takes = text.contains("\"records\"");
            let made = method == "post" && DOCUMENT["paths"].get(format!("{path}/{{uuid}}")).is_some_and(|one| one["get"].is_object());
            let made = made || (method == "post" && path == "/api/security/accounts");
            let of_sessions = path == "/api/security/ekmip/sessions" && method == "post";
            let of_many = operation["operationId"].as_str().unwrap().ends_with("_all");
            assert_eq!(takes, (made && !of_sessions) || of_many, "{method} {path}");
            for name in ["continue_on_failure", "serial_records"] {
                assert_eq!(has_parameter(operation, name), takes, "{method} {path}: {name}");
            }
            if takes {
                assert!(operation["responses"]["202"].is_object(), "{method} {path}: the job");
            }
        }
    }

    #[test]
    fn every_call_has_the_parameters_that_it_takes() {
        for (path, method, operation) in operations() {
            for name in ["ignore_unknown_fields", "return_timeout", "pretty"] {
                assert!(has_parameter(operation, name), "{method} {path}: {name}");
            }
            let list = method == "get" && operation["responses"]["200"].to_string().contains("num_records");
            let of_many = operation["operationId"].as_str().unwrap().ends_with("_all");
            assert_eq!(has_parameter(operation, "start"), list || of_many, "{method} {path}");
            let collection = list && ROUTES.iter().any(|route| route.path == path && routes::is_collection(route));
            assert_eq!(has_parameter(operation, "job_results_uuid"), collection, "{method} {path}");
            let by_job = operation["responses"]["202"].is_object() && method == "post";
            assert!(!by_job || has_parameter(operation, "return_records"), "{method} {path}");
            let tunnelled = operation.to_string().contains("X-Dot-SVM-Name");
            assert_eq!(tunnelled, schema::TUNNELLED.contains(&path) && method == "post", "{method} {path}");
        }
    }

    #[test]
    fn calls_that_are_like_no_other_are_described_as_they_are() {
        let rekey = operation_of("/api/security/aws-kms/{uuid}/rekey-external", "post");
        assert_eq!(rekey["requestBody"]["required"], true);
        assert_eq!(DOCUMENT["components"]["schemas"]["aws_kms_rekey_external_post"]["required"], json!(["key_id"]));
        let sessions = operation_of("/api/security/ekmip/sessions", "post");
        assert_eq!((&sessions["security"], sessions["responses"].get("202")), (&json!([{ "basic": [] }]), None));
        assert_eq!(sessions["responses"]["201"]["content"]["application/json"]["schema"]["required"], json!(["num_records", "records"]));
        let control = operation_of("/api/cluster/jobs/{uuid}", "patch");
        assert_eq!(control["requestBody"]["required"], false);
        let action = control["parameters"].as_array().unwrap().iter().find(|parameter| parameter["name"] == "action").unwrap();
        assert_eq!((&action["in"], &action["schema"]["enum"]), (&json!("query"), &json!(["pause", "resume", "cancel"])));
        assert!(!DOCUMENT["components"]["responses"]["error"]["description"].as_str().unwrap().contains("has changed nothing."));
        assert!(DOCUMENT.pointer("/components/schemas/error/properties/error/properties/arguments/items/properties/message").is_some());
    }

    /// `docs/openapi.json` is the document as it was read the last time. A change of the API shows there: `KEYSTEAD_WRITE_OPENAPI=1 cargo test -p keystead-rest openapi` writes it anew.
    #[test]
    fn the_document_is_the_one_that_was_read() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/openapi.json");
        let now = serde_json::to_string_pretty(&*DOCUMENT).unwrap() + "\n";
        if std::env::var_os("KEYSTEAD_WRITE_OPENAPI").is_some() {
            std::fs::write(&path, &now).unwrap();
        }
        let before = std::fs::read_to_string(&path).unwrap();
        assert!(before == now, "the API has changed; look at the difference in docs/openapi.json after KEYSTEAD_WRITE_OPENAPI=1");
    }
}

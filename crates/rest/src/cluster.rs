//! `/cluster` and `/cluster/nodes`: what clients read first.

use crate::field::{Field, Kind, Patch, Post, Show};
use crate::jobs::time;
use crate::request::{Answer, Request, links};
use crate::resource::{Resource, put};
use crate::select::Selection;
use keystead_manager::model::Node;
use keystead_manager::{Code, Error, Result};
use serde_json::{Map, Value as Json, json};

/// The API version that clients go by: the release that the contract was taken from.
const ONTAP_VERSION: (u32, u32, u32) = (9, 16, 1);
const NODES: &str = "/api/cluster/nodes";

const fn shown(path: &'static str, show: Show, doc: &'static str) -> Field {
    Field { path, kind: Kind::Shown, post: Post::Unknown, patch: Patch::No, show, doc }
}

/// The `cluster` object, as far as Keystead serves it.
const CLUSTER: Resource = Resource {
    path: "/api/cluster",
    fields: &[
        shown("name", Show::Standard, "The cluster's name."),
        shown("uuid", Show::Standard, "The identifier."),
        shown("version.full", Show::Standard, "Keystead's version, and that of the API."),
        shown("version.generation", Show::Standard, "Of the API."),
        shown("version.major", Show::Standard, "Of the API."),
        shown("version.minor", Show::Standard, "Of the API."),
    ],
};

/// The `node` object, as far as Keystead serves it.
const NODE: Resource = Resource {
    path: NODES,
    fields: &[
        shown("uuid", Show::Key, "The identifier."),
        shown("name", Show::Key, "The name."),
        shown("state", Show::Standard, "Always up: a node that is down is not registered."),
        shown("version.full", Show::Standard, "Keystead's version, and that of the API."),
        shown("version.generation", Show::Standard, "Of the API."),
        shown("version.major", Show::Standard, "Of the API."),
        shown("version.minor", Show::Standard, "Of the API."),
        shown("uptime", Show::Standard, "Seconds since the process started."),
        shown("date", Show::Standard, "The node's clock."),
    ],
};

pub async fn show(request: Request) -> Result<Answer> {
    let selection = Selection::parse(&CLUSTER, request.query.get("fields"), true)?;
    let cluster = request.manager.cluster()?;
    let mut record = Map::new();
    put(&mut record, "name", json!(cluster.name));
    put(&mut record, "uuid", json!(cluster.uuid));
    put(&mut record, "version", version(env!("CARGO_PKG_VERSION")));
    let mut shown = selection.project(&record);
    if request.links() {
        put(&mut shown, "_links", links("/api/cluster"));
    }
    Ok(Answer::ok(Json::Object(shown)))
}

pub async fn nodes(request: Request) -> Result<Answer> {
    let selection = Selection::parse(&NODE, request.query.get("fields"), false)?;
    let records = request.manager.nodes().iter().map(|node| record(&request, node)).collect();
    let with_links = request.links();
    request.collection(&NODE, records, |record| Json::Object(project(&selection, record, with_links)))
}

pub async fn node(request: Request) -> Result<Answer> {
    let selection = Selection::parse(&NODE, request.query.get("fields"), true)?;
    let uuid = request.uuid()?;
    let node = request.manager.nodes().into_iter().find(|node| node.uuid == uuid).ok_or_else(|| Error::new(Code::NotFound).target("uuid"))?;
    Ok(Answer::ok(Json::Object(project(&selection, &record(&request, &node), request.links()))))
}

fn record(request: &Request, node: &Node) -> Map<String, Json> {
    let now = request.manager.now();
    let mut record = Map::new();
    put(&mut record, "uuid", json!(node.uuid));
    put(&mut record, "name", json!(node.name));
    put(&mut record, "state", json!("up"));
    put(&mut record, "version", version(&node.version));
    put(&mut record, "uptime", json!(now.duration_since(node.started).as_secs().max(0)));
    put(&mut record, "date", json!(time(now)));
    record
}

fn project(selection: &Selection, record: &Map<String, Json>, with_links: bool) -> Map<String, Json> {
    let mut shown = selection.project(record);
    if with_links {
        let uuid = record.get("uuid").and_then(Json::as_str).unwrap_or_default();
        put(&mut shown, "_links", links(&format!("{NODES}/{uuid}")));
    }
    shown
}

fn version(own: &str) -> Json {
    let (generation, major, minor) = ONTAP_VERSION;
    json!({ "full": format!("Keystead Release {own} (ONTAP REST API {generation}.{major}.{minor})"), "generation": generation, "major": major, "minor": minor })
}

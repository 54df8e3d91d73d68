//! `/cluster` and `/cluster/nodes`: what clients read first.

use crate::collection::cell::Cell;
use crate::field::{As, Field, Show};
use crate::request::{Answer, Request};
use crate::resource::{Link, Resource};
use jiff::Timestamp;
use keystead_manager::model::{Cluster, Node, NodeState};
use keystead_manager::{Code, Error, Result};
use serde_json::json;

/// The API version that clients go by: the release that the contract was taken from.
const ONTAP_VERSION: (u32, u32, u32) = (9, 16, 1);
const CLUSTER_PATH: &str = "/api/cluster";
const NODES: &str = "/api/cluster/nodes";

/// The `cluster` object, as far as Keystead serves it.
pub const CLUSTER: Resource<Cluster> = Resource {
    name: "cluster",
    path: CLUSTER_PATH,
    fields: &[
        Field::shown("name", As::Text, Show::Standard, |cluster| Cell::text(&cluster.name), "The cluster's name."),
        Field::shown("uuid", As::Uuid, Show::Standard, |cluster| Cell::Uuid(cluster.uuid), "The identifier."),
        Field::shown("version.full", As::Text, Show::Standard, |_| full(env!("CARGO_PKG_VERSION")), "Keystead's version, and that of the API."),
        Field::shown("version.generation", As::Integer, Show::Standard, |_| Cell::number(ONTAP_VERSION.0), "Of the API."),
        Field::shown("version.major", As::Integer, Show::Standard, |_| Cell::number(ONTAP_VERSION.1), "Of the API."),
        Field::shown("version.minor", As::Integer, Show::Standard, |_| Cell::number(ONTAP_VERSION.2), "Of the API."),
    ],
    order: &[],
    links: &[Link { at: "", href: |_| Some(CLUSTER_PATH.to_owned()) }],
};

/// A node, and when it is looked at.
pub struct NodeRecord {
    node: Node,
    now: Timestamp,
}

/// The `node` object, as far as Keystead serves it.
pub const NODE: Resource<NodeRecord> = Resource {
    name: "node",
    path: NODES,
    fields: &[
        Field::shown("uuid", As::Uuid, Show::Key, |r| Cell::Uuid(r.node.uuid), "The identifier."),
        Field::shown("name", As::Text, Show::Key, |r| Cell::text(&r.node.name), "The name."),
        Field::shown(
            "state",
            As::Word(&["up", "down"]),
            Show::Standard,
            |r| Cell::text(state(r.node.state)),
            "Whether the node is there: it says so every few seconds.",
        ),
        Field::moving(
            "keystead.view_age",
            As::Duration,
            Show::Standard,
            |r| r.node.view_age.map_or(Cell::Null, Cell::Duration),
            "How long ago what the node knows was as the store; of the node that answers alone. A node that is cut off goes on from what it knows.",
        ),
        Field::shown("keystead.since", As::Time, Show::Standard, |r| Cell::time(r.node.since), "Since when it is in that state."),
        Field::shown("version.full", As::Text, Show::Standard, |r| full(&r.node.version), "Keystead's version, and that of the API."),
        Field::shown("version.generation", As::Integer, Show::Standard, |_| Cell::number(ONTAP_VERSION.0), "Of the API."),
        Field::shown("version.major", As::Integer, Show::Standard, |_| Cell::number(ONTAP_VERSION.1), "Of the API."),
        Field::shown("version.minor", As::Integer, Show::Standard, |_| Cell::number(ONTAP_VERSION.2), "Of the API."),
        Field::moving(
            "uptime",
            As::Integer,
            Show::Standard,
            |r| Cell::Integer(r.now.duration_since(r.node.started).as_secs().max(0)),
            "Seconds since the process started.",
        ),
        Field::moving("date", As::Time, Show::Standard, |r| Cell::time(r.now), "The node's clock."),
    ],
    order: &[("uuid", false)],
    links: &[Link { at: "", href: |r| Some(format!("{NODES}/{}", r.node.uuid)) }],
};

pub async fn show(request: Request) -> Result<Answer> {
    request.one(&CLUSTER, &request.manager.cluster()?)
}

pub async fn nodes(request: Request) -> Result<Answer> {
    request.list(&NODE, records(&request))
}

pub async fn node(request: Request) -> Result<Answer> {
    let uuid = request.uuid()?;
    let found = records(&request).find(|record| record.node.uuid == uuid);
    request.one(&NODE, &found.ok_or_else(|| Error::new(Code::NotFound).target("uuid"))?)
}

pub async fn remove(request: Request) -> Result<Answer> {
    request.no_body(&NODE)?;
    if !request.sees_cluster() {
        return Err(Error::new(Code::NotFound).target("uuid"));
    }
    request.manager.remove_node(&request.who, request.uuid()?).await?;
    Ok(Answer::ok(json!({})))
}

fn records(request: &Request) -> impl Iterator<Item = NodeRecord> {
    let now = request.manager.now();
    request.manager.nodes().into_iter().map(move |node| NodeRecord { node, now })
}

fn state(state: NodeState) -> &'static str {
    match state {
        NodeState::Up => "up",
        NodeState::Down => "down",
    }
}

fn full(own: &str) -> Cell<'static> {
    let (generation, major, minor) = ONTAP_VERSION;
    Cell::made(format!("Keystead Release {own} (ONTAP REST API {generation}.{major}.{minor})"))
}

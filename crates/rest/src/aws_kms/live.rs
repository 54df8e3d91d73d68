//! What is looked at live: whether an SVM's keys are usable, and what reaches what. It costs probes, so it is done where it is asked for, for a bounded number of records.

use super::fields::Record;
use crate::collection::cell::{Cell, time_text};
use crate::request::Request;
use futures_util::StreamExt as _;
use keystead_manager::model::{AwsKms, CheckReport, EkmipReachability, Health, NodeHealth, NodeState};
use keystead_manager::{Code, Freshness, Result};
use serde_json::{Value as Json, json};

/// How many records one request may look at live.
const LIVE_RECORDS: usize = 100;
/// How many of them at a time.
const LIVE_AT_A_TIME: usize = 16;

/// The objects that cost a look.
pub const OBJECTS: [&str; 5] = ["state", "amazon_reachability", "ekmip_reachability", "keystead.check", "keystead.nodes"];

/// Something that costs a look.
#[derive(Default)]
pub enum Looked<T> {
    /// Nobody has asked for it.
    #[default]
    No,
    /// The request has looked at as many as it may.
    TooMany,
    /// What was found.
    Found(Result<T>),
}

/// What was looked at of a configuration.
#[derive(Default)]
pub struct Live {
    /// Whether its KEK is usable.
    pub state: Looked<Health>,
    /// Whether AWS is reached.
    pub amazon: Looked<Health>,
    /// Whether the EKMIP servers are reached.
    pub ekmip: Looked<Vec<EkmipReachability>>,
    /// A preflight.
    pub check: Looked<CheckReport>,
    /// How each node is doing with it.
    pub nodes: Looked<Vec<NodeHealth>>,
}

/// Which of the objects are wanted, and whether results that are some seconds old will do.
#[derive(Clone, Copy)]
pub struct Wanted {
    state: bool,
    amazon: bool,
    ekmip: bool,
    check: bool,
    nodes: bool,
    shared: bool,
}

impl Wanted {
    /// By asking for each of [`OBJECTS`]. `shared`: a list takes what others have found a moment ago.
    pub fn new(wants: impl Fn(&str) -> bool, shared: bool) -> Self {
        let [state, amazon, ekmip, check, nodes] = OBJECTS.map(wants);
        Self { state, amazon, ekmip, check, nodes, shared }
    }
}

/// Looks at what is wanted of one configuration.
pub async fn look(request: &Request, config: AwsKms, wanted: Wanted) -> Record {
    let (uuid, manager) = (config.uuid(), &request.manager);
    let freshness = if wanted.shared { Freshness::Recent } else { Freshness::Now };
    // At the same time: each may wait for a node that is silent.
    let (state, amazon, ekmip, check, nodes) = tokio::join!(
        looked(wanted.state, manager.state(uuid, freshness)),
        looked(wanted.amazon, manager.amazon_reachability(uuid, freshness)),
        looked(wanted.ekmip, manager.ekmip_reachability(uuid, freshness)),
        looked(wanted.check, manager.check(uuid)),
        // For screens that are looked at for hours: always what others have found a moment ago.
        looked(wanted.nodes, manager.node_health(uuid, Freshness::Recent)),
    );
    let live = Live { state, amazon, ekmip, check, nodes };
    Record { config, live: Some(Box::new(live)) }
}

/// Boxed: five looks side by side are more than belongs on a stack.
async fn looked<T>(wanted: bool, look: impl Future<Output = Result<T>>) -> Looked<T> {
    if wanted { Looked::Found(Box::pin(look).await) } else { Looked::No }
}

/// Looks at the first of these, and says of the others that they were too many.
pub async fn look_at_all(request: &Request, records: Vec<Record>, wanted: Wanted) -> Vec<Record> {
    let looks = records.into_iter().enumerate().map(|(n, record)| async move {
        if n < LIVE_RECORDS { look(request, record.config, wanted).await } else { Record { live: Some(Box::new(too_many(wanted))), ..record } }
    });
    futures_util::stream::iter(looks).buffered(LIVE_AT_A_TIME).collect().await
}

fn too_many(wanted: Wanted) -> Live {
    Live {
        state: if wanted.state { Looked::TooMany } else { Looked::No },
        amazon: if wanted.amazon { Looked::TooMany } else { Looked::No },
        ekmip: if wanted.ekmip { Looked::TooMany } else { Looked::No },
        check: if wanted.check { Looked::TooMany } else { Looked::No },
        nodes: if wanted.nodes { Looked::TooMany } else { Looked::No },
    }
}

/// One of the objects of a record; as one that nobody has asked for, where none was looked at.
pub fn of<T>(record: &Record, object: impl FnOnce(&Live) -> &Looked<T>) -> &Looked<T> {
    record.live.as_deref().map_or(&Looked::No, object)
}

/// `cluster_state` or `reachable`.
pub fn good(health: &Looked<Health>) -> Cell<'_> {
    match health {
        Looked::Found(Ok(health)) => Cell::Bool(health.good),
        // An error: deleted at this moment.
        _ => Cell::Null,
    }
}

/// `code` of a live object.
pub fn code(health: &Looked<Health>) -> Cell<'_> {
    match health {
        Looked::Found(Ok(health)) => Cell::made(health.code.map_or_else(|| "0".to_owned(), |code| code.to_string())),
        Looked::TooMany => Cell::made(Code::TooManyRequests.to_string()),
        _ => Cell::Null,
    }
}

/// `message` of a live object.
pub fn message(health: &Looked<Health>) -> Cell<'_> {
    match health {
        Looked::Found(Ok(health)) => Cell::text(&health.message),
        Looked::TooMany => Cell::made(limit()),
        _ => Cell::Null,
    }
}

/// One entry a node.
pub fn ekmip(looked: &Looked<Vec<EkmipReachability>>) -> Cell<'_> {
    match looked {
        Looked::No => Cell::Null,
        Looked::Found(Ok(entries)) => Cell::Json(
            entries
                .iter()
                .map(|entry| {
                    json!({
                        "node": { "uuid": entry.node.uuid, "name": entry.node.name },
                        "reachable": entry.reachable,
                        "code": entry.code.map_or_else(|| "0".to_owned(), |code| code.to_string()),
                        "message": entry.message,
                    })
                })
                .collect(),
        ),
        Looked::Found(Err(error)) => Cell::Json(json!([{ "reachable": false, "code": error.code.to_string(), "message": error.message }])),
        Looked::TooMany => Cell::Json(json!([over_the_limit()])),
    }
}

/// How each node is doing.
pub fn nodes(looked: &Looked<Vec<NodeHealth>>) -> Cell<'_> {
    Cell::Json(match looked {
        Looked::No => return Cell::Null,
        Looked::Found(Ok(nodes)) => nodes.iter().map(node).collect(),
        Looked::Found(Err(error)) => json!([{ "code": error.code.to_string(), "message": error.message }]),
        Looked::TooMany => json!([over_the_limit()]),
    })
}

fn node(health: &NodeHealth) -> Json {
    let mut node = json!({
        "node": { "uuid": health.node.uuid, "name": health.node.name },
        "state": if health.state == NodeState::Up { "up" } else { "down" },
        "since": time_text(health.since).to_string(),
        "kek": { "usable": health.kek.good, "message": health.kek.message },
        "amazon": { "reachable": health.amazon.good, "message": health.amazon.message },
        "ekmip": { "reachable": health.ekmip.good, "message": health.ekmip.message },
    });
    if let (Some(at), Some(node)) = (health.last_good_poll, node.as_object_mut()) {
        node.insert("last_good_poll".to_owned(), json!(time_text(at).to_string()));
    }
    node
}

/// A preflight.
pub fn check(looked: &Looked<CheckReport>) -> Cell<'_> {
    Cell::Json(match looked {
        Looked::No => return Cell::Null,
        Looked::Found(Ok(report)) => json!({ "passed": report.passed, "summary": report.summary, "steps": steps(report) }),
        Looked::Found(Err(error)) => json!({ "passed": false, "summary": error.message, "steps": [] }),
        Looked::TooMany => over_the_limit(),
    })
}

/// The steps of a preflight.
pub fn steps(report: &CheckReport) -> Json {
    let steps = report.steps.iter().map(|step| {
        let duration = u64::try_from(step.took.as_millis()).unwrap_or(u64::MAX);
        json!({ "name": step.name, "state": step.state, "duration_ms": duration, "message": step.message, "advice": step.advice })
    });
    steps.collect()
}

fn over_the_limit() -> Json {
    json!({ "code": Code::TooManyRequests.to_string(), "message": limit() })
}

fn limit() -> String {
    format!("one request looks at {LIVE_RECORDS} records at the most; ask for this one by itself")
}

//! `/security/ekmip/ca`: the cluster's own CA, and how it is replaced.

use crate::collection::cell::Cell;
use crate::field::{As, Field, Show};
use crate::request::{Answer, Request};
use crate::resource::{Link, Resource};
use http::StatusCode;
use keystead_manager::{CaStep, ClusterCa, Code, Error, Result};
use serde_json::json;

const PATH: &str = "/api/security/ekmip/ca";

/// The cluster's CA.
pub const CLUSTER_CA: Resource<ClusterCa> = Resource {
    name: "ekmip_ca",
    path: PATH,
    fields: &[
        Field::shown(
            "state",
            As::Word(&["active", "prepared", "switched"]),
            Show::Standard,
            |ca| Cell::text(ca.state),
            "active: there is one. prepared: the next one is trusted, and signs nothing yet. switched: it signs, and the old one is trusted still.",
        ),
        Field::shown("common_name", As::Text, Show::Standard, |ca| Cell::text(&ca.current.common_name), "The name of the CA that signs."),
        Field::shown("certificate", As::Text, Show::Standard, |ca| Cell::text(&ca.current.certificate), "Its certificate, PEM."),
        Field::shown("expiry_time", As::Time, Show::Standard, |ca| Cell::time(ca.current.expiry), "Up to when it is valid."),
        Field::shown(
            "other.common_name",
            As::Text,
            Show::Standard,
            |ca| Cell::maybe(ca.other.as_ref().map(|other| &other.common_name)),
            "The name of the CA that is trusted beside it.",
        ),
        Field::shown(
            "other.certificate",
            As::Text,
            Show::Standard,
            |ca| Cell::maybe(ca.other.as_ref().map(|other| &other.certificate)),
            "Its certificate, PEM.",
        ),
        Field::shown(
            "other.expiry_time",
            As::Time,
            Show::Standard,
            |ca| ca.other.as_ref().map_or(Cell::Null, |other| Cell::time(other.expiry)),
            "Up to when it is valid.",
        ),
    ],
    order: &[],
    links: &[Link { at: "", href: |_| Some(PATH.to_owned()) }],
};

pub async fn show(request: Request) -> Result<Answer> {
    request.one(&CLUSTER_CA, &request.manager.cluster_ca()?)
}

pub async fn prepare(request: Request) -> Result<Answer> {
    step(request, CaStep::Prepare).await
}

pub async fn switch(request: Request) -> Result<Answer> {
    step(request, CaStep::Switch).await
}

pub async fn finish(request: Request) -> Result<Answer> {
    step(request, CaStep::Finish).await
}

async fn step(request: Request, step: CaStep) -> Result<Answer> {
    request.query.check_change(&CLUSTER_CA, &[])?;
    if let Some(name) = request.object()?.keys().next().filter(|_| !request.query.ignores_unknown()) {
        return Err(Error::with(Code::UnknownField, name).target(name.as_str()));
    }
    request.manager.step_ca(&request.who, step).await?;
    Ok(Answer::new(StatusCode::CREATED, json!({})))
}

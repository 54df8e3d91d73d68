//! The nodes of the cluster.

use super::html::{length, moment, table, word};
use super::visit::{Visit, number, text};
use crate::request::Answer;
use keystead_manager::Result;
use maud::{Markup, html};
use serde_json::Value as Json;

/// The page.
pub async fn list(visit: Visit<'_>) -> Result<Answer> {
    let cluster = visit.get("/api/cluster", &[]).await?;
    let (nodes, _) = visit.list("/api/cluster/nodes", &[("fields", "*"), ("order_by", "name")]).await?;
    let content = html! {
        h1 { "Nodes" }
        p.quiet { "Cluster " strong { (text(&cluster, "name")) } ". Which of them can use an SVM's keys stands on the page of the SVM." }
        section id="nodes" data-live {
            (table("Nodes", &["Node", "State", "Since", "Runs for", "What it knows", "Version"], &nodes.iter().map(|node| row(node, &visit)).collect::<Vec<_>>(), "There are no nodes."))
        }
    };
    Ok(visit.live_page("Nodes", 5, &content))
}

fn row(node: &Json, visit: &Visit<'_>) -> Vec<Markup> {
    let (name, state, age) = (text(node, "name"), text(node, "state"), text(node, "keystead.view_age"));
    let is_up = state == "up";
    vec![
        html! { strong { (name) } },
        html! { span data-say={ (name) ": " (state) } { (word(state)) } },
        moment(text(node, "keystead.since"), visit.now()),
        html! { @match number(node, "uptime").and_then(|seconds| u64::try_from(seconds).ok()).filter(|_| is_up) { Some(seconds) => { (length(seconds)) } None => { "–" } } },
        html! { @if age.is_empty() { span.quiet { "told by itself alone" } } @else { "as of " (age) " ago" } },
        html! { span.small { (text(node, "version.full")) } },
    ]
}

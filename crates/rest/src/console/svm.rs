//! One SVM: where it stands, its configuration, the hierarchy of its keys, how each node is doing, what is under way, and what has happened.

use super::html::{Tone, facts, stamp, state, table, word};
use super::parts::{AWS_KMS, EVENT_COLUMNS, JOB_COLUMNS, NODE_COLUMNS, OPEN, configuration, event_row, job_row, node_row, preflight, svm as svm_of};
use super::visit::{Visit, address, at, flag, list, number, text};
use super::{audit, clients};
use crate::request::Answer;
use http::Method;
use keystead_manager::Result;
use maud::{Markup, html};
use serde_json::Value as Json;
use std::time::Duration;

/// How many of its jobs, events and records of the audit log are shown.
const FEW: &str = "6";
/// How long the page waits for what nodes say: it is shown without that, and filled in when it looks again.
const LOOK: Duration = Duration::from_millis(1_500);
/// How long the audit log is searched for this SVM while the page waits: of a log without anything about it, all is read.
const PATIENCE: Duration = Duration::from_secs(2);

/// The page.
pub async fn show(visit: Visit<'_>) -> Result<Answer> {
    // What goes through all keys is not looked at again by itself.
    let fields = if visit.is_background { "*,keystead" } else { "*,keystead,keystead.keys" };
    let svm = svm_of(&visit, fields).await?;
    let (uuid, name) = (text(&svm, "uuid"), text(&svm, "name"));
    let config = configuration(&visit, uuid).await?;
    let (jobs, _) = visit.list("/api/cluster/jobs", &[("svm.uuid", uuid), ("fields", "*"), ("order_by", "start_time desc"), ("max_records", FEW)]).await?;
    let (events, _) = visit.list("/api/support/ems/events", &[("svm.uuid", uuid), ("fields", "*"), ("max_records", FEW)]).await?;
    let nodes = match &config {
        Some(config) => nodes(&visit, text(config, "uuid"), name).await,
        None => html! {},
    };
    let is_busy = jobs.iter().any(|job| OPEN.split('|').any(|open| open == text(job, "state")));
    let checked = match &config {
        Some(config) if visit.parameter("check") == "true" && !visit.is_background => Some(check(&visit, text(config, "uuid")).await?),
        _ => None,
    };
    let content = html! {
        p.crumbs { a href=(super::ROOT) { "SVMs" } " / " (name) }
        div #standing data-live { (standing(&svm)) (actions(&visit, &svm, config.as_ref())) }
        @if let Some(checked) = &checked { section id="check" { h2 { "Check" } (checked) } }
        section #jobs data-live {
            @if !jobs.is_empty() { h2 { "Jobs" } (table(&format!("Jobs of {name}"), JOB_COLUMNS, &jobs.iter().map(|job| job_row(job, &visit, false)).collect::<Vec<_>>(), "")) }
        }
        section {
            h2 { "Keys" }
            (hierarchy(&svm, config.as_ref()))
        }
        // There from the beginning, if empty: they are filled when there is something, without a reload.
        section #nodes data-live { (nodes) }
        section #configuration data-live { @if let Some(config) = &config { h2 { "Configuration" } (settings(config)) } }
        section #clients data-live { (clients::of_svm(&visit, &svm).await?) }
        section #events data-live {
            h2 { "Events" }
            (table(&format!("Events of {name}"), EVENT_COLUMNS, &events.iter().map(event_row).collect::<Vec<_>>(), "Nothing has happened that is told as an event."))
            p.more { a href=(address("/console/events", &[("svm", name)])) { "All events of " (name) } }
        }
        @if !visit.is_background { section #audit { (recorded(&visit, name).await) } }
    };
    Ok(visit.live_page(name, if is_busy { 2 } else { 8 }, &content))
}

/// How each node is doing. What cannot be had in time, or fails, is said in its place: the rest of the page does not depend on it.
async fn nodes(visit: &Visit<'_>, config: &str, name: &str) -> Markup {
    let path = format!("{AWS_KMS}/{config}");
    let look = visit.get(&path, &[("fields", "keystead.nodes")]);
    let said = if visit.is_background { Ok(look.await) } else { tokio::time::timeout(LOOK, look).await };
    html! {
        h2 { "Nodes" }
        @match said {
            Ok(Ok(nodes)) => {
                (table(&format!("How each node is doing with {name}"), NODE_COLUMNS, &list(&nodes, "keystead.nodes").iter().map(|node| node_row(node, visit)).collect::<Vec<_>>(), "There are no nodes."))
                p.small.quiet { "As each node said within the last 5 seconds." }
            }
            Ok(Err(error)) => { p.notice.warn { (error.message) } }
            Err(_) => { p.quiet { "The nodes are being asked." noscript { " Load the page again." } } }
        }
    }
}

/// Name, state, and why.
fn standing(svm: &Json) -> Markup {
    let (word_of, reason, name) = (text(svm, "keystead.state"), text(svm, "keystead.reason"), text(svm, "name"));
    html! {
        div.title {
            h1 { (name) " " span data-say={ (name) ": " (word_of) } { @if word_of == "none" { (state("no key manager", Tone::Plain)) } @else { (word(word_of)) } } }
        }
        @if !reason.is_empty() { div.notice.(if Tone::of(word_of) == Tone::Bad { "bad" } else { "warn" }) { p { (reason) } } }
        @let comment = text(svm, "comment");
        @if !comment.is_empty() { p.quiet { (comment) } }
    }
}

/// What can be done with it, by who looks.
fn actions(visit: &Visit<'_>, svm: &Json, config: Option<&Json>) -> Markup {
    let to = |what: &str| format!("/console/svms/{}/{what}", text(svm, "uuid"));
    let may = |method: Method, path: &str| visit.may(&method, path);
    let state = text(svm, "keystead.state");
    html! {
        nav.buttons aria-label={ "What can be done with " (text(svm, "name")) } {
            @if config.is_none() && ["none", "onboard"].contains(&state) && may(Method::POST, AWS_KMS) { a.button.primary href=(to("enable")) { "Enable AWS KMS" } }
            @if config.is_some() {
                a.button href={ (to("")) "?check=true" } { "Check" }
                @if may(Method::PATCH, "/api/security/aws-kms/{}") { a.button href=(to("change")) { "Change" } }
                @if may(Method::POST, "/api/security/aws-kms/{}/rekey-internal") { a.button href=(to("rekey-internal")) { "New KEK" } }
                @if may(Method::POST, "/api/security/aws-kms/{}/rekey-external") { a.button href=(to("rekey-external")) { "New customer key" } }
                @if may(Method::POST, "/api/security/aws-kms/{}/restore") { a.button href=(to("restore")) { "Restore" } }
                @if may(Method::DELETE, "/api/security/aws-kms/{}") { a.button.danger href=(to("disable")) { "Disable" } }
            }
            @if config.is_none() && state == "none" && may(Method::DELETE, "/api/svm/svms/{}") { a.button.danger href=(to("delete")) { "Delete SVM" } }
        }
    }
}

async fn check(visit: &Visit<'_>, config: &str) -> Result<Markup> {
    let checked = visit.get(&format!("{AWS_KMS}/{config}"), &[("fields", "keystead.check")]).await?;
    Ok(at(&checked, "keystead.check").map_or_else(|| html! {}, preflight))
}

/// Customer key, KEK, keys: each wraps the next.
fn hierarchy(svm: &Json, config: Option<&Json>) -> Markup {
    let keks = list(svm, "keystead.keks");
    let current = keks.iter().find(|kek| flag(kek, "current")).or_else(|| keks.first());
    let arn = current.map_or("", |kek| text(kek, "key_arn"));
    html! {
        ol.chain {
            li #customer-key data-live {
                h3 { @if config.is_some() { "Customer key" } @else { "Key manager" } }
                @match (config, arn) {
                    (Some(config), "") => { p.code { (text(config, "key_id")) } }
                    (Some(config), arn) => {
                        p.code { (arn) }
                        @if text(config, "key_id") != arn { p.small { "as " span.code { (text(config, "key_id")) } } }
                        p.small.quiet { "in AWS; the tenant's" }
                    }
                    (None, _) if keks.is_empty() => { p.quiet { "none" } }
                    (None, _) => { p { "onboard" } p.small.quiet { "a key of the cluster" } }
                }
            }
            li {
                h3 { "KEK" }
                div #keks data-live {
                    @if keks.is_empty() { p.quiet { "none" } }
                    @for kek in keks {
                        p {
                            "version " (number(kek, "version").unwrap_or_default()) " "
                            @if !flag(kek, "current") { span.small { "(older) " } }
                            (if flag(kek, "loaded") { state("in memory here", Tone::Good) } else { state("not in memory here", Tone::Bad) })
                            span.small.block { "wrapped on " (stamp(text(kek, "wrapped_time"))) }
                        }
                    }
                }
            }
            li {
                h3 { "Keys" }
                @match at(svm, "keystead.keys") {
                    Some(keys) => {
                        p { strong { (number(keys, "count").unwrap_or_default()) } " keys" }
                        @for each in list(keys, "types") {
                            @let kind = text(each, "type");
                            p.small { (number(each, "count").unwrap_or_default()) " × " @if kind.is_empty() { "other objects" } @else { (kind) } }
                        }
                    }
                    None => { p.quiet { "not counted" } }
                }
            }
        }
    }
}

/// The configuration, as it is stored.
fn settings(config: &Json) -> Markup {
    let value = |name: &str| html! { @let value = text(config, name); @if value.is_empty() { span.quiet { "none" } } @else { span.code { (value) } } };
    let endpoint = match text(config, "host") {
        "" => format!("{}.{}.{}", text(config, "service").to_lowercase(), text(config, "region"), text(config, "default_domain")),
        host => host.to_owned(),
    };
    let unchecked: Vec<&str> = ["verify", "verify_host", "verify_ip"].into_iter().filter(|flag_of| !flag(config, flag_of)).collect();
    let source = text(config, "keystead.credentials_source");
    let mut rows = vec![
        ("Customer key", value("key_id")),
        ("Region", value("region")),
        (
            "Credentials",
            if source.is_empty() {
                value("access_key_id")
            } else {
                html! { "the node's own: " span.code { (source) } }
            },
        ),
        ("Encryption context", value("encryption_context")),
        ("Endpoint", html! { span.code { (endpoint) ":" (number(config, "port").unwrap_or_default()) } }),
        (
            "Poll",
            html! { "every " (number(config, "polling_period").unwrap_or_default()) " min, timeout " (number(config, "timeout").unwrap_or_default()) " s" },
        ),
        (
            "After a revocation",
            match number(config, "keystead.bound").and_then(|bound| u64::try_from(bound).ok()) {
                Some(bound) => html! { "no key is handed out any more after " strong { (super::html::length(bound)) } " at the latest" },
                None => state("keys may be handed out without end: no denial by AWS counts, and nothing else bounds it", Tone::Bad),
            },
        ),
    ];
    if !text(config, "proxy_host").is_empty() {
        rows.push((
            "Proxy",
            html! { span.code { (text(config, "proxy_type")) "://" (text(config, "proxy_host")) ":" (number(config, "proxy_port").unwrap_or_default()) } },
        ));
    }
    for (label, name) in [("Grace", "keystead.access_error_grace"), ("Without a good poll", "keystead.max_unverified")] {
        if !text(config, name).is_empty() {
            rows.push((label, value(name)));
        }
    }
    if !unchecked.is_empty() {
        rows.push((
            "Certificate",
            html! { (state("not checked in full", Tone::Warn)) span.small.block { (unchecked.join(", ")) " off: no denial by AWS counts" } },
        ));
    }
    rows.push(("Identifier", value("uuid")));
    facts(&rows)
}

/// The newest records of the audit log about the SVM.
async fn recorded(visit: &Visit<'_>, name: &str) -> Markup {
    let quoted = super::visit::quoted(name);
    let query = [("svm.name", quoted.as_str()), ("fields", "*"), ("max_records", FEW), ("state", "!pending")];
    let read = tokio::time::timeout(PATIENCE, visit.list("/api/security/audit/messages", &query)).await;
    html! {
        h2 { "Audit" }
        @match read {
            Ok(Ok((records, _))) => { (table(&format!("Audit of {name}"), audit::COLUMNS, &records.iter().map(|record| audit::row(record, false)).collect::<Vec<_>>(), "Nothing is recorded about it in this node's log.")) }
            Ok(Err(error)) => { p.notice.warn { (error.message) } }
            Err(_) => { p.quiet { "The log is long, and was not searched to its end here." } }
        }
        p.more { a href=(address("/console/audit", &[("svm", name)])) { "All that is recorded about " (name) } }
    }
}

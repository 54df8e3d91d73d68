//! What several pages have: the SVM that they are about, its configuration, jobs, events, and what a preflight has found.

use super::html::{Tone, length, moment, stamp, state, word};
use super::visit::{Visit, at, flag, list, missing, number, text};
use keystead_manager::Result;
use maud::{Markup, html};
use serde_json::Value as Json;

/// Where configurations stand.
pub const AWS_KMS: &str = "/api/security/aws-kms";
/// The states of a job that is not over.
pub const OPEN: &str = "queued|running|paused";

/// The SVM of the path.
///
/// # Errors
/// 4.
pub async fn svm(visit: &Visit<'_>, fields: &str) -> Result<Json> {
    // What is no UUID would be another path.
    let uuid: uuid::Uuid = visit.segment(0).parse().map_err(|_| missing())?;
    visit.get(&format!("/api/svm/svms/{uuid}"), &[("fields", fields)]).await
}

/// The configuration of an SVM, where it has one that is stored.
///
/// # Errors
/// Whatever the API refuses.
pub async fn configuration(visit: &Visit<'_>, svm: &str) -> Result<Option<Json>> {
    let fields = "*,svm,keystead.bound,keystead.access_error_grace,keystead.max_unverified,keystead.credentials_source,keystead.ca_certificates";
    let (mut configs, _) = visit.list(AWS_KMS, &[("svm.uuid", svm), ("fields", fields)]).await?;
    Ok(configs.pop())
}

/// The way from all SVMs through one of them to a page about it.
pub fn crumbs(svm: &Json, here: &str) -> Markup {
    html! { p.crumbs { a href=(super::ROOT) { "SVMs" } " / " a href={ (super::ROOT) "svms/" (text(svm, "uuid")) } { (text(svm, "name")) } " / " (here) } }
}

/// The identifier of an SVM's configuration, also of one that is being enabled.
///
/// # Errors
/// 4 where there is none.
pub async fn configuration_uuid(visit: &Visit<'_>, svm: &str) -> Result<String> {
    let (stores, _) = visit.list("/api/security/key-stores", &[("svm.uuid", svm), ("type", "aws")]).await?;
    stores.first().map(|store| text(store, "uuid").to_owned()).ok_or_else(missing)
}

/// The columns of [`job_row`].
pub const JOB_COLUMNS: &[&str] = &["Job", "State", "Progress", "Since"];

/// A job as a row; with its SVM, where the page is not about that alone.
pub fn job_row(job: &Json, visit: &Visit<'_>, with_svm: bool) -> Vec<Markup> {
    let uuid = text(job, "uuid");
    vec![
        html! { a href={ "/console/jobs/" (uuid) } { (title(job)) } @let svm = text(job, "svm.name"); @if with_svm && !svm.is_empty() { span.small.block { (svm) } } },
        html! { span data-key=(uuid) data-say={ @let svm = text(job, "svm.name"); (title(job)) @if with_svm && !svm.is_empty() { " of " (svm) } ": " (text(job, "state")) } { (word(text(job, "state"))) } },
        progress(job),
        moment(text(job, "start_time"), visit.now()),
    ]
}

/// What a job does, by the call that has started it.
pub fn title(job: &Json) -> String {
    let description = text(job, "description");
    let known = [
        ("/restore", "Load KEKs"),
        ("/rekey-internal", "New version of the KEK"),
        ("/rekey-external", "New customer key"),
        ("/migrate", "Move keys"),
        ("/seal/rotate", "New seal key"),
    ];
    if let Some((_, title)) = known.iter().find(|(end, _)| description.ends_with(end)) {
        return (*title).to_owned();
    }
    match description.split_once(' ') {
        Some(("POST", path)) if path == AWS_KMS => "Enable AWS KMS".to_owned(),
        Some(("PATCH", path)) if path.starts_with(AWS_KMS) => "Change AWS KMS".to_owned(),
        Some(("DELETE", path)) if path.starts_with(AWS_KMS) => "Disable AWS KMS".to_owned(),
        Some(("POST", "/api/svm/svms")) => "Make the SVM".to_owned(),
        Some(("PATCH", path)) if path.starts_with("/api/svm/svms/") => "Change the SVM".to_owned(),
        Some(("DELETE", path)) if path.starts_with("/api/svm/svms/") => "Delete the SVM".to_owned(),
        _ => description.to_owned(),
    }
}

/// How far a job is, or how it has ended.
pub fn progress(job: &Json) -> Markup {
    let (message, code) = (text(job, "message"), text(job, "error.code"));
    let part = if text(job, "state") == "running" { share(message) } else { None };
    html! {
        @if let Some((done, all)) = part {
            progress max=(all) value=(done) aria-label="How far it is" { (done) " of " (all) }
        }
        span.small.block { (message) @if !code.is_empty() { " (code " (code) ")" } }
    }
}

/// "3 of 10" in what a job says; of steps, "(3 of 10)", the third is not done yet.
fn share(message: &str) -> Option<(u64, u64)> {
    let is_step = message.contains(" of ") && message.rfind('(').is_some_and(|at| message.get(at..).is_some_and(|rest| rest.contains(" of ")));
    let words: Vec<&str> = message.split([' ', '(', ')', ';', ',']).collect();
    words.iter().zip(words.iter().skip(1)).zip(words.iter().skip(2)).find_map(|((done, of), all)| {
        let (done, all) = (done.parse().ok()?, all.parse().ok()?);
        (*of == "of" && done <= all && all > 0).then(|| (if is_step { u64::saturating_sub(done, 1) } else { done }, all))
    })
}

/// The columns of [`event_row`].
pub const EVENT_COLUMNS: &[&str] = &["Time (UTC)", "Severity", "Event", "Node"];

/// An event as a row.
pub fn event_row(event: &Json) -> Vec<Markup> {
    let severity = text(event, "message.severity");
    let tone = match severity {
        "emergency" | "alert" | "error" => Tone::Bad,
        "notice" => Tone::Warn,
        _ => Tone::Plain,
    };
    vec![
        stamp(text(event, "time")),
        state(severity, tone),
        html! { span.code { (text(event, "message.name")) } span.small.block { (text(event, "log_message")) } },
        html! { (text(event, "node.name")) },
    ]
}

/// What a preflight has found, step by step.
pub fn preflight(report: &Json) -> Markup {
    let passed = flag(report, "passed");
    html! {
        div.notice.good[passed].bad[!passed] {
            p { strong { @if passed { "The check has passed." } @else { "The check has found what is in the way." } } }
            ol.steps {
                @for step in list(report, "steps") {
                    @let outcome = text(step, "state");
                    li {
                        (state(&format!("{} {outcome}", text(step, "name")), Tone::of(outcome)))
                        " " span.small { (text(step, "message")) @if outcome != "skipped" && let Some(took) = number(step, "duration_ms") { " (" (took) " ms)" } }
                        @let advice = text(step, "advice");
                        @if !advice.is_empty() { p { strong { "What to do: " } (advice) } }
                    }
                }
            }
        }
    }
}

/// How each node is doing with a configuration: a row each.
pub fn node_row(node: &Json, visit: &Visit<'_>) -> Vec<Markup> {
    let name = text(node, "node.name");
    let cell = |what: &str, key: &str, good: &str, bad: &str| {
        let good_now = flag(node, &format!("{key}.{}", if key == "kek" { "usable" } else { "reachable" }));
        let message = text(node, &format!("{key}.message"));
        let tone = match (good_now, message.is_empty()) {
            (true, true) => Tone::Good,
            (true, false) => Tone::Warn,
            (false, _) => Tone::Bad,
        };
        let word = if good_now { good } else { bad };
        html! { span data-say={ (name) ", " (what) ": " (word) } { (state(word, tone)) } @if !message.is_empty() { span.small.block { (message) } } }
    };
    let (is_up, since) = (text(node, "state") == "up", text(node, "since"));
    vec![
        html! {
            strong { (name) }
            span.small.block { (text(node, "state")) " for " (since_of(since, visit)) }
        },
        cell("KEK", "kek", "usable", "not usable"),
        cell("AWS KMS", "amazon", "reachable", "not reachable"),
        cell("EKMIP", "ekmip", "reachable", "not reachable"),
        html! {
            @if at(node, "last_good_poll").is_some() { (moment(text(node, "last_good_poll"), visit.now())) }
            @else if is_up { span.quiet { "none yet" } }
            @else { span.quiet { "not known" } }
        },
    ]
}

/// The columns of [`node_row`].
pub const NODE_COLUMNS: &[&str] = &["Node", "KEK", "AWS KMS", "EKMIP", "Last good poll"];

fn since_of(text: &str, visit: &Visit<'_>) -> String {
    let seconds = text.parse::<jiff::Timestamp>().map_or(0, |at| visit.now().duration_since(at).as_secs());
    length(u64::try_from(seconds).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_far_a_job_is_stands_in_what_it_says() {
        assert_eq!(share("500 of 1000 keys are wrapped by version 2"), Some((500, 1000)));
        assert_eq!(share("asking AWS KMS about the customer key (1 of 3)"), Some((0, 3)));
        for none in ["storing the configuration", "every node loads version 2 of the KEK", "3 of 2", "0 of 0"] {
            assert_eq!(share(none), None, "{none}");
        }
    }
}

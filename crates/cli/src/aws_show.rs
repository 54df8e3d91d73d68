//! `security key-manager external aws show` and `check`: what is set, where it stands, and which step on the way to AWS fails.

use crate::aws::{PATH, uuid};
use crate::connection::{Common, Context, segment};
use crate::failure::Failure;
use crate::table::{self, cell};
use clap::Args;
use serde_json::{Value, json};

/// All that can be shown; only who names `keystead` gets what is Keystead's own.
const ALL: &str = "**,keystead";
/// One request looks at so many configurations at the most.
const LOOKS: &str = "100";

/// The options of `show`.
#[derive(Debug, Args)]
pub struct ShowArguments {
    /// This SVM alone, with all that there is to say of it.
    #[arg(long, value_name = "NAME")]
    vserver: Option<String>,
    /// All that there is to say of each, which has every node look whether it reaches AWS.
    #[arg(long)]
    instance: bool,
    /// These fields of the API, as columns: region,key_id,state.message
    #[arg(long, value_name = "FIELDS", value_delimiter = ',', conflicts_with = "instance")]
    fields: Vec<String>,
    #[command(flatten)]
    common: Common,
}

/// The options of `check`.
#[derive(Debug, Args)]
pub struct CheckArguments {
    /// The SVM; without it, all of them.
    #[arg(long, value_name = "NAME")]
    vserver: Option<String>,
    #[command(flatten)]
    common: Common,
}

/// Shows configurations.
///
/// # Errors
/// As it is told.
pub async fn show(arguments: ShowArguments) -> Result<(), Failure> {
    let context = Context::open(&arguments.common)?;
    if !arguments.fields.is_empty() {
        return fields(&context, &arguments).await;
    }
    if let Some(vserver) = &arguments.vserver {
        let record = one(&context, vserver, ALL).await?;
        context.say(&record, || table::of_fields(&instance(&record)));
        return Ok(());
    }
    let mut query = vec![("fields", if arguments.instance { ALL } else { "*" }), ("order_by", "svm.name")];
    if arguments.instance {
        query.push(("max_records", LOOKS));
    }
    let all = context.list(PATH, &query).await?;
    let columns = [("Vserver", "svm.name"), ("Region", "region"), ("Key ID", "key_id"), ("Access key ID", "access_key_id"), ("Poll (min)", "polling_period")];
    context.say(&all, || if arguments.instance { instances(&all) } else { table::of_records(&all, &columns) });
    Ok(())
}

/// Takes a preflight of one configuration, or of all, and shows each step.
///
/// # Errors
/// 1 one has not passed.
pub async fn check(arguments: CheckArguments) -> Result<(), Failure> {
    let context = Context::open(&arguments.common)?;
    let checked = match &arguments.vserver {
        Some(vserver) => one(&context, vserver, "svm,keystead.check").await?,
        None => context.list(PATH, &[("fields", "svm,keystead.check"), ("order_by", "svm.name"), ("max_records", LOOKS)]).await?,
    };
    let records = records(&checked);
    context.say(&checked, || match records.as_slice() {
        [] => "There are none.\n".to_owned(),
        some => some.iter().map(|record| steps(record)).collect::<Vec<_>>().join("\n"),
    });
    let failed: Vec<String> =
        records.iter().filter(|record| record.pointer("/keystead/check/passed") != Some(&json!(true))).map(|record| cell(record, "svm.name")).collect();
    match failed.as_slice() {
        [] => Ok(()),
        some => Err(Failure::failed(format!("the check has not passed: {}", some.join(", ")))),
    }
}

async fn fields(context: &Context, arguments: &ShowArguments) -> Result<(), Failure> {
    let wanted = arguments.fields.join(",");
    let shown = match &arguments.vserver {
        Some(vserver) => one(context, vserver, &wanted).await?,
        None => context.list(PATH, &[("fields", &wanted), ("order_by", "svm.name"), ("max_records", LOOKS)]).await?,
    };
    let columns: Vec<(&str, &str)> =
        std::iter::once(("Vserver", "svm.name")).chain(arguments.fields.iter().map(|path| (path.as_str(), path.as_str()))).collect();
    let as_list = json!({ "records": records(&shown) });
    context.say(&shown, || table::of_records(&as_list, &columns));
    Ok(())
}

async fn one(context: &Context, vserver: &str, fields: &str) -> Result<Value, Failure> {
    let path = format!("{PATH}/{}", segment(&uuid(context, vserver).await?));
    context.get(&path, &[("fields", fields)]).await
}

/// The records of a list, or the one that was asked for.
fn records(answer: &Value) -> Vec<&Value> {
    match answer.get("records").and_then(Value::as_array) {
        Some(records) => records.iter().collect(),
        None => vec![answer],
    }
}

fn instances(all: &Value) -> String {
    match records(all).as_slice() {
        [] => "There are none.\n".to_owned(),
        some => some.iter().map(|record| table::of_fields(&instance(record))).collect::<Vec<_>>().join("\n"),
    }
}

/// All that there is to say of a configuration.
fn instance(record: &Value) -> Vec<(String, String)> {
    let mut lines = table::of_record(
        record,
        &[
            ("Vserver", "svm.name"),
            ("UUID", "uuid"),
            ("Region", "region"),
            ("Key ID", "key_id"),
            ("Access key ID", "access_key_id"),
            ("Credentials source", "keystead.credentials_source"),
            ("Encryption context", "encryption_context"),
            ("Service", "service"),
            ("Default domain", "default_domain"),
            ("Host", "host"),
            ("Port", "port"),
            ("Timeout (s)", "timeout"),
            ("Verify", "verify"),
            ("Verify host", "verify_host"),
            ("Verify IP", "verify_ip"),
            ("Proxy type", "proxy_type"),
            ("Proxy host", "proxy_host"),
            ("Proxy port", "proxy_port"),
            ("Proxy username", "proxy_username"),
            ("Polling period (min)", "polling_period"),
            ("Grace of its own", "keystead.access_error_grace"),
            ("Max unverified", "keystead.max_unverified"),
            ("Revocation bound (s)", "keystead.bound"),
        ],
    );
    lines.push(("State".to_owned(), health(record.get("state"), "cluster_state", "the keys are usable on every node", "not usable")));
    lines.push(("AWS KMS".to_owned(), health(record.get("amazon_reachability"), "reachable", "reached by every node", "not reached")));
    for entry in record.get("ekmip_reachability").and_then(Value::as_array).into_iter().flatten() {
        lines.push((
            format!("EKMIP from {}", cell(entry, "node.name")),
            health(Some(entry), "reachable", "reaches the servers of all nodes", "does not reach all"),
        ));
    }
    lines
}

/// What a live look has found, in words.
fn health(found: Option<&Value>, flag: &str, good: &str, bad: &str) -> String {
    let Some(found) = found else { return "-".to_owned() };
    match found.get(flag).and_then(Value::as_bool) {
        Some(true) => good.to_owned(),
        Some(false) => format!("{bad} ({}): {}", cell(found, "code"), cell(found, "message")),
        None => format!("not looked at ({}): {}", cell(found, "code"), cell(found, "message")),
    }
}

/// The steps of a preflight, and what to do about those that have failed.
fn steps(record: &Value) -> String {
    let check = record.pointer("/keystead/check").cloned().unwrap_or_default();
    let steps = check.get("steps").and_then(Value::as_array).cloned().unwrap_or_default();
    let rows = steps.iter().map(|step| vec![cell(step, "name"), cell(step, "state"), format!("{} ms", cell(step, "duration_ms")), cell(step, "message")]);
    let advice = steps.iter().filter(|step| cell(step, "state") == "failed").map(|step| format!("{}: {}\n", cell(step, "name"), cell(step, "advice")));
    let verdict = match check.get("passed").and_then(Value::as_bool) {
        Some(true) => "passed".to_owned(),
        _ if steps.is_empty() => format!("not passed: {}", cell(&check, "summary")),
        _ => "not passed".to_owned(),
    };
    format!(
        "Vserver {}: {verdict}\n{}{}",
        cell(record, "svm.name"),
        table::rows_of(&["Step", "State", "Time", "Details"], rows.collect()),
        advice.collect::<String>()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_shows_each_step_and_what_to_do() {
        let steps_of = json!([
            { "name": "dns", "state": "passed", "duration_ms": 1, "message": "1 address", "advice": "" },
            { "name": "route", "state": "failed", "duration_ms": 12, "message": "refused", "advice": "look at host and port" },
        ]);
        let text = steps(&json!({ "svm": { "name": "svm1" }, "keystead": { "check": { "passed": false, "summary": "s", "steps": steps_of } } }));
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!((lines[0], lines[4], lines[5]), ("Vserver svm1: not passed", "route  failed  12 ms  refused", "route: look at host and port"), "{text}");
    }

    #[test]
    fn health_is_told_with_code_and_reason() {
        let bad = json!({ "cluster_state": false, "code": "65537551", "message": "node n1: blocked" });
        assert_eq!(health(Some(&bad), "cluster_state", "usable", "not usable"), "not usable (65537551): node n1: blocked");
        assert_eq!(health(Some(&json!({ "cluster_state": true })), "cluster_state", "usable", "not usable"), "usable");
        assert_eq!(health(None, "cluster_state", "usable", "not usable"), "-");
    }
}

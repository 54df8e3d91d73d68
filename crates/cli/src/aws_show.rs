//! `security key-manager external aws show` and `check`: what is set, where it stands, and which step on the way to AWS fails.

use crate::aws::{PATH, uuid};
use crate::connection::{Common, Context, segment};
use crate::failure::{Exit, Failure};
use crate::table::{self, cell};
use crate::vserver::is_query;
use clap::Args;
use serde_json::{Value, json};

/// All that can be shown; only who names `keystead` gets what is Keystead's own.
const ALL: &str = "**,keystead";
/// One request looks at so many configurations at the most: the node looks at so many at the same time. With more, an outage of AWS, where each look takes its time, would outlast the time that a request may take.
const LOOKS: &str = "16";
/// What the nodes look at when it is asked for.
const LIVE: [&str; 5] = ["state", "amazon_reachability", "ekmip_reachability", "keystead.check", "keystead.nodes"];

/// The options of `show`.
#[derive(Debug, Args)]
pub struct ShowArguments {
    /// This SVM alone, with all that there is to say of it; with * those of such a name, as svm*.
    #[arg(long, value_name = "NAME")]
    vserver: Option<String>,
    /// All that there is to say of each, which has every node look whether it reaches AWS.
    #[arg(long)]
    instance: bool,
    /// These fields of the API, as columns: region,key_id,state.{code,message}. * is all, as with --instance.
    #[arg(long, value_name = "FIELDS", conflicts_with = "instance")]
    fields: Vec<String>,
    #[command(flatten)]
    common: Common,
}

/// The options of `check`.
#[derive(Debug, Args)]
pub struct CheckArguments {
    /// The SVM; without it, all of them; with * those of such a name.
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
    let context = Context::open(&arguments.common).await?;
    let (vserver, fields) = (arguments.vserver.as_deref(), paths(&arguments.fields.join(",")));
    let is_all = arguments.instance || fields.iter().any(|path| path == "*" || path == "**");
    if !fields.is_empty() && !is_all {
        return columns(&context, vserver, &fields).await;
    }
    if let Some(vserver) = vserver.filter(|vserver| !is_query(vserver)) {
        let record = one(&context, vserver, ALL).await?;
        return context.say(&record, || table::of_fields(&instance(&record)));
    }
    if is_all {
        return page_by_page(&context, &of(vserver, ALL, true), |record| table::of_fields(&instance(record))).await.map(|_| ());
    }
    let all = context.list(PATH, &of(vserver, "*", false)).await?;
    let columns = [("Vserver", "svm.name"), ("Region", "region"), ("Key ID", "key_id"), ("Access key ID", "access_key_id"), ("Poll (min)", "polling_period")];
    context.say(&all, || table::of_records(&all, &columns))
}

/// Takes a preflight of one configuration, or of all, and shows each step.
///
/// # Errors
/// 1 one has not passed.
pub async fn check(arguments: CheckArguments) -> Result<(), Failure> {
    const CHECK: &str = "svm,keystead.check";
    let context = Context::open(&arguments.common).await?;
    let vserver = arguments.vserver.as_deref();
    let checked = match vserver.filter(|vserver| !is_query(vserver)) {
        Some(vserver) => {
            let record = one(&context, vserver, CHECK).await?;
            context.say(&record, || steps(&record))?;
            vec![record]
        }
        None => page_by_page(&context, &of(vserver, CHECK, true), steps).await?,
    };
    let failed: Vec<String> =
        checked.iter().filter(|record| record.pointer("/keystead/check/passed") != Some(&json!(true))).map(|record| cell(record, "svm.name")).collect();
    match failed.as_slice() {
        [] => Ok(()),
        some => Err(Failure::failed(format!("the check has not passed: {}", some.join(", ")))),
    }
}

/// The query of a list. `looks`: each of its records costs a look.
fn of<'q>(vserver: Option<&'q str>, fields: &'q str, looks: bool) -> Vec<(&'q str, &'q str)> {
    let mut query = vec![("fields", fields), ("order_by", "svm.name")];
    query.extend(looks.then_some(("max_records", LOOKS)));
    query.extend(vserver.map(|vserver| ("svm.name", vserver)));
    query
}

/// Goes through a list whose records each cost a look, and tells each page as it comes: what was seen stays, should a later page fail. JSON is one text, and comes at the end.
async fn page_by_page(context: &Context, query: &[(&str, &str)], words: impl Fn(&Value) -> String) -> Result<Vec<Value>, Failure> {
    let (mut pages, mut all) = (context.pages(PATH, query), Vec::new());
    while let Some(mut page) = pages.next().await? {
        if !context.is_json() && !page.is_empty() {
            let between = if all.is_empty() { "" } else { "\n" };
            table::print(&format!("{between}{}", page.iter().map(&words).collect::<Vec<_>>().join("\n")))?;
        }
        all.append(&mut page);
    }
    if context.is_json() || all.is_empty() {
        context.say(&pages.whole(&all), || "There are none.\n".to_owned())?;
    }
    Ok(all)
}

async fn columns(context: &Context, vserver: Option<&str>, fields: &[String]) -> Result<(), Failure> {
    let wanted = fields.join(",");
    let columns: Vec<(&str, &str)> = std::iter::once(("Vserver", "svm.name")).chain(fields.iter().map(|path| (path.as_str(), path.as_str()))).collect();
    if let Some(vserver) = vserver.filter(|vserver| !is_query(vserver)) {
        let record = one(context, vserver, &wanted).await?;
        return context.say(&record, || table::of_records(&json!({ "records": [record] }), &columns));
    }
    let (mut pages, mut all) = (context.pages(PATH, &of(vserver, &wanted, fields.iter().any(|path| is_live(path)))), Vec::new());
    let ended = loop {
        match pages.next().await {
            Ok(Some(mut page)) => all.append(&mut page),
            Ok(None) => break Ok(()),
            Err(failure) => break Err(failure),
        }
    };
    // What was seen before it failed. Half of a JSON is none.
    if ended.is_ok() || !(all.is_empty() || context.is_json()) {
        let all = pages.whole(&all);
        context.say(&all, || table::of_records(&all, &columns))?;
    }
    ended
}

/// The fields that were named, as the API names them: `a.{b,c}` is two, and operators of ONTAP write `key-id`.
fn paths(text: &str) -> Vec<String> {
    let (mut paths, mut depth, mut begin) = (Vec::new(), 0_usize, 0);
    let ends = text.char_indices().filter(|(_, c)| {
        match c {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        *c == ',' && depth == 0
    });
    let ends: Vec<usize> = ends.map(|(at, _)| at).chain([text.len()]).collect();
    for end in ends {
        let path = text.get(begin..end).unwrap_or_default().trim();
        begin = end + 1;
        match path.split_once('{').and_then(|(before, rest)| Some((before, rest.strip_suffix('}')?))) {
            Some((before, inner)) => paths.extend(self::paths(inner).iter().map(|path| format!("{}{path}", before.replace('-', "_")))),
            None if path.is_empty() => {}
            None => paths.push(path.replace('-', "_")),
        }
    }
    paths
}

/// Whether a field costs a look.
fn is_live(path: &str) -> bool {
    path == "keystead" || LIVE.iter().any(|object| path.strip_prefix(object).is_some_and(|rest| rest.is_empty() || rest.starts_with('.')))
}

async fn one(context: &Context, vserver: &str, fields: &str) -> Result<Value, Failure> {
    let path = format!("{PATH}/{}", segment(&uuid(context, vserver).await?));
    context.get(&path, &[("fields", fields)]).await.map_err(|failure| match failure.exit {
        // It has a key store already, and is no configuration yet.
        Exit::NotFound => Failure { message: format!("AWS KMS is being enabled for the SVM {vserver}, or was disabled at this moment"), ..failure }
            .next(format!("see how far that is: keystead job show --vserver {vserver}")),
        _ => failure,
    })
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
    use crate::scripted::scripted;

    #[test]
    fn fields_are_the_apis_as_operators_write_them() {
        assert_eq!(paths("region,key-id, state.cluster-state"), ["region", "key_id", "state.cluster_state"]);
        assert_eq!(paths("svm,state.{code,message},keystead.{bound}"), ["svm", "state.code", "state.message", "keystead.bound"]);
        assert_eq!(paths("a.{b.{c,d},e}"), ["a.b.c", "a.b.d", "a.e"]);
        assert_eq!(paths("*"), ["*"]);
        assert_eq!(paths(" ,"), [""; 0]);
        // The node says what is wrong with it.
        assert_eq!(paths("a.{b,c"), ["a.{b,c"]);
        assert!(is_live("state") && is_live("state.code") && is_live("keystead") && is_live("keystead.check.passed"));
        assert!(!is_live("region") && !is_live("keystead.bound") && !is_live("states"));
    }

    #[tokio::test]
    async fn what_costs_a_look_is_asked_for_in_small_pages_and_told_page_by_page() {
        let page = |name: &str, next: Value| {
            let record = json!({ "svm": { "name": name }, "keystead": { "check": { "passed": true, "steps": [] } } });
            Some((200, json!({ "records": [record], "_links": { "next": next } })))
        };
        let refused = json!({ "error": { "code": "262145", "message": "broken" } });
        let (context, node) = scripted(vec![page("a", json!({ "href": "/api/next" })), Some((500, refused))]).await;
        let told = std::cell::RefCell::new(Vec::new());
        let tell = |record: &Value| {
            told.borrow_mut().push(cell(record, "svm.name"));
            String::new()
        };
        assert!(page_by_page(&context, &of(Some("svm*"), "svm,keystead.check", true), tell).await.is_err());
        assert_eq!(told.into_inner(), ["a"]);
        let asked = "GET /api/security/aws-kms?fields=svm%2Ckeystead.check&order_by=svm.name&max_records=16&svm.name=svm%2A";
        assert_eq!(node.await.unwrap(), [asked, "GET /api/next"]);
    }

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

//! `vserver`: the SVMs.

use crate::body::Body;
use crate::connection::{Common, Context, exactly, segment};
use crate::failure::Failure;
use crate::table;
use crate::wait::{Waiting, to_the_end};
use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::Value;

const PATH: &str = "/svm/svms";
/// What is shown: `state` is ONTAP's, and always "running"; where the keys stand is Keystead's own.
const FIELDS: &str = "*,keystead.state,keystead.reason";

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make an SVM.
    Create(CreateArguments),
    /// Show the SVMs.
    Show(ShowArguments),
    /// Delete an SVM, which must have no key manager any more.
    Delete(DeleteArguments),
}

/// The options of `create`.
#[derive(Debug, Args)]
pub struct CreateArguments {
    /// The name.
    #[arg(long, value_name = "NAME")]
    vserver: String,
    /// A free text.
    #[arg(long, value_name = "TEXT")]
    comment: Option<String>,
    #[command(flatten)]
    waiting: Waiting,
    #[command(flatten)]
    common: Common,
}

/// The options of `show`.
#[derive(Debug, Args)]
pub struct ShowArguments {
    /// This one alone; with * those of such a name, as svm*.
    #[arg(long, value_name = "NAME")]
    vserver: Option<String>,
    #[command(flatten)]
    common: Common,
}

/// The options of `delete`.
#[derive(Debug, Args)]
pub struct DeleteArguments {
    /// The name.
    #[arg(long, value_name = "NAME")]
    vserver: String,
    #[command(flatten)]
    waiting: Waiting,
    #[command(flatten)]
    common: Common,
}

/// Runs a command.
///
/// # Errors
/// As it is told.
pub async fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Create(arguments) => {
            let context = Context::open(&arguments.common).await?;
            let mut body = Body::default();
            body.put("name", Some(arguments.vserver.as_str()));
            body.put("comment", arguments.comment);
            let answer = context.call(Method::POST, PATH, &[], Some(body.whole())).await?;
            to_the_end(&context, answer, &arguments.waiting, &format!("the SVM {} is made", arguments.vserver)).await
        }
        Command::Show(ShowArguments { vserver: Some(name), common }) if !is_query(&name) => {
            let context = Context::open(&common).await?;
            let record = context.get(&format!("{PATH}/{}", segment(&find(&context, &name).await?.uuid)), &[("fields", FIELDS)]).await?;
            let fields = [("Vserver", "name"), ("UUID", "uuid"), ("State", "keystead.state"), ("Reason", "keystead.reason"), ("Comment", "comment")];
            context.say(&record, || table::of_fields(&table::of_record(&record, &fields)))
        }
        Command::Show(ShowArguments { vserver, common }) => {
            let context = Context::open(&common).await?;
            let mut query = vec![("fields", FIELDS), ("order_by", "name")];
            query.extend(vserver.as_deref().map(|names| ("name", names)));
            let all = context.list(PATH, &query).await?;
            let columns = [("Vserver", "name"), ("State", "keystead.state"), ("Reason", "keystead.reason"), ("Comment", "comment"), ("UUID", "uuid")];
            context.say(&all, || table::of_records(&all, &columns))
        }
        Command::Delete(arguments) => {
            let context = Context::open(&arguments.common).await?;
            let path = format!("{PATH}/{}", segment(&find(&context, &arguments.vserver).await?.uuid));
            let answer = context.call(Method::DELETE, &path, &[], None).await?;
            to_the_end(&context, answer, &arguments.waiting, &format!("the SVM {} is deleted", arguments.vserver)).await
        }
    }
}

/// An SVM.
pub struct Svm {
    /// Its identifier.
    pub uuid: String,
    /// Its name, as it was given to it.
    pub name: String,
}

/// Whether a name is one of the API's queries, as ONTAP's operators write them: `svm*`, `a|b`, `!a`. No SVM has such a name.
pub fn is_query(name: &str) -> bool {
    name.contains(['*', '|', '!'])
}

/// What `svm.name` must be in a list: that of an SVM, or a query.
///
/// # Errors
/// 5 there is none of that name, or not for this account.
pub async fn query(context: &Context, name: &str) -> Result<String, Failure> {
    if is_query(name) { Ok(name.to_owned()) } else { Ok(exactly(&find(context, name).await?.name)) }
}

/// An SVM by its name, whose letters may be small or capital ones: so the API takes it where one is named in a body, though not in its filters.
///
/// # Errors
/// 5 there is none of that name, or not for this account.
pub async fn find(context: &Context, name: &str) -> Result<Svm, Failure> {
    let one_of = |all: &Value| {
        let names = all.get("records").and_then(Value::as_array).into_iter().flatten();
        names
            .filter_map(|svm| Some(Svm { uuid: svm.get("uuid")?.as_str()?.to_owned(), name: svm.get("name")?.as_str()?.to_owned() }))
            .find(|svm| svm.name.eq_ignore_ascii_case(name))
    };
    if let Some(svm) = one_of(&context.get(PATH, &[("name", &exactly(name)), ("fields", "name")]).await?) {
        return Ok(svm);
    }
    let svm = one_of(&context.list(PATH, &[("fields", "name")]).await?);
    svm.ok_or_else(|| Failure::not_found(format!("there is no SVM {name}")).next("those that there are: keystead vserver show"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Exit;
    use crate::scripted::scripted;
    use serde_json::json;

    #[tokio::test]
    async fn an_svm_is_found_whatever_letters_are_capital() {
        let none = || Some((200, json!({ "records": [] })));
        let all = || Some((200, json!({ "records": [{ "uuid": "1", "name": "svm10" }, { "uuid": "2", "name": "Svm1" }] })));
        let (context, node) = scripted(vec![none(), all(), none(), all()]).await;
        let found = find(&context, "SVM1").await.unwrap();
        assert_eq!((found.uuid.as_str(), found.name.as_str()), ("2", "Svm1"));
        assert_eq!(find(&context, "svm").await.err().unwrap().exit, Exit::NotFound);
        assert_eq!(node.await.unwrap()[..2], ["GET /api/svm/svms?name=%22SVM1%22&fields=name", "GET /api/svm/svms?fields=name"]);
        assert!(is_query("svm*") && is_query("a|b") && !is_query("svm.2-x_y"));
    }
}

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
    /// This one alone.
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
            let context = Context::open(&arguments.common)?;
            let mut body = Body::default();
            body.put("name", Some(arguments.vserver.as_str()));
            body.put("comment", arguments.comment);
            let answer = context.call(Method::POST, PATH, &[], Some(body.whole())).await?;
            to_the_end(&context, answer, &arguments.waiting, &format!("the SVM {} is made", arguments.vserver)).await
        }
        Command::Show(ShowArguments { vserver: Some(name), common }) => {
            let context = Context::open(&common)?;
            let record = context.get(&format!("{PATH}/{}", segment(&uuid(&context, &name).await?)), &[("fields", "*")]).await?;
            let fields = [("Vserver", "name"), ("UUID", "uuid"), ("State", "state"), ("Subtype", "subtype"), ("Comment", "comment")];
            context.say(&record, || table::of_fields(&table::of_record(&record, &fields)));
            Ok(())
        }
        Command::Show(ShowArguments { vserver: None, common }) => {
            let context = Context::open(&common)?;
            let all = context.list(PATH, &[("fields", "*"), ("order_by", "name")]).await?;
            let columns = [("Vserver", "name"), ("State", "state"), ("Comment", "comment"), ("UUID", "uuid")];
            context.say(&all, || table::of_records(&all, &columns));
            Ok(())
        }
        Command::Delete(arguments) => {
            let context = Context::open(&arguments.common)?;
            let path = format!("{PATH}/{}", segment(&uuid(&context, &arguments.vserver).await?));
            let answer = context.call(Method::DELETE, &path, &[], None).await?;
            to_the_end(&context, answer, &arguments.waiting, &format!("the SVM {} is deleted", arguments.vserver)).await
        }
    }
}

/// The identifier of an SVM.
///
/// # Errors
/// 5 there is none of that name, or not for this account.
pub async fn uuid(context: &Context, name: &str) -> Result<String, Failure> {
    let found = context.get(PATH, &[("name", &exactly(name))]).await?;
    let uuid = found.pointer("/records/0/uuid").and_then(Value::as_str).map(str::to_owned);
    uuid.ok_or_else(|| Failure::not_found(format!("there is no SVM {name}")).next("those that there are: keystead vserver show"))
}

//! `job`: what a node does in the background.

use crate::connection::{Common, Context, segment};
use crate::failure::Failure;
use crate::{table, vserver, wait};
use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::json;

const PATH: &str = "/cluster/jobs";

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show the jobs: those at work, and those that have ended in the last minutes.
    Show(ShowArguments),
    /// Watch a job until it has ended. Ctrl-C stops the watching, not the job.
    #[command(visible_alias = "watch-progress")]
    Watch(JobArguments),
    /// Have a job pause.
    Pause(JobArguments),
    /// Have a paused job go on.
    Resume(JobArguments),
    /// Give a job up.
    #[command(visible_alias = "stop")]
    Cancel(JobArguments),
}

/// The options of `show`.
#[derive(Debug, Args)]
pub struct ShowArguments {
    /// This one alone.
    #[arg(value_name = "UUID")]
    job: Option<String>,
    /// Those in this state: queued, running, paused, success, failure.
    #[arg(long, value_name = "STATE", value_parser = ["queued", "running", "paused", "success", "failure"], conflicts_with = "job")]
    state: Option<String>,
    /// Those of this SVM; with * those of several.
    #[arg(long, value_name = "NAME", conflicts_with = "job")]
    vserver: Option<String>,
    #[command(flatten)]
    common: Common,
}

/// The options of commands about one job.
#[derive(Debug, Args)]
pub struct JobArguments {
    /// The job.
    #[arg(value_name = "UUID")]
    job: String,
    #[command(flatten)]
    common: Common,
}

/// Runs a command.
///
/// # Errors
/// As it is told.
pub async fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Show(ShowArguments { job: Some(job), common, .. }) => {
            let context = Context::open(&common).await?;
            let record = context.get(&format!("{PATH}/{}", segment(&job)), &[("fields", "*")]).await?;
            let fields = [
                ("Job", "uuid"),
                ("Call", "description"),
                ("State", "state"),
                ("Message", "message"),
                ("Code", "code"),
                ("Vserver", "svm.name"),
                ("Node", "node.name"),
                ("Start", "start_time"),
                ("End", "end_time"),
            ];
            context.say(&record, || table::of_fields(&table::of_record(&record, &fields)))
        }
        Command::Show(ShowArguments { job: None, state, vserver, common }) => {
            let context = Context::open(&common).await?;
            let mut query = vec![("fields", "*"), ("order_by", "start_time")];
            query.extend(state.as_deref().map(|state| ("state", state)));
            let svm = match &vserver {
                Some(name) => Some(vserver::query(&context, name).await?),
                None => None,
            };
            query.extend(svm.as_deref().map(|svm| ("svm.name", svm)));
            let all = context.list(PATH, &query).await?;
            let columns =
                [("Job", "uuid"), ("Vserver", "svm.name"), ("State", "state"), ("Start", "start_time"), ("Call", "description"), ("Message", "message")];
            context.say(&all, || table::of_records(&all, &columns))
        }
        Command::Watch(JobArguments { job, common }) => {
            let context = Context::open(&common).await?;
            let ended = wait::watch(&context, &job).await?;
            context.say(&ended, || format!("job {job} has ended well: {}.\n", table::cell(&ended, "message")))
        }
        Command::Pause(arguments) => control(arguments, "pause", "is told to pause").await,
        Command::Resume(arguments) => control(arguments, "resume", "goes on").await,
        Command::Cancel(arguments) => control(arguments, "cancel", "is told to give up").await,
    }
}

async fn control(arguments: JobArguments, action: &str, done: &str) -> Result<(), Failure> {
    let context = Context::open(&arguments.common).await?;
    let path = format!("{PATH}/{}", segment(&arguments.job));
    let answer = context.call(Method::PATCH, &path, &[], Some(json!({ "action": action }))).await?;
    context.say(&answer.body, || format!("job {} {done}.\n", arguments.job))
}

//! `cluster`: the cluster and its nodes.

use crate::connection::{Common, Context, exactly, segment};
use crate::failure::Failure;
use crate::table;
use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::Value;

const NODES: &str = "/cluster/nodes";
const COLUMNS: [(&str, &str); 5] = [("Node", "name"), ("State", "state"), ("Since", "keystead.since"), ("Version", "version.full"), ("UUID", "uuid")];

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show the cluster, and its nodes.
    Show(ShowArguments),
    /// The nodes of the cluster.
    #[command(subcommand)]
    Node(NodeCommand),
}

/// The commands of `node`.
#[derive(Debug, Subcommand)]
pub enum NodeCommand {
    /// Show the nodes.
    Show(NodeShowArguments),
    /// Take a node out of the list. It must be down. Its rights stay: it comes back when it is started.
    Remove(RemoveArguments),
}

/// The options of `show`.
#[derive(Debug, Args)]
pub struct ShowArguments {
    #[command(flatten)]
    common: Common,
}

/// The options of `node show`.
#[derive(Debug, Args)]
pub struct NodeShowArguments {
    /// This one alone.
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
    #[command(flatten)]
    common: Common,
}

/// The options of `node remove`.
#[derive(Debug, Args)]
pub struct RemoveArguments {
    /// Its name.
    #[arg(long, value_name = "NAME")]
    node: String,
    #[command(flatten)]
    common: Common,
}

/// Runs a command.
///
/// # Errors
/// As it is told.
pub async fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Show(arguments) => {
            let context = Context::open(&arguments.common).await?;
            let cluster = context.get("/cluster", &[]).await?;
            let nodes = if context.is_json() { Value::Null } else { nodes(&context).await? };
            let fields = [("Cluster", "name"), ("UUID", "uuid"), ("Version", "version.full")];
            context.say(&cluster, || format!("{}\n{}", table::of_fields(&table::of_record(&cluster, &fields)), table::of_records(&nodes, &COLUMNS)))
        }
        Command::Node(NodeCommand::Show(NodeShowArguments { node: None, common })) => {
            let context = Context::open(&common).await?;
            let all = nodes(&context).await?;
            context.say(&all, || table::of_records(&all, &COLUMNS))
        }
        Command::Node(NodeCommand::Show(NodeShowArguments { node: Some(name), common })) => {
            let context = Context::open(&common).await?;
            let node = context.get(&format!("{NODES}/{}", segment(&uuid(&context, &name).await?)), &[("fields", "*")]).await?;
            let fields = [
                ("Node", "name"),
                ("UUID", "uuid"),
                ("State", "state"),
                ("Since", "keystead.since"),
                ("Version", "version.full"),
                ("Uptime in seconds", "uptime"),
                ("Clock", "date"),
                ("Age of its view", "keystead.view_age"),
            ];
            context.say(&node, || table::of_fields(&table::of_record(&node, &fields)))
        }
        Command::Node(NodeCommand::Remove(arguments)) => {
            let context = Context::open(&arguments.common).await?;
            let path = format!("{NODES}/{}", segment(&uuid(&context, &arguments.node).await?));
            let answer = context.call(Method::DELETE, &path, &[], None).await?;
            context.say(&answer.body, || {
                format!("the node {} is no node of the cluster any more; it has the seal key and its access to etcd still.\n", arguments.node)
            })
        }
    }
}

async fn nodes(context: &Context) -> Result<Value, Failure> {
    context.list(NODES, &[("fields", "*"), ("order_by", "name")]).await
}

async fn uuid(context: &Context, name: &str) -> Result<String, Failure> {
    let found = context.get(NODES, &[("name", &exactly(name))]).await?;
    let uuid = found.pointer("/records/0/uuid").and_then(Value::as_str).map(str::to_owned);
    uuid.ok_or_else(|| Failure::not_found(format!("there is no node {name}")).next("those that there are: keystead cluster node show"))
}

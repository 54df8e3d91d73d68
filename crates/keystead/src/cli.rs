//! The command line.

use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;

/// Keystead: an open key manager for storage.
#[derive(Debug, Parser)]
#[command(name = "keystead", version, about)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What the program can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a node: the REST API and the EKMIP server.
    Serve(Box<ServeArguments>),
}

/// The flags of `serve`. Each is also a key of the TOML file of the same name (with `_`), and a variable `KEYSTEAD_…`. A flag counts before a variable, a variable before the file.
#[derive(Debug, Default, Args)]
pub struct ServeArguments {
    /// The folder with everything that this node keeps: store, seal key, CA certificate.
    #[arg(long, value_name = "DIR", env = "KEYSTEAD_DATA_DIR")]
    pub data_dir: Option<PathBuf>,
    /// Where the REST API listens (HTTPS).
    #[arg(long, value_name = "ADDR", env = "KEYSTEAD_LISTEN")]
    pub listen: Option<String>,
    /// Where the EKMIP server listens (KMIP over TLS).
    #[arg(long, value_name = "ADDR", env = "KEYSTEAD_EKMIP_LISTEN")]
    pub ekmip_listen: Option<String>,
    /// The configuration file.
    #[arg(long, value_name = "FILE", env = "KEYSTEAD_CONFIG")]
    pub config: Option<PathBuf>,
    /// The node's name; the machine's name by default.
    #[arg(long, value_name = "NAME", env = "KEYSTEAD_NODE_NAME")]
    pub node_name: Option<String>,
}

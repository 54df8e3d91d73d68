//! The options that all commands have, and where each was said: on the command line, in the environment, or in the profile file.

use crate::failure::EXIT_CODES;
use clap::parser::ValueSource;
use clap::{ArgMatches, Args, Command, FromArgMatches, ValueEnum};
use std::ops::Deref;
use std::path::PathBuf;

/// How the outcome is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Output {
    /// For people.
    #[default]
    Table,
    /// The API's own answer.
    Json,
}

/// The options that all commands have, as they stand on the command line or in the environment.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Connection", after_help = EXIT_CODES)]
pub struct Options {
    /// A node's REST API: host:port.
    #[arg(long, value_name = "ADDR", env = "KEYSTEAD_ENDPOINT")]
    pub endpoint: Option<String>,
    /// PEM file of the cluster's CA (ca.pem in a node's data folder). Without it, the CAs of the machine.
    #[arg(long, value_name = "FILE", env = "KEYSTEAD_CA")]
    pub ca: Option<PathBuf>,
    /// The account; admin by default.
    #[arg(long, value_name = "NAME", env = "KEYSTEAD_USER")]
    pub user: Option<String>,
    /// A file whose first line is the account's password; - is standard input. Without it: the session of `keystead login`, else the terminal is asked.
    #[arg(long, value_name = "FILE", env = "KEYSTEAD_PASSWORD_FILE")]
    pub password_file: Option<PathBuf>,
    /// PEM file of a client certificate to log in with, in place of a user and a password.
    #[arg(long, value_name = "FILE", env = "KEYSTEAD_CLIENT_CERTIFICATE")]
    pub client_certificate: Option<PathBuf>,
    /// PEM file of its private key.
    #[arg(long, value_name = "FILE", env = "KEYSTEAD_CLIENT_KEY")]
    pub client_key: Option<PathBuf>,
    /// The profile of the profile file: [profile.NAME].
    #[arg(long, value_name = "NAME", env = "KEYSTEAD_PROFILE")]
    pub profile: Option<String>,
    /// The profile file; ~/.config/keystead/config.toml by default.
    #[arg(long, value_name = "FILE", env = "KEYSTEAD_PROFILE_FILE")]
    pub profile_file: Option<PathBuf>,
    /// How to write the outcome: a table for people, or the API's JSON for programs.
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub output: Output,
}

/// Where something was said. What comes first counts before what comes later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Layer {
    /// An option.
    Option,
    /// A variable of the environment.
    Variable,
    /// The profile file.
    Profile,
}

/// The options that all commands have. A login is taken from the layer that says most clearly who asks, so it is known of each whether it is an option or a variable.
#[derive(Debug, Clone)]
pub struct Common {
    options: Options,
    /// Those that stand on the command line.
    typed: Vec<&'static str>,
}

/// The options that say who asks.
const OF_LOGIN: [&str; 4] = ["user", "password_file", "client_certificate", "client_key"];

impl Common {
    /// Where an option was said that was said here at all.
    pub(crate) fn layer(&self, option: &str) -> Layer {
        if self.typed.contains(&option) { Layer::Option } else { Layer::Variable }
    }
}

impl Deref for Common {
    type Target = Options;

    fn deref(&self) -> &Options {
        &self.options
    }
}

impl FromArgMatches for Common {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        Self::from_arg_matches_mut(&mut matches.clone())
    }

    fn from_arg_matches_mut(matches: &mut ArgMatches) -> Result<Self, clap::Error> {
        // Before the values are taken out of it.
        let typed = OF_LOGIN.into_iter().filter(|option| matches.value_source(option) == Some(ValueSource::CommandLine)).collect();
        Ok(Self { options: Options::from_arg_matches_mut(matches)?, typed })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args for Common {
    fn augment_args(command: Command) -> Command {
        Options::augment_args(command)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Options::augment_args_for_update(command)
    }
}

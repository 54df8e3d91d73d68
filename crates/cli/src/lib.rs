//! The operator's command line. It speaks ONTAP's words (`security key-manager external aws enable --vserver …`), and talks to a node's REST API alone: it knows HTTP and JSON, and nothing of how a node works.
//!
//! * One file for each family of commands: [`aws`], [`vserver`], [`cluster`], [`job`], [`ekmip`], [`session`]. Each has its options (clap) and what they become.
//! * What they share: [`connection`] (endpoint and calls), [`options`] and [`profile`] (where these are said), [`login`] (who asks), [`transport`] (TLS), [`secret`] (what is typed or read, never an argument), [`wait`] and [`progress`] (jobs),
//!   [`table`] (for people), [`failure`] (messages and exit codes).
//! * [`documents`]: completions and man pages, made from the declaration of the commands.

pub mod aws;
pub mod aws_settings;
pub mod aws_show;
pub mod body;
pub mod cluster;
pub mod connection;
pub mod documents;
pub mod ekmip;
pub mod failure;
pub mod job;
pub mod login;
pub mod options;
pub mod profile;
pub mod progress;
#[cfg(test)]
pub(crate) mod scripted;
pub mod secret;
pub mod session;
pub mod table;
pub mod transport;
pub mod vserver;
pub mod wait;

use clap::Subcommand;
use failure::Failure;
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};

/// The variables of the environment that commands read. A node that is started in the same shell reads past them.
pub const VARIABLES: &[&str] = &[
    "KEYSTEAD_ENDPOINT",
    "KEYSTEAD_CA",
    "KEYSTEAD_USER",
    "KEYSTEAD_PASSWORD_FILE",
    "KEYSTEAD_CLIENT_CERTIFICATE",
    "KEYSTEAD_CLIENT_KEY",
    "KEYSTEAD_PROFILE",
    "KEYSTEAD_PROFILE_FILE",
];

/// The families of commands that have a word of their own; the program has those of `cluster` and `ekmip` beside its own.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Security: the key managers of SVMs.
    #[command(subcommand)]
    Security(SecurityCommand),
    /// SVMs, the tenants of the storage.
    #[command(subcommand)]
    Vserver(vserver::Command),
    /// Jobs: what a node does in the background.
    #[command(subcommand)]
    Job(job::Command),
    /// Begin a session, so that the password is not asked for again: it ends 15 minutes after its last use, and after 12 hours.
    Login(session::LoginArguments),
    /// End the session.
    Logout(session::LogoutArguments),
}

/// `security`.
#[derive(Debug, Subcommand)]
pub enum SecurityCommand {
    /// The key managers of SVMs.
    #[command(subcommand)]
    KeyManager(KeyManagerCommand),
}

/// `security key-manager`.
#[derive(Debug, Subcommand)]
pub enum KeyManagerCommand {
    /// Key managers outside of the cluster.
    #[command(subcommand)]
    External(ExternalCommand),
}

/// `security key-manager external`.
#[derive(Debug, Subcommand)]
pub enum ExternalCommand {
    /// AWS KMS: the customer key of each SVM.
    #[command(subcommand)]
    Aws(Box<aws::Command>),
}

/// Runs a command. What came of it is printed; the answer is the exit code (see [`failure::Exit`]).
#[must_use]
pub fn run(command: Command) -> ExitCode {
    to_the_end(async move {
        match command {
            Command::Security(SecurityCommand::KeyManager(KeyManagerCommand::External(ExternalCommand::Aws(command)))) => aws::run(*command).await,
            Command::Vserver(command) => vserver::run(command).await,
            Command::Job(command) => job::run(command).await,
            Command::Login(arguments) => session::login(arguments).await,
            Command::Logout(arguments) => session::logout(arguments).await,
        }
    })
}

/// Runs a command of `cluster` that asks a node.
#[must_use]
pub fn run_cluster(command: cluster::Command) -> ExitCode {
    to_the_end(cluster::run(command))
}

/// Runs a command of `ekmip` that asks a node.
#[must_use]
pub fn run_ekmip(command: ekmip::Command) -> ExitCode {
    to_the_end(ekmip::run(command))
}

fn to_the_end(command: impl Future<Output = Result<(), Failure>>) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let done = match runtime {
        Ok(runtime) => {
            let done = runtime.block_on(interruptible(command));
            // What still reads from a pipe must not keep the program.
            runtime.shutdown_background();
            done
        }
        Err(error) => Err(Failure::failed(format!("no runtime: {error}"))),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.tell(),
    }
}

/// Ctrl-C ends a command. What is in the middle of something hears it first, and says how that goes on: a wait for a job, and a prompt, which sets the terminal right again.
async fn interruptible(command: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let Ok(mut interrupts) = signal(SignalKind::interrupt()) else { return command.await };
    tokio::select! {
        biased;
        done = command => done,
        _ = interrupts.recv() => Err(Failure::interrupted("")),
    }
}

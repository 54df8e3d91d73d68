//! The Keystead program.

use clap::Parser;
use clap::error::ErrorKind;
use keystead::cli::{AuditCommand, BackupCommand, Cli, ClusterCommand, Command, EkmipCommand, StoreCommand};
use std::process::ExitCode;

/// Everything that is freed is wiped first, whoever allocated it: the SDK, the TLS library, a JSON parser.
#[global_allocator]
static ALLOCATOR: zeroizing_alloc::ZeroAlloc<std::alloc::System> = zeroizing_alloc::ZeroAlloc(std::alloc::System);

fn main() -> ExitCode {
    let command = match Cli::try_parse() {
        Ok(cli) => cli.command,
        // Help and version are answers. A mistake is one line, as all that stops a start.
        Err(error) if !error.use_stderr() => error.exit(),
        Err(error) => {
            let text = error.to_string();
            let first = match error.kind() {
                ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => "a command is missing",
                _ => text.lines().next().unwrap_or_default(),
            };
            eprintln!("keystead: {}; see {} --help", first.strip_prefix("error: ").unwrap_or(first), asked_for());
            return ExitCode::from(2);
        }
    };
    let result = match command {
        Command::Serve(arguments) => keystead::serve::run(arguments, keystead::serve::Hooks::default()).map(|()| ExitCode::SUCCESS),
        Command::Cluster(ClusterCommand::Invite(arguments)) => keystead::invite::run(&arguments).map(|()| ExitCode::SUCCESS),
        Command::Store(StoreCommand::Copy(arguments)) => keystead::copy::run(&arguments).map(|()| ExitCode::SUCCESS),
        Command::Backup(arguments) => match &arguments.command {
            None => keystead::backup::run(&arguments).map(|()| ExitCode::SUCCESS),
            Some(BackupCommand::Verify(arguments)) => keystead::backup::verify(arguments),
            Some(BackupCommand::Keygen(arguments)) => keystead::backup::keygen(arguments).map(|()| ExitCode::SUCCESS),
        },
        Command::Restore(arguments) => keystead::restore::run(&arguments).map(|()| ExitCode::SUCCESS),
        Command::Ekmip(EkmipCommand::Import(arguments)) => keystead::import::run(&arguments),
        Command::Audit(AuditCommand::Verify(arguments)) => return keystead::audit::verify(&arguments.data_dir),
    };
    match result {
        Ok(code) => code,
        Err(why) => {
            eprintln!("keystead: {why}");
            ExitCode::FAILURE
        }
    }
}

/// The command that the words on the command line are nearest to.
fn asked_for() -> &'static str {
    let words: Vec<_> = std::env::args_os().skip(1).take(2).collect();
    match words.iter().map(|word| word.to_str()).collect::<Vec<_>>().as_slice() {
        [Some("ekmip"), Some("import")] => "keystead ekmip import",
        [Some("ekmip"), ..] => "keystead ekmip",
        [Some("cluster"), Some("invite")] => "keystead cluster invite",
        [Some("cluster"), ..] => "keystead cluster",
        [Some("store"), Some("copy")] => "keystead store copy",
        [Some("store"), ..] => "keystead store",
        [Some("backup"), Some("verify")] => "keystead backup verify",
        [Some("backup"), ..] => "keystead backup",
        [Some("restore"), ..] => "keystead restore",
        _ => "keystead serve",
    }
}

//! The Keystead program.

use clap::error::ErrorKind;
use clap::{CommandFactory as _, Parser as _};
use keystead::cli::{AccountCommand, AuditCommand, BackupCommand, Cli, ClusterCommand, Command, EkmipCommand, StoreCommand};
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
            let program = Cli::command();
            let (command, name) = asked_for(&program);
            eprintln!("keystead: {}; see {name} --help", mistake(&error, command));
            return ExitCode::from(2);
        }
    };
    // The operator's commands hold passwords too.
    if let Err(why) = keystead::process::no_core_files() {
        return failed(&why);
    }
    let result = match command {
        Command::Serve(arguments) => keystead::serve::run(arguments, keystead::serve::Hooks::default()).map(|()| ExitCode::SUCCESS),
        Command::Cluster(ClusterCommand::Invite(arguments)) => keystead::invite::run(&arguments).map(|()| ExitCode::SUCCESS),
        Command::Cluster(ClusterCommand::Join(arguments)) => keystead::invite::run_join(&arguments).map(|()| ExitCode::SUCCESS),
        Command::Cluster(ClusterCommand::Operator(command)) => return keystead_cli::run_cluster(command),
        Command::Store(StoreCommand::Copy(arguments)) => keystead::copy::run(&arguments).map(|()| ExitCode::SUCCESS),
        Command::Backup(arguments) => match &arguments.command {
            None => keystead::backup::run(&arguments).map(|()| ExitCode::SUCCESS),
            Some(BackupCommand::Verify(arguments)) => keystead::backup::verify(arguments),
            Some(BackupCommand::Keygen(arguments)) => keystead::backup::keygen(arguments).map(|()| ExitCode::SUCCESS),
        },
        Command::Restore(arguments) => keystead::restore::run(&arguments).map(|()| ExitCode::SUCCESS),
        Command::Account(AccountCommand::Reset(arguments)) => keystead::reset::run(&arguments).map(|()| ExitCode::SUCCESS),
        Command::Ekmip(EkmipCommand::Import(arguments)) => keystead::import::run(&arguments),
        Command::Ekmip(EkmipCommand::Operator(command)) => return keystead_cli::run_ekmip(*command),
        Command::Audit(AuditCommand::Verify(arguments)) => return keystead::audit::verify(&arguments.data_dir),
        Command::Operator(command) => return keystead_cli::run(command),
        Command::Completions(arguments) => return keystead_cli::documents::completions(Cli::command(), arguments.shell),
        Command::Man(arguments) => match keystead_cli::documents::man(Cli::command(), &arguments.folder) {
            Ok(()) => return ExitCode::SUCCESS,
            Err(failure) => return failure.tell(),
        },
    };
    match result {
        Ok(code) => code,
        Err(why) => failed(&why),
    }
}

fn failed(why: &str) -> ExitCode {
    eprintln!("keystead: {why}");
    ExitCode::FAILURE
}

/// What is wrong with the command line, in one line: clap's first paragraph, and a guess at what was meant.
fn mistake(error: &clap::Error, command: &clap::Command) -> String {
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return "a command is missing".to_owned();
    }
    let text = error.to_string();
    let first: Vec<&str> = text.lines().take_while(|line| !line.trim().is_empty()).map(str::trim).collect();
    let clap_guesses = || text.lines().find_map(|line| line.trim().strip_prefix("tip: ")).map(str::to_owned);
    let guess = one_dash(command).or_else(clap_guesses).map(|guess| format!(" ({guess})")).unwrap_or_default();
    let first = first.join(" ");
    format!("{}{guess}", first.strip_prefix("error: ").unwrap_or(&first))
}

/// ONTAP's options have one dash, and so its operators write them.
fn one_dash(command: &clap::Command) -> Option<String> {
    std::env::args_os().skip(1).find_map(|word| {
        let name = word.to_str()?.strip_prefix('-')?.split('=').next()?;
        let is_option = name.len() > 1 && command.get_arguments().any(|option| option.get_long() == Some(name));
        is_option.then(|| format!("options have two dashes here: --{name}"))
    })
}

/// The command that the words on the command line name, as far as there is one, and those words.
fn asked_for(program: &clap::Command) -> (&clap::Command, String) {
    let (mut at, mut name) = (program, "keystead".to_owned());
    for word in std::env::args_os().skip(1) {
        let Some(next) = at.find_subcommand(&word) else { break };
        at = next;
        name = format!("{name} {}", next.get_name());
    }
    (at, name)
}

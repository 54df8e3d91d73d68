//! The Keystead program.

use clap::Parser;
use clap::error::ErrorKind;
use keystead::cli::{Cli, Command};
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
            eprintln!("keystead: {}; see keystead serve --help", first.strip_prefix("error: ").unwrap_or(first));
            return ExitCode::from(2);
        }
    };
    let result = match command {
        Command::Serve(arguments) => keystead::serve::run(arguments, keystead::serve::Hooks::default()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("keystead: {why}");
            ExitCode::FAILURE
        }
    }
}

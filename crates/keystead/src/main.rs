//! The Keystead program.

use clap::Parser;
use keystead::cli::{Cli, Command};
use std::process::ExitCode;

/// Everything that is freed is wiped first, whoever allocated it: the SDK, the TLS library, a JSON parser.
#[global_allocator]
static ALLOCATOR: zeroizing_alloc::ZeroAlloc<std::alloc::System> = zeroizing_alloc::ZeroAlloc(std::alloc::System);

fn main() -> ExitCode {
    let result = match Cli::parse().command {
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

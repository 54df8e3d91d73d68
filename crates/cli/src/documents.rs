//! What is made from the declaration of the commands: completions for shells, and man pages.

use crate::failure::{EXIT_CODES, Failure};
use clap::{Args, Command};
use clap_complete::Shell;
use std::path::{Path, PathBuf};

/// The options of `completions`.
#[derive(Debug, Args)]
pub struct CompletionsArguments {
    /// The shell.
    pub shell: Shell,
}

/// The options of `man`.
#[derive(Debug, Args)]
pub struct ManArguments {
    /// The folder to write the pages into: one for each command, keystead.1 the first.
    #[arg(value_name = "DIR")]
    pub folder: PathBuf,
}

/// Writes the completions of a shell to standard output.
pub fn completions(mut program: Command, shell: Shell) {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut program, "keystead", &mut text);
    crate::table::print(&String::from_utf8_lossy(&text));
}

/// Writes a man page for each command.
///
/// # Errors
/// The folder cannot be written.
pub fn man(program: Command, folder: &Path) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::command_line(format!("{}: {error}", folder.display()));
    std::fs::create_dir_all(folder).map_err(failed)?;
    clap_mangen::generate_to(program.after_help(EXIT_CODES), folder).map_err(failed)
}

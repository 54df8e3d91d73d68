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
    match shell {
        // clap's own know commands of two words alone.
        Shell::Fish => text = fish(program).into_bytes(),
        other => clap_complete::generate(other, &mut program, "keystead", &mut text),
    }
    crate::table::print(&String::from_utf8_lossy(&text));
}

/// Completions for fish. Options come behind the words of a command, so the first words of a line say which command it is.
fn fish(mut program: Command) -> String {
    program.build();
    let mut text = String::from(
        "# Whether the line begins with these words; with --exactly, whether it has no others.
function __keystead_at
    set -l words (commandline -opc)[2..]
    set -l exactly no
    if test \"$argv[1]\" = --exactly
        set exactly yes
        set -e argv[1]
    end
    set -l count (count $argv)
    test (count $words) -ge $count; or return 1
    test $exactly = no -o (count $words) -eq $count; or return 1
    test $count -eq 0; or test \"$words[1..$count]\" = \"$argv\"
end
complete -c keystead -f
",
    );
    fish_of(&program, "", &mut text);
    text
}

fn fish_of(command: &Command, words: &str, text: &mut String) {
    let quoted = |help: Option<&clap::builder::StyledStr>| {
        let help = help.map(ToString::to_string).unwrap_or_default();
        format!("'{}'", help.lines().next().unwrap_or_default().replace('\\', "\\\\").replace('\'', "\\'"))
    };
    for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
        text.push_str(&format!("complete -c keystead -n '__keystead_at --exactly{words}' -a {} -d {}\n", sub.get_name(), quoted(sub.get_about())));
        fish_of(sub, &format!("{words} {}", sub.get_name()), text);
    }
    for option in command.get_opts() {
        let Some(long) = option.get_long() else { continue };
        let short = option.get_short().map(|short| format!(" -s {short}")).unwrap_or_default();
        let values: Vec<String> = option.get_possible_values().iter().map(|value| value.get_name().to_owned()).collect();
        let values = match values.as_slice() {
            // Files, where a file or a folder is meant.
            [] if option.get_value_names().is_some_and(|names| names.iter().any(|name| name == "FILE" || name == "DIR")) => " -F -r".to_owned(),
            [] => " -x".to_owned(),
            some => format!(" -x -a '{}'", some.join(" ")),
        };
        text.push_str(&format!("complete -c keystead -n '__keystead_at{words}' -l {long}{short}{values} -d {}\n", quoted(option.get_help())));
    }
    for flag in command.get_arguments().filter(|argument| !argument.get_action().takes_values() && !argument.is_positional()) {
        if let Some(long) = flag.get_long() {
            text.push_str(&format!("complete -c keystead -n '__keystead_at{words}' -l {long} -d {}\n", quoted(flag.get_help())));
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Arg;

    #[test]
    fn fish_completes_commands_of_any_length() {
        let sub = Command::new("aws").about("It's AWS").arg(Arg::new("a").long("type").value_parser(["http", "https"]).help("One\nTwo"));
        let text = fish(Command::new("keystead").subcommand(Command::new("security").subcommand(Command::new("external").subcommand(sub))));
        assert!(text.contains("complete -c keystead -n '__keystead_at --exactly' -a security -d ''\n"), "{text}");
        assert!(text.contains("complete -c keystead -n '__keystead_at --exactly security external' -a aws -d 'It\\'s AWS'\n"), "{text}");
        assert!(text.contains("complete -c keystead -n '__keystead_at security external aws' -l type -x -a 'http https' -d 'One'\n"), "{text}");
        assert!(text.contains("complete -c keystead -n '__keystead_at security external aws' -l help -d "), "{text}");
    }
}

//! What is made from the declaration of the commands: completions for shells, and man pages.

use crate::failure::{EXIT_CODES, Failure};
use clap::{Arg, Args, Command};
use clap_complete::Shell;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

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

/// Writes the completions of a shell to standard output; the answer is the exit code.
#[must_use]
pub fn completions(mut program: Command, shell: Shell) -> ExitCode {
    let mut text = Vec::new();
    match shell {
        // clap's own know commands of two words alone.
        Shell::Fish => text = fish(program).into_bytes(),
        other => clap_complete::generate(other, &mut program, "keystead", &mut text),
    }
    match crate::table::print(&String::from_utf8_lossy(&text)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.tell(),
    }
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
        for name in std::iter::once(sub.get_name()).chain(sub.get_visible_aliases()) {
            text.push_str(&format!("complete -c keystead -n '__keystead_at --exactly{words}' -a {name} -d {}\n", quoted(sub.get_about())));
            fish_of(sub, &format!("{words} {name}"), text);
        }
    }
    let names_files = |argument: &Arg| argument.get_value_names().is_some_and(|names| names.iter().any(|name| name == "FILE" || name == "DIR"));
    let values = |argument: &Arg| argument.get_possible_values().iter().map(|value| value.get_name().to_owned()).collect::<Vec<_>>().join(" ");
    for argument in command.get_positionals() {
        let what = match values(argument) {
            some if !some.is_empty() => format!("-a '{some}'"),
            _ if names_files(argument) => "-F".to_owned(),
            _ => continue,
        };
        text.push_str(&format!("complete -c keystead -n '__keystead_at{words}' {what} -d {}\n", quoted(argument.get_help())));
    }
    for option in command.get_arguments().filter(|argument| !argument.is_positional()) {
        let what = match values(option) {
            _ if !option.get_action().takes_values() => String::new(),
            some if !some.is_empty() => format!(" -x -a '{some}'"),
            // Files, where a file or a folder is meant.
            _ if names_files(option) => " -F -r".to_owned(),
            _ => " -x".to_owned(),
        };
        let short = option.get_short().map(|short| format!(" -s {short}")).unwrap_or_default();
        for long in option.get_long_and_visible_aliases().unwrap_or_default() {
            text.push_str(&format!("complete -c keystead -n '__keystead_at{words}' -l {long}{short}{what} -d {}\n", quoted(option.get_help())));
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

    #[test]
    fn fish_completes_commands_of_any_length() {
        let sub = Command::new("aws").about("It's AWS").arg(Arg::new("a").long("type").value_parser(["http", "https"]).help("One\nTwo"));
        let text = fish(Command::new("keystead").subcommand(Command::new("security").subcommand(Command::new("external").subcommand(sub))));
        assert!(text.contains("complete -c keystead -n '__keystead_at --exactly' -a security -d ''\n"), "{text}");
        assert!(text.contains("complete -c keystead -n '__keystead_at --exactly security external' -a aws -d 'It\\'s AWS'\n"), "{text}");
        assert!(text.contains("complete -c keystead -n '__keystead_at security external aws' -l type -x -a 'http https' -d 'One'\n"), "{text}");
        assert!(text.contains("complete -c keystead -n '__keystead_at security external aws' -l help -s h -d "), "{text}");
    }

    #[test]
    fn fish_completes_other_names_and_what_has_no_option() {
        let wait = Arg::new("w").long("no-wait").visible_alias("background").action(clap::ArgAction::SetTrue);
        let job = Command::new("watch").visible_alias("watch-progress").arg(wait).arg(Arg::new("job").value_name("UUID"));
        let of = Command::new("completions").arg(Arg::new("shell").value_parser(["bash", "fish"])).arg(Arg::new("to").value_name("DIR"));
        let text = fish(Command::new("keystead").subcommand(job).subcommand(of));
        for line in [
            "--exactly' -a watch-progress -d ''",
            " watch-progress' -l no-wait -d ''",
            " watch' -l background -d ''",
            " completions' -a 'bash fish' -d ''",
            " completions' -F -d ''",
        ] {
            assert!(
                text.contains(&format!("complete -c keystead -n '__keystead_at{}{line}\n", if line.starts_with('-') { " " } else { "" })),
                "{line}: {text}"
            );
        }
    }
}

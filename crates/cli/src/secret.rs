//! Secrets: typed at the terminal, or read from a file or standard input. Never an argument, which every user of the machine can see, and never a variable.

use crate::failure::Failure;
use secrecy::{ExposeSecret as _, SecretString};
use std::io::{ErrorKind, Read as _};
use std::path::Path;
use zeroize::Zeroizing;

/// The longest file of a secret that is read.
const MOST_BYTES: u64 = 64 * 1024;
/// The name of standard input.
const STDIN: &str = "-";

/// Where a secret comes from.
pub struct Asked<'a> {
    /// What it is: "the AWS secret access key".
    pub what: &'a str,
    /// The option with the file.
    pub option: &'a str,
    /// What the terminal is asked.
    pub prompt: &'a str,
}

impl Asked<'_> {
    /// The first line of the file, or what is typed at the terminal.
    ///
    /// # Errors
    /// The file cannot be read; there is no terminal; Ctrl-C; nothing was given.
    pub fn take(&self, file: Option<&Path>) -> Result<SecretString, Failure> {
        let secret = match file {
            Some(path) => self.read(path)?,
            None => self.typed()?,
        };
        match secret.expose_secret() {
            "" => Err(Failure::command_line(format!("{} is empty", self.what)).next(format!("give it with {}", self.option))),
            _ => Ok(secret),
        }
    }

    fn read(&self, path: &Path) -> Result<SecretString, Failure> {
        let place = format!("{} {}", self.option, path.display());
        let unreadable =
            |error: std::io::Error| Failure::command_line(format!("{place}: {error}")).next(format!("it must be a file whose first line is {}", self.what));
        let mut bytes = Zeroizing::new(Vec::new());
        let read = if path.as_os_str() == STDIN {
            std::io::stdin().lock().take(MOST_BYTES).read_to_end(&mut bytes)
        } else {
            std::fs::File::open(path).and_then(|file| file.take(MOST_BYTES).read_to_end(&mut bytes))
        };
        read.map_err(unreadable)?;
        let text = std::str::from_utf8(&bytes).map_err(|_| Failure::command_line(format!("{place}: it is not text")))?;
        Ok(SecretString::from(text.lines().next().unwrap_or_default()))
    }

    fn typed(&self) -> Result<SecretString, Failure> {
        match rpassword::prompt_password(self.prompt) {
            Ok(typed) => Ok(SecretString::from(Zeroizing::new(typed).as_str())),
            Err(error) if error.kind() == ErrorKind::Interrupted => Err(Failure::interrupted("")),
            Err(error) => Err(Failure::command_line(format!("{} is missing, and there is no terminal to ask at ({error})", self.what))
                .next(format!("name a file with {}, or - for standard input", self.option))),
        }
    }
}

/// Standard input can be read once.
///
/// # Errors
/// Two of these name it.
pub fn one_standard_input(files: &[(&str, Option<&Path>)]) -> Result<(), Failure> {
    let named: Vec<&str> = files.iter().filter(|(_, file)| file.is_some_and(|file| file.as_os_str() == STDIN)).map(|(option, _)| *option).collect();
    match named.as_slice() {
        [first, second, ..] => {
            Err(Failure::command_line(format!("{first} and {second} both name standard input, which can be read once")).next("give one of them as a file"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Exit;

    const ASKED: Asked<'_> = Asked { what: "the secret", option: "--secret-file", prompt: "Secret: " };

    #[test]
    fn the_first_line_of_a_file_is_the_secret() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "s3cret \nmore\n").unwrap();
        assert_eq!(ASKED.take(Some(file.path())).unwrap().expose_secret(), "s3cret ");
        std::fs::write(file.path(), "").unwrap();
        assert_eq!(ASKED.take(Some(file.path())).unwrap_err().exit, Exit::CommandLine);
        let missing = ASKED.take(Some(Path::new("/nowhere/at/all"))).unwrap_err();
        assert!(missing.message.contains("--secret-file /nowhere/at/all"), "{missing:?}");
    }

    #[test]
    fn standard_input_is_one_secret() {
        let (dash, file) = (Some(Path::new("-")), Some(Path::new("x")));
        assert!(one_standard_input(&[("--a", dash), ("--b", file), ("--c", None)]).is_ok());
        assert!(one_standard_input(&[("--a", dash), ("--b", dash)]).unwrap_err().message.contains("--a and --b"));
    }
}

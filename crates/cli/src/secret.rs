//! Secrets: typed at the terminal, or read from a file or standard input. Never an argument, which every user of the machine can see, and never a variable.

use crate::failure::Failure;
use secrecy::{ExposeSecret as _, SecretString};
use std::fs::File;
use std::io::{ErrorKind, IsTerminal as _, Read as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;
use zeroize::Zeroizing;

/// The longest secret that is read.
const MOST_BYTES: usize = 64 * 1024;
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
    pub async fn take(&self, file: Option<&Path>) -> Result<SecretString, Failure> {
        let secret = match file {
            // What is typed there would be shown.
            Some(path) if is_terminal(path) => self.typed()?,
            Some(path) => self.read(path).await?,
            None => self.typed()?,
        };
        match secret.expose_secret() {
            "" => Err(Failure::command_line(format!("{} is empty", self.what)).next(format!("give it with {}", self.option))),
            _ => Ok(secret),
        }
    }

    async fn read(&self, path: &Path) -> Result<SecretString, Failure> {
        let place = format!("{} {}", self.option, path.display());
        let unreadable =
            |error: std::io::Error| Failure::command_line(format!("{place}: {error}")).next(format!("it must be a file whose first line is {}", self.what));
        // A pipe may have nobody who writes into it. On a thread of its own, which ends with the program, it does not keep Ctrl-C from ending that.
        let file = path.to_owned();
        let read = tokio::task::spawn_blocking(move || {
            if is_standard_input(&file) { first_line(File::from(std::io::stdin().as_fd().try_clone_to_owned()?)) } else { first_line(File::open(file)?) }
        });
        let line = read.await.map_err(std::io::Error::other).and_then(|line| line).map_err(unreadable)?;
        let text = std::str::from_utf8(&line).map_err(|_| Failure::command_line(format!("{place}: it is not text")))?;
        Ok(SecretString::from(text))
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

fn is_standard_input(path: &Path) -> bool {
    path.as_os_str() == STDIN
}

/// Whether the file, or standard input where it is that, is a terminal. A pipe is not opened for it: that may wait for long.
fn is_terminal(path: &Path) -> bool {
    if is_standard_input(path) {
        return std::io::stdin().is_terminal();
    }
    let is_device = std::fs::metadata(path).is_ok_and(|file| file.file_type().is_char_device());
    is_device && File::open(path).is_ok_and(|file| file.is_terminal())
}

/// The first line, without its end. Not a byte more is taken: who writes into a pipe may keep it open.
fn first_line(mut file: File) -> std::io::Result<Zeroizing<Vec<u8>>> {
    let (mut line, mut byte) = (Zeroizing::new(Vec::new()), Zeroizing::new([0]));
    loop {
        match file.read(byte.as_mut_slice()) {
            Ok(0) => break,
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        }
        let [byte] = *byte;
        if byte == b'\n' {
            break;
        }
        if line.len() == MOST_BYTES {
            return Err(std::io::Error::new(ErrorKind::InvalidData, format!("its first line has more than {MOST_BYTES} bytes")));
        }
        line.push(byte);
    }
    if line.last() == Some(&b'\r') {
        line.pop();
    }
    Ok(line)
}

/// Standard input can be read once.
///
/// # Errors
/// Two of these name it.
pub fn one_standard_input(files: &[(&str, Option<&Path>)]) -> Result<(), Failure> {
    let named: Vec<&str> = files.iter().filter(|(_, file)| file.is_some_and(is_standard_input)).map(|(option, _)| *option).collect();
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

    #[tokio::test]
    async fn the_first_line_of_a_file_is_the_secret() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for text in ["s3cret \nmore\n", "s3cret \r\nmore", "s3cret "] {
            std::fs::write(file.path(), text).unwrap();
            assert_eq!(ASKED.take(Some(file.path())).await.unwrap().expose_secret(), "s3cret ");
        }
        for bad in [String::new(), "a".repeat(MOST_BYTES + 1)] {
            std::fs::write(file.path(), bad).unwrap();
            assert_eq!(ASKED.take(Some(file.path())).await.unwrap_err().exit, Exit::CommandLine);
        }
        let missing = ASKED.take(Some(Path::new("/nowhere/at/all"))).await.unwrap_err();
        assert!(missing.message.contains("--secret-file /nowhere/at/all"), "{missing:?}");
    }

    #[tokio::test]
    async fn a_pipe_that_stays_open_gives_its_first_line() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let writer = {
            let pipe = pipe.clone();
            tokio::task::spawn_blocking(move || {
                use std::io::Write as _;
                let mut open = File::options().write(true).open(pipe).unwrap();
                open.write_all(b"s3cret\nmore").unwrap();
                open
            })
        };
        assert_eq!(ASKED.take(Some(&pipe)).await.unwrap().expose_secret(), "s3cret");
        drop(writer.await.unwrap());
    }

    #[test]
    fn standard_input_is_one_secret() {
        let (dash, file) = (Some(Path::new("-")), Some(Path::new("x")));
        assert!(one_standard_input(&[("--a", dash), ("--b", file), ("--c", None)]).is_ok());
        assert!(one_standard_input(&[("--a", dash), ("--b", dash)]).unwrap_err().message.contains("--a and --b"));
    }
}

//! Where the seal key comes from: a file, a systemd credential, a command.

use crate::config::SealSection;
use crate::folder::{write_new, write_whole};
use crate::ownership::give_file;
use async_trait::async_trait;
use keystead_keyring::{KEY_BYTES, SealKey};
use keystead_manager::{MOST_SEAL_KEYS, SealSource};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncReadExt as _;
use zeroize::Zeroizing;

/// How long a command may take.
const COMMAND_LIMIT: Duration = Duration::from_secs(10);
/// The longest text that is read: the digits, and some white space around them.
const MAX_TEXT: u64 = 256;

/// The source that the configuration names. A file beside a credential is for where systemd gives none: commands that an operator runs beside the unit.
///
/// # Errors
/// One line: more than one is named, or a credential is asked for where systemd has given none.
pub fn open(section: &SealSection, data_dir: &Path, store_exists: bool) -> Result<Arc<dyn SealSource>, String> {
    match (&section.file, &section.credential, &section.command) {
        (None, None, None) => file(data_dir.join("seal.key"), store_exists),
        (Some(path), None, None) => file(path.clone(), store_exists),
        (beside, Some(name), None) => match (credentials(), beside) {
            (Some(folder), _) => Ok(Arc::new(FileSource { path: folder.join(name), private: false })),
            (None, Some(path)) => file(path.clone(), true),
            (None, None) => Err(format!(
                "[seal] credential {name:?}: systemd has passed no credentials (CREDENTIALS_DIRECTORY is not set; LoadCredential= of systemd.exec(5)); for commands beside the unit, [seal] file = \"…\" names the file that it is loaded from"
            )),
        },
        (None, None, Some(command)) => Ok(Arc::new(CommandSource { command: command.clone() })),
        _ => Err("[seal] takes one of file, credential and command; a file may stand beside a credential".to_owned()),
    }
}

/// Puts a seal key to where a node will look for it, unless it is there. A source that is no file must give it already. `whose`: what has this seal key, in words.
///
/// # Errors
/// One line: another key is there, or it cannot be written.
pub async fn place(section: &SealSection, data_dir: &Path, keys: &[u8], whose: &str) -> Result<(), String> {
    let file = match (&section.file, &section.credential, &section.command) {
        (None, None, None) => Some(data_dir.join("seal.key")),
        (file, ..) => file.clone(),
    };
    if let Some(file) = &file {
        let failed = |error: std::io::Error| format!("the seal key {} cannot be written: {error}", file.display());
        if !file.try_exists().map_err(failed)? {
            write_whole(file, 0o600, text_of(keys).as_bytes()).map_err(failed)?;
            // Without a credential, the service itself reads it.
            return if section.credential.is_none() { give_file(file, data_dir).map_err(failed) } else { Ok(()) };
        }
    }
    let source = open(section, data_dir, true)?;
    if has_all(&source.fetch().await?, keys) {
        return Ok(());
    }
    let way = match file {
        Some(_) => "if nothing that is needed was sealed with it, move it away and begin again: the right one is written then",
        None => "bring the right one there",
    };
    Err(format!("{} gives another seal key than {whose} has: {way}", source.describe()))
}

/// Writes a seal key into a new file. One that has it already is as good.
///
/// # Errors
/// Why not.
pub fn write_out(path: &Path, keys: &[u8]) -> Result<(), String> {
    match write_new(path, 0o600, text_of(keys).as_bytes()) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            let there = std::fs::read(path).map(Zeroizing::new).map_err(|error| error.to_string())?;
            let same = decode(&there, "it").is_ok_and(|there| has_all(&there, keys));
            if same { Ok(()) } else { Err("it is there already, with another content".to_owned()) }
        }
        written => written.map_err(|error| error.to_string()),
    }
}

/// Whether all of these keys are among those that a source gives. Compared in constant time.
fn has_all(given: &[u8], wanted: &[u8]) -> bool {
    let keys = |bytes: &[u8]| -> Vec<SealKey> { bytes.chunks(KEY_BYTES).filter_map(|key| SealKey::take(&mut Zeroizing::new(key.to_vec()))).collect() };
    let given = keys(given);
    wanted.chunks(KEY_BYTES).all(|wanted| given.iter().any(|given| given.matches(wanted)))
}

/// Where systemd has put the credentials of this unit.
fn credentials() -> Option<PathBuf> {
    std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from)
}

/// The text of a seal key's file: a line for each key.
pub fn text_of(keys: &[u8]) -> Zeroizing<String> {
    let line = |key: &[u8]| key.iter().map(|byte| format!("{byte:02x}")).collect::<String>() + "\n";
    Zeroizing::new(keys.chunks(KEY_BYTES).map(line).collect())
}

/// A key file; made at the first start. A store without its key file is not given a new key: that would only hide that the old one is missing.
fn file(path: PathBuf, store_exists: bool) -> Result<Arc<dyn SealSource>, String> {
    if !path.exists() {
        if store_exists {
            return Err(format!("the seal key {} is missing; put it back: without it, the AWS secrets in the store cannot be read", path.display()));
        }
        let key = SealKey::generate();
        let text = text_of(key.expose());
        write_whole(&path, 0o600, text.as_bytes()).map_err(|error| format!("the seal key {} cannot be written: {error}", path.display()))?;
    }
    Ok(Arc::new(FileSource { path, private: true }))
}

struct FileSource {
    path: PathBuf,
    /// Whether others must not be able to read it. systemd guards its credentials by itself.
    private: bool,
}

#[async_trait]
impl SealSource for FileSource {
    async fn fetch(&self) -> Result<Zeroizing<Vec<u8>>, String> {
        let place = self.describe();
        let failed = |error: std::io::Error| format!("{place} cannot be read: {error}");
        let file = tokio::fs::File::open(&self.path).await.map_err(failed)?;
        let mode = file.metadata().await.map_err(failed)?.mode();
        if self.private && mode & 0o077 != 0 {
            return Err(format!("{place} can be read by others (mode {:o}); set it to 600", mode & 0o777));
        }
        let mut text = Zeroizing::new(Vec::with_capacity(MAX_TEXT as usize));
        file.take(MAX_TEXT).read_to_end(&mut text).await.map_err(failed)?;
        decode(&text, &place)
    }

    fn describe(&self) -> String {
        format!("the seal key {}", self.path.display())
    }
}

struct CommandSource {
    command: String,
}

#[async_trait]
impl SealSource for CommandSource {
    async fn fetch(&self) -> Result<Zeroizing<Vec<u8>>, String> {
        let place = self.describe();
        let mut child = tokio::process::Command::new("/bin/sh")
            .args(["-c", &self.command])
            // It has no business with it.
            .env_remove(crate::config::ADMIN_PASSWORD)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| format!("{place} cannot be started: {error}"))?;
        let output = child.stdout.take().ok_or_else(|| format!("{place} has no output"))?;
        let mut text = Zeroizing::new(Vec::with_capacity(MAX_TEXT as usize));
        let run = async {
            output.take(MAX_TEXT).read_to_end(&mut text).await.map_err(|error| format!("the output of {place} cannot be read: {error}"))?;
            child.wait().await.map_err(|error| format!("{place} cannot be waited for: {error}"))
        };
        let status = tokio::time::timeout(COMMAND_LIMIT, run).await.map_err(|_| format!("{place} has not ended in {} s", COMMAND_LIMIT.as_secs()))??;
        if !status.success() {
            return Err(format!("{place} has failed ({status})"));
        }
        decode(&text, &place)
    }

    fn describe(&self) -> String {
        "the command of [seal]".to_owned()
    }
}

/// A line of 64 hexadecimal digits for each key, white space around them. More than one while the seal key is being replaced.
fn decode(text: &[u8], place: &str) -> Result<Zeroizing<Vec<u8>>, String> {
    let wrong = || {
        format!(
            "{place} is damaged: it must hold {} hexadecimal digits, and one more such line for each key beside that, {MOST_SEAL_KEYS} at most",
            KEY_BYTES * 2
        )
    };
    let lines: Vec<&[u8]> = text.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty()).collect();
    if lines.is_empty() || lines.len() > MOST_SEAL_KEYS || lines.iter().any(|line| line.len() != KEY_BYTES * 2) {
        return Err(wrong());
    }
    let digit = |byte: u8| (byte as char).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut keys = Zeroizing::new(Vec::with_capacity(lines.len() * KEY_BYTES));
    for pair in lines.into_iter().flat_map(|line| line.chunks_exact(2)) {
        match pair {
            [high, low] => keys.push(digit(*high).zip(digit(*low)).map(|(high, low)| high << 4 | low).ok_or_else(wrong)?),
            _ => return Err(wrong()),
        }
    }
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn section(command: &str) -> SealSection {
        SealSection { command: Some(command.to_owned()), ..SealSection::default() }
    }

    async fn fetch(section: &SealSection, folder: &Path) -> Result<Zeroizing<Vec<u8>>, String> {
        open(section, folder, false)?.fetch().await
    }

    #[tokio::test]
    async fn a_key_file_is_made_once_and_must_stay_private() {
        let temporary = tempfile::tempdir().unwrap();
        let folder = temporary.path();
        let key = fetch(&SealSection::default(), folder).await.unwrap();
        assert_eq!(key.len(), KEY_BYTES);
        assert_eq!(fetch(&SealSection::default(), folder).await.unwrap(), key);
        let path = folder.join("seal.key");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(fetch(&SealSection::default(), folder).await.unwrap_err().contains("600"));
    }

    #[tokio::test]
    async fn a_damaged_or_missing_key_file_is_named() {
        let temporary = tempfile::tempdir().unwrap();
        let folder = temporary.path();
        assert!(open(&SealSection::default(), folder, true).err().unwrap().contains("missing"));
        write_whole(&folder.join("seal.key"), 0o600, b"12zz").unwrap();
        assert!(fetch(&SealSection::default(), folder).await.unwrap_err().contains("damaged"));
    }

    #[tokio::test]
    async fn a_command_prints_the_key_or_fails_with_a_reason() {
        let temporary = tempfile::tempdir().unwrap();
        let folder = temporary.path();
        let good = format!("echo {}", "0f".repeat(KEY_BYTES));
        assert_eq!(*fetch(&section(&good), folder).await.unwrap(), vec![0x0f; KEY_BYTES]);
        assert!(fetch(&section("exit 3"), folder).await.unwrap_err().contains("failed"));
        assert!(fetch(&section("echo short"), folder).await.unwrap_err().contains("damaged"));
        let endless = fetch(&section("yes"), folder).await.unwrap_err();
        assert!(endless.contains("damaged") || endless.contains("failed"), "{endless}");
    }

    #[tokio::test]
    async fn a_key_is_placed_once_and_another_one_is_not_written_over() {
        let temporary = tempfile::tempdir().unwrap();
        let folder = temporary.path();
        let section = SealSection { credential: Some("seal.key".into()), file: Some(folder.join("beside")), ..SealSection::default() };
        assert!(open(&section, folder, true).err().unwrap().contains("missing"), "no key is made beside a unit");
        let (key, other) = (vec![1; KEY_BYTES], vec![2; KEY_BYTES]);
        for _ in 0..2 {
            place(&section, folder, &key, "the backup").await.unwrap();
        }
        assert_eq!(*open(&section, folder, true).unwrap().fetch().await.unwrap(), key);
        for wanted in [other.clone(), [key.clone(), other].concat()] {
            let refused = place(&section, folder, &wanted, "the backup").await.unwrap_err();
            assert!(refused.contains("another seal key than the backup has") && refused.contains("move it away"), "{refused}");
        }
        assert_eq!(*open(&section, folder, true).unwrap().fetch().await.unwrap(), key);
        let command = SealSection { command: Some("echo".to_owned() + &format!(" {}", "03".repeat(KEY_BYTES))), ..SealSection::default() };
        assert!(place(&command, folder, &key, "the backup").await.unwrap_err().contains("bring the right one there"));
    }

    #[test]
    fn one_source_at_a_time() {
        let temporary = tempfile::tempdir().unwrap();
        let folder = temporary.path();
        let both = SealSection { file: Some("x".into()), command: Some("y".into()), ..SealSection::default() };
        assert!(open(&both, folder, false).is_err());
    }
}

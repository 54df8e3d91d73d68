//! The profile file: where the cluster is, and who one is there, so that commands need not say it each time.
//!
//! ```toml
//! endpoint = "https://node1.example.com:8443"
//! ca = "ca.pem"
//! user = "admin"
//! password_file = "password"
//!
//! [profile.lab]
//! endpoint = "127.0.0.1:8443"
//! ```

use crate::failure::Failure;
use secrecy::SecretString;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use toml::{Table, Value};
use zeroize::Zeroizing;

/// One profile. Files are found from the folder of the profile file.
#[derive(Debug, Clone, Default)]
pub struct Profile {
    /// `--endpoint`.
    pub endpoint: Option<String>,
    /// `--ca`.
    pub ca: Option<PathBuf>,
    /// `--user`.
    pub user: Option<String>,
    /// `--password-file`.
    pub password_file: Option<PathBuf>,
    /// The password itself: then nobody else may read the file.
    pub password: Option<SecretString>,
    /// `--client-certificate`.
    pub client_certificate: Option<PathBuf>,
    /// `--client-key`.
    pub client_key: Option<PathBuf>,
}

/// Reads a profile. Where no file was named and there is none at its usual place, nothing stands in it.
///
/// # Errors
/// The file cannot be read, or says what no profile has; it has a password and others can read it; it has no profile of that name.
pub fn read(file: Option<&Path>, name: Option<&str>) -> Result<Profile, Failure> {
    let usual = usual_place();
    let Some(path) = file.or(usual.as_deref()) else {
        return match name {
            Some(name) => Err(Failure::command_line(format!("there is no profile {name}: neither HOME nor XDG_CONFIG_HOME says where the profile file is"))
                .next("name it: --profile-file")),
            None => Ok(Profile::default()),
        };
    };
    let place = path.display();
    let text = match std::fs::read_to_string(path) {
        Ok(text) => Zeroizing::new(text),
        Err(error) if error.kind() == ErrorKind::NotFound && file.is_none() && name.is_none() => return Ok(Profile::default()),
        Err(error) => return Err(Failure::command_line(format!("the profile file {place} cannot be read: {error}"))),
    };
    let wrong = |why: String| Failure::command_line(format!("the profile file {place}: {why}")).next("docs/manual/command-line.md shows what may stand in it");
    // Nothing of what stands there is repeated but names and the line: it may be a password.
    let mut unnamed: Table = toml::from_str(&text).map_err(|error| {
        let line = error.span().and_then(|span| text.get(..span.start)).map_or(1, |before| before.matches('\n').count() + 1);
        wrong(format!("line {line} is no TOML"))
    })?;
    let named = match unnamed.remove("profile") {
        None => Table::new(),
        Some(Value::Table(named)) => named,
        Some(_) => return Err(wrong("profile is no table: a profile with a name is a [profile.NAME]".to_owned())),
    };
    let unnamed = profile_of(unnamed).map_err(&wrong)?;
    let named: Vec<(String, Profile)> = named
        .into_iter()
        .map(|(name, value)| match value {
            Value::Table(table) => profile_of(table).map_err(|why| wrong(format!("[profile.{name}]: {why}"))).map(|profile| (name, profile)),
            _ => Err(wrong(format!("profile.{name} is no table: a profile with a name is a [profile.NAME]"))),
        })
        .collect::<Result<_, _>>()?;
    let has_password = unnamed.password.is_some() || named.iter().any(|(_, profile)| profile.password.is_some());
    if has_password && others_can_read(path).map_err(|error| wrong(error.to_string()))? {
        return Err(Failure::command_line(format!("the profile file {place} has a password, and others can read it"))
            .next(format!("chmod 600 {place}; and change the password, if somebody may have read it")));
    }
    let found = match name {
        None => unnamed,
        Some(name) => match named.iter().find(|(known, _)| known == name) {
            Some((_, found)) => found.clone(),
            None => {
                let names: Vec<&str> = named.iter().map(|(name, _)| name.as_str()).collect();
                return Err(wrong(format!("it has no [profile.{name}], but {}", if names.is_empty() { "none at all".to_owned() } else { names.join(", ") })));
            }
        },
    };
    Ok(found.within(path.parent().unwrap_or(Path::new("."))))
}

/// `$XDG_CONFIG_HOME/keystead/config.toml`, or the same under `~/.config`.
fn usual_place() -> Option<PathBuf> {
    folder("XDG_CONFIG_HOME", ".config").map(|folder| folder.join("keystead/config.toml"))
}

/// A folder of the user's own by the rules of the XDG base directories.
pub fn folder(variable: &str, under_home: &str) -> Option<PathBuf> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute(variable).or_else(|| absolute("HOME").map(|home| home.join(under_home)))
}

fn profile_of(table: Table) -> Result<Profile, String> {
    let mut profile = Profile::default();
    for (key, value) in table {
        let Value::String(text) = value else { return Err(format!("{key} is no text")) };
        match key.as_str() {
            "endpoint" => profile.endpoint = Some(text),
            "ca" => profile.ca = Some(text.into()),
            "user" => profile.user = Some(text),
            "password_file" => profile.password_file = Some(text.into()),
            "password" => profile.password = Some(SecretString::from(text)),
            "client_certificate" => profile.client_certificate = Some(text.into()),
            "client_key" => profile.client_key = Some(text.into()),
            _ => return Err(format!("{key} is no key of a profile")),
        }
    }
    Ok(profile)
}

fn others_can_read(path: &Path) -> std::io::Result<bool> {
    Ok(std::fs::metadata(path)?.permissions().mode() & 0o077 != 0)
}

impl Profile {
    /// With its files in that folder.
    fn within(self, folder: &Path) -> Self {
        let place = |file: Option<PathBuf>| file.map(|file| folder.join(file));
        Self {
            ca: place(self.ca),
            password_file: place(self.password_file),
            client_certificate: place(self.client_certificate),
            client_key: place(self.client_key),
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::ExposeSecret as _;

    fn file(text: &str, mode: u32) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(mode)).unwrap();
        file
    }

    #[test]
    fn a_profile_is_found_by_its_name_and_its_files_in_its_folder() {
        let text = "endpoint = \"a:1\"\nca = \"ca.pem\"\n[profile.lab]\nendpoint = \"b:2\"\nca = \"/x/ca.pem\"\n";
        let file = file(text, 0o644);
        let (unnamed, lab) = (read(Some(file.path()), None).unwrap(), read(Some(file.path()), Some("lab")).unwrap());
        assert_eq!((unnamed.endpoint.as_deref(), unnamed.ca), (Some("a:1"), Some(file.path().parent().unwrap().join("ca.pem"))));
        assert_eq!((lab.endpoint.as_deref(), lab.ca), (Some("b:2"), Some(PathBuf::from("/x/ca.pem"))));
        assert!(read(Some(file.path()), Some("prod")).unwrap_err().message.contains("lab"));
    }

    #[test]
    fn a_password_that_others_can_read_is_refused() {
        let text = "[profile.lab]\npassword = \"s3cret\"\n";
        let refused = read(Some(file(text, 0o640).path()), None).unwrap_err();
        assert!(refused.message.contains("others can read it") && refused.next.unwrap().contains("chmod 600"));
        let own = file(text, 0o600);
        assert_eq!(read(Some(own.path()), Some("lab")).unwrap().password.unwrap().expose_secret(), "s3cret");
    }

    #[test]
    fn what_no_profile_has_is_named_and_no_value_is_repeated() {
        for text in ["passwort = \"s3cret\"\n", "endpoint = \"s3cret\n", "[profile.x]\npass = \"s3cret\"\n", "user = [\"s3cret\"]\n", "password = 7357\n"] {
            let refused = read(Some(file(text, 0o600).path()), None).unwrap_err();
            assert!(!format!("{refused:?}").contains("s3cret") && !refused.message.contains("7357"), "{refused:?}");
        }
        assert!(read(Some(file("passwort = \"\"\n", 0o600).path()), None).unwrap_err().message.contains("passwort"));
        assert!(read(Some(Path::new("/nowhere/at/all")), None).is_err());
    }
}

//! Who asks: by a client certificate, or by an account with a password. An option counts before a variable, a variable before the profile file, and what was said at one of these layers is never mixed with another login of a lower one.

use crate::connection::endpoint_of;
use crate::failure::Failure;
use crate::options::{Common, Layer};
use crate::profile::Profile;
use secrecy::SecretString;
use std::path::{Path, PathBuf};

/// The account where none is named.
const ADMIN: &str = "admin";

/// How one logs in, before a file was read or the terminal asked.
#[derive(Debug)]
pub(crate) enum Way {
    /// By a client certificate and its key.
    Certificate { certificate: PathBuf, key: PathBuf },
    /// By the password of the profile.
    Password(SecretString),
    /// By a password in this file.
    PasswordFile(PathBuf),
    /// Nothing was said: a session, or the terminal.
    Unsaid,
}

/// Who asks.
#[derive(Debug)]
pub(crate) struct Who {
    pub user: String,
    pub way: Way,
    /// Why the password of the profile does not count, where that is so.
    pub unused: Option<String>,
}

impl Way {
    /// The client certificate that is shown, and its key.
    pub fn identity(&self) -> Option<(&Path, &Path)> {
        match self {
            Self::Certificate { certificate, key } => Some((certificate, key)),
            _ => None,
        }
    }
}

/// Who asks at that node (`https://host:port`).
///
/// # Errors
/// 2 a certificate and an account are named at the same layer, or a certificate without its key.
pub(crate) fn who(common: &Common, profile: &Profile, endpoint: &str) -> Result<Who, Failure> {
    let (account, said) = account(common, profile, endpoint);
    let certificate = layered(common, "client_certificate", &common.client_certificate, &profile.client_certificate);
    let key = layered(common, "client_key", &common.client_key, &profile.client_key);
    let shown = certificate.iter().chain(&key).map(|(layer, _)| *layer).min();
    match (shown, said) {
        (Some(shown), Some(said)) if shown == said => Err(Failure::command_line(format!(
            "{} a client certificate and an account or a password: which of them is to log in?",
            match shown {
                Layer::Option => "the options name",
                Layer::Variable => "the environment names",
                Layer::Profile => "the profile names",
            }
        ))
        .next("leave one of them out: --client-certificate and --client-key, or --user and --password-file, or their variables, or their lines in the profile file")),
        (Some(shown), said) if said.is_none_or(|said| shown < said) => match (certificate, key) {
            (Some((_, certificate)), Some((_, key))) => Ok(Who { way: Way::Certificate { certificate, key }, ..account }),
            _ => Err(Failure::command_line("a client certificate and its key come together").next("--client-certificate and --client-key")),
        },
        _ => Ok(account),
    }
}

/// Who begins a session, or ends it: that takes an account, whatever certificates are named in the environment or in the profile.
///
/// # Errors
/// 2 a certificate is named as an option.
pub(crate) fn who_has_sessions(common: &Common, profile: &Profile, endpoint: &str) -> Result<Who, Failure> {
    let typed = |option, value: &Option<PathBuf>| value.is_some() && common.layer(option) == Layer::Option;
    if typed("client_certificate", &common.client_certificate) || typed("client_key", &common.client_key) {
        return Err(Failure::command_line("a session is begun with a password: who has a client certificate needs none")
            .next("leave out --client-certificate and --client-key"));
    }
    Ok(account(common, profile, endpoint).0)
}

/// The account, how its password comes, and the first layer that says something of either.
fn account(common: &Common, profile: &Profile, endpoint: &str) -> (Who, Option<Layer>) {
    let user = layered(common, "user", &common.user, &profile.user);
    let file = layered(common, "password_file", &common.password_file, &profile.password_file);
    let name = user.as_ref().map_or(ADMIN, |(_, name)| name);
    // A password must not go where its profile has not sent it, nor be tried for another account.
    let own_user = profile.user.as_deref().unwrap_or(ADMIN);
    let is_own = name == own_user && profile.endpoint.as_deref().is_none_or(|own| endpoint_of(own).is_ok_and(|own| own == endpoint));
    let of_profile = match (&profile.password, &profile.password_file) {
        (Some(password), _) => Some(Way::Password(password.clone())),
        (None, Some(file)) => Some(Way::PasswordFile(file.clone())),
        (None, None) => None,
    };
    let unused = (of_profile.is_some() && !is_own)
        .then(|| format!("the password of the profile is {own_user}'s at {}", profile.endpoint.as_deref().unwrap_or(endpoint)));
    let secret = match file {
        Some((layer, file)) if layer < Layer::Profile => Some((layer, Way::PasswordFile(file))),
        _ => of_profile.filter(|_| is_own).map(|way| (Layer::Profile, way)),
    };
    let said = user.iter().map(|(layer, _)| *layer).chain(secret.iter().map(|(layer, _)| *layer)).min();
    let (way, unused) = match secret {
        Some((_, way)) => (way, None),
        None => (Way::Unsaid, unused),
    };
    (Who { user: name.to_owned(), way, unused }, said)
}

/// A value with the first layer that has it.
fn layered<T: Clone>(common: &Common, option: &str, given: &Option<T>, kept: &Option<T>) -> Option<(Layer, T)> {
    let given = given.clone().map(|value| (common.layer(option), value));
    given.or_else(|| kept.clone().map(|value| (Layer::Profile, value)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Exit;
    use clap::Parser;
    use secrecy::ExposeSecret as _;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        common: Common,
    }

    const NODE: &str = "https://node:8443";

    fn line(words: &[&str]) -> Common {
        Line::try_parse_from(["x"].iter().chain(words)).unwrap().common
    }

    fn with_certificate() -> Profile {
        Profile { client_certificate: Some("me.pem".into()), client_key: Some("me.key".into()), ..Profile::default() }
    }

    fn with_password(user: Option<&str>, endpoint: Option<&str>) -> Profile {
        Profile { user: user.map(str::to_owned), endpoint: endpoint.map(str::to_owned), password: Some("s3cret".into()), ..Profile::default() }
    }

    #[test]
    fn an_account_of_a_higher_layer_counts_before_a_certificate() {
        let shown = who(&line(&[]), &with_certificate(), NODE).unwrap();
        assert!(shown.way.identity().is_some(), "{shown:?}");
        for words in [&["--user", "bob"][..], &["--user", "bob", "--password-file", "p"], &["--password-file", "p"]] {
            let by_password = who(&line(words), &with_certificate(), NODE).unwrap();
            assert!(by_password.way.identity().is_none(), "{words:?}: {by_password:?}");
        }
        // And the other way round.
        let words = ["--client-certificate", "me.pem", "--client-key", "me.key"];
        assert!(who(&line(&words), &with_password(Some("bob"), None), NODE).unwrap().way.identity().is_some());
    }

    #[test]
    fn two_logins_at_the_same_layer_are_refused() {
        let both = line(&["--user", "bob", "--client-certificate", "me.pem", "--client-key", "me.key"]);
        let refused = who(&both, &Profile::default(), NODE).unwrap_err();
        assert!(refused.exit == Exit::CommandLine && refused.message.contains("the options name a client certificate and an account"), "{refused:?}");
        let both = Profile { user: Some("bob".to_owned()), ..with_certificate() };
        assert!(who(&line(&[]), &both, NODE).unwrap_err().message.contains("the profile names"));
        let half = who(&line(&["--client-key", "me.key"]), &Profile::default(), NODE).unwrap_err();
        assert!(half.message.contains("come together"), "{half:?}");
    }

    #[test]
    fn the_password_of_a_profile_is_its_own_users_and_its_own_nodes() {
        let password = |words: &[&str], profile: &Profile| match who(&line(words), profile, NODE).unwrap() {
            Who { way: Way::Password(password), .. } => password.expose_secret() == "s3cret",
            Who { way: Way::Unsaid, unused, .. } => {
                assert!(!unused.unwrap().contains("s3cret"));
                false
            }
            other => panic!("{other:?}"),
        };
        assert!(password(&[], &with_password(None, None)));
        assert!(password(&[], &with_password(Some("bob"), Some("node:8443"))));
        assert!(password(&["--user", "bob"], &with_password(Some("bob"), Some("node:8443/"))));
        assert!(password(&["--user", "admin"], &with_password(None, None)));
        assert!(!password(&["--user", "eve"], &with_password(Some("bob"), None)));
        assert!(!password(&["--user", "bob"], &with_password(None, None)));
        assert!(!password(&[], &with_password(None, Some("other:8443"))));
    }

    #[test]
    fn sessions_are_of_accounts() {
        let account = who_has_sessions(&line(&[]), &with_certificate(), NODE).unwrap();
        assert!(matches!(account.way, Way::Unsaid) && account.user == "admin", "{account:?}");
        let words = ["--client-certificate", "me.pem", "--client-key", "me.key"];
        assert_eq!(who_has_sessions(&line(&words), &Profile::default(), NODE).unwrap_err().exit, Exit::CommandLine);
    }
}

//! Which credentials of the node's own a client signs with, in place of an access key that a tenant has given.

use std::fmt;
use std::str::FromStr;

/// The longest name of a profile.
const MAX_PROFILE: usize = 128;

/// Where a node finds credentials of its own. What stands behind each is set up on the node (instance profile, variables, AWS configuration files), never over REST: so no command, no file name
/// and no role ever comes from a tenant.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum CredentialsSource {
    /// `chain`: the AWS SDK's own order: variables, profile, web identity, container, instance role.
    Chain,
    /// `instance_role`: the role of the machine, from its metadata service.
    InstanceRole,
    /// `web_identity`: the role of `AWS_ROLE_ARN`, for the token in `AWS_WEB_IDENTITY_TOKEN_FILE`.
    WebIdentity,
    /// `process`: what the `credential_process` of the node's own profile prints.
    Process,
    /// `profile:NAME`: a profile of the node's AWS configuration files, with all that a profile may say.
    Profile(String),
}

/// A text that names no source.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a credentials source is chain, instance_role, web_identity, process, or profile:NAME")]
pub struct SourceError;

impl CredentialsSource {
    /// What an operator looks at when it gives no credentials.
    pub(crate) fn hint(&self) -> &'static str {
        match self {
            Self::Chain => "give this node credentials in one of the ways of the AWS SDK's default chain",
            Self::InstanceRole => {
                "give the machine an instance profile, and see that its metadata service answers this node (in a container: the hop limit of the instance's metadata options)"
            }
            Self::WebIdentity => "see AWS_WEB_IDENTITY_TOKEN_FILE, AWS_ROLE_ARN and AWS_REGION of this node's process, and the trust policy of the role",
            Self::Process => "see the credential_process of this node's profile, and run it by hand as the user of this process",
            Self::Profile(_) => "see the profile in the AWS configuration files of this node",
        }
    }
}

impl FromStr for CredentialsSource {
    type Err = SourceError;

    fn from_str(text: &str) -> Result<Self, SourceError> {
        match text {
            "chain" => Ok(Self::Chain),
            "instance_role" => Ok(Self::InstanceRole),
            "web_identity" => Ok(Self::WebIdentity),
            "process" => Ok(Self::Process),
            _ => match text.strip_prefix("profile:") {
                Some(name) if is_profile(name) => Ok(Self::Profile(name.to_owned())),
                _ => Err(SourceError),
            },
        }
    }
}

impl fmt::Display for CredentialsSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Chain => f.write_str("chain"),
            Self::InstanceRole => f.write_str("instance_role"),
            Self::WebIdentity => f.write_str("web_identity"),
            Self::Process => f.write_str("process"),
            Self::Profile(name) => write!(f, "profile:{name}"),
        }
    }
}

/// What the AWS configuration files allow in a name (AWS SDKs and Tools Reference Guide, "Format of the config file").
fn is_profile(name: &str) -> bool {
    (1..=MAX_PROFILE).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-./%@:+".contains(&byte))
}

/// The account of a key ARN, and its region. `None`: it is not the ARN of a key; an alias is none.
pub fn key_arn_place(arn: &str) -> Option<(&str, &str)> {
    let parts: Vec<&str> = arn.splitn(6, ':').collect();
    match parts.as_slice() {
        ["arn", partition, "kms", region, account, key] => {
            let id = key.strip_prefix("key/")?;
            let word = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
            (word(id) && word(partition) && word(region) && account.len() == 12 && account.bytes().all(|byte| byte.is_ascii_digit()))
                .then_some((*account, *region))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_written_as_they_are_read() {
        for text in ["chain", "instance_role", "web_identity", "process", "profile:default", "profile:team-a/kms.prod"] {
            assert_eq!(text.parse::<CredentialsSource>().unwrap().to_string(), text);
        }
        for text in ["", "Chain", "chain ", "profile", "profile:", "profile:a b", "profile:a]\n[b", "process:/bin/sh", "file:/etc/passwd"] {
            assert_eq!(text.parse::<CredentialsSource>(), Err(SourceError), "{text}");
        }
        assert!(format!("profile:{}", "x".repeat(129)).parse::<CredentialsSource>().is_err());
    }

    #[test]
    fn only_the_arn_of_a_key_has_a_place() {
        let place = |arn: &'static str| key_arn_place(arn);
        assert_eq!(place("arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"), Some(("111122223333", "eu-west-1")));
        assert_eq!(place("arn:aws-us-gov:kms:us-gov-west-1:111122223333:key/mrk-1234"), Some(("111122223333", "us-gov-west-1")));
        for other in [
            "alias/a",
            "1234abcd-12ab-34cd-56ef-1234567890ab",
            "arn:aws:kms:eu-west-1:111122223333:alias/a",
            "arn:aws:kms:eu-west-1:111122223333:key/",
            "arn:aws:kms:eu-west-1:111122223333:key/a/b",
            "arn:aws:kms:eu-west-1:1111:key/a",
            "arn:aws:kms::111122223333:key/a",
            "arn:aws:s3:eu-west-1:111122223333:key/a",
            " arn:aws:kms:eu-west-1:111122223333:key/a",
        ] {
            assert_eq!(place(other), None, "{other}");
        }
    }
}

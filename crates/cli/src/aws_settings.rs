//! The settings of an AWS KMS configuration as options, and the members of a body that they become.

use crate::body::Body;
use crate::failure::Failure;
use crate::secret::Asked;
use clap::builder::NonEmptyStringValueParser;
use clap::{ArgAction, Args};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// The settings that enabling, changing and moving to another key have in common.
#[derive(Debug, Args)]
#[command(next_help_heading = "Settings")]
pub struct Settings {
    /// The encryption context of every Encrypt and Decrypt: key=value[,key=value…], or a JSON object of strings.
    #[arg(long, value_name = "TEXT")]
    encryption_context: Option<String>,
    /// The first label of the derived host name; KMS by default, and where it is empty.
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
    /// The last labels of the derived host name; amazonaws.com by default, and where it is empty.
    #[arg(long, value_name = "NAME")]
    default_domain: Option<String>,
    /// A host in place of the derived one.
    #[arg(long, value_name = "HOST")]
    host: Option<String>,
    /// The port of AWS KMS; 443 by default.
    #[arg(long, value_name = "PORT")]
    port: Option<u16>,
    /// Seconds for connecting, and for each attempt, from 1 to 60; 10 by default.
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<u32>,
    /// Whether AWS's certificate is checked at all.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", action = ArgAction::Set)]
    verify: Option<bool>,
    /// Whether a DNS name must match the certificate.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", action = ArgAction::Set)]
    verify_host: Option<bool>,
    /// Whether an IP host must stand in the certificate.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", action = ArgAction::Set)]
    verify_ip: Option<bool>,
    /// How the proxy is spoken to.
    #[arg(long, value_name = "TYPE", value_parser = ["http", "https"])]
    proxy_type: Option<String>,
    /// The proxy.
    #[arg(long, value_name = "HOST")]
    proxy_host: Option<String>,
    /// The proxy's port.
    #[arg(long, value_name = "PORT")]
    proxy_port: Option<u16>,
    /// The login at the proxy. Its password is asked for at the terminal, or read from --proxy-password-file.
    #[arg(long, value_name = "NAME")]
    proxy_username: Option<String>,
    /// A file whose first line is the password at the proxy; - is standard input.
    #[arg(long, value_name = "FILE")]
    proxy_password_file: Option<PathBuf>,
    /// PEM file of CA certificates for this SVM's AWS endpoint alone (Keystead's own). An empty file takes them away.
    #[arg(long, value_name = "FILE")]
    ca_certificates_file: Option<PathBuf>,
}

/// The settings of a configuration that is there: what it is enabled with, and how something is taken away.
#[derive(Debug, Args)]
#[command(next_help_heading = "Settings")]
pub struct Changes {
    /// The AWS region, where it is another.
    #[arg(long, value_name = "REGION", value_parser = NonEmptyStringValueParser::new())]
    region: Option<String>,
    /// Reach AWS without a proxy from now on.
    #[arg(long, conflicts_with_all = ["proxy_type", "proxy_host", "proxy_port", "proxy_username", "proxy_password_file"])]
    no_proxy: bool,
    #[command(flatten)]
    settings: Settings,
}

/// The AWS credentials.
#[derive(Debug, Args)]
#[command(next_help_heading = "Credentials")]
pub struct Credentials {
    /// The AWS access key id. Its secret is asked for at the terminal, or read from --secret-access-key-file.
    #[arg(long, value_name = "ID")]
    pub access_key_id: Option<String>,
    /// A file whose first line is the AWS secret access key; - is standard input.
    #[arg(long, value_name = "FILE")]
    pub secret_access_key_file: Option<PathBuf>,
    /// Credentials of the node's own in place of an access key: chain, instance_role, web_identity, process, or profile:NAME (Keystead's own).
    #[arg(long, value_name = "SOURCE", conflicts_with_all = ["access_key_id", "secret_access_key_file"])]
    pub credentials_source: Option<String>,
}

/// How long an SVM's keys are served without a good poll.
#[derive(Debug, Args)]
#[command(next_help_heading = "Settings")]
pub struct Polling {
    /// Minutes between two polls, from 1 to 1440; 60 by default.
    #[arg(long, value_name = "MINUTES")]
    polling_period: Option<u32>,
    /// The SVM's own grace after AWS has denied its key: a duration such as 30m, no longer than the cluster's (Keystead's own).
    #[arg(long, value_name = "DURATION")]
    access_error_grace: Option<String>,
    /// How long keys are served without a good poll: a duration such as 4h (Keystead's own).
    #[arg(long, value_name = "DURATION")]
    max_unverified: Option<String>,
}

/// What `--service` is when nothing is said, and `--default-domain`. The API does not take these away.
const SERVICE: &str = "KMS";
const DEFAULT_DOMAIN: &str = "amazonaws.com";

impl Settings {
    /// Puts what was given into a body.
    ///
    /// # Errors
    /// A file cannot be read; the terminal cannot be asked.
    pub async fn put(&self, body: &mut Body) -> Result<(), Failure> {
        let or = |text: &Option<String>, default: &str| text.as_ref().map(|text| if text.is_empty() { default.to_owned() } else { text.clone() });
        body.put_text("encryption_context", self.encryption_context.as_ref());
        body.put("service", or(&self.service, SERVICE));
        body.put("default_domain", or(&self.default_domain, DEFAULT_DOMAIN));
        body.put_text("host", self.host.as_ref());
        body.put("port", self.port);
        body.put("timeout", self.timeout);
        body.put("verify", self.verify);
        body.put("verify_host", self.verify_host);
        body.put("verify_ip", self.verify_ip);
        body.put("proxy_type", self.proxy_type.as_deref());
        body.put("proxy_host", self.proxy_host.as_deref());
        body.put("proxy_port", self.proxy_port);
        body.put_text("proxy_username", self.proxy_username.as_ref());
        if self.proxy_username.as_ref().is_some_and(|name| !name.is_empty()) || self.proxy_password_file.is_some() {
            let asked = Asked { what: "the password at the proxy", option: "--proxy-password-file", prompt: "Password at the proxy: " };
            body.put_secret("proxy_password", Some(&asked.take(self.proxy_password_file.as_deref()).await?));
        }
        if let Some(path) = &self.ca_certificates_file {
            let pem = std::fs::read_to_string(path).map_err(|error| Failure::command_line(format!("--ca-certificates-file {}: {error}", path.display())))?;
            body.put_own_text("ca_certificates", Some(&pem));
        }
        Ok(())
    }

    /// The file of the proxy's password, by its option.
    pub fn secret_file(&self) -> (&'static str, Option<&Path>) {
        ("--proxy-password-file", self.proxy_password_file.as_deref())
    }
}

impl Changes {
    /// Puts what was given into a body.
    ///
    /// # Errors
    /// A file cannot be read; the terminal cannot be asked.
    pub async fn put(&self, body: &mut Body) -> Result<(), Failure> {
        body.put("region", self.region.as_deref());
        if self.no_proxy {
            for name in ["proxy_type", "proxy_host", "proxy_port", "proxy_username", "proxy_password"] {
                body.put(name, Some(Value::Null));
            }
        }
        self.settings.put(body).await
    }

    /// The file of the proxy's password, by its option.
    pub fn secret_file(&self) -> (&'static str, Option<&Path>) {
        self.settings.secret_file()
    }
}

impl Credentials {
    /// Puts what was given into a body. `always`: there must be a secret, whether an access key was named or not.
    ///
    /// # Errors
    /// A file cannot be read; the terminal cannot be asked.
    pub async fn put(&self, body: &mut Body, always: bool) -> Result<(), Failure> {
        body.put_own_text("credentials_source", self.credentials_source.as_ref());
        body.put("access_key_id", self.access_key_id.as_deref());
        let has_access_key = self.access_key_id.is_some() || self.secret_access_key_file.is_some() || always;
        if self.credentials_source.is_none() && has_access_key {
            let prompt = self.access_key_id.as_ref().map_or_else(|| "AWS secret access key: ".to_owned(), |id| format!("AWS secret access key of {id}: "));
            let asked = Asked { what: "the AWS secret access key", option: "--secret-access-key-file", prompt: &prompt };
            body.put_secret("secret_access_key", Some(&asked.take(self.secret_access_key_file.as_deref()).await?));
        }
        Ok(())
    }

    /// The file of the secret access key, by its option.
    pub fn secret_file(&self) -> (&'static str, Option<&Path>) {
        ("--secret-access-key-file", self.secret_access_key_file.as_deref())
    }
}

impl Polling {
    /// Puts what was given into a body.
    pub fn put(&self, body: &mut Body) {
        body.put("polling_period", self.polling_period);
        body.put_own_text("access_error_grace", self.access_error_grace.as_ref());
        body.put_own_text("max_unverified", self.max_unverified.as_ref());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use serde_json::json;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        changes: Changes,
        #[command(flatten)]
        polling: Polling,
    }

    async fn body(words: &[&str]) -> Body {
        let line = Line::try_parse_from(["x"].iter().chain(words)).unwrap();
        let mut body = Body::default();
        line.changes.put(&mut body).await.unwrap();
        line.polling.put(&mut body);
        body
    }

    #[tokio::test]
    async fn options_become_members_and_what_was_not_given_stays_out() {
        assert!(body(&[]).await.is_empty());
        let words = ["--host", "h", "--port", "8443", "--verify", "false", "--verify-ip", "--polling-period", "5", "--max-unverified", "4h"];
        let expected = json!({ "host": "h", "port": 8443, "verify": false, "verify_ip": true, "polling_period": 5, "keystead": { "max_unverified": "4h" } });
        assert_eq!(body(&words).await.whole(), expected);
        assert_eq!(body(&["--host", "h", "--max-unverified", "4h"]).await.flat(), json!({ "host": "h", "max_unverified": "4h" }));
    }

    #[tokio::test]
    async fn an_empty_text_takes_a_setting_away() {
        let empty = tempfile::NamedTempFile::new().unwrap();
        let file = empty.path().to_str().unwrap();
        let words = ["--host", "", "--encryption-context", "", "--access-error-grace", "", "--no-proxy", "--ca-certificates-file", file];
        let all = body(&words).await.whole();
        assert!(all["host"].is_null() && all["encryption_context"].is_null() && all["keystead"]["access_error_grace"].is_null());
        assert_eq!(all["keystead"].get("ca_certificates"), Some(&Value::Null));
        assert_eq!((all.get("proxy_type"), all.get("proxy_password"), all.get("port")), (Some(&Value::Null), Some(&Value::Null), None));
        // What the API has a default for, and no way to take away.
        assert_eq!(body(&["--service", "", "--default-domain", ""]).await.whole(), json!({ "service": "KMS", "default_domain": "amazonaws.com" }));
        assert!(Line::try_parse_from(["x", "--region", ""]).is_err() && Line::try_parse_from(["x", "--no-proxy", "--proxy-port", "1"]).is_err());
    }
}

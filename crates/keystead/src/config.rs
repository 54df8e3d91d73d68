//! The configuration: flags, `KEYSTEAD_…` variables and the TOML file, in this order of weight.
//!
//! A variable is named after its section and key: `KEYSTEAD_AWS_KMS_EXTRA_CA` is `extra_ca` of `[aws_kms]`. Variables and file go through the same declaration and the same checks; an unknown key or a bad value
//! stops the start with its name, and with its line where it stands in the file.

use crate::cli::ServeArguments;
use keystead_manager::settings::{CertificateTemplate, Settings};
use secrecy::SecretString;
use serde::Deserialize;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The prefix of all variables.
const PREFIX: &str = "KEYSTEAD_";
/// Variables with that prefix that are no keys of the file.
const NOT_KEYS: &[&str] = &["KEYSTEAD_CONFIG", ADMIN_PASSWORD];
/// The variable with the first password of `admin`.
pub(crate) const ADMIN_PASSWORD: &str = "KEYSTEAD_ADMIN_PASSWORD";

/// The whole configuration of a node.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// `--data-dir`.
    pub data_dir: Option<PathBuf>,
    /// `--listen`; default `127.0.0.1:8443`.
    pub listen: Option<String>,
    /// `--ekmip-listen`; default `127.0.0.1:5696`.
    pub ekmip_listen: Option<String>,
    /// `--node-name`.
    pub node_name: Option<String>,
    /// The password of `admin` when the cluster is made; from `KEYSTEAD_ADMIN_PASSWORD` alone, never from the file.
    #[serde(skip)]
    pub admin_password: Option<SecretString>,
    /// A file whose first line is that password (`KEYSTEAD_ADMIN_PASSWORD_FILE`).
    pub admin_password_file: Option<PathBuf>,
    /// `[aws_kms]`.
    pub aws_kms: AwsKms,
    /// `[cluster]`.
    pub cluster: Cluster,
    /// `[ekmip]`.
    pub ekmip: Ekmip,
    /// `[rest]`.
    pub rest: Rest,
    /// `[store]`.
    pub store: StoreSection,
    /// `[seal]`.
    pub seal: SealSection,
    /// `[jobs]`.
    pub jobs: Jobs,
    /// `[audit]`.
    pub audit: Audit,
    /// `--join` and `--passphrase-file`; flags alone.
    #[serde(skip)]
    pub join: Option<crate::invite::Join>,
    /// `[metrics]`.
    pub metrics: Metrics,
    /// `[tracing]`.
    pub tracing: Tracing,
    /// `[log]`.
    pub log: Log,
}

/// `[aws_kms]`: AWS KMS for the whole cluster, and for this node.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs)] // Described in `manager::settings::Settings`.
pub struct AwsKms {
    pub enabled: Option<bool>,
    #[serde(deserialize_with = "duration")]
    pub access_error_grace: Option<Duration>,
    #[serde(deserialize_with = "duration")]
    pub min_poll_interval: Option<Duration>,
    pub requests_per_second: Option<u32>,
    pub allow_endpoints: Option<Vec<String>>,
    /// A PEM file of certificates that vouch for AWS endpoints and proxies, beside the machine's own.
    pub extra_ca: Option<PathBuf>,
    pub migrate_on_enable: Option<bool>,
}

/// `[cluster]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs)] // Described in `manager::settings::Settings`.
pub struct Cluster {
    pub name: Option<String>,
    pub metrocluster: Option<bool>,
    pub fips: Option<bool>,
    /// This node's cluster-network address, `host:port`; the listen address by default, unless that is a wildcard.
    pub address: Option<String>,
    #[serde(deserialize_with = "duration")]
    pub max_view_age: Option<Duration>,
}

/// `[ekmip]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Ekmip {
    /// Where clients reach the EKMIP server, `host:port`; its listen address by default.
    pub address: Option<String>,
    /// The longest KMIP message, in bytes; 1 MiB by default.
    pub max_message_size: Option<usize>,
    /// Connections in all; 1024 by default.
    pub max_connections: Option<usize>,
    /// Connections of one SVM's clients together; half of all by default, and no fewer than one certificate may have.
    pub max_connections_per_svm: Option<usize>,
    /// Connections with one certificate; 256 by default.
    pub max_connections_per_client: Option<usize>,
    /// From the connection to the end of the handshake; 10 s by default.
    #[serde(deserialize_with = "duration")]
    pub handshake_timeout: Option<Duration>,
    /// From the first byte of a message to its last, and as long for the answer to be taken; 30 s by default.
    #[serde(deserialize_with = "duration")]
    pub message_timeout: Option<Duration>,
    /// How long a connection may stay without a request; 24 h by default.
    #[serde(deserialize_with = "duration")]
    pub idle_timeout: Option<Duration>,
    /// Whether clients may use the operations Interop and Log, for tests of conformance; no by default (KMIP 2.1, section 6.1.26: not in production).
    pub interop: Option<bool>,
    /// `[ekmip.certificate]`: the template.
    pub certificate: Certificate,
}

/// `[ekmip.certificate]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs)] // Described in `manager::settings::CertificateTemplate`.
pub struct Certificate {
    #[serde(rename = "type")]
    pub kind: Option<String>,
    pub key_type: Option<String>,
    pub key_size: Option<u32>,
    pub hash_function: Option<String>,
    pub expiry_time: Option<String>,
    pub subtype: Option<String>,
    pub serial_number: Option<String>,
}

/// `[rest]`: what clients of the REST API may take.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rest {
    /// Connections in all; 1024 by default.
    pub max_connections: Option<usize>,
    /// Connections of one source, an IPv4 address or a /64 of IPv6; 256 by default.
    pub max_connections_per_source: Option<usize>,
    /// From the connection to the end of the handshake; 10 s by default.
    #[serde(deserialize_with = "duration")]
    pub handshake_timeout: Option<Duration>,
    /// For the head of a request, and between two of them; 30 s by default.
    #[serde(deserialize_with = "duration")]
    pub head_timeout: Option<Duration>,
    /// For the body of a request; 30 s by default.
    #[serde(deserialize_with = "duration")]
    pub body_timeout: Option<Duration>,
    /// How long a client may take nothing of its answer; 30 s by default.
    #[serde(deserialize_with = "duration")]
    pub answer_timeout: Option<Duration>,
    /// For what a call does, beside what `return_timeout` asks to wait; 180 s by default.
    #[serde(deserialize_with = "duration")]
    pub request_timeout: Option<Duration>,
    /// A PEM file of a certificate of the operator's own, with those between it and its root; by default one of the cluster's CA. It is read again when it changes.
    pub certificate: Option<PathBuf>,
    /// A PEM file of its private key.
    pub key: Option<PathBuf>,
}

/// `[store]`.
#[derive(Debug, Default, Clone, PartialEq, Eq, Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct StoreSection {
    /// `sqlite` (the default), a file in the data folder; or `etcd`, which all nodes of the cluster share.
    pub backend: Option<String>,
    /// The client URLs of etcd's members.
    pub endpoints: Option<Vec<String>>,
    /// What all keys in etcd start with; `/keystead` by default.
    pub prefix: Option<String>,
    /// A PEM file of the CAs that vouch for etcd's members.
    pub ca: Option<PathBuf>,
    /// A PEM file of this node's certificate as a client of etcd; also `cert`.
    #[serde(alias = "cert")]
    pub certificate: Option<PathBuf>,
    /// A PEM file of its private key.
    pub key: Option<PathBuf>,
}

/// `[seal]`: where the seal key comes from; at most one of the three, but for a file beside a credential. By default `seal.key` in the data folder.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SealSection {
    /// A file with 64 hexadecimal digits, mode 0600. Made where there is none. Beside a credential: the file that systemd loads it from, for commands that are run beside the unit.
    pub file: Option<PathBuf>,
    /// The name of a systemd credential with 64 hexadecimal digits.
    pub credential: Option<String>,
    /// A command, run by `/bin/sh -c`, that prints 64 hexadecimal digits.
    pub command: Option<String>,
    /// Where the seal key is lost for good: the code that a start with another one gives. It is good once.
    pub adopt: Option<String>,
}

/// `[jobs]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Jobs {
    /// How long a finished job is kept.
    #[serde(deserialize_with = "duration")]
    pub retention: Option<Duration>,
    /// How many jobs run at a time on this node; 16 by default.
    pub concurrency: Option<usize>,
    /// How many may be open, queued and running together; 20000 by default.
    pub max_open: Option<usize>,
}

/// `[audit]`: the audit log.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Audit {
    /// Whether keys are handed out only where that can be recorded; no by default.
    pub strict: Option<bool>,
    /// A file that has so many bytes is followed by another; 64 MiB by default.
    pub max_file_size: Option<u64>,
    /// How many files are kept; 16 by default.
    pub files: Option<usize>,
    /// How often what is counted (Gets, logins, refusals) is recorded; 60 s by default.
    #[serde(deserialize_with = "duration")]
    pub interval: Option<Duration>,
    /// `[audit.syslog]`.
    pub syslog: Syslog,
}

/// `[audit.syslog]`: the collector that gets a copy.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Syslog {
    /// `host:port`; without it, nothing is forwarded.
    pub address: Option<String>,
    /// `tls` (the default) or `tcp`.
    pub protocol: Option<String>,
    /// A PEM file of CAs that vouch for the collector, in place of the machine's own.
    pub ca: Option<PathBuf>,
    /// `json` (the default), the record as it stands in the log, or `text`.
    pub format: Option<String>,
}

/// `[metrics]`: what Prometheus reads, beside `/metrics` of the REST API.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Metrics {
    /// An address where `/metrics` is served in the clear and without a login; without it, nowhere.
    pub listen: Option<String>,
    /// Whether that may be an address that other machines reach; no by default.
    pub public: Option<bool>,
    /// How many SVMs have series of their own at the most; 10000 by default.
    pub max_svms: Option<usize>,
}

/// `[tracing]`: traces of requests, jobs and calls to AWS, for a collector.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tracing {
    /// `http://host:port` or `https://host:port` of a collector of OpenTelemetry (OTLP over HTTP); without it, nothing is traced.
    pub otlp_endpoint: Option<String>,
    /// A PEM file of CAs that vouch for the collector, in place of the machine's own.
    pub ca: Option<PathBuf>,
}

/// `[log]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// `error`, `warn`, `info` (the default) or `debug`.
    pub level: Option<String>,
    /// `text`, `json` or `journal`; by default `journal` where standard error leads to systemd's journal, else `text`.
    pub format: Option<String>,
}

impl Config {
    /// Reads file and variables, and lays the flags over them.
    ///
    /// # Errors
    /// One line for the operator.
    pub fn load(arguments: &ServeArguments, variables: impl Iterator<Item = (String, String)>) -> Result<Self, String> {
        let text = match &arguments.config {
            Some(path) => std::fs::read_to_string(path).map_err(|error| format!("the configuration file {} cannot be read: {error}", path.display()))?,
            None => String::new(),
        };
        let name = arguments.config.as_deref().unwrap_or(Path::new("configuration"));
        // First by itself: its errors then have lines.
        toml::from_str::<Self>(&text).map_err(|error| in_file(name, &text, &error))?;
        let mut table: toml::Table = toml::from_str(&text).map_err(|error| in_file(name, &text, &error))?;
        let mut admin_password = None;
        for (variable, value) in variables {
            if variable == ADMIN_PASSWORD {
                admin_password = Some(SecretString::from(value));
            } else if let Some(key) =
                variable.strip_prefix(PREFIX).filter(|_| !NOT_KEYS.contains(&variable.as_str()) && !keystead_cli::VARIABLES.contains(&variable.as_str()))
            {
                // As what it reads as in TOML, else as text: `2024` may be a name. Each variable by itself, so that an error names it.
                let mut tried = Vec::new();
                for value in readings(&value) {
                    let mut with = table.clone();
                    lay_over(&mut with, &key.to_lowercase(), value).map_err(|why| format!("the variable {variable}: {why}"))?;
                    match Self::deserialize(toml::Value::Table(with.clone())) {
                        Ok(_) => tried.push(Ok(with)),
                        Err(error) => tried.push(Err(error.message().to_owned())),
                    }
                }
                let first_error = tried.iter().find_map(|one| one.as_ref().err().cloned()).unwrap_or_default();
                table = tried.into_iter().find_map(Result::ok).ok_or_else(|| format!("the variable {variable}: {first_error}"))?;
            }
        }
        let mut config = Self::deserialize(toml::Value::Table(table)).map_err(|error| format!("a variable {PREFIX}…: {}", error.message()))?;
        config.admin_password = admin_password;
        config.data_dir = arguments.data_dir.clone().or(config.data_dir);
        config.listen = arguments.listen.clone().or(config.listen);
        config.ekmip_listen = arguments.ekmip_listen.clone().or(config.ekmip_listen);
        config.node_name = arguments.node_name.clone().or(config.node_name);
        config.join = arguments.join.clone().map(|invitation| crate::invite::Join { invitation, passphrase_file: arguments.passphrase_file.clone() });
        Ok(config)
    }

    /// What EKMIP clients may take.
    ///
    /// # Errors
    /// A limit out of its bounds.
    pub fn ekmip_limits(&self) -> Result<keystead_ekmip::Limits, String> {
        let default = keystead_ekmip::Limits::default();
        let max_connections = self.ekmip.max_connections.unwrap_or(default.max_connections);
        let max_connections_per_client = self.ekmip.max_connections_per_client.unwrap_or(default.max_connections_per_client);
        let limits = keystead_ekmip::Limits {
            max_message_size: self.ekmip.max_message_size.unwrap_or(default.max_message_size),
            max_connections,
            max_connections_per_svm: self.ekmip.max_connections_per_svm.unwrap_or((max_connections / 2).max(max_connections_per_client)),
            max_connections_per_client,
            handshake_timeout: self.ekmip.handshake_timeout.unwrap_or(default.handshake_timeout),
            message_timeout: self.ekmip.message_timeout.unwrap_or(default.message_timeout),
            idle_timeout: self.ekmip.idle_timeout.unwrap_or(default.idle_timeout),
            interop: self.ekmip.interop.unwrap_or(default.interop),
        };
        let bounds = |holds: bool, what: &str| if holds { Ok(()) } else { Err(format!("[ekmip] {what}")) };
        bounds((1_024..=1024 * 1024).contains(&limits.max_message_size), "max_message_size must be 1024 to 1048576 bytes")?;
        bounds((1..=1_000_000).contains(&limits.max_connections), "max_connections must be 1 to 1000000")?;
        bounds((1..=1_000_000).contains(&limits.max_connections_per_svm), "max_connections_per_svm must be 1 to 1000000")?;
        bounds((1..=1_000_000).contains(&limits.max_connections_per_client), "max_connections_per_client must be 1 to 1000000")?;
        bounds(limits.handshake_timeout >= Duration::from_millis(100), "handshake_timeout must be 100 ms at least")?;
        bounds(limits.message_timeout >= Duration::from_millis(100), "message_timeout must be 100 ms at least")?;
        bounds(limits.idle_timeout >= Duration::from_secs(1), "idle_timeout must be 1 s at least")?;
        Ok(limits)
    }

    /// What clients of the REST API may take.
    ///
    /// # Errors
    /// A limit out of its bounds.
    pub fn rest_limits(&self) -> Result<keystead_rest::Limits, String> {
        let (rest, default) = (&self.rest, keystead_rest::Limits::default());
        let limits = keystead_rest::Limits {
            max_connections: rest.max_connections.unwrap_or(default.max_connections),
            max_connections_per_source: rest.max_connections_per_source.unwrap_or(default.max_connections_per_source),
            handshake_timeout: rest.handshake_timeout.unwrap_or(default.handshake_timeout),
            head_timeout: rest.head_timeout.unwrap_or(default.head_timeout),
            body_timeout: rest.body_timeout.unwrap_or(default.body_timeout),
            answer_timeout: rest.answer_timeout.unwrap_or(default.answer_timeout),
            request_timeout: rest.request_timeout.unwrap_or(default.request_timeout),
        };
        let bounds = |holds: bool, what: &str| if holds { Ok(()) } else { Err(format!("[rest] {what}")) };
        bounds((1..=1_000_000).contains(&limits.max_connections), "max_connections must be 1 to 1000000")?;
        bounds((1..=1_000_000).contains(&limits.max_connections_per_source), "max_connections_per_source must be 1 to 1000000")?;
        for (name, timeout) in [
            ("handshake_timeout", limits.handshake_timeout),
            ("head_timeout", limits.head_timeout),
            ("body_timeout", limits.body_timeout),
            ("answer_timeout", limits.answer_timeout),
            ("request_timeout", limits.request_timeout),
        ] {
            bounds((Duration::from_millis(100)..=Duration::from_secs(3_600)).contains(&timeout), &format!("{name} must be 100 ms to 1 h"))?;
        }
        Ok(limits)
    }

    /// Where `/metrics` is served in the clear, if anywhere.
    ///
    /// # Errors
    /// It is no address, or one that other machines reach although nobody has said that they may.
    pub fn metrics_listen(&self) -> Result<Option<SocketAddr>, String> {
        let Some(listen) = &self.metrics.listen else { return Ok(None) };
        let address: SocketAddr =
            listen.parse().map_err(|_| format!("[metrics] listen is {listen:?}, but must be an address and a port, as 127.0.0.1:9464"))?;
        if !address.ip().is_loopback() && self.metrics.public != Some(true) {
            return Err(format!(
                "[metrics] listen is {listen}, which other machines may reach: names and states of all SVMs are shown there without a login; set public = true if that is meant, or scrape /metrics of the REST API"
            ));
        }
        Ok(Some(address))
    }

    /// How many SVMs have series of their own.
    ///
    /// # Errors
    /// Out of bounds.
    pub fn metrics_max_svms(&self) -> Result<usize, String> {
        let most = self.metrics.max_svms.unwrap_or(keystead_metrics::MAX_SVMS);
        if most <= 1_000_000 { Ok(most) } else { Err("[metrics] max_svms must be 0 to 1000000".to_owned()) }
    }

    /// The settings of the cluster, as the file has them.
    pub fn settings(&self) -> Settings {
        let default = Settings::default();
        let template = CertificateTemplate::default();
        let certificate = &self.ekmip.certificate;
        Settings {
            cluster_name: self.cluster.name.clone().unwrap_or(default.cluster_name),
            metrocluster: self.cluster.metrocluster.unwrap_or(default.metrocluster),
            fips: self.cluster.fips.unwrap_or(default.fips),
            max_view_age: self.cluster.max_view_age.or(default.max_view_age),
            aws_kms_enabled: self.aws_kms.enabled.unwrap_or(default.aws_kms_enabled),
            access_error_grace: self.aws_kms.access_error_grace.unwrap_or(default.access_error_grace),
            min_poll_interval: self.aws_kms.min_poll_interval.unwrap_or(default.min_poll_interval),
            requests_per_second: self.aws_kms.requests_per_second.unwrap_or(default.requests_per_second),
            allow_endpoints: self.aws_kms.allow_endpoints.clone().unwrap_or(default.allow_endpoints),
            migrate_on_enable: self.aws_kms.migrate_on_enable.unwrap_or(default.migrate_on_enable),
            certificate: CertificateTemplate {
                kind: certificate.kind.clone().unwrap_or(template.kind),
                key_type: certificate.key_type.clone().unwrap_or(template.key_type),
                key_size: certificate.key_size.unwrap_or(template.key_size),
                hash_function: certificate.hash_function.clone().unwrap_or(template.hash_function),
                expiry_time: certificate.expiry_time.clone().unwrap_or(template.expiry_time),
                subtype: certificate.subtype.clone(),
                serial_number: certificate.serial_number.clone(),
            },
            job_retention: self.jobs.retention.unwrap_or(default.job_retention),
        }
    }
}

/// The sections, the longest name first where one starts with another.
const SECTIONS: &[&[&str]] = &[
    &["ekmip", "certificate"],
    &["aws_kms"],
    &["cluster"],
    &["ekmip"],
    &["rest"],
    &["store"],
    &["seal"],
    &["jobs"],
    &["audit", "syslog"],
    &["audit"],
    &["metrics"],
    &["tracing"],
    &["log"],
];

/// What the value of a variable may mean: TOML where it reads as TOML (`true`, `5`, `["a"]`), and text.
fn readings(value: &str) -> Vec<toml::Value> {
    let parsed = toml::from_str::<toml::Table>(&format!("value = {value}")).ok().and_then(|mut parsed| parsed.remove("value"));
    parsed.into_iter().chain([toml::Value::String(value.to_owned())]).collect()
}

/// Lays the value of a variable over the table. A key whose name starts like a section but is a flag stays a flag.
fn lay_over(table: &mut toml::Table, key: &str, value: toml::Value) -> Result<(), String> {
    let flags = ["data_dir", "listen", "ekmip_listen", "node_name", "admin_password_file"];
    if flags.contains(&key) {
        table.insert(key.to_owned(), toml::Value::String(value.as_str().map_or_else(|| value.to_string(), str::to_owned)));
        return Ok(());
    }
    for section in SECTIONS {
        let Some(name) = key.strip_prefix(&section.join("_")).and_then(|rest| rest.strip_prefix('_')) else { continue };
        let mut at = table;
        for part in *section {
            let entry = at.entry((*part).to_owned()).or_insert_with(|| toml::Value::Table(toml::Table::new()));
            at = entry.as_table_mut().ok_or_else(|| format!("{part} is not a section of the file"))?;
        }
        at.insert(name.to_owned(), value);
        return Ok(());
    }
    Err("no such setting".to_owned())
}

/// A duration as text: `"90s"`, `"60m"`, `"1h 30m"`, `"0s"`.
fn duration<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let parsed = text.parse::<jiff::SignedDuration>().ok().and_then(|duration| Duration::try_from(duration).ok());
    parsed.map(Some).ok_or_else(|| serde::de::Error::custom(format!("{text:?} is not a duration such as \"60m\" or \"3s\"")))
}

fn in_file(path: &Path, text: &str, error: &toml::de::Error) -> String {
    let line = error.span().and_then(|span| text.get(..span.start)).map_or(1, |before| before.matches('\n').count() + 1);
    format!("{} line {line}: {}", path.display(), error.message().lines().next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn load(text: &str, variables: &[(&str, &str)]) -> Result<Config, String> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        let arguments = ServeArguments { config: Some(file.path().to_owned()), ..ServeArguments::default() };
        Config::load(&arguments, variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
    }

    #[test]
    fn a_variable_is_what_its_setting_needs_and_an_error_names_it() {
        let config = load("", &[("KEYSTEAD_CLUSTER_NAME", "2024"), ("KEYSTEAD_NODE_NAME", "true"), ("KEYSTEAD_EKMIP_MAX_CONNECTIONS", "12")]).unwrap();
        assert_eq!((config.cluster.name.as_deref(), config.node_name.as_deref(), config.ekmip.max_connections), (Some("2024"), Some("true"), Some(12)));
        let error = load("", &[("KEYSTEAD_CLUSTER_NAME", "x"), ("KEYSTEAD_EKMIP_MAX_CONNECTIONS", "many")]).err().unwrap();
        assert!(error.contains("KEYSTEAD_EKMIP_MAX_CONNECTIONS"), "{error}");
        let error = load("", &[("KEYSTEAD_NONSENSE", "1")]).err().unwrap();
        assert!(error.contains("KEYSTEAD_NONSENSE"), "{error}");
    }

    #[test]
    fn the_file_sets_the_clusters_settings() {
        let config = load(
            "[aws_kms]\naccess_error_grace = \"0s\"\nmin_poll_interval = \"5s\"\nallow_endpoints = [\"127.0.0.0/8\"]\n[cluster]\nmetrocluster = true\n",
            &[],
        )
        .unwrap();
        let settings = config.settings();
        assert_eq!((settings.access_error_grace, settings.min_poll_interval), (Duration::ZERO, Duration::from_secs(5)));
        assert!(settings.metrocluster);
        assert_eq!(settings.allow_endpoints, ["127.0.0.0/8"]);
    }

    #[test]
    fn an_unknown_key_and_a_bad_value_are_named_with_their_line() {
        let error = load("[aws_kms]\n\nenable = true\n", &[]).unwrap_err();
        assert!(error.contains("line 3") && error.contains("enable"), "{error}");
        let error = load("[jobs]\nretention = \"soon\"\n", &[]).unwrap_err();
        assert!(error.contains("line 2") && error.contains("soon"), "{error}");
        assert!(load("listen = ", &[]).unwrap_err().contains("line 1"));
    }

    #[test]
    fn a_variable_counts_before_the_file() {
        let file = "listen = \"127.0.0.1:1\"\n[aws_kms]\nenabled = true\n";
        let variables = [
            ("KEYSTEAD_LISTEN", "127.0.0.1:2"),
            ("KEYSTEAD_AWS_KMS_ENABLED", "false"),
            ("KEYSTEAD_EKMIP_CERTIFICATE_KEY_SIZE", "384"),
            ("KEYSTEAD_EKMIP_ADDRESS", "h:1"),
            ("KEYSTEAD_JOBS_RETENTION", "10s"),
            ("KEYSTEAD_AWS_KMS_ALLOW_ENDPOINTS", "[\"a\", \"b\"]"),
            ("KEYSTEAD_ADMIN_PASSWORD", "not a key"),
            ("KEYSTEAD_ENDPOINT", "of the operator's commands"),
            ("HOME", "/"),
        ];
        let config = load(file, &variables).unwrap();
        assert_eq!(config.listen.as_deref(), Some("127.0.0.1:2"));
        let settings = config.settings();
        assert!(!settings.aws_kms_enabled);
        assert_eq!((settings.certificate.key_size, settings.job_retention), (384, Duration::from_secs(10)));
        assert_eq!(config.ekmip.address.as_deref(), Some("h:1"));
        assert_eq!(settings.allow_endpoints, ["a", "b"]);
    }

    /// Every key of the file, whatever keys there will be: serde names them when it meets one that it does not know.
    #[test]
    fn every_key_is_a_variable_too() {
        let sections: [&[&str]; 14] = [
            &[],
            &["aws_kms"],
            &["cluster"],
            &["ekmip"],
            &["ekmip", "certificate"],
            &["rest"],
            &["store"],
            &["seal"],
            &["jobs"],
            &["audit"],
            &["audit", "syslog"],
            &["metrics"],
            &["tracing"],
            &["log"],
        ];
        let mut keys = 0;
        for section in sections {
            let nonsense = section.iter().rev().fold("nonsense = 1".to_owned(), |inner, part| format!("{part} = {{ {inner} }}"));
            let error = toml::from_str::<Config>(&nonsense).unwrap_err().message().to_owned();
            let names: Vec<&str> = error.split('`').skip(3).step_by(2).collect();
            assert!(!names.is_empty(), "{section:?}: {error}");
            for name in names.into_iter().filter(|name| !sections.contains(&[section, &[*name]].concat().as_slice())) {
                let variable = [&["KEYSTEAD"], section, &[name]].concat().join("_").to_uppercase();
                let accepted = ["true", "5", "60m", "text", "[\"a\"]"].iter().any(|value| load("", &[(variable.as_str(), value)]).is_ok());
                assert!(accepted, "{variable}: {:?}", load("", &[(variable.as_str(), "5")]).err());
                keys += 1;
            }
        }
        assert!(keys > 35, "{keys} keys");
    }

    #[test]
    fn metrics_without_a_login_stay_on_this_machine_unless_that_is_meant() {
        let listen = |text: &str| load(text, &[]).unwrap().metrics_listen();
        assert_eq!(listen(""), Ok(None));
        for loopback in ["127.0.0.1:9464", "[::1]:0", "127.8.8.8:1"] {
            assert_eq!(listen(&format!("[metrics]\nlisten = \"{loopback}\"\n")), Ok(Some(loopback.parse().unwrap())));
        }
        for public in ["0.0.0.0:9464", "10.0.0.1:9464", "[::]:9464"] {
            let why = listen(&format!("[metrics]\nlisten = \"{public}\"\n")).unwrap_err();
            assert!(why.contains("public = true"), "{why}");
            assert_eq!(listen(&format!("[metrics]\nlisten = \"{public}\"\npublic = true\n")), Ok(Some(public.parse().unwrap())));
        }
        assert!(listen("[metrics]\nlisten = \"9464\"\n").unwrap_err().contains("127.0.0.1:9464"));
    }

    #[test]
    fn an_unknown_variable_is_named() {
        assert!(load("", &[("KEYSTEAD_AWS_KMS_ENABLE", "true")]).unwrap_err().contains("enable"));
        assert!(load("", &[("KEYSTEAD_NONSENSE", "1")]).unwrap_err().contains("KEYSTEAD_NONSENSE"));
    }
}

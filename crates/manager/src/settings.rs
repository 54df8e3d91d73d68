//! The settings that belong to the cluster (marked ∀ in `contract/rest.md`, section 7).
//!
//! The configuration file's values count when the cluster is made; afterwards they live in the store and are changed for every node at once.

use crate::records::Record;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The cluster's settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// The cluster's name, 1 to 64 characters.
    pub cluster_name: String,
    /// Whether the cluster is in a MetroCluster configuration: no AWS KMS then (65537911).
    pub metrocluster: bool,
    /// FIPS mode; the same value as `fips.enabled` of `/security`.
    pub fips: bool,
    /// How long a node that is cut off from the store may serve from its view; `None`: without a limit.
    pub max_view_age: Option<Duration>,
    /// Whether AWS KMS may be configured at all (else 65537907).
    pub aws_kms_enabled: bool,
    /// From the first of the two denials to the block. 0 to 30 days.
    pub access_error_grace: Duration,
    /// The re-poll after a failure. 1 s to 1 h.
    pub min_poll_interval: Duration,
    /// The most requests a second to one AWS account and region, from one node. 1 to 10,000.
    pub requests_per_second: u32,
    /// Addresses inside that AWS endpoints and proxies may resolve to: host, address or CIDR, with an optional port.
    pub allow_endpoints: Vec<String>,
    /// Whether enabling AWS KMS moves an SVM's keys from the onboard key manager by itself.
    pub migrate_on_enable: bool,
    /// The template of the EKMIP servers' certificates; checked only when it is used.
    pub certificate: CertificateTemplate,
    /// How long a finished job is kept. 1 s to 24 h.
    pub job_retention: Duration,
}

/// The template of the EKMIP servers' certificates, as the operator wrote it: it is checked when a certificate is made from it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateTemplate {
    /// `server`; any other type is refused when used.
    pub kind: String,
    /// `rsa` or `ec`.
    pub key_type: String,
    /// Bits.
    pub key_size: u32,
    /// `sha256`, `sha384` or `sha512`.
    pub hash_function: String,
    /// ISO 8601 duration, for example `P365DT`.
    pub expiry_time: String,
    /// Must be unset.
    pub subtype: Option<String>,
    /// Must be unset.
    pub serial_number: Option<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            cluster_name: "keystead".to_owned(),
            metrocluster: false,
            fips: false,
            max_view_age: None,
            aws_kms_enabled: true,
            access_error_grace: Duration::from_secs(60 * 60),
            min_poll_interval: Duration::from_secs(60),
            requests_per_second: 100,
            allow_endpoints: Vec::new(),
            migrate_on_enable: false,
            certificate: CertificateTemplate::default(),
            job_retention: Duration::from_secs(300),
        }
    }
}

impl Default for CertificateTemplate {
    fn default() -> Self {
        Self {
            kind: "server".to_owned(),
            key_type: "ec".to_owned(),
            key_size: 256,
            hash_function: "sha256".to_owned(),
            expiry_time: "P365DT".to_owned(),
            subtype: None,
            serial_number: None,
        }
    }
}

impl Record for Settings {
    const PREFIX: &'static str = "/settings";
}

/// A change of the settings; `None` leaves a member as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[allow(missing_docs)] // The members of `Settings`, where they are described.
pub struct SettingsChange {
    pub cluster_name: Option<String>,
    pub metrocluster: Option<bool>,
    pub fips: Option<bool>,
    /// Turns FIPS mode on even where things exist that it refuses.
    pub fips_force: bool,
    pub max_view_age: Option<Option<Duration>>,
    pub aws_kms_enabled: Option<bool>,
    pub access_error_grace: Option<Duration>,
    pub min_poll_interval: Option<Duration>,
    pub requests_per_second: Option<u32>,
    pub allow_endpoints: Option<Vec<String>>,
    pub migrate_on_enable: Option<bool>,
    pub certificate: CertificateTemplateChange,
    pub job_retention: Option<Duration>,
}

/// A change of the template; `None` leaves a member as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct CertificateTemplateChange {
    pub kind: Option<String>,
    pub key_type: Option<String>,
    pub key_size: Option<u32>,
    pub hash_function: Option<String>,
    pub expiry_time: Option<String>,
    pub subtype: Option<Option<String>>,
    pub serial_number: Option<Option<String>>,
}

impl Settings {
    /// These settings with a change applied.
    #[must_use]
    pub fn changed(&self, change: SettingsChange) -> Self {
        let now = self.clone();
        let template = change.certificate;
        Self {
            cluster_name: change.cluster_name.unwrap_or(now.cluster_name),
            metrocluster: change.metrocluster.unwrap_or(now.metrocluster),
            fips: change.fips.unwrap_or(now.fips),
            max_view_age: change.max_view_age.unwrap_or(now.max_view_age),
            aws_kms_enabled: change.aws_kms_enabled.unwrap_or(now.aws_kms_enabled),
            access_error_grace: change.access_error_grace.unwrap_or(now.access_error_grace),
            min_poll_interval: change.min_poll_interval.unwrap_or(now.min_poll_interval),
            requests_per_second: change.requests_per_second.unwrap_or(now.requests_per_second),
            allow_endpoints: change.allow_endpoints.unwrap_or(now.allow_endpoints),
            migrate_on_enable: change.migrate_on_enable.unwrap_or(now.migrate_on_enable),
            certificate: CertificateTemplate {
                kind: template.kind.unwrap_or(now.certificate.kind),
                key_type: template.key_type.unwrap_or(now.certificate.key_type),
                key_size: template.key_size.unwrap_or(now.certificate.key_size),
                hash_function: template.hash_function.unwrap_or(now.certificate.hash_function),
                expiry_time: template.expiry_time.unwrap_or(now.certificate.expiry_time),
                subtype: template.subtype.unwrap_or(now.certificate.subtype),
                serial_number: template.serial_number.unwrap_or(now.certificate.serial_number),
            },
            job_retention: change.job_retention.unwrap_or(now.job_retention),
        }
    }

    /// The dotted names of the members whose values differ, as the configuration file names them.
    pub fn differences(&self, other: &Self) -> Vec<&'static str> {
        let mut names = Vec::new();
        let mut note = |differs: bool, name| {
            if differs {
                names.push(name)
            }
        };
        note(self.cluster_name != other.cluster_name, "cluster.name");
        note(self.metrocluster != other.metrocluster, "cluster.metrocluster");
        note(self.fips != other.fips, "cluster.fips");
        note(self.max_view_age != other.max_view_age, "cluster.max_view_age");
        note(self.aws_kms_enabled != other.aws_kms_enabled, "aws_kms.enabled");
        note(self.access_error_grace != other.access_error_grace, "aws_kms.access_error_grace");
        note(self.min_poll_interval != other.min_poll_interval, "aws_kms.min_poll_interval");
        note(self.requests_per_second != other.requests_per_second, "aws_kms.requests_per_second");
        note(self.allow_endpoints != other.allow_endpoints, "aws_kms.allow_endpoints");
        note(self.migrate_on_enable != other.migrate_on_enable, "aws_kms.migrate_on_enable");
        note(self.certificate != other.certificate, "ekmip.certificate");
        note(self.job_retention != other.job_retention, "jobs.retention");
        names
    }
}

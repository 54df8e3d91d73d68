//! Where an account may have AWS looked for.
//!
//! For everybody, no name and no address may lead inside, unless the cluster's administrator allows it; every connection checks that again. The administrator of an SVM is a tenant: without more, the errors of a
//! name of the tenant's own making would tell what there is in the operator's network. So the endpoint is AWS's own, or it and the proxy are ones that the cluster's administrator allows.

use crate::aws::endpoint;
use crate::inner::Inner;
use crate::records::StoredSettings;
use crate::{Code, Error, Result};

/// The first labels of AWS KMS's own names (AWS General Reference, "AWS KMS endpoints and quotas").
const SERVICES: &[&str] = &["kms", "kms-fips"];
/// The suffixes of AWS's partitions (botocore, `partitions.json`, `dnsSuffix`).
const SUFFIXES: &[&str] = &["amazonaws.com", "amazonaws.com.cn", "amazonaws.eu", "c2s.ic.gov", "sc2s.sgov.gov", "cloud.adc-e.uk", "csp.hci.ic.gov"];

/// Checks where a configuration leads. `restricted`: on behalf of an SVM's administrator, who need not answer for what `old` has already. Looked at when a change is accepted, and again when it is made: another one
/// may have come first.
///
/// # Errors
/// 262245 with the member to blame; 262247 settings that make no host name.
pub(crate) async fn check(inner: &Inner, restricted: bool, old: Option<&StoredSettings>, new: &StoredSettings) -> Result<()> {
    let environment = inner.aws.environment();
    let target = if new.host.is_some() { "host" } else { "default_domain" };
    let host = host_name(new)?;
    let refuse = |error: &dyn std::fmt::Display, target: &str| Error::with(Code::OutOfBounds, error).target(target);
    let not_allowed = |host: &str| format!("{host} is not among the endpoints that the cluster's administrator allows");
    let same_way = old.is_some_and(|old| host_name(old).is_ok_and(|was| was == host) && old.port == new.port);
    if restricted && !same_way && !is_aws(new) && !environment.allows(&host, new.port) {
        return Err(refuse(&not_allowed(&host), target));
    }
    environment.check_host(&host, new.port).await.map_err(|error| refuse(&error, target))?;
    if let Some(proxy) = &new.proxy {
        let same_proxy = old.and_then(|old| old.proxy.as_ref()).is_some_and(|was| (&was.host, was.port) == (&proxy.host, proxy.port));
        if restricted && !same_proxy && !environment.allows(&proxy.host, proxy.port) {
            return Err(refuse(&not_allowed(&proxy.host), "proxy_host"));
        }
        environment.check_host(&proxy.host, proxy.port).await.map_err(|error| refuse(&error, "proxy_host"))?;
    }
    Ok(())
}

/// The host that the settings come to.
///
/// # Errors
/// 262247.
pub(crate) fn host_name(settings: &StoredSettings) -> Result<String> {
    let target = if settings.host.is_some() { "host" } else { "service" };
    endpoint(settings).host_name().map_err(|error| Error::with(Code::InvalidValue, error).target(target))
}

/// Whether the name is derived, and one of AWS's own.
fn is_aws(settings: &StoredSettings) -> bool {
    let is_one_of = |text: &str, known: &[&str]| known.iter().any(|known| known.eq_ignore_ascii_case(text));
    settings.host.is_none() && settings.port == 443 && is_one_of(&settings.service, SERVICES) && is_one_of(&settings.default_domain, SUFFIXES)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(host: Option<&str>, service: &str, domain: &str, port: u16) -> StoredSettings {
        serde_json::from_value(serde_json::json!({
            "region": "us-east-1", "key_id": "k", "access_key_id": "AKIA", "encryption_context": null, "service": service, "default_domain": domain, "host": host,
            "port": port, "polling_period": 60, "timeout": 10, "verify": true, "verify_host": true, "verify_ip": true, "proxy": null,
        }))
        .unwrap()
    }

    #[test]
    fn a_name_that_is_put_together_is_awss_own_only_with_awss_own_parts() {
        for (service, domain) in [("KMS", "amazonaws.com"), ("kms-fips", "amazonaws.com"), ("KMS", "amazonaws.com.cn"), ("kms", "amazonaws.eu")] {
            assert!(is_aws(&settings(None, service, domain, 443)), "{service} {domain}");
        }
        for (host, service, domain, port) in [
            (None, "ip-10-0-0-5", "compute.internal", 443),
            (None, "KMS", "tenant.example", 443),
            (None, "KMS", "amazonaws.com.tenant.example", 443),
            (None, "ec2", "amazonaws.com", 443),
            (None, "KMS", "amazonaws.com", 22),
            (Some("kms.us-east-1.amazonaws.com"), "KMS", "amazonaws.com", 443),
        ] {
            assert!(!is_aws(&settings(host, service, domain, port)), "{service} {domain} {port}");
        }
    }
}

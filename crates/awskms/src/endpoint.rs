//! Where AWS KMS is.

use std::net::{IpAddr, Ipv6Addr};

/// Where AWS KMS is for one SVM. Requests are always signed for the service `kms` and for [`Endpoint::region`], whatever the host is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// For example `us-east-1`.
    pub region: String,
    /// First label of the derived name; `KMS` by default.
    pub service: String,
    /// Last labels of the derived name; `amazonaws.com` by default.
    pub default_domain: String,
    /// A host name or an address in place of the derived name.
    pub host: Option<String>,
    /// 443 by default.
    pub port: u16,
}

/// Why no host name can be put together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name:?} is not a host name: {why}")]
pub struct EndpointError {
    name: String,
    why: &'static str,
}

impl Endpoint {
    /// The host: as given, else `{service in lower case}.{region}.{default_domain}`. In its normal form: lower case, an address in its shortest
    /// spelling and without brackets.
    ///
    /// # Errors
    /// The name breaks the rules of host names (RFC 1123, section 2.1).
    pub fn host_name(&self) -> Result<String, EndpointError> {
        let name = match &self.host {
            Some(host) => host.clone(),
            None => format!("{}.{}.{}", self.service, self.region, self.default_domain),
        };
        normal_host(&name).map_err(|why| EndpointError { name, why })
    }

    /// `https://host:port`; without the port where it is 443, since the signature covers the `Host` header, and that leaves a default port out.
    ///
    /// # Errors
    /// As [`Endpoint::host_name`].
    pub fn url(&self) -> Result<String, EndpointError> {
        let host = self.host_name()?;
        let port = if self.port == 443 { String::new() } else { format!(":{}", self.port) };
        Ok(format!("https://{}{port}", bracketed(&host)))
    }
}

/// A host in its normal form, which is the one that a URL makes of it: the signature covers the `Host` header, and the checks compare names.
///
/// # Errors
/// Why it is no host.
pub(crate) fn normal_host(host: &str) -> Result<String, &'static str> {
    let bare = host.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')).unwrap_or(host);
    if let Ok(address) = bare.parse::<IpAddr>() {
        return Ok(address.to_canonical().to_string());
    }
    check_name(host)?;
    Ok(host.to_ascii_lowercase())
}

/// A host as it stands in a URL.
pub(crate) fn bracketed(host: &str) -> String {
    if host.parse::<Ipv6Addr>().is_ok() { format!("[{host}]") } else { host.to_owned() }
}

/// Checks a host name.
pub(crate) fn check_name(name: &str) -> Result<(), &'static str> {
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.is_empty() || name.len() > 253 {
        return Err("it must have 1 to 253 characters");
    }
    for label in name.split('.') {
        if label.is_empty() || label.len() > 63 {
            return Err("each label must have 1 to 63 characters");
        }
        if !label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_') {
            return Err("a label holds letters, digits and hyphens alone");
        }
        if label.starts_with('-') || label.ends_with('-') {
            return Err("a label neither starts nor ends with a hyphen");
        }
    }
    // A URL reads such a name as an IPv4 address (WHATWG URL, "ends in a number"): it would never be looked up, and so pass by the egress rule.
    let last = name.rsplit('.').next().unwrap_or(name);
    let hexadecimal = last.strip_prefix("0x").or_else(|| last.strip_prefix("0X"));
    if last.bytes().all(|byte| byte.is_ascii_digit()) || hexadecimal.is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit())) {
        return Err("the last label must not be a number");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_port_stands_in_the_url() {
        let endpoint = Endpoint { port: 4588, ..endpoint("KMS", "amazonaws.com", None) };
        assert_eq!(endpoint.url().unwrap(), "https://kms.eu-west-1.amazonaws.com:4588");
    }

    fn endpoint(service: &str, domain: &str, host: Option<&str>) -> Endpoint {
        Endpoint { region: "eu-west-1".into(), service: service.into(), default_domain: domain.into(), host: host.map(Into::into), port: 443 }
    }

    #[test]
    fn the_name_is_derived_from_service_region_and_domain() {
        assert_eq!(endpoint("KMS", "amazonaws.com", None).url().unwrap(), "https://kms.eu-west-1.amazonaws.com");
        assert_eq!(endpoint("kms-fips", "amazonaws.com.cn", None).host_name().unwrap(), "kms-fips.eu-west-1.amazonaws.com.cn");
    }

    #[test]
    fn a_host_stands_in_place_of_the_derived_name() {
        assert_eq!(endpoint("dynamodb.*.amazonaws.com", "domainName", Some("aws-host.host.com")).host_name().unwrap(), "aws-host.host.com");
        assert_eq!(endpoint("KMS", "x", Some("::1")).url().unwrap(), "https://[::1]");
        assert_eq!(endpoint("KMS", "x", Some("[::1]")).url().unwrap(), "https://[::1]");
        assert_eq!(endpoint("KMS", "x", Some("10.1.2.3")).url().unwrap(), "https://10.1.2.3");
    }

    #[test]
    fn each_label_is_checked() {
        for service in ["dynamodb.*.amazonaws.com", "", "a b", "kms@evil.example", "kms/../x", "-kms", &"k".repeat(64)] {
            assert!(endpoint(service, "amazonaws.com", None).host_name().is_err(), "{service}");
        }
        for host in ["", "https://x", "a..b", "a:443", "x/y", "a\nb"] {
            assert!(endpoint("KMS", "amazonaws.com", Some(host)).host_name().is_err(), "{host}");
        }
    }
}

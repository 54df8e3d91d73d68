//! What to do about a step that has failed.

use crate::error::{Class, Error, Hop};
use rustls::CertificateError;

pub(super) const EGRESS: &str = "choose an endpoint outside, or have the cluster's administrator add this one to allow_endpoints";
pub(super) const CLOCK: &str = "set this node's clock, and keep it right with NTP; AWS refuses signatures that are more than 5 minutes off";
pub(super) const NOT_ENABLED: &str = "enable the customer key in AWS KMS, or take its deletion back";
pub(super) const USAGE: &str = "use a symmetric customer key whose usage is ENCRYPT_DECRYPT";
pub(super) const OTHER_VALUE: &str = "trust nothing on this way: look at what answers between this node and AWS KMS";
pub(super) const PROXY_LOGIN: &str = "set proxy_username and proxy_password again, as the proxy knows them";
pub(super) const PROXY_REFUSES: &str = "have the proxy's administrator allow CONNECT from this node to this host and port";
pub(super) const PROXY_SILENT: &str = "look at proxy_type, proxy_host and proxy_port: what listens there does not answer as such a proxy does";

pub(super) fn dns(proxy: bool) -> &'static str {
    if proxy {
        "look at proxy_host, and at the name servers of this node"
    } else {
        "look at host (or region, service and default_domain, which make the name), and at the name servers of this node"
    }
}

pub(super) fn route(proxy: bool) -> &'static str {
    if proxy {
        "look at proxy_host and proxy_port, whether the proxy runs, and at the firewall between it and this node"
    } else {
        "look at host and port, and at firewall, routes and security groups between this node and AWS KMS; where only a proxy leads out, set proxy_type, proxy_host and proxy_port"
    }
}

/// What to do about a handshake that has failed. `error` is none where it was not TLS that has failed.
pub(super) fn tls(error: Option<&rustls::Error>, proxy: bool) -> &'static str {
    let Some(rustls::Error::InvalidCertificate(why)) = error else {
        return if proxy {
            "look at proxy_type and proxy_port: what listens there does not speak TLS 1.2 or 1.3 with this node"
        } else {
            "look at host and port: what answers there does not speak TLS 1.2 or 1.3 with this node; a firewall on the way may also end the handshake"
        };
    };
    match (why, proxy) {
        (CertificateError::Expired | CertificateError::ExpiredContext { .. }, _) => {
            "have its owner renew the certificate; if it is AWS's own, set this node's clock"
        }
        (CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. }, _) => "set this node's clock, or wait until the certificate is valid",
        (CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. }, true) => {
            "set proxy_host to a name that stands in the proxy's certificate"
        }
        (CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. }, false) => {
            "set host to a name that stands in the certificate; only where you know that endpoint, set verify_host (for an address: verify_ip) to false; then no denial counts as a revocation any more"
        }
        (_, true) => "give the CA of the proxy's certificate to this node: [aws_kms] extra_ca",
        (_, false) => {
            "where the endpoint is your own, give its CA in keystead.ca_certificates; where it should be AWS's own, something on the way opens TLS, and its administrator must let AWS KMS through"
        }
    }
}

/// What to do about an answer to DescribeKey, Encrypt or Decrypt that is an error. `permission`: `kms:…`.
pub(super) fn aws(error: &Error, permission: &str) -> String {
    match error.hop() {
        Hop::Aws => {}
        Hop::Egress => return EGRESS.to_owned(),
        Hop::Resolve => return dns(error.concerns_proxy()).to_owned(),
        Hop::Connect => return route(false).to_owned(),
        Hop::Proxy => return PROXY_SILENT.to_owned(),
        Hop::Tls => return tls(None, false).to_owned(),
        Hop::Credentials => return "look at what keystead.credentials_source stands for on this node; AWS KMS was not asked".to_owned(),
        Hop::Settings => return "look at the members of this configuration".to_owned(),
        Hop::Http if error.class() == Class::Transient => return TRANSIENT.to_owned(),
        Hop::Http => {
            return "look at what stands between this node and AWS KMS: what answers there, or does not, is not AWS (a firewall, a portal, a proxy)".to_owned();
        }
    }
    if error.clock_skew().is_some() {
        return CLOCK.to_owned();
    }
    match error.code().unwrap_or_default() {
        "InvalidSignatureException" | "SignatureDoesNotMatch" => "set secret_access_key again: it is not the secret of this access_key_id".to_owned(),
        _ if error.is_credentials() => {
            "look at access_key_id: in this AWS partition it is unknown, inactive or deleted; make a new access key, or activate it".to_owned()
        }
        "AccessDeniedException" | "AccessDenied" => {
            format!(
                "allow {permission} on this key to this user, in its IAM policy and in the key policy; a condition on the encryption context must fit encryption_context"
            )
        }
        "NotFoundException" => "look at key_id and region: there is no such key in this account and region".to_owned(),
        "DisabledException" | "KMSInvalidStateException" | "KMSInvalidState" => NOT_ENABLED.to_owned(),
        "InvalidKeyUsageException" | "IncorrectKeyException" | "UnsupportedOperationException" => USAGE.to_owned(),
        "InvalidCiphertextException" => OTHER_VALUE.to_owned(),
        _ if error.class() == Class::Transient => TRANSIENT.to_owned(),
        _ => "look at key_id, region and encryption_context: AWS KMS cannot read the request with them".to_owned(),
    }
}

const TRANSIENT: &str = "try again in a minute: AWS KMS cannot just now, or limits the rate of this account";

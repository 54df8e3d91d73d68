//! TLS to a node: whom it is believed by, what is shown to it, and what it means where no answer comes.

use crate::failure::Failure;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{AlertDescription, CertificateError, ClientConfig, RootCertStore};
use std::error::Error as StdError;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(10);
/// How long an answer may take. The longest is a check, which asks AWS with all its retries.
const ANSWER: Duration = Duration::from_secs(300);

/// A client that believes this CA (else those of the machine), and shows this certificate and its key.
///
/// # Errors
/// 2 a file cannot be used.
pub(crate) fn client(ca: Option<&Path>, identity: Option<(&Path, &Path)>) -> Result<reqwest::Client, Failure> {
    builder(ca, identity)?.https_only(true).build().map_err(|error| no_tls(&error))
}

/// The same, which would also speak without TLS: for tests.
pub(crate) fn builder(ca: Option<&Path>, identity: Option<(&Path, &Path)>) -> Result<reqwest::ClientBuilder, Failure> {
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| no_tls(&error))?
        .with_root_certificates(roots(ca)?);
    let config = match identity {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain = certificates("--client-certificate", certificate)?;
            let key = PrivateKeyDer::from_pem_file(key).map_err(|error| Failure::command_line(format!("--client-key {}: {error}", key.display())))?;
            builder
                .with_client_auth_cert(chain, key)
                .map_err(|error| Failure::command_line(format!("the client certificate and its key cannot be used: {error}")))?
        }
    };
    let builder = reqwest::Client::builder().tls_backend_preconfigured(config).redirect(reqwest::redirect::Policy::none()).referer(false);
    // Who runs a proxy for the web has not meant that it sees the key manager.
    Ok(builder.no_proxy().connect_timeout(CONNECT).timeout(ANSWER))
}

fn no_tls(why: &dyn std::fmt::Display) -> Failure {
    Failure::command_line(format!("TLS cannot be set up: {why}"))
}

fn roots(ca: Option<&Path>) -> Result<RootCertStore, Failure> {
    let mut roots = RootCertStore::empty();
    match ca {
        Some(path) => {
            for certificate in certificates("--ca", path)? {
                roots.add(certificate).map_err(|error| Failure::command_line(format!("--ca {}: {error}", path.display())))?;
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    Ok(roots)
}

fn certificates(option: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>, Failure> {
    let unreadable = |why: &dyn std::fmt::Display| Failure::command_line(format!("{option} {}: {why}", path.display()));
    let found: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).map_err(|error| unreadable(&error))?.collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(unreadable(&"there is no certificate in it")),
        Err(error) => Err(unreadable(&error)),
    }
}

/// What TLS has said, wherever it stands among the causes.
fn tls_error<'e>(error: &'e (dyn StdError + 'static)) -> Option<&'e rustls::Error> {
    let mut at = Some(error);
    while let Some(error) = at {
        if let Some(found) = error.downcast_ref::<rustls::Error>() {
            return Some(found);
        }
        // An I/O error does not name what it wraps among its causes.
        let wrapped = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        at = match wrapped {
            Some(wrapped) => Some(wrapped as &(dyn StdError + 'static)),
            None => error.source(),
        };
    }
    None
}

/// Why no answer came. `shows_certificate`: the node was shown a client certificate.
pub(crate) fn no_answer(endpoint: &str, shows_certificate: bool, error: &reqwest::Error) -> Failure {
    if let Some(tls) = tls_error(error) {
        return of_tls(endpoint, shows_certificate, tls);
    }
    let mut last: &dyn StdError = error;
    while let Some(source) = last.source() {
        last = source;
    }
    let why = if error.is_timeout() { "no answer in time".to_owned() } else { last.to_string() };
    let failure = Failure::unreachable(format!("{endpoint} cannot be reached: {why}"))
        .next("look at --endpoint, and whether the node runs; any other node of the cluster answers as well");
    // What was sent may be done, whether its answer has come or not.
    Failure { may_be_done: !error.is_connect(), ..failure }
}

fn of_tls(endpoint: &str, shows_certificate: bool, error: &rustls::Error) -> Failure {
    use rustls::Error::{AlertReceived, InvalidCertificate};
    match error {
        AlertReceived(alert) if shows_certificate && is_about_a_certificate(*alert) => {
            Failure::login(format!("{endpoint} does not take the client certificate: {alert:?}"))
                .next("look at --client-certificate and --client-key: who has signed it, and until when it is valid")
        }
        AlertReceived(alert) => Failure::unreachable(format!("{endpoint} ends the TLS connection: {alert:?}"))
            .next("look at --endpoint; in FIPS mode, a node takes TLS 1.3 or 1.2 with AES-GCM alone"),
        InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
            Failure::unreachable(format!("the certificate of {endpoint} has expired")).next("look at the clocks of the node and of this machine")
        }
        InvalidCertificate(CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. }) => {
            Failure::unreachable(format!("the certificate of {endpoint} is not valid yet")).next("look at the clocks of the node and of this machine")
        }
        InvalidCertificate(CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. }) => {
            Failure::unreachable(format!("the certificate of {endpoint} is for another name"))
                .next("use a name or an address of the node that stands in it ([cluster] address)")
        }
        InvalidCertificate(why) => Failure::unreachable(format!("the certificate of {endpoint} is not of a CA that is believed here ({why})"))
            .next("give the cluster's CA: --ca, ca.pem in a node's data folder"),
        other => Failure::unreachable(format!("no TLS connection with {endpoint}: {other}")).next("look at --endpoint: it is the address of a node's REST API"),
    }
}

/// Whether a node means the certificate that it was shown.
fn is_about_a_certificate(alert: AlertDescription) -> bool {
    use AlertDescription as Alert;
    matches!(
        alert,
        Alert::NoCertificate
            | Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateRevoked
            | Alert::CertificateExpired
            | Alert::CertificateUnknown
            | Alert::UnknownCA
            | Alert::AccessDenied
            | Alert::CertificateUnobtainable
            | Alert::BadCertificateStatusResponse
            | Alert::BadCertificateHashValue
            | Alert::CertificateRequired
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Exit;
    use rustls::Error;

    #[test]
    fn an_alert_is_about_the_login_only_where_it_is_about_a_certificate_that_was_shown() {
        let exit = |shown, alert| of_tls("https://n:1", shown, &Error::AlertReceived(alert)).exit;
        assert_eq!(exit(true, AlertDescription::CertificateExpired), Exit::Login);
        assert_eq!(exit(true, AlertDescription::UnknownCA), Exit::Login);
        assert_eq!(exit(false, AlertDescription::CertificateExpired), Exit::Unreachable);
        assert_eq!(exit(true, AlertDescription::HandshakeFailure), Exit::Unreachable);
        assert_eq!(exit(true, AlertDescription::ProtocolVersion), Exit::Unreachable);
    }

    #[test]
    fn a_certificate_of_another_time_is_a_matter_of_clocks() {
        for (error, said) in [(CertificateError::Expired, "has expired"), (CertificateError::NotValidYet, "is not valid yet")] {
            let failure = of_tls("https://n:1", false, &Error::InvalidCertificate(error));
            assert!(failure.exit == Exit::Unreachable && failure.message.contains(said) && failure.next.unwrap().contains("clocks"));
        }
        let failure = of_tls("https://n:1", false, &Error::InvalidCertificate(CertificateError::UnknownIssuer));
        assert!(failure.message.contains("not of a CA"), "{failure:?}");
    }
}

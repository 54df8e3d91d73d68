//! `[audit]`: the audit log of a node, from the configuration; and `keystead audit verify`.

use crate::config::{Audit as Section, Syslog};
use crate::folder::Folder;
use keystead_audit::forward::Target;
use keystead_audit::syslog::Format;
use keystead_audit::{Audit, Named, Options, disk::Disk, verify as chain};
use keystead_manager::clock::Clock;
use keystead_manager::fips::tls_provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

/// The folder in the data folder.
const FOLDER: &str = "audit";
/// The length of a file when nothing is said, and how many there are.
const MAX_FILE_SIZE: u64 = 64 * 1024 * 1024;
const FILES: usize = 16;
/// How often what was counted is recorded when nothing is said.
const INTERVAL: Duration = Duration::from_secs(60);

/// Opens the log in the data folder.
///
/// # Errors
/// One line for the operator: a setting out of its bounds, a folder that cannot be written.
pub fn open(section: &Section, folder: &Folder, node: Named, clock: Arc<dyn Clock>, disk: Arc<dyn Disk>) -> Result<Audit, String> {
    let max_file_size = section.max_file_size.unwrap_or(MAX_FILE_SIZE);
    let files = section.files.unwrap_or(FILES);
    if !(4_096..=1 << 40).contains(&max_file_size) {
        return Err("[audit] max_file_size must be 4096 bytes to 1 TiB".to_owned());
    }
    if !(2..=100_000).contains(&files) {
        return Err("[audit] files must be 2 to 100000".to_owned());
    }
    Audit::open(Options {
        folder: folder.file(FOLDER),
        node,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        max_file_size,
        files,
        strict: section.strict.unwrap_or(false),
        now: Arc::new(move || clock.utc()),
        disk,
    })
}

/// How often what was counted is recorded.
///
/// # Errors
/// It is out of its bounds.
pub fn interval(section: &Section) -> Result<Duration, String> {
    let interval = section.interval.unwrap_or(INTERVAL);
    let bounds = Duration::from_secs(1)..=Duration::from_secs(24 * 60 * 60);
    if bounds.contains(&interval) { Ok(interval) } else { Err("[audit] interval must be 1 s to 24 h".to_owned()) }
}

/// The syslog collector, where there is one.
///
/// # Errors
/// One line for the operator.
pub fn target(syslog: &Syslog) -> Result<Option<Target>, String> {
    let Some(address) = syslog.address.clone() else { return Ok(None) };
    let bad = |what: &str| format!("[audit.syslog] {what}");
    let host = match address.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0) => host.trim_matches(['[', ']']).to_owned(),
        _ => return Err(bad(&format!("address is {address:?}, but must be host:port"))),
    };
    let format = match syslog.format.as_deref().unwrap_or("json") {
        "json" => Format::Json,
        "text" => Format::Text,
        other => return Err(bad(&format!("format is {other:?}, but must be json or text"))),
    };
    let tls = match syslog.protocol.as_deref().unwrap_or("tls") {
        "tcp" => None,
        "tls" => {
            let name = ServerName::try_from(host).map_err(|_| bad("address has no host that a certificate could be for"))?;
            Some((Arc::new(client(syslog.ca.as_deref()).map_err(|why| bad(&why))?), name))
        }
        other => return Err(bad(&format!("protocol is {other:?}, but must be tcp or tls"))),
    };
    Ok(Some(Target { address, tls, format, version: env!("CARGO_PKG_VERSION").to_owned() }))
}

/// `keystead audit verify`: says what it has found, on standard output; the exit code is 0, 1 or 2.
pub fn verify(data_dir: &Path) -> ExitCode {
    let mut out = std::io::stdout().lock();
    let report = match chain::verify(&data_dir.join(FOLDER)) {
        Ok(report) => report,
        Err(why) => {
            eprintln!("keystead: {why}");
            return ExitCode::from(2);
        }
    };
    // A reader that has gone wants to know no more.
    let _ = writeln!(out, "records: {} in {} files", report.records, report.files);
    for (name, record) in [("first", report.first), ("last", report.last)] {
        if let Some((index, time)) = record {
            let _ = writeln!(out, "{name}: {index} at {time}");
        }
    }
    for note in &report.notes {
        let _ = writeln!(out, "note: {note}");
    }
    match &report.broken {
        None => {
            let _ = writeln!(out, "the chain is whole");
            ExitCode::SUCCESS
        }
        Some(broken) => {
            let _ = writeln!(out, "the chain is broken at {broken}");
            ExitCode::from(1)
        }
    }
}

/// TLS as FIPS mode has it, always: every collector of today speaks that.
pub(crate) fn client(ca: Option<&Path>) -> Result<rustls::ClientConfig, String> {
    let mut roots = rustls::RootCertStore::empty();
    match ca {
        Some(path) => {
            let text = std::fs::read(path).map_err(|error| format!("ca {} cannot be read: {error}", path.display()))?;
            for certificate in CertificateDer::pem_slice_iter(&text) {
                let certificate = certificate.map_err(|error| format!("ca {}: {error}", path.display()))?;
                roots.add(certificate).map_err(|error| format!("ca {}: {error}", path.display()))?;
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    if roots.is_empty() {
        return Err("there is no CA that could vouch for the collector: set ca".to_owned());
    }
    let config = rustls::ClientConfig::builder_with_provider(Arc::new(tls_provider(true)))
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("TLS cannot be set up: {error}"))?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn syslog(address: &str, protocol: &str, format: &str) -> Syslog {
        Syslog { address: Some(address.to_owned()), protocol: Some(protocol.to_owned()), ca: None, format: Some(format.to_owned()) }
    }

    #[test]
    fn a_collector_needs_an_address_that_can_be_one() {
        assert!(target(&Syslog::default()).unwrap().is_none());
        for good in ["collector.example:6514", "10.0.0.1:514", "[::1]:514"] {
            assert!(target(&syslog(good, "tcp", "text")).unwrap().is_some(), "{good}");
        }
        for (address, protocol, format) in
            [("collector", "tcp", "json"), (":514", "tcp", "json"), ("c:0", "tcp", "json"), ("c:1", "udp", "json"), ("c:1", "tcp", "xml")]
        {
            assert!(target(&syslog(address, protocol, format)).err().unwrap().starts_with("[audit.syslog] "), "{address} {protocol} {format}");
        }
    }
}

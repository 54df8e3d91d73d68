//! A client's side of one exchange, for `ekmip_reachability`: whether an EKMIP server answers this node, as an SVM.

use async_trait::async_trait;
use keystead_kmip::Tag;
use keystead_kmip::enumeration::{Operation, QueryFunction, ResultStatus};
use keystead_kmip::ttlv::{HEADER_BYTES, Node, Value, decode, encode};
use keystead_manager::EkmipProbe;
use keystead_manager::certificates::Created;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use secrecy::ExposeSecret as _;
use std::sync::Arc;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// The longest answer that a probe reads.
const MOST: usize = 64 * 1024;

/// Asks an EKMIP server what it can do: handshake, certificate, SVM, KMIP, all of the way.
#[derive(Debug, Clone, Copy, Default)]
pub struct Probe;

#[async_trait]
impl EkmipProbe for Probe {
    async fn probe(&self, address: &str, client: &Created, ca_certificate: &str, fips: bool) -> Result<(), String> {
        let connector = TlsConnector::from(Arc::new(config(client, ca_certificate, fips)?));
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host).trim_matches(['[', ']']).to_owned();
        let name = ServerName::try_from(host).map_err(|_| format!("{address} is no address"))?;
        let stream = TcpStream::connect(address).await.map_err(|error| format!("{address}: {error}"))?;
        let mut stream = connector.connect(name, stream).await.map_err(|error| format!("{address}: TLS: {error}"))?;
        let failed = |error: std::io::Error| format!("{address}: {error}");
        stream.write_all(&request()).await.map_err(failed)?;
        stream.flush().await.map_err(failed)?;
        let mut head = [0; HEADER_BYTES];
        stream.read_exact(&mut head).await.map_err(failed)?;
        let [.., l0, l1, l2, l3] = head;
        let length = usize::try_from(u32::from_be_bytes([l0, l1, l2, l3])).ok().filter(|length| *length <= MOST);
        let mut answer = head.to_vec();
        answer.resize(HEADER_BYTES + length.ok_or_else(|| format!("{address}: this is no KMIP server"))?, 0);
        stream.read_exact(answer.get_mut(HEADER_BYTES..).unwrap_or_default()).await.map_err(failed)?;
        let node = decode(&answer).map_err(|error| format!("{address}: {error}"))?;
        let status = node.find(Tag::BatchItem).and_then(|item| item.find(Tag::ResultStatus)).map(|status| &status.value);
        match status {
            Some(Value::Enumeration(status)) if *status == ResultStatus::Success as u32 => Ok(()),
            _ => Err(format!("{address}: the KMIP server has refused a Query")),
        }
    }
}

fn request() -> Vec<u8> {
    let version = Node::structure(Tag::ProtocolVersion, vec![Node::integer(Tag::ProtocolVersionMajor, 1), Node::integer(Tag::ProtocolVersionMinor, 4)]);
    let header = Node::structure(Tag::RequestHeader, vec![version, Node::integer(Tag::BatchCount, 1)]);
    let payload = Node::structure(Tag::RequestPayload, vec![Node::enumeration(Tag::QueryFunction, QueryFunction::QueryOperations)]);
    let item = Node::structure(Tag::BatchItem, vec![Node::enumeration(Tag::Operation, Operation::Query), payload]);
    let mut out = Vec::new();
    encode(&Node::structure(Tag::RequestMessage, vec![header, item]), &mut out);
    out
}

fn config(client: &Created, ca_certificate: &str, fips: bool) -> Result<ClientConfig, String> {
    let unusable = |error: &dyn std::fmt::Display| format!("this node's own certificate cannot be used: {error}");
    let mut roots = RootCertStore::empty();
    for ca in CertificateDer::pem_slice_iter(ca_certificate.as_bytes()) {
        roots.add(ca.map_err(|error| unusable(&error))?).map_err(|error| unusable(&error))?;
    }
    let key = PrivateKeyDer::from_pem_slice(client.private_key_pem.expose_secret().as_bytes()).map_err(|error| unusable(&error))?;
    let mut config = ClientConfig::builder_with_provider(Arc::new(keystead_manager::fips::tls_provider(fips)))
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable(&error))?
        .with_root_certificates(roots)
        .with_client_auth_cert(vec![CertificateDer::from(client.certificate_der.clone())], key)
        .map_err(|error| unusable(&error))?;
    config.require_ems = fips;
    Ok(config)
}

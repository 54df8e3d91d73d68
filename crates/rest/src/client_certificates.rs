//! Logins with TLS client certificates.
//!
//! A certificate is optional. Where one is shown, a CA that vouches now must have signed it, or the handshake fails. Which account it stands for is found out at each request, from the CAs and accounts
//! of that moment: what is taken away is gone on open connections too. A connection keeps what was found only as long as nothing has changed that it stands on.

use keystead_manager::Manager;
use keystead_manager::login_cas::LoginCas;
use keystead_manager::model::Principal;
use keystead_manager::x509::Facts;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, RootCertStore, SignatureScheme};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use uuid::Uuid;

/// How many certificates a client may send.
const MOST_CERTIFICATES: usize = 6;
/// How many bytes they may have: they are kept as long as the connection.
const MOST_BYTES: usize = 16 * 1024;
/// URIs that mean something to the cluster itself; certificates with one are those of EKMIP, and log nobody in.
const OWN_URIS: &str = "urn:keystead:";

/// Who vouches for certificates.
pub struct Vouchers {
    manager: Manager,
    known: Mutex<Option<(u64, Arc<Table>)>>,
}

/// Who vouches at a moment.
struct Table {
    cas: LoginCas,
    cluster: Option<Arc<dyn ClientCertVerifier>>,
    /// Each SVM's for itself: a verifier gives up after so many signatures, and one SVM's CAs must not use up what is there for the others.
    svms: Vec<(Uuid, Arc<dyn ClientCertVerifier>)>,
}

/// The certificate that a connection has shown.
pub struct Certificate {
    /// The certificate, then those above it that the client sent.
    chain: Vec<CertificateDer<'static>>,
    facts: Option<Facts>,
    /// When the first of the chain ends, seconds since 1970.
    ends: i64,
    /// Whether FIPS mode has something against one of the chain.
    weak: bool,
    found: Mutex<Option<Found>>,
}

/// Who was found to vouch.
#[derive(Clone)]
struct Found {
    by: Arc<Table>,
    cluster: bool,
    svms: Arc<Vec<Uuid>>,
}

impl Vouchers {
    /// Follows what the manager knows.
    pub fn new(manager: Manager) -> Arc<Self> {
        Arc::new(Self { manager, known: Mutex::default() })
    }

    /// Checks certificates in handshakes; signatures as the provider allows them.
    pub fn verifier(self: &Arc<Self>, provider: Arc<CryptoProvider>) -> Arc<dyn ClientCertVerifier> {
        Arc::new(Verifier { vouchers: Arc::clone(self), provider })
    }

    fn table(&self) -> Arc<Table> {
        // Looked at before the records, and so never newer than they are.
        let revision = self.manager.revision();
        let now = self.manager.now();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let in_time = |table: &Table| table.cas.until.is_none_or(|until| now < until);
        let before = match &*known {
            Some((at, table)) if *at == revision && in_time(table) => return Arc::clone(table),
            Some((_, table)) => Some(Arc::clone(table)),
            None => None,
        };
        let cas = self.manager.login_cas().unwrap_or_else(|error| {
            tracing::error!(detail = error.detail.as_deref(), "certificates log nobody in");
            LoginCas::default()
        });
        let table = before.filter(|table| table.cas == cas).unwrap_or_else(|| Arc::new(Table::new(cas)));
        *known = Some((revision, Arc::clone(&table)));
        table
    }
}

impl Table {
    fn new(cas: LoginCas) -> Self {
        let svms = cas.svms.iter().filter_map(|(svm, cas)| Some((*svm, verifier(cas)?))).collect();
        Self { cluster: verifier(&cas.cluster), svms, cas }
    }

    fn is_empty(&self) -> bool {
        self.cluster.is_none() && self.svms.is_empty()
    }
}

impl Certificate {
    /// What a client has shown, if anything.
    pub fn of(chain: Option<&[CertificateDer<'_>]>) -> Option<Self> {
        let chain: Vec<CertificateDer<'static>> = chain?.iter().map(|certificate| certificate.clone().into_owned()).collect();
        let read: Vec<Option<Facts>> = chain.iter().map(|der| Facts::of_der(der).ok()).collect();
        // What cannot be read has ended long ago.
        let ends = read.iter().map(|facts| facts.as_ref().map_or(0, |facts| facts.expiry.as_second())).min()?;
        let weak = read.iter().flatten().any(|facts| facts.weakness().is_some());
        Some(Self { facts: read.into_iter().next().flatten(), chain, ends, weak, found: Mutex::default() })
    }

    /// The account that it stands for now.
    pub fn login(&self, vouchers: &Vouchers) -> Option<Principal> {
        let facts = self.facts.as_ref().filter(|facts| !facts.uris.iter().any(|uri| is_own(uri)))?;
        let now = vouchers.manager.now().as_second();
        if now >= self.ends || (self.weak && vouchers.manager.fips()) {
            return None;
        }
        let found = self.found(vouchers.table(), now);
        vouchers.manager.certificate_login(&facts.common_name, found.cluster, &found.svms)
    }

    fn found(&self, table: Arc<Table>, now: i64) -> Found {
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        match &*found {
            Some(known) if Arc::ptr_eq(&known.by, &table) => known.clone(),
            _ => {
                let now = UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(now).unwrap_or_default()));
                let vouches = |verifier: &Arc<dyn ClientCertVerifier>| {
                    self.chain.split_first().is_some_and(|(leaf, rest)| verifier.verify_client_cert(leaf, rest, now).is_ok())
                };
                let svms = table.svms.iter().filter(|(_, verifier)| vouches(verifier)).map(|(svm, _)| *svm).collect();
                let new = Found { cluster: table.cluster.as_ref().is_some_and(vouches), svms: Arc::new(svms), by: table };
                *found = Some(new.clone());
                new
            }
        }
    }
}

/// Checks certificates in handshakes, against the CAs of the moment.
struct Verifier {
    vouchers: Arc<Vouchers>,
    provider: Arc<CryptoProvider>,
}

impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Verifier")
    }
}

impl ClientCertVerifier for Verifier {
    fn offer_client_auth(&self) -> bool {
        // Where nobody vouches, nobody is asked: browsers would ask their users.
        !self.vouchers.table().is_empty()
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // The list changes while the server runs.
        &[]
    }

    fn verify_client_cert(&self, leaf: &CertificateDer<'_>, rest: &[CertificateDer<'_>], now: UnixTime) -> Result<ClientCertVerified, rustls::Error> {
        let bytes = rest.iter().map(|certificate| certificate.len()).sum::<usize>() + leaf.len();
        if rest.len() >= MOST_CERTIFICATES || bytes > MOST_BYTES {
            return Err(CertificateError::ApplicationVerificationFailure.into());
        }
        let table = self.vouchers.table();
        let mut refused = rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer);
        for verifier in table.cluster.iter().chain(table.svms.iter().map(|(_, verifier)| verifier)) {
            match verifier.verify_client_cert(leaf, rest, now) {
                Ok(verified) => return Ok(verified),
                Err(error) => refused = error,
            }
        }
        Err(refused)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

fn verifier(cas: &[Vec<u8>]) -> Option<Arc<dyn ClientCertVerifier>> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(cas.iter().cloned().map(CertificateDer::from));
    if roots.is_empty() {
        return None;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
    verifier.inspect_err(|error| tracing::error!(%error, "a client CA cannot be used")).ok()
}

fn is_own(uri: &str) -> bool {
    uri.trim_start().get(..OWN_URIS.len()).is_some_and(|start| start.eq_ignore_ascii_case(OWN_URIS))
}

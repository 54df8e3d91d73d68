//! Who connects: from the client's certificate to the SVM that it speaks for.
//!
//! Certificates of the cluster's CA are known one by one: the record says for which SVM, and whether it was revoked. Those of an SVM's own CA speak for that SVM, whoever they name. The table
//! follows the store; open sessions look at it again whenever it changes, and before each request at the certificate's end.

use keystead_manager::clients::{ClientTable, PROBE_URI, fingerprint};
use keystead_manager::{Error, Manager};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, RootCertStore};
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// How long the table stands at most before it is made anew.
const LOOK_AGAIN: Duration = Duration::from_secs(30);
/// How many certificates a client may send.
const MOST_CERTIFICATES: usize = 6;
/// How many bytes they may have: they are kept as long as the connection.
const MOST_BYTES: usize = 16 * 1024;

/// Who may connect now.
pub struct Identities {
    table: ClientTable,
    /// The cluster's CA; `None` where it is unusable.
    cluster: Option<Arc<dyn ClientCertVerifier>>,
    /// One verifier an SVM with CAs of its own. Each for itself: a verifier gives up after so many signatures, and one SVM's CAs must not use up what is there for the others.
    own: Vec<(Uuid, Arc<dyn ClientCertVerifier>)>,
}

/// A client that was recognized.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    /// The SVM that it speaks for.
    pub svm: Uuid,
    /// SHA-256 of its certificate.
    pub fingerprint: [u8; 32],
    /// Whether it is a node's own probe.
    pub probe: bool,
    /// When one of the chain's certificates ends, seconds since 1970: then it must be looked at again.
    pub look_again_at: i64,
    /// The certificate, then those above it that the client sent.
    chain: Arc<Vec<CertificateDer<'static>>>,
}

/// Why a certificate is refused. For the log: the client only sees the connection end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// It is not in the list of clients: its record was deleted, or it was issued for something else.
    Unknown,
    /// It was revoked.
    Revoked,
    /// It has expired.
    Expired,
    /// No CA that counts has signed it.
    NotSigned,
    /// CAs of two SVMs vouch for it.
    TwoSvms,
    /// Its SVM does not exist.
    NoSvm,
    /// It cannot be read.
    Unreadable,
}

impl Client {
    /// A certificate of which nothing is known yet.
    fn unknown(chain: Arc<Vec<CertificateDer<'static>>>) -> Result<Self, Refusal> {
        let leaf = chain.first().ok_or(Refusal::Unreadable)?;
        Ok(Self { svm: Uuid::nil(), fingerprint: fingerprint(leaf), probe: false, look_again_at: 0, chain })
    }

    /// The subject's common name, and the serial number in hexadecimal digits; empty where the certificate cannot be read.
    pub fn names(&self) -> (String, String) {
        let Some((_, certificate)) = self.chain.first().and_then(|leaf| X509Certificate::from_der(leaf).ok()) else { return Default::default() };
        let common_name = certificate.subject().iter_common_name().next().and_then(|name| name.as_str().ok()).unwrap_or_default().to_owned();
        (common_name, keystead_audit::chain::hex(certificate.raw_serial()))
    }
}

impl Identities {
    fn new(table: ClientTable) -> Self {
        let cluster = verifier(table.cluster_cas.clone());
        let svms: HashSet<Uuid> = table.cas.iter().map(|(svm, _)| *svm).collect();
        let own = svms.into_iter().filter_map(|svm| {
            let cas = table.cas.iter().filter(|(owner, _)| *owner == svm).map(|(_, ca)| ca.clone());
            Some((svm, verifier(cas)?))
        });
        let own = own.collect();
        Self { table, cluster, own }
    }

    /// What the handshake checks: that a CA that counts has signed the certificate, and that it was not revoked. For whom it speaks is found out afterwards.
    ///
    /// # Errors
    /// What the last verifier says.
    pub fn admit(&self, leaf: &CertificateDer<'_>, rest: &[CertificateDer<'_>], now: UnixTime) -> Result<ClientCertVerified, rustls::Error> {
        let bytes = rest.iter().map(|certificate| certificate.len()).sum::<usize>() + leaf.len();
        if rest.len() >= MOST_CERTIFICATES || bytes > MOST_BYTES {
            return Err(CertificateError::ApplicationVerificationFailure.into());
        }
        if self.table.clients.get(&fingerprint(leaf)).is_some_and(|known| known.revoked) {
            return Err(CertificateError::Revoked.into());
        }
        let mut refused = rustls::Error::General("no client CA can be used".to_owned());
        for verifier in self.cluster.iter().chain(self.own.iter().map(|(_, verifier)| verifier)) {
            match verifier.verify_client_cert(leaf, rest, now) {
                Ok(verified) => return Ok(verified),
                Err(error) => refused = error,
            }
        }
        Err(refused)
    }

    /// Recognizes a client after the handshake.
    ///
    /// # Errors
    /// [`Refusal`], with the certificate, where there is one.
    pub fn recognize(&self, chain: &[CertificateDer<'_>], now: i64) -> Result<Client, (Refusal, Option<Client>)> {
        let chain: Arc<Vec<_>> = Arc::new(chain.iter().map(|certificate| certificate.clone().into_owned()).collect());
        let client = Client::unknown(chain).map_err(|why| (why, None))?;
        self.look(&client, now).map_err(|why| (why, Some(client)))
    }

    /// Looks at a client again: its certificate may have been revoked, or have ended.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn check(&self, client: &Client, now: i64) -> Result<Client, Refusal> {
        let again = self.look(client, now)?;
        if again.svm == client.svm { Ok(again) } else { Err(Refusal::Unknown) }
    }

    /// The name of an SVM, for the log.
    pub fn svm_name(&self, svm: Uuid) -> &str {
        self.table.svms.get(&svm).map_or("", String::as_str)
    }

    fn look(&self, client: &Client, now: i64) -> Result<Client, Refusal> {
        let leaf = client.chain.first().ok_or(Refusal::Unreadable)?;
        let (_, certificate) = X509Certificate::from_der(leaf).map_err(|_| Refusal::Unreadable)?;
        if certificate.validity().not_after.timestamp() <= now {
            return Err(Refusal::Expired);
        }
        let probe = probe_of(&certificate);
        let svm = self.svm(client, probe, now)?;
        let probe = probe.is_some() && !self.table.clients.contains_key(&client.fingerprint);
        let ends = client.chain.iter().filter_map(|der| X509Certificate::from_der(der).ok()).map(|(_, one)| one.validity().not_after.timestamp());
        Ok(Client { svm, probe, look_again_at: ends.filter(|end| *end > now).min().unwrap_or(now), ..client.clone() })
    }

    fn svm(&self, client: &Client, probe: Option<Uuid>, now: i64) -> Result<Uuid, Refusal> {
        let owners: Vec<Uuid> = match self.table.clients.get(&client.fingerprint) {
            Some(known) if known.revoked => return Err(Refusal::Revoked),
            // The cluster's CA has signed exactly these bytes: that is what the fingerprint in its list says. Nobody else's CA can take that away.
            Some(known) => vec![known.svm],
            None if self.cluster.as_ref().is_some_and(|verifier| vouches(&**verifier, &client.chain, now)) => vec![probe.ok_or(Refusal::Unknown)?],
            None => self.own.iter().filter(|(_, verifier)| vouches(&**verifier, &client.chain, now)).map(|(svm, _)| *svm).collect(),
        };
        match owners.as_slice() {
            [] => Err(Refusal::NotSigned),
            [svm] if self.table.svms.contains_key(svm) => Ok(*svm),
            [_] => Err(Refusal::NoSvm),
            _ => Err(Refusal::TwoSvms),
        }
    }
}

/// Follows the store. Ends when the manager stops.
pub fn follow(manager: &Manager, stop: CancellationToken) -> Result<watch::Receiver<Arc<Identities>>, Error> {
    let (sender, receiver) = watch::channel(Arc::new(Identities::new(manager.ekmip_client_table()?)));
    let mut changes = manager.changes();
    let manager = manager.clone();
    tokio::spawn(async move {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                changed = changes.changed() => if changed.is_err() { return },
                // CAs end by themselves.
                () = tokio::time::sleep(LOOK_AGAIN) => {}
            }
            match manager.ekmip_client_table() {
                Ok(table) if table == sender.borrow().table => {}
                Ok(table) => drop(sender.send_replace(Arc::new(Identities::new(table)))),
                Err(error) => tracing::error!(%error, detail = error.detail.as_deref(), "the list of EKMIP clients cannot be read; the last one counts"),
            }
        }
    });
    Ok(receiver)
}

fn verifier(cas: impl IntoIterator<Item = Vec<u8>>) -> Option<Arc<dyn ClientCertVerifier>> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(cas.into_iter().map(CertificateDer::from));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .inspect_err(|error| tracing::error!(%error, "a client CA cannot be used"))
        .ok()
}

fn vouches(verifier: &dyn ClientCertVerifier, chain: &[CertificateDer<'_>], now: i64) -> bool {
    let now = UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(now).unwrap_or_default()));
    chain.split_first().is_some_and(|(leaf, rest)| verifier.verify_client_cert(leaf, rest, now).is_ok())
}

/// The SVM that a node's own probe speaks for.
fn probe_of(certificate: &X509Certificate<'_>) -> Option<Uuid> {
    let names = certificate.subject_alternative_name().ok().flatten()?;
    names.value.general_names.iter().find_map(|name| match name {
        GeneralName::URI(uri) => uri.strip_prefix(PROBE_URI)?.parse().ok(),
        _ => None,
    })
}

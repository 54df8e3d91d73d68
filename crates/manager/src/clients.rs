//! EKMIP clients: which certificate speaks for which SVM.
//!
//! The cluster's CA issues client certificates, each recorded with its SVM; an SVM can also bring a CA of its own, and then all certificates of that CA speak for it. Who connects is decided by
//! the EKMIP server, from the [`ClientTable`].

use crate::aws_kms::select_svm;
use crate::certificates::{CertificateError, CertificateRequest, Created, create};
use crate::events::Message;
use crate::events::catalogue::{CLIENT_EXPIRING, SECURITY_CERTIFICATE_EXPIRING};
use crate::inner::{Inner, may_change};
use crate::model::{EkmipClient, EkmipClientCa, NewEkmipClient, Principal, SvmKind, SvmRef, SvmSelector};
use crate::records::{AuthorityRecord, CertificateRecord, EkmipClientCaRecord, EkmipClientRecord, Record, Stored, SvmRecord, certificate_name_key, key};
use crate::{Code, Error, Manager, Result};
use aws_lc_rs::digest;
use jiff::{SignedDuration, Timestamp};
use keystead_store::{Compare, Range, Revision, Txn};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// How long a client certificate is valid when nothing is said.
const VALIDITY: &str = "P365DT";
/// A client whose certificate ends within this time is warned about.
const EXPIRING: SignedDuration = SignedDuration::from_hours(30 * 24);
/// How near the end of a certificate is when it is told.
pub(crate) const STAGES: [SignedDuration; 4] = [EXPIRING, SignedDuration::from_hours(7 * 24), SignedDuration::from_hours(24), SignedDuration::ZERO];
/// How often certificates are looked through.
const LOOK: Duration = Duration::from_secs(60 * 60);
/// How many certificates of an SVM can be valid at a time; and how many it can have in all, with those that were revoked and have not ended yet.
const MOST_VALID: usize = 1_000;
const MOST: usize = 10_000;
/// How many CAs of its own an SVM can have.
const MOST_CAS: usize = 16;
/// How long a certificate that has ended stays in the list.
const KEPT: SignedDuration = SignedDuration::from_hours(30 * 24);
/// Every installation of a CA changes this record, so that two of them look at each other's.
const CAS_CHANGED: &str = "/ekmip-client-cas-changed";
/// What the URI of a probe's certificate starts with; the SVM's identifier follows.
pub const PROBE_URI: &str = "urn:keystead:ekmip-probe:";

/// Who may connect, as the store says now.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ClientTable {
    /// The cluster's CA, DER; while it is being replaced, the other one as well.
    pub cluster_cas: Vec<Vec<u8>>,
    /// By the SHA-256 of the certificate.
    pub clients: HashMap<[u8; 32], ClientEntry>,
    /// CAs of SVMs, DER.
    pub cas: Vec<(Uuid, Vec<u8>)>,
    /// SVMs that exist.
    pub svms: HashMap<Uuid, String>,
}

/// A client of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientEntry {
    /// The SVM.
    pub svm: Uuid,
    /// Whether it was revoked.
    pub revoked: bool,
}

impl Manager {
    /// All clients, by uuid.
    pub fn ekmip_clients(&self) -> Vec<EkmipClient> {
        let inner = self.inner();
        let mut clients: Vec<EkmipClient> = inner.view.all::<EkmipClientRecord>().into_iter().map(|client| shown(inner, client.record)).collect();
        clients.sort_by_key(|client| client.uuid);
        clients
    }

    /// Issues a certificate. With a `csr` (PEM) its public key is certified, else a key is made, which is given out here and nowhere else.
    ///
    /// # Errors
    /// The SVM (2621462, 2621706); 6; 65537908 for the admin SVM; 262247 for a `csr`, `common_name` or `expiry_time` that cannot be used; 7 where the SVM has too many.
    pub async fn create_ekmip_client(
        &self,
        who: &Principal,
        svm: &SvmSelector,
        common_name: &str,
        csr: Option<String>,
        expiry_time: Option<String>,
    ) -> Result<NewEkmipClient> {
        let inner = self.inner();
        let svm = data_svm(inner, who, svm)?;
        let now = inner.clock.utc();
        let existing: Vec<_> = inner.view.all::<EkmipClientRecord>().into_iter().filter(|client| client.record.svm == svm.record.uuid).collect();
        let valid = existing.iter().filter(|client| client.record.revoked.is_none() && client.record.expiry > now).count();
        if valid >= MOST_VALID || existing.len() >= MOST {
            let message = format!(
                "the SVM {} has {valid} EKMIP clients that are valid, and {} with those that are revoked or have ended",
                svm.record.name,
                existing.len()
            );
            return Err(Error::with(Code::LimitReached, message));
        }
        let uuid = inner.random.uuid();
        let brings_key = csr.is_some();
        let uri = format!("urn:keystead:ekmip-client:{uuid}");
        let created = issue(inner, common_name, uri, csr, expiry_time.as_deref().unwrap_or(VALIDITY))?;
        let record = EkmipClientRecord {
            uuid,
            svm: svm.record.uuid,
            common_name: common_name.to_owned(),
            serial_number: created.serial_number.clone(),
            fingerprint: hex(&fingerprint(&created.certificate_der)),
            expiry: created.expiry,
            revoked: None,
        };
        let key = key::<EkmipClientRecord>(uuid);
        let txn = Txn::new().when(Compare::Present(svm.key)).when(Compare::Absent(key.clone())).put(key, record.encode()?);
        inner.commit(txn, |_| Error::with(Code::SvmNotFound, "it was deleted at this moment").target("svm")).await?;
        Ok(NewEkmipClient {
            client: shown(inner, record),
            certificate: created.certificate_pem,
            ca_certificate: self.ca_certificate()?,
            private_key: (!brings_key).then_some(created.private_key_pem),
        })
    }

    /// Revokes a certificate. Its open connections end within a second. It stays in the list, as revoked.
    ///
    /// # Errors
    /// 4; 6.
    pub async fn revoke_ekmip_client(&self, who: &Principal, uuid: Uuid) -> Result<()> {
        let inner = self.inner();
        let client = inner.view.get::<EkmipClientRecord>(uuid)?.ok_or_else(|| Error::new(Code::NotFound).target("uuid"))?;
        may_change(who, Some(client.record.svm))?;
        if client.record.revoked.is_some() {
            return Ok(());
        }
        let record = EkmipClientRecord { revoked: Some(inner.clock.utc()), ..client.record };
        let txn = Txn::new().when(Compare::Unchanged(client.key.clone(), client.revision)).put(client.key, record.encode()?);
        inner.commit(txn, |_| Error::with(Code::InUse, "the client was changed at this moment; look again")).await
    }

    /// All CAs of SVMs, by uuid.
    pub fn ekmip_client_cas(&self) -> Vec<EkmipClientCa> {
        let inner = self.inner();
        let mut cas: Vec<EkmipClientCa> = inner.view.all::<EkmipClientCaRecord>().into_iter().map(|ca| shown_ca(inner, ca.record)).collect();
        cas.sort_by_key(|ca| ca.uuid);
        cas
    }

    /// Installs a CA of the SVM's own: from now on its certificates speak for that SVM. For the cluster's administrator alone: nobody proves that a CA is its own, and certificates of CAs are public.
    ///
    /// # Errors
    /// The SVM; 6; 65537908; 262247 where it is no CA certificate in PEM, or expired; 1 where this CA, or one above or below it, speaks for another SVM already, since a certificate must not
    /// speak for two; 7 where the SVM has too many.
    pub async fn install_ekmip_client_ca(&self, who: &Principal, svm: &SvmSelector, certificate: &str) -> Result<EkmipClientCa> {
        let inner = self.inner();
        let svm = data_svm(inner, who, svm)?;
        may_change(who, None)?;
        let wrong = |why: &str| Error::with(Code::InvalidValue, why).target("certificate");
        let (der, facts, kept) = crate::x509::alone(certificate).map_err(|why| wrong(&why))?;
        let (_, parsed) = X509Certificate::from_der(&der).map_err(|_| wrong("the certificate cannot be read"))?;
        if !parsed.is_ca() {
            return Err(wrong("the certificate is not one of a CA"));
        }
        let expiry = Timestamp::from_second(parsed.validity().not_after.timestamp()).map_err(|_| wrong("its end cannot be read"))?;
        if expiry <= inner.clock.utc() {
            return Err(wrong("the certificate has expired"));
        }
        let changed = inner.store.get(CAS_CHANGED).await.map_err(Error::from)?;
        if let Some(weak) = facts.weakness().filter(|_| inner.settings().fips) {
            return Err(crate::security_certificates::refused(&weak).target("certificate"));
        }
        self.refuse_ca_of_others(svm.record.uuid, &parsed).await?;
        let record = EkmipClientCaRecord {
            uuid: inner.random.uuid(),
            svm: svm.record.uuid,
            certificate: kept,
            subject: parsed.subject().to_string(),
            fingerprint: hex(&fingerprint(&der)),
            expiry,
        };
        let alone = match changed {
            None => Compare::Absent(CAS_CHANGED.to_owned()),
            Some(entry) => Compare::Unchanged(CAS_CHANGED.to_owned(), entry.revision),
        };
        let txn = Txn::new().when(Compare::Present(svm.key)).when(alone).put(CAS_CHANGED, Vec::new());
        let txn = txn.put(key::<EkmipClientCaRecord>(record.uuid), record.encode()?);
        inner.commit(txn, |_| Error::with(Code::InUse, "another CA was installed at this moment, or the SVM was deleted; look again").target("svm")).await?;
        Ok(shown_ca(inner, record))
    }

    /// Names make the path from a certificate to a CA, so a CA speaks for one SVM alone where no other SVM's CA has its name, or that of its issuer. Read from the store itself: another node may have
    /// installed one a moment ago.
    async fn refuse_ca_of_others(&self, svm: Uuid, ca: &X509Certificate<'_>) -> Result<()> {
        let inner = self.inner();
        let installed = inner.store.range(Range::prefix(EkmipClientCaRecord::PREFIX, MOST)).await.map_err(Error::from)?;
        let installed = installed.entries.iter().map(Stored::<EkmipClientCaRecord>::decode).collect::<Result<Vec<_>>>()?;
        if installed.iter().filter(|other| other.record.svm == svm).count() >= MOST_CAS {
            return Err(Error::with(Code::LimitReached, format!("an SVM can have {MOST_CAS} client CAs")));
        }
        let cluster = inner.view.only::<AuthorityRecord>()?.record;
        let others = installed.into_iter().filter(|other| other.record.svm != svm).map(|other| other.record.certificate).chain(cluster.trusted().cloned());
        for pem in others {
            let der = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(Error::unexpected)?;
            let (_, other) = X509Certificate::from_der(&der).map_err(Error::unexpected)?;
            let name = |name: &x509_parser::x509::X509Name<'_>| name.as_raw().to_vec();
            let (subject, issuer) = (name(ca.subject()), name(ca.issuer()));
            if [name(other.subject()), name(other.issuer())].contains(&subject) || issuer == name(other.subject()) {
                let message = "this CA, or one above or below it, speaks for another SVM or for the cluster already; a certificate must not speak for two SVMs";
                return Err(Error::with(Code::Duplicate, message).target("certificate"));
            }
        }
        Ok(())
    }

    /// Takes a CA of an SVM away: connections with its certificates end within a second.
    ///
    /// # Errors
    /// 4; 6.
    pub async fn delete_ekmip_client_ca(&self, who: &Principal, uuid: Uuid) -> Result<()> {
        let inner = self.inner();
        let ca = inner.view.get::<EkmipClientCaRecord>(uuid)?.ok_or_else(|| Error::new(Code::NotFound).target("uuid"))?;
        may_change(who, Some(ca.record.svm))?;
        let txn = Txn::new().when(Compare::Unchanged(ca.key.clone(), ca.revision)).delete(ca.key);
        inner.commit(txn, |_| Error::with(Code::InUse, "the CA was changed at this moment; look again")).await
    }

    /// Who may connect now.
    ///
    /// # Errors
    /// The CA's record is damaged.
    pub fn ekmip_client_table(&self) -> Result<ClientTable> {
        let inner = self.inner();
        let der = |pem: &str| CertificateDer::from_pem_slice(pem.as_bytes()).map(|der| der.to_vec()).map_err(Error::unexpected);
        let cluster = inner.view.only::<AuthorityRecord>()?.record;
        let cluster_cas = cluster.trusted().map(|pem| der(pem)).collect::<Result<Vec<_>>>()?;
        let mut table = ClientTable { cluster_cas, ..ClientTable::default() };
        for client in inner.view.all::<EkmipClientRecord>() {
            if let Some(fingerprint) = unhex(&client.record.fingerprint) {
                table.clients.insert(fingerprint, ClientEntry { svm: client.record.svm, revoked: client.record.revoked.is_some() });
            }
        }
        let now = inner.clock.utc();
        for ca in inner.view.all::<EkmipClientCaRecord>().into_iter().filter(|ca| ca.record.expiry > now) {
            table.cas.push((ca.record.svm, der(&ca.record.certificate)?));
        }
        table.svms = self.svms().into_iter().map(|svm| (svm.uuid, svm.name)).collect();
        Ok(table)
    }

    /// Signals changes of records, and so, perhaps, of the [`ClientTable`].
    pub fn changes(&self) -> watch::Receiver<Revision> {
        self.inner().view.changes()
    }
}

impl Inner {
    /// A certificate with which this node itself can speak for an SVM, to see whether EKMIP servers answer. Valid for ten minutes.
    ///
    /// # Errors
    /// The CA's record is damaged.
    pub(crate) fn probe_certificate(&self, svm: Uuid) -> Result<Created> {
        issue(self, &format!("probe of {}", self.node.name), format!("{PROBE_URI}{svm}"), None, "PT10M")
    }
}

/// SHA-256 of a certificate.
pub fn fingerprint(der: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    for (to, from) in out.iter_mut().zip(digest::digest(&digest::SHA256, der).as_ref()) {
        *to = *from;
    }
    out
}

/// Raises events for certificates that end soon, at the start and every hour.
pub(crate) async fn watch_expiry(inner: Arc<Inner>, stop: CancellationToken) {
    let mut seen = None;
    loop {
        tell_expiring(&inner, &mut seen);
        let next = inner.clock.monotonic() + LOOK;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = clean_up(&inner) => {}
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = inner.clock.sleep_until(next) => break,
                () = inner.left_behind.notified() => {}
            }
        }
    }
}

/// Raises one event for each certificate that has come nearer to its end than one of the [`STAGES`] since the last look. `seen` are those that were there at the last look of this process.
fn tell_expiring(inner: &Inner, seen: &mut Option<HashSet<Uuid>>) {
    let now = inner.clock.utc();
    let before = inner.events.looked(now);
    let known = seen.take();
    let seen = seen.insert(HashSet::new());
    let mut tell = |message: &'static Message, kind: &str, uuid: Uuid, svm: Option<SvmRef>, name: String, expiry: Timestamp| {
        seen.insert(uuid);
        // One that has come since the last look may have come with a short life.
        let since = before.filter(|_| known.as_ref().is_none_or(|known| known.contains(&uuid)));
        if let Some(stage) = stage_passed(expiry, since, now) {
            let what = if stage.is_zero() { "has ended" } else { "ends soon" };
            let reason = format!("{kind} {name} ({uuid}) {what}: {expiry}");
            let parameters = vec![("reason", reason), ("kind", kind.to_owned()), ("uuid", uuid.to_string()), ("name", name), ("expiry", expiry.to_string())];
            inner.raise(message, svm.as_ref(), parameters);
        }
    };
    for client in inner.view.all::<EkmipClientRecord>().into_iter().filter(|client| client.record.revoked.is_none()) {
        let client = shown(inner, client.record);
        tell(&CLIENT_EXPIRING, "certificate", client.uuid, Some(client.svm), client.common_name, client.expiry);
    }
    for ca in inner.view.all::<EkmipClientCaRecord>() {
        let ca = shown_ca(inner, ca.record);
        tell(&CLIENT_EXPIRING, "client CA", ca.uuid, Some(ca.svm), ca.subject, ca.expiry);
    }
    let cluster = crate::security_certificates::own(inner).into_iter().filter(|own| own.own == Some(crate::security_certificates::CLUSTER_CA));
    for certificate in crate::security_certificates::stored(inner).into_iter().chain(cluster) {
        tell(&SECURITY_CERTIFICATE_EXPIRING, &certificate.kind, certificate.uuid, certificate.svm, certificate.name, certificate.facts.expiry);
    }
}

/// The last of the [`STAGES`] whose moment lies after `since` and not after `now`.
fn stage_passed(expiry: Timestamp, since: Option<Timestamp>, now: Timestamp) -> Option<SignedDuration> {
    let passed = |stage: &SignedDuration| expiry.duration_since(now) <= *stage && since.is_none_or(|since| expiry.duration_since(since) > *stage);
    STAGES.into_iter().rfind(passed)
}

/// Deletes what speaks for nobody any more: certificates that ended long ago, and what a deleted SVM has left.
async fn clean_up(inner: &Inner) {
    let now = inner.clock.utc();
    let gone = |svm| inner.svm(svm).is_err_and(|error| error.code == Code::NotFound);
    let clients = inner.view.all::<EkmipClientRecord>().into_iter();
    let clients =
        clients.filter(|client| now.duration_since(client.record.expiry) > KEPT || gone(client.record.svm)).map(|client| (client.key, client.revision));
    let cas = inner.view.all::<EkmipClientCaRecord>().into_iter().filter(|ca| gone(ca.record.svm)).map(|ca| (ca.key, ca.revision));
    let certificates = inner.view.all::<CertificateRecord>().into_iter().filter(|certificate| certificate.record.svm.is_some_and(gone));
    let certificates = certificates.map(|stored| (certificate_name_key(stored.record.svm, &stored.record.name), stored.key, stored.revision));
    for (name, key, revision) in clients.chain(cas).map(|(key, revision)| (key.clone(), key, revision)).chain(certificates) {
        let txn = Txn::new().when(Compare::Unchanged(key.clone(), revision)).delete(key.clone());
        let txn = if name == key { txn } else { txn.delete(name) };
        if let Err(error) = inner.store.transact(txn).await {
            tracing::debug!(%error, "an old record of an EKMIP client could not be deleted; it is tried again");
            return;
        }
    }
}

pub(crate) fn issue(inner: &Inner, common_name: &str, uri: String, csr: Option<String>, expiry_time: &str) -> Result<Created> {
    let request = CertificateRequest {
        kind: "client".to_owned(),
        common_name: common_name.to_owned(),
        key_type: "ec".to_owned(),
        key_size: 256,
        expiry_time: expiry_time.to_owned(),
        uris: vec![uri],
        csr,
        ..CertificateRequest::default()
    };
    let refused = |error: CertificateError| match crate::security_certificates::refused(&error) {
        error if error.target.as_deref() == Some("key_size") => error.target("csr"),
        error => error,
    };
    let checked = request.check(inner.settings().fips).map_err(refused)?;
    create(&checked, Some(&crate::cluster::authority(inner)?), inner.clock.utc()).map_err(refused)
}

fn data_svm(inner: &Inner, who: &Principal, svm: &SvmSelector) -> Result<Stored<SvmRecord>> {
    let svm = select_svm(inner, who, svm)?;
    may_change(who, Some(svm.record.uuid))?;
    if svm.record.kind == SvmKind::Admin && inner.onboard()?.is_none() {
        return Err(Error::with(Code::AdminSvm, "its keys are kept by the onboard key manager, which the cluster does not have").target("svm"));
    }
    Ok(svm)
}

/// `valid`, `expiring`, `expired` or `revoked`.
pub(crate) fn state_of(record: &EkmipClientRecord, now: Timestamp) -> &'static str {
    let left = record.expiry.duration_since(now);
    match record.revoked {
        Some(_) => "revoked",
        None if left <= SignedDuration::ZERO => "expired",
        None if left <= EXPIRING => "expiring",
        None => "valid",
    }
}

fn shown(inner: &Inner, record: EkmipClientRecord) -> EkmipClient {
    let state = state_of(&record, inner.clock.utc());
    EkmipClient {
        uuid: record.uuid,
        svm: inner.svm_ref(record.svm),
        common_name: record.common_name,
        serial_number: record.serial_number,
        expiry: record.expiry,
        state,
    }
}

fn shown_ca(inner: &Inner, record: EkmipClientCaRecord) -> EkmipClientCa {
    EkmipClientCa { uuid: record.uuid, svm: inner.svm_ref(record.svm), subject: record.subject, expiry: record.expiry }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    let mut out = [0; 32];
    for (at, to) in out.iter_mut().enumerate() {
        *to = u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_stage_of_a_certificate_is_told_once() {
        let day = |day: i64| Timestamp::from_second(day * 24 * 60 * 60).unwrap();
        let told = |since, now| stage_passed(day(100), since, day(now)).map(|stage| stage.as_hours() / 24);
        assert_eq!((told(None, 69), told(None, 70), told(None, 98), told(None, 101)), (None, Some(30), Some(7), Some(0)));
        assert_eq!((told(Some(day(69)), 70), told(Some(day(70)), 71), told(Some(day(92)), 93)), (Some(30), None, Some(7)));
        assert_eq!(told(Some(day(60)), 99), Some(1), "after a long pause the nearest alone");
        assert_eq!((told(Some(day(99)), 100), told(Some(day(100)), 101)), (Some(0), None));
    }
}

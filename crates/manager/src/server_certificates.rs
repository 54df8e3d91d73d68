//! The certificates that this node's servers show: made by the cluster's CA, and made anew before they end.
//!
//! That of the EKMIP server is a record, made from the template of the settings; it is there from the first start on. That of the REST API lives in memory.

use crate::certificates::{CertificateError, CertificateRequest, Checked, Created, Kind, create};
use crate::cluster::authority;
use crate::events::Message;
use crate::events::catalogue::{CERTIFICATE_EXPIRING, CERTIFICATE_RENEWED, REST_CERTIFICATE_EXPIRING, REST_CERTIFICATE_RENEWED};
use crate::inner::Inner;
use crate::records::{AuthorityRecord, EkmipCertificateRecord, Record, Stored, ekmip_certificate_place, key};
use crate::settings::CertificateTemplate;
use crate::{Code, Error, Manager, Result};
use jiff::{SignedDuration, Timestamp};
use keystead_store::{Compare, Error as StoreError, Revision, Txn};
use secrecy::{ExposeSecret, SecretString};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How long before its end an EKMIP server's certificate is made anew; where it lives for a short time, when a third of that is left.
const RENEW_BEFORE: SignedDuration = SignedDuration::from_hours(30 * 24);
/// How often the certificate of the REST API is made anew.
const RENEW_EACH: SignedDuration = SignedDuration::from_hours(30 * 24);
/// The shortest life of an EKMIP server's certificate: it must be possible to renew it before its end, over a failure too.
const SHORTEST: SignedDuration = SignedDuration::from_hours(1);
/// A certificate that was made so much later than now was made by a clock that went wrong.
const CLOCKS_DIFFER: SignedDuration = SignedDuration::from_mins(5);
/// How often certificates are looked at, at the least.
const LOOK: Duration = Duration::from_secs(60 * 60);
/// The pause after a renewal that has failed.
const RETRY: Duration = Duration::from_secs(5 * 60);
/// The pause after a change.
const AGAIN: Duration = Duration::from_secs(1);

/// A certificate with its key, for a TLS server of this node.
pub struct ServerIdentity {
    /// The certificate, then the CA's, PEM.
    pub certificate_chain: String,
    /// The private key, PEM (PKCS#8).
    pub private_key: SecretString,
    /// When it was made.
    pub issued: Timestamp,
    /// Up to when it is valid.
    pub expiry: Timestamp,
}

impl Manager {
    /// The certificate of this node's EKMIP server. Where the store has not taken one yet, one is made for the moment.
    ///
    /// # Errors
    /// The record is damaged, or none can be made.
    pub fn ekmip_identity(&self) -> Result<ServerIdentity> {
        let inner = self.inner();
        match inner.view.get::<EkmipCertificateRecord>(inner.node.uuid)? {
            None => self.server_identity(inner.ekmip_names.clone(), inner.ekmip_addresses.clone()),
            Some(stored) => Ok(ServerIdentity {
                certificate_chain: format!("{}{}", stored.record.certificate, signer(inner, stored.record.authority)?),
                private_key: inner.seal.open_text(&ekmip_key_place(inner), &stored.record.private_key)?,
                issued: stored.record.issued.unwrap_or(stored.record.expiry),
                expiry: stored.record.expiry,
            }),
        }
    }

    /// Changes when [`Manager::ekmip_identity`] would answer another certificate.
    pub fn ekmip_certificate_revision(&self) -> Option<Revision> {
        ekmip_revision(self.inner())
    }

    /// Makes a certificate for a TLS server of this node, signed by the cluster's CA, for these names and addresses.
    ///
    /// # Errors
    /// The CA's record is damaged, or a name cannot stand in a certificate.
    pub fn server_identity(&self, dns_names: Vec<String>, addresses: Vec<IpAddr>) -> Result<ServerIdentity> {
        let inner = self.inner();
        let authority = authority(inner)?;
        let request = CertificateRequest {
            common_name: inner.node.name.clone(),
            dns_names,
            ip_addresses: addresses,
            key_type: "ec".to_owned(),
            key_size: 256,
            ..CertificateRequest::default()
        };
        let checked = request.check(inner.settings().fips).map_err(Error::unexpected)?;
        let issued = inner.clock.utc();
        let created = create(&checked, Some(&authority), issued).map_err(Error::unexpected)?;
        Ok(ServerIdentity {
            certificate_chain: format!("{}{}", created.certificate_pem, inner.view.only::<AuthorityRecord>()?.record.certificate),
            private_key: created.private_key_pem,
            issued,
            expiry: created.expiry,
        })
    }

    /// Keeps the certificate of the REST API valid until `stop`: makes a new one each month, and gives it to `take_over`. `first` is the one that is shown.
    pub async fn renew_server_identity(
        &self,
        first: ServerIdentity,
        dns_names: Vec<String>,
        addresses: Vec<IpAddr>,
        take_over: impl Fn(&ServerIdentity) -> std::result::Result<(), String>,
        stop: CancellationToken,
    ) {
        let inner = self.inner();
        let (mut issued, mut expiry, mut generation) = (first.issued, first.expiry, signs(inner));
        inner.counted.rest_certificate(expiry, renewal_of_rest(issued, expiry));
        let mut changes = inner.view.changes();
        drop(first);
        let (mut alarm, mut pause) = (Alarm::default(), LOOK);
        loop {
            let switched = async {
                while signs(inner) == generation && changes.changed().await.is_ok() {}
                if signs(inner) == generation {
                    std::future::pending::<()>().await;
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = inner.clock.sleep_until(inner.clock.monotonic() + pause) => {}
                () = switched, if pause == LOOK => {}
            }
            pause = LOOK;
            let age = inner.clock.utc().duration_since(issued);
            let signs_now = signs(inner);
            if signs_now == generation && age > -CLOCKS_DIFFER && inner.clock.utc() < renewal_of_rest(issued, expiry) {
                continue;
            }
            let new = self.server_identity(dns_names.clone(), addresses.clone());
            match new.and_then(|new| take_over(&new).map(|()| new).map_err(Error::unexpected)) {
                Ok(new) => {
                    alarm.calm();
                    let reason = format!("the old one was valid until {expiry}, the new one is until {}", new.expiry);
                    inner.raise(&REST_CERTIFICATE_RENEWED, None, vec![("reason", reason), ("expiry", expiry.to_string())]);
                    (issued, expiry, generation) = (new.issued, new.expiry, signs_now);
                    inner.counted.rest_certificate(expiry, renewal_of_rest(issued, expiry));
                }
                Err(error) => {
                    tracing::warn!(%error, detail = error.detail.as_deref(), "the certificate of the REST API could not be renewed; it is tried again");
                    alarm.raise(inner, &REST_CERTIFICATE_EXPIRING, expiry, &error);
                    pause = RETRY;
                }
            }
        }
    }
}

/// A new certificate of this node's EKMIP server, and what was there when it was made.
pub(crate) struct NewEkmipCertificate {
    record: EkmipCertificateRecord,
    before: Compare,
}

impl NewEkmipCertificate {
    fn new(inner: &Inner, record: EkmipCertificateRecord, current: Option<&Stored<EkmipCertificateRecord>>) -> Self {
        let before = match current {
            None => Compare::Absent(ekmip_key(inner)),
            Some(current) => Compare::Unchanged(current.key.clone(), current.revision),
        };
        Self { record, before }
    }

    /// Adds it to a transaction, which then happens only where no other was made meanwhile.
    ///
    /// # Errors
    /// It cannot be written as JSON.
    pub fn write(self, inner: &Inner, txn: Txn) -> Result<Txn> {
        Ok(txn.when(self.before).put(ekmip_key(inner), self.record.encode()?))
    }
}

/// Makes the certificate of this node's EKMIP server from the cluster's template. `None` where a good one exists.
///
/// # Errors
/// The six codes of certificates (`contract/rest.md`), with the member of the template as target.
pub(crate) async fn ekmip_certificate(inner: &Inner) -> Result<Option<NewEkmipCertificate>> {
    let template = inner.settings().certificate;
    let current = inner.view.get::<EkmipCertificateRecord>(inner.node.uuid)?;
    if current.as_ref().is_some_and(|current| !is_due(inner, &current.record) && current.record.template.as_ref() == Some(&template)) {
        // It is checked all the same: FIPS mode may refuse now what was good when it was made.
        checked(inner, &template)?;
        return Ok(None);
    }
    let record = from_template(inner, template).await?;
    Ok(Some(NewEkmipCertificate::new(inner, record, current.as_ref())))
}

/// Gives this node's EKMIP server a certificate that is kept, where it has none: at the first start, and after the store was given to another seal key.
pub(crate) async fn begin(inner: &Inner) {
    if ekmip_revision(inner).is_none()
        && let Err(error) = make_first(inner).await
    {
        tracing::warn!(%error, detail = error.detail.as_deref(), "no certificate of the EKMIP server could be stored yet; it is tried again");
    }
}

/// Keeps the certificate of this node's EKMIP server valid, for as long as the node runs. The server takes a new one over without a restart.
pub(crate) async fn renew_ekmip_certificates(inner: Arc<Inner>, stop: CancellationToken) {
    let mut changes = inner.view.changes();
    let mut alarm = Alarm::default();
    loop {
        let current = inner.view.get::<EkmipCertificateRecord>(inner.node.uuid).ok().flatten();
        let revision = current.as_ref().map(|current| current.revision);
        let pause = tokio::select! {
            () = stop.cancelled() => return,
            pause = look(&inner, current, &mut alarm) => pause,
        };
        let until = inner.clock.monotonic() + pause;
        // Woken by a certificate that an enabling has made, by another CA that signs, and by nothing else that changes.
        let made = async {
            while changes.changed().await.is_ok() {
                let switched = |current: &Stored<EkmipCertificateRecord>| signs(&inner).is_some_and(|generation| generation != current.record.authority);
                if ekmip_revision(&inner) != revision
                    || inner.view.get::<EkmipCertificateRecord>(inner.node.uuid).ok().flatten().is_some_and(|current| switched(&current))
                {
                    return;
                }
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = inner.clock.sleep_until(until) => {}
            () = made => {}
        }
    }
}

/// What happens to the certificate now. Answers how long to wait until the next look.
async fn look(inner: &Inner, current: Option<Stored<EkmipCertificateRecord>>, alarm: &mut Alarm) -> Duration {
    let Some(current) = current else {
        return match make_first(inner).await {
            Ok(()) => AGAIN,
            Err(error) => {
                tracing::warn!(%error, detail = error.detail.as_deref(), "no certificate of the EKMIP server could be stored yet; it is tried again");
                RETRY
            }
        };
    };
    let (old, due) = (current.record.expiry, renewal_of(&current.record));
    match renew(inner, current).await {
        Ok(Renewal::NotDue) => {
            alarm.calm();
            Duration::try_from(due.duration_since(inner.clock.utc())).unwrap_or_default().clamp(AGAIN, LOOK)
        }
        Ok(Renewal::Done(new)) => {
            alarm.calm();
            let reason = format!("the old one was valid until {old}, the new one is until {new}");
            inner.raise(&CERTIFICATE_RENEWED, None, vec![("reason", reason), ("expiry", old.to_string())]);
            AGAIN
        }
        Ok(Renewal::Overtaken) => AGAIN,
        Err(error) => {
            tracing::warn!(%error, detail = error.detail.as_deref(), "the certificate of the EKMIP server could not be renewed; it is tried again");
            alarm.raise(inner, &CERTIFICATE_EXPIRING, old, &error);
            RETRY
        }
    }
}

enum Renewal {
    NotDue,
    /// The end of the new one.
    Done(Timestamp),
    /// Somebody else has just made one.
    Overtaken,
}

/// Renews the certificate of this node's EKMIP server where it is due.
async fn renew(inner: &Inner, current: Stored<EkmipCertificateRecord>) -> Result<Renewal> {
    if !is_due(inner, &current.record) {
        return Ok(Renewal::NotDue);
    }
    let record = from_template(inner, inner.settings().certificate).await?;
    let expiry = record.expiry;
    let written = store(inner, NewEkmipCertificate::new(inner, record, Some(&current))).await?;
    Ok(if written { Renewal::Done(expiry) } else { Renewal::Overtaken })
}

/// The first certificate. A template that is refused must not leave a server without one that is kept: then the default template counts until the configured one can be used.
async fn make_first(inner: &Inner) -> Result<()> {
    let (record, refused) = match from_template(inner, inner.settings().certificate).await {
        Err(error) if error.code != Code::Unexpected => (from_template(inner, CertificateTemplate::default()).await?, Some(error)),
        made => (made?, None),
    };
    let expiry = record.expiry;
    if store(inner, NewEkmipCertificate::new(inner, record, None)).await?
        && let Some(error) = refused
    {
        let reason = format!("there was none, and none could be made from the template: {error}; one from the default template is valid until {expiry}");
        inner.raise(&CERTIFICATE_EXPIRING, None, vec![("reason", reason), ("expiry", expiry.to_string())]);
    }
    Ok(())
}

/// Whether it was written: another may have been, at this moment.
async fn store(inner: &Inner, new: NewEkmipCertificate) -> Result<bool> {
    match inner.store.transact(new.write(inner, Txn::new())?).await {
        Ok(revision) => {
            inner.view.reached(revision).await;
            Ok(true)
        }
        Err(StoreError::Conflict { .. }) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

async fn from_template(inner: &Inner, template: CertificateTemplate) -> Result<EkmipCertificateRecord> {
    let checked = checked(inner, &template)?;
    let (now, authority, generation) = (inner.clock.utc(), authority(inner)?, inner.view.only::<AuthorityRecord>()?.record.generation);
    let created: Created = inner.forge.own(move || create(&checked, Some(&authority), now)).await?.map_err(refused)?;
    Ok(EkmipCertificateRecord {
        certificate: created.certificate_pem,
        private_key: inner.seal.seal(&ekmip_key_place(inner), created.private_key_pem.expose_secret().as_bytes()),
        expiry: created.expiry,
        issued: Some(now),
        template: Some(template),
        names: ekmip_server_names(inner),
        authority: generation,
    })
}

/// What a template asks for: a server's certificate, again and again, so that only a length can be its life.
fn checked(inner: &Inner, template: &CertificateTemplate) -> Result<Checked> {
    let request = CertificateRequest {
        kind: template.kind.clone(),
        common_name: inner.node.name.clone(),
        key_type: template.key_type.clone(),
        key_size: template.key_size,
        hash_function: template.hash_function.clone(),
        expiry_time: template.expiry_time.clone(),
        subtype: template.subtype.clone(),
        serial_number: template.serial_number.clone(),
        dns_names: inner.ekmip_names.clone(),
        ip_addresses: inner.ekmip_addresses.clone(),
        ..CertificateRequest::default()
    };
    let checked = request.check(inner.settings().fips).map_err(refused)?;
    if checked.kind() != Kind::Server {
        return Err(refused(CertificateError::Kind(request.kind)));
    }
    if checked.length().is_none_or(|length| length < SHORTEST) {
        return Err(refused(CertificateError::Value("expiry_time", request.expiry_time)));
    }
    Ok(checked)
}

fn refused(error: CertificateError) -> Error {
    match error {
        CertificateError::Failed(why) => Error::unexpected(why),
        _ => {
            let code = Code::from_number(error.code()).unwrap_or(Code::Unexpected);
            Error::with(code, format!("the template of EKMIP certificates (ekmip.certificate of /security/ekmip/settings): {error}"))
                .target(format!("ekmip.certificate.{}", error.target()))
        }
    }
}

/// Which of the cluster's CAs signs.
fn signs(inner: &Inner) -> Option<u32> {
    inner.view.only::<AuthorityRecord>().ok().map(|authority| authority.record.generation)
}

/// The certificate of the CA that has signed, where that is trusted still; else of the one that signs.
fn signer(inner: &Inner, generation: u32) -> Result<String> {
    let authority = inner.view.only::<AuthorityRecord>()?.record;
    Ok(if generation == authority.generation { authority.certificate } else { authority.previous.unwrap_or(authority.certificate) })
}

/// Near its end, or not for the node's names of now, or made by a clock that was ahead: then its end says nothing.
fn is_due(inner: &Inner, record: &EkmipCertificateRecord) -> bool {
    let now = inner.clock.utc();
    let ahead = record.issued.is_some_and(|issued| issued.duration_since(now) > CLOCKS_DIFFER);
    let switched = inner.view.only::<AuthorityRecord>().is_ok_and(|authority| authority.record.generation != record.authority);
    ahead || switched || record.names != ekmip_server_names(inner) || now >= renewal_of(record)
}

/// When the certificate of an EKMIP server is made anew.
pub(crate) fn renewal_of(record: &EkmipCertificateRecord) -> Timestamp {
    renewal_at(record.issued, record.expiry)
}

/// When the certificate of the REST API is made anew: each month, or before its end.
fn renewal_of_rest(issued: Timestamp, expiry: Timestamp) -> Timestamp {
    let before_its_end = renewal_at(Some(issued), expiry);
    issued.checked_add(RENEW_EACH).map_or(before_its_end, |monthly| monthly.min(before_its_end))
}

/// When a certificate is made anew: when a third of its life is left, but not more than 30 days before its end.
fn renewal_at(issued: Option<Timestamp>, expiry: Timestamp) -> Timestamp {
    let third = issued.map_or(RENEW_BEFORE, |issued| expiry.duration_since(issued) / 3);
    expiry.checked_sub(third.min(RENEW_BEFORE)).unwrap_or(expiry)
}

/// What the certificate of this node's EKMIP server is for.
fn ekmip_server_names(inner: &Inner) -> Vec<String> {
    inner.ekmip_names.iter().cloned().chain(inner.ekmip_addresses.iter().map(IpAddr::to_string)).collect()
}

fn ekmip_revision(inner: &Inner) -> Option<Revision> {
    inner.view.get::<EkmipCertificateRecord>(inner.node.uuid).ok().flatten().map(|stored| stored.revision)
}

fn ekmip_key(inner: &Inner) -> String {
    key::<EkmipCertificateRecord>(inner.node.uuid)
}

fn ekmip_key_place(inner: &Inner) -> String {
    ekmip_certificate_place(&ekmip_key(inner))
}

/// What has been told of a renewal that fails: each stage before the end once.
#[derive(Default)]
struct Alarm(Option<Option<SignedDuration>>);

impl Alarm {
    fn calm(&mut self) {
        self.0 = None;
    }

    fn raise(&mut self, inner: &Inner, message: &'static Message, expiry: Timestamp, error: &Error) {
        let left = expiry.duration_since(inner.clock.utc());
        let stage = crate::clients::STAGES.into_iter().rfind(|stage| left <= *stage);
        if self.0 != Some(stage) {
            self.0 = Some(stage);
            let reason = format!("it is valid until {expiry}, and could not be renewed: {error}");
            inner.raise(message, None, vec![("reason", reason), ("expiry", expiry.to_string())]);
        }
    }
}

//! The certificates of `/security/certificates`: made here, signed by a CA that is kept here, or installed.
//!
//! Each belongs to the cluster or to one SVM. A private key is kept sealed, and leaves the cluster once, when it is made here. The cluster's own CA, and the certificates of its EKMIP servers, are
//! shown beside them, and cannot be deleted.

use crate::aws_kms::select_svm;
use crate::certificates::{CertificateAuthority, CertificateError, CertificateRequest, Created, create};
use crate::inner::{Inner, may_change};
use crate::model::{Principal, SvmKind, SvmRef, SvmSelector};
use crate::records::{
    AuthorityRecord, CertificateRecord, EkmipCertificateRecord, EkmipClientCaRecord, NodeRecord, Record, Stored, SvmRecord, certificate_key_place,
    certificate_name_key, key,
};
use crate::x509::Facts;
use crate::{Code, Error, Manager, Result};
use keystead_store::{Compare, Error as StoreError, Txn};
use rcgen::{CertificateSigningRequestParams, ExtendedKeyUsagePurpose, IsCa, SanType};
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject as _;
use secrecy::{ExposeSecret, SecretString};
use std::net::IpAddr;
use uuid::Uuid;

/// How many certificates an SVM, or the cluster, can have.
const MOST: usize = 1_000;
/// How many certificates may stand between one and its root.
const MOST_INTERMEDIATES: usize = 8;
/// URIs that mean something to the cluster itself: nobody else gets a certificate with one.
const OWN_URIS: &str = "urn:keystead:";

/// A certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// The identifier.
    pub uuid: Uuid,
    /// The SVM; none for one of the cluster.
    pub svm: Option<SvmRef>,
    /// Its name, unique in the SVM.
    pub name: String,
    /// `client`, `server`, `client_ca`, `server_ca` or `root_ca`.
    pub kind: String,
    /// PEM.
    pub certificate: String,
    /// Those between it and its root, PEM.
    pub intermediates: Vec<String>,
    /// What it says.
    pub facts: Facts,
    /// Whether the cluster keeps its private key.
    pub has_key: bool,
    /// Whether it is one of the cluster's own, and what for.
    pub own: Option<&'static str>,
}

/// A certificate that was just made, with what is never shown again.
#[derive(Debug)]
pub struct NewCertificate {
    /// The certificate.
    pub certificate: Certificate,
    /// Its private key, PEM; none for a CA, which signs here alone.
    pub private_key: Option<SecretString>,
}

/// A certificate that comes from elsewhere.
#[derive(Debug)]
pub struct InstalledCertificate {
    /// `client`, `server`, `client_ca`, `server_ca` or `root_ca`.
    pub kind: String,
    /// PEM.
    pub certificate: String,
    /// Those between it and its root, PEM.
    pub intermediates: Vec<String>,
    /// PEM.
    pub private_key: Option<SecretString>,
}

impl Manager {
    /// All certificates, by uuid.
    pub fn certificates(&self) -> Vec<Certificate> {
        let inner = self.inner();
        let mut all = stored(inner);
        all.extend(own(inner));
        all.sort_by_key(|certificate| certificate.uuid);
        all
    }

    /// Makes a certificate: signed by itself, or by a CA that is kept here (`ca`: its identifier or name). `svm`: none for one of the cluster.
    ///
    /// # Errors
    /// 3735622, 3735645, 3735657, 3735664, 3735665, 3735700; 262247; the SVM; 6; 1 where the name is taken; 7 where there are too many; 4 (target `keystead.ca`) no such CA.
    pub async fn create_certificate(
        &self,
        who: &Principal,
        svm: Option<&SvmSelector>,
        name: Option<String>,
        request: CertificateRequest,
        ca: Option<&str>,
    ) -> Result<NewCertificate> {
        let inner = self.inner();
        let svm = owner(inner, who, svm)?;
        let hash = request.hash_function.to_lowercase();
        if let Some(uri) = request.uris.iter().find(|uri| is_own(uri)) {
            return Err(Error::with(Code::InvalidValue, format!("{uri} is the cluster's own")).target("subject_alternatives.uri"));
        }
        let (issuer, ca_record) = match ca {
            None => (None, None),
            Some(_) if request.kind == "root_ca" => {
                return Err(Error::with(Code::FieldCombination, "a root_ca is signed by itself").target("keystead.ca"));
            }
            Some(named) => {
                let ca = self.ca_named(who, named)?;
                let stored = inner.view.get::<CertificateRecord>(ca.uuid)?;
                (Some(authority(inner, &ca, &hash)?), stored)
            }
        };
        let (kind, is_ca) = (request.kind.clone(), request.kind == "root_ca");
        let created = made(inner, request, issuer).await?;
        let uuid = inner.random.uuid();
        let record = CertificateRecord {
            uuid,
            svm: svm.as_ref().map(|svm| svm.record.uuid),
            name: name.unwrap_or_else(|| generated_name(&created.certificate_pem)),
            kind,
            certificate: created.certificate_pem,
            intermediates: Vec::new(),
            private_key: Some(inner.seal.seal(&certificate_key_place(uuid), created.private_key_pem.expose_secret().as_bytes())),
        };
        // The CA's record is written again: so it is not deleted at the same moment.
        let touch = ca_record.map(|ca| Ok::<_, Error>((ca.key.clone(), ca.revision, ca.record.encode()?))).transpose()?;
        let certificate = self.store_certificate(svm.as_ref(), record, touch).await?;
        Ok(NewCertificate { certificate, private_key: (!is_ca).then_some(created.private_key_pem) })
    }

    /// Installs a certificate.
    ///
    /// # Errors
    /// 262247 what cannot be read, has expired, or does not belong together; 262212 a private key is needed; 262186 a CA of others comes without one; 3735664, 3735665 weak, in FIPS mode; and
    /// those of [`Manager::create_certificate`].
    pub async fn install_certificate(
        &self,
        who: &Principal,
        svm: Option<&SvmSelector>,
        name: Option<String>,
        new: InstalledCertificate,
    ) -> Result<Certificate> {
        let inner = self.inner();
        let svm = owner(inner, who, svm)?;
        let is_ca = new.kind.ends_with("_ca");
        if !["client", "server", "client_ca", "server_ca", "root_ca"].contains(&new.kind.as_str()) {
            return Err(Error::with(Code::InvalidValue, "it must be one of: client, server, client_ca, server_ca, root_ca").target("type"));
        }
        let wrong = |why: String| Error::with(Code::InvalidValue, why).target("public_certificate");
        let (der, facts) = Facts::of_pem(&new.certificate).map_err(wrong)?;
        if facts.expiry <= inner.clock.utc() {
            return Err(wrong("the certificate has expired".to_owned()));
        }
        if is_ca != facts.is_ca {
            return Err(wrong(format!("the certificate is {}one of a CA, and the type is {}", if facts.is_ca { "" } else { "not " }, new.kind)));
        }
        refuse_weak(inner, &facts, "public_certificate")?;
        if new.intermediates.len() > MOST_INTERMEDIATES {
            return Err(Error::with(Code::OutOfBounds, format!("at most {MOST_INTERMEDIATES}")).target("intermediate_certificates"));
        }
        for pem in &new.intermediates {
            let (_, facts) = Facts::of_pem(pem).map_err(|why| Error::with(Code::InvalidValue, why).target("intermediate_certificates"))?;
            refuse_weak(inner, &facts, "intermediate_certificates")?;
        }
        let uuid = inner.random.uuid();
        let private_key = match &new.private_key {
            Some(_) if matches!(new.kind.as_str(), "client_ca" | "server_ca") => {
                return Err(
                    Error::with(Code::FieldCombination, format!("a {} belongs to others, and comes without its private key", new.kind)).target("private_key")
                );
            }
            None if !is_ca => return Err(Error::with(Code::MissingField, "private_key").target("private_key")),
            None => None,
            Some(pem) => {
                check_key(pem, der).map_err(|why| Error::with(Code::InvalidValue, why).target("private_key"))?;
                Some(inner.seal.seal(&certificate_key_place(uuid), pem.expose_secret().as_bytes()))
            }
        };
        let record = CertificateRecord {
            uuid,
            svm: svm.as_ref().map(|svm| svm.record.uuid),
            name: name.unwrap_or_else(|| generated_name(&new.certificate)),
            kind: new.kind,
            certificate: new.certificate,
            intermediates: new.intermediates,
            private_key,
        };
        self.store_certificate(svm.as_ref(), record, None).await
    }

    /// Deletes a certificate, with its private key.
    ///
    /// # Errors
    /// 4; 6; 8 while it is in use: the cluster's own, a CA with certificates here, a CA whose certificates speak for an SVM.
    pub async fn delete_certificate(&self, who: &Principal, uuid: Uuid) -> Result<()> {
        let inner = self.inner();
        let certificate = self.certificate(uuid)?;
        may_change(who, certificate.svm.as_ref().map(|svm| svm.uuid))?;
        if let Some(what_for) = certificate.own {
            return Err(Error::with(Code::InUse, format!("it is {what_for}")).target("uuid"));
        }
        let stored = inner.view.get::<CertificateRecord>(uuid)?.ok_or_else(|| Error::new(Code::NotFound).target("uuid"))?;
        if let Some(user) = self.user_of(&certificate) {
            return Err(Error::with(Code::InUse, user).target("uuid"));
        }
        let txn = Txn::new()
            .when(Compare::Unchanged(stored.key.clone(), stored.revision))
            .delete(stored.key)
            .delete(certificate_name_key(stored.record.svm, &stored.record.name));
        commit(inner, txn, |_| Error::with(Code::InUse, "the certificate was used or changed at this moment; look again").target("uuid")).await
    }

    /// Has a CA sign a request of somebody else's. Subject, names and usages come from the request; it never becomes a CA. Answers the certificate, PEM; it is not kept.
    ///
    /// # Errors
    /// 4; 6; 262247 for a request that cannot be used, or a certificate that is no CA with its key here; and the codes of certificates.
    pub async fn sign_certificate(&self, who: &Principal, ca: Uuid, csr: &str, hash: &str, expiry_time: &str) -> Result<String> {
        let inner = self.inner();
        let ca = self.certificate(ca)?;
        may_change(who, ca.svm.as_ref().map(|svm| svm.uuid))?;
        let wrong = |why: String| Error::with(Code::InvalidValue, why).target("signing_request");
        let parsed =
            CertificateSigningRequestParams::from_pem(csr).map_err(|error| wrong(format!("PEM (PKCS#10) with a good signature is needed: {error}")))?;
        if parsed.params.is_ca != IsCa::NoCa && parsed.params.is_ca != IsCa::ExplicitNoCa {
            return Err(wrong("it asks for a certificate of a CA".to_owned()));
        }
        let mut usages = parsed.params.extended_key_usages.clone();
        if usages.is_empty() {
            usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        }
        if usages.iter().any(|usage| !matches!(usage, ExtendedKeyUsagePurpose::ServerAuth | ExtendedKeyUsagePurpose::ClientAuth)) {
            return Err(wrong("it asks for other usages than those of TLS servers and clients".to_owned()));
        }
        let names = Names::of(&parsed.params.subject_alt_names).map_err(wrong)?;
        let request = CertificateRequest {
            hash_function: hash.to_owned(),
            expiry_time: expiry_time.to_owned(),
            dns_names: names.dns,
            ip_addresses: names.addresses,
            emails: names.emails,
            uris: names.uris,
            subject: Some(parsed.params.distinguished_name),
            usages,
            csr: Some(csr.to_owned()),
            ..CertificateRequest::default()
        };
        let issuer = authority(inner, &ca, &hash.to_lowercase())?;
        let created = made(inner, request, Some(issuer)).await.map_err(|error| match error.target.as_deref() {
            Some("csr") => error.target("signing_request"),
            _ => error,
        })?;
        Ok(created.certificate_pem)
    }

    fn certificate(&self, uuid: Uuid) -> Result<Certificate> {
        self.certificates().into_iter().find(|certificate| certificate.uuid == uuid).ok_or_else(|| Error::new(Code::NotFound).target("uuid"))
    }

    /// The CA of that identifier or name, if this account may sign with it.
    fn ca_named(&self, who: &Principal, named: &str) -> Result<Certificate> {
        let none = || Error::with(Code::NotFound, format!("no root_ca has the identifier or name {named:?} and its private key here")).target("keystead.ca");
        let mut all = self.certificates().into_iter().filter(|ca| ca.kind == "root_ca" && ca.has_key);
        let may = |ca: &Certificate| may_change(who, ca.svm.as_ref().map(|svm| svm.uuid)).is_ok();
        all.find(|ca| (ca.name.eq_ignore_ascii_case(named) || ca.uuid.to_string().eq_ignore_ascii_case(named)) && may(ca)).ok_or_else(none)
    }

    /// Who would miss this certificate, in words.
    fn user_of(&self, certificate: &Certificate) -> Option<String> {
        let svm = certificate.svm.as_ref().map(|svm| svm.uuid);
        let twin = |other: &Certificate| other.kind == certificate.kind && other.certificate == certificate.certificate;
        let all = self.certificates();
        if certificate.kind == "root_ca" && !all.iter().any(|other| other.uuid != certificate.uuid && twin(other)) {
            let child = all.iter().find(|other| other.uuid != certificate.uuid && !other.facts.is_self_signed() && certificate.facts.issued(&other.facts));
            if let Some(child) = child {
                return Some(format!("the certificate {} ({}) is signed by this CA; delete that first", child.name, child.uuid));
            }
        }
        let fingerprint = Facts::of_pem(&certificate.certificate).ok().map(|(der, _)| crate::clients::fingerprint(&der));
        let speaks = self.inner().view.all::<EkmipClientCaRecord>().into_iter().find(|ca| {
            let same = Facts::of_pem(&ca.record.certificate).ok().map(|(der, _)| crate::clients::fingerprint(&der)) == fingerprint;
            certificate.kind == "client_ca" && same && svm.is_none_or(|svm| svm == ca.record.svm)
        });
        speaks.map(|ca| {
            let svm = self.inner().svm_ref(ca.record.svm).name;
            format!("it speaks for the EKMIP clients of the SVM {svm} (/security/ekmip/client-cas/{}); delete that first", ca.record.uuid)
        })
    }

    async fn store_certificate(
        &self,
        svm: Option<&Stored<SvmRecord>>,
        record: CertificateRecord,
        touch: Option<(String, keystead_store::Revision, Vec<u8>)>,
    ) -> Result<Certificate> {
        let inner = self.inner();
        let of_owner = inner.view.all::<CertificateRecord>().into_iter().filter(|other| other.record.svm == record.svm).collect::<Vec<_>>();
        if of_owner.len() >= MOST {
            return Err(Error::with(Code::LimitReached, format!("the cluster, and each SVM, can have {MOST} certificates")));
        }
        if of_owner.iter().any(|other| other.record.kind == record.kind && other.record.certificate.trim() == record.certificate.trim()) {
            return Err(Error::with(Code::Duplicate, format!("this certificate is there as {}", record.kind)).target("public_certificate"));
        }
        inner.seal.prove().await?;
        let (key, name_key) = (key::<CertificateRecord>(record.uuid), certificate_name_key(record.svm, &record.name));
        let mut txn = Txn::new().when(Compare::Absent(key.clone())).when(Compare::Absent(name_key.clone()));
        if let Some(svm) = svm {
            txn = txn.when(Compare::Present(svm.key.clone()));
        }
        if let Some((ca, revision, bytes)) = touch {
            txn = txn.when(Compare::Unchanged(ca.clone(), revision)).put(ca, bytes);
        }
        let txn = txn.put(key, record.encode()?).put(name_key.clone(), Vec::new());
        commit(inner, txn, |failed| {
            if failed == name_key {
                Error::with(Code::Duplicate, format!("a certificate is named {}", record.name)).target("name")
            } else {
                Error::with(Code::InUse, "the SVM or the CA was changed at this moment; look again")
            }
        })
        .await?;
        shown(inner, record).ok_or_else(|| Error::unexpected("a certificate that was just made cannot be read"))
    }
}

/// The names of a request.
#[derive(Default)]
struct Names {
    dns: Vec<String>,
    emails: Vec<String>,
    uris: Vec<String>,
    addresses: Vec<IpAddr>,
}

impl Names {
    fn of(names: &[SanType]) -> std::result::Result<Self, String> {
        let mut all = Self::default();
        for name in names {
            match name {
                SanType::DnsName(name) => all.dns.push(name.to_string()),
                SanType::Rfc822Name(name) => all.emails.push(name.to_string()),
                SanType::URI(uri) if is_own(uri.as_ref()) => return Err(format!("{} is the cluster's own", uri.as_str())),
                SanType::URI(uri) => all.uris.push(uri.to_string()),
                SanType::IpAddress(address) => all.addresses.push(*address),
                _ => return Err("it names its owner in a way that is not supported".to_owned()),
            }
        }
        Ok(all)
    }
}

fn is_own(uri: &str) -> bool {
    uri.trim_start().get(..OWN_URIS.len()).is_some_and(|start| start.eq_ignore_ascii_case(OWN_URIS))
}

/// Whose a certificate shall be: an SVM's, or the cluster's.
fn owner(inner: &Inner, who: &Principal, svm: Option<&SvmSelector>) -> Result<Option<Stored<SvmRecord>>> {
    let svm = svm.map(|svm| select_svm(inner, svm)).transpose()?.filter(|svm| svm.record.kind == SvmKind::Data);
    may_change(who, svm.as_ref().map(|svm| svm.record.uuid))?;
    Ok(svm)
}

/// The one way to [`create`]; off the threads that serve requests, since an RSA key takes its time.
async fn made(inner: &Inner, request: CertificateRequest, issuer: Option<CertificateAuthority>) -> Result<Created> {
    let checked = request.check(inner.settings().fips).map_err(|error| refused(&error))?;
    let now = inner.clock.utc();
    let made = tokio::task::spawn_blocking(move || create(&checked, issuer.as_ref(), now)).await.map_err(Error::unexpected)?;
    made.map_err(|error| refused(&error))
}

/// An error of the function that makes certificates, as an error of the key manager.
pub(crate) fn refused(error: &CertificateError) -> Error {
    match error {
        CertificateError::Failed(why) => Error::unexpected(why),
        _ => Error::with(Code::from_number(error.code()).unwrap_or(Code::Unexpected), error).target(error.target()),
    }
}

/// In FIPS mode, what others made must be strong too.
fn refuse_weak(inner: &Inner, facts: &Facts, target: &str) -> Result<()> {
    match facts.weakness() {
        Some(weak) if inner.settings().fips => Err(refused(&weak).target(target)),
        _ => Ok(()),
    }
}

fn authority(inner: &Inner, ca: &Certificate, hash: &str) -> Result<CertificateAuthority> {
    if ca.own == Some(CLUSTER_CA) {
        return crate::cluster::authority(inner);
    }
    let stored = inner.view.get::<CertificateRecord>(ca.uuid)?;
    let (Some(stored), "root_ca") = (stored, ca.kind.as_str()) else {
        return Err(Error::with(Code::InvalidValue, "only a root_ca signs").target("uuid"));
    };
    let Some(sealed) = &stored.record.private_key else {
        return Err(Error::with(Code::InvalidValue, "the private key of this CA is not kept here").target("uuid"));
    };
    if ca.facts.expiry <= inner.clock.utc() {
        return Err(Error::with(Code::InvalidValue, "the CA has expired").target("uuid"));
    }
    let key = inner.seal.open_text(&certificate_key_place(ca.uuid), sealed)?;
    CertificateAuthority::signing_with(&stored.record.certificate, &key, hash).map_err(Error::unexpected)
}

fn check_key(pem: &SecretString, certificate: rustls_pki_types::CertificateDer<'static>) -> std::result::Result<(), String> {
    let key = PrivateKeyDer::from_pem_slice(pem.expose_secret().as_bytes()).map_err(|_| "a private key in PEM, without a passphrase, is needed".to_owned())?;
    let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key).map_err(|_| "this kind or size of private key is not supported".to_owned())?;
    match rustls::sign::CertifiedKey::new(vec![certificate], key).keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => Ok(()),
        Err(_) => Err("the private key does not belong to the certificate".to_owned()),
    }
}

/// A name for who gives none, as ONTAP makes them: the common name and the serial number.
fn generated_name(pem: &str) -> String {
    Facts::of_pem(pem).map(|(_, facts)| format!("{}_{}", facts.common_name, facts.serial_number)).unwrap_or_default()
}

/// Those that were made or installed.
pub(crate) fn stored(inner: &Inner) -> Vec<Certificate> {
    inner.view.all::<CertificateRecord>().into_iter().filter_map(|stored| shown(inner, stored.record)).collect()
}

fn shown(inner: &Inner, record: CertificateRecord) -> Option<Certificate> {
    let read = Facts::of_pem(&record.certificate);
    let (_, facts) = read.inspect_err(|why| tracing::error!(certificate = %record.uuid, why, "a stored certificate cannot be read")).ok()?;
    Some(Certificate {
        uuid: record.uuid,
        svm: record.svm.map(|svm| inner.svm_ref(svm)),
        name: record.name,
        kind: record.kind,
        certificate: record.certificate,
        intermediates: record.intermediates,
        facts,
        has_key: record.private_key.is_some(),
        own: None,
    })
}

const CLUSTER_CA: &str = "the cluster's own CA";

/// The cluster's CA, and the certificates that its EKMIP servers show.
fn own(inner: &Inner) -> Vec<Certificate> {
    let shown = |name: String, kind: &str, certificate: String, what_for: &'static str| {
        let (der, facts) = Facts::of_pem(&certificate).ok()?;
        let uuid = uuid_of(&der);
        Some(Certificate { uuid, svm: None, name, kind: kind.to_owned(), certificate, intermediates: Vec::new(), facts, has_key: true, own: Some(what_for) })
    };
    let ca = inner.view.only::<AuthorityRecord>().ok().and_then(|ca| shown("keystead_cluster_ca".to_owned(), "root_ca", ca.record.certificate, CLUSTER_CA));
    let nodes = inner.view.all::<EkmipCertificateRecord>().into_iter().filter_map(|stored| {
        let node = stored.key.strip_prefix(EkmipCertificateRecord::PREFIX)?;
        let name = inner.view.get::<NodeRecord>(node).ok().flatten().map_or_else(|| node.to_owned(), |node| node.record.name);
        shown(format!("keystead_ekmip_{name}"), "server", stored.record.certificate, "the certificate of an EKMIP server")
    });
    ca.into_iter().chain(nodes).collect()
}

/// An identifier for what has none of its own: the beginning of its fingerprint.
fn uuid_of(der: &[u8]) -> Uuid {
    let mut bytes = [0; 16];
    bytes.iter_mut().zip(crate::clients::fingerprint(der)).for_each(|(to, from)| *to = from);
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}

async fn commit(inner: &Inner, txn: Txn, conflict: impl FnOnce(&str) -> Error) -> Result<()> {
    match inner.store.transact(txn).await {
        Ok(revision) => {
            inner.view.reached(revision).await;
            Ok(())
        }
        Err(StoreError::Conflict { key }) => Err(conflict(&key)),
        Err(error) => Err(error.into()),
    }
}

//! The certificates of `/security/certificates`: made here, signed by a CA that is kept here, or installed.
//!
//! Each belongs to the cluster or to one SVM. A private key is kept sealed, and leaves the cluster once, when it is made here. The cluster's own CA, and the certificates of its EKMIP servers, are
//! shown beside them, and cannot be deleted.

use crate::aws_kms::select_svm;
use crate::certificate_signing::{authority, is_own};
use crate::certificates::{CertificateAuthority, CertificateError, CertificateRequest, Created, create};
use crate::inner::{Inner, may_change};
use crate::model::{Principal, SvmKind, SvmRef, SvmSelector};
use crate::records::{
    AuthorityRecord, CertificateRecord, EkmipCertificateRecord, NodeRecord, Record, Stored, SvmRecord, certificate_key_place, certificate_name_key, key,
};
use crate::x509::{self, Facts};
use crate::{Code, Error, Manager, Result};
use keystead_store::{Compare, Error as StoreError, Txn};
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject as _;
use secrecy::{ExposeSecret, SecretString};
use uuid::Uuid;

/// How many certificates the cluster can have, and how many an SVM.
const MOST: usize = 1_000;
const MOST_OF_SVM: usize = 100;
/// How many certificates may stand between one and its root.
const MOST_INTERMEDIATES: usize = 8;
/// The longest of them, in bytes.
const MOST_PEM: usize = 32 * 1024;
/// The most bytes of a record.
const MOST_BYTES: usize = 64 * 1024;
/// The longest name, in bytes: it stands in a key of the store.
const MOST_NAME: usize = 256;
/// What the names of the cluster's own certificates begin with.
const OWN_NAMES: &str = "keystead_";
/// How often a certificate is written anew where others of the same CA come first.
const ATTEMPTS: usize = 32;

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
        let name = name.map(checked_name).transpose()?;
        let ca = match ca {
            None => None,
            Some(_) if request.kind == "root_ca" => {
                return Err(Error::with(Code::FieldCombination, "a root_ca is signed by itself").target("keystead.ca"));
            }
            Some(named) => Some(self.ca_named(who, svm.as_ref().map(|svm| svm.record.uuid), named)?),
        };
        let issuer = ca.as_ref().map(|ca| authority(inner, ca, &hash)).transpose().map_err(|error| error.target("keystead.ca"))?;
        let (kind, is_ca) = (request.kind.clone(), request.kind == "root_ca");
        let created = made(inner, request, issuer).await?;
        let facts = Facts::of_der(&created.certificate_der).map_err(Error::unexpected)?;
        let (uuid, certificate) = (inner.random.uuid(), x509::pem_of(&created.certificate_der));
        let record = CertificateRecord {
            uuid,
            svm: svm.as_ref().map(|svm| svm.record.uuid),
            name: name.unwrap_or_else(|| generated_name(&facts)),
            kind,
            certificate,
            intermediates: Vec::new(),
            issuer: ca.filter(|ca| ca.own.is_none()).map(|ca| ca.uuid),
            expiry: Some(facts.expiry),
            private_key: Some(inner.seal.seal(&certificate_key_place(uuid), created.private_key_pem.expose_secret().as_bytes())),
        };
        let certificate = self.store_certificate(svm.as_ref(), record).await?;
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
        let name = name.map(checked_name).transpose()?;
        let (der, facts, certificate) = x509::alone(&new.certificate).map_err(wrong)?;
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
        let mut intermediates = Vec::with_capacity(new.intermediates.len());
        for pem in &new.intermediates {
            if pem.len() > MOST_PEM {
                return Err(Error::with(Code::OutOfBounds, format!("at most {MOST_PEM} bytes each")).target("intermediate_certificates"));
            }
            let (_, facts, pem) = x509::alone(pem).map_err(|why| Error::with(Code::InvalidValue, why).target("intermediate_certificates"))?;
            refuse_weak(inner, &facts, "intermediate_certificates")?;
            intermediates.push(pem);
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
                let wrong_key = |why: String| Error::with(Code::InvalidValue, why).target("private_key");
                check_key(pem, der).map_err(wrong_key)?;
                if is_ca {
                    // It is here to sign: that it can is found out now.
                    let ca = CertificateAuthority::from_pem(&certificate, pem).map_err(|error| wrong_key(error.to_string()))?;
                    ca.prove(inner.clock.utc()).map_err(|error| wrong(error.to_string()))?;
                }
                Some(inner.seal.seal(&certificate_key_place(uuid), pem.expose_secret().as_bytes()))
            }
        };
        let record = CertificateRecord {
            uuid,
            svm: svm.as_ref().map(|svm| svm.record.uuid),
            name: name.unwrap_or_else(|| generated_name(&facts)),
            kind: new.kind,
            certificate,
            intermediates,
            private_key,
            issuer: None,
            expiry: Some(facts.expiry),
        };
        self.store_certificate(svm.as_ref(), record).await
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
        if let Some(user) = self.user_of(who, &stored) {
            return Err(Error::with(Code::InUse, user).target("uuid"));
        }
        let txn = Txn::new()
            .when(Compare::Unchanged(stored.key.clone(), stored.revision))
            .delete(stored.key)
            .delete(certificate_name_key(stored.record.svm, &stored.record.name));
        inner.commit(txn, |_| Error::with(Code::InUse, "the certificate was used or changed at this moment; look again").target("uuid")).await
    }

    /// One certificate.
    ///
    /// # Errors
    /// 4.
    pub fn certificate(&self, uuid: Uuid) -> Result<Certificate> {
        let inner = self.inner();
        let stored = inner.view.get::<CertificateRecord>(uuid)?.and_then(|stored| shown(inner, stored.record));
        stored.or_else(|| own(inner).into_iter().find(|own| own.uuid == uuid)).ok_or_else(|| Error::new(Code::NotFound).target("uuid"))
    }

    /// Stores a new certificate, as long as the SVM and the CA that has signed it are there.
    async fn store_certificate(&self, svm: Option<&Stored<SvmRecord>>, record: CertificateRecord) -> Result<Certificate> {
        let inner = self.inner();
        let value = record.encode()?;
        if value.len() > MOST_BYTES {
            return Err(Error::with(Code::OutOfBounds, format!("the certificate, with its key and those between, has more than {MOST_BYTES} bytes"))
                .target("intermediate_certificates"));
        }
        let of_owner: Vec<_> = inner.view.all::<CertificateRecord>().into_iter().filter(|other| other.record.svm == record.svm).collect();
        let most = if record.svm.is_some() { MOST_OF_SVM } else { MOST };
        if of_owner.len() >= most {
            return Err(Error::with(Code::LimitReached, format!("an SVM can have {MOST_OF_SVM} certificates, and the cluster {MOST}")));
        }
        let same = |other: &CertificateRecord| other.kind == record.kind && x509::kept(&other.certificate) == record.certificate;
        if of_owner.iter().any(|other| same(&other.record)) {
            return Err(Error::with(Code::Duplicate, format!("this certificate is there as {}", record.kind)).target("public_certificate"));
        }
        inner.seal.prove().await?;
        let (key, name_key) = (key::<CertificateRecord>(record.uuid), certificate_name_key(record.svm, &record.name));
        let mut txn = Txn::new().when(Compare::Absent(key.clone())).when(Compare::Absent(name_key.clone()));
        if let Some(svm) = svm {
            txn = txn.when(Compare::Present(svm.key.clone()));
        }
        let txn = txn.put(key, value).put(name_key.clone(), Vec::new());
        for _ in 0..ATTEMPTS {
            inner.steps.reached(&format!("certificate.{}.store.before", record.kind));
            let ca = match record.issuer {
                Some(ca) => Some(inner.fresh::<CertificateRecord>(ca).await?.ok_or_else(|| Error::with(Code::InUse, "the CA was deleted at this moment"))?),
                None => None,
            };
            // The CA's record is written again: so it is not deleted at the same moment.
            let (ca_key, txn) = match ca {
                None => (None, txn.clone()),
                Some(ca) => {
                    let touched = txn.clone().when(Compare::Unchanged(ca.key.clone(), ca.revision)).put(ca.key.clone(), ca.record.encode()?);
                    (Some(ca.key), touched)
                }
            };
            match inner.store.transact(txn).await {
                Ok(revision) => {
                    inner.view.reached(revision).await;
                    return shown(inner, record).ok_or_else(|| Error::unexpected("a certificate that was just made cannot be read"));
                }
                // Another certificate of the same CA came first: both may be there.
                Err(StoreError::Conflict { key }) if Some(&key) == ca_key.as_ref() => {}
                Err(StoreError::Conflict { key }) if key == name_key => {
                    return Err(Error::with(Code::Duplicate, format!("a certificate is named {}", record.name)).target("name"));
                }
                Err(StoreError::Conflict { .. }) => return Err(Error::with(Code::InUse, "the SVM was deleted at this moment")),
                Err(error) => return Err(error.into()),
            }
        }
        Err(Error::with(Code::TooManyRequests, "too many certificates of this CA are made at this moment; come again"))
    }
}

/// Whose a certificate shall be: an SVM's, or the cluster's.
fn owner(inner: &Inner, who: &Principal, svm: Option<&SvmSelector>) -> Result<Option<Stored<SvmRecord>>> {
    let svm = svm.map(|svm| select_svm(inner, who, svm)).transpose()?.filter(|svm| svm.record.kind == SvmKind::Data);
    may_change(who, svm.as_ref().map(|svm| svm.record.uuid))?;
    Ok(svm)
}

/// The one way to [`create`] for requests, within the limit of the forge.
pub(crate) async fn made(inner: &Inner, request: CertificateRequest, issuer: Option<CertificateAuthority>) -> Result<Created> {
    let checked = request.check(inner.settings().fips).map_err(|error| refused(&error))?;
    let now = inner.clock.utc();
    inner.forge.requested(move || create(&checked, issuer.as_ref(), now)).await?.map_err(|error| refused(&error))
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

fn check_key(pem: &SecretString, certificate: rustls_pki_types::CertificateDer<'static>) -> std::result::Result<(), String> {
    let key = PrivateKeyDer::from_pem_slice(pem.expose_secret().as_bytes()).map_err(|_| "a private key in PEM, without a passphrase, is needed".to_owned())?;
    let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key).map_err(|_| "this kind or size of private key is not supported".to_owned())?;
    match rustls::sign::CertifiedKey::new(vec![certificate], key).keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => Ok(()),
        Err(_) => Err("the private key does not belong to the certificate".to_owned()),
    }
}

/// A name that somebody gives. What an identifier could be, or one of the cluster's own, would make another certificate answer to it.
fn checked_name(name: String) -> Result<String> {
    let wrong = |code, why: String| Err(Error::with(code, why).target("name"));
    if name.to_lowercase().len() > MOST_NAME {
        return wrong(Code::OutOfBounds, format!("at most {MOST_NAME} bytes"));
    }
    if name.to_lowercase().starts_with(OWN_NAMES) {
        return wrong(Code::InvalidValue, format!("names that begin with {OWN_NAMES} are the cluster's own"));
    }
    if name.parse::<Uuid>().is_ok() {
        return wrong(Code::InvalidValue, "a name must not look like an identifier".to_owned());
    }
    Ok(name)
}

/// A name for who gives none, as ONTAP makes them: the common name and the serial number. Others may have written the certificate, so both are cut, and cleaned.
fn generated_name(facts: &Facts) -> String {
    let clean = |text: &str, most: usize| text.chars().map(|next| if next.is_control() { '_' } else { next }).take(most).collect::<String>();
    let common_name = clean(&facts.common_name, 40);
    let prefix = if common_name.to_lowercase().starts_with(OWN_NAMES) { "_" } else { "" };
    format!("{prefix}{common_name}_{}", clean(&facts.serial_number, 64))
}

/// Those that were made or installed.
pub(crate) fn stored(inner: &Inner) -> Vec<Certificate> {
    inner.view.all::<CertificateRecord>().into_iter().filter_map(|stored| shown(inner, stored.record)).collect()
}

/// A record as it is shown: in one form, whatever came with it when it was kept as it came.
pub(crate) fn shown(inner: &Inner, record: CertificateRecord) -> Option<Certificate> {
    let read = Facts::of_pem(&record.certificate);
    let (der, facts) = read.inspect_err(|why| tracing::error!(certificate = %record.uuid, why, "a stored certificate cannot be read")).ok()?;
    Some(Certificate {
        uuid: record.uuid,
        svm: record.svm.map(|svm| inner.svm_ref(svm)),
        name: record.name,
        kind: record.kind,
        certificate: x509::pem_of(&der),
        intermediates: record.intermediates.iter().map(|pem| x509::kept(pem)).collect(),
        facts,
        has_key: record.private_key.is_some(),
        own: None,
    })
}

/// What the cluster's CA is for.
pub(crate) const CLUSTER_CA: &str = "the cluster's own CA";
/// What the one that comes after it, or was before it, is for.
const OTHER_CA: &str = "a CA of the cluster that is trusted, and does not sign";

/// The cluster's CA, and the certificates that its EKMIP servers show.
pub(crate) fn own(inner: &Inner) -> Vec<Certificate> {
    let shown = |name: String, kind: &str, certificate: String, what_for: &'static str| {
        let (der, facts) = Facts::of_pem(&certificate).ok()?;
        let uuid = uuid_of(&der);
        Some(Certificate {
            uuid,
            svm: None,
            name,
            kind: kind.to_owned(),
            certificate,
            intermediates: Vec::new(),
            facts,
            has_key: what_for != OTHER_CA,
            own: Some(what_for),
        })
    };
    let authority = inner.view.only::<AuthorityRecord>().ok().map(|ca| ca.record);
    let ca = authority.iter().filter_map(|ca| shown("keystead_cluster_ca".to_owned(), "root_ca", ca.certificate.clone(), CLUSTER_CA));
    let next = authority.iter().filter_map(|ca| shown("keystead_cluster_ca_next".to_owned(), "root_ca", ca.next.as_ref()?.certificate.clone(), OTHER_CA));
    let previous = authority.iter().filter_map(|ca| shown("keystead_cluster_ca_previous".to_owned(), "root_ca", ca.previous.clone()?, OTHER_CA));
    let ca: Vec<Certificate> = ca.chain(next.chain(previous)).collect();
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

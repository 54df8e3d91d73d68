//! CAs whose certificates log in to the REST API: the `client_ca`s of `/security/certificates`.
//!
//! Those of the cluster vouch for accounts of the cluster, and those of an SVM for accounts of that SVM. The cluster's own CA vouches for nobody here, whoever installs it: it signs the certificates of
//! EKMIP clients, with names that SVM administrators choose.

use crate::records::{AuthorityRecord, CertificateRecord};
use crate::x509::Facts;
use crate::{Manager, Result};
use jiff::Timestamp;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use std::collections::BTreeMap;
use uuid::Uuid;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// The kind of certificate that vouches.
const CLIENT_CA: &str = "client_ca";

/// The CAs that vouch now, DER.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LoginCas {
    /// For accounts of the cluster.
    pub cluster: Vec<Vec<u8>>,
    /// For accounts of SVMs.
    pub svms: BTreeMap<Uuid, Vec<Vec<u8>>>,
    /// When the first of them ends.
    pub until: Option<Timestamp>,
}

impl Manager {
    /// The CAs that vouch at this moment.
    ///
    /// # Errors
    /// The cluster's CA cannot be read, and so nobody knows which it is.
    pub fn login_cas(&self) -> Result<LoginCas> {
        let inner = self.inner();
        let own = inner.view.only::<AuthorityRecord>()?.record;
        let own: Option<Vec<_>> = own.trusted().map(|pem| public_key(pem)).collect();
        let own = own.ok_or_else(|| crate::Error::unexpected("the cluster's CA cannot be read"))?;
        let now = inner.clock.utc();
        let mut cas = LoginCas::default();
        for stored in inner.view.all::<CertificateRecord>().into_iter().filter(|stored| stored.record.kind == CLIENT_CA) {
            let Ok((der, facts)) = Facts::of_pem(&stored.record.certificate) else { continue };
            if facts.expiry <= now || public_key(&stored.record.certificate).is_none_or(|key| own.contains(&key)) {
                continue;
            }
            cas.until = Some(cas.until.map_or(facts.expiry, |until| until.min(facts.expiry)));
            match stored.record.svm {
                None => cas.cluster.push(der.to_vec()),
                Some(svm) => cas.svms.entry(svm).or_default().push(der.to_vec()),
            }
        }
        Ok(cas)
    }

    /// Changes with every record that this node has seen change, and so, perhaps, with [`LoginCas`].
    pub fn revision(&self) -> u64 {
        self.changes().borrow().0
    }
}

/// The public key of a certificate, as it stands there.
fn public_key(pem: &str) -> Option<Vec<u8>> {
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).ok()?;
    let (_, certificate) = X509Certificate::from_der(&der).ok()?;
    Some(certificate.public_key().raw.to_vec())
}

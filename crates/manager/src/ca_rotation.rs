//! Replacing the cluster's own CA, in three steps that the operator paces, since clients have to learn the new one in between.
//!
//! 1. *prepare* makes the next CA. It signs nothing yet; whoever asks for the cluster's CA gets both, and nodes trust both.
//! 2. *switch* has it sign: servers show certificates of it, and new clients get theirs from it. Certificates of the old one are taken as before; its private key is gone.
//! 3. *finish* forgets the old one: its certificates are refused from then on.

use crate::certificate_authority::CertificateAuthority;
use crate::cluster::{AUTHORITY_PLACE, NEXT_AUTHORITY_PLACE};
use crate::inner::may_change;
use crate::model::Principal;
use crate::records::{AuthorityRecord, NextAuthority, Record, Stored};
use crate::x509::Facts;
use crate::{Code, Error, Manager, Result};
use jiff::Timestamp;
use keystead_store::{Compare, Txn};
use secrecy::ExposeSecret as _;

/// The cluster's CA, and the one that comes after it or was before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterCa {
    /// `active`, `prepared` or `switched`.
    pub state: &'static str,
    /// The one that signs.
    pub current: CaCertificate,
    /// The one that is trusted beside it.
    pub other: Option<CaCertificate>,
}

/// A CA certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaCertificate {
    /// The subject's common name.
    pub common_name: String,
    /// PEM.
    pub certificate: String,
    /// Up to when it is valid.
    pub expiry: Timestamp,
}

/// A step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CaStep {
    /// Make the next CA.
    Prepare,
    /// Let it sign.
    Switch,
    /// Forget the old one.
    Finish,
}

impl Manager {
    /// The cluster's CA as it stands.
    ///
    /// # Errors
    /// The record is damaged.
    pub fn cluster_ca(&self) -> Result<ClusterCa> {
        let record = self.inner().view.only::<AuthorityRecord>()?.record;
        let (state, other) = match (&record.next, &record.previous) {
            (Some(next), _) => ("prepared", Some(shown(&next.certificate)?)),
            (None, Some(previous)) => ("switched", Some(shown(previous)?)),
            (None, None) => ("active", None),
        };
        Ok(ClusterCa { state, current: shown(&record.certificate)?, other })
    }

    /// Takes a step of replacing the cluster's CA.
    ///
    /// # Errors
    /// 6; 8 where it is not the turn of this step; 65537906 where the seal key is not to be had.
    pub async fn step_ca(&self, who: &Principal, step: CaStep) -> Result<()> {
        let inner = self.inner();
        may_change(who, None)?;
        let stored = inner.view.only::<AuthorityRecord>()?;
        let record = stored.record.clone();
        let not_now = |why: &str| Err(Error::with(Code::InUse, why));
        let new = match (step, record.next.clone(), record.previous.clone()) {
            (CaStep::Prepare, None, None) => {
                inner.seal.prove().await?;
                AuthorityRecord { next: Some(self.next_ca(&record)?), ..record }
            }
            (CaStep::Prepare, Some(_), _) => return not_now("the next CA has been made already; switch to it"),
            (CaStep::Prepare, None, Some(_)) | (CaStep::Switch, None, Some(_)) => return not_now("the old CA is trusted still; finish first"),
            (CaStep::Switch, Some(next), _) => {
                inner.seal.prove().await?;
                let private_key = inner.seal.open_text(NEXT_AUTHORITY_PLACE, &next.private_key)?;
                let private_key = inner.seal.seal(AUTHORITY_PLACE, private_key.expose_secret().as_bytes());
                let previous = Some(record.certificate);
                AuthorityRecord { certificate: next.certificate, private_key, next: None, previous, generation: record.generation + 1 }
            }
            (CaStep::Switch, None, None) => return not_now("there is no next CA; prepare it first, and bring it to all clients"),
            (CaStep::Finish, None, Some(_)) => AuthorityRecord { previous: None, ..record },
            (CaStep::Finish, _, _) => return not_now("no old CA is trusted; there is nothing to finish"),
        };
        self.store_ca(stored, &new).await
    }

    fn next_ca(&self, record: &AuthorityRecord) -> Result<NextAuthority> {
        let inner = self.inner();
        // Another name than that of the one before: what finds an issuer by its name finds the right one.
        let name = format!("{} Keystead CA {}", inner.settings().cluster_name, record.generation + 2);
        let ca = CertificateAuthority::generate(&name, inner.clock.utc()).map_err(Error::unexpected)?;
        let private_key = inner.seal.seal(NEXT_AUTHORITY_PLACE, ca.private_key_pem().expose_secret().as_bytes());
        Ok(NextAuthority { certificate: ca.certificate_pem().to_owned(), private_key })
    }

    async fn store_ca(&self, stored: Stored<AuthorityRecord>, new: &AuthorityRecord) -> Result<()> {
        let txn = Txn::new().when(Compare::Unchanged(stored.key.clone(), stored.revision)).put(stored.key, new.encode()?);
        self.inner().commit(txn, |_| Error::with(Code::InUse, "the cluster's CA was changed at this moment; look again")).await?;
        let ca = self.cluster_ca()?;
        tracing::warn!(state = ca.state, signs = ca.current.common_name, "the cluster's CA is being replaced");
        Ok(())
    }
}

fn shown(certificate: &str) -> Result<CaCertificate> {
    let (_, facts) = Facts::of_pem(certificate).map_err(Error::unexpected)?;
    Ok(CaCertificate { common_name: facts.common_name, certificate: certificate.to_owned(), expiry: facts.expiry })
}

//! What is sealed in records, each with the place that it is sealed for: the one list of it, for those who go through all of it. A new seal key (`jobs::rotate_seal`) and the drill of a backup do.

use crate::cluster::{AUTHORITY_PLACE, NEXT_AUTHORITY_PLACE};
use crate::jobs::{JobKind, StoredChange};
use crate::records::{
    AuthorityRecord, AwsKmsRecord, Base64, CertificateRecord, EkmipCertificateRecord, JobRecord, OnboardRecord, Record, certificate_key_place,
    ekmip_certificate_place, onboard_place, proxy_password_place, secret_place,
};
use uuid::Uuid;

/// A secret of a record.
pub(crate) struct Secret<'r> {
    /// What it is, in words.
    pub what: &'static str,
    /// The place that it is sealed for.
    pub place: String,
    /// What is sealed.
    pub sealed: &'r mut Base64,
}

/// A record with secrets.
pub(crate) trait Sealing: Record {
    /// All of them. `key` is the one that the record stands under.
    fn secrets(&mut self, key: &str) -> Vec<Secret<'_>>;
}

impl Sealing for AuthorityRecord {
    fn secrets(&mut self, _key: &str) -> Vec<Secret<'_>> {
        let own = Secret { what: "the private key of the cluster's CA", place: AUTHORITY_PLACE.to_owned(), sealed: &mut self.private_key };
        let next = self.next.as_mut().map(|next| Secret {
            what: "the private key of the cluster's next CA",
            place: NEXT_AUTHORITY_PLACE.to_owned(),
            sealed: &mut next.private_key,
        });
        [Some(own), next].into_iter().flatten().collect()
    }
}

impl Sealing for EkmipCertificateRecord {
    fn secrets(&mut self, key: &str) -> Vec<Secret<'_>> {
        vec![Secret { what: "the private key of a node's EKMIP server", place: ekmip_certificate_place(key), sealed: &mut self.private_key }]
    }
}

impl Sealing for CertificateRecord {
    fn secrets(&mut self, _key: &str) -> Vec<Secret<'_>> {
        let place = certificate_key_place(self.uuid);
        self.private_key.iter_mut().map(|sealed| Secret { what: "the private key of a certificate", place: place.clone(), sealed }).collect()
    }
}

impl Sealing for OnboardRecord {
    fn secrets(&mut self, _key: &str) -> Vec<Secret<'_>> {
        vec![Secret { what: "the onboard key", place: onboard_place(self.uuid), sealed: &mut self.sealed }]
    }
}

impl Sealing for AwsKmsRecord {
    fn secrets(&mut self, _key: &str) -> Vec<Secret<'_>> {
        of_config(self.uuid, self.secret_access_key.as_mut(), self.proxy_password.as_mut())
    }
}

impl Sealing for JobRecord {
    /// The inputs of a job; one that has ended needs none.
    fn secrets(&mut self, _key: &str) -> Vec<Secret<'_>> {
        if self.state.is_final() {
            return Vec::new();
        }
        match &mut self.kind {
            JobKind::Enable { config, secret_access_key, proxy_password, .. } => of_config(*config, secret_access_key.as_mut(), proxy_password.as_mut()),
            JobKind::Modify { config, change } | JobKind::RekeyExternal { config, change, .. } => {
                let StoredChange { secret_access_key, proxy_password, .. } = &mut **change;
                of_config(*config, secret_access_key.as_mut(), proxy_password.as_mut().and_then(Option::as_mut))
            }
            _ => Vec::new(),
        }
    }
}

fn of_config<'r>(config: Uuid, secret_access_key: Option<&'r mut Base64>, proxy_password: Option<&'r mut Base64>) -> Vec<Secret<'r>> {
    let secret = secret_access_key.map(|sealed| Secret { what: "the secret access key", place: secret_place(config), sealed });
    let password = proxy_password.map(|sealed| Secret { what: "the password of the proxy", place: proxy_password_place(config), sealed });
    [secret, password].into_iter().flatten().collect()
}

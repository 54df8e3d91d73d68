//! The CAs of `/security/certificates`: which of them signs, for whom, and what still needs them.

use crate::certificates::{CertificateAuthority, CertificateRequest};
use crate::csr::Csr;
use crate::inner::{Inner, may_change};
use crate::model::Principal;
use crate::records::{CertificateRecord, EkmipClientCaRecord, Stored, certificate_key_place};
use crate::security_certificates::{CLUSTER_CA, Certificate, made, own, refused, shown};
use crate::x509::{Facts, may_be_signed_by};
use crate::{Code, Error, Manager, Result};
use rcgen::{ExtendedKeyUsagePurpose, IsCa, SanType};
use std::net::IpAddr;
use uuid::Uuid;

/// URIs that mean something to the cluster itself: nobody else gets a certificate with one.
const OWN_URIS: &str = "urn:keystead:";

impl Manager {
    /// Has a CA sign a request of somebody else's. Subject, names and usages come from the request; it never becomes a CA. Answers the certificate, PEM; it is not kept.
    ///
    /// # Errors
    /// 4; 6; 262247 for a request that cannot be used, or a certificate that is no CA with its key here; 262160; and the codes of certificates.
    pub async fn sign_certificate(&self, who: &Principal, ca: Uuid, csr: &str, hash: &str, expiry_time: &str) -> Result<String> {
        let inner = self.inner();
        let ca = self.certificate(ca)?;
        may_change(who, ca.svm.as_ref().map(|svm| svm.uuid))?;
        let wrong = |why: String| Error::with(Code::InvalidValue, why).target("signing_request");
        let of_request = |error: Error| match error.target.as_deref() {
            Some("csr" | "key_size") => error.target("signing_request"),
            Some("keystead.ca") => error.target("uuid"),
            _ => error,
        };
        let parsed = Csr::read(csr, self.fips()).map_err(|error| of_request(refused(&error)))?.params;
        if parsed.is_ca != IsCa::NoCa && parsed.is_ca != IsCa::ExplicitNoCa {
            return Err(wrong("it asks for a certificate of a CA".to_owned()));
        }
        let mut usages = parsed.extended_key_usages.clone();
        if usages.is_empty() {
            usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        }
        if usages.iter().any(|usage| !matches!(usage, ExtendedKeyUsagePurpose::ServerAuth | ExtendedKeyUsagePurpose::ClientAuth)) {
            return Err(wrong("it asks for other usages than those of TLS servers and clients".to_owned()));
        }
        let names = Names::of(&parsed.subject_alt_names).map_err(wrong)?;
        let request = CertificateRequest {
            hash_function: hash.to_owned(),
            expiry_time: expiry_time.to_owned(),
            dns_names: names.dns,
            ip_addresses: names.addresses,
            emails: names.emails,
            uris: names.uris,
            subject: Some(parsed.distinguished_name),
            usages,
            csr: Some(csr.to_owned()),
            ..CertificateRequest::default()
        };
        let issuer = authority(inner, &ca, &hash.to_lowercase())?;
        Ok(made(inner, request, Some(issuer)).await.map_err(of_request)?.certificate_pem)
    }

    /// The CA of that identifier or name, if this account may sign with it. A name is looked for among the certificates of the new one's owner, then among the cluster's: what another SVM calls a CA
    /// of its own must not change who signs.
    pub(crate) fn ca_named(&self, who: &Principal, owner: Option<Uuid>, named: &str) -> Result<Certificate> {
        let inner = self.inner();
        let none = || Error::with(Code::NotFound, format!("no root_ca has the identifier or name {named:?} and its private key here")).target("keystead.ca");
        let may = |ca: &Certificate| ca.kind == "root_ca" && ca.has_key && may_change(who, ca.svm.as_ref().map(|svm| svm.uuid)).is_ok();
        if let Ok(uuid) = named.parse::<Uuid>() {
            return self.certificate(uuid).ok().filter(may).ok_or_else(none);
        }
        let same = |name: &str| name.to_lowercase() == named.to_lowercase();
        let records = inner.view.all::<CertificateRecord>();
        let of = |owner: Option<Uuid>| {
            let found = records.iter().filter(move |stored| stored.record.svm == owner && same(&stored.record.name));
            found.filter_map(|stored| shown(inner, stored.record.clone())).filter(may)
        };
        let of_owner = owner.map(|svm| of(Some(svm)).collect::<Vec<_>>()).unwrap_or_default();
        let mut found = if of_owner.is_empty() { of(None).chain(own(inner).into_iter().filter(|ca| same(&ca.name)).filter(may)).collect() } else { of_owner };
        match (found.pop(), found.is_empty()) {
            (Some(ca), true) => Ok(ca),
            (Some(_), false) => Err(Error::with(Code::InvalidValue, format!("several CAs are named {named}; take the identifier")).target("keystead.ca")),
            (None, _) => Err(none()),
        }
    }

    /// Who would miss this certificate, in words. Certificates that this account does not see are not named.
    pub(crate) fn user_of(&self, who: &Principal, certificate: &Stored<CertificateRecord>) -> Option<String> {
        let (inner, record) = (self.inner(), &certificate.record);
        let (der, facts) = Facts::of_pem(&record.certificate).ok()?;
        if record.kind == "root_ca" {
            let signed = |other: &CertificateRecord| {
                // What was made elsewhere counts for its owner alone: an SVM must not keep another's CA from being deleted with a certificate that looks like the CA's.
                let installed = other.svm == record.svm && other.issuer.is_none();
                let of_it = |pem: &str| match Facts::of_pem(pem) {
                    Ok((child, said)) => !said.is_self_signed() && facts.issued(&said) && may_be_signed_by(&child, &der),
                    Err(_) => false,
                };
                other.issuer == Some(record.uuid) || installed && of_it(&other.certificate)
            };
            if let Some(child) = inner.view.all::<CertificateRecord>().into_iter().find(|other| other.record.uuid != record.uuid && signed(&other.record)) {
                let named = match may_change(who, child.record.svm) {
                    Ok(()) => format!("the certificate {} ({})", child.record.name, child.record.uuid),
                    Err(_) => "a certificate of another owner".to_owned(),
                };
                return Some(format!("{named} is signed by this CA; delete that first"));
            }
        }
        let fingerprint = Some(crate::clients::fingerprint(&der));
        let speaks = inner.view.all::<EkmipClientCaRecord>().into_iter().find(|ca| {
            let same = Facts::of_pem(&ca.record.certificate).ok().map(|(der, _)| crate::clients::fingerprint(&der)) == fingerprint;
            record.kind == "client_ca" && same && record.svm.is_none_or(|svm| svm == ca.record.svm)
        });
        speaks.map(|ca| {
            let svm = inner.svm_ref(ca.record.svm).name;
            format!("it speaks for the EKMIP clients of the SVM {svm} (/security/ekmip/client-cas/{}); delete that first", ca.record.uuid)
        })
    }
}

/// The CA of a certificate, ready to sign with this hash.
///
/// # Errors
/// 262247.
pub(crate) fn authority(inner: &Inner, ca: &Certificate, hash: &str) -> Result<CertificateAuthority> {
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
    // One that was sealed before the store was given to another seal key stays closed for good.
    let key = inner.seal.open_text(&certificate_key_place(ca.uuid), sealed).map_err(|error| {
        let why = "its private key cannot be opened with the seal key of the cluster; where that was replaced, delete the CA and make or install it anew";
        Error { detail: error.detail, ..Error::with(Code::InvalidValue, why).target("uuid") }
    })?;
    CertificateAuthority::signing_with(&ca.certificate, &key, hash).map_err(|error| refused(&error))
}

/// Whether a URI means something to the cluster itself.
pub(crate) fn is_own(uri: &str) -> bool {
    uri.trim_start().get(..OWN_URIS.len()).is_some_and(|start| start.eq_ignore_ascii_case(OWN_URIS))
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

//! The one function that creates certificates, and the six codes with which it refuses (`contract/rest.md`).

use crate::csr::Csr;
use jiff::{SignedDuration, Span, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, RsaKeySize, SanType, SerialNumber,
    SignatureAlgorithm,
};
use secrecy::SecretString;
use std::net::IpAddr;

pub use crate::certificate_authority::CertificateAuthority;

/// The longest validity that can be asked for.
const MAX_VALIDITY: SignedDuration = SignedDuration::from_hours(100 * 366 * 24);
/// Certificates are valid from before they are made: the clocks of nodes and clients differ, and what one node has issued must be good at the others at once.
const BACKDATE: SignedDuration = SignedDuration::from_hours(1);

/// A certificate that is wanted, as it was asked for. Nothing of it is checked yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateRequest {
    /// `server`, `client` or `root_ca`.
    pub kind: String,
    /// The subject's common name.
    pub common_name: String,
    /// `rsa` or `ec`.
    pub key_type: String,
    /// Bits: RSA 2048, 3072, 4096; EC 256, 384.
    pub key_size: u32,
    /// `sha256`, `sha384` or `sha512`.
    pub hash_function: String,
    /// ISO 8601: a duration, for example `P365DT`, or the moment of the end.
    pub expiry_time: String,
    /// Must be unset.
    pub subtype: Option<String>,
    /// Must be unset.
    pub serial_number: Option<String>,
    /// Names beside the common name.
    pub dns_names: Vec<String>,
    /// Addresses.
    pub ip_addresses: Vec<IpAddr>,
    /// URIs: who the certificate is for, in the cluster's own words.
    pub uris: Vec<String>,
    /// Mail addresses.
    pub emails: Vec<String>,
    /// The whole subject in the place of one with the common name alone.
    pub subject: Option<DistinguishedName>,
    /// What the certificate may be used for, in the place of what its type says.
    pub usages: Vec<ExtendedKeyUsagePurpose>,
    /// A certificate signing request, PEM (PKCS#10): its public key is certified, and no key is made. What else it says is not taken over, unless the members above say so.
    pub csr: Option<String>,
}

impl Default for CertificateRequest {
    /// ONTAP's defaults: a server certificate, RSA 2048, SHA-256, 365 days.
    fn default() -> Self {
        Self {
            kind: "server".to_owned(),
            common_name: String::new(),
            key_type: "rsa".to_owned(),
            key_size: 2048,
            hash_function: "sha256".to_owned(),
            expiry_time: "P365DT".to_owned(),
            subtype: None,
            serial_number: None,
            dns_names: Vec::new(),
            ip_addresses: Vec::new(),
            uris: Vec::new(),
            emails: Vec::new(),
            subject: None,
            usages: Vec::new(),
            csr: None,
        }
    }
}

/// Why a certificate is not made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// 3735622.
    #[error("a certificate of type {0:?} cannot be created, only installed; server, client and root_ca can be created")]
    Kind(String),
    /// 3735645.
    #[error("the serial number is made by the cluster")]
    SerialNumber,
    /// 3735657.
    #[error("a subtype cannot be given")]
    Subtype,
    /// 3735664.
    #[error("an RSA key of {0} bits is not allowed in FIPS mode; take 2048 or more")]
    FipsKeySize(u32),
    /// 3735665.
    #[error("{0} is not allowed in FIPS mode; take sha256, sha384 or sha512")]
    FipsHash(String),
    /// 3735700.
    #[error("{0} keys of {1} bits are not supported; take RSA with 2048, 3072 or 4096 bits, or EC with 256 or 384")]
    KeySize(String, u32),
    /// 3735664, for what is no RSA key.
    #[error("a {0} is not allowed in FIPS mode; take RSA from 2048 bits, or EC P-256, P-384 or P-521")]
    FipsKey(String),
    /// 262247.
    #[error("{1:?} is not supported")]
    Value(&'static str, String),
    /// 262247: a request of others that cannot be used.
    #[error("the certificate signing request cannot be used: {0}")]
    Csr(String),
    /// 262247: the end that was asked for lies behind the CA's.
    #[error("the CA ends {0}, and nothing that it signs outlives it")]
    AfterCa(Timestamp),
    /// 262247: a CA that cannot sign.
    #[error("the CA cannot sign: {0}")]
    Issuer(String),
    /// 262145.
    #[error("the certificate could not be made: {0}")]
    Failed(String),
}

impl CertificateError {
    /// The ONTAP code.
    pub fn code(&self) -> u32 {
        match self {
            Self::Kind(_) => 3_735_622,
            Self::SerialNumber => 3_735_645,
            Self::Subtype => 3_735_657,
            Self::FipsKeySize(_) | Self::FipsKey(_) => 3_735_664,
            Self::FipsHash(_) => 3_735_665,
            Self::KeySize(..) => 3_735_700,
            Self::Value(..) | Self::Csr(_) | Self::AfterCa(_) | Self::Issuer(_) => 262_247,
            Self::Failed(_) => 262_145,
        }
    }

    /// The member to blame, as ONTAP's `/security/certificates` names it.
    pub fn target(&self) -> &'static str {
        match self {
            Self::Kind(_) => "type",
            Self::SerialNumber => "serial_number",
            Self::Subtype => "subtype",
            Self::FipsKeySize(_) | Self::FipsKey(_) | Self::KeySize(..) => "key_size",
            Self::FipsHash(_) => "hash_function",
            Self::Value(target, _) => target,
            Self::Csr(_) => "csr",
            Self::AfterCa(_) => "expiry_time",
            Self::Issuer(_) => "keystead.ca",
            Self::Failed(_) => "",
        }
    }
}

/// A request that has passed all checks.
pub struct Checked {
    request: CertificateRequest,
    kind: Kind,
    algorithm: &'static SignatureAlgorithm,
    rsa: Option<RsaKeySize>,
    validity: Validity,
    fips: bool,
}

/// How long a certificate is valid.
#[derive(Debug, PartialEq, Eq)]
enum Validity {
    For(SignedDuration),
    Until(Timestamp),
}

/// The types that can be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// For a TLS server.
    Server,
    /// For a TLS client.
    Client,
    /// Of a CA.
    RootCa,
}

/// A certificate with its key.
pub struct Created {
    /// PEM.
    pub certificate_pem: String,
    /// DER.
    pub certificate_der: Vec<u8>,
    /// PEM, PKCS#8; empty where the public key came with a request.
    pub private_key_pem: SecretString,
    /// Hexadecimal digits, as openssl prints them.
    pub serial_number: String,
    /// Up to when it is valid.
    pub expiry: Timestamp,
}

impl Checked {
    /// What is made.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// How long it is valid; none where the moment of its end was given.
    pub fn length(&self) -> Option<SignedDuration> {
        match self.validity {
            Validity::For(length) => Some(length),
            Validity::Until(_) => None,
        }
    }

    fn generate(&self) -> Result<KeyPair, CertificateError> {
        let key = match self.rsa {
            Some(size) => KeyPair::generate_rsa_for(self.algorithm, size),
            None => KeyPair::generate_for(self.algorithm),
        };
        key.map_err(|error| CertificateError::Failed(error.to_string()))
    }
}

impl CertificateRequest {
    /// Checks the request.
    ///
    /// # Errors
    /// One of the six codes, or 262247 for a value that is none at all.
    pub fn check(&self, fips: bool) -> Result<Checked, CertificateError> {
        let kind = match self.kind.as_str() {
            "server" => Kind::Server,
            "client" => Kind::Client,
            "root_ca" => Kind::RootCa,
            other => return Err(CertificateError::Kind(other.to_owned())),
        };
        if self.serial_number.is_some() {
            return Err(CertificateError::SerialNumber);
        }
        if self.subtype.is_some() {
            return Err(CertificateError::Subtype);
        }
        let (algorithm, rsa) = self.algorithm(fips)?;
        Ok(Checked { request: self.clone(), kind, algorithm, rsa, validity: validity(&self.expiry_time)?, fips })
    }

    fn add_names(&self, params: &mut CertificateParams) -> Result<(), CertificateError> {
        for name in &self.dns_names {
            let name = name.clone().try_into().map_err(|_| CertificateError::Value("subject_alternatives.dns", name.clone()))?;
            params.subject_alt_names.push(SanType::DnsName(name));
        }
        for uri in &self.uris {
            let uri = uri.clone().try_into().map_err(|_| CertificateError::Value("subject_alternatives.uri", uri.clone()))?;
            params.subject_alt_names.push(SanType::URI(uri));
        }
        for email in &self.emails {
            let email = email.clone().try_into().map_err(|_| CertificateError::Value("subject_alternatives.email", email.clone()))?;
            params.subject_alt_names.push(SanType::Rfc822Name(email));
        }
        params.subject_alt_names.extend(self.ip_addresses.iter().map(|address| SanType::IpAddress(*address)));
        Ok(())
    }

    fn algorithm(&self, fips: bool) -> Result<(&'static SignatureAlgorithm, Option<RsaKeySize>), CertificateError> {
        let hash = self.hash_function.to_lowercase();
        if matches!(hash.as_str(), "md5" | "sha1") && fips {
            return Err(CertificateError::FipsHash(hash));
        }
        let size = || CertificateError::KeySize(self.key_type.to_uppercase(), self.key_size);
        let unknown_hash = || CertificateError::Value("hash_function", self.hash_function.clone());
        match self.key_type.as_str() {
            "rsa" => {
                let rsa = match self.key_size {
                    small if small < 2048 && fips => return Err(CertificateError::FipsKeySize(small)),
                    2048 => RsaKeySize::_2048,
                    3072 => RsaKeySize::_3072,
                    4096 => RsaKeySize::_4096,
                    _ => return Err(size()),
                };
                let algorithm = match hash.as_str() {
                    "sha256" => &rcgen::PKCS_RSA_SHA256,
                    "sha384" => &rcgen::PKCS_RSA_SHA384,
                    "sha512" => &rcgen::PKCS_RSA_SHA512,
                    _ => return Err(unknown_hash()),
                };
                Ok((algorithm, Some(rsa)))
            }
            "ec" => {
                if !matches!(hash.as_str(), "sha256" | "sha384" | "sha512") {
                    return Err(unknown_hash());
                }
                // The hash of an ECDSA signature goes with the issuer's curve; what is chosen here is the subject's key.
                match self.key_size {
                    256 => Ok((&rcgen::PKCS_ECDSA_P256_SHA256, None)),
                    384 => Ok((&rcgen::PKCS_ECDSA_P384_SHA384, None)),
                    _ => Err(size()),
                }
            }
            other => Err(CertificateError::Value("key_type", other.to_owned())),
        }
    }
}

/// Makes a key and a certificate for it; signed by `issuer`, or by itself where there is none.
///
/// # Errors
/// [`CertificateError::Failed`], or [`CertificateError::Value`] for a name that cannot stand in a certificate.
pub fn create(checked: &Checked, issuer: Option<&CertificateAuthority>, now: Timestamp) -> Result<Created, CertificateError> {
    let failed = |error: rcgen::Error| CertificateError::Failed(error.to_string());
    let wrong_end = || CertificateError::Value("expiry_time", checked.request.expiry_time.clone());
    let expiry = match checked.validity {
        Validity::For(length) => now.checked_add(length).map_err(|_| wrong_end())?,
        Validity::Until(end) if end > now && end.duration_since(now) <= MAX_VALIDITY => end,
        Validity::Until(_) => return Err(wrong_end()),
    };
    // Nothing outlives its CA; one that has ended itself makes no difference any more.
    let expiry = match (issuer.map(CertificateAuthority::expiry).filter(|end| *end > now && expiry > *end), &checked.validity) {
        (Some(end), Validity::For(_)) => end,
        (Some(end), Validity::Until(_)) => return Err(CertificateError::AfterCa(end)),
        (None, _) => expiry,
    };
    let mut params = params(&checked.request.common_name, now, expiry)?;
    if let Some(subject) = &checked.request.subject {
        params.distinguished_name = subject.clone();
    }
    checked.request.add_names(&mut params)?;
    match checked.kind {
        Kind::Server => params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth],
        Kind::Client => params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth],
        Kind::RootCa => make_ca(&mut params),
    }
    if checked.kind != Kind::RootCa {
        if !checked.request.usages.is_empty() {
            params.extended_key_usages = checked.request.usages.clone();
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
    }
    let serial_number = params.serial_number.as_ref().map(|serial| hex(serial.as_ref())).unwrap_or_default();
    let (certificate, private_key_pem) = match (&checked.request.csr, issuer) {
        (Some(csr), Some(issuer)) => {
            let csr = Csr::read(csr, checked.fips)?;
            (params.signed_by(&csr.key, &issuer.issuer), SecretString::default())
        }
        (Some(_), None) => return Err(CertificateError::Csr("there is no CA to sign it".to_owned())),
        (None, issuer) => {
            let key = checked.generate()?;
            let certificate = match issuer {
                Some(issuer) => params.signed_by(&key, &issuer.issuer),
                None => params.self_signed(&key),
            };
            (certificate, SecretString::from(key.serialize_pem()))
        }
    };
    let certificate = certificate.map_err(failed)?;
    if let Some(issuer) = issuer {
        issuer.check(certificate.der())?;
    }
    Ok(Created { certificate_pem: certificate.pem(), certificate_der: certificate.der().to_vec(), private_key_pem, serial_number, expiry })
}

/// Makes a key and a request (PEM, PKCS#10) to have it certified elsewhere.
///
/// # Errors
/// As [`create`].
pub fn request(checked: &Checked) -> Result<(String, SecretString), CertificateError> {
    let failed = |error: rcgen::Error| CertificateError::Failed(error.to_string());
    let mut params = CertificateParams::default();
    params.distinguished_name = checked.request.subject.clone().unwrap_or_else(|| named(&checked.request.common_name));
    params.extended_key_usages = checked.request.usages.clone();
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    checked.request.add_names(&mut params)?;
    let key = checked.generate()?;
    let csr = params.serialize_request(&key).and_then(|csr| csr.pem()).map_err(failed)?;
    Ok((csr, SecretString::from(key.serialize_pem())))
}

pub(crate) fn params(common_name: &str, now: Timestamp, expiry: Timestamp) -> Result<CertificateParams, CertificateError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = named(common_name);
    let start = now.checked_sub(BACKDATE).unwrap_or(now);
    let date = |at: Timestamp| rcgen::date_time_ymd(1970, 1, 1) + std::time::Duration::from_secs(u64::try_from(at.as_second()).unwrap_or_default());
    params.not_before = date(start);
    params.not_after = date(expiry);
    let mut serial = [0u8; 16];
    aws_lc_rs::rand::fill(&mut serial).map_err(|_| CertificateError::Failed("no random numbers".to_owned()))?;
    // Positive, and of full length (RFC 5280, section 4.1.2.2).
    if let Some(first) = serial.first_mut() {
        *first = *first & 0x7f | 0x40;
    }
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    Ok(params)
}

fn named(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}

pub(crate) fn make_ca(params: &mut CertificateParams) {
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
}

/// Reads an ISO 8601 duration, also in ONTAP's spelling `P365DT`: more than nothing, at most a hundred years. Or a moment.
fn validity(text: &str) -> Result<Validity, CertificateError> {
    if let Ok(end) = text.parse::<Timestamp>() {
        return Ok(Validity::Until(end));
    }
    let wrong = || CertificateError::Value("expiry_time", text.to_owned());
    let trimmed = text.strip_suffix(['T', 't']).unwrap_or(text);
    let span: Span = trimmed.parse().map_err(|_| wrong())?;
    // Years and months have no fixed length; from a fixed day on they do.
    let start = jiff::civil::date(2001, 1, 1);
    let end = start.to_datetime(jiff::civil::Time::midnight()).checked_add(span).map_err(|_| wrong())?;
    let length = end.duration_since(start.to_datetime(jiff::civil::Time::midnight()));
    if length > SignedDuration::ZERO && length <= MAX_VALIDITY { Ok(Validity::For(length)) } else { Err(wrong()) }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02X}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::client::WebPkiServerVerifier;
    use rustls::client::danger::ServerCertVerifier as _;
    use rustls::pki_types::pem::PemObject as _;
    use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
    use std::sync::Arc;

    fn refused(change: impl FnOnce(&mut CertificateRequest), fips: bool) -> (u32, &'static str) {
        let mut request = CertificateRequest { common_name: "x".into(), ..CertificateRequest::default() };
        change(&mut request);
        let error = request.check(fips).err().expect("a refusal");
        (error.code(), error.target())
    }

    #[test]
    fn each_of_the_six_codes_has_its_condition() {
        assert_eq!(refused(|r| r.kind = "client_ca".into(), false), (3735622, "type"));
        assert_eq!(refused(|r| r.serial_number = Some("1".into()), false), (3735645, "serial_number"));
        assert_eq!(refused(|r| r.subtype = Some("kmip_cert".into()), false), (3735657, "subtype"));
        assert_eq!(refused(|r| r.key_size = 1024, true), (3735664, "key_size"));
        assert_eq!(refused(|r| r.hash_function = "sha1".into(), true), (3735665, "hash_function"));
        assert_eq!(refused(|r| r.key_size = 1024, false), (3735700, "key_size"));
        assert_eq!(refused(|r| (r.key_type, r.key_size) = ("ec".into(), 521), false), (3735700, "key_size"));
        assert_eq!(refused(|r| r.hash_function = "md5".into(), false), (262247, "hash_function"));
        assert_eq!(refused(|r| r.key_type = "dsa".into(), false), (262247, "key_type"));
        for expiry in ["", "P0D", "365", "P101Y", "-P1D"] {
            assert_eq!(refused(|r| r.expiry_time = expiry.into(), false), (262247, "expiry_time"), "{expiry}");
        }
    }

    #[test]
    fn durations_are_read_in_ontaps_spelling_too() {
        for (text, days) in [("P365DT", 365), ("P365D", 365), ("P1Y", 365), ("PT24H", 1), ("P1W", 7)] {
            assert_eq!(validity(text).unwrap(), Validity::For(SignedDuration::from_hours(days * 24)), "{text}");
        }
    }

    #[test]
    fn a_server_certificate_is_believed_through_its_ca_alone() {
        let now = Timestamp::now();
        let authority = CertificateAuthority::generate("test CA", now).unwrap();
        let authority = CertificateAuthority::from_pem(authority.certificate_pem(), authority.private_key_pem()).unwrap();
        for (key_type, key_size) in [("ec", 256), ("ec", 384), ("rsa", 2048)] {
            let request = CertificateRequest {
                common_name: "node".into(),
                key_type: key_type.into(),
                key_size,
                dns_names: vec!["node.example".into()],
                ip_addresses: vec!["127.0.0.1".parse().unwrap()],
                ..CertificateRequest::default()
            };
            let created = create(&request.check(true).unwrap(), Some(&authority), now).unwrap();
            let leaf = CertificateDer::from_pem_slice(created.certificate_pem.as_bytes()).unwrap();
            let verify = |ca: &str, name: &str| {
                let mut roots = rustls::RootCertStore::empty();
                roots.add(CertificateDer::from_pem_slice(ca.as_bytes()).unwrap()).unwrap();
                let verifier =
                    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::new(rustls::crypto::aws_lc_rs::default_provider())).build().unwrap();
                verifier.verify_server_cert(&leaf, &[], &ServerName::try_from(name.to_owned()).unwrap(), &[], UnixTime::now()).is_ok()
            };
            assert!(verify(authority.certificate_pem(), "127.0.0.1") && verify(authority.certificate_pem(), "node.example"));
            assert!(!verify(authority.certificate_pem(), "127.0.0.2"));
            assert!(!verify(CertificateAuthority::generate("test CA", now).unwrap().certificate_pem(), "127.0.0.1"));
            let (_, parsed) = x509_parser::parse_x509_certificate(&leaf).unwrap();
            assert_eq!(parsed.validity().not_after.timestamp(), created.expiry.as_second());
            assert!(parsed.validity().not_before.timestamp() <= now.as_second() - 600, "it is good where the clock is ten minutes behind");
            assert_eq!(parsed.raw_serial_as_string().replace(':', "").to_uppercase(), created.serial_number);
        }
    }
}

//! AWS Signature Version 4, the header form, from the server's side.
//!
//! Source: AWS General Reference, "Signature Version 4 signing process". [`sign`] makes what [`signature`] checks, so that tests need no SDK.

use std::fmt::Write;

use aws_lc_rs::{digest, hmac};

/// The only algorithm that KMS accepts in the `Authorization` header.
pub const ALGORITHM: &str = "AWS4-HMAC-SHA256";

/// What a signature covers: one HTTP request as it came over the wire.
#[derive(Clone, Copy, Debug)]
pub struct SignedRequest<'a> {
    /// The HTTP method, in capitals.
    pub method: &'a str,
    /// The path as sent, percent-encoded, beginning with `/`.
    pub path: &'a str,
    /// The query as sent, without the `?`; empty when there is none.
    pub query: &'a str,
    /// Header names in lower case with their values, in the order sent. A name may stand more than once.
    pub headers: &'a [(String, String)],
    /// The whole body.
    pub body: &'a [u8],
}

impl SignedRequest<'_> {
    /// The values of one header joined by commas, as the canonical form wants them; `None` when it is absent.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<String> {
        let values: Vec<String> = self.headers.iter().filter(|(n, _)| n == name).map(|(_, v)| trimmed(v)).collect();
        (!values.is_empty()).then(|| values.join(","))
    }
}

/// The credential scope and key id of an `Authorization` header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credential {
    /// The access key id.
    pub access_key_id: String,
    /// The date of the scope, `YYYYMMDD`.
    pub date: String,
    /// The region of the scope.
    pub region: String,
    /// The service of the scope; `kms` for AWS KMS.
    pub service: String,
}

impl Credential {
    /// The scope as it stands in the string to sign.
    #[must_use]
    pub fn scope(&self) -> String {
        format!("{}/{}/{}/aws4_request", self.date, self.region, self.service)
    }
}

/// A parsed `Authorization` header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authorization {
    /// Who signed, and for what.
    pub credential: Credential,
    /// Names of the signed headers, in lower case, as listed.
    pub signed_headers: Vec<String>,
    /// The signature in lower-case hex.
    pub signature: String,
}

impl Authorization {
    /// Reads the value of an `Authorization` header.
    ///
    /// # Errors
    /// The sentence AWS would answer with, when a part is missing or the algorithm is another.
    pub fn parse(value: &str) -> Result<Self, String> {
        let Some(rest) = value.strip_prefix(ALGORITHM) else {
            return Err(format!("Unsupported AWS 'algorithm': the Authorization header must begin with {ALGORITHM}."));
        };
        let (mut credential, mut signed_headers, mut signature) = (None, None, None);
        for part in rest.split(',') {
            match part.trim().split_once('=') {
                Some(("Credential", v)) => credential = Some(parse_credential(v)?),
                Some(("SignedHeaders", v)) => signed_headers = Some(v.split(';').map(str::to_owned).collect()),
                Some(("Signature", v)) => signature = Some(v.to_owned()),
                _ => return Err(format!("'{}' not a valid key=value pair (missing equal-sign) in Authorization header.", part.trim())),
            }
        }
        Ok(Self {
            credential: credential.ok_or("Authorization header requires 'Credential' parameter.")?,
            signed_headers: signed_headers.ok_or("Authorization header requires 'SignedHeaders' parameter.")?,
            signature: signature.ok_or("Authorization header requires 'Signature' parameter.")?,
        })
    }
}

/// The signature in hex that `secret` makes over `request` for the scope of `credential`. `amz_date` is the value of `X-Amz-Date`.
#[must_use]
pub fn signature(request: &SignedRequest<'_>, credential: &Credential, signed_headers: &[String], secret: &str, amz_date: &str) -> String {
    let canonical = canonical_request(request, signed_headers);
    let text = string_to_sign(amz_date, &credential.scope(), &canonical);
    let key = signing_key(secret, &credential.date, &credential.region, &credential.service);
    hex(hmac_sha256(&key, text.as_bytes()).as_ref())
}

/// Signs `request` with all its headers, and returns the value for `Authorization`. `amz_date` must also be among the headers, as `x-amz-date`.
#[must_use]
pub fn sign(request: &SignedRequest<'_>, credential: &Credential, secret: &str, amz_date: &str) -> String {
    let mut names: Vec<String> = request.headers.iter().map(|(n, _)| n.clone()).collect();
    names.sort();
    names.dedup();
    let made = signature(request, credential, &names, secret, amz_date);
    let Credential { access_key_id, .. } = credential;
    format!("{ALGORITHM} Credential={access_key_id}/{}, SignedHeaders={}, Signature={made}", credential.scope(), names.join(";"))
}

/// The canonical request. Paths are encoded a second time, as all services but S3 want it; dot segments are left alone, since KMS has the path `/` only.
#[must_use]
pub fn canonical_request(request: &SignedRequest<'_>, signed_headers: &[String]) -> String {
    let mut out = format!("{}\n{}\n{}\n", request.method, encode(request.path.as_bytes(), true), canonical_query(request.query));
    for name in signed_headers {
        let _ = writeln!(out, "{name}:{}", request.header(name).unwrap_or_default());
    }
    let _ = write!(out, "\n{}\n{}", signed_headers.join(";"), hex(sha256(request.body).as_ref()));
    out
}

/// The string to sign for a canonical request.
#[must_use]
pub fn string_to_sign(amz_date: &str, scope: &str, canonical: &str) -> String {
    format!("{ALGORITHM}\n{amz_date}\n{scope}\n{}", hex(sha256(canonical.as_bytes()).as_ref()))
}

/// The key derived from a secret access key for one day, region and service; 32 bytes.
#[must_use]
pub fn signing_key(secret: &str, date: &str, region: &str, service: &str) -> Vec<u8> {
    let mut key = format!("AWS4{secret}").into_bytes();
    for part in [date, region, service, "aws4_request"] {
        key = hmac_sha256(&key, part.as_bytes()).as_ref().to_vec();
    }
    key
}

/// Lower-case hex.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, b| {
        let _ = write!(out, "{b:02x}");
        out
    })
}

/// SHA-256.
#[must_use]
pub fn sha256(bytes: &[u8]) -> digest::Digest {
    digest::digest(&digest::SHA256, bytes)
}

fn hmac_sha256(key: &[u8], data: &[u8]) -> hmac::Tag {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), data)
}

fn parse_credential(value: &str) -> Result<Credential, String> {
    let parts: Vec<&str> = value.split('/').collect();
    match parts.as_slice() {
        [id, date, region, service, "aws4_request"] => {
            Ok(Credential { access_key_id: (*id).into(), date: (*date).into(), region: (*region).into(), service: (*service).into() })
        }
        _ => Err(format!("Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/service/term, got '{value}'")),
    }
}

fn canonical_query(query: &str) -> String {
    let mut pairs: Vec<(String, String)> = query
        .split('&')
        .filter(|part| !part.is_empty())
        .map(|part| part.split_once('=').unwrap_or((part, "")))
        .map(|(k, v)| (encode(&decode(k), false), encode(&decode(v), false)))
        .collect();
    pairs.sort();
    pairs.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join("&")
}

fn trimmed(value: &str) -> String {
    value.split_ascii_whitespace().collect::<Vec<_>>().join(" ")
}

fn encode(bytes: &[u8], keep_slash: bool) -> String {
    bytes.iter().fold(String::new(), |mut out, b| {
        match b {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(*b)),
            b'/' if keep_slash => out.push('/'),
            _ => {
                let _ = write!(out, "%{b:02X}");
            }
        }
        out
    })
}

fn decode(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let escaped = match (first, tail) {
            (b'%', [high, low, ..]) => digit(*high).zip(digit(*low)).map(|(h, l)| h * 16 + l),
            _ => None,
        };
        out.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() { tail.get(2..).unwrap_or_default() } else { tail };
    }
    out
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|d| u8::try_from(d).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
    const DATE: &str = "20150830T123600Z";

    fn headers(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect()
    }

    fn credential(service: &str) -> Credential {
        Credential { access_key_id: "AKIDEXAMPLE".into(), date: "20150830".into(), region: "us-east-1".into(), service: service.into() }
    }

    /// The worked example of the AWS General Reference (IAM ListUsers), every step of it.
    #[test]
    fn the_published_example() {
        let headers = headers(&[("content-type", "application/x-www-form-urlencoded; charset=utf-8"), ("host", "iam.amazonaws.com"), ("x-amz-date", DATE)]);
        let request = SignedRequest { method: "GET", path: "/", query: "Action=ListUsers&Version=2010-05-08", headers: &headers, body: b"" };
        let names = ["content-type", "host", "x-amz-date"].map(str::to_owned);
        let canonical = canonical_request(&request, &names);
        assert_eq!(hex(sha256(canonical.as_bytes()).as_ref()), "f536975d06c0309214f805bb90ccff089219ecd68b2577efef23edd43b7e1a59");
        assert_eq!(hex(&signing_key(SECRET, "20150830", "us-east-1", "iam")), "c4afb1cc5771d871763a393e44b703571b55cc28424d1a5e86da6ed3c154a4b9");
        assert_eq!(
            sign(&request, &credential("iam"), SECRET, DATE),
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/iam/aws4_request, SignedHeaders=content-type;host;x-amz-date, \
             Signature=5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7"
        );
    }

    /// `get-vanilla` of the AWS Signature Version 4 test suite.
    #[test]
    fn the_vanilla_vector() {
        let headers = headers(&[("host", "example.amazonaws.com"), ("x-amz-date", DATE)]);
        let request = SignedRequest { method: "GET", path: "/", query: "", headers: &headers, body: b"" };
        let names = ["host", "x-amz-date"].map(str::to_owned);
        assert_eq!(signature(&request, &credential("service"), &names, SECRET, DATE), "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31");
    }

    #[test]
    fn what_is_made_is_read_back() {
        let headers = headers(&[("host", "h"), ("x-amz-date", DATE)]);
        let request = SignedRequest { method: "POST", path: "/", query: "", headers: &headers, body: b"{}" };
        let parsed = Authorization::parse(&sign(&request, &credential("kms"), SECRET, DATE)).unwrap();
        assert_eq!(parsed.credential, credential("kms"));
        assert_eq!(parsed.signed_headers, ["host", "x-amz-date"]);
        assert_eq!(parsed.signature, signature(&request, &parsed.credential, &parsed.signed_headers, SECRET, DATE));
    }

    #[test]
    fn a_part_that_is_missing_is_named() {
        for (value, named) in [
            ("Basic YWRtaW46eA==", "algorithm"),
            ("AWS4-HMAC-SHA256 Credential=A/1/r/kms/aws4_request, Signature=00", "'SignedHeaders'"),
            ("AWS4-HMAC-SHA256 Credential=A/1/r/kms/aws4_request, SignedHeaders=host", "'Signature'"),
            ("AWS4-HMAC-SHA256 SignedHeaders=host, Signature=00", "'Credential'"),
            ("AWS4-HMAC-SHA256 Credential=A/1/r/kms, SignedHeaders=host, Signature=00", "5 slash-delimited"),
            ("AWS4-HMAC-SHA256 nonsense", "equal-sign"),
        ] {
            let error = Authorization::parse(value).unwrap_err();
            assert!(error.contains(named), "{value}: {error}");
        }
    }

    #[test]
    fn the_query_is_sorted_and_encoded_once() {
        assert_eq!(canonical_query("b=2&a=%2f&a=1 &c"), "a=%2F&a=1%20&b=2&c=");
    }
}

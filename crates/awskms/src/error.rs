//! What went wrong between this node and the customer key: how bad, where, and in AWS's own words.

use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use std::fmt;

/// How long a text of a peer may get in an error.
const MAX_TEXT: usize = 300;
/// From this difference on, the clocks are named as the likely cause of a bad signature. AWS itself allows 5 minutes (AWS General Reference, "Signature Version 4").
pub(crate) const SKEW: i64 = 4 * 60;

/// What kind of failure it is. What follows from it is decided by the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// AWS refuses, as it would after a revocation. While a configuration is being set up, the same codes (but DisabledException and KMSInvalidStateException) mean that it is wrong.
    Revoked,
    /// The request cannot work as it is: signature, validation, key usage. Repeating it changes nothing.
    Misconfigured,
    /// The ciphertext does not fit: another context, or damage.
    Integrity,
    /// AWS could not just now. It was tried again already.
    Transient,
    /// No answer, or an answer that is not AWS's. Never evidence of anything but that.
    Unreachable,
}

/// Where on the way it happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Hop {
    /// The settings make no client.
    Settings,
    /// A credentials source of the node gives no credentials; nothing was asked of AWS KMS.
    Credentials,
    /// The name does not resolve.
    Resolve,
    /// The address leads inside, and is not allowed.
    Egress,
    /// The proxy, or the way to it.
    Proxy,
    /// The TCP connection to AWS.
    Connect,
    /// The TLS handshake with AWS.
    Tls,
    /// The HTTP exchange: no answer, a broken one, or one that is not AWS's.
    Http,
    /// AWS answered.
    Aws,
}

impl Hop {
    /// In words.
    pub fn text(self) -> &'static str {
        match self {
            Self::Settings => "settings",
            Self::Credentials => "credentials",
            Self::Resolve => "name resolution",
            Self::Egress => "egress rule",
            Self::Proxy => "proxy",
            Self::Connect => "connection",
            Self::Tls => "TLS",
            Self::Http => "HTTP",
            Self::Aws => "AWS",
        }
    }
}

/// A failed call. Its text names the endpoint, the hop and AWS's own name for the error; it never holds a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    pub(crate) class: Class,
    pub(crate) hop: Hop,
    pub(crate) code: Option<String>,
    pub(crate) request_id: Option<String>,
    pub(crate) status: Option<u16>,
    pub(crate) text: String,
    /// `host:port`, and the proxy where there is one.
    pub(crate) endpoint: String,
    pub(crate) proven: bool,
    pub(crate) proxied: bool,
    pub(crate) skew: Option<i64>,
}

impl Error {
    /// What kind of failure it is.
    pub fn class(&self) -> Class {
        self.class
    }

    /// Where it happened.
    pub fn hop(&self) -> Hop {
        self.hop
    }

    /// AWS's own name for it, for example `DisabledException`.
    pub fn code(&self) -> Option<&str> {
        self.code.as_deref()
    }

    /// Where the call went: `host:port`, and the proxy where there is one.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// AWS's identifier of the request.
    pub fn request_id(&self) -> Option<&str> {
        self.request_id.as_deref()
    }

    /// Whether AWS itself answered: an AWS error code with a request id.
    pub fn came_from_aws(&self) -> bool {
        self.hop == Hop::Aws && self.code.is_some() && self.request_id.is_some()
    }

    /// Whether a denial in this answer counts as evidence of a revocation (`contract/revocation.md`): AWS answered, over TLS whose chain and name were checked.
    pub fn evidence(&self) -> bool {
        self.came_from_aws() && self.proven
    }

    /// Whether AWS refuses the access key or its signature, in whatever words, or there are no credentials to sign with and it is not an outage.
    pub fn is_credentials(&self) -> bool {
        (self.hop == Hop::Credentials && self.class == Class::Misconfigured) || self.code.as_deref().is_some_and(|code| CREDENTIALS.contains(&code))
    }

    /// Whether AWS refuses because of the state that the key is in: disabled, pending deletion, pending import.
    pub fn is_key_state(&self) -> bool {
        self.code.as_deref().is_some_and(|code| matches!(code, "DisabledException" | "KMSInvalidStateException" | "KMSInvalidState"))
    }

    /// Whether the proxy is to blame, or the way to it.
    pub fn concerns_proxy(&self) -> bool {
        self.proxied && matches!(self.hop, Hop::Proxy | Hop::Egress | Hop::Resolve)
    }

    /// By how many seconds AWS's clock is ahead of this node's, where AWS refuses a signature and the clocks are so far apart that this may be why.
    pub fn clock_skew(&self) -> Option<i64> {
        self.skew
    }

    pub(crate) fn settings(endpoint: String, text: impl fmt::Display) -> Self {
        Self { class: Class::Misconfigured, hop: Hop::Settings, text: text.to_string(), ..Self::blank(endpoint) }
    }

    pub(crate) fn blank(endpoint: String) -> Self {
        Self {
            class: Class::Unreachable,
            hop: Hop::Http,
            code: None,
            request_id: None,
            status: None,
            text: String::new(),
            endpoint,
            proven: false,
            proxied: false,
            skew: None,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}): ", self.endpoint, self.hop.text())?;
        match &self.code {
            Some(code) => write!(f, "{code}")?,
            None => f.write_str(&self.text)?,
        }
        if self.code.is_some() && !self.text.is_empty() {
            write!(f, ": {}", self.text)?;
        }
        if let Some(skew) = self.skew {
            write!(f, "; the clocks of AWS and of this node are {} s apart, set this node's clock first", skew.unsigned_abs())?;
        }
        if let Some(id) = &self.request_id {
            write!(f, " (request {id})")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

/// A failure below HTTP, as the HTTP client hands it up through the SDK.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    pub class: Class,
    pub hop: Hop,
    pub text: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Failure {}

/// Codes that mean: the access key, or the signature made with it, is refused.
const CREDENTIALS: &[&str] = &[
    "UnrecognizedClientException",
    "InvalidClientTokenId",
    "InactiveAccessKey",
    "InvalidAccessKeyId",
    "InvalidSignatureException",
    "SignatureDoesNotMatch",
    "IncompleteSignature",
    "IncompleteSignatureException",
    "MissingAuthenticationToken",
    "MissingAuthenticationTokenException",
    "ExpiredToken",
    "ExpiredTokenException",
    "AuthFailure",
    "OptInRequired",
];

/// AWS's names for "too many requests" (AWS SDK, "Retry behavior").
const THROTTLES: &[&str] = &["ThrottlingException", "Throttling", "TooManyRequestsException", "TooManyRequests", "RequestLimitExceeded"];

/// Whether AWS's own name for an error means that it holds requests back.
pub fn is_throttle(code: &str) -> bool {
    THROTTLES.contains(&code)
}

/// The class of an AWS error code. `None`: not one that we know; the status decides.
fn class_of(code: &str, message: &str) -> Option<Class> {
    Some(match code {
        "DisabledException"
        | "NotFoundException"
        | "AccessDeniedException"
        | "AccessDenied"
        | "UnrecognizedClientException"
        | "InvalidClientTokenId"
        | "InvalidAccessKeyId"
        | "InactiveAccessKey" => Class::Revoked,
        // The name is one for many states; only the text tells which (AWS KMS Developer Guide, "Key states"). An unknown one is taken for the harmless kind: it is tried again.
        "KMSInvalidStateException" | "KMSInvalidState" => {
            let message = message.to_ascii_lowercase().replace([' ', '_'], "");
            if message.contains("pendingdeletion") || message.contains("pendingreplicadeletion") || message.contains("pendingimport") {
                Class::Revoked
            } else {
                Class::Transient
            }
        }
        "InvalidCiphertextException" => Class::Integrity,
        "ThrottlingException"
        | "Throttling"
        | "TooManyRequestsException"
        | "TooManyRequests"
        | "RequestLimitExceeded"
        | "KMSInternalException"
        | "KeyUnavailableException"
        | "DependencyTimeoutException"
        | "ServiceUnavailable"
        | "ServiceUnavailableException"
        | "InternalFailure"
        | "InternalError"
        | "RequestTimeout"
        | "RequestTimeoutException" => Class::Transient,
        "InvalidSignatureException"
        | "SignatureDoesNotMatch"
        | "IncompleteSignature"
        | "IncompleteSignatureException"
        | "MissingAuthenticationToken"
        | "MissingAuthenticationTokenException"
        | "ExpiredToken"
        | "ExpiredTokenException"
        | "AuthFailure"
        | "OptInRequired"
        | "ValidationException"
        | "ValidationError"
        | "InvalidArnException"
        | "InvalidArn"
        | "InvalidKeyUsageException"
        | "IncorrectKeyException"
        | "UnsupportedOperationException"
        | "LimitExceededException"
        | "InvalidGrantTokenException"
        | "DryRunOperationException"
        | "SerializationException"
        | "UnknownOperationException" => Class::Misconfigured,
        _ => return None,
    })
}

/// Reads an error of the SDK.
pub(crate) fn from_sdk<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>, blank: Error) -> Error {
    match error {
        SdkError::DispatchFailure(failure) => {
            let cause = failure.as_connector_error().and_then(std::error::Error::source).and_then(|source| source.downcast_ref::<Failure>());
            match cause {
                Some(cause) => Error { class: cause.class, hop: cause.hop, text: cause.text.clone(), ..blank },
                None => Error { text: "the request could not be sent".to_owned(), ..blank },
            }
        }
        SdkError::TimeoutError(_) => Error { text: "no answer in time".to_owned(), ..blank },
        SdkError::ServiceError(service) => from_answer(service.err().meta(), service.raw(), blank),
        SdkError::ResponseError(response) => from_answer(&aws_smithy_types::error::ErrorMetadata::builder().build(), response.raw(), blank),
        // The request could not even be built or signed.
        _ => Error { class: Class::Misconfigured, hop: Hop::Settings, text: "the request could not be made".to_owned(), ..blank },
    }
}

fn from_answer(meta: &aws_smithy_types::error::ErrorMetadata, raw: &HttpResponse, blank: Error) -> Error {
    let status = raw.status().as_u16();
    let body = raw.body().bytes().map(String::from_utf8_lossy).unwrap_or_default();
    // moto answers refused credentials in XML, as AWS's older services do.
    // A status of success with an error in it is nobody's.
    let code = code_of(meta.code(), status, &body);
    let header = |name: &str| raw.headers().get(name).map(str::to_owned);
    let request_id = header("x-amzn-requestid").or_else(|| header("x-amz-request-id")).or_else(|| element(&body, "RequestId"));
    let request_id = request_id.map(|id| shortened(&id)).filter(|id| !id.is_empty());
    let message = shortened(&meta.message().map(str::to_owned).or_else(|| element(&body, "Message")).unwrap_or_default());
    let answer = Error { status: Some(status), request_id, ..blank };
    let class = class_of_answer(Some(meta), raw);
    let Some(code) = code else {
        let text = format!("the answer with status {status} is not AWS's; something on the way speaks in its place");
        return Error { class, hop: Hop::Http, text, ..answer };
    };
    let is_signature = matches!(code.as_str(), "InvalidSignatureException" | "SignatureDoesNotMatch");
    let skew = header("date").filter(|_| is_signature).and_then(|date| skew_of(&date)).filter(|skew| skew.abs() >= SKEW);
    Error { class, hop: Hop::Aws, code: Some(code), text: message, skew, ..answer }
}

fn code_of(parsed: Option<&str>, status: u16, body: &str) -> Option<String> {
    let code = parsed.map(str::to_owned).or_else(|| element(body, "Code"));
    code.filter(|code| status >= 400 && is_code(code))
}

/// What the SDK has made of an answer, before it asks whether to send the request again.
pub(crate) fn class_of_answer(meta: Option<&aws_smithy_types::error::ErrorMetadata>, raw: &HttpResponse) -> Class {
    let status = raw.status().as_u16();
    let body = raw.body().bytes().map(String::from_utf8_lossy).unwrap_or_default();
    let message = meta.and_then(|meta| meta.message().map(str::to_owned)).or_else(|| element(&body, "Message")).unwrap_or_default();
    match code_of(meta.and_then(|meta| meta.code()), status, &body) {
        Some(code) => class_of(&code, &message).unwrap_or(if status >= 500 { Class::Transient } else { Class::Misconfigured }),
        None if status >= 500 => Class::Transient,
        None => Class::Unreachable,
    }
}

/// The difference of a `Date` header to this node's clock, in seconds.
pub(crate) fn skew_of(date: &str) -> Option<i64> {
    let theirs = aws_smithy_types::DateTime::from_str(date, aws_smithy_types::date_time::Format::HttpDate).ok()?.secs();
    let ours = jiff::Timestamp::now().as_second();
    Some(theirs - ours)
}

fn is_code(code: &str) -> bool {
    !code.is_empty() && code.len() <= 80 && code.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'.' || byte == b'_')
}

fn element(body: &str, name: &str) -> Option<String> {
    let (_, rest) = body.split_once(&format!("<{name}>"))?;
    let (text, _) = rest.split_once(&format!("</{name}>"))?;
    Some(text.trim().to_owned())
}

/// A peer's text, without control characters and not too long.
pub(crate) fn shortened(text: &str) -> String {
    text.chars().filter(|c| !c.is_control() && !is_direction(*c)).take(MAX_TEXT).collect()
}

/// Characters that turn the direction of what a terminal shows, or begin a line (Unicode Standard Annex 9, section 2).
fn is_direction(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_of_the_contract_has_its_class() {
        let table: &[(Class, &[&str])] = &[
            (
                Class::Revoked,
                &[
                    "DisabledException",
                    "NotFoundException",
                    "AccessDeniedException",
                    "UnrecognizedClientException",
                    "InvalidClientTokenId",
                    "InactiveAccessKey",
                ],
            ),
            (
                Class::Misconfigured,
                &[
                    "InvalidSignatureException",
                    "SignatureDoesNotMatch",
                    "IncompleteSignature",
                    "MissingAuthenticationToken",
                    "ExpiredToken",
                    "ValidationException",
                    "InvalidArnException",
                    "InvalidKeyUsageException",
                    "IncorrectKeyException",
                    "UnsupportedOperationException",
                    "LimitExceededException",
                ],
            ),
            (Class::Integrity, &["InvalidCiphertextException"]),
            (
                Class::Transient,
                &["ThrottlingException", "TooManyRequestsException", "KMSInternalException", "KeyUnavailableException", "DependencyTimeoutException"],
            ),
        ];
        for (class, codes) in table {
            for code in *codes {
                assert_eq!(class_of(code, ""), Some(*class), "{code}");
            }
        }
    }

    #[test]
    fn the_state_of_a_key_is_read_from_the_message() {
        let class = |message: &str| class_of("KMSInvalidStateException", message);
        assert_eq!(class("arn:aws:kms:… is pending deletion."), Some(Class::Revoked));
        assert_eq!(class("… is pending import."), Some(Class::Revoked));
        assert_eq!(class("key is in state PendingDeletion"), Some(Class::Revoked));
        assert_eq!(class("… is creating."), Some(Class::Transient));
        assert_eq!(class("… is unavailable."), Some(Class::Transient));
    }

    #[test]
    fn a_clock_that_is_off_is_measured() {
        assert!(skew_of("Thu, 01 Jan 1970 00:00:00 GMT").unwrap() < -1_000_000_000);
        assert_eq!(skew_of("not a date"), None);
    }

    #[test]
    fn the_text_names_endpoint_hop_and_code() {
        let error = Error {
            hop: Hop::Aws,
            code: Some("DisabledException".into()),
            text: "it is disabled".into(),
            request_id: Some("r-1".into()),
            ..Error::blank("kms.example:443".into())
        };
        assert_eq!(error.to_string(), "kms.example:443 (AWS): DisabledException: it is disabled (request r-1)");
    }
}

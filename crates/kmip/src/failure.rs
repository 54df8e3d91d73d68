//! Why an operation failed, as the peer sees it.

use crate::enumeration::ResultReason;
use crate::version::Version;
use std::fmt;

/// The longest text of a failure, in bytes.
const MAX_MESSAGE: usize = 512;

/// A result of an operation.
pub type Result<T> = std::result::Result<T, Failure>;

/// A failed operation: the reason of KMIP Specification 1.4, section 9.1.3.2.29, and of 2.1, section 11.46, and a text for people. No secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The reason in 1.x.
    pub reason: ResultReason,
    /// The reason in 2.x, where that version has one of its own for it.
    later: Option<ResultReason>,
    /// The text.
    pub message: String,
}

impl Failure {
    /// A failure. A text that is too long, since it quotes what a peer has sent, is cut.
    pub fn new(reason: ResultReason, message: impl Into<String>) -> Self {
        let mut message = message.into();
        message.truncate(message.floor_char_boundary(MAX_MESSAGE));
        Self { reason, later: None, message }
    }

    /// The same with the reason that 2.x has for it.
    #[must_use]
    pub fn since_2(self, reason: ResultReason) -> Self {
        Self { later: Some(reason), ..self }
    }

    /// The reason for a client of that version: one that came later says something else to older clients, and 2.x has taken some away.
    pub fn reason_in(&self, version: Version) -> ResultReason {
        use ResultReason as R;
        if version >= Version::V2_0 {
            return match (self.later, self.reason) {
                (Some(later), _) => later,
                (None, R::ItemNotFound) => R::ObjectNotFound,
                // Reserved since 2.0 (section 11.46).
                (None, R::IllegalOperation) => R::InvalidField,
                (None, R::IndexOutOfBounds) => R::ServerLimitExceeded,
                (None, other) => other,
            };
        }
        match self.reason {
            R::Sensitive | R::NotExtractable if version < Version::V1_4 => R::PermissionDenied,
            R::ObjectAlreadyExists if version < Version::V1_4 => R::InvalidField,
            other => other,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

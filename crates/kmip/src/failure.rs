//! Why an operation failed, as the peer sees it.

use crate::enumeration::{Enumeration as _, ResultReason};
use crate::tag::Tag;
use crate::ttlv::Node;
use crate::version::Version;
use crate::versions::has_member;
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
    /// Fields of the request that were denied: what a failed Check answers in 1.x (1.4, section 4.10).
    pub denied: Vec<Node<'static>>,
}

impl Failure {
    /// A failure. A text that is too long, since it quotes what a peer has sent, is cut.
    pub fn new(reason: ResultReason, message: impl Into<String>) -> Self {
        let mut message = message.into();
        message.truncate(message.floor_char_boundary(MAX_MESSAGE));
        Self { reason, later: None, message, denied: Vec::new() }
    }

    /// The same with the reason that 2.x has for it.
    #[must_use]
    pub fn since_2(self, reason: ResultReason) -> Self {
        Self { later: Some(reason), ..self }
    }

    /// The same with another reason in place of the one that 2.x has for it, where it has one: operations do not list the same reasons.
    pub(crate) fn relisted(self, reason: ResultReason) -> Self {
        Self { later: self.later.map(|_| reason), ..self }
    }

    /// The same with the fields of the request that were denied.
    #[must_use]
    pub fn denying(self, denied: Vec<Node<'static>>) -> Self {
        Self { denied, ..self }
    }

    /// The reason for a client of that version: one that came later says something else to older clients, and 2.x has taken some away.
    pub fn reason_in(&self, version: Version) -> ResultReason {
        use ResultReason as R;
        if version >= Version::V2_0 {
            return match (self.later, self.reason) {
                (Some(later), _) if has_member(Tag::ResultReason, later.number(), version) => later,
                (_, R::ItemNotFound) => R::ObjectNotFound,
                // Reserved since 2.0 (section 11.46).
                (_, R::IllegalOperation) => R::InvalidField,
                (_, R::IndexOutOfBounds) => R::ServerLimitExceeded,
                (_, other) => other,
            };
        }
        match self.reason {
            known if has_member(Tag::ResultReason, known.number(), version) => known,
            R::Sensitive | R::NotExtractable => R::PermissionDenied,
            R::KeyValueNotPresent => R::ItemNotFound,
            R::ObjectAlreadyExists | R::EncodingOptionError => R::InvalidField,
            _ => R::GeneralFailure,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

//! Why an operation failed, as the peer sees it.

use crate::enumeration::ResultReason;
use std::fmt;

/// A result of an operation.
pub type Result<T> = std::result::Result<T, Failure>;

/// A failed operation: the reason of KMIP Specification 1.4, section 9.1.3.2.29, and a text for people. No secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The reason.
    pub reason: ResultReason,
    /// The text.
    pub message: String,
}

impl Failure {
    /// A failure.
    pub fn new(reason: ResultReason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

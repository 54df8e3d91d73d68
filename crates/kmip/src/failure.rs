//! Why an operation failed, as the peer sees it.

use crate::enumeration::ResultReason;
use std::fmt;

/// The longest text of a failure, in bytes.
const MAX_MESSAGE: usize = 512;

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
    /// A failure. A text that is too long, since it quotes what a peer has sent, is cut.
    pub fn new(reason: ResultReason, message: impl Into<String>) -> Self {
        let mut message = message.into();
        message.truncate(message.floor_char_boundary(MAX_MESSAGE));
        Self { reason, message }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

//! Errors as AWS KMS answers them.

use serde_json::json;

/// An AWS error: its code, its HTTP status and the sentence for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KmsError {
    /// The exception's name, without a namespace, as in `__type`.
    pub code: String,
    /// The HTTP status.
    pub status: u16,
    /// The message.
    pub message: String,
}

impl KmsError {
    /// A client error: HTTP 400, as AWS answers every one of them.
    #[must_use]
    pub fn client(code: &str, message: impl Into<String>) -> Self {
        Self { code: code.into(), status: 400, message: message.into() }
    }

    /// A server error with its status.
    #[must_use]
    pub fn server(code: &str, status: u16, message: impl Into<String>) -> Self {
        Self { code: code.into(), status, message: message.into() }
    }

    /// The JSON body. AWS spells the member `Message` in a denial, since that does not come from the service's own model, and sends none at all where it has nothing to say.
    #[must_use]
    pub fn body(&self) -> Vec<u8> {
        let value = match (self.code.as_str(), self.message.is_empty()) {
            (_, true) => json!({ "__type": self.code }),
            ("AccessDeniedException", _) => json!({ "__type": self.code, "Message": self.message }),
            _ => json!({ "__type": self.code, "message": self.message }),
        };
        value.to_string().into_bytes()
    }
}

/// `ValidationException` for one member, worded as AWS words it.
pub(crate) fn validation(member: &str, constraint: &str) -> KmsError {
    KmsError::client("ValidationException", format!("1 validation error detected: Value at '{member}' failed to satisfy constraint: Member must {constraint}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_look_like_those_of_aws() {
        assert_eq!(KmsError::client("DisabledException", "").body(), br#"{"__type":"DisabledException"}"#);
        assert_eq!(KmsError::client("NotFoundException", "no").body(), br#"{"__type":"NotFoundException","message":"no"}"#);
        assert_eq!(KmsError::client("AccessDeniedException", "no").body(), br#"{"Message":"no","__type":"AccessDeniedException"}"#);
    }
}

//! The key manager's errors as KMIP clients see them. The table of this edge.

use keystead_kmip::Failure;
use keystead_kmip::enumeration::ResultReason;
use keystead_manager::{Code, Error};

/// The failure of an error.
pub fn failure(error: &Error) -> Failure {
    let reason = match error.code {
        // Blocked, and not usable yet or any more (`contract/revocation.md`).
        Code::Blocked | Code::NotConfigured | Code::Initializing | Code::Disabling | Code::KeystoreSwitching | Code::PermissionDenied | Code::LimitReached => {
            ResultReason::PermissionDenied
        }
        Code::KeyRecordDamaged => ResultReason::CryptographicFailure,
        _ => ResultReason::GeneralFailure,
    };
    if reason == ResultReason::GeneralFailure {
        tracing::warn!(code = error.code.number(), %error, detail = error.detail.as_deref(), "a KMIP operation failed");
    }
    Failure::new(reason, error.message.clone())
}

//! Errors as ONTAP writes them, and the HTTP status of each code. The status is picked here, last, and nowhere else.

use http::StatusCode;
use keystead_manager::{Code, Error};
use serde_json::{Map, Value, json};

/// The HTTP status of a code (`contract/rest.md`, sections 2 and 3).
pub fn status(code: Code) -> StatusCode {
    match code {
        Code::Duplicate | Code::InUse | Code::LastAdmin | Code::KeysStillStored | Code::AlreadyConfigured | Code::KeysOnAdminSvm | Code::OnboardConfigured => {
            StatusCode::CONFLICT
        }
        Code::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
        Code::NotFound | Code::NotConfigured | Code::KeyManagerNotFound => StatusCode::NOT_FOUND,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::LimitReached | Code::TooManyRequests => StatusCode::TOO_MANY_REQUESTS,
        Code::NotLoggedIn => StatusCode::UNAUTHORIZED,
        Code::AuditUnwritable => StatusCode::SERVICE_UNAVAILABLE,
        Code::Unexpected
        | Code::OutOfQuorum
        | Code::NoClusterAddress
        | Code::StoreSecretFailed
        | Code::DeleteViewNotLoaded
        | Code::DeleteRangeFailed
        | Code::DeleteStoreTimeout
        | Code::KeyRecordMissing
        | Code::KeyRecordDamaged => StatusCode::INTERNAL_SERVER_ERROR,
        _ => StatusCode::BAD_REQUEST,
    }
}

/// The body of an error.
pub fn body(error: &Error) -> Value {
    json!({ "error": inner(error) })
}

/// What a body says of an error, within `error`.
pub fn inner(error: &Error) -> Map<String, Value> {
    let mut inner = Map::new();
    inner.insert("message".to_owned(), json!(error.message));
    inner.insert("code".to_owned(), json!(error.code.to_string()));
    // A member or parameter whose name is empty has no name to show.
    if let Some(target) = error.target.as_ref().filter(|target| !target.is_empty()) {
        inner.insert("target".to_owned(), json!(target));
    }
    inner
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_body_holds_a_string_that_holds_an_integer() {
        let error = Error::with(Code::AlreadyConfigured, "the SVM x").target("svm").detail("only for the log");
        let text = body(&error).to_string();
        assert_eq!(body(&error)["error"]["code"], "65537910");
        assert_eq!(body(&error)["error"]["target"], "svm");
        assert!(!text.contains("only for the log"));
        assert!(body(&Error::new(Code::NoInput))["error"].get("target").is_none());
    }

    #[test]
    fn each_code_has_a_status_of_an_error() {
        for code in Code::ALL {
            assert!(status(*code).as_u16() >= 400, "{code}");
        }
    }
}

//! Every call of the API, in one table.

use crate::login::Access;
use crate::request::{Answer, Request};
use crate::{aws_kms, certificates, cluster, ekmip_clients, ems, jobs, key_managers, key_stores, password, security, settings, signing_requests, svms};
use http::Method;
use keystead_manager::{Code, Error, Result};
use percent_encoding::percent_decode_str;
use std::future::Future;
use std::pin::Pin;

/// What answers a call.
pub type Handler = fn(Request) -> Pin<Box<dyn Future<Output = Result<Answer>> + Send>>;

/// One call.
pub struct Route {
    /// The method.
    pub method: Method,
    /// The path; `{}` stands for one variable part.
    pub path: &'static str,
    /// Who may make it.
    pub access: Access,
    /// What answers it.
    pub handler: Handler,
}

macro_rules! routes {
    ($($method:ident $path:literal $access:ident $handler:path;)*) => {
        /// The table.
        pub static ROUTES: &[Route] = &[$(Route { method: Method::$method, path: $path, access: Access::$access, handler: |request| Box::pin($handler(request)) }),*];
    };
}

routes! {
    GET    "/api/cluster"                                      Read   cluster::show;
    GET    "/api/cluster/nodes"                                Read   cluster::nodes;
    GET    "/api/cluster/nodes/{}"                             Read   cluster::node;
    GET    "/api/cluster/jobs"                                 Read   jobs::list;
    GET    "/api/cluster/jobs/{}"                              Read   jobs::show;
    PATCH  "/api/cluster/jobs/{}"                              Change jobs::control;
    GET    "/api/svm/svms"                                     Read   svms::list;
    POST   "/api/svm/svms"                                     Change svms::create;
    GET    "/api/svm/svms/{}"                                  Read   svms::show;
    PATCH  "/api/svm/svms/{}"                                  Change svms::modify;
    DELETE "/api/svm/svms/{}"                                  Change svms::delete;
    GET    "/api/security"                                     Read   security::show;
    PATCH  "/api/security"                                     Change security::modify;
    GET    "/api/security/aws-kms"                             Read   aws_kms::list;
    POST   "/api/security/aws-kms"                             Change aws_kms::create;
    GET    "/api/security/aws-kms/{}"                          Read   aws_kms::show;
    PATCH  "/api/security/aws-kms/{}"                          Change aws_kms::modify;
    DELETE "/api/security/aws-kms/{}"                          Change aws_kms::delete;
    POST   "/api/security/aws-kms/{}/restore"                  Change aws_kms::restore;
    POST   "/api/security/aws-kms/{}/rekey-internal"           Change aws_kms::rekey_internal;
    POST   "/api/security/aws-kms/{}/rekey-external"           Change aws_kms::rekey_external;
    GET    "/api/security/certificates"                        Read   certificates::list;
    POST   "/api/security/certificates"                        Change certificates::create;
    GET    "/api/security/certificates/{}"                     Read   certificates::show;
    DELETE "/api/security/certificates/{}"                     Change certificates::delete;
    POST   "/api/security/certificates/{}/sign"                Change certificates::sign;
    POST   "/api/security/certificate-signing-request"         Change signing_requests::create;
    GET    "/api/security/key-managers"                        Read   key_managers::list;
    POST   "/api/security/key-managers"                        Change key_managers::create;
    GET    "/api/security/key-managers/{}"                     Read   key_managers::show;
    PATCH  "/api/security/key-managers/{}"                     Change key_managers::modify;
    DELETE "/api/security/key-managers/{}"                     Change key_managers::delete;
    POST   "/api/security/key-managers/{}/migrate"             Change key_managers::migrate;
    GET    "/api/security/key-managers/{}/keys/{}/key-ids"     Read   key_stores::key_ids;
    GET    "/api/security/key-stores"                          Read   key_stores::list;
    GET    "/api/security/key-stores/{}"                       Read   key_stores::show;
    GET    "/api/security/ekmip/clients"                       Read   ekmip_clients::list;
    POST   "/api/security/ekmip/clients"                       Change ekmip_clients::create;
    GET    "/api/security/ekmip/clients/{}"                    Read   ekmip_clients::show;
    DELETE "/api/security/ekmip/clients/{}"                    Change ekmip_clients::delete;
    GET    "/api/security/ekmip/client-cas"                    Read   ekmip_clients::list_cas;
    POST   "/api/security/ekmip/client-cas"                    Change ekmip_clients::create_ca;
    GET    "/api/security/ekmip/client-cas/{}"                 Read   ekmip_clients::show_ca;
    DELETE "/api/security/ekmip/client-cas/{}"                 Change ekmip_clients::delete_ca;
    GET    "/api/security/ekmip/settings"                      Read   settings::show;
    PATCH  "/api/security/ekmip/settings"                      Change settings::modify;
    POST   "/api/security/authentication/password"             Read   password::change;
    GET    "/api/support/ems/events"                           Read   ems::events;
    GET    "/api/support/ems/events/{}/{}"                     Read   ems::event;
    GET    "/api/support/ems/messages"                         Read   ems::messages;
}

/// What a path leads to.
pub enum Found {
    /// A call, with the variable parts of its path.
    Route(&'static Route, Vec<String>),
    /// The path exists, with these methods.
    OtherMethods(String),
}

/// Finds the call. A slash at the end is accepted, two in a row are not.
///
/// # Errors
/// 3 no such path; 39387137 a path that cannot be decoded.
pub fn find(method: &Method, path: &str) -> Result<Found> {
    let path = path.strip_suffix('/').unwrap_or(path);
    let mut allowed = Vec::new();
    for route in ROUTES {
        let Some(segments) = matched(route.path, path)? else { continue };
        if route.method == *method {
            return Ok(Found::Route(route, segments));
        }
        allowed.push(route.method.as_str());
        if route.method == Method::GET {
            allowed.push("HEAD");
        }
    }
    if allowed.is_empty() {
        return Err(Error::with(Code::MethodNotAllowed, "there is no such path"));
    }
    allowed.push("OPTIONS");
    Ok(Found::OtherMethods(allowed.join(", ")))
}

fn matched(pattern: &str, path: &str) -> Result<Option<Vec<String>>> {
    let mut segments = Vec::new();
    let mut parts = path.split('/');
    for expected in pattern.split('/') {
        match parts.next() {
            Some(part) if expected == "{}" && !part.is_empty() => {
                let decoded = percent_decode_str(part).decode_utf8().map_err(|_| Error::with(Code::BadUrl, "the path is not UTF-8"))?;
                segments.push(decoded.into_owned());
            }
            Some(part) if part == expected => {}
            _ => return Ok(None),
        }
    }
    Ok(parts.next().is_none().then_some(segments))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handler(method: Method, path: &str) -> Option<(&'static str, Vec<String>)> {
        match find(&method, path) {
            Ok(Found::Route(route, segments)) => Some((route.path, segments)),
            _ => None,
        }
    }

    #[test]
    fn paths_are_found_with_and_without_a_slash_at_the_end() {
        assert_eq!(handler(Method::GET, "/api/cluster"), Some(("/api/cluster", vec![])));
        assert_eq!(handler(Method::GET, "/api/cluster/"), Some(("/api/cluster", vec![])));
        assert_eq!(handler(Method::GET, "/api/svm/svms/x%20y"), Some(("/api/svm/svms/{}", vec!["x y".into()])));
        assert_eq!(handler(Method::POST, "/api/security/aws-kms/1/restore"), Some(("/api/security/aws-kms/{}/restore", vec!["1".into()])));
    }

    #[test]
    fn what_is_not_there_is_said() {
        assert!(find(&Method::GET, "/api//cluster").is_err() && find(&Method::GET, "/api/cluster//").is_err() && find(&Method::GET, "/").is_err());
        assert!(matches!(find(&Method::PUT, "/api/cluster"), Ok(Found::OtherMethods(allow)) if allow == "GET, HEAD, OPTIONS"));
        assert!(matches!(find(&Method::GET, "/api/svm/svms/%ff"), Err(error) if error.code == Code::BadUrl));
    }
}

//! Every call of the API, in one table.

use crate::login::Access;
use crate::request::{Answer, Request};
use crate::{
    accounts, audit_messages, aws_kms, certificates, cluster, cluster_ca, ekmip_clients, ems, jobs, key_managers, key_stores, metrics, password, roles,
    security, sessions, settings, signing_requests, svms,
};
use http::Method;
use keystead_manager::{Code, Error, Result};
use percent_encoding::percent_decode_str;
use std::future::Future;
use std::pin::Pin;

/// What answers a call.
type Handler = fn(Request) -> Pin<Box<dyn Future<Output = Result<Answer>> + Send>>;

/// One call.
pub struct Route {
    /// The method.
    pub method: Method,
    /// The path; `{}` stands for one variable part.
    pub path: &'static str,
    /// Who may make it.
    pub access: Access,
    /// What answers it. Called by [`answer`] alone, and so never for a request that another call was permitted.
    handler: Handler,
}

macro_rules! routes {
    ($($method:ident $path:literal $access:ident $handler:path;)*) => {
        /// The table.
        pub static ROUTES: &[Route] = &[$(Route { method: Method::$method, path: $path, access: Access::$access, handler: |request| Box::pin($handler(request)) }),*];
    };
}

routes! {
    GET    "/api/cluster"                                       Read          cluster::show;
    GET    "/api/cluster/nodes"                                 Read          cluster::nodes;
    GET    "/api/cluster/nodes/{}"                              Read          cluster::node;
    DELETE "/api/cluster/nodes/{}"                              ChangeCluster cluster::remove;
    GET    "/api/cluster/jobs"                                  Read          jobs::list;
    GET    "/api/cluster/jobs/{}"                               Read          jobs::show;
    PATCH  "/api/cluster/jobs/{}"                               ChangeSvm     jobs::control;
    GET    "/api/svm/svms"                                      Read          svms::list;
    POST   "/api/svm/svms"                                      ChangeCluster svms::create;
    GET    "/api/svm/svms/{}"                                   Read          svms::show;
    PATCH  "/api/svm/svms/{}"                                   ChangeCluster svms::modify;
    DELETE "/api/svm/svms/{}"                                   ChangeCluster svms::delete;
    GET    "/api/security"                                      Read          security::show;
    PATCH  "/api/security"                                      ChangeCluster security::modify;
    GET    "/api/security/aws-kms"                              Read          aws_kms::list;
    POST   "/api/security/aws-kms"                              ChangeSvm     aws_kms::create;
    GET    "/api/security/aws-kms/{}"                           Read          aws_kms::show;
    PATCH  "/api/security/aws-kms/{}"                           ChangeSvm     aws_kms::modify;
    DELETE "/api/security/aws-kms/{}"                           ChangeSvm     aws_kms::delete;
    POST   "/api/security/aws-kms/{}/restore"                   ChangeSvm     aws_kms::restore;
    POST   "/api/security/aws-kms/{}/rekey-internal"            ChangeSvm     aws_kms::rekey_internal;
    POST   "/api/security/aws-kms/{}/rekey-external"            ChangeSvm     aws_kms::rekey_external;
    GET    "/api/security/certificates"                         Read          certificates::list;
    POST   "/api/security/certificates"                         ChangeSvm     certificates::create;
    GET    "/api/security/certificates/{}"                      Read          certificates::show;
    DELETE "/api/security/certificates/{}"                      ChangeSvm     certificates::delete;
    POST   "/api/security/certificates/{}/sign"                 ChangeSvm     certificates::sign;
    POST   "/api/security/certificate-signing-request"          ChangeSvm     signing_requests::create;
    GET    "/api/security/key-managers"                         Read          key_managers::list;
    POST   "/api/security/key-managers"                         ChangeCluster key_managers::create;
    GET    "/api/security/key-managers/{}"                      Read          key_managers::show;
    PATCH  "/api/security/key-managers/{}"                      ChangeCluster key_managers::modify;
    DELETE "/api/security/key-managers/{}"                      ChangeCluster key_managers::delete;
    POST   "/api/security/key-managers/{}/migrate"              ChangeSvm     key_managers::migrate;
    GET    "/api/security/key-managers/{}/keys/{}/key-ids"      Read          key_stores::key_ids;
    GET    "/api/security/key-stores"                           Read          key_stores::list;
    GET    "/api/security/key-stores/{}"                        Read          key_stores::show;
    GET    "/api/security/ekmip/clients"                        Read          ekmip_clients::list;
    POST   "/api/security/ekmip/clients"                        ChangeSvm     ekmip_clients::create;
    GET    "/api/security/ekmip/clients/{}"                     Read          ekmip_clients::show;
    DELETE "/api/security/ekmip/clients/{}"                     ChangeSvm     ekmip_clients::delete;
    GET    "/api/security/ekmip/client-cas"                     Read          ekmip_clients::list_cas;
    POST   "/api/security/ekmip/client-cas"                     ChangeCluster ekmip_clients::create_ca;
    GET    "/api/security/ekmip/client-cas/{}"                  Read          ekmip_clients::show_ca;
    DELETE "/api/security/ekmip/client-cas/{}"                  ChangeSvm     ekmip_clients::delete_ca;
    POST   "/api/security/ekmip/preflight"                      ChangeSvm     aws_kms::preflight;
    GET    "/api/security/ekmip/settings"                       ReadCluster   settings::show;
    PATCH  "/api/security/ekmip/settings"                       ChangeCluster settings::modify;
    GET    "/api/security/ekmip/ca"                             ReadCluster   cluster_ca::show;
    POST   "/api/security/ekmip/ca/prepare"                     ChangeCluster cluster_ca::prepare;
    POST   "/api/security/ekmip/ca/switch"                      ChangeCluster cluster_ca::switch;
    POST   "/api/security/ekmip/ca/finish"                      ChangeCluster cluster_ca::finish;
    POST   "/api/security/ekmip/seal/rotate"                    ChangeCluster settings::rotate_seal;
    GET    "/api/security/accounts"                             Read          accounts::list;
    POST   "/api/security/accounts"                             ChangeCluster accounts::create;
    GET    "/api/security/accounts/{}/{}"                       Read          accounts::show;
    PATCH  "/api/security/accounts/{}/{}"                       ChangeCluster accounts::modify;
    DELETE "/api/security/accounts/{}/{}"                       ChangeCluster accounts::delete;
    GET    "/api/security/roles"                                Read          roles::list;
    GET    "/api/security/roles/{}/{}"                          Read          roles::show;
    GET    "/api/security/audit/messages"                       Read          audit_messages::list;
    POST   "/api/security/authentication/password"              Own           password::change;
    GET    "/api/security/ekmip/sessions"                       Own           sessions::list;
    POST   "/api/security/ekmip/sessions"                       Own           sessions::create;
    GET    "/api/security/ekmip/sessions/{}"                    Own           sessions::show;
    DELETE "/api/security/ekmip/sessions/{}"                    Own           sessions::delete;
    GET    "/api/support/ems/events"                            Read          ems::events;
    GET    "/api/support/ems/events/{}/{}"                      Read          ems::event;
    GET    "/api/support/ems/messages"                          Read          ems::messages;
}

/// What Prometheus reads: no call of the API, and in no list of those; it needs a login as they do.
pub static METRICS: Route = Route { method: Method::GET, path: "/metrics", access: Access::ReadCluster, handler: |request| Box::pin(metrics::show(request)) };

/// Has a request answered by the call that it was permitted, about the SVM that its headers name.
pub fn answer(mut request: Request) -> Pin<Box<dyn Future<Output = Result<Answer>> + Send>> {
    // What makes something reads its body first, and what that names of an SVM together with the headers.
    let makes = request.method == Method::POST && request.segments.is_empty();
    if !makes && let Err(error) = request.enter_svm() {
        return Box::pin(std::future::ready(Err(error)));
    }
    (request.permit().route().handler)(request)
}

/// What a path leads to.
pub enum Found {
    /// A call, with the variable parts of its path.
    Route(&'static Route, Vec<String>),
    /// PATCH or DELETE of a collection, and the call for each of its records.
    Collection(&'static Route),
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
    for route in ROUTES.iter().chain([&METRICS]) {
        let Some(segments) = matched(route.path, path)? else { continue };
        if route.method == *method {
            return Ok(Found::Route(route, segments));
        }
        allowed.push(route.method.as_str());
        if route.method == Method::GET {
            allowed.push("HEAD");
        }
    }
    for each in [Method::PATCH, Method::DELETE] {
        // A collection is what can be listed, and whose records can be changed.
        let Some(route) = of_records(&each, path)?.filter(|_| allowed.contains(&"GET") && !allowed.contains(&each.as_str())) else { continue };
        if each == *method {
            return Ok(Found::Collection(route));
        }
        allowed.push(route.method.as_str());
    }
    if allowed.is_empty() {
        return Err(Error::with(Code::MethodNotAllowed, "there is no such path"));
    }
    allowed.push("OPTIONS");
    Ok(Found::OtherMethods(allowed.join(", ")))
}

/// The calls for one record of a collection that can be made for many, and by which method.
pub fn of_collection(collection: &str) -> Vec<(&'static Route, Method)> {
    let each = |method: Method| {
        let exact = ROUTES.iter().any(|route| route.path == collection && route.method == method);
        let found = of_records(&method, collection).ok().flatten().filter(|_| !exact)?;
        Some((found, method))
    };
    [Method::PATCH, Method::DELETE].into_iter().filter_map(each).collect()
}

/// Whether a call is about a collection: records stand under its path.
pub fn is_collection(route: &Route) -> bool {
    ROUTES.iter().any(|other| {
        other.method == Method::GET
            && other.path.strip_prefix(route.path).is_some_and(|rest| !rest.is_empty() && rest.split('/').all(|part| part.is_empty() || part == "{}"))
    })
}

/// The call for one record of a collection: its path goes on with variable parts alone.
fn of_records(method: &Method, collection: &str) -> Result<Option<&'static Route>> {
    for route in ROUTES.iter().filter(|route| route.method == *method) {
        let mut pattern = route.path;
        while let Some(shorter) = pattern.strip_suffix("/{}") {
            pattern = shorter;
            if matched(pattern, collection)?.is_some() {
                return Ok(Some(route));
            }
        }
    }
    Ok(None)
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
        assert!(matches!(find(&Method::DELETE, "/api/cluster"), Ok(Found::OtherMethods(_))));
        assert!(matches!(find(&Method::OPTIONS, "/api/svm/svms"), Ok(Found::OtherMethods(allow)) if allow == "GET, HEAD, POST, PATCH, DELETE, OPTIONS"));
        assert!(matches!(find(&Method::PATCH, "/api/svm/svms"), Ok(Found::Collection(route)) if route.path == "/api/svm/svms/{}"));
        assert!(matches!(find(&Method::PATCH, "/api/security/certificates"), Ok(Found::OtherMethods(_))));
        assert!(matches!(find(&Method::GET, "/api/svm/svms/%ff"), Err(error) if error.code == Code::BadUrl));
    }
}

//! Every page, in one table.

use super::visit::{Visit, missing};
use super::{accounts, actions, audit, change, clients, enable, events, jobs, login, nodes, overview, password, svm};
use crate::request::Answer;
use http::Method;
use keystead_manager::{Code, Error, Result};
use percent_encoding::percent_decode_str;
use std::future::Future;
use std::pin::Pin;

/// What answers a visit.
type Handler = for<'v> fn(Visit<'v>) -> Pin<Box<dyn Future<Output = Result<Answer>> + Send + 'v>>;

/// A page.
struct Page {
    method: Method,
    /// Below `/console/`; `{}` stands for one variable part.
    path: &'static str,
    /// The call that it stands for: who may not make it is not shown the page either.
    call: (Method, &'static str),
    handler: Handler,
}

macro_rules! pages {
    ($($method:ident $path:literal => $call_method:ident $call:literal $handler:path;)*) => {
        static PAGES: &[Page] = &[$(Page {
            method: Method::$method,
            path: $path,
            call: (Method::$call_method, $call),
            handler: {
                fn run<'v>(visit: Visit<'v>) -> Pin<Box<dyn Future<Output = Result<Answer>> + Send + 'v>> {
                    Box::pin($handler(visit))
                }
                run
            },
        }),*];
    };
}

pages! {
    GET  ""                         => GET    "/api/svm/svms"                           overview::show;
    GET  "svms/new"                 => POST   "/api/svm/svms"                           overview::new;
    POST "svms/new"                 => POST   "/api/svm/svms"                           overview::create;
    GET  "svms/{}"                  => GET    "/api/svm/svms/{}"                        svm::show;
    GET  "svms/{}/enable"           => POST   "/api/security/aws-kms"                   enable::show;
    POST "svms/{}/enable"           => POST   "/api/security/aws-kms"                   enable::send;
    GET  "svms/{}/change"           => PATCH  "/api/security/aws-kms/{}"                change::show;
    POST "svms/{}/change"           => PATCH  "/api/security/aws-kms/{}"                change::send;
    GET  "svms/{}/rekey-internal"   => POST   "/api/security/aws-kms/{}/rekey-internal" actions::ask_rekey_internal;
    POST "svms/{}/rekey-internal"   => POST   "/api/security/aws-kms/{}/rekey-internal" actions::rekey_internal;
    GET  "svms/{}/rekey-external"   => POST   "/api/security/aws-kms/{}/rekey-external" actions::ask_rekey_external;
    POST "svms/{}/rekey-external"   => POST   "/api/security/aws-kms/{}/rekey-external" actions::rekey_external;
    GET  "svms/{}/restore"          => POST   "/api/security/aws-kms/{}/restore"        actions::ask_restore;
    POST "svms/{}/restore"          => POST   "/api/security/aws-kms/{}/restore"        actions::restore;
    GET  "svms/{}/disable"          => DELETE "/api/security/aws-kms/{}"                actions::ask_disable;
    POST "svms/{}/disable"          => DELETE "/api/security/aws-kms/{}"                actions::disable;
    GET  "svms/{}/delete"           => DELETE "/api/svm/svms/{}"                        actions::ask_delete;
    POST "svms/{}/delete"           => DELETE "/api/svm/svms/{}"                        actions::delete;
    GET  "svms/{}/clients"          => GET    "/api/security/ekmip/clients"             clients::list;
    GET  "svms/{}/clients/new"      => POST   "/api/security/ekmip/clients"             clients::new;
    POST "svms/{}/clients/new"      => POST   "/api/security/ekmip/clients"             clients::create;
    GET  "svms/{}/clients/{}/revoke" => DELETE "/api/security/ekmip/clients/{}"         clients::ask_revoke;
    POST "svms/{}/clients/{}/revoke" => DELETE "/api/security/ekmip/clients/{}"         clients::revoke;
    GET  "jobs"                     => GET    "/api/cluster/jobs"                       jobs::list;
    GET  "jobs/{}"                  => GET    "/api/cluster/jobs/{}"                    jobs::show;
    POST "jobs/{}/pause"            => PATCH  "/api/cluster/jobs/{}"                    jobs::pause;
    POST "jobs/{}/resume"           => PATCH  "/api/cluster/jobs/{}"                    jobs::resume;
    GET  "jobs/{}/cancel"           => PATCH  "/api/cluster/jobs/{}"                    jobs::ask_cancel;
    POST "jobs/{}/cancel"           => PATCH  "/api/cluster/jobs/{}"                    jobs::cancel;
    GET  "events"                   => GET    "/api/support/ems/events"                 events::list;
    GET  "audit"                    => GET    "/api/security/audit/messages"            audit::list;
    GET  "nodes"                    => GET    "/api/cluster/nodes"                      nodes::list;
    GET  "accounts"                 => GET    "/api/security/accounts"                  accounts::list;
    GET  "accounts/new"             => POST   "/api/security/accounts"                  accounts::new;
    POST "accounts/new"             => POST   "/api/security/accounts"                  accounts::create;
    GET  "accounts/{}/{}/lock"      => PATCH  "/api/security/accounts/{}/{}"            accounts::ask_lock;
    POST "accounts/{}/{}/lock"      => PATCH  "/api/security/accounts/{}/{}"            accounts::lock;
    POST "accounts/{}/{}/unlock"    => PATCH  "/api/security/accounts/{}/{}"            accounts::unlock;
    GET  "accounts/{}/{}/password"  => PATCH  "/api/security/accounts/{}/{}"            accounts::ask_password;
    POST "accounts/{}/{}/password"  => PATCH  "/api/security/accounts/{}/{}"            accounts::set_password;
    GET  "accounts/{}/{}/delete"    => DELETE "/api/security/accounts/{}/{}"            accounts::ask_delete;
    POST "accounts/{}/{}/delete"    => DELETE "/api/security/accounts/{}/{}"            accounts::delete;
    GET  "password"                 => POST   "/api/security/authentication/password"   password::show;
    POST "password"                 => POST   "/api/security/authentication/password"   password::change;
    POST "logout"                   => DELETE "/api/security/ekmip/sessions/{}"         login::end;
}

/// The parts of the console, as every page names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Section {
    /// The SVMs: the first page.
    Svms,
    /// The jobs.
    Jobs,
    /// The events.
    Events,
    /// The audit log.
    Audit,
    /// The accounts.
    Accounts,
    /// The nodes.
    Nodes,
}

impl Section {
    /// In their order.
    pub const ALL: [Self; 6] = [Self::Svms, Self::Jobs, Self::Events, Self::Audit, Self::Accounts, Self::Nodes];

    /// What it is called.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Svms => "SVMs",
            Self::Jobs => "Jobs",
            Self::Events => "Events",
            Self::Audit => "Audit",
            Self::Accounts => "Accounts",
            Self::Nodes => "Nodes",
        }
    }

    /// Where it stands.
    pub const fn path(self) -> &'static str {
        match self {
            Self::Svms => "/console/",
            Self::Jobs => "/console/jobs",
            Self::Events => "/console/events",
            Self::Audit => "/console/audit",
            Self::Accounts => "/console/accounts",
            Self::Nodes => "/console/nodes",
        }
    }

    /// The one that an address belongs to.
    pub fn of(address: &str) -> Option<Self> {
        let path = address.split('?').next().unwrap_or_default();
        let inner = path.strip_prefix(super::ROOT)?;
        let first = inner.split('/').next().unwrap_or_default();
        match first {
            "" | "svms" => Some(Self::Svms),
            _ => Self::ALL.into_iter().find(|section| section.path().strip_prefix(super::ROOT) == Some(first)),
        }
    }
}

/// Answers a visit. `path`: below `/console/`.
///
/// # Errors
/// 4 there is no such page; 6 the role may not make the call that it stands for; else what the page answers.
pub async fn answer(mut visit: Visit<'_>, method: &Method, path: &str) -> Result<Answer> {
    let path = path.strip_suffix('/').unwrap_or(path);
    // A fixed part comes before a variable one: `svms/new` is no SVM.
    let found = PAGES.iter().filter(|page| page.method == *method).find_map(|page| Some((page, matched(page.path, path)?)));
    let Some((page, segments)) = found else {
        let is_form = PAGES.iter().any(|page| matched(page.path, path).is_some());
        return Err(if is_form { Error::with(Code::NotFound, "this page takes a form alone") } else { missing() });
    };
    if !visit.may(&page.call.0, page.call.1) {
        return Err(Error::with(Code::PermissionDenied, format!("the role of {} is {}", visit.who.name, visit.who.role.name().text())));
    }
    visit.segments = segments;
    (page.handler)(visit).await
}

fn matched(pattern: &str, path: &str) -> Option<Vec<String>> {
    let mut segments = Vec::new();
    let mut parts = path.split('/');
    for expected in pattern.split('/') {
        let part = parts.next()?;
        if expected == "{}" && !part.is_empty() {
            segments.push(percent_decode_str(part).decode_utf8().ok()?.into_owned());
        } else if part != expected {
            return None;
        }
    }
    parts.next().is_none().then_some(segments)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routes::{Found, find};

    #[test]
    fn each_page_stands_for_a_call_that_there_is() {
        for page in PAGES {
            assert!(matches!(find(&page.call.0, page.call.1), Ok(Found::Route(..))), "{}", page.path);
            // What changes something is never done by a GET.
            assert!(page.method == Method::POST || !page.path.ends_with("unlock"), "{}", page.path);
        }
    }

    #[test]
    fn addresses_belong_to_sections() {
        assert_eq!(Section::of("/console/"), Some(Section::Svms));
        assert_eq!(Section::of("/console/svms/1/enable"), Some(Section::Svms));
        assert_eq!(Section::of("/console/events?svm.name=x"), Some(Section::Events));
        assert_eq!(Section::of("/console/password"), None);
        assert_eq!(matched("svms/{}", "svms/a%20b"), Some(vec!["a b".to_owned()]));
        assert_eq!(matched("svms/{}", "svms/"), None);
    }
}

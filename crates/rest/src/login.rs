//! Login: HTTP Basic (RFC 7617), a session of the console, or a TLS client certificate; and what each account may call.

use crate::client_certificates::{Certificate, Vouchers};
use crate::routes::Route;
use crate::sessions;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::{HeaderMap, header};
use keystead_manager::model::{Principal, Role};
use keystead_manager::{Code, Error, Login, Manager};
use secrecy::SecretString;
use std::net::IpAddr;
use std::sync::Arc;
use zeroize::Zeroizing;

/// Who may make a call. The table of routes says it for each, and this is the one place where roles mean something for a call as such; whose objects an account sees and changes is looked at with each
/// object ([`Request::sees`](crate::Request::sees), and the key manager).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Everybody, for their own account or session.
    Own,
    /// Everybody. An SVM's administrator finds what is that SVM's.
    Read,
    /// Who may read what is the cluster's own.
    ReadCluster,
    /// Who may change things of an SVM.
    ChangeSvm,
    /// Who may change the cluster.
    ChangeCluster,
}

impl Access {
    /// Whether a role may make such a call.
    pub fn allows(self, role: Role) -> bool {
        match (self, role) {
            (_, Role::Admin) | (Self::Own | Self::Read, _) => true,
            (Self::ReadCluster, Role::Readonly) | (Self::ChangeSvm, Role::Vsadmin { .. }) => true,
            (Self::ReadCluster | Self::ChangeCluster, Role::Vsadmin { .. }) | (Self::ChangeSvm | Self::ChangeCluster, Role::Readonly) => false,
        }
    }
}

/// The proof that an account may make a call. Only this file makes one, after the check.
///
/// ```compile_fail
/// fn forged(who: keystead_manager::model::Principal, route: &'static keystead_rest::routes::Route) -> keystead_rest::Permit {
///     keystead_rest::Permit { who, route, proof: keystead_rest::Proof::Password }
/// }
/// ```
#[derive(Clone)]
pub struct Permit {
    who: Principal,
    proof: Proof,
    route: &'static Route,
}

/// How an account has shown who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// With its password.
    Password,
    /// With a session that was begun with the password.
    Session,
    /// With a client certificate.
    Certificate,
}

impl Permit {
    fn new(who: Principal, proof: Proof, route: &'static Route) -> Result<Self, Error> {
        if route.access.allows(who.role) {
            return Ok(Self { who, proof, route });
        }
        Err(Error::with(Code::PermissionDenied, format!("the role of {} is {}", who.name, who.role.name().text())))
    }

    /// Who it is.
    pub fn who(&self) -> &Principal {
        &self.who
    }

    /// How it has shown that.
    pub fn proof(&self) -> Proof {
        self.proof
    }

    /// The call.
    pub fn route(&self) -> &'static Route {
        self.route
    }

    /// The same account's permit for another call.
    ///
    /// # Errors
    /// 6 the role does not allow it.
    pub fn for_call(&self, route: &'static Route) -> Result<Self, Error> {
        Self::new(self.who.clone(), self.proof, route)
    }
}

/// A body that nobody reads before a call was permitted.
///
/// ```compile_fail
/// let body = keystead_rest::Locked::new("a body");
/// let text = body.open();
/// ```
/// ```compile_fail
/// let body = keystead_rest::Locked::new("a body");
/// let text = body.0;
/// ```
/// With a permit it is read, and that alone is what the two have not:
/// ```
/// fn read(permit: &keystead_rest::Permit) -> &'static str {
///     let body = keystead_rest::Locked::new("a body");
///     body.open(permit)
/// }
/// ```
pub struct Locked<B>(B);

impl<B> Locked<B> {
    /// Locks a body.
    pub fn new(body: B) -> Self {
        Self(body)
    }

    /// The body.
    pub fn open(self, _permit: &Permit) -> B {
        self.0
    }

    /// The body of a form of the console. What it asks for is a call, with a permit of its own; but the form that logs in is read before anybody has, and so its length has a bound of its own.
    pub(crate) fn open_form(self) -> B {
        self.0
    }
}

/// Who has connected, as far as the connection itself says it.
pub struct Sender {
    source: IpAddr,
    certificate: Option<Certificate>,
    vouchers: Arc<Vouchers>,
}

impl Sender {
    /// A connection from there, with the certificate that it has shown.
    pub fn new(source: IpAddr, certificate: Option<Certificate>, vouchers: Arc<Vouchers>) -> Self {
        Self { source, certificate, vouchers }
    }
}

/// A request that goes no further.
#[derive(Debug)]
pub struct Refused {
    /// The account, as it was named; nobody has proven to be that.
    pub name: Option<String>,
    /// Who it is, where that is known and the role does not allow it.
    pub who: Option<Principal>,
    /// Why.
    pub error: Error,
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Self { name: None, who: None, error }
    }
}

/// Finds out who sends a request, and whether this call is open to that account.
///
/// A request shows who it is in one way: by `Authorization`, else by the cookie of a session, else by the certificate of its connection. What it shows is right, or the request is refused: one way does not stand in for
/// another.
///
/// # Errors
/// [`Refused`]: 6691623 no login or a wrong one; 262160 too many failures; 6 the role does not allow it, or the request comes from another site's page.
pub async fn authorize(manager: &Manager, headers: &HeaderMap, sender: &Sender, route: &'static Route) -> Result<Permit, Refused> {
    let refused = || Refused::from(Error::new(Code::NotLoggedIn));
    let changes = !route.method.is_safe();
    if changes && headers.get("sec-fetch-site").is_some_and(|site| site != "same-origin" && site != "none") {
        // A browser adds what it knows of the user to requests of any page: a password, a certificate.
        return Err(Error::with(Code::PermissionDenied, "the request comes from a page of another site").into());
    }
    if headers.contains_key(header::AUTHORIZATION) {
        let (name, password) = credentials(headers).ok_or_else(refused)?;
        return match manager.authenticate(&name, &password, sender.source).await {
            Login::Ok(who) => permit(who, Proof::Password, route),
            Login::Wrong => Err(Refused { name: Some(name), ..refused() }),
            Login::TryLater(wait) => {
                let error = Error::with(Code::TooManyRequests, "too many logins that failed, or too many at a time; Retry-After says when to try again");
                Err(Refused { name: Some(name), ..error.retry_after(wait).into() })
            }
        };
    }
    if let Some(token) = sessions::token(headers) {
        let who = if headers.contains_key(sessions::BACKGROUND_HEADER) { manager.session_unused(token) } else { manager.session(token) };
        let who = who.ok_or_else(refused)?;
        let given = headers.get(sessions::CSRF_HEADER).and_then(|given| given.to_str().ok()).unwrap_or_default();
        if changes && !manager.is_csrf_token(token, given) {
            let error = Error::with(Code::PermissionDenied, format!("a session changes nothing without the header {}", sessions::CSRF_HEADER));
            return Err(Refused { name: None, who: Some(who), error });
        }
        return permit(who, Proof::Session, route);
    }
    let who = sender.certificate.as_ref().and_then(|certificate| certificate.login(&sender.vouchers)).ok_or_else(refused)?;
    permit(who, Proof::Certificate, route)
}

/// In which way a request shows who it is, right or not.
pub fn shown(headers: &HeaderMap, sender: &Sender) -> Option<Proof> {
    if headers.contains_key(header::AUTHORIZATION) {
        return Some(Proof::Password);
    }
    sessions::token(headers).map(|_| Proof::Session).or(sender.certificate.as_ref().map(|_| Proof::Certificate))
}

/// A permit, or who it is that gets none.
#[expect(clippy::result_large_err, reason = "made once for a request")]
fn permit(who: Principal, proof: Proof, route: &'static Route) -> Result<Permit, Refused> {
    Permit::new(who.clone(), proof, route).map_err(|error| Refused { name: None, who: Some(who), error })
}

fn credentials(headers: &HeaderMap) -> Option<(String, SecretString)> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, encoded) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = Zeroizing::new(BASE64.decode(encoded.trim()).ok()?);
    let (name, password) = std::str::from_utf8(&decoded).ok()?.split_once(':')?;
    Some((name.to_owned(), SecretString::from(password)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::ExposeSecret as _;

    fn read(value: &str) -> Option<(String, String)> {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, value.parse().unwrap());
        credentials(&headers).map(|(name, password)| (name, password.expose_secret().to_owned()))
    }

    #[test]
    fn basic_credentials_are_cut_at_the_first_colon() {
        assert_eq!(read(&format!("basic {}", BASE64.encode("a:b:c"))), Some(("a".into(), "b:c".into())));
        for bad in ["Basic", "Basic !", "Bearer YTpi", &format!("Basic {}", BASE64.encode("no colon"))] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}

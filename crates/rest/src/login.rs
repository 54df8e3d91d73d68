//! Login: HTTP Basic (RFC 7617).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::{HeaderMap, header};
use keystead_manager::model::{Principal, Role};
use keystead_manager::{Code, Error, Login, Manager, Result};
use secrecy::SecretString;
use std::net::IpAddr;
use zeroize::Zeroizing;

/// Who may make a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Everybody who is logged in.
    Read,
    /// Who may change something, in the cluster or in an SVM. What exactly is decided with the object at hand.
    Change,
}

/// Finds out who sends a request, and whether this call is open to that account at all.
///
/// # Errors
/// 6691623 no login or a wrong one; 262160 too many failures; 6 the role does not allow it.
pub async fn authorize(manager: &Manager, headers: &HeaderMap, source: IpAddr, access: Access) -> Result<Principal> {
    let (name, password) = credentials(headers).ok_or_else(|| Error::new(Code::NotLoggedIn))?;
    let who = match manager.authenticate(&name, &password, source).await {
        Login::Ok(who) => who,
        Login::Wrong => return Err(Error::new(Code::NotLoggedIn)),
        Login::TryLater(wait) => {
            return Err(Error::with(
                Code::TooManyRequests,
                format!("too many logins that failed, or too many at a time; try again in {} s", wait.as_secs().max(1)),
            ));
        }
    };
    if access == Access::Change && who.role == Role::Readonly {
        return Err(Error::with(Code::PermissionDenied, format!("the role of {} is readonly", who.name)));
    }
    Ok(who)
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

//! The proxy of a configuration, and how it changes member by member.

use crate::jobs::StoredChange;
use crate::records::{AwsKmsRecord, Base64, StoredProxy};
use crate::{Code, Error, Result};

/// The proxy and its sealed password after a change. Changes are kept as they were asked for and put together when they are made: of two that wait, the second builds on the first.
///
/// The stored password is for the proxy that it was given for. It is not sent to another one.
///
/// # Errors
/// 262186: type, host and port are not complete afterwards; a password without a proxy; another proxy, and the stored password is not given again.
pub(crate) fn changed(old: &AwsKmsRecord, change: &StoredChange) -> Result<(Option<StoredProxy>, Option<Base64>)> {
    let (was, to) = (old.settings.proxy.as_ref(), &change.proxy);
    if to.host == Some(None) {
        return Ok((None, None));
    }
    let combination = |why: &str, target: &str| Err(Error::with(Code::FieldCombination, why).target(target));
    let https = to.https.unwrap_or_else(|| was.map(|proxy| proxy.https));
    let host = to.host.clone().unwrap_or_else(|| was.map(|proxy| proxy.host.clone()));
    let port = to.port.unwrap_or_else(|| was.map(|proxy| proxy.port));
    let username = to.username.clone().unwrap_or_else(|| was.and_then(|proxy| proxy.username.clone()));
    let together = "proxy_type, proxy_host and proxy_port come together";
    let proxy = match (https, host, port) {
        (Some(https), Some(host), Some(port)) => StoredProxy { https, host, port, username },
        (None, None, None) if username.is_none() => {
            return match &change.proxy_password {
                Some(Some(_)) => combination("there is no proxy that the password could be for", "proxy_password"),
                _ => Ok((None, None)),
            };
        }
        (None, _, _) => return combination(together, "proxy_type"),
        (_, None, _) => return combination(together, "proxy_host"),
        (_, _, None) => return combination(together, "proxy_port"),
    };
    let moved = was.is_none_or(|was| (was.https, &was.host, was.port) != (proxy.https, &proxy.host, proxy.port));
    let password = match (&change.proxy_password, &old.proxy_password) {
        (Some(password), _) => password.clone(),
        (None, Some(_)) if moved => {
            return combination("the stored password is for the proxy that is configured now; give it again, or an empty one", "proxy_password");
        }
        (None, password) => password.clone(),
    };
    Ok((Some(proxy), password))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jobs::StoredProxyChange;

    fn config(proxy: Option<(bool, &str, u16)>, password: bool) -> AwsKmsRecord {
        let proxy = proxy.map(|(https, host, port)| serde_json::json!({ "https": https, "host": host, "port": port, "username": "u" }));
        serde_json::from_value(serde_json::json!({
            "uuid": uuid::Uuid::nil(), "svm": uuid::Uuid::nil(), "secret_access_key": null, "proxy_password": password.then_some("AA=="),
            "settings": {
                "region": "us-east-1", "key_id": "k", "access_key_id": "AKIA", "encryption_context": null, "service": "KMS", "default_domain": "amazonaws.com", "host": null,
                "port": 443, "polling_period": 60, "timeout": 10, "verify": true, "verify_host": true, "verify_ip": true, "proxy": proxy,
            },
        }))
        .unwrap()
    }

    fn target(old: &AwsKmsRecord, change: StoredChange) -> String {
        let error = changed(old, &change).unwrap_err();
        assert_eq!(error.code, Code::FieldCombination);
        error.target.unwrap()
    }

    fn of(proxy: StoredProxyChange, password: Option<Option<Base64>>) -> StoredChange {
        StoredChange { proxy, proxy_password: password, ..StoredChange::default() }
    }

    #[test]
    fn members_change_alone_and_build_on_each_other() {
        let none = config(None, false);
        assert_eq!(changed(&none, &StoredChange::default()).unwrap(), (None, None));
        assert_eq!(target(&none, of(StoredProxyChange { host: Some(Some("p".into())), ..Default::default() }, None)), "proxy_type");
        assert_eq!(target(&none, of(StoredProxyChange { https: Some(Some(true)), ..Default::default() }, None)), "proxy_host");
        assert_eq!(target(&none, of(StoredProxyChange { username: Some(Some("u".into())), ..Default::default() }, None)), "proxy_type");
        assert_eq!(target(&none, of(StoredProxyChange::default(), Some(Some(Base64(vec![1]))))), "proxy_password");
        let old = config(Some((false, "p", 1)), false);
        let host = of(StoredProxyChange { host: Some(Some("q".into())), ..Default::default() }, None);
        let port = of(StoredProxyChange { port: Some(Some(2)), ..Default::default() }, None);
        let (first, _) = changed(&old, &host).unwrap();
        let between = AwsKmsRecord { settings: crate::records::StoredSettings { proxy: first, ..old.settings.clone() }, ..old.clone() };
        let (second, _) = changed(&between, &port).unwrap();
        let second = second.unwrap();
        assert_eq!((second.host.as_str(), second.port), ("q", 2));
        assert_eq!(changed(&old, &of(StoredProxyChange { host: Some(None), ..Default::default() }, None)).unwrap(), (None, None));
        assert_eq!(target(&old, of(StoredProxyChange { port: Some(None), ..Default::default() }, None)), "proxy_port");
    }

    #[test]
    fn the_stored_password_goes_to_no_other_proxy() {
        let old = config(Some((true, "p", 1)), true);
        for proxy in [
            StoredProxyChange { host: Some(Some("q".into())), ..Default::default() },
            StoredProxyChange { port: Some(Some(2)), ..Default::default() },
            StoredProxyChange { https: Some(Some(false)), ..Default::default() },
        ] {
            assert_eq!(target(&old, of(proxy.clone(), None)), "proxy_password");
            assert_eq!(changed(&old, &of(proxy.clone(), Some(None))).unwrap().1, None);
            assert_eq!(changed(&old, &of(proxy, Some(Some(Base64(vec![7]))))).unwrap().1, Some(Base64(vec![7])));
        }
        let same = StoredProxyChange { host: Some(Some("p".into())), username: Some(Some("v".into())), ..Default::default() };
        assert_eq!(changed(&old, &of(same, None)).unwrap().1, Some(Base64(vec![0])));
    }
}

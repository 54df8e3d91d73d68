//! Who signs the requests to AWS KMS: an access key of the tenant's, or credentials of the node's own (`keystead.credentials_source`).
//!
//! The node's role may reach the keys of many tenants. So only an administrator of the cluster grants it, to one SVM and for one key ARN, and from then on nobody else changes what AWS sees of that
//! configuration: not the key, and neither where requests go nor who could listen on the way.

use crate::aws::Phase;
use crate::jobs::StoredChange;
use crate::jobs::modify::{apply, concerns_aws};
use crate::model::{AwsKmsSettings, Principal, Role};
use crate::records::{AwsKmsRecord, StoredSettings, StoredSource};
use crate::{Code, Error, Result};
use keystead_awskms::{Credentials, CredentialsSource, key_arn_place};
use secrecy::SecretString;

/// The field.
const FIELD: &str = "keystead.credentials_source";

/// The credentials of a new configuration, as it is stored.
///
/// # Errors
/// 6 a source that is not set by an administrator; 262186 a source and a key; 262212 neither.
pub(crate) fn of_enable(who: &Principal, settings: &AwsKmsSettings, has_secret: bool) -> Result<Option<StoredSource>> {
    let Some(source) = &settings.credentials_source else {
        return key_is_whole(settings.access_key_id.is_some(), has_secret).map(|()| None);
    };
    if !is_admin(who) {
        return Err(only_admins());
    }
    no_key_beside_a_source(settings.access_key_id.is_some(), has_secret)?;
    Ok(Some(StoredSource { source: source.clone(), key_arn: settings.key_id.clone() }))
}

/// A configuration with a change applied, and with the customer key of a rekey-external. Looked at when the change is accepted, and again when it is made: another one may have come first.
///
/// # Errors
/// 6; 262186, 262212, 262247.
pub(crate) fn changed(old: &AwsKmsRecord, change: &StoredChange, key_id: Option<&str>) -> Result<AwsKmsRecord> {
    let mut new = match apply(old, change) {
        // Whether it would make sense is nothing for those who may not ask for it.
        Err(_) if !change.by_admin && old.settings.credentials_source.is_some() => return Err(only_admins()),
        applied => applied?,
    };
    if let Some(key_id) = key_id {
        key_id.clone_into(&mut new.settings.key_id);
        if let Some(source) = &mut new.settings.credentials_source {
            key_id.clone_into(&mut source.key_arn);
        }
    }
    let (had, has) = (old.settings.credentials_source.is_some(), new.settings.credentials_source.is_some());
    if !change.by_admin {
        let mut seen = new.clone();
        seen.settings.timeout = old.settings.timeout;
        if change.credentials_source.is_some() || (had && (key_id.is_some() || concerns_aws(old, &seen, change))) {
            return Err(only_admins());
        }
    }
    match (had, has) {
        (_, true) => no_key_beside_a_source(change.access_key_id.is_some(), change.secret_access_key.is_some())?,
        (true, false) => key_is_whole(change.access_key_id.is_some(), change.secret_access_key.is_some())?,
        (false, false) => {}
    }
    fits(&new.settings)?;
    Ok(new)
}

/// What a source goes together with.
///
/// # Errors
/// 262247 no such source, or a key that is not named by its ARN; 262186 a host, or another region than the key's.
pub(crate) fn fits(settings: &StoredSettings) -> Result<()> {
    let Some(granted) = &settings.credentials_source else { return Ok(()) };
    source(granted)?;
    let combination = |why: &str, target: &str| Err(Error::with(Code::FieldCombination, why).target(target));
    if settings.host.is_some() {
        return combination("credentials of the node's own go to AWS's own endpoint, never to a host", FIELD);
    }
    let Some((_, region)) = key_arn_place(&settings.key_id) else {
        return Err(Error::with(
            Code::InvalidValue,
            "credentials of the node's own are granted for one key, named by its ARN (arn:aws:kms:…:key/…); an alias could move, and an id leaves the account open",
        )
        .target("key_id"));
    };
    if region != settings.region {
        return combination("with a credentials source it must be the region of the key's ARN; rekey-external changes both", "region");
    }
    Ok(())
}

/// What a client signs with. `secret` is that of the access key.
pub(crate) fn of_client(settings: &StoredSettings, secret: Option<SecretString>) -> Result<Credentials> {
    match (&settings.credentials_source, &settings.access_key_id, secret) {
        (Some(granted), _, _) if granted.key_arn != settings.key_id => {
            Err(Error::with(Code::InvalidValue, format!("the credentials source is granted for {}, and the configuration names another key", granted.key_arn))
                .target(FIELD))
        }
        (Some(granted), _, _) => Ok(Credentials::Source { source: source(granted)?, key_arn: granted.key_arn.clone() }),
        (None, Some(access_key_id), Some(secret_access_key)) => Ok(Credentials::Key { access_key_id: access_key_id.clone(), secret_access_key }),
        (None, _, _) => Err(Error::unexpected("a configuration with neither an access key nor a credentials source")),
    }
}

/// Whose requests these are: those of one access key, or of a source in one account, share a rate.
pub(crate) fn payer(settings: &StoredSettings) -> String {
    match (&settings.credentials_source, &settings.access_key_id) {
        (Some(granted), _) => format!("{} {}", granted.source, key_arn_place(&granted.key_arn).map_or("", |(account, _)| account)),
        (None, access_key_id) => access_key_id.clone().unwrap_or_default(),
    }
}

/// The code of refused or missing credentials.
pub(crate) fn refused(phase: Phase) -> Code {
    match phase {
        Phase::Enabling => Code::EnableCredentials,
        Phase::InUse => Code::CannotConnect,
    }
}

/// Whether an account may grant credentials of the node's own.
pub(crate) fn is_admin(who: &Principal) -> bool {
    who.role == Role::Admin
}

fn only_admins() -> Error {
    Error::with(
        Code::PermissionDenied,
        "credentials of the node's own are the cluster administrator's matter, and so is what AWS sees of a configuration that has them",
    )
    .target(FIELD)
}

fn source(granted: &StoredSource) -> Result<CredentialsSource> {
    granted.source.parse().map_err(|error| Error::with(Code::InvalidValue, error).target(FIELD))
}

fn no_key_beside_a_source(access_key_id: bool, secret: bool) -> Result<()> {
    let target = match (access_key_id, secret) {
        (true, _) => "access_key_id",
        (_, true) => "secret_access_key",
        _ => return Ok(()),
    };
    Err(Error::with(Code::FieldCombination, format!("credentials come from an access key or from {FIELD}, not from both")).target(target))
}

fn key_is_whole(access_key_id: bool, secret: bool) -> Result<()> {
    let target = match (access_key_id, secret) {
        (true, true) => return Ok(()),
        (false, _) => "access_key_id",
        (_, false) => "secret_access_key",
    };
    Err(Error::with(Code::MissingField, target).target(target))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::Base64;
    use uuid::Uuid;

    const ARN: &str = "arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";
    const OTHER: &str = "arn:aws:kms:us-east-1:111122223333:key/00000000-12ab-34cd-56ef-1234567890ab";

    fn record(source: Option<&str>) -> AwsKmsRecord {
        let key = source.is_none();
        AwsKmsRecord {
            uuid: Uuid::nil(),
            svm: Uuid::nil(),
            settings: serde_json::from_value(serde_json::json!({
                "region": "us-east-1", "key_id": ARN, "access_key_id": key.then_some("AKIAIOSFODNN7EXAMPLE"), "encryption_context": null, "service": "KMS",
                "default_domain": "amazonaws.com", "host": null, "port": 443, "polling_period": 60, "timeout": 10, "verify": true, "verify_host": true,
                "verify_ip": true, "proxy": null, "credentials_source": source.map(|source| serde_json::json!({ "source": source, "key_arn": ARN })),
            }))
            .unwrap(),
            secret_access_key: key.then(|| Base64(vec![1])),
            proxy_password: None,
            unproven: false,
        }
    }

    fn admin() -> StoredChange {
        StoredChange { by_admin: true, ..StoredChange::default() }
    }

    fn to(source: Option<&str>) -> StoredChange {
        StoredChange { credentials_source: Some(source.map(str::to_owned)), ..admin() }
    }

    fn refused(old: &AwsKmsRecord, change: StoredChange, key_id: Option<&str>) -> (Code, String) {
        let error = changed(old, &change, key_id).unwrap_err();
        (error.code, error.target.unwrap())
    }

    #[test]
    fn there_and_back() {
        let there = changed(&record(None), &to(Some("chain")), None).unwrap();
        assert_eq!(there, record(Some("chain")));
        let key = StoredChange { access_key_id: Some("AKIAIOSFODNN7EXAMPLE".into()), secret_access_key: Some(Base64(vec![1])), ..to(None) };
        assert_eq!(changed(&there, &key, None).unwrap(), record(None));
        assert_eq!(refused(&there, to(None), None), (Code::MissingField, "access_key_id".into()));
        assert_eq!(refused(&there, StoredChange { secret_access_key: None, ..key.clone() }, None), (Code::MissingField, "secret_access_key".into()));
        assert_eq!(refused(&there, StoredChange { credentials_source: None, ..key.clone() }, None), (Code::FieldCombination, "access_key_id".into()));
        let both = StoredChange { access_key_id: None, credentials_source: Some(Some("chain".into())), ..key };
        assert_eq!(refused(&record(None), both, None), (Code::FieldCombination, "secret_access_key".into()));
    }

    #[test]
    fn never_with_a_host_an_alias_or_another_region() {
        let mut hosted = record(None);
        hosted.settings.host = Some("kms.example".into());
        assert_eq!(refused(&hosted, to(Some("chain")), None), (Code::FieldCombination, FIELD.into()));
        let host = StoredChange { host: Some(Some("kms.example".into())), ..admin() };
        assert_eq!(refused(&record(Some("chain")), host, None), (Code::FieldCombination, FIELD.into()));
        let mut alias = record(None);
        alias.settings.key_id = "alias/a".into();
        assert_eq!(refused(&alias, to(Some("chain")), None), (Code::InvalidValue, "key_id".into()));
        assert_eq!(refused(&record(Some("chain")), admin(), Some("alias/a")), (Code::InvalidValue, "key_id".into()));
        let region = StoredChange { region: Some("eu-west-1".into()), ..admin() };
        assert_eq!(refused(&record(Some("chain")), region, None), (Code::FieldCombination, "region".into()));
        assert_eq!(refused(&record(None), to(Some("sh -c id")), None), (Code::InvalidValue, FIELD.into()));
    }

    #[test]
    fn only_an_administrator_touches_what_aws_sees() {
        let denied = (Code::PermissionDenied, FIELD.to_owned());
        let old = record(Some("chain"));
        let none = StoredChange::default;
        for change in [
            StoredChange { credentials_source: Some(None), ..none() },
            StoredChange { region: Some("eu-west-1".into()), ..none() },
            StoredChange { host: Some(Some("kms.example".into())), ..none() },
            StoredChange { port: Some(444), ..none() },
            StoredChange { service: Some("kms-fips".into()), ..none() },
            StoredChange { default_domain: Some("evil.example".into()), ..none() },
            StoredChange { verify: Some(false), ..none() },
            StoredChange { ca_certificates: Some(Some("pem".into())), ..none() },
            StoredChange { encryption_context: Some(Some("a=b".into())), ..none() },
            StoredChange { proxy_password: Some(Some(Base64(vec![2]))), ..none() },
            StoredChange { access_key_id: Some("AKIAIOSFODNN7EXAMPLE".into()), secret_access_key: Some(Base64(vec![1])), ..none() },
        ] {
            assert_eq!(refused(&old, change, None), denied);
        }
        assert_eq!(refused(&old, none(), Some(OTHER)), denied);
        assert_eq!(refused(&record(None), StoredChange { by_admin: false, ..to(Some("chain")) }, None), denied);
        let own = StoredChange { polling_period: Some(5), timeout: Some(5), access_error_grace: Some(None), ..none() };
        assert!(changed(&old, &own, None).is_ok());
        assert!(changed(&record(None), &StoredChange { region: Some("eu-west-1".into()), ..none() }, Some("alias/a")).is_ok());
    }

    #[test]
    fn the_bond_follows_an_administrators_rekey_and_nothing_else() {
        let new = changed(&record(Some("chain")), &admin(), Some(OTHER)).unwrap();
        assert!(matches!(of_client(&new.settings, None).unwrap(), Credentials::Source { key_arn, .. } if key_arn == OTHER));
        let mut forged = record(Some("chain"));
        forged.settings.key_id = OTHER.into();
        assert_eq!(of_client(&forged.settings, None).err().unwrap().code, Code::InvalidValue);
    }

    #[test]
    fn records_of_before_still_read() {
        let mut old = serde_json::to_value(record(None)).unwrap();
        old["settings"].as_object_mut().unwrap().remove("credentials_source");
        assert_eq!(serde_json::from_value::<AwsKmsRecord>(old).unwrap(), record(None));
    }
}

//! The account behind the stand-in: customer keys, aliases and access keys, and what an administrator in AWS can do to them.

use std::collections::BTreeMap;

use aws_lc_rs::constant_time;
use jiff::{SignedDuration, Timestamp, civil::DateTime, tz::TimeZone};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::blob::Material;
use crate::error::KmsError;
use crate::sigv4::{Authorization, SignedRequest, signature};

/// How far `X-Amz-Date` may be from AWS's clock.
const SIGNATURE_WINDOW: SignedDuration = SignedDuration::from_mins(5);

/// The state of a customer key, as DescribeKey names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum KeyState {
    /// Usable.
    Enabled,
    /// DisabledException.
    Disabled,
    /// KMSInvalidStateException, as the rest.
    PendingDeletion,
    /// Its imported material was deleted.
    PendingImport,
    /// Being made.
    Creating,
    /// Being changed.
    Updating,
    /// Its custom key store is not connected.
    Unavailable,
}

/// What a new customer key shall be. All members may be left out.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NewKey {
    /// The key id; made up when absent.
    pub key_id: Option<String>,
    /// An alias, with or without `alias/`.
    pub alias: Option<String>,
    /// The regions that hold the key; default: the stand-in's region. Several make sense for a multi-Region key only.
    pub regions: Vec<String>,
    /// A multi-Region key: its id begins with `mrk-`.
    pub multi_region: bool,
    /// Leaves out the key material ids in answers, like services that do not offer them.
    pub without_material_id: bool,
}

/// A customer key as the control interface shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KeyInfo {
    /// The key id.
    pub key_id: String,
    /// The ARN in the first of its regions.
    pub arn: String,
    /// Its aliases, each with `alias/`.
    pub aliases: Vec<String>,
    /// The state.
    pub state: KeyState,
    /// The current key material's id.
    pub key_material_id: String,
    /// How many generations of material it has: 1 and one more for each rotation.
    pub materials: usize,
}

#[derive(Debug)]
pub(crate) struct Key {
    pub id: String,
    pub regions: Vec<String>,
    pub multi_region: bool,
    pub names_material: bool,
    pub materials: Vec<Material>,
    pub state: KeyState,
    pub created: Timestamp,
    denials: Vec<Denial>,
}

/// A denial by the key's policy. `None` means all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Denial {
    /// Only this operation.
    pub operation: Option<String>,
    /// Only this access key.
    pub access_key_id: Option<String>,
}

#[derive(Debug)]
struct AccessKey {
    secret: String,
    user: String,
    /// The session token that calls must bring: the key is a temporary one.
    session_token: Option<String>,
    /// The error code that its calls get while it is inactive.
    inactive: Option<String>,
}

/// Keys and access keys of one AWS account.
#[derive(Debug)]
pub(crate) struct Account {
    pub id: String,
    pub region: String,
    keys: BTreeMap<String, Key>,
    aliases: BTreeMap<String, String>,
    access_keys: BTreeMap<String, AccessKey>,
}

/// Who called, as far as the signature proves it.
#[derive(Debug)]
pub(crate) struct Caller {
    pub authorization: Option<Authorization>,
    pub verdict: Result<(), KmsError>,
}

impl Account {
    pub fn new(id: String, region: String) -> Self {
        Self { id, region, keys: BTreeMap::new(), aliases: BTreeMap::new(), access_keys: BTreeMap::new() }
    }

    pub fn create_key(&mut self, new: NewKey, now: Timestamp) -> Result<KeyInfo, String> {
        let made = Uuid::new_v4();
        let id = new.key_id.unwrap_or_else(|| if new.multi_region { format!("mrk-{}", made.simple()) } else { made.to_string() });
        if self.keys.contains_key(&id) {
            return Err(format!("key {id} exists"));
        }
        let key = Key {
            id: id.clone(),
            regions: if new.regions.is_empty() { vec![self.region.clone()] } else { new.regions },
            multi_region: new.multi_region,
            names_material: !new.without_material_id,
            materials: vec![Material::generate()?],
            state: KeyState::Enabled,
            created: now,
            denials: Vec::new(),
        };
        self.keys.insert(id.clone(), key);
        if let Some(alias) = new.alias {
            self.set_alias(&alias, &id)?;
        }
        self.key_info(&id)
    }

    /// Makes or moves an alias.
    pub fn set_alias(&mut self, alias: &str, key_id: &str) -> Result<(), String> {
        self.key_mut(key_id)?;
        self.aliases.insert(with_alias_prefix(alias), key_id.into());
        Ok(())
    }

    pub fn delete_key(&mut self, key_id: &str) -> Result<(), String> {
        self.keys.remove(key_id).ok_or_else(|| format!("no key {key_id}"))?;
        self.aliases.retain(|_, id| id != key_id);
        Ok(())
    }

    pub fn set_state(&mut self, key_id: &str, state: KeyState) -> Result<(), String> {
        self.key_mut(key_id)?.state = state;
        Ok(())
    }

    /// RotateKeyOnDemand: new material for Encrypt; the old still decrypts.
    pub fn rotate(&mut self, key_id: &str) -> Result<(), String> {
        let material = Material::generate()?;
        self.key_mut(key_id)?.materials.push(material);
        Ok(())
    }

    pub fn deny(&mut self, key_id: &str, denial: Denial) -> Result<(), String> {
        self.key_mut(key_id)?.denials.push(denial);
        Ok(())
    }

    pub fn restore_access(&mut self, key_id: &str) -> Result<(), String> {
        self.key_mut(key_id)?.denials.clear();
        Ok(())
    }

    pub fn key_info(&self, key_id: &str) -> Result<KeyInfo, String> {
        let key = self.keys.get(key_id).ok_or_else(|| format!("no key {key_id}"))?;
        let aliases = self.aliases.iter().filter(|(_, id)| *id == key_id).map(|(alias, _)| alias.clone()).collect();
        Ok(KeyInfo {
            key_id: key.id.clone(),
            arn: self.arn(key, key.regions.first().unwrap_or(&self.region)),
            aliases,
            state: key.state,
            key_material_id: key.materials.last().map(Material::id).unwrap_or_default(),
            materials: key.materials.len(),
        })
    }

    pub fn add_access_key(&mut self, access_key_id: &str, secret: &str, session_token: Option<String>, user: &str) {
        let key = AccessKey { secret: secret.into(), user: user.into(), session_token, inactive: None };
        self.access_keys.insert(access_key_id.into(), key);
    }

    pub fn delete_access_key(&mut self, access_key_id: &str) -> Result<(), String> {
        self.access_keys.remove(access_key_id).map(drop).ok_or_else(|| format!("no access key {access_key_id}"))
    }

    /// `Some(code)`: inactive, answered with that code; `None`: active.
    pub fn set_inactive(&mut self, access_key_id: &str, code: Option<String>) -> Result<(), String> {
        self.access_keys.get_mut(access_key_id).ok_or_else(|| format!("no access key {access_key_id}"))?.inactive = code;
        Ok(())
    }

    pub fn arn(&self, key: &Key, region: &str) -> String {
        format!("arn:aws:kms:{region}:{}:key/{}", self.id, key.id)
    }

    /// Finds a key by id, ARN, alias or alias ARN, as one region sees it.
    pub fn resolve(&self, region: &str, key_id: &str) -> Result<&Key, KmsError> {
        let not_found = |message: String| Err(KmsError::client("NotFoundException", message));
        let name = match key_id.strip_prefix("arn:") {
            None => key_id,
            Some(rest) => match rest.splitn(5, ':').collect::<Vec<_>>().as_slice() {
                ["aws", "kms", r, _, _] if *r != region => return not_found(format!("Invalid arn {r}")),
                ["aws", "kms", _, account, name] if *account == self.id => name,
                ["aws", "kms", _, _, name] => return self.foreign(region, name),
                _ => return Err(KmsError::client("InvalidArnException", format!("Invalid arn '{key_id}'"))),
            },
        };
        let id = if name.starts_with("alias/") {
            let arn = format!("arn:aws:kms:{region}:{}:{name}", self.id);
            match self.aliases.get(name) {
                Some(id) => id,
                None => return not_found(format!("Alias {arn} is not found.")),
            }
        } else {
            name.strip_prefix("key/").unwrap_or(name)
        };
        match self.keys.get(id).filter(|k| k.regions.iter().any(|r| r == region)) {
            Some(key) => Ok(key),
            None if looks_like_id(id) => not_found(format!("Key 'arn:aws:kms:{region}:{}:key/{id}' does not exist", self.id)),
            None => not_found(format!("Invalid keyId '{id}'")),
        }
    }

    /// The key that made a blob, for a Decrypt without KeyId.
    pub fn key_where(&self, region: &str, made_it: impl Fn(&Key) -> bool) -> Option<&Key> {
        self.keys.values().find(|k| made_it(k) && k.regions.iter().any(|r| r == region))
    }

    /// Whether the key's policy lets `access_key_id` do `operation`.
    pub fn authorize(&self, key: &Key, region: &str, access_key_id: &str, operation: &str) -> Result<(), KmsError> {
        let fits = |d: &Denial| d.operation.as_deref().is_none_or(|o| o == operation) && d.access_key_id.as_deref().is_none_or(|a| a == access_key_id);
        if key.denials.iter().any(fits) {
            return Err(self.denied(access_key_id, operation, &self.arn(key, region)));
        }
        Ok(())
    }

    /// AccessDeniedException, worded as AWS words it.
    pub fn denied(&self, access_key_id: &str, operation: &str, resource: &str) -> KmsError {
        let user = self.access_keys.get(access_key_id).map_or("unknown", |k| k.user.as_str());
        KmsError::client(
            "AccessDeniedException",
            format!(
                "User: arn:aws:iam::{}:user/{user} is not authorized to perform: kms:{operation} on resource: {resource} \
                 because no identity-based policy allows the kms:{operation} action",
                self.id
            ),
        )
    }

    /// Checks a request's signature against the access keys, and its date against AWS's clock `now`.
    pub fn authenticate(&self, request: &SignedRequest<'_>, now: Timestamp) -> Caller {
        let Some(header) = request.header("authorization") else {
            return Caller { authorization: None, verdict: Err(KmsError::client("MissingAuthenticationTokenException", "Missing Authentication Token")) };
        };
        match Authorization::parse(&header) {
            Err(message) => Caller { authorization: None, verdict: Err(KmsError::client("IncompleteSignatureException", message)) },
            Ok(authorization) => {
                let verdict = self.check_signature(request, &authorization, now);
                Caller { authorization: Some(authorization), verdict }
            }
        }
    }

    fn check_signature(&self, request: &SignedRequest<'_>, authorization: &Authorization, now: Timestamp) -> Result<(), KmsError> {
        let invalid = |message: &str| Err(KmsError::client("InvalidSignatureException", message));
        let credential = &authorization.credential;
        let Some(amz_date) = request.header("x-amz-date") else {
            return Err(KmsError::client(
                "IncompleteSignatureException",
                "Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header.",
            ));
        };
        let Some(access_key) = self.access_keys.get(&credential.access_key_id) else {
            return Err(KmsError::client("UnrecognizedClientException", "The security token included in the request is invalid."));
        };
        if let Some(code) = &access_key.inactive {
            return Err(KmsError::client(code, "The security token included in the request is invalid."));
        }
        if request.header("x-amz-security-token") != access_key.session_token {
            return Err(KmsError::client("UnrecognizedClientException", "The security token included in the request is invalid."));
        }
        if credential.service != "kms" {
            return invalid("Credential should be scoped to correct service: 'kms'.");
        }
        let must_be_signed = |name: &str| name == "host" || name.starts_with("x-amz-");
        let unsigned = |name: &String| must_be_signed(name) && !authorization.signed_headers.contains(name);
        if request.headers.iter().any(|(name, _)| unsigned(name)) || !authorization.signed_headers.iter().any(|n| n == "host") {
            return invalid("'Host' and all 'X-Amz-*' headers must be signed headers in the AWS Signature.");
        }
        let signed_at = parse_amz_date(&amz_date).filter(|_| amz_date.starts_with(&credential.date));
        let Some(signed_at) = signed_at else {
            return invalid("Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP.");
        };
        let made = signature(request, credential, &authorization.signed_headers, &access_key.secret, &amz_date);
        if constant_time::verify_slices_are_equal(made.as_bytes(), authorization.signature.as_bytes()).is_err() {
            return invalid(
                "The request signature we calculated does not match the signature you provided. \
                 Check your AWS Secret Access Key and signing method. Consult the service documentation for details.",
            );
        }
        if signed_at.duration_since(now).abs() > SIGNATURE_WINDOW {
            let (word, order) = if signed_at < now { ("expired", "earlier") } else { ("not yet current", "later") };
            return invalid(&format!("Signature {word}: {amz_date} is now {order} than {} (5 min.)", now.strftime("%Y%m%dT%H%M%SZ")));
        }
        Ok(())
    }

    fn foreign(&self, region: &str, name: &str) -> Result<&Key, KmsError> {
        let resource = format!("arn:aws:kms:{region}:<another account>:{name}");
        Err(KmsError::client("AccessDeniedException", format!("The key {resource} does not exist or its policy does not allow account {}.", self.id)))
    }

    fn key_mut(&mut self, key_id: &str) -> Result<&mut Key, String> {
        self.keys.get_mut(key_id).ok_or_else(|| format!("no key {key_id}"))
    }
}

fn with_alias_prefix(alias: &str) -> String {
    if alias.starts_with("alias/") { alias.into() } else { format!("alias/{alias}") }
}

fn looks_like_id(id: &str) -> bool {
    id.strip_prefix("mrk-").unwrap_or(id).parse::<Uuid>().is_ok()
}

fn parse_amz_date(text: &str) -> Option<Timestamp> {
    let time = DateTime::strptime("%Y%m%dT%H%M%SZ", text).ok()?;
    TimeZone::UTC.to_timestamp(time).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account() -> Account {
        let mut account = Account::new("111122223333".into(), "us-east-1".into());
        let new = NewKey { key_id: Some("1234abcd-12ab-34cd-56ef-1234567890ab".into()), alias: Some("svm1".into()), ..NewKey::default() };
        account.create_key(new, Timestamp::UNIX_EPOCH).unwrap();
        account
    }

    #[test]
    fn a_key_answers_to_its_id_arn_and_aliases() {
        let account = account();
        for name in [
            "1234abcd-12ab-34cd-56ef-1234567890ab",
            "arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab",
            "alias/svm1",
            "arn:aws:kms:us-east-1:111122223333:alias/svm1",
        ] {
            assert_eq!(account.resolve("us-east-1", name).unwrap().id, "1234abcd-12ab-34cd-56ef-1234567890ab", "{name}");
        }
        for (region, name, code) in [
            ("us-east-1", "alias/none", "NotFoundException"),
            ("us-east-1", "kmip-aws", "NotFoundException"),
            ("eu-west-1", "1234abcd-12ab-34cd-56ef-1234567890ab", "NotFoundException"),
            ("eu-west-1", "arn:aws:kms:us-east-1:111122223333:alias/svm1", "NotFoundException"),
            ("us-east-1", "arn:aws:s3:us-east-1:111122223333:x", "InvalidArnException"),
            ("us-east-1", "arn:aws:kms:us-east-1:999999999999:key/x", "AccessDeniedException"),
        ] {
            assert_eq!(account.resolve(region, name).unwrap_err().code, code, "{name}");
        }
    }

    #[test]
    fn multi_region_keys_live_where_they_are_told() {
        let mut account = account();
        let regions = vec!["us-east-1".to_owned(), "eu-west-1".to_owned()];
        let info = account.create_key(NewKey { multi_region: true, regions, ..NewKey::default() }, Timestamp::UNIX_EPOCH).unwrap();
        assert!(info.key_id.starts_with("mrk-"));
        assert!(account.resolve("eu-west-1", &info.key_id).is_ok());
        assert!(account.resolve("ap-south-1", &info.key_id).is_err());
    }

    #[test]
    fn the_signature_date_is_read() {
        assert_eq!(parse_amz_date("20150830T123600Z").unwrap().to_string(), "2015-08-30T12:36:00Z");
        assert_eq!(parse_amz_date("2015-08-30"), None);
    }
}

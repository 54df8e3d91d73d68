//! Encrypt, Decrypt and DescribeKey, with the checks and errors of AWS KMS (API reference of 2014-11-01).
//!
//! Keystead's users are told that these three permissions suffice; so every other operation is denied.

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Map, Value, json};

use crate::account::{Account, Key, KeyState};
use crate::blob::{Blob, Context, Material};
use crate::error::{KmsError, validation};

const MAX_KEY_ID: usize = 2048;
const MAX_PLAINTEXT: usize = 4096;
const MAX_BLOB: usize = 6144;

/// One call, its signature checked.
#[derive(Debug)]
pub(crate) struct Operation<'a> {
    pub name: &'a str,
    pub region: &'a str,
    pub access_key_id: &'a str,
    pub input: &'a Value,
}

impl Account {
    /// Executes a call and returns the answer's members.
    pub fn execute(&self, operation: &Operation<'_>) -> Result<Value, KmsError> {
        match operation.name {
            "Encrypt" => self.encrypt(operation),
            "Decrypt" => self.decrypt(operation),
            "DescribeKey" => self.describe_key(operation),
            "" => Err(KmsError::client("UnknownOperationException", "")),
            name => Err(self.denied(operation.access_key_id, name, "*")),
        }
    }

    fn encrypt(&self, operation: &Operation<'_>) -> Result<Value, KmsError> {
        let key_id = required_key_id(operation.input)?;
        let plaintext = bytes(operation.input, "Plaintext", "plaintext", MAX_PLAINTEXT)?;
        let context = context(operation.input)?;
        let key = self.resolve(operation.region, key_id)?;
        self.authorize(key, operation.region, operation.access_key_id, operation.name)?;
        let arn = self.arn(key, operation.region);
        usable(key, &arn)?;
        symmetric(operation.input, &arn)?;
        let material = key.materials.last().ok_or_else(|| internal("the key has no material"))?;
        let blob = material.seal(&key.id, &context, &plaintext).map_err(|e| internal(&e))?;
        Ok(json!({ "CiphertextBlob": BASE64_STANDARD.encode(blob), "EncryptionAlgorithm": "SYMMETRIC_DEFAULT", "KeyId": arn }))
    }

    fn decrypt(&self, operation: &Operation<'_>) -> Result<Value, KmsError> {
        let ciphertext = bytes(operation.input, "CiphertextBlob", "ciphertextBlob", MAX_BLOB)?;
        let context = context(operation.input)?;
        let invalid = || KmsError::client("InvalidCiphertextException", "");
        let named = match operation.input.get("KeyId") {
            None | Some(Value::Null) => None,
            Some(_) => Some(self.resolve(operation.region, required_key_id(operation.input)?)?),
        };
        let blob = Blob::parse(&ciphertext);
        let maker = blob.as_ref().and_then(|b| self.key_where(operation.region, |k| b.made_by(&k.id)));
        let key = named.or(maker).ok_or_else(invalid)?;
        self.authorize(key, operation.region, operation.access_key_id, operation.name)?;
        let arn = self.arn(key, operation.region);
        usable(key, &arn)?;
        symmetric(operation.input, &arn)?;
        let (blob, maker) = blob.zip(maker).ok_or_else(invalid)?;
        if maker.id != key.id {
            let message = "The key ID in the request does not identify a CMK that can perform this operation.";
            return Err(KmsError::client("IncorrectKeyException", message));
        }
        let (plaintext, material) = blob.open(&key.materials, &context).ok_or_else(invalid)?;
        let mut answer = json!({ "EncryptionAlgorithm": "SYMMETRIC_DEFAULT", "KeyId": arn, "Plaintext": BASE64_STANDARD.encode(plaintext) });
        if key.names_material {
            set(&mut answer, "KeyMaterialId", json!(material));
        }
        Ok(answer)
    }

    fn describe_key(&self, operation: &Operation<'_>) -> Result<Value, KmsError> {
        let key = self.resolve(operation.region, required_key_id(operation.input)?)?;
        self.authorize(key, operation.region, operation.access_key_id, operation.name)?;
        let mut metadata = json!({
            "AWSAccountId": self.id,
            "Arn": self.arn(key, operation.region),
            "CreationDate": key.created.as_second(),
            "CustomerMasterKeySpec": "SYMMETRIC_DEFAULT",
            "Description": "",
            "Enabled": key.state == KeyState::Enabled,
            "EncryptionAlgorithms": ["SYMMETRIC_DEFAULT"],
            "KeyId": key.id,
            "KeyManager": "CUSTOMER",
            "KeySpec": "SYMMETRIC_DEFAULT",
            "KeyState": key.state,
            "KeyUsage": "ENCRYPT_DECRYPT",
            "MultiRegion": key.multi_region,
            "Origin": if key.state == KeyState::PendingImport { "EXTERNAL" } else { "AWS_KMS" },
        });
        if key.names_material {
            set(&mut metadata, "CurrentKeyMaterialId", json!(key.materials.last().map(Material::id)));
        }
        if key.state == KeyState::PendingDeletion {
            // Seven days from its making, so that the date is the same in every answer.
            set(&mut metadata, "DeletionDate", json!(key.created.as_second() + 7 * 86_400));
        }
        Ok(json!({ "KeyMetadata": metadata }))
    }
}

/// Another plaintext of the same length in place of the right one: what a KMS that answers for another key would send.
pub(crate) fn swap_plaintext(answer: &mut Value) {
    let plain = answer.get("Plaintext").and_then(Value::as_str).and_then(|text| BASE64_STANDARD.decode(text).ok());
    if let Some(plain) = plain {
        let other: Vec<u8> = plain.iter().map(|b| !b).collect();
        set(answer, "Plaintext", json!(BASE64_STANDARD.encode(other)));
    }
}

fn usable(key: &Key, arn: &str) -> Result<(), KmsError> {
    let state = match key.state {
        KeyState::Enabled => return Ok(()),
        KeyState::Disabled => return Err(KmsError::client("DisabledException", format!("{arn} is disabled."))),
        KeyState::PendingDeletion => "pending deletion",
        KeyState::PendingImport => "pending import",
        KeyState::Creating => "creating",
        KeyState::Updating => "updating",
        KeyState::Unavailable => "unavailable",
    };
    Err(KmsError::client("KMSInvalidStateException", format!("{arn} is {state}.")))
}

fn symmetric(input: &Value, arn: &str) -> Result<(), KmsError> {
    match input.get("EncryptionAlgorithm").and_then(Value::as_str) {
        None | Some("SYMMETRIC_DEFAULT") => Ok(()),
        Some(other) => Err(KmsError::client("InvalidKeyUsageException", format!("{arn} key usage is ENCRYPT_DECRYPT which is not valid for {other}."))),
    }
}

fn required_key_id(input: &Value) -> Result<&str, KmsError> {
    match input.get("KeyId") {
        None | Some(Value::Null) => Err(validation("keyId", "not be null")),
        Some(Value::String(id)) if id.is_empty() => Err(validation("keyId", "have length greater than or equal to 1")),
        Some(Value::String(id)) if id.len() > MAX_KEY_ID => Err(validation("keyId", "have length less than or equal to 2048")),
        Some(Value::String(id)) => Ok(id),
        Some(_) => Err(KmsError::client("SerializationException", "KeyId must be a string")),
    }
}

fn bytes(input: &Value, member: &str, named: &str, max: usize) -> Result<Vec<u8>, KmsError> {
    let Some(text) = input.get(member).and_then(Value::as_str) else {
        return Err(validation(named, "not be null"));
    };
    let bytes = BASE64_STANDARD.decode(text).map_err(|_| KmsError::client("SerializationException", format!("{member} is not base64")))?;
    match bytes.len() {
        0 => Err(validation(named, "have length greater than or equal to 1")),
        n if n > max => Err(validation(named, &format!("have length less than or equal to {max}"))),
        _ => Ok(bytes),
    }
}

/// Reads the encryption context; absent and empty are the same.
pub(crate) fn context(input: &Value) -> Result<Context, KmsError> {
    let wrong = || KmsError::client("SerializationException", "EncryptionContext must be a map of strings");
    match input.get("EncryptionContext") {
        None | Some(Value::Null) => Ok(Context::new()),
        Some(Value::Object(map)) => strings(map).ok_or_else(wrong),
        Some(_) => Err(wrong()),
    }
}

fn strings(map: &Map<String, Value>) -> Option<Context> {
    map.iter().map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned()))).collect()
}

fn set(object: &mut Value, member: &str, value: Value) {
    if let Value::Object(map) = object {
        map.insert(member.into(), value);
    }
}

fn internal(message: &str) -> KmsError {
    KmsError::server("KMSInternalException", 500, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::account::{Denial, NewKey};
    use jiff::Timestamp;

    fn account() -> Account {
        let mut account = Account::new("111122223333".into(), "us-east-1".into());
        for id in ["k1", "k2"] {
            account.create_key(NewKey { key_id: Some(id.into()), ..NewKey::default() }, Timestamp::UNIX_EPOCH).unwrap();
        }
        account
    }

    fn call(account: &Account, name: &str, input: &Value) -> Result<Value, String> {
        account.execute(&Operation { name, region: "us-east-1", access_key_id: "AKIA", input }).map_err(|e| e.code)
    }

    fn encrypt(account: &Account) -> String {
        let input = json!({"KeyId": "k1", "Plaintext": "a2Vr", "EncryptionContext": {"a": "b", "c": "d"}});
        call(account, "Encrypt", &input).unwrap()["CiphertextBlob"].as_str().unwrap().to_owned()
    }

    fn decrypt(account: &Account, blob: &str) -> Result<Value, String> {
        call(account, "Decrypt", &json!({"KeyId": "k1", "CiphertextBlob": blob, "EncryptionContext": {"c": "d", "a": "b"}}))
    }

    #[test]
    fn a_round_trip_and_each_way_to_miss() {
        let account = account();
        let blob = encrypt(&account);
        assert_eq!(decrypt(&account, &blob).unwrap()["Plaintext"], "a2Vr");
        let mut bad = BASE64_STANDARD.decode(&blob).unwrap();
        *bad.last_mut().unwrap() ^= 1;
        for (input, code) in [
            (json!({"KeyId": "k1", "CiphertextBlob": blob}), "InvalidCiphertextException"),
            (json!({"KeyId": "k1", "CiphertextBlob": blob, "EncryptionContext": {"a": "b"}}), "InvalidCiphertextException"),
            (json!({"KeyId": "k1", "CiphertextBlob": "AAAA"}), "InvalidCiphertextException"),
            (json!({"KeyId": "k1", "CiphertextBlob": BASE64_STANDARD.encode(bad), "EncryptionContext": {"a": "b", "c": "d"}}), "InvalidCiphertextException"),
            (json!({"KeyId": "k2", "CiphertextBlob": blob, "EncryptionContext": {"a": "b", "c": "d"}}), "IncorrectKeyException"),
            (json!({"KeyId": "k3", "CiphertextBlob": blob}), "NotFoundException"),
            (json!({"KeyId": "", "CiphertextBlob": blob}), "ValidationException"),
            (json!({"KeyId": "k1"}), "ValidationException"),
            (json!({"KeyId": "k1", "CiphertextBlob": "AAAA", "EncryptionContext": []}), "SerializationException"),
        ] {
            assert_eq!(call(&account, "Decrypt", &input).unwrap_err(), code, "{input}");
        }
        let without_key = json!({"CiphertextBlob": blob, "EncryptionContext": {"a": "b", "c": "d"}});
        assert_eq!(call(&account, "Decrypt", &without_key).unwrap()["KeyId"], "arn:aws:kms:us-east-1:111122223333:key/k1");
    }

    #[test]
    fn sizes_are_those_of_aws() {
        let account = account();
        let of = |n: usize| json!({"KeyId": "k1", "Plaintext": BASE64_STANDARD.encode(vec![7u8; n])});
        assert!(call(&account, "Encrypt", &of(4096)).is_ok());
        for n in [0, 4097] {
            assert_eq!(call(&account, "Encrypt", &of(n)).unwrap_err(), "ValidationException");
        }
    }

    #[test]
    fn the_state_and_the_policy_count() {
        let mut account = account();
        let blob = encrypt(&account);
        for (state, code) in [
            (KeyState::Disabled, "DisabledException"),
            (KeyState::PendingDeletion, "KMSInvalidStateException"),
            (KeyState::Unavailable, "KMSInvalidStateException"),
        ] {
            account.set_state("k1", state).unwrap();
            assert_eq!(decrypt(&account, &blob).unwrap_err(), code);
            let described = call(&account, "DescribeKey", &json!({"KeyId": "k1"})).unwrap();
            assert_eq!(described["KeyMetadata"]["Enabled"], false);
            assert_eq!(described["KeyMetadata"]["KeyState"], json!(state));
        }
        account.set_state("k1", KeyState::Enabled).unwrap();
        account.deny("k1", Denial { operation: Some("Decrypt".into()), access_key_id: None }).unwrap();
        assert_eq!(decrypt(&account, &blob).unwrap_err(), "AccessDeniedException");
        encrypt(&account);
        account.restore_access("k1").unwrap();
        assert!(decrypt(&account, &blob).is_ok());
        account.deny("k1", Denial { operation: None, access_key_id: Some("OTHER".into()) }).unwrap();
        assert!(decrypt(&account, &blob).is_ok());
        account.delete_key("k1").unwrap();
        assert_eq!(decrypt(&account, &blob).unwrap_err(), "NotFoundException");
    }

    #[test]
    fn rotation_keeps_old_blobs_and_names_the_material() {
        let mut account = account();
        let old = encrypt(&account);
        account.rotate("k1").unwrap();
        let new = encrypt(&account);
        let current = call(&account, "DescribeKey", &json!({"KeyId": "k1"})).unwrap()["KeyMetadata"]["CurrentKeyMaterialId"].clone();
        assert_ne!(decrypt(&account, &old).unwrap()["KeyMaterialId"], current);
        assert_eq!(decrypt(&account, &new).unwrap()["KeyMaterialId"], current);
    }

    #[test]
    fn no_other_operation_is_allowed() {
        for name in ["GenerateDataKey", "ReEncrypt", "ListKeys"] {
            assert_eq!(call(&account(), name, &json!({"KeyId": "k1"})).unwrap_err(), "AccessDeniedException");
        }
    }

    #[test]
    fn the_wrong_plaintext_has_the_same_length() {
        let account = account();
        let mut answer = decrypt(&account, &encrypt(&account)).unwrap();
        swap_plaintext(&mut answer);
        let other = BASE64_STANDARD.decode(answer["Plaintext"].as_str().unwrap()).unwrap();
        assert_eq!(other.len(), 3);
        assert_ne!(other, b"kek");
    }
}

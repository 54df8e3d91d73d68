//! A new password for an account that nobody can log in with any more, beside the REST API: by whoever has the node's data and its seal key, and so could read the cluster's secrets anyway.

use crate::model::LoginMethod;
use crate::passwords::{Gate, check_policy};
use crate::records::{AccountRecord, Record as _, Stored, account_key};
use crate::{Error, SealSource, cluster};
use keystead_store::{Compare, Store, Txn};
use secrecy::SecretString;
use uuid::Uuid;

/// Gives an account this password, and lets it log in with that. Its sessions end. Answers its name as it is written.
///
/// # Errors
/// A line for the operator: the seal key is another one, there is no such account, the password is too short or too long, or the store refuses.
pub async fn reset_account(store: &dyn Store, seal: &dyn SealSource, name: &str, password: SecretString) -> Result<String, String> {
    let text = |error: Error| error.detail.unwrap_or(error.message);
    let of_store = |error: keystead_store::Error| error.to_string();
    check_policy(&password).map_err(|error| format!("the new password: {error}"))?;
    cluster::sealed_by(store, &mut seal.fetch().await?).await?;
    let key = account_key(name);
    let entry = store.get(&key).await.map_err(of_store)?.ok_or_else(|| format!("there is no account {name}"))?;
    let account = Stored::<AccountRecord>::decode(&entry).map_err(text)?;
    let password_hash = Gate::new().hash(password).await.map_err(|error| format!("the password cannot be hashed: {error}"))?;
    let mut record = AccountRecord { password_hash, locked: false, stamp: Uuid::new_v4(), ..account.record };
    if !record.methods.contains(&LoginMethod::Password) {
        record.methods.push(LoginMethod::Password);
    }
    let txn = Txn::new().when(Compare::Unchanged(account.key.clone(), account.revision)).put(account.key, record.encode().map_err(text)?);
    store.transact(txn).await.map_err(|error| match error {
        keystead_store::Error::Conflict { .. } => format!("the account {name} was changed at this moment; begin again"),
        error => of_store(error),
    })?;
    Ok(record.name)
}

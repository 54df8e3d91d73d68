//! Accounts: login and passwords.

use crate::inner::may_change;
use crate::model::{Principal, Role};
use crate::passwords::Verdict;
use crate::records::{AccountRecord, Record};
use crate::{Code, Error, Manager, Result};
use keystead_store::{Compare, Txn};
use secrecy::SecretString;
use std::net::IpAddr;
use std::time::Duration;

/// The account that is made with the cluster.
pub const ADMIN: &str = "admin";

/// What a login comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Login {
    /// This is who it is.
    Ok(Principal),
    /// Unknown account or wrong password; which of the two is not told.
    Wrong,
    /// Too many failures from this source for this account, or too many logins at a time.
    TryLater(Duration),
}

impl Manager {
    /// Checks a name and a password. `source` is where the request comes from: failures slow down that source for that account, and nobody else.
    pub async fn authenticate(&self, name: &str, password: &SecretString, source: IpAddr) -> Login {
        let inner = self.inner();
        let account = inner.view.get::<AccountRecord>(name).ok().flatten();
        let hash = account.as_ref().map(|account| account.record.password_hash.clone());
        match inner.gate.check(name, hash.as_deref(), password, source, inner.clock.monotonic()).await {
            Verdict::Ok => match account {
                Some(account) => Login::Ok(Principal { name: account.record.name, role: account.record.role.into() }),
                None => Login::Wrong,
            },
            Verdict::Wrong => Login::Wrong,
            Verdict::TryLater(wait) => Login::TryLater(wait),
        }
    }

    /// Changes a password. An administrator may change anybody's, everybody else their own.
    ///
    /// # Errors
    /// 4 no such account (target `name`); 6; 262245 a password that is too short or too long (target `password`).
    pub async fn set_password(&self, who: &Principal, name: &str, password: SecretString) -> Result<()> {
        let inner = self.inner();
        if who.name != name || who.role != Role::Admin {
            may_change(who, None).or_else(|error| if who.name == name { Ok(()) } else { Err(error) })?;
        }
        let account = inner.view.get::<AccountRecord>(name)?.ok_or_else(|| Error::new(Code::NotFound).target("name"))?;
        crate::passwords::check_policy(&password).map_err(|error| Error::with(Code::OutOfBounds, error).target("password"))?;
        let hash = inner.gate.hash(password).await.map_err(|error| Error::unexpected(format!("the password could not be hashed: {error}")))?;
        let record = AccountRecord { password_hash: hash, ..account.record };
        let txn = Txn::new().when(Compare::Unchanged(account.key.clone(), account.revision)).put(account.key, record.encode()?);
        let revision = inner.store.transact(txn).await.map_err(|error| match error {
            keystead_store::Error::Conflict { .. } => Error::with(Code::InUse, "the account was changed at this moment; look again").target("name"),
            error => error.into(),
        })?;
        inner.view.reached(revision).await;
        if name == ADMIN {
            inner.admin_password_changed.notify_one();
        }
        Ok(())
    }
}

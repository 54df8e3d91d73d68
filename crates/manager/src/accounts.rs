//! Accounts: who may log in to the REST API, how, and as what.
//!
//! Names are unique in the cluster, without regard to case, since a login says nothing but a name. An account belongs to the cluster, or to one SVM; what it is given at a login is read from the
//! record of that moment, so that whatever is taken from an account is gone with the next request.

use crate::aws_kms::select_svm;
use crate::inner::{Inner, may_change};
use crate::model::{Account, AccountChange, LoginMethod, NewAccount, Principal, Role, RoleName, SvmKind, SvmRef};
use crate::passwords::Verdict;
use crate::records::{AccountRecord, ClusterRecord, Record, Stored, StoredRole, SvmRecord, account_key};
use crate::{Code, Error, Manager, Result};
use keystead_store::{Compare, Range, Txn};
use secrecy::SecretString;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

/// The account that is made with the cluster.
pub const ADMIN: &str = "admin";
/// The name under which the cluster itself acts, in jobs and in the audit.
pub const SYSTEM: &str = "keystead";

/// Names that say in jobs and logs that nobody's account did it; and ONTAP's own.
const RESERVED: [&str; 6] = [SYSTEM, "system", "anonymous", "autosupport", "diag", "root"];
/// The length of a name, in characters.
const NAME: std::ops::RangeInclusive<usize> = 3..=64;
/// How many accounts the cluster, and each SVM, can have. An SVM takes all of its accounts along in one transaction when it is deleted.
const MOST: usize = 1_000;
const MOST_OF_SVM: usize = 64;
/// Every change that takes an administrator away changes this record, so that two of them look at each other.
const ADMINS_CHANGED: &str = "/admin-accounts-changed";

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
        let account = usable(inner, name, LoginMethod::Password);
        let hash = account.as_ref().map(|account| account.record.password_hash.as_str());
        match inner.gate.check(name, hash, password, source, inner.clock.monotonic()).await {
            // The check takes its time, and the account may have been locked or changed meanwhile.
            Verdict::Ok => match usable(inner, name, LoginMethod::Password) {
                Some(now) if Some(now.record.password_hash.as_str()) == hash => Login::Ok(principal(&now.record)),
                _ => Login::Wrong,
            },
            Verdict::Wrong => Login::Wrong,
            Verdict::TryLater(wait) => Login::TryLater(wait),
        }
    }

    /// The account that a certificate names, where it may log in so. `cluster`: a CA of the cluster vouches for the certificate; `svms`: CAs of these SVMs do. An account of the cluster needs the one, and
    /// an account of an SVM the other: nobody's CA speaks for somebody else's account.
    pub fn certificate_login(&self, name: &str, cluster: bool, svms: &[Uuid]) -> Option<Principal> {
        let account = usable(self.inner(), name, LoginMethod::Certificate)?;
        let vouched = match account.record.role {
            StoredRole::Vsadmin { svm } => svms.contains(&svm),
            StoredRole::Admin | StoredRole::Readonly => cluster,
        };
        vouched.then(|| principal(&account.record))
    }

    /// All accounts, by owner and name.
    pub fn accounts(&self) -> Vec<Account> {
        let inner = self.inner();
        let mut accounts: Vec<Account> = inner.view.all::<AccountRecord>().into_iter().filter_map(|account| shown(inner, account.record).ok()).collect();
        accounts.sort_by(|one, other| (one.owner.uuid, &one.name).cmp(&(other.owner.uuid, &other.name)));
        accounts
    }

    /// Makes an account.
    ///
    /// # Errors
    /// 6; 262247 a name that is not allowed or reserved; 1 one that is taken; the owner (2621462, 2621706); 262186 a role that does not go with the owner; 262212 a password is needed; 262245 one that is too
    /// short or too long; 7 too many accounts.
    pub async fn create_account(&self, who: &Principal, new: NewAccount) -> Result<Account> {
        let inner = self.inner();
        may_change(who, None)?;
        check_name(&new.name)?;
        let owner = new.owner.as_ref().map(|owner| select_owner(inner, who, owner)).transpose()?.flatten();
        let default = if owner.is_some() { RoleName::Vsadmin } else { RoleName::Admin };
        let role = stored_role(new.role.unwrap_or(default), owner.as_ref().map(|svm| svm.record.uuid))?;
        let methods = methods(new.methods.unwrap_or_else(|| vec![LoginMethod::Password]))?;
        if methods.contains(&LoginMethod::Password) && new.password.is_none() {
            return Err(Error::with(Code::MissingField, "password").target("password"));
        }
        let others = inner.view.all::<AccountRecord>();
        let of_owner = others.iter().filter(|other| other.record.svm() == owner.as_ref().map(|svm| svm.record.uuid)).count();
        if of_owner >= if owner.is_some() { MOST_OF_SVM } else { MOST } {
            return Err(Error::with(Code::LimitReached, format!("there are {of_owner} accounts")));
        }
        let password_hash = match new.password {
            Some(password) => self.hash(password).await?,
            None => String::new(),
        };
        let (name, comment, stamp) = (new.name, new.comment, inner.random.uuid());
        let record = AccountRecord { name, role, password_hash, methods, comment, locked: new.locked, stamp };
        let key = account_key(&record.name);
        let mut txn = Txn::new().when(Compare::Absent(key.clone())).put(key.clone(), record.encode()?);
        if let Some(svm) = owner {
            txn = txn.when(Compare::Present(svm.key));
        }
        inner
            .commit(txn, |failed| {
                if failed == key {
                    Error::with(Code::Duplicate, format!("an account is named {}", record.name)).target("name")
                } else {
                    Error::with(Code::SvmNotFound, "it was deleted at this moment").target("owner.name")
                }
            })
            .await?;
        shown(inner, record)
    }

    /// Changes an account. What is changed at its password, its role, its methods or its lock ends its sessions.
    ///
    /// # Errors
    /// 4; 6; 262186 a role that does not go with the owner; 262212 a password is needed; 262245 one that is too short or too long; 5636098 the last administrator; 8 it was changed at this moment.
    pub async fn modify_account(&self, who: &Principal, name: &str, change: AccountChange) -> Result<()> {
        let inner = self.inner();
        may_change(who, None)?;
        let account = found(inner, name)?;
        let mut record = account.record.clone();
        if let Some(role) = change.role {
            record.role = stored_role(role, record.svm())?;
        }
        if let Some(given) = change.methods {
            record.methods = methods(given)?;
        }
        let new_password = change.password.is_some();
        if let Some(password) = change.password {
            record.password_hash = self.hash(password).await?;
        }
        if record.methods.contains(&LoginMethod::Password) && record.password_hash.is_empty() {
            return Err(Error::with(Code::MissingField, "password").target("password"));
        }
        record.locked = change.locked.unwrap_or(record.locked);
        record.comment = change.comment.unwrap_or(record.comment);
        let same_login = (record.role, record.locked, &record.methods) == (account.record.role, account.record.locked, &account.record.methods);
        if new_password || !same_login {
            record.stamp = inner.random.uuid();
        }
        let txn = Txn::new().when(Compare::Unchanged(account.key.clone(), account.revision)).put(account.key.clone(), record.encode()?);
        let txn = keep_an_admin(inner, &account, Some(&record), txn).await?;
        inner.commit(txn, |_| changed()).await?;
        tell(inner, &account.record, Some(&record));
        Ok(())
    }

    /// Deletes an account.
    ///
    /// # Errors
    /// 4; 6; 5636098 the last administrator; 8 it was changed at this moment.
    pub async fn delete_account(&self, who: &Principal, name: &str) -> Result<()> {
        let inner = self.inner();
        may_change(who, None)?;
        let account = found(inner, name)?;
        let txn = Txn::new().when(Compare::Unchanged(account.key.clone(), account.revision)).delete(account.key.clone());
        let txn = keep_an_admin(inner, &account, None, txn).await?;
        inner.commit(txn, |_| changed()).await?;
        tell(inner, &account.record, None);
        Ok(())
    }

    /// Changes a password. An administrator may change anybody's, everybody else their own. Ends the account's sessions.
    ///
    /// # Errors
    /// 4 no such account (target `name`); 6; 262245 a password that is too short or too long (target `password`).
    pub async fn set_password(&self, who: &Principal, name: &str, password: SecretString) -> Result<()> {
        let inner = self.inner();
        if who.name != name {
            may_change(who, None)?;
        }
        let account = found(inner, name)?;
        let record = AccountRecord { password_hash: self.hash(password).await?, stamp: inner.random.uuid(), ..account.record.clone() };
        let txn = Txn::new().when(Compare::Unchanged(account.key.clone(), account.revision)).put(account.key.clone(), record.encode()?);
        inner.commit(txn, |_| changed()).await?;
        tell(inner, &account.record, Some(&record));
        Ok(())
    }

    async fn hash(&self, password: SecretString) -> Result<String> {
        crate::passwords::check_policy(&password).map_err(|error| Error::with(Code::OutOfBounds, error).target("password"))?;
        self.inner().gate.hash(password).await.map_err(|error| Error::unexpected(format!("the password could not be hashed: {error}")))
    }
}

/// An account that may log in, by this method.
pub(crate) fn usable(inner: &Inner, name: &str, method: LoginMethod) -> Option<Arc<Stored<AccountRecord>>> {
    open(inner, name).filter(|account| account.record.methods.contains(&method))
}

/// An account that is not locked, and whose SVM exists.
pub(crate) fn open(inner: &Inner, name: &str) -> Option<Arc<Stored<AccountRecord>>> {
    let account = inner.view.shared::<AccountRecord>(name.to_lowercase()).ok().flatten()?;
    let record = &account.record;
    let exists = record.svm().is_none_or(|svm| inner.view.shared::<SvmRecord>(svm).is_ok_and(|svm| svm.is_some()));
    // A name is a name with its case; that two differ in more than that is only for those who read them.
    (exists && !record.locked && record.name == name).then_some(account)
}

/// Who an account is.
pub(crate) fn principal(record: &AccountRecord) -> Principal {
    Principal { name: record.name.clone(), role: record.role.into() }
}

fn found(inner: &Inner, name: &str) -> Result<Stored<AccountRecord>> {
    let account = inner.view.get::<AccountRecord>(name.to_lowercase())?.filter(|account| account.record.name == name);
    account.ok_or_else(|| Error::new(Code::NotFound).target("name"))
}

fn shown(inner: &Inner, record: AccountRecord) -> Result<Account> {
    let owner = match record.svm() {
        Some(svm) => inner.svm_ref(svm),
        // As in ONTAP: the cluster's accounts are those of its admin SVM.
        None => SvmRef { name: inner.settings().cluster_name, uuid: inner.view.only::<ClusterRecord>()?.record.admin_svm },
    };
    let has_password = !record.password_hash.is_empty();
    Ok(Account { name: record.name, owner, role: record.role.into(), methods: record.methods, comment: record.comment, locked: record.locked, has_password })
}

/// The SVM that an account shall belong to; none where the admin SVM is named, which stands for the cluster.
fn select_owner(inner: &Inner, who: &Principal, owner: &crate::model::SvmSelector) -> Result<Option<Stored<SvmRecord>>> {
    let renamed = |error: Error| match error.target.as_deref().and_then(|target| target.strip_prefix("svm.")) {
        Some(member) => Error { target: Some(format!("owner.{member}")), ..error },
        None => error,
    };
    let svm = select_svm(inner, who, owner).map_err(renamed)?;
    Ok((svm.record.kind == SvmKind::Data).then_some(svm))
}

fn stored_role(role: RoleName, svm: Option<Uuid>) -> Result<StoredRole> {
    match (role, svm) {
        (RoleName::Admin, None) => Ok(StoredRole::Admin),
        (RoleName::Readonly, None) => Ok(StoredRole::Readonly),
        (RoleName::Vsadmin, Some(svm)) => Ok(StoredRole::Vsadmin { svm }),
        (RoleName::Vsadmin, None) => Err(Error::with(Code::FieldCombination, "a vsadmin belongs to an SVM: owner is needed").target("owner.name")),
        (RoleName::Admin | RoleName::Readonly, Some(_)) => {
            Err(Error::with(Code::FieldCombination, format!("the role of an SVM's account is vsadmin, and {} is one of the cluster's", role.text()))
                .target("role.name"))
        }
    }
}

/// At least one, each once, in one order.
fn methods(mut methods: Vec<LoginMethod>) -> Result<Vec<LoginMethod>> {
    methods.sort_unstable();
    methods.dedup();
    if methods.is_empty() {
        return Err(Error::with(Code::MissingField, "at least one method").target("applications.authentication_methods"));
    }
    Ok(methods)
}

/// 3 to 64 letters, digits, `.`, `_`, `-` and `@`, a letter or digit first: none that stands for something in a login (`:`), a path, or a log.
fn check_name(name: &str) -> Result<()> {
    let characters = name.chars().all(|one| one.is_ascii_alphanumeric() || matches!(one, '.' | '_' | '-' | '@'));
    let first = name.chars().next().is_some_and(|first| first.is_ascii_alphanumeric());
    if !(characters && first && NAME.contains(&name.len())) {
        let rule = format!("it has {} to {} letters, digits, \".\", \"_\", \"-\" and \"@\", and starts with a letter or a digit", NAME.start(), NAME.end());
        return Err(Error::with(Code::InvalidValue, rule).target("name"));
    }
    if RESERVED.contains(&name.to_lowercase().as_str()) {
        return Err(Error::with(Code::InvalidValue, format!("the name {name} is reserved")).target("name"));
    }
    Ok(())
}

/// Whether an account administers the cluster by itself: with a certificate alone it would stand and fall with a CA that can be deleted.
fn is_admin(record: &AccountRecord) -> bool {
    record.role == StoredRole::Admin && !record.locked && record.methods.contains(&LoginMethod::Password) && !record.password_hash.is_empty()
}

/// Refuses a change that leaves the cluster without an administrator. What the others are is read from the store itself: another node may have changed one a moment ago.
async fn keep_an_admin(inner: &Inner, account: &Stored<AccountRecord>, after: Option<&AccountRecord>, txn: Txn) -> Result<Txn> {
    if !is_admin(&account.record) || after.is_some_and(is_admin) {
        return Ok(txn);
    }
    let guard = inner.store.get(ADMINS_CHANGED).await.map_err(Error::from)?;
    let mut range = Range::prefix(AccountRecord::PREFIX, MOST);
    loop {
        let page = inner.store.range(range.clone()).await.map_err(Error::from)?;
        let mut others = page.entries.iter().filter(|entry| entry.key != account.key).filter_map(|entry| Stored::<AccountRecord>::decode(entry).ok());
        if others.any(|other| is_admin(&other.record)) {
            break;
        }
        range.after = page.entries.last().map(|entry| entry.key.clone());
        if !page.more {
            let message = format!("{} is the last account that administers the cluster, is not locked and has a password", account.record.name);
            return Err(Error::with(Code::LastAdmin, message).target("name"));
        }
    }
    let alone = match guard {
        None => Compare::Absent(ADMINS_CHANGED.to_owned()),
        Some(entry) => Compare::Unchanged(ADMINS_CHANGED.to_owned(), entry.revision),
    };
    Ok(txn.when(alone).put(ADMINS_CHANGED, Vec::new()))
}

/// Tells the program that the password of the first start is none any more.
fn tell(inner: &Inner, before: &AccountRecord, after: Option<&AccountRecord>) {
    if before.name == ADMIN && after.is_none_or(|after| after.password_hash != before.password_hash) {
        inner.admin_password_changed.notify_one();
    }
}

fn changed() -> Error {
    Error::with(Code::InUse, "the account, or another administrator, was changed at this moment; look again").target("name")
}

impl AccountRecord {
    /// The account that is made with the cluster.
    pub(crate) fn first(password_hash: String) -> Self {
        let (name, comment, methods) = (ADMIN.to_owned(), String::new(), vec![LoginMethod::Password]);
        Self { name, role: StoredRole::Admin, password_hash, methods, comment, locked: false, stamp: Uuid::nil() }
    }

    /// The SVM that it belongs to; none for one of the cluster.
    pub(crate) fn svm(&self) -> Option<Uuid> {
        match Role::from(self.role) {
            Role::Vsadmin { svm } => Some(svm),
            Role::Admin | Role::Readonly => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_a_rule_and_some_are_reserved() {
        for good in ["joe.smith", "a-1", "user@example.com", "7up"] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        for bad in ["", "ab", "a:b", "a/b", "a b", "-ab", "äbc", "keystead", "Keystead", "autosupport", &"a".repeat(65)] {
            assert_eq!(check_name(bad).unwrap_err().code, Code::InvalidValue, "{bad}");
        }
    }

    #[test]
    fn roles_go_with_owners() {
        let svm = Uuid::from_u128(1);
        assert_eq!(stored_role(RoleName::Vsadmin, Some(svm)), Ok(StoredRole::Vsadmin { svm }));
        for (role, owner) in [(RoleName::Vsadmin, None), (RoleName::Admin, Some(svm)), (RoleName::Readonly, Some(svm))] {
            assert_eq!(stored_role(role, owner).unwrap_err().code, Code::FieldCombination);
        }
    }

    #[test]
    fn an_older_record_reads_as_one_that_logs_in_with_its_password() {
        let record: AccountRecord = serde_json::from_str(r#"{"name":"admin","role":{"name":"admin"},"password_hash":"$argon2id$x"}"#).unwrap();
        assert_eq!(record, AccountRecord::first("$argon2id$x".into()));
        assert!(is_admin(&record) && !is_admin(&AccountRecord { locked: true, ..record.clone() }));
        assert!(!is_admin(&AccountRecord { methods: vec![LoginMethod::Certificate], ..record }));
    }
}

//! SVMs: create, read, rename, delete.
//!
//! Each change is one transaction, which also writes a job that is done: clients wait for a job after every change, as with ONTAP.

use crate::inner::may_change;
use crate::jobs::JobKind;
use crate::model::{Accepted, Principal, Svm, SvmKind, SvmSelector};
use crate::records::{
    AccountRecord, CertificateRecord, EkmipClientCaRecord, EkmipClientRecord, JobRecord, KeyStoreRecord, KeyStoreState, Record, Stored, SvmNameRecord,
    SvmRecord, certificate_name_key, key, onboard_keys_prefix, svm_name_key,
};
use crate::{Code, Error, Manager, Result};
use keystead_store::{Compare, Txn};
use uuid::Uuid;

/// The longest name of an SVM, in characters (ONTAP's bound for data SVMs).
const MAX_NAME: usize = 47;

impl Manager {
    /// All SVMs, the admin SVM among them, by uuid.
    pub fn svms(&self) -> Vec<Svm> {
        self.inner().view.all::<SvmRecord>().into_iter().map(|svm| shown(svm.record)).collect()
    }

    /// One SVM.
    ///
    /// # Errors
    /// 4.
    pub fn svm(&self, uuid: Uuid) -> Result<Svm> {
        Ok(shown(self.inner().svm(uuid)?.record))
    }

    /// The SVM that somebody names.
    ///
    /// # Errors
    /// 2621462 there is none, or this account does not see it; 2621706 name and uuid are those of two.
    pub fn svm_named(&self, who: &Principal, selector: &SvmSelector) -> Result<Svm> {
        Ok(shown(crate::aws_kms::select_svm(self.inner(), who, selector)?.record))
    }

    /// Creates an SVM. The job is done on return.
    ///
    /// # Errors
    /// 6; 2621471 a name that is not allowed; 1 a name that is taken.
    pub async fn create_svm(&self, who: &Principal, name: &str, comment: &str) -> Result<Accepted> {
        let inner = self.inner();
        may_change(who, None)?;
        check_name(name)?;
        let uuid = inner.random.uuid();
        let record = SvmRecord { uuid, name: name.to_owned(), comment: comment.to_owned(), kind: SvmKind::Data };
        let name_key = svm_name_key(name);
        let txn = Txn::new()
            .when(Compare::Absent(name_key.clone()))
            .put(name_key, SvmNameRecord { svm: uuid }.encode()?)
            .put(key::<SvmRecord>(uuid), record.encode()?);
        let job = self.done(who, "POST /api/svm/svms".to_owned(), &record);
        inner.accept(job, uuid, txn, |_| taken(name)).await
    }

    /// Renames an SVM or changes its comment. The job is done on return.
    ///
    /// # Errors
    /// 4; 6; 2621471; 1; 8 where it was changed at the same moment.
    pub async fn modify_svm(&self, who: &Principal, uuid: Uuid, name: Option<String>, comment: Option<String>) -> Result<Accepted> {
        let inner = self.inner();
        let svm = inner.svm(uuid)?;
        may_change(who, None)?;
        let mut record = svm.record.clone();
        let mut txn = Txn::new().when(Compare::Unchanged(svm.key.clone(), svm.revision));
        if let Some(name) = name {
            check_name(&name)?;
            let (old, new) = (svm_name_key(&svm.record.name), svm_name_key(&name));
            if old != new {
                txn = txn.when(Compare::Absent(new.clone())).delete(old).put(new, SvmNameRecord { svm: uuid }.encode()?);
            }
            record.name = name;
        }
        if let Some(comment) = comment {
            record.comment = comment;
        }
        let job = self.done(who, format!("PATCH /api/svm/svms/{uuid}"), &record);
        let txn = txn.put(svm.key.clone(), record.encode()?);
        inner.accept(job, uuid, txn, |failed| if failed == svm.key { changed() } else { taken(&record.name) }).await
    }

    /// Deletes an SVM. An enabling of AWS KMS that is under way ends with 65537926. The job is done on return.
    ///
    /// # Errors
    /// 4; 6; 8 while the SVM has a key manager or keys, and for the admin SVM.
    pub async fn delete_svm(&self, who: &Principal, uuid: Uuid) -> Result<Accepted> {
        let inner = self.inner();
        let svm = inner.svm(uuid)?;
        may_change(who, None)?;
        if svm.record.kind == SvmKind::Admin {
            return Err(Error::with(Code::InUse, "the admin SVM belongs to the cluster and cannot be deleted").target("uuid"));
        }
        let store_key = key::<KeyStoreRecord>(uuid);
        if let Some(store) = inner.key_store(uuid)?.filter(|store| store.record.onboard && store.record.state == KeyStoreState::Active)
            && inner.configuration_of(uuid).is_none()
        {
            // Without a key, its place at the onboard key manager is worth nothing.
            inner.release_onboard(&store).await.map_err(|error| Error { code: Code::InUse, ..error }.target("uuid"))?;
        }
        inner.forget_destroyed(uuid).await?;
        let mut txn = Txn::new().when(Compare::Unchanged(svm.key.clone(), svm.revision)).when(Compare::EmptyPrefix(onboard_keys_prefix(uuid)));
        txn = match inner.key_store(uuid)? {
            None => txn.when(Compare::Absent(store_key.clone())),
            Some(store) if store.record.state == KeyStoreState::Initializing => {
                txn.when(Compare::Unchanged(store_key.clone(), store.revision)).delete(store_key.clone())
            }
            Some(store) => return Err(has_manager(&svm, &store.record)),
        };
        // What an SVM leaves behind would speak for nobody. A transaction holds only so much; what is left then goes right afterwards.
        let clients = inner.view.all::<EkmipClientRecord>().into_iter().filter(|client| client.record.svm == uuid).map(|client| client.key);
        let cas = inner.view.all::<EkmipClientCaRecord>().into_iter().filter(|ca| ca.record.svm == uuid).map(|ca| ca.key);
        let certificates = inner.view.all::<CertificateRecord>().into_iter().filter(|certificate| certificate.record.svm == Some(uuid));
        let certificates = certificates.flat_map(|certificate| [certificate_name_key(Some(uuid), &certificate.record.name), certificate.key]);
        // First of all those who could still log in.
        let accounts = inner.view.all::<AccountRecord>().into_iter().filter(|account| account.record.svm() == Some(uuid)).map(|account| account.key);
        for left in accounts.chain(certificates).chain(clients).chain(cas).take(100) {
            txn = txn.delete(left);
        }
        let job = self.done(who, format!("DELETE /api/svm/svms/{uuid}"), &svm.record);
        let txn = txn.delete(svm.key.clone()).delete(svm_name_key(&svm.record.name));
        let accepted = inner
            .accept(job, uuid, txn, |failed| {
                if failed == svm.key {
                    changed()
                } else {
                    Error::with(Code::InUse, "the SVM has just got a key manager, or has keys; look again").target("uuid")
                }
            })
            .await?;
        inner.left_behind.notify_one();
        Ok(accepted)
    }

    fn done(&self, who: &Principal, description: String, svm: &SvmRecord) -> JobRecord {
        self.inner().new_job(who, description, JobKind::Done, Some((svm.uuid, svm.name.clone())))
    }
}

/// 1 to 47 characters: a letter or an underscore first, then letters, digits, `_`, `-` and `.` (ONTAP's rule for the names of SVMs).
fn check_name(name: &str) -> Result<()> {
    let mut characters = name.chars();
    let first = characters.next().is_some_and(|first| first.is_ascii_alphabetic() || first == '_');
    let rest = characters.all(|next| next.is_ascii_alphanumeric() || matches!(next, '_' | '-' | '.'));
    if first && rest && name.len() <= MAX_NAME {
        return Ok(());
    }
    let rule = format!("it starts with a letter or an underscore, goes on with letters, digits, \"_\", \"-\" and \".\", and has at most {MAX_NAME} characters");
    Err(Error::with(Code::SvmInvalidName, rule).target("name"))
}

fn taken(name: &str) -> Error {
    Error::with(Code::Duplicate, format!("an SVM is named {name}")).target("name")
}

fn changed() -> Error {
    Error::with(Code::InUse, "the SVM was changed at this moment; look again").target("uuid")
}

fn has_manager(svm: &Stored<SvmRecord>, store: &KeyStoreRecord) -> Error {
    let config = if store.onboard { store.other } else { Some(store.manager) };
    let message = match config {
        Some(config) => format!("the SVM {} has the AWS KMS configuration {config}; delete that first", svm.record.name),
        None => format!("the onboard key manager keeps keys of the SVM {}, and it has an AWS KMS configuration; delete both first", svm.record.name),
    };
    Error::with(Code::InUse, message).target("uuid")
}

fn shown(record: SvmRecord) -> Svm {
    Svm { uuid: record.uuid, name: record.name, comment: record.comment, kind: record.kind }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_ontaps_rule() {
        for good in ["svm1", "_x", "A.b-c_9", &"a".repeat(47)] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        for bad in ["", "1svm", "-x", "a b", "ä", "a/b", &"a".repeat(48)] {
            assert_eq!(check_name(bad).unwrap_err().code, Code::SvmInvalidName, "{bad}");
        }
    }
}

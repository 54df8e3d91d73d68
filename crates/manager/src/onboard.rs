//! The onboard key manager: keeps the keys of the admin SVM, and of SVMs without a key manager of their own.
//!
//! It has one key for the cluster. That wraps a KEK for each SVM, which wraps the SVM's keys as one does that AWS wraps: so keys are records of one kind, and moving them between key managers
//! is making a new version of the KEK and wrapping every key again (`jobs/migrate.rs`).
//!
//! The onboard key is stored twice: sealed by the seal key, for every start, and sealed by the cluster passphrase, for the day on which the seal key is lost. KEKs come into memory when
//! they are first needed; nothing outside of this machine is asked for that.

use crate::aws_kms::select_svm;
use crate::inner::{Inner, may_change};
use crate::jobs::JobKind;
use crate::keys::record::destroyed_prefix;
use crate::model::{Accepted, OnboardKeyManager, Principal, SvmKind, SvmSelector};
use crate::passphrase::{self, NotOpened};
use crate::records::{
    AwsKmsRecord, Base64, KekRecord, KeyStoreRecord, KeyStoreState, NodeRecord, OnboardKekRecord, OnboardRecord, Record, Recovery, Stored, SvmRecord, kek_key,
    keks_prefix, key, keys_prefix, onboard_kek_key, onboard_keys_prefix, onboard_place,
};
use crate::seal::Seal;
use crate::{Code, Error, Manager, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use keystead_keyring::{CheckValue, Kek};
use keystead_store::{Compare, Error as StoreError, Range, Txn};
use secrecy::{ExposeSecret, SecretString};
use std::sync::Arc;
use uuid::Uuid;
use zeroize::Zeroizing;

/// How long a cluster passphrase is, in bytes (ONTAP: 32 to 256 ASCII characters).
pub const PASSPHRASE: std::ops::RangeInclusive<usize> = 32..=256;
/// The version of a new onboard key.
const FIRST_ONBOARD_KEY: u32 = 1;
/// The version of an SVM's first KEK.
const FIRST_KEK: u32 = 1;
/// How many records go in one transaction.
const BATCH: usize = 100;

/// A change of the onboard key manager.
#[derive(Debug, Default)]
pub struct OnboardChange {
    /// The cluster passphrase as it is.
    pub existing_passphrase: Option<SecretString>,
    /// The new one.
    pub passphrase: Option<SecretString>,
    /// Bring the onboard key back with the passphrase, and seal it by this node's seal key.
    pub synchronize: bool,
}

impl Manager {
    /// The onboard key manager, where the cluster has one.
    ///
    /// # Errors
    /// Its record is damaged.
    pub fn onboard_key_manager(&self) -> Result<Option<OnboardKeyManager>> {
        let inner = self.inner();
        let Some(record) = inner.onboard()? else { return Ok(None) };
        let problem = inner.onboard_key().err().map(|error| error.message);
        Ok(Some(OnboardKeyManager { uuid: record.record.uuid, problem }))
    }

    /// What an operator keeps outside of the cluster: the onboard key as the passphrase has sealed it. Who has it may guess passphrases, so it is for administrators.
    ///
    /// # Errors
    /// 6; 4.
    pub fn onboard_backup(&self, who: &Principal) -> Result<String> {
        may_change(who, None)?;
        let record = self.inner().onboard()?.ok_or_else(|| Error::new(Code::NotFound).target("uuid"))?.record;
        let backup = serde_json::json!({
            "uuid": record.uuid, "version": record.version, "recovery": record.recovery, "check_value": record.check_value, "created": record.created,
        });
        Ok(BASE64.encode(backup.to_string()))
    }

    /// Makes the onboard key manager. The job is done on return.
    ///
    /// # Errors
    /// 6; 65536916 and those of the SVM, where one is named that is not the admin SVM; 65536920 the length of the passphrase; 65536907 where there is one; 65536968 where a node could not work with it;
    /// 65537906 where the seal key is not to be had.
    pub async fn create_onboard(&self, who: &Principal, svm: Option<&SvmSelector>, passphrase: SecretString) -> Result<Accepted> {
        let inner = self.inner();
        may_change(who, None)?;
        if let Some(svm) = svm.map(|svm| select_svm(inner, who, svm)).transpose()?
            && svm.record.kind != SvmKind::Admin
        {
            let name = svm.record.name;
            let why = format!("leave svm out; keys of the SVM {name} go there by themselves, as long as it has no key manager of its own");
            return Err(Error::with(Code::OnboardForAdminSvm, why).target("svm"));
        }
        check_length(&passphrase, Code::OnboardPassphraseLength)?;
        inner.every_node_can_move_keys()?;
        let exists = || Error::with(Code::OnboardConfigured, "PATCH changes its passphrase").target("onboard");
        if inner.fresh::<OnboardRecord>("").await?.is_some() {
            return Err(exists());
        }
        inner.seal.prove().await?;
        let uuid = inner.random.uuid();
        let onboard_key = Kek::generate(uuid, FIRST_ONBOARD_KEY);
        let record = OnboardRecord {
            uuid,
            version: FIRST_ONBOARD_KEY,
            sealed: inner.seal.seal(&onboard_place(uuid), onboard_key.expose()),
            recovery: inner.recovery(&onboard_key, passphrase).await?,
            check_value: Base64(onboard_key.check_value().0.to_vec()),
            created: inner.clock.utc(),
        };
        let record_key = key::<OnboardRecord>("");
        let txn = Txn::new().when(Compare::Absent(record_key.clone())).put(record_key, record.encode()?);
        let job = inner.new_job(who, "POST /api/security/key-managers", JobKind::Done, None);
        inner.accept(job, uuid, txn, |_| exists()).await
    }

    /// Changes the passphrase, or brings the onboard key back with it. The job is done on return.
    ///
    /// # Errors
    /// 4; 6; 65537541 where nothing is to change; 65536917 one of the two passphrases alone; 65537242 and 65537243 what synchronizing needs, and what it does not take; 65536404; 65536139 where the
    /// existing one is wrong; 65536150; 65537906; 8 where it was changed at this moment.
    pub async fn modify_onboard(&self, who: &Principal, uuid: Uuid, change: OnboardChange) -> Result<Accepted> {
        let inner = self.inner();
        let stored = self.onboard_named(uuid).await?;
        may_change(who, None)?;
        let missing = |code| Err(Error::new(code).target("onboard.existing_passphrase"));
        let existing = match (&change.passphrase, change.existing_passphrase) {
            (None, None) if !change.synchronize => return Err(Error::new(Code::NoInput)),
            (Some(_), _) if change.synchronize => return Err(Error::new(Code::SynchronizeTakesNoPassphrase).target("onboard.passphrase")),
            (_, None) if change.synchronize => return missing(Code::SynchronizeNeedsPassphrase),
            (_, None) => return missing(Code::PassphraseNeeded),
            (None, Some(_)) if !change.synchronize => return Err(Error::new(Code::PassphraseNeeded).target("onboard.passphrase")),
            (_, Some(existing)) => existing,
        };
        if let Some(new) = &change.passphrase {
            check_length(new, Code::PassphraseLength)?;
        }
        let is_same = change.passphrase.as_ref().is_some_and(|new| new.expose_secret() == existing.expose_secret());
        // First whether it is right: clients find out by the two errors which passphrase the cluster has.
        let onboard_key = inner.recover(&stored.record, existing).await?;
        if is_same {
            return Err(Error::new(Code::SamePassphrase).target("onboard.passphrase"));
        }
        inner.seal.prove().await?;
        let mut record = stored.record.clone();
        record.sealed = inner.seal.seal(&onboard_place(uuid), onboard_key.expose());
        if let Some(new) = change.passphrase {
            record.recovery = inner.recovery(&onboard_key, new).await?;
        }
        let txn = Txn::new().when(Compare::Unchanged(stored.key.clone(), stored.revision)).put(stored.key, record.encode()?);
        let job = inner.new_job(who, format!("PATCH /api/security/key-managers/{uuid}"), JobKind::Done, None);
        inner.accept(job, uuid, txn, |_| Error::with(Code::InUse, "the onboard key manager was changed at this moment; look again").target("uuid")).await
    }

    /// Deletes the onboard key manager. The job is done on return.
    ///
    /// # Errors
    /// 4; 6; 65537106 while it keeps keys, or is what an SVM's keys would come back to.
    pub async fn delete_onboard(&self, who: &Principal, uuid: Uuid) -> Result<Accepted> {
        let inner = self.inner();
        let stored = self.onboard_named(uuid).await?;
        may_change(who, None)?;
        for store in inner.view.all::<KeyStoreRecord>().into_iter().filter(|store| store.record.onboard || store.record.other == Some(uuid)) {
            inner.release_onboard(&store).await?;
        }
        for svm in inner.view.all::<SvmRecord>() {
            inner.forget_destroyed(svm.record.uuid).await?;
        }
        let txn = Txn::new()
            .when(Compare::Unchanged(stored.key.clone(), stored.revision))
            .when(Compare::EmptyPrefix(OnboardKekRecord::PREFIX.to_owned()))
            .delete(stored.key);
        let job = inner.new_job(who, format!("DELETE /api/security/key-managers/{uuid}"), JobKind::Done, None);
        let accepted = inner.accept(job, uuid, txn, |_| Error::with(Code::KeysStillStored, "an SVM has just begun to use it; look again")).await?;
        inner.keyring.forget(uuid);
        Ok(accepted)
    }

    async fn onboard_named(&self, uuid: Uuid) -> Result<Stored<OnboardRecord>> {
        let stored = self.inner().fresh::<OnboardRecord>("").await?;
        stored.filter(|stored| stored.record.uuid == uuid).ok_or_else(|| Error::new(Code::NotFound).target("uuid"))
    }
}

impl Inner {
    /// The onboard key manager, as the view shows it.
    pub(crate) fn onboard(&self) -> Result<Option<Stored<OnboardRecord>>> {
        self.view.get::<OnboardRecord>("")
    }

    /// The onboard key, from memory or opened by the seal key.
    ///
    /// # Errors
    /// 65537926 without an onboard key manager; 65537556 where the seal key does not open it.
    pub(crate) fn onboard_key(&self) -> Result<Arc<Kek>> {
        let record = self.onboard()?.ok_or_else(|| Error::with(Code::NotConfigured, "and the cluster has no onboard key manager"))?.record;
        if let Some(onboard_key) = self.keyring.get(record.uuid, record.version) {
            return Ok(onboard_key);
        }
        opened_by(&self.seal, &record).map(|onboard_key| self.keyring.insert(onboard_key)).ok_or_else(|| {
            let hint = "bring it back with the cluster passphrase (onboard.synchronize of /security/key-managers)";
            Error::with(
                Code::Blocked,
                format!("the onboard key does not open on node {}: the seal key is another one, or the record is damaged; {hint}", self.node.name),
            )
        })
    }

    /// The onboard key must be there before keys move from or to it.
    ///
    /// # Errors
    /// 65537551.
    pub(crate) fn onboard_key_for_moving(&self) -> Result<()> {
        self.onboard_key().map(drop).map_err(|error| Error::with(Code::KeyProtectionUnavailable, error.message))
    }

    /// A version of an SVM's KEK: from memory, or from the onboard key manager where that wraps it. While the SVM has an AWS KMS configuration that holds a KEK, that one's state counts for all
    /// versions: who revokes it does so for keys that are on their way from or to it, too.
    pub(crate) fn kek(&self, svm: Uuid, version: u32) -> Option<Arc<Kek>> {
        self.keyring.get(svm, version).or_else(|| self.onboard_kek(svm, version))
    }

    /// The same for a new key, which nothing else would tell apart later: what is in memory must be what is stored.
    pub(crate) fn kek_for_new_keys(&self, svm: Uuid, version: u32) -> Option<Arc<Kek>> {
        match self.keyring.get(svm, version) {
            // Versions begin anew when an SVM gets a key manager again.
            Some(kek) if self.stored_check_value(svm, version).is_none_or(|stored| is_right(&kek, &stored)) => Some(kek),
            Some(stale) => {
                self.keyring.remove(&stale);
                self.onboard_kek(svm, version)
            }
            None => self.onboard_kek(svm, version),
        }
    }

    /// What tells whether a KEK in memory is the one that the view shows; `None`: the view does not show it yet.
    fn stored_check_value(&self, svm: Uuid, version: u32) -> Option<Base64> {
        let onboard = onboard_kek_key(svm, version);
        let onboard = self.view.get::<OnboardKekRecord>(onboard.strip_prefix(OnboardKekRecord::PREFIX)?).ok().flatten();
        if let Some(onboard) = onboard {
            return Some(onboard.record.check_value);
        }
        let aws = kek_key(svm, version);
        self.view.get::<KekRecord>(aws.strip_prefix(KekRecord::PREFIX)?).ok().flatten().map(|kek| kek.record.check_value)
    }

    fn onboard_kek(&self, svm: Uuid, version: u32) -> Option<Arc<Kek>> {
        self.hold_unless_refused(self.open_onboard_kek(svm, version)?)
    }

    /// Opens a version of an SVM's KEK, whether keys under it may be served or not.
    pub(crate) fn open_onboard_kek(&self, svm: Uuid, version: u32) -> Option<Kek> {
        let record_key = onboard_kek_key(svm, version);
        let record = self.view.get::<OnboardKekRecord>(record_key.strip_prefix(OnboardKekRecord::PREFIX)?).ok().flatten()?.record;
        let onboard_key = self.onboard_key().ok().filter(|onboard_key| onboard_key.version() == record.onboard_version)?;
        let kek = unwrapped(&onboard_key, &record);
        if kek.is_none() {
            tracing::error!(%svm, version, "the KEK that the onboard key manager keeps does not open; keys under it are not served");
        }
        kek
    }

    /// A new version of an SVM's KEK, wrapped by the onboard key.
    ///
    /// # Errors
    /// Those of [`Inner::onboard_key`].
    pub(crate) fn new_onboard_kek(&self, svm: Uuid, version: u32) -> Result<(Kek, OnboardKekRecord)> {
        let onboard_key = self.onboard_key()?;
        let kek = Kek::generate(svm, version);
        let record = OnboardKekRecord {
            svm,
            version,
            onboard_version: onboard_key.version(),
            wrapped: Base64(onboard_key.wrap(&kek_place(svm, version), kek.expose()).0),
            check_value: Base64(kek.check_value().0.to_vec()),
            wrapped_at: self.clock.utc(),
        };
        Ok((kek, record))
    }

    /// Gives an SVM without a key manager a place at the onboard one. `None`: it got one at this moment, from elsewhere.
    ///
    /// # Errors
    /// Those of [`Inner::onboard_key`]; the store.
    pub(crate) async fn adopt(&self, svm: Uuid) -> Result<Option<Stored<KeyStoreRecord>>> {
        let onboard = self.onboard()?.ok_or_else(|| Error::new(Code::NotConfigured))?;
        // It is not put into memory here: as for all others, that happens where the view shows the record.
        let (_, kek) = self.new_onboard_kek(svm, FIRST_KEK)?;
        let record =
            KeyStoreRecord { svm, manager: onboard.record.uuid, onboard: true, state: KeyStoreState::Active, kek_version: FIRST_KEK, other: None, given_up: 0 };
        let store_key = key::<KeyStoreRecord>(svm);
        let txn = Txn::new()
            .when(Compare::Absent(store_key.clone()))
            .when(Compare::EmptyPrefix(onboard_keys_prefix(svm)))
            .when(Compare::Present(key::<SvmRecord>(svm)))
            .when(Compare::Unchanged(onboard.key, onboard.revision))
            .put(store_key.clone(), record.encode()?)
            .put(onboard_kek_key(svm, FIRST_KEK), kek.encode()?);
        self.steps.reached("keys.adopt.before");
        match self.store.transact(txn).await {
            Ok(revision) => {
                self.steps.reached("keys.adopt.after");
                self.view.reached(revision).await;
                Ok(Some(Stored { key: store_key, revision, record }))
            }
            Err(StoreError::Conflict { .. } | StoreError::Indeterminate(_)) => {
                if let Some(store) = self.fresh::<KeyStoreRecord>(svm).await? {
                    self.view.reached(store.revision).await;
                }
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Takes away what the onboard key manager holds for an SVM that has no keys.
    ///
    /// # Errors
    /// 65537106 where it has, or where its keys are moving, or may move back; the store.
    pub(crate) async fn release_onboard(&self, store: &Stored<KeyStoreRecord>) -> Result<()> {
        let svm = store.record.svm;
        let name = self.svm_ref(svm).name;
        let still = |why: &str| Error::with(Code::KeysStillStored, format!("{why} {name}"));
        if store.record.state != KeyStoreState::Active || !store.record.onboard {
            return Err(still(
                "keys are on their way from one key manager to another; migrate until they are there, or delete the AWS KMS configuration, of the SVM",
            ));
        }
        if self.configuration_of(svm).is_some() {
            return Err(still("migrate keys to the AWS KMS configuration, or delete it, of the SVM"));
        }
        let none_left = still("destroy the keys, or move them to another key manager, of the SVM");
        let page = self.store.range(Range::prefix(keys_prefix(svm), 1)).await.map_err(Error::from)?;
        if !page.entries.is_empty() {
            return Err(none_left);
        }
        let txn = Txn::new()
            .when(Compare::Unchanged(store.key.clone(), store.revision))
            .when(Compare::EmptyPrefix(keys_prefix(svm)))
            .and(self.without_onboard(svm))
            .delete(store.key.clone());
        self.steps.reached("onboard.release.before");
        self.commit(txn, |_| none_left).await?;
        self.steps.reached("onboard.release.after");
        self.keyring.forget(svm);
        self.forget_destroyed(svm).await
    }

    /// Deletes what the onboard key manager holds for an SVM.
    pub(crate) fn without_onboard(&self, svm: Uuid) -> Txn {
        self.view.under::<OnboardKekRecord>(&onboard_keys_prefix(svm)).into_iter().fold(Txn::new(), |txn, kek| txn.delete(kek.key))
    }

    /// The AWS KMS configuration of an SVM, whether it holds keys or not.
    pub(crate) fn configuration_of(&self, svm: Uuid) -> Option<Stored<AwsKmsRecord>> {
        self.view.all::<AwsKmsRecord>().into_iter().find(|config| config.record.svm == svm)
    }

    /// Whether AWS wraps a KEK of the SVM.
    pub(crate) fn has_aws_kek(&self, svm: Uuid) -> bool {
        self.view.any_under(&keks_prefix(svm))
    }

    /// Whether a KEK may be in memory that no poll answers for.
    pub(crate) fn is_onboard(&self, owner: Uuid) -> bool {
        self.view.any_under(&onboard_keys_prefix(owner)) || self.onboard().ok().flatten().is_some_and(|onboard| onboard.record.uuid == owner)
    }

    /// 65536968: each node must be reachable, and know what it means that keys are on their way.
    pub(crate) fn every_node_can_move_keys(&self) -> Result<()> {
        let level = crate::cluster::ONBOARD_FEATURE_LEVEL;
        let unfit = self.view.all::<NodeRecord>().into_iter().map(|node| node.record).find_map(|node| match &node.address {
            _ if node.feature_level < level => {
                Some(format!("node {} runs Keystead {} with feature level {}, and {level} is needed", node.name, node.version, node.feature_level))
            }
            None => Some(format!("node {} has no cluster-network address; set [cluster] address in its configuration and restart it", node.name)),
            Some(_) => None,
        });
        let unfit = unfit.or_else(|| crate::presence::absent(self));
        unfit.map_or(Ok(()), |why| Err(Error::with(Code::NodesUnhealthy, why)))
    }

    /// What is known of keys that were destroyed goes with the last of what could open them: where the SVM has no key store. A crash may have come in between, so who deletes looks again.
    pub(crate) async fn forget_destroyed(&self, svm: Uuid) -> Result<()> {
        let store_key = key::<KeyStoreRecord>(svm);
        loop {
            if self.key_store(svm)?.is_some() {
                return Ok(());
            }
            let page = self.store.range(Range::prefix(destroyed_prefix(svm), BATCH)).await.map_err(Error::from)?;
            if page.entries.is_empty() {
                self.view.keys().forget(svm);
                return Ok(());
            }
            let absent = Txn::new().when(Compare::Absent(store_key.clone()));
            match self.store.transact(page.entries.into_iter().fold(absent, |txn, entry| txn.delete(entry.key))).await {
                Ok(_) | Err(StoreError::Indeterminate(_)) => {}
                // It has just begun anew; these go with that.
                Err(StoreError::Conflict { .. }) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Seals the onboard key by a passphrase.
    async fn recovery(&self, onboard_key: &Kek, passphrase: SecretString) -> Result<Recovery> {
        let (place, secret) = (onboard_place(onboard_key.svm()), Zeroizing::new(onboard_key.expose().to_vec()));
        self.derive(move || passphrase::seal(&place, &secret, &passphrase)).await?.map_err(Error::unexpected)
    }

    /// Opens the onboard key with the passphrase alone.
    async fn recover(&self, record: &OnboardRecord, passphrase: SecretString) -> Result<Kek> {
        let wrong = || Error::new(Code::WrongPassphrase).target("onboard.existing_passphrase");
        if !PASSPHRASE.contains(&passphrase.expose_secret().len()) {
            return Err(wrong());
        }
        let (place, recovery) = (onboard_place(record.uuid), record.recovery.clone());
        let mut bytes = self.derive(move || passphrase::open(&place, &recovery, &passphrase)).await?.map_err(|error| match error {
            NotOpened::Wrong => wrong(),
            NotOpened::Failed(why) => Error::unexpected(format!("the record of the onboard key manager: {why}")),
        })?;
        right_key(record, &mut bytes).ok_or_else(wrong)
    }

    /// Works with a passphrase, one at a time: it takes memory on purpose.
    async fn derive<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        let _turn = self.passphrases.acquire().await.map_err(Error::unexpected)?;
        tokio::task::spawn_blocking(work).await.map_err(Error::unexpected)
    }
}

/// The name that a KEK is wrapped for by the onboard key.
fn kek_place(svm: Uuid, version: u32) -> String {
    format!("the KEK of the SVM {svm}, version {version}")
}

/// The onboard key, opened by the seal key.
pub(crate) fn opened_by(seal: &Seal, record: &OnboardRecord) -> Option<Kek> {
    let mut bytes = seal.open_bytes(&onboard_place(record.uuid), &record.sealed).ok()?;
    right_key(record, &mut bytes)
}

/// The KEK of a record, opened by the onboard key.
pub(crate) fn unwrapped(onboard_key: &Kek, record: &OnboardKekRecord) -> Option<Kek> {
    let mut bytes = onboard_key.unwrap_key(&kek_place(record.svm, record.version), &record.wrapped.0).ok()?;
    Kek::take(record.svm, record.version, &mut bytes).filter(|kek| is_right(kek, &record.check_value))
}

fn right_key(record: &OnboardRecord, bytes: &mut [u8]) -> Option<Kek> {
    Kek::take(record.uuid, record.version, bytes).filter(|onboard_key| is_right(onboard_key, &record.check_value))
}

fn is_right(kek: &Kek, check_value: &Base64) -> bool {
    check_value.0.as_slice().try_into().is_ok_and(|stored| kek.check_value() == CheckValue(stored))
}

fn check_length(passphrase: &SecretString, code: Code) -> Result<()> {
    let length = passphrase.expose_secret().len();
    if PASSPHRASE.contains(&length) {
        return Ok(());
    }
    Err(Error::with(code, format!("it must have {} to {} bytes, and has {length}", PASSPHRASE.start(), PASSPHRASE.end())).target("onboard.passphrase"))
}

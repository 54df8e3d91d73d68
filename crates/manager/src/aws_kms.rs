//! The `aws_kms` resource: what is checked before a job starts, and what can be read.

use crate::credentials::{changed, is_admin};
use crate::endpoints;
use crate::inner::{Inner, may_change};
use crate::jobs::{JobKind, StoredChange, StoredProxyChange};
use crate::looks::Freshness;
use crate::model::{Accepted, AwsKms, AwsKmsChange, AwsKmsSettings, EnableRequest, Health, Principal, RekeyExternalRequest, Role, SvmKind, SvmSelector};
use crate::peers::{Heard, Said, What, late};
use crate::records::{
    AwsKmsRecord, Base64, KeyStoreRecord, KeyStoreState, NodeRecord, Record, Stored, StoredProxy, StoredSettings, SvmNameRecord, SvmRecord, key, keys_prefix,
    onboard_keys_prefix, proxy_password_place, secret_place, svm_name_key,
};
use crate::{Code, Error, Manager, Result};
use keystead_awskms::ProxyKind;
use keystead_store::{Compare, Range, Txn};
use secrecy::{ExposeSecret, SecretString};
use std::time::Duration;
use uuid::Uuid;

/// How long this node's own look at AWS KMS may take, for who looks at all nodes.
const OWN_LOOK: Duration = Duration::from_secs(5);

impl Manager {
    /// All configurations, by uuid.
    pub fn aws_kms_list(&self) -> impl Iterator<Item = AwsKms> + use<> {
        self.inner().shown_configs()
    }

    /// One configuration.
    ///
    /// # Errors
    /// 4 where it does not exist; a configuration that is still being enabled does not exist yet.
    pub fn aws_kms(&self, uuid: Uuid) -> Result<AwsKms> {
        let inner = self.inner();
        let config = inner.view.shared::<AwsKmsRecord>(uuid)?.ok_or_else(|| Error::new(Code::NotFound).target("uuid"))?;
        let svm = inner.view.shared::<SvmRecord>(config.record.svm)?;
        Ok(inner.shown_config(config, svm))
    }

    /// Whose a configuration is, also one that is still being enabled.
    ///
    /// # Errors
    /// 4.
    pub fn aws_kms_svm(&self, uuid: Uuid) -> Result<Uuid> {
        let inner = self.inner();
        match stored(inner, uuid) {
            Ok(config) => Ok(config.record.svm),
            Err(error) => reservation(inner, uuid).map(|store| store.record.svm).ok_or(error),
        }
    }

    /// Starts to enable AWS KMS for an SVM. On return the SVM is reserved: a second enable is refused (65537910).
    ///
    /// # Errors
    /// In this order: 6, 262186, 262212 and 262247 for the credentials; 262245 an endpoint inside that is not allowed; the SVM (2621462, 2621706); 65537908; 65537907; 65537911; 65536600; 65537901; 65537910; 65537912; 262145 where
    /// the store takes no job.
    pub async fn enable_aws_kms(&self, who: &Principal, request: EnableRequest) -> Result<Accepted> {
        let inner = self.inner();
        let (svm, settings, migrate) = admitted(inner, who, &request).await?;
        let config = inner.random.uuid();
        let mut reserved = reserve(inner, &svm, config, migrate).await?;
        let (secret_access_key, proxy_password) = sealed_secrets(inner, config, &request);
        let kind = JobKind::Enable {
            config,
            svm: svm.record.uuid,
            settings: Box::new(settings),
            secret_access_key,
            proxy_password,
            skip_verify: request.skip_verify,
            migrate,
        };
        let reservation_key = key::<KeyStoreRecord>(svm.record.uuid);
        let job = inner.new_job(who, "POST /api/security/aws-kms", kind, Some((svm.record.uuid, svm.record.name.clone())));
        loop {
            let accepted = inner.accept(job.clone(), config, reserved, |failed| {
                if failed == reservation_key {
                    already(&svm.record.name)
                } else if failed == svm.key {
                    Error::with(Code::SvmNotFound, "it was changed or deleted at this moment; look again").target("svm.name")
                } else {
                    Error::new(Code::KeysOnAdminSvm)
                }
            });
            match accepted.await {
                // Another POST, or the first key of the SVM, was faster: what is there now says which. It ends when nobody changes the key store at the same moment.
                Err(error) if error.code == Code::AlreadyConfigured => reserved = reserve(inner, &svm, config, migrate).await?,
                answer => return answer,
            }
        }
    }

    /// Starts to change a configuration.
    ///
    /// # Errors
    /// 4; 65537541 where nothing is to change; 6, 262186, 262212 and 262247 for the credentials; 262186 an incomplete proxy; 262245 an endpoint inside that is not allowed; 262247 settings that make no host name.
    pub async fn modify_aws_kms(&self, who: &Principal, uuid: Uuid, change: AwsKmsChange) -> Result<Accepted> {
        let inner = self.inner();
        let config = stored(inner, uuid)?;
        may_change(who, Some(config.record.svm))?;
        let change = stored_change(inner, &config.record, change);
        if change == StoredChange::default() {
            return Err(Error::new(Code::NoInput));
        }
        let change = StoredChange { by_admin: is_admin(who), ..change };
        let new = changed(&config.record, &change, None)?;
        endpoints::host_name(&new.settings)?;
        limits_fit(inner, &new.settings)?;
        endpoints::check(inner, !change.by_admin, Some(&config.record.settings), &new.settings).await?;
        let kind = JobKind::Modify { config: uuid, change: Box::new(change) };
        self.start_job(who, &config, format!("PATCH /api/security/aws-kms/{uuid}"), kind).await
    }

    /// Deletes a configuration, or ends the enabling of one.
    ///
    /// # Errors
    /// 4; 65537106 while keys of the SVM are stored here; 65536817 to 65536884 internal.
    pub async fn delete_aws_kms(&self, who: &Principal, uuid: Uuid) -> Result<Accepted> {
        let inner = self.inner();
        let description = format!("DELETE /api/security/aws-kms/{uuid}");
        let Ok(config) = stored(inner, uuid) else {
            return self.delete_reservation(who, uuid, description).await;
        };
        may_change(who, Some(config.record.svm))?;
        crate::jobs::delete::refuse_live_keys_of(inner, &config.record).await?;
        self.start_job(who, &config, description, JobKind::Delete { config: uuid }).await
    }

    /// Starts to load the KEKs that nodes lack.
    ///
    /// # Errors
    /// 4; 65539436 while it is being enabled.
    pub async fn restore_aws_kms(&self, who: &Principal, uuid: Uuid) -> Result<Accepted> {
        let config = self.ready(who, uuid)?;
        self.start_job(who, &config, format!("POST /api/security/aws-kms/{uuid}/restore"), JobKind::Restore { config: uuid }).await
    }

    /// Starts to replace the SVM's KEK by a new version, and to wrap every key again.
    ///
    /// # Errors
    /// 4; 65539436; 65539437; 65537547; 65537610; 65537556 while blocked or unavailable; 65537559 where the SVM has no keys, since then there is nothing that the KEK protects.
    pub async fn rekey_internal(&self, who: &Principal, uuid: Uuid) -> Result<Accepted> {
        let inner = self.inner();
        let config = self.ready(who, uuid)?;
        crate::jobs::restore::has_the_keys(inner, &config.record).await?;
        let state = inner.standing(config.record.svm);
        if !state.serves() {
            return Err(Error::with(Code::Blocked, state.describe()));
        }
        if let Some(absent) = crate::presence::absent(inner) {
            return Err(Error::with(
                Code::NotAllNodesOnline,
                format!("{absent}; every node must take the new KEK over, so start it, or remove it from the cluster"),
            ));
        }
        let page = inner.store.range(Range::prefix(keys_prefix(config.record.svm), 1)).await.map_err(Error::from)?;
        if page.entries.is_empty() {
            return Err(Error::with(
                Code::NoKeys,
                format!("the KEK of the SVM {} wraps nothing that could be wrapped again", inner.svm_ref(config.record.svm).name),
            ));
        }
        self.start_job(who, &config, format!("POST /api/security/aws-kms/{uuid}/rekey-internal"), JobKind::RekeyInternal { config: uuid }).await
    }

    /// Starts to wrap the KEK under another customer key.
    ///
    /// # Errors
    /// 4; 65539436; 65539437; 65537547; 65537610; 6, 262186, 262212, 262245 and 262247 for the new endpoint and credentials, as in PATCH.
    pub async fn rekey_external(&self, who: &Principal, uuid: Uuid, request: RekeyExternalRequest) -> Result<Accepted> {
        let inner = self.inner();
        let config = self.ready(who, uuid)?;
        crate::jobs::restore::has_the_keys(inner, &config.record).await?;
        let mut change = StoredChange { by_admin: is_admin(who), ..stored_change(inner, &config.record, request.new) };
        if change.credentials_source.is_none() && config.record.settings.credentials_source.is_some() && change.access_key_id.is_some() {
            // An access key for the new customer key takes the place of the source.
            change.credentials_source = Some(None);
        }
        let new = changed(&config.record, &change, Some(&request.key_id))?;
        endpoints::check(inner, !change.by_admin, Some(&config.record.settings), &new.settings).await?;
        let kind = JobKind::RekeyExternal { config: uuid, key_id: request.key_id, change: Box::new(change), outdated: None };
        self.start_job(who, &config, format!("POST /api/security/aws-kms/{uuid}/rekey-external"), kind).await
    }

    /// Whether the SVM's KEK is usable on every node, and what is to be said about it. This node's own part is of this moment.
    ///
    /// # Errors
    /// 4.
    pub async fn state(&self, uuid: Uuid, freshness: Freshness) -> Result<Health> {
        let inner = self.inner();
        let config = stored(inner, uuid)?;
        let all: Vec<Heard> = inner.states(&config, freshness).await.into_iter().filter(|heard| !heard.said.text().is_empty()).collect();
        let (at_risk, unavailable): (Vec<&Heard>, Vec<&Heard>) = all.iter().partition(|heard| heard.said.trouble().is_none());
        let nodes = |what: &str, heard: &[&Heard]| {
            let nodes: Vec<String> = heard.iter().map(|heard| format!("{} - {}", heard.node.name, heard.said.text())).collect();
            (!nodes.is_empty()).then(|| format!("{what} on the following nodes: {}", nodes.join(", ")))
        };
        let parts = [nodes("AWS KMS key protection is unavailable", &unavailable), nodes("AWS KMS key protection is at risk", &at_risk)];
        let message = parts.into_iter().flatten().collect::<Vec<_>>().join("; ");
        Ok(Health { good: unavailable.is_empty(), code: (!message.is_empty()).then_some(Code::KeyProtectionUnavailable), message })
    }

    /// Has every node ask AWS KMS. An answer that names a problem with the key or the credentials is an answer: AWS is reachable; the problem shows in the state.
    ///
    /// # Errors
    /// 4.
    pub async fn amazon_reachability(&self, uuid: Uuid, freshness: Freshness) -> Result<Health> {
        let inner = self.inner();
        let config = stored(inner, uuid)?;
        let all = inner.reachabilities(&config, freshness).await;
        let reasons: Vec<String> = all.iter().filter_map(|heard| heard.said.trouble().map(|why| format!("{}: {why}", heard.node.name))).collect();
        if reasons.is_empty() {
            return Ok(Health { good: true, code: None, message: String::new() });
        }
        Ok(Health { good: false, code: Some(Code::AmazonUnreachable), message: format!("Amazon KMS is not reachable from all nodes - {}", reasons.join("; ")) })
    }

    /// A configuration that an action can work on.
    fn ready(&self, who: &Principal, uuid: Uuid) -> Result<Stored<AwsKmsRecord>> {
        match stored(self.inner(), uuid) {
            Ok(config) => may_change(who, Some(config.record.svm)).map(|()| config),
            Err(error) => match reservation(self.inner(), uuid) {
                Some(store) => may_change(who, Some(store.record.svm)).and(Err(Error::new(Code::Initializing))),
                None => Err(error),
            },
        }
    }

    async fn start_job(&self, who: &Principal, config: &Stored<AwsKmsRecord>, description: String, kind: JobKind) -> Result<Accepted> {
        let inner = self.inner();
        let svm = inner.svm_ref(config.record.svm);
        let job = inner.new_job(who, description, kind, Some((svm.uuid, svm.name)));
        let txn = Txn::new().when(Compare::Present(config.key.clone()));
        inner.accept(job, config.record.uuid, txn, |_| Error::new(Code::NotFound).target("uuid")).await
    }

    /// DELETE of a configuration that is still being enabled: takes the reservation away, and the enabling ends with 65537926.
    async fn delete_reservation(&self, who: &Principal, uuid: Uuid, description: String) -> Result<Accepted> {
        let inner = self.inner();
        let store = reservation(inner, uuid).ok_or_else(|| Error::new(Code::NotFound).target("uuid"))?;
        may_change(who, Some(store.record.svm))?;
        let svm = inner.svm_ref(store.record.svm);
        let job = inner.new_job(who, description, JobKind::Done, Some((svm.uuid, svm.name)));
        let txn = crate::jobs::enable::unreserve(store, uuid);
        inner.accept(job, uuid, txn, |_| Error::with(Code::InUse, "the enabling has just ended; look again")).await
    }
}

/// Whether the KEK of a configuration's SVM is usable on this node, and what is to be said about it.
pub(crate) fn own_state(inner: &Inner, config: &Stored<AwsKmsRecord>) -> (bool, String) {
    if !inner.has_aws_kek(config.record.svm) {
        // Its keys are with the onboard key manager: nothing here depends on AWS.
        return (true, String::new());
    }
    let state = inner.standing(config.record.svm);
    if state.is_available() { (true, String::new()) } else { (state.serves(), state.describe()) }
}

/// Whether this node reaches AWS KMS; else why not.
pub(crate) async fn own_reachability(inner: &Inner, config: &Stored<AwsKmsRecord>) -> (bool, String) {
    let reason = match inner.client(config) {
        Err(error) => Some(error.message),
        Ok(client) => match client.describe_key(&config.record.settings.key_id).await {
            Ok(_) => None,
            Err(error) if error.came_from_aws() => None,
            Err(error) => Some(error.to_string()),
        },
    };
    (reason.is_none(), reason.unwrap_or_default())
}

impl Inner {
    /// What each node says of the KEK of a configuration's SVM, this one first. Its own part is of this moment.
    pub(crate) async fn states(&self, config: &Stored<AwsKmsRecord>, freshness: Freshness) -> Vec<Heard> {
        let others = self.state_looks.look(freshness, &*self.clock, config, self.ask_others(What::State { config: config.record.uuid })).await;
        let (good, message) = own_state(self, config);
        let own = Heard { node: self.node.clone(), said: Said::of(good, message), verified: self.verified_ago(config.record.svm) };
        std::iter::once(own).chain(others).collect()
    }

    /// Whether each node reaches AWS KMS for a configuration, this one first.
    pub(crate) async fn reachabilities(&self, config: &Stored<AwsKmsRecord>, freshness: Freshness) -> Vec<Heard> {
        let look = async {
            // As long as another node is waited for: three attempts of the longest timeout would be minutes.
            let own = async { tokio::time::timeout(OWN_LOOK, own_reachability(self, config)).await.unwrap_or_else(|_| late("AWS KMS", OWN_LOOK)) };
            let ((good, message), others) = tokio::join!(own, self.ask_others(What::Amazon { config: config.record.uuid }));
            let own = Heard { node: self.node.clone(), said: Said::of(good, message), verified: None };
            std::iter::once(own).chain(others).collect()
        };
        self.amazon_looks.look(freshness, &*self.clock, config, look).await
    }

    /// How long ago the last poll of an SVM was asked that was ok, on this node.
    pub(crate) fn verified_ago(&self, svm: Uuid) -> Option<Duration> {
        self.polls.verified_ago(svm, self.clock.monotonic())
    }
}

/// What must hold of a request to enable before anything is kept. The SVM, the settings as they would be stored, and whether keys would move.
///
/// # Errors
/// Those of [`Manager::enable_aws_kms`], up to 65537901.
pub(crate) async fn admitted(inner: &Inner, who: &Principal, request: &EnableRequest) -> Result<(Stored<SvmRecord>, StoredSettings, bool)> {
    if request.migrate_keys && !is_admin(who) {
        let why = "moving keys from the onboard key manager takes an administrator of the cluster, who may also allow it for all with the setting aws_kms.migrate_on_enable";
        return Err(Error::with(Code::PermissionDenied, why).target("keystead.migrate_keys"));
    }
    let source = crate::credentials::of_enable(who, &request.settings, request.secret_access_key.is_some())?;
    let settings = StoredSettings { credentials_source: source, ..stored_settings(request.settings.clone()) };
    crate::credentials::fits(&settings)?;
    endpoints::check(inner, !is_admin(who), None, &settings).await?;
    let svm = select_svm(inner, who, &request.svm)?;
    may_change(who, Some(svm.record.uuid))?;
    limits_fit(inner, &settings)?;
    if svm.record.kind == SvmKind::Admin {
        return Err(Error::new(Code::AdminSvm).target("svm"));
    }
    let cluster = inner.settings();
    if !cluster.aws_kms_enabled {
        return Err(Error::with(Code::AwsKmsDisabled, "an administrator can switch it on: aws_kms.enabled of /security/ekmip/settings"));
    }
    if cluster.metrocluster {
        return Err(Error::new(Code::MetroCluster));
    }
    // Read before the feature levels are looked at: without quorum, that is what is said.
    inner.fresh::<KeyStoreRecord>(svm.record.uuid).await?;
    feature_levels(inner)?;
    Ok((svm, settings, request.migrate_keys || cluster.migrate_on_enable))
}

/// The secrets of a request to enable, sealed for the configuration that they would belong to: the secret access key, and the password of the proxy.
pub(crate) fn sealed_secrets(inner: &Inner, config: Uuid, request: &EnableRequest) -> (Option<Base64>, Option<Base64>) {
    let secret_access_key = request.secret_access_key.as_ref().map(|secret| seal(inner, &secret_place(config), secret));
    let proxy_password = request.proxy_password.as_ref().map(|password| seal(inner, &proxy_password_place(config), password));
    (secret_access_key, proxy_password)
}

/// Finds the SVM that a request names.
pub(crate) fn select_svm(inner: &Inner, who: &Principal, selector: &SvmSelector) -> Result<Stored<SvmRecord>> {
    let seen = |svm: &Stored<SvmRecord>| match who.role {
        Role::Vsadmin { svm: own } => svm.record.uuid == own,
        Role::Admin | Role::Readonly => true,
    };
    let missing = |target: &str, value: String| Error::with(Code::SvmNotFound, value).target(target);
    let by_uuid = match selector.uuid {
        None => None,
        Some(uuid) => Some(inner.view.get::<SvmRecord>(uuid)?.filter(seen).ok_or_else(|| missing("svm.uuid", uuid.to_string()))?),
    };
    let by_name = match &selector.name {
        None => None,
        Some(name) => {
            let id = svm_name_key(name);
            let id = id.strip_prefix(SvmNameRecord::PREFIX).unwrap_or(&id);
            let svm = inner.view.get::<SvmNameRecord>(id)?.map(|found| inner.view.get::<SvmRecord>(found.record.svm)).transpose()?.flatten().filter(seen);
            // With a uuid that fits another SVM, the mismatch is the better answer than "not found".
            match (svm, &by_uuid) {
                (None, Some(_)) => return Err(Error::new(Code::SvmMismatch).target("svm.name")),
                (None, None) => return Err(missing("svm.name", name.clone())),
                (Some(svm), _) => Some(svm),
            }
        }
    };
    match (by_uuid, by_name) {
        (Some(one), Some(other)) if one.record.uuid != other.record.uuid => Err(Error::new(Code::SvmMismatch).target("svm.name")),
        (Some(svm), _) | (None, Some(svm)) => Ok(svm),
        (None, None) => Err(Error::new(Code::MissingField).target("svm.uuid")),
    }
}

pub(crate) fn stored(inner: &Inner, uuid: Uuid) -> Result<Stored<AwsKmsRecord>> {
    inner.view.get::<AwsKmsRecord>(uuid)?.ok_or_else(|| Error::new(Code::NotFound).target("uuid"))
}

/// The transaction that reserves an SVM for a configuration.
///
/// # Errors
/// 65537910; 65537551; 65537912.
pub(crate) async fn reserve(inner: &Inner, svm: &Stored<SvmRecord>, config: Uuid, migrate: bool) -> Result<Txn> {
    let uuid = svm.record.uuid;
    let store_key = key::<KeyStoreRecord>(uuid);
    let txn = Txn::new().when(Compare::Unchanged(svm.key.clone(), svm.revision));
    let Some(store) = inner.fresh::<KeyStoreRecord>(uuid).await? else {
        crate::jobs::enable::refuse_onboard_keys(inner, uuid).await?;
        let reservation =
            KeyStoreRecord { svm: uuid, manager: config, onboard: false, state: KeyStoreState::Initializing, kek_version: 0, other: None, given_up: 0 };
        let txn = txn.when(Compare::Absent(store_key.clone())).when(Compare::EmptyPrefix(onboard_keys_prefix(uuid)));
        return Ok(txn.put(store_key, reservation.encode()?));
    };
    // The onboard key manager is nobody's own. Its keys move with this enable, or they are in its way.
    if !store.record.onboard || store.record.state != KeyStoreState::Active || inner.configuration_of(uuid).is_some() {
        return Err(already(&svm.record.name));
    }
    inner.onboard_key_for_moving()?;
    let mut txn = txn.when(Compare::Unchanged(store_key.clone(), store.revision));
    if !migrate {
        crate::jobs::enable::refuse_live_keys(inner, uuid).await?;
        txn = txn.when(Compare::EmptyPrefix(keys_prefix(uuid)));
    }
    let reservation = KeyStoreRecord { state: KeyStoreState::Switching, other: Some(config), ..store.record };
    Ok(txn.put(store_key, reservation.encode()?))
}

/// The reservation for a configuration that is not stored yet.
pub(crate) fn reservation(inner: &Inner, config: Uuid) -> Option<Stored<KeyStoreRecord>> {
    inner.view.all::<KeyStoreRecord>().into_iter().find(|store| store.record.reserved_for() == Some(config))
}

fn already(svm: &str) -> Error {
    Error::with(Code::AlreadyConfigured, format!("the SVM {svm}")).target("svm")
}

/// 65537901.
fn feature_levels(inner: &Inner) -> Result<()> {
    let level = crate::cluster::AWS_KMS_FEATURE_LEVEL;
    match inner.view.all::<NodeRecord>().into_iter().find(|node| node.record.feature_level < level) {
        None => Ok(()),
        Some(node) => {
            let node = node.record;
            Err(Error::with(
                Code::FeatureLevel,
                format!("node {} runs Keystead {} with feature level {}, and {level} is needed", node.name, node.version, node.feature_level),
            ))
        }
    }
}

/// An SVM may be stricter than the cluster, never laxer; and not so strict that it would be without keys while all is well.
fn limits_fit(inner: &Inner, settings: &StoredSettings) -> Result<()> {
    // A limit that ends before the next good poll can have come would take the keys of an SVM that is well.
    let least = Duration::from_secs(u64::from(settings.polling_period) * 60).mul_f64(1.1)
        + inner.settings().min_poll_interval
        + Duration::from_secs(u64::from(settings.timeout));
    if settings.max_unverified.is_some_and(|own| own < least) {
        let why = format!("with this polling_period it is at least {} s: 1.1 periods, min_poll_interval and timeout", least.as_secs());
        return Err(Error::with(Code::OutOfBounds, why).target("keystead.max_unverified"));
    }
    let limit = inner.settings().access_error_grace;
    match settings.access_error_grace {
        Some(grace) if grace > limit => {
            Err(Error::with(Code::OutOfBounds, format!("it is longer than the cluster's {} s", limit.as_secs())).target("keystead.access_error_grace"))
        }
        _ => Ok(()),
    }
}

fn seal(inner: &Inner, place: &str, secret: &SecretString) -> Base64 {
    inner.seal.seal(place, secret.expose_secret().as_bytes())
}

fn stored_settings(settings: AwsKmsSettings) -> StoredSettings {
    StoredSettings {
        region: settings.region,
        key_id: settings.key_id,
        access_key_id: settings.access_key_id,
        encryption_context: settings.encryption_context,
        service: settings.service,
        default_domain: settings.default_domain,
        host: settings.host,
        port: settings.port,
        polling_period: settings.polling_period,
        timeout: settings.timeout,
        verify: settings.verify,
        verify_host: settings.verify_host,
        verify_ip: settings.verify_ip,
        proxy: settings.proxy.map(|proxy| StoredProxy { https: proxy.kind == ProxyKind::Https, host: proxy.host, port: proxy.port, username: proxy.username }),
        access_error_grace: settings.access_error_grace,
        max_unverified: settings.max_unverified,
        ca_certificates: settings.ca_certificates,
        credentials_source: None,
    }
}

fn stored_change(inner: &Inner, config: &AwsKmsRecord, change: AwsKmsChange) -> StoredChange {
    let proxy = change.proxy;
    StoredChange {
        region: change.region,
        access_key_id: change.access_key_id,
        secret_access_key: change.secret_access_key.map(|secret| seal(inner, &secret_place(config.uuid), &secret)),
        encryption_context: change.encryption_context,
        service: change.service,
        default_domain: change.default_domain,
        host: change.host,
        port: change.port,
        polling_period: change.polling_period,
        timeout: change.timeout,
        verify: change.verify,
        verify_host: change.verify_host,
        verify_ip: change.verify_ip,
        skip_verify: change.skip_verify.unwrap_or_default(),
        proxy: StoredProxyChange {
            https: proxy.kind.map(|kind| kind.map(|kind| kind == ProxyKind::Https)),
            host: proxy.host,
            port: proxy.port,
            username: proxy.username,
        },
        proxy_password: proxy.password.map(|password| password.map(|text| seal(inner, &proxy_password_place(config.uuid), &text))),
        access_error_grace: change.access_error_grace,
        max_unverified: change.max_unverified,
        ca_certificates: change.ca_certificates,
        credentials_source: change.credentials_source,
        by_admin: false,
    }
}

//! What a poll asks AWS, and what the answer proves (`contract/revocation.md`, "What a poll is").

use crate::aws::{AwsDetail, context, kek_from};
use crate::inner::Inner;
use crate::records::{AwsKmsRecord, KekRecord, KeyStoreRecord, KeyStoreState, Record, Stored, kek_key, keks_prefix};
use crate::revocation::Outcome;
use keystead_awskms::{Class, Client, Error, Hop};
use keystead_keyring::Kek;
use std::time::Duration;
use uuid::Uuid;

/// How long a poll waits for its turn under the rate of its account and region. It counts as asked only then.
const TURN: Duration = Duration::from_secs(15 * 60);

/// A good answer.
pub(crate) struct Unwrapped {
    /// The current KEK, and older ones that memory lacks.
    pub keks: Vec<Kek>,
    /// The client that was asked.
    pub client: Client,
    /// The wrapped KEK as it is stored, with the key material that AWS has named now.
    pub seen: Stored<KekRecord>,
}

/// Any other answer.
pub(crate) struct Failure {
    pub outcome: Outcome,
    /// In words.
    pub reason: String,
    /// What AWS said, where it was asked.
    pub detail: AwsDetail,
}

impl Failure {
    /// One on this side.
    fn here(outcome: Outcome, reason: String) -> Self {
        Self { outcome, reason, detail: AwsDetail::default() }
    }
}

impl Inner {
    /// A client for one question, whose turn has come. It counts as asked from then on.
    pub(crate) async fn turn(&self, config: &Stored<AwsKmsRecord>) -> Result<Client, Failure> {
        let client = self.client(config).map_err(|error| Failure::here(Outcome::Misconfigured, error.for_operator()))?;
        client.turn(TURN).await.map_err(|error| failure(&error, config.record.unproven))?;
        Ok(client)
    }

    /// Asks AWS for the SVM's KEK. That takes no longer than one timeout of the configuration.
    pub(crate) async fn unwrap(&self, config: &Stored<AwsKmsRecord>, client: Client) -> Result<Unwrapped, Failure> {
        let limit = Duration::from_secs(u64::from(config.record.settings.timeout));
        let svm = config.record.svm;
        let stored = self.current_kek_in_view(svm)?;
        let record = &stored.record;
        let context = context(record.encryption_context.as_deref()).map_err(inside)?;
        let answer = client.within(limit).decrypt(&record.key_arn, &record.blob.0, &context).await;
        let mut decrypted = answer.map_err(|error| failure(&error, config.record.unproven))?;
        let wrong = || Failure::here(Outcome::Integrity, format!("{} has unwrapped to another KEK than the one that is in use", record.key_arn));
        let kek = kek_from(record, &mut decrypted.plaintext).ok_or_else(wrong)?;
        if self.keyring.get(svm, record.version).is_some_and(|known| !known.matches(kek.expose())) {
            return Err(wrong());
        }
        let mut keks = self.older(&client, svm, record.version, limit).await;
        keks.push(kek);
        let named = KekRecord { key_material_id: decrypted.key_material_id.clone().or_else(|| record.key_material_id.clone()), ..record.clone() };
        Ok(Unwrapped { keks, client, seen: Stored { record: named, ..stored } })
    }

    fn current_kek_in_view(&self, svm: Uuid) -> Result<Stored<KekRecord>, Failure> {
        let store = self.view.get::<KeyStoreRecord>(svm).map_err(inside)?;
        let version = store.as_ref().filter(|store| store.record.state != KeyStoreState::Initializing).map_or(0, |store| store.record.kek_version);
        let key = kek_key(svm, version);
        let id = key.strip_prefix(KekRecord::PREFIX).unwrap_or(&key).to_owned();
        let mut record = self.view.get::<KekRecord>(id).map_err(inside)?;
        if record.is_none() && store.is_some_and(|store| store.record.onboard) {
            // Keys are on their way to the onboard key manager, and it wraps the current version: AWS has wrapped the one before.
            record = self.view.under::<KekRecord>(&keks_prefix(svm)).pop();
        }
        record.ok_or_else(|| Failure::here(Outcome::Integrity, format!("version {version} of the wrapped KEK is missing from the store")))
    }

    /// While a rekey-internal has not ended, older versions of the KEK still wrap keys. A machine that starts in between needs them too. Whether they can be had decides nothing: the current one does.
    async fn older(&self, client: &Client, svm: Uuid, current: u32, limit: Duration) -> Vec<Kek> {
        let mut keks = Vec::new();
        for older in self.view.under::<KekRecord>(&keks_prefix(svm)).into_iter().map(|kek| kek.record) {
            if older.version == current || self.keyring.get(svm, older.version).is_some() {
                continue;
            }
            let Ok(context) = context(older.encryption_context.as_deref()) else { continue };
            let asked = async {
                client.turn(limit).await?;
                client.within(limit).decrypt(&older.key_arn, &older.blob.0, &context).await
            };
            let found = match asked.await {
                Ok(mut decrypted) => kek_from(&older, &mut decrypted.plaintext).ok_or_else(|| "another KEK came back".to_owned()),
                Err(error) => Err(error.to_string()),
            };
            match found {
                Ok(kek) => keks.push(kek),
                Err(reason) => {
                    tracing::error!(%svm, version = older.version, reason, "an older version of the KEK cannot be had; keys under it are not served")
                }
            }
        }
        keks
    }
}

/// A failure on this side says nothing about AWS.
fn inside(error: crate::Error) -> Failure {
    Failure::here(Outcome::Unreachable, error.for_operator())
}

fn failure(error: &Error, unproven: bool) -> Failure {
    Failure { outcome: judge(error, unproven), reason: error.to_string(), detail: AwsDetail::from(error) }
}

/// What an error of AWS proves. `unproven`: these credentials were stored without a proof and have never worked.
fn judge(error: &Error, unproven: bool) -> Outcome {
    match error.class() {
        // What AWS says of a new access key, or of a user without permissions, is evidence only if it worked before (`contract/aws.md`, "Error classes"). The state of the key is evidence anyway.
        Class::Revoked if error.evidence() && unproven && !error.is_key_state() => Outcome::Misconfigured,
        Class::Revoked if error.evidence() => Outcome::Denied,
        // Who sits on the path could forge it.
        Class::Revoked => Outcome::Unreachable,
        Class::Misconfigured if error.came_from_aws() || error.hop() == Hop::Settings => Outcome::Misconfigured,
        Class::Integrity if error.came_from_aws() => Outcome::Integrity,
        Class::Misconfigured | Class::Integrity | Class::Transient | Class::Unreachable => Outcome::Unreachable,
    }
}

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
    /// Asks AWS for the SVM's KEK. Answers when the question went out, and what came back. All of it takes no longer than the machine has patience for.
    pub(crate) async fn unwrap(&self, config: &Stored<AwsKmsRecord>) -> (Duration, Result<Unwrapped, Failure>) {
        let client = match self.client(config) {
            Ok(client) => client,
            Err(error) => return (self.clock.monotonic(), Err(Failure::here(Outcome::Misconfigured, error.detail.unwrap_or(error.message)))),
        };
        if let Err(error) = client.turn(TURN).await {
            return (self.clock.monotonic(), Err(failure(&error)));
        }
        let asked = self.clock.monotonic();
        let limit = self.patience(&config.record, asked);
        (asked, self.unwrap_within(config, client, limit).await)
    }

    async fn unwrap_within(&self, config: &Stored<AwsKmsRecord>, client: Client, limit: Duration) -> Result<Unwrapped, Failure> {
        let svm = config.record.svm;
        let stored = self.current_kek_in_view(svm)?;
        let record = &stored.record;
        let context = context(record.encryption_context.as_deref()).map_err(inside)?;
        let answer = client.within(limit).decrypt(&record.key_arn, &record.blob.0, &context).await;
        let mut decrypted = answer.map_err(|error| failure(&error))?;
        let wrong = || Failure::here(Outcome::Integrity, format!("{} has unwrapped to another KEK than the one that is in use", record.key_arn));
        let kek = kek_from(record, &mut decrypted.plaintext).ok_or_else(wrong)?;
        if self.keyring.get(svm, record.version).is_some_and(|known| !known.matches(kek.expose())) {
            return Err(wrong());
        }
        let mut keks = self.older(&client, svm, record.version).await.map_err(|error| failure(&error))?;
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

    /// While a rekey-internal has not ended, older versions of the KEK still wrap keys. A machine that starts in between needs them too.
    async fn older(&self, client: &Client, svm: Uuid, current: u32) -> Result<Vec<Kek>, Error> {
        let mut keks = Vec::new();
        for older in self.view.under::<KekRecord>(&keks_prefix(svm)).into_iter().map(|kek| kek.record) {
            if older.version == current || self.keyring.get(svm, older.version).is_some() {
                continue;
            }
            let Ok(context) = context(older.encryption_context.as_deref()) else { continue };
            let mut decrypted = client.decrypt(&older.key_arn, &older.blob.0, &context).await?;
            match kek_from(&older, &mut decrypted.plaintext) {
                Some(kek) => keks.push(kek),
                None => {
                    tracing::error!(%svm, version = older.version, "AWS KMS has answered with another KEK than the one that is stored; keys under it are not served")
                }
            }
        }
        Ok(keks)
    }
}

/// A failure on this side says nothing about AWS.
fn inside(error: crate::Error) -> Failure {
    Failure::here(Outcome::Unreachable, error.detail.unwrap_or(error.message))
}

fn failure(error: &Error) -> Failure {
    Failure { outcome: judge(error), reason: error.to_string(), detail: AwsDetail::from(error) }
}

/// What an error of AWS proves.
fn judge(error: &Error) -> Outcome {
    match error.class() {
        Class::Revoked if error.evidence() => Outcome::Denied,
        // Who sits on the path could forge it.
        Class::Revoked => Outcome::Unreachable,
        Class::Misconfigured if error.came_from_aws() || matches!(error.hop(), Hop::Settings | Hop::Credentials) => Outcome::Misconfigured,
        Class::Integrity if error.came_from_aws() => Outcome::Integrity,
        Class::Misconfigured | Class::Integrity | Class::Transient | Class::Unreachable => Outcome::Unreachable,
    }
}

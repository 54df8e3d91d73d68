//! Rotation: a customer key that was rotated, or an alias that was pointed at another key, is noticed by the poll, and the KEK is wrapped again by a job (`contract/aws.md`, "Rotation").

use crate::Result;
use crate::inner::Inner;
use crate::jobs::{JobKind, StoredChange};
use crate::model::Principal;
use crate::model::Role;
use crate::records::{AwsKmsRecord, KekRecord, KeyStoreRecord, KeyStoreState, Stored};
use jiff::{SignedDuration, Timestamp};
use keystead_awskms::{Client, KeyDescription};
use keystead_store::{Compare, Txn};
use std::time::Duration;

/// Where AWS names no key material, the KEK is wrapped again when it was wrapped that long ago.
const MOST_AGE: SignedDuration = SignedDuration::from_hours(30 * 24);
/// How long DescribeKey waits for its turn. Without an answer, the next poll notices what this one has not.
const TURN: Duration = Duration::from_secs(60);

/// Why a KEK should be wrapped again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Why {
    /// The alias of the configuration names this key now.
    Repointed(String),
    /// The customer key has this key material now.
    Rotated(String),
    /// AWS names no key material, and the KEK was wrapped long ago.
    Age,
}

impl std::fmt::Display for Why {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Repointed(arn) => write!(f, "the alias names {arn} now"),
            Self::Rotated(material) => write!(f, "the customer key was rotated to the key material {material}"),
            Self::Age => f.write_str("the KEK was wrapped 30 days ago, and AWS does not say whether the customer key was rotated since"),
        }
    }
}

impl Inner {
    /// After a good poll: asks what the customer key is now, and starts a job where the KEK should be wrapped again.
    pub(crate) async fn notice_rotation(&self, config: &Stored<AwsKmsRecord>, client: &Client, kek: &Stored<KekRecord>) {
        let svm = config.record.svm;
        if client.turn(TURN).await.is_err() {
            return;
        }
        let limit = Duration::from_secs(u64::from(config.record.settings.timeout));
        let described = match client.within(limit).describe_key(asked_for(&config.record.settings.key_id, &kek.record)).await {
            Ok(described) => described,
            Err(error) => {
                tracing::warn!(%svm, %error, "the KEK unwraps, but DescribeKey fails; rotation cannot be noticed (the IAM user needs kms:DescribeKey, and an alias must exist)");
                return;
            }
        };
        if !described.enabled {
            tracing::warn!(%svm, key = described.arn, state = described.state, "the customer key is not Enabled");
            return;
        }
        let Some(why) = outdated(&kek.record, &described, self.clock.utc()) else { return };
        if let Err(error) = self.wrap_again(config, kek, &why).await {
            tracing::warn!(%svm, %error, detail = error.detail.as_deref(), "the KEK should be wrapped again, but no job could be started; the next poll tries again");
        }
    }

    async fn wrap_again(&self, config: &Stored<AwsKmsRecord>, kek: &Stored<KekRecord>, why: &Why) -> Result<()> {
        let uuid = config.record.uuid;
        let store = self.view.get::<KeyStoreRecord>(config.record.svm)?;
        let is_active = store.is_some_and(|store| store.record.state == KeyStoreState::Active);
        let is_busy = self.view.open_jobs().iter().any(|job| job.record.kind.config() == Some(uuid));
        if !is_active || is_busy || !self.may_wrap_again(config.record.svm, &why.to_string()) {
            return Ok(());
        }
        let svm = self.svm_ref(config.record.svm);
        tracing::info!(svm = svm.name, %why, "wrapping the KEK again");
        let kind = JobKind::RekeyExternal {
            config: uuid,
            key_id: config.record.settings.key_id.clone(),
            change: Box::new(StoredChange { by_admin: true, ..StoredChange::default() }),
            outdated: Some(kek.record.wrapped_at),
        };
        let who = Principal { name: crate::accounts::SYSTEM.to_owned(), role: Role::Admin };
        let job = self.new_job(&who, format!("Wrapping the KEK of the SVM {} again: {why}", svm.name), kind, Some((svm.uuid, svm.name)));
        // Another node may have noticed it too, and may even be done.
        let txn = Txn::new().when(Compare::Unchanged(kek.key.clone(), kek.revision)).when(Compare::Unchanged(config.key.clone(), config.revision));
        let changed = |_: &str| crate::Error::with(crate::Code::InUse, "the configuration was changed at this moment");
        self.accept(job, uuid, txn, changed).await.map(drop)
    }
}

/// What DescribeKey is asked for: an alias as it was given, since it may name another key now; else the key that wraps the KEK.
fn asked_for<'a>(key_id: &'a str, kek: &'a KekRecord) -> &'a str {
    if is_alias(key_id) { key_id } else { &kek.key_arn }
}

fn is_alias(key_id: &str) -> bool {
    key_id.starts_with("alias/") || key_id.contains(":alias/")
}

fn outdated(kek: &KekRecord, described: &KeyDescription, now: Timestamp) -> Option<Why> {
    if described.arn != kek.key_arn && described.arn.starts_with("arn:") {
        return Some(Why::Repointed(described.arn.clone()));
    }
    match (&described.key_material_id, &kek.key_material_id) {
        (Some(current), Some(wraps)) => (current != wraps).then(|| Why::Rotated(current.clone())),
        _ => (now.duration_since(kek.wrapped_at) >= MOST_AGE).then_some(Why::Age),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::Base64;
    use uuid::Uuid;

    const ARN: &str = "arn:aws:kms:us-east-1:111122223333:key/1";

    fn kek(material: Option<&str>) -> KekRecord {
        KekRecord {
            svm: Uuid::nil(),
            version: 1,
            blob: Base64(Vec::new()),
            key_arn: ARN.to_owned(),
            encryption_context: None,
            key_material_id: material.map(str::to_owned),
            check_value: Base64(Vec::new()),
            wrapped_at: Timestamp::UNIX_EPOCH,
        }
    }

    fn described(arn: &str, material: Option<&str>) -> KeyDescription {
        KeyDescription {
            arn: arn.to_owned(),
            enabled: true,
            state: "Enabled".to_owned(),
            usage: None,
            key_material_id: material.map(str::to_owned),
            multi_region: false,
        }
    }

    #[test]
    fn another_key_another_material_or_a_great_age() {
        let (soon, late) = (Timestamp::UNIX_EPOCH + SignedDuration::from_hours(24 * 29), Timestamp::UNIX_EPOCH + SignedDuration::from_hours(24 * 30));
        let other = "arn:aws:kms:us-east-1:111122223333:key/2";
        assert_eq!(outdated(&kek(Some("m1")), &described(other, Some("m1")), soon), Some(Why::Repointed(other.to_owned())));
        assert_eq!(outdated(&kek(Some("m1")), &described(ARN, Some("m2")), soon), Some(Why::Rotated("m2".to_owned())));
        assert_eq!(outdated(&kek(Some("m1")), &described(ARN, Some("m1")), late), None, "AWS says that nothing was rotated");
        for (named, known) in [(None, None), (Some("m1"), None), (None, Some("m1"))] {
            assert_eq!(outdated(&kek(known), &described(ARN, named), soon), None);
            assert_eq!(outdated(&kek(known), &described(ARN, named), late), Some(Why::Age));
        }
    }

    #[test]
    fn an_alias_is_asked_for_by_its_name() {
        for alias in ["alias/x", "arn:aws:kms:us-east-1:111122223333:alias/x"] {
            assert_eq!(asked_for(alias, &kek(None)), alias);
        }
        for key in ["1234abcd", "mrk-1", "arn:aws:kms:eu-west-1:111122223333:key/mrk-1"] {
            assert_eq!(asked_for(key, &kek(None)), ARN);
        }
    }
}

//! What the state machine of a tenant's promise, and the jobs that wrap KEKs, tell operators.

use super::catalogue::{
    AVAILABLE, INTEGRITY, KEY_CHANGED, KEY_VERSION_CHANGED, MISCONFIGURED, NOT_AVAILABLE, OFFLINE, ONLINE, REVOKING, REWRAP_FAILED, THROTTLED,
};
use super::record::Trouble;
use crate::Error;
use crate::aws::AwsDetail;
use crate::inner::Inner;
use crate::model::SvmRef;
use crate::records::KekRecord;
use crate::revocation::{Event, Outcome, Why};
use std::time::Duration;

impl Inner {
    /// Raises what follows from an event of the machine. `left` is the time until keys are refused, where there is an end.
    pub(crate) fn tell(&self, svm: &SvmRef, event: Event, reason: &str, detail: &AwsDetail, left: Duration) {
        let with = |reason: String| {
            let mut parameters = vec![("reason", reason)];
            parameters.extend(detail.parameters());
            parameters
        };
        match event {
            Event::Available => match self.events.close(svm.uuid) {
                None => tracing::info!(svm = svm.name, "the KEK of the SVM is in memory"),
                Some(trouble) => {
                    if trouble == Trouble::Offline {
                        self.raise(&ONLINE, Some(svm), Vec::new());
                    }
                    self.raise(&AVAILABLE, Some(svm), Vec::new());
                }
            },
            Event::Degraded(outcome) | Event::NotLoaded(outcome) => {
                let serves =
                    if matches!(event, Event::Degraded(_)) { "keys are still served" } else { "keys are not served, the KEK was not loaded since the start" };
                if self.events.open(svm.uuid, Trouble::NotAvailable) {
                    self.raise(&NOT_AVAILABLE, Some(svm), with(format!("{reason}; {serves}")));
                }
                match outcome {
                    Outcome::Misconfigured => self.raise(&MISCONFIGURED, Some(svm), with(reason.to_owned())),
                    Outcome::Integrity => self.raise(&INTEGRITY, Some(svm), with(reason.to_owned())),
                    Outcome::Ok | Outcome::Denied | Outcome::Unreachable => {}
                }
            }
            Event::Revoking => {
                // A grace longer than what a timestamp can hold has no end that could be written down.
                let until = jiff::SignedDuration::try_from(left).ok().and_then(|left| self.clock.utc().checked_add(left).ok());
                let until = until.map_or_else(String::new, |until| until.strftime("%Y-%m-%dT%H:%M:%S+00:00").to_string());
                let mut parameters = with(format!("{reason}; keys are served until {until}"));
                parameters.push(("until", until));
                self.raise(&REVOKING, Some(svm), parameters);
            }
            Event::Blocked(why) => {
                let why = match why {
                    Why::Denied => "AWS KMS denies the customer key, and the grace is over",
                    Why::Unverified => "there was no good poll for max_unverified",
                };
                self.events.open(svm.uuid, Trouble::Offline);
                let reason = if reason.is_empty() { why.to_owned() } else { format!("{why}; the last poll: {reason}") };
                self.raise(&OFFLINE, Some(svm), with(reason));
            }
        }
    }

    /// AWS has begun to throttle the polls of an SVM.
    pub(crate) fn tell_throttled(&self, svm: &SvmRef, reason: &str, detail: &AwsDetail) {
        let mut parameters = vec![("reason", reason.to_owned())];
        parameters.extend(detail.parameters());
        self.raise(&THROTTLED, Some(svm), parameters);
    }

    /// Nobody has asked for a wrapping but the poll, and it has failed.
    pub(crate) fn tell_wrap_failed(&self, svm: &SvmRef, error: &Error) {
        self.raise(&REWRAP_FAILED, Some(svm), vec![("reason", error.message.clone()), ("code", error.code.to_string())]);
    }

    /// A KEK is wrapped anew, and that stands in the store.
    pub(crate) fn tell_rewrapped(&self, svm: &SvmRef, old: &KekRecord, new: &KekRecord) {
        if old.key_arn != new.key_arn {
            let reason = format!("{} in place of {}", new.key_arn, old.key_arn);
            self.raise(&KEY_CHANGED, Some(svm), vec![("reason", reason), ("old_key", old.key_arn.clone()), ("new_key", new.key_arn.clone())]);
        } else if (&old.key_material_id, &new.key_material_id) == (&None, &None) && old.encryption_context == new.encryption_context {
            let reason = format!("the current material of {}, which AWS does not name", new.key_arn);
            self.raise(&KEY_VERSION_CHANGED, Some(svm), vec![("reason", reason), ("key", new.key_arn.clone())]);
        } else if let Some(material) = new.key_material_id.clone().filter(|new| old.key_material_id.as_ref() != Some(new)) {
            let reason = format!("the material {material} of {}", new.key_arn);
            let before = old.key_material_id.clone().unwrap_or_default();
            self.raise(
                &KEY_VERSION_CHANGED,
                Some(svm),
                vec![("reason", reason), ("key", new.key_arn.clone()), ("old_material", before), ("new_material", material)],
            );
        }
    }
}

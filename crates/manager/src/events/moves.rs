//! What moves of keys between key managers tell operators: that one has begun, has turned the SVM, has ended, has failed, or was given up.

use super::catalogue::{MIGRATE_FAILED, MIGRATE_FINISHED, MIGRATE_GIVEN_UP, MIGRATE_STARTED, MIGRATE_TURNED, Message};
use crate::Error;
use crate::inner::Inner;
use crate::jobs::JobKind;
use crate::records::{AwsKmsRecord, KeyStoreRecord, KeyStoreState};
use uuid::Uuid;

/// Whose keys move, from where to where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Route {
    /// The SVM.
    pub svm: Uuid,
    /// The onboard key manager.
    pub onboard: Uuid,
    /// The AWS KMS configuration.
    pub config: Uuid,
    /// From AWS KMS to the onboard key manager; else the other way.
    pub to_onboard: bool,
}

impl Inner {
    /// The move that a job makes, where it makes one.
    pub(crate) fn route_of(&self, kind: &JobKind) -> Option<Route> {
        let onboard = self.onboard().ok().flatten()?.record.uuid;
        match kind {
            JobKind::Migrate { config, to_onboard, .. } => {
                let svm = self.view.get::<AwsKmsRecord>(config).ok().flatten()?.record.svm;
                Some(Route { svm, onboard, config: *config, to_onboard: *to_onboard })
            }
            JobKind::Enable { config, svm, migrate: true, .. } => {
                let store = self.view.get::<KeyStoreRecord>(svm).ok().flatten()?.record;
                let moves = match store.state {
                    KeyStoreState::Switching => store.other == Some(*config),
                    KeyStoreState::Mixed => store.manager == *config,
                    _ => false,
                };
                moves.then_some(Route { svm: *svm, onboard, config: *config, to_onboard: false })
            }
            _ => None,
        }
    }

    /// A move has begun. Told again by a job that starts over.
    pub(crate) fn tell_move_started(&self, route: &Route) {
        self.tell_move(&MIGRATE_STARTED, route, String::new(), Vec::new());
    }

    /// The SVM is turned: new keys go to the destination.
    pub(crate) fn tell_move_turned(&self, route: &Route) {
        self.tell_move(&MIGRATE_TURNED, route, String::new(), Vec::new());
    }

    /// All keys are at the destination.
    pub(crate) fn tell_move_finished(&self, route: &Route, keys: usize) {
        self.tell_move(&MIGRATE_FINISHED, route, format!("; {keys} keys were wrapped again"), vec![("keys", keys.to_string())]);
    }

    /// A job that moves keys has failed, or was cancelled.
    pub(crate) fn tell_move_failed(&self, route: &Route, error: &Error) {
        self.tell_move(&MIGRATE_FAILED, route, format!(": {}", error.message), vec![("code", error.code.to_string())]);
    }

    /// An administrator has given a move to AWS KMS up.
    pub(crate) fn tell_move_given_up(&self, route: &Route) {
        self.tell_move(&MIGRATE_GIVEN_UP, route, String::new(), Vec::new());
    }

    fn tell_move(&self, message: &'static Message, route: &Route, more: String, parameters: Vec<(&'static str, String)>) {
        let (onboard, aws) = (("the onboard key manager", route.onboard), ("the AWS KMS configuration", route.config));
        let ((source, source_uuid), (destination, destination_uuid)) = if route.to_onboard { (aws, onboard) } else { (onboard, aws) };
        let reason = format!("from {source} {source_uuid} to {destination} {destination_uuid}{more}");
        let route_parameters = [("reason", reason), ("source", source_uuid.to_string()), ("destination", destination_uuid.to_string())];
        self.raise(message, Some(&self.svm_ref(route.svm)), route_parameters.into_iter().chain(parameters).collect());
    }
}

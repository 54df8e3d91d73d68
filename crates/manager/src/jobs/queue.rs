//! Which of the open jobs may start.

use crate::model::JobState;
use crate::records::{JobRecord, Stored};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use uuid::Uuid;

/// Jobs that nobody works on and that may start now: not ended, not held, no other of the same configuration at work, and no older one before them. At most `places` of those that work.
///
/// `open` are the jobs that have not ended, in the order of acceptance; `running` those at work on this node, with the configuration of each; `claimed` tells whether a node works on a job. A job that
/// is at work keeps others of its configuration away wherever it stands: of jobs accepted in one moment, the one that was seen later may come first in the order.
pub(crate) fn startable(
    open: Vec<Arc<Stored<JobRecord>>>,
    running: &HashMap<Uuid, Option<Uuid>>,
    claimed: impl Fn(Uuid) -> bool,
    places: usize,
) -> Vec<Arc<Stored<JobRecord>>> {
    let (at_work, waiting): (Vec<_>, Vec<_>) = open.into_iter().partition(|job| running.contains_key(&job.record.uuid) || claimed(job.record.uuid));
    // Also those that were cancelled and have not yet come to their end.
    let mut busy: HashSet<Uuid> = running.values().copied().flatten().chain(at_work.iter().filter_map(|job| job.record.kind.config())).collect();
    let mut left = places;
    let mut found = Vec::new();
    for job in waiting {
        let first = job.record.kind.config().is_none_or(|config| busy.insert(config));
        let free = first && matches!(job.record.state, JobState::Queued | JobState::Running);
        if !free || (left == 0 && job.record.kind.works()) {
            continue;
        }
        if job.record.kind.works() {
            left -= 1;
        }
        found.push(job);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jobs::JobKind;
    use jiff::Timestamp;

    fn delete_of(job: u128, config: u128, state: JobState) -> Arc<Stored<JobRecord>> {
        let record = JobRecord {
            uuid: Uuid::from_u128(job),
            kind: JobKind::Delete { config: Uuid::from_u128(config) },
            description: String::new(),
            account: String::new(),
            state,
            message: String::new(),
            error: None,
            start_time: Timestamp::UNIX_EPOCH,
            order: 1,
            end_time: None,
            node: None,
            svm: None,
            traceparent: None,
        };
        Arc::new(Stored { key: job.to_string(), revision: keystead_store::Revision(1), record })
    }

    fn started(open: Vec<Arc<Stored<JobRecord>>>, running: &[(u128, u128)], claimed: &[u128], places: usize) -> Vec<u128> {
        let running = running.iter().map(|(job, config)| (Uuid::from_u128(*job), Some(Uuid::from_u128(*config)))).collect();
        startable(open, &running, |job| claimed.contains(&job.as_u128()), places).iter().map(|job| job.record.uuid.as_u128()).collect()
    }

    #[test]
    fn one_of_a_configuration_is_at_work_at_a_time() {
        let [a, b, other] = [delete_of(1, 7, JobState::Queued), delete_of(2, 7, JobState::Queued), delete_of(3, 8, JobState::Queued)];
        let all = || vec![Arc::clone(&a), Arc::clone(&b), Arc::clone(&other)];
        assert_eq!(started(all(), &[], &[], 9), [1, 3], "the older one, and that of another configuration");
        assert_eq!(started(all(), &[(1, 7)], &[], 9), [3]);
        // Accepted in the same moment, and seen later: its place may be before the one that is at work.
        assert_eq!(started(all(), &[(2, 7)], &[], 9), [3], "at work on this node");
        assert_eq!(started(all(), &[], &[2], 9), [3], "at work on another node");
        // It has been cancelled, and is no longer open.
        assert_eq!(started(all(), &[(9, 7)], &[], 9), [3]);
        assert_eq!(started(all(), &[], &[], 1), [1], "as many as there are places");
        let held = vec![delete_of(1, 7, JobState::Paused), b];
        assert_eq!(started(held, &[], &[], 9), [0; 0], "a held one keeps its turn");
    }
}

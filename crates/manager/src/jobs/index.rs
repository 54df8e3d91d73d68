//! Which jobs are open, and which have ended and when: kept with the view, so that nobody goes through all jobs to find the few that are due.

use crate::records::{JobRecord, Record, Stored};
use jiff::Timestamp;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use uuid::Uuid;

/// The place of an open job among the others.
type Place = (u64, Timestamp, Uuid);

/// The index.
#[derive(Default)]
pub(crate) struct JobIndex {
    /// In the order of acceptance.
    open: BTreeMap<Place, Arc<Stored<JobRecord>>>,
    /// The oldest end first, with the node that wrote it.
    ended: BTreeMap<(Timestamp, String), Option<Uuid>>,
    /// Where each job stands in either.
    known: BTreeMap<String, Known>,
    last_order: u64,
}

enum Known {
    Open(Place),
    Ended(Timestamp),
}

impl JobIndex {
    /// Whether a key is that of a job.
    pub fn is_job(key: &str) -> bool {
        key.starts_with(JobRecord::PREFIX)
    }

    /// Takes a job in, as it is now.
    pub fn put(&mut self, job: Arc<Stored<JobRecord>>) {
        self.delete(&job.key);
        self.last_order = self.last_order.max(job.record.order);
        let known = if job.record.state.is_final() {
            let end = job.record.end_time.unwrap_or(job.record.start_time);
            self.ended.insert((end, job.key.clone()), job.record.node);
            Known::Ended(end)
        } else {
            let place = (job.record.order, job.record.start_time, job.record.uuid);
            self.open.insert(place, Arc::clone(&job));
            Known::Open(place)
        };
        self.known.insert(job.key.clone(), known);
    }

    /// Takes a job out.
    pub fn delete(&mut self, key: &str) {
        match self.known.remove(key) {
            Some(Known::Open(place)) => {
                self.open.remove(&place);
            }
            Some(Known::Ended(end)) => {
                self.ended.remove(&(end, key.to_owned()));
            }
            None => {}
        }
    }

    /// The jobs that have not ended, in the order of acceptance.
    pub fn open(&self) -> impl ExactSizeIterator<Item = &Arc<Stored<JobRecord>>> {
        self.open.values()
    }

    /// The keys of jobs that ended at a moment or before it, the oldest first, so many at the most, but for those of some nodes.
    pub fn ended_by(&self, moment: Timestamp, most: usize, but: &HashSet<Uuid>) -> Vec<String> {
        let old = self.ended.iter().take_while(|((end, _), _)| *end <= moment);
        old.filter(|(_, node)| node.is_none_or(|node| !but.contains(&node))).take(most).map(|((_, key), _)| key.clone()).collect()
    }

    /// The largest place in the order of acceptance that any job has had.
    pub fn last_order(&self) -> u64 {
        self.last_order
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use crate::jobs::JobKind;
    use crate::model::JobState;
    use keystead_store::Revision;

    fn ended(at: i64, node: Option<Uuid>) -> Arc<Stored<JobRecord>> {
        let end = Timestamp::from_second(at).unwrap();
        let record = JobRecord {
            uuid: Uuid::new_v4(),
            kind: JobKind::Done,
            description: String::new(),
            account: String::new(),
            state: JobState::Success,
            message: String::new(),
            error: None,
            start_time: end,
            order: 1,
            end_time: Some(end),
            node,
            svm: None,
            traceparent: None,
        };
        Arc::new(Stored { key: format!("{}{}", JobRecord::PREFIX, record.uuid), revision: Revision(1), record })
    }

    #[test]
    fn old_jobs_are_told_by_their_nodes() {
        let (own, other) = (Uuid::new_v4(), Uuid::new_v4());
        let jobs = [ended(1, Some(other)), ended(2, Some(own)), ended(3, None), ended(9, Some(own))];
        let mut index = JobIndex::default();
        jobs.iter().for_each(|job| index.put(Arc::clone(job)));
        let by = |index: &JobIndex, most, but: &[Uuid]| index.ended_by(Timestamp::from_second(5).unwrap(), most, &but.iter().copied().collect());
        let keys = |of: &[usize]| of.iter().map(|place| jobs[*place].key.clone()).collect::<Vec<_>>();
        assert_eq!(by(&index, 10, &[]), keys(&[0, 1, 2]), "the last one is not old");
        assert_eq!(by(&index, 10, &[other]), keys(&[1, 2]));
        assert_eq!(by(&index, 1, &[other]), keys(&[1]), "what is another's takes nobody's place");
        index.delete(&jobs[1].key);
        assert_eq!(by(&index, 10, &[other]), keys(&[2]));
    }
}

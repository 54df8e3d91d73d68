//! Which jobs are open, and which have ended and when: kept with the view, so that nobody goes through all jobs to find the few that are due.

use crate::records::{JobRecord, Record, Stored};
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use uuid::Uuid;

/// The place of an open job among the others.
type Place = (u64, Timestamp, Uuid);

/// The index.
#[derive(Default)]
pub(crate) struct JobIndex {
    /// In the order of acceptance.
    open: BTreeMap<Place, Arc<Stored<JobRecord>>>,
    /// The oldest end first.
    ended: BTreeSet<(Timestamp, String)>,
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
            self.ended.insert((end, job.key.clone()));
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

    /// The keys of jobs that ended at a moment or before it, the oldest first, so many at the most.
    pub fn ended_by(&self, moment: Timestamp, most: usize) -> Vec<String> {
        self.ended.iter().take(most).take_while(|(end, _)| *end <= moment).map(|(_, key)| key.clone()).collect()
    }

    /// The largest place in the order of acceptance that any job has had.
    pub fn last_order(&self) -> u64 {
        self.last_order
    }
}

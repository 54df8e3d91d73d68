//! The metrics of the EKMIP server: operations with their results and their time, and connections.
//!
//! A Get adds to two cells and reads the clock twice, for all items of a message once more than there are items.

use crate::clients::Clients;
use crate::identity::Identities;
use crate::operations::OPERATIONS;
use keystead_kmip::enumeration::{Enumeration as _, ResultReason};
use keystead_kmip::message::Outcome;
use keystead_metrics::{Counts, Name, Page, Source, Timings};
use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, watch};

/// The upper bounds of the histogram, in seconds: a Get takes some 10 µs, a Create a sync of the disk.
const BOUNDS: &[f64] = &[0.00001, 0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25, 1.0, 5.0];

/// What an operation can come to: it is done, refused (blocked, or not this client's), about an object that there is not, or another failure.
const RESULTS: &[&str] = &["success", "denied", "not_found", "error"];

/// Why a connection was refused: the handshake has failed, the certificate speaks for nobody, there are too many.
const REFUSALS: &[&str] = &["handshake", "certificate", "limit"];

/// What is not in [`OPERATIONS`]: operations of tests, and numbers that KMIP does not have.
const OTHER: &str = "other";

/// KMIP's numbers of operations are small; larger ones are none.
const NUMBERS: usize = 128;

/// Why a connection was refused.
#[derive(Debug, Clone, Copy)]
pub enum Refused {
    /// The handshake has failed, has taken too long, or has made room for others.
    Handshake,
    /// The certificate is not accepted.
    Certificate,
    /// There are too many connections, of all, of the SVM or of the client.
    Limit,
}

/// What the EKMIP server counts.
#[derive(Debug)]
pub struct Counted {
    /// The place of an operation among the metrics, by its number.
    places: [u8; NUMBERS],
    operations: Timings,
    refused: Counts,
}

impl Default for Counted {
    fn default() -> Self {
        let mut places = [u8::try_from(OPERATIONS.len()).unwrap_or(u8::MAX); NUMBERS];
        for (place, operation) in OPERATIONS.iter().enumerate() {
            let number = usize::try_from(operation.number()).ok().and_then(|number| places.get_mut(number));
            if let (Some(at), Ok(place)) = (number, u8::try_from(place)) {
                *at = place;
            }
        }
        let names = OPERATIONS.iter().map(|operation| operation.name()).chain([OTHER]);
        Self {
            places,
            operations: Timings::new(names.map(|name| vec![("operation", name)]), RESULTS, BOUNDS).striped(),
            refused: Counts::new("reason", REFUSALS),
        }
    }
}

impl Counted {
    /// Counts an item of a message, by the number of its operation.
    pub fn operation(&self, number: u32, outcome: &Outcome<'_>, took: Duration) {
        let result = match outcome {
            Outcome::Success(_) => 0,
            Outcome::Failed(failure) => match failure.reason {
                ResultReason::PermissionDenied => 1,
                ResultReason::ItemNotFound => 2,
                _ => 3,
            },
            Outcome::Undone(_) => 3,
        };
        let place = usize::try_from(number).ok().and_then(|number| self.places.get(number)).map_or(OPERATIONS.len(), |place| usize::from(*place));
        self.operations.record(place, result, took);
    }

    /// Counts a connection that was refused.
    pub fn refused(&self, why: Refused) {
        self.refused.add(why as usize);
    }
}

/// The metrics of a running server.
pub struct Metrics {
    /// What it counts.
    pub counted: Arc<Counted>,
    /// Places for connections, and how many there are in all.
    pub slots: Arc<Semaphore>,
    /// The same.
    pub most: usize,
    /// Who is connected.
    pub clients: Arc<Clients>,
    /// The names of SVMs.
    pub identities: watch::Receiver<Arc<Identities>>,
    /// How many SVMs have series of their own.
    pub max_svms: usize,
}

/// Those with the most connections, no more than so many; of equal ones, the first by name.
fn most_first(counts: HashMap<&str, usize>, most: usize) -> Vec<(&str, usize)> {
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by_key(|(svm, count)| (Reverse(*count), *svm));
    counts.truncate(most);
    counts
}

impl Source for Metrics {
    fn write(&self, page: &mut Page<'_>) -> std::fmt::Result {
        page.operations(Name::plain("keystead_kmip_operations", "KMIP operations that have ended, by what came of them"), &self.counted.operations)?;
        page.durations(Name::seconds("keystead_kmip_operation_duration", "How long KMIP operations take, without the network"), &self.counted.operations)?;
        page.gauge(Name::plain("keystead_kmip_connections", "Connections of EKMIP clients that have shown who they are"), |samples| {
            samples.count(&[], self.most.saturating_sub(self.slots.available_permits()))
        })?;
        page.gauge(Name::plain("keystead_kmip_connections_max", "How many such connections there may be"), |samples| samples.count(&[], self.most))?;
        page.gauge(Name::plain("keystead_svm_kmip_connections", "Connections of an SVM's EKMIP clients; absent without one"), |samples| {
            let identities = Arc::clone(&self.identities.borrow());
            // Two that have no name any more are one.
            let mut counts: HashMap<&str, usize> = HashMap::new();
            for (svm, count) in self.clients.of_svms() {
                *counts.entry(identities.svm_name(svm)).or_default() += count;
            }
            counts.remove("");
            most_first(counts, self.max_svms).into_iter().try_for_each(|(svm, count)| samples.count(&[("svm", svm)], count))
        })?;
        page.counts(Name::plain("keystead_kmip_connections_refused", "Connections of EKMIP clients that were refused, by why"), &self.counted.refused)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use keystead_kmip::Failure;
    use keystead_kmip::enumeration::Operation;

    /// A page with one operation.
    fn page_of(number: u32, outcome: &Outcome<'_>) -> String {
        struct Room(Counted);
        impl Source for Room {
            fn write(&self, page: &mut Page<'_>) -> std::fmt::Result {
                page.operations(Name::plain("o", "Operations"), &self.0.operations)
            }
        }
        let counted = Counted::default();
        counted.operation(number, outcome, Duration::from_micros(9));
        let metrics = keystead_metrics::Metrics::default();
        metrics.register(Room(counted));
        metrics.text(keystead_metrics::Format::Prometheus).unwrap()
    }

    #[test]
    fn no_more_svms_have_series_than_may() {
        let counts = HashMap::from([("a", 1), ("b", 7), ("c", 7), ("d", 3)]);
        assert_eq!(most_first(counts.clone(), 3), [("b", 7), ("c", 7), ("d", 3)]);
        assert_eq!(most_first(counts, 0), []);
    }

    #[test]
    fn each_operation_is_counted_under_its_name_and_all_others_together() {
        let failed = |reason| Outcome::Failed(Failure::new(reason, ""));
        for operation in OPERATIONS {
            let page = page_of(operation.number(), &failed(ResultReason::PermissionDenied));
            assert!(page.contains(&format!("o_total{{operation=\"{}\",result=\"denied\"}} 1\n", operation.name())), "{page}");
        }
        for number in [0, Operation::Interop.number(), 127, 128, u32::MAX] {
            assert!(page_of(number, &failed(ResultReason::GeneralFailure)).contains("o_total{operation=\"other\",result=\"error\"} 1\n"), "{number}");
        }
        assert!(page_of(Operation::Get.number(), &failed(ResultReason::ItemNotFound)).contains("o_total{operation=\"Get\",result=\"not_found\"} 1\n"));
    }
}

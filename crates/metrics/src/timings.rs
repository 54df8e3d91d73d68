//! Counting: how often, with which result, and how long it took. Adding costs two relaxed atomic additions; it takes no lock and no memory.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

/// How many copies of the cells there are at the most, where many threads count at the same time.
const MOST_STRIPES: usize = 16;

/// Counts by a label with a closed set of values.
#[derive(Debug)]
pub struct Counts {
    label: &'static str,
    values: &'static [&'static str],
    cells: Box<[AtomicU64]>,
}

impl Counts {
    /// All at zero.
    pub fn new(label: &'static str, values: &'static [&'static str]) -> Self {
        Self { label, values, cells: zeros(values.len()) }
    }

    /// Adds one to the value at this place of the list; one that is not in the list is not counted.
    pub fn add(&self, value: usize) {
        if let Some(cell) = self.cells.get(value) {
            cell.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The label with each value, and how often.
    pub fn values(&self) -> impl Iterator<Item = ((&'static str, &'static str), u64)> {
        self.values.iter().zip(&self.cells).map(|(value, cell)| ((self.label, *value), cell.load(Ordering::Relaxed)))
    }
}

/// How often operations have ended with which result, and how long they took: for each operation and result a cell for each bucket of the histogram, and for each operation the sum of the time. How often is
/// the sum of the buckets.
#[derive(Debug)]
pub struct Timings {
    operations: Vec<Vec<(&'static str, &'static str)>>,
    results: &'static [&'static str],
    result_label: &'static str,
    /// The upper bounds of all buckets but the last, in seconds and in nanoseconds.
    bounds: &'static [f64],
    nanoseconds: Vec<u64>,
    /// Several copies, so that processors do not take the same cells from each other.
    stripes: Vec<Stripe>,
    /// Whether operations are left out of the page that have never been.
    only_used: bool,
}

#[derive(Debug)]
struct Stripe {
    cells: Box<[AtomicU64]>,
    sums: Box<[AtomicU64]>,
}

impl Timings {
    /// All at zero. Each operation has its labels; `bounds` are the upper bounds of the buckets, in seconds, the smallest first.
    pub fn new(operations: impl IntoIterator<Item = Vec<(&'static str, &'static str)>>, results: &'static [&'static str], bounds: &'static [f64]) -> Self {
        let timings = Self {
            operations: operations.into_iter().collect(),
            results,
            result_label: "result",
            bounds,
            nanoseconds: bounds.iter().map(|bound| u64::try_from(Duration::from_secs_f64(*bound).as_nanos()).unwrap_or(u64::MAX)).collect(),
            stripes: Vec::new(),
            only_used: false,
        };
        timings.with_stripes(1)
    }

    /// The same under another name for the label of the result.
    #[must_use]
    pub fn by(self, result_label: &'static str) -> Self {
        Self { result_label, ..self }
    }

    /// The same for what all processors count at the same time, and often.
    #[must_use]
    pub fn striped(self) -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        self.with_stripes(processors.clamp(1, MOST_STRIPES))
    }

    /// The same, of which the page shows what has been at least once.
    #[must_use]
    pub fn only_used(self) -> Self {
        Self { only_used: true, ..self }
    }

    /// Counts one. An operation or a result that there is not is not counted.
    pub fn record(&self, operation: usize, result: usize, took: Duration) {
        if operation >= self.operations.len() || result >= self.results.len() {
            return;
        }
        let nanoseconds = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let bucket = self.nanoseconds.iter().take_while(|bound| nanoseconds > **bound).count();
        let Some(stripe) = self.stripes.get(own_stripe() % self.stripes.len()) else { return };
        if let (Some(cell), Some(sum)) = (stripe.cells.get(self.cell(operation, result, bucket)), stripe.sums.get(operation)) {
            cell.fetch_add(1, Ordering::Relaxed);
            sum.fetch_add(nanoseconds, Ordering::Relaxed);
        }
    }

    /// The operations that the page shows.
    pub(crate) fn shown(&self) -> impl Iterator<Item = usize> {
        (0..self.operations.len()).filter(|operation| !self.only_used || self.results(*operation).any(|(_, count)| count > 0))
    }

    pub(crate) fn labels(&self, operation: usize) -> &[(&'static str, &'static str)] {
        self.operations.get(operation).map_or(&[], Vec::as_slice)
    }

    pub(crate) fn result_label(&self) -> &'static str {
        self.result_label
    }

    /// How often an operation has ended with each result.
    pub(crate) fn results(&self, operation: usize) -> impl Iterator<Item = (&'static str, u64)> {
        self.results.iter().enumerate().map(move |(result, name)| {
            let buckets = 0..=self.bounds.len();
            (*name, buckets.map(|bucket| self.load(operation, result, bucket)).sum())
        })
    }

    /// The sum of the time of an operation in seconds, and how often it took so long: each bucket by itself, the last without a bound.
    pub(crate) fn histogram(&self, operation: usize) -> (f64, Vec<(f64, u64)>) {
        let sum: u64 = self.stripes.iter().filter_map(|stripe| stripe.sums.get(operation)).map(|sum| sum.load(Ordering::Relaxed)).sum();
        let bounds = self.bounds.iter().copied().chain([f64::INFINITY]).enumerate();
        let buckets = bounds.map(|(bucket, bound)| (bound, (0..self.results.len()).map(|result| self.load(operation, result, bucket)).sum()));
        (Duration::from_nanos(sum).as_secs_f64(), buckets.collect())
    }

    fn with_stripes(self, stripes: usize) -> Self {
        let cells = self.operations.len() * self.results.len() * (self.bounds.len() + 1);
        let stripe = || Stripe { cells: zeros(cells), sums: zeros(self.operations.len()) };
        Self { stripes: (0..stripes).map(|_| stripe()).collect(), ..self }
    }

    fn cell(&self, operation: usize, result: usize, bucket: usize) -> usize {
        (operation * self.results.len() + result) * (self.bounds.len() + 1) + bucket
    }

    fn load(&self, operation: usize, result: usize, bucket: usize) -> u64 {
        let cell = self.cell(operation, result, bucket);
        self.stripes.iter().filter_map(|stripe| stripe.cells.get(cell)).map(|cell| cell.load(Ordering::Relaxed)).sum()
    }
}

/// The number of this thread, for the choice of a stripe.
fn own_stripe() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! { static OWN: usize = NEXT.fetch_add(1, Ordering::Relaxed); }
    OWN.try_with(|own| *own).unwrap_or_default()
}

fn zeros(count: usize) -> Box<[AtomicU64]> {
    (0..count).map(|_| AtomicU64::new(0)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    const MS: Duration = Duration::from_millis(1);

    fn timings() -> Timings {
        Timings::new([vec![("operation", "Get")], vec![("operation", "Create")]], &["ok", "error"], &[0.001, 0.01])
    }

    #[test]
    fn a_bound_belongs_to_its_bucket() {
        let timings = timings();
        for took in [Duration::ZERO, MS, MS + Duration::from_nanos(1), 10 * MS, 11 * MS, Duration::MAX] {
            timings.record(0, 0, took);
        }
        let (_, buckets) = timings.histogram(0);
        assert_eq!(buckets, [(0.001, 2), (0.01, 2), (f64::INFINITY, 2)]);
        assert_eq!(timings.histogram(1).1.iter().map(|(_, count)| count).sum::<u64>(), 0);
    }

    #[test]
    fn what_there_is_not_is_not_counted() {
        let timings = timings();
        for (operation, result) in [(2, 0), (0, 2), (usize::MAX, 0), (0, usize::MAX)] {
            timings.record(operation, result, MS);
        }
        let count = |operation| timings.results(operation).map(|(_, count)| count).sum::<u64>();
        assert_eq!((count(0), count(1)), (0, 0));
        let counts = Counts::new("outcome", &["ok"]);
        counts.add(1);
        assert_eq!(counts.values().next(), Some((("outcome", "ok"), 0)));
    }

    #[test]
    fn nothing_is_lost_where_many_threads_count() {
        let timings = timings().striped();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| (0..10_000).for_each(|n| timings.record(1, n % 2, MS)));
            }
        });
        assert_eq!(timings.results(1).collect::<Vec<_>>(), [("ok", 40_000), ("error", 40_000)]);
        assert!((timings.histogram(1).0 - 80.0).abs() < 1e-6);
    }

    #[test]
    fn what_was_never_is_left_out_where_that_is_wanted() {
        let timings = timings().only_used();
        assert_eq!(timings.shown().count(), 0);
        timings.record(1, 1, MS);
        assert_eq!(timings.shown().collect::<Vec<_>>(), [1]);
    }

    /// What one more operation costs; the budget of a Get leaves no more. Generous: this is a build without optimization, on a machine that does other things.
    #[test]
    fn counting_is_cheap() {
        let timings = timings().striped();
        let (count, start) = (100_000u32, Instant::now());
        for _ in 0..count {
            timings.record(0, 0, MS);
        }
        let each = start.elapsed() / count;
        println!("counting one operation takes {each:?}");
        assert!(each < Duration::from_micros(5), "{each:?}");
    }
}

//! The page that a scrape reads: metrics with their names, help and samples, as sources write them.

use crate::timings::{Counts, Timings};
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;
use std::fmt::Result;

/// Labels of a sample, with their values.
pub type Labels<'l> = &'l [(&'l str, &'l str)];

/// The name of a metric and what it says. The suffixes of units, counters and information (`_seconds`, `_total`, `_info`) are added where it is written.
#[derive(Debug, Clone, Copy)]
pub struct Name {
    name: &'static str,
    unit: Option<&'static Unit>,
    help: &'static str,
}

impl Name {
    /// A metric without a unit. `help` is one sentence, without its full stop.
    pub const fn plain(name: &'static str, help: &'static str) -> Self {
        Self { name, unit: None, help }
    }

    /// One in seconds; moments are seconds since 1970, in metrics that end in `_timestamp`.
    pub const fn seconds(name: &'static str, help: &'static str) -> Self {
        Self { name, unit: Some(&Unit::Seconds), help }
    }

    /// One in bytes.
    pub const fn bytes(name: &'static str, help: &'static str) -> Self {
        Self { name, unit: Some(&Unit::Bytes), help }
    }
}

/// The page.
pub struct Page<'p> {
    encoder: DescriptorEncoder<'p>,
}

/// The samples of a gauge.
pub struct GaugeSamples<'s>(MetricEncoder<'s>);

/// The samples of a counter.
pub struct CounterSamples<'s>(MetricEncoder<'s>);

impl<'p> Page<'p> {
    pub(crate) fn new(encoder: DescriptorEncoder<'p>) -> Self {
        Self { encoder }
    }

    /// Writes a gauge; `samples` puts its values.
    ///
    /// # Errors
    /// The page cannot take more.
    pub fn gauge(&mut self, name: Name, samples: impl FnOnce(&mut GaugeSamples<'_>) -> Result) -> Result {
        samples(&mut GaugeSamples(self.begin(name, MetricType::Gauge)?))
    }

    /// Writes a counter.
    ///
    /// # Errors
    /// As [`Page::gauge`].
    pub fn counter(&mut self, name: Name, samples: impl FnOnce(&mut CounterSamples<'_>) -> Result) -> Result {
        samples(&mut CounterSamples(self.begin(name, MetricType::Counter)?))
    }

    /// Writes something that is told by labels alone.
    ///
    /// # Errors
    /// As [`Page::gauge`].
    pub fn info(&mut self, name: Name, labels: Labels<'_>) -> Result {
        self.begin(name, MetricType::Info)?.encode_info(&labels)
    }

    /// Writes counts by their label.
    ///
    /// # Errors
    /// As [`Page::gauge`].
    pub fn counts(&mut self, name: Name, counts: &Counts) -> Result {
        self.counter(name, |samples| counts.values().try_for_each(|(label, count)| samples.put(&[label], count)))
    }

    /// Writes how often each operation has ended with each result.
    ///
    /// # Errors
    /// As [`Page::gauge`].
    pub fn operations(&mut self, name: Name, timings: &Timings) -> Result {
        self.counter(name, |samples| {
            for operation in timings.shown() {
                for (result, count) in timings.results(operation) {
                    let mut labels = timings.labels(operation).to_vec();
                    labels.push((timings.result_label(), result));
                    samples.put(&labels, count)?;
                }
            }
            Ok(())
        })
    }

    /// Writes how long each operation takes, as a histogram.
    ///
    /// # Errors
    /// As [`Page::gauge`].
    pub fn durations(&mut self, name: Name, timings: &Timings) -> Result {
        let mut encoder = self.begin(name, MetricType::Histogram)?;
        for operation in timings.shown() {
            let (sum, buckets) = timings.histogram(operation);
            let count = buckets.iter().map(|(_, count)| count).sum();
            let labels = timings.labels(operation);
            encoder.encode_family(&labels)?.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)?;
        }
        Ok(())
    }

    fn begin(&mut self, name: Name, kind: MetricType) -> std::result::Result<MetricEncoder<'_>, std::fmt::Error> {
        self.encoder.encode_descriptor(name.name, &format!("{}.", name.help), name.unit, kind)
    }
}

impl GaugeSamples<'_> {
    /// Puts a value.
    ///
    /// # Errors
    /// As [`Page::gauge`].
    pub fn put(&mut self, labels: Labels<'_>, value: f64) -> Result {
        self.0.encode_family(&labels)?.encode_gauge(&value)
    }

    /// Puts a number of things.
    ///
    /// # Errors
    /// As [`Page::gauge`].
    pub fn count(&mut self, labels: Labels<'_>, value: usize) -> Result {
        self.0.encode_family(&labels)?.encode_gauge(&value)
    }

    /// Puts whether something is so: 1 or 0.
    ///
    /// # Errors
    /// As [`Page::gauge`].
    pub fn flag(&mut self, labels: Labels<'_>, value: bool) -> Result {
        self.count(labels, usize::from(value))
    }
}

impl CounterSamples<'_> {
    /// Puts a value.
    ///
    /// # Errors
    /// As [`Page::gauge`].
    pub fn put(&mut self, labels: Labels<'_>, value: u64) -> Result {
        self.0.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&value, None)
    }

    /// Puts a value that is no whole number.
    ///
    /// # Errors
    /// As [`Page::gauge`].
    pub fn put_float(&mut self, labels: Labels<'_>, value: f64) -> Result {
        self.0.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&value, None)
    }
}

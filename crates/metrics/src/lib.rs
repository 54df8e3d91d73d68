//! What a node counts, and the page that Prometheus reads it from.
//!
//! Each room counts for itself, in [`Timings`] and [`Counts`] or in what it keeps anyway, and is a [`Source`]: asked at each scrape, it writes its metrics on the [`Page`]. [`Metrics`] holds the sources of a node
//! and makes the text of all of them. Names, units and types follow the rules of Prometheus; the format itself is the library's of the Prometheus project.
//!
//! Two rules keep this cheap. What is counted on the path of a request is an atomic addition without a lock, in cells that were made at the start. And labels come from closed sets, but for the names of
//! SVMs and nodes; of SVMs, no more than [`Metrics::max_svms`] have series of their own.
//!
//! [`trace`] has what spans need of OpenTelemetry, so that the rooms need nothing of it.

mod page;
mod process;
mod timings;
pub mod trace;

pub use page::{CounterSamples, GaugeSamples, Labels, Name, Page};
pub use process::Process;
pub use timings::{Counts, Timings};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, prometheus_text, text};
use prometheus_client::registry::Registry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How many SVMs have series of their own when nothing is said.
pub const MAX_SVMS: usize = 10_000;

/// Something that has metrics.
pub trait Source: Send + Sync + 'static {
    /// Writes them as they are now. What has nothing to say of a metric names it all the same, so that the page always has the same metrics.
    ///
    /// # Errors
    /// The page cannot take more; pass it on.
    fn write(&self, page: &mut Page<'_>) -> std::fmt::Result;
}

impl<S: Source> Source for Arc<S> {
    fn write(&self, page: &mut Page<'_>) -> std::fmt::Result {
        S::write(self, page)
    }
}

/// The metrics of a node. Cheap to clone.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Mutex<Registry>>,
    max_svms: usize,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new(MAX_SVMS)
    }
}

impl Metrics {
    /// None yet, and room for the series of so many SVMs.
    pub fn new(max_svms: usize) -> Self {
        Self { registry: Arc::default(), max_svms }
    }

    /// How many SVMs have series of their own at the most; a source that has more leaves out those that are well.
    pub fn max_svms(&self) -> usize {
        self.max_svms
    }

    /// Has a source asked at each scrape from now on.
    pub fn register(&self, source: impl Source) {
        self.lock().register_collector(Box::new(Registered(source)));
    }

    /// The page as it is now. Who asks while another page is written waits for it, so that there is one at a time; it may take tens of milliseconds, and is not for a thread of a runtime.
    ///
    /// # Errors
    /// A source has refused: half a page would look like the loss of what it lacks.
    pub fn text(&self, format: Format) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        let registry = self.lock();
        match format {
            Format::Prometheus => prometheus_text::encode(&mut text, &registry)?,
            Format::OpenMetrics => text::encode(&mut text, &registry)?,
        }
        Ok(text)
    }

    // A panic of a source leaves the list of them as it was, so a poisoned lock is as good as any.
    fn lock(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How a page is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// The text format of Prometheus, version 0.0.4.
    Prometheus,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl Format {
    /// The one that a client asks for by `Accept`: OpenMetrics where that is named, as Prometheus does, else the older one, which everything reads.
    pub fn of_accept(accept: Option<&str>) -> Self {
        let named = accept.is_some_and(|accept| accept.to_ascii_lowercase().contains("application/openmetrics-text"));
        if named { Self::OpenMetrics } else { Self::Prometheus }
    }

    /// Its content type.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => prometheus_text::CONTENT_TYPE,
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// A source as the library wants it.
struct Registered<S>(S);

impl<S> std::fmt::Debug for Registered<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Source")
    }
}

impl<S: Source> Collector for Registered<S> {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        self.0.write(&mut Page::new(encoder))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    struct Room(Timings, Counts);

    impl Source for Room {
        fn write(&self, page: &mut Page<'_>) -> std::fmt::Result {
            page.gauge(Name::seconds("age", "How old it is"), |samples| samples.put(&[("svm", "a\"b\\c\nd")], 1.5))?;
            page.gauge(Name::plain("none", "Of nothing"), |_| Ok(()))?;
            page.info(Name::plain("build", "The program"), &[("version", "1")])?;
            page.counts(Name::plain("polls", "Polls"), &self.1)?;
            page.operations(Name::plain("calls", "Calls"), &self.0)?;
            page.durations(Name::seconds("call_duration", "How long they take"), &self.0)
        }
    }

    fn metrics() -> Metrics {
        let metrics = Metrics::default();
        let room = Arc::new(Room(Timings::new([vec![("operation", "Get")]], &["ok", "error"], &[0.001, 0.5]), Counts::new("outcome", &["ok", "denied"])));
        metrics.register(Arc::clone(&room));
        room.0.record(0, 0, Duration::from_millis(1));
        room.0.record(0, 1, Duration::from_secs(2));
        room.1.add(1);
        metrics
    }

    #[test]
    fn a_page_in_the_format_of_prometheus() {
        let expected = r#"# HELP age_seconds How old it is.
# TYPE age_seconds gauge
age_seconds{svm="a\"b\\c\nd"} 1.5
# HELP none Of nothing.
# TYPE none gauge
# HELP build_info The program.
# TYPE build_info gauge
build_info{version="1"} 1
# HELP polls_total Polls.
# TYPE polls_total counter
polls_total{outcome="ok"} 0
polls_total{outcome="denied"} 1
# HELP calls_total Calls.
# TYPE calls_total counter
calls_total{operation="Get",result="ok"} 1
calls_total{operation="Get",result="error"} 1
# HELP call_duration_seconds How long they take.
# TYPE call_duration_seconds histogram
call_duration_seconds_bucket{operation="Get",le="0.001"} 1
call_duration_seconds_bucket{operation="Get",le="0.5"} 1
call_duration_seconds_bucket{operation="Get",le="+Inf"} 2
call_duration_seconds_sum{operation="Get"} 2.001
call_duration_seconds_count{operation="Get"} 2
"#;
        assert_eq!(metrics().text(Format::Prometheus).unwrap(), expected);
    }

    #[test]
    fn a_page_in_the_format_of_openmetrics_ends_with_its_mark() {
        let text = metrics().text(Format::OpenMetrics).unwrap();
        assert!(text.ends_with("# EOF\n") && text.contains("# UNIT age_seconds seconds\n") && text.contains("# TYPE calls counter\n"), "{text}");
    }

    #[test]
    fn openmetrics_is_for_those_who_name_it() {
        let prometheus =
            "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        assert_eq!(Format::of_accept(Some(prometheus)), Format::OpenMetrics);
        for accept in [None, Some("*/*"), Some("text/plain"), Some("application/json")] {
            assert_eq!(Format::of_accept(accept), Format::Prometheus, "{accept:?}");
        }
    }
}

//! The log: lines to standard error, or entries of systemd's journal; and the spans that go to a collector, where there is one.

use crate::config::Log;
use crate::otlp::Traces;
use keystead_metrics::trace;
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use tracing::Level;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer, Registry};

/// Starts the log. Libraries that would print requests as they go over the wire never get below `info`, whatever the level is. Spans for a collector are not in it, and what is logged does not go there.
///
/// # Errors
/// The level or the format is none that we know.
pub fn start(log: &Log, traces: Option<&Traces>) -> Result<(), String> {
    let level = log.level.as_deref().unwrap_or("info");
    if !["error", "warn", "info", "debug"].contains(&level) {
        return Err(format!("[log] level is {level:?}, but must be error, warn, info or debug"));
    }
    let quiet = if matches!(level, "error" | "warn") { level } else { "info" };
    let mut directives = format!("{level},{}=off", trace::TARGET);
    for target in keystead_awskms::QUIET_TARGETS {
        directives.push_str(&format!(",{target}={quiet}"));
    }
    for target in keystead_awskms::MUTE_TARGETS {
        directives.push_str(&format!(",{target}=off"));
    }
    let filter = EnvFilter::try_new(directives).map_err(|error| error.to_string())?;
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(false);
    let lines: Box<dyn Layer<Registry> + Send + Sync> = match log.format.as_deref().unwrap_or(if leads_to_journal() { "journal" } else { "text" }) {
        "text" => lines.with_filter(filter).boxed(),
        "json" => lines.json().with_filter(filter).boxed(),
        "journal" => {
            let journal = tracing_journald::layer().map_err(|error| format!("[log] format is \"journal\", and the journal cannot be reached: {error}"))?;
            journal.with_filter(filter).boxed()
        }
        other => return Err(format!("[log] format is {other:?}, but must be text, json or journal")),
    };
    // Attributes are those that a span names, and none of the program's own places.
    let spans = traces.map(|traces| {
        let layer = tracing_opentelemetry::layer().with_tracer(traces.tracer());
        let layer = layer.with_location(false).with_threads(false).with_target(false).with_tracked_inactivity(false);
        layer.with_filter(Targets::new().with_target(trace::TARGET, Level::INFO)).boxed()
    });
    let layers: Vec<_> = [Some(lines), spans].into_iter().flatten().collect();
    tracing_subscriber::registry().with(layers).try_init().map_err(|error| error.to_string())
}

/// Whether standard error leads to systemd's journal: `JOURNAL_STREAM` has its device and inode then (systemd.exec(5)).
fn leads_to_journal() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else { return false };
    let file = std::io::stderr().as_fd().try_clone_to_owned().map(std::fs::File::from).and_then(|file| file.metadata());
    file.is_ok_and(|file| stream == format!("{}:{}", file.dev(), file.ino()))
}

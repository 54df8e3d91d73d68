//! The log: lines to standard error, or entries of systemd's journal.

use crate::config::Log;
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// Starts the log. Libraries that would print requests as they go over the wire never get below `info`, whatever the level is.
///
/// # Errors
/// The level or the format is none that we know.
pub fn start(log: &Log) -> Result<(), String> {
    let level = log.level.as_deref().unwrap_or("info");
    if !["error", "warn", "info", "debug"].contains(&level) {
        return Err(format!("[log] level is {level:?}, but must be error, warn, info or debug"));
    }
    let quiet = if matches!(level, "error" | "warn") { level } else { "info" };
    let mut directives = level.to_owned();
    for target in keystead_awskms::QUIET_TARGETS {
        directives.push_str(&format!(",{target}={quiet}"));
    }
    for target in keystead_awskms::MUTE_TARGETS {
        directives.push_str(&format!(",{target}=off"));
    }
    let filter = EnvFilter::try_new(directives).map_err(|error| error.to_string())?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter.clone()).with_writer(std::io::stderr).with_ansi(false);
    match log.format.as_deref().unwrap_or(if leads_to_journal() { "journal" } else { "text" }) {
        "text" => builder.try_init().map_err(|error| error.to_string()),
        "json" => builder.json().try_init().map_err(|error| error.to_string()),
        "journal" => {
            let journal = tracing_journald::layer().map_err(|error| format!("[log] format is \"journal\", and the journal cannot be reached: {error}"))?;
            tracing_subscriber::registry().with(filter).with(journal).try_init().map_err(|error| error.to_string())
        }
        other => Err(format!("[log] format is {other:?}, but must be text, json or journal")),
    }
}

/// Whether standard error leads to systemd's journal: `JOURNAL_STREAM` has its device and inode then (systemd.exec(5)).
fn leads_to_journal() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else { return false };
    let file = std::io::stderr().as_fd().try_clone_to_owned().map(std::fs::File::from).and_then(|file| file.metadata());
    file.is_ok_and(|file| stream == format!("{}:{}", file.dev(), file.ino()))
}

//! The log: lines to standard error.

use crate::config::Log;
use tracing_subscriber::EnvFilter;

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
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false);
    let started = match log.format.as_deref().unwrap_or("text") {
        "text" => builder.try_init(),
        "json" => builder.json().try_init(),
        other => return Err(format!("[log] format is {other:?}, but must be text or json")),
    };
    started.map_err(|error| error.to_string())
}

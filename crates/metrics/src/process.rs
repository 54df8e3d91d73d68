//! The process: the metrics that Prometheus' own client libraries have of it, under their names. Read from /proc (proc(5)).

use crate::Source;
use crate::page::{Name, Page};
use std::time::Duration;

/// Ticks a second in what the kernel tells of processor time: the same on all machines that Linux runs on (`USER_HZ`).
const TICKS: f64 = 100.0;
/// The size of a page, in which the kernel tells memory. On the processors that Keystead is built for it is this, or the figure is too small.
const PAGE_BYTES: f64 = 4096.0;

/// The process of this node.
#[derive(Debug)]
pub struct Process {
    started: Duration,
}

impl Process {
    /// The process, with the time from 1970 to its start.
    pub fn new(started: Duration) -> Self {
        Self { started }
    }
}

impl Source for Process {
    fn write(&self, page: &mut Page<'_>) -> std::fmt::Result {
        page.gauge(Name::seconds("process_start_time", "When the process has started, in seconds since 1970"), |samples| {
            samples.put(&[], self.started.as_secs_f64())
        })?;
        page.counter(Name::seconds("process_cpu", "Processor time, user and system"), |samples| match processor_time() {
            Some(seconds) => samples.put_float(&[], seconds),
            None => Ok(()),
        })?;
        page.gauge(Name::bytes("process_resident_memory", "Memory that is resident"), |samples| match resident_pages() {
            Some(pages) => samples.put(&[], pages * PAGE_BYTES),
            None => Ok(()),
        })?;
        page.gauge(Name::plain("process_open_fds", "File descriptors that are open"), |samples| match std::fs::read_dir("/proc/self/fd") {
            // The one that reads the list is among them.
            Ok(list) => samples.count(&[], list.count().saturating_sub(1)),
            Err(_) => Ok(()),
        })?;
        page.gauge(Name::plain("process_max_fds", "File descriptors that may be open"), |samples| match most_files() {
            Some(most) => samples.put(&[], most),
            None => Ok(()),
        })
    }
}

/// `utime` and `stime` of /proc/self/stat, in seconds.
fn processor_time() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The second field is the program's name in parentheses, and may hold anything.
    let (_, behind) = text.rsplit_once(')')?;
    let mut fields = behind.split_ascii_whitespace().skip(11);
    let (user, system): (f64, f64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some((user + system) / TICKS)
}

/// The second field of /proc/self/statm.
fn resident_pages() -> Option<f64> {
    std::fs::read_to_string("/proc/self/statm").ok()?.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// The soft limit of /proc/self/limits.
fn most_files() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/self/limits").ok()?;
    text.lines().find_map(|line| line.strip_prefix("Max open files"))?.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_tells_all_of_it() {
        let spent = processor_time().unwrap();
        assert!((0.0..1e6).contains(&spent), "{spent}");
        assert!(resident_pages().unwrap() > 100.0);
        assert!(most_files().unwrap() >= 16.0);
    }
}

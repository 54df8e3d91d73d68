//! How far a job is: a bar at a terminal, a line for each step elsewhere. It goes to standard error, so that standard output has the outcome alone.

use crate::table::{cell, plain};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;
use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

const BAR: &str = "{spinner} [{bar:28}] {pos}/{len} {elapsed} {wide_msg}";
const SPINNER: &str = "{spinner} {elapsed} {wide_msg}";
const TICK: Duration = Duration::from_millis(120);

/// Tells how far a job is.
pub struct Progress {
    bar: Option<ProgressBar>,
    told: String,
}

impl Progress {
    /// Nothing is told yet.
    pub fn begin() -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new_spinner();
            bar.enable_steady_tick(TICK);
            bar
        });
        Self { bar, told: String::new() }
    }

    /// Tells what a job (the API's) does now.
    pub fn tell(&mut self, job: &Value) {
        let (state, message) = (cell(job, "state"), cell(job, "message"));
        self.say(&if state == "running" { message.clone() } else { format!("{state}: {message}") }, counted(&message));
    }

    /// Tells something else.
    pub fn say(&mut self, text: &str, counted: Option<(u64, u64)>) {
        let text = plain(text);
        if let Some(bar) = &self.bar {
            let template = if counted.is_some() { BAR } else { SPINNER };
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style.progress_chars("=> "));
            }
            if let Some((done, all)) = counted {
                bar.set_length(all);
                bar.set_position(done);
            }
            bar.set_message(text);
        } else if text != self.told {
            let _ = writeln!(std::io::stderr().lock(), "keystead: {text}");
            self.told = text;
        }
    }

    /// Takes the bar away.
    pub fn end(self) {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
    }
}

/// How much of how much is done, where the message of a job counts: "120 of 400 keys …", or a step that is being done, "… (2 of 3)".
fn counted(message: &str) -> Option<(u64, u64)> {
    let words: Vec<&str> = message.split_whitespace().collect();
    words.windows(3).find_map(|three| {
        let [first, "of", all] = three else { return None };
        let (step, number) = first.strip_prefix('(').map_or((false, *first), |number| (true, number));
        let (done, all): (u64, u64) = (number.parse().ok()?, all.trim_end_matches([')', ',', ';']).parse().ok()?);
        (all > 0 && done <= all).then(|| (done.saturating_sub(u64::from(step)), all))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_job_counts_is_how_far_it_is() {
        assert_eq!(counted("1200 of 4000 keys are wrapped by version 2"), Some((1200, 4000)));
        assert_eq!(counted("wrapping the KEK with the customer key (2 of 3)"), Some((1, 3)));
        assert_eq!(counted("3 of 7 records are done"), Some((3, 7)));
        for none in ["", "storing the configuration", "a node of the cluster", "5 of 0 keys", "7 of 3 keys", "one of 3"] {
            assert_eq!(counted(none), None, "{none}");
        }
    }
}

//! How far a job is: a bar at a terminal, a line for each step elsewhere. It goes to standard error, so that standard output has the outcome alone.

use crate::table::{cell, plain};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;
use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

const BAR: &str = "{spinner} [{bar:28}] {pos}/{len} {elapsed} {wide_msg}";
const SPINNER: &str = "{spinner} {elapsed} {wide_msg}";
const TICK: Duration = Duration::from_millis(120);
/// Without a terminal, how often a line says how far one step is: a rekey of a night must not fill a log.
const SAME_STEP: Duration = Duration::from_secs(10);

/// Tells how far a job is.
pub struct Progress {
    bar: Option<ProgressBar>,
    told: Option<Told>,
}

/// The last line that was written.
struct Told {
    text: String,
    at: Instant,
}

impl Progress {
    /// Nothing is told yet.
    pub fn begin() -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new_spinner();
            bar.enable_steady_tick(TICK);
            bar
        });
        Self { bar, told: None }
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
        } else if is_due(self.told.as_ref(), &text, Instant::now()) {
            let _ = writeln!(std::io::stderr().lock(), "keystead: {text}");
            self.told = Some(Told { text, at: Instant::now() });
        }
    }

    /// Takes the bar away.
    pub fn end(self) {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Whether a line is to be written: always for another step, which is another text but for its numbers; for the same one, after a while.
fn is_due(told: Option<&Told>, text: &str, now: Instant) -> bool {
    let Some(told) = told else { return true };
    let is_same_step = told.text.chars().filter(|c| !c.is_ascii_digit()).eq(text.chars().filter(|c| !c.is_ascii_digit()));
    told.text != text && (!is_same_step || now.duration_since(told.at) >= SAME_STEP)
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
    fn a_log_has_a_line_for_each_step_and_few_for_how_far_it_is() {
        let at = Instant::now();
        let told = Told { text: "120 of 400 keys are wrapped".to_owned(), at };
        let due = |text: &str, seconds| is_due(Some(&told), text, at + Duration::from_secs(seconds));
        assert!(is_due(None, "120 of 400 keys are wrapped", at));
        assert!(due("retiring version 1 of the KEK", 0) && due("paused: 120 of 400 keys are wrapped", 0));
        assert!(!due("121 of 400 keys are wrapped", 9) && due("399 of 400 keys are wrapped", 10));
        assert!(!due("120 of 400 keys are wrapped", 1_000), "nothing is said twice in a row");
    }

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

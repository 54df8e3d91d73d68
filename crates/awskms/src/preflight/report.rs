//! What a preflight has found, step by step.

use crate::error::shortened;
use std::fmt;
use std::time::Duration;

/// The names of all steps, in the order in which they are taken.
pub const STEPS: [&str; 10] = ["dns", "egress", "route", "proxy", "tls", "clock_skew", "credentials", "describe_key", "encrypt", "decrypt"];

/// How a step has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// All is well there.
    Passed,
    /// Something is wrong there.
    Failed,
    /// It could not be tried, or there is nothing to try; why.
    Skipped(String),
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// One of [`STEPS`].
    pub name: &'static str,
    /// How it has ended.
    pub outcome: Outcome,
    /// How long it took.
    pub took: Duration,
    /// What was seen: addresses, a certificate, an answer. Never a secret.
    pub detail: String,
    /// What to do about it; empty where it has not failed.
    pub advice: String,
}

/// What a preflight has found: one entry for each of [`STEPS`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// The steps, in their order.
    pub steps: Vec<Step>,
}

impl Report {
    /// Whether no step has failed. What stands behind a failed step is skipped, so this says that all of them are well.
    pub fn passed(&self) -> bool {
        self.failed().is_none()
    }

    /// The first step that has failed: the hop to look at.
    pub fn failed(&self) -> Option<&Step> {
        self.steps.iter().find(|step| step.outcome == Outcome::Failed)
    }

    /// All of it in one line: `dns passed (2 ms), egress passed, route failed after 10 s: what was seen: what to do`. Steps that were skipped are left out.
    pub fn summary(&self) -> String {
        let shown: Vec<String> = self.steps.iter().filter(|step| !matches!(step.outcome, Outcome::Skipped(_))).map(ToString::to_string).collect();
        shown.join(", ")
    }

    pub(super) fn pass(&mut self, name: &'static str, took: Duration, detail: &str) {
        self.push(name, Outcome::Passed, took, detail, "");
    }

    pub(super) fn fail(&mut self, name: &'static str, took: Duration, detail: &str, advice: &str) {
        self.push(name, Outcome::Failed, took, detail, advice);
    }

    pub(super) fn skip(&mut self, name: &'static str, took: Duration, why: &str) {
        self.push(name, Outcome::Skipped(shortened(why)), took, "", "");
    }

    /// Skips every step that has no entry yet.
    pub(super) fn skip_rest(&mut self, why: &str) {
        for name in STEPS {
            if self.steps.iter().all(|step| step.name != name) {
                self.skip(name, Duration::ZERO, why);
            }
        }
    }

    fn push(&mut self, name: &'static str, outcome: Outcome, took: Duration, detail: &str, advice: &str) {
        self.steps.push(Step { name, outcome, took, detail: shortened(detail), advice: advice.to_owned() });
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.summary())
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let instant = self.took < Duration::from_millis(1);
        match &self.outcome {
            Outcome::Passed if instant => write!(f, "{} passed", self.name),
            Outcome::Passed => write!(f, "{} passed ({})", self.name, time(self.took)),
            Outcome::Skipped(why) => write!(f, "{} skipped: {why}", self.name),
            Outcome::Failed => {
                write!(f, "{} failed", self.name)?;
                if !instant {
                    write!(f, " after {}", time(self.took))?;
                }
                for text in [&self.detail, &self.advice].into_iter().filter(|text| !text.is_empty()) {
                    write!(f, ": {text}")?;
                }
                Ok(())
            }
        }
    }
}

/// A time as people read it: milliseconds below two seconds, else seconds.
fn time(took: Duration) -> String {
    if took < Duration::from_secs(2) { format!("{} ms", took.as_millis()) } else { format!("{} s", took.as_secs()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_names_what_was_tried_and_what_to_do() {
        let mut report = Report::default();
        report.pass("dns", Duration::from_millis(2), "kms.test is 192.0.2.1");
        report.pass("egress", Duration::ZERO, "");
        assert!(report.passed());
        report.fail("route", Duration::from_secs(10), "192.0.2.1:443: no answer", "open the firewall");
        report.skip_rest("route has failed");
        assert_eq!(report.summary(), "dns passed (2 ms), egress passed, route failed after 10 s: 192.0.2.1:443: no answer: open the firewall");
        assert!(!report.passed());
        assert_eq!(report.failed().map(|step| step.name), Some("route"));
        assert_eq!(report.steps.iter().map(|step| step.name).collect::<Vec<_>>(), STEPS);
    }

    #[test]
    fn a_peers_text_is_cut_and_has_no_control_characters() {
        let mut report = Report::default();
        report.fail("tls", Duration::ZERO, &format!("\u{1b}[2J{}", "x".repeat(10_000)), "a");
        assert!(report.summary().len() < 400 && !report.summary().contains('\u{1b}'));
    }
}

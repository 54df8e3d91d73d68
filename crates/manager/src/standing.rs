//! Where an SVM stands between being served and being refused, for those who ask.

use crate::revocation::{State, Why};
use std::time::Duration;

/// Where an SVM stands on this node, for others to read.
#[derive(Debug, Clone)]
pub(crate) struct Standing {
    /// What its machine says.
    pub state: State,
    /// How long until keys are refused, and why.
    pub deadline: Option<(Duration, Why)>,
    /// Why it is not available.
    pub reason: String,
}

impl Standing {
    /// Whether keys are served.
    pub fn serves(&self) -> bool {
        self.state.serves()
    }

    /// Whether the KEK was taken away.
    pub fn is_blocked(&self) -> bool {
        self.state == State::Blocked
    }

    /// Whether all is well.
    pub fn is_available(&self) -> bool {
        self.state == State::Available
    }

    /// The state, in a word.
    pub fn word(&self) -> &'static str {
        self.state.name()
    }

    /// State, reason and the time that is left, in words.
    pub fn describe(&self) -> String {
        let state = self.word();
        let left = match self.deadline {
            None => String::new(),
            Some((left, Why::Denied)) => format!("; keys are refused in {} s, when the grace is over", left.as_secs()),
            Some((left, Why::Unverified)) => format!("; keys are refused in {} s, when max_unverified is over", left.as_secs()),
        };
        if self.reason.is_empty() { format!("{state}{left}") } else { format!("{state} ({}){left}", self.reason) }
    }
}

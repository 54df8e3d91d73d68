//! What goes wrong, as the operator is told: message, code, target, what to do next, and the exit code.

use crate::table::plain;
use serde_json::Value;
use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

/// The exit codes. They are part of the interface: scripts go by them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// The node has refused it, or the job has failed, or a check has not passed.
    Failed = 1,
    /// The command line, the profile or a file that they name is wrong. Nothing was asked of a node.
    CommandLine = 2,
    /// No login, a wrong one, or one that has ended.
    Login = 3,
    /// The node cannot be reached, or is not the one that was meant, or cannot do it at the moment: try again, or ask another node.
    Unreachable = 4,
    /// What was named does not exist, or not for this account.
    NotFound = 5,
    /// Ctrl-C.
    Interrupted = 130,
}

/// The same for `--help` and the man pages.
pub const EXIT_CODES: &str = "Exit codes: 0 done; 1 the node has refused it, the job has failed, or a check has not passed; 2 the command line, the profile or a file is wrong; 3 no login, a wrong one, or one that has ended; \
4 the node cannot be reached, is not trusted, or cannot do it at the moment; 5 what was named does not exist; 130 Ctrl-C.";

/// A command that has not done what it was to do.
#[derive(Debug)]
pub struct Failure {
    /// The exit code.
    pub exit: Exit,
    /// What happened, and where.
    pub message: String,
    /// The API's code, where it was the API that refused.
    pub code: Option<String>,
    /// The field or parameter that is meant.
    pub target: Option<String>,
    /// What to do next.
    pub next: Option<String>,
    /// When the node says that it may be tried again.
    pub retry_after: Option<Duration>,
    /// The node may have done it, as it was asked, and no answer has come.
    pub may_be_done: bool,
}

/// What a node refuses for the moment: a limit, too many requests, no quorum.
const FOR_THE_MOMENT: [&str; 4] = [LIMIT_REACHED, "262160", "393271", "65536600"];
/// A limit of the cluster: waiting helps where the node says how long.
const LIMIT_REACHED: &str = "7";

impl Failure {
    fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), code: None, target: None, next: None, retry_after: None, may_be_done: false }
    }

    /// It has failed.
    pub fn failed(message: impl Into<String>) -> Self {
        Self::new(Exit::Failed, message)
    }

    /// The command line, the profile or a file that they name is wrong.
    pub fn command_line(message: impl Into<String>) -> Self {
        Self::new(Exit::CommandLine, message)
    }

    /// No login, a wrong one, or one that has ended.
    pub fn login(message: impl Into<String>) -> Self {
        Self::new(Exit::Login, message)
    }

    /// The node cannot be reached, or is not trusted.
    pub fn unreachable(message: impl Into<String>) -> Self {
        Self::new(Exit::Unreachable, message)
    }

    /// What was named does not exist.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(Exit::NotFound, message)
    }

    /// Ctrl-C.
    pub fn interrupted(message: impl Into<String>) -> Self {
        Self::new(Exit::Interrupted, message)
    }

    /// What the API says of an error: the object under `error` of an answer, or of a job.
    pub fn of_api(error: &Value) -> Self {
        let text = |name: &str| error.get(name).and_then(Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned);
        let code = text("code");
        let exit = match code.as_deref() {
            Some("4" | "65537926" | "2621462" | "1260882") => Exit::NotFound,
            Some("6691623") => Exit::Login,
            Some(code) if FOR_THE_MOMENT.contains(&code) => Exit::Unreachable,
            _ => Exit::Failed,
        };
        let next = code.as_deref().map(advice);
        let message = text("message").unwrap_or_else(|| "the node has refused it, and says nothing of why".to_owned());
        Self { target: text("target"), code, next, ..Self::new(exit, message) }
    }

    /// Says when to try again, where the node has said it.
    #[must_use]
    pub fn to_be_tried_again(mut self, wait: Option<Duration>) -> Self {
        let Some(wait) = wait else { return self };
        let again = format!("try again in {} s", wait.as_secs());
        self.next = match self.next.take() {
            Some(next) if next != WAIT => Some(format!("{next}; {again}")),
            _ => Some(again),
        };
        Self { retry_after: Some(wait), ..self }
    }

    /// Whether the same call may be answered otherwise in a moment.
    pub fn is_for_the_moment(&self) -> bool {
        self.exit == Exit::Unreachable && (self.code.as_deref() != Some(LIMIT_REACHED) || self.retry_after.is_some())
    }

    /// Says what to do next.
    #[must_use]
    pub fn next(mut self, next: impl Into<String>) -> Self {
        self.next = Some(next.into());
        self
    }

    /// Says what to do next where the API's code has one of these meanings.
    #[must_use]
    pub fn next_for(self, codes: &[&str], next: impl Into<String>) -> Self {
        if self.code.as_deref().is_some_and(|code| codes.contains(&code)) { self.next(next) } else { self }
    }

    /// Tells it on standard error; the answer is the exit code.
    pub fn tell(&self) -> ExitCode {
        let _ = std::io::stderr().write_all(self.text().as_bytes());
        ExitCode::from(self.exit as u8)
    }

    /// As it is told.
    fn text(&self) -> String {
        if self.message.is_empty() {
            return String::new();
        }
        let mut text = format!("keystead: {}\n", plain(&self.message));
        for (name, value) in [("code", &self.code), ("target", &self.target), ("next", &self.next)] {
            if let Some(value) = value {
                text.push_str(&format!("  {name}: {}\n", plain(value)));
            }
        }
        text
    }
}

const WAIT: &str = "wait a moment, then try again";

/// What to do about a code, where the message does not say it by itself.
fn advice(code: &str) -> String {
    match code {
        "1" => "choose another name, or look at what is there with show".to_owned(),
        "4" => "look at what is there with show; an account of one SVM sees that one alone".to_owned(),
        "1260882" | "2621462" => "those that there are: keystead vserver show; an account of one SVM sees that one alone".to_owned(),
        "6" => "log in with an account whose role allows it: --user; admin may do everything".to_owned(),
        "7" | "262160" => WAIT.to_owned(),
        "8" => "something else is at work on it: keystead job show; try again when that has ended".to_owned(),
        "393271" | "65536600" => "see which nodes are there: keystead cluster node show".to_owned(),
        "65537106" => "destroy the keys, or move them to the onboard key manager; then disable it".to_owned(),
        "65537907" => "switch AWS KMS on: PATCH /api/security/ekmip/settings with aws_kms.enabled".to_owned(),
        "65537910" => "see what it is: keystead security key-manager external aws show".to_owned(),
        "65537912" => "move them in the same job: --migrate-keys".to_owned(),
        _ => format!("docs/errors.md says when {code} is answered, and what to do"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_error_of_the_api_is_told_with_code_target_and_what_to_do() {
        let failure = Failure::of_api(&json!({ "message": "keys were found", "code": "65537912", "target": "svm" }));
        assert_eq!(failure.exit, Exit::Failed);
        assert_eq!(failure.text(), "keystead: keys were found\n  code: 65537912\n  target: svm\n  next: move them in the same job: --migrate-keys\n");
        assert_eq!(Failure::of_api(&json!({ "message": "x", "code": "4" })).exit, Exit::NotFound);
        assert_eq!(Failure::of_api(&json!({ "message": "x", "code": "6691623" })).exit, Exit::Login);
        assert!(Failure::of_api(&json!({})).text().contains("refused"));
    }

    #[test]
    fn scripts_can_tell_what_is_not_there_from_what_passes() {
        let exit = |code: &str| Failure::of_api(&json!({ "message": "x", "code": code })).exit;
        for code in ["4", "65537926", "2621462", "1260882"] {
            assert_eq!(exit(code), Exit::NotFound, "{code}");
        }
        for code in ["7", "262160", "393271", "65536600"] {
            assert_eq!(exit(code), Exit::Unreachable, "{code}");
        }
        assert_eq!(exit("8"), Exit::Failed);
    }

    #[test]
    fn what_passes_says_when_to_try_again() {
        let of = |code: &str, wait| Failure::of_api(&json!({ "message": "x", "code": code })).to_be_tried_again(wait);
        let wait = Some(Duration::from_secs(3));
        assert_eq!(of("7", wait).next.as_deref(), Some("try again in 3 s"));
        assert_eq!(of("7", None).next.as_deref(), Some("wait a moment, then try again"));
        assert!(of("65536600", wait).next.unwrap().ends_with("node show; try again in 3 s"));
        assert!(of("7", wait).is_for_the_moment() && !of("7", None).is_for_the_moment(), "a limit of the cluster does not pass by itself");
        assert!(of("65536600", None).is_for_the_moment() && !of("8", wait).is_for_the_moment());
    }

    #[test]
    fn what_a_node_says_does_not_steer_the_terminal() {
        let text = Failure::failed("a\u{1b}[2Jb").text();
        assert!(!text.contains('\u{1b}') && text.contains("[2Jb"), "{text}");
    }
}

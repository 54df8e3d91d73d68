//! What can go wrong, and when: a list of rules that the server asks for every call.

use serde::{Deserialize, Serialize};

/// One way to go wrong. In JSON: `{"kind": "throttle"}`, with the members as named here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Fault {
    /// `ThrottlingException`, HTTP 400.
    Throttle,
    /// `InternalFailure`, HTTP 500, from the front of the service.
    InternalFailure,
    /// `KMSInternalException`, HTTP 503.
    KmsInternal,
    /// `KeyUnavailableException`, HTTP 500.
    KeyUnavailable,
    /// `DependencyTimeoutException`, HTTP 503.
    DependencyTimeout,
    /// Any AWS error.
    Error {
        /// The exception's name.
        code: String,
        /// The HTTP status.
        #[serde(default = "bad_request")]
        status: u16,
        /// The message; may be empty.
        #[serde(default)]
        message: String,
    },
    /// Never answers: holds the call until it is released (or [`crate::HOLD_LIMIT`] is over), then closes the connection. Not executed.
    Hang,
    /// A gate: holds the call before it is executed until it is released, then goes on as if nothing had happened.
    Hold,
    /// Like [`Fault::Hold`], but AWS has already executed the call.
    HoldAfter,
    /// Closes the connection instead of executing.
    Drop,
    /// Executes, then closes the connection: the answer is lost.
    DropAfter,
    /// Resets the connection (TCP RST) instead of executing.
    Reset,
    /// A revocation at this moment: the key that the call names is disabled, right before the call is executed or right after.
    Revoke {
        /// After: the call itself still succeeds.
        #[serde(default)]
        after: bool,
    },
    /// Executes, sends the head and half of the body, then closes the connection.
    Half,
    /// Executes, then waits before it answers.
    Slow {
        /// Milliseconds; at most one minute counts.
        ms: u64,
    },
    /// HTTP 200 with a body that is not JSON.
    NotJson,
    /// HTTP 403 with a page in HTML and no AWS header: a captive portal, or a proxy that says no.
    CaptivePortal,
    /// HTTP 302.
    Redirect {
        /// The `Location` header.
        location: String,
    },
    /// Executes; a Decrypt answers another plaintext of the same length.
    WrongKek,
    /// An AWS error in XML, as query services (and moto) send it.
    Xml {
        /// The error's `Code`.
        #[serde(default = "signature_mismatch")]
        code: String,
        /// The HTTP status.
        #[serde(default = "forbidden")]
        status: u16,
    },
    /// HTTP 200 with a JSON body of about that size.
    Big {
        /// Bytes; at most 64 MiB.
        bytes: usize,
    },
    /// AWS's clock is off by that much for this call: the `Date` header, and the window in which a signature is valid.
    ClockSkew {
        /// Seconds; positive: AWS's clock is ahead.
        seconds: i64,
    },
}

impl Fault {
    /// Whether a call with this fault waits to be released.
    #[must_use]
    pub fn holds(&self) -> bool {
        matches!(self, Self::Hang | Self::Hold | Self::HoldAfter)
    }

    /// The name in JSON, as it appears in the record of calls.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Throttle => "throttle",
            Self::InternalFailure => "internal_failure",
            Self::KmsInternal => "kms_internal",
            Self::KeyUnavailable => "key_unavailable",
            Self::DependencyTimeout => "dependency_timeout",
            Self::Error { .. } => "error",
            Self::Hang => "hang",
            Self::Hold => "hold",
            Self::HoldAfter => "hold_after",
            Self::Drop => "drop",
            Self::DropAfter => "drop_after",
            Self::Reset => "reset",
            Self::Revoke { .. } => "revoke",
            Self::Half => "half",
            Self::Slow { .. } => "slow",
            Self::NotJson => "not_json",
            Self::CaptivePortal => "captive_portal",
            Self::Redirect { .. } => "redirect",
            Self::WrongKek => "wrong_kek",
            Self::Xml { .. } => "xml",
            Self::Big { .. } => "big",
            Self::ClockSkew { .. } => "clock_skew",
        }
    }
}

/// When a fault strikes. Every member but `fault` may be left out: the fault then strikes every call until the rules are cleared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FaultRule {
    /// Only this operation (`Encrypt`, `Decrypt`, `DescribeKey`, …).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<String>,
    /// Only calls signed with this access key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_key_id: Option<String>,
    /// Strikes from this call on, counted from 1 among the calls that fit since the rule was set.
    #[serde(default = "first")]
    pub from: u64,
    /// Strikes at most that often; without it, until cleared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub times: Option<u64>,
    /// What goes wrong.
    pub fault: Fault,
}

impl FaultRule {
    /// A rule that strikes every call of every operation until it is cleared.
    #[must_use]
    pub fn always(fault: Fault) -> Self {
        Self { operation: None, access_key_id: None, from: 1, times: None, fault }
    }

    /// A rule that strikes the next call of `operation`, once.
    #[must_use]
    pub fn next(operation: &str, fault: Fault) -> Self {
        Self { operation: Some(operation.into()), times: Some(1), ..Self::always(fault) }
    }

    fn fits(&self, operation: &str, access_key_id: Option<&str>) -> bool {
        self.operation.as_deref().is_none_or(|o| o == operation) && self.access_key_id.as_deref().is_none_or(|a| Some(a) == access_key_id)
    }
}

/// The rules in the order they were set. The first that strikes wins, so rules with `times` make a queue.
#[derive(Debug, Default)]
pub struct FaultRules(Vec<Counted>);

#[derive(Debug)]
struct Counted {
    rule: FaultRule,
    seen: u64,
    struck: u64,
}

impl FaultRules {
    /// Adds a rule at the end.
    pub fn add(&mut self, rule: FaultRule) {
        self.0.push(Counted { rule, seen: 0, struck: 0 });
    }

    /// Removes all rules.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Removes the rules that hold calls, so that a call after the release is not held again.
    pub fn open_gates(&mut self) {
        self.0.retain(|c| !c.rule.fault.holds());
    }

    /// The rules that can still strike.
    #[must_use]
    pub fn active(&self) -> Vec<FaultRule> {
        self.0.iter().filter(|c| c.rule.times.is_none_or(|t| c.struck < t)).map(|c| c.rule.clone()).collect()
    }

    /// Counts one call, and returns the fault that strikes it.
    pub fn strike(&mut self, operation: &str, access_key_id: Option<&str>) -> Option<Fault> {
        let mut found = None;
        for counted in self.0.iter_mut().filter(|c| c.rule.fits(operation, access_key_id)) {
            counted.seen += 1;
            let due = counted.seen >= counted.rule.from && counted.rule.times.is_none_or(|t| counted.struck < t);
            if due && found.is_none() {
                counted.struck += 1;
                found = Some(counted.rule.fault.clone());
            }
        }
        found
    }
}

fn first() -> u64 {
    1
}

fn bad_request() -> u16 {
    400
}

fn forbidden() -> u16 {
    403
}

fn signature_mismatch() -> String {
    "SignatureDoesNotMatch".into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn struck(rules: &mut FaultRules, operation: &str) -> Option<&'static str> {
        rules.strike(operation, Some("AKIA")).map(|f| f.name())
    }

    #[test]
    fn rules_with_times_make_a_queue() {
        let mut rules = FaultRules::default();
        rules.add(FaultRule::next("Encrypt", Fault::Throttle));
        rules.add(FaultRule::next("Encrypt", Fault::Drop));
        assert_eq!(struck(&mut rules, "Decrypt"), None);
        assert_eq!(struck(&mut rules, "Encrypt"), Some("throttle"));
        assert_eq!(struck(&mut rules, "Encrypt"), Some("drop"));
        assert_eq!(struck(&mut rules, "Encrypt"), None);
        assert!(rules.active().is_empty());
    }

    #[test]
    fn the_nth_call_is_counted_from_the_moment_the_rule_is_set() {
        let mut rules = FaultRules::default();
        rules.add(FaultRule { from: 3, times: Some(2), ..FaultRule::always(Fault::Half) });
        let seen: Vec<_> = (0..6).map(|_| struck(&mut rules, "Decrypt").is_some()).collect();
        assert_eq!(seen, [false, false, true, true, false, false]);
    }

    #[test]
    fn until_cleared_and_by_access_key() {
        let mut rules = FaultRules::default();
        rules.add(FaultRule { access_key_id: Some("OTHER".into()), ..FaultRule::always(Fault::Drop) });
        rules.add(FaultRule::always(Fault::Hold));
        assert_eq!(struck(&mut rules, "Encrypt"), Some("hold"));
        assert_eq!(struck(&mut rules, "DescribeKey"), Some("hold"));
        rules.open_gates();
        assert_eq!(struck(&mut rules, "Encrypt"), None);
        assert_eq!(rules.strike("Encrypt", Some("OTHER")), Some(Fault::Drop));
        rules.clear();
        assert_eq!(rules.strike("Encrypt", Some("OTHER")), None);
    }

    #[test]
    fn rules_are_read_strictly() {
        let rule: FaultRule = serde_json::from_str(r#"{"operation":"Encrypt","times":1,"fault":{"kind":"slow","ms":5}}"#).unwrap();
        assert_eq!(rule, FaultRule::next("Encrypt", Fault::Slow { ms: 5 }));
        assert!(serde_json::from_str::<FaultRule>(r#"{"operaton":"Encrypt","fault":{"kind":"drop"}}"#).is_err());
        assert!(serde_json::from_str::<FaultRule>(r#"{"fault":{"kind":"explode"}}"#).is_err());
    }
}

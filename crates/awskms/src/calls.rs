//! What is counted of calls to AWS KMS, and the span of each in a trace.

use crate::error::{Class, Error};
use keystead_metrics::{Name, Page, Source, Timings, trace};
use std::time::Duration;
use tracing::{Span, field};

/// The upper bounds of the histogram, in seconds: a call within a region takes some 10 ms, and the longest `timeout` of a configuration is a minute.
const BOUNDS: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

/// What a call can come to: it is good, or the class of its error, of which being held back is one that operators look for by itself.
const RESULTS: &[&str] = &["ok", "denied", "misconfigured", "integrity", "throttled", "transient", "unreachable"];

/// The operations of AWS KMS that Keystead calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    DescribeKey,
    Encrypt,
    Decrypt,
}

impl Operation {
    const ALL: [Self; 3] = [Self::DescribeKey, Self::Encrypt, Self::Decrypt];

    fn name(self) -> &'static str {
        match self {
            Self::DescribeKey => "DescribeKey",
            Self::Encrypt => "Encrypt",
            Self::Decrypt => "Decrypt",
        }
    }

    /// The span of a call. What it names is no secret: neither key nor context stand in it.
    pub fn span(self, region: &str, endpoint: &str) -> Span {
        tracing::info_span!(
            target: trace::TARGET,
            "aws",
            otel.name = format!("KMS.{}", self.name()),
            otel.kind = "client",
            otel.status_code = field::Empty,
            rpc.system = "aws-api",
            rpc.service = "KMS",
            rpc.method = self.name(),
            cloud.region = region,
            server.address = endpoint,
            aws.request_id = field::Empty,
            "error.type" = field::Empty,
            keystead.result = field::Empty,
        )
    }
}

/// The calls of all clients of a process.
#[derive(Debug)]
pub struct Calls(Timings);

impl Default for Calls {
    fn default() -> Self {
        Self(Timings::new(Operation::ALL.map(|operation| vec![("operation", operation.name())]), RESULTS, BOUNDS))
    }
}

impl Calls {
    /// Counts a call, all of its attempts together, and says in its span what came of it.
    pub(crate) fn ended(&self, operation: Operation, took: Duration, answer: Result<Option<&str>, &Error>, span: &Span) {
        let result = answer.map_or_else(place, |_| 0);
        self.0.record(operation as usize, result, took);
        if span.is_disabled() {
            return;
        }
        span.record("keystead.result", RESULTS.get(result).copied().unwrap_or_default());
        let request_id = match answer {
            Ok(request_id) => request_id,
            Err(error) => {
                span.record("otel.status_code", "ERROR");
                // AWS's own name for the error, else where on the way it happened.
                span.record("error.type", error.code().unwrap_or(error.hop().text()));
                error.request_id()
            }
        };
        if let Some(request_id) = request_id {
            span.record("aws.request_id", request_id);
        }
    }
}

impl Source for Calls {
    fn write(&self, page: &mut Page<'_>) -> std::fmt::Result {
        page.operations(Name::plain("keystead_aws_calls", "Calls to AWS KMS that have ended, all attempts of one together, by what came of them"), &self.0)?;
        page.durations(Name::seconds("keystead_aws_call_duration", "How long calls to AWS KMS take, all attempts of one together"), &self.0)
    }
}

/// The place of an error in [`RESULTS`].
fn place(error: &Error) -> usize {
    match error.class() {
        Class::Revoked => 1,
        Class::Misconfigured => 2,
        Class::Integrity => 3,
        Class::Transient if error.code().is_some_and(crate::error::is_throttle) => 4,
        Class::Transient => 5,
        Class::Unreachable => 6,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_class_has_its_word() {
        let word = |class: Class, code: Option<&str>| {
            let error = Error { class, code: code.map(str::to_owned), ..Error::blank(String::new()) };
            RESULTS[place(&error)]
        };
        assert_eq!(word(Class::Revoked, Some("DisabledException")), "denied");
        assert_eq!(word(Class::Misconfigured, None), "misconfigured");
        assert_eq!(word(Class::Integrity, None), "integrity");
        assert_eq!(word(Class::Transient, Some("ThrottlingException")), "throttled");
        assert_eq!(word(Class::Transient, Some("KMSInternalException")), "transient");
        assert_eq!(word(Class::Unreachable, None), "unreachable");
        for (place, operation) in Operation::ALL.into_iter().enumerate() {
            assert_eq!(operation as usize, place);
        }
    }
}

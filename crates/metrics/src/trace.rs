//! What spans need of OpenTelemetry: where a span stands in its trace, as a text that travels (`traceparent`, W3C Trace Context).
//!
//! Spans that go to a collector have the target [`TARGET`]; the log leaves them out. Where no collector is configured, nobody wants them, and `tracing` does not make them.

use opentelemetry::Context;
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

/// The target of spans that are meant for a collector.
pub const TARGET: &str = "keystead_trace";

/// The header that says where a span stands in its trace (W3C Trace Context, section 3.2).
pub const HEADER: &str = "traceparent";

/// Where the current span stands, as the value of a `traceparent` header. `None`: there is none that goes to a collector.
pub fn traceparent() -> Option<String> {
    let context = Span::current().context();
    let span = context.span().span_context().clone();
    span.is_valid().then(|| format!("00-{}-{}-{:02x}", span.trace_id(), span.span_id(), span.trace_flags().to_u8()))
}

/// Puts a span, which must not have been entered yet, under the one that a `traceparent` names. What cannot be read is as if nothing was given: then the span begins a trace.
pub fn continue_from(span: &Span, traceparent: &str) {
    if let Some(parent) = parse(traceparent) {
        // An error: nobody wants the span.
        let _ = span.set_parent(Context::new().with_remote_span_context(parent));
    }
}

/// A `traceparent` of version 00, or what a later version has in common with it (W3C Trace Context, section 3.2).
fn parse(text: &str) -> Option<SpanContext> {
    let mut parts = text.trim().split('-');
    let [version, trace, span, flags] = [parts.next()?, parts.next()?, parts.next()?, parts.next()?];
    let hexadecimal = |text: &str, length: usize| text.len() == length && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    let well_formed = hexadecimal(version, 2) && version != "ff" && hexadecimal(trace, 32) && hexadecimal(span, 16) && hexadecimal(flags, 2);
    if !well_formed || (version == "00" && parts.next().is_some()) {
        return None;
    }
    let flags = TraceFlags::new(u8::from_str_radix(flags, 16).ok()? & TraceFlags::SAMPLED.to_u8());
    let context = SpanContext::new(TraceId::from_hex(trace).ok()?, SpanId::from_hex(span).ok()?, flags, true, TraceState::NONE);
    context.is_valid().then_some(context)
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry::trace::TracerProvider as _;
    use opentelemetry_sdk::trace::SdkTracerProvider;
    use tracing_subscriber::layer::SubscriberExt as _;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn what_is_no_traceparent_is_refused() {
        assert!(parse(PARENT).is_some_and(|parent| parent.is_sampled() && parent.is_remote()));
        assert!(parse("01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00-later").is_some_and(|parent| !parent.is_sampled()));
        for bad in [
            "",
            "00",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-+af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ] {
            assert!(parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn a_span_goes_on_with_the_trace_that_it_was_given() {
        let provider = SdkTracerProvider::builder().build();
        let subscriber = tracing_subscriber::registry().with(tracing_opentelemetry::layer().with_tracer(provider.tracer("test")));
        tracing::subscriber::with_default(subscriber, || {
            assert_eq!(traceparent(), None);
            let span = tracing::info_span!(target: TARGET, "job");
            continue_from(&span, PARENT);
            let here = span.in_scope(traceparent).unwrap();
            assert_eq!(here.split('-').nth(1), PARENT.split('-').nth(1));
            assert_ne!(here.split('-').nth(2), PARENT.split('-').nth(2));
        });
    }

    #[test]
    fn without_a_collector_there_is_nothing_to_say() {
        let span = tracing::info_span!(target: TARGET, "job");
        continue_from(&span, PARENT);
        assert_eq!(span.in_scope(traceparent), None);
    }
}

//! Which answers are asked for again: those of the class [`Class::Transient`], and no others.

use crate::error::{Class, class_of_answer};
use aws_sdk_kms::config::retry::{ClassifyRetry, RetryAction};
use aws_sdk_kms::operation::decrypt::DecryptError;
use aws_sdk_kms::operation::describe_key::DescribeKeyError;
use aws_sdk_kms::operation::encrypt::EncryptError;
use aws_smithy_runtime_api::client::interceptors::context::{Error, InterceptorContext};
use aws_smithy_runtime_api::client::orchestrator::OrchestratorError;
use aws_smithy_runtime_api::client::retries::classifiers::RetryClassifierPriority;
use aws_smithy_types::error::ErrorMetadata;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;

/// The SDK's own classifiers retry `LimitExceededException`, and neither keys in a passing state nor every 5xx. Without an answer they know best, so this one stays silent.
#[derive(Debug)]
pub(crate) struct ByClass;

impl ClassifyRetry for ByClass {
    fn classify_retry(&self, context: &InterceptorContext) -> RetryAction {
        self.classify_retry_v2(context, &RetryAction::NoActionIndicated)
    }

    fn classify_retry_v2(&self, context: &InterceptorContext, previous: &RetryAction) -> RetryAction {
        if !crate::budget::is_worth_it() {
            return RetryAction::RetryForbidden;
        }
        let (Some(Err(error)), Some(answer)) = (context.output_or_error(), context.response()) else { return RetryAction::NoActionIndicated };
        if error.is_connector_error() || error.is_timeout_error() {
            return RetryAction::NoActionIndicated;
        }
        match class_of_answer(metadata(error), answer) {
            // What the SDK has found keeps its kind and its delay.
            Class::Transient if previous.should_retry() => RetryAction::NoActionIndicated,
            Class::Transient => RetryAction::transient_error(),
            _ => RetryAction::RetryForbidden,
        }
    }

    fn name(&self) -> &'static str {
        "class of the answer"
    }

    fn priority(&self) -> RetryClassifierPriority {
        RetryClassifierPriority::run_after(RetryClassifierPriority::transient_error_classifier())
    }
}

fn metadata(error: &OrchestratorError<Error>) -> Option<&ErrorMetadata> {
    let error = error.as_operation_error()?;
    let describe = error.downcast_ref::<DescribeKeyError>().map(ProvideErrorMetadata::meta);
    describe
        .or_else(|| error.downcast_ref::<EncryptError>().map(ProvideErrorMetadata::meta))
        .or_else(|| error.downcast_ref::<DecryptError>().map(ProvideErrorMetadata::meta))
}

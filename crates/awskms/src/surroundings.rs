//! Takes out of requests what the SDK puts in from the process's environment variables: nothing of them is AWS's, or a tenant endpoint's, business.

use aws_sdk_kms::config::interceptors::BeforeTransmitInterceptorContextMut;
use aws_sdk_kms::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_kms::error::BoxError;

/// `AWS_EXECUTION_ENV` in the user agent, `_X_AMZN_TRACE_ID` in a header of its own (aws-runtime 1.10, `user_agent` and `recursion_detection`).
#[derive(Debug)]
pub(crate) struct NoSurroundings;

impl Intercept for NoSurroundings {
    fn name(&self) -> &'static str {
        "NoSurroundings"
    }

    fn modify_before_signing(
        &self,
        context: &mut BeforeTransmitInterceptorContextMut<'_>,
        _components: &RuntimeComponents,
        _config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let headers = context.request_mut().headers_mut();
        headers.remove("x-amzn-trace-id");
        for name in ["user-agent", "x-amz-user-agent"] {
            if let Some(agent) = headers.get(name) {
                let kept: Vec<&str> = agent.split(' ').filter(|part| !part.starts_with("exec-env/")).collect();
                let kept = kept.join(" ");
                headers.try_insert(name, kept)?;
            }
        }
        Ok(())
    }
}

//! The preflight: on demand for a stored configuration, and by itself where enabling one has failed.

use crate::aws::context;
use crate::aws_kms::{admitted, reserve, sealed_secrets};
use crate::inner::Inner;
use crate::model::{CheckReport, CheckStep, EnableRequest, Principal};
use crate::records::AwsKmsRecord;
use crate::{Code, Error, Manager, Result};
use keystead_awskms::preflight::{Known, Outcome, Preflight, Report};
use uuid::Uuid;

/// A failed step of a set-up: what the user is told, and the call of AWS behind it, if it was one.
#[derive(Debug)]
pub(crate) struct CallError {
    pub error: Error,
    pub known: Option<Box<Known>>,
}

impl CallError {
    pub fn of(error: Error, known: Known) -> Self {
        Self { error, known: Some(Box::new(known)) }
    }
}

impl From<Error> for CallError {
    fn from(error: Error) -> Self {
        Self { error, known: None }
    }
}

impl From<CallError> for Error {
    fn from(failed: CallError) -> Self {
        failed.error
    }
}

impl Manager {
    /// Takes a preflight of a configuration from this node, as it is stored: its way, credentials, key and context. Who asks while one is under way waits for it, and one that is at most 5 s old is
    /// shown again.
    ///
    /// # Errors
    /// 4; and where the stored secrets cannot be opened.
    pub async fn check(&self, uuid: Uuid) -> Result<CheckReport> {
        let inner = self.inner();
        let config = inner.view.get::<AwsKmsRecord>(uuid)?.ok_or_else(|| Error::new(Code::NotFound).target("uuid"))?;
        let look = async {
            let settings = &config.record.settings;
            let context = context(settings.encryption_context.as_deref())?;
            Ok(shown(inner.preflight(&config.record)?.run(&settings.key_id, &context).await))
        };
        inner.check_looks.look(crate::looks::Freshness::Recent, &*inner.clock, &config, look).await
    }

    /// Takes a preflight of a configuration that is not there yet: what enabling would ask of the cluster and of AWS, from this node. Nothing is kept, and no key leaves this node.
    ///
    /// # Errors
    /// Those with which [`Manager::enable_aws_kms`] would refuse the request at once. What AWS, or the way to it, refuses is in the report.
    pub async fn preflight_aws_kms(&self, who: &Principal, request: &EnableRequest) -> Result<CheckReport> {
        let inner = self.inner();
        let (svm, settings, migrate) = admitted(inner, who, request).await?;
        let uuid = inner.random.uuid();
        // Whether it could be reserved; it is not.
        reserve(inner, &svm, uuid, migrate).await?;
        let context = context(settings.encryption_context.as_deref())?;
        let (secret_access_key, proxy_password) = sealed_secrets(inner, uuid, request);
        let config = AwsKmsRecord { uuid, svm: svm.record.uuid, settings, secret_access_key, proxy_password, unproven: false };
        Ok(shown(inner.preflight(&config)?.run(&config.settings.key_id, &context).await))
    }
}

impl Inner {
    /// Adds to the error of an enabling what a preflight finds: which hop fails, and what to do. It takes at most one configured timeout, and does not ask AWS again.
    pub(crate) async fn explained(&self, failed: CallError, config: &AwsKmsRecord) -> Error {
        let CallError { mut error, known } = failed;
        if let (Some(known), Ok(preflight)) = (known, self.preflight(config)) {
            error.message = format!("{}; checked: {}", error.message, preflight.after(&known).await);
        }
        error
    }

    fn preflight(&self, config: &AwsKmsRecord) -> Result<Preflight> {
        self.aws_made(config, Preflight::new)
    }
}

fn shown(report: Report) -> CheckReport {
    let (passed, summary) = (report.passed(), report.summary());
    let steps = report.steps.into_iter().map(|step| {
        let (state, message) = match step.outcome {
            Outcome::Passed => ("passed", step.detail),
            Outcome::Failed => ("failed", step.detail),
            Outcome::Skipped(why) => ("skipped", why),
        };
        CheckStep { name: step.name, state, took: step.took, message, advice: step.advice }
    });
    CheckReport { passed, summary, steps: steps.collect() }
}

//! Named moments of operations, so that a test can stop the process exactly there.

/// Is told of each named step as it is passed: `accept.before`, `enable.encrypt.after`, `enable.commit.before` and so on. In production nobody listens.
pub trait Steps: Send + Sync + 'static {
    /// The operation is at this step.
    fn reached(&self, step: &str);
}

/// Nobody listens.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoSteps;

impl Steps for NoSteps {
    fn reached(&self, _step: &str) {}
}

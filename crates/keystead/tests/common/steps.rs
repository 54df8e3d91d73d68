//! Holds a job at a named step until the test says go.

use keystead_manager::steps::Steps;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

pub struct PauseAt {
    step: &'static str,
    reached: AtomicBool,
    go: AtomicBool,
}

impl PauseAt {
    pub fn new(step: &'static str) -> Arc<Self> {
        Arc::new(Self { step, reached: AtomicBool::new(false), go: AtomicBool::new(false) })
    }

    /// Waits until the first job is there.
    pub async fn reached(&self) {
        super::eventually(&format!("{} must be reached", self.step), async || self.reached.load(Ordering::SeqCst).then_some(())).await;
    }

    pub fn go(&self) {
        self.go.store(true, Ordering::SeqCst);
    }
}

impl Steps for PauseAt {
    fn reached(&self, step: &str) {
        if step == self.step && !self.reached.swap(true, Ordering::SeqCst) {
            tokio::task::block_in_place(|| {
                // A test that has failed says go to nobody.
                for _ in 0..9_000 {
                    if self.go.load(Ordering::SeqCst) {
                        break;
                    }
                    std::thread::park_timeout(Duration::from_millis(10));
                }
            });
        }
    }
}

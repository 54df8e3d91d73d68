//! A bound on what all messages together may take.
//!
//! A session owns a small buffer. What a longer message needs beyond that is borrowed from one pool for all sessions, so that many clients that send long messages slowly cannot take all memory.

use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What each session may use without asking, in bytes.
pub const OWN: usize = 16 * 1024;
/// What all sessions together may use beyond that, in KiB.
const POOL: usize = 16 * 1024;

/// The pool.
#[derive(Clone)]
pub struct Memory(Arc<Semaphore>);

impl Memory {
    pub fn new() -> Self {
        Self(Arc::new(Semaphore::new(POOL)))
    }

    /// Waits until a message of that many bytes has room. The caller limits the time.
    pub async fn take(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let kib = bytes.saturating_sub(OWN).div_ceil(1024).min(POOL);
        if kib == 0 {
            return None;
        }
        // The semaphore is never closed.
        Arc::clone(&self.0).acquire_many_owned(u32::try_from(kib).unwrap_or(u32::MAX)).await.ok()
    }
}

//! Where keys of certificates are made: a few at a time, since an RSA key takes a core for up to seconds.

use crate::{Code, Error, Result};
use std::sync::Arc;
use tokio::sync::Semaphore;

/// How many requests may be here at a time, with those that wait. More are told to come later, at once.
const REQUESTS: usize = 32;

/// Makes keys, off the threads that serve requests, on about half of the cores.
pub(crate) struct Forge {
    slots: Arc<Semaphore>,
    requests: Semaphore,
}

impl Forge {
    pub fn new() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self { slots: Arc::new(Semaphore::new((cores / 2).max(1))), requests: Semaphore::new(REQUESTS) }
    }

    /// Does work that a request has asked for.
    ///
    /// # Errors
    /// 262160 where too many wait already.
    pub async fn requested<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        let busy = |_| Error::with(Code::TooManyRequests, format!("{REQUESTS} certificates and requests are being made on this node; come again"));
        let _turn = self.requests.try_acquire().map_err(busy)?;
        self.own(work).await
    }

    /// Does work of the cluster's own: it waits for its turn, and is not turned away.
    ///
    /// # Errors
    /// The work has panicked.
    pub async fn own<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        let slot = Arc::clone(&self.slots).acquire_owned().await.map_err(Error::unexpected)?;
        let work = move || {
            // The slot goes with the work and not with who waits for it: who hangs up does not make room.
            let _slot = slot;
            work()
        };
        tokio::task::spawn_blocking(work).await.map_err(Error::unexpected)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[tokio::test]
    async fn requests_beyond_the_limit_are_turned_away_and_own_work_is_not() {
        let forge = Arc::new(Forge::new());
        let (go, gate) = mpsc::channel::<()>();
        let gate = Arc::new(std::sync::Mutex::new(gate));
        let mut waiting = tokio::task::JoinSet::new();
        for _ in 0..REQUESTS {
            let (forge, gate) = (Arc::clone(&forge), Arc::clone(&gate));
            waiting.spawn(async move { forge.requested(move || gate.lock().unwrap().recv().is_ok()).await });
        }
        while forge.requests.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(forge.requested(|| ()).await.unwrap_err().code, Code::TooManyRequests);
        let own = tokio::spawn({
            let forge = Arc::clone(&forge);
            async move { forge.own(|| 7).await.unwrap() }
        });
        (0..REQUESTS).for_each(|_| go.send(()).unwrap());
        assert!(waiting.join_all().await.into_iter().all(Result::unwrap));
        assert_eq!((own.await.unwrap(), forge.requested(|| 8).await.unwrap()), (7, 8));
    }
}

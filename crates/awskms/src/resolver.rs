//! Names to addresses, by the machine's own resolver.
//!
//! That resolver blocks a thread for each look-up, for as long as a name server keeps silent, and cannot be told to stop. Those threads are shared with the store and with the checks of passwords. So names are asked for
//! once, however many wait for the answer, and only so many at a time.

use async_trait::async_trait;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use tokio::sync::{Semaphore, watch};

/// How many names are looked up at a time: a quarter of the threads that there are (tokio, `max_blocking_threads`).
const AT_A_TIME: usize = 128;

/// Turns names into addresses.
#[async_trait]
pub trait Resolver: Send + Sync + 'static {
    /// All addresses of a name. The error says what the resolver said.
    async fn resolve(&self, name: &str) -> Result<Vec<IpAddr>, String>;
}

/// The machine's resolver. All that are made in a process share their look-ups.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemResolver;

type Answer = Result<Vec<IpAddr>, String>;

/// The look-ups that are under way.
static FLIGHTS: Mutex<Option<HashMap<String, watch::Receiver<Option<Answer>>>>> = Mutex::new(None);
static SLOTS: Semaphore = Semaphore::const_new(AT_A_TIME);

#[async_trait]
impl Resolver for SystemResolver {
    async fn resolve(&self, name: &str) -> Result<Vec<IpAddr>, String> {
        let mut answer = join(name, look_up);
        let answer = answer.wait_for(Option::is_some).await.map(|answer| answer.clone());
        answer.ok().flatten().unwrap_or_else(|| Err("the look-up was given up".to_owned()))
    }
}

/// Joins the look-up of a name, or starts one. It goes on when who has started it has left: its thread does so too.
fn join<F: Future<Output = Answer> + Send + 'static>(name: &str, look_up: impl FnOnce(String) -> F) -> watch::Receiver<Option<Answer>> {
    let mut flights = FLIGHTS.lock().unwrap_or_else(PoisonError::into_inner);
    let flights = flights.get_or_insert_with(HashMap::new);
    if let Some(flight) = flights.get(name) {
        return flight.clone();
    }
    let (tell, answer) = watch::channel(None);
    flights.insert(name.to_owned(), answer.clone());
    let (name, future) = (name.to_owned(), look_up(name.to_owned()));
    tokio::spawn(async move {
        let landing = Landing(name);
        let found = future.await;
        // First the end, then the answer: who comes in between asks anew.
        drop(landing);
        tell.send_replace(Some(found));
    });
    answer
}

struct Landing(String);

impl Drop for Landing {
    fn drop(&mut self) {
        if let Some(flights) = FLIGHTS.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            flights.remove(&self.0);
        }
    }
}

async fn look_up(name: String) -> Answer {
    let _slot = SLOTS.acquire().await.map_err(|error| error.to_string())?;
    let found = tokio::net::lookup_host((name, 0)).await.map_err(|error| error.to_string())?;
    Ok(found.map(|address| address.ip()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[tokio::test]
    async fn a_name_is_asked_for_once_however_many_wait() {
        let (asked, gate) = (Arc::new(AtomicUsize::new(0)), Arc::new(Semaphore::new(0)));
        let start = || {
            let (asked, gate) = (Arc::clone(&asked), Arc::clone(&gate));
            join("once.test", move |_| async move {
                asked.fetch_add(1, Ordering::SeqCst);
                drop(gate.acquire().await);
                Ok(vec![IpAddr::from([192, 0, 2, 1])])
            })
        };
        let all: Vec<_> = (0..100).map(|_| start()).collect();
        gate.add_permits(1);
        for mut one in all {
            let answer = one.wait_for(Option::is_some).await.unwrap().clone().unwrap();
            assert_eq!(answer.unwrap(), [IpAddr::from([192, 0, 2, 1])]);
        }
        assert_eq!(asked.load(Ordering::SeqCst), 1);
        // And again once that has ended.
        gate.add_permits(1);
        start().wait_for(Option::is_some).await.unwrap();
        assert_eq!(asked.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn the_machine_knows_itself() {
        assert!(SystemResolver.resolve("localhost").await.unwrap().iter().all(IpAddr::is_loopback));
        assert!(SystemResolver.resolve("no-such-name.invalid").await.is_err());
    }
}

//! The connections that are open: how many in all, and of one source.
//!
//! Where there are too many, one that waits for a request makes room: the one that has waited longest, of the source that has the most. So neither one source nor silence takes all places, and who
//! comes from elsewhere gets in.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio_util::sync::CancellationToken;

/// The connections.
pub struct Connections {
    most: usize,
    most_of_one: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Counts what happens, so that what was earlier has the smaller number.
    clock: u64,
    open: HashMap<u64, Entry>,
}

struct Entry {
    source: IpAddr,
    /// Since when it waits for a request; none while one is answered.
    idle: Option<u64>,
    out: CancellationToken,
}

/// A place among the connections, until it is dropped.
pub struct Place {
    connections: Arc<Connections>,
    number: u64,
    out: CancellationToken,
}

/// A request that is being answered.
pub struct Busy(Arc<Place>);

impl Connections {
    /// Room for so many, and so many of one source.
    pub fn new(most: usize, most_of_one: usize) -> Arc<Self> {
        Arc::new(Self { most, most_of_one, state: Mutex::default() })
    }

    /// A place for one more. `None`: there is none, and nobody who could make room.
    pub fn enter(self: &Arc<Self>, source: IpAddr) -> Option<Place> {
        let mut state = self.lock();
        if state.count(source) >= self.most_of_one {
            state.show_out(source)?;
        } else if state.open.len() >= self.most {
            let crowded = state.most_crowded()?;
            state.show_out(crowded)?;
        }
        state.clock += 1;
        let (number, out) = (state.clock, CancellationToken::new());
        state.open.insert(number, Entry { source, idle: Some(number), out: out.clone() });
        Some(Place { connections: Arc::clone(self), number, out })
    }

    /// How many connections there are, and how many there may be.
    pub fn count(&self) -> (usize, usize) {
        (self.lock().open.len(), self.most)
    }

    // A panic while the lock is held cannot leave the table half changed, so a poisoned lock is as good as any.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn count(&self, source: IpAddr) -> usize {
        self.open.values().filter(|entry| entry.source == source).count()
    }

    /// The source that has the most connections, of those with one that waits.
    fn most_crowded(&self) -> Option<IpAddr> {
        let mut counts: HashMap<IpAddr, (usize, bool)> = HashMap::new();
        for entry in self.open.values() {
            let (count, waits) = counts.entry(entry.source).or_default();
            *count += 1;
            *waits |= entry.idle.is_some();
        }
        counts.into_iter().filter(|(_, (_, waits))| *waits).max_by_key(|(_, (count, _))| *count).map(|(source, _)| source)
    }

    /// Has the connection of a source that has waited longest make room.
    fn show_out(&mut self, source: IpAddr) -> Option<()> {
        let waiting = self.open.iter().filter(|(_, entry)| entry.source == source).filter_map(|(number, entry)| Some((entry.idle?, *number)));
        let (_, number) = waiting.min()?;
        self.open.remove(&number)?.out.cancel();
        Some(())
    }
}

impl Place {
    /// Waits until it has to make room for others.
    pub async fn shown_out(&self) {
        self.out.cancelled().await;
    }

    /// Notes that a request is being answered: then it makes room for nobody. `None`: it has just had to, and must not begin with anything.
    pub fn busy(self: &Arc<Self>) -> Option<Busy> {
        self.connections.lock().open.get_mut(&self.number)?.idle = None;
        Some(Busy(Arc::clone(self)))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let mut state = self.0.connections.lock();
        state.clock += 1;
        let now = state.clock;
        if let Some(entry) = state.open.get_mut(&self.0.number) {
            entry.idle = Some(now);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connections.lock().open.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(n: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, n])
    }

    #[test]
    fn one_source_takes_its_own_places_alone() {
        let connections = Connections::new(10, 3);
        let mine: Vec<Arc<Place>> = (0..3).map(|_| Arc::new(connections.enter(source(1)).unwrap())).collect();
        let busy = mine[0].busy().unwrap();
        let _fourth = connections.enter(source(1)).unwrap();
        assert!(!mine[0].out.is_cancelled() && mine[1].out.is_cancelled() && !mine[2].out.is_cancelled(), "the oldest that waits");
        assert!(mine[1].busy().is_none(), "it was shown out, and begins with nothing");
        let more: Vec<_> = mine.iter().skip(2).map(Place::busy).collect();
        drop(busy);
        let _fifth = connections.enter(source(1)).unwrap();
        assert!(!mine[0].out.is_cancelled(), "it has waited less long than the fourth");
        drop(more);
    }

    #[test]
    fn where_all_places_are_taken_the_most_crowded_source_makes_room() {
        let connections = Connections::new(4, 3);
        let crowd: Vec<_> = (0..3).map(|_| Arc::new(connections.enter(source(1)).unwrap())).collect();
        let other = connections.enter(source(2)).unwrap();
        let third = connections.enter(source(3)).unwrap();
        assert!(crowd[0].out.is_cancelled() && !other.out.is_cancelled());
        let all: Vec<_> = [Arc::new(other), Arc::new(third)].iter().chain(&crowd[1..]).map(Place::busy).collect();
        assert!(connections.enter(source(4)).is_none(), "nobody is sent away in the middle of an answer");
        drop((all, crowd));
        assert!(connections.lock().open.is_empty());
    }
}

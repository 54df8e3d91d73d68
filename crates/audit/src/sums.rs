//! What is counted instead of written one by one: Gets, and refusals. Bounded, whatever comes; nobody waits for a disk here.

use crate::record::Record;
use jiff::Timestamp;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What is counted together: the same actor, object, operation and result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key {
    /// Who, and from where: a hash of it.
    pub actor: u128,
    /// The object; 0: none.
    pub object: u128,
    /// The number of the operation.
    pub what: u32,
    /// The number of the failure; 0: success.
    pub code: u32,
}

/// One sum.
#[derive(Debug)]
pub struct Sum {
    /// Whose it is, where each has a share of the room.
    who: Option<u128>,
    record: Box<Record>,
    count: u64,
    since: Timestamp,
    until: Timestamp,
}

impl Sum {
    /// The record of it.
    pub fn record(&self) -> Record {
        Record { count: Some(self.count), since: Some(self.since), until: Some(self.until), ..(*self.record).clone() }
    }

    /// How often.
    pub fn count(&self) -> u64 {
        self.count
    }

    fn add(&mut self, other: &Self) {
        self.count = self.count.saturating_add(other.count);
        self.since = self.since.min(other.since);
        self.until = self.until.max(other.until);
    }
}

/// Sums in several maps, so that those who count do not wait for each other.
#[derive(Debug)]
pub struct Sums {
    shards: Vec<Mutex<Shard>>,
    most: usize,
    /// How many sums one actor may have in a map.
    share: usize,
}

#[derive(Debug, Default)]
struct Shard {
    sums: HashMap<Key, Sum>,
    /// How many of them each has who has a share.
    shares: HashMap<u128, usize>,
}

/// What came of counting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counted {
    /// It stands in a sum.
    Yes,
    /// So too, but there is not much room left: write them soon.
    Soon,
    /// There was no room.
    No,
}

impl Sums {
    /// So many maps of so many sums.
    pub fn new(shards: usize, most: usize) -> Self {
        Self { shards: (0..shards.max(1)).map(|_| Mutex::default()).collect(), most, share: most }
    }

    /// One map of so many sums, and no more than a share of them for one actor.
    pub fn shared(most: usize, share: usize) -> Self {
        Self { share, ..Self::new(1, most) }
    }

    /// Counts one. `make` is called for the first of a kind alone.
    pub fn count(&self, key: Key, now: Timestamp, make: impl FnOnce() -> Record) -> Counted {
        self.count_of(None, key, now, make)
    }

    /// Counts one of somebody who has a share.
    pub fn count_of(&self, who: Option<u128>, key: Key, now: Timestamp, make: impl FnOnce() -> Record) -> Counted {
        let Some(mut shard) = self.shard(key) else { return Counted::No };
        let Shard { sums, shares } = &mut *shard;
        let used = sums.len();
        let taken = who.map_or(0, |who| shares.get(&who).copied().unwrap_or_default());
        match sums.entry(key) {
            Entry::Occupied(mut entry) => {
                let sum = entry.get_mut();
                sum.count = sum.count.saturating_add(1);
                sum.until = sum.until.max(now);
                Counted::Yes
            }
            Entry::Vacant(_) if used >= self.most || taken >= self.share => Counted::No,
            Entry::Vacant(entry) => {
                entry.insert(Sum { who, record: Box::new(make()), count: 1, since: now, until: now });
                if let Some(who) = who {
                    shares.insert(who, taken + 1);
                }
                if used * 2 >= self.most { Counted::Soon } else { Counted::Yes }
            }
        }
    }

    /// Counts one of all those kinds that have no room: of one who has used its share up (then `make` gets `true`), or of all; for each of those there is one place more.
    pub fn count_rest(&self, who: Option<u128>, now: Timestamp, make: impl FnOnce(bool) -> Record) {
        let key = |who: Option<u128>| Key { actor: who.unwrap_or_default(), object: 0, what: u32::MAX, code: u32::MAX };
        let Some(mut shard) = self.shard(key(None)) else { return };
        let who = who.filter(|who| shard.shares.get(who).is_some_and(|taken| *taken >= self.share));
        let sum = shard.sums.entry(key(who)).or_insert_with(|| Sum { who: None, record: Box::new(make(who.is_some())), count: 0, since: now, until: now });
        sum.count = sum.count.saturating_add(1);
        sum.until = sum.until.max(now);
    }

    /// How many maps there are.
    pub fn shards(&self) -> usize {
        self.shards.len()
    }

    /// Takes the sums of one map out.
    pub fn take(&self, shard: usize) -> HashMap<Key, Sum> {
        self.shards.get(shard).map(|shard| std::mem::take(&mut *lock(shard)).sums).unwrap_or_default()
    }

    /// Puts sums back that could not be written. Answers how many things had no room any more.
    pub fn put_back(&self, shard: usize, sums: HashMap<Key, Sum>) -> u64 {
        let Some(shard) = self.shards.get(shard) else { return 0 };
        let mut shard = lock(shard);
        let Shard { sums: kept, shares } = &mut *shard;
        let mut lost = 0;
        for (key, sum) in sums {
            let used = kept.len();
            match kept.entry(key) {
                Entry::Occupied(mut entry) => entry.get_mut().add(&sum),
                Entry::Vacant(_) if used >= self.most => lost += sum.count,
                Entry::Vacant(entry) => {
                    if let Some(who) = sum.who {
                        *shares.entry(who).or_default() += 1;
                    }
                    entry.insert(sum);
                }
            }
        }
        lost
    }

    fn shard(&self, key: Key) -> Option<MutexGuard<'_, Shard>> {
        // Identifiers are random, and so are hashes: any of their bits will do.
        let number = u64::try_from((key.object ^ key.actor) & u128::from(u32::MAX)).unwrap_or_default();
        let at = usize::try_from(number).unwrap_or_default() % self.shards.len();
        self.shards.get(at).map(lock)
    }
}

// A panic while the lock is held cannot leave a map half changed, so a poisoned lock is as good as any.
fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Application, State};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn key(object: u128) -> Key {
        Key { actor: 7, object, what: 10, code: 0 }
    }

    fn make() -> Record {
        Record::new(Application::Kmip, State::Success, "Get")
    }

    #[test]
    fn the_same_is_counted_together_and_the_number_of_sums_is_bounded() {
        let sums = Sums::new(1, 4);
        for second in 1..=100 {
            assert_eq!(sums.count(key(1), at(second), make), Counted::Yes);
        }
        assert_eq!(sums.count(Key { code: 5, ..key(1) }, at(1), make), Counted::Yes);
        assert_eq!(sums.count(key(2), at(1), make), Counted::Soon);
        assert_eq!(sums.count(key(3), at(1), make), Counted::Soon);
        assert_eq!(sums.count(key(4), at(1), make), Counted::No);
        assert_eq!(sums.count(key(1), at(101), make), Counted::Yes, "what is counted already still is");
        let taken = sums.take(0);
        let record = taken[&key(1)].record();
        assert_eq!((record.count, record.since, record.until), (Some(101), Some(at(1)), Some(at(101))));

        sums.count_rest(None, at(1), |_| make());
        sums.count(key(1), at(102), make);
        for object in 5..7 {
            sums.count(key(object), at(102), make);
        }
        assert_eq!(sums.put_back(0, taken), 3, "three kinds of one each had no room");
        assert_eq!(sums.take(0)[&key(1)].record().count, Some(102));
    }

    #[test]
    fn one_actor_leaves_room_for_the_others() {
        let sums = Sums::shared(100, 3);
        let rest = |name: &'static str| move |own: bool| Record { user: Some(if own { name } else { "all" }.to_owned()), ..make() };
        for object in 0..50 {
            if sums.count_of(Some(1), key(object), at(1), make) == Counted::No {
                sums.count_rest(Some(1), at(1), rest("one"));
            }
        }
        let other = Key { actor: 8, ..key(1) };
        assert_eq!(sums.count_of(Some(2), other, at(1), make), Counted::Yes);
        // Also when it could not be written in between.
        let taken = sums.take(0);
        let of = |taken: &HashMap<Key, Sum>| {
            let mut found: Vec<_> = taken.values().map(|sum| (sum.record.user.clone(), sum.count)).collect();
            found.sort();
            found
        };
        let should = vec![(None, 1), (None, 1), (None, 1), (None, 1), (Some("one".to_owned()), 47)];
        assert_eq!(of(&taken), should);
        assert_eq!(sums.put_back(0, taken), 0);
        assert_eq!(sums.count_of(Some(1), key(99), at(1), make), Counted::No);
        assert_eq!(of(&sums.take(0)), should);
        assert_ne!(sums.count_of(Some(1), key(99), at(1), make), Counted::No, "the next interval is another");
        // Who finds no room though there is something left of the share is one of all.
        let full = Sums::shared(1, 3);
        full.count_of(Some(1), key(1), at(1), make);
        assert_eq!(full.count_of(Some(2), other, at(1), make), Counted::No);
        full.count_rest(Some(2), at(1), rest("one"));
        full.count_rest(None, at(1), rest("one"));
        assert_eq!(of(&full.take(0)), [(None, 1), (Some("all".to_owned()), 2)]);
    }
}

//! When each SVM is to be looked at, and whose polls wait for room: kept from look to look, so that the end of one poll does not have the poller go through ten thousand configurations.

use super::Lane;
use std::collections::{BTreeSet, HashMap};
use std::time::Duration;
use uuid::Uuid;

/// How many polls run at a time in one [`Lane`].
pub(super) const AT_A_TIME: usize = 64;

/// Where a poll that is due stands among those of its lane: who may confirm a denial comes first, and then who has waited longest.
pub(super) type Rank = (bool, Duration);

/// The plan. Times are monotonic.
#[derive(Default)]
pub(super) struct Plan {
    /// In the order of time.
    looks: BTreeSet<(Duration, Uuid)>,
    /// The same by SVM.
    look_at: HashMap<Uuid, Duration>,
    /// Polls that are due, in the order of their ranks.
    due: HashMap<Lane, BTreeSet<(Rank, Uuid)>>,
    /// The same by SVM.
    due_in: HashMap<Uuid, (Lane, Rank)>,
    /// How many polls are under way.
    running: HashMap<Lane, usize>,
}

impl Plan {
    /// Forgets what was planned, but not what is under way.
    pub fn clear(&mut self) {
        let running = std::mem::take(&mut self.running);
        *self = Self { running, ..Self::default() };
    }

    /// Forgets what was planned for an SVM.
    pub fn forget(&mut self, svm: Uuid) {
        if let Some(at) = self.look_at.remove(&svm) {
            self.looks.remove(&(at, svm));
        }
        if let Some((lane, rank)) = self.due_in.remove(&svm)
            && let Some(due) = self.due.get_mut(&lane)
        {
            due.remove(&(rank, svm));
            if due.is_empty() {
                self.due.remove(&lane);
            }
        }
    }

    /// An SVM is to be looked at again then.
    pub fn look(&mut self, svm: Uuid, at: Duration) {
        if let Some(before) = self.look_at.insert(svm, at) {
            self.looks.remove(&(before, svm));
        }
        self.looks.insert((at, svm));
    }

    /// The poll of an SVM is due.
    pub fn poll(&mut self, svm: Uuid, lane: Lane, rank: Rank) {
        self.due.entry(lane.clone()).or_default().insert((rank, svm));
        self.due_in.insert(svm, (lane, rank));
    }

    /// When somebody is to be looked at next.
    pub fn next_look(&self) -> Option<Duration> {
        self.looks.first().map(|(at, _)| *at)
    }

    /// Who is to be looked at now.
    pub fn ripe(&self, now: Duration) -> Vec<Uuid> {
        self.looks.iter().take_while(|(at, _)| *at <= now).map(|(_, svm)| *svm).collect()
    }

    /// The polls that begin now: as many of those that are due as their lanes have room for. They count as under way until [`Plan::ended`].
    pub fn begin(&mut self) -> Vec<(Uuid, Lane)> {
        let mut begun = Vec::new();
        let (running, due_in) = (&mut self.running, &mut self.due_in);
        self.due.retain(|lane, due| {
            let count = running.entry(lane.clone()).or_default();
            while *count < AT_A_TIME
                && let Some((_, svm)) = due.pop_first()
            {
                *count += 1;
                due_in.remove(&svm);
                begun.push((svm, lane.clone()));
            }
            !due.is_empty()
        });
        begun
    }

    /// A poll has ended.
    pub fn ended(&mut self, lane: &Lane) {
        if let Some(count) = self.running.get_mut(lane) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.running.remove(lane);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn second(number: u64) -> Duration {
        Duration::from_secs(number)
    }

    fn lane(host: &str) -> Lane {
        Lane { host: host.to_owned(), port: 443, proxy: None, region: "us-east-1".to_owned(), payer: "AKIA".to_owned() }
    }

    fn svm(number: u128) -> Uuid {
        Uuid::from_u128(number)
    }

    #[test]
    fn looks_come_in_the_order_of_time_and_the_last_word_counts() {
        let mut plan = Plan::default();
        for (number, at) in [(1, 30), (2, 10), (3, 20), (1, 5)] {
            plan.look(svm(number), second(at));
        }
        assert_eq!((plan.next_look(), plan.ripe(second(4)).len()), (Some(second(5)), 0));
        assert_eq!(plan.ripe(second(10)), [svm(1), svm(2)]);
        plan.forget(svm(1));
        plan.forget(svm(9));
        assert_eq!(plan.ripe(second(100)), [svm(2), svm(3)]);
        plan.clear();
        assert_eq!(plan.next_look(), None);
    }

    #[test]
    fn a_lane_that_is_full_holds_up_nobody_else_and_denials_come_first() {
        let mut plan = Plan::default();
        for number in 0..100 {
            plan.poll(svm(number), lane("slow"), (true, second(100 - number as u64)));
        }
        plan.poll(svm(200), lane("slow"), (false, second(1_000)));
        plan.poll(svm(300), lane("other"), (true, second(1_000)));
        let begun = plan.begin();
        assert_eq!(begun.len(), AT_A_TIME + 1);
        let in_slow: Vec<Uuid> = begun.iter().filter(|(_, of)| *of == lane("slow")).map(|(svm, _)| *svm).collect();
        assert_eq!((in_slow[0], in_slow[1]), (svm(200), svm(99)), "a denial, and then who has waited longest");
        assert!(begun.contains(&(svm(300), lane("other"))));
        assert!(plan.begin().is_empty(), "there is no room");
        // What is under way goes on when all else is planned anew.
        plan.clear();
        plan.poll(svm(0), lane("slow"), (true, second(1)));
        plan.poll(svm(1), lane("slow"), (true, second(2)));
        assert!(plan.begin().is_empty());
        plan.forget(svm(0));
        plan.ended(&lane("slow"));
        assert_eq!(plan.begin(), [(svm(1), lane("slow"))]);
        assert!(plan.due.is_empty() && plan.due_in.is_empty());
        for _ in 0..AT_A_TIME {
            plan.ended(&lane("slow"));
        }
        plan.ended(&lane("other"));
        assert!(plan.running.is_empty(), "nothing is kept of lanes that nobody is in");
    }
}

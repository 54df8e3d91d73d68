//! What clients of a cluster asked and were told, and a check that it can be true: nothing that was acknowledged is lost, nothing comes back, and all say the same.
//!
//! Clients record each call with the moments at which they sent it and had its answer. A call without an answer may have happened or not; the check takes either, but not both.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What was asked.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Asked {
    /// To make something with a name that nothing else may have. The name is the caller's word for it.
    Make(String),
    /// To read it.
    Read(String),
    /// To destroy it.
    Destroy(String),
}

impl Asked {
    /// What it is about.
    pub fn name(&self) -> &str {
        let (Self::Make(name) | Self::Read(name) | Self::Destroy(name)) = self;
        name
    }
}

/// What was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// It is done; of a read and of what is made, with the bytes.
    Done(Vec<u8>),
    /// There is no such thing (any more).
    Absent,
    /// No, and nothing was changed.
    Refused,
    /// No answer came.
    Nothing,
}

/// A call.
#[derive(Debug, Clone)]
pub struct Call {
    /// The node that was asked.
    pub node: usize,
    /// What was asked.
    pub asked: Asked,
    /// When.
    pub sent: Instant,
    /// What was told.
    pub told: Told,
    /// When that came, or when it was given up.
    pub ended: Instant,
}

/// What is wrong.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Violation {
    /// It was acknowledged, and is not there at the end.
    Lost(String),
    /// It has other bytes than it was made with.
    Changed(String),
    /// It was destroyed, and was there afterwards, for longer than is allowed.
    CameBack(String),
    /// It was made, and was not there afterwards, although nobody has destroyed it.
    NotFound(String),
    /// Two were told that they have made it.
    MadeTwice(String),
    /// At the end, nodes do not say the same.
    NodesDiffer(String),
}

impl Violation {
    /// What it is about.
    pub fn name(&self) -> &str {
        let (Self::Lost(name) | Self::Changed(name) | Self::CameBack(name) | Self::NotFound(name) | Self::MadeTwice(name) | Self::NodesDiffer(name)) = self;
        name
    }
}

/// All calls of a run. Clients of all threads record here.
#[derive(Debug, Default)]
pub struct History {
    calls: Mutex<Vec<Call>>,
}

/// What each node has of each name at the end, when all is well again: the bytes, or nothing.
pub type End = Vec<BTreeMap<String, Option<Vec<u8>>>>;

/// A node, and from when to when it was cut off or hung.
pub type Disturbed = (usize, Instant, Instant);

impl History {
    /// Records a call.
    pub fn record(&self, call: Call) {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).push(call);
    }

    /// All calls so far.
    pub fn calls(&self) -> Vec<Call> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The names that were made, or may have been.
    pub fn names(&self) -> BTreeSet<String> {
        let made = self.calls().into_iter().filter(|call| call.told != Told::Refused);
        made.filter_map(|call| if let Asked::Make(name) = call.asked { Some(name) } else { None }).collect()
    }

    /// Checks what was told against itself and against the end. `stale`: how long a node may go on handing out what was destroyed at another. `disturbed`: nodes that were cut off or hung, and
    /// from when to when: what they hand out then may be older.
    pub fn check(&self, end: &End, stale: Duration, disturbed: &[Disturbed]) -> BTreeSet<Violation> {
        let mut violations = BTreeSet::new();
        let mut by_name: BTreeMap<String, Vec<Call>> = BTreeMap::new();
        for call in self.calls() {
            by_name.entry(call.asked.name().to_owned()).or_default().push(call);
        }
        for (name, calls) in &by_name {
            check_name(name, calls, end, (stale, disturbed), &mut violations);
        }
        violations
    }

    /// The longest time since a moment in which no call to a node had an answer: until the first, and between two of them.
    pub fn longest_gap(&self, node: usize, since: Instant, is_answer: impl Fn(&Call) -> bool) -> Duration {
        let calls = self.calls().into_iter().filter(|call| call.node == node && call.ended > since && is_answer(call));
        let mut moments: Vec<Instant> = std::iter::once(since).chain(calls.map(|call| call.ended)).collect();
        moments.sort_unstable();
        moments.windows(2).map(|pair| if let [one, other] = pair { other.duration_since(*one) } else { Duration::ZERO }).max().unwrap_or_default()
    }
}

fn check_name(name: &str, calls: &[Call], end: &End, (stale, disturbed): (Duration, &[Disturbed]), violations: &mut BTreeSet<Violation>) {
    let made: Vec<(&Call, &Vec<u8>)> =
        calls.iter().filter_map(|call| if let (Asked::Make(_), Told::Done(bytes)) = (&call.asked, &call.told) { Some((call, bytes)) } else { None }).collect();
    if made.len() > 1 {
        violations.insert(Violation::MadeTwice(name.to_owned()));
    }
    // The first moment at which it may have been destroyed, and the first at which it surely was.
    let destroys = || calls.iter().filter(|call| matches!(call.asked, Asked::Destroy(_)) && call.told != Told::Refused);
    let may_be_gone = destroys().map(|call| call.sent).min();
    let surely_gone = destroys().filter(|call| matches!(call.told, Told::Done(_))).map(|call| (call.ended, call.node)).min();
    for read in calls.iter().filter(|call| matches!(call.asked, Asked::Read(_))) {
        match &read.told {
            Told::Done(bytes) => {
                if made.iter().any(|(_, made)| *made != bytes) {
                    violations.insert(Violation::Changed(name.to_owned()));
                }
                let allowed = |node| if read.node == node { Duration::ZERO } else { stale };
                let may_be_old = disturbed.iter().any(|(node, from, to)| *node == read.node && read.ended >= *from && read.sent <= *to);
                if !may_be_old && surely_gone.is_some_and(|(gone, node)| read.sent > gone + allowed(node)) {
                    violations.insert(Violation::CameBack(name.to_owned()));
                }
            }
            Told::Absent => {
                let was_made = made.iter().any(|(made, _)| made.ended < read.sent);
                if was_made && may_be_gone.is_none_or(|gone| read.ended < gone) {
                    violations.insert(Violation::NotFound(name.to_owned()));
                }
            }
            Told::Refused | Told::Nothing => {}
        }
    }
    let ends: Vec<Option<&Vec<u8>>> = end.iter().map(|node| node.get(name).and_then(Option::as_ref)).collect();
    if ends.windows(2).any(|pair| pair.first() != pair.last()) {
        violations.insert(Violation::NodesDiffer(name.to_owned()));
    }
    for at_end in ends {
        match (made.first(), at_end) {
            (Some((_, made)), Some(bytes)) if *made != bytes => {
                violations.insert(Violation::Changed(name.to_owned()));
            }
            (Some(_), None) if may_be_gone.is_none() => {
                violations.insert(Violation::Lost(name.to_owned()));
            }
            (_, Some(_)) if surely_gone.is_some() => {
                violations.insert(Violation::CameBack(name.to_owned()));
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What each node has at the end.
    type Ends = &'static [Option<&'static [u8]>];

    const STALE: Duration = Duration::from_millis(100);

    struct Story {
        history: History,
        start: Instant,
    }

    impl Story {
        fn new() -> Self {
            Self { history: History::default(), start: Instant::now() }
        }

        /// A call from one moment to another, in milliseconds.
        fn call(self, node: usize, asked: Asked, told: Told, from: u64, to: u64) -> Self {
            let at = |ms| self.start + Duration::from_millis(ms);
            self.history.record(Call { node, asked, sent: at(from), told, ended: at(to) });
            self
        }

        fn check(&self, ends: &[Option<&[u8]>]) -> Vec<Violation> {
            let end = ends.iter().map(|bytes| BTreeMap::from([("k".to_owned(), bytes.map(<[u8]>::to_vec))])).collect();
            self.history.check(&end, STALE, &[(7, self.start, self.start + Duration::from_secs(1))]).into_iter().collect()
        }
    }

    fn make() -> Asked {
        Asked::Make("k".to_owned())
    }

    fn read() -> Asked {
        Asked::Read("k".to_owned())
    }

    fn destroy() -> Asked {
        Asked::Destroy("k".to_owned())
    }

    fn done(bytes: &[u8]) -> Told {
        Told::Done(bytes.to_vec())
    }

    fn made() -> Story {
        Story::new().call(0, make(), done(b"x"), 0, 10)
    }

    #[test]
    fn what_can_be_true_passes() {
        let ok: [(Story, Ends); 7] = [
            (made().call(1, read(), done(b"x"), 11, 12), &[Some(b"x"), Some(b"x")]),
            (Story::new().call(0, make(), Told::Nothing, 0, 10), &[Some(b"x"), Some(b"x")]),
            (Story::new().call(0, make(), Told::Nothing, 0, 10), &[None, None]),
            // Read while it is made, and while it is destroyed.
            (made().call(1, read(), Told::Absent, 5, 6).call(0, destroy(), done(b""), 20, 30).call(1, read(), done(b"x"), 25, 40), &[None, None]),
            // At another node, a moment later.
            (made().call(0, destroy(), done(b""), 20, 30).call(1, read(), done(b"x"), 90, 91), &[None, None]),
            // At one that is cut off.
            (made().call(0, destroy(), done(b""), 20, 30).call(7, read(), done(b"x"), 400, 401), &[None, None]),
            (made().call(0, destroy(), Told::Nothing, 20, 30).call(1, read(), Told::Absent, 40, 41), &[None, None]),
        ];
        for (story, ends) in ok {
            assert_eq!(story.check(ends), []);
        }
    }

    /// A bug of each kind, planted.
    #[test]
    fn what_cannot_be_true_is_found() {
        let name = || "k".to_owned();
        let bad: [(Story, Ends, Violation); 8] = [
            (made(), &[None, None], Violation::Lost(name())),
            (made(), &[Some(b"y"), Some(b"y")], Violation::Changed(name())),
            (made().call(1, read(), done(b"y"), 20, 21), &[Some(b"x"), Some(b"x")], Violation::Changed(name())),
            (made().call(1, read(), Told::Absent, 11, 12), &[Some(b"x"), Some(b"x")], Violation::NotFound(name())),
            (made().call(0, destroy(), done(b""), 20, 30).call(0, read(), done(b"x"), 31, 32), &[None, None], Violation::CameBack(name())),
            (made().call(0, destroy(), done(b""), 20, 30).call(1, read(), done(b"x"), 131, 132), &[None, None], Violation::CameBack(name())),
            (made().call(1, make(), done(b"x"), 5, 20), &[Some(b"x"), Some(b"x")], Violation::MadeTwice(name())),
            (Story::new().call(0, make(), Told::Nothing, 0, 10), &[Some(b"x"), None], Violation::NodesDiffer(name())),
        ];
        for (story, ends, violation) in bad {
            assert!(story.check(ends).contains(&violation), "{violation:?}: {:?}", story.check(ends));
        }
        let destroyed = made().call(0, destroy(), done(b""), 20, 30);
        assert_eq!(destroyed.check(&[Some(b"x"), Some(b"x")]), [Violation::CameBack(name())]);
    }

    #[test]
    fn gaps_are_until_the_next_answer() {
        let story = made().call(0, read(), Told::Nothing, 11, 500).call(0, read(), done(b"x"), 500, 510).call(0, read(), done(b"x"), 510, 520);
        let answered = |call: &Call| call.told != Told::Nothing;
        assert_eq!(story.history.longest_gap(0, story.start, answered), Duration::from_millis(500));
        let late = story.start + Duration::from_millis(200);
        assert_eq!(story.history.longest_gap(0, late, answered), Duration::from_millis(310), "it counts from the moment on");
    }
}

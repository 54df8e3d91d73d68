//! The state machine against the page of the promise, over random traces. The reference model here is written the other way round: it keeps the whole history and derives the state from it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use keystead_manager::revocation::{Action, Event, Machine, Outcome, Settings, State, bound};
use proptest::prelude::*;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

fn settings() -> impl Strategy<Value = Settings> {
    (1..1_440u64, 1..3_600u64, 0..7_200u64, proptest::option::of(60..100_000u64)).prop_map(|(period, interval, grace, unverified)| Settings {
        polling_period: SECOND * 60 * u32::try_from(period).unwrap(),
        min_poll_interval: SECOND * u32::try_from(interval).unwrap(),
        access_error_grace: SECOND * u32::try_from(grace).unwrap(),
        max_unverified: unverified.map(Duration::from_secs),
    })
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![1 => Just(Outcome::Ok), 3 => Just(Outcome::Denied), 1 => Just(Outcome::Unreachable), 1 => Just(Outcome::Misconfigured), 1 => Just(Outcome::Integrity)]
}

/// Steps of a trace: how much time passes, and then a poll with this outcome, or only a tick.
fn trace() -> impl Strategy<Value = Vec<(u64, Option<Outcome>, f64)>> {
    proptest::collection::vec((0..4_000u64, proptest::option::weighted(0.8, outcome()), 0.0..1.0f64), 1..60)
}

/// From question to answer, as a part of what is allowed: often none, often all of it.
fn latencies() -> impl Strategy<Value = Vec<f64>> {
    proptest::collection::vec(prop_oneof![Just(0.0), Just(1.0), 0.0..=1.0f64], 200)
}

/// What the page says about a history of polls, read from the history itself.
fn model(settings: &Settings, polls: &[(Duration, Outcome)], now: Duration) -> State {
    let Some(last_ok) = polls.iter().rposition(|(_, outcome)| *outcome == Outcome::Ok) else { return State::Unavailable };
    let since = &polls[last_ok + 1..];
    let mut blocked_at: Option<Duration> = settings.max_unverified.map(|limit| polls[last_ok].0 + limit);
    let first = since.iter().find(|(_, outcome)| *outcome == Outcome::Denied).map(|(at, _)| *at);
    let confirms = |first: Duration, at: Duration, outcome: Outcome| outcome == Outcome::Denied && at >= first + settings.min_poll_interval;
    let second = first.and_then(|first| since.iter().find(|(at, outcome)| confirms(first, *at, *outcome)).map(|(at, _)| *at));
    if let (Some(first), Some(second)) = (first, second) {
        let by_grace = (first + settings.access_error_grace).max(second);
        blocked_at = Some(blocked_at.map_or(by_grace, |other| other.min(by_grace)));
    }
    match (blocked_at, second, since.is_empty()) {
        (Some(at), _, _) if now >= at => State::Blocked,
        (_, Some(_), _) => State::Revoking,
        (_, None, true) => State::Available,
        (_, None, false) => State::Degraded,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn the_machine_agrees_with_the_history(settings in settings(), trace in trace()) {
        let mut machine = Machine::new(Duration::ZERO, settings);
        let mut polls = Vec::new();
        let mut now = Duration::ZERO;
        for (pause, outcome, chance) in trace {
            now += Duration::from_secs(pause);
            let before = machine.state();
            let actions = match outcome {
                None => machine.on_tick(now),
                Some(outcome) => {
                    polls.push((now, outcome));
                    machine.on_poll(now, now, outcome, chance)
                }
            };
            // What was blocked in between shows at the next look; a block that an ok of this very poll has lifted is the exception that proves it.
            let expected = model(&settings, &polls, now);
            prop_assert_eq!(machine.state(), expected, "at {:?} after {:?}", now, polls);
            let wiped = actions.iter().filter(|action| **action == Action::Zeroize).count();
            let blocks = actions.iter().filter(|action| matches!(action, Action::Emit(Event::Blocked(_)))).count();
            prop_assert_eq!(wiped, blocks, "each block wipes, and nothing else does");
            prop_assert!(wiped <= 1);
            if before != State::Blocked && machine.state() == State::Blocked {
                prop_assert_eq!(wiped, 1);
            }
            if before == State::Blocked || before == State::Unavailable {
                prop_assert_eq!(wiped, 0, "there is nothing to wipe");
            }
            prop_assert_eq!(machine.state().serves(), matches!(machine.state(), State::Available | State::Degraded | State::Revoking));
            if let Some(outcome) = outcome {
                prop_assert!(machine.next_poll_at() > now || settings.min_poll_interval.is_zero());
                let limit = settings.polling_period.mul_f64(1.1).max(settings.min_poll_interval);
                prop_assert!(machine.next_poll_at() <= now + limit + SECOND, "{:?}", outcome);
                prop_assert_eq!(machine.state() == State::Available, outcome == Outcome::Ok);
            }
            prop_assert!(machine.next_wakeup() <= machine.next_poll_at());
            prop_assert!(machine.deadline().is_none_or(|(at, _)| at > now), "a deadline that has passed has been acted on");
        }
    }

    /// AWS denies whatever it decides from a moment on that lies anywhere in a good poll: the worst for the bound is right after its decision. Each answer takes up to `timeout`. A question that
    /// is not answered within the interval is asked again beside it. Once the denial is confirmed, somebody may cut the network; and all the while somebody may set laxer settings.
    #[test]
    fn the_bound_holds(settings in settings(), lax in settings(), timeout in 1..60u64, good in 0..4usize, at in 0.0..1.0f64, latencies in latencies(), cut in any::<bool>(), chances in proptest::collection::vec(0.0..=1.0f64, 200)) {
        let settings = Settings { max_unverified: None, ..settings };
        let timeout = Duration::from_secs(timeout);
        let mut machine = Machine::new(Duration::ZERO, settings);
        let (mut revoked_at, mut end) = (None, Duration::MAX);
        let mut latencies = latencies.iter().map(|part| timeout.mul_f64(*part));
        let take = |machine: &mut Machine, asked: Duration, answered: Duration, outcome: Outcome, chance: f64| {
            // The node's timer comes between.
            if let Some((at, _)) = machine.deadline().filter(|(at, _)| *at <= answered) {
                machine.on_tick(at);
            }
            if machine.state() == State::Blocked {
                return;
            }
            machine.on_poll(asked, answered, outcome, chance);
        };
        for (n, chance) in chances.iter().enumerate() {
            let Some(latency) = latencies.next() else { break };
            let asked = machine.next_poll_at();
            if revoked_at.is_some() && (machine.state() == State::Blocked || asked > end) {
                break;
            }
            let outcome = |machine: &Machine| match (n <= good, machine.state()) {
                (true, _) => Outcome::Ok,
                (false, State::Revoking) if cut => Outcome::Unreachable,
                (false, _) => Outcome::Denied,
            };
            let first = outcome(&machine);
            take(&mut machine, asked, asked + latency, first, *chance);
            if latency > settings.min_poll_interval && first != Outcome::Ok {
                let (asked, latency) = (asked + settings.min_poll_interval, latencies.next().unwrap_or_default());
                let second = outcome(&machine);
                take(&mut machine, asked, (asked + latency).max(asked), second, *chance);
            }
            if n == good {
                // AWS has decided on the last good poll at some time between the question and the answer.
                let revoked = asked + latency.mul_f64(at);
                revoked_at = Some(revoked);
                end = revoked + bound(&settings, timeout, true).unwrap();
            } else if n > good {
                machine.on_settings(asked + latency, Settings { max_unverified: None, ..lax });
            }
        }
        if let Some((at, _)) = machine.deadline().filter(|(at, _)| *at <= end) {
            machine.on_tick(at);
        }
        prop_assert!(revoked_at.is_some());
        prop_assert_eq!(machine.state(), State::Blocked, "not blocked {:?} after the revocation; settings {:?}", bound(&settings, timeout, true).unwrap(), settings);
    }

    /// Whatever comes after a block: an ok alone ends it.
    #[test]
    fn never_unblocked_but_by_ok(settings in settings(), trace in trace()) {
        let mut machine = Machine::new(Duration::ZERO, settings);
        machine.on_poll(Duration::ZERO, Duration::ZERO, Outcome::Ok, 0.5);
        let mut now = Duration::ZERO;
        for (pause, outcome, chance) in trace {
            now += Duration::from_secs(pause);
            let was = machine.state();
            match outcome {
                None => drop(machine.on_tick(now)),
                Some(outcome) => drop(machine.on_poll(now, now, outcome, chance)),
            }
            if was == State::Blocked && machine.state() != State::Blocked {
                prop_assert_eq!((machine.state(), outcome), (State::Available, Some(Outcome::Ok)));
            }
        }
    }

    /// Without confirmed denials and without `max_unverified`, nothing blocks, however long it takes.
    #[test]
    fn outages_and_forgeries_never_block(settings in settings(), outcomes in proptest::collection::vec(prop_oneof![Just(Outcome::Unreachable), Just(Outcome::Misconfigured), Just(Outcome::Integrity)], 1..200)) {
        let settings = Settings { max_unverified: None, ..settings };
        let mut machine = Machine::new(Duration::ZERO, settings);
        machine.on_poll(Duration::ZERO, Duration::ZERO, Outcome::Ok, 0.5);
        for outcome in outcomes {
            let now = machine.next_wakeup();
            machine.on_tick(now);
            machine.on_poll(now, now, outcome, 0.9);
            prop_assert_eq!(machine.state(), State::Degraded);
            prop_assert_eq!(machine.deadline(), None);
        }
    }

    #[test]
    fn a_hint_brings_the_poll_forward(settings in settings(), at in 0..100_000u64) {
        let mut machine = Machine::new(Duration::ZERO, settings);
        machine.on_poll(Duration::ZERO, Duration::ZERO, Outcome::Ok, 0.5);
        let now = Duration::from_secs(at).min(machine.next_poll_at());
        machine.on_hint(now);
        prop_assert_eq!(machine.next_poll_at(), now);
    }
}

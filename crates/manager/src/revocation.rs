//! The state machine of a tenant's promise (`contract/revocation.md`): one for each SVM and node.
//!
//! Pure: poll results, time and chance come in, actions go out. It needs neither the store nor other nodes, so nothing can keep it from blocking.

use std::time::Duration;

/// The longest pause between two polls after a failure that is no denial.
const MAX_BACKOFF: Duration = Duration::from_secs(15 * 60);
/// The pause between two polls once a denial is confirmed.
const CONFIRMED_PERIOD: Duration = Duration::from_secs(60);
/// How long a poll has before a `max_unverified` that was just set may take keys away.
const NOTICE: Duration = Duration::from_secs(60);
/// The least pause between an answer and the next question.
const BREATH: Duration = Duration::from_secs(1);
/// How far a poll's time is spread, as a part of the period, to either side.
const JITTER: f64 = 0.1;

/// What a poll came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The right KEK came back.
    Ok,
    /// AWS denies, and that can be believed.
    Denied,
    /// No answer, a transient error, an answer that is not AWS's, or one that cannot be believed.
    Unreachable,
    /// A signature, validation or key-usage error: someone changed something.
    Misconfigured,
    /// The ciphertext does not fit, or another KEK came back.
    Integrity,
}

/// Where an SVM stands on this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// No KEK in memory since the start.
    Unavailable,
    /// The last poll was ok.
    Available,
    /// The last poll was not ok, and no denial is confirmed.
    Degraded,
    /// A denial is confirmed; the grace runs.
    Revoking,
    /// The KEK is wiped on this node.
    Blocked,
}

impl State {
    /// All states.
    pub const ALL: [Self; 5] = [Self::Unavailable, Self::Available, Self::Degraded, Self::Revoking, Self::Blocked];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unavailable => "unavailable",
            Self::Available => "available",
            Self::Degraded => "degraded",
            Self::Revoking => "revoking",
            Self::Blocked => "blocked",
        }
    }

    /// Whether keys are served.
    pub fn serves(self) -> bool {
        matches!(self, Self::Available | Self::Degraded | Self::Revoking)
    }
}

/// The settings of an SVM's machine. They may change at any time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Between two good polls.
    pub polling_period: Duration,
    /// The re-poll after a failure, and the least time between the two denials of a confirmation.
    pub min_poll_interval: Duration,
    /// From the first denial of a confirmed pair to the block.
    pub access_error_grace: Duration,
    /// How long keys are served without a good poll, whatever the reason.
    pub max_unverified: Option<Duration>,
}

/// What the caller must do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Wipe the KEK, now.
    Zeroize,
    /// Tell the operator.
    Emit(Event),
}

/// What operators are told. What becomes of it: `crate::events`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Event {
    /// Keys are served, after they were not, or after polls had failed.
    Available,
    /// A poll has failed, keys are still served.
    Degraded(Outcome),
    /// A poll has failed, and there was no KEK in memory since the start: keys are not served yet.
    NotLoaded(Outcome),
    /// A denial is confirmed; the grace runs.
    Revoking,
    /// Keys are refused from now on.
    Blocked(Why),
}

/// Why an SVM is, or will be, blocked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Why {
    /// AWS denies, and the grace is over.
    Denied,
    /// No good poll for `max_unverified`.
    Unverified,
}

/// The machine. Times are monotonic, counted from any fixed moment of the process.
#[derive(Debug, Clone, PartialEq)]
pub struct Machine {
    /// The settings in force.
    settings: Settings,
    /// What was set last. While something is wrong, what is laxer in it waits for the next ok.
    wanted: Settings,
    state: State,
    next_poll: Duration,
    /// The first denial since the last ok.
    denied: Option<Denial>,
    /// When the second denial came that confirmed it.
    confirmed: bool,
    /// When the last denial since the last ok was asked for.
    denied_again: Option<Duration>,
    /// When keys were last refused.
    blocked_at: Duration,
    /// When the last ok was asked for; counts for `max_unverified`.
    verified_at: Option<Duration>,
    /// A `max_unverified` that was set a moment ago takes no keys away before a poll has had its time.
    unverified_not_before: Duration,
    /// The pause before the next poll after a failure that is no denial.
    backoff: Duration,
    last: Option<Outcome>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Denial {
    asked: Duration,
    answered: Duration,
}

impl Machine {
    /// A machine for an SVM whose KEK is not in memory. Its first poll is due at once.
    pub fn new(now: Duration, settings: Settings) -> Self {
        let mut machine = Self {
            settings,
            wanted: settings,
            state: State::Unavailable,
            next_poll: now,
            denied: None,
            confirmed: false,
            denied_again: None,
            blocked_at: Duration::ZERO,
            verified_at: None,
            unverified_not_before: Duration::ZERO,
            backoff: Duration::ZERO,
            last: None,
        };
        machine.backoff = machine.first_backoff();
        machine
    }

    /// Takes the result of a poll that was asked at `asked` and answered `now`. `chance` is from 0 (included) to 1 (excluded).
    ///
    /// Intervals are counted from question to question: what lies between a question and its answer is AWS's and the network's time, and would otherwise add to the bound again and again.
    pub fn on_poll(&mut self, asked: Duration, now: Duration, outcome: Outcome, chance: f64) -> Vec<Action> {
        let mut actions = self.on_tick(now);
        // A job may hold its proof for long before it can commit. What AWS has denied since counts more.
        if outcome == Outcome::Ok && self.denied_again.is_some_and(|denied| asked < denied) {
            return actions;
        }
        let before = self.state;
        let news = self.last != Some(outcome);
        self.last = Some(outcome);
        match outcome {
            Outcome::Ok => {
                self.state = State::Available;
                self.denied = None;
                self.denied_again = None;
                self.confirmed = false;
                self.verified_at = Some(asked.max(self.verified_at.unwrap_or_default()));
                self.unverified_not_before = Duration::ZERO;
                self.settings = self.wanted;
                if before != State::Available {
                    actions.push(Action::Emit(Event::Available));
                }
                actions.extend(self.on_tick(now));
            }
            Outcome::Denied => {
                // Only a second denial that was asked for late enough confirms: right after a change, IAM may still give the old answer here and the new one there.
                self.denied_again = Some(asked.max(self.denied_again.unwrap_or_default()));
                match self.denied {
                    None => self.denied = Some(Denial { asked, answered: now }),
                    Some(first) if asked.saturating_sub(first.asked) >= self.settings.min_poll_interval => self.confirmed = true,
                    Some(_) => {}
                }
                match before {
                    State::Available | State::Degraded if self.confirmed => {
                        self.state = State::Revoking;
                        actions.push(Action::Emit(Event::Revoking));
                        actions.extend(self.on_tick(now));
                    }
                    State::Available | State::Degraded => self.degrade(outcome, news, &mut actions),
                    State::Unavailable => not_loaded(outcome, news, &mut actions),
                    State::Revoking | State::Blocked => {}
                }
            }
            Outcome::Unreachable | Outcome::Misconfigured | Outcome::Integrity => match before {
                State::Available | State::Degraded => self.degrade(outcome, news, &mut actions),
                State::Unavailable => not_loaded(outcome, news, &mut actions),
                // The grace is neither stopped nor reset: cutting the network must not save a revoked key.
                State::Revoking | State::Blocked => {}
            },
        }
        self.plan(asked, now, outcome, chance);
        actions
    }

    /// Lets time pass. To be called at [`Machine::next_wakeup`], also while a poll is under way: a hanging poll must not put off the block.
    pub fn on_tick(&mut self, now: Duration) -> Vec<Action> {
        match self.deadline() {
            Some((at, why)) if now >= at => {
                self.state = State::Blocked;
                self.blocked_at = now;
                vec![Action::Zeroize, Action::Emit(Event::Blocked(why))]
            }
            _ => Vec::new(),
        }
    }

    /// Another node has blocked this SVM: poll now. A hint, not an order, and nothing where this node knows of a denial already: that is confirmed at its own time, and a question before would put it off.
    /// Answers whether there is something to do.
    pub fn on_block_elsewhere(&mut self, now: Duration) -> bool {
        let is_news = matches!(self.state, State::Available | State::Degraded) && self.denied.is_none();
        if is_news {
            self.on_hint(now);
        }
        is_news
    }

    /// There is a reason to poll at this moment, unless that was to be before.
    pub fn on_hint(&mut self, now: Duration) {
        self.next_poll = self.next_poll.min(now);
    }

    /// Takes new settings. What is stricter in them acts at once. While something is wrong, what is laxer waits for the next ok: nobody lengthens a grace that runs, or takes a limit away that is about to end.
    pub fn on_settings(&mut self, now: Duration, wanted: Settings) -> Vec<Action> {
        let before = self.settings;
        self.wanted = wanted;
        self.settings = if matches!(self.state, State::Degraded | State::Revoking) { strictest(before, wanted) } else { wanted };
        let settings = self.settings;
        self.backoff = self.backoff.clamp(self.first_backoff(), self.max_backoff());
        let period =
            if self.denied.is_some() { settings.polling_period.min(CONFIRMED_PERIOD.max(settings.min_poll_interval)) } else { settings.polling_period };
        self.next_poll = self.next_poll.min(now + period.mul_f64(1.0 + JITTER));
        let shortened = settings.max_unverified.is_some_and(|limit| before.max_unverified.is_none_or(|before| limit < before));
        if shortened && self.verified_at.zip(settings.max_unverified).is_some_and(|(ok, limit)| ok + limit < now + NOTICE) {
            self.unverified_not_before = now + NOTICE;
            self.on_hint(now);
        }
        self.on_tick(now)
    }

    /// Whether AWS has denied since `asked`, or keys are refused since: then a proof of that time proves nothing any more.
    pub fn outdates(&self, asked: Duration) -> bool {
        (self.state == State::Blocked && asked < self.blocked_at) || self.denied_again.is_some_and(|denied| asked < denied)
    }

    /// Where the SVM stands.
    pub fn state(&self) -> State {
        self.state
    }

    /// What the last poll came to.
    pub fn last(&self) -> Option<Outcome> {
        self.last
    }

    /// When the last poll that was ok was asked.
    pub fn verified_at(&self) -> Option<Duration> {
        self.verified_at
    }

    /// When the next poll is due.
    pub fn next_poll_at(&self) -> Duration {
        self.next_poll
    }

    /// When keys will be refused if nothing changes, and why.
    pub fn deadline(&self) -> Option<(Duration, Why)> {
        if !self.state.serves() {
            return None;
        }
        let denied = self.denied.filter(|_| self.confirmed).map(|first| (first.answered + self.settings.access_error_grace, Why::Denied));
        let unverified = self.verified_at.zip(self.settings.max_unverified).map(|(ok, limit)| ((ok + limit).max(self.unverified_not_before), Why::Unverified));
        [denied, unverified].into_iter().flatten().min_by_key(|(at, _)| *at)
    }

    /// When the caller must call next: for a poll or for a tick.
    pub fn next_wakeup(&self) -> Duration {
        self.deadline().map_or(self.next_poll, |(at, _)| at.min(self.next_poll))
    }

    fn degrade(&mut self, outcome: Outcome, news: bool, actions: &mut Vec<Action>) {
        self.state = State::Degraded;
        if news {
            actions.push(Action::Emit(Event::Degraded(outcome)));
        }
    }

    fn plan(&mut self, asked: Duration, now: Duration, outcome: Outcome, chance: f64) {
        let settings = self.settings;
        let spread = |period: Duration| period.mul_f64(1.0 - JITTER + 2.0 * JITTER * chance.clamp(0.0, 1.0));
        let confirmed = settings.polling_period.min(CONFIRMED_PERIOD);
        let pause = match outcome {
            Outcome::Ok => spread(settings.polling_period),
            Outcome::Denied if self.confirmed => confirmed,
            // Never before the interval is over, else the second denial would not confirm.
            Outcome::Denied => self.denied.map_or(settings.min_poll_interval, |first| (first.asked + settings.min_poll_interval).saturating_sub(asked)),
            // Once denied, the network of whoever may be cutting it is not given time.
            _ if self.confirmed => confirmed,
            _ if self.denied.is_some() => settings.min_poll_interval.min(settings.polling_period),
            _ => {
                let pause = spread(self.backoff);
                self.backoff = (self.backoff * 2).min(self.max_backoff());
                pause
            }
        };
        if matches!(outcome, Outcome::Ok | Outcome::Denied) {
            self.backoff = self.first_backoff();
        }
        // An answer that took longer than the pause is not followed by the next question without any; but for the one that may confirm, since the bound counts on it.
        let breath = if outcome == Outcome::Denied { Duration::from_millis(1) } else { pause.min(BREATH) };
        self.next_poll = (asked + pause).max(now + breath);
    }

    fn first_backoff(&self) -> Duration {
        self.settings.min_poll_interval.min(self.max_backoff())
    }

    fn max_backoff(&self) -> Duration {
        MAX_BACKOFF.min(self.settings.polling_period)
    }
}

fn not_loaded(outcome: Outcome, news: bool, actions: &mut Vec<Action>) {
    if news {
        actions.push(Action::Emit(Event::NotLoaded(outcome)));
    }
}

fn strictest(one: Settings, other: Settings) -> Settings {
    Settings {
        polling_period: one.polling_period.min(other.polling_period),
        min_poll_interval: one.min_poll_interval.min(other.min_poll_interval),
        access_error_grace: one.access_error_grace.min(other.access_error_grace),
        max_unverified: [one.max_unverified, other.max_unverified].into_iter().flatten().min(),
    }
}

/// The promise: from "the key is unusable in AWS" to "this node hands out no key". Where no denial counts, since who sits on the path could forge one (`proven`: the certificate is checked in full), `max_unverified` alone
/// bounds it, from the last good poll; without that, there is no bound.
pub fn bound(settings: &Settings, timeout: Duration, proven: bool) -> Option<Duration> {
    if !proven {
        return settings.max_unverified;
    }
    Some(settings.polling_period.mul_f64(1.0 + JITTER) + settings.min_poll_interval + settings.access_error_grace + timeout)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const MINUTE: Duration = Duration::from_secs(60);
    /// The middle of the spread: no jitter.
    const MIDDLE: f64 = 0.5;

    fn settings() -> Settings {
        Settings { polling_period: MINUTE * 60, min_poll_interval: MINUTE, access_error_grace: MINUTE * 60, max_unverified: None }
    }

    /// A machine that was found ok at the second 0.
    fn available(settings: Settings) -> Machine {
        let mut machine = Machine::new(Duration::ZERO, settings);
        machine.on_poll(Duration::ZERO, Duration::ZERO, Outcome::Ok, MIDDLE);
        assert_eq!(machine.state(), State::Available);
        machine
    }

    #[test]
    fn a_start_is_unavailable_and_polls_at_once() {
        let machine = Machine::new(SECOND * 5, settings());
        assert_eq!((machine.state(), machine.next_poll_at()), (State::Unavailable, SECOND * 5));
        assert!(!machine.state().serves());
    }

    #[test]
    fn a_start_that_fails_is_told_once_for_each_outcome() {
        let mut machine = Machine::new(Duration::ZERO, settings());
        for outcome in [Outcome::Unreachable, Outcome::Denied, Outcome::Integrity] {
            assert_eq!(machine.on_poll(MINUTE, MINUTE, outcome, MIDDLE), [Action::Emit(Event::NotLoaded(outcome))]);
            assert_eq!(machine.on_poll(MINUTE, MINUTE, outcome, MIDDLE), []);
        }
        assert_eq!(machine.state(), State::Unavailable);
    }

    #[test]
    fn ok_leads_from_any_state_to_available() {
        let mut machine = available(settings());
        let path = [Outcome::Denied, Outcome::Denied];
        for (n, outcome) in path.into_iter().enumerate() {
            machine.on_poll(MINUTE * (n as u32 + 1), MINUTE * (n as u32 + 1), outcome, MIDDLE);
        }
        assert_eq!(machine.state(), State::Revoking);
        assert_eq!(machine.on_poll(MINUTE * 10, MINUTE * 10, Outcome::Ok, MIDDLE), [Action::Emit(Event::Available)]);
        machine.on_poll(MINUTE * 11, MINUTE * 11, Outcome::Denied, MIDDLE);
        machine.on_poll(MINUTE * 12, MINUTE * 12, Outcome::Denied, MIDDLE);
        machine.on_tick(MINUTE * 100);
        assert_eq!(machine.state(), State::Blocked);
        machine.on_poll(MINUTE * 101, MINUTE * 101, Outcome::Ok, MIDDLE);
        assert_eq!(machine.state(), State::Available);
        assert_eq!(machine.deadline(), None, "the old denial is forgotten");
    }

    #[test]
    fn the_first_denial_degrades_and_is_polled_again_after_the_interval() {
        let mut machine = available(settings());
        machine.on_poll(MINUTE * 60, MINUTE * 60, Outcome::Denied, MIDDLE);
        assert_eq!((machine.state(), machine.next_poll_at()), (State::Degraded, MINUTE * 61));
        assert_eq!(machine.deadline(), None);
    }

    #[test]
    fn a_second_denial_confirms_only_when_it_comes_late_enough() {
        let mut machine = available(settings());
        machine.on_poll(MINUTE * 60, MINUTE * 60, Outcome::Denied, MIDDLE);
        machine.on_poll(MINUTE * 61 - SECOND, MINUTE * 61 - SECOND, Outcome::Denied, MIDDLE);
        assert_eq!((machine.state(), machine.next_poll_at()), (State::Degraded, MINUTE * 61));
        machine.on_poll(MINUTE * 61, MINUTE * 61, Outcome::Denied, MIDDLE);
        assert_eq!(machine.state(), State::Revoking);
        assert_eq!(machine.deadline(), Some((MINUTE * 120, Why::Denied)), "the grace counts from the first denial");
    }

    #[test]
    fn a_grace_of_zero_blocks_at_the_confirmation() {
        let mut machine = available(Settings { access_error_grace: Duration::ZERO, ..settings() });
        machine.on_poll(MINUTE, MINUTE, Outcome::Denied, MIDDLE);
        assert_eq!(machine.state(), State::Degraded);
        let actions = machine.on_poll(MINUTE * 2, MINUTE * 2, Outcome::Denied, MIDDLE);
        assert_eq!(machine.state(), State::Blocked);
        assert!(actions.contains(&Action::Zeroize));
    }

    #[test]
    fn the_grace_ends_in_the_block_also_while_a_poll_hangs() {
        let mut machine = available(settings());
        machine.on_poll(MINUTE, MINUTE, Outcome::Denied, MIDDLE);
        machine.on_poll(MINUTE * 2, MINUTE * 2, Outcome::Denied, MIDDLE);
        assert_eq!(machine.on_tick(MINUTE * 61 - SECOND), []);
        assert_eq!(machine.on_tick(MINUTE * 61), [Action::Zeroize, Action::Emit(Event::Blocked(Why::Denied))]);
        assert_eq!(machine.on_tick(MINUTE * 62), [], "wiped once");
    }

    #[test]
    fn cutting_the_network_does_not_save_a_revoked_key() {
        let mut machine = available(settings());
        machine.on_poll(MINUTE, MINUTE, Outcome::Denied, MIDDLE);
        machine.on_poll(MINUTE * 2, MINUTE * 2, Outcome::Denied, MIDDLE);
        for n in 3..61 {
            for outcome in [Outcome::Unreachable, Outcome::Misconfigured, Outcome::Integrity] {
                machine.on_poll(MINUTE * n, MINUTE * n, outcome, MIDDLE);
            }
            assert_eq!(machine.state(), State::Revoking);
        }
        machine.on_tick(MINUTE * 61);
        assert_eq!(machine.state(), State::Blocked);
    }

    #[test]
    fn an_outage_degrades_and_never_blocks() {
        for outcome in [Outcome::Unreachable, Outcome::Misconfigured, Outcome::Integrity] {
            let mut machine = available(settings());
            let actions = machine.on_poll(MINUTE, MINUTE, outcome, MIDDLE);
            assert_eq!(actions, [Action::Emit(Event::Degraded(outcome))]);
            for n in 2..10_000 {
                machine.on_poll(MINUTE * n, MINUTE * n, outcome, MIDDLE);
            }
            assert_eq!((machine.state(), machine.deadline()), (State::Degraded, None));
        }
    }

    #[test]
    fn an_outage_between_two_denials_does_not_take_the_first_back() {
        let mut machine = available(settings());
        machine.on_poll(MINUTE, MINUTE, Outcome::Denied, MIDDLE);
        machine.on_poll(MINUTE * 2, MINUTE * 2, Outcome::Unreachable, MIDDLE);
        machine.on_poll(MINUTE * 3, MINUTE * 3, Outcome::Denied, MIDDLE);
        assert_eq!((machine.state(), machine.deadline()), (State::Revoking, Some((MINUTE * 61, Why::Denied))));
    }

    #[test]
    fn max_unverified_blocks_whatever_the_reason() {
        let mut machine = available(Settings { max_unverified: Some(MINUTE * 90), ..settings() });
        machine.on_poll(MINUTE * 60, MINUTE * 60, Outcome::Unreachable, MIDDLE);
        assert_eq!(machine.deadline(), Some((MINUTE * 90, Why::Unverified)));
        assert_eq!(machine.on_tick(MINUTE * 90), [Action::Zeroize, Action::Emit(Event::Blocked(Why::Unverified))]);
    }

    #[test]
    fn normal_polls_are_spread_by_a_tenth() {
        for (chance, minutes) in [(0.0, 54.0), (0.5, 60.0), (1.0, 66.0)] {
            let mut machine = Machine::new(Duration::ZERO, settings());
            machine.on_poll(Duration::ZERO, Duration::ZERO, Outcome::Ok, chance);
            assert!((machine.next_poll_at().as_secs_f64() / 60.0 - minutes).abs() < 0.01);
        }
    }

    #[test]
    fn after_a_confirmation_it_polls_each_minute_or_period() {
        for (period, expected) in [(MINUTE * 60, MINUTE), (MINUTE, MINUTE)] {
            let mut machine = available(Settings { polling_period: period, min_poll_interval: SECOND * 5, ..settings() });
            machine.on_poll(MINUTE, MINUTE, Outcome::Denied, MIDDLE);
            machine.on_poll(MINUTE * 2, MINUTE * 2, Outcome::Denied, MIDDLE);
            assert_eq!(machine.next_poll_at(), MINUTE * 2 + expected);
        }
    }

    #[test]
    fn after_other_failures_it_backs_off_to_a_quarter_of_an_hour() {
        let mut machine = available(settings());
        let mut now = MINUTE;
        let mut pauses = Vec::new();
        for _ in 0..7 {
            machine.on_poll(now, now, Outcome::Unreachable, MIDDLE);
            pauses.push((machine.next_poll_at() - now).as_secs() / 60);
            now = machine.next_poll_at();
        }
        assert_eq!(pauses, [1, 2, 4, 8, 15, 15, 15]);
    }

    #[test]
    fn a_hint_polls_at_once() {
        let mut machine = available(settings());
        machine.on_hint(MINUTE);
        assert_eq!(machine.next_poll_at(), MINUTE);
    }

    #[test]
    fn a_block_elsewhere_is_looked_into_unless_a_denial_is_known() {
        let mut machine = available(settings());
        assert!(machine.on_block_elsewhere(MINUTE));
        assert_eq!((machine.next_poll_at(), machine.state()), (MINUTE, State::Available));
        machine.on_poll(MINUTE, MINUTE, Outcome::Denied, MIDDLE);
        let confirmed_at = machine.next_poll_at();
        machine.on_poll(MINUTE, MINUTE, Outcome::Unreachable, MIDDLE);
        let next = machine.next_poll_at();
        assert!(!machine.on_block_elsewhere(MINUTE) && machine.next_poll_at() == next);
        machine.on_poll(confirmed_at, confirmed_at, Outcome::Denied, MIDDLE);
        assert_eq!(machine.state(), State::Revoking);
        assert!(!machine.on_block_elsewhere(confirmed_at));
    }

    #[test]
    fn shorter_settings_act_at_once() {
        let mut machine = available(settings());
        machine.on_settings(MINUTE, Settings { polling_period: MINUTE, ..settings() });
        assert!(machine.next_poll_at() <= MINUTE + MINUTE.mul_f64(1.1));
        machine.on_poll(MINUTE * 2, MINUTE * 2, Outcome::Denied, MIDDLE);
        machine.on_poll(MINUTE * 3, MINUTE * 3, Outcome::Denied, MIDDLE);
        let actions = machine.on_settings(MINUTE * 4, Settings { access_error_grace: MINUTE, ..settings() });
        assert!(actions.contains(&Action::Zeroize));
    }

    #[test]
    fn laxer_settings_wait_for_the_next_ok() {
        let strict = Settings { access_error_grace: MINUTE * 10, max_unverified: Some(MINUTE * 120), ..settings() };
        let lax = Settings { access_error_grace: MINUTE * 600, min_poll_interval: MINUTE * 60, max_unverified: None, ..strict };
        let mut machine = available(strict);
        machine.on_poll(MINUTE, MINUTE, Outcome::Denied, MIDDLE);
        machine.on_settings(MINUTE, lax);
        machine.on_poll(MINUTE * 2, MINUTE * 2, Outcome::Denied, MIDDLE);
        assert_eq!(
            (machine.state(), machine.deadline()),
            (State::Revoking, Some((MINUTE * 11, Why::Denied))),
            "neither the confirmation nor the grace is put off"
        );
        machine.on_settings(MINUTE * 3, lax);
        assert!(machine.on_tick(MINUTE * 11).contains(&Action::Zeroize));
        let mut machine = available(strict);
        machine.on_poll(MINUTE, MINUTE, Outcome::Unreachable, MIDDLE);
        machine.on_settings(MINUTE, lax);
        assert_eq!(machine.deadline(), Some((MINUTE * 120, Why::Unverified)));
        machine.on_poll(MINUTE * 2, MINUTE * 2, Outcome::Ok, MIDDLE);
        assert_eq!(machine.deadline(), None, "an ok lets the new settings in");
    }

    #[test]
    fn a_limit_that_is_just_set_lets_a_poll_come_first() {
        let mut machine = available(settings());
        assert_eq!(machine.on_settings(MINUTE * 50, Settings { max_unverified: Some(MINUTE * 30), ..settings() }), []);
        assert_eq!((machine.next_poll_at(), machine.deadline()), (MINUTE * 50, Some((MINUTE * 51, Why::Unverified))));
        machine.on_poll(MINUTE * 50, MINUTE * 50, Outcome::Ok, MIDDLE);
        assert_eq!(machine.deadline(), Some((MINUTE * 80, Why::Unverified)));
    }

    #[test]
    fn an_old_proof_is_worth_less_than_a_newer_denial() {
        let mut machine = available(Settings { access_error_grace: Duration::ZERO, ..settings() });
        machine.on_poll(MINUTE * 10, MINUTE * 10, Outcome::Denied, MIDDLE);
        machine.on_poll(MINUTE * 11, MINUTE * 11, Outcome::Denied, MIDDLE);
        assert_eq!(machine.state(), State::Blocked);
        assert!(machine.outdates(MINUTE * 5));
        assert_eq!(machine.on_poll(MINUTE * 5, MINUTE * 12, Outcome::Ok, MIDDLE), []);
        assert_eq!(machine.state(), State::Blocked);
        machine.on_poll(MINUTE * 12, MINUTE * 12, Outcome::Ok, MIDDLE);
        assert_eq!(machine.state(), State::Available);
    }

    #[test]
    fn the_bound_of_the_page_is_under_85_seconds() {
        let settings = Settings { polling_period: MINUTE, min_poll_interval: SECOND * 5, access_error_grace: Duration::ZERO, max_unverified: None };
        assert!(bound(&settings, SECOND * 10, true).unwrap() < SECOND * 85);
        assert_eq!(bound(&settings, SECOND * 10, false), None, "no denial counts");
        let limited = Settings { max_unverified: Some(MINUTE * 240), ..settings };
        assert_eq!(bound(&limited, SECOND * 10, false), Some(MINUTE * 240));
    }
}

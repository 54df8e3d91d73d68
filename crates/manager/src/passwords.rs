//! Passwords: how they are kept, checked, and guarded against guessing.
//!
//! argon2id is slow on purpose. So at most a few are computed at a time, a good login is remembered for a short while under a keyed hash, and failures slow down who made them: one source for one account. A wrong
//! password that is tried again is no new guess: it is known to be wrong, and neither computed nor counted, so that a script with an old password is told so and slows down nobody. Nobody can lock `admin` out from elsewhere; and where many sources guess, who has logged in before goes first ([`lanes`](crate::lanes)).

use crate::lanes::{Lane, Lanes};
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use argon2::{Algorithm, Argon2, Params, PasswordHash, Version};
use aws_lc_rs::{hmac, rand};
use secrecy::{ExposeSecret, SecretString};
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// The most passwords that are checked at a time. Half of the processors, so that the other half is there for what the node is for.
const MOST_AT_A_TIME: usize = 4;
/// How long a check waits for its turn.
const PATIENCE: Duration = Duration::from_secs(10);
/// How many of one source may be under way.
const WAITING_OF_ONE: usize = 16;
/// How long a good login is remembered.
const REMEMBERED: Duration = Duration::from_secs(60);
/// How long a password is known to be wrong.
const WRONG: Duration = Duration::from_secs(60 * 60);
/// How long a source is known to an account that has logged in from there.
const KNOWN: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// How many good logins, wrong passwords, known sources and failing sources are remembered.
const TABLE: usize = 10_000;
/// How many failures are free.
const FREE_FAILURES: u32 = 5;
/// The longest back-off.
const MAX_BACKOFF: Duration = Duration::from_secs(60);
/// The length of a password, in characters.
const LENGTH: std::ops::RangeInclusive<usize> = 8..=128;
/// The characters of generated passwords: none that is easily mistaken for another.
const ALPHABET: &[u8; 56] = b"ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnpqrstuvwxyz23456789";
/// The length of generated passwords: 24 characters of 56 are 139 bits.
const GENERATED: usize = 24;

/// What a check comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The password is right.
    Ok,
    /// It is wrong, or the account does not exist.
    Wrong,
    /// Not checked: too many failures before, or too many checks at a time.
    TryLater(Duration),
}

/// Checks and makes passwords.
pub struct Gate {
    argon2: Argon2<'static>,
    lanes: Arc<Lanes>,
    key: hmac::Key,
    /// Checked in place of a hash that does not exist, so that an unknown account costs as much as a known one.
    nobody: String,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    good: HashMap<[u8; 32], Duration>,
    /// Passwords that are wrong for an account and its hash, until when they are remembered.
    wrong: HashMap<[u8; 32], Duration>,
    /// Sources that an account has logged in from, until when they are known.
    known: HashMap<(IpAddr, [u8; 32]), Duration>,
    /// By source and account; the account as a hash, since anybody can name one, of any length.
    failures: HashMap<(IpAddr, [u8; 32]), Failures>,
    /// Checks that are under way, by source.
    checking: HashMap<IpAddr, usize>,
    /// The same by what is checked: who brings the same password meanwhile, as a client with many connections does, waits for that one's end.
    flights: HashMap<(IpAddr, [u8; 32]), watch::Receiver<Option<Verdict>>>,
}

#[derive(Clone, Copy)]
struct Failures {
    count: u32,
    until: Duration,
}

impl Gate {
    /// A gate with argon2's recommended cost (OWASP Password Storage Cheat Sheet: 19 MiB, 2 passes).
    pub fn new() -> Self {
        Self::with_params(Params::DEFAULT)
    }

    fn with_params(params: Params) -> Self {
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        let mut key = [0u8; 32];
        #[allow(clippy::expect_used)] // Without a random source there is nothing to go on with.
        rand::fill(&mut key).expect("the system's random source works");
        let nobody = argon2.hash_password(&key).map(|hash| hash.to_string()).unwrap_or_default();
        Self {
            argon2,
            lanes: Lanes::new(std::thread::available_parallelism().map_or(1, |cores| (cores.get() / 2).clamp(1, MOST_AT_A_TIME))),
            key: hmac::Key::new(hmac::HMAC_SHA256, &key),
            nobody,
            state: Mutex::default(),
        }
    }

    /// Hashes a password, as a PHC string.
    ///
    /// # Errors
    /// A text for the log.
    pub async fn hash(&self, password: SecretString) -> Result<String, String> {
        let argon2 = self.argon2.clone();
        let work = move || argon2.hash_password(password.expose_secret().as_bytes()).map(|hash| hash.to_string()).map_err(|error| error.to_string());
        let _turn = self.lanes.enter(Lane::Known).await.ok_or("too many passwords are worked on")?;
        tokio::task::spawn_blocking(work).await.map_err(|error| error.to_string())?
    }

    /// Checks a password against the hash of an account; `None` where there is no such account. `now` is monotonic.
    pub async fn check(&self, account: &str, hash: Option<&str>, password: &SecretString, source: IpAddr, now: Duration) -> Verdict {
        let source = network_of(source);
        let fingerprint = self.fingerprint(account, hash.unwrap_or_default(), password);
        if hash.is_some() && self.lock().good.get(&fingerprint).is_some_and(|until| now < *until) {
            return Verdict::Ok;
        }
        let who = (source, self.fingerprint(account, "", &SecretString::default()));
        let flight = (source, fingerprint);
        let (joined, lane) = {
            let state = self.lock();
            if state.wrong.get(&fingerprint).is_some_and(|until| now < *until) {
                return Verdict::Wrong;
            }
            if let Some(failures) = state.failures.get(&who).filter(|failures| now < failures.until) {
                return Verdict::TryLater(failures.until.saturating_sub(now));
            }
            (state.flights.get(&flight).cloned(), state.lane(&who, now))
        };
        let later = Verdict::TryLater(Duration::from_secs(1));
        if let Some(mut joined) = joined {
            return joined.wait_for(Option::is_some).await.ok().and_then(|verdict| *verdict).unwrap_or(later);
        }
        // One source must not fill the queue for the others, whatever accounts it names.
        let Some(_under_way) = UnderWay::take(&self.state, source) else { return later };
        let landing = Landing::new(&self.state, flight);
        let Ok(Some(turn)) = tokio::time::timeout(PATIENCE, self.lanes.enter(lane)).await else { return later };
        // Others of this source may have failed while this one waited.
        if let Some(failures) = self.lock().failures.get(&who).filter(|failures| now < failures.until) {
            return Verdict::TryLater(failures.until.saturating_sub(now));
        }
        let (argon2, stored, given) = (self.argon2.clone(), hash.unwrap_or(&self.nobody).to_owned(), password.clone());
        let checked = tokio::task::spawn_blocking(move || {
            let right = PasswordHash::new(&stored).is_ok_and(|stored| argon2.verify_password(given.expose_secret().as_bytes(), &stored).is_ok());
            drop(turn);
            right
        })
        .await;
        // A check that came to no end says nothing of the password.
        let Ok(right) = checked else { return later };
        let right = right && hash.is_some();
        self.lock().note(who, fingerprint, right, now);
        let verdict = if right { Verdict::Ok } else { Verdict::Wrong };
        landing.tell(verdict);
        verdict
    }

    /// The name under which a login is remembered, be it right or wrong. The key is this process's own, so that the table says nothing about passwords; the hash is in it, so that a changed password is forgotten.
    fn fingerprint(&self, account: &str, hash: &str, password: &SecretString) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.key);
        for part in [account, hash, password.expose_secret()] {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part.as_bytes());
        }
        let mut out = [0u8; 32];
        for (to, from) in out.iter_mut().zip(context.sign().as_ref()) {
            *to = *from;
        }
        out
    }

    // A panic while the lock is held cannot leave the tables half changed, so a poisoned lock is as good as any.
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Who goes first.
    fn lane(&self, who: &(IpAddr, [u8; 32]), now: Duration) -> Lane {
        if self.known.get(who).is_some_and(|until| now < *until) {
            Lane::Known
        } else if !self.failures.contains_key(who) && !self.checking.contains_key(&who.0) {
            Lane::Fresh
        } else {
            Lane::Others
        }
    }

    /// Notes what came of a check, and of which login.
    fn note(&mut self, who: (IpAddr, [u8; 32]), fingerprint: [u8; 32], right: bool, now: Duration) {
        if right {
            self.failures.remove(&who);
            make_room(&mut self.good, |until| *until);
            self.good.insert(fingerprint, now + REMEMBERED);
            make_room(&mut self.known, |until| *until);
            self.known.insert(who, now + KNOWN);
            return;
        }
        make_room(&mut self.wrong, |until| *until);
        self.wrong.insert(fingerprint, now + WRONG);
        make_room(&mut self.failures, |failures| failures.until);
        let failures = self.failures.entry(who).or_insert(Failures { count: 0, until: now });
        failures.count = failures.count.saturating_add(1);
        if failures.count > FREE_FAILURES {
            let exponent = (failures.count - FREE_FAILURES).min(6);
            failures.until = now + Duration::from_secs(1 << exponent).min(MAX_BACKOFF);
        }
    }
}

/// What counts as one source: an IPv4 address; the /64 of an IPv6 address, since whoever has one has all of it.
pub fn network_of(source: IpAddr) -> IpAddr {
    match source.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6((u128::from(address) & !u128::from(u64::MAX)).into()),
        address => address,
    }
}

/// A check that is under way.
struct UnderWay<'g> {
    state: &'g Mutex<State>,
    source: IpAddr,
}

impl<'g> UnderWay<'g> {
    fn take(state: &'g Mutex<State>, source: IpAddr) -> Option<Self> {
        let mut locked = state.lock().unwrap_or_else(PoisonError::into_inner);
        let count = locked.checking.entry(source).or_default();
        if *count >= WAITING_OF_ONE {
            return None;
        }
        *count += 1;
        Some(Self { state, source })
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        let mut locked = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = locked.checking.get_mut(&self.source) {
            *count -= 1;
            if *count == 0 {
                locked.checking.remove(&self.source);
            }
        }
    }
}

/// A check that others can join. Where it is given up, they are told so by its end.
struct Landing<'g> {
    state: &'g Mutex<State>,
    flight: (IpAddr, [u8; 32]),
    verdict: watch::Sender<Option<Verdict>>,
}

impl<'g> Landing<'g> {
    fn new(state: &'g Mutex<State>, flight: (IpAddr, [u8; 32])) -> Self {
        let (verdict, joined) = watch::channel(None);
        state.lock().unwrap_or_else(PoisonError::into_inner).flights.insert(flight, joined);
        Self { state, flight, verdict }
    }

    fn tell(&self, verdict: Verdict) {
        self.verdict.send_replace(Some(verdict));
    }
}

impl Drop for Landing<'_> {
    fn drop(&mut self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).flights.remove(&self.flight);
    }
}

impl Default for Gate {
    fn default() -> Self {
        Self::new()
    }
}

/// Checks the length of a new password.
///
/// # Errors
/// The rule, in words.
pub fn check_policy(password: &SecretString) -> Result<(), String> {
    let length = password.expose_secret().chars().count();
    if LENGTH.contains(&length) { Ok(()) } else { Err(format!("a password has {} to {} characters", LENGTH.start(), LENGTH.end())) }
}

/// Makes a password: 24 characters, none of them easily mistaken for another.
pub fn generate() -> SecretString {
    let mut password = String::with_capacity(GENERATED);
    while password.len() < GENERATED {
        let mut byte = [0u8; 1];
        #[allow(clippy::expect_used)] // Without a random source there is nothing to go on with.
        rand::fill(&mut byte).expect("the system's random source works");
        // Bytes past the last whole multiple of the alphabet would make some characters likelier.
        let [byte] = byte;
        let index = usize::from(byte);
        if index < ALPHABET.len() * (256 / ALPHABET.len())
            && let Some(character) = ALPHABET.get(index % ALPHABET.len())
        {
            password.push(char::from(*character));
        }
    }
    SecretString::from(password)
}

/// Keeps a table bounded: drops the half that ends first.
fn make_room<K: Clone + Eq + std::hash::Hash, V>(table: &mut HashMap<K, V>, end: impl Fn(&V) -> Duration) {
    if table.len() < TABLE {
        return;
    }
    let mut ends: Vec<Duration> = table.values().map(&end).collect();
    ends.sort_unstable();
    let middle = ends.get(ends.len() / 2).copied().unwrap_or_default();
    table.retain(|_, value| end(value) > middle);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate() -> Gate {
        Gate::with_params(Params::new(8, 1, 1, None).unwrap())
    }

    fn secret(text: &str) -> SecretString {
        SecretString::from(text)
    }

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
    const ELSEWHERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));

    #[tokio::test]
    async fn right_wrong_and_unknown() {
        let gate = gate();
        let hash = gate.hash(secret("correct horse")).await.unwrap();
        assert!(hash.starts_with("$argon2id$"));
        let check = async |hash: Option<&str>, password: &str| gate.check("a", hash, &secret(password), HERE, Duration::ZERO).await;
        assert_eq!(check(Some(&hash), "correct horse").await, Verdict::Ok);
        assert_eq!(check(Some(&hash), "correct horsf").await, Verdict::Wrong);
        assert_eq!(check(None, "correct horse").await, Verdict::Wrong);
        assert_eq!(check(Some("damaged"), "correct horse").await, Verdict::Wrong);
    }

    #[tokio::test]
    async fn a_good_login_is_remembered_until_the_password_changes() {
        let gate = gate();
        let (old, new) = (gate.hash(secret("old password")).await.unwrap(), gate.hash(secret("new password")).await.unwrap());
        assert_eq!(gate.check("a", Some(&old), &secret("old password"), HERE, Duration::ZERO).await, Verdict::Ok);
        // No slot is free, so only what is remembered can pass.
        gate.lanes.close();
        assert_eq!(gate.check("a", Some(&old), &secret("old password"), HERE, REMEMBERED / 2).await, Verdict::Ok);
        assert_ne!(gate.check("a", Some(&new), &secret("old password"), HERE, REMEMBERED / 2).await, Verdict::Ok);
        assert_ne!(gate.check("b", Some(&old), &secret("old password"), HERE, REMEMBERED / 2).await, Verdict::Ok);
        assert_ne!(gate.check("a", Some(&old), &secret("old password"), HERE, REMEMBERED * 2).await, Verdict::Ok);
    }

    #[tokio::test]
    async fn failures_slow_down_their_source_and_nobody_else() {
        let gate = gate();
        let hash = gate.hash(secret("correct horse")).await.unwrap();
        let mut verdicts = Vec::new();
        for guess in 0..=FREE_FAILURES + 1 {
            verdicts.push(gate.check("admin", Some(&hash), &secret(&format!("guess {guess}")), ELSEWHERE, Duration::ZERO).await);
        }
        assert!(matches!(verdicts.last(), Some(Verdict::TryLater(_))), "{verdicts:?}");
        assert_eq!(gate.check("admin", Some(&hash), &secret("correct horse"), HERE, Duration::ZERO).await, Verdict::Ok);
        assert_eq!(gate.check("admin", Some(&hash), &secret("correct horse"), ELSEWHERE, Duration::from_secs(120)).await, Verdict::Ok);
    }

    #[tokio::test]
    async fn a_wrong_password_tried_again_is_no_guess() {
        let gate = gate();
        let (old, new) = (gate.hash(secret("correct horse")).await.unwrap(), gate.hash(secret("battery staple")).await.unwrap());
        for hash in [Some(old.as_str()), None] {
            assert_eq!(gate.check("admin", hash, &secret("battery staple"), ELSEWHERE, Duration::ZERO).await, Verdict::Wrong);
        }
        let lanes = Arc::clone(&gate.lanes);
        for _ in 0..10 * FREE_FAILURES {
            for hash in [Some(old.as_str()), None] {
                assert_eq!(gate.check("admin", hash, &secret("battery staple"), ELSEWHERE, Duration::ZERO).await, Verdict::Wrong);
            }
        }
        assert_eq!(gate.check("admin", Some(&old), &secret("correct horse"), ELSEWHERE, Duration::ZERO).await, Verdict::Ok, "nothing was counted");
        assert_eq!(
            gate.check("admin", Some(&new), &secret("battery staple"), ELSEWHERE, Duration::ZERO).await,
            Verdict::Ok,
            "right since the password changed"
        );
        // One that guesses is still told to wait; of what it has tried before it learns nothing new.
        for guess in 0..2 * FREE_FAILURES {
            let _ = gate.check("b", Some(&old), &secret(&format!("guess {guess}")), ELSEWHERE, Duration::ZERO).await;
        }
        assert_eq!(gate.check("b", Some(&old), &secret("guess 0"), ELSEWHERE, Duration::ZERO).await, Verdict::Wrong);
        assert!(matches!(gate.check("b", Some(&old), &secret("correct horse"), ELSEWHERE, Duration::ZERO).await, Verdict::TryLater(_)));
        // Not computed at all: no slot is free.
        lanes.close();
        assert_eq!(gate.check("admin", Some(&old), &secret("battery staple"), HERE, WRONG / 2).await, Verdict::Wrong);
        assert_ne!(gate.check("admin", Some(&old), &secret("battery staple"), HERE, WRONG * 2).await, Verdict::Wrong);
    }

    #[tokio::test]
    async fn a_burst_of_one_good_login_is_one_check() {
        let gate = gate();
        let hash = gate.hash(secret("correct horse")).await.unwrap();
        let password = secret("correct horse");
        let burst = (0..10 * WAITING_OF_ONE).map(|_| gate.check("a", Some(&hash), &password, HERE, Duration::ZERO));
        let verdicts = futures_util::future::join_all(burst).await;
        assert!(verdicts.iter().all(|verdict| *verdict == Verdict::Ok), "{verdicts:?}");
        assert!(gate.lock().flights.is_empty() && gate.lock().checking.is_empty());
    }

    #[tokio::test]
    async fn one_source_does_not_fill_the_queue_whatever_accounts_it_names() {
        let gate = gate();
        let hash = gate.hash(secret("correct horse")).await.unwrap();
        let (names, password, right) = ((0..10 * WAITING_OF_ONE).map(|n| format!("account{n}")).collect::<Vec<_>>(), secret("guess"), secret("correct horse"));
        let guesses = futures_util::future::join_all(names.iter().map(|name| gate.check(name, None, &password, ELSEWHERE, Duration::ZERO)));
        let (verdicts, good) = tokio::join!(guesses, gate.check("admin", Some(&hash), &right, HERE, Duration::ZERO));
        assert_eq!(good, Verdict::Ok);
        let refused = verdicts.iter().filter(|verdict| matches!(verdict, Verdict::TryLater(_))).count();
        // Some have been answered before the last ones came.
        assert!(refused >= 5 * WAITING_OF_ONE, "{refused}");
    }

    #[tokio::test]
    async fn who_was_here_before_goes_before_all_that_guess() {
        let gate = gate();
        let hash = gate.hash(secret("correct horse")).await.unwrap();
        let right = secret("correct horse");
        assert_eq!(gate.check("admin", Some(&hash), &right, HERE, Duration::ZERO).await, Verdict::Ok);
        let later = REMEMBERED * 2;
        // Each guesses something else: what is known to be wrong is not looked at again.
        let others: Vec<(IpAddr, SecretString)> = (0..200u8).map(|n| (IpAddr::from([10, 1, 0, n]), secret(&format!("guess {n}")))).collect();
        // One that has never been here, one whose login is no longer remembered, and all the others before them.
        let guesses = futures_util::future::join_all(others.iter().map(|(source, guess)| gate.check("admin", Some(&hash), guess, *source, later)));
        let (_, known, fresh) = tokio::join!(
            guesses,
            gate.check("admin", Some(&hash), &right, HERE, later),
            gate.check("admin", Some(&hash), &right, IpAddr::from([10, 2, 0, 1]), later),
        );
        assert_eq!((known, fresh), (Verdict::Ok, Verdict::Ok));
        let state = gate.lock();
        let who = |source: IpAddr| (source, gate.fingerprint("admin", "", &SecretString::default()));
        assert_eq!(state.lane(&who(HERE), later), Lane::Known);
        assert_eq!(state.lane(&who(IpAddr::from([10, 1, 0, 1])), later), Lane::Others);
        assert_eq!(state.lane(&who(IpAddr::from([10, 3, 0, 1])), later), Lane::Fresh);
    }

    #[test]
    fn a_source_is_an_address_or_a_network_of_ipv6() {
        let network = |text: &str| network_of(text.parse().unwrap()).to_string();
        assert_eq!((network("192.0.2.7"), network("::ffff:192.0.2.7")), ("192.0.2.7".to_owned(), "192.0.2.7".to_owned()));
        assert_eq!(network("2001:db8:1:2:3:4:5:6"), network("2001:db8:1:2::9"));
        assert_ne!(network("2001:db8:1:2::9"), network("2001:db8:1:3::9"));
    }

    #[test]
    fn generated_passwords_are_long_and_all_different() {
        let passwords: std::collections::HashSet<String> = (0..200).map(|_| generate().expose_secret().to_owned()).collect();
        assert_eq!(passwords.len(), 200);
        assert!(passwords.iter().all(|password| password.len() == GENERATED && password.bytes().all(|byte| ALPHABET.contains(&byte))));
    }

    #[test]
    fn the_policy_is_a_length() {
        assert!(check_policy(&secret("1234567")).is_err() && check_policy(&secret("12345678")).is_ok());
        assert!(check_policy(&secret(&"ä".repeat(128))).is_ok() && check_policy(&secret(&"a".repeat(129))).is_err());
    }

    #[test]
    fn a_full_table_loses_the_oldest() {
        let mut table: HashMap<usize, Duration> = (0..TABLE).map(|n| (n, Duration::from_secs(n as u64))).collect();
        make_room(&mut table, |end| *end);
        assert!(table.len() <= TABLE / 2 && table.contains_key(&(TABLE - 1)) && !table.contains_key(&0));
    }
}

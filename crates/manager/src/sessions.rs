//! Sessions of the console: a login that is kept for a while, so that a browser need not hold a password.
//!
//! A session is this node's own, and lives in memory: a token that only the browser has stands for it, kept here as its hash alone. It stands on the account as it was at the login: what changes the
//! account's password, role, methods or lock, or deletes it, ends it, on whichever node that was done.

use crate::accounts::{open, principal};
use crate::inner::Inner;
use crate::model::Principal;
use crate::{Code, Error, Manager, Result};
use aws_lc_rs::{constant_time, digest, hmac, rand};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use secrecy::SecretString;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use uuid::Uuid;

/// How long a session may go without a request.
pub const IDLE: Duration = Duration::from_secs(15 * 60);
/// How long it lives at most.
pub const LIFE: Duration = Duration::from_secs(12 * 60 * 60);
/// How many an account can have; the oldest makes room.
const MOST_OF_ACCOUNT: usize = 16;
/// How many there can be.
const MOST: usize = 4_096;
/// The length of a token, in bytes.
const TOKEN: usize = 32;

/// The sessions of this node.
pub(crate) struct Sessions {
    key: hmac::Key,
    /// By the hash of the token.
    open: Mutex<HashMap<[u8; 32], Session>>,
    opened: AtomicU64,
}

#[derive(Clone)]
struct Session {
    uuid: Uuid,
    account: String,
    stamp: Uuid,
    /// The place among all that this node has opened.
    number: u64,
    began: Duration,
    used: Duration,
}

/// A session, as its account sees it. Times are those of the moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionInfo {
    /// The identifier.
    pub uuid: Uuid,
    /// The account.
    pub account: String,
    /// How long ago it began.
    pub age: Duration,
    /// How long ago it was last used.
    pub idle: Duration,
}

/// A session that has just begun.
#[derive(Debug)]
pub struct NewSession {
    /// The session.
    pub info: SessionInfo,
    /// Stands for it. Shown this once.
    pub token: SecretString,
    /// What a changing request must bring beside the token.
    pub csrf_token: SecretString,
}

impl Sessions {
    pub fn new() -> Self {
        let mut key = [0u8; 32];
        #[allow(clippy::expect_used)] // Without a random source there is nothing to go on with.
        rand::fill(&mut key).expect("the system's random source works");
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, &key), open: Mutex::default(), opened: AtomicU64::new(0) }
    }

    /// What a changing request must bring: made from the token, under a key that nobody else has.
    fn csrf_token(&self, token: &str) -> String {
        BASE64.encode(hmac::sign(&self.key, token.as_bytes()).as_ref())
    }

    // A panic while the lock is held cannot leave the table half changed, so a poisoned lock is as good as any.
    fn lock(&self) -> MutexGuard<'_, HashMap<[u8; 32], Session>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Manager {
    /// Begins a session for an account that has just logged in.
    ///
    /// # Errors
    /// 6691623 the account is gone, or was locked; 7 there are too many sessions.
    pub fn open_session(&self, who: &Principal) -> Result<NewSession> {
        let inner = self.inner();
        let account = open(inner, &who.name).ok_or_else(|| Error::new(Code::NotLoggedIn))?;
        let mut bytes = zeroize::Zeroizing::new([0u8; TOKEN]);
        rand::fill(&mut *bytes).map_err(|_| Error::unexpected("the system's random source does not work"))?;
        let token = BASE64.encode(*bytes);
        let now = inner.clock.monotonic();
        let number = inner.sessions.opened.fetch_add(1, Ordering::Relaxed);
        let session = Session { uuid: inner.random.uuid(), account: who.name.clone(), stamp: account.record.stamp, number, began: now, used: now };
        let info = shown(&session, now);
        let mut sessions = inner.sessions.lock();
        sessions.retain(|_, session| lives(inner, session, now));
        let own = sessions.iter().filter(|(_, session)| session.account == who.name);
        if own.clone().count() >= MOST_OF_ACCOUNT
            && let Some(oldest) = own.min_by_key(|(_, session)| session.number).map(|(hash, _)| *hash)
        {
            sessions.remove(&oldest);
        }
        if sessions.len() >= MOST {
            return Err(Error::with(Code::LimitReached, "as many sessions are open as there can be on a node").retry_after(IDLE));
        }
        sessions.insert(hash(&token), session);
        drop(sessions);
        Ok(NewSession { info, csrf_token: SecretString::from(inner.sessions.csrf_token(&token)), token: SecretString::from(token) })
    }

    /// Who a token stands for. The session counts as used.
    pub fn session(&self, token: &str) -> Option<Principal> {
        self.session_for(token, true)
    }

    /// Who a token stands for. The session does not count as used.
    pub fn session_unused(&self, token: &str) -> Option<Principal> {
        self.session_for(token, false)
    }

    fn session_for(&self, token: &str, uses: bool) -> Option<Principal> {
        let inner = self.inner();
        let now = inner.clock.monotonic();
        let hash = hash(token);
        let mut sessions = inner.sessions.lock();
        let session = sessions.get_mut(&hash)?;
        if !lives(inner, session, now) {
            sessions.remove(&hash);
            return None;
        }
        if uses {
            session.used = now;
        }
        let account = open(inner, &session.account)?;
        Some(principal(&account.record))
    }

    /// Whether a request of a session brings what one from another site does not have.
    pub fn is_csrf_token(&self, token: &str, given: &str) -> bool {
        constant_time::verify_slices_are_equal(self.inner().sessions.csrf_token(token).as_bytes(), given.as_bytes()).is_ok()
    }

    /// What a changing request of a session must bring beside the token.
    pub fn csrf_token(&self, token: &str) -> SecretString {
        SecretString::from(self.inner().sessions.csrf_token(token))
    }

    /// The sessions of an account on this node, by uuid.
    pub fn sessions(&self, who: &Principal) -> Vec<SessionInfo> {
        let inner = self.inner();
        let now = inner.clock.monotonic();
        let sessions = inner.sessions.lock();
        let mut own: Vec<_> =
            sessions.values().filter(|session| session.account == who.name && lives(inner, session, now)).map(|session| shown(session, now)).collect();
        own.sort_by_key(|session| session.uuid);
        own
    }

    /// The session that a token stands for.
    pub fn session_of(&self, token: &str) -> Option<Uuid> {
        self.inner().sessions.lock().get(&hash(token)).map(|session| session.uuid)
    }

    /// Ends a session of an account.
    ///
    /// # Errors
    /// 4.
    pub fn close_session(&self, who: &Principal, uuid: Uuid) -> Result<()> {
        let mut sessions = self.inner().sessions.lock();
        let before = sessions.len();
        sessions.retain(|_, session| session.uuid != uuid || session.account != who.name);
        if sessions.len() < before { Ok(()) } else { Err(Error::new(Code::NotFound).target("uuid")) }
    }
}

fn lives(inner: &Inner, session: &Session, now: Duration) -> bool {
    let in_time = now.saturating_sub(session.used) < IDLE && now.saturating_sub(session.began) < LIFE;
    in_time && open(inner, &session.account).is_some_and(|account| account.record.stamp == session.stamp)
}

fn shown(session: &Session, now: Duration) -> SessionInfo {
    let (age, idle) = (now.saturating_sub(session.began), now.saturating_sub(session.used));
    SessionInfo { uuid: session.uuid, account: session.account.clone(), age, idle }
}

fn hash(token: &str) -> [u8; 32] {
    let mut out = [0u8; 32];
    out.iter_mut().zip(digest::digest(&digest::SHA256, token.as_bytes()).as_ref()).for_each(|(to, from)| *to = *from);
    out
}

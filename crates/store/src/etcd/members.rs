//! The members of an etcd: one connection to each, and which one is asked.
//!
//! All calls go to one member as long as it answers; after a failure the next one is asked. A call has time for some attempts, so that a member that has hung, and an election, are waited out.

use super::{EtcdTls, number};
use crate::error::{Error, Result};
use crate::types::LeaseId;
use Failure::{Definite, NotSent, Unanswered};
use etcd_client::{Channel, Client, ConnectOptions};
use std::error::Error as _;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::time::Instant;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, ConnectError, Status};

/// How long one member may take for an answer. Longer than a healthy one needs by far, shorter than an election with its default of 1 s and some.
const ATTEMPT: Duration = Duration::from_secs(2);
/// How long a call may take with all its attempts.
pub(super) const CALL: Duration = Duration::from_secs(8);
/// The same after a call that no member has answered, until one does: callers are told soon that the store is away, in place of queueing up for it.
const CALL_WHILE_AWAY: Duration = Duration::from_secs(2);
/// The pause after every member has failed once.
const PAUSE: Duration = Duration::from_millis(100);
/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(1);
/// etcd takes a client that pings more often than every 5 s for an attack (`--grpc-keepalive-min-time`).
const PING: (Duration, Duration) = (Duration::from_secs(6), Duration::from_secs(3));
/// What an answer may have: pages of records are asked for again in smaller parts where they have more (`range.rs`).
pub(super) const MAX_ANSWER_BYTES: usize = 64 * 1024 * 1024;

/// Why a member gave no answer that counts.
#[derive(Debug)]
pub(super) enum Failure {
    /// The request did not leave this node.
    NotSent(String),
    /// Nobody knows what became of it.
    Unanswered(String),
    /// The answer is no, and it will not be another elsewhere.
    Definite(Error),
}

/// A request on its way.
pub(super) trait Asked<T>: Future<Output = std::result::Result<T, etcd_client::Error>> + Send {}

impl<T, F: Future<Output = std::result::Result<T, etcd_client::Error>> + Send> Asked<T> for F {}

pub(super) struct Members {
    first: Member,
    others: Vec<Member>,
    /// The place of the one that is asked now; 0 is the first.
    current: AtomicUsize,
    /// No member has answered the last call.
    away: AtomicBool,
}

struct Member {
    endpoint: String,
    client: Client,
}

impl Members {
    pub(super) fn new(endpoints: &[String], tls: Option<&EtcdTls>) -> Result<Self> {
        let (first, others) = endpoints.split_first().ok_or_else(|| Error::Refused("no endpoint of etcd is named".to_owned()))?;
        let others = others.iter().map(|endpoint| Member::new(endpoint, tls)).collect::<Result<_>>()?;
        Ok(Self { first: Member::new(first, tls)?, others, current: AtomicUsize::new(0), away: AtomicBool::new(false) })
    }

    fn all(&self) -> impl Iterator<Item = &Member> {
        std::iter::once(&self.first).chain(&self.others)
    }

    fn count(&self) -> usize {
        self.others.len() + 1
    }

    pub(super) fn describe(&self) -> String {
        self.all().map(|member| member.endpoint.as_str()).collect::<Vec<_>>().join(",")
    }

    /// Asks until a member answers or the time of a call is over. For what may be asked more than once.
    pub(super) async fn call<T, F: Asked<T>>(&self, ask: impl Fn(Client) -> F) -> Result<T> {
        let mut attempts = Attempts::new(self);
        loop {
            match attempts.next(&ask).await {
                Ok(answer) => return Ok(answer),
                Err(Definite(error)) => return Err(error),
                Err(NotSent(reason) | Unanswered(reason)) => {
                    if !attempts.go_on().await {
                        return Err(Error::Unavailable(reason));
                    }
                }
            }
        }
    }

    pub(super) async fn grant(&self, ttl: Duration) -> Result<LeaseId> {
        let seconds = i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX);
        let granted = self.call(|mut client| async move { client.lease_grant(seconds, None).await }).await?;
        Ok(LeaseId(granted.id().cast_unsigned()))
    }

    pub(super) async fn keep_alive(&self, lease: LeaseId) -> Result<()> {
        let id = number(lease.0);
        self.call(|mut client| async move { client.lease_keep_alive(id).await.map(drop) }).await
    }

    /// The identifier of the cluster that answers. One that was restored from a copy has another.
    pub(super) async fn cluster(&self) -> Result<u64> {
        let status = self.call(|mut client| async move { client.status().await }).await?;
        Ok(status.header().map_or(0, etcd_client::ResponseHeader::cluster_id))
    }

    /// Which clusters the endpoints belong to must be one.
    pub(super) async fn check(&self) -> Result<()> {
        let mut first: Option<(&str, u64)> = None;
        let mut reason = String::new();
        for member in self.all() {
            let status = match member.ask(&|mut client: Client| async move { client.status().await }).await {
                Ok(status) => status,
                Err(NotSent(text) | Unanswered(text)) => {
                    reason = text;
                    continue;
                }
                Err(Definite(error)) => return Err(error),
            };
            let cluster = status.header().map_or(0, etcd_client::ResponseHeader::cluster_id);
            match first {
                None => first = Some((&member.endpoint, cluster)),
                Some((endpoint, id)) if id != cluster => {
                    return Err(Error::Refused(format!("{endpoint} and {} are members of different etcd clusters ({id:x}, {cluster:x})", member.endpoint)));
                }
                Some(_) => {}
            }
        }
        if first.is_some() { Ok(()) } else { Err(Error::Unavailable(reason)) }
    }

    /// A client of the member that is asked now, with its place.
    pub(super) fn current(&self) -> (usize, Client) {
        let (place, member) = self.member();
        (place, member.client.clone())
    }

    fn member(&self) -> (usize, &Member) {
        let place = self.current.load(Ordering::Relaxed) % self.count();
        (place, place.checked_sub(1).and_then(|place| self.others.get(place)).unwrap_or(&self.first))
    }

    /// A member has answered.
    pub(super) fn is_there(&self) {
        self.away.store(false, Ordering::Relaxed);
    }

    /// The member at `place` has failed: the next one is asked from now on. Who failed there at the same time moves on once.
    pub(super) fn leave(&self, place: usize) {
        let next = (place + 1) % self.count();
        let _ = self.current.compare_exchange(place, next, Ordering::Relaxed, Ordering::Relaxed);
    }
}

impl Member {
    fn new(endpoint: &str, tls: Option<&EtcdTls>) -> Result<Self> {
        let refused = |text: String| Error::Refused(format!("the etcd endpoint {endpoint}: {text}"));
        let secure = endpoint.starts_with("https://");
        if !secure && !endpoint.starts_with("http://") {
            return Err(refused("not a URL that starts with https:// or http://".to_owned()));
        }
        if secure != tls.is_some() {
            return Err(refused("https:// needs a CA, a certificate and a key, and http:// takes none".to_owned()));
        }
        let mut channel = Endpoint::from_shared(endpoint.to_owned())
            .map_err(|error| refused(error.to_string()))?
            .connect_timeout(CONNECT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(PING.0)
            .keep_alive_timeout(PING.1)
            .keep_alive_while_idle(true);
        if let Some(tls) = tls {
            let config = ClientTlsConfig::new()
                .ca_certificate(Certificate::from_pem(&tls.ca))
                .identity(Identity::from_pem(&tls.certificate, &*tls.key))
                .timeout(CONNECT);
            channel = channel.tls_config(config).map_err(|error| refused(detail(&error)))?;
        }
        // A member that lost its leader says so, to watches as well, and does not let them hang.
        let options = ConnectOptions::new().with_require_leader(true);
        let connecting = Client::from_channel(Channel::Tonic(channel.connect_lazy()), Some(options));
        // Without a user to log in, nothing of it waits.
        let client = futures_util::FutureExt::now_or_never(connecting).ok_or_else(|| refused("it is not ready".to_owned()))?;
        Ok(Self { endpoint: endpoint.to_owned(), client: client.map_err(|error| refused(error.to_string()))? })
    }

    async fn ask<T, F: Asked<T>>(&self, ask: &impl Fn(Client) -> F) -> std::result::Result<T, Failure> {
        match tokio::time::timeout(ATTEMPT, ask(self.client.clone())).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(classify(&self.endpoint, &error)),
            Err(_) => Err(Unanswered(format!("etcd at {}: no answer within {} s", self.endpoint, ATTEMPT.as_secs()))),
        }
    }
}

/// The attempts of one call.
pub(super) struct Attempts<'a> {
    members: &'a Members,
    deadline: Instant,
    /// How many have failed since the last pause.
    failed: usize,
    place: usize,
}

impl<'a> Attempts<'a> {
    pub(super) fn new(members: &'a Members) -> Self {
        let limit = if members.away.load(Ordering::Relaxed) { CALL_WHILE_AWAY } else { CALL };
        Self { members, deadline: Instant::now() + limit, failed: 0, place: 0 }
    }

    /// Asks the current member.
    pub(super) async fn next<T, F: Asked<T>>(&mut self, ask: &impl Fn(Client) -> F) -> std::result::Result<T, Failure> {
        let (place, member) = self.members.member();
        self.place = place;
        let answer = member.ask(ask).await;
        if matches!(answer, Ok(_) | Err(Definite(_))) {
            self.members.is_there();
        }
        answer
    }

    /// After a failure: turns to the next member. Says whether there is time for another attempt.
    pub(super) async fn go_on(&mut self) -> bool {
        self.members.leave(self.place);
        self.failed += 1;
        if self.failed >= self.members.count() {
            self.failed = 0;
            tokio::time::sleep(PAUSE).await;
        }
        let more = Instant::now() < self.deadline;
        if !more {
            self.members.away.store(true, Ordering::Relaxed);
        }
        more
    }
}

/// What an error of the client says about the request.
pub(super) fn classify(endpoint: &str, error: &etcd_client::Error) -> Failure {
    let etcd_client::Error::GRpcStatus(status) = error else {
        return match error {
            etcd_client::Error::LeaseKeepAliveError(text) if text == "lease not found" => Definite(Error::LeaseGone),
            other => Unanswered(format!("etcd at {endpoint}: {other}")),
        };
    };
    let text = format!("etcd at {endpoint}: {}", detail(status));
    match status.code() {
        Code::NotFound => Definite(Error::LeaseGone),
        Code::ResourceExhausted if status.message().contains("too many requests") => NotSent(text),
        Code::ResourceExhausted | Code::PermissionDenied | Code::Unauthenticated => Definite(Error::Refused(text)),
        // "mvcc: required revision has been compacted" (etcd 3.4, api/v3rpc/rpctypes); it does not say which is the oldest.
        Code::OutOfRange if status.message().contains("compacted") => Definite(Error::Compacted { oldest: 0 }),
        Code::InvalidArgument | Code::OutOfRange => Definite(Error::TooLarge(text)),
        _ if never_connected(status) => NotSent(text),
        _ => Unanswered(text),
    }
}

fn never_connected(status: &Status) -> bool {
    let mut source = status.source();
    while let Some(error) = source {
        if error.is::<ConnectError>() {
            return true;
        }
        source = error.source();
    }
    false
}

/// An error with all its causes: the outermost is often no more than "transport error".
fn detail(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let cause = error.to_string();
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
        source = error.source();
    }
    text
}

//! A session: one connection of one client, from the handshake to its end.

use crate::audit::{self, Actor};
use crate::clients::{ClientSlot, Clients, Full};
use crate::identity::{Client, Identities, Refusal};
use crate::managed::Managed;
use crate::memory::{OWN, Room};
use crate::metrics::{Counted, Refused};
use crate::operations::{Served, Welcome, run};
use crate::server::{Limits, Shown};
use crate::unit::{Unit, Unsaved};
use keystead_kmip::enumeration::{Enumeration as _, Operation, ResultReason};
use keystead_kmip::message::{RequestMessage, Unreadable, refusal};
use keystead_kmip::ttlv::{HEADER_BYTES, Value, decode};
use keystead_kmip::{Failure, Tag, Version};
use keystead_manager::Manager;
use keystead_manager::keys::Keys;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::time::error::Elapsed;
use tokio::time::timeout;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use zeroize::Zeroizing;

/// How much more is read at a time: memory grows with what has come, not with what was announced.
const STEP: usize = 16 * 1024;

/// How many objects a session remembers to have handed out, until the store says so too.
const REMEMBERED: usize = 64;

/// What all sessions share.
pub(crate) struct Shared {
    pub manager: Manager,
    pub identities: watch::Receiver<Arc<Identities>>,
    pub limits: Limits,
    pub fresh: mpsc::Sender<Shown>,
    pub stop: CancellationToken,
    pub clients: Arc<Clients>,
    pub counted: Arc<Counted>,
}

/// One connection.
pub(crate) struct Session {
    stream: TlsStream<TcpStream>,
    shared: Arc<Shared>,
    client: Client,
    actor: Actor,
    slot: ClientSlot,
    keys: Keys,
    identities: watch::Receiver<Arc<Identities>>,
    /// Ends the session, between two requests.
    retired: CancellationToken,
    /// The objects that were handed out last while they were fresh: the client that got them sees that they are not fresh any more, also before that is written.
    shown: Vec<Uuid>,
    /// What has been read and not been answered; may hold the start of the next message.
    input: Zeroizing<Vec<u8>>,
    output: Zeroizing<Vec<u8>>,
}

impl Session {
    /// Serves a connection until its end, or until `retired`. `able`: whether its client could agree with FIPS mode. The error says why it ended, for the log.
    pub async fn run(
        stream: TlsStream<TcpStream>,
        peer: SocketAddr,
        shared: Arc<Shared>,
        retired: Option<CancellationToken>,
        able: bool,
    ) -> Result<(), String> {
        let mut identities = shared.identities.clone();
        let now = shared.manager.now().as_second();
        let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
        let current = Arc::clone(&identities.borrow_and_update());
        let client = current.recognize(chain, now).map_err(|(why, client)| {
            audit::refused(&shared.manager, client.as_ref(), peer, audit::words(&why));
            shared.counted.refused(Refused::Certificate);
            refused(&why)
        })?;
        let limits = &shared.limits;
        let slot = shared.clients.enter(client.svm, client.fingerprint, limits.max_connections_per_client, limits.max_connections_per_svm).map_err(|full| {
            let reached = match full {
                Full::Client => "max_connections_per_client",
                Full::Svm => "max_connections_per_svm",
            };
            audit::refused(&shared.manager, Some(&client), peer, &format!("{reached} is reached"));
            shared.counted.refused(Refused::Limit);
            tracing::warn!(svm = current.svm_name(client.svm), reached, "an EKMIP connection was refused");
            format!("{reached} is reached")
        })?;
        let _unable = (!able).then(|| shared.manager.fips_unable(Some(client.svm)));
        let keys = shared.manager.keys(client.svm);
        let actor = Actor::new(&client, current.svm_name(client.svm), peer);
        let retired = retired.unwrap_or_default();
        let mut session = Self {
            stream,
            client,
            actor,
            slot,
            keys,
            identities,
            retired,
            shared,
            shown: Vec::new(),
            input: Zeroizing::default(),
            output: Zeroizing::default(),
        };
        let ended = session.serve().await;
        // Says goodbye where the peer still listens; it is not waited for.
        let _ = timeout(Duration::from_secs(1), session.stream.shutdown()).await;
        ended
    }

    async fn serve(&mut self) -> Result<(), String> {
        loop {
            if self.shared.stop.is_cancelled() || self.retired.is_cancelled() || !self.wait().await? {
                return Ok(());
            }
            let share = Arc::clone(&self.slot.share);
            let Limits { max_message_size: limit, message_timeout: time, .. } = self.shared.limits;
            let length = match within(time, self.message_length()).await.map_err(|_| slow())?? {
                Length::Message(length) if length <= limit => length,
                Length::Message(length) => {
                    return self.refuse(format!("the message has {length} bytes, and at most {limit} are accepted")).await;
                }
                Length::NoMessage => return self.refuse("this is no KMIP message".to_owned()).await,
            };
            // Room first, then the bytes: nobody holds what others wait for while it waits itself.
            let full = |_| "no room for the message".to_owned();
            if self.input.len() < length {
                let _room = within(time, Room::arriving(&share, length)).await.map_err(full)?;
                within(time, self.read_to(length)).await.map_err(|_| slow())??;
            }
            let mut room = within(time, Room::working(&share, length)).await.map_err(full)?;
            let now = self.shared.manager.now().as_second();
            self.recheck(now)?;
            self.answer(length, now, &mut room).await;
            self.send().await?;
            self.forget(length);
        }
    }

    /// Waits for the next message. `false`: the client has closed, or the server stops.
    async fn wait(&mut self) -> Result<bool, String> {
        if !self.input.is_empty() {
            return Ok(true);
        }
        self.input.reserve(1024);
        // What is there already is taken without the things that a wait needs.
        if let Some(read) = at_once(pin!(self.stream.read_buf(&mut *self.input))).await {
            return read.map(|bytes| bytes > 0).map_err(|error| error.to_string());
        }
        let idle = tokio::time::sleep(self.shared.limits.idle_timeout);
        tokio::pin!(idle);
        loop {
            self.input.reserve(1024);
            tokio::select! {
                biased;
                read = self.stream.read_buf(&mut *self.input) => match read {
                    Ok(0) => return Ok(false),
                    Ok(_) => return Ok(true),
                    Err(error) => return Err(error.to_string()),
                },
                () = self.shared.stop.cancelled() => return Ok(false),
                () = self.retired.cancelled() => return Ok(false),
                changed = self.identities.changed() => {
                    if changed.is_err() {
                        return Ok(false);
                    }
                    self.look_again()?;
                }
                () = &mut idle => return Err("idle for too long".to_owned()),
            }
        }
    }

    /// Before each request: whether the client is still one. That was decided at the handshake, and is decided anew only where it can have changed: a check of signatures for each request would cost
    /// more than the request.
    fn recheck(&mut self, now: i64) -> Result<(), String> {
        // An error: the table is not kept any more, since the server stops. What it said last counts.
        if now >= self.client.look_again_at || self.identities.has_changed().unwrap_or(false) {
            self.look_again()?;
        }
        Ok(())
    }

    fn look_again(&mut self) -> Result<(), String> {
        let now = self.shared.manager.now().as_second();
        let current = Arc::clone(&self.identities.borrow_and_update());
        self.client = current.check(&self.client, now).map_err(|why| {
            audit::shown_out(&self.shared.manager, &self.actor, &why);
            refused(&why)
        })?;
        Ok(())
    }

    async fn message_length(&mut self) -> Result<Length, String> {
        self.read_to(HEADER_BYTES).await?;
        let Some([0x42, 0x00, 0x78, 0x01, l0, l1, l2, l3]) = self.input.first_chunk::<HEADER_BYTES>().copied() else { return Ok(Length::NoMessage) };
        let body = usize::try_from(u32::from_be_bytes([l0, l1, l2, l3])).map_err(|_| "a length that does not fit".to_owned())?;
        Ok(Length::Message(body.saturating_add(HEADER_BYTES)))
    }

    async fn read_to(&mut self, length: usize) -> Result<(), String> {
        while self.input.len() < length {
            let more = (length - self.input.len()).min(STEP);
            grow(&mut self.input, more);
            match self.stream.read_buf(&mut *self.input).await {
                Ok(0) => return Err("the connection ended inside a message".to_owned()),
                Ok(_) => {}
                Err(error) => return Err(error.to_string()),
            }
        }
        Ok(())
    }

    async fn answer(&mut self, length: usize, now: i64, room: &mut Room) {
        let Some(bytes) = self.input.get(..length) else { return };
        let (identities, client) = (&self.identities, &self.client);
        let welcome = |operation: u32| match identities.has_changed() {
            // A node that looks whether this one answers has no business with keys.
            _ if client.probe && ![Operation::Query.number(), Operation::DiscoverVersions.number()].contains(&operation) => {
                Err(Failure::new(ResultReason::PermissionDenied, "the certificate of a probe may only ask what the server can do"))
            }
            Ok(true) => {
                // Not looked at in place: who changes the table would wait for signatures to be checked.
                let current = Arc::clone(&identities.borrow());
                let checked = current.check(client, now);
                checked.map(drop).map_err(|_| Failure::new(ResultReason::PermissionDenied, "the client's certificate is not accepted any more"))
            }
            _ => Ok(()),
        };
        let served = Served {
            manager: &self.shared.manager,
            keys: &self.keys,
            actor: &self.actor,
            counted: &self.shared.counted,
            interop: self.shared.limits.interop,
            shown: &self.shown,
        };
        for id in answer(&served, bytes, now, &welcome, room, &mut self.output).await {
            if self.shown.len() >= REMEMBERED {
                self.shown.remove(0);
            }
            self.shown.push(id);
            // Full: the next Get tries again.
            let _ = self.shared.fresh.try_send((self.client.svm, id));
        }
    }

    async fn send(&mut self) -> Result<(), String> {
        let written = within(self.shared.limits.message_timeout, async {
            self.stream.write_all(&self.output).await?;
            self.stream.flush().await
        });
        written.await.map_err(|_| "the client does not read its answer".to_owned())?.map_err(|error| error.to_string())
    }

    /// Says why, and ends the connection: where the next message starts is unknown.
    async fn refuse(&mut self, message: String) -> Result<(), String> {
        let now = self.shared.manager.now().as_second();
        let failure = Failure::new(ResultReason::InvalidMessage, message.clone());
        refusal(&Unreadable { version: Version::V1_4, failure }, now, &mut self.output);
        self.send().await?;
        Err(message)
    }

    /// Wipes what was answered, and gives large buffers back.
    fn forget(&mut self, length: usize) {
        // The buffers live on, so that a plain write is no dead store; what is beyond their length was never written or was wiped before.
        self.output.fill(0);
        self.output.clear();
        let answered = length.min(self.input.len());
        let rest = self.input.len() - answered;
        self.input.copy_within(answered.., 0);
        if let Some(used) = self.input.get_mut(rest..) {
            used.fill(0);
        }
        self.input.truncate(rest);
        if self.input.capacity() > OWN {
            // What it held is wiped; the start of the next message goes to a buffer of its own.
            *self.input = self.input.to_vec();
        }
        if self.output.capacity() > OWN {
            *self.output = Vec::new();
        }
    }
}

/// Answers one message of whatever bytes. Says which objects were handed out while they were fresh.
pub(crate) async fn answer(served: &Served<'_>, bytes: &[u8], now: i64, welcome: Welcome<'_>, room: &mut Room, out: &mut Vec<u8>) -> Vec<Uuid> {
    let node = match decode(bytes) {
        Ok(node) => node,
        Err(error) => {
            let failure = Failure::new(ResultReason::InvalidMessage, error.to_string());
            refusal(&Unreadable { version: version_of(bytes), failure }, now, out);
            return Vec::new();
        }
    };
    match RequestMessage::from_node(&node) {
        Err(unreadable) => {
            refusal(&unreadable, now, out);
            Vec::new()
        }
        Ok(message) => run(served, &message, now, welcome, room, out).await,
    }
}

enum Length {
    Message(usize),
    NoMessage,
}

/// Makes room without leaving a copy behind: a plain `reserve` would move the bytes and not wipe where they were.
fn grow(buffer: &mut Zeroizing<Vec<u8>>, more: usize) {
    if buffer.capacity() - buffer.len() >= more {
        return;
    }
    let mut larger = Zeroizing::new(Vec::with_capacity((buffer.len() + more).max(2 * buffer.capacity())));
    larger.extend_from_slice(buffer);
    *buffer = larger;
}

/// The version of a message that cannot be read as a whole, where its header is whole: clients look at it first.
fn version_of(bytes: &[u8]) -> Version {
    let header = bytes.get(HEADER_BYTES..).unwrap_or_default();
    let length = header.get(4..8).and_then(|length| <[u8; 4]>::try_from(length).ok()).map_or(0, u32::from_be_bytes);
    let end = usize::try_from(length).unwrap_or(usize::MAX).saturating_add(HEADER_BYTES);
    let number = |node: &keystead_kmip::ttlv::Node<'_>, tag| match node.find(Tag::ProtocolVersion)?.find(tag)?.value {
        Value::Integer(number) => Some(number),
        _ => None,
    };
    header
        .get(..end)
        .and_then(|header| decode(header).ok())
        .and_then(|header| Version::supported(number(&header, Tag::ProtocolVersionMajor)?, number(&header, Tag::ProtocolVersionMinor)?))
        .unwrap_or(Version::V1_4)
}

/// The output of a future that is ready; `None` where it has to wait.
pub async fn at_once<F: Future>(mut future: Pin<&mut F>) -> Option<F::Output> {
    poll_fn(|context| match future.as_mut().poll(context) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

/// As `timeout`, but a future that is ready at once costs no timer.
async fn within<F: Future>(time: Duration, future: F) -> Result<F::Output, Elapsed> {
    let mut future = pin!(future);
    match at_once(future.as_mut()).await {
        Some(output) => Ok(output),
        None => timeout(time, future).await,
    }
}

fn slow() -> String {
    "the message took too long to arrive".to_owned()
}

fn refused(why: &Refusal) -> String {
    format!("the client's certificate is refused: {why:?}")
}

/// Turns Fresh off for objects that were handed out, one durable write each, off the path of the Get.
pub(crate) async fn note_shown(manager: Manager, mut shown: mpsc::Receiver<Shown>, stop: CancellationToken) {
    loop {
        let (svm, id) = tokio::select! {
            () = stop.cancelled() => return,
            next = shown.recv() => match next { Some(next) => next, None => return },
        };
        let keys = manager.keys(svm);
        for _ in 0..5 {
            let mut unit = Unit::new(&keys, Version::V1_4);
            let Ok(mut found) = unit.find(id).await else { break };
            if found.is_destroyed() || !turn_off(&mut found.object) || unit.change(found).is_err() {
                break;
            }
            match unit.commit().await {
                Err(Unsaved::Repeat) => {}
                Ok(()) => break,
                Err(Unsaved::Failed(error)) => {
                    tracing::debug!(%error, key = %id, "Fresh could not be turned off; the next Get tries again");
                    break;
                }
            }
        }
    }
}

fn turn_off(object: &mut Managed<'static>) -> bool {
    let fresh = object.boolean(Tag::Fresh) == Some(true);
    if fresh {
        object.set(Tag::Fresh, Value::Boolean(false));
    }
    fresh
}

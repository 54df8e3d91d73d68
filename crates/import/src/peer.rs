//! A server with patience: which version it speaks, and what is done when a connection is lost.

use crate::Abort;
use keystead_kmip::Version;
use keystead_kmip::enumeration::{Operation, ResultReason};
use keystead_kmip::ttlv::{MAX_ITEMS, Node, Writer, decode_within};
use keystead_kmip_client::message::{Failed, Refusal, payload, request, versions};
use keystead_kmip_client::{Client, Endpoint, Error};
use std::time::Duration;
use zeroize::Zeroizing;

/// The first pause before a call is tried again. Each further one is twice as long, up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How many items a list of identifiers may have. Before 1.3 it comes as a whole.
const MOST_LISTED: usize = 400_000;
/// Under which versions it is asked what versions there are: 1.1 has the question first, and whoever speaks 2.x alone may not answer to it.
const ASKED_UNDER: &[Version] = &[Version::V1_1, Version::V2_0, Version::V1_2, Version::V1_4, Version::V2_1, Version::V1_3];

/// Why a call has no answer that helps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// The server has refused.
    Refused(Refusal),
    /// What the server answers cannot be read, also when it is asked again.
    Unreadable(String),
    /// There is no connection, or no answer, also when it is tried again.
    Lost(String),
}

impl Trouble {
    /// The reason that the server gives, where it has refused for one that the specification knows.
    pub fn reason(&self) -> Option<ResultReason> {
        match self {
            Trouble::Refused(refusal) => refusal.known(),
            _ => None,
        }
    }
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Trouble::Refused(refusal) => refusal.fmt(f),
            Trouble::Unreadable(why) | Trouble::Lost(why) => f.write_str(why),
        }
    }
}

/// An answer that has the payload of its operation.
pub struct Answer {
    bytes: Zeroizing<Vec<u8>>,
    operation: Operation,
}

impl Answer {
    /// Looks into the payload. It borrows from the answer, so that a key stays where it came in.
    pub fn read<T>(&self, look: impl FnOnce(&Node<'_>) -> T) -> Result<T, Trouble> {
        let node = decode_within(&self.bytes, most_items(self.operation)).map_err(|error| Trouble::Unreadable(error.to_string()))?;
        match payload(&node, self.operation) {
            Ok(payload) => Ok(look(payload)),
            Err(Failed::Refused(refusal)) => Err(Trouble::Refused(refusal)),
            Err(Failed::Malformed(why)) => Err(Trouble::Unreadable(why)),
        }
    }

    /// Its length in bytes.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }
}

/// A server.
pub struct Peer {
    what: &'static str,
    endpoint: Endpoint,
    /// The version that is spoken with it.
    pub version: Version,
    retries: u32,
    pause: fn(Duration),
    client: Option<Client>,
}

impl Peer {
    /// Not yet connected. `what`: what it is in messages.
    pub fn new(what: &'static str, endpoint: Endpoint, retries: u32, pause: fn(Duration)) -> Self {
        Self { what, endpoint, version: Version::V1_1, retries, pause, client: None }
    }

    /// One operation. A lost connection is made again, and the operation is tried again: what changes something must bear that.
    pub fn ask(&mut self, operation: Operation, payload_bytes: usize, payload: impl Fn(&mut Writer<'_>)) -> Result<Answer, Trouble> {
        let bytes = request(self.version, operation, payload_bytes, payload);
        let mut attempt = 0;
        loop {
            let was_open = self.client.is_some();
            let (trouble, can_pass) = match self.once(operation, &bytes) {
                Ok(answer) => return Ok(answer),
                Err((trouble @ Trouble::Refused(_), _)) => return Err(trouble),
                Err(other) => other,
            };
            self.client = None;
            // A connection that stood may have been closed for its idleness: that costs nobody's patience.
            if was_open && can_pass {
                continue;
            }
            if attempt >= self.retries || !can_pass {
                return Err(trouble);
            }
            (self.pause)(FIRST_PAUSE.saturating_mul(1 << attempt.min(10)).min(LONGEST_PAUSE));
            attempt += 1;
        }
    }

    /// Whether the server still answers, over a new connection: then what failed before did so for its own sake.
    pub fn is_there(&mut self) -> bool {
        self.client = None;
        let answer = self.ask(Operation::Locate, 16, |out| out.integer(keystead_kmip::Tag::MaximumItems, 1));
        matches!(answer, Ok(_) | Err(Trouble::Refused(_)))
    }

    /// Finds a version that both speak: the one that is wanted, else the newest of those that may be taken.
    pub fn agree(&mut self, wanted: Option<Version>, may: &[Version]) -> Result<(), Abort> {
        self.connect().map_err(|why| Abort(format!("the {} {} cannot be reached: {why}", self.what, self.endpoint.address())))?;
        if let Some(version) = wanted {
            self.version = version;
            return Ok(());
        }
        let mut last = None;
        for version in ASKED_UNDER {
            self.version = *version;
            let bytes = request(*version, Operation::DiscoverVersions, 0, |_| {});
            match self.once(Operation::DiscoverVersions, &bytes).map_err(|(trouble, _)| trouble).and_then(|answer| answer.read(versions)) {
                Ok(spoken) => {
                    let known = spoken.iter().map(Version::to_string).collect::<Vec<_>>().join(", ");
                    let common = may.iter().filter(|version| spoken.contains(version)).max();
                    self.version = *common.ok_or_else(|| {
                        let may = may.iter().map(Version::to_string).collect::<Vec<_>>().join(", ");
                        Abort(format!("the {} {} speaks KMIP {known}, and none of {may}", self.what, self.endpoint.address()))
                    })?;
                    return Ok(());
                }
                Err(trouble) => {
                    if !matches!(trouble, Trouble::Refused(_)) {
                        self.client = None;
                    }
                    last = Some(trouble);
                }
            }
        }
        match last {
            // It answers, but not to this question: that is what 1.0 does.
            Some(Trouble::Refused(_)) if may.contains(&Version::V1_0) => self.version = Version::V1_0,
            Some(trouble) => return Err(Abort(format!("the {} {} does not say which versions it speaks: {trouble}", self.what, self.endpoint.address()))),
            None => {}
        }
        Ok(())
    }

    /// Connects, as often as it is worth it.
    fn connect(&mut self) -> Result<(), String> {
        for attempt in 0.. {
            match Client::connect(&self.endpoint) {
                Ok(client) => {
                    self.client = Some(client);
                    break;
                }
                Err(error) if attempt >= self.retries => return Err(error.to_string()),
                Err(_) => (self.pause)(FIRST_PAUSE.saturating_mul(1 << attempt.min(10)).min(LONGEST_PAUSE)),
            }
        }
        Ok(())
    }

    /// One attempt; with the trouble, whether it could pass by itself.
    fn once(&mut self, operation: Operation, bytes: &[u8]) -> Result<Answer, (Trouble, bool)> {
        let lost = |error: Error| {
            let can_pass = !matches!(error, Error::Tls(_));
            match error {
                Error::TooLong(..) | Error::NoTtlv(_) => (Trouble::Unreadable(error.to_string()), can_pass),
                _ => (Trouble::Lost(error.to_string()), can_pass),
            }
        };
        let client = match &mut self.client {
            Some(client) => client,
            None => self.client.insert(Client::connect(&self.endpoint).map_err(lost)?),
        };
        let answer = Answer { bytes: client.call_bytes(bytes).map_err(lost)?, operation };
        answer.read(|_| ()).map_err(|trouble| (trouble, true))?;
        Ok(answer)
    }
}

fn most_items(operation: Operation) -> usize {
    if operation == Operation::Locate { MOST_LISTED } else { MAX_ITEMS }
}

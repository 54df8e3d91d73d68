//! One mutual-TLS connection to a KMIP server.

use crate::endpoint::{Endpoint, Limits};
use keystead_kmip::ttlv::{DecodeError, HEADER_BYTES, Node, decode, encode};
use rustls::{ClientConnection, HandshakeKind, StreamOwned};
use std::io::{Error as IoError, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};
use zeroize::Zeroizing;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no connection.
    #[error("{0}: {1}")]
    Connect(String, IoError),
    /// TLS could not be agreed upon, or one side does not believe the other's certificate. Trying again does not help.
    #[error("TLS: {0}")]
    Tls(IoError),
    /// The connection was lost. Whether the server has done what it was asked is not known.
    #[error("the connection was lost: {0}")]
    Lost(IoError),
    /// The answer did not come in time. Whether the server has done what it was asked is not known.
    #[error("no whole answer came within {0:?}")]
    Late(Duration),
    /// The answer says that it has more bytes than are read.
    #[error("the answer has {0} bytes, and at most {1} are read")]
    TooLong(usize, usize),
    /// What came is not in KMIP's encoding.
    #[error("the answer is no TTLV: {0}")]
    NoTtlv(#[from] DecodeError),
}

impl From<Error> for String {
    fn from(error: Error) -> Self {
        error.to_string()
    }
}

/// A connection. After an error it is of no use: what comes next may be the answer to what was asked before.
pub struct Client {
    stream: StreamOwned<ClientConnection, Timed>,
    limits: Limits,
}

impl Client {
    /// Connects. The handshake itself happens with the first call.
    ///
    /// # Errors
    /// [`Error::Connect`].
    pub fn connect(endpoint: &Endpoint) -> Result<Self, Error> {
        let (connection, stream) = endpoint.open().map_err(|error| Error::Connect(endpoint.address().to_owned(), error))?;
        let limits = endpoint.limits;
        Ok(Self { stream: StreamOwned::new(connection, Timed { stream, deadline: Instant::now() + limits.time }), limits })
    }

    /// Whether the session was a new one or an old one; `None` before the first call.
    pub fn handshake_kind(&self) -> Option<HandshakeKind> {
        self.stream.conn.handshake_kind()
    }

    /// Sends a message and reads the answer, as a copy that is not wiped: not for what holds keys.
    ///
    /// # Errors
    /// Any [`Error`].
    pub fn call(&mut self, request: &Node<'_>) -> Result<Node<'static>, Error> {
        let mut bytes = Vec::new();
        encode(request, &mut bytes);
        let answer = self.call_bytes(&bytes)?;
        Ok(decode(&answer)?.into_owned())
    }

    /// Sends bytes and reads one answer.
    ///
    /// # Errors
    /// Any but [`Error::NoTtlv`].
    pub fn call_bytes(&mut self, request: &[u8]) -> Result<Zeroizing<Vec<u8>>, Error> {
        self.send_bytes(request)?;
        self.read_answer()
    }

    /// Sends bytes and waits for nothing.
    ///
    /// # Errors
    /// As [`Client::call_bytes`].
    pub fn send_bytes(&mut self, request: &[u8]) -> Result<(), Error> {
        self.start_clock();
        self.stream.write_all(request).and_then(|()| self.stream.flush()).map_err(|error| self.lost(error))
    }

    /// Reads one answer.
    ///
    /// # Errors
    /// As [`Client::call_bytes`].
    pub fn read_answer(&mut self) -> Result<Zeroizing<Vec<u8>>, Error> {
        self.start_clock();
        let mut answer = Zeroizing::new(vec![0; HEADER_BYTES]);
        self.stream.read_exact(&mut answer).map_err(|error| self.lost(error))?;
        let length = answer.get(4..8).and_then(|length| <[u8; 4]>::try_from(length).ok()).map_or(0, u32::from_be_bytes);
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if length > self.limits.answer {
            return Err(Error::TooLong(length, self.limits.answer));
        }
        // Nothing but the header is moved by this: the rest comes into its place.
        answer.resize(HEADER_BYTES + length, 0);
        self.stream.read_exact(answer.get_mut(HEADER_BYTES..).unwrap_or_default()).map_err(|error| self.lost(error))?;
        Ok(answer)
    }

    fn start_clock(&mut self) {
        self.stream.sock.deadline = Instant::now() + self.limits.time;
    }

    fn lost(&self, error: IoError) -> Error {
        match error.kind() {
            ErrorKind::TimedOut => Error::Late(self.limits.time),
            // How rustls hands its own errors on: alerts of the server, certificates that are not believed, records that are none.
            ErrorKind::InvalidData => Error::Tls(error),
            // rustls says it in several lines, with an address of its manual.
            ErrorKind::UnexpectedEof => Error::Lost(IoError::new(ErrorKind::UnexpectedEof, "the server has closed it")),
            _ => Error::Lost(error),
        }
    }
}

/// A stream with a moment at which patience ends, however often a few bytes come. Each read waits for at most that long too, so a call takes at most twice the time.
struct Timed {
    stream: TcpStream,
    deadline: Instant,
}

impl Timed {
    fn check(&self) -> std::io::Result<()> {
        if Instant::now() < self.deadline { Ok(()) } else { Err(ErrorKind::TimedOut.into()) }
    }
}

/// What the system says when the time of a read or a write is over.
fn late(error: IoError) -> IoError {
    if error.kind() == ErrorKind::WouldBlock { ErrorKind::TimedOut.into() } else { error }
}

impl Read for Timed {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.check()?;
        self.stream.read(buffer).map_err(late)
    }
}

impl Write for Timed {
    fn write(&mut self, buffer: &[u8]) -> std::io::Result<usize> {
        self.check()?;
        self.stream.write(buffer).map_err(late)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.stream.flush().map_err(late)
    }
}

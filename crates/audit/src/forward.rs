//! Forwarding to a syslog collector, over TCP or TLS. The log itself is the queue: whatever the collector does, memory is bounded, and what it has missed it gets later, in order.
//!
//! Syslog over TCP has no acknowledgement (RFC 6587, section 4.1): what was written into a connection that breaks may have arrived, or not. A record counts as delivered when the collector's machine has
//! acknowledged its bytes (`acknowledged`) and the connection has outlived it by [`SETTLED`]; after a break, all others are sent again. So nothing is missing that the collector's program has read, and what comes
//! twice has the same `sequenceId`. Where to go on is kept in a file.

use crate::Audit;
use crate::acknowledged::{Acknowledged, Counting, Meter};
use crate::folder::write_whole;
use crate::read::{Onwards, oldest};
use crate::syslog::{Format, frame};
use crate::writer::own;
use crate::{NOT_FORWARDED, State};
use rustix::net::sockopt;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

/// How long a connection must outlive what was written into it.
pub const SETTLED: Duration = Duration::from_millis(500);
/// How long a connection may take, and how long a collector may take nothing.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a connection lives on which nothing is acknowledged (TCP_USER_TIMEOUT), also when nothing is sent: a machine that has gone says nothing.
const UNACKNOWLEDGED: Duration = Duration::from_secs(30);
/// How many bytes of the log are written at a time, at the least: what is acknowledged is known as exactly as that.
const CHUNK: usize = 16 * 1024;
/// How long forwarding goes on when it is to stop.
const END: Duration = Duration::from_secs(5);
/// The pauses between two tries: the first, and the longest.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));
/// The file that says how far it has come.
const POSITION: &str = "forwarded";

/// Where to forward to.
#[derive(Clone)]
pub struct Target {
    /// `host:port`.
    pub address: String,
    /// TLS, and the name that the collector's certificate must be for; `None`: plain TCP.
    pub tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    /// What stands in the messages.
    pub format: Format,
    /// The program's version.
    pub version: String,
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// Forwards until `stop`; then brings what the collector takes within [`END`]. The rest it gets from the next start on.
pub async fn run(audit: Audit, target: Target, stop: CancellationToken) {
    let end = async {
        stop.cancelled().await;
        tokio::time::sleep(END).await;
    };
    tokio::select! {
        () = forward(audit, target, &stop) => {}
        () = end => tracing::warn!("the syslog collector has not taken all audit records; it gets the rest after the next start"),
    }
}

async fn forward(audit: Audit, target: Target, stop: &CancellationToken) {
    let Some(mut forwarder) = Forwarder::new(audit, target).await else { return };
    let mut pause = BACKOFF.0;
    loop {
        let connected = tokio::select! {
            () = stop.cancelled() => return,
            connected = forwarder.connect() => connected,
        };
        let why = match connected {
            Ok((stream, meter)) => {
                forwarder.note_back();
                let before = forwarder.delivered;
                let why = forwarder.serve(stream, meter, stop).await;
                if forwarder.delivered > before {
                    pause = BACKOFF.0;
                }
                why
            }
            Err(why) => Some(why),
        };
        let Some(why) = why else { return };
        forwarder.note_away(why);
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        pause = (pause * 2).min(BACKOFF.1);
    }
}

struct Forwarder {
    audit: Audit,
    target: Target,
    process: u32,
    /// The last record that counts as delivered.
    delivered: u64,
    away: bool,
}

impl Forwarder {
    async fn new(audit: Audit, target: Target) -> Option<Self> {
        let path = audit.folder().join(POSITION);
        let kept = blocking(move || std::fs::read_to_string(path).ok().and_then(|text| text.trim().parse::<u64>().ok())).await?;
        // A log that was made anew under an old position is forwarded from its beginning.
        let delivered = kept.filter(|kept| *kept <= *audit.newest().borrow()).unwrap_or(0);
        audit.set_delivered(delivered);
        Some(Self { audit, target, process: std::process::id(), delivered, away: false })
    }

    async fn connect(&self) -> Result<(Box<dyn Stream>, Meter), String> {
        let Target { address, tls, .. } = &self.target;
        let connect = async {
            let stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
            watched(&stream).map_err(|error| error.to_string())?;
            let (stream, meter) = Counting::new(stream).map_err(|error| error.to_string())?;
            let stream: Box<dyn Stream> = match tls {
                None => Box::new(stream),
                Some((config, name)) => {
                    let connector = tokio_rustls::TlsConnector::from(Arc::clone(config));
                    Box::new(connector.connect(name.clone(), stream).await.map_err(|error| format!("TLS: {error}"))?)
                }
            };
            Ok::<_, String>((stream, meter))
        };
        timeout(PATIENCE, connect).await.map_err(|_| "it does not answer".to_owned())?
    }

    /// Sends what there is and what comes. Answers why the connection has ended; `None`: it was to stop.
    async fn serve(&mut self, stream: Box<dyn Stream>, meter: Meter, stop: &CancellationToken) -> Option<String> {
        let (mut input, mut output) = tokio::io::split(stream);
        // A collector sends nothing. That it has gone is seen by reading.
        let (tell, mut gone) = oneshot::channel();
        let _reading = AbortOnDrop(tokio::spawn(async move {
            let mut ignored = [0; 256];
            let why = loop {
                match input.read(&mut ignored).await {
                    Ok(0) => break "it has closed the connection".to_owned(),
                    Ok(_) => {}
                    Err(error) => break error.to_string(),
                }
            };
            let _ = tell.send(why);
        }));
        let mut onwards = Onwards::behind(self.audit.folder(), self.delivered);
        let mut newest = self.audit.newest();
        let mut young = Young { meter, written: VecDeque::new(), looked: None };
        loop {
            if let Ok(why) = gone.try_recv() {
                return Some(why);
            }
            self.settle(&mut young).await;
            let last = *newest.borrow_and_update();
            match self.next(onwards, last).await {
                Err(why) => return Some(why),
                Ok((reader, lines)) => {
                    onwards = reader;
                    if !lines.is_empty() {
                        if let Err(why) = self.send(&mut output, &lines, &mut young).await {
                            return Some(why);
                        }
                        continue;
                    }
                }
            }
            if stop.is_cancelled() && young.written.is_empty() {
                let _ = timeout(PATIENCE, output.shutdown()).await;
                return None;
            }
            let due = young.due();
            tokio::select! {
                changed = newest.changed() => if changed.is_err() { return None },
                () = sleep_until(due) => {}
                why = &mut gone => return Some(why.unwrap_or_default()),
                () = stop.cancelled(), if !stop.is_cancelled() => {}
            }
        }
    }

    /// Writes lines in chunks, so that it is known of each when it was acknowledged.
    async fn send(&mut self, output: &mut (impl AsyncWrite + Unpin), lines: &[(u64, Vec<u8>)], young: &mut Young) -> Result<(), String> {
        let mut lines = lines.iter().peekable();
        while lines.peek().is_some() {
            let (mut bytes, mut index) = (Vec::new(), 0);
            for (number, line) in lines.by_ref() {
                bytes.extend_from_slice(&frame(line, self.target.format, &self.target.version, self.process));
                index = *number;
                if bytes.len() >= CHUNK {
                    break;
                }
            }
            let write = async {
                output.write_all(&bytes).await?;
                output.flush().await
            };
            tokio::pin!(write);
            loop {
                let before = young.meter.written();
                match timeout(PATIENCE, &mut write).await {
                    Ok(Ok(())) => break,
                    Ok(Err(error)) => return Err(error.to_string()),
                    Err(_) if young.meter.written() == before => return Err("it takes nothing".to_owned()),
                    // It is slow.
                    Err(_) => {}
                }
            }
            young.written.push_back((index, young.meter.written(), Instant::now()));
            self.settle(young).await;
        }
        Ok(())
    }

    /// The next lines. What was deleted before it could be sent is said in the log, and so to the collector as well.
    async fn next(&mut self, mut onwards: Onwards, last: u64) -> Result<(Onwards, Vec<(u64, Vec<u8>)>), String> {
        let before = onwards.index();
        let read = tokio::task::spawn_blocking(move || onwards.next(last).map(|lines| (onwards, lines)));
        let (onwards, lines) = read.await.map_err(|error| error.to_string())?.map_err(|error| format!("the audit log cannot be read: {error}"))?;
        let folder = self.audit.folder().to_owned();
        if let Some((first, _)) = lines.first()
            && *first > before + 1
            && blocking(move || oldest(&folder)).await.flatten().is_some_and(|oldest| oldest > before + 1)
        {
            let count = first - before - 1;
            let mut record = own(
                State::Error,
                NOT_FORWARDED,
                Some(format!("{count} records were deleted, as the oldest of too many files, before the syslog collector had taken them")),
            );
            record.count = Some(count);
            self.audit.note(record);
            // Said once, however often the connection breaks.
            self.delivered = first - 1;
            self.audit.set_delivered(self.delivered);
        }
        Ok((onwards, lines))
    }

    /// Counts as delivered what has settled, and keeps that.
    async fn settle(&mut self, young: &mut Young) {
        if young.due().is_none_or(|due| due > Instant::now()) {
            return;
        }
        young.looked = Some(Instant::now());
        let meter = young.meter.clone();
        let Some(acknowledged) = blocking(move || meter.acknowledged()).await else { return };
        let before = self.delivered;
        let settled = |bytes: u64| match acknowledged {
            Acknowledged::Bytes(acknowledged) => bytes <= acknowledged,
            Acknowledged::Gone => false,
            // Then there is no better measure than time.
            Acknowledged::Unknown => true,
        };
        while let Some((index, ..)) = young.written.front().filter(|(_, bytes, at)| at.elapsed() >= SETTLED && settled(*bytes)) {
            self.delivered = *index;
            young.written.pop_front();
        }
        if self.delivered > before {
            self.audit.set_delivered(self.delivered);
            let (folder, text) = (self.audit.folder().to_owned(), self.delivered.to_string());
            // Where that fails, records come twice after a restart.
            let _ = blocking(move || write_whole(&folder, POSITION, text.as_bytes())).await;
        }
    }

    fn note_away(&mut self, why: String) {
        if !self.away {
            tracing::warn!(collector = self.target.address, why, "the syslog collector does not take audit records; it gets them when it is back");
        }
        self.away = true;
        self.audit.set_collector(Some(format!("{}: {why}", self.target.address)));
    }

    fn note_back(&mut self) {
        if std::mem::take(&mut self.away) {
            tracing::info!(collector = self.target.address, "the syslog collector is back");
        }
        self.audit.set_collector(None);
    }
}

/// What was written and has not settled yet.
struct Young {
    meter: Meter,
    /// The last record of each chunk, how many bytes were written up to its end, and when.
    written: VecDeque<(u64, u64, Instant)>,
    /// When it was last looked how much was acknowledged.
    looked: Option<Instant>,
}

impl Young {
    /// When to look the next time.
    fn due(&self) -> Option<Instant> {
        let settled = self.written.front().map(|(_, _, at)| *at + SETTLED)?;
        Some(self.looked.map_or(settled, |looked| settled.max(looked + SETTLED / 2)))
    }
}

/// Has the kernel see that the other machine has gone, also where nothing is sent.
fn watched(stream: &TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, PATIENCE)?;
    sockopt::set_tcp_keepintvl(stream, PATIENCE)?;
    sockopt::set_tcp_keepcnt(stream, 3)?;
    sockopt::set_tcp_user_timeout(stream, u32::try_from(UNACKNOWLEDGED.as_millis()).unwrap_or(u32::MAX))?;
    Ok(())
}

/// Files are for threads that may wait. `None`: the runtime is ending.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    tokio::task::spawn_blocking(work).await.ok()
}

struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

//! What the machine at the other end of a TCP connection has acknowledged. The kernel says it by `tx_queue` of /proc/net/tcp (proc(5)): the bytes that were written and are not acknowledged yet. There is also an
//! ioctl, SIOCOUTQ, but no crate that has it without unsafe code for us.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// The states in which a connection takes data: established, and closed by the other end alone (`enum` in linux/tcp_states.h).
const OPEN: [&str; 2] = ["01", "08"];

/// A connection that counts what is written into it.
pub struct Counting {
    stream: TcpStream,
    written: Arc<AtomicU64>,
}

/// Says how much of it the other end has.
#[derive(Debug, Clone)]
pub struct Meter {
    local: SocketAddr,
    peer: SocketAddr,
    written: Arc<AtomicU64>,
}

/// How much the other end has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acknowledged {
    /// So many bytes.
    Bytes(u64),
    /// The connection is there no more.
    Gone,
    /// The kernel does not tell.
    Unknown,
}

impl Counting {
    /// Counts from here on: nothing was written yet.
    ///
    /// # Errors
    /// The connection has no addresses: it has broken.
    pub fn new(stream: TcpStream) -> std::io::Result<(Self, Meter)> {
        let written = Arc::new(AtomicU64::new(0));
        let meter = Meter { local: stream.local_addr()?, peer: stream.peer_addr()?, written: Arc::clone(&written) };
        Ok((Self { stream, written }, meter))
    }

    fn count(&self, written: Poll<std::io::Result<usize>>) -> Poll<std::io::Result<usize>> {
        let count = ready!(written)?;
        self.written.fetch_add(count as u64, Ordering::Relaxed);
        Poll::Ready(Ok(count))
    }
}

impl AsyncRead for Counting {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Counting {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.count(written)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, context: &mut Context<'_>, slices: &[std::io::IoSlice<'_>]) -> Poll<std::io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.count(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl Meter {
    /// How many bytes were written until now.
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// How many of them the other end has acknowledged. Reads a file of the kernel: not for a thread of the runtime.
    pub fn acknowledged(&self) -> Acknowledged {
        // Before the look at the queue: what is written meanwhile counts as not acknowledged.
        let written = self.written();
        let table = if self.local.is_ipv4() { "/proc/thread-self/net/tcp" } else { "/proc/thread-self/net/tcp6" };
        let Ok(table) = std::fs::read_to_string(table) else { return Acknowledged::Unknown };
        match waiting(&table, self.local, self.peer) {
            Some(waiting) => Acknowledged::Bytes(written.saturating_sub(waiting)),
            None => Acknowledged::Gone,
        }
    }
}

/// `tx_queue` of a connection.
fn waiting(table: &str, local: SocketAddr, peer: SocketAddr) -> Option<u64> {
    let (local, peer) = (address(local), address(peer));
    table.lines().find_map(|line| {
        let mut columns = line.split_ascii_whitespace().skip(1);
        let ours = columns.next()? == local && columns.next()? == peer && OPEN.contains(&columns.next()?);
        if !ours {
            return None;
        }
        u64::from_str_radix(columns.next()?.split(':').next()?, 16).ok()
    })
}

/// An address as the table writes it: each 32 bits of it as a number of this machine, in hexadecimal digits.
fn address(address: SocketAddr) -> String {
    let hex = |octets: &[u8]| octets.as_chunks::<4>().0.iter().map(|word| format!("{:08X}", u32::from_ne_bytes(*word))).collect::<String>();
    match address {
        SocketAddr::V4(address) => format!("{}:{:04X}", hex(&address.ip().octets()), address.port()),
        SocketAddr::V6(address) => format!("{}:{:04X}", hex(&address.ip().octets()), address.port()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpSocket;

    #[tokio::test]
    async fn what_is_not_acknowledged_is_not_counted() {
        for (socket, address) in [(TcpSocket::new_v4().unwrap(), "127.0.0.1:0"), (TcpSocket::new_v6().unwrap(), "[::1]:0")] {
            socket.set_recv_buffer_size(2_048).unwrap();
            if socket.bind(address.parse().unwrap()).is_err() {
                // A machine without IPv6.
                continue;
            }
            let listener = socket.listen(1).unwrap();
            let (mut stream, meter) = Counting::new(TcpStream::connect(listener.local_addr().unwrap()).await.unwrap()).unwrap();
            let (mut other, _) = listener.accept().await.unwrap();
            assert_eq!(meter.acknowledged(), Acknowledged::Bytes(0));
            stream.write_all(&[0; 100_000]).await.unwrap();
            assert_eq!(meter.written(), 100_000);
            let Acknowledged::Bytes(some) = meter.acknowledged() else { panic!("{meter:?}") };
            assert!(some < 50_000, "{some}");
            other.read_exact(&mut [0; 100_000]).await.unwrap();
            let all = async {
                while meter.acknowledged() != Acknowledged::Bytes(100_000) {
                    tokio::task::yield_now().await;
                }
            };
            tokio::time::timeout(std::time::Duration::from_secs(60), all).await.expect("all is read, and so acknowledged");
            drop(stream);
            drop(other);
            assert_eq!(meter.acknowledged(), Acknowledged::Gone);
        }
    }
}

//! Long texts, which are written while they are sent.
//!
//! A list of 10,000 records has megabytes. Written as a whole, they are memory that the system must find, fill and wipe for one answer; in parts, the same few pages do for all of it.

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body, Frame, SizeHint};
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

/// How long a part is, about: what fits into two records of TLS.
const PART: usize = 32 * 1024;

/// Writes some more of a text; answers whether there was any.
type Next = dyn FnMut(&mut Vec<u8>) -> bool + Send + Sync;

/// A text that is not written yet.
pub struct Long {
    /// What stands before, until it is written.
    head: Option<&'static str>,
    /// What stands between.
    next: Box<Next>,
    /// What stands behind, until it is written.
    tail: Option<String>,
}

impl Long {
    /// A head, what `next` writes until it answers `false`, and a tail.
    pub fn new(head: &'static str, next: impl FnMut(&mut Vec<u8>) -> bool + Send + Sync + 'static, tail: String) -> Self {
        Self { head: Some(head), next: Box::new(next), tail: Some(tail) }
    }

    /// The next part. `None`: that was all.
    pub fn part(&mut self) -> Option<Bytes> {
        // The last record may go over it.
        let mut part = Vec::with_capacity(PART + PART / 8);
        self.write(&mut part, PART).then(|| part.into())
    }

    /// Whether all of it is written.
    pub fn is_done(&self) -> bool {
        self.tail.is_none()
    }

    /// The whole text, for those who need it as one.
    pub fn text(mut self) -> Vec<u8> {
        let mut text = Vec::new();
        while self.write(&mut text, usize::MAX) {}
        text
    }

    /// Writes until there is so much; answers whether there was any.
    fn write(&mut self, out: &mut Vec<u8>, most: usize) -> bool {
        if self.tail.is_none() {
            return false;
        }
        out.extend_from_slice(self.head.take().unwrap_or_default().as_bytes());
        while out.len() < most {
            if !(self.next)(out) {
                out.extend_from_slice(self.tail.take().unwrap_or_default().as_bytes());
                break;
            }
        }
        true
    }
}

impl std::fmt::Debug for Long {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Long").finish_non_exhaustive()
    }
}

/// The body of an answer as it is sent.
pub enum Sent {
    /// In one.
    Whole(Full<Bytes>),
    /// A first part, and the rest when that is gone.
    Parts(Option<Bytes>, Long),
}

impl Body for Sent {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut() {
            Self::Whole(text) => Pin::new(text).poll_frame(context),
            Self::Parts(first, rest) => Poll::Ready(first.take().or_else(|| rest.part()).map(|part| Ok(Frame::data(part)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(text) => text.is_end_stream(),
            Self::Parts(first, rest) => first.is_none() && rest.is_done(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(text) => text.size_hint(),
            Self::Parts(..) => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(count: usize) -> Long {
        let mut n = 0;
        let next = move |out: &mut Vec<u8>| {
            if n == count {
                return false;
            }
            out.extend_from_slice(if n == 0 { b"0123456789" } else { b",123456789" });
            n += 1;
            true
        };
        Long::new("[", next, "]".to_owned())
    }

    #[test]
    fn parts_are_of_one_size_and_make_the_whole() {
        for count in [0, 1, 3_276, 3_277, 10_000] {
            let whole = numbers(count).text();
            assert_eq!(whole.len(), count * 10 + 2);
            let mut long = numbers(count);
            let mut parts = Vec::new();
            while let Some(part) = long.part() {
                assert!(part.len() < PART + 11 && (part.len() >= PART || long.is_done()), "{}", part.len());
                parts.extend_from_slice(&part);
            }
            assert_eq!(parts, whole);
            assert!(long.is_done() && long.part().is_none());
        }
    }
}

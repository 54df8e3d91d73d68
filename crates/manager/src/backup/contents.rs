//! What is sealed in a backup: lines of JSON.
//!
//! The first has the seal key, and of which revision the records are; one for each record follows, in ascending byte order of their keys; the last says how many there were.
//!
//! Left out is what lives under a lease: that somebody was at work at that moment.

use crate::records::Base64;
use serde::{Deserialize, Serialize};
use std::io::{BufRead, Error, ErrorKind, Read as _, Result, Write};
use zeroize::{Zeroize as _, Zeroizing};

/// The longest line, in bytes: the largest record that a store takes, in base64, with its key.
const MOST_LINE: u64 = 4 * 1024 * 1024;

/// A line of the file.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Line {
    Record { key: String, value: Base64 },
    Begin { seal_key: String, revision: u64 },
    End { records: u64 },
}

/// A record as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Kept {
    pub key: String,
    pub value: Vec<u8>,
}

/// Writes the lines.
pub(super) struct Lines<W: Write> {
    out: W,
    count: u64,
}

impl<W: Write> Lines<W> {
    /// `seal_key`: all that its source gives.
    pub fn begin(mut out: W, seal_key: &[u8], revision: u64) -> Result<Self> {
        let mut line = Line::Begin { seal_key: seal_key.iter().map(|byte| format!("{byte:02x}")).collect(), revision };
        let written = write(&mut out, &line);
        if let Line::Begin { seal_key, .. } = &mut line {
            seal_key.zeroize();
        }
        written.map(|()| Self { out, count: 0 })
    }

    pub fn record(&mut self, key: &str, value: &[u8]) -> Result<()> {
        self.count += 1;
        write(&mut self.out, &Line::Record { key: key.to_owned(), value: Base64(value.to_vec()) })
    }

    /// Ends; answers what was written to, and how many records there were.
    pub fn finish(mut self) -> Result<(W, u64)> {
        write(&mut self.out, &Line::End { records: self.count })?;
        Ok((self.out, self.count))
    }
}

fn write(out: &mut impl Write, line: &Line) -> Result<()> {
    let mut text = Zeroizing::new(serde_json::to_vec(line).map_err(Error::other)?);
    text.push(b'\n');
    out.write_all(&text)
}

/// Reads the lines.
pub(super) struct Reader<R: BufRead> {
    source: R,
    /// All that the source of the seal key gave.
    pub seal_key: Zeroizing<Vec<u8>>,
    /// The revision that the records are of.
    pub revision: u64,
    count: u64,
    last: String,
    is_over: bool,
}

impl<R: BufRead> Reader<R> {
    pub fn begin(mut source: R) -> Result<Self> {
        let Some(Line::Begin { seal_key, revision }) = read(&mut source)? else { return Err(damaged()) };
        let seal_key = bytes(&Zeroizing::new(seal_key)).ok_or_else(damaged)?;
        Ok(Self { source, seal_key, revision, count: 0, last: String::new(), is_over: false })
    }

    /// The next record; `None`: that was all, and the file is whole.
    pub fn next(&mut self) -> Result<Option<Kept>> {
        if self.is_over {
            return Ok(None);
        }
        match read(&mut self.source)? {
            Some(Line::Record { key, value }) if key > self.last => {
                self.count += 1;
                self.last.clone_from(&key);
                Ok(Some(Kept { key, value: value.0 }))
            }
            Some(Line::End { records }) if records == self.count && read(&mut self.source)?.is_none() => {
                self.is_over = true;
                Ok(None)
            }
            _ => Err(damaged()),
        }
    }
}

fn read(source: &mut impl BufRead) -> Result<Option<Line>> {
    let mut text = Zeroizing::new(Vec::new());
    source.take(MOST_LINE).read_until(b'\n', &mut text)?;
    if text.is_empty() {
        return Ok(None);
    }
    serde_json::from_slice(&text).map(Some).map_err(|_| damaged())
}

fn damaged() -> Error {
    Error::new(ErrorKind::InvalidData, "what is sealed in it cannot be read")
}

/// Bytes of hexadecimal digits.
fn bytes(digits: &str) -> Option<Zeroizing<Vec<u8>>> {
    let pairs = digits.as_bytes().chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok());
    pairs.collect::<Option<Vec<u8>>>().map(Zeroizing::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written() -> Vec<u8> {
        let mut lines = Lines::begin(Vec::new(), &[7; 64], 42).unwrap();
        lines.record("/a", b"{}").unwrap();
        lines.record("/b", b"\x00\xff").unwrap();
        let (text, count) = lines.finish().unwrap();
        assert_eq!(count, 2);
        text
    }

    fn all(text: &[u8]) -> Result<Vec<Kept>> {
        let mut reader = Reader::begin(text)?;
        assert_eq!((reader.seal_key.as_slice(), reader.revision), ([7; 64].as_slice(), 42));
        let mut kept = Vec::new();
        while let Some(record) = reader.next()? {
            kept.push(record);
        }
        Ok(kept)
    }

    #[test]
    fn what_is_written_is_read() {
        let kept = |key: &str, value: &[u8]| Kept { key: key.to_owned(), value: value.to_vec() };
        assert_eq!(all(&written()).unwrap(), [kept("/a", b"{}"), kept("/b", b"\x00\xff")]);
    }

    #[test]
    fn half_of_it_is_nothing() {
        let text = written();
        let ends: Vec<usize> = text.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1).collect();
        for cut in ends.iter().take(3).copied().chain([text.len() - 2]) {
            assert!(all(&text[..cut]).is_err(), "{cut}");
        }
        let twice = [&text[..ends[1]], &text[ends[0]..]].concat();
        assert!(all(&twice).is_err(), "a record that comes twice");
        assert!(all(&[text.as_slice(), b"{\"records\":2}\n"].concat()).is_err());
    }
}

//! The chain: each line holds the hash of the line before and, at its end, its own. Whoever changes, takes away or moves a line breaks it.
//!
//! A line is a record as a JSON object; its last member, `hash`, is SHA-256 (FIPS 180-4) of all that stands before `,"hash":"` in the line. The hash has no key: who can write the files can make a new chain
//! over them. What such a one cannot change is the copy that a syslog collector has.

use crate::record::Record;
use aws_lc_rs::digest::{SHA256, digest};

/// What stands before the hash.
const MARK: &str = ",\"hash\":\"";
/// What stands behind it.
const END: &str = "\"}";
/// The hexadecimal digits of a hash.
const DIGITS: usize = 64;

/// Where a chain has come to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Link {
    /// The index of the last record; 0: there is none.
    pub index: u64,
    /// Its hash.
    pub hash: String,
}

/// Writes a record as the next line of a chain, with the newline.
///
/// # Errors
/// None that can happen: a record is always JSON.
pub fn append(link: &Link, record: &mut Record, out: &mut Vec<u8>) -> Result<Link, serde_json::Error> {
    record.index = link.index + 1;
    record.prev.clone_from(&link.hash);
    let start = out.len();
    serde_json::to_writer(&mut *out, record)?;
    // The closing brace moves behind the hash.
    out.pop();
    let hash = hash_of(out.get(start..).unwrap_or_default());
    out.extend_from_slice(MARK.as_bytes());
    out.extend_from_slice(hash.as_bytes());
    out.extend_from_slice(END.as_bytes());
    out.push(b'\n');
    Ok(Link { index: record.index, hash })
}

/// Reads a line, without its newline, and checks its own hash.
///
/// # Errors
/// What is wrong with it, in a few words.
pub fn read(line: &[u8]) -> Result<(Record, String), &'static str> {
    let (body, hash) = split(line).ok_or("it has no hash at its end")?;
    if hash_of(body) != hash {
        return Err("its hash is not that of its content: it was changed");
    }
    let record = parse(line).ok_or("it is no record")?;
    Ok((record, hash.to_owned()))
}

/// Reads a line without a look at its hash.
pub fn parse(line: &[u8]) -> Option<Record> {
    serde_json::from_slice(line).ok()
}

fn split(line: &[u8]) -> Option<(&[u8], &str)> {
    let body_length = line.len().checked_sub(MARK.len() + DIGITS + END.len())?;
    let (body, tail) = line.split_at(body_length);
    let hash = std::str::from_utf8(tail).ok()?.strip_prefix(MARK)?.strip_suffix(END)?;
    hash.bytes().all(|byte| byte.is_ascii_hexdigit()).then_some((body, hash))
}

fn hash_of(bytes: &[u8]) -> String {
    hex(digest(&SHA256, bytes).as_ref())
}

/// Bytes as lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    const DIGIT: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| char::from(DIGIT.get(usize::from(nibble)).copied().unwrap_or(b'0'));
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Application, State};
    use proptest::prelude::*;

    fn line(link: &Link, input: &str) -> (Link, Vec<u8>) {
        let mut out = Vec::new();
        let link = append(link, &mut Record::new(Application::Http, State::Success, input), &mut out).unwrap();
        assert_eq!(out.pop(), Some(b'\n'));
        (link, out)
    }

    #[test]
    fn a_line_says_what_was_written_and_names_the_one_before() {
        let (first, _) = line(&Link::default(), "one");
        let (second, text) = line(&first, "two");
        let (record, hash) = read(&text).unwrap();
        assert_eq!((record.index, record.input.as_str(), record.prev, hash), (2, "two", first.hash, second.hash));
        // What `sha256sum` says of the line up to the mark.
        let end = text.windows(MARK.len()).rposition(|window| window == MARK.as_bytes()).unwrap();
        assert_eq!(hex(digest(&SHA256, &text[..end]).as_ref()), read(&text).unwrap().1);
    }

    proptest! {
        #[test]
        fn any_changed_byte_is_seen(input in ".{0,40}", at in any::<prop::sample::Index>(), flip in 1u8..=255) {
            let (_, mut text) = line(&Link::default(), &input);
            let at = at.index(text.len());
            text[at] ^= flip;
            prop_assert!(read(&text).is_err());
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = read(&bytes);
        }
    }
}

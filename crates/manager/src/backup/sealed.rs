//! The file of a backup: who made it, and all else sealed.
//!
//! ```text
//! one line of JSON            who made it, and the key of this file, sealed for whoever may open it
//! pieces, to the end          1 byte: 1 for the last one, else 0 · 4 bytes: length, big endian · nonce, AES-256-GCM ciphertext, tag
//! ```
//!
//! The key is made for this file alone. It is sealed by a passphrase (argon2id), or for a recipient's public key (HPKE, RFC 9180, DHKEM(P-256, HKDF-SHA256), HKDF-SHA256, AES-256-GCM). What a piece is sealed for has its
//! number in it, whether it is the last, and the hash of the first line: so nothing can be changed, left out, put elsewhere, cut off or added.

use crate::passphrase::{self, NotOpened};
use crate::records::{Base64, Recovery};
use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use jiff::Timestamp;
use keystead_keyring::{KEY_BYTES, SealKey, Sealed, material};
use rustls::crypto::aws_lc_rs::hpke::DH_KEM_P256_HKDF_SHA256_AES_256 as HPKE;
use rustls::crypto::hpke::{EncapsulatedSecret, Hpke as _, HpkePrivateKey, HpkePublicKey};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use std::io::{BufRead, Error, ErrorKind, Read, Result, Write};
use uuid::Uuid;
use zeroize::Zeroizing;

/// How long a passphrase is at the least, in bytes.
pub const SHORTEST_PASSPHRASE: usize = 16;
const FORMAT: &str = "keystead-backup-1";
const RECIPIENT: &str = "keystead-recipient-1:";
const IDENTITY: &str = "keystead-identity-1:";
/// The longest first line, in bytes.
const MOST_HEADER: u64 = 64 * 1024;
/// How much is sealed at a time, in bytes.
const PIECE: usize = 64 * 1024;
/// How much longer a piece is than what is sealed in it: nonce and tag.
const OVERHEAD: usize = 28;

/// Whom a backup is sealed for.
pub enum Lock {
    /// Whoever knows it: [`SHORTEST_PASSPHRASE`] bytes or more.
    Passphrase(SecretString),
    /// Whoever has the identity that this recipient belongs to, as [`new_identity`] gives it.
    Recipient(String),
}

/// What opens a backup.
pub enum Key {
    /// The passphrase.
    Passphrase(SecretString),
    /// The recipient's identity.
    Identity(SecretString),
}

/// What can be read of a backup without its key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    format: String,
    /// The cluster.
    pub cluster: Uuid,
    /// Its name.
    pub cluster_name: String,
    /// The moment that it is of.
    pub made: Timestamp,
    /// The program that made it.
    pub version: String,
    key: SealedKey,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum SealedKey {
    Passphrase(Recovery),
    Recipient { recipient: String, encapsulated: Base64, sealed: Base64 },
}

impl Header {
    /// Whether it is opened by an identity, and not by a passphrase.
    pub fn is_for_recipient(&self) -> bool {
        matches!(self.key, SealedKey::Recipient { .. })
    }

    /// How it is opened, in words.
    pub fn lock(&self) -> String {
        match &self.key {
            SealedKey::Passphrase(_) => "a passphrase".to_owned(),
            SealedKey::Recipient { recipient, .. } => format!("the identity of {recipient}"),
        }
    }
}

/// A new identity, which is secret, and the recipient that goes with it, which is not.
///
/// # Errors
/// None that can happen.
pub fn new_identity() -> std::result::Result<(SecretString, String), String> {
    let (public, private) = HPKE.generate_key_pair().map_err(|error| error.to_string())?;
    let identity = Zeroizing::new(format!("{IDENTITY}{}", BASE64.encode(private.secret_bytes())));
    Ok((SecretString::from(identity.as_str()), format!("{RECIPIENT}{}", BASE64.encode(&public.0))))
}

/// Writes a backup: what is written here is sealed.
pub struct Sealer<W: Write> {
    out: W,
    pieces: Pieces,
    buffer: Zeroizing<Vec<u8>>,
}

impl<W: Write> Sealer<W> {
    /// Begins. Takes a tenth of a second, and 64 MiB, with a passphrase.
    ///
    /// # Errors
    /// `InvalidInput`: the passphrase is too short, or the recipient is none. Those of `out`.
    pub fn begin(mut out: W, (cluster, cluster_name): (Uuid, &str), made: Timestamp, version: &str, lock: &Lock) -> Result<Self> {
        let file_key = material::generate(KEY_BYTES);
        let place = key_place(cluster, made);
        let sealed = match lock {
            Lock::Passphrase(passphrase) => SealedKey::Passphrase(seal_for_passphrase(&place, &file_key, passphrase)?),
            Lock::Recipient(recipient) => seal_for_recipient(&place, &file_key, recipient)?,
        };
        let header = Header { format: FORMAT.to_owned(), cluster, cluster_name: cluster_name.to_owned(), made, version: version.to_owned(), key: sealed };
        let mut line = serde_json::to_vec(&header).map_err(Error::other)?;
        line.push(b'\n');
        out.write_all(&line)?;
        Ok(Self { out, pieces: Pieces::new(&line, file_key)?, buffer: Zeroizing::new(Vec::with_capacity(PIECE)) })
    }

    /// Ends, and gives back what was written to. A backup without its end is refused.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn finish(mut self) -> Result<W> {
        self.piece(true)?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn piece(&mut self, last: bool) -> Result<()> {
        let sealed = self.pieces.seal(last, &self.buffer);
        self.out.write_all(&[u8::from(last)])?;
        self.out.write_all(&u32::try_from(sealed.len()).unwrap_or(u32::MAX).to_be_bytes())?;
        self.out.write_all(&sealed)?;
        self.buffer.clear();
        Ok(())
    }
}

impl<W: Write> Write for Sealer<W> {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        if self.buffer.len() == PIECE {
            self.piece(false)?;
        }
        let (taken, _) = bytes.split_at(bytes.len().min(PIECE - self.buffer.len()));
        self.buffer.extend_from_slice(taken);
        Ok(taken.len())
    }

    fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}

/// Reads a backup: what comes from here is as it was written, and what was changed is an error (`InvalidData`), at that place at the latest.
pub struct Opener<R: BufRead> {
    source: R,
    pieces: Pieces,
    piece: Zeroizing<Vec<u8>>,
    at: usize,
    is_over: bool,
    /// Nothing is believed behind a place where it was changed.
    is_changed: bool,
}

/// Reads what can be read without a key.
///
/// # Errors
/// `InvalidData`: it is no backup, or one of another version. Those of `source`.
pub fn header(source: &mut impl BufRead) -> Result<(Header, Vec<u8>)> {
    let mut line = Vec::new();
    source.take(MOST_HEADER).read_until(b'\n', &mut line)?;
    let none = || invalid("it is no backup of Keystead");
    if line.last() != Some(&b'\n') {
        return Err(none());
    }
    let header: Header = serde_json::from_slice(&line).map_err(|_| none())?;
    if header.format != FORMAT {
        return Err(invalid(format!("its format is {}, and this version reads {FORMAT}", header.format)));
    }
    Ok((header, line))
}

impl<R: BufRead> Opener<R> {
    /// Opens it. As costly as [`Sealer::begin`].
    ///
    /// # Errors
    /// `InvalidData`: it is no backup, the key is another one, or it was changed. Those of `source`.
    pub fn open(mut source: R, key: &Key) -> Result<(Header, Self)> {
        let (header, line) = header(&mut source)?;
        let place = key_place(header.cluster, header.made);
        let file_key = match (&header.key, key) {
            (SealedKey::Passphrase(sealed), Key::Passphrase(passphrase)) => passphrase::open(&place, sealed, passphrase).map_err(|error| match error {
                NotOpened::Wrong => invalid("the passphrase is not the one that it was sealed with, or it was changed"),
                NotOpened::Failed(why) => invalid(why),
            })?,
            (SealedKey::Recipient { encapsulated, sealed, .. }, Key::Identity(identity)) => open_for_identity(&place, encapsulated, sealed, identity)?,
            _ => return Err(invalid(format!("it is opened by {}", header.lock()))),
        };
        let pieces = Pieces::new(&line, file_key)?;
        Ok((header, Self { source, pieces, piece: Zeroizing::new(Vec::new()), at: 0, is_over: false, is_changed: false }))
    }

    fn next_piece(&mut self) -> Result<()> {
        let mut head = [0u8; 5];
        self.source.read_exact(&mut head).map_err(cut_off)?;
        let [last, length @ ..] = head;
        let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        if last > 1 || !(OVERHEAD..=PIECE + OVERHEAD).contains(&length) {
            return Err(changed());
        }
        let mut sealed = vec![0u8; length];
        self.source.read_exact(&mut sealed).map_err(cut_off)?;
        let is_last = last == 1;
        let piece = self.pieces.open(is_last, sealed)?;
        if is_last && !self.source.fill_buf()?.is_empty() {
            return Err(invalid("something was added at its end"));
        }
        // That it is the last is believed when the piece says so, and not before: else who reads on after an error would find an end.
        (self.piece, self.at, self.is_over) = (piece, 0, is_last);
        Ok(())
    }
}

impl<R: BufRead> Read for Opener<R> {
    fn read(&mut self, out: &mut [u8]) -> Result<usize> {
        if self.is_changed {
            return Err(changed());
        }
        while self.at == self.piece.len() && !self.is_over {
            self.next_piece().inspect_err(|_| self.is_changed = true)?;
        }
        let left = self.piece.get(self.at..).unwrap_or_default();
        let count = left.len().min(out.len());
        for (to, from) in out.iter_mut().zip(left) {
            *to = *from;
        }
        self.at += count;
        Ok(count)
    }
}

/// Seals and opens pieces, in their order.
struct Pieces {
    key: SealKey,
    header: String,
    number: u64,
}

impl Pieces {
    fn new(line: &[u8], mut key: Zeroizing<Vec<u8>>) -> Result<Self> {
        let header = BASE64.encode(digest::digest(&digest::SHA256, line));
        let key = SealKey::take(&mut key).ok_or_else(|| invalid("its key has another length"))?;
        Ok(Self { key, header, number: 0 })
    }

    fn seal(&mut self, last: bool, text: &[u8]) -> Vec<u8> {
        let place = self.place(last);
        self.key.seal(&place, text).0
    }

    fn open(&mut self, last: bool, sealed: Vec<u8>) -> Result<Zeroizing<Vec<u8>>> {
        let place = self.place(last);
        self.key.open(&place, &Sealed(sealed)).map_err(|_| changed())
    }

    fn place(&mut self, last: bool) -> String {
        let number = self.number;
        self.number += 1;
        format!("{FORMAT} {} {number} {}", self.header, if last { "last" } else { "more" })
    }
}

fn key_place(cluster: Uuid, made: Timestamp) -> String {
    format!("{FORMAT} {cluster} {made}")
}

fn seal_for_passphrase(place: &str, key: &[u8], passphrase: &SecretString) -> Result<Recovery> {
    let length = passphrase.expose_secret().len();
    if length < SHORTEST_PASSPHRASE {
        return Err(Error::new(ErrorKind::InvalidInput, format!("the passphrase must have {SHORTEST_PASSPHRASE} bytes at the least, and has {length}")));
    }
    passphrase::seal(place, key, passphrase).map_err(Error::other)
}

fn seal_for_recipient(place: &str, key: &[u8], recipient: &str) -> Result<SealedKey> {
    let none =
        || Error::new(ErrorKind::InvalidInput, format!("this is no recipient of backups: keystead backup keygen prints one, which starts with {RECIPIENT}"));
    let public = recipient.strip_prefix(RECIPIENT).and_then(|text| BASE64.decode(text).ok()).ok_or_else(none)?;
    let (encapsulated, sealed) = HPKE.seal(place.as_bytes(), &[], key, &HpkePublicKey(public)).map_err(|_| none())?;
    Ok(SealedKey::Recipient { recipient: recipient.to_owned(), encapsulated: Base64(encapsulated.0), sealed: Base64(sealed) })
}

fn open_for_identity(place: &str, encapsulated: &Base64, sealed: &Base64, identity: &SecretString) -> Result<Zeroizing<Vec<u8>>> {
    let wrong = || invalid("the identity is not the one that it was sealed for, or it was changed");
    let private = identity.expose_secret().trim().strip_prefix(IDENTITY).and_then(|text| BASE64.decode(text).ok());
    let private = HpkePrivateKey::from(private.ok_or_else(|| invalid(format!("the identity does not start with {IDENTITY}")))?);
    let opened = HPKE.open(&EncapsulatedSecret(encapsulated.0.clone()), place.as_bytes(), &[], &sealed.0, &private);
    opened.map(Zeroizing::new).map_err(|_| wrong())
}

fn invalid(why: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidData, why.into())
}

fn changed() -> Error {
    invalid("it is damaged, or it was changed")
}

fn cut_off(error: Error) -> Error {
    if error.kind() == ErrorKind::UnexpectedEof { invalid("its end is missing") } else { error }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENGTH: usize = 2 * PIECE + 77;

    fn text() -> Vec<u8> {
        (0..LENGTH).map(|n| u8::try_from(n % 251).unwrap()).collect()
    }

    fn sealed(lock: &Lock) -> Vec<u8> {
        let mut sealer = Sealer::begin(Vec::new(), (Uuid::nil(), "cluster1"), Timestamp::UNIX_EPOCH, "1.2.3", lock).unwrap();
        sealer.write_all(&text()).unwrap();
        sealer.finish().unwrap()
    }

    fn opened(file: &[u8], key: &Key) -> Result<Vec<u8>> {
        let (_, mut opener) = Opener::open(file, key)?;
        let mut all = Vec::new();
        opener.read_to_end(&mut all)?;
        Ok(all)
    }

    #[test]
    fn the_passphrase_opens_it_and_nothing_else_does() {
        let passphrase = || SecretString::from("a passphrase of a good length");
        let file = sealed(&Lock::Passphrase(passphrase()));
        assert!(opened(&file, &Key::Passphrase(passphrase())).unwrap() == text());
        let wrong = opened(&file, &Key::Passphrase(SecretString::from("another passphrase"))).unwrap_err();
        assert!(wrong.to_string().contains("passphrase"), "{wrong}");
        let (identity, _) = new_identity().unwrap();
        assert!(opened(&file, &Key::Identity(identity)).unwrap_err().to_string().contains("opened by a passphrase"));
        let short = Sealer::begin(Vec::new(), (Uuid::nil(), ""), Timestamp::UNIX_EPOCH, "", &Lock::Passphrase(SecretString::from("fifteen bytes..")));
        assert_eq!(short.map(drop).unwrap_err().kind(), ErrorKind::InvalidInput);
    }

    #[test]
    fn the_identity_of_its_recipient_opens_it_and_no_other() {
        let (identity, recipient) = new_identity().unwrap();
        let file = sealed(&Lock::Recipient(recipient.clone()));
        assert!(header(&mut file.as_slice()).unwrap().0.lock().contains(&recipient));
        assert!(opened(&file, &Key::Identity(identity)).unwrap() == text());
        assert!(opened(&file, &Key::Identity(new_identity().unwrap().0)).is_err());
        let nobody = Sealer::begin(Vec::new(), (Uuid::nil(), ""), Timestamp::UNIX_EPOCH, "", &Lock::Recipient("age1xyz".to_owned()));
        assert_eq!(nobody.map(drop).unwrap_err().kind(), ErrorKind::InvalidInput);
    }

    #[test]
    fn a_byte_that_was_changed_is_noticed_wherever_it_is() {
        let (identity, recipient) = new_identity().unwrap();
        let (file, key) = (sealed(&Lock::Recipient(recipient)), Key::Identity(identity));
        let line = file.iter().position(|byte| *byte == b'\n').unwrap();
        // The first line and the heads of pieces byte by byte, the rest here and there.
        let heads = (0..3).flat_map(|piece| {
            let start = line + 1 + piece * (5 + PIECE + OVERHEAD);
            start..start + 40
        });
        for at in (0..=line).chain(heads).chain((line..file.len()).step_by(997)).chain([file.len() - 1]) {
            let mut changed = file.clone();
            changed[at] ^= 1;
            assert!(opened(&changed, &key).is_err(), "{at}");
        }
    }

    #[test]
    fn who_reads_on_after_an_error_finds_neither_an_end_nor_the_rest() {
        let (identity, recipient) = new_identity().unwrap();
        let (file, key) = (sealed(&Lock::Recipient(recipient)), Key::Identity(identity));
        let start = file.iter().position(|byte| *byte == b'\n').unwrap() + 1;
        let piece = 5 + PIECE + OVERHEAD;
        // In the first piece; in the head of the second, which says then that it is the last; in the last; behind it.
        for at in [Some(start + 50), Some(start + piece), Some(file.len() - 1), None] {
            let mut changed = file.clone();
            match at {
                Some(at) => changed[at] ^= 1,
                None => changed.push(0),
            }
            let (_, mut opener) = Opener::open(changed.as_slice(), &key).unwrap();
            let mut all = Vec::new();
            assert!(opener.read_to_end(&mut all).is_err(), "{at:?}");
            for _ in 0..4 {
                assert!(opener.read(&mut [0; 100]).is_err(), "{at:?}");
            }
        }
    }

    #[test]
    fn nothing_can_be_left_out_added_or_put_elsewhere() {
        let (identity, recipient) = new_identity().unwrap();
        let (file, key) = (sealed(&Lock::Recipient(recipient.clone())), Key::Identity(identity));
        let start = file.iter().position(|byte| *byte == b'\n').unwrap() + 1;
        let piece = 5 + PIECE + OVERHEAD;
        for cut in [0, start - 1, start, start + 3, start + piece, start + 2 * piece, file.len() - 1] {
            assert!(opened(&file[..cut], &key).is_err(), "cut at {cut}");
        }
        assert!(opened(&[file.as_slice(), b"x"].concat(), &key).is_err());
        let without = [&file[..start], &file[start + piece..]].concat();
        assert!(opened(&without, &key).is_err());
        let swapped = [&file[..start], &file[start + piece..start + 2 * piece], &file[start..start + piece], &file[start + 2 * piece..]].concat();
        assert!(opened(&swapped, &key).is_err());
        // Pieces of another file for the same recipient.
        let other = sealed(&Lock::Recipient(recipient));
        let begin = other.iter().position(|byte| *byte == b'\n').unwrap() + 1;
        assert!(opened(&[&file[..start], &other[begin..]].concat(), &key).is_err());
    }
}

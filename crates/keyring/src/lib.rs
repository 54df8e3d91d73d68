//! Plaintext keys, and the only place where they live.
//!
//! * [`Kek`]: an SVM's key encryption key, 256 bits, in locked memory that is wiped when it is dropped.
//! * [`SealKey`]: the node's key that seals secrets for the store.
//! * [`Keyring`]: which KEKs are in memory now, by SVM and version.
//!
//! This room does no I/O: it neither reads a seal key nor asks AWS for anything. Nothing here has a `Debug` that shows key bytes, and nothing can be
//! serialized or compared but in constant time.
//!
//! What passes through the buffers of an SDK, a TLS library or a JSON parser is outside the types of this room. The program covers those with an allocator that
//! wipes all that it frees.

#![deny(unsafe_code)]

mod aead;
pub mod cipher;
mod heap;
mod kek;
mod locked;
pub mod material;
mod ring;
mod seal;

pub use aead::{AeadError, OVERHEAD};
pub use heap::give_back_large_allocations;
pub use kek::{CheckValue, Kek, WrappedKey};
pub use locked::{KEY_BYTES, LockedKey, locking_has_failed};
pub use ring::Keyring;
pub use seal::{SealKey, Sealed};

/// The system's random source, for everything in this room that needs one.
pub(crate) fn fill_random(bytes: &mut [u8]) {
    #[allow(clippy::expect_used)] // Without a random source no key may be made: there is nothing to go on with.
    aws_lc_rs::rand::fill(bytes).expect("the system's random source works");
}

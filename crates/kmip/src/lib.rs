//! KMIP on the wire: TTLV, names, messages, one attribute model. No I/O.
//!
//! * [`ttlv`]: bytes to a tree and back; everything that framing can get wrong.
//! * [`Tag`], [`enumeration`]: the names, one table for codec, error texts and conformance runner.
//! * [`attribute`]: what attributes there are, and what clients may do with them.
//! * [`versions`]: which version has which tag, value, bit and item.
//! * [`message`], [`request`], [`response`], [`object`], [`cipher`]: the typed layer for KMIP 1.0 to 2.1.
//!
//! Nothing that a peer sends can panic here, and memory is bounded by the length of the message and [`ttlv::MAX_ITEMS`]. A tree borrows from the message, so a
//! secret is not copied on the way in.

pub mod attribute;
pub mod cipher;
pub mod enumeration;
mod failure;
pub mod fields;
pub mod message;
pub mod object;
pub mod request;
pub mod response;
mod tag;
pub mod ttlv;
mod version;
pub mod versions;

pub use failure::{Failure, Result};
pub use tag::Tag;
pub use version::Version;

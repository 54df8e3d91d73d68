//! What the fuzz targets share: seeds, a mutator that keeps TTLV well-formed, and what must hold for whatever bytes a client sends.
//!
//! A check that fails panics: libFuzzer keeps the input, and `scripts/fuzz` ends with an error.
#![allow(clippy::panic, clippy::expect_used, clippy::unwrap_used, clippy::indexing_slicing)] // As in tests.

pub mod codec;
mod examples;
pub mod frames;
mod later;
mod messages;
pub mod mutate;
mod scene;
pub mod seeds;
pub mod session;

pub use session::Session;

//! A KMIP client, blocking: what the conformance runner, the tests and `keystead ekmip import` speak to servers with.
//!
//! * [`Endpoint`]: where a server is, who we are, and what a server may take of time and memory.
//! * [`Client`]: one mutual-TLS connection.
//! * [`message`]: requests of one operation, and the answers to them.
//!
//! A server is not trusted with anything but its own objects: whatever it sends, an answer takes bounded time and memory, and nothing panics. What a server answers may hold keys, so it
//! comes in buffers that are wiped.

mod client;
mod endpoint;
pub mod message;

pub use client::{Client, Error};
pub use endpoint::{Endpoint, Limits, client_config};

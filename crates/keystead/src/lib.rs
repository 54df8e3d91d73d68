//! The program as a library, so that a test can run the same node with a listener at its steps. No logic lives here: only how the rooms are put together.

pub mod audit;
mod audit_since;
pub mod backup;
pub mod cli;
pub mod config;
pub mod copy;
mod folder;
pub mod import;
pub mod invite;
mod last_backup;
mod logging;
mod otlp;
mod ownership;
pub mod process;
pub mod reset;
pub mod restore;
mod seal_source;
pub mod serve;
mod store_source;
mod tls;
mod typed;

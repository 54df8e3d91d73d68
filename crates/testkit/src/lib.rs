//! Test-only: a stand-in for AWS KMS that checks signatures, encrypts for real, remembers what it was asked, and goes wrong on demand.
//!
//! [`KmsStandIn::start`] runs it inside a test; the program `kms-standin` runs it as a process of its own, steered over HTTP (see [`control`]).
//! What the emulators cannot show is shown with this: throttling, hangs, lost and half answers, a clock that is off, a revocation at a given moment.
//!
//! Beside it [`etcd`], which runs a real one, [`network`], a network that fails on demand, [`disk`], a disk that is full on demand, and [`clock`], a clock that is wrong on demand.

mod account;
mod blob;
mod calls;
pub mod clock;
pub mod control;
pub mod disk;
mod error;
pub mod etcd;
mod fault;
pub mod history;
pub mod network;
mod operations;
mod server;
mod shared;
pub mod sigv4;
mod standin;
mod tls;

pub use account::{Denial, KeyInfo, KeyState, NewKey};
pub use blob::Context;
pub use calls::Call;
pub use fault::{Fault, FaultRule, FaultRules};
pub use shared::HOLD_LIMIT;
pub use standin::{KmsStandIn, Options, Tls};
pub use tls::Identity;

//! The EKMIP server: KMIP over TLS, for the SVM that the client's certificate speaks for.
//!
//! [`serve`] accepts connections; each is a session of its own: a handshake off the accept loop, then requests one after the other. What a request does stands in `operations`, what it changes
//! is committed by a `unit`. This room knows neither the store nor AWS: keys come from, and go to, `keystead_manager::keys`.

mod approved;
mod audit;
mod clients;
mod door;
mod identity;
mod managed;
mod memory;
mod metrics;
mod operations;
mod probe;
mod reason;
mod server;
mod session;
mod stored;
mod unit;

pub use approved::fips_refusal;
pub use managed::{algorithm, difference, index};
pub use probe::Probe;
pub use server::{Limits, serve};

/// For fuzzing: what the codec of stored attributes does with any bytes.
#[doc(hidden)]
pub fn reads_as_attributes(bytes: &[u8]) -> bool {
    stored::decode(bytes).is_some()
}

/// For fuzzing: the answer to whatever bytes, as a session of a client of the SVM would give it.
#[doc(hidden)]
pub async fn answer_bytes(manager: &keystead_manager::Manager, svm: uuid::Uuid, bytes: &[u8]) -> Vec<u8> {
    let mut room = memory::Room::working(&memory::Memory::new().share(), bytes.len()).await;
    let mut out = Vec::new();
    let actor = audit::Actor::nobody(svm);
    static COUNTED: std::sync::LazyLock<metrics::Counted> = std::sync::LazyLock::new(metrics::Counted::default);
    let served = operations::Served { manager, keys: &manager.keys(svm), actor: &actor, counted: &COUNTED, interop: true, shown: &[] };
    session::answer(&served, bytes, manager.now().as_second(), &|_| Ok(()), &mut room, &mut out).await;
    out
}

//! Who is connected: how many connections each certificate and each SVM has, and what their messages may take.
//!
//! Room is shared out by SVM: an SVM can have many certificates, and all of them together must not take what is there for the others.

use crate::memory::{Memory, Share};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use uuid::Uuid;

/// The clients that are connected.
pub struct Clients {
    memory: Memory,
    connected: Arc<Mutex<Connected>>,
}

/// A place among the connections of a certificate and of its SVM.
pub struct ClientSlot {
    connected: Arc<Mutex<Connected>>,
    svm: Uuid,
    fingerprint: [u8; 32],
    /// What its messages may take, together with those of the SVM's other connections.
    pub share: Arc<Share>,
}

/// Why there is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// The certificate has as many connections as it may have.
    Client,
    /// The SVM has.
    Svm,
}

#[derive(Default)]
struct Connected {
    svms: HashMap<Uuid, (usize, Arc<Share>)>,
    clients: HashMap<[u8; 32], usize>,
}

impl Clients {
    pub fn new() -> Self {
        Self { memory: Memory::new(), connected: Arc::default() }
    }

    /// How many connections each SVM has that has any.
    pub fn of_svms(&self) -> Vec<(Uuid, usize)> {
        lock(&self.connected).svms.iter().map(|(svm, (count, _))| (*svm, *count)).collect()
    }

    /// A place for one more connection.
    ///
    /// # Errors
    /// [`Full`].
    pub fn enter(&self, svm: Uuid, fingerprint: [u8; 32], most_of_client: usize, most_of_svm: usize) -> Result<ClientSlot, Full> {
        let mut guard = lock(&self.connected);
        let connected = &mut *guard;
        if connected.clients.get(&fingerprint).is_some_and(|count| *count >= most_of_client) {
            return Err(Full::Client);
        }
        if connected.svms.get(&svm).is_some_and(|(count, _)| *count >= most_of_svm) {
            return Err(Full::Svm);
        }
        *connected.clients.entry(fingerprint).or_default() += 1;
        let (count, share) = connected.svms.entry(svm).or_insert_with(|| (0, self.memory.share()));
        *count += 1;
        Ok(ClientSlot { connected: Arc::clone(&self.connected), svm, fingerprint, share: Arc::clone(share) })
    }
}

impl Drop for ClientSlot {
    fn drop(&mut self) {
        let mut connected = lock(&self.connected);
        if let Some(count) = connected.clients.get_mut(&self.fingerprint) {
            *count -= 1;
            if *count == 0 {
                connected.clients.remove(&self.fingerprint);
            }
        }
        if let Some((count, _)) = connected.svms.get_mut(&self.svm) {
            *count -= 1;
            if *count == 0 {
                connected.svms.remove(&self.svm);
            }
        }
    }
}

// A panic while the lock is held cannot leave a map half changed, so a poisoned lock is as good as any.
fn lock(connected: &Mutex<Connected>) -> MutexGuard<'_, Connected> {
    connected.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_by_certificate_and_by_svm_and_given_back() {
        let clients = Clients::new();
        let (a, b) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let enter = |svm, certificate: u8| clients.enter(svm, [certificate; 32], 2, 3);
        let first = enter(a, 1).unwrap();
        let _second = enter(a, 1).unwrap();
        assert_eq!(enter(a, 1).err(), Some(Full::Client));
        let _third = enter(a, 2).unwrap();
        assert_eq!(enter(a, 2).err(), Some(Full::Svm));
        assert!(enter(b, 3).is_ok(), "others have their own places");
        drop(first);
        assert!(enter(a, 2).is_ok());
        assert_eq!(lock(&clients.connected).svms.len(), 1);
    }
}

//! Which KEKs are in memory now.

use crate::kek::Kek;
use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};
use uuid::Uuid;

/// The KEKs in this process, by SVM and version. Cheap to share; a reader holds an [`Arc`] to a KEK only for the moment of its use, so that
/// [`Keyring::forget`] leaves none behind.
#[derive(Default)]
pub struct Keyring {
    keks: RwLock<BTreeMap<(Uuid, u32), Arc<Kek>>>,
}

impl Keyring {
    /// An empty keyring.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts a KEK in, in place of one of the same SVM and version.
    pub fn insert(&self, kek: Kek) -> Arc<Kek> {
        let kek = Arc::new(kek);
        self.write().insert((kek.svm(), kek.version()), Arc::clone(&kek));
        kek
    }

    /// Puts a KEK in where there is none of the same SVM and version.
    pub fn insert_absent(&self, kek: Kek) -> Option<Arc<Kek>> {
        match self.write().entry((kek.svm(), kek.version())) {
            std::collections::btree_map::Entry::Occupied(_) => None,
            std::collections::btree_map::Entry::Vacant(place) => Some(Arc::clone(place.insert(Arc::new(kek)))),
        }
    }

    /// Drops this KEK, and not another one that has taken its place.
    pub fn remove(&self, kek: &Arc<Kek>) {
        let mut keks = self.write();
        let id = (kek.svm(), kek.version());
        if keks.get(&id).is_some_and(|held| Arc::ptr_eq(held, kek)) {
            keks.remove(&id);
        }
    }

    /// The KEK of that version, where it is in memory.
    pub fn get(&self, svm: Uuid, version: u32) -> Option<Arc<Kek>> {
        self.read().get(&(svm, version)).cloned()
    }

    /// The versions of an SVM's KEK that are in memory, ascending.
    pub fn versions(&self, svm: Uuid) -> Vec<u32> {
        self.read().range((svm, 0)..=(svm, u32::MAX)).map(|((_, version), _)| *version).collect()
    }

    /// The SVMs with a KEK in memory.
    pub fn svms(&self) -> Vec<Uuid> {
        let mut svms: Vec<Uuid> = self.read().keys().map(|(svm, _)| *svm).collect();
        svms.dedup();
        svms
    }

    /// Drops, and so wipes, every version of the SVM's KEK. Returns how many there were.
    pub fn forget(&self, svm: Uuid) -> usize {
        let mut keks = self.write();
        let before = keks.len();
        keks.retain(|(owner, _), _| *owner != svm);
        before - keks.len()
    }

    /// Drops every version of the SVM's KEK but those in `keep`.
    pub fn retain(&self, svm: Uuid, keep: &[u32]) {
        self.write().retain(|(owner, version), _| *owner != svm || keep.contains(version));
    }

    // A panic while the lock is held cannot leave the map half changed, so a poisoned lock is as good as any.
    fn read(&self) -> std::sync::RwLockReadGuard<'_, BTreeMap<(Uuid, u32), Arc<Kek>>> {
        self.keks.read().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, BTreeMap<(Uuid, u32), Arc<Kek>>> {
        self.keks.write().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kek_takes_nobodys_place_and_leaves_with_itself_alone() {
        let (svm, ring) = (Uuid::from_u128(1), Keyring::new());
        let first = ring.insert_absent(Kek::generate(svm, 1)).unwrap();
        assert!(ring.insert_absent(Kek::generate(svm, 1)).is_none());
        let second = ring.insert(Kek::generate(svm, 1));
        ring.remove(&first);
        assert!(Arc::ptr_eq(&ring.get(svm, 1).unwrap(), &second));
        ring.remove(&second);
        assert!(ring.get(svm, 1).is_none());
    }

    #[test]
    fn forgetting_one_svm_leaves_the_others() {
        let (a, b) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let ring = Keyring::new();
        ring.insert(Kek::generate(a, 1));
        ring.insert(Kek::generate(a, 2));
        ring.insert(Kek::generate(b, 1));
        assert_eq!((ring.versions(a), ring.svms()), (vec![1, 2], vec![a, b]));
        assert_eq!(ring.forget(a), 2);
        assert!(ring.get(a, 1).is_none());
        assert!(ring.get(b, 1).is_some());
    }

    #[test]
    fn retain_retires_old_versions() {
        let a = Uuid::from_u128(1);
        let ring = Keyring::new();
        for version in 1..=3 {
            ring.insert(Kek::generate(a, version));
        }
        ring.retain(a, &[3]);
        assert_eq!(ring.versions(a), [3]);
    }
}

//! KEKs that a job has proven and brought into memory before the store holds what relies on them. However the job ends, what it does not keep leaves memory again.

use crate::inner::Inner;
use crate::poll::Settling;
use keystead_keyring::Kek;
use std::sync::Arc;

/// A KEK in memory that nobody else relies on yet.
pub(crate) struct Held<'h> {
    pub manager: &'h Inner,
    pub kek: Option<Arc<Kek>>,
}

impl Held<'_> {
    /// It is stored: it stays.
    pub fn keep(mut self) {
        self.kek = None;
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if let Some(kek) = self.kek.take() {
            self.manager.keyring.remove(&kek);
        }
    }
}

/// KEKs in memory that a job has proven for a configuration which holds none in the store yet, and the machine for them. Without [`Begun::keep`] they leave it again, however the job ends.
pub(crate) struct Begun<'b> {
    pub manager: &'b Inner,
    pub kek: Option<Arc<Kek>>,
    pub _settling: Settling<'b>,
}

impl Begun<'_> {
    /// It is stored, and the view shows it.
    pub fn keep(mut self) {
        self.kek = None;
    }
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        if let Some(kek) = self.kek.take() {
            self.manager.polls.forget(kek.svm());
            self.manager.keyring.remove(&kek);
        }
    }
}

//! The warning that keys are in memory which can be swapped.

use std::sync::Once;

/// Warns, once, where the memory of a key could not be locked. To be called when keys have come into memory.
pub(crate) fn warn() {
    static TOLD: Once = Once::new();
    if keystead_keyring::locking_has_failed() {
        TOLD.call_once(|| {
            tracing::warn!(
                "the system lets this process lock no more memory: keys may be swapped to disk; raise the limit (LimitMEMLOCK of systemd, ulimit -l), or turn swap off"
            );
        });
    }
}

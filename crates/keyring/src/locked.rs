//! 256 bits in memory that is locked (never swapped), kept out of core dumps, and wiped when dropped.

use std::sync::atomic::{AtomicBool, Ordering};
use subtle::ConstantTimeEq;
use zeroize::Zeroize;

/// The length of every symmetric key of the hierarchy, in bytes: AES-256.
pub const KEY_BYTES: usize = 32;

/// A 256-bit key on pages of its own kind. Moving the value moves a pointer, not the key.
///
/// Locking is a best effort: where the process may lock no more memory (`RLIMIT_MEMLOCK`), the key still works and is still wiped. [`LockedKey::is_locked`]
/// tells of one key, and [`locking_has_failed`] of all, so that the program can warn the operator.
pub struct LockedKey {
    bytes: Box<[u8; KEY_BYTES]>,
    locked: bool,
}

/// Whether a key was ever made that is not locked.
static UNLOCKED: AtomicBool = AtomicBool::new(false);

/// Whether the memory of any key could not be locked since the process began.
pub fn locking_has_failed() -> bool {
    UNLOCKED.load(Ordering::Relaxed)
}

impl LockedKey {
    /// Makes a new random key.
    pub fn generate() -> Self {
        let mut key = Self::zeroed();
        crate::fill_random(key.bytes.as_mut_slice());
        key
    }

    /// Takes a key over and wipes the source, whether or not it has the right length (32 bytes; else `None`).
    pub fn take(source: &mut [u8]) -> Option<Self> {
        let key = (source.len() == KEY_BYTES).then(|| {
            let mut key = Self::zeroed();
            key.bytes.copy_from_slice(source);
            key
        });
        source.zeroize();
        key
    }

    /// The key bytes. Callers must not copy them anywhere that is not wiped.
    pub fn expose(&self) -> &[u8; KEY_BYTES] {
        &self.bytes
    }

    /// Whether the memory is locked against swapping.
    pub fn is_locked(&self) -> bool {
        self.locked
    }

    fn zeroed() -> Self {
        let bytes = Box::new([0u8; KEY_BYTES]);
        let locked = pages::lock(bytes.as_slice());
        if !locked {
            UNLOCKED.store(true, Ordering::Relaxed);
        }
        Self { bytes, locked }
    }
}

impl Drop for LockedKey {
    fn drop(&mut self) {
        self.bytes.zeroize();
        // The pages stay locked: another key may lie on the same page, and unlocking is by page (mlock(2), NOTES).
    }
}

impl PartialEq for LockedKey {
    /// Compares in constant time.
    fn eq(&self, other: &Self) -> bool {
        self.bytes.as_slice().ct_eq(other.bytes.as_slice()).into()
    }
}

impl Eq for LockedKey {}

impl std::fmt::Debug for LockedKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LockedKey(…)")
    }
}

/// Unsafe code, as in `heap.rs` and nowhere else in the project: system calls on memory that the caller owns.
#[allow(unsafe_code)]
mod pages {
    /// Locks the pages that hold `memory` and keeps them out of core dumps. Returns whether the lock was granted.
    pub(super) fn lock(memory: &[u8]) -> bool {
        // SAFETY: mlock changes no memory; the range is a live allocation. It rounds to whole pages by itself (mlock(2)).
        let locked = unsafe { libc::mlock(memory.as_ptr().cast(), memory.len()) } == 0;
        #[cfg(target_os = "linux")]
        {
            let page = page_size();
            let start = (memory.as_ptr() as usize) & !(page - 1);
            let end = (memory.as_ptr() as usize + memory.len()).next_multiple_of(page);
            // SAFETY: MADV_DONTDUMP only marks whole pages as not to be dumped; it neither reads nor writes them (madvise(2)).
            unsafe { libc::madvise(start as *mut libc::c_void, end - start, libc::MADV_DONTDUMP) };
        }
        locked
    }

    fn page_size() -> usize {
        // SAFETY: sysconf has no preconditions.
        let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
        usize::try_from(size).ok().filter(|size| size.is_power_of_two()).unwrap_or(4096)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_taken_over_and_the_source_wiped() {
        let mut source = [7u8; 32];
        let key = LockedKey::take(&mut source).unwrap();
        assert_eq!(key.expose(), &[7u8; 32]);
        assert_eq!(source, [0u8; 32]);
    }

    #[test]
    fn a_wrong_length_is_refused_and_wiped_all_the_same() {
        let mut source = [7u8; 31];
        assert!(LockedKey::take(&mut source).is_none());
        assert_eq!(source, [0u8; 31]);
    }

    #[test]
    fn debug_shows_no_bytes() {
        let mut source = *b"0123456789abcdef0123456789abcdef";
        let shown = format!("{:?}", LockedKey::take(&mut source).unwrap());
        assert_eq!(shown, "LockedKey(…)");
    }

    #[test]
    fn two_generated_keys_differ() {
        assert!(LockedKey::generate() != LockedKey::generate());
    }
}

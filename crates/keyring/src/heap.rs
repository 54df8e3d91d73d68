//! Memory that is given back.

/// From this size on, an allocation has pages of its own, in bytes: less than what checking a password takes, and more than what is needed often.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const OWN_PAGES: libc::c_int = 16 * 1024 * 1024;
/// How much free memory may lie at the end of a heap before it goes back. Without this, setting the other would leave it at 128 KiB, and heaps would shrink and grow all the time.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const KEPT: libc::c_int = 2 * OWN_PAGES;

/// Has the largest allocations go back to the system when they are freed. Checking one password takes 19 MiB: glibc keeps such a piece after the second one, since it takes what was freed once for what is needed often (mallopt(3), `M_MMAP_THRESHOLD`).
///
/// To be called once, before threads are started. Answers whether that could be had.
#[allow(unsafe_code)]
pub fn give_back_large_allocations() -> bool {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        // SAFETY: mallopt sets a number of the allocator, under its lock (mallopt(3)).
        unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, OWN_PAGES) == 1 && libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT) == 1 }
    }
    #[cfg(not(all(target_os = "linux", target_env = "gnu")))]
    {
        false
    }
}

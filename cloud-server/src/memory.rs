//! What the process does with memory that is free: `main` says it once, before any thread runs.
//!
//! Records of a fast agent come and go by the megabyte. glibc (mallopt(3)) gives the end of a heap back to the kernel as soon as 128 KiB of it are
//! free, so that the same pages are returned, cleared and fetched again thousands of times a second: about a sixth of the server's CPU time.
//!
//! What does not belong here: how much memory anything may take; each module bounds its own.

/// Free octets that a heap keeps at its end. Cost: at most that for each heap, and glibc makes up to eight a core.
#[cfg(target_env = "gnu")]
const KEEP: libc::c_int = 4 << 20;
/// Blocks of this size and more are given by the kernel one by one and go straight back.
#[cfg(target_env = "gnu")]
const LARGE: libc::c_int = 1 << 20;

/// Keeps free pages for the next burst. Other C libraries than glibc are left as they are.
pub fn keep_free_pages() {
    #[cfg(target_env = "gnu")]
    // SAFETY: both calls set a parameter of the allocator, under its own lock.
    unsafe {
        libc::mallopt(libc::M_TRIM_THRESHOLD, KEEP);
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE);
    }
}

//! How many files and connections the process may have open: `main` says it once.
//!
//! Each connection, and each file that is being recorded, takes a descriptor. Systems start programs with a soft limit of 1024 for the sake of old
//! ones that use select(2), and a hard limit that is meant for those that do not (setrlimit(2)).
//!
//! What does not belong here: how many connections are served; the configuration's limits bound that.

/// Raises the soft limit to the hard one. What the system refuses stays as it is.
pub fn raise_limit() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel writes one `rlimit` to the place given, and only reads it in the second call.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) == 0 && limit.rlim_cur < limit.rlim_max {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_is_the_hard_one() {
        raise_limit();
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 1 };
        // SAFETY: the kernel writes one `rlimit` to the place given.
        assert_eq!(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) }, 0);
        assert_eq!(limit.rlim_cur, limit.rlim_max);
    }
}

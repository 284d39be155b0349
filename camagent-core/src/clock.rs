//! The agent's clock: boot time, which counts through suspend and never steps. The only place that reads it.

use camagent_proto::Instant;

/// Now, on the boot-time clock.
pub(crate) fn now() -> Instant {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid timespec that lives through the call.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut time) };
    if result != 0 {
        // Kernels before 2.6.39 have no boot-time clock; the monotonic one differs by suspend only.
        // SAFETY: as above.
        unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    }
    let micros = i128::from(time.tv_sec) * 1_000_000 + i128::from(time.tv_nsec) / 1_000;
    Instant::from_micros(u64::try_from(micros).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_forward() {
        let first = now();
        assert!(first > Instant::ZERO && now() >= first);
    }
}

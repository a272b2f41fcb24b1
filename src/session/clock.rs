//! The clock that all processes of a machine share.

use std::mem::MaybeUninit;
use std::time::Duration;

/// Since some moment that is the same for every process, by a clock that nobody sets.
///
/// # References
/// clock_gettime(2), `CLOCK_MONOTONIC`. Processes in different time namespaces see it shifted.
pub(super) fn monotonic() -> Duration {
    let mut now = MaybeUninit::<libc::timespec>::uninit();
    // SAFETY: `now` is writable and of the size that clock_gettime fills.
    if unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, now.as_mut_ptr()) } != 0 {
        // Never: the clock is always there, and the pointer is good.
        return Duration::ZERO;
    }
    // SAFETY: clock_gettime returned 0, so it has filled the structure.
    let now = unsafe { now.assume_init() };
    Duration::new(now.tv_sec.try_into().unwrap_or(0), now.tv_nsec.try_into().unwrap_or(0))
}

/// The same in nanoseconds, as it travels.
pub(super) fn nanoseconds() -> u64 {
    monotonic().as_nanos().try_into().unwrap_or(u64::MAX)
}

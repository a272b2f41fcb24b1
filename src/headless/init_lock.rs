//! The lock for opening and closing.

use std::cell::Cell;
use std::sync::{Mutex, MutexGuard, PoisonError};

static OPENING_OR_CLOSING: Mutex<()> = Mutex::new(());

thread_local! {
    /// How many guards this thread has, one within the other.
    static HELD: Cell<usize> = const { Cell::new(0) };
}

/// Held while an instance, a device or a context is opened or closed: one thread at a time. A thread
/// may take it again, so that what it opened is closed if the next step fails.
///
/// Drivers are poorly tested against concurrent initialisation and teardown across APIs. The `drop` of
/// an EGL context describes a deadlock of NVIDIA's.
pub(super) struct InitLock {
    _lock: Option<MutexGuard<'static, ()>>,
}

impl InitLock {
    /// Waits for the lock.
    pub(super) fn take() -> Self {
        let held = HELD.get();
        // The mutex guards no data that a panic could leave half-written.
        let lock = || OPENING_OR_CLOSING.lock().unwrap_or_else(PoisonError::into_inner);
        let lock = (held == 0).then(lock);
        HELD.set(held + 1);
        Self { _lock: lock }
    }
}

impl Drop for InitLock {
    fn drop(&mut self) {
        HELD.set(HELD.get().saturating_sub(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lock_nests_and_is_released() {
        let outer = InitLock::take();
        drop(InitLock::take());
        assert!(OPENING_OR_CLOSING.try_lock().is_err());
        drop(outer);
        std::thread::spawn(|| drop(InitLock::take())).join().unwrap();
    }
}

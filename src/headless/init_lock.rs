//! One thread at a time opens or closes.

use std::cell::Cell;
use std::sync::{Mutex, MutexGuard, PoisonError};

static OPENING_OR_CLOSING: Mutex<()> = Mutex::new(());

thread_local! {
    /// How many turns this thread has, one within the other.
    static HELD: Cell<usize> = const { Cell::new(0) };
}

/// This thread's turn to open or close an instance, a device or a context, until it is dropped.
/// Turns may be nested: what was opened in one is closed in it where the next step fails.
///
/// Drivers are little used to many threads that open and close at once, in several APIs at that.
/// NVIDIA's has shown what comes of it: see [`Context`](super::egl::Context)'s `drop`.
pub(super) struct InitLock {
    _lock: Option<MutexGuard<'static, ()>>,
}

impl InitLock {
    /// Waits for it.
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
    fn turns_nest_and_end() {
        let outer = InitLock::take();
        drop(InitLock::take());
        assert!(OPENING_OR_CLOSING.try_lock().is_err());
        drop(outer);
        std::thread::spawn(|| drop(InitLock::take())).join().unwrap();
    }
}

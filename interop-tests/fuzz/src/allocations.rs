//! An allocator that records the largest allocation of a piece of work.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// The system's allocator, with a record of the largest allocation.
#[derive(Debug)]
pub(crate) struct Watched;

thread_local! {
    /// The largest allocation so far; `None` while it is not recorded.
    static LARGEST: Cell<Option<usize>> = const { Cell::new(None) };
}

fn note(bytes: usize) {
    // A thread that is ending may have destroyed the variable.
    let _ = LARGEST.try_with(|largest| largest.set(largest.get().map(|before| before.max(bytes))));
}

// SAFETY: each call is forwarded unchanged to the system's allocator; recording allocates nothing.
unsafe impl GlobalAlloc for Watched {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(layout.size());
        // SAFETY: the caller upholds the same contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        note(layout.size());
        // SAFETY: the caller upholds the same contract.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, old: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        note(bytes);
        // SAFETY: the caller upholds the same contract.
        unsafe { System.realloc(old, layout, bytes) }
    }

    unsafe fn dealloc(&self, old: *mut u8, layout: Layout) {
        // SAFETY: the caller upholds the same contract.
        unsafe { System.dealloc(old, layout) }
    }
}

/// Returns the largest allocation of `work` on this thread, in bytes.
pub(crate) fn largest<T>(work: impl FnOnce() -> T) -> (T, usize) {
    LARGEST.set(Some(0));
    let result = work();
    (result, LARGEST.replace(None).unwrap_or(0))
}

/// Panics if `work` allocates more than `limit` bytes at once on this thread.
pub(crate) fn within<T>(limit: usize, work: impl FnOnce() -> T) -> T {
    let (result, largest) = largest(work);
    assert!(largest <= limit, "{largest} bytes were allocated at once, more than {limit}");
    result
}

//! An allocator that knows the largest allocation of a piece of work.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// The system's allocator, watched.
#[derive(Debug)]
pub(crate) struct Watched;

thread_local! {
    /// The largest allocation so far; `None` while nobody wants to know.
    static LARGEST: Cell<Option<usize>> = const { Cell::new(None) };
}

fn note(bytes: usize) {
    // A thread that ends has no such variable any more, and nothing to tell.
    let _ = LARGEST.try_with(|largest| largest.set(largest.get().map(|before| before.max(bytes))));
}

// SAFETY: each call goes on to the system's allocator as it is; counting allocates nothing.
unsafe impl GlobalAlloc for Watched {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(layout.size());
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        note(layout.size());
        // SAFETY: as the caller promises.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, old: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        note(bytes);
        // SAFETY: as the caller promises.
        unsafe { System.realloc(old, layout, bytes) }
    }

    unsafe fn dealloc(&self, old: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(old, layout) }
    }
}

/// The largest allocation of `work` on this thread, in bytes.
pub(crate) fn largest<T>(work: impl FnOnce() -> T) -> (T, usize) {
    LARGEST.set(Some(0));
    let result = work();
    (result, LARGEST.replace(None).unwrap_or(0))
}

/// Panics where `work` allocates more than `limit` bytes at once on this thread.
pub(crate) fn within<T>(limit: usize, work: impl FnOnce() -> T) -> T {
    let (result, largest) = largest(work);
    assert!(largest <= limit, "{largest} bytes were allocated at once, more than {limit}");
    result
}

//! What the two ends of a handoff share.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::in_flight::InFlight;
use super::layouts::Layouts;
use super::wait::HostWait;
use crate::capabilities::SyncMethod;
use crate::desc::ImageLayout;
use crate::error::Result;

/// What both ends of a handoff, and its tickets, share.
#[derive(Debug)]
pub(crate) struct Channel {
    /// Named in errors.
    pub(crate) id: u64,
    pub(crate) method: SyncMethod,
    pub(crate) host: HostWait,
    limit: u64,
    /// Refuses a layout that the acquiring API doesn't have.
    check_layout: fn(ImageLayout) -> Result<()>,
    in_flight: Mutex<InFlight>,
}

impl Channel {
    pub(crate) fn new(
        method: SyncMethod,
        host: HostWait,
        limit: u32,
        check_layout: fn(ImageLayout) -> Result<()>,
    ) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let (id, limit) = (NEXT.fetch_add(1, Ordering::Relaxed), u64::from(limit));
        Self { id, method, host, limit, check_layout, in_flight: Mutex::default() }
    }

    pub(crate) fn in_flight(&self) -> MutexGuard<'_, InFlight> {
        // Nothing panics while it is locked.
        self.in_flight.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the numbers of the next `count` releases, if so many more may be in flight.
    pub(crate) fn next(&self, count: usize) -> Result<Range<u64>> {
        self.in_flight().next(count as u64, self.limit)
    }

    /// Refuses to release in a layout that the acquiring API doesn't have.
    pub(crate) fn check_layouts(&self, layouts: &Layouts) -> Result<()> {
        layouts.handed_over().try_for_each(self.check_layout)
    }
}

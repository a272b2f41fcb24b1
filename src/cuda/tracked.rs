//! Kernel arguments whose uses cudarc tracks with events.

use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, catch_unwind};

use cudarc::driver::{CudaSlice, DriverError as CudarcError, sys};

use super::context::failed;
use super::endpoint::Endpoint;
use super::fence::is_idle;
use crate::error::Result;

/// A 64-bit kernel argument in a cudarc slice, so that cudarc's launches and copies record their uses
/// in the slice's events.
///
/// Dropping it does nothing and leaks the events; call [`finish`](Self::finish) first.
#[derive(Debug)]
pub(crate) struct TrackedSlice {
    /// Dropping a cudarc slice frees its memory, which cudarc has not allocated here.
    slice: ManuallyDrop<CudaSlice<u8>>,
}

impl TrackedSlice {
    /// Tracks `len` bytes at the address `number`.
    ///
    /// # Safety
    /// `len` bytes are mapped at that address until `finish` returns. If `len` is 0, `number` may be
    /// any number.
    pub(crate) unsafe fn new(
        endpoint: &Endpoint,
        number: sys::CUdeviceptr,
        len: usize,
    ) -> Result<Self> {
        let context = endpoint.context();
        let _current = endpoint.enter()?;
        if context.is_event_tracking() {
            // `upgrade_device_ptr` creates two events and panics if that fails, so its preconditions
            // are checked first: no error recorded earlier, a context that is not lost, free memory.
            let earlier = context.check_err();
            earlier.map_err(|CudarcError(result)| {
                failed("a call made while an object was dropped", result)
            })?;
            let event = context.new_event(None);
            event.map_err(|CudarcError(result)| failed("cuEventCreate", result))?;
        }
        let stream = context.default_stream();
        // SAFETY: the caller promises that the memory is mapped there and is that long, and any bits
        // are valid bytes. The slice itself is never dropped, which would free memory that cudarc did
        // not allocate.
        let upgraded = catch_unwind(AssertUnwindSafe(|| unsafe {
            stream.upgrade_device_ptr::<u8>(number, len)
        }));
        // Happens only if another thread has lost the context or recorded an error since the checks.
        let slice =
            upgraded.map_err(|_| failed("cuEventCreate", sys::CUresult::CUDA_ERROR_UNKNOWN))?;
        Ok(Self { slice: ManuallyDrop::new(slice) })
    }

    /// The argument of a kernel that only reads.
    pub(crate) fn slice(&self) -> &CudaSlice<u8> {
        &self.slice
    }

    /// The argument of a kernel that also writes.
    pub(crate) fn slice_mut(&mut self) -> &mut CudaSlice<u8> {
        &mut self.slice
    }

    /// For `Drop`: waits for the last use that cudarc has recorded and returns whether the object,
    /// which `what` names, may be destroyed.
    ///
    /// # Safety
    /// Must be called only once, and no other method afterwards.
    pub(crate) unsafe fn finish(&mut self, endpoint: &Endpoint, what: &'static str) -> bool {
        let context = endpoint.context();
        let current = endpoint.enter();
        // A cudarc call that finds an error recorded earlier returns it and does nothing. So it is
        // taken out while waiting, and recorded again afterwards.
        let earlier = context.check_err();
        // SAFETY: taken only once, as the caller promises.
        let slice = unsafe { ManuallyDrop::take(&mut self.slice) };
        let stream = slice.stream().clone();
        // Makes the default stream wait for the recorded uses, then drops the slice's events and
        // keeps the memory.
        let _number = slice.leak();
        let is_done = endpoint.wait_before_drop(what, || is_idle(&stream));
        if let Err(CudarcError(result)) = earlier {
            context.record_err(Err::<(), _>(CudarcError(result)));
        }
        drop(current);
        is_done
    }
}

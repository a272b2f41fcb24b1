//! What kernels are given, and the events by which cudarc knows who still uses it.

use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, catch_unwind};

use cudarc::driver::{CudaSlice, DriverError as CudarcError, sys};

use super::endpoint::Endpoint;
use super::error::failed;
use super::event::is_idle;
use crate::error::Result;

/// A number that kernels take as an argument, in a slice of cudarc's: its launches and copies record
/// in the slice's events that they use it.
///
/// Dropping it does nothing and leaks the events: [`finish`](Self::finish) comes before.
#[derive(Debug)]
pub(crate) struct TrackedSlice {
    /// cudarc's slice would free the memory if it were dropped.
    slice: ManuallyDrop<CudaSlice<u8>>,
}

impl TrackedSlice {
    /// `len` bytes at the address `number`.
    ///
    /// # Safety
    /// So many bytes are mapped there until `finish` returns. With a `len` of 0 nothing is said to be
    /// mapped anywhere, and the number may be any.
    pub(crate) unsafe fn new(
        endpoint: &Endpoint,
        number: sys::CUdeviceptr,
        len: usize,
    ) -> Result<Self> {
        let context = endpoint.context();
        let _current = endpoint.enter()?;
        if context.is_event_tracking() {
            // `upgrade_device_ptr` makes two events and panics where it can't. What would keep it from
            // that is found out before: an error recorded earlier, a context that is lost, no memory.
            let earlier = context.check_err();
            earlier.map_err(|CudarcError(result)| failed("a call made while dropping", result))?;
            let event = context.new_event(None);
            event.map_err(|CudarcError(result)| failed("cuEventCreate", result))?;
        }
        let stream = context.default_stream();
        // SAFETY: the memory is mapped there and is that long, as the caller says, and any bits are
        // bytes. The slice is never dropped as such, which would free memory that cudarc did not
        // allocate.
        let upgraded = catch_unwind(AssertUnwindSafe(|| unsafe {
            stream.upgrade_device_ptr::<u8>(number, len)
        }));
        // Only where another thread has lost the context, or recorded an error, since the event above.
        let slice =
            upgraded.map_err(|_| failed("cuEventCreate", sys::CUresult::CUDA_ERROR_UNKNOWN))?;
        Ok(Self { slice: ManuallyDrop::new(slice) })
    }

    /// As a kernel's argument that is read.
    pub(crate) fn slice(&self) -> &CudaSlice<u8> {
        &self.slice
    }

    /// As a kernel's argument that is read and written.
    pub(crate) fn slice_mut(&mut self) -> &mut CudaSlice<u8> {
        &mut self.slice
    }

    /// For `Drop`: waits for the last use that cudarc has recorded, which `what` names, and says
    /// whether what was used may go now.
    ///
    /// # Safety
    /// Called once, and nothing else of this is called afterwards.
    pub(crate) unsafe fn finish(&mut self, endpoint: &Endpoint, what: &'static str) -> bool {
        let context = endpoint.context();
        let current = endpoint.enter();
        // A cudarc call that finds an error recorded earlier returns that and does nothing: it must
        // not be in the way of waiting, and must not get lost either.
        let earlier = context.check_err();
        // SAFETY: taken once, as the caller says.
        let slice = unsafe { ManuallyDrop::take(&mut self.slice) };
        let stream = slice.stream().clone();
        // Makes the default stream wait for the uses that cudarc has recorded, then drops the slice's
        // events and keeps the memory.
        let _number = slice.leak();
        let is_done = endpoint.settle(what, || is_idle(&stream));
        if let Err(CudarcError(result)) = earlier {
            context.record_err(Err::<(), _>(CudarcError(result)));
        }
        drop(current);
        is_done
    }
}

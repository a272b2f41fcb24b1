//! CUDA's passes by plain CUDA calls.

use std::hint;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd as _, IntoRawFd as _, OwnedFd};
use std::ptr;
use std::rc::Rc;

use anyhow::{Result, bail, ensure};
use gpu_interop::cudarc::driver::sys;
use gpu_interop::handoff::WaitMode;

use super::{Exported, KERNEL, RawSecondApi};
use interop_gpu::cuda::CudaContext;

/// CUDA's view of the payload.
pub(crate) struct RawCudaBuffer {
    memory: sys::CUexternalMemory,
    address: sys::CUdeviceptr,
    bytes: u64,
}

/// CUDA's view of the payload, two semaphores and an event.
pub(crate) struct RawCuda {
    gpu: Rc<CudaContext>,
    grid: u32,
    buffer: RawCudaBuffer,
    /// Waited for, and signalled.
    semaphores: Option<[sys::CUexternalSemaphore; 2]>,
    done: sys::CUevent,
}

fn check(call: &str, result: sys::CUresult) -> Result<()> {
    ensure!(result == sys::CUresult::CUDA_SUCCESS, "{call}: {result:?}");
    Ok(())
}

impl RawCudaBuffer {
    /// Imports a payload's memory and maps it as a buffer. The context is current.
    pub(crate) fn import(exported: Exported) -> Result<Self> {
        let Exported { memory: fd, allocation_size, bytes, .. } = exported;
        let (mut memory, mut address) = (ptr::null_mut(), 0);
        let mut desc = MaybeUninit::<sys::CUDA_EXTERNAL_MEMORY_HANDLE_DESC>::zeroed();
        let at = desc.as_mut_ptr();
        // SAFETY: each write is to a field; the type, which has no zero, is written. The context is
        // current, the descriptor open and from now on CUDA's.
        unsafe {
            use sys::CUexternalMemoryHandleType as Type;
            (&raw mut (*at).type_).write(Type::CU_EXTERNAL_MEMORY_HANDLE_TYPE_OPAQUE_FD);
            (&raw mut (*at).handle.fd).write(fd.as_raw_fd());
            (&raw mut (*at).size).write(allocation_size);
            check("cuImportExternalMemory", sys::cuImportExternalMemory(&mut memory, at))?;
        }
        let _ = fd.into_raw_fd();
        let size = bytes;
        let mapped =
            sys::CUDA_EXTERNAL_MEMORY_BUFFER_DESC { offset: 0, size, flags: 0, reserved: [0; 16] };
        // SAFETY: the memory was imported and is that long.
        unsafe {
            let result = sys::cuExternalMemoryGetMappedBuffer(&mut address, memory, &mapped);
            check("cuExternalMemoryGetMappedBuffer", result)?;
        }
        Ok(Self { memory, address, bytes })
    }
}

impl Drop for RawCudaBuffer {
    fn drop(&mut self) {
        // SAFETY: both created by `import`, and not in use. What can't be freed is leaked.
        unsafe {
            let _ = sys::cuMemFree_v2(self.address);
            let _ = sys::cuDestroyExternalMemory(self.memory);
        }
    }
}

impl RawCuda {
    pub(crate) fn new(gpu: Rc<CudaContext>, grid: u32, mut exported: Exported) -> Result<Self> {
        gpu.cuda.context().bind_to_thread()?;
        let semaphores = exported.semaphores.take();
        let buffer = RawCudaBuffer::import(exported)?;
        let mut done = ptr::null_mut();
        let flags = sys::CUevent_flags::CU_EVENT_DISABLE_TIMING as u32;
        // SAFETY: the context is current.
        check("cuEventCreate", unsafe { sys::cuEventCreate(&mut done, flags) })?;
        let semaphores = match semaphores {
            Some([signalled, waited]) => {
                Some([import_semaphore(signalled)?, import_semaphore(waited)?])
            }
            None => None,
        };
        Ok(Self { gpu, grid, buffer, semaphores, done })
    }

    fn launch(&self) -> Result<()> {
        // SAFETY: the payload is this side's, and the benchmark keeps it until it has waited.
        unsafe { self.gpu.launch_at(KERNEL, self.buffer.address, self.buffer.bytes, self.grid) }
    }
}

fn import_semaphore(fd: OwnedFd) -> Result<sys::CUexternalSemaphore> {
    use sys::CUexternalSemaphoreHandleType as Type;
    let mut semaphore = ptr::null_mut();
    let mut desc = MaybeUninit::<sys::CUDA_EXTERNAL_SEMAPHORE_HANDLE_DESC>::zeroed();
    let at = desc.as_mut_ptr();
    // SAFETY: as for the memory.
    unsafe {
        let ty = Type::CU_EXTERNAL_SEMAPHORE_HANDLE_TYPE_TIMELINE_SEMAPHORE_FD;
        (&raw mut (*at).type_).write(ty);
        (&raw mut (*at).handle.fd).write(fd.as_raw_fd());
        check("cuImportExternalSemaphore", sys::cuImportExternalSemaphore(&mut semaphore, at))?;
    }
    let _ = fd.into_raw_fd();
    Ok(semaphore)
}

impl RawSecondApi for RawCuda {
    fn pass(&mut self, value: u64) -> Result<()> {
        let Some([wait, signal]) = &self.semaphores else {
            bail!("this handoff has no semaphores")
        };
        let stream = self.gpu.stream.cu_stream();
        let mut params = MaybeUninit::<sys::CUDA_EXTERNAL_SEMAPHORE_WAIT_PARAMS>::zeroed();
        let at = params.as_mut_ptr();
        // SAFETY: a write to a field, all others may be zero; one semaphore and one set of parameters.
        unsafe {
            (&raw mut (*at).params.fence.value).write(value);
            let result = sys::cuWaitExternalSemaphoresAsync(wait, at, 1, stream);
            check("cuWaitExternalSemaphoresAsync", result)?;
        }
        self.launch()?;
        let mut params = MaybeUninit::<sys::CUDA_EXTERNAL_SEMAPHORE_SIGNAL_PARAMS>::zeroed();
        let at = params.as_mut_ptr();
        // SAFETY: as above.
        unsafe {
            (&raw mut (*at).params.fence.value).write(value);
            let result = sys::cuSignalExternalSemaphoresAsync(signal, at, 1, stream);
            check("cuSignalExternalSemaphoresAsync", result)
        }
    }

    fn pass_by_host(&mut self, wait: WaitMode) -> Result<()> {
        self.launch()?;
        // SAFETY: the event and the stream are of one context.
        let result = unsafe { sys::cuEventRecord(self.done, self.gpu.stream.cu_stream()) };
        check("cuEventRecord", result)?;
        if wait == WaitMode::Block {
            // SAFETY: the event is alive.
            return check("cuEventSynchronize", unsafe { sys::cuEventSynchronize(self.done) });
        }
        loop {
            // SAFETY: as above.
            match unsafe { sys::cuEventQuery(self.done) } {
                sys::CUresult::CUDA_ERROR_NOT_READY => hint::spin_loop(),
                result => return check("cuEventQuery", result),
            }
        }
    }

    fn finish(&mut self) -> Result<()> {
        Ok(self.gpu.stream.synchronize()?)
    }
}

impl Drop for RawCuda {
    fn drop(&mut self) {
        let _ = self.gpu.stream.synchronize();
        // SAFETY: all created by `new`, and not in use. What can't be freed is leaked.
        unsafe {
            for semaphore in self.semaphores.into_iter().flatten() {
                let _ = sys::cuDestroyExternalSemaphore(semaphore);
            }
            let _ = sys::cuEventDestroy_v2(self.done);
        }
    }
}

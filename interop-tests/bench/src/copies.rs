//! The second API's part in copying a payload through the host.

use std::ops::Range;
use std::ptr;
use std::rc::Rc;

use anyhow::{Context, Result, ensure};
use gpu_interop::cudarc::driver::{CudaEvent, CudaSlice, DevicePtr as _, sys};
use gpu_interop::glow;
use gpu_interop::vulkan::{Fence, FencePool, SubmitSync};

use super::staging::Staging;
use interop_gpu::gl::GlContext;
use interop_gpu::vulkan::PrivateBuffer;
use ping_pong::routes::{KERNEL, SecondCuda, SecondGl, SecondVulkan};
use ping_pong::routes::{Recorded, TIMEOUT};

/// An API with a private payload that it copies to and from the host.
pub(crate) trait Copies {
    /// The payload, and what its copies need.
    type Own;

    /// Allocates a payload as large as `staging`, which it is copied through.
    fn own(&self, staging: Rc<Staging>) -> Result<Self::Own>;

    /// Starts to copy a piece from the host.
    fn upload(&mut self, own: &mut Self::Own, range: &Range<u64>) -> Result<()>;

    /// Runs the kernel.
    fn work(&mut self, own: &mut Self::Own) -> Result<()>;

    /// Starts to copy all pieces to the host.
    fn start_downloads(&mut self, own: &mut Self::Own, ranges: &[Range<u64>]) -> Result<()>;

    /// Waits until a piece has arrived.
    fn finish_download(
        &mut self,
        own: &mut Self::Own,
        index: usize,
        range: &Range<u64>,
    ) -> Result<()>;

    /// Describes how the host's memory is used.
    fn how(&self, own: &Self::Own) -> String;
}

/// CUDA's payload.
pub(crate) struct CudaOwn {
    events: Vec<CudaEvent>,
    address: sys::CUdeviceptr,
    payload: CudaSlice<u8>,
    pinned: bool,
    staging: Rc<Staging>,
}

impl Copies for SecondCuda {
    type Own = CudaOwn;

    fn own(&self, staging: Rc<Staging>) -> Result<CudaOwn> {
        let payload = self.gpu.private_buffer(staging.bytes())?;
        self.gpu.stream.synchronize()?;
        let (address, synchronised) = payload.device_ptr(&self.gpu.stream);
        drop(synchronised);
        self.gpu.cuda.context().bind_to_thread()?;
        let bytes = usize::try_from(staging.bytes())?;
        // SAFETY: the mapping is that long and stays until it is unregistered (`CudaOwn::drop`). A refusal
        // leaves CUDA to copy by way of memory of its own.
        let registered = unsafe { sys::cuMemHostRegister_v2(staging.at(0).cast(), bytes, 0) };
        let pinned = registered == sys::CUresult::CUDA_SUCCESS;
        Ok(CudaOwn { events: Vec::new(), address, payload, pinned, staging })
    }

    fn upload(&mut self, own: &mut CudaOwn, range: &Range<u64>) -> Result<()> {
        let (to, from) = (own.address + range.start, own.staging.at(range.start));
        let (bytes, stream) = (usize::try_from(range.end - range.start)?, &self.gpu.stream);
        // SAFETY: both are that long and stay until the benchmark goes, which waits.
        let result = unsafe {
            sys::cuMemcpyHtoDAsync_v2(to, from.cast_const().cast(), bytes, stream.cu_stream())
        };
        ensure!(result == sys::CUresult::CUDA_SUCCESS, "cuMemcpyHtoDAsync: {result:?}");
        Ok(())
    }

    fn work(&mut self, own: &mut CudaOwn) -> Result<()> {
        // SAFETY: the payload is this side's own, until the benchmark goes, which waits.
        unsafe { self.gpu.launch_at(KERNEL, own.address, own.payload.len() as u64, self.grid) }
    }

    fn start_downloads(&mut self, own: &mut CudaOwn, ranges: &[Range<u64>]) -> Result<()> {
        own.events.clear();
        for range in ranges {
            let (from, to) = (own.address + range.start, own.staging.at(range.start));
            let (bytes, stream) = (usize::try_from(range.end - range.start)?, &self.gpu.stream);
            // SAFETY: as for `upload`.
            let result =
                unsafe { sys::cuMemcpyDtoHAsync_v2(to.cast(), from, bytes, stream.cu_stream()) };
            ensure!(result == sys::CUresult::CUDA_SUCCESS, "cuMemcpyDtoHAsync: {result:?}");
            own.events.push(stream.record_event(None)?);
        }
        Ok(())
    }

    fn finish_download(
        &mut self,
        own: &mut CudaOwn,
        index: usize,
        _range: &Range<u64>,
    ) -> Result<()> {
        Ok(own.events.get(index).context("it was started")?.synchronize()?)
    }

    fn how(&self, own: &CudaOwn) -> String {
        let memory = if own.pinned { "pinned" } else { "pageable for CUDA" };
        format!("copies, {memory}")
    }
}

impl Drop for CudaOwn {
    fn drop(&mut self) {
        let stream = self.payload.stream().clone();
        // A lost context has nothing in flight.
        let _ = stream.synchronize();
        if self.pinned && stream.context().bind_to_thread().is_ok() {
            // SAFETY: registered by `own`, and nothing is in flight.
            let _ = unsafe { sys::cuMemHostUnregister(self.staging.at(0).cast()) };
        }
    }
}

/// OpenGL's payload.
pub(crate) struct GlOwn {
    gpu: Rc<GlContext>,
    payload: glow::Buffer,
    staging: Rc<Staging>,
}

impl Copies for SecondGl {
    type Own = GlOwn;

    fn own(&self, staging: Rc<Staging>) -> Result<GlOwn> {
        let payload = self.gpu.private_buffer(staging.bytes())?;
        Ok(GlOwn { gpu: self.gpu.clone(), payload, staging })
    }

    fn upload(&mut self, own: &mut GlOwn, range: &Range<u64>) -> Result<()> {
        let length = usize::try_from(range.end - range.start)?;
        // SAFETY: mapped, that long, and nothing writes to it: Vulkan's copy was waited for.
        let data = unsafe { std::slice::from_raw_parts(own.staging.at(range.start), length) };
        self.gpu.upload(own.payload, range.start, data)
    }

    fn work(&mut self, own: &mut GlOwn) -> Result<()> {
        self.gpu.dispatch(KERNEL, own.payload, own.staging.bytes(), self.grid)
    }

    fn start_downloads(&mut self, _own: &mut GlOwn, _ranges: &[Range<u64>]) -> Result<()> {
        Ok(())
    }

    fn finish_download(
        &mut self,
        own: &mut GlOwn,
        _index: usize,
        range: &Range<u64>,
    ) -> Result<()> {
        let length = usize::try_from(range.end - range.start)?;
        // SAFETY: mapped, that long, and nothing else uses it: Vulkan reads it by a later submit.
        let data = unsafe { std::slice::from_raw_parts_mut(own.staging.at(range.start), length) };
        self.gpu.read_own(own.payload, range.start, data)
    }

    fn how(&self, _own: &GlOwn) -> String {
        "copies, glBufferSubData".into()
    }
}

impl Drop for GlOwn {
    fn drop(&mut self) {
        self.gpu.delete_buffer(self.payload);
    }
}

/// A second Vulkan device's payload.
pub(crate) struct VulkanOwn {
    kernel: Recorded,
    downs: Vec<Recorded>,
    ups: Vec<Recorded>,
    started: Vec<Fence>,
    /// The last upload of each piece, to wait for before the host overwrites its source.
    uploaded: Vec<Option<Fence>>,
    fences: FencePool,
    own_staging: Staging,
    _payload: PrivateBuffer,
    staging: Rc<Staging>,
}

impl Copies for SecondVulkan {
    type Own = VulkanOwn;

    fn own(&self, staging: Rc<Staging>) -> Result<VulkanOwn> {
        let (gpu, bytes) = (&self.runner.gpu, staging.bytes());
        let payload = PrivateBuffer::device(&gpu.vulkan, bytes)?;
        let own_staging = Staging::new(gpu, bytes)?;
        let bound = gpu.bind(payload.buffer, bytes)?;
        let kernel = self.runner.record_kernel(&bound)?.with(vec![bound]);
        let (mut downs, mut ups) = (Vec::new(), Vec::new());
        for range in own_staging.pieces() {
            let (there, here) = (payload.buffer, own_staging.buffer());
            downs.push(self.runner.record_copy(there, here, &range)?);
            ups.push(self.runner.record_copy(here, there, &range)?);
        }
        let (started, fences) = (Vec::new(), FencePool::new(&gpu.endpoint)?);
        let uploaded = vec![None; ups.len()];
        Ok(VulkanOwn {
            kernel,
            downs,
            ups,
            started,
            uploaded,
            fences,
            own_staging,
            _payload: payload,
            staging,
        })
    }

    fn upload(&mut self, own: &mut VulkanOwn, range: &Range<u64>) -> Result<()> {
        let index = own.own_staging.index(range);
        if let Some(last) = own.uploaded[index].take() {
            last.wait(TIMEOUT)?;
        }
        let length = usize::try_from(range.end - range.start)?;
        let (from, to) = (own.staging.at(range.start), own.own_staging.at(range.start));
        // SAFETY: two mappings, that long; nothing else uses either: the copies to the one and from the
        // other were waited for.
        unsafe { ptr::copy_nonoverlapping(from.cast_const(), to, length) };
        let mut part = SubmitSync::default();
        own.uploaded[index] = Some(own.fences.next(&mut part)?);
        self.runner.submit(&[own.ups[index].command], part)
    }

    fn work(&mut self, own: &mut VulkanOwn) -> Result<()> {
        self.runner.submit(&[own.kernel.command], SubmitSync::default())
    }

    fn start_downloads(&mut self, own: &mut VulkanOwn, _ranges: &[Range<u64>]) -> Result<()> {
        own.started.clear();
        for down in &own.downs {
            let mut part = SubmitSync::default();
            own.started.push(own.fences.next(&mut part)?);
            self.runner.submit(&[down.command], part)?;
        }
        Ok(())
    }

    fn finish_download(
        &mut self,
        own: &mut VulkanOwn,
        index: usize,
        range: &Range<u64>,
    ) -> Result<()> {
        own.started.get(index).context("it was started")?.wait(TIMEOUT)?;
        let length = usize::try_from(range.end - range.start)?;
        let (from, to) = (own.own_staging.at(range.start), own.staging.at(range.start));
        // SAFETY: as for `upload`.
        unsafe { ptr::copy_nonoverlapping(from.cast_const(), to, length) };
        Ok(())
    }

    fn how(&self, _own: &VulkanOwn) -> String {
        "copies, two mapped buffers".into()
    }
}

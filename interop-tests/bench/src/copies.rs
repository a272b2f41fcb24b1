//! The second API's part in copying a payload through the host.

use std::ops::Range;
use std::ptr;
use std::rc::Rc;

use anyhow::{Context, Result, ensure};
use gpu_interop::cudarc::driver::{CudaEvent, CudaSlice, DevicePtr as _, sys};
use gpu_interop::glow;
use gpu_interop::vulkan::{Fence, FencePool, SubmitSync};

use super::staging::{Staging, record_copy, record_kernel};
use interop_gpu::Kernel;
use interop_gpu::gl::GlContext;
use interop_gpu::vulkan::PrivateBuffer;
use ping_pong::routes::SECOND_STEP;
use ping_pong::{CudaUser, GlUser, Recorded, TIMEOUT, VulkanUser};

/// The kernel of the second API.
const KERNEL: Kernel = Kernel::PingPong { step: SECOND_STEP };

/// An API with a private payload that it copies to and from the host.
pub(crate) trait Copies {
    /// The payload, and what its copies need.
    type Own;

    /// Allocates a payload as large as `staging`, which it is copied through. The kernel runs with `groups`
    /// work groups.
    fn own(&self, staging: Rc<Staging>, groups: u32) -> Result<Self::Own>;

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

    /// Describes the host memory in use.
    fn how(&self, own: &Self::Own) -> String;
}

/// CUDA's payload.
pub(crate) struct CudaOwn {
    events: Vec<CudaEvent>,
    address: sys::CUdeviceptr,
    payload: CudaSlice<u8>,
    pinned: bool,
    groups: u32,
    staging: Rc<Staging>,
}

impl Copies for CudaUser {
    type Own = CudaOwn;

    fn own(&self, staging: Rc<Staging>, groups: u32) -> Result<CudaOwn> {
        let payload = self.gpu.private_buffer(staging.bytes())?;
        self.gpu.stream.synchronize()?;
        let (address, synchronised) = payload.device_ptr(&self.gpu.stream);
        drop(synchronised);
        self.gpu.cuda.context().bind_to_thread()?;
        let bytes = usize::try_from(staging.bytes())?;
        // SAFETY: the mapping is that long and stays until it is unregistered (`CudaOwn::drop`). If CUDA
        // rejects it, it copies through memory of its own.
        let registered = unsafe { sys::cuMemHostRegister_v2(staging.at(0).cast(), bytes, 0) };
        let pinned = registered == sys::CUresult::CUDA_SUCCESS;
        Ok(CudaOwn { events: Vec::new(), address, payload, pinned, groups, staging })
    }

    fn upload(&mut self, own: &mut CudaOwn, range: &Range<u64>) -> Result<()> {
        let (to, from) = (own.address + range.start, own.staging.at(range.start));
        let (bytes, stream) = (usize::try_from(range.end - range.start)?, &self.gpu.stream);
        // SAFETY: both are that long and live until the benchmark is dropped, which waits.
        let result = unsafe {
            sys::cuMemcpyHtoDAsync_v2(to, from.cast_const().cast(), bytes, stream.cu_stream())
        };
        ensure!(result == sys::CUresult::CUDA_SUCCESS, "cuMemcpyHtoDAsync: {result:?}");
        Ok(())
    }

    fn work(&mut self, own: &mut CudaOwn) -> Result<()> {
        // SAFETY: the payload is this side's own, and lives until the benchmark is dropped, which waits.
        unsafe { self.gpu.launch_at(KERNEL, own.address, own.payload.len() as u64, own.groups) }
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
        Ok(own.events.get(index).context("the download was started")?.synchronize()?)
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
    groups: u32,
    staging: Rc<Staging>,
}

impl Copies for GlUser {
    type Own = GlOwn;

    fn own(&self, staging: Rc<Staging>, groups: u32) -> Result<GlOwn> {
        let payload = self.gpu.private_buffer(staging.bytes())?;
        Ok(GlOwn { gpu: self.gpu.clone(), payload, groups, staging })
    }

    fn upload(&mut self, own: &mut GlOwn, range: &Range<u64>) -> Result<()> {
        let length = usize::try_from(range.end - range.start)?;
        // SAFETY: mapped, that long, and nothing writes to it: Vulkan's copy was waited for.
        let data = unsafe { std::slice::from_raw_parts(own.staging.at(range.start), length) };
        self.gpu.upload(own.payload, range.start, data)
    }

    fn work(&mut self, own: &mut GlOwn) -> Result<()> {
        self.gpu.dispatch(KERNEL, own.payload, own.staging.bytes(), own.groups)
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

impl Copies for VulkanUser {
    type Own = VulkanOwn;

    fn own(&self, staging: Rc<Staging>, groups: u32) -> Result<VulkanOwn> {
        let (gpu, bytes) = (&self.gpu, staging.bytes());
        let payload = PrivateBuffer::device(&gpu.vulkan, bytes)?;
        let own_staging = Staging::new(gpu, bytes)?;
        let bound = gpu.bind(payload.buffer, bytes)?;
        let kernel = record_kernel(gpu, bound, KERNEL, groups)?;
        let (mut downs, mut ups) = (Vec::new(), Vec::new());
        for range in own_staging.pieces() {
            let (there, here) = (payload.buffer, own_staging.buffer());
            downs.push(record_copy(gpu, there, here, &range)?);
            ups.push(record_copy(gpu, here, there, &range)?);
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
        self.submit(&[own.ups[index].command], part)
    }

    fn work(&mut self, own: &mut VulkanOwn) -> Result<()> {
        self.submit(&[own.kernel.command], SubmitSync::default())
    }

    fn start_downloads(&mut self, own: &mut VulkanOwn, _ranges: &[Range<u64>]) -> Result<()> {
        own.started.clear();
        for down in &own.downs {
            let mut part = SubmitSync::default();
            own.started.push(own.fences.next(&mut part)?);
            self.submit(&[down.command], part)?;
        }
        Ok(())
    }

    fn finish_download(
        &mut self,
        own: &mut VulkanOwn,
        index: usize,
        range: &Range<u64>,
    ) -> Result<()> {
        own.started.get(index).context("the download was started")?.wait(TIMEOUT)?;
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

//! What the cases need of an API's context beyond the library: reading, writing, kernels, semaphores and
//! its side of a handoff. Written once per API; everything above is generic.

use std::time::Duration;

use anyhow::Result;
use gpu_interop::ash::vk;
use gpu_interop::handoff::{HandoffPeer, VulkanCommands};
use gpu_interop::vulkan::{BufferAccess, SemaphoreSignal, SemaphoreWait, SubmitSync};
use gpu_interop::{BufferDesc, Peer, cuda, gl, vulkan};

use crate::cases::support::recorder::Recorder;
use interop_gpu::Kernel;
use interop_gpu::cuda::CudaContext;
use interop_gpu::gl::GlContext;
use interop_gpu::vulkan::VulkanContext;

/// How long a signal may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A buffer in shared memory, whichever API it belongs to.
pub(crate) trait SharedBuffer: Sized {
    type Memory;

    /// Places a buffer in memory.
    fn place(memory: &Self::Memory, offset: u64, desc: &BufferDesc) -> gpu_interop::Result<Self>;
    /// Places another buffer at the same offset of the same memory.
    fn again(&self, desc: &BufferDesc) -> gpu_interop::Result<Self>;
    /// The size in bytes.
    fn bytes(&self) -> u64;
}

macro_rules! shared_buffer {
    ($($api:ident),*) => {$(
        impl SharedBuffer for $api::Buffer {
            type Memory = $api::Memory;

            fn place(
                memory: &$api::Memory,
                offset: u64,
                desc: &BufferDesc,
            ) -> gpu_interop::Result<Self> {
                memory.buffer(offset, desc)
            }

            fn again(&self, desc: &BufferDesc) -> gpu_interop::Result<Self> {
                self.memory().buffer(self.offset(), desc)
            }

            fn bytes(&self) -> u64 {
                self.desc().size
            }
        }
    )*};
}

shared_buffer!(vulkan, gl, cuda);

/// What a release or an acquire of the API is given.
pub(crate) type Commands<'a, C> = <<C as ApiContext>::Endpoint as HandoffPeer>::Commands<'a>;
/// What a release or an acquire of the API returns.
type SyncOf<C> = <<C as ApiContext>::Endpoint as HandoffPeer>::Sync;
pub(crate) type SemaphoreOf<C> = <<C as ApiContext>::Endpoint as Peer>::Semaphore;

/// One API's context, with the library's endpoint over it.
///
/// Each read and write is done when it returns.
pub(crate) trait ApiContext {
    type Endpoint: HandoffPeer<Memory = Self::Memory, Buffer = Self::Buffer>;
    type Memory;
    type Buffer: SharedBuffer<Memory = Self::Memory>;
    /// What records the work on one buffer; nothing for the APIs that execute at once.
    type Recorder<'a>
    where
        Self: 'a;

    fn endpoint(&self) -> &Self::Endpoint;

    fn read(&self, buffer: &Self::Buffer) -> Result<Vec<u8>>;
    fn write(&self, buffer: &mut Self::Buffer, data: &[u8]) -> Result<()>;

    /// Signals on the GPU; a timeline semaphore with `value`.
    fn signal(&self, semaphore: &SemaphoreOf<Self>, value: Option<u64>) -> Result<()>;
    /// Waits on the GPU for a signal that was submitted before, and on the host for the GPU.
    fn wait(&self, semaphore: &SemaphoreOf<Self>, value: Option<u64>) -> Result<()>;
    /// Waits until the API has done everything.
    fn finish(&self) -> Result<()>;

    fn recorder(&self, buffer: &Self::Buffer) -> Result<Self::Recorder<'_>>;

    /// Runs `kernel` over the buffer, after everything before.
    fn run(
        &self,
        recorder: &mut Self::Recorder<'_>,
        buffer: &mut Self::Buffer,
        kernel: Kernel,
    ) -> Result<()>;

    /// Lets `handoff` release or acquire the buffer with these commands.
    fn hand_over<T>(
        &self,
        recorder: &mut Self::Recorder<'_>,
        buffer: &Self::Buffer,
        handoff: impl FnOnce(Commands<'_, Self>) -> Result<(T, SyncOf<Self>)>,
    ) -> Result<T>;

    /// Submits what was recorded.
    fn submit(&self, _: &mut Self::Recorder<'_>) -> Result<()> {
        Ok(())
    }
}

/// The access of kernels and copies.
pub(crate) fn all_access(buffer: &vulkan::Buffer) -> BufferAccess<'_> {
    BufferAccess::compute(buffer) | BufferAccess::transfer(buffer)
}

/// Submits nothing but waits and signals.
fn submit_sync(gpu: &VulkanContext, sync: SubmitSync) -> Result<()> {
    // SAFETY: the queue is locked and of the endpoint's device; the semaphores outlive the work, since
    // the waiting side waits for it.
    Ok(gpu.vulkan.with_queue(|queue| unsafe { sync.submit(&gpu.endpoint, queue, &[]) })?)
}

impl ApiContext for VulkanContext {
    type Endpoint = vulkan::Endpoint;
    type Memory = vulkan::Memory;
    type Buffer = vulkan::Buffer;
    type Recorder<'a> = Recorder<'a>;

    fn endpoint(&self) -> &vulkan::Endpoint {
        &self.endpoint
    }

    fn read(&self, buffer: &vulkan::Buffer) -> Result<Vec<u8>> {
        self.download(buffer.handle(), 0, buffer.desc().size)
    }

    fn write(&self, buffer: &mut vulkan::Buffer, data: &[u8]) -> Result<()> {
        self.upload(buffer.handle(), 0, data)
    }

    fn signal(&self, semaphore: &vulkan::Semaphore, value: Option<u64>) -> Result<()> {
        let signals = vec![SemaphoreSignal { semaphore: semaphore.clone(), value }];
        submit_sync(self, SubmitSync::new(Vec::new(), signals))
    }

    fn wait(&self, semaphore: &vulkan::Semaphore, value: Option<u64>) -> Result<()> {
        if let Some(value) = value {
            semaphore.wait(value, TIMEOUT)?;
        }
        let stage = vk::PipelineStageFlags::ALL_COMMANDS;
        let waits = vec![SemaphoreWait { semaphore: semaphore.clone(), value, stage }];
        submit_sync(self, SubmitSync::new(waits, Vec::new()))?;
        self.finish()
    }

    fn finish(&self) -> Result<()> {
        Ok(self.vulkan.wait_idle()?)
    }

    fn recorder(&self, buffer: &vulkan::Buffer) -> Result<Recorder<'_>> {
        Recorder::new(self, buffer)
    }

    fn run(
        &self,
        recorder: &mut Recorder<'_>,
        _: &mut vulkan::Buffer,
        kernel: Kernel,
    ) -> Result<()> {
        recorder.run(kernel)
    }

    fn hand_over<T>(
        &self,
        recorder: &mut Recorder<'_>,
        buffer: &vulkan::Buffer,
        handoff: impl FnOnce(Commands<'_, Self>) -> Result<(T, SyncOf<Self>)>,
    ) -> Result<T> {
        let (command, family) = (recorder.command()?, self.vulkan.queue_family());
        let used = [all_access(buffer)];
        // SAFETY: the command buffer is being recorded for a queue of that family, which owns the buffer
        // before a release; the buffer lives until the recorder's drop has waited, and what is returned
        // goes into the submit.
        let commands = unsafe { VulkanCommands::record(command, family, &used) };
        let (value, sync) = handoff(commands)?;
        recorder.add(sync)?;
        Ok(value)
    }

    fn submit(&self, recorder: &mut Recorder<'_>) -> Result<()> {
        recorder.submit()
    }
}

/// The context must be current.
impl ApiContext for GlContext {
    type Endpoint = gl::Endpoint;
    type Memory = gl::Memory;
    type Buffer = gl::Buffer;
    type Recorder<'a> = ();

    fn endpoint(&self) -> &gl::Endpoint {
        &self.endpoint
    }

    fn read(&self, buffer: &gl::Buffer) -> Result<Vec<u8>> {
        self.endpoint.memory_barrier()?;
        self.download(buffer.name(), 0, buffer.desc().size)
    }

    fn write(&self, buffer: &mut gl::Buffer, data: &[u8]) -> Result<()> {
        self.upload(buffer.name(), 0, data)?;
        ApiContext::finish(self)
    }

    fn signal(&self, semaphore: &gl::Semaphore, value: Option<u64>) -> Result<()> {
        Ok(self.endpoint.signal(semaphore, value, &[], &[])?)
    }

    fn wait(&self, semaphore: &gl::Semaphore, value: Option<u64>) -> Result<()> {
        self.endpoint.wait(semaphore, value, &[], &[])?;
        ApiContext::finish(self)
    }

    fn finish(&self) -> Result<()> {
        GlContext::finish(self);
        self.check("glFinish")
    }

    fn recorder(&self, _: &gl::Buffer) -> Result<()> {
        Ok(())
    }

    fn run(&self, (): &mut (), buffer: &mut gl::Buffer, kernel: Kernel) -> Result<()> {
        self.dispatch(kernel, buffer.name(), buffer.desc().size, 0)
    }

    fn hand_over<T>(
        &self,
        (): &mut (),
        buffer: &gl::Buffer,
        handoff: impl FnOnce(Commands<'_, Self>) -> Result<(T, SyncOf<Self>)>,
    ) -> Result<T> {
        let (value, ()) = handoff((&[buffer]).into())?;
        Ok(value)
    }
}

/// On the context's stream.
impl ApiContext for CudaContext {
    type Endpoint = cuda::Endpoint;
    type Memory = cuda::Memory;
    type Buffer = cuda::Buffer;
    type Recorder<'a> = ();

    fn endpoint(&self) -> &cuda::Endpoint {
        &self.endpoint
    }

    fn read(&self, buffer: &cuda::Buffer) -> Result<Vec<u8>> {
        let data = self.stream.clone_dtoh(&buffer.as_view::<u8>()?)?;
        self.finish()?;
        Ok(data)
    }

    fn write(&self, buffer: &mut cuda::Buffer, data: &[u8]) -> Result<()> {
        self.stream.memcpy_htod(data, &mut buffer.as_view_mut::<u8>()?)?;
        self.finish()
    }

    fn signal(&self, semaphore: &cuda::Semaphore, value: Option<u64>) -> Result<()> {
        Ok(self.endpoint.signal(&self.stream, semaphore, value)?)
    }

    fn wait(&self, semaphore: &cuda::Semaphore, value: Option<u64>) -> Result<()> {
        self.endpoint.wait(&self.stream, semaphore, value)?;
        self.finish()
    }

    fn finish(&self) -> Result<()> {
        Ok(self.stream.synchronize()?)
    }

    fn recorder(&self, _: &cuda::Buffer) -> Result<()> {
        Ok(())
    }

    fn run(&self, (): &mut (), buffer: &mut cuda::Buffer, kernel: Kernel) -> Result<()> {
        self.launch(kernel, &mut buffer.as_view_mut::<u8>()?, 0)
    }

    fn hand_over<T>(
        &self,
        (): &mut (),
        _: &cuda::Buffer,
        handoff: impl FnOnce(Commands<'_, Self>) -> Result<(T, SyncOf<Self>)>,
    ) -> Result<T> {
        let (value, ()) = handoff((&self.stream).into())?;
        Ok(value)
    }
}

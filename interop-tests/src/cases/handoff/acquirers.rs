//! The acquiring side of a handoff, whichever API it is.

use anyhow::Result;
use gpu_interop::ash::vk;
use gpu_interop::handoff::{self, HandoffPeer, Ticket, VulkanCommands};
use gpu_interop::vulkan::{Buffer, BufferAccess, Endpoint};
use gpu_interop::{Peer, cuda, gl};

use interop_gpu::cuda::CudaContext;
use interop_gpu::gl::GlContext;
use interop_gpu::vulkan::VulkanContext;

/// The acquiring side.
pub(super) trait Acquirer: Sized {
    type Peer: HandoffPeer;

    fn peer(&self) -> &Self::Peer;
    fn import(&self, buffer: &Buffer) -> Result<BufferOf<Self>>;
    /// Acquires what is listed.
    fn acquire(
        &self,
        handoff: &mut handoff::Acquirer<Self::Peer>,
        ticket: Ticket,
        buffers: &[&BufferOf<Self>],
    ) -> Result<Done<Self>, handoff::AcquireError>;

    /// Submits the acquire.
    fn submit(&self, _: Done<Self>) -> Result<()> {
        Ok(())
    }
}

/// What an acquire returns, and how it is completed.
pub(super) struct Done<A: Acquirer>(pub(super) <A::Peer as HandoffPeer>::Sync);

pub(super) type BufferOf<A> = <<A as Acquirer>::Peer as Peer>::Buffer;

impl Acquirer for VulkanContext {
    type Peer = Endpoint;

    fn peer(&self) -> &Endpoint {
        &self.endpoint
    }

    fn import(&self, buffer: &Buffer) -> Result<Buffer> {
        Ok(self.endpoint.import_buffer(buffer.export()?)?)
    }

    fn acquire(
        &self,
        handoff: &mut handoff::Acquirer<Endpoint>,
        ticket: Ticket,
        buffers: &[&Buffer],
    ) -> Result<Done<Self>, handoff::AcquireError> {
        let used: Vec<_> = buffers.iter().map(|buffer| BufferAccess::any(buffer)).collect();
        let (command, family) = (vk::CommandBuffer::null(), self.vulkan.queue_family());
        // Only the wrong list, which is refused, needs a command buffer.
        let commands = match buffers.len() {
            1 => VulkanCommands::recorded().covering(&used),
            // SAFETY: nothing is recorded.
            _ => unsafe { VulkanCommands::record(command, family, &used) },
        };
        handoff.acquire(ticket, commands).map(Done)
    }

    fn submit(&self, Done(sync): Done<Self>) -> Result<()> {
        // SAFETY: the queue is locked.
        let submit = |queue| unsafe { sync.submit(&self.endpoint, queue, &[]) };
        Ok(self.vulkan.with_queue(submit)?)
    }
}

impl Acquirer for GlContext {
    type Peer = gl::Endpoint;

    fn peer(&self) -> &gl::Endpoint {
        &self.endpoint
    }

    fn import(&self, buffer: &Buffer) -> Result<gl::Buffer> {
        Ok(self.endpoint.import_buffer(buffer.export()?)?)
    }

    fn acquire(
        &self,
        handoff: &mut handoff::Acquirer<gl::Endpoint>,
        ticket: Ticket,
        buffers: &[&gl::Buffer],
    ) -> Result<Done<Self>, handoff::AcquireError> {
        handoff.acquire(ticket, buffers).map(Done)
    }
}

impl Acquirer for CudaContext {
    type Peer = cuda::Endpoint;

    fn peer(&self) -> &cuda::Endpoint {
        &self.endpoint
    }

    fn import(&self, buffer: &Buffer) -> Result<cuda::Buffer> {
        Ok(self.endpoint.import_buffer(buffer.export()?)?)
    }

    fn acquire(
        &self,
        handoff: &mut handoff::Acquirer<cuda::Endpoint>,
        ticket: Ticket,
        _: &[&cuda::Buffer],
    ) -> Result<Done<Self>, handoff::AcquireError> {
        handoff.acquire(ticket, &self.stream).map(Done)
    }
}

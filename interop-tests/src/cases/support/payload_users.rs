//! One API's side of a payload that goes round, so that a case can pass it from any to any.

use std::time::Duration;

use anyhow::{Context, Result};
use gpu_interop::ash::vk;
use gpu_interop::capabilities::SyncPlan;
use gpu_interop::handoff::{
    self, Acquirer, Handoff, HandoffOptions, HandoffPeer, Releaser, Ticket, VulkanCommands,
};
use gpu_interop::vulkan::{BufferAccess, BufferOptions, Fence, FencePool, SubmitSync};
use gpu_interop::{BufferDesc, BufferPayload, cuda, gl, vulkan};

use interop_gpu::Kernel;
use interop_gpu::cuda::CudaContext;
use interop_gpu::gl::GlContext;
use interop_gpu::oracle::{self, Turns};
use interop_gpu::vulkan::{Bound, VulkanContext};

/// Who works on the payload while it has it, and then hands it on.
pub(crate) trait PayloadUser {
    type Endpoint: HandoffPeer;

    fn endpoint(&self) -> &Self::Endpoint;
    /// Takes the payload over: what follows comes after the release of `ticket`.
    fn take(&mut self, from: &mut Acquirer<Self::Endpoint>, ticket: Ticket) -> Result<()>;
    /// Runs a kernel over the payload.
    fn work(&mut self, kernel: Kernel) -> Result<()>;
    /// Hands the payload on.
    fn give(&mut self, to: &mut Releaser<Self::Endpoint>) -> Result<Ticket>;
    /// The payload's bytes, when all the work so far is done.
    fn read(&mut self) -> Result<Vec<u8>>;
    /// Waits until all that was given to the API is done.
    fn settle(&mut self) -> Result<()>;
}

/// Vulkan: each turn is one command buffer, with the acquire, the kernels and the release in it.
pub(crate) struct VulkanPlayer<'a> {
    gpu: &'a VulkanContext,
    buffer: vulkan::Buffer,
    bound: Option<Bound>,
    fences: FencePool,
    /// In turn: one is executed while the next is recorded.
    commands: [(vk::CommandBuffer, Option<Fence>); 2],
    /// What to submit `commands[0]` with, while it is being recorded.
    recording: Option<SubmitSync>,
}

impl<'a> VulkanPlayer<'a> {
    /// Makes the payload.
    pub(crate) fn create(gpu: &'a VulkanContext, bytes: u64) -> Result<Self> {
        let desc = BufferDesc::storage(bytes);
        Self::new(gpu, gpu.endpoint.create_buffer(&desc, BufferOptions::default())?)
    }

    pub(crate) fn import(gpu: &'a VulkanContext, payload: BufferPayload) -> Result<Self> {
        Self::new(gpu, gpu.endpoint.import_buffer(payload)?)
    }

    fn new(gpu: &'a VulkanContext, buffer: vulkan::Buffer) -> Result<Self> {
        let bound = Some(gpu.bind(buffer.handle(), buffer.desc().size)?);
        let fences = FencePool::new(&gpu.endpoint)?;
        let commands = gpu.command_buffers(2)?;
        let commands = [(commands[0], None), (commands[1], None)];
        Ok(Self { gpu, buffer, bound, fences, commands, recording: None })
    }

    pub(crate) fn export(&self) -> Result<BufferPayload> {
        Ok(self.buffer.export()?)
    }

    /// Copies the payload to another buffer, in the same command buffer as the kernels.
    pub(crate) fn copy_to(&mut self, other: vk::Buffer) -> Result<()> {
        let command = self.command()?;
        self.gpu.record_barrier(command);
        let region = vk::BufferCopy::default().size(self.buffer.desc().size);
        let (device, own) = (self.gpu.device(), self.buffer.handle());
        // SAFETY: the command buffer is being recorded; the callers pass a buffer as long as the
        // payload, which lives longer than the player.
        unsafe { device.cmd_copy_buffer(command, own, other, &[region]) };
        Ok(())
    }

    /// The command buffer that is being recorded, begun where none was.
    fn command(&mut self) -> Result<vk::CommandBuffer> {
        let (command, fence) = &mut self.commands[0];
        if self.recording.is_none() {
            if let Some(fence) = fence.take() {
                fence.wait(Duration::from_secs(10))?;
            }
            self.gpu.begin(*command)?;
            self.recording = Some(SubmitSync::default());
        }
        Ok(*command)
    }

    fn add(&mut self, part: SubmitSync) -> Result<()> {
        Ok(self.recording.as_mut().context("nothing is being recorded")?.merge(part)?)
    }

    fn submit(&mut self) -> Result<()> {
        let Some(mut part) = self.recording.take() else { return Ok(()) };
        self.commands[0].1 = Some(self.fences.next(&mut part)?);
        self.gpu.submit(self.commands[0].0, &part)?;
        self.commands.swap(0, 1);
        Ok(())
    }

    /// What a turn does with the buffer: kernels, and the copy of [`PayloadUser::read`].
    fn access(&self) -> BufferAccess<'_> {
        BufferAccess::compute(&self.buffer) | BufferAccess::transfer(&self.buffer)
    }
}

impl PayloadUser for VulkanPlayer<'_> {
    type Endpoint = vulkan::Endpoint;

    fn endpoint(&self) -> &vulkan::Endpoint {
        &self.gpu.endpoint
    }

    fn take(&mut self, from: &mut Acquirer<vulkan::Endpoint>, ticket: Ticket) -> Result<()> {
        let (command, family) = (self.command()?, self.gpu.vulkan.queue_family());
        let used = [self.access()];
        // SAFETY: the command buffer is being recorded for a queue of that family, the buffer lives
        // until `drop` has waited, and the part goes into the submit.
        let part =
            from.acquire(ticket, unsafe { VulkanCommands::record(command, family, &used) })?;
        self.add(part)
    }

    fn work(&mut self, kernel: Kernel) -> Result<()> {
        let command = self.command()?;
        self.gpu.record_barrier(command);
        let bound = self.bound.as_ref().context("bound until it is dropped")?;
        self.gpu.record(command, kernel, bound, 0);
        Ok(())
    }

    fn give(&mut self, to: &mut Releaser<vulkan::Endpoint>) -> Result<Ticket> {
        let (command, family) = (self.command()?, self.gpu.vulkan.queue_family());
        let used = [self.access()];
        // SAFETY: as in `take`; the family owns the buffer, which it made or has acquired.
        let (ticket, part) =
            to.release(unsafe { VulkanCommands::record(command, family, &used) })?;
        self.add(part)?;
        self.submit()?;
        Ok(ticket)
    }

    fn read(&mut self) -> Result<Vec<u8>> {
        self.submit()?;
        self.gpu.download(self.buffer.handle(), 0, self.buffer.desc().size)
    }

    fn settle(&mut self) -> Result<()> {
        self.submit()?;
        Ok(self.gpu.vulkan.wait_idle()?)
    }
}

impl Drop for VulkanPlayer<'_> {
    fn drop(&mut self) {
        // A lost device has nothing in flight.
        let _ = self.gpu.vulkan.wait_idle();
        if let Some(bound) = self.bound.take() {
            self.gpu.unbind(bound);
        }
    }
}

/// OpenGL, its context current.
pub(crate) struct GlPlayer<'a> {
    gpu: &'a GlContext,
    buffer: gl::Buffer,
}

impl<'a> GlPlayer<'a> {
    pub(crate) fn import(gpu: &'a GlContext, payload: BufferPayload) -> Result<Self> {
        Ok(Self { gpu, buffer: gpu.endpoint.import_buffer(payload)? })
    }
}

impl PayloadUser for GlPlayer<'_> {
    type Endpoint = gl::Endpoint;

    fn endpoint(&self) -> &gl::Endpoint {
        &self.gpu.endpoint
    }

    fn take(&mut self, from: &mut Acquirer<gl::Endpoint>, ticket: Ticket) -> Result<()> {
        Ok(from.acquire(ticket, &[&self.buffer])?)
    }

    fn work(&mut self, kernel: Kernel) -> Result<()> {
        self.gpu.dispatch(kernel, self.buffer.name(), self.buffer.desc().size, 0)
    }

    fn give(&mut self, to: &mut Releaser<gl::Endpoint>) -> Result<Ticket> {
        Ok(to.release(&[&self.buffer])?.0)
    }

    fn read(&mut self) -> Result<Vec<u8>> {
        self.gpu.download(self.buffer.name(), 0, self.buffer.desc().size)
    }

    fn settle(&mut self) -> Result<()> {
        self.gpu.finish();
        Ok(())
    }
}

/// CUDA, on the context's stream.
pub(crate) struct CudaPlayer<'a> {
    gpu: &'a CudaContext,
    buffer: cuda::Buffer,
}

impl<'a> CudaPlayer<'a> {
    pub(crate) fn new(gpu: &'a CudaContext, buffer: cuda::Buffer) -> Self {
        Self { gpu, buffer }
    }

    pub(crate) fn import(gpu: &'a CudaContext, payload: BufferPayload) -> Result<Self> {
        Ok(Self::new(gpu, gpu.endpoint.import_buffer(payload)?))
    }
}

impl PayloadUser for CudaPlayer<'_> {
    type Endpoint = cuda::Endpoint;

    fn endpoint(&self) -> &cuda::Endpoint {
        &self.gpu.endpoint
    }

    fn take(&mut self, from: &mut Acquirer<cuda::Endpoint>, ticket: Ticket) -> Result<()> {
        Ok(from.acquire(ticket, &self.gpu.stream)?)
    }

    fn work(&mut self, kernel: Kernel) -> Result<()> {
        self.gpu.launch(kernel, &mut self.buffer.as_view_mut::<u8>()?, 0)
    }

    fn give(&mut self, to: &mut Releaser<cuda::Endpoint>) -> Result<Ticket> {
        Ok(to.release(&self.gpu.stream)?.0)
    }

    fn read(&mut self) -> Result<Vec<u8>> {
        let data = self.gpu.stream.clone_dtoh(&self.buffer.as_view::<u8>()?)?;
        self.gpu.stream.synchronize()?;
        Ok(data)
    }

    fn settle(&mut self) -> Result<()> {
        Ok(self.gpu.stream.synchronize()?)
    }
}

/// How long a game goes on, and how often the first player looks at every byte.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RoundTrip {
    pub(crate) options: HandoffOptions,
    pub(crate) rounds: u32,
    pub(crate) check_every: u32,
}

impl RoundTrip {
    /// `rounds` rounds with the best synchronisation there is, each of them checked.
    pub(crate) fn of(rounds: u32) -> Self {
        Self { options: HandoffOptions::default(), rounds, check_every: 1 }
    }

    /// Whether the payload is looked at after `round`, which counts from 1.
    fn looks_after(&self, round: u32) -> bool {
        round.is_multiple_of(self.check_every) || round == self.rounds
    }
}

/// What the payload must be by now.
struct InFlight {
    step: u32,
    turns: Turns,
}

impl InFlight {
    const SEED: u32 = 7;

    /// `player` makes the payload's content.
    fn start(player: &mut impl PayloadUser) -> Result<Self> {
        player.work(Kernel::Fill { seed: Self::SEED })?;
        Ok(Self { step: 0, turns: Turns::default() })
    }

    /// A turn, which no other is like.
    fn turn(&mut self, player: &mut impl PayloadUser) -> Result<()> {
        self.step += 1;
        self.turns.then(self.step);
        player.work(Kernel::PingPong { step: self.step })
    }

    fn check(&self, player: &mut impl PayloadUser) -> Result<()> {
        oracle::check(&player.read()?, Self::SEED, &self.turns)
            .with_context(|| format!("after turn {}", self.step))
    }
}

/// The payload goes from one player to the next.
pub(crate) fn pass<A: PayloadUser, B: PayloadUser>(
    lane: &mut Handoff<A::Endpoint, B::Endpoint>,
    from: &mut A,
    to: &mut B,
) -> Result<()> {
    let ticket = from.give(&mut lane.release)?;
    to.take(&mut lane.acquire, ticket)
}

/// The payload goes from `a` to `b` and back, and each has a turn with it. Says how both ways were
/// synchronised.
pub(crate) fn there_and_back<A: PayloadUser, B: PayloadUser>(
    owner: &vulkan::Endpoint,
    (a, b): (&mut A, &mut B),
    game: RoundTrip,
) -> Result<[SyncPlan; 2]> {
    let mut there = handoff::open(owner, a.endpoint(), b.endpoint(), game.options)?;
    let mut back = handoff::open(owner, b.endpoint(), a.endpoint(), game.options)?;
    let mut course = InFlight::start(a)?;
    for round in 1..=game.rounds {
        course.turn(a)?;
        pass(&mut there, a, b)?;
        course.turn(b)?;
        pass(&mut back, b, a)?;
        if game.looks_after(round) {
            course.check(a)?;
        }
    }
    // The semaphores go with the handoffs: every side must be known to be done with them.
    b.settle()?;
    a.settle()?;
    Ok([there.plan, back.plan])
}

/// The payload goes from `a` to `b` to `c` and back to `a`, and each has a turn with it.
pub(crate) fn around<A: PayloadUser, B: PayloadUser, C: PayloadUser>(
    owner: &vulkan::Endpoint,
    (a, b, c): (&mut A, &mut B, &mut C),
    game: RoundTrip,
) -> Result<()> {
    let mut ab = handoff::open(owner, a.endpoint(), b.endpoint(), game.options)?;
    let mut bc = handoff::open(owner, b.endpoint(), c.endpoint(), game.options)?;
    let mut ca = handoff::open(owner, c.endpoint(), a.endpoint(), game.options)?;
    let mut course = InFlight::start(a)?;
    for round in 1..=game.rounds {
        course.turn(a)?;
        pass(&mut ab, a, b)?;
        course.turn(b)?;
        pass(&mut bc, b, c)?;
        course.turn(c)?;
        pass(&mut ca, c, a)?;
        if game.looks_after(round) {
            course.check(a)?;
        }
    }
    c.settle()?;
    b.settle()?;
    a.settle()
}

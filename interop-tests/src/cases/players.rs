//! One API's side of a payload that goes round, so that a case can pass it from any to any.

use std::time::Duration;

use anyhow::{Context, Result};
use gpu_interop::ash::vk;
use gpu_interop::capabilities::SyncPlan;
use gpu_interop::handoff::{self, Acquirer, Handoff, HandoffOptions, Peer, Releaser, Ticket};
use gpu_interop::vulkan::{BufferAccess, BufferOptions, Fence, FenceSource, SubmitPart};
use gpu_interop::{BufferDesc, BufferPayload, cuda, gl, vulkan};

use crate::rig::Kernel;
use crate::rig::cuda::CudaRig;
use crate::rig::gl::GlRig;
use crate::rig::oracle::{self, Turns};
use crate::rig::vulkan::{Bound, VulkanRig};

/// Who works on the payload while it has it, and then hands it on.
pub(super) trait Player {
    type Endpoint: Peer;

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
pub(super) struct VulkanPlayer<'a> {
    rig: &'a VulkanRig,
    buffer: vulkan::Buffer,
    bound: Option<Bound>,
    fences: FenceSource,
    /// In turn: one is executed while the next is recorded.
    commands: [(vk::CommandBuffer, Option<Fence>); 2],
    /// What to submit `commands[0]` with, while it is being recorded.
    recording: Option<SubmitPart>,
}

impl<'a> VulkanPlayer<'a> {
    /// Makes the payload.
    pub(super) fn create(rig: &'a VulkanRig, bytes: u64) -> Result<Self> {
        let desc = BufferDesc::storage(bytes);
        Self::new(rig, rig.endpoint.create_buffer(&desc, BufferOptions::default())?)
    }

    pub(super) fn import(rig: &'a VulkanRig, payload: BufferPayload) -> Result<Self> {
        Self::new(rig, rig.endpoint.import_buffer(payload)?)
    }

    fn new(rig: &'a VulkanRig, buffer: vulkan::Buffer) -> Result<Self> {
        let bound = Some(rig.bind(buffer.handle(), buffer.desc().size)?);
        let fences = FenceSource::new(&rig.endpoint)?;
        let commands = rig.command_buffers(2)?;
        let commands = [(commands[0], None), (commands[1], None)];
        Ok(Self { rig, buffer, bound, fences, commands, recording: None })
    }

    pub(super) fn export(&self) -> Result<BufferPayload> {
        Ok(self.buffer.export()?)
    }

    /// Copies the payload to another buffer, in the same command buffer as the kernels.
    pub(super) fn copy_to(&mut self, other: vk::Buffer) -> Result<()> {
        let command = self.command()?;
        self.rig.record_barrier(command);
        let region = vk::BufferCopy::default().size(self.buffer.desc().size);
        let (device, own) = (self.rig.device(), self.buffer.handle());
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
            self.rig.begin(*command)?;
            self.recording = Some(SubmitPart::default());
        }
        Ok(*command)
    }

    fn add(&mut self, part: SubmitPart) -> Result<()> {
        Ok(self.recording.as_mut().context("nothing is being recorded")?.merge(part)?)
    }

    fn submit(&mut self) -> Result<()> {
        let Some(mut part) = self.recording.take() else { return Ok(()) };
        self.commands[0].1 = Some(self.fences.next(&mut part)?);
        self.rig.submit(self.commands[0].0, &part)?;
        self.commands.swap(0, 1);
        Ok(())
    }

    /// What a turn does with the buffer: kernels, and the copy of [`Player::read`].
    fn access(&self) -> BufferAccess<'_> {
        let (kernel, copy) =
            (BufferAccess::compute(&self.buffer), BufferAccess::transfer(&self.buffer));
        BufferAccess {
            stage: kernel.stage | copy.stage,
            access: kernel.access | copy.access,
            ..kernel
        }
    }
}

impl Player for VulkanPlayer<'_> {
    type Endpoint = vulkan::Endpoint;

    fn endpoint(&self) -> &vulkan::Endpoint {
        &self.rig.endpoint
    }

    fn take(&mut self, from: &mut Acquirer<vulkan::Endpoint>, ticket: Ticket) -> Result<()> {
        let (command, family) = (self.command()?, self.rig.vulkan.queue_family());
        // SAFETY: the command buffer is being recorded for a queue of that family, the buffer lives
        // until `drop` has waited, and the part goes into the submit.
        let part = unsafe { from.acquire(ticket, command, family, &[self.access()]) }?;
        self.add(part)
    }

    fn work(&mut self, kernel: Kernel) -> Result<()> {
        let command = self.command()?;
        self.rig.record_barrier(command);
        let bound = self.bound.as_ref().context("bound until it is dropped")?;
        self.rig.record(command, kernel, bound, 0);
        Ok(())
    }

    fn give(&mut self, to: &mut Releaser<vulkan::Endpoint>) -> Result<Ticket> {
        let (command, family) = (self.command()?, self.rig.vulkan.queue_family());
        // SAFETY: as in `take`; the family owns the buffer, which it made or has acquired.
        let (ticket, part) = unsafe { to.release(command, family, &[self.access()]) }?;
        self.add(part)?;
        self.submit()?;
        Ok(ticket)
    }

    fn read(&mut self) -> Result<Vec<u8>> {
        self.submit()?;
        self.rig.download(self.buffer.handle(), 0, self.buffer.desc().size)
    }

    fn settle(&mut self) -> Result<()> {
        self.submit()?;
        Ok(self.rig.vulkan.wait_idle()?)
    }
}

impl Drop for VulkanPlayer<'_> {
    fn drop(&mut self) {
        // A lost device has nothing in flight.
        let _ = self.rig.vulkan.wait_idle();
        if let Some(bound) = self.bound.take() {
            self.rig.unbind(bound);
        }
    }
}

/// OpenGL, its context current.
pub(super) struct GlPlayer<'a> {
    rig: &'a GlRig,
    buffer: gl::Buffer,
}

impl<'a> GlPlayer<'a> {
    pub(super) fn import(rig: &'a GlRig, payload: BufferPayload) -> Result<Self> {
        Ok(Self { rig, buffer: rig.endpoint.import_buffer(payload)? })
    }
}

impl Player for GlPlayer<'_> {
    type Endpoint = gl::Endpoint;

    fn endpoint(&self) -> &gl::Endpoint {
        &self.rig.endpoint
    }

    fn take(&mut self, from: &mut Acquirer<gl::Endpoint>, ticket: Ticket) -> Result<()> {
        Ok(from.acquire(ticket, &[&self.buffer], &[])?)
    }

    fn work(&mut self, kernel: Kernel) -> Result<()> {
        self.rig.dispatch(kernel, self.buffer.name(), self.buffer.desc().size, 0)
    }

    fn give(&mut self, to: &mut Releaser<gl::Endpoint>) -> Result<Ticket> {
        Ok(to.release(&[&self.buffer], &[])?)
    }

    fn read(&mut self) -> Result<Vec<u8>> {
        self.rig.download(self.buffer.name(), 0, self.buffer.desc().size)
    }

    fn settle(&mut self) -> Result<()> {
        self.rig.finish();
        Ok(())
    }
}

/// CUDA, on the rig's stream.
pub(super) struct CudaPlayer<'a> {
    rig: &'a CudaRig,
    buffer: cuda::Buffer,
}

impl<'a> CudaPlayer<'a> {
    pub(super) fn new(rig: &'a CudaRig, buffer: cuda::Buffer) -> Self {
        Self { rig, buffer }
    }

    pub(super) fn import(rig: &'a CudaRig, payload: BufferPayload) -> Result<Self> {
        Ok(Self::new(rig, rig.endpoint.import_buffer(payload)?))
    }
}

impl Player for CudaPlayer<'_> {
    type Endpoint = cuda::Endpoint;

    fn endpoint(&self) -> &cuda::Endpoint {
        &self.rig.endpoint
    }

    fn take(&mut self, from: &mut Acquirer<cuda::Endpoint>, ticket: Ticket) -> Result<()> {
        Ok(from.acquire(ticket, &self.rig.stream)?)
    }

    fn work(&mut self, kernel: Kernel) -> Result<()> {
        self.rig.launch(kernel, &mut self.buffer.as_view_mut::<u8>()?, 0)
    }

    fn give(&mut self, to: &mut Releaser<cuda::Endpoint>) -> Result<Ticket> {
        Ok(to.release(&self.rig.stream)?)
    }

    fn read(&mut self) -> Result<Vec<u8>> {
        let data = self.rig.stream.clone_dtoh(&self.buffer.as_view::<u8>()?)?;
        self.rig.stream.synchronize()?;
        Ok(data)
    }

    fn settle(&mut self) -> Result<()> {
        Ok(self.rig.stream.synchronize()?)
    }
}

/// How long a game goes on, and how often the first player looks at every byte.
#[derive(Clone, Copy, Debug)]
pub(super) struct Game {
    pub(super) options: HandoffOptions,
    pub(super) rounds: u32,
    pub(super) check_every: u32,
}

impl Game {
    /// `rounds` rounds with the best synchronisation there is, each of them checked.
    pub(super) fn of(rounds: u32) -> Self {
        Self { options: HandoffOptions::default(), rounds, check_every: 1 }
    }

    /// Whether the payload is looked at after `round`, which counts from 1.
    fn looks_after(&self, round: u32) -> bool {
        round.is_multiple_of(self.check_every) || round == self.rounds
    }
}

/// What the payload must be by now.
struct Course {
    step: u32,
    turns: Turns,
}

impl Course {
    const SEED: u32 = 7;

    /// `player` makes the payload's content.
    fn start(player: &mut impl Player) -> Result<Self> {
        player.work(Kernel::Fill { seed: Self::SEED })?;
        Ok(Self { step: 0, turns: Turns::default() })
    }

    /// A turn, which no other is like.
    fn turn(&mut self, player: &mut impl Player) -> Result<()> {
        self.step += 1;
        self.turns.then(self.step);
        player.work(Kernel::PingPong { step: self.step })
    }

    fn check(&self, player: &mut impl Player) -> Result<()> {
        oracle::check(&player.read()?, Self::SEED, &self.turns)
            .with_context(|| format!("after turn {}", self.step))
    }
}

/// The payload goes from one player to the next.
pub(super) fn pass<A: Player, B: Player>(
    lane: &mut Handoff<A::Endpoint, B::Endpoint>,
    from: &mut A,
    to: &mut B,
) -> Result<()> {
    let ticket = from.give(&mut lane.release)?;
    to.take(&mut lane.acquire, ticket)
}

/// The payload goes from `a` to `b` and back, and each has a turn with it. Says how both ways were
/// synchronised.
pub(super) fn there_and_back<A: Player, B: Player>(
    owner: &vulkan::Endpoint,
    (a, b): (&mut A, &mut B),
    game: Game,
) -> Result<[SyncPlan; 2]> {
    let mut there = handoff::open(owner, a.endpoint(), b.endpoint(), game.options)?;
    let mut back = handoff::open(owner, b.endpoint(), a.endpoint(), game.options)?;
    let mut course = Course::start(a)?;
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
pub(super) fn around<A: Player, B: Player, C: Player>(
    owner: &vulkan::Endpoint,
    (a, b, c): (&mut A, &mut B, &mut C),
    game: Game,
) -> Result<()> {
    let mut ab = handoff::open(owner, a.endpoint(), b.endpoint(), game.options)?;
    let mut bc = handoff::open(owner, b.endpoint(), c.endpoint(), game.options)?;
    let mut ca = handoff::open(owner, c.endpoint(), a.endpoint(), game.options)?;
    let mut course = Course::start(a)?;
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

//! One API's user of a payload, and the round trips of a payload between several of them.

use anyhow::{Context, Result};
use gpu_interop::ash::vk;
use gpu_interop::capabilities::SyncPlan;
use gpu_interop::handoff::{self, Acquirer, Handoff, HandoffOptions, Releaser, Ticket};
use gpu_interop::vulkan::{self, BufferOptions};
use gpu_interop::{BufferDesc, BufferPayload, Peer as _};

use crate::cases::support::contexts::ApiContext;
use interop_gpu::Kernel;
use interop_gpu::oracle::{self, Passes};
use interop_gpu::vulkan::VulkanContext;

/// Works on the payload while it owns it, and then passes it on.
pub(crate) struct PayloadUser<'a, C: ApiContext> {
    // Dropped first: its drop waits for the work on the buffer.
    recorder: C::Recorder<'a>,
    buffer: C::Buffer,
    context: &'a C,
}

impl<'a, C: ApiContext> PayloadUser<'a, C> {
    pub(crate) fn new(context: &'a C, buffer: C::Buffer) -> Result<Self> {
        Ok(Self { recorder: context.recorder(&buffer)?, buffer, context })
    }

    pub(crate) fn import(context: &'a C, payload: BufferPayload) -> Result<Self> {
        Self::new(context, context.endpoint().import_buffer(payload)?)
    }

    pub(crate) fn endpoint(&self) -> &'a C::Endpoint {
        self.context.endpoint()
    }

    /// Runs a kernel over the payload.
    pub(crate) fn run(&mut self, kernel: Kernel) -> Result<()> {
        self.context.run(&mut self.recorder, &mut self.buffer, kernel)
    }

    /// Returns the payload's bytes, once all the work so far is done.
    pub(crate) fn read(&mut self) -> Result<Vec<u8>> {
        self.context.submit(&mut self.recorder)?;
        self.context.read(&self.buffer)
    }

    /// Acquires the payload: what follows happens after the release of `ticket`.
    pub(crate) fn acquire(
        &mut self,
        from: &mut Acquirer<C::Endpoint>,
        ticket: Ticket,
    ) -> Result<()> {
        self.context.hand_over(&mut self.recorder, &self.buffer, |commands| {
            Ok(((), from.acquire(ticket, commands)?))
        })
    }

    /// Releases the payload, after everything before.
    pub(crate) fn release(&mut self, to: &mut Releaser<C::Endpoint>) -> Result<Ticket> {
        let (recorder, buffer) = (&mut self.recorder, &self.buffer);
        let ticket =
            self.context.hand_over(recorder, buffer, |commands| Ok(to.release(commands)?))?;
        self.context.submit(&mut self.recorder)?;
        Ok(ticket)
    }

    /// Waits until the API has done everything.
    pub(crate) fn finish(&mut self) -> Result<()> {
        self.context.submit(&mut self.recorder)?;
        self.context.finish()
    }
}

impl<'a> PayloadUser<'a, VulkanContext> {
    /// Creates the payload.
    pub(crate) fn create(gpu: &'a VulkanContext, bytes: u64) -> Result<Self> {
        let desc = BufferDesc::storage(bytes);
        Self::new(gpu, gpu.endpoint.create_buffer(&desc, BufferOptions::default())?)
    }

    pub(crate) fn export(&self) -> Result<BufferPayload> {
        Ok(self.buffer.export()?)
    }

    /// Copies the payload to another buffer, in the same command buffer as the kernels.
    pub(crate) fn copy_to(&mut self, other: vk::Buffer) -> Result<()> {
        let command = self.recorder.command()?;
        self.context.record_barrier(command);
        let region = vk::BufferCopy::default().size(self.buffer.desc().size);
        let (device, own) = (self.context.device(), self.buffer.handle());
        // SAFETY: the command buffer is being recorded; the callers pass a buffer as long as the payload,
        // which outlives this user.
        unsafe { device.cmd_copy_buffer(command, own, other, &[region]) };
        Ok(())
    }
}

impl PayloadUser<'_, VulkanContext> {
    /// Records the barrier after which the host can read what was written so far.
    pub(crate) fn make_visible_to_the_host(&mut self) -> Result<()> {
        let (all, host) = (vk::PipelineStageFlags::ALL_COMMANDS, vk::PipelineStageFlags::HOST);
        let barrier = vk::MemoryBarrier::default()
            .src_access_mask(vk::AccessFlags::MEMORY_WRITE)
            .dst_access_mask(vk::AccessFlags::HOST_READ);
        let (command, none) = (self.recorder.command()?, vk::DependencyFlags::empty());
        let device = self.context.device();
        // SAFETY: the command buffer is being recorded.
        unsafe { device.cmd_pipeline_barrier(command, all, host, none, &[barrier], &[], &[]) };
        Ok(())
    }
}

/// How many rounds a payload makes, and how often its first user checks every byte.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RoundTrip {
    pub(crate) options: HandoffOptions,
    pub(crate) rounds: u32,
    pub(crate) check_every: u32,
}

impl RoundTrip {
    /// `rounds` rounds with the best synchronisation available, each of them checked.
    pub(crate) fn of(rounds: u32) -> Self {
        Self { options: HandoffOptions::default(), rounds, check_every: 1 }
    }

    /// Whether the payload is checked after `round`, which counts from 1.
    fn checks_after(&self, round: u32) -> bool {
        round.is_multiple_of(self.check_every) || round == self.rounds
    }
}

/// What the payload must contain by now.
struct Expected {
    step: u32,
    turns: Passes,
}

impl Expected {
    const SEED: u32 = 7;

    /// Lets `user` write the payload's first content.
    fn start<C: ApiContext>(user: &mut PayloadUser<'_, C>) -> Result<Self> {
        user.run(Kernel::Fill { seed: Self::SEED })?;
        Ok(Self { step: 0, turns: Passes::default() })
    }

    /// Lets `user` change the payload; no two steps are alike.
    fn step<C: ApiContext>(&mut self, user: &mut PayloadUser<'_, C>) -> Result<()> {
        self.step += 1;
        self.turns.then(self.step);
        user.run(Kernel::PingPong { step: self.step })
    }

    fn check<C: ApiContext>(&self, user: &mut PayloadUser<'_, C>) -> Result<()> {
        oracle::check(&user.read()?, Self::SEED, &self.turns)
            .with_context(|| format!("after step {}", self.step))
    }
}

/// Hands the payload from one user to another.
pub(crate) fn pass<A: ApiContext, B: ApiContext>(
    handoff: &mut Handoff<A::Endpoint, B::Endpoint>,
    from: &mut PayloadUser<'_, A>,
    to: &mut PayloadUser<'_, B>,
) -> Result<()> {
    let ticket = from.release(&mut handoff.release)?;
    to.acquire(&mut handoff.acquire, ticket)
}

/// Passes the payload from `a` to `b` and back; each changes it while it owns it. Returns how both ways
/// were synchronised.
pub(crate) fn there_and_back<A: ApiContext, B: ApiContext>(
    owner: &vulkan::Endpoint,
    (a, b): (&mut PayloadUser<'_, A>, &mut PayloadUser<'_, B>),
    trip: RoundTrip,
) -> Result<[SyncPlan; 2]> {
    let mut there = handoff::open(owner, a.endpoint(), b.endpoint(), trip.options)?;
    let mut back = handoff::open(owner, b.endpoint(), a.endpoint(), trip.options)?;
    let mut expected = Expected::start(a)?;
    for round in 1..=trip.rounds {
        expected.step(a)?;
        pass(&mut there, a, b)?;
        expected.step(b)?;
        pass(&mut back, b, a)?;
        if trip.checks_after(round) {
            expected.check(a)?;
        }
    }
    // The handoffs own the semaphores: each side must be done with them.
    b.finish()?;
    a.finish()?;
    Ok([there.plan, back.plan])
}

/// Passes the payload from `a` to `b` to `c` and back to `a`; each changes it while it owns it.
pub(crate) fn around<A: ApiContext, B: ApiContext, C: ApiContext>(
    owner: &vulkan::Endpoint,
    (a, b, c): (&mut PayloadUser<'_, A>, &mut PayloadUser<'_, B>, &mut PayloadUser<'_, C>),
    trip: RoundTrip,
) -> Result<()> {
    let mut ab = handoff::open(owner, a.endpoint(), b.endpoint(), trip.options)?;
    let mut bc = handoff::open(owner, b.endpoint(), c.endpoint(), trip.options)?;
    let mut ca = handoff::open(owner, c.endpoint(), a.endpoint(), trip.options)?;
    let mut expected = Expected::start(a)?;
    for round in 1..=trip.rounds {
        expected.step(a)?;
        pass(&mut ab, a, b)?;
        expected.step(b)?;
        pass(&mut bc, b, c)?;
        expected.step(c)?;
        pass(&mut ca, c, a)?;
        if trip.checks_after(round) {
            expected.check(a)?;
        }
    }
    c.finish()?;
    b.finish()?;
    a.finish()
}

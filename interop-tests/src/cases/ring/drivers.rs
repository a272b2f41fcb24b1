//! Drivers of a ring's stages: each API takes slots, keeps a copy of what it found in them, runs its kernel,
//! and releases them. Every byte that any stage has found is checked at the end.

use anyhow::{Context, Result, ensure};
use gpu_interop::ash::vk;
use gpu_interop::cudarc::driver::CudaSlice;
use gpu_interop::glow::{self, HasContext as _};
use gpu_interop::ring::{Batch, RingPeer, RingStage, Slot, SlotCommands, Wait};
use gpu_interop::vulkan::Buffer;
use gpu_interop::{cuda, gl, vulkan};

use crate::cases::support::contexts::{ApiContext, all_access};
use interop_gpu::Kernel;
use interop_gpu::cuda::CudaContext;
use interop_gpu::gl::GlContext;
use interop_gpu::oracle::{self, Passes};
use interop_gpu::vulkan::{Bound, PrivateBuffer, VulkanContext};

/// Bytes of a payload.
pub(crate) const BYTES: u64 = 16 << 10;
/// Payloads that the first stage fills.
const ITEMS: u32 = 96;

/// A stage's place in the ring, from which follows what it does and finds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StagePosition {
    /// Its place in the ring, from 0.
    pub(crate) place: u32,
    /// The number of stages.
    pub(crate) stages: u32,
    /// The number of slots.
    pub(crate) depth: u32,
    /// The number of slots that are taken at a time.
    pub(crate) batch: u32,
}

impl StagePosition {
    /// Returns how many slots the stage takes in all: the first takes each once more, to check it.
    fn items(self) -> u32 {
        if self.place == 0 { ITEMS + self.depth } else { ITEMS }
    }

    /// Returns how many slots the stage takes next, after `item` items.
    fn count(self, item: u32) -> usize {
        self.batch.min(self.items() - item) as usize
    }

    /// Returns what the stage does with its item number `item`.
    fn kernel(self, item: u32) -> Kernel {
        if self.place == 0 {
            Kernel::Fill { seed: item }
        } else {
            Kernel::PingPong { step: self.place * 1000 + item }
        }
    }

    /// Returns what the stage finds in its item number `item`; `None` if the slot was never filled.
    fn found(self, item: u32) -> Option<(u32, Passes)> {
        let (seed, last) = match self.place {
            0 => (item.checked_sub(self.depth)?, self.stages),
            place => (item, place),
        };
        let mut turns = Passes::default();
        (1..last).for_each(|place| turns.then(place * 1000 + seed));
        Some((seed, turns))
    }

    /// Checks what the stage has found, item by item.
    fn check(self, found: &[u8], done: u32) -> Result<()> {
        ensure!(done == self.items(), "{done} of {} slots arrived", self.items());
        for (item, found) in (0..).zip(found.chunks_exact(BYTES as usize)) {
            let Some((seed, turns)) = self.found(item) else { continue };
            oracle::check(found, seed, &turns)
                .with_context(|| format!("item {item} at stage {}", self.place))?;
        }
        Ok(())
    }

    fn bytes(self) -> u64 {
        BYTES * u64::from(self.items())
    }

    /// Checks that slots arrive in order, and that only the first ones are new.
    fn check_slot(self, slot: &Slot, item: u32) -> Result<()> {
        ensure!(slot.index() as u32 == item % self.depth, "item {item} in {slot:?}");
        let is_new = self.place == 0 && item < self.depth;
        ensure!(slot.is_new() == is_new, "item {item} in {slot:?}");
        Ok(())
    }
}

/// Works at one stage.
pub(crate) trait StageDriver {
    /// Takes the next slots, works on them and releases them. Returns whether it did: not if all are done, or
    /// if they have not arrived and `wait` is [`Wait::No`].
    fn turn(&mut self, wait: Wait) -> Result<bool>;

    /// Waits for all the work, and checks what was found.
    fn check(&mut self) -> Result<()>;
}

/// A context that can work at a stage.
pub(crate) trait RingContext: ApiContext<Endpoint: RingPeer> {
    type Driver<'a>: StageDriver
    where
        Self: 'a;

    fn driver(
        &self,
        stage: RingStage<Self::Endpoint>,
        position: StagePosition,
        barriers: Barriers,
    ) -> Result<Self::Driver<'_>>;
}

/// Runs all stages on this thread until none has anything left to take, and checks them.
pub(crate) fn run_all(drivers: &mut [&mut dyn StageDriver]) -> Result<()> {
    let mut moved = true;
    while moved {
        moved = false;
        for driver in drivers.iter_mut() {
            while driver.turn(Wait::No)? {
                moved = true;
            }
        }
    }
    drivers.iter_mut().try_for_each(|driver| driver.check())
}

/// What records the barriers of a Vulkan stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Barriers {
    /// The ring.
    Ring,
    /// The driver, in advance.
    Own,
}

/// Vulkan at a stage.
pub(crate) struct VulkanStage<'a> {
    gpu: &'a VulkanContext,
    position: StagePosition,
    barriers: Barriers,
    item: u32,
    bound: Vec<Bound>,
    /// One per turn: none is used again.
    commands: Vec<vk::CommandBuffer>,
    found: PrivateBuffer,
    // Dropped after what is bound to its buffers.
    stage: RingStage<vulkan::Endpoint>,
}

impl RingContext for VulkanContext {
    type Driver<'a> = VulkanStage<'a>;

    fn driver(
        &self,
        stage: RingStage<Self::Endpoint>,
        position: StagePosition,
        barriers: Barriers,
    ) -> Result<VulkanStage<'_>> {
        let bind = |buffer: &Buffer| self.bind(buffer.handle(), BYTES);
        let bound = stage.buffers().iter().map(bind).collect::<Result<_>>()?;
        let commands = self.command_buffers(position.items().div_ceil(position.batch))?;
        let found = PrivateBuffer::device(&self.vulkan, position.bytes())?;
        Ok(VulkanStage { gpu: self, position, barriers, item: 0, bound, commands, found, stage })
    }
}

impl VulkanStage<'_> {
    fn record_work(&mut self, command: vk::CommandBuffer, batch: &Batch) -> Result<()> {
        for slot in batch {
            self.position.check_slot(slot, self.item)?;
            let buffer = self.stage.buffer(slot)?.handle();
            let to = BYTES * u64::from(self.item);
            let region = vk::BufferCopy::default().dst_offset(to).size(BYTES);
            // SAFETY: the command buffer is being recorded, and both buffers are long enough.
            unsafe {
                self.gpu.device().cmd_copy_buffer(command, buffer, self.found.buffer, &[region]);
            }
            self.gpu.record_barrier(command);
            let bound = &self.bound[slot.index()];
            self.gpu.record(command, self.position.kernel(self.item), bound, 0);
            self.item += 1;
        }
        Ok(())
    }
}

impl StageDriver for VulkanStage<'_> {
    fn turn(&mut self, wait: Wait) -> Result<bool> {
        let count = self.position.count(self.item);
        if count == 0 || matches!(wait, Wait::No) && self.stage.arrived() < count {
            return Ok(false);
        }
        let turn = (self.item / self.position.batch) as usize;
        let command = *self.commands.get(turn).context("a command buffer per turn")?;
        let family = self.gpu.vulkan.queue_family();
        self.gpu.begin(command)?;
        let (endpoint, how_many) = (self.gpu.endpoint.clone(), count..=count);
        let commands = match self.barriers {
            // SAFETY: the command buffer is being recorded; what is returned goes into its submit, and the
            // stage lives until `check` or `drop` has waited.
            Barriers::Ring => unsafe { SlotCommands::record(command, family, all_access) },
            Barriers::Own => SlotCommands::recorded(),
        };
        let taken = self.stage.take(wait, how_many, commands)?;
        let (batch, mut sync) = taken.context("they have arrived")?;
        let mut used = Vec::new();
        if self.barriers == Barriers::Own {
            for slot in batch.iter().filter(|slot| !slot.is_new()) {
                used.push(all_access(self.stage.buffer(slot)?));
            }
            // SAFETY: as above.
            unsafe { endpoint.record_acquire(command, family, used.as_slice()) }?;
        }
        drop(used);
        self.record_work(command, &batch)?;
        if self.barriers == Barriers::Own {
            let mut used = Vec::new();
            for slot in &batch {
                used.push(all_access(self.stage.buffer(slot)?));
            }
            // SAFETY: as above.
            unsafe { endpoint.record_release(command, family, used.as_slice()) }?;
        }
        sync.merge(self.stage.release(batch, commands)?);
        self.gpu.submit(command, sync)?;
        Ok(true)
    }

    fn check(&mut self) -> Result<()> {
        self.gpu.vulkan.wait_idle()?;
        let found = self.gpu.download(self.found.buffer, 0, self.position.bytes())?;
        self.position.check(&found, self.item)
    }
}

impl Drop for VulkanStage<'_> {
    fn drop(&mut self) {
        // A lost device has nothing in flight.
        let _ = self.gpu.vulkan.wait_idle();
        self.bound.drain(..).for_each(|bound| self.gpu.unbind(bound));
        self.gpu.free_command_buffers(&self.commands);
    }
}

/// OpenGL at a stage. The context must be current.
pub(crate) struct GlStage<'a> {
    gpu: &'a GlContext,
    position: StagePosition,
    item: u32,
    found: glow::Buffer,
    stage: RingStage<gl::Endpoint>,
}

impl RingContext for GlContext {
    type Driver<'a> = GlStage<'a>;

    fn driver(
        &self,
        stage: RingStage<Self::Endpoint>,
        position: StagePosition,
        _: Barriers,
    ) -> Result<GlStage<'_>> {
        let found = self.private_buffer(position.bytes())?;
        Ok(GlStage { gpu: self, position, item: 0, found, stage })
    }
}

impl StageDriver for GlStage<'_> {
    fn turn(&mut self, wait: Wait) -> Result<bool> {
        let count = self.position.count(self.item);
        if count == 0 {
            return Ok(false);
        }
        let Some((batch, ())) = self.stage.take(wait, count..=count, ())? else {
            return Ok(false);
        };
        for slot in &batch {
            self.position.check_slot(slot, self.item)?;
            let name = self.stage.buffer(slot)?.name();
            let (gl, to) = (self.gpu.gl.glow(), i32::try_from(BYTES * u64::from(self.item))?);
            let (read, write) = (glow::COPY_READ_BUFFER, glow::COPY_WRITE_BUFFER);
            // SAFETY: the context is current, and both buffers are long enough.
            unsafe {
                gl.bind_buffer(read, Some(name));
                gl.bind_buffer(write, Some(self.found));
                gl.copy_buffer_sub_data(read, write, 0, to, i32::try_from(BYTES)?);
            }
            self.gpu.dispatch(self.position.kernel(self.item), name, BYTES, 0)?;
            self.item += 1;
        }
        self.stage.release(batch, ())?;
        Ok(true)
    }

    fn check(&mut self) -> Result<()> {
        let found = self.gpu.download(self.found, 0, self.position.bytes())?;
        self.position.check(&found, self.item)
    }
}

impl Drop for GlStage<'_> {
    fn drop(&mut self) {
        self.gpu.finish();
        self.gpu.delete_buffer(self.found);
    }
}

/// CUDA at a stage.
pub(crate) struct CudaStage<'a> {
    gpu: &'a CudaContext,
    position: StagePosition,
    item: u32,
    found: CudaSlice<u8>,
    stage: RingStage<cuda::Endpoint>,
}

impl RingContext for CudaContext {
    type Driver<'a> = CudaStage<'a>;

    fn driver(
        &self,
        stage: RingStage<Self::Endpoint>,
        position: StagePosition,
        _: Barriers,
    ) -> Result<CudaStage<'_>> {
        let found = self.private_buffer(position.bytes())?;
        Ok(CudaStage { gpu: self, position, item: 0, found, stage })
    }
}

impl StageDriver for CudaStage<'_> {
    fn turn(&mut self, wait: Wait) -> Result<bool> {
        let count = self.position.count(self.item);
        if count == 0 {
            return Ok(false);
        }
        let stream = &self.gpu.stream;
        let Some((batch, ())) = self.stage.take(wait, count..=count, stream)? else {
            return Ok(false);
        };
        for slot in &batch {
            self.position.check_slot(slot, self.item)?;
            let buffer = self.stage.buffer_mut(slot)?;
            let to = (BYTES as usize) * self.item as usize;
            let mut found = self.found.slice_mut(to..to + BYTES as usize);
            stream.memcpy_dtod(&buffer.as_view::<u8>()?, &mut found)?;
            let kernel = self.position.kernel(self.item);
            self.gpu.launch(kernel, &mut buffer.as_view_mut::<u8>()?, 0)?;
            self.item += 1;
        }
        self.stage.release(batch, stream)?;
        Ok(true)
    }

    fn check(&mut self) -> Result<()> {
        let found = self.gpu.stream.clone_dtoh(&self.found)?;
        self.gpu.stream.synchronize()?;
        self.position.check(&found, self.item)
    }
}

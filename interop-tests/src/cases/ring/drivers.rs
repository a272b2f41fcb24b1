//! Stations at work: each API takes slots, keeps what it found in them, runs its kernel, and passes
//! them on. Nothing waits in between; every byte that any station has found is looked at in the end.

use anyhow::{Context, Result, ensure};
use gpu_interop::ash::vk;
use gpu_interop::cudarc::driver::CudaSlice;
use gpu_interop::glow::{self, HasContext as _};
use gpu_interop::ring::{Batch, RingStage, Slot, SlotCommands, Wait};
use gpu_interop::vulkan::{Buffer, BufferAccess};
use gpu_interop::{cuda, gl, vulkan};

use interop_gpu::Kernel;
use interop_gpu::cuda::CudaContext;
use interop_gpu::gl::GlContext;
use interop_gpu::oracle::{self, Turns};
use interop_gpu::vulkan::{Bound, PrivateBuffer, VulkanContext};

/// Bytes of a payload.
pub(crate) const BYTES: u64 = 16 << 10;
/// Payloads that go round in a case.
pub(crate) const ITEMS: u32 = 96;

/// Which station this is, and what it therefore does and finds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StagePosition {
    /// Its place in the ring, from 0.
    pub(crate) place: u32,
    /// How many stations there are.
    pub(crate) stations: u32,
    /// How many slots.
    pub(crate) depth: u32,
    /// How many at a time.
    pub(crate) batch: u32,
}

impl StagePosition {
    /// How many slots it takes in all: the first takes each once more, to look at it.
    fn items(self) -> u32 {
        if self.place == 0 { ITEMS + self.depth } else { ITEMS }
    }

    /// What it does with its item number `item`.
    fn kernel(self, item: u32) -> Kernel {
        if self.place == 0 {
            Kernel::Fill { seed: item }
        } else {
            Kernel::PingPong { step: self.place * 1000 + item }
        }
    }

    /// What it finds in its item number `item`, where there is something.
    fn found(self, item: u32) -> Option<(u32, Turns)> {
        let (seed, last) = match self.place {
            0 => (item.checked_sub(self.depth)?, self.stations),
            place => (item, place),
        };
        let mut turns = Turns::default();
        (1..last).for_each(|place| turns.then(place * 1000 + seed));
        Some((seed, turns))
    }

    /// Checks what it has found, item by item.
    fn check(self, found: &[u8], done: u32) -> Result<()> {
        ensure!(done == self.items(), "{done} of {} slots came", self.items());
        for (item, found) in (0..).zip(found.chunks_exact(BYTES as usize)) {
            let Some((seed, turns)) = self.found(item) else { continue };
            oracle::check(found, seed, &turns)
                .with_context(|| format!("item {item} at station {}", self.place))?;
        }
        Ok(())
    }

    fn bytes(self) -> u64 {
        BYTES * u64::from(self.items())
    }

    /// Slots come in order, and only those of the beginning have nothing to acquire.
    fn check_slot(self, slot: &Slot, item: u32) -> Result<()> {
        ensure!(slot.index() as u32 == item % self.depth, "item {item} in {slot:?}");
        let is_new = self.place == 0 && item < self.depth;
        ensure!(slot.is_new() == is_new, "item {item} in {slot:?}");
        Ok(())
    }
}

/// Somebody at a station.
pub(crate) trait StageDriver {
    /// Takes the next slots, if they have arrived; whether they have.
    fn turn(&mut self) -> Result<bool>;

    /// Waits for all of it, and checks what was found.
    fn check(&mut self) -> Result<()>;
}

/// All stations at work until nothing moves any more, as many slots under way as there are.
pub(crate) fn play(hands: &mut [&mut dyn StageDriver]) -> Result<()> {
    loop {
        let mut moved = false;
        for hand in hands.iter_mut() {
            while hand.turn()? {
                moved = true;
            }
        }
        if !moved {
            break;
        }
    }
    hands.iter_mut().try_for_each(|hand| hand.check())
}

/// Who records the barriers of a Vulkan station.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Barriers {
    /// The ring.
    Ring,
    /// The station's owner, in advance.
    Own,
}

/// A Vulkan device at a station.
pub(crate) struct VulkanHands<'a> {
    gpu: &'a VulkanContext,
    post: StagePosition,
    barriers: Barriers,
    item: u32,
    bound: Vec<Bound>,
    /// One a turn: none is used again.
    commands: Vec<vk::CommandBuffer>,
    found: PrivateBuffer,
    // After what was bound to its buffers.
    station: RingStage<vulkan::Endpoint>,
}

/// Kernels, and the copy of what was found.
pub(crate) fn everything(buffer: &Buffer) -> BufferAccess<'_> {
    BufferAccess::compute(buffer) | BufferAccess::transfer(buffer)
}

impl<'a> VulkanHands<'a> {
    pub(crate) fn new(
        gpu: &'a VulkanContext,
        station: RingStage<vulkan::Endpoint>,
        post: StagePosition,
        barriers: Barriers,
    ) -> Result<Self> {
        let bind = |buffer: &Buffer| gpu.bind(buffer.handle(), BYTES);
        let bound = station.buffers().iter().map(bind).collect::<Result<_>>()?;
        let commands = gpu.command_buffers(post.items().div_ceil(post.batch))?;
        let found = PrivateBuffer::device(&gpu.vulkan, post.bytes())?;
        Ok(Self { gpu, post, barriers, item: 0, bound, commands, found, station })
    }

    fn record_work(&mut self, command: vk::CommandBuffer, batch: &Batch) -> Result<()> {
        for slot in batch {
            self.post.check_slot(slot, self.item)?;
            let buffer = self.station.buffer(slot)?.handle();
            let to = BYTES * u64::from(self.item);
            let region = vk::BufferCopy::default().dst_offset(to).size(BYTES);
            // SAFETY: the command buffer is being recorded, and both buffers are long enough.
            unsafe {
                self.gpu.device().cmd_copy_buffer(command, buffer, self.found.buffer, &[region]);
            }
            self.gpu.record_barrier(command);
            let bound = &self.bound[slot.index()];
            self.gpu.record(command, self.post.kernel(self.item), bound, 0);
            self.item += 1;
        }
        Ok(())
    }
}

impl StageDriver for VulkanHands<'_> {
    fn turn(&mut self) -> Result<bool> {
        let count = self.post.batch.min(self.post.items() - self.item) as usize;
        if count == 0 || self.station.arrived() < count {
            return Ok(false);
        }
        let turn = (self.item / self.post.batch) as usize;
        let command = *self.commands.get(turn).context("a command buffer a turn")?;
        let family = self.gpu.vulkan.queue_family();
        self.gpu.begin(command)?;
        let (endpoint, how_many) = (self.gpu.endpoint.clone(), count..=count);
        let commands = match self.barriers {
            // SAFETY: the command buffer is being recorded; the part goes into its submit, and the
            // station lives until `check` or `drop` has waited.
            Barriers::Ring => unsafe { SlotCommands::record(command, family, everything) },
            Barriers::Own => SlotCommands::recorded(),
        };
        let taken = self.station.take(Wait::No, how_many, commands)?;
        let (batch, mut part) = taken.context("they have arrived")?;
        let mut used = Vec::new();
        if self.barriers == Barriers::Own {
            for slot in batch.iter().filter(|slot| !slot.is_new()) {
                used.push(everything(self.station.buffer(slot)?));
            }
            // SAFETY: as above.
            unsafe { endpoint.record_acquire(command, family, used.as_slice()) }?;
        }
        drop(used);
        self.record_work(command, &batch)?;
        if self.barriers == Barriers::Own {
            let mut used = Vec::new();
            for slot in &batch {
                used.push(everything(self.station.buffer(slot)?));
            }
            // SAFETY: as above.
            unsafe { endpoint.record_release(command, family, used.as_slice()) }?;
        }
        let (added, pending) = self.station.release(batch, commands)?;
        part.merge(added)?;
        self.gpu.submit(command, &part)?;
        pending.submitted();
        Ok(true)
    }

    fn check(&mut self) -> Result<()> {
        self.gpu.vulkan.wait_idle()?;
        let found = self.gpu.download(self.found.buffer, 0, self.post.bytes())?;
        self.post.check(&found, self.item)
    }
}

impl Drop for VulkanHands<'_> {
    fn drop(&mut self) {
        // A lost device has nothing in flight.
        let _ = self.gpu.vulkan.wait_idle();
        self.bound.drain(..).for_each(|bound| self.gpu.unbind(bound));
        self.gpu.free_command_buffers(&self.commands);
    }
}

/// OpenGL at a station.
pub(crate) struct GlHands<'a> {
    gpu: &'a GlContext,
    post: StagePosition,
    item: u32,
    found: glow::Buffer,
    station: RingStage<gl::Endpoint>,
}

impl<'a> GlHands<'a> {
    pub(crate) fn new(
        gpu: &'a GlContext,
        station: RingStage<gl::Endpoint>,
        post: StagePosition,
    ) -> Result<Self> {
        let found = gpu.private_buffer(post.bytes())?;
        Ok(Self { gpu, post, item: 0, found, station })
    }
}

impl StageDriver for GlHands<'_> {
    fn turn(&mut self) -> Result<bool> {
        let count = self.post.batch.min(self.post.items() - self.item) as usize;
        if count == 0 {
            return Ok(false);
        }
        let Some((batch, ())) = self.station.take(Wait::No, count..=count, ())? else {
            return Ok(false);
        };
        for slot in &batch {
            self.post.check_slot(slot, self.item)?;
            let name = self.station.buffer(slot)?.name();
            let (gl, to) = (self.gpu.gl.glow(), i32::try_from(BYTES * u64::from(self.item))?);
            let (read, write) = (glow::COPY_READ_BUFFER, glow::COPY_WRITE_BUFFER);
            // SAFETY: the context is current, and both buffers are long enough.
            unsafe {
                gl.bind_buffer(read, Some(name));
                gl.bind_buffer(write, Some(self.found));
                gl.copy_buffer_sub_data(read, write, 0, to, i32::try_from(BYTES)?);
            }
            self.gpu.dispatch(self.post.kernel(self.item), name, BYTES, 0)?;
            self.item += 1;
        }
        self.station.release(batch, ())?;
        Ok(true)
    }

    fn check(&mut self) -> Result<()> {
        let found = self.gpu.download(self.found, 0, self.post.bytes())?;
        self.post.check(&found, self.item)
    }
}

impl Drop for GlHands<'_> {
    fn drop(&mut self) {
        self.gpu.finish();
        self.gpu.delete_buffer(self.found);
    }
}

/// CUDA at a station.
pub(crate) struct CudaHands<'a> {
    gpu: &'a CudaContext,
    post: StagePosition,
    item: u32,
    found: CudaSlice<u8>,
    station: RingStage<cuda::Endpoint>,
}

impl<'a> CudaHands<'a> {
    pub(crate) fn new(
        gpu: &'a CudaContext,
        station: RingStage<cuda::Endpoint>,
        post: StagePosition,
    ) -> Result<Self> {
        let found = gpu.private_buffer(post.bytes())?;
        Ok(Self { gpu, post, item: 0, found, station })
    }
}

impl StageDriver for CudaHands<'_> {
    fn turn(&mut self) -> Result<bool> {
        let count = self.post.batch.min(self.post.items() - self.item) as usize;
        if count == 0 {
            return Ok(false);
        }
        let stream = &self.gpu.stream;
        let Some((batch, ())) = self.station.take(Wait::No, count..=count, stream)? else {
            return Ok(false);
        };
        for slot in &batch {
            self.post.check_slot(slot, self.item)?;
            let buffer = self.station.buffer_mut(slot)?;
            let to = (BYTES as usize) * self.item as usize;
            let mut found = self.found.slice_mut(to..to + BYTES as usize);
            stream.memcpy_dtod(&buffer.as_view::<u8>()?, &mut found)?;
            let kernel = self.post.kernel(self.item);
            self.gpu.launch(kernel, &mut buffer.as_view_mut::<u8>()?, 0)?;
            self.item += 1;
        }
        self.station.release(batch, stream)?;
        Ok(true)
    }

    fn check(&mut self) -> Result<()> {
        let found = self.gpu.stream.clone_dtoh(&self.found)?;
        self.gpu.stream.synchronize()?;
        self.post.check(&found, self.item)
    }
}

//! Stations at work: each API takes slots, keeps what it found in them, runs its kernel, and passes
//! them on. Nothing waits in between; every byte that any station has found is looked at in the end.

use anyhow::{Context, Result, ensure};
use gpu_interop::ash::vk;
use gpu_interop::cudarc::driver::CudaSlice;
use gpu_interop::glow::{self, HasContext as _};
use gpu_interop::handoff::ring::{Batch, Slot, Station, Wait};
use gpu_interop::vulkan::{Buffer, BufferAccess};
use gpu_interop::{cuda, gl, vulkan};

use crate::rig::Kernel;
use crate::rig::cuda::CudaRig;
use crate::rig::gl::GlRig;
use crate::rig::oracle::{self, Turns};
use crate::rig::vulkan::{Bound, PrivateBuffer, VulkanRig};

/// Bytes of a payload.
pub(super) const BYTES: u64 = 16 << 10;
/// Payloads that go round in a case.
pub(super) const ITEMS: u32 = 96;

/// Which station this is, and what it therefore does and finds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Post {
    /// Its place in the ring, from 0.
    pub(super) place: u32,
    /// How many stations there are.
    pub(super) stations: u32,
    /// How many slots.
    pub(super) depth: u32,
    /// How many at a time.
    pub(super) batch: u32,
}

impl Post {
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
pub(super) trait Hands {
    /// Takes the next slots, if they have arrived; whether they have.
    fn turn(&mut self) -> Result<bool>;

    /// Waits for all of it, and checks what was found.
    fn check(&mut self) -> Result<()>;
}

/// All stations at work until nothing moves any more, as many slots under way as there are.
pub(super) fn play(hands: &mut [&mut dyn Hands]) -> Result<()> {
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
pub(super) enum Barriers {
    /// The ring.
    Ring,
    /// The station's owner, in advance.
    Own,
}

/// A Vulkan device at a station.
pub(super) struct VulkanHands<'a> {
    rig: &'a VulkanRig,
    post: Post,
    barriers: Barriers,
    item: u32,
    bound: Vec<Bound>,
    /// One a turn: none is used again.
    commands: Vec<vk::CommandBuffer>,
    found: PrivateBuffer,
    // After what was bound to its buffers.
    station: Station<vulkan::Endpoint>,
}

/// Kernels, and the copy of what was found.
pub(super) fn everything(buffer: &Buffer) -> BufferAccess<'_> {
    let (kernel, copy) = (BufferAccess::compute(buffer), BufferAccess::transfer(buffer));
    BufferAccess { stage: kernel.stage | copy.stage, access: kernel.access | copy.access, ..kernel }
}

impl<'a> VulkanHands<'a> {
    pub(super) fn new(
        rig: &'a VulkanRig,
        station: Station<vulkan::Endpoint>,
        post: Post,
        barriers: Barriers,
    ) -> Result<Self> {
        let bind = |buffer: &Buffer| rig.bind(buffer.handle(), BYTES);
        let bound = station.buffers().iter().map(bind).collect::<Result<_>>()?;
        let commands = rig.command_buffers(post.items().div_ceil(post.batch))?;
        let found = PrivateBuffer::device(&rig.vulkan, post.bytes())?;
        Ok(Self { rig, post, barriers, item: 0, bound, commands, found, station })
    }

    fn record_work(&mut self, command: vk::CommandBuffer, batch: &Batch) -> Result<()> {
        for slot in batch {
            self.post.check_slot(slot, self.item)?;
            let buffer = self.station.buffer(slot)?.handle();
            let to = BYTES * u64::from(self.item);
            let region = vk::BufferCopy::default().dst_offset(to).size(BYTES);
            // SAFETY: the command buffer is being recorded, and both buffers are long enough.
            unsafe {
                self.rig.device().cmd_copy_buffer(command, buffer, self.found.buffer, &[region]);
            }
            self.rig.record_barrier(command);
            let bound = &self.bound[slot.index()];
            self.rig.record(command, self.post.kernel(self.item), bound, 0);
            self.item += 1;
        }
        Ok(())
    }
}

impl Hands for VulkanHands<'_> {
    fn turn(&mut self) -> Result<bool> {
        let count = self.post.batch.min(self.post.items() - self.item) as usize;
        if count == 0 || self.station.arrived() < count {
            return Ok(false);
        }
        let turn = (self.item / self.post.batch) as usize;
        let command = *self.commands.get(turn).context("a command buffer a turn")?;
        let family = self.rig.vulkan.queue_family();
        self.rig.begin(command)?;
        let (endpoint, how_many) = (self.rig.endpoint.clone(), count..=count);
        let taken = match self.barriers {
            // SAFETY: the command buffer is being recorded; the part goes into its submit, and the
            // station lives until `check` or `drop` has waited.
            Barriers::Ring => unsafe {
                self.station.take_many(Wait::No, how_many, command, family, everything)
            },
            Barriers::Own => self.station.take_recorded(Wait::No, how_many),
        };
        let (batch, mut part) = taken?.context("they have arrived")?;
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
        let passed = match self.barriers {
            // SAFETY: as above.
            Barriers::Ring => unsafe {
                self.station.release_many(batch, command, family, everything)
            },
            Barriers::Own => {
                let mut used = Vec::new();
                for slot in &batch {
                    used.push(everything(self.station.buffer(slot)?));
                }
                // SAFETY: as above.
                unsafe { endpoint.record_release(command, family, used.as_slice()) }?;
                drop(used);
                self.station.release_recorded(batch)
            }
        };
        let (added, passing) = passed?;
        part.merge(added)?;
        self.rig.submit(command, &part)?;
        passing.send();
        Ok(true)
    }

    fn check(&mut self) -> Result<()> {
        self.rig.vulkan.wait_idle()?;
        let found = self.rig.download(self.found.buffer, 0, self.post.bytes())?;
        self.post.check(&found, self.item)
    }
}

impl Drop for VulkanHands<'_> {
    fn drop(&mut self) {
        // A lost device has nothing in flight.
        let _ = self.rig.vulkan.wait_idle();
        self.bound.drain(..).for_each(|bound| self.rig.unbind(bound));
        self.rig.free_command_buffers(&self.commands);
    }
}

/// OpenGL at a station.
pub(super) struct GlHands<'a> {
    rig: &'a GlRig,
    post: Post,
    item: u32,
    found: glow::Buffer,
    station: Station<gl::Endpoint>,
}

impl<'a> GlHands<'a> {
    pub(super) fn new(rig: &'a GlRig, station: Station<gl::Endpoint>, post: Post) -> Result<Self> {
        let found = rig.private_buffer(post.bytes())?;
        Ok(Self { rig, post, item: 0, found, station })
    }
}

impl Hands for GlHands<'_> {
    fn turn(&mut self) -> Result<bool> {
        let count = self.post.batch.min(self.post.items() - self.item) as usize;
        if count == 0 {
            return Ok(false);
        }
        let Some(batch) = self.station.take_many(Wait::No, count..=count)? else {
            return Ok(false);
        };
        for slot in &batch {
            self.post.check_slot(slot, self.item)?;
            let name = self.station.buffer(slot)?.name();
            let (gl, to) = (self.rig.gl.glow(), i32::try_from(BYTES * u64::from(self.item))?);
            let (read, write) = (glow::COPY_READ_BUFFER, glow::COPY_WRITE_BUFFER);
            // SAFETY: the context is current, and both buffers are long enough.
            unsafe {
                gl.bind_buffer(read, Some(name));
                gl.bind_buffer(write, Some(self.found));
                gl.copy_buffer_sub_data(read, write, 0, to, i32::try_from(BYTES)?);
            }
            self.rig.dispatch(self.post.kernel(self.item), name, BYTES, 0)?;
            self.item += 1;
        }
        self.station.release_many(batch)?;
        Ok(true)
    }

    fn check(&mut self) -> Result<()> {
        let found = self.rig.download(self.found, 0, self.post.bytes())?;
        self.post.check(&found, self.item)
    }
}

impl Drop for GlHands<'_> {
    fn drop(&mut self) {
        self.rig.finish();
        self.rig.delete_buffer(self.found);
    }
}

/// CUDA at a station.
pub(super) struct CudaHands<'a> {
    rig: &'a CudaRig,
    post: Post,
    item: u32,
    found: CudaSlice<u8>,
    station: Station<cuda::Endpoint>,
}

impl<'a> CudaHands<'a> {
    pub(super) fn new(
        rig: &'a CudaRig,
        station: Station<cuda::Endpoint>,
        post: Post,
    ) -> Result<Self> {
        let found = rig.private_buffer(post.bytes())?;
        Ok(Self { rig, post, item: 0, found, station })
    }
}

impl Hands for CudaHands<'_> {
    fn turn(&mut self) -> Result<bool> {
        let count = self.post.batch.min(self.post.items() - self.item) as usize;
        if count == 0 {
            return Ok(false);
        }
        let stream = &self.rig.stream;
        let Some(batch) = self.station.take_many(Wait::No, count..=count, stream)? else {
            return Ok(false);
        };
        for slot in &batch {
            self.post.check_slot(slot, self.item)?;
            let buffer = self.station.buffer_mut(slot)?;
            let to = (BYTES as usize) * self.item as usize;
            let mut found = self.found.slice_mut(to..to + BYTES as usize);
            stream.memcpy_dtod(&buffer.as_view::<u8>()?, &mut found)?;
            let kernel = self.post.kernel(self.item);
            self.rig.launch(kernel, &mut buffer.as_view_mut::<u8>()?, 0)?;
            self.item += 1;
        }
        self.station.release_many(batch, stream)?;
        Ok(true)
    }

    fn check(&mut self) -> Result<()> {
        let found = self.rig.stream.clone_dtoh(&self.found)?;
        self.rig.stream.synchronize()?;
        self.post.check(&found, self.item)
    }
}

//! Without sharing: each API has a payload of its own, and the host carries it there and back.
//!
//! As one does it well: memory that is mapped once (and pinned, where CUDA lets it be), command buffers
//! that are recorded once, and the payload in pieces, so that one piece is read back while the one before
//! it is uploaded.

use std::ops::Range;
use std::rc::Rc;

use anyhow::Result;
use gpu_interop::vulkan::{Fence, FencePool, SubmitSync};

use crate::ladder::copies::Copies;
use crate::ladder::rung::{Benchmark, FIRST_STEP, SECOND_STEP};
use crate::ladder::staging::Staging;
use crate::ladder::verify;
use crate::ladder::vulkan_side::{Recorded, TIMEOUT, VulkanRunner};
use interop_gpu::Kernel;
use interop_gpu::oracle::{Turns, Wrong};
use interop_gpu::vulkan::PrivateBuffer;

const SEED: u32 = 9;

pub(crate) struct HostCopy<F: Copies> {
    kernel: Recorded,
    pieces: Vec<Piece>,
    fences: FencePool,
    own: F::Own,
    far: F,
    turns: Turns,
    staging: Rc<Staging>,
    payload: PrivateBuffer,
    near: VulkanRunner,
}

/// A piece's copies at Vulkan's side.
struct Piece {
    down: Recorded,
    up: Recorded,
    /// The copy that is under way.
    fence: Option<Fence>,
}

impl<F: Copies> HostCopy<F> {
    pub(crate) fn new(near: VulkanRunner, far: F, bytes: u64) -> Result<Self> {
        let gpu = near.gpu.clone();
        let payload = PrivateBuffer::device(&gpu.vulkan, bytes)?;
        let staging = Rc::new(Staging::new(&gpu, bytes)?);
        let bound = gpu.bind(payload.buffer, bytes)?;
        gpu.run(|command| {
            gpu.record(command, Kernel::Fill { seed: SEED }, &bound, 0);
            Ok(())
        })?;
        let kernel = near.record_kernel(&bound)?.with(vec![bound]);
        let piece = |range: Range<u64>| {
            let (there, here) = (payload.buffer, staging.buffer());
            let down = near.record_copy(there, here, &range)?;
            let up = near.record_copy(here, there, &range)?;
            Ok(Piece { down, up, fence: None })
        };
        let pieces = staging.pieces().into_iter().map(piece).collect::<Result<_>>()?;
        let fences = FencePool::new(&gpu.endpoint)?;
        let own = far.own(staging.clone())?;
        let turns = Turns::default();
        Ok(Self { kernel, pieces, fences, own, far, turns, staging, payload, near })
    }

    fn pair(&mut self) -> Result<()> {
        self.near.submit(&[self.kernel.command], SubmitSync::default())?;
        for piece in &mut self.pieces {
            let mut part = SubmitSync::default();
            piece.fence = Some(self.fences.next(&mut part)?);
            self.near.submit(&[piece.down.command], part)?;
        }
        let ranges = self.staging.pieces();
        for (piece, range) in self.pieces.iter_mut().zip(&ranges) {
            if let Some(fence) = piece.fence.take() {
                fence.wait(TIMEOUT)?;
            }
            self.far.upload(&mut self.own, range)?;
        }
        self.far.work(&mut self.own)?;
        self.far.start_downloads(&mut self.own, &ranges)?;
        for (index, (piece, range)) in self.pieces.iter_mut().zip(&ranges).enumerate() {
            self.far.finish_download(&mut self.own, index, range)?;
            self.near.submit(&[piece.up.command], SubmitSync::default())?;
        }
        self.turns.then(FIRST_STEP);
        self.turns.then(SECOND_STEP);
        Ok(())
    }
}

impl<F: Copies> Benchmark for HostCopy<F> {
    fn submit(&mut self, pairs: u32) -> Result<()> {
        for _ in 0..pairs {
            self.pair()?;
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<()> {
        self.near.finish()
    }

    fn handoff(&self) -> String {
        self.far.how(&self.own)
    }

    fn verify(&mut self) -> Result<Result<(), Wrong>> {
        let PrivateBuffer { buffer, bytes, .. } = self.payload;
        verify::check(&self.near.gpu, buffer, bytes, SEED, &self.turns)
    }
}

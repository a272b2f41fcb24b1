//! Without sharing: each API has a private payload, and it is copied through the host.
//!
//! Optimised for speed: memory is mapped once, and pinned if CUDA allows it; command buffers are recorded
//! once; and the payload is copied in pieces, so that one piece is read back while the previous one is
//! uploaded.

use std::ops::Range;
use std::rc::Rc;

use anyhow::{Result, bail};
use gpu_interop::vulkan::{Fence, FencePool, SubmitSync};

use crate::copies::Copies;
use crate::staging::{Staging, record_copy, record_kernel};
use interop_gpu::Kernel;
use interop_gpu::oracle::{Passes, Wrong};
use interop_gpu::vulkan::PrivateBuffer;
use ping_pong::routes::{self, Benchmark, FIRST_STEP, SECOND_STEP, Setup};
use ping_pong::{PayloadUser as _, Recorded, TIMEOUT, VulkanUser, Work};

const SEED: u32 = 9;

pub(crate) struct HostCopy<F: Copies> {
    kernel: Recorded,
    pieces: Vec<Piece>,
    fences: FencePool,
    own: F::Own,
    second: F,
    passes: Passes,
    staging: Rc<Staging>,
    payload: PrivateBuffer,
    first: VulkanUser,
}

/// A piece's copies at Vulkan's side.
struct Piece {
    down: Recorded,
    up: Recorded,
    /// The copy in flight.
    fence: Option<Fence>,
}

impl<F: Copies> HostCopy<F> {
    pub(crate) fn new(first: VulkanUser, second: F, setup: &Setup<'_>) -> Result<Self> {
        let (bytes, [Work::Whole(kernel, groups), Work::Whole(_, second_groups)]) =
            (setup.bytes, setup.works())
        else {
            bail!("a pair has two whole kernels");
        };
        let gpu = first.gpu.clone();
        let payload = PrivateBuffer::device(&gpu.vulkan, bytes)?;
        let staging = Rc::new(Staging::new(&gpu, bytes)?);
        let bound = gpu.bind(payload.buffer, bytes)?;
        gpu.run(|command| {
            gpu.record(command, Kernel::Fill { seed: SEED }, &bound, 0);
            Ok(())
        })?;
        let kernel = record_kernel(&gpu, bound, kernel, groups)?;
        let piece = |range: Range<u64>| {
            let (there, here) = (payload.buffer, staging.buffer());
            let down = record_copy(&gpu, there, here, &range)?;
            let up = record_copy(&gpu, here, there, &range)?;
            Ok(Piece { down, up, fence: None })
        };
        let pieces = staging.pieces().into_iter().map(piece).collect::<Result<_>>()?;
        let fences = FencePool::new(&gpu.endpoint)?;
        let own = second.own(staging.clone(), second_groups)?;
        let passes = Passes::default();
        Ok(Self { kernel, pieces, fences, own, second, passes, staging, payload, first })
    }

    fn pair(&mut self) -> Result<()> {
        self.first.submit(&[self.kernel.command], SubmitSync::default())?;
        for piece in &mut self.pieces {
            let mut part = SubmitSync::default();
            piece.fence = Some(self.fences.next(&mut part)?);
            self.first.submit(&[piece.down.command], part)?;
        }
        let ranges = self.staging.pieces();
        for (piece, range) in self.pieces.iter_mut().zip(&ranges) {
            if let Some(fence) = piece.fence.take() {
                fence.wait(TIMEOUT)?;
            }
            self.second.upload(&mut self.own, range)?;
        }
        self.second.work(&mut self.own)?;
        self.second.start_downloads(&mut self.own, &ranges)?;
        for (index, (piece, range)) in self.pieces.iter_mut().zip(&ranges).enumerate() {
            self.second.finish_download(&mut self.own, index, range)?;
            self.first.submit(&[piece.up.command], SubmitSync::default())?;
        }
        self.passes.then(FIRST_STEP);
        self.passes.then(SECOND_STEP);
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
        self.first.finish()
    }

    fn handoff(&self) -> String {
        self.second.how(&self.own)
    }

    fn verify(&mut self) -> Result<Result<(), Wrong>> {
        let PrivateBuffer { buffer, bytes, .. } = self.payload;
        routes::check(&self.first.gpu, buffer, bytes, SEED, &self.passes)
    }
}

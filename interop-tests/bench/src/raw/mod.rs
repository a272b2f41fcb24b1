//! The same handoffs by plain API calls without the library, to measure what the library costs.
//!
//! Identities, limits, lifetimes and order are not checked here. These calls do only what the specifications
//! require for the same payloads and kernels as the benchmarks that they control.

mod cuda;
mod gl;
mod objects;
mod vulkan;

use std::os::fd::OwnedFd;
use std::rc::Rc;

use anyhow::Result;
use gpu_interop::handoff::WaitMode;

pub(super) use self::cuda::{RawCuda, RawCudaBuffer};
pub(super) use self::gl::{BufferFunctions, RawGl, RawGlBuffer};
pub(super) use self::objects::{MemoryFd, RawBuffer};
pub(super) use self::vulkan::RawSecondVulkan;
use self::vulkan::RawVulkan;
use interop_gpu::Kernel;
use interop_gpu::oracle::{Passes, Wrong};
use interop_gpu::vulkan::VulkanContext;
use ping_pong::routes;
use ping_pong::routes::{Benchmark, FIRST_STEP, SECOND_STEP};

const SEED: u32 = 10;
/// The kernel of the second API.
const KERNEL: Kernel = Kernel::PingPong { step: SECOND_STEP };
/// As in the library's benchmarks, the host waits for an older submit after this many submits.
const WAIT_EVERY: u64 = 16;
/// By how many submits the older one precedes the last.
const AHEAD: u64 = 64;

/// What the second API imports.
pub(crate) struct Exported {
    pub(super) memory: OwnedFd,
    pub(super) allocation_size: u64,
    pub(super) memory_type: u32,
    pub(super) bytes: u64,
    /// Timeline semaphores: Vulkan signals the first and waits for the second. `None` if the host waits.
    pub(super) semaphores: Option<[OwnedFd; 2]>,
}

/// The second API, by plain calls.
pub(super) trait RawSecondApi {
    /// Waits for `value` on the GPU, runs the kernel, signals `value`.
    fn pass(&mut self, value: u64) -> Result<()>;

    /// Runs the kernel and waits until it is done.
    fn pass_by_host(&mut self, wait: WaitMode) -> Result<()>;

    /// Waits until all commands are done.
    fn finish(&mut self) -> Result<()>;
}

/// One payload that is handed back and forth.
pub(super) struct Raw<F: RawSecondApi> {
    second: F,
    first: RawVulkan,
    by_host: Option<WaitMode>,
    value: u64,
    passes: Passes,
}

impl<F: RawSecondApi> Raw<F> {
    pub(super) fn new(
        gpu: &Rc<VulkanContext>,
        bytes: u64,
        grid: u32,
        by_host: Option<WaitMode>,
        import: impl FnOnce(Exported) -> Result<F>,
    ) -> Result<Self> {
        let first = RawVulkan::create(gpu, bytes, (grid, FIRST_STEP), by_host.is_some())?;
        first.fill_and_release(SEED)?;
        let second = import(first.export(by_host.is_some())?)?;
        Ok(Self { second, first, by_host, value: 0, passes: Passes::default() })
    }

    fn pair(&mut self) -> Result<()> {
        self.value += 1;
        let value = self.value;
        if let Some(wait) = self.by_host {
            self.first.submit(None, value)?;
            self.first.wait(value, wait)?;
            return self.second.pass_by_host(wait);
        }
        self.first.submit(Some(value - 1), value)?;
        if value.is_multiple_of(WAIT_EVERY) {
            self.first.wait(value.saturating_sub(AHEAD), WaitMode::Block)?;
        }
        self.second.pass(value)
    }
}

impl<F: RawSecondApi> Benchmark for Raw<F> {
    fn submit(&mut self, pairs: u32) -> Result<()> {
        for _ in 0..pairs {
            self.pair()?;
            self.passes.then(FIRST_STEP);
            self.passes.then(SECOND_STEP);
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<()> {
        self.second.finish()
    }

    fn handoff(&self) -> String {
        match self.by_host {
            Some(_) => "host wait, plain API calls".into(),
            None => "timeline semaphore, plain API calls".into(),
        }
    }

    fn verify(&mut self) -> Result<Result<(), Wrong>> {
        let waits = self.by_host.is_none().then_some(self.value);
        self.first.take_back(waits)?;
        let (gpu, buffer) = (self.first.gpu(), self.first.buffer());
        routes::check(gpu, buffer.handle, buffer.bytes, SEED, &self.passes)
    }
}

impl<F: RawSecondApi> Drop for Raw<F> {
    fn drop(&mut self) {
        // Nothing may be in flight when the payload is dropped. A lost device has nothing in flight.
        let _ = self.second.finish();
        let _ = self.first.gpu().vulkan.wait_idle();
    }
}

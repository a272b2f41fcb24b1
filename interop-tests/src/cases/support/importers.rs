//! The APIs that a payload of the machine's Vulkan device is imported to, so that a case can be
//! written once for each of them.

use std::time::Duration;

use anyhow::{Context, Result};
use gpu_interop::capabilities::Capabilities;
use gpu_interop::vulkan::{SemaphoreSignal, SemaphoreWait, SubmitSync};
use gpu_interop::{
    Api, BufferDesc, BufferPayload, Identity, ImportResult, MemoryPayload, ResourceDesc,
    SemaphoreKind, SemaphorePayload, ash::vk, cuda, gl, vulkan,
};

use crate::harness::{Case, Need, TestGpu};
use interop_gpu::cuda::CudaContext;
use interop_gpu::gl::GlContext;
use interop_gpu::oracle::{self, Turns};
use interop_gpu::vulkan::VulkanContext;

/// How long a signal may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// An API that imports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Importer {
    /// Vulkan, on a second device.
    Vulkan,
    Gl,
    Cuda,
}

impl Importer {
    pub(crate) const ALL: [Importer; 3] = [Importer::Vulkan, Importer::Gl, Importer::Cuda];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Vulkan => "vulkan",
            Self::Gl => "gl",
            Self::Cuda => "cuda",
        }
    }

    pub(crate) fn api(self) -> Api {
        match self {
            Self::Vulkan => Api::Vulkan,
            Self::Gl => Api::OpenGl,
            Self::Cuda => Api::Cuda,
        }
    }

    pub(crate) fn needs(self) -> &'static [Need] {
        match self {
            Self::Vulkan => &[],
            Self::Gl => &[Need::Gl],
            Self::Cuda => &[Need::Cuda],
        }
    }

    pub(crate) fn is_there(self, machine: &TestGpu) -> bool {
        self.open(machine).is_ok()
    }

    pub(crate) fn open(self, machine: &TestGpu) -> Result<Peer<'_>> {
        Ok(match self {
            Self::Vulkan => Peer::Vulkan(machine.second_device()?),
            Self::Gl => Peer::Gl(machine.gl()?),
            Self::Cuda => Peer::Cuda(machine.cuda()?),
        })
    }
}

/// One case an importer, called `vulkan→gl/opaque_fd/` and `what`.
pub(crate) fn for_each_importer(
    what: &str,
    run: fn(&TestGpu, Peer<'_>) -> Result<()>,
) -> Vec<Case> {
    let case = |importer: Importer| {
        let name = format!("vulkan→{}/opaque_fd/{what}", importer.name());
        Case::new(name, move |machine| run(machine, importer.open(machine)?))
            .needs(importer.needs())
    };
    Importer::ALL.map(case).into()
}

/// [`for_each_importer`], where the matrix has a row for each.
pub(crate) fn for_each_importer_in_rows(
    what: &str,
    rows: [&str; 3],
    run: fn(&TestGpu, Peer<'_>) -> Result<()>,
) -> Vec<Case> {
    let case = |(importer, row): (Importer, &str)| {
        let name = format!("vulkan→{}/opaque_fd/{what}/{row}", importer.name());
        Case::new(name, move |machine| run(machine, importer.open(machine)?))
            .needs(importer.needs())
    };
    Importer::ALL.into_iter().zip(rows).map(case).collect()
}

/// One case an importer and semaphore kind.
pub(crate) fn for_each_semaphore(
    what: &str,
    run: fn(&TestGpu, Peer<'_>, SemaphoreKind) -> Result<()>,
) -> Vec<Case> {
    let mut cases = Vec::new();
    for importer in Importer::ALL {
        for (kind, name) in
            [(SemaphoreKind::Binary, "binary"), (SemaphoreKind::Timeline, "timeline")]
        {
            let name = format!("vulkan→{}/opaque_fd/semaphore_{name}/{what}", importer.name());
            let needs = [Need::Semaphore(importer.api(), kind)];
            let run = move |machine: &TestGpu| run(machine, importer.open(machine)?, kind);
            cases.push(Case::new(name, run).needs(importer.needs()).needs(&needs));
        }
    }
    cases
}

/// An opened importer.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Peer<'m> {
    Vulkan(&'m VulkanContext),
    Gl(&'m GlContext),
    Cuda(&'m CudaContext),
}

impl<'m> Peer<'m> {
    pub(crate) fn identities(self) -> &'m [Identity] {
        match self {
            Self::Vulkan(gpu) => gpu.endpoint.identities(),
            Self::Gl(gpu) => gpu.endpoint.identities(),
            Self::Cuda(gpu) => gpu.endpoint.identities(),
        }
    }

    pub(crate) fn capabilities(self, desc: &ResourceDesc) -> gpu_interop::Result<Capabilities> {
        match self {
            Self::Vulkan(gpu) => gpu.endpoint.capabilities(desc),
            Self::Gl(gpu) => gpu.endpoint.capabilities(desc),
            Self::Cuda(gpu) => gpu.endpoint.capabilities(desc),
        }
    }

    pub(crate) fn import_buffer(
        self,
        payload: BufferPayload,
    ) -> ImportResult<View<'m>, BufferPayload> {
        Ok(match self {
            Self::Vulkan(gpu) => View::Vulkan(gpu, gpu.endpoint.import_buffer(payload)?),
            Self::Gl(gpu) => View::Gl(gpu, gpu.endpoint.import_buffer(payload)?),
            Self::Cuda(gpu) => View::Cuda(gpu, gpu.endpoint.import_buffer(payload)?),
        })
    }

    pub(crate) fn import_memory(
        self,
        payload: MemoryPayload,
    ) -> ImportResult<Memory<'m>, MemoryPayload> {
        Ok(match self {
            Self::Vulkan(gpu) => Memory::Vulkan(gpu, gpu.endpoint.import_memory(payload)?),
            Self::Gl(gpu) => Memory::Gl(gpu, gpu.endpoint.import_memory(payload)?),
            Self::Cuda(gpu) => Memory::Cuda(gpu, gpu.endpoint.import_memory(payload)?),
        })
    }

    pub(crate) fn import_semaphore(
        self,
        payload: SemaphorePayload,
    ) -> ImportResult<Semaphore<'m>, SemaphorePayload> {
        Ok(match self {
            Self::Vulkan(gpu) => Semaphore::Vulkan(gpu, gpu.endpoint.import_semaphore(payload)?),
            Self::Gl(gpu) => Semaphore::Gl(gpu, gpu.endpoint.import_semaphore(payload)?),
            Self::Cuda(gpu) => Semaphore::Cuda(gpu, gpu.endpoint.import_semaphore(payload)?),
        })
    }
}

/// Imported memory.
#[derive(Debug)]
pub(crate) enum Memory<'m> {
    Vulkan(&'m VulkanContext, vulkan::Memory),
    Gl(&'m GlContext, gl::Memory),
    Cuda(&'m CudaContext, cuda::Memory),
}

impl<'m> Memory<'m> {
    pub(crate) fn buffer(&self, offset: u64, desc: &BufferDesc) -> gpu_interop::Result<View<'m>> {
        Ok(match self {
            Self::Vulkan(gpu, memory) => View::Vulkan(gpu, memory.buffer(offset, desc)?),
            Self::Gl(gpu, memory) => View::Gl(gpu, memory.buffer(offset, desc)?),
            Self::Cuda(gpu, memory) => View::Cuda(gpu, memory.buffer(offset, desc)?),
        })
    }
}

/// A shared buffer as one API sees it. Each read and write is done when it returns.
#[derive(Debug)]
pub(crate) enum View<'m> {
    Vulkan(&'m VulkanContext, vulkan::Buffer),
    Gl(&'m GlContext, gl::Buffer),
    Cuda(&'m CudaContext, cuda::Buffer),
}

impl View<'_> {
    fn bytes(&self) -> u64 {
        match self {
            Self::Vulkan(_, buffer) => buffer.desc().size,
            Self::Gl(_, buffer) => buffer.desc().size,
            Self::Cuda(_, buffer) => buffer.desc().size,
        }
    }

    /// Another buffer at the same place of the same memory, on the same side.
    pub(crate) fn again(&self, desc: &BufferDesc) -> Result<Self> {
        Ok(match self {
            Self::Vulkan(gpu, old) => View::Vulkan(gpu, old.memory().buffer(old.offset(), desc)?),
            Self::Gl(gpu, old) => View::Gl(gpu, old.memory().buffer(old.offset(), desc)?),
            Self::Cuda(gpu, old) => View::Cuda(gpu, old.memory().buffer(old.offset(), desc)?),
        })
    }

    /// Fills all of it with the hash of `seed`.
    pub(crate) fn write(&mut self, seed: u32) -> Result<()> {
        let data = oracle::filled(usize::try_from(self.bytes())?, seed);
        match self {
            Self::Vulkan(gpu, buffer) => gpu.upload(buffer.handle(), 0, &data)?,
            Self::Gl(gpu, buffer) => {
                gpu.upload(buffer.name(), 0, &data)?;
                gpu.finish();
            }
            Self::Cuda(gpu, buffer) => {
                gpu.stream.memcpy_htod(&data, &mut buffer.as_view_mut::<u8>()?)?;
                gpu.stream.synchronize()?;
            }
        }
        Ok(())
    }

    /// Checks that every byte is the hash of `seed`.
    pub(crate) fn check(&self, seed: u32) -> Result<()> {
        let data = match self {
            Self::Vulkan(gpu, buffer) => gpu.download(buffer.handle(), 0, self.bytes())?,
            Self::Gl(gpu, buffer) => {
                gpu.endpoint.memory_barrier()?;
                gpu.download(buffer.name(), 0, self.bytes())?
            }
            Self::Cuda(gpu, buffer) => {
                let data = gpu.stream.clone_dtoh(&buffer.as_view::<u8>()?)?;
                gpu.stream.synchronize()?;
                data
            }
        };
        Ok(oracle::check(&data, seed, &Turns::default())?)
    }
}

/// Checks that two views are of the same memory: each sees what the other writes.
pub(crate) fn check_aliases(one: &mut View<'_>, other: &mut View<'_>) -> Result<()> {
    one.write(0xa11a5)?;
    other.check(0xa11a5).context("the second view sees what the first wrote")?;
    other.write(0x5a11a)?;
    one.check(0x5a11a).context("the first view sees what the second wrote")
}

/// A shared semaphore as one API sees it.
#[derive(Debug)]
pub(crate) enum Semaphore<'m> {
    Vulkan(&'m VulkanContext, vulkan::Semaphore),
    Gl(&'m GlContext, gl::Semaphore),
    Cuda(&'m CudaContext, cuda::Semaphore),
}

impl Semaphore<'_> {
    /// Signals on the GPU; a timeline with `value`.
    pub(crate) fn signal(&self, value: Option<u64>) -> Result<()> {
        match self {
            Self::Vulkan(gpu, semaphore) => {
                let semaphore = semaphore.clone();
                let signals = vec![SemaphoreSignal { semaphore, value }];
                submit(gpu, SubmitSync { signals, ..SubmitSync::default() })
            }
            Self::Gl(gpu, semaphore) => Ok(gpu.endpoint.signal(semaphore, value, &[], &[])?),
            Self::Cuda(gpu, semaphore) => Ok(gpu.endpoint.signal(&gpu.stream, semaphore, value)?),
        }
    }

    /// Waits on the GPU for a signal that was submitted before, and on the host for the GPU.
    pub(crate) fn wait(&self, value: Option<u64>) -> Result<()> {
        match self {
            Self::Vulkan(gpu, semaphore) => {
                if let Some(value) = value {
                    semaphore.wait(value, TIMEOUT)?;
                }
                let semaphore = semaphore.clone();
                let stage = vk::PipelineStageFlags::ALL_COMMANDS;
                let waits = vec![SemaphoreWait { semaphore, value, stage }];
                submit(gpu, SubmitSync { waits, ..SubmitSync::default() })?;
                Ok(gpu.vulkan.wait_idle()?)
            }
            Self::Gl(gpu, semaphore) => {
                gpu.endpoint.wait(semaphore, value, &[], &[])?;
                gpu.finish();
                gpu.check("glFinish")
            }
            Self::Cuda(gpu, semaphore) => {
                gpu.endpoint.wait(&gpu.stream, semaphore, value)?;
                Ok(gpu.stream.synchronize()?)
            }
        }
    }
}

impl Semaphore<'_> {
    fn settle(&self) -> Result<()> {
        match self {
            Self::Vulkan(gpu, _) => gpu.vulkan.wait_idle()?,
            Self::Gl(gpu, _) => gpu.finish(),
            Self::Cuda(gpu, _) => gpu.stream.synchronize()?,
        }
        Ok(())
    }
}

/// Submits nothing but waits and signals.
fn submit(gpu: &VulkanContext, part: SubmitSync) -> Result<()> {
    // SAFETY: the queue is guarded and of the endpoint's device; the semaphores outlive the work,
    // which the waiting side waits for.
    Ok(gpu.vulkan.with_queue(|queue| unsafe { part.submit(&gpu.endpoint, queue, &[]) })?)
}

/// Checks that two views are of the same semaphore: each waits for what the other signals. A
/// timeline's values begin at `first`.
pub(crate) fn check_signals(
    one: &Semaphore<'_>,
    other: &Semaphore<'_>,
    kind: SemaphoreKind,
    first: u64,
) -> Result<()> {
    let value = |value| (kind == SemaphoreKind::Timeline).then_some(value);
    one.signal(value(first))?;
    other.wait(value(first)).context("the second view waits for what the first signalled")?;
    other.signal(value(first + 1))?;
    one.wait(value(first + 1)).context("the first view waits for what the second signalled")?;
    // A semaphore is destroyed when all that uses it is known to be done.
    one.settle()?;
    other.settle()
}

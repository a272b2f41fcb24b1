//! The APIs that a payload of the machine's Vulkan device is imported to, so that a case can be
//! written once for each of them.

use std::time::Duration;

use anyhow::{Context, Result};
use gpu_interop::capabilities::Capabilities;
use gpu_interop::vulkan::{SemaphoreSignal, SemaphoreWait, SubmitPart};
use gpu_interop::{
    Api, BufferDesc, BufferPayload, Identity, ImportResult, MemoryPayload, ResourceDesc,
    SemaphoreKind, SemaphorePayload, ash::vk, cuda, gl, vulkan,
};

use crate::rig::cuda::CudaRig;
use crate::rig::gl::GlRig;
use crate::rig::oracle::{self, Turns};
use crate::rig::vulkan::VulkanRig;
use crate::suite::{Case, Machine, Need};

/// How long a signal may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// An API that imports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Importer {
    /// Vulkan, on a second device.
    Vulkan,
    Gl,
    Cuda,
}

impl Importer {
    pub(super) const ALL: [Importer; 3] = [Importer::Vulkan, Importer::Gl, Importer::Cuda];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Vulkan => "vulkan",
            Self::Gl => "gl",
            Self::Cuda => "cuda",
        }
    }

    pub(super) fn api(self) -> Api {
        match self {
            Self::Vulkan => Api::Vulkan,
            Self::Gl => Api::OpenGl,
            Self::Cuda => Api::Cuda,
        }
    }

    pub(super) fn needs(self) -> &'static [Need] {
        match self {
            Self::Vulkan => &[],
            Self::Gl => &[Need::Gl],
            Self::Cuda => &[Need::Cuda],
        }
    }

    pub(super) fn is_there(self, machine: &Machine) -> bool {
        self.open(machine).is_ok()
    }

    pub(super) fn open(self, machine: &Machine) -> Result<Peer<'_>> {
        Ok(match self {
            Self::Vulkan => Peer::Vulkan(machine.second_device()?),
            Self::Gl => Peer::Gl(machine.gl()?),
            Self::Cuda => Peer::Cuda(machine.cuda()?),
        })
    }
}

/// One case an importer, called `vulkan→gl/opaque_fd/` and `what`.
pub(super) fn for_each_importer(
    what: &str,
    run: fn(&Machine, Peer<'_>) -> Result<()>,
) -> Vec<Case> {
    let case = |importer: Importer| {
        let name = format!("vulkan→{}/opaque_fd/{what}", importer.name());
        Case::new(name, move |machine| run(machine, importer.open(machine)?))
            .needs(importer.needs())
    };
    Importer::ALL.map(case).into()
}

/// [`for_each_importer`], where the matrix has a row for each.
pub(super) fn for_each_importer_in_rows(
    what: &str,
    rows: [&str; 3],
    run: fn(&Machine, Peer<'_>) -> Result<()>,
) -> Vec<Case> {
    let case = |(importer, row): (Importer, &str)| {
        let name = format!("vulkan→{}/opaque_fd/{what}/{row}", importer.name());
        Case::new(name, move |machine| run(machine, importer.open(machine)?))
            .needs(importer.needs())
    };
    Importer::ALL.into_iter().zip(rows).map(case).collect()
}

/// One case an importer and semaphore kind.
pub(super) fn for_each_semaphore(
    what: &str,
    run: fn(&Machine, Peer<'_>, SemaphoreKind) -> Result<()>,
) -> Vec<Case> {
    let mut cases = Vec::new();
    for importer in Importer::ALL {
        for (kind, name) in
            [(SemaphoreKind::Binary, "binary"), (SemaphoreKind::Timeline, "timeline")]
        {
            let name = format!("vulkan→{}/opaque_fd/semaphore_{name}/{what}", importer.name());
            let needs = [Need::Semaphore(importer.api(), kind)];
            let run = move |machine: &Machine| run(machine, importer.open(machine)?, kind);
            cases.push(Case::new(name, run).needs(importer.needs()).needs(&needs));
        }
    }
    cases
}

/// An opened importer.
#[derive(Clone, Copy, Debug)]
pub(super) enum Peer<'m> {
    Vulkan(&'m VulkanRig),
    Gl(&'m GlRig),
    Cuda(&'m CudaRig),
}

impl<'m> Peer<'m> {
    pub(super) fn identities(self) -> &'m [Identity] {
        match self {
            Self::Vulkan(rig) => rig.endpoint.identities(),
            Self::Gl(rig) => rig.endpoint.identities(),
            Self::Cuda(rig) => rig.endpoint.identities(),
        }
    }

    pub(super) fn capabilities(self, desc: &ResourceDesc) -> gpu_interop::Result<Capabilities> {
        match self {
            Self::Vulkan(rig) => rig.endpoint.capabilities(desc),
            Self::Gl(rig) => rig.endpoint.capabilities(desc),
            Self::Cuda(rig) => rig.endpoint.capabilities(desc),
        }
    }

    pub(super) fn import_buffer(
        self,
        payload: BufferPayload,
    ) -> ImportResult<View<'m>, BufferPayload> {
        Ok(match self {
            Self::Vulkan(rig) => View::Vulkan(rig, rig.endpoint.import_buffer(payload)?),
            Self::Gl(rig) => View::Gl(rig, rig.endpoint.import_buffer(payload)?),
            Self::Cuda(rig) => View::Cuda(rig, rig.endpoint.import_buffer(payload)?),
        })
    }

    pub(super) fn import_memory(
        self,
        payload: MemoryPayload,
    ) -> ImportResult<Memory<'m>, MemoryPayload> {
        Ok(match self {
            Self::Vulkan(rig) => Memory::Vulkan(rig, rig.endpoint.import_memory(payload)?),
            Self::Gl(rig) => Memory::Gl(rig, rig.endpoint.import_memory(payload)?),
            Self::Cuda(rig) => Memory::Cuda(rig, rig.endpoint.import_memory(payload)?),
        })
    }

    pub(super) fn import_semaphore(
        self,
        payload: SemaphorePayload,
    ) -> ImportResult<Semaphore<'m>, SemaphorePayload> {
        Ok(match self {
            Self::Vulkan(rig) => Semaphore::Vulkan(rig, rig.endpoint.import_semaphore(payload)?),
            Self::Gl(rig) => Semaphore::Gl(rig, rig.endpoint.import_semaphore(payload)?),
            Self::Cuda(rig) => Semaphore::Cuda(rig, rig.endpoint.import_semaphore(payload)?),
        })
    }
}

/// Imported memory.
#[derive(Debug)]
pub(super) enum Memory<'m> {
    Vulkan(&'m VulkanRig, vulkan::Memory),
    Gl(&'m GlRig, gl::Memory),
    Cuda(&'m CudaRig, cuda::Memory),
}

impl<'m> Memory<'m> {
    pub(super) fn buffer(&self, offset: u64, desc: &BufferDesc) -> gpu_interop::Result<View<'m>> {
        Ok(match self {
            Self::Vulkan(rig, memory) => View::Vulkan(rig, memory.buffer(offset, desc)?),
            Self::Gl(rig, memory) => View::Gl(rig, memory.buffer(offset, desc)?),
            Self::Cuda(rig, memory) => View::Cuda(rig, memory.buffer(offset, desc)?),
        })
    }
}

/// A shared buffer as one API sees it. Each read and write is done when it returns.
#[derive(Debug)]
pub(super) enum View<'m> {
    Vulkan(&'m VulkanRig, vulkan::Buffer),
    Gl(&'m GlRig, gl::Buffer),
    Cuda(&'m CudaRig, cuda::Buffer),
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
    pub(super) fn again(&self, desc: &BufferDesc) -> Result<Self> {
        Ok(match self {
            Self::Vulkan(rig, old) => View::Vulkan(rig, old.memory().buffer(old.offset(), desc)?),
            Self::Gl(rig, old) => View::Gl(rig, old.memory().buffer(old.offset(), desc)?),
            Self::Cuda(rig, old) => View::Cuda(rig, old.memory().buffer(old.offset(), desc)?),
        })
    }

    /// Fills all of it with the hash of `seed`.
    pub(super) fn write(&mut self, seed: u32) -> Result<()> {
        let data = oracle::filled(usize::try_from(self.bytes())?, seed);
        match self {
            Self::Vulkan(rig, buffer) => rig.upload(buffer.handle(), 0, &data)?,
            Self::Gl(rig, buffer) => {
                rig.upload(buffer.name(), 0, &data)?;
                rig.finish();
            }
            Self::Cuda(rig, buffer) => {
                rig.stream.memcpy_htod(&data, &mut buffer.as_view_mut::<u8>()?)?;
                rig.stream.synchronize()?;
            }
        }
        Ok(())
    }

    /// Checks that every byte is the hash of `seed`.
    pub(super) fn check(&self, seed: u32) -> Result<()> {
        let data = match self {
            Self::Vulkan(rig, buffer) => rig.download(buffer.handle(), 0, self.bytes())?,
            Self::Gl(rig, buffer) => {
                rig.endpoint.memory_barrier()?;
                rig.download(buffer.name(), 0, self.bytes())?
            }
            Self::Cuda(rig, buffer) => {
                let data = rig.stream.clone_dtoh(&buffer.as_view::<u8>()?)?;
                rig.stream.synchronize()?;
                data
            }
        };
        Ok(oracle::check(&data, seed, &Turns::default())?)
    }
}

/// Checks that two views are of the same memory: each sees what the other writes.
pub(super) fn check_aliases(one: &mut View<'_>, other: &mut View<'_>) -> Result<()> {
    one.write(0xa11a5)?;
    other.check(0xa11a5).context("the second view sees what the first wrote")?;
    other.write(0x5a11a)?;
    one.check(0x5a11a).context("the first view sees what the second wrote")
}

/// A shared semaphore as one API sees it.
#[derive(Debug)]
pub(super) enum Semaphore<'m> {
    Vulkan(&'m VulkanRig, vulkan::Semaphore),
    Gl(&'m GlRig, gl::Semaphore),
    Cuda(&'m CudaRig, cuda::Semaphore),
}

impl Semaphore<'_> {
    /// Signals on the GPU; a timeline with `value`.
    pub(super) fn signal(&self, value: Option<u64>) -> Result<()> {
        match self {
            Self::Vulkan(rig, semaphore) => {
                let semaphore = semaphore.clone();
                let signals = vec![SemaphoreSignal { semaphore, value }];
                submit(rig, SubmitPart { signals, ..SubmitPart::default() })
            }
            Self::Gl(rig, semaphore) => Ok(rig.endpoint.signal(semaphore, value, &[], &[])?),
            Self::Cuda(rig, semaphore) => Ok(rig.endpoint.signal(&rig.stream, semaphore, value)?),
        }
    }

    /// Waits on the GPU for a signal that was submitted before, and on the host for the GPU.
    pub(super) fn wait(&self, value: Option<u64>) -> Result<()> {
        match self {
            Self::Vulkan(rig, semaphore) => {
                if let Some(value) = value {
                    semaphore.wait(value, PATIENCE)?;
                }
                let semaphore = semaphore.clone();
                let stage = vk::PipelineStageFlags::ALL_COMMANDS;
                let waits = vec![SemaphoreWait { semaphore, value, stage }];
                submit(rig, SubmitPart { waits, ..SubmitPart::default() })?;
                Ok(rig.vulkan.wait_idle()?)
            }
            Self::Gl(rig, semaphore) => {
                rig.endpoint.wait(semaphore, value, &[], &[])?;
                rig.finish();
                rig.check("glFinish")
            }
            Self::Cuda(rig, semaphore) => {
                rig.endpoint.wait(&rig.stream, semaphore, value)?;
                Ok(rig.stream.synchronize()?)
            }
        }
    }
}

impl Semaphore<'_> {
    fn settle(&self) -> Result<()> {
        match self {
            Self::Vulkan(rig, _) => rig.vulkan.wait_idle()?,
            Self::Gl(rig, _) => rig.finish(),
            Self::Cuda(rig, _) => rig.stream.synchronize()?,
        }
        Ok(())
    }
}

/// Submits nothing but waits and signals.
fn submit(rig: &VulkanRig, part: SubmitPart) -> Result<()> {
    // SAFETY: the queue is guarded and of the endpoint's device; the semaphores outlive the work,
    // which the waiting side waits for.
    Ok(rig.vulkan.with_queue(|queue| unsafe { part.submit(&rig.endpoint, queue, &[]) })?)
}

/// Checks that two views are of the same semaphore: each waits for what the other signals. A
/// timeline's values begin at `first`.
pub(super) fn check_signals(
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

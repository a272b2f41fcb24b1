//! What exports descriptors, so that a case can be written once for all of it.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use anyhow::Result;
use gpu_interop::vulkan::BufferOptions;
use gpu_interop::{Api, MemoryPayload, SemaphoreKind, SemaphorePayload, cuda, vulkan};

use crate::cases::descriptors::desc;
use crate::harness::{Case, Need, TestGpu};

/// Who exports, and what.
#[derive(Clone, Copy, Debug)]
enum Exporter {
    VulkanBuffer,
    CudaBuffer,
    Semaphore(SemaphoreKind),
}

impl Exporter {
    const ALL: [Exporter; 4] = [
        Exporter::VulkanBuffer,
        Exporter::CudaBuffer,
        Exporter::Semaphore(SemaphoreKind::Binary),
        Exporter::Semaphore(SemaphoreKind::Timeline),
    ];

    fn name(self) -> &'static str {
        match self {
            Self::VulkanBuffer => "vulkan/opaque_fd/buffer",
            Self::CudaBuffer => "cuda/opaque_fd/buffer",
            Self::Semaphore(SemaphoreKind::Binary) => "vulkan/opaque_fd/semaphore_binary",
            Self::Semaphore(SemaphoreKind::Timeline) => "vulkan/opaque_fd/semaphore_timeline",
        }
    }

    fn needs(self) -> Vec<Need> {
        match self {
            Self::VulkanBuffer => vec![],
            Self::CudaBuffer => vec![Need::Cuda],
            Self::Semaphore(kind) => vec![Need::Semaphore(Api::Vulkan, kind)],
        }
    }

    fn make(self, machine: &TestGpu) -> Result<Exportable> {
        let endpoint = &machine.vulkan().endpoint;
        Ok(match self {
            Self::VulkanBuffer => {
                Exportable::Vulkan(endpoint.create_buffer(&desc(), BufferOptions::default())?)
            }
            Self::CudaBuffer => Exportable::Cuda(machine.cuda()?.endpoint.create_buffer(&desc())?),
            Self::Semaphore(kind) => Exportable::Semaphore(endpoint.create_semaphore(kind)?),
        })
    }
}

/// One case for everything that exports, called `what`.
pub(crate) fn for_each_exporter(what: &str, run: fn(&Exportable) -> Result<()>) -> Vec<Case> {
    let case = |exporter: Exporter| {
        let run = move |machine: &TestGpu| run(&exporter.make(machine)?);
        Case::new(format!("{}/{what}", exporter.name()), run).needs(&exporter.needs())
    };
    Exporter::ALL.map(case).into()
}

/// An object that can be exported.
#[derive(Debug)]
pub(crate) enum Exportable {
    Vulkan(vulkan::Buffer),
    Cuda(cuda::Buffer),
    Semaphore(vulkan::Semaphore),
}

impl Exportable {
    pub(crate) fn export(&self) -> gpu_interop::Result<Payload> {
        Ok(match self {
            Self::Vulkan(buffer) => Payload::Memory(buffer.export()?.into_parts().0),
            Self::Cuda(buffer) => Payload::Memory(buffer.export()?.into_parts().0),
            Self::Semaphore(semaphore) => Payload::Semaphore(semaphore.export()?),
        })
    }
}

/// A payload of either kind.
#[derive(Debug)]
pub(crate) enum Payload {
    Memory(MemoryPayload),
    Semaphore(SemaphorePayload),
}

impl Payload {
    pub(crate) fn try_clone(&self) -> gpu_interop::Result<Self> {
        Ok(match self {
            Self::Memory(payload) => Self::Memory(payload.try_clone()?),
            Self::Semaphore(payload) => Self::Semaphore(payload.try_clone()?),
        })
    }

    /// The number of its descriptor.
    pub(crate) fn number(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

impl AsFd for Payload {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Memory(payload) => payload.as_fd(),
            Self::Semaphore(payload) => payload.as_fd(),
        }
    }
}

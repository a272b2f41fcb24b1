//! Importers and exporters by name, and the cases that are written once and run for each of them.

use anyhow::Result;
use gpu_interop::payload::Payload;
use gpu_interop::vulkan::BufferOptions;
use gpu_interop::{Api, SemaphoreKind, cuda, vulkan};

use crate::cases::support::fds::desc;
use crate::cases::support::views::AnyContext;
use crate::harness::{Case, Need, TestGpu};
use interop_gpu::vulkan::VulkanContext;

/// Which Vulkan device imports a payload of the suite's first device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    SameDevice,
    SecondDevice,
    SecondInstance,
}

impl Place {
    pub(crate) const ALL: [Place; 3] =
        [Place::SameDevice, Place::SecondDevice, Place::SecondInstance];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Place::SameDevice => "same_device",
            Place::SecondDevice => "second_device",
            Place::SecondInstance => "second_instance",
        }
    }

    pub(crate) fn gpu(self, test_gpu: &TestGpu) -> Result<&VulkanContext> {
        match self {
            Place::SameDevice => Ok(test_gpu.vulkan()),
            Place::SecondDevice => test_gpu.second_device(),
            Place::SecondInstance => test_gpu.second_instance(),
        }
    }
}

/// What imports a payload of the suite's first Vulkan device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Importer {
    Vulkan(Place),
    Gl,
    Cuda,
}

impl Importer {
    /// One per API.
    pub(crate) const ALL: [Importer; 3] =
        [Importer::Vulkan(Place::SecondDevice), Importer::Gl, Importer::Cuda];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Vulkan(_) => "vulkan",
            Self::Gl => "gl",
            Self::Cuda => "cuda",
        }
    }

    pub(crate) fn api(self) -> Api {
        match self {
            Self::Vulkan(_) => Api::Vulkan,
            Self::Gl => Api::OpenGl,
            Self::Cuda => Api::Cuda,
        }
    }

    pub(crate) fn needs(self) -> &'static [Need] {
        match self {
            Self::Vulkan(_) => &[],
            Self::Gl => &[Need::Gl],
            Self::Cuda => &[Need::Cuda],
        }
    }

    /// Whether the suite's GPU has the API at all.
    pub(crate) fn is_available(self, test_gpu: &TestGpu) -> bool {
        test_gpu.has(self.api())
    }

    /// Opens its context; OpenGL's is current then.
    pub(crate) fn open(self, test_gpu: &TestGpu) -> Result<&dyn AnyContext> {
        Ok(match self {
            Self::Vulkan(place) => place.gpu(test_gpu)?,
            Self::Gl => test_gpu.gl()?,
            Self::Cuda => test_gpu.cuda()?,
        })
    }
}

/// A case that runs with each importer.
pub(crate) type RunWith = fn(&TestGpu, &dyn AnyContext) -> Result<()>;

/// One case per importer, called `vulkan→gl/opaque_fd/` and `what`.
pub(crate) fn for_each_importer(what: &str, run: RunWith) -> Vec<Case> {
    let case = |importer: Importer| {
        let name = format!("vulkan→{}/opaque_fd/{what}", importer.name());
        Case::new(name, move |test_gpu| run(test_gpu, importer.open(test_gpu)?))
            .needs(importer.needs())
    };
    Importer::ALL.map(case).into()
}

/// [`for_each_importer`] if the matrix has a row for each.
pub(crate) fn for_each_importer_in_rows(what: &str, rows: [&str; 3], run: RunWith) -> Vec<Case> {
    let case = |(importer, row): (Importer, &str)| {
        let name = format!("vulkan→{}/opaque_fd/{what}/{row}", importer.name());
        Case::new(name, move |test_gpu| run(test_gpu, importer.open(test_gpu)?))
            .needs(importer.needs())
    };
    Importer::ALL.into_iter().zip(rows).map(case).collect()
}

/// One case per importer and kind of semaphore.
pub(crate) fn for_each_semaphore(
    what: &str,
    run: fn(&TestGpu, &dyn AnyContext, SemaphoreKind) -> Result<()>,
) -> Vec<Case> {
    let mut cases = Vec::new();
    for importer in Importer::ALL {
        for (kind, name) in
            [(SemaphoreKind::Binary, "binary"), (SemaphoreKind::Timeline, "timeline")]
        {
            let name = format!("vulkan→{}/opaque_fd/semaphore_{name}/{what}", importer.name());
            let needs = [Need::Semaphore(importer.api(), kind)];
            let run = move |test_gpu: &TestGpu| run(test_gpu, importer.open(test_gpu)?, kind);
            cases.push(Case::new(name, run).needs(importer.needs()).needs(&needs));
        }
    }
    cases
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
            Self::Vulkan(buffer) => buffer.export()?.into(),
            Self::Cuda(buffer) => buffer.export()?.into(),
            Self::Semaphore(semaphore) => semaphore.export()?.into(),
        })
    }
}

/// One case per kind of object that can be exported.
pub(crate) fn for_each_exporter(what: &str, run: fn(&Exportable) -> Result<()>) -> Vec<Case> {
    type Create = fn(&TestGpu) -> Result<Exportable>;
    let case = |name: &str, create: Create| {
        let run = move |test_gpu: &TestGpu| run(&create(test_gpu)?);
        Case::new(format!("{name}/{what}"), run)
    };
    let semaphore = |kind| [Need::Semaphore(Api::Vulkan, kind)];
    vec![
        case("vulkan/opaque_fd/buffer", |test_gpu| {
            let endpoint = &test_gpu.vulkan().endpoint;
            Ok(Exportable::Vulkan(endpoint.create_buffer(&desc(), BufferOptions::default())?))
        }),
        case("cuda/opaque_fd/buffer", |test_gpu| {
            Ok(Exportable::Cuda(test_gpu.cuda()?.endpoint.create_buffer(&desc())?))
        })
        .needs(&[Need::Cuda]),
        case("vulkan/opaque_fd/semaphore_binary", |test_gpu| {
            let endpoint = &test_gpu.vulkan().endpoint;
            Ok(Exportable::Semaphore(endpoint.create_semaphore(SemaphoreKind::Binary)?))
        })
        .needs(&semaphore(SemaphoreKind::Binary)),
        case("vulkan/opaque_fd/semaphore_timeline", |test_gpu| {
            let endpoint = &test_gpu.vulkan().endpoint;
            Ok(Exportable::Semaphore(endpoint.create_semaphore(SemaphoreKind::Timeline)?))
        })
        .needs(&semaphore(SemaphoreKind::Timeline)),
    ]
}

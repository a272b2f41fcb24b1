//! The paths a payload can take.

use std::fmt;
use std::rc::Rc;

use anyhow::{Context, Result};
use demo_common::{handoff_name, rejected_methods};
use gpu_interop::capabilities::{Capabilities, SyncPlan, plan_all};
use gpu_interop::handoff::HandoffOptions;
use gpu_interop::vulkan::BufferOptions;
use gpu_interop::{BufferDesc, vulkan};

use super::cuda::CudaStage;
use super::ends::{AnyAcquirer, AnyEndpoint, AnyReleaser, open_any};
use super::gl::GlStage;
use super::stage::Stage;
use super::vulkan::VulkanStage;
use interop_gpu::GpuContexts;
use interop_gpu::cuda::CudaContext;
use interop_gpu::gl::GlContext;
use interop_gpu::vulkan::VulkanContext;

/// Who takes part in a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PayloadUser {
    /// The Vulkan device that makes the payload.
    Vulkan,
    /// Another logical device of the same instance.
    SecondDevice,
    /// A device of another instance.
    SecondInstance,
    /// OpenGL.
    Gl,
    /// CUDA.
    Cuda,
}

/// Which APIs take part, in which order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum PathKind {
    /// Two Vulkan devices of different instances.
    VulkanVulkan,
    /// Vulkan and OpenGL.
    VulkanGl,
    /// Vulkan and CUDA.
    VulkanCuda,
    /// Vulkan, OpenGL and CUDA.
    VulkanGlCuda,
}

impl PathKind {
    /// Every path.
    pub const ALL: [Self; 4] =
        [Self::VulkanVulkan, Self::VulkanGl, Self::VulkanCuda, Self::VulkanGlCuda];

    /// Who takes part, in the order in which the payload visits them.
    pub fn users(self) -> &'static [PayloadUser] {
        match self {
            Self::VulkanVulkan => &[PayloadUser::Vulkan, PayloadUser::SecondInstance],
            Self::VulkanGl => &[PayloadUser::Vulkan, PayloadUser::Gl],
            Self::VulkanCuda => &[PayloadUser::Vulkan, PayloadUser::Cuda],
            Self::VulkanGlCuda => &[PayloadUser::Vulkan, PayloadUser::Gl, PayloadUser::Cuda],
        }
    }
}

impl fmt::Display for PathKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::VulkanVulkan => "vulkan-vulkan",
            Self::VulkanGl => "vulkan-gl",
            Self::VulkanCuda => "vulkan-cuda",
            Self::VulkanGlCuda => "vulkan-gl-cuda",
        })
    }
}

/// A ring of stages that share one payload.
pub struct Path {
    /// The stages in the order in which the payload visits them; the first made it.
    pub stages: Vec<Box<dyn Stage>>,
    /// How each handoff is synchronised: from stage i to stage i + 1, the last to the first.
    pub plans: Vec<SyncPlan>,
}

impl fmt::Debug for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let apis: Vec<_> = self.stages.iter().map(|stage| stage.api()).collect();
        f.debug_struct("Path").field("stages", &apis).field("plans", &self.plans).finish()
    }
}

impl Path {
    /// Builds the path of `users`, the first of which is [`PayloadUser::Vulkan`], with a payload of
    /// `bytes` bytes that is filled with hashes by `seed`.
    ///
    /// # Errors
    /// If an API that takes part is absent, or if a driver fails.
    pub fn new(
        gpus: &GpuContexts,
        users: &[PayloadUser],
        bytes: u64,
        seed: u32,
        options: HandoffOptions,
    ) -> Result<Self> {
        let gpus = users.iter().map(|&user| context(gpus, user)).collect::<Result<Vec<_>>>()?;
        let Some(AnyContext::Vulkan(owner)) = gpus.first() else {
            anyhow::bail!("the first player of a path is Vulkan");
        };
        let owner = owner.clone();
        let desc = BufferDesc::storage(bytes);
        let importers = gpus[1..].iter().map(|gpu| gpu.endpoint().capabilities(&desc));
        let buffer = create_for(&owner.endpoint, &importers.collect::<Result<Vec<_>>>()?, &desc)?;
        let imports =
            gpus[1..].iter().map(|gpu| gpu.import(&buffer)).collect::<Result<Vec<_>>>()?;

        let (mut releasers, mut acquirers, mut plans) = (Vec::new(), Vec::new(), Vec::new());
        for (i, from) in gpus.iter().enumerate() {
            let to = &gpus[(i + 1) % gpus.len()];
            let ends = open_any(&owner.endpoint, &from.endpoint(), &to.endpoint(), options)?;
            releasers.push(ends.0);
            acquirers.push(ends.1);
            plans.push(ends.2);
        }
        // What comes to a stage was released by the one before it.
        acquirers.rotate_right(1);
        let mut ends = acquirers.into_iter().zip(releasers);
        let (acquirer, releaser) = ends.next().context("a path has stages")?;
        let first = VulkanStage::new(owner, buffer, acquirer.vulkan()?, releaser.vulkan()?)?;
        first.fill(seed)?;
        let mut stages: Vec<Box<dyn Stage>> = vec![Box::new(first)];
        for ((gpu, import), (acquirer, releaser)) in gpus[1..].iter().zip(imports).zip(ends) {
            stages.push(import.stage(gpu, acquirer, releaser)?);
        }
        Ok(Self { stages, plans })
    }

    /// How the handoffs are synchronised, in words.
    pub fn handoff(&self) -> String {
        let mut names: Vec<_> = self.plans.iter().map(handoff_name).collect();
        names.dedup();
        names.join(", ")
    }

    /// Why no better methods were chosen; empty if the best were.
    pub fn rejected_methods(&self) -> Vec<String> {
        rejected_methods(&self.plans)
    }
}

/// A participant's context.
enum AnyContext {
    Vulkan(Rc<VulkanContext>),
    Gl(Rc<GlContext>),
    Cuda(Rc<CudaContext>),
}

/// The context of a participant.
fn context(gpus: &GpuContexts, player: PayloadUser) -> Result<AnyContext> {
    Ok(match player {
        PayloadUser::Vulkan => AnyContext::Vulkan(gpus.vulkan.clone()),
        PayloadUser::SecondDevice => AnyContext::Vulkan(gpus.second_device.clone()),
        PayloadUser::SecondInstance => AnyContext::Vulkan(gpus.second_instance.clone()),
        PayloadUser::Gl => AnyContext::Gl(gpus.gl.as_ref().map_err(Clone::clone)?.clone()),
        PayloadUser::Cuda => AnyContext::Cuda(gpus.cuda.as_ref().map_err(Clone::clone)?.clone()),
    })
}

/// The payload, imported by a participant.
enum Import {
    Vulkan(vulkan::Buffer),
    Gl(gpu_interop::gl::Buffer),
    Cuda(gpu_interop::cuda::Buffer),
}

impl AnyContext {
    fn endpoint(&self) -> AnyEndpoint {
        match self {
            Self::Vulkan(gpu) => AnyEndpoint::Vulkan(gpu.endpoint.clone()),
            Self::Gl(gpu) => AnyEndpoint::Gl(gpu.endpoint.clone()),
            Self::Cuda(gpu) => AnyEndpoint::Cuda(gpu.endpoint.clone()),
        }
    }

    fn import(&self, buffer: &vulkan::Buffer) -> Result<Import> {
        let payload = buffer.export()?;
        Ok(match self {
            Self::Vulkan(gpu) => Import::Vulkan(gpu.endpoint.import_buffer(payload)?),
            Self::Gl(gpu) => Import::Gl(gpu.endpoint.import_buffer(payload)?),
            Self::Cuda(gpu) => Import::Cuda(gpu.endpoint.import_buffer(payload)?),
        })
    }
}

impl Import {
    fn stage(
        self,
        gpu: &AnyContext,
        acquirer: AnyAcquirer,
        releaser: AnyReleaser,
    ) -> Result<Box<dyn Stage>> {
        Ok(match (self, gpu) {
            (Self::Vulkan(buffer), AnyContext::Vulkan(gpu)) => {
                let (acquirer, releaser) = (acquirer.vulkan()?, releaser.vulkan()?);
                Box::new(VulkanStage::new(gpu.clone(), buffer, acquirer, releaser)?)
            }
            (Self::Gl(buffer), AnyContext::Gl(gpu)) => {
                let (acquirer, releaser) = (acquirer.gl()?, releaser.gl()?);
                Box::new(GlStage::new(gpu.clone(), buffer, acquirer, releaser)?)
            }
            (Self::Cuda(buffer), AnyContext::Cuda(gpu)) => {
                let (acquirer, releaser) = (acquirer.cuda()?, releaser.cuda()?);
                Box::new(CudaStage::new(gpu.clone(), buffer, acquirer, releaser)?)
            }
            _ => anyhow::bail!("the payload was imported by another API"),
        })
    }
}

/// Creates the payload so that every importer can import it.
///
/// # Errors
/// If no allocation suits them all, or the driver fails.
pub fn create_for(
    owner: &vulkan::Endpoint,
    importers: &[Capabilities],
    desc: &BufferDesc,
) -> Result<vulkan::Buffer> {
    let exporter = owner.capabilities(&(*desc).into())?;
    let options = BufferOptions::from(plan_all(&exporter, importers, &(*desc).into())?);
    Ok(owner.create_buffer(desc, options)?)
}

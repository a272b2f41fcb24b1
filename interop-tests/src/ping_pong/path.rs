//! The paths a payload can take.

use std::fmt;
use std::rc::Rc;

use anyhow::{Context, Result};
use gpu_interop::capabilities::{Capabilities, Rejected, SyncMethod, SyncPlan, plan};
use gpu_interop::handoff::HandoffOptions;
use gpu_interop::headless::{GpuSelector, Headless, Vulkan, VulkanOptions};
use gpu_interop::vulkan::BufferOptions;
use gpu_interop::{BufferDesc, Error, vulkan};

use super::cuda::CudaStage;
use super::gl::GlStage;
use super::lanes::{AnyAcquirer, AnyEndpoint, AnyReleaser, open_any};
use super::stage::Stage;
use super::vulkan::VulkanStage;
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

    /// Who takes part, in the order of the payload's way.
    pub fn players(self) -> &'static [PayloadUser] {
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

/// One GPU in every API that is there, with the kernels loaded.
#[derive(Debug)]
pub struct Rigs {
    /// CUDA, or why there is none.
    pub cuda: Result<Rc<CudaContext>, Error>,
    /// OpenGL, or why there is none.
    pub gl: Result<Rc<GlContext>, Error>,
    /// Another logical device of the same instance.
    pub second_device: Rc<VulkanContext>,
    /// A device of another instance.
    pub second_instance: Rc<VulkanContext>,
    /// Vulkan.
    pub vulkan: Rc<VulkanContext>,
}

impl Rigs {
    /// Opens the GPU that is wished for.
    ///
    /// # Errors
    /// Where Vulkan is absent, or a driver that is there fails.
    pub fn open(wish: &GpuSelector, options: &VulkanOptions) -> Result<Self> {
        let Headless { vulkan, gl, cuda, .. } = Headless::open(wish, options)?;
        let same = GpuSelector::Uuid(vulkan.identity().device);
        let second_instance = Rc::new(VulkanContext::new(Vulkan::open(&same, options)?)?);
        let second_device = Rc::new(VulkanContext::new(vulkan.second_device()?)?);
        let gl = gl.map(GlContext::new).transpose_ok()?;
        let cuda = cuda.map(CudaContext::new).transpose_ok()?;
        let vulkan = Rc::new(VulkanContext::new(vulkan)?);
        Ok(Self { cuda, gl, second_device, second_instance, vulkan })
    }

    fn gpu(&self, player: PayloadUser) -> Result<Rig> {
        Ok(match player {
            PayloadUser::Vulkan => Rig::Vulkan(self.vulkan.clone()),
            PayloadUser::SecondDevice => Rig::Vulkan(self.second_device.clone()),
            PayloadUser::SecondInstance => Rig::Vulkan(self.second_instance.clone()),
            PayloadUser::Gl => Rig::Gl(self.gl.as_ref().map_err(Clone::clone)?.clone()),
            PayloadUser::Cuda => Rig::Cuda(self.cuda.as_ref().map_err(Clone::clone)?.clone()),
        })
    }
}

/// `Result<Result<T, A>, E>` the other way round: the typed reason stays, a failure goes up.
trait TransposeOk<T> {
    fn transpose_ok(self) -> Result<Result<Rc<T>, Error>>;
}

impl<T> TransposeOk<T> for Result<Result<T>, Error> {
    fn transpose_ok(self) -> Result<Result<Rc<T>, Error>> {
        match self {
            Ok(Ok(gpu)) => Ok(Ok(Rc::new(gpu))),
            Ok(Err(failure)) => Err(failure),
            Err(reason) => Ok(Err(reason)),
        }
    }
}

/// A ring of stages that share one payload.
pub struct Path {
    /// The stages in the order of the payload's way; the first made it.
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
    /// Builds the path of `players`, the first of which is [`PayloadUser::Vulkan`], with a payload of
    /// `bytes` bytes that is filled with hashes by `seed`.
    ///
    /// # Errors
    /// Where an API that takes part is absent, or a driver refuses.
    pub fn new(
        rigs: &Rigs,
        players: &[PayloadUser],
        bytes: u64,
        seed: u32,
        options: HandoffOptions,
    ) -> Result<Self> {
        let rigs = players.iter().map(|&player| rigs.gpu(player)).collect::<Result<Vec<_>>>()?;
        let Some(Rig::Vulkan(owner)) = rigs.first() else {
            anyhow::bail!("the first player of a path is Vulkan");
        };
        let owner = owner.clone();
        let desc = BufferDesc::storage(bytes);
        let importers = rigs[1..].iter().map(|gpu| gpu.endpoint().capabilities(&desc));
        let buffer = create_for(&owner.endpoint, &importers.collect::<Result<Vec<_>>>()?, &desc)?;
        let imports =
            rigs[1..].iter().map(|gpu| gpu.import(&buffer)).collect::<Result<Vec<_>>>()?;

        let (mut releasers, mut acquirers, mut plans) = (Vec::new(), Vec::new(), Vec::new());
        for (i, from) in rigs.iter().enumerate() {
            let to = &rigs[(i + 1) % rigs.len()];
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
        for ((gpu, import), (acquirer, releaser)) in rigs[1..].iter().zip(imports).zip(ends) {
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

    /// Why no better method was chosen, in words; empty where the best was.
    pub fn why(&self) -> Vec<String> {
        why(&self.plans)
    }
}

/// A handoff's method in words.
pub fn handoff_name(plan: &SyncPlan) -> &'static str {
    method_name(plan.method)
}

/// Why no better methods were chosen, in words; empty where the best were.
pub fn why(plans: &[SyncPlan]) -> Vec<String> {
    let mut reasons: Vec<(String, Vec<&str>)> = Vec::new();
    for (method, rejected) in plans.iter().flat_map(|plan| &plan.rejected) {
        let Rejected::Missing(missing) = rejected else { continue };
        let (reason, name) = (missing.to_string(), method_name(*method));
        match reasons.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, names)) if names.contains(&name) => {}
            Some((_, names)) => names.push(name),
            None => reasons.push((reason, vec![name])),
        }
    }
    let line =
        |(reason, names): (String, Vec<&str>)| format!("no {}: {reason}", names.join(" and no "));
    reasons.into_iter().map(line).collect()
}

fn method_name(method: SyncMethod) -> &'static str {
    match method {
        SyncMethod::Timeline => "timeline semaphore",
        SyncMethod::Binary => "binary semaphore",
        SyncMethod::HostWait => "host wait",
        _ => "another method",
    }
}

/// A player's context.
enum Rig {
    Vulkan(Rc<VulkanContext>),
    Gl(Rc<GlContext>),
    Cuda(Rc<CudaContext>),
}

/// The payload, imported by a player.
enum Import {
    Vulkan(vulkan::Buffer),
    Gl(gpu_interop::gl::Buffer),
    Cuda(gpu_interop::cuda::Buffer),
}

impl Rig {
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
        gpu: &Rig,
        acquirer: AnyAcquirer,
        releaser: AnyReleaser,
    ) -> Result<Box<dyn Stage>> {
        Ok(match (self, gpu) {
            (Self::Vulkan(buffer), Rig::Vulkan(gpu)) => {
                let (acquirer, releaser) = (acquirer.vulkan()?, releaser.vulkan()?);
                Box::new(VulkanStage::new(gpu.clone(), buffer, acquirer, releaser)?)
            }
            (Self::Gl(buffer), Rig::Gl(gpu)) => {
                let (acquirer, releaser) = (acquirer.gl()?, releaser.gl()?);
                Box::new(GlStage::new(gpu.clone(), buffer, acquirer, releaser)?)
            }
            (Self::Cuda(buffer), Rig::Cuda(gpu)) => {
                let (acquirer, releaser) = (acquirer.cuda()?, releaser.cuda()?);
                Box::new(CudaStage::new(gpu.clone(), buffer, acquirer, releaser)?)
            }
            _ => anyhow::bail!("the payload was imported by another API"),
        })
    }
}

/// The payload, made as every importer can take it.
pub(crate) fn create_for(
    owner: &vulkan::Endpoint,
    importers: &[Capabilities],
    desc: &BufferDesc,
) -> Result<vulkan::Buffer> {
    let exporter = owner.capabilities(&(*desc).into())?;
    let mut options = BufferOptions::default();
    for importer in importers {
        let plan = plan(&exporter, importer, &(*desc).into())?;
        if plan.dedicated {
            options = BufferOptions::from(plan);
        }
    }
    Ok(owner.create_buffer(desc, options)?)
}

//! The paths that a payload can take: which APIs use it, in which order.

use std::fmt;

use anyhow::Result;
use demo_common::{handoff_name, rejected_methods};
use gpu_interop::capabilities::{Capabilities, SyncPlan, plan_all};
use gpu_interop::handoff::{HandoffOptions, open};
use gpu_interop::vulkan::{self, BufferOptions};
use gpu_interop::{BufferDesc, Peer as _};
use interop_gpu::GpuContexts;

use crate::cuda::CudaUser;
use crate::gl::GlUser;
use crate::stage::{Stage, UserStage};
use crate::user::{Ends, PayloadUser};
use crate::vulkan::VulkanUser;

/// Which APIs use the payload, in which order.
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

    /// Opens this path and fills its payload.
    ///
    /// # Errors
    /// Same as [`Path::pair`].
    pub fn open(self, gpus: &GpuContexts, payload: Payload) -> Result<Path> {
        let gl = || anyhow::Ok(GlUser { gpu: gpus.gl()? });
        let cuda = || anyhow::Ok(CudaUser { gpu: gpus.cuda()? });
        match self {
            Self::VulkanVulkan => {
                Path::pair(gpus, VulkanUser::new(gpus.second_instance.clone())?, payload)
            }
            Self::VulkanGl => Path::pair(gpus, gl()?, payload),
            Self::VulkanCuda => Path::pair(gpus, cuda()?, payload),
            Self::VulkanGlCuda => Path::triple(gpus, gl()?, cuda()?, payload),
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

/// The payload of a path.
#[derive(Clone, Copy, Debug)]
pub struct Payload {
    /// Its size in bytes.
    pub bytes: u64,
    /// The seed of the hashes that it is filled with.
    pub seed: u32,
    /// How it is handed over.
    pub handoff: HandoffOptions,
}

/// A ring of stages that share one payload.
pub struct Path {
    /// The stages in the order in which the payload visits them. The first one, Vulkan, allocates it.
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
    /// Opens the path from Vulkan to `second` and back.
    ///
    /// # Errors
    /// [`Missing`](gpu_interop::error::Missing) if this machine lacks something; otherwise if a driver fails.
    pub fn pair<S: PayloadUser>(gpus: &GpuContexts, second: S, payload: Payload) -> Result<Self> {
        let Payload { bytes, seed, handoff } = payload;
        let first = VulkanUser::new(gpus.vulkan.clone())?;
        let desc = BufferDesc::storage(bytes);

        // Vulkan exports the memory, and the second API imports it.
        let importers = [second.endpoint().capabilities(&desc.into())?];
        let buffer = create_for(first.endpoint(), &importers, &desc)?;
        let second_buffer = second.endpoint().import_buffer(buffer.export()?)?;
        first.fill_and_release(&buffer, seed)?;

        // A handoff in each direction. Vulkan allocates the semaphores.
        let owner = first.endpoint().clone();
        let there = open(&owner, &owner, second.endpoint(), handoff)?;
        let back = open(&owner, second.endpoint(), &owner, handoff)?;
        let first_ends = Ends { acquirer: back.acquire, releaser: there.release, buffer };
        let second_ends =
            Ends { acquirer: there.acquire, releaser: back.release, buffer: second_buffer };
        let stages = vec![
            UserStage::boxed(first, first_ends, 1, bytes)?,
            UserStage::boxed(second, second_ends, 2, bytes)?,
        ];
        Ok(Self { stages, plans: vec![there.plan, back.plan] })
    }

    /// Opens the path from Vulkan to `second`, to `third`, and back to Vulkan.
    ///
    /// # Errors
    /// Same as [`pair`](Self::pair).
    pub fn triple<S: PayloadUser, T: PayloadUser>(
        gpus: &GpuContexts,
        second: S,
        third: T,
        payload: Payload,
    ) -> Result<Self> {
        let Payload { bytes, seed, handoff } = payload;
        let first = VulkanUser::new(gpus.vulkan.clone())?;
        let desc = BufferDesc::storage(bytes);
        let importers = [
            second.endpoint().capabilities(&desc.into())?,
            third.endpoint().capabilities(&desc.into())?,
        ];
        let buffer = create_for(first.endpoint(), &importers, &desc)?;
        let second_buffer = second.endpoint().import_buffer(buffer.export()?)?;
        let third_buffer = third.endpoint().import_buffer(buffer.export()?)?;
        first.fill_and_release(&buffer, seed)?;

        let owner = first.endpoint().clone();
        let to_second = open(&owner, &owner, second.endpoint(), handoff)?;
        let to_third = open(&owner, second.endpoint(), third.endpoint(), handoff)?;
        let to_first = open(&owner, third.endpoint(), &owner, handoff)?;
        let first_ends = Ends { acquirer: to_first.acquire, releaser: to_second.release, buffer };
        let second_ends =
            Ends { acquirer: to_second.acquire, releaser: to_third.release, buffer: second_buffer };
        let third_ends =
            Ends { acquirer: to_third.acquire, releaser: to_first.release, buffer: third_buffer };
        let stages = vec![
            UserStage::boxed(first, first_ends, 1, bytes)?,
            UserStage::boxed(second, second_ends, 2, bytes)?,
            UserStage::boxed(third, third_ends, 3, bytes)?,
        ];
        Ok(Self { stages, plans: vec![to_second.plan, to_third.plan, to_first.plan] })
    }

    /// How the handoffs are synchronised, in words.
    pub fn handoff(&self) -> String {
        let mut names: Vec<_> = self.plans.iter().map(handoff_name).collect();
        names.dedup();
        names.join(", ")
    }

    /// Why better methods were not chosen; empty if the best were.
    pub fn rejected_methods(&self) -> Vec<String> {
        rejected_methods(&self.plans)
    }
}

/// Creates the payload so that every importer can import it.
///
/// # Errors
/// [`Missing`](gpu_interop::error::Missing) if the importers can't share one allocation; otherwise if the
/// driver fails.
pub fn create_for(
    owner: &vulkan::Endpoint,
    importers: &[Capabilities],
    desc: &BufferDesc,
) -> Result<vulkan::Buffer> {
    let exporter = owner.capabilities(&(*desc).into())?;
    let options = BufferOptions::from(plan_all(&exporter, importers, &(*desc).into())?);
    Ok(owner.create_buffer(desc, options)?)
}

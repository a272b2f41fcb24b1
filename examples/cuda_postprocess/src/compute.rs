//! A compute shader over images in Vulkan: one thread per texel, in groups of 8×8.

use anyhow::Result;
use gpu_interop::ash::vk;
use gpu_interop::headless::Vulkan;
use interop_gpu::vulkan::{Resource, ShaderLayout};

/// Threads of a work group in x and in y, as in the GLSL sources.
const GROUP: u32 = 8;

/// A pipeline over one set of images, with push constants.
#[derive(Debug)]
pub(crate) struct ComputePass {
    vulkan: Vulkan,
    layout: ShaderLayout,
    pipeline: vk::Pipeline,
    set: vk::DescriptorSet,
    sampler: vk::Sampler,
}

/// An image of a pass: its binding's type, its view, and its layout when the pass runs.
pub(crate) type PassImage = (vk::DescriptorType, vk::ImageView, vk::ImageLayout);

impl ComputePass {
    /// Loads `spirv`, which has `images` at bindings 0 and up, and `push_bytes` bytes of push constants. The views
    /// outlive the pass.
    ///
    /// # Errors
    /// If the driver fails.
    pub(crate) fn new(
        vulkan: &Vulkan,
        spirv: &[u8],
        images: &[PassImage],
        push_bytes: u32,
    ) -> Result<Self> {
        let bindings: Vec<_> = images.iter().map(|(ty, ..)| *ty).collect();
        let stages = vk::ShaderStageFlags::COMPUTE;
        let mut layout = ShaderLayout::new(vulkan, stages, &bindings, push_bytes, 1)?;
        let pipeline = layout.compute(spirv)?;
        let (vulkan, set) = (vulkan.clone(), vk::DescriptorSet::null());
        // Texels are fetched one by one, so the sampler's defaults suffice.
        let info = vk::SamplerCreateInfo::default();
        // SAFETY: a valid device.
        let sampler = unsafe { vulkan.device().create_sampler(&info, None) }?;
        let mut made = Self { vulkan, layout, pipeline, set, sampler };
        let resource = |&(_, image_view, image_layout): &PassImage| {
            Resource::Image(vk::DescriptorImageInfo { sampler, image_view, image_layout })
        };
        made.set = made.layout.bind(&images.iter().map(resource).collect::<Vec<_>>())?;
        Ok(made)
    }

    /// Records the pass over `width` × `height` texels.
    pub(crate) fn record(
        &self,
        command: vk::CommandBuffer,
        constants: &[u8],
        (width, height): (u32, u32),
    ) {
        let groups = (width.div_ceil(GROUP), height.div_ceil(GROUP));
        self.layout.dispatch(command, self.pipeline, self.set, constants, groups);
    }
}

impl Drop for ComputePass {
    fn drop(&mut self) {
        // A lost device has nothing in flight.
        let _ = self.vulkan.wait_idle();
        // SAFETY: owned here alone, and idle.
        unsafe { self.vulkan.device().destroy_sampler(self.sampler, None) };
    }
}

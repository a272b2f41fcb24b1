//! A compute shader over images in Vulkan: one thread per texel, in groups of 8×8.

use anyhow::Result;
use gpu_interop::ash::vk;
use gpu_interop::headless::Vulkan;

use interop_gpu::vulkan::ComputeLayout;

/// Threads of a work group in x and in y, as in the GLSL sources.
const GROUP: u32 = 8;

/// A pipeline with one descriptor set of images, and push constants.
#[derive(Debug)]
pub(crate) struct ComputePass {
    vulkan: Vulkan,
    layout: ComputeLayout,
    pipeline: vk::Pipeline,
    pool: vk::DescriptorPool,
    sampler: vk::Sampler,
}

/// The images that a pass works on. Valid as long as the pass and the views.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BoundImages(vk::DescriptorSet);

/// Descriptor sets of one pass.
const MAX_SETS: u32 = 8;

impl ComputePass {
    /// Loads `spirv`, whose binding `i` has type `bindings[i]` and which has `push_bytes` bytes of push
    /// constants.
    ///
    /// # Errors
    /// If the driver fails.
    pub(crate) fn new(
        vulkan: &Vulkan,
        spirv: &[u8],
        bindings: &[vk::DescriptorType],
        push_bytes: u32,
    ) -> Result<Self> {
        let mut made = Self {
            vulkan: vulkan.clone(),
            layout: ComputeLayout::new(vulkan, bindings, push_bytes)?,
            pipeline: vk::Pipeline::null(),
            pool: vk::DescriptorPool::null(),
            sampler: vk::Sampler::null(),
        };
        made.create_pool(bindings)?;
        made.pipeline = made.layout.pipeline_of(spirv)?;
        Ok(made)
    }

    fn create_pool(&mut self, bindings: &[vk::DescriptorType]) -> Result<()> {
        let device = self.vulkan.device();
        let sizes: Vec<_> = bindings
            .iter()
            .map(|&ty| vk::DescriptorPoolSize { ty, descriptor_count: MAX_SETS })
            .collect();
        let pool = vk::DescriptorPoolCreateInfo::default().max_sets(MAX_SETS).pool_sizes(&sizes);
        // Texels are fetched one by one, so the sampler's defaults suffice.
        let sampler = vk::SamplerCreateInfo::default();
        // SAFETY: a valid device; the array outlives the call.
        unsafe {
            self.pool = device.create_descriptor_pool(&pool, None)?;
            self.sampler = device.create_sampler(&sampler, None)?;
        }
        Ok(())
    }

    /// Binds views of images, each with its layout when the pass runs.
    ///
    /// # Errors
    /// If the pass has no more descriptor sets.
    pub(crate) fn bind(
        &self,
        images: &[(vk::DescriptorType, vk::ImageView, vk::ImageLayout)],
    ) -> Result<BoundImages> {
        let device = self.vulkan.device();
        let layouts = [self.layout.set];
        let info = vk::DescriptorSetAllocateInfo::default()
            .descriptor_pool(self.pool)
            .set_layouts(&layouts);
        // SAFETY: the pool is alive and used by this thread alone.
        let set = unsafe { device.allocate_descriptor_sets(&info) }?[0];
        let sampler = self.sampler;
        let infos: Vec<_> = images
            .iter()
            .map(|&(_, image_view, image_layout)| {
                [vk::DescriptorImageInfo { sampler, image_view, image_layout }]
            })
            .collect();
        let writes: Vec<_> = (0..)
            .zip(images.iter().zip(&infos))
            .map(|(binding, ((ty, ..), info))| {
                vk::WriteDescriptorSet::default()
                    .dst_set(set)
                    .dst_binding(binding)
                    .descriptor_type(*ty)
                    .image_info(info)
            })
            .collect();
        // SAFETY: the set is new; the caller keeps the views alive.
        unsafe { device.update_descriptor_sets(&writes, &[]) };
        Ok(BoundImages(set))
    }

    /// Records the pass over `width` × `height` texels.
    pub(crate) fn record(
        &self,
        command: vk::CommandBuffer,
        images: BoundImages,
        constants: &[u8],
        (width, height): (u32, u32),
    ) {
        let (device, point) = (self.vulkan.device(), vk::PipelineBindPoint::COMPUTE);
        // SAFETY: the command buffer is being recorded outside of a render pass; everything bound is
        // alive as long as the pass and the views, which the callers keep.
        unsafe {
            device.cmd_bind_pipeline(command, point, self.pipeline);
            device.cmd_bind_descriptor_sets(
                command,
                point,
                self.layout.pipeline,
                0,
                &[images.0],
                &[],
            );
            let stage = vk::ShaderStageFlags::COMPUTE;
            device.cmd_push_constants(command, self.layout.pipeline, stage, 0, constants);
            device.cmd_dispatch(command, width.div_ceil(GROUP), height.div_ceil(GROUP), 1);
        }
    }
}

impl Drop for ComputePass {
    fn drop(&mut self) {
        // A lost device has nothing in flight.
        let _ = self.vulkan.wait_idle();
        let device = self.vulkan.device();
        // SAFETY: all owned here alone, idle, and null if never created.
        unsafe {
            device.destroy_pipeline(self.pipeline, None);
            device.destroy_descriptor_pool(self.pool, None);
            device.destroy_sampler(self.sampler, None);
        }
    }
}

/// A view of a two-dimensional colour image with one level.
#[derive(Debug)]
pub(crate) struct ImageView {
    vulkan: Vulkan,
    /// The handle.
    pub(crate) handle: vk::ImageView,
}

impl ImageView {
    /// Creates a view of `image`, which must outlive it, as `format`.
    ///
    /// # Errors
    /// If the driver fails.
    pub(crate) fn new(vulkan: &Vulkan, image: vk::Image, format: vk::Format) -> Result<Self> {
        let range = vk::ImageSubresourceRange {
            aspect_mask: vk::ImageAspectFlags::COLOR,
            level_count: 1,
            layer_count: 1,
            ..Default::default()
        };
        let info = vk::ImageViewCreateInfo::default()
            .image(image)
            .view_type(vk::ImageViewType::TYPE_2D)
            .format(format)
            .subresource_range(range);
        // SAFETY: the caller promises that the image is alive and belongs to this device.
        let handle = unsafe { vulkan.device().create_image_view(&info, None) }?;
        Ok(Self { vulkan: vulkan.clone(), handle })
    }
}

impl Drop for ImageView {
    fn drop(&mut self) {
        // SAFETY: owned here alone; the code that submits work with it waits before dropping it.
        unsafe { self.vulkan.device().destroy_image_view(self.handle, None) };
    }
}

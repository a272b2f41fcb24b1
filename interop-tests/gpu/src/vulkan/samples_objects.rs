//! The objects to draw and fetch the samples of one multisample image.

use anyhow::Result;
use gpu_interop::ash::{self, vk};
use gpu_interop::format::Format;
use gpu_interop::headless::Vulkan;
use gpu_interop::vulkan::Image;

use super::shader::ShaderModule;
use crate::texel::{Class, class};

macro_rules! spirv {
    ($name:literal) => {
        include_bytes!(concat!("../../../../shaders/", $name, ".spv"))
    };
}

/// The stages that use the buffer and the parameters.
const STAGES: vk::ShaderStageFlags = vk::ShaderStageFlags::from_raw(
    vk::ShaderStageFlags::FRAGMENT.as_raw() | vk::ShaderStageFlags::COMPUTE.as_raw(),
);

/// A view, pipelines and descriptors of one multisample image of one level and layer.
#[derive(Debug)]
pub(super) struct SampleObjects {
    vulkan: Vulkan,
    /// Width and height in texels.
    size: (u32, u32),
    view: vk::ImageView,
    sampler: vk::Sampler,
    descriptors: vk::DescriptorPool,
    set_layout: vk::DescriptorSetLayout,
    pub(super) set: vk::DescriptorSet,
    pub(super) pipeline_layout: vk::PipelineLayout,
    pub(super) render_pass: vk::RenderPass,
    pub(super) framebuffer: vk::Framebuffer,
    /// One per sample.
    pub(super) write: Vec<vk::Pipeline>,
    pub(super) read: vk::Pipeline,
}

impl SampleObjects {
    pub(super) fn new(vulkan: &Vulkan, image: &Image, buffer: vk::Buffer) -> Result<Self> {
        // Every vkDestroy call ignores null handles, so Drop cleans up after a failure half-way.
        let extent = image.desc().extent;
        let mut made = Self {
            vulkan: vulkan.clone(),
            size: (extent.width, extent.height),
            view: vk::ImageView::null(),
            sampler: vk::Sampler::null(),
            descriptors: vk::DescriptorPool::null(),
            set_layout: vk::DescriptorSetLayout::null(),
            set: vk::DescriptorSet::null(),
            pipeline_layout: vk::PipelineLayout::null(),
            render_pass: vk::RenderPass::null(),
            framebuffer: vk::Framebuffer::null(),
            write: Vec::new(),
            read: vk::Pipeline::null(),
        };
        made.create_view(image)?;
        made.create_descriptors(buffer)?;
        made.create_render_pass(image)?;
        made.create_writers(image)?;
        made.create_reader(image)?;
        Ok(made)
    }

    fn device(&self) -> &ash::Device {
        self.vulkan.device()
    }

    pub(super) fn area(&self) -> vk::Rect2D {
        let (width, height) = self.size;
        vk::Rect2D { offset: vk::Offset2D::default(), extent: vk::Extent2D { width, height } }
    }

    /// Records the shaders' parameters: width, number of samples, index of the sample.
    pub(super) fn push(&self, command: vk::CommandBuffer, parameters: &[u32; 3]) {
        let bytes = bytemuck::bytes_of(parameters);
        // SAFETY: the command buffer is being recorded (the caller's); the layout has this range.
        unsafe {
            self.device().cmd_push_constants(command, self.pipeline_layout, STAGES, 0, bytes);
        }
    }

    fn create_view(&mut self, image: &Image) -> Result<()> {
        let info = vk::ImageViewCreateInfo::default()
            .image(image.handle())
            .view_type(vk::ImageViewType::TYPE_2D)
            .format(plain(image))
            .subresource_range(image.full_range());
        let sampler = vk::SamplerCreateInfo::default();
        // SAFETY: the image is alive, of this device, plain and of one aspect; its format can be
        // seen so (`plain`).
        unsafe {
            self.view = self.device().create_image_view(&info, None)?;
            self.sampler = self.device().create_sampler(&sampler, None)?;
        }
        Ok(())
    }

    fn create_descriptors(&mut self, buffer: vk::Buffer) -> Result<()> {
        use vk::DescriptorType as Type;
        let vulkan = self.vulkan.clone();
        let device = vulkan.device();
        let binding = |index, ty, stages| {
            vk::DescriptorSetLayoutBinding::default()
                .binding(index)
                .descriptor_type(ty)
                .descriptor_count(1)
                .stage_flags(stages)
        };
        let bindings = [
            binding(0, Type::STORAGE_BUFFER, STAGES),
            binding(1, Type::COMBINED_IMAGE_SAMPLER, vk::ShaderStageFlags::COMPUTE),
        ];
        let set_layout = vk::DescriptorSetLayoutCreateInfo::default().bindings(&bindings);
        let sizes = [Type::STORAGE_BUFFER, Type::COMBINED_IMAGE_SAMPLER]
            .map(|ty| vk::DescriptorPoolSize { ty, descriptor_count: 1 });
        let pool = vk::DescriptorPoolCreateInfo::default().max_sets(1).pool_sizes(&sizes);
        let constants = [vk::PushConstantRange { stage_flags: STAGES, offset: 0, size: 12 }];
        // SAFETY: a valid device; the arrays outlive the calls; the set is written before it is used.
        unsafe {
            self.set_layout = device.create_descriptor_set_layout(&set_layout, None)?;
            self.descriptors = device.create_descriptor_pool(&pool, None)?;
            let layouts = [self.set_layout];
            let layout = vk::PipelineLayoutCreateInfo::default()
                .set_layouts(&layouts)
                .push_constant_ranges(&constants);
            self.pipeline_layout = device.create_pipeline_layout(&layout, None)?;
            let set = vk::DescriptorSetAllocateInfo::default()
                .descriptor_pool(self.descriptors)
                .set_layouts(&layouts);
            self.set = device.allocate_descriptor_sets(&set)?[0];
        }
        let buffers = [vk::DescriptorBufferInfo { buffer, offset: 0, range: vk::WHOLE_SIZE }];
        let images = [vk::DescriptorImageInfo {
            sampler: self.sampler,
            image_view: self.view,
            image_layout: vk::ImageLayout::SHADER_READ_ONLY_OPTIMAL,
        }];
        let write = vk::WriteDescriptorSet::default().dst_set(self.set);
        let writes = [
            write.descriptor_type(Type::STORAGE_BUFFER).buffer_info(&buffers),
            write.dst_binding(1).descriptor_type(Type::COMBINED_IMAGE_SAMPLER).image_info(&images),
        ];
        // SAFETY: the set is new; buffer, view and sampler are alive.
        unsafe { device.update_descriptor_sets(&writes, &[]) };
        Ok(())
    }

    fn create_render_pass(&mut self, image: &Image) -> Result<()> {
        let depth = class(image.desc().format) == Class::Depth;
        let layout = if depth {
            vk::ImageLayout::DEPTH_STENCIL_ATTACHMENT_OPTIMAL
        } else {
            vk::ImageLayout::COLOR_ATTACHMENT_OPTIMAL
        };
        // Every sample of every texel is drawn to, so that nothing has to be loaded.
        let attachments = [vk::AttachmentDescription::default()
            .format(plain(image))
            .samples(samples(image))
            .load_op(vk::AttachmentLoadOp::DONT_CARE)
            .store_op(vk::AttachmentStoreOp::STORE)
            .stencil_load_op(vk::AttachmentLoadOp::DONT_CARE)
            .stencil_store_op(vk::AttachmentStoreOp::DONT_CARE)
            .initial_layout(layout)
            .final_layout(layout)];
        let references = [vk::AttachmentReference { attachment: 0, layout }];
        let mut subpass = vk::SubpassDescription::default();
        if depth {
            subpass = subpass.depth_stencil_attachment(&references[0]);
        } else {
            subpass = subpass.color_attachments(&references);
        }
        let subpasses = [subpass];
        let info =
            vk::RenderPassCreateInfo::default().attachments(&attachments).subpasses(&subpasses);
        let views = [self.view];
        // SAFETY: a valid device; the arrays outlive the calls; the view is of the attachment's
        // format and sample count.
        unsafe {
            self.render_pass = self.device().create_render_pass(&info, None)?;
            let framebuffer = vk::FramebufferCreateInfo::default()
                .render_pass(self.render_pass)
                .attachments(&views)
                .width(self.size.0)
                .height(self.size.1)
                .layers(1);
            self.framebuffer = self.device().create_framebuffer(&framebuffer, None)?;
        }
        Ok(())
    }

    /// One pipeline per sample, whose mask lets only that sample through.
    fn create_writers(&mut self, image: &Image) -> Result<()> {
        let (fragment, colors) = match class(image.desc().format) {
            Class::Float => (&spirv!("samples_write_float.frag")[..], 1),
            Class::Uint => (&spirv!("samples_write_uint.frag")[..], 1),
            Class::Depth => (&spirv!("samples_write_depth.frag")[..], 0),
        };
        let vertex = ShaderModule::new(&self.vulkan, spirv!("samples.vert"))?;
        let fragment = ShaderModule::new(&self.vulkan, fragment)?;
        let stages = [
            vertex.stage(vk::ShaderStageFlags::VERTEX),
            fragment.stage(vk::ShaderStageFlags::FRAGMENT),
        ];
        let input = vk::PipelineVertexInputStateCreateInfo::default();
        let assembly = vk::PipelineInputAssemblyStateCreateInfo::default()
            .topology(vk::PrimitiveTopology::TRIANGLE_LIST);
        let viewport =
            vk::PipelineViewportStateCreateInfo::default().viewport_count(1).scissor_count(1);
        let raster = vk::PipelineRasterizationStateCreateInfo::default()
            .polygon_mode(vk::PolygonMode::FILL)
            .cull_mode(vk::CullModeFlags::NONE)
            .line_width(1.0);
        let depth = vk::PipelineDepthStencilStateCreateInfo::default()
            .depth_test_enable(colors == 0)
            .depth_write_enable(colors == 0)
            .depth_compare_op(vk::CompareOp::ALWAYS);
        let blends = [vk::PipelineColorBlendAttachmentState::default()
            .color_write_mask(vk::ColorComponentFlags::RGBA)];
        let blend = vk::PipelineColorBlendStateCreateInfo::default().attachments(&blends[..colors]);
        let dynamic = vk::PipelineDynamicStateCreateInfo::default()
            .dynamic_states(&[vk::DynamicState::VIEWPORT, vk::DynamicState::SCISSOR]);
        for sample in 0..image.desc().samples {
            let mask = [1 << sample];
            let multisample = vk::PipelineMultisampleStateCreateInfo::default()
                .rasterization_samples(samples(image))
                .sample_mask(&mask);
            let info = vk::GraphicsPipelineCreateInfo::default()
                .stages(&stages)
                .vertex_input_state(&input)
                .input_assembly_state(&assembly)
                .viewport_state(&viewport)
                .rasterization_state(&raster)
                .multisample_state(&multisample)
                .depth_stencil_state(&depth)
                .color_blend_state(&blend)
                .dynamic_state(&dynamic)
                .layout(self.pipeline_layout)
                .render_pass(self.render_pass);
            let none = vk::PipelineCache::null();
            // SAFETY: the modules are valid SPIR-V, their interface is the layout's, and the render
            // pass has the attachment they write.
            let made = unsafe { self.device().create_graphics_pipelines(none, &[info], None) };
            self.write.extend(made.map_err(|(_, result)| result)?);
        }
        Ok(())
    }

    fn create_reader(&mut self, image: &Image) -> Result<()> {
        let spirv = match class(image.desc().format) {
            Class::Uint => &spirv!("samples_read_uint.comp")[..],
            Class::Float | Class::Depth => &spirv!("samples_read_float.comp")[..],
        };
        self.read =
            ShaderModule::new(&self.vulkan, spirv)?.compute_pipeline(self.pipeline_layout)?;
        Ok(())
    }
}

impl Drop for SampleObjects {
    fn drop(&mut self) {
        let device = self.vulkan.device();
        // SAFETY: all owned here alone, idle because the callers have waited, and null if never created.
        unsafe {
            for pipeline in self.write.drain(..).chain([self.read]) {
                device.destroy_pipeline(pipeline, None);
            }
            device.destroy_framebuffer(self.framebuffer, None);
            device.destroy_render_pass(self.render_pass, None);
            device.destroy_pipeline_layout(self.pipeline_layout, None);
            device.destroy_descriptor_pool(self.descriptors, None);
            device.destroy_descriptor_set_layout(self.set_layout, None);
            device.destroy_sampler(self.sampler, None);
            device.destroy_image_view(self.view, None);
        }
    }
}

fn samples(image: &Image) -> vk::SampleCountFlags {
    vk::SampleCountFlags::from_raw(image.desc().samples)
}

/// The image's format, or for sRGB the same without the encoding, as bits are compared. Such an image is
/// created with `ImageFlags::MUTABLE_FORMAT`.
fn plain(image: &Image) -> vk::Format {
    match image.desc().format {
        Format::Rgba8Srgb => vk::Format::R8G8B8A8_UNORM,
        Format::Bgra8Srgb => vk::Format::B8G8R8A8_UNORM,
        _ => image.format(),
    }
}

//! Render pass, framebuffer, pipeline and descriptor set of a painter.

use std::mem::offset_of;

use anyhow::Result;
use gpu_interop::ash::{self, vk};
use gpu_interop::headless::Vulkan;

use super::memory::{DEPTH_FORMAT, PrivateImage, PrivateImageInfo};
use crate::Canvas;
use crate::drawing::Instance;
use crate::mesh::Vertex;
use interop_gpu::vulkan::{Graphics, Resource, ShaderLayout};

const VERTEX: &[u8] = include_bytes!("../../../../shaders/scene.vert.spv");

/// What the shaders read.
#[derive(Clone, Copy)]
pub(super) struct Reads {
    pub(super) uniforms: vk::Buffer,
    pub(super) picture: Option<(vk::ImageView, vk::Sampler)>,
}

/// The objects of a painter. Every vkDestroy call ignores null handles, so Drop cleans up after a failure
/// half-way.
#[derive(Debug)]
pub(super) struct Objects {
    vulkan: Vulkan,
    canvas: Canvas,
    /// The samples of the colour, if more than one; they are resolved into the target.
    samples: Option<PrivateImage>,
    depth: Option<PrivateImage>,
    pub(super) layout: ShaderLayout,
    pub(super) set: vk::DescriptorSet,
    pub(super) render_pass: vk::RenderPass,
    pub(super) framebuffer: vk::Framebuffer,
    pub(super) pipeline: vk::Pipeline,
}

impl Objects {
    pub(super) fn new(
        vulkan: &Vulkan,
        fragment: &[u8],
        format: vk::Format,
        canvas: Canvas,
        target: vk::ImageView,
        reads: Reads,
    ) -> Result<Self> {
        use vk::DescriptorType as Type;
        let image_layout = vk::ImageLayout::SHADER_READ_ONLY_OPTIMAL;
        let sampled = |(image_view, sampler)| {
            Resource::Image(vk::DescriptorImageInfo { sampler, image_view, image_layout })
        };
        let bindings = [Type::UNIFORM_BUFFER, Type::COMBINED_IMAGE_SAMPLER];
        let resources = [Some(Resource::whole(reads.uniforms)), reads.picture.map(sampled)];
        // Binding a set whose picture was never written would be valid, as no shader reads it; but lavapipe
        // (22.3.6) crashes. So the set has no binding for a picture that is absent.
        let resources: Vec<_> = resources.into_iter().flatten().collect();
        let bindings = &bindings[..resources.len()];
        let stages = vk::ShaderStageFlags::VERTEX | vk::ShaderStageFlags::FRAGMENT;
        let layout = ShaderLayout::new(vulkan, stages, bindings, 0, 1)?;
        let mut made = Self {
            vulkan: vulkan.clone(),
            canvas,
            samples: None,
            depth: None,
            set: layout.bind(&resources)?,
            layout,
            render_pass: vk::RenderPass::null(),
            framebuffer: vk::Framebuffer::null(),
            pipeline: vk::Pipeline::null(),
        };
        made.create_attachments(format)?;
        made.create_render_pass(format)?;
        made.create_framebuffer(target)?;
        made.create_pipeline(fragment)?;
        Ok(made)
    }

    fn device(&self) -> &ash::Device {
        self.vulkan.device()
    }

    fn sample_count(&self) -> vk::SampleCountFlags {
        vk::SampleCountFlags::from_raw(self.canvas.samples)
    }

    /// The clear values of the attachments, in their order.
    pub(super) fn clear_values(&self) -> Vec<vk::ClearValue> {
        let color = vk::ClearColorValue { float32: [0.0, 0.0, 0.0, 1.0] };
        let mut values = vec![vk::ClearValue { color }];
        if self.samples.is_some() {
            values.push(vk::ClearValue { color });
        }
        if self.depth.is_some() {
            let depth_stencil = vk::ClearDepthStencilValue { depth: 1.0, stencil: 0 };
            values.push(vk::ClearValue { depth_stencil });
        }
        values
    }

    fn create_attachments(&mut self, format: vk::Format) -> Result<()> {
        let Canvas { size, samples, depth } = self.canvas;
        let usage = vk::ImageUsageFlags::COLOR_ATTACHMENT;
        if samples > 1 {
            let info = PrivateImageInfo { format, size, levels: 1, samples, usage };
            self.samples = Some(PrivateImage::new(&self.vulkan, &info)?);
        }
        if depth {
            let usage = vk::ImageUsageFlags::DEPTH_STENCIL_ATTACHMENT;
            let info = PrivateImageInfo { format: DEPTH_FORMAT, size, levels: 1, samples, usage };
            self.depth = Some(PrivateImage::new(&self.vulkan, &info)?);
        }
        Ok(())
    }

    fn create_render_pass(&mut self, format: vk::Format) -> Result<()> {
        let colour_layout = vk::ImageLayout::COLOR_ATTACHMENT_OPTIMAL;
        let depth_layout = vk::ImageLayout::DEPTH_STENCIL_ATTACHMENT_OPTIMAL;
        let cleared = vk::AttachmentDescription::default()
            .samples(self.sample_count())
            .load_op(vk::AttachmentLoadOp::CLEAR)
            .store_op(vk::AttachmentStoreOp::DONT_CARE)
            .stencil_load_op(vk::AttachmentLoadOp::DONT_CARE)
            .stencil_store_op(vk::AttachmentStoreOp::DONT_CARE);
        let colour = cleared.format(format).final_layout(colour_layout);
        let stored = vk::AttachmentStoreOp::STORE;
        let mut attachments = Vec::new();
        if self.samples.is_some() {
            attachments.push(colour);
            // The resolve writes every pixel.
            let resolved = colour.samples(vk::SampleCountFlags::TYPE_1).store_op(stored);
            attachments.push(resolved.load_op(vk::AttachmentLoadOp::DONT_CARE));
        } else {
            attachments.push(colour.store_op(stored));
        }
        if self.depth.is_some() {
            attachments.push(cleared.format(DEPTH_FORMAT).final_layout(depth_layout));
        }
        let reference = |attachment: usize, layout| vk::AttachmentReference {
            attachment: attachment as u32,
            layout,
        };
        let (colours, resolves) = ([reference(0, colour_layout)], [reference(1, colour_layout)]);
        let depth = reference(attachments.len() - 1, depth_layout);
        let mut subpass = vk::SubpassDescription::default().color_attachments(&colours);
        if self.samples.is_some() {
            subpass = subpass.resolve_attachments(&resolves);
        }
        if self.depth.is_some() {
            subpass = subpass.depth_stencil_attachment(&depth);
        }
        let subpasses = [subpass];
        let dependencies = dependencies();
        let info = vk::RenderPassCreateInfo::default()
            .attachments(&attachments)
            .subpasses(&subpasses)
            .dependencies(&dependencies);
        // SAFETY: a valid device; the arrays outlive the call.
        self.render_pass = unsafe { self.device().create_render_pass(&info, None) }?;
        Ok(())
    }

    fn create_framebuffer(&mut self, target: vk::ImageView) -> Result<()> {
        let samples = self.samples.iter().map(PrivateImage::view);
        let depth = self.depth.iter().map(PrivateImage::view);
        let views: Vec<_> = samples.chain([target]).chain(depth).collect();
        let info = vk::FramebufferCreateInfo::default()
            .render_pass(self.render_pass)
            .attachments(&views)
            .width(self.canvas.size.0)
            .height(self.canvas.size.1)
            .layers(1);
        // SAFETY: the views are in the order of the render pass, of its formats and sample counts, and of
        // the canvas's size, as the caller promises for the target.
        self.framebuffer = unsafe { self.device().create_framebuffer(&info, None) }?;
        Ok(())
    }

    fn create_pipeline(&mut self, fragment: &[u8]) -> Result<()> {
        let bindings = [
            binding::<Vertex>(0, vk::VertexInputRate::VERTEX),
            binding::<Instance>(1, vk::VertexInputRate::INSTANCE),
        ];
        let attributes = attributes();
        // Blended over the pixels so far. The alpha of the target stays 1.
        let blend = vk::PipelineColorBlendAttachmentState::default()
            .blend_enable(self.canvas.depth)
            .src_color_blend_factor(vk::BlendFactor::SRC_ALPHA)
            .dst_color_blend_factor(vk::BlendFactor::ONE_MINUS_SRC_ALPHA)
            .src_alpha_blend_factor(vk::BlendFactor::ONE)
            .dst_alpha_blend_factor(vk::BlendFactor::ONE_MINUS_SRC_ALPHA)
            .color_write_mask(vk::ColorComponentFlags::RGBA);
        // No culling: reflections have reversed triangles.
        let desc = Graphics {
            vertex: VERTEX,
            fragment,
            input: vk::PipelineVertexInputStateCreateInfo::default()
                .vertex_binding_descriptions(&bindings)
                .vertex_attribute_descriptions(&attributes),
            samples: self.canvas.samples,
            sample_mask: u32::MAX,
            depth: self.canvas.depth.then_some(vk::CompareOp::LESS_OR_EQUAL),
            colour: Some(blend),
            render_pass: self.render_pass,
        };
        self.pipeline = self.layout.graphics(&desc)?;
        Ok(())
    }
}

impl Drop for Objects {
    fn drop(&mut self) {
        let device = self.vulkan.device();
        // SAFETY: all owned here alone, idle because the callers have waited, and null if never created.
        unsafe {
            device.destroy_framebuffer(self.framebuffer, None);
            device.destroy_render_pass(self.render_pass, None);
        }
    }
}

/// Attachments are reused in every frame, and later commands wait for the stage that writes them.
fn dependencies() -> [vk::SubpassDependency; 1] {
    let stages = vk::PipelineStageFlags::COLOR_ATTACHMENT_OUTPUT
        | vk::PipelineStageFlags::EARLY_FRAGMENT_TESTS
        | vk::PipelineStageFlags::LATE_FRAGMENT_TESTS;
    let writes =
        vk::AccessFlags::COLOR_ATTACHMENT_WRITE | vk::AccessFlags::DEPTH_STENCIL_ATTACHMENT_WRITE;
    let reads =
        vk::AccessFlags::COLOR_ATTACHMENT_READ | vk::AccessFlags::DEPTH_STENCIL_ATTACHMENT_READ;
    [vk::SubpassDependency::default()
        .src_subpass(vk::SUBPASS_EXTERNAL)
        .src_stage_mask(stages)
        .src_access_mask(writes)
        .dst_subpass(0)
        .dst_stage_mask(stages)
        .dst_access_mask(writes | reads)]
}

fn binding<T>(binding: u32, rate: vk::VertexInputRate) -> vk::VertexInputBindingDescription {
    let stride = size_of::<T>() as u32;
    vk::VertexInputBindingDescription { binding, stride, input_rate: rate }
}

/// In the layout that `scene.vert` declares.
fn attributes() -> Vec<vk::VertexInputAttributeDescription> {
    use vk::Format as F;
    let of = |binding, (location, format, offset): (u32, vk::Format, usize)| {
        let offset = offset as u32;
        vk::VertexInputAttributeDescription { location, binding, format, offset }
    };
    let vertex = [
        (0, F::R32G32B32_SFLOAT, offset_of!(Vertex, position)),
        (1, F::R32G32B32_SFLOAT, offset_of!(Vertex, normal)),
        (2, F::R32G32_SFLOAT, offset_of!(Vertex, uv)),
    ];
    let column =
        |i: usize| (3 + i as u32, F::R32G32B32A32_SFLOAT, offset_of!(Instance, model) + 16 * i);
    let surface = [
        (7, F::R32G32B32A32_SFLOAT, offset_of!(Instance, colour)),
        (8, F::R32G32B32A32_SFLOAT, offset_of!(Instance, material)),
    ];
    let instance = (0..4).map(column).chain(surface).map(|attribute| of(1, attribute));
    vertex.into_iter().map(|attribute| of(0, attribute)).chain(instance).collect()
}

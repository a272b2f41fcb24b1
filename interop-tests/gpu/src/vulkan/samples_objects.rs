//! The objects to draw and fetch the samples of one multisample image.

use anyhow::Result;
use gpu_interop::ash::{self, vk};
use gpu_interop::format::Format;
use gpu_interop::headless::Vulkan;
use gpu_interop::vulkan::Image;

use super::shader::{Graphics, Resource, ShaderLayout};
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

/// The buffer and the sampled image.
const BINDINGS: [vk::DescriptorType; 2] =
    [vk::DescriptorType::STORAGE_BUFFER, vk::DescriptorType::COMBINED_IMAGE_SAMPLER];

/// A view, pipelines and descriptors of one multisample image of one level and layer.
#[derive(Debug)]
pub(super) struct SampleObjects {
    vulkan: Vulkan,
    /// Width and height in texels.
    size: (u32, u32),
    view: vk::ImageView,
    sampler: vk::Sampler,
    pub(super) layout: ShaderLayout,
    pub(super) set: vk::DescriptorSet,
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
            layout: ShaderLayout::new(vulkan, STAGES, &BINDINGS, 12, 1)?,
            set: vk::DescriptorSet::null(),
            render_pass: vk::RenderPass::null(),
            framebuffer: vk::Framebuffer::null(),
            write: Vec::new(),
            read: vk::Pipeline::null(),
        };
        made.create_view(image)?;
        let (sampler, image_view) = (made.sampler, made.view);
        let image_layout = vk::ImageLayout::SHADER_READ_ONLY_OPTIMAL;
        let sampled = vk::DescriptorImageInfo { sampler, image_view, image_layout };
        made.set = made.layout.bind(&[Resource::whole(buffer), Resource::Image(sampled)])?;
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
        self.layout.push(command, bytemuck::bytes_of(parameters));
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
            .samples(vk::SampleCountFlags::from_raw(image.desc().samples))
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
        let (fragment, has_colour) = match class(image.desc().format) {
            Class::Float => (&spirv!("samples_write_float.frag")[..], true),
            Class::Uint => (&spirv!("samples_write_uint.frag")[..], true),
            Class::Sint => (&spirv!("samples_write_sint.frag")[..], true),
            Class::Depth => (&spirv!("samples_write_depth.frag")[..], false),
        };
        let written = vk::PipelineColorBlendAttachmentState::default()
            .color_write_mask(vk::ColorComponentFlags::RGBA);
        let samples = image.desc().samples;
        for sample in 0..samples {
            let desc = Graphics {
                vertex: spirv!("samples.vert"),
                fragment,
                input: vk::PipelineVertexInputStateCreateInfo::default(),
                samples,
                sample_mask: 1 << sample,
                depth: (!has_colour).then_some(vk::CompareOp::ALWAYS),
                colour: has_colour.then_some(written),
                render_pass: self.render_pass,
            };
            self.write.push(self.layout.graphics(&desc)?);
        }
        Ok(())
    }

    fn create_reader(&mut self, image: &Image) -> Result<()> {
        let spirv = match class(image.desc().format) {
            Class::Uint => &spirv!("samples_read_uint.comp")[..],
            Class::Sint => &spirv!("samples_read_sint.comp")[..],
            Class::Float | Class::Depth => &spirv!("samples_read_float.comp")[..],
        };
        self.read = self.layout.compute(spirv)?;
        Ok(())
    }
}

impl Drop for SampleObjects {
    fn drop(&mut self) {
        let device = self.vulkan.device();
        // SAFETY: all owned here alone, idle because the callers have waited, and null if never created.
        unsafe {
            device.destroy_framebuffer(self.framebuffer, None);
            device.destroy_render_pass(self.render_pass, None);
            device.destroy_sampler(self.sampler, None);
            device.destroy_image_view(self.view, None);
        }
    }
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

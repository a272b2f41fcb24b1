//! Creating shared resources as wgpu's and Vulkan's at once.

use gpu_interop::ash::{self, vk};
use gpu_interop::error::{Api, Invalid, Missing};
use gpu_interop::format::Aspects;
use gpu_interop::vulkan::{self, BufferOptions, ImageOptions};
use gpu_interop::{BufferDesc, ImageDesc, ImageUsage, Result};
use wgpu::hal::{self, api::Vulkan};

use crate::convert;
use crate::device::not_vulkan;
use crate::interop::Interop;
use crate::shared::{SharedBuffer, SharedTexture};

impl Interop {
    /// Creates a buffer in memory that can be exported.
    ///
    /// The wgpu buffer has those usages of `desc` that wgpu has. Its content is zero if the usage
    /// includes [`TRANSFER_DST`](gpu_interop::BufferUsage::TRANSFER_DST) and the size is a multiple
    /// of 4 bytes; otherwise it is undefined.
    ///
    /// # Errors
    /// Same as [`vulkan::Endpoint::create_buffer`].
    pub fn buffer(&self, desc: &BufferDesc) -> Result<SharedBuffer> {
        Ok(self.wrap(self.endpoint.create_buffer(desc, BufferOptions::default())?))
    }

    /// Creates the wgpu buffer over one that was just created.
    pub(crate) fn wrap(&self, vulkan: vulkan::Buffer) -> SharedBuffer {
        let (keep, desc) = (vulkan.clone(), *vulkan.desc());
        // SAFETY: the callback keeps the buffer until wgpu no longer uses it.
        let raw = unsafe {
            hal::vulkan::Buffer::from_raw_externally_owned(
                vulkan.handle(),
                Box::new(move || drop(keep)),
            )
        };
        let usage = convert::buffer_usages(desc.usage);
        let described = wgpu::BufferDescriptor {
            label: Some("gpu-interop"),
            size: desc.size,
            usage,
            mapped_at_creation: false,
        };
        // SAFETY: the buffer is of this device, as described, and not empty.
        let wgpu = unsafe { self.device.create_buffer_from_hal::<Vulkan>(raw, &described) };
        if usage.contains(wgpu::BufferUsages::COPY_DST) && desc.size.is_multiple_of(4) {
            let mut encoder = self.encoder();
            encoder.clear_buffer(&wgpu, 0, None);
            self.queue.submit([encoder.finish()]);
        }
        SharedBuffer { wgpu, vulkan }
    }

    /// Creates a texture in memory that can be exported.
    ///
    /// `home` is the use in which wgpu has the texture when it is given and when it is taken: one
    /// that `desc.usage` allows, ideally the one that the first commands after `take` need, which
    /// saves a transition. The texture is handed over in `VK_IMAGE_LAYOUT_GENERAL`.
    ///
    /// The wgpu texture has those usages of `desc` that wgpu has. Its content is zero if the usage
    /// includes [`TRANSFER_DST`](ImageUsage::TRANSFER_DST) and the format is not compressed;
    /// otherwise it is undefined. It belongs to wgpu at first.
    ///
    /// For OpenGL, see [`ImageDesc::for_gl`].
    ///
    /// # Errors
    /// [`Invalid`] if `home` is not a single use that `desc.usage` allows; [`Missing`] if wgpu or
    /// the device lacks the format; otherwise same as
    /// [`vulkan::Endpoint::create_image`].
    pub fn texture(&self, desc: &ImageDesc, home: wgpu::TextureUses) -> Result<SharedTexture> {
        let format = self.format(desc)?;
        let needed = hal::vulkan::conv::map_texture_usage(home).as_raw();
        let is_single = home.bits().is_power_of_two();
        if !is_single || needed == 0 || needed & !desc.usage.bits() != 0 {
            let problem = format!("{home:?} is not a single use that {} allows", desc.usage);
            return Err(Invalid::new("home", problem)
                .help("add the use to desc.usage, or choose another home")
                .into());
        }
        let vulkan = self.endpoint.create_image(desc, ImageOptions::default())?;
        let described = convert::texture_descriptor(desc, format);
        let keep = vulkan.clone();
        let hal_desc = hal::TextureDescriptor {
            label: described.label,
            size: described.size,
            mip_level_count: described.mip_level_count,
            sample_count: described.sample_count,
            dimension: described.dimension,
            format,
            usage: home,
            memory_flags: hal::MemoryFlags::empty(),
            view_formats: Vec::new(),
        };
        // SAFETY: nothing is destroyed through the guard.
        let raw_device = unsafe { self.device.as_hal::<Vulkan>() }.ok_or_else(not_vulkan)?;
        // SAFETY: the image was created as described, and the callback keeps it and its memory
        // until wgpu no longer uses it.
        let raw = unsafe {
            raw_device.texture_from_raw(
                vulkan.handle(),
                &hal_desc,
                Some(Box::new(move || drop(keep))),
                hal::vulkan::TextureMemory::External,
            )
        };
        // SAFETY: the image is of this device and as described. It is brought into the layout of
        // `home` before any other use.
        let wgpu = unsafe { self.device.create_texture_from_hal::<Vulkan>(raw, &described, home) };
        let texture = SharedTexture { wgpu, vulkan, home };
        let (encoder, commands) = self.raw_encoder()?;
        // SAFETY: the command buffer is being recorded, outside a render pass, and no other command
        // uses the image yet.
        unsafe { initialize(self.endpoint.device(), commands, &texture) };
        self.queue.submit([encoder.finish(), self.bring_home(std::slice::from_ref(&texture))]);
        Ok(texture)
    }

    /// Returns wgpu's name of the format, if this device has it.
    fn format(&self, desc: &ImageDesc) -> Result<wgpu::TextureFormat> {
        let missing = |what: String| Missing::new(Api::Vulkan, what, "a texture of wgpu");
        // SAFETY: nothing is destroyed through the guard.
        let adapter = unsafe { self.adapter.as_hal::<Vulkan>() }.ok_or_else(not_vulkan)?;
        // The depth formats of wgpu are different ones on different GPUs.
        let format = convert::texture_format(desc.format)
            .filter(|&found| adapter.texture_format_as_raw(found).as_raw() == desc.format.vulkan())
            .ok_or_else(|| missing(format!("the format {} in wgpu", desc.format)))?;
        let lacking = format.required_features() - self.device.features();
        if !lacking.is_empty() {
            return Err(missing(format!("wgpu's {lacking:?}"))
                .help("request the feature with the device")
                .into());
        }
        Ok(format)
    }
}

/// Records the first transition of a texture, to its home, and clears it if it can be cleared.
///
/// # Safety
/// `commands` is being recorded on the texture's device, outside a render pass, and no command that
/// uses the texture is submitted before it.
unsafe fn initialize(device: &ash::Device, commands: vk::CommandBuffer, texture: &SharedTexture) {
    let (image, desc) = (&texture.vulkan, texture.vulkan.desc());
    let range = image.full_range();
    let all = vk::PipelineStageFlags::ALL_COMMANDS;
    let change = |old: vk::ImageLayout, new: vk::ImageLayout| {
        let barrier = vk::ImageMemoryBarrier::default()
            .image(image.handle())
            .subresource_range(range)
            .old_layout(old)
            .new_layout(new)
            .src_access_mask(vk::AccessFlags::MEMORY_WRITE)
            .dst_access_mask(vk::AccessFlags::MEMORY_READ | vk::AccessFlags::MEMORY_WRITE);
        let none = vk::DependencyFlags::empty();
        // SAFETY: the caller's promise; the image has this range.
        unsafe { device.cmd_pipeline_barrier(commands, all, all, none, &[], &[], &[barrier]) };
    };
    let home = texture.home_layout().into();
    if !desc.usage.contains(ImageUsage::TRANSFER_DST) || desc.format.is_compressed() {
        change(vk::ImageLayout::UNDEFINED, home);
        return;
    }
    let copied_to = vk::ImageLayout::TRANSFER_DST_OPTIMAL;
    change(vk::ImageLayout::UNDEFINED, copied_to);
    // SAFETY: the caller's promise; the image is in this layout, may be copied to, and has this
    // range. wgpu's queue has graphics.
    unsafe {
        if desc.format.aspects().contains(Aspects::COLOR) {
            let zero = vk::ClearColorValue::default();
            device.cmd_clear_color_image(commands, image.handle(), copied_to, &zero, &[range]);
        } else {
            let zero = vk::ClearDepthStencilValue::default();
            let image = image.handle();
            device.cmd_clear_depth_stencil_image(commands, image, copied_to, &zero, &[range]);
        }
    }
    change(copied_to, home);
}

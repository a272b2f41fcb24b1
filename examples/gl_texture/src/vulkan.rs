//! Vulkan's side: a command buffer, timestamps, views and samplers.

use std::time::Duration;

use anyhow::Result;
use gpu_interop::ash::{self, vk};
use gpu_interop::headless::Vulkan;
use gpu_interop::vulkan::{Image, SubmitSync};
use interop_gpu::vulkan::{PrivateBuffer, VulkanContext};
use scene::vulkan::ImageView;

/// Maximum number of timestamps per frame.
const STAMPS: u32 = 8;

/// A Vulkan device with what records and times one frame at a time.
pub(crate) struct VulkanRunner {
    pub(crate) gpu: VulkanContext,
    pub(crate) command: vk::CommandBuffer,
    queries: vk::QueryPool,
    stamps: u32,
}

impl VulkanRunner {
    pub(crate) fn new(vulkan: Vulkan) -> Result<Self> {
        let gpu = VulkanContext::new(vulkan)?;
        let command = gpu.command_buffers(1)?[0];
        let info = vk::QueryPoolCreateInfo::default()
            .query_type(vk::QueryType::TIMESTAMP)
            .query_count(STAMPS);
        // SAFETY: a valid device.
        let queries = unsafe { gpu.device().create_query_pool(&info, None) }?;
        Ok(Self { gpu, command, queries, stamps: 0 })
    }

    pub(crate) fn device(&self) -> &ash::Device {
        self.gpu.device()
    }

    pub(crate) fn queue_family(&self) -> u32 {
        self.gpu.vulkan.queue_family()
    }

    /// Begins a frame, after waiting for the previous one.
    pub(crate) fn begin(&mut self) -> Result<vk::CommandBuffer> {
        self.gpu.vulkan.wait_idle()?;
        self.gpu.begin(self.command)?;
        self.stamps = 0;
        // SAFETY: the command buffer is being recorded; the pool has as many queries.
        unsafe { self.device().cmd_reset_query_pool(self.command, self.queries, 0, STAMPS) };
        Ok(self.command)
    }

    /// Records a timestamp after all earlier commands.
    pub(crate) fn stamp(&mut self) {
        debug_assert!(self.stamps < STAMPS);
        // At the bottom of the pipe even for the first: at the top, work of the frame before may still run.
        let stage = vk::PipelineStageFlags::BOTTOM_OF_PIPE;
        // SAFETY: the command buffer is being recorded, and the query was reset in it.
        unsafe {
            self.device().cmd_write_timestamp(self.command, stage, self.queries, self.stamps);
        }
        self.stamps += 1;
    }

    /// Ends the frame and submits it.
    pub(crate) fn submit(&self, part: SubmitSync) -> Result<()> {
        self.gpu.submit(self.command, part)
    }

    /// Waits for the last frame, and returns the times between its timestamps.
    pub(crate) fn times(&self) -> Result<Vec<Duration>> {
        let mut ticks = [0u64; STAMPS as usize];
        let ticks = &mut ticks[..self.stamps as usize];
        let flags = vk::QueryResultFlags::TYPE_64 | vk::QueryResultFlags::WAIT;
        // SAFETY: the frame that writes these queries was submitted.
        unsafe { self.device().get_query_pool_results(self.queries, 0, ticks, flags) }?;
        let bits = self.gpu.vulkan.timestamp_valid_bits();
        let mask = u64::MAX.checked_shr(64 - bits).unwrap_or(u64::MAX);
        let period = f64::from(self.gpu.vulkan.timestamp_period());
        let time = |pair: &[u64]| (pair[1].wrapping_sub(pair[0]) & mask) as f64 * period;
        Ok(ticks.windows(2).map(|pair| Duration::from_nanos(time(pair) as u64)).collect())
    }

    /// Records a barrier and layout transition of `levels` of an image, from the use `from` to the use `to`.
    pub(crate) fn record_transition(
        &self,
        image: vk::Image,
        levels: (u32, u32),
        from: Use,
        to: Use,
    ) {
        let range =
            vk::ImageSubresourceRange { base_mip_level: levels.0, level_count: levels.1, ..COLOUR };
        let barrier = vk::ImageMemoryBarrier::default()
            .image(image)
            .subresource_range(range)
            .old_layout(from.layout)
            .new_layout(to.layout)
            .src_access_mask(from.access)
            .dst_access_mask(to.access)
            .src_queue_family_index(vk::QUEUE_FAMILY_IGNORED)
            .dst_queue_family_index(vk::QUEUE_FAMILY_IGNORED);
        let none = vk::DependencyFlags::empty();
        // SAFETY: the command buffer is being recorded; the callers name live images, levels that these
        // have, and the layouts that they are in.
        unsafe {
            let (from, to) = (from.stage, to.stage);
            let barriers = [barrier];
            self.device().cmd_pipeline_barrier(self.command, from, to, none, &[], &[], &barriers);
        }
    }

    /// Records the generation of all levels of `image` after the first, which was drawn to and is in
    /// `COLOR_ATTACHMENT_OPTIMAL`. Leaves all of it in `TRANSFER_SRC_OPTIMAL`.
    pub(crate) fn record_levels(&self, image: &Image) {
        let (levels, extent) = (image.desc().levels, image.desc().extent);
        self.record_transition(image.handle(), (0, 1), Use::DRAWN, Use::COPIED_FROM);
        if levels > 1 {
            // Their old content is not needed, and its users were done before the first level was drawn.
            let old = Use { layout: vk::ImageLayout::UNDEFINED, ..Use::DRAWN };
            self.record_transition(image.handle(), (1, levels - 1), old, Use::COPIED_TO);
        }
        let size = |level: u32| {
            let side = |texels: u32| (texels >> level).max(1) as i32;
            vk::Offset3D { x: side(extent.width), y: side(extent.height), z: 1 }
        };
        let layers = |mip_level| vk::ImageSubresourceLayers { mip_level, ..LAYERS };
        for level in 1..levels {
            let origin = vk::Offset3D::default();
            let blit = vk::ImageBlit {
                src_subresource: layers(level - 1),
                src_offsets: [origin, size(level - 1)],
                dst_subresource: layers(level),
                dst_offsets: [origin, size(level)],
            };
            let (from, to) = (Use::COPIED_FROM.layout, Use::COPIED_TO.layout);
            let (filter, image_handle) = (vk::Filter::LINEAR, image.handle());
            // SAFETY: the command buffer is being recorded; the levels are in these layouts; Vulkan has
            // every device blit from and to 8-bit colours with a linear filter.
            unsafe {
                let (command, blits) = (self.command, [blit]);
                let device = self.device();
                device.cmd_blit_image(
                    command,
                    image_handle,
                    from,
                    image_handle,
                    to,
                    &blits,
                    filter,
                );
            }
            self.record_transition(image_handle, (level, 1), Use::COPIED_TO, Use::COPIED_FROM);
        }
    }

    /// Records the copy of the first `levels` of an image, in `TRANSFER_SRC_OPTIMAL`, to a buffer.
    pub(crate) fn record_read(
        &self,
        image: vk::Image,
        size: (u32, u32),
        levels: u32,
        to: &PrivateBuffer,
    ) {
        let mut regions = Vec::new();
        let mut offset = 0;
        for level in 0..levels {
            let (width, height) = level_size(size, level);
            regions.push(vk::BufferImageCopy {
                buffer_offset: offset,
                image_subresource: vk::ImageSubresourceLayers { mip_level: level, ..LAYERS },
                image_extent: vk::Extent3D { width, height, depth: 1 },
                ..Default::default()
            });
            offset += u64::from(width) * u64::from(height) * 4;
        }
        let barrier = vk::MemoryBarrier::default()
            .src_access_mask(vk::AccessFlags::TRANSFER_WRITE)
            .dst_access_mask(vk::AccessFlags::HOST_READ);
        let layout = vk::ImageLayout::TRANSFER_SRC_OPTIMAL;
        let (copy, host) = (vk::PipelineStageFlags::TRANSFER, vk::PipelineStageFlags::HOST);
        let none = vk::DependencyFlags::empty();
        // SAFETY: the command buffer is being recorded; the callers' image has these levels, of four bytes
        // per texel, and the buffer has room for them.
        unsafe {
            let (device, command) = (self.device(), self.command);
            device.cmd_copy_image_to_buffer(command, image, layout, to.buffer, &regions);
            device.cmd_pipeline_barrier(command, copy, host, none, &[barrier], &[], &[]);
        }
    }

    /// Creates a host buffer for a number of levels of a picture.
    pub(crate) fn read_buffer(&self, size: (u32, u32), levels: u32) -> Result<PrivateBuffer> {
        let texels = (0..levels).map(|level| level_size(size, level));
        let bytes = texels.map(|(width, height)| u64::from(width) * u64::from(height) * 4).sum();
        PrivateBuffer::host(&self.gpu.vulkan, bytes)
    }

    /// Waits for the frame, and returns the content of such a buffer.
    pub(crate) fn read(&self, buffer: &PrivateBuffer) -> Result<Vec<u8>> {
        self.gpu.vulkan.wait_idle()?;
        let mut data = Vec::new();
        let bytes = usize::try_from(buffer.bytes)?;
        buffer.with_bytes(bytes, |from| data.extend_from_slice(from))?;
        Ok(data)
    }

    /// Creates a view of the first `levels` of a shared image.
    pub(crate) fn view(&self, image: &Image, levels: u32) -> Result<ImageView> {
        // SAFETY: the image is alive, bound, of this device, and has these levels and this format.
        unsafe { ImageView::new(&self.gpu.vulkan, image.handle(), image.format(), levels) }
    }

    /// Creates a sampler with linear filtering between texels and levels, clamped at the edges, and
    /// anisotropic if requested and supported.
    pub(crate) fn sampler(&self, anisotropic: bool) -> Result<Sampler> {
        let vulkan = self.gpu.vulkan.clone();
        let anisotropy = anisotropic && vulkan.core_features().sampler_anisotropy == vk::TRUE;
        let clamp = vk::SamplerAddressMode::CLAMP_TO_EDGE;
        let info = vk::SamplerCreateInfo::default()
            .mag_filter(vk::Filter::LINEAR)
            .min_filter(vk::Filter::LINEAR)
            .mipmap_mode(vk::SamplerMipmapMode::LINEAR)
            .address_mode_u(clamp)
            .address_mode_v(clamp)
            .anisotropy_enable(anisotropy)
            .max_anisotropy(if anisotropy { 8.0 } else { 1.0 })
            .max_lod(vk::LOD_CLAMP_NONE);
        // SAFETY: a valid device; anisotropy is requested only if it was enabled, and every device with
        // it supports 8.
        let handle = unsafe { vulkan.device().create_sampler(&info, None) }?;
        Ok(Sampler { vulkan, handle })
    }
}

impl Drop for VulkanRunner {
    fn drop(&mut self) {
        // A lost device has nothing in flight.
        let _ = self.gpu.vulkan.wait_idle();
        self.gpu.free_command_buffers(&[self.command]);
        // SAFETY: owned here alone, and idle.
        unsafe { self.device().destroy_query_pool(self.queries, None) };
    }
}

/// How commands use an image: layout, stage and access.
#[derive(Clone, Copy)]
pub(crate) struct Use {
    pub(crate) layout: vk::ImageLayout,
    pub(crate) stage: vk::PipelineStageFlags,
    pub(crate) access: vk::AccessFlags,
}

impl Use {
    pub(crate) const DRAWN: Self = Self {
        layout: vk::ImageLayout::COLOR_ATTACHMENT_OPTIMAL,
        stage: vk::PipelineStageFlags::COLOR_ATTACHMENT_OUTPUT,
        access: vk::AccessFlags::COLOR_ATTACHMENT_WRITE,
    };
    pub(crate) const SAMPLED: Self = Self {
        layout: vk::ImageLayout::SHADER_READ_ONLY_OPTIMAL,
        stage: vk::PipelineStageFlags::FRAGMENT_SHADER,
        access: vk::AccessFlags::SHADER_READ,
    };
    pub(crate) const COPIED_FROM: Self = Self {
        layout: vk::ImageLayout::TRANSFER_SRC_OPTIMAL,
        stage: vk::PipelineStageFlags::TRANSFER,
        access: vk::AccessFlags::TRANSFER_READ,
    };
    pub(crate) const COPIED_TO: Self = Self {
        layout: vk::ImageLayout::TRANSFER_DST_OPTIMAL,
        stage: vk::PipelineStageFlags::TRANSFER,
        access: vk::AccessFlags::TRANSFER_WRITE,
    };
}

/// The first level and layer.
const COLOUR: vk::ImageSubresourceRange = vk::ImageSubresourceRange {
    aspect_mask: vk::ImageAspectFlags::COLOR,
    base_mip_level: 0,
    level_count: 1,
    base_array_layer: 0,
    layer_count: 1,
};

pub(crate) const LAYERS: vk::ImageSubresourceLayers = vk::ImageSubresourceLayers {
    aspect_mask: vk::ImageAspectFlags::COLOR,
    mip_level: 0,
    base_array_layer: 0,
    layer_count: 1,
};

/// Width and height of a level.
pub(crate) fn level_size((width, height): (u32, u32), level: u32) -> (u32, u32) {
    ((width >> level).max(1), (height >> level).max(1))
}

/// A sampler, destroyed when dropped. Nothing that uses it may be in flight then.
pub(crate) struct Sampler {
    vulkan: Vulkan,
    pub(crate) handle: vk::Sampler,
}

impl Drop for Sampler {
    fn drop(&mut self) {
        // SAFETY: owned here alone, and not in use.
        unsafe { self.vulkan.device().destroy_sampler(self.handle, None) };
    }
}

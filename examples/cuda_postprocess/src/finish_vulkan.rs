//! Vulkan's last stage.

use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use gpu_interop::ash::vk;
use gpu_interop::format::Format;
use gpu_interop::handoff::{Acquirer, Releaser, Ticket, VulkanCommands};
use gpu_interop::vulkan::{Endpoint, Image, ImageOptions};
use gpu_interop::{ImageDesc, ImageUsage};
use interop_gpu::post_process::{PICTURE, transfer};
use interop_gpu::vulkan::{PrivateBuffer, VulkanContext};
use scene::vulkan::ImageView;

use crate::compute::ComputePass;
use crate::finish::{Finish, FinishTimes};
use crate::host_pages::HostPages;
use crate::source::any_access;
use crate::worker::Worker;

const VIGNETTE: &[u8] = include_bytes!("../../../shaders/vignette.comp.spv");

/// Layouts of the picture when it is handed over, and when it is sampled.
const OUTSIDE: vk::ImageLayout = vk::ImageLayout::GENERAL;
const SAMPLED: vk::ImageLayout = vk::ImageLayout::SHADER_READ_ONLY_OPTIMAL;

/// Adds the vignette with a Vulkan compute shader.
#[derive(Debug)]
pub(crate) struct VulkanFinish {
    // Dropped first: it waits for the device.
    worker: Worker,
    vignette: Vignette,
    ends: Option<(Acquirer<Endpoint>, Releaser<Endpoint>)>,
    copy_on_host: Duration,
    readback: PrivateBuffer,
    framed: Image,
    picture: Rc<Image>,
}

/// The shader with its images.
#[derive(Debug)]
struct Vignette {
    pass: ComputePass,
    _views: [ImageView; 2],
    strength: f32,
    size: (u32, u32),
}

impl VulkanFinish {
    /// Creates the stage for the shared `picture`, which is handed over by `ends`.
    pub(crate) fn shared(
        gpu: &Rc<VulkanContext>,
        picture: Rc<Image>,
        ends: (Acquirer<Endpoint>, Releaser<Endpoint>),
        strength: f32,
    ) -> Result<Self> {
        Self::new(gpu, picture, Some(ends), strength)
    }

    /// Creates the stage for pictures that are uploaded.
    pub(crate) fn copied(
        gpu: &Rc<VulkanContext>,
        (width, height): (u32, u32),
        strength: f32,
    ) -> Result<Self> {
        let usage = ImageUsage::TRANSFER_DST | ImageUsage::SAMPLED;
        let desc = ImageDesc::d2(PICTURE, width, height, usage);
        let picture = gpu.endpoint.create_image(&desc, ImageOptions::default())?;
        Self::new(gpu, Rc::new(picture), None, strength)
    }

    fn new(
        gpu: &Rc<VulkanContext>,
        picture: Rc<Image>,
        ends: Option<(Acquirer<Endpoint>, Releaser<Endpoint>)>,
        strength: f32,
    ) -> Result<Self> {
        let extent = picture.desc().extent;
        let usage = ImageUsage::TRANSFER_SRC | ImageUsage::STORAGE;
        let desc = ImageDesc::d2(Format::Rgba8Unorm, extent.width, extent.height, usage);
        let framed = gpu.endpoint.create_image(&desc, ImageOptions::default())?;
        gpu.run(|command| {
            gpu.record_layout(command, &framed, (vk::ImageLayout::UNDEFINED, OUTSIDE));
            Ok(())
        })?;
        let bytes = u64::from(extent.width) * u64::from(extent.height) * 4;
        Ok(Self {
            worker: Worker::new(gpu)?,
            vignette: Vignette::new(gpu, &picture, &framed, strength)?,
            ends,
            copy_on_host: Duration::ZERO,
            readback: PrivateBuffer::host(&gpu.vulkan, bytes)?,
            framed,
            picture,
        })
    }
}

impl Vignette {
    fn new(gpu: &VulkanContext, picture: &Image, framed: &Image, strength: f32) -> Result<Self> {
        let view = |image: &Image| {
            // SAFETY: the image is of this device and has this format; the stage keeps it longer than the view.
            unsafe { ImageView::new(&gpu.vulkan, image.handle(), image.format(), 1) }
        };
        let views = [view(picture)?, view(framed)?];
        let sampled = vk::DescriptorType::COMBINED_IMAGE_SAMPLER;
        let stored = vk::DescriptorType::STORAGE_IMAGE;
        let images = [(sampled, views[0].handle, SAMPLED), (stored, views[1].handle, OUTSIDE)];
        let pass = ComputePass::new(&gpu.vulkan, VIGNETTE, &images, 4)?;
        let extent = framed.desc().extent;
        let size = (extent.width, extent.height);
        Ok(Self { pass, _views: views, strength, size })
    }

    fn record(&self, command: vk::CommandBuffer) {
        let strength = [self.strength];
        self.pass.record(command, bytemuck::bytes_of(&strength), self.size);
    }
}

impl Finish for VulkanFinish {
    fn api(&self) -> &'static str {
        "vulkan"
    }

    fn frame_shared(&mut self, ticket: Ticket) -> Result<Ticket> {
        let (acquirer, releaser) =
            self.ends.as_mut().context("this stage has no shared picture")?;
        let (picture, vignette) = (&*self.picture, &self.vignette);
        let family = self.worker.gpu.vulkan.queue_family();
        self.worker.submit(|recording| {
            let command = recording.command;
            let found = [any_access(picture, OUTSIDE, SAMPLED)];
            // SAFETY: the command buffer is being recorded for a queue of that family; the
            // returned `sync` is added to its submit; the picture lives until the work was waited for.
            let sync = acquirer
                .acquire(ticket, unsafe { VulkanCommands::record(command, family, &found) })?;
            recording.sync.merge(sync);
            recording.stamp();
            // A shared picture needs no upload.
            recording.stamp();
            vignette.record(command);
            recording.stamp();
            let left = [any_access(picture, SAMPLED, OUTSIDE)];
            // SAFETY: as above; this queue has the picture, in this layout.
            let (ticket, sync) =
                releaser.release(unsafe { VulkanCommands::record(command, family, &left) })?;
            recording.sync.merge(sync);
            Ok(ticket)
        })
    }

    fn frame_copied(&mut self, pages: &mut HostPages) -> Result<()> {
        self.copy_on_host = pages.pass_to_vulkan()?;
        let (picture, vignette) = (&*self.picture, &self.vignette);
        let (gpu, buffer) = (self.worker.gpu.clone(), pages.buffer()?);
        self.worker.submit(|recording| {
            let command = recording.command;
            let copied = vk::ImageLayout::TRANSFER_DST_OPTIMAL;
            gpu.record_layout(command, picture, (vk::ImageLayout::UNDEFINED, copied));
            recording.stamp();
            let region = [transfer::region(picture, 0)];
            // SAFETY: the command buffer is being recorded; the buffer has all of the picture, which
            // is in this layout; both live until the work was waited for.
            unsafe {
                let (device, to) = (gpu.device(), picture.handle());
                device.cmd_copy_buffer_to_image(command, buffer, to, copied, &region);
            }
            gpu.record_layout(command, picture, (copied, SAMPLED));
            recording.stamp();
            vignette.record(command);
            recording.stamp();
            Ok(())
        })
    }

    fn wait(&mut self) -> Result<()> {
        self.worker.wait()
    }

    fn times(&mut self) -> Result<FinishTimes> {
        let [upload, vignette] = self.worker.times()?;
        Ok(FinishTimes { copy_on_host: self.copy_on_host, upload, vignette })
    }

    fn read(&mut self) -> Result<Vec<u8>> {
        let (gpu, framed) = (self.worker.gpu.clone(), &self.framed);
        gpu.run(|command| {
            gpu.record_layout(command, framed, (OUTSIDE, OUTSIDE));
            let region = [transfer::region(framed, 0)];
            // SAFETY: the command buffer is being recorded; the buffer has room for all of the
            // picture, which is in this layout; `run` waits.
            unsafe {
                let (device, from, to) = (gpu.device(), framed.handle(), self.readback.buffer);
                device.cmd_copy_image_to_buffer(command, from, OUTSIDE, to, &region);
            }
            record_host_read(&gpu, command);
            Ok(())
        })?;
        let mut bytes = vec![0; usize::try_from(self.readback.bytes)?];
        self.readback.with_bytes(bytes.len(), |from| bytes.copy_from_slice(from))?;
        Ok(bytes)
    }
}

/// Makes a copy visible to the host.
pub(crate) fn record_host_read(gpu: &VulkanContext, command: vk::CommandBuffer) {
    let barrier = vk::MemoryBarrier::default()
        .src_access_mask(vk::AccessFlags::TRANSFER_WRITE)
        .dst_access_mask(vk::AccessFlags::HOST_READ);
    let (copies, host) = (vk::PipelineStageFlags::TRANSFER, vk::PipelineStageFlags::HOST);
    let none = vk::DependencyFlags::empty();
    // SAFETY: the command buffer is being recorded, outside of a render pass.
    unsafe {
        gpu.device().cmd_pipeline_barrier(command, copies, host, none, &[barrier], &[], &[]);
    }
}

//! Fills and reads every part of an image, with layout transitions and ownership transfers.

use anyhow::{Context, Result, bail};
use gpu_interop::ash::vk;
use gpu_interop::vulkan::{Image, ImageAccess, SubmitSync};

use super::copies::ImageStaging;
use super::samples::Samples;
use super::{VulkanContext, record_host_barrier};
use crate::image::Part;

/// A host-visible buffer with room for every part of an image, and what moves them: copies
/// ([`ImageStaging`]) or, for a multisample image, shaders.
#[derive(Debug)]
pub struct ImageIo(Kind);

#[derive(Debug)]
enum Kind {
    Copies(ImageStaging),
    Samples(Box<Samples>),
}

impl ImageIo {
    /// Allocates room for all of `image`.
    ///
    /// # Errors
    /// For a multisample image of depth and stencil, which no shader can write, and if the driver
    /// is out of memory.
    pub fn new(gpu: &VulkanContext, image: &Image) -> Result<Self> {
        Ok(Self(if image.desc().samples == 1 {
            Kind::Copies(ImageStaging::new(gpu, image.desc())?)
        } else {
            Kind::Samples(Box::new(Samples::new(gpu, image)?))
        }))
    }

    /// The same for a plain image of one aspect that is filled by drawing instead of by copies. It can't be
    /// downloaded.
    ///
    /// # Errors
    /// For an image that is not plain, and if the driver is out of memory.
    pub fn drawing(gpu: &VulkanContext, image: &Image) -> Result<Self> {
        Ok(Self(Kind::Samples(Box::new(Samples::new(gpu, image)?))))
    }

    /// Fills the buffer with the parts' content for `seed`.
    ///
    /// # Errors
    /// If the driver fails to map.
    pub fn fill(&self, seed: u32) -> Result<()> {
        match &self.0 {
            Kind::Copies(copies) => copies.fill(seed),
            Kind::Samples(samples) => samples.fill(seed),
        }
    }

    /// Overwrites the buffer, so that a download that did not happen is detected.
    ///
    /// # Errors
    /// If the driver fails to map.
    pub fn wipe(&self) -> Result<()> {
        match &self.0 {
            Kind::Copies(copies) => copies.wipe(),
            Kind::Samples(samples) => samples.wipe(),
        }
    }

    /// Checks that the buffer holds the parts' content for `seed`.
    ///
    /// # Errors
    /// With the first texel that differs.
    pub fn check(&self, seed: u32) -> Result<()> {
        match &self.0 {
            Kind::Copies(copies) => copies.check(seed),
            Kind::Samples(samples) => samples.check(seed),
        }
    }

    /// Returns the content of the buffer, part by part.
    ///
    /// # Errors
    /// If shaders move the parts, and if the driver fails to map.
    pub fn read(&self) -> Result<Vec<(Part, Vec<u8>)>> {
        match &self.0 {
            Kind::Copies(copies) => copies.read(),
            Kind::Samples(_) => bail!("samples can only be checked, not read"),
        }
    }

    /// The layout that an upload needs, and leaves the image in.
    pub fn upload_layout(&self) -> vk::ImageLayout {
        match &self.0 {
            Kind::Copies(_) => vk::ImageLayout::TRANSFER_DST_OPTIMAL,
            Kind::Samples(samples) => samples.attachment_layout(),
        }
    }

    /// The layout that a download needs, and leaves the image in.
    pub fn download_layout(&self) -> vk::ImageLayout {
        match &self.0 {
            Kind::Copies(_) => vk::ImageLayout::TRANSFER_SRC_OPTIMAL,
            Kind::Samples(_) => vk::ImageLayout::SHADER_READ_ONLY_OPTIMAL,
        }
    }

    /// The access of an upload to `image`, for a release in layout `new`.
    pub fn uploaded<'a>(&self, image: &'a Image, new: vk::ImageLayout) -> ImageAccess<'a> {
        match &self.0 {
            Kind::Copies(_) => ImageAccess::transfer(image).with_layouts(self.upload_layout(), new),
            Kind::Samples(_) => {
                ImageAccess::attachment(image).with_layouts(self.upload_layout(), new)
            }
        }
    }

    /// The access of a download from `image`, for an acquire from layout `old`.
    pub fn downloadable<'a>(&self, image: &'a Image, old: vk::ImageLayout) -> ImageAccess<'a> {
        match &self.0 {
            Kind::Copies(_) => {
                ImageAccess::transfer(image).with_layouts(old, self.download_layout())
            }
            Kind::Samples(_) => {
                ImageAccess::sampled(image).with_layouts(old, self.download_layout())
            }
        }
    }

    /// Records the upload of every part to `image`, which is in the [`upload_layout`](Self::upload_layout).
    pub fn record_upload(&self, gpu: &VulkanContext, command: vk::CommandBuffer, image: &Image) {
        match &self.0 {
            Kind::Copies(copies) => copies.record_upload(gpu, command, image.handle()),
            Kind::Samples(samples) => samples.record_upload(gpu, command),
        }
    }

    /// Records the download of every part from `image`, which is in the
    /// [`download_layout`](Self::download_layout).
    pub fn record_download(&self, gpu: &VulkanContext, command: vk::CommandBuffer, image: &Image) {
        match &self.0 {
            Kind::Copies(copies) => copies.record_download(gpu, command, image.handle()),
            Kind::Samples(samples) => {
                samples.record_download(command);
                record_host_barrier(gpu.device(), command);
            }
        }
    }
}

impl VulkanContext {
    /// Records commands by `record`, submits them with the waits and signals that it adds, and waits.
    ///
    /// # Errors
    /// Those of `record`, and if the driver fails.
    pub fn run_with<T>(
        &self,
        record: impl FnOnce(vk::CommandBuffer, &mut SubmitSync) -> Result<T>,
    ) -> Result<T> {
        let command = self.objects.one_shot;
        self.begin(command)?;
        let mut part = SubmitSync::default();
        let made = match record(command, &mut part) {
            Ok(made) => made,
            Err(error) => {
                // SAFETY: the command buffer is being recorded; it is never submitted.
                unsafe { self.device().end_command_buffer(command) }?;
                return Err(error);
            }
        };
        self.submit(command, part)?;
        self.vulkan.wait_idle()?;
        Ok(made)
    }

    /// Records the transition of all of `image` from layout `old` to `new`, between all earlier and all later
    /// commands.
    pub fn record_layout(
        &self,
        command: vk::CommandBuffer,
        image: &Image,
        (old, new): (vk::ImageLayout, vk::ImageLayout),
    ) {
        let all = vk::PipelineStageFlags::ALL_COMMANDS;
        let any = vk::AccessFlags::MEMORY_READ | vk::AccessFlags::MEMORY_WRITE;
        let barrier = vk::ImageMemoryBarrier::default()
            .src_access_mask(any)
            .dst_access_mask(any)
            .old_layout(old)
            .new_layout(new)
            .src_queue_family_index(vk::QUEUE_FAMILY_IGNORED)
            .dst_queue_family_index(vk::QUEUE_FAMILY_IGNORED)
            .image(image.handle())
            .subresource_range(image.full_range());
        // SAFETY: the command buffer is being recorded, outside a render pass, and the image lives
        // until the callers have waited.
        unsafe {
            let none = vk::DependencyFlags::empty();
            self.device().cmd_pipeline_barrier(command, all, all, none, &[], &[], &[barrier]);
        }
    }

    /// Fills every part of `image` by `seed`, and waits. It is in layout `old` and is
    /// left in `new`.
    ///
    /// # Errors
    /// If the driver fails.
    pub fn fill_image(
        &self,
        image: &Image,
        seed: u32,
        (old, new): (vk::ImageLayout, vk::ImageLayout),
    ) -> Result<()> {
        let staging = ImageIo::new(self, image)?;
        staging.fill(seed)?;
        self.run(|command| {
            let layout = staging.upload_layout();
            self.record_layout(command, image, (old, layout));
            staging.record_upload(self, command, image);
            self.record_layout(command, image, (layout, new));
            // For a host that maps a linear image.
            record_host_barrier(self.device(), command);
            Ok(())
        })
    }

    /// Checks that every part of `image` holds the content for `seed`. It is in
    /// `layout`, and is left in it.
    ///
    /// # Errors
    /// With the first texel that differs, and if the driver fails.
    pub fn check_image(&self, image: &Image, seed: u32, layout: vk::ImageLayout) -> Result<()> {
        let staging = ImageIo::new(self, image)?;
        staging.wipe()?;
        self.run(|command| {
            self.record_layout(command, image, (layout, staging.download_layout()));
            staging.record_download(self, command, image);
            self.record_layout(command, image, (staging.download_layout(), layout));
            Ok(())
        })?;
        staging.check(seed).with_context(|| format!("{:?}", image.desc()))
    }
}

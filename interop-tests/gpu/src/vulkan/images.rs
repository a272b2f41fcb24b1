//! Images: every part filled and read, layout transitions, ownership.

use anyhow::{Context, Result, bail};
use gpu_interop::ash::vk;
use gpu_interop::vulkan::{Image, ImageAccess, SubmitSync};

use super::copies::ImageStaging;
use super::samples::Samples;
use super::{VulkanContext, record_host_barrier};
use crate::image::Part;

/// A host-visible buffer with room for every part of an image, and what moves them: copies
/// ([`ImageStaging`]), or, for a multisample image, shaders.
#[derive(Debug)]
pub struct ImageIo(Kind);

#[derive(Debug)]
enum Kind {
    Copies(ImageStaging),
    Samples(Box<Samples>),
}

impl ImageIo {
    /// Room for all of `image`.
    ///
    /// # Errors
    /// For a multisample image of depth and stencil, which no shader can write, and where the driver
    /// is out of memory.
    pub fn new(gpu: &VulkanContext, image: &Image) -> Result<Self> {
        Ok(Self(if image.desc().samples == 1 {
            Kind::Copies(ImageStaging::new(gpu, image.desc())?)
        } else {
            Kind::Samples(Box::new(Samples::new(gpu, image)?))
        }))
    }

    /// The same for a plain image of one aspect, which shaders fill, though it could be copied to: a
    /// drawing. It is not downloaded so.
    ///
    /// # Errors
    /// For an image that is not plain, and where the driver is out of memory.
    pub fn drawing(gpu: &VulkanContext, image: &Image) -> Result<Self> {
        Ok(Self(Kind::Samples(Box::new(Samples::new(gpu, image)?))))
    }

    /// Fills the buffer with what the parts hold by `seed`.
    ///
    /// # Errors
    /// Where the driver refuses to map.
    pub fn fill(&self, seed: u32) -> Result<()> {
        match &self.0 {
            Kind::Copies(copies) => copies.fill(seed),
            Kind::Samples(samples) => samples.fill(seed),
        }
    }

    /// Overwrites the buffer, so that a download that didn't happen shows.
    ///
    /// # Errors
    /// Where the driver refuses to map.
    pub fn wipe(&self) -> Result<()> {
        match &self.0 {
            Kind::Copies(copies) => copies.wipe(),
            Kind::Samples(samples) => samples.wipe(),
        }
    }

    /// Checks that the buffer holds what the parts hold by `seed`.
    ///
    /// # Errors
    /// With the first texel that differs.
    pub fn check(&self, seed: u32) -> Result<()> {
        match &self.0 {
            Kind::Copies(copies) => copies.check(seed),
            Kind::Samples(samples) => samples.check(seed),
        }
    }

    /// What the buffer holds, part by part.
    ///
    /// # Errors
    /// For what shaders move, and where the driver refuses to map.
    pub fn read(&self) -> Result<Vec<(Part, Vec<u8>)>> {
        match &self.0 {
            Kind::Copies(copies) => copies.read(),
            Kind::Samples(_) => bail!("samples are only checked"),
        }
    }

    /// The layout that an upload wants, and leaves the image in.
    pub fn upload_layout(&self) -> vk::ImageLayout {
        match &self.0 {
            Kind::Copies(_) => vk::ImageLayout::TRANSFER_DST_OPTIMAL,
            Kind::Samples(samples) => samples.attachment_layout(),
        }
    }

    /// The layout that a download wants, and leaves the image in.
    pub fn download_layout(&self) -> vk::ImageLayout {
        match &self.0 {
            Kind::Copies(_) => vk::ImageLayout::TRANSFER_SRC_OPTIMAL,
            Kind::Samples(_) => vk::ImageLayout::SHADER_READ_ONLY_OPTIMAL,
        }
    }

    /// `image` after an upload, as it is released to who goes on from `new`.
    pub fn uploaded<'a>(&self, image: &'a Image, new: vk::ImageLayout) -> ImageAccess<'a> {
        match &self.0 {
            Kind::Copies(_) => ImageAccess::transfer(image, self.upload_layout(), new),
            Kind::Samples(_) => ImageAccess::attachment(image, self.upload_layout(), new),
        }
    }

    /// `image` before a download, as it is acquired from who left it in `old`.
    pub fn downloadable<'a>(&self, image: &'a Image, old: vk::ImageLayout) -> ImageAccess<'a> {
        match &self.0 {
            Kind::Copies(_) => ImageAccess::transfer(image, old, self.download_layout()),
            Kind::Samples(_) => ImageAccess::sampled(image, old, self.download_layout()),
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
                samples.record_download(gpu, command);
                record_host_barrier(gpu.device(), command);
            }
        }
    }
}

impl VulkanContext {
    /// Records by `record`, submits with what it adds to the part, and waits.
    ///
    /// # Errors
    /// What `record` returns, and where the driver refuses.
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
        self.submit(command, &part)?;
        self.vulkan.wait_idle()?;
        Ok(made)
    }

    /// Records that all of `image` goes from layout `old` to `new`, after all that was recorded and
    /// before all that follows.
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
    /// Where the driver refuses.
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
            // For who maps a linear image.
            record_host_barrier(self.device(), command);
            Ok(())
        })
    }

    /// Checks that every part of `image` holds what `seed` fills it with. It is in
    /// `layout`, and is left in it.
    ///
    /// # Errors
    /// With the first texel that differs, and where the driver refuses.
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

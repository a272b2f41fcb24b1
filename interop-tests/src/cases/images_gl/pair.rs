//! A Vulkan image and OpenGL's texture of it, handed from one to the other and back.

use anyhow::{Context, Result};
use gpu_interop::ImageDesc;
use gpu_interop::ash::vk;
use gpu_interop::capabilities::SyncMethod;
use gpu_interop::desc::ImageLayout;
use gpu_interop::gl::{self, Texture};
use gpu_interop::handoff::{self, Handoff, HandoffOptions, TextureAccess, Ticket, VulkanCommands};
use gpu_interop::peer::widest_for_gl;
use gpu_interop::vulkan::{self, Image, ImageAccess, ImageOptions};

pub(crate) use crate::cases::images_vulkan::USAGE;
use crate::harness::TestGpu;
use interop_gpu::gl::GlContext;
use interop_gpu::image::Part;
use interop_gpu::vulkan::{ImageIo, VulkanContext};

/// The image to create for sharing `desc` with OpenGL.
pub(crate) fn widest_usage(test_gpu: &TestGpu, desc: &ImageDesc) -> Result<ImageDesc> {
    Ok(widest_for_gl(&test_gpu.vulkan().endpoint, desc)?)
}

/// An image, its texture, and a handoff each way. The host waits only as the handoffs and checks require.
pub(crate) struct Pair<'a> {
    pub(crate) vulkan: &'a VulkanContext,
    pub(crate) gl: &'a GlContext,
    pub(crate) texture: Texture,
    pub(crate) image: Image,
    to_gl: Handoff<vulkan::Endpoint, gl::Endpoint>,
    to_vulkan: Handoff<gl::Endpoint, vulkan::Endpoint>,
    command: vk::CommandBuffer,
    /// What the last submitted command buffer uses.
    in_use: Option<ImageIo>,
}

impl<'a> Pair<'a> {
    /// A new image, imported, with handoffs by the best method.
    pub(crate) fn new(test_gpu: &'a TestGpu, desc: &ImageDesc) -> Result<Self> {
        Self::with(test_gpu, desc, HandoffOptions::default())
    }

    /// A new image, imported, with these handoffs.
    pub(crate) fn with(
        test_gpu: &'a TestGpu,
        desc: &ImageDesc,
        options: HandoffOptions,
    ) -> Result<Self> {
        let image = test_gpu.vulkan().endpoint.create_image(desc, ImageOptions::default())?;
        let texture = test_gpu.gl()?.endpoint.import_image(image.export()?)?;
        Self::of(test_gpu, image, texture, options)
    }

    /// An image and its texture.
    pub(crate) fn of(
        test_gpu: &'a TestGpu,
        image: Image,
        texture: Texture,
        options: HandoffOptions,
    ) -> Result<Self> {
        let (vulkan, gl) = (test_gpu.vulkan(), test_gpu.gl()?);
        let to_gl = handoff::open(&vulkan.endpoint, &vulkan.endpoint, &gl.endpoint, options)?;
        let to_vulkan = handoff::open(&vulkan.endpoint, &gl.endpoint, &vulkan.endpoint, options)?;
        let command = vulkan.command_buffers(1)?[0];
        Ok(Self { vulkan, gl, texture, image, to_gl, to_vulkan, command, in_use: None })
    }

    /// How the handoffs are synchronised, there and back.
    pub(crate) fn methods(&self) -> [SyncMethod; 2] {
        [self.to_gl.plan.method, self.to_vulkan.plan.method]
    }

    /// Vulkan, which owns the image, fills it by `seed`, whatever its content, and hands it to OpenGL in
    /// `layout`.
    pub(crate) fn vulkan_fills(&mut self, seed: u32, layout: ImageLayout) -> Result<()> {
        self.vulkan_fills_as(seed, layout, layout)
    }

    /// The same, but OpenGL acquires the image as one in `acquired`.
    pub(crate) fn vulkan_fills_as(
        &mut self,
        seed: u32,
        layout: ImageLayout,
        acquired: ImageLayout,
    ) -> Result<()> {
        self.vulkan_uploads(ImageIo::new(self.vulkan, &self.image)?, seed, layout, acquired)
    }

    /// Vulkan, which owns the image, a plain one of one aspect, draws the content for `seed`, and hands it to
    /// OpenGL in `layout`.
    pub(crate) fn vulkan_draws(&mut self, seed: u32, layout: ImageLayout) -> Result<()> {
        self.vulkan_uploads(ImageIo::drawing(self.vulkan, &self.image)?, seed, layout, layout)
    }

    fn vulkan_uploads(
        &mut self,
        io: ImageIo,
        seed: u32,
        layout: ImageLayout,
        acquired: ImageLayout,
    ) -> Result<()> {
        io.fill(seed)?;
        self.wait_idle()?;
        let (gpu, image, command) = (self.vulkan, &self.image, self.command);
        gpu.begin(command)?;
        gpu.record_layout(command, image, (vk::ImageLayout::UNDEFINED, io.upload_layout()));
        io.record_upload(gpu, command, image);
        let used = io.uploaded(image, layout.into());
        let ticket = release(gpu, command, &mut self.to_gl, &[used])?;
        self.in_use = Some(io);
        self.gl_acquires(ticket, acquired)
    }

    /// Vulkan, which owns the image in layout `old`, hands it to OpenGL unchanged, in `layout`.
    pub(crate) fn vulkan_releases(
        &mut self,
        old: vk::ImageLayout,
        layout: ImageLayout,
    ) -> Result<()> {
        self.vulkan_releases_as(old, layout, layout)
    }

    /// The same, but OpenGL acquires the image as one in `acquired`.
    pub(crate) fn vulkan_releases_as(
        &mut self,
        old: vk::ImageLayout,
        layout: ImageLayout,
        acquired: ImageLayout,
    ) -> Result<()> {
        self.wait_idle()?;
        self.vulkan.begin(self.command)?;
        let used = ImageAccess::transfer(&self.image).with_layouts(old, layout);
        let ticket = release(self.vulkan, self.command, &mut self.to_gl, &[used])?;
        self.gl_acquires(ticket, acquired)
    }

    fn gl_acquires(&mut self, ticket: Ticket, layout: ImageLayout) -> Result<()> {
        Ok(self
            .to_gl
            .acquire
            .acquire(ticket, &[TextureAccess::from(self.texture.in_layout(layout))])?)
    }

    /// OpenGL, which owns the image, hands it to Vulkan in `layout`, which checks the content for `seed`. Returns
    /// the layout that the image is left in.
    pub(crate) fn vulkan_checks(
        &mut self,
        seed: u32,
        layout: ImageLayout,
    ) -> Result<vk::ImageLayout> {
        let ticket = self.gl_releases(layout)?;
        self.vulkan_checks_after(ticket, seed, layout)
    }

    /// OpenGL, which owns the image, releases it in `layout`.
    pub(crate) fn gl_releases(&mut self, layout: ImageLayout) -> Result<Ticket> {
        Ok(self
            .to_vulkan
            .release
            .release(&[TextureAccess::from(self.texture.in_layout(layout))])?
            .0)
    }

    /// Vulkan acquires the image from the release of `ticket`, and checks it.
    pub(crate) fn vulkan_checks_after(
        &mut self,
        ticket: Ticket,
        seed: u32,
        layout: ImageLayout,
    ) -> Result<vk::ImageLayout> {
        let io = self.vulkan_downloads(ticket, layout)?;
        io.check(seed).context("Vulkan reads")?;
        Ok(io.download_layout())
    }

    /// OpenGL, which owns the image, of one sample, hands it to Vulkan in `layout`, which reads it.
    pub(crate) fn vulkan_reads(&mut self, layout: ImageLayout) -> Result<Vec<(Part, Vec<u8>)>> {
        let ticket = self.gl_releases(layout)?;
        self.vulkan_downloads(ticket, layout)?.read()
    }

    fn vulkan_downloads(&mut self, ticket: Ticket, layout: ImageLayout) -> Result<ImageIo> {
        let io = ImageIo::new(self.vulkan, &self.image)?;
        io.wipe()?;
        let (gpu, image, wanted) = (self.vulkan, &self.image, io.download_layout());
        let released = layout.into();
        // The validation layer 1.3.239 ignores an acquire whose layouts are equal (with
        // synchronization2, this is not a transition) and assumes the layout before the release. So it is
        // acquired in another layout first.
        let acquired = if released == wanted { vk::ImageLayout::GENERAL } else { wanted };
        let used = io.downloadable(image, released).with_new_layout(acquired);
        gpu.vulkan.wait_idle()?;
        acquire(gpu, self.command, &mut self.to_vulkan, ticket, &[used], |command| {
            if acquired != wanted {
                gpu.record_layout(command, image, (acquired, wanted));
            }
            io.record_download(gpu, command, image);
        })?;
        self.wait_idle()?;
        Ok(io)
    }

    /// OpenGL hands the image to Vulkan in `layout`, which transitions it to `new`.
    pub(crate) fn vulkan_acquires(
        &mut self,
        layout: ImageLayout,
        new: vk::ImageLayout,
    ) -> Result<()> {
        let ticket = self.gl_releases(layout)?;
        let used = ImageAccess::transfer(&self.image).with_layouts(layout, new);
        self.vulkan.vulkan.wait_idle()?;
        acquire(self.vulkan, self.command, &mut self.to_vulkan, ticket, &[used], |_| ())
    }

    /// OpenGL reads and samples the content for `seed`.
    pub(crate) fn gl_checks(&self, seed: u32) -> Result<()> {
        if self.image.desc().samples == 1 {
            self.gl.check_texture(&self.texture, seed).context("OpenGL reads")?;
        }
        if self.image.desc().format.is_compressed() {
            // Drivers decode blocks differently; their bytes were compared.
            return Ok(());
        }
        self.gl.sample_texture(&self.texture, seed).context("OpenGL samples")
    }

    /// Waits for all work of Vulkan.
    pub(crate) fn wait_idle(&mut self) -> Result<()> {
        self.vulkan.vulkan.wait_idle()?;
        self.in_use = None;
        Ok(())
    }
}

impl Drop for Pair<'_> {
    fn drop(&mut self) {
        self.gl.finish();
        // A lost device has nothing in flight.
        let _ = self.vulkan.vulkan.wait_idle();
        self.vulkan.free_command_buffers(&[self.command]);
    }
}

/// Records the release after what `command` contains, and submits.
fn release(
    gpu: &VulkanContext,
    command: vk::CommandBuffer,
    handoff: &mut Handoff<vulkan::Endpoint, gl::Endpoint>,
    used: &[ImageAccess<'_>; 1],
) -> Result<Ticket> {
    let family = gpu.vulkan.queue_family();
    // SAFETY: the command buffer is being recorded for a queue of that family, which owns the image; it is in
    // the layout that the callers name, and lives until `Pair` has waited.
    let commands = unsafe { VulkanCommands::record(command, family, used) };
    let (ticket, sync) = handoff.release.release(commands)?;
    gpu.submit(command, sync)?;
    Ok(ticket)
}

/// Records the acquire and `after`, and submits. No submitted work uses `command`.
fn acquire(
    gpu: &VulkanContext,
    command: vk::CommandBuffer,
    handoff: &mut Handoff<gl::Endpoint, vulkan::Endpoint>,
    ticket: Ticket,
    used: &[ImageAccess<'_>; 1],
    after: impl FnOnce(vk::CommandBuffer),
) -> Result<()> {
    let family = gpu.vulkan.queue_family();
    gpu.begin(command)?;
    // SAFETY: as above; OpenGL has released the image in this layout.
    let commands = unsafe { VulkanCommands::record(command, family, used) };
    let sync = handoff.acquire.acquire(ticket, commands)?;
    after(command);
    gpu.submit(command, sync)
}

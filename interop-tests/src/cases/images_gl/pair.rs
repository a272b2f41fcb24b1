//! An image of Vulkan's and OpenGL's texture of it, handed there and back.

use anyhow::{Context, Result};
use gpu_interop::ImageDesc;
use gpu_interop::ash::vk;
use gpu_interop::desc::ImageLayout;
use gpu_interop::gl::{self, Texture};
use gpu_interop::handoff::{self, Handoff, HandoffOptions, TextureAccess, Ticket, VulkanCommands};
use gpu_interop::peer::widest_for_gl;
use gpu_interop::vulkan::{self, Image, ImageAccess, ImageOptions};
use gpu_interop::{ImageUsage, capabilities::SyncMethod};

use crate::harness::TestGpu;
use interop_gpu::gl::GlContext;
use interop_gpu::image::Part;
use interop_gpu::vulkan::{ImageIo, VulkanContext};

/// What every image of these cases is for.
pub(crate) const USAGE: ImageUsage =
    ImageUsage::TRANSFER_SRC.union(ImageUsage::TRANSFER_DST).union(ImageUsage::SAMPLED);

/// The image to create for sharing `desc` with OpenGL.
pub(crate) fn widest_usage(machine: &TestGpu, desc: &ImageDesc) -> Result<ImageDesc> {
    Ok(widest_for_gl(&machine.vulkan().endpoint, desc)?)
}

/// The layout of Vulkan's that OpenGL calls `layout`.
pub(crate) fn vulkan_layout(layout: ImageLayout) -> vk::ImageLayout {
    layout.into()
}

/// An image, its texture, and a handoff each way. Nobody waits on the host for more than the handoffs
/// and the checks want.
pub(crate) struct Pair<'a> {
    pub(crate) vulkan: &'a VulkanContext,
    pub(crate) gl: &'a GlContext,
    pub(crate) texture: Texture,
    pub(crate) image: Image,
    to_gl: Handoff<vulkan::Endpoint, gl::Endpoint>,
    to_vulkan: Handoff<gl::Endpoint, vulkan::Endpoint>,
    command: vk::CommandBuffer,
    /// What the command buffer that was submitted last works with.
    in_use: Option<ImageIo>,
}

impl<'a> Pair<'a> {
    /// A new image, imported, and handed over by the best method there is.
    pub(crate) fn new(machine: &'a TestGpu, desc: &ImageDesc) -> Result<Self> {
        Self::with(machine, desc, HandoffOptions::default())
    }

    /// A new image, imported.
    pub(crate) fn with(
        machine: &'a TestGpu,
        desc: &ImageDesc,
        options: HandoffOptions,
    ) -> Result<Self> {
        let image = machine.vulkan().endpoint.create_image(desc, ImageOptions::default())?;
        let texture = machine.gl()?.endpoint.import_image(image.export()?)?;
        Self::of(machine, image, texture, options)
    }

    /// Two views of one image.
    pub(crate) fn of(
        machine: &'a TestGpu,
        image: Image,
        texture: Texture,
        options: HandoffOptions,
    ) -> Result<Self> {
        let (vulkan, gl) = (machine.vulkan(), machine.gl()?);
        let to_gl = handoff::open(&vulkan.endpoint, &vulkan.endpoint, &gl.endpoint, options)?;
        let to_vulkan = handoff::open(&vulkan.endpoint, &gl.endpoint, &vulkan.endpoint, options)?;
        let command = vulkan.command_buffers(1)?[0];
        Ok(Self { vulkan, gl, texture, image, to_gl, to_vulkan, command, in_use: None })
    }

    /// How the handoffs are synchronised, there and back.
    pub(crate) fn methods(&self) -> [SyncMethod; 2] {
        [self.to_gl.plan.method, self.to_vulkan.plan.method]
    }

    /// Vulkan, which has the image, fills it by `seed`, whatever was in it, and hands it to OpenGL in
    /// `layout`.
    pub(crate) fn vulkan_fills(&mut self, seed: u32, layout: ImageLayout) -> Result<()> {
        self.vulkan_fills_for(seed, layout, layout)
    }

    /// The same, but OpenGL takes the image for one in `taken`.
    pub(crate) fn vulkan_fills_for(
        &mut self,
        seed: u32,
        layout: ImageLayout,
        taken: ImageLayout,
    ) -> Result<()> {
        self.vulkan_gives(ImageIo::new(self.vulkan, &self.image)?, seed, layout, taken)
    }

    /// Vulkan, which has the image, a plain one of one aspect, draws what `seed` fills it with, and hands
    /// it to OpenGL in `layout`.
    pub(crate) fn vulkan_draws(&mut self, seed: u32, layout: ImageLayout) -> Result<()> {
        self.vulkan_gives(ImageIo::drawing(self.vulkan, &self.image)?, seed, layout, layout)
    }

    fn vulkan_gives(
        &mut self,
        io: ImageIo,
        seed: u32,
        layout: ImageLayout,
        taken: ImageLayout,
    ) -> Result<()> {
        io.fill(seed)?;
        self.settle()?;
        let (gpu, image, command) = (self.vulkan, &self.image, self.command);
        gpu.begin(command)?;
        gpu.record_layout(command, image, (vk::ImageLayout::UNDEFINED, io.upload_layout()));
        io.record_upload(gpu, command, image);
        let used = io.uploaded(image, vulkan_layout(layout));
        let ticket = release(gpu, command, &mut self.to_gl, &[used])?;
        self.in_use = Some(io);
        self.gl_takes(ticket, taken)
    }

    /// Vulkan, which has the image in layout `old`, hands it to OpenGL as it is, in `layout`.
    pub(crate) fn vulkan_passes(
        &mut self,
        old: vk::ImageLayout,
        layout: ImageLayout,
    ) -> Result<()> {
        self.vulkan_passes_for(old, layout, layout)
    }

    /// The same, but OpenGL takes the image for one in `taken`.
    pub(crate) fn vulkan_passes_for(
        &mut self,
        old: vk::ImageLayout,
        layout: ImageLayout,
        taken: ImageLayout,
    ) -> Result<()> {
        self.settle()?;
        self.vulkan.begin(self.command)?;
        let used = ImageAccess::transfer(&self.image).with_layouts(old, vulkan_layout(layout));
        let ticket = release(self.vulkan, self.command, &mut self.to_gl, &[used])?;
        self.gl_takes(ticket, taken)
    }

    fn gl_takes(&mut self, ticket: Ticket, layout: ImageLayout) -> Result<()> {
        Ok(self
            .to_gl
            .acquire
            .acquire(ticket, &[TextureAccess::from(self.texture.in_layout(layout))])?)
    }

    /// OpenGL, which has the image, hands it to Vulkan in `layout`, where it must hold what `seed` fills
    /// it with. It stays in the layout that is returned.
    pub(crate) fn vulkan_checks(
        &mut self,
        seed: u32,
        layout: ImageLayout,
    ) -> Result<vk::ImageLayout> {
        let ticket = self.gl_gives(layout)?;
        self.vulkan_checks_after(ticket, seed, layout)
    }

    /// OpenGL, which has the image, hands it to Vulkan in `layout`.
    pub(crate) fn gl_gives(&mut self, layout: ImageLayout) -> Result<Ticket> {
        Ok(self
            .to_vulkan
            .release
            .release(&[TextureAccess::from(self.texture.in_layout(layout))])?
            .0)
    }

    /// Vulkan takes the image over from the release of `ticket`, and checks it.
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

    /// OpenGL, which has the image, of one sample, hands it to Vulkan in `layout`, which reads it.
    pub(crate) fn vulkan_reads(&mut self, layout: ImageLayout) -> Result<Vec<(Part, Vec<u8>)>> {
        let ticket = self.gl_gives(layout)?;
        self.vulkan_downloads(ticket, layout)?.read()
    }

    fn vulkan_downloads(&mut self, ticket: Ticket, layout: ImageLayout) -> Result<ImageIo> {
        let io = ImageIo::new(self.vulkan, &self.image)?;
        io.wipe()?;
        let (gpu, image, wanted) = (self.vulkan, &self.image, io.download_layout());
        let left = vulkan_layout(layout);
        // The validation layer 1.3.239 overlooks an acquire whose layouts are equal (with
        // synchronization2, this is no transition) and takes the image for what it was before the
        // release. So it is acquired in another layout first.
        let acquired = if left == wanted { vk::ImageLayout::GENERAL } else { wanted };
        let used = io.downloadable(image, left).with_new_layout(acquired);
        gpu.vulkan.wait_idle()?;
        acquire(gpu, self.command, &mut self.to_vulkan, ticket, &[used], |command| {
            if acquired != wanted {
                gpu.record_layout(command, image, (acquired, wanted));
            }
            io.record_download(gpu, command, image);
        })?;
        self.settle()?;
        Ok(io)
    }

    /// OpenGL hands the image to Vulkan in `layout`; it is in layout `new` then.
    pub(crate) fn vulkan_takes(&mut self, layout: ImageLayout, new: vk::ImageLayout) -> Result<()> {
        let ticket = self.gl_gives(layout)?;
        let used = ImageAccess::transfer(&self.image).with_layouts(vulkan_layout(layout), new);
        self.vulkan.vulkan.wait_idle()?;
        acquire(self.vulkan, self.command, &mut self.to_vulkan, ticket, &[used], |_| ())
    }

    /// OpenGL reads and samples what `seed` fills the image with.
    pub(crate) fn gl_checks(&self, seed: u32) -> Result<()> {
        if self.image.desc().samples == 1 {
            self.gl.check_texture(&self.texture, seed).context("OpenGL reads")?;
        }
        self.gl.sample_texture(&self.texture, seed).context("OpenGL samples")
    }

    /// Waits for what Vulkan was told.
    pub(crate) fn settle(&mut self) -> Result<()> {
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

/// Records the release behind what `command` has already, and submits.
fn release(
    gpu: &VulkanContext,
    command: vk::CommandBuffer,
    lane: &mut Handoff<vulkan::Endpoint, gl::Endpoint>,
    used: &[ImageAccess<'_>; 1],
) -> Result<Ticket> {
    let family = gpu.vulkan.queue_family();
    // SAFETY: the command buffer is being recorded for a queue of that family, which owns the image; it
    // is in the layout that the callers say, and lives until `Pair` has waited.
    let commands = unsafe { VulkanCommands::record(command, family, used) };
    let (ticket, part) = lane.release.release(commands)?;
    gpu.submit(command, &part)?;
    Ok(ticket)
}

/// Records the acquire, and `then` what follows, and submits. No submitted work uses `command`.
fn acquire(
    gpu: &VulkanContext,
    command: vk::CommandBuffer,
    lane: &mut Handoff<gl::Endpoint, vulkan::Endpoint>,
    ticket: Ticket,
    used: &[ImageAccess<'_>; 1],
    then: impl FnOnce(vk::CommandBuffer),
) -> Result<()> {
    let family = gpu.vulkan.queue_family();
    gpu.begin(command)?;
    // SAFETY: as above; OpenGL has released the image in this layout.
    let commands = unsafe { VulkanCommands::record(command, family, used) };
    let part = lane.acquire.acquire(ticket, commands)?;
    then(command);
    gpu.submit(command, &part)
}

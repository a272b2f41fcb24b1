//! OpenGL draws the scene into the shared picture, and Vulkan draws the cube that shows it.

use anyhow::{Context, Result};
use gpu_interop::ash::vk;
use gpu_interop::desc::ImageLayout;
use gpu_interop::glow::{self, HasContext as _};
use gpu_interop::handoff::{TextureAccess, Ticket, VulkanCommands};
use gpu_interop::vulkan::{ImageAccess, SubmitSync};
use interop_gpu::vulkan::PrivateBuffer;
use scene::vulkan::{ImageView, PrivateImage, PrivateImageInfo};
use scene::{self, Canvas, Drawing, Tone};

use crate::compare::{Compared, Which, compare};
use crate::demo::{Demo, Stage};
use crate::gl::GlSide;
use crate::shared::{FORMAT, Handoffs, Shared, require_alike, require_same, vulkan_layout};
use crate::vulkan::{LAYERS, Sampler, Use, VulkanRunner};

/// The handoffs of the picture that OpenGL draws, and of the one that it shows.
const LAYOUT: ImageLayout = ImageLayout::GENERAL;

pub(crate) struct GlToVk {
    // Dropped in this order: OpenGL before Vulkan, painters before their targets.
    knot: scene::gl::Painter,
    cube: scene::vulkan::Painter,
    _sampler: Sampler,
    _views: [ImageView; 2],
    read_back: PrivateBuffer,
    read_result: PrivateBuffer,
    handoffs: Handoffs,
    shared: Shared,
    /// The cube: also shared, so that OpenGL can show it in a window.
    result: Shared,
    gl: GlSide,
    vulkan: VulkanRunner,
    /// Tickets of a release to OpenGL that is not acquired yet.
    ticket: Option<Ticket>,
}

impl GlToVk {
    pub(crate) fn new(mut vulkan: VulkanRunner, gl: GlSide, size: (u32, u32)) -> Result<Self> {
        let shared = Shared::new(&vulkan, &gl, size, true)?;
        let result = Shared::new(&vulkan, &gl, size, false)?;
        let mut handoffs = Handoffs::open(&vulkan, &gl)?;
        let format = FORMAT.gl()?.internal;
        let knot = scene::gl::Painter::new(
            &gl.gl,
            scene::gl::FRAGMENT_SCENE,
            format,
            Canvas::scene(size),
            shared.texture.name(),
        )?;
        let levels = shared.levels();
        let views = [vulkan.view(&shared.image, levels)?, vulkan.view(&result.image, 1)?];
        let sampler = vulkan.sampler(true)?;
        let cube = scene::vulkan::Painter::with_picture(
            &vulkan.gpu.vulkan,
            scene::vulkan::FRAGMENT_CUBE,
            result.image.format(),
            Canvas::scene(size),
            views[1].handle,
            (views[0].handle, sampler.handle),
        )?;
        let read_back = vulkan.read_buffer(size, levels)?;
        let read_result = vulkan.read_buffer(size, 1)?;

        // Vulkan, which created the pictures, owns them first.
        let command = vulkan.begin()?;
        let (none, taken) = (vk::ImageLayout::UNDEFINED, vulkan_layout(LAYOUT));
        let used = [&shared, &result]
            .map(|one| ImageAccess::attachment(&one.image).with_layouts(none, taken));
        let family = vulkan.queue_family();
        // SAFETY: the command buffer is being recorded for a queue of that family; the images are new, and
        // live until this structure is dropped, which waits.
        let (ticket, sync) = handoffs
            .to_gl
            .release
            .release(unsafe { VulkanCommands::record(command, family, &used) })?;
        vulkan.submit(sync)?;
        let (_sampler, _views, ticket) = (sampler, views, Some(ticket));
        Ok(Self {
            knot,
            cube,
            _sampler,
            _views,
            read_back,
            read_result,
            handoffs,
            shared,
            result,
            gl,
            vulkan,
            ticket,
        })
    }

    fn textures(&self) -> [TextureAccess; 2] {
        [&self.shared, &self.result].map(|one| one.texture.in_layout(LAYOUT).into())
    }

    /// OpenGL acquires the pictures, if Vulkan has released them and they are not acquired yet.
    fn gl_takes(&mut self) -> Result<()> {
        let textures = self.textures();
        match self.ticket.take() {
            Some(ticket) => Ok(self.handoffs.to_gl.acquire.acquire(ticket, &textures)?),
            None => Ok(()),
        }
    }

    /// Begins a Vulkan frame that samples the shared picture and draws the other one.
    fn acquire_in_vulkan(&mut self) -> Result<(vk::CommandBuffer, SubmitSync)> {
        let (ticket, ()) = self.handoffs.to_vulkan.release.release(&self.textures())?;
        let command = self.vulkan.begin()?;
        let used = [
            ImageAccess::sampled(&self.shared.image).with_new_layout(Use::SAMPLED.layout),
            ImageAccess::attachment(&self.result.image).with_new_layout(Use::DRAWN.layout),
        ];
        let family = self.vulkan.queue_family();
        let acquirer = &mut self.handoffs.to_vulkan.acquire;
        // SAFETY: the command buffer is being recorded for a queue of that family; OpenGL has released both
        // images in this layout, and the returned `sync` is added to the submit.
        let sync =
            acquirer.acquire(ticket, unsafe { VulkanCommands::record(command, family, &used) })?;
        Ok((command, sync))
    }

    /// Ends the frame: releases the pictures, and copies the result's first level for the host.
    fn release_from_vulkan(
        &mut self,
        command: vk::CommandBuffer,
        mut sync: SubmitSync,
    ) -> Result<()> {
        let handle = self.result.image.handle();
        self.vulkan.record_transition(handle, (0, 1), Use::DRAWN, Use::COPIED_FROM);
        self.vulkan.record_read(handle, self.result.size(), 1, &self.read_result);
        let new = vulkan_layout(LAYOUT);
        let used = [
            ImageAccess::sampled(&self.shared.image).with_layouts(Use::SAMPLED.layout, new),
            ImageAccess::transfer(&self.result.image).with_layouts(Use::COPIED_FROM.layout, new),
        ];
        let family = self.vulkan.queue_family();
        // SAFETY: as above, and the images are in these layouts.
        let (ticket, signal) = self
            .handoffs
            .to_gl
            .release
            .release(unsafe { VulkanCommands::record(command, family, &used) })?;
        sync.merge(signal);
        self.vulkan.submit(sync)?;
        self.ticket = Some(ticket);
        Ok(())
    }

    /// Creates a private image with a copy of the shared picture's first level. The picture is in layout
    /// `SAMPLED`, and both are afterwards.
    fn own_copy(&self, command: vk::CommandBuffer) -> Result<PrivateImage> {
        let (format, size) = (self.shared.image.format(), self.shared.size());
        let usage = vk::ImageUsageFlags::SAMPLED
            | vk::ImageUsageFlags::TRANSFER_DST
            | vk::ImageUsageFlags::COLOR_ATTACHMENT;
        // Of the same shape; the smaller levels are not read.
        let levels = self.shared.levels();
        let info = PrivateImageInfo { format, size, levels, samples: 1, usage };
        let own = PrivateImage::new(&self.vulkan.gpu.vulkan, &info)?;
        let shared = self.shared.image.handle();
        let new = Use { layout: vk::ImageLayout::UNDEFINED, ..Use::SAMPLED };
        self.vulkan.record_transition(shared, (0, 1), Use::SAMPLED, Use::COPIED_FROM);
        self.vulkan.record_transition(own.image, (0, 1), new, Use::COPIED_TO);
        let extent = vk::Extent3D { width: size.0, height: size.1, depth: 1 };
        let copy = vk::ImageCopy {
            src_subresource: LAYERS,
            dst_subresource: LAYERS,
            extent,
            ..Default::default()
        };
        let (from, to) = (Use::COPIED_FROM.layout, Use::COPIED_TO.layout);
        // SAFETY: the command buffer is being recorded; both images are alive, of this format and size,
        // and in these layouts.
        unsafe {
            let device = self.vulkan.device();
            device.cmd_copy_image(command, shared, from, own.image, to, &[copy]);
        }
        self.vulkan.record_transition(shared, (0, 1), Use::COPIED_FROM, Use::SAMPLED);
        self.vulkan.record_transition(own.image, (0, 1), Use::COPIED_TO, Use::SAMPLED);
        Ok(own)
    }
}

impl Demo for GlToVk {
    fn frame(&mut self, time: f32, verify: bool) -> Result<Vec<Stage>> {
        let (size, levels) = (self.shared.size(), self.shared.levels());
        let aspect = size.0 as f32 / size.1 as f32;
        self.gl_takes()?;
        let (gl, texture) = (&self.gl, self.shared.texture.name());
        let drawing = scene::knot(time, aspect, Tone::Screen);
        let knot = gl.time(|| self.knot.paint(&drawing, None))?;
        let chain = gl.time(|| {
            // SAFETY: the context is current and the texture its own.
            unsafe { gl.gl.generate_texture_mipmap(texture) };
            scene::gl::check(&gl.gl, "glGenerateTextureMipmap")
        })?;
        let seen = if verify { gl.read(texture, size, levels)? } else { Vec::new() };

        let (command, sync) = self.acquire_in_vulkan()?;
        self.vulkan.stamp();
        self.cube.record(command, &scene::turntable(time, aspect))?;
        self.vulkan.stamp();
        if verify {
            let handle = self.shared.image.handle();
            self.vulkan.record_transition(handle, (0, levels), Use::SAMPLED, Use::COPIED_FROM);
            self.vulkan.record_read(handle, size, levels, &self.read_back);
            self.vulkan.record_transition(handle, (0, levels), Use::COPIED_FROM, Use::SAMPLED);
        }
        self.release_from_vulkan(command, sync)?;
        if verify {
            require_same(&self.vulkan.read(&self.read_back)?, &seen)?;
        }
        let times = self.vulkan.times()?;
        // For the window: from here OpenGL can show the result.
        self.gl_takes()?;
        let on_gpu = self.gl.times_on_gpu();
        Ok(vec![
            Stage { name: "OpenGL draws the scene", time: knot, on_gpu },
            Stage { name: "OpenGL generates the mip levels", time: chain, on_gpu },
            Stage { name: "Vulkan draws the cube", time: times[0], on_gpu: true },
        ])
    }

    fn picture(&mut self) -> Result<Vec<u8>> {
        self.vulkan.read(&self.read_result)
    }

    fn texture(&self) -> Result<glow::Texture> {
        Ok(self.result.texture.name())
    }

    fn compare(&mut self, samples: u32, step: &mut dyn FnMut()) -> Result<Compared> {
        self.gl_takes()?;
        let (command, sync) = self.acquire_in_vulkan()?;
        let own = self.own_copy(command)?;
        self.vulkan.submit(sync)?;
        let shared = self.vulkan.view(&self.shared.image, 1)?;
        let (format, size) = (self.shared.image.format(), self.shared.size());
        let usage = vk::ImageUsageFlags::COLOR_ATTACHMENT | vk::ImageUsageFlags::TRANSFER_SRC;
        let info = PrivateImageInfo { format, size, levels: 1, samples: 1, usage };
        let target = PrivateImage::new(&self.vulkan.gpu.vulkan, &info)?;
        // Some drivers' anisotropic filter blurs even if each pixel samples exactly one texel.
        let sampler = self.vulkan.sampler(false)?;
        let painters = [shared.handle, own.view()].map(|view| {
            scene::vulkan::Painter::with_picture(
                &self.vulkan.gpu.vulkan,
                scene::vulkan::FRAGMENT_PICTURE,
                format,
                Canvas::flat(size),
                target.view(),
                (view, sampler.handle),
            )
        });
        let [on_shared, on_own] = painters;
        let (on_shared, on_own) = (on_shared?, on_own?);
        let vulkan = &mut self.vulkan;
        let compared = compare(samples, step, |which, passes| {
            let painter = if which == Which::Shared { &on_shared } else { &on_own };
            let command = vulkan.begin()?;
            vulkan.stamp();
            painter.record(command, &Drawing::picture(passes))?;
            vulkan.stamp();
            vulkan.submit(SubmitSync::default())?;
            Ok(vulkan.times()?[0])
        })?;
        // Checks that the measured pass does what it should: reproduce the picture.
        let made = vulkan.read_buffer(size, 1)?;
        let meant = vulkan.read_buffer(size, 1)?;
        let command = vulkan.begin()?;
        on_shared.record(command, &Drawing::picture(1))?;
        vulkan.record_transition(target.image, (0, 1), Use::DRAWN, Use::COPIED_FROM);
        vulkan.record_read(target.image, size, 1, &made);
        let handle = self.shared.image.handle();
        vulkan.record_transition(handle, (0, 1), Use::SAMPLED, Use::COPIED_FROM);
        vulkan.record_read(handle, size, 1, &meant);
        vulkan.submit(SubmitSync::default())?;
        require_alike(&vulkan.read(&meant)?, &vulkan.read(&made)?)
            .context("the sampling pass does not reproduce the picture")?;
        Ok(compared)
    }

    fn handoffs(&self) -> (String, Vec<String>) {
        self.handoffs.describe()
    }

    fn levels(&self) -> u32 {
        self.shared.levels()
    }
}

impl Drop for GlToVk {
    fn drop(&mut self) {
        // Both APIs must be done with what is destroyed next.
        self.gl.finish();
        let _ = self.vulkan.gpu.vulkan.wait_idle();
    }
}

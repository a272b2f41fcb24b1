//! Vulkan draws the scene into the shared picture, and OpenGL draws the cube that shows it.

use anyhow::{Context, Result};
use gpu_interop::desc::ImageLayout;
use gpu_interop::glow::{self, HasContext as _};
use gpu_interop::handoff::{TextureAccess, Ticket, VulkanCommands};
use gpu_interop::vulkan::{ImageAccess, SubmitSync};
use interop_gpu::vulkan::PrivateBuffer;
use scene::vulkan::ImageView;
use scene::{self, Canvas, Drawing, Tone};

use crate::compare::{Compared, Which, compare};
use crate::demo::{Demo, Stage};
use crate::gl::GlSide;
use crate::shared::{FORMAT, Handoffs, Shared, require_alike, require_same, vulkan_layout};
use crate::vulkan::{Use, VulkanRunner};

/// The handoffs of the picture to OpenGL and back.
const LAYOUT: ImageLayout = ImageLayout::SHADER_READ_ONLY_OPTIMAL;

pub(crate) struct VkToGl {
    // Dropped in this order: OpenGL before Vulkan, painters before their targets.
    cube: scene::gl::Painter,
    result: glow::Texture,
    knot: scene::vulkan::Painter,
    _view: ImageView,
    read_back: PrivateBuffer,
    handoffs: Handoffs,
    shared: Shared,
    gl: GlSide,
    vulkan: VulkanRunner,
    /// Whether OpenGL owns the picture. If not, it was never drawn.
    gl_owns_picture: bool,
}

impl VkToGl {
    pub(crate) fn new(vulkan: VulkanRunner, gl: GlSide, size: (u32, u32)) -> Result<Self> {
        let shared = Shared::new(&vulkan, &gl, size, true)?;
        let handoffs = Handoffs::open(&vulkan, &gl)?;
        let view = vulkan.view(&shared.image, 1)?;
        let knot = scene::vulkan::Painter::new(
            &vulkan.gpu.vulkan,
            scene::vulkan::FRAGMENT_SCENE,
            shared.image.format(),
            Canvas::scene(size),
            view.handle,
        )?;
        let format = FORMAT.gl()?.internal;
        let result = gl.texture(format, size, 1)?;
        let fragment = scene::gl::FRAGMENT_CUBE;
        let cube = scene::gl::Painter::new(&gl.gl, fragment, format, Canvas::scene(size), result)?;
        let read_back = vulkan.read_buffer(size, shared.levels())?;
        let (_view, gl_owns_picture) = (view, false);
        Ok(Self {
            cube,
            result,
            knot,
            _view,
            read_back,
            handoffs,
            shared,
            gl,
            vulkan,
            gl_owns_picture,
        })
    }

    /// Vulkan draws and releases.
    fn draw(&mut self, time: f32, aspect: f32, verify: bool) -> Result<Ticket> {
        let back = match self.gl_owns_picture {
            true => {
                let textures = [TextureAccess::from(self.shared.texture.in_layout(LAYOUT))];
                Some(self.handoffs.to_vulkan.release.release(&textures)?.0)
            }
            false => None,
        };
        let command = self.vulkan.begin()?;
        let (family, image) = (self.vulkan.queue_family(), &self.shared.image);
        let mut sync = SubmitSync::default();
        if let Some(ticket) = back {
            let drawn = Use::DRAWN.layout;
            let used = [ImageAccess::attachment(image).with_new_layout(drawn)];
            let acquirer = &mut self.handoffs.to_vulkan.acquire;
            // SAFETY: the command buffer is being recorded for a queue of that family; OpenGL has released
            // the image in this layout, and the returned `sync` is added to the submit.
            sync = acquirer
                .acquire(ticket, unsafe { VulkanCommands::record(command, family, &used) })?;
        }
        self.vulkan.stamp();
        self.knot.record(command, &scene::knot(time, aspect, Tone::Screen))?;
        self.vulkan.stamp();
        self.vulkan.record_levels(image);
        self.vulkan.stamp();
        if verify {
            let (size, levels) = (self.shared.size(), self.shared.levels());
            self.vulkan.record_read(image.handle(), size, levels, &self.read_back);
        }
        let copied = Use::COPIED_FROM.layout;
        let used = [ImageAccess::transfer(image).with_layouts(copied, vulkan_layout(LAYOUT))];
        // SAFETY: as above; the queue's family owns the image, which the copies left in this layout, and
        // it lives until this structure is dropped, which waits.
        let (ticket, signal) = self
            .handoffs
            .to_gl
            .release
            .release(unsafe { VulkanCommands::record(command, family, &used) })?;
        sync.merge(signal);
        self.vulkan.submit(sync)?;
        Ok(ticket)
    }
}

impl Demo for VkToGl {
    fn frame(&mut self, time: f32, verify: bool) -> Result<Vec<Stage>> {
        let (width, height) = self.shared.size();
        let aspect = width as f32 / height as f32;
        let ticket = self.draw(time, aspect, verify)?;
        let textures = [TextureAccess::from(&self.shared.texture)];
        self.handoffs.to_gl.acquire.acquire(ticket, &textures)?;
        self.gl_owns_picture = true;
        let picture = Some((self.shared.texture.name(), self.gl.sampler));
        let drawing = scene::turntable(time, aspect);
        let cube = self.gl.time(|| self.cube.paint(&drawing, picture))?;
        if verify {
            let (size, levels) = (self.shared.size(), self.shared.levels());
            let seen = self.gl.read(self.shared.texture.name(), size, levels)?;
            require_same(&self.vulkan.read(&self.read_back)?, &seen)?;
        }
        let times = self.vulkan.times()?;
        let on_gpu = self.gl.times_on_gpu();
        Ok(vec![
            Stage { name: "Vulkan draws the scene", time: times[0], on_gpu: true },
            Stage { name: "Vulkan generates the mip levels", time: times[1], on_gpu: true },
            Stage { name: "OpenGL draws the cube", time: cube, on_gpu },
        ])
    }

    fn picture(&mut self) -> Result<Vec<u8>> {
        self.gl.read(self.result, self.shared.size(), 1)
    }

    fn texture(&self) -> Result<glow::Texture> {
        Ok(self.result)
    }

    fn compare(&mut self, samples: u32, step: &mut dyn FnMut()) -> Result<Compared> {
        anyhow::ensure!(self.gl_owns_picture, "no frame was drawn yet");
        let (size, gl) = (self.shared.size(), &self.gl);
        let format = FORMAT.gl()?.internal;
        let shared = self.shared.texture.name();
        // Of the same shape; the smaller levels are not read.
        let own = gl.texture(format, size, self.shared.levels())?;
        gl.copy(shared, own, size)?;
        let target = gl.texture(format, size, 1)?;
        let fragment = scene::gl::FRAGMENT_PICTURE;
        let painter =
            scene::gl::Painter::new(&gl.gl, fragment, format, Canvas::flat(size), target)?;
        let compared = compare(samples, step, |which, passes| {
            let texture = if which == Which::Shared { shared } else { own };
            let drawing = Drawing::picture(passes);
            gl.time(|| painter.paint(&drawing, Some((texture, gl.plain_sampler))))
        })?;
        // Checks that the measured pass does what it should: reproduce the picture.
        painter.paint(&Drawing::picture(1), Some((shared, gl.plain_sampler)))?;
        require_alike(&gl.read(shared, size, 1)?, &gl.read(target, size, 1)?)
            .context("the sampling pass does not reproduce the picture")?;
        drop(painter);
        // SAFETY: the context is current and the textures its own.
        unsafe {
            gl.gl.delete_texture(own);
            gl.gl.delete_texture(target);
        }
        Ok(compared)
    }

    fn handoffs(&self) -> (String, Vec<String>) {
        self.handoffs.describe()
    }

    fn levels(&self) -> u32 {
        self.shared.levels()
    }
}

impl Drop for VkToGl {
    fn drop(&mut self) {
        // Both APIs must be done with what is destroyed next.
        self.gl.finish();
        let _ = self.vulkan.gpu.vulkan.wait_idle();
        // SAFETY: the context is current and the texture its own.
        unsafe { self.gl.gl.delete_texture(self.result) };
    }
}

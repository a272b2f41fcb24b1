//! Shows the demo live in a window, whose OpenGL context shares with Vulkan.

use std::ffi::CStr;
use std::num::NonZeroU32;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use glutin::api::egl::context::PossiblyCurrentContext;
use glutin::api::egl::display::Display;
use glutin::api::egl::surface::Surface;
use glutin::config::{Api, ConfigTemplateBuilder};
use glutin::context::{ContextApi, ContextAttributesBuilder, GlProfile, Version};
use glutin::display::GetGlDisplay as _;
use glutin::prelude::*;
use glutin::surface::{SurfaceAttributesBuilder, WindowSurface};
use gpu_interop::gl::Endpoint;
use gpu_interop::glow::{self, HasContext as _};
use gpu_interop::headless::{GpuSelector, Vulkan};
use winit::application::ApplicationHandler;
use winit::dpi::{LogicalSize, PhysicalSize};
use winit::event::{ElementState, WindowEvent};
use winit::event_loop::{ActiveEventLoop, ControlFlow, EventLoop};
use winit::keyboard::{Key, NamedKey};
use winit::raw_window_handle::{HasDisplayHandle as _, HasWindowHandle as _};
use winit::window::{Window, WindowId};

use crate::demo::Demo;
use crate::gl::GlSide;
use crate::vulkan::VulkanRunner;
use crate::{Direction, Options};

/// How often the title is updated.
const TITLE_EVERY: Duration = Duration::from_millis(500);

/// Shows the demo until Esc is pressed or the window is closed.
pub(crate) fn run(options: &Options) -> Result<()> {
    // winit's own error only names a line of its source.
    let events = EventLoop::new().ok().context(
        "can't open a window: neither WAYLAND_DISPLAY nor DISPLAY leads to a display server; \
         without --window the pictures are written to files",
    )?;
    events.set_control_flow(ControlFlow::Poll);
    let mut app = App { options, shown: None, failure: None };
    events.run_app(&mut app)?;
    app.failure.map_or(Ok(()), Err)
}

struct App<'a> {
    options: &'a Options,
    shown: Option<Shown>,
    failure: Option<anyhow::Error>,
}

impl App<'_> {
    /// Ends the program if something failed.
    fn see_to(&mut self, events: &ActiveEventLoop, done: Result<()>) {
        if let Err(error) = done {
            self.failure = Some(error);
            self.shown = None;
            events.exit();
        }
    }
}

impl ApplicationHandler for App<'_> {
    fn resumed(&mut self, events: &ActiveEventLoop) {
        if self.shown.is_none() {
            let opened = Shown::open(events, self.options).map(|shown| self.shown = Some(shown));
            self.see_to(events, opened);
        }
    }

    fn window_event(&mut self, events: &ActiveEventLoop, _: WindowId, event: WindowEvent) {
        let Some(shown) = &mut self.shown else { return };
        match event {
            WindowEvent::CloseRequested => events.exit(),
            WindowEvent::KeyboardInput { event, .. }
                if event.state == ElementState::Pressed
                    && event.logical_key == Key::Named(NamedKey::Escape) =>
            {
                events.exit();
            }
            WindowEvent::Resized(size) => shown.resize(size),
            WindowEvent::RedrawRequested => {
                let drawn = shown.draw();
                shown.window.request_redraw();
                self.see_to(events, drawn);
            }
            _ => {}
        }
    }

    fn exiting(&mut self, _: &ActiveEventLoop) {
        // While the display still exists.
        self.shown = None;
    }
}

/// The window and its content.
struct Shown {
    // Dropped in this order: users of the context, the context, its surface, the window.
    demo: Box<dyn Demo>,
    from: glow::Framebuffer,
    gl: Arc<glow::Context>,
    context: Rc<PossiblyCurrentContext>,
    surface: Surface<WindowSurface>,
    window: Window,
    title: String,
    size: (u32, u32),
    start: Instant,
    /// When the title was updated, and the frames since then.
    renewed: (Instant, u32),
}

impl Shown {
    fn open(events: &ActiveEventLoop, options: &Options) -> Result<Self> {
        let wanted = LogicalSize::new(options.size.0, options.size.1);
        let attributes =
            Window::default_attributes().with_title("gl_texture").with_inner_size(wanted);
        let window = events.create_window(attributes)?;
        let (context, surface) = open_context(&window)?;
        let context = Rc::new(context);
        let display = context.display();
        let mut loader = |name: &CStr| display.get_proc_address(name);
        // SAFETY: the context is current, and the loader is its own.
        let gl = Arc::new(unsafe { glow::Context::from_loader_function_cstr(&mut loader) });
        // SAFETY: as above; the endpoint keeps the context, which stays current on this thread: the
        // program has no other.
        let endpoint =
            unsafe { Endpoint::new(gl.clone(), &mut loader, Some(Box::new(context.clone()))) }?;
        // Vulkan on the GPU that shows the window.
        let found = endpoint
            .identities()
            .first()
            .context("OpenGL does not report which GPU it uses")?
            .device;
        let selector = options.device.map_or(GpuSelector::Uuid(found), GpuSelector::Uuid);
        let vulkan = Vulkan::open(&selector, &options.vulkan_options())?;
        let way = match options.direction {
            Direction::VkToGl => "Vulkan → OpenGL",
            Direction::GlToVk => "OpenGL → Vulkan",
        };
        let (width, height) = options.size;
        let title = format!("{way}, {width}×{height} on {}", vulkan.identity().name);
        let demo = options.demo(VulkanRunner::new(vulkan)?, GlSide::new(endpoint)?)?;
        // SAFETY: the context is current.
        let from = unsafe { gl.create_named_framebuffer() }.map_err(anyhow::Error::msg)?;
        let (now, size) = (Instant::now(), options.size);
        window.request_redraw();
        Ok(Self {
            demo,
            from,
            gl,
            context,
            surface,
            window,
            title,
            size,
            start: now,
            renewed: (now, 0),
        })
    }

    fn resize(&self, size: PhysicalSize<u32>) {
        let sides = (NonZeroU32::new(size.width), NonZeroU32::new(size.height));
        if let (Some(width), Some(height)) = sides {
            self.surface.resize(&self.context, width, height);
        }
    }

    fn draw(&mut self) -> Result<()> {
        self.demo.frame(self.start.elapsed().as_secs_f32(), false)?;
        self.present()?;
        self.renewed.1 += 1;
        let (since, frames) = (self.renewed.0.elapsed(), self.renewed.1);
        if since >= TITLE_EVERY {
            let each = since.as_secs_f64() / f64::from(frames);
            let title =
                format!("{}: {:.1} ms per frame, {:.0} fps", self.title, each * 1e3, 1.0 / each);
            self.window.set_title(&title);
            self.renewed = (Instant::now(), 0);
        }
        Ok(())
    }

    /// Shows the last frame in the window, scaled to it, with black bars if the shapes differ.
    fn present(&self) -> Result<()> {
        let (from, texture) = (Some(self.from), self.demo.texture()?);
        let (width, height) = (i32::try_from(self.size.0)?, i32::try_from(self.size.1)?);
        let inner = self.window.inner_size();
        let (across, down) = (f64::from(inner.width), f64::from(inner.height));
        let scale = (across / f64::from(width)).min(down / f64::from(height));
        let (w, h) = ((f64::from(width) * scale) as i32, (f64::from(height) * scale) as i32);
        let (x, y) = ((across as i32 - w) / 2, (down as i32 - h) / 2);
        let (colour, filter) = (glow::COLOR_BUFFER_BIT, glow::LINEAR);
        let gl = &self.gl;
        // SAFETY: the context is current, and the names are its own.
        unsafe {
            gl.named_framebuffer_texture(from, glow::COLOR_ATTACHMENT0, Some(texture), 0);
            // The picture is already sRGB-encoded.
            gl.disable(glow::FRAMEBUFFER_SRGB);
            gl.disable(glow::SCISSOR_TEST);
            gl.clear_named_framebuffer_f32_slice(None, glow::COLOR, 0, &[0.0, 0.0, 0.0, 1.0]);
            // A window's first row is its lowest; a picture's is its highest.
            gl.blit_named_framebuffer(
                from,
                None,
                0,
                0,
                width,
                height,
                x,
                y + h,
                x + w,
                y,
                colour,
                filter,
            );
        }
        scene::gl::check(gl, "showing the picture")?;
        Ok(self.surface.swap_buffers(&self.context)?)
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        // SAFETY: the context is current, and the framebuffer its own.
        unsafe { self.gl.delete_framebuffer(self.from) };
    }
}

/// Creates an OpenGL context for the window and makes it current.
fn open_context(window: &Window) -> Result<(PossiblyCurrentContext, Surface<WindowSurface>)> {
    let (display, handle) = (window.display_handle()?.as_raw(), window.window_handle()?.as_raw());
    // SAFETY: the handle is the event loop's, whose display outlives the window.
    let display =
        unsafe { Display::new(display) }.context("EGL does not support the window's display")?;
    let template = ConfigTemplateBuilder::new()
        .with_api(Api::OPENGL)
        .compatible_with_native_window(handle)
        .with_depth_size(0)
        .with_stencil_size(0)
        .build();
    // SAFETY: the window's handle is valid as long as the window.
    let config = unsafe { display.find_configs(template) }?
        .next()
        .context("EGL has no configuration for OpenGL in a window")?;
    let attributes = ContextAttributesBuilder::new()
        .with_context_api(ContextApi::OpenGl(Some(Version::new(4, 5))))
        .with_profile(GlProfile::Core)
        .build(Some(handle));
    let size = window.inner_size();
    let side = |pixels: u32| NonZeroU32::new(pixels).unwrap_or(NonZeroU32::MIN);
    let surface = SurfaceAttributesBuilder::<WindowSurface>::new().build(
        handle,
        side(size.width),
        side(size.height),
    );
    // SAFETY: as above, and the window outlives both (the order of fields of `Shown`).
    let (context, surface) = unsafe {
        let context = display.create_context(&config, &attributes).context("OpenGL 4.5")?;
        (context, display.create_window_surface(&config, &surface)?)
    };
    Ok((context.make_current(&surface)?, surface))
}

//! Family D: the application's bindings are the same before and after each call of the library.

use anyhow::{Result, ensure};
use gpu_interop::SemaphoreKind::{Binary, Timeline};
use gpu_interop::desc::Tiling;
use gpu_interop::format::Format;
use gpu_interop::glow::{self, HasContext as _};
use gpu_interop::peer::widest_for_gl;
use gpu_interop::vulkan::{BufferOptions, ImageOptions};
use gpu_interop::{Api, BufferDesc};

use crate::cases::images_vulkan::USAGE;
use crate::harness::{Case, Need, TestGpu};
use interop_gpu::gl::GlContext;
use interop_gpu::image::{SIZES, Shape};

pub(crate) fn cases() -> Vec<Case> {
    let case = |what: &str, run: fn(&TestGpu) -> Result<()>| {
        Case::new(format!("vulkan→gl/opaque_fd/{what}"), run).needs(&[Need::Gl])
    };
    let semaphores = [Need::Semaphore(Api::OpenGl, Timeline), Need::Semaphore(Api::OpenGl, Binary)];
    vec![
        case("buffer/bindings_are_put_back/31b", of_buffers),
        case("image/bindings_are_put_back/31b", of_images),
        case("semaphore/bindings_are_put_back/31b", of_semaphores).needs(&semaphores),
    ]
}

const BUFFER_TARGETS: [u32; 9] = [
    glow::ARRAY_BUFFER,
    glow::COPY_READ_BUFFER,
    glow::COPY_WRITE_BUFFER,
    glow::DISPATCH_INDIRECT_BUFFER,
    glow::DRAW_INDIRECT_BUFFER,
    glow::PIXEL_PACK_BUFFER,
    glow::PIXEL_UNPACK_BUFFER,
    glow::SHADER_STORAGE_BUFFER,
    glow::UNIFORM_BUFFER,
];

/// Each target with the parameter that holds its binding.
const TEXTURE_TARGETS: [(u32, u32); 9] = [
    (glow::TEXTURE_1D, glow::TEXTURE_BINDING_1D),
    (glow::TEXTURE_1D_ARRAY, glow::TEXTURE_BINDING_1D_ARRAY),
    (glow::TEXTURE_2D, glow::TEXTURE_BINDING_2D),
    (glow::TEXTURE_2D_ARRAY, glow::TEXTURE_BINDING_2D_ARRAY),
    (glow::TEXTURE_2D_MULTISAMPLE, glow::TEXTURE_BINDING_2D_MULTISAMPLE),
    (glow::TEXTURE_2D_MULTISAMPLE_ARRAY, glow::TEXTURE_BINDING_2D_MULTISAMPLE_ARRAY),
    (glow::TEXTURE_3D, glow::TEXTURE_BINDING_3D),
    (glow::TEXTURE_CUBE_MAP, glow::TEXTURE_BINDING_CUBE_MAP),
    (glow::TEXTURE_CUBE_MAP_ARRAY, glow::TEXTURE_BINDING_CUBE_MAP_ARRAY),
];

/// Every other binding of a context.
const PARAMETERS: [u32; 17] = [
    glow::ACTIVE_TEXTURE,
    glow::ARRAY_BUFFER_BINDING,
    0x8F36, // GL_COPY_READ_BUFFER_BINDING
    0x8F37, // GL_COPY_WRITE_BUFFER_BINDING
    glow::CURRENT_PROGRAM,
    glow::DISPATCH_INDIRECT_BUFFER_BINDING,
    glow::DRAW_FRAMEBUFFER_BINDING,
    glow::DRAW_INDIRECT_BUFFER_BINDING,
    glow::ELEMENT_ARRAY_BUFFER_BINDING,
    glow::PIXEL_PACK_BUFFER_BINDING,
    glow::PIXEL_UNPACK_BUFFER_BINDING,
    glow::READ_FRAMEBUFFER_BINDING,
    glow::RENDERBUFFER_BINDING,
    glow::SAMPLER_BINDING,
    glow::SHADER_STORAGE_BUFFER_BINDING,
    glow::UNIFORM_BUFFER_BINDING,
    glow::VERTEX_ARRAY_BINDING,
];

/// Objects of the application, bound to every target that the library might use.
struct Bound<'a> {
    gl: &'a GlContext,
    buffer: glow::Buffer,
    textures: Vec<glow::Texture>,
    before: Vec<i32>,
}

impl<'a> Bound<'a> {
    fn new(gl: &'a GlContext) -> Result<Self> {
        let context = gl.gl.glow();
        let named = |name: Result<_, String>| name.map_err(anyhow::Error::msg);
        let mut textures = Vec::new();
        // SAFETY: the context is current, and OpenGL 4.5 has the targets.
        let buffer = unsafe {
            let buffer = named(context.create_buffer())?;
            for target in BUFFER_TARGETS {
                context.bind_buffer(target, Some(buffer));
            }
            context.active_texture(glow::TEXTURE1);
            for (target, _) in TEXTURE_TARGETS {
                let texture = context.create_texture().map_err(anyhow::Error::msg)?;
                context.bind_texture(target, Some(texture));
                textures.push(texture);
            }
            buffer
        };
        gl.check("binding")?;
        let mut bound = Self { gl, buffer, textures, before: Vec::new() };
        bound.before = bound.read();
        Ok(bound)
    }

    fn read(&self) -> Vec<i32> {
        let context = self.gl.gl.glow();
        let parameters = PARAMETERS.into_iter().chain(TEXTURE_TARGETS.map(|(_, binding)| binding));
        // SAFETY: the context is current, and each parameter is one integer.
        parameters.map(|parameter| unsafe { context.get_parameter_i32(parameter) }).collect()
    }

    /// Checks that the bindings are as before `call`, and that no error is pending.
    fn check(&self, call: &str) -> Result<()> {
        self.gl.check(call)?;
        let after = self.read();
        ensure!(after == self.before, "{call}: {:?} became {after:?}", self.before);
        Ok(())
    }
}

impl Drop for Bound<'_> {
    fn drop(&mut self) {
        let context = self.gl.gl.glow();
        // SAFETY: the context is current, and the objects are its own. Deleting unbinds them.
        unsafe {
            context.delete_buffer(self.buffer);
            for &texture in &self.textures {
                context.delete_texture(texture);
            }
            context.active_texture(glow::TEXTURE0);
        }
    }
}

fn of_buffers(test_gpu: &TestGpu) -> Result<()> {
    let (vulkan, gl) = (&test_gpu.vulkan().endpoint, test_gpu.gl()?);
    let desc = BufferDesc::storage(4096);
    let ours = vulkan.create_buffer(&desc, BufferOptions::default())?;
    let bound = Bound::new(gl)?;
    gl.endpoint.capabilities(&desc.into())?;
    bound.check("capabilities")?;
    let memory = gl.endpoint.import_memory(ours.memory().export()?)?;
    bound.check("import_memory")?;
    let buffer = memory.buffer(ours.offset(), &desc)?;
    bound.check("Memory::buffer")?;
    let imported = gl.endpoint.import_buffer(ours.export()?)?;
    bound.check("import_buffer")?;
    let size = memory.info().allocation_size;
    ensure!(memory.buffer(size, &desc).is_err(), "a buffer after the end of its memory");
    bound.check("a refused Memory::buffer")?;
    gl.endpoint.memory_barrier()?;
    let fence = gl.endpoint.fence()?;
    fence.wait(std::time::Duration::from_secs(10))?;
    bound.check("fence and wait")?;
    drop((buffer, imported, memory, fence));
    bound.check("drop")
}

fn of_images(test_gpu: &TestGpu) -> Result<()> {
    let (vulkan, gl) = (&test_gpu.vulkan().endpoint, test_gpu.gl()?);
    let bound = Bound::new(gl)?;
    for shape in Shape::ALL {
        let desc = shape.desc(Format::Rgba8Unorm, Tiling::Optimal, SIZES[0], USAGE);
        let desc = widest_for_gl(vulkan, &desc)?;
        gl.endpoint.capabilities(&desc.into())?;
        bound.check("capabilities")?;
        let ours = vulkan.create_image(&desc, ImageOptions::default())?;
        // A shape that the driver refuses changes no binding either.
        let imported = gl.endpoint.import_image(ours.export()?);
        bound.check(&format!("import_image of {shape:?}"))?;
        let memory = gl.endpoint.import_memory(ours.memory().export()?)?;
        let texture = memory.texture(ours.offset(), &desc);
        bound.check(&format!("Memory::texture of {shape:?}"))?;
        drop((imported, texture));
        bound.check("drop")?;
    }
    Ok(())
}

fn of_semaphores(test_gpu: &TestGpu) -> Result<()> {
    let (vulkan, gl) = (&test_gpu.vulkan().endpoint, test_gpu.gl()?);
    let bound = Bound::new(gl)?;
    for (kind, value) in [(Binary, None), (Timeline, Some(1))] {
        let ours = vulkan.create_semaphore(kind)?;
        let theirs = gl.endpoint.import_semaphore(ours.export()?)?;
        bound.check("import_semaphore")?;
        gl.endpoint.signal(&theirs, value, &[], &[])?;
        bound.check("signal")?;
        gl.endpoint.wait(&theirs, value, &[], &[])?;
        bound.check("wait")?;
        gl.finish();
    }
    Ok(())
}

//! Family D: an imported buffer in draws. What Vulkan wrote reaches the pixels of an offscreen renderbuffer, and
//! what OpenGL drew reaches Vulkan, bit for bit.

use anyhow::{Result, ensure};
use gpu_interop::glow::{self, HasContext as _};
use gpu_interop::vulkan::BufferOptions;
use gpu_interop::{BufferDesc, BufferUsage};

use crate::cases::opengl::shared;
use crate::harness::{Case, Need, TestGpu};
use interop_gpu::gl::GlContext;
use interop_gpu::oracle::{self, Passes};

/// Pixels of the renderbuffer in x and in y.
const SIDE: i32 = 64;
/// The size of all pixels in bytes: each has the 16 bytes of its place in the payload.
const PIXELS: u64 = 64 * 64 * 16;
/// The first pixel's offset in the buffer, in bytes.
const OFFSET: i32 = 256;
const SEED: u32 = 40;

pub(crate) fn cases() -> Vec<Case> {
    let case = |what: &str, run: fn(&TestGpu) -> Result<()>| {
        let name = format!("vulkan→gl/opaque_fd/buffer/{what}/40");
        Case::new(name, run).needs(&[Need::Gl])
    };
    vec![
        case("as_vertex_buffer", vertex_buffer),
        case("as_pixel_unpack_buffer", pixel_unpack_buffer),
        case("as_pixel_pack_buffer", pixel_pack_buffer),
        case("as_storage_buffer_that_a_draw_reads", storage_buffer_read),
        case("as_storage_buffer_that_a_draw_writes", storage_buffer_written),
    ]
}

const HEADER: &str = "#version 450\nconst int SIDE = 64;\n";

/// One triangle over all pixels.
const EVERYWHERE: &str = "
void main() {
    gl_Position = vec4(4.0 * (gl_VertexID & 1) - 1.0, 2.0 * (gl_VertexID & 2) - 1.0, 0.0, 1.0);
}";

/// The pixel's number, from the first row on.
const NUMBER: &str =
    "uint number() { return uint(gl_FragCoord.y) * SIDE + uint(gl_FragCoord.x); }\n";

/// What the kernel `fill` writes at pixel `i` (see `shaders/README.md`).
const CONTENT: &str = "
uvec4 mixed(uvec4 x) {
    x = (x ^ (x >> 16)) * 0x7feb352du;
    x = (x ^ (x >> 15)) * 0x846ca68bu;
    return x ^ (x >> 16);
}
uvec4 content(uint i) {
    return mixed((4u * i + uvec4(0, 1, 2, 3)) ^ (40u * 0x9e3779b9u));
}\n";

/// An offscreen renderbuffer of RGBA32UI, and the state of a draw. Its drop resets the state.
struct Canvas<'a> {
    gpu: &'a GlContext,
    framebuffer: glow::Framebuffer,
    renderbuffer: glow::Renderbuffer,
    vertex_array: glow::VertexArray,
    program: glow::Program,
}

impl<'a> Canvas<'a> {
    /// Prepares draws with these shaders. No pixel has the expected content yet.
    fn new(gpu: &'a GlContext, vertex: &[&str], fragment: &[&str]) -> Result<Self> {
        let program = program(gpu, vertex, fragment)?;
        let (gl, error) = (gpu.gl.glow(), anyhow::Error::msg::<String>);
        let (target, render) = (glow::FRAMEBUFFER, glow::RENDERBUFFER);
        // SAFETY: the context is current (`TestGpu::gl`), and all of these are its own.
        let (canvas, status) = unsafe {
            let renderbuffer = gl.create_renderbuffer().map_err(error)?;
            gl.bind_renderbuffer(render, Some(renderbuffer));
            gl.renderbuffer_storage(render, glow::RGBA32UI, SIDE, SIDE);
            let framebuffer = gl.create_framebuffer().map_err(error)?;
            gl.bind_framebuffer(target, Some(framebuffer));
            let colour = glow::COLOR_ATTACHMENT0;
            gl.framebuffer_renderbuffer(target, colour, render, Some(renderbuffer));
            let vertex_array = gl.create_vertex_array().map_err(error)?;
            gl.bind_vertex_array(Some(vertex_array));
            gl.use_program(Some(program));
            gl.viewport(0, 0, SIDE, SIDE);
            gl.clear_buffer_u32_slice(glow::COLOR, 0, &[0xdead_beef; 4]);
            (
                Self { gpu, framebuffer, renderbuffer, vertex_array, program },
                gl.check_framebuffer_status(target),
            )
        };
        gpu.check("the canvas")?;
        ensure!(status == glow::FRAMEBUFFER_COMPLETE, "RGBA32UI is not drawn to: {status:#06x}");
        Ok(canvas)
    }

    fn draw(&self, mode: u32, vertices: i32) -> Result<()> {
        // SAFETY: the context is current; the program and the vertex array are bound, and the buffers are long
        // enough.
        unsafe { self.gpu.gl.glow().draw_arrays(mode, 0, vertices) };
        self.gpu.check("glDrawArrays")
    }

    fn draw_everywhere(&self) -> Result<()> {
        self.draw(glow::TRIANGLES, 3)
    }

    /// Reads the pixels.
    fn read_to(&self, into: glow::PixelPackData<'_>) -> Result<()> {
        let (format, ty) = (glow::RGBA_INTEGER, glow::UNSIGNED_INT);
        // SAFETY: the context is current; the callers pass room for all pixels.
        unsafe { self.gpu.gl.glow().read_pixels(0, 0, SIDE, SIDE, format, ty, into) };
        self.gpu.check("glReadPixels")
    }

    /// Checks that each pixel shows the content of its place in the payload.
    fn check(&self) -> Result<()> {
        let mut pixels = vec![0; usize::try_from(PIXELS)?];
        self.read_to(glow::PixelPackData::Slice(Some(&mut pixels)))?;
        Ok(oracle::check(&pixels, SEED, &Passes::default())?)
    }
}

impl Drop for Canvas<'_> {
    fn drop(&mut self) {
        let gl = self.gpu.gl.glow();
        // SAFETY: the context is current, and all of these are its own.
        unsafe {
            gl.bind_buffer(glow::ARRAY_BUFFER, None);
            gl.bind_buffer(glow::PIXEL_PACK_BUFFER, None);
            gl.bind_buffer(glow::PIXEL_UNPACK_BUFFER, None);
            gl.use_program(None);
            gl.bind_vertex_array(None);
            gl.bind_framebuffer(glow::FRAMEBUFFER, None);
            gl.delete_program(self.program);
            gl.delete_vertex_array(self.vertex_array);
            gl.delete_framebuffer(self.framebuffer);
            gl.delete_renderbuffer(self.renderbuffer);
        }
    }
}

fn program(gpu: &GlContext, vertex: &[&str], fragment: &[&str]) -> Result<glow::Program> {
    let (gl, error) = (gpu.gl.glow(), anyhow::Error::msg::<String>);
    // SAFETY: the context is current, and all of these are its own.
    unsafe {
        let program = gl.create_program().map_err(error)?;
        for (kind, source) in [(glow::VERTEX_SHADER, vertex), (glow::FRAGMENT_SHADER, fragment)] {
            let shader = gl.create_shader(kind).map_err(error)?;
            gl.shader_source(shader, &format!("{HEADER}{}", source.concat()));
            gl.compile_shader(shader);
            let log = gl.get_shader_info_log(shader);
            ensure!(gl.get_shader_compile_status(shader), "{log}");
            gl.attach_shader(program, shader);
            gl.delete_shader(shader);
        }
        gl.link_program(program);
        ensure!(gl.get_program_link_status(program), "{}", gl.get_program_info_log(program));
        Ok(program)
    }
}

/// A shared buffer that Vulkan has filled from `OFFSET` on; the work is done.
fn filled(
    test_gpu: &TestGpu,
    usage: BufferUsage,
) -> Result<(gpu_interop::vulkan::Buffer, gpu_interop::gl::Buffer)> {
    let storage = BufferDesc::storage(PIXELS + OFFSET as u64);
    let desc = BufferDesc { usage: storage.usage | usage, ..storage };
    let (ours, theirs) = shared(test_gpu, &desc, BufferOptions::default())?;
    let data = oracle::filled(usize::try_from(PIXELS)?, SEED);
    test_gpu.vulkan().upload(ours.handle(), OFFSET as u64, &data)?;
    test_gpu.gl()?.endpoint.memory_barrier()?;
    Ok((ours, theirs))
}

/// A shared buffer without the expected content, for OpenGL to write.
fn blank(test_gpu: &TestGpu) -> Result<(gpu_interop::vulkan::Buffer, gpu_interop::gl::Buffer)> {
    let desc = BufferDesc::storage(PIXELS + OFFSET as u64);
    let (ours, theirs) = shared(test_gpu, &desc, BufferOptions::default())?;
    let data = oracle::filled(usize::try_from(desc.size)?, 1);
    test_gpu.vulkan().upload(ours.handle(), 0, &data)?;
    test_gpu.gl()?.endpoint.memory_barrier()?;
    Ok((ours, theirs))
}

/// Checks that Vulkan reads what OpenGL wrote from `OFFSET` on, and that the bytes before are unchanged.
fn check_in_vulkan(test_gpu: &TestGpu, ours: &gpu_interop::vulkan::Buffer) -> Result<()> {
    let gl = test_gpu.gl()?;
    // The fence comes after a barrier for what shaders wrote.
    gl.endpoint.fence()?.wait(std::time::Duration::from_secs(10))?;
    let read = test_gpu.vulkan().download(ours.handle(), 0, ours.desc().size)?;
    let (before, pixels) = read.split_at(OFFSET as usize);
    oracle::check(before, 1, &Passes::default())?;
    Ok(oracle::check(pixels, SEED, &Passes::default())?)
}

/// One point per pixel: its colour is its vertex's attribute.
fn vertex_buffer(test_gpu: &TestGpu) -> Result<()> {
    let (_ours, theirs) = filled(test_gpu, BufferUsage::VERTEX)?;
    let gpu = test_gpu.gl()?;
    let vertex = "
        layout(location = 0) in uvec4 content;
        flat out uvec4 colour;
        void main() {
            vec2 centre = vec2(gl_VertexID % SIDE, gl_VertexID / SIDE) + 0.5;
            gl_Position = vec4(centre / SIDE * 2.0 - 1.0, 0.0, 1.0);
            colour = content;
        }";
    let fragment = "
        flat in uvec4 colour;
        layout(location = 0) out uvec4 pixel;
        void main() { pixel = colour; }";
    let canvas = Canvas::new(gpu, &[vertex], &[fragment])?;
    let gl = gpu.gl.glow();
    // SAFETY: the context is current, the vertex array bound, and the buffer long enough.
    unsafe {
        gl.bind_buffer(glow::ARRAY_BUFFER, Some(theirs.name()));
        gl.vertex_attrib_pointer_i32(0, 4, glow::UNSIGNED_INT, 16, OFFSET);
        gl.enable_vertex_attrib_array(0);
    }
    canvas.draw(glow::POINTS, SIDE * SIDE)?;
    canvas.check()
}

/// Uploaded from the buffer into a texture, and drawn.
fn pixel_unpack_buffer(test_gpu: &TestGpu) -> Result<()> {
    let (_ours, theirs) = filled(test_gpu, BufferUsage::empty())?;
    let gpu = test_gpu.gl()?;
    let fragment = "
        layout(binding = 0) uniform usampler2D image;
        layout(location = 0) out uvec4 pixel;
        void main() { pixel = texelFetch(image, ivec2(gl_FragCoord.xy), 0); }";
    let canvas = Canvas::new(gpu, &[EVERYWHERE], &[fragment])?;
    let (gl, target) = (gpu.gl.glow(), glow::TEXTURE_2D);
    // SAFETY: the context is current, the texture its own, and the buffer long enough.
    let texture = unsafe {
        let texture = gl.create_texture().map_err(anyhow::Error::msg)?;
        gl.active_texture(glow::TEXTURE0);
        gl.bind_texture(target, Some(texture));
        // Integers are not interpolated.
        let nearest = glow::NEAREST as i32;
        gl.tex_parameter_i32(target, glow::TEXTURE_MIN_FILTER, nearest);
        gl.tex_parameter_i32(target, glow::TEXTURE_MAG_FILTER, nearest);
        gl.tex_storage_2d(target, 1, glow::RGBA32UI, SIDE, SIDE);
        gl.bind_buffer(glow::PIXEL_UNPACK_BUFFER, Some(theirs.name()));
        let (format, ty) = (glow::RGBA_INTEGER, glow::UNSIGNED_INT);
        let from = glow::PixelUnpackData::BufferOffset(OFFSET as u32);
        gl.tex_sub_image_2d(target, 0, 0, 0, SIDE, SIDE, format, ty, from);
        texture
    };
    let drawn = canvas.draw_everywhere().and_then(|()| canvas.check());
    // SAFETY: as above.
    unsafe { gl.delete_texture(texture) };
    drawn
}

/// Drawn by OpenGL alone, and read from the renderbuffer into the buffer.
fn pixel_pack_buffer(test_gpu: &TestGpu) -> Result<()> {
    let (ours, theirs) = blank(test_gpu)?;
    let gpu = test_gpu.gl()?;
    let fragment = "
        layout(location = 0) out uvec4 pixel;
        void main() { pixel = content(number()); }";
    let canvas = Canvas::new(gpu, &[EVERYWHERE], &[NUMBER, CONTENT, fragment])?;
    canvas.draw_everywhere()?;
    canvas.check()?;
    // SAFETY: the context is current, and the buffer its own and long enough.
    unsafe { gpu.gl.glow().bind_buffer(glow::PIXEL_PACK_BUFFER, Some(theirs.name())) };
    canvas.read_to(glow::PixelPackData::BufferOffset(OFFSET as u32))?;
    check_in_vulkan(test_gpu, &ours)
}

/// Each pixel shows its element of the buffer.
fn storage_buffer_read(test_gpu: &TestGpu) -> Result<()> {
    let (_ours, theirs) = filled(test_gpu, BufferUsage::empty())?;
    let gpu = test_gpu.gl()?;
    let fragment = "
        layout(std430, binding = 0) readonly buffer Data { uvec4 data[]; };
        layout(location = 0) out uvec4 pixel;
        void main() { pixel = data[number()]; }";
    let canvas = Canvas::new(gpu, &[EVERYWHERE], &[NUMBER, fragment])?;
    bind_storage(gpu, theirs.name());
    canvas.draw_everywhere()?;
    canvas.check()
}

/// Each pixel writes its element of the buffer.
fn storage_buffer_written(test_gpu: &TestGpu) -> Result<()> {
    let (ours, theirs) = blank(test_gpu)?;
    let gpu = test_gpu.gl()?;
    let fragment = "
        layout(std430, binding = 0) writeonly buffer Data { uvec4 data[]; };
        layout(location = 0) out uvec4 pixel;
        void main() { data[number()] = content(number()); pixel = uvec4(0); }";
    let canvas = Canvas::new(gpu, &[EVERYWHERE], &[NUMBER, CONTENT, fragment])?;
    bind_storage(gpu, theirs.name());
    canvas.draw_everywhere()?;
    check_in_vulkan(test_gpu, &ours)
}

/// Binds the part of a buffer that contains the pixels.
fn bind_storage(gpu: &GlContext, buffer: glow::Buffer) {
    let target = glow::SHADER_STORAGE_BUFFER;
    // SAFETY: the context is current, and the buffer its own and long enough; 256 is a multiple of any
    // alignment that OpenGL requires.
    unsafe {
        gpu.gl.glow().bind_buffer_range(target, 0, Some(buffer), OFFSET, PIXELS as i32);
    }
}

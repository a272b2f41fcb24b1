//! OpenGL: a context on wgpu's GPU, reading a buffer, and a filter from one texture into another.

use gpu_interop_wgpu::gpu_interop::glow::{self, HasContext as _};
use gpu_interop_wgpu::gpu_interop::headless::{Gl, GpuSelector};
use gpu_interop_wgpu::gpu_interop::{gl, vulkan};

use super::Result;
use super::draw::{self, SIZE};

/// Opens a context on the GPU of `vulkan`, which stays current.
pub fn open(vulkan: &vulkan::Endpoint) -> Result<(Gl, gl::Endpoint)> {
    let gl = Gl::open(&GpuSelector::Uuid(vulkan.identities()[0].device))?;
    let endpoint = gl.endpoint()?;
    Ok((gl, endpoint))
}

/// Reads a buffer through a private one, because NVIDIA's driver caches what it reads from an
/// import.
pub fn read_buffer(gl: &gl::Endpoint, buffer: glow::Buffer, bytes: usize) -> Result<Vec<u8>> {
    let (gl, mut seen, size) = (gl.gl(), vec![0; bytes], i32::try_from(bytes)?);
    // SAFETY: the context is current, and both buffers have that many bytes.
    unsafe {
        let copy = gl.create_buffer()?;
        gl.bind_buffer(glow::COPY_READ_BUFFER, Some(buffer));
        gl.bind_buffer(glow::COPY_WRITE_BUFFER, Some(copy));
        gl.buffer_data_size(glow::COPY_WRITE_BUFFER, size, glow::STREAM_READ);
        gl.copy_buffer_sub_data(glow::COPY_READ_BUFFER, glow::COPY_WRITE_BUFFER, 0, 0, size);
        gl.get_buffer_sub_data(glow::COPY_WRITE_BUFFER, 0, &mut seen);
        gl.delete_buffer(copy);
    }
    Ok(seen)
}

/// Reads a texture of 4 bytes per texel.
pub fn read_texture(gl: &gl::Endpoint, texture: glow::Texture, bytes: usize) -> Vec<u8> {
    let mut seen = vec![0; bytes];
    // SAFETY: the context is current, and `seen` has room.
    unsafe {
        let pixels = glow::PixelPackData::Slice(Some(&mut seen));
        gl.gl().bind_texture(glow::TEXTURE_2D, Some(texture));
        gl.gl().get_tex_image(glow::TEXTURE_2D, 0, glow::RGBA, glow::UNSIGNED_BYTE, pixels);
    }
    seen
}

/// Writes a texture of 4 bytes per texel.
pub fn write_texture(
    gl: &gl::Endpoint,
    texture: glow::Texture,
    (width, height): (i32, i32),
    texels: &[u8],
) {
    let pixels = glow::PixelUnpackData::Slice(Some(texels));
    let (format, ty) = (glow::RGBA, glow::UNSIGNED_BYTE);
    // SAFETY: the context is current, and there are as many texels.
    unsafe {
        gl.gl().bind_texture(glow::TEXTURE_2D, Some(texture));
        let target = glow::TEXTURE_2D;
        gl.gl().tex_sub_image_2d(target, 0, 0, 0, width, height, format, ty, pixels);
    }
}

/// Draws a kaleidoscope of a texture.
pub struct Kaleidoscope {
    program: glow::Program,
    framebuffer: glow::Framebuffer,
    vertices: glow::VertexArray,
}

const VERTEX: &str = "#version 330 core
void main() {
    gl_Position = vec4(vec2(gl_VertexID & 1, gl_VertexID >> 1) * 4.0 - 1.0, 0.0, 1.0);
}";

const FRAGMENT: &str = "#version 330 core
uniform sampler2D scene;
out vec4 color;
void main() {
    ivec2 size = textureSize(scene, 0);
    ivec2 at = min(abs(ivec2(gl_FragCoord.xy) - size / 2) * 2, size - 1);
    color = texelFetch(scene, at.x > at.y ? at.yx : at.xy, 0).bgra;
}";

/// The texels that the filter draws from the picture of `round`.
pub fn expected(round: u32) -> Vec<u8> {
    let texel = |x: u32, y: u32| {
        let [x, y] = [x, y].map(|at| (at.abs_diff(SIZE / 2) * 2).min(SIZE - 1));
        let [r, g, b, a] = draw::texel(x.min(y), x.max(y), round);
        [b, g, r, a]
    };
    (0..SIZE * SIZE).flat_map(|at| texel(at % SIZE, at / SIZE)).collect()
}

impl Kaleidoscope {
    /// Prepares drawing.
    pub fn new(gl: &gl::Endpoint) -> Result<Self> {
        let gl = gl.gl();
        // SAFETY: ordinary calls; the context is current.
        unsafe {
            let program = gl.create_program()?;
            for (stage, source) in
                [(glow::VERTEX_SHADER, VERTEX), (glow::FRAGMENT_SHADER, FRAGMENT)]
            {
                let shader = gl.create_shader(stage)?;
                gl.shader_source(shader, source);
                gl.compile_shader(shader);
                gl.attach_shader(program, shader);
            }
            gl.link_program(program);
            if !gl.get_program_link_status(program) {
                return Err(gl.get_program_info_log(program).into());
            }
            let (framebuffer, vertices) = (gl.create_framebuffer()?, gl.create_vertex_array()?);
            Ok(Self { program, framebuffer, vertices })
        }
    }

    /// Samples `scene` and draws into `result`, both of `size` × `size` texels.
    pub fn draw(&self, gl: &gl::Endpoint, scene: glow::Texture, result: glow::Texture, size: u32) {
        let (gl, side) = (gl.gl(), size as i32);
        // SAFETY: ordinary calls; the context is current.
        unsafe {
            gl.bind_framebuffer(glow::FRAMEBUFFER, Some(self.framebuffer));
            gl.framebuffer_texture_2d(
                glow::FRAMEBUFFER,
                glow::COLOR_ATTACHMENT0,
                glow::TEXTURE_2D,
                Some(result),
                0,
            );
            gl.viewport(0, 0, side, side);
            gl.bind_texture(glow::TEXTURE_2D, Some(scene));
            gl.tex_parameter_i32(glow::TEXTURE_2D, glow::TEXTURE_MIN_FILTER, glow::NEAREST as i32);
            gl.use_program(Some(self.program));
            gl.bind_vertex_array(Some(self.vertices));
            gl.draw_arrays(glow::TRIANGLES, 0, 3);
        }
    }
}

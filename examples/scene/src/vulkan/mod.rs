//! Drawing with Vulkan.

mod memory;
mod objects;

use anyhow::Result;
use gpu_interop::ash::vk;
use gpu_interop::headless::Vulkan;

use self::memory::HostBuffer;
use self::objects::{Objects, Reads};
use super::Canvas;
use super::drawing::{Drawing, INSTANCES, Instance, Uniforms};
use super::mesh::Meshes;

pub use self::memory::{ImageView, PrivateImage, PrivateImageInfo};

/// The fragment shader of [`knot`](super::knot), as SPIR-V.
pub const FRAGMENT_SCENE: &[u8] = include_bytes!("../../../../shaders/scene.frag.spv");
/// The fragment shader of [`turntable`](super::turntable), as SPIR-V. It samples a picture.
pub const FRAGMENT_CUBE: &[u8] = include_bytes!("../../../../shaders/cube.frag.spv");
/// The fragment shader of [`Drawing::picture`], as SPIR-V. It samples a picture.
pub const FRAGMENT_PICTURE: &[u8] = include_bytes!("../../../../shaders/picture.frag.spv");

/// Draws [`Drawing`]s to one image view with one fragment shader.
///
/// For use by one thread. Nothing submitted with it may be in flight when it records again or is dropped.
#[derive(Debug)]
pub struct Painter {
    vulkan: Vulkan,
    canvas: Canvas,
    meshes: Meshes,
    vertices: HostBuffer,
    indices: HostBuffer,
    instances: HostBuffer,
    uniforms: HostBuffer,
    objects: Objects,
}

impl Painter {
    /// Creates a painter of `canvas` on `target`, a view of one level and layer of a colour image of `format`
    /// with one sample and the usage of a colour attachment. The fragment shader samples nothing.
    ///
    /// # Errors
    /// If the driver fails.
    pub fn new(
        vulkan: &Vulkan,
        fragment: &[u8],
        format: vk::Format,
        canvas: Canvas,
        target: vk::ImageView,
    ) -> Result<Self> {
        Self::create(vulkan, fragment, format, canvas, target, None)
    }

    /// Same as [`new`](Self::new), with a fragment shader that samples `picture` in `SHADER_READ_ONLY_OPTIMAL`.
    /// View and sampler must outlive the painter.
    ///
    /// # Errors
    /// If the driver fails.
    pub fn with_picture(
        vulkan: &Vulkan,
        fragment: &[u8],
        format: vk::Format,
        canvas: Canvas,
        target: vk::ImageView,
        picture: (vk::ImageView, vk::Sampler),
    ) -> Result<Self> {
        Self::create(vulkan, fragment, format, canvas, target, Some(picture))
    }

    fn create(
        vulkan: &Vulkan,
        fragment: &[u8],
        format: vk::Format,
        canvas: Canvas,
        target: vk::ImageView,
        picture: Option<(vk::ImageView, vk::Sampler)>,
    ) -> Result<Self> {
        let meshes = Meshes::new();
        let buffer = |bytes: usize, usage| HostBuffer::new(vulkan, bytes as u64, usage);
        let (vertex, index) = (bytes_of(&meshes.vertices), bytes_of(&meshes.indices));
        let vertices = buffer(vertex.len(), vk::BufferUsageFlags::VERTEX_BUFFER)?;
        vertices.write(vertex)?;
        let indices = buffer(index.len(), vk::BufferUsageFlags::INDEX_BUFFER)?;
        indices.write(index)?;
        let instances = INSTANCES * size_of::<Instance>();
        let instances = buffer(instances, vk::BufferUsageFlags::VERTEX_BUFFER)?;
        let uniforms = buffer(size_of::<Uniforms>(), vk::BufferUsageFlags::UNIFORM_BUFFER)?;
        let reads = Reads { uniforms: uniforms.buffer, picture };
        let objects = Objects::new(vulkan, fragment, format, canvas, target, reads)?;
        let vulkan = vulkan.clone();
        Ok(Self { vulkan, canvas, meshes, vertices, indices, instances, uniforms, objects })
    }

    /// Records the drawing of `drawing`, outside of a render pass.
    ///
    /// The target's old content and layout do not matter; afterwards it is in `COLOR_ATTACHMENT_OPTIMAL`. Its
    /// earlier use must be done, or made available to the stage `COLOR_ATTACHMENT_OUTPUT`, which writes it.
    ///
    /// # Errors
    /// If the driver fails to map.
    pub fn record(&self, command: vk::CommandBuffer, drawing: &Drawing) -> Result<()> {
        self.uniforms.write(bytemuck::bytes_of(&drawing.uniforms))?;
        self.instances.write(bytes_of(&drawing.instances))?;
        let (device, objects) = (self.vulkan.device(), &self.objects);
        let (width, height) = self.canvas.size;
        let extent = vk::Extent2D { width, height };
        let area = vk::Rect2D { extent, ..Default::default() };
        let viewport = vk::Viewport {
            width: width as f32,
            height: height as f32,
            max_depth: 1.0,
            ..Default::default()
        };
        let clear = objects.clear_values();
        let begin = vk::RenderPassBeginInfo::default()
            .render_pass(objects.render_pass)
            .framebuffer(objects.framebuffer)
            .render_area(area)
            .clear_values(&clear);
        let point = vk::PipelineBindPoint::GRAPHICS;
        let layout = objects.layout.handle();
        // SAFETY: the command buffer is being recorded, outside of a render pass (the caller's); all that
        // is bound is alive as long as the painter, which outlives the submit.
        unsafe {
            device.cmd_begin_render_pass(command, &begin, vk::SubpassContents::INLINE);
            device.cmd_bind_pipeline(command, point, objects.pipeline);
            device.cmd_set_viewport(command, 0, &[viewport]);
            device.cmd_set_scissor(command, 0, &[area]);
            device.cmd_bind_descriptor_sets(command, point, layout, 0, &[objects.set], &[]);
            let buffers = [self.vertices.buffer, self.instances.buffer];
            device.cmd_bind_vertex_buffers(command, 0, &buffers, &[0, 0]);
            device.cmd_bind_index_buffer(command, self.indices.buffer, 0, vk::IndexType::UINT32);
            for draw in &drawing.draws {
                let (range, instances) = (self.meshes.range(draw.mesh), &draw.instances);
                let (count, first) = (range.end - range.start, instances.start);
                let times = instances.end - first;
                device.cmd_draw_indexed(command, count, times, range.start, 0, first);
            }
            device.cmd_end_render_pass(command);
        }
        Ok(())
    }
}

fn bytes_of<T: bytemuck::NoUninit>(items: &[T]) -> &[u8] {
    bytemuck::cast_slice(items)
}

//! A picture drawn by wgpu, and its texels as the CPU computes them.

/// The number of texels in a row and in a column.
pub const SIZE: u32 = 256;

const PICTURE: &str = "
struct Corner { @builtin(position) position: vec4<f32>, @interpolate(flat) @location(0) round: u32 };

@vertex
fn corner(@builtin(vertex_index) vertex: u32, @builtin(instance_index) round: u32) -> Corner {
    let at = vec2<f32>(f32(vertex & 1u), f32(vertex >> 1u)) * 4.0 - 1.0;
    return Corner(vec4<f32>(at, 0.0, 1.0), round);
}

@fragment
fn texel(corner: Corner) -> @location(0) vec4<f32> {
    let at = vec2<u32>(corner.position.xy);
    let wave = at.x * at.x + at.y * at.y;
    let bytes = vec4<u32>((wave >> 7u) + corner.round * 5u, (at.x * at.y >> 6u) + corner.round,
        255u - (wave >> 9u), 255u) & vec4<u32>(255u);
    return vec4<f32>(bytes) / 255.0;
}";

/// The texel that [`Picture`] draws at `(x, y)` in `round`.
pub fn texel(x: u32, y: u32, round: u32) -> [u8; 4] {
    let wave = x * x + y * y;
    let bytes = [(wave >> 7) + round * 5, ((x * y) >> 6) + round, 255 - (wave >> 9), 255];
    bytes.map(|byte| (byte & 255) as u8)
}

/// Draws the picture into a texture.
pub struct Picture {
    device: wgpu::Device,
    queue: wgpu::Queue,
    pipeline: wgpu::RenderPipeline,
    view: wgpu::TextureView,
}

impl Picture {
    /// Prepares drawing into `texture`, of [`SIZE`] × [`SIZE`] texels.
    pub fn new(device: &wgpu::Device, queue: &wgpu::Queue, texture: &wgpu::Texture) -> Self {
        let source = wgpu::ShaderSource::Wgsl(PICTURE.into());
        let module =
            device.create_shader_module(wgpu::ShaderModuleDescriptor { label: None, source });
        let pipeline = device.create_render_pipeline(&wgpu::RenderPipelineDescriptor {
            label: None,
            layout: None,
            vertex: wgpu::VertexState {
                module: &module,
                entry_point: Some("corner"),
                compilation_options: Default::default(),
                buffers: &[],
            },
            primitive: Default::default(),
            depth_stencil: None,
            multisample: Default::default(),
            fragment: Some(wgpu::FragmentState {
                module: &module,
                entry_point: Some("texel"),
                compilation_options: Default::default(),
                targets: &[Some(texture.format().into())],
            }),
            multiview_mask: None,
            cache: None,
        });
        let view = texture.create_view(&Default::default());
        Self { device: device.clone(), queue: queue.clone(), pipeline, view }
    }

    /// Submits the drawing of the picture of `round`.
    pub fn submit(&self, round: u32) {
        let mut encoder = self.device.create_command_encoder(&Default::default());
        let attachment = wgpu::RenderPassColorAttachment {
            view: &self.view,
            depth_slice: None,
            resolve_target: None,
            ops: wgpu::Operations {
                load: wgpu::LoadOp::Clear(wgpu::Color::BLACK),
                store: wgpu::StoreOp::Store,
            },
        };
        let mut pass = encoder.begin_render_pass(&wgpu::RenderPassDescriptor {
            color_attachments: &[Some(attachment)],
            ..Default::default()
        });
        pass.set_pipeline(&self.pipeline);
        pass.draw(0..3, round..round + 1);
        drop(pass);
        self.queue.submit([encoder.finish()]);
    }
}

//! What the examples have in common, none of it about sharing: opening wgpu, running a shader,
//! reading back.

// Each example uses some of it.
#![allow(dead_code, unreachable_pub)]

pub mod draw;
pub mod gl;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;

pub type Result<T, E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

/// Runs an example, which returns the number of wrong payloads. Exits with 0 if all are right, 2 if
/// something is missing.
pub fn run(example: fn() -> Result<usize>) -> ExitCode {
    count_messages();
    match example() {
        Ok(wrong) => {
            println!("{wrong} of {} payloads wrong", rounds());
            let messages = MESSAGES.load(Ordering::Relaxed);
            println!("{messages} messages from the validation layer");
            ExitCode::from(u8::from(wrong + messages > 0))
        }
        Err(error) => {
            eprintln!("{error}");
            let is_missing = matches!(
                error.downcast_ref(),
                Some(gpu_interop_wgpu::gpu_interop::Error::Missing(_))
            );
            ExitCode::from(if is_missing { 2 } else { 1 })
        }
    }
}

/// Starts counting the messages of the validation layer, once.
pub fn count_messages() {
    // Only the first logger is set.
    let _ = log::set_logger(&Messages);
    log::set_max_level(log::LevelFilter::Debug);
}

/// Fails if the validation layer has reported something, or is absent.
pub fn expect_no_messages() {
    assert_eq!(MESSAGES.load(Ordering::Relaxed), 0, "messages from the validation layer");
}

/// The number of payloads to pass: the first argument, default 10.
pub fn rounds() -> u32 {
    std::env::args().nth(1).and_then(|argument| argument.parse().ok()).unwrap_or(10)
}

static MESSAGES: AtomicUsize = AtomicUsize::new(0);

/// Prints warnings and errors, and counts those of the validation layer. Its absence counts, too, if
/// `INTEROP_REQUIRE` is set, as in CI.
struct Messages;

impl log::Log for Messages {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let is_warning = record.level() <= log::Level::Warn;
        if is_warning {
            eprintln!("{}: {}", record.target(), record.args());
        }
        if record.target() == "wgpu_hal::vulkan::instance" {
            let text = record.args().to_string();
            let is_absent = text.contains("unable to find layer")
                && std::env::var_os("INTEROP_REQUIRE").is_some();
            if is_absent || (is_warning && text.starts_with("VALIDATION")) {
                MESSAGES.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    fn flush(&self) {}
}

/// Opens an adapter on wgpu's Vulkan backend, with the validation layer if it is installed.
pub fn adapter() -> Result<wgpu::Adapter> {
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor {
        backends: wgpu::Backends::VULKAN,
        flags: wgpu::InstanceFlags::VALIDATION,
        ..wgpu::InstanceDescriptor::new_without_display_handle()
    });
    Ok(pollster::block_on(instance.request_adapter(&wgpu::RequestAdapterOptions::default()))?)
}

/// A compute shader that fills a buffer with [`word`]s.
pub struct Fill {
    device: wgpu::Device,
    queue: wgpu::Queue,
    pipeline: wgpu::ComputePipeline,
    round: wgpu::Buffer,
    group: wgpu::BindGroup,
    count: u32,
}

/// The word that [`Fill`] writes at `index` in `round`.
pub fn word(index: u32, round: u32) -> u32 {
    (0..64).fold(index ^ round.wrapping_mul(0x9e37_79b9), |word, _| {
        word.wrapping_mul(1_664_525).wrapping_add(1_013_904_223)
    })
}

const FILL: &str = "
@group(0) @binding(0) var<storage, read_write> words: array<u32>;
@group(0) @binding(1) var<uniform> round: u32;

@compute @workgroup_size(64)
fn fill(@builtin(global_invocation_id) id: vec3<u32>) {
    var word = id.x ^ (round * 0x9e3779b9u);
    for (var i = 0; i < 64; i++) {
        word = word * 1664525u + 1013904223u;
    }
    words[id.x] = word;
}";

impl Fill {
    /// Prepares filling `buffer`, whose size is a multiple of 256 bytes.
    pub fn new(device: &wgpu::Device, queue: &wgpu::Queue, buffer: &wgpu::Buffer) -> Self {
        let source = wgpu::ShaderSource::Wgsl(FILL.into());
        let module =
            device.create_shader_module(wgpu::ShaderModuleDescriptor { label: None, source });
        let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: None,
            layout: None,
            module: &module,
            entry_point: Some("fill"),
            compilation_options: wgpu::PipelineCompilationOptions::default(),
            cache: None,
        });
        let round = device.create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size: 4,
            usage: wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        let entry = |binding, resource| wgpu::BindGroupEntry { binding, resource };
        let group = device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: None,
            layout: &pipeline.get_bind_group_layout(0),
            entries: &[entry(0, buffer.as_entire_binding()), entry(1, round.as_entire_binding())],
        });
        let count = (buffer.size() / 4) as u32;
        Self { device: device.clone(), queue: queue.clone(), pipeline, round, group, count }
    }

    /// Submits the filling of the buffer with the words of `round`.
    pub fn submit(&self, round: u32) {
        self.queue.write_buffer(&self.round, 0, &round.to_le_bytes());
        let mut encoder = self.device.create_command_encoder(&Default::default());
        let mut pass = encoder.begin_compute_pass(&Default::default());
        pass.set_pipeline(&self.pipeline);
        pass.set_bind_group(0, &self.group, &[]);
        pass.dispatch_workgroups(self.count / 64, 1, 1);
        drop(pass);
        self.queue.submit([encoder.finish()]);
    }
}

/// Copies a buffer to one that can be mapped, and returns its bytes.
pub fn read_buffer(device: &wgpu::Device, queue: &wgpu::Queue, buffer: &wgpu::Buffer) -> Vec<u8> {
    read(device, queue, buffer.size(), |encoder, to| {
        encoder.copy_buffer_to_buffer(buffer, 0, to, 0, buffer.size());
    })
}

/// Copies a texture of 4 bytes per texel, whose rows are a multiple of 64 texels, and returns its
/// bytes.
pub fn read_texture(
    device: &wgpu::Device,
    queue: &wgpu::Queue,
    texture: &wgpu::Texture,
) -> Vec<u8> {
    let pitch = texture.width() * 4;
    read(device, queue, u64::from(pitch * texture.height()), |encoder, to| {
        let layout = wgpu::TexelCopyBufferLayout {
            offset: 0,
            bytes_per_row: Some(pitch),
            rows_per_image: None,
        };
        let to = wgpu::TexelCopyBufferInfo { buffer: to, layout };
        encoder.copy_texture_to_buffer(texture.as_image_copy(), to, texture.size());
    })
}

fn read(
    device: &wgpu::Device,
    queue: &wgpu::Queue,
    size: u64,
    copy: impl FnOnce(&mut wgpu::CommandEncoder, &wgpu::Buffer),
) -> Vec<u8> {
    let staging = device.create_buffer(&wgpu::BufferDescriptor {
        label: None,
        size,
        usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
        mapped_at_creation: false,
    });
    let mut encoder = device.create_command_encoder(&Default::default());
    copy(&mut encoder, &staging);
    queue.submit([encoder.finish()]);
    staging.map_async(wgpu::MapMode::Read, .., |mapped| mapped.expect("the buffer can be mapped"));
    device.poll(wgpu::PollType::wait_indefinitely()).expect("the work finishes");
    let bytes = staging.get_mapped_range(..).expect("the buffer is mapped").to_vec();
    staging.unmap();
    bytes
}

/// Submits work to the queue until it is dropped.
pub struct Noise {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<usize>>,
}

impl Noise {
    /// Starts a thread that submits.
    pub fn start(device: &wgpu::Device, queue: &wgpu::Queue) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (device, queue, stopped) = (device.clone(), queue.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            let own = device.create_buffer(&wgpu::BufferDescriptor {
                label: None,
                size: 4096,
                usage: wgpu::BufferUsages::COPY_DST,
                mapped_at_creation: false,
            });
            let mut submits = 0;
            while !stopped.load(Ordering::Relaxed) {
                let mut encoder = device.create_command_encoder(&Default::default());
                encoder.clear_buffer(&own, 0, None);
                queue.submit([encoder.finish()]);
                submits += 1;
            }
            submits
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Noise {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let submits = self.thread.take().map(JoinHandle::join);
        if let Some(Ok(submits)) = submits {
            println!("{submits} submits by another thread");
        }
    }
}

/// A CUDA kernel that adds `addend` to each of `count` words. It loads in every driver since CUDA
/// 12.
pub const ADD: &str = "
.version 8.0
.target sm_75
.address_size 64
.visible .entry add(.param .u64 words, .param .u32 count, .param .u32 addend) {
    .reg .pred %is_past;
    .reg .b32 %r<7>;
    .reg .b64 %d<3>;
    ld.param.u64 %d0, [words];
    ld.param.u32 %r0, [count];
    ld.param.u32 %r1, [addend];
    mov.u32 %r2, %ctaid.x;
    mov.u32 %r3, %ntid.x;
    mov.u32 %r4, %tid.x;
    mad.lo.s32 %r5, %r2, %r3, %r4;
    setp.ge.u32 %is_past, %r5, %r0;
    @%is_past bra end;
    cvta.to.global.u64 %d0, %d0;
    mul.wide.u32 %d1, %r5, 4;
    add.s64 %d2, %d0, %d1;
    ld.global.u32 %r6, [%d2];
    add.u32 %r6, %r6, %r1;
    st.global.u32 [%d2], %r6;
end:
    ret;
}";

/// Writes the two pictures of round 1 side by side, if a PNG file is named on the command line.
pub fn save(round: u32, pictures: impl FnOnce() -> [Vec<u8>; 2]) -> Result<()> {
    let Some(path) = std::env::args().nth(2).filter(|_| round == 1) else { return Ok(()) };
    let row = draw::SIZE as usize * 4;
    let [left, right] = pictures();
    let rows = left.chunks(row).zip(right.chunks(row));
    let bytes: Vec<u8> = rows.flat_map(|(left, right)| [left, right].concat()).collect();
    let mut encoder = png::Encoder::new(std::fs::File::create(path)?, draw::SIZE * 2, draw::SIZE);
    encoder.set_color(png::ColorType::Rgba);
    encoder.write_header()?.write_image_data(&bytes)?;
    Ok(())
}

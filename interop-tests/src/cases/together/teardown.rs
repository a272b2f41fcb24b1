//! Group G: contexts, endpoints, buffers and semaphores go, in every order.

use std::any::Any;

use anyhow::{Context, Result, ensure};
use gpu_interop::SemaphoreKind::Timeline;
use gpu_interop::cudarc::driver::CudaContext;
use gpu_interop::glow::{self, HasContext as _};
use gpu_interop::headless::{Gl, Vulkan};
use gpu_interop::vulkan::BufferOptions;
use gpu_interop::{Api, BufferDesc, cuda, gl, vulkan};

use crate::cases::together::orders;
use crate::harness::{Case, Need, TestGpu, open_descriptors};
use interop_gpu::oracle::{self, Turns};

const DESC: BufferDesc = BufferDesc::storage(4096);
const SEED: u32 = 9;
/// Each makes a context in every API, which takes a GPU's driver its time.
const LOTS: u32 = 40;

pub(crate) fn cases() -> Vec<Case> {
    let gl = [Need::Gl, Need::Semaphore(Api::OpenGl, Timeline)];
    let cuda = [Need::Cuda, Need::Semaphore(Api::Cuda, Timeline)];
    vec![
        Case::new("vulkan→gl/opaque_fd/buffer/teardown_of_devices/59", of_devices)
            .needs(&[Need::Gl]),
        Case::new("vulkan→gl/opaque_fd/buffer/teardown_of_instances/59", of_instances)
            .needs(&[Need::Gl]),
        Case::new("vulkan→cuda/opaque_fd/buffer+timeline/teardown_in_one_context/59", of_cuda)
            .needs(&cuda),
        Case::new("vulkan→cuda+gl/opaque_fd/buffer+timeline/teardown_of_contexts/59", of_all)
            .needs(&cuda)
            .needs(&gl),
    ]
}

/// Things that share a buffer and go one after the other, and the machine's own view of the buffer,
/// which stays.
struct Shared {
    things: Vec<(&'static str, Option<Box<dyn Any>>)>,
    witness: vulkan::Buffer,
}

impl Shared {
    /// Lets the machine write what all views must see.
    fn new(machine: &TestGpu, made: &vulkan::Buffer) -> Result<Self> {
        let gpu = machine.vulkan();
        let witness = gpu.endpoint.import_buffer(made.export()?)?;
        gpu.upload(witness.handle(), 0, &oracle::filled(DESC.size as usize, SEED))?;
        Ok(Self { things: Vec::new(), witness })
    }

    fn add(&mut self, name: &'static str, thing: impl Any) {
        self.things.push((name, Some(Box::new(thing))));
    }

    /// Drops all things in this order; then the memory must still be what it was.
    fn tear_down(mut self, machine: &TestGpu, order: &[usize]) -> Result<()> {
        let names: Vec<_> = order.iter().map(|&next| self.things[next].0).collect();
        for &next in order {
            self.things[next].1 = None;
        }
        let data = machine.vulkan().download(self.witness.handle(), 0, DESC.size)?;
        oracle::check(&data, SEED, &Turns::default())
            .with_context(|| format!("after these went: {names:?}"))
    }
}

/// Rounds in which a driver may still open what it keeps: NVIDIA's (580.159) now and then leaves one
/// `/dev/nvidia0` to the next opening.
const WARM_UP: usize = 8;

/// Shares and tears down once for each order. No descriptor is left.
fn in_turn(
    machine: &TestGpu,
    orders: impl IntoIterator<Item = Vec<usize>>,
    share: impl Fn() -> Result<Shared>,
) -> Result<()> {
    let mut most = 0;
    for (round, order) in orders.into_iter().enumerate() {
        let shared = share()?;
        ensure!(shared.things.len() == order.len());
        if round % 2 == 1 {
            // Now the things go while another OpenGL context is current than theirs.
            machine.gl()?;
        }
        shared.tear_down(machine, &order)?;
        let now = open_descriptors();
        if round < WARM_UP {
            most = most.max(now.count());
        }
        ensure!(
            now.count() <= most,
            "round {round}: {} descriptors, not {most}: {now:?}",
            now.count()
        );
    }
    Ok(())
}

/// A device and a context, an endpoint of each, and their views of a buffer: 720 orders.
fn of_devices(machine: &TestGpu) -> Result<()> {
    // A GPU's driver takes its time to make a device: there every seventh order.
    let step = if machine.is_hardware() { 7 } else { 1 };
    in_turn(machine, orders(6).into_iter().step_by(step), || {
        let device = machine.vulkan().vulkan.second_device()?;
        let context = Gl::open(machine.wish())?;
        let (here, there) = (device.endpoint()?, context.endpoint()?);
        let made = here.create_buffer(&DESC, BufferOptions::default())?;
        let imported = there.import_buffer(made.export()?)?;
        let mut shared = Shared::new(machine, &made)?;
        require_seen(&there, &imported)?;
        shared.add("device", device);
        shared.add("OpenGL's context", context);
        shared.add("Vulkan's endpoint", here);
        shared.add("OpenGL's endpoint", there);
        shared.add("Vulkan's buffer", made);
        shared.add("OpenGL's buffer", imported);
        Ok(shared)
    })
}

/// As [`of_devices`], where the device takes its instance along: 24 orders.
fn of_instances(machine: &TestGpu) -> Result<()> {
    in_turn(machine, orders(4), || {
        let device = Vulkan::open(machine.wish(), &TestGpu::options())?;
        let context = Gl::open(machine.wish())?;
        let there = context.endpoint()?;
        let made = device.endpoint()?.create_buffer(&DESC, BufferOptions::default())?;
        let imported = there.import_buffer(made.export()?)?;
        let mut shared = Shared::new(machine, &made)?;
        require_seen(&there, &imported)?;
        shared.add("instance and device", device);
        shared.add("OpenGL's context", context);
        shared.add("Vulkan's buffer", made);
        shared.add("OpenGL's buffer", imported);
        Ok(shared)
    })
}

/// What CUDA has in a context that stays, in 720 orders: nothing goes wrong unseen.
fn of_cuda(machine: &TestGpu) -> Result<()> {
    let (vulkan, cuda) = (&machine.vulkan().endpoint, machine.cuda()?);
    let context = cuda.cuda.context();
    context.check_err()?;
    in_turn(machine, orders(6), || {
        let (endpoint, stream) = (cuda.cuda.endpoint()?, context.new_stream()?);
        let made = vulkan.create_buffer(&DESC, BufferOptions::default())?;
        let timeline = vulkan.create_semaphore(Timeline)?;
        let shared_timeline = endpoint.import_semaphore(timeline.export()?)?;
        let memory = endpoint.import_memory(made.memory().export()?)?;
        let (whole, part) = (memory.buffer(0, &DESC)?, memory.buffer(8, &BufferDesc::storage(8))?);
        let mut shared = Shared::new(machine, &made)?;
        let seen = stream.clone_dtoh(&whole.as_view::<u8>()?)?;
        endpoint.signal(&stream, &shared_timeline, Some(1))?;
        stream.synchronize()?;
        oracle::check(&seen, SEED, &Turns::default())?;
        ensure!(timeline.value()? == 1);
        shared.add("endpoint", endpoint);
        shared.add("stream", stream);
        shared.add("semaphore", shared_timeline);
        shared.add("memory", memory);
        shared.add("whole", whole);
        shared.add("part", part);
        Ok(shared)
    })?;
    Ok(context.check_err()?)
}

/// All that the three APIs have, in orders drawn by lot: those of thirteen things are too many.
fn of_all(machine: &TestGpu) -> Result<()> {
    let lots = (0..LOTS).map(|seed| shuffled(13, seed));
    in_turn(machine, lots, || {
        let device = machine.vulkan().vulkan.second_device()?;
        let gl_context = Gl::open(machine.wish())?;
        // Not the primary context, which the machine keeps alive.
        let ordinal = machine.cuda()?.cuda.context().ordinal();
        let cuda_context = CudaContext::new_non_primary(ordinal, 0)?;
        let stream = cuda_context.new_stream()?;
        let (vulkan, gl) = (device.endpoint()?, gl_context.endpoint()?);
        let cuda = cuda::Endpoint::new(cuda_context.clone())?;
        let made = vulkan.create_buffer(&DESC, BufferOptions::default())?;
        let timeline = vulkan.create_semaphore(Timeline)?;
        let in_gl = (gl.import_buffer(made.export()?)?, gl.import_semaphore(timeline.export()?)?);
        let in_cuda =
            (cuda.import_buffer(made.export()?)?, cuda.import_semaphore(timeline.export()?)?);
        let mut shared = Shared::new(machine, &made)?;

        let seen = stream.clone_dtoh(&in_cuda.0.as_view::<u8>()?)?;
        cuda.signal(&stream, &in_cuda.1, Some(1))?;
        stream.synchronize()?;
        oracle::check(&seen, SEED, &Turns::default())?;
        gl.wait(&in_gl.1, Some(1), &[&in_gl.0], &[])?;
        require_seen(&gl, &in_gl.0)?;
        gl.signal(&in_gl.1, Some(2), &[&in_gl.0], &[])?;
        timeline.wait(2, std::time::Duration::from_secs(10))?;

        shared.add("device", device);
        shared.add("Vulkan's endpoint", vulkan);
        shared.add("Vulkan's buffer", made);
        shared.add("Vulkan's semaphore", timeline);
        shared.add("OpenGL's context", gl_context);
        shared.add("OpenGL's endpoint", gl);
        shared.add("OpenGL's buffer", in_gl.0);
        shared.add("OpenGL's semaphore", in_gl.1);
        shared.add("CUDA's context", cuda_context);
        shared.add("CUDA's endpoint", cuda);
        shared.add("CUDA's buffer", in_cuda.0);
        shared.add("CUDA's semaphore", in_cuda.1);
        shared.add("CUDA's stream", stream);
        Ok(shared)
    })
}

/// Checks that OpenGL's buffer has what the machine wrote. The context is current.
fn require_seen(endpoint: &gl::Endpoint, buffer: &gl::Buffer) -> Result<()> {
    endpoint.memory_barrier()?;
    let mut data = vec![0u8; DESC.size as usize];
    let gl = endpoint.gl();
    // SAFETY: the context was opened just now and is current; the buffer is its own and that long.
    unsafe {
        gl.bind_buffer(glow::COPY_READ_BUFFER, Some(buffer.name()));
        gl.get_buffer_sub_data(glow::COPY_READ_BUFFER, 0, &mut data);
        gl.bind_buffer(glow::COPY_READ_BUFFER, None);
    }
    Ok(oracle::check(&data, SEED, &Turns::default())?)
}

/// An order of `count` things; another for another seed.
fn shuffled(count: usize, seed: u32) -> Vec<usize> {
    let mut order: Vec<_> = (0..count).collect();
    for last in (1..count).rev() {
        order.swap(last, oracle::hash(last as u32, seed) as usize % (last + 1));
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lots_are_orders_and_differ() {
        let lots: std::collections::BTreeSet<_> =
            (0..LOTS).map(|seed| shuffled(13, seed)).collect();
        assert_eq!(lots.len(), LOTS as usize);
        for lot in lots {
            assert!((0..13).all(|thing| lot.contains(&thing)), "{lot:?}");
        }
    }
}

//! Family G: contexts, endpoints, buffers and semaphores are dropped in every order.

use std::any::Any;

use anyhow::{Context, Result, ensure};
use gpu_interop::SemaphoreKind::Timeline;
use gpu_interop::cudarc::driver::CudaContext;
use gpu_interop::glow::{self, HasContext as _};
use gpu_interop::headless::{Gl, Vulkan};
use gpu_interop::vulkan::BufferOptions;
use gpu_interop::{Api, BufferDesc, cuda, gl, vulkan};

use crate::harness::{Case, Need, TestGpu, open_descriptors};
use interop_gpu::oracle::{self, Passes};

const DESC: BufferDesc = BufferDesc::storage(4096);
const SEED: u32 = 9;
/// Few, since each opens a context in every API, which is slow on a GPU.
const RANDOM_ORDERS: u32 = 40;

pub(in crate::cases) fn cases() -> Vec<Case> {
    let gl = [Need::Gl, Need::Semaphore(Api::OpenGl, Timeline)];
    let cuda = [Need::Cuda, Need::Semaphore(Api::Cuda, Timeline)];
    vec![
        Case::new("vulkan→gl/opaque_fd/buffer/teardown_of_devices/59", of_devices)
            .needs(&[Need::Gl])
            .slow(),
        Case::new("vulkan→gl/opaque_fd/buffer/teardown_of_instances/59", of_instances)
            .needs(&[Need::Gl]),
        Case::new("vulkan→cuda/opaque_fd/buffer+timeline/teardown_in_one_context/59", of_cuda)
            .needs(&cuda),
        Case::new("vulkan→cuda+gl/opaque_fd/buffer+timeline/teardown_of_contexts/59", of_all)
            .needs(&cuda)
            .needs(&gl),
    ]
}

/// Objects that share a buffer and are dropped one after the other, and the suite's own view of the
/// buffer, which stays.
struct Shared {
    objects: Vec<(&'static str, Option<Box<dyn Any>>)>,
    probe: vulkan::Buffer,
}

impl Shared {
    /// Writes what all views must read.
    fn new(test_gpu: &TestGpu, made: &vulkan::Buffer) -> Result<Self> {
        let gpu = test_gpu.vulkan();
        let probe = gpu.endpoint.import_buffer(made.export()?)?;
        gpu.upload(probe.handle(), 0, &oracle::filled(DESC.size as usize, SEED))?;
        Ok(Self { objects: Vec::new(), probe })
    }

    fn add(&mut self, name: &'static str, object: impl Any) {
        self.objects.push((name, Some(Box::new(object))));
    }

    /// Drops all objects in this order and checks that the memory is unchanged.
    fn tear_down(mut self, test_gpu: &TestGpu, order: &[usize]) -> Result<()> {
        let names: Vec<_> = order.iter().map(|&next| self.objects[next].0).collect();
        for &next in order {
            self.objects[next].1 = None;
        }
        let data = test_gpu.vulkan().download(self.probe.handle(), 0, DESC.size)?;
        oracle::check(&data, SEED, &Passes::default())
            .with_context(|| format!("after these were dropped: {names:?}"))
    }
}

/// Rounds in which a driver may still open what it keeps: NVIDIA's (580.159) sometimes keeps one
/// `/dev/nvidia0` until the next opening.
const WARM_UP: usize = 8;

/// Shares and tears down once per order. No descriptor stays open.
fn for_each_order(
    test_gpu: &TestGpu,
    orders: impl IntoIterator<Item = Vec<usize>>,
    share: impl Fn() -> Result<Shared>,
) -> Result<()> {
    let mut most = 0;
    for (round, order) in orders.into_iter().enumerate() {
        let shared = share()?;
        ensure!(shared.objects.len() == order.len());
        if round % 2 == 1 {
            // Now the objects are dropped while another OpenGL context than theirs is current.
            test_gpu.gl()?;
        }
        shared.tear_down(test_gpu, &order)?;
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
fn of_devices(test_gpu: &TestGpu) -> Result<()> {
    // Opening a device is slow on a GPU: only every seventh order there.
    let step = if test_gpu.is_hardware() { 7 } else { 1 };
    for_each_order(test_gpu, orders(6).into_iter().step_by(step), || {
        let device = test_gpu.vulkan().vulkan.second_device()?;
        let context = Gl::open(test_gpu.selector())?;
        let (here, there) = (device.endpoint()?, context.endpoint()?);
        let made = here.create_buffer(&DESC, BufferOptions::default())?;
        let imported = there.import_buffer(made.export()?)?;
        let mut shared = Shared::new(test_gpu, &made)?;
        require_content(&there, &imported)?;
        shared.add("device", device);
        shared.add("OpenGL's context", context);
        shared.add("Vulkan's endpoint", here);
        shared.add("OpenGL's endpoint", there);
        shared.add("Vulkan's buffer", made);
        shared.add("OpenGL's buffer", imported);
        Ok(shared)
    })
}

/// As [`of_devices`], with a device that owns its instance: 24 orders.
fn of_instances(test_gpu: &TestGpu) -> Result<()> {
    for_each_order(test_gpu, orders(4), || {
        let device = Vulkan::open(test_gpu.selector(), &TestGpu::options())?;
        let context = Gl::open(test_gpu.selector())?;
        let there = context.endpoint()?;
        let made = device.endpoint()?.create_buffer(&DESC, BufferOptions::default())?;
        let imported = there.import_buffer(made.export()?)?;
        let mut shared = Shared::new(test_gpu, &made)?;
        require_content(&there, &imported)?;
        shared.add("instance and device", device);
        shared.add("OpenGL's context", context);
        shared.add("Vulkan's buffer", made);
        shared.add("OpenGL's buffer", imported);
        Ok(shared)
    })
}

/// CUDA's objects in a context that stays, in 720 orders; the context reports no error.
fn of_cuda(test_gpu: &TestGpu) -> Result<()> {
    let (vulkan, cuda) = (&test_gpu.vulkan().endpoint, test_gpu.cuda()?);
    let context = cuda.cuda.context();
    context.check_err()?;
    for_each_order(test_gpu, orders(6), || {
        let (endpoint, stream) = (cuda.cuda.endpoint()?, context.new_stream()?);
        let made = vulkan.create_buffer(&DESC, BufferOptions::default())?;
        let timeline = vulkan.create_semaphore(Timeline)?;
        let shared_timeline = endpoint.import_semaphore(timeline.export()?)?;
        let memory = endpoint.import_memory(made.memory().export()?)?;
        let (whole, part) = (memory.buffer(0, &DESC)?, memory.buffer(8, &BufferDesc::storage(8))?);
        let mut shared = Shared::new(test_gpu, &made)?;
        let seen = stream.clone_dtoh(&whole.as_view::<u8>()?)?;
        endpoint.signal(&stream, &shared_timeline, Some(1))?;
        stream.synchronize()?;
        oracle::check(&seen, SEED, &Passes::default())?;
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

/// The objects of all three APIs, in random orders: thirteen objects have too many.
fn of_all(test_gpu: &TestGpu) -> Result<()> {
    let random = (0..RANDOM_ORDERS).map(|seed| shuffled(13, seed));
    for_each_order(test_gpu, random, || {
        let device = test_gpu.vulkan().vulkan.second_device()?;
        let gl_context = Gl::open(test_gpu.selector())?;
        // Not the primary context, which the suite keeps alive.
        let ordinal = test_gpu.cuda()?.cuda.context().ordinal();
        let cuda_context = CudaContext::new_non_primary(ordinal, 0)?;
        let stream = cuda_context.new_stream()?;
        let (vulkan, gl) = (device.endpoint()?, gl_context.endpoint()?);
        let cuda = cuda::Endpoint::new(cuda_context.clone())?;
        let made = vulkan.create_buffer(&DESC, BufferOptions::default())?;
        let timeline = vulkan.create_semaphore(Timeline)?;
        let in_gl = (gl.import_buffer(made.export()?)?, gl.import_semaphore(timeline.export()?)?);
        let in_cuda =
            (cuda.import_buffer(made.export()?)?, cuda.import_semaphore(timeline.export()?)?);
        let mut shared = Shared::new(test_gpu, &made)?;

        let seen = stream.clone_dtoh(&in_cuda.0.as_view::<u8>()?)?;
        cuda.signal(&stream, &in_cuda.1, Some(1))?;
        stream.synchronize()?;
        oracle::check(&seen, SEED, &Passes::default())?;
        gl.wait(&in_gl.1, Some(1), &[&in_gl.0], &[])?;
        require_content(&gl, &in_gl.0)?;
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

/// Checks that OpenGL's buffer contains what was written. The context must be current.
fn require_content(endpoint: &gl::Endpoint, buffer: &gl::Buffer) -> Result<()> {
    endpoint.memory_barrier()?;
    let mut data = vec![0u8; DESC.size as usize];
    let gl = endpoint.gl();
    // SAFETY: the context is current; the buffer is its own and that long.
    unsafe {
        gl.bind_buffer(glow::COPY_READ_BUFFER, Some(buffer.name()));
        gl.get_buffer_sub_data(glow::COPY_READ_BUFFER, 0, &mut data);
        gl.bind_buffer(glow::COPY_READ_BUFFER, None);
    }
    Ok(oracle::check(&data, SEED, &Passes::default())?)
}

/// An order of `count` objects that depends on the seed.
fn shuffled(count: usize, seed: u32) -> Vec<usize> {
    let mut order: Vec<_> = (0..count).collect();
    for last in (1..count).rev() {
        order.swap(last, oracle::hash(last as u32, seed) as usize % (last + 1));
    }
    order
}

/// Every order of `count` objects, the given one first.
pub(in crate::cases) fn orders(count: usize) -> Vec<Vec<usize>> {
    (0..count).fold(vec![vec![]], |shorter, next| {
        let insert = |order: Vec<usize>| {
            (0..=next).rev().map(move |at| {
                let mut longer = order.clone();
                longer.insert(at, next);
                longer
            })
        };
        shorter.into_iter().flat_map(insert).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_order_occurs_once() {
        let all = orders(4);
        let different: std::collections::BTreeSet<_> = all.iter().collect();
        assert_eq!((all.len(), different.len()), (24, 24));
        assert_eq!(all[0], [0, 1, 2, 3]);
        assert!(all.iter().all(|order| (0..4).all(|object| order.contains(&object))));
    }

    #[test]
    fn random_orders_are_complete_and_differ() {
        let orders: std::collections::BTreeSet<_> =
            (0..RANDOM_ORDERS).map(|seed| shuffled(13, seed)).collect();
        assert_eq!(orders.len(), RANDOM_ORDERS as usize);
        for order in orders {
            assert!((0..13).all(|object| order.contains(&object)), "{order:?}");
        }
    }
}

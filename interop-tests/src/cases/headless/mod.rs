//! `headless`: one GPU in every API, and contexts that open and close on several threads.

use std::thread;

use anyhow::{Context, Result, ensure};
use gpu_interop::ash::vk;
use gpu_interop::headless::{Cuda, Gl, GpuSelector, Headless, Vulkan, enumerate_gpus};
use gpu_interop::{Api, Uuid};

use crate::harness::{Case, Need, Role, TestGpu};

const NO_INSTANCE_LEFT: &str = "closes the last Vulkan instance";
const ENDLESS: &str = "drops a device whose work does not end";
const NO_CUDA_DEVICE: &str = "opens a GPU that is hidden from CUDA";

pub(crate) fn cases() -> Vec<Case> {
    let case = |what: &str, run: fn(&TestGpu) -> Result<()>, needs: &[Need]| {
        Case::new(format!("headless/{what}"), run).needs(needs)
    };
    vec![
        case("gl_is_on_vulkans_gpu/63a", gl_on_one_gpu, &[Need::Gl]),
        case("cuda_is_on_vulkans_gpu/63b", cuda_on_one_gpu, &[Need::Cuda]),
        case("enumerate_gpus_reports_every_api/63c", enumeration, &[]),
        case("a_failed_opening_changes_no_current_context/63d", failed_opening, &[Need::Gl]),
        case("devices_are_independent/63e", independent_devices, &[]),
        case("threads_share_a_queue/63f", shared_queue, &[]),
        case("closing_a_context_leaves_the_others/63g", closed_context, &[Need::Gl]),
        case("contexts_open_and_close_on_threads/63h", contexts_on_threads, &[Need::Gl]),
        case("a_context_survives_the_last_instance/63i", last_instance, &[Need::Gl]),
        case("threads_end_while_others_open_and_close/63j", ending_threads, &[Need::Gl]),
        case(
            "a_device_whose_work_does_not_end_is_leaked/63l",
            |gpu| gpu.run_child(ENDLESS, &[]),
            &[],
        )
        .slow(),
        case("a_gpu_that_is_hidden_from_cuda_opens_without_it/63m", hidden_from_cuda, &[]),
    ]
}

/// What the children of these cases do.
pub(crate) fn roles() -> Vec<Role> {
    vec![
        (NO_INSTANCE_LEFT, without_instance),
        (NO_CUDA_DEVICE, without_cuda),
        (ENDLESS, endless_work),
    ]
}

/// Submits nothing and waits for it.
fn submit(vulkan: &Vulkan) -> Result<()> {
    let device = vulkan.device();
    // SAFETY: the fence is new, the queue is used under its lock, and the wait ends only with the
    // fence's signal, after which nothing uses it.
    unsafe {
        let fence = device.create_fence(&vk::FenceCreateInfo::default(), None)?;
        vulkan.with_queue(|queue| device.queue_submit(queue, &[], fence))?;
        device.wait_for_fences(&[fence], true, u64::MAX)?;
        device.destroy_fence(fence, None);
    }
    Ok(())
}

fn gl_on_one_gpu(gpu: &TestGpu) -> Result<()> {
    let headless = Headless::open(gpu.selector(), &TestGpu::options())?;
    let (identity, gl) = (headless.vulkan.identity(), headless.gl()?);
    ensure!(headless.vulkan.endpoint()?.identities() == std::slice::from_ref(identity));
    ensure!(gl.is_current(), "the context is current on the thread that opened it");
    Ok(identity.check_same(gl.endpoint()?.identities())?)
}

fn cuda_on_one_gpu(gpu: &TestGpu) -> Result<()> {
    let headless = Headless::open(gpu.selector(), &TestGpu::options())?;
    Ok(headless.vulkan.identity().check_same(headless.cuda()?.endpoint()?.identities())?)
}

/// Every API that the suite opened is reported, and no other, without a change of the current context.
fn enumeration(gpu: &TestGpu) -> Result<()> {
    let vulkan = &gpu.vulkan().vulkan;
    let (gl, cuda) = (gpu.gl().ok(), gpu.cuda().ok());
    let gpus = enumerate_gpus();
    let of_gpu = |found: &&gpu_interop::headless::Gpu| found.uuid == vulkan.identity().device;
    let found = gpus.iter().find(of_gpu).context("the GPU is not reported")?;
    ensure!(found.device_type == Some(vulkan.device_type()), "{found:?}");
    ensure!(found.seen_by.contains(&Api::OpenGl) == gl.is_some(), "{found:?}");
    ensure!(found.cuda_ordinal.is_some() == cuda.is_some(), "{found:?}");
    ensure!(gl.is_none_or(|gl| gl.gl.is_current()), "another context is current");
    Ok(())
}

fn failed_opening(gpu: &TestGpu) -> Result<()> {
    let gl = gpu.gl()?;
    let no_gpu = GpuSelector::Uuid(Uuid::from_bytes([0xAB; 16]));
    ensure!(Gl::open(&no_gpu).is_err(), "a GPU with an invented UUID was opened");
    ensure!(gl.gl.is_current(), "the context that was current before is not");
    ensure!(Cuda::open(&no_gpu).is_err(), "a GPU with an invented UUID was opened");
    Ok(())
}

/// Each device has its own instance or device, and lives as long as what uses it.
fn independent_devices(gpu: &TestGpu) -> Result<()> {
    let open = || Vulkan::open(gpu.selector(), &TestGpu::options());
    let (first, other) = (open()?, open()?);
    let second = first.second_device()?;
    ensure!(first.instance().handle() != other.instance().handle());
    ensure!(first.instance().handle() == second.instance().handle());
    ensure!(first.device().handle() != second.device().handle());
    let endpoint = first.endpoint()?;
    drop(first);
    // SAFETY: the endpoint keeps the device alive, and no other thread uses its queue.
    unsafe { endpoint.device().device_wait_idle() }?;
    drop(endpoint);
    submit(&second)?;
    submit(&other)
}

fn shared_queue(gpu: &TestGpu) -> Result<()> {
    let vulkan = Vulkan::open(gpu.selector(), &TestGpu::options())?;
    on_threads(4, || (0..100).try_for_each(|_| submit(&vulkan)))?;
    Ok(vulkan.wait_idle()?)
}

/// Runs `work` on several threads at once.
fn on_threads(count: usize, work: impl Fn() -> Result<()> + Sync) -> Result<()> {
    thread::scope(|scope| {
        let threads: Vec<_> = (0..count).map(|_| scope.spawn(&work)).collect();
        let results = threads.into_iter().map(|thread| match thread.join() {
            Ok(result) => result,
            Err(_) => anyhow::bail!("a thread panicked"),
        });
        results.collect()
    })
}

fn closed_context(gpu: &TestGpu) -> Result<()> {
    let (first, second) = (Gl::open(gpu.selector())?, Gl::open(gpu.selector())?);
    ensure!(second.is_current() && !first.is_current());
    drop(first);
    ensure!(second.is_current(), "another context was closed");
    let endpoint = second.endpoint()?;
    drop(second);
    ensure!(endpoint.is_current(), "the endpoint keeps the context");
    let third = Gl::open(gpu.selector())?;
    drop(endpoint);
    ensure!(third.is_current(), "another context was closed");
    for current in [false, false, true] {
        if current { third.make_current() } else { third.release_current() }?;
        ensure!(third.is_current() == current);
    }
    Ok(())
}

fn contexts_on_threads(gpu: &TestGpu) -> Result<()> {
    let (gl, selector) = (Gl::open(gpu.selector())?, *gpu.selector());
    on_threads(4, || (0..4).try_for_each(|_| Ok(Gl::open(&selector).map(drop)?)))?;
    ensure!(gl.is_current(), "other threads changed the current context");
    gl.make_current()?;
    gl.endpoint()?;
    Ok(())
}

/// In a child, which has no other instance.
fn last_instance(gpu: &TestGpu) -> Result<()> {
    gpu.run_child(NO_INSTANCE_LEFT, &[])
}

/// In children, since libcuda reads the variable once per process. NVIDIA's driver crashed there.
fn hidden_from_cuda(gpu: &TestGpu) -> Result<()> {
    ["", "-1"]
        .iter()
        .try_for_each(|hidden| gpu.run_child(NO_CUDA_DEVICE, &[("CUDA_VISIBLE_DEVICES", hidden)]))
}

fn without_cuda() -> Result<()> {
    let selector = std::env::var("INTEROP_DEVICE")?.parse()?;
    let headless = Headless::open(&selector, &TestGpu::options())?;
    let error = headless.cuda().err().context("CUDA sees a GPU")?.to_string();
    ensure!(error.starts_with("CUDA lacks a visible device"), "{error}");
    ensure!(error.contains("CUDA_VISIBLE_DEVICES"), "{error}");
    let enabled = headless.vulkan.enabled_extensions();
    ensure!(!enabled.contains(&gpu_interop::ash::nvx::binary_import::NAME), "{enabled:?}");
    headless.vulkan.endpoint()?;
    submit(&headless.vulkan)?;
    submit(&headless.vulkan.second_device()?)
}

fn without_instance() -> Result<()> {
    let selector = std::env::var("INTEROP_DEVICE")?.parse()?;
    let gl = Gl::open(&selector)?;
    drop(Vulkan::open(&selector, &TestGpu::options())?);
    ensure!(gl.is_current(), "the context is not current any more");
    gl.endpoint()?;
    gl.release_current()?;
    drop(Gl::open(&selector)?);
    Ok(gl.make_current()?)
}

/// In a child, since the device is leaked. A drop that waited for it would not return.
fn endless_work() -> Result<()> {
    let vulkan = Vulkan::open(&std::env::var("INTEROP_DEVICE")?.parse()?, &TestGpu::options())?;
    let (device, endpoint) = (vulkan.device().clone(), vulkan.endpoint()?);
    let mut ty = vk::SemaphoreTypeCreateInfo::default().semaphore_type(vk::SemaphoreType::TIMELINE);
    let info = vk::SemaphoreCreateInfo::default().push_next(&mut ty);
    // SAFETY: a device with timeline semaphores, which is leaked below.
    let semaphores = [unsafe { device.create_semaphore(&info, None) }?];
    let mut values = vk::TimelineSemaphoreSubmitInfo::default().wait_semaphore_values(&[1]);
    let wait = vk::SubmitInfo::default()
        .wait_semaphores(&semaphores)
        .wait_dst_stage_mask(&[vk::PipelineStageFlags::ALL_COMMANDS])
        .push_next(&mut values);
    vulkan.with_queue(|queue| {
        // SAFETY: the queue is locked; the semaphore outlives the device.
        unsafe { device.queue_submit(queue, &[wait], vk::Fence::null()) }
    })?;
    let (mut commands, ()) = vulkan.record(|_| Ok(()))?;
    // SAFETY: an empty command buffer, which is leaked.
    unsafe { commands.submit(&endpoint, Default::default()) }?;
    drop(commands);
    drop((endpoint, vulkan));
    // The device is still there. The work ends, so that the process can.
    let signal = vk::SemaphoreSignalInfo::default().semaphore(semaphores[0]).value(1);
    // SAFETY: the device was leaked, and the value grows.
    unsafe { device.signal_semaphore(&signal) }?;
    // SAFETY: no other thread uses the leaked device.
    Ok(unsafe { device.device_wait_idle() }?)
}

/// Four times three threads that open and close both APIs, and end meanwhile.
fn ending_threads(gpu: &TestGpu) -> Result<()> {
    let selector = *gpu.selector();
    let open_and_close = || {
        let vulkan = Vulkan::open(&selector, &TestGpu::options())?;
        let gl = Gl::open(&selector)?;
        submit(&vulkan)?;
        Ok(gl.release_current()?)
    };
    on_threads(4, || (0..3).try_for_each(|_| on_threads(1, open_and_close)))
}

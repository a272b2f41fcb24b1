//! Group G: threads, each with its own contexts and endpoints on the one GPU.

use std::thread;

use anyhow::{Result, anyhow};
use gpu_interop::headless::Headless;

use crate::cases::support::payload_users::{
    CudaPlayer, GlPlayer, RoundTrip, VulkanPlayer, around, there_and_back,
};
use crate::harness::{Case, Need, TestGpu, open_descriptors};
use interop_gpu::cuda::CudaContext;
use interop_gpu::gl::GlContext;
use interop_gpu::vulkan::VulkanContext;

const BYTES: u64 = 4 << 10;
/// Of each of the two threads; 10 000 in total.
const TURNS: u32 = 5000;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("vulkan→vulkan→vulkan/opaque_fd/buffer/two_threads/61", |machine| {
            two_threads(machine, vulkan_vulkan)
        }),
        Case::new("vulkan→gl→vulkan/opaque_fd/buffer/two_threads/61", |machine| {
            two_threads(machine, vulkan_gl)
        })
        .needs(&[Need::Gl]),
        Case::new("vulkan→cuda→gl→vulkan/opaque_fd/buffer/two_threads/61", |machine| {
            two_threads(machine, vulkan_cuda_gl)
        })
        .needs(&[Need::Cuda, Need::Gl]),
    ]
}

/// Both play at once; what one does shows nowhere in what the other has.
fn two_threads(machine: &TestGpu, play: fn(Headless) -> Result<()>) -> Result<()> {
    let before = open_descriptors();
    let (wish, options) = (machine.wish(), TestGpu::options());
    thread::scope(|scope| {
        let threads = [(); 2].map(|()| scope.spawn(|| play(Headless::open(wish, &options)?)));
        let ended = threads.map(|thread| thread.join().map_err(|_| anyhow!("a thread panicked")));
        ended.into_iter().try_for_each(|ended| ended?)
    })?;
    before.require_same(&open_descriptors())
}

fn game() -> RoundTrip {
    RoundTrip { check_every: 100, ..RoundTrip::of(TURNS) }
}

fn vulkan_vulkan(headless: Headless) -> Result<()> {
    let second = VulkanContext::new(headless.vulkan.second_device()?)?;
    let first = VulkanContext::new(headless.vulkan)?;
    let mut one = VulkanPlayer::create(&first, BYTES)?;
    let mut other = VulkanPlayer::import(&second, one.export()?)?;
    there_and_back(&first.endpoint, (&mut one, &mut other), game())?;
    Ok(())
}

fn vulkan_gl(headless: Headless) -> Result<()> {
    let gl = GlContext::new(headless.gl?)?;
    let vulkan = VulkanContext::new(headless.vulkan)?;
    let mut one = VulkanPlayer::create(&vulkan, BYTES)?;
    let mut other = GlPlayer::import(&gl, one.export()?)?;
    there_and_back(&vulkan.endpoint, (&mut one, &mut other), game())?;
    Ok(())
}

fn vulkan_cuda_gl(headless: Headless) -> Result<()> {
    let cuda = CudaContext::new(headless.cuda?)?;
    let gl = GlContext::new(headless.gl?)?;
    let vulkan = VulkanContext::new(headless.vulkan)?;
    let mut one = VulkanPlayer::create(&vulkan, BYTES)?;
    let mut other = CudaPlayer::import(&cuda, one.export()?)?;
    let mut third = GlPlayer::import(&gl, one.export()?)?;
    around(&vulkan.endpoint, (&mut one, &mut other, &mut third), game())
}

//! Family G: one allocation in several APIs at once, payloads that circulate between them, and two threads
//! that do so at the same time.

use std::thread;

use anyhow::{Context, Result, anyhow};
use gpu_interop::BufferDesc;
use gpu_interop::headless::Headless;
use gpu_interop::vulkan::BufferOptions;

use crate::cases::multi_api::teardown::orders;
use crate::cases::support::contexts::ApiContext;
use crate::cases::support::importers::{Importer, Place};
use crate::cases::support::payload_user::{PayloadUser, RoundTrip, around, there_and_back};
use crate::cases::support::views::{View, check_all_views_agree};
use crate::harness::{Case, Need, TestGpu, open_descriptors};
use interop_gpu::cuda::CudaContext;
use interop_gpu::gl::GlContext;
use interop_gpu::vulkan::VulkanContext;

/// Small, so that a thousand rounds are mostly handoffs.
const BYTES: u64 = 16 << 10;

pub(in crate::cases) fn cases() -> Vec<Case> {
    let second = [Importer::Vulkan(Place::SecondDevice), Importer::Vulkan(Place::SecondInstance)];
    let any_order = |apis: &str, importers: Vec<Importer>| {
        let needs: Vec<Need> = importers.iter().flat_map(|i| i.needs()).copied().collect();
        let name = format!("vulkan→{apis}/opaque_fd/buffer/any_order_of_import/57");
        Case::new(name, move |test_gpu| any_order_of_import(test_gpu, &importers)).needs(&needs)
    };
    type Run = fn(&TestGpu, RoundTrip) -> Result<()>;
    let rounds = |apis: &str, run: Run| {
        let name = format!("vulkan→{apis}→vulkan/opaque_fd/buffer/1000_rounds/58");
        Case::new(name, move |gpu| run(gpu, RoundTrip::of(1000)))
    };
    let threads = |apis: &str, run: fn(Headless) -> Result<()>| {
        let name = format!("vulkan→{apis}→vulkan/opaque_fd/buffer/two_threads/61");
        Case::new(name, move |gpu| two_threads(gpu, run)).slow()
    };
    vec![
        any_order("vulkan+gl", [&second[..], &[Importer::Gl]].concat()),
        any_order("vulkan+gl+cuda", [&second[..], &[Importer::Gl, Importer::Cuda]].concat()),
        rounds("vulkan", |gpu, trip| there(gpu.vulkan(), gpu.second_device()?, trip)),
        rounds("gl", |gpu, trip| there(gpu.vulkan(), gpu.gl()?, trip)).needs(&[Need::Gl]),
        rounds("vulkan→gl", |gpu, trip| {
            circle(gpu.vulkan(), gpu.second_device()?, gpu.gl()?, trip)
        })
        .needs(&[Need::Gl]),
        rounds("cuda", |gpu, trip| there(gpu.vulkan(), gpu.cuda()?, trip)).needs(&[Need::Cuda]),
        rounds("cuda→gl", |gpu, trip| circle(gpu.vulkan(), gpu.cuda()?, gpu.gl()?, trip))
            .needs(&[Need::Cuda, Need::Gl]),
        threads("vulkan", |opened| {
            let second = VulkanContext::new(opened.vulkan.second_device()?)?;
            there(&VulkanContext::new(opened.vulkan)?, &second, half())
        }),
        threads("gl", |opened| {
            let gl = GlContext::new(opened.gl?)?;
            there(&VulkanContext::new(opened.vulkan)?, &gl, half())
        })
        .needs(&[Need::Gl]),
        threads("cuda→gl", |opened| {
            let (cuda, gl) = (CudaContext::new(opened.cuda?)?, GlContext::new(opened.gl?)?);
            circle(&VulkanContext::new(opened.vulkan)?, &cuda, &gl, half())
        })
        .needs(&[Need::Cuda, Need::Gl]),
    ]
}

/// In whatever order the others import an allocation, each view reads what any of them writes.
fn any_order_of_import(test_gpu: &TestGpu, importers: &[Importer]) -> Result<()> {
    let desc = BufferDesc::storage(BYTES);
    for (order, seed) in orders(importers.len()).iter().zip((0u32..).step_by(16)) {
        let gpu = test_gpu.vulkan();
        let buffer = gpu.endpoint.create_buffer(&desc, BufferOptions::default())?;
        let mut views = Vec::new();
        for &next in order {
            views.push(importers[next].open(test_gpu)?.import_buffer(buffer.export()?)?);
        }
        views.push(View::new(gpu, buffer));
        check_all_views_agree(&mut views, seed)
            .with_context(|| format!("imported in the order {order:?}"))?;
    }
    Ok(())
}

/// Passes a new payload to `other` and back.
fn there<C: ApiContext>(vulkan: &VulkanContext, other: &C, trip: RoundTrip) -> Result<()> {
    let mut one = PayloadUser::create(vulkan, BYTES)?;
    let mut other = PayloadUser::import(other, one.export()?)?;
    there_and_back(&vulkan.endpoint, (&mut one, &mut other), trip)?;
    Ok(())
}

/// Passes a new payload to `second`, then to `third`, and back.
fn circle<B: ApiContext, C: ApiContext>(
    vulkan: &VulkanContext,
    second: &B,
    third: &C,
    trip: RoundTrip,
) -> Result<()> {
    let mut one = PayloadUser::create(vulkan, BYTES)?;
    let mut second = PayloadUser::import(second, one.export()?)?;
    let mut third = PayloadUser::import(third, one.export()?)?;
    around(&vulkan.endpoint, (&mut one, &mut second, &mut third), trip)
}

/// Runs twice at once, each time with contexts of its own; the payloads do not disturb each other.
fn two_threads(test_gpu: &TestGpu, run: fn(Headless) -> Result<()>) -> Result<()> {
    let before = open_descriptors();
    let (selector, options) = (test_gpu.selector(), TestGpu::options());
    thread::scope(|scope| {
        let threads = [(); 2].map(|()| scope.spawn(|| run(Headless::open(selector, &options)?)));
        let ended = threads.map(|thread| thread.join().map_err(|_| anyhow!("a thread panicked")));
        ended.into_iter().try_for_each(|ended| ended?)
    })?;
    before.require_same(&open_descriptors())
}

/// 5000 rounds in each of two threads.
fn half() -> RoundTrip {
    RoundTrip { check_every: 100, ..RoundTrip::of(5000) }
}

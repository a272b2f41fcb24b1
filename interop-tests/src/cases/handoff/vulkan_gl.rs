//! Family E: Vulkan ↔ OpenGL, synchronised by each method; and controls, without synchronisation.

use anyhow::{Context, Result, bail, ensure};
use gpu_interop::handoff::{self, Handoff};
use gpu_interop::tune::Route;
use gpu_interop::{Api, gl, vulkan};

use crate::cases::support::contexts::ApiContext;
use crate::cases::support::payload_user::{PayloadUser, pass};
use crate::cases::support::routes::{CaseRoute as _, HOST_WAIT, ROUTES};
use crate::harness::{Case, Need, TestGpu};
use interop_gpu::Kernel;
use interop_gpu::gl::GlContext;
use interop_gpu::oracle::{self, Passes};
use interop_gpu::vulkan::VulkanContext;

const BYTES: u64 = 4 << 20;

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for route in ROUTES {
        let case = |what: &str, row: u32, run: fn(&TestGpu, Route) -> Result<()>| {
            let name = format!("vulkan→gl→vulkan/opaque_fd/buffer/{what}/{}/{row}", route.name());
            Case::new(name, move |test_gpu| run(test_gpu, route)).needs(&route.needs(Api::OpenGl))
        };
        cases.push(case("both_ways", 42, both_ways));
        cases.push(case("content_is_kept", 43, content_is_kept));
        cases.push(case("ping_pong_255", route.row(), ping_pong));
    }
    let control =
        Case::new("vulkan→gl/none/buffer/fails_without_synchronisation/49", |test_gpu| {
            left_out(test_gpu, test_gpu.gl()?)
        });
    cases.push(control.needs(&[Need::Gl]));
    cases.push(Case::new(
        "vulkan→vulkan/none/buffer/fails_without_synchronisation/49",
        |test_gpu| left_out(test_gpu, test_gpu.second_device()?),
    ));
    cases
}

/// A payload that Vulkan created and OpenGL has imported, and a handoff each way.
struct Shared<'a> {
    // Dropped before the semaphores: their drop waits for their work.
    vulkan: PayloadUser<'a, VulkanContext>,
    gl: PayloadUser<'a, GlContext>,
    to_gl: Handoff<vulkan::Endpoint, gl::Endpoint>,
    to_vulkan: Handoff<gl::Endpoint, vulkan::Endpoint>,
}

impl<'a> Shared<'a> {
    fn new(test_gpu: &'a TestGpu, route: Route) -> Result<Self> {
        let (gpu, gl) = (test_gpu.vulkan(), test_gpu.gl()?);
        let (owner, options) = (&gpu.endpoint, route.options());
        let to_gl = handoff::open(owner, owner, &gl.endpoint, options)?;
        let to_vulkan = handoff::open(owner, &gl.endpoint, owner, options)?;
        for plan in [&to_gl.plan, &to_vulkan.plan] {
            ensure!(Some(plan.method) == route.method(), "{plan:?}");
        }
        let vulkan = PayloadUser::create(gpu, BYTES)?;
        let gl = PayloadUser::import(gl, vulkan.export()?)?;
        Ok(Self { vulkan, gl, to_gl, to_vulkan })
    }

    fn pass_to_gl(&mut self) -> Result<()> {
        pass(&mut self.to_gl, &mut self.vulkan, &mut self.gl)
    }

    fn pass_to_vulkan(&mut self) -> Result<()> {
        pass(&mut self.to_vulkan, &mut self.gl, &mut self.vulkan)
    }
}

/// Vulkan's kernels write and OpenGL reads; OpenGL's write and Vulkan reads. There are several kernels, so
/// that a read that comes too early finds something else.
fn both_ways(test_gpu: &TestGpu, route: Route) -> Result<()> {
    let mut shared = Shared::new(test_gpu, route)?;
    let mut turns = Passes::default();
    shared.vulkan.run(Kernel::Fill { seed: 42 })?;
    for step in 1..=8 {
        turns.then(step);
        shared.vulkan.run(Kernel::PingPong { step })?;
    }
    shared.pass_to_gl()?;
    oracle::check(&shared.gl.read()?, 42, &turns).context("Vulkan wrote, OpenGL reads")?;
    for step in 9..=16 {
        turns.then(step);
        shared.gl.run(Kernel::PingPong { step })?;
    }
    shared.pass_to_vulkan()?;
    oracle::check(&shared.vulkan.read()?, 42, &turns).context("OpenGL wrote, Vulkan reads")
}

/// Vulkan → OpenGL → Vulkan → OpenGL → Vulkan, with nothing but reads in between.
fn content_is_kept(test_gpu: &TestGpu, route: Route) -> Result<()> {
    let mut shared = Shared::new(test_gpu, route)?;
    let unchanged = Passes::default();
    shared.vulkan.run(Kernel::Fill { seed: 43 })?;
    for round in 1..=2 {
        shared.pass_to_gl()?;
        oracle::check(&shared.gl.read()?, 43, &unchanged)
            .with_context(|| format!("in OpenGL, round {round}"))?;
        shared.pass_to_vulkan()?;
    }
    Ok(oracle::check(&shared.vulkan.read()?, 43, &unchanged)?)
}

/// 255 turns each, checked only at the end.
fn ping_pong(test_gpu: &TestGpu, route: Route) -> Result<()> {
    super::ping_pong(test_gpu, test_gpu.gl()?, route, 256 << 10)
}

/// The control: the importer reads without an acquire, while Vulkan's kernels run, and at least once finds
/// something other than their result. Otherwise the cases that do acquire would prove nothing.
///
/// What it reads is any mixture of old and new; nothing waits, so nothing hangs. lavapipe runs its work on
/// a thread of its own, so that it serves as well as a GPU here.
fn left_out<C: ApiContext>(test_gpu: &TestGpu, importer: &C) -> Result<()> {
    const TRIES: u32 = 16;
    // About 20 ms of work, and more with each try: a GPU that runs two devices in turns may let one finish
    // tens of milliseconds of work first.
    let (bytes, kernels) = if test_gpu.is_hardware() { (64 << 20, 500) } else { (4 << 20, 20) };
    let (owner, options) = (&test_gpu.vulkan().endpoint, HOST_WAIT.options());
    let mut there = handoff::open(owner, owner, importer.endpoint(), options)?;
    let mut back = handoff::open(owner, importer.endpoint(), owner, options)?;
    let mut ours = PayloadUser::create(test_gpu.vulkan(), bytes)?;
    let mut theirs = PayloadUser::import(importer, ours.export()?)?;
    for seed in 1..=TRIES {
        for step in 1..=kernels * seed {
            ours.run(Kernel::PingPong { step })?;
        }
        ours.run(Kernel::Fill { seed })?;
        let ticket = ours.release(&mut there.release)?;
        let early = theirs.read()?;
        theirs.acquire(&mut there.acquire, ticket)?;
        let late = theirs.read()?;
        oracle::check(&late, seed, &Passes::default()).context("after the acquire")?;
        if oracle::check(&early, seed, &Passes::default()).is_err() {
            return Ok(());
        }
        pass(&mut back, &mut theirs, &mut ours)?;
    }
    bail!("{TRIES} times the importer found the result of work that it did not wait for")
}

//! Group E: Vulkan ↔ OpenGL, synchronised by each method that there is.

use anyhow::{Context, Result, bail, ensure};
use gpu_interop::capabilities::SyncMethod;
use gpu_interop::handoff::{self, HandoffOptions, Ticket, WaitMode};
use gpu_interop::{Api, SemaphoreKind, gl, vulkan};

use crate::cases::support::payload_user::{PayloadUser, RoundTrip, there_and_back};
use crate::harness::{Case, Need, TestGpu};
use interop_gpu::Kernel;
use interop_gpu::gl::GlContext;
use interop_gpu::oracle::{self, Turns};
use interop_gpu::vulkan::VulkanContext;

const BYTES: u64 = 4 << 20;

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for route in Route::ALL {
        let case = |what: &str, row: u32, run: fn(&TestGpu, Route) -> Result<()>| {
            let name = format!("vulkan→gl→vulkan/opaque_fd/buffer/{what}/{}/{row}", route.name);
            Case::new(name, move |machine| run(machine, route)).needs(&route.needs(Api::OpenGl))
        };
        cases.push(case("both_ways", 42, both_ways));
        cases.push(case("content_is_kept", 43, content_is_kept));
        cases.push(case("ping_pong_255", route.row, ping_pong));
    }
    let control = Case::new("vulkan→gl/none/buffer/left_out_it_fails/49", left_out);
    cases.push(control.needs(&[Need::Gl]));
    cases
}

/// A method of synchronisation, asked for by name.
#[derive(Clone, Copy)]
pub(crate) struct Route {
    pub(crate) name: &'static str,
    pub(crate) method: SyncMethod,
    wait: WaitMode,
    /// Its row of the matrix.
    pub(crate) row: u32,
}

impl Route {
    pub(crate) const ALL: [Route; 4] = [
        Self::new("timeline", SyncMethod::Timeline, WaitMode::Block, 47),
        Self::new("binary", SyncMethod::Binary, WaitMode::Block, 46),
        Self::new("host_wait_block", SyncMethod::HostWait, WaitMode::Block, 48),
        Self::new("host_wait_spin", SyncMethod::HostWait, WaitMode::Spin, 48),
    ];

    const fn new(name: &'static str, method: SyncMethod, wait: WaitMode, row: u32) -> Self {
        Self { name, method, wait, row }
    }

    pub(crate) fn options(self) -> HandoffOptions {
        HandoffOptions { method: Some(self.method), wait: self.wait, ..HandoffOptions::default() }
    }

    /// What a handoff between Vulkan and `api` needs for it.
    pub(crate) fn needs(self, api: Api) -> Vec<Need> {
        let there = (api == Api::OpenGl).then_some(Need::Gl);
        let kind = match self.method {
            SyncMethod::Timeline => Some(SemaphoreKind::Timeline),
            SyncMethod::Binary => Some(SemaphoreKind::Binary),
            _ => None,
        };
        there.into_iter().chain(kind.map(|kind| Need::Semaphore(api, kind))).collect()
    }
}

/// A payload that Vulkan made and OpenGL has imported, and a handoff each way.
struct Table<'a> {
    // Dropped before the semaphores: their drop waits for their work.
    vulkan: PayloadUser<'a, VulkanContext>,
    gl: PayloadUser<'a, GlContext>,
    to_gl: handoff::Handoff<vulkan::Endpoint, gl::Endpoint>,
    to_vulkan: handoff::Handoff<gl::Endpoint, vulkan::Endpoint>,
}

impl<'a> Table<'a> {
    fn new(machine: &'a TestGpu, bytes: u64, route: Route) -> Result<Self> {
        let (gpu, gl_rig) = (machine.vulkan(), machine.gl()?);
        let options = route.options();
        let to_gl = handoff::open(&gpu.endpoint, &gpu.endpoint, &gl_rig.endpoint, options)?;
        let to_vulkan = handoff::open(&gpu.endpoint, &gl_rig.endpoint, &gpu.endpoint, options)?;
        for plan in [&to_gl.plan, &to_vulkan.plan] {
            ensure!(plan.method == route.method, "{plan:?}");
        }
        let vulkan = PayloadUser::create(gpu, bytes)?;
        let gl = PayloadUser::import(gl_rig, vulkan.export()?)?;
        Ok(Self { vulkan, gl, to_gl, to_vulkan })
    }

    fn give_to_gl(&mut self) -> Result<()> {
        let ticket = self.vulkan.release(&mut self.to_gl.release)?;
        self.gl.acquire(&mut self.to_gl.acquire, ticket)
    }

    fn give_to_vulkan(&mut self) -> Result<()> {
        let ticket: Ticket = self.gl.release(&mut self.to_vulkan.release)?;
        self.vulkan.acquire(&mut self.to_vulkan.acquire, ticket)
    }
}

/// Vulkan's kernels write and OpenGL reads; OpenGL's write and Vulkan reads. Several kernels, so that
/// who reads too early reads something else.
fn both_ways(machine: &TestGpu, route: Route) -> Result<()> {
    let mut table = Table::new(machine, BYTES, route)?;
    let mut turns = Turns::default();
    table.vulkan.run(Kernel::Fill { seed: 42 })?;
    for step in 1..=8 {
        turns.then(step);
        table.vulkan.run(Kernel::PingPong { step })?;
    }
    table.give_to_gl()?;
    oracle::check(&table.gl.read()?, 42, &turns).context("Vulkan wrote, OpenGL reads")?;
    for step in 9..=16 {
        turns.then(step);
        table.gl.run(Kernel::PingPong { step })?;
    }
    table.give_to_vulkan()?;
    oracle::check(&table.vulkan.read()?, 42, &turns).context("OpenGL wrote, Vulkan reads")
}

/// Vulkan → OpenGL → Vulkan → OpenGL → Vulkan, with nothing done on the way but looking.
fn content_is_kept(machine: &TestGpu, route: Route) -> Result<()> {
    let mut table = Table::new(machine, BYTES, route)?;
    let unchanged = Turns::default();
    table.vulkan.run(Kernel::Fill { seed: 43 })?;
    for leg in 1..=2 {
        table.give_to_gl()?;
        oracle::check(&table.gl.read()?, 43, &unchanged)
            .with_context(|| format!("in OpenGL, leg {leg}"))?;
        table.give_to_vulkan()?;
    }
    Ok(oracle::check(&table.vulkan.read()?, 43, &unchanged)?)
}

/// 255 turns each, unseen until the end: with a binary semaphore each way, or a timeline, or the
/// host waiting.
fn ping_pong(machine: &TestGpu, route: Route) -> Result<()> {
    let mut vulkan = PayloadUser::create(machine.vulkan(), 256 << 10)?;
    let mut gl = PayloadUser::import(machine.gl()?, vulkan.export()?)?;
    let game = RoundTrip { options: route.options(), rounds: 255, check_every: 255 };
    for plan in there_and_back(&machine.vulkan().endpoint, (&mut vulkan, &mut gl), game)? {
        ensure!(plan.method == route.method, "{plan:?}");
    }
    Ok(())
}

/// The control: OpenGL reads without having acquired, while Vulkan's kernels run, and at least once
/// finds what is not their result. Else the cases that do acquire would show nothing.
///
/// What it reads is any mixture of old and new; nothing waits for anything, so nothing hangs. lavapipe
/// runs its work on a thread of its own, so that it is as good as a GPU here.
fn left_out(machine: &TestGpu) -> Result<()> {
    const TRIES: u32 = 16;
    // Some 20 ms of work.
    let (bytes, kernels) = if machine.is_hardware() { (64 << 20, 500) } else { (4 << 20, 20) };
    let mut table = Table::new(machine, bytes, Route::ALL[2])?;
    for seed in 1..=TRIES {
        for step in 1..=kernels {
            table.vulkan.run(Kernel::PingPong { step })?;
        }
        table.vulkan.run(Kernel::Fill { seed })?;
        let ticket = table.vulkan.release(&mut table.to_gl.release)?;
        let early = table.gl.read()?;
        table.gl.acquire(&mut table.to_gl.acquire, ticket)?;
        let late = table.gl.read()?;
        oracle::check(&late, seed, &Turns::default()).context("after the acquire")?;
        if oracle::check(&early, seed, &Turns::default()).is_err() {
            return Ok(());
        }
        table.give_to_vulkan()?;
    }
    bail!("{TRIES} times OpenGL found the result of work that it did not wait for")
}

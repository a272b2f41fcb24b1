//! The ring between every pair and through three, one by one and in batches, by every route.

use anyhow::{Result, ensure};
use gpu_interop::handoff::WaitMode;
use gpu_interop::ring::{self, RingOptions};
use gpu_interop::tune::Route;
use gpu_interop::{Api, BufferDesc, SemaphoreKind};

use crate::cases::ring::drivers::{
    BYTES, Barriers, CudaHands, GlHands, StageDriver, StagePosition, VulkanHands, play,
};
use crate::harness::{Case, Need, TestGpu};

const DESC: BufferDesc = BufferDesc::storage(BYTES);

/// How deep, and how many at a time.
const SHAPES: [(u32, u32); 6] = [(1, 1), (2, 2), (5, 1), (8, 4), (12, 5), (64, 16)];

/// The stations after the first, which is Vulkan's where there is no other.
#[derive(Clone, Copy, Debug)]
struct Round {
    name: &'static str,
    apis: &'static [Api],
    run: fn(&TestGpu, HandoffMode) -> Result<()>,
}

const ROUNDS: [Round; 6] = [
    Round { name: "vulkan→vulkan", apis: &[Api::Vulkan], run: two_vulkans },
    Round { name: "vulkan→gl", apis: &[Api::OpenGl], run: vulkan_gl },
    Round { name: "vulkan→cuda", apis: &[Api::Cuda], run: vulkan_cuda },
    Round { name: "gl→cuda", apis: &[Api::OpenGl, Api::Cuda], run: gl_cuda },
    Round {
        name: "vulkan→gl→vulkan", apis: &[Api::OpenGl, Api::Vulkan], run: vulkan_gl_vulkan
    },
    Round { name: "vulkan→cuda→gl", apis: &[Api::Cuda, Api::OpenGl], run: vulkan_cuda_gl },
];

/// How payloads go round.
#[derive(Clone, Copy, Debug)]
struct HandoffMode {
    route: Route,
    depth: u32,
    batch: u32,
    barriers: Barriers,
}

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for round in ROUNDS {
        for route in [
            Route::Semaphore(SemaphoreKind::Timeline),
            Route::Semaphore(SemaphoreKind::Binary),
            Route::HostWait(WaitMode::Block),
            Route::HostWait(WaitMode::Spin),
        ] {
            for (depth, batch) in SHAPES {
                let way = HandoffMode { route, depth, batch, barriers: Barriers::Ring };
                cases.push(case(round, way, "recorded_by_the_ring"));
            }
            let way = HandoffMode { route, depth: 8, batch: 4, barriers: Barriers::Own };
            if round.name.starts_with("vulkan") {
                cases.push(case(round, way, "recorded_in_advance"));
            }
        }
    }
    cases
}

fn case(round: Round, way: HandoffMode, recorded: &str) -> Case {
    let HandoffMode { route, depth, batch, .. } = way;
    let name = format!("{}/opaque_fd/ring/{route}/{recorded}/{depth}x{batch}/58", round.name);
    let mut case = Case::new(name, move |machine| (round.run)(machine, way));
    for api in round.apis {
        case = match api {
            Api::OpenGl => case.needs(&[Need::Gl]),
            Api::Cuda => case.needs(&[Need::Cuda]),
            _ => case,
        };
        if let Route::Semaphore(kind) = route {
            case = case.needs(&[Need::Semaphore(*api, kind)]);
        }
    }
    case
}

impl HandoffMode {
    fn options(self) -> Result<RingOptions> {
        let handoff = self.route.handoff();
        ensure!(handoff.is_some(), "{} is not for a ring", self.route);
        Ok(RingOptions { depth: self.depth, handoff: handoff.unwrap_or_default() })
    }

    fn post(self, place: u32, stations: u32) -> StagePosition {
        StagePosition { place, stations, depth: self.depth, batch: self.batch }
    }
}

fn two_vulkans(machine: &TestGpu, way: HandoffMode) -> Result<()> {
    let (one, two) = (machine.vulkan(), machine.second_instance()?);
    let (a, b, plans) =
        ring::pair(&one.endpoint, &one.endpoint, &two.endpoint, &DESC, way.options()?)?;
    ensure!(plans.iter().all(|plan| Some(plan.method) == way.route.method()), "{plans:?}");
    let mut a = VulkanHands::new(one, a, way.post(0, 2), way.barriers)?;
    let mut b = VulkanHands::new(two, b, way.post(1, 2), way.barriers)?;
    play(&mut [&mut a, &mut b])
}

fn vulkan_gl(machine: &TestGpu, way: HandoffMode) -> Result<()> {
    let (vulkan, gl) = (machine.vulkan(), machine.gl()?);
    let owner = &vulkan.endpoint;
    let (a, b, _) = ring::pair(owner, owner, &gl.endpoint, &DESC, way.options()?)?;
    let mut a = VulkanHands::new(vulkan, a, way.post(0, 2), way.barriers)?;
    let mut b = GlHands::new(gl, b, way.post(1, 2))?;
    play(&mut [&mut a, &mut b])
}

fn vulkan_cuda(machine: &TestGpu, way: HandoffMode) -> Result<()> {
    let (vulkan, cuda) = (machine.vulkan(), machine.cuda()?);
    let owner = &vulkan.endpoint;
    let (a, b, _) = ring::pair(owner, owner, &cuda.endpoint, &DESC, way.options()?)?;
    let mut a = VulkanHands::new(vulkan, a, way.post(0, 2), way.barriers)?;
    let mut b = CudaHands::new(cuda, b, way.post(1, 2))?;
    play(&mut [&mut a, &mut b])
}

/// Neither of them owns the memory.
fn gl_cuda(machine: &TestGpu, way: HandoffMode) -> Result<()> {
    let (gl, cuda) = (machine.gl()?, machine.cuda()?);
    let owner = &machine.vulkan().endpoint;
    let (a, b, _) = ring::pair(owner, &gl.endpoint, &cuda.endpoint, &DESC, way.options()?)?;
    let mut a = GlHands::new(gl, a, way.post(0, 2))?;
    let mut b = CudaHands::new(cuda, b, way.post(1, 2))?;
    play(&mut [&mut a, &mut b])
}

fn vulkan_gl_vulkan(machine: &TestGpu, way: HandoffMode) -> Result<()> {
    let (one, two, gl) = (machine.vulkan(), machine.second_device()?, machine.gl()?);
    let stations = (&one.endpoint, &gl.endpoint, &two.endpoint);
    let (a, b, c, _) = ring::triple(&one.endpoint, stations, &DESC, way.options()?)?;
    let mut a = VulkanHands::new(one, a, way.post(0, 3), way.barriers)?;
    let mut b = GlHands::new(gl, b, way.post(1, 3))?;
    let mut c = VulkanHands::new(two, c, way.post(2, 3), way.barriers)?;
    let hands: &mut [&mut dyn StageDriver] = &mut [&mut a, &mut b, &mut c];
    play(hands)
}

fn vulkan_cuda_gl(machine: &TestGpu, way: HandoffMode) -> Result<()> {
    let (vulkan, cuda, gl) = (machine.vulkan(), machine.cuda()?, machine.gl()?);
    let stations = (&vulkan.endpoint, &cuda.endpoint, &gl.endpoint);
    let (a, b, c, _) = ring::triple(&vulkan.endpoint, stations, &DESC, way.options()?)?;
    let mut a = VulkanHands::new(vulkan, a, way.post(0, 3), way.barriers)?;
    let mut b = CudaHands::new(cuda, b, way.post(1, 3))?;
    let mut c = GlHands::new(gl, c, way.post(2, 3))?;
    let hands: &mut [&mut dyn StageDriver] = &mut [&mut a, &mut b, &mut c];
    play(hands)
}

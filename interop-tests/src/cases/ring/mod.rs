//! Family I, rings: several payloads in flight between every pair of APIs and through three, one by one and
//! in batches, by every route, on one thread and on two.

mod drivers;
pub(crate) mod limits;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use gpu_interop::headless::Vulkan;
use gpu_interop::ring::{self, RingOptions, RingStage, Slot, SlotCommands, Wait};
use gpu_interop::tune::Route;
use gpu_interop::vulkan::Endpoint;
use gpu_interop::{Api, BufferDesc, Error};

use self::drivers::{BYTES, Barriers, RingContext, StageDriver, StagePosition, run_all};
use crate::cases::support::routes::{BINARY, CaseRoute as _, HOST_WAIT, ROUTES, TIMELINE};
use crate::harness::{Case, TestGpu};
use interop_gpu::vulkan::VulkanContext;

const DESC: BufferDesc = BufferDesc::storage(BYTES);
/// Longer than any work takes.
const LONG: Wait = Wait::UpTo(Duration::from_secs(20));

/// Depths, and how many slots are taken at a time.
const SHAPES: [(u32, u32); 6] = [(1, 1), (2, 2), (5, 1), (8, 4), (12, 5), (64, 16)];

/// The APIs of a ring.
#[derive(Clone, Copy, Debug)]
struct Apis {
    name: &'static str,
    /// Those of the stages after the first.
    others: &'static [Api],
    run: fn(&TestGpu, Mode) -> Result<()>,
}

const VULKAN_VULKAN: Apis = Apis {
    name: "vulkan→vulkan",
    others: &[Api::Vulkan],
    run: |gpu, mode| two_stages(gpu, (gpu.vulkan(), gpu.second_instance()?), mode),
};
const VULKAN_GL: Apis = Apis {
    name: "vulkan→gl",
    others: &[Api::OpenGl],
    run: |gpu, mode| two_stages(gpu, (gpu.vulkan(), gpu.gl()?), mode),
};

const RINGS: [Apis; 6] = [
    VULKAN_VULKAN,
    VULKAN_GL,
    Apis {
        name: "vulkan→cuda",
        others: &[Api::Cuda],
        run: |gpu, mode| two_stages(gpu, (gpu.vulkan(), gpu.cuda()?), mode),
    },
    // Neither of them owns the memory.
    Apis {
        name: "gl→cuda",
        others: &[Api::OpenGl, Api::Cuda],
        run: |gpu, mode| two_stages(gpu, (gpu.gl()?, gpu.cuda()?), mode),
    },
    Apis {
        name: "vulkan→gl→vulkan",
        others: &[Api::OpenGl, Api::Vulkan],
        run: |gpu, mode| three_stages(gpu, (gpu.vulkan(), gpu.gl()?, gpu.second_device()?), mode),
    },
    Apis {
        name: "vulkan→cuda→gl",
        others: &[Api::Cuda, Api::OpenGl],
        run: |gpu, mode| three_stages(gpu, (gpu.vulkan(), gpu.cuda()?, gpu.gl()?), mode),
    },
];

/// How payloads circulate.
#[derive(Clone, Copy, Debug)]
struct Mode {
    route: Route,
    depth: u32,
    batch: u32,
    barriers: Barriers,
}

impl Mode {
    fn options(self) -> RingOptions {
        RingOptions { depth: self.depth, handoff: self.route.options() }
    }

    fn position(self, place: u32, stages: u32) -> StagePosition {
        StagePosition { place, stages, depth: self.depth, batch: self.batch }
    }
}

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (route_name, route) in
        [("timeline", TIMELINE), ("binary", BINARY), ("host_wait", HOST_WAIT)]
    {
        for depth in [1, 3, 8] {
            let mode = Mode { route, depth, batch: 1, barriers: Barriers::Ring };
            for apis in [VULKAN_VULKAN, VULKAN_GL] {
                let name = apis.name;
                let name = format!("{name}→vulkan/opaque_fd/ring/{route_name}/depth_{depth}/58");
                cases.push(case(name, apis, mode));
            }
        }
    }
    let name = |what: &str| format!("vulkan→vulkan/opaque_fd/ring/{what}");
    cases.push(Case::new(name("on_two_threads/61"), on_two_threads));
    cases.push(Case::new(name("full_empty_and_timed_out/48"), full_empty_and_too_late));
    cases.push(Case::new(name("a_dropped_stage_ends_it/59"), dropped_stage));
    cases.push(Case::new(name("bad_options_and_slots_are_refused/21"), refusals));
    for apis in RINGS {
        for route in ROUTES {
            let case = |(depth, batch), barriers, recorded: &str| {
                let name = apis.name;
                let name = format!("{name}/opaque_fd/ring/{route}/{recorded}/{depth}x{batch}/58");
                case(name, apis, Mode { route, depth, batch, barriers })
            };
            let by_ring = |shape| case(shape, Barriers::Ring, "recorded_by_the_ring");
            cases.extend(SHAPES.map(by_ring));
            if apis.name.starts_with("vulkan") {
                cases.push(case((8, 4), Barriers::Own, "recorded_in_advance"));
            }
        }
    }
    cases
}

fn case(name: String, apis: Apis, mode: Mode) -> Case {
    let case = Case::new(name, move |test_gpu| (apis.run)(test_gpu, mode));
    apis.others.iter().fold(case, |case, api| case.needs(&mode.route.needs(*api)))
}

fn two_stages<A: RingContext, B: RingContext>(
    test_gpu: &TestGpu,
    (one, two): (&A, &B),
    mode: Mode,
) -> Result<()> {
    let owner = &test_gpu.vulkan().endpoint;
    let (a, b, plans) = ring::pair(owner, one.endpoint(), two.endpoint(), &DESC, mode.options())?;
    ensure!(plans.iter().all(|plan| Some(plan.method) == mode.route.method()), "{plans:?}");
    let mut a = one.driver(a, mode.position(0, 2), mode.barriers)?;
    let mut b = two.driver(b, mode.position(1, 2), mode.barriers)?;
    run_all(&mut [&mut a, &mut b])
}

fn three_stages<A: RingContext, B: RingContext, C: RingContext>(
    test_gpu: &TestGpu,
    (one, two, three): (&A, &B, &C),
    mode: Mode,
) -> Result<()> {
    let owner = &test_gpu.vulkan().endpoint;
    let endpoints = (one.endpoint(), two.endpoint(), three.endpoint());
    let (a, b, c, plans) = ring::triple(owner, endpoints, &DESC, mode.options())?;
    ensure!(plans.iter().all(|plan| Some(plan.method) == mode.route.method()), "{plans:?}");
    let mut a = one.driver(a, mode.position(0, 3), mode.barriers)?;
    let mut b = two.driver(b, mode.position(1, 3), mode.barriers)?;
    let mut c = three.driver(c, mode.position(2, 3), mode.barriers)?;
    let drivers: &mut [&mut dyn StageDriver] = &mut [&mut a, &mut b, &mut c];
    run_all(drivers)
}

/// Each stage on a thread of its own, with a device of its own: the slower one makes the other wait.
fn on_two_threads(test_gpu: &TestGpu) -> Result<()> {
    const MODE: Mode = Mode { route: HOST_WAIT, depth: 4, batch: 1, barriers: Barriers::Ring };
    let (one, two) = (test_gpu.vulkan(), test_gpu.second_device()?);
    let (one, two) = (one.vulkan.second_device()?, two.vulkan.second_device()?);
    let (here, there) = (one.endpoint()?, two.endpoint()?);
    let options = RingOptions { depth: MODE.depth, ..RingOptions::default() };
    let (a, b, _) = ring::pair(&here, &here, &there, &DESC, options)?;
    let work = |vulkan: Vulkan, stage: RingStage<Endpoint>, place: u32| -> Result<()> {
        let gpu = VulkanContext::new(vulkan)?;
        let mut driver = gpu.driver(stage, MODE.position(place, 2), MODE.barriers)?;
        while driver.turn(LONG)? {}
        driver.check()
    };
    std::thread::scope(|scope| {
        let other = scope.spawn(move || work(two, b, 1));
        work(one, a, 0)?;
        other.join().unwrap_or_else(|_| Err(anyhow!("the other stage panicked")))
    })
}

type Stages = (RingStage<Endpoint>, RingStage<Endpoint>);

fn stages(test_gpu: &TestGpu, depth: u32) -> Result<Stages> {
    let (one, two) = (test_gpu.vulkan(), test_gpu.second_device()?);
    let options = RingOptions { depth, ..RingOptions::default() };
    let (a, b, _) = ring::pair(&one.endpoint, &one.endpoint, &two.endpoint, &DESC, options)?;
    Ok((a, b))
}

/// A slot that no stage has used yet: there is nothing to record.
fn take(stage: &mut RingStage<Endpoint>, wait: Wait) -> Result<Option<Slot>, Error> {
    let taken = stage.take(wait, 1..=1, SlotCommands::recorded())?;
    Ok(taken.and_then(|(batch, _)| batch.into_iter().next()))
}

/// A producer that is ahead gets no slot, at once or after its timeout; a slot that was dropped returns.
fn full_empty_and_too_late(test_gpu: &TestGpu) -> Result<()> {
    let (mut a, mut b) = stages(test_gpu, 2)?;
    ensure!((a.depth(), a.arrived(), b.arrived()) == (2, 2, 0));
    let one = take(&mut a, Wait::No)?.context("two slots to begin with")?;
    let two = take(&mut a, Wait::No)?.context("two slots to begin with")?;
    ensure!(take(&mut a, Wait::No)?.is_none(), "more slots than the ring's depth");
    ensure!(take(&mut b, Wait::No)?.is_none(), "a slot that was not released");
    let (start, short) = (Instant::now(), Duration::from_millis(30));
    match take(&mut a, Wait::UpTo(short)) {
        Err(Error::Timeout { waited, .. }) if waited == short => {}
        other => bail!("{other:?}"),
    }
    ensure!(start.elapsed() >= short, "it did not wait");
    let index = one.index();
    drop(one);
    let again = take(&mut a, Wait::No)?.context("a dropped slot returns")?;
    ensure!(again.index() == index && two.index() != index);
    Ok(())
}

/// Waiting for a stage that was dropped is an error.
fn dropped_stage(test_gpu: &TestGpu) -> Result<()> {
    let (mut a, b) = stages(test_gpu, 1)?;
    let slot = take(&mut a, Wait::No)?.context("one slot")?;
    drop(b);
    let error = take(&mut a, LONG).err().context("no slot can arrive any more")?;
    ensure!(error.to_string().contains("was dropped"), "{error}");
    drop(slot);
    Ok(())
}

fn refusals(test_gpu: &TestGpu) -> Result<()> {
    let endpoint = &test_gpu.vulkan().endpoint;
    for depth in [0, 65] {
        let options = RingOptions { depth, ..RingOptions::default() };
        let error = ring::pair(endpoint, endpoint, endpoint, &DESC, options).err();
        let error = error.with_context(|| format!("a ring of {depth} slots"))?;
        ensure!(matches!(&error, Error::Invalid(_)), "{error:?}");
    }
    let ((mut a, b), (mut c, _d)) = (stages(test_gpu, 1)?, stages(test_gpu, 1)?);
    let (slot, other) = (take(&mut a, Wait::No)?, take(&mut c, Wait::No)?);
    let (slot, other) = (slot.context("a slot")?, other.context("a slot")?);
    a.buffer(&slot)?;
    for error in [a.buffer(&other).err(), b.buffer(&slot).err()] {
        ensure!(matches!(error, Some(Error::Mismatch(_))), "{error:?}");
    }
    Ok(())
}

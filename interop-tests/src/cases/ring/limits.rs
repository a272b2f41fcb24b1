//! The ring where something takes too long, or is dropped while it is under way.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use gpu_interop::handoff::WaitMode;
use gpu_interop::ring::{self, Batch, RingOptions, RingStage, SlotCommands, Wait};
use gpu_interop::tune::Route;
use gpu_interop::vulkan::Endpoint;
use gpu_interop::{Api, BufferDesc, Error, SemaphoreKind};

use crate::cases::ring::drivers::everything;
use crate::cases::ring::held::{Held, memory};
use crate::harness::{Case, Need, TestGpu, open_descriptors};
use interop_gpu::oracle::{self, Turns};
use interop_gpu::vulkan::VulkanContext;

const BYTES: u64 = 64 << 10;
const DESC: BufferDesc = BufferDesc::storage(BYTES);
const SHORT: Duration = Duration::from_millis(40);
const PATIENT: Wait = Wait::UpTo(Duration::from_secs(20));

const ROUTES: [Route; 4] = [
    Route::Semaphore(SemaphoreKind::Timeline),
    Route::Semaphore(SemaphoreKind::Binary),
    Route::HostWait(WaitMode::Block),
    Route::HostWait(WaitMode::Spin),
];

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, api) in
        [("vulkan→vulkan", Api::Vulkan), ("vulkan→gl", Api::OpenGl), ("vulkan→cuda", Api::Cuda)]
    {
        for route in ROUTES {
            let name = |what: &str| format!("{name}/opaque_fd/ring/{route}/{what}");
            let needs = needs(api, route);
            if matches!(route, Route::HostWait(_)) {
                let late = Case::new(name("a_timeout_leaves_it_usable/48"), move |machine| {
                    too_late(machine, api, route)
                });
                cases.push(late.needs(&needs));
            }
            let going = Case::new(name("a_station_that_goes_waits_for_its_work/59"), move |m| {
                goes_with_work(m, route)
            });
            if api == Api::Vulkan {
                cases.push(going.needs(&needs));
                let withdrawn = name("withdrawn_releases_do_not_count/46");
                let withdrawn = Case::new(withdrawn, move |machine| withdrawn_all(machine, route));
                cases.push(withdrawn.needs(&needs));
            }
            if api == Api::Cuda {
                let dropped = name("a_dropped_stage_waits_for_its_work/59");
                let dropped = Case::new(dropped, move |machine| dropped_cuda_stage(machine, route));
                let gate = Need::Semaphore(Api::Cuda, SemaphoreKind::Timeline);
                cases.push(dropped.needs(&needs).needs(&[gate]));
            }
            let dropped = Case::new(name("dropped_in_flight_nothing_is_left/60"), move |machine| {
                dropped_in_flight(machine, api, route)
            });
            cases.push(dropped.needs(&needs));
        }
    }
    let name = |what: &str| format!("vulkan→vulkan/opaque_fd/ring/{what}");
    cases.push(Case::new(name("batches_that_can_not_be_are_refused/21"), refused_batches));
    let binary = needs(Api::Vulkan, ROUTES[1]);
    cases.push(Case::new(name("binary/out_of_turn_is_refused/46"), out_of_turn).needs(&binary));
    cases.push(Case::new(name("a_batch_comes_when_it_is_full/48"), comes_when_full));
    cases
}

fn needs(api: Api, route: Route) -> Vec<Need> {
    let there = match api {
        Api::OpenGl => Some(Need::Gl),
        Api::Cuda => Some(Need::Cuda),
        _ => None,
    };
    let semaphore = match route {
        Route::Semaphore(kind) => Some(Need::Semaphore(api, kind)),
        _ => None,
    };
    there.into_iter().chain(semaphore).collect()
}

fn options(route: Route, depth: u32) -> RingOptions {
    RingOptions { depth, handoff: route.handoff().unwrap_or_default() }
}

/// The first station's part of a turn: takes a slot, fills it with `seed`, and passes it on.
fn fill(gpu: &VulkanContext, station: &mut RingStage<Endpoint>, seed: u32) -> Result<()> {
    let (command, family) = (gpu.command_buffers(1)?[0], gpu.vulkan.queue_family());
    gpu.begin(command)?;
    // SAFETY: the command buffer is being recorded; the part goes into its submit, and the station
    // waits for it when it goes.
    let commands = unsafe { SlotCommands::record(command, family, everything) };
    let (batch, mut part) = station.take(PATIENT, 1..=1, commands)?.context("a slot")?;
    let buffer = station.buffer(batch.single().context("one slot")?)?.handle();
    let data = oracle::filled(BYTES as usize, seed);
    for (at, piece) in (0..).zip(data.chunks(65_536)) {
        // SAFETY: as above; a piece is what vkCmdUpdateBuffer takes.
        unsafe { gpu.device().cmd_update_buffer(command, buffer, at * 65_536, piece) };
    }
    let (added, pending) = station.release(batch, commands)?;
    part.merge(added)?;
    gpu.submit(command, &part)?;
    pending.submitted();
    Ok(())
}

/// The host waits for work that takes too long: a typed error, as often as it is tried, and the slot
/// comes all the same when the work is done.
fn too_late(machine: &TestGpu, api: Api, route: Route) -> Result<()> {
    let gpu = machine.vulkan();
    let owner = &gpu.endpoint;
    let mut options = options(route, 2);
    options.handoff.timeout = SHORT;
    let refused = |error: Option<Error>| match error {
        Some(Error::Timeout { waited, .. }) if waited == SHORT => Ok(()),
        other => bail!("taken before the work was done: {other:?}"),
    };
    let read = match api {
        Api::OpenGl => {
            let gl = machine.gl()?;
            let (mut a, mut b, _) = ring::pair(owner, owner, &gl.endpoint, &DESC, options)?;
            let held = Held::hold(gpu)?;
            fill(gpu, &mut a, 48)?;
            refused(b.take(PATIENT, 1..=1, ()).err())?;
            refused(b.take(PATIENT, 1..=2, ()).err())?;
            held.let_go_and_wait()?;
            let (batch, ()) = b.take(PATIENT, 1..=1, ())?.context("it has arrived")?;
            gl.download(b.buffer(batch.single().context("one slot")?)?.name(), 0, BYTES)?
        }
        Api::Cuda => {
            let cuda = machine.cuda()?;
            let (mut a, mut b, _) = ring::pair(owner, owner, &cuda.endpoint, &DESC, options)?;
            let held = Held::hold(gpu)?;
            fill(gpu, &mut a, 48)?;
            refused(b.take(PATIENT, 1..=1, &cuda.stream).err())?;
            refused(b.take(PATIENT, 1..=2, &cuda.stream).err())?;
            held.let_go_and_wait()?;
            let taken = b.take(PATIENT, 1..=1, &cuda.stream)?;
            let (batch, ()) = taken.context("it has arrived")?;
            let slot = batch.single().context("one slot")?;
            cuda.stream.clone_dtoh(&b.buffer(slot)?.as_view::<u8>()?)?
        }
        _ => {
            let two = machine.second_device()?;
            let (mut a, mut b, _) = ring::pair(owner, owner, &two.endpoint, &DESC, options)?;
            let held = Held::hold(gpu)?;
            fill(gpu, &mut a, 48)?;
            let recorded = SlotCommands::recorded;
            refused(b.take(PATIENT, 1..=1, recorded()).err())?;
            refused(b.take(PATIENT, 1..=2, recorded()).err())?;
            held.let_go_and_wait()?;
            let (batch, part) = b.take(PATIENT, 1..=2, recorded())?.context("it has arrived")?;
            ensure!(batch.len() == 1 && part.waits.is_empty(), "{batch:?} {part:?}");
            let slot = batch.iter().next().context("one slot")?;
            two.download(b.buffer(slot)?.handle(), 0, BYTES)?
        }
    };
    Ok(oracle::check(&read, 48, &Turns::default())?)
}

/// A station goes while its work is held back: it is gone when the work is done, and not before.
fn goes_with_work(machine: &TestGpu, route: Route) -> Result<()> {
    let (gpu, two) = (machine.vulkan(), machine.second_device()?);
    let (owner, options) = (&gpu.endpoint, options(route, 2));
    let (mut a, b, _) = ring::pair(owner, owner, &two.endpoint, &DESC, options)?;
    let held = Held::hold(gpu)?;
    fill(gpu, &mut a, 1)?;
    fill(gpu, &mut a, 2)?;
    let gate = held.gate();
    let start = Instant::now();
    let opened = thread::spawn(move || {
        thread::sleep(SHORT);
        gate.open()
    });
    drop(a);
    let (took, is_open) = (start.elapsed(), held.gate().is_open()?);
    opened.join().map_err(|_| anyhow::anyhow!("panicked"))??;
    ensure!(is_open && took >= SHORT, "gone after {took:?}, its work not done");
    drop(b);
    Ok(())
}

/// A CUDA stage is dropped while its stream waits: `drop` returns when the work is done, and not before.
fn dropped_cuda_stage(machine: &TestGpu, route: Route) -> Result<()> {
    let (owner, cuda) = (&machine.vulkan().endpoint, machine.cuda()?);
    let (mut a, b, _) = ring::pair(owner, &cuda.endpoint, owner, &DESC, options(route, 2))?;
    let gate = owner.create_semaphore(SemaphoreKind::Timeline)?;
    let in_cuda = cuda.endpoint.import_semaphore(gate.export()?)?;
    cuda.endpoint.wait(&cuda.stream, &in_cuda, Some(1))?;
    let (batch, ()) = a.take(PATIENT, 1..=1, &cuda.stream)?.context("a slot")?;
    a.release(batch, &cuda.stream)?;
    let (start, opener) = (Instant::now(), gate.clone());
    let opened = thread::spawn(move || {
        thread::sleep(SHORT);
        // SAFETY: nothing else signals the semaphore, whose value is 0.
        unsafe { opener.signal(1) }
    });
    drop(a);
    let (took, is_open) = (start.elapsed(), gate.value()? == 1);
    opened.join().map_err(|_| anyhow::anyhow!("panicked"))??;
    ensure!(is_open && took >= SHORT, "dropped after {took:?}, its work not done");
    drop(b);
    Ok(())
}

/// Releases whose submit did not happen are taken back: as many as before may follow.
fn withdrawn_all(machine: &TestGpu, route: Route) -> Result<()> {
    let (one, two) = (machine.vulkan(), machine.second_device()?);
    let (owner, options) = (&one.endpoint, options(route, 3));
    let (mut a, b, _) = ring::pair(owner, owner, &two.endpoint, &DESC, options)?;
    for count in [3, 1, 3, 2, 3] {
        let slots = new_slots(&mut a, count)?;
        let (_, pending) = a.release(slots, SlotCommands::recorded())?;
        drop(pending);
        ensure!((a.arrived(), b.arrived()) == (3, 0), "a slot is lost");
    }
    for seed in 0..3 {
        fill(one, &mut a, seed)?;
    }
    ensure!((a.arrived(), b.arrived()) == (0, 3), "a slot is lost");
    Ok(())
}

/// Rings go with work under way and slots held: neither descriptors nor memory stay behind.
fn dropped_in_flight(machine: &TestGpu, api: Api, route: Route) -> Result<()> {
    const DEPTH: u32 = 4;
    const MEGABYTE: u64 = 1 << 20;
    let gpu = machine.vulkan();
    let owner = &gpu.endpoint;
    let desc = BufferDesc::storage(MEGABYTE);
    let options = options(route, DEPTH);
    let two = machine.second_device()?;
    let ring = || -> Result<()> {
        macro_rules! one {
            ($endpoint:expr, $b:ident => $take:expr) => {{
                let (mut a, mut $b, _) = ring::pair(owner, owner, $endpoint, &desc, options)?;
                for seed in 0..DEPTH {
                    fill(gpu, &mut a, seed)?;
                }
                // Two are taken, of which one is held while all goes; two never are.
                let (one, other) = ($take?.context("a slot")?, $take?.context("a slot")?);
                drop(a);
                drop(one);
                drop($b);
                drop(other);
            }};
        }
        match api {
            Api::OpenGl => one!(&machine.gl()?.endpoint, b => b.take(PATIENT, 1..=1, ())),
            Api::Cuda => {
                let cuda = machine.cuda()?;
                one!(&cuda.endpoint, b => b.take(PATIENT, 1..=1, &cuda.stream));
            }
            _ => one!(&two.endpoint, b => taken(two, &mut b)),
        }
        gpu.vulkan.wait_idle()?;
        if let Api::OpenGl = api {
            machine.gl()?.endpoint.delete_dropped()?;
        }
        Ok(())
    };
    // Drivers open what they need, and keep pools, the first time.
    ring()?;
    ring()?;
    let (before, memory_before) = (open_descriptors(), memory(machine)?);
    const RINGS: u64 = 24;
    for _ in 0..RINGS {
        ring()?;
    }
    before.require_same(&open_descriptors())?;
    let grown = memory(machine)?.saturating_sub(memory_before);
    // A quarter of what the rings had.
    let limit = RINGS * u64::from(DEPTH) * MEGABYTE / 4;
    ensure!(grown < limit, "{grown} bytes more than before");
    Ok(())
}

/// A slot that the other device has acquired, and waited for.
fn taken(gpu: &VulkanContext, station: &mut RingStage<Endpoint>) -> Result<Option<Batch>> {
    let command = gpu.command_buffers(1)?[0];
    gpu.begin(command)?;
    let family = gpu.vulkan.queue_family();
    // SAFETY: the command buffer is being recorded; the part goes into its submit, which is waited
    // for.
    let commands = unsafe { SlotCommands::record(command, family, everything) };
    let Some((batch, part)) = station.take(PATIENT, 1..=1, commands)? else { return Ok(None) };
    gpu.submit(command, &part)?;
    gpu.vulkan.wait_idle()?;
    gpu.free_command_buffers(&[command]);
    Ok(Some(batch))
}

/// Slots as nobody has worked on them yet: there is nothing to record.
fn new_slots(station: &mut RingStage<Endpoint>, count: usize) -> Result<Batch> {
    let taken = station.take(Wait::No, count..=count, SlotCommands::recorded())?;
    Ok(taken.context("they are all here to begin with")?.0)
}

fn refused_batches(machine: &TestGpu) -> Result<()> {
    let (one, two) = (machine.vulkan(), machine.second_device()?);
    let options = options(ROUTES[2], 3);
    let (mut a, mut b, _) =
        ring::pair(&one.endpoint, &one.endpoint, &two.endpoint, &DESC, options)?;
    #[expect(clippy::reversed_empty_ranges, reason = "it is to be refused")]
    for how_many in [0..=1, 4..=8, 2..=1] {
        let error =
            a.take(PATIENT, how_many, SlotCommands::recorded()).err().context("that many?")?;
        ensure!(matches!(error, Error::Invalid(_)), "{error:?}");
    }
    ensure!(b.take(Wait::No, 1..=64, SlotCommands::recorded())?.is_none(), "nothing was passed");
    let error =
        a.release(Batch::default(), SlotCommands::recorded()).err().context("of nothing")?;
    ensure!(error.to_string().contains("no slot"), "{error}");
    // A batch of the wrong station is refused, and its slots go back where they came from.
    let slots = new_slots(&mut a, 2)?;
    let error =
        b.release(slots, SlotCommands::recorded()).err().context("another station's slots")?;
    ensure!(matches!(error, Error::Mismatch(_)), "{error:?}");
    ensure!((a.arrived(), b.arrived()) == (3, 0), "a slot is lost");
    // So are those whose submit did not happen.
    let slots = new_slots(&mut a, 3)?;
    let (part, passing) = a.release(slots, SlotCommands::recorded())?;
    ensure!(part.signals.len() + usize::from(part.fence.is_some()) == 1, "one a batch: {part:?}");
    drop(passing);
    ensure!((a.arrived(), b.arrived()) == (3, 0), "a slot is lost");
    Ok(())
}

/// Binary semaphores are used in turn: a batch that would go before an older slot is refused.
fn out_of_turn(machine: &TestGpu) -> Result<()> {
    let (one, two) = (machine.vulkan(), machine.second_device()?);
    let options = options(ROUTES[1], 3);
    let (mut a, _b, _) = ring::pair(&one.endpoint, &one.endpoint, &two.endpoint, &DESC, options)?;
    let (first, rest) = (new_slots(&mut a, 1)?, new_slots(&mut a, 2)?);
    let error = a.release(rest, SlotCommands::recorded()).err().context("before the first")?;
    ensure!(error.to_string().contains("in the order"), "{error}");
    ensure!(a.arrived() == 2, "what was refused is back");
    let both: Batch = first.into_iter().chain(new_slots(&mut a, 2)?).collect();
    let (part, passing) = a.release(both, SlotCommands::recorded())?;
    ensure!(part.signals.iter().filter(|signal| signal.value.is_none()).count() == 3, "{part:?}");
    drop(passing);
    Ok(())
}

/// Who asks for three waits until the third has come, on another thread.
fn comes_when_full(machine: &TestGpu) -> Result<()> {
    let (one, two) = (machine.vulkan(), machine.second_device()?);
    let (one, two) = (one.vulkan.second_device()?, two.vulkan.second_device()?);
    let (here, there) = (one.endpoint()?, two.endpoint()?);
    let (mut a, mut b, _) = ring::pair(&here, &here, &there, &DESC, options(ROUTES[2], 3))?;
    let gpu = VulkanContext::new(one)?;
    thread::scope(|scope| {
        let waiting = scope.spawn(move || -> Result<(usize, RingStage<Endpoint>)> {
            let (batch, _) = b.take(PATIENT, 3..=3, SlotCommands::recorded())?.context("three")?;
            Ok((batch.len(), b))
        });
        for seed in 0..3 {
            ensure!(!waiting.is_finished(), "{seed} of 3 were enough");
            fill(&gpu, &mut a, seed)?;
            thread::sleep(SHORT / 4);
        }
        let (count, _b) = waiting.join().map_err(|_| anyhow::anyhow!("panicked"))??;
        ensure!(count == 3, "{count} slots");
        Ok(())
    })
}

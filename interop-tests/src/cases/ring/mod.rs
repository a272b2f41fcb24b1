//! The ring: several payloads under way between two stations, on one thread and on two.

pub(crate) mod drivers;
pub(crate) mod held;
pub(crate) mod limits;
pub(crate) mod pairs;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use gpu_interop::ash::vk;
use gpu_interop::capabilities::SyncMethod;
use gpu_interop::handoff::HandoffOptions;
use gpu_interop::ring::{self, RingOptions, RingStage, Slot, SlotCommands, Wait};
use gpu_interop::vulkan::{BufferAccess, Endpoint};
use gpu_interop::{Api, BufferDesc, Error, SemaphoreKind, gl};

use crate::harness::{Case, Need, TestGpu};
use interop_gpu::gl::GlContext;
use interop_gpu::oracle::{self, Turns};
use interop_gpu::vulkan::VulkanContext;
use interop_gpu::{Kernel, vulkan::PrivateBuffer};

const BYTES: u64 = 64 << 10;
const DESC: BufferDesc = BufferDesc::storage(BYTES);
const ITEMS: u32 = 100;
const PATIENT: Wait = Wait::UpTo(Duration::from_secs(20));

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, method, kind) in [
        ("timeline", SyncMethod::Timeline, Some(SemaphoreKind::Timeline)),
        ("binary", SyncMethod::Binary, Some(SemaphoreKind::Binary)),
        ("host_wait", SyncMethod::HostWait, None),
    ] {
        for depth in [1, 3, 8] {
            let to = |api| kind.map(|kind| Need::Semaphore(api, kind));
            let case = format!("vulkan→vulkan→vulkan/opaque_fd/ring/{name}/depth_{depth}/58");
            cases.push(
                Case::new(case, move |machine| between_vulkans(machine, options(method, depth)))
                    .needs(to(Api::Vulkan).as_slice()),
            );
            let case = format!("vulkan→gl→vulkan/opaque_fd/ring/{name}/depth_{depth}/58");
            cases.push(
                Case::new(case, move |machine| with_gl(machine, options(method, depth)))
                    .needs(&[Need::Gl])
                    .needs(to(Api::OpenGl).as_slice()),
            );
        }
    }
    let name = |what: &str| format!("vulkan→vulkan/opaque_fd/ring/{what}");
    cases.push(Case::new(name("on_two_threads/61"), on_two_threads));
    cases.push(Case::new(name("full_empty_and_too_late/48"), full_empty_and_too_late));
    cases.push(Case::new(name("a_station_that_goes_ends_it/59"), a_station_goes));
    cases.push(Case::new(name("bad_options_and_slots_are_refused/21"), refusals));
    cases
}

fn options(method: SyncMethod, depth: u32) -> RingOptions {
    let handoff = HandoffOptions { method: Some(method), ..HandoffOptions::default() };
    RingOptions { depth, handoff }
}

/// A Vulkan device at its station: every slot has a command buffer of its own.
struct Worker<'a> {
    gpu: &'a VulkanContext,
    station: RingStage<Endpoint>,
    commands: Vec<vk::CommandBuffer>,
    /// Where each payload that comes back is looked at.
    seen: PrivateBuffer,
}

impl<'a> Worker<'a> {
    fn new(gpu: &'a VulkanContext, station: RingStage<Endpoint>) -> Result<Self> {
        let commands = gpu.command_buffers(1)?;
        let seen = PrivateBuffer::device(&gpu.vulkan, BYTES)?;
        Ok(Self { gpu, station, commands, seen })
    }

    /// Takes a slot, looks at what is in it if `expected` is given, runs `kernel`, and passes it on.
    fn turn(&mut self, kernel: Kernel, expected: Option<(u32, Turns)>) -> Result<Option<usize>> {
        let (gpu, command, family) = (self.gpu, self.commands[0], self.gpu.vulkan.queue_family());
        gpu.vulkan.wait_idle()?;
        gpu.begin(command)?;
        // SAFETY: the command buffer is being recorded; the part is added to the submit below.
        let commands = unsafe { SlotCommands::record(command, family, everything) };
        let taken = self.station.take(PATIENT, 1..=1, commands)?;
        let Some((batch, mut part)) = taken else { return Ok(None) };
        let slot = batch.single().context("one slot")?;
        let buffer = self.station.buffer(slot)?.handle();
        let bound = gpu.bind(buffer, BYTES)?;
        let region = vk::BufferCopy::default().size(BYTES);
        // SAFETY: the command buffer is being recorded, and both buffers are that long.
        unsafe { gpu.device().cmd_copy_buffer(command, buffer, self.seen.buffer, &[region]) };
        gpu.record_barrier(command);
        gpu.record(command, kernel, &bound, 0);
        let index = slot.index();
        let (added, pending) = self.station.release(batch, commands)?;
        part.merge(added)?;
        gpu.submit(command, &part)?;
        pending.submitted();
        if let Some((seed, turns)) = expected {
            gpu.vulkan.wait_idle()?;
            let data = gpu.download(self.seen.buffer, 0, BYTES)?;
            oracle::check(&data, seed, &turns).with_context(|| format!("slot {index}"))?;
        }
        gpu.vulkan.wait_idle()?;
        gpu.unbind(bound);
        Ok(Some(index))
    }
}

fn everything(buffer: &gpu_interop::vulkan::Buffer) -> BufferAccess<'_> {
    BufferAccess::compute(buffer) | BufferAccess::transfer(buffer)
}

/// What a payload holds when it comes back: filled with the number of its item, and one turn.
fn after_one_turn(item: u32) -> (u32, Turns) {
    let mut turns = Turns::default();
    turns.then(item + 1000);
    (item, turns)
}

/// All slots filled, then each turned by the other side and looked at when it is back: `depth` of
/// them under way at a time.
fn play(
    depth: u32,
    mut first: impl FnMut(Kernel, Option<(u32, Turns)>) -> Result<Option<usize>>,
    mut second: impl FnMut(u32) -> Result<()>,
) -> Result<()> {
    for item in 0..ITEMS {
        let back = item.checked_sub(depth).map(after_one_turn);
        let slot = first(Kernel::Fill { seed: item }, back)?;
        ensure!(slot == Some((item % depth) as usize), "item {item} went by slot {slot:?}");
        if item + 1 >= depth {
            second(item + 1 - depth)?;
        }
    }
    Ok(())
}

fn between_vulkans(machine: &TestGpu, options: RingOptions) -> Result<()> {
    let (one, two) = (machine.vulkan(), machine.second_instance()?);
    let (a, b, plans) = ring::pair(&one.endpoint, &one.endpoint, &two.endpoint, &DESC, options)?;
    ensure!(plans.iter().all(|plan| Some(plan.method) == options.handoff.method), "{plans:?}");
    let (mut a, mut b) = (Worker::new(one, a)?, Worker::new(two, b)?);
    play(
        options.depth,
        |kernel, expected| a.turn(kernel, expected),
        |item| {
            let step = item + 1000;
            b.turn(Kernel::PingPong { step }, Some((item, Turns::default()))).map(drop)
        },
    )
}

fn with_gl(machine: &TestGpu, options: RingOptions) -> Result<()> {
    let (vulkan, gpu) = (machine.vulkan(), machine.gl()?);
    let (a, mut b, _) =
        ring::pair(&vulkan.endpoint, &vulkan.endpoint, &gpu.endpoint, &DESC, options)?;
    let mut a = Worker::new(vulkan, a)?;
    play(
        options.depth,
        |kernel, expected| a.turn(kernel, expected),
        |item| gl_turn(gpu, &mut b, item),
    )
}

fn gl_turn(gpu: &GlContext, station: &mut RingStage<gl::Endpoint>, item: u32) -> Result<()> {
    let (batch, ()) = station.take(PATIENT, 1..=1, ())?.context("a slot has arrived")?;
    let name = station.buffer(batch.single().context("one slot")?)?.name();
    let read = gpu.download(name, 0, BYTES)?;
    oracle::check(&read, item, &Turns::default())?;
    gpu.dispatch(Kernel::PingPong { step: item + 1000 }, name, BYTES, 0)?;
    Ok(station.release(batch, ())?)
}

/// Each station on a thread of its own, with a device of its own: who is behind makes the other wait.
fn on_two_threads(machine: &TestGpu) -> Result<()> {
    let (one, two) = (machine.vulkan(), machine.second_device()?);
    let (one, two) = (one.vulkan.second_device()?, two.vulkan.second_device()?);
    let (here, there) = (one.endpoint()?, two.endpoint()?);
    let options = RingOptions { depth: 4, ..RingOptions::default() };
    let (a, b, _) = ring::pair(&here, &here, &there, &DESC, options)?;
    std::thread::scope(|scope| {
        let other = scope.spawn(move || -> Result<()> {
            let gpu = VulkanContext::new(two)?;
            let mut b = Worker::new(&gpu, b)?;
            for item in 0..ITEMS {
                let step = item + 1000;
                b.turn(Kernel::PingPong { step }, Some((item, Turns::default())))?;
            }
            Ok(())
        });
        let gpu = VulkanContext::new(one)?;
        let mut a = Worker::new(&gpu, a)?;
        for item in 0..ITEMS {
            let back = item.checked_sub(options.depth).map(after_one_turn);
            a.turn(Kernel::Fill { seed: item }, back)?;
        }
        other.join().unwrap_or_else(|_| Err(anyhow::anyhow!("the other station panicked")))
    })
}

type Stations = (RingStage<Endpoint>, RingStage<Endpoint>);

fn stations(machine: &TestGpu, depth: u32) -> Result<Stations> {
    let (one, two) = (machine.vulkan(), machine.second_device()?);
    let options = RingOptions { depth, ..RingOptions::default() };
    let (a, b, _) = ring::pair(&one.endpoint, &one.endpoint, &two.endpoint, &DESC, options)?;
    Ok((a, b))
}

/// A slot that no stage has used yet: there is nothing to record.
fn take(station: &mut RingStage<Endpoint>, wait: Wait) -> Result<Option<Slot>, Error> {
    let taken = station.take(wait, 1..=1, SlotCommands::recorded())?;
    Ok(taken.and_then(|(batch, _)| batch.into_iter().next()))
}

/// A producer that is ahead is told "full" at once, or in time; a slot that was dropped comes back.
fn full_empty_and_too_late(machine: &TestGpu) -> Result<()> {
    let (mut a, mut b) = stations(machine, 2)?;
    ensure!((a.depth(), a.arrived(), b.arrived()) == (2, 2, 0));
    let one = take(&mut a, Wait::No)?.context("two slots to begin with")?;
    let two = take(&mut a, Wait::No)?.context("two slots to begin with")?;
    ensure!(take(&mut a, Wait::No)?.is_none(), "more slots than the ring is deep");
    ensure!(take(&mut b, Wait::No)?.is_none(), "a slot that nobody passed");
    let (start, short) = (Instant::now(), Duration::from_millis(30));
    match take(&mut a, Wait::UpTo(short)) {
        Err(Error::Timeout { waited, .. }) if waited == short => {}
        other => anyhow::bail!("{other:?}"),
    }
    ensure!(start.elapsed() >= short, "it did not wait");
    let index = one.index();
    drop(one);
    let again = take(&mut a, Wait::No)?.context("a dropped slot comes back")?;
    ensure!(again.index() == index && two.index() != index);
    Ok(())
}

/// Whoever waits for a station that is gone is told so.
fn a_station_goes(machine: &TestGpu) -> Result<()> {
    let (mut a, b) = stations(machine, 1)?;
    let slot = take(&mut a, Wait::No)?.context("one slot")?;
    drop(b);
    let error = take(&mut a, PATIENT).err().context("nothing can come any more")?;
    ensure!(error.to_string().contains("was dropped"), "{error}");
    drop(slot);
    Ok(())
}

fn refusals(machine: &TestGpu) -> Result<()> {
    let endpoint = &machine.vulkan().endpoint;
    for depth in [0, 65] {
        let options = RingOptions { depth, ..RingOptions::default() };
        let error = ring::pair(endpoint, endpoint, endpoint, &DESC, options).err();
        let error = error.with_context(|| format!("a ring of {depth} slots"))?;
        ensure!(matches!(&error, Error::Invalid(_)), "{error:?}");
    }
    let ((mut a, b), (mut c, _d)) = (stations(machine, 1)?, stations(machine, 1)?);
    let (slot, other) = (take(&mut a, Wait::No)?, take(&mut c, Wait::No)?);
    let (slot, other) = (slot.context("a slot")?, other.context("a slot")?);
    a.buffer(&slot)?;
    for error in [a.buffer(&other).err(), b.buffer(&slot).err()] {
        ensure!(matches!(error, Some(Error::Mismatch(_))), "{error:?}");
    }
    Ok(())
}

//! Family I: rings whose work takes too long or that are dropped in flight, and batches that are refused.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use gpu_interop::ring::{self, Batch, RingOptions, RingPeer, RingStage, Slot, SlotCommands, Wait};
use gpu_interop::tune::Route;
use gpu_interop::vulkan::Endpoint;
use gpu_interop::{Api, BufferDesc, Error, SemaphoreKind};

use crate::cases::support::contexts::all_access;
use crate::cases::support::driver::memory_in_use;
use crate::cases::support::routes::{BINARY, CaseRoute as _, HOST_WAIT, ROUTES};
use crate::cases::support::stalled_queue::StalledQueue;
use crate::harness::{Case, Need, TestGpu, open_descriptors};
use interop_gpu::oracle::{self, Passes};
use interop_gpu::vulkan::VulkanContext;

const BYTES: u64 = 64 << 10;
const DESC: BufferDesc = BufferDesc::storage(BYTES);
const SHORT: Duration = Duration::from_millis(40);
/// Longer than any work takes.
const LONG: Wait = Wait::UpTo(Duration::from_secs(20));

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, api) in
        [("vulkan→vulkan", Api::Vulkan), ("vulkan→gl", Api::OpenGl), ("vulkan→cuda", Api::Cuda)]
    {
        for route in ROUTES {
            let name = |what: &str| format!("{name}/opaque_fd/ring/{route}/{what}");
            let needs = route.needs(api);
            if matches!(route, Route::HostWait(_)) {
                let late = Case::new(name("a_timeout_leaves_it_usable/48"), move |test_gpu| {
                    too_late(test_gpu, api, route)
                });
                cases.push(late.needs(&needs));
            }
            if api == Api::Vulkan {
                let dropped = name("a_dropped_stage_waits_for_its_work/59");
                let dropped =
                    Case::new(dropped, move |test_gpu| dropped_vulkan_stage(test_gpu, route));
                cases.push(dropped.needs(&needs));
                let withdrawn = name("withdrawn_releases_do_not_count/46");
                let withdrawn =
                    Case::new(withdrawn, move |test_gpu| withdrawn_all(test_gpu, route));
                cases.push(withdrawn.needs(&needs));
                let taken_back =
                    Case::new(name("an_unsubmitted_take_is_repeated/46"), move |test_gpu| {
                        taken_back(test_gpu, route)
                    });
                cases.push(taken_back.needs(&needs));
            }
            if api == Api::Cuda {
                let dropped = name("a_dropped_stage_waits_for_its_work/59");
                let dropped =
                    Case::new(dropped, move |test_gpu| dropped_cuda_stage(test_gpu, route));
                let gate = Need::Semaphore(Api::Cuda, SemaphoreKind::Timeline);
                cases.push(dropped.needs(&needs).needs(&[gate]));
            }
            let dropped =
                Case::new(name("dropped_in_flight_nothing_is_left/60"), move |test_gpu| {
                    dropped_in_flight(test_gpu, api, route)
                });
            cases.push(dropped.needs(&needs));
        }
    }
    let name = |what: &str| format!("vulkan→vulkan/opaque_fd/ring/{what}");
    cases.push(Case::new(name("invalid_batches_are_refused/21"), refused_batches));
    let binary = BINARY.needs(Api::Vulkan);
    cases.push(Case::new(name("binary/wrong_order_is_refused/46"), wrong_order).needs(&binary));
    cases.push(Case::new(name("a_batch_comes_when_it_is_full/48"), comes_when_full));
    cases
}

fn options(route: Route, depth: u32) -> RingOptions {
    RingOptions { depth, handoff: route.options() }
}

/// The first stage's turn: takes a slot, fills it with `seed`, and releases it.
fn fill(gpu: &VulkanContext, stage: &mut RingStage<Endpoint>, seed: u32) -> Result<()> {
    let (command, family) = (gpu.command_buffers(1)?[0], gpu.vulkan.queue_family());
    gpu.begin(command)?;
    // SAFETY: the command buffer is being recorded; what is returned goes into its submit, and the stage's
    // drop waits for it.
    let commands = unsafe { SlotCommands::record(command, family, all_access) };
    let (batch, mut sync) = stage.take(LONG, 1..=1, commands)?.context("a slot")?;
    let buffer = stage.buffer(batch.single().context("one slot")?)?.handle();
    let data = oracle::filled(BYTES as usize, seed);
    for (at, piece) in (0..).zip(data.chunks(65_536)) {
        // SAFETY: as above; vkCmdUpdateBuffer allows pieces of this size.
        unsafe { gpu.device().cmd_update_buffer(command, buffer, at * 65_536, piece) };
    }
    sync.merge(stage.release(batch, commands)?);
    gpu.submit(command, sync)?;
    Ok(())
}

/// The host waits for work that takes too long: a typed error on every try, and the slot arrives all the
/// same when the work is done.
fn too_late(test_gpu: &TestGpu, api: Api, route: Route) -> Result<()> {
    match api {
        Api::OpenGl => {
            let gl = test_gpu.gl()?;
            let take = |b: &mut RingStage<_>, most| b.take(LONG, 1..=most, ());
            stalled(test_gpu, (&gl.endpoint, route), take, |b, slot, ()| {
                gl.download(b.buffer(slot)?.name(), 0, BYTES)
            })
        }
        Api::Cuda => {
            let cuda = test_gpu.cuda()?;
            let take = |b: &mut RingStage<_>, most| b.take(LONG, 1..=most, &cuda.stream);
            stalled(test_gpu, (&cuda.endpoint, route), take, |b, slot, ()| {
                Ok(cuda.stream.clone_dtoh(&b.buffer(slot)?.as_view::<u8>()?)?)
            })
        }
        _ => {
            let two = test_gpu.second_device()?;
            let take =
                |b: &mut RingStage<_>, most| b.take(LONG, 1..=most, SlotCommands::recorded());
            stalled(test_gpu, (&two.endpoint, route), take, |b, slot, sync| {
                ensure!(sync.waits().is_empty(), "the host has waited: {sync:?}");
                two.download(b.buffer(slot)?.handle(), 0, BYTES)
            })
        }
    }
}

/// A ring from a Vulkan queue that is stalled to `peer`, which takes a slot before and after its work is done.
fn stalled<P: RingPeer>(
    test_gpu: &TestGpu,
    (peer, route): (&P, Route),
    take: impl Fn(&mut RingStage<P>, usize) -> Result<Option<(Batch, P::Sync)>, Error>,
    read: impl FnOnce(&RingStage<P>, &Slot, P::Sync) -> Result<Vec<u8>>,
) -> Result<()> {
    let gpu = test_gpu.vulkan();
    let owner = &gpu.endpoint;
    let mut options = options(route, 2);
    options.handoff.timeout = SHORT;
    let (mut a, mut b, _) = ring::pair(owner, owner, peer, &DESC, options)?;
    let queue = StalledQueue::new(gpu)?;
    fill(gpu, &mut a, 48)?;
    for most in [1, 2] {
        match take(&mut b, most) {
            Err(Error::Timeout { waited, .. }) if waited == SHORT => {}
            Err(other) => return Err(other.into()),
            Ok(_) => bail!("taken before the work was done"),
        }
    }
    queue.release_and_wait()?;
    let (batch, sync) = take(&mut b, 2)?.context("it has arrived")?;
    let read = read(&b, batch.single().context("one slot")?, sync)?;
    Ok(oracle::check(&read, 48, &Passes::default())?)
}

/// A stage is dropped while its queue is stalled.
fn dropped_vulkan_stage(test_gpu: &TestGpu, route: Route) -> Result<()> {
    let (gpu, two) = (test_gpu.vulkan(), test_gpu.second_device()?);
    let (owner, options) = (&gpu.endpoint, options(route, 2));
    let (mut a, _b, _) = ring::pair(owner, owner, &two.endpoint, &DESC, options)?;
    let queue = StalledQueue::new(gpu)?;
    fill(gpu, &mut a, 1)?;
    fill(gpu, &mut a, 2)?;
    let (gate, is_open) = (queue.gate(), queue.gate());
    drop_waits(a, move || gate.open(), || is_open.is_open())
}

/// A CUDA stage is dropped while its stream waits.
fn dropped_cuda_stage(test_gpu: &TestGpu, route: Route) -> Result<()> {
    let (owner, cuda) = (&test_gpu.vulkan().endpoint, test_gpu.cuda()?);
    let (mut a, _b, _) = ring::pair(owner, &cuda.endpoint, owner, &DESC, options(route, 2))?;
    let gate = owner.create_semaphore(SemaphoreKind::Timeline)?;
    let in_cuda = cuda.endpoint.import_semaphore(gate.export()?)?;
    cuda.endpoint.wait(&cuda.stream, &in_cuda, Some(1))?;
    let (batch, ()) = a.take(LONG, 1..=1, &cuda.stream)?.context("a slot")?;
    a.release(batch, &cuda.stream)?;
    let opener = gate.clone();
    // SAFETY: nothing else signals the semaphore, whose value is 0.
    let open = move || Ok(unsafe { opener.signal(1) }?);
    drop_waits(a, open, || Ok(gate.value()? == 1))
}

/// Drops a stage whose work waits until another thread calls `open`: the drop must return when the work is
/// done, and not before.
fn drop_waits<P: RingPeer>(
    stage: RingStage<P>,
    open: impl FnOnce() -> Result<()> + Send,
    is_open: impl Fn() -> Result<bool>,
) -> Result<()> {
    let start = Instant::now();
    thread::scope(|scope| {
        let opened = scope.spawn(move || {
            thread::sleep(SHORT);
            open()
        });
        drop(stage);
        let (took, is_open) = (start.elapsed(), is_open()?);
        opened.join().map_err(|_| anyhow!("panicked"))??;
        ensure!(is_open && took >= SHORT, "dropped after {took:?}, its work not done");
        Ok(())
    })
}

/// Releases that are not submitted are withdrawn: as many as before may follow.
fn withdrawn_all(test_gpu: &TestGpu, route: Route) -> Result<()> {
    let (one, two) = (test_gpu.vulkan(), test_gpu.second_device()?);
    let (owner, options) = (&one.endpoint, options(route, 3));
    let (mut a, b, _) = ring::pair(owner, owner, &two.endpoint, &DESC, options)?;
    for count in [3, 1, 3, 2, 3] {
        let slots = new_slots(&mut a, count)?;
        drop(a.release(slots, SlotCommands::recorded())?);
        ensure!((a.arrived(), b.arrived()) == (3, 0), "a slot is lost");
    }
    for seed in 0..3 {
        fill(one, &mut a, seed)?;
    }
    ensure!((a.arrived(), b.arrived()) == (0, 3), "a slot is lost");
    Ok(())
}

/// A slot whose acquire is not submitted is not released, and can be taken again with what it holds.
fn taken_back(test_gpu: &TestGpu, route: Route) -> Result<()> {
    let (one, two) = (test_gpu.vulkan(), test_gpu.second_device()?);
    let (owner, options) = (&one.endpoint, options(route, 2));
    let (mut a, mut b, _) = ring::pair(owner, owner, &two.endpoint, &DESC, options)?;
    fill(one, &mut a, 3)?;
    for _ in 0..3 {
        let taken = b.take(LONG, 1..=1, SlotCommands::recorded())?;
        let (batch, sync) = taken.context("it has arrived")?;
        drop(sync);
        let refused = b.release(batch, SlotCommands::recorded()).err();
        let refused = refused.context("released what was never acquired")?;
        ensure!(refused.to_string().contains("never submitted"), "{refused}");
        ensure!(b.arrived() == 1, "the slot is lost");
    }
    let batch = taken(two, &mut b)?.context("it has arrived")?;
    let slot = batch.single().context("one slot")?;
    ensure!(!slot.is_new(), "its acquire was forgotten");
    let read = two.download(b.buffer(slot)?.handle(), 0, BYTES)?;
    Ok(oracle::check(&read, 3, &Passes::default())?)
}

const DEPTH: u32 = 4;
const MEGABYTE: u64 = 1 << 20;

/// Rings that are dropped with work in flight and slots taken leave neither descriptors nor memory behind.
fn dropped_in_flight(test_gpu: &TestGpu, api: Api, route: Route) -> Result<()> {
    const RINGS: u64 = 24;
    let two = test_gpu.second_device()?;
    let ring = || -> Result<()> {
        match api {
            Api::OpenGl => {
                let gl = test_gpu.gl()?;
                drop_ring(test_gpu, (&gl.endpoint, route), |b| {
                    Ok(b.take(LONG, 1..=1, ())?.map(|(batch, ())| batch))
                })?;
                gl.endpoint.delete_dropped()?;
            }
            Api::Cuda => {
                let cuda = test_gpu.cuda()?;
                drop_ring(test_gpu, (&cuda.endpoint, route), |b| {
                    Ok(b.take(LONG, 1..=1, &cuda.stream)?.map(|(batch, ())| batch))
                })?;
            }
            _ => drop_ring(test_gpu, (&two.endpoint, route), |b| taken(two, b))?,
        }
        Ok(())
    };
    // The first times, drivers open what they need and keep.
    ring()?;
    ring()?;
    let (before, memory_before) = (open_descriptors(), memory_in_use(test_gpu.vulkan())?);
    for _ in 0..RINGS {
        ring()?;
    }
    before.require_same(&open_descriptors())?;
    let grown = memory_in_use(test_gpu.vulkan())?.saturating_sub(memory_before);
    // A quarter of the rings' memory.
    let limit = RINGS * u64::from(DEPTH) * MEGABYTE / 4;
    ensure!(grown < limit, "{grown} bytes more than before");
    Ok(())
}

/// Drops a ring with `peer` while its slots are in flight.
fn drop_ring<P: RingPeer>(
    test_gpu: &TestGpu,
    (peer, route): (&P, Route),
    take: impl Fn(&mut RingStage<P>) -> Result<Option<Batch>>,
) -> Result<()> {
    let gpu = test_gpu.vulkan();
    let (owner, desc) = (&gpu.endpoint, BufferDesc::storage(MEGABYTE));
    let (mut a, mut b, _) = ring::pair(owner, owner, peer, &desc, options(route, DEPTH))?;
    for seed in 0..DEPTH {
        fill(gpu, &mut a, seed)?;
    }
    // Two are taken, of which one outlives both stages; two are not.
    let (one, other) = (take(&mut b)?.context("a slot")?, take(&mut b)?.context("a slot")?);
    drop(a);
    drop(one);
    drop(b);
    drop(other);
    Ok(gpu.vulkan.wait_idle()?)
}

/// Takes a slot on the other device, and waits until it is acquired.
fn taken(gpu: &VulkanContext, stage: &mut RingStage<Endpoint>) -> Result<Option<Batch>> {
    let command = gpu.command_buffers(1)?[0];
    gpu.begin(command)?;
    let family = gpu.vulkan.queue_family();
    // SAFETY: the command buffer is being recorded; what is returned goes into its submit, which is waited
    // for.
    let commands = unsafe { SlotCommands::record(command, family, all_access) };
    let Some((batch, sync)) = stage.take(LONG, 1..=1, commands)? else { return Ok(None) };
    gpu.submit(command, sync)?;
    gpu.vulkan.wait_idle()?;
    gpu.free_command_buffers(&[command]);
    Ok(Some(batch))
}

/// Slots that no stage has used yet: there is nothing to record.
fn new_slots(stage: &mut RingStage<Endpoint>, count: usize) -> Result<Batch> {
    let taken = stage.take(Wait::No, count..=count, SlotCommands::recorded())?;
    Ok(taken.context("all slots are at the first stage")?.0)
}

fn refused_batches(test_gpu: &TestGpu) -> Result<()> {
    let (one, two) = (test_gpu.vulkan(), test_gpu.second_device()?);
    let options = options(HOST_WAIT, 3);
    let (mut a, mut b, _) =
        ring::pair(&one.endpoint, &one.endpoint, &two.endpoint, &DESC, options)?;
    #[expect(clippy::reversed_empty_ranges, reason = "it must be refused")]
    for how_many in [0..=1, 4..=8, 2..=1] {
        let error = a
            .take(LONG, how_many, SlotCommands::recorded())
            .err()
            .context("an invalid number of slots was taken")?;
        ensure!(matches!(error, Error::Invalid(_)), "{error:?}");
    }
    ensure!(b.take(Wait::No, 1..=64, SlotCommands::recorded())?.is_none(), "nothing was released");
    let error = a
        .release(Batch::default(), SlotCommands::recorded())
        .err()
        .context("an empty batch was released")?;
    ensure!(error.to_string().contains("no slot"), "{error}");
    // A batch of another stage is refused, and its slots return to theirs.
    let slots = new_slots(&mut a, 2)?;
    let error = b
        .release(slots, SlotCommands::recorded())
        .err()
        .context("another stage's slots were released")?;
    ensure!(matches!(error, Error::Mismatch(_)), "{error:?}");
    ensure!((a.arrived(), b.arrived()) == (3, 0), "a slot is lost");
    // So do those whose release was not submitted.
    let slots = new_slots(&mut a, 3)?;
    let sync = a.release(slots, SlotCommands::recorded())?;
    ensure!(sync.signals().len() == 1, "not one: {sync:?}");
    drop(sync);
    ensure!((a.arrived(), b.arrived()) == (3, 0), "a slot is lost");
    Ok(())
}

/// Binary semaphores are used in order: a batch that would precede an older slot is refused.
fn wrong_order(test_gpu: &TestGpu) -> Result<()> {
    let (one, two) = (test_gpu.vulkan(), test_gpu.second_device()?);
    let options = options(BINARY, 3);
    let (mut a, _b, _) = ring::pair(&one.endpoint, &one.endpoint, &two.endpoint, &DESC, options)?;
    let (first, rest) = (new_slots(&mut a, 1)?, new_slots(&mut a, 2)?);
    let error =
        a.release(rest, SlotCommands::recorded()).err().context("released before the first")?;
    ensure!(error.to_string().contains("in the order"), "{error}");
    ensure!(a.arrived() == 2, "the refused slots did not return");
    let both: Batch = first.into_iter().chain(new_slots(&mut a, 2)?).collect();
    let sync = a.release(both, SlotCommands::recorded())?;
    ensure!(sync.signals().iter().filter(|signal| signal.value.is_none()).count() == 3, "{sync:?}");
    drop(sync);
    Ok(())
}

/// A take of three slots, on another thread, waits until the third has arrived.
fn comes_when_full(test_gpu: &TestGpu) -> Result<()> {
    let (one, two) = (test_gpu.vulkan(), test_gpu.second_device()?);
    let (one, two) = (one.vulkan.second_device()?, two.vulkan.second_device()?);
    let (here, there) = (one.endpoint()?, two.endpoint()?);
    let (mut a, mut b, _) = ring::pair(&here, &here, &there, &DESC, options(HOST_WAIT, 3))?;
    let gpu = VulkanContext::new(one)?;
    thread::scope(|scope| {
        let waiting = scope.spawn(move || -> Result<(usize, RingStage<Endpoint>)> {
            let (batch, _) = b.take(LONG, 3..=3, SlotCommands::recorded())?.context("three")?;
            Ok((batch.len(), b))
        });
        for seed in 0..3 {
            ensure!(!waiting.is_finished(), "{seed} of 3 were enough");
            fill(&gpu, &mut a, seed)?;
            thread::sleep(SHORT / 4);
        }
        let (count, _b) = waiting.join().map_err(|_| anyhow!("panicked"))??;
        ensure!(count == 3, "{count} slots");
        Ok(())
    })
}

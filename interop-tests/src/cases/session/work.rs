//! Producers and consumers that are dropped while the GPU works on a slot: what the work uses is kept, and
//! the slot is not reused.

use std::os::unix::net::UnixStream;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use gpu_interop::ash::vk;
use gpu_interop::fd::SemaphoreHandleType;
use gpu_interop::payload::SemaphoreInfo;
use gpu_interop::session::{
    Consumer, FrameInfo, JoinOptions, Producer, ProducerOptions, Ring, TimelinePoint,
};
use gpu_interop::vulkan::{Buffer, BufferOptions, FencePool, SubmitSync};
use gpu_interop::{BufferDesc, Error, SemaphoreKind, SemaphorePayload};

use crate::cases::session::peers::{BYTES, TIMEOUT};
use crate::cases::support::stalled_queue::{Gate, StalledQueue};
use crate::harness::{Case, TestGpu};
use interop_gpu::oracle::{self, Passes};
use interop_gpu::vulkan::VulkanContext;

/// How a slot goes out of use while the producer's work on it runs.
#[derive(Clone, Copy, Debug)]
enum Unused {
    Dropped,
    /// It is published as a complete frame, which is refused.
    Refused,
    /// It is published with a point, and there is no consumer.
    Published,
}

/// What happens to a frame while the consumer's work on it runs.
#[derive(Clone, Copy, Debug)]
enum Read {
    Dropped,
    Released,
    /// The consumer is dropped before the frame.
    ConsumerDropped,
    /// The consumer is dropped after the frame, as an early return does.
    BothDropped,
}

const SEED: u32 = 11;

/// Long enough to see that something is not done, and shorter than the timeout of an eviction.
const SHORT: Duration = Duration::from_millis(100);

pub(in crate::cases) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (what, unused) in [
        ("a_slot_is_dropped", Unused::Dropped),
        ("a_slot_is_refused", Unused::Refused),
        ("a_slot_is_published_to_no_one", Unused::Published),
    ] {
        for (then, dropped) in [("", false), ("_then_the_producer", true)] {
            let name = format!("vulkan→vulkan/opaque_fd/session/work/{what}{then}/60");
            cases.push(Case::new(name, move |gpu| produce(gpu, unused, dropped)));
        }
    }
    for (what, read) in [
        ("a_frame_is_dropped", Read::Dropped),
        ("a_frame_is_released", Read::Released),
        ("a_consumer_is_dropped_before_its_frame", Read::ConsumerDropped),
        ("a_consumer_is_dropped_after_its_frame", Read::BothDropped),
    ] {
        let name = format!("vulkan→vulkan/opaque_fd/session/work/{what}/60");
        cases.push(Case::new(name, move |gpu| consume(gpu, read)));
    }
    cases
}

type Wait = Box<dyn FnMut(Duration) -> gpu_interop::Result<()> + Send>;

/// Submits work that uses `buffers`, and returns the wait for it, which keeps them.
fn submit(
    gpu: &VulkanContext,
    buffers: Vec<Buffer>,
    record: impl FnOnce(vk::CommandBuffer, &[Buffer]),
) -> Result<Wait> {
    let (mut commands, ()) = gpu.vulkan.record(|commands| {
        record(commands, &buffers);
        Ok(())
    })?;
    let mut sync = SubmitSync::default();
    let fence = FencePool::new(&gpu.endpoint)?.next(&mut sync)?;
    // SAFETY: the returned wait keeps the commands and the buffers until the work is done.
    unsafe { commands.submit(&gpu.endpoint, sync) }?;
    Ok(Box::new(move |time| {
        let _until_done = (&commands, &buffers);
        fence.wait(time)
    }))
}

/// Opens the gate after a moment, in which the calling thread begins to wait.
fn open_soon(gate: &Gate) -> JoinHandle<Result<()>> {
    let gate = gate.clone();
    thread::spawn(move || {
        thread::sleep(SHORT);
        gate.open()
    })
}

fn is_timeout<T>(result: gpu_interop::Result<T>) -> bool {
    matches!(result, Err(Error::Timeout { .. }))
}

fn check(gpu: &VulkanContext, buffer: &Buffer, seed: u32) -> Result<()> {
    Ok(oracle::check(&gpu.download(buffer.handle(), 0, BYTES)?, seed, &Passes::default())?)
}

/// A ring of one slot, with a semaphore that no consumer imports.
fn ring(gpu: &VulkanContext, slot: &Buffer) -> Result<Ring> {
    let eventfd = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC)?;
    let info = SemaphoreInfo {
        handle_type: SemaphoreHandleType::OpaqueFd,
        kind: SemaphoreKind::Timeline,
        identity: gpu.vulkan.identity().clone(),
    };
    let semaphore = SemaphorePayload::new(eventfd, info)?;
    Ok(Ring::new("test", "bytes").slot(slot.export()?).semaphore(semaphore))
}

fn buffer(gpu: &VulkanContext) -> Result<Buffer> {
    Ok(gpu.endpoint.create_buffer(&BufferDesc::storage(BYTES), BufferOptions::default())?)
}

fn produce(test_gpu: &TestGpu, unused: Unused, drop_producer: bool) -> Result<()> {
    let (gpu, reader) = (test_gpu.vulkan(), test_gpu.second_device()?);
    let slot = buffer(gpu)?;
    let there = reader.endpoint.import_buffer(slot.export()?)?;
    let mut producer = Producer::unbound(ring(gpu, &slot)?, ProducerOptions::default())?;
    let stalled = StalledQueue::new(gpu)?;
    let mut writable = producer.free_slot(TIMEOUT)?;
    // The work has the only handle of the buffer.
    writable.add_work(submit(gpu, vec![slot], |commands, buffers| {
        let data = oracle::filled(BYTES as usize, SEED);
        // SAFETY: the command buffer is being recorded, and the buffer has as many bytes.
        unsafe { gpu.device().cmd_update_buffer(commands, buffers[0].handle(), 0, &data) };
    })?);
    match unused {
        Unused::Dropped => drop(writable),
        Unused::Refused => {
            let error = producer.publish(writable, FrameInfo::default());
            ensure!(matches!(error, Err(Error::Invalid(_))), "{error:?}");
        }
        Unused::Published => {
            let point = Some(TimelinePoint { semaphore: 0, value: 1 });
            producer.publish(writable, FrameInfo { point, ..FrameInfo::default() })?;
        }
    }
    ensure!(is_timeout(producer.free_slot(SHORT)), "the GPU has not written to the slot yet");
    let gate = stalled.gate();
    let opening = open_soon(&gate);
    if drop_producer {
        drop(producer);
    } else {
        drop(producer.free_slot(TIMEOUT)?);
    }
    ensure!(gate.is_open()?, "the work was not waited for");
    opening.join().ok().context("a panic")??;
    stalled.release_and_wait()?;
    check(reader, &there, SEED)
}

fn consume(test_gpu: &TestGpu, read: Read) -> Result<()> {
    let (gpu, reader) = (test_gpu.vulkan(), test_gpu.second_device()?);
    let slot = buffer(gpu)?;
    // A consumer that keeps its slot is not evicted.
    let options = ProducerOptions { evict_after: TIMEOUT, ..ProducerOptions::default() };
    let mut producer = Producer::unbound(ring(gpu, &slot)?, options)?;
    let (ours, theirs) = UnixStream::pair()?;
    producer.admit(ours)?;
    let joining: JoinHandle<gpu_interop::Result<_>> = thread::spawn(move || {
        let (mut consumer, ring) = Consumer::join_socket(theirs, JoinOptions::default())?;
        consumer.ready()?;
        Ok((consumer, ring))
    });
    producer.wait_for_consumers(1, TIMEOUT)?;
    let (mut consumer, ring) = joining.join().ok().context("a panic")??;
    let payload = ring.slots.into_iter().next().context("the ring has no slot")?;
    let imported = reader.endpoint.import_buffer(payload.into_buffer()?)?;
    let copy = buffer(reader)?;

    gpu.upload(slot.handle(), 0, &oracle::filled(BYTES as usize, SEED))?;
    let writable = producer.free_slot(TIMEOUT)?;
    producer.publish(writable, FrameInfo::default())?;
    let stalled = StalledQueue::new(reader)?;
    let mut frame = consumer.next_frame(TIMEOUT)?;
    frame.add_work(submit(reader, vec![imported, copy.clone()], |commands, buffers| {
        let (from, to) = (buffers[0].handle(), buffers[1].handle());
        let whole = [vk::BufferCopy::default().size(BYTES)];
        // SAFETY: the command buffer is being recorded, and both buffers have as many bytes.
        unsafe { reader.device().cmd_copy_buffer(commands, from, to, &whole) };
    })?);
    let gate = stalled.gate();
    match read {
        Read::Dropped => {
            drop(frame);
            ensure!(is_timeout(consumer.next_frame(SHORT)));
            ensure!(is_timeout(producer.free_slot(SHORT)), "the GPU has not read the slot yet");
            gate.open()?;
            ensure!(is_timeout(consumer.next_frame(SHORT)));
        }
        Read::Released => {
            let opening = open_soon(&gate);
            frame.release()?;
            ensure!(gate.is_open()?, "the work was not waited for");
            opening.join().ok().context("a panic")??;
        }
        Read::ConsumerDropped | Read::BothDropped => {
            let opening = open_soon(&gate);
            let frame = matches!(read, Read::ConsumerDropped).then_some(frame);
            ensure!(is_timeout(producer.free_slot(Duration::ZERO)));
            drop(consumer);
            ensure!(gate.is_open()?, "the work was not waited for");
            drop(frame);
            opening.join().ok().context("a panic")??;
        }
    }
    // The slot is the producer's again, and what was read is not what it writes now.
    let writable = producer.free_slot(TIMEOUT)?;
    gpu.upload(slot.handle(), 0, &oracle::filled(BYTES as usize, SEED + 1))?;
    drop(writable);
    stalled.release_and_wait()?;
    check(reader, &copy, SEED)
}

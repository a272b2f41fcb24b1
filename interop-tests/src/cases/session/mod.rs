//! Group G: payloads that go to another process, alone and in sessions.

pub(crate) mod images;
pub(crate) mod kill_report;
pub(crate) mod kills;
pub(crate) mod kills_producers;
pub(crate) mod peers;
pub(crate) mod seed;
pub(crate) mod share;

use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use gpu_interop::headless::{Vulkan, VulkanOptions};
use gpu_interop::ipc::{receive_buffer, send};
use gpu_interop::session::{FrameInfo, Producer, ProducerOptions, Ring, TimelinePoint};
use gpu_interop::vulkan::{BufferOptions, SemaphoreSignal, SubmitSync};
use gpu_interop::{Api, BufferDesc, BufferPayload, SemaphoreKind};

use crate::cases::cuda::{read, write};
use crate::cases::session::peers::{
    BYTES, CONSUMES, Peer, SLOTS, TIMEOUT, TestProducer, directory,
};
use crate::harness::{Case, Need, Role, TestGpu};
use interop_gpu::Kernel;
use interop_gpu::oracle::{self, Turns};
use interop_gpu::vulkan::VulkanContext;

pub(crate) fn cases() -> Vec<Case> {
    let timeline = Need::Semaphore(Api::Vulkan, SemaphoreKind::Timeline);
    vec![
        Case::new("vulkan→vulkan/opaque_fd/buffer/aliases_in_a_child/60b", vulkan_aliases),
        Case::new("cuda→vulkan/opaque_fd/buffer/aliases_in_a_child/55a", cuda_aliases)
            .needs(&[Need::Cuda]),
        Case::new("vulkan→vulkan/opaque_fd/session/many_consumers/60c", many_consumers),
        Case::new("vulkan→vulkan/opaque_fd/session/by_timeline_semaphore/60d", by_timeline)
            .needs(&[timeline]),
        Case::new("cuda→vulkan/opaque_fd/session/frames_of_cuda/55b", frames_of_cuda)
            .needs(&[Need::Cuda]),
    ]
}

const ANSWERS: &str = "answers a payload";

/// What the children of these cases do.
pub(crate) fn roles() -> Vec<Role> {
    vec![(ANSWERS, answers)]
}

/// What the parent wrote, and what the child writes.
const SEEDS: [u32; 2] = [11, 12];

/// In a child: imports the buffer that comes, checks it, and writes over it.
fn answers() -> Result<()> {
    let wish = std::env::var("INTEROP_DEVICE")?.parse()?;
    let gpu = VulkanContext::new(Vulkan::open(&wish, &VulkanOptions::default())?)?;
    let path = std::env::var_os("INTEROP_SOCKET").context("INTEROP_SOCKET")?;
    let socket = UnixStream::connect(path)?;
    socket.set_read_timeout(Some(TIMEOUT))?;
    let buffer = gpu.endpoint.import_buffer(receive_buffer(&socket)?)?;
    let bytes = buffer.desc().size;
    let found = gpu.download(buffer.handle(), 0, bytes)?;
    oracle::check(&found, SEEDS[0], &Turns::default()).context("what the parent wrote")?;
    gpu.upload(buffer.handle(), 0, &oracle::filled(bytes as usize, SEEDS[1]))
}

/// Sends a payload to a child, and waits until it has answered.
fn answered(machine: &TestGpu, payload: &BufferPayload) -> Result<()> {
    let directory = directory()?;
    let path = directory.path().join("socket");
    let listener = UnixListener::bind(&path)?;
    let child = Peer::start(machine, ANSWERS, &path, None)?;
    let (socket, _) = listener.accept()?;
    send(&socket, payload)?;
    child.end()?;
    Ok(())
}

/// Memory of Vulkan in another process: each sees what the other writes.
fn vulkan_aliases(machine: &TestGpu) -> Result<()> {
    let gpu = machine.vulkan();
    for bytes in [1, 4 << 10, (3 << 20) + 17] {
        let desc = BufferDesc::storage(bytes);
        let made = gpu.endpoint.create_buffer(&desc, BufferOptions::default())?;
        gpu.upload(made.handle(), 0, &oracle::filled(bytes as usize, SEEDS[0]))?;
        answered(machine, &made.export()?)?;
        let found = gpu.download(made.handle(), 0, bytes)?;
        oracle::check(&found, SEEDS[1], &Turns::default()).context("what the child wrote")?;
    }
    Ok(())
}

/// Memory that CUDA allocated (`cuMemCreate`), in Vulkan in another process.
fn cuda_aliases(machine: &TestGpu) -> Result<()> {
    let cuda = machine.cuda()?;
    for bytes in [1, 4 << 10, (3 << 20) + 17] {
        let mut made = cuda.endpoint.create_buffer(&BufferDesc::storage(bytes))?;
        write(cuda, &mut made, &oracle::filled(bytes as usize, SEEDS[0]))?;
        answered(machine, &made.export()?)?;
        let found = read(cuda, &made)?;
        oracle::check(&found, SEEDS[1], &Turns::default()).context("what the child wrote")?;
    }
    Ok(())
}

/// What a child says of a session that was done: how many frames it verified, when it missed none.
fn verified(said: &str) -> Result<u64> {
    let [end, verified, missed] = said.split(' ').collect::<Vec<_>>()[..] else {
        anyhow::bail!("the child says {said}");
    };
    ensure!((end, missed) == ("Done", "0"), "the child says {said}");
    Ok(verified.parse()?)
}

/// Three consumers at once that come one after the other: each gets every frame from then on.
fn many_consumers(machine: &TestGpu) -> Result<()> {
    const FRAMES: u64 = 60;
    let directory = directory()?;
    let path = directory.path().join("socket");
    let mut show = TestProducer::open(machine.vulkan(), Some(&path), ProducerOptions::default())?;
    let mut children = Vec::new();
    for count in 1..=3 {
        children.push(Peer::start(machine, CONSUMES, &path, None)?);
        show.producer.wait_for_consumers(count, TIMEOUT)?;
        let begin = show.published;
        while show.published < begin + FRAMES {
            show.step(TIMEOUT)?;
        }
        ensure!(show.producer.consumers() == count, "one is gone");
    }
    show.finish()?;
    let expected = [3 * FRAMES, 2 * FRAMES, FRAMES];
    for (child, expected) in children.into_iter().zip(expected) {
        let verified = verified(&child.end()?)?;
        ensure!(verified == expected, "{verified} frames, not {expected}");
    }
    Ok(())
}

/// A producer at `path`, and a consumer of it in a child.
fn with_a_child(machine: &TestGpu, path: &Path, ring: Ring) -> Result<(Producer, Peer)> {
    let mut producer = Producer::bind(path, ring, ProducerOptions::default())?;
    let child = Peer::start(machine, CONSUMES, path, None)?;
    producer.wait_for_consumers(1, TIMEOUT)?;
    Ok((producer, child))
}

/// Frames are published before the GPU has begun with them; the consumer waits for the semaphore.
fn by_timeline(machine: &TestGpu) -> Result<()> {
    const FRAMES: u64 = 200;
    let (gpu, directory) = (machine.vulkan(), directory()?);
    let semaphore = gpu.endpoint.create_semaphore(SemaphoreKind::Timeline)?;
    let mut ring = Ring::new("timeline", "").semaphore(semaphore.export()?);
    let (mut buffers, mut bound) = (Vec::new(), Vec::new());
    for _ in 0..SLOTS {
        let desc = BufferDesc::storage(BYTES);
        let buffer = gpu.endpoint.create_buffer(&desc, BufferOptions::default())?;
        ring = ring.slot(buffer.export()?);
        bound.push(gpu.bind(buffer.handle(), BYTES)?);
        buffers.push(buffer);
    }
    let commands = gpu.command_buffers(SLOTS as u32)?;
    let (mut producer, child) = with_a_child(machine, &directory.path().join("socket"), ring)?;
    let mut last = [0; SLOTS];
    let drawn = (1..=FRAMES).try_for_each(|value| -> Result<()> {
        let slot = producer.free_slot(TIMEOUT)?;
        let command = commands[slot.index()];
        // The consumer has seen the slot's last work done; the validation layer wants this process to.
        semaphore.wait(std::mem::replace(&mut last[slot.index()], value), TIMEOUT)?;
        gpu.begin(command)?;
        gpu.record(command, Kernel::Fill { seed: value as u32 }, &bound[slot.index()], 0);
        gpu.record_barrier(command);
        let signal = SemaphoreSignal { semaphore: semaphore.clone(), value: Some(value) };
        gpu.submit(command, &SubmitSync { signals: vec![signal], ..SubmitSync::default() })?;
        let point = Some(TimelinePoint { semaphore: 0, value });
        producer.publish(slot, FrameInfo { point, tag: value, layouts: None })?;
        Ok(())
    });
    let finished = producer.finish(TIMEOUT);
    gpu.vulkan.wait_idle()?;
    gpu.free_command_buffers(&commands);
    bound.into_iter().for_each(|bound| gpu.unbind(bound));
    drawn?;
    finished?;
    let verified = verified(&child.end()?)?;
    ensure!(verified == FRAMES, "{verified} frames of {FRAMES}");
    Ok(())
}

/// A ring of CUDA's own memory.
fn frames_of_cuda(machine: &TestGpu) -> Result<()> {
    const FRAMES: u64 = 100;
    let (cuda, directory) = (machine.cuda()?, directory()?);
    let (mut ring, mut buffers) = (Ring::new("cuda", ""), Vec::new());
    for _ in 0..SLOTS {
        let buffer = cuda.endpoint.create_buffer(&BufferDesc::storage(BYTES))?;
        ring = ring.slot(buffer.export()?);
        buffers.push(buffer);
    }
    let (mut producer, child) = with_a_child(machine, &directory.path().join("socket"), ring)?;
    for tag in 1..=FRAMES {
        let slot = producer.free_slot(TIMEOUT)?;
        let frame = oracle::filled(BYTES as usize, tag as u32);
        write(cuda, &mut buffers[slot.index()], &frame)?;
        producer.publish(slot, FrameInfo { tag, ..FrameInfo::default() })?;
    }
    producer.finish(TIMEOUT)?;
    let verified = verified(&child.end()?)?;
    ensure!(verified == FRAMES, "{verified} frames of {FRAMES}");
    Ok(())
}

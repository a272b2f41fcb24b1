//! Group G: payloads that go to another process, alone and in sessions.

use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use gpu_interop::headless::{Vulkan, VulkanOptions};
use gpu_interop::ipc::session::{FrameInfo, Producer, ProducerOptions, Ring, TimelinePoint};
use gpu_interop::ipc::{receive_buffer, send};
use gpu_interop::vulkan::{BufferOptions, SemaphoreSignal, SubmitPart};
use gpu_interop::{Api, BufferDesc, BufferPayload, SemaphoreKind};

use super::cuda::{read, write};
use super::session_peers::{BYTES, CONSUMES, PATIENCE, Peer, SLOTS, Show, directory};
use crate::rig::Kernel;
use crate::rig::oracle::{self, Turns};
use crate::rig::vulkan::VulkanRig;
use crate::suite::{Case, Machine, Need, Role};

pub(super) fn cases() -> Vec<Case> {
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
pub(super) fn roles() -> Vec<Role> {
    vec![(ANSWERS, answers)]
}

/// What the parent wrote, and what the child writes.
const SEEDS: [u32; 2] = [11, 12];

/// In a child: imports the buffer that comes, checks it, and writes over it.
fn answers() -> Result<()> {
    let wish = std::env::var("INTEROP_DEVICE")?.parse()?;
    let rig = VulkanRig::new(Vulkan::open(&wish, &VulkanOptions::default())?)?;
    let path = std::env::var_os("INTEROP_SOCKET").context("INTEROP_SOCKET")?;
    let socket = UnixStream::connect(path)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let buffer = rig.endpoint.import_buffer(receive_buffer(&socket)?)?;
    let bytes = buffer.desc().size;
    let found = rig.download(buffer.handle(), 0, bytes)?;
    oracle::check(&found, SEEDS[0], &Turns::default()).context("what the parent wrote")?;
    rig.upload(buffer.handle(), 0, &oracle::filled(bytes as usize, SEEDS[1]))
}

/// Sends a payload to a child, and waits until it has answered.
fn answered(machine: &Machine, payload: &BufferPayload) -> Result<()> {
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
fn vulkan_aliases(machine: &Machine) -> Result<()> {
    let rig = machine.vulkan();
    for bytes in [1, 4 << 10, (3 << 20) + 17] {
        let desc = BufferDesc::storage(bytes);
        let made = rig.endpoint.create_buffer(&desc, BufferOptions::default())?;
        rig.upload(made.handle(), 0, &oracle::filled(bytes as usize, SEEDS[0]))?;
        answered(machine, &made.export()?)?;
        let found = rig.download(made.handle(), 0, bytes)?;
        oracle::check(&found, SEEDS[1], &Turns::default()).context("what the child wrote")?;
    }
    Ok(())
}

/// Memory that CUDA allocated (`cuMemCreate`), in Vulkan in another process.
fn cuda_aliases(machine: &Machine) -> Result<()> {
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
fn many_consumers(machine: &Machine) -> Result<()> {
    const FRAMES: u64 = 60;
    let directory = directory()?;
    let path = directory.path().join("socket");
    let mut show = Show::open(machine.vulkan(), Some(&path), ProducerOptions::default())?;
    let mut children = Vec::new();
    for count in 1..=3 {
        children.push(Peer::start(machine, CONSUMES, &path, None)?);
        show.producer.wait_for_consumers(count, PATIENCE)?;
        let begin = show.published;
        while show.published < begin + FRAMES {
            show.step(PATIENCE)?;
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
fn with_a_child(machine: &Machine, path: &Path, ring: Ring) -> Result<(Producer, Peer)> {
    let mut producer = Producer::bind(path, ring, ProducerOptions::default())?;
    let child = Peer::start(machine, CONSUMES, path, None)?;
    producer.wait_for_consumers(1, PATIENCE)?;
    Ok((producer, child))
}

/// Frames are published before the GPU has begun with them; the consumer waits for the semaphore.
fn by_timeline(machine: &Machine) -> Result<()> {
    const FRAMES: u64 = 200;
    let (rig, directory) = (machine.vulkan(), directory()?);
    let semaphore = rig.endpoint.create_semaphore(SemaphoreKind::Timeline)?;
    let mut ring = Ring::new("timeline", "").semaphore(semaphore.export()?);
    let (mut buffers, mut bound) = (Vec::new(), Vec::new());
    for _ in 0..SLOTS {
        let desc = BufferDesc::storage(BYTES);
        let buffer = rig.endpoint.create_buffer(&desc, BufferOptions::default())?;
        ring = ring.slot(buffer.export()?);
        bound.push(rig.bind(buffer.handle(), BYTES)?);
        buffers.push(buffer);
    }
    let commands = rig.command_buffers(SLOTS as u32)?;
    let (mut producer, child) = with_a_child(machine, &directory.path().join("socket"), ring)?;
    let mut last = [0; SLOTS];
    let drawn = (1..=FRAMES).try_for_each(|value| -> Result<()> {
        let slot = producer.free_slot(PATIENCE)?;
        let command = commands[slot.index()];
        // The consumer has seen the slot's last work done; the validation layer wants this process to.
        semaphore.wait(std::mem::replace(&mut last[slot.index()], value), PATIENCE)?;
        rig.begin(command)?;
        rig.record(command, Kernel::Fill { seed: value as u32 }, &bound[slot.index()], 0);
        rig.record_barrier(command);
        let signal = SemaphoreSignal { semaphore: semaphore.clone(), value: Some(value) };
        rig.submit(command, &SubmitPart { signals: vec![signal], ..SubmitPart::default() })?;
        let point = Some(TimelinePoint { semaphore: 0, value });
        producer.publish(slot, FrameInfo { point, tag: value, layouts: None })?;
        Ok(())
    });
    let finished = producer.finish(PATIENCE);
    rig.vulkan.wait_idle()?;
    rig.free_command_buffers(&commands);
    bound.into_iter().for_each(|bound| rig.unbind(bound));
    drawn?;
    finished?;
    let verified = verified(&child.end()?)?;
    ensure!(verified == FRAMES, "{verified} frames of {FRAMES}");
    Ok(())
}

/// A ring of CUDA's own memory.
fn frames_of_cuda(machine: &Machine) -> Result<()> {
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
        let slot = producer.free_slot(PATIENCE)?;
        let frame = oracle::filled(BYTES as usize, tag as u32);
        write(cuda, &mut buffers[slot.index()], &frame)?;
        producer.publish(slot, FrameInfo { tag, ..FrameInfo::default() })?;
    }
    producer.finish(PATIENCE)?;
    let verified = verified(&child.end()?)?;
    ensure!(verified == FRAMES, "{verified} frames of {FRAMES}");
    Ok(())
}

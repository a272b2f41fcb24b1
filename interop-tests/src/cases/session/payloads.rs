//! Payloads of Vulkan and CUDA in another process, alone and in a session.

use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use gpu_interop::ipc::{receive, send};
use gpu_interop::session::{FrameInfo, Producer, ProducerOptions, Ring, TimelinePoint};
use gpu_interop::vulkan::{BufferOptions, SemaphoreSignal, SubmitSync};
use gpu_interop::{Api, BufferDesc, BufferPayload, SemaphoreKind};

use crate::cases::session::peers::{
    BYTES, CONSUMES, Child, SLOTS, TIMEOUT, TestProducer, directory, parameters,
};
use crate::cases::support::contexts::ApiContext as _;
use crate::cases::support::views::View;
use crate::harness::{Case, Need, Role, TestGpu};
use interop_gpu::Kernel;
use interop_gpu::oracle;

pub(in crate::cases) fn cases() -> Vec<Case> {
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

const ANSWERS: &str = "overwrites a payload";

/// The child of these cases.
pub(in crate::cases) fn roles() -> Vec<Role> {
    vec![(ANSWERS, answers)]
}

/// The seeds of what the parent writes and of what the child writes.
const SEEDS: [u32; 2] = [11, 12];

/// In a child: receives a buffer, imports it, checks it, and overwrites it.
fn answers() -> Result<()> {
    let (gpu, path, _) = parameters()?;
    let socket = UnixStream::connect(path)?;
    socket.set_read_timeout(Some(TIMEOUT))?;
    let buffer = gpu.endpoint.import_buffer(receive(&socket)?.into_buffer()?)?;
    let mut view = View::new(&gpu, buffer);
    view.check(SEEDS[0]).context("what the parent wrote")?;
    view.write(SEEDS[1])
}

/// Sends a payload to a child, and waits until it has overwritten it.
fn aliases(test_gpu: &TestGpu, mut view: View<'_>, payload: &BufferPayload) -> Result<()> {
    view.write(SEEDS[0])?;
    let directory = directory()?;
    let path = directory.path().join("socket");
    let listener = UnixListener::bind(&path)?;
    let child = Child::start(test_gpu, ANSWERS, &path, None)?;
    let (socket, _) = listener.accept()?;
    send(&socket, &payload.try_clone()?.into())?;
    child.end()?;
    view.check(SEEDS[1]).context("what the child wrote")
}

/// Vulkan's memory in another process: each process reads what the other writes.
fn vulkan_aliases(test_gpu: &TestGpu) -> Result<()> {
    let gpu = test_gpu.vulkan();
    for bytes in [1, 4 << 10, (3 << 20) + 17] {
        let desc = BufferDesc::storage(bytes);
        let buffer = gpu.endpoint.create_buffer(&desc, BufferOptions::default())?;
        let payload = buffer.export()?;
        aliases(test_gpu, View::new(gpu, buffer), &payload)?;
    }
    Ok(())
}

/// CUDA's memory (`cuMemCreate`) in Vulkan in another process.
fn cuda_aliases(test_gpu: &TestGpu) -> Result<()> {
    let cuda = test_gpu.cuda()?;
    for bytes in [1, 4 << 10, (3 << 20) + 17] {
        let buffer = cuda.endpoint.create_buffer(&BufferDesc::storage(bytes))?;
        let payload = buffer.export()?;
        aliases(test_gpu, View::new(cuda, buffer), &payload)?;
    }
    Ok(())
}

/// How many frames a child verified, from what it printed; it must have missed none.
fn verified(printed: &str) -> Result<u64> {
    let [end, verified, missed] = printed.split(' ').collect::<Vec<_>>()[..] else {
        anyhow::bail!("the child printed {printed}");
    };
    ensure!((end, missed) == ("Done", "0"), "the child printed {printed}");
    Ok(verified.parse()?)
}

/// Three consumers join one after another: each gets every frame from then on.
fn many_consumers(test_gpu: &TestGpu) -> Result<()> {
    const FRAMES: u64 = 60;
    let directory = directory()?;
    let path = directory.path().join("socket");
    let mut test = TestProducer::open(test_gpu.vulkan(), Some(&path), ProducerOptions::default())?;
    let mut children = Vec::new();
    for count in 1..=3 {
        children.push(Child::start(test_gpu, CONSUMES, &path, None)?);
        test.producer.wait_for_consumers(count, TIMEOUT)?;
        let begin = test.published;
        while test.published < begin + FRAMES {
            test.step(TIMEOUT)?;
        }
        ensure!(test.producer.consumers() == count, "a consumer is gone");
    }
    test.finish()?;
    let expected = [3 * FRAMES, 2 * FRAMES, FRAMES];
    for (child, expected) in children.into_iter().zip(expected) {
        let verified = verified(&child.end()?)?;
        ensure!(verified == expected, "{verified} frames, not {expected}");
    }
    Ok(())
}

/// A producer at `path`, and a consumer of it in a child.
fn with_a_child(test_gpu: &TestGpu, path: &Path, ring: Ring) -> Result<(Producer, Child)> {
    let mut producer = Producer::bind(path, ring, ProducerOptions::default())?;
    let child = Child::start(test_gpu, CONSUMES, path, None)?;
    producer.wait_for_consumers(1, TIMEOUT)?;
    Ok((producer, child))
}

/// Frames are published before the GPU has drawn them; the consumer waits for the semaphore.
fn by_timeline(test_gpu: &TestGpu) -> Result<()> {
    const FRAMES: u64 = 200;
    let (gpu, directory) = (test_gpu.vulkan(), directory()?);
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
    let (mut producer, child) = with_a_child(test_gpu, &directory.path().join("socket"), ring)?;
    let mut last = [0; SLOTS];
    let drawn = (1..=FRAMES).try_for_each(|value| -> Result<()> {
        let slot = producer.free_slot(TIMEOUT)?;
        let command = commands[slot.index()];
        // The consumer waited for the slot's last work; the validation layer requires that this process does.
        semaphore.wait(std::mem::replace(&mut last[slot.index()], value), TIMEOUT)?;
        gpu.begin(command)?;
        gpu.record(command, Kernel::Fill { seed: value as u32 }, &bound[slot.index()], 0);
        gpu.record_barrier(command);
        let signal = SemaphoreSignal { semaphore: semaphore.clone(), value: Some(value) };
        gpu.submit(command, SubmitSync::new(Vec::new(), vec![signal]))?;
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
fn frames_of_cuda(test_gpu: &TestGpu) -> Result<()> {
    const FRAMES: u64 = 100;
    let (cuda, directory) = (test_gpu.cuda()?, directory()?);
    let (mut ring, mut buffers) = (Ring::new("cuda", ""), Vec::new());
    for _ in 0..SLOTS {
        let buffer = cuda.endpoint.create_buffer(&BufferDesc::storage(BYTES))?;
        ring = ring.slot(buffer.export()?);
        buffers.push(buffer);
    }
    let (mut producer, child) = with_a_child(test_gpu, &directory.path().join("socket"), ring)?;
    for tag in 1..=FRAMES {
        let slot = producer.free_slot(TIMEOUT)?;
        let frame = oracle::filled(BYTES as usize, tag as u32);
        cuda.write(&mut buffers[slot.index()], &frame)?;
        producer.publish(slot, FrameInfo { tag, ..FrameInfo::default() })?;
    }
    producer.finish(TIMEOUT)?;
    let verified = verified(&child.end()?)?;
    ensure!(verified == FRAMES, "{verified} frames of {FRAMES}");
    Ok(())
}

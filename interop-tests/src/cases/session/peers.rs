//! Producers and consumers of sessions that work on a GPU, and the child processes that run them.

use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{self, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use gpu_interop::headless::{Vulkan, VulkanOptions};
use gpu_interop::ipc::wire::{FrameToken, Message, ReleaseToken};
use gpu_interop::session::{
    Consumer, Event, Frame, FrameInfo, JoinOptions, Producer, ProducerOptions, Ring, SessionEnd,
};
use gpu_interop::vulkan::{self, BufferOptions};
use gpu_interop::{BufferDesc, Error};
use rustix::process::{Pid, Signal, kill_process};
use rustix::time::{ClockId, clock_gettime};

use crate::harness::{Role, TestGpu, child_arguments};
use interop_gpu::Kernel;
use interop_gpu::oracle::{self, Passes};
use interop_gpu::vulkan::{Bound, VulkanContext};

/// Small, since the session is tested, not the payload.
pub(super) const BYTES: u64 = 16 << 10;
pub(super) const SLOTS: usize = 4;

/// Longer than any step that succeeds.
pub(super) const TIMEOUT: Duration = Duration::from_secs(60);

/// A producer whose frames are filled by Vulkan.
pub(super) struct TestProducer<'a> {
    pub(super) producer: Producer,
    slots: Slots<'a>,
    /// The number of published frames.
    pub(super) published: u64,
    /// Added to the tags of frames, whose lower 32 bits are the seed of their bytes.
    pub(super) tags: u64,
}

/// The buffers of the ring.
struct Slots<'a> {
    gpu: &'a VulkanContext,
    bound: Vec<Bound>,
    buffers: Vec<vulkan::Buffer>,
}

impl<'a> Slots<'a> {
    fn new(gpu: &'a VulkanContext) -> Result<(Self, Ring)> {
        let mut ring = Ring::new("test", format!("{BYTES} bytes of hash, seeded by the tag"));
        let mut made = Self { gpu, bound: Vec::new(), buffers: Vec::new() };
        for _ in 0..SLOTS {
            let desc = BufferDesc::storage(BYTES);
            let buffer = gpu.endpoint.create_buffer(&desc, BufferOptions::default())?;
            ring = ring.slot(buffer.export()?);
            made.bound.push(gpu.bind(buffer.handle(), BYTES)?);
            made.buffers.push(buffer);
        }
        Ok((made, ring))
    }

    /// Fills a slot, and waits for it.
    fn fill(&self, slot: usize, seed: u32) -> Result<()> {
        self.gpu.run(|command| {
            self.gpu.record(command, Kernel::Fill { seed }, &self.bound[slot], 0);
            self.gpu.record_barrier(command);
            Ok(())
        })
    }
}

impl Drop for Slots<'_> {
    fn drop(&mut self) {
        // Before the buffers, which are no longer in use.
        self.bound.drain(..).for_each(|bound| self.gpu.unbind(bound));
        self.buffers.clear();
    }
}

impl<'a> TestProducer<'a> {
    /// Listens at `path`, or takes only sockets that are admitted.
    pub(super) fn open(
        gpu: &'a VulkanContext,
        path: Option<&Path>,
        options: ProducerOptions,
    ) -> Result<Self> {
        let (slots, ring) = Slots::new(gpu)?;
        let producer = match path {
            Some(path) => Producer::bind(path, ring, options)?,
            None => Producer::unbound(ring, options)?,
        };
        Ok(Self { producer, slots, published: 0, tags: 0 })
    }

    /// Publishes a frame if a slot gets free in time; returns whether it did.
    pub(super) fn step(&mut self, timeout: Duration) -> Result<bool> {
        let slot = match self.producer.free_slot(timeout) {
            Ok(slot) => slot,
            Err(Error::Timeout { .. }) => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        let tag = self.published + 1;
        self.slots.fill(slot.index(), tag as u32)?;
        let frame = FrameInfo { tag: self.tags + tag, ..FrameInfo::default() };
        self.published = self.producer.publish(slot, frame)?.sequence;
        Ok(true)
    }

    /// Waits until all frames are released, and ends.
    pub(super) fn finish(self) -> Result<()> {
        let Self { producer, slots, .. } = self;
        producer.finish(TIMEOUT)?;
        drop(slots);
        Ok(())
    }
}

/// A consumer that checks every byte of its frames with Vulkan.
pub(super) struct TestConsumer<'a> {
    gpu: &'a VulkanContext,
    pub(super) consumer: Consumer,
    buffers: Vec<vulkan::Buffer>,
    semaphores: Vec<vulkan::Semaphore>,
    /// The number of frames in which every byte was right.
    pub(super) verified: u64,
}

impl<'a> TestConsumer<'a> {
    pub(super) fn new(gpu: &'a VulkanContext, joined: (Consumer, Ring)) -> Result<Self> {
        let (consumer, ring) = joined;
        let mut buffers = Vec::new();
        for slot in ring.slots {
            buffers.push(gpu.endpoint.import_buffer(slot.into_buffer()?)?);
        }
        let mut semaphores = Vec::new();
        for semaphore in ring.semaphores {
            semaphores.push(gpu.endpoint.import_semaphore(semaphore)?);
        }
        Ok(Self { gpu, consumer, buffers, semaphores, verified: 0 })
    }

    /// Takes the next frame and checks it. Returns its tag.
    ///
    /// # Errors
    /// Those of [`Consumer::next_frame`] and [`Frame::release`], and if a frame is wrong although it was not
    /// taken back.
    pub(super) fn step(&mut self, timeout: Duration) -> Result<u64> {
        let frame = self.consumer.next_frame(timeout)?;
        let tag = frame.tag();
        let seed = tag as u32;
        frame.wait(TIMEOUT, |point, timeout| {
            self.semaphores[point.semaphore as usize].wait(point.value, timeout)
        })?;
        let (read, sequence) = (self.read(&frame)?, frame.sequence());
        frame.release()?;
        oracle::check(&read, seed, &Passes::default())
            .with_context(|| format!("frame {sequence}, which was not taken back"))?;
        self.verified += 1;
        Ok(tag)
    }

    fn read(&self, frame: &Frame) -> Result<Vec<u8>> {
        self.gpu.download(self.buffers[frame.slot()].handle(), 0, BYTES)
    }

    /// Receives frames until the session ends.
    fn receive_all(&mut self) -> Result<SessionEnd> {
        loop {
            match self.step(TIMEOUT) {
                Ok(_) => {}
                Err(error) if is_closed(&error) => {
                    return self.consumer.end().context("closed, but not ended");
                }
                Err(error) => return Err(error),
            }
        }
    }
}

pub(super) fn is_closed(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(Error::Closed { .. }))
}

pub(super) fn is_timeout(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(Error::Timeout { .. }))
}

/// A directory for sockets, with a short path.
pub(super) fn directory() -> Result<tempfile::TempDir> {
    Ok(tempfile::Builder::new().prefix("session").tempdir_in("/tmp")?)
}

pub(super) const CONSUMES: &str = "consumes frames";
pub(super) const PRODUCES: &str = "produces frames";

pub(super) const SOCKET: &str = "INTEROP_SOCKET";
const BREAK_OFF: &str = "INTEROP_BREAK_OFF";

/// The children of these cases.
pub(in crate::cases) fn roles() -> Vec<Role> {
    vec![(CONSUMES, consumes), (PRODUCES, produces)]
}

/// A child that is killed when this is dropped, if it still runs.
pub(super) struct Child(process::Child);

/// After how many frames a child closes its socket in the middle of a message, and after how many of the
/// message's bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct BreakOff {
    pub(super) frames: u64,
    pub(super) bytes: usize,
}

impl Child {
    pub(super) fn start(
        test_gpu: &TestGpu,
        role: &str,
        path: &Path,
        break_off: Option<BreakOff>,
    ) -> Result<Self> {
        let mut command = child_arguments(role)?;
        command.env("INTEROP_DEVICE", test_gpu.selector().to_string()).env(SOCKET, path);
        if let Some(BreakOff { frames, bytes }) = break_off {
            command.env(BREAK_OFF, format!("{frames} {bytes}"));
        }
        let child = command.stdout(Stdio::piped()).spawn().context("starting a child")?;
        Ok(Self(child))
    }

    pub(super) fn pid(&self) -> u32 {
        self.0.id()
    }

    pub(super) fn signal(&self, signal: Signal) -> Result<()> {
        signal_to(self.pid(), signal)
    }

    /// Waits for the end of a child; returns what it printed.
    pub(super) fn end(mut self) -> Result<String> {
        let started = Instant::now();
        let status = loop {
            match self.0.try_wait()? {
                Some(status) => break status,
                None if started.elapsed() < TIMEOUT => std::thread::sleep(POLL),
                None => bail!("the child does not end"),
            }
        };
        let mut printed = String::new();
        if let Some(mut output) = self.0.stdout.take() {
            std::io::Read::read_to_string(&mut output, &mut printed)?;
        }
        ensure!(status.success(), "the child ended with {status}: {printed}");
        Ok(printed.trim().to_owned())
    }

    pub(super) fn kill(&mut self) -> Result<()> {
        self.0.kill()?;
        self.0.wait()?;
        Ok(())
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // If it has ended already, there is nothing to do.
        let _ = self.kill();
    }
}

const POLL: Duration = Duration::from_millis(1);

pub(super) fn signal_to(pid: u32, signal: Signal) -> Result<()> {
    let pid = Pid::from_raw(pid.try_into()?).context("no process has the number 0")?;
    Ok(kill_process(pid, signal)?)
}

/// In a child: its parent's GPU, the socket's path and when to break off.
pub(super) fn parameters() -> Result<(VulkanContext, PathBuf, Option<BreakOff>)> {
    let selector = std::env::var("INTEROP_DEVICE")?.parse()?;
    let gpu = VulkanContext::new(Vulkan::open(&selector, &VulkanOptions::default())?)?;
    let path = std::env::var_os(SOCKET).context(SOCKET)?.into();
    let break_off = std::env::var(BREAK_OFF).ok().map(|text| -> Result<BreakOff> {
        let (frames, bytes) = text.split_once(' ').context(BREAK_OFF)?;
        Ok(BreakOff { frames: frames.parse()?, bytes: bytes.parse()? })
    });
    Ok((gpu, path, break_off.transpose()?))
}

/// In a child: checks frames until the session ends, and prints how it ended, how many frames were
/// verified and how many were missed.
fn consumes() -> Result<()> {
    let (gpu, path, break_off_at) = parameters()?;
    let options = JoinOptions { timeout: TIMEOUT, ..JoinOptions::default() };
    let mut consumer = TestConsumer::new(&gpu, Consumer::join(path, options)?)?;
    if let Some(at) = break_off_at {
        let socket = UnixStream::from(consumer.consumer.as_fd().try_clone_to_owned()?);
        for _ in 0..at.frames {
            consumer.step(TIMEOUT)?;
        }
        let frame = consumer.consumer.next_frame(TIMEOUT)?;
        let (slot, sequence) = (frame.slot() as u32, frame.sequence());
        let release = Message::Release(ReleaseToken { slot, sequence });
        return break_off(&socket, &release, at.bytes);
    }
    let end = consumer.receive_all()?;
    println!("{end:?} {} {}", consumer.verified, consumer.consumer.missed());
    Ok(())
}

/// Sends the first bytes of a message, closes the socket, and prints when.
fn break_off(socket: &UnixStream, message: &Message, bytes: usize) -> Result<()> {
    let encoded = message.encode();
    (&*socket).write_all(&encoded[..bytes.clamp(1, encoded.len() - 1)])?;
    println!("{}", monotonic().as_nanos());
    socket.shutdown(std::net::Shutdown::Both)?;
    Ok(())
}

/// In a child: publishes frames until a consumer leaves.
fn produces() -> Result<()> {
    let (gpu, path, break_off_at) = parameters()?;
    let Some(at) = break_off_at else {
        // A parent that waits for a processor must not be evicted.
        let options = ProducerOptions { evict_after: TIMEOUT, ..ProducerOptions::default() };
        let mut test = TestProducer::open(&gpu, Some(&path), options)?;
        loop {
            if test.producer.consumers() > 0 {
                test.step(POLL)?;
            }
            if let Some(Event::Left { .. }) = test.producer.poll(POLL)? {
                println!("{}", test.published);
                return Ok(());
            }
        }
    };
    let listener = UnixListener::bind(path)?;
    let (socket, _) = listener.accept()?;
    let mut test = TestProducer::open(&gpu, None, ProducerOptions::default())?;
    test.producer.admit(socket.try_clone()?)?;
    test.producer.wait_for_consumers(1, TIMEOUT)?;
    while test.published < at.frames {
        test.step(TIMEOUT)?;
    }
    let (point, layouts) = (None, None);
    let frame = FrameToken { slot: 0, sequence: u64::MAX, point, layouts, published: 0, tag: 0 };
    break_off(&socket, &Message::Frame(frame), at.bytes)
}

/// Reads the clock that parent and child share.
pub(super) fn monotonic() -> Duration {
    let now = clock_gettime(ClockId::Monotonic);
    Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs() as u32)
}

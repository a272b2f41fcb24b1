//! Producers and consumers of sessions, with GPU work in each, and the children that they are.

use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use gpu_interop::headless::{Vulkan, VulkanOptions};
use gpu_interop::ipc::wire::{FrameToken, Message, ReleaseToken};
use gpu_interop::session::{
    Consumer, End, Event, Frame, FrameInfo, JoinOptions, Producer, ProducerOptions, Ring,
};
use gpu_interop::vulkan::{self, BufferOptions};
use gpu_interop::{BufferDesc, Error};

use crate::harness::{Role, TestGpu, child_arguments};
use interop_gpu::Kernel;
use interop_gpu::oracle::{self, Turns};
use interop_gpu::vulkan::{Bound, VulkanContext};

/// Small: what is tried is the session.
pub(crate) const BYTES: u64 = 16 << 10;
pub(crate) const SLOTS: usize = 4;

/// Longer than anything takes that works.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(60);

/// A producer whose frames Vulkan fills.
pub(crate) struct TestProducer<'a> {
    pub(crate) producer: Producer,
    canvas: Canvas<'a>,
    /// How many frames were published.
    pub(crate) published: u64,
}

/// What is drawn into.
struct Canvas<'a> {
    gpu: &'a VulkanContext,
    bound: Vec<Bound>,
    buffers: Vec<vulkan::Buffer>,
}

impl<'a> Canvas<'a> {
    fn new(gpu: &'a VulkanContext) -> Result<(Self, Ring)> {
        let mut ring = Ring::new("show", format!("{BYTES} bytes of hash, seeded by the tag"));
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

impl Drop for Canvas<'_> {
    fn drop(&mut self) {
        // Before the buffers, of which nothing is left in use.
        self.bound.drain(..).for_each(|bound| self.gpu.unbind(bound));
        self.buffers.clear();
    }
}

impl<'a> TestProducer<'a> {
    /// Opens at `path`, or for sockets that are admitted.
    pub(crate) fn open(
        gpu: &'a VulkanContext,
        path: Option<&Path>,
        options: ProducerOptions,
    ) -> Result<Self> {
        let (canvas, ring) = Canvas::new(gpu)?;
        let producer = match path {
            Some(path) => Producer::bind(path, ring, options)?,
            None => Producer::unbound(ring, options)?,
        };
        Ok(Self { producer, canvas, published: 0 })
    }

    /// Publishes a frame, if a slot gets free in time; whether it did.
    pub(crate) fn step(&mut self, timeout: Duration) -> Result<bool> {
        let slot = match self.producer.free_slot(timeout) {
            Ok(slot) => slot,
            Err(Error::Timeout { .. }) => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        let tag = self.published + 1;
        self.canvas.fill(slot.index(), tag as u32)?;
        let frame = FrameInfo { tag, ..FrameInfo::default() };
        self.published = self.producer.publish(slot, frame)?.sequence;
        Ok(true)
    }

    /// Waits until all frames are given back, and ends.
    pub(crate) fn finish(self) -> Result<()> {
        let Self { producer, canvas, .. } = self;
        producer.finish(TIMEOUT)?;
        drop(canvas);
        Ok(())
    }
}

/// A consumer that checks every byte of its frames, by Vulkan.
pub(crate) struct TestConsumer<'a> {
    gpu: &'a VulkanContext,
    pub(crate) consumer: Consumer,
    buffers: Vec<vulkan::Buffer>,
    semaphores: Vec<vulkan::Semaphore>,
    /// Frames whose every byte was right.
    pub(crate) verified: u64,
}

impl<'a> TestConsumer<'a> {
    pub(crate) fn new(gpu: &'a VulkanContext, joined: (Consumer, Ring)) -> Result<Self> {
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

    /// Takes the next frame and checks it.
    ///
    /// # Errors
    /// What [`Consumer::next_frame`] and [`Frame::release`] return, and where a frame is wrong that was
    /// the consumer's to the end.
    pub(crate) fn step(&mut self, timeout: Duration) -> Result<()> {
        let frame = self.consumer.next_frame(timeout)?;
        let seed = frame.tag() as u32;
        frame.wait(TIMEOUT, |point, timeout| {
            self.semaphores[point.semaphore as usize].wait(point.value, timeout)
        })?;
        let (read, sequence) = (self.read(&frame)?, frame.sequence());
        frame.release()?;
        oracle::check(&read, seed, &Turns::default())
            .with_context(|| format!("frame {sequence}, though it was not taken back"))?;
        self.verified += 1;
        Ok(())
    }

    pub(crate) fn read(&self, frame: &Frame) -> Result<Vec<u8>> {
        self.gpu.download(self.buffers[frame.slot()].handle(), 0, BYTES)
    }

    /// Takes frames until the session ends.
    pub(crate) fn watch(&mut self) -> Result<End> {
        loop {
            match self.step(TIMEOUT) {
                Ok(()) => {}
                Err(error) if is_closed(&error) => {
                    return self.consumer.end().context("closed, but not ended");
                }
                Err(error) => return Err(error),
            }
        }
    }
}

pub(crate) fn is_closed(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(Error::Closed { .. }))
}

pub(crate) fn is_timeout(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(Error::Timeout { .. }))
}

/// A directory for sockets, with a short path.
pub(crate) fn directory() -> Result<tempfile::TempDir> {
    Ok(tempfile::Builder::new().prefix("session").tempdir_in("/tmp")?)
}

pub(crate) const CONSUMES: &str = "consumes frames";
pub(crate) const PRODUCES: &str = "produces frames";

const SOCKET: &str = "INTEROP_SOCKET";
const HALF: &str = "INTEROP_HALF";

/// What the children of these cases do.
pub(crate) fn roles() -> Vec<Role> {
    vec![(CONSUMES, consumes), (PRODUCES, produces)]
}

/// A child that is killed, if it still runs, when this goes.
pub(crate) struct Peer(pub(crate) Child);

/// After how many frames a child closes its socket in the middle of a message, and where in it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Half {
    pub(crate) frames: u64,
    pub(crate) bytes: usize,
}

impl Peer {
    pub(crate) fn start(
        machine: &TestGpu,
        role: &str,
        path: &Path,
        half: Option<Half>,
    ) -> Result<Self> {
        let mut command: Command = child_arguments(role)?;
        command.env("INTEROP_DEVICE", machine.wish().to_string()).env(SOCKET, path);
        if let Some(Half { frames, bytes }) = half {
            command.env(HALF, format!("{frames} {bytes}"));
        }
        let child = command.stdout(Stdio::piped()).spawn().context("starting a child")?;
        Ok(Self(child))
    }

    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }

    pub(crate) fn signal(&self, signal: libc::c_int) -> Result<()> {
        signal_to(self.pid(), signal)
    }

    /// Waits for the end of a child that is no longer needed or is ending; what it said.
    pub(crate) fn end(mut self) -> Result<String> {
        let started = Instant::now();
        let status = loop {
            match self.0.try_wait()? {
                Some(status) => break status,
                None if started.elapsed() < TIMEOUT => std::thread::sleep(POLL),
                None => bail!("the child does not end"),
            }
        };
        let mut said = String::new();
        if let Some(mut output) = self.0.stdout.take() {
            std::io::Read::read_to_string(&mut output, &mut said)?;
        }
        ensure!(status.success(), "the child ended with {status}: {said}");
        Ok(said.trim().to_owned())
    }

    pub(crate) fn kill(&mut self) -> Result<()> {
        self.0.kill()?;
        self.0.wait()?;
        Ok(())
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // Nothing that can be done where it has ended already.
        let _ = self.kill();
    }
}

const POLL: Duration = Duration::from_millis(1);

pub(crate) fn signal_to(pid: u32, signal: libc::c_int) -> Result<()> {
    // SAFETY: kill takes two numbers; the process is a child that has not been waited for.
    let sent = unsafe { libc::kill(pid as libc::pid_t, signal) };
    ensure!(sent == 0, "kill: {}", std::io::Error::last_os_error());
    Ok(())
}

/// In a child: the GPU of its parent, the socket and what is to be broken.
pub(crate) fn setting() -> Result<(VulkanContext, PathBuf, Option<Half>)> {
    let wish = std::env::var("INTEROP_DEVICE")?.parse()?;
    let gpu = VulkanContext::new(Vulkan::open(&wish, &VulkanOptions::default())?)?;
    let path = std::env::var_os(SOCKET).context(SOCKET)?.into();
    let half = std::env::var(HALF).ok().map(|text| -> Result<Half> {
        let (frames, bytes) = text.split_once(' ').context(HALF)?;
        Ok(Half { frames: frames.parse()?, bytes: bytes.parse()? })
    });
    Ok((gpu, path, half.transpose()?))
}

/// In a child: checks frames until the session ends, and says how, and how many.
fn consumes() -> Result<()> {
    let (gpu, path, half) = setting()?;
    let options = JoinOptions { timeout: TIMEOUT, ..JoinOptions::default() };
    let mut viewer = TestConsumer::new(&gpu, Consumer::join(path, options)?)?;
    if let Some(half) = half {
        let socket = UnixStream::from(viewer.consumer.as_fd().try_clone_to_owned()?);
        for _ in 0..half.frames {
            viewer.step(TIMEOUT)?;
        }
        let frame = viewer.consumer.next_frame(TIMEOUT)?;
        let (slot, sequence) = (frame.slot() as u32, frame.sequence());
        let release = Message::Release(ReleaseToken { slot, sequence });
        return break_off(&socket, &release, half.bytes);
    }
    let end = viewer.watch()?;
    println!("{end:?} {} {}", viewer.verified, viewer.consumer.missed());
    Ok(())
}

/// Sends so many bytes of a message and closes the socket.
fn break_off(socket: &UnixStream, message: &Message, bytes: usize) -> Result<()> {
    let encoded = message.encode();
    (&*socket).write_all(&encoded[..bytes.clamp(1, encoded.len() - 1)])?;
    println!("{}", monotonic()?.as_nanos());
    socket.shutdown(std::net::Shutdown::Both)?;
    Ok(())
}

/// In a child: shows frames until all consumers that there were are gone.
fn produces() -> Result<()> {
    let (gpu, path, half) = setting()?;
    let Some(half) = half else {
        // A parent that has to wait for a processor is not to be taken for one that stands still.
        let options = ProducerOptions { patience: TIMEOUT, ..ProducerOptions::default() };
        let mut show = TestProducer::open(&gpu, Some(&path), options)?;
        loop {
            if show.producer.consumers() > 0 {
                show.step(POLL)?;
            }
            if let Some(Event::Left { .. }) = show.producer.poll(POLL)? {
                println!("{}", show.published);
                return Ok(());
            }
        }
    };
    let listener = UnixListener::bind(path)?;
    let (socket, _) = listener.accept()?;
    let mut show = TestProducer::open(&gpu, None, ProducerOptions::default())?;
    show.producer.admit(socket.try_clone()?)?;
    show.producer.wait_for_consumers(1, TIMEOUT)?;
    while show.published < half.frames {
        show.step(TIMEOUT)?;
    }
    let (point, layouts) = (None, None);
    let frame = FrameToken { slot: 0, sequence: u64::MAX, point, layouts, published: 0, tag: 0 };
    break_off(&socket, &Message::Frame(frame), half.bytes)
}

/// The clock that parent and child share.
pub(crate) fn monotonic() -> Result<Duration> {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is writable and of the size that clock_gettime fills.
    let told = unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut now) };
    ensure!(told == 0, "clock_gettime: {}", std::io::Error::last_os_error());
    Ok(Duration::new(now.tv_sec.try_into()?, now.tv_nsec.try_into()?))
}

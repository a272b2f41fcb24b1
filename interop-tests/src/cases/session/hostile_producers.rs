//! Hostile producers, in child processes: every call of a consumer returns within its timeout.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{self, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use gpu_interop::fd::MemoryHandleType;
use gpu_interop::ipc::wire::{FrameToken, Message, RingInfo};
use gpu_interop::payload::MemoryInfo;
use gpu_interop::session::{Consumer, JoinOptions};
use gpu_interop::{BufferDesc, Error, Identity, Uuid};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};

use crate::cases::session::attackers::{lingering, send_with};
use crate::cases::session::peers::{SOCKET, directory};
use crate::harness::{Case, Role, TestGpu, child_arguments};

/// The timeout of each call, and how much later it may return.
const TIMEOUT: Duration = Duration::from_millis(300);
const MORE: Duration = Duration::from_millis(100);

/// What a producer does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hostile {
    /// Accepts, and sends nothing.
    Silent,
    /// Sends single bytes.
    Trickle,
    /// The memory is a socket whose close(2) blocks.
    BlockingMemory,
    /// So are many descriptors of the first message.
    ManyDescriptors,
    /// So is one that comes with a frame.
    BlockingFrame,
    /// The memory is a file with the right content.
    File,
    /// The memory is a memfd that can be shortened.
    Unsealed,
    /// The sequence numbers are as far apart as possible.
    Sequences,
    /// Frames without end.
    Flood,
}

/// How far a consumer gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    /// Joining takes too long.
    Timeout,
    /// A descriptor is refused; the parameter of the error.
    Refused(&'static str),
    /// The session ends in an error at the first or second frame, with this parameter.
    EndsAtFrame(&'static str),
    /// Frames arrive.
    Frames,
}

impl Hostile {
    const ALL: [(Self, &'static str, Expected); 9] = [
        (Self::Silent, "silence", Expected::Timeout),
        (Self::Trickle, "single_bytes", Expected::Timeout),
        (Self::BlockingMemory, "memory_whose_close_blocks", Expected::Refused("payload.fd")),
        (Self::ManyDescriptors, "many_descriptors", Expected::Refused("descriptors")),
        (Self::BlockingFrame, "a_frame_with_a_descriptor", Expected::EndsAtFrame("descriptors")),
        (Self::File, "a_file_as_memory", Expected::Refused("payload.fd")),
        (Self::Unsealed, "memory_that_can_be_shortened", Expected::Refused("payload.fd")),
        (Self::Sequences, "impossible_sequence_numbers", Expected::Frames),
        (Self::Flood, "a_flood_of_frames", Expected::EndsAtFrame("frame")),
    ];
}

pub(in crate::cases) fn cases() -> Vec<Case> {
    let case = |(hostile, name, expected)| {
        let name = format!("ipc/share/hostile/producer/{name}/60");
        // The time that each call takes is measured.
        Case::new(name, move |_: &TestGpu| consumes(hostile, expected)).alone()
    };
    Hostile::ALL.into_iter().map(case).collect()
}

const PRODUCES: &str = "is a hostile producer";
const HOSTILE: &str = "INTEROP_HOSTILE";

pub(in crate::cases) fn roles() -> Vec<Role> {
    vec![(PRODUCES, produces)]
}

/// The producer's process, which is killed when this is dropped.
struct Producer(process::Child);

impl Drop for Producer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Calls `call`, and checks how long it takes.
fn in_time<T>(what: &str, timeout: Duration, call: impl FnOnce() -> T) -> Result<T> {
    let started = Instant::now();
    let result = call();
    let took = started.elapsed();
    ensure!(took <= timeout + MORE, "{what} took {took:?}, its timeout is {timeout:?}");
    Ok(result)
}

fn consumes(hostile: Hostile, expected: Expected) -> Result<()> {
    let directory = directory()?;
    let path = directory.path().join("socket");
    let mut command = child_arguments(PRODUCES)?;
    command.env(SOCKET, &path).env(HOSTILE, format!("{hostile:?}"));
    let mut producer = Producer(command.stdout(Stdio::piped()).spawn()?);
    // It prints a line when it listens.
    let mut output = producer.0.stdout.take().context("no output")?;
    ensure!(output.read(&mut [0])? == 1, "the producer has ended");

    let options = JoinOptions { timeout: TIMEOUT, ..JoinOptions::default() };
    let joined = in_time("join", TIMEOUT, || Consumer::join(&path, options))?;
    let (mut consumer, ring) = match (joined, expected) {
        (Err(Error::Timeout { .. }), Expected::Timeout) => return Ok(()),
        (Err(error), Expected::Refused(field)) => {
            ensure!(field_of(&error) == Some(field), "{error:?}");
            return Ok(());
        }
        (Err(error), _) => return Err(error).context("joining"),
        (Ok(_), Expected::Timeout | Expected::Refused(_)) => anyhow::bail!("it has joined"),
        (Ok(joined), _) => joined,
    };
    // If it has ended already, the next call returns the same error.
    let _ = in_time("ready", Duration::ZERO, || consumer.ready())?;
    // The producer gets ahead.
    thread::sleep(Duration::from_millis(30));
    let mut ended = false;
    for count in 0..3 {
        let frame = in_time("next_frame", TIMEOUT, || consumer.next_frame(TIMEOUT))?;
        match (frame, expected) {
            (Ok(frame), Expected::Frames) => {
                in_time("release", Duration::ZERO, || frame.release())??;
                // The ring drops no frames.
                ensure!(consumer.missed() == 0, "{} missed", consumer.missed());
            }
            (Err(error), Expected::EndsAtFrame(field)) => {
                // The header's own count, if the kernel refuses the descriptor.
                let found = field_of(&error).unwrap_or_default();
                ensure!(found.trim_start_matches("header.") == field, "{error:?}");
                ended = true;
                break;
            }
            (Ok(frame), _) => drop(frame),
            (frame, _) => anyhow::bail!("frame {count}: {frame:?}"),
        }
    }
    ensure!(ended != (expected == Expected::Frames), "the session did not end");
    in_time("leaving", Duration::ZERO, || drop(consumer))?;
    in_time("closing the memory", Duration::ZERO, || drop(ring))
}

fn field_of(error: &Error) -> Option<&str> {
    match error {
        Error::Invalid(invalid) => Some(&invalid.parameter),
        Error::Mismatch(mismatch) => Some(mismatch.field),
        _ => None,
    }
}

const SIZE: u64 = 8192;

/// In the child.
fn produces() -> Result<()> {
    let path = PathBuf::from(std::env::var_os(SOCKET).context(SOCKET)?);
    let name = std::env::var(HOSTILE)?;
    let found = Hostile::ALL.into_iter().find(|(hostile, ..)| format!("{hostile:?}") == name);
    let (hostile, ..) = found.context(HOSTILE)?;
    let listener = UnixListener::bind(&path)?;
    println!("listening");
    let (mut socket, _) = listener.accept()?;
    // The other end of a lingering socket lives as long as this process.
    let (blocking, _other) = lingering(Duration::from_secs(25))?;
    match hostile {
        Hostile::Silent => {}
        Hostile::Trickle => {
            for byte in ring().encode() {
                socket.write_all(&[byte])?;
                thread::sleep(Duration::from_millis(30));
            }
        }
        Hostile::ManyDescriptors => {
            send_with(&socket, &ring().encode(), &[blocking.as_fd(); 200])?;
        }
        Hostile::BlockingMemory => announce(&socket, &[blocking.as_fd(); 2])?,
        Hostile::File => {
            let file = tempfile::tempfile()?;
            file.set_len(4096 + SIZE)?;
            (&file).write_all(&[SIZE, 4096].map(u64::to_le_bytes).concat())?;
            announce(&socket, &[file.as_fd(); 2])?;
        }
        Hostile::Unsealed => {
            let file = memory(SealFlags::empty())?;
            announce(&socket, &[file.as_fd(); 2])?;
            File::from(file).set_len(0)?;
        }
        Hostile::BlockingFrame | Hostile::Sequences | Hostile::Flood => {
            let memory = memory(SealFlags::SHRINK)?;
            announce(&socket, &[memory.as_fd(); 2])?;
            frames(hostile, &mut socket, blocking.as_fd());
        }
    }
    drop(blocking);
    thread::sleep(Duration::from_secs(10));
    Ok(())
}

fn frames(hostile: Hostile, socket: &mut UnixStream, blocking: BorrowedFd<'_>) {
    // Join and ready.
    let mut messages = [0; 20 + 16];
    let _ = socket.read_exact(&mut messages);
    let mut slot = 0;
    let impossible = [1, u64::MAX - 1, u64::MAX];
    for count in 0.. {
        let sequence = match hostile {
            Hostile::Sequences if count == impossible.len() => return,
            Hostile::Sequences => impossible[count],
            _ => count as u64 + 1,
        };
        let bytes = frame(slot, sequence).encode();
        let sent = match hostile {
            // A kernel that lets the consumer refuse descriptors leaves only nonsense.
            Hostile::BlockingFrame => match send_with(socket, &bytes, &[blocking]) {
                Ok(_) => Ok(()),
                Err(_) => {
                    let mut bytes = bytes;
                    bytes[12] = 1;
                    let _ = socket.write_all(&bytes);
                    return;
                }
            },
            _ => socket.write_all(&bytes),
        };
        if sent.is_err() {
            return;
        }
        slot = 1 - slot;
        if hostile == Hostile::Sequences && socket.read_exact(&mut [0; 32]).is_err() {
            return;
        }
    }
}

fn frame(slot: u32, sequence: u64) -> Message {
    let (point, layouts) = (None, None);
    Message::Frame(FrameToken { slot, sequence, point, layouts, published: 0, tag: 0 })
}

fn ring() -> Message {
    let (name, format) = (String::new(), String::new());
    Message::Ring(RingInfo { slots: 2, semaphores: 0, drops_frames: false, name, format })
}

/// Sends a ring whose slots are these files.
fn announce(socket: &UnixStream, slots: &[BorrowedFd<'_>]) -> Result<()> {
    let identity = Identity { device: Uuid::from_bytes([7; 16]), driver: None, name: "GPU".into() };
    let memory = MemoryInfo {
        handle_type: MemoryHandleType::OpaqueFd,
        allocation_size: SIZE,
        memory_type_index: Some(0),
        dedicated: false,
        identity,
    };
    let buffer = Message::Buffer { memory, offset: 0, desc: BufferDesc::storage(64) }.encode();
    (&*socket).write_all(&ring().encode())?;
    for slot in slots {
        send_with(socket, &buffer, &[*slot])?;
    }
    Ok(())
}

fn memory(seals: SealFlags) -> Result<OwnedFd> {
    let file = memfd_create("memory", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    ftruncate(&file, 4096 + SIZE)?;
    fcntl_add_seals(&file, seals)?;
    Ok(file)
}

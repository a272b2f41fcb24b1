//! Hostile consumers: child processes that try to stop a producer until they are killed, or for half a
//! minute. Each does one thing, with nothing but a socket and the wire format.

use std::io::{Read, Write};
use std::mem::MaybeUninit;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use gpu_interop::ipc::Receiver;
use gpu_interop::ipc::wire::{HEADER_LEN, Header, Kind, Message, ReleaseToken};
use rustix::fs::{FlockOperation, Mode, OFlags, flock, open};
use rustix::net::sockopt::set_socket_linger;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use crate::cases::session::peers::SOCKET;
use crate::harness::{Role, child_arguments};

/// What a hostile consumer does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Attack {
    /// Attaches sockets whose close(2) blocks, and sends nonsense.
    BlockingClose,
    /// Takes frames and releases none, to the end.
    Silent,
    /// Connects as fast as it can.
    Flood,
    /// Locks the directory of the socket.
    Lock,
    /// Four processes that take frames, release none, and join again as soon as they are evicted; a fifth
    /// starts a new process each time.
    Rejoin,
    /// Tries to shorten the memory, and to seal it against writing.
    Shrink,
    /// Consumers that no longer read, that never read, and connections that send nothing.
    Zombies,
    /// Releases frames with impossible sequence numbers.
    Sequences,
    /// Sends a file with the right content as memory.
    File,
}

impl Attack {
    pub(super) const ALL: [Self; 9] = [
        Self::BlockingClose,
        Self::Silent,
        Self::Flood,
        Self::Lock,
        Self::Rejoin,
        Self::Shrink,
        Self::Zombies,
        Self::Sequences,
        Self::File,
    ];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::BlockingClose => "a_close_that_blocks",
            Self::Silent => "a_silent_consumer",
            Self::Flood => "a_flood_of_connections",
            Self::Lock => "a_lock_on_the_directory",
            Self::Rejoin => "rejoining_after_eviction",
            Self::Shrink => "shortening_the_memory",
            Self::Zombies => "consumers_that_never_read",
            Self::Sequences => "impossible_sequence_numbers",
            Self::File => "a_file_as_memory",
        }
    }
}

pub(super) const ATTACKS: &str = "attacks a producer";
const JOINS_ONCE: &str = "joins once and takes frames";
pub(super) const ATTACK: &str = "INTEROP_ATTACK";

pub(in crate::cases) fn roles() -> Vec<Role> {
    vec![(ATTACKS, attacks), (JOINS_ONCE, joins_once)]
}

/// After this time an attacker ends if it was not killed.
const LIMIT: Duration = Duration::from_secs(30);

/// Between two attempts of attacks that need no speed.
const PAUSE: Duration = Duration::from_millis(20);

fn attacks() -> Result<()> {
    let path = PathBuf::from(std::env::var_os(SOCKET).context(SOCKET)?);
    let name = std::env::var(ATTACK)?;
    let attack = Attack::ALL.into_iter().find(|attack| attack.name() == name).context(ATTACK)?;
    // What is measured is what the producer does, not who gets the processor.
    rustix::process::nice(19)?;
    let until = Instant::now() + LIMIT;
    match attack {
        Attack::Lock => {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let directory = open(path.parent().context("no directory")?, flags, Mode::empty())?;
            flock(&directory, FlockOperation::LockExclusive)?;
            // The parent waits for this line.
            println!("locked");
            thread::sleep(LIMIT);
        }
        Attack::Flood => {
            while Instant::now() < until {
                if let Ok(socket) = UnixStream::connect(&path) {
                    let _ = (&socket).write(b"GET / HTTP/1.1\r\n\r\n");
                } else {
                    // It has ended, or the queue is full.
                    thread::sleep(Duration::from_micros(100));
                }
            }
        }
        Attack::Zombies => zombies(&path, until),
        Attack::Rejoin => {
            for _ in 0..4 {
                let path = path.clone();
                thread::spawn(move || repeat(until, || takes_frames(&path)));
            }
            repeat(until, || {
                let mut child = child_arguments(JOINS_ONCE)?.env(SOCKET, &path).spawn()?;
                child.wait()?;
                Ok(())
            });
        }
        Attack::Silent => repeat(until, || takes_frames(&path)),
        Attack::BlockingClose => repeat(until, || blocking_close(&path)),
        Attack::Shrink => repeat(until, || shrink(&path)),
        Attack::Sequences => repeat(until, || sequences(&path)),
        Attack::File => repeat(until, || file(&path)),
    }
    Ok(())
}

fn repeat(until: Instant, mut act: impl FnMut() -> Result<()>) {
    while Instant::now() < until {
        // That an attempt fails is what the producer is to achieve.
        let _ = act();
        thread::sleep(PAUSE);
    }
}

fn joins_once() -> Result<()> {
    rustix::process::nice(19)?;
    let path = PathBuf::from(std::env::var_os(SOCKET).context(SOCKET)?);
    let _ = takes_frames(&path);
    Ok(())
}

/// Joins and is ready. Returns the memory of the slots.
fn join(path: &Path) -> Result<(UnixStream, Vec<OwnedFd>)> {
    let mut socket = UnixStream::connect(path)?;
    socket.set_read_timeout(Some(Duration::from_secs(5)))?;
    socket.write_all(&Message::Join { name: "hostile".into() }.encode())?;
    let Message::Ring(ring) = read(&mut socket)? else { anyhow::bail!("no ring") };
    let mut receiver = Receiver::new();
    let mut memory = Vec::new();
    for _ in 0..ring.slots {
        memory.push(receiver.receive(&socket)?.into_buffer()?.as_fd().try_clone_to_owned()?);
    }
    socket.write_all(&Message::Ready.encode())?;
    Ok((socket, memory))
}

/// Reads a message without a descriptor.
fn read(socket: &mut UnixStream) -> Result<Message> {
    let mut header = [0; HEADER_LEN];
    socket.read_exact(&mut header)?;
    let mut message = header.to_vec();
    message.resize(Header::decode(&header)?.message_len(), 0);
    socket.read_exact(&mut message[HEADER_LEN..])?;
    Ok(Message::decode(&message)?)
}

/// Reads frames and releases none, until the producer ends it.
fn takes_frames(path: &Path) -> Result<()> {
    let (mut socket, _memory) = join(path)?;
    socket.set_read_timeout(Some(LIMIT))?;
    loop {
        if let Message::Leave(_) = read(&mut socket)? {
            return Ok(());
        }
    }
}

/// Sends bytes with descriptors on the first one.
pub(super) fn send_with(
    socket: &UnixStream,
    bytes: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> rustix::io::Result<usize> {
    let rights = SendAncillaryMessage::ScmRights(descriptors);
    let mut space = vec![MaybeUninit::uninit(); rights.size()];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() {
        control.push(rights);
    }
    sendmsg(socket, &[std::io::IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)
}

/// A TCP socket with unsent data: close(2) waits for the other end, which never reads, up to `time`.
pub(super) fn lingering(time: Duration) -> Result<(OwnedFd, TcpStream)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut socket = TcpStream::connect(listener.local_addr()?)?;
    let (other, _) = listener.accept()?;
    socket.set_nonblocking(true)?;
    while socket.write(&[0; 1 << 16]).is_ok() {}
    socket.set_nonblocking(false)?;
    set_socket_linger(&socket, Some(time))?;
    Ok((socket.into(), other))
}

fn blocking_close(path: &Path) -> Result<()> {
    let (socket, other) = lingering(Duration::from_secs(25))?;
    let peer = UnixStream::connect(path)?;
    let join = Message::Join { name: "hostile".into() }.encode();
    if send_with(&peer, &join, &[socket.as_fd(); 200]).is_err() {
        // The kernel refuses it: only the nonsense is left. The close would block here.
        (&peer).write_all(&[0xff; 64])?;
        std::mem::forget(socket);
    }
    thread::sleep(5 * PAUSE);
    // It stays unread: the other end lives as long as this process.
    std::mem::forget(other);
    Ok(())
}

fn shrink(path: &Path) -> Result<()> {
    let (mut socket, memory) = join(path)?;
    for fd in &memory {
        let _ = rustix::fs::ftruncate(fd, 0);
        let seals = rustix::fs::SealFlags::WRITE | rustix::fs::SealFlags::FUTURE_WRITE;
        let _ = rustix::fs::fcntl_add_seals(fd, seals);
        let _ = rustix::fs::fcntl_add_seals(fd, rustix::fs::SealFlags::FUTURE_WRITE);
    }
    // Otherwise it behaves, for a while.
    for _ in 0..20 {
        if let Message::Frame(frame) = read(&mut socket)? {
            let release = ReleaseToken { slot: frame.slot, sequence: frame.sequence };
            socket.write_all(&Message::Release(release).encode())?;
        }
    }
    Ok(())
}

fn zombies(path: &Path, until: Instant) {
    let mut kept = Vec::new();
    while Instant::now() < until {
        for kind in 0..3 {
            if kept.len() >= 60 {
                kept.remove(0);
            }
            match kind {
                // Nothing is sent.
                0 => kept.extend(UnixStream::connect(path)),
                // Ready, but it can't be written to any more.
                1 => {
                    if let Ok((socket, _)) = join(path) {
                        let _ = socket.shutdown(Shutdown::Read);
                        kept.push(socket);
                    }
                }
                // Ready, but it never reads.
                _ => kept.extend(join(path).map(|(socket, _)| socket)),
            }
            thread::sleep(PAUSE);
        }
    }
}

fn sequences(path: &Path) -> Result<()> {
    let (mut socket, _memory) = join(path)?;
    let Message::Frame(frame) = read(&mut socket)? else { return Ok(()) };
    for sequence in [u64::MAX, u64::MAX - 3, frame.sequence + 1] {
        let release = ReleaseToken { slot: frame.slot, sequence };
        socket.write_all(&Message::Release(release).encode())?;
    }
    while read(&mut socket).is_ok() {}
    Ok(())
}

fn file(path: &Path) -> Result<()> {
    let file = tempfile::tempfile()?;
    file.set_len(1 << 20)?;
    let peer = UnixStream::connect(path)?;
    // A payload's header, and enough of a body.
    let mut bytes = Message::Join { name: "x".repeat(120) }.encode();
    bytes[6..8].copy_from_slice(&(Kind::Memory as u16).to_le_bytes());
    bytes[12] = 1;
    if send_with(&peer, &bytes, &[file.as_fd()]).is_err() {
        (&peer).write_all(&bytes)?;
    }
    let mut rest = [0; 64];
    while (&peer).read(&mut rest)? > 0 {}
    Ok(())
}

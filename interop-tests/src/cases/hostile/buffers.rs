//! Group B over a socket: lies about a buffer.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

use anyhow::{Context, Result, bail, ensure};
use gpu_interop::fd::MemoryHandleType;
use gpu_interop::ipc::Received;
use gpu_interop::ipc::wire::Message;
use gpu_interop::payload::MemoryInfo;
use gpu_interop::{BufferPayload, Error, Uuid, ipc};

use crate::cases::descriptors::{self, is_open, leaves_nothing_open, memfd, number};
use crate::cases::hostile::{Corruption, DetectedBy, HostilePeer, RawMessage, pipe, seal, seals};
use crate::cases::support::importers::{Importer, Peer, View, check_aliases};
use crate::harness::{Case, TestGpu};

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for importer in Importer::ALL {
        for &(what, _, found) in LIES {
            // OpenGL and CUDA know nothing of Vulkan's memory types.
            if found == NO_SUCH_TYPE && importer != Importer::Vulkan {
                continue;
            }
            let name = format!("ipc/hostile/{}/{what}/21m", importer.name());
            let run = move |machine: &TestGpu| {
                let peer = importer.open(machine)?;
                leaves_nothing_open(|| meet(machine, peer, what, found))
            };
            cases.push(Case::new(name, run).needs(importer.needs()));
        }
    }
    cases.push(Case::new("ipc/hostile/vulkan/buffer/what_a_file_tells_stays_true/21n", file));
    cases
}

const NO_SUCH_TYPE: DetectedBy = DetectedBy::Importing("memory_type_index");

/// Lies about a buffer.
pub(crate) const LIES: &[Corruption] = &[
    ("buffer/a_size_beyond_the_allocation", beyond, DetectedBy::Receiving("offset")),
    ("buffer/an_offset_beyond_the_allocation", far, DetectedBy::Receiving("offset")),
    ("buffer/an_offset_that_overflows", overflow, DetectedBy::Receiving("offset")),
    ("buffer/no_size", no_size, DetectedBy::Receiving("desc.size")),
    ("buffer/an_unknown_usage", usage, DetectedBy::Receiving("body.usage")),
    ("buffer/an_allocation_beyond_the_file", allocation, DetectedBy::Length("payload.fd")),
    ("buffer/an_allocation_of_nothing", nothing, DetectedBy::Receiving("payload.allocation_size")),
    ("buffer/an_unknown_handle_type", handle_type, DetectedBy::Receiving("body.handle_type")),
    ("buffer/no_dma_buf", dma_buf, DetectedBy::Receiving("payload.fd")),
    ("buffer/no_such_memory_type", memory_type, NO_SUCH_TYPE),
    ("buffer/another_device_uuid", device, DetectedBy::Importing("device UUID")),
    ("buffer/another_driver_uuid", driver, DetectedBy::Importing("driver UUID")),
    ("buffer/a_pipe", |lie, _| told(lie, pipe()?), DetectedBy::Receiving("payload.fd")),
    ("buffer/a_socket", socket, DetectedBy::Receiving("payload.fd")),
    (
        "buffer/a_directory",
        |lie, _| told(lie, File::open("/")?),
        DetectedBy::Receiving("payload.fd"),
    ),
    ("buffer/dev_null", null, DetectedBy::Receiving("payload.fd")),
    ("buffer/a_program", program, DetectedBy::Receiving("payload.fd")),
    ("buffer/a_memfd_that_was_cut_off", cut_off, DetectedBy::Receiving("payload.fd")),
    ("buffer/a_memfd_sealed_against_writing", sealed, DetectedBy::Receiving("payload.fd")),
    ("buffer/a_memfd_for_reading", reading, DetectedBy::Receiving("payload.fd")),
    ("buffer/a_descriptor_that_was_closed", closed, DetectedBy::Ending("descriptors")),
    ("buffer/two_descriptors", two, DetectedBy::Ending("descriptors")),
];

fn told(message: Message, fd: impl Into<OwnedFd>) -> Result<RawMessage> {
    Ok(RawMessage::message(&message, fd))
}

/// The message with what `change` makes of the memory's description.
fn memory(mut lie: Message, change: impl FnOnce(&mut MemoryInfo)) -> Result<Message> {
    let Message::Buffer { memory, .. } = &mut lie else { bail!("no buffer") };
    change(memory);
    Ok(lie)
}

/// The message with what `change` makes of offset, size and allocation size.
fn numbers(mut lie: Message, change: impl FnOnce(&mut u64, &mut u64, u64)) -> Result<Message> {
    let Message::Buffer { memory, offset, desc } = &mut lie else { bail!("no buffer") };
    change(offset, &mut desc.size, memory.allocation_size);
    Ok(lie)
}

fn beyond(lie: Message, fd: OwnedFd) -> Result<RawMessage> {
    told(numbers(lie, |_, size, all| *size = all + 1)?, fd)
}

fn far(lie: Message, fd: OwnedFd) -> Result<RawMessage> {
    told(numbers(lie, |offset, _, all| *offset = all)?, fd)
}

fn overflow(lie: Message, fd: OwnedFd) -> Result<RawMessage> {
    told(numbers(lie, |offset, size, _| (*offset, *size) = (u64::MAX, u64::MAX))?, fd)
}

fn no_size(lie: Message, fd: OwnedFd) -> Result<RawMessage> {
    told(numbers(lie, |_, size, _| *size = 0)?, fd)
}

fn usage(lie: Message, fd: OwnedFd) -> Result<RawMessage> {
    Ok(RawMessage::message(&lie, fd).with_body(75, &[0x80]))
}

fn allocation(lie: Message, fd: OwnedFd) -> Result<RawMessage> {
    told(memory(lie, |info| info.allocation_size += 1 << 30)?, fd)
}

fn nothing(lie: Message, fd: OwnedFd) -> Result<RawMessage> {
    told(memory(lie, |info| info.allocation_size = 0)?, fd)
}

fn handle_type(lie: Message, fd: OwnedFd) -> Result<RawMessage> {
    Ok(RawMessage::message(&lie, fd).with_body(0, &[2]))
}

fn dma_buf(lie: Message, fd: OwnedFd) -> Result<RawMessage> {
    told(memory(lie, |info| info.handle_type = MemoryHandleType::DmaBuf)?, fd)
}

fn memory_type(lie: Message, fd: OwnedFd) -> Result<RawMessage> {
    told(memory(lie, |info| info.memory_type_index = Some(31))?, fd)
}

fn device(lie: Message, fd: OwnedFd) -> Result<RawMessage> {
    told(memory(lie, |info| info.identity.device = Uuid::from_bytes([7; 16]))?, fd)
}

fn driver(lie: Message, fd: OwnedFd) -> Result<RawMessage> {
    told(memory(lie, |info| info.identity.driver = Some(Uuid::from_bytes([7; 16])))?, fd)
}

fn socket(lie: Message, _: OwnedFd) -> Result<RawMessage> {
    told(lie, UnixStream::pair()?.0)
}

fn null(lie: Message, _: OwnedFd) -> Result<RawMessage> {
    told(lie, File::options().read(true).write(true).open("/dev/null")?)
}

/// Long enough, and not to be written.
fn program(lie: Message, _: OwnedFd) -> Result<RawMessage> {
    told(lie, File::open("/proc/self/exe")?)
}

/// As long as the allocation of `lie`, and then `change`d.
fn forged(lie: Message, change: impl FnOnce(File) -> Result<OwnedFd>) -> Result<RawMessage> {
    let Message::Buffer { memory, .. } = &lie else { bail!("no buffer") };
    let forged = memfd(usize::try_from(memory.allocation_size)?)?;
    let forged = change(forged)?;
    told(lie, forged)
}

fn cut_off(lie: Message, _: OwnedFd) -> Result<RawMessage> {
    forged(lie, |file| {
        file.set_len(file.metadata()?.len() - 1)?;
        Ok(file.into())
    })
}

fn sealed(lie: Message, _: OwnedFd) -> Result<RawMessage> {
    let Message::Buffer { memory, .. } = &lie else { bail!("no buffer") };
    // SAFETY: the name ends in a NUL; the result is checked.
    let raw = unsafe {
        libc::memfd_create(c"sealed".as_ptr(), libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING)
    };
    ensure!(raw >= 0, "memfd_create: {}", std::io::Error::last_os_error());
    // SAFETY: a new descriptor that nobody else owns.
    let file = unsafe { File::from_raw_fd(raw) };
    file.set_len(memory.allocation_size)?;
    seal(file.as_fd(), libc::F_SEAL_WRITE)?;
    told(lie, file)
}

fn reading(lie: Message, _: OwnedFd) -> Result<RawMessage> {
    forged(lie, |file| Ok(File::open(format!("/proc/self/fd/{}", file.as_raw_fd()))?.into()))
}

/// A number that is no descriptor any more can't be sent: so none arrives.
fn closed(lie: Message, _: OwnedFd) -> Result<RawMessage> {
    Ok(RawMessage { bytes: lie.encode(), descriptors: Vec::new() })
}

fn two(lie: Message, fd: OwnedFd) -> Result<RawMessage> {
    Ok(RawMessage { bytes: lie.encode(), descriptors: vec![fd.try_clone()?, fd] })
}

/// Meets the lie; the truth that follows is imported, and is the exporter's memory.
fn meet(machine: &TestGpu, peer: Peer<'_>, what: &str, found: DetectedBy) -> Result<()> {
    let (exported, truth) = descriptors::export(machine)?;
    // CUDA has no driver UUID to compare: the same GPU is all it can ask for.
    if found == DetectedBy::Importing("driver UUID") && matches!(peer, Peer::Cuda(_)) {
        return taken(peer, what, &truth);
    }
    let import = |received: Received| -> Result<Error> {
        let payload = received.into_buffer()?;
        let raw = number(&payload);
        let (payload, error) = peer.import_buffer(payload).err().context("imported")?.into_parts();
        ensure!(number(&payload) == raw && is_open(raw), "another descriptor came back");
        Ok(error)
    };
    HostilePeer::start(what, &truth)?.meet(found, import, |truth| {
        let mut exporter = View::Vulkan(machine.vulkan(), exported);
        check_aliases(&mut exporter, &mut peer.import_buffer(truth.into_buffer()?)?)
    })
}

/// What can't be found out is at least no harm.
fn taken(peer: Peer<'_>, what: &str, truth: &BufferPayload) -> Result<()> {
    let mut liar = HostilePeer::start(what, truth)?;
    peer.import_buffer(liar.receive()?.into_buffer()?)?;
    liar.end()
}

/// What is asked of a file once it is received stays so: nobody can shorten it any more. Memory that is
/// no file (a GPU's) tells nothing, and is not sealed.
fn file(machine: &TestGpu) -> Result<()> {
    let (_exported, payload) = descriptors::export(machine)?;
    let (one, other) = UnixStream::pair()?;
    ipc::send(&one, &payload)?;
    let received = ipc::receive_buffer(&other)?;
    let length = |fd: BorrowedFd<'_>| -> Result<Option<u64>> {
        let metadata = File::from(fd.try_clone_to_owned()?).metadata()?;
        Ok(metadata.is_file().then_some(metadata.len()))
    };
    let fd = received.memory().as_fd();
    ensure!(length(fd)?.is_some() != machine.is_hardware(), "a file on a CPU alone");
    let Some(length) = length(fd)? else { return Ok(()) };
    let promised = received.memory().info().allocation_size;
    ensure!(length >= promised, "{length} bytes, {promised} promised");
    let seals = seals(fd).context("no seals")?;
    ensure!(seals & libc::F_SEAL_SHRINK != 0, "seals {seals:#x}");
    let shortened = File::from(payload.memory().as_fd().try_clone_to_owned()?).set_len(promised);
    ensure!(length == promised || shortened.is_err(), "it was shortened");
    Ok(())
}

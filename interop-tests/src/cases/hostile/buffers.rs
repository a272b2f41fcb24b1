//! Hostile peers: corrupted buffers.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use anyhow::{Context, Result, bail, ensure};
use gpu_interop::fd::MemoryHandleType;
use gpu_interop::ipc::wire::Message;
use gpu_interop::payload::{MemoryInfo, Payload};
use gpu_interop::{Api, BufferPayload, Error, Uuid, ipc};
use rustix::fs::{SealFlags, fcntl_get_seals};

use crate::cases::hostile::peer::{
    self, Corruption, DetectedBy, HostilePeer, RawMessage, for_each_corruption, pipe,
};
use crate::cases::support::fds::{self, check_same_fd, memfd, number, sealed_memfd};
use crate::cases::support::views::{AnyContext, View, check_aliases};
use crate::harness::{Case, Role, TestGpu};

pub(in crate::cases) fn cases() -> Vec<Case> {
    // OpenGL and CUDA don't know Vulkan's memory types.
    let mut cases: Vec<Case> = for_each_corruption(CORRUPTIONS, "21m", meet)
        .into_iter()
        .filter(|(importer, detected_by, _)| {
            *detected_by != NO_SUCH_TYPE || importer.api() == Api::Vulkan
        })
        .map(|(.., case)| case)
        .collect();
    cases.push(Case::new("ipc/hostile/vulkan/buffer/a_file_can_not_be_shortened/21n", file));
    cases
}

const CORRUPTS: &str = "corrupts a buffer";

/// The child of these cases.
pub(in crate::cases) fn roles() -> Vec<Role> {
    vec![(CORRUPTS, || peer::corrupt(CORRUPTIONS))]
}

const NO_SUCH_TYPE: DetectedBy = DetectedBy::Importing("memory_type_index");

/// Corruptions of a buffer.
const CORRUPTIONS: &[Corruption] = &[
    ("buffer/a_size_beyond_the_allocation", beyond, DetectedBy::Receiving("offset")),
    ("buffer/an_offset_beyond_the_allocation", far, DetectedBy::Receiving("offset")),
    ("buffer/an_offset_that_overflows", overflow, DetectedBy::Receiving("offset")),
    ("buffer/no_size", no_size, DetectedBy::Receiving("desc.size")),
    ("buffer/no_usage", usage, DetectedBy::Receiving("desc.usage")),
    ("buffer/an_allocation_beyond_the_file", allocation, DetectedBy::Length("payload.fd")),
    ("buffer/an_allocation_of_size_0", nothing, DetectedBy::Receiving("payload.allocation_size")),
    ("buffer/an_unknown_handle_type", handle_type, DetectedBy::Receiving("body.handle_type")),
    ("buffer/no_dma_buf", dma_buf, DetectedBy::Receiving("payload.fd")),
    ("buffer/no_such_memory_type", memory_type, NO_SUCH_TYPE),
    ("buffer/another_device_uuid", device, DetectedBy::Importing("device UUID")),
    ("buffer/another_driver_uuid", driver, DetectedBy::Importing("driver UUID")),
    ("buffer/a_pipe", |message, _| with_fd(message, pipe()?), DetectedBy::Receiving("payload.fd")),
    ("buffer/a_socket", socket, DetectedBy::Receiving("payload.fd")),
    (
        "buffer/a_directory",
        |message, _| with_fd(message, File::open("/")?),
        DetectedBy::Receiving("payload.fd"),
    ),
    ("buffer/dev_null", null, DetectedBy::Receiving("payload.fd")),
    ("buffer/a_program", program, DetectedBy::Receiving("payload.fd")),
    ("buffer/a_truncated_memfd", cut_off, DetectedBy::Receiving("payload.fd")),
    ("buffer/a_memfd_sealed_against_writing", sealed, DetectedBy::Receiving("payload.fd")),
    ("buffer/a_memfd_for_reading", reading, DetectedBy::Receiving("payload.fd")),
    ("buffer/a_descriptor_that_was_closed", closed, DetectedBy::Ending("descriptors")),
    ("buffer/two_descriptors", two, DetectedBy::Ending("descriptors")),
];

fn with_fd(message: Message, fd: impl Into<OwnedFd>) -> Result<RawMessage> {
    Ok(RawMessage::new(&message, fd))
}

/// Changes the memory's description.
fn memory(mut message: Message, change: impl FnOnce(&mut MemoryInfo)) -> Result<Message> {
    let Message::Buffer { memory, .. } = &mut message else { bail!("not a buffer") };
    change(memory);
    Ok(message)
}

/// Changes offset and size, given the allocation size.
fn numbers(mut message: Message, change: impl FnOnce(&mut u64, &mut u64, u64)) -> Result<Message> {
    let Message::Buffer { memory, offset, desc } = &mut message else { bail!("not a buffer") };
    change(offset, &mut desc.size, memory.allocation_size);
    Ok(message)
}

fn beyond(message: Message, fd: OwnedFd) -> Result<RawMessage> {
    with_fd(numbers(message, |_, size, all| *size = all + 1)?, fd)
}

fn far(message: Message, fd: OwnedFd) -> Result<RawMessage> {
    with_fd(numbers(message, |offset, _, all| *offset = all)?, fd)
}

fn overflow(message: Message, fd: OwnedFd) -> Result<RawMessage> {
    with_fd(numbers(message, |offset, size, _| (*offset, *size) = (u64::MAX, u64::MAX))?, fd)
}

fn no_size(message: Message, fd: OwnedFd) -> Result<RawMessage> {
    with_fd(numbers(message, |_, size, _| *size = 0)?, fd)
}

fn usage(message: Message, fd: OwnedFd) -> Result<RawMessage> {
    Ok(RawMessage::new(&message, fd).with_body(72, &[0; 4]))
}

fn allocation(message: Message, fd: OwnedFd) -> Result<RawMessage> {
    with_fd(memory(message, |info| info.allocation_size += 1 << 30)?, fd)
}

fn nothing(message: Message, fd: OwnedFd) -> Result<RawMessage> {
    with_fd(memory(message, |info| info.allocation_size = 0)?, fd)
}

fn handle_type(message: Message, fd: OwnedFd) -> Result<RawMessage> {
    Ok(RawMessage::new(&message, fd).with_body(0, &[2]))
}

fn dma_buf(message: Message, fd: OwnedFd) -> Result<RawMessage> {
    with_fd(memory(message, |info| info.handle_type = MemoryHandleType::DmaBuf)?, fd)
}

fn memory_type(message: Message, fd: OwnedFd) -> Result<RawMessage> {
    with_fd(memory(message, |info| info.memory_type_index = Some(31))?, fd)
}

fn device(message: Message, fd: OwnedFd) -> Result<RawMessage> {
    with_fd(memory(message, |info| info.identity.device = Uuid::from_bytes([7; 16]))?, fd)
}

fn driver(message: Message, fd: OwnedFd) -> Result<RawMessage> {
    with_fd(memory(message, |info| info.identity.driver = Some(Uuid::from_bytes([7; 16])))?, fd)
}

fn socket(message: Message, _: OwnedFd) -> Result<RawMessage> {
    with_fd(message, UnixStream::pair()?.0)
}

fn null(message: Message, _: OwnedFd) -> Result<RawMessage> {
    with_fd(message, File::options().read(true).write(true).open("/dev/null")?)
}

/// Long enough, but read-only.
fn program(message: Message, _: OwnedFd) -> Result<RawMessage> {
    with_fd(message, File::open("/proc/self/exe")?)
}

/// A file as long as the allocation, then changed by `change`.
fn forged(message: Message, change: impl FnOnce(File) -> Result<OwnedFd>) -> Result<RawMessage> {
    let Message::Buffer { memory, .. } = &message else { bail!("not a buffer") };
    let forged = memfd(usize::try_from(memory.allocation_size)?)?;
    let forged = change(forged)?;
    with_fd(message, forged)
}

fn cut_off(message: Message, _: OwnedFd) -> Result<RawMessage> {
    forged(message, |file| {
        file.set_len(file.metadata()?.len() - 1)?;
        Ok(file.into())
    })
}

fn sealed(message: Message, _: OwnedFd) -> Result<RawMessage> {
    let Message::Buffer { memory, .. } = &message else { bail!("not a buffer") };
    let file = sealed_memfd(memory.allocation_size, SealFlags::WRITE)?;
    with_fd(message, file)
}

fn reading(message: Message, _: OwnedFd) -> Result<RawMessage> {
    forged(message, |file| Ok(File::open(format!("/proc/self/fd/{}", file.as_raw_fd()))?.into()))
}

/// A closed descriptor can't be sent, so none arrives.
fn closed(message: Message, _: OwnedFd) -> Result<RawMessage> {
    Ok(RawMessage { bytes: message.encode(), descriptors: Vec::new() })
}

fn two(message: Message, fd: OwnedFd) -> Result<RawMessage> {
    Ok(RawMessage { bytes: message.encode(), descriptors: vec![fd.try_clone()?, fd] })
}

/// Receives the corrupted buffer; the valid one that follows is imported and aliases the exporter's.
fn meet(
    test_gpu: &TestGpu,
    importer: &dyn AnyContext,
    what: &str,
    detected_by: DetectedBy,
) -> Result<()> {
    let (exported, valid) = fds::export(test_gpu)?;
    // CUDA has no driver UUID: it can only compare the GPU.
    if detected_by == DetectedBy::Importing("driver UUID") && importer.api() == Api::Cuda {
        return accepted(importer, what, &valid);
    }
    let import = |received: Payload| -> Result<Error> {
        let payload = received.into_buffer()?;
        let raw = number(&payload);
        let refused = importer.import_buffer(payload).err().context("it was imported")?;
        let (payload, error) = refused.into_parts();
        check_same_fd(&payload, raw)?;
        Ok(error)
    };
    HostilePeer::start(CORRUPTS, what, valid)?.meet(detected_by, import, |valid| {
        let mut exporter = View::new(test_gpu.vulkan(), exported);
        check_aliases(&mut exporter, &mut importer.import_buffer(valid.into_buffer()?)?)
    })
}

/// A corruption that the importer can't detect is harmless.
fn accepted(importer: &dyn AnyContext, what: &str, valid: &BufferPayload) -> Result<()> {
    let mut hostile = HostilePeer::start(CORRUPTS, what, valid.try_clone()?)?;
    importer.import_buffer(hostile.receive()?.into_buffer()?)?;
    hostile.end()
}

/// A file that was received and checked can't be shortened any more. GPU memory is not a file and can't be
/// sealed.
fn file(test_gpu: &TestGpu) -> Result<()> {
    let (_exported, payload) = fds::export(test_gpu)?;
    let (one, other) = UnixStream::pair()?;
    ipc::send(&one, &payload.try_clone()?.into())?;
    let received = ipc::receive(&other)?.into_buffer()?;
    let length = |fd: BorrowedFd<'_>| -> Result<Option<u64>> {
        let metadata = File::from(fd.try_clone_to_owned()?).metadata()?;
        Ok(metadata.is_file().then_some(metadata.len()))
    };
    let fd = received.memory().as_fd();
    ensure!(length(fd)?.is_some() != test_gpu.is_hardware(), "memory is a file on a CPU only");
    let Some(length) = length(fd)? else {
        ensure!(fcntl_get_seals(fd).is_err(), "a GPU's memory has seals");
        return Ok(());
    };
    let stated = received.memory().info().allocation_size;
    ensure!(length >= stated, "{length} bytes, {stated} stated");
    let seals = fcntl_get_seals(fd)?;
    ensure!(seals.contains(SealFlags::SHRINK), "{seals:?}");
    let shortened = File::from(payload.memory().as_fd().try_clone_to_owned()?).set_len(stated);
    ensure!(length == stated || shortened.is_err(), "it was shortened");
    Ok(())
}

//! Hostile peers: corrupted semaphores.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use anyhow::{Context, Result, bail, ensure};
use gpu_interop::error::Missing;
use gpu_interop::fd::SemaphoreHandleType;
use gpu_interop::ipc::wire::Message;
use gpu_interop::payload::{Payload, SemaphoreInfo};
use gpu_interop::{Api, Error, SemaphoreKind, SemaphorePayload, Uuid};

use crate::cases::hostile::peer::{
    self, Corruption, DetectedBy, HostilePeer, RawMessage, for_each_corruption, pipe,
};
use crate::cases::support::fds::{check_same_fd, event_counter, memfd};
use crate::cases::support::views::AnyContext;
use crate::harness::{Case, Role, TestGpu};

pub(in crate::cases) fn cases() -> Vec<Case> {
    for_each_corruption(CORRUPTIONS, "21p", meet).into_iter().map(|(.., case)| case).collect()
}

const CORRUPTS: &str = "corrupts a semaphore";

/// The child of these cases.
pub(in crate::cases) fn roles() -> Vec<Role> {
    vec![(CORRUPTS, || peer::corrupt(CORRUPTIONS))]
}

/// Corruptions of a semaphore.
const CORRUPTIONS: &[Corruption] = &[
    ("semaphore/an_unknown_kind", kind, DetectedBy::Receiving("body.semaphore_kind")),
    ("semaphore/an_unknown_handle_type", handle_type, DetectedBy::Receiving("body.handle_type")),
    ("semaphore/a_timeline_as_sync_fd", sync_fd, DetectedBy::Receiving("payload.kind")),
    ("semaphore/another_device_uuid", device, DetectedBy::Importing("device UUID")),
    ("semaphore/another_driver_uuid", driver, DetectedBy::Importing("driver UUID")),
    (
        "semaphore/a_pipe",
        |message, _| Ok(RawMessage::new(&message, pipe()?)),
        DetectedBy::Receiving("payload.fd"),
    ),
    ("semaphore/a_directory", directory, DetectedBy::Receiving("payload.fd")),
    ("semaphore/memory", memory, DetectedBy::Receiving("payload.fd")),
    ("semaphore/a_descriptor_that_was_closed", closed, DetectedBy::Ending("descriptors")),
];

/// Changes the semaphore's description.
fn semaphore(mut message: Message, change: impl FnOnce(&mut SemaphoreInfo)) -> Result<Message> {
    let Message::Semaphore(info) = &mut message else { bail!("not a semaphore") };
    change(info);
    Ok(message)
}

fn kind(message: Message, fd: OwnedFd) -> Result<RawMessage> {
    Ok(RawMessage::new(&message, fd).with_body(4, &[2]))
}

fn handle_type(message: Message, fd: OwnedFd) -> Result<RawMessage> {
    Ok(RawMessage::new(&message, fd).with_body(0, &[2]))
}

fn sync_fd(message: Message, fd: OwnedFd) -> Result<RawMessage> {
    let sync_fd = |info: &mut SemaphoreInfo| info.handle_type = SemaphoreHandleType::SyncFd;
    Ok(RawMessage::new(&semaphore(message, sync_fd)?, fd))
}

fn device(message: Message, fd: OwnedFd) -> Result<RawMessage> {
    let other = |info: &mut SemaphoreInfo| info.identity.device = Uuid::from_bytes([7; 16]);
    Ok(RawMessage::new(&semaphore(message, other)?, fd))
}

fn driver(message: Message, fd: OwnedFd) -> Result<RawMessage> {
    let other = |info: &mut SemaphoreInfo| info.identity.driver = Some(Uuid::from_bytes([7; 16]));
    Ok(RawMessage::new(&semaphore(message, other)?, fd))
}

fn directory(message: Message, _: OwnedFd) -> Result<RawMessage> {
    Ok(RawMessage::new(&message, File::open("/")?))
}

/// A CPU driver's memory is a memfd.
fn memory(message: Message, _: OwnedFd) -> Result<RawMessage> {
    Ok(RawMessage::new(&message, memfd(4096)?))
}

fn closed(message: Message, _: OwnedFd) -> Result<RawMessage> {
    Ok(RawMessage { bytes: message.encode(), descriptors: Vec::new() })
}

/// A timeline semaphore of the suite's GPU; if it can't export any, a descriptor that looks like one.
fn valid(test_gpu: &TestGpu) -> Result<SemaphorePayload> {
    let vulkan = test_gpu.vulkan();
    let kind = SemaphoreKind::Timeline;
    match vulkan.endpoint.create_semaphore(kind) {
        Ok(semaphore) => Ok(semaphore.export()?),
        Err(Error::Missing(_)) => {
            let (handle_type, identity) =
                (SemaphoreHandleType::OpaqueFd, vulkan.vulkan.identity().clone());
            Ok(SemaphorePayload::new(
                event_counter()?,
                SemaphoreInfo { handle_type, kind, identity },
            )?)
        }
        Err(error) => Err(error.into()),
    }
}

/// Imports a semaphore and drops it again; the error if it is refused.
fn import(importer: &dyn AnyContext, payload: Payload) -> Result<Option<Error>> {
    let payload = payload.into_semaphore()?;
    let raw = payload.as_fd().as_raw_fd();
    let Err(refused) = importer.import_semaphore(payload) else { return Ok(None) };
    let (payload, error) = refused.into_parts();
    check_same_fd(payload, raw)?;
    Ok(Some(error))
}

/// Receives the corrupted semaphore; the valid one that follows is imported, if the API has external
/// semaphores at all.
fn meet(
    test_gpu: &TestGpu,
    importer: &dyn AnyContext,
    what: &str,
    detected_by: DetectedBy,
) -> Result<()> {
    let valid = valid(test_gpu)?;
    // CUDA has no driver UUID: it can only compare the GPU.
    if detected_by == DetectedBy::Importing("driver UUID") && importer.api() == Api::Cuda {
        let mut hostile = HostilePeer::start(CORRUPTS, what, valid)?;
        ensure!(import(importer, hostile.receive()?)?.is_none(), "it was refused");
        return hostile.end();
    }
    HostilePeer::start(CORRUPTS, what, valid)?.meet(
        detected_by,
        |corrupted| import(importer, corrupted)?.context("it was imported"),
        |valid| match import(importer, valid)? {
            None | Some(Error::Missing(Missing { .. })) => Ok(()),
            Some(error) => Err(error.into()),
        },
    )
}

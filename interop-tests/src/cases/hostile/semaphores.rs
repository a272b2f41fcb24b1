//! Group B over a socket: lies about a semaphore.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use anyhow::{Context, Result, bail, ensure};
use gpu_interop::error::Missing;
use gpu_interop::fd::SemaphoreHandleType;
use gpu_interop::ipc::Received;
use gpu_interop::ipc::wire::Message;
use gpu_interop::payload::SemaphoreInfo;
use gpu_interop::{Error, SemaphoreKind, SemaphorePayload, Uuid};

use crate::cases::descriptors::{eventfd, is_open, leaves_nothing_open, memfd};
use crate::cases::hostile::{Corruption, DetectedBy, HostilePeer, RawMessage, pipe};
use crate::cases::support::importers::{Importer, Peer};
use crate::harness::{Case, TestGpu};

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for importer in Importer::ALL {
        for &(what, _, found) in LIES {
            let name = format!("ipc/hostile/{}/{what}/21p", importer.name());
            let run = move |machine: &TestGpu| {
                let peer = importer.open(machine)?;
                leaves_nothing_open(|| meet(machine, peer, what, found))
            };
            cases.push(Case::new(name, run).needs(importer.needs()));
        }
    }
    cases
}

/// Lies about a semaphore.
pub(crate) const LIES: &[Corruption] = &[
    ("semaphore/an_unknown_kind", kind, DetectedBy::Receiving("body.semaphore_kind")),
    ("semaphore/an_unknown_handle_type", handle_type, DetectedBy::Receiving("body.handle_type")),
    ("semaphore/a_timeline_as_sync_fd", sync_fd, DetectedBy::Receiving("payload.kind")),
    ("semaphore/another_device_uuid", device, DetectedBy::Importing("device UUID")),
    ("semaphore/another_driver_uuid", driver, DetectedBy::Importing("driver UUID")),
    (
        "semaphore/a_pipe",
        |lie, _| Ok(RawMessage::message(&lie, pipe()?)),
        DetectedBy::Receiving("payload.fd"),
    ),
    ("semaphore/a_directory", directory, DetectedBy::Receiving("payload.fd")),
    ("semaphore/memory", memory, DetectedBy::Receiving("payload.fd")),
    ("semaphore/a_descriptor_that_was_closed", closed, DetectedBy::Ending("descriptors")),
];

/// The message with what `change` makes of the semaphore's description.
fn semaphore(mut lie: Message, change: impl FnOnce(&mut SemaphoreInfo)) -> Result<Message> {
    let Message::Semaphore(info) = &mut lie else { bail!("no semaphore") };
    change(info);
    Ok(lie)
}

fn kind(lie: Message, fd: OwnedFd) -> Result<RawMessage> {
    Ok(RawMessage::message(&lie, fd).with_body(4, &[2]))
}

fn handle_type(lie: Message, fd: OwnedFd) -> Result<RawMessage> {
    Ok(RawMessage::message(&lie, fd).with_body(0, &[2]))
}

fn sync_fd(lie: Message, fd: OwnedFd) -> Result<RawMessage> {
    let sync_fd = |info: &mut SemaphoreInfo| info.handle_type = SemaphoreHandleType::SyncFd;
    Ok(RawMessage::message(&semaphore(lie, sync_fd)?, fd))
}

fn device(lie: Message, fd: OwnedFd) -> Result<RawMessage> {
    let other = |info: &mut SemaphoreInfo| info.identity.device = Uuid::from_bytes([7; 16]);
    Ok(RawMessage::message(&semaphore(lie, other)?, fd))
}

fn driver(lie: Message, fd: OwnedFd) -> Result<RawMessage> {
    let other = |info: &mut SemaphoreInfo| info.identity.driver = Some(Uuid::from_bytes([7; 16]));
    Ok(RawMessage::message(&semaphore(lie, other)?, fd))
}

fn directory(lie: Message, _: OwnedFd) -> Result<RawMessage> {
    Ok(RawMessage::message(&lie, File::open("/")?))
}

/// What memory on a CPU is.
fn memory(lie: Message, _: OwnedFd) -> Result<RawMessage> {
    Ok(RawMessage::message(&lie, memfd(4096)?))
}

fn closed(lie: Message, _: OwnedFd) -> Result<RawMessage> {
    Ok(RawMessage { bytes: lie.encode(), descriptors: Vec::new() })
}

/// A timeline semaphore of the machine's own; where it has none to share, one that looks like it.
fn truth(machine: &TestGpu) -> Result<SemaphorePayload> {
    let vulkan = machine.vulkan();
    let kind = SemaphoreKind::Timeline;
    match vulkan.endpoint.create_semaphore(kind) {
        Ok(semaphore) => Ok(semaphore.export()?),
        Err(Error::Missing(_)) => {
            let (handle_type, identity) =
                (SemaphoreHandleType::OpaqueFd, vulkan.vulkan.identity().clone());
            Ok(SemaphorePayload::new(eventfd()?, SemaphoreInfo { handle_type, kind, identity })?)
        }
        Err(error) => Err(error.into()),
    }
}

/// What imports semaphores, and drops them again.
fn import(peer: Peer<'_>, payload: Received) -> Result<Option<Error>> {
    let payload = payload.into_semaphore()?;
    let raw = payload.as_fd().as_raw_fd();
    let Err(refused) = peer.import_semaphore(payload) else { return Ok(None) };
    let (payload, error) = refused.into_parts();
    ensure!(payload.as_fd().as_raw_fd() == raw && is_open(raw), "another descriptor came back");
    Ok(Some(error))
}

/// Meets the lie; the truth that follows is imported, where the API has semaphores at all.
fn meet(machine: &TestGpu, peer: Peer<'_>, what: &str, found: DetectedBy) -> Result<()> {
    let truth = truth(machine)?;
    // CUDA has no driver UUID to compare: the same GPU is all it can ask for.
    let nobody_knows =
        found == DetectedBy::Importing("driver UUID") && matches!(peer, Peer::Cuda(_));
    if nobody_knows {
        let mut liar = HostilePeer::start(what, &truth)?;
        ensure!(import(peer, liar.receive()?)?.is_none(), "it was refused");
        return liar.end();
    }
    HostilePeer::start(what, &truth)?.meet(
        found,
        |lie| import(peer, lie)?.context("it was imported"),
        |truth| match import(peer, truth)? {
            None | Some(Error::Missing(Missing { .. })) => Ok(()),
            Some(error) => Err(error.into()),
        },
    )
}

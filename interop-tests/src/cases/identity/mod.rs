//! Group A: which GPU and driver each API is on, and that a foreign payload is refused.

pub(crate) mod raw;

use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::os::fd::{AsFd, AsRawFd};

use anyhow::{Context, Result, bail, ensure};
use gpu_interop::error::Mismatch;
use gpu_interop::fd::SemaphoreHandleType;
use gpu_interop::headless::{Cuda, Gl, GpuSelector, Vulkan};
use gpu_interop::payload::{MemoryInfo, SemaphoreInfo};
use gpu_interop::{
    BufferPayload, Error, Identity, MemoryPayload, SemaphoreKind, SemaphorePayload, Uuid, cuda,
};

use crate::cases::descriptors::{self, number};
use crate::cases::identity::raw::{gl_uuids, vulkan_uuids};
use crate::cases::support::importers::{Peer, View, check_aliases, for_each_importer};
use crate::harness::{Case, Need, TestGpu};

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = vec![
        Case::new("vulkan→gl/identity/every_uuid_is_vulkans/1", gl_is_vulkan).needs(&[Need::Gl]),
        Case::new("vulkan→cuda/identity/the_uuid_is_vulkans/2", cuda_is_vulkan)
            .needs(&[Need::Cuda]),
        Case::new("vulkan→cuda/identity/opened_by_uuid/2a", cuda_by_uuid).needs(&[Need::Cuda]),
        Case::new("vulkan→gl/identity/opened_by_uuid/2b", gl_by_uuid).needs(&[Need::Gl]),
        Case::new("vulkan/identity/opened_by_uuid/2c", vulkan_by_uuid),
    ];
    cases.extend(for_each_importer("memory/foreign_uuid_is_refused/3", foreign_memory));
    cases.extend(for_each_importer("buffer/foreign_uuid_is_refused/3a", foreign_buffer));
    cases.extend(for_each_importer("semaphore/foreign_uuid_is_refused/3b", foreign_semaphore));
    cases
}

/// All 16 bytes of each device UUID that OpenGL tells, by every index, are those of a GPU that Vulkan
/// sees, with the same driver UUID; and one of them is the GPU that was asked for.
fn gl_is_vulkan(machine: &TestGpu) -> Result<()> {
    let seen = vulkan_uuids(machine.vulkan())?;
    let (devices, driver) = gl_uuids(machine.gl()?)?;
    for (index, device) in devices.iter().enumerate() {
        let same = seen.contains(&(*device, driver));
        ensure!(same, "index {index}: {device} of driver {driver}, but Vulkan sees {seen:?}");
    }
    let own = machine.vulkan().vulkan.identity();
    ensure!(devices.contains(&own.device), "none of {devices:?} is {}", own.device);
    ensure!(own.device.as_bytes() != &[0; 16], "the UUID is nothing but zeros");
    // The library tells what OpenGL tells.
    let told = machine.gl()?.endpoint.identities();
    let told: Vec<_> = told.iter().map(|identity| (identity.device, identity.driver)).collect();
    let asked: Vec<_> = devices.iter().map(|&device| (device, Some(driver))).collect();
    ensure!(told == asked, "the library tells {told:?}, OpenGL {asked:?}");
    Ok(())
}

/// As CUDA itself tells it, without the library.
fn cuda_is_vulkan(machine: &TestGpu) -> Result<()> {
    let gpu = machine.cuda()?;
    let bytes = gpu.cuda.context().uuid()?.bytes.map(|byte| byte.to_ne_bytes()[0]);
    let (asked, seen) = (Uuid::from_bytes(bytes), vulkan_uuids(machine.vulkan())?);
    ensure!(seen.iter().any(|(device, _)| *device == asked), "{asked} is none of {seen:?}");
    let own = machine.vulkan().vulkan.identity();
    ensure!(own.device == asked, "Vulkan is on {}, CUDA on {asked}", own.device);
    let told = &gpu.endpoint.identities()[0];
    ensure!(told.device == asked && told.driver.is_none(), "the library tells {told:?}");
    Ok(())
}

/// A UUID that no GPU has.
fn nobody() -> Uuid {
    Uuid::from_bytes(*b"no GPU has this.")
}

/// The error of an opening by [`nobody`]'s UUID says whose it isn't, and which there are.
fn check_nobody(error: &Error, own: &Identity) -> Result<()> {
    let Error::Missing(missing) = error else { bail!("{error:?}") };
    let text = missing.to_string();
    ensure!(text.contains(&nobody().to_string()), "does not say what was wanted: {text}");
    ensure!(text.contains(&own.device.to_string()), "does not say what there is: {text}");
    Ok(())
}

fn cuda_by_uuid(machine: &TestGpu) -> Result<()> {
    let own = machine.vulkan().vulkan.identity();
    let opened = Cuda::open(&GpuSelector::Uuid(own.device))?;
    ensure!(opened.identity().device == own.device, "{:?}", opened.identity());
    let devices = cuda::devices()?;
    let same = devices.iter().find(|device| device.identity.device == own.device);
    let ordinal = same.context("cuda::devices lists the GPU")?.ordinal;
    ensure!(opened.context().ordinal() == ordinal, "opened {}", opened.context().ordinal());
    let by_ordinal = Vulkan::open(&GpuSelector::CudaOrdinal(ordinal), &TestGpu::options())?;
    ensure!(by_ordinal.identity().device == own.device, "{:?}", by_ordinal.identity());
    check_nobody(&Cuda::open(&GpuSelector::Uuid(nobody())).err().context("opened")?, own)
}

fn gl_by_uuid(machine: &TestGpu) -> Result<()> {
    let own = machine.vulkan().vulkan.identity();
    let opened = Gl::open(&GpuSelector::Uuid(own.device))?;
    let told = opened.identities();
    ensure!(told.iter().any(|identity| identity.device == own.device), "{told:?}");
    drop(opened);
    check_nobody(&Gl::open(&GpuSelector::Uuid(nobody())).err().context("opened")?, own)
}

fn vulkan_by_uuid(machine: &TestGpu) -> Result<()> {
    let own = machine.vulkan().vulkan.identity();
    let opened = Vulkan::open(&GpuSelector::Uuid(own.device), &TestGpu::options())?;
    ensure!(opened.identity() == own, "{:?}", opened.identity());
    let refused = Vulkan::open(&GpuSelector::Uuid(nobody()), &TestGpu::options());
    check_nobody(&refused.err().context("opened")?, own)
}

/// Identities that differ from `own` in one byte: of the device UUID and, where the importer knows its
/// driver's, of that one too.
fn foreign(own: &Identity, importer: &[Identity]) -> Vec<Identity> {
    let flip = |uuid: Uuid, at: usize| {
        let mut bytes = *uuid.as_bytes();
        bytes[at] ^= 1;
        Uuid::from_bytes(bytes)
    };
    let device = |at| Identity { device: flip(own.device, at), ..own.clone() };
    let mut all: Vec<_> = (0..16).map(device).collect();
    if importer.iter().all(|identity| identity.driver.is_some()) {
        let driver = |at| Identity { driver: own.driver.map(|d| flip(d, at)), ..own.clone() };
        all.extend((0..16).map(driver));
    }
    all
}

/// The error names both values, and says what would help.
fn check_mismatch(error: &Error, payload: &Identity, importer: &[Identity]) -> Result<()> {
    let Error::Mismatch(Mismatch { field, expected, found, help }) = error else {
        bail!("not refused for its identity: {error:?}");
    };
    let own = &importer[0];
    let (theirs, ours) = match *field {
        "device UUID" => (Some(payload.device), Some(own.device)),
        "driver UUID" => (payload.driver, own.driver),
        other => bail!("what is {other}?"),
    };
    let (theirs, ours) = (theirs.context("no UUID")?, ours.context("no UUID")?);
    ensure!(expected.contains(&theirs.to_string()), "the payload's {theirs} is not in {error}");
    ensure!(found.contains(&ours.to_string()), "the importer's {ours} is not in {error}");
    ensure!(help.is_some(), "no word of what would help: {error}");
    Ok(())
}

/// Refused with both values, before anybody has looked at the descriptor; it comes back as it was, and
/// is good for an import.
fn foreign_memory(machine: &TestGpu, peer: Peer<'_>) -> Result<()> {
    let (exported, payload) = descriptors::export(machine)?;
    let (fd, info) = payload.into_parts().0.into_parts();
    // Drivers that read from a file begin with a seek.
    let mut fd = File::from(fd);
    let at = fd.seek(SeekFrom::Start(7)).ok();
    let mut payload = MemoryPayload::new(fd.into(), info.clone())?;
    let raw = payload.as_fd().as_raw_fd();
    for identity in foreign(&info.identity, peer.identities()) {
        let (fd, info) = payload.into_parts();
        payload = MemoryPayload::new(fd, MemoryInfo { identity, ..info })?;
        let refused = peer.import_memory(payload).err().context("it was imported")?;
        let error;
        (payload, error) = refused.into_parts();
        check_mismatch(&error, &payload.info().identity, peer.identities())?;
        ensure!(payload.as_fd().as_raw_fd() == raw, "another descriptor came back");
    }
    let mut fd = File::from(payload.into_parts().0);
    ensure!(fd.stream_position().ok() == at, "somebody has read from the descriptor");
    let buffer = BufferPayload::new(MemoryPayload::new(fd.into(), info)?, 0, descriptors::desc())?;
    check_aliases(&mut View::Vulkan(machine.vulkan(), exported), &mut peer.import_buffer(buffer)?)
}

/// As [`foreign_memory`], and around what is no memory at all: the identity comes first.
fn foreign_buffer(machine: &TestGpu, peer: Peer<'_>) -> Result<()> {
    let (_exported, payload) = descriptors::export(machine)?;
    let own = payload.memory().info().identity.clone();
    for identity in foreign(&own, peer.identities()) {
        for fd in [payload.memory().as_fd().try_clone_to_owned()?, File::open("/dev/null")?.into()]
        {
            let info = MemoryInfo { identity: identity.clone(), ..payload.memory().info().clone() };
            let foreign = BufferPayload::new(MemoryPayload::new(fd, info)?, 0, *payload.desc())?;
            let raw = number(&foreign);
            let refused = peer.import_buffer(foreign).err().context("it was imported")?;
            check_mismatch(refused.error(), &identity, peer.identities())?;
            ensure!(number(&refused.into_payload()) == raw, "another descriptor came back");
        }
    }
    Ok(())
}

/// A semaphore's identity is looked at before its descriptor, and before the API is asked whether it
/// can do semaphores at all.
fn foreign_semaphore(machine: &TestGpu, peer: Peer<'_>) -> Result<()> {
    let own = machine.vulkan().vulkan.identity();
    for identity in foreign(own, peer.identities()) {
        for kind in [SemaphoreKind::Binary, SemaphoreKind::Timeline] {
            let handle_type = SemaphoreHandleType::OpaqueFd;
            let info = SemaphoreInfo { handle_type, kind, identity: identity.clone() };
            let payload = SemaphorePayload::new(File::open("/dev/null")?.into(), info)?;
            let raw = payload.as_fd().as_raw_fd();
            let refused = peer.import_semaphore(payload).err().context("it was imported")?;
            check_mismatch(refused.error(), &identity, peer.identities())?;
            let back = refused.into_payload().as_fd().as_raw_fd();
            ensure!(back == raw, "another descriptor came back");
        }
    }
    Ok(())
}

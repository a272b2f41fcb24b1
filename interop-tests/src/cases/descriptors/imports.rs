//! Group B: descriptors that an import consumes.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

use anyhow::{Result, ensure};
use gpu_interop::SemaphoreKind;

use crate::cases::descriptors::{
    self, Bystanders, closes_nobody_elses_file, is_open, leave_nothing_open, leaves_nothing_open,
    number, with_fd,
};
use crate::cases::support::importers::{
    Peer, Semaphore, View, check_aliases, check_signals, for_each_importer,
    for_each_importer_in_rows, for_each_semaphore,
};
use crate::harness::{Case, TestGpu};

/// A semaphore is imported so often and no more: NVIDIA's driver (580.159, OpenGL) refuses the 253rd
/// import of one semaphore, whatever became of the others.
const IMPORTS_OF_ONE_SEMAPHORE: u32 = 128;

pub(crate) fn cases() -> Vec<Case> {
    [
        for_each_importer_in_rows(
            "buffer/a_success_consumes_the_descriptor",
            ["10", "11", "12"],
            consumed_buffer,
        ),
        for_each_semaphore("a_success_consumes_the_descriptor/10a", consumed_semaphore),
        for_each_importer_in_rows(
            "buffer/a_success_closes_nobody_elses_file",
            ["10b", "11b", "12b"],
            nobody_elses_file,
        ),
        for_each_importer("buffer/4096_duplicates_imported/16c", many_buffers),
        for_each_semaphore("4096_duplicates_imported/16d", many_semaphores),
        for_each_importer("buffer/dup_dup2_and_dup3_alias_the_payload/17", duplicated),
        for_each_importer("buffer/outlives_the_exporter/18", outlives_the_exporter),
        for_each_importer("buffer/the_exporter_outlives_it/18a", outlived_by_the_exporter),
        for_each_importer("buffer/a_payload_outlives_the_exporter/18b", payload_outlives),
        for_each_semaphore("outlives_the_exporter/18c", semaphore_outlives_the_exporter),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// From a successful import on, the number is none of the library's: what is opened by it since stays
/// open when all that was imported goes.
fn consumed_buffer(machine: &TestGpu, peer: Peer<'_>) -> Result<()> {
    leaves_nothing_open(|| {
        let (exported, payload) = descriptors::export(machine)?;
        let raw = number(&payload);
        let view = peer.import_buffer(payload)?;
        let bystanders = Bystanders::fill(raw)?;
        drop(view);
        bystanders.check()?;
        drop(exported);
        bystanders.check()
    })
}

/// As [`consumed_buffer`], for a semaphore.
fn consumed_semaphore(machine: &TestGpu, peer: Peer<'_>, kind: SemaphoreKind) -> Result<()> {
    leaves_nothing_open(|| {
        let exported = machine.vulkan().endpoint.create_semaphore(kind)?;
        let payload = exported.export()?;
        let raw = payload.as_fd().as_raw_fd();
        let imported = peer.import_semaphore(payload)?;
        let bystanders = Bystanders::fill(raw)?;
        drop(imported);
        bystanders.check()?;
        drop(exported);
        bystanders.check()
    })
}

/// A driver may close the number as soon as it likes, and somebody else may open a file by it then.
fn nobody_elses_file(machine: &TestGpu, peer: Peer<'_>) -> Result<()> {
    let (_exported, payload) = descriptors::export(machine)?;
    closes_nobody_elses_file(|| {
        for _ in 0..4096 {
            drop(peer.import_buffer(payload.try_clone()?)?);
        }
        Ok(())
    })
}

/// 4096 times duplicated, imported and dropped: as many descriptors as before, and it still aliases.
fn many_buffers(machine: &TestGpu, peer: Peer<'_>) -> Result<()> {
    let (exported, payload) = descriptors::export(machine)?;
    leave_nothing_open(4096, || {
        drop(peer.import_buffer(payload.try_clone()?)?);
        Ok(())
    })?;
    let mut view = peer.import_buffer(payload)?;
    check_aliases(&mut View::Vulkan(machine.vulkan(), exported), &mut view)
}

/// As [`many_buffers`], for semaphores.
fn many_semaphores(machine: &TestGpu, peer: Peer<'_>, kind: SemaphoreKind) -> Result<()> {
    leave_nothing_open(4096 / IMPORTS_OF_ONE_SEMAPHORE, || {
        let exported = machine.vulkan().endpoint.create_semaphore(kind)?;
        let payload = exported.export()?;
        for _ in 0..IMPORTS_OF_ONE_SEMAPHORE {
            drop(peer.import_semaphore(payload.try_clone()?)?);
        }
        Ok(())
    })
}

/// Whichever way a descriptor is duplicated, it is the same memory.
fn duplicated(machine: &TestGpu, peer: Peer<'_>) -> Result<()> {
    let (exported, payload) = descriptors::export(machine)?;
    let mut exporter = View::Vulkan(machine.vulkan(), exported);
    for duplicate in [dup(number(&payload))?, dup2(number(&payload))?, dup3(number(&payload))?] {
        let mut view = peer.import_buffer(with_fd(duplicate, &payload)?)?;
        check_aliases(&mut exporter, &mut view)?;
    }
    check_aliases(&mut exporter, &mut peer.import_buffer(payload)?)
}

fn dup(raw: RawFd) -> Result<OwnedFd> {
    // SAFETY: dup touches no memory; the callers' payload keeps `raw` open.
    owned(unsafe { libc::dup(raw) })
}

/// Over a descriptor that is open: dup2 closes that first.
fn dup2(raw: RawFd) -> Result<OwnedFd> {
    let target: OwnedFd = File::open("/dev/null")?.into();
    // SAFETY: as above; the number that is replaced is owned here, and stays so.
    let made = unsafe { libc::dup2(raw, target.as_raw_fd()) };
    ensure!(made == target.as_raw_fd(), "dup2: {}", std::io::Error::last_os_error());
    Ok(target)
}

fn dup3(raw: RawFd) -> Result<OwnedFd> {
    let target: OwnedFd = File::open("/dev/null")?.into();
    // SAFETY: as above.
    let made = unsafe { libc::dup3(raw, target.as_raw_fd(), libc::O_CLOEXEC) };
    ensure!(made == target.as_raw_fd(), "dup3: {}", std::io::Error::last_os_error());
    Ok(target)
}

fn owned(made: RawFd) -> Result<OwnedFd> {
    ensure!(made >= 0, "dup: {}", std::io::Error::last_os_error());
    // SAFETY: a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(made) })
}

/// The importer reads and writes on when the exporter has freed its buffer and memory.
fn outlives_the_exporter(machine: &TestGpu, peer: Peer<'_>) -> Result<()> {
    let (exported, payload) = descriptors::export(machine)?;
    let mut view = peer.import_buffer(payload)?;
    let mut exporter = View::Vulkan(machine.vulkan(), exported);
    exporter.write(18)?;
    drop(exporter);
    // Something else of that size, where the driver might have put the freed memory to use.
    let mut other = View::Vulkan(machine.vulkan(), descriptors::export(machine)?.0);
    other.write(81)?;
    view.check(18)?;
    view.write(19)?;
    view.check(19)?;
    other.check(81)
}

/// The exporter reads and writes on when the importer has freed its side.
fn outlived_by_the_exporter(machine: &TestGpu, peer: Peer<'_>) -> Result<()> {
    let (exported, payload) = descriptors::export(machine)?;
    let mut view = peer.import_buffer(payload.try_clone()?)?;
    view.write(18)?;
    drop(view);
    let mut exporter = View::Vulkan(machine.vulkan(), exported);
    exporter.check(18)?;
    exporter.write(19)?;
    exporter.check(19)?;
    // And it can be shared again.
    peer.import_buffer(payload)?.check(19)
}

/// A payload alone keeps the memory and what is in it.
fn payload_outlives(machine: &TestGpu, peer: Peer<'_>) -> Result<()> {
    let (exported, payload) = descriptors::export(machine)?;
    View::Vulkan(machine.vulkan(), exported).write(18)?;
    let mut other = View::Vulkan(machine.vulkan(), descriptors::export(machine)?.0);
    other.write(81)?;
    let raw = number(&payload);
    ensure!(is_open(raw), "{raw} was closed with the exporter");
    peer.import_buffer(payload)?.check(18)
}

/// Two importers signal each other when the exporter has destroyed its semaphore.
fn semaphore_outlives_the_exporter(
    machine: &TestGpu,
    peer: Peer<'_>,
    kind: SemaphoreKind,
) -> Result<()> {
    let (endpoint, other) = (&machine.vulkan().endpoint, machine.second_instance()?);
    let exported = endpoint.create_semaphore(kind)?;
    let (one, two) = (exported.export()?, exported.export()?);
    drop(exported);
    let one = Semaphore::Vulkan(other, other.endpoint.import_semaphore(one)?);
    check_signals(&one, &peer.import_semaphore(two)?, kind, 1)
}

//! Family B: descriptors that an import consumes.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use anyhow::{Context, Result, ensure};
use gpu_interop::SemaphoreKind;
use rustix::io::DupFlags;

use crate::cases::support::fds::{
    self, Bystanders, closes_no_other_file, is_open, leave_nothing_open, leaves_nothing_open,
    number, with_fd,
};
use crate::cases::support::importers::{
    for_each_importer, for_each_importer_in_rows, for_each_semaphore,
};
use crate::cases::support::views::{AnyContext, Semaphore, View, check_aliases, check_signals};
use crate::harness::{Case, NVIDIA_UNMAPS_IN_BATCHES, ProcessResources, TestGpu};

/// NVIDIA's driver (580.159, OpenGL) refuses the 253rd import of one semaphore, even if the others were
/// dropped.
const IMPORTS_OF_ONE_SEMAPHORE: u32 = 128;

pub(in crate::cases) fn cases() -> Vec<Case> {
    [
        for_each_importer_in_rows(
            "buffer/a_success_consumes_the_descriptor",
            ["10", "11", "12"],
            consumed_buffer,
        ),
        for_each_semaphore("a_success_consumes_the_descriptor/10a", consumed_semaphore),
        for_each_importer_in_rows(
            "buffer/a_success_closes_no_other_file",
            ["10b", "11b", "12b"],
            no_other_file,
        ),
        for_each_importer("buffer/4096_duplicates_imported/16c", many_buffers),
        for_each_semaphore("4096_duplicates_imported/16d", many_semaphores),
        for_each_semaphore("dropped_semaphores_leave_few_mappings/16f", dropped_semaphores),
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

/// After a successful import the library does not own the number any more: a file that gets it stays open
/// when everything imported is dropped.
fn consumed_buffer(test_gpu: &TestGpu, peer: &dyn AnyContext) -> Result<()> {
    leaves_nothing_open(|| {
        let (exported, payload) = fds::export(test_gpu)?;
        let raw = number(&payload);
        let view = peer.import_buffer(payload)?;
        let bystanders = Bystanders::fill(raw)?;
        drop(view);
        bystanders.check()?;
        drop(exported);
        bystanders.check()
    })
}

/// [`consumed_buffer`] for a semaphore.
fn consumed_semaphore(
    test_gpu: &TestGpu,
    peer: &dyn AnyContext,
    kind: SemaphoreKind,
) -> Result<()> {
    leaves_nothing_open(|| {
        let exported = test_gpu.vulkan().endpoint.create_semaphore(kind)?;
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

/// A driver may close the number at any time, and an unrelated file may get it then.
fn no_other_file(test_gpu: &TestGpu, peer: &dyn AnyContext) -> Result<()> {
    let (_exported, payload) = fds::export(test_gpu)?;
    closes_no_other_file(|| {
        for _ in 0..4096 {
            drop(peer.import_buffer(payload.try_clone()?)?);
        }
        Ok(())
    })
}

/// Duplicated, imported and dropped 4096 times: as many descriptors are open as before, and the payload
/// still aliases.
fn many_buffers(test_gpu: &TestGpu, peer: &dyn AnyContext) -> Result<()> {
    let (exported, payload) = fds::export(test_gpu)?;
    leave_nothing_open(4096, || {
        drop(peer.import_buffer(payload.try_clone()?)?);
        Ok(())
    })?;
    let mut view = peer.import_buffer(payload)?;
    check_aliases(&mut View::new(test_gpu.vulkan(), exported), &mut view)
}

/// A driver may unmap late, but it may not keep ever more mappings.
fn dropped_semaphores(
    test_gpu: &TestGpu,
    peer: &dyn AnyContext,
    kind: SemaphoreKind,
) -> Result<()> {
    let import = || -> Result<()> {
        let exported = test_gpu.vulkan().endpoint.create_semaphore(kind)?;
        peer.import_semaphore(exported.export()?)?;
        Ok(())
    };
    import()?;
    let before = ProcessResources::now()?;
    for round in 0..3 * NVIDIA_UNMAPS_IN_BATCHES {
        import().with_context(|| format!("semaphore {round}"))?;
    }
    before.require_at_most(&ProcessResources::now()?, NVIDIA_UNMAPS_IN_BATCHES)
}

/// [`many_buffers`] for semaphores.
fn many_semaphores(test_gpu: &TestGpu, peer: &dyn AnyContext, kind: SemaphoreKind) -> Result<()> {
    leave_nothing_open(4096 / IMPORTS_OF_ONE_SEMAPHORE, || {
        let exported = test_gpu.vulkan().endpoint.create_semaphore(kind)?;
        let payload = exported.export()?;
        for _ in 0..IMPORTS_OF_ONE_SEMAPHORE {
            drop(peer.import_semaphore(payload.try_clone()?)?);
        }
        Ok(())
    })
}

/// A duplicate is the same memory, whichever call made it.
fn duplicated(test_gpu: &TestGpu, peer: &dyn AnyContext) -> Result<()> {
    let (exported, payload) = fds::export(test_gpu)?;
    let mut exporter = View::new(test_gpu.vulkan(), exported);
    let fd = payload.memory().as_fd();
    // dup2 and dup3 replace a descriptor that is open: they close it first.
    let mut replaced: [OwnedFd; 2] =
        [File::open("/dev/null")?.into(), File::open("/dev/null")?.into()];
    rustix::io::dup2(fd, &mut replaced[0])?;
    rustix::io::dup3(fd, &mut replaced[1], DupFlags::CLOEXEC)?;
    for duplicate in [rustix::io::dup(fd)?].into_iter().chain(replaced) {
        let mut view = peer.import_buffer(with_fd(duplicate, &payload)?)?;
        check_aliases(&mut exporter, &mut view)?;
    }
    check_aliases(&mut exporter, &mut peer.import_buffer(payload)?)
}

/// The importer still reads and writes after the exporter has freed its buffer and memory.
fn outlives_the_exporter(test_gpu: &TestGpu, peer: &dyn AnyContext) -> Result<()> {
    let (exported, payload) = fds::export(test_gpu)?;
    let mut view = peer.import_buffer(payload)?;
    let mut exporter = View::new(test_gpu.vulkan(), exported);
    exporter.write(18)?;
    drop(exporter);
    // Another buffer of that size, for which the driver might reuse the freed memory.
    let mut other = View::new(test_gpu.vulkan(), fds::export(test_gpu)?.0);
    other.write(81)?;
    view.check(18)?;
    view.write(19)?;
    view.check(19)?;
    other.check(81)
}

/// The exporter still reads and writes after the importer has freed its side.
fn outlived_by_the_exporter(test_gpu: &TestGpu, peer: &dyn AnyContext) -> Result<()> {
    let (exported, payload) = fds::export(test_gpu)?;
    let mut view = peer.import_buffer(payload.try_clone()?)?;
    view.write(18)?;
    drop(view);
    let mut exporter = View::new(test_gpu.vulkan(), exported);
    exporter.check(18)?;
    exporter.write(19)?;
    exporter.check(19)?;
    // And it can be shared again.
    peer.import_buffer(payload)?.check(19)
}

/// A payload alone keeps the memory and its content.
fn payload_outlives(test_gpu: &TestGpu, peer: &dyn AnyContext) -> Result<()> {
    let (exported, payload) = fds::export(test_gpu)?;
    View::new(test_gpu.vulkan(), exported).write(18)?;
    let mut other = View::new(test_gpu.vulkan(), fds::export(test_gpu)?.0);
    other.write(81)?;
    let raw = number(&payload);
    ensure!(is_open(raw), "{raw} was closed with the exporter");
    peer.import_buffer(payload)?.check(18)
}

/// Two importers signal each other after the exporter has destroyed its semaphore.
fn semaphore_outlives_the_exporter(
    test_gpu: &TestGpu,
    peer: &dyn AnyContext,
    kind: SemaphoreKind,
) -> Result<()> {
    let (endpoint, other) = (&test_gpu.vulkan().endpoint, test_gpu.second_instance()?);
    let exported = endpoint.create_semaphore(kind)?;
    let (one, two) = (exported.export()?, exported.export()?);
    drop(exported);
    let one = Semaphore::new(other, other.endpoint.import_semaphore(one)?);
    check_signals(&one, &peer.import_semaphore(two)?, kind, 1)
}

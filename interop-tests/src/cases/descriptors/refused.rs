//! Family B: descriptors of an import that fails.

use std::os::fd::{AsFd, AsRawFd};

use anyhow::{Context, Result, bail, ensure};
use gpu_interop::payload::MemoryInfo;
use gpu_interop::{Api, BufferPayload, Error, MemoryPayload};

use crate::cases::support::fds::{
    self, Bystanders, check_same_fd, closes_no_other_file, is_open, leave_nothing_open,
    leaves_nothing_open, memfd, number, with_fd,
};
use crate::cases::support::importers::{RunWith, for_each_importer_in_rows};
use crate::cases::support::views::{AnyContext, View, check_aliases};
use crate::harness::{Case, TestGpu};

pub(in crate::cases) fn cases() -> Vec<Case> {
    let rows = |what: &str, letter: &str, run: RunWith| {
        let rows = ["13", "14", "15"].map(|row| format!("{row}{letter}"));
        for_each_importer_in_rows(what, rows.each_ref().map(String::as_str), run)
    };
    [
        rows("buffer/a_failure_gives_the_descriptor_back", "", buffer_comes_back),
        rows("memory/a_failure_gives_the_descriptor_back", "a", memory_comes_back),
        rows("buffer/a_failure_closes_no_other_file", "b", no_other_file),
        rows("buffer/4096_failures", "c", many_failures),
        rows("buffer/a_failure_leaves_the_endpoint_usable", "d", harms_nothing),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// A payload that the library accepts and the driver refuses.
///
/// A CPU driver gets a file of the right length with foreign content. NVIDIA's driver gets its own memory
/// with too large an allocation size: a foreign descriptor would break it for the rest of the process, so
/// the library refuses that itself.
fn refused_by_the_driver(test_gpu: &TestGpu) -> Result<BufferPayload> {
    let (_, payload) = fds::export(test_gpu)?;
    if !test_gpu.is_hardware() {
        let bytes = usize::try_from(payload.memory().info().allocation_size)?;
        return with_fd(memfd(bytes + 8192)?, &payload);
    }
    let (memory, offset, desc) = payload.into_parts();
    let (fd, info) = memory.into_parts();
    let allocation_size = info.allocation_size + (1 << 30);
    let memory = MemoryPayload::new(fd, MemoryInfo { allocation_size, ..info })?;
    Ok(BufferPayload::new(memory, offset, desc)?)
}

/// The error is the driver's own, or the library's if the driver gives no reason.
fn check_refusal(error: &Error) -> Result<()> {
    match error {
        Error::Driver(driver) => ensure!(driver.code != 0, "no code: {driver:?}"),
        Error::Invalid(invalid) => ensure!(invalid.help.is_some(), "no help: {invalid}"),
        other => bail!("{other:?}"),
    }
    Ok(())
}

/// The payload comes back with the same number, still open. Dropping it closes that and no other file.
fn buffer_comes_back(test_gpu: &TestGpu, peer: &dyn AnyContext) -> Result<()> {
    leaves_nothing_open(|| {
        let payload = refused_by_the_driver(test_gpu)?;
        let raw = number(&payload);
        let refused = peer.import_buffer(payload).err().context("it was imported")?;
        check_refusal(refused.error())?;
        let payload = refused.into_payload();
        check_same_fd(&payload, raw)?;
        let bystanders = Bystanders::fill(raw)?;
        drop(payload);
        ensure!(!is_open(raw), "{raw} is still open");
        bystanders.check()
    })
}

/// [`buffer_comes_back`] for memory without a resource. CUDA (driver 580.159) accepts any length and only
/// notices when a buffer is placed in the memory.
fn memory_comes_back(test_gpu: &TestGpu, peer: &dyn AnyContext) -> Result<()> {
    leaves_nothing_open(|| {
        let payload = refused_by_the_driver(test_gpu)?.into_parts().0;
        let raw = payload.as_fd().as_raw_fd();
        let refused = match peer.import_memory(payload) {
            Err(refused) => refused,
            Ok(memory) if peer.api() == Api::Cuda => {
                let placed = memory.buffer(0, &fds::desc());
                return check_refusal(&placed.err().context("a buffer was placed in it")?);
            }
            Ok(_) => bail!("it was imported"),
        };
        check_refusal(refused.error())?;
        check_same_fd(refused.into_payload(), raw)
    })
}

fn many_failures(test_gpu: &TestGpu, peer: &dyn AnyContext) -> Result<()> {
    let mut payload = refused_by_the_driver(test_gpu)?;
    leave_nothing_open(4096, || {
        let refused = peer.import_buffer(payload.try_clone()?).err().context("it was imported")?;
        payload = refused.into_payload();
        Ok(())
    })
}

/// Payloads that were imported before and after the failure work.
fn harms_nothing(test_gpu: &TestGpu, peer: &dyn AnyContext) -> Result<()> {
    let (exported, payload) = fds::export(test_gpu)?;
    let mut exporter = View::new(test_gpu.vulkan(), exported);
    let mut before = peer.import_buffer(payload.try_clone()?)?;
    for _ in 0..3 {
        ensure!(peer.import_buffer(refused_by_the_driver(test_gpu)?).is_err(), "it was imported");
    }
    check_aliases(&mut exporter, &mut before)?;
    check_aliases(&mut exporter, &mut peer.import_buffer(payload)?)
}

/// A driver may close a descriptor that it refuses, and an unrelated file may get the number then.
fn no_other_file(test_gpu: &TestGpu, peer: &dyn AnyContext) -> Result<()> {
    let mut payload = refused_by_the_driver(test_gpu)?;
    closes_no_other_file(|| {
        for _ in 0..4096 {
            let refused = peer.import_buffer(payload.try_clone()?).err().context("imported")?;
            payload = refused.into_payload();
        }
        Ok(())
    })
}

//! Group B: descriptors of an import that fails.

use std::os::fd::{AsFd, AsRawFd};

use anyhow::{Context, Result, bail, ensure};
use gpu_interop::payload::MemoryInfo;
use gpu_interop::{BufferPayload, Error, MemoryPayload};

use crate::cases::descriptors::{
    self, Bystanders, closes_nobody_elses_file, is_open, leave_nothing_open, leaves_nothing_open,
    memfd, number, with_fd,
};
use crate::cases::support::importers::{Peer, View, check_aliases, for_each_importer_in_rows};
use crate::harness::{Case, TestGpu};

type Run = fn(&TestGpu, Peer<'_>) -> Result<()>;

pub(crate) fn cases() -> Vec<Case> {
    let rows = |what: &str, letter: &str, run: Run| {
        let rows = ["13", "14", "15"].map(|row| format!("{row}{letter}"));
        for_each_importer_in_rows(what, rows.each_ref().map(String::as_str), run)
    };
    [
        rows("buffer/a_failure_gives_the_descriptor_back", "", buffer_comes_back),
        rows("memory/a_failure_gives_the_descriptor_back", "a", memory_comes_back),
        rows("buffer/a_failure_closes_nobody_elses_file", "b", nobody_elses_file),
        rows("buffer/4096_failures", "c", many_failures),
        rows("buffer/a_failure_harms_nothing", "d", harms_nothing),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// A payload that the library finds nothing wrong with, and the driver refuses.
///
/// A driver for the CPU gets a file of the right length and nothing of its own in it. NVIDIA's gets
/// memory of its own that is shorter than it is said to be: by a descriptor that is none of its own it
/// would be broken for the rest of the process, and so the library refuses that itself.
fn refused_by_the_driver(machine: &TestGpu) -> Result<BufferPayload> {
    let (_, payload) = descriptors::export(machine)?;
    if !machine.is_hardware() {
        let bytes = usize::try_from(payload.memory().info().allocation_size)?;
        return with_fd(memfd(bytes + 8192)?, &payload);
    }
    let (memory, offset, desc) = payload.into_parts();
    let (fd, info) = memory.into_parts();
    let allocation_size = info.allocation_size + (1 << 30);
    let memory = MemoryPayload::new(fd, MemoryInfo { allocation_size, ..info })?;
    Ok(BufferPayload::new(memory, offset, desc)?)
}

/// The driver's own no, or what the library makes of a driver's silence.
fn check_refusal(error: &Error) -> Result<()> {
    match error {
        Error::Driver(driver) => ensure!(driver.code != 0, "no code: {driver:?}"),
        Error::Invalid(invalid) => ensure!(invalid.help.is_some(), "no help: {invalid}"),
        other => bail!("{other:?}"),
    }
    Ok(())
}

/// By the same number, still open; and dropped, it is closed, and nothing else is.
fn buffer_comes_back(machine: &TestGpu, peer: Peer<'_>) -> Result<()> {
    leaves_nothing_open(|| {
        let payload = refused_by_the_driver(machine)?;
        let raw = number(&payload);
        let refused = peer.import_buffer(payload).err().context("it was imported")?;
        check_refusal(refused.error())?;
        let payload = refused.into_payload();
        ensure!(number(&payload) == raw && is_open(raw), "{raw} is {}", number(&payload));
        let bystanders = Bystanders::fill(raw)?;
        drop(payload);
        ensure!(!is_open(raw), "{raw} is still open");
        bystanders.check()
    })
}

/// As [`buffer_comes_back`], for memory without a resource. CUDA takes any length on trust (driver
/// 580.159) and finds out when a buffer is placed in the memory.
fn memory_comes_back(machine: &TestGpu, peer: Peer<'_>) -> Result<()> {
    leaves_nothing_open(|| {
        let payload = refused_by_the_driver(machine)?.into_parts().0;
        let raw = payload.as_fd().as_raw_fd();
        let refused = match (peer.import_memory(payload), peer) {
            (Err(refused), _) => refused,
            (Ok(memory), Peer::Cuda(_)) => {
                let placed = memory.buffer(0, &descriptors::desc());
                return check_refusal(&placed.err().context("a buffer lies in it")?);
            }
            (Ok(_), _) => bail!("it was imported"),
        };
        check_refusal(refused.error())?;
        let back = refused.into_payload();
        ensure!(back.as_fd().as_raw_fd() == raw && is_open(raw), "{raw} is closed, or another");
        Ok(())
    })
}

fn many_failures(machine: &TestGpu, peer: Peer<'_>) -> Result<()> {
    let mut payload = refused_by_the_driver(machine)?;
    leave_nothing_open(4096, || {
        let refused = peer.import_buffer(payload.try_clone()?).err().context("it was imported")?;
        payload = refused.into_payload();
        Ok(())
    })
}

/// What was imported before, and what is imported after, is whole.
fn harms_nothing(machine: &TestGpu, peer: Peer<'_>) -> Result<()> {
    let (exported, payload) = descriptors::export(machine)?;
    let mut exporter = View::Vulkan(machine.vulkan(), exported);
    let mut before = peer.import_buffer(payload.try_clone()?)?;
    for _ in 0..3 {
        ensure!(peer.import_buffer(refused_by_the_driver(machine)?).is_err(), "it was imported");
    }
    check_aliases(&mut exporter, &mut before)?;
    check_aliases(&mut exporter, &mut peer.import_buffer(payload)?)
}

/// As long as a driver may have closed what it refused, somebody else may have opened a file by that
/// number.
fn nobody_elses_file(machine: &TestGpu, peer: Peer<'_>) -> Result<()> {
    let mut payload = refused_by_the_driver(machine)?;
    closes_nobody_elses_file(|| {
        for _ in 0..4096 {
            let refused = peer.import_buffer(payload.try_clone()?).err().context("imported")?;
            payload = refused.into_payload();
        }
        Ok(())
    })
}

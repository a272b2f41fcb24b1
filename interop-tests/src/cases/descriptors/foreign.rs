//! Group B: descriptors that are none of a GPU's.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixStream};

use anyhow::{Context, Result, bail, ensure};
use gpu_interop::error::Missing;
use gpu_interop::fd::{MemoryHandleType, SemaphoreHandleType};
use gpu_interop::payload::{MemoryInfo, SemaphoreInfo};
use gpu_interop::{Error, MemoryPayload, SemaphoreKind, SemaphorePayload};

use crate::cases::descriptors::{
    self, BYTES, eventfd, is_open, leaves_nothing_open, memfd, number, with_fd,
};
use crate::cases::support::importers::{Peer, View, check_aliases, for_each_importer};
use crate::harness::{Case, TestGpu};

pub(crate) fn cases() -> Vec<Case> {
    [
        for_each_importer("buffer/not_one_of_ours/21", buffers),
        for_each_importer("memory/not_one_of_ours/21a", memory),
        for_each_importer("semaphore/not_one_of_ours/21b", semaphores),
        for_each_importer("memory/no_dma_buf/21c", dma_bufs),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// What may be handed to the library by mistake, or on purpose. `bytes` is the length that a payload
/// promises.
fn foreign(bytes: u64) -> Result<Vec<(&'static str, OwnedFd)>> {
    let bytes = usize::try_from(bytes)?;
    let mut pipe = [0; 2];
    // SAFETY: there is room for the two numbers.
    let made = unsafe { libc::pipe2(pipe.as_mut_ptr(), libc::O_CLOEXEC) };
    ensure!(made == 0, "pipe2: {}", std::io::Error::last_os_error());
    // SAFETY: two new descriptors that nobody else owns.
    let [read, write] = pipe.map(|raw| unsafe { OwnedFd::from_raw_fd(raw) });
    let full = UnixStream::pair()?;
    (&full.1).write_all(&[0x5a; 4096])?;
    let long = memfd(bytes + 8192)?;
    let zeros = memfd(0)?;
    zeros.set_len(bytes as u64 + 8192)?;
    let read_only = File::open(format!("/proc/self/fd/{}", long.as_raw_fd()))?;
    let terminal = File::options().read(true).write(true).open("/dev/ptmx");
    let mut all: Vec<(_, OwnedFd)> = vec![
        ("/dev/null", File::options().read(true).write(true).open("/dev/null")?.into()),
        ("/dev/zero", File::options().read(true).write(true).open("/dev/zero")?.into()),
        ("the end of a pipe to read", read),
        ("the end of a pipe to write", write),
        ("a stream socket", full.0.into()),
        ("a datagram socket", UnixDatagram::unbound()?.into()),
        ("a directory", File::open("/")?.into()),
        ("an eventfd", eventfd()?),
        ("an empty memfd", memfd(0)?.into()),
        ("a memfd that is a byte too short", memfd(bytes - 1)?.into()),
        ("a memfd of junk", long.into()),
        ("a memfd of zeros", zeros.into()),
        ("a memfd for reading", read_only.into()),
        ("a program", File::open("/proc/self/exe")?.into()),
    ];
    all.extend(terminal.map(|terminal| ("a terminal", terminal.into())));
    Ok(all)
}

/// The error is a typed one that says what would help, or the driver's own.
fn check_error(error: &Error) -> Result<()> {
    match error {
        Error::Invalid(invalid) => {
            ensure!(invalid.parameter == "payload.fd" && invalid.help.is_some(), "{invalid}");
        }
        Error::Driver(_) => {}
        other => bail!("{other:?}"),
    }
    Ok(())
}

/// Refused, and given back by the same number; dropped, it is closed. A true payload is as good as
/// ever after all of them.
fn buffers(machine: &TestGpu, peer: Peer<'_>) -> Result<()> {
    let (exported, true_one) = descriptors::export(machine)?;
    leaves_nothing_open(|| {
        for (what, fd) in foreign(true_one.memory().info().allocation_size)? {
            let payload = with_fd(fd, &true_one)?;
            let raw = number(&payload);
            let refused = peer.import_buffer(payload).err().with_context(|| what.to_owned())?;
            check_error(refused.error()).context(what)?;
            let payload = refused.into_payload();
            ensure!(number(&payload) == raw && is_open(raw), "{what}: another came back");
        }
        Ok(())
    })?;
    let mut exporter = View::Vulkan(machine.vulkan(), exported);
    check_aliases(&mut exporter, &mut peer.import_buffer(true_one)?)
}

/// As [`buffers`], for memory without a resource.
fn memory(machine: &TestGpu, peer: Peer<'_>) -> Result<()> {
    let (_exported, true_one) = descriptors::export(machine)?;
    let (true_one, ..) = true_one.into_parts();
    leaves_nothing_open(|| {
        for (what, fd) in foreign(true_one.info().allocation_size)? {
            let raw = fd.as_raw_fd();
            let payload = MemoryPayload::new(fd, true_one.info().clone())?;
            let refused = peer.import_memory(payload).err().with_context(|| what.to_owned())?;
            check_error(refused.error()).context(what)?;
            let back = refused.into_payload();
            ensure!(back.as_fd().as_raw_fd() == raw && is_open(raw), "{what}: another came back");
        }
        Ok(())
    })?;
    peer.import_memory(true_one)?;
    Ok(())
}

/// A semaphore is looked at in the same way. Where an API has none at all, that may be said instead of
/// a descriptor that might be one.
fn semaphores(machine: &TestGpu, peer: Peer<'_>) -> Result<()> {
    let identity = machine.vulkan().vulkan.identity();
    for kind in [SemaphoreKind::Binary, SemaphoreKind::Timeline] {
        leaves_nothing_open(|| {
            for (what, fd) in foreign(BYTES)? {
                let raw = fd.as_raw_fd();
                let handle_type = SemaphoreHandleType::OpaqueFd;
                let info = SemaphoreInfo { handle_type, kind, identity: identity.clone() };
                let payload = SemaphorePayload::new(fd, info)?;
                let refused = peer.import_semaphore(payload).err();
                let (payload, error) = refused.with_context(|| what.to_owned())?.into_parts();
                match &error {
                    Error::Missing(Missing { api, .. }) => {
                        let told = peer.capabilities(&descriptors::desc().into())?;
                        let can = told.semaphore(kind, handle_type)?.import.is_ok();
                        ensure!(!can && *api == told.api, "{what}: {error}");
                    }
                    other => check_error(other).context(what)?,
                }
                ensure!(payload.as_fd().as_raw_fd() == raw && is_open(raw), "{what}: another");
            }
            Ok(())
        })?;
    }
    Ok(())
}

/// What is no dma-buf is not taken for one, not even what is memory as an opaque fd.
fn dma_bufs(machine: &TestGpu, peer: Peer<'_>) -> Result<()> {
    let (_exported, true_one) = descriptors::export(machine)?;
    let (true_one, ..) = true_one.into_parts();
    leaves_nothing_open(|| {
        let mut all = foreign(true_one.info().allocation_size)?;
        all.push(("an opaque fd", true_one.as_fd().try_clone_to_owned()?));
        for (what, fd) in all {
            let raw = fd.as_raw_fd();
            let handle_type = MemoryHandleType::DmaBuf;
            let info = MemoryInfo { handle_type, ..true_one.info().clone() };
            let refused = peer.import_memory(MemoryPayload::new(fd, info)?).err();
            let (payload, error) = refused.with_context(|| what.to_owned())?.into_parts();
            match &error {
                Error::Missing(missing) => ensure!(missing.help.is_some(), "{what}: {missing}"),
                other => check_error(other).context(what)?,
            }
            ensure!(payload.as_fd().as_raw_fd() == raw && is_open(raw), "{what}: another");
        }
        Ok(())
    })
}

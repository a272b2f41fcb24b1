//! Family B: descriptors that do not belong to a GPU.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixStream};

use anyhow::{Context, Result, bail, ensure};
use gpu_interop::error::Missing;
use gpu_interop::fd::{MemoryHandleType, SemaphoreHandleType};
use gpu_interop::payload::{MemoryInfo, SemaphoreInfo};
use gpu_interop::{Error, MemoryPayload, SemaphoreKind, SemaphorePayload};

use crate::cases::support::fds::{
    self, BYTES, check_same_fd, event_counter, leaves_nothing_open, memfd, number, with_fd,
};
use crate::cases::support::importers::for_each_importer;
use crate::cases::support::views::{AnyContext, View, check_aliases};
use crate::harness::{Case, TestGpu};

pub(in crate::cases) fn cases() -> Vec<Case> {
    [
        for_each_importer("buffer/foreign_descriptor_is_refused/21", buffers),
        for_each_importer("memory/foreign_descriptor_is_refused/21a", memory),
        for_each_importer("semaphore/foreign_descriptor_is_refused/21b", semaphores),
        for_each_importer("memory/no_dma_buf/21c", dma_bufs),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Descriptors that an application may pass by mistake, or on purpose. `bytes` is the length that the
/// payload states.
fn foreign(bytes: u64) -> Result<Vec<(&'static str, OwnedFd)>> {
    let bytes = usize::try_from(bytes)?;
    let (read, write) = std::io::pipe()?;
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
        ("the reading end of a pipe", read.into()),
        ("the writing end of a pipe", write.into()),
        ("a stream socket", full.0.into()),
        ("a datagram socket", UnixDatagram::unbound()?.into()),
        ("a directory", File::open("/")?.into()),
        ("an eventfd", event_counter()?),
        ("an empty memfd", memfd(0)?.into()),
        ("a memfd that is one byte too short", memfd(bytes - 1)?.into()),
        ("a memfd of junk", long.into()),
        ("a memfd of zeros", zeros.into()),
        ("a read-only memfd", read_only.into()),
        ("a program", File::open("/proc/self/exe")?.into()),
    ];
    all.extend(terminal.map(|terminal| ("a terminal", terminal.into())));
    Ok(all)
}

/// The error is typed and states what would help, or it is the driver's own.
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

/// Each is refused and given back with the same number; dropping it closes it. A valid payload can still
/// be imported afterwards.
fn buffers(test_gpu: &TestGpu, peer: &dyn AnyContext) -> Result<()> {
    let (exported, valid) = fds::export(test_gpu)?;
    leaves_nothing_open(|| {
        for (what, fd) in foreign(valid.memory().info().allocation_size)? {
            let payload = with_fd(fd, &valid)?;
            let raw = number(&payload);
            let refused = peer.import_buffer(payload).err().with_context(|| what.to_owned())?;
            check_error(refused.error()).context(what)?;
            check_same_fd(refused.into_payload(), raw).context(what)?;
        }
        Ok(())
    })?;
    let mut exporter = View::new(test_gpu.vulkan(), exported);
    check_aliases(&mut exporter, &mut peer.import_buffer(valid)?)
}

/// As [`buffers`], for memory without a resource.
fn memory(test_gpu: &TestGpu, peer: &dyn AnyContext) -> Result<()> {
    let (_exported, valid) = fds::export(test_gpu)?;
    let (valid, ..) = valid.into_parts();
    leaves_nothing_open(|| {
        for (what, fd) in foreign(valid.info().allocation_size)? {
            let raw = fd.as_raw_fd();
            let payload = MemoryPayload::new(fd, valid.info().clone())?;
            let refused = peer.import_memory(payload).err().with_context(|| what.to_owned())?;
            check_error(refused.error()).context(what)?;
            check_same_fd(refused.into_payload(), raw).context(what)?;
        }
        Ok(())
    })?;
    peer.import_memory(valid)?;
    Ok(())
}

/// The same for semaphores. An API without external semaphores may report that instead, if the descriptor
/// could be one.
fn semaphores(test_gpu: &TestGpu, peer: &dyn AnyContext) -> Result<()> {
    let identity = test_gpu.vulkan().vulkan.identity();
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
                        let capabilities = peer.capabilities(&fds::desc().into())?;
                        let can = capabilities.semaphore(kind, handle_type)?.import.is_ok();
                        ensure!(!can && *api == capabilities.api, "{what}: {error}");
                    }
                    other => check_error(other).context(what)?,
                }
                check_same_fd(payload, raw).context(what)?;
            }
            Ok(())
        })?;
    }
    Ok(())
}

/// A descriptor that is not a dma-buf is not imported as one, not even an opaque fd of memory.
fn dma_bufs(test_gpu: &TestGpu, peer: &dyn AnyContext) -> Result<()> {
    let (_exported, valid) = fds::export(test_gpu)?;
    let (valid, ..) = valid.into_parts();
    leaves_nothing_open(|| {
        let mut all = foreign(valid.info().allocation_size)?;
        all.push(("an opaque fd", valid.as_fd().try_clone_to_owned()?));
        for (what, fd) in all {
            let raw = fd.as_raw_fd();
            let handle_type = MemoryHandleType::DmaBuf;
            let info = MemoryInfo { handle_type, ..valid.info().clone() };
            let refused = peer.import_memory(MemoryPayload::new(fd, info)?).err();
            let (payload, error) = refused.with_context(|| what.to_owned())?.into_parts();
            match &error {
                Error::Missing(missing) => ensure!(missing.help.is_some(), "{what}: {missing}"),
                other => check_error(other).context(what)?,
            }
            check_same_fd(payload, raw).context(what)?;
        }
        Ok(())
    })
}

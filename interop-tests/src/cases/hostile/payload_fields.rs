//! Group B: payloads whose descriptor is right and whose description isn't.

use std::os::fd::{AsFd, AsRawFd};

use anyhow::{Context, Result, bail, ensure};
use gpu_interop::error::Invalid;
use gpu_interop::payload::MemoryInfo;
use gpu_interop::vulkan::BufferOptions;
use gpu_interop::{BufferDesc, BufferPayload, Error, Identity, ImportError, MemoryPayload, Uuid};

use crate::cases::descriptors::{self, BYTES, is_open, leaves_nothing_open};
use crate::cases::support::importers::{Peer, View, check_aliases, for_each_importer};
use crate::harness::{Case, Need, TestGpu};

pub(crate) fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = [
        for_each_importer("memory/size_0_is_refused/21d", size_0),
        for_each_importer("buffer/a_size_beyond_the_file_is_refused/21e", beyond_the_file),
        for_each_importer("buffer/past_the_end_is_refused/21f", past_the_end),
        for_each_importer("buffer/corrected_it_is_imported/21g", corrected),
    ]
    .into_iter()
    .flatten()
    .collect();
    cases.extend([
        Case::new("vulkan→vulkan/opaque_fd/memory/no_such_memory_type/21h", no_such_type),
        Case::new("vulkan→vulkan/opaque_fd/buffer/askew_is_refused/21i", askew),
        Case::new("vulkan→vulkan/opaque_fd/memory/too_long_for_the_driver/21j", too_long),
        Case::new("vulkan/opaque_fd/buffer/size_0_is_refused/21k", |machine| {
            let endpoint = &machine.vulkan().endpoint;
            let made = endpoint.create_buffer(&BufferDesc::storage(0), BufferOptions::default());
            check_invalid(&made.err().context("it was made")?, "size").map(drop)
        }),
        Case::new("cuda/opaque_fd/buffer/size_0_is_refused/21l", |machine| {
            let made = machine.cuda()?.endpoint.create_buffer(&BufferDesc::storage(0));
            check_invalid(&made.err().context("it was made")?, "size").map(drop)
        })
        .needs(&[Need::Cuda]),
    ]);
    cases
}

/// A wrong parameter that is named, with what is wrong about it.
fn check_invalid<'a>(error: &'a Error, parameter: &str) -> Result<&'a Invalid> {
    let Error::Invalid(invalid) = error else { bail!("{error:?}") };
    ensure!(invalid.parameter.contains(parameter), "not {parameter}: {invalid}");
    ensure!(!invalid.problem.is_empty(), "{invalid:?}");
    Ok(invalid)
}

/// The memory of a new buffer, described by `change`.
fn described(machine: &TestGpu, change: impl FnOnce(&mut MemoryInfo)) -> Result<MemoryPayload> {
    let (fd, mut info) = descriptors::export(machine)?.1.into_parts().0.into_parts();
    change(&mut info);
    Ok(MemoryPayload::new(fd, info)?)
}

/// Returns the error, after a check that the same descriptor came back, still open.
fn given_back<T, P: AsFd>(
    payload: P,
    import: impl FnOnce(P) -> Result<T, ImportError<P>>,
) -> Result<(P, Error)> {
    let raw = payload.as_fd().as_raw_fd();
    let (payload, error) = import(payload).err().context("it was imported")?.into_parts();
    ensure!(payload.as_fd().as_raw_fd() == raw && is_open(raw), "another descriptor came back");
    Ok((payload, error))
}

fn size_0(machine: &TestGpu, peer: Peer<'_>) -> Result<()> {
    leaves_nothing_open(|| {
        let (fd, info) = described(machine, |_| ())?.into_parts();
        let nothing = MemoryInfo { allocation_size: 0, ..info.clone() };
        let (fd, error) = given_back(fd, |fd| MemoryPayload::new(fd, nothing))?;
        check_invalid(&error, "size")?;
        peer.import_memory(MemoryPayload::new(fd, info)?)?;
        Ok(())
    })
}

/// Where memory is a file, its length is known. A driver with other descriptors has to say it itself,
/// when the memory is imported or, as CUDA, when a buffer is placed in it.
fn beyond_the_file(machine: &TestGpu, peer: Peer<'_>) -> Result<()> {
    leaves_nothing_open(|| {
        let payload = described(machine, |info| info.allocation_size += 1 << 30)?;
        let imported = given_back(payload, |payload| {
            let payload = BufferPayload::new(payload, 0, descriptors::desc())?;
            peer.import_buffer(payload)
                .map_err(|refused| refused.map(|payload| payload.into_parts().0))
        });
        match imported?.1 {
            Error::Driver(_) if machine.is_hardware() => Ok(()),
            error => check_invalid(&error, "fd").map(drop),
        }
    })
}

/// Refused when the payload is put together, and by the memory once it is imported.
fn past_the_end(machine: &TestGpu, peer: Peer<'_>) -> Result<()> {
    let size = described(machine, |_| ())?.info().allocation_size;
    let wrong = [(size, 1), (0, size + 1), (1, size), (size - 1, 2), (u64::MAX, 1), (1, u64::MAX)];
    for (offset, bytes) in wrong {
        let payload = described(machine, |_| ())?;
        let (_, error) = given_back(payload, |payload| {
            BufferPayload::new(payload, offset, BufferDesc::storage(bytes))
        })?;
        ensure!(check_invalid(&error, "offset")?.help.is_some(), "{error}");
    }
    let memory = peer.import_memory(described(machine, |_| ())?)?;
    for (offset, bytes) in wrong {
        let refused = memory.buffer(offset, &BufferDesc::storage(bytes));
        check_invalid(&refused.err().context("it fits")?, "offset")?;
    }
    let nothing = memory.buffer(0, &BufferDesc::storage(0));
    check_invalid(&nothing.err().context("nothing fits")?, "size")?;
    let mut whole = memory.buffer(0, &descriptors::desc())?;
    whole.write(21)?;
    whole.check(21)
}

/// What came back is imported when what was wrong is put right: nothing has been lost on the way.
fn corrected(machine: &TestGpu, peer: Peer<'_>) -> Result<()> {
    let (exported, payload) = descriptors::export(machine)?;
    let (memory, offset, desc) = payload.into_parts();
    let (fd, info) = memory.into_parts();
    let stranger = Identity { device: Uuid::from_bytes([0x5a; 16]), ..info.identity.clone() };
    let wrong = MemoryPayload::new(fd, MemoryInfo { identity: stranger, ..info.clone() })?;
    let (memory, _) = given_back(wrong, |payload| peer.import_memory(payload))?;
    let memory = MemoryPayload::new(memory.into_parts().0, info)?;
    let (memory, _) = given_back(memory, |memory| BufferPayload::new(memory, u64::MAX, desc))?;
    let mut view = peer.import_buffer(BufferPayload::new(memory, offset, desc)?)?;
    check_aliases(&mut View::Vulkan(machine.vulkan(), exported), &mut view)
}

fn no_such_type(machine: &TestGpu) -> Result<()> {
    let endpoint = &machine.second_device()?.endpoint;
    let count = endpoint.memory_properties().memory_type_count;
    for index in [count, 32, u32::MAX] {
        let payload = described(machine, |info| info.memory_type_index = Some(index))?;
        let (payload, error) = given_back(payload, |payload| endpoint.import_memory(payload))?;
        let invalid = check_invalid(&error, "memory_type_index")?;
        ensure!(
            invalid.vuid.is_some() && error.to_string().contains(&count.to_string()),
            "{error}"
        );
        let buffer = BufferPayload::new(payload, 0, descriptors::desc())?;
        let refused = endpoint.import_buffer(buffer).err().context("it was imported")?;
        check_invalid(refused.error(), "memory_type_index")?;
    }
    Ok(())
}

/// An offset that the buffer's alignment doesn't divide.
fn askew(machine: &TestGpu) -> Result<()> {
    let endpoint = &machine.second_device()?.endpoint;
    let small = BufferDesc::storage(BYTES / 2);
    let payload = BufferPayload::new(described(machine, |_| ())?, 1, small)?;
    let refused = endpoint.import_buffer(payload).err().context("it was imported")?;
    ensure!(check_invalid(refused.error(), "offset")?.vuid.is_some(), "{refused}");
    let memory = endpoint.import_memory(described(machine, |_| ())?)?;
    let refused = memory.buffer(1, &small).err().context("it was made")?;
    ensure!(check_invalid(&refused, "offset")?.vuid.is_some(), "{refused}");
    Ok(())
}

/// Longer than the allocation, but not than the file it is in: the driver's own no, and the payload
/// is back.
fn too_long(machine: &TestGpu) -> Result<()> {
    leaves_nothing_open(|| {
        let beyond = if machine.is_hardware() { 1 << 30 } else { 64 };
        let payload = described(machine, |info| info.allocation_size += beyond)?;
        let endpoint = &machine.second_device()?.endpoint;
        let (payload, error) = given_back(payload, |payload| endpoint.import_memory(payload))?;
        let Error::Driver(driver) = &error else { bail!("{error:?}") };
        ensure!(driver.call == "vkAllocateMemory", "{driver}");
        drop(payload);
        Ok(())
    })
}

//! Family B: payloads with a valid descriptor and a wrong description.

use std::os::fd::{AsFd, AsRawFd};

use anyhow::{Context, Result, bail, ensure};
use gpu_interop::error::Invalid;
use gpu_interop::payload::MemoryInfo;
use gpu_interop::vulkan::BufferOptions;
use gpu_interop::{BufferDesc, BufferPayload, Error, Identity, ImportError, MemoryPayload, Uuid};

use crate::cases::support::fds::{self, BYTES, check_same_fd, leaves_nothing_open};
use crate::cases::support::importers::for_each_importer;
use crate::cases::support::views::{AnyContext, View, check_aliases};
use crate::harness::{Case, Need, TestGpu};

pub(in crate::cases) fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = [
        for_each_importer("memory/size_0_is_refused/21d", size_0),
        for_each_importer("buffer/a_size_beyond_the_file_is_refused/21e", beyond_the_file),
        for_each_importer("buffer/past_the_end_is_refused/21f", past_the_end),
        for_each_importer("buffer/is_imported_once_corrected/21g", corrected),
    ]
    .into_iter()
    .flatten()
    .collect();
    cases.extend([
        Case::new("vulkan→vulkan/opaque_fd/memory/no_such_memory_type/21h", no_such_type),
        Case::new("vulkan→vulkan/opaque_fd/buffer/misaligned_is_refused/21i", misaligned),
        Case::new("vulkan→vulkan/opaque_fd/memory/too_long_for_the_driver/21j", too_long),
        Case::new("vulkan/opaque_fd/buffer/size_0_is_refused/21k", |test_gpu| {
            let endpoint = &test_gpu.vulkan().endpoint;
            let made = endpoint.create_buffer(&BufferDesc::storage(0), BufferOptions::default());
            check_invalid(&made.err().context("it was created")?, "size").map(drop)
        }),
        Case::new("cuda/opaque_fd/buffer/size_0_is_refused/21l", |test_gpu| {
            let made = test_gpu.cuda()?.endpoint.create_buffer(&BufferDesc::storage(0));
            check_invalid(&made.err().context("it was created")?, "size").map(drop)
        })
        .needs(&[Need::Cuda]),
    ]);
    cases
}

/// The error names the parameter and what is wrong with it.
fn check_invalid<'a>(error: &'a Error, parameter: &str) -> Result<&'a Invalid> {
    let Error::Invalid(invalid) = error else { bail!("{error:?}") };
    ensure!(invalid.parameter.contains(parameter), "not {parameter}: {invalid}");
    ensure!(!invalid.problem.is_empty(), "{invalid:?}");
    Ok(invalid)
}

/// The memory of a new buffer, with a changed description.
fn described(test_gpu: &TestGpu, change: impl FnOnce(&mut MemoryInfo)) -> Result<MemoryPayload> {
    let (fd, mut info) = fds::export(test_gpu)?.1.into_parts().0.into_parts();
    change(&mut info);
    Ok(MemoryPayload::new(fd, info)?)
}

/// Imports and returns the error, after checking that the payload came back with the same number, still
/// open.
fn given_back<T, P: AsFd>(
    payload: P,
    import: impl FnOnce(P) -> Result<T, ImportError<P>>,
) -> Result<(P, Error)> {
    let raw = payload.as_fd().as_raw_fd();
    let (payload, error) = import(payload).err().context("it was imported")?.into_parts();
    check_same_fd(&payload, raw)?;
    Ok((payload, error))
}

fn size_0(test_gpu: &TestGpu, peer: &dyn AnyContext) -> Result<()> {
    leaves_nothing_open(|| {
        let (fd, info) = described(test_gpu, |_| ())?.into_parts();
        let nothing = MemoryInfo { allocation_size: 0, ..info.clone() };
        let (fd, error) = given_back(fd, |fd| MemoryPayload::new(fd, nothing))?;
        check_invalid(&error, "size")?;
        peer.import_memory(MemoryPayload::new(fd, info)?)?;
        Ok(())
    })
}

/// If memory is a file, its length is known. Otherwise the driver reports the error, when the memory is
/// imported or, as CUDA does, when a buffer is placed in it.
fn beyond_the_file(test_gpu: &TestGpu, peer: &dyn AnyContext) -> Result<()> {
    leaves_nothing_open(|| {
        let payload = described(test_gpu, |info| info.allocation_size += 1 << 30)?;
        let imported = given_back(payload, |payload| {
            let payload = BufferPayload::new(payload, 0, fds::desc())?;
            peer.import_buffer(payload)
                .map_err(|refused| refused.map(|payload| payload.into_parts().0))
        });
        match imported?.1 {
            Error::Driver(_) if test_gpu.is_hardware() => Ok(()),
            error => check_invalid(&error, "fd").map(drop),
        }
    })
}

/// Refused when the payload is constructed, and by the memory once it is imported.
fn past_the_end(test_gpu: &TestGpu, peer: &dyn AnyContext) -> Result<()> {
    let size = described(test_gpu, |_| ())?.info().allocation_size;
    let wrong = [(size, 1), (0, size + 1), (1, size), (size - 1, 2), (u64::MAX, 1), (1, u64::MAX)];
    for (offset, bytes) in wrong {
        let payload = described(test_gpu, |_| ())?;
        let (_, error) = given_back(payload, |payload| {
            BufferPayload::new(payload, offset, BufferDesc::storage(bytes))
        })?;
        ensure!(check_invalid(&error, "offset")?.help.is_some(), "{error}");
    }
    let memory = peer.import_memory(described(test_gpu, |_| ())?)?;
    for (offset, bytes) in wrong {
        let refused = memory.buffer(offset, &BufferDesc::storage(bytes));
        check_invalid(&refused.err().context("it fits")?, "offset")?;
    }
    let nothing = memory.buffer(0, &BufferDesc::storage(0));
    check_invalid(&nothing.err().context("size 0 was accepted")?, "size")?;
    let mut whole = memory.buffer(0, &fds::desc())?;
    whole.write(21)?;
    whole.check(21)
}

/// A payload that came back can be imported once its description is corrected.
fn corrected(test_gpu: &TestGpu, peer: &dyn AnyContext) -> Result<()> {
    let (exported, payload) = fds::export(test_gpu)?;
    let (memory, offset, desc) = payload.into_parts();
    let (fd, info) = memory.into_parts();
    let unknown = Identity { device: Uuid::from_bytes([0x5a; 16]), ..info.identity.clone() };
    let wrong = MemoryPayload::new(fd, MemoryInfo { identity: unknown, ..info.clone() })?;
    let (memory, _) = given_back(wrong, |payload| peer.import_memory(payload))?;
    let memory = MemoryPayload::new(memory.into_parts().0, info)?;
    let (memory, _) = given_back(memory, |memory| BufferPayload::new(memory, u64::MAX, desc))?;
    let mut view = peer.import_buffer(BufferPayload::new(memory, offset, desc)?)?;
    check_aliases(&mut View::new(test_gpu.vulkan(), exported), &mut view)
}

fn no_such_type(test_gpu: &TestGpu) -> Result<()> {
    let endpoint = &test_gpu.second_device()?.endpoint;
    let count = endpoint.memory_properties().memory_type_count;
    for index in [count, 32, u32::MAX] {
        let payload = described(test_gpu, |info| info.memory_type_index = Some(index))?;
        let (payload, error) = given_back(payload, |payload| endpoint.import_memory(payload))?;
        let invalid = check_invalid(&error, "memory_type_index")?;
        ensure!(
            invalid.vuid.is_some() && error.to_string().contains(&count.to_string()),
            "{error}"
        );
        let buffer = BufferPayload::new(payload, 0, fds::desc())?;
        let refused = endpoint.import_buffer(buffer).err().context("it was imported")?;
        check_invalid(refused.error(), "memory_type_index")?;
    }
    Ok(())
}

/// An offset that is not a multiple of the buffer's alignment.
fn misaligned(test_gpu: &TestGpu) -> Result<()> {
    let endpoint = &test_gpu.second_device()?.endpoint;
    let small = BufferDesc::storage(BYTES / 2);
    let payload = BufferPayload::new(described(test_gpu, |_| ())?, 1, small)?;
    let refused = endpoint.import_buffer(payload).err().context("it was imported")?;
    ensure!(check_invalid(refused.error(), "offset")?.vuid.is_some(), "{refused}");
    let memory = endpoint.import_memory(described(test_gpu, |_| ())?)?;
    let refused = memory.buffer(1, &small).err().context("it was created")?;
    ensure!(check_invalid(&refused, "offset")?.vuid.is_some(), "{refused}");
    Ok(())
}

/// Longer than the allocation, but not longer than its file: the driver's own error, and the payload comes
/// back.
fn too_long(test_gpu: &TestGpu) -> Result<()> {
    leaves_nothing_open(|| {
        let beyond = if test_gpu.is_hardware() { 1 << 30 } else { 64 };
        let payload = described(test_gpu, |info| info.allocation_size += beyond)?;
        let endpoint = &test_gpu.second_device()?.endpoint;
        let (payload, error) = given_back(payload, |payload| endpoint.import_memory(payload))?;
        let Error::Driver(driver) = &error else { bail!("{error:?}") };
        ensure!(driver.call == "vkAllocateMemory", "{driver}");
        drop(payload);
        Ok(())
    })
}

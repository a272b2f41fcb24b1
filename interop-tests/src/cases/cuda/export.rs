//! Family F: memory that CUDA allocated, exported to Vulkan.

use std::os::fd::{AsFd, AsRawFd};

use anyhow::{Result, bail, ensure};
use gpu_interop::vulkan::BufferOptions;
use gpu_interop::{Api, BufferDesc, Error};

use crate::cases::support::contexts::ApiContext as _;
use crate::cases::support::fds::leave_nothing_open;
use crate::cases::support::payload_user::{PayloadUser, RoundTrip, there_and_back};
use crate::harness::{Case, Need, TestGpu};
use interop_gpu::oracle::{self, Passes};

pub(crate) fn cases() -> Vec<Case> {
    let cuda = |name, run: fn(&TestGpu) -> Result<()>| Case::new(name, run).needs(&[Need::Cuda]);
    vec![
        cuda("cuda→vulkan/opaque_fd/buffer/both_ways/55", both_ways),
        cuda("cuda→vulkan/opaque_fd/buffer/at_an_offset/55", at_an_offset),
        cuda("cuda→vulkan/opaque_fd/buffer/exported_twice/55", exported_twice),
        cuda("cuda→vulkan/opaque_fd/buffer/outlives_cuda/55", outlives_cuda),
        cuda("cuda→vulkan/opaque_fd/buffer/re_export_refused/55", re_export_refused),
        cuda("cuda→vulkan/opaque_fd/buffer/exports_leave_nothing/55", exports_leave_nothing),
        cuda("cuda→vulkan→cuda/opaque_fd/buffer/handoff/55", handed_over),
    ]
}

/// Each API reads what the other wrote, for any size; the payload has the size of CUDA's padded allocation.
fn both_ways(test_gpu: &TestGpu) -> Result<()> {
    let (vulkan, cuda) = (test_gpu.vulkan(), test_gpu.cuda()?);
    for size in [1, 4 << 10, 64 << 10, 2 << 20, (3 << 20) + 17] {
        let mut made = cuda.endpoint.create_buffer(&BufferDesc::storage(size))?;
        ensure!(made.memory().info().allocation_size >= size, "{:?}", made.memory().info());
        let imported = vulkan.endpoint.import_buffer(made.export()?)?;
        cuda.write(&mut made, &oracle::filled(size as usize, 1))?;
        oracle::check(&vulkan.download(imported.handle(), 0, size)?, 1, &Passes::default())?;
        vulkan.upload(imported.handle(), 0, &oracle::filled(size as usize, 2))?;
        oracle::check(&cuda.read(&made)?, 2, &Passes::default())?;
    }
    Ok(())
}

/// Vulkan finds a part of CUDA's allocation at the same place.
fn at_an_offset(test_gpu: &TestGpu) -> Result<()> {
    let (vulkan, cuda) = (test_gpu.vulkan(), test_gpu.cuda()?);
    let mut whole = cuda.endpoint.create_buffer(&BufferDesc::storage(64 << 10))?;
    let part = whole.memory().buffer(16 << 10, &BufferDesc::storage(4 << 10))?;
    cuda.write(&mut whole, &oracle::filled(64 << 10, 1))?;
    let imported = vulkan.endpoint.import_buffer(part.export()?)?;
    ensure!(imported.offset() == 16 << 10, "{imported:?}");
    let mut expected = oracle::filled(64 << 10, 1);
    let seen = vulkan.download(imported.handle(), 0, 4 << 10)?;
    ensure!(seen == expected[16 << 10..20 << 10]);
    let written = oracle::filled(4 << 10, 2);
    vulkan.upload(imported.handle(), 0, &written)?;
    expected[16 << 10..20 << 10].copy_from_slice(&written);
    ensure!(cuda.read(&whole)? == expected);
    Ok(())
}

/// Each export is a new descriptor of the same memory.
fn exported_twice(test_gpu: &TestGpu) -> Result<()> {
    let (first, second) = (test_gpu.vulkan(), test_gpu.second_device()?);
    let cuda = test_gpu.cuda()?;
    let mut made = cuda.endpoint.create_buffer(&BufferDesc::storage(64 << 10))?;
    let payloads = [made.export()?, made.export()?];
    let [here, there] = payloads.each_ref().map(|p| p.memory().as_fd().as_raw_fd());
    ensure!(here != there && here >= 0 && there >= 0, "{here} and {there}");
    let [here, there] = payloads;
    let here = first.endpoint.import_buffer(here)?;
    let there = second.endpoint.import_buffer(there)?;
    cuda.write(&mut made, &oracle::filled(64 << 10, 1))?;
    oracle::check(&first.download(here.handle(), 0, 64 << 10)?, 1, &Passes::default())?;
    oracle::check(&second.download(there.handle(), 0, 64 << 10)?, 1, &Passes::default())?;
    second.upload(there.handle(), 0, &oracle::filled(64 << 10, 2))?;
    oracle::check(&first.download(here.handle(), 0, 64 << 10)?, 2, &Passes::default())?;
    oracle::check(&cuda.read(&made)?, 2, &Passes::default())?;
    Ok(())
}

/// Vulkan's buffer keeps its content after CUDA, which allocated the memory, has freed it.
fn outlives_cuda(test_gpu: &TestGpu) -> Result<()> {
    let (vulkan, cuda) = (test_gpu.vulkan(), test_gpu.cuda()?);
    let mut made = cuda.endpoint.create_buffer(&BufferDesc::storage(64 << 10))?;
    cuda.write(&mut made, &oracle::filled(64 << 10, 1))?;
    let imported = vulkan.endpoint.import_buffer(made.export()?)?;
    drop(made);
    // This would get the memory if it were free.
    let mut next = cuda.endpoint.create_buffer(&BufferDesc::storage(64 << 10))?;
    cuda.write(&mut next, &oracle::filled(64 << 10, 2))?;
    oracle::check(&vulkan.download(imported.handle(), 0, 64 << 10)?, 1, &Passes::default())?;
    Ok(())
}

/// An importer does not export what it imported: its typed error describes what would help.
fn re_export_refused(test_gpu: &TestGpu) -> Result<()> {
    let (vulkan, cuda) = (test_gpu.vulkan(), test_gpu.cuda()?);
    let desc = BufferDesc::storage(4 << 10);
    let by_vulkan = vulkan.endpoint.create_buffer(&desc, BufferOptions::default())?;
    let in_cuda = cuda.endpoint.import_buffer(by_vulkan.export()?)?;
    match in_cuda.export() {
        Err(Error::Missing(missing)) => {
            ensure!(missing.api == Api::Cuda && missing.help.is_some(), "{missing}");
        }
        other => bail!("CUDA exports Vulkan's memory: {other:?}"),
    }
    let by_cuda = cuda.endpoint.create_buffer(&desc)?;
    let in_vulkan = vulkan.endpoint.import_buffer(by_cuda.export()?)?;
    match in_vulkan.export() {
        Err(Error::Invalid(invalid)) => ensure!(invalid.help.is_some(), "{invalid}"),
        other => bail!("Vulkan exports CUDA's memory: {other:?}"),
    }
    Ok(())
}

/// Hundreds of exports and imports leave no descriptor open.
fn exports_leave_nothing(test_gpu: &TestGpu) -> Result<()> {
    let (vulkan, cuda) = (test_gpu.vulkan(), test_gpu.cuda()?);
    leave_nothing_open(300, || {
        let made = cuda.endpoint.create_buffer(&BufferDesc::storage(4 << 10))?;
        let unused = made.export()?;
        let imported = vulkan.endpoint.import_buffer(unused.try_clone()?)?;
        drop((unused, imported, made));
        Ok(())
    })
}

/// CUDA's own memory is handed to Vulkan and back.
fn handed_over(test_gpu: &TestGpu) -> Result<()> {
    let (vulkan, cuda) = (test_gpu.vulkan(), test_gpu.cuda()?);
    let made = cuda.endpoint.create_buffer(&BufferDesc::storage(256 << 10))?;
    let mut there = PayloadUser::import(vulkan, made.export()?)?;
    let mut here = PayloadUser::new(cuda, made)?;
    there_and_back(&vulkan.endpoint, (&mut here, &mut there), RoundTrip::of(20))?;
    Ok(())
}

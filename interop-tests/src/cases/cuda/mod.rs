//! Family F: CUDA. A buffer's bytes both ways, at an offset, and in cudarc's copies and launches.

pub(crate) mod capture;
pub(crate) mod export;
pub(crate) mod graph;
pub(crate) mod raw;
pub(crate) mod refusals;
pub(crate) mod semaphores;

use anyhow::{Result, bail, ensure};
use gpu_interop::vulkan::{BufferOptions, DedicatedAllocation};
use gpu_interop::{Api, BufferDesc, Error, cuda, headless};

use crate::cases::support::contexts::ApiContext as _;
use crate::harness::{Case, Need, TestGpu};
use interop_gpu::Kernel;
use interop_gpu::cuda::CudaContext;
use interop_gpu::oracle::{self, Passes};

pub(crate) fn cases() -> Vec<Case> {
    let cuda = |name, run: fn(&TestGpu) -> Result<()>| Case::new(name, run).needs(&[Need::Cuda]);
    vec![
        Case::new("cuda/libcuda/absent_or_ready/50", absent_or_ready),
        cuda("vulkan→cuda/opaque_fd/buffer/both_ways/50", both_ways),
        cuda("vulkan→cuda/opaque_fd/buffer/at_an_offset/50", at_an_offset),
        cuda("vulkan→cuda/opaque_fd/buffer/two_views_of_one_memory/50", two_views),
        cuda("vulkan→cuda/opaque_fd/buffer/kernel/56", kernel),
        cuda("vulkan→cuda/opaque_fd/buffer/typed_views/56", typed_views),
        cuda("vulkan→cuda/opaque_fd/buffer/copies_to_and_from_private/56", private_copies),
        cuda("vulkan→cuda/opaque_fd/buffer/two_streams_in_order/56", two_streams),
    ]
}

/// Without libcuda, every way to open CUDA returns a typed error and nothing panics; with it, CUDA is ready.
fn absent_or_ready(test_gpu: &TestGpu) -> Result<()> {
    let opened = headless::Cuda::open(test_gpu.selector()).map(drop);
    let answers = [cuda::require(), cuda::devices().map(drop), opened];
    ensure!(cuda::is_available() == answers[0].is_ok());
    if test_gpu.cuda().is_ok() {
        return answers.into_iter().try_for_each(|answer| Ok(answer?));
    }
    for answer in answers {
        match answer {
            Err(Error::Missing(missing)) => {
                ensure!(missing.api == Api::Cuda && missing.help.is_some(), "{missing}");
                let what = &missing.what;
                let is_known = |what: &str| what.contains("libcuda") || what.starts_with("cu");
                ensure!(is_known(what) || what.contains("visible device"), "{missing}");
            }
            // libcuda without a GPU.
            Err(Error::Driver(driver)) => ensure!(driver.call == "cuInit", "{driver}"),
            other => bail!("{other:?}"),
        }
    }
    Ok(())
}

/// Each API reads what the other wrote, for any size, in dedicated memory and not.
fn both_ways(test_gpu: &TestGpu) -> Result<()> {
    let (vulkan, cuda) = (test_gpu.vulkan(), test_gpu.cuda()?);
    for dedicated in [DedicatedAllocation::Always, DedicatedAllocation::Avoid] {
        for size in [1, 1 << 10, 4 << 10, 64 << 10, 2 << 20, (3 << 20) + 17] {
            let options = BufferOptions { dedicated, ..BufferOptions::default() };
            let made = vulkan.endpoint.create_buffer(&BufferDesc::storage(size), options)?;
            let mut imported = cuda.endpoint.import_buffer(made.export()?)?;
            ensure!(imported.len() == size);
            vulkan.upload(made.handle(), 0, &oracle::filled(size as usize, 1))?;
            oracle::check(&cuda.read(&imported)?, 1, &Passes::default())?;
            cuda.write(&mut imported, &oracle::filled(size as usize, 2))?;
            oracle::check(&vulkan.download(made.handle(), 0, size)?, 2, &Passes::default())?;
        }
    }
    Ok(())
}

/// CUDA sees a buffer between two others at its place, and leaves its neighbours unchanged.
fn at_an_offset(test_gpu: &TestGpu) -> Result<()> {
    let (vulkan, cuda) = (test_gpu.vulkan(), test_gpu.cuda()?);
    let descs = [4 << 10, 64 << 10, 4 << 10].map(BufferDesc::storage);
    let made = vulkan.endpoint.create_buffers(&descs, BufferOptions::default())?;
    for (buffer, seed) in made.iter().zip(1..) {
        vulkan.upload(buffer.handle(), 0, &oracle::filled(buffer.desc().size as usize, seed))?;
    }
    let mut middle = cuda.endpoint.import_buffer(made[1].export()?)?;
    ensure!(middle.offset() == made[1].offset() && middle.offset() > 0, "{middle:?}");
    oracle::check(&cuda.read(&middle)?, 2, &Passes::default())?;
    cuda.write(&mut middle, &oracle::filled(64 << 10, 4))?;
    for (buffer, seed) in made.iter().zip([1, 4, 3]) {
        let bytes = vulkan.download(buffer.handle(), 0, buffer.desc().size)?;
        oracle::check(&bytes, seed, &Passes::default())?;
    }
    Ok(())
}

/// Two buffers of one imported allocation that overlap, at any byte, see each other's writes.
fn two_views(test_gpu: &TestGpu) -> Result<()> {
    const OFFSET: usize = 1001;
    let (vulkan, cuda) = (test_gpu.vulkan(), test_gpu.cuda()?);
    let desc = BufferDesc::storage(64 << 10);
    let made = vulkan.endpoint.create_buffer(&desc, BufferOptions::default())?;
    vulkan.upload(made.handle(), 0, &oracle::filled(64 << 10, 1))?;
    let memory = cuda.endpoint.import_memory(made.memory().export()?)?;
    let whole = memory.buffer(0, &desc)?;
    let mut part = memory.buffer(OFFSET as u64, &BufferDesc::storage(77))?;
    drop(memory);
    let expected = oracle::filled(64 << 10, 1);
    ensure!(cuda.read(&part)? == expected[OFFSET..OFFSET + 77]);
    let piece = oracle::filled(77, 2);
    cuda.write(&mut part, &piece)?;
    let expected = [&expected[..OFFSET], &piece, &expected[OFFSET + 77..]].concat();
    ensure!(cuda.read(&whole)? == expected, "the other view in CUDA");
    ensure!(vulkan.download(made.handle(), 0, desc.size)? == expected, "Vulkan");
    Ok(())
}

/// A kernel gets the whole buffer, then a slice of it, as it would of cudarc's own memory.
fn kernel(test_gpu: &TestGpu) -> Result<()> {
    let (vulkan, cuda) = (test_gpu.vulkan(), test_gpu.cuda()?);
    let desc = BufferDesc::storage(64 << 10);
    let made = vulkan.endpoint.create_buffer(&desc, BufferOptions::default())?;
    let mut imported = cuda.endpoint.import_buffer(made.export()?)?;
    let mut view = imported.as_view_mut::<u8>()?;
    cuda.launch(Kernel::Fill { seed: 1 }, &mut view, 0)?;
    cuda.launch(Kernel::Fill { seed: 2 }, &mut view.slice_mut(4096..8192), 0)?;
    cuda.stream.synchronize()?;
    let mut expected = oracle::filled(64 << 10, 1);
    expected[4096..8192].copy_from_slice(&oracle::filled(4096, 2));
    ensure!(vulkan.download(made.handle(), 0, desc.size)? == expected);
    Ok(())
}

/// The buffer as integers and as vectors of integers; a type that doesn't fit is refused.
fn typed_views(test_gpu: &TestGpu) -> Result<()> {
    let (vulkan, cuda) = (test_gpu.vulkan(), test_gpu.cuda()?);
    let desc = BufferDesc::storage(4 << 10);
    let made = vulkan.endpoint.create_buffer(&desc, BufferOptions::default())?;
    let mut imported = cuda.endpoint.import_buffer(made.export()?)?;
    let words: Vec<u32> = (0..1024).map(|word| oracle::hash(word, 3)).collect();
    cuda.stream.memcpy_htod(&words, &mut imported.as_view_mut::<u32>()?)?;
    cuda.stream.synchronize()?;
    oracle::check(&vulkan.download(made.handle(), 0, desc.size)?, 3, &Passes::default())?;
    let vectors = cuda.stream.clone_dtoh(&imported.as_view::<[u32; 4]>()?)?;
    cuda.stream.synchronize()?;
    ensure!(vectors.len() == 256 && vectors.as_flattened() == words);

    let memory = imported.memory().clone();
    let mut odd = memory.buffer(0, &BufferDesc::storage(17))?;
    let mut misaligned = memory.buffer(2, &BufferDesc::storage(16))?;
    for refused in [odd.as_view_mut::<u32>().err(), misaligned.as_view_mut::<u32>().err()] {
        ensure!(matches!(refused, Some(Error::Invalid(_))), "{refused:?}");
    }
    Ok(())
}

/// Copies on the device between shared memory and CUDA's private memory.
fn private_copies(test_gpu: &TestGpu) -> Result<()> {
    const BYTES: usize = 64 << 10;
    let (vulkan, cuda) = (test_gpu.vulkan(), test_gpu.cuda()?);
    let desc = BufferDesc::storage(BYTES as u64);
    let made = vulkan.endpoint.create_buffer(&desc, BufferOptions::default())?;
    let mut imported = cuda.endpoint.import_buffer(made.export()?)?;
    let mut private = cuda.private_buffer(desc.size)?;
    vulkan.upload(made.handle(), 0, &oracle::filled(BYTES, 1))?;
    cuda.stream.memcpy_dtod(&imported.as_view::<u8>()?, &mut private)?;
    oracle::check(&cuda.stream.clone_dtoh(&private)?, 1, &Passes::default())?;
    cuda.stream.memcpy_htod(&oracle::filled(BYTES, 2), &mut private)?;
    cuda.stream.memcpy_dtod(&private, &mut imported.as_view_mut::<u8>()?)?;
    cuda.stream.synchronize()?;
    oracle::check(&vulkan.download(made.handle(), 0, desc.size)?, 2, &Passes::default())?;
    Ok(())
}

/// cudarc orders the uses of an imported buffer in two streams, as it does for its own slices.
fn two_streams(test_gpu: &TestGpu) -> Result<()> {
    let (vulkan, one) = (test_gpu.vulkan(), test_gpu.cuda()?);
    let other = CudaContext::new(one.cuda.clone())?;
    let desc = BufferDesc::storage(1 << 20);
    let made = vulkan.endpoint.create_buffer(&desc, BufferOptions::default())?;
    let mut imported = one.endpoint.import_buffer(made.export()?)?;
    one.launch(Kernel::Fill { seed: 1 }, &mut imported.as_view_mut::<u8>()?, 0)?;
    let mut turns = Passes::default();
    for step in 1..=200 {
        let gpu = if step % 2 == 0 { one } else { &other };
        gpu.launch(Kernel::PingPong { step }, &mut imported.as_view_mut::<u8>()?, 0)?;
        turns.then(step);
    }
    one.stream.synchronize()?;
    other.stream.synchronize()?;
    oracle::check(&vulkan.download(made.handle(), 0, desc.size)?, 1, &turns)?;
    Ok(())
}

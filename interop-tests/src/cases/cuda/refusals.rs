//! Family F: what is refused before CUDA's driver sees it, and given back.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use anyhow::{Result, bail, ensure};
use gpu_interop::cudarc::driver::CudaContext;
use gpu_interop::fd::{MemoryHandleType, SemaphoreHandleType};
use gpu_interop::payload::{MemoryInfo, SemaphoreInfo};
use gpu_interop::{
    Api, BufferDesc, BufferUsage, Error, MemoryPayload, SemaphoreKind, SemaphorePayload, Uuid,
};

use crate::cases::cuda::semaphores::SignalOnDrop;
use crate::cases::support::fds::given_back;
use crate::harness::{Case, Need, TestGpu};

pub(crate) fn cases() -> Vec<Case> {
    let cuda = |name, run: fn(&TestGpu) -> Result<()>| Case::new(name, run).needs(&[Need::Cuda]);
    let binary = Need::Semaphore(Api::Cuda, SemaphoreKind::Binary);
    let timeline = Need::Semaphore(Api::Cuda, SemaphoreKind::Timeline);
    vec![
        cuda("cuda/none/buffer/descriptions_refused/51", descriptions),
        cuda("vulkan→cuda/opaque_fd/buffer/past_the_end_refused/51", ranges),
        cuda("vulkan→cuda/opaque_fd/memory/payloads_refused/51", memory_payloads),
        cuda("vulkan→cuda/opaque_fd/memory/descriptors_refused/51", memory_descriptors),
        cuda("vulkan→cuda/opaque_fd/semaphore/payloads_refused/51", semaphore_payloads)
            .needs(&[binary]),
        cuda("vulkan→cuda/opaque_fd/semaphore/invalid_values_are_refused/51", semaphore_values)
            .needs(&[binary, timeline]),
        cuda("vulkan→cuda/opaque_fd/semaphore/foreign_stream_refused/51", foreign_stream)
            .needs(&[timeline]),
    ]
}

/// Size 0, no usage, and a size beyond any address.
fn descriptions(test_gpu: &TestGpu) -> Result<()> {
    let cuda = test_gpu.cuda()?;
    let usage = |bits| BufferDesc { usage: BufferUsage::from_bits_retain(bits), size: 64 };
    let bad = [
        (BufferDesc::storage(0), "size"),
        (BufferDesc::storage(u64::MAX), "size"),
        (usage(0), "usage"),
    ];
    for (desc, field) in bad {
        match cuda.endpoint.create_buffer(&desc) {
            Err(Error::Invalid(invalid)) => ensure!(invalid.parameter.contains(field), "{invalid}"),
            other => bail!("{desc:?} gives {other:?}"),
        }
    }
    // A valid size that no GPU has.
    let huge = cuda.endpoint.create_buffer(&BufferDesc::storage(1 << 56));
    ensure!(matches!(huge, Err(Error::Driver(_))), "{huge:?}");
    Ok(())
}

/// A buffer that reaches past the end of its memory.
fn ranges(test_gpu: &TestGpu) -> Result<()> {
    let (vulkan, cuda) = (test_gpu.vulkan(), test_gpu.cuda()?);
    let made = vulkan.endpoint.create_buffer(&BufferDesc::storage(4096), Default::default())?;
    let memory = cuda.endpoint.import_memory(made.memory().export()?)?;
    let end = memory.info().allocation_size;
    for (offset, size) in [(0, end + 1), (1, end), (end, 1), (u64::MAX, 1), (1, u64::MAX)] {
        match memory.buffer(offset, &BufferDesc::storage(size)) {
            Err(Error::Invalid(invalid)) => ensure!(invalid.help.is_some(), "{invalid}"),
            other => bail!("{size} bytes at {offset} of {end} give {other:?}"),
        }
    }
    let nothing = memory.buffer(0, &BufferDesc::storage(0));
    ensure!(matches!(nothing, Err(Error::Invalid(_))), "{nothing:?}");
    memory.buffer(end - 1, &BufferDesc::storage(1))?;
    Ok(())
}

/// Valid memory with wrong information: size 0, another GPU, a handle type that CUDA doesn't support.
fn memory_payloads(test_gpu: &TestGpu) -> Result<()> {
    let (vulkan, cuda) = (test_gpu.vulkan(), test_gpu.cuda()?);
    let made = vulkan.endpoint.create_buffer(&BufferDesc::storage(4096), Default::default())?;
    let with = |change: fn(&mut MemoryInfo)| -> Result<Error> {
        let (fd, mut info) = made.memory().export()?.into_parts();
        change(&mut info);
        given_back(fd, |fd| {
            let refused = cuda.endpoint.import_memory(MemoryPayload::new(fd, info)?);
            refused.map_err(|refused| refused.map(|payload| payload.into_parts().0))
        })
    };
    let empty = with(|info| info.allocation_size = 0)?;
    ensure!(matches!(&empty, Error::Invalid(i) if i.parameter.contains("size")), "{empty:?}");
    let foreign = with(|info| info.identity.device = Uuid::from_bytes([0x5a; 16]))?;
    let own = vulkan.vulkan.identity().device.to_string();
    let both =
        |m: &gpu_interop::error::Mismatch| m.expected.contains("5a5a") && m.found.contains(&own);
    ensure!(matches!(&foreign, Error::Mismatch(m) if both(m)), "{foreign:?}");
    let dma_buf = with(|info| info.handle_type = MemoryHandleType::DmaBuf)?;
    // Either is right: CUDA imports no dma-buf, and the descriptor is not one.
    ensure!(matches!(&dma_buf, Error::Missing(_) | Error::Invalid(_)), "{dma_buf:?}");
    let capabilities = cuda.endpoint.capabilities(&(*made.desc()).into())?;
    let dma_buf = capabilities.memory(MemoryHandleType::DmaBuf)?;
    ensure!(dma_buf.import.is_err() && dma_buf.export.is_err(), "{dma_buf:?}");
    // The memory is still usable.
    cuda.endpoint.import_memory(made.memory().export()?)?;
    Ok(())
}

/// Valid information with a descriptor that is not memory.
fn memory_descriptors(test_gpu: &TestGpu) -> Result<()> {
    let (vulkan, cuda) = (test_gpu.vulkan(), test_gpu.cuda()?);
    let made = vulkan.endpoint.create_buffer(&BufferDesc::storage(4096), Default::default())?;
    for fd in not_ours()? {
        let info = made.memory().info().clone();
        let payload = MemoryPayload::new(fd, info)?;
        let error = given_back(payload, |payload| cuda.endpoint.import_memory(payload))?;
        ensure!(matches!(&error, Error::Invalid(i) if i.help.is_some()), "{error:?}");
    }
    Ok(())
}

/// A sync fd, a timeline as a sync fd, another GPU's semaphore, and descriptors that are no semaphore.
fn semaphore_payloads(test_gpu: &TestGpu) -> Result<()> {
    let (vulkan, cuda) = (test_gpu.vulkan(), test_gpu.cuda()?);
    let made = vulkan.endpoint.create_semaphore(SemaphoreKind::Binary)?;
    let import = |fd, info| {
        given_back(fd, |fd| {
            let refused = cuda.endpoint.import_semaphore(SemaphorePayload::new(fd, info)?);
            refused.map_err(|refused| refused.map(|payload| payload.into_parts().0))
        })
    };
    let with = |change: fn(&mut SemaphoreInfo)| -> Result<Error> {
        let (fd, mut info) = made.export()?.into_parts();
        change(&mut info);
        import(fd, info)
    };
    let sync_fd = with(|info| info.handle_type = SemaphoreHandleType::SyncFd)?;
    ensure!(matches!(&sync_fd, Error::Missing(m) if m.api == Api::Cuda), "{sync_fd:?}");
    let timeline = with(|info| {
        info.handle_type = SemaphoreHandleType::SyncFd;
        info.kind = SemaphoreKind::Timeline;
    })?;
    ensure!(matches!(timeline, Error::Invalid(_)), "{timeline:?}");
    let foreign = with(|info| info.identity.device = Uuid::from_bytes([0x5a; 16]))?;
    ensure!(matches!(foreign, Error::Mismatch(_)), "{foreign:?}");
    for fd in not_ours()? {
        let error = import(fd, made.export()?.info().clone())?;
        ensure!(matches!(&error, Error::Invalid(i) if i.help.is_some()), "{error:?}");
    }
    cuda.endpoint.import_semaphore(made.export()?)?;
    Ok(())
}

/// A value for a binary semaphore, none for a timeline, and a signal of 0: refused, and nothing of the call
/// is done.
fn semaphore_values(test_gpu: &TestGpu) -> Result<()> {
    let (vulkan, cuda) = (test_gpu.vulkan(), test_gpu.cuda()?);
    // A stream of its own: if a wait that never ends were accepted, it must not block the other cases.
    let (endpoint, stream) = (&cuda.endpoint, &cuda.cuda.context().new_stream()?);
    let binary_semaphore = vulkan.endpoint.create_semaphore(SemaphoreKind::Binary)?;
    let counter = vulkan.endpoint.create_semaphore(SemaphoreKind::Timeline)?;
    let binary = endpoint.import_semaphore(binary_semaphore.export()?)?;
    let timeline = endpoint.import_semaphore(counter.export()?)?;
    let refused = [
        endpoint.wait(stream, &binary, Some(1)),
        endpoint.signal(stream, &binary, Some(1)),
        endpoint.wait(stream, &timeline, None),
        endpoint.signal(stream, &timeline, None),
        endpoint.signal(stream, &timeline, Some(0)),
        endpoint.signal_many(stream, &[(&timeline, Some(1)), (&binary, Some(1))]),
    ];
    for answer in refused {
        match answer {
            Err(Error::Invalid(invalid)) => ensure!(invalid.help.is_some(), "{invalid}"),
            other => bail!("{other:?}"),
        }
    }
    stream.synchronize()?;
    ensure!(counter.value()? == 0, "a part of a refused call was done");
    Ok(())
}

/// A stream of another context of the same GPU.
fn foreign_stream(test_gpu: &TestGpu) -> Result<()> {
    let (vulkan, cuda) = (test_gpu.vulkan(), test_gpu.cuda()?);
    let counter = vulkan.endpoint.create_semaphore(SemaphoreKind::Timeline)?;
    let timeline = cuda.endpoint.import_semaphore(counter.export()?)?;
    let other = CudaContext::new_non_primary(cuda.cuda.context().ordinal(), 0)?;
    let _end = SignalOnDrop(&counter);
    for stream in [other.new_stream()?, other.default_stream()] {
        let answers = [
            cuda.endpoint.wait(&stream, &timeline, Some(1)),
            cuda.endpoint.signal(&stream, &timeline, Some(1)),
            cuda.endpoint.fence(&stream).map(drop),
        ];
        for answer in answers {
            ensure!(matches!(answer, Err(Error::Mismatch(_))), "{answer:?}");
        }
    }
    ensure!(counter.value()? == 0);
    Ok(())
}

/// Descriptors that are neither memory nor a semaphore of a GPU.
fn not_ours() -> Result<[OwnedFd; 4]> {
    let (socket, _) = UnixStream::pair()?;
    let device = File::open("/dev/null")?;
    let directory = File::open("/proc/self")?;
    let empty_file = File::open("/proc/self/cmdline")?;
    Ok([socket.into(), device.into(), directory.into(), empty_file.into()])
}

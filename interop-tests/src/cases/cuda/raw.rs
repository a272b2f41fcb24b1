//! Family F: an app's own CUDA objects. Contexts, memory of the virtual-memory API, and bare handles.

use std::ffi::c_int;
use std::mem::MaybeUninit;
use std::ptr;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use gpu_interop::cuda::Endpoint;
use gpu_interop::cudarc::driver::{CudaContext, sys};
use gpu_interop::vulkan::BufferOptions;
use gpu_interop::{Api, BufferDesc, Error, SemaphoreKind};

use crate::harness::{Case, Need, TestGpu};
use interop_gpu::Kernel;
use interop_gpu::oracle::{self, Passes};

const MIB: usize = 1 << 20;

pub(crate) fn cases() -> Vec<Case> {
    let cuda = |name, run: fn(&TestGpu) -> Result<()>| Case::new(name, run).needs(&[Need::Cuda]);
    let timeline = Need::Semaphore(Api::Cuda, SemaphoreKind::Timeline);
    vec![
        cuda("cuda→vulkan/opaque_fd/buffer/adopted_memory/55a", adopted),
        cuda("cuda→vulkan/opaque_fd/memory/adoption_refused/55b", adoption_refused),
        cuda("vulkan→cuda/opaque_fd/buffer/suballocations_of_one_import/50a", suballocations),
        cuda("vulkan→cuda/opaque_fd/buffer/raw_context/50b", raw_context).needs(&[timeline]),
        cuda("vulkan→cuda/opaque_fd/timeline/raw_handles/53e", raw_handles).needs(&[timeline]),
    ]
}

fn check(result: sys::CUresult) -> Result<()> {
    ensure!(result == sys::CUresult::CUDA_SUCCESS, "{result:?}");
    Ok(())
}

/// Memory that the app creates: released when this is dropped.
struct AppMemory(sys::CUmemGenericAllocationHandle);

impl AppMemory {
    /// `handle_types` are those of `CUmemAllocationHandleType`.
    fn new(test_gpu: &TestGpu, size: usize, handle_types: u32) -> Result<Self> {
        let context = test_gpu.cuda()?.cuda.context();
        context.bind_to_thread()?;
        let mut prop = MaybeUninit::<sys::CUmemAllocationProp>::zeroed();
        let at = prop.as_mut_ptr();
        let mut handle = 0;
        // SAFETY: the enums are written, the location as the two integers it consists of in C; all other
        // fields may be zero. The context is current, and `handle` is writable.
        unsafe {
            (&raw mut (*at).type_).write(sys::CUmemAllocationType::CU_MEM_ALLOCATION_TYPE_PINNED);
            (&raw mut (*at).requestedHandleTypes).cast::<u32>().write(handle_types);
            let location = (&raw mut (*at).location).cast::<c_int>();
            location.write(sys::CUmemLocationType::CU_MEM_LOCATION_TYPE_DEVICE as c_int);
            location.add(1).write(context.cu_device());
            check(sys::cuMemCreate(&mut handle, size, prop.as_ptr(), 0))?;
        }
        Ok(Self(handle))
    }
}

impl Drop for AppMemory {
    fn drop(&mut self) {
        // SAFETY: created once, released once, here.
        let _ = unsafe { sys::cuMemRelease(self.0) };
    }
}

/// Memory that the app allocated is exported, after the app has released its handle.
fn adopted(test_gpu: &TestGpu) -> Result<()> {
    const BYTES: u64 = 64 << 10;
    let (vulkan, cuda) = (test_gpu.vulkan(), test_gpu.cuda()?);
    let app = AppMemory::new(test_gpu, 4 * MIB, 1)?;
    // SAFETY: the handle is valid, and the size that of its creation.
    let memory = unsafe { cuda.endpoint.adopt_memory(app.0, 4 * MIB as u64) }?;
    drop(app);
    ensure!(memory.info().allocation_size == 4 * MIB as u64, "{:?}", memory.info());
    ensure!(memory.handle().is_none() && memory.allocation_handle().is_some_and(|own| own != 0));
    let mut whole = memory.buffer(0, &BufferDesc::storage(BYTES))?;
    let part = memory.buffer(4 << 10, &BufferDesc::storage(4 << 10))?;
    drop(memory);
    let imported = vulkan.endpoint.import_buffer(whole.export()?)?;
    let in_part = vulkan.endpoint.import_buffer(part.export()?)?;
    cuda.launch(Kernel::Fill { seed: 1 }, &mut whole.as_view_mut::<u8>()?, 0)?;
    cuda.stream.synchronize()?;
    oracle::check(&vulkan.download(imported.handle(), 0, BYTES)?, 1, &Passes::default())?;
    let filled = oracle::filled(BYTES as usize, 1);
    ensure!(vulkan.download(in_part.handle(), 0, 4 << 10)? == filled[4 << 10..8 << 10]);
    vulkan.upload(imported.handle(), 0, &oracle::filled(BYTES as usize, 2))?;
    let found = cuda.stream.clone_dtoh(&whole.as_view::<u8>()?)?;
    oracle::check(&found, 2, &Passes::default())?;
    Ok(cuda.cuda.context().check_err()?)
}

/// Memory without descriptors, and sizes that no allocation has.
fn adoption_refused(test_gpu: &TestGpu) -> Result<()> {
    let cuda = test_gpu.cuda()?;
    let private = AppMemory::new(test_gpu, 2 * MIB, 0)?;
    let shared = AppMemory::new(test_gpu, 2 * MIB, 1)?;
    for (app, size) in [(&private, 2 * MIB), (&shared, 0), (&shared, 4097), (&shared, usize::MAX)] {
        // SAFETY: the handles are valid; the wrong sizes are refused before they are used.
        match unsafe { cuda.endpoint.adopt_memory(app.0, size as u64) } {
            Err(Error::Invalid(_)) => {}
            other => bail!("{size}: {other:?}"),
        }
    }
    // SAFETY: the handle is valid, and the size that of its creation.
    drop(unsafe { cuda.endpoint.adopt_memory(shared.0, 2 * MIB as u64) }?);
    Ok(cuda.cuda.context().check_err()?)
}

/// Many buffers in one allocation, which is imported once.
fn suballocations(test_gpu: &TestGpu) -> Result<()> {
    let (vulkan, cuda) = (test_gpu.vulkan(), test_gpu.cuda()?);
    let descs = [BufferDesc::storage(16 << 10); 64];
    let made = vulkan.endpoint.create_buffers(&descs, BufferOptions::default())?;
    for (buffer, seed) in made.iter().zip(1..) {
        vulkan.upload(buffer.handle(), 0, &oracle::filled(16 << 10, seed))?;
    }
    let memory = cuda.endpoint.import_memory(made[0].memory().export()?)?;
    let place =
        |buffer: &gpu_interop::vulkan::Buffer| memory.buffer(buffer.offset(), buffer.desc());
    let mut parts = made.iter().map(place).collect::<Result<Vec<_>, _>>()?;
    drop(memory);
    for (part, seed) in parts.iter_mut().zip(1..) {
        let found = cuda.stream.clone_dtoh(&part.as_view::<u8>()?)?;
        oracle::check(&found, seed, &Passes::default())?;
        cuda.launch(Kernel::Fill { seed: seed + 100 }, &mut part.as_view_mut::<u8>()?, 0)?;
    }
    // The memory lives as long as any of them.
    let mut last = parts.split_off(63);
    drop(parts);
    cuda.launch(Kernel::Fill { seed: 7 }, &mut last[0].as_view_mut::<u8>()?, 0)?;
    cuda.stream.synchronize()?;
    for (buffer, seed) in made.iter().zip((101..164).chain([7])) {
        let bytes = vulkan.download(buffer.handle(), 0, 16 << 10)?;
        oracle::check(&bytes, seed, &Passes::default())?;
    }
    Ok(())
}

/// A bare context of the app's is borrowed, and stays usable and current as before.
fn raw_context(test_gpu: &TestGpu) -> Result<()> {
    let (vulkan, cuda) = (test_gpu.vulkan(), test_gpu.cuda()?);
    let current = || -> Result<sys::CUcontext> {
        let mut current = ptr::null_mut();
        // SAFETY: libcuda is initialised, and `current` is writable.
        check(unsafe { sys::cuCtxGetCurrent(&mut current) })?;
        Ok(current)
    };
    let app = CudaContext::new_non_primary(cuda.cuda.context().ordinal(), 0)?;
    cuda.cuda.context().bind_to_thread()?;
    let before = current()?;
    let counter = vulkan.endpoint.create_semaphore(SemaphoreKind::Timeline)?;
    let made = vulkan.endpoint.create_buffer(&BufferDesc::storage(4096), Default::default())?;
    vulkan.upload(made.handle(), 0, &oracle::filled(4096, 3))?;
    for bare in [app.cu_ctx(), cuda.cuda.context().cu_ctx()] {
        // SAFETY: the context is valid, and outlives the endpoint and what is made from it.
        let endpoint = unsafe { Endpoint::from_raw(bare) }?;
        ensure!(current()? == before, "another context is current");
        ensure!(endpoint.identities() == cuda.endpoint.identities());
        let imported = endpoint.import_buffer(made.export()?)?;
        let there = endpoint.import_semaphore(counter.export()?)?;
        ensure!(current()? == before, "another context is current after imports");
        let value = counter.value()? + 1;
        let stream = endpoint.context().default_stream();
        endpoint.signal(&stream, &there, Some(value))?;
        counter.wait(value, Duration::from_secs(10))?;
        let found = stream.clone_dtoh(&imported.as_view::<u8>()?)?;
        oracle::check(&found, 3, &Passes::default())?;
        endpoint.context().check_err()?;
        drop((imported, there, stream, endpoint));
        cuda.cuda.context().bind_to_thread()?;
    }
    // The app's contexts still work.
    app.new_stream()?.synchronize()?;
    cuda.cuda.context().bind_to_thread()?;
    Ok(cuda.stream.synchronize()?)
}

/// The app's own calls with the bare handles of what was imported.
fn raw_handles(test_gpu: &TestGpu) -> Result<()> {
    let (vulkan, cuda) = (test_gpu.vulkan(), test_gpu.cuda()?);
    let counter = vulkan.endpoint.create_semaphore(SemaphoreKind::Timeline)?;
    let there = cuda.endpoint.import_semaphore(counter.export()?)?;
    let mut params = MaybeUninit::<sys::CUDA_EXTERNAL_SEMAPHORE_SIGNAL_PARAMS>::zeroed();
    // SAFETY: zero is a value of all fields. The semaphore and the stream are alive and of the context that
    // is current; it is waited for below.
    unsafe {
        (&raw mut (*params.as_mut_ptr()).params.fence.value).write(9);
        cuda.cuda.context().bind_to_thread()?;
        let (semaphore, stream) = (there.handle(), cuda.stream.cu_stream());
        check(sys::cuSignalExternalSemaphoresAsync(&semaphore, params.as_ptr(), 1, stream))?;
    }
    counter.wait(9, Duration::from_secs(10))?;
    cuda.stream.synchronize()?;

    let made = vulkan.endpoint.create_buffer(&BufferDesc::storage(4096), Default::default())?;
    let memory = cuda.endpoint.import_memory(made.memory().export()?)?;
    ensure!(memory.allocation_handle().is_none());
    let external = memory.handle().filter(|handle| !handle.is_null());
    let Some(external) = external else { bail!("no handle: {memory:?}") };
    let part = sys::CUDA_EXTERNAL_MEMORY_BUFFER_DESC {
        offset: 0,
        size: memory.info().allocation_size,
        flags: 0,
        reserved: [0; 16],
    };
    let mut address = 0;
    // SAFETY: the handle is alive, the range is the whole memory, and the mapping is freed before it.
    unsafe {
        check(sys::cuExternalMemoryGetMappedBuffer(&mut address, external, &part))?;
        check(sys::cuMemFree_v2(address))
    }
}

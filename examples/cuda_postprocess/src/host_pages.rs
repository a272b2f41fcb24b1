//! Pinned host memory for the copies that sharing is compared with.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ffi::c_void;
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use gpu_interop::ash::{self, vk};
use gpu_interop::cuda::Array;
use gpu_interop::cudarc::driver::{CudaContext, CudaStream, sys};
use interop_gpu::vulkan::{PrivateBuffer, VulkanContext};

/// The alignment that Vulkan requires of imported host memory; at most 4 KiB on most drivers.
const ALIGNMENT: usize = 64 << 10;

/// Pages that CUDA has pinned, and Vulkan too if it can import host memory (`VK_EXT_external_memory_host`):
/// then both copy to and from the same pages. Otherwise Vulkan has a separate buffer, and the host copies
/// between the two.
#[derive(Debug)]
pub(crate) struct HostPages {
    vulkan: Side,
    pages: Pinned,
}

#[derive(Debug)]
enum Side {
    /// Not used by Vulkan.
    None,
    Imported(ImportedBuffer),
    Staging(PrivateBuffer),
}

impl HostPages {
    /// Allocates `bytes` bytes for CUDA only.
    pub(crate) fn of_cuda(context: &Arc<CudaContext>, bytes: usize) -> Result<Self> {
        Ok(Self { vulkan: Side::None, pages: Pinned::new(context, bytes)? })
    }

    /// Allocates `bytes` bytes for CUDA and Vulkan.
    pub(crate) fn of_both(
        context: &Arc<CudaContext>,
        gpu: &VulkanContext,
        bytes: usize,
    ) -> Result<Self> {
        let pages = Pinned::new(context, bytes)?;
        let vulkan = match ImportedBuffer::new(gpu, &pages) {
            Some(imported) => Side::Imported(imported),
            None => Side::Staging(PrivateBuffer::host(&gpu.vulkan, bytes as u64)?),
        };
        Ok(Self { vulkan, pages })
    }

    /// Whether both APIs use the same pages, so that the host copies nothing.
    pub(crate) fn are_common(&self) -> bool {
        matches!(self.vulkan, Side::Imported(_))
    }

    /// Vulkan's buffer.
    pub(crate) fn buffer(&self) -> Result<vk::Buffer> {
        match &self.vulkan {
            Side::Imported(imported) => Ok(imported.buffer),
            Side::Staging(staging) => Ok(staging.buffer),
            Side::None => anyhow::bail!("Vulkan does not use these pages"),
        }
    }

    /// The bytes. No copy may be in flight.
    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: allocated and zeroed, as long as this lives; the callers wait for the copies first.
        unsafe { std::slice::from_raw_parts(self.pages.start.as_ptr(), self.pages.bytes) }
    }

    /// Copies the bytes from Vulkan's buffer to CUDA's pages, if they are separate, and returns how long it
    /// took.
    pub(crate) fn take_from_vulkan(&mut self) -> Result<Duration> {
        let start = Instant::now();
        let Side::Staging(staging) = &self.vulkan else { return Ok(Duration::ZERO) };
        let pages = self.pages.bytes_mut();
        staging.with_bytes(pages.len(), |from| pages.copy_from_slice(from))?;
        Ok(start.elapsed())
    }

    /// Copies the bytes from CUDA's pages to Vulkan's buffer, if they are separate, and returns how long it
    /// took.
    pub(crate) fn pass_to_vulkan(&mut self) -> Result<Duration> {
        let start = Instant::now();
        let Side::Staging(staging) = &self.vulkan else { return Ok(Duration::ZERO) };
        let pages = self.pages.bytes_mut();
        staging.with_bytes(pages.len(), |to| to.copy_from_slice(pages))?;
        Ok(start.elapsed())
    }

    /// Copies all bytes to level 0 of `array`, in the order of `stream`.
    pub(crate) fn upload(&self, stream: &CudaStream, array: &Array) -> Result<()> {
        let (width, height) = self.rows(array)?;
        let copy = sys::CUDA_MEMCPY2D {
            srcMemoryType: sys::CUmemorytype::CU_MEMORYTYPE_HOST,
            srcHost: self.pages.start.as_ptr().cast_const().cast(),
            dstMemoryType: sys::CUmemorytype::CU_MEMORYTYPE_ARRAY,
            dstArray: array.level(0)?,
            ..rows(width, height)
        };
        // SAFETY: the array has such rows (`rows`), and so have the pages, which live until the
        // callers have waited.
        unsafe { self.pages.copy(&copy, stream) }
    }

    /// Copies all bytes from level 0 of `array`, in the order of `stream`.
    pub(crate) fn download(&mut self, stream: &CudaStream, array: &Array) -> Result<()> {
        let (width, height) = self.rows(array)?;
        let copy = sys::CUDA_MEMCPY2D {
            srcMemoryType: sys::CUmemorytype::CU_MEMORYTYPE_ARRAY,
            srcArray: array.level(0)?,
            dstMemoryType: sys::CUmemorytype::CU_MEMORYTYPE_HOST,
            dstHost: self.pages.start.as_ptr().cast(),
            ..rows(width, height)
        };
        // SAFETY: as above.
        unsafe { self.pages.copy(&copy, stream) }
    }

    /// Bytes of a row of `array`, and how many rows.
    fn rows(&self, array: &Array) -> Result<(usize, usize)> {
        let desc = array.desc();
        let row = desc.extent.width as usize * desc.format.block_bytes() as usize;
        let height = desc.extent.height as usize;
        ensure!(row * height == self.pages.bytes, "{} bytes for {desc:?}", self.pages.bytes);
        Ok((row, height))
    }
}

/// A copy of tightly packed rows.
fn rows(row: usize, height: usize) -> sys::CUDA_MEMCPY2D {
    sys::CUDA_MEMCPY2D {
        srcXInBytes: 0,
        srcY: 0,
        srcMemoryType: sys::CUmemorytype::CU_MEMORYTYPE_HOST,
        srcHost: std::ptr::null(),
        srcDevice: 0,
        srcArray: std::ptr::null_mut(),
        srcPitch: row,
        dstXInBytes: 0,
        dstY: 0,
        dstMemoryType: sys::CUmemorytype::CU_MEMORYTYPE_HOST,
        dstHost: std::ptr::null_mut(),
        dstDevice: 0,
        dstArray: std::ptr::null_mut(),
        dstPitch: row,
        WidthInBytes: row,
        Height: height,
    }
}

/// Pages that CUDA has pinned.
#[derive(Debug)]
struct Pinned {
    start: NonNull<u8>,
    bytes: usize,
    layout: Layout,
    registered: bool,
    context: Arc<CudaContext>,
}

impl Pinned {
    fn new(context: &Arc<CudaContext>, bytes: usize) -> Result<Self> {
        ensure!(bytes > 0, "no bytes");
        context.bind_to_thread()?;
        let layout = Layout::from_size_align(bytes.next_multiple_of(ALIGNMENT), ALIGNMENT)?;
        // SAFETY: the size is not 0.
        let start = NonNull::new(unsafe { alloc_zeroed(layout) }).context("out of memory")?;
        let context = context.clone();
        let mut pinned = Self { start, bytes, layout, registered: false, context };
        // SAFETY: the context is current; the pages are allocated, and are unregistered before they
        // are freed.
        let result = unsafe { sys::cuMemHostRegister_v2(pinned.address(), layout.size(), 0) };
        result.result().context("cuMemHostRegister")?;
        pinned.registered = true;
        Ok(pinned)
    }

    fn address(&self) -> *mut c_void {
        self.start.as_ptr().cast()
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: allocated and zeroed, owned here alone; the callers wait for the copies first.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.bytes) }
    }

    /// # Safety
    /// The memory that `copy` names is large enough and lives until `stream` has done the copy.
    unsafe fn copy(&self, copy: &sys::CUDA_MEMCPY2D, stream: &CudaStream) -> Result<()> {
        self.context.bind_to_thread()?;
        // SAFETY: the context is current, the description is complete, and the rest is the caller's promise.
        let result = unsafe { sys::cuMemcpy2DAsync_v2(copy, stream.cu_stream()) };
        result.result().context("cuMemcpy2DAsync")
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // A destroyed context has no registrations.
        if self.registered && self.context.bind_to_thread().is_ok() {
            // SAFETY: registered once, at this address; no copy is in flight.
            let _ = unsafe { sys::cuMemHostUnregister(self.address()) };
        }
        // SAFETY: allocated with this layout.
        unsafe { dealloc(self.start.as_ptr(), self.layout) };
    }
}

/// A Vulkan buffer in host memory.
#[derive(Debug)]
struct ImportedBuffer {
    vulkan: gpu_interop::headless::Vulkan,
    buffer: vk::Buffer,
    memory: vk::DeviceMemory,
}

const HOST: vk::ExternalMemoryHandleTypeFlags =
    vk::ExternalMemoryHandleTypeFlags::HOST_ALLOCATION_EXT;

impl ImportedBuffer {
    /// Creates a buffer over `pages`, which must outlive it; `None` if the driver can't import them.
    fn new(gpu: &VulkanContext, pages: &Pinned) -> Option<Self> {
        let vulkan = &gpu.vulkan;
        let name = ash::ext::external_memory_host::NAME;
        if !vulkan.enabled_extensions().contains(&name) {
            return None;
        }
        let mut limits = vk::PhysicalDeviceExternalMemoryHostPropertiesEXT::default();
        let mut properties = vk::PhysicalDeviceProperties2::default().push_next(&mut limits);
        // SAFETY: a valid physical device, of Vulkan 1.1, which has the extension.
        unsafe {
            let physical = vulkan.physical_device();
            vulkan.instance().get_physical_device_properties2(physical, &mut properties);
        }
        let wanted = limits.min_imported_host_pointer_alignment.max(1);
        if !(ALIGNMENT as u64).is_multiple_of(wanted) {
            return None;
        }
        let mut made =
            Self { vulkan: vulkan.clone(), buffer: Default::default(), memory: Default::default() };
        made.create(pages).ok()?;
        Some(made)
    }

    fn create(&mut self, pages: &Pinned) -> Result<()> {
        let (device, size) = (self.vulkan.device(), pages.layout.size() as u64);
        let mut external = vk::ExternalMemoryBufferCreateInfo::default().handle_types(HOST);
        let usage = vk::BufferUsageFlags::TRANSFER_SRC | vk::BufferUsageFlags::TRANSFER_DST;
        let info = vk::BufferCreateInfo::default().size(size).usage(usage).push_next(&mut external);
        // SAFETY: a valid device with the extension; size and usage are not 0.
        self.buffer = unsafe { device.create_buffer(&info, None) }?;
        let host = ash::ext::external_memory_host::Device::new(self.vulkan.instance(), device);
        let mut properties = vk::MemoryHostPointerPropertiesEXT::default();
        let ask = host.fp().get_memory_host_pointer_properties_ext;
        // SAFETY: the device has the extension; the pages have the alignment that it requires.
        unsafe { ask(device.handle(), HOST, pages.address(), &mut properties) }.result()?;
        // SAFETY: the buffer is alive and of this device.
        let needs = unsafe { device.get_buffer_memory_requirements(self.buffer) };
        ensure!(
            needs.size <= size,
            "a buffer of {size} bytes needs {} bytes of memory",
            needs.size
        );
        let types = needs.memory_type_bits & properties.memory_type_bits;
        ensure!(types != 0, "the driver can't import host memory as any memory type");
        let mut import = vk::ImportMemoryHostPointerInfoEXT::default()
            .handle_type(HOST)
            .host_pointer(pages.address());
        let info = vk::MemoryAllocateInfo::default()
            .allocation_size(size)
            .memory_type_index(types.trailing_zeros())
            .push_next(&mut import);
        // SAFETY: pages of that size and alignment, of a type that the driver reported for them, which outlive
        // the memory; bound once, at 0.
        unsafe {
            self.memory = device.allocate_memory(&info, None)?;
            device.bind_buffer_memory(self.buffer, self.memory, 0)?;
        }
        Ok(())
    }
}

impl Drop for ImportedBuffer {
    fn drop(&mut self) {
        let device = self.vulkan.device();
        // SAFETY: owned here alone; the pipelines wait before they drop it; null if never created.
        unsafe {
            device.destroy_buffer(self.buffer, None);
            device.free_memory(self.memory, None);
        }
    }
}

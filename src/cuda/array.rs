//! Images in shared memory: mipmapped arrays, or rows of texels for linear images.

use std::sync::Arc;
use std::{mem, ptr};

use cudarc::driver::sys;

use super::array_shape::Shape;
use super::buffer::Buffer;
use super::capture::free;
use super::endpoint::Endpoint;
use super::image_descriptors::{self, Rows};
use super::library::{check, record};
use super::memory::Memory;
use super::uses::Uses;
use crate::desc::{BufferDesc, BufferUsage, ImageDesc, Tiling};
use crate::error::{ImportError, ImportResult, Invalid, Result, counted};
use crate::payload::{ImagePayload, LinearLayout, MemoryInfo, check_range};

/// An image in shared memory. Cheap to clone; `Send` and `Sync`.
///
/// Kernels read it through a [`TextureObject`](super::TextureObject) and write it through a
/// [`SurfaceObject`](super::SurfaceObject):
///
/// | image | texture functions | surface functions |
/// |---|---|---|
/// | 1D; with layers | `tex1D`; `tex1DLayered` | `surf1Dwrite`; `surf1DLayeredwrite` |
/// | 2D; with layers | `tex2D`; `tex2DLayered` | `surf2Dwrite`; `surf2DLayeredwrite` |
/// | 3D | `tex3D` | `surf3Dwrite` |
/// | cube; several | `texCubemap`; `texCubemapLayered` | `surfCubemapwrite`; `surfCubemapLayeredwrite` |
/// | compressed, 2D and cube | as above | not supported: see [`copy_from`](Self::copy_from) |
/// | linear, 1D and 2D | `tex2D` | not supported: see [`buffer`](Self::buffer) |
///
/// The faces of a cube are in the same order as in Vulkan and OpenGL.
///
/// ```no_run
/// use gpu_interop::ImagePayload;
/// use gpu_interop::cuda::{Endpoint, TextureOptions};
/// use gpu_interop::cudarc::driver::{CudaFunction, CudaStream, LaunchConfig, PushKernelArg};
///
/// fn downsample(
///     endpoint: &Endpoint,
///     stream: &CudaStream,
///     image: ImagePayload,
///     // (cudaSurfaceObject_t to, cudaTextureObject_t from, unsigned int width, unsigned int height)
///     kernel: &CudaFunction,
/// ) -> Result<(), Box<dyn std::error::Error>> {
///     let image = endpoint.import_image(image)?;
///     let from = image.level_texture(0, &TextureOptions::sampled())?;
///     let mut to = image.surface(1)?;
///     let (width, height) = (image.desc().extent.width / 2, image.desc().extent.height / 2);
///     let config = LaunchConfig {
///         grid_dim: (width.div_ceil(16), height.div_ceil(16), 1),
///         block_dim: (16, 16, 1),
///         shared_mem_bytes: 0,
///     };
///     let mut launch = stream.launch_builder(kernel);
///     launch.arg(&mut to).arg(&from).arg(&width).arg(&height);
///     // SAFETY: the kernel takes these arguments and writes inside the level only.
///     unsafe { launch.launch(config) }?;
///     stream.synchronize()?;
///     Ok(())
/// }
/// ```
///
/// # Order
/// Order reads and writes, in CUDA's streams and in the other APIs, with events, semaphores and
/// fences. Within one kernel, a write through a surface is not visible through a texture.
///
/// # Dropping
/// The array is destroyed with its last clone and the last texture or surface object of it.
/// Dropping waits up to ten seconds for copies made by [`copy_to`](Self::copy_to) and
/// [`copy_from`](Self::copy_from), then leaks the array. It does not wait for copies that use a
/// bare [`level`](Self::level): synchronise their streams first.
#[derive(Clone, Debug)]
pub struct Array {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    texels: Texels,
    offset: u64,
    desc: ImageDesc,
    shape: Shape,
    /// Copies to and from memory on the device.
    uses: Uses,
    // Last: the memory is dropped after the array in it.
    memory: Memory,
}

/// How CUDA accesses an image's texels.
#[derive(Debug)]
enum Texels {
    Mipmapped { all: sys::CUmipmappedArray, levels: Vec<sys::CUarray> },
    Linear { address: sys::CUdeviceptr, layout: LinearLayout },
}

// SAFETY: arrays belong to a context, not to a thread, and the driver API may be called from
// several threads at once.
unsafe impl Send for Texels {}
// SAFETY: as above.
unsafe impl Sync for Texels {}

impl Endpoint {
    /// Imports an image and its memory: an optimal image as a mipmapped array, a linear image as
    /// rows of texels.
    ///
    /// # Errors
    /// The errors of [`import_memory`](Self::import_memory), [`Memory::array`] and
    /// [`Memory::linear_array`]; the payload is returned. Also
    /// [`Error::Invalid`](crate::Error::Invalid) for a linear image whose payload has no
    /// [`LinearLayout`].
    ///
    /// # References
    /// `cuImportExternalMemory`, `cuExternalMemoryGetMappedMipmappedArray`,
    /// `cuExternalMemoryGetMappedBuffer`.
    #[doc(alias = "cuImportExternalMemory")]
    pub fn import_image(&self, payload: ImagePayload) -> ImportResult<Array, ImagePayload> {
        self.try_import_image(&payload).map_err(|error| ImportError::new(payload, error))
    }

    fn try_import_image(&self, payload: &ImagePayload) -> Result<Array> {
        let (offset, desc, info) = (payload.offset(), payload.desc(), payload.memory().info());
        self.check_memory(payload.memory())?;
        let shape = self.check_array(offset, desc, info)?;
        let linear = payload.linear().copied();
        if desc.tiling == Tiling::Linear && linear.is_none() {
            return Err(Invalid::new("payload.linear", "is missing for a linear image")
                .help("describe its rows with ImagePayload::with_linear")
                .into());
        }
        let memory = self.import_checked(payload.memory())?;
        match linear {
            Some(layout) => memory.map_rows(offset, desc, shape, layout),
            None => memory.map_array(offset, desc, shape),
        }
    }

    /// Returns the shape of a valid image at `offset` bytes into an allocation.
    fn check_array(&self, offset: u64, desc: &ImageDesc, memory: &MemoryInfo) -> Result<Shape> {
        let shape = self.check_image(desc)?;
        check_range(offset, desc.least_bytes(), memory.allocation_size)?;
        Ok(shape)
    }
}

impl Memory {
    /// Creates an optimal image of `desc`, with all its levels, at `offset` bytes into the
    /// allocation.
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::Error::Invalid) if `desc` is invalid or linear, or the image
    /// reaches past the end; [`Error::Missing`](crate::Error::Missing) for a format that CUDA
    /// lacks, several samples, several layers with several levels ([driver
    /// bugs](super#driver-bugs)), a size beyond the device's limits, or memory that CUDA has
    /// created; [`Error::Driver`](crate::Error::Driver) if a CUDA call fails.
    ///
    /// # References
    /// `cuExternalMemoryGetMappedMipmappedArray`, `cuMipmappedArrayGetLevel`.
    #[doc(alias = "cuExternalMemoryGetMappedMipmappedArray")]
    pub fn array(&self, offset: u64, desc: &ImageDesc) -> Result<Array> {
        check_desc(desc, Tiling::Optimal)?;
        let shape = self.endpoint().check_array(offset, desc, self.info())?;
        self.map_array(offset, desc, shape)
    }

    /// Same as `array`, for a shape that `check_array` has accepted.
    fn map_array(&self, offset: u64, desc: &ImageDesc, shape: Shape) -> Result<Array> {
        let external = self.external()?;
        let _current = self.endpoint().enter()?;
        let mapped = image_descriptors::mapped_array(offset, &shape, desc.levels);
        let mut all = ptr::null_mut();
        // SAFETY: the context is current, the external memory is alive (this holds it), the
        // structure is complete, and `all` is writable. Only the driver knows how long the image
        // is; it refuses a range that the memory doesn't have.
        check("cuExternalMemoryGetMappedMipmappedArray", unsafe {
            sys::cuExternalMemoryGetMappedMipmappedArray(&mut all, external, mapped.as_ptr())
        })?;
        // From here on, dropping it undoes the steps so far.
        let memory = self.clone();
        let texels = Texels::Mipmapped { all, levels: Vec::new() };
        let uses = Uses::default();
        let mut shared = Shared { texels, offset, desc: *desc, shape, uses, memory };
        shared.find_levels()?;
        tracing::debug!(?desc, offset, "mapped an image into CUDA");
        Ok(Array { shared: Arc::new(shared) })
    }

    /// Creates a linear image of `desc` at `offset` bytes into the allocation; `layout` describes
    /// its first level.
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::Error::Invalid) if `desc` is invalid or optimal, or rows overlap
    /// or reach past the end; [`Error::Missing`](crate::Error::Missing) for a format that CUDA
    /// lacks; [`Error::Driver`](crate::Error::Driver) if a CUDA call fails.
    ///
    /// # References
    /// `cuExternalMemoryGetMappedBuffer`.
    #[doc(alias = "cuExternalMemoryGetMappedBuffer")]
    pub fn linear_array(
        &self,
        offset: u64,
        desc: &ImageDesc,
        layout: LinearLayout,
    ) -> Result<Array> {
        check_desc(desc, Tiling::Linear)?;
        let shape = self.endpoint().check_array(offset, desc, self.info())?;
        layout.check(desc, self.info().allocation_size - offset)?;
        self.map_rows(offset, desc, shape, layout)
    }

    /// Same as `linear_array`, for rows that lie inside the allocation.
    fn map_rows(
        &self,
        offset: u64,
        desc: &ImageDesc,
        shape: Shape,
        layout: LinearLayout,
    ) -> Result<Array> {
        let address = self.address()? + offset + layout.offset;
        let (memory, desc) = (self.clone(), *desc);
        let texels = Texels::Linear { address, layout };
        let uses = Uses::default();
        Ok(Array { shared: Arc::new(Shared { texels, offset, desc, shape, uses, memory }) })
    }
}

fn check_desc(desc: &ImageDesc, tiling: Tiling) -> Result<()> {
    desc.validate()?;
    if desc.tiling == tiling {
        return Ok(());
    }
    Err(Invalid::new("desc.tiling", format!("is {:?}, not {tiling:?}", desc.tiling))
        .help("use Memory::array for optimal images, Memory::linear_array for linear ones")
        .into())
}

impl Array {
    /// Returns the image's description.
    pub fn desc(&self) -> &ImageDesc {
        &self.shared.desc
    }

    /// Returns the image's offset in its memory, in bytes.
    pub fn offset(&self) -> u64 {
        self.shared.offset
    }

    /// Returns the image's memory.
    pub fn memory(&self) -> &Memory {
        &self.shared.memory
    }

    /// Returns the CUDA handle of all levels, valid as long as this or a clone of it; `None` for a
    /// linear image.
    pub fn handle(&self) -> Option<sys::CUmipmappedArray> {
        match &self.shared.texels {
            Texels::Mipmapped { all, .. } => Some(*all),
            Texels::Linear { .. } => None,
        }
    }

    /// Returns the CUDA handle of one level, for copies (`cuMemcpy2DAsync`, `cuMemcpy3DAsync`),
    /// valid as long as this or a clone of it.
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::Error::Invalid) if the level doesn't exist or the image is linear.
    ///
    /// # References
    /// `cuMipmappedArrayGetLevel`.
    #[doc(alias = "cuMipmappedArrayGetLevel")]
    pub fn level(&self, level: u32) -> Result<sys::CUarray> {
        let Texels::Mipmapped { levels, .. } = &self.shared.texels else {
            return Err(Invalid::new("image", "is linear and has no CUDA array")
                .help("use its bytes (Array::buffer)")
                .into());
        };
        let found = usize::try_from(level).ok().and_then(|level| levels.get(level));
        found.copied().ok_or_else(|| self.no_level(level).into())
    }

    /// Returns the layout of a linear image's first level; `None` for an optimal image.
    pub fn linear(&self) -> Option<&LinearLayout> {
        match &self.shared.texels {
            Texels::Mipmapped { .. } => None,
            Texels::Linear { layout, .. } => Some(layout),
        }
    }

    /// Creates a buffer over the bytes of a linear image's first level, from its first texel to its
    /// last, for kernels (row `y` begins at `y * linear().row_pitch`) and for cudarc's copies.
    ///
    /// Each call creates a new buffer over the same bytes.
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::Error::Invalid) for an optimal image;
    /// [`Error::Driver`](crate::Error::Driver) if a CUDA call fails.
    pub fn buffer(&self) -> Result<Buffer> {
        let Some(layout) = self.linear() else {
            return Err(Invalid::new("image", "is optimal: its layout is the driver's own")
                .help("read and write it through texture and surface objects")
                .into());
        };
        let desc = self.desc();
        let row = desc.format.row_bytes(desc.extent.width);
        // Doesn't overflow: all rows lie inside the memory (`LinearLayout::check`).
        let size = row
            + u64::from(desc.format.rows(desc.extent.height) - 1) * layout.row_pitch
            + u64::from(desc.extent.depth - 1) * layout.depth_pitch
            + u64::from(desc.layers - 1) * layout.array_pitch;
        let usage = BufferUsage::TRANSFER_SRC | BufferUsage::TRANSFER_DST | BufferUsage::STORAGE;
        self.memory().buffer(self.offset() + layout.offset, &BufferDesc { size, usage })
    }

    pub(super) fn uses(&self) -> &Uses {
        &self.shared.uses
    }

    pub(crate) fn shape(&self) -> &Shape {
        &self.shared.shape
    }

    /// Returns the rows of a linear image with one layer and one slice; `None` for other images.
    pub(super) fn rows(&self) -> Option<Rows> {
        let Texels::Linear { address, layout } = &self.shared.texels else { return None };
        let desc = self.desc();
        let is_one_slice = desc.layers == 1 && desc.extent.depth == 1;
        is_one_slice.then_some(Rows {
            address: *address,
            format: self.shape().format,
            width: desc.extent.width as usize,
            height: desc.extent.height as usize,
            pitch: usize::try_from(layout.row_pitch).unwrap_or(usize::MAX),
        })
    }

    pub(crate) fn no_level(&self, level: u32) -> Invalid {
        let levels = if self.linear().is_some() { 1 } else { self.desc().levels };
        Invalid::new(
            "level",
            format!("is {level}, counted from 0, but the image has {}", counted(levels, "level")),
        )
    }

    /// Leaks the array, because the GPU still uses it.
    pub(crate) fn leak(&self) {
        std::mem::forget(self.clone());
    }
}

impl Texels {
    /// # Safety
    /// Only once, and nothing uses the array any longer. The context is current.
    unsafe fn destroy(self) -> sys::CUresult {
        match self {
            // SAFETY: the caller's promise.
            Self::Mipmapped { all, .. } => unsafe { sys::cuMipmappedArrayDestroy(all) },
            Self::Linear { .. } => sys::CUresult::CUDA_SUCCESS,
        }
    }
}

impl Shared {
    fn find_levels(&mut self) -> Result<()> {
        let Texels::Mipmapped { all, levels } = &mut self.texels else { return Ok(()) };
        for level in 0..self.desc.levels {
            let mut array = ptr::null_mut();
            // SAFETY: the caller has made the context current, the mipmapped array is alive, and
            // `array` is writable. A level is part of the mipmapped array and lives as long.
            check("cuMipmappedArrayGetLevel", unsafe {
                sys::cuMipmappedArrayGetLevel(&mut array, *all, level)
            })?;
            levels.push(array);
        }
        Ok(())
    }
}

impl Drop for Shared {
    /// No object is left, since each holds a clone. The memory is dropped afterwards.
    fn drop(&mut self) {
        let Texels::Mipmapped { all, .. } = self.texels else { return };
        let destroyed = Texels::Mipmapped { all, levels: Vec::new() };
        let (uses, memory) = (mem::take(&mut self.uses), self.memory.clone());
        free(self.memory.endpoint().context(), move |context| {
            if !uses.wait_before_drop(memory.endpoint(), "waiting for the last copy of an image") {
                memory.leak();
                return;
            }
            // SAFETY: mapped once, destroyed once, here; no object reads or writes it any longer,
            // and no copy does.
            let result = unsafe { destroyed.destroy() };
            record(context, "cuMipmappedArrayDestroy", result);
            drop(memory);
        });
    }
}

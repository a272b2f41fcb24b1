//! An image in shared memory: a mipmapped array, or rows of texels where it is linear.

use std::ptr;
use std::sync::Arc;

use cudarc::driver::sys;

use super::array_descriptors::{self, Rows};
use super::array_shape::{Shape, least_bytes};
use super::buffer::Buffer;
use super::endpoint::Endpoint;
use super::error::{check, record};
use super::memory::Memory;
use super::workarounds::NVIDIA_LAYS_OUT_LAYERED_LEVELS_OTHERWISE;
use crate::desc::{BufferDesc, BufferUsage, ImageDesc, Tiling};
use crate::error::{Api, ImportError, ImportResult, Invalid, Missing, Result};
use crate::payload::{ImagePayload, LinearLayout, check_range};

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
/// | linear, 1D and 2D | `tex2D` | none: see [`buffer`](Self::buffer) |
///
/// The faces of a cube, and of each of several, are in the order that Vulkan and OpenGL have too.
///
/// ```no_run
/// use gpu_interop::ImagePayload;
/// use gpu_interop::cuda::{Endpoint, TextureOptions};
/// use gpu_interop::cudarc::driver::{CudaFunction, CudaStream, LaunchConfig, PushKernelArg};
///
/// fn half_as_large(
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
/// Who reads and writes when, in CUDA's streams and in the other APIs, is ordered with events,
/// semaphores and fences. Within one kernel, what is written through a surface is not seen through
/// a texture.
///
/// # Dropping
/// The array goes with the last of its clones and of the objects that read and write it. It waits
/// for none of the copies that were given a bare [`level`](Self::level): synchronise their streams
/// first.
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
    // Last: the memory goes after the array in it.
    memory: Memory,
}

/// Where an image's texels are found.
#[derive(Debug)]
enum Texels {
    Mipmapped { all: sys::CUmipmappedArray, levels: Vec<sys::CUarray> },
    Linear { address: sys::CUdeviceptr, layout: LinearLayout },
}

// SAFETY: arrays belong to a context, not to a thread, and the driver API may be called from several
// threads at once.
unsafe impl Send for Texels {}
// SAFETY: as above.
unsafe impl Sync for Texels {}

impl Endpoint {
    /// Imports an image: as a mipmapped array where it is optimal, as rows of texels where it is
    /// linear. The memory it lies in is found at [`Array::memory`].
    ///
    /// # Errors
    /// As [`import_memory`](Self::import_memory), [`Memory::array`] and [`Memory::linear_array`];
    /// the payload comes back. [`Error::Invalid`](crate::Error::Invalid) too for a linear image whose
    /// payload doesn't say where its rows lie.
    ///
    /// # References
    /// `cuImportExternalMemory`, `cuExternalMemoryGetMappedMipmappedArray`,
    /// `cuExternalMemoryGetMappedBuffer`.
    pub fn import_image(&self, payload: ImagePayload) -> ImportResult<Array, ImagePayload> {
        self.try_import_image(&payload).map_err(|error| ImportError::new(payload, error))
    }

    fn try_import_image(&self, payload: &ImagePayload) -> Result<Array> {
        let (offset, desc) = (payload.offset(), payload.desc());
        payload.memory().check(self.identities())?;
        self.check_payload(payload)?;
        let memory = self.import_duplicate(payload.memory())?;
        match payload.linear() {
            Some(layout) => memory.linear_array(offset, desc, *layout),
            None => memory.array(offset, desc),
        }
    }

    /// All of a payload that can be checked before its memory is imported.
    fn check_payload(&self, payload: &ImagePayload) -> Result<()> {
        self.check_image(payload.desc())?;
        if payload.desc().tiling == Tiling::Linear && payload.linear().is_none() {
            return Err(Invalid::new("payload.linear", "is not given for a linear image")
                .help("tell where its rows lie with ImagePayload::with_linear")
                .into());
        }
        let size = payload.memory().info().allocation_size;
        check_range(payload.offset(), least_bytes(payload.desc()), size)
    }

    /// Refuses what no array of this device can be: [`Error::Missing`](crate::Error::Missing).
    pub(crate) fn check_image(&self, desc: &ImageDesc) -> Result<Shape> {
        let shape = Shape::of(desc)?;
        shape.check_driver(|| self.driver_version())?;
        if desc.tiling == Tiling::Linear {
            return Ok(shape);
        }
        if NVIDIA_LAYS_OUT_LAYERED_LEVELS_OTHERWISE && desc.layers > 1 && desc.levels > 1 {
            let what = "images with several layers and levels as Vulkan lays them out";
            return Err(Missing::new(Api::Cuda, what, "a shared image")
                .help("share an image of one level, or one for each layer")
                .into());
        }
        shape.check_limits(|attribute| self.attribute(attribute))?;
        Ok(shape)
    }
}

impl Memory {
    /// An optimal image of `desc` at `offset` bytes into the allocation, with all its levels.
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::Error::Invalid) for a description that no API takes, for a linear
    /// one, and for an image that reaches past the end;
    /// [`Error::Missing`](crate::Error::Missing) for a format that CUDA lacks, for more than one
    /// sample, for several layers with several levels
    /// ([`workarounds`](super::workarounds::NVIDIA_LAYS_OUT_LAYERED_LEVELS_OTHERWISE)), for a size
    /// over the device's limits, and in memory that CUDA itself has made;
    /// [`Error::Driver`](crate::Error::Driver).
    ///
    /// # References
    /// `cuExternalMemoryGetMappedMipmappedArray`, `cuMipmappedArrayGetLevel`.
    #[doc(alias = "cuExternalMemoryGetMappedMipmappedArray")]
    pub fn array(&self, offset: u64, desc: &ImageDesc) -> Result<Array> {
        let shape = self.check_array(offset, desc, Tiling::Optimal)?;
        let external = self.external()?;
        let _current = self.endpoint().enter()?;
        let mapped = array_descriptors::mapped_array(offset, &shape, desc.levels);
        let mut all = ptr::null_mut();
        // SAFETY: the context is current, the external memory is alive (this holds it), the
        // description is complete, and `all` is writable. A range that the memory doesn't have is
        // for the driver to refuse, which alone knows how long the image is.
        check("cuExternalMemoryGetMappedMipmappedArray", unsafe {
            sys::cuExternalMemoryGetMappedMipmappedArray(&mut all, external, mapped.as_ptr())
        })?;
        // From here on, dropping it undoes what has been done.
        let memory = self.clone();
        let texels = Texels::Mipmapped { all, levels: Vec::new() };
        let mut shared = Shared { texels, offset, desc: *desc, shape, memory };
        shared.find_levels()?;
        tracing::debug!(?desc, offset, "mapped an image into CUDA");
        Ok(Array { shared: Arc::new(shared) })
    }

    /// A linear image of `desc` at `offset` bytes into the allocation, whose first level is laid out
    /// as `layout` says.
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::Error::Invalid) for a description that no API takes, for an optimal
    /// one, and for rows that overlap or reach past the end;
    /// [`Error::Missing`](crate::Error::Missing) for a format that CUDA lacks;
    /// [`Error::Driver`](crate::Error::Driver).
    ///
    /// # References
    /// `cuExternalMemoryGetMappedBuffer`.
    pub fn linear_array(
        &self,
        offset: u64,
        desc: &ImageDesc,
        layout: LinearLayout,
    ) -> Result<Array> {
        let shape = self.check_array(offset, desc, Tiling::Linear)?;
        layout.check(desc, self.info().allocation_size - offset)?;
        let address = self.address()? + offset + layout.offset;
        let (memory, desc) = (self.clone(), *desc);
        let texels = Texels::Linear { address, layout };
        Ok(Array { shared: Arc::new(Shared { texels, offset, desc, shape, memory }) })
    }

    fn check_array(&self, offset: u64, desc: &ImageDesc, tiling: Tiling) -> Result<Shape> {
        desc.validate()?;
        if desc.tiling != tiling {
            let problem = format!("{:?}, but {tiling:?} was asked for", desc.tiling);
            return Err(Invalid::new("desc.tiling", problem)
                .help("Memory::array is for optimal images, Memory::linear_array for linear ones")
                .into());
        }
        let shape = self.endpoint().check_image(desc)?;
        check_range(offset, least_bytes(desc), self.info().allocation_size)?;
        Ok(shape)
    }
}

impl Array {
    /// What it is.
    pub fn desc(&self) -> &ImageDesc {
        &self.shared.desc
    }

    /// Where in its memory it begins, in bytes.
    pub fn offset(&self) -> u64 {
        self.shared.offset
    }

    /// The memory it lies in.
    pub fn memory(&self) -> &Memory {
        &self.shared.memory
    }

    /// CUDA's handle of all levels, valid for as long as this or a clone of it lives; `None` for a
    /// linear image.
    pub fn handle(&self) -> Option<sys::CUmipmappedArray> {
        match &self.shared.texels {
            Texels::Mipmapped { all, .. } => Some(*all),
            Texels::Linear { .. } => None,
        }
    }

    /// CUDA's handle of one level, for copies (`cuMemcpy2DAsync`, `cuMemcpy3DAsync`), valid for as
    /// long as this or a clone of it lives.
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::Error::Invalid) for a level that it hasn't, and for a linear image.
    ///
    /// # References
    /// `cuMipmappedArrayGetLevel`.
    #[doc(alias = "cuMipmappedArrayGetLevel")]
    pub fn level(&self, level: u32) -> Result<sys::CUarray> {
        let Texels::Mipmapped { levels, .. } = &self.shared.texels else {
            return Err(Invalid::new("image", "is linear: it has rows of texels and no array")
                .help("use its bytes (Array::buffer)")
                .into());
        };
        let found = usize::try_from(level).ok().and_then(|level| levels.get(level));
        found.copied().ok_or_else(|| self.no_level(level).into())
    }

    /// Where the rows of a linear image's first level lie; `None` for an optimal image.
    pub fn linear(&self) -> Option<&LinearLayout> {
        match &self.shared.texels {
            Texels::Mipmapped { .. } => None,
            Texels::Linear { layout, .. } => Some(layout),
        }
    }

    /// The bytes of a linear image's first level as a buffer, from its first texel to its last: for
    /// kernels, which find row `y` at `y * linear().row_pitch`, and for cudarc's copies.
    ///
    /// Each call makes another buffer of the same bytes.
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::Error::Invalid) for an optimal image;
    /// [`Error::Driver`](crate::Error::Driver).
    pub fn buffer(&self) -> Result<Buffer> {
        let Some(layout) = self.linear() else {
            return Err(Invalid::new(
                "image",
                "is optimal: only its driver knows where texels lie",
            )
            .help("read and write it through texture and surface objects")
            .into());
        };
        let desc = self.desc();
        let row = u64::from(desc.extent.width) * u64::from(desc.format.texel_bytes());
        // No overflow: all of it lies inside the memory (`LinearLayout::check`).
        let size = row
            + u64::from(desc.extent.height - 1) * layout.row_pitch
            + u64::from(desc.extent.depth - 1) * layout.depth_pitch
            + u64::from(desc.layers - 1) * layout.array_pitch;
        let usage = BufferUsage::TRANSFER_SRC | BufferUsage::TRANSFER_DST | BufferUsage::STORAGE;
        self.memory().buffer(self.offset() + layout.offset, &BufferDesc { size, usage })
    }

    pub(crate) fn shape(&self) -> &Shape {
        &self.shared.shape
    }

    /// The rows of a linear image that is one picture; `None` for any other.
    pub(crate) fn rows(&self) -> Option<Rows> {
        let Texels::Linear { address, layout } = &self.shared.texels else { return None };
        let desc = self.desc();
        let is_one_picture = desc.layers == 1 && desc.extent.depth == 1;
        is_one_picture.then_some(Rows {
            address: *address,
            format: self.shape().format,
            width: desc.extent.width as usize,
            height: desc.extent.height as usize,
            pitch: usize::try_from(layout.row_pitch).unwrap_or(usize::MAX),
        })
    }

    pub(crate) fn no_level(&self, level: u32) -> Invalid {
        let levels = if self.linear().is_some() { 1 } else { self.desc().levels };
        Invalid::new("level", format!("{level}, but there are {levels}, counted from 0"))
    }

    /// Never unmaps the array: somebody still uses it.
    pub(crate) fn abandon(&self) {
        std::mem::forget(self.clone());
    }
}

impl Shared {
    fn find_levels(&mut self) -> Result<()> {
        let Texels::Mipmapped { all, levels } = &mut self.texels else { return Ok(()) };
        for level in 0..self.desc.levels {
            let mut array = ptr::null_mut();
            // SAFETY: the caller has made the context current, the mipmapped array is alive, and
            // `array` is writable. A level is a part of it and goes with it.
            check("cuMipmappedArrayGetLevel", unsafe {
                sys::cuMipmappedArrayGetLevel(&mut array, *all, level)
            })?;
            levels.push(array);
        }
        Ok(())
    }
}

impl Drop for Shared {
    /// The objects are gone: each holds this. The memory goes afterwards.
    fn drop(&mut self) {
        let Texels::Mipmapped { all, .. } = self.texels else { return };
        let endpoint = self.memory.endpoint();
        let current = endpoint.enter();
        // SAFETY: mapped once, destroyed once, here, and no object reads or writes it any more.
        let result = unsafe { sys::cuMipmappedArrayDestroy(all) };
        record(endpoint.context(), "cuMipmappedArrayDestroy", result);
        drop(current);
    }
}

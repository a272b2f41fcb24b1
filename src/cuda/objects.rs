//! Texture and surface objects, through which kernels read and write shared images.

use std::mem::MaybeUninit;
use std::ptr;

use cudarc::driver::{CudaSlice, LaunchArgs, PushKernelArg, sys};

use super::array::Array;
use super::image_descriptors::{self, Rows};
use super::library::{check, record};
use super::texture_options::TextureOptions;
use super::uses::TrackedSlice;
use crate::desc::ImageDesc;
use crate::error::{Api, Invalid, Missing, Result};

use sys::CUdevice_attribute as Attribute;

/// An object through which kernels read an image: all its levels, or one. `Send` and `Sync`.
///
/// Pass it as a kernel's argument: `launch_builder(&f).arg(&texture)` for a parameter of the type
/// `cudaTextureObject_t`. [`ReadMode`](super::ReadMode) describes the values that the kernel reads.
///
/// # Order
/// cudarc does not order uses of one texture object in several streams of one context, because they
/// only read. Order writes to the image, through surfaces or by other APIs, with events, semaphores
/// and fences.
///
/// # Dropping
/// Dropping waits up to ten seconds for launches with the object as an argument (if they are in
/// several streams, only for the last one). After that the object is leaked with its image and
/// memory, and `CUDA_ERROR_NOT_READY` is recorded in the context. Kernels that use the bare
/// [`handle`](Self::handle) are not tracked, nor is any use if cudarc's event tracking is off:
/// synchronise their streams first. Keep the object alive to avoid the wait.
#[derive(Debug)]
pub struct TextureObject {
    object: Object,
}

/// An object through which kernels write one level of an image, and read it back. `Send` and
/// `Sync`.
///
/// Pass it as a kernel's argument for a parameter of the type `cudaSurfaceObject_t`:
/// `launch_builder(&f).arg(&mut surface)` for a kernel that writes, `.arg(&surface)` for one that
/// only reads.
///
/// CUDA stores the bytes that a kernel writes without conversion. So for a `UNORM` format of bytes
/// the kernel multiplies by 255 and rounds, for an `SRGB` format it also encodes, for a 16-bit
/// float it uses `__float2half_rn`, and for a format that stores blue first it writes blue first.
/// The written type is as large as the texel (`surf2Dwrite<uchar4>` for `R8G8B8A8_UNORM`), and x
/// counts bytes: `surf2Dwrite(texel, surface, x * sizeof(uchar4), y)`.
///
/// # Order
/// cudarc orders uses of one surface object in several streams of one context, as it does for
/// slices. Order uses of other objects on the same image, and uses by other APIs, with events,
/// semaphores and fences.
///
/// # Dropping
/// Same as for [`TextureObject`].
#[derive(Debug)]
pub struct SurfaceObject {
    object: Object,
}

impl Array {
    /// Creates a texture object that reads all levels (`tex2DLod` and the like). The coordinates
    /// must be normalized.
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::Error::Invalid) for options that CUDA does not support for this
    /// image, among them coordinates that count texels, and for a linear image (use
    /// [`level_texture`](Self::level_texture)); [`Error::Driver`](crate::Error::Driver) if a CUDA
    /// call fails.
    ///
    /// # References
    /// `cuTexObjectCreate` with `CU_RESOURCE_TYPE_MIPMAPPED_ARRAY`.
    #[doc(alias = "cuTexObjectCreate")]
    pub fn texture(&self, options: &TextureOptions) -> Result<TextureObject> {
        let Some(all) = self.handle() else {
            return Err(Invalid::new("image", "is linear and has only one level")
                .help("read that level (Array::level_texture)")
                .into());
        };
        if !options.normalized_coordinates {
            let problem = "is false, but a texture of all levels requires them";
            return Err(Invalid::new("options.normalized_coordinates", problem)
                .help("use normalized coordinates, or read one level (Array::level_texture)")
                .into());
        }
        let resource = image_descriptors::mipmapped_array(all);
        self.create_texture(&resource, options, self.desc().levels)
    }

    /// Creates a texture object that reads one level. A linear image has only level 0, and is read
    /// with the two-dimensional functions.
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::Error::Invalid) if the level doesn't exist, for options that CUDA
    /// does not support for this image, and if the rows of a linear image don't have the device's
    /// alignment; [`Error::Missing`](crate::Error::Missing) for a linear image of several layers or
    /// slices; [`Error::Driver`](crate::Error::Driver) if a CUDA call fails.
    ///
    /// # References
    /// `cuTexObjectCreate` with `CU_RESOURCE_TYPE_ARRAY` and `CU_RESOURCE_TYPE_PITCH2D`.
    #[doc(alias = "cuTexObjectCreate")]
    pub fn level_texture(&self, level: u32, options: &TextureOptions) -> Result<TextureObject> {
        if self.linear().is_none() {
            let resource = image_descriptors::array(self.level(level)?);
            return self.create_texture(&resource, options, 1);
        }
        if level != 0 {
            return Err(self.no_level(level).into());
        }
        let rows = self.rows().ok_or_else(|| no_texture_of(self.desc()))?;
        check_rows(&rows, |attribute| self.memory().endpoint().attribute(attribute))?;
        self.create_texture(&image_descriptors::pitched(&rows), options, 1)
    }

    fn create_texture(
        &self,
        resource: &MaybeUninit<sys::CUDA_RESOURCE_DESC>,
        options: &TextureOptions,
        levels: u32,
    ) -> Result<TextureObject> {
        let flags = options.flags(self.desc().format, self.shape().format.array_format)?;
        let texture = image_descriptors::texture(options, flags, levels);
        let _current = self.memory().endpoint().enter()?;
        let mut handle = 0;
        // SAFETY: the context is current; both structures are complete; the resource is alive (this
        // holds it) and stays alive (`Object`); the view is null, which is allowed; `handle` is
        // writable.
        check("cuTexObjectCreate", unsafe {
            sys::cuTexObjectCreate(&mut handle, resource.as_ptr(), texture.as_ptr(), ptr::null())
        })?;
        Ok(TextureObject { object: Object::new(self, Kind::Texture, handle)? })
    }

    /// Creates a surface object that writes one level.
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::Error::Invalid) if the level doesn't exist;
    /// [`Error::Missing`](crate::Error::Missing) for a linear image, whose bytes kernels write
    /// ([`buffer`](Self::buffer)), and for a compressed format;
    /// [`Error::Driver`](crate::Error::Driver) if a CUDA call fails.
    ///
    /// # References
    /// `cuSurfObjectCreate`.
    #[doc(alias = "cuSurfObjectCreate")]
    pub fn surface(&self, level: u32) -> Result<SurfaceObject> {
        if self.linear().is_some() {
            return Err(Missing::new(Api::Cuda, "surfaces of linear images", "writing an image")
                .help("write its bytes (Array::buffer), or create it with optimal tiling")
                .into());
        }
        if self.desc().format.is_compressed() {
            let what = format!("surfaces of {}", self.desc().format);
            return Err(Missing::new(Api::Cuda, what, "writing an image")
                .help("write whole levels of blocks (Array::copy_from)")
                .into());
        }
        let resource = image_descriptors::array(self.level(level)?);
        let _current = self.memory().endpoint().enter()?;
        let mut handle = 0;
        // SAFETY: the context is current; the structure is complete; the array is alive (this holds
        // it), stays alive (`Object`), and was mapped with CUDA_ARRAY3D_SURFACE_LDST; `handle` is
        // writable.
        check("cuSurfObjectCreate", unsafe {
            sys::cuSurfObjectCreate(&mut handle, resource.as_ptr())
        })?;
        Ok(SurfaceObject { object: Object::new(self, Kind::Surface, handle)? })
    }
}

impl TextureObject {
    /// Returns the handle (`cudaTextureObject_t`), valid as long as this object. Prefer the object
    /// itself as a kernel's argument: cudarc does not track uses of the bare handle.
    pub fn handle(&self) -> sys::CUtexObject {
        self.object.handle
    }

    /// Returns the image that the object reads.
    pub fn array(&self) -> &Array {
        &self.object.array
    }
}

impl SurfaceObject {
    /// Returns the handle (`cudaSurfaceObject_t`), valid as long as this object. Prefer the object
    /// itself as a kernel's argument: cudarc does not track uses of the bare handle.
    pub fn handle(&self) -> sys::CUsurfObject {
        self.object.handle
    }

    /// Returns the image that the object writes.
    pub fn array(&self) -> &Array {
        &self.object.array
    }
}

// SAFETY: the pushed argument is the object's 64-bit handle, as a parameter of the type
// `cudaTextureObject_t` requires; it is stored in the object, which is borrowed for as long as the
// launch arguments.
unsafe impl<'a, 'b: 'a> PushKernelArg<&'b TextureObject> for LaunchArgs<'a> {
    #[inline(always)]
    fn arg(&mut self, texture: &'b TextureObject) -> &mut Self {
        self.arg(texture.object.argument())
    }
}

// SAFETY: as above, for a parameter of the type `cudaSurfaceObject_t`.
unsafe impl<'a, 'b: 'a> PushKernelArg<&'b SurfaceObject> for LaunchArgs<'a> {
    #[inline(always)]
    fn arg(&mut self, surface: &'b SurfaceObject) -> &mut Self {
        self.arg(surface.object.argument())
    }
}

// SAFETY: as above.
unsafe impl<'a, 'b: 'a> PushKernelArg<&'b mut SurfaceObject> for LaunchArgs<'a> {
    #[inline(always)]
    fn arg(&mut self, surface: &'b mut SurfaceObject) -> &mut Self {
        self.arg(surface.object.argument.slice_mut())
    }
}

/// A texture or surface object, destroyed after its last use that cudarc knows of, and before its
/// array.
#[derive(Debug)]
struct Object {
    argument: TrackedSlice,
    handle: u64,
    kind: Kind,
    // Last: the array is dropped after the object on it.
    array: Array,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Texture,
    Surface,
}

impl Object {
    /// Takes ownership of the object `handle` on `array`; destroys it if this fails.
    fn new(array: &Array, kind: Kind, handle: u64) -> Result<Self> {
        // The handle is passed to a kernel like an address, as a 64-bit number. So an empty cudarc
        // slice at that "address" serves as the argument, and its events show when the kernel is
        // done.
        const { assert!(size_of::<sys::CUdeviceptr>() == size_of::<u64>()) }
        // SAFETY: the length is 0, for which nothing needs to be mapped.
        let argument = unsafe { TrackedSlice::new(array.memory().endpoint(), handle, 0) };
        match argument {
            Ok(argument) => Ok(Self { argument, handle, kind, array: array.clone() }),
            Err(error) => {
                destroy(array, kind, handle);
                Err(error)
            }
        }
    }

    fn argument(&self) -> &CudaSlice<u8> {
        self.argument.slice()
    }
}

impl Drop for Object {
    fn drop(&mut self) {
        let what = match self.kind {
            Kind::Texture => "waiting for the last use of a texture object",
            Kind::Surface => "waiting for the last use of a surface object",
        };
        let (array, kind, handle) = (self.array.clone(), self.kind, self.handle);
        // SAFETY: called once, here, and nothing uses the argument afterwards.
        unsafe {
            self.argument.finish(self.array.memory().endpoint().clone(), what, move |is_done| {
                if is_done {
                    destroy(&array, kind, handle);
                } else {
                    array.leak();
                }
            });
        }
    }
}

/// Destroys an object that is no longer used.
fn destroy(array: &Array, kind: Kind, handle: u64) {
    let endpoint = array.memory().endpoint();
    let current = endpoint.enter();
    match kind {
        Kind::Texture => {
            // SAFETY: created once, destroyed once, here: `Object` owns it.
            let result = unsafe { sys::cuTexObjectDestroy(handle) };
            record(endpoint.context(), "cuTexObjectDestroy", result);
        }
        Kind::Surface => {
            // SAFETY: as above.
            let result = unsafe { sys::cuSurfObjectDestroy(handle) };
            record(endpoint.context(), "cuSurfObjectDestroy", result);
        }
    }
    drop(current);
}

fn no_texture_of(desc: &ImageDesc) -> Missing {
    let what = format!("textures of {} linear slices", desc.layers.max(desc.extent.depth));
    Missing::new(Api::Cuda, what, "reading a linear image")
        .help("read its bytes (Array::buffer), or create it with optimal tiling")
}

/// Rejects rows without the alignment that the device's textures require; `attribute` queries the
/// device. The driver rejects rows that are too large.
fn check_rows(rows: &Rows, attribute: impl Fn(Attribute) -> Result<i32>) -> Result<()> {
    for (field, value, name) in [
        ("offset", rows.address, Attribute::CU_DEVICE_ATTRIBUTE_TEXTURE_ALIGNMENT),
        ("row_pitch", rows.pitch as u64, Attribute::CU_DEVICE_ATTRIBUTE_TEXTURE_PITCH_ALIGNMENT),
    ] {
        // 0 means that no alignment is required.
        let alignment = u64::try_from(attribute(name)?).unwrap_or(0).max(1);
        if value % alignment != 0 {
            let problem =
                format!("{value:#x} is not a multiple of {alignment}, as textures require");
            return Err(Invalid::new(field, problem)
                .help("read the image's bytes (Array::buffer), or create it with optimal tiling")
                .into());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;
    use crate::format::CudaFormat;

    #[test]
    fn rows_without_the_devices_alignment_are_refused() {
        let rows = |address, pitch| {
            let format = CudaFormat { array_format: 1, channels: 4 };
            Rows { address, format, width: 113, height: 211, pitch }
        };
        // The values of an H200.
        let attribute = |attribute| match attribute {
            Attribute::CU_DEVICE_ATTRIBUTE_TEXTURE_ALIGNMENT => Ok(512),
            _ => Ok(32),
        };
        check_rows(&rows(0x7f00_0000_0400, 512), attribute).unwrap();
        check_rows(&rows(3, 7), |_| Ok(0)).unwrap();
        for (rows, field, alignment) in
            [(rows(0x7f00_0000_0500, 512), "offset", "512"), (rows(0x400, 452), "row_pitch", "32")]
        {
            match check_rows(&rows, attribute) {
                Err(Error::Invalid(invalid)) => {
                    assert_eq!(invalid.parameter, field);
                    assert!(invalid.problem.contains(alignment) && invalid.help.is_some());
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

//! A surface object: how a kernel writes a shared image.

use cudarc::driver::{LaunchArgs, PushKernelArg, sys};

use super::array::Array;
use super::array_descriptors;
use super::array_object::{Kind, Object};
use super::error::check;
use crate::error::{Api, Missing, Result};

/// A way for kernels to write one level of an image, and to read it back. `Send` and `Sync`.
///
/// It is a kernel's argument for a parameter of the type `cudaSurfaceObject_t`:
/// `launch_builder(&f).arg(&mut surface)` for a kernel that writes, `.arg(&surface)` for one that only
/// reads.
///
/// A kernel writes the bytes of texels as they are stored, and nothing is converted: for a `UNORM`
/// format it multiplies by 255 and rounds, for an `SRGB` format it encodes, for a 16-bit float it
/// takes `__float2half_rn`, and for a format that stores blue first it puts blue first. The type that
/// is written is as large as the texel (`surf2Dwrite<uchar4>` for `R8G8B8A8_UNORM`), and x counts
/// bytes: `surf2Dwrite(texel, surface, x * sizeof(uchar4), y)`.
///
/// # Order
/// cudarc orders the uses of one surface object in several streams of one context as it does those of
/// one slice. Uses of other objects on the same image, and by other APIs, are ordered with events,
/// semaphores and fences.
///
/// # Dropping
/// As [`TextureObject`](super::TextureObject).
#[derive(Debug)]
pub struct SurfaceObject {
    object: Object,
}

impl Array {
    /// Writes one level.
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::Error::Invalid) for a level that it hasn't;
    /// [`Error::Missing`](crate::Error::Missing) for a linear image, which is written by its bytes
    /// ([`buffer`](Self::buffer)); [`Error::Driver`](crate::Error::Driver).
    ///
    /// # References
    /// `cuSurfObjectCreate`.
    #[doc(alias = "cuSurfObjectCreate")]
    pub fn surface(&self, level: u32) -> Result<SurfaceObject> {
        if self.linear().is_some() {
            return Err(Missing::new(Api::Cuda, "surfaces of linear images", "writing an image")
                .help("write its bytes (Array::buffer), or make it optimal")
                .into());
        }
        let resource = array_descriptors::array(self.level(level)?);
        let _current = self.memory().endpoint().enter()?;
        let mut handle = 0;
        // SAFETY: the context is current; the description is complete, the array it describes is alive
        // (this holds it), stays so (`Object`), and was mapped with CUDA_ARRAY3D_SURFACE_LDST;
        // `handle` is writable.
        check("cuSurfObjectCreate", unsafe { sys::cuSurfObjectCreate(&mut handle, &resource) })?;
        Ok(SurfaceObject { object: Object::new(self, Kind::Surface, handle)? })
    }
}

impl SurfaceObject {
    /// The object as kernels know it (`cudaSurfaceObject_t`), valid for as long as this lives. As a
    /// kernel's argument the number is used behind cudarc's back; prefer the object itself.
    pub fn handle(&self) -> sys::CUsurfObject {
        self.object.handle()
    }

    /// The image that it writes.
    pub fn array(&self) -> &Array {
        self.object.array()
    }
}

// SAFETY: what is pushed is a number of 64 bits, the object's handle, which is what a kernel's
// parameter of the type `cudaSurfaceObject_t` takes; it lives in the object, which is borrowed for as
// long as the launch arguments.
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
        self.arg(surface.object.argument_mut())
    }
}

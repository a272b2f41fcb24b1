//! A texture object: how a kernel reads a shared image.

use std::ptr;

use cudarc::driver::{LaunchArgs, PushKernelArg, sys};

use super::array::Array;
use super::array_descriptors::{self, Rows};
use super::array_object::{Kind, Object};
use super::error::check;
use super::texture_options::TextureOptions;
use crate::desc::ImageDesc;
use crate::error::{Api, Invalid, Missing, Result};

use sys::CUdevice_attribute as Attribute;

/// A way for kernels to read an image: all its levels, or one. `Send` and `Sync`.
///
/// It is a kernel's argument: `launch_builder(&f).arg(&texture)` for a parameter of the type
/// `cudaTextureObject_t`. What a kernel gets from it is said at [`ReadMode`](super::ReadMode).
///
/// # Order
/// cudarc orders the uses of one texture object in several streams of one context as it does reads
/// of one slice: not at all. What else is written to the image, through surfaces or by other APIs, is
/// ordered with events, semaphores and fences.
///
/// # Dropping
/// Dropping it waits for the launches that took it as an argument, up to ten seconds (of several
/// streams at once, only for the last launch); then the object is left alive for ever, with its
/// image and memory, and `CUDA_ERROR_NOT_READY` is recorded in the context. Of kernels that were
/// given the bare [`handle`](Self::handle), and where cudarc's event tracking is off, nothing is
/// known here: synchronise their streams first. To have it wait for nothing, keep it.
#[derive(Debug)]
pub struct TextureObject {
    object: Object,
}

impl Array {
    /// Reads all levels (`tex2DLod` and its kin). The coordinates must be normalized.
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::Error::Invalid) for options that CUDA doesn't take for this image,
    /// coordinates that count texels among them, and for a linear image, of which
    /// [`level_texture`](Self::level_texture) reads the one level;
    /// [`Error::Driver`](crate::Error::Driver).
    ///
    /// # References
    /// `cuTexObjectCreate` with `CU_RESOURCE_TYPE_MIPMAPPED_ARRAY`.
    #[doc(alias = "cuTexObjectCreate")]
    pub fn texture(&self, options: &TextureOptions) -> Result<TextureObject> {
        let Some(all) = self.handle() else {
            return Err(Invalid::new("image", "is linear: it has no levels to choose from")
                .help("read its one level (Array::level_texture)")
                .into());
        };
        if !options.normalized_coordinates {
            return Err(Invalid::new("options.normalized_coordinates", "not, but of all levels")
                .help("use normalized coordinates, or read one level (Array::level_texture)")
                .into());
        }
        let resource = array_descriptors::mipmapped_array(all);
        self.create_texture(&resource, options, self.desc().levels)
    }

    /// Reads one level. For a linear image this is level 0, and all functions are those of two
    /// dimensions.
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::Error::Invalid) for a level that it hasn't, for options that CUDA
    /// doesn't take for this image, and for rows of a linear image that are not aligned as the device
    /// wants it; [`Error::Missing`](crate::Error::Missing) for a linear image of several layers or
    /// slices, or that is too large; [`Error::Driver`](crate::Error::Driver).
    ///
    /// # References
    /// `cuTexObjectCreate` with `CU_RESOURCE_TYPE_ARRAY` and `CU_RESOURCE_TYPE_PITCH2D`.
    pub fn level_texture(&self, level: u32, options: &TextureOptions) -> Result<TextureObject> {
        if self.linear().is_none() {
            let resource = array_descriptors::array(self.level(level)?);
            return self.create_texture(&resource, options, 1);
        }
        if level != 0 {
            return Err(self.no_level(level).into());
        }
        let rows = self.rows().ok_or_else(|| no_texture_of(self.desc()))?;
        check_rows(&rows, |attribute| self.memory().endpoint().attribute(attribute))?;
        self.create_texture(&array_descriptors::pitched(&rows), options, 1)
    }

    fn create_texture(
        &self,
        resource: &sys::CUDA_RESOURCE_DESC,
        options: &TextureOptions,
        levels: u32,
    ) -> Result<TextureObject> {
        let flags = options.flags(self.desc(), self.shape().format.array_format)?;
        let texture = array_descriptors::texture(options, flags, levels);
        let _current = self.memory().endpoint().enter()?;
        let mut handle = 0;
        // SAFETY: the context is current; both descriptions are complete, what they describe is alive
        // (this holds it) and stays so (`Object`); there is no view; `handle` is writable.
        check("cuTexObjectCreate", unsafe {
            sys::cuTexObjectCreate(&mut handle, resource, &texture, ptr::null())
        })?;
        Ok(TextureObject { object: Object::new(self, Kind::Texture, handle)? })
    }
}

impl TextureObject {
    /// The object as kernels know it (`cudaTextureObject_t`), valid for as long as this lives. As a
    /// kernel's argument the number is used behind cudarc's back; prefer the object itself.
    pub fn handle(&self) -> sys::CUtexObject {
        self.object.handle()
    }

    /// The image that it reads.
    pub fn array(&self) -> &Array {
        self.object.array()
    }
}

// SAFETY: what is pushed is a number of 64 bits, the object's handle, which is what a kernel's
// parameter of the type `cudaTextureObject_t` takes; it lives in the object, which is borrowed for as
// long as the launch arguments.
unsafe impl<'a, 'b: 'a> PushKernelArg<&'b TextureObject> for LaunchArgs<'a> {
    #[inline(always)]
    fn arg(&mut self, texture: &'b TextureObject) -> &mut Self {
        self.arg(texture.object.argument())
    }
}

fn no_texture_of(desc: &ImageDesc) -> Missing {
    let what = format!("textures of {} linear slices", desc.layers.max(desc.extent.depth));
    Missing::new(Api::Cuda, what, "reading a linear image")
        .help("read its bytes (Array::buffer), or make it optimal")
}

/// Refuses rows that can't be a texture of a device whose attributes `ask` tells.
fn check_rows(rows: &Rows, ask: impl Fn(Attribute) -> Result<i32>) -> Result<()> {
    let ask = |attribute| Ok::<_, crate::Error>(u64::try_from(ask(attribute)?).unwrap_or(0));
    let alignments = [
        ("offset", rows.address, Attribute::CU_DEVICE_ATTRIBUTE_TEXTURE_ALIGNMENT),
        ("row_pitch", rows.pitch as u64, Attribute::CU_DEVICE_ATTRIBUTE_TEXTURE_PITCH_ALIGNMENT),
    ];
    for (field, value, attribute) in alignments {
        // A driver that tells 0 wants nothing.
        let alignment = ask(attribute)?.max(1);
        if value % alignment != 0 {
            let problem = format!("{value:#x} is no multiple of {alignment}, as textures want it");
            return Err(Invalid::new(field, problem)
                .help("read the image's bytes (Array::buffer), or make it optimal")
                .into());
        }
    }
    let limits = [
        ("width", rows.width, Attribute::CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURE2D_LINEAR_WIDTH),
        ("height", rows.height, Attribute::CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURE2D_LINEAR_HEIGHT),
        ("row pitch", rows.pitch, Attribute::CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURE2D_LINEAR_PITCH),
    ];
    for (field, value, attribute) in limits {
        let limit = ask(attribute)?;
        if value as u64 > limit {
            let what = format!("textures of linear images with a {field} of {value}");
            return Err(Missing::new(Api::Cuda, what, "reading a linear image")
                .help(format!("this GPU takes up to {limit}; or read its bytes (Array::buffer)"))
                .into());
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "texture_object_tests.rs"]
mod tests;

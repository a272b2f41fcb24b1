//! Images: a `VkImage`, an OpenGL texture, or a CUDA array.

use std::ffi::c_void;
use std::mem::MaybeUninit;

use gpu_interop::ash::vk::Handle as _;
use gpu_interop::desc::{Extent, ImageFlags, ImageKind, Origin, Tiling, ViewFormats};
use gpu_interop::error::{Api, Invalid, Missing};
use gpu_interop::format::Format;
use gpu_interop::{ImageDesc, ImageUsage, Result, cuda, gl, peer, vulkan};

use crate::args::{consume, grows, handle, options, required, structure};
use crate::buffer::{gi_memory_options, unknown};
use crate::endpoint::{Endpoint, each_api, gi_endpoint};
use crate::error::{gi_result, guard, guard_value};
use crate::payload::gi_payload;

/// The dimensionality of an image.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum gi_image_kind {
    /// Two dimensions; with layers, an array.
    D2 = 0,
    /// One dimension; with layers, an array.
    D1 = 1,
    /// Three dimensions; never layered.
    D3 = 2,
    /// A cube: six square layers, or a multiple of six for an array of cubes.
    Cube = 3,
}

/// The description of an image. Exporter and importers create it alike.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct gi_image_desc {
    /// `sizeof(gi_image_desc)`.
    pub struct_size: usize,
    /// A `gi_image_kind`. Default: two dimensions.
    pub kind: u32,
    /// The `VkFormat`.
    pub format: i32,
    /// Width of level 0 in texels.
    pub width: u32,
    /// Height of level 0 in texels. Default: 1.
    pub height: u32,
    /// Depth of level 0 in texels. Default: 1.
    pub depth: u32,
    /// Array layers. Default: 1.
    pub layers: u32,
    /// Mip levels. Default: 1.
    pub levels: u32,
    /// Samples per texel. Default: 1.
    pub samples: u32,
    /// 1 for `VK_IMAGE_TILING_LINEAR`. Default: optimal tiling.
    pub linear: u32,
    /// `VkImageUsageFlags`.
    pub usage: u32,
    /// `VkImageCreateFlags`. Default: none.
    pub flags: u32,
    /// 1 if the texel (0, 0) is at the lower left corner of the picture. Default: the upper left.
    pub lower_left: u32,
    /// The number of view formats, at most 8. Default: views may have any compatible format.
    pub view_format_count: u32,
    /// The `VkFormat`s of the views.
    pub view_formats: [i32; 8],
}

grows!(gi_image_desc);

impl gi_image_desc {
    pub(crate) fn get(&self) -> Result<ImageDesc> {
        let Some(format) = Format::from_vulkan(self.format) else {
            let what = format!("VkFormat {} in its table", self.format);
            return Err(Missing::new(Api::Vulkan, what, "the C API").into());
        };
        let one = |count: u32| if count == 0 { 1 } else { count };
        let count = self.view_format_count as usize;
        let Some(views) = self.view_formats.get(..count) else {
            return Err(Invalid::new("desc.view_format_count", format!("is {count}")).into());
        };
        let usage = ImageUsage::from_bits_retain(self.usage);
        let depth = one(self.depth);
        Ok(ImageDesc {
            kind: match self.kind {
                0 => ImageKind::D2,
                1 => ImageKind::D1,
                2 => ImageKind::D3,
                3 => ImageKind::Cube,
                other => return Err(unknown("desc.kind", other, "gi_image_kind")),
            },
            extent: Extent { width: self.width, height: one(self.height), depth },
            layers: one(self.layers),
            levels: one(self.levels),
            samples: one(self.samples),
            tiling: if self.linear == 0 { Tiling::Optimal } else { Tiling::Linear },
            flags: ImageFlags::from_bits_retain(self.flags),
            view_formats: ViewFormats::from_raw(views)?,
            origin: if self.lower_left == 0 { Origin::UpperLeft } else { Origin::LowerLeft },
            ..ImageDesc::d2(format, self.width, one(self.height), usage)
        })
    }
}

/// An image of any API in shared memory.
pub struct gi_image(pub(crate) Image);

#[derive(Debug)]
pub(crate) enum Image {
    Vulkan(vulkan::Image),
    Gl(gl::Texture),
    Cuda(cuda::Array),
}

impl gi_image {
    pub(crate) fn vulkan(&self, parameter: &'static str) -> Result<&vulkan::Image> {
        match &self.0 {
            Image::Vulkan(image) => Ok(image),
            _ => Err(Invalid::new(parameter, "is not a Vulkan image").into()),
        }
    }

    pub(crate) fn gl(&self, parameter: &'static str) -> Result<&gl::Texture> {
        match &self.0 {
            Image::Gl(texture) => Ok(texture),
            _ => Err(Invalid::new(parameter, "is not an OpenGL texture").into()),
        }
    }
}

/// Adds every usage and flag to `desc` with which Vulkan can export the image and that OpenGL's
/// texture has: what `GL_EXT_memory_object` asks for. Call it before `gi_image_create` if OpenGL
/// imports the image.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gi_image_desc_for_gl(
    endpoint: Option<&gi_endpoint>,
    desc: *mut gi_image_desc,
) -> gi_result {
    guard(|| {
        let vulkan = required(endpoint, "endpoint")?.vulkan("endpoint")?;
        // SAFETY: the caller's promise.
        let read = unsafe { structure(desc, "desc") }?;
        if read.struct_size < std::mem::offset_of!(gi_image_desc, lower_left) {
            return Err(Invalid::new("desc.struct_size", "has no room for usage and flags").into());
        }
        let widest = peer::widest_for_gl(vulkan, &read.get()?)?;
        // SAFETY: valid, and large enough for these fields.
        unsafe {
            (&raw mut (*desc).usage).write(widest.usage.bits());
            (&raw mut (*desc).flags).write(widest.flags.bits());
        }
        Ok(())
    })
}

/// Creates an image that can be exported, by Vulkan. Its layout is `VK_IMAGE_LAYOUT_UNDEFINED`.
/// `memory_options` may be null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gi_image_create(
    endpoint: Option<&gi_endpoint>,
    desc: *const gi_image_desc,
    memory_options: *const gi_memory_options,
    image: Option<&mut MaybeUninit<Option<Box<gi_image>>>>,
) -> gi_result {
    guard(|| {
        let vulkan = required(endpoint, "endpoint")?.vulkan("endpoint")?;
        let out = required(image, "image")?;
        // SAFETY: the caller's promise.
        let (desc, memory) = unsafe {
            (structure(desc, "desc")?.get()?, options(memory_options, "options")?.get()?)
        };
        let created = vulkan.create_image(&desc, memory)?;
        out.write(Some(Box::new(gi_image(Image::Vulkan(created)))));
        Ok(())
    })
}

/// Imports an image. If it succeeds, it consumes the payload and sets `*payload` to null.
#[unsafe(no_mangle)]
pub extern "C" fn gi_image_import(
    endpoint: Option<&gi_endpoint>,
    payload: Option<&mut Option<Box<gi_payload>>>,
    image: Option<&mut MaybeUninit<Option<Box<gi_image>>>>,
) -> gi_result {
    guard(|| {
        let (endpoint, out) = (required(endpoint, "endpoint")?, required(image, "image")?);
        let import = |gi_payload(payload)| {
            payload.into_image().and_then(|payload| {
                let imported = match &endpoint.0 {
                    Endpoint::Vulkan(peer) => peer.import_image(payload).map(Image::Vulkan),
                    Endpoint::Gl(peer) => peer.import_image(payload).map(Image::Gl),
                    Endpoint::Cuda(peer) => peer.import_image(payload).map(Image::Cuda),
                };
                imported.map_err(|error| error.map(Into::into))
            })
        };
        let imported = consume(handle(payload, "payload")?, import, gi_payload)?;
        out.write(Some(Box::new(gi_image(imported))));
        Ok(())
    })
}

/// Exports an image of Vulkan, with a new descriptor each time.
#[unsafe(no_mangle)]
pub extern "C" fn gi_image_export(
    image: Option<&gi_image>,
    payload: Option<&mut MaybeUninit<Option<Box<gi_payload>>>>,
) -> gi_result {
    guard(|| {
        let out = required(payload, "payload")?;
        let exported = required(image, "image")?.vulkan("image")?.export()?;
        out.write(gi_payload::new(exported));
        Ok(())
    })
}

/// Returns the API's own handle: a `VkImage`, or the name of an OpenGL texture; 0 for null and for
/// CUDA, which has `gi_image_cuda`.
#[unsafe(no_mangle)]
pub extern "C" fn gi_image_handle(image: Option<&gi_image>) -> u64 {
    guard_value(|| match image.map(|image| &image.0) {
        Some(Image::Vulkan(image)) => image.handle().as_raw(),
        Some(Image::Gl(texture)) => texture.name().0.get().into(),
        Some(Image::Cuda(_)) | None => 0,
    })
}

/// Returns the target of an OpenGL texture, for example `GL_TEXTURE_2D`; 0 for other APIs.
#[unsafe(no_mangle)]
pub extern "C" fn gi_image_gl_target(image: Option<&gi_image>) -> u32 {
    image.and_then(|image| image.gl("image").ok()).map_or(0, gl::Texture::target)
}

/// Writes the `CUarray` of one mip level of a CUDA image of optimal tiling.
#[unsafe(no_mangle)]
pub extern "C" fn gi_image_cuda(
    image: Option<&gi_image>,
    level: u32,
    array: Option<&mut MaybeUninit<*mut c_void>>,
) -> gi_result {
    guard(|| {
        let out = required(array, "array")?;
        let Image::Cuda(array) = &required(image, "image")?.0 else {
            return Err(Invalid::new("image", "is not a CUDA array").into());
        };
        out.write(array.level(level)?.cast());
        Ok(())
    })
}

/// Writes the size of an image's level 0 in texels: width, height and depth.
#[unsafe(no_mangle)]
pub extern "C" fn gi_image_extent(
    image: Option<&gi_image>,
    extent: Option<&mut MaybeUninit<[u32; 3]>>,
) -> gi_result {
    guard(|| {
        let (image, out) = (required(image, "image")?, required(extent, "extent")?);
        let Extent { width, height, depth } =
            each_api!(Image, &image.0, image => image.desc().extent);
        out.write([width, height, depth]);
        Ok(())
    })
}

/// Ends the release of a Vulkan or OpenGL image that no ticket acquires any more. Its content is
/// undefined afterwards.
#[unsafe(no_mangle)]
pub extern "C" fn gi_image_reclaim(image: Option<&gi_image>) -> gi_result {
    guard(|| {
        match &required(image, "image")?.0 {
            Image::Vulkan(image) => image.reclaim(),
            Image::Gl(texture) => texture.reclaim(),
            Image::Cuda(_) => {}
        }
        Ok(())
    })
}

/// Destroys an image; null is allowed. The memory lives as long as another API or process uses it.
#[unsafe(no_mangle)]
pub extern "C" fn gi_image_destroy(image: Option<Box<gi_image>>) {
    guard_value(|| drop(image));
}

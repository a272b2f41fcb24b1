//! The images that CUDA works on, and the objects that its kernels access them through.

use std::rc::Rc;

use anyhow::Result;
use gpu_interop::cuda::{Array, SurfaceObject, TextureObject, TextureOptions};
use gpu_interop::format::Format;
use gpu_interop::vulkan::{Image, ImageOptions};
use gpu_interop::{ImageDesc, ImageUsage, cuda};

use super::settings::{bloom_levels, bloom_size};
use super::transfer;
use crate::vulkan::VulkanContext;

/// Light: 16-bit floats.
pub const LIGHT: Format = Format::Rgba16Float;
/// The developed picture: samplers decode it to linear light.
pub const PICTURE: Format = Format::Rgba8Srgb;

/// Usages of every image shared with CUDA.
const COPIES: ImageUsage = ImageUsage::TRANSFER_SRC.union(ImageUsage::TRANSFER_DST);

/// The usage of an image of light: Vulkan draws or stores to it, and it is sampled.
pub fn light_usage() -> ImageUsage {
    COPIES | ImageUsage::SAMPLED | ImageUsage::STORAGE | ImageUsage::COLOR_ATTACHMENT
}

/// A Vulkan image, and the same memory as a CUDA array.
#[derive(Debug)]
pub struct Shared {
    /// CUDA's side.
    pub array: Array,
    /// Vulkan's side.
    pub image: Rc<Image>,
}

impl Shared {
    /// Creates an image in Vulkan and imports it into CUDA.
    ///
    /// # Errors
    /// If a driver fails, or does not support such an image.
    pub fn new(gpu: &VulkanContext, cuda: &cuda::Endpoint, desc: &ImageDesc) -> Result<Self> {
        let image = gpu.endpoint.create_image(desc, ImageOptions::default())?;
        let array = cuda.import_image(image.export()?)?;
        Ok(Self { array, image: Rc::new(image) })
    }
}

/// A level of the bloom.
#[derive(Debug)]
pub(super) struct Level {
    pub(super) read: TextureObject,
    pub(super) write: SurfaceObject,
}

/// Light as kernels read it: as single texels, and filtered at another size.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) texels: TextureObject,
    pub(super) sampled: TextureObject,
}

/// All images of one picture, each in Vulkan's memory and mapped into CUDA: the light, the light
/// without noise, the levels of the bloom, and the developed picture.
#[derive(Debug)]
pub struct Canvas {
    // The objects are dropped before the arrays, and those before Vulkan's images.
    pub(super) noisy: Read,
    pub(super) clean: Read,
    pub(super) clean_surface: SurfaceObject,
    pub(super) levels: Vec<Level>,
    pub(super) picture_surface: SurfaceObject,
    /// The incoming light.
    pub light: Shared,
    /// Light without noise.
    pub denoised: Shared,
    /// The bloom; each level is half the size of the previous one.
    pub bloom: Shared,
    /// The developed picture.
    pub picture: Shared,
}

impl Canvas {
    /// The images for a picture of `width` × `height`. OpenGL can share the developed one, which `picture`
    /// describes.
    ///
    /// Vulkan still owns them: [`begin`](Self::begin) releases them to CUDA.
    ///
    /// # Errors
    /// If a driver fails, is out of memory, or does not support such an image.
    pub fn new(gpu: &VulkanContext, cuda: &cuda::Endpoint, picture: &ImageDesc) -> Result<Self> {
        let (width, height) = (picture.extent.width, picture.extent.height);
        let light_desc = ImageDesc::d2(LIGHT, width, height, light_usage());
        let (half_width, half_height) = bloom_size(width, height);
        let scratch = COPIES | ImageUsage::SAMPLED | ImageUsage::STORAGE;
        let levels = bloom_levels(width, height);
        let bloom_desc =
            ImageDesc { levels, ..ImageDesc::d2(LIGHT, half_width, half_height, scratch) };
        let light = Shared::new(gpu, cuda, &light_desc)?;
        let denoised = Shared::new(gpu, cuda, &ImageDesc::d2(LIGHT, width, height, scratch))?;
        let bloom = Shared::new(gpu, cuda, &bloom_desc)?;
        let picture = Shared::new(gpu, cuda, picture)?;
        let levels = (0..levels)
            .map(|level| {
                let read = bloom.array.level_texture(level, &TextureOptions::sampled())?;
                Ok(Level { read, write: bloom.array.surface(level)? })
            })
            .collect::<Result<_>>()?;
        Ok(Self {
            noisy: read(&light.array)?,
            clean: read(&denoised.array)?,
            clean_surface: denoised.array.surface(0)?,
            levels,
            picture_surface: picture.array.surface(0)?,
            light,
            denoised,
            bloom,
            picture,
        })
    }

    /// Width and height of the picture in texels.
    pub fn size(&self) -> (u32, u32) {
        let extent = self.light.image.desc().extent;
        (extent.width, extent.height)
    }

    /// Vulkan's images.
    pub fn images(&self) -> [&Image; 4] {
        [&self.light.image, &self.denoised.image, &self.bloom.image, &self.picture.image]
    }

    /// Releases all images, which are unused so far, to CUDA, and waits.
    ///
    /// # Errors
    /// If the driver fails.
    pub fn begin(&self, gpu: &VulkanContext) -> Result<()> {
        transfer::give_away(gpu, &self.images())
    }
}

fn read(array: &Array) -> Result<Read> {
    let texels = array.level_texture(0, &TextureOptions::texels())?;
    Ok(Read { texels, sampled: array.level_texture(0, &TextureOptions::sampled())? })
}

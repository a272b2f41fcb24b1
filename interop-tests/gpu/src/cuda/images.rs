//! Images in CUDA: a part is written through a surface object, and read through a texture object.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use gpu_interop::ImageDesc;
use gpu_interop::cuda::{Array, Filter, ReadMode, SurfaceObject, TextureObject, TextureOptions};
use gpu_interop::cudarc::driver::{CudaFunction, CudaModule, LaunchConfig, PushKernelArg};
use gpu_interop::cudarc::nvrtc::Ptx;
use gpu_interop::desc::{Extent, ImageKind};
use gpu_interop::format::{Aspects, Format};

use super::CudaContext;
use super::texels::{Texel, are_floats, pack};
use crate::image::{Part, level_extent};

const IMAGE: &str = include_str!("../../../../shaders/image.ptx");

const BLOCK: u32 = 256;

/// Reads single texels, unfiltered; a cube is read by direction.
pub fn texels(desc: &ImageDesc) -> TextureOptions {
    let normalized_coordinates = desc.kind == ImageKind::Cube;
    TextureOptions { normalized_coordinates, ..TextureOptions::texels() }
}

impl CudaContext {
    /// Fills `part` of `array` by `seed`, through a surface object.
    ///
    /// # Errors
    /// If CUDA fails.
    pub fn store_part(&self, array: &Array, part: &Part, seed: u32) -> Result<()> {
        let mut surface = array.surface(part.level)?;
        // Dropping the object waits for the kernel.
        self.store_through(&mut surface, part, seed)
    }

    /// Same as [`store_part`](Self::store_part), with an object that the caller keeps.
    ///
    /// # Errors
    /// If CUDA fails.
    pub fn store_through(&self, surface: &mut SurfaceObject, part: &Part, seed: u32) -> Result<()> {
        let desc = *surface.array().desc();
        ensure!(part.aspect == Aspects::COLOR, "CUDA reads colour only");
        let function = self.image_kernel(&format!("store_{}", dimensions(&desc)))?;
        let Extent { width, height, depth } = level_extent(&desc, part.level);
        let (bytes, kind) = (desc.format.block_bytes(), kind(desc.format));
        let seed = part.seed(seed);
        let mut launch = self.stream.launch_builder(&function);
        launch.arg(surface).arg(&width).arg(&height).arg(&depth).arg(&part.layer);
        launch.arg(&bytes).arg(&kind).arg(&seed);
        // SAFETY: the arguments are the kernel's, which stays within the level and layer.
        unsafe { launch.launch(for_texels(width * height * depth)) }?;
        Ok(())
    }

    /// Reads `part` of `array` through a texture object of its level, and packs it as the format stores it.
    ///
    /// # Errors
    /// If CUDA fails, and if a texel has a value that the format can't hold.
    pub fn fetch_part(&self, array: &Array, part: &Part, read: ReadMode) -> Result<Vec<u8>> {
        let options = TextureOptions { read, ..texels(array.desc()) };
        let texture = array.level_texture(part.level, &options)?;
        let found = self.fetch_through(&texture, part, dimensions(array.desc()), read)?;
        pack(array.desc().format, read, &found).with_context(|| format!("{part:?}, {read:?}"))
    }

    /// Same as [`fetch_part`](Self::fetch_part), through a texture object of all levels.
    ///
    /// # Errors
    /// Same as `fetch_part`.
    pub fn fetch_of_all(&self, array: &Array, part: &Part, read: ReadMode) -> Result<Vec<u8>> {
        let sampled = TextureOptions::sampled();
        let point = Filter::Point;
        let options = TextureOptions { read, filter: point, mip_filter: point, ..sampled };
        let texture = array.texture(&options)?;
        let kernel = if array.desc().layers > 1 { "2d_layered_lod" } else { "2d_lod" };
        let found = self.fetch_through(&texture, part, kernel, read)?;
        pack(array.desc().format, read, &found).with_context(|| format!("{part:?}, {read:?}"))
    }

    /// Returns what the texture unit reads for each texel of `part`, with the kernel `fetch_*`, whose suffix is
    /// `kernel`.
    ///
    /// # Errors
    /// If CUDA fails.
    pub fn fetch_through(
        &self,
        texture: &TextureObject,
        part: &Part,
        kernel: &str,
        read: ReadMode,
    ) -> Result<Vec<Texel>> {
        let desc = texture.array().desc();
        ensure!(part.aspect == Aspects::COLOR, "CUDA reads colour only");
        let function = self.image_kernel(&format!("fetch_{kernel}"))?;
        let Extent { width, height, depth } = level_extent(desc, part.level);
        let count = width * height * depth;
        // Filled with a pattern, so that texels that the kernel did not write are detected.
        let mut found = self.stream.clone_htod(&vec![0xa5a5_a5a5u32; 4 * count as usize])?;
        let as_floats = u32::from(are_floats(desc.format, read));
        let mut launch = self.stream.launch_builder(&function);
        launch.arg(&mut found).arg(texture).arg(&width).arg(&height).arg(&depth);
        launch.arg(&part.layer).arg(&part.level).arg(&as_floats);
        // SAFETY: the arguments are the kernel's, and the buffer has room for every texel.
        unsafe { launch.launch(for_texels(count)) }?;
        let found = self.stream.clone_dtoh(&found)?;
        self.stream.synchronize()?;
        Ok(found.as_chunks::<4>().0.to_vec())
    }

    /// Samples a texture object at each of `places`: x, y and, if it has levels, the level.
    ///
    /// # Errors
    /// If CUDA fails.
    pub fn sample(
        &self,
        texture: &TextureObject,
        places: &[[f32; 3]],
        has_levels: bool,
    ) -> Result<Vec<[f32; 4]>> {
        let function = self.image_kernel("sample_2d")?;
        let count = u32::try_from(places.len())?;
        let places = self.stream.clone_htod(places.as_flattened())?;
        let mut found = self.stream.alloc_zeros::<f32>(4 * count as usize)?;
        let has_levels = u32::from(has_levels);
        let mut launch = self.stream.launch_builder(&function);
        launch.arg(&mut found).arg(&places).arg(&count).arg(texture).arg(&has_levels);
        // SAFETY: the arguments are the kernel's, and both buffers have `count` elements.
        unsafe { launch.launch(for_texels(count)) }?;
        let found = self.stream.clone_dtoh(&found)?;
        self.stream.synchronize()?;
        Ok(found.as_chunks::<4>().0.to_vec())
    }

    /// Fills the single part of a linear image by `seed`, row by row, through its address.
    ///
    /// # Errors
    /// If CUDA fails.
    pub fn store_rows(&self, array: &Array, part: &Part, seed: u32) -> Result<()> {
        let mut buffer = array.buffer()?;
        let mut rows = buffer.as_view_mut::<u8>()?;
        let function = self.image_kernel("store_rows")?;
        let desc = array.desc();
        let Extent { width, height, .. } = desc.extent;
        let pitch = row_pitch(array)?;
        let (bytes, kind) = (desc.format.block_bytes(), kind(desc.format));
        let seed = part.seed(seed);
        let mut launch = self.stream.launch_builder(&function);
        launch.arg(&mut rows).arg(&width).arg(&height).arg(&pitch);
        launch.arg(&bytes).arg(&kind).arg(&seed);
        // SAFETY: the arguments are the kernel's, which stays within the rows' texels, and those lie
        // in the buffer.
        unsafe { launch.launch(for_texels(width * height * bytes)) }?;
        Ok(())
    }

    /// Reads the single part of a linear image, row by row, through its address.
    ///
    /// # Errors
    /// If CUDA fails.
    pub fn fetch_rows(&self, array: &Array, part: &Part) -> Result<Vec<u8>> {
        let buffer = array.buffer()?;
        let rows = buffer.as_view::<u8>()?;
        let function = self.image_kernel("fetch_rows")?;
        let desc = array.desc();
        let Extent { width, height, .. } = desc.extent;
        let (pitch, bytes) = (row_pitch(array)?, desc.format.block_bytes());
        let mut found = self.stream.clone_htod(&vec![0xa5u8; part.bytes(desc)])?;
        let mut launch = self.stream.launch_builder(&function);
        launch.arg(&mut found).arg(&rows).arg(&width).arg(&height).arg(&pitch).arg(&bytes);
        // SAFETY: as above, and `found` has room for the part.
        unsafe { launch.launch(for_texels(width * height * bytes)) }?;
        let found = self.stream.clone_dtoh(&found)?;
        self.stream.synchronize()?;
        Ok(found)
    }

    /// Writes `numbers`, four for each texel, through a surface object to a plain image with one or four
    /// channels of one byte: the kernel rounds to nearest.
    ///
    /// # Errors
    /// If CUDA fails.
    pub fn store_numbers(&self, array: &Array, numbers: &[[f32; 4]]) -> Result<()> {
        let desc = *array.desc();
        let Extent { width, height, .. } = desc.extent;
        ensure!(
            numbers.len() == (width * height) as usize,
            "the number of values differs from the number of texels"
        );
        let (bytes, kind) = (desc.format.block_bytes(), kind(desc.format));
        let numbers = self.stream.clone_htod(numbers.as_flattened())?;
        let function = self.image_kernel("store_numbers")?;
        let mut surface = array.surface(0)?;
        let mut launch = self.stream.launch_builder(&function);
        launch.arg(&mut surface).arg(&width).arg(&height).arg(&numbers).arg(&bytes).arg(&kind);
        // SAFETY: the arguments are the kernel's, which stays within the image and the numbers.
        unsafe { launch.launch(for_texels(width * height)) }?;
        Ok(())
    }

    fn image_kernel(&self, name: &str) -> Result<CudaFunction> {
        self.image_module()?.load_function(name).with_context(|| name.to_owned())
    }

    fn image_module(&self) -> Result<&Arc<CudaModule>> {
        if self.image_kernels.get().is_none() {
            let module = self.cuda.context().load_module(Ptx::from_src(IMAGE));
            let _ = self.image_kernels.set(module.context("image.ptx")?);
        }
        self.image_kernels.get().context("set above")
    }
}

/// The suffix of the kernel names for such an image.
pub fn dimensions(desc: &ImageDesc) -> &'static str {
    match (desc.kind, desc.layers) {
        (ImageKind::D1, 1) => "1d",
        (ImageKind::D1, _) => "1d_layered",
        (ImageKind::D3, _) => "3d",
        (ImageKind::Cube, 6) => "cube",
        (ImageKind::Cube, _) => "cube_layered",
        (_, 1) => "2d",
        (..) => "2d_layered",
    }
}

/// The kind of number that the texels hold, as the kernels number it; see [`Part::filled`].
fn kind(format: Format) -> u32 {
    match format {
        Format::Rgba8Snorm => 1,
        Format::R16Float | Format::Rg16Float | Format::Rgba16Float => 2,
        Format::R32Float | Format::Rg32Float | Format::Rgba32Float => 3,
        _ => 0,
    }
}

fn row_pitch(array: &Array) -> Result<u32> {
    let linear = array.linear().context("the image is not linear")?;
    Ok(u32::try_from(linear.row_pitch)?)
}

fn for_texels(count: u32) -> LaunchConfig {
    let grid_dim = (count.div_ceil(BLOCK).max(1), 1, 1);
    LaunchConfig { grid_dim, block_dim: (BLOCK, 1, 1), shared_mem_bytes: 0 }
}

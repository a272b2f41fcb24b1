//! Fills and reads every part of a texture by copies: `glTexSubImage2D` and its variants, `glGetTexImage`.

use std::ffi::{CStr, c_void};

use anyhow::{Context, Result, ensure};
use gpu_interop::ImageDesc;
use gpu_interop::desc::Extent;
use gpu_interop::format::{Aspects, Format};
use gpu_interop::gl::Texture;
use gpu_interop::glow::{self, HasContext as _};

use super::GlContext;
use super::depth_packing::{pack_depth, pack_depth_stencil, unpack_depth, unpack_depth_stencil};
use crate::image::{Part, level_extent};

const CUBE_FACES: u32 = 6;

const BOTH: Aspects = Aspects::DEPTH.union(Aspects::STENCIL);

/// `glTexSubImage1D`, which glow lacks.
type TexSubImage1d = unsafe extern "system" fn(u32, i32, i32, i32, u32, u32, *const c_void);

/// `glGetCompressedTexImage`, which glow lacks.
type GetCompressedTexImage = unsafe extern "system" fn(u32, i32, *mut c_void);

/// One level of a texture, of one face of it if it is a cube.
#[derive(Clone, Copy)]
struct Slab {
    level: u32,
    first_layer: u32,
    layers: u32,
    /// The target that the copies name: a face of a cube, otherwise the texture's target.
    target: u32,
}

/// The pieces of `texture` that one call each copies.
fn slabs(texture: &Texture) -> Vec<Slab> {
    let desc = texture.desc();
    let mut slabs = Vec::new();
    for level in 0..desc.levels {
        if texture.target() == glow::TEXTURE_CUBE_MAP {
            slabs.extend((0..CUBE_FACES).map(|face| Slab {
                level,
                first_layer: face,
                layers: 1,
                target: glow::TEXTURE_CUBE_MAP_POSITIVE_X + face,
            }));
        } else {
            let (layers, target) = (desc.layers, texture.target());
            slabs.push(Slab { level, first_layer: 0, layers, target });
        }
    }
    slabs
}

impl Slab {
    fn part(self, aspect: Aspects, layer: u32) -> Part {
        Part { aspect, level: self.level, layer }
    }

    /// Bytes of one layer as OpenGL packs it.
    fn layer_bytes(self, desc: &ImageDesc) -> usize {
        let Extent { width, height, depth } = level_extent(desc, self.level);
        let slice = desc.format.row_bytes(width) as usize * desc.format.rows(height) as usize;
        slice * depth as usize
    }

    /// The content for `seed`, as OpenGL packs it.
    fn filled(self, desc: &ImageDesc, seed: u32) -> Vec<u8> {
        let mut bytes = Vec::new();
        for layer in self.first_layer..self.first_layer + self.layers {
            let of = |aspect| self.part(aspect, layer).filled(desc, seed);
            match desc.format.aspects() {
                BOTH => {
                    let (depth, stencil) = (of(Aspects::DEPTH), of(Aspects::STENCIL));
                    bytes.extend(pack_depth_stencil(desc.format, &depth, &stencil));
                }
                aspect if desc.format == Format::X8D24Unorm => {
                    bytes.extend(pack_depth(&of(aspect)));
                }
                aspect => bytes.extend(of(aspect)),
            }
        }
        bytes
    }

    /// Checks what OpenGL has read.
    fn check(self, desc: &ImageDesc, seed: u32, read: &[u8]) -> Result<()> {
        let layers = (self.first_layer..).zip(read.chunks_exact(self.layer_bytes(desc)));
        for (layer, bytes) in layers {
            let check = |aspect, bytes: &[u8]| self.part(aspect, layer).check(desc, seed, bytes);
            match desc.format.aspects() {
                BOTH => {
                    let (depth, stencil) = unpack_depth_stencil(desc.format, bytes);
                    check(Aspects::DEPTH, &depth)?;
                    check(Aspects::STENCIL, &stencil)?;
                }
                aspect if desc.format == Format::X8D24Unorm => check(aspect, &unpack_depth(bytes))?,
                aspect => check(aspect, bytes)?,
            }
        }
        Ok(())
    }
}

impl GlContext {
    /// Fills `texture`, which has one sample, with the content for `seed`.
    ///
    /// # Errors
    /// If OpenGL fails.
    pub fn upload_texture(&self, texture: &Texture, seed: u32) -> Result<()> {
        for slab in slabs(texture) {
            self.upload_slab(texture, slab, &slab.filled(texture.desc(), seed))?;
        }
        Ok(())
    }

    fn upload_slab(&self, texture: &Texture, slab: Slab, bytes: &[u8]) -> Result<()> {
        let (gl, desc) = (self.glow(), texture.desc());
        let names = desc.format.gl()?;
        let (format, ty) = (names.format, names.ty);
        let size = level_extent(desc, slab.level);
        let int = |value: u32| i32::try_from(value).context("a size");
        let (width, height, depth) = (int(size.width)?, int(size.height)?, int(size.depth)?);
        let (level, layers) = (int(slab.level)?, int(slab.layers)?);
        if desc.format.is_compressed() {
            return self.upload_blocks(texture, slab, bytes);
        }
        let from = || glow::PixelUnpackData::Slice(Some(bytes));
        let flat: TexSubImage1d = self.load(c"glTexSubImage1D")?;
        let target = slab.target;
        // SAFETY: the context is current, the texture its own; the bytes are as many as its sizes
        // take, tightly packed (`filled`).
        unsafe {
            gl.pixel_store_i32(glow::UNPACK_ALIGNMENT, 1);
            gl.bind_texture(texture.target(), Some(texture.name()));
            match texture.target() {
                glow::TEXTURE_1D => {
                    flat(target, level, 0, width, format, ty, bytes.as_ptr().cast());
                }
                glow::TEXTURE_1D_ARRAY => {
                    gl.tex_sub_image_2d(target, level, 0, 0, width, layers, format, ty, from());
                }
                glow::TEXTURE_2D | glow::TEXTURE_CUBE_MAP => {
                    gl.tex_sub_image_2d(target, level, 0, 0, width, height, format, ty, from());
                }
                _ => {
                    let slices = depth * layers;
                    let (w, h) = (width, height);
                    gl.tex_sub_image_3d(target, level, 0, 0, 0, w, h, slices, format, ty, from());
                }
            }
            gl.bind_texture(texture.target(), None);
        }
        self.check("glTexSubImage")
    }

    /// Uploads texel blocks as they are.
    fn upload_blocks(&self, texture: &Texture, slab: Slab, bytes: &[u8]) -> Result<()> {
        let (gl, desc) = (self.glow(), texture.desc());
        let (target, format) = (slab.target, desc.format.gl()?.format);
        let level = i32::try_from(slab.level)?;
        let size = level_extent(desc, slab.level);
        let (width, height) = (i32::try_from(size.width)?, i32::try_from(size.height)?);
        let slices = i32::try_from(size.depth * slab.layers)?;
        let from = glow::CompressedPixelUnpackData::Slice(bytes);
        // SAFETY: the context is current, the texture its own; the bytes are its blocks (`filled`).
        unsafe {
            gl.bind_texture(texture.target(), Some(texture.name()));
            match texture.target() {
                glow::TEXTURE_2D | glow::TEXTURE_CUBE_MAP => {
                    gl.compressed_tex_sub_image_2d(
                        target, level, 0, 0, width, height, format, from,
                    );
                }
                _ => gl.compressed_tex_sub_image_3d(
                    target, level, 0, 0, 0, width, height, slices, format, from,
                ),
            }
            gl.bind_texture(texture.target(), None);
        }
        self.check("glCompressedTexSubImage")
    }

    /// Loads a function that glow lacks.
    fn load<F: Copy>(&self, name: &CStr) -> Result<F> {
        const { assert!(size_of::<F>() == size_of::<*const c_void>()) };
        let address = (self.gl.loader())(name);
        ensure!(!address.is_null(), "OpenGL lacks {name:?}");
        // SAFETY: the callers ask for the function's own type, which is a pointer.
        Ok(unsafe { std::mem::transmute_copy(&address) })
    }

    /// Reads all of `texture`, which has one sample, and checks that it holds the content for `seed`.
    ///
    /// # Errors
    /// With the first texel that differs, and if OpenGL fails.
    pub fn check_texture(&self, texture: &Texture, seed: u32) -> Result<()> {
        let (gl, desc) = (self.glow(), texture.desc());
        let names = desc.format.gl()?;
        let blocks: GetCompressedTexImage = self.load(c"glGetCompressedTexImage")?;
        for slab in slabs(texture) {
            // Overwritten first, so that a read that did not happen is detected.
            let mut read = vec![0xA5; slab.layer_bytes(desc) * slab.layers as usize];
            let level = i32::try_from(slab.level)?;
            // SAFETY: the context is current, the texture its own; there is room for all of the level,
            // tightly packed.
            unsafe {
                gl.pixel_store_i32(glow::PACK_ALIGNMENT, 1);
                gl.bind_texture(texture.target(), Some(texture.name()));
                if desc.format.is_compressed() {
                    blocks(slab.target, level, read.as_mut_ptr().cast());
                } else {
                    let into = glow::PixelPackData::Slice(Some(&mut read));
                    gl.get_tex_image(slab.target, level, names.format, names.ty, into);
                }
                gl.bind_texture(texture.target(), None);
            }
            self.check("glGetTexImage")?;
            slab.check(desc, seed, &read).context("glGetTexImage")?;
        }
        Ok(())
    }
}

//! What the context can import, and which images it supports. It exports nothing.

use glow::HasContext as _;

use super::endpoint::Endpoint;
use super::errors::checked;
use super::features::Features;
use super::ffi::{NUM_TILING_TYPES_EXT, TILING_TYPES_EXT};
use super::target::{Target, tiling_token};
use super::{memory, semaphore};
use crate::capabilities::{
    Capabilities, Dedicated, MemorySupport, SemaphoreSupport, Support, each_semaphore, supported,
};
use crate::desc::{ImageDesc, ImageFlags, ImageUsage, ResourceDesc, Tiling};
use crate::error::{Api, Error, Invalid, Missing, Result, Text};
use crate::fd::{MemoryHandleType, SemaphoreHandleType};
use crate::format::{Aspects, ChannelOrder, Format, RawFormat};
use crate::payload::SemaphoreKind;

impl Endpoint {
    /// Returns what the context can do with `desc`, per handle type, and with semaphores.
    ///
    /// For an image, the context is queried for such a texture in imported memory: its format,
    /// shape, size, tiling and sample count. It must be current then; for a buffer it need not be.
    /// OpenGL's textures have no usage, so the result doesn't cover whether OpenGL can render to
    /// the format or store to it from a shader.
    ///
    /// # Errors
    /// [`Invalid`](Error::Invalid) if `desc` is invalid, or is an image and the context is not
    /// current. What the driver doesn't support is part of the result, not an error.
    ///
    /// # References
    /// `GL_EXT_memory_object_fd`, `GL_EXT_semaphore_fd`, `GL_NV_timeline_semaphore`;
    /// `glGetInternalformativ` (`GL_INTERNALFORMAT_SUPPORTED`, `GL_TILING_TYPES_EXT`,
    /// `GL_SAMPLES`).
    #[doc(alias = "glGetInternalformativ")]
    pub fn capabilities(&self, desc: &ResourceDesc) -> Result<Capabilities> {
        desc.validate()?;
        let dma_buf = MemoryHandleType::DmaBuf;
        let memory = vec![
            memory_support(MemoryHandleType::OpaqueFd, self.memory_import(desc)?),
            memory_support(dma_buf, Err(memory::missing_handle_type(dma_buf))),
        ];
        let semaphores = each_semaphore(|kind, handle_type| SemaphoreSupport {
            kind,
            handle_type,
            export: Err(no_export("semaphores")),
            import: self.semaphore_import(kind, handle_type),
        });
        let identities = self.identities().to_vec();
        Ok(Capabilities { api: Api::OpenGl, identities, desc: *desc, memory, semaphores })
    }

    fn memory_import(&self, desc: &ResourceDesc) -> Result<Support> {
        match desc {
            ResourceDesc::Buffer(_) => {
                Ok(self.0.functions.memory.as_ref().map(drop).map_err(Missing::clone))
            }
            ResourceDesc::Image(image) => {
                let _errors = self.enter()?;
                supported(self.check_image(image))
            }
        }
    }

    fn semaphore_import(&self, kind: SemaphoreKind, handle_type: SemaphoreHandleType) -> Support {
        if handle_type != SemaphoreHandleType::OpaqueFd {
            return Err(semaphore::missing_handle_type(handle_type));
        }
        match kind {
            SemaphoreKind::Binary => self.0.functions.semaphore.as_ref().map(drop),
            SemaphoreKind::Timeline => self.0.functions.timeline.as_ref().map(drop),
        }
        .map_err(Missing::clone)
    }

    /// Rejects an image if the context can't create such a texture in imported memory: checks its
    /// format, target, tiling, sample count and size. The context must be current.
    ///
    /// # Errors
    /// [`Missing`] that names what the context lacks; [`Driver`](Error::Driver) if the query fails.
    pub(super) fn check_image(&self, desc: &ImageDesc) -> Result<()> {
        self.0.functions.memory.as_ref().map_err(Missing::clone)?;
        let query = ImageQuery { endpoint: self, desc, target: Target::of(desc) };
        let internal = desc.format.gl()?.internal;
        query.target.check(&self.0.features)?;
        if desc.format.channel_order() == ChannelOrder::Bgra && !self.0.features.texture_swizzle {
            return Err(query.missing("GL_ARB_texture_swizzle", "open a context of OpenGL 3.3"));
        }
        query.check_size()?;
        query.check_format(internal)?;
        query.check_tiling(internal)?;
        query.check_samples(internal)
    }

    /// Describes what OpenGL may need but the image was created without: usages, or views of other
    /// formats. Returns `None` if nothing is missing. The context must be current.
    pub(super) fn lacks_for_gl(&self, desc: &ImageDesc) -> Result<Option<String>> {
        let mut lacks = desc.for_gl().usage - desc.usage;
        if self.0.features.format_query {
            let query = ImageQuery { endpoint: self, desc, target: Target::of(desc) };
            let internal = desc.format.gl()?.internal;
            let attachments = ImageUsage::COLOR_ATTACHMENT | ImageUsage::DEPTH_STENCIL_ATTACHMENT;
            for (usage, parameter) in [
                (attachments, glow::FRAMEBUFFER_RENDERABLE),
                (ImageUsage::STORAGE, glow::SHADER_IMAGE_STORE),
            ] {
                if lacks.intersects(usage) && query.query(internal, parameter)? == [0] {
                    lacks -= usage;
                }
            }
        }
        let usages = lacks.iter_names().map(|(name, _)| name);
        let views = (self.0.features.views && !desc.flags.contains(ImageFlags::MUTABLE_FORMAT))
            .then_some("MUTABLE_FORMAT");
        let lacks: Vec<_> = usages.chain(views).collect();
        Ok((!lacks.is_empty()).then(|| lacks.join(", ")))
    }
}

fn memory_support(handle_type: MemoryHandleType, import: Support) -> MemorySupport {
    let export = Err(no_export("memory"));
    MemorySupport { handle_type, export, import, dedicated: Dedicated::NotNeeded }
}

fn no_export(what: &str) -> Missing {
    Missing::new(Api::OpenGl, format!("exporting {what}"), "sharing what OpenGL allocated")
        .help("allocate it with Vulkan: OpenGL can only import")
}

/// The maximum number of values read from a query; no driver has that many sample counts or
/// tilings.
const MAX_VALUES: usize = 16;

struct ImageQuery<'a> {
    endpoint: &'a Endpoint,
    desc: &'a ImageDesc,
    target: Target,
}

impl ImageQuery<'_> {
    fn check_format(&self, internal: u32) -> Result<()> {
        let what = || format!("the format {}", self.described());
        // OpenGL 4.6, section 8.5. OpenGL ES has the same rule but no query for it.
        let is_color = self.desc.format.aspects().contains(Aspects::COLOR);
        if self.target == Target::D3 && !is_color {
            return Err(self.missing(what(), "share depth and stencil as a 2D image with layers"));
        }
        if self.target == Target::D3 && is_s3tc(internal) {
            // GL_NV_texture_compression_vtc stores blocks of 4 × 4 × 4 texels; Vulkan has no such
            // blocks.
            return Err(self.missing(what(), "share it as a 2D image with layers, or as BC7"));
        }
        if !self.endpoint.0.features.format_query {
            return Ok(());
        }
        let [supported] = self.query(internal, glow::INTERNALFORMAT_SUPPORTED)?;
        if supported != i32::from(glow::TRUE) {
            return Err(self.missing(what(), "share the image in another format"));
        }
        match self.desc.format {
            Format::Raw(raw) => self.check_raw_format(&raw, internal),
            _ => Ok(()),
        }
    }

    /// Rejects a raw format whose OpenGL format has texels of another size: the texture would reach
    /// past the end of its memory.
    fn check_raw_format(&self, raw: &RawFormat, internal: u32) -> Result<()> {
        let one = |parameter| self.query::<1>(internal, parameter).map(|[value]| value);
        let (width, height) = raw.block_extent;
        let has_blocks = one(glow::TEXTURE_COMPRESSED)? == i32::from(glow::TRUE);
        let (found, bytes) = if has_blocks {
            let found =
                [glow::TEXTURE_COMPRESSED_BLOCK_WIDTH, glow::TEXTURE_COMPRESSED_BLOCK_HEIGHT];
            let [width, height] = found.map(one);
            let size = one(glow::TEXTURE_COMPRESSED_BLOCK_SIZE)?;
            // Some drivers return bits.
            let is_bits = i64::from(size) == 8 * i64::from(raw.block_bytes);
            ((width?, height?), i64::from(if is_bits { size / 8 } else { size }))
        } else {
            // Red, green, blue, alpha, depth, stencil, and what they share.
            let sizes = glow::INTERNALFORMAT_RED_SIZE..=glow::INTERNALFORMAT_SHARED_SIZE;
            let bits = sizes.map(one).sum::<Result<i32>>()?;
            ((1, 1), i64::from((bits.max(0) as u32).div_ceil(8).next_power_of_two()))
        };
        let needed = (i64::from(width), i64::from(height), i64::from(raw.block_bytes));
        if (i64::from(found.0), i64::from(found.1), bytes) == needed {
            return Ok(());
        }
        let problem = format!(
            "{} has {} bytes per {width}×{height} texels, but OpenGL's {internal:#06x} has {bytes} bytes \
             per {}×{}",
            self.desc.format, raw.block_bytes, found.0, found.1
        );
        Err(Invalid::new("desc.format", problem)
            .help("give the internal format with the same bits as the VkFormat (RawFormat::gl)")
            .into())
    }

    fn check_tiling(&self, internal: u32) -> Result<()> {
        let needed = self.desc.tiling;
        // Without an answer, the driver decides when the texture is created.
        let Some(tilings) = self.tilings(internal)? else { return Ok(()) };
        if tilings.contains(&tiling_token(needed)) {
            return Ok(());
        }
        let what = format!("{needed:?} tiling of {} in imported memory", self.described());
        let other = match needed {
            Tiling::Optimal => Tiling::Linear,
            Tiling::Linear => Tiling::Optimal,
        };
        Err(if tilings.contains(&tiling_token(other)) {
            self.missing(what, format!("use {other:?} tiling, which it has (GL_TILING_TYPES_EXT)"))
        } else {
            self.missing(what, "share another format: it has no tiling (GL_TILING_TYPES_EXT)")
        })
    }

    /// Returns the tilings of textures of `internal` format, or `None` if the context can't answer.
    /// OpenGL ES and OpenGL before 4.3 have the query, but not for textures without samples.
    fn tilings(&self, internal: u32) -> Result<Option<Vec<i32>>> {
        let Features { format_query, sample_query, .. } = self.endpoint.0.features;
        let target = if format_query { self.target.token() } else { glow::RENDERBUFFER };
        if !sample_query {
            return Ok(None);
        }
        let values = || {
            let [count] = self.query_target(target, internal, NUM_TILING_TYPES_EXT)?;
            let tilings: [i32; MAX_VALUES] =
                self.query_target(target, internal, TILING_TYPES_EXT)?;
            Ok(first(&tilings, count).to_vec())
        };
        match values() {
            Ok(tilings) => Ok(Some(tilings)),
            Err(_) if !format_query => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn check_samples(&self, internal: u32) -> Result<()> {
        let needed = self.desc.samples;
        if needed == 1 || !self.endpoint.0.features.sample_query {
            return Ok(());
        }
        let [count] = self.query(internal, glow::NUM_SAMPLE_COUNTS)?;
        let counts: [i32; MAX_VALUES] = self.query(internal, glow::SAMPLES)?;
        let counts = first(&counts, count);
        // OpenGL would round up to the next count that it has, which would not match the exporter's
        // image.
        if counts.iter().any(|&count| u32::try_from(count) == Ok(needed)) {
            return Ok(());
        }
        let what = format!("{needed} samples of {}", self.described());
        Err(self
            .missing(what, format!("use one of the sample counts {counts:?} (GL_SAMPLES), or 1")))
    }

    fn check_size(&self) -> Result<()> {
        let extent = self.desc.extent;
        let longest = extent.width.max(extent.height).max(extent.depth);
        self.check_limit("texels in a row", longest, self.target.size_limit())?;
        if self.target.is_array() {
            self.check_limit("layers", self.desc.layers, glow::MAX_ARRAY_TEXTURE_LAYERS)?;
        }
        Ok(())
    }

    fn check_limit(&self, unit: &str, needed: u32, limit: u32) -> Result<()> {
        let gl = &self.endpoint.0.gl;
        // SAFETY: the context is current (`check_image`), and the limit is one integer of every
        // context that has such textures (`Target::check`).
        let limit = checked(gl, "glGetIntegerv(GL_MAX_TEXTURE_SIZE)", || unsafe {
            gl.get_parameter_i32(limit)
        })?;
        if i64::from(needed) <= i64::from(limit) {
            return Ok(());
        }
        let what = format!("{needed} {unit} in {}", self.target.name());
        Err(self.missing(what, format!("the context's limit is {limit}: share a smaller image")))
    }

    /// Queries a parameter of the image's target and `internal` format.
    fn query<const N: usize>(&self, internal: u32, parameter: u32) -> Result<[i32; N]> {
        self.query_target(self.target.token(), internal, parameter)
    }

    fn query_target<const N: usize>(
        &self,
        target: u32,
        internal: u32,
        parameter: u32,
    ) -> Result<[i32; N]> {
        let mut values = [0; N];
        let gl = &self.endpoint.0.gl;
        // SAFETY: the context is current (`check_image`) and has the function (`Features`); OpenGL
        // writes at most as many integers as the slice has.
        checked(gl, "glGetInternalformativ", || unsafe {
            gl.get_internal_format_i32_slice(target, internal, parameter, &mut values);
        })?;
        Ok(values)
    }

    fn described(&self) -> String {
        format!("{} as {}", self.desc.format, self.target.name())
    }

    fn missing(&self, what: impl Into<Text>, help: impl Into<Text>) -> Error {
        Missing::new(Api::OpenGl, what, "a shared image").help(help).into()
    }
}

/// Whether `internal` is one of `GL_EXT_texture_compression_s3tc` or its sRGB variants, BC1 to BC3
/// in Vulkan.
fn is_s3tc(internal: u32) -> bool {
    matches!(internal, 0x83F0..=0x83F3 | 0x8C4C..=0x8C4F)
}

/// Returns the first `count` values.
fn first(all: &[i32; MAX_VALUES], count: i32) -> &[i32] {
    let count = usize::try_from(count).unwrap_or(0);
    &all[..count.min(MAX_VALUES)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bc1_is_known_as_s3tc() {
        for (format, expected) in [
            (Format::Bc1RgbaUnorm, true),
            (Format::Bc1RgbaSrgb, true),
            (Format::Bc7Unorm, false),
            (Format::Rgba8Unorm, false),
        ] {
            assert_eq!(is_s3tc(format.gl().unwrap().internal), expected, "{format}");
        }
    }

    #[test]
    fn a_drivers_count_of_values_is_limited() {
        let mut all = [0; MAX_VALUES];
        all[0] = tiling_token(Tiling::Optimal);
        assert_eq!(first(&all, 1), [0x9584]);
        assert!(first(&all, 0).is_empty() && first(&all, -1).is_empty());
        assert_eq!(first(&all, i32::MAX).len(), MAX_VALUES);
    }
}

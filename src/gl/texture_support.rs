//! What the context tells of an image before memory is handed over for it.

use glow::HasContext as _;

use super::endpoint::Shared;
use super::error::checked;
use super::ffi::{LINEAR_TILING_EXT, NUM_TILING_TYPES_EXT, OPTIMAL_TILING_EXT, TILING_TYPES_EXT};
use super::texture_target::Target;
use crate::desc::{ImageDesc, Tiling};
use crate::error::{Api, Missing, Result};
use crate::format::{Aspects, ChannelOrder};

const FOR_IMAGES: &str = "a shared image";

/// Answers that are read at most; no driver has as many sample counts or tilings.
const MAX_ANSWERS: usize = 16;

impl Shared {
    /// Refuses an image that the context can't make a texture of in imported memory: the format, the
    /// target, the tiling, the sample count and the size are asked for. The context is current.
    ///
    /// # Errors
    /// [`Missing`] that names what is; [`Driver`](crate::Error::Driver) where OpenGL refuses to tell.
    pub(super) fn check_image(&self, desc: &ImageDesc) -> Result<()> {
        self.functions.memory.as_ref().map_err(Missing::clone)?;
        let query = Query { shared: self, desc, target: Target::of(desc) };
        let internal = desc.format.gl()?.internal;
        query.target.require(&self.features)?;
        if desc.format.channel_order() == ChannelOrder::Bgra && !self.features.texture_swizzle {
            return Err(query.missing("GL_ARB_texture_swizzle", "open a context of OpenGL 3.3"));
        }
        query.check_size()?;
        query.check_format(internal)?;
        query.check_tiling(internal)?;
        query.check_samples(internal)
    }
}

/// An image that is asked about.
struct Query<'a> {
    shared: &'a Shared,
    desc: &'a ImageDesc,
    target: Target,
}

impl Query<'_> {
    fn check_format(&self, internal: u32) -> Result<()> {
        // OpenGL 4.6, section 8.5: a rule of the specification, which OpenGL ES can't be asked for.
        let is_color = self.desc.format.aspects().contains(Aspects::COLOR);
        if self.target == Target::D3 && !is_color {
            let what = format!("the format {}", self.described());
            return Err(self.missing(what, "share depth and stencil as a 2D image with layers"));
        }
        if !self.shared.features.format_query {
            return Ok(());
        }
        let [supported] = self.ask(internal, glow::INTERNALFORMAT_SUPPORTED)?;
        if supported == i32::from(glow::TRUE) {
            return Ok(());
        }
        let what = format!("the format {}", self.described());
        Err(self.missing(what, "share the image in another format"))
    }

    fn check_tiling(&self, internal: u32) -> Result<()> {
        let wanted = self.desc.tiling;
        let what = format!("{wanted:?} tiling of {} in imported memory", self.described());
        if !self.shared.features.format_query {
            if wanted == Tiling::Optimal {
                // What a texture has that nobody sets a tiling of.
                return Ok(());
            }
            let help = "the context can't be asked for it: open one of OpenGL 4.3, or share the \
                        image with optimal tiling";
            return Err(self.missing(what, help));
        }
        let [count] = self.ask(internal, NUM_TILING_TYPES_EXT)?;
        let tilings: [i32; MAX_ANSWERS] = self.ask(internal, TILING_TYPES_EXT)?;
        let tilings = answers(&tilings, count);
        if tilings.contains(&tiling_token(wanted)) {
            return Ok(());
        }
        let other = match wanted {
            Tiling::Optimal => Tiling::Linear,
            Tiling::Linear => Tiling::Optimal,
        };
        Err(if tilings.contains(&tiling_token(other)) {
            self.missing(what, format!("{other:?} tiling is there (GL_TILING_TYPES_EXT)"))
        } else {
            self.missing(what, "no tiling is there (GL_TILING_TYPES_EXT): share another format")
        })
    }

    fn check_samples(&self, internal: u32) -> Result<()> {
        let wanted = self.desc.samples;
        if wanted == 1 || !self.shared.features.sample_query {
            return Ok(());
        }
        let [count] = self.ask(internal, glow::NUM_SAMPLE_COUNTS)?;
        let counts: [i32; MAX_ANSWERS] = self.ask(internal, glow::SAMPLES)?;
        let counts = answers(&counts, count);
        // OpenGL would round up to the next count that it has: not the exporter's image.
        if counts.iter().any(|&count| u32::try_from(count) == Ok(wanted)) {
            return Ok(());
        }
        let what = format!("{wanted} samples of {}", self.described());
        Err(self.missing(what, format!("it has {counts:?} (GL_SAMPLES)")))
    }

    fn check_size(&self) -> Result<()> {
        let extent = self.desc.extent;
        let longest = extent.width.max(extent.height).max(extent.depth);
        self.check_below("texels in a row", longest, self.target.size_limit())?;
        if self.target.is_array() {
            self.check_below("layers", self.desc.layers, glow::MAX_ARRAY_TEXTURE_LAYERS)?;
        }
        Ok(())
    }

    fn check_below(&self, unit: &str, wanted: u32, limit: u32) -> Result<()> {
        // SAFETY: the context is current (`check_image`), and the limit is one integer of every
        // context that has such textures (`Target::require`).
        let limit = checked(&self.shared.gl, "glGetIntegerv(GL_MAX_TEXTURE_SIZE)", || unsafe {
            self.shared.gl.get_parameter_i32(limit)
        })?;
        if i64::from(wanted) <= i64::from(limit) {
            return Ok(());
        }
        let what = format!("{wanted} {unit} in {}", self.target.name());
        Err(self.missing(what, format!("it has {limit} at most")))
    }

    /// What the context answers for the image's target and `internal` format.
    fn ask<const N: usize>(&self, internal: u32, parameter: u32) -> Result<[i32; N]> {
        let mut answer = [0; N];
        let gl = &self.shared.gl;
        // SAFETY: the context is current (`check_image`) and has the function (`Features`); OpenGL
        // writes at most as many integers as the slice has.
        checked(gl, "glGetInternalformativ", || unsafe {
            let target = self.target.token();
            gl.get_internal_format_i32_slice(target, internal, parameter, &mut answer);
        })?;
        Ok(answer)
    }

    fn described(&self) -> String {
        format!("{} as {}", self.desc.format.name(), self.target.name())
    }

    fn missing(
        &self,
        what: impl Into<crate::error::Text>,
        help: impl Into<crate::error::Text>,
    ) -> crate::Error {
        Missing::new(Api::OpenGl, what, FOR_IMAGES).help(help).into()
    }
}

/// The first `count` answers.
fn answers(all: &[i32; MAX_ANSWERS], count: i32) -> &[i32] {
    let count = usize::try_from(count).unwrap_or(0);
    &all[..count.min(MAX_ANSWERS)]
}

/// What `GL_TEXTURE_TILING_EXT` is set to, and `GL_TILING_TYPES_EXT` lists.
pub(super) const fn tiling_token(tiling: Tiling) -> i32 {
    match tiling {
        Tiling::Optimal => OPTIMAL_TILING_EXT as i32,
        Tiling::Linear => LINEAR_TILING_EXT as i32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_as_many_answers_as_there_are_count() {
        let mut all = [0; MAX_ANSWERS];
        all[0] = tiling_token(Tiling::Optimal);
        assert_eq!(answers(&all, 1), [0x9584]);
        assert!(answers(&all, 0).is_empty() && answers(&all, -1).is_empty());
        assert_eq!(answers(&all, i32::MAX).len(), MAX_ANSWERS);
    }
}

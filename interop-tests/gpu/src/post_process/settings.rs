//! Which passes run, and how strongly.

use anyhow::{Result, ensure};

/// One step of the development. The selected passes run in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Pass {
    /// A bilateral filter against noise.
    Denoise,
    /// Makes bright areas glow.
    Bloom,
    /// Bright light is compressed towards white as film does; without this pass it is clipped.
    Tonemap,
}

/// How the picture is developed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// Whether noise is filtered.
    pub denoise: bool,
    /// Whether bright light glows.
    pub bloom: bool,
    /// Whether bright light is compressed towards white instead of clipped.
    pub tonemap: bool,
    /// How far the filter looks, in texels.
    pub radius: i32,
    /// The maximum difference of two texels that count as alike: 0.05 hardly blurs, 0.5 also blurs edges.
    pub likeness: f32,
    /// The light level above which areas glow; 1 is white.
    pub threshold: f32,
    /// The softness of the threshold.
    pub knee: f32,
    /// How far each level of the bloom is spread, in its texels.
    pub spread: f32,
    /// The share of a level that is kept when the next smaller one is blended into it: a smaller share glows
    /// wider.
    pub kept: f32,
    /// How much of the bloom is added.
    pub glow: f32,
    /// The exposure, in stops: each doubles the light.
    pub exposure: f32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            denoise: true,
            bloom: true,
            tonemap: true,
            radius: 3,
            likeness: 0.1,
            threshold: 1.0,
            knee: 0.5,
            spread: 1.0,
            kept: 0.4,
            glow: 0.8,
            exposure: 0.0,
        }
    }
}

impl Settings {
    /// The default strengths, with only these passes.
    pub fn of(passes: &[Pass]) -> Self {
        let has = |pass| passes.contains(&pass);
        let (denoise, bloom) = (has(Pass::Denoise), has(Pass::Bloom));
        Self { denoise, bloom, tonemap: has(Pass::Tonemap), ..Self::default() }
    }

    /// Checks that the strengths are in their ranges.
    ///
    /// # Errors
    /// With the strength that is out of range, and its range.
    pub fn check(&self) -> Result<()> {
        let Self { likeness, threshold, glow, exposure, .. } = *self;
        ensure!((0.001..=10.0).contains(&likeness), "denoise {likeness}: must be from 0.001 to 10");
        ensure!(
            (0.0..=65504.0).contains(&threshold),
            "threshold {threshold}: must be from 0 to 65504"
        );
        ensure!((0.0..=100.0).contains(&glow), "bloom {glow}: must be from 0 to 100");
        ensure!(
            (-30.0..=30.0).contains(&exposure),
            "exposure {exposure}: must be from -30 to 30 stops"
        );
        Ok(())
    }
}

/// The size of level 0 of the bloom of a picture of `width` × `height`: half as large.
pub fn bloom_size(width: u32, height: u32) -> (u32, u32) {
    ((width / 2).max(1), (height / 2).max(1))
}

/// How many levels the bloom of a picture of that size has: the smallest one is still a few texels wide and
/// high, so that a glow has the same relative width on any picture.
pub fn bloom_levels(width: u32, height: u32) -> u32 {
    width.min(height).ilog2().saturating_sub(3).max(1)
}

/// The size of a level if level 0 is `width` × `height`.
pub fn level_size((width, height): (u32, u32), level: u32) -> (u32, u32) {
    ((width >> level).max(1), (height >> level).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_level_of_the_bloom_is_some_texels_large() {
        for (size, levels) in [((3840, 2160), 8), ((113, 211), 3), ((16, 16), 1), ((1, 9), 1)] {
            assert_eq!(bloom_levels(size.0, size.1), levels, "{size:?}");
        }
        assert_eq!(level_size(bloom_size(113, 211), 2), (14, 26));
        assert_eq!(level_size(bloom_size(1, 211), 3), (1, 13));
    }

    #[test]
    fn only_the_passes_that_are_named_run() {
        let settings = Settings::of(&[Pass::Tonemap, Pass::Denoise]);
        assert!(settings.denoise && settings.tonemap && !settings.bloom);
        settings.check().unwrap();
    }

    #[test]
    fn strengths_that_make_no_picture_are_refused() {
        let fine = Settings::default();
        for wrong in [
            Settings { likeness: 0.0, ..fine },
            Settings { exposure: f32::NAN, ..fine },
            Settings { glow: -1.0, ..fine },
            Settings { threshold: f32::INFINITY, ..fine },
        ] {
            wrong.check().unwrap_err();
        }
    }
}

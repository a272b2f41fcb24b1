//! The shape of an image: its dimensions, sizes and tiling.

/// The dimensionality of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ImageKind {
    /// One dimension; with layers, an array.
    D1,
    /// Two dimensions; with layers, an array.
    D2,
    /// Three dimensions; never layered.
    D3,
    /// A cube: six square layers, or a multiple of six for an array of cubes.
    Cube,
}

/// The arrangement of an image's texels in memory.
#[doc(alias = "VkImageTiling")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Tiling {
    /// The driver's own arrangement: fastest, and unspecified.
    Optimal,
    /// Row by row.
    Linear,
}

/// The corner of the picture at which the texel (0, 0) is.
///
/// It describes what the exporter draws; it changes neither memory nor coordinates. An importer
/// that expects the other corner flips the picture when it samples or draws it.
///
/// # References
/// `GL_UPPER_LEFT` and `GL_LOWER_LEFT` of `glClipControl`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Origin {
    /// The upper left corner, as in Vulkan, CUDA and most files.
    #[default]
    UpperLeft,
    /// The lower left corner, as OpenGL draws by default.
    LowerLeft,
}

/// Width, height and depth in texels.
#[doc(alias = "VkExtent3D")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Extent {
    /// Texels in x; at least 1.
    pub width: u32,
    /// Texels in y; 1 for one-dimensional images.
    pub height: u32,
    /// Texels in z; 1 for all but three-dimensional images.
    pub depth: u32,
}

impl Extent {
    /// Returns the extent of mip level `level` of an image whose level 0 has this extent: halved,
    /// rounded down, at least 1.
    #[must_use]
    pub const fn at_level(self, level: u32) -> Self {
        const fn side(texels: u32, level: u32) -> u32 {
            let halved = if level < u32::BITS { texels >> level } else { 0 };
            if halved == 0 { 1 } else { halved }
        }
        let Self { width, height, depth } = self;
        Self { width: side(width, level), height: side(height, level), depth: side(depth, level) }
    }
}

/// Returns the number of levels of a full mip chain, down to one texel.
pub const fn full_mip_chain(extent: Extent) -> u32 {
    let mut longest = extent.width;
    if extent.height > longest {
        longest = extent.height;
    }
    if extent.depth > longest {
        longest = extent.depth;
    }
    if longest == 0 { 0 } else { longest.ilog2() + 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_halve_down_to_one_texel() {
        let extent = Extent { width: 113, height: 211, depth: 5 };
        assert_eq!(extent.at_level(0), extent);
        assert_eq!(extent.at_level(1), Extent { width: 56, height: 105, depth: 2 });
        for level in [7, 32] {
            assert_eq!(extent.at_level(level), Extent { width: 1, height: 1, depth: 1 });
        }
        assert_eq!(full_mip_chain(extent), 8);
    }
}

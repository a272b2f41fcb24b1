//! Groups D and E with images: every format × tiling × shape, byte for byte, from Vulkan to OpenGL and
//! back.

use anyhow::{Context, Result};
use gpu_interop::ash::vk;
use gpu_interop::format::{Aspects, Format};
use gpu_interop::gl::Layout;
use gpu_interop::resource::{ImageKind, Tiling};
use gpu_interop::{Api, ImageDesc, ImageUsage};

use super::images_gl_pair::{Pair, USAGE, richest};
use crate::rig::gl::storable;
use crate::rig::image::{SIZES, Shape};
use crate::suite::{Case, Machine, Need};

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for &format in Format::ALL {
        for tiling in [Tiling::Optimal, Tiling::Linear] {
            for shape in Shape::ALL.into_iter().filter(|shape| has(*shape, format, tiling)) {
                let descs = SIZES.map(|size| desc_of(format, tiling, shape, size));
                cases.extend(both_ways(shape.name(), row(shape, format), &descs, richest));
            }
        }
        let plain = [desc_of(format, Tiling::Optimal, Shape::D2, SIZES[0])];
        let row = row(Shape::D2, format);
        cases.extend(both_ways("2d_and_no_more_than_it_is_for", row, &plain, |_, desc| Ok(*desc)));
    }
    for (format, samples) in [(Format::Rgba8Unorm, 1), (Format::R32Uint, 1), (Format::R32Uint, 4)] {
        let (shape, desc) = layered(format, samples);
        if samples == 1 {
            cases.extend(both_ways(shape, 38, &[desc], richest));
        }
    }
    cases
}

/// Multisample images are optimal; and what shaders don't write (stencil) nobody reads back of them.
fn has(shape: Shape, format: Format, tiling: Tiling) -> bool {
    let seen = tiling == Tiling::Optimal && !format.aspects().contains(Aspects::STENCIL);
    shape != Shape::Multisample || seen
}

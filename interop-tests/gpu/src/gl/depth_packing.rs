//! Depth and stencil as OpenGL packs them into a texel.

use gpu_interop::format::Format;

/// 24-bit depth as OpenGL packs it: a fraction of 32 bits, with the depth in the high ones. It is rounded up,
/// since drivers truncate it.
pub(super) fn pack_depth(depth: &[u8]) -> Vec<u8> {
    let codes =
        depth.chunks_exact(4).map(|at| u64::from(u32::from_le_bytes([at[0], at[1], at[2], 0])));
    codes.flat_map(|code| ((code * 0xffff_ffff).div_ceil(0xff_ffff) as u32).to_le_bytes()).collect()
}

/// The reverse of [`pack_depth`].
pub(super) fn unpack_depth(packed: &[u8]) -> Vec<u8> {
    packed.chunks_exact(4).flat_map(|word| [word[1], word[2], word[3], 0]).collect()
}

/// The two aspects of a depth-stencil part as OpenGL packs them: `GL_UNSIGNED_INT_24_8`, depth in the
/// high bits, or `GL_FLOAT_32_UNSIGNED_INT_24_8_REV`, a float and a word with the stencil in its low
/// byte.
pub(super) fn pack_depth_stencil(format: Format, depth: &[u8], stencil: &[u8]) -> Vec<u8> {
    let texels = depth.chunks_exact(4).zip(stencil);
    let mut packed = Vec::with_capacity(stencil.len() * format.block_bytes() as usize);
    for (depth, &stencil) in texels {
        if format == Format::D24UnormS8Uint {
            packed.extend([stencil, depth[0], depth[1], depth[2]]);
        } else {
            packed.extend_from_slice(depth);
            packed.extend([stencil, 0, 0, 0]);
        }
    }
    packed
}

/// The reverse of [`pack_depth_stencil`]: depth, stencil.
pub(super) fn unpack_depth_stencil(format: Format, packed: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let (mut depth, mut stencil) = (Vec::new(), Vec::new());
    for texel in packed.chunks_exact(format.block_bytes() as usize) {
        if format == Format::D24UnormS8Uint {
            depth.extend([texel[1], texel[2], texel[3], 0]);
            stencil.push(texel[0]);
        } else {
            depth.extend_from_slice(&texel[..4]);
            stencil.push(texel[4]);
        }
    }
    (depth, stencil)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::{SIZES, Shape, parts};
    use gpu_interop::ImageUsage;
    use gpu_interop::desc::Tiling;

    #[test]
    fn packed_depth_and_stencil_come_apart_again() {
        let codes = [0x61, 0xf7, 0, 0, 0xff, 0xff, 0xff, 0];
        assert_eq!(pack_depth(&codes), [1, 0x61, 0xf7, 0, 0xff, 0xff, 0xff, 0xff]);
        assert_eq!(unpack_depth(&pack_depth(&codes)), codes);
        let usage = ImageUsage::DEPTH_STENCIL_ATTACHMENT;
        for format in [Format::D24UnormS8Uint, Format::D32FloatS8Uint] {
            let desc = Shape::D2.desc(format, Tiling::Optimal, SIZES[0], usage);
            let (depth, stencil) =
                (parts(&desc)[0].filled(&desc, 1), parts(&desc)[1].filled(&desc, 1));
            let packed = pack_depth_stencil(format, &depth, &stencil);
            assert_eq!(packed.len(), stencil.len() * format.block_bytes() as usize);
            assert_eq!(unpack_depth_stencil(format, &packed), (depth, stencil));
        }
    }
}

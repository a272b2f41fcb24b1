//! wgpu's names for formats, usages and shapes.

use gpu_interop::desc::ImageKind;
use gpu_interop::format::Format;
use gpu_interop::{BufferUsage, ImageDesc, ImageUsage};

/// Returns wgpu's name of a format, if wgpu has it.
pub(crate) fn texture_format(format: Format) -> Option<wgpu::TextureFormat> {
    use wgpu::TextureFormat as T;
    Some(match format {
        Format::R8Unorm => T::R8Unorm,
        Format::R8Uint => T::R8Uint,
        Format::R8Sint => T::R8Sint,
        Format::Rg8Unorm => T::Rg8Unorm,
        Format::Rgba8Unorm => T::Rgba8Unorm,
        Format::Rgba8Snorm => T::Rgba8Snorm,
        Format::Rgba8Uint => T::Rgba8Uint,
        Format::Rgba8Srgb => T::Rgba8UnormSrgb,
        Format::Bgra8Unorm => T::Bgra8Unorm,
        Format::Bgra8Srgb => T::Bgra8UnormSrgb,
        Format::Rgb10a2Unorm => T::Rgb10a2Unorm,
        Format::Rgb10a2Uint => T::Rgb10a2Uint,
        Format::R16Unorm => T::R16Unorm,
        Format::R16Uint => T::R16Uint,
        Format::R16Sint => T::R16Sint,
        Format::R16Float => T::R16Float,
        Format::Rg16Unorm => T::Rg16Unorm,
        Format::Rg16Uint => T::Rg16Uint,
        Format::Rg16Sint => T::Rg16Sint,
        Format::Rg16Float => T::Rg16Float,
        Format::Rgba16Unorm => T::Rgba16Unorm,
        Format::Rgba16Uint => T::Rgba16Uint,
        Format::Rgba16Float => T::Rgba16Float,
        Format::R32Uint => T::R32Uint,
        Format::R32Float => T::R32Float,
        Format::Rg32Float => T::Rg32Float,
        Format::Rgba32Uint => T::Rgba32Uint,
        Format::Rgba32Float => T::Rgba32Float,
        Format::B10g11r11Float => T::Rg11b10Ufloat,
        Format::E5b9g9r9Float => T::Rgb9e5Ufloat,
        Format::D16Unorm => T::Depth16Unorm,
        Format::X8D24Unorm => T::Depth24Plus,
        Format::D32Float => T::Depth32Float,
        Format::S8Uint => T::Stencil8,
        Format::D24UnormS8Uint => T::Depth24PlusStencil8,
        Format::D32FloatS8Uint => T::Depth32FloatStencil8,
        Format::Bc1RgbaUnorm => T::Bc1RgbaUnorm,
        Format::Bc1RgbaSrgb => T::Bc1RgbaUnormSrgb,
        Format::Bc7Unorm => T::Bc7RgbaUnorm,
        Format::Bc7Srgb => T::Bc7RgbaUnormSrgb,
        _ => return None,
    })
}

/// Returns wgpu's name of those usages that wgpu has.
pub(crate) fn buffer_usages(usage: BufferUsage) -> wgpu::BufferUsages {
    use wgpu::BufferUsages as W;
    [
        (BufferUsage::TRANSFER_SRC, W::COPY_SRC),
        (BufferUsage::TRANSFER_DST, W::COPY_DST),
        (BufferUsage::UNIFORM, W::UNIFORM),
        (BufferUsage::STORAGE, W::STORAGE),
        (BufferUsage::INDEX, W::INDEX),
        (BufferUsage::VERTEX, W::VERTEX),
        (BufferUsage::INDIRECT, W::INDIRECT),
    ]
    .into_iter()
    .filter_map(|(ours, wgpu)| usage.contains(ours).then_some(wgpu))
    .collect()
}

/// Returns wgpu's name of those usages that wgpu has.
pub(crate) fn texture_usages(usage: ImageUsage) -> wgpu::TextureUsages {
    use wgpu::TextureUsages as W;
    [
        (ImageUsage::TRANSFER_SRC, W::COPY_SRC),
        (ImageUsage::TRANSFER_DST, W::COPY_DST),
        (ImageUsage::SAMPLED, W::TEXTURE_BINDING),
        (ImageUsage::STORAGE, W::STORAGE_BINDING),
        (ImageUsage::COLOR_ATTACHMENT, W::RENDER_ATTACHMENT),
        (ImageUsage::DEPTH_STENCIL_ATTACHMENT, W::RENDER_ATTACHMENT),
    ]
    .into_iter()
    .filter_map(|(ours, wgpu)| usage.contains(ours).then_some(wgpu))
    .collect()
}

/// Returns wgpu's description of an image.
pub(crate) fn texture_descriptor(
    desc: &ImageDesc,
    format: wgpu::TextureFormat,
) -> wgpu::TextureDescriptor<'static> {
    let (dimension, depth_or_array_layers) = match desc.kind {
        ImageKind::D1 => (wgpu::TextureDimension::D1, desc.layers),
        ImageKind::D3 => (wgpu::TextureDimension::D3, desc.extent.depth),
        _ => (wgpu::TextureDimension::D2, desc.layers),
    };
    wgpu::TextureDescriptor {
        label: Some("gpu-interop"),
        size: wgpu::Extent3d {
            width: desc.extent.width,
            height: desc.extent.height,
            depth_or_array_layers,
        },
        mip_level_count: desc.levels,
        sample_count: desc.samples,
        dimension,
        format,
        usage: texture_usages(desc.usage),
        view_formats: &[],
    }
}

#[cfg(test)]
mod tests {
    use gpu_interop::format::Aspects;

    use super::*;

    #[test]
    fn every_format_has_texels_of_the_same_size_in_wgpu() {
        let mut absent = Vec::new();
        for &format in Format::ALL {
            let Some(found) = texture_format(format) else {
                absent.push(format.name());
                continue;
            };
            let is_color = format.aspects().contains(Aspects::COLOR);
            assert_eq!(found.is_depth_stencil_format(), !is_color, "{format}");
            assert_eq!(found.block_dimensions(), format.block_extent(), "{format}");
            if let Some(bytes) = found.block_copy_size(None) {
                assert_eq!(bytes, format.block_bytes(), "{format}");
            }
        }
        assert_eq!(absent, ["R5G6B5_UNORM_PACK16", "A2R10G10B10_UNORM_PACK32"]);
    }

    #[test]
    fn usages_that_wgpu_lacks_are_left_out() {
        let usage = BufferUsage::STORAGE | BufferUsage::STORAGE_TEXEL | BufferUsage::TRANSFER_SRC;
        assert_eq!(
            buffer_usages(usage),
            wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC
        );
        let usage = ImageUsage::SAMPLED | ImageUsage::INPUT_ATTACHMENT;
        assert_eq!(texture_usages(usage), wgpu::TextureUsages::TEXTURE_BINDING);
    }

    #[test]
    fn layers_and_depth_share_a_field() {
        let flat = ImageDesc::d2(Format::Rgba8Unorm, 8, 4, ImageUsage::SAMPLED);
        let size = |desc: &ImageDesc| {
            let found = texture_descriptor(desc, wgpu::TextureFormat::Rgba8Unorm);
            (found.dimension, found.size.depth_or_array_layers)
        };
        assert_eq!(size(&ImageDesc { layers: 3, ..flat }), (wgpu::TextureDimension::D2, 3));
        let mut deep = ImageDesc { kind: ImageKind::D3, ..flat };
        deep.extent.depth = 5;
        assert_eq!(size(&deep), (wgpu::TextureDimension::D3, 5));
    }
}

//! The structures that CUDA's functions for arrays, textures and surfaces read.
//!
//! They are built like those in `descriptors`. A format's number may be newer than cudarc's enum, so it
//! is written as a number, and a structure that holds it stays `MaybeUninit`.

use std::mem::MaybeUninit;

use cudarc::driver::sys;

use super::array_shape::Shape;
use super::texture_options::{AddressMode, Filter, TextureOptions};
use crate::format::CudaFormat;

/// Describes an image at `offset` bytes into imported memory.
pub(crate) fn mapped_array(
    offset: u64,
    shape: &Shape,
    levels: u32,
) -> MaybeUninit<sys::CUDA_EXTERNAL_MEMORY_MIPMAPPED_ARRAY_DESC> {
    let mut desc = MaybeUninit::<sys::CUDA_EXTERNAL_MEMORY_MIPMAPPED_ARRAY_DESC>::zeroed();
    let at = desc.as_mut_ptr();
    // SAFETY: `at` is valid for writes of the structure, and each write is to a field of it.
    unsafe {
        (&raw mut (*at).offset).write(offset);
        let array = &raw mut (*at).arrayDesc;
        (&raw mut (*array).Width).write(shape.width as usize);
        (&raw mut (*array).Height).write(shape.height as usize);
        (&raw mut (*array).Depth).write(shape.depth as usize);
        write_format(&raw mut (*array).Format, shape.format);
        (&raw mut (*array).NumChannels).write(shape.format.channels);
        (&raw mut (*array).Flags).write(shape.flags);
        (&raw mut (*at).numLevels).write(levels);
    }
    desc
}

/// Describes one level of a mipmapped array.
pub(crate) fn array(array: sys::CUarray) -> sys::CUDA_RESOURCE_DESC {
    let mut desc = MaybeUninit::<sys::CUDA_RESOURCE_DESC>::zeroed();
    let at = desc.as_mut_ptr();
    // SAFETY: each write is to a field of the structure. The enum, which has no other zero value, is
    // written; the union may hold any bits and is written or zero.
    unsafe {
        (&raw mut (*at).resType).write(sys::CUresourcetype::CU_RESOURCE_TYPE_ARRAY);
        (&raw mut (*at).res.array.hArray).write(array);
        desc.assume_init()
    }
}

/// Describes all levels of a mipmapped array.
pub(crate) fn mipmapped_array(mipmapped: sys::CUmipmappedArray) -> sys::CUDA_RESOURCE_DESC {
    let mut desc = MaybeUninit::<sys::CUDA_RESOURCE_DESC>::zeroed();
    let at = desc.as_mut_ptr();
    // SAFETY: as in `array`.
    unsafe {
        (&raw mut (*at).resType).write(sys::CUresourcetype::CU_RESOURCE_TYPE_MIPMAPPED_ARRAY);
        (&raw mut (*at).res.mipmap.hMipmappedArray).write(mipmapped);
        desc.assume_init()
    }
}

/// Rows of texels in linear memory (`CU_RESOURCE_TYPE_PITCH2D`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rows {
    pub(crate) address: sys::CUdeviceptr,
    pub(crate) format: CudaFormat,
    /// In texels.
    pub(crate) width: usize,
    pub(crate) height: usize,
    /// In bytes.
    pub(crate) pitch: usize,
}

/// Describes rows of texels in linear memory.
pub(crate) fn pitched(rows: &Rows) -> sys::CUDA_RESOURCE_DESC {
    let mut desc = MaybeUninit::<sys::CUDA_RESOURCE_DESC>::zeroed();
    let at = desc.as_mut_ptr();
    // SAFETY: as in `array`.
    unsafe {
        (&raw mut (*at).resType).write(sys::CUresourcetype::CU_RESOURCE_TYPE_PITCH2D);
        let to = &raw mut (*at).res.pitch2D;
        (&raw mut (*to).devPtr).write(rows.address);
        write_format(&raw mut (*to).format, rows.format);
        (&raw mut (*to).numChannels).write(rows.format.channels);
        (&raw mut (*to).width).write(rows.width);
        (&raw mut (*to).height).write(rows.height);
        (&raw mut (*to).pitchInBytes).write(rows.pitch);
        desc.assume_init()
    }
}

/// Describes how a texture with `levels` levels is read; `flags` are those of `CU_TRSF_`.
pub(crate) fn texture(options: &TextureOptions, flags: u32, levels: u32) -> sys::CUDA_TEXTURE_DESC {
    let mut desc = MaybeUninit::<sys::CUDA_TEXTURE_DESC>::zeroed();
    let at = desc.as_mut_ptr();
    // SAFETY: each write is to a field of the structure, and zero is a value of all others (numbers;
    // the enums are written).
    unsafe {
        (&raw mut (*at).addressMode).write(options.address.map(address_mode));
        (&raw mut (*at).filterMode).write(filter_mode(options.filter));
        (&raw mut (*at).flags).write(flags);
        (&raw mut (*at).maxAnisotropy).write(options.max_anisotropy);
        (&raw mut (*at).mipmapFilterMode).write(filter_mode(options.mip_filter));
        // From level 0, whose clamp is zero, to the last.
        (&raw mut (*at).maxMipmapLevelClamp).write(levels.saturating_sub(1) as f32);
        (&raw mut (*at).borderColor).write(options.border_color);
        desc.assume_init()
    }
}

fn address_mode(mode: AddressMode) -> sys::CUaddress_mode {
    match mode {
        AddressMode::Clamp => sys::CUaddress_mode::CU_TR_ADDRESS_MODE_CLAMP,
        AddressMode::Border => sys::CUaddress_mode::CU_TR_ADDRESS_MODE_BORDER,
        AddressMode::Wrap => sys::CUaddress_mode::CU_TR_ADDRESS_MODE_WRAP,
        AddressMode::Mirror => sys::CUaddress_mode::CU_TR_ADDRESS_MODE_MIRROR,
    }
}

fn filter_mode(filter: Filter) -> sys::CUfilter_mode {
    match filter {
        Filter::Point => sys::CUfilter_mode::CU_TR_FILTER_MODE_POINT,
        Filter::Linear => sys::CUfilter_mode::CU_TR_FILTER_MODE_LINEAR,
    }
}

/// # Safety
/// `to` is valid for writes.
unsafe fn write_format(to: *mut sys::CUarray_format, format: CudaFormat) {
    const { assert!(size_of::<sys::CUarray_format>() == size_of::<u32>()) }
    // SAFETY: `to` is writable (the caller), the C enum is as large as the number (asserted), and
    // nothing reads it as the enum.
    unsafe { to.cast::<u32>().write(format.array_format) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::offset_of;

    const RGBA8: CudaFormat = CudaFormat { array_format: 1, channels: 4 };

    #[test]
    fn the_structures_are_laid_out_as_in_cuda_h() {
        type Mapped = sys::CUDA_EXTERNAL_MEMORY_MIPMAPPED_ARRAY_DESC;
        assert_eq!(size_of::<Mapped>(), 120);
        assert_eq!(offset_of!(Mapped, arrayDesc), 8);
        assert_eq!(offset_of!(Mapped, numLevels), 48);
        assert_eq!(offset_of!(Mapped, reserved), 52);
        type Array = sys::CUDA_ARRAY3D_DESCRIPTOR;
        assert_eq!(size_of::<Array>(), 40);
        assert_eq!(offset_of!(Array, Format), 24);
        assert_eq!(offset_of!(Array, Flags), 32);
        type Resource = sys::CUDA_RESOURCE_DESC;
        assert_eq!(size_of::<Resource>(), 144);
        assert_eq!((offset_of!(Resource, res), offset_of!(Resource, flags)), (8, 136));
        type Texture = sys::CUDA_TEXTURE_DESC;
        assert_eq!(size_of::<Texture>(), 104);
        assert_eq!(offset_of!(Texture, filterMode), 12);
        assert_eq!(offset_of!(Texture, flags), 16);
        assert_eq!(offset_of!(Texture, maxAnisotropy), 20);
        assert_eq!(offset_of!(Texture, mipmapFilterMode), 24);
        assert_eq!(offset_of!(Texture, mipmapLevelBias), 28);
        assert_eq!(offset_of!(Texture, maxMipmapLevelClamp), 36);
        assert_eq!(offset_of!(Texture, borderColor), 40);
    }

    #[test]
    fn a_mapped_array_has_its_offset_shape_and_levels() {
        let format = CudaFormat { array_format: 0x50, channels: 4 };
        let shape = Shape { width: 7, height: 5, depth: 3, format, flags: 0x21 };
        let desc = mapped_array(0x1_0000_0040, &shape, 9);
        let at = desc.as_ptr();
        // SAFETY: every field is written or zero. The format, which may be outside its enum, is read
        // as a number.
        unsafe {
            assert_eq!((&raw const (*at).offset).read(), 0x1_0000_0040);
            assert_eq!((&raw const (*at).numLevels).read(), 9);
            assert_eq!((&raw const (*at).reserved).read(), [0; 16]);
            let array = &raw const (*at).arrayDesc;
            assert_eq!((&raw const (*array).Width).read(), 7);
            assert_eq!((&raw const (*array).Height).read(), 5);
            assert_eq!((&raw const (*array).Depth).read(), 3);
            assert_eq!((&raw const (*array).Format).cast::<u32>().read(), 0x50);
            assert_eq!((&raw const (*array).NumChannels).read(), 4);
            assert_eq!((&raw const (*array).Flags).read(), 0x21);
        }
    }

    #[test]
    fn resources_have_their_type_and_no_flags() {
        let handle = 0x7f00_0000_1000_usize;
        let one = array(handle as sys::CUarray);
        let all = mipmapped_array(handle as sys::CUmipmappedArray);
        let rows =
            Rows { address: 0x7000_0200, format: RGBA8, width: 113, height: 211, pitch: 512 };
        let linear = pitched(&rows);
        assert_eq!([one.resType, all.resType, linear.resType].map(|ty| ty as u32), [0, 1, 3]);
        assert_eq!([one.flags, all.flags, linear.flags], [0; 3]);
        // SAFETY: the members that were written; the rest is zero.
        unsafe {
            assert_eq!(one.res.array.hArray as usize, handle);
            assert_eq!(all.res.mipmap.hMipmappedArray as usize, handle);
            let found = linear.res.pitch2D;
            assert_eq!((found.devPtr, found.pitchInBytes), (0x7000_0200, 512));
            assert_eq!((found.width, found.height), (113, 211));
            assert_eq!((found.format as u32, found.numChannels), (1, 4));
        }
    }

    #[test]
    fn a_texture_is_read_by_its_options() {
        let options = TextureOptions {
            address: [AddressMode::Wrap, AddressMode::Mirror, AddressMode::Border],
            filter: Filter::Linear,
            mip_filter: Filter::Linear,
            max_anisotropy: 8,
            border_color: [0.0, 0.25, 0.5, 1.0],
            ..TextureOptions::texels()
        };
        let desc = texture(&options, 0x12, 5);
        assert_eq!(desc.addressMode.map(|mode| mode as u32), [0, 2, 3]);
        assert_eq!((desc.filterMode as u32, desc.mipmapFilterMode as u32), (1, 1));
        assert_eq!((desc.flags, desc.maxAnisotropy), (0x12, 8));
        let levels = (desc.mipmapLevelBias, desc.minMipmapLevelClamp, desc.maxMipmapLevelClamp);
        assert_eq!(levels, (0.0, 0.0, 4.0));
        assert_eq!((desc.borderColor, desc.reserved), ([0.0, 0.25, 0.5, 1.0], [0; 12]));
        let plain = texture(&TextureOptions::texels(), 0, 1);
        assert_eq!(plain.addressMode.map(|mode| mode as u32), [1; 3]);
        assert_eq!((plain.filterMode as u32, plain.maxMipmapLevelClamp), (0, 0.0));
    }
}

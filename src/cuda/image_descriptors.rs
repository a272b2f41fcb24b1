//! The structures that CUDA's functions for arrays, textures, surfaces and copies of arrays read,
//! built as in `descriptors`.

use std::ffi::c_void;
use std::mem::MaybeUninit;

use cudarc::driver::sys;

use super::array_shape::Shape;
use super::descriptors::structure;
use super::texture_options::{AddressMode, Filter, TextureOptions};
use crate::format::CudaFormat;

const _: () = assert!(size_of::<sys::CUarray_format>() == size_of::<u32>());

/// Describes an image at `offset` bytes into imported memory.
pub(super) fn mapped_array(
    offset: u64,
    shape: &Shape,
    levels: u32,
) -> MaybeUninit<sys::CUDA_EXTERNAL_MEMORY_MIPMAPPED_ARRAY_DESC> {
    structure!(sys::CUDA_EXTERNAL_MEMORY_MIPMAPPED_ARRAY_DESC {
        offset = offset,
        arrayDesc.Width = shape.width as usize,
        arrayDesc.Height = shape.height as usize,
        arrayDesc.Depth = shape.depth as usize,
        arrayDesc.Format as u32 = shape.format.array_format,
        arrayDesc.NumChannels = shape.format.channels,
        arrayDesc.Flags = shape.flags,
        numLevels = levels,
    })
}

/// Describes one level of a mipmapped array.
pub(super) fn array(array: sys::CUarray) -> MaybeUninit<sys::CUDA_RESOURCE_DESC> {
    structure!(sys::CUDA_RESOURCE_DESC {
        resType = sys::CUresourcetype::CU_RESOURCE_TYPE_ARRAY,
        res.array.hArray = array,
    })
}

/// Describes all levels of a mipmapped array.
pub(super) fn mipmapped_array(all: sys::CUmipmappedArray) -> MaybeUninit<sys::CUDA_RESOURCE_DESC> {
    structure!(sys::CUDA_RESOURCE_DESC {
        resType = sys::CUresourcetype::CU_RESOURCE_TYPE_MIPMAPPED_ARRAY,
        res.mipmap.hMipmappedArray = all,
    })
}

/// Rows of texels in linear memory (`CU_RESOURCE_TYPE_PITCH2D`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rows {
    pub(super) address: sys::CUdeviceptr,
    pub(super) format: CudaFormat,
    /// In texels.
    pub(super) width: usize,
    pub(super) height: usize,
    /// In bytes.
    pub(super) pitch: usize,
}

/// Describes rows of texels in linear memory.
pub(super) fn pitched(rows: &Rows) -> MaybeUninit<sys::CUDA_RESOURCE_DESC> {
    structure!(sys::CUDA_RESOURCE_DESC {
        resType = sys::CUresourcetype::CU_RESOURCE_TYPE_PITCH2D,
        res.pitch2D.devPtr = rows.address,
        res.pitch2D.format as u32 = rows.format.array_format,
        res.pitch2D.numChannels = rows.format.channels,
        res.pitch2D.width = rows.width,
        res.pitch2D.height = rows.height,
        res.pitch2D.pitchInBytes = rows.pitch,
    })
}

/// Describes how a texture with `levels` levels is read; `flags` are those of `CU_TRSF_`.
pub(super) fn texture(
    options: &TextureOptions,
    flags: u32,
    levels: u32,
) -> MaybeUninit<sys::CUDA_TEXTURE_DESC> {
    structure!(sys::CUDA_TEXTURE_DESC {
        addressMode = options.address.map(address_mode),
        filterMode = filter_mode(options.filter),
        flags = flags,
        maxAnisotropy = options.max_anisotropy,
        mipmapFilterMode = filter_mode(options.mip_filter),
        // From level 0, whose clamp is zero, to the last.
        maxMipmapLevelClamp = levels.saturating_sub(1) as f32,
        borderColor = options.border_color,
    })
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

/// Memory at the other end of a copy.
#[derive(Clone, Copy, Debug)]
pub(super) enum CopyMemory {
    Host(*mut c_void),
    Device(sys::CUdeviceptr),
}

/// The part of a level that a copy covers: all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CopySize {
    /// In bytes.
    pub(super) row: usize,
    pub(super) rows: usize,
    /// Slices, layers or faces.
    pub(super) slices: usize,
}

impl CopySize {
    /// Returns the size in bytes of rows and slices without gaps.
    pub(super) fn bytes(self) -> usize {
        self.row * self.rows * self.slices
    }
}

/// Describes a copy of rows without gaps to (or from, if not `to_array`) all of `array`.
pub(super) fn copy(
    array: sys::CUarray,
    to_array: bool,
    memory: CopyMemory,
    size: CopySize,
) -> MaybeUninit<sys::CUDA_MEMCPY3D> {
    use sys::CUmemorytype::{CU_MEMORYTYPE_ARRAY, CU_MEMORYTYPE_DEVICE, CU_MEMORYTYPE_HOST};
    let (ty, host, device) = match memory {
        CopyMemory::Host(host) => (CU_MEMORYTYPE_HOST, host, 0),
        CopyMemory::Device(device) => (CU_MEMORYTYPE_DEVICE, std::ptr::null_mut(), device),
    };
    if to_array {
        structure!(sys::CUDA_MEMCPY3D {
            srcMemoryType = ty,
            srcHost = host.cast_const(),
            srcDevice = device,
            srcPitch = size.row,
            srcHeight = size.rows,
            dstMemoryType = CU_MEMORYTYPE_ARRAY,
            dstArray = array,
            WidthInBytes = size.row,
            Height = size.rows,
            Depth = size.slices,
        })
    } else {
        structure!(sys::CUDA_MEMCPY3D {
            srcMemoryType = CU_MEMORYTYPE_ARRAY,
            srcArray = array,
            dstMemoryType = ty,
            dstHost = host,
            dstDevice = device,
            dstPitch = size.row,
            dstHeight = size.rows,
            WidthInBytes = size.row,
            Height = size.rows,
            Depth = size.slices,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::mem::offset_of;

    use super::*;

    const RGBA8: CudaFormat = CudaFormat { array_format: 1, channels: 4 };

    #[test]
    fn the_structures_of_arrays_are_laid_out_as_in_cuda_h() {
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
        // SAFETY: every field is written or zero. The format, which may be outside its enum, is
        // read as a number.
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
        // SAFETY: the enum is written (the format is one that cudarc has), and zero is a value of
        // all other fields.
        let [one, all, linear] =
            [one, all, linear].map(|resource| unsafe { resource.assume_init() });
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
        // SAFETY: the enums are written, and zero is a value of all other fields.
        let desc = unsafe { texture(&options, 0x12, 5).assume_init() };
        assert_eq!(desc.addressMode.map(|mode| mode as u32), [0, 2, 3]);
        assert_eq!((desc.filterMode as u32, desc.mipmapFilterMode as u32), (1, 1));
        assert_eq!((desc.flags, desc.maxAnisotropy), (0x12, 8));
        let levels = (desc.mipmapLevelBias, desc.minMipmapLevelClamp, desc.maxMipmapLevelClamp);
        assert_eq!(levels, (0.0, 0.0, 4.0));
        assert_eq!((desc.borderColor, desc.reserved), ([0.0, 0.25, 0.5, 1.0], [0; 12]));
        // SAFETY: as above.
        let plain = unsafe { texture(&TextureOptions::texels(), 0, 1).assume_init() };
        assert_eq!(plain.addressMode.map(|mode| mode as u32), [1; 3]);
        assert_eq!((plain.filterMode as u32, plain.maxMipmapLevelClamp), (0, 0.0));
    }

    #[test]
    fn a_copy_covers_the_whole_level_in_rows_without_gaps() {
        let array = 0x7f00_0000_1000_usize as sys::CUarray;
        let size = CopySize { row: 28, rows: 5, slices: 3 };
        assert_eq!(size.bytes(), 420);
        let (to, from) = (CopyMemory::Device(0x8000), CopyMemory::Host(array.cast()));
        // SAFETY: both types are written, and zero is a value of all other fields.
        let [to, from] = unsafe {
            [
                copy(array, true, to, size).assume_init(),
                copy(array, false, from, size).assume_init(),
            ]
        };
        for copied in [to, from] {
            assert_eq!((copied.WidthInBytes, copied.Height, copied.Depth), (28, 5, 3));
            assert_eq!((copied.srcXInBytes, copied.dstZ, copied.srcLOD), (0, 0, 0));
        }
        assert_eq!((to.srcMemoryType as u32, to.dstMemoryType as u32), (2, 3));
        assert_eq!((to.srcDevice, to.srcPitch, to.srcHeight, to.dstArray), (0x8000, 28, 5, array));
        assert_eq!((from.srcMemoryType as u32, from.dstMemoryType as u32), (3, 1));
        assert_eq!((from.dstHost, from.dstPitch, from.dstHeight), (array.cast(), 28, 5));
        assert_eq!((from.srcArray, to.dstHost.is_null()), (array, true));
    }
}

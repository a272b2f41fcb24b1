//! The structures that CUDA's functions for memory, semaphores, arrays, textures and surfaces read.
//!
//! They hold enums without a zero value, and unions with one member in use. So they are built in zeroed
//! `MaybeUninit` memory: fields that aren't written are zero, as CUDA requires of the reserved ones, and
//! no invalid value ever exists. A format may be newer than cudarc's enum, so it is written as a number.

use std::ffi::c_int;
use std::mem::MaybeUninit;
use std::os::fd::RawFd;

use cudarc::driver::sys;

use super::array_shape::Shape;
use super::texture_options::{AddressMode, Filter, TextureOptions};
use crate::format::CudaFormat;
use crate::payload::{MemoryInfo, SemaphoreKind};

/// Builds a structure of the given fields; the others are zero. A field written `as u32` may hold a
/// number that its C enum lacks.
macro_rules! structure {
    ($ty:ty { $($($field:ident).+ $(as $number:ty)? = $value:expr),+ $(,)? }) => {{
        let mut structure = std::mem::MaybeUninit::<$ty>::zeroed();
        let at = structure.as_mut_ptr();
        $({
            let value = $value;
            // SAFETY: `at` is valid for writes of the structure, and this writes one of its fields, as
            // its own type or as a number of the same size.
            unsafe { (&raw mut (*at).$($field).+)$(.cast::<$number>())?.write(value) };
        })+
        structure
    }};
}

/// Describes the opaque fd of an allocation.
pub(crate) fn memory_handle(
    fd: RawFd,
    info: &MemoryInfo,
) -> MaybeUninit<sys::CUDA_EXTERNAL_MEMORY_HANDLE_DESC> {
    use sys::CUexternalMemoryHandleType as Type;
    structure!(sys::CUDA_EXTERNAL_MEMORY_HANDLE_DESC {
        type_ = Type::CU_EXTERNAL_MEMORY_HANDLE_TYPE_OPAQUE_FD,
        handle.fd = fd,
        // The allocation's size, not a resource's.
        size = info.allocation_size,
        flags = if info.dedicated { sys::CUDA_EXTERNAL_MEMORY_DEDICATED } else { 0 },
    })
}

/// Describes a range of imported memory to be mapped as a buffer.
pub(crate) fn mapped_buffer(offset: u64, size: u64) -> sys::CUDA_EXTERNAL_MEMORY_BUFFER_DESC {
    sys::CUDA_EXTERNAL_MEMORY_BUFFER_DESC { offset, size, flags: 0, reserved: [0; 16] }
}

/// Describes the opaque fd of a semaphore.
pub(crate) fn semaphore_handle(
    fd: RawFd,
    kind: SemaphoreKind,
) -> MaybeUninit<sys::CUDA_EXTERNAL_SEMAPHORE_HANDLE_DESC> {
    use sys::CUexternalSemaphoreHandleType as Type;
    let ty = match kind {
        SemaphoreKind::Binary => Type::CU_EXTERNAL_SEMAPHORE_HANDLE_TYPE_OPAQUE_FD,
        SemaphoreKind::Timeline => Type::CU_EXTERNAL_SEMAPHORE_HANDLE_TYPE_TIMELINE_SEMAPHORE_FD,
    };
    structure!(sys::CUDA_EXTERNAL_SEMAPHORE_HANDLE_DESC { type_ = ty, handle.fd = fd })
}

/// Describes a wait for `value`, which a binary semaphore ignores.
pub(crate) fn wait_params(value: u64) -> MaybeUninit<sys::CUDA_EXTERNAL_SEMAPHORE_WAIT_PARAMS> {
    structure!(sys::CUDA_EXTERNAL_SEMAPHORE_WAIT_PARAMS { params.fence.value = value })
}

/// Describes a signal with `value`, which a binary semaphore ignores.
pub(crate) fn signal_params(value: u64) -> MaybeUninit<sys::CUDA_EXTERNAL_SEMAPHORE_SIGNAL_PARAMS> {
    structure!(sys::CUDA_EXTERNAL_SEMAPHORE_SIGNAL_PARAMS { params.fence.value = value })
}

/// Describes memory on `device` that can be exported as a descriptor.
pub(crate) fn exportable_memory(device: sys::CUdevice) -> MaybeUninit<sys::CUmemAllocationProp> {
    use sys::CUmemAllocationHandleType as HandleType;
    structure!(sys::CUmemAllocationProp {
        type_ = sys::CUmemAllocationType::CU_MEM_ALLOCATION_TYPE_PINNED,
        requestedHandleTypes = HandleType::CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR,
        location = on_device(device),
    })
}

/// Allows `device` to read and write.
pub(crate) fn read_write(device: sys::CUdevice) -> sys::CUmemAccessDesc {
    sys::CUmemAccessDesc {
        location: on_device(device),
        flags: sys::CUmemAccess_flags::CU_MEM_ACCESS_FLAGS_PROT_READWRITE,
    }
}

fn on_device(device: sys::CUdevice) -> sys::CUmemLocation {
    // Newer headers put the number after the type into a union, whose name depends on the bindings.
    // So it is written by its offset, which is the same in all of them.
    const {
        assert!(size_of::<sys::CUmemLocation>() == 2 * size_of::<c_int>());
        assert!(std::mem::offset_of!(sys::CUmemLocation, type_) == 0);
    }
    let ty = sys::CUmemLocationType::CU_MEM_LOCATION_TYPE_DEVICE;
    let mut location = structure!(sys::CUmemLocation { type_ = ty });
    // SAFETY: the structure is a C enum, which is written, and a C int, as asserted above.
    unsafe {
        location.as_mut_ptr().cast::<c_int>().add(1).write(device);
        location.assume_init()
    }
}

const _: () = assert!(size_of::<sys::CUarray_format>() == size_of::<u32>());

/// Describes an image at `offset` bytes into imported memory.
pub(crate) fn mapped_array(
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
pub(crate) fn array(array: sys::CUarray) -> MaybeUninit<sys::CUDA_RESOURCE_DESC> {
    structure!(sys::CUDA_RESOURCE_DESC {
        resType = sys::CUresourcetype::CU_RESOURCE_TYPE_ARRAY,
        res.array.hArray = array,
    })
}

/// Describes all levels of a mipmapped array.
pub(crate) fn mipmapped_array(all: sys::CUmipmappedArray) -> MaybeUninit<sys::CUDA_RESOURCE_DESC> {
    structure!(sys::CUDA_RESOURCE_DESC {
        resType = sys::CUresourcetype::CU_RESOURCE_TYPE_MIPMAPPED_ARRAY,
        res.mipmap.hMipmappedArray = all,
    })
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
pub(crate) fn pitched(rows: &Rows) -> MaybeUninit<sys::CUDA_RESOURCE_DESC> {
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
pub(crate) fn texture(
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

#[cfg(test)]
mod tests {
    use std::mem::offset_of;

    use super::*;
    use crate::fd::MemoryHandleType;
    use crate::identity::{Identity, Uuid};

    fn info(dedicated: bool) -> MemoryInfo {
        MemoryInfo {
            handle_type: MemoryHandleType::OpaqueFd,
            allocation_size: 0x1_2345_6789,
            memory_type_index: Some(7),
            dedicated,
            identity: Identity {
                device: Uuid::from_bytes([1; 16]),
                driver: None,
                name: String::new(),
            },
        }
    }

    #[test]
    fn the_structures_are_laid_out_as_in_cuda_h() {
        type Memory = sys::CUDA_EXTERNAL_MEMORY_HANDLE_DESC;
        assert_eq!(size_of::<Memory>(), 104);
        assert_eq!(offset_of!(Memory, handle), 8);
        assert_eq!(offset_of!(Memory, size), 24);
        assert_eq!(offset_of!(Memory, flags), 32);
        assert_eq!(offset_of!(Memory, reserved), 36);
        type Semaphore = sys::CUDA_EXTERNAL_SEMAPHORE_HANDLE_DESC;
        assert_eq!(size_of::<Semaphore>(), 96);
        assert_eq!(offset_of!(Semaphore, handle), 8);
        assert_eq!(offset_of!(Semaphore, flags), 24);
        type Mapped = sys::CUDA_EXTERNAL_MEMORY_BUFFER_DESC;
        assert_eq!(size_of::<Mapped>(), 88);
        type Wait = sys::CUDA_EXTERNAL_SEMAPHORE_WAIT_PARAMS;
        type Signal = sys::CUDA_EXTERNAL_SEMAPHORE_SIGNAL_PARAMS;
        assert_eq!((size_of::<Wait>(), offset_of!(Wait, flags)), (144, 72));
        assert_eq!((size_of::<Signal>(), offset_of!(Signal, flags)), (144, 72));
        type Prop = sys::CUmemAllocationProp;
        assert_eq!(size_of::<Prop>(), 32);
        assert_eq!(offset_of!(Prop, location), 8);
        assert_eq!(offset_of!(Prop, win32HandleMetaData), 16);
        assert_eq!(offset_of!(Prop, allocFlags), 24);
    }

    #[test]
    fn memory_is_described_by_its_allocation_size_and_dedication() {
        for (dedicated, flags) in [(false, 0), (true, sys::CUDA_EXTERNAL_MEMORY_DEDICATED)] {
            // SAFETY: the enum is written, and zero is a value of all other fields.
            let desc = unsafe { memory_handle(42, &info(dedicated)).assume_init() };
            assert_eq!(desc.type_ as u32, 1);
            // SAFETY: the union's memory is written or zero, and any bits are a number.
            assert_eq!(unsafe { desc.handle.fd }, 42);
            assert_eq!(desc.size, 0x1_2345_6789);
            assert_eq!(desc.flags, flags);
            assert_eq!(desc.reserved, [0; 16]);
        }
    }

    #[test]
    fn a_semaphore_is_described_by_its_kind() {
        for (kind, ty) in [(SemaphoreKind::Binary, 1), (SemaphoreKind::Timeline, 9)] {
            // SAFETY: as above.
            let desc = unsafe { semaphore_handle(43, kind).assume_init() };
            assert_eq!(desc.type_ as u32, ty);
            // SAFETY: as above.
            assert_eq!(unsafe { desc.handle.fd }, 43);
            assert_eq!((desc.flags, desc.reserved), (0, [0; 16]));
        }
    }

    #[test]
    fn a_wait_and_a_signal_carry_the_value_and_nothing_else() {
        // SAFETY: zero is a value of all fields that aren't written.
        let (wait, signal) =
            unsafe { (wait_params(u64::MAX - 1).assume_init(), signal_params(3).assume_init()) };
        assert_eq!(wait.params.fence.value, u64::MAX - 1);
        assert_eq!((wait.params.keyedMutex.key, wait.params.keyedMutex.timeoutMs), (0, 0));
        assert_eq!((wait.flags, wait.reserved), (0, [0; 16]));
        assert_eq!(signal.params.fence.value, 3);
        assert_eq!(signal.params.keyedMutex.key, 0);
        assert_eq!((signal.flags, signal.reserved), (0, [0; 16]));
    }

    #[test]
    fn exportable_memory_is_pinned_on_its_device_as_a_descriptor() {
        // SAFETY: the enums are written, and zero is a value of all other fields.
        let prop = unsafe { exportable_memory(3).assume_init() };
        assert_eq!((prop.type_ as u32, prop.requestedHandleTypes.0), (1, 1));
        assert!(prop.win32HandleMetaData.is_null());
        assert_eq!((prop.allocFlags.usage, prop.allocFlags.compressionType), (0, 0));
        for location in [prop.location, read_write(3).location] {
            // SAFETY: two ints, both written.
            let numbers: [c_int; 2] = unsafe { std::mem::transmute(location) };
            assert_eq!(numbers, [1, 3]);
        }
        assert_eq!(read_write(3).flags as u32, 3);
    }

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
        // SAFETY: the enum is written (the format is one that cudarc has), and zero is a value of all
        // other fields.
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
}

//! The structures that CUDA's functions for memory and semaphores read; `image_descriptors` has
//! those for arrays and textures.
//!
//! They hold enums without a zero value, and unions with one member in use. So they are built in
//! zeroed `MaybeUninit` memory: fields that aren't written are zero, as CUDA requires of the
//! reserved ones, and no invalid value ever exists. A format may be newer than cudarc's enum, so it
//! is written as a number.

use std::ffi::c_int;
use std::mem::MaybeUninit;
use std::os::fd::RawFd;

use cudarc::driver::sys;

use crate::payload::{MemoryInfo, SemaphoreKind};

/// Builds a structure of the given fields; the others are zero. A field written `as u32` may hold a
/// number that its C enum lacks.
macro_rules! structure {
    ($ty:ty { $($($field:ident).+ $(as $number:ty)? = $value:expr),+ $(,)? }) => {{
        let mut structure = std::mem::MaybeUninit::<$ty>::zeroed();
        let at = structure.as_mut_ptr();
        $({
            let value = $value;
            // SAFETY: `at` is valid for writes of the structure, and this writes one of its fields,
            // as its own type or as a number of the same size.
            unsafe { (&raw mut (*at).$($field).+)$(.cast::<$number>())?.write(value) };
        })+
        structure
    }};
}

pub(super) use structure;

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

/// Returns the handle types for export of memory with these properties, and its device; `None` if
/// it is not on a device.
pub(super) fn handle_types_and_place(
    prop: &MaybeUninit<sys::CUmemAllocationProp>,
) -> (u32, Option<sys::CUdevice>) {
    let at = prop.as_ptr();
    // SAFETY: the structure is complete. Its enums are read as numbers, since a newer driver may
    // have more values; the location's layout is asserted in `on_device`.
    unsafe {
        let handle_types = (&raw const (*at).requestedHandleTypes).cast::<u32>().read();
        let location = (&raw const (*at).location).cast::<c_int>();
        let ty = sys::CUmemLocationType::CU_MEM_LOCATION_TYPE_DEVICE as c_int;
        (handle_types, (location.read() == ty).then_some(location.add(1).read()))
    }
}

/// Describes read and write access by `device`.
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
}

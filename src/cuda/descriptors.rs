//! The structures that CUDA's functions for memory and semaphores read.
//!
//! They hold enums without a zero value, and unions of which one member is written. So they are built
//! in zeroed `MaybeUninit` memory: fields that aren't written are zero, as CUDA requires of the
//! reserved ones, and no invalid value ever exists.

use std::ffi::c_int;
use std::mem::MaybeUninit;
use std::os::fd::RawFd;

use cudarc::driver::sys;

use crate::payload::{MemoryInfo, SemaphoreKind};

/// Describes the opaque fd of an allocation.
pub(crate) fn memory_handle(fd: RawFd, info: &MemoryInfo) -> sys::CUDA_EXTERNAL_MEMORY_HANDLE_DESC {
    use sys::CUexternalMemoryHandleType as Type;
    let flags = if info.dedicated { sys::CUDA_EXTERNAL_MEMORY_DEDICATED } else { 0 };
    let mut desc = MaybeUninit::<sys::CUDA_EXTERNAL_MEMORY_HANDLE_DESC>::zeroed();
    let at = desc.as_mut_ptr();
    // SAFETY: `at` is valid for writes of the structure, and each write is to a field of it. The
    // one field without a zero value, `type_`, is written; zero is a value of all others (numbers,
    // and a union of numbers and pointers).
    unsafe {
        (&raw mut (*at).type_).write(Type::CU_EXTERNAL_MEMORY_HANDLE_TYPE_OPAQUE_FD);
        (&raw mut (*at).handle.fd).write(fd);
        // The allocation's size, not a resource's.
        (&raw mut (*at).size).write(info.allocation_size);
        (&raw mut (*at).flags).write(flags);
        desc.assume_init()
    }
}

/// Describes a range of imported memory to be mapped as a buffer.
pub(crate) fn mapped_buffer(offset: u64, size: u64) -> sys::CUDA_EXTERNAL_MEMORY_BUFFER_DESC {
    sys::CUDA_EXTERNAL_MEMORY_BUFFER_DESC { offset, size, flags: 0, reserved: [0; 16] }
}

/// Describes the opaque fd of a semaphore.
pub(crate) fn semaphore_handle(
    fd: RawFd,
    kind: SemaphoreKind,
) -> sys::CUDA_EXTERNAL_SEMAPHORE_HANDLE_DESC {
    use sys::CUexternalSemaphoreHandleType as Type;
    let ty = match kind {
        SemaphoreKind::Binary => Type::CU_EXTERNAL_SEMAPHORE_HANDLE_TYPE_OPAQUE_FD,
        SemaphoreKind::Timeline => Type::CU_EXTERNAL_SEMAPHORE_HANDLE_TYPE_TIMELINE_SEMAPHORE_FD,
    };
    let mut desc = MaybeUninit::<sys::CUDA_EXTERNAL_SEMAPHORE_HANDLE_DESC>::zeroed();
    let at = desc.as_mut_ptr();
    // SAFETY: as in `memory_handle`.
    unsafe {
        (&raw mut (*at).type_).write(ty);
        (&raw mut (*at).handle.fd).write(fd);
        desc.assume_init()
    }
}

/// Describes a wait for `value`, which a binary semaphore ignores.
pub(crate) fn wait_params(value: u64) -> sys::CUDA_EXTERNAL_SEMAPHORE_WAIT_PARAMS {
    let mut params = MaybeUninit::<sys::CUDA_EXTERNAL_SEMAPHORE_WAIT_PARAMS>::zeroed();
    let at = params.as_mut_ptr();
    // SAFETY: the write is to a field of the structure, and zero is a value of all others (numbers,
    // and a union of a pointer and a number).
    unsafe {
        (&raw mut (*at).params.fence.value).write(value);
        params.assume_init()
    }
}

/// Describes a signal with `value`, which a binary semaphore ignores.
pub(crate) fn signal_params(value: u64) -> sys::CUDA_EXTERNAL_SEMAPHORE_SIGNAL_PARAMS {
    let mut params = MaybeUninit::<sys::CUDA_EXTERNAL_SEMAPHORE_SIGNAL_PARAMS>::zeroed();
    let at = params.as_mut_ptr();
    // SAFETY: as in `wait_params`.
    unsafe {
        (&raw mut (*at).params.fence.value).write(value);
        params.assume_init()
    }
}

/// Describes memory on `device` that can be exported as a descriptor.
pub(crate) fn exportable_memory(device: sys::CUdevice) -> sys::CUmemAllocationProp {
    let mut prop = MaybeUninit::<sys::CUmemAllocationProp>::zeroed();
    let at = prop.as_mut_ptr();
    // SAFETY: each write is to a field of the structure; the enums are written, and zero is a value
    // of all other fields (numbers and a pointer that only Windows uses).
    unsafe {
        (&raw mut (*at).type_).write(sys::CUmemAllocationType::CU_MEM_ALLOCATION_TYPE_PINNED);
        (&raw mut (*at).requestedHandleTypes)
            .write(sys::CUmemAllocationHandleType::CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR);
        (&raw mut (*at).location).write(on_device(device));
        prop.assume_init()
    }
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
    let mut location = MaybeUninit::<sys::CUmemLocation>::zeroed();
    let at = location.as_mut_ptr();
    // SAFETY: the structure is a C enum and a C int, as asserted above; both are written.
    unsafe {
        (&raw mut (*at).type_).write(sys::CUmemLocationType::CU_MEM_LOCATION_TYPE_DEVICE);
        at.cast::<c_int>().add(1).write(device);
        location.assume_init()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fd::MemoryHandleType;
    use crate::identity::{Identity, Uuid};
    use std::mem::offset_of;

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
            let desc = memory_handle(42, &info(dedicated));
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
            let desc = semaphore_handle(43, kind);
            assert_eq!(desc.type_ as u32, ty);
            // SAFETY: as above.
            assert_eq!(unsafe { desc.handle.fd }, 43);
            assert_eq!((desc.flags, desc.reserved), (0, [0; 16]));
        }
    }

    #[test]
    fn a_wait_and_a_signal_carry_the_value_and_nothing_else() {
        let wait = wait_params(u64::MAX - 1);
        assert_eq!(wait.params.fence.value, u64::MAX - 1);
        assert_eq!((wait.params.keyedMutex.key, wait.params.keyedMutex.timeoutMs), (0, 0));
        assert_eq!((wait.flags, wait.reserved), (0, [0; 16]));
        let signal = signal_params(3);
        assert_eq!(signal.params.fence.value, 3);
        assert_eq!(signal.params.keyedMutex.key, 0);
        assert_eq!((signal.flags, signal.reserved), (0, [0; 16]));
    }

    #[test]
    fn exportable_memory_is_pinned_on_its_device_as_a_descriptor() {
        let prop = exportable_memory(3);
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

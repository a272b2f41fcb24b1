//! How a shared resource's memory is allocated: the options, and the memory type that they select.

use ash::vk;

use crate::capabilities::{Dedicated, Plan};
use crate::error::{Api, Invalid, Missing, Result};
use crate::fd::MemoryHandleType;

/// The memory type that an allocation uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum MemoryLocation {
    /// The GPU's own memory.
    #[default]
    DeviceLocal,
    /// Memory that the host can map, coherent.
    HostVisible,
    /// This type, by its index in `VkPhysicalDeviceMemoryProperties::memoryTypes`.
    Type(u32),
}

/// Whether a resource gets an allocation of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DedicatedAllocation {
    /// If the driver requires or prefers it.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Only if the driver requires it.
    Avoid,
}

/// How the memory of a shared buffer or image is allocated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryOptions {
    /// The handle type to export the memory as. Default: opaque fd.
    pub handle_type: MemoryHandleType,
    /// The memory type. Default: device-local.
    pub memory: MemoryLocation,
    /// Whether the resource gets an allocation of its own. Default: if the driver requires or
    /// prefers it.
    pub dedicated: DedicatedAllocation,
    /// Bytes to allocate beyond the resources' requirements on this device, for importers whose
    /// driver requires more. Default: 0.
    ///
    /// A dedicated allocation is exactly as large as its resource, so it can't have spare bytes;
    /// with `Auto`, a dedicated allocation is then made only if the driver requires it.
    pub spare_bytes: u64,
}

/// How the memory of a shared buffer is allocated.
pub type BufferOptions = MemoryOptions;

/// How the memory of a shared image is allocated.
pub type ImageOptions = MemoryOptions;

impl Default for MemoryOptions {
    fn default() -> Self {
        Self {
            handle_type: MemoryHandleType::OpaqueFd,
            memory: MemoryLocation::default(),
            dedicated: DedicatedAllocation::default(),
            spare_bytes: 0,
        }
    }
}

impl From<Plan> for MemoryOptions {
    fn from(plan: Plan) -> Self {
        let dedicated =
            if plan.dedicated { DedicatedAllocation::Always } else { DedicatedAllocation::Auto };
        Self { handle_type: plan.handle_type, dedicated, ..Self::default() }
    }
}

impl MemoryOptions {
    /// Decides whether a resource gets an allocation of its own.
    pub(super) fn decide(&self, needs: Dedicated) -> Result<bool> {
        let dedicated = match (needs, self.dedicated) {
            (Dedicated::Required, _) | (_, DedicatedAllocation::Always) => true,
            (Dedicated::Preferred, DedicatedAllocation::Auto) => self.spare_bytes == 0,
            (Dedicated::Preferred | Dedicated::NotNeeded, _) => false,
        };
        if dedicated && self.spare_bytes != 0 {
            let problem = "a dedicated allocation is exactly as large as its resource";
            return Err(Invalid::new("options.spare_bytes", problem)
                .vuid("VUID-VkMemoryDedicatedAllocateInfo-image-02964")
                .help(match needs {
                    Dedicated::Required => "leave it 0: the driver requires such an allocation",
                    _ => "leave it 0, or choose DedicatedAllocation::Avoid",
                })
                .into());
        }
        Ok(dedicated)
    }
}

/// Returns the best of the memory `types` for `location`: bit i stands for type i.
pub(super) fn choose_type(
    properties: &vk::PhysicalDeviceMemoryProperties,
    types: u32,
    location: MemoryLocation,
) -> Result<u32> {
    let allowed = |index: u32| types.checked_shr(index).unwrap_or(0) & 1 == 1;
    let needed = match location {
        MemoryLocation::Type(index) => {
            check_memory_type(properties, index)?;
            if allowed(index) {
                return Ok(index);
            }
            let problem = format!("type {index} does not suit the resource (mask {types:#x})");
            return Err(Invalid::new("options.memory", problem)
                .vuid("VUID-vkBindBufferMemory-memory-01035")
                .into());
        }
        MemoryLocation::DeviceLocal => vk::MemoryPropertyFlags::DEVICE_LOCAL,
        MemoryLocation::HostVisible => {
            vk::MemoryPropertyFlags::HOST_VISIBLE | vk::MemoryPropertyFlags::HOST_COHERENT
        }
    };
    let found = (0u32..)
        .zip(properties.memory_types_as_slice())
        .find(|(index, ty)| allowed(*index) && ty.property_flags.contains(needed));
    found.map(|(index, _)| index).ok_or_else(|| {
        let what = format!("a {location:?} memory type for this resource (mask {types:#x})");
        Missing::new(Api::Vulkan, what, "shared memory").into()
    })
}

/// Rejects a memory type that the device doesn't have.
pub(super) fn check_memory_type(
    properties: &vk::PhysicalDeviceMemoryProperties,
    index: u32,
) -> Result<()> {
    let count = properties.memory_type_count;
    if index < count {
        return Ok(());
    }
    Err(Invalid::new("memory_type_index", format!("{index}, but the device has {count} types"))
        .vuid("VUID-vkAllocateMemory-pAllocateInfo-01714")
        .into())
}

/// Returns the sum of `size` and `more`.
pub(super) fn sum(size: u64, more: &[u64]) -> Result<u64> {
    let total = more.iter().try_fold(size, |total, &bytes| total.checked_add(bytes));
    total.ok_or_else(|| Invalid::new("desc", "is too large to be allocated").into())
}

/// Rejects an allocation that is larger than the heap of its memory type.
pub(super) fn check_allocation_size(
    properties: &vk::PhysicalDeviceMemoryProperties,
    parameter: &'static str,
    size: u64,
    memory_type_index: u32,
) -> Result<()> {
    check_memory_type(properties, memory_type_index)?;
    let heap = properties.memory_types[memory_type_index as usize].heap_index;
    match properties.memory_heaps_as_slice().get(heap as usize) {
        Some(heap) if size > heap.size => {
            let problem = format!("needs {size} bytes, but the heap has {}", heap.size);
            Err(Invalid::new(parameter, problem)
                .vuid("VUID-vkAllocateMemory-pAllocateInfo-01713")
                .into())
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    #[test]
    fn spare_bytes_rule_out_a_dedicated_allocation() {
        use DedicatedAllocation::{Always, Auto, Avoid};
        let decide = |dedicated, spare_bytes, needs| {
            MemoryOptions { dedicated, spare_bytes, ..MemoryOptions::default() }.decide(needs).ok()
        };
        for (choice, needs, exact, spare) in [
            (Auto, Dedicated::NotNeeded, Some(false), Some(false)),
            (Auto, Dedicated::Preferred, Some(true), Some(false)),
            (Auto, Dedicated::Required, Some(true), None),
            (Always, Dedicated::NotNeeded, Some(true), None),
            (Avoid, Dedicated::Preferred, Some(false), Some(false)),
            (Avoid, Dedicated::Required, Some(true), None),
        ] {
            assert_eq!(decide(choice, 0, needs), exact, "{choice:?}, {needs:?}");
            assert_eq!(decide(choice, 64, needs), spare, "{choice:?}, {needs:?}, spare bytes");
        }
    }

    /// Two heaps and four types. No type has the index of its heap.
    fn properties() -> vk::PhysicalDeviceMemoryProperties {
        const DEVICE: vk::MemoryPropertyFlags = vk::MemoryPropertyFlags::DEVICE_LOCAL;
        let host = vk::MemoryPropertyFlags::HOST_VISIBLE | vk::MemoryPropertyFlags::HOST_COHERENT;
        let mut properties = vk::PhysicalDeviceMemoryProperties {
            memory_type_count: 4,
            memory_heap_count: 2,
            ..Default::default()
        };
        let types = [(host, 1), (vk::MemoryPropertyFlags::empty(), 0), (DEVICE, 0), (DEVICE, 1)];
        for (ty, (property_flags, heap_index)) in properties.memory_types.iter_mut().zip(types) {
            *ty = vk::MemoryType { property_flags, heap_index };
        }
        for (heap, size) in properties.memory_heaps.iter_mut().zip([1 << 30, 1 << 20]) {
            heap.size = size;
        }
        properties
    }

    #[test]
    fn a_type_is_chosen_by_its_index_not_by_its_heaps() {
        let (properties, any) = (properties(), u32::MAX);
        let choose = |types, location| choose_type(&properties, types, location);
        assert_eq!(choose(any, MemoryLocation::DeviceLocal).unwrap(), 2);
        assert_eq!(choose(0b1000, MemoryLocation::DeviceLocal).unwrap(), 3);
        assert_eq!(choose(any, MemoryLocation::HostVisible).unwrap(), 0);
        assert_eq!(choose(any, MemoryLocation::Type(1)).unwrap(), 1);
        let missing = choose(0b10, MemoryLocation::DeviceLocal);
        assert!(matches!(missing, Err(Error::Missing(_))), "{missing:?}");
        for (types, index) in [(0b1101, 1), (any, 4), (any, 40)] {
            let refused = choose(types, MemoryLocation::Type(index));
            assert!(matches!(refused, Err(Error::Invalid(_))), "{refused:?}");
        }
    }

    #[test]
    fn an_allocation_fits_the_heap_of_its_type() {
        let properties = properties();
        let fits = |size, index| check_allocation_size(&properties, "desc", size, index).is_ok();
        assert!(fits(1 << 30, 2) && fits(1 << 20, 3) && fits(1 << 20, 0));
        assert!(!fits((1 << 30) + 1, 2) && !fits((1 << 20) + 1, 3) && !fits(1 << 30, 0));
        assert!(!fits(1, 4));
    }
}

//! Which memory a resource gets: what it requires, what the user chooses, and whether an allocation
//! meets both.

use ash::vk;

use crate::capabilities::{Dedicated, Plan};
use crate::error::{Api, Invalid, Mismatch, Missing, Result};
use crate::fd::MemoryHandleType;
use crate::payload::{MemoryInfo, check_range};

/// What a resource requires of its memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Requirements {
    pub(super) size: u64,
    pub(super) alignment: u64,
    /// Bit i: memory type i is suitable.
    pub(super) types: u32,
    pub(super) dedicated: Dedicated,
    rules: Rules,
}

/// The specification's rules for binding one kind of resource.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    alignment: &'static str,
    memory_type: &'static str,
    needs_dedicated: &'static str,
    is_dedicated_to_another: &'static str,
    dedicated_size: &'static str,
    /// What creates such a resource together with its memory.
    created_by: &'static str,
    imported_by: &'static str,
}

pub(super) const BUFFER: Rules = Rules {
    alignment: "VUID-vkBindBufferMemory-memoryOffset-01036",
    memory_type: "VUID-vkBindBufferMemory-memory-01035",
    needs_dedicated: "VUID-vkBindBufferMemory-buffer-01444",
    is_dedicated_to_another: "VUID-vkBindBufferMemory-memory-01508",
    dedicated_size: "VUID-VkMemoryDedicatedAllocateInfo-buffer-02965",
    created_by: "create it with create_buffer",
    imported_by: "import it together with its resource, with import_buffer",
};

pub(super) const IMAGE: Rules = Rules {
    alignment: "VUID-vkBindImageMemory-memoryOffset-01048",
    memory_type: "VUID-vkBindImageMemory-memory-01047",
    needs_dedicated: "VUID-vkBindImageMemory-image-01445",
    is_dedicated_to_another: "VUID-vkBindImageMemory-memory-02628",
    dedicated_size: "VUID-VkMemoryDedicatedAllocateInfo-image-02964",
    created_by: "create it with create_image",
    imported_by: "import it together with its resource, with import_image",
};

impl Requirements {
    pub(super) fn new(
        found: vk::MemoryRequirements,
        dedicated: &vk::MemoryDedicatedRequirements<'_>,
        rules: Rules,
    ) -> Self {
        Self {
            size: found.size,
            alignment: found.alignment,
            types: found.memory_type_bits,
            dedicated: if dedicated.requires_dedicated_allocation == vk::TRUE {
                Dedicated::Required
            } else if dedicated.prefers_dedicated_allocation == vk::TRUE {
                Dedicated::Preferred
            } else {
                Dedicated::NotNeeded
            },
            rules,
        }
    }

    /// Adds what the handle type that the resource is shared by requires.
    pub(super) fn shared_by(mut self, dedicated: Dedicated) -> Self {
        if dedicated > self.dedicated {
            self.dedicated = dedicated;
            // VK_EXTERNAL_MEMORY_FEATURE_DEDICATED_ONLY_BIT requires it.
            self.rules.needs_dedicated = "VUID-VkMemoryAllocateInfo-pNext-00639";
        }
        self
    }

    /// The error for a resource that can't share an allocation.
    pub(super) fn needs_dedicated(&self, resource: &'static str) -> Invalid {
        Invalid::new(resource, "needs an allocation of its own")
            .vuid(self.rules.needs_dedicated)
            .help(self.rules.created_by)
    }

    /// Checks that the resource can be bound at `offset` of `memory`, which is its own if `memory` is
    /// a dedicated allocation.
    pub(super) fn check_any(&self, offset: u64, memory: &MemoryInfo) -> Result<()> {
        if memory.dedicated {
            self.check_dedicated(offset, memory)
        } else {
            self.check_shared(offset, memory)
        }
    }

    /// Checks that the resource can lie at `offset` of `memory`, which it may share with others.
    pub(super) fn check_shared(&self, offset: u64, memory: &MemoryInfo) -> Result<()> {
        if memory.dedicated {
            return Err(Invalid::new("memory", "is a dedicated allocation of one resource")
                .vuid(self.rules.is_dedicated_to_another)
                .help(self.rules.imported_by)
                .into());
        }
        if self.dedicated == Dedicated::Required {
            return Err(self.needs_dedicated("desc").into());
        }
        self.check(offset, memory)
    }

    /// Checks that `memory`, a dedicated allocation, can be the resource's own.
    fn check_dedicated(&self, offset: u64, memory: &MemoryInfo) -> Result<()> {
        if offset != 0 {
            return Err(Invalid::new("offset", "a dedicated allocation is bound at 0")
                .vuid(self.rules.is_dedicated_to_another)
                .into());
        }
        self.check(offset, memory)?;
        if self.size != memory.allocation_size {
            let help = format!(
                "a dedicated allocation is as large as its resource ({}): use the exporter's \
                 description",
                self.rules.dedicated_size
            );
            return Err(Mismatch::new("allocation_size", self.size, memory.allocation_size)
                .help(help)
                .into());
        }
        Ok(())
    }

    /// Checks offset, size and memory type.
    fn check(&self, offset: u64, memory: &MemoryInfo) -> Result<()> {
        check_range(offset, self.size, memory.allocation_size)?;
        if !offset.is_multiple_of(self.alignment.max(1)) {
            let what = format!("{offset} is not a multiple of the alignment {}", self.alignment);
            return Err(Invalid::new("offset", what).vuid(self.rules.alignment).into());
        }
        match memory.memory_type_index {
            Some(index) if self.types.checked_shr(index).unwrap_or(0) & 1 == 0 => {
                let what = format!("{index} does not suit the resource (mask {:#x})", self.types);
                Err(Invalid::new("memory_type_index", what).vuid(self.rules.memory_type).into())
            }
            _ => Ok(()),
        }
    }
}

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

impl DedicatedAllocation {
    /// Whether a resource with these requirements gets an allocation of its own.
    pub(super) fn decide(self, needs: &Requirements) -> bool {
        match needs.dedicated {
            Dedicated::Required => true,
            Dedicated::Preferred => self != Self::Avoid,
            Dedicated::NotNeeded => self == Self::Always,
        }
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
    use crate::fd::MemoryHandleType;
    use crate::identity::{Identity, Uuid};

    fn memory(allocation_size: u64, dedicated: bool) -> MemoryInfo {
        let identity =
            Identity { device: Uuid::from_bytes([1; 16]), driver: None, name: "test".into() };
        MemoryInfo {
            handle_type: MemoryHandleType::OpaqueFd,
            allocation_size,
            memory_type_index: Some(1),
            dedicated,
            identity,
        }
    }

    fn image(requires: bool) -> Requirements {
        let found = vk::MemoryRequirements { size: 4096, alignment: 256, memory_type_bits: 0b10 };
        let dedicated =
            vk::MemoryDedicatedRequirements::default().requires_dedicated_allocation(requires);
        Requirements::new(found, &dedicated, IMAGE)
    }

    #[test]
    fn offset_size_and_type_are_checked() {
        let needs = image(false);
        needs.check_shared(256, &memory(4096 + 256, false)).unwrap();
        for (offset, info) in [
            (128, memory(1 << 20, false)),
            (256, memory(4096, false)),
            (u64::MAX - 255, memory(4096, false)),
            (0, MemoryInfo { memory_type_index: Some(0), ..memory(4096, false) }),
            (0, MemoryInfo { memory_type_index: Some(32), ..memory(4096, false) }),
            (0, memory(4096, true)),
        ] {
            let refused = needs.check_shared(offset, &info);
            assert!(matches!(refused, Err(Error::Invalid(_))), "{offset}, {info:?}: {refused:?}");
        }
    }

    #[test]
    fn a_dedicated_allocation_is_required_or_not() {
        let refused = image(true).check_shared(0, &memory(4096, false)).unwrap_err().to_string();
        assert!(refused.contains("create_image"), "{refused}");
        let exported = image(false).shared_by(Dedicated::Required);
        let refused = exported.check_shared(0, &memory(4096, false)).unwrap_err().to_string();
        assert!(refused.contains("pNext-00639"), "{refused}");
        exported.check_dedicated(0, &memory(4096, true)).unwrap();
        let needs = image(false).shared_by(Dedicated::NotNeeded);
        needs.check_shared(0, &memory(4096, false)).unwrap();
        needs.check_dedicated(0, &memory(4096, true)).unwrap();
        assert!(needs.check_dedicated(256, &memory(8192, true)).is_err());
        let larger = needs.check_dedicated(0, &memory(8192, true));
        assert!(matches!(larger, Err(Error::Mismatch(_))), "{larger:?}");
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

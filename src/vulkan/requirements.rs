//! What a resource wants of its memory, and whether memory gives it.

use ash::vk;

use crate::capabilities::Dedicated;
use crate::error::{Invalid, Mismatch, Result};
use crate::payload::{MemoryInfo, check_range};

/// What a resource wants of its memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Requirements {
    pub(crate) size: u64,
    pub(crate) alignment: u64,
    /// Bit i: memory type i will do.
    pub(crate) types: u32,
    pub(crate) dedicated: Dedicated,
    rules: Rules,
}

/// The specification's rules for binding one kind of resource.
#[derive(Clone, Copy, Debug)]
struct Rules {
    alignment: &'static str,
    memory_type: &'static str,
    needs_its_own: &'static str,
    is_anothers: &'static str,
    dedicated_size: &'static str,
    /// What makes such a resource together with its memory.
    made_by: &'static str,
    imported_by: &'static str,
}

const BUFFER: Rules = Rules {
    alignment: "VUID-vkBindBufferMemory-memoryOffset-01036",
    memory_type: "VUID-vkBindBufferMemory-memory-01035",
    needs_its_own: "VUID-vkBindBufferMemory-buffer-01444",
    is_anothers: "VUID-vkBindBufferMemory-memory-01508",
    dedicated_size: "VUID-VkMemoryDedicatedAllocateInfo-buffer-02965",
    made_by: "make it by create_buffer",
    imported_by: "import it together with its resource, by import_buffer",
};

const IMAGE: Rules = Rules {
    alignment: "VUID-vkBindImageMemory-memoryOffset-01048",
    memory_type: "VUID-vkBindImageMemory-memory-01047",
    needs_its_own: "VUID-vkBindImageMemory-image-01445",
    is_anothers: "VUID-vkBindImageMemory-memory-02628",
    dedicated_size: "VUID-VkMemoryDedicatedAllocateInfo-image-02964",
    made_by: "make it by create_image",
    imported_by: "import it together with its resource, by import_image",
};

impl Requirements {
    pub(crate) fn of_buffer(
        found: vk::MemoryRequirements,
        dedicated: &vk::MemoryDedicatedRequirements<'_>,
    ) -> Self {
        Self::new(found, dedicated, BUFFER)
    }

    pub(crate) fn of_image(
        found: vk::MemoryRequirements,
        dedicated: &vk::MemoryDedicatedRequirements<'_>,
    ) -> Self {
        Self::new(found, dedicated, IMAGE)
    }

    fn new(
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

    /// The same, where the handle type that the resource is shared by wants `dedicated`.
    pub(crate) fn shared_by(mut self, dedicated: Dedicated) -> Self {
        if dedicated > self.dedicated {
            self.dedicated = dedicated;
            // It was VK_EXTERNAL_MEMORY_FEATURE_DEDICATED_ONLY_BIT that asked for it.
            self.rules.needs_its_own = "VUID-VkMemoryAllocateInfo-pNext-00639";
        }
        self
    }

    /// What to say where the resource would have to share its allocation, and can't.
    pub(crate) fn needs_its_own(&self, resource: &'static str) -> Invalid {
        Invalid::new(resource, "needs an allocation of its own")
            .vuid(self.rules.needs_its_own)
            .help(self.rules.made_by)
    }

    /// Checks that the resource may lie at `offset` of `memory`, which others may share.
    pub(crate) fn check_shared(&self, offset: u64, memory: &MemoryInfo) -> Result<()> {
        if memory.dedicated {
            return Err(Invalid::new("memory", "belongs to one resource (dedicated allocation)")
                .vuid(self.rules.is_anothers)
                .help(self.rules.imported_by)
                .into());
        }
        if self.dedicated == Dedicated::Required {
            return Err(self.needs_its_own("desc").into());
        }
        self.check(offset, memory)
    }

    /// Checks that the resource may lie at 0 of `memory`, an allocation of its own.
    pub(crate) fn check_dedicated(&self, offset: u64, memory: &MemoryInfo) -> Result<()> {
        if offset != 0 {
            return Err(Invalid::new("payload.offset", "a dedicated allocation is bound at 0")
                .vuid(self.rules.is_anothers)
                .into());
        }
        self.check(offset, memory)?;
        if self.size != memory.allocation_size {
            return Err(Mismatch::new(
                "payload.allocation_size",
                self.size,
                memory.allocation_size,
            )
            .help(format!(
                "a dedicated allocation is as large as its resource ({}): is the description the \
                 exporter's?",
                self.rules.dedicated_size
            ))
            .into());
        }
        Ok(())
    }

    /// Checks place, size and memory type.
    fn check(&self, offset: u64, memory: &MemoryInfo) -> Result<()> {
        check_range(offset, self.size, memory.allocation_size)?;
        if !offset.is_multiple_of(self.alignment.max(1)) {
            let what = format!("{offset} is no multiple of the alignment {}", self.alignment);
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
        Requirements::of_image(found, &dedicated)
    }

    #[test]
    fn place_size_and_type_are_checked() {
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
    fn an_allocation_of_its_own_is_wanted_or_not() {
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
}

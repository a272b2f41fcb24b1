//! What a resource requires of its memory, and whether an allocation meets it.

use ash::vk;

use crate::capabilities::Dedicated;
use crate::error::{Invalid, Mismatch, Result};
use crate::payload::MemoryInfo;

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

/// The name of a kind of resource, and the specification's rules for binding it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    /// `buffer` or `image`.
    name: &'static str,
    size: &'static str,
    alignment: &'static str,
    memory_type: &'static str,
    needs_dedicated: &'static str,
    is_dedicated_to_another: &'static str,
    dedicated_size: &'static str,
    /// The advice for creating such a resource together with its memory.
    created_by: &'static str,
    imported_by: &'static str,
}

pub(super) const BUFFER: Rules = Rules {
    name: "buffer",
    size: "VUID-vkBindBufferMemory-None-10741",
    alignment: "VUID-vkBindBufferMemory-memoryOffset-01036",
    memory_type: "VUID-vkBindBufferMemory-memory-01035",
    needs_dedicated: "VUID-vkBindBufferMemory-buffer-01444",
    is_dedicated_to_another: "VUID-vkBindBufferMemory-memory-01508",
    dedicated_size: "VUID-VkMemoryDedicatedAllocateInfo-buffer-02965",
    created_by: "create it with create_buffer",
    imported_by: "import it together with its resource, with import_buffer",
};

pub(super) const IMAGE: Rules = Rules {
    name: "image",
    size: "VUID-vkBindImageMemory-None-10737",
    alignment: "VUID-vkBindImageMemory-memoryOffset-01048",
    memory_type: "VUID-vkBindImageMemory-memory-01047",
    needs_dedicated: "VUID-vkBindImageMemory-image-01445",
    is_dedicated_to_another: "VUID-vkBindImageMemory-memory-02628",
    dedicated_size: "VUID-VkMemoryDedicatedAllocateInfo-image-02964",
    created_by: "create it with create_image",
    imported_by: "import it together with its resource, with import_image",
};

/// The origin of the description of the memory, which decides what an error names and what would
/// help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// The caller chose an offset in memory of this library.
    Placed,
    /// The exporter, in a payload.
    Payload,
    /// The application, which adopts an object of its own.
    Adopted,
}

impl Source {
    /// Returns the path of a field of the description.
    fn field(self, name: &'static str) -> String {
        match self {
            Self::Placed => name.to_owned(),
            Self::Payload => format!("payload.{name}"),
            Self::Adopted => format!("adopted.{name}"),
        }
    }
}

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

    /// Adds what the handle type requires.
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

    /// Checks that the resource can lie at `offset` of `memory`, which others may share.
    pub(super) fn check_placed(&self, offset: u64, memory: &MemoryInfo) -> Result<()> {
        if memory.dedicated {
            return Err(Invalid::new("memory", "is a dedicated allocation of one resource")
                .vuid(self.rules.is_dedicated_to_another)
                .help(self.rules.imported_by)
                .into());
        }
        if self.dedicated == Dedicated::Required {
            return Err(self.needs_dedicated("desc").into());
        }
        self.check(offset, memory, Source::Placed)
    }

    /// Checks that the resource can be bound at `offset` of `memory`, which is the resource's own
    /// if it is a dedicated allocation. `source` is an import or an adoption.
    pub(super) fn check_described(
        &self,
        offset: u64,
        memory: &MemoryInfo,
        source: Source,
    ) -> Result<()> {
        if memory.dedicated {
            return self.check_dedicated(offset, memory, source);
        }
        if self.dedicated == Dedicated::Required {
            let problem = format!("is false, but the {} needs memory of its own", self.rules.name);
            return Err(Invalid::new(source.field("dedicated"), problem)
                .vuid(self.rules.needs_dedicated)
                .help(match source {
                    Source::Adopted => "allocate its memory with VkMemoryDedicatedAllocateInfo",
                    _ => "export it with DedicatedAllocation::Always",
                })
                .into());
        }
        self.check(offset, memory, source)
    }

    /// Checks that `memory`, a dedicated allocation, can be the resource's own.
    fn check_dedicated(&self, offset: u64, memory: &MemoryInfo, source: Source) -> Result<()> {
        const ADOPTED: &str = "set `dedicated` only if the memory was allocated with \
            VkMemoryDedicatedAllocateInfo for this very resource";
        if offset != 0 {
            let problem = format!("{offset}, but a dedicated allocation is bound at 0");
            let refused = Invalid::new(source.field("offset"), problem)
                .vuid(self.rules.is_dedicated_to_another);
            let adopted = source == Source::Adopted;
            return Err(if adopted { refused.help(ADOPTED) } else { refused }.into());
        }
        if self.size != memory.allocation_size {
            let Rules { name, dedicated_size: vuid, .. } = self.rules;
            let exact =
                format!("a dedicated allocation is exactly as large as its {name} ({vuid})");
            let field = match source {
                Source::Adopted => "adopted.allocation_size",
                _ => "payload.allocation_size",
            };
            let help = match source {
                Source::Adopted => format!("{exact}: {ADOPTED}"),
                _ => format!(
                    "{exact}, and the {name} of this description needs {} bytes on the importing \
                     device: use the exporter's description; if it is the exporter's, the two \
                     devices have different requirements, so export it with \
                     DedicatedAllocation::Avoid, and with MemoryOptions::spare_bytes if the \
                     importer needs more",
                    self.size
                ),
            };
            return Err(Mismatch::new(field, self.size, memory.allocation_size).help(help).into());
        }
        self.check(offset, memory, source)
    }

    /// Checks offset, size and memory type.
    fn check(&self, offset: u64, memory: &MemoryInfo, source: Source) -> Result<()> {
        let (allocated, Rules { name, .. }) = (memory.allocation_size, self.rules);
        let end = offset.checked_add(self.size);
        if end.is_none_or(|end| end > allocated) {
            return Err(self.too_small(offset, allocated, source).into());
        }
        if !offset.is_multiple_of(self.alignment.max(1)) {
            let what = format!("{offset} is not a multiple of the alignment {}", self.alignment);
            return Err(Invalid::new(source.field("offset"), what)
                .vuid(self.rules.alignment)
                .into());
        }
        match memory.memory_type_index {
            Some(index) if self.types.checked_shr(index).unwrap_or(0) & 1 == 0 => {
                let what = format!("{index} does not suit the {name} (mask {:#x})", self.types);
                Err(Invalid::new(source.field("memory_type_index"), what)
                    .vuid(self.rules.memory_type)
                    .into())
            }
            _ => Ok(()),
        }
    }

    /// The error for an allocation of `allocated` bytes that ends before the resource does.
    fn too_small(&self, offset: u64, allocated: u64, source: Source) -> Invalid {
        let (size, Rules { name, size: vuid, .. }) = (self.size, self.rules);
        let needs = format!("is {allocated} bytes, but the {name} needs {size} bytes at {offset}");
        let missing = offset.saturating_add(size).saturating_sub(allocated);
        match source {
            Source::Placed => {
                let problem =
                    format!("{size} bytes at {offset} reach past the allocation's {allocated}");
                Invalid::new("offset", problem).help(
                    "the offset counts from the start of the allocation, in bytes; an importer \
                     whose driver needs more than the exporter's needs memory that was exported \
                     with MemoryOptions::spare_bytes",
                )
            }
            Source::Payload => {
                let problem = format!("{needs} on the importing device");
                Invalid::new("payload.allocation_size", problem).help(format!(
                    "use the exporter's description; if it is the exporter's, this driver needs \
                     more memory: export it with MemoryOptions::spare_bytes of at least {missing}"
                ))
            }
            Source::Adopted => Invalid::new("adopted.allocation_size", needs).help(
                "pass VkMemoryAllocateInfo::allocationSize of the whole block, not the size of a \
                 suballocation",
            ),
        }
        .vuid(vuid)
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
        needs.check_placed(256, &memory(4096 + 256, false)).unwrap();
        for (offset, info) in [
            (128, memory(1 << 20, false)),
            (256, memory(4096, false)),
            (u64::MAX - 255, memory(4096, false)),
            (0, MemoryInfo { memory_type_index: Some(0), ..memory(4096, false) }),
            (0, MemoryInfo { memory_type_index: Some(32), ..memory(4096, false) }),
            (0, memory(4096, true)),
        ] {
            let refused = needs.check_placed(offset, &info);
            assert!(matches!(refused, Err(Error::Invalid(_))), "{offset}, {info:?}: {refused:?}");
        }
    }

    #[test]
    fn a_dedicated_allocation_is_required_or_not() {
        let refused = image(true).check_placed(0, &memory(4096, false)).unwrap_err().to_string();
        assert!(refused.contains("create_image"), "{refused}");
        let exported = image(false).shared_by(Dedicated::Required);
        let refused = exported.check_placed(0, &memory(4096, false)).unwrap_err().to_string();
        assert!(refused.contains("pNext-00639"), "{refused}");
        for source in [Source::Payload, Source::Adopted] {
            exported.check_described(0, &memory(4096, true), source).unwrap();
            let needs = image(false).shared_by(Dedicated::NotNeeded);
            needs.check_described(0, &memory(4096, false), source).unwrap();
            needs.check_described(0, &memory(4096, true), source).unwrap();
            assert!(needs.check_described(256, &memory(8192, true), source).is_err());
            let larger = needs.check_described(0, &memory(8192, true), source);
            assert!(matches!(larger, Err(Error::Mismatch(_))), "{larger:?}");
        }
    }

    #[test]
    fn an_error_names_the_description_it_is_about() {
        let (small, other) = (memory(4000, false), memory(8192, true));
        let type0 = MemoryInfo { memory_type_index: Some(0), ..memory(4096, false) };
        let (shared, alone) = (image(false), image(true));
        for (needs, offset, memory, source, texts) in [
            (
                &shared,
                0,
                &small,
                Source::Payload,
                ["payload.allocation_size", "spare_bytes of at least 96"],
            ),
            (&shared, 0, &small, Source::Adopted, ["adopted.allocation_size", "whole block"]),
            (
                &shared,
                0,
                &other,
                Source::Payload,
                ["payload.allocation_size", "DedicatedAllocation::Avoid"],
            ),
            (
                &shared,
                0,
                &other,
                Source::Adopted,
                ["adopted.allocation_size", "set `dedicated` only if"],
            ),
            (&shared, 256, &other, Source::Adopted, ["adopted.offset", "set `dedicated` only if"]),
            (
                &alone,
                0,
                &small,
                Source::Payload,
                ["payload.dedicated", "DedicatedAllocation::Always"],
            ),
            (
                &alone,
                0,
                &small,
                Source::Adopted,
                ["adopted.dedicated", "VkMemoryDedicatedAllocateInfo"],
            ),
            (
                &shared,
                0,
                &type0,
                Source::Payload,
                ["payload.memory_type_index", "vkBindImageMemory-memory-01047"],
            ),
            (
                &shared,
                0,
                &type0,
                Source::Adopted,
                ["adopted.memory_type_index", "vkBindImageMemory-memory-01047"],
            ),
        ] {
            let refused = needs.check_described(offset, memory, source).unwrap_err().to_string();
            for text in texts {
                assert!(refused.contains(text), "no '{text}' in: {refused}");
            }
            assert!(!refused.contains("vkBindBufferMemory"), "{refused}");
        }
    }
}

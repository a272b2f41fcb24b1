//! Allocating memory for export: which memory type, how large, dedicated or not.

use std::sync::Arc;

use ash::vk;

use super::conv;
use super::endpoint::{Endpoint, Shared, require_memory_type};
use super::error::VkResultExt;
use super::memory::{Inner, Memory, Origin};
use crate::capabilities::{Dedicated, Plan};
use crate::error::{Api, Invalid, Missing, Result};
use crate::handle::MemoryHandleType;
use crate::payload::MemoryInfo;
use crate::resource::BufferDesc;

/// Which memory type an allocation is made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum MemoryChoice {
    /// The GPU's own memory.
    #[default]
    DeviceLocal,
    /// Memory that the host can map, coherently.
    HostVisible,
    /// This type, by its index in `VkPhysicalDeviceMemoryProperties::memoryTypes`.
    Type(u32),
}

/// Whether a buffer gets an allocation of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DedicatedChoice {
    /// Where the driver requires or prefers it.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Only where the driver requires it.
    Avoid,
}

/// How the memory of a shared buffer is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BufferOptions {
    /// How the memory will travel.
    pub handle_type: MemoryHandleType,
    /// What memory it is.
    pub memory: MemoryChoice,
    /// Whether it belongs to the buffer alone.
    pub dedicated: DedicatedChoice,
}

impl Default for BufferOptions {
    fn default() -> Self {
        Self {
            handle_type: MemoryHandleType::OpaqueFd,
            memory: MemoryChoice::default(),
            dedicated: DedicatedChoice::default(),
        }
    }
}

impl From<Plan> for BufferOptions {
    fn from(plan: Plan) -> Self {
        let dedicated =
            if plan.dedicated { DedicatedChoice::Always } else { DedicatedChoice::Auto };
        Self { handle_type: plan.handle_type, dedicated, ..Self::default() }
    }
}

/// What a resource wants of its memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Requirements {
    pub(super) size: u64,
    pub(super) alignment: u64,
    /// Bit i: memory type i will do.
    pub(super) types: u32,
    pub(super) dedicated: Dedicated,
}

/// The resource an allocation is dedicated to.
#[derive(Clone, Copy, Debug)]
pub(super) enum DedicatedTo {
    Nothing,
    Buffer(vk::Buffer),
}

impl DedicatedTo {
    pub(super) fn is_something(self) -> bool {
        !matches!(self, Self::Nothing)
    }

    pub(super) fn info(self) -> vk::MemoryDedicatedAllocateInfo<'static> {
        let info = vk::MemoryDedicatedAllocateInfo::default();
        match self {
            Self::Nothing => info,
            Self::Buffer(buffer) => info.buffer(buffer),
        }
    }
}

impl Endpoint {
    /// Allocates one piece of exportable memory for several buffers, none of them made yet.
    ///
    /// Returns the memory and each buffer's offset in it, in bytes; [`Memory::buffer`] makes the
    /// buffers. This is the way to export memory before anything is bound to it, and to put
    /// several resources into one allocation.
    ///
    /// # Errors
    /// [`Missing`] where a buffer can't be exported so, or no memory type suits all of them;
    /// [`Invalid`] where a buffer needs an allocation of its own.
    pub fn allocate(
        &self,
        descs: &[BufferDesc],
        options: BufferOptions,
    ) -> Result<(Memory, Vec<u64>)> {
        if options.dedicated == DedicatedChoice::Always {
            return Err(Invalid::new("options.dedicated", "one allocation for several buffers")
                .help("make a buffer with an allocation of its own by create_buffer")
                .into());
        }
        let mut offsets = Vec::with_capacity(descs.len());
        let (mut end, mut types, mut addressed) = (0u64, u32::MAX, false);
        for desc in descs {
            let buffer = self.create_exportable(desc, options.handle_type)?;
            let needs = buffer.requirements();
            if needs.dedicated == Dedicated::Required {
                let what = format!("{desc:?} needs an allocation of its own");
                return Err(Invalid::new("descs", what).help("make it by create_buffer").into());
            }
            let offset = align_up(end, needs.alignment)?;
            offsets.push(offset);
            end = self.padded(offset, needs.size)?;
            types &= needs.types;
            addressed |= desc.usage.contains(crate::resource::BufferUsage::DEVICE_ADDRESS);
        }
        if descs.is_empty() {
            return Err(Invalid::new("descs", "is empty").help("name at least one buffer").into());
        }
        let index = self.choose_type(types, options.memory)?;
        let memory = self.shared.allocate(
            end,
            index,
            options.handle_type,
            DedicatedTo::Nothing,
            addressed,
        )?;
        Ok((memory, offsets))
    }

    /// The end of a resource at `offset`, with the spare bytes that a driver wants behind it.
    pub(super) fn padded(&self, offset: u64, size: u64) -> Result<u64> {
        offset
            .checked_add(size)
            .and_then(|end| end.checked_add(self.shared.workarounds.buffer_tail_bytes))
            .ok_or_else(|| Invalid::new("desc.size", "is too large to be allocated").into())
    }

    /// The best memory type among `types` for `choice`.
    pub(super) fn choose_type(&self, types: u32, choice: MemoryChoice) -> Result<u32> {
        let allowed = |index: u32| types.checked_shr(index).unwrap_or(0) & 1 == 1;
        let wanted = match choice {
            MemoryChoice::Type(index) => {
                require_memory_type(&self.shared.memory_properties, index)?;
                if allowed(index) {
                    return Ok(index);
                }
                let what = format!("type {index} does not suit the resource (mask {types:#x})");
                return Err(Invalid::new("options.memory", what)
                    .vuid("VUID-vkBindBufferMemory-memory-01035")
                    .into());
            }
            MemoryChoice::DeviceLocal => vk::MemoryPropertyFlags::DEVICE_LOCAL,
            MemoryChoice::HostVisible => {
                vk::MemoryPropertyFlags::HOST_VISIBLE | vk::MemoryPropertyFlags::HOST_COHERENT
            }
        };
        let all = self.shared.memory_properties.memory_types_as_slice();
        let found = (0u32..)
            .zip(all)
            .find(|(index, ty)| allowed(*index) && ty.property_flags.contains(wanted));
        found.map(|(index, _)| index).ok_or_else(|| {
            let what = format!("a {choice:?} memory type for this resource (mask {types:#x})");
            Missing::new(Api::Vulkan, what, "shared memory").into()
        })
    }
}

impl Shared {
    /// `size` bytes of exportable memory.
    pub(super) fn allocate(
        self: &Arc<Self>,
        size: u64,
        memory_type_index: u32,
        handle_type: MemoryHandleType,
        dedicated: DedicatedTo,
        addressed: bool,
    ) -> Result<Memory> {
        let mut export = vk::ExportMemoryAllocateInfo::default()
            .handle_types(conv::memory_handle_type(handle_type));
        let mut dedicated_info = dedicated.info();
        let mut flags =
            vk::MemoryAllocateFlagsInfo::default().flags(vk::MemoryAllocateFlags::DEVICE_ADDRESS);
        let mut info = vk::MemoryAllocateInfo::default()
            .allocation_size(size)
            .memory_type_index(memory_type_index)
            .push_next(&mut export);
        if dedicated.is_something() {
            info = info.push_next(&mut dedicated_info);
        }
        if addressed && self.features.buffer_device_address {
            info = info.push_next(&mut flags);
        }
        // SAFETY: the size is not 0, the type exists (choose_type), the handle type was found to be
        // exportable, and each chained structure is filled by the rules of its feature.
        let handle = unsafe { self.device.allocate_memory(&info, None) }.of("vkAllocateMemory")?;
        let info = MemoryInfo {
            handle_type,
            allocation_size: size,
            memory_type_index: Some(memory_type_index),
            dedicated: dedicated.is_something(),
            identity: self.identity().clone(),
        };
        let shared = self.clone();
        Ok(Memory { inner: Arc::new(Inner { shared, handle, info, origin: Origin::Created }) })
    }
}

fn align_up(offset: u64, alignment: u64) -> Result<u64> {
    offset
        .checked_next_multiple_of(alignment.max(1))
        .ok_or_else(|| Invalid::new("descs", "are too large to be allocated together").into())
}

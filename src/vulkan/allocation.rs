//! Allocating memory for export: which memory type, how large, dedicated or not.

use std::sync::Arc;

use ash::vk;

use super::conv;
use super::endpoint::{Endpoint, Shared, check_memory_type};
use super::error::VkResultExt;
use super::memory::{Inner, Memory, Origin};
use super::requirements::Requirements;
use crate::capabilities::{Dedicated, Plan};
use crate::desc::{BufferUsage, ResourceDesc, Tiling};
use crate::error::{Api, Invalid, Missing, Result};
use crate::fd::MemoryHandleType;
use crate::payload::MemoryInfo;

/// Which memory type an allocation is made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum MemoryLocation {
    /// The GPU's own memory.
    #[default]
    DeviceLocal,
    /// Memory that the host can map, coherently.
    HostVisible,
    /// This type, by its index in `VkPhysicalDeviceMemoryProperties::memoryTypes`.
    Type(u32),
}

/// Whether a resource gets an allocation of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DedicatedAllocation {
    /// Where the driver requires or prefers it.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Only where the driver requires it.
    Avoid,
}

/// How the memory of a shared buffer or image is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryOptions {
    /// How the memory will travel.
    pub handle_type: MemoryHandleType,
    /// What memory it is.
    pub memory: MemoryLocation,
    /// Whether it belongs to the resource alone.
    pub dedicated: DedicatedAllocation,
}

/// How the memory of a shared buffer is made.
pub type BufferOptions = MemoryOptions;

/// How the memory of a shared image is made.
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

/// The resource an allocation is dedicated to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum DedicatedTo {
    Nothing,
    Buffer(vk::Buffer),
    Image(vk::Image),
}

impl DedicatedTo {
    pub(crate) fn is_something(self) -> bool {
        !matches!(self, Self::Nothing)
    }

    pub(crate) fn info(self) -> vk::MemoryDedicatedAllocateInfo<'static> {
        let info = vk::MemoryDedicatedAllocateInfo::default();
        match self {
            Self::Nothing => info,
            Self::Buffer(buffer) => info.buffer(buffer),
            Self::Image(image) => info.image(image),
        }
    }
}

impl DedicatedAllocation {
    /// Whether a resource that `needs` memory gets its own.
    pub(crate) fn decide(self, needs: &Requirements) -> bool {
        match needs.dedicated {
            Dedicated::Required => true,
            Dedicated::Preferred => self != Self::Avoid,
            Dedicated::NotNeeded => self == Self::Always,
        }
    }
}

impl Endpoint {
    /// Allocates one piece of exportable memory for several resources, none of them made yet:
    /// [`BufferDesc`](crate::BufferDesc)s, [`ImageDesc`](crate::ImageDesc)s, or both as
    /// [`ResourceDesc`]s.
    ///
    /// Returns the memory and each resource's offset in it, in bytes; [`Memory::buffer`] and
    /// [`Memory::image`] make the resources. This is the way to export memory before anything is
    /// bound to it, and to put several resources into one allocation.
    ///
    /// # Errors
    /// [`Missing`] where a resource can't be exported so, or no memory type suits all of them;
    /// [`Invalid`] where a resource needs an allocation of its own.
    ///
    /// # References
    /// `bufferImageGranularity`: buffers and linear images are kept so far from optimal images.
    pub fn allocate<D: Copy + Into<ResourceDesc>>(
        &self,
        descs: &[D],
        options: MemoryOptions,
    ) -> Result<(Memory, Vec<u64>)> {
        if options.dedicated == DedicatedAllocation::Always {
            return Err(Invalid::new("options.dedicated", "one allocation for several resources")
                .help("create_buffer and create_image give a resource an allocation of its own")
                .into());
        }
        let mut offsets = Vec::with_capacity(descs.len());
        let (mut end, mut types, mut addressed) = (0u64, u32::MAX, false);
        let mut before = None;
        for desc in descs.iter().map(|&desc| desc.into()) {
            let needs = self.exportable_needs(&desc, options.handle_type)?;
            if needs.dedicated == Dedicated::Required {
                return Err(needs.needs_its_own("descs").into());
            }
            let layout = MemoryLayout::of(&desc);
            if before.replace(layout).is_some_and(|before| before != layout) {
                end = align_up(end, self.shared.buffer_image_granularity)?;
            }
            let offset = align_up(end, needs.alignment)?;
            offsets.push(offset);
            end = match desc {
                ResourceDesc::Buffer(_) => self.padded(offset, needs.size)?,
                ResourceDesc::Image(_) => offset.checked_add(needs.size).ok_or_else(too_large)?,
            };
            types &= needs.types;
            addressed |= matches!(desc, ResourceDesc::Buffer(desc)
                if desc.usage.contains(BufferUsage::DEVICE_ADDRESS));
        }
        if descs.is_empty() {
            return Err(Invalid::new("descs", "is empty").help("name at least one").into());
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

    /// What an exportable resource of `desc` wants of its memory.
    fn exportable_needs(
        &self,
        desc: &ResourceDesc,
        handle_type: MemoryHandleType,
    ) -> Result<Requirements> {
        Ok(match desc {
            ResourceDesc::Buffer(desc) => {
                self.create_exportable_buffer(desc, handle_type)?.requirements()
            }
            ResourceDesc::Image(desc) => {
                self.create_exportable_image(desc, handle_type)?.requirements()
            }
        })
    }

    /// The end of a resource at `offset`, with the spare bytes that a driver wants behind it.
    pub(crate) fn padded(&self, offset: u64, size: u64) -> Result<u64> {
        offset
            .checked_add(size)
            .and_then(|end| end.checked_add(self.shared.workarounds.buffer_tail_bytes))
            .ok_or_else(|| too_large().into())
    }

    /// The best memory type among `types` for `choice`.
    pub(crate) fn choose_type(&self, types: u32, choice: MemoryLocation) -> Result<u32> {
        let allowed = |index: u32| types.checked_shr(index).unwrap_or(0) & 1 == 1;
        let wanted = match choice {
            MemoryLocation::Type(index) => {
                check_memory_type(&self.shared.memory_properties, index)?;
                if allowed(index) {
                    return Ok(index);
                }
                let what = format!("type {index} does not suit the resource (mask {types:#x})");
                return Err(Invalid::new("options.memory", what)
                    .vuid("VUID-vkBindBufferMemory-memory-01035")
                    .into());
            }
            MemoryLocation::DeviceLocal => vk::MemoryPropertyFlags::DEVICE_LOCAL,
            MemoryLocation::HostVisible => {
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
    pub(crate) fn allocate(
        self: &Arc<Self>,
        size: u64,
        memory_type_index: u32,
        handle_type: MemoryHandleType,
        dedicated: DedicatedTo,
        addressed: bool,
    ) -> Result<Memory> {
        self.check_allocation_size("desc", size, memory_type_index)?;
        let addressed = addressed && self.features.buffer_device_address;
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
        if addressed {
            info = info.push_next(&mut flags);
        }
        // SAFETY: the size is not 0 and fits the heap, the type exists (choose_type), the handle type was found to be
        // exportable, and each chained structure is filled by the rules of its feature.
        let handle = unsafe { self.device.allocate_memory(&info, None) }.of("vkAllocateMemory")?;
        let info = MemoryInfo {
            handle_type,
            allocation_size: size,
            memory_type_index: Some(memory_type_index),
            dedicated: dedicated.is_something(),
            identity: self.identity().clone(),
        };
        let (shared, origin) = (self.clone(), Origin::Created);
        Ok(Memory { inner: Arc::new(Inner { shared, handle, info, origin, addressed }) })
    }

    /// Refuses an allocation that is larger than the heap of its memory type.
    pub(crate) fn check_allocation_size(
        &self,
        parameter: &'static str,
        size: u64,
        memory_type_index: u32,
    ) -> Result<()> {
        let properties = &self.memory_properties;
        let types = properties.memory_types_as_slice().iter();
        let heaps = properties.memory_heaps_as_slice();
        let heap = (0u32..)
            .zip(types)
            .find(|(index, _)| *index == memory_type_index)
            .and_then(|(_, ty)| (0u32..).zip(heaps).find(|(index, _)| *index == ty.heap_index));
        match heap {
            Some((_, heap)) if size > heap.size => {
                let what = format!("takes {size} bytes, and its heap has {}", heap.size);
                Err(Invalid::new(parameter, what)
                    .vuid("VUID-vkAllocateMemory-pAllocateInfo-01713")
                    .into())
            }
            _ => Ok(()),
        }
    }
}

/// How a resource's bytes lie in memory: `bufferImageGranularity` keeps the two kinds apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum MemoryLayout {
    Linear,
    Optimal,
}

impl MemoryLayout {
    fn of(desc: &ResourceDesc) -> Self {
        match desc {
            ResourceDesc::Image(image) if image.tiling == Tiling::Optimal => Self::Optimal,
            ResourceDesc::Image(_) | ResourceDesc::Buffer(_) => Self::Linear,
        }
    }
}

fn align_up(offset: u64, alignment: u64) -> Result<u64> {
    offset.checked_next_multiple_of(alignment.max(1)).ok_or_else(|| too_large().into())
}

fn too_large() -> Invalid {
    Invalid::new("desc", "is too large to be allocated")
}

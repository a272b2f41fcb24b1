//! The bodies of payload messages: memory and semaphore blocks, descriptions, linear layouts.

use super::fields::{Reader, Writer};
use crate::desc::{BufferDesc, BufferUsage, Extent, ImageDesc, ImageKind, ImageUsage, Tiling};
use crate::error::{Invalid, Result};
use crate::fd::{MemoryHandleType, SemaphoreHandleType};
use crate::format::Format;
use crate::identity::{Identity, Uuid};
use crate::payload::{LinearLayout, MemoryInfo, SemaphoreInfo, SemaphoreKind};

/// `VK_IMAGE_CREATE_MUTABLE_FORMAT_BIT`.
const MUTABLE_FORMAT: u32 = 0x8;

/// `VkExternalMemoryHandleTypeFlagBits`.
const fn memory_handle_number(handle_type: MemoryHandleType) -> u32 {
    match handle_type {
        MemoryHandleType::OpaqueFd => 0x1,
        MemoryHandleType::DmaBuf => 0x200,
    }
}

/// `VkExternalSemaphoreHandleTypeFlagBits`.
const fn semaphore_handle_number(handle_type: SemaphoreHandleType) -> u32 {
    match handle_type {
        SemaphoreHandleType::OpaqueFd => 0x1,
        SemaphoreHandleType::SyncFd => 0x10,
    }
}

/// `VkSemaphoreType`.
const fn semaphore_kind_number(kind: SemaphoreKind) -> u32 {
    match kind {
        SemaphoreKind::Binary => 0,
        SemaphoreKind::Timeline => 1,
    }
}

/// `VkImageViewType`.
const fn image_kind_number(kind: ImageKind) -> u32 {
    match kind {
        ImageKind::D1 => 0,
        ImageKind::D2 => 1,
        ImageKind::D3 => 2,
        ImageKind::Cube => 3,
    }
}

/// `VkImageTiling`.
const fn tiling_number(tiling: Tiling) -> u32 {
    match tiling {
        Tiling::Optimal => 0,
        Tiling::Linear => 1,
    }
}

pub(super) fn write_memory(body: &mut Writer, memory: &MemoryInfo) {
    let MemoryInfo { handle_type, allocation_size, memory_type_index, dedicated, identity } =
        memory;
    body.u32(memory_handle_number(*handle_type));
    body.flag(*dedicated);
    body.flag(memory_type_index.is_some());
    body.flag(identity.driver.is_some());
    body.reserved::<1>();
    body.u32(memory_type_index.unwrap_or(0));
    body.text(&identity.name);
    body.u64(*allocation_size);
    write_uuids(body, identity);
}

pub(super) fn read_memory(fields: &mut Reader<'_>) -> Result<MemoryInfo> {
    let handle_types = [MemoryHandleType::OpaqueFd, MemoryHandleType::DmaBuf];
    let handle_type = fields.one_of("body.handle_type", &handle_types, memory_handle_number)?;
    let dedicated = fields.flag("body.dedicated")?;
    let has_memory_type = fields.flag("body.has_memory_type")?;
    let has_driver = fields.flag("body.has_driver_uuid")?;
    fields.reserved::<1>("body.reserved")?;
    let memory_type_index =
        fields.optional("body.memory_type_index", has_memory_type, Reader::u32)?;
    let name = fields.text("body.name_length", "body.name")?;
    let allocation_size = fields.u64("body.allocation_size")?;
    let identity = read_identity(fields, has_driver, name)?;
    Ok(MemoryInfo { handle_type, allocation_size, memory_type_index, dedicated, identity })
}

pub(super) fn write_semaphore(body: &mut Writer, semaphore: &SemaphoreInfo) {
    let SemaphoreInfo { handle_type, kind, identity } = semaphore;
    body.u32(semaphore_handle_number(*handle_type));
    body.u32(semaphore_kind_number(*kind));
    body.flag(identity.driver.is_some());
    body.reserved::<3>();
    body.text(&identity.name);
    write_uuids(body, identity);
}

pub(super) fn read_semaphore(fields: &mut Reader<'_>) -> Result<SemaphoreInfo> {
    let handle_types = [SemaphoreHandleType::OpaqueFd, SemaphoreHandleType::SyncFd];
    let handle_type = fields.one_of("body.handle_type", &handle_types, semaphore_handle_number)?;
    let kinds = [SemaphoreKind::Binary, SemaphoreKind::Timeline];
    let kind = fields.one_of("body.semaphore_kind", &kinds, semaphore_kind_number)?;
    let has_driver = fields.flag("body.has_driver_uuid")?;
    fields.reserved::<3>("body.reserved")?;
    let name = fields.text("body.name_length", "body.name")?;
    let identity = read_identity(fields, has_driver, name)?;
    Ok(SemaphoreInfo { handle_type, kind, identity })
}

fn write_uuids(body: &mut Writer, identity: &Identity) {
    body.bytes(identity.device.as_bytes());
    let driver = identity.driver.unwrap_or(Uuid::from_bytes([0; 16]));
    body.bytes(driver.as_bytes());
}

fn read_identity(fields: &mut Reader<'_>, has_driver: bool, name: String) -> Result<Identity> {
    let device = Uuid::from_bytes(fields.array("body.device_uuid")?);
    let driver = fields.optional("body.driver_uuid", has_driver, Reader::array)?;
    Ok(Identity { device, driver: driver.map(Uuid::from_bytes), name })
}

pub(super) fn write_buffer(body: &mut Writer, desc: &BufferDesc) {
    let BufferDesc { size, usage } = desc;
    body.u64(*size);
    body.u32(usage.bits());
    body.reserved::<4>();
}

pub(super) fn read_buffer(fields: &mut Reader<'_>) -> Result<BufferDesc> {
    let size = fields.u64("body.size")?;
    let bits = fields.u32("body.usage")?;
    let usage = BufferUsage::from_bits(bits)
        .ok_or_else(|| unknown_usage(bits, BufferUsage::all().bits(), "buffer"))?;
    fields.reserved::<4>("body.reserved")?;
    Ok(BufferDesc { size, usage })
}

pub(super) fn write_image(body: &mut Writer, desc: &ImageDesc) {
    let ImageDesc {
        kind,
        format,
        extent: Extent { width, height, depth },
        layers,
        levels,
        samples,
        tiling,
        usage,
        mutable_format,
    } = *desc;
    body.i32(format.vulkan());
    body.u32(image_kind_number(kind));
    for value in [width, height, depth, layers, levels, samples] {
        body.u32(value);
    }
    body.u32(tiling_number(tiling));
    body.u32(usage.bits());
    body.u32(if mutable_format { MUTABLE_FORMAT } else { 0 });
}

pub(super) fn read_image(fields: &mut Reader<'_>) -> Result<ImageDesc> {
    let number = fields.i32("body.format")?;
    let format = Format::from_vulkan(number).ok_or_else(|| {
        Invalid::new("body.format", format!("VkFormat {number} is not one that can be shared"))
    })?;
    let kinds = [ImageKind::D1, ImageKind::D2, ImageKind::D3, ImageKind::Cube];
    let kind = fields.one_of("body.image_kind", &kinds, image_kind_number)?;
    let extent = Extent {
        width: fields.u32("body.width")?,
        height: fields.u32("body.height")?,
        depth: fields.u32("body.depth")?,
    };
    let layers = fields.u32("body.layers")?;
    let levels = fields.u32("body.levels")?;
    let samples = fields.u32("body.samples")?;
    let tilings = [Tiling::Optimal, Tiling::Linear];
    let tiling = fields.one_of("body.tiling", &tilings, tiling_number)?;
    let bits = fields.u32("body.usage")?;
    let usage = ImageUsage::from_bits(bits)
        .ok_or_else(|| unknown_usage(bits, ImageUsage::all().bits(), "image"))?;
    let flags = |mutable_format| if mutable_format { MUTABLE_FORMAT } else { 0 };
    let mutable_format = fields.one_of("body.flags", &[false, true], flags)?;
    Ok(ImageDesc { kind, format, extent, layers, levels, samples, tiling, usage, mutable_format })
}

fn unknown_usage(bits: u32, known: u32, what: &str) -> Invalid {
    Invalid::new("body.usage", format!("{:#x} is not a known {what} usage", bits & !known))
        .help("the peer may use a newer release")
}

pub(super) fn write_linear(body: &mut Writer, linear: Option<&LinearLayout>) {
    body.flag(linear.is_some());
    body.reserved::<3>();
    let values = linear.map_or([0; 4], |linear| {
        let LinearLayout { offset, row_pitch, depth_pitch, array_pitch } = *linear;
        [offset, row_pitch, depth_pitch, array_pitch]
    });
    values.into_iter().for_each(|value| body.u64(value));
}

pub(super) fn read_linear(fields: &mut Reader<'_>) -> Result<Option<LinearLayout>> {
    let present = fields.flag("body.has_linear_layout")?;
    fields.reserved::<3>("body.reserved")?;
    let mut value = |field| {
        let value = fields.optional(field, present, Reader::u64)?;
        Ok::<_, crate::Error>(value.unwrap_or_default())
    };
    let linear = LinearLayout {
        offset: value("body.linear_offset")?,
        row_pitch: value("body.row_pitch")?,
        depth_pitch: value("body.depth_pitch")?,
        array_pitch: value("body.array_pitch")?,
    };
    Ok(present.then_some(linear))
}

//! The bodies of payload messages: memory and semaphore blocks, descriptions, linear layouts.

use super::fields::{Reader, Writer};
use crate::desc::{
    BufferDesc, BufferUsage, Extent, ImageDesc, ImageFlags, ImageKind, ImageUsage, Origin, Tiling,
    ViewFormats,
};
use crate::error::{Invalid, Result};
use crate::fd::{MemoryHandleType, SemaphoreHandleType};
use crate::format::{Aspects, CudaFormat, Format, GlFormat, RawFormat};
use crate::identity::{Identity, Uuid};
use crate::payload::{LinearLayout, MemoryInfo, SemaphoreInfo, SemaphoreKind};

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
    let usage = BufferUsage::from_bits_retain(fields.u32("body.usage")?);
    fields.reserved::<4>("body.reserved")?;
    Ok(BufferDesc { size, usage })
}

/// Writes the fields of an image up to its flags. [`write_linear`] follows.
pub(super) fn write_image(body: &mut Writer, desc: &ImageDesc) {
    let Extent { width, height, depth } = desc.extent;
    body.i32(desc.format.vulkan());
    body.u32(image_kind_number(desc.kind));
    for value in [width, height, depth, desc.layers, desc.levels, desc.samples] {
        body.u32(value);
    }
    body.u32(tiling_number(desc.tiling));
    body.u32(desc.usage.bits());
    body.u32(desc.flags.bits());
}

/// Reads what `write_image` wrote. [`read_linear`] completes it.
pub(super) fn read_image(fields: &mut Reader<'_>) -> Result<ImageDesc> {
    // The number of the format, until the reader knows whether a raw format follows.
    let format = RawFormat::new(fields.i32("body.format")?, 0).into();
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
    let usage = ImageUsage::from_bits_retain(fields.u32("body.usage")?);
    let flags = ImageFlags::from_bits_retain(fields.u32("body.flags")?);
    let plain = ImageDesc::d2(format, 0, 0, usage);
    Ok(ImageDesc { kind, extent, layers, levels, samples, tiling, flags, ..plain })
}

/// Writes an image's linear layout, and the fields that only some images have.
pub(super) fn write_linear(body: &mut Writer, desc: &ImageDesc, linear: Option<&LinearLayout>) {
    body.flag(linear.is_some());
    body.flag(desc.origin == Origin::LowerLeft);
    let views = desc.view_formats.as_slice();
    // At most `ViewFormats::MAX`.
    body.bytes(&[views.len() as u8]);
    body.flag(matches!(desc.format, Format::Raw(_)));
    let values = linear.map_or([0; 4], |linear| {
        let LinearLayout { offset, row_pitch, depth_pitch, array_pitch } = *linear;
        [offset, row_pitch, depth_pitch, array_pitch]
    });
    values.into_iter().for_each(|value| body.u64(value));
    body.appendix();
    views.iter().for_each(|&format| body.i32(format));
    if let Format::Raw(raw) = desc.format {
        write_raw_format(body, &raw);
    }
}

/// Reads what [`write_linear`] wrote, into `desc` and as the layout.
pub(super) fn read_linear(
    fields: &mut Reader<'_>,
    desc: &mut ImageDesc,
) -> Result<Option<LinearLayout>> {
    let present = fields.flag("body.has_linear_layout")?;
    desc.origin = if fields.flag("body.origin")? { Origin::LowerLeft } else { Origin::UpperLeft };
    let [views] = fields.array("body.view_formats")?;
    let has_raw_format = fields.flag("body.has_raw_format")?;
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
    fields.appendix();
    if usize::from(views) > ViewFormats::MAX {
        let problem = format!("{views} formats, but an image has at most {}", ViewFormats::MAX);
        return Err(Invalid::new("body.view_formats", problem).into());
    }
    let views = (0..views).map(|_| fields.i32("body.view_format")).collect::<Result<Vec<_>>>()?;
    desc.view_formats = ViewFormats::from_raw(&views)?;
    let number = desc.format.vulkan();
    desc.format = if has_raw_format {
        read_raw_format(fields, number)?.into()
    } else {
        Format::from_vulkan(number).ok_or_else(|| {
            let problem = format!("VkFormat {number} is not in this version's table");
            Invalid::new("body.format", problem).help("the exporter may use a newer release")
        })?
    };
    Ok(present.then_some(linear))
}

fn write_raw_format(body: &mut Writer, raw: &RawFormat) {
    let RawFormat { block_bytes, block_extent: (width, height), aspects, gl, cuda, .. } = *raw;
    for value in [block_bytes, width, height, aspects.bits()] {
        body.u32(value);
    }
    body.flag(gl.is_some());
    body.flag(cuda.is_some());
    body.reserved::<2>();
    let gl = gl.map_or([0; 3], |GlFormat { internal, format, ty }| [internal, format, ty]);
    let cuda =
        cuda.map_or([0; 2], |CudaFormat { array_format, channels }| [array_format, channels]);
    gl.into_iter().chain(cuda).for_each(|value| body.u32(value));
}

fn read_raw_format(fields: &mut Reader<'_>, vulkan: i32) -> Result<RawFormat> {
    let block_bytes = fields.u32("body.block_bytes")?;
    let (width, height) = (fields.u32("body.block_width")?, fields.u32("body.block_height")?);
    let aspects = Aspects::from_bits_retain(fields.u32("body.aspects")?);
    let has_gl = fields.flag("body.has_gl_format")?;
    let has_cuda = fields.flag("body.has_cuda_format")?;
    fields.reserved::<2>("body.reserved")?;
    let mut value = |field, present| {
        let value = fields.optional(field, present, Reader::u32)?;
        Ok::<_, crate::Error>(value.unwrap_or_default())
    };
    let gl = GlFormat {
        internal: value("body.gl_internal_format", has_gl)?,
        format: value("body.gl_format", has_gl)?,
        ty: value("body.gl_type", has_gl)?,
    };
    let cuda = CudaFormat {
        array_format: value("body.cuda_array_format", has_cuda)?,
        channels: value("body.cuda_channels", has_cuda)?,
    };
    let mut raw = RawFormat::new(vulkan, block_bytes).with_block_extent(width, height);
    (raw.aspects, raw.gl, raw.cuda) = (aspects, has_gl.then_some(gl), has_cuda.then_some(cuda));
    Ok(raw)
}

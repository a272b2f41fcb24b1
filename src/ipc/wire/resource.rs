//! Buffer and image descriptions, and the layout of linear images, on the wire.

use super::fields::Fields;
use super::message::{optional, unknown};
use crate::desc::{BufferDesc, BufferUsage, Extent, ImageDesc, ImageKind, ImageUsage, Tiling};
use crate::error::{Invalid, Result};
use crate::format::Format;
use crate::payload::LinearLayout;

/// `VK_IMAGE_CREATE_MUTABLE_FORMAT_BIT`.
const MUTABLE_FORMAT: u32 = 0x8;

pub(crate) fn put_buffer(bytes: &mut Vec<u8>, desc: &BufferDesc) {
    let BufferDesc { size, usage } = desc;
    bytes.extend(size.to_le_bytes());
    bytes.extend(usage.bits().to_le_bytes());
    bytes.extend([0; 4]);
}

pub(crate) fn buffer(fields: &mut Fields<'_>) -> Result<BufferDesc> {
    let size = fields.u64("body.size")?;
    let bits = fields.u32("body.usage")?;
    let usage = BufferUsage::from_bits(bits)
        .ok_or_else(|| unknown_bits(bits, BufferUsage::all().bits(), "buffer"))?;
    fields.reserved::<4>("body.reserved")?;
    Ok(BufferDesc { size, usage })
}

pub(crate) fn put_image(bytes: &mut Vec<u8>, desc: &ImageDesc) {
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
    } = desc;
    let kind: u32 = match kind {
        ImageKind::D1 => 0,
        ImageKind::D2 => 1,
        ImageKind::D3 => 2,
        ImageKind::Cube => 3,
    };
    let tiling: u32 = match tiling {
        Tiling::Optimal => 0,
        Tiling::Linear => 1,
    };
    let flags = if *mutable_format { MUTABLE_FORMAT } else { 0 };
    bytes.extend(format.vulkan().to_le_bytes());
    for value in [kind, *width, *height, *depth, *layers, *levels, *samples, tiling] {
        bytes.extend(value.to_le_bytes());
    }
    for value in [usage.bits(), flags] {
        bytes.extend(value.to_le_bytes());
    }
}

pub(crate) fn image(fields: &mut Fields<'_>) -> Result<ImageDesc> {
    let number = fields.i32("body.format")?;
    let format = Format::from_vulkan(number).ok_or_else(|| {
        Invalid::new("body.format", format!("VkFormat {number} is none that can be shared"))
    })?;
    let kind = match fields.u32("body.image_kind")? {
        0 => ImageKind::D1,
        1 => ImageKind::D2,
        2 => ImageKind::D3,
        3 => ImageKind::Cube,
        other => return Err(unknown("body.image_kind", other, "image kind")),
    };
    let extent = Extent {
        width: fields.u32("body.width")?,
        height: fields.u32("body.height")?,
        depth: fields.u32("body.depth")?,
    };
    let layers = fields.u32("body.layers")?;
    let levels = fields.u32("body.levels")?;
    let samples = fields.u32("body.samples")?;
    let tiling = match fields.u32("body.tiling")? {
        0 => Tiling::Optimal,
        1 => Tiling::Linear,
        other => return Err(unknown("body.tiling", other, "tiling")),
    };
    let bits = fields.u32("body.usage")?;
    let usage = ImageUsage::from_bits(bits)
        .ok_or_else(|| unknown_bits(bits, ImageUsage::all().bits(), "image"))?;
    let mutable_format = match fields.u32("body.flags")? {
        0 => false,
        MUTABLE_FORMAT => true,
        other => return Err(unknown("body.flags", other, "set of image flags")),
    };
    Ok(ImageDesc { kind, format, extent, layers, levels, samples, tiling, usage, mutable_format })
}

pub(crate) fn put_linear(bytes: &mut Vec<u8>, linear: Option<&LinearLayout>) {
    bytes.push(u8::from(linear.is_some()));
    bytes.extend([0; 3]);
    let values = linear.map_or([0; 4], |linear| {
        let LinearLayout { offset, row_pitch, depth_pitch, array_pitch } = *linear;
        [offset, row_pitch, depth_pitch, array_pitch]
    });
    for value in values {
        bytes.extend(value.to_le_bytes());
    }
}

pub(crate) fn linear(fields: &mut Fields<'_>) -> Result<Option<LinearLayout>> {
    let has = fields.flag("body.has_linear_layout")?;
    fields.reserved::<3>("body.reserved")?;
    let mut value = |field| {
        let value = fields.u64(field)?;
        optional(field, has, value, 0).map(Option::unwrap_or_default)
    };
    let linear = LinearLayout {
        offset: value("body.linear_offset")?,
        row_pitch: value("body.row_pitch")?,
        depth_pitch: value("body.depth_pitch")?,
        array_pitch: value("body.array_pitch")?,
    };
    Ok(has.then_some(linear))
}

fn unknown_bits(bits: u32, known: u32, what: &str) -> Invalid {
    Invalid::new("body.usage", format!("{:#x} names no known {what} usage", bits & !known))
}

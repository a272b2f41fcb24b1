//! Hostile peers: corrupted images.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use anyhow::{Context, Result, bail};
use gpu_interop::desc::{Extent, ImageFlags, Tiling};
use gpu_interop::format::{Format, RawFormat};
use gpu_interop::ipc::wire::Message;
use gpu_interop::payload::{LinearLayout, MemoryInfo, Payload};
use gpu_interop::vulkan::ImageOptions;
use gpu_interop::{Error, ImageDesc, ImageUsage, Uuid};

use crate::cases::hostile::peer::{
    self, ANY_FIELD, Corruption, DetectedBy, HostilePeer, RawMessage, for_each_corruption, pipe,
};
use crate::cases::support::fds::check_same_fd;
use crate::cases::support::views::AnyContext;
use crate::harness::{Case, Need, Role, TestGpu};
use interop_gpu::image::{SIZES, Shape};

pub(in crate::cases) fn cases() -> Vec<Case> {
    let cases = for_each_corruption(CORRUPTIONS, "21o", meet).into_iter();
    cases.map(|(importer, _, case)| case.needs(&[Need::Image(importer.api(), desc())])).collect()
}

const CORRUPTS: &str = "corrupts an image";

/// The child of these cases.
pub(in crate::cases) fn roles() -> Vec<Role> {
    vec![(CORRUPTS, || peer::corrupt(CORRUPTIONS))]
}

fn desc() -> ImageDesc {
    Shape::D2.desc(Format::Rgba8Unorm, Tiling::Optimal, SIZES[0], ImageUsage::SAMPLED)
}

/// Corruptions of an image.
const CORRUPTIONS: &[Corruption] = &[
    ("image/an_unknown_format", unknown_format, DetectedBy::Receiving("body.format")),
    ("image/a_format_that_is_no_attachment", depth, DetectedBy::Receiving("desc.usage")),
    ("image/an_unknown_kind", unknown_kind, DetectedBy::Receiving("body.image_kind")),
    ("image/an_unknown_tiling", unknown_tiling, DetectedBy::Receiving("body.tiling")),
    ("image/a_raw_format_of_no_bytes", no_bytes, DetectedBy::Receiving("desc.format")),
    ("image/a_format_that_no_vulkan_has", no_format, DetectedBy::Receiving("desc.format")),
    ("image/sparse_memory", sparse, DetectedBy::Receiving("desc.flags")),
    ("image/more_view_formats_than_fit", views, DetectedBy::Receiving("body.view_formats")),
    ("image/no_width", no_width, DetectedBy::Receiving("desc.extent.width")),
    ("image/more_levels_than_there_are", levels, DetectedBy::Receiving("desc.levels")),
    ("image/an_offset_beyond_the_allocation", far, DetectedBy::Receiving("offset")),
    ("image/rows_of_an_optimal_image", rows, DetectedBy::Receiving("payload.linear")),
    ("image/rows_beyond_the_allocation", long_rows, DetectedBy::Receiving("payload.linear")),
    ("image/larger_than_its_memory", larger, DetectedBy::Importing(ANY_FIELD)),
    ("image/texels_larger_than_its_memory", texels, DetectedBy::Importing(ANY_FIELD)),
    ("image/another_device_uuid", device, DetectedBy::Importing("device UUID")),
    (
        "image/a_pipe",
        |message, _| Ok(RawMessage::new(&message, pipe()?)),
        DetectedBy::Receiving("payload.fd"),
    ),
];

/// Changes the image's description.
fn image(mut message: Message, change: impl FnOnce(&mut ImageDesc)) -> Result<Message> {
    let Message::Image { desc, .. } = &mut message else { bail!("not an image") };
    change(desc);
    Ok(message)
}

fn unknown_format(message: Message, fd: OwnedFd) -> Result<RawMessage> {
    // VK_FORMAT_R4G4_UNORM_PACK8
    Ok(RawMessage::new(&message, fd).with_body(64, &[1]))
}

fn unknown_kind(message: Message, fd: OwnedFd) -> Result<RawMessage> {
    Ok(RawMessage::new(&message, fd).with_body(68, &[9]))
}

fn unknown_tiling(message: Message, fd: OwnedFd) -> Result<RawMessage> {
    Ok(RawMessage::new(&message, fd).with_body(96, &[2]))
}

fn depth(message: Message, fd: OwnedFd) -> Result<RawMessage> {
    let message = image(message, |desc| {
        desc.format = Format::D32Float;
        desc.usage = ImageUsage::COLOR_ATTACHMENT;
    })?;
    Ok(RawMessage::new(&message, fd))
}

/// A raw format, which the importer's table need not have.
fn raw(message: Message, fd: OwnedFd, raw: RawFormat) -> Result<RawMessage> {
    Ok(RawMessage::new(&image(message, |desc| desc.format = raw.into())?, fd))
}

fn no_bytes(message: Message, fd: OwnedFd) -> Result<RawMessage> {
    raw(message, fd, RawFormat::new(Format::Rgba8Unorm.vulkan(), 0))
}

fn no_format(message: Message, fd: OwnedFd) -> Result<RawMessage> {
    raw(message, fd, RawFormat::new(i32::MAX, 4))
}

fn sparse(message: Message, fd: OwnedFd) -> Result<RawMessage> {
    let sparse = |desc: &mut ImageDesc| desc.flags = ImageFlags::from_bits_retain(1);
    Ok(RawMessage::new(&image(message, sparse)?, fd))
}

fn views(message: Message, fd: OwnedFd) -> Result<RawMessage> {
    Ok(RawMessage::new(&message, fd).with_body(110, &[9]))
}

fn no_width(message: Message, fd: OwnedFd) -> Result<RawMessage> {
    Ok(RawMessage::new(&image(message, |desc| desc.extent.width = 0)?, fd))
}

fn levels(message: Message, fd: OwnedFd) -> Result<RawMessage> {
    Ok(RawMessage::new(&image(message, |desc| desc.levels = 32)?, fd))
}

fn larger(message: Message, fd: OwnedFd) -> Result<RawMessage> {
    let wider = |desc: &mut ImageDesc| {
        desc.extent = Extent { width: 8 * desc.extent.width, ..desc.extent };
    };
    Ok(RawMessage::new(&image(message, wider)?, fd))
}

fn texels(message: Message, fd: OwnedFd) -> Result<RawMessage> {
    Ok(RawMessage::new(&image(message, |desc| desc.format = Format::Rgba32Float)?, fd))
}

fn far(mut message: Message, fd: OwnedFd) -> Result<RawMessage> {
    let Message::Image { memory, offset, .. } = &mut message else { bail!("not an image") };
    *offset = memory.allocation_size;
    Ok(RawMessage::new(&message, fd))
}

fn rows(mut message: Message, fd: OwnedFd) -> Result<RawMessage> {
    let Message::Image { linear, .. } = &mut message else { bail!("not an image") };
    *linear = Some(LinearLayout { offset: 0, row_pitch: 512, depth_pitch: 0, array_pitch: 0 });
    Ok(RawMessage::new(&message, fd))
}

fn long_rows(message: Message, fd: OwnedFd) -> Result<RawMessage> {
    let mut message = image(message, |desc| desc.tiling = Tiling::Linear)?;
    let Message::Image { linear, .. } = &mut message else { bail!("not an image") };
    let row_pitch = u64::MAX;
    *linear = Some(LinearLayout { offset: 0, row_pitch, depth_pitch: 0, array_pitch: 0 });
    Ok(RawMessage::new(&message, fd))
}

fn device(mut message: Message, fd: OwnedFd) -> Result<RawMessage> {
    let Message::Image { memory: MemoryInfo { identity, .. }, .. } = &mut message else {
        bail!("not an image")
    };
    identity.device = Uuid::from_bytes([7; 16]);
    Ok(RawMessage::new(&message, fd))
}

/// Receives the corrupted image; the valid one that follows is imported.
fn meet(
    test_gpu: &TestGpu,
    importer: &dyn AnyContext,
    what: &str,
    detected_by: DetectedBy,
) -> Result<()> {
    let options = ImageOptions::default();
    let valid = test_gpu.vulkan().endpoint.create_image(&desc(), options)?.export()?;
    let import = |received: Payload| -> Result<Error> {
        let payload = received.into_image()?;
        let raw = payload.memory().as_fd().as_raw_fd();
        let refused = importer.try_image(payload).err().context("it was imported")?;
        let (payload, error) = refused.into_parts();
        check_same_fd(&payload, raw)?;
        Ok(error)
    };
    HostilePeer::start(CORRUPTS, what, valid)?
        .meet(detected_by, import, |valid| Ok(importer.try_image(valid.into_image()?)?))
}

//! Group B over a socket: lies about an image.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use anyhow::{Context, Result, bail, ensure};
use gpu_interop::desc::{Extent, Tiling};
use gpu_interop::format::Format;
use gpu_interop::ipc::Received;
use gpu_interop::ipc::wire::Message;
use gpu_interop::payload::{LinearLayout, MemoryInfo};
use gpu_interop::vulkan::ImageOptions;
use gpu_interop::{Error, ImageDesc, ImagePayload, ImageUsage, ImportError, Uuid};

use crate::cases::descriptors::{is_open, leaves_nothing_open};
use crate::cases::hostile::{ANY_FIELD, Corruption, DetectedBy, HostilePeer, RawMessage, pipe};
use crate::cases::support::importers::{Importer, Peer};
use crate::harness::{Case, Need, TestGpu};
use interop_gpu::image::{SIZES, Shape};

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for importer in Importer::ALL {
        for &(what, _, found) in LIES {
            let name = format!("ipc/hostile/{}/{what}/21o", importer.name());
            let run = move |machine: &TestGpu| {
                let peer = importer.open(machine)?;
                leaves_nothing_open(|| meet(machine, peer, what, found))
            };
            let image = [Need::Image(importer.api(), desc())];
            cases.push(Case::new(name, run).needs(importer.needs()).needs(&image));
        }
    }
    cases
}

fn desc() -> ImageDesc {
    Shape::D2.desc(Format::Rgba8Unorm, Tiling::Optimal, SIZES[0], ImageUsage::SAMPLED)
}

/// Lies about an image.
pub(crate) const LIES: &[Corruption] = &[
    ("image/an_unknown_format", unknown_format, DetectedBy::Receiving("body.format")),
    ("image/a_format_that_is_no_attachment", depth, DetectedBy::Receiving("desc.usage")),
    ("image/an_unknown_kind", unknown_kind, DetectedBy::Receiving("body.image_kind")),
    ("image/an_unknown_tiling", unknown_tiling, DetectedBy::Receiving("body.tiling")),
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
        |lie, _| Ok(RawMessage::message(&lie, pipe()?)),
        DetectedBy::Receiving("payload.fd"),
    ),
];

/// The message with what `change` makes of the image's description.
fn image(mut lie: Message, change: impl FnOnce(&mut ImageDesc)) -> Result<Message> {
    let Message::Image { desc, .. } = &mut lie else { bail!("no image") };
    change(desc);
    Ok(lie)
}

fn unknown_format(lie: Message, fd: OwnedFd) -> Result<RawMessage> {
    // VK_FORMAT_R4G4_UNORM_PACK8
    Ok(RawMessage::message(&lie, fd).with_body(64, &[1]))
}

fn unknown_kind(lie: Message, fd: OwnedFd) -> Result<RawMessage> {
    Ok(RawMessage::message(&lie, fd).with_body(68, &[9]))
}

fn unknown_tiling(lie: Message, fd: OwnedFd) -> Result<RawMessage> {
    Ok(RawMessage::message(&lie, fd).with_body(96, &[2]))
}

fn depth(lie: Message, fd: OwnedFd) -> Result<RawMessage> {
    let lie = image(lie, |desc| {
        desc.format = Format::D32Float;
        desc.usage = ImageUsage::COLOR_ATTACHMENT;
    })?;
    Ok(RawMessage::message(&lie, fd))
}

fn no_width(lie: Message, fd: OwnedFd) -> Result<RawMessage> {
    Ok(RawMessage::message(&image(lie, |desc| desc.extent.width = 0)?, fd))
}

fn levels(lie: Message, fd: OwnedFd) -> Result<RawMessage> {
    Ok(RawMessage::message(&image(lie, |desc| desc.levels = 32)?, fd))
}

fn larger(lie: Message, fd: OwnedFd) -> Result<RawMessage> {
    let wider = |desc: &mut ImageDesc| {
        desc.extent = Extent { width: 8 * desc.extent.width, ..desc.extent };
    };
    Ok(RawMessage::message(&image(lie, wider)?, fd))
}

fn texels(lie: Message, fd: OwnedFd) -> Result<RawMessage> {
    Ok(RawMessage::message(&image(lie, |desc| desc.format = Format::Rgba32Float)?, fd))
}

fn far(mut lie: Message, fd: OwnedFd) -> Result<RawMessage> {
    let Message::Image { memory, offset, .. } = &mut lie else { bail!("no image") };
    *offset = memory.allocation_size;
    Ok(RawMessage::message(&lie, fd))
}

fn rows(mut lie: Message, fd: OwnedFd) -> Result<RawMessage> {
    let Message::Image { linear, .. } = &mut lie else { bail!("no image") };
    *linear = Some(LinearLayout { offset: 0, row_pitch: 512, depth_pitch: 0, array_pitch: 0 });
    Ok(RawMessage::message(&lie, fd))
}

fn long_rows(lie: Message, fd: OwnedFd) -> Result<RawMessage> {
    let mut lie = image(lie, |desc| desc.tiling = Tiling::Linear)?;
    let Message::Image { linear, .. } = &mut lie else { bail!("no image") };
    let row_pitch = u64::MAX;
    *linear = Some(LinearLayout { offset: 0, row_pitch, depth_pitch: 0, array_pitch: 0 });
    Ok(RawMessage::message(&lie, fd))
}

fn device(mut lie: Message, fd: OwnedFd) -> Result<RawMessage> {
    let Message::Image { memory: MemoryInfo { identity, .. }, .. } = &mut lie else {
        bail!("no image")
    };
    identity.device = Uuid::from_bytes([7; 16]);
    Ok(RawMessage::message(&lie, fd))
}

/// What imports images, and drops them again.
fn import(peer: Peer<'_>, payload: ImagePayload) -> Result<(), ImportError<ImagePayload>> {
    match peer {
        Peer::Vulkan(gpu) => gpu.endpoint.import_image(payload).map(drop),
        Peer::Gl(gpu) => gpu.endpoint.import_image(payload).map(drop),
        Peer::Cuda(gpu) => gpu.endpoint.import_image(payload).map(drop),
    }
}

/// Meets the lie; the truth that follows is imported.
fn meet(machine: &TestGpu, peer: Peer<'_>, what: &str, found: DetectedBy) -> Result<()> {
    let options = ImageOptions::default();
    let truth = machine.vulkan().endpoint.create_image(&desc(), options)?.export()?;
    let importing = |received: Received| -> Result<Error> {
        let payload = received.into_image()?;
        let raw = payload.memory().as_fd().as_raw_fd();
        let refused = import(peer, payload).err().context("it was imported")?;
        let (payload, error) = refused.into_parts();
        let back = payload.memory().as_fd().as_raw_fd();
        ensure!(back == raw && is_open(raw), "another descriptor came back");
        Ok(error)
    };
    HostilePeer::start(what, &truth)?
        .meet(found, importing, |truth| Ok(import(peer, truth.into_image()?)?))
}

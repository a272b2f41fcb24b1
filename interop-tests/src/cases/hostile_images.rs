//! Group B over a socket: lies about an image.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use anyhow::{Context, Result, bail, ensure};
use gpu_interop::format::Format;
use gpu_interop::ipc::Received;
use gpu_interop::ipc::wire::Message;
use gpu_interop::payload::{LinearLayout, MemoryInfo};
use gpu_interop::resource::{Extent, Tiling};
use gpu_interop::vulkan::ImageOptions;
use gpu_interop::{Error, ImageDesc, ImagePayload, ImageUsage, ImportError, Uuid};

use super::descriptors::{is_open, leaves_nothing_open};
use super::hostile::{ANY_FIELD, Found, Liar, Lie, Told, pipe};
use super::importers::{Importer, Peer};
use crate::rig::image::{SIZES, Shape};
use crate::suite::{Case, Machine, Need};

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for importer in Importer::ALL {
        for &(what, _, found) in LIES {
            let name = format!("ipc/hostile/{}/{what}/21o", importer.name());
            let run = move |machine: &Machine| {
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
pub(super) const LIES: &[Lie] = &[
    ("image/an_unknown_format", unknown_format, Found::Receiving("body.format")),
    ("image/a_format_that_is_no_attachment", depth, Found::Receiving("desc.usage")),
    ("image/an_unknown_kind", unknown_kind, Found::Receiving("body.image_kind")),
    ("image/an_unknown_tiling", unknown_tiling, Found::Receiving("body.tiling")),
    ("image/no_width", no_width, Found::Receiving("desc.extent.width")),
    ("image/more_levels_than_there_are", levels, Found::Receiving("desc.levels")),
    ("image/an_offset_beyond_the_allocation", far, Found::Receiving("offset")),
    ("image/rows_of_an_optimal_image", rows, Found::Receiving("payload.linear")),
    ("image/rows_beyond_the_allocation", long_rows, Found::Receiving("payload.linear")),
    ("image/larger_than_its_memory", larger, Found::Importing(ANY_FIELD)),
    ("image/texels_larger_than_its_memory", texels, Found::Importing(ANY_FIELD)),
    ("image/another_device_uuid", device, Found::Importing("device UUID")),
    ("image/a_pipe", |lie, _| Ok(Told::message(&lie, pipe()?)), Found::Receiving("payload.fd")),
];

/// The message with what `change` makes of the image's description.
fn image(mut lie: Message, change: impl FnOnce(&mut ImageDesc)) -> Result<Message> {
    let Message::Image { desc, .. } = &mut lie else { bail!("no image") };
    change(desc);
    Ok(lie)
}

fn unknown_format(lie: Message, fd: OwnedFd) -> Result<Told> {
    // VK_FORMAT_R4G4_UNORM_PACK8
    Ok(Told::message(&lie, fd).with_body(64, &[1]))
}

fn unknown_kind(lie: Message, fd: OwnedFd) -> Result<Told> {
    Ok(Told::message(&lie, fd).with_body(68, &[9]))
}

fn unknown_tiling(lie: Message, fd: OwnedFd) -> Result<Told> {
    Ok(Told::message(&lie, fd).with_body(96, &[2]))
}

fn depth(lie: Message, fd: OwnedFd) -> Result<Told> {
    let lie = image(lie, |desc| {
        desc.format = Format::D32Float;
        desc.usage = ImageUsage::COLOR_ATTACHMENT;
    })?;
    Ok(Told::message(&lie, fd))
}

fn no_width(lie: Message, fd: OwnedFd) -> Result<Told> {
    Ok(Told::message(&image(lie, |desc| desc.extent.width = 0)?, fd))
}

fn levels(lie: Message, fd: OwnedFd) -> Result<Told> {
    Ok(Told::message(&image(lie, |desc| desc.levels = 32)?, fd))
}

fn larger(lie: Message, fd: OwnedFd) -> Result<Told> {
    let wider = |desc: &mut ImageDesc| {
        desc.extent = Extent { width: 8 * desc.extent.width, ..desc.extent };
    };
    Ok(Told::message(&image(lie, wider)?, fd))
}

fn texels(lie: Message, fd: OwnedFd) -> Result<Told> {
    Ok(Told::message(&image(lie, |desc| desc.format = Format::Rgba32Float)?, fd))
}

fn far(mut lie: Message, fd: OwnedFd) -> Result<Told> {
    let Message::Image { memory, offset, .. } = &mut lie else { bail!("no image") };
    *offset = memory.allocation_size;
    Ok(Told::message(&lie, fd))
}

fn rows(mut lie: Message, fd: OwnedFd) -> Result<Told> {
    let Message::Image { linear, .. } = &mut lie else { bail!("no image") };
    *linear = Some(LinearLayout { offset: 0, row_pitch: 512, depth_pitch: 0, array_pitch: 0 });
    Ok(Told::message(&lie, fd))
}

fn long_rows(lie: Message, fd: OwnedFd) -> Result<Told> {
    let mut lie = image(lie, |desc| desc.tiling = Tiling::Linear)?;
    let Message::Image { linear, .. } = &mut lie else { bail!("no image") };
    let row_pitch = u64::MAX;
    *linear = Some(LinearLayout { offset: 0, row_pitch, depth_pitch: 0, array_pitch: 0 });
    Ok(Told::message(&lie, fd))
}

fn device(mut lie: Message, fd: OwnedFd) -> Result<Told> {
    let Message::Image { memory: MemoryInfo { identity, .. }, .. } = &mut lie else {
        bail!("no image")
    };
    identity.device = Uuid::from_bytes([7; 16]);
    Ok(Told::message(&lie, fd))
}

/// What imports images, and drops them again.
fn import(peer: Peer<'_>, payload: ImagePayload) -> Result<(), ImportError<ImagePayload>> {
    match peer {
        Peer::Vulkan(rig) => rig.endpoint.import_image(payload).map(drop),
        Peer::Gl(rig) => rig.endpoint.import_image(payload).map(drop),
        Peer::Cuda(rig) => rig.endpoint.import_image(payload).map(drop),
    }
}

/// Meets the lie; the truth that follows is imported.
fn meet(machine: &Machine, peer: Peer<'_>, what: &str, found: Found) -> Result<()> {
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
    Liar::start(what, &truth)?
        .meet(found, importing, |truth| Ok(import(peer, truth.into_image()?)?))
}

//! Group G: images in a session, with their layouts in the frames.

use anyhow::{Context, Result, ensure};
use gpu_interop::ash::vk::ImageLayout;
use gpu_interop::format::Format;
use gpu_interop::ipc::session::{
    Consumer, End, FrameInfo, JoinOptions, Layouts, Producer, ProducerOptions, Ring,
};
use gpu_interop::resource::Tiling;
use gpu_interop::vulkan::{Image, ImageOptions};
use gpu_interop::{Api, Error, ImageDesc};

use super::images_vulkan::USAGE;
use super::session_peers::{PATIENCE, Peer, directory, setting};
use crate::rig::image::{SIZES, Shape};
use crate::rig::vulkan::{ImageIo, VulkanRig};
use crate::suite::{Case, Machine, Need, Role};

const FRAMES: u64 = 20;

pub(super) fn cases() -> Vec<Case> {
    [(Tiling::Optimal, "60e"), (Tiling::Linear, "60f")]
        .map(|(tiling, row)| {
            let desc = Shape::D2.desc(Format::Rgba8Unorm, tiling, SIZES[0], USAGE);
            let tiled = format!("{tiling:?}").to_lowercase();
            let name = format!("vulkan→vulkan/opaque_fd/session/images/{tiled}/{row}");
            Case::new(name, move |machine| images(machine, &desc))
                .needs(&[Need::Image(Api::Vulkan, desc)])
        })
        .into()
}

const LOOKS: &str = "looks at images";

/// What the children of these cases do.
pub(super) fn roles() -> Vec<Role> {
    vec![(LOOKS, looks)]
}

/// Each frame is uploaded anew, released to outside with the layouts that its token says, and read in
/// another process.
fn images(machine: &Machine, desc: &ImageDesc) -> Result<()> {
    let (rig, directory) = (machine.vulkan(), directory()?);
    let path = directory.path().join("socket");
    let (mut ring, mut images) = (Ring::new("images", ""), Vec::new());
    for _ in 0..2 {
        let image = rig.endpoint.create_image(desc, ImageOptions::default())?;
        ring = ring.slot(image.export()?);
        images.push((ImageIo::new(rig, &image)?, image));
    }
    let mut producer = Producer::bind(&path, ring, ProducerOptions::default())?;
    let child = Peer::start(machine, LOOKS, &path, None)?;
    producer.wait_for_consumers(1, PATIENCE)?;
    for tag in 1..=FRAMES {
        let slot = producer.free_slot(PATIENCE)?;
        let (staging, image) = &images[slot.index()];
        let (old, new) = draw(rig, staging, image, tag as u32)?;
        let layouts = Some(Layouts { old: old.as_raw(), new: new.as_raw() });
        producer.publish(slot, FrameInfo { layouts, tag, point: None })?;
    }
    producer.finish(PATIENCE)?;
    let said = child.end()?;
    ensure!(said == FRAMES.to_string(), "{said} frames of {FRAMES}");
    Ok(())
}

/// Uploads and releases; the layouts of the release.
fn draw(
    rig: &VulkanRig,
    staging: &ImageIo,
    image: &Image,
    seed: u32,
) -> Result<(ImageLayout, ImageLayout)> {
    staging.fill(seed)?;
    let layouts = (staging.upload_layout(), staging.download_layout());
    rig.run(|command| {
        rig.record_layout(command, image, (ImageLayout::UNDEFINED, layouts.0));
        staging.record_upload(rig, command, image);
        let used = staging.uploaded(image, layouts.1);
        let family = rig.vulkan.queue_family();
        // SAFETY: the command buffer is being recorded for a queue of that family, which owns the
        // image since its content was given up, and the image is in the layout it was uploaded in.
        unsafe { rig.endpoint.record_release(command, family, &[used]) }?;
        Ok(())
    })?;
    Ok(layouts)
}

/// In a child: acquires each frame's image with the layouts of its token, and checks every texel.
fn looks() -> Result<()> {
    let (rig, path, _) = setting()?;
    let options = JoinOptions { timeout: PATIENCE, ..JoinOptions::default() };
    let (mut consumer, ring) = Consumer::join(path, options)?;
    let mut images = Vec::new();
    for slot in ring.slots {
        let image = rig.endpoint.import_image(slot.into_image()?)?;
        images.push((ImageIo::new(&rig, &image)?, image));
    }
    let mut verified = 0;
    loop {
        let frame = match consumer.next_frame(PATIENCE) {
            Ok(frame) => frame,
            Err(Error::Closed { .. }) => break,
            Err(error) => return Err(error.into()),
        };
        let (staging, image) = &images[frame.slot()];
        let Layouts { old, new } = frame.layouts().context("a frame without layouts")?;
        staging.wipe()?;
        rig.run(|command| {
            let mut used = staging.downloadable(image, ImageLayout::from_raw(old));
            used.new_layout = ImageLayout::from_raw(new);
            let family = rig.vulkan.queue_family();
            // SAFETY: the command buffer is being recorded for a queue of that family; the producer
            // has released the image with these layouts, and its host has seen it done.
            unsafe { rig.endpoint.record_acquire(command, family, &[used]) }?;
            staging.record_download(&rig, command, image);
            Ok(())
        })?;
        staging.check(frame.tag() as u32)?;
        frame.release()?;
        verified += 1;
    }
    ensure!(consumer.end() == Some(End::Done), "{:?}", consumer.end());
    println!("{verified}");
    Ok(())
}

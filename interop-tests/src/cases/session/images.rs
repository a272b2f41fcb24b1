//! Images in a session, with their layouts in the frames.

use anyhow::{Context, Result, ensure};
use gpu_interop::ash::vk::ImageLayout;
use gpu_interop::desc::Tiling;
use gpu_interop::format::Format;
use gpu_interop::session::{
    Consumer, FrameInfo, JoinOptions, Layouts, Producer, ProducerOptions, Ring, SessionEnd,
};
use gpu_interop::vulkan::{Image, ImageOptions};
use gpu_interop::{Api, Error, ImageDesc};

use crate::cases::images_vulkan::USAGE;
use crate::cases::session::peers::{Child, TIMEOUT, directory, parameters};
use crate::harness::{Case, Need, Role, TestGpu};
use interop_gpu::image::{SIZES, Shape};
use interop_gpu::vulkan::{ImageIo, VulkanContext};

const FRAMES: u64 = 20;

pub(in crate::cases) fn cases() -> Vec<Case> {
    [(Tiling::Optimal, "60e"), (Tiling::Linear, "60f")]
        .map(|(tiling, row)| {
            let desc = Shape::D2.desc(Format::Rgba8Unorm, tiling, SIZES[0], USAGE);
            let tiled = format!("{tiling:?}").to_lowercase();
            let name = format!("vulkan→vulkan/opaque_fd/session/images/{tiled}/{row}");
            Case::new(name, move |test_gpu| images(test_gpu, &desc))
                .needs(&[Need::Image(Api::Vulkan, desc)])
        })
        .into()
}

const CHECKS: &str = "checks images";

/// The child of these cases.
pub(in crate::cases) fn roles() -> Vec<Role> {
    vec![(CHECKS, check)]
}

/// Each frame is uploaded, released with the layouts in its token, and read in another process.
fn images(test_gpu: &TestGpu, desc: &ImageDesc) -> Result<()> {
    let (gpu, directory) = (test_gpu.vulkan(), directory()?);
    let path = directory.path().join("socket");
    let (mut ring, mut images) = (Ring::new("images", ""), Vec::new());
    for _ in 0..2 {
        let image = gpu.endpoint.create_image(desc, ImageOptions::default())?;
        ring = ring.slot(image.export()?);
        images.push((ImageIo::new(gpu, &image)?, image));
    }
    let mut producer = Producer::bind(&path, ring, ProducerOptions::default())?;
    let child = Child::start(test_gpu, CHECKS, &path, None)?;
    producer.wait_for_consumers(1, TIMEOUT)?;
    for tag in 1..=FRAMES {
        let slot = producer.free_slot(TIMEOUT)?;
        let (staging, image) = &images[slot.index()];
        let (old, new) = draw(gpu, staging, image, tag as u32)?;
        let layouts = Some(Layouts { old: old.into(), new: new.into() });
        producer.publish(slot, FrameInfo { layouts, tag, point: None })?;
    }
    producer.finish(TIMEOUT)?;
    let verified = child.end()?;
    ensure!(verified == FRAMES.to_string(), "{verified} frames of {FRAMES}");
    Ok(())
}

/// Uploads and releases; returns the layouts of the release.
fn draw(
    gpu: &VulkanContext,
    staging: &ImageIo,
    image: &Image,
    seed: u32,
) -> Result<(ImageLayout, ImageLayout)> {
    staging.fill(seed)?;
    let layouts = (staging.upload_layout(), staging.download_layout());
    gpu.run(|command| {
        gpu.record_layout(command, image, (ImageLayout::UNDEFINED, layouts.0));
        staging.record_upload(gpu, command, image);
        let used = staging.uploaded(image, layouts.1);
        let family = gpu.vulkan.queue_family();
        // SAFETY: the command buffer is being recorded for a queue of that family, which owns the image since
        // its content was discarded; the image is in the layout of the upload.
        unsafe { gpu.endpoint.record_release(command, family, &[used]) }?;
        Ok(())
    })?;
    Ok(layouts)
}

/// In a child: acquires each frame's image with the layouts of its token, and checks every texel.
fn check() -> Result<()> {
    let (gpu, path, _) = parameters()?;
    let options = JoinOptions { timeout: TIMEOUT, ..JoinOptions::default() };
    let (mut consumer, ring) = Consumer::join(path, options)?;
    let mut images = Vec::new();
    for slot in ring.slots {
        let image = gpu.endpoint.import_image(slot.into_image()?)?;
        images.push((ImageIo::new(&gpu, &image)?, image));
    }
    let mut verified = 0;
    loop {
        let frame = match consumer.next_frame(TIMEOUT) {
            Ok(frame) => frame,
            Err(Error::Closed { .. }) => break,
            Err(error) => return Err(error.into()),
        };
        let (staging, image) = &images[frame.slot()];
        let Layouts { old, new } = frame.layouts().context("a frame without layouts")?;
        staging.wipe()?;
        gpu.run(|command| {
            let mut used = staging.downloadable(image, old.into());
            used.new_layout = Some(new);
            let family = gpu.vulkan.queue_family();
            // SAFETY: the command buffer is being recorded for a queue of that family; the producer released
            // the image with these layouts, and its host waited for that.
            unsafe { gpu.endpoint.record_acquire(command, family, &[used]) }?;
            staging.record_download(&gpu, command, image);
            Ok(())
        })?;
        staging.check(frame.tag() as u32)?;
        frame.release()?;
        verified += 1;
    }
    ensure!(consumer.end() == Some(SessionEnd::Done), "{:?}", consumer.end());
    println!("{verified}");
    Ok(())
}

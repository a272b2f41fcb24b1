//! Family M: images that are refused by a typed error before the driver sees them; payloads come back
//! unchanged.

use anyhow::{Context, Result, bail, ensure};
use gpu_interop::ash::vk::{ImageAspectFlags, ImageSubresource};
use gpu_interop::desc::{Extent, Tiling};
use gpu_interop::fd::MemoryHandleType;
use gpu_interop::format::Format;
use gpu_interop::identity::{Identity, Uuid};
use gpu_interop::payload::{ImagePayload, LinearLayout, MemoryInfo, MemoryPayload};
use gpu_interop::vulkan::{DedicatedAllocation, ImageOptions, MemoryOptions};
use gpu_interop::{Api, Error, ImageDesc, ImageUsage};

use crate::cases::images_vulkan::{USAGE, pass};
use crate::harness::{Case, Need, TestGpu, open_descriptors};
use interop_gpu::image::{SIZES, Shape};

pub(crate) fn cases() -> Vec<Case> {
    let name = |what: &str| format!("vulkan→vulkan/opaque_fd/image/{what}");
    let image = [Need::Image(Api::Vulkan, color())];
    let linear = [Need::Image(Api::Vulkan, linear())];
    vec![
        Case::new(name("capabilities_are_what_can_be_created/4"), capabilities_agree),
        Case::new(name("a_usage_that_is_not_supported_is_named/4"), usage_is_named),
        Case::new(name("over_the_limits_is_refused/4"), over_the_limits),
        Case::new(name("foreign_gpu_is_refused/3"), foreign).needs(&image),
        Case::new(name("an_image_that_does_not_fit_is_refused/33"), too_large).needs(&image),
        Case::new(name("dedicated_memory_without_its_image_is_refused/26"), dedicated_alone)
            .needs(&image),
        Case::new(name("wrong_offsets_in_memory_are_refused/33"), wrong_places).needs(&image),
        Case::new(name("linear/other_rows_are_refused/38"), other_rows).needs(&linear),
        Case::new(name("rows_of_an_optimal_image_are_refused/38"), no_rows).needs(&linear),
    ]
}

fn color() -> ImageDesc {
    Shape::D2.desc(Format::Rgba8Unorm, Tiling::Optimal, SIZES[0], USAGE)
}

fn linear() -> ImageDesc {
    Shape::D2.desc(Format::R8Unorm, Tiling::Linear, SIZES[0], USAGE)
}

/// Every format × tiling × shape × usage: if the capability supports it, it is created; if not, the capability
/// and the creation return the same error, which names the API and the format.
fn capabilities_agree(test_gpu: &TestGpu) -> Result<()> {
    let endpoint = &test_gpu.vulkan().endpoint;
    let (mut created, mut missing) = (0, 0);
    let usages = [ImageUsage::STORAGE, ImageUsage::COLOR_ATTACHMENT, USAGE];
    for &format in Format::ALL {
        for tiling in [Tiling::Optimal, Tiling::Linear] {
            for (shape, usage) in Shape::ALL.iter().flat_map(|s| usages.map(|usage| (s, usage))) {
                let desc = shape.desc(format, tiling, SIZES[0], usage);
                if desc.validate().is_err() {
                    continue;
                }
                let capabilities = endpoint.capabilities(&desc.into())?;
                let support = capabilities.memory(MemoryHandleType::OpaqueFd)?.export.clone();
                match (support, endpoint.create_image(&desc, ImageOptions::default())) {
                    (Ok(()), Ok(_)) => created += 1,
                    (Err(named), Err(Error::Missing(found))) if named == found => {
                        ensure!(found.api == Api::Vulkan, "{found}");
                        ensure!(found.to_string().contains(format.name()), "{found}");
                        missing += 1;
                    }
                    (support, result) => bail!("{desc:?}: {support:?}, but {result:?}"),
                }
            }
        }
    }
    ensure!(created > 0 && missing > 0, "{created} created, {missing} missing");
    Ok(())
}

/// An image that a device supports but for one usage: the error names this usage alone.
fn usage_is_named(test_gpu: &TestGpu) -> Result<()> {
    let endpoint = &test_gpu.vulkan().endpoint;
    let mut named = 0;
    for &format in Format::ALL {
        for one in [ImageUsage::STORAGE, ImageUsage::COLOR_ATTACHMENT] {
            let desc = Shape::D2.desc(format, Tiling::Optimal, SIZES[0], USAGE);
            let with = ImageDesc { usage: USAGE | one, ..desc };
            let alone = ImageDesc { usage: one, ..desc };
            let supports = |desc: &ImageDesc| -> Result<bool> {
                let found = endpoint.capabilities(&(*desc).into())?;
                Ok(found.memory(MemoryHandleType::OpaqueFd)?.export.is_ok())
            };
            if with.validate().is_err() || !supports(&desc)? || supports(&alone)? {
                continue;
            }
            let error = endpoint.create_image(&with, ImageOptions::default()).err();
            let text = error.context("created")?.to_string();
            ensure!(text.contains(&format!("used as {one},")), "{text}");
            named += 1;
        }
    }
    ensure!(named > 0, "the device supports both usages for every format");
    Ok(())
}

fn over_the_limits(test_gpu: &TestGpu) -> Result<()> {
    let endpoint = &test_gpu.vulkan().endpoint;
    let wide = ImageDesc { extent: Extent { width: 1 << 22, height: 1, depth: 1 }, ..color() };
    for (desc, text) in [
        (wide, "at most"),
        (ImageDesc { layers: 1 << 20, ..color() }, "layers"),
        (ImageDesc { samples: 64, usage: ImageUsage::COLOR_ATTACHMENT, ..color() }, "64 samples"),
    ] {
        match endpoint.create_image(&desc, ImageOptions::default()) {
            Err(Error::Missing(missing)) => {
                ensure!(missing.to_string().contains(text), "{missing}");
            }
            other => bail!("{desc:?}: {other:?}"),
        }
    }
    Ok(())
}

/// An image of another GPU: the error names both identities, and the payload comes back with its descriptor.
fn foreign(test_gpu: &TestGpu) -> Result<()> {
    let (first, second) = (test_gpu.vulkan(), test_gpu.second_device()?);
    let ours = first.endpoint.create_image(&color(), ImageOptions::default())?;
    let (memory, offset, desc) = ours.export()?.into_parts();
    let (fd, info) = memory.into_parts();
    let other_gpu = Uuid::from_bytes([7; 16]);
    let identity = Identity { device: other_gpu, ..info.identity.clone() };
    let memory = MemoryPayload::new(fd, MemoryInfo { identity, ..info.clone() })?;
    let refused = second.endpoint.import_image(ImagePayload::new(memory, offset, desc)?);
    let (payload, error) = refused.err().context("it was imported")?.into_parts();
    ensure!(matches!(error, Error::Mismatch(_)), "{error:?}");
    let text = error.to_string();
    let named = [other_gpu, info.identity.device].iter().all(|id| text.contains(&id.to_string()));
    ensure!(named, "not both are named: {text}");
    let (fd, _) = payload.into_parts().0.into_parts();
    let payload = ImagePayload::new(MemoryPayload::new(fd, info)?, offset, desc)?;
    pass((first, &ours), (second, &second.endpoint.import_image(payload)?))
}

/// A payload whose image doesn't fit its memory comes back, and no descriptor is lost.
fn too_large(test_gpu: &TestGpu) -> Result<()> {
    let (first, second) = (test_gpu.vulkan(), test_gpu.second_device()?);
    let ours = first.endpoint.create_image(&color(), MemoryOptions::default())?;
    let before = open_descriptors();
    let (mut memory, offset, desc) = ours.export()?.into_parts();
    for wrong in [
        ImageDesc { extent: Extent { width: 1000, ..desc.extent }, ..desc },
        ImageDesc { layers: 9, ..desc },
        ImageDesc { format: Format::Rgba32Float, ..desc },
    ] {
        let refused = second.endpoint.import_image(ImagePayload::new(memory, offset, wrong)?);
        let (payload, error) = refused.err().context("it was imported")?.into_parts();
        ensure!(matches!(error, Error::Invalid(_)), "{wrong:?}: {error:?}");
        let text = error.to_string();
        for part in ["payload.allocation_size", "spare_bytes", "vkBindImageMemory"] {
            ensure!(text.contains(part), "{wrong:?}: no '{part}' in: {text}");
        }
        memory = payload.into_parts().0;
    }
    let theirs = second.endpoint.import_image(ImagePayload::new(memory, offset, desc)?)?;
    pass((first, &ours), (second, &theirs))?;
    drop(theirs);
    before.require_same(&open_descriptors())
}

/// A dedicated allocation can't be imported without its image or with a smaller one, and has no room for a
/// second.
fn dedicated_alone(test_gpu: &TestGpu) -> Result<()> {
    let (first, second) = (test_gpu.vulkan(), test_gpu.second_device()?);
    let options =
        ImageOptions { dedicated: DedicatedAllocation::Always, ..ImageOptions::default() };
    let ours = first.endpoint.create_image(&color(), options)?;
    let (memory, offset, desc) = ours.export()?.into_parts();
    let refused = second.endpoint.import_memory(memory).err().context("it was imported")?;
    let (memory, error) = refused.into_parts();
    ensure!(matches!(error, Error::Invalid(_)), "{error:?}");
    ensure!(error.to_string().contains("import_image"), "what would help is missing: {error}");
    let smaller = ImageDesc { extent: Extent { height: 16, ..desc.extent }, ..desc };
    let payload = ImagePayload::new(memory, offset, smaller)?;
    let refused = second.endpoint.import_image(payload).err().context("it was imported")?;
    let (payload, error) = refused.into_parts();
    ensure!(matches!(error, Error::Mismatch(_)), "{error:?}");
    ensure!(error.to_string().contains("the exporter's description"), "{error}");
    let error =
        ours.memory().image(0, &smaller).err().context("a second image was placed in it")?;
    ensure!(matches!(error, Error::Invalid(_)), "{error:?}");
    // The payload came back unchanged: with its image it is imported.
    let payload = ImagePayload::new(payload.into_parts().0, offset, desc)?;
    pass((first, &ours), (second, &second.endpoint.import_image(payload)?))
}

/// Misaligned, past the end, and dedicated for several images.
fn wrong_places(test_gpu: &TestGpu) -> Result<()> {
    let endpoint = &test_gpu.vulkan().endpoint;
    let (memory, offsets) = endpoint.allocate(&[color(); 2], MemoryOptions::default())?;
    let size = memory.info().allocation_size;
    for offset in [1, offsets[1] + 1, size - 1, size, u64::MAX] {
        match memory.image(offset, &color()) {
            Err(Error::Invalid(refused)) => ensure!(refused.parameter == "offset", "{refused}"),
            other => bail!("at {offset}: {other:?}"),
        }
    }
    let options =
        MemoryOptions { dedicated: DedicatedAllocation::Always, ..MemoryOptions::default() };
    match endpoint.create_images(&[color(); 2], options) {
        Err(Error::Invalid(refused)) => ensure!(refused.help.is_some(), "{refused}"),
        other => bail!("two images, each dedicated, in one allocation: {other:?}"),
    }
    match endpoint.create_images(&[], MemoryOptions::default()) {
        Err(Error::Invalid(_)) => Ok(()),
        other => bail!("no images: {other:?}"),
    }
}

/// The importer compares the payload's linear layout with that of its own image.
fn other_rows(test_gpu: &TestGpu) -> Result<()> {
    let (first, second) = (test_gpu.vulkan(), test_gpu.second_device()?);
    let ours = first.endpoint.create_image(&linear(), ImageOptions::default())?;
    let layout =
        *ours.export()?.linear().context("the payload of a linear image has no linear layout")?;
    for (field, wrong) in [
        ("row_pitch", LinearLayout { row_pitch: layout.row_pitch - 1, ..layout }),
        (
            "offset",
            LinearLayout { offset: layout.offset + 1, row_pitch: layout.row_pitch - 1, ..layout },
        ),
    ] {
        let (memory, offset, desc) = ours.export()?.into_parts();
        let payload = ImagePayload::new(memory, offset, desc)?.with_linear(wrong)?;
        match second.endpoint.import_image(payload).map_err(|failed| failed.into_parts()) {
            Err((payload, Error::Mismatch(refused))) => {
                ensure!(refused.field.contains(field), "{refused}");
                ensure!(payload.linear() == Some(&wrong), "another payload came back");
            }
            other => bail!("{other:?}"),
        }
    }
    // A payload without a linear layout is accepted.
    let (memory, offset, desc) = ours.export()?.into_parts();
    let theirs = second.endpoint.import_image(ImagePayload::new(memory, offset, desc)?)?;
    pass((first, &ours), (second, &theirs))
}

fn no_rows(test_gpu: &TestGpu) -> Result<()> {
    let endpoint = &test_gpu.vulkan().endpoint;
    let optimal = endpoint.create_image(&color(), ImageOptions::default())?;
    ensure!(optimal.export()?.linear().is_none(), "an optimal image's payload has a linear layout");
    let rows = endpoint.create_image(&linear(), ImageOptions::default())?;
    let at = |aspect_mask, mip_level, array_layer| ImageSubresource {
        aspect_mask,
        mip_level,
        array_layer,
    };
    let color = ImageAspectFlags::COLOR;
    let _its_own = rows.subresource_layout(at(color, 0, 0))?;
    for (image, place) in [
        (&optimal, at(color, 0, 0)),
        (&rows, at(color, 1, 0)),
        (&rows, at(color, 0, 3)),
        (&rows, at(ImageAspectFlags::DEPTH, 0, 0)),
        (&rows, at(ImageAspectFlags::empty(), 0, 0)),
        (&rows, at(color | ImageAspectFlags::DEPTH, 0, 0)),
    ] {
        match image.subresource_layout(place) {
            Err(Error::Invalid(refused)) => ensure!(refused.vuid.is_some(), "{refused}"),
            Err(other) => bail!("{other}"),
            Ok(_) => bail!("level {}, layer {}", place.mip_level, place.array_layer),
        }
    }
    Ok(())
}

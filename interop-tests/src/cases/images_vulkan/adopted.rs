//! Family M: images that the application created with export enabled, adopted and shared.

use anyhow::{Context, Result, bail, ensure};
use gpu_interop::ash::vk;
use gpu_interop::desc::{Extent, ImageFlags, Origin, Tiling, ViewFormats};
use gpu_interop::fd::MemoryHandleType;
use gpu_interop::format::Format;
use gpu_interop::vulkan::AdoptedImage;
use gpu_interop::{Api, Error, ImageDesc, ImageUsage};

use crate::cases::images_vulkan::{USAGE, pass};
use crate::cases::support::importers::Place;
use crate::harness::{Case, Need, TestGpu};
use interop_gpu::image::{SIZES, Shape, raw_format};
use interop_gpu::vulkan::VulkanContext;

pub(crate) fn cases() -> Vec<Case> {
    let name = |what: &str| format!("vulkan→vulkan/opaque_fd/image/adopted/{what}");
    let need = [Need::Image(Api::Vulkan, desc())];
    let mut cases = Vec::new();
    for (kind, dedicated, blocks) in
        [("plain", false, 0), ("at_an_offset", false, 3), ("dedicated", true, 0)]
    {
        cases.extend(Place::ALL.map(|place| {
            let name = name(&format!("{kind}/{}/30", place.name()));
            Case::new(name, move |test_gpu| adopted(test_gpu, place, &desc(), dedicated, blocks))
                .needs(&need)
        }));
    }
    cases.push(Case::new(name("contradictions_are_refused/30"), contradictions).needs(&need));
    let raw = raw_desc();
    cases.extend(Place::ALL.map(|place| {
        let name = name(&format!("raw_format_flags_and_views/{}/30", place.name()));
        Case::new(name, move |test_gpu| adopted(test_gpu, place, &raw, false, 0))
            .needs(&[Need::Image(Api::Vulkan, raw)])
    }));
    cases
}

fn desc() -> ImageDesc {
    Shape::MipChain.desc(Format::Rg16Float, Tiling::Optimal, SIZES[0], USAGE)
}

/// A format that the library's table lacks, create flags, a list of view formats, and an origin.
fn raw_desc() -> ImageDesc {
    let flags = ImageFlags::MUTABLE_FORMAT
        | ImageFlags::EXTENDED_USAGE
        | ImageFlags::from_bits_retain(vk::ImageCreateFlags::ALIAS.as_raw());
    let views = [vk::Format::R32G32_UINT, vk::Format::R32G32_SFLOAT].map(vk::Format::as_raw);
    let usage = USAGE | ImageUsage::INPUT_ATTACHMENT | ImageUsage::COLOR_ATTACHMENT;
    let desc = Shape::MipArray.desc(raw_format(), Tiling::Optimal, SIZES[0], usage);
    let view_formats = ViewFormats::from_raw(&views).unwrap_or_default();
    ImageDesc { flags, view_formats, origin: Origin::LowerLeft, ..desc }
}

/// An image and its memory, created as an application does it itself.
struct UserImage<'a> {
    gpu: &'a VulkanContext,
    made: AdoptedImage,
}

impl<'a> UserImage<'a> {
    /// Bound `blocks` times the alignment into its memory.
    fn new(gpu: &'a VulkanContext, desc: ImageDesc, dedicated: bool, blocks: u64) -> Result<Self> {
        let device = gpu.device();
        let opaque = vk::ExternalMemoryHandleTypeFlags::OPAQUE_FD;
        let mut external = vk::ExternalMemoryImageCreateInfo::default().handle_types(opaque);
        let Extent { width, height, depth } = desc.extent;
        let views: Vec<_> =
            desc.view_formats.as_slice().iter().map(|&view| vk::Format::from_raw(view)).collect();
        let mut list = vk::ImageFormatListCreateInfo::default().view_formats(&views);
        let mut info = vk::ImageCreateInfo::default()
            .flags(vk::ImageCreateFlags::from_raw(desc.flags.bits()))
            .image_type(vk::ImageType::TYPE_2D)
            .format(vk::Format::from_raw(desc.format.vulkan()))
            .extent(vk::Extent3D { width, height, depth })
            .mip_levels(desc.levels)
            .array_layers(desc.layers)
            .samples(vk::SampleCountFlags::TYPE_1)
            .tiling(vk::ImageTiling::OPTIMAL)
            .usage(vk::ImageUsageFlags::from_raw(desc.usage.bits()))
            .push_next(&mut external);
        if !views.is_empty() {
            info = info.push_next(&mut list);
        }
        // SAFETY: a valid device with opaque fds enabled, which supports such images, as the case requires.
        let image = unsafe { device.create_image(&info, None) }?;
        // SAFETY: the image is alive.
        let needs = unsafe { device.get_image_memory_requirements(image) };
        let types = gpu.endpoint.memory_properties().memory_types_as_slice();
        let local = vk::MemoryPropertyFlags::DEVICE_LOCAL;
        let index = (0u32..).zip(types).position(|(index, ty)| {
            needs.memory_type_bits >> index & 1 == 1 && ty.property_flags.contains(local)
        });
        let Some(index) = index else {
            // SAFETY: created above, and unused.
            unsafe { device.destroy_image(image, None) };
            bail!("no device-local memory type fits the image");
        };
        let made = AdoptedImage {
            image,
            desc,
            memory: vk::DeviceMemory::null(),
            offset: blocks * needs.alignment,
            allocation_size: blocks * needs.alignment + needs.size,
            memory_type_index: u32::try_from(index)?,
            dedicated,
            handle_type: MemoryHandleType::OpaqueFd,
        };
        let mut user = Self { gpu, made };
        let mut export = vk::ExportMemoryAllocateInfo::default().handle_types(opaque);
        let mut own = vk::MemoryDedicatedAllocateInfo::default().image(image);
        let mut info = vk::MemoryAllocateInfo::default()
            .allocation_size(made.allocation_size)
            .memory_type_index(made.memory_type_index)
            .push_next(&mut export);
        if dedicated {
            info = info.push_next(&mut own);
        }
        // SAFETY: size and type are the image's own; it is bound once, at a multiple of its
        // alignment.
        unsafe {
            user.made.memory = device.allocate_memory(&info, None)?;
            device.bind_image_memory(image, user.made.memory, made.offset)?;
        }
        Ok(user)
    }
}

impl Drop for UserImage<'_> {
    fn drop(&mut self) {
        let device = self.gpu.device();
        // SAFETY: the application's own, and idle: what uses them waits. What adopted them was dropped.
        unsafe {
            device.destroy_image(self.made.image, None);
            device.free_memory(self.made.memory, None);
        }
    }
}

/// Adopted, exported and imported, it shares memory. The application's own handles are not destroyed.
fn adopted(
    test_gpu: &TestGpu,
    place: Place,
    desc: &ImageDesc,
    dedicated: bool,
    blocks: u64,
) -> Result<()> {
    let (first, other) = (test_gpu.vulkan(), place.gpu(test_gpu)?);
    let user = UserImage::new(first, *desc, dedicated, blocks)?;
    // SAFETY: `made` describes how they were created, and they are dropped after `ours`.
    let ours = unsafe { first.endpoint.adopt_image(&user.made) }?;
    ensure!(ours.handle() == user.made.image, "another image");
    let payload = ours.export()?;
    ensure!(payload.offset() == user.made.offset, "another offset");
    ensure!(payload.desc() == desc, "another description");
    ensure!(payload.memory().info().dedicated == dedicated, "the payload has another `dedicated`");
    let theirs = other.endpoint.import_image(payload)?;
    pass((first, &ours), (other, &theirs))?;
    // After the adopted object is dropped, the application's image is still valid.
    drop(ours);
    // SAFETY: as above.
    let ours = unsafe { first.endpoint.adopt_image(&user.made) }?;
    pass((first, &ours), (other, &theirs)).context("after the adopted object was dropped")
}

fn contradictions(test_gpu: &TestGpu) -> Result<()> {
    let gpu = test_gpu.vulkan();
    let user = UserImage::new(gpu, desc(), false, 0)?;
    let made = user.made;
    let types = gpu.endpoint.memory_properties().memory_type_count;
    for (what, text, description) in [
        (
            "past the end",
            "adopted.allocation_size",
            AdoptedImage { offset: made.allocation_size, ..made },
        ),
        (
            "misaligned",
            "adopted.offset",
            AdoptedImage { offset: 1, allocation_size: made.allocation_size + 1, ..made },
        ),
        (
            "in less memory than it needs",
            "whole block",
            AdoptedImage { allocation_size: 1, ..made },
        ),
        (
            "in memory of an unknown type",
            "memory_type_index",
            AdoptedImage { memory_type_index: types, ..made },
        ),
        (
            "dedicated at an offset",
            "set `dedicated` only if",
            AdoptedImage {
                offset: 4096,
                allocation_size: made.allocation_size + 4096,
                dedicated: true,
                ..made
            },
        ),
        (
            "dedicated with room to spare",
            "set `dedicated` only if",
            AdoptedImage { allocation_size: made.allocation_size + 4096, dedicated: true, ..made },
        ),
        (
            "without levels",
            "levels",
            AdoptedImage { desc: ImageDesc { levels: 0, ..made.desc }, ..made },
        ),
        ("that is null", "null", AdoptedImage { image: vk::Image::null(), ..made }),
    ] {
        // SAFETY: the description is wrong, but both handles are valid or null, and nothing that is returned
        // outlives them: the contradictions are refused.
        match unsafe { gpu.endpoint.adopt_image(&description) } {
            Err(error @ (Error::Invalid(_) | Error::Mismatch(_))) => {
                ensure!(error.to_string().contains(text), "{what}: no '{text}' in: {error}");
            }
            other => bail!("adopted {what}: {other:?}"),
        }
    }
    Ok(())
}

//! Images between two Vulkan devices: those that the user made, with export enabled.

use anyhow::{Context, Result, bail, ensure};
use gpu_interop::ash::vk;
use gpu_interop::desc::{Extent, Tiling};
use gpu_interop::fd::MemoryHandleType;
use gpu_interop::format::Format;
use gpu_interop::vulkan::AdoptedImage;
use gpu_interop::{Api, Error, ImageDesc};

use crate::cases::images_vulkan::{USAGE, pass};
use crate::cases::support::importers::Place;
use crate::harness::{Case, Need, TestGpu};
use interop_gpu::image::{SIZES, Shape};
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
            Case::new(name, move |machine| adopted(machine, place, dedicated, blocks)).needs(&need)
        }));
    }
    cases.push(Case::new(name("contradictions_are_refused/30"), contradictions).needs(&need));
    cases
}

fn desc() -> ImageDesc {
    Shape::MipChain.desc(Format::Rg16Float, Tiling::Optimal, SIZES[0], USAGE)
}

/// An image and memory as an app makes them by itself.
struct Users<'a> {
    gpu: &'a VulkanContext,
    made: AdoptedImage,
}

impl<'a> Users<'a> {
    /// Bound `blocks` times the alignment into its memory.
    fn new(gpu: &'a VulkanContext, dedicated: bool, blocks: u64) -> Result<Self> {
        let (device, desc) = (gpu.device(), desc());
        let opaque = vk::ExternalMemoryHandleTypeFlags::OPAQUE_FD;
        let mut external = vk::ExternalMemoryImageCreateInfo::default().handle_types(opaque);
        let Extent { width, height, depth } = desc.extent;
        let info = vk::ImageCreateInfo::default()
            .image_type(vk::ImageType::TYPE_2D)
            .format(vk::Format::R16G16_SFLOAT)
            .extent(vk::Extent3D { width, height, depth })
            .mip_levels(desc.levels)
            .array_layers(desc.layers)
            .samples(vk::SampleCountFlags::TYPE_1)
            .tiling(vk::ImageTiling::OPTIMAL)
            .usage(
                vk::ImageUsageFlags::TRANSFER_SRC
                    | vk::ImageUsageFlags::TRANSFER_DST
                    | vk::ImageUsageFlags::SAMPLED,
            )
            .push_next(&mut external);
        // SAFETY: a valid device that has opaque fds enabled, and such images by them, as the case
        // needs.
        let image = unsafe { device.create_image(&info, None) }?;
        // SAFETY: the image is alive.
        let needs = unsafe { device.get_image_memory_requirements(image) };
        let types = gpu.endpoint.memory_properties().memory_types_as_slice();
        let local = vk::MemoryPropertyFlags::DEVICE_LOCAL;
        let index = (0u32..).zip(types).position(|(index, ty)| {
            needs.memory_type_bits >> index & 1 == 1 && ty.property_flags.contains(local)
        });
        let Some(index) = index else {
            // SAFETY: made just now and used by nobody.
            unsafe { device.destroy_image(image, None) };
            bail!("no memory of the GPU suits the image");
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
        let mut users = Self { gpu, made };
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
            users.made.memory = device.allocate_memory(&info, None)?;
            device.bind_image_memory(image, users.made.memory, made.offset)?;
        }
        Ok(users)
    }
}

impl Drop for Users<'_> {
    fn drop(&mut self) {
        let device = self.gpu.device();
        // SAFETY: the user's own, and idle: what uses them waits. What adopted them is gone.
        unsafe {
            device.destroy_image(self.made.image, None);
            device.free_memory(self.made.memory, None);
        }
    }
}

/// Adopted, exported and imported: it aliases. The user's own handles are left alone.
fn adopted(machine: &TestGpu, place: Place, dedicated: bool, blocks: u64) -> Result<()> {
    let (first, other) = (machine.vulkan(), place.gpu(machine)?);
    let users = Users::new(first, dedicated, blocks)?;
    // SAFETY: `made` says how they were made, and they are dropped after `ours`.
    let ours = unsafe { first.endpoint.adopt_image(&users.made) }?;
    ensure!(ours.handle() == users.made.image, "another image");
    let payload = ours.export()?;
    ensure!(payload.offset() == users.made.offset, "another offset");
    ensure!(payload.memory().info().dedicated == dedicated, "dedicated is not told");
    let theirs = other.endpoint.import_image(payload)?;
    pass((first, &ours), (other, &theirs))?;
    // The adopted object goes, and the user's image is as it was.
    drop(ours);
    // SAFETY: as above.
    let ours = unsafe { first.endpoint.adopt_image(&users.made) }?;
    pass((first, &ours), (other, &theirs)).context("after the adopted object was dropped")
}

fn contradictions(machine: &TestGpu) -> Result<()> {
    let gpu = machine.vulkan();
    let users = Users::new(gpu, false, 0)?;
    let made = users.made;
    let types = gpu.endpoint.memory_properties().memory_type_count;
    for (what, told) in [
        ("past the end", AdoptedImage { offset: made.allocation_size, ..made }),
        ("askew", AdoptedImage { offset: 1, allocation_size: made.allocation_size + 1, ..made }),
        ("in less memory than it takes", AdoptedImage { allocation_size: 1, ..made }),
        ("in memory of no type", AdoptedImage { memory_type_index: types, ..made }),
        (
            "dedicated at an offset",
            AdoptedImage {
                offset: 4096,
                allocation_size: made.allocation_size + 4096,
                dedicated: true,
                ..made
            },
        ),
        (
            "dedicated with room to spare",
            AdoptedImage { allocation_size: made.allocation_size + 4096, dedicated: true, ..made },
        ),
        ("without levels", AdoptedImage { desc: ImageDesc { levels: 0, ..made.desc }, ..made }),
        ("that is none", AdoptedImage { image: vk::Image::null(), ..made }),
    ] {
        // SAFETY: what is told is not true, but both handles are good or null, and outlive what is
        // returned: nothing is, for the figures contradict each other.
        match unsafe { gpu.endpoint.adopt_image(&told) } {
            Err(Error::Invalid(_) | Error::Mismatch(_)) => {}
            other => bail!("adopted {what}: {other:?}"),
        }
    }
    Ok(())
}

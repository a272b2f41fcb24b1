//! Family E: the release to, and the acquire from, `VK_QUEUE_FAMILY_EXTERNAL`, as the validation layer's
//! synchronisation validation sees them.
//!
//! What version 1.3.239 of the layer detects, by measurement: within one command buffer it understands a
//! release followed by an acquire, and reports it if one of them is missing or names other commands than
//! those that ran. It does so for copies, fills and clears, not for storage buffers in compute shaders (two
//! kernels with nothing between them pass), and not from one submit to the next. It raises no false alarm.
//! So its silence proves something about the transfers in each command buffer; for kernels, the cases
//! compare the content.

use anyhow::{Context, Result, ensure};
use gpu_interop::ash::vk;
use gpu_interop::desc::Tiling;
use gpu_interop::format::Format;
use gpu_interop::vulkan::{
    Accesses, Buffer, BufferAccess, BufferOptions, Image, ImageAccess, ImageOptions,
};
use gpu_interop::{BufferDesc, ImageUsage};

use crate::harness::{Case, Need, TestGpu, ValidationLog};
use interop_gpu::image::{SIZES, Shape};
use interop_gpu::vulkan::VulkanContext;

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (prefix, kind) in [("", Kind::Buffer), ("image/", Kind::Image)] {
        let mut case = |what: &str, run: fn(&TestGpu, Kind) -> Result<()>| {
            let name = format!("vulkan/none/handoff/{prefix}{what}/62");
            let case = Case::new(name, move |test_gpu| run(test_gpu, kind));
            cases.push(case.needs(&[Need::Validation]));
        };
        case("release_and_acquire_are_no_hazard", no_hazard);
        case("a_wrong_or_missing_half_is_a_hazard", wrong_halves);
    }
    cases
}

#[derive(Clone, Copy)]
enum Kind {
    Buffer,
    Image,
}

/// The commands that one half of a handoff names.
#[derive(Clone, Copy)]
enum Use {
    Transfer,
    Compute,
}

/// The layouts of an image before its release and after its acquire.
const LAYOUTS: [vk::ImageLayout; 2] =
    [vk::ImageLayout::GENERAL, vk::ImageLayout::TRANSFER_DST_OPTIMAL];

enum Resource {
    Buffer(Buffer),
    Image(Image),
}

impl Resource {
    fn new(gpu: &VulkanContext, kind: Kind) -> Result<Self> {
        let desc = Shape::D2.desc(
            Format::Rgba8Unorm,
            Tiling::Optimal,
            SIZES[0],
            ImageUsage::TRANSFER_DST | ImageUsage::STORAGE,
        );
        let endpoint = &gpu.endpoint;
        Ok(match kind {
            Kind::Buffer => Self::Buffer(
                endpoint.create_buffer(&BufferDesc::storage(4096), BufferOptions::default())?,
            ),
            Kind::Image => Self::Image(endpoint.create_image(&desc, ImageOptions::default())?),
        })
    }

    /// Records a fill or a clear.
    ///
    /// # Safety
    /// The command buffer is being recorded; an image is in `layout`; the resource outlives the work.
    unsafe fn record_write(
        &self,
        gpu: &VulkanContext,
        command: vk::CommandBuffer,
        layout: vk::ImageLayout,
    ) {
        let device = gpu.device();
        // SAFETY: as the caller promises.
        unsafe {
            match self {
                Self::Buffer(buffer) => {
                    device.cmd_fill_buffer(command, buffer.handle(), 0, vk::WHOLE_SIZE, 1);
                }
                Self::Image(image) => {
                    let (color, range) =
                        (vk::ClearColorValue::default(), ImageAccess::transfer(image).range);
                    device.cmd_clear_color_image(command, image.handle(), layout, &color, &[range]);
                }
            }
        }
    }

    /// Calls `record` with this use of the resource.
    fn with_access<T>(&self, used: Use, record: impl FnOnce(Accesses<'_>) -> T) -> T {
        match self {
            Self::Buffer(buffer) => record(Accesses::from(&[match used {
                Use::Transfer => BufferAccess::transfer(buffer),
                Use::Compute => BufferAccess::compute(buffer),
            }])),
            Self::Image(image) => {
                let access = match used {
                    Use::Transfer => ImageAccess::transfer(image),
                    Use::Compute => ImageAccess::compute(image),
                };
                record(Accesses::from(&[access.with_layouts(LAYOUTS[0], LAYOUTS[1])]))
            }
        }
    }
}

/// Returns how many hazards the layer finds between two writes, with these halves of a handoff in between.
fn hazards(
    test_gpu: &TestGpu,
    kind: Kind,
    released: Option<Use>,
    acquired: Option<Use>,
) -> Result<usize> {
    let log = ValidationLog::default();
    let gpu = VulkanContext::new(log.open(test_gpu.selector(), true)?)?;
    let resource = Resource::new(&gpu, kind)?;
    let family = gpu.vulkan.queue_family();
    gpu.run(|command| {
        if let Resource::Image(image) = &resource {
            gpu.record_layout(command, image, (vk::ImageLayout::UNDEFINED, LAYOUTS[0]));
        }
        // SAFETY: the command buffer is being recorded for a queue of that family, and the resource lives
        // until it was executed (`run` waits). A hazard is intended: both writes are equal.
        unsafe {
            resource.record_write(&gpu, command, LAYOUTS[0]);
            if let Some(used) = released {
                resource
                    .with_access(used, |used| gpu.endpoint.record_release(command, family, used))?;
            }
            if let Some(used) = acquired {
                resource
                    .with_access(used, |used| gpu.endpoint.record_acquire(command, family, used))?;
            }
            resource.record_write(&gpu, command, LAYOUTS[1]);
        }
        Ok(())
    })?;
    let messages = log.take();
    let is_hazard = |text: &str| text.contains("SYNC-HAZARD");
    // A missing half is also a missing layout transition.
    let is_layout = |text: &str| text.contains("ayout");
    for message in messages.iter().map(ToString::to_string) {
        ensure!(is_hazard(&message) || is_layout(&message), "{message}");
    }
    Ok(messages.iter().filter(|message| is_hazard(&message.to_string())).count())
}

fn no_hazard(test_gpu: &TestGpu, kind: Kind) -> Result<()> {
    let found = hazards(test_gpu, kind, Some(Use::Transfer), Some(Use::Transfer))?;
    ensure!(found == 0, "{found} hazards between a release and its acquire");
    Ok(())
}

fn wrong_halves(test_gpu: &TestGpu, kind: Kind) -> Result<()> {
    for (what, released, acquired) in [
        ("nothing", None, None),
        ("no acquire", Some(Use::Transfer), None),
        ("no release", None, Some(Use::Transfer)),
        ("a release after kernels", Some(Use::Compute), Some(Use::Transfer)),
        ("an acquire before kernels", Some(Use::Transfer), Some(Use::Compute)),
    ] {
        let found = hazards(test_gpu, kind, released, acquired).context(what)?;
        ensure!(found > 0, "{what}: no hazard was found");
    }
    Ok(())
}

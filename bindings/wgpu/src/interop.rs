//! The borrowed device.

use std::fmt;
use std::iter;
use std::sync::{Arc, Mutex};

use gpu_interop::Result;
use gpu_interop::ash::vk;
use gpu_interop::error::{Api, Invalid, Mismatch, Missing};
use gpu_interop::vulkan::{self, DeviceInfo, Endpoint};
use wgpu::hal::api::Vulkan;

use crate::device::{api_version, not_vulkan};
use crate::shared::SharedTexture;

/// A wgpu device that shares memory. `Send` and `Sync`; create one per device.
///
/// It keeps the device and the queue alive.
pub struct Interop {
    // First: dropping the last clone waits for the work of handoffs.
    pub(crate) endpoint: Endpoint,
    pub(crate) adapter: wgpu::Adapter,
    pub(crate) device: wgpu::Device,
    pub(crate) queue: wgpu::Queue,
    pub(crate) raw_queue: vk::Queue,
    pub(crate) queue_family: u32,
    /// Held from the recording of a handoff until its semaphores are submitted: the values of a
    /// timeline semaphore must be submitted in order, and each in a submit of its own.
    pub(crate) handoffs: Mutex<()>,
}

impl fmt::Debug for Interop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Interop")
            .field("endpoint", &self.endpoint)
            .field("device", &self.device)
            .field("queue_family", &self.queue_family)
            .finish_non_exhaustive()
    }
}

impl Interop {
    /// Borrows a device that [`request_device`](crate::request_device) opened, or any other device
    /// on wgpu's Vulkan backend.
    ///
    /// wgpu itself enables `VK_KHR_external_memory_fd` if the GPU has it, but not
    /// `VK_KHR_external_semaphore_fd`: handoffs of such a device wait on the host.
    ///
    /// # Errors
    /// [`Invalid`] if the adapter is not on the Vulkan backend; [`Mismatch`] if adapter, device and
    /// queue don't belong together; [`Missing`] if the GPU lacks Vulkan 1.1 or timeline semaphores;
    /// [`Driver`](gpu_interop::Error::Driver) if memory runs out.
    pub fn new(
        adapter: &wgpu::Adapter,
        device: &wgpu::Device,
        queue: &wgpu::Queue,
    ) -> Result<Self> {
        // SAFETY: nothing is destroyed through these guards.
        let found = unsafe {
            (adapter.as_hal::<Vulkan>(), device.as_hal::<Vulkan>(), queue.as_hal::<Vulkan>())
        };
        let (Some(raw_adapter), Some(raw), Some(raw_queue)) = found else {
            return Err(not_vulkan().into());
        };
        let physical_device = raw.raw_physical_device();
        for (what, is_same) in [
            (
                "the adapter's VkPhysicalDevice",
                raw_adapter.raw_physical_device() == physical_device,
            ),
            ("the queue's VkQueue", raw_queue.as_raw() == raw.raw_queue()),
        ] {
            if !is_same {
                return Err(Mismatch::new(what, "that of the device", "another")
                    .help("pass the device and the queue that were requested from this adapter")
                    .into());
            }
        }
        let instance = raw.shared_instance();
        let version = api_version(&raw_adapter);
        // SAFETY: the instance is valid, and the physical device belongs to it.
        let supported = unsafe {
            Endpoint::wanted_features(instance.raw_instance(), physical_device, version)
        }?;
        if !supported.timeline_semaphore {
            let (what, needed_for) = ("the feature timelineSemaphore", "sharing by wgpu");
            return Err(Missing::new(Api::Vulkan, what, needed_for).into());
        }
        let features = vulkan::Features::default().timeline_semaphore(true);
        let info =
            DeviceInfo::new(instance.raw_instance(), physical_device, raw.raw_device(), version)
                .enabled_extensions(raw.enabled_device_extensions())
                .features(features);
        // SAFETY: the handles are those of one wgpu-hal device, which lists the extensions that it
        // enabled and enables timeline semaphores if they are supported. The endpoint keeps the
        // device; its queue is destroyed before it, which waits for all work.
        let endpoint = unsafe { Endpoint::new(&info, Some(Arc::new(device.clone()))) }?;
        Ok(Self {
            endpoint,
            adapter: adapter.clone(),
            device: device.clone(),
            queue: queue.clone(),
            raw_queue: raw_queue.as_raw(),
            queue_family: raw.queue_family_index(),
            handoffs: Mutex::new(()),
        })
    }

    /// Returns the Vulkan endpoint over the device, with which handoffs are opened.
    ///
    /// Release and acquire with [`give`](Self::give) and [`take`](Self::take): only they submit to
    /// wgpu's queue safely. `Releaser::release_on` and `SubmitSync::submit` can't, because wgpu has
    /// no lock on its queue that others can hold.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    pub(crate) fn encoder(&self) -> wgpu::CommandEncoder {
        let label = Some("gpu-interop");
        self.device.create_command_encoder(&wgpu::CommandEncoderDescriptor { label })
    }

    /// Returns an encoder, and its Vulkan command buffer to record into until the encoder is
    /// finished. Nothing else is recorded into such an encoder.
    pub(crate) fn raw_encoder(&self) -> Result<(wgpu::CommandEncoder, vk::CommandBuffer)> {
        let mut encoder = self.encoder();
        // SAFETY: the command buffer is neither ended nor destroyed by this crate.
        let commands =
            unsafe { encoder.as_hal_mut::<Vulkan, _, _>(|raw| raw.map(|raw| raw.raw_handle())) };
        let lost = || Invalid::new("device", "is lost: wgpu can't record commands");
        Ok((encoder, commands.ok_or_else(lost)?))
    }

    /// Returns commands that bring the textures into their home, as wgpu tracks it. wgpu keeps the
    /// textures until these are done.
    pub(crate) fn bring_home(&self, textures: &[SharedTexture]) -> wgpu::CommandBuffer {
        let mut encoder = self.encoder();
        let transitions = textures.iter().map(|texture| wgpu::TextureTransition {
            texture: &texture.wgpu,
            selector: None,
            state: texture.home,
        });
        encoder.transition_resources(iter::empty(), transitions);
        encoder.finish()
    }
}

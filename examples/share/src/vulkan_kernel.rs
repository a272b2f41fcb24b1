//! A compute kernel over a frame in Vulkan: its pipeline, and the frame's windows as descriptor sets.

use anyhow::Result;
use gpu_interop::ash::{self, vk};
use gpu_interop::headless::Vulkan;

use super::frame::Shape;
use interop_gpu::kernel::{GROUP_SIZE, Window, windows};
use interop_gpu::vulkan::{Resource, ShaderLayout};

/// Frames that may be bound at once, times their windows.
const MAX_SETS: u32 = 1024;

/// A kernel of `shaders/` with the parameters of `draw` and `check`.
#[derive(Debug)]
pub(super) struct VulkanKernel {
    vulkan: Vulkan,
    commands: vk::CommandPool,
    layout: ShaderLayout,
    pipeline: vk::Pipeline,
    max_window: u64,
}

/// A frame's buffer, bound window by window.
#[derive(Debug)]
pub(super) struct Bound(Vec<(Window, vk::DescriptorSet)>);

impl VulkanKernel {
    /// The kernel of `spirv`, which has the frame's buffer at binding 0 and, if `buffers` is 2, another
    /// one at binding 1.
    pub(super) fn new(vulkan: &Vulkan, spirv: &[u8], buffers: u32) -> Result<Self> {
        // SAFETY: a valid instance and physical device.
        let properties =
            unsafe { vulkan.instance().get_physical_device_properties(vulkan.physical_device()) };
        let bindings = vec![vk::DescriptorType::STORAGE_BUFFER; buffers as usize];
        let stages = vk::ShaderStageFlags::COMPUTE;
        // Every vkDestroy call ignores null handles, so Drop cleans up after a failure half-way.
        let mut made = Self {
            vulkan: vulkan.clone(),
            commands: vk::CommandPool::null(),
            layout: ShaderLayout::new(vulkan, stages, &bindings, 16, MAX_SETS)?,
            pipeline: vk::Pipeline::null(),
            max_window: u64::from(properties.limits.max_storage_buffer_range),
        };
        let info = vk::CommandPoolCreateInfo::default()
            .flags(vk::CommandPoolCreateFlags::RESET_COMMAND_BUFFER)
            .queue_family_index(vulkan.queue_family());
        // SAFETY: a valid device and queue family.
        made.commands = unsafe { vulkan.device().create_command_pool(&info, None) }?;
        made.pipeline = made.layout.compute(spirv)?;
        Ok(made)
    }

    fn device(&self) -> &ash::Device {
        self.vulkan.device()
    }

    /// Command buffers that can be recorded again and again. They live as long as the kernel.
    pub(super) fn command_buffers(&self, count: u32) -> Result<Vec<vk::CommandBuffer>> {
        let info = vk::CommandBufferAllocateInfo::default()
            .command_pool(self.commands)
            .level(vk::CommandBufferLevel::PRIMARY)
            .command_buffer_count(count);
        // SAFETY: the pool is alive and used by this thread alone.
        Ok(unsafe { self.device().allocate_command_buffers(&info) }?)
    }

    /// Binds a frame's buffer and, for a kernel with two buffers, `other`. Both outlive the kernel's work.
    pub(super) fn bind(
        &self,
        frame: vk::Buffer,
        bytes: u64,
        other: Option<vk::Buffer>,
    ) -> Result<Bound> {
        let bind = |window: Window| {
            let Window { offset, bytes: range } = window;
            let info = vk::DescriptorBufferInfo { buffer: frame, offset, range };
            let resources = [Some(Resource::Buffer(info)), other.map(Resource::whole)];
            let resources: Vec<_> = resources.into_iter().flatten().collect();
            Ok((window, self.layout.bind(&resources)?))
        };
        windows(bytes, self.max_window).into_iter().map(bind).collect::<Result<_>>().map(Bound)
    }

    /// Begins recording `command`, which no submitted work uses.
    pub(super) fn begin(&self, command: vk::CommandBuffer) -> Result<()> {
        let info = vk::CommandBufferBeginInfo::default()
            .flags(vk::CommandBufferUsageFlags::ONE_TIME_SUBMIT);
        // SAFETY: the command buffer is of a pool that allows resetting, and not in use.
        Ok(unsafe { self.device().begin_command_buffer(command, &info) }?)
    }

    /// Records the kernel over all of a frame.
    pub(super) fn record(
        &self,
        command: vk::CommandBuffer,
        bound: &Bound,
        shape: Shape,
        frame: u32,
    ) {
        for (window, set) in &bound.0 {
            let (first, count) = (window.first(), window.count());
            let groups = count.div_ceil(GROUP_SIZE).clamp(1, MAX_GROUPS);
            let parameters = [first, count, frame, shape.width_log2()];
            let constants = bytemuck::bytes_of(&parameters);
            self.layout.dispatch(command, self.pipeline, *set, constants, (groups, 1));
        }
    }
}

/// The maximum number of groups: enough for every GPU, and few enough that each has several elements to count.
const MAX_GROUPS: u32 = 1 << 13;

impl Drop for VulkanKernel {
    fn drop(&mut self) {
        // A lost device has nothing in flight.
        let _ = self.vulkan.wait_idle();
        // SAFETY: owned here alone, idle, and null if never created.
        unsafe { self.device().destroy_command_pool(self.commands, None) };
    }
}

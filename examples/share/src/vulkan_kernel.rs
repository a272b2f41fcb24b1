//! A compute kernel over a frame in Vulkan: its pipeline, and the frame's windows as descriptor sets.

use anyhow::{Context, Result};
use gpu_interop::ash::{self, vk};
use gpu_interop::headless::Vulkan;

use super::frame::Shape;
use interop_gpu::kernel::{GROUP_SIZE, Window, windows};
use interop_gpu::vulkan::ComputeLayout;

/// Frames that may be bound at once, times their windows.
const MAX_SETS: u32 = 1024;

/// A kernel of `shaders/` with the parameters of `draw` and `check`.
#[derive(Debug)]
pub(super) struct VulkanKernel {
    vulkan: Vulkan,
    commands: vk::CommandPool,
    descriptors: vk::DescriptorPool,
    layout: ComputeLayout,
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
        // Every vkDestroy call ignores null handles, so Drop cleans up after a failure half-way.
        let mut made = Self {
            vulkan: vulkan.clone(),
            commands: vk::CommandPool::null(),
            descriptors: vk::DescriptorPool::null(),
            layout: ComputeLayout::new(vulkan, &bindings, 16)?,
            pipeline: vk::Pipeline::null(),
            max_window: u64::from(properties.limits.max_storage_buffer_range),
        };
        made.create_pools(buffers)?;
        made.pipeline = made.layout.pipeline_of(spirv)?;
        Ok(made)
    }

    fn device(&self) -> &ash::Device {
        self.vulkan.device()
    }

    fn create_pools(&mut self, buffers: u32) -> Result<()> {
        let commands = vk::CommandPoolCreateInfo::default()
            .flags(vk::CommandPoolCreateFlags::RESET_COMMAND_BUFFER)
            .queue_family_index(self.vulkan.queue_family());
        let sizes = [vk::DescriptorPoolSize {
            ty: vk::DescriptorType::STORAGE_BUFFER,
            descriptor_count: MAX_SETS * buffers,
        }];
        let descriptors =
            vk::DescriptorPoolCreateInfo::default().max_sets(MAX_SETS).pool_sizes(&sizes);
        let device = self.vulkan.device().clone();
        // SAFETY: a valid device and queue family; the array outlives the call.
        unsafe {
            self.commands = device.create_command_pool(&commands, None)?;
            self.descriptors = device.create_descriptor_pool(&descriptors, None)?;
        }
        Ok(())
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
        let bind = |window: Window| Ok((window, self.descriptor_set(frame, window, other)?));
        windows(bytes, self.max_window).into_iter().map(bind).collect::<Result<_>>().map(Bound)
    }

    fn descriptor_set(
        &self,
        frame: vk::Buffer,
        window: Window,
        other: Option<vk::Buffer>,
    ) -> Result<vk::DescriptorSet> {
        let (device, layouts) = (self.device(), [self.layout.set]);
        let info = vk::DescriptorSetAllocateInfo::default()
            .descriptor_pool(self.descriptors)
            .set_layouts(&layouts);
        // SAFETY: the pool is alive and used by this thread alone.
        let set = unsafe { device.allocate_descriptor_sets(&info) }
            .context("too many windows bound at once")?[0];
        let frame = [vk::DescriptorBufferInfo {
            buffer: frame,
            offset: window.offset,
            range: window.bytes,
        }];
        let whole = |buffer| vk::DescriptorBufferInfo { buffer, offset: 0, range: vk::WHOLE_SIZE };
        let other = other.map(|other| [whole(other)]);
        let write = |(binding, info)| {
            vk::WriteDescriptorSet::default()
                .dst_set(set)
                .dst_binding(binding)
                .descriptor_type(vk::DescriptorType::STORAGE_BUFFER)
                .buffer_info(info)
        };
        let writes: Vec<_> = (0..)
            .zip([Some(&frame), other.as_ref()].into_iter().flatten())
            .map(|(binding, info)| write((binding, &info[..])))
            .collect();
        // SAFETY: the set is new and has the bindings; the callers pass live buffers that are at least
        // as long.
        unsafe { device.update_descriptor_sets(&writes, &[]) };
        Ok(set)
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
        let (device, point) = (self.device(), vk::PipelineBindPoint::COMPUTE);
        for (window, set) in &bound.0 {
            let (first, count) = (window.first(), window.count());
            let groups = count.div_ceil(GROUP_SIZE).clamp(1, MAX_GROUPS);
            let parameters = [first, count, frame, shape.width_log2()];
            // SAFETY: the command buffer is being recorded (the caller's), and everything bound is alive
            // as long as the kernel and `bound`.
            unsafe {
                device.cmd_bind_pipeline(command, point, self.pipeline);
                device.cmd_bind_descriptor_sets(
                    command,
                    point,
                    self.layout.pipeline,
                    0,
                    &[*set],
                    &[],
                );
                let bytes = bytemuck::bytes_of(&parameters);
                let stage = vk::ShaderStageFlags::COMPUTE;
                device.cmd_push_constants(command, self.layout.pipeline, stage, 0, bytes);
                device.cmd_dispatch(command, groups, 1, 1);
            }
        }
    }
}

/// The maximum number of groups: enough for every GPU, and few enough that each has several elements to count.
const MAX_GROUPS: u32 = 1 << 13;

impl Drop for VulkanKernel {
    fn drop(&mut self) {
        // A lost device has nothing in flight.
        let _ = self.vulkan.wait_idle();
        let device = self.vulkan.device();
        // SAFETY: all owned here alone, idle, and null if never created.
        unsafe {
            device.destroy_pipeline(self.pipeline, None);
            device.destroy_descriptor_pool(self.descriptors, None);
            device.destroy_command_pool(self.commands, None);
        }
    }
}

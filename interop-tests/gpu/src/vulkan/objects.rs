//! The objects of a context: pools, pipelines and queries.

use anyhow::{Context, Result};
use gpu_interop::ash::{self, vk};
use gpu_interop::headless::Vulkan;

use super::shader::ComputeLayout;
use crate::kernel::Window;

const FILL: &[u8] = include_bytes!("../../../../shaders/fill.comp.spv");
const PING_PONG: &[u8] = include_bytes!("../../../../shaders/ping_pong.comp.spv");

/// Windows that may be bound at once.
const MAX_SETS: u32 = 1024;

/// Pools, pipelines and queries.
#[derive(Debug)]
pub(super) struct Objects {
    vulkan: Vulkan,
    pub(super) commands: vk::CommandPool,
    pub(super) one_shot: vk::CommandBuffer,
    pub(super) descriptors: vk::DescriptorPool,
    layout: ComputeLayout,
    pub(super) fill: vk::Pipeline,
    pub(super) ping_pong: vk::Pipeline,
    pub(super) queries: vk::QueryPool,
}

impl Objects {
    pub(super) fn new(vulkan: Vulkan) -> Result<Self> {
        // Every vkDestroy call ignores null handles, so Drop cleans up after a failure half-way.
        let mut made = Self {
            vulkan: vulkan.clone(),
            commands: vk::CommandPool::null(),
            one_shot: vk::CommandBuffer::null(),
            descriptors: vk::DescriptorPool::null(),
            layout: ComputeLayout::new(&vulkan, &[vk::DescriptorType::STORAGE_BUFFER], 12)?,
            fill: vk::Pipeline::null(),
            ping_pong: vk::Pipeline::null(),
            queries: vk::QueryPool::null(),
        };
        made.create_pools()?;
        made.fill = made.layout.pipeline_of(FILL)?;
        made.ping_pong = made.layout.pipeline_of(PING_PONG)?;
        Ok(made)
    }

    fn device(&self) -> &ash::Device {
        self.vulkan.device()
    }

    pub(super) fn pipeline_layout(&self) -> vk::PipelineLayout {
        self.layout.pipeline
    }

    fn create_pools(&mut self) -> Result<()> {
        let vulkan = self.vulkan.clone();
        let device = vulkan.device();
        let commands = vk::CommandPoolCreateInfo::default()
            .flags(vk::CommandPoolCreateFlags::RESET_COMMAND_BUFFER)
            .queue_family_index(vulkan.queue_family());
        let sizes = [vk::DescriptorPoolSize {
            ty: vk::DescriptorType::STORAGE_BUFFER,
            descriptor_count: MAX_SETS,
        }];
        let descriptors = vk::DescriptorPoolCreateInfo::default()
            .flags(vk::DescriptorPoolCreateFlags::FREE_DESCRIPTOR_SET)
            .max_sets(MAX_SETS)
            .pool_sizes(&sizes);
        let queries =
            vk::QueryPoolCreateInfo::default().query_type(vk::QueryType::TIMESTAMP).query_count(2);
        // SAFETY: a valid device and queue family; the arrays outlive the calls.
        unsafe {
            self.commands = device.create_command_pool(&commands, None)?;
            self.descriptors = device.create_descriptor_pool(&descriptors, None)?;
            self.queries = device.create_query_pool(&queries, None)?;
        }
        let one_shot = vk::CommandBufferAllocateInfo::default()
            .command_pool(self.commands)
            .level(vk::CommandBufferLevel::PRIMARY)
            .command_buffer_count(1);
        // SAFETY: the pool was made above and is used by this thread alone.
        self.one_shot = unsafe { device.allocate_command_buffers(&one_shot) }?[0];
        Ok(())
    }

    /// A descriptor set for one window of `buffer`.
    pub(super) fn descriptor_set(
        &self,
        buffer: vk::Buffer,
        window: Window,
    ) -> Result<vk::DescriptorSet> {
        let device = self.device();
        let layouts = [self.layout.set];
        let info = vk::DescriptorSetAllocateInfo::default()
            .descriptor_pool(self.descriptors)
            .set_layouts(&layouts);
        // SAFETY: the pool is alive and used by this thread alone.
        let set = unsafe { device.allocate_descriptor_sets(&info) }
            .context("too many windows bound at once")?[0];
        let range =
            [vk::DescriptorBufferInfo { buffer, offset: window.offset, range: window.bytes }];
        let write = vk::WriteDescriptorSet::default()
            .dst_set(set)
            .descriptor_type(vk::DescriptorType::STORAGE_BUFFER)
            .buffer_info(&range);
        // SAFETY: the set is new; the callers pass a live buffer at least as long.
        unsafe { device.update_descriptor_sets(&[write], &[]) };
        Ok(set)
    }
}

impl Drop for Objects {
    fn drop(&mut self) {
        // A lost device has nothing in flight.
        let _ = self.vulkan.wait_idle();
        let device = self.device();
        // SAFETY: all owned here alone, idle, and null if never created.
        unsafe {
            device.destroy_pipeline(self.fill, None);
            device.destroy_pipeline(self.ping_pong, None);
            device.destroy_descriptor_pool(self.descriptors, None);
            device.destroy_query_pool(self.queries, None);
            device.destroy_command_pool(self.commands, None);
        }
    }
}

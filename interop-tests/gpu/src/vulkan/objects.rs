//! The objects of a context: pools, pipelines and queries.

use anyhow::Result;
use gpu_interop::ash::vk;
use gpu_interop::headless::Vulkan;

use super::shader::ShaderLayout;

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
    pub(super) layout: ShaderLayout,
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
            layout: ShaderLayout::new(
                &vulkan,
                vk::ShaderStageFlags::COMPUTE,
                &[vk::DescriptorType::STORAGE_BUFFER],
                12,
                MAX_SETS,
            )?,
            fill: vk::Pipeline::null(),
            ping_pong: vk::Pipeline::null(),
            queries: vk::QueryPool::null(),
        };
        made.create_pools()?;
        made.fill = made.layout.compute(FILL)?;
        made.ping_pong = made.layout.compute(PING_PONG)?;
        Ok(made)
    }

    fn create_pools(&mut self) -> Result<()> {
        let vulkan = self.vulkan.clone();
        let device = vulkan.device();
        let commands = vk::CommandPoolCreateInfo::default()
            .flags(vk::CommandPoolCreateFlags::RESET_COMMAND_BUFFER)
            .queue_family_index(vulkan.queue_family());
        let queries =
            vk::QueryPoolCreateInfo::default().query_type(vk::QueryType::TIMESTAMP).query_count(2);
        // SAFETY: a valid device and queue family.
        unsafe {
            self.commands = device.create_command_pool(&commands, None)?;
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
}

impl Drop for Objects {
    fn drop(&mut self) {
        // A lost device has nothing in flight.
        let _ = self.vulkan.wait_idle();
        let device = self.vulkan.device();
        // SAFETY: all owned here alone, idle, and null if never created.
        unsafe {
            device.destroy_query_pool(self.queries, None);
            device.destroy_command_pool(self.commands, None);
        }
    }
}

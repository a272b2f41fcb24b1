//! A launch: a kernel recorded into a command buffer.

use ash::vk;

use super::argument::{self, Argument};
use super::function::Function;
use crate::error::Result;

/// How many threads run a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Launch {
    /// Blocks in x, y and z; each at least 1.
    pub grid: [u32; 3],
    /// Threads a block in x, y and z; each at least 1.
    pub block: [u32; 3],
    /// Bytes of dynamic shared memory a block: what the kernel declares as `extern __shared__`.
    pub dynamic_shared_bytes: u32,
}

impl Launch {
    /// `blocks` blocks of `threads` threads in a row, with no dynamic shared memory.
    pub const fn linear(blocks: u32, threads: u32) -> Self {
        Self { grid: [blocks, 1, 1], block: [threads, 1, 1], dynamic_shared_bytes: 0 }
    }
}

impl Function {
    /// Records the kernel into `commands`, on `arguments` in the order of its parameters. They are
    /// copied: only what the addresses point to is used later.
    ///
    /// Recording orders nothing: put a [barrier](crate::vulkan::Endpoint::record_barrier) between
    /// this and the commands that write what it reads, read what it writes, or write the same.
    ///
    /// # Safety
    /// - `commands` is being recorded, outside a render pass, is of the function's device and of a
    ///   queue family that does compute or graphics, and nobody else uses its pool meanwhile.
    /// - The function and the buffers in `arguments` live until the work is done.
    /// - The kernel is right: it reads and writes no memory but what it is given and may, it ends,
    ///   and, where [`parameters`](Self::parameters) doesn't tell, `arguments` are its parameters in
    ///   number and size.
    ///
    /// # Errors
    /// Nothing is recorded then. [`Invalid`](crate::error::Invalid) for a size of 0 or beyond the
    /// device's limits, for arguments that are not as many or as large as the parameters, and for a
    /// buffer without [`BufferUsage::DEVICE_ADDRESS`](crate::BufferUsage::DEVICE_ADDRESS);
    /// [`Mismatch`](crate::error::Mismatch) for a buffer of another device.
    ///
    /// # References
    /// `vkCmdCuLaunchKernelNVX`; VUID-vkCmdCuLaunchKernelNVX-commandBuffer-recording and
    /// -commandBuffer-cmdpool. `VkCudaLaunchInfoNV` and `cuLaunchKernel` for what the members mean.
    #[doc(alias = "vkCmdCuLaunchKernelNVX")]
    pub unsafe fn launch(
        &self,
        commands: vk::CommandBuffer,
        launch: &Launch,
        arguments: &[Argument<'_>],
    ) -> Result<()> {
        let module = self.module();
        module.limits().check(launch)?;
        let arguments = arguments.iter().map(|argument| argument.resolve(module.shared()));
        let arguments = arguments.collect::<Result<Vec<_>>>()?;
        if let Some(parameters) = self.parameters() {
            argument::check(&arguments, parameters)?;
        }
        let pointers: Vec<_> = arguments.iter().map(|argument| argument.as_ptr()).collect();
        let info = vk::CuLaunchInfoNVX::default()
            .function(self.handle())
            .grid_dim_x(launch.grid[0])
            .grid_dim_y(launch.grid[1])
            .grid_dim_z(launch.grid[2])
            .block_dim_x(launch.block[0])
            .block_dim_y(launch.block[1])
            .block_dim_z(launch.block[2])
            .shared_mem_bytes(launch.dynamic_shared_bytes)
            .params(&pointers);
        // SAFETY: the caller's promise covers the command buffer, lifetimes and what the kernel
        // does. The function is alive, the sizes are within the limits, and there is a pointer to
        // as many bytes as the parameter has for each one; all outlive the call, which copies them.
        unsafe { (module.calls().cmd_cu_launch_kernel_nvx)(commands, &info) };
        Ok(())
    }
}

//! Driver bugs that concern the OpenGL peer, and what it does about each.
//!
//! | Driver and version | Bug | What this peer does |
//! |---|---|---|
//! | Mesa llvmpipe, 22.3.6 and 25.0 | `glBufferStorageMemEXT` fails with `GL_OUT_OF_MEMORY` unless the memory object continues for [`LLVMPIPE_BUFFER_TAIL_BYTES`] after the buffer (`llvmpipe_resource_from_memobj`). | The error explains it. Only the exporter can allocate more. |
//! | Mesa llvmpipe, 22.3.6 and all later sources so far | The offset of a buffer or texture in its memory is ignored without an error, so the resource has the bytes at offset 0. | Refuses offsets other than 0. |
//! | Mesa llvmpipe, 22.3.6 and 23.2.1; fixed by 25.0.7 | A texture that is larger than its memory is accepted. Bytes past the end of the memory are then read and overwritten. | Computes llvmpipe's size of a texture (`llvmpipe_texture_layout`) and refuses one that doesn't fit. |
//! | Mesa llvmpipe, 22.3.6 | `glImportMemoryFdEXT` closes a descriptor that isn't Mesa's and reports no error (`import_memoryobj_fd`). The first resource in that memory fails with `GL_OUT_OF_MEMORY`. | Creates a buffer of one byte after each import, and deletes it. |
//! | Mesa llvmpipe, 22.3.6 | `glImportMemoryFdEXT` reads from the descriptor (`os_import_memory_fd`) and blocks indefinitely if nothing is written to it, as with an eventfd or a terminal. | Refuses descriptors that aren't regular files, which llvmpipe's memory is. |
//! | Mesa llvmpipe, 22.3.6 | Deleting a memory object unmaps the memory at once. The rasteriser's threads crash if they still use it. | Calls `glFinish` before it deletes a memory object. |
//! | NVIDIA 580.159 | After one failed import of a foreign descriptor (a memfd, an eventfd, `/dev/null`), every later `glImportMemoryFdEXT` in the process fails with `GL_OUT_OF_MEMORY`, and after a failed `glImportSemaphoreFdEXT` Vulkan can create no exportable semaphores. | Refuses descriptors that aren't NVIDIA's, except on integrated GPUs, whose descriptors may be dma-bufs. |
//! | NVIDIA 580.159 | A semaphore can be imported [`NVIDIA_IMPORTS_OF_ONE_SEMAPHORE`] times. The next import fails with `GL_OUT_OF_MEMORY`, even if the earlier names were deleted. | Nothing. Import a semaphore once and keep it. |
//! | NVIDIA 580.159 | `glGetBufferSubData` of an imported buffer returns the bytes that it returned the first time until an OpenGL shader writes to the buffer. Semaphore waits, memory barriers, `glFinish` and `glBufferSubData` don't help. Shaders and `glCopyBufferSubData` see the right bytes. | Nothing. Copy to a buffer of OpenGL's own and read that one. |

use std::os::fd::AsFd;

use crate::desc::{ImageDesc, ImageKind};
use crate::error::Result;
use crate::fd::{check_file, check_nvidia_fd};

/// Bytes that llvmpipe requires in the allocation after a buffer:
/// `(LP_RASTER_BLOCK_SIZE - 1) * 4 * sizeof(float)`.
pub const LLVMPIPE_BUFFER_TAIL_BYTES: u64 = 48;

/// How often NVIDIA's driver imports one semaphore.
pub const NVIDIA_IMPORTS_OF_ONE_SEMAPHORE: u32 = 252;

/// What is done for the context's driver: the rows of the module's table that apply.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Workarounds {
    /// [`LLVMPIPE_BUFFER_TAIL_BYTES`], or 0.
    pub(super) buffer_tail_bytes: u64,
    pub(super) refuse_offsets: bool,
    check_texture_size: bool,
    pub(super) verify_imports: bool,
    require_file: bool,
    pub(super) finish_before_freeing: bool,
    refuse_foreign_fds: bool,
}

impl Workarounds {
    /// The workarounds for a driver by its `GL_RENDERER`. zink, which names llvmpipe in brackets if
    /// it runs on it, imports through Vulkan and has none of the bugs.
    pub(super) fn of(renderer: &str) -> Self {
        if renderer.starts_with("llvmpipe") {
            return Self {
                buffer_tail_bytes: LLVMPIPE_BUFFER_TAIL_BYTES,
                refuse_offsets: true,
                check_texture_size: true,
                verify_imports: true,
                require_file: true,
                finish_before_freeing: true,
                refuse_foreign_fds: false,
            };
        }
        // "NVIDIA H200/PCIe/SSE2", but "NVIDIA Tegra Orin (nvgpu)/integrated".
        let refuse_foreign_fds = renderer.starts_with("NVIDIA ") && renderer.contains("/PCIe");
        Self { refuse_foreign_fds, ..Self::default() }
    }

    /// Returns the fewest bytes that a texture of `desc` needs.
    pub(super) fn texture_bytes(self, desc: &ImageDesc) -> u64 {
        if !self.check_texture_size {
            return desc.least_bytes();
        }
        // Whole blocks of 4 × 4 texels, each row from the beginning of a cache line.
        const BLOCK: u32 = 4;
        // Mesa detects the cache line at run time on other processors.
        let line = if cfg!(any(target_arch = "x86_64", target_arch = "x86")) { 64 } else { 1 };
        let (format, is_flat) = (desc.format, desc.kind == ImageKind::D1);
        let whole = |texels: u32| texels.checked_next_multiple_of(BLOCK).unwrap_or(texels);
        desc.sum_slices(|width, height| {
            let row = format.row_bytes(whole(width)).next_multiple_of(line);
            row.saturating_mul(if is_flat { 1 } else { format.rows(whole(height)).into() })
        })
    }

    /// Rejects a memory descriptor that would make the driver hang or fail later.
    pub(super) fn check_memory_fd(self, fd: impl AsFd) -> Result<()> {
        if self.require_file {
            check_file(&fd)?;
        }
        self.check_semaphore_fd(fd)
    }

    /// Rejects a semaphore descriptor that would make the driver fail later.
    pub(super) fn check_semaphore_fd(self, fd: impl AsFd) -> Result<()> {
        if self.refuse_foreign_fds { check_nvidia_fd(fd) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desc::{Extent, ImageUsage};
    use crate::format::Format;

    #[test]
    fn a_driver_is_recognised_by_its_renderer() {
        assert!(Workarounds::of("llvmpipe (LLVM 15.0.6, 256 bits)").refuse_offsets);
        assert!(Workarounds::of("NVIDIA H200/PCIe/SSE2").refuse_foreign_fds);
        for other in [
            "zink Vulkan 1.3 (llvmpipe (LLVM 15.0.6))",
            "NVIDIA Tegra Orin (nvgpu)/integrated",
            "AMD Radeon RX 7900 XTX (radeonsi, navi31)",
        ] {
            assert_eq!(Workarounds::of(other), Workarounds::default(), "{other}");
        }
    }

    #[test]
    fn llvmpipe_textures_have_whole_blocks_and_cache_lines() {
        let llvmpipe = Workarounds::of("llvmpipe (LLVM 15.0.6, 256 bits)");
        let desc = ImageDesc::d2(Format::R8Unorm, 113, 211, ImageUsage::SAMPLED);
        let bytes = if cfg!(target_arch = "x86_64") { 128 * 212 } else { 116 * 212 };
        assert_eq!(llvmpipe.texture_bytes(&desc), bytes);
        assert_eq!(Workarounds::default().texture_bytes(&desc), 113 * 211);
        let row = ImageDesc {
            kind: ImageKind::D1,
            extent: Extent { width: 16, height: 1, depth: 1 },
            format: Format::Rgba32Float,
            layers: 3,
            ..desc
        };
        assert_eq!(llvmpipe.texture_bytes(&row), 16 * 16 * 3);
    }

    #[test]
    fn descriptors_that_harm_a_driver_are_refused() {
        let [nvidia, llvmpipe] = ["NVIDIA H200/PCIe/SSE2", "llvmpipe"].map(Workarounds::of);
        let file = tempfile::tempfile().unwrap();
        assert!(nvidia.check_memory_fd(&file).is_err());
        assert!(nvidia.check_semaphore_fd(&file).is_err());
        assert!(llvmpipe.check_memory_fd(&file).is_ok());
        let null = std::fs::File::open("/dev/null").unwrap();
        assert!(llvmpipe.check_memory_fd(&null).is_err());
        assert!(Workarounds::default().check_memory_fd(&null).is_ok());
    }
}

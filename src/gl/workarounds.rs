//! Driver bugs that this peer works around, each by name, driver, version and reason.

use std::os::fd::AsFd;

use super::texture_target;
use crate::desc::{ImageDesc, ImageKind};
use crate::error::Result;
use crate::fd::{check_file, check_nvidia_fd};

/// Spare bytes behind a shared buffer that the driver wants in its allocation.
///
/// Driver: Mesa llvmpipe, 22.3.6 and 25.0. `glNamedBufferStorageMemEXT` fails with
/// `GL_OUT_OF_MEMORY` when the memory object ends where the buffer ends: llvmpipe adds
/// `(LP_RASTER_BLOCK_SIZE - 1) * 4 * sizeof(float)` bytes to the buffer's size
/// (`llvmpipe_resource_from_memobj`). The exporter must allocate them; an importer can only say so.
pub const LLVMPIPE_TAIL_BYTES_WANTED: u64 = 48;

/// A buffer or texture at a non-zero offset of its memory is refused.
///
/// Driver: Mesa llvmpipe, 22.3.6 measured, and all later sources seen.
/// `llvmpipe_resource_from_memobj` ignores the offset, so that every resource begins where the
/// memory begins: no error, but another resource's bytes.
pub const LLVMPIPE_IGNORES_OFFSETS: bool = true;

/// A texture that is larger than its memory is refused.
///
/// Driver: Mesa llvmpipe, 22.3.6 and 23.2.1 measured; 25.0.7 and 25.2.8 refuse it with
/// `GL_OUT_OF_MEMORY`. The older ones take it, and what is behind the memory is read and overwritten.
/// How much llvmpipe wants for a texture is known (`llvmpipe_texture_layout`): rows and columns of
/// blocks of four texels, each row from the beginning of a cache line.
pub const LLVMPIPE_CHECKS_NO_TEXTURE_SIZE: bool = true;

/// An import is proven by a small buffer, which is deleted again.
///
/// Driver: Mesa llvmpipe, 22.3.6 measured. `glImportMemoryFdEXT` closes a descriptor that is none of
/// Mesa's and reports no error (`import_memoryobj_fd` drops the result of
/// `memobj_create_from_handle`); only a resource in that memory fails, with `GL_OUT_OF_MEMORY`.
pub const LLVMPIPE_REPORTS_NO_FAILED_IMPORT: bool = true;

/// Memory has to be a file.
///
/// Driver: Mesa llvmpipe, 22.3.6 measured. `glImportMemoryFdEXT` reads a header from whatever
/// descriptor it is given (`os_import_memory_fd`), which never returns where nobody writes to it: an
/// eventfd, a terminal. llvmpipe's own memory is a memfd.
pub const LLVMPIPE_READS_FROM_DESCRIPTORS: bool = true;

/// `glFinish` comes before a memory object is deleted.
///
/// Driver: Mesa llvmpipe, 22.3.6 measured. Deleting the memory object unmaps the memory at once, also
/// under a buffer that still lies in it: what the rasteriser's threads still do there is a
/// segmentation fault.
pub const LLVMPIPE_FREES_MEMORY_IN_USE: bool = true;

/// A descriptor that NVIDIA's driver can't have made is refused before the driver sees it.
///
/// Driver: NVIDIA 580.159. After one failed `glImportMemoryFdEXT` of a foreign descriptor (a memfd, an
/// eventfd, a pipe, `/dev/null`) every later one in the process fails with `GL_OUT_OF_MEMORY`, in
/// every context; after one failed `glImportSemaphoreFdEXT` Vulkan can't make exportable semaphores
/// any more. Integrated GPUs are left out: their descriptors may be dma-bufs.
pub const NVIDIA_FOREIGN_FD_BREAKS_LATER_IMPORTS: bool = true;

/// How often a semaphore can be imported in its life.
///
/// Driver: NVIDIA 580.159. The 253rd import of one semaphore fails with `GL_OUT_OF_MEMORY`, though
/// the earlier names were deleted; another semaphore can still be imported. There is no way round:
/// import a semaphore once and keep it.
pub const NVIDIA_IMPORTS_OF_ONE_SEMAPHORE: u32 = 252;

/// `glGetBufferSubData` of an imported buffer tells what it told the first time.
///
/// Driver: NVIDIA 580.159. The driver keeps what it has read, and reads again only after an OpenGL
/// shader has written to the buffer: not after a wait for a semaphore that lists it, a memory barrier,
/// `glFinish`, or `glBufferSubData`. Shaders and `glCopyBufferSubData` always see what the other API
/// wrote. Nothing here can help: copy to a buffer of OpenGL's own, and read that.
pub const NVIDIA_KEEPS_WHAT_IT_READ: bool = true;

/// Which of the bugs the present driver has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Workarounds {
    /// [`LLVMPIPE_TAIL_BYTES_WANTED`], or 0.
    pub(super) buffer_tail_bytes: u64,
    /// [`LLVMPIPE_IGNORES_OFFSETS`].
    pub(super) refuse_offsets: bool,
    /// [`LLVMPIPE_CHECKS_NO_TEXTURE_SIZE`].
    pub(super) check_texture_size: bool,
    /// [`LLVMPIPE_REPORTS_NO_FAILED_IMPORT`].
    pub(super) prove_imports: bool,
    /// [`LLVMPIPE_READS_FROM_DESCRIPTORS`].
    pub(super) memory_is_a_file: bool,
    /// [`LLVMPIPE_FREES_MEMORY_IN_USE`].
    pub(super) finish_before_freeing: bool,
    /// [`NVIDIA_FOREIGN_FD_BREAKS_LATER_IMPORTS`].
    pub(super) refuse_foreign_fds: bool,
}

impl Workarounds {
    /// The workarounds for a driver by its `GL_RENDERER`. zink, which may run over llvmpipe and
    /// then names it in brackets, imports through Vulkan and has none of the bugs.
    pub(super) fn of(renderer: &str) -> Self {
        if renderer.starts_with("llvmpipe") {
            return Self {
                buffer_tail_bytes: LLVMPIPE_TAIL_BYTES_WANTED,
                refuse_offsets: LLVMPIPE_IGNORES_OFFSETS,
                check_texture_size: LLVMPIPE_CHECKS_NO_TEXTURE_SIZE,
                prove_imports: LLVMPIPE_REPORTS_NO_FAILED_IMPORT,
                memory_is_a_file: LLVMPIPE_READS_FROM_DESCRIPTORS,
                finish_before_freeing: LLVMPIPE_FREES_MEMORY_IN_USE,
                refuse_foreign_fds: false,
            };
        }
        // "NVIDIA H200/PCIe/SSE2", but "NVIDIA Tegra Orin (nvgpu)/integrated".
        if renderer.starts_with("NVIDIA ") && renderer.contains("/PCIe") {
            return Self {
                refuse_foreign_fds: NVIDIA_FOREIGN_FD_BREAKS_LATER_IMPORTS,
                ..Self::default()
            };
        }
        Self::default()
    }

    /// Bytes that a texture of `desc` takes at least.
    pub(super) fn texture_bytes(self, desc: &ImageDesc) -> u64 {
        if !self.check_texture_size {
            return texture_target::least_bytes(desc);
        }
        const BLOCK: u64 = 4;
        // What a cache line is elsewhere, Mesa's own detection leaves open.
        let line = if cfg!(any(target_arch = "x86_64", target_arch = "x86")) { 64 } else { 1 };
        let texel = u64::from(desc.format.texel_bytes());
        let flat = desc.kind == ImageKind::D1;
        texture_target::bytes_by(desc, |width, height| {
            let row = width.next_multiple_of(BLOCK).saturating_mul(texel).next_multiple_of(line);
            row.saturating_mul(if flat { 1 } else { height.next_multiple_of(BLOCK) })
        })
    }

    /// Refuses a descriptor that the driver would hang on, or be harmed by.
    pub(super) fn check_memory_fd(self, fd: impl AsFd) -> Result<()> {
        if self.memory_is_a_file {
            check_file(&fd)?;
        }
        self.check_semaphore_fd(fd)
    }

    /// Refuses a descriptor that the driver would be harmed by.
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
    fn a_driver_is_known_by_its_renderer() {
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
    fn llvmpipe_wants_whole_blocks_and_lines() {
        let llvmpipe = Workarounds::of("llvmpipe (LLVM 15.0.6, 256 bits)");
        let desc = ImageDesc::d2(Format::R8Unorm, 113, 211, ImageUsage::SAMPLED);
        let wanted = if cfg!(target_arch = "x86_64") { 128 * 212 } else { 116 * 212 };
        assert_eq!(llvmpipe.texture_bytes(&desc), wanted);
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
    fn what_harms_a_driver_is_kept_from_it() {
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

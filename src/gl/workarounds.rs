//! Driver bugs that affect the OpenGL peer, and what it does about each.
//!
//! | Driver and version | Bug | What this peer does |
//! |---|---|---|
//! | Mesa llvmpipe, 22.3.6 and 25.0 | `glBufferStorageMemEXT` fails with `GL_OUT_OF_MEMORY` unless the memory object continues for [`LLVMPIPE_BUFFER_TAIL_BYTES`] after the buffer (`llvmpipe_resource_from_memobj`). | The error explains it. Only the exporter can allocate more. |
//! | Mesa llvmpipe, 22.3.6 and all later sources so far | The offset of a buffer or texture in its memory is ignored without an error, so the resource has the bytes at offset 0. | Refuses offsets other than 0. |
//! | Mesa llvmpipe, 22.3.6 and 23.2.1; fixed by 25.0.7 | A texture that is larger than its memory is accepted. Bytes past the end of the memory are then read and overwritten. | Computes llvmpipe's size of a texture (`llvmpipe_texture_layout`) and refuses one that doesn't fit. |
//! | Mesa llvmpipe, 22.3.6 | `glImportMemoryFdEXT` closes a descriptor that isn't Mesa's and reports no error (`import_memoryobj_fd`). The first resource in that memory fails with `GL_OUT_OF_MEMORY`. | Creates a buffer of one byte after each import, and deletes it. |
//! | Mesa llvmpipe, 22.3.6 | `glImportMemoryFdEXT` reads from the descriptor (`os_import_memory_fd`) and blocks indefinitely if nothing is written to it, as with an eventfd or a terminal. | Refuses descriptors that aren't regular files, which llvmpipe's memory is. |
//! | Mesa llvmpipe, 22.3.6 | Deleting a memory object unmaps the memory at once. The rasteriser's threads crash if they still use it. | Calls `glFinish` before it deletes a memory object. |
//! | Mesa llvmpipe, 22.3.6, fixed by 25.0.7 ([`LLVMPIPE_FREES_HELD_MEMORY`]) | The memory is unmapped although a framebuffer, a view, a vertex array or another object of the application still holds a texture or buffer in it. Using that object crashes. | Queries the context's framebuffers, vertex arrays, transform feedback objects and textures, and deletes the memory object when none of them holds, or may hold, anything in it. This is slow, so it is done once per 256 operations or 32 MiB. Objects of another context that shares with this one are not found. |
//! | Mesa llvmpipe, all versions so far | The rows of linear images have a pitch of its own; OpenGL can't set another. | Refuses an image whose payload gives another pitch. |
//! | NVIDIA 580.159 | After one failed import of a foreign descriptor (a memfd, an eventfd, `/dev/null`), every later `glImportMemoryFdEXT` in the process fails with `GL_OUT_OF_MEMORY`, and after a failed `glImportSemaphoreFdEXT` Vulkan can create no exportable semaphores. | Refuses descriptors that aren't NVIDIA's, except on integrated GPUs, whose descriptors may be dma-bufs. |
//! | NVIDIA 580.159 | A semaphore can be imported [`NVIDIA_IMPORTS_OF_ONE_SEMAPHORE`] times. The next import fails with `GL_OUT_OF_MEMORY`, even if the earlier names were deleted. | Nothing. Import a semaphore once and keep it. |
//! | NVIDIA 580.159 | `glGetBufferSubData` of an imported buffer returns the bytes that it returned the first time until an OpenGL shader writes to the buffer. Semaphore waits, memory barriers, `glFinish` and `glBufferSubData` don't help. Shaders and `glCopyBufferSubData` see the right bytes. | Nothing. Copy to a buffer of OpenGL's own and read that one. |

use std::os::fd::AsFd;

use crate::desc::{Extent, ImageDesc, ImageKind, Tiling};
use crate::error::Result;
use crate::fd::{check_file, check_nvidia_fd};
use crate::payload::LinearLayout;

/// Bytes that llvmpipe requires in the allocation after a buffer:
/// `(LP_RASTER_BLOCK_SIZE - 1) * 4 * sizeof(float)`.
pub const LLVMPIPE_BUFFER_TAIL_BYTES: u64 = 48;

/// The first major version of Mesa in which llvmpipe counts the users of a memory object.
///
/// Before, deleting a memory object unmaps the memory even while a framebuffer, a vertex array or
/// another object of the application still holds a buffer or texture in it, and using that object
/// crashes. Measured with 22.3.6; 25.0.7 has no such bug. So the memory object is deleted only when
/// no object of the context holds anything in it. Finding that out is slow, so dropped memory is
/// freed after at most 256 further operations of the endpoint, when 32 MiB wait, or by
/// [`Endpoint::delete_dropped`](super::Endpoint::delete_dropped). Objects of another context that
/// shares with this one are not found: delete them, and finish that context's commands, before the
/// texture or buffer is dropped.
pub const LLVMPIPE_FREES_HELD_MEMORY: u32 = 25;

/// The number of times that NVIDIA's driver can import one semaphore.
pub const NVIDIA_IMPORTS_OF_ONE_SEMAPHORE: u32 = 252;

/// The workarounds for the context's driver: the rows of the module's table that apply.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Workarounds {
    /// [`LLVMPIPE_BUFFER_TAIL_BYTES`], or 0.
    pub(super) buffer_tail_bytes: u64,
    pub(super) refuse_offsets: bool,
    knows_texture_layout: bool,
    pub(super) verify_imports: bool,
    require_file: bool,
    pub(super) finish_before_freeing: bool,
    pub(super) keep_held_memory: bool,
    refuse_foreign_fds: bool,
}

impl Workarounds {
    /// Returns the workarounds for a driver by its `GL_RENDERER`. zink, which names llvmpipe in
    /// brackets if it runs on it, imports through Vulkan and has none of the bugs.
    pub(super) fn of(renderer: &str, version: &glow::Version) -> Self {
        if renderer.starts_with("llvmpipe") {
            return Self {
                buffer_tail_bytes: LLVMPIPE_BUFFER_TAIL_BYTES,
                refuse_offsets: true,
                knows_texture_layout: true,
                verify_imports: true,
                require_file: true,
                finish_before_freeing: true,
                keep_held_memory: mesa_major(&version.vendor_info) < LLVMPIPE_FREES_HELD_MEMORY,
                refuse_foreign_fds: false,
            };
        }
        // "NVIDIA H200/PCIe/SSE2", but "NVIDIA Tegra Orin (nvgpu)/integrated".
        let refuse_foreign_fds = renderer.starts_with("NVIDIA ") && renderer.contains("/PCIe");
        Self { refuse_foreign_fds, ..Self::default() }
    }

    /// Returns the fewest bytes that a texture of `desc` needs.
    pub(super) fn texture_bytes(self, desc: &ImageDesc) -> u64 {
        if !self.knows_texture_layout {
            return desc.least_bytes();
        }
        desc.sum_slices(|width, height| llvmpipe_slice(desc, width, height).1)
    }

    /// Returns how a linear texture of `desc` is laid out, if that is known. OpenGL has no query
    /// for it.
    pub(super) fn linear_layout(self, desc: &ImageDesc) -> Option<LinearLayout> {
        if !self.knows_texture_layout || desc.tiling != Tiling::Linear {
            return None;
        }
        let Extent { width, height, .. } = desc.extent;
        let (row_pitch, slice) = llvmpipe_slice(desc, width, height);
        Some(LinearLayout { offset: 0, row_pitch, depth_pitch: slice, array_pitch: slice })
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

/// Returns the sizes in bytes of a row and of a slice of `width` × `height` texels in llvmpipe
/// (`llvmpipe_texture_layout`): whole blocks of 4 × 4 texels, each row from the beginning of a
/// cache line. Rows of compressed blocks follow each other without padding.
fn llvmpipe_slice(desc: &ImageDesc, width: u32, height: u32) -> (u64, u64) {
    const BLOCK: u32 = 4;
    if desc.format.is_compressed() {
        let row = desc.format.row_bytes(width);
        return (row, row.saturating_mul(desc.format.rows(height).into()));
    }
    // Mesa detects the cache line at run time on other processors.
    let line = if cfg!(any(target_arch = "x86_64", target_arch = "x86")) { 64 } else { 1 };
    let whole = |texels: u32| texels.checked_next_multiple_of(BLOCK).unwrap_or(texels);
    let row = desc.format.row_bytes(whole(width)).next_multiple_of(line);
    let rows = if desc.kind == ImageKind::D1 { 1 } else { desc.format.rows(whole(height)) };
    (row, row.saturating_mul(rows.into()))
}

/// Returns the major version of Mesa, or 0, from what follows the number in `GL_VERSION`.
fn mesa_major(vendor_info: &str) -> u32 {
    let version = vendor_info.split_once("Mesa ").map_or("", |(_, version)| version);
    version.split('.').next().and_then(|major| major.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desc::ImageUsage;
    use crate::format::Format;

    fn of(renderer: &str) -> Workarounds {
        Workarounds::of(renderer, &version("(Core Profile) Mesa 22.3.6"))
    }

    fn version(vendor_info: &str) -> glow::Version {
        let vendor_info = vendor_info.to_owned();
        glow::Version { major: 4, minor: 5, is_embedded: false, revision: None, vendor_info }
    }

    #[test]
    fn held_memory_is_kept_by_old_versions_of_llvmpipe() {
        for (vendor_info, kept) in [
            ("(Core Profile) Mesa 22.3.6", true),
            ("Mesa 23.2.1-1ubuntu3", true),
            ("", true),
            ("(Compatibility Profile) Mesa 25.0.7-2", false),
            ("(Core Profile) Mesa 26.2.6", false),
        ] {
            let found = Workarounds::of("llvmpipe (LLVM 15)", &version(vendor_info));
            assert_eq!(found.keep_held_memory, kept, "{vendor_info}");
        }
        assert!(!of("NVIDIA H200/PCIe/SSE2").keep_held_memory);
    }

    #[test]
    fn a_driver_is_recognised_by_its_renderer() {
        assert!(of("llvmpipe (LLVM 15.0.6, 256 bits)").refuse_offsets);
        assert!(of("NVIDIA H200/PCIe/SSE2").refuse_foreign_fds);
        for other in [
            "zink Vulkan 1.3 (llvmpipe (LLVM 15.0.6))",
            "NVIDIA Tegra Orin (nvgpu)/integrated",
            "AMD Radeon RX 7900 XTX (radeonsi, navi31)",
        ] {
            assert_eq!(of(other), Workarounds::default(), "{other}");
        }
    }

    #[test]
    fn llvmpipe_textures_have_whole_blocks_and_cache_lines() {
        let llvmpipe = of("llvmpipe (LLVM 15.0.6, 256 bits)");
        let desc = ImageDesc::d2(Format::R8Unorm, 113, 211, ImageUsage::SAMPLED);
        let bytes = if cfg!(target_arch = "x86_64") { 128 * 212 } else { 116 * 212 };
        assert_eq!(llvmpipe.texture_bytes(&desc), bytes);
        assert_eq!(Workarounds::default().texture_bytes(&desc), 113 * 211);
        let blocks = ImageDesc { format: Format::Bc1RgbaUnorm, ..desc };
        assert_eq!(llvmpipe.texture_bytes(&blocks), 29 * 8 * 53);
        assert_eq!(llvmpipe.linear_layout(&desc), None);
        let linear = ImageDesc { tiling: Tiling::Linear, ..desc };
        let layout = llvmpipe.linear_layout(&linear).unwrap();
        assert_eq!((layout.row_pitch * 212, layout.array_pitch), (bytes, bytes));
        assert_eq!(Workarounds::default().linear_layout(&linear), None);
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
        let [nvidia, llvmpipe] = ["NVIDIA H200/PCIe/SSE2", "llvmpipe"].map(of);
        let file = tempfile::tempfile().unwrap();
        assert!(nvidia.check_memory_fd(&file).is_err());
        assert!(nvidia.check_semaphore_fd(&file).is_err());
        assert!(llvmpipe.check_memory_fd(&file).is_ok());
        let null = std::fs::File::open("/dev/null").unwrap();
        assert!(llvmpipe.check_memory_fd(&null).is_err());
        assert!(Workarounds::default().check_memory_fd(&null).is_ok());
    }
}

//! Driver bugs that this peer works around, each by name, driver, version and reason.

/// Spare bytes behind a shared buffer that the driver wants in its allocation.
///
/// Driver: Mesa llvmpipe, 22.3.6 and 25.0. `glNamedBufferStorageMemEXT` fails with
/// `GL_OUT_OF_MEMORY` when the memory object ends where the buffer ends: llvmpipe adds
/// `(LP_RASTER_BLOCK_SIZE - 1) * 4 * sizeof(float)` bytes to the buffer's size
/// (`llvmpipe_resource_from_memobj`). The exporter must allocate them; an importer can only say so.
pub const LLVMPIPE_BUFFER_TAIL_BYTES: u64 = 48;

/// A buffer at a non-zero offset of its memory is refused.
///
/// Driver: Mesa llvmpipe, 22.3.6 measured, and all later sources seen.
/// `llvmpipe_resource_from_memobj` ignores the offset, so that every resource begins where the
/// memory begins: no error, but another resource's bytes.
pub const LLVMPIPE_IGNORES_OFFSETS: bool = true;

/// An import is proven by a small buffer, which is deleted again.
///
/// Driver: Mesa llvmpipe, 22.3.6 measured. `glImportMemoryFdEXT` closes a descriptor that is none of
/// Mesa's and reports no error (`import_memoryobj_fd` drops the result of
/// `memobj_create_from_handle`); only a resource in that memory fails, with `GL_OUT_OF_MEMORY`.
pub const LLVMPIPE_REPORTS_NO_FAILED_IMPORT: bool = true;

/// `glFinish` comes before a memory object is deleted.
///
/// Driver: Mesa llvmpipe, 22.3.6 measured. Deleting the memory object unmaps the memory at once, also
/// under a buffer that still lies in it: what the rasteriser's threads still do there is a
/// segmentation fault.
pub const LLVMPIPE_FREES_MEMORY_IN_USE: bool = true;

/// Which of the bugs the present driver has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Workarounds {
    /// [`LLVMPIPE_BUFFER_TAIL_BYTES`], or 0.
    pub(super) buffer_tail_bytes: u64,
    /// [`LLVMPIPE_IGNORES_OFFSETS`].
    pub(super) refuse_offsets: bool,
    /// [`LLVMPIPE_REPORTS_NO_FAILED_IMPORT`].
    pub(super) prove_imports: bool,
    /// [`LLVMPIPE_FREES_MEMORY_IN_USE`].
    pub(super) finish_before_freeing: bool,
}

impl Workarounds {
    /// The workarounds for a driver by its `GL_RENDERER`. zink, which may run over llvmpipe and
    /// then names it in brackets, imports through Vulkan and has none of the bugs.
    pub(super) fn of(renderer: &str) -> Self {
        if renderer.starts_with("llvmpipe") {
            return Self {
                buffer_tail_bytes: LLVMPIPE_BUFFER_TAIL_BYTES,
                refuse_offsets: LLVMPIPE_IGNORES_OFFSETS,
                prove_imports: LLVMPIPE_REPORTS_NO_FAILED_IMPORT,
                finish_before_freeing: LLVMPIPE_FREES_MEMORY_IN_USE,
            };
        }
        Self::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_llvmpipe_itself_is_worked_around() {
        assert!(Workarounds::of("llvmpipe (LLVM 15.0.6, 256 bits)").refuse_offsets);
        for other in ["NVIDIA H200/PCIe/SSE2", "zink Vulkan 1.3 (llvmpipe (LLVM 15.0.6))"] {
            assert_eq!(Workarounds::of(other), Workarounds::default(), "{other}");
        }
    }
}

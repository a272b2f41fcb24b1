//! Driver bugs that the CUDA peer works around.
//!
//! | name | driver | the bug | the workaround |
//! |---|---|---|---|
//! | `NVIDIA_FOREIGN_FD_BREAKS_LATER_IMPORTS` | NVIDIA 580.159, discrete GPUs (the descriptors of integrated GPUs may be dma-bufs) | `cuImportExternalMemory` closes a descriptor that it rejects (an eventfd), against its documentation; in Vulkan and OpenGL the same driver fails every later import in the process after one such descriptor | a descriptor that NVIDIA's driver can't have made is rejected before the driver sees it |
//! | `NVIDIA_LAYERED_LEVELS_LAID_OUT_DIFFERENTLY` | NVIDIA 580.159 | in a mipmapped array with layers, CUDA expects the second layer at a different place than Vulkan: only the first layer is read correctly. Layers without levels and levels without layers are correct | an image with several layers and several levels is refused ([`Memory::array`](super::Memory::array)) |
//! | `NVIDIA_SRGB_DECODES_ONLY_RED_OF_TWO_CHANNELS` | NVIDIA 580.159 | a texture object of two channels of bytes with `CU_TRSF_SRGB` returns green as it is stored | [`ReadMode::DecodeSrgb`](super::ReadMode::DecodeSrgb) is refused for two channels |

use std::os::fd::AsFd;

use crate::error::Result;
use crate::fd::check_nvidia_fd;

/// The workarounds that the present driver needs; those not listed are always on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Workarounds {
    /// `NVIDIA_FOREIGN_FD_BREAKS_LATER_IMPORTS`.
    refuse_foreign_fds: bool,
}

impl Workarounds {
    /// `is_integrated`: the GPU is part of the CPU's chip.
    pub(crate) fn of(is_integrated: bool) -> Self {
        Self { refuse_foreign_fds: !is_integrated }
    }

    /// Rejects a descriptor that would harm the driver.
    pub(crate) fn check_fd(self, fd: impl AsFd) -> Result<()> {
        if self.refuse_foreign_fds { check_nvidia_fd(fd) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    #[test]
    fn a_foreign_descriptor_does_not_reach_the_driver() {
        let file = tempfile::tempfile().unwrap();
        let refused = Workarounds::of(false).check_fd(&file);
        assert!(matches!(refused, Err(Error::Invalid(_))), "{refused:?}");
        Workarounds::of(true).check_fd(&file).unwrap();
    }
}

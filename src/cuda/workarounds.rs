//! Driver bugs that this peer works around, each by name, driver, version and reason.

use std::os::fd::AsFd;

use crate::error::Result;
use crate::fd::check_nvidia_fd;

/// A descriptor that NVIDIA's driver can't have made is refused before the driver sees it.
///
/// Driver: NVIDIA 580.159. `cuImportExternalMemory` closes what it refuses (an eventfd), against its
/// documentation, and in Vulkan and OpenGL the same driver refuses every later import in the process
/// after one such descriptor. Integrated GPUs are left out: their descriptors may be dma-bufs.
pub const NVIDIA_FOREIGN_FD_POISONS_IMPORTS: bool = true;

/// An image with several layers and several levels is refused.
///
/// Driver: NVIDIA 580.159. Of a mipmapped array with layers, CUDA expects the second layer elsewhere
/// than Vulkan has put it: the first is read right, of the others not a texel. Layers without levels
/// and levels without layers are right.
pub const NVIDIA_LAYS_OUT_LAYERED_LEVELS_OTHERWISE: bool = true;

/// Red alone of two channels is decoded from sRGB.
///
/// Driver: NVIDIA 580.159. A texture object of two channels of bytes with `CU_TRSF_SRGB` gives green
/// as it is stored. [`ReadMode::DecodeSrgb`](super::ReadMode::DecodeSrgb) is refused for those.
pub const NVIDIA_DECODES_RED_OF_TWO_CHANNELS: bool = true;

/// Which of the bugs the present driver has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Workarounds {
    /// [`NVIDIA_FOREIGN_FD_POISONS_IMPORTS`].
    refuse_foreign_fds: bool,
}

impl Workarounds {
    /// `is_integrated`: the GPU is part of the CPU's chip.
    pub(crate) fn of(is_integrated: bool) -> Self {
        Self { refuse_foreign_fds: NVIDIA_FOREIGN_FD_POISONS_IMPORTS && !is_integrated }
    }

    /// Refuses a descriptor that the driver would be harmed by.
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

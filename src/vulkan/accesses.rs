//! The resources that one release or acquire covers.

use std::ops::Deref;

use ash::vk;

use super::access::{BufferAccess, ImageAccess};
use super::endpoint::Endpoint;
use crate::error::{Invalid, Result};

/// One value, or a slice of them.
#[derive(Clone, Copy, Debug)]
pub(crate) enum List<'a, T> {
    One(T),
    Many(&'a [T]),
}

impl<T> Default for List<'_, T> {
    fn default() -> Self {
        Self::Many(&[])
    }
}

impl<T> Deref for List<'_, T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Many(many) => many,
        }
    }
}

/// The resources that a release or an acquire covers: buffers, images, or both. Both sides of a
/// handoff list the same number of each, in the same order.
///
/// Converts from one [`BufferAccess`] or [`ImageAccess`]; from a slice, or a reference to an array
/// or `Vec`, of either; or from a pair of slices: `(&buffers[..], &images[..])`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Accesses<'a> {
    buffers: List<'a, BufferAccess<'a>>,
    images: List<'a, ImageAccess<'a>>,
}

macro_rules! accesses_from {
    ($access:ident, $field:ident) => {
        impl<'a> From<$access<'a>> for Accesses<'a> {
            fn from(one: $access<'a>) -> Self {
                Self { $field: List::One(one), ..Self::default() }
            }
        }

        impl<'a> From<&$access<'a>> for Accesses<'a> {
            fn from(one: &$access<'a>) -> Self {
                (*one).into()
            }
        }

        impl<'a> From<&'a [$access<'a>]> for Accesses<'a> {
            fn from(many: &'a [$access<'a>]) -> Self {
                Self { $field: List::Many(many), ..Self::default() }
            }
        }

        impl<'a, const N: usize> From<&'a [$access<'a>; N]> for Accesses<'a> {
            fn from(many: &'a [$access<'a>; N]) -> Self {
                many.as_slice().into()
            }
        }

        impl<'a> From<&'a Vec<$access<'a>>> for Accesses<'a> {
            fn from(many: &'a Vec<$access<'a>>) -> Self {
                many.as_slice().into()
            }
        }
    };
}

accesses_from!(BufferAccess, buffers);
accesses_from!(ImageAccess, images);

impl<'a> From<(&'a [BufferAccess<'a>], &'a [ImageAccess<'a>])> for Accesses<'a> {
    fn from((buffers, images): (&'a [BufferAccess<'a>], &'a [ImageAccess<'a>])) -> Self {
        Self { buffers: List::Many(buffers), images: List::Many(images) }
    }
}

impl<'a> Accesses<'a> {
    /// Returns the buffers.
    pub fn buffers(&self) -> &[BufferAccess<'a>] {
        &self.buffers
    }

    /// Returns the images.
    pub fn images(&self) -> &[ImageAccess<'a>] {
        &self.images
    }

    /// Returns the same buffers with other images.
    pub(crate) fn with_images<'b>(self, images: &'b [ImageAccess<'b>]) -> Accesses<'b>
    where
        'a: 'b,
    {
        Accesses { buffers: self.buffers, images: List::Many(images) }
    }
}

impl Accesses<'_> {
    /// Rejects resources from another device, and layouts and ranges that an image can't have.
    pub(super) fn check(&self, endpoint: &Endpoint) -> Result<()> {
        let check_use = |resource, of: &Endpoint, stage: vk::PipelineStageFlags| -> Result<()> {
            if !of.is_same_device(endpoint) {
                return Err(Invalid::new(resource, "one of them belongs to another Vulkan device")
                    .help("a shared resource has a handle on each device: name this device's")
                    .into());
            }
            if stage.is_empty() {
                return Err(Invalid::new(resource, "the stage of one of them is empty")
                    .vuid("VUID-vkCmdPipelineBarrier-srcStageMask-03937")
                    .help("name the stages of the commands that use it")
                    .into());
            }
            Ok(())
        };
        for used in self.buffers() {
            check_use("buffers", used.buffer.endpoint(), used.stage)?;
        }
        for used in self.images() {
            check_use("images", used.image.endpoint(), used.stage)?;
            used.check()?;
        }
        Ok(())
    }
}

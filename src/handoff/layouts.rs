//! The image layouts that a ticket carries, and whether the acquiring side goes on from them.

use crate::desc::ImageLayout;
use crate::error::{Mismatch, Result};
use crate::vulkan::Accesses;

/// The layouts that one side of a handoff names for its images, in the order it lists them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Layouts {
    /// None: CUDA has no layouts, and of barriers that were recorded before nothing is known.
    #[default]
    Unknown,
    /// Vulkan's: before and after the transition.
    Pairs(Vec<(ImageLayout, ImageLayout)>),
    /// OpenGL's, of each texture one.
    #[cfg(feature = "gl")]
    Single(Vec<ImageLayout>),
}

impl Layouts {
    pub(crate) fn of_vulkan(used: &Accesses<'_>) -> Self {
        let pairs = used.images.iter().map(|i| (i.old_layout, i.new_layout));
        Self::Pairs(pairs.collect())
    }

    #[cfg(feature = "gl")]
    pub(crate) fn of_gl(layouts: impl IntoIterator<Item = ImageLayout>) -> Self {
        Self::Single(layouts.into_iter().collect())
    }

    /// Checks that `self`, of the releasing side, and `acquired` are two halves of one transition.
    pub(crate) fn check(&self, acquired: &Layouts) -> Result<()> {
        let (Some(released), Some(taken)) = (self.len(), acquired.len()) else { return Ok(()) };
        if released != taken {
            return Err(Mismatch::new("the number of images", released, taken)
                .help("list every shared image on both sides of the handoff, in the same order")
                .into());
        }
        for i in 0..released {
            let (Some(left), Some(found)) = (self.get(i), acquired.get(i)) else { continue };
            left.check(found)?;
        }
        Ok(())
    }

    fn len(&self) -> Option<usize> {
        match self {
            Self::Unknown => None,
            Self::Pairs(pairs) => Some(pairs.len()),
            #[cfg(feature = "gl")]
            Self::Single(layouts) => Some(layouts.len()),
        }
    }

    fn get(&self, i: usize) -> Option<Half> {
        match self {
            Self::Unknown => None,
            Self::Pairs(pairs) => pairs.get(i).map(|&(old, new)| Half::Pair(old, new)),
            #[cfg(feature = "gl")]
            Self::Single(layouts) => layouts.get(i).copied().map(Half::Single),
        }
    }
}

/// What one side names for one image.
#[derive(Clone, Copy, Debug)]
enum Half {
    Pair(ImageLayout, ImageLayout),
    #[cfg_attr(not(feature = "gl"), allow(dead_code))]
    Single(ImageLayout),
}

impl Half {
    /// Checks that `found`, of the acquiring side, goes on where `self` has left the image.
    fn check(self, found: Self) -> Result<()> {
        match (self, found) {
            (Self::Pair(old, new), Self::Pair(taken_from, taken_to)) => {
                same("old_layout", old, taken_from)?;
                same("new_layout", new, taken_to)
            }
            // OpenGL may always say GL_NONE: then the content is of no interest to it.
            (Self::Pair(..) | Self::Single(_), Self::Single(ImageLayout::UNDEFINED)) => Ok(()),
            (Self::Pair(_, left), Self::Single(taken))
            | (Self::Single(left), Self::Single(taken) | Self::Pair(taken, _)) => {
                same("the layout at the handoff", left, taken)
            }
        }
    }
}

fn same(field: &'static str, released: ImageLayout, acquired: ImageLayout) -> Result<()> {
    if released == acquired {
        return Ok(());
    }
    Err(Mismatch::new(field, released, acquired)
        .help("acquire an image with the layouts that it was released with")
        .into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    const GENERAL: ImageLayout = ImageLayout::GENERAL;
    const SAMPLED: ImageLayout = ImageLayout::SHADER_READ_ONLY_OPTIMAL;
    const COPIED: ImageLayout = ImageLayout::TRANSFER_SRC_OPTIMAL;

    fn refused(released: &Layouts, acquired: &Layouts) {
        let refused = released.check(acquired);
        assert!(matches!(refused, Err(Error::Mismatch(_))), "{released:?} {acquired:?}");
    }

    #[test]
    fn vulkan_names_the_same_pair_twice() {
        let released = Layouts::Pairs(vec![(COPIED, GENERAL), (GENERAL, SAMPLED)]);
        released.check(&released).unwrap();
        released.check(&Layouts::Unknown).unwrap();
        Layouts::Unknown.check(&released).unwrap();
        refused(&released, &Layouts::Pairs(vec![(COPIED, GENERAL)]));
        refused(&released, &Layouts::Pairs(vec![(GENERAL, SAMPLED), (COPIED, GENERAL)]));
        refused(&released, &Layouts::Pairs(vec![(COPIED, GENERAL), (GENERAL, GENERAL)]));
        refused(&Layouts::Pairs(Vec::new()), &released);
    }

    #[cfg(feature = "gl")]
    #[test]
    fn opengl_names_what_vulkan_left_and_what_vulkan_goes_on_from() {
        let released = Layouts::Pairs(vec![(COPIED, SAMPLED)]);
        let gl = |layout| Layouts::of_gl([layout]);
        released.check(&gl(ImageLayout::SHADER_READ_ONLY_OPTIMAL)).unwrap();
        released.check(&gl(ImageLayout::UNDEFINED)).unwrap();
        refused(&released, &gl(ImageLayout::TRANSFER_SRC_OPTIMAL));
        refused(&released, &Layouts::of_gl([]));
        let signalled = gl(ImageLayout::GENERAL);
        signalled.check(&Layouts::Pairs(vec![(GENERAL, COPIED)])).unwrap();
        signalled.check(&gl(ImageLayout::GENERAL)).unwrap();
        refused(&signalled, &Layouts::Pairs(vec![(COPIED, GENERAL)]));
    }
}

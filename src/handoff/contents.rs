//! What a release lists, and the image layouts that its ticket carries.

use smallvec::SmallVec;

use crate::desc::ImageLayout;
use crate::error::{Mismatch, Result};

/// The layouts that one side names for an image, before and after the handoff; either may be left
/// out.
pub(crate) type Named = (Option<ImageLayout>, Option<ImageLayout>);

/// The layouts that one image was released with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Released {
    /// The layout before the transition; `None` for a release by OpenGL, which does its own
    /// transition.
    pub(crate) old: Option<ImageLayout>,
    /// The layout in which the image is handed over.
    pub(crate) new: ImageLayout,
}

/// What a release lists, in the releasing side's order.
///
/// `None` if that is unknown: CUDA lists nothing, and prerecorded command buffers are not
/// inspected.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents(Option<Listed>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Listed {
    buffers: usize,
    images: SmallVec<[Released; 2]>,
}

impl Contents {
    /// A release whose contents are unknown.
    pub(crate) const UNKNOWN: Self = Self(None);

    /// A release by Vulkan. Layouts that are left out are `VK_IMAGE_LAYOUT_GENERAL`.
    pub(crate) fn of_vulkan(buffers: usize, images: impl Iterator<Item = Named>) -> Self {
        let pair = |(old, new): Named| Released {
            old: Some(old.unwrap_or(ImageLayout::GENERAL)),
            new: new.unwrap_or(ImageLayout::GENERAL),
        };
        Self(Some(Listed { buffers, images: images.map(pair).collect() }))
    }

    /// A release by OpenGL.
    #[cfg(feature = "gl")]
    pub(crate) fn of_gl(
        buffers: usize,
        textures: impl Iterator<Item = Option<ImageLayout>>,
    ) -> Self {
        let left =
            |new: Option<_>| Released { old: None, new: new.unwrap_or(ImageLayout::GENERAL) };
        Self(Some(Listed { buffers, images: textures.map(left).collect() }))
    }

    /// Returns the layout in which each image is handed over.
    pub(crate) fn layouts(&self) -> impl Iterator<Item = ImageLayout> {
        self.0.iter().flat_map(|listed| &listed.images).map(|released| released.new)
    }

    /// Returns the layouts of each image that the acquiring side lists, or `None` for each if they
    /// are unknown.
    ///
    /// # Errors
    /// [`Mismatch`] if the number of buffers or of images differs from the release.
    pub(crate) fn of_each(
        &self,
        buffers: usize,
        images: usize,
    ) -> Result<impl Iterator<Item = Option<Released>>> {
        if let Some(listed) = &self.0 {
            for (field, released, acquired) in [
                ("the number of buffers", listed.buffers, buffers),
                ("the number of images", listed.images.len(), images),
            ] {
                if released != acquired {
                    return Err(Mismatch::new(field, released, acquired)
                        .help(
                            "list everything that is released, on both sides and in the same order",
                        )
                        .into());
                }
            }
        }
        Ok((0..images).map(|i| self.0.as_ref().map(|listed| listed.images[i])))
    }
}

/// Returns the two layouts of Vulkan's acquire barrier.
///
/// After a release by Vulkan, both come from the release. After a release by OpenGL, only the first
/// does. Otherwise the acquiring side names them; by default there is no transition.
///
/// # Errors
/// [`Mismatch`] if the acquiring side names a layout other than that of the release.
pub(crate) fn acquired_by_vulkan(
    released: Option<Released>,
    (old, new): Named,
) -> Result<(ImageLayout, ImageLayout)> {
    let Some(Released { old: before, new: after }) = released else {
        let old = old.unwrap_or(ImageLayout::GENERAL);
        return Ok((old, new.unwrap_or_else(|| defined(old))));
    };
    match before {
        Some(before) => {
            same("old_layout", before, old)?;
            same("new_layout", after, new)?;
            Ok((before, after))
        }
        None => {
            same("old_layout", after, old)?;
            Ok((after, new.unwrap_or_else(|| defined(after))))
        }
    }
}

/// Returns the layout that OpenGL's acquire names. `ImageLayout::UNDEFINED` on the acquiring side
/// discards the content, whatever layout the image was released in.
///
/// # Errors
/// [`Mismatch`] if the acquiring side names a layout other than that of the release.
#[cfg(feature = "gl")]
pub(crate) fn acquired_by_gl(
    released: Option<Released>,
    named: Option<ImageLayout>,
) -> Result<ImageLayout> {
    match (released, named) {
        (_, Some(ImageLayout::UNDEFINED)) => Ok(ImageLayout::UNDEFINED),
        (Some(Released { new, .. }), named) => same("layout", new, named).map(|()| new),
        (None, named) => Ok(named.unwrap_or(ImageLayout::GENERAL)),
    }
}

/// Returns `layout`, or `VK_IMAGE_LAYOUT_GENERAL` if no image can be acquired in it.
fn defined(layout: ImageLayout) -> ImageLayout {
    if layout == ImageLayout::UNDEFINED { ImageLayout::GENERAL } else { layout }
}

fn same(field: &'static str, released: ImageLayout, named: Option<ImageLayout>) -> Result<()> {
    match named {
        Some(named) if named != released => Err(Mismatch::new(field, released, named)
            .help("leave the layout out: the ticket carries the one that the image was released in")
            .into()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GENERAL: ImageLayout = ImageLayout::GENERAL;
    const SAMPLED: ImageLayout = ImageLayout::SHADER_READ_ONLY_OPTIMAL;
    const COPIED: ImageLayout = ImageLayout::TRANSFER_SRC_OPTIMAL;
    const UNDEFINED: ImageLayout = ImageLayout::UNDEFINED;
    const UNNAMED: Named = (None, None);

    fn first(contents: &Contents) -> Option<Released> {
        contents.of_each(0, 1).unwrap().next().unwrap()
    }

    fn vulkan(named: Named) -> Option<Released> {
        first(&Contents::of_vulkan(0, [named].into_iter()))
    }

    #[test]
    fn vulkan_acquires_with_the_pair_of_the_release() {
        let released = vulkan((Some(COPIED), Some(SAMPLED)));
        for named in [UNNAMED, (Some(COPIED), None), (Some(COPIED), Some(SAMPLED))] {
            assert_eq!(acquired_by_vulkan(released, named), Ok((COPIED, SAMPLED)));
        }
        for named in [(Some(SAMPLED), None), (None, Some(COPIED)), (Some(UNDEFINED), None)] {
            let refused = acquired_by_vulkan(released, named).unwrap_err().to_string();
            assert!(refused.contains("leave the layout out"), "{refused}");
        }
        assert_eq!(acquired_by_vulkan(vulkan(UNNAMED), UNNAMED), Ok((GENERAL, GENERAL)));
    }

    #[test]
    fn vulkan_acquires_from_anything_if_the_release_knows_no_layout() {
        let unknown = first(&Contents::UNKNOWN);
        assert_eq!(acquired_by_vulkan(unknown, UNNAMED), Ok((GENERAL, GENERAL)));
        assert_eq!(acquired_by_vulkan(unknown, (None, Some(COPIED))), Ok((GENERAL, COPIED)));
        assert_eq!(acquired_by_vulkan(unknown, (Some(COPIED), None)), Ok((COPIED, COPIED)));
        assert_eq!(acquired_by_vulkan(unknown, (Some(UNDEFINED), None)), Ok((UNDEFINED, GENERAL)));
    }

    #[test]
    fn lists_of_different_length_are_refused() {
        let listed = Contents::of_vulkan(3, [UNNAMED, UNNAMED].into_iter());
        assert_eq!(listed.layouts().collect::<Vec<_>>(), [GENERAL, GENERAL]);
        for (buffers, images) in [(3, 0), (3, 1), (3, 3), (2, 2), (4, 2), (0, 0)] {
            assert!(listed.of_each(buffers, images).is_err(), "{buffers} {images}");
            assert_eq!(Contents::UNKNOWN.of_each(buffers, images).unwrap().count(), images);
        }
        assert_eq!(listed.of_each(3, 2).unwrap().count(), 2);
    }

    #[cfg(feature = "gl")]
    #[test]
    fn opengl_acquires_in_the_layout_that_vulkan_left() {
        let released = vulkan((Some(COPIED), Some(SAMPLED)));
        assert_eq!(acquired_by_gl(released, None), Ok(SAMPLED));
        assert_eq!(acquired_by_gl(released, Some(SAMPLED)), Ok(SAMPLED));
        assert_eq!(acquired_by_gl(released, Some(UNDEFINED)), Ok(UNDEFINED));
        assert!(acquired_by_gl(released, Some(COPIED)).is_err());
        assert_eq!(acquired_by_gl(None, None), Ok(GENERAL));
        assert_eq!(acquired_by_gl(None, Some(COPIED)), Ok(COPIED));
    }

    #[cfg(feature = "gl")]
    #[test]
    fn vulkan_acquires_from_the_layout_that_opengl_left() {
        let gl = |layout| first(&Contents::of_gl(0, [layout].into_iter()));
        assert_eq!(acquired_by_vulkan(gl(Some(COPIED)), UNNAMED), Ok((COPIED, COPIED)));
        assert_eq!(
            acquired_by_vulkan(gl(Some(COPIED)), (None, Some(SAMPLED))),
            Ok((COPIED, SAMPLED))
        );
        assert!(acquired_by_vulkan(gl(Some(COPIED)), (Some(SAMPLED), None)).is_err());
        assert_eq!(acquired_by_vulkan(gl(None), UNNAMED), Ok((GENERAL, GENERAL)));
        assert_eq!(acquired_by_vulkan(gl(Some(UNDEFINED)), UNNAMED), Ok((UNDEFINED, GENERAL)));
    }
}

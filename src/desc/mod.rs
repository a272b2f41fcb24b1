//! Descriptions of shared resources, independent of any API, and the one place that validates them.

#![forbid(unsafe_code)]

mod image;
mod layout;
mod resource;
mod shape;
mod usage;

pub use image::ImageDesc;
pub use layout::ImageLayout;
pub use resource::{BufferDesc, ResourceDesc};
pub use shape::{Extent, ImageKind, Origin, Tiling, full_mip_chain};
pub use usage::{BufferUsage, ImageFlags, ImageUsage, ViewFormats};

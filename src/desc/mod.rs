//! Descriptions of shared resources, independent of any API, and the one place that validates them.

#![forbid(unsafe_code)]

mod buffer;
mod image;
mod layout;
mod resource;

pub use buffer::{BufferDesc, BufferUsage};
pub use image::{Extent, ImageDesc, ImageKind, ImageUsage, Tiling, full_mip_chain};
pub use layout::ImageLayout;
pub use resource::ResourceDesc;

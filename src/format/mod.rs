//! Texel formats: one table with their names in Vulkan, OpenGL and CUDA, their block sizes and
//! aspects, and [`RawFormat`] for a format that the table lacks.
//!
//! Formats are plain numbers here, so that they need no GPU API. Each peer converts them to its own
//! types, and tests compare them with that API's constants.

#![forbid(unsafe_code)]

mod raw;
mod table;

pub(crate) use raw::check_number;
pub use raw::{Aspects, ChannelOrder, CudaFormat, GlFormat, RawFormat};
pub use table::Format;

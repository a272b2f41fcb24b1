//! Animated scenes for the demos, drawn by Vulkan and by OpenGL with the same GLSL, meshes and numbers.
//!
//! [`knot`] and [`turntable`] describe frames; [`vulkan::Painter`] and [`gl::Painter`] draw them with a
//! graphics pipeline: vertex, index, instance and uniform buffers, depth, four samples per pixel. In both,
//! row 0 of the target is the top of the picture.

mod drawing;
pub mod gl;
mod knot;
mod matrix;
mod mesh;
mod turntable;
pub mod vulkan;

pub use drawing::{Draw, Drawing, INSTANCES, Instance, OCCLUDERS, Uniforms};
pub use knot::{Tone, knot};
pub use matrix::{Mat4, Vec3};
pub use mesh::{Mesh, Meshes, Vertex};
pub use turntable::turntable;

/// The target of a painter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Canvas {
    /// Width and height in pixels.
    pub size: (u32, u32),
    /// Samples per pixel; 1 draws directly to the target, more are resolved into it.
    pub samples: u32,
    /// Whether depth is tested.
    pub depth: bool,
}

impl Canvas {
    /// For a scene: four samples, with depth.
    pub fn scene(size: (u32, u32)) -> Self {
        Self { size, samples: 4, depth: true }
    }

    /// For a pass over a picture: one sample, without depth.
    pub fn flat(size: (u32, u32)) -> Self {
        Self { size, samples: 1, depth: false }
    }
}

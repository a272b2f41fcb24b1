//! The API-independent description of a frame: the bytes that the shaders read, and the meshes.

use std::ops::Range;

use bytemuck::{Pod, Zeroable};

use super::matrix::{IDENTITY, Mat4, for_opengl};
use super::mesh::Mesh;

/// Maximum number of spheres that cast shadows.
pub const OCCLUDERS: usize = 64;

/// Maximum number of instances in a frame.
pub const INSTANCES: usize = 64;

/// The uniform block `Scene` of the shaders (std140).
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Uniforms {
    /// To Vulkan's clip space.
    pub view_projection: Mat4,
    /// The position of the eye.
    pub eye: [f32; 4],
    /// The position of the lamp, and its radius.
    pub light: [f32; 4],
    /// Its radiance.
    pub light_colour: [f32; 4],
    /// 1 if the scene is for a screen, 0 for radiance; the number of occluders; the part of the picture, in u
    /// and in v, that a face of the cube shows.
    pub settings: [f32; 4],
    /// Centres and radii.
    pub occluders: [[f32; 4]; OCCLUDERS],
}

impl Default for Uniforms {
    fn default() -> Self {
        Self { view_projection: IDENTITY, ..Self::zeroed() }
    }
}

/// A mesh's position and surface (attributes 3 to 8 of `scene.vert`).
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Instance {
    /// To world space: rotates, moves, scales uniformly.
    pub model: Mat4,
    /// Colour, and how metallic the surface is.
    pub colour: [f32; 4],
    /// Kind, as the fragment shader numbers it; 1, or -1 for the reflection in the floor; roughness; emission.
    pub material: [f32; 4],
}

impl Instance {
    /// The reflection of this instance in the floor.
    #[must_use]
    pub fn mirrored(mut self) -> Self {
        self.material[1] = -1.0;
        self
    }
}

/// Instances of a mesh, drawn at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draw {
    /// Which mesh.
    pub mesh: Mesh,
    /// The range of the drawing's instances.
    pub instances: Range<u32>,
}

/// Everything that a frame is drawn from.
#[derive(Clone, Debug, Default)]
pub struct Drawing {
    /// The uniform block.
    pub uniforms: Uniforms,
    /// Every instance; at most [`INSTANCES`].
    pub instances: Vec<Instance>,
    /// In the order of drawing.
    pub draws: Vec<Draw>,
}

impl Drawing {
    /// The sampling pass: draws a picture, one texel per pixel, `times` times.
    pub fn picture(times: u32) -> Self {
        let mut drawing = Self::default();
        let (colour, material) = ([1.0; 4], [0.0, 1.0, 0.0, 0.0]);
        let instance = Instance { model: IDENTITY, colour, material };
        drawing.instances.push(instance);
        let draw = Draw { mesh: Mesh::Screen, instances: 0..1 };
        drawing.draws = vec![draw; times as usize];
        drawing
    }

    /// Appends a draw of `mesh`.
    pub(super) fn push(&mut self, mesh: Mesh, instance: Instance) {
        let first = self.instances.len() as u32;
        self.instances.push(instance);
        match self.draws.last_mut() {
            Some(draw) if draw.mesh == mesh => draw.instances.end = first + 1,
            _ => self.draws.push(Draw { mesh, instances: first..first + 1 }),
        }
    }

    /// The uniform block for OpenGL's clip space.
    pub fn opengl_uniforms(&self) -> Uniforms {
        let view_projection = for_opengl(self.uniforms.view_projection);
        Uniforms { view_projection, ..self.uniforms }
    }
}

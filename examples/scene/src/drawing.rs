//! What a frame is drawn from, in no API's words: the bytes that the shaders read, and which meshes.

use std::ops::Range;

use bytemuck::{Pod, Zeroable};

use super::matrix::{IDENTITY, Mat4, for_opengl};
use super::mesh::Mesh;

/// Spheres that keep light away, at most.
pub const OCCLUDERS: usize = 64;

/// Instances of a frame, at most.
pub const INSTANCES: usize = 64;

/// The uniform block `Scene` of the shaders (std140).
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Uniforms {
    /// To Vulkan's clip space.
    pub view_projection: Mat4,
    /// If it is looked from.
    pub eye: [f32; 4],
    /// If the lamp is; the last is its radius.
    pub light: [f32; 4],
    /// Its radiance.
    pub light_colour: [f32; 4],
    /// 1 if the scene is for a screen and 0 if it is radiance; how many occluders; the part of a
    /// picture, in u and in v, that a face of the cube shows.
    pub settings: [f32; 4],
    /// Centres and radii.
    pub occluders: [[f32; 4]; OCCLUDERS],
}

impl Default for Uniforms {
    fn default() -> Self {
        Self { view_projection: IDENTITY, ..Self::zeroed() }
    }
}

/// A mesh's place and surface (attributes 3 to 8 of `scene.vert`).
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Instance {
    /// To the world: turns, moves, scales evenly.
    pub model: Mat4,
    /// The last: how metallic.
    pub colour: [f32; 4],
    /// Kind, as the fragment shader counts; 1, or -1 where its image in the floor is drawn; roughness;
    /// emission.
    pub material: [f32; 4],
}

impl Instance {
    /// The same as it is seen in the floor.
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
    /// Which of the drawing's instances.
    pub instances: Range<u32>,
}

/// All that a frame is drawn from.
#[derive(Clone, Debug, Default)]
pub struct Drawing {
    /// The uniform block.
    pub uniforms: Uniforms,
    /// Every instance; at most [`INSTANCES`].
    pub instances: Vec<Instance>,
    /// In the order they are drawn in.
    pub draws: Vec<Draw>,
}

impl Drawing {
    /// The sampling pass: a picture, a texel for a pixel, `times` times over.
    pub fn picture(times: u32) -> Self {
        let mut drawing = Self::default();
        let (colour, material) = ([1.0; 4], [0.0, 1.0, 0.0, 0.0]);
        let instance = Instance { model: IDENTITY, colour, material };
        drawing.instances.push(instance);
        let draw = Draw { mesh: Mesh::Screen, instances: 0..1 };
        drawing.draws = vec![draw; times as usize];
        drawing
    }

    /// Draws `mesh` after all that is drawn so far.
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

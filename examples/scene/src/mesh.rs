//! The meshes, all in one vertex and one index buffer.

use std::f32::consts::{PI, TAU};
use std::ops::Range;

use bytemuck::{Pod, Zeroable};

use super::matrix::{Vec3, cross, difference, normalized, sum, times};

/// A vertex, as `scene.vert` reads it.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Vertex {
    /// In the mesh's own space.
    pub position: [f32; 3],
    /// Of length 1.
    pub normal: [f32; 3],
    /// From 0 to 1; v = 0 is the top of a picture.
    pub uv: [f32; 2],
}

/// A mesh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mesh {
    /// A tube along the torus knot of 2 and 3.
    Knot,
    /// A sphere of radius 1.
    Ball,
    /// A square of side 2 in y = 0.
    Ground,
    /// A cube of side 2 with a picture on each face.
    Cube,
    /// A quad over the whole target, in clip space.
    Screen,
}

impl Mesh {
    /// Every mesh, in the order of [`Meshes`].
    pub const ALL: [Mesh; 5] = [Self::Knot, Self::Ball, Self::Ground, Self::Cube, Self::Screen];
}

/// All meshes.
#[derive(Clone, Debug, Default)]
pub struct Meshes {
    /// Their vertices.
    pub vertices: Vec<Vertex>,
    /// Triangles, as indices into all vertices.
    pub indices: Vec<u32>,
    ranges: [Range<u32>; 5],
}

/// The radius of the knot's tube.
pub(super) const TUBE: f32 = 0.27;

impl Meshes {
    /// Builds all meshes.
    pub fn new() -> Self {
        let mut meshes = Self::default();
        for mesh in Mesh::ALL {
            let first = meshes.indices.len() as u32;
            match mesh {
                Mesh::Knot => meshes.grid([320, 28], on_tube),
                Mesh::Ball => meshes.grid([64, 32], on_ball),
                Mesh::Ground => meshes.face([0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0; 3]),
                Mesh::Cube => meshes.cube(),
                // In clip space y is down, as v is.
                Mesh::Screen => meshes.face([0.0, 0.0, -1.0], [1.0, 0.0, 0.0], [0.0; 3]),
            }
            meshes.ranges[mesh as usize] = first..meshes.indices.len() as u32;
        }
        meshes
    }

    /// The range of the indices of `mesh`.
    pub fn range(&self, mesh: Mesh) -> Range<u32> {
        self.ranges[mesh as usize].clone()
    }

    /// A surface over (0, 0) to (1, 1).
    fn grid(&mut self, [across, down]: [u32; 2], at: impl Fn(f32, f32) -> (Vec3, Vec3)) {
        let first = self.vertices.len() as u32;
        for row in 0..=down {
            for column in 0..=across {
                let uv = [column as f32 / across as f32, row as f32 / down as f32];
                let (position, normal) = at(uv[0], uv[1]);
                self.vertices.push(Vertex { position, normal, uv });
            }
        }
        for row in 0..down {
            for column in 0..across {
                let corner = first + row * (across + 1) + column;
                self.quad(corner, corner + 1, corner + across + 1, corner + across + 2);
            }
        }
    }

    /// A square of side 2 with its middle at `middle`, whose u goes along `right`.
    fn face(&mut self, normal: Vec3, right: Vec3, middle: Vec3) {
        let first = self.vertices.len() as u32;
        let down = cross(right, normal);
        for (u, v) in [(0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (1.0, 1.0)] {
            let along = sum(times(right, 2.0 * u - 1.0), times(down, 2.0 * v - 1.0));
            self.vertices.push(Vertex { position: sum(middle, along), normal, uv: [u, v] });
        }
        self.quad(first, first + 1, first + 2, first + 3);
    }

    fn quad(&mut self, a: u32, b: u32, c: u32, d: u32) {
        self.indices.extend([a, c, b, b, c, d]);
    }

    fn cube(&mut self) {
        const X: Vec3 = [1.0, 0.0, 0.0];
        const Z: Vec3 = [0.0, 0.0, 1.0];
        let minus = |axis: Vec3| times(axis, -1.0);
        // Pictures stand upright on the sides.
        for (normal, right) in [
            (Z, X),
            (X, minus(Z)),
            (minus(Z), minus(X)),
            (minus(X), Z),
            ([0.0, 1.0, 0.0], X),
            ([0.0, -1.0, 0.0], X),
        ] {
            self.face(normal, right, normal);
        }
    }
}

/// A point on the knot; `u` from 0 to 1 runs along all of it.
pub(super) fn on_knot(u: f32) -> Vec3 {
    let angle = TAU * u;
    let away = 2.0 + (3.0 * angle).cos();
    times([away * (2.0 * angle).cos(), away * (2.0 * angle).sin(), (3.0 * angle).sin()], 0.52)
}

fn on_tube(u: f32, v: f32) -> (Vec3, Vec3) {
    let (before, at, after) = (on_knot(u - 1e-3), on_knot(u), on_knot(u + 1e-3));
    let along = normalized(difference(after, before));
    // The curve never runs towards or away from the origin, so that this is a side of it.
    let beside = normalized(cross(along, at));
    let out = cross(beside, along);
    let (sin, cos) = (TAU * v).sin_cos();
    let normal = sum(times(out, cos), times(beside, sin));
    (sum(at, times(normal, TUBE)), normal)
}

fn on_ball(u: f32, v: f32) -> (Vec3, Vec3) {
    let ((sin_u, cos_u), (sin_v, cos_v)) = ((TAU * u).sin_cos(), (PI * v).sin_cos());
    let normal = [sin_v * cos_u, cos_v, sin_v * sin_u];
    (normal, normal)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matrix::dot;

    #[test]
    fn meshes_are_whole_and_their_normals_are_normals() {
        let meshes = Meshes::new();
        let mut next = 0;
        for mesh in Mesh::ALL {
            let range = meshes.range(mesh);
            assert!(
                range.start == next && range.end > next && range.len().is_multiple_of(3),
                "{mesh:?}"
            );
            next = range.end;
        }
        assert_eq!(next as usize, meshes.indices.len());
        assert!(meshes.indices.iter().all(|&index| (index as usize) < meshes.vertices.len()));
        for vertex in &meshes.vertices {
            assert!((dot(vertex.normal, vertex.normal) - 1.0).abs() < 1e-3, "{vertex:?}");
            assert!(vertex.uv.iter().all(|uv| (0.0..=1.0).contains(uv)));
        }
    }

    #[test]
    fn pictures_stand_upright_on_the_sides_of_the_cube() {
        let meshes = Meshes::new();
        let cube = meshes.range(Mesh::Cube);
        let corners = cube.map(|i| meshes.vertices[meshes.indices[i as usize] as usize]);
        for corner in corners.filter(|corner| corner.normal[1] == 0.0) {
            assert_eq!(corner.position[1], 1.0 - 2.0 * corner.uv[1], "{corner:?}");
            // Seen from outside, u goes to the right.
            let right = cross([0.0, 1.0, 0.0], corner.normal);
            assert_eq!(dot(corner.position, right), 2.0 * corner.uv[0] - 1.0, "{corner:?}");
        }
    }
}

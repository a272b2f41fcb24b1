//! The scene that shows a picture: a rotating cube with the picture on its faces.

use super::drawing::{Drawing, Instance, Uniforms};
use super::matrix::{look_at, perspective, product, scaling, translation, turn_x, turn_y};
use super::mesh::Mesh;

/// Kinds of `cube.frag`.
const FACE: f32 = 0.0;
const FLOOR: f32 = 1.0;
const BACKDROP: f32 = 2.0;

/// Returns the cube at `time`, in seconds. `aspect` is the width divided by the height, both of the target
/// and of the picture on the faces, which show its central square.
pub fn turntable(time: f32, aspect: f32) -> Drawing {
    let eye = [0.0, 2.62, 4.75];
    let projection = perspective(0.66, aspect, 0.1, 60.0);
    let view_projection = product(projection, look_at(eye, [0.0, 1.13, 0.0]));
    let centre = [0.0, 1.38, 0.0];
    let turned = product(turn_x(0.10 * (0.9 * time).sin()), turn_y(0.6 * time - 0.50));
    let cube = product(product(translation(centre), turned), scaling(0.92));
    let mut uniforms = Uniforms {
        view_projection,
        eye: [eye[0], eye[1], eye[2], 1.0],
        light: [1.6, 5.2, 4.4, 0.0],
        light_colour: [3.0; 4],
        settings: [1.0, 1.0, (1.0 / aspect).min(1.0), aspect.min(1.0)],
        ..Uniforms::default()
    };
    uniforms.occluders[0] = [centre[0], centre[1], centre[2], 1.35];

    let of = |model, kind| Instance { model, colour: [1.0; 4], material: [kind, 1.0, 0.0, 0.0] };
    let mut drawing = Drawing { uniforms, ..Drawing::default() };
    drawing.push(Mesh::Ball, of(product(translation(eye), scaling(40.0)), BACKDROP));
    drawing.push(Mesh::Cube, of(cube, FACE).mirrored());
    drawing.push(Mesh::Ground, of(scaling(30.0), FLOOR));
    drawing.push(Mesh::Cube, of(cube, FACE));
    drawing
}

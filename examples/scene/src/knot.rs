//! The shared scene: a torus knot and balls over a chequered floor, with a circling lamp.

use super::drawing::{Drawing, Instance, OCCLUDERS, Uniforms};
use super::matrix::{
    Mat4, Vec3, look_at, moved, perspective, product, scaling, translation, turn_x, turn_y,
};
use super::mesh::{Mesh, TUBE, on_knot};

/// Kinds of `scene.frag`.
const SOLID: f32 = 0.0;
const FLOOR: f32 = 1.0;
const SKY: f32 = 2.0;
const KNOT: f32 = 3.0;

/// What the colours of a picture of the scene mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// Linear light for a screen, 0 to 1: for an sRGB image.
    Screen,
    /// Radiance, up to about 30: for an image of floats.
    Radiance,
}

const LAMP_RADIUS: f32 = 0.16;

struct Ball {
    centre: Vec3,
    radius: f32,
    colour: [f32; 4],
    roughness: f32,
}

/// Returns the scene at `time`, in seconds. `aspect` is the width divided by the height of the picture.
pub fn knot(time: f32, aspect: f32, tone: Tone) -> Drawing {
    let eye = [0.9 * (0.21 * time + 0.3).sin(), 2.45, 6.3];
    let projection = perspective(0.72, aspect, 0.1, 120.0);
    let view_projection = product(projection, look_at(eye, [0.0, 1.72, 0.0]));
    let around = 0.9 * time + 2.2;
    let light = [2.15 * around.cos(), 3.45 + 0.25 * (1.3 * time).sin(), 2.3 * around.sin()];
    let knot = knot_at(time);
    let balls = balls_at(time);

    let mut uniforms = Uniforms {
        view_projection,
        eye: [eye[0], eye[1], eye[2], 1.0],
        light: [light[0], light[1], light[2], LAMP_RADIUS],
        light_colour: [22.0, 18.5, 14.0, 0.0],
        ..Uniforms::default()
    };
    let spheres = balls.iter().map(|ball| (ball.centre, ball.radius)).collect::<Vec<_>>();
    let beads = OCCLUDERS - spheres.len();
    let bead = |i: usize| (moved(knot, on_knot(i as f32 / beads as f32)), TUBE);
    let all = spheres.into_iter().chain((0..beads).map(bead));
    for (place, (centre, radius)) in uniforms.occluders.iter_mut().zip(all) {
        *place = [centre[0], centre[1], centre[2], radius];
    }
    let screen = if tone == Tone::Screen { 1.0 } else { 0.0 };
    uniforms.settings = [screen, OCCLUDERS as f32, 1.0, 1.0];

    let mut drawing = Drawing { uniforms, ..Drawing::default() };
    drawing.push(Mesh::Ball, surface(sized(eye, 60.0), [1.0; 4], [SKY, 0.0, 0.0]));
    let solids = solids(light, knot, &balls);
    for (mesh, instance) in &solids {
        drawing.push(*mesh, instance.mirrored());
    }
    drawing.push(Mesh::Ground, surface(scaling(50.0), [1.0; 4], [FLOOR, 0.0, 0.0]));
    for (mesh, instance) in solids {
        drawing.push(mesh, instance);
    }
    drawing
}

/// The knot's position and rotation.
fn knot_at(time: f32) -> Mat4 {
    let turned = product(turn_y(0.45 * time + 0.42), turn_x(0.16 * (0.7 * time).sin() - 0.1));
    product(translation([0.0, 2.02, 0.0]), turned)
}

fn balls_at(time: f32) -> Vec<Ball> {
    let ball = |distance: f32, angle: f32, radius: f32, hop: f32, colour, roughness| {
        let height = radius + 0.45 * (hop + 2.2 * time).sin().abs() * radius;
        let centre = [distance * angle.cos(), height, distance * angle.sin()];
        Ball { centre, radius, colour, roughness }
    };
    let round = 0.32 * time;
    vec![
        ball(2.75, round + 0.75, 0.44, 0.0, [0.75, 0.035, 0.03, 0.0], 0.12),
        ball(2.60, round + 2.35, 0.36, 1.0, [0.95, 0.64, 0.28, 1.0], 0.22),
        ball(2.55, round + 3.65, 0.52, 2.0, [0.90, 0.92, 0.95, 1.0], 0.04),
        ball(2.85, round + 4.75, 0.34, 0.5, [0.02, 0.22, 0.55, 0.0], 0.10),
        ball(2.45, round + 5.75, 0.40, 1.5, [0.03, 0.42, 0.16, 0.0], 0.18),
    ]
}

fn solids(light: Vec3, knot: Mat4, balls: &[Ball]) -> Vec<(Mesh, Instance)> {
    let lacquer = surface(knot, [0.96, 0.55, 0.22, 0.85], [KNOT, 0.20, 0.0]);
    let lamp = surface(sized(light, LAMP_RADIUS), [1.0, 0.86, 0.66, 0.0], [SOLID, 1.0, 22.0]);
    let round = balls.iter().map(|ball| {
        let material = [SOLID, ball.roughness, 0.0];
        (Mesh::Ball, surface(sized(ball.centre, ball.radius), ball.colour, material))
    });
    [(Mesh::Knot, lacquer), (Mesh::Ball, lamp)].into_iter().chain(round).collect()
}

fn sized(at: Vec3, size: f32) -> Mat4 {
    product(translation(at), scaling(size))
}

/// An instance that is seen directly, with a kind, a roughness and an emission.
fn surface(model: Mat4, colour: [f32; 4], [kind, roughness, emission]: [f32; 3]) -> Instance {
    Instance { model, colour, material: [kind, 1.0, roughness, emission] }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drawing::INSTANCES;

    #[test]
    fn the_scene_moves_and_stays_above_its_floor() {
        let drawings = [0.0, 1.5, 60.0].map(|time| knot(time, 1.7, Tone::Screen));
        for drawing in &drawings {
            assert!(drawing.instances.len() <= INSTANCES);
            for &[_, y, _, radius] in &drawing.uniforms.occluders {
                assert!(radius > 0.0 && y >= radius - 1e-4, "{y} {radius}");
            }
        }
        let matrix = |i: usize| bytemuck::bytes_of(&drawings[i].uniforms).to_vec();
        assert!(matrix(0) != matrix(1) && matrix(1) != matrix(2));
    }
}

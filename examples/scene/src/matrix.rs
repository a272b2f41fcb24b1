//! The linear algebra of the scenes. Matrices are stored by columns, as in GLSL.

/// A position, a direction or a colour.
pub type Vec3 = [f32; 3];

/// Four columns.
pub type Mat4 = [[f32; 4]; 4];

/// The identity.
pub(super) const IDENTITY: Mat4 =
    [[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0]];

/// The product `a b`: applies `b`, then `a`.
pub(super) fn product(a: Mat4, b: Mat4) -> Mat4 {
    b.map(|column| {
        let mut sum = [0.0; 4];
        for (from, factor) in a.iter().zip(column) {
            for (sum, part) in sum.iter_mut().zip(from) {
                *sum += part * factor;
            }
        }
        sum
    })
}

/// Transforms a point by `matrix`.
pub(super) fn moved(matrix: Mat4, [x, y, z]: Vec3) -> Vec3 {
    let to = |i: usize| matrix[0][i] * x + matrix[1][i] * y + matrix[2][i] * z + matrix[3][i];
    [to(0), to(1), to(2)]
}

/// Moves by `by`.
pub(super) fn translation([x, y, z]: Vec3) -> Mat4 {
    let [a, b, c, _] = IDENTITY;
    [a, b, c, [x, y, z, 1.0]]
}

/// Scales uniformly by `factor`.
pub(super) fn scaling(factor: f32) -> Mat4 {
    let mut matrix = IDENTITY;
    for (i, column) in matrix.iter_mut().enumerate().take(3) {
        column[i] = factor;
    }
    matrix
}

/// Rotates about the x axis, in radians.
pub(super) fn turn_x(angle: f32) -> Mat4 {
    let (sin, cos) = angle.sin_cos();
    [IDENTITY[0], [0.0, cos, sin, 0.0], [0.0, -sin, cos, 0.0], IDENTITY[3]]
}

/// Rotates about the y axis, in radians.
pub(super) fn turn_y(angle: f32) -> Mat4 {
    let (sin, cos) = angle.sin_cos();
    [[cos, 0.0, -sin, 0.0], IDENTITY[1], [sin, 0.0, cos, 0.0], IDENTITY[3]]
}

/// Looks from `eye` at `target`; up is y.
pub(super) fn look_at(eye: Vec3, target: Vec3) -> Mat4 {
    let back = normalized(difference(eye, target));
    let right = normalized(cross([0.0, 1.0, 0.0], back));
    let up = cross(back, right);
    let row = |i: usize| [right[i], up[i], back[i], 0.0];
    let shift = |axis: Vec3| -dot(axis, eye);
    [row(0), row(1), row(2), [shift(right), shift(up), shift(back), 1.0]]
}

/// A perspective to Vulkan's clip space: y is down, depth goes from 0 at `near` to 1 at `far`.
///
/// `fov` is the angle of view of the smaller side of the picture, in radians; `aspect` is width divided by
/// height.
pub(super) fn perspective(fov: f32, aspect: f32, near: f32, far: f32) -> Mat4 {
    let focal = 1.0 / (0.5 * fov).tan();
    let (x, y) = if aspect >= 1.0 { (focal / aspect, focal) } else { (focal, focal * aspect) };
    let depth = far / (near - far);
    [
        [x, 0.0, 0.0, 0.0],
        [0.0, -y, 0.0, 0.0],
        [0.0, 0.0, depth, -1.0],
        [0.0, 0.0, near * depth, 0.0],
    ]
}

/// The same for OpenGL's clip space, whose depth goes from -1 to 1. Its y points up, but needs no change: row
/// 0 of the target is at y = -1 in both.
pub(super) fn for_opengl(projection: Mat4) -> Mat4 {
    projection.map(|[x, y, z, w]| [x, y, 2.0 * z - w, w])
}

pub(super) fn difference(a: Vec3, b: Vec3) -> Vec3 {
    [a[0] - b[0], a[1] - b[1], a[2] - b[2]]
}

pub(super) fn sum(a: Vec3, b: Vec3) -> Vec3 {
    [a[0] + b[0], a[1] + b[1], a[2] + b[2]]
}

pub(super) fn times(a: Vec3, factor: f32) -> Vec3 {
    a.map(|part| part * factor)
}

pub(super) fn dot(a: Vec3, b: Vec3) -> f32 {
    a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
}

pub(super) fn cross(a: Vec3, b: Vec3) -> Vec3 {
    [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]]
}

pub(super) fn normalized(a: Vec3) -> Vec3 {
    times(a, 1.0 / dot(a, a).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(a: Vec3, b: Vec3) {
        let off = difference(a, b);
        assert!(dot(off, off) < 1e-8, "{a:?} {b:?}");
    }

    #[test]
    fn matrices_do_what_they_are_called() {
        close(moved(translation([1.0, 2.0, 3.0]), [1.0, 1.0, 1.0]), [2.0, 3.0, 4.0]);
        close(moved(scaling(2.0), [1.0, 2.0, 3.0]), [2.0, 4.0, 6.0]);
        let quarter = std::f32::consts::FRAC_PI_2;
        close(moved(turn_x(quarter), [0.0, 1.0, 0.0]), [0.0, 0.0, 1.0]);
        close(moved(turn_y(quarter), [0.0, 0.0, 1.0]), [1.0, 0.0, 0.0]);
        let both = product(translation([1.0, 0.0, 0.0]), turn_y(quarter));
        close(moved(both, [0.0, 0.0, 1.0]), [2.0, 0.0, 0.0]);
        close(moved(look_at([0.0, 0.0, 5.0], [0.0; 3]), [1.0, 2.0, 0.0]), [1.0, 2.0, -5.0]);
    }

    #[test]
    fn up_is_the_first_row_and_depth_has_each_apis_range() {
        let projection = perspective(1.0, 2.0, 0.5, 20.0);
        let at = |matrix: Mat4, z: f32| {
            let w = matrix[2][3] * z;
            (matrix[2][2] * z + matrix[3][2]) / w
        };
        assert!(projection[1][1] < 0.0);
        assert!(at(projection, -0.5).abs() < 1e-6 && (at(projection, -20.0) - 1.0).abs() < 1e-6);
        let opengl = for_opengl(projection);
        assert!((at(opengl, -0.5) + 1.0).abs() < 1e-5 && (at(opengl, -20.0) - 1.0).abs() < 1e-5);
    }
}

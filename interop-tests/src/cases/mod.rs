//! The cases of the conformance matrix, a module a group.

mod aliasing;
mod aliasing_adopted;
mod aliasing_memory;
mod aliasing_offsets;
mod cuda;
mod cuda_export;
mod cuda_handoff;
mod cuda_refusals;
mod cuda_semaphores;
mod opengl;
mod opengl_raw;
mod players;
mod together;
mod together_teardown;
mod together_threads;
mod validation;

use crate::suite::Case;

/// Every case, in the order of the matrix.
pub fn all() -> Vec<Case> {
    [
        aliasing::cases(),
        aliasing_memory::cases(),
        aliasing_offsets::cases(),
        aliasing_adopted::cases(),
        opengl::cases(),
        opengl_raw::cases(),
        cuda::cases(),
        cuda_handoff::cases(),
        cuda_refusals::cases(),
        cuda_semaphores::cases(),
        cuda_export::cases(),
        together::cases(),
        together_teardown::cases(),
        together_threads::cases(),
        validation::cases(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

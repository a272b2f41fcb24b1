//! The cases of the conformance matrix, a module a group.

mod aliasing;
mod aliasing_adopted;
mod aliasing_memory;
mod aliasing_offsets;
mod calibration;
mod capability;
mod capability_proof;
mod capability_raw;
mod cuda;
mod cuda_export;
mod cuda_handoff;
mod cuda_refusals;
mod cuda_semaphores;
mod descriptors;
mod descriptors_exports;
mod descriptors_foreign;
mod descriptors_imports;
mod descriptors_inherited;
mod descriptors_limit;
mod descriptors_refused;
mod exporters;
mod handoff;
mod handoff_hazards;
mod handoff_tickets;
mod handoff_waits;
mod hostile;
mod hostile_buffers;
mod hostile_images;
mod hostile_semaphores;
mod identity;
mod identity_raw;
mod images_cuda;
mod images_cuda_gl;
mod images_cuda_life;
mod images_cuda_linear;
mod images_cuda_reads;
mod images_gl;
mod images_gl_depth;
mod images_gl_layouts;
mod images_gl_memory;
mod images_gl_pair;
mod images_gl_refused;
mod images_rounding;
mod images_vulkan;
mod images_vulkan_adopted;
mod images_vulkan_layouts;
mod images_vulkan_memory;
mod images_vulkan_refused;
mod importers;
mod in_queue;
mod in_queue_launch;
mod in_queue_life;
mod ladder;
mod opengl;
mod opengl_draw;
mod opengl_raw;
mod payload_lies;
mod players;
mod postprocess;
mod ring;
mod ring_hands;
mod ring_held;
mod ring_limits;
mod ring_pairs;
mod routes;
mod session;
mod session_chance;
mod session_images;
mod session_kills;
mod session_kills_producers;
mod session_peers;
mod session_toll;
mod share;
mod together;
mod together_teardown;
mod together_threads;
mod validation;
mod vulkan_gl;
mod vulkan_gl_semaphores;

use crate::suite::{Case, Role};

/// Every case, in the order of the matrix.
pub fn all() -> Vec<Case> {
    [
        identity::cases(),
        capability::cases(),
        capability_proof::cases(),
        descriptors_exports::cases(),
        descriptors_imports::cases(),
        descriptors_refused::cases(),
        descriptors_inherited::cases(),
        descriptors_limit::cases(),
        descriptors_foreign::cases(),
        payload_lies::cases(),
        hostile_buffers::cases(),
        hostile_images::cases(),
        hostile_semaphores::cases(),
        aliasing::cases(),
        aliasing_memory::cases(),
        aliasing_offsets::cases(),
        aliasing_adopted::cases(),
        images_vulkan::cases(),
        images_vulkan_memory::cases(),
        images_vulkan_layouts::cases(),
        images_vulkan_adopted::cases(),
        images_vulkan_refused::cases(),
        images_gl::cases(),
        images_gl_depth::cases(),
        images_gl_layouts::cases(),
        images_gl_memory::cases(),
        images_gl_refused::cases(),
        images_rounding::cases(),
        opengl::cases(),
        opengl_raw::cases(),
        opengl_draw::cases(),
        vulkan_gl::cases(),
        vulkan_gl_semaphores::cases(),
        handoff::cases(),
        handoff_tickets::cases(),
        handoff_waits::cases(),
        handoff_hazards::cases(),
        cuda::cases(),
        cuda_handoff::cases(),
        cuda_refusals::cases(),
        cuda_semaphores::cases(),
        cuda_export::cases(),
        images_cuda::cases(),
        images_cuda_reads::cases(),
        images_cuda_linear::cases(),
        images_cuda_life::cases(),
        images_cuda_gl::cases(),
        postprocess::cases(),
        in_queue::cases(),
        in_queue_launch::cases(),
        in_queue_life::cases(),
        ring::cases(),
        share::cases(),
        ring_pairs::cases(),
        ring_limits::cases(),
        routes::cases(),
        calibration::cases(),
        ladder::cases(),
        together::cases(),
        together_teardown::cases(),
        together_threads::cases(),
        session::cases(),
        session_images::cases(),
        session_kills::cases(),
        session_kills_producers::cases(),
        validation::cases(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// What the children of the cases do.
pub fn roles() -> Vec<Role> {
    [
        descriptors_inherited::roles(),
        hostile::roles(),
        share::roles(),
        session::roles(),
        session_images::roles(),
        session_peers::roles(),
        validation::roles(),
    ]
    .concat()
}

//! The cases of the conformance matrix (`MATRIX.md`), one folder per subject.

mod aliasing;
mod capability;
mod cuda;
mod descriptors;
mod handoff;
mod headless;
mod hostile;
mod identity;
mod images_cuda;
mod images_gl;
mod images_vulkan;
mod multi_api;
mod nvx;
mod opengl;
mod ring;
mod session;
mod support;
mod tune;
mod validation;

use crate::harness::{Case, Role};

/// Every case, in the order of the matrix.
pub fn all() -> Vec<Case> {
    [
        identity::cases(),
        headless::cases(),
        capability::answers::cases(),
        capability::proof::cases(),
        capability::devices::cases(),
        descriptors::exports::cases(),
        descriptors::imports::cases(),
        descriptors::refused::cases(),
        descriptors::inherited::cases(),
        descriptors::limit::cases(),
        descriptors::foreign::cases(),
        hostile::payload_fields::cases(),
        hostile::buffers::cases(),
        hostile::images::cases(),
        hostile::semaphores::cases(),
        aliasing::import_order::cases(),
        aliasing::memory::cases(),
        aliasing::mapped::cases(),
        aliasing::offsets::cases(),
        aliasing::adopted::cases(),
        images_vulkan::cases(),
        images_vulkan::memory::cases(),
        images_vulkan::layouts::cases(),
        images_vulkan::adopted::cases(),
        images_vulkan::refused::cases(),
        images_gl::cases(),
        images_gl::depth::cases(),
        images_gl::layouts::cases(),
        images_gl::memory::cases(),
        images_gl::refused::cases(),
        images_gl::rounding::cases(),
        opengl::cases(),
        opengl::bindings::cases(),
        opengl::raw::cases(),
        opengl::draw::cases(),
        opengl::holders::cases(),
        opengl::errors::cases(),
        opengl::contexts::cases(),
        handoff::vulkan_gl::cases(),
        handoff::vulkan_gl_semaphores::cases(),
        handoff::cases(),
        handoff::tickets::cases(),
        handoff::waits::cases(),
        handoff::hazards::cases(),
        handoff::stress::cases(),
        handoff::submits::cases(),
        cuda::cases(),
        cuda::refusals::cases(),
        cuda::semaphores::cases(),
        cuda::export::cases(),
        cuda::capture::cases(),
        cuda::graph::cases(),
        cuda::raw::cases(),
        images_cuda::cases(),
        images_cuda::reads::cases(),
        images_cuda::linear::cases(),
        images_cuda::copies::cases(),
        images_cuda::compressed::cases(),
        images_cuda::life::cases(),
        images_gl::cuda::cases(),
        images_cuda::postprocess::cases(),
        nvx::cases(),
        nvx::launch::cases(),
        nvx::life::cases(),
        ring::cases(),
        session::share::cases(),
        ring::limits::cases(),
        tune::routes::cases(),
        tune::calibration::cases(),
        tune::cases(),
        multi_api::round_trips::cases(),
        multi_api::teardown::cases(),
        session::payloads::cases(),
        session::images::cases(),
        session::kills::cases(),
        session::kills_producers::cases(),
        session::work::cases(),
        session::attacks::cases(),
        session::hostile_producers::cases(),
        session::python::cases(),
        validation::cases(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// What the child processes of the cases do.
pub fn roles() -> Vec<Role> {
    [
        descriptors::inherited::roles(),
        hostile::buffers::roles(),
        hostile::images::roles(),
        hostile::semaphores::roles(),
        session::share::roles(),
        session::attackers::roles(),
        session::attacks::roles(),
        session::hostile_producers::roles(),
        session::payloads::roles(),
        session::images::roles(),
        session::peers::roles(),
        handoff::submits::roles(),
        headless::roles(),
        opengl::holders::roles(),
        opengl::contexts::roles(),
        validation::roles(),
    ]
    .concat()
}

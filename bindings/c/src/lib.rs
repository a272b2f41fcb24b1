//! The C API of [`gpu_interop`]: shares GPU memory between Vulkan, OpenGL, CUDA and processes on
//! Linux, without a copy.
//!
//! C and C++ apps include `gpu_interop.h`, which is generated from this crate; the README describes
//! how to install and link it. Rust apps use `gpu_interop` itself.
//!
//! # The contract of every function
//!
//! - A pointer is null or valid for its purpose: aligned, and of memory that lives during the call.
//!   If a required pointer is null, the call returns `GI_RESULT_INVALID`.
//! - A handle (`gi_buffer *`) was returned by this library and not destroyed since. Functions that
//!   take a handle by a pointer to const may be called from several threads at once, others not.
//! - A function that consumes a handle takes a pointer to it (`gi_payload **`). If it succeeds, it
//!   sets the caller's pointer to null. If it fails, the handle still belongs to the caller.
//! - An output (`gi_buffer **out`) is written only if the call succeeds.
//! - Structures with a `struct_size` can grow: set every byte to 0, then `struct_size` to their
//!   `sizeof`. A field of 0 means its default.
//! - No panic leaves a function: it returns `GI_RESULT_PANIC`.

#![allow(
    clippy::missing_safety_doc,
    reason = "the contract above is that of every function; its comment, which the header repeats, \
              adds what else is required"
)]

mod args;
mod buffer;
mod commands;
mod endpoint;
mod error;
mod foreign;
mod handoff;
mod image;
mod ipc;
mod payload;
mod ring;
mod semaphore;
mod session;

pub use buffer::*;
pub use commands::*;
pub use endpoint::*;
pub use error::{gi_last_driver_code, gi_last_error, gi_result, gi_version};
pub use foreign::*;
pub use handoff::*;
pub use image::*;
pub use ipc::*;
pub use payload::*;
pub use ring::*;
pub use semaphore::*;
pub use session::*;

/// Handles that a function takes by a pointer to const may be used by several threads at once.
#[cfg(test)]
const _: () = {
    const fn check<T: Send + Sync>() {}
    check::<gi_endpoint>();
    check::<gi_buffer>();
    check::<gi_mapping>();
    check::<gi_image>();
    check::<gi_payload>();
    check::<gi_semaphore>();
    check::<gi_releaser>();
    check::<gi_ticket>();
    check::<gi_stage>();
    check::<gi_batch>();
    check::<gi_producer>();
    check::<gi_consumer>();
    check::<gi_frame>();
};

//! The rungs, each built for a path and a payload size.

mod alone_cuda;
mod alone_vulkan;
mod build;
mod host_copy;
mod in_queue;
mod lane;
mod one_queue;
mod ring;

pub(super) use alone_cuda::AloneCuda;
pub(super) use alone_vulkan::alone_vulkan;
pub(super) use build::Builder;

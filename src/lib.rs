//! Shares GPU memory between Vulkan, OpenGL, CUDA and processes on Linux, without a copy.
//!
//! Vulkan device memory is exported as a file descriptor (`VK_KHR_external_memory_fd`) and imported
//! by OpenGL (`GL_EXT_memory_object_fd`), CUDA (`cuImportExternalMemory`) and other Vulkan devices
//! (`VkImportMemoryFdInfoKHR`), in this process or another one. The library works on the
//! application's own `ash`, `glow` and `cudarc` contexts and never creates or destroys one; only
//! `headless` opens contexts.
//!
//! # Modules
//!
//! Each module uses only modules in the rows above its own.
//!
//! | floor | modules | what they hold |
//! |---|---|---|
//! | 0 | [`desc`], [`format`](mod@format), [`capabilities`], [`payload`], [`fd`], [`identity`], [`peer`], [`error`](mod@error) | descriptions, payloads, errors; no GPU API |
//! | 1 | `vulkan`, `gl`, `cuda` | the peers: endpoints over the application's contexts, which export and import |
//! | 1 | `ipc` | payloads over a Unix socket |
//! | 2 | `handoff`, `ring` | synchronised access to a payload, and to several payloads in flight |
//! | 2 | `session` | a ring that is shared with other processes |
//! | 2 | `tune` | measures the routes between two endpoints |
//! | 2 | `nvx` | CUDA kernels in a Vulkan queue |
//! | 2 | `headless` | opens Vulkan, EGL/OpenGL and CUDA on one GPU |
//!
//! The usual order: create an endpoint for each context, query [`capabilities`] and make a
//! [`plan`](capabilities::plan), create an exportable resource in Vulkan or CUDA, export it as a
//! payload, import the payload into another endpoint, and open a handoff between the two.
//!
//! # Cargo features
//!
//! | feature | what it adds | default |
//! |---|---|---|
//! | `vulkan` | the Vulkan peer, over the application's `ash` device; `handoff` and `ring` | yes |
//! | `gl` | the OpenGL peer, over the application's `glow` context | yes |
//! | `cuda` | the CUDA peer, over the application's `cudarc` context; libcuda is loaded at run time | yes |
//! | `ipc` | payloads over a Unix socket; needs no GPU API | no |
//! | `session` | a ring of payloads shared with other processes, over `ipc` | no |
//! | `headless` | opens Vulkan, EGL/OpenGL and CUDA on one GPU, without a display | no |
//! | `tune` | measures the routes between two endpoints and chooses one | no |
//! | `nvx` | CUDA kernels in a Vulkan queue, with NVIDIA's experimental `VK_NVX_binary_import` | no |
//! | `serde` | calibrations of `tune` can be stored | no |

#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod capabilities;
pub mod desc;
pub mod error;
pub mod fd;
pub mod format;
pub mod identity;
pub mod payload;
pub mod peer;

#[cfg(feature = "cuda")]
pub mod cuda;
#[cfg(feature = "gl")]
pub mod gl;
#[cfg(feature = "vulkan")]
pub mod vulkan;

#[cfg(feature = "ipc")]
pub mod ipc;

#[cfg(feature = "vulkan")]
pub mod handoff;
#[cfg(feature = "headless")]
pub mod headless;
#[cfg(feature = "nvx")]
pub mod nvx;
#[cfg(feature = "vulkan")]
pub mod ring;
#[cfg(feature = "session")]
pub mod session;
#[cfg(feature = "tune")]
pub mod tune;

pub use desc::{BufferDesc, BufferUsage, ImageDesc, ImageLayout, ImageUsage, ResourceDesc};
pub use error::{Api, Error, ImportError, ImportResult, Result};
pub use identity::{Identity, Uuid};
pub use payload::{
    BufferPayload, ImagePayload, MemoryPayload, Payload, SemaphoreKind, SemaphorePayload,
};
pub use peer::Peer;

/// The README's example is compiled with the documentation tests.
#[cfg(all(doctest, feature = "vulkan", feature = "gl"))]
#[doc = include_str!("../README.md")]
struct Readme;

#[cfg(feature = "vulkan")]
pub use ash;
#[cfg(feature = "cuda")]
pub use cudarc;
#[cfg(feature = "gl")]
pub use glow;

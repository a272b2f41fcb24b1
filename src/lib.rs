#![cfg_attr(feature = "headless", doc = include_str!("../README.md"))]
#![cfg_attr(
    not(feature = "headless"),
    doc = "One piece of GPU memory in several APIs, devices and processes."
)]
#![cfg_attr(not(feature = "headless"), doc = "")]
#![cfg_attr(
    not(feature = "headless"),
    doc = "(Built without the feature `headless`, which the overview's example needs.)"
)]
#![cfg_attr(docsrs, feature(doc_cfg))]
//!
//! # Cargo features
//!
//! | feature | what it gives | on by default |
//! |---|---|---|
//! | `vulkan` | the Vulkan peer, over the user's `ash` device | yes |
//! | `gl` | the OpenGL peer, over the user's `glow` context | yes |
//! | `cuda` | the CUDA peer, over the user's `cudarc` context; libcuda is loaded at run time | yes |
//! | `ipc` | payloads over a Unix socket; needs no GPU API | no |
//! | `headless` | opens Vulkan, EGL and CUDA on one GPU, without a display | no |
//! | `nvx` | CUDA kernels in a Vulkan queue, by NVIDIA's experimental extension `VK_NVX_binary_import` | no |

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

#[cfg(feature = "vulkan")]
pub use ash;
#[cfg(feature = "cuda")]
pub use cudarc;
#[cfg(feature = "gl")]
pub use glow;

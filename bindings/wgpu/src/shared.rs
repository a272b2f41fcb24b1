//! Shared resources: each is a wgpu resource and a Vulkan one over the same memory.

use std::ops::Deref;

use gpu_interop::payload::{BufferPayload, ImagePayload};
use gpu_interop::{ImageLayout, Result, vulkan};
use wgpu::hal;

/// A buffer in shared memory. Dereferences to the [`wgpu::Buffer`]. Cheap to clone.
///
/// The memory is freed when wgpu, submitted handoffs and clones of this no longer use it. It can't
/// be mapped: copy it to a buffer that can.
#[derive(Clone, Debug)]
pub struct SharedBuffer {
    pub(crate) wgpu: wgpu::Buffer,
    pub(crate) vulkan: vulkan::Buffer,
}

impl SharedBuffer {
    /// Returns the buffer as `gpu_interop` knows it.
    pub fn vulkan(&self) -> &vulkan::Buffer {
        &self.vulkan
    }

    /// Exports the buffer: a payload with a new descriptor each time.
    ///
    /// # Errors
    /// Same as [`vulkan::Buffer::export`].
    pub fn export(&self) -> Result<BufferPayload> {
        self.vulkan.export()
    }
}

impl Deref for SharedBuffer {
    type Target = wgpu::Buffer;

    fn deref(&self) -> &wgpu::Buffer {
        &self.wgpu
    }
}

/// A texture in shared memory. Dereferences to the [`wgpu::Texture`]. Cheap to clone.
///
/// The memory is freed when wgpu, submitted handoffs and clones of this no longer use it.
#[derive(Clone, Debug)]
pub struct SharedTexture {
    pub(crate) wgpu: wgpu::Texture,
    pub(crate) vulkan: vulkan::Image,
    pub(crate) home: wgpu::TextureUses,
}

impl SharedTexture {
    /// Returns the image as `gpu_interop` knows it.
    pub fn vulkan(&self) -> &vulkan::Image {
        &self.vulkan
    }

    /// Returns the use that wgpu has the texture in when it is given and when it is taken.
    pub fn home(&self) -> wgpu::TextureUses {
        self.home
    }

    /// Returns the layout of [`home`](Self::home). Another Vulkan device that hands the texture back
    /// names it as the new layout of its release.
    pub fn home_layout(&self) -> ImageLayout {
        hal::vulkan::conv::derive_image_layout(self.home, self.wgpu.format()).into()
    }

    /// Exports the texture: a payload with a new descriptor each time.
    ///
    /// # Errors
    /// Same as [`vulkan::Image::export`].
    pub fn export(&self) -> Result<ImagePayload> {
        self.vulkan.export()
    }
}

impl Deref for SharedTexture {
    type Target = wgpu::Texture;

    fn deref(&self) -> &wgpu::Texture {
        &self.wgpu
    }
}

/// What is given or taken: buffers, textures, or both. Both sides of a handoff list the same number
/// of each, in the same order.
///
/// Converts from a reference to one [`SharedBuffer`] or [`SharedTexture`], and from a pair of
/// slices: `(&buffers[..], &textures[..])`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Shared<'a> {
    pub(crate) buffers: &'a [SharedBuffer],
    pub(crate) textures: &'a [SharedTexture],
}

impl<'a> From<&'a SharedBuffer> for Shared<'a> {
    fn from(buffer: &'a SharedBuffer) -> Self {
        Self { buffers: std::slice::from_ref(buffer), textures: &[] }
    }
}

impl<'a> From<&'a SharedTexture> for Shared<'a> {
    fn from(texture: &'a SharedTexture) -> Self {
        Self { buffers: &[], textures: std::slice::from_ref(texture) }
    }
}

impl<'a> From<(&'a [SharedBuffer], &'a [SharedTexture])> for Shared<'a> {
    fn from((buffers, textures): (&'a [SharedBuffer], &'a [SharedTexture])) -> Self {
        Self { buffers, textures }
    }
}

//! What buffers and images have in common: a Vulkan handle, bound to memory.

use std::fmt;
use std::sync::Arc;

use ash::prelude::VkResult;
use ash::vk;

use super::conv::VkResultExt;
use super::endpoint::Endpoint;
use super::memory::{DedicatedTo, Memory};
use super::ownership::Ownership;
use super::requirements::{Requirements, Rules};
use crate::capabilities::Dedicated;
use crate::error::Result;

/// `vk::Buffer` or `vk::Image`.
pub(super) trait Resource: Copy + fmt::Debug {
    /// `BufferDesc` or `ImageDesc`.
    type Desc: Copy + fmt::Debug;
    /// The specification's rules for binding it.
    const RULES: Rules;
    /// The function that binds it.
    const BIND: &'static str;

    /// Returns the resource to which an allocation is dedicated.
    fn dedicated_to(self) -> DedicatedTo;

    /// Queries what the resource requires of its memory.
    ///
    /// # Safety
    /// The resource is alive, of `device`, and has one plane.
    unsafe fn requirements(self, device: &ash::Device, found: &mut vk::MemoryRequirements2<'_>);

    /// Binds the resource to memory.
    ///
    /// # Safety
    /// Both are alive and of `device`, the resource is not bound yet, and its requirements are met.
    unsafe fn bind(
        self,
        device: &ash::Device,
        memory: vk::DeviceMemory,
        offset: u64,
    ) -> VkResult<()>;

    /// Destroys the resource.
    ///
    /// # Safety
    /// The resource is alive, of `device`, and not used by unfinished work
    /// (VUID-vkDestroyBuffer-buffer-00922, VUID-vkDestroyImage-image-01000).
    unsafe fn destroy(self, device: &ash::Device);
}

/// A resource that is not bound to memory yet. Destroyed when dropped, unless it is the
/// application's.
pub(super) struct Unbound<R: Resource> {
    pub(super) handle: R,
    /// Whether its handle type needs a dedicated allocation.
    dedicated: Dedicated,
    owned: bool,
    endpoint: Endpoint,
}

impl<R: Resource> Drop for Unbound<R> {
    fn drop(&mut self) {
        if self.owned {
            // SAFETY: this library created the handle, and this structure is its only owner. The
            // endpoint keeps what a submitted handoff names until the work is done; the caller
            // promises to keep what other work uses (`SubmitSync::submit`).
            unsafe { self.handle.destroy(self.endpoint.device()) };
        }
    }
}

impl<R: Resource> Unbound<R> {
    /// Wraps a handle that this library created.
    pub(super) fn created(endpoint: &Endpoint, handle: R, dedicated: Dedicated) -> Self {
        Self { handle, dedicated, owned: true, endpoint: endpoint.for_object() }
    }

    /// Wraps the application's handle.
    pub(super) fn adopted(endpoint: &Endpoint, handle: R, dedicated: Dedicated) -> Self {
        Self { handle, dedicated, owned: false, endpoint: endpoint.for_object() }
    }

    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    pub(super) fn requirements(&self) -> Requirements {
        let mut dedicated = vk::MemoryDedicatedRequirements::default();
        let mut found = vk::MemoryRequirements2::default().push_next(&mut dedicated);
        // SAFETY: the handle is alive, of this device and of one plane; Vulkan 1.1 has the call and
        // the structures.
        unsafe { self.handle.requirements(self.endpoint.device(), &mut found) };
        Requirements::new(found.memory_requirements, &dedicated, R::RULES).shared_by(self.dedicated)
    }

    /// Binds the resource to memory that its requirements were checked against.
    pub(super) fn bind(self, memory: Memory, offset: u64, desc: R::Desc) -> Result<Bound<R>> {
        // SAFETY: both are alive and of this device, and the resource is not bound yet. The callers
        // checked offset, size, alignment, type, dedication and device address against the
        // resource's own requirements, or allocated the memory for them.
        unsafe { self.handle.bind(self.endpoint.device(), memory.handle(), offset) }
            .context(R::BIND)?;
        Ok(self.bound(memory, offset, desc))
    }

    /// The resource, which is bound to `memory`.
    pub(super) fn bound(self, memory: Memory, offset: u64, desc: R::Desc) -> Bound<R> {
        let ownership = Ownership::default();
        Bound(Arc::new(Inner { raw: self, memory, offset, desc, ownership }))
    }
}

/// A resource in shared memory. Cheap to clone.
pub(super) struct Bound<R: Resource>(Arc<Inner<R>>);

struct Inner<R: Resource> {
    // In this order: the resource is destroyed before its memory is freed.
    raw: Unbound<R>,
    memory: Memory,
    offset: u64,
    desc: R::Desc,
    ownership: Ownership,
}

impl<R: Resource> Clone for Bound<R> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<R: Resource> Bound<R> {
    pub(super) fn raw(&self) -> &Unbound<R> {
        &self.0.raw
    }

    pub(super) fn memory(&self) -> &Memory {
        &self.0.memory
    }

    pub(super) fn offset(&self) -> u64 {
        self.0.offset
    }

    pub(super) fn desc(&self) -> &R::Desc {
        &self.0.desc
    }

    pub(super) fn ownership(&self) -> &Ownership {
        &self.0.ownership
    }

    /// Returns whether there is no other clone.
    pub(super) fn is_last(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }

    #[cfg(test)]
    pub(super) fn clones(&self) -> usize {
        Arc::strong_count(&self.0)
    }
}

/// Implements what `Buffer` and `Image`, which wrap [`Bound`], have in common.
macro_rules! bound {
    ($name:ident, $raw:ty, $desc:ty) => {
        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct(stringify!($name))
                    .field("handle", &self.handle())
                    .field("desc", self.desc())
                    .field("offset", &self.offset())
                    .field("memory", self.memory())
                    .finish()
            }
        }

        impl $name {
            /// Returns the Vulkan handle. This object owns it, unless it is adopted.
            pub fn handle(&self) -> $raw {
                self.0.raw().handle
            }

            /// Returns the description.
            pub fn desc(&self) -> &$desc {
                self.0.desc()
            }

            /// Returns the allocation in which it lies.
            pub fn memory(&self) -> &Memory {
                self.0.memory()
            }

            /// Returns its offset in the allocation, in bytes.
            pub fn offset(&self) -> u64 {
                self.0.offset()
            }

            /// Gives up on acquiring a released resource, so that it can be released again. Its
            /// content is undefined, and so is the layout of an image.
            pub fn reclaim(&self) {
                self.0.ownership().reclaim();
            }

            pub(crate) fn endpoint(&self) -> &Endpoint {
                self.0.raw().endpoint()
            }
        }
    };
}

pub(super) use bound;

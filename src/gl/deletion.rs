//! Names to be deleted, kept until the context is current.

use std::mem;
use std::num::NonZeroU32;

use glow::HasContext as _;

use super::endpoint::Shared;

/// A name that nobody uses any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Name {
    Buffer(glow::Buffer),
    Fence(glow::Fence),
    Memory(NonZeroU32),
    Semaphore(NonZeroU32),
    Texture(glow::Texture),
}

impl Shared {
    /// Deletes `name`: now where the context is current, else with the next operation.
    pub(super) fn discard(&self, name: Name) {
        self.deletions.borrow_mut().push(name);
        if self.current.is_current() {
            self.delete_discarded();
        }
    }

    /// Deletes what was discarded, in the order it was; how many names. The context is current.
    pub(super) fn delete_discarded(&self) -> usize {
        let names = mem::take(&mut *self.deletions.borrow_mut());
        let frees_memory = names.iter().any(|name| matches!(name, Name::Memory(_)));
        if frees_memory && self.workarounds.finish_before_freeing {
            // SAFETY: the context is current, and glFinish takes nothing.
            unsafe { self.gl.finish() };
        }
        for &name in &names {
            self.delete(name);
        }
        names.len()
    }

    /// Deleting a name of one's own generates no error, and errors are not asked for here: one that
    /// is pending is the user's.
    fn delete(&self, name: Name) {
        match name {
            // SAFETY: the context is current, and the name is a buffer's that this endpoint made
            // and that is deleted once, here.
            Name::Buffer(buffer) => unsafe { self.gl.delete_buffer(buffer) },
            // SAFETY: as above, for a texture.
            Name::Texture(texture) => unsafe { self.gl.delete_texture(texture) },
            // SAFETY: as above, for a sync object.
            Name::Fence(fence) => unsafe { self.gl.delete_sync(fence) },
            Name::Memory(memory) => {
                let Ok(functions) = &self.functions.memory else {
                    return;
                };
                // SAFETY: as above, for a memory object: the array has one name.
                unsafe { (functions.delete)(1, &memory.get()) };
            }
            Name::Semaphore(semaphore) => {
                let Ok(functions) = &self.functions.semaphore else {
                    return;
                };
                // SAFETY: as above, for a semaphore.
                unsafe { (functions.delete)(1, &semaphore.get()) };
            }
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if self.deletions.borrow().is_empty() {
            return;
        }
        if self.current.is_current() {
            self.delete_discarded();
        } else {
            // The context frees its objects when it is destroyed.
            let names = self.deletions.borrow().len();
            tracing::warn!(names, "an OpenGL endpoint ended while its context was not current");
        }
    }
}

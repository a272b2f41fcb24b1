//! The deletion of objects: when the context is current, and when nothing holds their memory.

use std::collections::HashSet;
use std::fmt;
use std::sync::PoisonError;

use glow::HasContext as _;

use super::endpoint::{Endpoint, Inner};
use super::errors::AppErrors;
use super::holders::Holders;
use super::names::{MemoryName, Name, Placed};

/// An object of the endpoint's context. Dropping it deletes the name: at once if the context is
/// current, else with the next operation.
pub(super) struct Owned<N: Copy + Into<Name>> {
    pub(super) name: N,
    pub(super) endpoint: Endpoint,
}

impl<N: Copy + Into<Name>> Owned<N> {
    pub(super) fn new(endpoint: &Endpoint, name: N) -> Self {
        Self { name, endpoint: endpoint.clone() }
    }
}

impl<N: Copy + Into<Name>> fmt::Debug for Owned<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.name.into().fmt(f)
    }
}

impl<N: Copy + Into<Name>> Drop for Owned<N> {
    fn drop(&mut self) {
        let inner = &self.endpoint.0;
        inner.group.delete_later([self.name.into()]);
        if inner.current.is_current() {
            inner.delete_dropped(false);
        }
    }
}

impl Inner {
    /// Notes what was placed in `memory`, if the driver requires that to be known. `sizes` are those
    /// of a texture's levels. The context must be current.
    pub(super) fn placed(
        &self,
        memory: MemoryName,
        name: impl Into<Name>,
        bytes: u64,
        sizes: impl FnOnce() -> Vec<(u32, u32)>,
    ) {
        if !self.keeps_held_memory() {
            return;
        }
        let (sizes, mut older) = (sizes(), HashSet::new());
        if let (false, Some(mut holders)) = (sizes.is_empty(), self.holders()) {
            older = holders.similar(&sizes);
        }
        self.group.place(memory, Placed { name: name.into(), sizes, older, bytes });
    }

    /// Returns whether the driver requires the queries of what holds memory, and has them.
    fn keeps_held_memory(&self) -> bool {
        self.workarounds.keep_held_memory && self.functions.holders.is_ok()
    }

    /// Returns the queries of what holds memory. The context must be current.
    fn holders(&self) -> Option<Holders<'_>> {
        let functions = self.functions.holders.as_ref().ok()?;
        let errors = AppErrors::take(&self.gl, self.functions.core, &self.features).ok()?;
        let found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        Some(Holders { gl: &self.gl, functions, found, errors })
    }

    /// Deletes the dropped objects in order and returns their number. The context must be current. With
    /// `all`, also frees all memory that nothing holds any more.
    pub(super) fn delete_dropped(&self, all: bool) -> usize {
        let mut names = self.group.take_dropped();
        if self.keeps_held_memory()
            && self.group.let_wait(&mut names, all)
            && let Some(mut holders) = self.holders()
        {
            names.extend(holders.take_free(&self.group).into_iter().map(Name::Memory));
        }
        let is_memory = |name: &Name| matches!(name, Name::Memory(_));
        if self.workarounds.finish_before_freeing && names.iter().any(is_memory) {
            // SAFETY: the context is current, and glFinish takes nothing.
            unsafe { self.gl.finish() };
        }
        for &name in &names {
            self.delete(name);
        }
        names.len()
    }

    /// Deletes one object. This generates no error. Errors are not queried: a pending one is the
    /// application's.
    pub(super) fn delete(&self, name: Name) {
        match name {
            // SAFETY: the context is current; the name is a buffer that an endpoint of the share
            // group created, and it is deleted once, here.
            Name::Buffer(buffer) => unsafe { self.gl.delete_buffer(buffer) },
            // SAFETY: as above, for a texture.
            Name::Texture(texture) => unsafe { self.gl.delete_texture(texture) },
            // SAFETY: as above, for a sync object.
            Name::Fence(fence) => unsafe {
                self.gl.delete_sync(glow::NativeFence(fence.pointer().cast_mut().cast()));
            },
            Name::Memory(memory) => {
                let Ok(functions) = &self.functions.memory else { return };
                // SAFETY: as above, for a memory object: the array has one name.
                unsafe { (functions.delete)(1, &memory.0.get()) };
            }
            Name::Semaphore(semaphore) => {
                let Ok(functions) = &self.functions.semaphore else { return };
                // SAFETY: as above, for a semaphore: the array has one name.
                unsafe { (functions.delete)(1, &semaphore.0.get()) };
            }
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if self.current.is_current() {
            self.delete_dropped(true);
        }
    }
}

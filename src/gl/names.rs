//! The names of objects, and the names that a share group of contexts has yet to delete.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::c_void;
use std::mem;
use std::num::NonZeroU32;
use std::sync::{Mutex, MutexGuard, PoisonError};

#[cfg(feature = "vulkan")]
use crate::error::Result;

/// A memory object's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct MemoryName(pub(super) NonZeroU32);

/// A semaphore's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct SemaphoreName(pub(super) NonZeroU32);

/// A sync object: its address, which is only passed back to OpenGL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct FenceName(usize);

impl FenceName {
    /// Converts glow's sync object; `None` if it is null.
    pub(super) fn new(fence: glow::NativeFence) -> Option<Self> {
        (!fence.0.is_null()).then(|| Self(fence.0.expose_provenance()))
    }

    pub(super) fn pointer(self) -> *const c_void {
        std::ptr::with_exposed_provenance(self.0)
    }
}

/// The name of an object of any kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Name {
    Buffer(glow::Buffer),
    Texture(glow::Texture),
    Memory(MemoryName),
    Semaphore(SemaphoreName),
    Fence(FenceName),
}

macro_rules! name_from {
    ($($kind:ident($name:ty)),*) => {$(
        impl From<$name> for Name {
            fn from(name: $name) -> Self {
                Self::$kind(name)
            }
        }
    )*};
}
name_from!(
    Buffer(glow::NativeBuffer),
    Texture(glow::NativeTexture),
    Memory(MemoryName),
    Semaphore(SemaphoreName),
    Fence(FenceName)
);

/// The most operations between two checks whether dropped memory is held.
const WAITING_OPERATIONS: u32 = 256;
/// The most bytes that are dropped between two checks.
const WAITING_BYTES: u64 = 32 << 20;

/// A group of contexts that share their objects. Any of them can delete an object while it is
/// current.
#[derive(Debug, Default)]
pub(super) struct ShareGroup(Mutex<Names>);

#[derive(Debug, Default)]
struct Names {
    /// In the order in which the objects were dropped.
    dropped: Vec<Name>,
    /// The memory objects that were dropped, but that the application's objects may still use.
    waiting: Vec<MemoryName>,
    /// The bytes that were dropped since the last check, and the operations since.
    new_bytes: u64,
    operations: u32,
    /// What was placed in each memory object, if the driver requires that to be known
    /// (`Workarounds::keep_held_memory`).
    placed: HashMap<MemoryName, Vec<Placed>>,
    /// The textures among them that are not dropped.
    textures: HashSet<u32>,
    /// The imported buffers and textures, and the handoff that has released each. Each handoff
    /// searches it: hashing takes longer.
    imported: BTreeMap<Name, Option<u64>>,
}

/// A buffer or texture that was placed in memory.
#[derive(Debug)]
pub(super) struct Placed {
    pub(super) name: Name,
    /// Width and height of each level of a texture.
    pub(super) sizes: Vec<(u32, u32)>,
    /// Textures of the application that could be views of this one, but are older.
    pub(super) older: HashSet<u32>,
    pub(super) bytes: u64,
}

impl ShareGroup {
    fn names(&self) -> MutexGuard<'_, Names> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds objects to be deleted.
    pub(super) fn delete_later(&self, names: impl IntoIterator<Item = Name>) {
        self.names().dropped.extend(names);
    }

    /// Returns the objects to be deleted, which the caller deletes.
    pub(super) fn take_dropped(&self) -> Vec<Name> {
        let mut names = self.names();
        names.operations = names.operations.saturating_add(1);
        let dropped = mem::take(&mut names.dropped);
        for name in &dropped {
            // OpenGL may give the name to another object.
            names.imported.remove(name);
            if let Name::Texture(texture) = name {
                names.textures.remove(&texture.0.get());
            }
        }
        dropped
    }

    /// Records that a buffer or texture was imported, or that it no longer counts as released.
    pub(super) fn imported(&self, name: impl Into<Name>) {
        self.names().imported.insert(name.into(), None);
    }

    /// Records that `handoff` releases these buffers and textures, each listed by a parameter. The
    /// application's own objects are not tracked.
    ///
    /// # Errors
    /// [`Invalid`](crate::error::Invalid) if one of them is released already; then none is
    /// recorded.
    #[cfg(feature = "vulkan")]
    pub(super) fn release(
        &self,
        listed: impl Iterator<Item = (Name, &'static str)> + Clone,
        handoff: u64,
    ) -> Result<()> {
        let imported = &mut self.names().imported;
        for (at, (name, parameter)) in listed.clone().enumerate() {
            let Some(owner) = imported.get_mut(&name) else { continue };
            if let Some(earlier) = *owner {
                for (name, _) in listed.take(at) {
                    imported.entry(name).and_modify(|owner| *owner = None);
                }
                return Err(crate::peer::released_already(parameter, earlier));
            }
            *owner = Some(handoff);
        }
        Ok(())
    }

    /// Records that these buffers and textures were acquired.
    #[cfg(feature = "vulkan")]
    pub(super) fn acquire(&self, listed: impl Iterator<Item = (Name, &'static str)>) {
        let imported = &mut self.names().imported;
        for (name, _) in listed {
            if let Some(owner) = imported.get_mut(&name) {
                *owner = None;
            }
        }
    }

    /// Records that a buffer or texture was placed in `memory`.
    pub(super) fn place(&self, memory: MemoryName, placed: Placed) {
        let mut names = self.names();
        if let Name::Texture(texture) = placed.name {
            names.textures.insert(texture.0.get());
        }
        names.placed.entry(memory).or_default().push(placed);
    }

    /// Removes the memory from `dropped` in which something was placed. It waits until
    /// [`take_free`](Self::take_free) finds that nothing holds it. Returns whether that check is
    /// due; with `all`, whether any memory waits.
    pub(super) fn let_wait(&self, dropped: &mut Vec<Name>, all: bool) -> bool {
        let mut names = self.names();
        let Names { placed, waiting, new_bytes, operations, .. } = &mut *names;
        if waiting.is_empty() {
            *operations = 0;
        }
        dropped.retain(|name| {
            let Name::Memory(memory) = name else { return true };
            let Some(placed) = placed.get(memory) else { return true };
            waiting.push(*memory);
            *new_bytes = placed.iter().fold(*new_bytes, |sum, one| sum.saturating_add(one.bytes));
            false
        });
        let is_due = all || *operations >= WAITING_OPERATIONS || *new_bytes >= WAITING_BYTES;
        is_due && !waiting.is_empty()
    }

    /// Removes and returns the waiting memory in which nothing is held, and forgets what was placed
    /// in it. `is_held` also gets the textures that were placed in memory and are not dropped.
    pub(super) fn take_free(
        &self,
        is_held: impl Fn(&Placed, &HashSet<u32>) -> bool,
    ) -> Vec<MemoryName> {
        let mut names = self.names();
        (names.new_bytes, names.operations) = (0, 0);
        let Names { waiting, placed, textures, .. } = &mut *names;
        let is_free = |memory: &mut MemoryName| {
            let of_memory = placed.get(memory).map_or(&[][..], Vec::as_slice);
            !of_memory.iter().any(|placed| is_held(placed, textures))
        };
        let free: Vec<_> = waiting.extract_if(.., is_free).collect();
        for memory in &free {
            placed.remove(memory);
        }
        if !waiting.is_empty() {
            tracing::debug!(?waiting, "the application's objects still hold memory");
        }
        free
    }
}

impl Drop for ShareGroup {
    fn drop(&mut self) {
        let names = self.names();
        let names = names.dropped.len() + names.waiting.len();
        if names > 0 {
            // The last context of the group frees its objects when it is destroyed.
            tracing::warn!(names, "the last OpenGL endpoint of a context ended before its objects");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(feature = "vulkan")]
    #[test]
    fn a_buffer_is_released_once_until_it_is_acquired() {
        let group = ShareGroup::default();
        let [one, two, own] =
            [1, 2, 3].map(|name| Name::from(glow::NativeBuffer(NonZeroU32::new(name).unwrap())));
        group.imported(one);
        group.imported(two);
        let listed = |names: [Name; 2]| names.map(|name| (name, "buffers")).into_iter();
        group.release(listed([one, own]), 4).unwrap();
        let refused = group.release(listed([two, one]), 5).unwrap_err().to_string();
        assert!(refused.contains("through handoff 4"), "{refused}");
        // `two` was not released then, and the application's own object is not tracked.
        group.release(listed([two, own]), 5).unwrap();
        group.acquire(listed([one, two]));
        group.release(listed([one, two]), 6).unwrap();
        // Another object may get the name of one that was deleted.
        group.delete_later([one]);
        group.take_dropped();
        group.imported(one);
        group.release(listed([one, own]), 7).unwrap();
    }

    #[test]
    fn memory_is_held_while_one_of_its_resources_is() {
        let group = ShareGroup::default();
        let memory = MemoryName(NonZeroU32::MIN);
        let [one, two] =
            [1, 2].map(|name| Name::from(glow::NativeTexture(NonZeroU32::new(name).unwrap())));
        let place = |name| {
            let (sizes, older) = (Vec::new(), HashSet::new());
            group.place(memory, Placed { name, sizes, older, bytes: 1 });
        };
        let wait = || {
            let mut dropped = vec![two, Name::Memory(memory)];
            group.let_wait(&mut dropped, false);
            dropped
        };
        assert_eq!(wait(), [two, Name::Memory(memory)], "nothing was placed in it");
        place(one);
        place(two);
        group.delete_later([two]);
        assert_eq!(group.take_dropped(), [two]);
        assert_eq!(wait(), [two]);
        let held = group.take_free(|placed, own| {
            assert_eq!(*own, HashSet::from([1]));
            placed.name == two
        });
        assert_eq!(held, []);
        assert_eq!(group.take_free(|_, _| false), [memory]);
        assert_eq!(wait(), [two, Name::Memory(memory)], "it was forgotten");
    }

    #[test]
    fn a_check_is_due_after_many_operations_or_bytes() {
        let group = ShareGroup::default();
        let memory = |bytes| {
            let memory = MemoryName(NonZeroU32::MIN);
            let name = Name::Texture(glow::NativeTexture(NonZeroU32::MIN));
            let (sizes, older) = (Vec::new(), HashSet::new());
            group.place(memory, Placed { name, sizes, older, bytes });
            group.let_wait(&mut vec![Name::Memory(memory)], false);
        };
        let operations = |count| (0..count).for_each(|_| drop(group.take_dropped()));
        let is_due = |all| group.let_wait(&mut Vec::new(), all);
        operations(WAITING_OPERATIONS);
        assert!(!is_due(true), "nothing waits");
        memory(1);
        assert!(is_due(true) && !is_due(false));
        operations(WAITING_OPERATIONS);
        assert!(is_due(false));
        group.take_free(|_, _| true);
        assert!(!is_due(false), "it was checked");
        memory(WAITING_BYTES);
        assert!(is_due(false));
    }
}

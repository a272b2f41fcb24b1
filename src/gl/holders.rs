//! Finds the buffers and textures that the application's objects hold. Used only if the driver
//! frees memory that is still held ([`LLVMPIPE_FREES_HELD_MEMORY`]).
//!
//! [`LLVMPIPE_FREES_HELD_MEMORY`]: super::workarounds::LLVMPIPE_FREES_HELD_MEMORY

use std::collections::{BTreeSet, HashSet};
use std::num::NonZeroU32;
use std::sync::MutexGuard;

use glow::HasContext as _;

use super::errors::AppErrors;
use super::ffi::HolderFns;
use super::names::{MemoryName, Name, Placed, ShareGroup};

/// The number of names that are searched in addition: consecutive unused ones after the last, or
/// those before the newest name of the previous search.
const UNUSED: u32 = 1024;

/// The queries of a context, which must be current.
pub(super) struct Holders<'a> {
    pub(super) gl: &'a glow::Context,
    pub(super) functions: &'a HolderFns,
    pub(super) found: MutexGuard<'a, Found>,
    /// Some of the queries may generate errors.
    pub(super) errors: AppErrors<'a>,
}

impl Holders<'_> {
    /// Returns the textures that have one of these sizes and could be views.
    pub(super) fn similar(&mut self, sizes: &[(u32, u32)]) -> HashSet<u32> {
        let Self { gl, functions, found, errors } = self;
        let held = errors.ignore(|| Held::query_textures(gl, functions, found));
        let similar = held.immutable.iter().filter(|texture| sizes.contains(&texture.size));
        similar.map(|texture| texture.name).collect()
    }

    /// Removes and returns the waiting memory in which the application's objects hold nothing.
    pub(super) fn take_free(&mut self, group: &ShareGroup) -> Vec<MemoryName> {
        let Self { gl, functions, found, errors } = self;
        let held = errors.ignore(|| Held::query(gl, functions, found));
        group.take_free(|placed, own| held.contains(placed, |name| own.contains(&name)))
    }
}

/// The names that the previous searches found.
#[derive(Debug, Default)]
pub(super) struct Found {
    textures: Names,
    framebuffers: Names,
    vertex_arrays: Names,
    transform_feedbacks: Names,
}

/// The names of the buffers and textures that framebuffers, vertex arrays, transform feedback
/// objects and buffer textures hold, and the textures that may be views.
#[derive(Debug, Default)]
struct Held {
    buffers: HashSet<u32>,
    textures: HashSet<u32>,
    immutable: Vec<Immutable>,
}

/// A texture with immutable storage. OpenGL doesn't reveal whether it is a view, nor of which
/// texture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Immutable {
    name: u32,
    /// Width and height of level 0.
    size: (u32, u32),
}

impl Held {
    /// Queries the objects of the context, which must be current. Objects that belong to another
    /// context of the share group are not found.
    fn query(gl: &glow::Context, functions: &HolderFns, found: &mut Found) -> Self {
        let mut held = Self::query_textures(gl, functions, found);
        held.add_framebuffers(gl, functions, &mut found.framebuffers);
        held.add_vertex_arrays(gl, functions, &mut found.vertex_arrays);
        held.add_transform_feedbacks(gl, functions, &mut found.transform_feedbacks);
        held
    }

    /// Returns whether an object of the application holds the buffer or texture, or may hold it.
    /// `is_own` returns whether a texture is the library's.
    fn contains(&self, placed: &Placed, is_own: impl Fn(u32) -> bool) -> bool {
        match placed.name {
            Name::Buffer(buffer) => self.buffers.contains(&buffer.0.get()),
            Name::Texture(texture) => {
                let may_be_view = |other: &Immutable| {
                    placed.sizes.contains(&other.size)
                        && !placed.older.contains(&other.name)
                        && !is_own(other.name)
                };
                self.textures.contains(&texture.0.get()) || self.immutable.iter().any(may_be_view)
            }
            Name::Memory(_) | Name::Semaphore(_) | Name::Fence(_) => false,
        }
    }

    fn add_framebuffers(
        &mut self,
        gl: &glow::Context,
        functions: &HolderFns,
        framebuffers: &mut Names,
    ) {
        // SAFETY: the context is current (`Holders`) and has the functions. Only names that exist
        // are queried, each parameter is one integer, and only new objects are deleted.
        unsafe {
            let newest = || {
                let new = gl.create_framebuffer().ok()?;
                gl.delete_framebuffer(new);
                Some(new.0)
            };
            let exists = |name| gl.is_framebuffer(glow::NativeFramebuffer(name));
            let colors = gl.get_parameter_i32(glow::MAX_COLOR_ATTACHMENTS).unsigned_abs();
            for name in framebuffers.search(newest, exists) {
                let colors = (0..colors).map(|at| glow::COLOR_ATTACHMENT0 + at);
                for point in colors.chain([glow::DEPTH_ATTACHMENT, glow::STENCIL_ATTACHMENT]) {
                    let of = |parameter| {
                        let query = functions.get_named_framebuffer_attachment_parameteriv;
                        let mut value = 0;
                        query(name.get(), point, parameter, &mut value);
                        value as u32
                    };
                    if of(glow::FRAMEBUFFER_ATTACHMENT_OBJECT_TYPE) == glow::TEXTURE {
                        self.textures.insert(of(glow::FRAMEBUFFER_ATTACHMENT_OBJECT_NAME));
                    }
                }
            }
        }
    }

    fn add_vertex_arrays(
        &mut self,
        gl: &glow::Context,
        functions: &HolderFns,
        vertex_arrays: &mut Names,
    ) {
        // SAFETY: as in `add_framebuffers`; the binding is restored.
        unsafe {
            let newest = || {
                let new = gl.create_vertex_array().ok()?;
                gl.delete_vertex_array(new);
                Some(new.0)
            };
            let exists = |name: NonZeroU32| (functions.is_vertex_array)(name.get()) != 0;
            let bindings = gl.get_parameter_i32(glow::MAX_VERTEX_ATTRIB_BINDINGS).unsigned_abs();
            let before = gl.get_parameter_vertex_array(glow::VERTEX_ARRAY_BINDING);
            for name in vertex_arrays.search(newest, exists) {
                gl.bind_vertex_array(Some(glow::NativeVertexArray(name)));
                let elements = gl.get_parameter_i32(glow::ELEMENT_ARRAY_BUFFER_BINDING);
                self.buffers.insert(elements as u32);
                for at in 0..bindings {
                    let buffer = gl.get_parameter_indexed_i32(glow::VERTEX_BINDING_BUFFER, at);
                    self.buffers.insert(buffer as u32);
                }
            }
            gl.bind_vertex_array(before);
        }
    }

    fn add_transform_feedbacks(
        &mut self,
        gl: &glow::Context,
        functions: &HolderFns,
        transform_feedbacks: &mut Names,
    ) {
        // SAFETY: as in `add_framebuffers`.
        unsafe {
            let newest = || {
                let new = gl.create_transform_feedback().ok()?;
                gl.delete_transform_feedback(new);
                Some(new.0)
            };
            let exists = |name| gl.is_transform_feedback(glow::NativeTransformFeedback(name));
            let count = gl.get_parameter_i32(glow::MAX_TRANSFORM_FEEDBACK_BUFFERS).unsigned_abs();
            for name in transform_feedbacks.search(newest, exists) {
                for at in 0..count {
                    let (parameter, mut buffer) = (glow::TRANSFORM_FEEDBACK_BUFFER_BINDING, 0);
                    (functions.get_transform_feedbacki_v)(name.get(), parameter, at, &mut buffer);
                    self.buffers.insert(buffer as u32);
                }
            }
        }
    }

    /// Queries the buffers that buffer textures hold, and the textures that may be views.
    fn query_textures(gl: &glow::Context, functions: &HolderFns, found: &mut Found) -> Self {
        let mut held = Self::default();
        // SAFETY: as in `add_framebuffers`.
        unsafe {
            let newest = || {
                let new = gl.create_texture().ok()?;
                gl.delete_texture(new);
                Some(new.0)
            };
            let exists = |name| gl.is_texture(glow::NativeTexture(name));
            for name in found.textures.search(newest, exists) {
                let of_level_0 = |parameter| {
                    let mut value = 0;
                    (functions.get_texture_level_parameteriv)(name.get(), 0, parameter, &mut value);
                    value as u32
                };
                let mut is_immutable = 0;
                let parameter = glow::TEXTURE_IMMUTABLE_FORMAT;
                (functions.get_texture_parameteriv)(name.get(), parameter, &mut is_immutable);
                if is_immutable != 0 {
                    let size = (of_level_0(glow::TEXTURE_WIDTH), of_level_0(glow::TEXTURE_HEIGHT));
                    held.immutable.push(Immutable { name: name.get(), size });
                } else {
                    held.buffers.insert(of_level_0(glow::TEXTURE_BUFFER_DATA_STORE_BINDING));
                }
            }
        }
        held
    }
}

/// The names of the objects of one kind.
#[derive(Debug, Default)]
struct Names {
    existing: BTreeSet<NonZeroU32>,
    /// The newest name at the last search.
    newest: u32,
}

impl Names {
    /// Returns the names that exist. `generate` generates a name and deletes it again.
    ///
    /// Mesa 22.3 doesn't reuse the names of deleted objects, so a new name is greater than all
    /// others. Then only names that can have begun to exist since the last search are searched:
    /// newer ones, and the [`UNUSED`] before them, because a name exists only once it was bound.
    fn search(
        &mut self,
        generate: impl Fn() -> Option<NonZeroU32>,
        exists: impl Fn(NonZeroU32) -> bool,
    ) -> impl Iterator<Item = NonZeroU32> {
        match (generate(), generate()) {
            (Some(one), Some(newest)) if one < newest => {
                let begin = NonZeroU32::MIN.saturating_add(self.newest.saturating_sub(UNUSED));
                let new = (begin.get()..newest.get()).filter_map(NonZeroU32::new);
                let known = self.existing.range(..begin).copied();
                self.existing = known.chain(new).filter(|&name| exists(name)).collect();
                self.newest = newest.get();
            }
            _ => self.existing = least_names(exists).into_iter().collect(),
        }
        self.existing.iter().copied()
    }
}

/// Returns the names that exist, in order, if a driver generates the least unused names.
fn least_names(exists: impl Fn(NonZeroU32) -> bool) -> Vec<NonZeroU32> {
    let mut found = Vec::new();
    let mut end = UNUSED;
    for name in (1..).map_while(NonZeroU32::new) {
        if exists(name) {
            end = name.get().saturating_add(UNUSED);
            found.push(name);
        } else if name.get() >= end {
            break;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn a_newer_texture_of_the_same_size_may_be_a_view() {
        let name = NonZeroU32::MIN;
        let placed = Placed {
            name: glow::NativeTexture(name).into(),
            sizes: vec![(16, 8), (8, 4)],
            older: HashSet::from([7]),
            bytes: 16 * 8,
        };
        let held_by = |name, size| {
            let held = Held { immutable: vec![Immutable { name, size }], ..Held::default() };
            held.contains(&placed, |own| own == 9)
        };
        assert!(held_by(8, (16, 8)) && held_by(8, (8, 4)));
        assert!(!held_by(8, (16, 16)), "another size");
        assert!(!held_by(7, (16, 8)), "it is older");
        assert!(!held_by(9, (16, 8)), "it is the library's");
        let framebuffer = Held { textures: HashSet::from([1]), ..Held::default() };
        assert!(framebuffer.contains(&placed, |_| true));
    }

    #[test]
    fn names_that_are_not_used_again_are_searched_once() {
        let (next, searched) = (Cell::new(5000), Cell::new(0));
        let generate = || NonZeroU32::new(next.replace(next.get() + 1));
        let mut names = Names::default();
        let mut search = |exist: &[u32]| {
            searched.set(0);
            let found = names.search(generate, |name| {
                searched.set(searched.get() + 1);
                exist.contains(&name.get())
            });
            found.map(NonZeroU32::get).collect::<Vec<_>>()
        };
        assert_eq!(search(&[7, 4999]), [7, 4999]);
        next.set(9000);
        // 4500 was generated before, but not bound.
        assert_eq!(search(&[7, 4500, 8999]), [7, 4500, 8999]);
        assert_eq!(search(&[8999]), [8999]);
        assert!(searched.get() < 2 * UNUSED, "{}", searched.get());
    }

    #[test]
    fn names_are_searched_beyond_gaps() {
        let found = |exist: &[u32]| {
            let found = least_names(|name| exist.contains(&name.get()));
            found.into_iter().map(NonZeroU32::get).collect::<Vec<_>>()
        };
        assert_eq!(found(&[]), []);
        assert_eq!(found(&[1, 2, 900, 1900]), [1, 2, 900, 1900]);
        assert_eq!(found(&[2, UNUSED + 3]), [2]);
        assert_eq!(found(&[u32::MAX]), []);
    }
}

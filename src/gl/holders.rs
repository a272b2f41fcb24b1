//! Finds the buffers and textures that the application's objects hold. Used only if the driver
//! frees memory that is still held ([`LLVMPIPE_FREES_HELD_MEMORY`]).
//!
//! [`LLVMPIPE_FREES_HELD_MEMORY`]: super::workarounds::LLVMPIPE_FREES_HELD_MEMORY

use std::collections::HashSet;
use std::num::NonZeroU32;

use glow::HasContext as _;

use super::errors::AppErrors;
use super::ffi::HolderFns;
use super::names::{MemoryName, Name, Placed, ShareGroup};

/// The number of consecutive unused names after which the search ends. Drivers return the lowest
/// unused names.
const UNUSED: u32 = 1024;

/// The queries of a context, which must be current.
pub(super) struct Holders<'a> {
    pub(super) gl: &'a glow::Context,
    pub(super) functions: &'a HolderFns,
    /// Some of the queries may generate errors.
    pub(super) errors: AppErrors<'a>,
}

impl Holders<'_> {
    /// Records that a buffer, or a texture whose levels have `sizes`, was placed in `memory`.
    pub(super) fn place(
        &self,
        group: &ShareGroup,
        memory: MemoryName,
        name: Name,
        sizes: Vec<(u32, u32)>,
    ) {
        let mut older = HashSet::new();
        if !sizes.is_empty() {
            let held = self.errors.ignore(|| Held::query_textures(self.gl, self.functions));
            let similar = held.immutable.iter().filter(|texture| sizes.contains(&texture.size));
            older.extend(similar.map(|texture| texture.name));
        }
        group.place(memory, Placed { name, sizes, older });
    }

    /// Removes the memory in which the application's objects hold something from `names`, and keeps
    /// it to be deleted later.
    pub(super) fn keep_held(&self, group: &ShareGroup, names: &mut Vec<Name>) {
        let held = self.errors.ignore(|| Held::query(self.gl, self.functions));
        let own = group.textures();
        let is_held = |name: &mut Name| match *name {
            Name::Memory(memory) => {
                group.is_held(memory, |placed| held.contains(placed, |name| own.contains(&name)))
            }
            _ => false,
        };
        let kept: Vec<_> = names.extract_if(.., is_held).collect();
        if !kept.is_empty() {
            tracing::debug!(?kept, "the application's objects still hold memory");
            group.delete_later(kept);
        }
    }
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
    fn query(gl: &glow::Context, functions: &HolderFns) -> Self {
        let mut held = Self::query_textures(gl, functions);
        held.add_framebuffers(gl, functions);
        held.add_vertex_arrays(gl, functions);
        held.add_transform_feedbacks(gl, functions);
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

    fn add_framebuffers(&mut self, gl: &glow::Context, functions: &HolderFns) {
        // SAFETY: the context is current (`Holders`) and has the functions. Only names that exist
        // are queried, and each parameter is one integer.
        unsafe {
            let colors = gl.get_parameter_i32(glow::MAX_COLOR_ATTACHMENTS).unsigned_abs();
            for name in names(|name| gl.is_framebuffer(glow::NativeFramebuffer(name))) {
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

    fn add_vertex_arrays(&mut self, gl: &glow::Context, functions: &HolderFns) {
        // SAFETY: as in `add_framebuffers`; the binding is restored.
        unsafe {
            let bindings = gl.get_parameter_i32(glow::MAX_VERTEX_ATTRIB_BINDINGS).unsigned_abs();
            let before = gl.get_parameter_vertex_array(glow::VERTEX_ARRAY_BINDING);
            for name in names(|name| (functions.is_vertex_array)(name.get()) != 0) {
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

    fn add_transform_feedbacks(&mut self, gl: &glow::Context, functions: &HolderFns) {
        // SAFETY: as in `add_framebuffers`.
        unsafe {
            let count = gl.get_parameter_i32(glow::MAX_TRANSFORM_FEEDBACK_BUFFERS).unsigned_abs();
            for name in names(|name| gl.is_transform_feedback(glow::NativeTransformFeedback(name)))
            {
                for at in 0..count {
                    let (parameter, mut buffer) = (glow::TRANSFORM_FEEDBACK_BUFFER_BINDING, 0);
                    (functions.get_transform_feedbacki_v)(name.get(), parameter, at, &mut buffer);
                    self.buffers.insert(buffer as u32);
                }
            }
        }
    }

    /// Queries the buffers that buffer textures hold, and the textures that may be views.
    fn query_textures(gl: &glow::Context, functions: &HolderFns) -> Self {
        let mut held = Self::default();
        // SAFETY: as in `add_framebuffers`.
        unsafe {
            for name in names(|name| gl.is_texture(glow::NativeTexture(name))) {
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

/// Returns the names that exist, in order.
fn names(exists: impl Fn(NonZeroU32) -> bool) -> Vec<NonZeroU32> {
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
    use super::*;

    #[test]
    fn a_newer_texture_of_the_same_size_may_be_a_view() {
        let name = NonZeroU32::MIN;
        let placed = Placed {
            name: glow::NativeTexture(name).into(),
            sizes: vec![(16, 8), (8, 4)],
            older: HashSet::from([7]),
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
    fn names_are_searched_beyond_gaps() {
        let found = |exist: &[u32]| {
            let found = names(|name| exist.contains(&name.get()));
            found.into_iter().map(NonZeroU32::get).collect::<Vec<_>>()
        };
        assert_eq!(found(&[]), []);
        assert_eq!(found(&[1, 2, 900, 1900]), [1, 2, 900, 1900]);
        assert_eq!(found(&[2, UNUSED + 3]), [2]);
        assert_eq!(found(&[u32::MAX]), []);
    }
}

//! What the context has of core OpenGL, by version or extension.

use std::collections::HashSet;

/// Parts of core OpenGL that an older context may lack. glow panics when a function that was not
/// loaded is called, so they are asked for first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Features {
    /// `glCreateBuffers` and its like: OpenGL 4.5 or `GL_ARB_direct_state_access`; never OpenGL ES.
    pub(super) direct_state_access: bool,
    /// `glFenceSync`: OpenGL 3.2, `GL_ARB_sync` or OpenGL ES 3.0.
    pub(super) sync: bool,
    /// `glMemoryBarrier`: OpenGL 4.2, `GL_ARB_shader_image_load_store` or OpenGL ES 3.1.
    pub(super) memory_barrier: bool,
    /// `glGetInternalformativ` for sample counts: OpenGL 4.2, `GL_ARB_internalformat_query` or
    /// OpenGL ES 3.0.
    pub(super) sample_query: bool,
    /// `glGetInternalformativ` for everything: OpenGL 4.3 or `GL_ARB_internalformat_query2`; never
    /// OpenGL ES.
    pub(super) format_query: bool,
    /// `GL_TEXTURE_SWIZZLE_R`: OpenGL 3.3, `GL_ARB_texture_swizzle` or OpenGL ES 3.0.
    pub(super) texture_swizzle: bool,
    /// One-dimensional textures: never OpenGL ES.
    pub(super) texture_1d: bool,
    /// Multisample textures: OpenGL 3.2, `GL_ARB_texture_multisample` or OpenGL ES 3.1.
    pub(super) multisample_texture: bool,
    /// Arrays of them: as above, but OpenGL ES 3.2.
    pub(super) multisample_array: bool,
    /// Arrays of cube maps: OpenGL 4.0, `GL_ARB_texture_cube_map_array` or OpenGL ES 3.2.
    pub(super) cube_map_array: bool,
}

impl Features {
    pub(super) fn of(version: &glow::Version, extensions: &HashSet<String>) -> Self {
        let number = (version.major, version.minor);
        let has = |desktop, extension: &str, embedded| {
            if version.is_embedded {
                number >= embedded
            } else {
                number >= desktop || extensions.contains(extension)
            }
        };
        const NEVER: (u32, u32) = (u32::MAX, 0);
        Self {
            direct_state_access: has((4, 5), "GL_ARB_direct_state_access", NEVER),
            sync: has((3, 2), "GL_ARB_sync", (3, 0)),
            memory_barrier: has((4, 2), "GL_ARB_shader_image_load_store", (3, 1)),
            sample_query: has((4, 2), "GL_ARB_internalformat_query", (3, 0)),
            format_query: has((4, 3), "GL_ARB_internalformat_query2", NEVER),
            texture_swizzle: has((3, 3), "GL_ARB_texture_swizzle", (3, 0)),
            texture_1d: !version.is_embedded,
            multisample_texture: has((3, 2), "GL_ARB_texture_multisample", (3, 1)),
            multisample_array: has((3, 2), "GL_ARB_texture_multisample", (3, 2)),
            cube_map_array: has((4, 0), "GL_ARB_texture_cube_map_array", (3, 2)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn features(major: u32, minor: u32, is_embedded: bool, extensions: &[&str]) -> Features {
        let version =
            glow::Version { major, minor, is_embedded, revision: None, vendor_info: String::new() };
        Features::of(&version, &extensions.iter().map(|&name| name.to_owned()).collect())
    }

    #[test]
    fn a_version_or_an_extension_will_do() {
        let all = features(4, 5, false, &[]);
        assert!(all.direct_state_access && all.sync && all.memory_barrier && all.format_query);
        assert!(all.texture_1d && all.multisample_array && all.cube_map_array);
        assert_eq!(features(4, 6, false, &[]), all);
        let old = features(3, 1, false, &["GL_ARB_sync", "GL_ARB_texture_multisample"]);
        assert!(old.sync && old.multisample_texture && old.texture_1d);
        assert!(!old.direct_state_access && !old.memory_barrier && !old.cube_map_array);
        assert!(!old.texture_swizzle && !old.sample_query && !old.format_query);
        assert!(features(3, 3, false, &["GL_ARB_direct_state_access"]).direct_state_access);
    }

    #[test]
    fn opengl_es_has_neither_direct_state_access_nor_one_dimension() {
        let es = features(3, 2, true, &["GL_ARB_direct_state_access"]);
        assert!(es.sync && es.memory_barrier && es.sample_query && es.multisample_array);
        assert!(!es.direct_state_access && !es.texture_1d && !es.format_query);
        assert!(!features(3, 1, true, &[]).multisample_array);
        assert!(!features(2, 0, true, &["GL_ARB_sync"]).sync);
    }
}

//! The parts of core OpenGL that the context has, by its version and extensions.

use std::collections::HashSet;

/// Parts of core OpenGL that an older context may lack. glow panics if a function that was not
/// loaded is called, so these are checked first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Features {
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
    /// Queries of objects by name: OpenGL 4.5, or 4.3 with `GL_ARB_direct_state_access`; never
    /// OpenGL ES.
    pub(super) direct_state_access: bool,
    /// Vertex arrays, and framebuffers for drawing only: OpenGL 3.0 or OpenGL ES 3.0.
    pub(super) gl_3_objects: bool,
    /// Texture views: OpenGL 4.3 or `GL_ARB_texture_view`. In OpenGL ES they are an extension only.
    pub(super) views: bool,
    /// One-dimensional textures: never OpenGL ES.
    pub(super) texture_1d: bool,
    /// Multisample textures: OpenGL 3.2, `GL_ARB_texture_multisample` or OpenGL ES 3.1.
    pub(super) multisample_texture: bool,
    /// Arrays of multisample textures: as above, but OpenGL ES 3.2.
    pub(super) multisample_array: bool,
    /// Arrays of cube maps: OpenGL 4.0, `GL_ARB_texture_cube_map_array` or OpenGL ES 3.2.
    pub(super) cube_map_array: bool,
}

impl Features {
    /// Returns whether the context is older than OpenGL 3.3. Drivers create such contexts for
    /// programs that request no version.
    pub(super) fn is_old(version: &glow::Version) -> bool {
        !version.is_embedded && (version.major, version.minor) < (3, 3)
    }

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
            sync: has((3, 2), "GL_ARB_sync", (3, 0)),
            memory_barrier: has((4, 2), "GL_ARB_shader_image_load_store", (3, 1)),
            sample_query: has((4, 2), "GL_ARB_internalformat_query", (3, 0)),
            format_query: has((4, 3), "GL_ARB_internalformat_query2", NEVER),
            texture_swizzle: has((3, 3), "GL_ARB_texture_swizzle", (3, 0)),
            direct_state_access: number >= (4, 3)
                && has((4, 5), "GL_ARB_direct_state_access", NEVER),
            gl_3_objects: number >= (3, 0),
            views: has((4, 3), "GL_ARB_texture_view", NEVER)
                || ["GL_OES_texture_view", "GL_EXT_texture_view"]
                    .iter()
                    .any(|&name| extensions.contains(name)),
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

    fn version(major: u32, minor: u32, is_embedded: bool) -> glow::Version {
        glow::Version { major, minor, is_embedded, revision: None, vendor_info: String::new() }
    }

    fn names(names: &[&str]) -> HashSet<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn a_feature_comes_with_a_version_or_an_extension() {
        let of = |major, minor, extensions: &[&str]| {
            Features::of(&version(major, minor, false), &names(extensions))
        };
        let all = of(4, 5, &[]);
        assert!(all.sync && all.memory_barrier && all.format_query && all.texture_1d);
        assert!(all.multisample_array && all.cube_map_array);
        assert_eq!(of(4, 6, &[]), all);
        let old = of(3, 1, &["GL_ARB_sync", "GL_ARB_texture_multisample"]);
        assert!(old.sync && old.multisample_texture && old.texture_1d);
        assert!(!old.memory_barrier && !old.cube_map_array);
        assert!(!old.texture_swizzle && !old.sample_query && !old.format_query);
    }

    #[test]
    fn opengl_es_has_features_by_version_only() {
        let of =
            |major, minor| Features::of(&version(major, minor, true), &names(&["GL_ARB_sync"]));
        let es = of(3, 2);
        assert!(es.sync && es.memory_barrier && es.sample_query && es.multisample_array);
        assert!(!es.texture_1d && !es.format_query);
        assert!(!of(3, 1).multisample_array && !of(2, 0).sync);
    }
}

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
        let all = Features { direct_state_access: true, sync: true, memory_barrier: true };
        assert_eq!(features(4, 5, false, &[]), all);
        assert_eq!(features(4, 6, false, &[]), all);
        let old = features(3, 1, false, &["GL_ARB_sync"]);
        assert_eq!(old, Features { direct_state_access: false, sync: true, memory_barrier: false });
        assert!(features(3, 3, false, &["GL_ARB_direct_state_access"]).direct_state_access);
    }

    #[test]
    fn opengl_es_has_no_direct_state_access() {
        let es = features(3, 2, true, &["GL_ARB_direct_state_access"]);
        assert_eq!(es, Features { direct_state_access: false, sync: true, memory_barrier: true });
        assert!(!features(2, 0, true, &["GL_ARB_sync"]).sync);
    }
}

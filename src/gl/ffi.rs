//! The OpenGL functions that glow lacks, loaded once through the application's loader.
//!
//! A group of functions is either loaded or [`Missing`], with the name of the extension. The
//! extension list decides, not the pointer: libglvnd returns a stub for any name that begins with
//! `gl`.

use std::collections::HashSet;
use std::ffi::{CStr, c_char, c_int, c_uint, c_void};

use super::features::Features;
use crate::error::{Api, Missing};

/// The application's loader, with the signature of `eglGetProcAddress`.
pub(super) type Loader<'a> = dyn FnMut(&CStr) -> *const c_void + 'a;

// GL_EXT_memory_object, GL_EXT_semaphore and their _fd extensions.
pub(super) const TEXTURE_TILING_EXT: c_uint = 0x9580;
pub(super) const DEDICATED_MEMORY_OBJECT_EXT: c_uint = 0x9581;
pub(super) const NUM_TILING_TYPES_EXT: c_uint = 0x9582;
pub(super) const TILING_TYPES_EXT: c_uint = 0x9583;
pub(super) const OPTIMAL_TILING_EXT: c_uint = 0x9584;
pub(super) const LINEAR_TILING_EXT: c_uint = 0x9585;
pub(super) const HANDLE_TYPE_OPAQUE_FD_EXT: c_uint = 0x9586;
pub(super) const NUM_DEVICE_UUIDS_EXT: c_uint = 0x9596;
pub(super) const DEVICE_UUID_EXT: c_uint = 0x9597;
pub(super) const DRIVER_UUID_EXT: c_uint = 0x9598;
/// `GL_UUID_SIZE_EXT`.
pub(super) const UUID_SIZE_EXT: usize = 16;
// GL_NV_timeline_semaphore.
pub(super) const TIMELINE_SEMAPHORE_VALUE_NV: c_uint = 0x9595;
pub(super) const SEMAPHORE_TYPE_NV: c_uint = 0x95B3;
pub(super) const SEMAPHORE_TYPE_TIMELINE_NV: c_int = 0x95B5;

/// Resolves one function to a pointer of type `$fn`, or `None` if the loader doesn't know it.
macro_rules! resolve {
    ($loader:expr, $name:expr, $fn:ty) => {{
        let pointer: *const c_void = ($loader)($name);
        // SAFETY: the loader returns null or the address of the function of that name (promised to
        // `Endpoint::new`), and the type is the one in the specification. A null pointer is the
        // `None` of an optional function pointer.
        unsafe { std::mem::transmute::<*const c_void, Option<$fn>>(pointer) }
    }};
}
pub(super) use resolve;

/// Declares a group of functions that a context has together or not at all.
macro_rules! group {
    ($(#[$doc:meta])* $group:ident {
        $( $field:ident = $name:literal: fn($($arg:ty),*) $(-> $ret:ty)?; )*
    }) => {
        $(#[$doc])*
        #[derive(Clone, Copy)]
        pub(super) struct $group {
            $( pub(super) $field: unsafe extern "system" fn($($arg),*) $(-> $ret)?, )*
        }

        impl $group {
            /// Loads the group if its extensions are `listed`.
            fn load(
                listed: Group<()>,
                loader: &mut Loader<'_>,
                needed_for: &'static str,
            ) -> Group<Self> {
                listed?;
                Ok(Self { $(
                    $field: resolve!(
                        loader, $name, unsafe extern "system" fn($($arg),*) $(-> $ret)?
                    ).ok_or_else(|| unresolved($name, needed_for))?,
                )* })
            }
        }
    };
}

group! {
    /// Core in every version. glow limits sizes to two gigabytes.
    CoreFns {
        get_string = c"glGetString": fn(c_uint) -> *const c_char;
        buffer_data = c"glBufferData": fn(c_uint, isize, *const c_void, c_uint);
    }
}

group! {
    /// The wait of `GL_ARB_sync`. glow's limits the timeout to two seconds.
    SyncFns {
        client_wait_sync = c"glClientWaitSync": fn(*const c_void, c_uint, u64) -> c_uint;
    }
}

group! {
    /// UUIDs, which both `GL_EXT_memory_object` and `GL_EXT_semaphore` have.
    UuidFns {
        get_unsigned_bytev = c"glGetUnsignedBytevEXT": fn(c_uint, *mut u8);
        get_unsigned_bytei_v = c"glGetUnsignedBytei_vEXT": fn(c_uint, c_uint, *mut u8);
    }
}

group! {
    /// `GL_EXT_memory_object` and `GL_EXT_memory_object_fd`, buffers only.
    MemoryFns {
        create = c"glCreateMemoryObjectsEXT": fn(c_int, *mut c_uint);
        delete = c"glDeleteMemoryObjectsEXT": fn(c_int, *const c_uint);
        parameteriv = c"glMemoryObjectParameterivEXT": fn(c_uint, c_uint, *const c_int);
        import_fd = c"glImportMemoryFdEXT": fn(c_uint, u64, c_uint, c_int);
        buffer_storage = c"glBufferStorageMemEXT": fn(c_uint, isize, c_uint, u64);
    }
}

group! {
    /// The storage of textures in `GL_EXT_memory_object`. Arguments: target, levels or samples,
    /// internal format, sizes, with samples also whether their locations are fixed, memory object,
    /// offset.
    TextureFns {
        storage_2d = c"glTexStorageMem2DEXT":
            fn(c_uint, c_int, c_uint, c_int, c_int, c_uint, u64);
        storage_3d = c"glTexStorageMem3DEXT":
            fn(c_uint, c_int, c_uint, c_int, c_int, c_int, c_uint, u64);
        storage_2d_multisample = c"glTexStorageMem2DMultisampleEXT":
            fn(c_uint, c_int, c_uint, c_int, c_int, u8, c_uint, u64);
        storage_3d_multisample = c"glTexStorageMem3DMultisampleEXT":
            fn(c_uint, c_int, c_uint, c_int, c_int, c_int, u8, c_uint, u64);
    }
}

group! {
    /// The part of [`TextureFns`] that OpenGL ES lacks.
    Texture1dFns {
        storage_1d = c"glTexStorageMem1DEXT": fn(c_uint, c_int, c_uint, c_int, c_uint, u64);
    }
}

group! {
    /// `GL_EXT_semaphore` and `GL_EXT_semaphore_fd`.
    SemaphoreFns {
        generate = c"glGenSemaphoresEXT": fn(c_int, *mut c_uint);
        delete = c"glDeleteSemaphoresEXT": fn(c_int, *const c_uint);
        parameterui64v = c"glSemaphoreParameterui64vEXT": fn(c_uint, c_uint, *const u64);
        wait = c"glWaitSemaphoreEXT":
            fn(c_uint, c_uint, *const c_uint, c_uint, *const c_uint, *const c_uint);
        signal = c"glSignalSemaphoreEXT":
            fn(c_uint, c_uint, *const c_uint, c_uint, *const c_uint, *const c_uint);
        import_fd = c"glImportSemaphoreFdEXT": fn(c_uint, c_uint, c_int);
    }
}

group! {
    /// `GL_NV_timeline_semaphore`.
    TimelineFns {
        create = c"glCreateSemaphoresNV": fn(c_int, *mut c_uint);
        parameteriv = c"glSemaphoreParameterivNV": fn(c_uint, c_uint, *const c_int);
    }
}

group! {
    /// Queries for what objects hold, most of them of `GL_ARB_direct_state_access`.
    HolderFns {
        is_vertex_array = c"glIsVertexArray": fn(c_uint) -> u8;
        get_named_framebuffer_attachment_parameteriv =
            c"glGetNamedFramebufferAttachmentParameteriv": fn(c_uint, c_uint, c_uint, *mut c_int);
        get_texture_parameteriv = c"glGetTextureParameteriv": fn(c_uint, c_uint, *mut c_int);
        get_texture_level_parameteriv =
            c"glGetTextureLevelParameteriv": fn(c_uint, c_int, c_uint, *mut c_int);
        get_transform_feedbacki_v =
            c"glGetTransformFeedbacki_v": fn(c_uint, c_uint, c_uint, *mut c_int);
    }
}

/// A group of functions, or what is missing for it.
pub(super) type Group<T> = Result<T, Missing>;

/// Everything that was loaded.
pub(super) struct Functions {
    pub(super) core: CoreFns,
    pub(super) sync: Group<SyncFns>,
    pub(super) uuid: Group<UuidFns>,
    pub(super) memory: Group<MemoryFns>,
    pub(super) texture: Group<TextureFns>,
    pub(super) texture_1d: Group<Texture1dFns>,
    pub(super) semaphore: Group<SemaphoreFns>,
    pub(super) timeline: Group<TimelineFns>,
    pub(super) holders: Group<HolderFns>,
}

impl Functions {
    /// Loads each group whose extensions the context lists.
    ///
    /// # Errors
    /// [`Missing`] if not even `glGetString` is found: then the loader isn't OpenGL's.
    pub(super) fn load(
        loader: &mut Loader<'_>,
        version: &glow::Version,
        extensions: &HashSet<String>,
        features: &Features,
    ) -> Group<Self> {
        const MEMORY: &str = "importing memory";
        const IMAGES: &str = "a shared image";
        const SEMAPHORES: &str = "importing a semaphore";
        const TIMELINES: &str = "importing a timeline semaphore";
        const IDENTITY: &str = "identifying the context's GPU";
        const HOLDERS: &str = "finding out what holds a buffer or texture";
        const HOST_WAIT: &str = "waiting on the host";
        let help = |verb: &str| {
            if !Features::is_old(version) {
                return format!("open the context on a newer driver, or on one that {verb}");
            }
            let glow::Version { major, minor, .. } = version;
            format!(
                "the context is of OpenGL {major}.{minor}: request OpenGL 3.3 or later \
                 (EGL_CONTEXT_MAJOR_VERSION, GLX_CONTEXT_MAJOR_VERSION_ARB), with a driver that {verb}"
            )
        };
        let listed = |needed: &[&'static str], needed_for: &'static str| match needed
            .iter()
            .find(|&&name| !extensions.contains(name))
        {
            None => Ok(()),
            Some(&name) => Err(Missing::new(Api::OpenGl, name, needed_for).help(help("has it"))),
        };
        let either = listed(&["GL_EXT_memory_object"], IDENTITY)
            .or_else(|_| listed(&["GL_EXT_semaphore"], IDENTITY))
            .map_err(|_| {
                let what = "GL_EXT_memory_object and GL_EXT_semaphore";
                Missing::new(Api::OpenGl, what, IDENTITY).help(help("can share memory"))
            });
        let memory = listed(&["GL_EXT_memory_object", "GL_EXT_memory_object_fd"], MEMORY);
        let semaphore = listed(&["GL_EXT_semaphore", "GL_EXT_semaphore_fd"], SEMAPHORES);
        let timeline =
            semaphore.clone().and_then(|()| listed(&["GL_NV_timeline_semaphore"], TIMELINES));
        let sync = if features.sync {
            Ok(())
        } else {
            Err(Missing::new(Api::OpenGl, "GL_ARB_sync", HOST_WAIT)
                .help("open a context of OpenGL 3.2 or OpenGL ES 3.0"))
        };
        let holders = if features.direct_state_access {
            Ok(())
        } else {
            Err(Missing::new(Api::OpenGl, "GL_ARB_direct_state_access", HOLDERS))
        };
        Ok(Self {
            core: CoreFns::find(loader)?,
            sync: SyncFns::load(sync, loader, HOST_WAIT),
            uuid: UuidFns::load(either, loader, IDENTITY),
            texture: TextureFns::load(memory.clone(), loader, IMAGES),
            texture_1d: Texture1dFns::load(memory.clone(), loader, IMAGES),
            memory: MemoryFns::load(memory, loader, MEMORY),
            semaphore: SemaphoreFns::load(semaphore, loader, SEMAPHORES),
            timeline: TimelineFns::load(timeline, loader, TIMELINES),
            holders: HolderFns::load(holders, loader, HOLDERS),
        })
    }
}

impl CoreFns {
    /// Loads the functions.
    ///
    /// # Errors
    /// [`Missing`] if one is not found: then the loader isn't OpenGL's.
    pub(super) fn find(loader: &mut Loader<'_>) -> Group<Self> {
        Self::load(Ok(()), loader, "an endpoint")
    }
}

/// A function that the context must have but the loader doesn't know.
fn unresolved(name: &CStr, needed_for: &'static str) -> Missing {
    Missing::new(Api::OpenGl, name.to_string_lossy().into_owned(), needed_for)
        .help("pass the loader of the library that created the context, such as eglGetProcAddress")
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

    fn load(found: &[&CStr], listed: &[&str]) -> Group<Functions> {
        // Any address but null: nothing is called.
        let mut loader = |name: &CStr| {
            if found.is_empty() || found.contains(&name) {
                8 as *const c_void
            } else {
                std::ptr::null()
            }
        };
        let (version, listed) = (version(4, 5, false), names(listed));
        Functions::load(&mut loader, &version, &listed, &Features::of(&version, &listed))
    }

    #[test]
    fn an_old_context_is_refused_with_the_version_that_is_needed() {
        let mut loader = |_: &CStr| 8 as *const c_void;
        let (version, listed) = (version(2, 1, false), HashSet::new());
        let features = Features::of(&version, &listed);
        let functions = Functions::load(&mut loader, &version, &listed, &features).unwrap();
        for missing in [functions.uuid.err(), functions.memory.err()] {
            let text = missing.unwrap().to_string();
            assert!(text.contains("of OpenGL 2.1") && text.contains("OpenGL 3.3"), "{text}");
        }
        assert!(!load(&[], &[]).unwrap().uuid.err().unwrap().to_string().contains("3.3"));
    }

    #[test]
    fn a_stub_of_an_unlisted_extension_is_ignored() {
        let functions = load(&[], &["GL_EXT_memory_object"]).unwrap();
        assert!(functions.uuid.is_ok());
        assert_eq!(functions.memory.err().unwrap().what, "GL_EXT_memory_object_fd");
        assert_eq!(functions.semaphore.err().unwrap().what, "GL_EXT_semaphore");
        assert_eq!(functions.timeline.err().unwrap().what, "GL_EXT_semaphore");
    }

    #[test]
    fn a_missing_extension_is_named() {
        let functions = load(&[], &["GL_EXT_semaphore", "GL_EXT_semaphore_fd"]).unwrap();
        assert!(functions.semaphore.is_ok() && functions.uuid.is_ok());
        assert_eq!(functions.timeline.err().unwrap().what, "GL_NV_timeline_semaphore");
        assert_eq!(functions.memory.err().unwrap().what, "GL_EXT_memory_object");
        let nothing = load(&[], &[]).unwrap();
        assert!(nothing.uuid.err().unwrap().what.contains("GL_EXT_semaphore"));
    }

    #[test]
    fn a_listed_function_that_the_loader_lacks_is_named() {
        let listed = ["GL_EXT_memory_object", "GL_EXT_memory_object_fd"];
        let functions =
            load(&[c"glGetString", c"glBufferData", c"glCreateMemoryObjectsEXT"], &listed).unwrap();
        assert_eq!(functions.memory.err().unwrap().what, "glDeleteMemoryObjectsEXT");
        assert_eq!(load(&[c"glFlush"], &listed).err().unwrap().what, "glGetString");
    }
}

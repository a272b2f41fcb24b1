//! The entry points that glow lacks, loaded once through the user's loader.
//!
//! A group of functions is there, or it is [`Missing`] and names the extension. The extension list
//! decides, not the pointer: libglvnd answers any name that begins with `gl` with a stub.

use std::collections::HashSet;
use std::ffi::{CStr, c_char, c_int, c_uint, c_void};

use super::features::Features;
use crate::error::{Api, Missing};

/// The user's loader, as `eglGetProcAddress` has it.
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

/// Resolves one function to a pointer of type `$fn`, or `None` where the loader has none.
macro_rules! resolve {
    ($loader:expr, $name:expr, $fn:ty) => {{
        let pointer: *const c_void = ($loader)($name);
        // SAFETY: the loader returns null or the address of the function of that name (promised to
        // `Endpoint::new`), and the type is the one the specification gives it. A null pointer is
        // the `None` of an optional function pointer.
        unsafe { std::mem::transmute::<*const c_void, Option<$fn>>(pointer) }
    }};
}
pub(super) use resolve;

/// Declares a group of functions that are there together or not at all.
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
            /// All functions of the group, or the name of the first that the loader lacks.
            fn load(loader: &mut Loader<'_>) -> Result<Self, &'static CStr> {
                Ok(Self { $(
                    $field: resolve!(
                        loader, $name, unsafe extern "system" fn($($arg),*) $(-> $ret)?
                    ).ok_or($name)?,
                )* })
            }
        }
    };
}

group! {
    /// What is asked before anything else.
    CoreFns {
        get_string = c"glGetString": fn(c_uint) -> *const c_char;
    }
}

group! {
    /// `ARB_sync`'s wait; glow's takes a timeout of two seconds at most.
    SyncFns {
        client_wait_sync = c"glClientWaitSync": fn(*const c_void, c_uint, u64) -> c_uint;
    }
}

group! {
    /// UUIDs: of either `GL_EXT_memory_object` or `GL_EXT_semaphore`.
    UuidFns {
        get_unsigned_bytev = c"glGetUnsignedBytevEXT": fn(c_uint, *mut u8);
        get_unsigned_bytei_v = c"glGetUnsignedBytei_vEXT": fn(c_uint, c_uint, *mut u8);
    }
}

group! {
    /// `GL_EXT_memory_object` and `GL_EXT_memory_object_fd`.
    MemoryFns {
        create = c"glCreateMemoryObjectsEXT": fn(c_int, *mut c_uint);
        delete = c"glDeleteMemoryObjectsEXT": fn(c_int, *const c_uint);
        parameteriv = c"glMemoryObjectParameterivEXT": fn(c_uint, c_uint, *const c_int);
        import_fd = c"glImportMemoryFdEXT": fn(c_uint, u64, c_uint, c_int);
        buffer_storage = c"glBufferStorageMemEXT": fn(c_uint, isize, c_uint, u64);
    }
}

group! {
    /// The part of `GL_EXT_memory_object` that comes with direct state access.
    NamedMemoryFns {
        buffer_storage = c"glNamedBufferStorageMemEXT": fn(c_uint, isize, c_uint, u64);
    }
}

group! {
    /// The part of `GL_EXT_memory_object` that gives the texture that is bound its storage.
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
    /// What OpenGL ES lacks of [`TextureFns`].
    Texture1dFns {
        storage_1d = c"glTexStorageMem1DEXT": fn(c_uint, c_int, c_uint, c_int, c_uint, u64);
    }
}

group! {
    /// Both of them with direct state access, which OpenGL ES never has.
    NamedTextureFns {
        storage_1d = c"glTextureStorageMem1DEXT": fn(c_uint, c_int, c_uint, c_int, c_uint, u64);
        storage_2d = c"glTextureStorageMem2DEXT":
            fn(c_uint, c_int, c_uint, c_int, c_int, c_uint, u64);
        storage_3d = c"glTextureStorageMem3DEXT":
            fn(c_uint, c_int, c_uint, c_int, c_int, c_int, c_uint, u64);
        storage_2d_multisample = c"glTextureStorageMem2DMultisampleEXT":
            fn(c_uint, c_int, c_uint, c_int, c_int, u8, c_uint, u64);
        storage_3d_multisample = c"glTextureStorageMem3DMultisampleEXT":
            fn(c_uint, c_int, c_uint, c_int, c_int, c_int, u8, c_uint, u64);
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

/// What gives a one-dimensional texture its storage: texture or target, levels, internal format,
/// size, memory object, offset.
pub(super) type Storage1dFn = unsafe extern "system" fn(c_uint, c_int, c_uint, c_int, c_uint, u64);
/// The same with two sizes.
pub(super) type Storage2dFn =
    unsafe extern "system" fn(c_uint, c_int, c_uint, c_int, c_int, c_uint, u64);
/// The same with three.
pub(super) type Storage3dFn =
    unsafe extern "system" fn(c_uint, c_int, c_uint, c_int, c_int, c_int, c_uint, u64);
/// With samples for levels, and whether they lie at the same places in every texel.
pub(super) type Storage2dMultisampleFn =
    unsafe extern "system" fn(c_uint, c_int, c_uint, c_int, c_int, u8, c_uint, u64);
/// The same with three sizes.
pub(super) type Storage3dMultisampleFn =
    unsafe extern "system" fn(c_uint, c_int, c_uint, c_int, c_int, c_int, u8, c_uint, u64);

/// A group that is there, or what is missing.
pub(super) type Group<T> = Result<T, Missing>;

/// All that was loaded.
pub(super) struct Functions {
    pub(super) core: CoreFns,
    pub(super) sync: Group<SyncFns>,
    pub(super) uuid: Group<UuidFns>,
    pub(super) memory: Group<MemoryFns>,
    pub(super) named_memory: Group<NamedMemoryFns>,
    pub(super) texture: Group<TextureFns>,
    pub(super) texture_1d: Group<Texture1dFns>,
    pub(super) named_texture: Group<NamedTextureFns>,
    pub(super) semaphore: Group<SemaphoreFns>,
    pub(super) timeline: Group<TimelineFns>,
}

const FOR_MEMORY: &str = "importing memory";
const FOR_TEXTURES: &str = "a shared image";
const FOR_SEMAPHORES: &str = "importing a semaphore";
const FOR_TIMELINES: &str = "importing a timeline semaphore";
const FOR_IDENTITY: &str = "knowing which GPU the context is on";

impl Functions {
    /// Loads each group whose extensions the context lists.
    ///
    /// # Errors
    /// [`Missing`] where not even `glGetString` is found: then the loader is none of OpenGL's.
    pub(super) fn load(
        loader: &mut Loader<'_>,
        extensions: &HashSet<String>,
        features: &Features,
    ) -> Result<Self, Missing> {
        let listed = |needed: &[&'static str], needed_for: &'static str| match needed
            .iter()
            .find(|&&name| !extensions.contains(name))
        {
            None => Ok(()),
            Some(&name) => Err(Missing::new(Api::OpenGl, name, needed_for)
                .help("update the driver, or open the context on a driver that has it")),
        };
        let either = listed(&["GL_EXT_memory_object"], FOR_IDENTITY)
            .or_else(|_| listed(&["GL_EXT_semaphore"], FOR_IDENTITY))
            .map_err(|_| {
                let what = "GL_EXT_memory_object and GL_EXT_semaphore";
                Missing::new(Api::OpenGl, what, FOR_IDENTITY)
                    .help("open the context on a driver that can share memory")
            });
        let memory = listed(&["GL_EXT_memory_object", "GL_EXT_memory_object_fd"], FOR_MEMORY);
        let semaphore = listed(&["GL_EXT_semaphore", "GL_EXT_semaphore_fd"], FOR_SEMAPHORES);
        let timeline =
            semaphore.clone().and_then(|()| listed(&["GL_NV_timeline_semaphore"], FOR_TIMELINES));
        let dsa = memory.clone().and_then(|()| {
            let missing = || Missing::new(Api::OpenGl, "direct state access", FOR_MEMORY);
            if features.direct_state_access { Ok(()) } else { Err(missing()) }
        });
        let sync = if features.sync {
            Ok(())
        } else {
            Err(Missing::new(Api::OpenGl, "GL_ARB_sync", "waiting on the host")
                .help("open a context of OpenGL 3.2 or OpenGL ES 3.0"))
        };
        Ok(Self {
            core: CoreFns::load(loader).map_err(|name| unresolved(name, "an endpoint"))?,
            sync: sync.and_then(|()| {
                SyncFns::load(loader).map_err(|name| unresolved(name, "waiting on the host"))
            }),
            uuid: either.and_then(|()| {
                UuidFns::load(loader).map_err(|name| unresolved(name, FOR_IDENTITY))
            }),
            texture: memory.clone().and_then(|()| {
                TextureFns::load(loader).map_err(|name| unresolved(name, FOR_TEXTURES))
            }),
            texture_1d: memory.clone().and_then(|()| {
                Texture1dFns::load(loader).map_err(|name| unresolved(name, FOR_TEXTURES))
            }),
            memory: memory.and_then(|()| {
                MemoryFns::load(loader).map_err(|name| unresolved(name, FOR_MEMORY))
            }),
            named_texture: dsa.clone().and_then(|()| {
                NamedTextureFns::load(loader).map_err(|name| unresolved(name, FOR_TEXTURES))
            }),
            named_memory: dsa.and_then(|()| {
                NamedMemoryFns::load(loader).map_err(|name| unresolved(name, FOR_MEMORY))
            }),
            semaphore: semaphore.and_then(|()| {
                SemaphoreFns::load(loader).map_err(|name| unresolved(name, FOR_SEMAPHORES))
            }),
            timeline: timeline.and_then(|()| {
                TimelineFns::load(loader).map_err(|name| unresolved(name, FOR_TIMELINES))
            }),
        })
    }
}

/// A function that should be there but that the loader doesn't know.
fn unresolved(name: &CStr, needed_for: &'static str) -> Missing {
    Missing::new(Api::OpenGl, name.to_string_lossy().into_owned(), needed_for)
        .help("give the loader of the library that made the context, as eglGetProcAddress is")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extensions(names: &[&str]) -> HashSet<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    fn load(found: &[&CStr], listed: &[&str]) -> Result<Functions, Missing> {
        // Any address that isn't null will do: nothing is called.
        let mut loader = |name: &CStr| {
            if found.is_empty() || found.contains(&name) {
                8 as *const c_void
            } else {
                std::ptr::null()
            }
        };
        let version = glow::Version {
            major: 4,
            minor: 5,
            is_embedded: false,
            revision: None,
            vendor_info: String::new(),
        };
        let features = Features::of(&version, &HashSet::new());
        Functions::load(&mut loader, &extensions(listed), &features)
    }

    #[test]
    fn a_stub_for_an_extension_that_is_not_listed_is_not_believed() {
        let functions = load(&[], &["GL_EXT_memory_object"]).unwrap();
        assert!(functions.uuid.is_ok());
        assert_eq!(functions.memory.err().unwrap().what, "GL_EXT_memory_object_fd");
        assert_eq!(functions.semaphore.err().unwrap().what, "GL_EXT_semaphore");
        assert_eq!(functions.timeline.err().unwrap().what, "GL_EXT_semaphore");
    }

    #[test]
    fn what_is_missing_is_named() {
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
        let functions = load(&[c"glGetString", c"glCreateMemoryObjectsEXT"], &listed).unwrap();
        assert_eq!(functions.memory.err().unwrap().what, "glDeleteMemoryObjectsEXT");
        assert_eq!(load(&[c"glFlush"], &listed).err().unwrap().what, "glGetString");
    }
}

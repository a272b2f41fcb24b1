//! The functions of the made-up OpenGL.

use std::collections::HashMap;
use std::ffi::{CStr, c_char, c_void};
use std::sync::Arc;

use super::super::Endpoint;
use super::recorder::{
    DEBUG_GROUPS, DEVICE, DRIVER, TARGETS, array, create, generate, record, reset, take_calls,
    take_error, take_over, with,
};

const EXTENSIONS: [&CStr; 5] = [
    c"GL_EXT_memory_object",
    c"GL_EXT_memory_object_fd",
    c"GL_EXT_semaphore",
    c"GL_EXT_semaphore_fd",
    c"GL_NV_timeline_semaphore",
];

/// Creates an endpoint of the made-up OpenGL, in which the names 1 to 11 are bound to
/// [`TARGETS`].
pub(super) fn endpoint() -> Endpoint {
    reset();
    let mut loader = |name: &CStr| address(name);
    // SAFETY: the loader returns the addresses of functions with the signatures of those names, and
    // null for others, which the endpoint never calls.
    let gl = Arc::new(unsafe { glow::Context::from_loader_function_cstr(&mut loader) });
    // SAFETY: as above; the functions are there as long as the process.
    let endpoint = unsafe { Endpoint::new(gl, &mut loader, None) }.unwrap();
    take_calls();
    endpoint
}

/// Defines the functions and the loader that finds them.
macro_rules! functions {
    ($(fn $name:ident($($arg:ident: $ty:ty),*) $(-> $ret:ty)? $body:block)*) => {
        $(
            #[allow(non_snake_case)]
            unsafe extern "system" fn $name($($arg: $ty),*) $(-> $ret)? $body
        )*

        /// Returns the address of a function, or null.
        pub(super) fn address(name: &CStr) -> *const c_void {
            let known: HashMap<&str, *const c_void> =
                [$((stringify!($name), $name as *const c_void)),*].into();
            name.to_str().ok().and_then(|name| known.get(name)).copied().unwrap_or_default()
        }
    };
}

functions! {
    fn eglGetCurrentContext() -> *const c_void {
        with(|state| if state.not_current { std::ptr::null() } else { 8 as *const c_void })
    }
    fn glGetError() -> u32 { take_error() }
    fn glIsEnabled(capability: u32) -> u8 {
        with(|state| u8::from(capability == glow::DEBUG_OUTPUT && state.debug_output))
    }
    fn glEnable(capability: u32) {
        if capability == glow::DEBUG_OUTPUT {
            with(|state| state.debug_output = true);
        } else {
            generate(glow::INVALID_ENUM);
        }
    }
    fn glDisable(capability: u32) {
        assert_eq!(capability, glow::DEBUG_OUTPUT);
        with(|state| state.debug_output = false);
    }
    fn glViewport(_x: i32, _y: i32, width: i32, height: i32) {
        assert!(width < 0 && height < 0, "the application's viewport is changed");
        generate(glow::INVALID_VALUE);
    }
    fn glBindVertexArray(name: u32) {
        assert_eq!(name, u32::MAX, "the application's vertex array is unbound");
        generate(glow::INVALID_OPERATION);
    }
    fn glBufferData(target: u32, size: isize, _data: *const c_void, _usage: u32) {
        assert!(with(|state| state.bindings[&target]) > 100, "the application's buffer is changed");
        assert_eq!(size, 1 << 62);
        generate(glow::OUT_OF_MEMORY);
    }
    fn glGenFramebuffers(_count: i32, names: *mut u32) { create("glGenFramebuffers", names) }
    fn glDeleteFramebuffers(_count: i32, names: *const u32) {
        record("glDeleteFramebuffers", &array(1, names))
    }
    fn glBindFramebuffer(target: u32, name: u32) {
        with(|state| state.bindings.insert(target, name));
    }
    fn glClear(_mask: u32) {
        let bound = with(|state| state.bindings[&glow::DRAW_FRAMEBUFFER]);
        assert!(bound > 100, "the application's framebuffer is cleared");
        generate(glow::INVALID_FRAMEBUFFER_OPERATION);
    }
    fn glPushDebugGroup(_source: u32, _id: u32, _length: i32, _message: *const c_char) {
        if with(|state| state.debug_groups) == DEBUG_GROUPS {
            generate(glow::STACK_OVERFLOW);
        } else {
            with(|state| state.debug_groups += 1);
        }
    }
    fn glPopDebugGroup() {
        if with(|state| state.debug_groups) == 1 {
            generate(glow::STACK_UNDERFLOW);
        } else {
            with(|state| state.debug_groups -= 1);
        }
    }
    fn glGetString(name: u32) -> *const c_char {
        if name == glow::VERSION { c"4.6.0" } else { c"recorder" }.as_ptr()
    }
    fn glGetStringi(_name: u32, index: u32) -> *const c_char {
        EXTENSIONS[index as usize].as_ptr()
    }
    fn glGetIntegerv(parameter: u32, value: *mut i32) {
        let bound = TARGETS.iter().find(|(_, binding)| *binding == parameter);
        let answer = match parameter {
            glow::NUM_EXTENSIONS => EXTENSIONS.len() as i32,
            0x9596 => 1, // GL_NUM_DEVICE_UUIDS_EXT
            glow::DEBUG_GROUP_STACK_DEPTH => with(|state| state.debug_groups) as i32,
            glow::MAX_DEBUG_GROUP_STACK_DEPTH => DEBUG_GROUPS as i32,
            _ => match bound {
                Some((target, _)) => with(|state| state.bindings[target]) as i32,
                None => 16_384,
            },
        };
        // SAFETY: the caller passes room for the one integer that the parameter has.
        unsafe { value.write(answer) };
    }
    fn glGetUnsignedBytevEXT(_parameter: u32, data: *mut u8) {
        // SAFETY: the caller passes room for a UUID.
        unsafe { data.write_bytes(DRIVER, 16) };
    }
    fn glGetUnsignedBytei_vEXT(_parameter: u32, _index: u32, data: *mut u8) {
        // SAFETY: the caller passes room for a UUID.
        unsafe { data.write_bytes(DEVICE, 16) };
    }
    fn glGetInternalformativ(
        _target: u32, _format: u32, parameter: u32, count: i32, values: *mut i32
    ) {
        let tilings = with(|state| state.tilings.clone());
        let answer = match parameter {
            0x9582 => vec![tilings.len() as i32],
            0x9583 => tilings,
            glow::NUM_SAMPLE_COUNTS => vec![1],
            glow::SAMPLES => vec![4],
            _ => vec![1],
        };
        for (at, value) in answer.into_iter().enumerate().take(count as usize) {
            // SAFETY: the caller passes room for `count` integers.
            unsafe { values.add(at).write(value) };
        }
    }
    fn glGenBuffers(_count: i32, names: *mut u32) { create("glGenBuffers", names) }
    fn glGenTextures(_count: i32, names: *mut u32) { create("glGenTextures", names) }
    fn glCreateMemoryObjectsEXT(_count: i32, names: *mut u32) {
        create("glCreateMemoryObjectsEXT", names)
    }
    fn glGenSemaphoresEXT(_count: i32, names: *mut u32) { create("glGenSemaphoresEXT", names) }
    fn glCreateSemaphoresNV(_count: i32, names: *mut u32) { create("glCreateSemaphoresNV", names) }
    fn glDeleteBuffers(_count: i32, names: *const u32) {
        record("glDeleteBuffers", &array(1, names))
    }
    fn glDeleteTextures(_count: i32, names: *const u32) {
        record("glDeleteTextures", &array(1, names))
    }
    fn glDeleteMemoryObjectsEXT(_count: i32, names: *const u32) {
        record("glDeleteMemoryObjectsEXT", &array(1, names))
    }
    fn glDeleteSemaphoresEXT(_count: i32, names: *const u32) {
        record("glDeleteSemaphoresEXT", &array(1, names))
    }
    fn glDeleteSync(_sync: *const c_void) { record("glDeleteSync", &[]) }
    fn glBindBuffer(target: u32, name: u32) {
        with(|state| state.bindings.insert(target, name));
    }
    fn glBindTexture(target: u32, name: u32) {
        with(|state| state.bindings.insert(target, name));
    }
    fn glTexParameteri(target: u32, parameter: u32, value: i32) {
        record("glTexParameteri", &[target.into(), parameter.into(), value as u64])
    }
    fn glBufferStorageMemEXT(target: u32, size: isize, memory: u32, offset: u64) {
        let bound = with(|state| state.bindings[&target]);
        record("glBufferStorageMemEXT", &[bound.into(), size as u64, memory.into(), offset])
    }
    fn glTexStorageMem1DEXT(
        target: u32, _levels: i32, _format: u32, _width: i32, memory: u32, offset: u64
    ) {
        record("glTexStorageMem1DEXT", &[target.into(), memory.into(), offset])
    }
    fn glTexStorageMem2DEXT(
        target: u32, _levels: i32, _format: u32, _width: i32, _height: i32, memory: u32, offset: u64
    ) {
        record("glTexStorageMem2DEXT", &[target.into(), memory.into(), offset])
    }
    fn glTexStorageMem3DEXT(
        target: u32, _levels: i32, _format: u32, _width: i32, _height: i32, _depth: i32,
        memory: u32, offset: u64
    ) {
        record("glTexStorageMem3DEXT", &[target.into(), memory.into(), offset])
    }
    fn glTexStorageMem2DMultisampleEXT(
        target: u32, _samples: i32, _format: u32, _width: i32, _height: i32, _fixed: u8,
        memory: u32, offset: u64
    ) {
        record("glTexStorageMem2DMultisampleEXT", &[target.into(), memory.into(), offset])
    }
    fn glTexStorageMem3DMultisampleEXT(
        target: u32, _samples: i32, _format: u32, _width: i32, _height: i32, _depth: i32,
        _fixed: u8, memory: u32, offset: u64
    ) {
        record("glTexStorageMem3DMultisampleEXT", &[target.into(), memory.into(), offset])
    }
    fn glMemoryObjectParameterivEXT(memory: u32, parameter: u32, value: *const i32) {
        // SAFETY: the caller passes the one integer that the parameter has.
        let value = unsafe { *value } as u64;
        record("glMemoryObjectParameterivEXT", &[memory.into(), parameter.into(), value])
    }
    fn glImportMemoryFdEXT(memory: u32, size: u64, handle_type: u32, fd: i32) {
        take_over(fd);
        record("glImportMemoryFdEXT", &[memory.into(), size, handle_type.into()])
    }
    fn glSemaphoreParameterivNV(semaphore: u32, parameter: u32, value: *const i32) {
        // SAFETY: as above.
        let value = unsafe { *value } as u64;
        record("glSemaphoreParameterivNV", &[semaphore.into(), parameter.into(), value])
    }
    fn glSemaphoreParameterui64vEXT(semaphore: u32, parameter: u32, value: *const u64) {
        // SAFETY: as above.
        let value = unsafe { *value };
        record("glSemaphoreParameterui64vEXT", &[semaphore.into(), parameter.into(), value])
    }
    fn glImportSemaphoreFdEXT(semaphore: u32, handle_type: u32, fd: i32) {
        take_over(fd);
        record("glImportSemaphoreFdEXT", &[semaphore.into(), handle_type.into()])
    }
    fn glWaitSemaphoreEXT(
        semaphore: u32, buffers: u32, buffer_names: *const u32, textures: u32,
        texture_names: *const u32, layouts: *const u32
    ) {
        let lists = [array(buffers, buffer_names), array(textures, texture_names),
            array(textures, layouts)];
        record("glWaitSemaphoreEXT", &[vec![semaphore.into()], lists.concat()].concat())
    }
    fn glSignalSemaphoreEXT(
        semaphore: u32, buffers: u32, buffer_names: *const u32, textures: u32,
        texture_names: *const u32, layouts: *const u32
    ) {
        let lists = [array(buffers, buffer_names), array(textures, texture_names),
            array(textures, layouts)];
        record("glSignalSemaphoreEXT", &[vec![semaphore.into()], lists.concat()].concat())
    }
    fn glFenceSync(condition: u32, flags: u32) -> *const c_void {
        record("glFenceSync", &[condition.into(), flags.into()]);
        8 as *const c_void
    }
    fn glClientWaitSync(_sync: *const c_void, flags: u32, timeout: u64) -> u32 {
        record("glClientWaitSync", &[flags.into(), timeout]);
        glow::CONDITION_SATISFIED
    }
    fn glMemoryBarrier(bits: u32) { record("glMemoryBarrier", &[bits.into()]) }
    fn glFlush() { record("glFlush", &[]) }
    fn glFinish() { record("glFinish", &[]) }
}

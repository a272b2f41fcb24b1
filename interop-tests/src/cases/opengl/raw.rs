//! Family D: OpenGL's own errors for calls that the library's types make impossible, and driver bugs that the
//! library works around.

use std::ffi::{CStr, c_void};

use anyhow::{Context, Result, ensure};
use gpu_interop::BufferDesc;
use gpu_interop::glow::{self, HasContext as _};
use gpu_interop::vulkan::BufferOptions;

use crate::harness::{Case, Need, TestGpu};
use interop_gpu::gl::GlContext;
use interop_gpu::oracle::{self, Passes};

const DEDICATED_MEMORY_OBJECT_EXT: u32 = 0x9581;

pub(crate) fn cases() -> Vec<Case> {
    let case = |what: &str, run: fn(&TestGpu) -> Result<()>| {
        Case::new(format!("gl/buffer/{what}"), run).needs(&[Need::Gl])
    };
    vec![
        case("memory_object_0_is_an_invalid_value/31", memory_object_0),
        case("memory_that_is_not_imported_is_an_invalid_operation/32", not_imported),
        case("parameters_are_set_before_the_import/34a", set_after_the_import),
        case("at_an_offset/30e", at_an_offset).expected_failure(
            "llvmpipe",
            "places every resource at offset 0: gl::workarounds",
            "of the second buffer: 1024 words are wrong",
        ),
    ]
}

type Create = unsafe extern "system" fn(i32, *mut u32);
type Delete = unsafe extern "system" fn(i32, *const u32);
type Is = unsafe extern "system" fn(u32) -> u8;
type Set = unsafe extern "system" fn(u32, u32, *const i32);
type Get = unsafe extern "system" fn(u32, u32, *mut i32);
type NamedBufferStorage = unsafe extern "system" fn(u32, isize, u32, u64);

/// Functions of `GL_EXT_memory_object`. The context must be current in every call.
pub(crate) struct MemoryObjects {
    create: Create,
    delete: Delete,
    is: Is,
    set: Set,
    get: Get,
    named_buffer_storage: NamedBufferStorage,
}

/// Loads a function of OpenGL by name and type.
macro_rules! function {
    ($loader:expr, $name:literal, $type:ty) => {{
        let address: *const c_void = $loader($name);
        ensure!(!address.is_null(), "{:?} is missing", $name);
        // SAFETY: the function of that name in GL_EXT_memory_object has that type.
        unsafe { std::mem::transmute::<*const c_void, $type>(address) }
    }};
}

impl MemoryObjects {
    pub(crate) fn load(gl: &GlContext) -> Result<Self> {
        let loader: &dyn Fn(&CStr) -> *const c_void = &gl.gl.loader();
        Ok(Self {
            create: function!(loader, c"glCreateMemoryObjectsEXT", Create),
            delete: function!(loader, c"glDeleteMemoryObjectsEXT", Delete),
            is: function!(loader, c"glIsMemoryObjectEXT", Is),
            set: function!(loader, c"glMemoryObjectParameterivEXT", Set),
            get: function!(loader, c"glGetMemoryObjectParameterivEXT", Get),
            named_buffer_storage: function!(
                loader,
                c"glNamedBufferStorageMemEXT",
                NamedBufferStorage
            ),
        })
    }

    /// Creates a memory object without memory.
    pub(crate) fn create(&self, gl: &GlContext) -> Result<u32> {
        let mut memory = 0;
        // SAFETY: the context is current, and there is room for one name.
        unsafe { (self.create)(1, &mut memory) };
        gl.check("glCreateMemoryObjectsEXT")?;
        Ok(memory)
    }

    /// Deletes a memory object; 0 is ignored.
    pub(crate) fn delete(&self, memory: u32) {
        // SAFETY: the context is current, and there is one name.
        unsafe { (self.delete)(1, &memory) };
    }

    /// Whether `memory` is the name of a memory object.
    pub(crate) fn is_memory_object(&self, memory: u32) -> bool {
        // SAFETY: the context is current; any name is allowed.
        unsafe { (self.is)(memory) != 0 }
    }

    /// Whether the memory object is dedicated.
    pub(crate) fn is_dedicated(&self, gl: &GlContext, memory: u32) -> Result<bool> {
        let mut value = -1;
        // SAFETY: the context is current, and there is room for one value.
        unsafe { (self.get)(memory, DEDICATED_MEMORY_OBJECT_EXT, &mut value) };
        gl.check("glGetMemoryObjectParameterivEXT")?;
        Ok(value != 0)
    }

    /// Returns the error of placing a new buffer of `size` bytes at `offset` of `memory`.
    fn storage_error(&self, gl: &GlContext, memory: u32, offset: u64, size: isize) -> Result<u32> {
        let context = gl.gl.glow();
        // SAFETY: the context is current; the buffer is new and deleted again. OpenGL reports wrong memory
        // by an error.
        unsafe {
            let buffer = context.create_named_buffer().map_err(anyhow::Error::msg)?;
            gl.check("glCreateBuffers")?;
            (self.named_buffer_storage)(buffer.0.get(), size, memory, offset);
            let error = context.get_error();
            context.delete_buffer(buffer);
            Ok(error)
        }
    }
}

/// Leaves GL_INVALID_ENUM pending, as an application may.
pub(crate) fn raise_users_error(gl: &GlContext) {
    // SAFETY: the context is current; OpenGL has no such capability, which is an error without effect.
    unsafe { gl.gl.glow().enable(0xFFFF) };
}

/// Takes the pending error, which must be the only one.
pub(crate) fn pending_error(gl: &GlContext) -> Result<u32> {
    // SAFETY: the context is current.
    let (first, second) = unsafe { (gl.gl.glow().get_error(), gl.gl.glow().get_error()) };
    ensure!(second == glow::NO_ERROR, "{first:#06x}, then {second:#06x}");
    Ok(first)
}

fn memory_object_0(test_gpu: &TestGpu) -> Result<()> {
    let gl = test_gpu.gl()?;
    let error = MemoryObjects::load(gl)?.storage_error(gl, 0, 0, 4096)?;
    ensure!(error == glow::INVALID_VALUE, "{error:#06x}");
    Ok(())
}

fn not_imported(test_gpu: &TestGpu) -> Result<()> {
    let gl = test_gpu.gl()?;
    let objects = MemoryObjects::load(gl)?;
    let memory = objects.create(gl)?;
    let error = objects.storage_error(gl, memory, 0, 4096)?;
    let dedicated = objects.is_dedicated(gl, memory)?;
    objects.delete(memory);
    ensure!(error == glow::INVALID_OPERATION, "{error:#06x}");
    ensure!(!dedicated, "a new memory object is dedicated by default");
    Ok(())
}

/// After the import, OpenGL refuses parameters: the library sets them before.
fn set_after_the_import(test_gpu: &TestGpu) -> Result<()> {
    let gl = test_gpu.gl()?;
    let objects = MemoryObjects::load(gl)?;
    let desc = BufferDesc::storage(4096);
    let ours = test_gpu.vulkan().endpoint.create_buffer(&desc, BufferOptions::default())?;
    let memory = gl.endpoint.import_memory(ours.memory().export()?)?;
    // SAFETY: the context is current, and the parameter is one value.
    let error = unsafe {
        (objects.set)(memory.name(), DEDICATED_MEMORY_OBJECT_EXT, &1);
        gl.gl.glow().get_error()
    };
    ensure!(error == glow::INVALID_OPERATION, "{error:#06x}");
    Ok(())
}

/// A buffer begins at its offset in the memory.
fn at_an_offset(test_gpu: &TestGpu) -> Result<()> {
    let (vulkan, gl) = (test_gpu.vulkan(), test_gpu.gl()?);
    let objects = MemoryObjects::load(gl)?;
    let descs = [4096, 4096].map(BufferDesc::storage);
    let ours = vulkan.endpoint.create_buffers(&descs, BufferOptions::default())?;
    for (seed, buffer) in (1u32..).zip(&ours) {
        vulkan.upload(buffer.handle(), 0, &oracle::filled(4096, seed))?;
    }
    let memory = gl.endpoint.import_memory(ours[0].memory().export()?)?;
    let context = gl.gl.glow();
    // SAFETY: the context is current; the buffer is new, lies within the memory, which outlives it,
    // and is deleted again.
    let read = unsafe {
        let buffer = context.create_named_buffer().map_err(anyhow::Error::msg)?;
        (objects.named_buffer_storage)(buffer.0.get(), 4096, memory.name(), ours[1].offset());
        let made = gl.check("glNamedBufferStorageMemEXT");
        let read = made.and_then(|()| gl.download(buffer, 0, 4096));
        context.delete_buffer(buffer);
        read?
    };
    oracle::check(&read, 2, &Passes::default()).context("of the second buffer")
}

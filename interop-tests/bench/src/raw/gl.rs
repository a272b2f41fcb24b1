//! OpenGL's passes by plain OpenGL calls.

use std::ffi::{CStr, c_void};
use std::mem;
use std::os::fd::{AsRawFd as _, IntoRawFd as _, OwnedFd};
use std::rc::Rc;

use anyhow::{Context, Result, bail, ensure};
use gpu_interop::glow::{self, HasContext as _};
use gpu_interop::handoff::WaitMode;

use super::{Exported, KERNEL, RawSecondApi};
use interop_gpu::gl::GlContext;

const HANDLE_TYPE_OPAQUE_FD: u32 = 0x9586;
const TIMELINE_SEMAPHORE_VALUE: u32 = 0x9595;
const SEMAPHORE_TYPE: u32 = 0x95B3;
const SEMAPHORE_TYPE_TIMELINE: i32 = 0x95B5;

type Names = unsafe extern "system" fn(i32, *mut u32);
type Delete = unsafe extern "system" fn(i32, *const u32);
type ImportMemory = unsafe extern "system" fn(u32, u64, u32, i32);
type Storage = unsafe extern "system" fn(u32, isize, u32, u64);
type ImportSemaphore = unsafe extern "system" fn(u32, u32, i32);
type Set32 = unsafe extern "system" fn(u32, u32, *const i32);
type Set64 = unsafe extern "system" fn(u32, u32, *const u64);
type Pass = unsafe extern "system" fn(u32, u32, *const u32, u32, *const u32, *const u32);

/// The functions that make a buffer of a payload.
#[derive(Clone, Copy)]
pub(crate) struct BufferFunctions {
    create_memory: Names,
    import_memory: ImportMemory,
    storage: Storage,
    delete_memory: Delete,
}

/// OpenGL's view of the payload.
pub(crate) struct RawGlBuffer {
    gpu: Rc<GlContext>,
    functions: BufferFunctions,
    memory: u32,
    handle: glow::Buffer,
    bytes: u64,
}

/// OpenGL's view of the payload, and two semaphores.
pub(crate) struct RawGl {
    gpu: Rc<GlContext>,
    grid: u32,
    buffer: RawGlBuffer,
    semaphores: Option<Semaphores>,
}

struct Semaphores {
    waited: u32,
    signalled: u32,
    set: Set64,
    wait: Pass,
    signal: Pass,
    delete: Delete,
}

/// An entry point as a function of type `F`.
///
/// # Safety
/// `F` is the entry point's type.
unsafe fn load<F: Copy>(gpu: &GlContext, name: &CStr) -> Result<F> {
    let address: *const c_void = gpu.gl.loader()(name);
    ensure!(!address.is_null() && size_of::<F>() == size_of_val(&address), "{name:?} is missing");
    // SAFETY: a function pointer is as large, and the caller promises the type.
    Ok(unsafe { mem::transmute_copy::<*const c_void, F>(&address) })
}

impl BufferFunctions {
    pub(crate) fn load(gpu: &GlContext) -> Result<Self> {
        // SAFETY: the types are those of GL_EXT_memory_object and _fd.
        unsafe {
            Ok(Self {
                create_memory: load(gpu, c"glCreateMemoryObjectsEXT")?,
                import_memory: load(gpu, c"glImportMemoryFdEXT")?,
                storage: load(gpu, c"glNamedBufferStorageMemEXT")?,
                delete_memory: load(gpu, c"glDeleteMemoryObjectsEXT")?,
            })
        }
    }
}

impl RawGlBuffer {
    /// Imports a payload's memory and creates a buffer in it. The context is current.
    pub(crate) fn import(
        gpu: &Rc<GlContext>,
        functions: BufferFunctions,
        exported: Exported,
    ) -> Result<Self> {
        let Exported { memory: fd, allocation_size, bytes, .. } = exported;
        let BufferFunctions { create_memory, import_memory, storage, .. } = functions;
        let mut memory = 0;
        // SAFETY: the context is current; the descriptor is open and from now on OpenGL's.
        let handle = unsafe {
            create_memory(1, &mut memory);
            import_memory(memory, allocation_size, HANDLE_TYPE_OPAQUE_FD, fd.into_raw_fd());
            let handle = gpu.gl.glow().create_named_buffer().map_err(anyhow::Error::msg)?;
            storage(handle.0.get(), isize::try_from(bytes)?, memory, 0);
            handle
        };
        gpu.check("importing")?;
        Ok(Self { gpu: gpu.clone(), functions, memory, handle, bytes })
    }
}

impl Drop for RawGlBuffer {
    fn drop(&mut self) {
        // SAFETY: the context is current, and both are the payload's own and not in use.
        unsafe {
            self.gpu.gl.glow().delete_buffer(self.handle);
            (self.functions.delete_memory)(1, &self.memory);
        }
    }
}

impl RawGl {
    pub(crate) fn new(gpu: Rc<GlContext>, grid: u32, mut exported: Exported) -> Result<Self> {
        gpu.gl.make_current()?;
        let semaphores = match exported.semaphores.take() {
            Some(exported) => Some(Semaphores::import(&gpu, exported)?),
            None => None,
        };
        let buffer = RawGlBuffer::import(&gpu, BufferFunctions::load(&gpu)?, exported)?;
        Ok(Self { gpu, grid, buffer, semaphores })
    }

    fn dispatch(&self) -> Result<()> {
        self.gpu.dispatch(KERNEL, self.buffer.handle, self.buffer.bytes, self.grid)
    }
}

impl Semaphores {
    fn import(gpu: &GlContext, [signalled, waited]: [OwnedFd; 2]) -> Result<Self> {
        // SAFETY: the types are those of GL_EXT_semaphore, _fd and GL_NV_timeline_semaphore; the context
        // is current; each semaphore gets its type before the import.
        unsafe {
            let create = load::<Names>(gpu, c"glCreateSemaphoresNV").context("timelines")?;
            let set_type = load::<Set32>(gpu, c"glSemaphoreParameterivNV")?;
            let import = load::<ImportSemaphore>(gpu, c"glImportSemaphoreFdEXT")?;
            let one = |fd: OwnedFd| {
                let mut name = 0;
                create(1, &mut name);
                set_type(name, SEMAPHORE_TYPE, &SEMAPHORE_TYPE_TIMELINE);
                import(name, HANDLE_TYPE_OPAQUE_FD, fd.as_raw_fd());
                gpu.check("glImportSemaphoreFdEXT")?;
                let _ = fd.into_raw_fd();
                anyhow::Ok(name)
            };
            Ok(Self {
                waited: one(signalled)?,
                signalled: one(waited)?,
                set: load::<Set64>(gpu, c"glSemaphoreParameterui64vEXT")?,
                wait: load::<Pass>(gpu, c"glWaitSemaphoreEXT")?,
                signal: load::<Pass>(gpu, c"glSignalSemaphoreEXT")?,
                delete: load::<Delete>(gpu, c"glDeleteSemaphoresEXT")?,
            })
        }
    }
}

impl RawSecondApi for RawGl {
    fn pass(&mut self, value: u64) -> Result<()> {
        let Some(Semaphores { waited, signalled, set, wait, signal, .. }) = self.semaphores else {
            bail!("this handoff has no semaphores");
        };
        let (buffer, none, gl) = (self.buffer.handle.0.get(), std::ptr::null(), self.gpu.gl.glow());
        // SAFETY: the context is current; one buffer and no texture are listed.
        unsafe {
            set(waited, TIMELINE_SEMAPHORE_VALUE, &value);
            wait(waited, 1, &buffer, 0, none, none);
        }
        self.dispatch()?;
        // SAFETY: as above.
        unsafe {
            gl.memory_barrier(glow::ALL_BARRIER_BITS);
            set(signalled, TIMELINE_SEMAPHORE_VALUE, &value);
            signal(signalled, 1, &buffer, 0, none, none);
            gl.flush();
        }
        self.gpu.check("a pass")
    }

    fn pass_by_host(&mut self, wait: WaitMode) -> Result<()> {
        self.dispatch()?;
        let gl = self.gpu.gl.glow();
        // SAFETY: the context is current.
        unsafe {
            gl.memory_barrier(glow::ALL_BARRIER_BITS);
            let fence = gl.fence_sync(glow::SYNC_GPU_COMMANDS_COMPLETE, 0);
            let fence = fence.map_err(anyhow::Error::msg)?;
            gl.flush();
            let timeout = if wait == WaitMode::Block { i32::MAX } else { 0 };
            while gl.client_wait_sync(fence, 0, timeout) == glow::TIMEOUT_EXPIRED {
                std::hint::spin_loop();
            }
            gl.delete_sync(fence);
        }
        self.gpu.check("a pass")
    }

    fn finish(&mut self) -> Result<()> {
        self.gpu.finish();
        Ok(())
    }
}

impl Drop for RawGl {
    fn drop(&mut self) {
        if self.gpu.gl.make_current().is_err() {
            return;
        }
        self.gpu.finish();
        if let Some(Semaphores { waited, signalled, delete, .. }) = self.semaphores {
            // SAFETY: the context is current, and both are its own and not in use.
            unsafe { delete(2, [waited, signalled].as_ptr()) };
        }
    }
}

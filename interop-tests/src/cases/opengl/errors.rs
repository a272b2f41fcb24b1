//! Family D: an error of the application's stays pending, whatever the library does, and is not taken for
//! one of the library's own.

use std::ffi::c_void;
use std::num::NonZeroU32;
use std::ptr;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use gpu_interop::SemaphoreKind::{Binary, Timeline};
use gpu_interop::capabilities::SyncMethod;
use gpu_interop::desc::Tiling;
use gpu_interop::format::Format;
use gpu_interop::glow::{self, HasContext as _};
use gpu_interop::handoff::{self, HandoffOptions, VulkanCommands};
use gpu_interop::peer::widest_for_gl;
use gpu_interop::vulkan::{BufferAccess, BufferOptions, DedicatedAllocation, ImageOptions};
use gpu_interop::{Api, BufferDesc, Error};

use crate::cases::images_vulkan::USAGE;
use crate::cases::opengl::raw::pending_error;
use crate::harness::{Case, Need, TestGpu};
use interop_gpu::gl::GlContext;
use interop_gpu::image::{SIZES, Shape};

/// Generates an error, without another effect.
type Raise = fn(&GlContext) -> Result<()>;

/// Each kind of error that a program can cause, and how.
const ERRORS: [(&str, u32, Raise); 7] = [
    ("invalid_enum", glow::INVALID_ENUM, invalid_enum),
    ("invalid_value", glow::INVALID_VALUE, invalid_value),
    ("invalid_operation", glow::INVALID_OPERATION, invalid_operation),
    ("out_of_memory", glow::OUT_OF_MEMORY, out_of_memory),
    (
        "invalid_framebuffer_operation",
        glow::INVALID_FRAMEBUFFER_OPERATION,
        invalid_framebuffer_operation,
    ),
    ("stack_underflow", glow::STACK_UNDERFLOW, stack_underflow),
    ("stack_overflow", glow::STACK_OVERFLOW, stack_overflow),
];

pub(crate) fn cases() -> Vec<Case> {
    let case = |what: String, needs: &[Need], run: fn(&TestGpu, usize) -> Result<()>, at: usize| {
        let run = move |test_gpu: &TestGpu| run(test_gpu, at);
        Case::new(format!("vulkan→gl/opaque_fd/{what}/31a"), run).needs(&[Need::Gl]).needs(needs)
    };
    let semaphores = [Need::Semaphore(Api::OpenGl, Timeline), Need::Semaphore(Api::OpenGl, Binary)];
    let mut cases = Vec::new();
    for (at, (name, ..)) in ERRORS.iter().enumerate() {
        cases.push(case(format!("resources/a_pending_{name}_stays"), &[], of_resources, at));
        cases.push(case(format!("handoff/a_pending_{name}_stays"), &[], of_handoff, at));
        cases.push(case(
            format!("semaphore/a_pending_{name}_stays"),
            &semaphores,
            of_semaphores,
            at,
        ));
    }
    cases
}

fn invalid_enum(gl: &GlContext) -> Result<()> {
    let gl = gl.gl.glow();
    // SAFETY: the context is current; the call is an error without an effect.
    unsafe { gl.depth_func(0xFFFF) };
    Ok(())
}

fn invalid_value(gl: &GlContext) -> Result<()> {
    let gl = gl.gl.glow();
    // SAFETY: see `invalid_enum`.
    unsafe { gl.line_width(-1.0) };
    Ok(())
}

fn invalid_operation(gl: &GlContext) -> Result<()> {
    let gl = gl.gl.glow();
    let name = NonZeroU32::new(0xFFFF_FFF0).context("0")?;
    // SAFETY: see `invalid_enum`; no such framebuffer was generated.
    unsafe { gl.bind_framebuffer(glow::READ_FRAMEBUFFER, Some(glow::NativeFramebuffer(name))) };
    Ok(())
}

fn out_of_memory(gl: &GlContext) -> Result<()> {
    type BufferData = unsafe extern "system" fn(u32, isize, *const c_void, u32);
    let address = (gl.gl.loader())(c"glBufferData");
    ensure!(!address.is_null(), "glBufferData is missing");
    let gl = gl.gl.glow();
    // SAFETY: the function of that name has this type. The context is current; no memory is as large. The
    // buffer is deleted, and nothing was bound.
    unsafe {
        let buffer_data = std::mem::transmute::<*const c_void, BufferData>(address);
        let buffer = gl.create_buffer().map_err(anyhow::Error::msg)?;
        gl.bind_buffer(glow::COPY_WRITE_BUFFER, Some(buffer));
        buffer_data(glow::COPY_WRITE_BUFFER, 1 << 62, ptr::null(), glow::STREAM_DRAW);
        gl.bind_buffer(glow::COPY_WRITE_BUFFER, None);
        gl.delete_buffer(buffer);
    }
    Ok(())
}

fn invalid_framebuffer_operation(gl: &GlContext) -> Result<()> {
    let gl = gl.gl.glow();
    // SAFETY: see `invalid_enum`; a new framebuffer is incomplete. It is deleted.
    unsafe {
        let framebuffer = gl.create_framebuffer().map_err(anyhow::Error::msg)?;
        gl.bind_framebuffer(glow::FRAMEBUFFER, Some(framebuffer));
        gl.clear(glow::COLOR_BUFFER_BIT);
        gl.bind_framebuffer(glow::FRAMEBUFFER, None);
        gl.delete_framebuffer(framebuffer);
    }
    Ok(())
}

fn stack_underflow(gl: &GlContext) -> Result<()> {
    let gl = gl.gl.glow();
    // SAFETY: see `invalid_enum`; the suite leaves no debug group open.
    unsafe { gl.pop_debug_group() };
    Ok(())
}

fn stack_overflow(gl: &GlContext) -> Result<()> {
    let gl = gl.gl.glow();
    // SAFETY: see `invalid_enum`; what was pushed is popped.
    unsafe {
        let max = gl.get_parameter_i32(glow::MAX_DEBUG_GROUP_STACK_DEPTH);
        (0..max).for_each(|_| gl.push_debug_group(glow::DEBUG_SOURCE_APPLICATION, 0, "group"));
        (1..max).for_each(|_| gl.pop_debug_group());
    }
    Ok(())
}

/// Checks that the error, pending before each call, is pending after it, as the only one.
struct Pending<'a> {
    test_gpu: &'a TestGpu,
    at: usize,
}

impl Pending<'_> {
    fn during<T>(&self, call: &str, run: impl FnOnce() -> Result<T>) -> Result<T> {
        let (gl, (name, code, raise)) = (self.test_gpu.gl()?, ERRORS[self.at]);
        let context = gl.gl.glow();
        gl.check("before")?;
        // SAFETY: the context is current; the parameter is one integer.
        let depth = || unsafe { context.get_parameter_i32(glow::DEBUG_GROUP_STACK_DEPTH) };
        let before = depth();
        raise(gl)?;
        let raised = pending_error(gl)?;
        ensure!(raised == code, "the driver reports {raised:#06x} instead of {name}");
        raise(gl)?;
        let result = run().with_context(|| format!("{call}, {name} pending"))?;
        let after = pending_error(gl)?;
        ensure!(after == code, "{name} was pending before {call}, and {after:#06x} is after it");
        ensure!(depth() == before, "{call} left a debug group");
        Ok(result)
    }
}

fn of_resources(test_gpu: &TestGpu, at: usize) -> Result<()> {
    let (vulkan, gl, pending) =
        (&test_gpu.vulkan().endpoint, test_gpu.gl()?, Pending { test_gpu, at });
    let desc = BufferDesc::storage(4096);
    let ours = vulkan.create_buffer(&desc, BufferOptions::default())?;
    let plain = Shape::D2.desc(Format::Rgba8Unorm, Tiling::Optimal, SIZES[0], USAGE);
    let image_desc = widest_for_gl(vulkan, &plain)?;
    let image = vulkan.create_image(&image_desc, ImageOptions::default())?;
    let endpoint = &gl.endpoint;

    pending.during("capabilities", || Ok(endpoint.capabilities(&image_desc.into())?))?;
    let memory =
        pending.during("import_memory", || Ok(endpoint.import_memory(ours.memory().export()?)?))?;
    let buffer = pending.during("Memory::buffer", || Ok(memory.buffer(ours.offset(), &desc)?))?;
    let other = pending.during("import_buffer", || Ok(endpoint.import_buffer(ours.export()?)?))?;
    let texture = pending.during("import_image", || Ok(endpoint.import_image(image.export()?)?))?;
    pending.during("memory_barrier", || Ok(endpoint.memory_barrier()?))?;
    let fence = pending.during("fence", || Ok(endpoint.fence()?))?;
    pending.during("Fence::wait", || Ok(fence.wait(Duration::from_secs(10))?))?;
    pending.during("Endpoint::new_shared", || {
        let mut loader = gl.gl.loader();
        // SAFETY: the context is current, shares with itself, and outlives the endpoint.
        Ok(unsafe { endpoint.new_shared(gl.gl.glow().clone(), &mut loader, None) }?)
    })?;
    pending.during("drop", || {
        drop((buffer, other, texture, memory, fence));
        Ok(())
    })?;

    // An import that the driver refuses, if there is one: its own error is reported.
    let options =
        BufferOptions { dedicated: DedicatedAllocation::Always, ..BufferOptions::default() };
    let dedicated = vulkan.create_buffer(&desc, options)?;
    pending.during("a refused import", || match endpoint.import_buffer(dedicated.export()?) {
        Ok(_) => Ok(()),
        Err(refused) => match refused.into_parts().1 {
            Error::Driver(driver) if driver.code == i64::from(glow::OUT_OF_MEMORY) => Ok(()),
            other => bail!("{other:?}"),
        },
    })
}

fn of_handoff(test_gpu: &TestGpu, at: usize) -> Result<()> {
    let (vulkan, gl, pending) = (test_gpu.vulkan(), test_gpu.gl()?, Pending { test_gpu, at });
    let desc = BufferDesc::storage(4096);
    let ours = vulkan.endpoint.create_buffer(&desc, BufferOptions::default())?;
    let theirs = gl.endpoint.import_buffer(ours.export()?)?;
    let options =
        HandoffOptions { method: Some(SyncMethod::HostWait), ..HandoffOptions::default() };
    let mut to_vulkan = handoff::open(&vulkan.endpoint, &gl.endpoint, &vulkan.endpoint, options)?;
    let mut to_gl = handoff::open(&vulkan.endpoint, &vulkan.endpoint, &gl.endpoint, options)?;
    let (family, command) = (vulkan.vulkan.queue_family(), vulkan.command_buffers(1)?[0]);
    let used = [BufferAccess::transfer(&ours)];

    let (ticket, ()) =
        pending.during("release", || Ok(to_vulkan.release.release(&[&theirs])?))?;
    vulkan.begin(command)?;
    // SAFETY: the command buffer is being recorded for a queue of the family; the buffer lives until the
    // device is idle.
    let commands = unsafe { VulkanCommands::record(command, family, &used) };
    let sync = to_vulkan.acquire.acquire(ticket, commands)?;
    vulkan.submit(command, sync)?;
    vulkan.vulkan.wait_idle()?;
    vulkan.begin(command)?;
    // SAFETY: as above.
    let commands = unsafe { VulkanCommands::record(command, family, &used) };
    let (ticket, sync) = to_gl.release.release(commands)?;
    vulkan.submit(command, sync)?;
    pending.during("acquire", || Ok(to_gl.acquire.acquire(ticket, &[&theirs])?))?;
    vulkan.vulkan.wait_idle()?;
    vulkan.free_command_buffers(&[command]);
    Ok(())
}

fn of_semaphores(test_gpu: &TestGpu, at: usize) -> Result<()> {
    let (gl, pending) = (test_gpu.gl()?, Pending { test_gpu, at });
    for (kind, value) in [(Binary, None), (Timeline, Some(1))] {
        let ours = test_gpu.vulkan().endpoint.create_semaphore(kind)?;
        let theirs = pending
            .during("import_semaphore", || Ok(gl.endpoint.import_semaphore(ours.export()?)?))?;
        pending.during("signal", || Ok(gl.endpoint.signal(&theirs, value, &[], &[])?))?;
        pending.during("wait", || Ok(gl.endpoint.wait(&theirs, value, &[], &[])?))?;
        gl.finish();
        pending.during("drop", || {
            drop(theirs);
            Ok(())
        })?;
    }
    Ok(())
}

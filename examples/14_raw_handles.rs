//! Creates endpoints over handles from other bindings, from C or from another language: integers
//! for Vulkan, a function loader for OpenGL, a `CUcontext` for CUDA. Here they come from
//! `headless`.
//!
//! `cargo run -p gpu-interop --features headless --example 14_raw_handles`

use std::process::ExitCode;

use gpu_interop::ash::vk::Handle as _;
use gpu_interop::glow::{self, HasContext as _};
use gpu_interop::handoff::{self, HandoffOptions, VulkanCommands};
use gpu_interop::headless::{GpuSelector, Headless, VulkanOptions};
use gpu_interop::vulkan::{BufferAccess, BufferOptions, RawDeviceInfo};
use gpu_interop::{BufferDesc, Error, cuda, gl, vulkan};

fn main() -> ExitCode {
    match run() {
        Ok(is_same) => ExitCode::from(u8::from(!is_same)),
        Err(error) => {
            eprintln!("{error}");
            let is_missing = matches!(error.downcast_ref(), Some(Error::Missing(_)));
            ExitCode::from(if is_missing { 2 } else { 1 })
        }
    }
}

fn run() -> Result<bool, Box<dyn std::error::Error>> {
    let gpu = Headless::open(&GpuSelector::Any, &VulkanOptions::default())?;

    // Vulkan: the address of vkGetInstanceProcAddr, three handles, and what was enabled.
    let raw = RawDeviceInfo {
        get_instance_proc_addr: gpu.vulkan.entry().static_fn().get_instance_proc_addr as *const _,
        instance: gpu.vulkan.instance().handle().as_raw(),
        physical_device: gpu.vulkan.physical_device().as_raw(),
        device: gpu.vulkan.device().handle().as_raw(),
        api_version: gpu.vulkan.api_version(),
        enabled_extensions: gpu.vulkan.enabled_extensions(),
        features: gpu.vulkan.features(),
    };
    // SAFETY: the handles belong together, exactly these extensions and features are enabled, and
    // `gpu` outlives the endpoint.
    let vulkan = unsafe { vulkan::Endpoint::from_raw(&raw, None) }?;

    // OpenGL: the context that is current, and eglGetProcAddress.
    gpu.gl()?.make_current()?;
    let loader = gpu.gl()?.loader();
    // SAFETY: the loader is that of the current context, and `gpu` outlives the endpoint.
    let gl = unsafe { gl::Endpoint::load(&mut |name| loader(name), None) }?;

    // From here on, the code is the same as with any other device and context.
    let data: Vec<u8> =
        (0..0x1000u32).flat_map(|i| i.wrapping_mul(0x9e37_79b9).to_le_bytes()).collect();
    let desc = BufferDesc::storage(data.len() as u64);
    let buffer = vulkan.create_buffer(&desc, BufferOptions::default())?;
    let in_gl = gl.import_buffer(buffer.export()?)?;
    let mut to_gl = handoff::open(&vulkan, &vulkan, &gl, HandoffOptions::default())?;
    let used = [BufferAccess::transfer(&buffer)];
    // SAFETY: the command buffer is being recorded for the queue's family, the buffer has room for
    // the data and lives until `wait_idle`, and the submit includes what the release returned.
    let (mut commands, (ticket, sync)) = gpu.vulkan.record(|commands| unsafe {
        gpu.vulkan.device().cmd_update_buffer(commands, buffer.handle(), 0, &data);
        to_gl.release.release(VulkanCommands::record(commands, gpu.vulkan.queue_family(), &used))
    })?;
    // SAFETY: as above.
    unsafe { commands.submit(&vulkan, sync) }?;

    to_gl.acquire.acquire(ticket, &[&in_gl])?;
    let mut seen = vec![0; data.len()];
    // SAFETY: the context is current, and the buffer has that many bytes.
    unsafe {
        gl.gl().bind_buffer(glow::COPY_READ_BUFFER, Some(in_gl.name()));
        gl.gl().get_buffer_sub_data(glow::COPY_READ_BUFFER, 0, &mut seen);
    }
    println!("{} bytes from Vulkan to OpenGL, all equal: {}", seen.len(), seen == data);
    let mut is_same = seen == data;

    // CUDA, if it is installed: a CUcontext. OpenGL passes the buffer on.
    if let Ok(opened) = gpu.cuda() {
        // SAFETY: the context is valid, and `gpu` outlives the endpoint and what is created from
        // it.
        let cuda = unsafe { cuda::Endpoint::from_raw(opened.context().cu_ctx()) }?;
        let in_cuda = cuda.import_buffer(buffer.export()?)?;
        let mut to_cuda = handoff::open(&vulkan, &gl, &cuda, HandoffOptions::default())?;
        let (ticket, ()) = to_cuda.release.release(&[&in_gl])?;
        let stream = cuda.context().default_stream();
        to_cuda.acquire.acquire(ticket, &stream)?;
        let seen: Vec<u8> = stream.clone_dtoh(&in_cuda.as_view::<u8>()?)?;
        stream.synchronize()?;
        println!("{} bytes from OpenGL to CUDA, all equal: {}", seen.len(), seen == data);
        is_same &= seen == data;
    }
    gpu.vulkan.wait_idle()?;
    Ok(is_same)
}

//! Shares a buffer between an application's own Vulkan device and OpenGL context; the library opens
//! neither. The library says which device extensions and features sharing needs.
//!
//! 17 lines call gpu-interop or build one of its values. The rest is the application's own Vulkan,
//! EGL and OpenGL code.
//!
//! `cargo run -p gpu-interop --features headless --example 08_own_contexts` (the feature only
//! brings glutin)

use std::ffi::CStr;
use std::process::ExitCode;

use glutin::api::egl::{device::Device as EglDevice, display::Display};
use glutin::config::{ConfigSurfaceTypes, ConfigTemplateBuilder};
use glutin::context::ContextAttributesBuilder;
use glutin::display::GlDisplay as _;
use gpu_interop::ash::{self, vk};
use gpu_interop::glow::{self, HasContext as _};
use gpu_interop::handoff::{self, HandoffOptions, VulkanCommands};
use gpu_interop::vulkan::{BufferAccess, BufferOptions, DeviceInfo};
use gpu_interop::{BufferDesc, Error, gl, vulkan};

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
    // The application's Vulkan device, with the extensions that sharing needs if the GPU has them.
    // SAFETY: ordinary Vulkan calls; every handle lives until the end of the program.
    let entry = unsafe { ash::Entry::load() }?;
    let app = vk::ApplicationInfo::default().api_version(vk::API_VERSION_1_2);
    let info = vk::InstanceCreateInfo::default().application_info(&app);
    // SAFETY: as above.
    let instance = unsafe { entry.create_instance(&info, None) }?;
    // SAFETY: as above.
    let physical =
        *unsafe { instance.enumerate_physical_devices() }?.first().ok_or("no Vulkan GPU")?;
    let version = vk::API_VERSION_1_2;
    // SAFETY: the physical device belongs to the instance.
    let extensions = unsafe { vulkan::Endpoint::wanted_extensions(&instance, physical, version) }?;
    // SAFETY: as above.
    let features = unsafe { vulkan::Endpoint::wanted_features(&instance, physical, version) }?;
    let names: Vec<_> = extensions.iter().map(|name| name.as_ptr()).collect();
    let queues = [vk::DeviceQueueCreateInfo::default().queue_priorities(&[1.0])];
    let mut vulkan12 = vk::PhysicalDeviceVulkan12Features::default()
        .timeline_semaphore(features.timeline_semaphore)
        .buffer_device_address(features.buffer_device_address);
    let info = vk::DeviceCreateInfo::default()
        .queue_create_infos(&queues)
        .enabled_extension_names(&names)
        .push_next(&mut vulkan12);
    // SAFETY: as above.
    let device = unsafe { instance.create_device(physical, &info, None) }?;
    // SAFETY: as above.
    let queue = unsafe { device.get_device_queue(0, 0) };

    // The library borrows it.
    let info = DeviceInfo::new(&instance, physical, &device, version)
        .enabled_extensions(&extensions)
        .features(features);
    // SAFETY: the handles belong together, exactly these extensions and features were enabled, and
    // the device outlives the endpoint.
    let vulkan = unsafe { vulkan::Endpoint::new(&info, None) }?;

    // The application's OpenGL context, on the same GPU: found by UUID.
    let gl = EglDevice::query_devices()?
        .filter_map(|egl| open_gl(&egl).ok())
        .find(|gl| gl.identities().iter().any(|gpu| gpu.device == vulkan.identities()[0].device))
        .ok_or("no OpenGL context on this GPU")?;

    // From here on, the code is the same as with any other device and context.
    let data: Vec<u8> =
        (0..0x1000u32).flat_map(|i| i.wrapping_mul(0x9e37_79b9).to_le_bytes()).collect();
    let desc = BufferDesc::storage(data.len() as u64);
    let buffer = vulkan.create_buffer(&desc, BufferOptions::default())?;
    let in_gl = gl.import_buffer(buffer.export()?)?;
    let mut to_gl = handoff::open(&vulkan, &vulkan, &gl, HandoffOptions::default())?;
    let mut seen = vec![0; data.len()];
    // SAFETY: ordinary calls on handles that live until the end of the program; the submit includes
    // what the release returned, and the context is current.
    unsafe {
        let pool = device.create_command_pool(&vk::CommandPoolCreateInfo::default(), None)?;
        let info =
            vk::CommandBufferAllocateInfo::default().command_pool(pool).command_buffer_count(1);
        let commands = device.allocate_command_buffers(&info)?[0];
        device.begin_command_buffer(commands, &vk::CommandBufferBeginInfo::default())?;
        device.cmd_update_buffer(commands, buffer.handle(), 0, &data);
        let used = BufferAccess::transfer(&buffer);
        let (ticket, sync) = to_gl.release.release(VulkanCommands::record(commands, 0, used))?;
        device.end_command_buffer(commands)?;
        sync.submit(&vulkan, queue, &[commands])?;

        to_gl.acquire.acquire(ticket, &in_gl)?;
        gl.gl().bind_buffer(glow::COPY_READ_BUFFER, Some(in_gl.name()));
        gl.gl().get_buffer_sub_data(glow::COPY_READ_BUFFER, 0, &mut seen);
    }
    println!("{} bytes from Vulkan to OpenGL, all equal: {}", seen.len(), seen == data);
    Ok(seen == data)
}

/// Opens a context without a surface, makes it current, and creates an endpoint over it.
fn open_gl(device: &EglDevice) -> Result<gl::Endpoint, Box<dyn std::error::Error>> {
    // SAFETY: no native display is passed; the context is current when its functions are loaded,
    // and stays current on this thread; the endpoint keeps it.
    unsafe {
        let display = Display::with_device(device, None)?;
        let template = ConfigTemplateBuilder::new().with_surface_type(ConfigSurfaceTypes::empty());
        let config = display.find_configs(template.build())?.next().ok_or("no EGL config")?;
        let attributes = ContextAttributesBuilder::new().build(None);
        let context = display.create_context(&config, &attributes)?.make_current_surfaceless()?;
        let mut loader = |name: &CStr| display.get_proc_address(name);
        Ok(gl::Endpoint::load(&mut loader, Some(Box::new(context)))?)
    }
}

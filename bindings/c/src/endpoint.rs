//! Endpoints: the application's own contexts, borrowed.

use std::ffi::{CStr, c_char, c_void};
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::Arc;

use gpu_interop::ash::{self, vk, vk::Handle as _};
use gpu_interop::error::Invalid;
use gpu_interop::vulkan::{Features, RawDeviceInfo};
use gpu_interop::{Peer as _, Result, cuda, gl, glow, vulkan};

use crate::args::{grows, list, required, structure, text};
use crate::error::{gi_result, guard, guard_value};

/// A function of any type, as `PFN_vkVoidFunction` and the result of `eglGetProcAddress` are.
pub type gi_function = Option<unsafe extern "C" fn()>;

/// Returns the address of an OpenGL function, or null: `eglGetProcAddress`, `glXGetProcAddress`,
/// `SDL_GL_GetProcAddress`.
pub type gi_gl_loader = Option<unsafe extern "C-unwind" fn(name: *const c_char) -> gi_function>;

/// An API.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum gi_api {
    /// Not an API: the handle is null.
    #[default]
    None = 0,
    /// Vulkan.
    Vulkan = 1,
    /// OpenGL.
    Gl = 2,
    /// The CUDA driver API.
    Cuda = 3,
}

/// A borrowed context of any API, which exports and imports. Everything that is created from it
/// keeps what it needs of it, but the context itself must live longer than all of that.
pub struct gi_endpoint(pub(crate) Endpoint);

#[derive(Clone, Debug)]
pub(crate) enum Endpoint {
    Vulkan(vulkan::Endpoint),
    Gl(gl::Endpoint),
    Cuda(cuda::Endpoint),
}

/// Matches an enum with the variants `Vulkan`, `Gl` and `Cuda`, and evaluates one expression for
/// each.
macro_rules! each_api {
    ($enum:ident, $value:expr, $inner:pat => $body:expr) => {
        match $value {
            $enum::Vulkan($inner) => $body,
            $enum::Gl($inner) => $body,
            $enum::Cuda($inner) => $body,
        }
    };
}
pub(crate) use each_api;

impl gi_endpoint {
    /// Returns the Vulkan endpoint, which `parameter` must be.
    pub(crate) fn vulkan(&self, parameter: &'static str) -> Result<&vulkan::Endpoint> {
        match &self.0 {
            Endpoint::Vulkan(endpoint) => Ok(endpoint),
            _ => Err(Invalid::new(parameter, "is not a Vulkan endpoint").into()),
        }
    }
}

/// The application's Vulkan device, and what was enabled when it was created.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct gi_vulkan_info {
    /// `sizeof(gi_vulkan_info)`.
    pub struct_size: usize,
    /// `(gi_function)vkGetInstanceProcAddr` of the loader that the instance was created with.
    pub get_instance_proc_addr: gi_function,
    /// The `VkInstance`.
    pub instance: *mut c_void,
    /// The `VkPhysicalDevice`.
    pub physical_device: *mut c_void,
    /// The `VkDevice`.
    pub device: *mut c_void,
    /// The version in `VkApplicationInfo::apiVersion`, or the physical device's if that is lower;
    /// at least 1.1.
    pub api_version: u32,
    /// The number of enabled device extensions.
    pub enabled_extension_count: u32,
    /// The names of the enabled device extensions, all of them.
    pub enabled_extensions: *const *const c_char,
    /// 1 if the feature `timelineSemaphore` is enabled.
    pub timeline_semaphore: u32,
    /// 1 if the feature `bufferDeviceAddress` is enabled.
    pub buffer_device_address: u32,
    /// 1 if the feature `shaderStorageImageMultisample` is enabled.
    pub storage_image_multisample: u32,
}

grows!(gi_vulkan_info);

impl gi_vulkan_info {
    /// # Safety
    /// `get_instance_proc_addr` and `instance` are null or valid.
    unsafe fn ash_instance(&self) -> Result<(ash::Instance, vk::PhysicalDevice)> {
        let loader = required(self.get_instance_proc_addr, "info.get_instance_proc_addr")?;
        for (handle, name) in
            [(self.instance, "info.instance"), (self.physical_device, "info.physical_device")]
        {
            if handle.is_null() {
                return Err(Invalid::new(name, "is null").into());
            }
        }
        // SAFETY: the two types are pointers to functions, and the caller promises that this is
        // vkGetInstanceProcAddr.
        let get_instance_proc_addr = unsafe {
            std::mem::transmute::<unsafe extern "C" fn(), vk::PFN_vkGetInstanceProcAddr>(loader)
        };
        let entry = ash::StaticFn { get_instance_proc_addr };
        // SAFETY: the caller promises that the instance is valid.
        let instance = unsafe {
            ash::Instance::load(&entry, vk::Instance::from_raw(self.instance as usize as u64))
        };
        Ok((instance, vk::PhysicalDevice::from_raw(self.physical_device as usize as u64)))
    }
}

/// Writes the names of the device extensions to enable: those that the library uses, that the
/// physical device supports, and that Vulkan `api_version` doesn't include. None is required.
///
/// Reads `get_instance_proc_addr`, `instance`, `physical_device` and `api_version` of `info`.
/// `*count` is the room in `names`, and receives their number; with `names` null, it only receives
/// that. The names live as long as the library. `GI_RESULT_INVALID` if there is too little room.
///
/// Required: `info` describes a valid instance.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gi_vulkan_wanted_extensions(
    info: *const gi_vulkan_info,
    names: *mut *const c_char,
    count: Option<&mut u32>,
) -> gi_result {
    guard(|| {
        let count = required(count, "count")?;
        // SAFETY: the caller's promise.
        let wanted = unsafe {
            let info = structure(info, "info")?;
            let (instance, physical_device) = info.ash_instance()?;
            vulkan::Endpoint::wanted_extensions(&instance, physical_device, info.api_version)
        }?;
        let found = wanted.len() as u32;
        if !names.is_null() {
            if *count < found {
                let problem = format!("is {count}, but {found} extensions are wanted");
                return Err(Invalid::new("count", problem)
                    .help("call the function with names set to null first")
                    .into());
            }
            for (index, name) in wanted.iter().enumerate() {
                // SAFETY: the caller promises room for `*count` names.
                unsafe { names.add(index).write(name.as_ptr()) };
            }
        }
        *count = found;
        Ok(())
    })
}

/// Sets `timeline_semaphore`, `buffer_device_address` and `storage_image_multisample` of `info` to
/// 1 if the physical device supports them: the features to enable. None is required. Set those back
/// to 0 that you don't enable.
///
/// Reads `get_instance_proc_addr`, `instance`, `physical_device` and `api_version` of `info`.
///
/// Required: `info` describes a valid instance.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gi_vulkan_wanted_features(info: *mut gi_vulkan_info) -> gi_result {
    guard(|| {
        // SAFETY: the caller's promise.
        let (read, features) = unsafe {
            let read = structure(info, "info")?;
            let (instance, physical_device) = read.ash_instance()?;
            let version = read.api_version;
            (read, vulkan::Endpoint::wanted_features(&instance, physical_device, version)?)
        };
        let end = std::mem::offset_of!(gi_vulkan_info, storage_image_multisample) + 4;
        if read.struct_size < end {
            return Err(Invalid::new("info.struct_size", "has no room for the features").into());
        }
        // SAFETY: valid, and large enough for these fields.
        unsafe {
            (&raw mut (*info).timeline_semaphore).write(features.timeline_semaphore.into());
            (&raw mut (*info).buffer_device_address).write(features.buffer_device_address.into());
            let multisample = features.storage_image_multisample.into();
            (&raw mut (*info).storage_image_multisample).write(multisample);
        }
        Ok(())
    })
}

/// Creates an endpoint over the application's Vulkan device, which must outlive everything that is
/// created from the endpoint.
///
/// Required: the handles in `info` belong together, and exactly the extensions and
/// features that it lists were enabled.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gi_endpoint_vulkan(
    info: *const gi_vulkan_info,
    endpoint: Option<&mut MaybeUninit<Option<Box<gi_endpoint>>>>,
) -> gi_result {
    guard(|| {
        let out = required(endpoint, "endpoint")?;
        // SAFETY: the caller's promise.
        let (info, names) = unsafe {
            let info = structure(info, "info")?;
            let count = info.enabled_extension_count as usize;
            (info, list(info.enabled_extensions, count, "info.enabled_extensions")?)
        };
        // SAFETY: the caller's promise.
        let names = names.iter().map(|&name| unsafe { text(name, "info.enabled_extensions[]") });
        let names: Vec<&CStr> = names.collect::<Result<_>>()?;
        let loader = info.get_instance_proc_addr.map_or(ptr::null(), |f| f as *const c_void);
        let raw = RawDeviceInfo {
            get_instance_proc_addr: loader,
            instance: info.instance as usize as u64,
            physical_device: info.physical_device as usize as u64,
            device: info.device as usize as u64,
            api_version: info.api_version,
            enabled_extensions: &names,
            features: Features::default()
                .timeline_semaphore(info.timeline_semaphore != 0)
                .buffer_device_address(info.buffer_device_address != 0)
                .storage_image_multisample(info.storage_image_multisample != 0),
        };
        // SAFETY: the caller's promise.
        let created = unsafe { vulkan::Endpoint::from_raw(&raw, None) }?;
        out.write(Some(Box::new(gi_endpoint(Endpoint::Vulkan(created)))));
        Ok(())
    })
}

/// Creates an endpoint over the OpenGL context that is current on this thread, and loads the
/// functions with `loader`. The context must outlive everything that is created from the endpoint.
///
/// The endpoint and its objects may be used on any thread on which the context is current.
///
/// Required: `loader` returns null or the address of the function of that name in the
/// context that is current.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gi_endpoint_gl(
    loader: gi_gl_loader,
    endpoint: Option<&mut MaybeUninit<Option<Box<gi_endpoint>>>>,
) -> gi_result {
    guard(|| {
        let out = required(endpoint, "endpoint")?;
        let loader = required(loader, "loader")?;
        // SAFETY: the caller's promise.
        let created = unsafe { gl::Endpoint::load(&mut |name| find(loader, name), None) }?;
        out.write(Some(Box::new(gi_endpoint(Endpoint::Gl(created)))));
        Ok(())
    })
}

/// Creates an endpoint over the OpenGL context that is current on this thread and shares objects
/// with that of `other` (the `share_context` of `eglCreateContext`). Each of the two endpoints
/// accepts the other's buffers, textures and semaphores. Otherwise like `gi_endpoint_gl`.
///
/// Required: the two contexts share objects, and `loader` is as for `gi_endpoint_gl`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gi_endpoint_gl_shared(
    other: Option<&gi_endpoint>,
    loader: gi_gl_loader,
    endpoint: Option<&mut MaybeUninit<Option<Box<gi_endpoint>>>>,
) -> gi_result {
    guard(|| {
        let out = required(endpoint, "endpoint")?;
        let loader = required(loader, "loader")?;
        let Endpoint::Gl(other) = &required(other, "other")?.0 else {
            return Err(Invalid::new("other", "is not an OpenGL endpoint").into());
        };
        let mut load = |name: &CStr| find(loader, name);
        // Refuses a thread without a context, in which glow would panic.
        // SAFETY: the caller's promise.
        drop(unsafe { gl::Endpoint::load(&mut load, None) }?);
        // SAFETY: the caller's promise, and a context is current.
        let context = unsafe { glow::Context::from_loader_function_cstr(&mut load) };
        // SAFETY: the caller's promise; `context` was loaded with the same loader.
        let created = unsafe { other.new_shared(Arc::new(context), &mut load, None) }?;
        out.write(Some(Box::new(gi_endpoint(Endpoint::Gl(created)))));
        Ok(())
    })
}

/// Calls the application's loader.
fn find(
    loader: unsafe extern "C-unwind" fn(name: *const c_char) -> gi_function,
    name: &CStr,
) -> *const c_void {
    // SAFETY: the caller of the C API promises that it returns null or a function of this name.
    let found = unsafe { loader(name.as_ptr()) };
    found.map_or(ptr::null(), |f| f as *const c_void)
}

/// Frees what handles that were destroyed have left. OpenGL: names of objects that were dropped
/// while the context was not current; it must be current now. CUDA: what work that is done by now
/// used. Vulkan needs no call.
#[unsafe(no_mangle)]
pub extern "C" fn gi_endpoint_collect(endpoint: Option<&gi_endpoint>) -> gi_result {
    guard(|| {
        match &required(endpoint, "endpoint")?.0 {
            Endpoint::Vulkan(_) => {}
            Endpoint::Gl(gl) => {
                gl.delete_dropped()?;
            }
            Endpoint::Cuda(cuda) => cuda.free_finished(),
        }
        Ok(())
    })
}

/// Creates an endpoint over a `CUcontext`, which must outlive everything that is created from the
/// endpoint. The context need not be current.
///
/// `GI_RESULT_MISSING` if libcuda is not installed.
///
/// Required: `context` is a valid `CUcontext`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gi_endpoint_cuda(
    context: *mut c_void,
    endpoint: Option<&mut MaybeUninit<Option<Box<gi_endpoint>>>>,
) -> gi_result {
    guard(|| {
        let out = required(endpoint, "endpoint")?;
        cuda::require()?;
        if context.is_null() {
            return Err(Invalid::new("context", "is null").into());
        }
        // SAFETY: the caller's promise.
        let created = unsafe { cuda::Endpoint::from_raw(context.cast()) }?;
        out.write(Some(Box::new(gi_endpoint(Endpoint::Cuda(created)))));
        Ok(())
    })
}

/// Destroys an endpoint; null is allowed. The last object of a Vulkan endpoint waits up to 10
/// seconds for the work of handoffs.
#[unsafe(no_mangle)]
pub extern "C" fn gi_endpoint_destroy(endpoint: Option<Box<gi_endpoint>>) {
    guard_value(|| drop(endpoint));
}

/// Returns the API of an endpoint.
#[unsafe(no_mangle)]
pub extern "C" fn gi_endpoint_api(endpoint: Option<&gi_endpoint>) -> gi_api {
    match endpoint {
        None => gi_api::None,
        Some(gi_endpoint(Endpoint::Vulkan(_))) => gi_api::Vulkan,
        Some(gi_endpoint(Endpoint::Gl(_))) => gi_api::Gl,
        Some(gi_endpoint(Endpoint::Cuda(_))) => gi_api::Cuda,
    }
}

/// Writes the 16 bytes of the GPU's UUID, the same in every API: that of the first GPU, if an
/// OpenGL context spans several.
#[unsafe(no_mangle)]
pub extern "C" fn gi_endpoint_uuid(
    endpoint: Option<&gi_endpoint>,
    uuid: Option<&mut MaybeUninit<[u8; 16]>>,
) -> gi_result {
    guard(|| {
        let (endpoint, out) = (required(endpoint, "endpoint")?, required(uuid, "uuid")?);
        let identities = each_api!(Endpoint, &endpoint.0, peer => peer.identities());
        let first = required(identities.first(), "endpoint's GPU")?;
        out.write(*first.device.as_bytes());
        Ok(())
    })
}

/// Waits until all work of the device or context is done: `vkDeviceWaitIdle`, `glFinish`,
/// `cuCtxSynchronize`.
///
/// Required: no other thread uses a queue of a Vulkan device meanwhile.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gi_endpoint_wait_idle(endpoint: Option<&gi_endpoint>) -> gi_result {
    guard(|| {
        let endpoint = required(endpoint, "endpoint")?;
        // SAFETY: the caller's promise.
        each_api!(Endpoint, &endpoint.0, peer => unsafe { peer.wait_idle() })
    })
}

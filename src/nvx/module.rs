//! Modules and their functions: CUDA kernels in a Vulkan device, and their launches.

use std::ffi::{CString, c_void};
use std::sync::Arc;
use std::{fmt, ptr};

use ash::vk;

use super::cubin::{self, Cubin, KernelInfo};
use super::elf::Parameter;
use super::launch::{self, Argument, Launch, Limits};
use crate::error::{Api, Invalid, Missing, Result};
use crate::vulkan::{Endpoint, VkResultExt, driver_error};

/// CUDA kernels that were loaded into a Vulkan device. Cheap to clone; `Send` and `Sync`.
///
/// The module is destroyed with its last clone and its last [`Function`]. Keep it until submitted
/// work that uses it is done.
#[derive(Clone)]
pub struct Module {
    inner: Arc<ModuleInner>,
}

struct ModuleInner {
    handle: vk::CuModuleNVX,
    kernels: Vec<KernelInfo>,
    limits: Limits,
    fns: ash::nvx::binary_import::DeviceFn,
    // Last: it may destroy the device, after the module.
    endpoint: Endpoint,
}

impl Drop for ModuleInner {
    fn drop(&mut self) {
        let device = self.endpoint.device().handle();
        // SAFETY: the module was created by this device, which is alive (`endpoint`), this
        // structure alone owns it, and its functions are gone, since each holds it. The caller of
        // every launch promised that no submitted work uses it.
        unsafe { (self.fns.destroy_cu_module_nvx)(device, self.handle, ptr::null()) };
    }
}

impl fmt::Debug for Module {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Module")
            .field("handle", &self.inner.handle)
            .field("kernels", &self.inner.kernels)
            .field("device", &self.inner.endpoint.device().handle())
            .finish_non_exhaustive()
    }
}

/// A kernel that can be launched. Cheap to clone; `Send` and `Sync`.
///
/// It keeps its [`Module`]. Keep it until submitted work that uses it is done.
#[derive(Clone)]
pub struct Function {
    inner: Arc<FunctionInner>,
}

struct FunctionInner {
    handle: vk::CuFunctionNVX,
    name: String,
    parameters: Option<Vec<Parameter>>,
    // Last: the module is dropped after the function in it.
    module: Module,
}

impl Drop for FunctionInner {
    fn drop(&mut self) {
        let module = &self.module.inner;
        let device = module.endpoint.device().handle();
        // SAFETY: the function was created by this device, which the module keeps, and this
        // structure alone owns it. The caller of every launch promised that no submitted work uses
        // it.
        unsafe { (module.fns.destroy_cu_function_nvx)(device, self.handle, ptr::null()) };
    }
}

impl fmt::Debug for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Function")
            .field("name", &self.inner.name)
            .field("parameters", &self.inner.parameters)
            .field("handle", &self.inner.handle)
            .finish_non_exhaustive()
    }
}

impl Endpoint {
    /// Loads the kernels of `cubin` into the device, which copies its bytes.
    ///
    /// # Errors
    /// [`Missing`] like [`supports_cuda_launch`](Self::supports_cuda_launch); [`Invalid`] if the
    /// driver rejects the cubin, for example one built for another GPU;
    /// [`Driver`](crate::Error::Driver) for other failures.
    ///
    /// # References
    /// `vkCreateCuModuleNVX`.
    #[doc(alias = "vkCreateCuModuleNVX")]
    pub fn load_module(&self, cubin: &Cubin) -> Result<Module> {
        self.supports_cuda_launch()?;
        let fns = load_fns(self)?;
        let info = vk::CuModuleCreateInfoNVX::default().data(cubin.bytes());
        let device = self.device().handle();
        let mut handle = vk::CuModuleNVX::null();
        // SAFETY: the extension is enabled (`supports_cuda_launch`, and the promise made to
        // `Endpoint::new`); the image's tables were checked (`Cubin`) and it outlives the call;
        // `handle` is writable.
        let created =
            unsafe { (fns.create_cu_module_nvx)(device, &info, ptr::null(), &mut handle) };
        match created {
            vk::Result::ERROR_INITIALIZATION_FAILED | vk::Result::ERROR_INVALID_SHADER_NV => {
                let target = cubin.architecture().map(|sm| format!(", built for sm_{sm},"));
                let target = target.unwrap_or_default();
                let what = format!(
                    "{target} is rejected by the driver (vkCreateCuModuleNVX: VK_{created:?})"
                );
                return Err(Invalid::new("cubin", what.trim_start().to_owned())
                    .help("link it for this GPU, for example with cuda::Endpoint::link")
                    .into());
            }
            other => other.result().context("vkCreateCuModuleNVX")?,
        }
        // SAFETY: the instance and its physical device are valid (`Endpoint::new`).
        let properties =
            unsafe { self.instance().get_physical_device_properties(self.physical_device()) };
        let limits = Limits::of(&properties.limits, self.workarounds().reserved_shared_bytes());
        let (kernels, endpoint) = (cubin.kernels().to_vec(), self.clone());
        Ok(Module { inner: Arc::new(ModuleInner { handle, kernels, limits, fns, endpoint }) })
    }
}

/// Loads the extension's functions. ash replaces an absent one with a function that panics.
fn load_fns(endpoint: &Endpoint) -> Result<ash::nvx::binary_import::DeviceFn> {
    let mut absent: Option<CString> = None;
    let (instance, device) = (endpoint.instance(), endpoint.device().handle());
    let fns = ash::nvx::binary_import::DeviceFn::load(|name| {
        // SAFETY: the device is alive and of this instance (`Endpoint::new`).
        let found = unsafe { instance.get_device_proc_addr(device, name.as_ptr()) };
        match found {
            Some(function) => function as *const c_void,
            None => {
                absent = Some(name.to_owned());
                ptr::null()
            }
        }
    });
    match absent {
        None => Ok(fns),
        Some(name) => {
            let what = name.to_string_lossy().into_owned();
            Err(Missing::new(Api::Vulkan, what, "CUDA kernels in a Vulkan queue")
                .help("check that VK_NVX_binary_import is enabled and that no layer hides it")
                .into())
        }
    }
}

impl Module {
    /// Returns the kernels in the module, like [`Cubin::kernels`].
    pub fn kernels(&self) -> &[KernelInfo] {
        &self.inner.kernels
    }

    /// Returns the Vulkan handle, which this object owns.
    pub fn handle(&self) -> vk::CuModuleNVX {
        self.inner.handle
    }

    /// Returns the kernel with this name, as in a source that declares it `extern "C"`.
    ///
    /// # Errors
    /// [`Invalid`] if there is no such kernel (the error lists the module's kernels) or the name
    /// has a zero byte; [`Driver`](crate::Error::Driver).
    ///
    /// # References
    /// `vkCreateCuFunctionNVX`.
    #[doc(alias = "vkCreateCuFunctionNVX")]
    pub fn function(&self, name: &str) -> Result<Function> {
        // Without any information on kernels, the driver decides.
        let kernels = self.kernels();
        let info = if kernels.is_empty() { None } else { Some(cubin::find(kernels, name)?) };
        let c_name = CString::new(name).map_err(|_| {
            Invalid::new("name", format!("'{}' has a zero byte", name.escape_debug()))
        })?;
        let create = vk::CuFunctionCreateInfoNVX::default().module(self.handle()).name(&c_name);
        let device = self.inner.endpoint.device().handle();
        let mut handle = vk::CuFunctionNVX::null();
        // SAFETY: the module is alive and of this device, the name is terminated and outlives the
        // call, and `handle` is writable.
        let created = unsafe {
            (self.inner.fns.create_cu_function_nvx)(device, &create, ptr::null(), &mut handle)
        };
        if created != vk::Result::SUCCESS {
            return Err(driver_error("vkCreateCuFunctionNVX", created));
        }
        let parameters = info.and_then(|info| info.parameters.clone());
        let (name, module) = (name.to_owned(), self.clone());
        Ok(Function { inner: Arc::new(FunctionInner { handle, name, parameters, module }) })
    }
}

impl Function {
    /// Returns the kernel's name.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// Returns the kernel's parameters, if the cubin describes them.
    pub fn parameters(&self) -> Option<&[Parameter]> {
        self.inner.parameters.as_deref()
    }

    /// Returns the module that contains the kernel.
    pub fn module(&self) -> &Module {
        &self.inner.module
    }

    /// Returns the Vulkan handle, which this object owns.
    pub fn handle(&self) -> vk::CuFunctionNVX {
        self.inner.handle
    }

    /// Records a launch of the kernel into `commands`, with `arguments` in the order of its
    /// parameters. The arguments are copied; only the memory that they point to is used later.
    ///
    /// The launch is not ordered with other commands: record a [barrier](Endpoint::record_barrier)
    /// between it and commands that write what the kernel reads, read what it writes, or write the
    /// same memory.
    ///
    /// # Safety
    /// - `commands` is being recorded outside a render pass, belongs to the function's device and
    ///   to a queue family with compute or graphics, and no other thread uses its pool meanwhile.
    /// - The function and the buffers in `arguments` live until the work is done.
    /// - The kernel accesses only memory that it may use, and it ends. If
    ///   [`parameters`](Self::parameters) is `None`, `arguments` match its parameters in number and
    ///   size.
    ///
    /// # Errors
    /// Nothing is recorded. [`Invalid`] for a size of 0 or beyond the device's limits, for
    /// arguments that don't match the parameters in number and size, and for a buffer without
    /// [`BufferUsage::DEVICE_ADDRESS`](crate::BufferUsage::DEVICE_ADDRESS);
    /// [`Mismatch`](crate::error::Mismatch) for a buffer of another device.
    ///
    /// # References
    /// `vkCmdCuLaunchKernelNVX`; VUID-vkCmdCuLaunchKernelNVX-commandBuffer-recording and
    /// -commandBuffer-cmdpool. `VkCudaLaunchInfoNV` and `cuLaunchKernel` for the members.
    #[doc(alias = "vkCmdCuLaunchKernelNVX")]
    pub unsafe fn launch(
        &self,
        commands: vk::CommandBuffer,
        launch: &Launch,
        arguments: &[Argument<'_>],
    ) -> Result<()> {
        let module = &self.inner.module.inner;
        module.limits.check(launch)?;
        let device = module.endpoint.device().handle();
        let arguments = arguments.iter().map(|argument| argument.resolve(device));
        let arguments = arguments.collect::<Result<Vec<_>>>()?;
        if let Some(parameters) = self.parameters() {
            launch::check(&arguments, parameters)?;
        }
        let pointers: Vec<_> = arguments.iter().map(|argument| argument.as_ptr()).collect();
        let info = vk::CuLaunchInfoNVX::default()
            .function(self.handle())
            .grid_dim_x(launch.grid[0])
            .grid_dim_y(launch.grid[1])
            .grid_dim_z(launch.grid[2])
            .block_dim_x(launch.block[0])
            .block_dim_y(launch.block[1])
            .block_dim_z(launch.block[2])
            .shared_mem_bytes(launch.dynamic_shared_bytes)
            .params(&pointers);
        // SAFETY: the caller's promise covers the command buffer, lifetimes and the kernel. The
        // function is alive, the sizes are within the limits, and each pointer is to as many bytes
        // as its parameter has; all outlive the call, which copies them.
        unsafe { (module.fns.cmd_cu_launch_kernel_nvx)(commands, &info) };
        Ok(())
    }
}

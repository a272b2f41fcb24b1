//! A function: one kernel of a module.

use std::ffi::CString;
use std::fmt;
use std::ptr;
use std::sync::Arc;

use ash::vk;

use super::module::Module;
use crate::error::{Invalid, Result};
use crate::nvx::{KernelInfo, Parameter};
use crate::vulkan::error::driver_error;

/// A kernel, ready to be launched. Cheap to clone; `Send` and `Sync`.
///
/// Keeps its [`Module`]. Whoever submits work that uses it keeps it until that work is done.
#[derive(Clone)]
pub struct Function {
    inner: Arc<Inner>,
}

struct Inner {
    handle: vk::CuFunctionNVX,
    name: String,
    parameters: Option<Vec<Parameter>>,
    // Last: the module goes after the function in it.
    module: Module,
}

impl Drop for Inner {
    fn drop(&mut self) {
        let device = self.module.shared().device.handle();
        // SAFETY: the function was made of this device, which the module keeps, and is owned by
        // this structure alone. That no submitted work uses it is promised with every launch.
        unsafe { (self.module.calls().destroy_cu_function_nvx)(device, self.handle, ptr::null()) };
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

impl Module {
    /// The kernel called `name`: as in the source where that says `extern "C"`.
    ///
    /// # Errors
    /// [`Invalid`] where there is none (it names those there are) or where the name has a zero byte;
    /// [`Driver`](crate::Error::Driver) where the driver refuses.
    ///
    /// # References
    /// `vkCreateCuFunctionNVX`.
    #[doc(alias = "vkCreateCuFunctionNVX")]
    pub fn function(&self, name: &str) -> Result<Function> {
        let info = find(self.kernels(), name)?;
        let c_name = CString::new(name).map_err(|_| {
            Invalid::new("name", format!("'{}' has a zero byte", name.escape_debug()))
        })?;
        let create = vk::CuFunctionCreateInfoNVX::default().module(self.handle()).name(&c_name);
        let device = self.shared().device.handle();
        let mut handle = vk::CuFunctionNVX::null();
        // SAFETY: the module is alive and of this device, the name is terminated and outlives the
        // call, and `handle` is writable.
        let made = unsafe {
            (self.calls().create_cu_function_nvx)(device, &create, ptr::null(), &mut handle)
        };
        if made != vk::Result::SUCCESS {
            return Err(driver_error("vkCreateCuFunctionNVX", made));
        }
        let parameters = info.and_then(|info| info.parameters.clone());
        let (name, module) = (name.to_owned(), self.clone());
        Ok(Function { inner: Arc::new(Inner { handle, name, parameters, module }) })
    }
}

/// What is known of the kernel called `name`; `None` where nothing is known of any.
fn find<'a>(kernels: &'a [KernelInfo], name: &str) -> Result<Option<&'a KernelInfo>> {
    if kernels.is_empty() {
        return Ok(None);
    }
    super::cubin::find(kernels, name).map(Some)
}

impl Function {
    /// The kernel's name.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// The kernel's parameters, where the cubin tells them.
    pub fn parameters(&self) -> Option<&[Parameter]> {
        self.inner.parameters.as_deref()
    }

    /// The module it is in.
    pub fn module(&self) -> &Module {
        &self.inner.module
    }

    /// The Vulkan handle. Owned by this object.
    pub fn handle(&self) -> vk::CuFunctionNVX {
        self.inner.handle
    }
}

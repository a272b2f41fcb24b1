//! A module: kernels in the device.

use std::ffi::{CString, c_void};
use std::fmt;
use std::ptr;
use std::sync::Arc;

use ash::vk;

use super::limits::Limits;
use crate::error::{Api, Invalid, Missing, Result};
use crate::nvx::{Cubin, KernelInfo};
use crate::vulkan::endpoint::{Endpoint, Shared};
use crate::vulkan::error::VkResultExt;

/// CUDA kernels that were loaded into a Vulkan device. Cheap to clone; `Send` and `Sync`.
///
/// The module is destroyed with the last clone and the last [`Function`](super::Function) of it.
/// Whoever submits work that uses it keeps it until that work is done.
#[derive(Clone)]
pub struct Module {
    inner: Arc<Inner>,
}

struct Inner {
    handle: vk::CuModuleNVX,
    kernels: Vec<KernelInfo>,
    limits: Limits,
    calls: ash::nvx::binary_import::DeviceFn,
    // Last: what may destroy the device goes after the module.
    shared: Arc<Shared>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        let device = self.shared.device.handle();
        // SAFETY: the module was made of this device, which lives (`shared`), is owned by this
        // structure alone, and its functions are gone: each holds it. That no submitted work uses
        // it is promised with every launch.
        unsafe { (self.calls.destroy_cu_module_nvx)(device, self.handle, ptr::null()) };
    }
}

impl fmt::Debug for Module {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Module")
            .field("handle", &self.inner.handle)
            .field("kernels", &self.inner.kernels)
            .field("device", &self.inner.shared.device.handle())
            .finish_non_exhaustive()
    }
}

impl Endpoint {
    /// Loads the kernels of `cubin` into the device. The bytes aren't needed any more afterwards.
    ///
    /// # Errors
    /// [`Missing`] as [`in_queue`](Self::in_queue); [`Invalid`] where the driver doesn't take the
    /// cubin, as it doesn't one for another GPU; [`Driver`](crate::Error::Driver) for all else that
    /// the driver refuses.
    ///
    /// # References
    /// `vkCreateCuModuleNVX`.
    #[doc(alias = "vkCreateCuModuleNVX")]
    pub fn load_module(&self, cubin: &Cubin) -> Result<Module> {
        self.supports_cuda_launch()?;
        let shared = self.shared.clone();
        let calls = calls(&shared)?;
        let info = vk::CuModuleCreateInfoNVX::default().data(cubin.bytes());
        let mut handle = vk::CuModuleNVX::null();
        // SAFETY: the extension is enabled, as whoever made the endpoint promised (`in_queue`); the
        // image's tables were checked (`Cubin`) and it outlives the call; `handle` is writable.
        let made = unsafe {
            (calls.create_cu_module_nvx)(shared.device.handle(), &info, ptr::null(), &mut handle)
        };
        match made {
            vk::Result::ERROR_INITIALIZATION_FAILED | vk::Result::ERROR_INVALID_SHADER_NV => {
                let is_for = cubin.architecture().map(|sm| format!(", which is for sm_{sm}"));
                let is_for = is_for.unwrap_or_default();
                let what =
                    format!("the driver can't load it{is_for} (vkCreateCuModuleNVX: VK_{made:?})");
                return Err(Invalid::new("cubin", what)
                    .help("link it for this GPU, by cuda::Endpoint::link say")
                    .into());
            }
            other => other.result().of("vkCreateCuModuleNVX")?,
        }
        // SAFETY: the instance and its physical device are valid (`Endpoint::new`).
        let properties =
            unsafe { shared.instance.get_physical_device_properties(shared.physical_device) };
        let limits = Limits::of(&properties.limits, shared.workarounds.kept_shared_bytes);
        let kernels = cubin.kernels().to_vec();
        Ok(Module { inner: Arc::new(Inner { handle, kernels, limits, calls, shared }) })
    }
}

impl Module {
    /// The kernels in it, as [`Cubin::kernels`].
    pub fn kernels(&self) -> &[KernelInfo] {
        &self.inner.kernels
    }

    /// The Vulkan handle. Owned by this object.
    pub fn handle(&self) -> vk::CuModuleNVX {
        self.inner.handle
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.inner.shared
    }

    pub(crate) fn calls(&self) -> &ash::nvx::binary_import::DeviceFn {
        &self.inner.calls
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.inner.limits
    }
}

/// The extension's calls, of the user's device. ash puts a panic in the place of one that is not
/// there.
fn calls(shared: &Shared) -> Result<ash::nvx::binary_import::DeviceFn> {
    let mut absent: Option<CString> = None;
    let calls = ash::nvx::binary_import::DeviceFn::load(|name| {
        // SAFETY: the device is alive and of this instance (`Endpoint::new`).
        let found =
            unsafe { shared.instance.get_device_proc_addr(shared.device.handle(), name.as_ptr()) };
        match found {
            Some(call) => call as *const c_void,
            None => {
                absent = Some(name.to_owned());
                ptr::null()
            }
        }
    });
    match absent {
        None => Ok(calls),
        Some(name) => {
            let what = name.to_string_lossy().into_owned();
            Err(Missing::new(Api::Vulkan, what, "CUDA kernels in a Vulkan queue")
                .help("is VK_NVX_binary_import enabled, and does every layer pass it on?")
                .into())
        }
    }
}

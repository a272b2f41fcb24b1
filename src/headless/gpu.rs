//! One GPU in every API: opened together, and listed; and its CUDA context.

use std::fmt;
use std::sync::Arc;

use cudarc::driver::CudaContext;

use super::error;
use super::gl::Gl;
use super::instance::{InitLock, Instance};
use super::options::{DeviceType, GpuSelector, VulkanOptions, cuda_device};
use super::physical::PhysicalDevice;
use super::vulkan::Vulkan;
use crate::cuda::library::failed;
use crate::cuda::{self, Device, Endpoint};
use crate::error::{Api, Error, Result};
use crate::identity::{Identity, Uuid};

/// The APIs that could be opened on one GPU.
///
/// OpenGL and CUDA are opened by the UUID of Vulkan's GPU. If one of them can't be opened, the
/// error is kept. Dropping this closes CUDA, then OpenGL, then Vulkan, each once everything created
/// from it is dropped.
#[derive(Debug)]
#[non_exhaustive]
pub struct Headless {
    /// CUDA, or why it could not be opened.
    pub cuda: Result<Cuda, Error>,
    /// OpenGL, or why it could not be opened. Its context is current on the thread that opened it.
    pub gl: Result<Gl, Error>,
    /// Vulkan.
    pub vulkan: Vulkan,
}

impl Headless {
    /// Opens Vulkan on the selected GPU, and OpenGL and CUDA on the same one.
    ///
    /// # Errors
    /// The errors of [`Vulkan::open`]. Errors of OpenGL and CUDA are kept in [`gl`](Self::gl) and
    /// [`cuda`](Self::cuda).
    pub fn open(gpu: &GpuSelector, options: &VulkanOptions) -> Result<Self> {
        let vulkan = Vulkan::open(gpu, options)?;
        let same = GpuSelector::Uuid(vulkan.identity().device);
        let gl = Gl::open(&same);
        let cuda = Cuda::open(&same);
        for (api, error) in [("OpenGL", gl.as_ref().err()), ("CUDA", cuda.as_ref().err())] {
            if let Some(error) = error {
                tracing::debug!(api, %error, "not opened");
            }
        }
        Ok(Self { cuda, gl, vulkan })
    }

    /// Returns OpenGL.
    ///
    /// # Errors
    /// The error with which it could not be opened.
    pub fn gl(&self) -> Result<&Gl> {
        self.gl.as_ref().map_err(Error::clone)
    }

    /// Returns CUDA.
    ///
    /// # Errors
    /// The error with which it could not be opened.
    pub fn cuda(&self) -> Result<&Cuda> {
        self.cuda.as_ref().map_err(Error::clone)
    }
}

/// A GPU of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Gpu {
    /// Its device UUID, for [`GpuSelector::Uuid`].
    pub uuid: Uuid,
    /// Its name in the first API of `seen_by`.
    pub name: String,
    /// Its kind; `None` if Vulkan doesn't see it.
    pub device_type: Option<DeviceType>,
    /// Its CUDA ordinal; `None` if CUDA doesn't see it.
    pub cuda_ordinal: Option<usize>,
    /// The APIs that see it.
    pub seen_by: Vec<Api>,
}

impl fmt::Display for Gpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.uuid, self.name)?;
        if let Some(device_type) = self.device_type {
            write!(f, " ({device_type})")?;
        }
        let apis: Vec<_> = self.seen_by.iter().map(Api::to_string).collect();
        write!(f, ": {}", apis.join(", "))
    }
}

/// Returns the GPUs of this machine as Vulkan, OpenGL and CUDA see them, those of Vulkan first.
///
/// Missing APIs are omitted: opening one returns the reason. This is slow: it opens an instance,
/// and one OpenGL context per GPU on a thread of its own.
pub fn enumerate_gpus() -> Vec<Gpu> {
    let mut gpus = Gpus(Vec::new());
    for device in seen(Api::Vulkan, vulkan_gpus()) {
        gpus.entry(&device.identity, Api::Vulkan).device_type = Some(device.device_type);
    }
    for identity in seen(Api::OpenGl, gl_gpus()) {
        gpus.entry(&identity, Api::OpenGl);
    }
    for device in seen(Api::Cuda, cuda::devices()) {
        gpus.entry(&device.identity, Api::Cuda).cuda_ordinal = Some(device.ordinal);
    }
    gpus.0
}

struct Gpus(Vec<Gpu>);

impl Gpus {
    /// Returns the entry of a GPU that `api` sees.
    fn entry(&mut self, identity: &Identity, api: Api) -> &mut Gpu {
        let at = self.0.iter().position(|gpu| gpu.uuid == identity.device).unwrap_or_else(|| {
            self.0.push(Gpu {
                uuid: identity.device,
                name: identity.name.clone(),
                device_type: None,
                cuda_ordinal: None,
                seen_by: Vec::new(),
            });
            self.0.len() - 1
        });
        let gpu = &mut self.0[at];
        if !gpu.seen_by.contains(&api) {
            gpu.seen_by.push(api);
        }
        gpu
    }
}

fn vulkan_gpus() -> Result<Vec<PhysicalDevice>> {
    let _lock = InitLock::take();
    PhysicalDevice::all(&Instance::create(&VulkanOptions::default())?)
}

fn gl_gpus() -> Result<Vec<Identity>> {
    // On a thread of its own: the context that is current on the caller's thread stays current.
    std::thread::scope(|scope| scope.spawn(Gl::gpus).join()).unwrap_or_else(|_| Ok(Vec::new()))
}

fn seen<T>(api: Api, gpus: Result<Vec<T>>) -> Vec<T> {
    gpus.unwrap_or_else(|error| {
        tracing::debug!(%api, %error, "sees no GPU");
        Vec::new()
    })
}

/// The primary CUDA context of a GPU. Cheap to clone; `Send` and `Sync`.
///
/// # References
/// `cuDevicePrimaryCtxRetain`, `cuDeviceGetUuid`.
#[derive(Clone, Debug)]
pub struct Cuda {
    context: Arc<CudaContext>,
    identity: Identity,
}

impl Cuda {
    /// Opens the primary context of the selected GPU and binds it to this thread.
    /// [`GpuSelector::Any`] is CUDA's first GPU.
    ///
    /// # Errors
    /// [`Missing`](crate::Error::Missing) if libcuda or the GPU is absent (the error lists the GPUs
    /// that CUDA sees); [`Driver`](crate::Error::Driver) if CUDA refuses a call.
    #[doc(alias = "cuDevicePrimaryCtxRetain")]
    pub fn open(gpu: &GpuSelector) -> Result<Self> {
        let _lock = InitLock::take();
        let Device { ordinal, identity, .. } = match *gpu {
            GpuSelector::Any => cuda_device(0)?,
            GpuSelector::CudaOrdinal(ordinal) => cuda_device(ordinal)?,
            GpuSelector::Uuid(uuid) => with_uuid(uuid)?,
        };
        // libcuda is loaded, or the device would not have been found, so cudarc doesn't panic.
        let context = CudaContext::new(ordinal)
            .map_err(|error| failed("cuDevicePrimaryCtxRetain", error.0))?;
        tracing::debug!(gpu = %identity.name, uuid = %identity.device, ordinal, "CUDA context");
        Ok(Self { context, identity })
    }

    /// Returns the context.
    pub fn context(&self) -> &Arc<CudaContext> {
        &self.context
    }

    /// Returns the GPU. CUDA has no driver UUID.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Creates an endpoint over the context, which it keeps alive.
    ///
    /// # Errors
    /// Same as [`Endpoint::new`].
    pub fn endpoint(&self) -> Result<Endpoint> {
        Endpoint::new(self.context.clone())
    }
}

fn with_uuid(uuid: Uuid) -> Result<Device> {
    let devices = cuda::devices()?;
    match devices.iter().find(|device| device.identity.device == uuid) {
        Some(device) => Ok(device.clone()),
        None => {
            let seen = devices.iter().map(|device| &device.identity);
            Err(error::no_such_gpu(Api::Cuda, uuid, seen).into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_gpu_in_several_apis_is_one_entry() {
        let identity = |number: u8, name: &str| Identity {
            device: Uuid::from_bytes([number; 16]),
            driver: None,
            name: name.into(),
        };
        let mut gpus = Gpus(Vec::new());
        let cpu = Some(DeviceType::Cpu);
        gpus.entry(&identity(1, "llvmpipe (LLVM)"), Api::Vulkan).device_type = cpu;
        gpus.entry(&identity(1, "llvmpipe"), Api::OpenGl);
        gpus.entry(&identity(1, "llvmpipe"), Api::OpenGl);
        gpus.entry(&identity(2, "H200"), Api::Cuda).cuda_ordinal = Some(0);
        let [first, second] = gpus.0.as_slice() else { panic!("{:?}", gpus.0) };
        assert_eq!(first.seen_by, [Api::Vulkan, Api::OpenGl]);
        assert_eq!(
            first.to_string(),
            "01010101-0101-0101-0101-010101010101 llvmpipe (LLVM) (CPU): Vulkan, OpenGL"
        );
        assert_eq!((second.cuda_ordinal, second.device_type), (Some(0), None));
    }
}

//! The GPU that the suite runs on, opened once in every API.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use gpu_interop::capabilities::{Capabilities, Plan, plan};
use gpu_interop::fd::{MemoryHandleType, SemaphoreHandleType};
use gpu_interop::headless::{DeviceType, GpuSelector, Validation, VulkanOptions};
use gpu_interop::vulkan::{BufferOptions, ImageOptions, MemoryLocation};
use gpu_interop::{Api, BufferDesc, Error, ImageDesc, ResourceDesc};

use super::fixture::{About, ApiState, Device, Fixture, Need};
use super::process::child_arguments;
use super::validation;
use interop_gpu::GpuContexts;
use interop_gpu::cuda::CudaContext;
use interop_gpu::gl::GlContext;
use interop_gpu::vulkan::VulkanContext;

/// One GPU, opened in every API it has, with the kernels loaded.
///
/// The cases of a run share it, one after the other; a case that breaks something opens its own.
#[derive(Debug)]
pub struct TestGpu {
    contexts: GpuContexts,
    selector: GpuSelector,
}

impl TestGpu {
    /// How every Vulkan device of the suite is opened: with the validation layer if it is installed,
    /// unless `INTEROP_VALIDATION=off`.
    pub fn options() -> VulkanOptions {
        let off = std::env::var("INTEROP_VALIDATION").is_ok_and(|value| value == "off");
        let validation = if off { Validation::Off } else { Validation::IfInstalled };
        VulkanOptions::default().validation(validation).messages(validation::keep)
    }

    /// Selects this GPU, to open it again.
    pub fn selector(&self) -> &GpuSelector {
        &self.selector
    }

    /// Runs a role in a child process, which finds this GPU in `INTEROP_DEVICE`.
    ///
    /// # Errors
    /// If the child can't be started, or fails.
    pub fn run_child(&self, role: &str, environment: &[(&str, &str)]) -> Result<()> {
        let mut child = child_arguments(role)?;
        child.env("INTEROP_DEVICE", self.selector.to_string()).envs(environment.iter().copied());
        let output = child.output()?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{environment:?}: {}: {errors}", output.status);
        Ok(())
    }

    /// All contexts, for the demos and the benchmark.
    pub fn contexts(&self) -> &GpuContexts {
        &self.contexts
    }

    /// Vulkan.
    pub fn vulkan(&self) -> &VulkanContext {
        &self.contexts.vulkan
    }

    /// Another logical device of the same instance and GPU.
    ///
    /// # Errors
    /// If the driver refuses.
    pub fn second_device(&self) -> Result<&VulkanContext> {
        Ok(&self.contexts.second_device)
    }

    /// A device of another instance on the same GPU.
    ///
    /// # Errors
    /// If the driver refuses.
    pub fn second_instance(&self) -> Result<&VulkanContext> {
        Ok(&self.contexts.second_instance)
    }

    /// Frees what submits to the Vulkan devices have kept and the GPU is done with, and what CUDA's graphs
    /// have kept.
    pub fn free_finished(&self) {
        let GpuContexts { vulkan, second_device, second_instance, .. } = &self.contexts;
        for context in [vulkan, second_device, second_instance] {
            context.endpoint.free_finished();
        }
        if let Ok(cuda) = &self.contexts.cuda {
            cuda.endpoint.free_finished();
        }
    }

    /// OpenGL, current on this thread.
    ///
    /// # Errors
    /// If it is absent; a case that needs it declares [`Need::Gl`].
    pub fn gl(&self) -> Result<&GlContext> {
        let gpu = self.contexts.gl.as_ref().map_err(Clone::clone)?;
        gpu.gl.make_current()?;
        Ok(gpu)
    }

    /// CUDA.
    ///
    /// # Errors
    /// If it is absent; a case that needs it declares [`Need::Cuda`].
    pub fn cuda(&self) -> Result<&CudaContext> {
        Ok(self.contexts.cuda.as_ref().map_err(Clone::clone)?)
    }

    /// The Vulkan driver's name and version.
    pub fn driver(&self) -> &str {
        self.contexts.vulkan.vulkan.driver()
    }

    /// Whether the driver runs on a GPU, not on the CPU.
    pub fn is_hardware(&self) -> bool {
        self.contexts.vulkan.vulkan.device_type() != DeviceType::Cpu
    }

    /// Whether an API is available.
    pub fn has(&self, api: Api) -> bool {
        match api {
            Api::OpenGl => self.contexts.gl.is_ok(),
            Api::Cuda => self.contexts.cuda.is_ok(),
            _ => true,
        }
    }

    /// What is missing for an image that Vulkan exports and `api` imports.
    fn lacks_image(&self, api: Api, image: &ImageDesc) -> Result<Option<String>> {
        let desc = (*image).into();
        let exporter = self.contexts.vulkan.endpoint.capabilities(&desc)?;
        let importer = match self.capabilities(api, &desc)? {
            Ok(importer) => importer,
            Err(absent) => return Ok(Some(absent.to_string())),
        };
        match plan(&exporter, &importer, &desc) {
            Ok(Plan { handle_type: MemoryHandleType::DmaBuf, .. }) => {
                Ok(Some("only dma-buf".into()))
            }
            other => reason(other),
        }
    }

    fn lacks_host_visible_export(&self) -> Result<Option<String>> {
        let memory = MemoryLocation::HostVisible;
        let options = BufferOptions { memory, ..BufferOptions::default() };
        reason(self.contexts.vulkan.endpoint.create_buffer(&BufferDesc::storage(4096), options))
    }

    fn lacks_host_visible_image(&self, image: &ImageDesc) -> Result<Option<String>> {
        let memory = MemoryLocation::HostVisible;
        let options = ImageOptions { memory, ..ImageOptions::default() };
        reason(self.contexts.vulkan.endpoint.create_image(image, options))
    }

    fn lacks_memory(&self, bytes: u64) -> Result<Option<String>> {
        let heaps = self.contexts.vulkan.endpoint.memory_properties().memory_heaps_as_slice();
        let largest = heaps.iter().map(|heap| heap.size).max().unwrap_or(0);
        let meminfo = std::fs::read_to_string("/proc/meminfo").context("/proc/meminfo")?;
        let available = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
        let kib = available.and_then(|text| text.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        let free = kib.context("MemAvailable of /proc/meminfo")? * 1024;
        let lacks = |what: &str, has| format!("{what} has {has} bytes of memory, not {bytes}");
        Ok(match (largest < bytes, free < bytes) {
            (true, _) => Some(lacks("the GPU", largest)),
            (_, true) => Some(lacks("the host", free)),
            _ => None,
        })
    }

    /// The capabilities of `api` for `desc`; the inner error if the API is absent.
    fn capabilities(&self, api: Api, desc: &ResourceDesc) -> Result<Result<Capabilities, Error>> {
        Ok(match api {
            Api::OpenGl => match &self.contexts.gl {
                Ok(_) => Ok(self.gl()?.endpoint.capabilities(desc)?),
                Err(error) => Err(error.clone()),
            },
            Api::Cuda => match &self.contexts.cuda {
                Ok(gpu) => Ok(gpu.endpoint.capabilities(desc)?),
                Err(error) => Err(error.clone()),
            },
            _ => Ok(self.contexts.vulkan.endpoint.capabilities(desc)?),
        })
    }
}

impl Fixture for TestGpu {
    /// Opens the GPU that `INTEROP_DEVICE` names, else the first discrete one, else any.
    ///
    /// # Errors
    /// If Vulkan is absent, or a driver that is installed fails: only what is missing is a reason to
    /// skip.
    fn open() -> Result<Self> {
        let selector = match std::env::var("INTEROP_DEVICE") {
            Ok(device) => device.parse().context("INTEROP_DEVICE")?,
            Err(_) => GpuSelector::Any,
        };
        let contexts = GpuContexts::open(&selector, &Self::options())?;
        fail_unless_missing(&contexts.gl).context("OpenGL")?;
        fail_unless_missing(&contexts.cuda).context("CUDA")?;
        // From here on by UUID: a second opening must not find another GPU.
        let selector = GpuSelector::Uuid(contexts.vulkan.vulkan.identity().device);
        Ok(Self { contexts, selector })
    }

    fn about(&self) -> About {
        let identity = self.vulkan().vulkan.identity();
        let state = |api: &str, error: Option<&Error>| ApiState {
            api: api.to_owned(),
            absent: error.map(ToString::to_string),
        };
        About {
            device: Device {
                name: identity.name.clone(),
                uuid: identity.device.to_string(),
                driver: self.driver().to_owned(),
            },
            apis: vec![
                state("vulkan", None),
                state("gl", self.contexts.gl.as_ref().err()),
                state("cuda", self.contexts.cuda.as_ref().err()),
            ],
            validated: self.vulkan().vulkan.is_validated(),
            hardware: self.is_hardware(),
        }
    }

    fn driver(&self) -> &str {
        self.driver()
    }

    fn lacks(&self, need: Need) -> Result<Option<String>> {
        let desc = BufferDesc::storage(4096).into();
        let vulkan = self.contexts.vulkan.endpoint.capabilities(&desc)?;
        let reason = match need {
            Need::Gl => self.contexts.gl.as_ref().err().map(ToString::to_string),
            Need::Cuda => self.contexts.cuda.as_ref().err().map(ToString::to_string),
            Need::SameQueue => match self.contexts.vulkan.endpoint.supports_cuda_launch() {
                Ok(()) => self.contexts.cuda.as_ref().err().map(ToString::to_string),
                Err(missing) => Some(missing.to_string()),
            },
            Need::Hardware => {
                (!self.is_hardware()).then(|| format!("{} runs on the CPU", self.driver()))
            }
            Need::Validation => (!self.contexts.vulkan.vulkan.is_validated())
                .then(|| "the Khronos validation layer is not installed".to_owned()),
            Need::TimelineFeature => (!self.contexts.vulkan.endpoint.features().timeline_semaphore)
                .then(|| "the device has no timeline semaphores".to_owned()),
            Need::DmaBufExport => match vulkan.memory(MemoryHandleType::DmaBuf) {
                Ok(support) => support.export.clone().err(),
                Err(missing) => Some(missing),
            }
            .map(|missing| missing.to_string()),
            Need::Lavapipe => (!self.driver().contains("llvmpipe"))
                .then(|| format!("{} is not lavapipe", self.driver())),
            Need::Python => lacks_python(),
            Need::HostVisibleExport => self.lacks_host_visible_export()?,
            Need::HostVisibleImage(image) => self.lacks_host_visible_image(&image)?,
            Need::MemoryBytes(bytes) => self.lacks_memory(bytes)?,
            Need::Image(api, image) => self.lacks_image(api, &image)?,
            Need::Semaphore(api, kind) => {
                let importer = self.capabilities(api, &desc)?;
                let handle_type = SemaphoreHandleType::OpaqueFd;
                let pair = (|| {
                    vulkan.semaphore(kind, handle_type)?.export.clone()?;
                    importer?.semaphore(kind, handle_type)?.import.clone().map_err(Error::from)
                })();
                pair.err().map(|error: Error| error.to_string())
            }
        };
        Ok(reason)
    }

    fn free_finished(&self) {
        self.free_finished();
    }
}

fn lacks_python() -> Option<String> {
    let mut python = Command::new("python3");
    let run = python.arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    (!run.is_ok_and(|status| status.success())).then(|| "python3 is not installed".to_owned())
}

/// Fails if an API could not be opened for another reason than that something is missing.
fn fail_unless_missing<T>(opened: &Result<T, Error>) -> Result<()> {
    match opened {
        Err(error) if !matches!(error, Error::Missing(_)) => Err(error.clone().into()),
        _ => Ok(()),
    }
}

/// The library's reason why something is missing.
fn reason<T>(tried: Result<T, Error>) -> Result<Option<String>> {
    match tried {
        Ok(_) => Ok(None),
        Err(Error::Missing(missing)) => Ok(Some(missing.to_string())),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gpu_interop::error::{Invalid, Missing};

    #[test]
    fn only_what_is_missing_is_skipped() {
        fail_unless_missing(&Ok(())).unwrap();
        let missing = Missing::new(Api::Cuda, "a GPU", "CUDA");
        fail_unless_missing::<()>(&Err(missing.into())).unwrap();
        let refused = Invalid::new("selector", "is refused");
        fail_unless_missing::<()>(&Err(refused.into())).unwrap_err();
    }
}

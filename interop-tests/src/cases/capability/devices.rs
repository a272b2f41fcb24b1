//! Family A: an endpoint over a device that is described rightly, wrongly, or by integers.

use std::ffi::{CStr, c_void};

use anyhow::{Result, bail, ensure};
use gpu_interop::ash::vk::{self, Handle};
use gpu_interop::ash::{self, khr};
use gpu_interop::vulkan::{BufferOptions, DeviceInfo, Endpoint, Features, RawDeviceInfo};
use gpu_interop::{Api, Error};

use crate::cases::support::fds;
use crate::cases::support::views::{View, check_aliases};
use crate::harness::{Case, TestGpu};
use interop_gpu::vulkan::VulkanContext;

pub(in crate::cases) fn cases() -> Vec<Case> {
    vec![
        Case::new("vulkan/none/device/listed_but_not_enabled_is_named/4f", not_enabled),
        Case::new("vulkan/none/device/what_is_wanted_can_be_enabled/4g", wanted),
        Case::new("vulkan→vulkan/opaque_fd/buffer/from_raw_handles/7d", from_raw),
    ]
}

/// A device as an application creates it.
struct OwnDevice<'a> {
    gpu: &'a VulkanContext,
    raw: ash::Device,
}

impl<'a> OwnDevice<'a> {
    fn create(gpu: &'a VulkanContext, extensions: &[&CStr], features: Features) -> Result<Self> {
        let names: Vec<_> = extensions.iter().map(|name| name.as_ptr()).collect();
        let queue = vk::DeviceQueueCreateInfo::default()
            .queue_family_index(gpu.vulkan.queue_family())
            .queue_priorities(&[1.0]);
        let mut timeline = vk::PhysicalDeviceTimelineSemaphoreFeatures::default()
            .timeline_semaphore(features.timeline_semaphore);
        let mut address = vk::PhysicalDeviceBufferDeviceAddressFeatures::default()
            .buffer_device_address(features.buffer_device_address);
        let core = vk::PhysicalDeviceFeatures::default()
            .shader_storage_image_multisample(features.storage_image_multisample);
        let mut info = vk::DeviceCreateInfo::default()
            .queue_create_infos(std::slice::from_ref(&queue))
            .enabled_extension_names(&names)
            .enabled_features(&core);
        if features.timeline_semaphore {
            info = info.push_next(&mut timeline);
        }
        if features.buffer_device_address {
            info = info.push_next(&mut address);
        }
        let (instance, physical) = (gpu.vulkan.instance(), gpu.vulkan.physical_device());
        // SAFETY: the callers name extensions and features that the physical device supports.
        let raw = unsafe { instance.create_device(physical, &info, None) }?;
        Ok(Self { gpu, raw })
    }

    /// An endpoint over this device, described like that.
    fn endpoint(&self, extensions: &[&CStr], features: Features) -> Result<Endpoint, Error> {
        let vulkan = &self.gpu.vulkan;
        let (instance, physical) = (vulkan.instance(), vulkan.physical_device());
        let info = DeviceInfo::new(instance, physical, &self.raw, vulkan.api_version())
            .enabled_extensions(extensions)
            .features(features);
        // SAFETY: the handles belong together, and the callers drop the endpoint before this device. What
        // is described wrongly on purpose is refused.
        unsafe { Endpoint::new(&info, None) }
    }
}

impl Drop for OwnDevice<'_> {
    fn drop(&mut self) {
        // SAFETY: created here, never used by a queue, and what was made from it is dropped.
        unsafe { self.raw.destroy_device(None) };
    }
}

/// Calling a function that the device lacks would end the process.
fn not_enabled(test_gpu: &TestGpu) -> Result<()> {
    let device = OwnDevice::create(test_gpu.vulkan(), &[], Features::default())?;
    device.endpoint(&[], Features::default())?;
    for (name, function) in [
        (khr::external_memory_fd::NAME, "vkGetMemoryFdKHR"),
        (khr::external_semaphore_fd::NAME, "vkGetSemaphoreFdKHR"),
    ] {
        match device.endpoint(&[name], Features::default()) {
            Err(Error::Missing(missing)) => {
                ensure!(missing.api == Api::Vulkan && missing.help.is_some(), "{missing}");
                let text = missing.to_string();
                ensure!(text.contains(function), "{function} is not named: {text}");
                ensure!(text.contains(&*name.to_string_lossy()), "{name:?} is not named: {text}");
            }
            other => bail!("{name:?}: {other:?}"),
        }
    }
    Ok(())
}

/// A device with all that is wanted, under the validation layer if there is one; a buffer crosses to it.
fn wanted(test_gpu: &TestGpu) -> Result<()> {
    let gpu = test_gpu.vulkan();
    let (instance, physical) = (gpu.vulkan.instance(), gpu.vulkan.physical_device());
    let version = gpu.vulkan.api_version();
    // SAFETY: the physical device belongs to the instance.
    let (extensions, features) = unsafe {
        (
            Endpoint::wanted_extensions(instance, physical, version)?,
            Endpoint::wanted_features(instance, physical, version)?,
        )
    };
    ensure!(extensions.contains(&khr::external_memory_fd::NAME), "{extensions:?}");
    // The suite enables these if the GPU supports them.
    let enabled = gpu.endpoint.features();
    ensure!(features.timeline_semaphore == enabled.timeline_semaphore, "{features:?}");
    ensure!(features.buffer_device_address == enabled.buffer_device_address, "{features:?}");
    let device = OwnDevice::create(gpu, &extensions, features)?;
    let endpoint = device.endpoint(&extensions, features)?;
    ensure!(endpoint.features() == features, "{:?}", endpoint.features());
    let (_exported, payload) = fds::export(test_gpu)?;
    endpoint.import_buffer(payload)?;
    Ok(())
}

/// An endpoint over the suite's own device, made of the loader's address and integers.
fn from_raw(test_gpu: &TestGpu) -> Result<()> {
    let gpu = test_gpu.vulkan();
    let vulkan = &gpu.vulkan;
    let raw = RawDeviceInfo {
        get_instance_proc_addr: vulkan.entry().static_fn().get_instance_proc_addr as *const c_void,
        instance: vulkan.instance().handle().as_raw(),
        physical_device: vulkan.physical_device().as_raw(),
        device: vulkan.device().handle().as_raw(),
        api_version: vulkan.api_version(),
        enabled_extensions: vulkan.enabled_extensions(),
        features: vulkan.features(),
    };
    // SAFETY: the handles belong together, everything listed was enabled, and the owner keeps the device
    // alive.
    let endpoint = unsafe { Endpoint::from_raw(&raw, Some(std::sync::Arc::new(vulkan.clone()))) }?;
    ensure!(endpoint.identities() == gpu.endpoint.identities(), "{:?}", endpoint.identities());
    ensure!(endpoint.is_same_device(&gpu.endpoint), "another device");
    let exported = endpoint.create_buffer(&fds::desc(), BufferOptions::default())?;
    let second = test_gpu.second_device()?;
    let imported = second.endpoint.import_buffer(exported.export()?)?;
    let mut first = View::raw(gpu, exported.handle(), fds::BYTES);
    check_aliases(&mut first, &mut View::new(second, imported))
}

//! What the device can export and import, queried with the create info of the resource itself.

use std::ffi::CStr;

use ash::prelude::VkResult;
use ash::vk;

use super::conv::{self, VkResultExt};
use super::endpoint::Endpoint;
use crate::capabilities::{
    Capabilities, Dedicated, MEMORY_ORDER, MemorySupport, SemaphoreSupport, Support, each_semaphore,
};
use crate::desc::{BufferDesc, BufferUsage, Extent, ImageDesc, ImageUsage, ResourceDesc};
use crate::error::{Api, Missing, Result};
use crate::fd::{MemoryHandleType, SemaphoreHandleType};
use crate::payload::SemaphoreKind;

impl Endpoint {
    /// Returns what the device can do with `desc`, per handle type, and with semaphores.
    ///
    /// # Errors
    /// [`Invalid`](crate::error::Invalid) for an invalid `desc`. What the driver doesn't support is
    /// part of the result, not an error.
    ///
    /// # References
    /// `vkGetPhysicalDeviceExternalBufferProperties`, `vkGetPhysicalDeviceImageFormatProperties2`
    /// with `VkPhysicalDeviceExternalImageFormatInfo`,
    /// `vkGetPhysicalDeviceExternalSemaphoreProperties`.
    #[doc(alias = "vkGetPhysicalDeviceExternalBufferProperties")]
    #[doc(alias = "vkGetPhysicalDeviceImageFormatProperties2")]
    #[doc(alias = "vkGetPhysicalDeviceExternalSemaphoreProperties")]
    pub fn capabilities(&self, desc: &ResourceDesc) -> Result<Capabilities> {
        desc.validate()?;
        let memory = MEMORY_ORDER
            .into_iter()
            .map(|handle_type| match desc {
                ResourceDesc::Buffer(desc) => Ok(self.buffer_support(desc, handle_type)),
                ResourceDesc::Image(desc) => self.image_support(desc, handle_type),
            })
            .collect::<Result<_>>()?;
        let semaphores =
            each_semaphore(|kind, handle_type| self.semaphore_support(kind, handle_type));
        let identities = self.identities().to_vec();
        Ok(Capabilities { api: Api::Vulkan, identities, desc: *desc, memory, semaphores })
    }

    /// Returns whether CUDA kernels can be recorded into command buffers of this device, which
    /// needs no handoffs.
    ///
    /// This depends only on what was enabled; no driver is called. The method also exists without
    /// the cargo feature `nvx`, which adds the launches themselves.
    ///
    /// # Errors
    /// What is missing: the cargo feature, `VK_NVX_binary_import` or `bufferDeviceAddress`.
    pub fn supports_cuda_launch(&self) -> Support {
        let missing = |what: &'static str, help: &'static str| {
            Err(Missing::new(Api::Vulkan, what, "CUDA kernels in a Vulkan queue").help(help))
        };
        if !cfg!(feature = "nvx") {
            return missing("gpu-interop's cargo feature nvx", "build with it");
        }
        if !self.has_extension(ash::nvx::binary_import::NAME) {
            return missing(
                "VK_NVX_binary_import",
                "enable the device extension, which NVIDIA's driver has, and list it in \
                 DeviceInfo::enabled_extensions",
            );
        }
        if !self.features().buffer_device_address {
            return missing(
                "the feature bufferDeviceAddress of Vulkan 1.2",
                "enable it when the device is created and set it in DeviceInfo::features",
            );
        }
        Ok(())
    }

    /// Returns what the device can do with a buffer of `desc`, which is valid, as `handle_type`.
    pub(super) fn buffer_support(
        &self,
        desc: &BufferDesc,
        handle_type: MemoryHandleType,
    ) -> MemorySupport {
        if let Err(missing) = self.has_memory_extension(handle_type) {
            return unsupported(handle_type, &missing);
        }
        let addressable = desc.usage.contains(BufferUsage::DEVICE_ADDRESS);
        if addressable && !self.features().buffer_device_address {
            let what = "the feature bufferDeviceAddress";
            let missing = Missing::new(Api::Vulkan, what, "BufferUsage::DEVICE_ADDRESS")
                .help("enable it when the device is created and set it in DeviceInfo::features");
            return unsupported(handle_type, &missing);
        }
        let (size, limit) = (desc.size, self.max_buffer_size());
        if size > limit {
            let what = format!("buffers of {size} bytes (at most {limit})");
            return unsupported(handle_type, &lacks(&what));
        }
        let info = vk::PhysicalDeviceExternalBufferInfo::default()
            .usage(conv::buffer_usage(desc))
            .handle_type(conv::memory_handle_type(handle_type));
        let mut properties = vk::ExternalBufferProperties::default();
        // SAFETY: the instance and physical device are valid (Endpoint::new), and Vulkan 1.1 has
        // the call.
        unsafe {
            self.instance().get_physical_device_external_buffer_properties(
                self.physical_device(),
                &info,
                &mut properties,
            );
        }
        let what = format!("a buffer used as {}, shared as {handle_type}", desc.usage);
        memory_support(handle_type, properties.external_memory_properties, &what)
    }

    /// Returns what the device can do with an image of `desc`, which is valid, as `handle_type`.
    pub(super) fn image_support(
        &self,
        desc: &ImageDesc,
        handle_type: MemoryHandleType,
    ) -> Result<MemorySupport> {
        if let Err(missing) = self.has_memory_extension(handle_type) {
            return Ok(unsupported(handle_type, &missing));
        }
        let stored = desc.samples > 1 && desc.usage.contains(ImageUsage::STORAGE);
        if stored && !self.features().storage_image_multisample {
            // VUID-VkImageCreateInfo-usage-00968. The physical device may support it all the same.
            let what = "the feature shaderStorageImageMultisample";
            let needed_for =
                format!("{} images of {} samples as STORAGE", desc.format, desc.samples);
            let missing = Missing::new(Api::Vulkan, what, needed_for)
                .help("enable it when the device is created and set it in DeviceInfo::features");
            return Ok(unsupported(handle_type, &missing));
        }
        if !desc.view_formats.as_slice().is_empty() && !self.has_format_list() {
            let missing =
                Missing::new(Api::Vulkan, "VK_KHR_image_format_list", "ImageDesc::view_formats")
                    .help("enable the device extension, or use Vulkan 1.2");
            return Ok(unsupported(handle_type, &missing));
        }
        let what = |usage: ImageUsage| {
            let ImageDesc { format, kind, tiling, .. } = desc;
            format!(
                "{format} images, {kind:?}, {tiling:?}, used as {usage}, shared as {handle_type}"
            )
        };
        let (limits, found) = match self.image_properties(desc, handle_type) {
            Err(vk::Result::ERROR_FORMAT_NOT_SUPPORTED) => {
                // Name the usages that are the reason, unless it is all of them or their
                // combination.
                let fails = |usage| {
                    self.image_properties(&ImageDesc { usage, ..*desc }, handle_type).is_err()
                };
                let reason: ImageUsage = desc.usage.iter().filter(|usage| fails(*usage)).collect();
                let named = if reason.is_empty() { desc.usage } else { reason };
                return Ok(unsupported(handle_type, &lacks(&what(named))));
            }
            other => other.context("vkGetPhysicalDeviceImageFormatProperties2")?,
        };
        let what = what(desc.usage);
        if let Some(limit) = over_limit(desc, &limits) {
            return Ok(unsupported(handle_type, &lacks(&format!("{what}, {limit}"))));
        }
        Ok(memory_support(handle_type, found, &what))
    }

    /// Queries the limits of an image of `desc`, and how its memory can be shared as `handle_type`.
    fn image_properties(
        &self,
        desc: &ImageDesc,
        handle_type: MemoryHandleType,
    ) -> VkResult<(vk::ImageFormatProperties, vk::ExternalMemoryProperties)> {
        let mut external = vk::PhysicalDeviceExternalImageFormatInfo::default()
            .handle_type(conv::memory_handle_type(handle_type));
        let views = conv::view_formats(desc);
        let mut list = vk::ImageFormatListCreateInfo::default().view_formats(&views);
        let mut info =
            conv::image_format_info(&conv::image_create_info(desc)).push_next(&mut external);
        if !views.is_empty() {
            info = info.push_next(&mut list);
        }
        let mut shared = vk::ExternalImageFormatProperties::default();
        let mut found = vk::ImageFormatProperties2::default().push_next(&mut shared);
        // SAFETY: the instance and physical device are valid (Endpoint::new), Vulkan 1.1 has the
        // call, and the callers checked that the extensions of the chained structures are enabled.
        unsafe {
            self.instance().get_physical_device_image_format_properties2(
                self.physical_device(),
                &info,
                &mut found,
            )
        }?;
        Ok((found.image_format_properties, shared.external_memory_properties))
    }

    /// Checks that the extensions for memory as `handle_type` are enabled.
    pub(super) fn has_memory_extension(&self, handle_type: MemoryHandleType) -> Support {
        let needed: &[&CStr] = match handle_type {
            MemoryHandleType::OpaqueFd => &[ash::khr::external_memory_fd::NAME],
            MemoryHandleType::DmaBuf => {
                &[ash::ext::external_memory_dma_buf::NAME, ash::khr::external_memory_fd::NAME]
            }
        };
        match needed.iter().find(|name| !self.has_extension(name)) {
            None => Ok(()),
            Some(name) => {
                let what = name.to_string_lossy().into_owned();
                Err(Missing::new(Api::Vulkan, what, format!("memory as {handle_type}"))
                    .help("enable the device extension if the driver has it"))
            }
        }
    }

    /// Returns what the device can do with semaphores of `kind` as `handle_type`.
    pub(super) fn semaphore_support(
        &self,
        kind: SemaphoreKind,
        handle_type: SemaphoreHandleType,
    ) -> SemaphoreSupport {
        let refuse = |missing: Missing| {
            let missing =
                Missing { needed_for: format!("a {kind} as {handle_type}").into(), ..missing };
            SemaphoreSupport {
                kind,
                handle_type,
                export: Err(missing.clone()),
                import: Err(missing),
            }
        };
        if let Err(missing) = self.semaphore_fd() {
            return refuse(missing);
        }
        if kind == SemaphoreKind::Timeline {
            if let Err(missing) = self.timeline() {
                return refuse(missing);
            }
            if handle_type == SemaphoreHandleType::SyncFd {
                // Regardless of what a driver reports:
                // VUID-VkSemaphoreGetFdInfoKHR-handleType-03253 and
                // VUID-VkImportSemaphoreFdInfoKHR-flags-03323.
                let what = "timeline semaphores as sync fd";
                return refuse(
                    Missing::new(Api::Vulkan, what, "").help("share it as an opaque fd"),
                );
            }
        }
        let mut ty =
            vk::SemaphoreTypeCreateInfo::default().semaphore_type(conv::semaphore_type(kind));
        let mut info = vk::PhysicalDeviceExternalSemaphoreInfo::default()
            .handle_type(conv::semaphore_handle_type(handle_type));
        if kind == SemaphoreKind::Timeline {
            info = info.push_next(&mut ty);
        }
        let mut properties = vk::ExternalSemaphoreProperties::default();
        // SAFETY: the instance and physical device are valid (Endpoint::new), Vulkan 1.1 has the
        // call, and the type structure is chained only if timeline semaphores are enabled.
        unsafe {
            self.instance().get_physical_device_external_semaphore_properties(
                self.physical_device(),
                &info,
                &mut properties,
            );
        }
        let found = properties.external_semaphore_features;
        let support = |bit, verb: &str| -> Support {
            if found.contains(bit) {
                return Ok(());
            }
            let what = format!("{verb} of {kind}s as {handle_type}");
            Err(Missing::new(Api::Vulkan, what, "a handoff on the GPU").help(
                "VK_KHR_external_semaphore_fd guarantees no kind or handle type: use another kind of \
                 semaphore, or a host wait",
            ))
        };
        SemaphoreSupport {
            kind,
            handle_type,
            export: support(vk::ExternalSemaphoreFeatureFlags::EXPORTABLE, "export"),
            import: support(vk::ExternalSemaphoreFeatureFlags::IMPORTABLE, "import"),
        }
    }
}

fn lacks(what: &str) -> Missing {
    Missing::new(Api::Vulkan, what.to_owned(), "a shared resource")
}

fn unsupported(handle_type: MemoryHandleType, missing: &Missing) -> MemorySupport {
    MemorySupport {
        handle_type,
        export: Err(missing.clone()),
        import: Err(missing.clone()),
        dedicated: Dedicated::NotNeeded,
    }
}

fn memory_support(
    handle_type: MemoryHandleType,
    found: vk::ExternalMemoryProperties,
    what: &str,
) -> MemorySupport {
    let features = found.external_memory_features;
    let support = |bit, verb: &str| -> Support {
        if features.contains(bit) { Ok(()) } else { Err(lacks(&format!("{verb} of {what}"))) }
    };
    let dedicated_only = features.contains(vk::ExternalMemoryFeatureFlags::DEDICATED_ONLY);
    MemorySupport {
        handle_type,
        export: support(vk::ExternalMemoryFeatureFlags::EXPORTABLE, "export"),
        import: support(vk::ExternalMemoryFeatureFlags::IMPORTABLE, "import"),
        dedicated: if dedicated_only { Dedicated::Required } else { Dedicated::NotNeeded },
    }
}

/// Returns the limit of the format that `desc` exceeds, if any.
fn over_limit(desc: &ImageDesc, limits: &vk::ImageFormatProperties) -> Option<String> {
    let Extent { width, height, depth } = desc.extent;
    let max = limits.max_extent;
    if width > max.width || height > max.height || depth > max.depth {
        return Some(format!(
            "of {width}×{height}×{depth} texels (at most {}×{}×{})",
            max.width, max.height, max.depth
        ));
    }
    if desc.levels > limits.max_mip_levels {
        return Some(format!("of {} levels (at most {})", desc.levels, limits.max_mip_levels));
    }
    if desc.layers > limits.max_array_layers {
        return Some(format!("of {} layers (at most {})", desc.layers, limits.max_array_layers));
    }
    let samples = vk::SampleCountFlags::from_raw(desc.samples);
    (!limits.sample_counts.contains(samples)).then(|| format!("of {} samples", desc.samples))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capabilities::{SyncMethod, plan_handoff};
    use crate::vulkan::{Features, fake};

    /// The fake driver has sync fds only, as Mesa 26's lavapipe.
    #[test]
    fn a_driver_with_one_handle_type_lacks_the_others_by_name() {
        let features = Features::default().timeline_semaphore(true);
        let with = [ash::khr::external_semaphore_fd::NAME];
        let supported = |extensions: &[&CStr]| {
            let endpoint = fake::open(1, features, extensions).unwrap();
            let semaphores = each_semaphore(|kind, ty| endpoint.semaphore_support(kind, ty));
            let desc = BufferDesc::storage(64).into();
            let identities = endpoint.identities().to_vec();
            Capabilities { api: Api::Vulkan, identities, desc, memory: Vec::new(), semaphores }
        };
        let (bare, found) = (supported(&[]), supported(&with));
        let (binary, sync_fd) = (SemaphoreKind::Binary, SemaphoreHandleType::SyncFd);
        found.semaphore(binary, sync_fd).unwrap().export.as_ref().unwrap();
        // Although the driver reports it: the specification forbids it.
        let timeline = found.semaphore(SemaphoreKind::Timeline, sync_fd).unwrap();
        assert!(timeline.export.is_err() && timeline.import.is_err(), "{timeline:?}");
        for capabilities in [&bare, &found] {
            let refused = capabilities.semaphores.iter().filter(|entry| entry.export.is_err());
            for entry in refused {
                let missing = entry.export.as_ref().unwrap_err();
                let text = missing.to_string();
                assert!(text.contains(&entry.handle_type.to_string()), "{text}");
                assert!(missing.help.is_some(), "{text}");
            }
            let plan = plan_handoff(capabilities, capabilities, capabilities, None).unwrap();
            assert_eq!(plan.method, SyncMethod::HostWait);
            assert!(plan.to_string().contains("opaque fd"), "{plan}");
        }
    }

    #[test]
    fn memory_is_supported_as_the_driver_reports_it() {
        use vk::ExternalMemoryFeatureFlags as Flags;
        for (features, export, import, dedicated) in [
            (Flags::empty(), false, false, Dedicated::NotNeeded),
            (Flags::EXPORTABLE, true, false, Dedicated::NotNeeded),
            (Flags::IMPORTABLE | Flags::DEDICATED_ONLY, false, true, Dedicated::Required),
            (Flags::EXPORTABLE | Flags::IMPORTABLE, true, true, Dedicated::NotNeeded),
        ] {
            let external_memory_features = features;
            let found =
                vk::ExternalMemoryProperties { external_memory_features, ..Default::default() };
            let support = memory_support(MemoryHandleType::OpaqueFd, found, "a buffer");
            assert_eq!((support.export.is_ok(), support.import.is_ok()), (export, import));
            assert_eq!(support.dedicated, dedicated);
        }
    }

    #[test]
    fn memory_needs_the_extension_of_its_handle_type() {
        let names = [ash::khr::external_memory_fd::NAME, ash::ext::external_memory_dma_buf::NAME];
        let [memory_fd, dma_buf] = names;
        let missing = |extensions: &[&CStr], handle_type| {
            let endpoint = fake::open(1, Features::default(), extensions).unwrap();
            endpoint.has_memory_extension(handle_type).err().map(|missing| missing.what)
        };
        let (opaque, dma) = (MemoryHandleType::OpaqueFd, MemoryHandleType::DmaBuf);
        assert_eq!(missing(&names, opaque), None);
        assert_eq!(missing(&names, dma), None);
        assert_eq!(missing(&[memory_fd], opaque), None);
        assert_eq!(missing(&[memory_fd], dma).unwrap(), "VK_EXT_external_memory_dma_buf");
        assert_eq!(missing(&[dma_buf], dma).unwrap(), "VK_KHR_external_memory_fd");
        assert_eq!(missing(&[], opaque).unwrap(), "VK_KHR_external_memory_fd");
    }
}

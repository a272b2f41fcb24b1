//! The errors of Vulkan and EGL as the crate's error.

use std::fmt::Display;

use ash::vk;
use glutin::error::ErrorKind;

use crate::error::{Api, DriverError, Error, Missing};
use crate::identity::{Identity, Uuid};
use crate::vulkan::driver_error;

/// The purpose of the Vulkan loader and a driver in errors.
pub(super) const OPEN_VULKAN: &str = "opening a Vulkan device";

/// The purpose of EGL in errors.
pub(super) const OPEN_GL: &str = "an OpenGL context without a display";

/// Describes a failed Vulkan call. If no instance can be created for lack of a driver, the driver
/// is missing.
pub(super) fn vulkan(call: &'static str) -> impl Fn(vk::Result) -> Error {
    move |result| {
        if result == vk::Result::ERROR_INCOMPATIBLE_DRIVER && call == "vkCreateInstance" {
            // The loader's answer if it finds no driver at all.
            return Missing::new(Api::Vulkan, "a Vulkan driver", OPEN_VULKAN)
                .help(
                    "the loader found no usable one (VK_ERROR_INCOMPATIBLE_DRIVER); install one \
                     (scripts/drivers.sh does it), or name its manifest in VK_DRIVER_FILES",
                )
                .into();
        }
        driver_error(call, result)
    }
}

/// Describes a failed EGL call, which needs the extension or object `needs`.
pub(super) fn egl(
    call: &'static str,
    needs: &'static str,
) -> impl Fn(glutin::error::Error) -> Error {
    move |error| match error.error_kind() {
        ErrorKind::NotFound => Missing::new(Api::Egl, "libEGL.so.1", OPEN_GL)
            .help("install libglvnd (Debian: libegl1) and a driver; scripts/drivers.sh does it")
            .into(),
        ErrorKind::NotSupported(reason) => {
            Missing::new(Api::Egl, needs, OPEN_GL).help(format!("{INSTALL_EGL} ({reason})")).into()
        }
        kind => {
            let code = error.raw_code().unwrap_or_default();
            DriverError::new(Api::Egl, call, code, kind.to_string()).into()
        }
    }
}

const INSTALL_EGL: &str =
    "install an EGL driver that has it (Debian: libegl-mesa0); scripts/drivers.sh does it";

/// Reports that EGL lacks `what`.
pub(super) fn missing_in_egl(what: &'static str) -> Error {
    Missing::new(Api::Egl, what, OPEN_GL).help(INSTALL_EGL).into()
}

/// Reports that `api` has no GPU with this UUID; `seen` are the GPUs that it has.
pub(super) fn no_such_gpu<'a>(
    api: Api,
    uuid: Uuid,
    seen: impl Iterator<Item = &'a Identity>,
) -> Missing {
    let seen: Vec<_> = seen.map(|gpu| format!("{} ({})", gpu.device, gpu.name)).collect();
    let help = match seen.as_slice() {
        [] => format!("install a driver: {api} sees no GPU"),
        gpus => format!("select a GPU that {api} sees: {}", gpus.join(", ")),
    };
    Missing::new(api, format!("GPU {uuid}"), "opening it by its UUID").help(help)
}

/// Reports that the Vulkan loader could not be loaded, for the dynamic linker's `reason`.
pub(super) fn no_vulkan_loader(reason: impl Display) -> Error {
    Missing::new(Api::Vulkan, "libvulkan.so.1", OPEN_VULKAN)
        .help(format!(
            "install the Vulkan loader (Debian: libvulkan1) and a driver; scripts/drivers.sh does \
             it ({reason})"
        ))
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_uuid_is_reported_with_those_that_exist() {
        let seen =
            Identity { device: Uuid::from_bytes([1; 16]), driver: None, name: "GPU 1".into() };
        let uuid = Uuid::from_bytes([2; 16]);
        let text = no_such_gpu(Api::Vulkan, uuid, [&seen].into_iter()).to_string();
        for part in ["Vulkan lacks GPU 02020202-", "sees: 01010101-", "(GPU 1)"] {
            assert!(text.contains(part), "{text}");
        }
        let none = no_such_gpu(Api::Cuda, uuid, [].into_iter()).to_string();
        assert!(none.contains("sees no GPU"), "{none}");
    }

    #[test]
    fn a_missing_driver_is_reported_with_what_would_help() {
        let error = vulkan("vkCreateInstance")(vk::Result::ERROR_INCOMPATIBLE_DRIVER);
        assert!(matches!(error, Error::Missing(_)), "{error:?}");
        assert!(error.to_string().contains("VK_DRIVER_FILES"), "{error}");
        let other = vulkan("vkCreateInstance")(vk::Result::ERROR_INITIALIZATION_FAILED);
        assert!(matches!(other, Error::Driver(_)), "{other:?}");
    }

    #[test]
    fn an_absent_egl_is_missing_and_a_refusal_is_the_drivers() {
        let call = egl("eglQueryDevicesEXT", "EGL_EXT_device_enumeration");
        for (kind, what) in [
            (ErrorKind::NotFound, "libEGL.so.1"),
            (ErrorKind::NotSupported("glutin's reason"), "EGL_EXT_device_enumeration"),
        ] {
            let missing = call(kind.into());
            assert!(
                matches!(missing, Error::Missing(ref m) if m.what == what && m.help.is_some()),
                "{missing:?}"
            );
        }
        let refused = egl("eglCreateContext", "OpenGL")(ErrorKind::BadMatch.into());
        assert!(matches!(refused, Error::Driver(ref d) if d.api == Api::Egl), "{refused:?}");
    }
}

//! The errors of Vulkan and EGL as the crate's error.

use std::fmt::Display;

use ash::vk;
use glutin::error::ErrorKind;

use crate::error::{Api, DriverError, Error, Missing};
use crate::identity::{Identity, Uuid};

/// A failed Vulkan call; where no instance can be made for want of a driver, that is missing.
pub(super) fn vulkan(call: &'static str) -> impl Fn(vk::Result) -> Error {
    move |result| {
        if result == vk::Result::ERROR_INCOMPATIBLE_DRIVER && call == "vkCreateInstance" {
            // What the loader says when it finds no driver at all.
            return Missing::new(Api::Vulkan, "a Vulkan driver", OPEN_VULKAN)
                .help(
                    "the loader found no usable one (VK_ERROR_INCOMPATIBLE_DRIVER); install one \
                     (scripts/drivers.sh does it), or name its manifest in VK_DRIVER_FILES",
                )
                .into();
        }
        let code = i64::from(result.as_raw());
        let name = format!("VK_{result:?}").into();
        DriverError { api: Api::Vulkan, call, code, name }.into()
    }
}

/// A failed EGL call; where EGL can't do it at all, it is because it lacks `needs`.
pub(super) fn egl(
    call: &'static str,
    needs: &'static str,
) -> impl Fn(glutin::error::Error) -> Error {
    move |error| match error.error_kind() {
        ErrorKind::NotFound => Missing::new(Api::Egl, "libEGL.so.1", NEED_GL)
            .help("install libglvnd (Debian: libegl1) and a driver; scripts/drivers.sh does it")
            .into(),
        ErrorKind::NotSupported(why) => Missing::new(Api::Egl, needs, NEED_GL)
            .help(format!("install an EGL driver that has it; scripts/drivers.sh does it ({why})"))
            .into(),
        kind => {
            let code = error.raw_code().unwrap_or_default();
            DriverError { api: Api::Egl, call, code, name: kind.to_string().into() }.into()
        }
    }
}

/// EGL is there and lacks `what`.
pub(super) fn missing_in_egl(what: &'static str) -> Error {
    Missing::new(Api::Egl, what, NEED_GL).into()
}

/// What the Vulkan loader and a driver are needed for.
const OPEN_VULKAN: &str = "opening a Vulkan device";

/// What EGL is needed for.
pub(super) const NEED_GL: &str = "an OpenGL context without a display";

/// `api` has no GPU with the UUID `wanted`; `seen` are those it has.
pub(super) fn no_such_gpu<'a>(
    api: Api,
    wanted: Uuid,
    seen: impl Iterator<Item = &'a Identity>,
) -> Missing {
    let seen: Vec<_> = seen.map(|gpu| format!("{} ({})", gpu.device, gpu.name)).collect();
    let help = match seen.as_slice() {
        [] => format!("{api} sees no GPU"),
        gpus => format!("{api} sees {}", gpus.join(", ")),
    };
    Missing::new(api, format!("GPU {wanted}"), "opening it by its UUID").help(help)
}

/// The Vulkan loader could not be loaded; `reason` is what the dynamic linker says.
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
    fn an_unknown_uuid_is_told_with_those_that_exist() {
        let seen =
            Identity { device: Uuid::from_bytes([1; 16]), driver: None, name: "GPU 1".into() };
        let wanted = Uuid::from_bytes([2; 16]);
        let text = no_such_gpu(Api::Vulkan, wanted, [&seen].into_iter()).to_string();
        for part in ["Vulkan lacks GPU 02020202-", "sees 01010101-", "(GPU 1)"] {
            assert!(text.contains(part), "{text}");
        }
        let none = no_such_gpu(Api::Cuda, wanted, [].into_iter()).to_string();
        assert!(none.contains("sees no GPU"), "{none}");
    }

    #[test]
    fn a_driverless_loader_is_told_what_would_help() {
        let error = vulkan("vkCreateInstance")(vk::Result::ERROR_INCOMPATIBLE_DRIVER);
        assert!(matches!(error, Error::Missing(_)), "{error:?}");
        assert!(error.to_string().contains("VK_DRIVER_FILES"), "{error}");
        let other = vulkan("vkCreateInstance")(vk::Result::ERROR_INITIALIZATION_FAILED);
        assert!(matches!(other, Error::Driver(_)), "{other:?}");
    }

    #[test]
    fn no_egl_is_missing_and_a_refusal_is_the_drivers() {
        let call = egl("eglQueryDevicesEXT", "EGL_EXT_device_enumeration");
        for (kind, what) in [
            (ErrorKind::NotFound, "libEGL.so.1"),
            (ErrorKind::NotSupported("in glutin's words"), "EGL_EXT_device_enumeration"),
        ] {
            let missing = call(kind.into());
            assert!(matches!(missing, Error::Missing(ref m) if m.what == what), "{missing:?}");
        }
        let refused = egl("eglCreateContext", "OpenGL")(ErrorKind::BadMatch.into());
        assert!(matches!(refused, Error::Driver(ref d) if d.api == Api::Egl), "{refused:?}");
    }
}

//! `VkResult` to the crate's error.

use ash::vk;

use crate::error::{Api, DriverError, Error, Result};

pub(crate) trait VkResultExt<T> {
    /// Names the call that returned this result.
    fn of(self, call: &'static str) -> Result<T>;
}

impl<T> VkResultExt<T> for ash::prelude::VkResult<T> {
    fn of(self, call: &'static str) -> Result<T> {
        self.map_err(|result| driver_error(call, result))
    }
}

pub(crate) fn driver_error(call: &'static str, result: vk::Result) -> Error {
    let code = i64::from(result.as_raw());
    // ash prints "ERROR_OUT_OF_HOST_MEMORY"; the field's name has a VK_ before it.
    let name = format!("VK_{result:?}").into();
    DriverError { api: Api::Vulkan, call, code, name }.into()
}

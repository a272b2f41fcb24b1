//! Messages of the validation layer, the loader and the drivers.

use std::ffi::{CStr, c_void};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use ash::vk;

/// The severity of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Severity {
    /// Diagnostics.
    Verbose,
    /// Information.
    Info,
    /// A likely mistake.
    Warning,
    /// A violated rule of the specification, or a failure of a driver.
    Error,
}

/// The subject of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum MessageKind {
    /// The state of the loader, a layer or a driver.
    General,
    /// Vulkan is used in violation of the specification.
    Validation,
    /// Vulkan is used inefficiently.
    Performance,
}

/// One message of `VK_EXT_debug_utils`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Message {
    /// Its severity.
    pub severity: Severity,
    /// Its subject.
    pub kind: MessageKind,
    /// Its name: the VUID of a violated rule.
    pub id: Option<String>,
    /// Its text.
    pub text: String,
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The validation layer repeats the name in the text.
        match &self.id {
            Some(id) if !self.text.contains(id.as_str()) => write!(f, "{id}: {}", self.text),
            _ => f.write_str(&self.text),
        }
    }
}

/// Called with each warning and error, on the thread whose Vulkan call caused it.
///
/// It must neither call Vulkan, which the specification forbids, nor wait for a lock that another
/// thread holds around Vulkan calls.
pub type MessageHandler = Arc<dyn Fn(Message) + Send + Sync>;

/// Newer validation layers (1.4.309, not yet 1.3.239) warn of this for each device that ash 0.38
/// creates: its table of device functions includes
/// `vkGetPhysicalDeviceVideoEncodeQualityLevelPropertiesKHR`, which is an instance function. An
/// application can't prevent the warning.
const ASH_LOADS_AN_INSTANCE_FUNCTION: &str = "WARNING-vkGetDeviceProcAddr-device";

/// The receiver of messages. Vulkan keeps its address, so it stays in its box until the instance is
/// destroyed.
pub(super) struct DebugMessenger {
    handler: Option<MessageHandler>,
}

impl DebugMessenger {
    pub(super) fn new(handler: Option<MessageHandler>) -> Box<Self> {
        Box::new(Self { handler })
    }

    /// Returns the info that creates a messenger for this receiver.
    pub(super) fn create_info(&self) -> vk::DebugUtilsMessengerCreateInfoEXT<'static> {
        use vk::DebugUtilsMessageSeverityFlagsEXT as Severities;
        use vk::DebugUtilsMessageTypeFlagsEXT as Types;
        vk::DebugUtilsMessengerCreateInfoEXT::default()
            .message_severity(Severities::ERROR | Severities::WARNING)
            .message_type(Types::GENERAL | Types::VALIDATION | Types::PERFORMANCE)
            .pfn_user_callback(Some(callback))
            .user_data(std::ptr::from_ref(self).cast_mut().cast())
    }

    fn receive(&self, message: Message) {
        if message.id.as_deref() == Some(ASH_LOADS_AN_INSTANCE_FUNCTION) {
            return;
        }
        match &self.handler {
            Some(handler) => {
                // A panic must not unwind into the layer, which is C++. The panic hook reports it.
                if catch_unwind(AssertUnwindSafe(|| handler(message))).is_err() {
                    tracing::error!("the handler of Vulkan messages panicked");
                }
            }
            None if message.severity >= Severity::Error => tracing::error!("{message}"),
            None => tracing::warn!("{message}"),
        }
    }
}

/// `PFN_vkDebugUtilsMessengerCallbackEXT`.
///
/// # Safety
/// Vulkan is the only caller, with valid data and a [`DebugMessenger`] as `user`.
unsafe extern "system" fn callback(
    severity: vk::DebugUtilsMessageSeverityFlagsEXT,
    types: vk::DebugUtilsMessageTypeFlagsEXT,
    data: *const vk::DebugUtilsMessengerCallbackDataEXT<'_>,
    user: *mut c_void,
) -> vk::Bool32 {
    // SAFETY: `user` is the pointer of `create_info`, to a receiver that outlives the instance; it
    // is only read, and `Sync`.
    let messenger = unsafe { user.cast::<DebugMessenger>().as_ref() };
    // SAFETY: the specification guarantees valid callback data during the call.
    let data = unsafe { data.as_ref() };
    if let (Some(messenger), Some(data)) = (messenger, data) {
        // SAFETY: both strings are null or null-terminated and live as long as `data`
        // (VUID-VkDebugUtilsMessengerCallbackDataEXT-pMessage-parameter,
        // -pMessageIdName-parameter).
        let (id, text) = unsafe { (data.message_id_name_as_c_str(), data.message_as_c_str()) };
        let owned = |text: &CStr| text.to_string_lossy().into_owned();
        messenger.receive(Message {
            severity: severity_of(severity),
            kind: kind_of(types),
            id: id.map(owned),
            text: text.map(owned).unwrap_or_default(),
        });
    }
    // VK_TRUE would make the call fail that caused the message.
    vk::FALSE
}

fn severity_of(severity: vk::DebugUtilsMessageSeverityFlagsEXT) -> Severity {
    use vk::DebugUtilsMessageSeverityFlagsEXT as Severities;
    if severity.contains(Severities::ERROR) {
        Severity::Error
    } else if severity.contains(Severities::WARNING) {
        Severity::Warning
    } else if severity.contains(Severities::INFO) {
        Severity::Info
    } else {
        Severity::Verbose
    }
}

fn kind_of(types: vk::DebugUtilsMessageTypeFlagsEXT) -> MessageKind {
    if types.contains(vk::DebugUtilsMessageTypeFlagsEXT::VALIDATION) {
        MessageKind::Validation
    } else if types.contains(vk::DebugUtilsMessageTypeFlagsEXT::PERFORMANCE) {
        MessageKind::Performance
    } else {
        MessageKind::General
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    fn send(messenger: &DebugMessenger, id: Option<&CStr>, text: &CStr) {
        let mut data = vk::DebugUtilsMessengerCallbackDataEXT::default().message(text);
        data.p_message_id_name = id.map_or(std::ptr::null(), CStr::as_ptr);
        let info = messenger.create_info();
        let severity = vk::DebugUtilsMessageSeverityFlagsEXT::ERROR;
        let types = vk::DebugUtilsMessageTypeFlagsEXT::VALIDATION;
        // SAFETY: the data and the messenger outlive the call; the strings are null-terminated.
        let answer = unsafe { callback(severity, types, &data, info.p_user_data) };
        assert_eq!(answer, vk::FALSE);
    }

    #[test]
    fn a_message_arrives_with_its_name_and_severity() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let into = seen.clone();
        let messenger =
            DebugMessenger::new(Some(Arc::new(move |message| into.lock().unwrap().push(message))));
        send(&messenger, Some(c"VUID-1"), c"wrong");
        send(&messenger, None, c"VUID-1 again");
        let seen = seen.lock().unwrap();
        assert_eq!(seen[0].id.as_deref(), Some("VUID-1"));
        assert_eq!((seen[0].severity, seen[0].kind), (Severity::Error, MessageKind::Validation));
        assert_eq!(seen[0].to_string(), "VUID-1: wrong");
        assert_eq!((seen[1].id.as_ref(), seen[1].to_string().as_str()), (None, "VUID-1 again"));
    }

    #[test]
    fn a_panic_does_not_leave_the_handler() {
        let messenger = DebugMessenger::new(Some(Arc::new(|_| panic!("on purpose"))));
        send(&messenger, None, c"text");
    }
}

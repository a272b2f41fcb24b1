//! The identity of a GPU and its driver, and the check that two endpoints share them.
//!
//! An opaque fd is valid only with the driver that made it and on the GPU that its memory is on.
//! Every API reports a device UUID and, except CUDA, a driver UUID. They are the same 16 bytes in
//! all APIs (`VkPhysicalDeviceIDProperties`, `GL_DEVICE_UUID_EXT`, `cuDeviceGetUuid`).

#![forbid(unsafe_code)]

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Invalid, Mismatch, Result};

/// A 16-byte UUID of a device or a driver.
///
/// Prints and parses as `6d657361-3232-2e33-2e36-000000000000`. When parsing, the dashes are
/// optional, and the prefix `GPU-` of `nvidia-smi -L` is accepted.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(into = "String", try_from = "String"))]
pub struct Uuid([u8; 16]);

impl Uuid {
    /// Returns the UUID with the 16 bytes that a driver reported.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Whether this is the device UUID of Mesa's lavapipe and llvmpipe: `mesa` and the version, as
    /// in `mesa22.3.6`.
    fn is_mesas_version(&self) -> bool {
        self.0.starts_with(b"mesa")
    }

    /// Returns the 16 bytes.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, byte) in self.0.iter().enumerate() {
            if matches!(i, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Uuid {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let refuse = || {
            Invalid::new("UUID", format!("'{text}' is not a UUID"))
                .help("pass 32 hexadecimal digits, as in 6d657361-3232-2e33-2e36-000000000000")
        };
        let digits = text.strip_prefix("GPU-").unwrap_or(text);
        let mut bytes = [0u8; 16];
        let mut count = 0;
        for digit in digits.chars().filter(|&c| c != '-') {
            let value = digit.to_digit(16).ok_or_else(refuse)?;
            if count == 32 {
                return Err(refuse().into());
            }
            // Two digits per byte, the high one first; a digit is below 16 and fits.
            bytes[count / 2] = (bytes[count / 2] << 4) | value as u8;
            count += 1;
        }
        if count != 32 {
            return Err(refuse().into());
        }
        Ok(Self(bytes))
    }
}

#[cfg(feature = "serde")]
impl From<Uuid> for String {
    fn from(uuid: Uuid) -> Self {
        uuid.to_string()
    }
}

#[cfg(feature = "serde")]
impl TryFrom<String> for Uuid {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

/// One GPU as reported by one API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The device UUID: the same in every API.
    pub device: Uuid,
    /// The driver UUID; `None` if the API does not report one (CUDA).
    pub driver: Option<Uuid>,
    /// The device's name, for display only: the APIs may name the same GPU differently.
    pub name: String,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.device)
    }
}

impl Identity {
    /// Checks that a payload of `self` can be imported by an endpoint with the identities
    /// `importer`. All 16 bytes of the device UUID must match and, if both APIs report one, all 16
    /// bytes of the driver UUID.
    ///
    /// An OpenGL context may span several GPUs, so an importer has a list; one match is enough.
    ///
    /// # Errors
    /// [`Error::Mismatch`] with both values. Its help distinguishes a different GPU from a
    /// different driver version.
    ///
    /// # References
    /// VUID-VkMemoryAllocateInfo-None-00643 and -00644 (same `deviceUUID` and `driverUUID` as the
    /// exporter).
    pub fn check_same(&self, importer: &[Identity]) -> Result<()> {
        if importer.iter().any(|other| self.is_same(other)) {
            return Ok(());
        }
        let list = |show: &dyn Fn(&Identity) -> String, of: &[Identity]| {
            of.iter().map(show).collect::<Vec<_>>().join(", ")
        };
        let same_device: Vec<Identity> =
            importer.iter().filter(|other| other.device == self.device).cloned().collect();
        if !same_device.is_empty() {
            let show = |id: &Identity| id.driver.map_or("none".to_owned(), |uuid| uuid.to_string());
            let found = list(&show, &same_device);
            return Err(Mismatch::new("driver UUID", show(self), found)
                .help(
                    "the GPU is the same, but the driver or its version differs: install the same \
                     driver on both sides (a container or a flatpak has its own), and restart \
                     both processes after an update",
                )
                .into());
        }
        let show = |id: &Identity| format!("{} ({})", id.device, id.name);
        let mesa = self.device.is_mesas_version()
            && importer.iter().any(|other| other.device.is_mesas_version());
        let help = if mesa {
            "both are Mesa's software driver, but in different versions: install the same one \
             on both sides (a container or a flatpak has its own)"
        } else {
            "open the importer on the exporter's GPU: select it by UUID, not by index"
        };
        Err(Mismatch::new("device UUID", show(self), list(&show, importer)).help(help).into())
    }

    fn is_same(&self, other: &Identity) -> bool {
        let same_driver = match (self.driver, other.driver) {
            (Some(a), Some(b)) => a == b,
            // One of the two APIs does not report a driver UUID (CUDA).
            _ => true,
        };
        self.device == other.device && same_driver
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn identity(device: u8, driver: Option<u8>) -> Identity {
        Identity {
            device: Uuid::from_bytes([device; 16]),
            driver: driver.map(|d| Uuid::from_bytes([d; 16])),
            name: format!("GPU {device}"),
        }
    }

    #[test]
    fn a_foreign_device_is_refused_with_both_values() {
        let error = identity(1, Some(9)).check_same(&[identity(2, Some(9))]).unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, Error::Mismatch(ref m) if m.field == "device UUID"), "{error:?}");
        assert!(text.contains("01010101-0101") && text.contains("02020202-0202"), "{text}");
        assert!(text.contains("select it by UUID"), "{text}");
    }

    #[test]
    fn a_foreign_driver_is_refused_with_its_own_help_unless_the_api_reports_none() {
        let error = identity(1, Some(9)).check_same(&[identity(1, Some(8))]).unwrap_err();
        assert!(matches!(error, Error::Mismatch(ref m) if m.field == "driver UUID"), "{error:?}");
        assert!(error.to_string().contains("container"), "{error}");
        identity(1, Some(9)).check_same(&[identity(1, None)]).unwrap();
        identity(1, Some(9)).check_same(&[identity(3, None), identity(1, Some(9))]).unwrap();
    }

    #[test]
    fn two_versions_of_mesas_software_driver_are_not_two_gpus() {
        let version =
            |text: &[u8; 16]| Identity { device: Uuid::from_bytes(*text), ..identity(0, Some(9)) };
        let (old, new) = (version(b"mesa22.3.6\0\0\0\0\0\0"), version(b"mesa25.0.7-2+deb"));
        let text = old.check_same(std::slice::from_ref(&new)).unwrap_err().to_string();
        assert!(text.contains("different versions") && !text.contains("select it"), "{text}");
        let text = old.check_same(&[identity(1, Some(9))]).unwrap_err().to_string();
        assert!(text.contains("select it by UUID"), "{text}");
        new.check_same(&[old, new.clone()]).unwrap();
    }

    #[test]
    fn an_importer_without_any_device_is_refused() {
        assert!(identity(1, None).check_same(&[]).is_err());
    }

    proptest! {
        #[test]
        fn a_uuid_survives_printing(bytes: [u8; 16]) {
            let uuid = Uuid::from_bytes(bytes);
            prop_assert_eq!(uuid.to_string().parse::<Uuid>().unwrap(), uuid);
            prop_assert_eq!(format!("GPU-{uuid}").parse::<Uuid>().unwrap(), uuid);
            prop_assert_eq!(uuid.to_string().replace('-', "").parse::<Uuid>().unwrap(), uuid);
        }

        #[test]
        fn any_text_is_a_uuid_or_a_typed_error(text in ".*") {
            if let Err(error) = text.parse::<Uuid>() {
                prop_assert!(matches!(error, Error::Invalid(_)));
            }
        }

        #[test]
        fn one_byte_of_difference_is_enough(bytes: [u8; 16], at in 0usize..16, flip in 1u8..) {
            let mut other = bytes;
            other[at] ^= flip;
            let make = |b| Identity { device: Uuid::from_bytes(b), driver: None, name: String::new() };
            prop_assert!(make(bytes).check_same(&[make(other)]).is_err());
        }
    }
}

//! What a calibration holds for: one GPU, one driver, these APIs.

use std::fmt;

use crate::capabilities::Capabilities;
use crate::error::{Api, Mismatch, Missing, Result};
use crate::identity::Uuid;

/// The GPU and driver that were measured, and the APIs between which payloads went.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CalibrationKey {
    /// The GPU.
    pub device: Uuid,
    /// The driver; another version has another one.
    pub driver: Option<Uuid>,
    /// The GPU's name, for people; not compared.
    pub name: String,
    /// The APIs, in the order in which a payload goes round.
    pub stations: Vec<Api>,
}

impl CalibrationKey {
    /// The GPU and driver of `owner`, a Vulkan endpoint's capabilities, with payloads that go round
    /// through `stations`.
    ///
    /// # Errors
    /// [`Missing`] where `owner` does not know its GPU.
    pub fn new(owner: &Capabilities, stations: &[Api]) -> Result<Self> {
        let identity = owner.identities.first().ok_or_else(|| {
            Missing::new(owner.api, "a device UUID", "knowing what a calibration is for")
        })?;
        let (device, driver, name) = (identity.device, identity.driver, identity.name.clone());
        Ok(Self { device, driver, name, stations: stations.to_vec() })
    }

    /// Checks that what was measured for `self` holds for `wanted`.
    ///
    /// # Errors
    /// [`Mismatch`] that names the GPU, the driver or the APIs, and both values.
    pub fn require(&self, wanted: &CalibrationKey) -> Result<()> {
        let differs = |field, measured: String, wanted: String| {
            if measured == wanted {
                return Ok(());
            }
            Err(Mismatch::new(field, wanted, measured)
                .help("calibrate again: another GPU, driver or pair has other figures"))
        };
        let device = |subject: &CalibrationKey| subject.device.to_string();
        let driver = |subject: &CalibrationKey| {
            subject.driver.map_or("none".into(), |uuid| uuid.to_string())
        };
        differs("the calibrated device UUID", device(self), device(wanted))?;
        differs("the calibrated driver UUID", driver(self), driver(wanted))?;
        differs("the calibrated APIs", self.round(), wanted.round())?;
        Ok(())
    }

    fn round(&self) -> String {
        let names: Vec<_> = self.stations.iter().map(ToString::to_string).collect();
        names.join(" → ")
    }
}

impl fmt::Display for CalibrationKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on {} ({})", self.round(), self.name, self.device)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::error::Error;

    pub(in super::super) fn subject() -> CalibrationKey {
        CalibrationKey {
            device: Uuid::from_bytes([7; 16]),
            driver: Some(Uuid::from_bytes([9; 16])),
            name: "a GPU, \"quoted\"".into(),
            stations: vec![Api::Vulkan, Api::Cuda],
        }
    }

    #[test]
    fn another_gpu_driver_or_pair_is_refused_with_both_values() {
        let own = subject();
        own.require(&CalibrationKey { name: "as another API calls it".into(), ..subject() })
            .unwrap();
        let others = [
            CalibrationKey { device: Uuid::from_bytes([8; 16]), ..subject() },
            CalibrationKey { driver: Some(Uuid::from_bytes([8; 16])), ..subject() },
            CalibrationKey { driver: None, ..subject() },
            CalibrationKey { stations: vec![Api::Cuda, Api::Vulkan], ..subject() },
            CalibrationKey { stations: vec![Api::Vulkan, Api::OpenGl], ..subject() },
        ];
        for other in others {
            let refused = own.require(&other).unwrap_err();
            let Error::Mismatch(mismatch) = &refused else { panic!("{refused:?}") };
            assert_ne!(mismatch.expected, mismatch.found);
        }
    }
}

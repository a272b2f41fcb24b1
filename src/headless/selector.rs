//! Which GPU is wanted.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Invalid, Result};
use crate::identity::Uuid;

/// Which GPU to open.
///
/// Prints and parses as `any`, as a UUID (with or without the `GPU-` of `nvidia-smi -L`) or as
/// `cuda:0`, for a command line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum GpuSelector {
    /// The first discrete GPU, else an integrated, else a virtual one, else the CPU.
    #[default]
    Any,
    /// The GPU with this device UUID, which is the same in every API.
    Uuid(Uuid),
    /// The GPU with this CUDA ordinal, which `CUDA_VISIBLE_DEVICES` and `CUDA_DEVICE_ORDER` change.
    /// The other APIs then open the same GPU by its UUID.
    CudaOrdinal(usize),
}

impl GpuSelector {
    /// The UUID that is wanted; `None` where any GPU will do.
    ///
    /// # Errors
    /// [`Error::Missing`] where a CUDA ordinal is wanted and CUDA or that GPU is not there.
    pub(super) fn device_uuid(&self) -> Result<Option<Uuid>> {
        match *self {
            Self::Any => Ok(None),
            Self::Uuid(uuid) => Ok(Some(uuid)),
            Self::CudaOrdinal(ordinal) => {
                super::cuda::identity_of(ordinal).map(|id| Some(id.device))
            }
        }
    }
}

impl From<Uuid> for GpuSelector {
    fn from(uuid: Uuid) -> Self {
        Self::Uuid(uuid)
    }
}

impl fmt::Display for GpuSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("any"),
            Self::Uuid(uuid) => write!(f, "{uuid}"),
            Self::CudaOrdinal(ordinal) => write!(f, "cuda:{ordinal}"),
        }
    }
}

impl FromStr for GpuSelector {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if text.eq_ignore_ascii_case("any") {
            return Ok(Self::Any);
        }
        let wish = match text.strip_prefix("cuda:") {
            Some(ordinal) => ordinal.parse().ok().map(Self::CudaOrdinal),
            None => text.parse().ok().map(Self::Uuid),
        };
        wish.ok_or_else(|| {
            Invalid::new("GPU", format!("'{text}' names no GPU"))
                .help("give 'any', 'cuda:0' or a UUID, as in 6d657361-3232-2e33-2e36-000000000000")
                .into()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wish_survives_printing() {
        let uuid = Uuid::from_bytes(*b"mesa22.3.6\0\0\0\0\0\0");
        for wish in [GpuSelector::Any, GpuSelector::Uuid(uuid), GpuSelector::CudaOrdinal(7)] {
            assert_eq!(wish.to_string().parse::<GpuSelector>().unwrap(), wish);
        }
        assert_eq!(format!("GPU-{uuid}").parse::<GpuSelector>().unwrap(), GpuSelector::Uuid(uuid));
        assert_eq!("ANY".parse::<GpuSelector>().unwrap(), GpuSelector::default());
    }

    #[test]
    fn what_names_no_gpu_is_refused_with_what_would() {
        for text in ["", "cuda", "cuda:", "cuda:-1", "cuda:x", "0", "GPU-12"] {
            let error = text.parse::<GpuSelector>().unwrap_err();
            assert!(matches!(error, Error::Invalid(_)), "{text}: {error:?}");
            assert!(error.to_string().contains("cuda:0"), "{error}");
        }
    }
}

//! Cubins: compiled CUDA kernels, checked before a driver sees them.

#![forbid(unsafe_code)]

#[cfg(test)]
mod tests;

use std::fmt;

use super::elf::{self, Elf, Parameter, refuse};
use crate::error::{Invalid, Result};

/// The length of the prefix that is searched for PTX.
const PREFIX: usize = 64 << 10;
/// The first bytes of a fat binary, and of its executable part.
const FAT: [[u8; 4]; 2] = [[0x50, 0xed, 0x55, 0xba], [0x46, 0x62, 0x43, 0xb1]];

/// A linked image of CUDA kernels for one GPU architecture, with the kernels' names and parameters.
///
/// `cuda::Endpoint::link` creates one from PTX, and `vulkan::Endpoint::load_module` loads it.
#[derive(Clone, PartialEq, Eq)]
pub struct Cubin {
    bytes: Vec<u8>,
    architecture: Option<u32>,
    kernels: Vec<KernelInfo>,
}

/// A kernel of a [`Cubin`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct KernelInfo {
    /// The name: as in the source if that declares it `extern "C"`, otherwise as C++ mangles it.
    pub name: String,
    /// The parameters in their order; `None` if it has none or the image describes them in an unknown
    /// way.
    pub parameters: Option<Vec<Parameter>>,
}

impl Cubin {
    /// Creates a cubin from its bytes.
    ///
    /// The headers are checked, but not the machine code, which the driver runs as it is: load only
    /// cubins from a trusted source.
    ///
    /// # Errors
    /// [`Invalid`] for PTX, which is text and must be linked first, for a fat binary, for an image that
    /// is not linked or not for CUDA, and for one that is cut off.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<Self> {
        let bytes = bytes.into();
        if let Some(refused) = another_format(&bytes) {
            return Err(refused.into());
        }
        let elf = Elf::parse(&bytes)?;
        let architecture = elf.architecture();
        let parameters = |name: &str| {
            let info = elf.section(&format!(".nv.info.{name}"))?;
            elf::parameters(info.data)
        };
        let kernels = elf.kernels().into_iter();
        let kernels = kernels
            .map(|name| KernelInfo { name: name.to_owned(), parameters: parameters(name) })
            .collect();
        Ok(Self { bytes, architecture, kernels })
    }

    /// The bytes of the image.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The GPU architecture: 90 for sm_90. `None` if the image encodes it in an unknown way.
    pub fn architecture(&self) -> Option<u32> {
        self.architecture
    }

    /// The kernels in the image. Also empty if the image names them in an unknown way.
    pub fn kernels(&self) -> &[KernelInfo] {
        &self.kernels
    }

    /// Returns the kernel with this name.
    ///
    /// # Errors
    /// [`Invalid`] if there is no such kernel; the error lists the image's kernels.
    pub fn kernel(&self, name: &str) -> Result<&KernelInfo> {
        find(&self.kernels, name)
    }
}

impl fmt::Debug for Cubin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cubin")
            .field("bytes", &self.bytes.len())
            .field("architecture", &self.architecture)
            .field("kernels", &self.kernels)
            .finish()
    }
}

/// The kernel of `kernels` with this name.
pub(crate) fn find<'a>(kernels: &'a [KernelInfo], name: &str) -> Result<&'a KernelInfo> {
    let found = kernels.iter().find(|kernel| kernel.name == name);
    found.ok_or_else(|| {
        let names: Vec<_> = kernels.iter().map(|kernel| kernel.name.as_str()).collect();
        let names = if names.is_empty() { "no kernels".into() } else { names.join(", ") };
        Invalid::new("name", format!("the cubin has no kernel '{name}'"))
            .help(format!("it has {names}; without extern \"C\", C++ mangles a name"))
            .into()
    })
}

/// The error for `bytes` in another format of compiled kernels.
fn another_format(bytes: &[u8]) -> Option<Invalid> {
    if FAT.iter().any(|magic| bytes.starts_with(magic)) {
        return Some(
            Invalid::new("cubin", "is a fat binary, with images for several GPUs")
                .help("extract the one for this GPU, for example with cuobjdump -xelf"),
        );
    }
    if bytes.is_empty() {
        return Some(refuse("is empty"));
    }
    let head = &bytes[..bytes.len().min(PREFIX)];
    let has = |word: &[u8]| head.windows(word.len()).any(|window| window == word);
    (has(b".version") && has(b".target") && !head.starts_with(b"\x7f")).then(|| {
        Invalid::new("cubin", "is PTX, which is text and not linked for a GPU")
            .help("link it with cuda::Endpoint::link")
    })
}

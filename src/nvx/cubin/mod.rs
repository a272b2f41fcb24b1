//! Compiled CUDA kernels: a cubin, checked before any driver sees it.
//!
//! A [`Cubin`] is what `cuda::Endpoint::link` makes of PTX, and what a Vulkan queue takes
//! (`vulkan::Endpoint::load_module`). It is plain data: bytes for one GPU architecture, and the names
//! and parameters of the kernels in them.

#![forbid(unsafe_code)]

mod elf;
mod parameters;
#[cfg(test)]
mod tests;

use std::fmt;

use self::elf::{Elf, refuse};
use crate::error::{Invalid, Result};

/// How much of a text is looked at for what it is.
const LOOKED_AT: usize = 64 << 10;
/// How a fat binary, and the executable part of one, begin.
const FAT: [[u8; 4]; 2] = [[0x50, 0xed, 0x55, 0xba], [0x46, 0x62, 0x43, 0xb1]];

/// A linked image of CUDA kernels for one GPU architecture.
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
    /// Its name: as in the source where that says `extern "C"`, else as C++ mangles it.
    pub name: String,
    /// Its parameters, in their order; `None` where it has none, or the image tells them in a way
    /// that is not known here.
    pub parameters: Option<Vec<Parameter>>,
}

/// Where a kernel finds one of its parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Parameter {
    /// Where it begins, in bytes from the first.
    pub offset: u32,
    /// How many bytes it has: 8 for a pointer.
    pub size: u32,
}

impl Cubin {
    /// Takes the bytes of a cubin.
    ///
    /// Its headers are checked, not its machine code: a driver runs that as it is, so take cubins
    /// only from those you trust.
    ///
    /// # Errors
    /// [`Invalid`] for PTX, which is text and has to be linked first, for a fat binary, for an image
    /// that is not linked or not for CUDA, and for one that is cut off.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<Self> {
        let bytes = bytes.into();
        if let Some(refusal) = something_else(&bytes) {
            return Err(refusal.into());
        }
        let elf = Elf::parse(&bytes)?;
        let architecture = elf.architecture();
        let told = |name: &str| {
            let info = elf.section(&format!(".nv.info.{name}"))?;
            parameters::parse(info.data)
        };
        let kernels = elf.kernels().into_iter();
        let kernels = kernels
            .map(|name| KernelInfo { name: name.to_owned(), parameters: told(name) })
            .collect();
        Ok(Self { bytes, architecture, kernels })
    }

    /// The image itself.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The GPU architecture it is for: 90 for sm_90. `None` where the image tells it in a way that is
    /// not known here.
    pub fn architecture(&self) -> Option<u32> {
        self.architecture
    }

    /// The kernels in it. Empty too where the image names them in a way that is not known here.
    pub fn kernels(&self) -> &[KernelInfo] {
        &self.kernels
    }

    /// The kernel called `name`.
    ///
    /// # Errors
    /// [`Invalid`] where there is none; it names those there are.
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

/// The one of `kernels` that is called `name`.
pub(crate) fn find<'a>(kernels: &'a [KernelInfo], name: &str) -> Result<&'a KernelInfo> {
    let found = kernels.iter().find(|kernel| kernel.name == name);
    found.ok_or_else(|| {
        let names: Vec<_> = kernels.iter().map(|kernel| kernel.name.as_str()).collect();
        let there = if names.is_empty() { "none".into() } else { names.join(", ") };
        Invalid::new("name", format!("the cubin has no kernel '{name}'"))
            .help(format!("it has {there}; without extern \"C\", C++ mangles a name"))
            .into()
    })
}

/// What `bytes` are, where they are another form of compiled kernels.
fn something_else(bytes: &[u8]) -> Option<Invalid> {
    if FAT.iter().any(|magic| bytes.starts_with(magic)) {
        return Some(
            Invalid::new("cubin", "is a fat binary, with images for several GPUs")
                .help("take the one for this GPU out of it, by cuobjdump -xelf say"),
        );
    }
    if bytes.is_empty() {
        return Some(refuse("is empty"));
    }
    let head = &bytes[..bytes.len().min(LOOKED_AT)];
    let has = |word: &[u8]| head.windows(word.len()).any(|place| place == word);
    (has(b".version") && has(b".target") && !head.starts_with(b"\x7f")).then(|| {
        Invalid::new("cubin", "is PTX, which is text and not linked for a GPU")
            .help("make a cubin of it with cuda::Endpoint::link")
    })
}

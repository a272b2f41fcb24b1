//! Cubins: compiled CUDA kernels, checked before a driver sees them.

#![forbid(unsafe_code)]

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
    /// The name: as in the source if it is declared `extern "C"`, otherwise mangled by C++.
    pub name: String,
    /// The parameters in order; `None` if the kernel has no parameters, or if the image describes
    /// them in an unknown way.
    pub parameters: Option<Vec<Parameter>>,
}

impl Cubin {
    /// Creates a cubin from its bytes.
    ///
    /// The headers are checked, but not the machine code, which the driver runs unchecked: load
    /// only cubins from a trusted source.
    ///
    /// # Errors
    /// [`Invalid`] for PTX, which is text and must be linked first, for a fat binary, for an image
    /// that is not linked or not for CUDA, and for one that is cut off.
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

    /// Returns the bytes of the image.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns the GPU architecture: 90 for sm_90. `None` if the image encodes it in an unknown
    /// way.
    pub fn architecture(&self) -> Option<u32> {
        self.architecture
    }

    /// Returns the kernels in the image. Empty if the image names them in an unknown way.
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

/// Returns the kernel of `kernels` with this name.
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

/// Returns the error for `bytes` in another format of compiled kernels.
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::error::Error;

    /// The section `.nv.info.fill` of a cubin for sm_90: four parameters, described last to first.
    const INFO: [u8; 0x70] = [
        0x04, 0x37, 0x04, 0x00, 0x78, 0x00, 0x00, 0x00, 0x04, 0x17, 0x0c, 0x00, 0x00, 0x00, 0x00,
        0x00, 0x03, 0x00, 0x10, 0x00, 0x00, 0xf0, 0x11, 0x00, 0x04, 0x17, 0x0c, 0x00, 0x00, 0x00,
        0x00, 0x00, 0x02, 0x00, 0x0c, 0x00, 0x00, 0xf0, 0x11, 0x00, 0x04, 0x17, 0x0c, 0x00, 0x00,
        0x00, 0x00, 0x00, 0x01, 0x00, 0x08, 0x00, 0x00, 0xf0, 0x11, 0x00, 0x04, 0x17, 0x0c, 0x00,
        0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0xf0, 0x21, 0x00, 0x03, 0x1b, 0xff,
        0x00, 0x04, 0x1c, 0x08, 0x00, 0x90, 0x00, 0x00, 0x00, 0x60, 0x04, 0x00, 0x00, 0x04, 0x1e,
        0x04, 0x00, 0x00, 0x00, 0x00, 0x00, 0x03, 0x19, 0x14, 0x00, 0x04, 0x0a, 0x08, 0x00, 0x04,
        0x00, 0x00, 0x00, 0x10, 0x02, 0x14, 0x00,
    ];

    const NAMES: &[u8] = b"\0fill\0helper\0.shstrtab\0.symtab\0.nv.info.fill\0";
    const FILL: u32 = 1;
    const HELPER: u32 = 6;
    const SECTION_NAMES: u32 = 13;
    const SYMBOLS: u32 = 23;
    const KERNEL_INFO: u32 = 31;

    /// A cubin with one kernel, one function that is not a kernel, and the section that ptxas
    /// writes for the kernel.
    fn image() -> Vec<u8> {
        let symbol = |name: u32, other: u8| {
            let mut row = [0u8; 24];
            row[..4].copy_from_slice(&name.to_le_bytes());
            row[4] = 0x12; // a global function
            row[5] = other;
            row[6] = 3; // of this section
            row
        };
        let symbols = [symbol(0, 0), symbol(HELPER, 0), symbol(FILL, 0x10)].concat();
        let parts: [(u32, u32, u32, &[u8]); 4] = [
            (0, 0, 0, &[]),
            (SECTION_NAMES, 3, 0, NAMES),
            (SYMBOLS, 2, 1, &symbols),
            (KERNEL_INFO, 0x7000_0000, 2, &INFO),
        ];
        let mut bytes = vec![0u8; 64];
        let mut rows = Vec::new();
        for (name, kind, link, data) in parts {
            let mut row = [0u8; 64];
            row[..4].copy_from_slice(&name.to_le_bytes());
            row[4..8].copy_from_slice(&kind.to_le_bytes());
            row[24..32].copy_from_slice(&(bytes.len() as u64).to_le_bytes());
            row[32..40].copy_from_slice(&(data.len() as u64).to_le_bytes());
            row[40..44].copy_from_slice(&link.to_le_bytes());
            rows.extend_from_slice(&row);
            bytes.extend_from_slice(data);
        }
        let sections = bytes.len() as u64;
        bytes.extend_from_slice(&rows);
        let segments = bytes.len() as u64;
        let mut segment = [0u8; 56];
        segment[8..16].copy_from_slice(&64u64.to_le_bytes());
        segment[32..40].copy_from_slice(&(sections - 64).to_le_bytes());
        bytes.extend_from_slice(&segment);

        bytes[..9].copy_from_slice(b"\x7fELF\x02\x01\x01\x33\x07");
        bytes[16..18].copy_from_slice(&2u16.to_le_bytes());
        bytes[18..20].copy_from_slice(&190u16.to_le_bytes());
        bytes[32..40].copy_from_slice(&segments.to_le_bytes());
        bytes[40..48].copy_from_slice(&sections.to_le_bytes());
        bytes[48..52].copy_from_slice(&0x005a_055a_u32.to_le_bytes());
        for (at, value) in [(52, 64), (54, 56), (56, 1), (58, 64), (60, 4), (62, 1u16)] {
            bytes[at..at + 2].copy_from_slice(&value.to_le_bytes());
        }
        bytes
    }

    fn refused(bytes: &[u8]) -> String {
        match Cubin::new(bytes) {
            Err(Error::Invalid(invalid)) => {
                assert_eq!(invalid.parameter, "cubin");
                assert!(invalid.help.is_some(), "{invalid}");
                invalid.to_string()
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_cubin_lists_its_kernels_and_their_parameters() {
        let cubin = Cubin::new(image()).unwrap();
        assert_eq!(cubin.bytes(), image());
        assert_eq!(cubin.architecture(), Some(90));
        let [kernel] = cubin.kernels() else { panic!("{cubin:?}") };
        assert_eq!(kernel.name, "fill");
        let sizes = [(0, 8), (8, 4), (12, 4), (16, 4)];
        let expected = sizes.map(|(offset, size)| Parameter { offset, size });
        assert_eq!(kernel.parameters.as_deref(), Some(&expected[..]));
        assert_eq!(cubin.kernel("fill").unwrap(), kernel);
        for missing in ["helper", "Fill", ""] {
            let error = cubin.kernel(missing).unwrap_err();
            assert!(matches!(error, Error::Invalid(_)), "{error:?}");
            assert!(error.to_string().contains("it has fill"), "{error}");
        }
    }

    #[test]
    fn bytes_in_another_format_are_refused_by_name() {
        let ptx = include_bytes!("../../shaders/fill.ptx");
        assert!(refused(ptx).contains("cuda::Endpoint::link"), "{}", refused(ptx));
        assert!(refused(b"").contains("empty"));
        assert!(refused(b"PK\x03\x04").contains("not an ELF"));
        assert!(refused(&[0x50, 0xed, 0x55, 0xba, 0, 0]).contains("fat binary"));
        let with = |at: usize, value: u8| {
            let mut bytes = image();
            bytes[at] = value;
            bytes
        };
        assert!(refused(&with(18, 62)).contains("machine 62"));
        assert!(refused(&with(16, 1)).contains("not linked"));
        assert!(refused(&with(4, 1)).contains("64-bit"));
        assert!(refused(&with(58, 40)).contains("section headers of 40 bytes"));
        assert!(refused(&with(60, 0)).contains("no section headers"));
        assert!(refused(&with(39, 0x7f)).contains("program headers end past"));
    }

    #[test]
    fn an_image_that_is_cut_off_anywhere_is_refused() {
        let whole = image();
        for end in 0..whole.len() {
            assert!(Cubin::new(&whole[..end]).is_err(), "{end} of {} bytes", whole.len());
        }
    }

    #[test]
    fn parameters_in_an_unknown_format_count_as_absent() {
        // Cut off before the total, which is the last attribute but one.
        for end in 0..0x64 {
            assert_eq!(elf::parameters(&INFO[..end]), None, "{end}");
        }
        let mut gap = INFO;
        gap[0x10] = 7; // the last parameter is number 7
        assert_eq!(elf::parameters(&gap), None);
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic(
            changes in prop::collection::vec((0usize..1000, any::<u8>()), 1..8),
            end in 0usize..1000,
        ) {
            let mut bytes = image();
            for (at, value) in changes {
                let at = at % bytes.len();
                bytes[at] = value;
            }
            let _ = Cubin::new(&bytes[..end.min(bytes.len())]);
            let _ = Cubin::new(bytes);
        }

        #[test]
        fn no_parameter_section_makes_the_parser_panic(info in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = elf::parameters(&info);
        }
    }
}

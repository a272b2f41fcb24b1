//! The ELF file of a cubin: sections, kernels and their parameters. Every read is checked against
//! the end.
//!
//! NVIDIA documents how a cubin describes parameters (section `.nv.info.` and the kernel's name)
//! only through the output of `cuobjdump -elf`. If a description is not understood, it counts as
//! absent, and the parameters are not checked.
//!
//! # References
//! The System V gABI, "Object Files"; `EM_CUDA` in its list of machines; `STO_CUDA_ENTRY`.

#![forbid(unsafe_code)]

use std::ops::Range;

use crate::error::Invalid;

const MAGIC: [u8; 4] = *b"\x7fELF";
const CLASS_64: u8 = 2;
const LITTLE_ENDIAN: u8 = 1;
const TYPE_EXECUTABLE: u16 = 2;
const MACHINE_CUDA: u16 = 190;
const HEADER_BYTES: usize = 64;
const SECTION_BYTES: usize = 64;
const SEGMENT_BYTES: usize = 56;
const SYMBOL_BYTES: usize = 24;
const SECTION_SYMBOLS: u32 = 2;
const SECTION_NO_BITS: u32 = 8;
const SYMBOL_FUNCTION: u8 = 2;
/// The bit of `st_other` that distinguishes a kernel from a function that kernels call.
const SYMBOL_KERNEL: u8 = 0x10;

/// `EIFMT_SVAL`: a size of two bytes and that many bytes follow. The other formats hold two bytes.
const FORMAT_SIZED: u8 = 4;
/// `EIATTR_KPARAM_INFO`: a parameter's number, offset and size.
const PARAMETER: u8 = 0x17;
/// `EIATTR_CBANK_PARAM_SIZE`: the total size of the parameters in bytes.
const PARAMETER_BYTES: u8 = 0x19;

/// A parameter of a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Parameter {
    /// The offset from the first parameter, in bytes.
    pub offset: u32,
    /// The size in bytes: 8 for a pointer.
    pub size: u32,
}

/// A linked image for a CUDA GPU, with tables that lie inside it.
#[derive(Debug)]
pub(crate) struct Elf<'a> {
    bytes: &'a [u8],
    sections: Vec<Section<'a>>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Section<'a> {
    pub(crate) name: &'a str,
    kind: u32,
    link: u32,
    pub(crate) data: &'a [u8],
}

impl<'a> Elf<'a> {
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self, Invalid> {
        if !bytes.starts_with(&MAGIC) {
            return Err(refuse("is not an ELF image"));
        }
        let short = || refuse("is cut off in its header");
        let header = bytes.get(..HEADER_BYTES).ok_or_else(short)?;
        if header[4] != CLASS_64 || header[5] != LITTLE_ENDIAN {
            return Err(refuse("is not a 64-bit little-endian ELF image"));
        }
        let machine = u16_at(header, 18).ok_or_else(short)?;
        if machine != MACHINE_CUDA {
            let what = format!("is an ELF image for machine {machine}, not CUDA ({MACHINE_CUDA})");
            return Err(refuse(what));
        }
        let kind = u16_at(header, 16).ok_or_else(short)?;
        if kind != TYPE_EXECUTABLE {
            return Err(refuse(format!("is not linked (ELF type {kind}, not {TYPE_EXECUTABLE})")));
        }
        let segments = Table::at(header, 32, 54, 56).ok_or_else(short)?;
        segments.check(bytes, "program headers", SEGMENT_BYTES)?;
        for segment in segments.rows(bytes) {
            let (at, size) = (u64_at(segment, 8), u64_at(segment, 32));
            range(bytes, at, size)
                .ok_or_else(|| refuse("is cut off: a segment ends past its end"))?;
        }
        let table = Table::at(header, 40, 58, 60).ok_or_else(short)?;
        table.check(bytes, "section headers", SECTION_BYTES)?;
        let names = u16_at(header, 62).ok_or_else(short)?;
        Ok(Self { bytes, sections: sections(bytes, &table, names)? })
    }

    /// Returns the GPU architecture of the image: 90 for sm_90. `None` if the file encodes it in an
    /// unknown way.
    pub(crate) fn architecture(&self) -> Option<u32> {
        let flags = u32_at(self.bytes, 48)?;
        match self.bytes.get(8)? {
            7 => Some(flags & 0xff),
            8 => Some(flags >> 8 & 0xff),
            _ => None,
        }
    }

    pub(crate) fn section(&self, name: &str) -> Option<&Section<'a>> {
        self.sections.iter().find(|section| section.name == name)
    }

    /// Returns the names of the kernels, in the file's order.
    pub(crate) fn kernels(&self) -> Vec<&'a str> {
        let mut found = Vec::new();
        for table in self.sections.iter().filter(|section| section.kind == SECTION_SYMBOLS) {
            let names = self.sections.get(table.link as usize).map_or(&[][..], |names| names.data);
            for symbol in table.data.chunks_exact(SYMBOL_BYTES) {
                let is_function = symbol[4] & 0xf == SYMBOL_FUNCTION;
                let defined = u16_at(symbol, 6) != Some(0);
                if is_function && defined && symbol[5] & SYMBOL_KERNEL != 0 {
                    let name = u32_at(symbol, 0).and_then(|at| text(names, at));
                    found.extend(name.filter(|name| !name.is_empty()));
                }
            }
        }
        found
    }
}

fn sections<'a>(bytes: &'a [u8], table: &Table, names: u16) -> Result<Vec<Section<'a>>, Invalid> {
    let read = |row: &'a [u8]| {
        let kind = u32_at(row, 4)?;
        let data = match kind {
            0 | SECTION_NO_BITS => &[][..],
            _ => bytes.get(range(bytes, u64_at(row, 24), u64_at(row, 32))?)?,
        };
        Some((u32_at(row, 0)?, Section { name: "", kind, link: u32_at(row, 40)?, data }))
    };
    let rows: Option<Vec<_>> = table.rows(bytes).map(read).collect();
    let rows = rows.ok_or_else(|| refuse("is cut off: a section ends past its end"))?;
    let names = rows.get(usize::from(names)).map(|(_, section)| section.data);
    let names = names.ok_or_else(|| refuse("has no section names"))?;
    rows.into_iter()
        .map(|(at, section)| {
            let name =
                text(names, at).ok_or_else(|| refuse("has a section with an invalid name"))?;
            Ok(Section { name, ..section })
        })
        .collect()
}

/// A table of rows in the file.
struct Table {
    offset: u64,
    row_bytes: usize,
    count: usize,
}

impl Table {
    /// Returns the table described by these three fields of the header.
    fn at(header: &[u8], offset: usize, row_bytes: usize, count: usize) -> Option<Self> {
        Some(Self {
            offset: u64_at(header, offset)?,
            row_bytes: u16_at(header, row_bytes)?.into(),
            count: u16_at(header, count)?.into(),
        })
    }

    fn check(&self, bytes: &[u8], what: &str, row_bytes: usize) -> Result<(), Invalid> {
        if self.count == 0 {
            return Err(refuse(format!("has no {what}")));
        }
        if self.row_bytes != row_bytes {
            let found = self.row_bytes;
            return Err(refuse(format!("has {what} of {found} bytes, not {row_bytes}")));
        }
        let size = (self.count * self.row_bytes) as u64;
        range(bytes, Some(self.offset), Some(size))
            .map(drop)
            .ok_or_else(|| refuse(format!("is cut off: its {what} end past its end")))
    }

    fn rows<'a>(&self, bytes: &'a [u8]) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let size = (self.count * self.row_bytes) as u64;
        let all = range(bytes, Some(self.offset), Some(size));
        let all = all.and_then(|range| bytes.get(range)).unwrap_or(&[]);
        all.chunks_exact(self.row_bytes.max(1))
    }
}

/// Returns the parameters in order, if a kernel's section `.nv.info.` describes all of them.
///
/// A kernel without parameters has no entries; this can't be distinguished from an unknown format.
pub(crate) fn parameters(info: &[u8]) -> Option<Vec<Parameter>> {
    let (mut found, mut total) = (Vec::new(), 0);
    let mut rest = info;
    while let [format, attribute, low, high, tail @ ..] = rest {
        let value = u16::from_le_bytes([*low, *high]);
        let (payload, after) = match *format {
            FORMAT_SIZED => tail.split_at_checked(usize::from(value))?,
            _ => (&[][..], tail),
        };
        match *attribute {
            PARAMETER => found.push(parameter(payload)?),
            PARAMETER_BYTES if *format != FORMAT_SIZED => total = u32::from(value),
            _ => {}
        }
        rest = after;
    }
    found.sort_by_key(|(number, _)| *number);
    let in_order = found.iter().zip(0..).all(|((number, _), index)| *number == index);
    let parameters: Vec<_> = found.into_iter().map(|(_, parameter)| parameter).collect();
    let end = parameters.last().map(|last| last.offset + last.size);
    (rest.is_empty() && in_order && end == Some(total)).then_some(parameters)
}

/// Returns the parameter's number and the parameter. The bytes are an index (4 bytes), the number
/// and the offset (2 bytes each), and a word whose upper 14 bits are the size.
fn parameter(payload: &[u8]) -> Option<(u16, Parameter)> {
    let (number, offset) = (u16_at(payload, 4)?, u16_at(payload, 6)?);
    let size = u32_at(payload, 8)? >> 18;
    Some((number, Parameter { offset: offset.into(), size }))
}

/// Returns the error for an image that can't be loaded.
pub(crate) fn refuse(problem: impl Into<crate::error::Text>) -> Invalid {
    Invalid::new("cubin", problem)
        .help("pass a whole cubin for this GPU, as cuda::Endpoint::link, ptxas or NVRTC create it")
}

/// Returns the range of `size` bytes at `at`, if it lies inside.
fn range(bytes: &[u8], at: Option<u64>, size: Option<u64>) -> Option<Range<usize>> {
    let at = usize::try_from(at?).ok()?;
    let end = at.checked_add(usize::try_from(size?).ok()?)?;
    (end <= bytes.len()).then_some(at..end)
}

fn text(names: &[u8], at: u32) -> Option<&str> {
    let tail = names.get(usize::try_from(at).ok()?..)?;
    let end = tail.iter().position(|&byte| byte == 0)?;
    std::str::from_utf8(&tail[..end]).ok()
}

fn bytes_at<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk::<N>().copied()
}

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes_at(bytes, at).map(u16::from_le_bytes)
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes_at(bytes, at).map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes_at(bytes, at).map(u64::from_le_bytes)
}

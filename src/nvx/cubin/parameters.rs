//! What a cubin tells of a kernel's parameters, in its section `.nv.info.` and the kernel's name.
//!
//! NVIDIA documents the section nowhere but in the output of `cuobjdump -elf`. What is not understood
//! is taken as not told: the parameters are then the caller's word alone.

#![forbid(unsafe_code)]

use super::Parameter;
use super::elf::{u16_at, u32_at};

/// `EIFMT_SVAL`: a size of two bytes and that many bytes follow. The other formats hold two bytes.
const FORMAT_SIZED: u8 = 4;
/// `EIATTR_KPARAM_INFO`: a parameter's number, offset and size.
const PARAMETER: u8 = 0x17;
/// `EIATTR_CBANK_PARAM_SIZE`: how many bytes the parameters take together.
const PARAMETER_BYTES: u8 = 0x19;

/// The parameters in their order, where `info` tells all of them. That there are none is told by
/// leaving them out, which can't be told from another way of telling.
pub(crate) fn parse(info: &[u8]) -> Option<Vec<Parameter>> {
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
    let in_order = found.iter().zip(0..).all(|((number, _), place)| *number == place);
    let parameters: Vec<_> = found.into_iter().map(|(_, parameter)| parameter).collect();
    let end = parameters.last().map(|last| last.offset + last.size);
    (rest.is_empty() && in_order && end == Some(total)).then_some(parameters)
}

/// The parameter's number, and the parameter: an index (4 bytes), the number, the offset (2 bytes
/// each), and a word whose upper 14 bits are the size.
fn parameter(payload: &[u8]) -> Option<(u16, Parameter)> {
    let (number, offset) = (u16_at(payload, 4)?, u16_at(payload, 6)?);
    let size = u32_at(payload, 8)? >> 18;
    Some((number, Parameter { offset: offset.into(), size }))
}

//! Arguments of kernels: numbers, structures, and the addresses of shared buffers.

use std::ffi::c_void;

use ash::vk;

use super::elf::Parameter;
use crate::error::{Invalid, Mismatch, Result};
use crate::vulkan::Buffer;

/// One argument of a launch, for one parameter of the kernel.
///
/// Convert numbers with `into()`. A buffer is passed as its device address.
#[derive(Clone, Copy, Debug)]
pub struct Argument<'a>(Value<'a>);

#[derive(Clone, Copy, Debug)]
enum Value<'a> {
    Number { bytes: [u8; 8], size: usize },
    Buffer { buffer: &'a Buffer, offset: u64 },
    Bytes(&'a [u8]),
}

impl<'a> Argument<'a> {
    /// A pointer to the beginning of `buffer`, made with
    /// [`BufferUsage::DEVICE_ADDRESS`](crate::BufferUsage::DEVICE_ADDRESS).
    pub const fn buffer(buffer: &'a Buffer) -> Self {
        Self::buffer_at(buffer, 0)
    }

    /// A pointer to the byte at `offset` of `buffer`. The kernel's type may require an alignment.
    pub const fn buffer_at(buffer: &'a Buffer, offset: u64) -> Self {
        Self(Value::Buffer { buffer, offset })
    }

    /// A parameter of any other type, such as a structure, as its bytes in device code.
    pub const fn bytes(bytes: &'a [u8]) -> Self {
        Self(Value::Bytes(bytes))
    }

    /// The bytes that the driver copies, for a kernel of `device`.
    pub(crate) fn resolve(self, device: vk::Device) -> Result<Resolved<'a>> {
        match self.0 {
            Value::Number { bytes, size } => Ok(Resolved::Inline { bytes, size }),
            Value::Bytes(bytes) => Ok(Resolved::Borrowed(bytes)),
            Value::Buffer { buffer, offset } => {
                let other = buffer.endpoint().device().handle();
                if device != other {
                    let field = "the buffer's VkDevice";
                    return Err(Mismatch::new(field, format!("{device:?}"), format!("{other:?}"))
                        .help("export the buffer and import it into the kernel's device")
                        .into());
                }
                let size = buffer.desc().size;
                if offset >= size {
                    let what = format!("is {offset}, but the buffer has {size} bytes");
                    return Err(Invalid::new("offset", what).into());
                }
                let bytes = (buffer.device_address()? + offset).to_ne_bytes();
                Ok(Resolved::Inline { bytes, size: bytes.len() })
            }
        }
    }
}

macro_rules! numbers {
    ($($ty:ty),*) => { $(
        impl From<$ty> for Argument<'_> {
            fn from(number: $ty) -> Self {
                let (mut bytes, number) = ([0; 8], number.to_ne_bytes());
                bytes[..number.len()].copy_from_slice(&number);
                Self(Value::Number { bytes, size: number.len() })
            }
        }
    )* };
}
numbers!(u8, u16, u32, u64, i8, i16, i32, i64, f32, f64);

impl<'a> From<&'a Buffer> for Argument<'a> {
    fn from(buffer: &'a Buffer) -> Self {
        Self::buffer(buffer)
    }
}

/// An argument's bytes.
pub(crate) enum Resolved<'a> {
    Inline { bytes: [u8; 8], size: usize },
    Borrowed(&'a [u8]),
}

impl Resolved<'_> {
    fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Inline { bytes, size } => &bytes[..*size],
            Self::Borrowed(bytes) => bytes,
        }
    }

    /// The address that the driver copies from, valid until this is moved or dropped.
    pub(crate) fn as_ptr(&self) -> *const c_void {
        self.as_bytes().as_ptr().cast()
    }
}

/// Refuses arguments that don't match the kernel's parameters in number and size: the driver would read
/// past them.
pub(crate) fn check(arguments: &[Resolved<'_>], parameters: &[Parameter]) -> Result<()> {
    if arguments.len() != parameters.len() {
        let (given, expected) = (arguments.len(), parameters.len());
        let what = format!("{given} for a kernel with {expected} parameters");
        return Err(Invalid::new("arguments", what).help("pass one per parameter").into());
    }
    for (index, (argument, parameter)) in arguments.iter().zip(parameters).enumerate() {
        let (given, expected) = (argument.as_bytes().len(), parameter.size);
        if u32::try_from(given).ok() != Some(expected) {
            let what = format!("{given} bytes for a parameter of {expected}");
            return Err(Invalid::new(format!("arguments[{index}]"), what)
                .help("pass the parameter's own type, for example 3u32 for an unsigned int")
                .into());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    fn number<'a>(argument: impl Into<Argument<'a>>) -> Resolved<'a> {
        match argument.into().0 {
            Value::Number { bytes, size } => Resolved::Inline { bytes, size },
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_number_is_passed_as_its_bytes() {
        assert_eq!(number(0x1234u16).as_bytes(), 0x1234u16.to_ne_bytes());
        assert_eq!(number(-2i32).as_bytes(), (-2i32).to_ne_bytes());
        assert_eq!(number(1.5f32).as_bytes(), 1.5f32.to_ne_bytes());
        assert_eq!(number(u64::MAX - 1).as_bytes(), (u64::MAX - 1).to_ne_bytes());
        assert_eq!(number(-0.0f64).as_bytes(), (-0.0f64).to_ne_bytes());
        assert_eq!(number(-1i8).as_bytes(), [0xff]);
    }

    #[test]
    fn arguments_must_match_the_parameters_in_number_and_size() {
        let parameters = [(0, 8), (8, 4), (12, 3)];
        let parameters = parameters.map(|(offset, size)| Parameter { offset, size });
        let structure = [1, 2, 3];
        let right = || [number(1u64), number(2u32), Resolved::Borrowed(&structure)];
        check(&right(), &parameters).unwrap();
        let refused = |arguments: &[Resolved<'_>]| match check(arguments, &parameters) {
            Err(Error::Invalid(invalid)) => invalid.to_string(),
            other => panic!("{other:?}"),
        };
        assert!(refused(&right()[..2]).contains("2 for a kernel with 3 parameters"));
        let [_, second, third] = right();
        let text = refused(&[number(1u32), second, third]);
        assert!(text.starts_with("arguments[0]: 4 bytes for a parameter of 8"), "{text}");
        let [first, second, _] = right();
        assert!(refused(&[first, second, number(3u32)]).starts_with("arguments[2]"));
    }
}

//! What a kernel is given: numbers, structures, and the addresses of shared buffers.

use std::ffi::c_void;

use crate::error::{Invalid, Mismatch, Result};
use crate::nvx::Parameter;
use crate::vulkan::buffer::Buffer;
use crate::vulkan::endpoint::Shared;

/// One argument of a launch, in the place of one parameter of the kernel.
///
/// Numbers are taken by `into()`; what a buffer holds is reached through its device address.
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

    /// A pointer to the byte at `offset` of `buffer`. The kernel's own type may want it aligned.
    pub const fn buffer_at(buffer: &'a Buffer, offset: u64) -> Self {
        Self(Value::Buffer { buffer, offset })
    }

    /// A parameter of any other type, as the bytes that it has in device code: a structure by value,
    /// say.
    pub const fn bytes(bytes: &'a [u8]) -> Self {
        Self(Value::Bytes(bytes))
    }

    /// The argument as the bytes that the driver copies, for a kernel of the device of `shared`.
    pub(crate) fn resolve(self, shared: &Shared) -> Result<Resolved<'a>> {
        match self.0 {
            Value::Number { bytes, size } => Ok(Resolved::Here { bytes, size }),
            Value::Bytes(bytes) => Ok(Resolved::There(bytes)),
            Value::Buffer { buffer, offset } => {
                let (ours, theirs) = (shared.device.handle(), buffer.raw.shared.device.handle());
                if ours != theirs {
                    let field = "the buffer's VkDevice";
                    return Err(Mismatch::new(field, format!("{ours:?}"), format!("{theirs:?}"))
                        .help("export the buffer and import it into the kernel's device")
                        .into());
                }
                let size = buffer.desc().size;
                if offset >= size {
                    let what = format!("{offset} is not inside the buffer of {size} bytes");
                    return Err(Invalid::new("offset", what).into());
                }
                let bytes = (buffer.device_address()? + offset).to_ne_bytes();
                Ok(Resolved::Here { bytes, size: bytes.len() })
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
    Here { bytes: [u8; 8], size: usize },
    There(&'a [u8]),
}

impl Resolved<'_> {
    fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Here { bytes, size } => &bytes[..*size],
            Self::There(bytes) => bytes,
        }
    }

    /// Where the driver copies it from, for as long as this is where it is.
    pub(crate) fn as_ptr(&self) -> *const c_void {
        self.as_bytes().as_ptr().cast()
    }
}

/// Refuses arguments that are not as many, or not as large, as the kernel's parameters, where those
/// are known: the driver would read past them.
pub(crate) fn check(arguments: &[Resolved<'_>], parameters: &[Parameter]) -> Result<()> {
    if arguments.len() != parameters.len() {
        let (given, wanted) = (arguments.len(), parameters.len());
        let what = format!("{given} for a kernel of {wanted} parameters");
        return Err(Invalid::new("arguments", what).help("give one for each parameter").into());
    }
    for (place, (argument, parameter)) in arguments.iter().zip(parameters).enumerate() {
        let (given, wanted) = (argument.as_bytes().len(), parameter.size);
        if u32::try_from(given).ok() != Some(wanted) {
            let what = format!("{given} bytes for a parameter of {wanted}");
            return Err(Invalid::new(format!("arguments[{place}]"), what)
                .help("give the parameter's very type: 3u32 for an unsigned int, say")
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
            Value::Number { bytes, size } => Resolved::Here { bytes, size },
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_number_is_its_bytes() {
        assert_eq!(number(0x1234u16).as_bytes(), 0x1234u16.to_ne_bytes());
        assert_eq!(number(-2i32).as_bytes(), (-2i32).to_ne_bytes());
        assert_eq!(number(1.5f32).as_bytes(), 1.5f32.to_ne_bytes());
        assert_eq!(number(u64::MAX - 1).as_bytes(), (u64::MAX - 1).to_ne_bytes());
        assert_eq!(number(-0.0f64).as_bytes(), (-0.0f64).to_ne_bytes());
        assert_eq!(number(-1i8).as_bytes(), [0xff]);
    }

    #[test]
    fn arguments_are_as_many_and_as_large_as_the_parameters() {
        let parameters = [(0, 8), (8, 4), (12, 3)];
        let parameters = parameters.map(|(offset, size)| Parameter { offset, size });
        let structure = [1, 2, 3];
        let right = || [number(1u64), number(2u32), Resolved::There(&structure)];
        check(&right(), &parameters).unwrap();
        let refused = |arguments: &[Resolved<'_>]| match check(arguments, &parameters) {
            Err(Error::Invalid(invalid)) => invalid.to_string(),
            other => panic!("{other:?}"),
        };
        assert!(refused(&right()[..2]).contains("2 for a kernel of 3 parameters"));
        let [_, second, third] = right();
        let text = refused(&[number(1u32), second, third]);
        assert!(text.starts_with("arguments[0]: 4 bytes for a parameter of 8"), "{text}");
        let [first, second, _] = right();
        assert!(refused(&[first, second, number(3u32)]).starts_with("arguments[2]"));
    }
}

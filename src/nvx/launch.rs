//! The size of a launch, the device's limits for it, and the arguments of its kernel.

use std::ffi::c_void;

use ash::vk;

use super::elf::Parameter;
use crate::error::{Invalid, Mismatch, Result};
use crate::vulkan::Buffer;

/// The number of threads that run a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Launch {
    /// Blocks in x, y and z; each at least 1.
    pub grid: [u32; 3],
    /// Threads per block in x, y and z; each at least 1.
    pub block: [u32; 3],
    /// Bytes of dynamic shared memory per block: `extern __shared__` in the kernel.
    pub dynamic_shared_bytes: u32,
}

impl Launch {
    /// Describes a one-dimensional launch of `blocks` blocks of `threads` threads, without dynamic
    /// shared memory.
    pub const fn linear(blocks: u32, threads: u32) -> Self {
        Self { grid: [blocks, 1, 1], block: [threads, 1, 1], dynamic_shared_bytes: 0 }
    }
}

/// The device's limits for launches, which are those for its compute shaders.
///
/// # References
/// `VkCudaLaunchInfoNV` limits the grid by `maxComputeWorkGroupCount` and the dynamic shared memory
/// by `maxComputeSharedMemorySize`. NVIDIA's driver reports CUDA's own limits for a block as
/// `maxComputeWorkGroupSize` and `maxComputeWorkGroupInvocations`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    grid: [u32; 3],
    block: [u32; 3],
    threads: u32,
    shared_bytes: u32,
}

impl Limits {
    /// `reserved` bytes of shared memory are not available to a launch.
    pub(crate) fn of(limits: &vk::PhysicalDeviceLimits, reserved: u32) -> Self {
        Self {
            grid: limits.max_compute_work_group_count,
            block: limits.max_compute_work_group_size,
            threads: limits.max_compute_work_group_invocations,
            shared_bytes: limits.max_compute_shared_memory_size.saturating_sub(reserved),
        }
    }

    /// Refuses a launch beyond the limits.
    pub(crate) fn check(&self, launch: &Launch) -> Result<()> {
        check_extent("launch.grid", launch.grid, self.grid)?;
        check_extent("launch.block", launch.block, self.block)?;
        let threads = launch.block.iter().map(|&size| u64::from(size)).product::<u64>();
        if threads > self.threads.into() {
            let what = format!("has {threads} threads; the limit is {} per block", self.threads);
            return Err(Invalid::new("launch.block", what)
                .help("launch more blocks of fewer threads")
                .into());
        }
        let (bytes, limit) = (launch.dynamic_shared_bytes, self.shared_bytes);
        if bytes > limit {
            let what = format!("is {bytes}; the limit is {limit} per block");
            return Err(Invalid::new("launch.dynamic_shared_bytes", what)
                .help("use less; CUDA's larger opt-in limit can't be requested in a Vulkan queue")
                .into());
        }
        Ok(())
    }
}

fn check_extent(parameter: &'static str, extent: [u32; 3], limit: [u32; 3]) -> Result<()> {
    if extent.contains(&0) {
        return Err(Invalid::new(parameter, format!("{extent:?} has a size of 0"))
            .help("set unused dimensions to 1")
            .into());
    }
    if extent.iter().zip(limit).any(|(&size, limit)| size > limit) {
        let what = format!("is {extent:?}; the device's limit is {limit:?}");
        return Err(Invalid::new(parameter, what).into());
    }
    Ok(())
}

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
    /// Passes a pointer to the beginning of `buffer`, which was created with
    /// [`BufferUsage::DEVICE_ADDRESS`](crate::BufferUsage::DEVICE_ADDRESS).
    pub const fn buffer(buffer: &'a Buffer) -> Self {
        Self::buffer_at(buffer, 0)
    }

    /// Passes a pointer to the byte at `offset` of `buffer`. The kernel's type may require an
    /// alignment.
    pub const fn buffer_at(buffer: &'a Buffer, offset: u64) -> Self {
        Self(Value::Buffer { buffer, offset })
    }

    /// Passes a parameter of any other type, such as a structure, as its bytes in device code.
    pub const fn bytes(bytes: &'a [u8]) -> Self {
        Self(Value::Bytes(bytes))
    }

    /// Returns the bytes that the driver copies, for a kernel of `device`.
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

    /// Returns the address from which the driver copies, valid until this is moved or dropped.
    pub(crate) fn as_ptr(&self) -> *const c_void {
        self.as_bytes().as_ptr().cast()
    }
}

/// Refuses arguments that don't match the kernel's parameters in number and size: the driver would
/// read past them.
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

    const LIMITS: Limits = Limits {
        grid: [u32::MAX >> 1, 65_535, 65_535],
        block: [1024, 1024, 64],
        threads: 1024,
        shared_bytes: 48 << 10,
    };

    #[test]
    fn a_launch_within_the_limits_is_accepted() {
        LIMITS.check(&Launch::linear(1, 1)).unwrap();
        LIMITS.check(&Launch::linear(u32::MAX >> 1, 1024)).unwrap();
        let launch = Launch {
            grid: [1, 65_535, 65_535],
            block: [4, 4, 64],
            dynamic_shared_bytes: LIMITS.shared_bytes,
        };
        LIMITS.check(&launch).unwrap();
    }

    #[test]
    fn a_launch_beyond_a_limit_is_refused_with_the_limit() {
        let usual = Launch::linear(4, 256);
        for (launch, parameter, text) in [
            (Launch { grid: [0, 1, 1], ..usual }, "launch.grid", "size of 0"),
            (Launch { grid: [1, 65_536, 1], ..usual }, "launch.grid", "65535"),
            (Launch { grid: [u32::MAX, 1, 1], ..usual }, "launch.grid", "limit"),
            (Launch { block: [1, 1, 0], ..usual }, "launch.block", "size of 0"),
            (Launch { block: [1, 1, 65], ..usual }, "launch.block", "64]"),
            (Launch { block: [1025, 1, 1], ..usual }, "launch.block", "1024"),
            (Launch { block: [1024, 1024, 64], ..usual }, "launch.block", "67108864 threads"),
            (
                Launch { dynamic_shared_bytes: LIMITS.shared_bytes + 1, ..usual },
                "launch.dynamic_shared_bytes",
                "49152",
            ),
        ] {
            match LIMITS.check(&launch) {
                Err(Error::Invalid(invalid)) => {
                    assert_eq!(invalid.parameter, parameter);
                    assert!(invalid.problem.contains(text), "{invalid}");
                }
                other => panic!("{launch:?}: {other:?}"),
            }
        }
    }

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

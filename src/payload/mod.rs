//! Payloads: a file descriptor and *everything* that an importer needs to know about it.
//!
//! A payload owns its descriptor. It is neither `Copy` nor `Clone`: an import consumes it, as the
//! driver consumes the descriptor. To import twice, export twice, or duplicate the descriptor with
//! [`try_clone`](BufferPayload::try_clone).
//!
//! A payload is validated once, when it is made: descriptions, ranges, sizes and kinds. If that
//! fails, the arguments are returned in an [`ImportError`]. An import then checks the GPU, the
//! driver and the descriptor, which only the importer can.

#![forbid(unsafe_code)]

use std::os::fd::{AsFd, BorrowedFd};

use crate::error::{ImportError, ImportResult, Mismatch, Result};
use crate::identity::Identity;

mod memory;
mod semaphore;

#[cfg_attr(
    not(any(feature = "vulkan", feature = "gl", feature = "cuda")),
    allow(unused_imports)
)]
pub(crate) use memory::check_range;
pub use memory::{BufferPayload, ImagePayload, LinearLayout, MemoryInfo, MemoryPayload};
pub use semaphore::{SemaphoreInfo, SemaphoreKind, SemaphorePayload};

/// Any payload: an allocation, a buffer, an image or a semaphore.
#[derive(Debug)]
#[non_exhaustive]
pub enum Payload {
    /// An allocation.
    Memory(MemoryPayload),
    /// A buffer.
    Buffer(BufferPayload),
    /// An image.
    Image(ImagePayload),
    /// A semaphore.
    Semaphore(SemaphorePayload),
}

macro_rules! each {
    ($payload:expr, $inner:ident => $value:expr) => {
        match $payload {
            Payload::Memory($inner) => $value,
            Payload::Buffer($inner) => $value,
            Payload::Image($inner) => $value,
            Payload::Semaphore($inner) => $value,
        }
    };
}

impl Payload {
    /// Returns the kind of payload: `memory`, `buffer`, `image` or `semaphore`.
    pub const fn kind_name(&self) -> &'static str {
        match self {
            Self::Memory(_) => "memory",
            Self::Buffer(_) => "buffer",
            Self::Image(_) => "image",
            Self::Semaphore(_) => "semaphore",
        }
    }

    /// Returns the GPU and the driver of the exporter.
    pub fn identity(&self) -> &Identity {
        match self.memory() {
            Ok(memory) => &memory.info().identity,
            Err(semaphore) => &semaphore.info().identity,
        }
    }

    /// Returns the allocation, which every payload except a semaphore has.
    fn memory(&self) -> Result<&MemoryPayload, &SemaphorePayload> {
        match self {
            Self::Memory(memory) => Ok(memory),
            Self::Buffer(buffer) => Ok(buffer.memory()),
            Self::Image(image) => Ok(image.memory()),
            Self::Semaphore(semaphore) => Err(semaphore),
        }
    }

    /// Returns a second payload of the same object, with a duplicate of the descriptor.
    /// FD_CLOEXEC is set.
    ///
    /// # Errors
    /// [`Error::Driver`](crate::Error::Driver) if the process is out of descriptors.
    pub fn try_clone(&self) -> Result<Self> {
        each!(self, payload => payload.try_clone().map(Self::from))
    }
}

impl AsFd for Payload {
    fn as_fd(&self) -> BorrowedFd<'_> {
        each!(self, payload => payload.as_fd())
    }
}

macro_rules! variants {
    ($( $(#[$doc:meta])* $into:ident: $variant:ident($inner:ident) = $name:literal; )*) => {
        $(
            impl From<$inner> for Payload {
                fn from(payload: $inner) -> Self {
                    Self::$variant(payload)
                }
            }

            impl TryFrom<Payload> for $inner {
                type Error = ImportError<Payload>;

                fn try_from(payload: Payload) -> ImportResult<Self, Payload> {
                    payload.$into()
                }
            }
        )*

        impl Payload {
            $(
                $(#[$doc])*
                ///
                /// # Errors
                /// [`Error::Mismatch`](crate::Error::Mismatch) if it is something else; the payload
                /// is returned.
                pub fn $into(self) -> ImportResult<$inner, Self> {
                    match self {
                        Self::$variant(payload) => Ok(payload),
                        other => {
                            let error = Mismatch::new("payload kind", $name, other.kind_name())
                                .help("agree with the exporter on the kind and order of payloads");
                            Err(ImportError::new(other, error))
                        }
                    }
                }
            )*
        }
    };
}

variants! {
    /// Returns the allocation.
    into_memory: Memory(MemoryPayload) = "memory";
    /// Returns the buffer.
    into_buffer: Buffer(BufferPayload) = "buffer";
    /// Returns the image.
    into_image: Image(ImagePayload) = "image";
    /// Returns the semaphore.
    into_semaphore: Semaphore(SemaphorePayload) = "semaphore";
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::{AsFd, AsRawFd, OwnedFd};

    use proptest::prelude::*;

    use super::*;
    use crate::desc::{BufferDesc, ImageDesc, ImageUsage, Tiling};
    use crate::error::{Error, Result};
    use crate::fd::{MemoryHandleType, SemaphoreHandleType};
    use crate::format::Format;
    use crate::identity::{Identity, Uuid};

    fn identity(byte: u8) -> Identity {
        let uuid = Uuid::from_bytes([byte; 16]);
        Identity { device: uuid, driver: Some(uuid), name: "test".into() }
    }

    fn info(allocation_size: u64) -> MemoryInfo {
        MemoryInfo {
            handle_type: MemoryHandleType::OpaqueFd,
            allocation_size,
            memory_type_index: Some(0),
            dedicated: false,
            identity: identity(1),
        }
    }

    fn memory(fd: impl Into<OwnedFd>, allocation_size: u64) -> MemoryPayload {
        MemoryPayload::new(fd.into(), info(allocation_size)).unwrap()
    }

    fn file(len: u64) -> File {
        let file = tempfile::tempfile().unwrap();
        file.set_len(len).unwrap();
        file
    }

    #[test]
    fn identity_is_checked_before_the_descriptor() {
        let pipe_like = memory(File::open("/dev/null").unwrap(), 64);
        assert!(matches!(pipe_like.check(&[identity(2)]), Err(Error::Mismatch(_))));
        assert!(matches!(pipe_like.check(&[identity(1)]), Err(Error::Invalid(_))));
    }

    #[test]
    fn a_file_shorter_than_promised_is_refused() {
        assert!(memory(file(63), 64).check(&[identity(1)]).is_err());
        memory(file(64), 64).check(&[identity(1)]).unwrap();
    }

    #[test]
    fn a_buffer_ends_with_its_allocation_at_the_latest() {
        let at =
            |offset| BufferPayload::new(memory(file(128), 128), offset, BufferDesc::storage(64));
        at(64).unwrap();
        for offset in [65, 128, u64::MAX] {
            let (_, error) = at(offset).unwrap_err().into_parts();
            assert!(matches!(error, Error::Invalid(ref i) if i.parameter == "offset"), "{error:?}");
        }
    }

    #[test]
    fn an_empty_allocation_is_refused_and_its_descriptor_is_returned() {
        let file = file(64);
        let raw = file.as_raw_fd();
        let (fd, error) = MemoryPayload::new(file.into(), info(0)).unwrap_err().into_parts();
        assert!(matches!(error, Error::Invalid(ref i) if i.parameter == "payload.allocation_size"));
        assert_eq!(fd.as_raw_fd(), raw);
    }

    #[test]
    fn a_payload_converts_to_its_own_kind_or_is_returned() {
        let buffer = BufferPayload::new(memory(file(64), 64), 0, BufferDesc::storage(64)).unwrap();
        let raw = buffer.as_fd().as_raw_fd();
        let payload = Payload::from(buffer);
        assert_eq!((payload.kind_name(), payload.identity()), ("buffer", &identity(1)));
        assert_ne!(payload.try_clone().unwrap().as_fd().as_raw_fd(), raw);
        let (payload, error) = payload.into_semaphore().unwrap_err().into_parts();
        assert!(matches!(error, Error::Mismatch(ref m) if m.found == "buffer"), "{error}");
        assert_eq!(BufferPayload::try_from(payload).unwrap().as_fd().as_raw_fd(), raw);
    }

    #[test]
    fn a_clone_is_another_descriptor_of_the_same_memory() {
        let memory = memory(file(64), 64);
        let payload = BufferPayload::new(memory, 0, BufferDesc::storage(64)).unwrap();
        let clone = payload.try_clone().unwrap();
        assert_ne!(payload.memory().as_fd().as_raw_fd(), clone.memory().as_fd().as_raw_fd());
        assert_eq!(payload.memory().info(), clone.memory().info());
    }

    #[cfg(any(feature = "vulkan", feature = "gl", feature = "cuda"))]
    #[test]
    fn a_timeline_semaphore_requires_a_value_and_a_binary_one_rejects_it() {
        SemaphoreKind::Binary.check_value(None).unwrap();
        SemaphoreKind::Timeline.check_value(Some(0)).unwrap();
        let given = SemaphoreKind::Binary.check_value(Some(1)).unwrap_err().to_string();
        assert!(given.contains("binary"), "{given}");
        let missing = SemaphoreKind::Timeline.check_value(None).unwrap_err().to_string();
        assert!(missing.contains("missing for a timeline"), "{missing}");
    }

    #[test]
    fn a_timeline_semaphore_is_never_a_sync_fd() {
        let info = SemaphoreInfo {
            handle_type: SemaphoreHandleType::SyncFd,
            kind: SemaphoreKind::Timeline,
            identity: identity(1),
        };
        let file = file(1);
        let raw = file.as_raw_fd();
        let (fd, error) = SemaphorePayload::new(file.into(), info).unwrap_err().into_parts();
        assert!(error.to_string().contains("timeline"), "{error}");
        assert_eq!(fd.as_raw_fd(), raw);
    }

    proptest! {
        #[test]
        fn a_buffer_payload_never_reaches_past_its_allocation(
            offset in prop_oneof![0u64..200, any::<u64>()],
            size in prop_oneof![0u64..200, any::<u64>()],
            allocation in prop_oneof![1u64..200, 1..=u64::MAX],
        ) {
            let memory = memory(File::open("/dev/null").unwrap(), allocation);
            let raw = memory.as_fd().as_raw_fd();
            let fits = size > 0 && u128::from(offset) + u128::from(size) <= u128::from(allocation);
            match BufferPayload::new(memory, offset, BufferDesc::storage(size)) {
                Ok(payload) => {
                    prop_assert!(fits);
                    prop_assert_eq!(payload.offset(), offset);
                }
                Err(error) => {
                    prop_assert!(!fits);
                    let back = error.into_payload();
                    prop_assert_eq!(back.as_fd().as_raw_fd(), raw);
                }
            }
        }
    }

    fn linear_image(width: u32, height: u32) -> ImageDesc {
        let desc = ImageDesc::d2(Format::Rgba8Unorm, width, height, ImageUsage::SAMPLED);
        ImageDesc { tiling: Tiling::Linear, ..desc }
    }

    fn laid_out(
        desc: ImageDesc,
        allocation: u64,
        offset: u64,
        linear: LinearLayout,
    ) -> Result<ImagePayload> {
        let memory = memory(File::open("/dev/null").unwrap(), allocation);
        Ok(ImagePayload::new(memory, offset, desc)?.with_linear(linear)?)
    }

    #[test]
    fn a_linear_images_rows_lie_within_the_allocation() {
        let desc = linear_image(10, 3);
        let linear = LinearLayout { offset: 16, row_pitch: 64, depth_pitch: 0, array_pitch: 0 };
        // The last row needs no more than its texels.
        let end = 256 + 16 + 2 * 64 + 40;
        assert_eq!(laid_out(desc, end, 256, linear).unwrap().linear(), Some(&linear));
        let layers = ImageDesc { layers: 2, ..desc };
        let optimal = ImageDesc { tiling: Tiling::Optimal, ..desc };
        for (desc, allocation, linear) in [
            (desc, end - 1, linear),
            (desc, end, LinearLayout { row_pitch: 39, ..linear }),
            (desc, end, LinearLayout { row_pitch: u64::MAX, ..linear }),
            (desc, end, LinearLayout { offset: u64::MAX, ..linear }),
            (layers, 2 * end, LinearLayout { array_pitch: 100, ..linear }),
            (layers, 2 * end, LinearLayout { array_pitch: u64::MAX, ..linear }),
            (optimal, end, linear),
        ] {
            let refused = laid_out(desc, allocation, 256, linear);
            assert!(matches!(refused, Err(Error::Invalid(_))), "{desc:?} {linear:?}: {refused:?}");
        }
        laid_out(layers, 2 * end, 256, LinearLayout { array_pitch: 192, ..linear }).unwrap();
    }
}

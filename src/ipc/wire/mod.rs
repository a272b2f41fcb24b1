//! The wire format, version 1, byte for byte. Pure: bytes in, values out; no socket, no descriptor.
//!
//! A client in another language can be written from this page alone.
//!
//! # The stream
//! An `AF_UNIX` `SOCK_STREAM` socket carries messages one after the other, nothing between them.
//! A message is a 16-byte header and a body. Its file descriptor, where it has one, is attached as
//! `SCM_RIGHTS` to the message's **first byte**: so the sender passes it with the `sendmsg` that
//! carries that byte, and the receiver gets it with the `recvmsg` that returns that byte. A receiver
//! reads 16 bytes, then `body length` bytes, and never past the end of a message: else it might be
//! handed the next one's descriptor.
//!
//! All integers are little-endian. All offsets and lengths are in bytes. Reserved bytes are 0, and so
//! is a value whose presence flag is 0. A flag is 0 or 1. Every value has one encoding only; anything
//! else is refused, and what is refused is not guessed at.
//!
//! A message has at most 4096 bytes ([`MAX_MESSAGE`]) with its header.
//!
//! # Header: 16 bytes
//! | offset | bytes | field | value |
//! |---|---|---|---|
//! | 0 | 4 | magic | `47 49 50 43`, ASCII `GIPC` |
//! | 4 | 2 | version | 1 |
//! | 6 | 2 | kind | see below |
//! | 8 | 4 | body length | what follows the header, at most 4080 |
//! | 12 | 2 | descriptors | how many ride on the first byte |
//! | 14 | 2 | reserved | 0 |
//!
//! | kind | message | descriptors |
//! |---|---|---|
//! | 0 | never sent | |
//! | 1 | memory payload | 1 |
//! | 2 | buffer payload | 1 |
//! | 3 | image payload | 1 |
//! | 4 | semaphore payload | 1 |
//! | 5 – 15 | reserved for further payloads | |
//! | 16 | join | 0 |
//! | 17 | ring | 0 |
//! | 18 | ready | 0 |
//! | 19 | frame | 0 |
//! | 20 | release | 0 |
//! | 21 | leave | 0 |
//! | 22 – 63 | reserved for sessions | |
//! | 64 – 65535 | reserved | |
//!
//! A receiver refuses a version or a kind that it does not know. The first six bytes of the header
//! stay as they are in every version.
//!
//! # Memory block: 56 bytes, which begin the body of kinds 1, 2 and 3
//! | offset | bytes | field | value |
//! |---|---|---|---|
//! | 0 | 4 | handle type | `VkExternalMemoryHandleTypeFlagBits`: 1 opaque fd, 0x200 dma-buf |
//! | 4 | 1 | dedicated | flag: the allocation belongs to one resource |
//! | 5 | 1 | has memory type | flag |
//! | 6 | 1 | has driver UUID | flag |
//! | 7 | 1 | reserved | 0 |
//! | 8 | 4 | memory type index | the exporter's Vulkan memory type |
//! | 12 | 4 | name length *n* | at most 256 |
//! | 16 | 8 | allocation size | bytes of the whole allocation |
//! | 24 | 16 | device UUID | `VkPhysicalDeviceIDProperties::deviceUUID` |
//! | 40 | 16 | driver UUID | `VkPhysicalDeviceIDProperties::driverUUID` |
//!
//! *Name* is the exporter's device name, for people only: *n* bytes of UTF-8 without control
//! characters and without a terminating 0.
//!
//! # Kind 1, memory payload: 56 + *n* bytes
//! | offset | bytes | field | value |
//! |---|---|---|---|
//! | 0 | 56 | memory block | |
//! | 56 | *n* | name | |
//!
//! # Kind 2, buffer payload: 80 + *n* bytes
//! | offset | bytes | field | value |
//! |---|---|---|---|
//! | 0 | 56 | memory block | |
//! | 56 | 8 | offset | where in the allocation the buffer begins |
//! | 64 | 8 | size | of the buffer, at least 1 |
//! | 72 | 4 | usage | `VkBufferUsageFlags`, the bits of [`BufferUsage`](crate::BufferUsage) |
//! | 76 | 4 | reserved | 0 |
//! | 80 | *n* | name | |
//!
//! # Kind 3, image payload: 144 + *n* bytes
//! | offset | bytes | field | value |
//! |---|---|---|---|
//! | 0 | 56 | memory block | |
//! | 56 | 8 | offset | where in the allocation the image begins |
//! | 64 | 4 | format | `VkFormat`, one of [`Format`](crate::format::Format) |
//! | 68 | 4 | image kind | `VkImageViewType`: 0 1D, 1 2D, 2 3D, 3 cube |
//! | 72 | 4 | width | texels |
//! | 76 | 4 | height | texels, 1 for 1D |
//! | 80 | 4 | depth | texels, 1 for all but 3D |
//! | 84 | 4 | layers | at least 1 |
//! | 88 | 4 | levels | mip levels, at least 1 |
//! | 92 | 4 | samples | 1, 2, 4, 8, 16, 32 or 64 |
//! | 96 | 4 | tiling | `VkImageTiling`: 0 optimal, 1 linear |
//! | 100 | 4 | usage | `VkImageUsageFlags`, the bits of [`ImageUsage`](crate::ImageUsage) |
//! | 104 | 4 | flags | `VkImageCreateFlags`: 0, or 8 for mutable format |
//! | 108 | 1 | has linear layout | flag: the four fields from 112 on are known |
//! | 109 | 3 | reserved | 0 |
//! | 112 | 8 | linear offset | from the image's beginning to its first texel |
//! | 120 | 8 | row pitch | from one row to the next |
//! | 128 | 8 | depth pitch | from one slice of a 3D image to the next |
//! | 136 | 8 | array pitch | from one array layer to the next |
//! | 144 | *n* | name | |
//!
//! The linear layout is [`LinearLayout`](crate::payload::LinearLayout), level 0 of
//! `VkSubresourceLayout`. A linear image comes with it or without. With an optimal one it is well
//! formed here, and refused when the payload is made of the message, as is a layout that does not lie
//! in the allocation. A pitch without meaning (the depth pitch of a 2D image) is any number.
//!
//! # Kind 4, semaphore payload: 48 + *n* bytes
//! | offset | bytes | field | value |
//! |---|---|---|---|
//! | 0 | 4 | handle type | `VkExternalSemaphoreHandleTypeFlagBits`: 1 opaque fd, 0x10 sync fd |
//! | 4 | 4 | semaphore kind | `VkSemaphoreType`: 0 binary, 1 timeline |
//! | 8 | 1 | has driver UUID | flag |
//! | 9 | 3 | reserved | 0 |
//! | 12 | 4 | name length *n* | at most 256 |
//! | 16 | 16 | device UUID | |
//! | 32 | 16 | driver UUID | |
//! | 48 | *n* | name | |
//!
//! # Sessions
//! A [session](super::session) is one connection between a producer, which listens, and a consumer:
//!
//! 1. The consumer sends *join*.
//! 2. The producer sends *ring*, then the payload of each slot in the order of their numbers (kind 1, 2
//!    or 3), then each semaphore (kind 4, timeline).
//! 3. The consumer imports them and sends *ready*.
//! 4. The producer sends *frame* for each frame, with a slot that the consumer does not have. The
//!    consumer sends *release* when it no longer uses the slot, in any order. So there are never more
//!    frames under way than the ring has slots.
//! 5. Either side sends *leave* and closes the socket, at any time. Nothing follows a *leave*.
//!
//! A side that gets anything else, or at another time, sends *leave* with reason 4 and closes.
//! Frames that arrived before a *leave* with reason 0 are good; before any other, or before an end
//! without *leave*, the producer may already have written over them.
//!
//! # Kind 16, join: 4 + *n* bytes
//! | offset | bytes | field | value |
//! |---|---|---|---|
//! | 0 | 4 | name length *n* | at most 256 |
//! | 4 | *n* | name | the consumer's, as a device's name above |
//!
//! # Kind 17, ring: 20 + *n* + *m* bytes
//! | offset | bytes | field | value |
//! |---|---|---|---|
//! | 0 | 4 | slots | 1 to 64: so many payloads follow |
//! | 4 | 4 | semaphores | 0 to 8: so many follow the payloads |
//! | 8 | 1 | leaves out | flag: a slow consumer misses frames, else it holds the producer up |
//! | 9 | 3 | reserved | 0 |
//! | 12 | 4 | name length *n* | at most 256 |
//! | 16 | 4 | format length *m* | at most 256 |
//! | 20 | *n* | name | the ring's, as a device's name above |
//! | 20 + *n* | *m* | format | what a frame is, in the producer's words; as a name |
//!
//! # Kind 18, ready: 0 bytes
//!
//! # Kind 19, frame: 56 bytes
//! | offset | bytes | field | value |
//! |---|---|---|---|
//! | 0 | 4 | slot | from 0, less than the ring's slots |
//! | 4 | 1 | has point | flag: the frame is there when a semaphore reaches a value |
//! | 5 | 1 | has layouts | flag |
//! | 6 | 2 | reserved | 0 |
//! | 8 | 8 | sequence | of the session's frames, from 1, growing |
//! | 16 | 4 | semaphore | from 0, less than the ring's semaphores |
//! | 20 | 4 | reserved | 0 |
//! | 24 | 8 | value | of that semaphore |
//! | 32 | 4 | old layout | `VkImageLayout` before the release to `VK_QUEUE_FAMILY_EXTERNAL` |
//! | 36 | 4 | new layout | `VkImageLayout` after it |
//! | 40 | 8 | published | `CLOCK_MONOTONIC` when the frame was sent, nanoseconds |
//! | 48 | 8 | tag | the app's own |
//!
//! # Kind 20, release: 16 bytes
//! | offset | bytes | field | value |
//! |---|---|---|---|
//! | 0 | 4 | slot | one that the consumer has |
//! | 4 | 4 | reserved | 0 |
//! | 8 | 8 | sequence | of the frame that it came with |
//!
//! # Kind 21, leave: 4 bytes
//! | offset | bytes | field | value |
//! |---|---|---|---|
//! | 0 | 4 | reason | 0 done, 1 evicted, 2 refused (the peer's user may not), 3 full, 4 broke |
//!
//! # An example
//! A timeline semaphore of a device named "GPU", in full:
//! ```
//! use gpu_interop::fd::SemaphoreHandleType;
//! use gpu_interop::ipc::wire::Message;
//! use gpu_interop::payload::SemaphoreInfo;
//! use gpu_interop::{Identity, SemaphoreKind, Uuid};
//!
//! let message = Message::Semaphore(SemaphoreInfo {
//!     handle_type: SemaphoreHandleType::OpaqueFd,
//!     kind: SemaphoreKind::Timeline,
//!     identity: Identity {
//!         device: Uuid::from_bytes([0xaa; 16]),
//!         driver: Some(Uuid::from_bytes([0xbb; 16])),
//!         name: "GPU".into(),
//!     },
//! });
//! #[rustfmt::skip]
//! let bytes = [
//!     // magic, version, kind; body length, descriptors, reserved
//!     0x47, 0x49, 0x50, 0x43,  1, 0,  4, 0,   51, 0, 0, 0,  1, 0,  0, 0,
//!     // handle type, semaphore kind; has driver UUID, reserved, name length
//!     1, 0, 0, 0,  1, 0, 0, 0,   1,  0, 0, 0,  3, 0, 0, 0,
//!     // device UUID
//!     0xaa, 0xaa, 0xaa, 0xaa, 0xaa, 0xaa, 0xaa, 0xaa, 0xaa, 0xaa, 0xaa, 0xaa, 0xaa, 0xaa, 0xaa, 0xaa,
//!     // driver UUID
//!     0xbb, 0xbb, 0xbb, 0xbb, 0xbb, 0xbb, 0xbb, 0xbb, 0xbb, 0xbb, 0xbb, 0xbb, 0xbb, 0xbb, 0xbb, 0xbb,
//!     // name
//!     b'G', b'P', b'U',
//! ];
//! assert_eq!(message.encode(), bytes);
//! assert_eq!(Message::decode(&bytes)?, message);
//! # Ok::<(), gpu_interop::Error>(())
//! ```

mod fields;
mod header;
mod message;
mod resource;
mod session;

#[cfg(test)]
mod tests;

pub use header::{HEADER_LEN, Header, Kind, MAGIC, MAX_MESSAGE, VERSION};
pub use message::{MAX_NAME, Message};
pub use session::{
    FrameToken, Layouts, LeaveReason, MAX_SEMAPHORES, MAX_SLOTS, ReleaseToken, RingInfo,
    TimelinePoint,
};

//! The wire format, version 1, byte by byte.
//!
//! This page is complete: a client in another language can be written from it. The module itself
//! only converts between bytes and values; it uses no socket and no descriptor.
//!
//! # The stream
//! The transport is an `AF_UNIX` `SOCK_STREAM` socket. It carries messages one after the other,
//! with nothing in between. A message is a 16-byte header followed by a body.
//!
//! A message has at most one file descriptor, attached as `SCM_RIGHTS` to the **first byte** of the
//! message. The sender passes it to the `sendmsg` call that sends this byte; the receiver gets it
//! from the `recvmsg` call that returns this byte. A receiver reads 16 bytes, then as many bytes as
//! the field `body length` states. It must never read past the end of a message, because it could
//! then receive the descriptor of the next one.
//!
//! A message has at most 4096 bytes ([`MAX_MESSAGE`]), header included.
//!
//! # Conventions
//! - Integers are little-endian and unsigned, except for `VkFormat` and `VkImageLayout`, which are
//!   signed.
//! - Offsets and lengths are in bytes. The offsets in the tables of bodies count from the start of
//!   the body.
//! - A flag is 0 or 1.
//! - Reserved bytes are 0. A value whose flag is 0 is 0 as well.
//! - A text is UTF-8 of at most 256 bytes ([`MAX_NAME`]), without control characters (Unicode
//!   category Cc) and without a terminating 0. Its length may be 0.
//! - Texts follow the fields of fixed length, in the order of their length fields.
//! - Fields that only some messages of a kind have follow the texts.
//!
//! Each message has exactly one encoding. A receiver must refuse everything else: an unknown
//! version, kind or value, a reserved byte that is not 0, and a body that is too short or too long.
//!
//! # Header: 16 bytes
//! | offset | bytes | field | value |
//! |---|---|---|---|
//! | 0 | 4 | magic | `47 49 50 43`, ASCII `GIPC` |
//! | 4 | 2 | version | 1 |
//! | 6 | 2 | kind | see the next table |
//! | 8 | 4 | body length | bytes that follow the header, at most 4080 |
//! | 12 | 2 | descriptors | number of descriptors attached to the first byte |
//! | 14 | 2 | reserved | 0 |
//!
//! | kind | message | descriptors |
//! |---|---|---|
//! | 0 | never sent | |
//! | 1 | memory payload | 1 |
//! | 2 | buffer payload | 1 |
//! | 3 | image payload | 1 |
//! | 4 | semaphore payload | 1 |
//! | 5 – 15 | reserved for other payloads | |
//! | 16 | join | 0 |
//! | 17 | ring | 0 |
//! | 18 | ready | 0 |
//! | 19 | frame | 0 |
//! | 20 | release | 0 |
//! | 21 | leave | 0 |
//! | 22 – 63 | reserved for sessions | |
//! | 64 – 65535 | reserved | |
//!
//! Magic and version have the same place and size in every version.
//!
//! # Memory block: 56 bytes
//! The bodies of kinds 1, 2 and 3 begin with it.
//!
//! | offset | bytes | field | value |
//! |---|---|---|---|
//! | 0 | 4 | handle type | `VkExternalMemoryHandleTypeFlagBits`: 1 opaque fd, 0x200 dma-buf |
//! | 4 | 1 | dedicated | flag: the allocation belongs to one resource |
//! | 5 | 1 | has memory type | flag: the memory type index is present |
//! | 6 | 1 | has driver UUID | flag: the driver UUID is present |
//! | 7 | 1 | reserved | 0 |
//! | 8 | 4 | memory type index | the exporter's Vulkan memory type |
//! | 12 | 4 | name length *n* | of the exporter's device name, for people to read |
//! | 16 | 8 | allocation size | bytes of the whole allocation |
//! | 24 | 16 | device UUID | `VkPhysicalDeviceIDProperties::deviceUUID` |
//! | 40 | 16 | driver UUID | `VkPhysicalDeviceIDProperties::driverUUID` |
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
//! | 56 | 8 | offset | of the buffer in the allocation |
//! | 64 | 8 | size | of the buffer, at least 1 |
//! | 72 | 4 | usage | `VkBufferUsageFlags`, any bits of [`BufferUsage`](crate::BufferUsage) and others |
//! | 76 | 4 | reserved | 0 |
//! | 80 | *n* | name | |
//!
//! # Kind 3, image payload: 144 + *n* + 4 *v* + 40 *r* bytes
//! | offset | bytes | field | value |
//! |---|---|---|---|
//! | 0 | 56 | memory block | |
//! | 56 | 8 | offset | of the image in the allocation |
//! | 64 | 4 | format | `VkFormat`; one of [`Format::ALL`](crate::format::Format::ALL), unless there is a raw format |
//! | 68 | 4 | image kind | `VkImageViewType`: 0 1D, 1 2D, 2 3D, 3 cube |
//! | 72 | 4 | width | texels |
//! | 76 | 4 | height | texels; 1 for 1D |
//! | 80 | 4 | depth | texels; 1 unless 3D |
//! | 84 | 4 | layers | at least 1 |
//! | 88 | 4 | levels | mip levels, at least 1 |
//! | 92 | 4 | samples | 1, 2, 4, 8, 16, 32 or 64 |
//! | 96 | 4 | tiling | `VkImageTiling`: 0 optimal, 1 linear |
//! | 100 | 4 | usage | `VkImageUsageFlags`, any bits of [`ImageUsage`](crate::ImageUsage) and others |
//! | 104 | 4 | flags | `VkImageCreateFlags`, any bits of [`ImageFlags`](crate::desc::ImageFlags) and others |
//! | 108 | 1 | has linear layout | flag: the four fields from 112 on are present |
//! | 109 | 1 | origin | the corner at which texel (0, 0) is: 0 upper left, 1 lower left |
//! | 110 | 1 | view formats *v* | number of view formats, 0 to 8 |
//! | 111 | 1 | has raw format *r* | flag: the raw format is present |
//! | 112 | 8 | linear offset | from the start of the image to its first texel |
//! | 120 | 8 | row pitch | from one row to the next |
//! | 128 | 8 | depth pitch | from one slice of a 3D image to the next |
//! | 136 | 8 | array pitch | from one array layer to the next |
//! | 144 | *n* | name | |
//! | 144 + *n* | 4 *v* | view formats | `VkFormat` values: `VkImageFormatListCreateInfo` |
//! | 144 + *n* + 4 *v* | 40 *r* | raw format | |
//!
//! Usages, flags and formats are passed on unchanged: only the import shows whether the receiver's
//! driver supports them. Flags that a shared image can't have, and a raw format that contradicts
//! itself, are well formed; the receiver refuses the payload.
//!
//! The linear layout is that of mip level 0, `VkSubresourceLayout` without its size; see
//! [`LinearLayout`](crate::payload::LinearLayout). It is optional for a linear image. A pitch that
//! has no meaning for the image, such as the depth pitch of a 2D image, may have any value. A
//! message that has a linear layout for an optimal image, or one that does not fit into the
//! allocation, is well formed; the receiver refuses the payload.
//!
//! # Raw format: 40 bytes
//! A format that isn't in the receiver's table, or that has other names in OpenGL or CUDA; see
//! [`RawFormat`](crate::format::RawFormat).
//!
//! | offset | bytes | field | value |
//! |---|---|---|---|
//! | 0 | 4 | block bytes | per texel block, at least 1 |
//! | 4 | 4 | block width | texels, at least 1 |
//! | 8 | 4 | block height | texels, at least 1 |
//! | 12 | 4 | aspects | `VkImageAspectFlags`: 1 colour, 2 depth, 4 stencil, 6 both |
//! | 16 | 1 | has OpenGL format | flag: the fields from 20 on are present |
//! | 17 | 1 | has CUDA format | flag: the fields from 32 on are present |
//! | 18 | 2 | reserved | 0 |
//! | 20 | 4 | OpenGL internal format | |
//! | 24 | 4 | OpenGL format | for uploads; 0 if unknown |
//! | 28 | 4 | OpenGL type | for uploads; 0 if unknown |
//! | 32 | 4 | CUDA array format | `CUarray_format` |
//! | 36 | 4 | CUDA channels | 1, 2 or 4 |
//!
//! # Kind 4, semaphore payload: 48 + *n* bytes
//! | offset | bytes | field | value |
//! |---|---|---|---|
//! | 0 | 4 | handle type | `VkExternalSemaphoreHandleTypeFlagBits`: 1 opaque fd, 0x10 sync fd |
//! | 4 | 4 | semaphore kind | `VkSemaphoreType`: 0 binary, 1 timeline |
//! | 8 | 1 | has driver UUID | flag: the driver UUID is present |
//! | 9 | 3 | reserved | 0 |
//! | 12 | 4 | name length *n* | of the exporter's device name, for people to read |
//! | 16 | 16 | device UUID | `VkPhysicalDeviceIDProperties::deviceUUID` |
//! | 32 | 16 | driver UUID | `VkPhysicalDeviceIDProperties::driverUUID` |
//! | 48 | *n* | name | |
//!
//! # Sessions
//! A [session](crate::session) is one connection between a producer, which listens, and a consumer:
//!
//! 1. The consumer sends *join*.
//! 2. The producer sends *ring*, then one payload per slot in the order of the slots (kind 1, 2 or
//!    3), then one payload per semaphore (kind 4, timeline).
//! 3. The consumer imports the payloads and sends *ready*.
//! 4. The producer sends *frame* for each frame. The slot of a frame must not be held by the
//!    consumer, so that a consumer never has more frames than the ring has slots. The consumer
//!    sends *release* when it no longer uses the slot. It may release its slots in any order.
//! 5. Either side may send *leave* at any time, and closes the socket. Nothing follows *leave*.
//!
//! A side that receives any other message, or a message at another time, sends *leave* with reason
//! 4 and closes the socket.
//!
//! Frames that arrived before a *leave* with reason 0 are valid. If the connection ends with
//! another reason or without *leave*, the producer may already have written over the frames that
//! the consumer has.
//!
//! # Kind 16, join: 4 + *n* bytes
//! | offset | bytes | field | value |
//! |---|---|---|---|
//! | 0 | 4 | name length *n* | |
//! | 4 | *n* | name | of the consumer, for people to read |
//!
//! # Kind 17, ring: 20 + *n* + *m* bytes
//! | offset | bytes | field | value |
//! |---|---|---|---|
//! | 0 | 4 | slots | number of slots, 1 to 64 |
//! | 4 | 4 | semaphores | number of semaphores, 0 to 8 |
//! | 8 | 1 | drops frames | flag: a slow consumer misses frames; if 0, the producer waits for it |
//! | 9 | 3 | reserved | 0 |
//! | 12 | 4 | name length *n* | |
//! | 16 | 4 | format length *m* | |
//! | 20 | *n* | name | of the ring, for people to read |
//! | 20 + *n* | *m* | format | what a frame contains; the two applications agree on its meaning |
//!
//! # Kind 18, ready: 0 bytes
//!
//! # Kind 19, frame: 56 bytes
//! | offset | bytes | field | value |
//! |---|---|---|---|
//! | 0 | 4 | slot | index of the slot, from 0 |
//! | 4 | 1 | has point | flag: semaphore and value are present |
//! | 5 | 1 | has layouts | flag: both layouts are present |
//! | 6 | 2 | reserved | 0 |
//! | 8 | 8 | sequence | sequence number of the frame, starting at 1 and increasing |
//! | 16 | 4 | semaphore | index of a semaphore, from 0 |
//! | 20 | 4 | reserved | 0 |
//! | 24 | 8 | value | the frame is complete when the semaphore has this value |
//! | 32 | 4 | old layout | `VkImageLayout` before the release to `VK_QUEUE_FAMILY_EXTERNAL` |
//! | 36 | 4 | new layout | `VkImageLayout` after this release |
//! | 40 | 8 | published | `CLOCK_MONOTONIC` when the frame was sent, in nanoseconds |
//! | 48 | 8 | tag | a number with a meaning of the application's own |
//!
//! A frame without semaphore and value is already complete.
//!
//! # Kind 20, release: 16 bytes
//! | offset | bytes | field | value |
//! |---|---|---|---|
//! | 0 | 4 | slot | index of a slot that the consumer holds |
//! | 4 | 4 | reserved | 0 |
//! | 8 | 8 | sequence | sequence number of the frame in it |
//!
//! # Kind 21, leave: 4 bytes
//! | offset | bytes | field | value |
//! |---|---|---|---|
//! | 0 | 4 | reason | see the next table |
//!
//! | reason | meaning |
//! |---|---|
//! | 0 | done |
//! | 1 | evicted: the consumer took too long to join, or to release slots |
//! | 2 | refused: the peer's user may not take part |
//! | 3 | full: the producer has as many consumers as it accepts |
//! | 4 | protocol error: the peer sent a message that it must not send |
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
mod message;
mod payload;
mod session;

#[cfg(test)]
mod tests;

pub use fields::MAX_NAME;
pub use message::{HEADER_LEN, Header, Kind, MAGIC, MAX_MESSAGE, Message, VERSION};
pub use session::{
    FrameToken, Layouts, LeaveReason, MAX_SEMAPHORES, MAX_SLOTS, ReleaseToken, RingInfo,
    TimelinePoint,
};

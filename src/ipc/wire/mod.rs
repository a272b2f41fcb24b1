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
//! Out-of-band data (`MSG_OOB`) is refused: it ends the connection. So are descriptors on any other byte
//! and more than one of them. From Linux 6.16 on, a socket on which no descriptor is expected rejects
//! them (`SO_PASSRIGHTS`): the sender's `sendmsg` fails with EPERM.
//!
//! # Conventions
//! - Integers are little-endian and unsigned, except for `VkFormat` and `VkImageLayout`, which are
//!   signed.
//! - Offsets and lengths are in bytes. The offsets in the tables of bodies count from the start of
//!   the body.
//! - A flag is 0 or 1.
//! - Reserved bytes are 0. A value whose flag is 0 is 0 as well.
//! - A text is UTF-8 of at most 256 bytes ([`MAX_NAME`]), without control characters (Unicode
//!   category Cc: U+0000 to U+001F and U+007F to U+009F) and without a terminating 0. It may contain
//!   every other character. Its length may be 0.
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
//! The usage has at least one bit, and offset + size is at most the allocation size. A message that
//! breaks this is well formed; the receiver refuses the payload.
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
//! # What a descriptor must be
//! A receiver examines the descriptor before a driver sees it, and refuses the payload if it is
//! something that no driver exports. Memory with an opaque fd is one of these:
//! - *A memfd*, as software drivers export. It is open for reading and writing, at least as long as the
//!   allocation size, sealed against shrinking (`F_SEAL_SHRINK`) and not against writing
//!   (`F_SEAL_WRITE`, `F_SEAL_FUTURE_WRITE`). A file in a file system is refused.
//! - *A character device of NVIDIA's driver* (major number 195).
//! - *A dma-buf*, which is the only memory with the handle type dma-buf.
//!
//! A semaphore is a character device of NVIDIA's driver or has no file type, like a sync file. It is not
//! a file.
//!
//! What an opaque fd contains is the driver's matter. Of the drivers without a GPU, lavapipe 22.3 to 25
//! begins the memfd with a header of 4096 bytes: the file's length as `u64`; the offset of the allocation
//! in the file as `u64`, 4096; and 16 bytes by which the driver recognises its own memory. The allocation
//! follows, so the file is longer than the
//! allocation size. A process without a GPU API can map the file and use the bytes from there on; it must
//! not change the header, which every later importer trusts. All offsets of this format count from the
//! start of the allocation, not of the file.
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
//! ## The socket
//! The producer's socket has mode 0600 unless the application changes it, so processes of other users
//! can't connect. Both sides also check the user of the other (`SO_PEERCRED`).
//!
//! ## Sequence numbers
//! They are the producer's: it numbers its frames from 1. The first one that a consumer gets may be any
//! number, since it may have joined late. Each further one is larger. It is larger by 1, unless the
//! producer left the consumer out: if the ring *drops frames*, while the consumer was too slow; otherwise
//! only before the consumer has released its first frame.
//!
//! ## Leaving
//! A producer may refuse a connection before it has read *join*. So a consumer may get *leave* instead of
//! the ring, even if it has not sent anything. After *leave* the sender closes the socket: the next read
//! ends with 0 bytes, or with ECONNRESET if the sender had not read everything; a write ends with EPIPE.
//! A side that gets *leave* does not answer it.
//!
//! A consumer that can't import the ring sends *leave* with reason 0, as one that is done.
//!
//! ## Deadlines
//! | within | by default | or else |
//! |---|---|---|
//! | from connecting to *ready* | 10 s ([`join_timeout`](crate::session::ProducerOptions::join_timeout)) | *leave* with reason 1 |
//! | from getting a frame to releasing one, while the producer waits for a slot | 750 ms ([`evict_after`](crate::session::ProducerOptions::evict_after)) | *leave* with reason 1 |
//! | from connecting to the last payload of the ring | 5 s ([`JoinOptions::timeout`](crate::session::JoinOptions::timeout)) | the consumer gives up |
//!
//! The second one counts from the last release, or from the first frame if the consumer held none. A
//! connection that has not sent *join* may be closed after 160 ms, and a consumer that is not ready after 1 s,
//! if others need its place. Every message but the ring's must fit into the socket at once: a side whose
//! socket stays full is disconnected. A process that was disconnected with reason 1 or 4 gets reason 1 when
//! it connects again too early: at first 250 ms, twice as long each time, at most 30 s.
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
//! | reason | sent by | meaning |
//! |---|---|---|
//! | 0 | both | done |
//! | 1 | producer | evicted: the consumer took too long to join, or to release slots; or it joins again too early |
//! | 2 | producer | refused: the peer's user may not take part |
//! | 3 | producer | full: the producer has as many consumers as it accepts |
//! | 4 | both | protocol error: the peer sent a message that it must not send |
//!
//! A receiver accepts every reason from either side, and ends the session.
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
//!
//! # A session, byte by byte
//! A ring named "cam" with one buffer of 64 bytes at the start of an allocation of 8192 bytes, on a device
//! named "GPU". The consumer "eye" joins, gets one frame, releases it and leaves. `>` was sent by the
//! consumer and `<` by the producer.
//! ```
//! # use gpu_interop::ipc::wire::Message;
//! let session = "
//! > join
//!     47 49 50 43  01 00  10 00  07 00 00 00  00 00  00 00   header: kind 16, 7 bytes follow
//!     03 00 00 00  65 79 65                                  name: length, eye
//! < ring
//!     47 49 50 43  01 00  11 00  19 00 00 00  00 00  00 00   header: kind 17, 25 bytes follow
//!     01 00 00 00  00 00 00 00                               1 slot, 0 semaphores
//!     00  00 00 00                                           drops no frames; reserved
//!     03 00 00 00  02 00 00 00                               length of the name, of the format
//!     63 61 6d  75 38                                        cam, u8
//! < buffer, with the descriptor on its first byte
//!     47 49 50 43  01 00  02 00  53 00 00 00  01 00  00 00   header: kind 2, 83 bytes follow, 1 descriptor
//!     01 00 00 00  00  01  00  00                            opaque fd; not dedicated; memory type; no driver UUID
//!     03 00 00 00  03 00 00 00                               memory type index, length of the name
//!     00 20 00 00 00 00 00 00                                allocation size
//!     aa aa aa aa aa aa aa aa aa aa aa aa aa aa aa aa        device UUID
//!     00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00        driver UUID, absent
//!     00 00 00 00 00 00 00 00  40 00 00 00 00 00 00 00       offset, size
//!     20 00 00 00  00 00 00 00                               usage: storage buffer; reserved
//!     47 50 55                                               GPU
//! > ready
//!     47 49 50 43  01 00  12 00  00 00 00 00  00 00  00 00   header: kind 18, nothing follows
//! < frame
//!     47 49 50 43  01 00  13 00  38 00 00 00  00 00  00 00   header: kind 19, 56 bytes follow
//!     00 00 00 00  00  00  00 00                             slot 0; no point, no layouts; reserved
//!     07 00 00 00 00 00 00 00                                sequence number 7: the consumer joined late
//!     00 00 00 00  00 00 00 00  00 00 00 00 00 00 00 00      semaphore, reserved, value: absent
//!     00 00 00 00  00 00 00 00                               old and new layout: absent
//!     00 ca 9a 3b 00 00 00 00                                published at 1 s
//!     2a 00 00 00 00 00 00 00                                tag 42
//! > release
//!     47 49 50 43  01 00  14 00  10 00 00 00  00 00  00 00   header: kind 20, 16 bytes follow
//!     00 00 00 00  00 00 00 00  07 00 00 00 00 00 00 00      slot 0, reserved, sequence number 7
//! > leave
//!     47 49 50 43  01 00  15 00  04 00 00 00  00 00  00 00   header: kind 21, 4 bytes follow
//!     00 00 00 00                                            reason 0, done
//! ";
//! # let messages: Vec<&str> = session.split(['<', '>']).skip(1).collect();
//! # let names = ["join", "a ring", "a buffer", "ready", "a frame", "a release", "leave"];
//! # for (text, name) in messages.iter().zip(names) {
//! #     // Bytes come first in a line; three spaces end them.
//! #     let lines = text.lines().skip(1).map(|line| line.trim().split("   ").next().unwrap());
//! #     let bytes = lines.flat_map(str::split_whitespace).map(|b| u8::from_str_radix(b, 16));
//! #     let bytes = bytes.collect::<Result<Vec<u8>, _>>().unwrap();
//! #     let message = Message::decode(&bytes)?;
//! #     assert_eq!(message.encode(), bytes);
//! #     let words = name.split(' ').next_back().unwrap();
//! #     assert!(message.kind().name().contains(words), "{} is not {name}", message.kind().name());
//! # }
//! # assert_eq!(messages.len(), names.len());
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

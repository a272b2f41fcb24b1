//! The messages of a session: join, ring, ready, frame, release and leave.

use super::fields::{Reader, Writer};
use crate::desc::ImageLayout;
use crate::error::{Invalid, Result};

/// Maximum number of slots in a ring.
pub const MAX_SLOTS: usize = 64;

/// Maximum number of semaphores in a ring.
pub const MAX_SEMAPHORES: usize = 8;

/// The announcement of a ring. Its payloads follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RingInfo {
    /// Number of slots, 1 to [`MAX_SLOTS`]. One payload per slot follows.
    pub slots: u32,
    /// Number of semaphores, 0 to [`MAX_SEMAPHORES`]. Their payloads follow those of the slots.
    pub semaphores: u32,
    /// Whether a slow consumer misses frames. If not, the producer waits for it.
    pub drops_frames: bool,
    /// The ring's name, for people to read.
    pub name: String,
    /// What a frame contains, in terms that the two applications agree on.
    pub format: String,
}

/// A value of one of the ring's timeline semaphores. The work is done once the semaphore reaches
/// it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TimelinePoint {
    /// Index of the semaphore in the ring, from 0.
    pub semaphore: u32,
    /// The value to wait for.
    pub value: u64,
}

/// The `VkImageLayout`s of a release to `VK_QUEUE_FAMILY_EXTERNAL`. The acquire must use the same
/// two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Layouts {
    /// The layout before the release.
    pub old: ImageLayout,
    /// The layout after the release.
    pub new: ImageLayout,
}

/// A frame: the producer lends a slot to a consumer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FrameToken {
    /// Index of the slot in the ring, from 0.
    pub slot: u32,
    /// Sequence number of the frame in the session, starting at 1.
    pub sequence: u64,
    /// What to wait for before the slot is used; `None` if its work is already done.
    pub point: Option<TimelinePoint>,
    /// The layouts of the slot's image; `None` for a buffer, and for an image without a transfer.
    pub layouts: Option<Layouts>,
    /// `CLOCK_MONOTONIC` when the producer published the frame, in nanoseconds.
    pub published: u64,
    /// A number with a meaning of the application's own.
    pub tag: u64,
}

/// A release: the consumer returns a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ReleaseToken {
    /// Index of the slot in the ring, from 0.
    pub slot: u32,
    /// Sequence number of the frame that is released.
    pub sequence: u64,
}

/// Why a side ends the session. The discriminant is the number on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
#[repr(u32)]
pub enum LeaveReason {
    /// The sender is done.
    Done = 0,
    /// The consumer kept a slot for too long. The producer may write to its slots from now on.
    Evicted = 1,
    /// The peer's user may not take part.
    Refused = 2,
    /// The producer has as many consumers as it accepts.
    Full = 3,
    /// The peer violated the protocol.
    ProtocolError = 4,
}

impl LeaveReason {
    const ALL: [Self; 5] =
        [Self::Done, Self::Evicted, Self::Refused, Self::Full, Self::ProtocolError];
}

pub(super) fn write_join(body: &mut Writer, name: &str) {
    body.text(name);
}

pub(super) fn read_join(fields: &mut Reader<'_>) -> Result<String> {
    fields.text("body.name_length", "body.name")
}

pub(super) fn write_ring(body: &mut Writer, ring: &RingInfo) {
    let RingInfo { slots, semaphores, drops_frames, name, format } = ring;
    body.u32(*slots);
    body.u32(*semaphores);
    body.flag(*drops_frames);
    body.reserved::<3>();
    body.text(name);
    body.text(format);
}

pub(super) fn read_ring(fields: &mut Reader<'_>) -> Result<RingInfo> {
    let slots = fields.count("body.slots", 1..=MAX_SLOTS)?;
    let semaphores = fields.count("body.semaphores", 0..=MAX_SEMAPHORES)?;
    let drops_frames = fields.flag("body.drops_frames")?;
    fields.reserved::<3>("body.reserved")?;
    let name = fields.text("body.name_length", "body.name")?;
    let format = fields.text("body.format_length", "body.format")?;
    Ok(RingInfo { slots, semaphores, drops_frames, name, format })
}

pub(super) fn write_frame(body: &mut Writer, frame: &FrameToken) {
    let FrameToken { slot, sequence, point, layouts, published, tag } = *frame;
    body.u32(slot);
    body.flag(point.is_some());
    body.flag(layouts.is_some());
    body.reserved::<2>();
    body.u64(sequence);
    body.u32(point.map_or(0, |point| point.semaphore));
    body.reserved::<4>();
    body.u64(point.map_or(0, |point| point.value));
    body.i32(layouts.map_or(0, |layouts| layouts.old.as_raw()));
    body.i32(layouts.map_or(0, |layouts| layouts.new.as_raw()));
    body.u64(published);
    body.u64(tag);
}

pub(super) fn read_frame(fields: &mut Reader<'_>) -> Result<FrameToken> {
    let slot = read_slot(fields)?;
    let has_point = fields.flag("body.has_point")?;
    let has_layouts = fields.flag("body.has_layouts")?;
    fields.reserved::<2>("body.reserved")?;
    let sequence = read_sequence(fields)?;
    let semaphore = fields.optional("body.semaphore", has_point, Reader::u32)?;
    fields.reserved::<4>("body.reserved")?;
    let value = fields.optional("body.value", has_point, Reader::u64)?;
    let old = fields.optional("body.old_layout", has_layouts, Reader::i32)?;
    let old = old.map(ImageLayout::from_raw);
    let new = fields.optional("body.new_layout", has_layouts, Reader::i32)?;
    let new = new.map(ImageLayout::from_raw);
    Ok(FrameToken {
        slot,
        sequence,
        point: semaphore.zip(value).map(|(semaphore, value)| TimelinePoint { semaphore, value }),
        layouts: old.zip(new).map(|(old, new)| Layouts { old, new }),
        published: fields.u64("body.published")?,
        tag: fields.u64("body.tag")?,
    })
}

pub(super) fn write_release(body: &mut Writer, release: &ReleaseToken) {
    body.u32(release.slot);
    body.reserved::<4>();
    body.u64(release.sequence);
}

pub(super) fn read_release(fields: &mut Reader<'_>) -> Result<ReleaseToken> {
    let slot = read_slot(fields)?;
    fields.reserved::<4>("body.reserved")?;
    Ok(ReleaseToken { slot, sequence: read_sequence(fields)? })
}

fn read_slot(fields: &mut Reader<'_>) -> Result<u32> {
    fields.count("body.slot", 0..=MAX_SLOTS - 1)
}

fn read_sequence(fields: &mut Reader<'_>) -> Result<u64> {
    match fields.u64("body.sequence")? {
        0 => Err(Invalid::new("body.sequence", "is 0, but frames are numbered from 1").into()),
        sequence => Ok(sequence),
    }
}

pub(super) fn write_leave(body: &mut Writer, reason: LeaveReason) {
    body.u32(reason as u32);
}

pub(super) fn read_leave(fields: &mut Reader<'_>) -> Result<LeaveReason> {
    fields.one_of("body.reason", &LeaveReason::ALL, |reason| reason as u32)
}

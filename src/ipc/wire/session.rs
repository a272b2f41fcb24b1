//! What a session says: joining, the ring, frames and releases.

use super::fields::Fields;
use super::message::{name, name_len, optional, sendable_name, text, text_len, unknown};
use crate::desc::ImageLayout;
use crate::error::{Invalid, Result};

/// Slots of a ring at most.
pub const MAX_SLOTS: usize = 64;

/// Semaphores of a ring at most.
pub const MAX_SEMAPHORES: usize = 8;

/// What is said of a ring before its payloads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RingInfo {
    /// How many slots it has; so many payloads follow, 1 to [`MAX_SLOTS`].
    pub slots: u32,
    /// How many semaphores follow the payloads, at most [`MAX_SEMAPHORES`].
    pub semaphores: u32,
    /// Whether a slow consumer misses frames instead of holding the producer up.
    pub leaves_out: bool,
    /// What the ring is called.
    pub name: String,
    /// What a frame is, in the words of the producer's app.
    pub format: String,
}

/// A value of one of the ring's timeline semaphores: reached, the work is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TimelinePoint {
    /// Which of the ring's semaphores, from 0.
    pub semaphore: u32,
    /// The value that is waited for.
    pub value: u64,
}

/// The `VkImageLayout`s of a release to `VK_QUEUE_FAMILY_EXTERNAL`. The acquire names the same pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Layouts {
    /// The layout before the release.
    pub old: ImageLayout,
    /// The layout that the release leaves the image in.
    pub new: ImageLayout,
}

/// A slot that goes from the producer to a consumer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FrameToken {
    /// Which slot of the ring, from 0.
    pub slot: u32,
    /// The how manieth frame of the session this is, from 1.
    pub sequence: u64,
    /// What to wait for; `None` where the producer's host has seen its work done.
    pub point: Option<TimelinePoint>,
    /// The layouts of the slot's image; `None` for buffers, and where there is no transfer.
    pub layouts: Option<Layouts>,
    /// `CLOCK_MONOTONIC` of the producer when it sent the frame, in nanoseconds.
    pub published: u64,
    /// The producer's app's own.
    pub tag: u64,
}

/// A slot that a consumer gives back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ReleaseToken {
    /// Which slot of the ring, from 0.
    pub slot: u32,
    /// The frame that it was sent with.
    pub sequence: u64,
}

/// Why a side ends the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
#[repr(u32)]
pub enum LeaveReason {
    /// It is done.
    Done = 0,
    /// The consumer kept a slot too long; the producer writes to its slots from now on.
    Evicted = 1,
    /// The peer's user is not one that may take part.
    Refused = 2,
    /// The producer has as many consumers as it takes.
    Full = 3,
    /// What the peer sent makes no sense.
    Broke = 4,
}

impl LeaveReason {
    const ALL: [Self; 5] = [Self::Done, Self::Evicted, Self::Refused, Self::Full, Self::Broke];
}

pub(crate) fn put_join(bytes: &mut Vec<u8>, name: &str) -> String {
    let name = sendable_name(name);
    bytes.extend((name.len() as u32).to_le_bytes());
    name
}

pub(crate) fn join(fields: &mut Fields<'_>) -> Result<String> {
    let len = name_len(fields)?;
    name(fields, len)
}

/// Writes a ring; what comes back goes at the end of the body.
pub(crate) fn put_ring(bytes: &mut Vec<u8>, ring: &RingInfo) -> String {
    let RingInfo { slots, semaphores, leaves_out, name, format } = ring;
    let (name, format) = (sendable_name(name), sendable_name(format));
    bytes.extend(slots.to_le_bytes());
    bytes.extend(semaphores.to_le_bytes());
    bytes.extend([u8::from(*leaves_out), 0, 0, 0]);
    bytes.extend((name.len() as u32).to_le_bytes());
    bytes.extend((format.len() as u32).to_le_bytes());
    name + &format
}

pub(crate) fn ring(fields: &mut Fields<'_>) -> Result<RingInfo> {
    let slots = count(fields, "body.slots", 1, MAX_SLOTS)?;
    let semaphores = count(fields, "body.semaphores", 0, MAX_SEMAPHORES)?;
    let leaves_out = fields.flag("body.leaves_out")?;
    fields.reserved::<3>("body.reserved")?;
    let name_len = name_len(fields)?;
    let format_len = text_len(fields, "body.format_length")?;
    let name = name(fields, name_len)?;
    let format = text(fields, "body.format", format_len)?;
    Ok(RingInfo { slots, semaphores, leaves_out, name, format })
}

fn count(fields: &mut Fields<'_>, field: &'static str, least: usize, most: usize) -> Result<u32> {
    let count = fields.u32(field)?;
    if (least..=most).contains(&(count as usize)) {
        return Ok(count);
    }
    Err(Invalid::new(field, format!("is {count}, not {least} to {most}")).into())
}

pub(crate) fn put_frame(bytes: &mut Vec<u8>, frame: &FrameToken) -> String {
    let FrameToken { slot, sequence, point, layouts, published, tag } = frame;
    bytes.extend(slot.to_le_bytes());
    bytes.extend([u8::from(point.is_some()), u8::from(layouts.is_some()), 0, 0]);
    bytes.extend(sequence.to_le_bytes());
    let TimelinePoint { semaphore, value } =
        point.unwrap_or(TimelinePoint { semaphore: 0, value: 0 });
    bytes.extend(semaphore.to_le_bytes());
    bytes.extend([0; 4]);
    bytes.extend(value.to_le_bytes());
    let (old, new) = layouts.map_or((0, 0), |layouts| (layouts.old.as_raw(), layouts.new.as_raw()));
    bytes.extend(old.to_le_bytes());
    bytes.extend(new.to_le_bytes());
    bytes.extend(published.to_le_bytes());
    bytes.extend(tag.to_le_bytes());
    String::new()
}

pub(crate) fn frame(fields: &mut Fields<'_>) -> Result<FrameToken> {
    let slot = slot(fields)?;
    let has_point = fields.flag("body.has_point")?;
    let has_layouts = fields.flag("body.has_layouts")?;
    fields.reserved::<2>("body.reserved")?;
    let sequence = sequence(fields)?;
    let semaphore = fields.u32("body.semaphore")?;
    let semaphore = optional("body.semaphore", has_point, semaphore, 0)?;
    fields.reserved::<4>("body.reserved")?;
    let value = fields.u64("body.value")?;
    let value = optional("body.value", has_point, value, 0)?;
    let old = fields.i32("body.old_layout")?;
    let old = optional("body.old_layout", has_layouts, old, 0)?;
    let new = fields.i32("body.new_layout")?;
    let new = optional("body.new_layout", has_layouts, new, 0)?;
    Ok(FrameToken {
        slot,
        sequence,
        point: semaphore.zip(value).map(|(semaphore, value)| TimelinePoint { semaphore, value }),
        layouts: old.zip(new).map(|(old, new)| Layouts {
            old: ImageLayout::from_raw(old),
            new: ImageLayout::from_raw(new),
        }),
        published: fields.u64("body.published")?,
        tag: fields.u64("body.tag")?,
    })
}

pub(crate) fn put_release(bytes: &mut Vec<u8>, release: &ReleaseToken) -> String {
    bytes.extend(release.slot.to_le_bytes());
    bytes.extend([0; 4]);
    bytes.extend(release.sequence.to_le_bytes());
    String::new()
}

pub(crate) fn release(fields: &mut Fields<'_>) -> Result<ReleaseToken> {
    let slot = slot(fields)?;
    fields.reserved::<4>("body.reserved")?;
    Ok(ReleaseToken { slot, sequence: sequence(fields)? })
}

fn slot(fields: &mut Fields<'_>) -> Result<u32> {
    count(fields, "body.slot", 0, MAX_SLOTS - 1)
}

fn sequence(fields: &mut Fields<'_>) -> Result<u64> {
    match fields.u64("body.sequence")? {
        0 => Err(Invalid::new("body.sequence", "is 0, but frames count from 1").into()),
        sequence => Ok(sequence),
    }
}

pub(crate) fn put_leave(bytes: &mut Vec<u8>, reason: LeaveReason) -> String {
    bytes.extend((reason as u32).to_le_bytes());
    String::new()
}

pub(crate) fn leave(fields: &mut Fields<'_>) -> Result<LeaveReason> {
    let number = fields.u32("body.reason")?;
    let known = LeaveReason::ALL.into_iter().find(|reason| *reason as u32 == number);
    known.ok_or_else(|| unknown("body.reason", number, "reason to leave"))
}

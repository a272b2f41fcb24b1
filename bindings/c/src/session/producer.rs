//! The producer's side.

use std::collections::BTreeMap;
use std::ffi::{CString, OsStr, c_char, c_int};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::ptr;
use std::time::Duration;

use gpu_interop::error::Invalid;
use gpu_interop::session::{
    ConsumerId, Event, FrameInfo, Layouts, LeaveKind, Producer, ProducerOptions, Ring,
    SlowConsumer, TimelinePoint, WritableSlot,
};
use gpu_interop::{ImageLayout, Result};

use super::{handles, policy};
use crate::args::{fill, grows, handle, nanoseconds, options, required, structure, text};
use crate::error::{gi_result, guard, guard_value};
use crate::payload::{c_text, gi_payload};
use crate::semaphore::gi_semaphore;

/// How a producer treats its consumers. Null means all defaults.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct gi_producer_options {
    /// `sizeof(gi_producer_options)`.
    pub struct_size: usize,
    /// Maximum number of connections. Default: 16.
    pub max_consumers: u32,
    /// The number of slots that a consumer may hold before it misses frames. Default: the producer
    /// waits for slow consumers, and no frame is missed.
    pub drop_frames_held: u32,
    /// A consumer that holds slots and has released none for this long, in nanoseconds, is evicted
    /// when the producer waits for a slot. Default: 750 milliseconds.
    pub evict_after_ns: u64,
    /// Maximum time from a consumer's connection to `gi_consumer_ready`, in nanoseconds. Default:
    /// 10 seconds.
    pub join_timeout_ns: u64,
    /// A `gi_peer_policy`. Default: the user of this process.
    pub allowed: u32,
    /// The number of elements in `users`.
    pub user_count: u32,
    /// The user IDs of `GI_PEER_POLICY_USERS`.
    pub users: *const u32,
}

/// A frame.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct gi_frame_info {
    /// `sizeof(gi_frame_info)`.
    pub struct_size: usize,
    /// A number with a meaning of the application's own.
    pub tag: u64,
    /// 1 if the frame is complete when a semaphore of the ring has a value. Otherwise the producer
    /// has waited for its work before it publishes.
    pub has_point: u32,
    /// The index of this semaphore in the ring.
    pub point_semaphore: u32,
    /// The value of this semaphore.
    pub point_value: u64,
    /// 1 if the slot is an image, with the layouts of the release to `VK_QUEUE_FAMILY_EXTERNAL`.
    pub has_layouts: u32,
    /// The `VkImageLayout` before the release.
    pub old_layout: i32,
    /// The `VkImageLayout` after the release.
    pub new_layout: i32,
    /// The index of the slot. Only consumers read it.
    pub slot: u32,
    /// The sequence number of the frame in the session, from 1. Only consumers read it.
    pub sequence: u64,
    /// The time since the frame was published, in nanoseconds. Only consumers read it.
    pub age_ns: u64,
}

/// What happened to a frame that was published.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct gi_published {
    /// `sizeof(gi_published)`.
    pub struct_size: usize,
    /// The sequence number of the frame in the session, from 1.
    pub sequence: u64,
    /// The number of consumers that got the frame.
    pub sent: usize,
    /// The number of consumers that missed it.
    pub dropped: usize,
}

/// What happened in a session.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum gi_event_kind {
    /// Nothing within the timeout.
    None = 0,
    /// A consumer joined; `text` is its name.
    Joined = 1,
    /// A consumer left.
    Left = 2,
    /// The process of a consumer ended.
    Died = 3,
    /// A consumer was evicted.
    Evicted = 4,
    /// A consumer violated the protocol; `text` describes how.
    ProtocolError = 5,
    /// A process did not join; `text` describes why.
    NotJoined = 6,
    /// An event that this version of the header doesn't have; `text` describes it.
    Other = 7,
}

/// An event of a session.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct gi_event {
    /// `sizeof(gi_event)`.
    pub struct_size: usize,
    /// A `gi_event_kind`.
    pub kind: u32,
    /// The process, for joined and not joined.
    pub pid: u32,
    /// The effective user of the process, for joined and not joined.
    pub uid: u32,
    /// The number of slots that the consumer held, if it is gone.
    pub held: u32,
    /// The consumer's number in this producer, from 1; 0 for not joined.
    pub consumer: u64,
    /// A text, or empty. Valid until the next event of this producer.
    pub text: *const c_char,
}

grows!(gi_producer_options, gi_frame_info, gi_published, gi_event);

impl gi_producer_options {
    /// # Safety
    /// `users` is null or valid for `user_count` elements.
    unsafe fn get(&self) -> Result<ProducerOptions> {
        let defaults = ProducerOptions::default();
        // SAFETY: the caller's promise.
        let allowed = unsafe { policy(self.allowed, self.users, self.user_count as usize) }?;
        Ok(ProducerOptions {
            max_consumers: match self.max_consumers {
                0 => defaults.max_consumers,
                count => count as usize,
            },
            evict_after: nanoseconds(self.evict_after_ns, defaults.evict_after),
            join_timeout: nanoseconds(self.join_timeout_ns, defaults.join_timeout),
            allowed,
            slow_consumer: match self.drop_frames_held {
                0 => SlowConsumer::Wait,
                held => SlowConsumer::DropFrames { max_held: held as usize },
            },
        })
    }
}

impl gi_frame_info {
    fn get(&self) -> FrameInfo {
        let layout = ImageLayout::from_raw;
        let (semaphore, value) = (self.point_semaphore, self.point_value);
        let layouts = Layouts { old: layout(self.old_layout), new: layout(self.new_layout) };
        FrameInfo {
            point: (self.has_point != 0).then_some(TimelinePoint { semaphore, value }),
            layouts: (self.has_layouts != 0).then_some(layouts),
            tag: self.tag,
        }
    }
}

/// The side of a session that has the ring and fills it. It starts no thread: consumers are served
/// within its calls. Used by one thread at a time.
pub struct gi_producer {
    producer: Producer,
    /// The consumers by their numbers.
    consumers: BTreeMap<u64, ConsumerId>,
    joined: u64,
    text: CString,
}

/// A slot that only the producer uses, and may write to.
pub struct gi_writable_slot(WritableSlot);

/// Announces a ring at `path`, to which only processes of the allowed users can connect.
///
/// `name` is for people to read, and `format` describes what a frame contains. `slots` are the
/// exports of 1 to 64 buffers or images, `semaphores` those of up to 8 timeline semaphores. If it
/// succeeds, all of the payloads are consumed and set to null. `producer_options` may be null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gi_producer_bind(
    path: *const c_char,
    name: *const c_char,
    format: *const c_char,
    slots: *mut Option<Box<gi_payload>>,
    slot_count: usize,
    semaphores: *mut Option<Box<gi_payload>>,
    semaphore_count: usize,
    producer_options: *const gi_producer_options,
    producer: Option<&mut MaybeUninit<Option<Box<gi_producer>>>>,
) -> gi_result {
    guard(|| {
        let out = required(producer, "producer")?;
        // SAFETY: the caller's promise.
        let (path, name, format, options) = unsafe {
            let options: gi_producer_options = options(producer_options, "options")?;
            (text(path, "path")?, text(name, "name")?, text(format, "format")?, options.get()?)
        };
        // SAFETY: the caller's promise.
        let (slots, semaphores) = unsafe {
            (
                handles(slots, slot_count, "slots")?,
                handles(semaphores, semaphore_count, "semaphores")?,
            )
        };
        // Duplicates: if binding fails, the payloads stay the caller's.
        let mut ring = Ring::new(name.to_string_lossy(), format.to_string_lossy());
        for payload in slots.iter().flatten() {
            ring = ring.slot(payload.0.try_clone()?);
        }
        for payload in semaphores.iter().flatten() {
            ring = ring.semaphore(payload.0.try_clone()?.into_semaphore()?);
        }
        let path = Path::new(OsStr::from_bytes(path.to_bytes()));
        let producer = Producer::bind(path, ring, options)?;
        slots.iter_mut().chain(semaphores).for_each(|payload| *payload = None);
        let (consumers, text) = (BTreeMap::new(), CString::default());
        out.write(Some(Box::new(gi_producer { producer, consumers, joined: 0, text })));
        Ok(())
    })
}

/// Returns a descriptor that is readable when `gi_producer_poll` has something to do; -1 for null.
/// The producer still owns it.
#[unsafe(no_mangle)]
pub extern "C" fn gi_producer_fd(producer: Option<&gi_producer>) -> c_int {
    producer.map_or(-1, |producer| producer.producer.as_fd().as_raw_fd())
}

/// Returns the number of consumers that are ready; 0 for null.
#[unsafe(no_mangle)]
pub extern "C" fn gi_producer_consumers(producer: Option<&gi_producer>) -> usize {
    guard_value(|| producer.map_or(0, |producer| producer.producer.consumers()))
}

/// Handles what is pending and writes the next event; `GI_EVENT_KIND_NONE` after `timeout_ns`
/// nanoseconds. Call it regularly if you call nothing else of the producer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gi_producer_poll(
    producer: Option<&mut gi_producer>,
    timeout_ns: u64,
    event: *mut gi_event,
) -> gi_result {
    guard(|| {
        let producer = required(producer, "producer")?;
        // SAFETY: the caller's promise.
        let mut written = unsafe { structure(event, "event") }?;
        let found = producer.producer.poll(Duration::from_nanos(timeout_ns))?;
        producer.describe(found, &mut written);
        // SAFETY: as above.
        unsafe { fill(event, &written) };
        Ok(())
    })
}

impl gi_producer {
    fn describe(&mut self, found: Option<Event>, event: &mut gi_event) {
        let mut text = String::new();
        let none = gi_event {
            struct_size: event.struct_size,
            kind: gi_event_kind::None as u32,
            pid: 0,
            uid: 0,
            held: 0,
            consumer: 0,
            text: ptr::null(),
        };
        *event = match found {
            Some(Event::Joined { consumer, name, pid, uid }) => {
                self.joined += 1;
                self.consumers.insert(self.joined, consumer);
                text = name;
                let kind = gi_event_kind::Joined as u32;
                gi_event { kind, pid, uid, consumer: self.joined, ..none }
            }
            Some(Event::Left { consumer, kind, held }) => {
                let number = self.consumers.iter().find(|&(_, &id)| id == consumer);
                let number = number.map_or(0, |(&number, _)| number);
                self.consumers.remove(&number);
                let kind = match kind {
                    LeaveKind::Leave => gi_event_kind::Left,
                    LeaveKind::Died => gi_event_kind::Died,
                    LeaveKind::Evicted { .. } => gi_event_kind::Evicted,
                    LeaveKind::ProtocolError(error) => {
                        text = error.to_string();
                        gi_event_kind::ProtocolError
                    }
                    other => {
                        text = format!("{other:?}");
                        gi_event_kind::Left
                    }
                };
                gi_event { kind: kind as u32, held: held as u32, consumer: number, ..none }
            }
            Some(Event::NotJoined { pid, uid, error }) => {
                text = error.to_string();
                gi_event { kind: gi_event_kind::NotJoined as u32, pid, uid, ..none }
            }
            Some(other) => {
                text = format!("{other:?}");
                gi_event { kind: gi_event_kind::Other as u32, ..none }
            }
            None => none,
        };
        self.text = c_text(text);
        event.text = self.text.as_ptr();
    }
}

/// Waits until `count` consumers are ready, at most `timeout_ns` nanoseconds.
#[unsafe(no_mangle)]
pub extern "C" fn gi_producer_wait_for_consumers(
    producer: Option<&mut gi_producer>,
    count: usize,
    timeout_ns: u64,
) -> gi_result {
    guard(|| {
        let producer = required(producer, "producer")?;
        producer.producer.wait_for_consumers(count, Duration::from_nanos(timeout_ns))
    })
}

/// Returns the slot that has been free for longest. Waits for one up to `timeout_ns` nanoseconds.
#[unsafe(no_mangle)]
pub extern "C" fn gi_producer_free_slot(
    producer: Option<&mut gi_producer>,
    timeout_ns: u64,
    slot: Option<&mut MaybeUninit<Option<Box<gi_writable_slot>>>>,
) -> gi_result {
    guard(|| {
        let (producer, out) = (required(producer, "producer")?, required(slot, "slot")?);
        let slot = producer.producer.free_slot(Duration::from_nanos(timeout_ns))?;
        out.write(Some(Box::new(gi_writable_slot(slot))));
        Ok(())
    })
}

/// Returns the index of a slot: that of its payload in `gi_producer_bind`. 0 for null.
#[unsafe(no_mangle)]
pub extern "C" fn gi_writable_slot_index(slot: Option<&gi_writable_slot>) -> usize {
    slot.map_or(0, |slot| slot.0.index())
}

/// Adds submitted work that uses the slot: it is done when the timeline semaphore of Vulkan has the
/// value. The slot is not free again before that.
#[unsafe(no_mangle)]
pub extern "C" fn gi_writable_slot_add_work(
    slot: Option<&mut gi_writable_slot>,
    semaphore: Option<&gi_semaphore>,
    value: u64,
) -> gi_result {
    guard(|| {
        let slot = required(slot, "slot")?;
        let semaphore = required(semaphore, "semaphore")?.vulkan()?.clone();
        slot.0.add_work(move |timeout| semaphore.wait(value, timeout));
        Ok(())
    })
}

/// Destroys a slot that is not published, which frees it; null is allowed.
#[unsafe(no_mangle)]
pub extern "C" fn gi_writable_slot_destroy(slot: Option<Box<gi_writable_slot>>) {
    guard_value(|| drop(slot));
}

/// Sends a slot to all consumers that are ready, as the next frame. Never waits. `frame` may be
/// null: a complete frame with the tag 0. `published` may be null.
///
/// Consumes the slot even if it fails: it is then free again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gi_producer_publish(
    producer: Option<&mut gi_producer>,
    slot: Option<&mut Option<Box<gi_writable_slot>>>,
    frame: *const gi_frame_info,
    published: *mut gi_published,
) -> gi_result {
    guard(|| {
        let (producer, slot) = (required(producer, "producer")?, handle(slot, "slot")?);
        // SAFETY: the caller's promise.
        let (frame, wanted) = unsafe {
            let frame: gi_frame_info = options(frame, "frame")?;
            let wanted: gi_published = options(published, "published")?;
            (frame.get(), wanted)
        };
        let Some(slot) = slot.take() else { return Ok(()) };
        let done = producer.producer.publish(slot.0, frame)?;
        if !published.is_null() {
            let (sequence, sent, dropped) = (done.sequence, done.sent, done.dropped);
            // SAFETY: the caller's promise.
            unsafe { fill(published, &gi_published { sequence, sent, dropped, ..wanted }) };
        }
        Ok(())
    })
}

/// Ends the session for one consumer, by its number in `gi_event`, and frees its slots.
/// `GI_RESULT_INVALID` if it is not connected.
#[unsafe(no_mangle)]
pub extern "C" fn gi_producer_evict(
    producer: Option<&mut gi_producer>,
    consumer: u64,
) -> gi_result {
    guard(|| {
        let gi_producer { producer, consumers, .. } = required(producer, "producer")?;
        match consumers.get(&consumer) {
            Some(&id) if producer.evict(id) => Ok(()),
            _ => Err(Invalid::new("consumer", format!("{consumer} is not connected")).into()),
        }
    })
}

/// Accepts no more consumers, waits up to `timeout_ns` nanoseconds until all slots have been
/// released, and ends the session. Consumes the producer even if it fails.
#[unsafe(no_mangle)]
pub extern "C" fn gi_producer_finish(
    producer: Option<&mut Option<Box<gi_producer>>>,
    timeout_ns: u64,
) -> gi_result {
    guard(|| match handle(producer, "producer")?.take() {
        Some(producer) => producer.producer.finish(Duration::from_nanos(timeout_ns)),
        None => Ok(()),
    })
}

/// Ends the session at once, and removes the socket's file; null is allowed.
#[unsafe(no_mangle)]
pub extern "C" fn gi_producer_destroy(producer: Option<Box<gi_producer>>) {
    guard_value(|| drop(producer));
}

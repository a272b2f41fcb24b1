//! The consumer's side.

use std::ffi::{CString, OsStr, c_char, c_int};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::Duration;

use gpu_interop::Result;
use gpu_interop::error::Invalid;
use gpu_interop::session::{Consumer, Frame, JoinOptions, SessionEnd};

use super::{gi_frame_info, nth, policy};
use crate::args::{fill, grows, handle, list, nanoseconds, options, required, structure, text};
use crate::error::{gi_result, guard, guard_value};
use crate::payload::{c_text, gi_payload};
use crate::semaphore::gi_semaphore;

/// How a consumer joins. Null means all defaults.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct gi_join_options {
    /// `sizeof(gi_join_options)`.
    pub struct_size: usize,
    /// The consumer's name in the producer's events, for people to read. Default: empty.
    pub name: *const c_char,
    /// Timeout for connecting and receiving the ring together, in nanoseconds. Default: 5 seconds.
    pub timeout_ns: u64,
    /// 1 to fail at once if no producer listens yet. Default: wait within the timeout.
    pub no_wait: u32,
    /// A `gi_peer_policy`. Default: the user of this process.
    pub allowed: u32,
    /// The number of elements in `users`.
    pub user_count: usize,
    /// The user IDs of `GI_PEER_POLICY_USERS`.
    pub users: *const u32,
}

grows!(gi_join_options);

/// How a session ended for a consumer.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum gi_session_end {
    /// It continues, as far as calls have noticed.
    #[default]
    None = 0,
    /// The producer is done. Frames that had arrived are valid.
    Done = 1,
    /// The consumer took too long to join or to release slots. Its frames are not valid.
    Evicted = 2,
    /// The producer does not accept processes of this user.
    Refused = 3,
    /// The producer has as many consumers as it accepts.
    Full = 4,
    /// One of the two sides violated the protocol.
    ProtocolError = 5,
    /// The producer's process ended.
    Lost = 6,
    /// The consumer left.
    Left = 7,
    /// A way that this version of the header doesn't have.
    Other = 8,
}

/// The side of a session that reads frames. Used by one thread at a time.
pub struct gi_consumer(Consumer);

/// What a producer announces: the payloads to import, and what a frame contains.
pub struct gi_session_ring {
    name: CString,
    format: CString,
    slots: Vec<Option<Box<gi_payload>>>,
    semaphores: Vec<Option<Box<gi_payload>>>,
}

/// A slot that contains a frame. The producer does not write to it until it is released.
pub struct gi_frame(Frame);

/// Joins the session of the producer that listens at `path`. Import the payloads of `ring`, then
/// call `gi_consumer_ready`. `join_options` may be null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gi_consumer_join(
    path: *const c_char,
    join_options: *const gi_join_options,
    consumer: Option<&mut MaybeUninit<Option<Box<gi_consumer>>>>,
    ring: Option<&mut MaybeUninit<Option<Box<gi_session_ring>>>>,
) -> gi_result {
    guard(|| {
        let outs = (required(consumer, "consumer")?, required(ring, "ring")?);
        let defaults = JoinOptions::default();
        // SAFETY: the caller's promise.
        let (path, read, name, allowed) = unsafe {
            let read: gi_join_options = options(join_options, "options")?;
            let name = if read.name.is_null() { c"" } else { text(read.name, "options.name")? };
            let allowed = policy(read.allowed, read.users, read.user_count)?;
            (text(path, "path")?, read, name, allowed)
        };
        let options = JoinOptions {
            name: name.to_string_lossy().into_owned(),
            timeout: nanoseconds(read.timeout_ns, defaults.timeout),
            wait_for_producer: read.no_wait == 0,
            allowed,
        };
        let path = Path::new(OsStr::from_bytes(path.to_bytes()));
        let (consumer, ring) = Consumer::join(path, options)?;
        let ring = gi_session_ring {
            name: c_text(ring.name),
            format: c_text(ring.format),
            slots: ring.slots.into_iter().map(gi_payload::new).collect(),
            semaphores: ring.semaphores.into_iter().map(gi_payload::new).collect(),
        };
        outs.0.write(Some(Box::new(gi_consumer(consumer))));
        outs.1.write(Some(Box::new(ring)));
        Ok(())
    })
}

/// Returns the ring's name. It lives as long as the handle.
#[unsafe(no_mangle)]
pub extern "C" fn gi_session_ring_name(ring: Option<&gi_session_ring>) -> *const c_char {
    ring.map_or(c"".as_ptr(), |ring| ring.name.as_ptr())
}

/// Returns what a frame contains, as the producer describes it. It lives as long as the handle.
#[unsafe(no_mangle)]
pub extern "C" fn gi_session_ring_format(ring: Option<&gi_session_ring>) -> *const c_char {
    ring.map_or(c"".as_ptr(), |ring| ring.format.as_ptr())
}

/// Returns the number of slots; 0 for null.
#[unsafe(no_mangle)]
pub extern "C" fn gi_session_ring_slots(ring: Option<&gi_session_ring>) -> usize {
    ring.map_or(0, |ring| ring.slots.len())
}

/// Returns the number of semaphores; 0 for null.
#[unsafe(no_mangle)]
pub extern "C" fn gi_session_ring_semaphores(ring: Option<&gi_session_ring>) -> usize {
    ring.map_or(0, |ring| ring.semaphores.len())
}

/// Takes the payload of a slot out of the ring, to import it. Each can be taken once.
#[unsafe(no_mangle)]
pub extern "C" fn gi_session_ring_take_slot(
    ring: Option<&mut gi_session_ring>,
    index: usize,
    payload: Option<&mut MaybeUninit<Option<Box<gi_payload>>>>,
) -> gi_result {
    guard(|| take(&mut required(ring, "ring")?.slots, index, payload))
}

/// Takes the payload of a semaphore out of the ring, to import it. Each can be taken once.
#[unsafe(no_mangle)]
pub extern "C" fn gi_session_ring_take_semaphore(
    ring: Option<&mut gi_session_ring>,
    index: usize,
    payload: Option<&mut MaybeUninit<Option<Box<gi_payload>>>>,
) -> gi_result {
    guard(|| take(&mut required(ring, "ring")?.semaphores, index, payload))
}

fn take(
    payloads: &mut [Option<Box<gi_payload>>],
    index: usize,
    payload: Option<&mut MaybeUninit<Option<Box<gi_payload>>>>,
) -> Result<()> {
    let out = required(payload, "payload")?;
    let taken = payloads.get_mut(index).and_then(Option::take).ok_or_else(|| {
        Invalid::new("index", format!("{index} is past the end, or was taken before"))
    })?;
    out.write(Some(taken));
    Ok(())
}

/// Destroys a ring and the payloads that were not taken; null is allowed.
#[unsafe(no_mangle)]
pub extern "C" fn gi_session_ring_destroy(ring: Option<Box<gi_session_ring>>) {
    guard_value(|| drop(ring));
}

/// Asks the producer to send frames.
#[unsafe(no_mangle)]
pub extern "C" fn gi_consumer_ready(consumer: Option<&mut gi_consumer>) -> gi_result {
    guard(|| required(consumer, "consumer")?.0.ready())
}

/// Returns a descriptor that is readable when a frame has arrived or the session has ended; -1 for
/// null. The consumer still owns it. Call `gi_consumer_next_frame` until it times out before you
/// wait for the descriptor.
#[unsafe(no_mangle)]
pub extern "C" fn gi_consumer_fd(consumer: Option<&gi_consumer>) -> c_int {
    consumer.map_or(-1, |consumer| consumer.0.as_fd().as_raw_fd())
}

/// Returns the next frame, in the order of publication. Waits up to `timeout_ns` nanoseconds.
/// `GI_RESULT_CLOSED` if the session has ended; see `gi_consumer_end`.
#[unsafe(no_mangle)]
pub extern "C" fn gi_consumer_next_frame(
    consumer: Option<&mut gi_consumer>,
    timeout_ns: u64,
    frame: Option<&mut MaybeUninit<Option<Box<gi_frame>>>>,
) -> gi_result {
    guard(|| {
        let (consumer, out) = (required(consumer, "consumer")?, required(frame, "frame")?);
        let frame = consumer.0.next_frame(Duration::from_nanos(timeout_ns))?;
        out.write(Some(Box::new(gi_frame(frame))));
        Ok(())
    })
}

/// Returns how the session ended, as far as other calls have noticed.
#[unsafe(no_mangle)]
pub extern "C" fn gi_consumer_end(consumer: Option<&gi_consumer>) -> gi_session_end {
    guard_value(|| match consumer.and_then(|consumer| consumer.0.end()) {
        None => gi_session_end::None,
        Some(SessionEnd::Done) => gi_session_end::Done,
        Some(SessionEnd::Evicted) => gi_session_end::Evicted,
        Some(SessionEnd::Refused) => gi_session_end::Refused,
        Some(SessionEnd::Full) => gi_session_end::Full,
        Some(SessionEnd::ProtocolError) => gi_session_end::ProtocolError,
        Some(SessionEnd::Lost) => gi_session_end::Lost,
        Some(SessionEnd::Left) => gi_session_end::Left,
        Some(_) => gi_session_end::Other,
    })
}

/// Returns the number of frames that this consumer has missed; 0 for null.
#[unsafe(no_mangle)]
pub extern "C" fn gi_consumer_missed(consumer: Option<&gi_consumer>) -> u64 {
    guard_value(|| consumer.map_or(0, |consumer| consumer.0.missed()))
}

/// Leaves the session; null is allowed. Frames that were not released count as released.
#[unsafe(no_mangle)]
pub extern "C" fn gi_consumer_destroy(consumer: Option<Box<gi_consumer>>) {
    guard_value(|| drop(consumer));
}

/// Writes the description of a frame.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gi_frame_get_info(
    frame: Option<&gi_frame>,
    info: *mut gi_frame_info,
) -> gi_result {
    guard(|| {
        let frame = &required(frame, "frame")?.0;
        // SAFETY: the caller's promise.
        let struct_size = unsafe { structure(info, "info") }?.struct_size;
        let (point, layouts) = (frame.point(), frame.layouts());
        let written = gi_frame_info {
            struct_size,
            tag: frame.tag(),
            has_point: point.is_some().into(),
            point_semaphore: point.map_or(0, |point| point.semaphore),
            point_value: point.map_or(0, |point| point.value),
            has_layouts: layouts.is_some().into(),
            old_layout: layouts.map_or(0, |layouts| layouts.old.as_raw()),
            new_layout: layouts.map_or(0, |layouts| layouts.new.as_raw()),
            slot: frame.slot() as u32,
            sequence: frame.sequence(),
            age_ns: u64::try_from(frame.age().as_nanos()).unwrap_or(u64::MAX),
        };
        // SAFETY: as above.
        unsafe { fill(info, &written) };
        Ok(())
    })
}

/// Waits on the host until the frame is complete, at most `timeout_ns` nanoseconds. `semaphores`
/// are the imported semaphores of the ring, of Vulkan.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gi_frame_wait(
    frame: Option<&gi_frame>,
    semaphores: *const Option<&gi_semaphore>,
    semaphore_count: usize,
    timeout_ns: u64,
) -> gi_result {
    guard(|| {
        let frame = required(frame, "frame")?;
        // SAFETY: the caller's promise.
        let semaphores = unsafe { list(semaphores, semaphore_count, "semaphores") }?;
        let semaphores = semaphores
            .iter()
            .map(|&semaphore| Ok(required(semaphore, "semaphores[]")?.vulkan()?.clone()));
        let semaphores: Vec<_> = semaphores.collect::<Result<_>>()?;
        frame.0.wait(Duration::from_nanos(timeout_ns), |point, timeout| {
            nth(&semaphores, point.semaphore)?.wait(point.value, timeout)
        })
    })
}

/// Adds submitted work that uses the frame: it is done when the timeline semaphore of Vulkan has
/// the value. The slot is not released before that.
#[unsafe(no_mangle)]
pub extern "C" fn gi_frame_add_work(
    frame: Option<&mut gi_frame>,
    semaphore: Option<&gi_semaphore>,
    value: u64,
) -> gi_result {
    guard(|| {
        let frame = required(frame, "frame")?;
        let semaphore = required(semaphore, "semaphore")?.vulkan()?.clone();
        frame.0.add_work(move |timeout| semaphore.wait(value, timeout));
        Ok(())
    })
}

/// Checks that nothing that was read from the frame so far was overwritten. `GI_RESULT_CLOSED` if
/// the producer may have written to the slot.
#[unsafe(no_mangle)]
pub extern "C" fn gi_frame_check(frame: Option<&gi_frame>) -> gi_result {
    guard(|| required(frame, "frame")?.0.check())
}

/// Releases the slot, and checks that the frame was valid to the end. All use of the slot must have
/// ended on the host's side: if the GPU read it, wait for the fence first.
///
/// Consumes the frame even if it fails: the slot is released nevertheless.
#[unsafe(no_mangle)]
pub extern "C" fn gi_frame_release(frame: Option<&mut Option<Box<gi_frame>>>) -> gi_result {
    guard(|| match handle(frame, "frame")?.take() {
        Some(frame) => frame.0.release(),
        None => Ok(()),
    })
}

/// Releases the slot without a check; null is allowed.
#[unsafe(no_mangle)]
pub extern "C" fn gi_frame_destroy(frame: Option<Box<gi_frame>>) {
    guard_value(|| drop(frame));
}

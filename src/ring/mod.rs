//! The ring: several payloads in flight between two or three endpoints.
//!
//! Handing one payload over and waiting for it costs two switches between GPU contexts a turn,
//! whatever the semaphore. With several payloads under way, one side works on one while the other
//! works on the next.
//!
//! A ring has a [`RingStage`] for each endpoint. All of its slots begin at the first station. A station
//! takes a slot ([`Slot`]), works on its buffer, and passes it on; from the last station a slot comes
//! back to the first. Only who holds a slot can ask for its buffer, so that nothing writes what the
//! other side has. Where no slot has arrived, [`Wait`] says whether to wait for one (backpressure) or
//! to be told so.
//!
//! What a handoff costs it costs once, however many slots go together. `take_many` takes all that have
//! arrived, as far as it is told to, and `release_many` passes a [`Batch`] on: one wait, one signal and
//! one submit with a timeline, one fence where the host waits. (Binary semaphores are one a slot, in
//! one call.) Small payloads are fast in a deep ring that goes round in batches of a half or a quarter.
//! A Vulkan station can be driven by command buffers that were recorded once: `take_recorded` and
//! `release_recorded` record nothing.
//!
//! How deep, how many at a time, and by which route is best a [`calibration`](super::calibration)
//! measures; [`RingOptions::calibrated`] takes its choice.
//!
//! Payloads of a ring are buffers. Images go by [`handoff::open`](super::open), whose tickets carry
//! their layouts.
//!
//! Dropping a station waits for the slots it has released; work on a slot that it still holds is its
//! owner's to wait for. Where the wait fails, what the work uses is left alive for ever. A station
//! that goes closes the ring: the others are told so instead of waiting for ever.

mod open;
mod queue;
mod slot;
mod stage;

#[cfg(feature = "cuda")]
mod cuda;
#[cfg(feature = "gl")]
mod gl;
mod vulkan;

pub(crate) use open::MAX_DEPTH;
pub use open::{RingOfThree, RingOptions, ring_of_three, ring_of_two};
pub use queue::Wait;
pub use slot::{Batch, Slot};
pub use stage::{RingPeer, RingStage};
pub use vulkan::PendingRelease;

use std::time::Duration;

/// How long a station that goes waits for its last work. What takes longer is lost, or waits for a
/// signal that never comes.
const TIMEOUT: Duration = Duration::from_secs(60);

//! Over real sockets with real descriptors, within one process; in `hostile`, peers that lie.

mod address;
mod frames;
mod hostile_consumers;
mod hostile_producers;
mod leaving;
mod limits;
mod ring;
mod slot_table;

use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

use super::*;
use crate::error::{Error, Result};
use crate::fd::SemaphoreHandleType;
use crate::ipc::tests::{buffer, field_of, memfd, memory_info, open_here, send_raw};
use crate::ipc::wire::Message;
use crate::payload::{MemoryPayload, SemaphoreInfo, SemaphoreKind, SemaphorePayload};

/// A test that would hang fails instead.
const LONG: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(40);

/// A ring of so many slots; the size of each buffer is its number and 1.
fn ring(slots: u64) -> Ring {
    (1..=slots).fold(Ring::new("test", "bytes"), |ring, size| ring.slot(buffer(size)))
}

/// An eventfd in the place of a semaphore.
fn semaphore(kind: SemaphoreKind) -> SemaphorePayload {
    // SAFETY: eventfd takes two numbers and returns a new descriptor (checked) or -1.
    let fd = unsafe {
        let raw = libc::eventfd(0, libc::EFD_CLOEXEC);
        assert!(raw >= 0);
        OwnedFd::from_raw_fd(raw)
    };
    let (handle_type, identity) = (SemaphoreHandleType::OpaqueFd, memory_info().identity);
    SemaphorePayload::new(fd, SemaphoreInfo { handle_type, kind, identity }).unwrap()
}

fn producer(slots: u64) -> Producer {
    producer_with(slots, ProducerOptions::default())
}

fn producer_with(slots: u64, options: ProducerOptions) -> Producer {
    Producer::unbound(ring(slots), options).unwrap()
}

/// Joins while the producer answers, and is ready.
fn join(producer: &mut Producer) -> Consumer {
    let (consumer, ring) = try_join(producer).unwrap();
    assert_eq!(ring.slots.len(), consumer.slots());
    consumer
}

fn try_join(producer: &mut Producer) -> Result<(Consumer, Ring)> {
    let (here, there) = UnixStream::pair().unwrap();
    producer.admit(here).unwrap();
    let joining = thread::spawn(move || {
        let (mut consumer, ring) = Consumer::over(there, JoinOptions::default())?;
        consumer.ready()?;
        Ok((consumer, ring))
    });
    let count = producer.consumers() + 1;
    producer.wait_for_consumers(count, LONG).unwrap();
    let joined = joining.join().unwrap();
    assert!(matches!(producer.poll(LONG).unwrap(), Some(Event::Joined { .. })));
    joined
}

/// Publishes a frame.
fn publish(producer: &mut Producer) -> Published {
    let slot = producer.free_slot(LONG).unwrap();
    producer.publish(slot, FrameInfo::default()).unwrap()
}

fn is_timeout<T>(result: Result<T>) -> bool {
    matches!(result, Err(Error::Timeout { .. }))
}

fn is_closed<T>(result: Result<T>) -> bool {
    matches!(result, Err(Error::Closed { .. }))
}

fn next_event(producer: &mut Producer) -> Event {
    producer.poll(LONG).unwrap().unwrap()
}

//! Real sockets and real descriptors within one process; in `hostile_*`, peers that send anything.

mod frames;
mod hostile_consumers;
mod hostile_producers;
mod leaving;
mod opening;

use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::SendFlags;

use super::*;
use crate::error::{Error, Result};
use crate::ipc::tests::{
    buffer, field_of, memfd, memory_info, open_here, run_alone, semaphore, send_raw,
};
use crate::ipc::wire::Message;
use crate::payload::{MemoryPayload, SemaphoreKind};

/// A test that would hang fails instead.
const LONG: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(40);

/// A ring of buffers. The size of each is its index plus 1.
fn ring(slots: u64) -> Ring {
    (1..=slots).fold(Ring::new("test", "bytes"), |ring, size| ring.slot(buffer(size)))
}

fn producer(slots: u64) -> Producer {
    producer_with(slots, ProducerOptions::default())
}

fn producer_with(slots: u64, options: ProducerOptions) -> Producer {
    Producer::unbound(ring(slots), options).unwrap()
}

/// Joins and is ready. The producer is served meanwhile.
fn join(producer: &mut Producer) -> Consumer {
    let (consumer, ring) = try_join(producer).unwrap();
    assert_eq!(ring.slots.len(), consumer.slots());
    consumer
}

fn try_join(producer: &mut Producer) -> Result<(Consumer, Ring)> {
    let (here, there) = UnixStream::pair().unwrap();
    producer.admit(here).unwrap();
    let joining = thread::spawn(move || {
        let (mut consumer, ring) = Consumer::join_socket(there, JoinOptions::default())?;
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

/// Sends a well-formed message without a descriptor.
fn send_message(socket: &UnixStream, message: &Message) {
    send_raw(socket, &message.encode(), &[], SendFlags::empty());
}

/// Sends bytes without a descriptor.
fn send_bytes(socket: &UnixStream, bytes: &[u8]) {
    send_raw(socket, bytes, &[], SendFlags::empty());
}

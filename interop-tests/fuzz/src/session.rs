//! Checks for a session whose other side sends anything.

use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use gpu_interop::fd::MemoryHandleType;
use gpu_interop::payload::MemoryInfo;
use gpu_interop::session::{
    Consumer, FrameInfo, JoinOptions, Producer, ProducerOptions, Ring, WritableSlot,
};
use gpu_interop::{BufferDesc, BufferPayload, Error, Identity, MemoryPayload, Uuid};

use crate::allocations;
use crate::stream::{Descriptors, FILE_BYTES, assert_closed, lowest_free, next_piece, send_piece};

/// Largest allocation that a peer may cause, in bytes: that of a message.
pub(crate) const LARGEST_ALLOCATION: usize = gpu_interop::ipc::wire::MAX_MESSAGE;

/// Short, since nothing that is waited for will happen.
const TIMEOUT: Duration = Duration::from_millis(20);

/// Sends the pieces of `script` to one side of a session.
///
/// The first byte selects the side: the producer if it is even, a consumer if it is odd. The rest is a
/// script like those of the target `stream`.
///
/// # Panics
/// If an error is of a kind that a peer can't cause, a slot is free while it is held or never becomes
/// free, a descriptor stays open, or an allocation is larger than a message.
pub(crate) fn check(script: &[u8]) {
    let Some((side, script)) = script.split_first() else { return };
    let descriptors = Descriptors::new().expect("files to send");
    let before = lowest_free();
    match side % 2 {
        0 => producer(script, &descriptors),
        _ => consumer(script, &descriptors),
    }
    assert_closed(before);
}

fn check_typed(error: &Error) {
    let typed = matches!(
        error,
        Error::Invalid(_) | Error::Mismatch(_) | Error::Closed { .. } | Error::Timeout { .. }
    );
    assert!(typed, "{error:?}");
}

fn ring(descriptors: &Descriptors) -> Ring {
    let info = MemoryInfo {
        handle_type: MemoryHandleType::OpaqueFd,
        allocation_size: FILE_BYTES,
        memory_type_index: Some(0),
        dedicated: false,
        identity: Identity { device: Uuid::from_bytes([7; 16]), driver: None, name: "GPU".into() },
    };
    let slot = |offset| {
        let memory = MemoryPayload::new(descriptors.memory(), info.clone()).expect("it has a size");
        BufferPayload::new(memory, offset, BufferDesc::storage(64)).expect("it fits")
    };
    Ring::new("fuzz", "bytes").slot(slot(0)).slot(slot(64))
}

/// The producer publishes a frame after each piece.
fn producer(mut script: &[u8], descriptors: &Descriptors) {
    let (ours, theirs) = UnixStream::pair().expect("sockets");
    theirs.set_nonblocking(true).expect("a socket");
    let options = ProducerOptions::default();
    let mut producer = Producer::unbound(ring(descriptors), options).expect("a ring");
    producer.admit(ours).expect("one consumer");
    while let Some((piece, fd, count, rest)) = next_piece(script, descriptors) {
        script = rest;
        send_piece(&theirs, piece, fd, count);
        allocations::within(LARGEST_ALLOCATION, || {
            while producer.poll(Duration::ZERO).expect("a consumer can't cause this").is_some() {}
        });
        assert!(producer.consumers() <= 1);
        let slot = match producer.free_slot(Duration::ZERO) {
            Ok(slot) => slot,
            Err(error @ Error::Timeout { .. }) => {
                assert_eq!(producer.consumers(), 1, "no consumer holds the slots: {error}");
                continue;
            }
            Err(other) => panic!("{other:?}"),
        };
        let published = producer.publish(slot, FrameInfo::default()).expect("a slot of its own");
        assert!(published.sent <= producer.consumers().max(1));
    }
    drop(theirs);
    while producer.poll(Duration::ZERO).expect("a consumer can't cause this").is_some() {}
    // No consumer is left: each slot is free once.
    assert_eq!(producer.consumers(), 0);
    let mut free: Vec<WritableSlot> = Vec::new();
    while let Ok(slot) = producer.free_slot(Duration::ZERO) {
        free.push(slot);
    }
    let indices: Vec<_> = free.iter().map(WritableSlot::index).collect();
    assert!(indices.len() == 2 && indices[0] != indices[1], "{indices:?}");
}

/// The consumer joins a producer that has sent all pieces already, and receives frames until the end.
fn consumer(mut script: &[u8], descriptors: &Descriptors) {
    let (ours, mut theirs) = UnixStream::pair().expect("sockets");
    theirs.set_nonblocking(true).expect("a socket");
    while let Some((piece, fd, count, rest)) = next_piece(script, descriptors) {
        script = rest;
        send_piece(&theirs, piece, fd, count);
    }
    theirs.flush().expect("nothing to flush");
    theirs.shutdown(std::net::Shutdown::Write).expect("a socket");
    let options = JoinOptions { name: "fuzz".into(), timeout: TIMEOUT, ..JoinOptions::default() };
    let joined = allocations::within(LARGEST_ALLOCATION, || Consumer::join_socket(ours, options));
    let (mut consumer, ring) = match joined {
        Ok(joined) => joined,
        Err(error) => return check_typed(&error),
    };
    assert!((1..=64).contains(&ring.slots.len()) && ring.semaphores.len() <= 8);
    let mut last = 0;
    let error = loop {
        match allocations::within(LARGEST_ALLOCATION, || consumer.next_frame(TIMEOUT)) {
            Ok(frame) => {
                assert!(frame.slot() < ring.slots.len());
                assert!(frame.sequence() > last, "{} after {last}", frame.sequence());
                last = frame.sequence();
                let semaphores = ring.semaphores.len();
                assert!(frame.point().is_none_or(|p| (p.semaphore as usize) < semaphores));
                // Every other frame is released by dropping it.
                if last % 2 == 0
                    && let Err(error) = frame.release()
                {
                    check_typed(&error);
                }
            }
            Err(error) => break error,
        }
    };
    check_typed(&error);
    assert!(!matches!(error, Error::Timeout { .. }), "the end of the stream is not seen");
    assert!(consumer.end().is_some(), "{error}");
}

//! Real sockets and real descriptors within one process. Here: how sessions are opened.

mod frames;
mod hostile_consumers;
mod hostile_producers;
mod leaving;

use std::fs;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::SendFlags;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::time::{ClockId, clock_gettime};

use super::*;
use crate::error::{Error, Result};
use crate::ipc::Receiver;
use crate::ipc::tests::{
    buffer, field_of, memfd, memory_info, open_here, run_alone, semaphore, send_raw,
};
use crate::ipc::wire::{FrameToken, Message, ReleaseToken, RingInfo};
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

fn info(slots: u32, semaphores: u32) -> Message {
    let (name, format) = (String::new(), String::new());
    Message::Ring(RingInfo { slots, semaphores, drops_frames: false, name, format })
}

fn frame(slot: u32, sequence: u64) -> Message {
    let (point, layouts) = (None, None);
    Message::Frame(FrameToken { slot, sequence, point, layouts, published: 0, tag: 0 })
}

fn release(slot: u32, sequence: u64) -> Message {
    Message::Release(ReleaseToken { slot, sequence })
}

/// Sends bytes without a descriptor.
fn send_bytes(socket: &UnixStream, bytes: &[u8]) {
    send_raw(socket, bytes, &[], SendFlags::empty());
}

fn bind(path: &Path) -> Result<Producer> {
    Producer::bind(path, ring(1), ProducerOptions::default())
}

fn options() -> JoinOptions {
    JoinOptions { wait_for_producer: false, ..JoinOptions::default() }
}

#[test]
fn only_the_same_user_can_connect_and_the_producer_removes_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let producer = bind(&path).unwrap();
    let file = fs::symlink_metadata(&path).unwrap();
    assert!(file.file_type().is_socket());
    assert_eq!(file.permissions().mode() & 0o7777, 0o600);
    assert_eq!(producer.path(), Some(&*path));
    drop(producer);
    assert!(!path.exists());
    assert!(matches!(Consumer::join(&path, options()), Err(Error::Missing(_))));
}

#[test]
fn a_consumer_waits_for_a_producer_that_does_not_listen_yet() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    assert!(matches!(Consumer::join(&path, options()), Err(Error::Missing(_))));
    let waits = JoinOptions { timeout: SHORT, ..JoinOptions::default() };
    assert!(is_timeout(Consumer::join(&path, waits)));
    let there = path.clone();
    let joining = thread::spawn(move || {
        let (mut consumer, _ring) = Consumer::join(there, JoinOptions::default()).unwrap();
        consumer.next_frame(LONG).unwrap().release().unwrap();
    });
    thread::sleep(SHORT);
    let mut producer = bind(&path).unwrap();
    producer.wait_for_consumers(1, LONG).unwrap();
    publish(&mut producer);
    producer.finish(LONG).unwrap();
    joining.join().unwrap();
}

#[test]
fn joining_a_producer_that_is_stopped_is_a_timeout() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    // It listens and never accepts. One connection fits into its queue.
    let stopped = UnixListener::bind(&path).unwrap();
    rustix::net::listen(&stopped, 0).unwrap();
    let started = Instant::now();
    for what in ["the ring", "a connection", "a connection"] {
        let timeout = Duration::from_millis(100);
        let joined = Consumer::join(&path, JoinOptions { timeout, ..options() });
        let error = joined.unwrap_err();
        assert!(matches!(error, Error::Timeout { .. }), "{error:?}");
        assert!(error.to_string().contains(what), "{error}");
    }
    assert!(started.elapsed() < LONG);
    // Another producer does not replace it.
    assert_eq!(field_of(&bind(&path).unwrap_err()), "path");
}

#[test]
fn a_stale_file_is_replaced_and_a_live_one_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists(), "as a killed process leaves it");
    let first = bind(&path).unwrap();
    let error = bind(&path).unwrap_err();
    assert_eq!(field_of(&error), "path");
    assert!(error.to_string().contains("another producer"), "{error}");
    drop(first);
    drop(bind(&path).unwrap());
}

#[test]
fn a_file_that_is_not_a_socket_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("precious");
    fs::write(&path, "data").unwrap();
    assert_eq!(field_of(&bind(&path).unwrap_err()), "path");
    assert_eq!(fs::read_to_string(&path).unwrap(), "data");
    // So are a link and its target.
    let link = directory.path().join("link");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    assert_eq!(field_of(&bind(&link).unwrap_err()), "path");
    assert!(link.is_symlink() && path.exists());
}

#[test]
fn the_file_of_a_successor_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let first = bind(&path).unwrap();
    fs::remove_file(&path).unwrap();
    let mut second = bind(&path).unwrap();
    drop(first);
    let there = path.clone();
    let joining = thread::spawn(move || {
        let (mut consumer, _ring) = Consumer::join(there, options()).unwrap();
        consumer.ready().unwrap();
        consumer
    });
    second.wait_for_consumers(1, LONG).unwrap();
    drop(joining.join().unwrap());
}

#[test]
fn of_many_producers_that_bind_at_once_exactly_one_succeeds() {
    let directory = tempfile::tempdir().unwrap();
    let barrier = std::sync::Barrier::new(8);
    for round in 0..100 {
        let path = directory.path().join(format!("socket{round}"));
        drop(UnixListener::bind(&path).unwrap());
        let bind = || {
            let ring = ring(1);
            barrier.wait();
            Producer::bind(&path, ring, ProducerOptions::default())
        };
        let bound: Vec<_> = thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(bind)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(bound.iter().filter(|bound| bound.is_ok()).count(), 1, "{bound:?}");
        assert!(path.exists());
    }
}

#[test]
fn an_invalid_path_is_refused() {
    for path in ["", &"x".repeat(200), "with\0zero"] {
        assert_eq!(field_of(&bind(Path::new(path)).unwrap_err()), "path");
        let joined = Consumer::join(path, options());
        assert_eq!(field_of(&joined.unwrap_err()), "path");
    }
}

#[test]
fn a_process_of_another_user_is_refused_by_either_side() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    // Not the user of this process.
    let allowed = PeerPolicy::Users(vec![u32::MAX - 7]);
    let options = ProducerOptions { allowed: allowed.clone(), ..ProducerOptions::default() };
    let mut producer = Producer::bind(&path, ring(1), options).unwrap();
    let there = path.clone();
    let joining = thread::spawn(move || Consumer::join(there, JoinOptions::default()).unwrap_err());
    let event = next_event(&mut producer);
    let Event::NotJoined { error, .. } = event else { panic!("{event:?}") };
    assert_eq!(field_of(&error), "peer.uid");
    let error = joining.join().unwrap();
    assert!(matches!(&error, Error::Closed { what } if what.contains("may not join")), "{error:?}");
    drop(producer);
    let mut producer = bind(&path).unwrap();
    let refused = Consumer::join(&path, JoinOptions { allowed, ..JoinOptions::default() });
    assert_eq!(field_of(&refused.unwrap_err()), "peer.uid");
    assert_eq!(producer.poll(SHORT).unwrap(), None);
}

#[test]
fn a_connection_waits_while_the_process_is_out_of_descriptors() {
    run_alone("session::tests::a_connection_waits_while_the_process_is_out_of_descriptors", || {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let mut producer = Producer::bind(&path, ring(1), ProducerOptions::default()).unwrap();
        let mut good = join(&mut producer);
        let late = UnixStream::connect(&path).unwrap();
        send_message(&late, &Message::Join { name: "late".into() });
        // Every number below the next free one is in use.
        let next = late.try_clone().unwrap().as_raw_fd() as u64;
        let old = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: Some(next), ..old }).unwrap();
        let processor_time = || {
            let now = clock_gettime(ClockId::ProcessCPUTime);
            Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
        };
        let before = processor_time();
        assert_eq!(producer.poll(Duration::from_millis(500)).unwrap(), None);
        let took = processor_time() - before;
        assert!(took < Duration::from_millis(250), "it must not spin: {took:?}");
        publish(&mut producer);
        good.next_frame(LONG).unwrap().release().unwrap();
        setrlimit(Resource::Nofile, old).unwrap();
        assert_eq!(producer.poll(Duration::from_millis(200)).unwrap(), None);
        late.set_read_timeout(Some(LONG)).unwrap();
        let (message, _) = Receiver::new().message(&late).unwrap();
        assert!(matches!(message, Message::Ring(_)), "{message:?}");
    });
}

fn refused(ring: Ring, options: ProducerOptions) -> String {
    field_of(&Producer::unbound(ring, options).unwrap_err()).to_owned()
}

#[test]
fn a_ring_that_a_consumer_would_refuse_is_refused() {
    let options = ProducerOptions::default;
    assert_eq!(refused(ring(0), options()), "ring.slots");
    assert_eq!(refused(ring(65), options()), "ring.slots");
    let semaphore_slot = Ring::new("", "").slot(semaphore(SemaphoreKind::Timeline));
    assert_eq!(refused(semaphore_slot, options()), "ring.slots");
    let many = (0..9).fold(ring(1), |ring, _| ring.semaphore(semaphore(SemaphoreKind::Timeline)));
    assert_eq!(refused(many, options()), "ring.semaphores");
    let binary = ring(1).semaphore(semaphore(SemaphoreKind::Binary));
    assert_eq!(refused(binary, options()), "ring.semaphores");
    let named = |name: &str, format: &str| Ring { name: name.into(), ..Ring::new("", format) };
    assert_eq!(refused(named(&"x".repeat(257), "").slot(buffer(1)), options()), "ring.name");
    assert_eq!(refused(named("", "\x1b[2J").slot(buffer(1)), options()), "ring.format");
}

#[test]
fn invalid_options_are_refused() {
    let none = ProducerOptions { max_consumers: 0, ..ProducerOptions::default() };
    assert_eq!(refused(ring(1), none), "options.max_consumers");
    let slow_consumer = SlowConsumer::DropFrames { max_held: 0 };
    let never = ProducerOptions { slow_consumer, ..ProducerOptions::default() };
    assert_eq!(refused(ring(1), never), "options.slow_consumer.max_held");
}

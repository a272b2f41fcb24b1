//! Real sockets and real descriptors. Here: payloads arrive as they were sent, how long receiving
//! and sending wait, and a process without descriptors. In `hostile`: peers that send anything.

mod hostile;

use std::fs::{self, File};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::payload::message_of;
use super::{Receiver, receive, send};
use crate::desc::{BufferDesc, ImageDesc, ImageUsage, Tiling};
use crate::error::{Error, Result};
use crate::fd::{MemoryHandleType, SemaphoreHandleType};
use crate::format::Format;
use crate::identity::{Identity, Uuid};
use crate::ipc::wire::Message;
use crate::payload::{
    BufferPayload, ImagePayload, LinearLayout, MemoryInfo, MemoryPayload, Payload, SemaphoreInfo,
    SemaphoreKind, SemaphorePayload,
};

const SHORT: Duration = Duration::from_millis(60);

/// Bytes of every allocation here.
pub(crate) const SIZE: u64 = 8192;

/// A connected pair. A test that would hang fails instead.
pub(crate) fn pair() -> (UnixStream, UnixStream) {
    let (producer, consumer) = UnixStream::pair().unwrap();
    for socket in [&producer, &consumer] {
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        socket.set_write_timeout(Some(Duration::from_secs(20))).unwrap();
    }
    (producer, consumer)
}

/// A memfd of `len` bytes that can't be shortened, as Mesa's software drivers share them.
pub(crate) fn memfd(len: u64) -> OwnedFd {
    let fd = unsealed_memfd(len);
    fcntl_add_seals(&fd, SealFlags::SHRINK).unwrap();
    fd
}

fn unsealed_memfd(len: u64) -> OwnedFd {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let fd = memfd_create("test memory", flags).unwrap();
    rustix::fs::ftruncate(&fd, len).unwrap();
    fd
}

/// The reading and the writing end of a pipe.
pub(crate) fn pipe() -> (OwnedFd, OwnedFd) {
    let (read, write) = std::io::pipe().unwrap();
    (read.into(), write.into())
}

pub(crate) fn identity() -> Identity {
    Identity { device: Uuid::from_bytes([7; 16]), driver: None, name: "GPU".into() }
}

pub(crate) fn memory_info() -> MemoryInfo {
    MemoryInfo {
        handle_type: MemoryHandleType::OpaqueFd,
        allocation_size: SIZE,
        memory_type_index: Some(3),
        dedicated: false,
        identity: identity(),
    }
}

/// The bytes of a valid buffer message.
fn valid() -> Vec<u8> {
    let desc = BufferDesc::storage(64);
    Message::Buffer { memory: memory_info(), offset: 0, desc }.encode()
}

/// An eventfd in place of a semaphore.
pub(crate) fn semaphore(kind: SemaphoreKind) -> SemaphorePayload {
    let eventfd = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC).unwrap();
    let handle_type = SemaphoreHandleType::OpaqueFd;
    let info = SemaphoreInfo { handle_type, kind, identity: identity() };
    SemaphorePayload::new(eventfd, info).unwrap()
}

fn receive_buffer(socket: &UnixStream) -> Result<BufferPayload> {
    Ok(receive(socket)?.into_buffer()?)
}

/// A buffer of `size` bytes in memory of its own.
pub(crate) fn buffer(size: u64) -> BufferPayload {
    let memory = MemoryPayload::new(memfd(SIZE), memory_info()).unwrap();
    BufferPayload::new(memory, 256, BufferDesc::storage(size)).unwrap()
}

/// How many descriptors of this process refer to the file of `fd`, itself included.
///
/// Counting this one file, not all, keeps the tests independent of those that run beside them.
///
/// Those that another thread is about to close do not count.
pub(crate) fn open_here(fd: impl AsFd) -> usize {
    super::foreign::settle();
    let of = |raw: RawFd| {
        let file = fs::metadata(format!("/proc/self/fd/{raw}")).ok()?;
        Some((file.dev(), file.ino()))
    };
    let file = of(fd.as_fd().as_raw_fd());
    assert!(file.is_some());
    let entries = fs::read_dir("/proc/self/fd").unwrap().flatten();
    let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    numbers.filter(|&raw| of(raw) == file).count()
}

fn is_close_on_exec(fd: impl AsFd) -> bool {
    rustix::io::fcntl_getfd(fd).unwrap().contains(rustix::io::FdFlags::CLOEXEC)
}

/// Sends any bytes with any descriptors, as a hostile peer could.
pub(crate) fn send_raw(
    socket: &UnixStream,
    bytes: &[u8],
    descriptors: &[BorrowedFd<'_>],
    flags: SendFlags,
) {
    let rights = SendAncillaryMessage::ScmRights(descriptors);
    let mut space = vec![MaybeUninit::uninit(); rights.size()];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(descriptors.is_empty() || control.push(rights));
    let flags = flags | SendFlags::NOSIGNAL;
    let sent = sendmsg(socket, &[std::io::IoSlice::new(bytes)], &mut control, flags);
    assert_eq!(sent, Ok(bytes.len()));
}

/// Runs `check` in a process of its own, since the limit of descriptors applies to the whole
/// process. `test` is the test that calls this.
pub(crate) fn run_alone(test: &str, check: impl FnOnce()) {
    const ALONE: &str = "GPU_INTEROP_TEST_ALONE";
    if std::env::var_os(ALONE).is_some() {
        return check();
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(ALONE, "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}{errors}");
}

/// The field that an error is about.
pub(crate) fn field_of(error: &Error) -> &str {
    match error {
        Error::Invalid(invalid) => &invalid.parameter,
        Error::Mismatch(mismatch) => mismatch.field,
        other => panic!("{other:?}"),
    }
}

fn memory() -> MemoryPayload {
    MemoryPayload::new(memfd(SIZE), memory_info()).unwrap()
}

fn image() -> ImagePayload {
    let desc = ImageDesc::d2(Format::Rgba8Unorm, 113, 7, ImageUsage::SAMPLED);
    ImagePayload::new(memory(), 4096, desc).unwrap()
}

fn linear_image() -> ImagePayload {
    let desc = ImageDesc::d2(Format::Rgba8Unorm, 113, 7, ImageUsage::SAMPLED);
    let desc = ImageDesc { tiling: Tiling::Linear, ..desc };
    ImagePayload::new(memory(), 4096, desc).unwrap()
}

#[test]
fn a_linear_image_arrives_with_its_pitches_even_through_a_relay() {
    let layout = LinearLayout { offset: 64, row_pitch: 512, depth_pitch: 9, array_pitch: 4096 };
    // The exporter may not have provided the layout.
    for sent in [linear_image().with_linear(layout).unwrap(), linear_image(), image()] {
        let (producer, relay_in) = pair();
        let (relay_out, consumer) = pair();
        send(&producer, &sent.try_clone().unwrap().into()).unwrap();
        send(&relay_out, &receive(&relay_in).unwrap()).unwrap();
        let received = receive(&consumer).unwrap().into_image().unwrap();
        assert_eq!((received.desc(), received.offset()), (sent.desc(), sent.offset()));
        assert_eq!(received.linear(), sent.linear());
        assert_eq!(open_here(sent.memory()), 2);
    }
}

#[test]
fn a_buffer_arrives_unchanged_and_refers_to_the_same_memory() {
    let (producer, consumer) = pair();
    let sent = buffer(4096);
    send(&producer, &sent.try_clone().unwrap().into()).unwrap();
    let received = receive_buffer(&consumer).unwrap();
    assert_eq!(received.memory().info(), sent.memory().info());
    assert_eq!((received.offset(), received.desc()), (sent.offset(), sent.desc()));
    assert!(is_close_on_exec(received.memory()));

    let (memory, ..) = received.into_parts();
    let theirs = File::from(memory.into_parts().0);
    let ours = File::from(sent.memory().as_fd().try_clone_to_owned().unwrap());
    theirs.write_all_at(b"theirs", 300).unwrap();
    let mut seen = [0; 6];
    ours.read_exact_at(&mut seen, 300).unwrap();
    assert_eq!(&seen, b"theirs");
}

#[test]
fn every_kind_arrives_with_its_own_descriptor_and_none_stays_open() {
    let (producer, consumer) = pair();
    let semaphore = semaphore(SemaphoreKind::Timeline);
    let payloads: [Payload; 5] =
        [memory().into(), buffer(1).into(), image().into(), semaphore.into(), memory().into()];
    // All are in the socket at once: a descriptor must not arrive with the bytes of another
    // message.
    payloads.iter().for_each(|payload| send(&producer, payload).unwrap());
    for sent in &payloads {
        // The file of an eventfd is shared by all of them.
        let open = |count| matches!(sent, Payload::Semaphore(_)) || open_here(sent) == count;
        let received = receive(&consumer).unwrap();
        assert_eq!(message_of(&received), message_of(sent));
        assert!(open(2) && is_close_on_exec(&received), "{received:?}");
        drop(received);
        assert!(open(1), "the sender keeps its own, the receiver's are closed");
    }
}

#[test]
fn a_payload_that_was_sent_outlives_its_sender() {
    let (producer, consumer) = pair();
    let sent = buffer(17).into();
    send(&producer, &sent).unwrap();
    send(&producer, &sent).unwrap();
    drop((sent, producer));
    assert_eq!(receive_buffer(&consumer).unwrap().desc().size, 17);
    assert_eq!(receive_buffer(&consumer).unwrap().desc().size, 17);
    assert!(matches!(receive(&consumer), Err(Error::Closed { .. })));
}

#[test]
fn a_payload_of_another_kind_is_named_and_closed() {
    let (producer, consumer) = pair();
    let sent = image();
    send(&producer, &sent.try_clone().unwrap().into()).unwrap();
    send(&producer, &buffer(5).into()).unwrap();
    let error = receive_buffer(&consumer).unwrap_err();
    assert_eq!(field_of(&error), "payload kind");
    assert!(error.to_string().contains("found image"), "{error}");
    assert_eq!(open_here(sent.memory()), 1, "the payload was dropped");
    assert_eq!(receive_buffer(&consumer).unwrap().desc().size, 5);
}

#[test]
fn a_socket_that_asks_for_credentials_is_refused() {
    let (producer, consumer) = pair();
    rustix::net::sockopt::set_socket_passcred(&consumer, true).unwrap();
    send(&producer, &buffer(9).into()).unwrap();
    let error = receive(&consumer).unwrap_err();
    assert!(error.to_string().contains("SO_PASSCRED"), "{error}");
}

#[test]
fn a_receive_waits_for_the_read_timeout_or_not_at_all_and_nothing_is_lost() {
    for (timeout, nonblocking) in [(SHORT, false), (Duration::ZERO, true)] {
        let (producer, consumer) = pair();
        consumer.set_read_timeout(Some(SHORT)).unwrap();
        consumer.set_nonblocking(nonblocking).unwrap();
        let started = Instant::now();
        let Err(Error::Timeout { waited, .. }) = receive(&consumer) else { panic!("no timeout") };
        assert!(waited >= timeout && started.elapsed() < Duration::from_secs(10), "{waited:?}");
        assert!(!nonblocking || waited.is_zero());
        send(&producer, &buffer(3).into()).unwrap();
        assert_eq!(receive_buffer(&consumer).unwrap().desc().size, 3);
    }
}

#[test]
fn a_receiver_receives_a_message_byte_by_byte() {
    let (producer, consumer) = pair();
    consumer.set_nonblocking(true).unwrap();
    let memory = memfd(SIZE);
    let mut receiver = Receiver::new();
    let bytes = valid();
    for (at, byte) in bytes.iter().enumerate() {
        match receiver.receive(&consumer) {
            Err(Error::Timeout { .. }) => {}
            other => panic!("after {at} bytes: {other:?}"),
        }
        let descriptors = [memory.as_fd()];
        let descriptors = if at == 0 { &descriptors[..] } else { &[] };
        send_raw(&producer, &[*byte], descriptors, SendFlags::empty());
    }
    let received = receiver.receive(&consumer).unwrap();
    assert_eq!(open_here(&memory), 2);
    assert!(matches!(received, Payload::Buffer(_)));
}

#[test]
fn shutdown_in_another_thread_ends_a_wait() {
    let (_producer, consumer) = pair();
    consumer.set_read_timeout(None).unwrap();
    let socket = consumer.try_clone().unwrap();
    let waiting = thread::spawn(move || receive(&socket).map(drop));
    thread::sleep(SHORT);
    consumer.shutdown(Shutdown::Both).unwrap();
    assert!(matches!(waiting.join().unwrap(), Err(Error::Closed { .. })));
}

#[test]
fn a_full_socket_is_a_timeout_and_no_message_is_lost_or_cut_off() {
    let (producer, consumer) = pair();
    let payload = Payload::from(buffer(3));
    producer.set_write_timeout(Some(SHORT)).unwrap();
    let mut sent = 0;
    let error = loop {
        match send(&producer, &payload) {
            Ok(()) => sent += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, Error::Timeout { waited, .. } if waited >= SHORT), "{error:?}");
    producer.set_nonblocking(true).unwrap();
    let error = send(&producer, &payload).unwrap_err();
    assert!(matches!(error, Error::Timeout { waited: Duration::ZERO, .. }), "{error:?}");
    producer.set_nonblocking(false).unwrap();

    producer.set_write_timeout(None).unwrap();
    let waiting = thread::spawn(move || send(&producer, &payload));
    for _ in 0..sent + 1 {
        assert_eq!(receive_buffer(&consumer).unwrap().desc().size, 3);
    }
    waiting.join().unwrap().unwrap();
    assert!(matches!(receive(&consumer), Err(Error::Closed { .. })));
}

#[test]
fn no_message_is_lost_while_the_process_is_out_of_descriptors() {
    run_alone("ipc::tests::no_message_is_lost_while_the_process_is_out_of_descriptors", || {
        let (producer, consumer) = pair();
        let (read, write) = pipe();
        send(&producer, &buffer(1).into()).unwrap();
        send(&producer, &buffer(2).into()).unwrap();
        let (sender, third) = pair();
        send(&sender, &buffer(3).into()).unwrap();
        let (flood, flooded) = pair();
        send_raw(&flood, b"GIPC", &[write.as_fd(); 250], SendFlags::empty());

        let count = || fs::read_dir("/proc/self/fd").unwrap().count();
        let before = count();
        let old = getrlimit(Resource::Nofile);
        let limit = |current: u64| {
            let limit = Rlimit { current: Some(current), ..old };
            setrlimit(Resource::Nofile, limit).unwrap();
        };
        // Every number below the next free one is in use.
        let next = read.as_fd().try_clone_to_owned().unwrap().as_raw_fd() as u64;
        limit(next);
        let mut receiver = Receiver::new();
        for _ in 0..3 {
            let error = receiver.receive(&consumer).unwrap_err();
            let full = i64::from(Errno::MFILE.raw_os_error());
            assert!(matches!(&error, Error::Driver(driver) if driver.code == full), "{error:?}");
        }
        assert!(matches!(receive(&consumer), Err(Error::Driver(_))));
        // More descriptors than a message has are not received at all.
        limit(next + 2);
        assert_eq!(field_of(&receive(&flooded).unwrap_err()), "descriptors");
        super::foreign::settle();
        // Room for one is enough.
        limit(next + 1);
        assert_eq!(receive(&third).unwrap().into_buffer().unwrap().desc().size, 3);
        setrlimit(Resource::Nofile, old).unwrap();
        super::foreign::settle();
        assert_eq!(count(), before);
        assert_eq!(receiver.receive(&consumer).unwrap().into_buffer().unwrap().desc().size, 1);
        assert_eq!(receive(&consumer).unwrap().into_buffer().unwrap().desc().size, 2);
        assert_eq!(field_of(&receive(&flooded).unwrap_err()), "descriptors");
        // It may have the descriptor of the next message already.
        drop(receiver);
        super::foreign::settle();
        assert_eq!(count(), before);
    });
}

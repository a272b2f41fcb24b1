//! Which rings and options are refused, and a process that can't have another descriptor.

use std::env;
use std::process::Command;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::time::{ClockId, clock_gettime};

use super::*;

/// Set in a process that runs only this test, since the limit applies to the whole process.
const ALONE: &str = "GPU_INTEROP_TEST_ALONE";

#[test]
fn a_connection_waits_while_the_process_is_out_of_descriptors() {
    if env::var_os(ALONE).is_some() {
        return alone();
    }
    let test = "session::tests::limits::a_connection_waits_while_the_process_is_out_of_descriptors";
    let output = Command::new(env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(ALONE, "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}{errors}");
}

fn alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let mut producer = Producer::bind(&path, ring(1), ProducerOptions::default()).unwrap();
    let mut good = join(&mut producer);
    let late = UnixStream::connect(&path).unwrap();
    send_message(&late, &Message::Join { name: "late".into() });
    // Every number below the next free one is in use.
    let next = {
        use std::os::fd::AsRawFd;
        late.try_clone().unwrap().as_raw_fd() as u64
    };
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
    let (message, _) = crate::ipc::Receiver::new().message(&late).unwrap();
    assert!(matches!(message, Message::Ring(_)), "{message:?}");
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

//! A process that is out of descriptors.

use std::env;
use std::process::Command;

use super::*;

/// Set in the process that runs the test alone, since the limit is the whole process's.
const ALONE: &str = "GPU_INTEROP_TEST_ALONE";

#[test]
fn without_room_for_a_connection_the_others_go_on_and_it_comes_later() {
    if env::var_os(ALONE).is_some() {
        return alone();
    }
    let test = "ipc::session::tests::limits::\
                without_room_for_a_connection_the_others_go_on_and_it_comes_later";
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
    send_raw(&late, &Message::Join { name: "late".into() }.encode(), &[], 0);
    // Every number below the next free one is taken from now on.
    let next = {
        use std::os::fd::AsRawFd;
        late.try_clone().unwrap().as_raw_fd() as libc::rlim_t
    };
    let limit = |soft: libc::rlim_t| {
        // SAFETY: getrlimit and setrlimit take a structure of the right type.
        unsafe {
            let mut limit: libc::rlimit = std::mem::zeroed();
            assert_eq!(libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit), 0);
            let old = std::mem::replace(&mut limit.rlim_cur, soft);
            assert_eq!(libc::setrlimit(libc::RLIMIT_NOFILE, &limit), 0);
            old
        }
    };
    let old = limit(next);
    let processor_time = || {
        // SAFETY: clock_gettime fills a structure of the right type.
        unsafe {
            let mut now: libc::timespec = std::mem::zeroed();
            assert_eq!(libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut now), 0);
            Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
        }
    };
    let before = processor_time();
    assert_eq!(producer.poll(Duration::from_millis(500)).unwrap(), None);
    let took = processor_time() - before;
    assert!(took < Duration::from_millis(250), "it asks over and over: {took:?}");
    publish(&mut producer);
    good.next_frame(LONG).unwrap().release().unwrap();
    limit(old);
    assert_eq!(producer.poll(Duration::from_millis(200)).unwrap(), None);
    late.set_read_timeout(Some(LONG)).unwrap();
    let (message, _) = crate::ipc::Receiver::new().message(&late).unwrap();
    assert!(matches!(message, Message::Ring(_)), "{message:?}");
}

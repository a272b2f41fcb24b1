use std::env;
use std::process::Command;

use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::*;
use crate::ipc::{Receiver, send};

/// Set in a process that runs only this test, since the limit applies to the whole process.
const ALONE: &str = "GPU_INTEROP_TEST_ALONE";

#[test]
fn no_message_is_lost_while_the_process_is_out_of_descriptors() {
    if env::var_os(ALONE).is_some() {
        return alone();
    }
    let test = "ipc::tests::limits::no_message_is_lost_while_the_process_is_out_of_descriptors";
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
    // None of several descriptors is received if there is no room for all.
    limit(next + 100);
    assert!(matches!(receive(&flooded), Err(Error::Driver(_))));
    // Room for one is enough.
    limit(next + 1);
    assert_eq!(receive(&third).unwrap().into_buffer().unwrap().desc().size, 3);
    setrlimit(Resource::Nofile, old).unwrap();
    assert_eq!(count(), before);
    assert_eq!(receiver.receive(&consumer).unwrap().into_buffer().unwrap().desc().size, 1);
    assert_eq!(receive(&consumer).unwrap().into_buffer().unwrap().desc().size, 2);
    assert_eq!(field_of(&receive(&flooded).unwrap_err()), "descriptors");
    assert_eq!(count(), before);
}

use std::env;
use std::process::Command;

use super::*;
use crate::ipc::{Receiver, receive, send};

/// Set in the process that runs the test alone, since the limit is the whole process's.
const ALONE: &str = "GPU_INTEROP_TEST_ALONE";

#[test]
fn without_room_for_a_descriptor_nothing_is_lost() {
    if env::var_os(ALONE).is_some() {
        return alone();
    }
    let test = "ipc::tests::limits::without_room_for_a_descriptor_nothing_is_lost";
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
    send(&producer, &buffer(1)).unwrap();
    send(&producer, &buffer(2)).unwrap();
    let (sender, third) = pair();
    send(&sender, &buffer(3)).unwrap();
    let (flood, flooded) = pair();
    send_raw(&flood, b"GIPC", &[write.as_fd(); 250], 0);

    let count = || fs::read_dir("/proc/self/fd").unwrap().count();
    let before = count();
    let limit = |soft: usize| {
        // SAFETY: getrlimit and setrlimit take a structure of the right type.
        unsafe {
            let mut limit: libc::rlimit = std::mem::zeroed();
            assert_eq!(libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit), 0);
            let old = limit.rlim_cur as usize;
            limit.rlim_cur = soft as libc::rlim_t;
            assert_eq!(libc::setrlimit(libc::RLIMIT_NOFILE, &limit), 0);
            old
        }
    };
    // Every number below the next free one is taken from now on.
    let next = read.as_fd().try_clone_to_owned().unwrap().as_raw_fd() as usize;
    let old = limit(next);
    let mut receiver = Receiver::new();
    for _ in 0..3 {
        let error = receiver.receive(&consumer).unwrap_err();
        let full = i64::from(libc::EMFILE);
        assert!(matches!(&error, Error::Driver(driver) if driver.code == full), "{error:?}");
    }
    assert!(matches!(receive(&consumer), Err(Error::Driver(_))));
    // Room for some of a flood is room for none of it.
    limit(next + 100);
    assert!(matches!(receive(&flooded), Err(Error::Driver(_))));
    // Room for one is enough.
    limit(next + 1);
    assert_eq!(receive(&third).unwrap().into_buffer().unwrap().desc().size, 3);
    limit(old);
    assert_eq!(count(), before);
    assert_eq!(receiver.receive(&consumer).unwrap().into_buffer().unwrap().desc().size, 1);
    assert_eq!(receive(&consumer).unwrap().into_buffer().unwrap().desc().size, 2);
    assert_eq!(field_of(&receive(&flooded).unwrap_err()), "descriptors");
    assert_eq!(count(), before);
}

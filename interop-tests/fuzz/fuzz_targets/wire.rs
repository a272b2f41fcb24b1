//! Decodes bytes as a message.

#![no_main]

#[path = "../src/allocations.rs"]
mod allocations;
#[path = "../src/message.rs"]
mod message;

use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};

#[global_allocator]
static ALLOCATIONS: allocations::Watched = allocations::Watched;

fuzz_target!(|bytes: &[u8]| allocations::within(message::LARGEST_ALLOCATION, || {
    message::check(bytes);
}));

// Nearly every change makes the header invalid. Most inputs get a valid one again, so that the code
// behind it is reached.
fuzz_mutator!(|bytes: &mut [u8], size: usize, max_size: usize, seed: u32| {
    let size = fuzzer_mutate(bytes, size, max_size);
    if seed % 8 != 0 {
        message::fix_header(&mut bytes[..size]);
    }
    size
});

//! Sends pieces of a stream with descriptors through a socket to a receiver.

#![no_main]

#[path = "../src/allocations.rs"]
mod allocations;
#[path = "../src/message.rs"]
#[allow(dead_code, reason = "only the mutator uses it")]
mod message;
#[path = "../src/stream.rs"]
mod stream;

use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};

#[global_allocator]
static ALLOCATIONS: allocations::Watched = allocations::Watched;

fuzz_target!(|script: &[u8]| stream::check(script));

// The same as in the target `wire`, for the piece that the seed selects: most pieces are messages.
fuzz_mutator!(|bytes: &mut [u8], size: usize, max_size: usize, seed: u32| {
    let size = fuzzer_mutate(bytes, size, max_size);
    if let Some(piece) = stream::pieces(&mut bytes[..size]).nth(seed as usize % 8) {
        message::fix_header(piece);
    }
    size
});

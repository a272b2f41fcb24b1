//! Sends pieces of a stream with descriptors to a producer or a consumer of a session.

#![no_main]

#[path = "../src/allocations.rs"]
mod allocations;
#[path = "../src/message.rs"]
#[allow(dead_code, reason = "only the mutator uses it")]
mod message;
#[path = "../src/session.rs"]
mod session;
#[path = "../src/stream.rs"]
#[allow(dead_code, reason = "only the script is used")]
mod stream;

use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};

#[global_allocator]
static ALLOCATIONS: allocations::Watched = allocations::Watched;

fuzz_target!(|script: &[u8]| session::check(script));

// The same as in the target `stream`.
fuzz_mutator!(|bytes: &mut [u8], size: usize, max_size: usize, seed: u32| {
    let size = fuzzer_mutate(bytes, size, max_size);
    if let Some((_, script)) = bytes[..size].split_first_mut()
        && let Some(piece) = stream::pieces(script).nth(seed as usize % 8)
    {
        message::fix_header(piece);
    }
    size
});

//! Pieces of a stream with descriptors on them, to a producer or a consumer of a session.

#![no_main]

#[path = "../src/allocations.rs"]
mod allocations;
#[path = "../src/message.rs"]
#[allow(dead_code, reason = "only the mutator needs it")]
mod message;
#[path = "../src/session.rs"]
mod session;
#[path = "../src/stream.rs"]
#[allow(dead_code, reason = "its script is this one's, too")]
mod stream;

use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};

#[global_allocator]
static ALLOCATIONS: allocations::Watched = allocations::Watched;

fuzz_target!(|script: &[u8]| session::check(script));

// As for the target `stream`.
fuzz_mutator!(|bytes: &mut [u8], size: usize, max_size: usize, seed: u32| {
    let size = fuzzer_mutate(bytes, size, max_size);
    if let Some((_, script)) = bytes[..size].split_first_mut()
        && let Some(piece) = stream::pieces(script).nth(seed as usize % 8)
    {
        message::put_header_right(piece);
    }
    size
});

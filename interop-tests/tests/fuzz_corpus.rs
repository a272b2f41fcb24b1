//! Replays the corpus of the fuzzer, and changes of it that are the same on every run.
//!
//! The targets and the corpus are in `interop-tests/fuzz`.

#[path = "../fuzz/src/allocations.rs"]
mod allocations;
#[path = "../fuzz/src/message.rs"]
mod message;
#[path = "../fuzz/src/session.rs"]
mod session;
#[path = "../fuzz/src/stream.rs"]
mod stream;

use std::fs;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

#[global_allocator]
static ALLOCATIONS: allocations::Watched = allocations::Watched;

/// Runs one test at a time: the checks compare the number of the next descriptor.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Returns the corpus of `target`.
fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut paths: Vec<_> = fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    assert!(paths.len() > 20, "{} has too few inputs", folder.display());
    paths.into_iter().map(|path| fs::read(path).unwrap()).collect()
}

/// Random numbers that are the same on every run (xorshift64).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % below.max(1) as u64) as usize
    }

    /// Changes `input` as a fuzzer does: a bit, a byte or a number is replaced, or a part is removed,
    /// doubled or taken from `other`.
    fn change(&mut self, input: &mut Vec<u8>, other: &[u8]) {
        const EDGES: [u64; 8] =
            [0, 1, 0x7f, 0xff, 0x7fff_ffff, 0xffff_ffff, i64::MAX as u64, u64::MAX];
        let at = self.next(input.len());
        match (self.next(7), input.get_mut(at)) {
            (0, Some(byte)) => *byte ^= 1 << self.next(8),
            (1, Some(byte)) => *byte = self.next(256) as u8,
            (2, Some(_)) => {
                let edge = EDGES[self.next(EDGES.len())].to_le_bytes();
                let room = (1usize << self.next(4)).min(input.len() - at);
                input[at..at + room].copy_from_slice(&edge[..room]);
            }
            (3, _) => input.truncate(at),
            (4, Some(_)) => {
                let end = at + self.next(input.len() - at);
                let part = input[at..end].to_vec();
                input.splice(at..at, part);
            }
            (5, Some(_)) => drop(input.drain(at..at + self.next((input.len() - at).min(16)))),
            _ => {
                let from = self.next(other.len());
                input.truncate(at);
                input.extend(&other[from.min(other.len())..]);
            }
        }
        input.truncate(2 * gpu_interop::ipc::wire::MAX_MESSAGE);
    }
}

/// Calls `check` with each input of the corpus and `changed` changed ones, and with whether to fix the
/// header.
fn feed(target: &str, changed: usize, mut check: impl FnMut(&[u8], bool)) {
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let corpus = corpus(target);
    for input in &corpus {
        check(input, false);
    }
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    for _ in 0..changed {
        let mut input = corpus[numbers.next(corpus.len())].clone();
        for _ in 0..=numbers.next(3) {
            let other = numbers.next(corpus.len());
            numbers.change(&mut input, &corpus[other]);
        }
        check(&input, numbers.next(8) != 0);
    }
}

#[test]
fn any_bytes_are_a_message_or_a_typed_error_and_allocate_no_more_than_a_message() {
    let mut largest = 0;
    feed("wire", 300_000, |input, fix| {
        let mut input = input.to_vec();
        if fix {
            message::fix_header(&mut input);
        }
        let ((), allocated) = allocations::largest(|| message::check(&input));
        assert!(allocated <= message::LARGEST_ALLOCATION, "{allocated} bytes for {input:02x?}");
        largest = largest.max(allocated);
    });
    // The allocations were recorded.
    assert!(largest > 100, "{largest}");
}

#[test]
fn any_stream_is_payloads_or_typed_errors_and_leaves_no_descriptor_open() {
    feed("stream", 10_000, |script, fix| {
        let mut script = script.to_vec();
        if fix && let Some(piece) = stream::pieces(&mut script).next() {
            message::fix_header(piece);
        }
        stream::check(&script);
    });
}

#[test]
fn a_session_survives_anything_that_its_peer_sends() {
    feed("session", 2_000, |script, fix| {
        let mut script = script.to_vec();
        if fix
            && let Some((_, pieces)) = script.split_first_mut()
            && let Some(piece) = stream::pieces(pieces).next()
        {
            message::fix_header(piece);
        }
        session::check(&script);
    });
}

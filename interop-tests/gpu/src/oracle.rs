//! The results that the kernels must produce, computed on the CPU. See `shaders/README.md`.

use std::fmt;
use std::thread;

const MULTIPLIER: u32 = 1_664_525;
const INDEX_FACTOR: u32 = 2_654_435_761;

/// The word that `fill` writes at index `word`.
pub fn hash(word: u32, seed: u32) -> u32 {
    let mut x = word ^ seed.wrapping_mul(0x9e37_79b9);
    x = (x ^ (x >> 16)).wrapping_mul(0x7feb_352d);
    x = (x ^ (x >> 15)).wrapping_mul(0x846c_a68b);
    x ^ (x >> 16)
}

/// Returns `bytes` bytes as `fill` writes them; an incomplete last word is cut off.
pub fn filled(bytes: usize, seed: u32) -> Vec<u8> {
    let mut data = vec![0u8; bytes];
    parallel(&mut data, |first_word, part| {
        for (word, bytes) in (first_word..).zip(part.chunks_mut(4)) {
            bytes.copy_from_slice(&hash(word, seed).to_le_bytes()[..bytes.len()]);
        }
    });
    data
}

/// The effect of any number of passes on a word `x` at index `w`: `a·x + b·w + c`.
///
/// Passes with different steps don't commute, so a pass that is lost, doubled or out of order changes every
/// word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passes {
    a: u32,
    b: u32,
    c: u32,
}

impl Default for Passes {
    fn default() -> Self {
        Self { a: 1, b: 0, c: 0 }
    }
}

impl Passes {
    /// Appends a pass.
    pub fn then(&mut self, step: u32) {
        self.a = self.a.wrapping_mul(MULTIPLIER);
        self.b = self.b.wrapping_mul(MULTIPLIER).wrapping_add(INDEX_FACTOR);
        self.c = self.c.wrapping_mul(MULTIPLIER).wrapping_add(step);
    }

    /// The word at index `word` after `fill` with `seed` and these passes.
    pub fn word(&self, word: u32, seed: u32) -> u32 {
        let x = self.a.wrapping_mul(hash(word, seed));
        x.wrapping_add(self.b.wrapping_mul(word)).wrapping_add(self.c)
    }
}

/// A payload whose bytes are not as expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// How many 32-bit words differ.
    pub words: u64,
    /// Index of the first of them.
    pub first: u32,
    /// What was expected.
    pub expected: u32,
    /// What was found.
    pub found: u32,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { words, first, expected, found } = self;
        write!(
            f,
            "{words} words are wrong, the first at {first}: {found:#010x}, not {expected:#010x}"
        )
    }
}

impl std::error::Error for Wrong {}

/// Checks every word of `data`.
///
/// # Errors
/// [`Wrong`] with the first word that differs.
pub fn check(data: &[u8], seed: u32, passes: &Passes) -> Result<(), Wrong> {
    check_from(data, 0, seed, passes)
}

/// Checks every word of `data`, which begins at word `from` of the payload.
///
/// # Errors
/// [`Wrong`] with the first word that differs.
pub fn check_from(data: &[u8], from: u32, seed: u32, passes: &Passes) -> Result<(), Wrong> {
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let part_bytes = (data.len().div_ceil(threads).div_ceil(4) * 4).max(4);
    thread::scope(|scope| {
        let parts: Vec<_> = data
            .chunks(part_bytes)
            .enumerate()
            .map(|(i, part)| {
                let first_word = from + (i * (part_bytes / 4)) as u32;
                scope.spawn(move || check_part(part, first_word, seed, passes))
            })
            .collect();
        let mut wrong: Option<Wrong> = None;
        for part in parts {
            if let Err(found) = part.join().expect("the check does not panic") {
                match &mut wrong {
                    Some(before) => before.words += found.words,
                    None => wrong = Some(found),
                }
            }
        }
        wrong.map_or(Ok(()), Err)
    })
}

fn check_part(part: &[u8], first_word: u32, seed: u32, passes: &Passes) -> Result<(), Wrong> {
    let mut wrong: Option<Wrong> = None;
    for (word, bytes) in (first_word..).zip(part.chunks(4)) {
        let expected = passes.word(word, seed);
        if expected.to_le_bytes()[..bytes.len()] == *bytes {
            continue;
        }
        let mut padded = [0u8; 4];
        padded[..bytes.len()].copy_from_slice(bytes);
        let found = u32::from_le_bytes(padded);
        match &mut wrong {
            Some(before) => before.words += 1,
            None => wrong = Some(Wrong { words: 1, first: word, expected, found }),
        }
    }
    wrong.map_or(Ok(()), Err)
}

fn parallel(data: &mut [u8], work: impl Fn(u32, &mut [u8]) + Sync) {
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let part_bytes = (data.len().div_ceil(threads).div_ceil(4) * 4).max(4);
    thread::scope(|scope| {
        for (i, part) in data.chunks_mut(part_bytes).enumerate() {
            let work = &work;
            scope.spawn(move || work((i * (part_bytes / 4)) as u32, part));
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one_by_one(mut x: u32, w: u32, steps: &[u32]) -> u32 {
        for &step in steps {
            let added = w.wrapping_mul(INDEX_FACTOR).wrapping_add(step);
            x = x.wrapping_mul(MULTIPLIER).wrapping_add(added);
        }
        x
    }

    #[test]
    fn the_closed_form_equals_the_passes_one_by_one() {
        let steps = [7, 0, u32::MAX, 12345, 99];
        let mut passes = Passes::default();
        steps.iter().for_each(|&step| passes.then(step));
        for word in [0, 1, 2, 1000, u32::MAX] {
            assert_eq!(passes.word(word, 3), one_by_one(hash(word, 3), word, &steps));
        }
    }

    #[test]
    fn one_wrong_bit_a_lost_pass_and_exchanged_passes_are_found() {
        let mut data = filled(1003, 5);
        check(&data, 5, &Passes::default()).unwrap();
        data[1001] ^= 0x10;
        let wrong = check(&data, 5, &Passes::default()).unwrap_err();
        assert_eq!((wrong.words, wrong.first), (1, 250));
        let after = |steps: &[u32]| {
            let mut passes = Passes::default();
            steps.iter().for_each(|&step| passes.then(step));
            passes
        };
        let data: Vec<u8> = (0..64).flat_map(|w| after(&[1, 2]).word(w, 5).to_le_bytes()).collect();
        check(&data, 5, &after(&[1, 2])).unwrap();
        assert_eq!(check(&data, 5, &after(&[2, 1])).unwrap_err().words, 64);
        assert_eq!(check(&data, 5, &after(&[1])).unwrap_err().words, 64);
    }
}

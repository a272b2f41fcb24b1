//! The content of frames on the CPU: their shape and each of their words. See `shaders/README.md`.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;
use std::thread;

use anyhow::{Context, Result, ensure};
use gpu_interop::ash::vk;
use gpu_interop::headless::Vulkan;

use interop_gpu::kernel::Window;
use interop_gpu::oracle::Wrong;
use interop_gpu::vulkan::{Bound, ShaderLayout};

/// Maximum bytes of a frame: its words are counted in 32 bits.
const MAX_BYTES: u64 = 8 << 30;

/// Descriptor sets: one for each window of each frame that is bound at the same time.
const MAX_SETS: u32 = 1024;

/// The maximum number of work groups of a launch: every GPU supports this many, and each has several elements
/// to count.
const MAX_GROUPS: u32 = 1 << 13;

/// The shape of the frames of a session. Pixels are RGBA8, one word each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    bytes: u64,
    width_log2: u32,
}

impl Shape {
    /// Frames of `bytes` bytes. The width is a power of two and not less than the height; the last row may be
    /// incomplete.
    ///
    /// # Errors
    /// If `bytes` is 0, not a multiple of 16, or more than 8 GiB.
    pub fn new(bytes: u64) -> Result<Self> {
        let whole = bytes != 0 && bytes.is_multiple_of(16);
        ensure!(
            whole,
            "{bytes} bytes: the size of a frame must be a multiple of 16 bytes and not 0"
        );
        ensure!(bytes <= MAX_BYTES, "{bytes} bytes: a frame has at most {MAX_BYTES} bytes");
        // At least four pixels, because a kernel's thread processes four.
        let width_log2 = (bytes / 4).ilog2().div_ceil(2).max(2);
        Ok(Self { bytes, width_log2 })
    }

    /// Bytes of a frame.
    pub fn bytes(self) -> u64 {
        self.bytes
    }

    /// Pixels of a frame, which are its words.
    pub fn words(self) -> u64 {
        self.bytes / 4
    }

    /// Width in pixels.
    pub fn width(self) -> u32 {
        1 << self.width_log2
    }

    /// Height in pixels, without an incomplete last row.
    pub fn height(self) -> u32 {
        (self.words() >> self.width_log2) as u32
    }

    /// The word at `word` of frame number `frame`.
    pub fn word(self, word: u32, frame: u32) -> u32 {
        let scaled = |pixels: u32| (pixels << 12) >> self.width_log2;
        let x = scaled(word & (self.width() - 1));
        let y = scaled(word >> self.width_log2);
        let (dx, dy) = (x.wrapping_sub(2048), y.wrapping_sub(1024));
        let times = |speed: u32| frame.wrapping_mul(speed);
        let rings = dx.wrapping_mul(dx).wrapping_add(dy.wrapping_mul(dy)) >> 10;
        let a = wave(x.wrapping_mul(2).wrapping_add(times(24)) >> 2);
        let b = wave(y.wrapping_mul(3).wrapping_sub(times(16)) >> 2);
        let c = wave(x.wrapping_add(y.wrapping_mul(2)).wrapping_add(times(40)) >> 2);
        let d = wave(rings.wrapping_sub(times(8)));
        let (red, green, blue) = ((a + c) >> 1, (b + d) >> 1, (c + d + 2 * b) >> 2);
        let noise = interop_gpu::oracle::hash(word, frame) & 0x0003_0303;
        let mark = (word.wrapping_mul(2_654_435_761) >> 24).wrapping_add(frame);
        (red & 0xfc) | (green & 0xfc) << 8 | (blue & 0xfc) << 16 | noise | mark << 24
    }

    /// The layout of the kernels `draw` and `check`, which have `buffers` buffers.
    pub(crate) fn layout(vulkan: &Vulkan, buffers: usize) -> Result<ShaderLayout> {
        let bindings = vec![vk::DescriptorType::STORAGE_BUFFER; buffers];
        ShaderLayout::new(vulkan, vk::ShaderStageFlags::COMPUTE, &bindings, 16, MAX_SETS)
    }

    /// The work groups and the parameters of the kernels `draw` and `check` for one window of frame number
    /// `frame`.
    pub(crate) fn launch(self, window: Window, frame: u32) -> (u32, [u32; 4]) {
        let groups = window.groups().clamp(1, MAX_GROUPS);
        (groups, [window.first(), window.count(), frame, self.width_log2])
    }

    /// Records a kernel over frame number `frame`.
    pub(crate) fn record(
        self,
        layout: &ShaderLayout,
        pipeline: vk::Pipeline,
        command: vk::CommandBuffer,
        bound: &Bound,
        frame: u32,
    ) {
        for &(window, set) in &bound.sets {
            let (groups, parameters) = self.launch(window, frame);
            let constants = bytemuck::bytes_of(&parameters);
            layout.dispatch(command, pipeline, set, constants, (groups, 1));
        }
    }

    /// Checks every word of `data` against frame number `frame`.
    ///
    /// # Errors
    /// [`Wrong`] with the first word that differs.
    pub fn check(self, data: &[u8], frame: u32) -> Result<(), Wrong> {
        let parts = parts(data.len() / 4);
        let found = thread::scope(|scope| {
            let check = |part: Range<usize>| {
                scope.spawn(move || {
                    self.check_part(&data[4 * part.start..4 * part.end], part, frame)
                })
            };
            let running: Vec<_> = parts.into_iter().map(check).collect();
            running.into_iter().map(|part| part.join().ok().flatten()).collect::<Vec<_>>()
        });
        let all = found.into_iter().flatten().reduce(|one, other| Wrong {
            words: one.words + other.words,
            ..if one.first < other.first { one } else { other }
        });
        all.map_or(Ok(()), Err)
    }

    fn check_part(self, data: &[u8], part: Range<usize>, frame: u32) -> Option<Wrong> {
        let mut wrong: Option<Wrong> = None;
        for (word, bytes) in part.zip(data.as_chunks::<4>().0) {
            // Words are counted in 32 bits: MAX_BYTES.
            let (word, found) = (word as u32, u32::from_le_bytes(*bytes));
            let expected = self.word(word, frame);
            if found != expected {
                let first = Wrong { words: 0, first: word, expected, found };
                wrong.get_or_insert(first).words += 1;
            }
        }
        wrong
    }

    /// Returns the frame that the word at `word` belongs to, by its mark: the matching number nearest to `near`.
    pub fn frame_of(self, word: u32, found: u32, near: u32) -> u32 {
        let mark = (found >> 24).wrapping_sub(word.wrapping_mul(2_654_435_761) >> 24) & 0xff;
        let off = (mark.wrapping_sub(near) & 0xff) as u8 as i8;
        near.wrapping_add_signed(off.into())
    }

    /// The picture in `data`, without the marks that frames have instead of alpha.
    pub fn picture(self, data: &[u8]) -> Picture {
        let pixels = (self.width() * self.height()) as usize;
        let rgb = data.as_chunks::<4>().0.iter().take(pixels).flat_map(|[r, g, b, _]| [*r, *g, *b]);
        Picture { width: self.width(), height: self.height(), rgb: rgb.collect() }
    }
}

/// An RGB picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Three bytes per pixel, row by row.
    pub rgb: Vec<u8>,
}

/// From 0 up to 255 and down again while `t` goes from 0 to 1023.
fn wave(t: u32) -> u32 {
    let t = t & 1023;
    let u = t.min(1023 - t);
    (u * u * (1536 - 2 * u)) >> 19
}

/// One part per core.
fn parts(words: usize) -> Vec<Range<usize>> {
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let len = words.div_ceil(threads).max(1);
    (0..words).step_by(len).map(|start| start..(start + len).min(words)).collect()
}

/// How a producer describes its frames in the ring's format: `gpu-interop frames: 8388608 bytes, 100 frames`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Announced {
    /// The shape of each.
    pub shape: Shape,
    /// Number of frames.
    pub frames: u32,
}

const PREFIX: &str = "gpu-interop frames: ";

impl fmt::Display for Announced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{} bytes, {} frames", self.shape.bytes, self.frames)
    }
}

impl FromStr for Announced {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let read = || {
            let (bytes, frames) = text.strip_prefix(PREFIX)?.split_once(" bytes, ")?;
            let frames = frames.strip_suffix(" frames")?.parse().ok()?;
            Some((bytes.parse().ok()?, frames))
        };
        let (bytes, frames) = read()
            .with_context(|| format!("the producer's frames have an unknown format: '{text}'"))?;
        Ok(Self { shape: Shape::new(bytes)?, frames })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(shape: Shape, frame: u32) -> Vec<u8> {
        let words = 0..shape.words() as u32;
        words.flat_map(|word| shape.word(word, frame).to_le_bytes()).collect()
    }

    #[test]
    fn frames_are_wide_powers_of_two() {
        for (bytes, size) in [
            (16, (4, 1)),
            (64 << 10, (128, 128)),
            (8 << 20, (2048, 1024)),
            (64 << 20, (4096, 4096)),
            (48, (4, 3)),
        ] {
            let shape = Shape::new(bytes).unwrap();
            assert_eq!((shape.width(), shape.height()), size, "{bytes}");
        }
        for bytes in [0, 8, 17, MAX_BYTES + 16] {
            assert!(Shape::new(bytes).is_err(), "{bytes}");
        }
    }

    #[test]
    fn every_word_holds_its_frame_and_index() {
        let shape = Shape::new(64 << 10).unwrap();
        let data = drawn(shape, 300);
        shape.check(&data, 300).unwrap();
        for other in (301..556).chain(45..300) {
            let wrong = shape.check(&data, other).unwrap_err();
            assert_eq!(wrong.words, shape.words(), "{other}");
        }
        let mut moved = data.clone();
        moved.rotate_left(4);
        assert!(shape.check(&moved, 300).unwrap_err().words > shape.words() * 99 / 100);
        let mut flipped = data;
        flipped[4 * 777 + 2] ^= 1;
        let wrong = shape.check(&flipped, 300).unwrap_err();
        assert_eq!((wrong.words, wrong.first), (1, 777));
    }

    #[test]
    fn a_word_identifies_its_frame() {
        let shape = Shape::new(1 << 20).unwrap();
        for frame in [0, 1, 300, 9_999, u32::MAX] {
            for off in [-128, -3, 0, 1, 127] {
                let near = frame.wrapping_add_signed(-off);
                let found = shape.word(4321, frame);
                assert_eq!(shape.frame_of(4321, found, near), frame, "{off} off");
            }
        }
    }

    #[test]
    fn what_is_announced_is_read_again_and_nonsense_is_refused() {
        let announced = Announced { shape: Shape::new(8 << 20).unwrap(), frames: 77 };
        assert_eq!(announced.to_string().parse::<Announced>().unwrap(), announced);
        for text in ["", "rgba8", "gpu-interop frames: 7 bytes, 1 frames", "gpu-interop frames: x"]
        {
            assert!(text.parse::<Announced>().is_err(), "{text}");
        }
    }
}

//! The two kernels and their parameters.

/// Threads per work group, as in the GLSL sources.
pub const GROUP_SIZE: u32 = 256;

/// Bytes that one thread reads and writes at a time.
pub const ELEMENT_BYTES: u64 = 16;

/// A kernel of `shaders/`, with its last parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kernel {
    /// Writes a hash of each word's index.
    Fill {
        /// Selects one of 2³² possible contents.
        seed: u32,
    },
    /// Reads, maps and writes each word.
    PingPong {
        /// Distinguishes one pass from the next.
        step: u32,
    },
}

impl Kernel {
    /// The last parameter.
    pub fn argument(self) -> u32 {
        match self {
            Self::Fill { seed } => seed,
            Self::PingPong { step } => step,
        }
    }

    /// Bytes that the kernel moves for each byte of the payload.
    pub fn traffic(self) -> u64 {
        match self {
            Self::Fill { .. } => 1,
            Self::PingPong { .. } => 2,
        }
    }
}

/// A part of a payload that one launch works on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Its offset in the buffer, in bytes.
    pub offset: u64,
    /// Its length in bytes.
    pub bytes: u64,
}

impl Window {
    /// Its offset in the payload, in 16-byte elements.
    pub fn first(self) -> u32 {
        (self.offset / ELEMENT_BYTES) as u32
    }

    /// Its length in 16-byte elements.
    pub fn count(self) -> u32 {
        (self.bytes / ELEMENT_BYTES) as u32
    }

    /// The number of work groups for one thread per element.
    pub fn groups(self) -> u32 {
        self.count().div_ceil(GROUP_SIZE)
    }
}

/// Cuts a payload of `bytes` into windows of at most `limit` bytes (a driver's largest storage
/// buffer).
pub fn windows(bytes: u64, limit: u64) -> Vec<Window> {
    // A multiple of any offset alignment that Vulkan and OpenGL allow (at most 256).
    let step = (limit / 256 * 256).max(256);
    let mut offset = 0;
    let mut windows = Vec::new();
    while offset < bytes {
        let bytes = step.min(bytes - offset);
        windows.push(Window { offset, bytes });
        offset += bytes;
    }
    windows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_cover_the_payload_once() {
        let cut = windows(1000 * 16, 4096 + 5);
        assert_eq!(cut.iter().map(|window| window.bytes).sum::<u64>(), 16_000);
        assert!(cut.iter().all(|window| window.bytes <= 4096 && window.offset % 256 == 0));
        assert!(cut.windows(2).all(|pair| pair[0].offset + pair[0].bytes == pair[1].offset));
    }
}

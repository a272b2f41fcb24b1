//! What both directions have in common.

use std::time::Duration;

use anyhow::Result;

use crate::compare::Compared;

/// How long a stage of a frame took.
pub(crate) struct Stage {
    pub(crate) name: &'static str,
    pub(crate) time: Duration,
    /// Whether the time is the GPU's, not the host's.
    pub(crate) on_gpu: bool,
}

/// One direction of sharing, frame by frame.
pub(crate) trait Demo {
    /// Draws the frame at `time`, in seconds: first the shared picture, then, with the other API, the
    /// cube that shows it. If `verify` is set, both APIs read the shared picture and must read the same bytes.
    fn frame(&mut self, time: f32, verify: bool) -> Result<Vec<Stage>>;

    /// The last frame, row by row from the top, four bytes per pixel, sRGB-encoded.
    fn picture(&mut self) -> Result<Vec<u8>>;

    /// OpenGL's texture of the last frame, for a window.
    #[cfg_attr(not(feature = "window"), allow(dead_code))]
    fn texture(&self) -> Result<gpu_interop::glow::Texture>;

    /// Measures what sharing costs the sampling API, `samples` times. No frame may be drawn afterwards.
    fn compare(&mut self, samples: u32, step: &mut dyn FnMut()) -> Result<Compared>;

    /// How the handoffs are synchronised, and why no better method was chosen.
    fn handoffs(&self) -> (String, Vec<String>);

    /// Levels of the shared picture.
    fn levels(&self) -> u32;
}

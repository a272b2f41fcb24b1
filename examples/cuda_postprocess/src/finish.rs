//! The last stage: the vignette, and the way back to the host.

use std::time::Duration;

use anyhow::Result;
use gpu_interop::handoff::Ticket;

use crate::host_pages::HostPages;

/// How long the parts of the last stage took on the GPU (`copy_on_host`: on the host).
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct FinishTimes {
    /// From pinned memory to if the API reads pinned memory.
    pub copy_on_host: Duration,
    /// From the host to the GPU.
    pub upload: Duration,
    /// The vignette.
    pub vignette: Duration,
}

/// One API's last stage.
pub(crate) trait Finish {
    /// The API.
    fn api(&self) -> &'static str;

    /// Takes the shared picture over, frames it, and gives it back. Doesn't wait.
    fn frame_shared(&mut self, ticket: Ticket) -> Result<Ticket>;

    /// Uploads the picture that CUDA has copied to `pages`, and frames it. Doesn't wait for the GPU.
    fn frame_copied(&mut self, pages: &mut HostPages) -> Result<()>;

    /// Waits until the framed picture is done.
    fn wait(&mut self) -> Result<()>;

    /// How long the last frame took. It is waited for.
    fn times(&mut self) -> Result<FinishTimes>;

    /// The framed picture's bytes: RGBA, sRGB-encoded, the top row first. It is waited for.
    fn read(&mut self) -> Result<Vec<u8>>;
}

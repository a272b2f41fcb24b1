//! The last stage: adds the vignette, and reads the picture back.

use std::time::Duration;

use anyhow::Result;
use gpu_interop::handoff::Ticket;

use crate::host_pages::HostPages;

/// How long the parts of the last stage took on the GPU (`copy_on_host`: on the host).
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct FinishTimes {
    /// From CUDA's pinned memory to the memory that the API uploads from.
    pub copy_on_host: Duration,
    /// From the host to the GPU.
    pub upload: Duration,
    /// The vignette.
    pub vignette: Duration,
}

/// The last stage in one API.
pub(crate) trait Finish {
    /// The API.
    fn api(&self) -> &'static str;

    /// Acquires the shared picture, adds the vignette, and releases it. Does not wait.
    fn frame_shared(&mut self, ticket: Ticket) -> Result<Ticket>;

    /// Uploads the picture that CUDA has copied to `pages`, and adds the vignette. Does not wait for the GPU.
    fn frame_copied(&mut self, pages: &mut HostPages) -> Result<()>;

    /// Waits until the picture is finished.
    fn wait(&mut self) -> Result<()>;

    /// The times of the last frame. Waits for it.
    fn times(&mut self) -> Result<FinishTimes>;

    /// The bytes of the finished picture: RGBA, sRGB-encoded, the top row first. Waits for it.
    fn read(&mut self) -> Result<Vec<u8>>;
}

//! One API's part in a path.

use std::time::Duration;

use anyhow::Result;
use gpu_interop::handoff::Ticket;

use interop_gpu::Kernel;

/// What a stage does with the payload in one turn.
#[derive(Clone, Copy, Debug)]
pub enum Work {
    /// The kernel over all of it, with so many work groups (0: one thread per element).
    Whole(Kernel, u32),
    /// The kernel over the first 256 elements: what remains is the handoff.
    Touch(Kernel),
    /// Nothing: only acquire and release.
    Nothing,
}

/// One API that shares the payload.
pub trait Stage {
    /// The API.
    fn api(&self) -> &'static str;

    /// Acquires the payload (the first turn of all has no ticket), works, and releases it to the
    /// next stage. Returns without waiting, if the handoff allows.
    ///
    /// # Errors
    /// If a driver fails.
    fn turn(&mut self, ticket: Option<Ticket>, work: Work) -> Result<Ticket>;

    /// Acquires the payload and keeps it, until the next [`release`](Self::release).
    ///
    /// # Errors
    /// If a driver fails.
    fn acquire(&mut self, ticket: Ticket) -> Result<()>;

    /// Releases the payload to the next stage.
    ///
    /// # Errors
    /// If a driver fails.
    fn release(&mut self) -> Result<Ticket>;

    /// Runs the kernel over the shared payload, which this stage has acquired.
    ///
    /// # Errors
    /// If a driver fails.
    fn time_shared(&mut self, kernel: Kernel, groups: u32) -> Result<Duration>;

    /// Runs the kernel over memory of the API's own, of the same size.
    ///
    /// # Errors
    /// If a driver fails.
    fn time_private(&mut self, kernel: Kernel, groups: u32) -> Result<Duration>;

    /// Reads the payload, which this stage has acquired.
    ///
    /// # Errors
    /// If a driver fails.
    fn read(&mut self) -> Result<Vec<u8>>;

    /// Waits until all of this stage's work is done.
    ///
    /// # Errors
    /// If a driver fails.
    fn finish(&mut self) -> Result<()>;
}

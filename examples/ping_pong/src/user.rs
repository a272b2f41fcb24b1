//! What every API does with shared payloads.

use std::time::Duration;

use anyhow::Result;
use gpu_interop::Peer;
use gpu_interop::handoff::{Acquirer, Releaser, Ticket};
use gpu_interop::ring::{RingPeer, RingStage};
use interop_gpu::Kernel;

/// Longer than any work here takes.
pub const TIMEOUT: Duration = Duration::from_secs(60);

/// A kernel that runs over a payload.
#[derive(Clone, Copy, Debug)]
pub enum Work {
    /// The kernel over the whole payload, with this number of work groups; 0 is one thread per
    /// element.
    Whole(Kernel, u32),
    /// The kernel over the first 256 elements only, so that the handoff dominates.
    Touch(Kernel),
}

/// Bytes that [`Work::Touch`] works on.
pub const TOUCHED_BYTES: u64 = 4096;

/// The buffer that a user has imported.
pub type BufferOf<U> = <<U as PayloadUser>::Endpoint as Peer>::Buffer;

/// A user's ends of the handoffs to it and from it, and the payload that passes through both.
#[derive(Debug)]
pub struct Ends<U: PayloadUser + ?Sized> {
    /// Acquires from the user before this one.
    pub acquirer: Acquirer<U::Endpoint>,
    /// Releases to the next user.
    pub releaser: Releaser<U::Endpoint>,
    /// The payload. Dropped after the ends, which wait for its last use.
    pub buffer: BufferOf<U>,
}

/// An API that uses shared payloads: it acquires them, runs a kernel over them and releases them.
///
/// Errors are those of the driver, unless noted.
#[allow(clippy::missing_errors_doc)]
pub trait PayloadUser: 'static {
    /// The library's endpoint.
    type Endpoint: RingPeer;
    /// Work that is prepared once and run often: a command buffer with Vulkan.
    type Prepared;
    /// A private payload.
    type Private;

    /// The name in reports.
    fn name(&self) -> &'static str;

    /// The endpoint.
    fn endpoint(&self) -> &Self::Endpoint;

    /// Prepares `work` over each of `buffers`, which are acquired and released together.
    fn prepare(&self, buffers: &[BufferOf<Self>], work: Work) -> Result<Self::Prepared>;

    /// Acquires the payload, runs the prepared work and releases the payload. `ticket` is `None`
    /// for a payload that was filled and released without one. Does not wait, if the handoff
    /// allows.
    fn pass(
        &mut self,
        ticket: Option<Ticket>,
        ends: &mut Ends<Self>,
        prepared: &Self::Prepared,
    ) -> Result<Ticket>;

    /// Takes the next `batch` slots of a ring, runs the work over each and releases them together.
    /// `prepared` has one entry for every `batch` slots. Calls `passed` with the index of each
    /// slot.
    fn ring_pass(
        &mut self,
        stage: &mut RingStage<Self::Endpoint>,
        prepared: &[Self::Prepared],
        batch: usize,
        passed: impl FnMut(usize),
    ) -> Result<()>;

    /// Acquires the payload and keeps it until [`release`](Self::release). Waits.
    fn acquire(&mut self, ticket: Ticket, ends: &mut Ends<Self>) -> Result<()>;

    /// Releases the payload.
    fn release(&mut self, ends: &mut Ends<Self>) -> Result<Ticket>;

    /// Runs `work` over the payload, which this user has acquired, and returns how long it took.
    fn time(&self, buffer: &BufferOf<Self>, work: Work) -> Result<Duration>;

    /// Reads the payload, which this user has acquired.
    fn read(&self, buffer: &BufferOf<Self>) -> Result<Vec<u8>>;

    /// Allocates and fills a private payload.
    fn private(&self, bytes: u64) -> Result<Self::Private>;

    /// Same as [`time`](Self::time), over a private payload.
    fn time_private(&self, private: &mut Self::Private, work: Work) -> Result<Duration>;

    /// Waits until all work is done.
    fn finish(&mut self) -> Result<()>;
}

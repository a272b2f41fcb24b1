//! Handoffs in a CUDA graph that is captured once and launched many times.

use std::ops::Range;
use std::sync::Arc;

use cudarc::driver::{CudaStream, DriverError as CudarcError, sys};

use super::channel::{Channel, InFlight, Release, Ticket};
use super::contents::Contents;
use super::ends::{Acquirer, Releaser};
use super::peer::{SemaphoreOp, semaphore_ops};
use super::wait::HostFence;
use crate::capabilities::SyncMethod;
use crate::cuda::library::failed;
use crate::cuda::uses::UsedStream;
use crate::cuda::{Endpoint, Semaphore, SemaphoreNode};
use crate::error::{ImportError, ImportResult, Invalid, Result};
use crate::vulkan::{Half, SubmitHandoff as _};

/// An acquire at the beginning of a CUDA graph and a release at its end, for any number of
/// launches.
///
/// The graph's nodes wait for and signal the handoffs' semaphores. Each launch acquires one ticket
/// and returns another, with new timeline values, which [`replay`](Self::replay) sets before it
/// launches. A host wait happens before the launch.
///
/// The graph keeps the semaphores alive. Pass bare addresses
/// ([`Buffer::device_ptr`](crate::cuda::Buffer::device_ptr)) to its kernels, and call
/// [`Memory::keep_in_capture`](crate::cuda::Memory::keep_in_capture) so that the graph keeps the
/// memory. cudarc's views can't be used: they order accesses with events, which fails in a capture.
///
/// A graph without handoffs needs none of this: acquire on the stream before the launch, and
/// release after it.
///
/// # Examples
/// ```no_run
/// use gpu_interop::cuda::{Buffer, Endpoint};
/// use gpu_interop::cudarc::driver::{CudaGraph, CudaStream, DriverError, sys};
/// use gpu_interop::handoff::{Acquirer, GraphHandoff, Releaser, Ticket};
/// use std::sync::Arc;
///
/// /// Captures a graph that works on `buffer`.
/// fn capture(
///     stream: &Arc<CudaStream>,
///     from_vulkan: Acquirer<Endpoint>,
///     to_vulkan: Releaser<Endpoint>,
///     buffer: &Buffer,
///     kernels: impl FnOnce(&CudaStream, sys::CUdeviceptr) -> Result<(), DriverError>,
/// ) -> Result<(CudaGraph, GraphHandoff), Box<dyn std::error::Error>> {
///     stream.begin_capture(sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL)?;
///     let acquired = from_vulkan.capture(stream)?;
///     buffer.memory().keep_in_capture(stream)?;
///     kernels(stream, buffer.device_ptr())?;
///     let handoff = acquired.release(to_vulkan, stream)?;
///     let graph = stream.end_capture(sys::CUgraphInstantiate_flags(0))?.ok_or("no graph")?;
///     Ok((graph, handoff))
/// }
///
/// /// Launches the graph for a ticket from Vulkan, and returns the ticket for Vulkan.
/// fn launch(
///     graph: &CudaGraph,
///     handoff: &mut GraphHandoff,
///     stream: &Arc<CudaStream>,
///     ticket: Ticket,
/// ) -> gpu_interop::Result<Ticket> {
///     // SAFETY: the executable graph is that of the capture; nothing else uses it.
///     Ok(unsafe { handoff.replay(graph.cu_graph_exec(), stream, Some(ticket), || graph.launch()) }?)
/// }
/// ```
#[derive(Debug)]
pub struct GraphHandoff {
    acquire: CapturedAcquire,
    releaser: Releaser<Endpoint>,
    /// `None` for a host wait.
    signal: Option<SemaphoreNode>,
}

/// An acquire that was captured into a CUDA graph. Its release is still to be captured.
#[derive(Debug)]
#[must_use = "the graph's launches need the release, too"]
pub struct CapturedAcquire {
    acquirer: Acquirer<Endpoint>,
    /// `None` for a host wait.
    wait: Option<SemaphoreNode>,
}

impl Acquirer<Endpoint> {
    /// Captures an acquire, which every launch repeats, into the graph that `stream` is being
    /// captured into. Work captured afterwards follows the acquire.
    ///
    /// # Errors
    /// Returns the acquirer with [`Error::Invalid`](crate::Error::Invalid) if the stream is not
    /// being captured; [`Error::Mismatch`](crate::Error::Mismatch) for a stream of another context;
    /// [`Error::Driver`](crate::Error::Driver) if a CUDA call fails. The capture stays valid unless
    /// the driver fails.
    ///
    /// # References
    /// `cuWaitExternalSemaphoresAsync` in a capture.
    pub fn capture(self, stream: &CudaStream) -> ImportResult<CapturedAcquire, Self> {
        let wait = capture(self.endpoint(), &self.semaphores, stream, |semaphore| {
            self.endpoint().capture_wait(stream, semaphore.0, semaphore.1)
        });
        match wait {
            Ok(wait) => Ok(CapturedAcquire { acquirer: self, wait }),
            Err(error) => Err(ImportError::new(self, error)),
        }
    }
}

impl CapturedAcquire {
    /// Captures a release, which every launch repeats, after the work captured so far. End the
    /// capture afterwards.
    ///
    /// # Errors
    /// Same as [`Acquirer::capture`]; both ends are returned.
    ///
    /// # References
    /// `cuSignalExternalSemaphoresAsync` in a capture.
    pub fn release(
        self,
        releaser: Releaser<Endpoint>,
        stream: &CudaStream,
    ) -> ImportResult<GraphHandoff, (Self, Releaser<Endpoint>)> {
        let signal = capture(releaser.endpoint(), &releaser.semaphores, stream, |semaphore| {
            releaser.endpoint().capture_signal(stream, semaphore.0, semaphore.1)
        });
        match signal {
            Ok(signal) => Ok(GraphHandoff { acquire: self, releaser, signal }),
            Err(error) => Err(ImportError::new((self, releaser), error)),
        }
    }
}

/// Captures a node for the first of `semaphores`, and keeps the others, which later launches use.
fn capture(
    endpoint: &Endpoint,
    semaphores: &[Semaphore],
    stream: &CudaStream,
    node: impl FnOnce(SemaphoreOp<'_, Semaphore>) -> Result<SemaphoreNode>,
) -> Result<Option<SemaphoreNode>> {
    endpoint.check_captured(stream)?;
    let Some((first, others)) = semaphores.split_first() else { return Ok(None) };
    others.iter().try_for_each(|other| other.keep_in_capture(stream))?;
    // Each launch sets its own value.
    let value = (first.kind() == crate::SemaphoreKind::Timeline).then_some(1);
    node((first, value)).map(Some)
}

impl GraphHandoff {
    /// Launches the graph with `launch`. The graph's work waits for the release of `ticket`; the
    /// returned ticket is for the graph's own release, and may be acquired at once.
    ///
    /// `ticket` is `None` if CUDA owns the payload already, for example before the first launch.
    /// `launch` must enqueue one launch of `exec` on `stream`, or return an error if it did not. If
    /// it panics, the ticket is lost, and [`lost_tickets`](Self::lost_tickets) returns it.
    ///
    /// # Safety
    /// - `exec` was instantiated from the graph into which this was captured. That graph still
    ///   exists, and no other thread uses either during the call.
    /// - After the first call, `exec` is launched only by further calls of this method.
    ///
    /// # Errors
    /// The errors of [`Acquirer::acquire`] and [`Releaser::release`], and
    /// [`Error::Driver`](crate::Error::Driver) if `launch` fails;
    /// [`Error::Invalid`](crate::Error::Invalid) without a ticket if the semaphore is binary. The
    /// ticket is returned, nothing is launched, and the call may be repeated.
    ///
    /// # References
    /// `cuGraphExecExternalSemaphoresWaitNodeSetParams`,
    /// `cuGraphExecExternalSemaphoresSignalNodeSetParams`, `cuGraphLaunch`.
    #[doc(alias = "cuGraphLaunch")]
    pub unsafe fn replay(
        &mut self,
        exec: sys::CUgraphExec,
        stream: &CudaStream,
        ticket: Option<Ticket>,
        launch: impl FnOnce() -> Result<(), CudarcError>,
    ) -> ImportResult<Ticket, Option<Ticket>> {
        let channel = self.releaser.channel.clone();
        let mut reserved = match Reserved::new(&channel) {
            Ok(reserved) => reserved,
            Err(error) => return Err(ImportError::new(ticket, error)),
        };
        let sequence = reserved.sequence;
        // SAFETY: the caller's promise.
        let launched = unsafe { self.advance(exec, stream, ticket.as_ref(), sequence) }
            .and_then(|()| launch().map_err(|CudarcError(result)| failed("cuGraphLaunch", result)));
        if let Err(error) = launched {
            reserved.end = Some(InFlight::unreserve);
            return Err(ImportError::new(ticket, error));
        }
        if let Some(ticket) = ticket {
            self.acquire.acquirer.acquired(ticket.sequence(), std::iter::once(ticket));
        }
        let released = self.released(sequence, stream);
        if released.is_ok() {
            reserved.end = None;
        }
        released.map_err(|error| ImportError::new(None, error))
    }

    /// Sets the nodes' parameters for the next launch, whose release is number `sequence`.
    ///
    /// # Safety
    /// That of `replay`.
    unsafe fn advance(
        &self,
        exec: sys::CUgraphExec,
        stream: &CudaStream,
        ticket: Option<&Ticket>,
        sequence: u64,
    ) -> Result<()> {
        let Self { acquire: CapturedAcquire { acquirer, wait }, releaser, signal } = self;
        if let Some(ticket) = ticket {
            acquirer.check(std::iter::once(ticket))?;
        }
        let number = ticket.map(Ticket::sequence);
        let current = releaser.endpoint.enter_stream(stream)?;
        let used = UsedStream::new(&current, stream);
        for semaphore in acquirer.semaphores.iter().chain(&releaser.semaphores) {
            semaphore.prepare_use(&current, &used)?;
        }
        if let Some(node) = wait {
            let (semaphore, value) = operation(&acquirer.semaphores, acquirer.method(), number)?;
            // SAFETY: the caller's promise; the graph keeps all semaphores of the handoff.
            unsafe { node.set(exec, semaphore, value) }?;
        }
        if let Some(node) = signal {
            let (semaphore, value) =
                operation(&releaser.semaphores, releaser.method(), Some(sequence))?;
            // SAFETY: as above.
            unsafe { node.set(exec, semaphore, value) }?;
        }
        Ok(())
    }

    /// Records a release that was launched, and returns its ticket. The semaphores are in use until
    /// the launch is done.
    fn released(&self, sequence: u64, stream: &CudaStream) -> Result<Ticket> {
        let Releaser { endpoint, channel, semaphores, .. } = &self.releaser;
        let current = endpoint.enter_stream(stream)?;
        let used = UsedStream::new(&current, stream);
        let both = self.acquire.acquirer.semaphores.iter().chain(semaphores);
        both.for_each(|semaphore| semaphore.note_use(&current, &used));
        let host = match channel.method {
            SyncMethod::HostWait => Some(HostFence::Cuda(endpoint.fence(stream)?)),
            _ => None,
        };
        channel.submitted(&Half::Release(sequence..sequence + 1));
        let release = Release { sequence, host, contents: Contents::UNKNOWN };
        Ok(Ticket::new(Arc::clone(channel), release))
    }

    /// Returns new tickets for releases to the graph whose ticket was dropped, oldest first.
    pub fn lost_tickets(&mut self) -> Vec<Ticket> {
        self.acquire.acquirer.lost_tickets()
    }

    /// Returns both ends, for acquires and releases outside the graph. The captured graph can't be
    /// replayed afterwards.
    pub fn into_ends(self) -> (Acquirer<Endpoint>, Releaser<Endpoint>) {
        (self.acquire.acquirer, self.releaser)
    }
}

/// The number of a release that is being launched.
struct Reserved<'a> {
    channel: &'a Channel,
    sequence: u64,
    /// What happens to the number on drop. A launch that panics may have signalled, so its number
    /// is not used again.
    end: Option<fn(&mut InFlight, &Range<u64>)>,
}

impl<'a> Reserved<'a> {
    fn new(channel: &'a Channel) -> Result<Self> {
        let sequence = channel.reserve(1, false)?.start;
        Ok(Self { channel, sequence, end: Some(InFlight::abandon) })
    }
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        if let Some(end) = self.end {
            end(&mut self.channel.in_flight(), &(self.sequence..self.sequence + 1));
        }
    }
}

/// Returns the semaphore and the value of release `sequence`, or an operation without effect for
/// `None`.
fn operation<S>(
    semaphores: &[S],
    method: SyncMethod,
    sequence: Option<u64>,
) -> Result<SemaphoreOp<'_, S>> {
    let ops = match (sequence, method) {
        // A timeline starts at 0.
        (None, SyncMethod::Timeline) => semaphore_ops(semaphores, method, std::iter::once(0)),
        _ => semaphore_ops(semaphores, method, sequence.into_iter()),
    };
    ops.into_iter().next().ok_or_else(|| {
        Invalid::new("ticket", "is missing, and the wait for a binary semaphore can't be left out")
            .help("let the other side release first, or open the handoff with a timeline semaphore")
            .into()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    #[test]
    fn each_launch_waits_for_the_value_or_the_semaphore_of_its_ticket() {
        let timeline = |sequence| operation(&['t'], SyncMethod::Timeline, sequence).unwrap();
        assert_eq!(timeline(Some(7)), (&'t', Some(7)));
        assert_eq!(timeline(None), (&'t', Some(0)));
        let binary = |sequence| operation(&['a', 'b'], SyncMethod::Binary, sequence);
        assert_eq!(binary(Some(3)).unwrap(), (&'a', None));
        assert_eq!(binary(Some(4)).unwrap(), (&'b', None));
        let refused = binary(None);
        assert!(matches!(&refused, Err(Error::Invalid(i)) if i.help.is_some()), "{refused:?}");
    }
}
